//! What a pass showed: token records, layer and weight errors, speeds. Nothing is averaged here.

use super::spill::Records;
use crate::{
    metrics::layer::{LayerErrorReport, WeightErrorReport},
    observation::{BaseToken, QuantToken},
};

/// Divergence after one of the quant's layers.
#[derive(Clone, Debug)]
pub struct LayerObservation {
    /// The quant's layer; `None` is the embedding.
    pub layer: Option<usize>,
    /// Base's layer at the same relative depth.
    pub base_layer: Option<usize>,
    /// Quant on its own input.
    pub cumulative: Option<LayerErrorReport>,
    /// Quant's layer on base's input.
    pub injected: Option<LayerErrorReport>,
    /// For another depth or width.
    pub cka: Option<f64>,
    /// Share of tokens that go through the same experts on both sides, each on its own input; `None` without experts.
    pub router_agreement: Option<f64>,
    /// The same with the quant's layer on base's input.
    pub injected_router_agreement: Option<f64>,
}

/// Divergence of one linear's output.
#[derive(Clone, Debug)]
pub struct LinearObservation {
    /// Layer.
    pub layer: usize,
    /// One of [`crate::model::linears`].
    pub linear: &'static str,
    /// Each side on its own input.
    pub cumulative: LayerErrorReport,
    /// The quant's linear on base's input.
    pub injected: LayerErrorReport,
}

/// One weight against base's.
#[derive(Clone, Debug)]
pub struct WeightObservation {
    /// Hugging Face's name.
    pub name: String,
    /// The error.
    pub errors: WeightErrorReport,
}

/// What one quant showed.
#[derive(Debug)]
pub struct QuantObservations {
    /// One per scored position, aligned with [`Observations::base_tokens`].
    pub tokens: Records<QuantToken>,
    /// Embedding, then every layer.
    pub layers: Vec<LayerObservation>,
    /// Every linear of every layer, if asked for.
    pub linears: Vec<LinearObservation>,
    /// Every weight that base has too.
    pub weights: Vec<WeightObservation>,
    /// Mean probability on ids outside the shared vocabulary.
    pub excluded_mass: f64,
    /// Tokens read per second of this model's own computation.
    pub tokens_per_second: f64,
}

/// What a pass showed.
#[derive(Debug)]
pub struct Observations {
    /// One per scored position.
    pub base_tokens: Records<BaseToken>,
    /// As [`QuantObservations::excluded_mass`], of base.
    pub base_excluded_mass: f64,
    /// Tokens read per second of base's own computation; `None` for saved logits.
    pub base_tokens_per_second: Option<f64>,
    /// The cousins.
    pub quants: Vec<QuantObservations>,
    /// Multiply-adds counted twice.
    pub floating_point_operations: f64,
}
