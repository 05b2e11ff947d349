//! Models on text: packing, the lockstep pass, the fused head, and `trace`.
//!
//! A model is seen as stages here (`embed`, `layer`, `head_rows`) and nothing of its insides.
//! What comes out are observations; averages and intervals are made elsewhere.

mod head;
pub mod lockstep;
pub mod logits_file;
mod plan;
mod probe;
pub mod spill;
pub mod trace;

use candle_core::Tensor;

pub use self::lockstep::{Base, Observations, Settings, run};

/// A tensor's values on the host, row-major.
fn to_values(x: &Tensor) -> candle_core::Result<Vec<f32>> {
    x.flatten_all()?.to_vec1()
}
