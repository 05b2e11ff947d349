//! The searches for scales of the K types, all parts of a block side by side.
//!
//! Each takes a part's weights one after another, as llama.cpp does, so that sums round alike (ggml-quants.c:
//! `make_qkx2_quants`, `make_qx_quants`, `make_q3_quants`).

use super::{
    super::rounding::{clamp, nearest},
    NOTHING, Parts,
};

/// Which scales are tried for a part with a minimum: (largest code + first + 0.1·i) / (max − min), i from 0 to `steps`.
pub(super) struct Search {
    pub(super) largest_code: f32,
    first: f32,
    steps: usize,
    /// Absolute errors instead of squares.
    absolute: bool,
}

pub(super) const COARSE: Search = Search { largest_code: 3.0, first: -0.5, steps: 15, absolute: true };
pub(super) const FINE: Search = Search { largest_code: 15.0, first: -1.0, steps: 20, absolute: false };
pub(super) const FINER: Search = Search { largest_code: 31.0, first: -0.5, steps: 15, absolute: false };

/// What a search found for each part.
pub(super) struct Found<const PARTS: usize> {
    pub(super) scale: [f32; PARTS],
    /// Negated.
    pub(super) min: [f32; PARTS],
    /// From which the best codes came, inverse · (x − from): what a part keeps whose scale is too small to be stored.
    inverse: [f32; PARTS],
    from: [f32; PARTS],
}

impl<const PARTS: usize> Found<PARTS> {
    /// The best code of a weight.
    #[inline(always)]
    pub(super) fn code(&self, part: usize, x: f32, largest_code: f32) -> f32 {
        clamp(nearest(self.inverse[part] * (x - self.from[part])), 0.0, largest_code)
    }
}

impl Search {
    /// Scale and minimum of each part.
    ///
    /// Each scale tried gives codes, the codes a regression line, the line an error; the least error wins. A line found
    /// moves the minimum from which the next codes are counted.
    #[inline(always)]
    pub(super) fn run<const WEIGHTS: usize, const PARTS: usize>(
        &self,
        x: &Parts<WEIGHTS, PARTS>,
        importance: &Parts<WEIGHTS, PARTS>,
    ) -> Found<PARTS> {
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
        let (mut best_inverse, mut best_from) = (inverse, min);
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
                best_inverse[p] = if better { inverse[p] } else { best_inverse[p] };
                best_from[p] = if better { min[p] } else { best_from[p] };
                scale[p] = if better { new_scale[p] } else { scale[p] };
                min[p] = if better { new_min[p] } else { min[p] };
            }
        }
        for p in 0..PARTS {
            let flat = max[p] == lowest[p];
            scale[p] = if flat { 0.0 } else { scale[p] };
            min[p] = if flat { -lowest[p] } else { -min[p] };
            best_inverse[p] = if flat | (best_inverse[p] > f32::MAX) { 0.0 } else { best_inverse[p] };
        }
        Found { scale, min, inverse: best_inverse, from: best_from }
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

/// The value of largest magnitude of each part, the first of equals.
#[inline(always)]
pub(super) fn largest_of_parts<const WEIGHTS: usize, const PARTS: usize>(
    x: &Parts<WEIGHTS, PARTS>,
) -> [f32; PARTS] {
    let mut largest = [0.0f32; PARTS];
    for x in x {
        for p in 0..PARTS {
            largest[p] = if x[p].abs() > largest[p].abs() { x[p] } else { largest[p] };
        }
    }
    largest
}

/// Scales about zero: (half + 0.1·i) codes for the largest value, i from −9 to 9, and of these the one whose regression
/// explains most of Σx⁴; with the codes per value that the scale came from.
#[inline(always)]
pub(super) fn searched_scales<const WEIGHTS: usize, const PARTS: usize>(
    x: &Parts<WEIGHTS, PARTS>,
    half: f32,
) -> ([f32; PARTS], [f32; PARTS]) {
    let largest = largest_of_parts(x);
    let (mut scale, mut best) = ([0.0; PARTS], [0.0; PARTS]);
    let mut best_inverse = [0.0; PARTS];
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
            best_inverse[p] = if closer { inverse[p] } else { best_inverse[p] };
        }
    }
    for p in 0..PARTS {
        scale[p] = if largest[p].abs() < NOTHING { 0.0 } else { scale[p] };
    }
    (scale, best_inverse)
}

/// Scales about zero: codes of the plain scale, each then moved wherever that brings the regression closer, five times
/// over; with the codes.
#[inline(always)]
pub(super) fn improved_scales<const WEIGHTS: usize, const PARTS: usize>(
    x: &Parts<WEIGHTS, PARTS>,
    half: f32,
) -> ([f32; PARTS], Parts<WEIGHTS, PARTS>) {
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
    (scale, codes)
}
