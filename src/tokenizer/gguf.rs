//! The vocabulary inside a GGUF file as a `tokenizers::Tokenizer` that agrees with llama.cpp token by token.
//!
//! Two models are served: `gpt2` (byte-level byte-pair encoding with merges, cut by the named pre-tokenizer)
//! and `llama` (SentencePiece byte-pair encoding with scores). Everything else is refused by name: a
//! tokenizer that is almost right makes a number that is wrong. Semantics are those of `llama_tokenize` with
//! `add_special` and `parse_special` false, of the source as of 2026:
//! - a control token written out in a text (`</s>`) is ordinary characters, where a tokenizer.json takes it
//!   for the special token; only user-defined tokens are found in raw text (see `text_tokens.rs`). Two of
//!   them that overlap are taken leftmost here, longest there.
//! - BOS and EOS are not added: there is no post-processor; [`BuiltTokenizer::adds_bos`] says what is wanted.
//! - Unicode classes are those of the `regex` crate, llama.cpp's tables are some years older: characters
//!   assigned in between may be cut differently.
//! - Decoding is the `tokenizers` crate's: a user-defined token that is one letter of the byte-level alphabet
//!   (DeepSeek's `ü`) decodes to that byte, in llama.cpp to the letter. Ids and offsets are not touched by
//!   it.
//!
//! It knows nothing of the file but its metadata, and nothing of what is done with the ids.

mod metadata;
mod pre_tokenizers;
mod sentencepiece;
mod text_tokens;

pub use self::sentencepiece::merges as scored_merges;
use crate::error::{Error, Result};
use pre_tokenizers::{PreTokenizer, Unserved};
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::{AddedToken, Tokenizer};

/// The `tokenizer.ggml.*` metadata of a GGUF file, as stored.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GgufVocabulary {
    /// `tokenizer.ggml.model`.
    pub model: String,
    /// `tokenizer.ggml.pre`: the name of the pre-tokenizer of a `gpt2` model.
    pub pre: Option<String>,
    /// `tokenizer.ggml.tokens`: the text of each id, in the model's own spelling.
    pub tokens: Vec<String>,
    /// `tokenizer.ggml.scores`, one for each token, or empty.
    pub scores: Vec<f32>,
    /// `tokenizer.ggml.token_type`, one for each token, or empty: 1 normal, 2 unknown, 3 control, 4
    /// user-defined, 5 unused, 6 byte.
    pub token_types: Vec<i64>,
    /// `tokenizer.ggml.merges`: two tokens with a space between, first to last.
    pub merges: Vec<String>,
    /// `tokenizer.ggml.bos_token_id`.
    pub bos_token_id: Option<u32>,
    /// `tokenizer.ggml.eos_token_id`.
    pub eos_token_id: Option<u32>,
    /// `tokenizer.ggml.unknown_token_id`.
    pub unknown_token_id: Option<u32>,
    /// `tokenizer.ggml.add_bos_token`.
    pub add_bos_token: Option<bool>,
    /// `tokenizer.ggml.add_eos_token`.
    pub add_eos_token: Option<bool>,
    /// `tokenizer.ggml.add_space_prefix`.
    pub add_space_prefix: Option<bool>,
    /// The roles that have a key `tokenizer.ggml.<role>_token_id`: `bos`, `fim_pre`, `eot` ...
    pub roles: BTreeSet<String>,
    /// `general.name`, by which llama.cpp knows the Phi-3 family.
    pub model_name: Option<String>,
}

/// A tokenizer and what a GGUF file says about its use.
#[derive(Clone, Debug)]
pub struct BuiltTokenizer {
    /// Encodes without special tokens, in byte offsets of the original text. A token that is part of a
    /// character has the range of the whole character.
    pub tokenizer: Tokenizer,
    /// Beginning of sequence, if the model has one.
    pub bos_token_id: Option<u32>,
    /// Whether llama.cpp puts BOS before a sequence by itself.
    pub adds_bos: bool,
    /// What a reader of the results should know.
    pub warnings: Vec<String>,
}

/// Default id of BOS of a `llama` model without the key (llama.cpp).
const SENTENCEPIECE_BOS: u32 = 1;

const FROM_FOLDER: &str = "measure the original model's folder (safetensors and tokenizer.json), \
                           or convert the model again with a current llama.cpp";

