//! GGUF types, with the scales that llama.cpp's quantizer finds without an importance matrix.
//!
//! The old types have a closed form. The others split 256 weights into parts that share an f16 or two and search each
//! part's scale (and minimum) for the least weighted error. All parts of 256 weights are searched side by side, one in each
//! lane of a vector, weight after weight as llama.cpp goes through one part: so sums round alike and codes come out
//! equal but for ties (ggml-quants.c: `quantize_row_*_ref`, `make_qkx2_quants`, `make_qx_quants`, `make_q3_quants`).

use half::f16;

use super::rounding::{Rounding, clamp, each_group, nearest};
use crate::{
    checkpoint::encoding::{Encoding, IQ4_VALUES as IQ4},
    model::kv_cache::GgmlBlock,
};

/// Rounds whole blocks to what `encoding` can hold; `false` if it has no quantizer here.
pub(super) fn round(encoding: Encoding, values: &mut [f32]) -> bool {
    match encoding {
        Encoding::Q4_0 => each_group(GgmlBlock::Q4_0, 32, values),
        Encoding::Q5_0 => each_group(GgmlBlock::Q5_0, 32, values),
        Encoding::Q4_1 => each_group(GgmlBlock::Q4_1, 32, values),
        Encoding::Q5_1 => each_group(GgmlBlock::Q5_1, 32, values),
        Encoding::Q8_0 => each_group(GgmlBlock::Q8_0, 32, values),
        Encoding::Q2K => each_group(Q2K, BLOCK, values),
        Encoding::Q3K => each_group(Q3K, BLOCK, values),
        Encoding::Q4K => each_group(Q4K { search: FINE }, BLOCK, values),
        Encoding::Q5K => each_group(Q4K { search: FINER }, BLOCK, values),
        Encoding::Q6K => each_group(Q6K, BLOCK, values),
        Encoding::Iq4Nl => each_group(Iq4 { shared: false }, BLOCK, values),
        Encoding::Iq4Xs => each_group(Iq4 { shared: true }, BLOCK, values),
        _ => return false,
    }
    true
}

/// Weights of a block of the K types.
const BLOCK: usize = 256;

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

#[inline(always)]
fn write_back<const WEIGHTS: usize, const PARTS: usize>(parts: &Parts<WEIGHTS, PARTS>, block: &mut [f32]) {
    for (part, weights) in block.chunks_exact_mut(WEIGHTS).enumerate() {
        for (i, x) in weights.iter_mut().enumerate() {
            *x = parts[i][part];
        }
    }
}

/// Which scales are tried for a part with a minimum: (largest code + first + 0.1·i) / (max − min), i from 0 to `steps`.
struct Search {
    largest_code: f32,
    first: f32,
    steps: usize,
    /// Absolute errors instead of squares.
    absolute: bool,
}

const COARSE: Search = Search { largest_code: 3.0, first: -0.5, steps: 15, absolute: true };
const FINE: Search = Search { largest_code: 15.0, first: -1.0, steps: 20, absolute: false };
const FINER: Search = Search { largest_code: 31.0, first: -0.5, steps: 15, absolute: false };

