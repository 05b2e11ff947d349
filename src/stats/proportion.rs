//! Shares: means of observations in [0, 1], of which often not one is an exception.
//!
//! Exact bounds (Clopper and Pearson 1934) with the effective sample size of Korn and Graubard (1998, Survey
//! Methodology 24:193): n is divided by the design effect, the clustered variance over that of independent
//! observations, and by (t_{G−1}/t_{n−1})² for its uncertainty. With no exception among n the bound on its
//! share is 1 − α^{1/n}, α being the one-sided error: 3.0/n at 95 %, the rule of three (Hanley and
//! Lippman-Hand 1983, JAMA 249:1743). A bootstrap would claim certainty there, and too much of it near there.

use super::binomial::bounds;
use super::bootstrap::Resampling;
use super::cluster::ClusterSums;
use super::estimate::{Clustered, Estimate, IntervalMethod, MIN_CLUSTERS, t_quantile};

/// A design effect below this is rounding: no cluster deviates from the value.
const NO_SPREAD: f64 = 1e-12;

/// The share (top-1 agreement, say; or top-5 overlap, whose observations are fifths) with an interval that
/// has a width even where no exception was seen.
///
/// Where every observation is 1 (or every one 0), the other end is the exact bound, each end being one-sided
/// at (1 + confidence)/2; for fractions it bounds the share of observations that are not whole, hence theirs.
/// It takes the observations as independent: with no exception seen, how exceptions would cluster cannot be.
/// The rule that below ten clusters there is no interval holds here too.
pub fn share(sums: &ClusterSums, confidence: f64) -> Estimate {
    let Clustered { value, standard_error, clusters, observations } = Clustered::new(sums);
    let without =
        |method| Estimate::without_interval(value, confidence, clusters as u64, observations, method);
    if !(0.0..=1.0).contains(&value) || standard_error.is_nan() && clusters >= MIN_CLUSTERS {
        return without(IntervalMethod::NotFinite);
    }
    if clusters < MIN_CLUSTERS {
        return without(IntervalMethod::TooFewClusters);
    }
    let n = observations as f64;
    let Some(effective) = effective_size(value * (1.0 - value), standard_error, n, clusters, confidence)
    else {
        let (lower, upper) = bounds(value * n, n, confidence);
        return Estimate { lower: Some(lower), upper: Some(upper), ..without(IntervalMethod::Exact) };
    };
    let (lower, upper) = bounds(value * effective, effective, confidence);
    Estimate {
        lower: Some(lower),
        upper: Some(upper),
        standard_error: Some(standard_error),
        ..without(IntervalMethod::Exact)
    }
}

/// [`share`]; nothing is resampled any more.
pub fn proportion(sums: &ClusterSums, _: Resampling, confidence: f64) -> Estimate {
    share(sums, confidence)
}

/// How many independent observations of variance `variance` each are worth as much as these n in their
/// clusters: n/D · (t_{n−1}/t_{G−1})², D = SE²·(n − 1)/variance. Exactly n where each is its own cluster.
///
/// `None` where the variance is 0: the sample does not show how it clusters. Where no cluster deviates
/// although observations differ, each cluster counts as one, for a width of zero would claim certainty.
pub(super) fn effective_size(
    variance: f64,
    standard_error: f64,
    n: f64,
    clusters: usize,
    confidence: f64,
) -> Option<f64> {
    if variance.is_nan() || variance <= 0.0 || n < 2.0 {
        return None;
    }
    let design = standard_error * standard_error * (n - 1.0) / variance;
    let size = if design > NO_SPREAD { n / design } else { clusters as f64 };
    let reach = |freedom: usize| t_quantile(freedom, f64::midpoint(1.0, confidence));
    let (of_items, of_clusters) = (reach(n as usize - 1), reach(clusters - 1));
    Some(size * (of_items / of_clusters).powi(2))
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
        let all = share(&shares(20, 50, &[]), 0.95);
        assert_eq!((all.value, all.upper, all.method), (1.0, Some(1.0), IntervalMethod::Exact));
        assert!((1.0 - all.lower.unwrap() - 0.003_682_083_896_865_671_5).abs() < 1e-15);
        let none = ClusterSums::of_mean(&(0..1000).map(|i| i / 50).collect::<Vec<_>>(), &[0.0; 1000]);
        let none = share(&none, 0.95);
        assert_eq!((none.value, none.lower, none.method), (0.0, Some(0.0), IntervalMethod::Exact));
        assert!((none.upper.unwrap() - 0.003_682_083_896_865_671_5).abs() < 1e-15);
    }

    #[test]
    fn an_interval_has_a_width_and_stays_inside() {
        for exceptions in [&[][..], &[7], &[7, 8, 9, 400], &[1, 99, 300, 301, 555, 600, 750]] {
            let found = share(&shares(20, 50, exceptions), 0.95);
            let (lower, upper) = (found.lower.unwrap(), found.upper.unwrap());
            assert!(0.0 <= lower && lower < upper && upper <= 1.0, "{found:?}");
            assert!(lower <= found.value && found.value <= upper);
        }
    }

    #[test]
    fn too_few_clusters_have_no_interval() {
        let found = share(&shares(9, 50, &[]), 0.95);
        assert_eq!((found.lower, found.upper, found.method), (None, None, IntervalMethod::TooFewClusters));
    }

    /// Expected: `scipy.stats.beta.ppf` and `t.ppf`, SciPy 1.17, with the effective size of the formulas above in
    /// numpy: 40 clusters of 25, of which 8 have 5 exceptions each; and each item its own.
    #[test]
    fn clusters_count_as_fewer_observations() {
        let exceptions: Vec<u32> = (0..8).flat_map(|c| (0..5).map(move |i| 125 * c + i)).collect();
        let clustered = share(&shares(40, 25, &exceptions), 0.95);
        let single = share(&shares(1000, 1, &exceptions), 0.95);
        assert_eq!((clustered.value, clustered.method), (0.96, IntervalMethod::Exact));
        for (found, lower, upper) in [(clustered, CLUSTERED.0, CLUSTERED.1), (single, SINGLE.0, SINGLE.1)] {
            assert!((found.lower.unwrap() - lower).abs() < 1e-9, "{found:?}");
            assert!((found.upper.unwrap() - upper).abs() < 1e-9, "{found:?}");
        }
    }

    const CLUSTERED: (f64, f64) = (0.9249745154335929, 0.9817244150906548);
    const SINGLE: (f64, f64) = (0.9459273031806315, 0.9712723747141092);

    /// Each cluster one right and one wrong: none deviates, and each counts as one item.
    #[test]
    fn certainty_is_never_claimed() {
        let exceptions: Vec<u32> = (0..40).map(|i| 2 * i).collect();
        let found = share(&shares(40, 2, &exceptions), 0.95);
        let (lower, upper) = (found.lower.unwrap(), found.upper.unwrap());
        assert!(found.value == 0.5 && lower < 0.35 && upper > 0.65, "{found:?}");
    }

    #[test]
    fn what_is_no_share_has_no_interval() {
        let of: Vec<u32> = (0..20).collect();
        for values in [[f64::NAN; 20], [1.5; 20]] {
            let found = share(&ClusterSums::of_mean(&of, &values), 0.95);
            assert_eq!((found.lower, found.method), (None, IntervalMethod::NotFinite));
        }
        assert_eq!(share(&ClusterSums::default(), 0.95).method, IntervalMethod::NotFinite);
    }
}
