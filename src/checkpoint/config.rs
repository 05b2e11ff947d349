//! What a checkpoint says about its own architecture: Hugging Face's
//! `config.json` or a GGUF's metadata, both read into one [`ModelConfig`].
//!
//! Field names are Hugging Face's. Whatever would change the computation and is
//! not implemented is refused by name; nothing is guessed.

use std::path::Path;

use serde_json::Value as Json;

use super::gguf::Metadata;
use crate::error::{Error, Result};

/// A decoder family that this program can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// `LlamaForCausalLM`, GGUF `llama`.
    Llama,
    /// `Qwen2ForCausalLM`, GGUF `qwen2`: biases on q, k and v.
    Qwen2,
}

impl Architecture {
    /// All of them, with Hugging Face's class name, its `model_type` and GGUF's name.
    pub const ALL: &'static [(Architecture, &'static str, &'static str, &'static str)] = &[
        (Architecture::Llama, "LlamaForCausalLM", "llama", "llama"),
        (Architecture::Qwen2, "Qwen2ForCausalLM", "qwen2", "qwen2"),
    ];

    /// Hugging Face's class name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|row| row.0 == self).map_or("", |row| row.1)
    }
}

/// Everything the decoder needs to know, whatever file it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// The family.
    pub architecture: Architecture,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; divides `num_attention_heads`.
    pub num_key_value_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Rows of embedding and head.
    pub vocab_size: usize,
    /// Longest context the model was trained for.
    pub max_position_embeddings: usize,
    /// ε of every RMS norm.
    pub rms_norm_eps: f64,
    /// Whether the head is the embedding.
    pub tie_word_embeddings: bool,
    /// Biases on q, k and v.
    pub attention_bias: bool,
    /// Bias on the attention's output projection.
    pub attention_output_bias: bool,
    /// Biases on gate, up and down.
    pub mlp_bias: bool,
    /// Rotary embedding.
    pub rope: RopeConfig,
}

/// Rotary position embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeConfig {
    /// Base of the geometric sequence of frequencies.
    pub theta: f64,
    /// How frequencies are changed for contexts longer than trained.
    pub scaling: RopeScaling,
}

/// Frequency scaling, as Hugging Face's `rope_type` (definitions: transformers' `modeling_rope_utils`).
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// None.
    Default,
    /// Every frequency divided by `factor`.
    Linear {
        /// Divisor.
        factor: f64,
    },
    /// Llama 3.1: low frequencies divided, high ones kept, a ramp in between.
    Llama3 {
        /// Divisor of low frequencies.
        factor: f64,
        /// Wavelengths above original length / this are divided.
        low_freq_factor: f64,
        /// Wavelengths below original length / this are kept.
        high_freq_factor: f64,
        /// Context length before scaling.
        original_max_position_embeddings: f64,
    },
    /// YaRN (arXiv 2309.00071).
    Yarn {
        /// Divisor of low frequencies.
        factor: f64,
        /// Rotations above which a frequency is kept.
        beta_fast: f64,
        /// Rotations below which a frequency is divided.
        beta_slow: f64,
        /// Context length before scaling.
        original_max_position_embeddings: f64,
        /// Factor on cos and sin.
        attention_factor: f64,
        /// Whether the ramp's ends are rounded to whole dimensions.
        truncate: bool,
    },
    /// Divisors, one per frequency, as llama.cpp stores Llama 3's in `rope_freqs.weight`.
    Divisors {
        /// `head_dim / 2` positive values.
        divisors: Vec<f32>,
    },
}

/// A file's config with typed access and errors that name the key.
struct Keys<'a> {
    path: &'a Path,
    json: &'a Json,
}

