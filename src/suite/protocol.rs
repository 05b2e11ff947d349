//! Windowing of one tokenized document: which tokens a model reads together, and which of them are scored.
//!
//! Pure functions of token ids. Nothing here knows models, tokenizers, files or text. Perplexities of one
//! model differ by tens of percent between protocols, so the protocol is always printed beside them:
//! `llama.cpp` as its `llama-perplexity` tool does, `lm-eval` as lm-evaluation-harness's
//! `get_rolling_token_windows` followed by `make_disjoint_window` with a context of one token, and `strided`,
//! the overlapping windows of Hugging Face's guide on the perplexity of fixed-length models.

use std::ops::Range;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::suggest::did_you_mean;
use crate::error::{Error, Result};

/// Window of `llama.cpp` and `strided` in tokens, where none is asked for: `llama-perplexity`'s default.
pub const DEFAULT_WINDOW: usize = 512;
/// Window of `lm-eval` in tokens, where none is asked for: what lm-evaluation-harness falls back to if a
/// checkpoint does not state its own length. A caller who knows `max_position_embeddings` should pass it as
/// the window.
pub const DEFAULT_MAX_LENGTH: usize = 2048;

/// How a document is cut into windows, with its sizes in tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "name", deny_unknown_fields)]
pub enum Protocol {
    /// Disjoint windows, the first token of each replaced by BOS, the second half scored, the incomplete tail
    /// dropped.
    #[serde(rename = "llama.cpp")]
    LlamaCpp {
        /// Tokens of a window, at least 3.
        n_ctx: usize,
    },
    /// Disjoint windows that score every token once; the last is filled with left context.
    #[serde(rename = "lm-eval")]
    LmEval {
        /// Most targets, and most tokens read by the model, of a window; at least 1.
        max_length: usize,
    },
    /// Overlapping windows: the first scores all its targets, each later one its last `stride`.
    #[serde(rename = "strided")]
    Strided {
        /// Tokens of a window, at least 2.
        window: usize,
        /// Tokens from the start of a window to the start of the next; at least 1, less than `window`.
        stride: usize,
    },
}

/// Tokens that a model reads together. Token `i` is predicted from tokens `0..i`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Token ids, BOS or prefix included. The last one is only ever a target, so a model need not read it.
    pub tokens: Vec<u32>,
    /// Indexes into `tokens` that are targets; never empty, never containing 0.
    pub scored: Range<usize>,
    /// Index, in the document's token list, of `tokens[scored.start]`. The targets are contiguous there.
    pub source: usize,
}

/// A document cut into windows. Every token of the document is scored once, unscored or dropped:
/// `Σ scored + unscored_tokens + dropped_tokens` is the document's length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// In the document's order. Empty only where the document has no token that can be scored.
    pub windows: Vec<Window>,
    /// Tokens of the document inside a window that are never a target: they only serve as context, or gave
    /// way to BOS.
    pub unscored_tokens: usize,
    /// Tokens of the document in no window at all.
    pub dropped_tokens: usize,
}

/// Why a document cannot be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// `llama.cpp` asks for two whole windows.
    Tokens {
        /// Tokens of the document, BOS included.
        available: usize,
        /// Two windows.
        needed: usize,
    },
    /// `lm-eval` predicts the first token from a prefix token, and the tokenizer has neither BOS nor EOS.
    Prefix,
    /// A window or stride that leaves nothing to score; [`Protocol::parse`] refuses it earlier.
    Sizes,
}

impl Protocol {
    /// The names that [`Protocol::parse`] knows, the default last.
    pub const NAMES: [&str; 3] = ["llama.cpp", "lm-eval", "strided"];

