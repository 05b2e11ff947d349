//! Text to ids and back, for any checkpoint: `tokenizer.json` beside the
//! weights, or the vocabulary inside a GGUF.
//!
//! Whether a sequence starts with BOS is a fact of the model, not of the text:
//! it is kept apart from encoding, because protocols place BOS differently.

pub mod chat;
pub mod gguf;

use std::{path::Path, sync::OnceLock};

use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use crate::{
    checkpoint::Checkpoint,
    error::{Error, Result},
};

/// Ids of a text with the bytes that each covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Token ids, without BOS.
    pub ids: Vec<u32>,
    /// Byte range in the text of each token; tokens that share a character share its range.
    pub offsets: Vec<(usize, usize)>,
}

/// A tokenizer and what its model wants around a sequence.
#[derive(Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The same, made when it is first asked for: a special token's name in a text is that token.
    reading_special_tokens: OnceLock<Box<tokenizers::Tokenizer>>,
    /// Where it came from, in words, for the report.
    pub source: String,
    /// Beginning of sequence, where the vocabulary has one.
    pub bos_token_id: Option<u32>,
    /// End of sequence, where the vocabulary has one.
    pub eos_token_id: Option<u32>,
    /// Whether the model wants BOS before a sequence.
    pub adds_bos: bool,
    /// What the reader should know about how it was built.
    pub warnings: Vec<String>,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer").field("source", &self.source).field("adds_bos", &self.adds_bos).finish()
    }
}

/// How two vocabularies relate over the ids that both have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VocabularyDifference {
    /// Ids that both name, with different text: `(id, this side's text, the other's)`.
    pub differing: Vec<(u32, String, String)>,
    /// Ids below the shared size that only one side names (unused or padding ids).
    pub one_sided: usize,
}

impl Tokenizer {
    /// The tokenizer of a checkpoint; `None` if it has none.
    ///
    /// # Errors
    /// A `tokenizer.json` or a GGUF vocabulary that cannot be read, or is of an unknown kind.
    pub fn of(checkpoint: &Checkpoint) -> Result<Option<Self>> {
        if let Some(metadata) = &checkpoint.gguf_metadata {
            // llama.cpp writes these names into files that hold weights alone.
            if matches!(metadata.get_str("tokenizer.ggml.model"), None | Some("none" | "no_vocab")) {
                return Ok(None);
            }
            let vocabulary = gguf::GgufVocabulary::from_metadata(&checkpoint.path, metadata)?;
            let built = gguf::build(&checkpoint.path, &vocabulary)?;
            return Ok(Some(Self {
                inner: built.tokenizer,
                reading_special_tokens: OnceLock::new(),
                source: format!(
                    "GGUF vocabulary ({}{})",
                    vocabulary.model,
                    vocabulary.pre.as_deref().map(|pre| format!(", {pre}")).unwrap_or_default()
                ),
                bos_token_id: built.bos_token_id,
                eos_token_id: vocabulary.eos_token_id,
                adds_bos: built.adds_bos,
                warnings: built.warnings,
            }));
        }
        let path = checkpoint.folder.join("tokenizer.json");
        if path.is_file() { Self::from_file(&path).map(Some) } else { Ok(None) }
    }

