//! Quantized checkpoints: what a simulation measured, written to files that the usual runtimes load.

pub mod packed;

use std::path::PathBuf;

/// What was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// The file or folder.
    pub path: PathBuf,
    /// Bytes of the file that holds the weights.
    pub bytes: u64,
    /// Bits of all tensors for each weight of the base, embedding and head included.
    pub bits_per_weight: f64,
    /// Matrices left as they were, by name.
    pub kept: Vec<String>,
}