/// Builds the tokenizer of `vocabulary`; `path` is for messages.
///
/// # Errors
/// [`Error::Key`] naming the model or pre-tokenizer that is not served, or what contradicts itself: lengths
/// of arrays, a token that occurs twice, an id out of range, a merge of texts that are not tokens.
pub fn build(path: &Path, vocabulary: &GgufVocabulary) -> Result<BuiltTokenizer> {
    let named;
    let vocabulary = match vocabulary.tokens.iter().any(String::is_empty) {
        true => {
            named = name_empty_tokens(vocabulary);
            &named
        }
        false => vocabulary,
    };
    let mut warnings = Vec::new();
    let (mut tokenizer, default_bos, adds_bos) = match vocabulary.model.as_str() {
        "gpt2" => {
            let pre = pre_tokenizer(path, vocabulary.pre.as_deref(), &mut warnings)?;
            (byte_level(path, vocabulary, &pre, &mut warnings)?, None, pre.adds_bos)
        }
        "llama" => (scored(path, vocabulary, &mut warnings)?, Some(SENTENCEPIECE_BOS), true),
        other => return Err(unserved_model(path, other)),
    };
    let found = text_tokens::text_tokens(vocabulary)
        .into_iter()
        .map(|token| AddedToken::from(token.text, false).normalized(false).rstrip(token.takes_space));
    tokenizer.add_tokens(found).map_err(unexpected(path, "tokens"))?;
    let adds_bos = vocabulary.add_bos_token.unwrap_or(adds_bos);
    let bos_token_id =
        vocabulary.bos_token_id.or(default_bos.filter(|id| (*id as usize) < vocabulary.tokens.len()));
    if adds_bos && bos_token_id.is_none() {
        return Err(refuse(
            path,
            "bos_token_id",
            "is missing, but the model wants a beginning-of-sequence token",
            "set it with llama.cpp's gguf-py/gguf/scripts/gguf_set_metadata.py, or convert the model again",
        ));
    }
    if vocabulary.add_eos_token == Some(true) {
        warnings.push(
            "the model asks for an end-of-sequence token after each text (add_eos_token); \
             none is added to a text that is measured"
                .to_owned(),
        );
    }
    Ok(BuiltTokenizer { tokenizer, bos_token_id, adds_bos, warnings })
}

/// `vocabulary` with the name that llama.cpp gives to an empty token.
fn name_empty_tokens(vocabulary: &GgufVocabulary) -> GgufVocabulary {
    let mut named = vocabulary.clone();
    for (id, token) in named.tokens.iter_mut().enumerate().filter(|(_, token)| token.is_empty()) {
        *token = format!("[EMPTY_{id}]");
    }
    named
}

/// The `gpt2` model.
fn byte_level(
    path: &Path,
    vocabulary: &GgufVocabulary,
    pre: &PreTokenizer,
    warnings: &mut Vec<String>,
) -> Result<Tokenizer> {
    let ids = check(path, vocabulary)?;
    let merges = stored_merges(path, &vocabulary.merges, &ids)?;
    let without_token = bytes_without_token(&ids);
    if let Some(warning) = warn_of_lost_bytes(&without_token) {
        warnings.push(warning);
    }
    let without_token: Vec<char> = without_token.into_iter().map(|(_, letter)| letter).collect();
    let model = BPE::builder()
        .vocab_and_merges(owned(&ids), merges)
        .ignore_merges(pre.ignore_merges)
        .build()
        .map_err(unexpected(path, "merges"))?;
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_pre_tokenizer(Some(pre.build(&without_token).map_err(unexpected(path, "pre"))?));
    tokenizer.with_decoder(Some(ByteLevel::new(false, false, false)));
    Ok(tokenizer)
}

