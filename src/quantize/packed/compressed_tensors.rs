//! compressed-tensors: codes in bytes or 32-bit words, scales beside them, and `config_groups`.
//!
//! Layout as its reader describes it (`checkpoint/packing/compressed_tensors.rs`); settings as LLM Compressor writes
//! them with compressed-tensors 0.19. Scales of integers and FP8 are F32, as they were computed.

use rayon::prelude::*;
use safetensors::Dtype;
use serde_json::{Value as Json, json};

use super::{Part, f32_bytes, named, of_module};
use crate::{
    checkpoint::{
        activations::{
            ActivationFormat as Number, ActivationQuantization as Activations, ActivationScale, Granularity,
        },
        pack_codes,
    },
    cousin::simulate::{Encoder, FP8_BLOCK, Quantizer, Scheme, Share, StoredScale},
    error::{Error, Result},
    minifloat::{e4m3_code, e8m0_code},
};

/// How the codes of a matrix lie in its tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// I8, one code in a byte.
    IntQuantized,
    /// I32, codes of `bits` bits, unsigned.
    PackQuantized { bits: u32 },
    /// F8_E4M3.
    FloatQuantized,
    /// Two E2M1 in a byte; scales in E4M3 against a factor.
    Nvfp4,
    /// Two E2M1 in a byte; scales powers of two.
    Mxfp4,
    /// F8_E4M3; scales powers of two.
    Mxfp8,
}

impl Format {
    fn of(quantizer: Quantizer) -> Result<Self> {
        match (quantizer.scheme, quantizer.input()) {
            (Scheme::Int { bits: 8, symmetric: true, .. }, Some(_)) => Ok(Self::IntQuantized),
            (Scheme::Int { bits, .. }, None) => Ok(Self::PackQuantized { bits }),
            (Scheme::E4m3(Share::Row | Share::Block), Some(_)) => Ok(Self::FloatQuantized),
            (Scheme::Nvfp4, None) => Ok(Self::Nvfp4),
            (Scheme::Mxfp4, _) => Ok(Self::Mxfp4),
            (Scheme::Mxfp8, _) => Ok(Self::Mxfp8),
            _ => Err(unknown(quantizer)),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::IntQuantized => "int-quantized",
            Self::PackQuantized { .. } => "pack-quantized",
            Self::FloatQuantized => "float-quantized",
            Self::Nvfp4 => "nvfp4-pack-quantized",
            Self::Mxfp4 => "mxfp4-pack-quantized",
            Self::Mxfp8 => "mxfp8-quantized",
        }
    }

    /// Ending of the codes' name, their element type, and how many elements a row of so many weights takes.
    fn codes(self, columns: usize) -> (&'static str, Dtype, usize) {
        match self {
            Self::IntQuantized => ("weight", Dtype::I8, columns),
            Self::PackQuantized { bits } => {
                ("weight_packed", Dtype::I32, (columns * bits as usize).div_ceil(32))
            }
            Self::FloatQuantized | Self::Mxfp8 => ("weight", Dtype::F8_E4M3, columns),
            Self::Nvfp4 | Self::Mxfp4 => ("weight_packed", Dtype::U8, columns.div_ceil(2)),
        }
    }

    fn scale_dtype(self) -> Dtype {
        match self {
            Self::IntQuantized | Self::PackQuantized { .. } | Self::FloatQuantized => Dtype::F32,
            Self::Nvfp4 => Dtype::F8_E4M3,
            Self::Mxfp4 | Self::Mxfp8 => Dtype::U8,
        }
    }

    /// Puts the codes of one row, a byte each, as they lie in the file; they are changed on the way.
    fn pack(self, codes: &mut [u8], out: &mut [u8]) {
        match self {
            Self::IntQuantized | Self::FloatQuantized | Self::Mxfp8 => out.copy_from_slice(codes),
            Self::PackQuantized { bits } => {
                codes.iter_mut().for_each(|code| *code = unsigned(bits, *code));
                pack_codes(bits, codes, out);
            }
            Self::Nvfp4 | Self::Mxfp4 => pack_codes(4, codes, out),
        }
    }
}

/// u = q + 2^(b−1) of a code in two's complement.
fn unsigned(bits: u32, code: u8) -> u8 {
    let half = 1u8 << (bits - 1);
    code.wrapping_add(half) & (half | (half - 1))
}

fn unknown(quantizer: Quantizer) -> Error {
    Error::argument(
        format!("{} has no layout in compressed-tensors here", quantizer.label()),
        "report this as a bug of qeval",
    )
}

/// Whether zero points are stored.
fn has_zeros(scheme: Scheme) -> bool {
    matches!(scheme, Scheme::Int { symmetric: false, .. })
}

/// Rows and columns of the scales.
fn grid(encoder: &Encoder) -> [usize; 2] {
    let (weight, [rows, columns]) = (encoder.weight(), encoder.shared());
    [weight.rows().div_ceil(rows.max(1)), weight.columns().div_ceil(columns.max(1))]
}

