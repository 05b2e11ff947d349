//! compressed-tensors' settings as written: `config_groups`, their targets, `ignore`, `kv_cache_scheme`.
//!
//! Read strictly: a key or value that could change numbers and is not known is refused by name. Facts from
//! `quantization/{quant_args,quant_scheme,quant_config}.py`, `utils/match.py` and `config/base.py` of
//! compressed-tensors 0.19.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::{Map, Value as Json};

use crate::{
    checkpoint::{content::shown, packing::scaling::Block, quantization::Quantization},
    error::Result,
};

/// All settings that matter for reading.
#[derive(Debug)]
pub(super) struct Settings {
    /// In the order of belief: names, then patterns, then classes; each with the index of its group.
    targets: Vec<(Target, usize)>,
    groups: Vec<Group>,
    ignore: Vec<Target>,
    /// Of the KV cache.
    pub(super) kv_cache: Option<Args>,
    /// Whether weights are stored packed; `false` where they still are the original's floats.
    pub(super) compressed: bool,
    /// For errors about values.
    pub(super) source: Quantization,
}

/// One entry of `config_groups`.
#[derive(Debug)]
pub(super) struct Group {
    /// Its key.
    pub(super) name: String,
    /// Declared about weights.
    pub(super) weights: Option<Args>,
    /// Declared about inputs.
    pub(super) input: Option<Args>,
    /// Declared about outputs.
    pub(super) output: Option<Args>,
}

/// What the settings say about a module.
#[derive(Clone, Copy, Debug)]
pub(super) enum Declared<'a> {
    /// Nothing.
    Nothing,
    /// That it is left as it is.
    Ignored,
    /// How it is quantized.
    As(&'a Group),
}

/// `QuantizationArgs`.
#[derive(Clone, Debug)]
pub(super) struct Args {
    /// Where they stand, for messages.
    pub(super) key: String,
    /// Bits of a code.
    pub(super) num_bits: u32,
    /// Floats rather than integers.
    pub(super) float: bool,
    /// No zero point.
    pub(super) symmetric: bool,
    /// What shares a scale.
    pub(super) strategy: Strategy,
    /// When scales are determined.
    pub(super) dynamic: Dynamic,
    /// `scale_dtype`, without "torch.".
    pub(super) scale_dtype: Option<String>,
}

/// What shares a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strategy {
    Tensor,
    Channel,
    Token,
    Group(usize),
    TensorGroup(usize),
    Block(usize, usize),
    AttentionHead,
}

/// When scales are determined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dynamic {
    /// By calibration.
    No,
    /// From the values themselves.
    Yes,
    /// Those of groups from the values, the tensor's by calibration.
    Local,
}

impl Args {
    /// The block of weights that shares a scale, in a matrix of any size.
    pub(super) fn block(&self) -> Option<Block> {
        let all = usize::MAX;
        match self.strategy {
            Strategy::Tensor => Some(Block { rows: all, columns: all }),
            Strategy::Channel => Some(Block { rows: 1, columns: all }),
            Strategy::Group(size) | Strategy::TensorGroup(size) => Some(Block { rows: 1, columns: size }),
            Strategy::Block(rows, columns) => Some(Block { rows, columns }),
            Strategy::Token | Strategy::AttentionHead => None,
        }
    }
}

/// Formats whose tensors are read here.
const FORMATS: &[&str] = &[
    "dense",
    "fakequant",
    "int-quantized",
    "float-quantized",
    "naive-quantized",
    "pack-quantized",
    "nvfp4-pack-quantized",
    "mxfp4-pack-quantized",
    "mxfp8-quantized",
    "mixed-precision",
];

/// Keys of `QuantizationArgs`; those about observers end with calibration.
const ARGS_KEYS: &[&str] = &[
    "num_bits",
    "type",
    "symmetric",
    "strategy",
    "group_size",
    "block_structure",
    "dynamic",
    "actorder",
    "scale_dtype",
    "zp_dtype",
    "observer",
    "observer_kwargs",
];

const GROUP_KEYS: &[&str] = &["targets", "weights", "input_activations", "output_activations", "format"];

