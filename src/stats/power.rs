//! What a sample could not have shown, and how large it would have to be.
//!
//! A difference δ is detected (one-sided test of level α) with power 1 − β where δ ≥ (z_{1−α} + z_{1−β})·SE.
//! For paired binary outcomes n·SE² is at most the share of flips (Connor 1987, Biometrics 43:207, subtracts δ²
//! under the alternative; here that is left out, which errs towards a larger sample). It makes no test.

use super::binomial::upper_bound;
use super::estimate::{Estimate, IntervalMethod, normal_quantile};
use super::paired::Flips;

/// One-sided confidence of the upper bound of the share of flips.
const FLIPS_CONFIDENCE: f64 = 0.95;

/// The errors that a test may make.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Power {
    /// α, one-sided: the probability of seeing a difference where there is none; 0.05 by default.
    pub alpha: f64,
    /// 1 − β: the probability of seeing a difference that is there; 0.80 by default.
    pub power: f64,
}

impl Default for Power {
    fn default() -> Self {
        Self { alpha: 0.05, power: 0.80 }
    }
}

impl Power {
    /// (z_{1−α} + z_{1−β})·SE, in the units of the standard error.
    pub fn detectable(self, standard_error: f64) -> f64 {
        self.reach() * standard_error
    }

    /// Items needed to detect a difference of `margin` (a share, 0.01 say) where a share `flips` of them
    /// flips: the least n ≥ (z_{1−α} + z_{1−β})²·flips/margin². Items are taken as independent: in clusters
    /// more are needed. `None` unless both shares lie in (0, 1].
    pub fn required_sample_size(self, flips: f64, margin: f64) -> Option<u64> {
        let share = |s: f64| s > 0.0 && s <= 1.0;
        let items = (self.reach() / margin).powi(2) * flips;
        (share(flips) && share(margin) && items.is_finite()).then(|| items.ceil() as u64)
    }

    /// Items needed to show that no more than `margin` (a share) is lost, where nothing is lost and a share `flips` of the
    /// items flips either way: the least n that passes with the power asked for.
    ///
    /// n = ((z₍₁₋α₎·σ₀ + z₍₁₋β₎·σ₁)/margin)², σ₁² = flips, σ₀² = 2p̃ + margin − margin², p̃ being the share of gains most
    /// likely at the margin (Nam 1997, Biometrics 53:1422): a score interval's variance at the margin is larger than where
    /// nothing is lost, so that flips/margin² alone passes but 76 to 79 % of the time. `None` unless both shares lie in (0, 1].
    pub fn non_inferiority_sample_size(self, flips: f64, margin: f64) -> Option<u64> {
        let share = |s: f64| s > 0.0 && s <= 1.0;
        let (gains, linear) = (flips / 2.0, 2.0 * margin - flips);
        let gains_at_margin =
            (linear.mul_add(linear, 4.0 * flips * margin * (1.0 - margin)).sqrt() - linear) / 4.0;
        let at_margin = 2.0 * gains_at_margin + margin - margin * margin;
        let reach = normal_quantile(1.0 - self.alpha) * at_margin.sqrt()
            + normal_quantile(self.power) * (2.0 * gains).sqrt();
        let items = (reach / margin).powi(2);
        (share(flips) && share(margin) && items.is_finite()).then(|| items.ceil() as u64)
    }

    fn reach(self) -> f64 {
        normal_quantile(1.0 - self.alpha) + normal_quantile(self.power)
    }
}

/// The smallest true difference in accuracy that this sample would have shown:
/// (z_{1−α} + z_{1−β})·SE, a share.
///
/// SE is the clustered standard error of `difference`, and never below √(u/n), u being the 95 % upper bound
/// of the share of flips: where no item or only a few flipped, the standard error says more than the sample
/// knows. That floor takes items as independent. `None` where `difference` has no interval.
pub fn minimum_detectable_effect(difference: &Estimate, flips: &Flips, power: Power) -> Option<f64> {
    use IntervalMethod::{Extreme, NotFinite, TooFewClusters};
    if flips.items() == 0 || matches!(difference.method, Extreme | NotFinite | TooFewClusters) {
        return None;
    }
    let bound = share_upper_bound(flips.flipped(), flips.items(), FLIPS_CONFIDENCE);
    let floor = (bound / flips.items() as f64).sqrt();
    Some(power.detectable(difference.standard_error.map_or(floor, |error| error.max(floor))))
}

