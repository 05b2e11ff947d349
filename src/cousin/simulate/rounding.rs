//! Quantizers with a closed form: each rounds a group of neighbouring values to what its codes can say.
//!
//! Operation by operation in f32 as the tools compute it, so that codes come out equal: s from the group's extremes,
//! q = round(clamp(x / s + z)) half to even, x̂ = (q − z)·s. A group without a value other than zero has no scale and
//! stays zero. Everything here is free of branches on values, so that loops vectorize.

use half::{f16, slice::HalfFloatSliceExt};

use crate::minifloat::{E2M1_MAX, E4M3_MAX, e8m0, round_e2m1, round_e4m3};

/// Rounds one group in place.
pub(super) trait Rounding {
    /// Must be `#[inline(always)]`, see [`each_group`].
    fn round(&self, group: &mut [f32]);
}

/// Rounds every `group` neighbouring values, compiled for the widest vectors that this processor has.
///
/// The usual groups are arrays of known length, so that the loops over them are unrolled.
pub(super) fn each_group(rounding: impl Rounding, group: usize, values: &mut [f32]) {
    struct EachGroup<'a, R> {
        rounding: R,
        group: usize,
        values: &'a mut [f32],
    }

    impl<R: Rounding> pulp::WithSimd for EachGroup<'_, R> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, _: S) {
            let Self { rounding, group, values } = self;
            match group {
                16 => each_of::<16>(&rounding, values),
                32 => each_of::<32>(&rounding, values),
                64 => each_of::<64>(&rounding, values),
                128 => each_of::<128>(&rounding, values),
                256 => each_of::<256>(&rounding, values),
                _ => values.chunks_mut(group.max(1)).for_each(|group| rounding.round(group)),
            }
        }
    }

    pulp::Arch::new().dispatch(EachGroup { rounding, group, values });
}

/// The last group may be shorter.
#[inline(always)]
fn each_of<const GROUP: usize>(rounding: &impl Rounding, values: &mut [f32]) {
    let (groups, rest) = values.as_chunks_mut::<GROUP>();
    groups.iter_mut().for_each(|group| rounding.round(group));
    if !rest.is_empty() {
        rounding.round(rest);
    }
}

/// The largest magnitude, compiled for the widest vectors.
pub(super) fn largest_magnitude(values: &[f32]) -> f32 {
    struct Largest<'a>(&'a [f32]);

    impl pulp::WithSimd for Largest<'_> {
        type Output = f32;

        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, _: S) -> f32 {
            amax(self.0)
        }
    }

    pulp::Arch::new().dispatch(Largest(values))
}

/// The bits of magnitudes are in the order of the magnitudes, and a maximum of integers may be taken in any order.
#[inline(always)]
pub(super) fn amax(group: &[f32]) -> f32 {
    f32::from_bits(group.iter().fold(0, |largest: u32, x| largest.max(x.to_bits() & 0x7FFF_FFFF)))
}

/// A scale must not be zero; the tools take the smallest step of f32 at 1.
#[inline(always)]
fn or_epsilon(scale: f32) -> f32 {
    if scale == 0.0 { f32::EPSILON } else { scale }
}

/// The nearest integer, ties to even; for magnitudes below 2^22.
#[inline(always)]
pub(super) fn nearest(x: f32) -> f32 {
    const MAGIC: f32 = 1.5 * (1 << 23) as f32;
    (x + MAGIC) - MAGIC
}

#[inline(always)]
pub(super) fn clamp(x: f32, low: f32, high: f32) -> f32 {
    let x = if x > high { high } else { x };
    if x < low { low } else { x }
}

/// Integers about zero: s = amax / ((2^b − 1) / 2).
pub(super) struct Symmetric {
    pub(super) bits: u32,
}

impl Rounding for Symmetric {
    #[inline(always)]
    fn round(&self, group: &mut [f32]) {
        let (low, high) = range(self.bits);
        let scale = or_epsilon(amax(group) / ((high - low) / 2.0));
        for x in group {
            *x = nearest(clamp(*x / scale, low, high)) * scale;
        }
    }
}

/// Integers with a zero point: s = (max − min) / (2^b − 1), z = round(clamp(−2^(b−1) − min / s)); both extremes
/// include zero.
pub(super) struct Asymmetric {
    pub(super) bits: u32,
}

impl Rounding for Asymmetric {
    #[inline(always)]
    fn round(&self, group: &mut [f32]) {
        let (low, high) = range(self.bits);
        let (min, max) = extremes(group);
        let (min, max) = (min.min(0.0), max.max(0.0));
        let scale = (max - min) / (high - low);
        let zero = if scale == 0.0 { 0.0 } else { nearest(clamp(low - min / scale, low, high)) };
        let scale = or_epsilon(scale);
        for x in group {
            *x = (nearest(clamp(*x / scale + zero, low, high)) - zero) * scale;
        }
    }
}

