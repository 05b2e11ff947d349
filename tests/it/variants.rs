//! Every spelling, default and odd key of a config that changes what is computed, on tiny checkpoints of every family:
//! logits and hidden states against transformers'; what is not implemented is refused by name.
//!
//! `variants.jsonl` holds facts, no code: what transformers 5.17 computed (torch, f32, eager attention) for these
//! configs with weights that both sides make by one rule, from a tensor's name and a value's row-major index i:
//! h = splitmix64(fnv1a64(name) + i·0x9E3779B97F4A7C15), u = (h >> 40)·2⁻²³ − 1.
//!
//! - Matrices: u in embeddings, u·`matrix_scale` (2⁻² where the line has none) elsewhere.
//! - Weights of norms: 1 + u/4, or u/4 in families that store them less 1. Other vectors: u/2.
//! - Bytes of MXFP4: h >> 56 for codes, 122 + (h >> 62) for exponents.
//!
//! Position p has the id (7p² + 3p + 5) mod 96. A line gives the first logits of three positions and the first channels
//! of two positions of every hidden state; `changes` are other settings, with the largest difference that they make in any
//! logit: so a key shows that is read and should not be, or is not and should. In names `{0-2}` and `{0,2}` stand for each of these numbers.
//!
//! Needs ../shared: published configs, for the last test alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use candle_core::Device;
use qeval::{
    Error, Result,
    checkpoint::{
        Checkpoint,
        architectures::ARCHITECTURES,
        config::{ModelConfig, from_hugging_face},
    },
    evaluate::trace::{Trace, trace},
    model::Decoder,
};
use safetensors::{Dtype, tensor::TensorView};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::{self, edit_json, entries, max_abs_difference, refusal, shared};

/// Largest difference allowed in any logit or hidden value.
const TOLERANCE: f32 = 1e-3;

/// One line of the file.
#[derive(Deserialize)]
struct Variant {
    name: String,
    what: String,
    config: Value,
    #[serde(rename = "T")]
    length: u32,
    #[serde(default = "quarter")]
    matrix_scale: f64,
    tensors: BTreeMap<String, Vec<usize>>,
    #[serde(default)]
    changes: Vec<Change>,
    /// The first ones, by position.
    logits: BTreeMap<usize, Vec<f32>>,
    /// The first channels, by position, of every hidden state.
    hidden: Vec<BTreeMap<usize, Vec<f32>>>,
}

/// Keys set anew, and the largest difference that this makes in any logit.
#[derive(Deserialize)]
struct Change {
    set: BTreeMap<String, Value>,
    moves: f32,
}

fn quarter() -> f64 {
    0.25
}

fn variants() -> Vec<Variant> {
    include_str!("variants.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn variant(name: &str) -> Variant {
    variants().into_iter().find(|variant| variant.name == name).unwrap()
}

fn ids(length: u32) -> Vec<u32> {
    (0..length).map(|p| (7 * p * p + 3 * p + 5) % 96).collect()
}

/// The hash of every value of a tensor.
fn hashes(name: &str, count: usize) -> impl Iterator<Item = u64> + use<> {
    const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
    let name = name.bytes().fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    });
    (1..=count as u64).map(move |step| {
        let x = name.wrapping_add(step.wrapping_mul(STEP));
        let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    })
}

fn units(name: &str, count: usize) -> impl Iterator<Item = f64> {
    hashes(name, count).map(|hash| (hash >> 40) as f64 / f64::from(1 << 23) - 1.0)
}

