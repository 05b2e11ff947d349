//! The suites that travel inside the binary, so that a first comparison needs no download.
//!
//! Their files lie under `suites/<name>/` and are embedded as they are; they are read by the same code as a
//! user's own.

use std::path::Path;

use super::{Suite, load};
use crate::error::{Error, Result};

/// The files of one suite under `suites/`.
#[derive(Clone, Copy, Debug)]
pub struct EmbeddedSuite {
    /// What `--suite` calls it; equal to the `name` in its YAML.
    pub name: &'static str,
    /// Its `suite.yaml`.
    pub definition: &'static str,
    /// Its data files: name as the YAML gives it, and content.
    pub data: &'static [(&'static str, &'static str)],
}

/// Every embedded suite.
pub const EMBEDDED: &[EmbeddedSuite] = &[EmbeddedSuite {
    name: "perplexity",
    definition: include_str!("../../suites/perplexity/suite.yaml"),
    data: &[
        ("prose.jsonl", include_str!("../../suites/perplexity/prose.jsonl")),
        ("dialogue.jsonl", include_str!("../../suites/perplexity/dialogue.jsonl")),
        ("code.jsonl", include_str!("../../suites/perplexity/code.jsonl")),
    ],
}];

/// The embedded suite called `name`; `None` if there is none of that name.
///
/// # Errors
/// A mistake in its files; a test keeps them free of any.
pub fn embedded(name: &str) -> Option<Result<Suite>> {
    EMBEDDED.iter().find(|suite| suite.name == name).map(open)
}

fn open(suite: &EmbeddedSuite) -> Result<Suite> {
    let path = Path::new("(embedded)").join(suite.name).join("suite.yaml");
    load::parse(&path, suite.definition.as_bytes(), &|data, path| {
        let found = suite.data.iter().find(|(name, _)| *name == data);
        let (_, content) = found.ok_or_else(|| Error::file(path, "is not embedded", ""))?;
        Ok(content.as_bytes().to_vec())
    })
}
