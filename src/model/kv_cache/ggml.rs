//! llama.cpp's cache types: its block formats along a head, optionally after a Hadamard rotation.
//!
//! Values are those of `quantize_row_*_ref` and `dequantize_row_*` in llama.cpp's ggml-quants.c, operation by
//! operation in f32. Its SIMD code for q8_0 multiplies by 127/amax and breaks ties to even instead, so that a
//! code there can differ by one. Scales that f16 cannot hold come back not finite, as in llama.cpp.

use rayon::prelude::*;

use super::{INTEGER_MAGIC, Part, clamp, each_block, round_f16, round_half_even};
use crate::checkpoint::encoding::IQ4_VALUES;

/// Values that share a scale.
const BLOCK: usize = 32;

/// Smallest block of the Hadamard rotation.
const ROTATION: usize = 64;

/// A type of llama.cpp's `--cache-type-k` and `--cache-type-v`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GgmlCache {
    /// IEEE 754 binary16, round to nearest even.
    F16,
    /// bfloat16, round to nearest even.
    Bf16,
    /// Blocks of 32 values along a head.
    Block {
        /// The format of a block.
        format: GgmlBlock,
        /// Whether heads are rotated before they are stored, as llama.cpp does since pull request 21038 for
        /// quantized types and head sizes that 64 divides (`attn_rot_k`, `attn_rot_v` in llama-kv-cache.cpp):
        /// x̂ = H·Q(H·x), H the Walsh-Hadamard matrix of natural order over blocks of n values, times 1/√n,
        /// its own inverse. n is 64 for values, and for keys the largest power of two that divides the head
        /// size.
        hadamard: bool,
    },
}

/// A format of 32 values with their scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GgmlBlock {
    /// d = amax/127, q = round(x/d), ties away from zero (`quantize_row_q8_0_ref`).
    Q8_0,
    /// d = (the value of largest magnitude)/−16, q = ⌊x/d + 16.5⌋ up to 31, x̂ = (q − 16)·d
    /// (`quantize_row_q5_0_ref`).
    Q5_0,
    /// d = (max − min)/31, q = ⌊(x − min)/d + 0.5⌋, x̂ = q·d + min (`quantize_row_q5_1_ref`).
    Q5_1,
    /// As [`GgmlBlock::Q5_0`] with −8, 8.5 and 15 (`quantize_row_q4_0_ref`).
    Q4_0,
    /// As [`GgmlBlock::Q5_1`] with 15 (`quantize_row_q4_1_ref`).
    Q4_1,
    /// 16 uneven levels v: codes from d₀ = (the value of largest magnitude)/−127, then the d that minimizes
    /// Σ x²·(x − d·v)² for these codes is stored (`quantize_row_iq4_nl_ref`).
    Iq4Nl,
}

impl GgmlCache {
    /// Why heads of this size cannot be stored.
    pub(super) fn problem(self, head_dim: usize) -> Option<String> {
        let wrong = |divisor: usize, why: &str| {
            (!head_dim.is_multiple_of(divisor))
                .then(|| format!("{why}, but head_dim is {head_dim} (a multiple of {divisor} is expected)"))
        };
        match self {
            GgmlCache::F16 | GgmlCache::Bf16 => None,
            GgmlCache::Block { hadamard: false, .. } => wrong(BLOCK, "stores blocks of 32 values of a head"),
            GgmlCache::Block { hadamard: true, .. } => wrong(
                ROTATION,
                "rotates blocks of 64 values of a head (llama.cpp does not rotate other heads)",
            ),
        }
    }

    /// Bits per value, scales included: the block structs of ggml-common.h.
    pub(super) fn bits(self) -> f64 {
        match self {
            GgmlCache::F16 | GgmlCache::Bf16 => 16.0,
            GgmlCache::Block { format, .. } => match format {
                GgmlBlock::Q8_0 => 8.5,
                GgmlBlock::Q5_0 => 5.5,
                GgmlBlock::Q5_1 => 6.0,
                GgmlBlock::Q4_0 | GgmlBlock::Iq4Nl => 4.5,
                GgmlBlock::Q4_1 => 5.0,
            },
        }
    }

    /// Replaces heads by what the cache returns.
    pub(super) fn store(self, part: Part, values: &mut [f32], head_dim: usize) {
        match self {
            GgmlCache::F16 => each_block(values, |x: &mut [f32; 1]| x[0] = round_f16(x[0])),
            GgmlCache::Bf16 => each_block(values, |x: &mut [f32; 1]| x[0] = round_bf16(x[0])),
            GgmlCache::Block { format, hadamard: false } => format.store(values),
            GgmlCache::Block { format, hadamard: true } => {
                let n = rotation_size(part, head_dim);
                rotate(values, n);
                format.store(values);
                rotate(values, n);
            }
        }
    }
}

