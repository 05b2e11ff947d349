//! How a repository of the Hub is written: `org/name`, `org/name:file.gguf`, `org/name:file.gguf@revision`.

use std::{fmt, path::Path};

/// What kind of repository is meant; their names are apart on the Hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepoKind {
    /// Weights and tokenizers.
    Model,
    /// Text and tasks.
    Dataset,
}

impl RepoKind {
    /// The word in addresses and folder names: "models" or "datasets".
    pub(super) fn plural(self) -> &'static str {
        match self {
            RepoKind::Model => "models",
            RepoKind::Dataset => "datasets",
        }
    }
}

/// A repository of the Hub, or one file of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubId {
    /// `org/name`.
    pub repo: String,
    /// A file in it, with `/` between folders; `None` for all that is needed.
    pub file: Option<String>,
    /// A branch, a tag or a commit; `None` is `main`.
    pub revision: Option<String>,
    /// Which of the Hub's name spaces.
    pub kind: RepoKind,
}

/// Endings that make `folder/name.ending` a path of this machine, whether or not it exists.
const FILE_ENDINGS: &[&str] = &[
    "bin",
    "csv",
    "dat",
    "gguf",
    "gz",
    "json",
    "jsonl",
    "kld",
    "npz",
    "parquet",
    "pt",
    "pth",
    "safetensors",
    "tsv",
    "txt",
    "yaml",
    "yml",
    "zip",
    "zst",
];

impl HubId {
    /// Reads `org/name[:file][@revision]`, for a dataset also `datasets/org/name…`.
    ///
    /// `None` for anything else, and for every path that exists: what lies here is never looked for elsewhere.
    pub fn parse(text: &str, kind: RepoKind) -> Option<Self> {
        match Self::parse_prefix(text, kind, &|_| false) {
            Some((id, "")) => Some(id),
            _ => None,
        }
    }

    /// Reads `org/name[:file][@revision]` and leaves `@STEP@STEP…` behind it to the caller.
    ///
    /// What follows the first `@` is a revision unless `is_step` knows it: with `kv=q8_0` a step,
    /// `org/name@v1.0@kv=q8_0` is revision `v1.0` and the rest `@kv=q8_0`, and `org/name@kv=q8_0` the rest
    /// `@kv=q8_0` alone. A branch that is called like a step can only be named by its commit.
    pub fn parse_prefix<'a>(
        text: &'a str,
        kind: RepoKind,
        is_step: &dyn Fn(&str) -> bool,
    ) -> Option<(Self, &'a str)> {
        let exists = |path: &str| Path::new(path).exists();
        let cuts = text.match_indices('@').map(|(at, _)| at).chain([text.len()]);
        if cuts.into_iter().any(|at| text.get(..at).is_some_and(exists)) {
            return None;
        }
        let (place, after) = match text.split_once('@') {
            Some((place, after)) => (place, Some(after)),
            None => (text, None),
        };
        let (repo, file) = match place.split_once(':') {
            Some((repo, file)) => (repo, Some(file)),
            None => (place, None),
        };
        let repo = match kind {
            RepoKind::Model => repo,
            RepoKind::Dataset => repo.strip_prefix("datasets/").unwrap_or(repo),
        };
        if !is_repo(repo) || exists(repo) || file.is_some_and(|file| !stays_inside(file)) {
            return None;
        }
        let (revision, rest) = match after {
            None => (None, ""),
            Some(after) => {
                let first = after.split('@').next().unwrap_or(after);
                // Both ends were found in `text` itself.
                let rest_from = text.len() - after.len();
                match is_step(first) {
                    true => (None, text.get(rest_from.checked_sub(1)?..)?),
                    false => (Some(first), text.get(rest_from + first.len()..)?),
                }
            }
        };
        if revision.is_some_and(|revision| !stays_inside(revision)) {
            return None;
        }
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Some((Self { repo: repo.to_owned(), file: owned(file), revision: owned(revision), kind }, rest))
    }

    /// The branch, tag or commit that is meant.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }
}

impl fmt::Display for HubId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repo)?;
        if let Some(file) = &self.file {
            write!(f, ":{file}")?;
        }
        match &self.revision {
            Some(revision) => write!(f, "@{revision}"),
            None => Ok(()),
        }
    }
}

/// `org/name` as the Hub allows it: ASCII letters, digits, `_`, `-`, `.`; a letter, digit or `_` at either end; no
/// `--`, no `..`, no `.git` at the end; at most 96 each. Source: `huggingface_hub`'s validation of names.
fn is_repo(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let part = |part: &str| {
        let bytes = part.as_bytes();
        (1..=96).contains(&bytes.len())
            && bytes.iter().all(|byte| word(*byte) || matches!(byte, b'-' | b'.'))
            && bytes.first().is_some_and(|byte| word(*byte))
            && bytes.last().is_some_and(|byte| word(*byte))
            && !part.contains("--")
            && !part.contains("..")
    };
    let Some((owner, name)) = text.split_once('/') else { return false };
    let ending = name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase());
    part(owner)
        && part(name)
        && !name.ends_with(".git")
        && !ending.is_some_and(|ending| FILE_ENDINGS.contains(&ending.as_str()))
}

/// Whether a name with `/` between its parts can be put below a folder without leaving it, on every system.
pub(super) fn stays_inside(name: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && part.len() <= 255
            && !part.chars().any(|c| c.is_control() || matches!(c, '\\' | ':'))
    };
    name.len() <= 1024 && name.split('/').all(part)
}
