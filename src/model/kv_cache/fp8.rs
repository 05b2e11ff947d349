//! Caches with one static scale: 8-bit floats and 8-bit integers.
//!
//! The scale of keys and of values comes from the checkpoint (`k_scale`, `v_scale`, calibrated), so a token
//! is stored without looking at any other.

use super::{clamp, each_block, round_half_even};
use crate::minifloat::round_e4m3;

/// x̂ = s·E4M3(x/s), saturating at ±448·s: vLLM's conversion to `fp8_e4m3` and compressed-tensors' float
/// quantization at 8 bits.
pub(super) fn store_e4m3(values: &mut [f32], scale: f32) {
    each_block(values, |x: &mut [f32; 1]| x[0] = round_e4m3(x[0] / scale) * scale);
}

/// x̂ = s·clamp(round(x/s), −128, 127), ties to even: compressed-tensors' symmetric integer quantization at 8
/// bits.
pub(super) fn store_int8(values: &mut [f32], scale: f32) {
    each_block(values, |x: &mut [f32; 1]| {
        x[0] = round_half_even(clamp(x[0] / scale, -128.0, 127.0)) * scale;
    });
}
