//! An f64 exponential for non-positive arguments that the compiler can vectorize.
//!
//! e^t = 2^n · e^r with n = round(t / ln 2), r = t − n·ln 2 in two parts (Cody and Waite 1980), and
//! e^r = 1 + r + r²·P(r) with P the degree-9 polynomial of least relative error on |r| ≤ ln 2 / 2,
//! found by the Remez algorithm at 60 digits (largest error 3.6e-18, a thirtieth of half a unit in the
//! last place). Multiply-adds are fused by name, hence the same bits on every machine; one without the
//! instruction (x86-64 before 2013) calls a library for each and takes thirty times as long. It knows nothing
//! of logits: how masked ones are treated is `vocabulary`'s business.

/// Below this, e^t is taken at this: e^−708 = 3.3e-308, the smallest power of e that is a normal number.
/// Kept above zero on purpose: a probability that is too small for f64 is still not an impossibility.
pub(super) const LOWEST: f64 = -708.0;

/// 1.5 · 2^52: adding it rounds a number below 2^51 to an integer and leaves that in the low bits.
const ROUND: f64 = 6_755_399_441_055_744.0;
/// The leading 42 bits of ln 2, so that n · LN2_HIGH is exact for |n| < 2^11.
const LN2_HIGH: f64 = 0.693_147_180_559_890_3;
/// ln 2 − LN2_HIGH.
const LN2_LOW: f64 = 5.497_923_018_708_371e-14;
/// Coefficients of P, from r⁰ to r⁹.
const P: [f64; 10] = [
    0.500_000_000_000_001_1,
    0.166_666_666_666_664_13,
    0.041_666_666_666_530_267,
    0.008_333_333_333_494_333,
    0.001_388_888_894_359_772_2,
    0.000_198_412_695_067_794_63,
    2.480_149_313_615_996_7e-5,
    2.755_758_626_651_590_3e-6,
    2.763_023_392_942_218_4e-7,
    2.500_007_228_146_254_5e-8,
];

/// e^t for t ≤ 0, t clamped to [`LOWEST`] from below first; a NaN stays NaN.
#[inline(always)]
pub(super) fn exp_clamped(t: f64) -> f64 {
    // Not `f64::max`, which would turn a NaN into a number.
    exp_nonpositive(if t < LOWEST { LOWEST } else { t })
}

/// e^t for [`LOWEST`] ≤ t ≤ 0 or NaN, which stays NaN. Outside that the result has no meaning.
///
/// Relative error below 3e-16 (measured against std over a dense grid), and exactly 1 at 0.
#[inline(always)]
pub(super) fn exp_nonpositive(t: f64) -> f64 {
    let shifted = t.mul_add(std::f64::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, t));
    // Estrin's scheme: a third of the latency of Horner's for two more multiplications.
    let r2 = r * r;
    let r4 = r2 * r2;
    let p01 = P[1].mul_add(r, P[0]);
    let p23 = P[3].mul_add(r, P[2]);
    let p45 = P[5].mul_add(r, P[4]);
    let p67 = P[7].mul_add(r, P[6]);
    let p89 = P[9].mul_add(r, P[8]);
    let p0123 = p23.mul_add(r2, p01);
    let p456789 = p89.mul_add(r4, p67.mul_add(r2, p45));
    let p = p456789.mul_add(r4, p0123);
    let fraction = r2.mul_add(p, r) + 1.0;
    // 2^n: n + 1023 is in 1..=1023 and sits in the low bits, the shift moves it into the exponent's place.
    let power = f64::from_bits(shifted.to_bits().wrapping_add(1023) << 52);
    fraction * power
}

#[cfg(test)]
mod tests {
    use super::*;

    /// std's exponential is the oracle (glibc's is correct to within 0.52 units in the last place).
    #[test]
    fn agrees_with_std_within_three_parts_in_1e16() {
        let mut worst = 0.0f64;
        let points = 2_000_000;
        for i in 0..=points {
            // Dense near zero, where probabilities matter, and over the whole range.
            for t in [-f64::from(i) / f64::from(points) * 708.0, -f64::from(i) / f64::from(points) * 2.0] {
                worst = worst.max((exp_clamped(t) / t.exp() - 1.0).abs());
            }
        }
        assert!(worst < 3e-16, "relative error {worst:e}");
    }

    /// The mean error must vanish too: it would add up over a vocabulary.
    #[test]
    fn is_not_biased() {
        let points = 1_000_000;
        let errors = (0..points).map(|i| f64::from(i) * -3e-5).map(|t| exp_clamped(t) / t.exp() - 1.0);
        let mean = errors.sum::<f64>() / f64::from(points);
        assert!(mean.abs() < 1e-17, "mean relative error {mean:e}");
    }

    #[test]
    fn ends_are_as_promised() {
        assert_eq!(exp_clamped(0.0), 1.0);
        assert_eq!(exp_clamped(-0.0), 1.0);
        assert!(exp_clamped(f64::NAN).is_nan());
        assert!(exp_clamped(f64::NEG_INFINITY) > 0.0);
        assert_eq!(exp_clamped(-1e300), exp_clamped(LOWEST));
        assert!(exp_clamped(f64::NEG_INFINITY) < 1e-307);
    }
}