/// The `llama` model.
fn scored(path: &Path, vocabulary: &GgufVocabulary, warnings: &mut Vec<String>) -> Result<Tokenizer> {
    let ids = check(path, vocabulary)?;
    if vocabulary.scores.is_empty() {
        return Err(refuse(
            path,
            "scores",
            "is missing: a `llama` vocabulary cannot be used without",
            FROM_FOLDER,
        ));
    }
    if let Some(id) = vocabulary.scores.iter().position(|score| score.is_nan()) {
        return Err(refuse(path, "scores", format!("the score of token {id} is not a number"), FROM_FOLDER));
    }
    sentencepiece::check_bytes(path, &ids)?;
    if let Some((first, count)) = sentencepiece::out_of_reach(&vocabulary.tokens, &ids) {
        warnings.push(format!(
            "{count} tokens end or begin with a character that is no token (the first: `{first}`); \
             llama.cpp may use them, here that character is encoded as bytes"
        ));
    }
    let prefix = vocabulary.add_space_prefix.unwrap_or(true);
    // A whole text is one word here: remembering words would only cost memory.
    let model = BPE::builder()
        .vocab_and_merges(owned(&ids), sentencepiece::merges(&vocabulary.tokens, &vocabulary.scores))
        .byte_fallback(true)
        .cache_capacity(0)
        .build()
        .map_err(unexpected(path, "tokens"))?;
    let mut tokenizer = Tokenizer::new(model);
    let normalizer = sentencepiece::normalizer(prefix).map_err(unexpected(path, "model"))?;
    tokenizer.with_normalizer(Some(normalizer)).map_err(unexpected(path, "model"))?;
    tokenizer.with_decoder(Some(sentencepiece::decoder(prefix).map_err(unexpected(path, "model"))?));
    Ok(tokenizer)
}

/// The ids by text, once arrays and ids fit together.
fn check<'a>(path: &Path, vocabulary: &'a GgufVocabulary) -> Result<HashMap<&'a str, u32>> {
    let count = vocabulary.tokens.len();
    if count == 0 {
        return Err(refuse(path, "tokens", "is empty", FROM_FOLDER));
    }
    for (key, length) in [("scores", vocabulary.scores.len()), ("token_type", vocabulary.token_types.len())] {
        if length != 0 && length != count {
            return Err(refuse(path, key, format!("has {length} entries for {count} tokens"), FROM_FOLDER));
        }
    }
    let roles = [
        ("bos_token_id", vocabulary.bos_token_id),
        ("eos_token_id", vocabulary.eos_token_id),
        ("unknown_token_id", vocabulary.unknown_token_id),
    ];
    for (key, id) in roles {
        if let Some(id) = id.filter(|id| *id as usize >= count) {
            return Err(refuse(path, key, format!("is {id}, but there are {count} tokens"), FROM_FOLDER));
        }
    }
    let mut ids = HashMap::with_capacity(count);
    for (id, token) in (0u32..).zip(&vocabulary.tokens) {
        if let Some(earlier) = ids.insert(token.as_str(), id) {
            let problem = format!("`{}` is both token {earlier} and token {id}", token.escape_debug());
            return Err(refuse(path, "tokens", problem, FROM_FOLDER));
        }
    }
    Ok(ids)
}

/// `tokenizer.ggml.merges` as pairs; of a pair that occurs twice the first counts.
fn stored_merges(path: &Path, merges: &[String], ids: &HashMap<&str, u32>) -> Result<Vec<(String, String)>> {
    if merges.is_empty() {
        return Err(refuse(
            path,
            "merges",
            "is missing: a `gpt2` vocabulary cannot be used without",
            FROM_FOLDER,
        ));
    }
    let mut pairs = Vec::with_capacity(merges.len());
    let mut seen = std::collections::HashSet::with_capacity(merges.len());
    for (rank, merge) in merges.iter().enumerate() {
        let wrong = |problem: &str| {
            refuse(
                path,
                "merges",
                format!("merge {rank}, `{}`, {problem}", merge.escape_debug()),
                FROM_FOLDER,
            )
        };
        // The space may not be the first character: that one is part of the left token (llama.cpp).
        let second = merge.chars().next().map_or(0, char::len_utf8);
        let (left, right) = merge
            .get(second..)
            .and_then(|rest| rest.find(' '))
            .and_then(|at| Some((merge.get(..second + at)?, merge.get(second + at + 1..)?)))
            .ok_or_else(|| wrong("is not two tokens with a space between"))?;
        let joined = format!("{left}{right}");
        if [left, right, &joined].iter().any(|text| !ids.contains_key(text)) {
            return Err(wrong("is of texts that are not all tokens"));
        }
        if seen.insert((left, right)) {
            pairs.push((left.to_owned(), right.to_owned()));
        }
    }
    Ok(pairs)
}

