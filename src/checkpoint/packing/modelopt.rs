//! NVIDIA ModelOpt: NVFP4 and FP8 as TensorRT-LLM and vLLM load them.
//!
//! | tensors of a module | meaning |
//! |-|-|
//! | `weight` U8, `weight_scale` F8, `weight_scale_2` | E2M1 pairs, w = q·(s·scale_2); input rounded to NVFP4 with global factor 1/`input_scale` |
//! | `weight` F8, `weight_scale` | w = q·s per tensor, row or block; input rounded to E4M3 with `input_scale` |
//! | `weight` F8, `weight_scale` U8 | MXFP8 |
//!
//! Settings stand in `hf_quant_config.json` (`quantization.quant_algo`, `exclude_modules`) or in `config.json`
//! (`quant_algo`, `ignore`). Facts from compressed-tensors' `modelopt_nvfp4.py` converter, ModelOpt's
//! `convert_hf_config.py` and vLLM's `modelopt.py`.

use std::collections::BTreeMap;

use safetensors::Dtype;
use serde_json::Value as Json;

use super::{
    Kind, Packed, Packing, TensorView, Tensors,
    grid::{Factor, Number, Sound, scalar},
    minifloats::{self, Minifloats},
    scaling::Block,
};
use crate::{
    checkpoint::{
        activations::{
            ActivationFormat, ActivationQuantization, ActivationScale, Granularity, KvCacheQuantization,
        },
        content::shown,
        quantization::Quantization,
    },
    error::Result,
    minifloat::E4M3_MAX,
};

/// The line in the list.
pub(super) const KIND: Kind =
    Kind { name: "ModelOpt", methods: &["modelopt", "modelopt_fp4", "modelopt_mxfp8"], prepare };

fn prepare(_: &Tensors, settings: Option<&Quantization>) -> Result<Box<dyn Packing>> {
    Ok(Box::new(ModelOpt { settings: settings.map(Settings::read).transpose()? }))
}

#[derive(Debug)]
struct ModelOpt {
    settings: Option<Settings>,
}

#[derive(Debug)]
struct Settings {
    algorithm: Algorithm,
    /// Of single modules (MIXED_PRECISION).
    layers: BTreeMap<String, Algorithm>,
    excluded: Vec<String>,
    fp8_cache: bool,
}

/// `quant_algo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Fp8,
    Fp8PerChannelPerToken,
    Fp8BlockWeightOnly,
    Nvfp4,
    Nvfp4WeightOnly,
    Mxfp8,
    Mixed,
    None,
}

impl Algorithm {
    fn read(source: &Quantization, key: &str, json: Option<&Json>) -> Result<Self> {
        let name = match json {
            None | Some(Json::Null) => return Ok(Algorithm::None),
            Some(json) => json.as_str().map_or_else(|| json.to_string(), str::to_uppercase),
        };
        Ok(match name.as_str() {
            "FP8" => Algorithm::Fp8,
            "FP8_PER_CHANNEL_PER_TOKEN" => Algorithm::Fp8PerChannelPerToken,
            "FP8_PB_WO" => Algorithm::Fp8BlockWeightOnly,
            "NVFP4" => Algorithm::Nvfp4,
            "W4A16_NVFP4" => Algorithm::Nvfp4WeightOnly,
            "MXFP8" => Algorithm::Mxfp8,
            "MIXED_PRECISION" => Algorithm::Mixed,
            _ => {
                return Err(source.problem(
                    key,
                    format!("the algorithm `{}` cannot be decoded by this version", shown(&name)),
                    "decoded: FP8, FP8_PER_CHANNEL_PER_TOKEN, FP8_PB_WO, NVFP4, W4A16_NVFP4, MXFP8",
                ));
            }
        })
    }

    fn name(self) -> &'static str {
        match self {
            Algorithm::Fp8 => "FP8",
            Algorithm::Fp8PerChannelPerToken => "FP8_PER_CHANNEL_PER_TOKEN",
            Algorithm::Fp8BlockWeightOnly => "FP8_PB_WO",
            Algorithm::Nvfp4 => "NVFP4",
            Algorithm::Nvfp4WeightOnly => "W4A16_NVFP4",
            Algorithm::Mxfp8 => "MXFP8",
            Algorithm::Mixed => "MIXED_PRECISION",
            Algorithm::None => "none",
        }
    }
}

