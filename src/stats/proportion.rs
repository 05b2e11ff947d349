//! Shares: means of observations in [0, 1], of which often not one is an exception.
//!
//! With no exception among n, the exact (Clopper-Pearson 1934) bound on its share is 1 − α^{1/n}, α being the
//! one-sided error: 3.0/n at 95 %, the rule of three (Hanley and Lippman-Hand 1983, JAMA 249:1743). A
//! bootstrap of such a sample would claim certainty. Everything else is the bootstrap's, cut to [0, 1].

use super::bootstrap::{Bootstrap, Resampling};
use super::cluster::ClusterSums;
use super::estimate::{Estimate, IntervalMethod};

/// The share (top-1 agreement, say; or top-5 overlap, whose observations are fifths) with an interval that
/// has a width even where no exception was seen.
///
/// Where every observation is 1 (or every one 0), the other end is the exact bound, each end being one-sided
/// at (1 + confidence)/2; for fractions it bounds the share of observations that are not whole, hence theirs.
/// It takes the observations as independent: with no exception seen, how exceptions would cluster cannot be.
/// The rule that below ten clusters there is no interval holds here too.
pub fn proportion(sums: &ClusterSums, resampling: Resampling, confidence: f64) -> Estimate {
    let estimate = Bootstrap::new(sums, resampling).estimate(confidence);
    let Estimate { value, lower, upper, .. } = estimate;
    if estimate.method == IntervalMethod::Constant && (value == 0.0 || value == 1.0) {
        let bound = exact_bound(estimate.observations, confidence);
        let (lower, upper) = if value == 0.0 { (0.0, bound) } else { (1.0 - bound, 1.0) };
        return Estimate {
            lower: Some(lower),
            upper: Some(upper),
            standard_error: None,
            method: IntervalMethod::Exact,
            ..estimate
        };
    }
    let inside = |end: f64| end.clamp(0.0, 1.0);
    Estimate { lower: lower.map(inside), upper: upper.map(inside), ..estimate }
}

/// 1 − α^{1/n} with α = (1 − confidence)/2: the largest share of exceptions compatible with none in n.
pub fn exact_bound(n: u64, confidence: f64) -> f64 {
    -(((1.0 - confidence) / 2.0).ln() / n as f64).exp_m1()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(clusters: u32, each: u32, exceptions: &[u32]) -> ClusterSums {
        let of: Vec<u32> = (0..clusters * each).map(|i| i / each).collect();
        let values: Vec<f64> = (0..clusters * each).map(|i| f64::from(!exceptions.contains(&i))).collect();
        ClusterSums::of_mean(&of, &values)
    }

    /// Expected: `scipy.stats.beta.ppf(0.975, 1, n)`, SciPy 1.17, and the rule of three.
    #[test]
    fn no_exception_has_the_exact_bound() {
        for (n, expected) in [(10, 0.308_497_107_818_760_7), (1000, 0.003_682_083_896_865_671_5)] {
            assert!((exact_bound(n, 0.95) - expected).abs() < 1e-15);
        }
        assert!((exact_bound(100_000, 0.90) * 100_000.0 - 20f64.ln()).abs() < 1e-4);
        let all = proportion(&shares(20, 50, &[]), Resampling::default(), 0.95);
        assert_eq!((all.value, all.upper, all.method), (1.0, Some(1.0), IntervalMethod::Exact));
        assert!((1.0 - all.lower.unwrap() - 0.003_682_083_896_865_671_5).abs() < 1e-15);
        let none = ClusterSums::of_mean(&(0..1000).map(|i| i / 50).collect::<Vec<_>>(), &[0.0; 1000]);
        let none = proportion(&none, Resampling::default(), 0.95);
        assert_eq!((none.value, none.lower, none.method), (0.0, Some(0.0), IntervalMethod::Exact));
        assert!((none.upper.unwrap() - 0.003_682_083_896_865_671_5).abs() < 1e-15);
    }

    #[test]
    fn an_interval_has_a_width_and_stays_inside() {
        for exceptions in [&[][..], &[7], &[7, 8, 9, 400], &[1, 99, 300, 301, 555, 600, 750]] {
            let share = proportion(&shares(20, 50, exceptions), Resampling::default(), 0.95);
            let (lower, upper) = (share.lower.unwrap(), share.upper.unwrap());
            assert!(0.0 <= lower && lower < upper && upper <= 1.0, "{share:?}");
            assert!(lower <= share.value && share.value <= upper);
        }
    }

    #[test]
    fn too_few_clusters_have_no_interval() {
        let share = proportion(&shares(9, 50, &[]), Resampling::default(), 0.95);
        assert_eq!((share.lower, share.upper, share.method), (None, None, IntervalMethod::TooFewClusters));
    }
}