/// A tensor's bytes by the rule above.
fn made(name: &str, shape: &[usize], less_one: bool, scale: f64) -> (Dtype, Vec<u8>) {
    let count = shape.iter().product();
    if name.ends_with("_blocks") {
        return (Dtype::U8, hashes(name, count).map(|hash| (hash >> 56) as u8).collect());
    }
    if name.ends_with("_scales") {
        return (Dtype::U8, hashes(name, count).map(|hash| 122 + (hash >> 62) as u8).collect());
    }
    let is_norm = name.ends_with(".weight") && (name.contains("norm") || name.contains("ln_"));
    let (factor, offset) = match shape.len() {
        2.. if ["embed", "wte", "wpe"].iter().any(|word| name.contains(word)) => (1.0, 0.0),
        2.. => (scale, 0.0),
        _ if is_norm && less_one && !name.ends_with("linear_attn.norm.weight") => (0.25, 0.0),
        _ if is_norm => (0.25, 1.0),
        _ => (0.5, 0.0),
    };
    let values = units(name, count).map(|unit| (unit * factor + offset) as f32);
    (Dtype::F32, values.flat_map(f32::to_le_bytes).collect())
}

/// The names that one with numbers in braces stands for.
fn expanded(name: &str) -> Vec<String> {
    let Some((before, rest)) = name.split_once('{') else { return vec![name.to_owned()] };
    let (numbers, after) = rest.split_once('}').unwrap();
    let number = |text: &str| -> usize { text.parse().unwrap() };
    let numbers: Vec<usize> = match numbers.split_once('-') {
        Some((first, last)) => (number(first)..=number(last)).collect(),
        None => numbers.split(',').map(number).collect(),
    };
    numbers.iter().flat_map(|number| expanded(&format!("{before}{number}{after}"))).collect()
}

/// Writes a checkpoint of tensors that are already bytes.
fn write(folder: &Path, config: &Value, made: &BTreeMap<String, (Vec<usize>, Dtype, Vec<u8>)>) {
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let views = made.iter().map(|(name, (shape, dtype, bytes))| {
        (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize_to_file(views, None, &folder.join("model.safetensors")).unwrap();
}

/// Whether the family stores the weights of its norms less 1.
fn less_one(config: &Value) -> bool {
    let kind = config["text_config"]["model_type"].as_str().or(config["model_type"].as_str()).unwrap();
    ["gemma", "gemma2", "gemma3_text", "qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"].contains(&kind)
}

impl Variant {
    fn checkpoint(&self) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let less_one = less_one(&self.config);
        let tensors = self.tensors.iter().flat_map(|(names, shape)| {
            expanded(names).into_iter().map(move |name| {
                let (dtype, bytes) = made(&name, shape, less_one, self.matrix_scale);
                (name, (shape.clone(), dtype, bytes))
            })
        });
        write(folder.path(), &self.config, &tensors.collect());
        folder
    }

    fn trace(&self, folder: &Path) -> Result<Trace> {
        let checkpoint = Checkpoint::open(folder)?;
        let config = checkpoint.config()?.unwrap();
        trace(&Decoder::open(&checkpoint, config, &Device::Cpu)?, &ids(self.length))
    }

    /// What differs from transformers, in words; nothing where all is well.
    fn problems(&self) -> Result<Vec<String>> {
        let folder = self.checkpoint();
        let traced = self.trace(folder.path())?;
        let mut problems = Vec::new();
        let mut hold = |what: String, found: &[f32], expected: &[f32]| {
            let worst = max_abs_difference(found, expected);
            // Not a number is not below, either.
            if worst.is_nan() || worst >= TOLERANCE || !found.iter().all(|value| value.is_finite()) {
                problems.push(format!("{what} differs by {worst}"));
            }
        };
        let logits = traced.logits.to_vec2::<f32>().unwrap();
        for (position, expected) in &self.logits {
            hold(format!("logits at {position}"), &logits[*position][..expected.len()], expected);
        }
        assert_eq!(traced.hidden.len(), self.hidden.len(), "{}", self.name);
        for (layer, (hidden, expected)) in traced.hidden.iter().zip(&self.hidden).enumerate() {
            let hidden = hidden.to_vec2::<f32>().unwrap();
            for (position, expected) in expected {
                let found = &hidden[*position][..expected.len()];
                hold(format!("hidden state {layer} at {position}"), found, expected);
            }
        }
        for Change { set, moves } in &self.changes {
            let mut config = self.config.clone();
            for (key, value) in set {
                config[key] = value.clone();
            }
            std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
            let moved = match self.trace(folder.path()) {
                Ok(other) => {
                    max_abs_difference(&logits.concat(), &other.logits.to_vec2::<f32>().unwrap().concat())
                }
                Err(error) => {
                    problems.push(format!("with {set:?}: {error}"));
                    continue;
                }
            };
            if moved.is_nan() || (moved - moves).abs() > TOLERANCE.min((0.1 * moves).max(1e-5)) {
                problems.push(format!("{set:?} moves logits by {moved}, not by {moves}"));
            }
        }
        Ok(problems)
    }
}

#[test]
fn the_rule_of_the_weights_is_that_of_the_figures() {
    let first: Vec<f64> = units("model.embed_tokens.weight", 4).collect();
    let expected = [-0.2574191093444824, -0.35996365547180176, 0.026570439338684082, -0.5031160116195679];
    assert_eq!(first, expected);
    assert_eq!(expanded("h.{0-2}.e.{1,3}.w").len(), 6);
}

#[test]
fn every_variant_of_a_config_equals_transformers() {
    let all = variants();
    assert_eq!(all.len(), 89);
    let mut failed = Vec::new();
    for variant in &all {
        let problems = variant.problems().unwrap_or_else(|error| vec![error.to_string()]);
        if !problems.is_empty() {
            failed.push(format!("{} ({}): {}", variant.name, variant.what, problems.join("; ")));
        }
    }
    assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), all.len(), failed.join("\n"));
}