    /// The protocol called `name`. `window` defaults to [`DEFAULT_WINDOW`] (`lm-eval`:
    /// [`DEFAULT_MAX_LENGTH`]), `stride` to half of the window; only `strided` has one.
    ///
    /// # Errors
    /// An unknown name, a stride where there is none, or sizes that leave nothing to score.
    pub fn parse(name: &str, window: Option<usize>, stride: Option<usize>) -> Result<Self> {
        if let (true, Some(stride)) = (name != "strided" && Self::NAMES.contains(&name), stride) {
            return Err(Error::argument(
                format!("protocol `{name}` has no stride, but {stride} was given"),
                "leave the stride out, or use `--protocol strided`",
            ));
        }
        let protocol = match name {
            "llama.cpp" => Protocol::LlamaCpp { n_ctx: window.unwrap_or(DEFAULT_WINDOW) },
            "lm-eval" => Protocol::LmEval { max_length: window.unwrap_or(DEFAULT_MAX_LENGTH) },
            "strided" => {
                let window = window.unwrap_or(DEFAULT_WINDOW);
                Protocol::Strided { window, stride: stride.unwrap_or(window / 2) }
            }
            _ => {
                let help = did_you_mean(name, &Self::NAMES).unwrap_or_else(|| {
                    format!("use one of {}", Self::NAMES.map(|n| format!("`{n}`")).join(", "))
                });
                return Err(Error::argument(format!("unknown protocol `{name}`"), help));
            }
        };
        match protocol {
            Protocol::LlamaCpp { n_ctx: n @ ..3 } => Err(Error::argument(
                format!("a window of {n} tokens scores nothing"),
                "use a window of at least 3 tokens",
            )),
            Protocol::LmEval { max_length: n @ ..1 } => Err(Error::argument(
                format!("a window of {n} tokens scores nothing"),
                "use a window of at least 1 token",
            )),
            Protocol::Strided { window, stride } if stride == 0 || stride >= window => Err(Error::argument(
                format!("a stride of {stride} does not fit a window of {window} tokens"),
                "use a stride of at least 1 and less than the window",
            )),
            fits => Ok(fits),
        }
    }

    /// The protocol's name, as [`Protocol::parse`] knows it.
    pub fn name(&self) -> &'static str {
        match self {
            Protocol::LlamaCpp { .. } => "llama.cpp",
            Protocol::LmEval { .. } => "lm-eval",
            Protocol::Strided { .. } => "strided",
        }
    }

    /// One line, to be printed beside every perplexity.
    pub fn describe(&self) -> String {
        match self {
            Protocol::LlamaCpp { n_ctx } => {
                format!("llama.cpp: disjoint windows of {n_ctx} tokens, the second half of each scored")
            }
            Protocol::LmEval { max_length } => {
                format!(
                    "lm-eval: rolling windows of {max_length} tokens after a prefix token, every token scored"
                )
            }
            Protocol::Strided { window, stride } => {
                format!("strided: windows of {window} tokens, each after the first scores its last {stride}")
            }
        }
    }

    /// Most tokens that a model has to read at once, to be held against the length it was made for.
    /// A window's last token is only a target and is not counted.
    pub fn longest_input(&self) -> usize {
        match *self {
            Protocol::LlamaCpp { n_ctx: n } | Protocol::Strided { window: n, .. } => n.saturating_sub(1),
            Protocol::LmEval { max_length } => max_length,
        }
    }
}

