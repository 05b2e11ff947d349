//! Models on text: packing, the lockstep pass, the fused head, and `trace`.
//!
//! A model is seen as stages here (`embed`, `layer`, `head_rows`) and nothing of its insides.
//! What comes out are observations; averages and intervals are made elsewhere.

pub mod generate;
mod head;
mod layers;
pub mod lockstep;
pub mod logits_file;
pub mod observations;
mod plan;
mod probe;
pub mod sampling;
mod side;
pub mod spill;
pub mod trace;

use candle_core::Tensor;

pub use self::{
    lockstep::{Base, Settings, run},
    observations::Observations,
};

/// A tensor's values on the host, row-major.
fn to_values(x: &Tensor) -> candle_core::Result<Vec<f32>> {
    x.flatten_all()?.to_vec1()
}