#[test]
fn every_family_has_a_variant() {
    let read = |variant: &Variant| from_hugging_face(Path::new("config.json"), &variant.config).unwrap();
    let covered: BTreeSet<&str> = variants().iter().map(|variant| read(variant).architecture.class).collect();
    let all: BTreeSet<&str> = ARCHITECTURES.iter().map(|architecture| architecture.class).collect();
    assert_eq!(covered, all);
}

/// A config with some keys changed, as the program reads it.
fn read(config: &Value, changes: &Value) -> Result<ModelConfig> {
    let mut config = config.clone();
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    from_hugging_face(Path::new("some/config.json"), &config)
}

#[track_caller]
fn check_refusal(name: &str, changes: &Value, key: &str, word: &str) {
    let config = variant(name).config;
    assert!(read(&config, &json!({})).is_ok(), "{name} is read without the change");
    let error = read(&config, changes).err().unwrap_or_else(|| panic!("{name} is read with {changes}"));
    assert!(error.help().is_some_and(|help| !help.is_empty()), "{changes}: without help: {error}");
    assert!(error.to_string().contains(word), "{changes}: without {word}: {error}");
    match error {
        Error::Key { key: found, .. } => assert_eq!(found, key, "{changes}"),
        other => panic!("{changes}: names no key: {other}"),
    }
}