impl<'a> Keys<'a> {
    fn get(&self, key: &str) -> Option<&'a Json> {
        self.json.get(key).filter(|value| !value.is_null())
    }

    fn problem(&self, key: &str, problem: impl Into<String>, help: impl Into<String>) -> Error {
        Error::key(self.path, key, problem, help)
    }

    fn number(&self, key: &str) -> Result<Option<f64>> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match value.as_f64().filter(|x| x.is_finite()) {
                Some(x) => Ok(Some(x)),
                None => Err(self.problem(key, format!("{value} is not a finite number"), "correct the file")),
            },
        }
    }

    fn positive(&self, key: &str) -> Result<Option<f64>> {
        match self.number(key)? {
            Some(x) if x <= 0.0 => {
                Err(self.problem(key, format!("{x} must be greater than zero"), "correct the file"))
            }
            other => Ok(other),
        }
    }

    fn required_positive(&self, key: &str) -> Result<f64> {
        self.positive(key)?.ok_or_else(|| self.missing(key))
    }

    fn count(&self, key: &str) -> Result<Option<usize>> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match value.as_u64().and_then(|n| usize::try_from(n).ok()) {
                Some(n) if (1..=MAX_COUNT).contains(&n) => Ok(Some(n)),
                _ => Err(self.problem(
                    key,
                    format!("{value} is not a whole number between 1 and {MAX_COUNT}"),
                    "correct the file",
                )),
            },
        }
    }

    fn required_count(&self, key: &str) -> Result<usize> {
        self.count(key)?.ok_or_else(|| self.missing(key))
    }

    fn flag(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some(Json::Bool(flag)) => Ok(Some(*flag)),
            Some(value) => {
                Err(self.problem(key, format!("{value} is not true or false"), "correct the file"))
            }
        }
    }

    fn missing(&self, key: &str) -> Error {
        self.problem(key, "is missing", "copy the complete config of the model beside the weights")
    }
}

/// Larger than any dimension of any published model; keeps products of two within 64 bits.
const MAX_COUNT: usize = 1 << 28;

/// Deeper than any published model; names of weights are listed before the file is asked for them.
const MAX_LAYERS: usize = 4096;

/// Reads Hugging Face's `config.json`, in today's spelling (`rope_parameters`) and the older one
/// (`rope_theta`, `rope_scaling`).
///
/// # Errors
/// Names the key that is missing, malformed, or asks for something not implemented.
pub fn from_hugging_face(path: &Path, json: &Json) -> Result<ModelConfig> {
    let keys = Keys { path, json };
    let architecture = hugging_face_architecture(&keys)?;
    refuse_other_graphs(&keys)?;
    let num_attention_heads = keys.required_count("num_attention_heads")?;
    let hidden_size = keys.required_count("hidden_size")?;
    let biased = keys.flag("attention_bias")?.unwrap_or(false);
    let (attention_bias, attention_output_bias) = match architecture {
        Architecture::Llama => (biased, biased),
        Architecture::Qwen2 => (true, false),
    };
    let config = ModelConfig {
        architecture,
        hidden_size,
        intermediate_size: keys.required_count("intermediate_size")?,
        num_hidden_layers: keys.required_count("num_hidden_layers")?,
        num_attention_heads,
        num_key_value_heads: keys.count("num_key_value_heads")?.unwrap_or(num_attention_heads),
        head_dim: match keys.count("head_dim")? {
            Some(head_dim) => head_dim,
            None => hidden_size / num_attention_heads,
        },
        vocab_size: keys.required_count("vocab_size")?,
        max_position_embeddings: keys.count("max_position_embeddings")?.unwrap_or(2048),
        rms_norm_eps: keys.required_positive("rms_norm_eps")?,
        // transformers' default for both families.
        tie_word_embeddings: keys.flag("tie_word_embeddings")?.unwrap_or(false),
        attention_bias,
        attention_output_bias,
        mlp_bias: architecture == Architecture::Llama && keys.flag("mlp_bias")?.unwrap_or(false),
        rope: hugging_face_rope(&keys)?,
    };
    check_shape(path, config)
}