/// The least and the greatest value. Their bits, put in order, are integers, whose extremes may be taken in any order.
#[inline(always)]
pub(super) fn extremes(group: &[f32]) -> (f32, f32) {
    let (min, max) = group.iter().fold((i32::MAX, i32::MIN), |(min, max), x| {
        let ordered = in_order(x.to_bits().cast_signed());
        (min.min(ordered), max.max(ordered))
    });
    let value = |ordered: i32| f32::from_bits(in_order(ordered).cast_unsigned());
    (value(min), value(max))
}

/// Maps the bits of floats to integers in the same order, and back.
#[inline(always)]
fn in_order(bits: i32) -> i32 {
    bits ^ ((bits >> 31) & i32::MAX)
}

/// The smallest and the largest code.
#[inline(always)]
fn range(bits: u32) -> (f32, f32) {
    let half = (1u32 << (bits - 1)) as f32;
    (-half, half - 1.0)
}

/// E4M3 with a scale from the group itself: s = amax / 448.
pub(super) struct E4m3;

impl Rounding for E4m3 {
    #[inline(always)]
    fn round(&self, group: &mut [f32]) {
        E4m3At { amax: amax(group) }.round(group);
    }
}

/// E4M3 with a scale from elsewhere.
pub(super) struct E4m3At {
    /// Largest magnitude among all values that share the scale.
    pub(super) amax: f32,
}

impl Rounding for E4m3At {
    #[inline(always)]
    fn round(&self, group: &mut [f32]) {
        let scale = or_epsilon(self.amax / E4M3_MAX);
        for x in group {
            *x = round_e4m3(*x / scale) * scale;
        }
    }
}

/// E2M1 with the scale s = e4m3(g · amax / 6) / g.
pub(super) struct Nvfp4 {
    /// g.
    global: f32,
}

impl Nvfp4 {
    /// For a matrix, or several that a runtime joins, whose largest magnitude is `amax`: g = 448 · 6 / amax.
    pub(super) fn new(amax: f32) -> Self {
        let global = E4M3_MAX * E2M1_MAX / amax.max(f32::MIN_POSITIVE);
        Self { global: if global.is_finite() { global } else { 1.0 } }
    }
}

impl Rounding for Nvfp4 {
    #[inline(always)]
    fn round(&self, group: &mut [f32]) {
        let scale = round_e4m3(self.global * (amax(group) / E2M1_MAX));
        // E4M3's epsilon stands for a scale that was flushed to zero.
        let scale = if scale == 0.0 { 0.125 } else { scale } / self.global;
        for x in group {
            *x = round_e2m1(*x / scale) * scale;
        }
    }
}

/// E2M1 with a power of two for scale.
pub(super) struct Mxfp4;

impl Rounding for Mxfp4 {
    #[inline(always)]
    fn round(&self, group: &mut [f32]) {
        let scale = power_of_two_scale(amax(group), 2);
        for x in group {
            *x = round_e2m1(*x / scale) * scale;
        }
    }
}

/// E4M3 with a power of two for scale.
pub(super) struct Mxfp8;

impl Rounding for Mxfp8 {
    #[inline(always)]
    fn round(&self, group: &mut [f32]) {
        let scale = power_of_two_scale(amax(group), 8);
        for x in group {
            *x = round_e4m3(*x / scale) * scale;
        }
    }
}

/// 2^(⌊log2 amax⌋ − `element_exponent`), one higher from 1.75 times a power of two on, where the largest would be cut.
#[inline(always)]
fn power_of_two_scale(amax: f32, element_exponent: u32) -> f32 {
    let quarter = 1 << 21;
    let exponent = amax.to_bits().wrapping_add(quarter) >> 23;
    // At most 255 − 2: amax is finite.
    e8m0(exponent.saturating_sub(element_exponent) as u8)
}

/// int8 by row as bitsandbytes has it: through f16, then q = round(x · (127 / amax)), x̂ = q · amax / 127.
pub(super) struct LlmInt8;

impl Rounding for LlmInt8 {
    #[inline(always)]
    fn round(&self, group: &mut [f32]) {
        let mut halves = [f16::ZERO; 256];
        for values in group.chunks_mut(halves.len()) {
            let halves = &mut halves[..values.len()];
            halves.convert_from_f32_slice(values);
            halves.convert_to_f32_slice(values);
        }
        let amax = amax(group);
        let steps = if amax == 0.0 { 0.0 } else { 127.0 / amax };
        for x in group {
            *x = nearest(clamp(*x * steps, -127.0, 127.0)) * amax / 127.0;
        }
    }
}