/// The exact (Clopper-Pearson 1934) one-sided upper bound of a share of which `seen` of `n` were seen: the u
/// with P(X ≤ seen) = 1 − `confidence` for X binomial (n, u), that is I_{1−u}(n − seen, seen + 1). For 0 seen
/// this is 1 − (1 − confidence)^{1/n}. 1 where all were seen, or where n is 0.
pub fn share_upper_bound(seen: u64, n: u64, confidence: f64) -> f64 {
    upper_bound(seen as f64, n as f64, confidence)
}

#[cfg(test)]
mod tests {
    use super::super::scores::{PairedScore, PairedScores};
    use super::*;

    /// z_{0.95} + z_{0.80} = 2.486 474 860 524 387 to 40 digits, and what follows for real benchmarks' sizes.
    #[test]
    fn known_detectable_differences() {
        assert!((Power::default().detectable(1.0) - 2.486_474_860_524_387).abs() < 1e-12);
        for (items, flips, percent_points, digits) in [
            (1319.0, 0.04, 1.4, 10.0),
            (1319.0, 0.08, 1.9, 10.0),
            (14_042.0, 0.03, 0.36, 100.0),
            (900.0, 0.05, 1.9, 10.0),
            (250.0, 0.08, 4.4, 10.0),
        ] {
            let effect = 100.0 * Power::default().detectable(f64::sqrt(flips / items));
            assert_eq!((effect * digits).round() / digits, percent_points, "{items} {flips}");
        }
    }

    /// The sample size is the least that detects the margin.
    #[test]
    fn sample_size_is_the_inverse() {
        // 6.182557 · 0.04 / 0.0001, by hand.
        assert_eq!(Power::default().required_sample_size(0.04, 0.01), Some(2474));
        for (flips, margin, power) in
            [(0.08, 0.005, Power::default()), (0.3, 0.02, Power { alpha: 0.01, power: 0.9 })]
        {
            let items = power.required_sample_size(flips, margin).unwrap() as f64;
            assert!(power.detectable((flips / items).sqrt()) <= margin);
            assert!(power.detectable((flips / (items - 1.0)).sqrt()) > margin);
        }
        for (flips, margin) in
            [(0.0, 0.01), (0.04, 0.0), (f64::NAN, 0.01), (0.04, f64::NAN), (1.1, 0.1), (0.1, -0.1)]
        {
            assert_eq!(Power::default().required_sample_size(flips, margin), None);
        }
    }

    /// Every outcome counted with its probability: at that size, nothing lost passes 80 to 82 % of the time and a loss
    /// of the margin at most 5 %; at flips/margin² it is less than 80 %.
    #[test]
    fn the_size_for_non_inferiority_has_its_power() {
        let ln_factorial = |n: u64| statrs::function::factorial::ln_factorial(n);
        let passes = |n: u64, lost: f64, gained: f64, margin: f64| -> f64 {
            let reach = |p: f64| (n as f64 * p + 9.0 * (n as f64 * p).sqrt() + 5.0) as u64;
            let mut sum = 0.0;
            for b in 0..=reach(lost) {
                for c in 0..=reach(gained) {
                    let (lower, _) = Flips {
                        both_right: n - b - c,
                        right_to_wrong: b,
                        wrong_to_right: c,
                        ..Flips::default()
                    }
                    .tango(0.9);
                    if -lower < margin {
                        let log =
                            ln_factorial(n) - ln_factorial(b) - ln_factorial(c) - ln_factorial(n - b - c)
                                + b as f64 * lost.ln()
                                + c as f64 * gained.ln()
                                + (n - b - c) as f64 * (1.0 - lost - gained).ln();
                        sum += log.exp();
                    }
                }
            }
            sum
        };
        for (flips, margin) in [(0.1, 0.05), (0.05, 0.03)] {
            let size = Power::default().non_inferiority_sample_size(flips, margin).unwrap();
            let half = flips / 2.0;
            let with = passes(size, half, half, margin);
            assert!((0.8..0.82).contains(&with), "{flips} {margin}: {size}, {with}");
            let at_margin = passes(size, half + margin / 2.0, half - margin / 2.0, margin);
            assert!(at_margin <= 0.05, "{flips} {margin}: {at_margin}");
            let short = Power::default().required_sample_size(flips, margin).unwrap();
            assert!(passes(short, half, half, margin) < 0.8);
        }
        assert_eq!(Power::default().non_inferiority_sample_size(0.04, 0.01), Some(2562));
    }

