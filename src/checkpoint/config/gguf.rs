//! A GGUF's metadata said in Hugging Face's words, so that one set of readers and checks serves both formats.
//!
//! Keys: llama.cpp's `gguf-py/gguf/constants.py`. What a family means by them beyond the common ones is its own to say
//! (`architectures`); what a family's graph has fixed in llama.cpp is put here as if the file said it.

use std::path::Path;

use serde_json::{Map, Value as Json, json};

use super::{MAX_LAYERS, ModelConfig, RopeScaling, checked, keys::Keys};
use crate::{
    checkpoint::{
        architectures::{self, implemented},
        gguf::{Metadata, Value},
    },
    error::{Error, Result},
};

/// What a GGUF's tensors say beyond its metadata.
pub(in crate::checkpoint) struct GgufTensors<'a> {
    /// Rows of `token_embd.weight`.
    pub(in crate::checkpoint) vocab_size: usize,
    /// No `output.weight`.
    pub(in crate::checkpoint) tie_word_embeddings: bool,
    /// Whether some tensor's name ends so.
    pub(in crate::checkpoint) has: &'a dyn Fn(&str) -> bool,
    /// The values of a small tensor, if it is there.
    pub(in crate::checkpoint) values: &'a dyn Fn(&str) -> Result<Option<Vec<f32>>>,
}

/// Settings on their way into Hugging Face's words.
pub(in crate::checkpoint) struct GgufSettings<'a> {
    path: &'a Path,
    /// "llama."
    prefix: String,
    metadata: &'a Metadata,
    tensors: &'a GgufTensors<'a>,
    json: Map<String, Json>,
    /// Where each of Hugging Face's keys came from.
    spelled: Vec<(String, String)>,
}