fn hugging_face_architecture(keys: &Keys) -> Result<Architecture> {
    let named = keys.get("architectures").and_then(|list| list.get(0)).and_then(Json::as_str);
    let model_type = keys.get("model_type").and_then(Json::as_str);
    let (key, given) = match (named, model_type) {
        (Some(name), _) => ("architectures", name),
        (None, Some(model_type)) => ("model_type", model_type),
        (None, None) => return Err(keys.missing("architectures")),
    };
    Architecture::ALL
        .iter()
        .find(|(_, class, model_type, _)| given == *class || (named.is_none() && given == *model_type))
        .map(|row| row.0)
        .ok_or_else(|| {
            keys.problem(key, format!("the architecture `{given}` is not implemented"), implemented())
        })
}

fn implemented() -> String {
    let names: Vec<&str> = Architecture::ALL.iter().map(|row| row.1).collect();
    format!("implemented: {}; `qeval inspect` still describes the file", names.join(", "))
}

/// Keys that change the graph in ways not implemented.
fn refuse_other_graphs(keys: &Keys) -> Result<()> {
    if let Some(act) = keys.get("hidden_act").and_then(Json::as_str)
        && act != "silu"
    {
        return Err(keys.problem("hidden_act", format!("`{act}` is not implemented"), "implemented: silu"));
    }
    if keys.flag("use_sliding_window")? == Some(true) {
        return Err(keys.problem(
            "use_sliding_window",
            "sliding-window attention is not implemented",
            "only full attention can be measured by this version",
        ));
    }
    if let Some(Json::Array(types)) = keys.get("layer_types")
        && let Some(other) = types.iter().find(|kind| kind.as_str() != Some("full_attention"))
    {
        return Err(keys.problem(
            "layer_types",
            format!("{other} is not implemented"),
            "only full_attention is",
        ));
    }
    if let Some(factor) = keys.number("partial_rotary_factor")?
        && factor != 1.0
    {
        return Err(keys.problem(
            "partial_rotary_factor",
            format!("{factor} is not implemented"),
            "only 1 is",
        ));
    }
    Ok(())
}

fn hugging_face_rope(keys: &Keys) -> Result<RopeConfig> {
    // Today's spelling holds theta and type in one block; the older one spreads them.
    let (name, block) = match (keys.get("rope_parameters"), keys.get("rope_scaling")) {
        (Some(block), _) => ("rope_parameters", Some(block)),
        (None, block) => ("rope_scaling", block),
    };
    let empty = Json::Object(serde_json::Map::new());
    let block = Keys { path: keys.path, json: block.unwrap_or(&empty) };
    if !block.json.is_object() {
        return Err(keys.problem(name, "is not an object", "correct the file"));
    }
    let theta = match block.positive("rope_theta")? {
        Some(theta) => theta,
        None => keys.positive("rope_theta")?.unwrap_or(10_000.0),
    };
    let kind = block.get("rope_type").or(block.get("type")).map_or(Some("default"), Json::as_str);
    let original = || -> Result<f64> {
        match block.positive("original_max_position_embeddings")? {
            Some(length) => Ok(length),
            None => keys.required_positive("max_position_embeddings"),
        }
    };
    let scaling = match kind {
        Some("default") => RopeScaling::Default,
        Some("linear") => RopeScaling::Linear { factor: block.required_positive("factor")? },
        Some("llama3") => RopeScaling::Llama3 {
            factor: block.required_positive("factor")?,
            low_freq_factor: block.required_positive("low_freq_factor")?,
            high_freq_factor: block.required_positive("high_freq_factor")?,
            original_max_position_embeddings: original()?,
        },
        Some("yarn") => yarn(&block, original()?)?,
        other => {
            return Err(keys.problem(
                name,
                format!("the rope type `{}` is not implemented", other.unwrap_or("?")),
                "implemented: default, linear, llama3, yarn",
            ));
        }
    };
    Ok(RopeConfig { theta, scaling })
}