#[test]
fn keys_that_change_the_computation_and_are_not_implemented_are_refused_by_name() {
    let yarn = json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16});
    let turning = |kind: &str| json!({"rope_type": kind, "factor": 2.0, "rope_theta": 1e4});
    let types =
        |word: &str| json!({"layer_types": ["full_attention", word, "full_attention", "full_attention"]});
    // A variant, the change, the key that the message names, a word in it.
    let cases = [
        ("llama-biases", json!({"rope_scaling": turning("spiral")}), "rope_scaling", "spiral"),
        ("llama-biases", json!({"rope_parameters": turning("spiral")}), "rope_parameters", "spiral"),
        ("llama-biases", json!({"rope_parameters": 7}), "rope_parameters", "object"),
        ("llama-biases", json!({"hidden_act": "swooshglu"}), "hidden_act", "swooshglu"),
        ("gpt2-noscale", json!({"activation_function": "swooshglu"}), "activation_function", "swooshglu"),
        ("gemma2-defaults", json!({"hidden_activation": "swooshglu"}), "hidden_activation", "swooshglu"),
        (
            "gemma3-defaults",
            json!({"use_bidirectional_attention": true}),
            "use_bidirectional_attention",
            "true",
        ),
        ("llama-minimal-old", json!({"is_causal": false}), "is_causal", "false"),
        ("qwen35-nested", json!({"is_causal": false}), "is_causal", "false"),
        (
            "llama-biases",
            json!({"per_layer_config": {"1": {"hidden_act": "gelu"}}}),
            "per_layer_config",
            "not implemented",
        ),
        ("gemma2-defaults", types("chunked_attention"), "layer_types", "chunked_attention"),
        ("qwen2-swa", types("linear_attention"), "layer_types", "linear_attention"),
        ("qwen3next-dense", types("sliding_attention"), "layer_types", "sliding_attention"),
        ("gptoss-nobias", types("mamba"), "layer_types", "mamba"),
        ("qwen2-swa", json!({"layer_types": ["full_attention"]}), "layer_types", "1 entries for 3 layers"),
        ("gpt2-noscale", json!({"add_cross_attention": true}), "add_cross_attention", "true"),
        (
            "llama-biases",
            json!({"partial_rotary_factor": 0.5, "rope_scaling": yarn}),
            "partial_rotary_factor",
            "0.5",
        ),
        ("dsv2-greedy", json!({"topk_method": "roulette"}), "topk_method", "roulette"),
        ("dsv3-noqlora", json!({"topk_method": "roulette"}), "topk_method", "roulette"),
        ("dsv3-noqlora", json!({"scoring_func": "tanh"}), "scoring_func", "tanh"),
        ("dsv3-yarn", json!({"n_group": 3}), "n_group", "3 groups of 8"),
        ("dsv3-yarn", json!({"topk_group": 5}), "n_group", "5"),
        ("dsv2-group-yarn", json!({"n_group": 4}), "n_group", "4 groups of 6"),
        ("dsv3-yarn", json!({"num_experts_per_tok": 5}), "num_experts_per_tok", "4 experts"),
        ("mixtral-swa", json!({"num_experts_per_tok": 6}), "num_experts_per_tok", "5 experts"),
        ("gptoss-nobias", json!({"num_experts_per_tok": 6}), "num_experts_per_tok", "5 experts"),
        ("qwen3moe-mixed", json!({"num_experts_per_tok": 7}), "num_experts_per_tok", "6 experts"),
        ("phi3-longrope-short", json!({"partial_rotary_factor": 0.75}), "short_factor", "holds 8"),
        (
            "llama-longrope",
            json!({"rope_scaling": {"rope_type": "longrope", "factor": 2.0, "short_factor": vec![1.0; 8],
                "long_factor": vec![1.0; 7]}}),
            "long_factor",
            "holds 7",
        ),
        ("llama-longrope", json!({"rope_scaling": {"rope_type": "longrope"}}), "short_factor", "missing"),
        ("llama-biases", json!({"rope_scaling": {"type": "linear"}}), "factor", "missing"),
        ("gptoss-old", json!({"swiglu_limit": 1.0}), "swiglu_limit", "1.0"),
        ("smollm3-norope", json!({"no_rope_layers": [0, 1, "yes", 0]}), "no_rope_layers", "yes"),
        ("llama-biases", json!({"architectures": ["MambaForCausalLM"]}), "architectures", "MambaForCausalLM"),
        // Its norms have no weights; nothing of it is here.
        ("llama-biases", json!({"architectures": ["OlmoForCausalLM"]}), "architectures", "OlmoForCausalLM"),
        ("llama-biases", json!({"architectures": null, "model_type": "mamba"}), "model_type", "mamba"),
        ("llama-biases", json!({"architectures": null, "model_type": null}), "architectures", "missing"),
    ];
    for (name, changes, key, word) in &cases {
        check_refusal(name, changes, key, word);
    }
}