    /// Reads `tokenizer.json`, and `tokenizer_config.json` and `config.json` beside it for BOS and EOS.
    ///
    /// # Errors
    /// A file that is not a tokenizer.
    pub fn from_file(path: &Path) -> Result<Self> {
        let mut inner = tokenizers::Tokenizer::from_file(path).map_err(|reason| {
            Error::file(path, format!("is not a tokenizer: {reason}"), "download tokenizer.json again")
        })?;
        // A stored truncation or padding would silently cut or stretch the text that is measured.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|reason| {
            Error::file(path, format!("truncation cannot be turned off: {reason}"), "remove it from the file")
        })?;
        // Text is text: a literal "<unk>" in it is five characters, as llama.cpp reads it, and not a command.
        inner.set_encode_special_tokens(true);
        let folder = path.parent().unwrap_or(Path::new("."));
        let settings = read_json(&folder.join("tokenizer_config.json"))?;
        let config = read_json(&folder.join("config.json"))?;
        let special = |role: &str| special_token(&inner, &settings, &config, role);
        let (bos_token_id, eos_token_id) = (special("bos"), special("eos"));
        let template_adds_bos = inner
            .encode("", true)
            .is_ok_and(|encoding| encoding.get_ids().first().is_some_and(|id| Some(*id) == bos_token_id));
        let stated = settings.as_ref().and_then(|json| json.get("add_bos_token")).and_then(Json::as_bool);
        Ok(Self {
            adds_bos: stated.unwrap_or(template_adds_bos) && bos_token_id.is_some(),
            inner,
            reading_special_tokens: OnceLock::new(),
            source: "tokenizer.json".to_owned(),
            bos_token_id,
            eos_token_id,
            warnings: Vec::new(),
        })
    }

    /// Encodes without BOS or any other added token; a special token's name in the text is plain text,
    /// from either kind of file.
    ///
    /// # Errors
    /// A text that the vocabulary cannot express.
    pub fn encode(&self, text: &str) -> Result<Encoded> {
        let encoding = self.inner.encode(text, false).map_err(|reason| {
            Error::argument(
                format!("the text cannot be tokenized by the {}: {reason}", self.source),
                "check that the tokenizer belongs to the model",
            )
        })?;
        Ok(Encoded { ids: encoding.get_ids().to_vec(), offsets: encoding.get_offsets().to_vec() })
    }

    /// Encodes a question, or what a chat template wrote, without BOS: a special token's name is that token, as
    /// transformers reads it.
    ///
    /// # Errors
    /// A text that the vocabulary cannot express.
    pub fn encode_question(&self, text: &str) -> Result<Vec<u32>> {
        let reading = self.reading_special_tokens.get_or_init(|| {
            let mut reading = self.inner.clone();
            reading.set_encode_special_tokens(false);
            Box::new(reading)
        });
        let encoding = reading.encode(text, false).map_err(|reason| {
            Error::argument(
                format!("the question cannot be tokenized by the {}: {reason}", self.source),
                "check that the tokenizer belongs to the model",
            )
        })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// What a model wrote, special tokens left out; what cannot be decoded is shown as ids.
    pub fn decode_answer(&self, ids: &[u32]) -> String {
        self.inner.decode(ids, true).unwrap_or_else(|_| format!("{ids:?}"))
    }

    /// Decodes, special tokens included; what cannot be decoded is shown as ids.
    pub fn decode(&self, ids: &[u32]) -> String {
        self.inner.decode(ids, false).unwrap_or_else(|_| format!("{ids:?}"))
    }

    /// The text of one id as the vocabulary spells it.
    pub fn piece(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Number of ids that have a text, added tokens included.
    pub fn vocabulary_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Largest id that has a text.
    pub fn largest_id(&self) -> Option<u32> {
        self.inner.get_vocab(true).into_values().max()
    }

    /// BOS, if the model wants one before a sequence.
    pub fn bos(&self) -> Option<u32> {
        self.bos_token_id.filter(|_| self.adds_bos)
    }

    /// The token before the first in the `lm-eval` protocol: BOS, else EOS.
    pub fn prefix(&self) -> Option<u32> {
        self.bos_token_id.or(self.eos_token_id)
    }

    /// Compares both vocabularies id by id below `shared` ids.
    pub fn difference(&self, other: &Self, shared: usize) -> VocabularyDifference {
        let mut difference = VocabularyDifference { differing: Vec::new(), one_sided: 0 };
        for id in 0..u32::try_from(shared).unwrap_or(u32::MAX) {
            match (self.piece(id), other.piece(id)) {
                (Some(a), Some(b)) if a != b => difference.differing.push((id, a, b)),
                (Some(_), None) | (None, Some(_)) => difference.one_sided += 1,
                _ => {}
            }
        }
        difference
    }

    /// SHA-256 over all pieces in the order of their ids: equal vocabularies, equal fingerprint.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        for id in 0..=self.largest_id().unwrap_or(0) {
            let piece = self.piece(id).unwrap_or_default();
            hash.update((piece.len() as u64).to_le_bytes());
            hash.update(piece.as_bytes());
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A JSON file, where there is one.
///
/// # Errors
/// One that cannot be read or is not JSON.
pub(crate) fn read_json(path: &Path) -> Result<Option<Json>> {
    if !path.is_file() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(path).map_err(Error::io(path, "read"))?;
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|reason| Error::file(path, format!("is not JSON: {reason}"), "download it again"))
}

/// The id of `bos` or `eos`: by its text in `tokenizer_config.json`, else by its number in `config.json`.
fn special_token(
    tokenizer: &tokenizers::Tokenizer,
    settings: &Option<Json>,
    config: &Option<Json>,
    role: &str,
) -> Option<u32> {
    let token = settings.as_ref().and_then(|json| json.get(format!("{role}_token")));
    let text = token.and_then(|token| token.as_str().or_else(|| token.get("content")?.as_str()));
    text.and_then(|text| tokenizer.token_to_id(text)).or_else(|| {
        let id = config.as_ref()?.get(format!("{role}_token_id"))?;
        u32::try_from(id.as_u64().or_else(|| id.get(0)?.as_u64())?).ok()
    })
}
