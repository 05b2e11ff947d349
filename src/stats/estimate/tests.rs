//! Clustered intervals against numpy and scipy, and their coverage by simulation.

use super::super::random::Xoshiro256;
use super::*;

const CLUSTERS: [u32; 22] = [0, 0, 0, 1, 1, 2, 3, 3, 3, 3, 4, 5, 5, 6, 7, 7, 8, 9, 9, 10, 10, 11];
const VALUES: [f64; 22] = [
    0.1, 0.3, -0.2, 0.5, 0.4, -0.1, 0.0, 0.2, 0.1, 0.6, -0.4, 0.3, 0.2, 0.15, -0.25, 0.05, 0.45, 0.1, -0.1,
    0.2, 0.35, -0.05,
];

fn assert_close(value: f64, expected: f64, relative: f64) {
    assert!((value - expected).abs() <= relative * expected.abs(), "{value:e} against {expected:e}");
}

/// Expected values: `scipy.stats.t.ppf`, `norm.ppf`, `norm.cdf`, SciPy 1.17.
#[test]
fn quantiles_are_those_of_scipy() {
    for (degrees_of_freedom, probability, expected) in [
        (1, 0.975, 12.706_204_736_174_694),
        (9, 0.975, 2.262_157_162_798_205),
        (9, 0.95, 1.833_112_932_656_237),
        (9, 0.9995, 4.780_912_585_931_217),
        (30, 0.975, 2.042_272_456_301_237_8),
        (199, 0.975, 1.971_956_544_251_753_3),
        (1999, 0.95, 1.645_616_248_187_262_5),
        (100_000, 0.975, 1.959_987_707_534_609_5),
    ] {
        assert_close(t_quantile(degrees_of_freedom, probability), expected, 1e-10);
    }
    assert!(t_quantile(0, 0.975).is_nan());
    for (probability, expected) in [
        (0.025, -1.959_963_984_540_054_5),
        (0.95, 1.644_853_626_951_472_2),
        (0.999, 3.090_232_306_167_813),
        (1e-6, -4.753_424_308_822_899),
    ] {
        assert_close(normal_quantile(probability), expected, 1e-13);
    }
}

/// Expected values: numpy 2.4 by the formula of the file's head, SciPy's t.
#[test]
fn the_clustered_interval_is_that_of_numpy() {
    let estimate = clustered_t(&ClusterSums::of_mean(&CLUSTERS, &VALUES), 0.95);
    assert_close(estimate.value, 0.131_818_181_818_181_83, 1e-14);
    assert_close(estimate.standard_error.unwrap(), 0.057_671_180_558_112_08, 1e-13);
    assert_close(estimate.lower.unwrap(), 0.004_884_769_244_811_71, 1e-11);
    assert_close(estimate.upper.unwrap(), 0.258_751_594_391_551_93, 1e-12);
    assert_eq!((estimate.clusters, estimate.observations), (12, 22));
    assert_eq!(estimate.method, IntervalMethod::ClusteredT);
}

/// Singletons: the textbook standard error of a mean.
#[test]
fn singletons_have_the_plain_standard_error() {
    let values: Vec<f64> = (1..=10).map(f64::from).collect();
    let of: Vec<u32> = (0..10).collect();
    let estimate = clustered_t(&ClusterSums::of_mean(&of, &values), 0.95);
    // Variance of 1..10 is 55/6.
    assert_close(estimate.standard_error.unwrap(), (55f64 / 60.0).sqrt(), 1e-14);
}

#[test]
fn below_ten_clusters_there_is_no_interval() {
    let estimate = clustered_t(&ClusterSums::of_mean(&CLUSTERS[..17], &VALUES[..17]), 0.95);
    assert_eq!((estimate.clusters, estimate.method), (9, IntervalMethod::TooFewClusters));
    assert_eq!((estimate.lower, estimate.upper, estimate.standard_error), (None, None, None));
    assert_close(estimate.value, VALUES[..17].iter().sum::<f64>() / 17.0, 1e-15);
}

#[test]
fn what_is_not_finite_shows() {
    let mut values = VALUES;
    for bad in [f64::NAN, f64::INFINITY] {
        values[4] = bad;
        let estimate = clustered_t(&ClusterSums::of_mean(&CLUSTERS, &values), 0.95);
        assert!(!estimate.value.is_finite());
        assert_eq!((estimate.lower, estimate.method), (None, IntervalMethod::NotFinite));
    }
    let nothing = clustered_t(&ClusterSums::new(20), 0.95);
    assert!(nothing.value.is_nan());
    assert_eq!((nothing.clusters, nothing.method), (0, IntervalMethod::NotFinite));
}

#[test]
fn no_difference_at_all_is_its_own_interval() {
    let estimate = clustered_t(&ClusterSums::of_mean(&CLUSTERS, &[0.0; 22]), 0.95);
    assert_eq!((estimate.value, estimate.lower, estimate.upper), (0.0, Some(0.0), Some(0.0)));
    assert_eq!(estimate.method, IntervalMethod::Constant);
}

#[test]
fn transformations_carry_the_ends() {
    let mean = clustered_t(&ClusterSums::of_mean(&CLUSTERS, &VALUES), 0.95);
    let ratio = mean.exp();
    assert_eq!(ratio.value, mean.value.exp());
    assert_eq!((ratio.lower, ratio.upper), (mean.lower.map(f64::exp), mean.upper.map(f64::exp)));
    assert_close(ratio.standard_error.unwrap(), mean.value.exp() * mean.standard_error.unwrap(), 1e-15);
    assert_eq!((ratio.clusters, ratio.method), (mean.clusters, mean.method));
    let root = Estimate { value: 4.0, lower: Some(-1.0), upper: Some(9.0), ..mean }.sqrt();
    assert_eq!((root.value, root.lower, root.upper), (2.0, Some(0.0), Some(3.0)));
    assert_close(root.standard_error.unwrap(), mean.standard_error.unwrap() / 4.0, 1e-15);
}

/// Clusters of unequal size with a common effect, true mean 0.3: the interval must cover it in 95 % of
/// samples. (Counting tokens instead of clusters covers it in 66 %.)
#[test]
fn the_clustered_interval_covers() {
    let mut random = Xoshiro256::seeded(7);
    let mut normal = move || {
        let unit = |bits: u64| (bits >> 11) as f64 / (1u64 << 53) as f64 - 0.5;
        (0..12).map(|_| unit(random.next())).sum::<f64>()
    };
    let trials = 2000;
    let covered = (0..trials).filter(|_| {
        let mut sums = ClusterSums::new(25);
        for cluster in 0..25 {
            let effect = normal();
            for _ in 0..4 + cluster % 7 {
                sums.add(cluster, 0.3 + effect + normal(), 1.0);
            }
        }
        let estimate = clustered_t(&sums, 0.95);
        (estimate.lower.unwrap()..=estimate.upper.unwrap()).contains(&0.3)
    });
    let share = covered.count() as f64 / f64::from(trials);
    // Standard deviation of the share: 0.005.
    assert!((0.93..0.965).contains(&share), "{share}");
}
