//! The score interval of a ratio of paired shares.
//!
//! Of n items, a are right under both, b under base alone, c under quant alone; θ = (a + c)/(a + b). The
//! interval holds the θ that the score test does not reject (Nam and Blackwelder 2002, Statistics in Medicine
//! 21:689; Tang, Tang and Chan 2003, ibid. 22:1217). A bootstrap of so many ones is too narrow by far.

use super::estimate::normal_quantile;

/// The interval of θ; counts may be fractions, those of an effective sample size. The upper end is infinite
/// where base may be right nowhere. It has a width even where b + c = 0: the lower end is 1/(1 + z²/a).
///
/// `correction` is taken off the difference of counts that the statistic weighs (a correction for continuity).
pub(super) fn ratio_interval([both, loss, gain]: [f64; 3], correction: f64, confidence: f64) -> (f64, f64) {
    let z = normal_quantile(f64::midpoint(1.0, confidence));
    (lower_end(both, loss, gain, correction, z), 1.0 / lower_end(both, gain, loss, correction, z))
}

/// The smallest θ that the test of one-sided level Φ(−z) does not reject: the statistic falls with θ, to 0 at
/// (a + c)/(a + b). Exchanging the two models turns θ into 1/θ.
fn lower_end(a: f64, b: f64, c: f64, correction: f64, z: f64) -> f64 {
    let (mut low, mut high) = (0.0, if a + b > 0.0 { (a + c) / (a + b) } else { f64::MAX });
    for _ in 0..100 {
        let middle = f64::midpoint(low, high);
        if middle <= low || middle >= high {
            break;
        }
        let (difference, deviation) = score(a, b, c, middle);
        if difference - correction > z * deviation {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

/// Numerator and denominator of (a + c − θ(a + b))/√(n·Var), Var = θ(p_b + p_c) at the likeliest shares under
/// the hypothesis θ.
///
/// There the share that is right somewhere is (a + b + c)/n =: S, p_b = (1 − θ)S + θ·p_c, and x = p_c/S is the
/// positive root of θ(1+θ)N·x² − [(b+c)θ² − (a+c)(1−θ²)]·x − cθ(1−θ) = 0, N = a + b + c. For θ > 1 the models
/// are exchanged: so no term has another sign than its name says.
fn score(a: f64, b: f64, c: f64, theta: f64) -> (f64, f64) {
    if theta > 1.0 {
        let (difference, deviation) = score(a, c, b, 1.0 / theta);
        return (-difference, deviation);
    }
    let n = a + b + c;
    let square = theta * (1.0 + theta) * n;
    let linear = (b + c) * theta * theta - (a + c) * (1.0 - theta * theta);
    let constant = c * theta * (1.0 - theta);
    let root = (linear * linear + 4.0 * square * constant).sqrt();
    let x = if linear > 0.0 {
        (linear + root) / (2.0 * square)
    } else if constant > 0.0 {
        2.0 * constant / (root - linear)
    } else {
        0.0
    };
    (a + c - theta * (a + b), (theta * n * ((1.0 - theta) + (1.0 + theta) * x)).sqrt())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The published example: 1 both, 7 and 1 alone, of 21 (Bentur et al. 2009); the interval of the Tang score
    /// method in Fagerland, Lydersen and Laake 2014 (Statistics in Medicine 33:2850): 0.065 to 0.907.
    #[test]
    fn a_published_interval() {
        let (lower, upper) = ratio_interval([1.0, 7.0, 1.0], 0.0, 0.95);
        assert!((lower - 0.065).abs() < 5e-4 && (upper - 0.907).abs() < 5e-4, "{lower} {upper}");
    }

    #[test]
    fn nothing_flipped_still_has_a_width() {
        let z = normal_quantile(0.975);
        for a in [1.0, 30.0, 12_000.0] {
            let (lower, upper) = ratio_interval([a, 0.0, 0.0], 0.0, 0.95);
            assert!((lower - 1.0 / (1.0 + z * z / a)).abs() < 1e-12, "{lower}");
            assert!((upper * lower - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn base_may_be_right_nowhere() {
        assert_eq!(ratio_interval([0.0, 0.0, 3.0], 0.0, 0.95).1, f64::INFINITY);
        assert_eq!(ratio_interval([0.0, 3.0, 0.0], 0.0, 0.95).0, 0.0);
    }

    /// ln likelihood of what is right somewhere, with p_c = y·S.
    fn log_likelihood([a, b, c]: [f64; 3], theta: f64, y: f64) -> f64 {
        let term = |count: f64, share: f64| if count == 0.0 { 0.0 } else { count * share.max(0.0).ln() };
        term(a, theta - (1.0 + theta) * y) + term(b, 1.0 - theta + theta * y) + term(c, y)
    }

    /// By definition: the likelihood is maximized by search, and the difference divided by its deviation there.
    fn score_by_search(counts: [f64; 3], theta: f64) -> f64 {
        let (mut low, mut high) = ((1.0 - 1.0 / theta).max(0.0), theta / (1.0 + theta));
        for _ in 0..300 {
            let (left, right) = (low + (high - low) / 3.0, high - (high - low) / 3.0);
            if log_likelihood(counts, theta, left) < log_likelihood(counts, theta, right) {
                low = left;
            } else {
                high = right;
            }
        }
        let ([a, b, c], y) = (counts, f64::midpoint(low, high));
        let [p_a, p_b, p_c] = [theta - (1.0 + theta) * y, 1.0 - theta + theta * y, y];
        let variance = p_a * (1.0 - theta).powi(2) + p_b * theta * theta + p_c;
        (a + c - theta * (a + b)) / ((a + b + c) * variance).sqrt()
    }

    proptest! {
        /// At both ends the statistic is ±z, by a search that knows no closed form.
        #[test]
        fn the_interval_inverts_the_score_test(
            (a, b, c) in (1_u32..3000, 0_u32..400, 0_u32..400),
            confidence in 0.5..0.999,
        ) {
            let counts = [a, b, c].map(f64::from);
            let [a, b, c] = counts;
            let (lower, upper) = ratio_interval(counts, 0.0, confidence);
            let z = normal_quantile(f64::midpoint(1.0, confidence));
            prop_assert!((score_by_search(counts, lower) - z).abs() < 1e-3 * z, "{} {}", lower, z);
            prop_assert!((score_by_search(counts, upper) + z).abs() < 1e-3 * z, "{} {}", upper, z);
            let theta = (a + c) / (a + b);
            prop_assert!(0.0 < lower && lower < theta && theta < upper);
            let (swapped_lower, swapped_upper) = ratio_interval([a, c, b], 0.0, confidence);
            prop_assert!((swapped_lower * upper - 1.0).abs() < 1e-9 && (swapped_upper * lower - 1.0).abs() < 1e-9);
        }

        /// The statistic falls all the way: so the bisection finds the only end.
        #[test]
        fn the_statistic_falls((a, b, c) in (1_u32..3000, 0_u32..400, 0_u32..400)) {
            let [a, b, c] = [a, b, c].map(f64::from);
            let at = |theta| {
                let (difference, deviation) = score(a, b, c, theta);
                difference / deviation
            };
            let values: Vec<f64> = (1..60).map(|i| at(f64::from(i) / 20.0 + 0.013)).collect();
            prop_assert!(values.windows(2).all(|pair| pair[1] < pair[0]));
        }
    }
}
