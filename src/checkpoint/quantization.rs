//! What a Hugging Face folder says about how its weights are packed, wherever it says so.
//!
//! Only found and named here; each packing reads its own settings and believes the tensors where they differ.

use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use crate::error::{Error, Result};

/// The settings of a quantizer, as JSON, and where they stand.
#[derive(Clone, Debug)]
pub struct Quantization {
    /// The file.
    pub path: PathBuf,
    /// The key inside `config.json`; empty where the settings are a file of their own.
    pub key: &'static str,
    /// The settings.
    pub json: Json,
}

/// Keys of `config.json` and files beside it, in the order of belief.
///
/// MLX writes its settings twice, under `quantization` and, without a `quant_method`, under `quantization_config`.
const KEYS: &[&str] = &["quantization", "quantization_config", "compression_config"];
const FILES: &[&str] = &["quantization_config.json", "quantize_config.json", "hf_quant_config.json"];

impl Quantization {
    /// Looks into `config.json` and beside it.
    ///
    /// # Errors
    /// A file that is not JSON.
    pub fn of(folder: &Path) -> Result<Option<Self>> {
        let config = folder.join("config.json");
        if let Some(json) = read(&config)? {
            for key in KEYS {
                if let Some(json) = json.get(*key).filter(|value| value.is_object()) {
                    return Ok(Some(Self { path: config, key, json: json.clone() }));
                }
            }
        }
        for name in FILES {
            let path = folder.join(name);
            if let Some(json) = read(&path)?.filter(Json::is_object) {
                return Ok(Some(Self { path, key: "", json }));
            }
        }
        Ok(None)
    }

    /// `quant_method`, in lower case; MLX, ModelOpt's own file and AutoGPTQ's older one state none.
    pub fn method(&self) -> Option<String> {
        let named = self.json.get("quant_method").and_then(Json::as_str).map(str::to_lowercase);
        if named.is_none() && self.key == "quantization" {
            return Some("mlx".to_owned());
        }
        if named.is_none() && self.path.file_name().is_some_and(|name| name == "quantize_config.json") {
            return Some("gptq".to_owned());
        }
        if let Some(producer) = self.json.pointer("/producer/name").and_then(Json::as_str) {
            return Some(producer.to_lowercase());
        }
        named
    }

    /// A value, dotted where nested.
    pub fn get(&self, key: &str) -> Option<&Json> {
        key.split('.').try_fold(&self.json, |json, part| json.get(part)).filter(|value| !value.is_null())
    }

    /// An error about one key.
    pub fn problem(&self, key: &str, problem: impl Into<String>, help: impl Into<String>) -> Error {
        let full = match self.key {
            "" => key.to_owned(),
            outer => format!("{outer}.{key}"),
        };
        Error::key(&self.path, full.trim_end_matches('.'), problem, help)
    }
}

/// Larger than any settings file; a hostile one is not read.
const MAX_BYTES: u64 = 64 << 20;

fn read(path: &Path) -> Result<Option<Json>> {
    let Ok(metadata) = std::fs::metadata(path) else { return Ok(None) };
    if metadata.len() > MAX_BYTES {
        let problem = format!("is {} bytes long; settings are never that long", metadata.len());
        return Err(Error::file(path, problem, "download it again"));
    }
    let text = std::fs::read(path).map_err(Error::io(path, "read"))?;
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|reason| Error::file(path, format!("is not JSON: {reason}"), "download it again"))
}