impl Search {
    /// Scale and minimum (negated) of each part.
    ///
    /// Each scale tried gives codes, the codes a regression line, the line an error; the least error wins. A line found
    /// moves the minimum from which the next codes are counted.
    #[inline(always)]
    fn run<const WEIGHTS: usize, const PARTS: usize>(
        &self,
        x: &Parts<WEIGHTS, PARTS>,
        importance: &Parts<WEIGHTS, PARTS>,
    ) -> ([f32; PARTS], [f32; PARTS]) {
        let (mut min, mut max) = (x[0], x[0]);
        let (mut sum_w, mut sum_x) = ([0.0; PARTS], [0.0; PARTS]);
        for (x, w) in x.iter().zip(importance) {
            for p in 0..PARTS {
                min[p] = if x[p] < min[p] { x[p] } else { min[p] };
                max[p] = if x[p] > max[p] { x[p] } else { max[p] };
                sum_w[p] += w[p];
                sum_x[p] += w[p] * x[p];
            }
        }
        let (mut scale, mut best) = ([0.0; PARTS], [0.0; PARTS]);
        let mut inverse = [0.0; PARTS];
        for p in 0..PARTS {
            min[p] = if min[p] > 0.0 { 0.0 } else { min[p] };
            inverse[p] = self.largest_code / (max[p] - min[p]);
            scale[p] = 1.0 / inverse[p];
        }
        let lowest = min;
        let mut codes = [[0.0; PARTS]; WEIGHTS];
        self.encode(x, &inverse, &min, &mut codes);
        self.add_error(x, importance, &codes, &scale, &min, &mut best);
        for step in 0..=self.steps {
            for p in 0..PARTS {
                inverse[p] = (self.first + 0.1 * step as f32 + self.largest_code) / (max[p] - min[p]);
            }
            self.encode(x, &inverse, &min, &mut codes);
            let (mut sum_l, mut sum_l2, mut sum_xl) = ([0.0; PARTS], [0.0; PARTS], [0.0; PARTS]);
            for ((x, w), l) in x.iter().zip(importance).zip(&codes) {
                for p in 0..PARTS {
                    sum_l[p] += w[p] * l[p];
                    sum_l2[p] += w[p] * l[p] * l[p];
                    sum_xl[p] += w[p] * l[p] * x[p];
                }
            }
            let (mut new_scale, mut new_min) = ([0.0; PARTS], [0.0; PARTS]);
            let mut determinant = [0.0; PARTS];
            for p in 0..PARTS {
                determinant[p] = sum_w[p] * sum_l2[p] - sum_l[p] * sum_l[p];
                new_scale[p] = (sum_w[p] * sum_xl[p] - sum_x[p] * sum_l[p]) / determinant[p];
                new_min[p] = (sum_l2[p] * sum_x[p] - sum_l[p] * sum_xl[p]) / determinant[p];
                let positive = new_min[p] > 0.0;
                new_scale[p] = if positive { sum_xl[p] / sum_l2[p] } else { new_scale[p] };
                new_min[p] = if positive { 0.0 } else { new_min[p] };
            }
            let mut error = [0.0; PARTS];
            self.add_error(x, importance, &codes, &new_scale, &new_min, &mut error);
            for p in 0..PARTS {
                let better = (determinant[p] > 0.0) & (error[p] < best[p]);
                best[p] = if better { error[p] } else { best[p] };
                scale[p] = if better { new_scale[p] } else { scale[p] };
                min[p] = if better { new_min[p] } else { min[p] };
            }
        }
        for p in 0..PARTS {
            let flat = max[p] == lowest[p];
            scale[p] = if flat { 0.0 } else { scale[p] };
            min[p] = if flat { -lowest[p] } else { -min[p] };
        }
        (scale, min)
    }

    #[inline(always)]
    fn encode<const WEIGHTS: usize, const PARTS: usize>(
        &self,
        x: &Parts<WEIGHTS, PARTS>,
        inverse: &[f32; PARTS],
        min: &[f32; PARTS],
        codes: &mut Parts<WEIGHTS, PARTS>,
    ) {
        for (x, codes) in x.iter().zip(codes) {
            for p in 0..PARTS {
                codes[p] = clamp(nearest(inverse[p] * (x[p] - min[p])), 0.0, self.largest_code);
            }
        }
    }

    #[inline(always)]
    fn add_error<const WEIGHTS: usize, const PARTS: usize>(
        &self,
        x: &Parts<WEIGHTS, PARTS>,
        importance: &Parts<WEIGHTS, PARTS>,
        codes: &Parts<WEIGHTS, PARTS>,
        scale: &[f32; PARTS],
        min: &[f32; PARTS],
        error: &mut [f32; PARTS],
    ) {
        for ((x, w), l) in x.iter().zip(importance).zip(codes) {
            for p in 0..PARTS {
                let off = scale[p] * l[p] + min[p] - x[p];
                error[p] += w[p] * if self.absolute { off.abs() } else { off * off };
            }
        }
    }
}

/// Rounds parts at their settled scales d and minima m: x̂ = d·q − m, q from 0 to `largest_code`.
#[inline(always)]
fn round_from_minimum<const WEIGHTS: usize, const PARTS: usize>(
    x: &mut Parts<WEIGHTS, PARTS>,
    scale: &[f32; PARTS],
    min: &[f32; PARTS],
    largest_code: f32,
) {
    for x in x {
        for p in 0..PARTS {
            let code = nearest(clamp((x[p] + min[p]) / scale[p], 0.0, largest_code));
            let code = if scale[p] == 0.0 { 0.0 } else { code };
            x[p] = scale[p] * code - min[p];
        }
    }
}

/// Rounds parts at their settled scales d: x̂ = d·q, q from `low` to −`low` − 1.
#[inline(always)]
fn round_about_zero<const WEIGHTS: usize, const PARTS: usize>(
    x: &mut Parts<WEIGHTS, PARTS>,
    scale: &[f32; PARTS],
    low: f32,
) {
    for x in x {
        for p in 0..PARTS {
            let code = nearest(clamp(x[p] / scale[p], low, -low - 1.0));
            x[p] = if scale[p] == 0.0 { 0.0 } else { scale[p] * code };
        }
    }
}

/// The parts' scales as multiples of one f16, from 0 to `largest`; what cannot be told from zero becomes zero.
#[inline(always)]
fn share_scale<const PARTS: usize>(scales: &mut [f32; PARTS], largest: f32) {
    let mut max = 0.0;
    for scale in scales.iter() {
        max = if *scale > max { *scale } else { max };
    }
    let inverse = if max > 0.0 { largest / max } else { 0.0 };
    let unit = stored(max / largest);
    for scale in scales {
        *scale = unit * clamp(nearest(inverse * *scale), 0.0, largest);
    }
}

