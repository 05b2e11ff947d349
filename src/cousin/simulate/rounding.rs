//! Quantizers with a closed form: each rounds a group of neighbouring values to what its codes can say.
//!
//! Operation by operation in f32 as the tools compute it, so that codes come out equal: s from the group's extremes,
//! q = round(clamp(x / s + z)) half to even, x̂ = (q − z)·s. A group without a value other than zero has no scale and
//! stays zero. Everything here is free of branches on values, so that loops vectorize.

use half::{f16, slice::HalfFloatSliceExt};

use crate::minifloat::{E2M1_MAX, E4M3_MAX, e2m1_code, e4m3_code, e8m0, round_e2m1, round_e4m3};

/// Rounds one group in place.
pub(super) trait Rounding {
    /// Must be `#[inline(always)]`, see [`each_group`].
    fn round(&self, group: &mut [f32]);
}

/// A quantizer that keeps a scale for each group and a code for each value. What it stores and what it leaves are
/// the same operations, so a file written by it holds exactly what a simulation measured. All `#[inline(always)]`.
pub(super) trait Coded {
    /// What is found of a group.
    type Scale: Copy;

    /// What the values go through first.
    #[inline(always)]
    fn prepare(&self, _group: &mut [f32]) {}

    /// What the group's values are counted in.
    fn scale(&self, group: &[f32]) -> Self::Scale;

    /// The code of a value, as the number that it stands for.
    fn code(&self, x: f32, scale: Self::Scale) -> f32;

    /// What a code restores.
    fn value(&self, code: f32, scale: Self::Scale) -> f32;

    /// The bits of a code; that of zero has the sign of `x` where the format has a sign.
    fn bits(code: f32, x: f32) -> u8;

    /// The scale as a file holds it.
    fn stored(scale: Self::Scale) -> StoredScale;
}

/// The plainest of them: codes are multiples of one float, which a file holds as it is. All `#[inline(always)]`.
trait Multiples {
    /// What the group's values are counted in.
    fn scale(&self, group: &[f32]) -> f32;

    /// As [`Coded::code`].
    fn code(&self, x: f32, scale: f32) -> f32;

    /// As [`Coded::bits`].
    fn bits(code: f32, x: f32) -> u8;
}

impl<M: Multiples> Coded for M {
    type Scale = f32;

    #[inline(always)]
    fn scale(&self, group: &[f32]) -> f32 {
        Multiples::scale(self, group)
    }

    #[inline(always)]
    fn code(&self, x: f32, scale: f32) -> f32 {
        Multiples::code(self, x, scale)
    }

    #[inline(always)]
    fn value(&self, code: f32, scale: f32) -> f32 {
        code * scale
    }

    #[inline(always)]
    fn bits(code: f32, x: f32) -> u8 {
        <M as Multiples>::bits(code, x)
    }

    #[inline(always)]
    fn stored(scale: f32) -> StoredScale {
        StoredScale { scale, zero: 0 }
    }
}

/// A group's scale as a file holds it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct StoredScale {
    /// A float, one of E4M3 (NVFP4), or a power of two (MX).
    pub(crate) scale: f32,
    /// The code of zero; 0 where the format has none.
    pub(crate) zero: i8,
}

impl<C: Coded> Rounding for C {
    #[inline(always)]
    fn round(&self, group: &mut [f32]) {
        self.prepare(group);
        let scale = self.scale(group);
        for x in group {
            *x = self.value(self.code(*x, scale), scale);
        }
    }
}

/// The bits of all codes, one byte for each value, and the scale of every `group` neighbouring values.
///
/// `values` are prepared in place; `codes` is as long, `scales` as long as there are groups.
pub(super) fn encode_each_group<C: Coded>(
    coded: C,
    group: usize,
    values: &mut [f32],
    codes: &mut [u8],
    scales: &mut [StoredScale],
) {
    struct Encode<'a, C> {
        coded: C,
        group: usize,
        values: &'a mut [f32],
        codes: &'a mut [u8],
        scales: &'a mut [StoredScale],
    }

    impl<C: Coded> pulp::WithSimd for Encode<'_, C> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, _: S) {
            let Self { coded, group, values, codes, scales } = self;
            let groups = values.chunks_mut(group).zip(codes.chunks_mut(group)).zip(scales);
            for ((values, codes), stored) in groups {
                coded.prepare(values);
                let scale = coded.scale(values);
                for (x, code) in values.iter().zip(codes) {
                    *code = C::bits(coded.code(*x, scale), *x);
                }
                *stored = C::stored(scale);
            }
        }
    }

    pulp::Arch::new().dispatch(Encode { coded, group: group.max(1), values, codes, scales });
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

impl Multiples for Symmetric {
    #[inline(always)]
    fn scale(&self, group: &[f32]) -> f32 {
        let (low, high) = range(self.bits);
        or_epsilon(amax(group) / ((high - low) / 2.0))
    }

    #[inline(always)]
    fn code(&self, x: f32, scale: f32) -> f32 {
        let (low, high) = range(self.bits);
        nearest(clamp(x / scale, low, high))
    }

    #[inline(always)]
    fn bits(code: f32, _: f32) -> u8 {
        integer(code)
    }
}

/// Two's complement of an integer from −128 to 127.
#[inline(always)]
fn integer(code: f32) -> u8 {
    (code as i32) as u8
}

/// Integers with a zero point: s = (max − min) / (2^b − 1), z = round(clamp(−2^(b−1) − min / s)); both extremes
/// include zero.
pub(super) struct Asymmetric {
    pub(super) bits: u32,
}

impl Coded for Asymmetric {
    /// Scale and zero point.
    type Scale = (f32, f32);

