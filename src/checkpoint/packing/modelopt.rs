//! NVIDIA ModelOpt: NVFP4 and FP8 as TensorRT-LLM and vLLM load them.
//!
//! | tensors of a module | meaning |
//! |-|-|
//! | `weight` U8, `weight_scale` F8, `weight_scale_2` | E2M1 pairs, w = q·(s·scale_2); input as NVFP4, global 1/`input_scale` |
//! | `weight` F8, `weight_scale` | w = q·s per tensor, row or block; input as E4M3, scale `input_scale` |
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
    warnings,
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
pub(super) const KIND: Kind = Kind { methods: &["modelopt", "modelopt_fp4", "modelopt_mxfp8"], prepare };

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
                format!(
                    "the KV cache is quantized by `{}`, which this version does not compute",
                    shown(other)
                ),
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
        let mut told = Vec::new();
        let input = match &self.settings {
            Some(settings) => {
                let algorithm = settings.algorithm_of(module);
                if !agrees(algorithm, &encoding, four_bits) {
                    told.push(warnings::contradiction(module, algorithm.name(), &encoding));
                }
                input(tensors, module, algorithm, four_bits, block)?
            }
            None => {
                told.push(warnings::without_settings(module));
                None
            }
        };
        let used =
            ["weight", "weight_scale", "weight_scale_2", "input_scale", "output_scale", "k_scale", "v_scale"];
        Ok(Some(Packed {
            shape,
            encoding,
            source,
            tensors: tensors.present(module, &used),
            input,
            output: None,
            warnings: told,
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
    let scaled =
        |format, granularity, scale| Ok(Some(ActivationQuantization::Scaled { format, granularity, scale }));
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

/// Whether tensors are as the algorithm stores them.
fn agrees(algorithm: Algorithm, encoding: &str, four_bits: bool) -> bool {
    match algorithm {
        Algorithm::Nvfp4 | Algorithm::Nvfp4WeightOnly => four_bits,
        Algorithm::None | Algorithm::Mixed => false,
        Algorithm::Fp8 => encoding == "FP8 tensor",
        Algorithm::Fp8PerChannelPerToken => encoding == "FP8 channel",
        Algorithm::Fp8BlockWeightOnly => encoding.starts_with("FP8 block"),
        Algorithm::Mxfp8 => encoding == "MXFP8",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        checkpoint::packing::fixture::{Fixture, decode, noise},
        minifloat::{E2M1, E4M3},
    };

    const MODULE: &str = "model.layers.0.mlp.up_proj";
    const ATTENTION: &str = "model.layers.0.self_attn";
    const SHAPE: [usize; 2] = [4, 64];

    fn named(ending: &str) -> String {
        format!("{MODULE}.{ending}")
    }

    /// `hf_quant_config.json` as ModelOpt writes it, and what it puts into `config.json`.
    fn both(fixture: Fixture, algorithm: &str, cache: Option<&str>) -> [Fixture; 2] {
        let producer = json!({"name": "modelopt", "version": "0.29.0"});
        let own = json!({
            "producer": producer,
            "quantization": {"quant_algo": algorithm, "kv_cache_quant_algo": cache, "exclude_modules": ["lm_head"]},
        });
        let scheme = cache.map(|name| match name {
            "FP8" => json!({"dynamic": false, "num_bits": 8, "type": "float"}),
            other => json!(other),
        });
        let config = json!({
            "quant_method": "modelopt", "quant_algo": algorithm, "producer": producer, "ignore": ["lm_head"],
            "kv_cache_scheme": scheme, "config_groups": {"group_0": {"targets": ["Linear"]}},
        });
        [fixture.clone().file("hf_quant_config.json", own), fixture.settings(config)]
    }

    fn nvfp4() -> (Fixture, Vec<f32>) {
        let pairs: Vec<u8> = noise(1).take(4 * 32).collect();
        let scales: Vec<u8> = noise(2).map(|code| 1 + code % 126).take(4 * 4).collect();
        let scale_2 = 0.001_7f32;
        let naive = (0..4 * 64).map(|i| {
            let code = pairs[i / 2] >> (i % 2 * 4) & 0x0F;
            E2M1[usize::from(code)] * (E4M3[usize::from(scales[i / 16])] * scale_2)
        });
        let naive = naive.collect();
        let fixture = Fixture::default()
            .tensor(&named("weight"), Dtype::U8, &[4, 32], pairs)
            .tensor(&named("weight_scale"), Dtype::F8_E4M3, &[4, 4], scales)
            .floats(&named("weight_scale_2"), &[], &[scale_2])
            .floats(&named("input_scale"), &[], &[0.004]);
        (fixture, naive)
    }

    fn fp8(stored: &[usize], scales: &[f32], columns_each: usize) -> (Fixture, Vec<f32>) {
        let codes: Vec<u8> = noise(3).filter(|code| code & 0x7F != 0x7F).take(4 * 64).collect();
        let naive = (0..4 * 64)
            .map(|i| E4M3[usize::from(codes[i])] * scales[(i / columns_each) % scales.len()])
            .collect();
        let fixture = Fixture::default()
            .tensor(&named("weight"), Dtype::F8_E4M3, &SHAPE, codes)
            .floats(&named("weight_scale"), stored, scales)
            .floats(&named("input_scale"), &[], &[0.5]);
        (fixture, naive)
    }

    fn scaled(
        format: ActivationFormat,
        granularity: Granularity,
        scale: ActivationScale,
    ) -> ActivationQuantization {
        ActivationQuantization::Scaled { format, granularity, scale }
    }

    #[test]
    fn nvfp4_weights_and_inputs() {
        let (fixture, naive) = nvfp4();
        let local = scaled(
            ActivationFormat::E2m1,
            Granularity::Group(16),
            ActivationScale::Local { global: 1.0 / 0.004 },
        );
        for fixture in both(fixture.clone(), "NVFP4", None) {
            let packed = fixture.matrix(MODULE).unwrap();
            assert_eq!((packed.shape, packed.encoding.as_str()), (SHAPE, "NVFP4"));
            assert_eq!(decode(&packed), naive);
            assert_eq!(packed.input, Some(local.clone()));
            assert_eq!(packed.warnings, [""; 0]);
            assert_eq!(
                packed.tensors,
                ["weight", "weight_scale", "weight_scale_2", "input_scale"].map(named)
            );
            let missing = fixture.without(&named("input_scale")).refusal(MODULE);
            assert_eq!(
                missing,
                format!(
                    "tensor `{}`: is missing, but `quant_algo` NVFP4 declares that the input is calibrated",
                    named("input_scale")
                )
            );
        }
        for fixture in both(fixture.clone(), "w4a16_nvfp4", None) {
            assert_eq!(fixture.matrix(MODULE).unwrap().input, None);
        }
        // Its tensors are unmistakable: no settings are needed for the weights.
        let packed = fixture.matrix(MODULE).unwrap();
        assert_eq!((decode(&packed), packed.input), (naive, None));
        assert!(packed.warnings[0].contains("no quantization settings were found"));
    }

    #[test]
    fn fp8_weights_and_inputs() {
        let calibrated = scaled(
            ActivationFormat::E4m3,
            Granularity::Tensor,
            ActivationScale::Static { scale: 0.5, zero_point: 0.0 },
        );
        let token = scaled(
            ActivationFormat::E4m3,
            Granularity::Token,
            ActivationScale::Dynamic { half_range: 448.0 },
        );
        let four = [1.0, 0.5, 3.0, 0.125];
        for (stored, scales, columns_each, algorithm, encoding, input) in [
            (&[][..], &four[1..2], 256, "FP8", "FP8 tensor", Some(&calibrated)),
            (&[4], &four, 64, "FP8_PER_CHANNEL_PER_TOKEN", "FP8 channel", Some(&token)),
            (&[1, 1, 2, 1], &four[..2], 32, "FP8_PB_WO", "FP8 block 4x32", None),
        ] {
            let (fixture, naive) = fp8(stored, scales, columns_each);
            for fixture in both(fixture, algorithm, None) {
                let packed = fixture.matrix(MODULE).unwrap();
                assert_eq!((packed.encoding.as_str(), packed.input.as_ref()), (encoding, input));
                assert_eq!(decode(&packed), naive);
                assert_eq!(packed.warnings, [""; 0]);
            }
        }
        let (fixture, _) = fp8(&[1], &[1.0], 256);
        let mx = fixture.clone().tensor(&named("weight_scale"), Dtype::U8, &[4, 2], [127; 8]);
        let mx = &both(mx, "MXFP8", None)[0];
        let packed = mx.matrix(MODULE).unwrap();
        let power = scaled(ActivationFormat::E4m3, Granularity::Group(32), ActivationScale::PowerOfTwo);
        assert_eq!((packed.encoding.as_str(), packed.input), ("MXFP8", Some(power)));
        // Contradicted: believed and said.
        let packed = both(fixture.clone(), "NVFP4", None)[0].matrix(MODULE).unwrap();
        assert_eq!(packed.input, None);
        assert!(packed.warnings[0].contains("settings say NVFP4, the tensors say FP8 tensor"));
        // One algorithm per module.
        let mixed = json!({
            "producer": {"name": "modelopt"},
            "quantization": {"quant_algo": "MIXED_PRECISION", "quantized_layers": {MODULE: {"quant_algo": "FP8"}}},
        });
        let packed = fixture.clone().file("hf_quant_config.json", mixed).matrix(MODULE).unwrap();
        assert_eq!((packed.input, packed.warnings), (Some(calibrated), Vec::new()));
        let awq = fixture.floats(&named("pre_quant_scale"), &[64], &[1.0; 64]);
        assert!(
            both(awq, "FP8", None)[0].refusal(MODULE).contains("pre_quant_scale`: scales the input while")
        );
    }

    #[test]
    fn caches_and_what_is_refused() {
        let (fixture, _) = nvfp4();
        for fixture in both(fixture.clone(), "NVFP4", Some("FP8")) {
            let cache = |k_scale, v_scale| {
                Some(KvCacheQuantization { format: ActivationFormat::E4m3, k_scale, v_scale })
            };
            assert_eq!(fixture.kv_cache(ATTENTION).unwrap(), cache(1.0, 1.0));
            let fixture = fixture.floats(&format!("{ATTENTION}.k_proj.k_scale"), &[], &[0.5]).floats(
                &format!("{ATTENTION}.v_proj.v_scale"),
                &[1],
                &[0.25],
            );
            assert_eq!(fixture.kv_cache(ATTENTION).unwrap(), cache(0.5, 0.25));
        }
        for fixture in both(fixture.clone(), "NVFP4", None) {
            assert_eq!(fixture.kv_cache(ATTENTION).unwrap(), None);
        }
        for fixture in both(fixture.clone(), "NVFP4", Some("NVFP4")) {
            let error = fixture.kv_cache(ATTENTION).unwrap_err().to_string();
            assert!(error.contains("the KV cache is quantized by `NVFP4`"), "{error}");
        }
        for fixture in both(fixture, "W4A8_AWQ", None) {
            let error = fixture.find(MODULE).unwrap_err().to_string();
            assert!(error.contains("quant_algo`: the algorithm `W4A8_AWQ` cannot be decoded"), "{error}");
        }
    }

    #[test]
    fn wildcards() {
        for (pattern, module, expected) in [
            ("lm_head", "lm_head", true),
            ("lm_head", "lm_head2", false),
            ("model.layers.0", "model.layers.0.mlp.up_proj", true),
            ("model.layers.1", "model.layers.11.mlp", false),
            ("model.layers.0.self_attn*", "model.layers.0.self_attn.q_proj", true),
            ("*.mlp.*", "model.layers.0.mlp.up_proj", true),
            ("*.mlp.*", "model.layers.0.self_attn.q_proj", false),
            ("*a*ab", "aab", true),
            ("a*a", "a", false),
            ("*", "", true),
        ] {
            assert_eq!(matches_wildcard(pattern, module), expected, "{pattern} on {module}");
        }
    }
}