/// Cuts a document's `tokens`, given *without* BOS, into windows.
///
/// `bos` is `Some` if the model wants one at the start of its input; `prefix` is what `lm-eval` predicts the
/// first token from: BOS, else EOS. `llama.cpp` and `strided` ignore `prefix`, `lm-eval` ignores `bos`.
///
/// - `llama.cpp`: BOS is put before the document once, which shifts every window; then the first token of
///   *each* window gives way to BOS. Targets are the indexes `n_ctx/2 + 1 ..= n_ctx − 1`.
/// - `lm-eval`: the windows start where the previous one ended, with its last token as the first input. Only
///   the text's own tokens are targets. Version 0.4.13 of the harness differs in one thing where a tokenizer
///   adds BOS by itself: there BOS is a target as well, predicted from BOS. Its sums follow from `tokens`
///   that begin with BOS.
/// - `strided`: BOS is put before the document once and takes the first place of the *first* window. Later
///   windows are the plain continuation of the text, so that each target has `window − stride` tokens of real
///   text before it at least. For a model that fails without BOS in sight, prefer documents within one
///   window, or `llama.cpp`.
///
/// # Errors
/// See [`Shortage`].
pub fn cut(
    protocol: &Protocol,
    tokens: &[u32],
    bos: Option<u32>,
    prefix: Option<u32>,
) -> Result<Cut, Shortage> {
    match *protocol {
        Protocol::LlamaCpp { n_ctx } if n_ctx >= 3 => llama_cpp(n_ctx, tokens, bos),
        Protocol::LmEval { max_length } if max_length >= 1 => {
            Ok(lm_eval(max_length, tokens, prefix.ok_or(Shortage::Prefix)?))
        }
        Protocol::Strided { window, stride } if stride >= 1 && stride < window => {
            Ok(strided(window, stride, tokens, bos))
        }
        _ => Err(Shortage::Sizes),
    }
}

fn llama_cpp(n_ctx: usize, tokens: &[u32], bos: Option<u32>) -> Result<Cut, Shortage> {
    let stream: Vec<u32> = bos.iter().chain(tokens).copied().collect();
    let needed = n_ctx.saturating_mul(2);
    if stream.len() < needed {
        return Err(Shortage::Tokens { available: stream.len(), needed });
    }
    let scored = n_ctx / 2 + 1..n_ctx;
    let shift = usize::from(bos.is_some());
    let windows: Vec<Window> = stream
        .chunks_exact(n_ctx)
        .enumerate()
        .map(|(index, chunk)| {
            let mut tokens = chunk.to_vec();
            if let (Some(first), Some(bos)) = (tokens.first_mut(), bos) {
                *first = bos;
            }
            Window { tokens, scored: scored.clone(), source: index * n_ctx + scored.start - shift }
        })
        .collect();
    let dropped_tokens = stream.len() % n_ctx;
    let unscored_tokens = tokens.len() - dropped_tokens - windows.len() * scored.len();
    Ok(Cut { windows, unscored_tokens, dropped_tokens })
}

fn lm_eval(max_length: usize, tokens: &[u32], prefix: u32) -> Cut {
    let mut windows = Vec::new();
    let mut predicted = 0;
    while predicted < tokens.len() {
        let targets = max_length.min(tokens.len() - predicted);
        let end = predicted + targets;
        let window = if predicted == 0 {
            std::iter::once(prefix).chain(tokens[..end].iter().copied()).collect::<Vec<_>>()
        } else {
            // The first window was full, so there are `max_length` tokens before the last target and one to
            // start from.
            tokens[end - max_length - 1..end].to_vec()
        };
        windows.push(Window {
            scored: window.len() - targets..window.len(),
            tokens: window,
            source: predicted,
        });
        predicted = end;
    }
    Cut { windows, unscored_tokens: 0, dropped_tokens: 0 }
}

fn strided(window: usize, stride: usize, tokens: &[u32], bos: Option<u32>) -> Cut {
    let stream: Vec<u32> = bos.iter().chain(tokens).copied().collect();
    let shift = stream.len() - tokens.len();
    let mut windows = Vec::new();
    // The stream's first token has nothing before it: the next to be predicted is always the one at
    // `predicted`.
    let (mut start, mut predicted) = (0usize, 1);
    while predicted < stream.len() {
        let end = stream.len().min(start.saturating_add(window));
        windows.push(Window {
            tokens: stream[start..end].to_vec(),
            scored: predicted - start..end - start,
            source: predicted - shift,
        });
        predicted = end;
        start += stride;
    }
    Cut { windows, unscored_tokens: tokens.len().min(1 - shift), dropped_tokens: 0 }
}

#[cfg(test)]
mod tests;