const UNKNOWN: &str = "the checkpoint is newer than this version of qeval, or damaged";

impl Settings {
    /// Reads all of them.
    ///
    /// # Errors
    /// Whatever is not known, by key.
    pub(super) fn read(source: &Quantization) -> Result<Self> {
        refuse_other_formats(source)?;
        let compressed = match source.get("quantization_status").and_then(Json::as_str) {
            Some("compressed") | None => true,
            Some("initialized" | "calibration" | "frozen" | "decompressed") => false,
            Some(other) => return Err(unknown(source, "quantization_status", other)),
        };
        let dense = matches!(source.get("format").and_then(Json::as_str), Some("dense" | "fakequant"));
        let mut groups = Vec::new();
        let mut targets = BTreeMap::new();
        for (name, json) in object(source, "config_groups")?.into_iter().flatten() {
            let key = format!("config_groups.{name}");
            let Some(json) = json.as_object() else {
                let problem = "is not an object; presets by name are not read";
                return Err(source.problem(&key, problem, "write the scheme out"));
            };
            refuse_unknown_keys(source, &key, json, GROUP_KEYS)?;
            if let Some(format) = json.get("format").and_then(Json::as_str) {
                refuse_format(source, &format!("{key}.format"), format)?;
            }
            for target in strings(source, &format!("{key}.targets"), json.get("targets"))? {
                let target = Target::read(source, &format!("{key}.targets"), target)?;
                if target.is_attention() {
                    return Err(source.problem(
                        &format!("{key}.targets"),
                        format!("`{}` quantizes attention itself, which is not supported", target.text),
                        "compare a checkpoint whose linears are quantized",
                    ));
                }
                let order = (target.pattern.is_some(), target.text.clone());
                if let Some((twice, _)) = targets.insert(order, (target, groups.len())) {
                    return Err(source.problem(
                        &format!("{key}.targets"),
                        format!("`{}` is the target of another group, too", shown(&twice.text)),
                        "leave it to the group that is meant",
                    ));
                }
            }
            let args = |part: &str| Args::read(source, &format!("{key}.{part}"), json.get(part));
            groups.push(Group {
                weights: args("weights")?,
                input: args("input_activations")?,
                output: args("output_activations")?,
                name: name.clone(),
            });
        }
        let ignore = strings(source, "ignore", source.json.get("ignore"))?
            .into_iter()
            .map(|target| Target::read(source, "ignore", target))
            .collect::<Result<_>>()?;
        Ok(Self {
            targets: targets.into_values().collect(),
            groups,
            ignore,
            kv_cache: Args::read(source, "kv_cache_scheme", source.json.get("kv_cache_scheme"))?,
            compressed: compressed && !dense,
            source: source.clone(),
        })
    }

    /// What is said about a module: the most specific target decides, `ignore` above all.
    pub(super) fn declared(&self, module: &str) -> Declared<'_> {
        let class = class_of(module);
        if self.ignore.iter().any(|target| target.names(module) || target.text == class) {
            return Declared::Ignored;
        }
        let by_name = self.targets.iter().find(|(target, _)| target.names(module));
        let group = by_name.or_else(|| self.targets.iter().find(|(target, _)| target.text == class));
        group.map_or(Declared::Nothing, |(_, group)| Declared::As(&self.groups[*group]))
    }
}

/// PyTorch's class of a module: what has a matrix is a linear, the embedding excepted.
fn class_of(module: &str) -> &'static str {
    match module.rsplit('.').next() {
        Some("embed_tokens" | "wte") => "Embedding",
        _ => "Linear",
    }
}

/// An entry of `targets` or `ignore`: a name, a pattern, or a class.
#[derive(Debug)]
struct Target {
    text: String,
    pattern: Option<Regex>,
}

