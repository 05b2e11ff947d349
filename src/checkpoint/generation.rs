//! How a checkpoint wants to be generated from: `generation_config.json`, or a GGUF's special tokens.

use std::path::Path;

use serde_json::Value;

use super::Checkpoint;
use crate::error::{Error, Result};

/// What the checkpoint says about generation. Nothing where it says nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationDefaults {
    /// Tokens that end an answer, beside the tokenizer's own.
    pub end_of_sequence: Vec<u32>,
    /// Its own temperature.
    pub temperature: Option<f64>,
    /// Its own top-p.
    pub top_p: Option<f64>,
    /// Its own top-k; 0, which means none, is none.
    pub top_k: Option<usize>,
}

/// Keys of a GGUF's metadata that end an answer.
const GGUF_ENDS: [&str; 3] =
    ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];

impl GenerationDefaults {
    /// Reads them.
    ///
    /// # Errors
    /// A `generation_config.json` that is not JSON, or says what cannot be (a temperature below 0).
    pub fn of(checkpoint: &Checkpoint) -> Result<Self> {
        if let Some(metadata) = &checkpoint.gguf_metadata {
            let ids = GGUF_ENDS.iter().filter_map(|key| metadata.get_u64(key));
            let end_of_sequence = ids.filter_map(|id| u32::try_from(id).ok()).collect();
            return Ok(Self { end_of_sequence, ..Self::default() });
        }
        let mut found = Self::default();
        let config = checkpoint.folder.join("config.json");
        let path = checkpoint.folder.join("generation_config.json");
        for file in [&config, &path] {
            let Some(json) = read_json(file)? else { continue };
            let ids = match &json["eos_token_id"] {
                Value::Array(ids) => ids.clone(),
                other => vec![other.clone()],
            };
            found.end_of_sequence.extend(ids.iter().filter_map(|id| u32::try_from(id.as_u64()?).ok()));
            if file == &path {
                found.temperature = json["temperature"].as_f64();
                found.top_p = json["top_p"].as_f64();
                found.top_k = json["top_k"].as_u64().and_then(|k| usize::try_from(k).ok()).filter(|k| *k > 0);
            }
        }
        found.end_of_sequence.sort_unstable();
        found.end_of_sequence.dedup();
        let refuse = |key: &str, value: f64, expected: &str| {
            Err(Error::key(&path, key, format!("is {value}"), format!("{expected} is expected")))
        };
        match (found.temperature, found.top_p) {
            (Some(t), _) if !(t >= 0.0 && t.is_finite()) => {
                refuse("temperature", t, "a number of at least 0")
            }
            (_, Some(p)) if !(p > 0.0 && p <= 1.0) => refuse("top_p", p, "a number above 0 and at most 1"),
            _ => Ok(found),
        }
    }
}

/// The content of a file, if it is there.
fn read_json(path: &Path) -> Result<Option<Value>> {
    if !path.is_file() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(path).map_err(Error::io(path, "read"))?;
    let parsed = serde_json::from_str(&text);
    parsed.map(Some).map_err(|e| Error::file(path, format!("is not JSON: {e}"), "download it again"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A checkpoint of one small tensor with these files beside it.
    fn defaults(files: &[(&str, &str)]) -> Result<GenerationDefaults> {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        let path = folder.path().join("model.safetensors");
        let bytes = [0u8; 8];
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2], &bytes).unwrap();
        std::fs::write(&path, safetensors::serialize([("x", view)], None).unwrap()).unwrap();
        GenerationDefaults::of(&Checkpoint::open(&path).unwrap())
    }

    #[test]
    fn what_a_checkpoint_says_is_taken() {
        let config = ("config.json", r#"{"eos_token_id": 7}"#);
        let all = r#"{"eos_token_id": [9, 7], "temperature": 0.6, "top_p": 0.95, "top_k": 20}"#;
        let expected = GenerationDefaults {
            end_of_sequence: vec![7, 9],
            temperature: Some(0.6),
            top_p: Some(0.95),
            top_k: Some(20),
        };
        assert_eq!(defaults(&[config, ("generation_config.json", all)]).unwrap(), expected);
        let only = GenerationDefaults { end_of_sequence: vec![7], ..GenerationDefaults::default() };
        assert_eq!(defaults(&[config]).unwrap(), only);
        assert_eq!(defaults(&[]).unwrap(), GenerationDefaults::default());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (json, key) in [(r#"{"temperature": -1}"#, "temperature"), (r#"{"top_p": 0}"#, "top_p")] {
            let error = defaults(&[("generation_config.json", json)]).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
        assert!(defaults(&[("generation_config.json", "{")]).is_err());
    }
}
