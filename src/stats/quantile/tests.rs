//! Type 7 against numpy, Woodruff's intervals by simulation.

use super::super::random::Xoshiro256;
use super::*;
use proptest::prelude::*;

/// Expected: `numpy.quantile` (its default is type 7), numpy 2.4; R's `quantile` gives the same.
#[test]
fn quantiles_are_those_of_numpy() {
    let values = [0.5, -1.25, 3.0, 7.5, 2.0, 2.0, 11.0, 0.125, -4.0, 9.0];
    let mut sorted = values;
    sorted.sort_unstable_by(f64::total_cmp);
    for (probability, expected) in [
        (0.0, -4.0),
        (0.01, -3.7525),
        (0.1, -1.525),
        (0.25, 0.218_75),
        (0.5, 2.0),
        (0.75, 6.375),
        (0.9, 9.2),
        (0.99, 10.82),
        (1.0, 11.0),
    ] {
        let value = quantile_type7(&sorted, probability).unwrap();
        assert!((value - expected).abs() < 1e-14, "{probability}: {value}");
        assert_eq!(select_quantile_type7(&mut values.clone(), probability), Some(value));
    }
    assert_eq!(quantile_type7(&sorted, 1.1), None);
    assert_eq!(quantile_type7(&sorted, f64::NAN), None);
    assert_eq!(quantile_type7(&[], 0.5), None);
    assert_eq!(quantile_type7(&[3.0], 0.999), Some(3.0));
}

#[test]
fn infinities_keep_their_place_and_nan_shows() {
    let infinite = [0.0, 1.0, f64::INFINITY, f64::INFINITY];
    assert_eq!(quantile_type7(&infinite, 1.0 / 3.0), Some(1.0));
    assert_eq!(quantile_type7(&infinite, 0.9), Some(f64::INFINITY));
    let mut broken = [1.0, f64::NAN, 0.0];
    assert!(select_quantile_type7(&mut broken, 0.0).unwrap().is_nan());
    broken.sort_unstable_by(f64::total_cmp);
    assert!(quantile_type7(&broken, 0.0).unwrap().is_nan());
}

#[test]
fn ten_observations_must_lie_beyond() {
    assert_eq!(observations_beyond(1000, 0.99), 10);
    // Index 891: 892 to 900 lie beyond.
    assert_eq!(observations_beyond(901, 0.99), 9);
    assert_eq!(observations_beyond(20, 0.5), 10);
    assert_eq!(observations_beyond(21, 0.5), 10);
    assert_eq!(observations_beyond(19, 0.5), 9);
    assert_eq!(observations_beyond(10_000, 0.001), 10);
    assert_eq!(observations_beyond(0, 0.5), 0);
    let of: Vec<u32> = (0..901).map(|i| i / 10).collect();
    let values: Vec<f64> = (0..901).map(f64::from).collect();
    let found = percentiles(&of, &values, &[0.5, 0.98, 0.99], 0.95);
    assert!(found[0].is_some() && found[1].is_some());
    assert_eq!(found[2], None);
}

/// Closed form: 10 000 singletons at their ranks, so that the quantile's interval is that of the share.
#[test]
fn the_interval_is_the_shares_read_back() {
    let of: Vec<u32> = (0..10_000).collect();
    let values: Vec<f64> = (0..10_000).map(|rank| f64::from(rank) / 9999.0).collect();
    let median = percentiles(&of, &values, &[0.5], 0.95)[0].unwrap();
    let share_error = (0.25f64 / 9999.0).sqrt();
    assert!((median.value - 0.5).abs() < 1e-12);
    let reach = 1.960_201 * share_error;
    assert!((median.lower.unwrap() - (0.5 - reach)).abs() < 1e-7, "{median:?}");
    assert!((median.upper.unwrap() - (0.5 + reach)).abs() < 1e-7);
    assert!((median.standard_error.unwrap() - share_error).abs() < 1e-7);
    assert_eq!((median.method, median.clusters), (IntervalMethod::Woodruff, 10_000));
}

#[test]
fn an_end_beyond_the_sample_is_absent() {
    let of: Vec<u32> = (0..1100).map(|i| i / 100).collect();
    let mut values: Vec<f64> = (0..1100).map(f64::from).collect();
    let tail = percentiles(&of, &values, &[0.99], 0.95)[0].unwrap();
    assert!(tail.lower.is_some());
    assert_eq!((tail.upper, tail.standard_error), (None, None));
    let few = percentiles(&of[..900], &values[..900], &[0.5], 0.95)[0].unwrap();
    assert_eq!((few.lower, few.upper, few.method), (None, None, IntervalMethod::TooFewClusters));
    values[3] = f64::NAN;
    let broken = percentiles(&of, &values, &[0.5], 0.95)[0].unwrap();
    assert!(broken.value.is_nan());
    assert_eq!((broken.lower, broken.method), (None, IntervalMethod::NotFinite));
}

#[test]
fn the_maximum_has_no_interval() {
    let largest = maximum(&[0, 1, 1], &[1.0, 5.0, 2.0], 0.95);
    assert_eq!((largest.value, largest.upper, largest.method), (5.0, None, IntervalMethod::Extreme));
    assert_eq!((largest.clusters, largest.observations), (2, 3));
    assert!(maximum(&[0, 1, 1], &[1.0, f64::NAN, 2.0], 0.95).value.is_nan());
    assert!(maximum(&[], &[], 0.95).value.is_nan());
}

/// Observations with a common effect per cluster, variance 1 + 1: true median 0, true 90th percentile
/// 1.2816·√2. The 95 % interval covers both about as often as it says.
#[test]
fn the_interval_covers_under_clustering() {
    let mut random = Xoshiro256::seeded(21);
    let mut normal = move || {
        let unit = |bits: u64| (bits >> 11) as f64 / (1u64 << 53) as f64 - 0.5;
        (0..12).map(|_| unit(random.next())).sum::<f64>()
    };
    let of: Vec<u32> = (0..1000).map(|i| i / 20).collect();
    let truth = [0.0, 1.281_551_565_5 * 2f64.sqrt()];
    let mut covered = [0u32; 2];
    let trials = 600;
    for _ in 0..trials {
        let effects: Vec<f64> = (0..50).map(|_| normal()).collect();
        let values: Vec<f64> = of.iter().map(|&cluster| effects[cluster as usize] + normal()).collect();
        let found = percentiles(&of, &values, &[0.5, 0.9], 0.95);
        for ((found, truth), covered) in found.iter().zip(truth).zip(&mut covered) {
            let found = found.unwrap();
            *covered += u32::from(found.lower.unwrap() <= truth && truth <= found.upper.unwrap());
        }
    }
    // Nominal 570, standard deviation 5.3; the tail is known to be a little short.
    assert!(covered.iter().all(|count| (545..590).contains(count)), "{covered:?}");
}

proptest! {
    #[test]
    fn selection_is_sorting(
        mut values in proptest::collection::vec(-1e3f64..1e3, 1..200),
        probability in 0.0f64..=1.0,
    ) {
        let mut sorted = values.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let value = quantile_type7(&sorted, probability).unwrap();
        prop_assert_eq!(select_quantile_type7(&mut values, probability), Some(value));
        prop_assert!(sorted[0] <= value && value <= sorted[sorted.len() - 1]);
    }
}