fn yarn(block: &Keys, original_max_position_embeddings: f64) -> Result<RopeScaling> {
    let factor = block.required_positive("factor")?;
    let mscale = |weight: f64| if factor <= 1.0 { 1.0 } else { 0.1 * weight * factor.ln() + 1.0 };
    let attention_factor = match block.positive("attention_factor")? {
        Some(given) => given,
        None => match (block.positive("mscale")?, block.positive("mscale_all_dim")?) {
            (Some(one), Some(all)) => mscale(one) / mscale(all),
            _ => mscale(1.0),
        },
    };
    Ok(RopeScaling::Yarn {
        factor,
        beta_fast: block.positive("beta_fast")?.unwrap_or(32.0),
        beta_slow: block.positive("beta_slow")?.unwrap_or(1.0),
        original_max_position_embeddings,
        attention_factor,
        truncate: block.flag("truncate")?.unwrap_or(true),
    })
}

/// What a GGUF's tensor list says beyond its metadata.
#[derive(Clone, Debug)]
pub struct GgufTensorFacts {
    /// Rows of `token_embd.weight`.
    pub vocab_size: usize,
    /// No `output.weight`.
    pub tie_word_embeddings: bool,
    /// Some layer has `attn_q.bias`.
    pub attention_bias: bool,
    /// Some layer has `attn_output.bias`.
    pub attention_output_bias: bool,
    /// Some layer has `ffn_up.bias`.
    pub mlp_bias: bool,
    /// The values of `rope_freqs.weight`, if it is there.
    pub rope_freqs: Option<Vec<f32>>,
}

/// Reads a GGUF's metadata (keys: llama.cpp's `gguf` constants).
///
/// # Errors
/// Names the key that is missing, malformed, or asks for something not implemented.
pub fn from_gguf(path: &Path, metadata: &Metadata, tensors: GgufTensorFacts) -> Result<ModelConfig> {
    let name = metadata.get_str("general.architecture").ok_or_else(|| {
        Error::key(path, "general.architecture", "is missing", "the file is not a language model")
    })?;
    let architecture =
        Architecture::ALL.iter().find(|row| row.3 == name).map(|row| row.0).ok_or_else(|| {
            let problem = format!("the architecture `{name}` is not implemented");
            Error::key(path, "general.architecture", problem, implemented())
        })?;
    // The metadata becomes the JSON that `Keys` reads, so that both formats share one set of checks.
    let json = gguf_as_json(metadata, &format!("{name}."));
    let keys = Keys { path, json: &json };
    let num_attention_heads = keys.required_count("attention.head_count")?;
    let hidden_size = keys.required_count("embedding_length")?;
    let head_dim = match keys.count("attention.key_length")? {
        Some(length) => length,
        None => hidden_size / num_attention_heads,
    };
    for (key, wanted) in [("rope.dimension_count", head_dim), ("attention.value_length", head_dim)] {
        if let Some(other) = keys.count(key)?.filter(|n| *n != wanted) {
            let problem = format!("{other} differs from the head's width {wanted}, which is not implemented");
            return Err(keys.problem(key, problem, "only whole-head rotation can be measured"));
        }
    }
    if let Some(window) = keys.count("attention.sliding_window")? {
        let problem = format!("sliding-window attention ({window}) is not implemented");
        return Err(keys.problem("attention.sliding_window", problem, "only full attention is"));
    }
    let max_position_embeddings = keys.count("context_length")?.unwrap_or(2048);
    let config = ModelConfig {
        architecture,
        hidden_size,
        intermediate_size: keys.required_count("feed_forward_length")?,
        num_hidden_layers: keys.required_count("block_count")?,
        num_attention_heads,
        num_key_value_heads: keys.count("attention.head_count_kv")?.unwrap_or(num_attention_heads),
        head_dim,
        vocab_size: tensors.vocab_size,
        max_position_embeddings,
        rms_norm_eps: keys.required_positive("attention.layer_norm_rms_epsilon")?,
        tie_word_embeddings: tensors.tie_word_embeddings,
        attention_bias: tensors.attention_bias,
        attention_output_bias: tensors.attention_output_bias,
        mlp_bias: tensors.mlp_bias,
        rope: gguf_rope(&keys, tensors.rope_freqs, max_position_embeddings)?,
    };
    check_shape(path, config)
}

