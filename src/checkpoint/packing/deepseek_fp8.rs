//! `quant_method` "fp8": DeepSeek's and Qwen's blocks of 128 × 128, and the plain FP8 of AutoFP8 and Mistral.
//!
//! | tensors of a module | meaning |
//! |-|-|
//! | `weight` F8, `weight_scale_inv` | w = q·scale_inv per block: the name says inverse, the operation is a product |
//! | `weight` F8, `weight_scale` | the same per tensor or row |
//!
//! Inputs: `activation_scheme` "dynamic" rounds them to E4M3, per group of a block's width where the weights have
//! blocks; "static" takes `input_scale` (or `activation_scale`). Facts from transformers' `finegrained_fp8.py`,
//! compressed-tensors' `fp8block_dequantizer.py` and DeepSeek-V3's published kernels.

use safetensors::Dtype;
use serde_json::Value as Json;

use super::{
    Kind, Packed, Packing, Tensors,
    grid::{Sound, scalar},
    minifloats::{self, Minifloats},
    scaling::Block,
    warnings,
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
pub(super) const KIND: Kind = Kind { methods: &["fp8"], prepare };

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
        let mut told = Vec::new();
        let input = match &self.settings {
            Some(settings) => {
                let blocks = encoding.starts_with("FP8 block");
                let contradicts = match settings.block {
                    Some(declared) => declared.within(shape) != block.within(shape),
                    None => blocks,
                };
                if contradicts {
                    told.push(warnings::contradiction(module, "another `weight_block_size`", &encoding));
                }
                let group = (blocks || settings.block.is_some()).then_some(block.columns);
                Some(settings.input(tensors, module, group, &mut told)?)
            }
            None => {
                told.push(warnings::without_settings(module));
                None
            }
        };
        let used = [
            "weight",
            "weight_scale_inv",
            "weight_scale",
            "input_scale",
            "activation_scale",
            "k_scale",
            "v_scale",
        ];
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
}