/// The parts' signed scales as multiples of one f16: the one of largest magnitude becomes −`half`.
#[inline(always)]
fn share_signed_scale<const PARTS: usize>(scales: &mut [f32; PARTS], half: f32) {
    let mut max = 0.0f32;
    for scale in scales.iter() {
        max = if scale.abs() > max.abs() { *scale } else { max };
    }
    if max.abs() < NOTHING {
        *scales = [0.0; PARTS];
        return;
    }
    let inverse = -half / max;
    let unit = stored(1.0 / inverse);
    for scale in scales {
        *scale = unit * clamp(nearest(inverse * *scale), -half, half - 1.0);
    }
}

/// Magnitudes below it count as zero (ggml's `GROUP_MAX_EPS`).
const NOTHING: f32 = 1e-15;

/// Sixteen parts of sixteen; scales and minima of 4 bits.
struct Q2K;

impl Rounding for Q2K {
    #[inline(always)]
    fn round(&self, block: &mut [f32]) {
        let mut x: Parts<16, 16> = parts_of(block);
        let mut importance = x;
        importance.iter_mut().flatten().for_each(|x| *x = x.abs());
        let (mut scale, mut min) = COARSE.run(&x, &importance);
        share_scale(&mut scale, 15.0);
        share_scale(&mut min, 15.0);
        round_from_minimum(&mut x, &scale, &min, COARSE.largest_code);
        write_back(&x, block);
    }
}

/// Q4_K and Q5_K: eight parts of 32; scales and minima of 6 bits.
struct Q4K {
    search: Search,
}

impl Rounding for Q4K {
    #[inline(always)]
    fn round(&self, block: &mut [f32]) {
        let mut x: Parts<32, 8> = parts_of(block);
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
        let (mut scale, mut min) = self.search.run(&x, &importance);
        share_scale(&mut scale, 63.0);
        share_scale(&mut min, 63.0);
        round_from_minimum(&mut x, &scale, &min, self.search.largest_code);
        write_back(&x, block);
    }
}

/// Sixteen parts of sixteen; scales of 6 bits.
struct Q3K;

impl Rounding for Q3K {
    #[inline(always)]
    fn round(&self, block: &mut [f32]) {
        let mut x: Parts<16, 16> = parts_of(block);
        let mut scale = improved_scales(&x, 4.0);
        share_signed_scale(&mut scale, 32.0);
        round_about_zero(&mut x, &scale, -4.0);
        write_back(&x, block);
    }
}

/// Sixteen parts of sixteen; scales of 8 bits.
struct Q6K;

impl Rounding for Q6K {
    #[inline(always)]
    fn round(&self, block: &mut [f32]) {
        let mut x: Parts<16, 16> = parts_of(block);
        let mut scale = searched_scales(&x, 32.0);
        share_signed_scale(&mut scale, 128.0);
        round_about_zero(&mut x, &scale, -32.0);
        write_back(&x, block);
    }
}

/// The value of largest magnitude of each part, the first of equals.
#[inline(always)]
fn largest_of_parts<const WEIGHTS: usize, const PARTS: usize>(x: &Parts<WEIGHTS, PARTS>) -> [f32; PARTS] {
    let mut largest = [0.0f32; PARTS];
    for x in x {
        for p in 0..PARTS {
            largest[p] = if x[p].abs() > largest[p].abs() { x[p] } else { largest[p] };
        }
    }
    largest
}

/// Scales about zero: (half + 0.1·i) codes for the largest value, i from −9 to 9, and of these the one whose regression
/// explains most of Σx⁴.
#[inline(always)]
fn searched_scales<const WEIGHTS: usize, const PARTS: usize>(
    x: &Parts<WEIGHTS, PARTS>,
    half: f32,
) -> [f32; PARTS] {
    let largest = largest_of_parts(x);
    let (mut scale, mut best) = ([0.0; PARTS], [0.0; PARTS]);
    // The middle comes first; others must be better.
    for step in [0, -9, -8, -7, -6, -5, -4, -3, -2, -1, 1, 2, 3, 4, 5, 6, 7, 8, 9] {
        let mut inverse = [0.0; PARTS];
        for p in 0..PARTS {
            inverse[p] = -(half + 0.1 * step as f32) / largest[p];
        }
        let (mut sum_xl, mut sum_l2) = ([0.0; PARTS], [0.0; PARTS]);
        for x in x {
            for p in 0..PARTS {
                let code = clamp(nearest(inverse[p] * x[p]), -half, half - 1.0);
                let w = x[p] * x[p];
                sum_xl[p] += w * x[p] * code;
                sum_l2[p] += w * code * code;
            }
        }
        for p in 0..PARTS {
            let closer = (step == 0) | (sum_xl[p] * sum_xl[p] > best[p] * sum_l2[p]);
            let better = closer & (sum_l2[p] > 0.0);
            scale[p] = if better { sum_xl[p] / sum_l2[p] } else { scale[p] };
            best[p] = if better { scale[p] * sum_xl[p] } else { best[p] };
        }
    }
    for p in 0..PARTS {
        scale[p] = if largest[p].abs() < NOTHING { 0.0 } else { scale[p] };
    }
    scale
}