    #[inline(always)]
    fn scale(&self, group: &[f32]) -> (f32, f32) {
        let (low, high) = range(self.bits);
        let (min, max) = extremes(group);
        let (min, max) = (min.min(0.0), max.max(0.0));
        let scale = (max - min) / (high - low);
        let zero = if scale == 0.0 { 0.0 } else { nearest(clamp(low - min / scale, low, high)) };
        (or_epsilon(scale), zero)
    }

    #[inline(always)]
    fn code(&self, x: f32, (scale, zero): (f32, f32)) -> f32 {
        let (low, high) = range(self.bits);
        nearest(clamp(x / scale + zero, low, high))
    }

    #[inline(always)]
    fn value(&self, code: f32, (scale, zero): (f32, f32)) -> f32 {
        (code - zero) * scale
    }

    #[inline(always)]
    fn bits(code: f32, _: f32) -> u8 {
        integer(code)
    }

    #[inline(always)]
    fn stored((scale, zero): (f32, f32)) -> StoredScale {
        StoredScale { scale, zero: zero as i8 }
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

/// E4M3, s = amax / 448.
pub(super) struct E4m3 {
    /// The largest magnitude among all values that share the scale, where they are more than the group.
    pub(super) amax: Option<f32>,
}

impl Multiples for E4m3 {
    #[inline(always)]
    fn scale(&self, group: &[f32]) -> f32 {
        let amax = match self.amax {
            Some(amax) => amax,
            None => amax(group),
        };
        or_epsilon(amax / E4M3_MAX)
    }

    #[inline(always)]
    fn code(&self, x: f32, scale: f32) -> f32 {
        round_e4m3(x / scale)
    }

    #[inline(always)]
    fn bits(code: f32, x: f32) -> u8 {
        e4m3_code(code.copysign(x))
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
        // torch divides a number by a tensor so: by the reciprocal.
        let global = amax.max(f32::MIN_POSITIVE).recip() * (E4M3_MAX * E2M1_MAX);
        Self { global: if global.is_finite() { global } else { 1.0 } }
    }

    /// g.
    pub(super) fn global(&self) -> f32 {
        self.global
    }
}

impl Coded for Nvfp4 {
    /// In E4M3, and over g.
    type Scale = (f32, f32);

    #[inline(always)]
    fn scale(&self, group: &[f32]) -> (f32, f32) {
        let scale = round_e4m3(self.global * (amax(group) / E2M1_MAX));
        // E4M3's epsilon stands for a scale that was flushed to zero.
        let scale = if scale == 0.0 { 0.125 } else { scale };
        (scale, scale / self.global)
    }

    #[inline(always)]
    fn code(&self, x: f32, (_, scale): (f32, f32)) -> f32 {
        round_e2m1(x / scale)
    }

    #[inline(always)]
    fn value(&self, code: f32, (_, scale): (f32, f32)) -> f32 {
        code * scale
    }

    #[inline(always)]
    fn bits(code: f32, x: f32) -> u8 {
        e2m1_code(code.copysign(x))
    }

    #[inline(always)]
    fn stored((scale, _): (f32, f32)) -> StoredScale {
        StoredScale { scale, zero: 0 }
    }
}

/// E2M1 with a power of two for scale.
pub(super) struct Mxfp4;

impl Multiples for Mxfp4 {
    #[inline(always)]
    fn scale(&self, group: &[f32]) -> f32 {
        power_of_two_scale(amax(group), 2)
    }

    #[inline(always)]
    fn code(&self, x: f32, scale: f32) -> f32 {
        round_e2m1(x / scale)
    }

    #[inline(always)]
    fn bits(code: f32, x: f32) -> u8 {
        e2m1_code(code.copysign(x))
    }
}

/// E4M3 with a power of two for scale.
pub(super) struct Mxfp8;

impl Multiples for Mxfp8 {
    #[inline(always)]
    fn scale(&self, group: &[f32]) -> f32 {
        power_of_two_scale(amax(group), 8)
    }

    #[inline(always)]
    fn code(&self, x: f32, scale: f32) -> f32 {
        round_e4m3(x / scale)
    }

    #[inline(always)]
    fn bits(code: f32, x: f32) -> u8 {
        e4m3_code(code.copysign(x))
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

/// int8 by row as bitsandbytes has it: through f16, then q = round(x · (1 / amax · 127)), x̂ = q · (amax / 127).
pub(super) struct LlmInt8;

impl Coded for LlmInt8 {
    /// amax, and steps in a unit.
    type Scale = (f32, f32);

    #[inline(always)]
    fn prepare(&self, group: &mut [f32]) {
        let mut halves = [f16::ZERO; 256];
        for values in group.chunks_mut(halves.len()) {
            let halves = &mut halves[..values.len()];
            halves.convert_from_f32_slice(values);
            halves.convert_to_f32_slice(values);
        }
    }

    #[inline(always)]
    fn scale(&self, group: &[f32]) -> (f32, f32) {
        let amax = amax(group);
        // torch divides a number by a tensor so: by the reciprocal.
        (amax, if amax == 0.0 { 0.0 } else { amax.recip() * 127.0 })
    }

    #[inline(always)]
    fn code(&self, x: f32, (_, steps): (f32, f32)) -> f32 {
        nearest(clamp(x * steps, -127.0, 127.0))
    }

    /// In the order in which a file of it is decoded.
    #[inline(always)]
    fn value(&self, code: f32, (amax, _): (f32, f32)) -> f32 {
        code * (amax * (1.0 / 127.0))
    }

    #[inline(always)]
    fn bits(code: f32, _: f32) -> u8 {
        integer(code)
    }

    #[inline(always)]
    fn stored((amax, _): (f32, f32)) -> StoredScale {
        StoredScale { scale: amax, zero: 0 }
    }
}