impl Target {
    fn read(source: &Quantization, key: &str, text: &str) -> Result<Self> {
        let pattern = text.strip_prefix("re:").map(|pattern| {
            // Python's re.match is bound to the start and free at the end.
            Regex::new(&format!(r"\A(?:{pattern})")).map_err(|_| {
                source.problem(
                    key,
                    format!(
                        "the pattern `{}` cannot be matched here (look-around and back-references cannot)",
                        shown(pattern)
                    ),
                    "write it without them; the tensors do not depend on it",
                )
            })
        });
        Ok(Self { text: text.to_owned(), pattern: pattern.transpose()? })
    }

    fn names(&self, module: &str) -> bool {
        match &self.pattern {
            Some(pattern) => pattern.is_match(module),
            None => self.text == module,
        }
    }

    fn is_attention(&self) -> bool {
        match &self.pattern {
            Some(pattern) => {
                self.text.ends_with("self_attn$") && pattern.is_match("model.layers.0.self_attn")
            }
            None => self.text.ends_with("Attention") || self.text.ends_with(".self_attn"),
        }
    }
}

fn refuse_other_formats(source: &Quantization) -> Result<()> {
    if let Some(format) = source.get("format") {
        refuse_format(source, "format", format.as_str().unwrap_or("that is not text"))?;
    }
    let sparsity = object(source, "sparsity_config")?.filter(|sparsity| !sparsity.is_empty());
    if let Some(sparsity) = sparsity
        && sparsity.get("format").and_then(Json::as_str) != Some("dense")
    {
        let format = sparsity.get("format").and_then(Json::as_str).unwrap_or("unnamed");
        return Err(source.problem(
            "sparsity_config.format",
            format!("the weights are stored sparse (`{}`), which this version cannot decode", shown(format)),
            "compare a checkpoint saved without sparse compression",
        ));
    }
    if object(source, "transform_config")?.is_some_and(|transform| !transform.is_empty()) {
        return Err(source.problem(
            "transform_config",
            "the model rotates activations while it runs, which this version does not compute",
            "compare a checkpoint without online transforms",
        ));
    }
    Ok(())
}

fn refuse_format(source: &Quantization, key: &str, format: &str) -> Result<()> {
    if FORMATS.contains(&format) {
        return Ok(());
    }
    Err(source.problem(
        key,
        format!("the format `{}` cannot be decoded by this version", shown(format)),
        format!("decoded: {}", FORMATS.join(", ")),
    ))
}

impl Args {
    fn read(source: &Quantization, key: &str, json: Option<&Json>) -> Result<Option<Self>> {
        let Some(json) = json.filter(|json| !json.is_null()) else { return Ok(None) };
        let Some(json) = json.as_object() else {
            let problem = format!("is {}, expected an object", shown(&json.to_string()));
            return Err(source.problem(key, problem, UNKNOWN));
        };
        refuse_unknown_keys(source, key, json, ARGS_KEYS)?;
        let at = |name: &str| format!("{key}.{name}");
        let given = |name: &str| json.get(name).filter(|value| !value.is_null());
        let text = |name: &str| match given(name) {
            None => Ok(None),
            Some(Json::String(text)) => Ok(Some(text.to_lowercase())),
            Some(other) => Err(unknown(source, &at(name), &other.to_string())),
        };
        let flag = |name: &str, default: bool| match given(name) {
            None => Ok(default),
            Some(Json::Bool(flag)) => Ok(*flag),
            Some(other) => Err(unknown(source, &at(name), &other.to_string())),
        };
        let num_bits = match given("num_bits") {
            None => 8,
            Some(bits) => match bits.as_u64() {
                Some(bits @ 1..=16) => bits as u32,
                _ => return Err(unknown(source, &at("num_bits"), &bits.to_string())),
            },
        };
        let float = match text("type")?.as_deref() {
            None | Some("int") => false,
            Some("float") => true,
            Some(other) => return Err(unknown(source, &at("type"), other)),
        };
        let dynamic = match given("dynamic") {
            None | Some(Json::Bool(false)) => Dynamic::No,
            Some(Json::Bool(true)) => Dynamic::Yes,
            Some(Json::String(text)) if text.eq_ignore_ascii_case("local") => Dynamic::Local,
            Some(other) => return Err(unknown(source, &at("dynamic"), &other.to_string())),
        };
        Ok(Some(Self {
            num_bits,
            float,
            symmetric: flag("symmetric", true)?,
            strategy: strategy(source, key, json, text("strategy")?.as_deref())?,
            dynamic,
            scale_dtype: text("scale_dtype")?.map(|dtype| dtype.trim_start_matches("torch.").to_owned()),
            key: key.to_owned(),
        }))
    }
}