fn gguf_as_json(metadata: &Metadata, prefix: &str) -> Json {
    use super::gguf::Value;
    let mut object = serde_json::Map::new();
    for (key, value) in &metadata.0 {
        let Some(key) = key.strip_prefix(prefix) else { continue };
        let value = match value {
            Value::Unsigned(n) => Json::from(*n),
            Value::Signed(n) => Json::from(*n),
            Value::Float(x) => Json::from(*x),
            Value::Bool(flag) => Json::from(*flag),
            Value::String(text) => Json::from(text.as_str()),
            _ => Json::from("a list"),
        };
        object.insert(key.to_owned(), value);
    }
    Json::Object(object)
}

fn gguf_rope(
    keys: &Keys,
    rope_freqs: Option<Vec<f32>>,
    max_position_embeddings: usize,
) -> Result<RopeConfig> {
    let theta = keys.positive("rope.freq_base")?.unwrap_or(10_000.0);
    let kind = keys.get("rope.scaling.type").and_then(Json::as_str).unwrap_or("none");
    let original =
        keys.positive("rope.scaling.original_context_length")?.unwrap_or(max_position_embeddings as f64);
    if let Some(divisors) = rope_freqs {
        return Ok(RopeConfig { theta, scaling: RopeScaling::Divisors { divisors } });
    }
    let scaling = match kind {
        "none" => RopeScaling::Default,
        "linear" => RopeScaling::Linear { factor: keys.required_positive("rope.scaling.factor")? },
        "yarn" => {
            let factor = keys.required_positive("rope.scaling.factor")?;
            let given = keys.positive("rope.scaling.attn_factor")?.unwrap_or(1.0);
            RopeScaling::Yarn {
                factor,
                beta_fast: keys.positive("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
                beta_slow: keys.positive("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
                original_max_position_embeddings: original,
                // llama.cpp multiplies its own 1 + 0.1·ln(factor) by the stored factor.
                attention_factor: given * if factor > 1.0 { 1.0 + 0.1 * factor.ln() } else { 1.0 },
                truncate: true,
            }
        }
        other => {
            return Err(keys.problem(
                "rope.scaling.type",
                format!("the rope type `{other}` is not implemented"),
                "implemented: none, linear, yarn, and llama3 as rope_freqs.weight",
            ));
        }
    };
    Ok(RopeConfig { theta, scaling })
}

fn check_shape(path: &Path, config: ModelConfig) -> Result<ModelConfig> {
    let bad = |key: &str, problem: String| Err(Error::key(path, key, problem, "correct the file"));
    if !config.num_attention_heads.is_multiple_of(config.num_key_value_heads) {
        return bad(
            "num_key_value_heads",
            format!("{} does not divide {} heads", config.num_key_value_heads, config.num_attention_heads),
        );
    }
    if config.num_hidden_layers > MAX_LAYERS {
        return bad("num_hidden_layers", format!("{} is more than {MAX_LAYERS}", config.num_hidden_layers));
    }
    if config.head_dim == 0 || !config.head_dim.is_multiple_of(2) {
        return bad("head_dim", format!("{} is not a positive even number", config.head_dim));
    }
    if let RopeScaling::Divisors { divisors } = &config.rope.scaling
        && (divisors.len() != config.head_dim / 2 || !divisors.iter().all(|d| d.is_finite() && *d > 0.0))
    {
        return bad(
            "rope_freqs.weight",
            format!("holds {} divisors; {} positive ones are needed", divisors.len(), config.head_dim / 2),
        );
    }
    Ok(config)
}
