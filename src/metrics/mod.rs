//! Numbers in, numbers out: what a pair of models' outputs differ by.
//!
//! Everything here is a pure function or a small accumulator over slices. It knows nothing of models,
//! tensors, files or tables, and imports nothing of the crate, so that each formula can be read and
//! tested by itself. Natural logarithms throughout (nats); `base` is the reference, `quant` is what is
//! judged against it. Sums are taken in f64, in an order fixed by the source (eight lanes, fused
//! multiply-adds written out), so that a figure is the same on every machine.

pub mod cka;
pub mod confidence;
mod exp;
pub mod layer;
pub mod router;
pub mod vocabulary;

/// Lanes in which every sum of this module is accumulated: fixed, whatever the width of the machine's
/// registers, so that the order of additions (and with it the last bit) never depends on the machine.
const LANES: usize = 8;

/// The sum of a set of lanes, as a tree.
#[inline(always)]
fn lane_sum(lanes: [f64; LANES]) -> f64 {
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + b) + (c + d)) + ((e + f) + (g + h))
}