/// Words that hold the zero points of a column of scales, packed down the rows.
fn zero_words(bits: u32, rows: usize) -> usize {
    (rows * bits as usize).div_ceil(32)
}

/// The tensors of a matrix.
///
/// # Errors
/// A quantizer without a layout here.
pub(super) fn parts(encoder: &Encoder, quantizer: Quantizer) -> Result<Vec<Part>> {
    let format = Format::of(quantizer)?;
    let weight = encoder.weight();
    let (rows, grid) = (weight.rows(), grid(encoder));
    let (ending, dtype, width) = format.codes(weight.columns());
    let mut parts = vec![
        of_module(weight, ending, dtype, [rows, width]),
        of_module(weight, "weight_scale", format.scale_dtype(), grid),
    ];
    if let Format::PackQuantized { bits } = format {
        parts.push(of_module(weight, "weight_shape", Dtype::I64, [2]));
        if has_zeros(quantizer.scheme) {
            let shape = [zero_words(bits, grid[0]), grid[1]];
            parts.push(of_module(weight, "weight_zero_point", Dtype::I32, shape));
        }
    }
    if format == Format::Nvfp4 {
        parts.push(of_module(weight, "weight_global_scale", Dtype::F32, [1]));
    }
    Ok(parts)
}

/// Weights that one task encodes.
const BAND_WEIGHTS: usize = 1 << 17;

/// The bytes of every tensor of [`parts`].
///
/// # Errors
/// As [`Encoder::rows`].
pub(super) fn encode(encoder: &Encoder, quantizer: Quantizer) -> Result<Vec<(String, Vec<u8>)>> {
    let format = Format::of(quantizer)?;
    let weight = encoder.weight();
    let (rows, columns, [scale_rows, across]) = (weight.rows(), weight.columns(), grid(encoder));
    let (ending, dtype, width) = format.codes(columns);
    let row_bytes = width * dtype.bitsize() / 8;
    let shared_rows = encoder.shared()[0].max(1);
    let band = (BAND_WEIGHTS / columns.max(1)).max(1).next_multiple_of(shared_rows);

    let mut packed = vec![0u8; rows * row_bytes];
    let mut scales = vec![StoredScale::default(); scale_rows * across];
    packed
        .par_chunks_mut(band * row_bytes)
        .zip(scales.par_chunks_mut(band / shared_rows * across))
        .enumerate()
        .try_for_each(|(index, (packed, scales))| {
            let first = index * band;
            let mut codes = vec![0u8; packed.len() / row_bytes * columns];
            encoder.rows(first..first + packed.len() / row_bytes, &mut codes, scales)?;
            let rows = codes.chunks_exact_mut(columns).zip(packed.chunks_exact_mut(row_bytes));
            rows.for_each(|(codes, packed)| format.pack(codes, packed));
            Ok(())
        })?;

    let stored = scales.iter().map(|stored| stored.scale);
    let scale_bytes = match format.scale_dtype() {
        Dtype::F8_E4M3 => stored.map(e4m3_code).collect(),
        Dtype::U8 => stored.map(e8m0_code).collect(),
        _ => f32_bytes(stored),
    };
    let mut tensors = vec![(named(weight, ending), packed), (named(weight, "weight_scale"), scale_bytes)];
    if let Format::PackQuantized { bits } = format {
        let shape = [rows as i64, columns as i64].into_iter().flat_map(i64::to_le_bytes).collect();
        tensors.push((named(weight, "weight_shape"), shape));
        if has_zeros(quantizer.scheme) {
            tensors.push((named(weight, "weight_zero_point"), pack_zeros(bits, &scales, across)));
        }
    }
    if format == Format::Nvfp4 {
        tensors.push((named(weight, "weight_global_scale"), f32_bytes([encoder.global()?])));
    }
    Ok(tensors)
}

/// Zero points `[rows, across]`, unsigned and packed down the rows: `[words, across]`.
fn pack_zeros(bits: u32, scales: &[StoredScale], across: usize) -> Vec<u8> {
    let words = zero_words(bits, scales.len() / across);
    let mut all = vec![0u8; 4 * words * across];
    for column in 0..across {
        let zeros = scales.iter().skip(column).step_by(across);
        let codes: Vec<u8> = zeros.map(|stored| unsigned(bits, stored.zero.cast_unsigned())).collect();
        let mut packed = vec![0u8; 4 * words];
        pack_codes(bits, &codes, &mut packed);
        for (row, word) in packed.as_chunks::<4>().0.iter().enumerate() {
            all[4 * (row * across + column)..][..4].copy_from_slice(word);
        }
    }
    all
}

/// `QuantizationArgs`.
struct Args {
    bits: u32,
    float: bool,
    symmetric: bool,
    strategy: &'static str,
    group: Option<usize>,
    block: Option<[usize; 2]>,
    scale_dtype: Option<&'static str>,
    /// Of inputs, whose scales are found as they come; weights' are in the file.
    dynamic: bool,
}

