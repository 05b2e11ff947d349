//! Metadata of a GGUF file to a [`GgufVocabulary`]: keys `tokenizer.ggml.*`, each of the kind it should be.
//!
//! It judges no value; whether lengths, ids and names fit together is for [`super::build`].

use super::{FROM_FOLDER, GgufVocabulary, refuse};
use crate::checkpoint::gguf::Metadata;
use crate::error::Result;
use std::collections::BTreeSet;
use std::path::Path;

impl GgufVocabulary {
    /// Reads the vocabulary out of `metadata`; `path` is for messages.
    ///
    /// # Errors
    /// [`crate::error::Error::Key`] if the model or the tokens are missing, or a key holds a value of another
    /// kind.
    pub fn from_metadata(path: &Path, metadata: &Metadata) -> Result<Self> {
        let fields = Fields { path, metadata };
        let missing = |key: &str| refuse(path, key, "is missing: the file has no vocabulary", FROM_FOLDER);
        Ok(Self {
            model: fields.get("model", Metadata::get_str)?.ok_or_else(|| missing("model"))?.to_owned(),
            pre: fields.get("pre", Metadata::get_str)?.map(str::to_owned),
            tokens: fields.get("tokens", Metadata::get_strings)?.ok_or_else(|| missing("tokens"))?.to_vec(),
            scores: fields.scores()?,
            token_types: fields.get("token_type", Metadata::get_integers)?.unwrap_or_default().to_vec(),
            merges: fields.get("merges", Metadata::get_strings)?.unwrap_or_default().to_vec(),
            bos_token_id: fields.id("bos")?,
            eos_token_id: fields.id("eos")?,
            unknown_token_id: fields.id("unknown")?,
            add_bos_token: fields.get("add_bos_token", Metadata::get_bool)?,
            add_eos_token: fields.get("add_eos_token", Metadata::get_bool)?,
            add_space_prefix: fields.get("add_space_prefix", Metadata::get_bool)?,
            roles: fields.roles(),
            model_name: metadata.get_str("general.name").map(str::to_owned),
        })
    }
}

/// Typed reading of `tokenizer.ggml.*`, where a value of another kind is an error.
struct Fields<'a> {
    path: &'a Path,
    metadata: &'a Metadata,
}

impl<'a> Fields<'a> {
    fn get<T>(&self, key: &str, getter: fn(&'a Metadata, &str) -> Option<T>) -> Result<Option<T>> {
        let full = format!("tokenizer.ggml.{key}");
        match getter(self.metadata, &full) {
            None if self.metadata.0.contains_key(&full) => {
                Err(refuse(self.path, key, "holds a value of an unexpected kind", FROM_FOLDER))
            }
            value => Ok(value),
        }
    }

    /// The id of a role.
    fn id(&self, role: &str) -> Result<Option<u32>> {
        let key = format!("{role}_token_id");
        let id = self.get(&key, Metadata::get_u64)?;
        id.map(|id| {
            u32::try_from(id)
                .map_err(|_| refuse(self.path, &key, format!("{id} is no token id"), FROM_FOLDER))
        })
        .transpose()
    }

    /// Scores are floating-point numbers, or integers in a few files.
    fn scores(&self) -> Result<Vec<f32>> {
        match self.metadata.get_integers("tokenizer.ggml.scores") {
            Some(integers) => Ok(integers.iter().map(|score| *score as f32).collect()),
            None => Ok(self.get("scores", Metadata::get_floats)?.unwrap_or_default().to_vec()),
        }
    }

    /// Every role whose id the file gives.
    fn roles(&self) -> BTreeSet<String> {
        let role =
            |key: &String| Some(key.strip_prefix("tokenizer.ggml.")?.strip_suffix("_token_id")?.to_owned());
        self.metadata.0.keys().filter_map(role).collect()
    }
}
