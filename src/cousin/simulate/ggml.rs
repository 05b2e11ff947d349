//! GGUF types, with the scales that llama.cpp's quantizer finds without an importance matrix.
//!
//! The old types have a closed form. The others split 256 weights into parts that share an f16 or two and search each
//! part's scale (and minimum) for the least weighted error. All parts of 256 weights are searched side by side, one in each
//! lane of a vector, weight after weight as llama.cpp goes through one part: so sums round alike and codes come out
//! equal (ggml-quants.c: `quantize_row_*_ref`). What is settled for a block, scales and codes, becomes either the values
//! that it stands for or the bytes of a file.

mod bytes;
mod search;
#[cfg(test)]
mod tests;

use half::{bf16, f16, slice::HalfFloatSliceExt};

use self::search::{COARSE, FINE, FINER, Search, improved_scales, largest_of_parts, searched_scales};
use super::rounding::{Rounding, clamp, each_group, nearest};
use crate::{
    checkpoint::encoding::{Encoding, IQ4_VALUES as IQ4},
    model::kv_cache::GgmlBlock,
};

/// The quantizer of an encoding, if there is one here.
macro_rules! with_quantizer {
    ($encoding:expr, $quantizer:ident => $use:expr) => {
        match $encoding {
            Encoding::Q4_0 => with_quantizer!(@ GgmlBlock::Q4_0, $quantizer => $use),
            Encoding::Q5_0 => with_quantizer!(@ GgmlBlock::Q5_0, $quantizer => $use),
            Encoding::Q4_1 => with_quantizer!(@ GgmlBlock::Q4_1, $quantizer => $use),
            Encoding::Q5_1 => with_quantizer!(@ GgmlBlock::Q5_1, $quantizer => $use),
            Encoding::Q8_0 => with_quantizer!(@ GgmlBlock::Q8_0, $quantizer => $use),
            Encoding::Q2K => with_quantizer!(@ Q2K, $quantizer => $use),
            Encoding::Q3K => with_quantizer!(@ Q3K, $quantizer => $use),
            Encoding::Q4K => with_quantizer!(@ Q4K { search: FINE }, $quantizer => $use),
            Encoding::Q5K => with_quantizer!(@ Q4K { search: FINER }, $quantizer => $use),
            Encoding::Q6K => with_quantizer!(@ Q6K, $quantizer => $use),
            Encoding::Iq4Nl => with_quantizer!(@ Iq4Nl, $quantizer => $use),
            Encoding::Iq4Xs => with_quantizer!(@ Iq4Xs, $quantizer => $use),
            _ => return false,
        }
    };
    (@ $value:expr, $quantizer:ident => $use:expr) => {{
        let $quantizer = $value;
        $use
    }};
}

/// Rounds whole blocks to what `encoding` can hold; `false` if it has no quantizer here.
pub(super) fn round(encoding: Encoding, values: &mut [f32]) -> bool {
    with_quantizer!(encoding, quantizer => each_group(quantizer, group(encoding), values));
    true
}

/// Writes whole blocks as llama.cpp's quantizer does: the bytes whose values `round` leaves.
///
/// `values` is a whole number of blocks and `out` their bytes; `false`, and nothing written, if either is not, or if
/// `encoding` has no quantizer here. F32, F16 and BF16 are rounded to nearest, ties to even. Scales that f16 cannot
/// hold are written as infinite: the caller looks at what the bytes decode to.
pub fn encode(encoding: Encoding, values: &[f32], out: &mut [u8]) -> bool {
    if encoding.encoded_bytes(values.len()) != Some(out.len()) {
        return false;
    }
    match encoding {
        Encoding::F32 => each_word(values, out, |values, words: &mut [[u8; 4]]| {
            words.iter_mut().zip(values).for_each(|(word, x)| *word = x.to_le_bytes());
        }),
        Encoding::F16 => each_word(values, out, |values, words: &mut [[u8; 2]]| {
            let mut halves = [f16::ZERO; WORDS];
            let halves = &mut halves[..values.len()];
            halves.convert_from_f32_slice(values);
            words.iter_mut().zip(halves).for_each(|(word, half)| *word = half.to_le_bytes());
        }),
        Encoding::Bf16 => each_word(values, out, |values, words: &mut [[u8; 2]]| {
            words.iter_mut().zip(values).for_each(|(word, x)| *word = bf16::from_f32(*x).to_le_bytes());
        }),
        _ => {
            with_quantizer!(encoding, quantizer => bytes::each_block(quantizer, encoding, group(encoding), values, out))
        }
    }
    true
}