/// The bytes that occur in UTF-8 and have no token, with their letter in the byte-level alphabet.
fn bytes_without_token(ids: &HashMap<&str, u32>) -> Vec<(u8, char)> {
    let mut extra = 0x100..;
    let mut buffer = [0; 4];
    let mut missing = Vec::new();
    for byte in 0..=u8::MAX {
        // GPT-2's alphabet: printable Latin-1 stands for itself, the rest for U+0100 and on.
        let letter = match byte {
            b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => Some(char::from(byte)),
            _ => extra.next().and_then(char::from_u32),
        };
        let in_utf8 = !matches!(byte, 0xC0 | 0xC1 | 0xF5..=0xFF);
        if let Some(letter) = letter.filter(|_| in_utf8)
            && !ids.contains_key(&*letter.encode_utf8(&mut buffer))
        {
            missing.push((byte, letter));
        }
    }
    missing
}

/// Says which bytes of a text would vanish. 0xF1 to 0xF3 begin characters that are not assigned, or for
/// private use.
fn warn_of_lost_bytes(missing: &[(u8, char)]) -> Option<String> {
    let bytes: Vec<String> = missing
        .iter()
        .filter(|(byte, _)| !matches!(byte, 0xF1..=0xF3))
        .map(|(byte, _)| format!("0x{byte:02X}"))
        .collect();
    (!bytes.is_empty()).then(|| {
        format!(
            "the vocabulary has no token for the bytes {}; as in llama.cpp, they are left out",
            bytes.join(" ")
        )
    })
}

/// The pre-tokenizer that `tokenizer.ggml.pre` names.
fn pre_tokenizer(path: &Path, name: Option<&str>, warnings: &mut Vec<String>) -> Result<PreTokenizer> {
    let name = match name {
        Some(name) if !name.is_empty() => name,
        _ => {
            warnings.push(
                "the file names no pre-tokenizer (tokenizer.ggml.pre); `default` is used, as llama.cpp does, \
                 but the model may have been trained with another"
                    .to_owned(),
            );
            "default"
        }
    };
    pre_tokenizers::find(name).map_err(|reason| match reason {
        Unserved::Unknown => refuse(
            path,
            "pre",
            format!("the pre-tokenizer `{name}` is not known"),
            format!("{FROM_FOLDER}; a wrong pre-tokenizer would change every figure"),
        ),
        Unserved::RawUtf8 => refuse(
            path,
            "pre",
            format!("the pre-tokenizer `{name}` merges raw UTF-8 rather than bytes, which is not served"),
            FROM_FOLDER,
        ),
    })
}

/// Why a model is refused.
fn unserved_model(path: &Path, model: &str) -> Error {
    let what = match model {
        "bert" => "WordPiece",
        "t5" => "a SentencePiece unigram model",
        "rwkv" => "RWKV's greedy longest match",
        "plamo2" => "PLaMo's own encoding",
        "gemma4" => "Gemma 4's byte-pair encoding of raw UTF-8",
        "hybriddna" | "whitespace" => "a special-purpose encoding",
        "none" | "no_vocab" => "no vocabulary at all",
        _ => "an encoding that is not known",
    };
    let problem = format!("the tokenizer model `{model}` is {what}; `gpt2` and `llama` are served");
    refuse(path, "model", problem, FROM_FOLDER)
}

/// `ids` as the model wants them.
fn owned(ids: &HashMap<&str, u32>) -> Vocab {
    ids.iter().map(|(text, id)| ((*text).to_owned(), *id)).collect()
}

/// An [`Error::Key`] about `tokenizer.ggml.<key>`.
fn refuse(path: &Path, key: &str, problem: impl Into<String>, help: impl Into<String>) -> Error {
    Error::key(path, &format!("tokenizer.ggml.{key}"), problem, help)
}

/// A complaint of the tokenizers crate as an [`Error::Key`].
fn unexpected(path: &Path, key: &'static str) -> impl Fn(tokenizers::Error) -> Error {
    move |reason| refuse(path, key, format!("no tokenizer can be built from it: {reason}"), FROM_FOLDER)
}