    /// Expected: the sum of binomial terms solved by bisection with 40 digits (mpmath 1.3).
    #[test]
    fn bound_is_clopper_and_pearsons() {
        for (seen, n, expected) in [
            (1, 10, 0.394_163_302_436_504_78),
            (9, 10, 0.994_883_803_108_176_3),
            (53, 1319, 0.050_251_754_156_951_7),
            (3, 1000, 0.007_735_244_718_479_46),
            (400, 14_042, 0.030_904_412_417_915_235),
        ] {
            let bound = share_upper_bound(seen, n, 0.95);
            assert!((bound - expected).abs() < 1e-12, "{seen} of {n}: {bound}");
        }
        assert!((share_upper_bound(0, 1000, 0.95) - (1.0 - 0.05_f64.powf(1e-3))).abs() < 1e-15);
        assert_eq!((share_upper_bound(7, 7, 0.95), share_upper_bound(0, 0, 0.95)), (1.0, 1.0));
    }

    fn effect(items: u32, per_cluster: u32, flipped: impl Fn(u32) -> bool) -> Option<f64> {
        let mut flips = Flips::default();
        let mut scores = Vec::new();
        for i in 0..items {
            flips.add(true, !flipped(i), true);
            let quant = f64::from(u8::from(!flipped(i)));
            scores.push(PairedScore { cluster: i / per_cluster, stratum: 0, weight: 1.0, base: 1.0, quant });
        }
        let difference = PairedScores::new(&scores).difference(0.95);
        minimum_detectable_effect(&difference, &flips, Power::default())
    }

    #[test]
    fn few_flips_do_not_promise_more_than_the_sample_knows() {
        let z = 2.486_474_860_524_387;
        // None flipped: u is the rule of three, and the effect is not 0.
        let none = effect(1000, 1, |_| false).unwrap();
        assert!((none - z * (0.002_991_249_5_f64 / 1000.0).sqrt()).abs() < 1e-8, "{none}");
        // 3 of 1000 alone would say √(0.003/1000).
        let few = effect(1000, 1, |i| i < 3).unwrap();
        assert!((few - z * (0.007_735_244_718_479_46_f64 / 1000.0).sqrt()).abs() < 1e-12, "{few}");
    }

    /// 5 clusters of 50 in which every item flips: the clustered error, √(50/49·(5·0.9² + 45·0.1²))/50.
    #[test]
    fn clusters_are_heard() {
        let clustered = effect(1000, 20, |i| i / 20 % 10 == 0).unwrap();
        let expected = 2.486_474_860_524_387 * (50.0 / 49.0 * (5.0 * 0.81 + 45.0 * 0.01_f64)).sqrt() / 50.0;
        assert!((clustered - expected).abs() < 1e-12, "{clustered} {expected}");
    }

    #[test]
    fn without_an_interval_there_is_no_effect() {
        assert_eq!(effect(180, 20, |i| i % 7 == 0), None);
        assert_eq!(effect(0, 1, |_| false), None);
    }
}
