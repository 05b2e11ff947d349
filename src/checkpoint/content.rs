//! What a file is by its first bytes, whatever its name says, and how to refuse one that is not a checkpoint.
//!
//! People hand over git-lfs pointers, saved login pages and PyTorch pickles under the name of a model; each
//! of them deserves its own sentence instead of a parse error. Looks at no more than the first 512 bytes.

use crate::error::Error;
use std::path::Path;

/// What the first bytes of a file say it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Nothing at all.
    Empty,
    /// A GGUF file of any version.
    Gguf,
    /// A safetensors header: a length and the start of a JSON object.
    Safetensors,
    /// The text that git-lfs leaves in place of a file that was not downloaded.
    LfsPointer,
    /// A PyTorch checkpoint in a zip archive, or another zip archive.
    Zip,
    /// A bare Python pickle: an old PyTorch checkpoint.
    Pickle,
    /// A web page.
    Html,
    /// JSON text: a configuration or a shard index.
    Json,
    /// None of these.
    Unknown,
}

/// Longest header that is read, of either format: the limit of the `safetensors` crate, and several times the
/// largest vocabulary in use. It bounds what a sparse file of any size can make us allocate.
pub(super) const MAX_HEADER_BYTES: usize = 100_000_000;

/// Tells what `file` is, from its first bytes.
pub(super) fn sniff(file: &[u8]) -> Content {
    let head = &file[..file.len().min(512)];
    let text = head.trim_ascii_start();
    let tag = text.get(..9).unwrap_or(text).to_ascii_lowercase();
    // The header length of a safetensors file may begin with any byte, so this test comes before those for
    // other magics.
    if head.starts_with(b"GGUF") {
        Content::Gguf
    } else if looks_like_safetensors(head) {
        Content::Safetensors
    } else if head.is_empty() {
        Content::Empty
    } else if head.starts_with(b"version https://git-lfs") {
        Content::LfsPointer
    } else if head.starts_with(b"PK\x03\x04") {
        Content::Zip
    } else if matches!(head, [0x80, 2..=5, ..]) {
        Content::Pickle
    } else if tag.starts_with(b"<!doctype") || tag.starts_with(b"<html") || tag.starts_with(b"<?xml") {
        Content::Html
    } else if text.starts_with(b"{") {
        Content::Json
    } else {
        Content::Unknown
    }
}

fn looks_like_safetensors(head: &[u8]) -> bool {
    match head.split_first_chunk() {
        Some((length, [b'{', ..])) => u64::from_le_bytes(*length) <= MAX_HEADER_BYTES as u64,
        _ => false,
    }
}

impl Content {
    /// What is wrong with such a file where a `wanted` ("GGUF", "safetensors") file was expected, and what to
    /// do.
    pub(super) fn refusal(self, path: &Path, wanted: &str) -> Error {
        let (problem, help) = match self {
            Content::Empty => ("the file is empty", "download or copy it again"),
            Content::Gguf => {
                ("this is a GGUF file, whatever its name says", "rename it so that it ends in .gguf")
            }
            Content::Safetensors => (
                "this is a safetensors file, whatever its name says",
                "rename it so that it ends in .safetensors",
            ),
            Content::LfsPointer => (
                "this is a git-lfs pointer, a few lines of text in place of the model",
                "run `git lfs pull` in its folder, or download the file itself",
            ),
            Content::Zip => (
                "this is a zip archive, as PyTorch writes its checkpoints",
                "give the .safetensors file of the model, or save it again with `safe_serialization=True`",
            ),
            Content::Pickle => (
                "this is a Python pickle, as PyTorch once wrote its checkpoints; loading one runs code",
                "give the .safetensors file of the model, or save it again with `safe_serialization=True`",
            ),
            Content::Html => (
                "this is a web page, probably an error or a login page saved under the model's name",
                "download the file again; a gated model needs a login or a token",
            ),
            Content::Json => (
                "this is JSON text, not weights",
                "give the folder that holds it, or the .safetensors or .gguf file itself",
            ),
            Content::Unknown => {
                return Error::file(
                    path,
                    format!("this is not a {wanted} file: its first bytes say nothing that is known"),
                    "give a .safetensors file, a .gguf file, or a Hugging Face folder",
                );
            }
        };
        Error::file(path, problem, help)
    }
}

/// A name from a file as it may be shown: no control characters, at most 100 characters.
pub(super) fn shown(name: &str) -> String {
    const LONGEST: usize = 100;
    let mut shown: String = name.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if name.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_file_is_recognized_and_refused_in_its_own_words() {
        let cases: &[(&[u8], Content, &str)] = &[
            (b"", Content::Empty, "empty"),
            (b"GGUF\x03\0\0\0", Content::Gguf, "GGUF"),
            (b"\x02\0\0\0\0\0\0\0{}", Content::Safetensors, "safetensors"),
            // Header lengths whose bytes look like the magic of a pickle and of a web page.
            (b"\x80\x03\0\0\0\0\0\0{\"a\"", Content::Safetensors, "safetensors"),
            (b"<h\0\0\0\0\0\0{\"a\"", Content::Safetensors, "safetensors"),
            (b"version https://git-lfs.github.com/spec/v1\noid", Content::LfsPointer, "git-lfs"),
            (b"PK\x03\x04\0\0archive/data.pkl", Content::Zip, "zip"),
            (b"\x80\x02}q\0", Content::Pickle, "pickle"),
            (b"\n <!DOCTYPE html><html>", Content::Html, "web page"),
            (b"<HTML><head>", Content::Html, "web page"),
            (b"{\"weight_map\": {}}", Content::Json, "JSON"),
            (b"FUGG\0\0\0\x03", Content::Unknown, "not a GGUF file"),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff{", Content::Unknown, "not a GGUF file"),
        ];
        for (bytes, content, words) in cases {
            assert_eq!(sniff(bytes), *content, "{bytes:?}");
            let error = content.refusal(Path::new("some/model.bin"), "GGUF");
            assert!(error.to_string().starts_with("some/model.bin: "), "{error}");
            assert!(error.to_string().contains(words), "{error}");
            assert!(error.help().is_some_and(|help| !help.is_empty()), "{error}");
        }
    }

    #[test]
    fn shown_names_are_short_and_cannot_steer_a_terminal() {
        assert_eq!(shown("blk.0.attn_q.weight"), "blk.0.attn_q.weight");
        assert_eq!(shown("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(shown(&"я".repeat(101)).chars().count(), 101);
    }
}
