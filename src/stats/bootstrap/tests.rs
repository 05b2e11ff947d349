//! The studentized bootstrap against numpy's, with a million resamples and draw for draw.

use super::super::estimate::clustered_t;
use super::*;

const NUMERATORS: [f64; 20] = [
    0.33, 1.25, 0.04, 13.3, 1.6, 0.14, 3.3, 28.8, 1.24, 4.5, 0.45, 3.72, 0.1, 7.7, 0.66, 2.4, 1.32, 19.2,
    0.18, 4.26,
];
const DENOMINATORS: [f64; 20] =
    [3.0, 5.0, 2.0, 7.0, 4.0, 2.0, 6.0, 9.0, 4.0, 5.0, 3.0, 6.0, 2.0, 7.0, 3.0, 5.0, 4.0, 8.0, 2.0, 6.0];

fn skewed() -> ClusterSums {
    let mut sums = ClusterSums::new(20);
    for (cluster, (&s, &w)) in (0..).zip(NUMERATORS.iter().zip(&DENOMINATORS)) {
        sums.add(cluster, s, w);
    }
    sums
}

/// Expected: the formulas of the file's head in numpy 2.4 and SciPy 1.17, 10⁶ resamples, the mean of two seeds
/// (which differ by up to 0.007). The lower end is the clustered t interval's: the bootstrap's lies nearer.
#[test]
fn a_skewed_ratio_agrees_with_numpy() {
    let sums = skewed();
    let bootstrap = Bootstrap::new(&sums, Resampling { resamples: 1_000_000, seed: 5 });
    for (confidence, lower, upper) in [(0.95, 0.430_636, 2.7746), (0.90, 0.532_411, 1.9852)] {
        let estimate = bootstrap.estimate(confidence);
        assert_eq!(estimate.method, IntervalMethod::Studentized);
        assert!((estimate.value - 1.016_021_505_376_344_2).abs() < 1e-15);
        assert!((estimate.lower.unwrap() - lower).abs() < 1e-6, "{estimate:?}");
        assert_eq!(estimate.lower, clustered_t(&sums, confidence).lower);
        assert!((estimate.upper.unwrap() - upper).abs() < 0.012, "{estimate:?}");
    }
}

/// Mirrored, the ends change places.
#[test]
fn the_interval_is_equivariant() {
    let of: Vec<u32> = (0..20).collect();
    let interval = |sign: f64| {
        let values: Vec<f64> = NUMERATORS.iter().map(|value| sign * value).collect();
        let estimate =
            Bootstrap::new(&ClusterSums::of_mean(&of, &values), Resampling::default()).estimate(0.95);
        (estimate.lower.unwrap(), estimate.upper.unwrap())
    };
    let (lower, upper) = interval(1.0);
    let (mirrored_lower, mirrored_upper) = interval(-3.0);
    assert!((mirrored_lower + 3.0 * upper).abs() < 1e-9 && (mirrored_upper + 3.0 * lower).abs() < 1e-9);
}

#[test]
fn the_same_seed_gives_the_same_interval() {
    let of = |seed| Bootstrap::new(&skewed(), Resampling { seed, ..Resampling::default() }).estimate(0.95);
    assert_eq!(of(1), of(1));
    assert_ne!(of(1), of(2));
    assert!((of(1).upper.unwrap() - of(2).upper.unwrap()).abs() < 0.2);
    // The same generator, order of draws and formulas written down again in Python (numpy, SciPy's t).
    assert!((of(1).upper.unwrap() - 2.796_685_796_716_755_3).abs() < 1e-9, "{:?}", of(1));
}

#[test]
fn what_has_no_spread_is_not_resampled() {
    let of: Vec<u32> = (0..50).map(|i| i / 2).collect();
    let method = |of: &[u32], values: &[f64]| {
        Bootstrap::new(&ClusterSums::of_mean(of, values), Resampling::default()).estimate(0.95)
    };
    let constant = method(&of, &[0.0; 50]);
    assert_eq!(
        (constant.lower, constant.upper, constant.method),
        (Some(0.0), Some(0.0), IntervalMethod::Constant)
    );
    assert_eq!(method(&of[..18], &[0.0; 18]).method, IntervalMethod::TooFewClusters);
    assert_eq!(method(&of, &[f64::NAN; 50]).method, IntervalMethod::NotFinite);
    assert_eq!(method(&[], &[]).method, IntervalMethod::NotFinite);
}

/// The ends at 99.9 % lie beyond what 100 resamples resolve; of 50 clusters of which one differs, 37 % of the
/// resamples have no spread.
#[test]
fn a_degenerate_bootstrap_falls_back_and_says_so() {
    let sums = skewed();
    let few = Bootstrap::new(&sums, Resampling { resamples: 100, seed: 0 });
    assert_eq!(few.estimate(0.5).method, IntervalMethod::Studentized);
    let estimate = few.estimate(0.999);
    assert_eq!(estimate, clustered_t(&sums, 0.999));
    assert_eq!(estimate.method, IntervalMethod::ClusteredT);
    let none = Bootstrap::new(&sums, Resampling { resamples: 0, seed: 0 });
    assert_eq!(none.estimate(0.95).method, IntervalMethod::ClusteredT);
    let of: Vec<u32> = (0..50).collect();
    let values: Vec<f64> = of.iter().map(|&i| f64::from(u8::from(i == 7)) + 0.1).collect();
    let one = ClusterSums::of_mean(&of, &values);
    assert_eq!(Bootstrap::new(&one, Resampling::default()).estimate(0.95), clustered_t(&one, 0.95));
}