/// Numbers converted at once.
const WORDS: usize = 256;

fn each_word<const BYTES: usize>(values: &[f32], out: &mut [u8], write: impl Fn(&[f32], &mut [[u8; BYTES]])) {
    let words = out.as_chunks_mut().0;
    values.chunks(WORDS).zip(words.chunks_mut(WORDS)).for_each(|(values, words)| write(values, words));
}

/// Weights that a quantizer looks at together: a block, or eight of IQ4_NL, side by side.
fn group(encoding: Encoding) -> usize {
    match encoding {
        Encoding::Iq4Nl => BLOCK,
        _ => encoding.block_weights(),
    }
}

/// Weights of a block of the K types.
const BLOCK: usize = 256;

/// Magnitudes below it count as zero (ggml's `GROUP_MAX_EPS`).
const NOTHING: f32 = 1e-15;

/// As the block stores it.
#[inline(always)]
fn stored(scale: f32) -> f32 {
    f16::from_f32(scale).to_f32()
}

#[inline(always)]
fn inverse_or_zero(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// The old types, which a KV cache has too.
impl Rounding for GgmlBlock {
    #[inline(always)]
    fn round(&self, group: &mut [f32]) {
        group.as_chunks_mut().0.iter_mut().for_each(|block| GgmlBlock::round(*self, block));
    }
}

/// Weight `i` of each of `PARTS` parts at `[i]`.
type Parts<const WEIGHTS: usize, const PARTS: usize> = [[f32; PARTS]; WEIGHTS];

#[inline(always)]
fn parts_of<const WEIGHTS: usize, const PARTS: usize>(block: &[f32]) -> Parts<WEIGHTS, PARTS> {
    let mut parts = [[0.0; PARTS]; WEIGHTS];
    for (part, weights) in block.chunks_exact(WEIGHTS).enumerate() {
        for (i, x) in weights.iter().enumerate() {
            parts[i][part] = *x;
        }
    }
    parts
}

/// What a block holds: part p, weight i stands for `scales[p]`·`unit`·`codes[i][p]` − `mins[p]`·`min_unit`.
struct Settled<const WEIGHTS: usize, const PARTS: usize> {
    /// Whole numbers; of the IQ4 types the level itself.
    codes: Parts<WEIGHTS, PARTS>,
    /// Whole multiples of `unit`; of IQ4_NL an f16 each, and `unit` is 1.
    scales: [f32; PARTS],
    /// Whole multiples of `min_unit`; zero where there are no minima.
    mins: [f32; PARTS],
    /// An f16.
    unit: f32,
    /// An f16.
    min_unit: f32,
}

impl<const WEIGHTS: usize, const PARTS: usize> Settled<WEIGHTS, PARTS> {
    /// Operation by operation as the blocks are decoded.
    #[inline(always)]
    fn write_values(&self, has_min: bool, block: &mut [f32]) {
        let (mut scale, mut min) = ([0.0; PARTS], [0.0; PARTS]);
        for p in 0..PARTS {
            scale[p] = self.unit * self.scales[p];
            min[p] = self.min_unit * self.mins[p];
        }
        let mut values = self.codes;
        for x in &mut values {
            for p in 0..PARTS {
                x[p] = if has_min { scale[p] * x[p] - min[p] } else { scale[p] * x[p] };
            }
        }
        for (part, weights) in block.chunks_exact_mut(WEIGHTS).enumerate() {
            for (i, x) in weights.iter_mut().enumerate() {
                *x = values[i][part];
            }
        }
    }
}

/// Codes from 0 to `largest_code` at settled scales and minima; a part without a scale keeps those of its search.
#[inline(always)]
fn from_minimum<const WEIGHTS: usize, const PARTS: usize>(
    search: &Search,
    x: &Parts<WEIGHTS, PARTS>,
    importance: &Parts<WEIGHTS, PARTS>,
    largest_multiple: f32,
) -> Settled<WEIGHTS, PARTS> {
    let found = search.run(x, importance);
    let (scales, unit) = share_scale(&found.scale, largest_multiple);
    let (mins, min_unit) = share_scale(&found.min, largest_multiple);
    let mut codes = *x;
    for x in &mut codes {
        for p in 0..PARTS {
            let (scale, min) = (unit * scales[p], min_unit * mins[p]);
            let kept = found.code(p, x[p], search.largest_code);
            let code = nearest(clamp((x[p] + min) / scale, 0.0, search.largest_code));
            x[p] = if scale == 0.0 { kept } else { code };
        }
    }
    Settled { codes, scales, mins, unit, min_unit }
}

/// Codes from −`half` to `half` − 1 at settled scales; a part without a scale keeps those of its search.
#[inline(always)]
fn about_zero<const WEIGHTS: usize, const PARTS: usize>(
    x: &Parts<WEIGHTS, PARTS>,
    (scales, unit): ([f32; PARTS], f32),
    half: f32,
    kept: impl Fn(usize, usize) -> f32,
) -> Settled<WEIGHTS, PARTS> {
    let largest = largest_of_parts(x);
    let mut codes = *x;
    for (i, x) in codes.iter_mut().enumerate() {
        for p in 0..PARTS {
            let scale = unit * scales[p];
            let code = nearest(clamp(x[p] / scale, -half, half - 1.0));
            let kept = if largest[p].abs() < NOTHING { -half } else { kept(i, p) };
            x[p] = if scale == 0.0 { kept } else { code };
        }
    }
    Settled { codes, scales, mins: [0.0; PARTS], unit, min_unit: 0.0 }
}

/// The parts' scales as multiples of one f16, from 0 to `largest`; what cannot be told from zero becomes zero.
#[inline(always)]
fn share_scale<const PARTS: usize>(scales: &[f32; PARTS], largest: f32) -> ([f32; PARTS], f32) {
    let mut max = 0.0;
    for scale in scales {
        max = if *scale > max { *scale } else { max };
    }
    let inverse = if max > 0.0 { largest / max } else { 0.0 };
    (scales.map(|scale| clamp(nearest(inverse * scale), 0.0, largest)), stored(max / largest))
}

/// The parts' signed scales as multiples of one f16: the one of largest magnitude becomes −`half`.
#[inline(always)]
fn share_signed_scale<const PARTS: usize>(
    scales: &[f32; PARTS],
    half: f32,
    without_scale: f32,
) -> ([f32; PARTS], f32) {
    let mut max = 0.0f32;
    for scale in scales {
        max = if scale.abs() > max.abs() { *scale } else { max };
    }
    if max.abs() < NOTHING {
        return ([without_scale; PARTS], 0.0);
    }
    let inverse = -half / max;
    (scales.map(|scale| clamp(nearest(inverse * scale), -half, half - 1.0)), stored(1.0 / inverse))
}

/// A type whose parts are settled together.
trait Quantizer<const WEIGHTS: usize, const PARTS: usize> {
    const HAS_MIN: bool;

    fn settle(&self, block: &[f32]) -> Settled<WEIGHTS, PARTS>;

    /// The block's bytes.
    fn write(settled: &Settled<WEIGHTS, PARTS>, encoding: Encoding, out: &mut [u8]);
}

macro_rules! rounding_settles {
    ($($quantizer:ty),*) => {$(
        impl Rounding for $quantizer {
            #[inline(always)]
            fn round(&self, block: &mut [f32]) {
                let settled = self.settle(block);
                settled.write_values(Self::HAS_MIN, block);
            }
        }
    )*};
}

rounding_settles!(Q2K, Q3K, Q4K, Q6K, Iq4Nl, Iq4Xs);

/// Sixteen parts of sixteen; scales and minima of 4 bits.
struct Q2K;

impl Quantizer<16, 16> for Q2K {
    const HAS_MIN: bool = true;

    #[inline(always)]
    fn settle(&self, block: &[f32]) -> Settled<16, 16> {
        let x: Parts<16, 16> = parts_of(block);
        let mut importance = x;
        importance.iter_mut().flatten().for_each(|x| *x = x.abs());
        from_minimum(&COARSE, &x, &importance, 15.0)
    }

    #[inline(always)]
    fn write(settled: &Settled<16, 16>, _: Encoding, out: &mut [u8]) {
        bytes::q2_k(settled, out);
    }
}

/// Q4_K and Q5_K: eight parts of 32; scales and minima of 6 bits.
struct Q4K {
    search: Search,
}

impl Quantizer<32, 8> for Q4K {
    const HAS_MIN: bool = true;

    #[inline(always)]
    fn settle(&self, block: &[f32]) -> Settled<32, 8> {
        let x: Parts<32, 8> = parts_of(block);
        let mut squares = [0.0f32; 8];
        for x in &x {
            for p in 0..8 {
                squares[p] += x[p] * x[p];
            }
        }
        // An error counts by the part's root mean square plus the weight's own magnitude.
        let typical = squares.map(|squares| (squares / 32.0).sqrt());
        let mut importance = x;
        for importance in &mut importance {
            for p in 0..8 {
                importance[p] = typical[p] + importance[p].abs();
            }
        }
        from_minimum(&self.search, &x, &importance, 63.0)
    }

    #[inline(always)]
    fn write(settled: &Settled<32, 8>, encoding: Encoding, out: &mut [u8]) {
        match encoding {
            Encoding::Q5K => bytes::q5_k(settled, out),
            _ => bytes::q4_k(settled, out),
        }
    }
}

/// Sixteen parts of sixteen; scales of 6 bits.
struct Q3K;

impl Quantizer<16, 16> for Q3K {
    const HAS_MIN: bool = false;

    #[inline(always)]
    fn settle(&self, block: &[f32]) -> Settled<16, 16> {
        let x: Parts<16, 16> = parts_of(block);
        let (scale, codes) = improved_scales(&x, 4.0);
        // A block of zeros has zero bytes for scales, which stand for −32.
        about_zero(&x, share_signed_scale(&scale, 32.0, -32.0), 4.0, |i, p| codes[i][p])
    }

    #[inline(always)]
    fn write(settled: &Settled<16, 16>, _: Encoding, out: &mut [u8]) {
        bytes::q3_k(settled, out);
    }
}

/// Sixteen parts of sixteen; scales of 8 bits.
struct Q6K;

impl Quantizer<16, 16> for Q6K {
    const HAS_MIN: bool = false;

    #[inline(always)]
    fn settle(&self, block: &[f32]) -> Settled<16, 16> {
        let x: Parts<16, 16> = parts_of(block);
        let (scale, inverse) = searched_scales(&x, 32.0);
        let shared = share_signed_scale(&scale, 128.0, 0.0);
        let kept = |i: usize, p: usize| clamp(nearest(inverse[p] * x[i][p]), -32.0, 31.0);
        about_zero(&x, shared, 32.0, kept)
    }

    #[inline(always)]
    fn write(settled: &Settled<16, 16>, _: Encoding, out: &mut [u8]) {
        bytes::q6_k(settled, out);
    }
}

/// Eight blocks of 32, each value the nearest of [`IQ4`] times the block's scale.
struct Iq4Nl;

impl Quantizer<32, 8> for Iq4Nl {
    const HAS_MIN: bool = false;

    #[inline(always)]
    fn settle(&self, block: &[f32]) -> Settled<32, 8> {
        let x: Parts<32, 8> = parts_of(block);
        let scale = iq4_scales(&x);
        // Codes are chosen at the scale before its f16 is rounded.
        iq4_codes(&x, &scale, scale.map(stored), 1.0)
    }

    #[inline(always)]
    fn write(settled: &Settled<32, 8>, _: Encoding, out: &mut [u8]) {
        bytes::iq4_nl(settled, out);
    }
}

/// Eight parts of 32 as in [`Iq4Nl`], their scales 6-bit multiples of one f16.
struct Iq4Xs;

impl Quantizer<32, 8> for Iq4Xs {
    const HAS_MIN: bool = false;

    #[inline(always)]
    fn settle(&self, block: &[f32]) -> Settled<32, 8> {
        let x: Parts<32, 8> = parts_of(block);
        let scale = iq4_scales(&x);
        let max = scale.iter().fold(0.0f32, |max, scale| if scale.abs() > max.abs() { *scale } else { max });
        let unit = -max / 32.0;
        let inverse = inverse_or_zero(unit);
        let multiples = scale.map(|scale| clamp(nearest(inverse * scale), -32.0, 31.0));
        iq4_codes(&x, &multiples.map(|multiple| unit * multiple), multiples, stored(unit))
    }

    #[inline(always)]
    fn write(settled: &Settled<32, 8>, _: Encoding, out: &mut [u8]) {
        bytes::iq4_xs(settled, out);
    }
}

/// The nearest of [`IQ4`]; half way, the upper one.
#[inline(always)]
fn nearest_iq4(x: f32) -> f32 {
    let mut nearest = IQ4[0];
    for pair in IQ4.windows(2) {
        nearest = if x < (pair[0] + pair[1]) / 2.0 { nearest } else { pair[1] };
    }
    nearest
}

/// The scale of each part whose regression explains most of Σx⁴.
#[inline(always)]
fn iq4_scales(x: &Parts<32, 8>) -> [f32; 8] {
    let largest = largest_of_parts(x);
    let (mut scale, mut best) = ([0.0; 8], [0.0; 8]);
    // The largest value becomes −127 at first, then −134 to −120.
    for (step, first) in std::iter::once((0.0, true)).chain((-7..=7i8).map(|step| (f32::from(step), false))) {
        let mut inverse = [0.0; 8];
        for p in 0..8 {
            inverse[p] = match first {
                true => 1.0 / (-largest[p] / IQ4[0]),
                false => (step + IQ4[0]) / largest[p],
            };
        }
        let (mut sum_xq, mut sum_q2) = ([0.0; 8], [0.0; 8]);
        for x in x {
            for p in 0..8 {
                let q = nearest_iq4(inverse[p] * x[p]);
                let w = x[p] * x[p];
                sum_xq[p] += w * q * x[p];
                sum_q2[p] += w * q * q;
            }
        }
        for p in 0..8 {
            let closer = first | (sum_xq[p] * sum_xq[p] > best[p] * sum_q2[p]);
            let better = closer & (sum_q2[p] > 0.0);
            scale[p] = if better { sum_xq[p] / sum_q2[p] } else { scale[p] };
            best[p] = if better { scale[p] * sum_xq[p] } else { best[p] };
        }
    }
    for p in 0..8 {
        scale[p] = if largest[p].abs() < NOTHING { 0.0 } else { scale[p] };
    }
    scale
}

/// Levels at the scales `exact`, stored as `scales`·`unit`.
#[inline(always)]
fn iq4_codes(x: &Parts<32, 8>, exact: &[f32; 8], scales: [f32; 8], unit: f32) -> Settled<32, 8> {
    let inverse = exact.map(inverse_or_zero);
    let mut codes = *x;
    for x in &mut codes {
        for p in 0..8 {
            x[p] = nearest_iq4(inverse[p] * x[p]);
        }
    }
    Settled { codes, scales, mins: [0.0; 8], unit, min_unit: 0.0 }
}
