//! Writing quantized checkpoints: a base model in, files that other tools load out.

pub mod packed;

use std::path::PathBuf;

/// Told of each tensor as it is written: its name, bytes written so far, bytes of all tensors.
pub type Progress<'a> = dyn FnMut(&str, u64, u64) + 'a;

/// What was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// The file or folder.
    pub path: PathBuf,
    /// Its size, with everything in it.
    pub bytes: u64,
    /// Bits of all tensors over the number of weights.
    pub bits_per_weight: f64,
    /// How many tensors came out in which encoding, the most weights first.
    pub encodings: Vec<EncodingShare>,
    /// What stayed in higher precision than was asked for, or came out otherwise than asked for, and why.
    pub kept: Vec<Kept>,
    /// What else the reader should know.
    pub notes: Vec<String>,
}

/// The tensors of one encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodingShare {
    /// As reports call it: "Q4_K".
    pub encoding: String,
    /// Tensors.
    pub tensors: usize,
    /// Weights in them.
    pub parameters: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// Tensors that came out otherwise than the target's name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The tensor, or a pattern with `*` for the layer's number.
    pub tensors: String,
    /// How many.
    pub count: usize,
    /// In which encoding.
    pub encoding: String,
    /// Why.
    pub why: String,
}
