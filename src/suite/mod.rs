//! What is measured on: suites (YAML with data beside it), their documents, and how these become requests.
//!
//! A suite is data only, checked as a whole before any model is opened; `sha256` says exactly which one was
//! used. This module knows nothing of models, checkpoints or tokenizers: [`render()`] is handed closures
//! that tokenize, and answers with plain token lists. Reading order: a suite is loaded ([`load()`],
//! [`embedded()`], [`from_text()`]), cut by a [`Protocol`], rendered to [`Request`]s and [`WritingPrompt`]s.

mod ask;
pub mod benchmarks;
mod choices;
mod documents;
mod embedded;
mod lines;
pub mod lm_eval;
mod load;
pub mod protocol;
mod python_random;
pub mod question;
pub mod reasoning;
pub mod records;
pub mod render;
pub mod score;
mod suggest;
mod written;

pub use ask::arguments;
pub use embedded::{EMBEDDED, EmbeddedSuite, embedded};
pub use load::{from_text, load};
pub(crate) use load::{hex_sha256, hex_sha256_of};
pub use protocol::Protocol;
use question::Questions;
pub use render::{
    Converse, Reader, Rendered, RenderedTask, Request, TokenizedText, Turn, WritingPrompt, render,
};

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

/// What is measured in one way and reported together.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Unique in its suite. Letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// BCP 47 tag of the natural language; `und` where not stated.
    pub language: String,
    /// Tasks of one group are also reported together.
    pub group: Option<String>,
    /// What is done, and with what.
    pub content: Content,
}

/// What is done with a task, and its data.
// One per task: what a smaller variant would save is nothing beside its samples.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Every token of every text is predicted from those before it. At least one document, ids unique, texts not
    /// blank.
    Text(Vec<Document>),
    /// Samples are answered, by choosing or by writing.
    Questions(Questions),
}

impl Task {
    /// The documents of a text task; none of any other.
    pub fn documents(&self) -> &[Document] {
        match &self.content {
            Content::Text(documents) => documents,
            Content::Questions(_) => &[],
        }
    }

    /// The questions, unless it is a text task.
    pub fn questions(&self) -> Option<&Questions> {
        match &self.content {
            Content::Text(_) => None,
            Content::Questions(questions) => Some(questions),
        }
    }
}

/// One text that stands on its own; it is never joined with another.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Unique in its task.
    pub id: String,
    /// Exactly as stored: no trimming, no change of line ends.
    pub text: String,
}
