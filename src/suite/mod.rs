//! What is measured on: suites (YAML with data beside it), their documents, and how these become requests.
//!
//! A suite is data only, checked as a whole before any model is opened; `sha256` says exactly which one was
//! used. This module knows nothing of models, checkpoints or tokenizers: [`render()`] is handed a closure
//! that tokenizes, and answers with plain token lists. Reading order: a suite is loaded ([`load()`],
//! [`embedded()`], [`from_text()`]), cut by a [`Protocol`], rendered to [`Request`]s.

mod documents;
mod embedded;
mod load;
pub mod protocol;
pub mod render;
mod suggest;

pub use embedded::{EMBEDDED, EmbeddedSuite, embedded};
pub use load::{from_text, load};
pub use protocol::Protocol;
pub use render::{Rendered, RenderedTask, Request, TokenizedText, render};
use serde::Deserialize;

/// A named, versioned list of tasks.
#[derive(Clone, Debug, PartialEq)]
pub struct Suite {
    /// Letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// Raised whenever the data or its meaning changes: figures of two versions are not comparable. 1 where
    /// not stated.
    pub version: u32,
    /// For the reader of a report; may be empty.
    pub description: String,
    /// Licence of the data, an SPDX expression where there is one; may be empty.
    pub license: String,
    /// Seed of everything that a task may draw at random; 0 where not stated.
    pub seed: u64,
    /// At least one, names unique.
    pub tasks: Vec<Task>,
    /// SHA-256 (hex) of the definition *and* its data, for provenance. For a suite: of what `sha256sum
    /// suite.yaml FIRST.jsonl …` prints in the suite's folder, data files in the order in which the tasks
    /// name them, each once (so `… | sha256sum` checks it). For a text ([`from_text()`]): of the file's
    /// bytes.
    pub sha256: String,
}

/// Documents of one kind that are reported together.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Unique in its suite. Letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// What is done with the documents.
    pub kind: TaskKind,
    /// BCP 47 tag of the natural language; `und` where not stated.
    pub language: String,
    /// At least one, ids unique, texts not blank.
    pub documents: Vec<Document>,
}

/// What is done with a task's documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    /// Every token of the text is predicted from those before it.
    Text,
}

/// One text that stands on its own; it is never joined with another.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Unique in its task.
    pub id: String,
    /// Exactly as stored: no trimming, no change of line ends.
    pub text: String,
}