impl Args {
    fn json(self) -> Json {
        let observer = (!self.dynamic).then_some("memoryless_minmax");
        json!({
            "actorder": null,
            "block_structure": self.block,
            "dynamic": self.dynamic,
            "group_size": self.group,
            "num_bits": self.bits,
            "observer": observer,
            "observer_kwargs": {},
            "scale_dtype": self.scale_dtype,
            "strategy": self.strategy,
            "symmetric": self.symmetric,
            "type": if self.float { "float" } else { "int" },
            "zp_dtype": (!self.symmetric).then_some("torch.int8"),
        })
    }

    fn of_weights(quantizer: Quantizer) -> Result<Self> {
        let float = |bits, strategy, group, scale_dtype| Self {
            bits,
            float: true,
            symmetric: true,
            strategy,
            group,
            block: None,
            scale_dtype,
            dynamic: false,
        };
        Ok(match quantizer.scheme {
            Scheme::Int { bits, symmetric, group } => {
                let strategy = if group.is_some() { "group" } else { "channel" };
                Self { float: false, symmetric, ..float(bits, strategy, group, None) }
            }
            Scheme::E4m3(Share::Row) => float(8, "channel", None, None),
            Scheme::E4m3(Share::Block) => {
                Self { block: Some([FP8_BLOCK, FP8_BLOCK]), ..float(8, "block", None, None) }
            }
            Scheme::Nvfp4 => float(4, "tensor_group", Some(16), Some("torch.float8_e4m3fn")),
            Scheme::Mxfp4 => float(4, "group", Some(32), Some(POWERS_OF_TWO)),
            Scheme::Mxfp8 => float(8, "group", Some(32), Some(POWERS_OF_TWO)),
            _ => return Err(unknown(quantizer)),
        })
    }

    /// What happens to the input, where a file can say it without calibration.
    fn of_input(quantizer: Quantizer) -> Result<Option<Self>> {
        let Some(input) = quantizer.input() else { return Ok(None) };
        let Activations::Scaled { format, granularity, scale } = input else {
            return Err(unknown(quantizer));
        };
        let (bits, float) = match format {
            Number::Int { bits, symmetric: true } => (bits, false),
            Number::E4m3 => (8, true),
            Number::E2m1 => (4, true),
            _ => return Err(unknown(quantizer)),
        };
        let (strategy, group) = match granularity {
            Granularity::Token => ("token", None),
            Granularity::Group(size) => ("group", Some(size)),
            _ => return Err(unknown(quantizer)),
        };
        let scale_dtype = match scale {
            ActivationScale::Dynamic { .. } => None,
            ActivationScale::PowerOfTwo => Some(POWERS_OF_TWO),
            _ => return Err(unknown(quantizer)),
        };
        let dynamic = true;
        Ok(Some(Self { bits, float, symmetric: true, strategy, group, block: None, scale_dtype, dynamic }))
    }
}

const POWERS_OF_TWO: &str = "torch.uint8";

/// `quantization_config`; `left` are modules inside layers that were not quantized.
///
/// # Errors
/// A quantizer without a layout here.
pub(super) fn settings(quantizer: Quantizer, left: &[&str]) -> Result<Json> {
    let format = Format::of(quantizer)?.name();
    let ignore: Vec<&str> = std::iter::once("lm_head").chain(left.iter().copied()).collect();
    Ok(json!({
        "config_groups": {
            "group_0": {
                "format": format,
                "input_activations": Args::of_input(quantizer)?.map(Args::json),
                "output_activations": null,
                "targets": ["Linear"],
                "weights": Args::of_weights(quantizer)?.json(),
            },
        },
        "format": format,
        "global_compression_ratio": null,
        "ignore": ignore,
        "kv_cache_scheme": null,
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
        "sparsity_config": {},
        "transform_config": {},
        // The version whose layout this is.
        "version": "0.19.0",
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_become_unsigned_in_their_bits() {
        for bits in 1..=8 {
            let half = 1i32 << (bits - 1);
            for code in -half..half {
                assert_eq!(i32::from(unsigned(bits, code as u8)), code + half, "{bits} bits: {code}");
            }
        }
    }

    #[test]
    fn zero_points_are_packed_down_the_rows() {
        // Nine rows of two groups: words of eight rows; q = −8 + row, and 7 − row.
        let zero = |zero| StoredScale { scale: 1.0, zero };
        let scales: Vec<StoredScale> = (0..9).flat_map(|row| [zero(-8 + row), zero(7 - row)]).collect();
        let packed = pack_zeros(4, &scales, 2);
        let words: Vec<u32> =
            packed.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
        assert_eq!(words, [0x7654_3210, 0x89AB_CDEF, 8, 7]);
    }

    #[test]
    fn what_is_left_is_ignored_by_name() {
        let quantizer = Quantizer::parse("w4a16").unwrap();
        let settings = settings(quantizer, &["model.layers.0.mlp.gate"]).unwrap();
        assert_eq!(settings["ignore"], json!(["lm_head", "model.layers.0.mlp.gate"]));
        for calibrated in ["nvfp4", "fp8_tensor", "llm_int8", "nf4", "q4_k"] {
            assert!(super::settings(Quantizer::parse(calibrated).unwrap(), &[]).is_err(), "{calibrated}");
        }
    }
}