/// Keys that mean the same in every family.
const COMMON: &[(&str, &str)] = &[
    ("embedding_length", "hidden_size"),
    ("feed_forward_length", "intermediate_size"),
    ("attention.head_count", "num_attention_heads"),
    ("attention.head_count_kv", "num_key_value_heads"),
    ("attention.key_length", "head_dim"),
    ("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
    ("attention.layer_norm_epsilon", "layer_norm_eps"),
    ("attention.sliding_window", "sliding_window"),
    ("context_length", "max_position_embeddings"),
    ("expert_count", "num_local_experts"),
    ("expert_used_count", "num_experts_per_tok"),
];

impl GgufSettings<'_> {
    fn value(&self, key: &str) -> Option<&Value> {
        self.metadata.0.get(&format!("{}{key}", self.prefix))
    }

    /// A whole number.
    pub(in crate::checkpoint) fn count(&self, key: &str) -> Option<usize> {
        let number = self.metadata.get_u64(&format!("{}{key}", self.prefix))?;
        usize::try_from(number).ok().filter(|number| *number > 0)
    }

    /// How many layers the file says it has, as far as anyone lists them.
    pub(in crate::checkpoint) fn layers(&self) -> usize {
        self.count("block_count").unwrap_or(0).min(MAX_LAYERS)
    }

    /// Any number.
    pub(in crate::checkpoint) fn number(&self, key: &str) -> Option<f64> {
        self.metadata.get_f64(&format!("{}{key}", self.prefix))
    }

    /// A truth value.
    pub(in crate::checkpoint) fn flag(&self, key: &str) -> Option<bool> {
        self.metadata.get_bool(&format!("{}{key}", self.prefix))
    }

    /// A list of truth values.
    pub(in crate::checkpoint) fn flags(&self, key: &str) -> Option<Vec<bool>> {
        match self.value(key)? {
            Value::Bools(flags) => Some(flags.clone()),
            Value::Integers(numbers) => Some(numbers.iter().map(|number| *number != 0).collect()),
            _ => None,
        }
    }

    /// Whether some tensor's name ends so.
    pub(in crate::checkpoint) fn has_tensor(&self, ending: &str) -> bool {
        (self.tensors.has)(ending)
    }

    /// Whether something has been said under Hugging Face's key.
    pub(in crate::checkpoint) fn has(&self, key: &str) -> bool {
        self.json.get(key).is_some_and(|value| !value.is_null())
    }

    /// Says `key` in Hugging Face's words.
    pub(in crate::checkpoint) fn put(&mut self, key: &str, value: impl Into<Json>) {
        self.json.insert(key.to_owned(), value.into());
    }

    /// Says what the file has under `theirs`, if it has it, as `ours`.
    pub(in crate::checkpoint) fn copy(&mut self, theirs: &str, ours: &str) {
        let value = match self.value(theirs) {
            None => return,
            Some(Value::Unsigned(number)) => Json::from(*number),
            Some(Value::Signed(number)) => Json::from(*number),
            Some(Value::Float(number)) => Json::from(*number),
            Some(Value::Bool(flag)) => Json::from(*flag),
            Some(Value::String(text)) => Json::from(text.as_str()),
            Some(Value::Integers(numbers)) => Json::from(numbers.clone()),
            Some(Value::Bools(flags)) => Json::from(flags.clone()),
            Some(_) => Json::from("a list"),
        };
        self.spelled.push((ours.to_owned(), format!("{}{theirs}", self.prefix)));
        self.put(ours, value);
    }

    /// Width of a head.
    pub(in crate::checkpoint) fn head_dim(&self) -> Result<usize> {
        let derived = || self.count("embedding_length")?.checked_div(self.count("attention.head_count")?);
        self.count("attention.key_length").or_else(derived).ok_or_else(|| {
            let key = format!("{}attention.head_count", self.prefix);
            Error::key(self.path, &key, "is missing", "the file is damaged, or not a language model")
        })
    }

    /// LongRoPE's divisors, which are tensors; its magnitude is a key.
    pub(in crate::checkpoint) fn long_rope(&mut self) -> Result<()> {
        let long = (self.tensors.values)("rope_factors_long.weight")?;
        let short = (self.tensors.values)("rope_factors_short.weight")?;
        let (Some(long), Some(short)) = (long, short) else { return Ok(()) };
        let mut rope = self.rope();
        rope.insert("rope_type".to_owned(), json!("longrope"));
        rope.insert("long_factor".to_owned(), json!(long));
        rope.insert("short_factor".to_owned(), json!(short));
        rope.insert(
            "attention_factor".to_owned(),
            json!(self.number("rope.scaling.attn_factor").unwrap_or(1.0)),
        );
        self.put("rope_parameters", rope);
        Ok(())
    }

    /// YaRN with a magnitude of its own on the scores: transformers' `mscale` and `mscale_all_dim`, which are equal.
    pub(in crate::checkpoint) fn yarn_magnitudes(&mut self, all: f64) {
        let mut rope = self.rope();
        rope.remove("attention_factor");
        rope.insert("mscale".to_owned(), json!(all));
        rope.insert("mscale_all_dim".to_owned(), json!(all));
        self.put("rope_parameters", rope);
    }

    /// Says something about the rotation.
    pub(in crate::checkpoint) fn put_rope(&mut self, key: &str, value: impl Into<Json>) {
        let mut rope = self.rope();
        rope.insert(key.to_owned(), value.into());
        self.put("rope_parameters", rope);
    }

    fn rope(&self) -> Map<String, Json> {
        self.json.get("rope_parameters").and_then(Json::as_object).cloned().unwrap_or_default()
    }

    fn common(&mut self) -> Result<()> {
        // Layers beyond the decoder's own predict further tokens.
        let layers = self.count("block_count").unwrap_or(0);
        let layers = layers.saturating_sub(self.count("nextn_predict_layers").unwrap_or(0));
        self.copy("nextn_predict_layers", "num_nextn_predict_layers");
        self.spelled.push(("num_hidden_layers".to_owned(), format!("{}block_count", self.prefix)));
        if layers > 0 {
            self.put("num_hidden_layers", layers);
        }
        for (theirs, ours) in COMMON {
            self.copy(theirs, ours);
        }
        // 0 is how some writers say that there is none.
        for key in ["sliding_window", "num_local_experts"] {
            if self.json.get(key).and_then(Json::as_u64) == Some(0) {
                self.put(key, Json::Null);
            }
        }
        self.put("vocab_size", self.tensors.vocab_size);
        self.put("tie_word_embeddings", self.tensors.tie_word_embeddings);
        for (key, ending) in [
            ("attention_bias", ".attn_q.bias"),
            ("attention_output_bias", ".attn_output.bias"),
            ("mlp_bias", ".ffn_up.bias"),
        ] {
            let fused = key == "attention_bias" && self.has_tensor(".attn_qkv.bias");
            self.put(key, fused || self.has_tensor(ending));
        }
        self.rotation()
    }

    fn rotation(&mut self) -> Result<()> {
        let mut rope = Map::new();
        self.spelled
            .push(("partial_rotary_factor".to_owned(), format!("{}rope.dimension_count", self.prefix)));
        if let Some(theta) = self.number("rope.freq_base") {
            rope.insert("rope_theta".to_owned(), json!(theta));
        }
        if let Some(dims) = self.count("rope.dimension_count") {
            rope.insert("partial_rotary_factor".to_owned(), json!(dims as f64 / self.head_dim()? as f64));
        }
        let factor = self.number("rope.scaling.factor").or(self.number("rope.scale_linear"));
        let factor = factor.filter(|factor| *factor != 0.0);
        let kind = self.metadata.get_str(&format!("{}rope.scaling.type", self.prefix)).unwrap_or("linear");
        if let Some(original) = self.number("rope.scaling.original_context_length") {
            rope.insert("original_max_position_embeddings".to_owned(), json!(original));
        }
        match (kind, factor) {
            // LongRoPE is told by its tensors.
            ("none" | "longrope", _) | ("linear", None) => {}
            ("linear", Some(factor)) => {
                rope.insert("rope_type".to_owned(), json!("linear"));
                rope.insert("factor".to_owned(), json!(factor));
            }
            ("yarn", Some(factor)) => {
                rope.insert("rope_type".to_owned(), json!("yarn"));
                rope.insert("factor".to_owned(), json!(factor));
                // llama.cpp multiplies its own 1 + 0.1·ln(factor) by the stored factor.
                let own = super::rope::mscale(factor, 1.0);
                let stored = self.number("rope.scaling.attn_factor").unwrap_or(1.0);
                rope.insert("attention_factor".to_owned(), json!(own * stored));
                for (theirs, ours) in [("yarn_beta_fast", "beta_fast"), ("yarn_beta_slow", "beta_slow")] {
                    if let Some(beta) = self.number(&format!("rope.scaling.{theirs}")) {
                        rope.insert(ours.to_owned(), json!(beta));
                    }
                }
            }
            (other, _) => {
                return Err(Error::key(
                    self.path,
                    &format!("{}rope.scaling.type", self.prefix),
                    format!("the rope type `{other}` is not implemented, or its factor is missing"),
                    "implemented: none, linear, yarn, longrope, and llama3 as rope_freqs.weight",
                ));
            }
        }
        self.put("rope_parameters", rope);
        Ok(())
    }
}