fn strategy(
    source: &Quantization,
    key: &str,
    json: &Map<String, Json>,
    name: Option<&str>,
) -> Result<Strategy> {
    let given = |name: &str| json.get(name).filter(|value| !value.is_null());
    // −1 stands for whole rows.
    let group_size = match given("group_size") {
        None => None,
        Some(size) => match size.as_i64() {
            Some(-1) => Some(None),
            Some(size @ 1..) => Some(usize::try_from(size).ok()),
            _ => return Err(unknown(source, &format!("{key}.group_size"), &size.to_string())),
        },
    };
    let of_group = |strategy: fn(usize) -> Strategy| match group_size {
        Some(Some(size)) => Ok(strategy(size)),
        _ => {
            Err(source.problem(&format!("{key}.group_size"), "is missing, but scales are per group", UNKNOWN))
        }
    };
    match name {
        None => Ok(match group_size {
            None => Strategy::Tensor,
            Some(None) => Strategy::Channel,
            Some(Some(size)) => Strategy::Group(size),
        }),
        Some("tensor") => Ok(Strategy::Tensor),
        Some("channel") => Ok(Strategy::Channel),
        Some("token") => Ok(Strategy::Token),
        Some("group") => of_group(Strategy::Group),
        Some("tensor_group") => of_group(Strategy::TensorGroup),
        Some("attn_head") => Ok(Strategy::AttentionHead),
        Some("block") => {
            let structure = given("block_structure");
            let side = |json: &Json| json.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
            let sides = match structure {
                Some(Json::Array(sides)) => sides.iter().map(side).collect::<Option<Vec<_>>>(),
                Some(Json::String(text)) => {
                    text.split('x').map(|side| side.parse().ok().filter(|n: &usize| *n > 0)).collect()
                }
                _ => None,
            };
            match sides.as_deref() {
                Some([rows, columns]) => Ok(Strategy::Block(*rows, *columns)),
                _ => Err(source.problem(
                    &format!("{key}.block_structure"),
                    format!(
                        "is {}, expected two numbers",
                        shown(&structure.unwrap_or(&Json::Null).to_string())
                    ),
                    UNKNOWN,
                )),
            }
        }
        Some(other) => Err(unknown(source, &format!("{key}.strategy"), other)),
    }
}

fn unknown(source: &Quantization, key: &str, value: &str) -> crate::error::Error {
    source.problem(key, format!("`{}` is not known", shown(value)), UNKNOWN)
}

fn refuse_unknown_keys(
    source: &Quantization,
    key: &str,
    json: &Map<String, Json>,
    known: &[&str],
) -> Result<()> {
    match json.iter().find(|(name, value)| !value.is_null() && !known.contains(&name.as_str())) {
        Some((name, value)) => {
            let problem = format!("is not known (it is {})", shown(&value.to_string()));
            Err(source.problem(&format!("{key}.{}", shown(name)), problem, UNKNOWN))
        }
        None => Ok(()),
    }
}

fn object<'a>(source: &'a Quantization, key: &str) -> Result<Option<&'a Map<String, Json>>> {
    match source.json.get(key) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::Object(object)) => Ok(Some(object)),
        Some(other) => {
            Err(source.problem(key, format!("is {}, expected an object", shown(&other.to_string())), UNKNOWN))
        }
    }
}