#[test]
fn a_refused_key_is_what_the_program_says() {
    let variant = variant("llama-biases");
    let folder = variant.checkpoint();
    edit_json(&folder.path().join("config.json"), |config| config["is_causal"] = false.into());
    let out = folder.path().join("trace.safetensors");
    let args = ["trace".as_ref(), folder.path().as_os_str(), "--tokens".as_ref(), "1,2".as_ref()];
    let said = refusal(args.into_iter().chain(["--out".as_ref(), out.as_os_str()]));
    assert!(said.contains("config.json") && said.contains("`is_causal`"), "{said}");
    assert!(said.contains("implemented: true") && !out.exists(), "{said}");
}

/// The objects of a config that hold keys: itself and those within.
fn blocks(config: &Value, at: &str, found: &mut Vec<String>) {
    let Some(object) = config.as_object() else { return };
    for (key, value) in object {
        let key = format!("{at}/{key}");
        blocks(value, &key, found);
        found.push(key);
    }
}

#[test]
fn no_value_of_any_key_makes_reading_panic() {
    let values = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(3),
        json!(0.3),
        json!(1e300),
        json!(5000),
        // As much as a count may be: nothing is listed before it is known to be few.
        json!(1 << 28),
        json!("word"),
        json!([]),
        json!([1]),
        json!({}),
    ];
    for variant in variants() {
        let mut keys = Vec::new();
        blocks(&variant.config, "", &mut keys);
        for key in keys {
            for value in &values {
                let mut config = variant.config.clone();
                *config.pointer_mut(&key).unwrap() = value.clone();
                if let Err(error) = from_hugging_face(Path::new("some/config.json"), &config) {
                    let says = error.to_string().contains("config.json") && error.help().is_some();
                    assert!(says, "{}: {key} = {value}: {error}", variant.name);
                }
            }
        }
    }
}

/// A published config scaled down: two layers, heads of 8 channels, 96 ids. All else stays.
fn scaled_down(config: &Value) -> Value {
    let mut small = config.clone();
    let count = |key: &str| config[key].as_u64();
    let (hidden, heads) = (count("hidden_size").unwrap(), count("num_attention_heads").unwrap());
    let by = count("head_dim").unwrap_or(hidden / heads) / 8;
    small["num_hidden_layers"] = 2.into();
    small["vocab_size"] = 96.into();
    for key in ["hidden_size", "intermediate_size", "head_dim"] {
        if let Some(width) = count(key) {
            small[key] = (width / by).into();
        }
    }
    small
}

/// The same in today's spelling, as transformers 5 saves it.
fn in_todays_spelling(config: &Value) -> Value {
    let mut today = config.clone();
    let keys = today.as_object_mut().unwrap();
    let theta = keys.shift_remove("rope_theta").unwrap();
    let older = keys.shift_remove("rope_scaling").filter(Value::is_object);
    let mut rope = older.unwrap_or(json!({"rope_type": "default"}));
    rope["rope_theta"] = theta;
    let dtype = keys.shift_remove("torch_dtype").unwrap();
    keys.extend([("rope_parameters".to_owned(), rope), ("dtype".to_owned(), dtype)]);
    let types = match keys["model_type"].as_str().unwrap() {
        "gemma2" => ["sliding_attention", "full_attention"],
        "qwen2" | "qwen3" => ["full_attention", "full_attention"],
        _ => return today,
    };
    today["layer_types"] = json!(types);
    today
}