impl Settings {
    fn read(source: &Quantization) -> Result<Self> {
        // hf_quant_config.json holds everything one level deeper than config.json does.
        let inner = if source.json.get("quantization").is_some() { "quantization." } else { "" };
        let at = |key: &str| format!("{inner}{key}");
        let algorithm = Algorithm::read(source, &at("quant_algo"), source.get(&at("quant_algo")))?;
        let layers = source.get(&at("quantized_layers")).and_then(Json::as_object);
        let layers = layers.into_iter().flatten().map(|(module, layer)| {
            let key = format!("{}.{}", at("quantized_layers"), shown(module));
            Ok((module.clone(), Algorithm::read(source, &key, layer.get("quant_algo"))?))
        });
        let layers = layers.collect::<Result<_>>()?;
        let excluded = source.get(&at("exclude_modules")).or_else(|| source.get(&at("ignore")));
        let excluded = excluded.and_then(Json::as_array).into_iter().flatten();
        let excluded = excluded.filter_map(Json::as_str).map(str::to_owned).collect();
        Ok(Self { algorithm, layers, excluded, fp8_cache: fp8_cache(source, inner)? })
    }

    fn algorithm_of(&self, module: &str) -> Algorithm {
        match self.algorithm {
            Algorithm::Mixed => self.layers.get(module).copied().unwrap_or(Algorithm::None),
            _ if self.excluded.iter().any(|pattern| matches_wildcard(pattern, module)) => Algorithm::None,
            algorithm => algorithm,
        }
    }
}

/// Whether the KV cache is declared to be FP8: a name in ModelOpt's own file, a scheme in `config.json`.
fn fp8_cache(source: &Quantization, inner: &str) -> Result<bool> {
    for key in ["kv_cache_quant_algo", "kv_cache_scheme"].map(|key| format!("{inner}{key}")) {
        let declared = match source.get(&key) {
            None => continue,
            Some(Json::String(name)) => name.to_uppercase(),
            Some(scheme) => {
                let bits = scheme.get("num_bits").and_then(Json::as_u64);
                let float = scheme.get("type").and_then(Json::as_str) == Some("float");
                let fixed = scheme.get("dynamic").is_none_or(|dynamic| *dynamic == Json::Bool(false));
                if float && fixed && bits == Some(8) { "FP8".to_owned() } else { scheme.to_string() }
            }
        };
        return match declared.as_str() {
            "FP8" => Ok(true),
            "NONE" => Ok(false),
            other => Err(source.problem(
                &key,
                format!("the KV cache is quantized by `{}`, which this version does not compute", shown(other)),
                "supported: FP8",
            )),
        };
    }
    Ok(false)
}

