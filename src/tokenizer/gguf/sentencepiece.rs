//! The `llama` model: SentencePiece's byte-pair encoding, whose order of merging is a score per token.
//!
//! Source: llama.cpp, `src/llama-vocab.cpp`, `llm_tokenizer_spm_session` and `llama_vocab::impl::tokenize`.
//! Of all neighbours whose joined text is a token, the pair with the highest score is joined first, the
//! leftmost of equal ones; a character that ends up outside the vocabulary becomes its UTF-8 bytes `<0xE2>`.
//! Here each way to cut a token into two tokens is a merge, ranked by the token's score: the same, as long as
//! no two pairs that compete for one neighbour have equal scores. Where they do (Llama's runs of `▁`, all
//! scored -1e9; `aaa` as `aa`+`a` and `a`+`aa`), the longer left part goes first, which is what going
//! leftmost comes to while a run grows from its left.

use super::refuse;
use crate::error::Result;
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as Decoders;
use tokenizers::decoders::strip::Strip;
use tokenizers::normalizers::prepend::Prepend;
use tokenizers::normalizers::replace::Replace;
use tokenizers::normalizers::utils::Sequence as Normalizers;
use tokenizers::{DecoderWrapper, NormalizerWrapper};

/// U+2581, which stands for a space in every token.
const SPACE: &str = "▁";

/// The pairs to join, first to last, for [`tokenizers::models::bpe::BpeBuilder::vocab_and_merges`].
///
/// `tokens` are distinct and `scores` are as many, none NaN.
pub fn merges(tokens: &[String], scores: &[f32]) -> Vec<(String, String)> {
    // Byte tokens come from characters outside the vocabulary, never from pairs.
    let parts: HashSet<&str> = tokens.iter().map(String::as_str).filter(|text| !is_byte(text)).collect();
    let mut pairs = Vec::new();
    for (token, score) in tokens.iter().zip(scores) {
        for (cut, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(cut);
            if parts.contains(left) && parts.contains(right) {
                pairs.push((*score, left, right));
            }
        }
    }
    // Stable, so that equal pairs keep the order of their ids.
    pairs.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| Reverse(a.1.len()).cmp(&Reverse(b.1.len()))));
    pairs.into_iter().map(|(_, left, right)| (left.to_owned(), right.to_owned())).collect()
}

/// Refuses a vocabulary in which a character may have no token at all: llama.cpp stops there.
///
/// # Errors
/// [`crate::error::Error::Key`] naming the first missing byte.
pub(super) fn check_bytes(path: &Path, ids: &HashMap<&str, u32>) -> Result<()> {
    match (0..=u8::MAX).map(|byte| format!("<0x{byte:02X}>")).find(|text| !ids.contains_key(text.as_str())) {
        None => Ok(()),
        Some(missing) => Err(refuse(
            path,
            "tokens",
            format!(
                "there is no byte token `{missing}`: a character outside the vocabulary could not be encoded"
            ),
            "put the model's tokenizer.json beside the file and convert it again",
        )),
    }
}

/// Tokens that only a character outside the vocabulary leads to: the first of them, and how many.
///
/// llama.cpp joins such a character to its neighbour; here it has become bytes by then.
pub(super) fn out_of_reach<'a>(tokens: &'a [String], ids: &HashMap<&str, u32>) -> Option<(&'a str, usize)> {
    let is_token = |part: &str| ids.contains_key(part);
    let is_character = |part: &str| part.chars().nth(1).is_none();
    let through = |outside: &str, rest: &str| {
        is_character(outside) && !is_token(outside) && (is_token(rest) || is_character(rest))
    };
    let mut out = tokens.iter().filter(|token| {
        token.char_indices().skip(1).any(|(cut, _)| {
            let (left, right) = token.split_at(cut);
            through(left, right) || through(right, left)
        })
    });
    let first = out.next()?;
    Some((first, 1usize.saturating_add(out.count())))
}

/// Spaces become `▁`, after one more is put before the text where the model wants that.
///
/// Each piece between two tokens found in the text is prefixed anew, as llama.cpp does.
///
/// # Errors
/// The literal patterns do not compile; that is a defect of this file.
pub(super) fn normalizer(add_space_prefix: bool) -> tokenizers::Result<NormalizerWrapper> {
    let mut steps: Vec<NormalizerWrapper> = Vec::with_capacity(2);
    if add_space_prefix {
        steps.push(Prepend::new(SPACE.to_owned()).into());
    }
    steps.push(Replace::new(" ", SPACE)?.into());
    Ok(Normalizers::new(steps).into())
}

/// The way back: `▁` to space, byte tokens to their characters, without the space put first.
///
/// # Errors
/// As [`normalizer`].
pub(super) fn decoder(add_space_prefix: bool) -> tokenizers::Result<DecoderWrapper> {
    let mut steps: Vec<DecoderWrapper> =
        vec![Replace::new(SPACE, " ")?.into(), ByteFallback::new().into(), Fuse::new().into()];
    if add_space_prefix {
        steps.push(Strip::new(' ', 1, 0).into());
    }
    Ok(Decoders::new(steps).into())
}

/// Whether `text` is `<0x00>` to `<0xFF>`.
fn is_byte(text: &str) -> bool {
    text.strip_prefix("<0x")
        .and_then(|rest| rest.strip_suffix('>'))
        .is_some_and(|digits| digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
}
