//! What was observed, before anything is averaged: one record per scored token
//! and per side, one per layer and view, one per weight. Plain numbers; this
//! file imports nothing of the crate.
//!
//! The token records are `Pod` so that a run can append them to a scratch file
//! and map them back: memory must not grow with the length of the text.

use bytemuck::{Pod, Zeroable};

/// Base's side of one scored position.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct BaseToken {
    /// −ln p(target), nats.
    pub nll: f64,
    /// Entropy of base's distribution, nats.
    pub entropy: f64,
    /// Probability of base's most likely token.
    pub max_probability: f64,
    /// Index of the task in the suite.
    pub task: u32,
    /// Index of the document in its task.
    pub document: u32,
    /// Index of the window in its document.
    pub window: u32,
    /// Index of the target in its window: how many tokens of context it had.
    pub position: u32,
    /// The target token's id.
    pub token: u32,
    /// The most likely token's id (lowest id on a tie).
    pub top1: u32,
    /// UTF-8 bytes of source text that the target newly covers.
    pub bytes: u32,
    /// Keeps the record free of implicit padding.
    pub reserved: u32,
}

/// A quant's side of one scored position, and its divergence from base there.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct QuantToken {
    /// −ln q(target), nats.
    pub nll: f64,
    /// Entropy of the quant's distribution, nats.
    pub entropy: f64,
    /// Σ p ln(p/q), nats.
    pub kl_divergence: f64,
    /// Σ q ln(q/p), nats.
    pub reverse_kl: f64,
    /// q(target) − p(target).
    pub delta_p: f64,
    /// The quant's most likely token's id.
    pub top1: u32,
    /// Size of the intersection of both sides' five most likely tokens, 0 to 5.
    pub top5_common: u32,
}

impl QuantToken {
    /// Whether every figure of the record is a finite number.
    pub fn is_finite(&self) -> bool {
        [self.nll, self.entropy, self.kl_divergence, self.reverse_kl, self.delta_p]
            .iter()
            .all(|x| x.is_finite())
    }
}