/// Reads a GGUF's metadata.
///
/// # Errors
/// Names the key that is missing, malformed, or asks for something not implemented.
pub(in crate::checkpoint) fn from_gguf(
    path: &Path,
    metadata: &Metadata,
    tensors: &GgufTensors,
) -> Result<ModelConfig> {
    const KEY: &str = "general.architecture";
    let name = metadata
        .get_str(KEY)
        .ok_or_else(|| Error::key(path, KEY, "is missing", "the file is not a language model"))?;
    let mut settings = GgufSettings {
        path,
        prefix: format!("{name}."),
        metadata,
        tensors,
        json: Map::new(),
        spelled: Vec::new(),
    };
    let experts = settings.count("expert_count").is_some();
    let architecture = architectures::of_gguf(name, experts);
    let Some((architecture, gguf)) = architecture.and_then(|row| Some((row, row.gguf?))) else {
        let problem = format!("the architecture `{name}` is not implemented");
        return Err(Error::key(path, KEY, problem, implemented()));
    };
    settings.common()?;
    (gguf.settings)(&mut settings)?;
    let GgufSettings { json, spelled, .. } = settings;
    let json = Json::Object(json);
    let find =
        |key: &str| spelled.iter().rev().find(|(ours, _)| ours == key).map(|(_, theirs)| theirs.clone());
    let keys = Keys::translated(path, &json, &find);
    let mut config = (architecture.config)(architecture, &keys)?;
    if let Some(divisors) = (tensors.values)("rope_freqs.weight")? {
        for rope in &mut config.ropes {
            rope.scaling = RopeScaling::Divisors { divisors: divisors.clone() };
        }
    }
    checked(path, config)
}