impl Settings {
    fn input(
        &self,
        tensors: &Tensors,
        module: &str,
        group: Option<usize>,
        told: &mut Vec<String>,
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
            let unsaid = "the settings do not say which activations share a scale";
            told.push(format!("{module}: {unsaid}; taken per token, as vLLM does"));
            (Granularity::Token, dynamic)
        };
        Ok(ActivationQuantization::Scaled { format: ActivationFormat::E4m3, granularity, scale })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        checkpoint::packing::fixture::{Fixture, decode, noise},
        minifloat::E4M3,
    };

    const MODULE: &str = "model.layers.0.mlp.down_proj";

    fn named(ending: &str) -> String {
        format!("{MODULE}.{ending}")
    }

    fn scaled(granularity: Granularity, scale: ActivationScale) -> Option<ActivationQuantization> {
        Some(ActivationQuantization::Scaled { format: ActivationFormat::E4m3, granularity, scale })
    }

    const DYNAMIC: ActivationScale = ActivationScale::Dynamic { half_range: 448.0 };

    /// 200 × 300 in blocks of 128: the last ones are smaller.
    fn blocks() -> (Fixture, Vec<f32>) {
        let codes: Vec<u8> = noise(1).filter(|code| code & 0x7F != 0x7F).take(200 * 300).collect();
        let scales: Vec<f32> = (0..6).map(|i| 0.01 + i as f32 / 64.0).collect();
        let naive = (0..codes.len())
            .map(|i| E4M3[usize::from(codes[i])] * scales[i / 300 / 128 * 3 + i % 300 / 128])
            .collect();
        let fixture = Fixture::default().tensor(&named("weight"), Dtype::F8_E4M3, &[200, 300], codes).floats(
            &named("weight_scale_inv"),
            &[2, 3],
            &scales,
        );
        (fixture, naive)
    }

    fn settings(more: Json) -> Json {
        let mut settings = json!({"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic"});
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        settings
    }

    #[test]
    fn blocks_are_multiplied_by_their_inverse_scale() {
        let (fixture, naive) = blocks();
        let own = fixture.clone().settings(settings(json!({"weight_block_size": [128, 128]})));
        let packed = own.matrix(MODULE).unwrap();
        assert_eq!((packed.shape, packed.encoding.as_str()), ([200, 300], "FP8 block 128x128"));
        assert_eq!(decode(&packed), naive);
        assert_eq!(packed.input, scaled(Granularity::Group(128), DYNAMIC));
        assert_eq!(packed.warnings, [""; 0]);
        assert_eq!(packed.tensors, ["weight", "weight_scale_inv"].map(named));

        for other in [json!({"weight_block_size": [64, 64]}), json!({})] {
            let packed = fixture.clone().settings(settings(other)).matrix(MODULE).unwrap();
            assert_eq!(decode(&packed), naive);
            assert_eq!(packed.input, scaled(Granularity::Group(128), DYNAMIC));
            assert!(
                packed.warnings[0].contains("the settings say another `weight_block_size`"),
                "{:?}",
                packed.warnings
            );
        }
        let packed = fixture.matrix(MODULE).unwrap();
        assert_eq!((decode(&packed), packed.input), (naive, None));
        assert!(packed.warnings[0].contains("no quantization settings were found"));

        for (broken, problem) in [
            (
                own.clone().floats(&named("weight_scale_inv"), &[3, 3], &[1.0; 9]),
                "has shape [3, 3] for weights of [200, 300], expected [2, 3] for block 128x128",
            ),
            (
                own.clone().floats(&named("weight_scale_inv"), &[2, 3], &[1.0, 1.0, 1.0, 0.0, 1.0, 1.0]),
                "row 1, column 0 is 0, expected a positive number",
            ),
            (
                own.without(&named("weight_scale_inv")),
                "is missing, but `model.layers.0.mlp.down_proj.weight` holds FP8 codes that need it",
            ),
        ] {
            assert_eq!(broken.refusal(MODULE), format!("tensor `{}`: {problem}", named("weight_scale_inv")));
        }
    }

    #[test]
    fn plain_fp8_takes_its_names_from_two_tools() {
        let codes: Vec<u8> = noise(2).filter(|code| code & 0x7F != 0x7F).take(8).collect();
        let naive: Vec<f32> = codes.iter().map(|code| E4M3[usize::from(*code)] * 0.5).collect();
        let fixed = ActivationScale::Static { scale: 0.25, zero_point: 0.0 };
        for (weight, input) in [("weight_scale", "input_scale"), ("weight_scale_inv", "activation_scale")] {
            let fixture = Fixture::default()
                .tensor(&named("weight"), Dtype::F8_E4M3, &[2, 4], codes.clone())
                .floats(&named(weight), &[], &[0.5])
                .floats(&named(input), &[], &[0.25]);
            let fixed_settings = settings(json!({"activation_scheme": "static"}));
            let packed = fixture.clone().settings(fixed_settings.clone()).matrix(MODULE).unwrap();
            assert_eq!((packed.encoding.as_str(), decode(&packed)), ("FP8 tensor", naive.clone()));
            assert_eq!(packed.input, scaled(Granularity::Tensor, fixed));
            assert_eq!(packed.warnings, [""; 0]);
            let packed = fixture.clone().settings(settings(json!({}))).matrix(MODULE).unwrap();
            assert_eq!(packed.input, scaled(Granularity::Token, DYNAMIC));
            assert!(packed.warnings[0].contains("taken per token"));
            let missing = fixture.without(&named(input)).settings(fixed_settings).refusal(MODULE);
            assert!(
                missing.contains("input_scale`: is missing, but `activation_scheme` declares"),
                "{missing}"
            );
        }
    }

    #[test]
    fn other_settings_are_refused_by_name() {
        for (more, words) in [
            (json!({"fmt": "e5m2"}), "fmt`: `\\\"e5m2\\\"` is not supported"),
            (json!({"scale_fmt": "ue8m0"}), "scale_fmt`: `\\\"ue8m0\\\"` is not supported"),
            (json!({"activation_scheme": "none"}), "activation_scheme`: `\\\"none\\\"` is not supported"),
            (json!({"weight_block_size": [128]}), "weight_block_size`: `[128]` is not supported"),
            (json!({"weight_block_size": [128, 0]}), "weight_block_size`: `[128,0]` is not supported"),
        ] {
            let error = blocks().0.settings(settings(more)).find(MODULE).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