/// Scales about zero: codes of the plain scale, each then moved wherever that brings the regression closer, five times
/// over.
#[inline(always)]
fn improved_scales<const WEIGHTS: usize, const PARTS: usize>(
    x: &Parts<WEIGHTS, PARTS>,
    half: f32,
) -> [f32; PARTS] {
    let largest = largest_of_parts(x);
    let mut codes = [[0.0; PARTS]; WEIGHTS];
    let (mut sum_xl, mut sum_l2) = ([0.0; PARTS], [0.0; PARTS]);
    for (x, codes) in x.iter().zip(&mut codes) {
        for p in 0..PARTS {
            codes[p] = clamp(nearest(-half / largest[p] * x[p]), -half, half - 1.0);
            let w = x[p] * x[p];
            sum_xl[p] += w * x[p] * codes[p];
            sum_l2[p] += w * codes[p] * codes[p];
        }
    }
    for _ in 0..5 {
        for (x, codes) in x.iter().zip(&mut codes) {
            for p in 0..PARTS {
                let w = x[p] * x[p];
                let without_xl = sum_xl[p] - w * x[p] * codes[p];
                let without_l2 = sum_l2[p] - w * codes[p] * codes[p];
                let code =
                    clamp(nearest(clamp(x[p] * without_l2 / without_xl, -8.0, 8.0)), -half, half - 1.0);
                let new_xl = without_xl + w * x[p] * code;
                let new_l2 = without_l2 + w * code * code;
                let better = (without_xl > 0.0)
                    & (code != codes[p])
                    & (new_l2 > 0.0)
                    & (new_xl * new_xl * sum_l2[p] > sum_xl[p] * sum_xl[p] * new_l2);
                codes[p] = if better { code } else { codes[p] };
                sum_xl[p] = if better { new_xl } else { sum_xl[p] };
                sum_l2[p] = if better { new_l2 } else { sum_l2[p] };
            }
        }
    }
    let mut scale = [0.0; PARTS];
    for p in 0..PARTS {
        let none = (sum_l2[p] <= 0.0) | (largest[p].abs() < NOTHING);
        scale[p] = if none { 0.0 } else { sum_xl[p] / sum_l2[p] };
    }
    scale
}

/// IQ4_NL and IQ4_XS: eight parts of 32, each value the nearest of [`IQ4`] times the part's scale.
struct Iq4 {
    /// IQ4_XS: the scales are multiples of one f16. Otherwise each is an f16, and parts stand for themselves.
    shared: bool,
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

impl Rounding for Iq4 {
    #[inline(always)]
    fn round(&self, block: &mut [f32]) {
        let mut x: Parts<32, 8> = parts_of(block);
        let largest = largest_of_parts(&x);
        let (mut scale, mut best) = ([0.0; 8], [0.0; 8]);
        // The largest value becomes −127 at first, then −134 to −120.
        for (step, first) in
            std::iter::once((0.0, true)).chain((-7..=7i8).map(|step| (f32::from(step), false)))
        {
            let mut inverse = [0.0; 8];
            for p in 0..8 {
                inverse[p] = match first {
                    true => 1.0 / (-largest[p] / IQ4[0]),
                    false => (step + IQ4[0]) / largest[p],
                };
            }
            let (mut sum_xq, mut sum_q2) = ([0.0; 8], [0.0; 8]);
            for x in &x {
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
        // Codes are chosen at the scale before its f16 is rounded.
        let exact = scale;
        let (mut coded, mut decoded) = (exact, exact.map(stored));
        if self.shared {
            let max =
                exact.iter().fold(0.0f32, |max, scale| if scale.abs() > max.abs() { *scale } else { max });
            let unit = -max / 32.0;
            let inverse = inverse_or_zero(unit);
            for p in 0..8 {
                let multiple = clamp(nearest(inverse * exact[p]), -32.0, 31.0);
                (coded[p], decoded[p]) = (unit * multiple, stored(unit) * multiple);
            }
        }
        let inverse = coded.map(inverse_or_zero);
        for x in &mut x {
            for p in 0..8 {
                x[p] = decoded[p] * nearest_iq4(inverse[p] * x[p]);
            }
        }
        write_back(&x, block);
    }
}
