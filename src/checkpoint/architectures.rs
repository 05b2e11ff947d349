//! The decoder families: how each spells its config, and where its tensors lie in a file.
//!
//! A family says what a decoder computes ([`ModelConfig`]), not how: there is one decoder. The model calls every tensor
//! by one name (Llama's, with GLM-4's names of the norms on outputs); a family translates it into the name, the rows
//! and the form in which a safetensors or GGUF file keeps it.
//!
//! To add one: write its file below `architectures/` and add its line to [`ARCHITECTURES`].

mod common;
mod deepseek;
mod gemma;
mod glm4;
mod gpt2;
mod gpt_neo;
mod gpt_neox;
mod gpt_oss;
mod granite;
mod llama;
mod mixtral;
mod olmo2;
mod phi3;
mod qwen;
mod qwen_next;
mod smollm3;
pub(super) mod stored;

use std::fmt;

use serde_json::Value as Json;

use self::stored::{Name, Piece};
use super::config::{ModelConfig, gguf::GgufSettings, keys::Keys};
use crate::error::Result;

/// A decoder family.
pub struct Architecture {
    /// Hugging Face's class name, as `architectures` in `config.json`.
    pub class: &'static str,
    /// Models that are known to be of it.
    pub models: &'static str,
    /// Its `model_type`s.
    pub model_types: &'static [&'static str],
    /// How a GGUF calls it; `None` where llama.cpp has no such model.
    pub gguf: Option<Gguf>,
    /// Reads Hugging Face's settings.
    pub(super) config: fn(&'static Architecture, &Keys) -> Result<ModelConfig>,
    /// Names in a safetensors file.
    pub(super) hugging_face: HuggingFaceNames,
}

/// How a GGUF file keeps a family.
#[derive(Clone, Copy)]
pub struct Gguf {
    /// `general.architecture`.
    pub name: &'static str,
    /// Whether files of this name hold experts: llama.cpp calls Mixtral a llama.
    pub experts: bool,
    /// Says in Hugging Face's spelling what this family's metadata mean beyond the common keys.
    pub(super) settings: fn(&mut GgufSettings) -> Result<()>,
    /// Tensors that are not what the common table says.
    pub(super) piece: fn(&ModelConfig, &Name) -> Option<Vec<Piece>>,
}

/// Names in a safetensors file.
#[derive(Clone, Copy)]
pub(super) struct HuggingFaceNames {
    /// Before everything but the head: "model".
    pub(super) stem: &'static str,
    /// Before a layer's number: "layers".
    pub(super) layers: &'static str,
    /// The model's modules against the file's, where they differ.
    pub(super) modules: &'static [(&'static str, &'static str)],
    /// Tensors that are not a whole tensor of the file as it is.
    pub(super) piece: fn(&ModelConfig, &Name) -> Option<Vec<Piece>>,
}

/// All of them.
pub static ARCHITECTURES: &[&Architecture] = &[
    &llama::LLAMA,
    &llama::MISTRAL,
    &qwen::QWEN2,
    &qwen::QWEN3,
    &qwen::QWEN2_MOE,
    &qwen::QWEN3_MOE,
    &qwen_next::QWEN3_NEXT,
    &qwen_next::QWEN3_5,
    &qwen_next::QWEN3_5_MOE,
    &mixtral::MIXTRAL,
    &gemma::GEMMA,
    &gemma::GEMMA2,
    &gemma::GEMMA3,
    &phi3::PHI3,
    &granite::GRANITE,
    &smollm3::SMOLLM3,
    &olmo2::OLMO2,
    &glm4::GLM4,
    &deepseek::DEEPSEEK_V2,
    &deepseek::DEEPSEEK_V3,
    &gpt_oss::GPT_OSS,
    &gpt2::GPT2,
    &gpt_neo::GPT_NEO,
    &gpt_neox::GPT_NEOX,
];

impl Architecture {
    /// Hugging Face's class name.
    pub fn name(&self) -> &'static str {
        self.class
    }

    /// What stands before the names of its tensors in a safetensors file.
    pub(super) fn stem(&self) -> &'static str {
        self.hugging_face.stem
    }

    /// What follows the word for layers in the name of a layer's tensor in a safetensors file: "3.mlp.up_proj.weight".
    pub(super) fn layer_of<'a>(&self, name: &'a str) -> Option<&'a str> {
        let stems = self.other_stems().chain([self.hugging_face.stem]);
        let layers = self.hugging_face.layers;
        let after = |stem: &str| {
            let rest = if stem.is_empty() { name } else { name.strip_prefix(stem)?.strip_prefix('.')? };
            rest.strip_prefix(layers)?.strip_prefix('.')
        };
        stems.into_iter().find_map(after)
    }

    /// What may stand there instead: nothing where the model was saved without its head, more where it also sees.
    pub(super) fn other_stems(&self) -> impl Iterator<Item = &'static str> {
        let seeing: &[&str] = match self.hugging_face.stem {
            "model" => &["model.language_model", "language_model.model"],
            _ => &[],
        };
        seeing.iter().copied().chain([""])
    }
}

impl fmt::Debug for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.class)
    }
}

impl PartialEq for Architecture {
    fn eq(&self, other: &Self) -> bool {
        self.class == other.class
    }
}

/// The family that a `config.json` names.
///
/// # Errors
/// One that is not in the list, by name.
pub(super) fn of_hugging_face(keys: &Keys) -> Result<&'static Architecture> {
    let named = keys.get("architectures").and_then(|list| list.get(0)).and_then(Json::as_str);
    let model_type = keys.get("model_type").and_then(Json::as_str);
    let (key, given) = match (named, model_type) {
        (Some(name), _) => ("architectures", name),
        (None, Some(model_type)) => ("model_type", model_type),
        (None, None) => return Err(keys.missing("architectures")),
    };
    // The decoder of a model that also sees is the same.
    let decoder = named.map(|name| name.replace("ForConditionalGeneration", "ForCausalLM"));
    let is_it = |row: &&&Architecture| match &decoder {
        Some(name) => row.class == name,
        None => row.model_types.contains(&given),
    };
    ARCHITECTURES.iter().find(is_it).copied().ok_or_else(|| {
        keys.problem(key, format!("the architecture `{given}` is not implemented"), implemented())
    })
}

/// The family that a GGUF names; `experts`: whether it has any.
pub(super) fn of_gguf(name: &str, experts: bool) -> Option<&'static Architecture> {
    let rows = || {
        ARCHITECTURES
            .iter()
            .copied()
            .filter_map(|row| Some((row, row.gguf?)))
            .filter(|(_, gguf)| gguf.name == name)
    };
    rows().find(|(_, gguf)| gguf.experts == experts).or_else(|| rows().next()).map(|(row, _)| row)
}

/// All families as rows of a table in Markdown: class, models, name in a GGUF.
pub fn table() -> String {
    let mut text = String::from("| architecture | models | safetensors | GGUF |\n|---|---|---|---|\n");
    for row in ARCHITECTURES {
        let gguf = row.gguf.map_or("– (llama.cpp has none)".to_owned(), |gguf| format!("`{}`", gguf.name));
        text += &format!("| `{}` | {} | yes | {gguf} |\n", row.class, row.models);
    }
    text
}

/// For messages: every family by name.
pub(super) fn implemented() -> String {
    let names: Vec<&str> = ARCHITECTURES.iter().map(|row| row.class).collect();
    format!("implemented: {}; `qeval inspect` still describes the file", names.join(", "))
}