impl GgmlBlock {
    fn store(self, values: &mut [f32]) {
        match self {
            GgmlBlock::Q8_0 => each_block(values, q8_0),
            GgmlBlock::Q5_0 => each_block(values, about_zero::<32>),
            GgmlBlock::Q5_1 => each_block(values, from_minimum::<32>),
            GgmlBlock::Q4_0 => each_block(values, about_zero::<16>),
            GgmlBlock::Q4_1 => each_block(values, from_minimum::<16>),
            GgmlBlock::Iq4Nl => each_block(values, iq4_nl),
        }
    }

    /// Replaces one block by what the format holds of it; for weights of these types, too.
    #[inline(always)]
    pub fn round(self, block: &mut [f32; 32]) {
        match self {
            GgmlBlock::Q8_0 => q8_0(block),
            GgmlBlock::Q5_0 => about_zero::<32>(block),
            GgmlBlock::Q5_1 => from_minimum::<32>(block),
            GgmlBlock::Q4_0 => about_zero::<16>(block),
            GgmlBlock::Q4_1 => from_minimum::<16>(block),
            GgmlBlock::Iq4Nl => iq4_nl(block),
        }
    }

    /// What the format holds of one block, before it is put into bits.
    #[inline(always)]
    pub fn settle(self, block: &[f32; 32]) -> SettledBlock {
        match self {
            GgmlBlock::Q8_0 => settle_q8_0(block),
            GgmlBlock::Q5_0 => settle_about_zero::<32>(block),
            GgmlBlock::Q5_1 => settle_from_minimum::<32>(block),
            GgmlBlock::Q4_0 => settle_about_zero::<16>(block),
            GgmlBlock::Q4_1 => settle_from_minimum::<16>(block),
            GgmlBlock::Iq4Nl => settle_iq4_nl(block),
        }
    }
}

/// One block's scale, minimum and codes.
#[derive(Clone, Copy, Debug)]
pub struct SettledBlock {
    /// As they are stored: whole numbers, of Q8_0 about zero, else from 0; of IQ4_NL the levels themselves.
    pub codes: [f32; BLOCK],
    /// An f16.
    pub scale: f32,
    /// An f16; 0 where the format has none.
    pub minimum: f32,
}

/// Values that are rotated together (`build_input_k_rot`, `build_input_v_rot` in llama-kv-cache.cpp).
pub(super) fn rotation_size(part: Part, head_dim: usize) -> usize {
    match part {
        Part::Values => ROTATION,
        Part::Keys => 1 << head_dim.trailing_zeros(),
    }
}

/// Multiplies every block of `n` values, a power of two, by the normalized Walsh-Hadamard matrix of natural
/// order.
pub(super) fn rotate(values: &mut [f32], n: usize) {
    struct Rotate<'a> {
        values: &'a mut [f32],
        n: usize,
    }

    impl pulp::WithSimd for Rotate<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, _: S) {
            let scale = 1.0 / (self.n as f32).sqrt();
            for block in self.values.chunks_exact_mut(self.n) {
                let mut half = 1;
                while half < self.n {
                    for pair in block.chunks_exact_mut(2 * half) {
                        let (low, high) = pair.split_at_mut(half);
                        for (a, b) in low.iter_mut().zip(high) {
                            (*a, *b) = (*a + *b, *a - *b);
                        }
                    }
                    half *= 2;
                }
                for x in block {
                    *x *= scale;
                }
            }
        }
    }

    values.par_chunks_mut(256 * n).for_each(|values| pulp::Arch::new().dispatch(Rotate { values, n }));
}

#[inline(always)]
fn round_bf16(x: f32) -> f32 {
    let bits = x.to_bits();
    let to_even = 0x7FFF + ((bits >> 16) & 1);
    let rounded = f32::from_bits(bits.wrapping_add(to_even) & 0xFFFF_0000);
    if x.is_nan() { x } else { rounded }
}

/// 1/d, or 0 where there is no such number: f16 holds that d as 0, and codes are without effect.
#[inline(always)]
fn reciprocal(d: f32) -> f32 {
    let inverse = 1.0 / d;
    if inverse.is_finite() { inverse } else { 0.0 }
}

#[inline(always)]
fn settle_q8_0(block: &[f32; BLOCK]) -> SettledBlock {
    let (min, max) = bounds(block);
    let d = (if max > -min { max } else { -min }) / 127.0;
    let inverse = reciprocal(d);
    let mut codes = *block;
    for x in &mut codes {
        *x = round_half_away(clamp(*x * inverse, -127.0, 127.0));
    }
    SettledBlock { codes, scale: round_f16(d), minimum: 0.0 }
}

#[inline(always)]
fn q8_0(block: &mut [f32; BLOCK]) {
    let SettledBlock { codes, scale, .. } = settle_q8_0(block);
    for (x, code) in block.iter_mut().zip(codes) {
        *x = code * scale;
    }
}

