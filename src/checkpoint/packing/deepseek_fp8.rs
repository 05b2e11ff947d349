//! `quant_method` "fp8": DeepSeek's and Qwen's blocks of 128 × 128, and the plain FP8 of AutoFP8 and Mistral.
//!
//! | tensors of a module | meaning |
//! |-|-|
//! | `weight` F8, `weight_scale_inv` | w = q·scale_inv per block: the name says inverse, the operation is a product |
//! | `weight` F8, `weight_scale` | the same per tensor or row |
//!
//! Inputs: `activation_scheme` "dynamic" rounds them to E4M3, per group of a block's width where the weights have
//! blocks; "static" takes `input_scale` (or `activation_scale`). Facts from compressed-tensors' `fp8block_dequantizer.py`,
//! transformers' `finegrained_fp8.py` and DeepSeek-V3's published kernels.

use safetensors::Dtype;
use serde_json::Value as Json;

use super::{
    Kind, Packed, Packing, Tensors,
    grid::{Sound, scalar},
    minifloats::{self, Minifloats},
    scaling::Block,
};
use crate::{
    checkpoint::{
        activations::{ActivationFormat, ActivationQuantization, ActivationScale, Granularity},
        content::shown,
        quantization::Quantization,
    },
    error::Result,
    minifloat::E4M3_MAX,
};

/// The line in the list.
pub(super) const KIND: Kind = Kind { name: "FP8", methods: &["fp8"], prepare };

fn prepare(_: &Tensors, settings: Option<&Quantization>) -> Result<Box<dyn Packing>> {
    Ok(Box::new(Fp8 { settings: settings.map(Settings::read).transpose()? }))
}

#[derive(Debug)]
struct Fp8 {
    settings: Option<Settings>,
}

#[derive(Debug)]
struct Settings {
    block: Option<Block>,
    calibrated: bool,
}

impl Settings {
    fn read(source: &Quantization) -> Result<Self> {
        let refused = |key: &str, json: &Json, supported: &str| {
            let problem = format!("`{}` is not supported by this version", shown(&json.to_string()));
            source.problem(key, problem, format!("supported: {supported}"))
        };
        if let Some(format) = source.get("fmt").filter(|format| format.as_str() != Some("e4m3")) {
            return Err(refused("fmt", format, "e4m3"));
        }
        // UE8M0 rounds the scales of activations up to powers of two, which is neither MX's rule nor none.
        if let Some(format) = source.get("scale_fmt").filter(|format| format.as_str() != Some("float")) {
            return Err(refused("scale_fmt", format, "float"));
        }
        let calibrated = match source.get("activation_scheme").map(|scheme| (scheme, scheme.as_str())) {
            None | Some((_, Some("dynamic"))) => false,
            Some((_, Some("static"))) => true,
            Some((scheme, _)) => return Err(refused("activation_scheme", scheme, "dynamic, static")),
        };
        let side = |json: &Json| json.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
        let block = match source.get("weight_block_size") {
            None => None,
            Some(size) => match size.as_array().map(Vec::as_slice) {
                Some([rows, columns]) => {
                    side(rows).zip(side(columns)).map(|(rows, columns)| Block { rows, columns })
                }
                _ => None,
            }
            .map(Some)
            .ok_or_else(|| refused("weight_block_size", size, "two positive numbers"))?,
        };
        Ok(Self { block, calibrated })
    }
}

impl Packing for Fp8 {
    fn matrix(&self, tensors: &Tensors, module: &str) -> Result<Option<Packed>> {
        let named = |ending: &str| tensors.get(&format!("{module}.{ending}"));
        let Some(weight) = named("weight").filter(|weight| weight.dtype == Dtype::F8_E4M3) else {
            return Ok(None);
        };
        let scale = match (named("weight_scale_inv"), &self.settings) {
            (Some(scale), _) => scale,
            (None, None) => return Ok(None),
            // Only settings make FP8 with this name ours.
            (None, Some(_)) => {
                let why = format!("`{}` holds FP8 codes that need it", weight.name);
                match named("weight_scale") {
                    Some(scale) => scale,
                    None => tensors.require(&format!("{module}.weight_scale_inv"), &why)?,
                }
            }
        };
        let declared = self.settings.as_ref().and_then(|settings| settings.block);
        let Minifloats { shape, encoding, block, source } =
            minifloats::eight_bits(&weight, &scale, declared)?;
        let mut warnings = Vec::new();
        let input = match &self.settings {
            Some(settings) => {
                let blocks = encoding.starts_with("FP8 block");
                let contradicts = match settings.block {
                    Some(declared) => declared.within(shape) != block.within(shape),
                    None => blocks,
                };
                if contradicts {
                    warnings.push(format!(
                        "{module}: the tensors say {encoding}, `weight_block_size` says otherwise; the tensors are believed"
                    ));
                }
                let group = (blocks || settings.block.is_some()).then_some(block.columns);
                Some(settings.input(tensors, module, group, &mut warnings)?)
            }
            None => {
                warnings.push(format!(
                    "{module}: packed, but no quantization settings were found; its activations are left as they are"
                ));
                None
            }
        };
        let used = ["weight", "weight_scale_inv", "weight_scale", "input_scale", "activation_scale", "k_scale", "v_scale"]
            .map(|ending| format!("{module}.{ending}"));
        Ok(Some(Packed {
            shape,
            encoding,
            source,
            tensors: used.into_iter().filter(|name| tensors.by_name.contains_key(name)).collect(),
            input,
            output: None,
            warnings,
        }))
    }
}

impl Settings {
    fn input(
        &self,
        tensors: &Tensors,
        module: &str,
        group: Option<usize>,
        warnings: &mut Vec<String>,
    ) -> Result<ActivationQuantization> {
        let dynamic = ActivationScale::Dynamic { half_range: E4M3_MAX };
        let (granularity, scale) = if self.calibrated {
            let name = format!("{module}.input_scale");
            let tensor = match tensors.get(&format!("{module}.activation_scale")) {
                Some(tensor) => tensor,
                None => tensors.require(&name, "`activation_scheme` declares that it is calibrated")?,
            };
            let scale = scalar(&tensor, Sound::Positive)?;
            (Granularity::Tensor, ActivationScale::Static { scale, zero_point: 0.0 })
        } else if let Some(size) = group {
            (Granularity::Group(size), dynamic)
        } else {
            warnings.push(format!(
                "{module}: the settings do not say how many activations share a scale; taken per token, as vLLM does"
            ));
            (Granularity::Token, dynamic)
        };
        Ok(ActivationQuantization::Scaled { format: ActivationFormat::E4m3, granularity, scale })
    }
}
