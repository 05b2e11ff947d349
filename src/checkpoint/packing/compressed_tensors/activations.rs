//! What compressed-tensors' settings declare about the numbers that flow: inputs, outputs, the KV cache.
//!
//! Arithmetic after `quantization/lifecycle/forward_helpers.py` and `quantization/utils/helpers.py` of
//! compressed-tensors 0.19. What cannot be said in our own terms is refused by name: a scheme that is read but not
//! computed would be measured as if it cost nothing.

use safetensors::Dtype;

use super::settings::{Args, Dynamic, Settings, Strategy};
use crate::{
    checkpoint::{
        activations::{
            ActivationFormat, ActivationQuantization, ActivationScale, Granularity, KvCacheQuantization,
        },
        packing::{
            TensorView, Tensors,
            grid::{Sound, scalar},
        },
    },
    error::{Error, Result},
    minifloat::{E2M1_MAX, E4M3_MAX},
};

/// Elements of a group whose scale is a power of two (OCP MX).
const MX_GROUP: usize = 32;

/// Reads a declaration; `side` is "input" or "output", the beginning of its tensors' names.
///
/// # Errors
/// A scheme that is not computed here; a calibrated scale that is missing or no positive number.
pub(super) fn declared(
    settings: &Settings,
    args: &Args,
    tensors: &Tensors,
    module: &str,
    side: &str,
) -> Result<ActivationQuantization> {
    let format = format(settings, args)?;
    let half_range = half_range(format);
    let tensor = |ending: &str| format!("{module}.{side}_{ending}");
    let why = || format!("`{}` declares that it is calibrated", args.key);
    let power_of_two = args.scale_dtype.as_deref() == Some("uint8")
        || (format == ActivationFormat::E2m1 && args.strategy == Strategy::Group(MX_GROUP));
    let (granularity, scale) = match (args.dynamic, args.strategy) {
        (Dynamic::No, Strategy::Tensor) => {
            let scale = scalar(&tensors.require(&tensor("scale"), &why())?, Sound::Positive)?;
            let zero_point = match tensors.get(&tensor("zero_point")) {
                None if args.symmetric => 0.0,
                Some(stored) => zero_point(&stored)?,
                None => zero_point(&tensors.require(&tensor("zero_point"), &why())?)?,
            };
            (Granularity::Tensor, ActivationScale::Static { scale, zero_point })
        }
        (Dynamic::Yes, Strategy::Tensor) => (Granularity::Tensor, ActivationScale::Dynamic { half_range }),
        (Dynamic::Yes, Strategy::Token) => (Granularity::Token, ActivationScale::Dynamic { half_range }),
        (Dynamic::Yes, Strategy::Group(size)) if power_of_two => {
            (Granularity::Group(size), ActivationScale::PowerOfTwo)
        }
        (Dynamic::Yes, Strategy::Group(size)) => {
            (Granularity::Group(size), ActivationScale::Dynamic { half_range })
        }
        (Dynamic::Local, Strategy::TensorGroup(size)) if format == ActivationFormat::E2m1 => {
            let global = scalar(&tensors.require(&tensor("global_scale"), &why())?, Sound::Positive)?;
            (Granularity::Group(size), ActivationScale::Local { global })
        }
        _ => return Err(refused(settings, args)),
    };
    let scale_dtype = args.scale_dtype.as_deref();
    let known_dtype = match scale {
        ActivationScale::PowerOfTwo => matches!(scale_dtype, None | Some("uint8")),
        ActivationScale::Local { .. } => matches!(scale_dtype, None | Some("float8_e4m3fn")),
        _ => matches!(scale_dtype, None | Some("float32")),
    };
    if !known_dtype {
        return Err(refused(settings, args));
    }
    Ok(ActivationQuantization::Scaled { format, granularity, scale })
}

/// The declared cache of one layer.
///
/// # Errors
/// Another scheme than one calibrated scale per layer for keys and one for values; a scale that is missing.
pub(super) fn kv_cache(
    settings: &Settings,
    args: &Args,
    tensors: &Tensors,
    attention: &str,
) -> Result<KvCacheQuantization> {
    let format = format(settings, args)?;
    let supported =
        matches!(format, ActivationFormat::E4m3 | ActivationFormat::Int { bits: 8, symmetric: true });
    if !supported || args.dynamic != Dynamic::No || args.strategy != Strategy::Tensor {
        return Err(refused(settings, args));
    }
    let scale = |letter: char| {
        // The first is today's name; the others are ModelOpt's and that of 2024's llm-compressor.
        let names = [
            format!("{attention}.{letter}_scale"),
            format!("{attention}.{letter}_proj.{letter}_scale"),
            format!("{attention}.{letter}_proj.output_scale"),
        ];
        let tensor = match names.iter().find_map(|name| tensors.get(name)) {
            Some(tensor) => tensor,
            None => tensors.require(&names[0], "`kv_cache_scheme` declares that it is calibrated")?,
        };
        scalar(&tensor, Sound::Positive)
    };
    Ok(KvCacheQuantization { format, k_scale: scale('k')?, v_scale: scale('v')? })
}

fn format(settings: &Settings, args: &Args) -> Result<ActivationFormat> {
    match (args.float, args.num_bits, args.symmetric) {
        (true, 8, true) => Ok(ActivationFormat::E4m3),
        (true, 4, true) => Ok(ActivationFormat::E2m1),
        (false, bits @ 2..=8, symmetric) => Ok(ActivationFormat::Int { bits, symmetric }),
        _ => Err(refused(settings, args)),
    }
}

/// Half of the range of the codes: 127.5 for int8.
fn half_range(format: ActivationFormat) -> f32 {
    match format {
        ActivationFormat::Int { bits, .. } => ((1u32 << bits) - 1) as f32 / 2.0,
        ActivationFormat::E4m3 => E4M3_MAX,
        ActivationFormat::E2m1 => E2M1_MAX,
    }
}

fn zero_point(tensor: &TensorView) -> Result<f32> {
    if tensor.dtype != Dtype::I8 {
        return scalar(tensor, Sound::Finite);
    }
    match tensor.stored().bytes() {
        [zero] => Ok(f32::from(*zero as i8)),
        _ => Err(tensor.problem(
            format!("has shape {:?}, expected one number", tensor.shape),
            "the file is damaged, or written by a tool that packs in another way",
        )),
    }
}

fn refused(settings: &Settings, args: &Args) -> Error {
    let kind = match (args.float, args.symmetric) {
        (true, _) => "float",
        (false, true) => "int",
        (false, false) => "asymmetric int",
    };
    let dynamic = match args.dynamic {
        Dynamic::No => "calibrated",
        Dynamic::Yes => "dynamic",
        Dynamic::Local => "dynamic local",
    };
    let scales = args.scale_dtype.as_ref().map_or(String::new(), |dtype| format!(", scales in {dtype}"));
    settings.source.problem(
        &args.key,
        format!(
            "the scheme {kind}{}, {:?}, {dynamic}{scales} is not computed by this version",
            args.num_bits, args.strategy
        ),
        "compare a checkpoint with another scheme; weights alone would not show what this one costs",
    )
}