/// Names and shapes of such a model's tensors.
fn shapes(config: &Value) -> BTreeMap<String, Vec<usize>> {
    let count = |key: &str| config[key].as_u64().map(|value| value as usize);
    let [hidden, width, heads, kv_heads, ids, layers] = [
        "hidden_size",
        "intermediate_size",
        "num_attention_heads",
        "num_key_value_heads",
        "vocab_size",
        "num_hidden_layers",
    ]
    .map(|key| count(key).unwrap());
    let head_dim = count("head_dim").unwrap_or(hidden / heads);
    let (q, kv) = (heads * head_dim, kv_heads * head_dim);
    let kind = config["model_type"].as_str().unwrap();
    let mut shapes = BTreeMap::new();
    let mut layer = |name: &str, shape: &[usize]| {
        for name in expanded(&format!("model.layers.{{0-{}}}.{name}", layers - 1)) {
            shapes.insert(name, shape.to_vec());
        }
    };
    let norms = ["input_layernorm", "post_attention_layernorm"].into_iter().chain(match kind {
        "gemma2" => vec!["pre_feedforward_layernorm", "post_feedforward_layernorm"],
        _ => Vec::new(),
    });
    for norm in norms {
        layer(&format!("{norm}.weight"), &[hidden]);
    }
    if kind == "phi3" {
        layer("self_attn.qkv_proj.weight", &[q + 2 * kv, hidden]);
        layer("mlp.gate_up_proj.weight", &[2 * width, hidden]);
    } else {
        for (part, rows) in [("q", q), ("k", kv), ("v", kv)] {
            layer(&format!("self_attn.{part}_proj.weight"), &[rows, hidden]);
            if kind == "qwen2" {
                layer(&format!("self_attn.{part}_proj.bias"), &[rows]);
            }
            if kind == "qwen3" && part != "v" {
                layer(&format!("self_attn.{part}_norm.weight"), &[head_dim]);
            }
        }
        layer("mlp.gate_proj.weight", &[width, hidden]);
        layer("mlp.up_proj.weight", &[width, hidden]);
    }
    layer("self_attn.o_proj.weight", &[hidden, q]);
    layer("mlp.down_proj.weight", &[hidden, width]);
    shapes.insert("model.embed_tokens.weight".to_owned(), vec![ids, hidden]);
    shapes.insert("model.norm.weight".to_owned(), vec![hidden]);
    // Gemma's are tied unless they say otherwise, and do not say.
    if !config["tie_word_embeddings"].as_bool().unwrap_or(kind == "gemma2") {
        shapes.insert("lm_head.weight".to_owned(), vec![ids, hidden]);
    }
    shapes
}

/// Logits of `qeval trace`, which are finite.
fn traced(folder: &Path, config: &Value) -> Vec<f32> {
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let (shape, logits) = support::traced(folder, &ids(24)).remove("logits").unwrap();
    assert_eq!(shape, [1, 24, 96]);
    assert!(logits.iter().all(|logit| logit.is_finite()), "{config}");
    logits
}

#[test]
fn published_configs_run_and_mean_the_same_in_todays_spelling() {
    let Some(configs) = shared("data/configs") else { return };
    let mut run = 0;
    for path in entries(&configs) {
        let name = path.file_name().unwrap().to_str().unwrap();
        let config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let whole = from_hugging_face(&path, &config).unwrap();
        assert_eq!(Some(whole.layers.len() as u64), config["num_hidden_layers"].as_u64(), "{name}");
        let small = scaled_down(&config);
        let packed = config.get("quantization_config").is_some();
        let mut all = BTreeMap::new();
        for (name, shape) in shapes(&small) {
            let (dtype, bytes) = made(&name, &shape, less_one(&small), 0.25);
            // 8-bit integers, and one scale for each row.
            if packed && name.contains("_proj.weight") {
                let codes = hashes(&name, shape.iter().product()).map(|hash| (hash >> 56) as u8);
                let scales = format!("{name}_scale");
                let scale = |unit: f64| (1e-3 * (1.5 + unit)) as f32;
                let bytes = units(&scales, shape[0]).flat_map(|unit| scale(unit).to_le_bytes()).collect();
                all.insert(scales, (vec![shape[0], 1], Dtype::F32, bytes));
                all.insert(name, (shape, Dtype::I8, codes.collect()));
            } else {
                all.insert(name, (shape, dtype, bytes));
            }
        }
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &small, &all);
        let today = in_todays_spelling(&small);
        let logits = traced(folder.path(), &small);
        assert_eq!(logits, traced(folder.path(), &today), "{name}");
        // The rotation comes from where it now stands.
        let mut turned = today;
        turned["rope_parameters"]["rope_theta"] = 50.0.into();
        assert!(max_abs_difference(&logits, &traced(folder.path(), &turned)) > 1e-2, "{name}");
        run += 1;
    }
    assert_eq!(run, 8);
}
