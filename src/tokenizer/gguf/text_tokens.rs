//! Which tokens of a GGUF vocabulary are found in raw text before anything else.
//!
//! llama.cpp cuts *user-defined* tokens out of a text wherever they are written, and treats *control* tokens
//! (`</s>`, `<|im_end|>`) as ordinary characters unless it is asked to parse them; a text to be measured is
//! never parsed. Before that it corrects the types that a file states, by the token's text: a token that ends
//! a generation or frames an infilling is control, the channel marks of the harmony format are user-defined.
//! Source: llama.cpp, `src/llama-vocab.cpp`, `llama_vocab::impl::load` and `tokenizer_st_partition`, as of
//! 2026.

use super::GgufVocabulary;
use std::collections::HashSet;

/// `LLAMA_TOKEN_TYPE_USER_DEFINED` of `tokenizer.ggml.token_type`.
const USER_DEFINED: i64 = 4;

/// Control tokens whatever the file says: they end a generation.
const ENDINGS: [&str; 22] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];

/// Control tokens unless a key of the file gives the role an id: (keys, texts).
const INFILLING: [(&[&str], &[&str]); 6] = [
    (
        &["fim_pre", "prefix"],
        &[
            "<|fim_prefix|>",
            "<fim-prefix>",
            "<fim_prefix>",
            "<｜fim▁begin｜>",
            "<PRE>",
            "▁<PRE>",
            "<|code_prefix|>",
            "<|prefix|>",
        ],
    ),
    (
        &["fim_suf", "suffix"],
        &[
            "<|fim_suffix|>",
            "<fim-suffix>",
            "<fim_suffix>",
            "<｜fim▁hole｜>",
            "<SUF>",
            "▁<SUF>",
            "<|code_suffix|>",
            "<|suffix|>",
        ],
    ),
    (
        &["fim_mid", "middle"],
        &[
            "<|fim_middle|>",
            "<fim-middle>",
            "<fim_middle>",
            "<｜fim▁end｜>",
            "<MID>",
            "▁<MID>",
            "<|code_middle|>",
            "<|middle|>",
        ],
    ),
    (&["fim_pad"], &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"]),
    (&["fim_rep"], &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"]),
    (&["fim_sep"], &["<|file_sep|>"]),
];

/// User-defined whatever the file says: the harmony format's marks.
const HARMONY: [&str; 4] = ["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"];

/// Texts after which the Phi-3 family keeps white space.
const PHI3_KEEPS_SPACE: [&str; 3] = ["<unk>", "<s>", "<|endoftext|>"];

/// A token that is found in raw text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TextToken<'a> {
    /// As it is written in the text.
    pub(super) text: &'a str,
    /// Whether the white space behind it belongs to it.
    pub(super) takes_space: bool,
}

/// The tokens of `vocabulary` that raw text is cut at, in the order of their ids.
pub(super) fn text_tokens(vocabulary: &GgufVocabulary) -> Vec<TextToken<'_>> {
    let present: HashSet<&str> = vocabulary.tokens.iter().map(String::as_str).collect();
    let has = |text: &str| present.contains(text);
    // `<|end|>` does not end anything where both a call and a return or flush mark exist.
    let calls = has("<|call|>") || has("<|calls|>");
    let end_is_text = calls && (has("<|return|>") || has("<|flush|>"));
    let name = vocabulary.model_name.as_deref().unwrap_or_default().to_ascii_lowercase();
    let phi3 = name.contains("phi-3") || name.contains("phi3");
    let types = vocabulary.token_types.iter().copied().chain(std::iter::repeat(1));
    vocabulary
        .tokens
        .iter()
        .zip(types)
        .filter(|(text, kind)| {
            let text = text.as_str();
            let corrected = HARMONY.contains(&text) || (end_is_text && text == "<|end|>");
            corrected || (*kind == USER_DEFINED && !is_control(text, vocabulary))
        })
        .map(|(text, _)| TextToken { text, takes_space: phi3 && !PHI3_KEEPS_SPACE.contains(&text.as_str()) })
        .collect()
}

/// Whether llama.cpp makes a control token of `text` although the file does not.
fn is_control(text: &str, vocabulary: &GgufVocabulary) -> bool {
    ENDINGS.contains(&text)
        || INFILLING.iter().any(|(roles, texts)| {
            texts.contains(&text) && !roles.iter().any(|role| vocabulary.roles.contains(*role))
        })
}