fn strings<'a>(source: &Quantization, key: &str, json: Option<&'a Json>) -> Result<Vec<&'a str>> {
    let entries = match json {
        None | Some(Json::Null) => return Ok(Vec::new()),
        Some(Json::Array(entries)) => entries.iter().map(Json::as_str).collect::<Option<Vec<_>>>(),
        Some(_) => None,
    };
    entries.ok_or_else(|| source.problem(key, "is not a list of names", UNKNOWN))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn source(json: Json) -> Quantization {
        Quantization { path: "config.json".into(), key: "quantization_config", json }
    }

    fn group_of(settings: &Settings, module: &str) -> String {
        match settings.declared(module) {
            Declared::Nothing => "nothing".to_owned(),
            Declared::Ignored => "ignored".to_owned(),
            Declared::As(group) => group.name.clone(),
        }
    }

    #[test]
    fn the_most_specific_target_decides() {
        let group = |targets: &[&str]| json!({"targets": targets, "weights": {"num_bits": 4}});
        let settings = Settings::read(&source(json!({
            "config_groups": {
                "linears": group(&["Linear"]),
                "down": group(&["re:.*down_proj", "re:^model[.]layers[.]1[.]"]),
                "one": group(&["model.layers.1.mlp.down_proj"]),
                "embedding": group(&["Embedding"]),
                "output": group(&["re:.*o_proj$"]),
            },
            "ignore": ["lm_head", "re:.*layers.2.*", "re:k_proj", "model.layers.0.mlp"],
        })))
        .unwrap();
        for (module, expected) in [
            ("model.layers.0.self_attn.q_proj", "linears"),
            // Bound to the start: "re:k_proj" ignores nothing here.
            ("model.layers.0.self_attn.k_proj", "linears"),
            ("k_proj", "ignored"),
            // A name ignores itself, not what lies below it.
            ("model.layers.0.mlp.up_proj", "linears"),
            ("model.layers.0.mlp.down_proj", "down"),
            // Free at the end.
            ("model.layers.0.mlp.down_proj.experts", "down"),
            ("model.layers.1.mlp.up_proj", "down"),
            ("model.layers.1.mlp.down_proj", "one"),
            // Patterns in the order of their text: ".*o_proj$" before "^model".
            ("model.layers.1.self_attn.o_proj", "output"),
            ("model.layers.2.mlp.up_proj", "ignored"),
            ("model.embed_tokens", "embedding"),
            ("lm_head", "ignored"),
        ] {
            assert_eq!(group_of(&settings, module), expected, "{module}");
        }
        let classes = json!({"config_groups": {"all": group(&["re:.*"])}, "ignore": ["Linear"]});
        let classes = Settings::read(&source(classes)).unwrap();
        assert_eq!(group_of(&classes, "model.layers.0.mlp.up_proj"), "ignored");
        assert_eq!(group_of(&classes, "model.embed_tokens"), "all");
        let none = Settings::read(&source(json!({}))).unwrap();
        assert_eq!(group_of(&none, "lm_head"), "nothing");
    }

    #[test]
    fn strategies_follow_from_group_sizes_where_they_are_not_named() {
        let strategy = |args: Json| {
            let groups = json!({"g": {"targets": ["Linear"], "weights": args}});
            let settings = Settings::read(&source(json!({"config_groups": groups}))).unwrap();
            settings.groups[0].weights.clone().unwrap().strategy
        };
        assert_eq!(strategy(json!({})), Strategy::Tensor);
        assert_eq!(strategy(json!({"group_size": -1})), Strategy::Channel);
        assert_eq!(strategy(json!({"group_size": 64})), Strategy::Group(64));
        assert_eq!(
            strategy(json!({"strategy": "GROUP", "group_size": 32, "type": "FLOAT"})),
            Strategy::Group(32)
        );
        assert_eq!(
            strategy(json!({"strategy": "block", "block_structure": [64, 32]})),
            Strategy::Block(64, 32)
        );
        assert_eq!(strategy(json!({"strategy": "block", "block_structure": "2x4"})), Strategy::Block(2, 4));
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        let weights = |args: Json| json!({"config_groups": {"g": {"targets": ["Linear"], "weights": args}}});
        for (json, words) in [
            (json!({"format": "sparse-24-bitmask"}), "format`: the format `sparse-24-bitmask` cannot"),
            (json!({"format": "sparse-bitmask"}), "format`: the format `sparse-bitmask` cannot"),
            (json!({"format": "marlin-24"}), "format`: the format `marlin-24` cannot"),
            (json!({"format": 7}), "format`: the format `that is not text` cannot"),
            (
                json!({"sparsity_config": {"format": "sparse-24-bitmask"}}),
                "sparsity_config.format`: the weights are stored sparse (`sparse-24-bitmask`)",
            ),
            (json!({"sparsity_config": {"global_sparsity": 0.5}}), "stored sparse (`unnamed`)"),
            (
                json!({"transform_config": {"config_groups": {"R3": {"type": "hadamard"}}}}),
                "transform_config`: the model rotates activations",
            ),
            (json!({"quantization_status": "melted"}), "quantization_status`: `melted` is not known"),
            (json!({"config_groups": {"W8A8": ["Linear"]}}), "config_groups.W8A8`: is not an object"),
            (json!({"config_groups": 4}), "config_groups`: is 4, expected an object"),
            (
                json!({"config_groups": {"g": {"targets": "Linear"}}}),
                "config_groups.g.targets`: is not a list of names",
            ),
            (
                json!({"config_groups": {"g": {"targets": [], "format": "gguf"}}}),
                "config_groups.g.format`: the format `gguf`",
            ),
            (
                json!({"config_groups": {"g": {"targets": [], "bias": {}}}}),
                "config_groups.g.bias`: is not known (it is {})",
            ),
            (
                json!({"config_groups": {"g": {"targets": ["LlamaAttention"]}}}),
                "`LlamaAttention` quantizes attention itself",
            ),
            (
                json!({"config_groups": {"g": {"targets": ["re:.*self_attn$"]}}}),
                "`re:.*self_attn$` quantizes attention itself",
            ),
            (
                json!({"config_groups": {"a": {"targets": ["Linear"]}, "b": {"targets": ["Linear"]}}}),
                "b.targets`: `Linear` is the target of another group",
            ),
            (
                json!({"ignore": ["re:.*(?!lm_head)"]}),
                "ignore`: the pattern `.*(?!lm_head)` cannot be matched here",
            ),
            (weights(json!(4)), "config_groups.g.weights`: is 4, expected an object"),
            (weights(json!({"num_bits": 0})), "weights.num_bits`: `0` is not known"),
            (weights(json!({"num_bits": 4.5})), "weights.num_bits`: `4.5` is not known"),
            (weights(json!({"type": "posit"})), "weights.type`: `posit` is not known"),
            (weights(json!({"strategy": "diagonal"})), "weights.strategy`: `diagonal` is not known"),
            (weights(json!({"strategy": "group"})), "weights.group_size`: is missing"),
            (weights(json!({"strategy": "group", "group_size": 0})), "weights.group_size`: `0` is not known"),
            (weights(json!({"strategy": "block"})), "weights.block_structure`: is null"),
            (
                weights(json!({"strategy": "block", "block_structure": [0, 4]})),
                "weights.block_structure`: is [0,4]",
            ),
            (weights(json!({"symmetric": "yes"})), "weights.symmetric`: `\\\"yes\\\"` is not known"),
            (weights(json!({"dynamic": "global"})), "weights.dynamic`: `\\\"global\\\"` is not known"),
            (
                weights(json!({"rotation": "hadamard"})),
                "weights.rotation`: is not known (it is \\\"hadamard\\\")",
            ),
            (json!({"kv_cache_scheme": {"num_bits": 99}}), "kv_cache_scheme.num_bits`: `99` is not known"),
        ] {
            let error = Settings::read(&source(json.clone())).unwrap_err();
            assert!(error.to_string().contains(words), "{json}: {error}");
            assert!(error.help().is_some_and(|help| !help.is_empty()), "{error}");
        }
        let fine = json!({
            "format": "pack-quantized", "quantization_status": "frozen", "version": "0.19.0",
            "sparsity_config": {"format": "dense"}, "transform_config": {}, "global_compression_ratio": null,
            "config_groups": {"g": {"targets": ["Linear"], "weights": {"actorder": "weight", "rotation": null}}},
        });
        assert!(Settings::read(&source(fine)).is_ok());
    }
}