/// Codes 0 to `LEVELS` − 1 with the zero in their middle.
#[inline(always)]
fn settle_about_zero<const LEVELS: u8>(block: &[f32; BLOCK]) -> SettledBlock {
    let zero = f32::from(LEVELS / 2);
    let d = largest(block) / -zero;
    let inverse = reciprocal(d);
    let mut codes = *block;
    for x in &mut codes {
        *x = floor(clamp(*x * inverse + (zero + 0.5), 0.0, f32::from(LEVELS) - 0.5));
    }
    SettledBlock { codes, scale: round_f16(d), minimum: 0.0 }
}

#[inline(always)]
fn about_zero<const LEVELS: u8>(block: &mut [f32; BLOCK]) {
    let SettledBlock { codes, scale, .. } = settle_about_zero::<LEVELS>(block);
    for (x, code) in block.iter_mut().zip(codes) {
        *x = (code - f32::from(LEVELS / 2)) * scale;
    }
}

/// Codes 0 to `LEVELS` − 1 with the minimum at 0.
#[inline(always)]
fn settle_from_minimum<const LEVELS: u8>(block: &[f32; BLOCK]) -> SettledBlock {
    let (min, max) = bounds(block);
    let d = (max - min) / f32::from(LEVELS - 1);
    let inverse = reciprocal(d);
    let mut codes = *block;
    for x in &mut codes {
        *x = floor(clamp((*x - min) * inverse + 0.5, 0.0, f32::from(LEVELS) - 0.5));
    }
    SettledBlock { codes, scale: round_f16(d), minimum: round_f16(min) }
}

#[inline(always)]
fn from_minimum<const LEVELS: u8>(block: &mut [f32; BLOCK]) {
    let SettledBlock { codes, scale, minimum } = settle_from_minimum::<LEVELS>(block);
    for (x, code) in block.iter_mut().zip(codes) {
        *x = code * scale + minimum;
    }
}

#[inline(always)]
fn settle_iq4_nl(block: &[f32; BLOCK]) -> SettledBlock {
    let extreme = largest(block);
    if extreme.abs() < 1e-15 {
        // A product, so that NaN, which has no magnitude here, stays NaN.
        return SettledBlock { codes: block.map(|x| x * 0.0), scale: 0.0, minimum: 0.0 };
    }
    let inverse = 1.0 / (extreme / IQ4_VALUES[0]);
    let mut levels = [0.0; BLOCK];
    for (level, x) in levels.iter_mut().zip(block) {
        *level = nearest_level(*x * inverse);
    }
    // Summed in llama.cpp's order: another one could round d to another f16.
    let (mut products, mut squares) = (0.0, 0.0);
    for (level, x) in levels.iter().zip(block) {
        let weighted = x * x * level;
        products += weighted * x;
        squares += weighted * level;
    }
    SettledBlock { codes: levels, scale: round_f16(products / squares), minimum: 0.0 }
}

#[inline(always)]
fn iq4_nl(block: &mut [f32; BLOCK]) {
    let SettledBlock { codes, scale, .. } = settle_iq4_nl(block);
    for (x, level) in block.iter_mut().zip(codes) {
        *x = scale * level;
    }
}

/// The nearest of the 16 levels, the higher one in the middle between two.
#[inline(always)]
fn nearest_level(x: f32) -> f32 {
    let mut level = IQ4_VALUES[0];
    for pair in IQ4_VALUES.windows(2) {
        level = if x + x >= pair[0] + pair[1] { pair[1] } else { level };
    }
    level
}

/// The integer below, for x from 0 to 2²².
#[inline(always)]
fn floor(x: f32) -> f32 {
    let nearest = round_half_even(x);
    nearest - f32::from(u8::from(nearest > x))
}

/// The nearest integer, ties away from zero; |x| at most 2²².
#[inline(always)]
fn round_half_away(x: f32) -> f32 {
    let magnitude = x.abs();
    let even = (magnitude + INTEGER_MAGIC) - INTEGER_MAGIC;
    let away = even + f32::from(u8::from(magnitude - even == 0.5));
    away.copysign(x)
}

/// Smallest and largest value; NaN is passed over.
#[inline(always)]
fn bounds(block: &[f32; BLOCK]) -> (f32, f32) {
    let (mut min, mut max) = ([f32::MAX; 8], [f32::MIN; 8]);
    for lanes in block.as_chunks::<8>().0 {
        for lane in 0..8 {
            min[lane] = if lanes[lane] < min[lane] { lanes[lane] } else { min[lane] };
            max[lane] = if lanes[lane] > max[lane] { lanes[lane] } else { max[lane] };
        }
    }
    let least = min.iter().fold(f32::MAX, |a, &b| if b < a { b } else { a });
    let most = max.iter().fold(f32::MIN, |a, &b| if b > a { b } else { a });
    (least, most)
}

/// The first value of the largest magnitude, with its sign.
#[inline(always)]
fn largest(block: &[f32; BLOCK]) -> f32 {
    let (min, max) = bounds(block);
    if max > -min {
        max
    } else if max < -min {
        min
    } else {
        block.iter().copied().find(|x| x.abs() == max).unwrap_or(0.0)
    }
}