/// Shell wildcards, of which ModelOpt writes only `*`; a name without one also excludes what lies below it.
fn matches_wildcard(pattern: &str, module: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| module.strip_prefix(first)) else { return false };
    let Some(last) = pattern.rsplit_once('*').map(|(_, last)| last) else {
        return rest.is_empty() || rest.starts_with('.');
    };
    // Greedy from the left is enough: every part may take the first place that fits.
    let middle = pattern.matches('*').count() - 1;
    for part in parts.take(middle) {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// NVFP4's group.
const NVFP4_GROUP: usize = 16;
/// MXFP8's group.
const MX_GROUP: usize = 32;

impl Packing for ModelOpt {
    fn matrix(&self, tensors: &Tensors, module: &str) -> Result<Option<Packed>> {
        let named = |ending: &str| tensors.get(&format!("{module}.{ending}"));
        let Some(weight) = named("weight") else { return Ok(None) };
        let (four_bits, scale_2) = (weight.dtype == Dtype::U8, named("weight_scale_2"));
        let matrix = match (&self.settings, weight.dtype, scale_2) {
            (_, Dtype::U8, Some(scale_2)) => nvfp4(tensors, module, &weight, &scale_2)?,
            // FP8 is named as others name it: only settings make it ModelOpt's.
            (Some(_), Dtype::F8_E4M3, _) => fp8(tensors, module, &weight)?,
            _ => return Ok(None),
        };
        if let Some(tensor) = named("pre_quant_scale") {
            return Err(tensor.problem(
                "scales the input while the model runs (AWQ), which this version does not compute",
                "compare a checkpoint without pre_quant_scale",
            ));
        }
        let Minifloats { shape, encoding, block, source } = matrix;
        let mut warnings = Vec::new();
        let input = match &self.settings {
            Some(settings) => {
                let algorithm = settings.algorithm_of(module);
                if let Some(warning) = contradiction(module, algorithm, &encoding, four_bits) {
                    warnings.push(warning);
                }
                input(tensors, module, algorithm, four_bits, block)?
            }
            None => {
                warnings.push(format!(
                    "{module}: packed, but no quantization settings were found; its activations are left as they are"
                ));
                None
            }
        };
        let endings =
            ["weight", "weight_scale", "weight_scale_2", "input_scale", "output_scale", "k_scale", "v_scale"];
        let used = endings.map(|ending| format!("{module}.{ending}"));
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

    fn kv_cache(&self, tensors: &Tensors, attention: &str) -> Result<Option<KvCacheQuantization>> {
        if !self.settings.as_ref().is_some_and(|settings| settings.fp8_cache) {
            return Ok(None);
        }
        // ModelOpt leaves out scales that were not calibrated; engines then take 1.
        let scale = |letter: char| {
            let names =
                [format!("{attention}.{letter}_proj.{letter}_scale"), format!("{attention}.{letter}_scale")];
            let tensor = names.iter().find_map(|name| tensors.get(name));
            tensor.map_or(Ok(1.0), |tensor| scalar(&tensor, Sound::Positive))
        };
        let (k_scale, v_scale) = (scale('k')?, scale('v')?);
        Ok(Some(KvCacheQuantization { format: ActivationFormat::E4m3, k_scale, v_scale }))
    }
}

fn nvfp4(tensors: &Tensors, module: &str, weight: &TensorView, scale_2: &TensorView) -> Result<Minifloats> {
    let why = format!("`{}` holds FP4 codes that need it", weight.name);
    let scale = tensors.require(&format!("{module}.weight_scale"), &why)?;
    let factor = Factor::Times(scalar(scale_2, Sound::Positive)?);
    minifloats::four_bits(weight, &scale, factor, Some(Block { rows: 1, columns: NVFP4_GROUP }))
}

fn fp8(tensors: &Tensors, module: &str, weight: &TensorView) -> Result<Minifloats> {
    let why = format!("`{}` holds FP8 codes that need it", weight.name);
    let scale = tensors.require(&format!("{module}.weight_scale"), &why)?;
    let group = Number::of(scale.dtype) == Some(Number::E8m0);
    minifloats::eight_bits(weight, &scale, group.then_some(Block { rows: 1, columns: MX_GROUP }))
}

/// What the algorithm declares about the input; a calibrated scale that it needs must be there.
fn input(
    tensors: &Tensors,
    module: &str,
    algorithm: Algorithm,
    four_bits: bool,
    block: Block,
) -> Result<Option<ActivationQuantization>> {
    let calibrated = || {
        let why = format!("`quant_algo` {} declares that the input is calibrated", algorithm.name());
        scalar(&tensors.require(&format!("{module}.input_scale"), &why)?, Sound::Positive)
    };
    let scaled = |format, granularity, scale| {
        Ok(Some(ActivationQuantization::Scaled { format, granularity, scale }))
    };
    match algorithm {
        Algorithm::Nvfp4 if four_bits => scaled(
            ActivationFormat::E2m1,
            Granularity::Group(block.columns),
            ActivationScale::Local { global: 1.0 / calibrated()? },
        ),
        Algorithm::Fp8 if !four_bits => scaled(
            ActivationFormat::E4m3,
            Granularity::Tensor,
            ActivationScale::Static { scale: calibrated()?, zero_point: 0.0 },
        ),
        Algorithm::Fp8PerChannelPerToken if !four_bits => scaled(
            ActivationFormat::E4m3,
            Granularity::Token,
            ActivationScale::Dynamic { half_range: E4M3_MAX },
        ),
        Algorithm::Mxfp8 if !four_bits => {
            scaled(ActivationFormat::E4m3, Granularity::Group(MX_GROUP), ActivationScale::PowerOfTwo)
        }
        _ => Ok(None),
    }
}

fn contradiction(module: &str, algorithm: Algorithm, encoding: &str, four_bits: bool) -> Option<String> {
    let agrees = match algorithm {
        Algorithm::Nvfp4 | Algorithm::Nvfp4WeightOnly => four_bits,
        Algorithm::None | Algorithm::Mixed => false,
        Algorithm::Fp8 => encoding == "FP8 tensor",
        Algorithm::Fp8PerChannelPerToken => encoding == "FP8 channel",
        Algorithm::Fp8BlockWeightOnly => encoding.starts_with("FP8 block"),
        Algorithm::Mxfp8 => encoding == "MXFP8",
    };
    (!agrees).then(|| {
        let name = algorithm.name();
        format!("{module}: the settings say {name}, the tensors say {encoding}; the tensors are believed")
    })
}
