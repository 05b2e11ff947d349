//! Paired scores against Tango's interval, numpy's clustered errors, published figures and the rules for edges.

use proptest::prelude::*;

use super::super::estimate::clustered_t;
use super::super::random::Xoshiro256;
use super::*;

fn item(cluster: u32, base: f64, quant: f64) -> PairedScore {
    PairedScore { cluster, stratum: 0, weight: 1.0, base, quant }
}

/// Items in clusters of `size`; of each the flip: −1, 0 or 1. Two of three that do not flip are right.
fn items(size: u32, changes: &[i8]) -> Vec<PairedScore> {
    (0_u32..)
        .zip(changes)
        .map(|(at, &change)| {
            let right = f64::from(u8::from(at % 3 > 0));
            let (base, quant) = match change {
                -1 => (1.0, 0.0),
                1 => (0.0, 1.0),
                _ => (right, right),
            };
            item(at / size, base, quant)
        })
        .collect()
}

fn scores(size: u32, changes: &[i8]) -> PairedScores {
    PairedScores::new(&items(size, changes))
}

fn ends(estimate: &Estimate) -> (f64, f64) {
    (estimate.lower.unwrap(), estimate.upper.unwrap())
}

fn near(value: (f64, f64), expected: (f64, f64), error: f64) -> bool {
    (value.0 - expected.0).abs() < error && (value.1 - expected.1).abs() < error
}

#[test]
fn single_items_have_tangos_interval_and_mcnemars_test() {
    let changes: Vec<i8> = (0..150).map(|i| if i < 15 { -1 } else { i8::from(i % 40 == 20) }).collect();
    let paired = scores(1, &changes);
    let flips = Flips { right_to_wrong: 15, wrong_to_right: 4, both_wrong: 131, ..Flips::default() };
    let difference = paired.difference(0.95);
    assert_eq!(ends(&difference), flips.tango(0.95));
    assert_eq!((difference.value, difference.method), (-11.0 / 150.0, IntervalMethod::Tango));
    assert_eq!((difference.clusters, difference.observations), (150, 150));
    let values: Vec<f64> = changes.iter().map(|&change| f64::from(change)).collect();
    let of: Vec<u32> = (0..150).collect();
    let clustered = clustered_t(&ClusterSums::of_mean(&of, &values), 0.95);
    assert!((difference.standard_error.unwrap() / clustered.standard_error.unwrap() - 1.0).abs() < 1e-12);
    let test = paired.test(Resampling::default()).unwrap();
    assert_eq!((test.p, test.method), (mcnemar(15, 4), TestMethod::Mcnemar));
}

/// Fewer than ten flips are corrected for continuity by a quarter of an item, and so a little wider.
#[test]
fn few_flips_are_corrected() {
    let changes: Vec<i8> = (0..500).map(|i| -i8::from(i < 5)).collect();
    let (lower, upper) = ends(&scores(1, &changes).difference(0.95));
    let flips = Flips { right_to_wrong: 5, both_right: 495, ..Flips::default() };
    let tango = flips.tango(0.95);
    assert!(lower < tango.0 && upper > tango.1);
    let half = super::tango(5.0, 0.0, 500.0, 0.5, 0.95);
    assert!(lower > half.0 && upper < half.1);
}

/// The exact coverage of what independent items get, all tables with their trinomial probability: Tango's own
/// interval falls to 93.1 % at five flips that all are losses.
#[test]
fn few_flips_are_covered() {
    let n = 400_u64;
    let ln_factorial: Vec<f64> = (0..=n)
        .scan(0.0, |sum, i| {
            *sum += (i.max(1) as f64).ln();
            Some(*sum)
        })
        .collect();
    let mut lowest_of_tango = 1.0_f64;
    for flips in [2.0, 4.0, 5.0, 6.0, 8.0, 10.0, 13.0] {
        for loss in [0.5, 0.7, 0.9, 1.0] {
            let (b_share, c_share) = (flips * loss / n as f64, flips * (1.0 - loss) / n as f64);
            let truth = c_share - b_share;
            let (mut covered, mut by_tango) = (0.0, 0.0);
            for b in 0..40_u64 {
                for c in 0..if loss < 1.0 { 40_u64 } else { 1 } {
                    let term = |count: u64, share: f64| {
                        (if count == 0 { 0.0 } else { count as f64 * share.ln() })
                            - ln_factorial[count as usize]
                    };
                    let rest = n - b - c;
                    let ln = ln_factorial[n as usize]
                        + term(b, b_share)
                        + term(c, c_share)
                        + term(rest, 1.0 - b_share - c_share);
                    let paired = PairedScores {
                        observations: n,
                        independent: true,
                        base: 0.0,
                        quant: 0.0,
                        both: 0.0,
                        difference: (c as f64 - b as f64) / n as f64,
                        loss: b as f64 / n as f64,
                        gain: c as f64 / n as f64,
                        influences: vec![[0.0; 2]; n as usize],
                        differences: ClusterSums::default(),
                        lost: b,
                        gained: c,
                    };
                    let holds =
                        |(lower, upper): (f64, f64)| f64::from(u8::from(lower <= truth && truth <= upper));
                    covered += ln.exp() * holds(ends(&paired.difference(0.95)));
                    let table =
                        Flips { right_to_wrong: b, wrong_to_right: c, both_right: rest, ..Flips::default() };
                    by_tango += ln.exp() * holds(table.tango(0.95));
                }
            }
            assert!(covered > 0.94, "{flips} {loss}: {covered}");
            lowest_of_tango = lowest_of_tango.min(by_tango);
        }
    }
    assert!(lowest_of_tango < 0.935, "{lowest_of_tango}");
}

/// By hand: SE² is pq/(G − 1), that of independent items pq/(n − 1), and so D = 1999/199.
#[test]
fn clusters_that_flip_together_count_as_one() {
    let changes: Vec<i8> = (0..2000).map(|i| -i8::from(i / 10 % 5 == 0)).collect();
    let clustered = scores(10, &changes);
    let difference = clustered.difference(0.95);
    assert_eq!(difference.method, IntervalMethod::ClusteredScore);
    // n/D, corrected by (t of 1999 over t of 199)².
    let size = 2000.0 * 199.0 / 1999.0 * (1.961_151_9_f64 / 1.971_956_5).powi(2);
    let expected = tango(0.2 * size, 0.0, size, 0.0, 0.95);
    assert!(near(ends(&difference), expected, 2e-6), "{difference:?} {expected:?}");
    let test = clustered.test(Resampling::default()).unwrap();
    assert_eq!(test.method, TestMethod::SignFlipSampled);
    assert!(test.p < 0.001);
    assert_eq!(scores(500, &changes).test(Resampling::default()).unwrap().method, TestMethod::SignFlip);
}

/// Expected: numpy's clustered standard errors (sums of w·(x − mean of its stratum), scaled by √(G/(G − 1)) of
/// the stratum, per cluster), written down separately here with loops over everything.
#[test]
fn errors_are_those_of_the_definition() {
    let mut random = Xoshiro256::seeded(8);
    let mut uniform = || (random.next() >> 11) as f64 / (1_u64 << 53) as f64;
    let all: Vec<PairedScore> = (0..240)
        .map(|_| {
            let stratum = (uniform() * 3.0) as u32;
            let base = uniform();
            PairedScore {
                cluster: 900_000 * ((uniform() * 30.0) as u32),
                stratum: stratum * 7,
                weight: [1.0, 2.0, 0.5][stratum as usize],
                base,
                quant: (base + 0.3 * (uniform() - 0.6)).clamp(0.0, 1.0),
            }
        })
        .collect();
    let paired = PairedScores::new(&all);
    let weight: f64 = all.iter().map(|item| item.weight).sum();
    let mean = |value: &dyn Fn(&PairedScore) -> f64, of: &dyn Fn(&PairedScore) -> bool| {
        let wanted = all.iter().filter(|item| of(item));
        let (sum, weight) = wanted.fold((0.0, 0.0), |(s, w), i| (s + i.weight * value(i), w + i.weight));
        sum / weight
    };
    let error = |value: &dyn Fn(&PairedScore) -> f64| {
        let mut variance = 0.0;
        for cluster in 0..30 {
            let mut sum = 0.0;
            for stratum in [0, 7, 14] {
                let members: Vec<&PairedScore> = all.iter().filter(|item| item.stratum == stratum).collect();
                let clusters =
                    (0..30).filter(|c| members.iter().any(|item| item.cluster == 900_000 * c)).count() as f64;
                let centre = mean(value, &|item| item.stratum == stratum);
                for item in members.iter().filter(|item| item.cluster == 900_000 * cluster) {
                    sum += item.weight * (value(item) - centre) * (clusters / (clusters - 1.0)).sqrt();
                }
            }
            variance += (sum / weight).powi(2);
        }
        variance.sqrt()
    };
    let close = |found: &Estimate, value: f64, error: f64| {
        assert!((found.value - value).abs() < 1e-12, "{found:?} {value}");
        assert!((found.standard_error.unwrap() / error - 1.0).abs() < 1e-9, "{found:?} {error}");
        assert_eq!((found.clusters, found.observations), (30, 240));
    };
    let base = mean(&|item| item.base, &|_| true);
    let ratio = mean(&|item| item.quant, &|_| true) / base;
    close(&paired.base(0.95), base, error(&|item| item.base));
    close(&paired.quant(0.95), ratio * base, error(&|item| item.quant));
    let difference = |item: &PairedScore| item.quant - item.base;
    close(&paired.difference(0.95), mean(&difference, &|_| true), error(&difference));
    close(&paired.ratio(0.95).unwrap(), ratio, error(&|item| (item.quant - ratio * item.base) / base));
}

#[test]
fn certainty_is_never_claimed() {
    // Nothing flipped, alone and in clusters: 1 − 0.025^{1/clusters}.
    for (size, clusters) in [(1, 200.0), (10, 20.0)] {
        let none = scores(size, &[0; 200]);
        let difference = none.difference(0.95);
        let bound = 1.0 - 0.025_f64.powf(1.0 / clusters);
        assert!(near(ends(&difference), (-bound, bound), 1e-14));
        assert_eq!((difference.value, difference.standard_error), (0.0, None));
        assert_eq!(difference.method, IntervalMethod::Exact);
        let ratio = none.ratio(0.95).unwrap();
        let (lower, upper) = ends(&ratio);
        assert!(ratio.value == 1.0 && lower < 1.0 && upper > 1.0);
    }
    // In each cluster one item falls and one rises: a bootstrap would see nothing move.
    let changes: Vec<i8> = (0..200).map(|i| [-1, 1, 0, 0][i % 4]).collect();
    let cancelled = scores(4, &changes).difference(0.95);
    assert_eq!((cancelled.value, cancelled.method), (0.0, IntervalMethod::ClusteredScore));
    assert!(cancelled.upper.unwrap() > 0.15 && cancelled.lower.unwrap() < -0.15);
    // All fall.
    let all = scores(1, &[-1; 50]);
    let difference = all.difference(0.95);
    assert_eq!((difference.value, difference.lower, difference.standard_error), (-1.0, Some(-1.0), None));
    assert!(difference.upper.unwrap() > -0.99);
    let (base, quant) = (all.base(0.95), all.quant(0.95));
    assert_eq!((base.value, base.upper, quant.value, quant.lower), (1.0, Some(1.0), 0.0, Some(0.0)));
    assert!((quant.upper.unwrap() - exact_bound(50, 0.95)).abs() < 1e-12);
    assert_eq!(all.ratio(0.95).unwrap().lower, Some(0.0));
    // In each cluster two thirds are right: rounding is no spread.
    let rounding: Vec<PairedScore> =
        (0..90).map(|i| item(i / 3, f64::from(u8::from(i % 3 > 0)), 1.0)).collect();
    let difference = PairedScores::new(&rounding).difference(0.95);
    assert!(difference.upper.unwrap() - difference.lower.unwrap() > 0.2, "{difference:?}");
}

#[test]
fn too_little_has_no_interval() {
    let few = scores(20, &[-1; 180]);
    for estimate in [few.difference(0.95), few.base(0.95), few.quant(0.95), few.ratio(0.95).unwrap()] {
        assert_eq!((estimate.lower, estimate.upper), (None, None));
        assert_eq!(estimate.method, IntervalMethod::TooFewClusters);
    }
    assert_eq!(few.ratio_above(0.25, 0.95), None);
    let none = PairedScores::new(&[]);
    assert_eq!(none.difference(0.95).method, IntervalMethod::NotFinite);
    assert!(none.difference(0.95).value.is_nan() && none.base(0.95).value.is_nan());
    assert_eq!((none.ratio(0.95), none.test(Resampling::default())), (None, None));
    let never: Vec<PairedScore> = (0..30).map(|i| item(i, 0.0, f64::from(u8::from(i < 3)))).collect();
    assert_eq!(PairedScores::new(&never).ratio(0.95), None);
    // A stratum of one cluster deviates from the mean of all.
    let mut strata = items(1, &[0; 40]);
    strata[7].stratum = 1;
    assert!(PairedScores::new(&strata).base(0.95).standard_error.unwrap() > 0.0);
}

#[test]
fn enough_single_items_have_mid_p_bounds() {
    let paired = scores(1, &[0; 90]);
    assert_eq!((paired.base(0.95).method, paired.base(0.95).value), (IntervalMethod::MidP, 2.0 / 3.0));
    assert_eq!(ends(&paired.base(0.95)), mid_bounds(60.0, 90.0, 0.95));
    let paired = scores(1, &[0; 54]);
    assert_eq!(paired.base(0.95).method, IntervalMethod::Exact);
    assert_eq!(ends(&paired.base(0.95)), bounds(36.0, 54.0, 0.95));
}

/// Against its definition: at both ends ψ, 0 is an end of the interval of Δ − ψB.
#[test]
fn recovery_above_chance_is_one_plus_a_ratio() {
    let changes: Vec<i8> = (0..900).map(|i| if i % 15 == 0 { -1 } else { i8::from(i % 40 == 3) }).collect();
    let paired = scores(3, &changes);
    let (base, difference) = (paired.base(0.95), paired.difference(0.95));
    let found = paired.ratio_above(0.25, 0.95).unwrap();
    let expected = (paired.quant(0.95).value - 0.25) / (base.value - 0.25);
    assert!((found.value - expected).abs() < 1e-12 && found.method == IntervalMethod::Mover);
    let (lower, upper) = ends(&found);
    assert!(lower < expected && expected < upper && upper < 1.0);
    // No chance at all: the score interval of the ratio, which is made quite differently.
    let (above_none, ratio) = (paired.ratio_above(0.0, 0.95).unwrap(), paired.ratio(0.95).unwrap());
    assert!(near(ends(&above_none), ends(&ratio), 1e-3), "{above_none:?} {ratio:?}");
    // About half of what base scores is above a chance of a third: the loss weighs twice.
    let doubled = paired.ratio_above(base.value / 2.0, 0.95).unwrap();
    assert!((doubled.value - 1.0 - 2.0 * difference.value / base.value).abs() < 1e-12);
    assert_eq!(paired.ratio_above(base.value - 0.001, 0.95), None);
}

/// Newcombe 1998, table II, method 10: 56/70 − 48/80 is 0.2 with 0.0524 to 0.3339, of Wilson's intervals.
#[test]
fn independent_differences_have_published_values() {
    let wilson = |seen: f64, n: f64| {
        let square = 1.959_964_f64.powi(2) / n;
        let share = seen / n;
        let reach = (square * share * (1.0 - share) + square * square / 4.0).sqrt();
        let middle = share + square / 2.0;
        let found = Estimate::without_interval(share, 0.95, n as u64, n as u64, IntervalMethod::Exact);
        Estimate {
            lower: Some((middle - reach) / (1.0 + square)),
            upper: Some((middle + reach) / (1.0 + square)),
            ..found
        }
    };
    let (a, b) = (wilson(56.0, 70.0), wilson(48.0, 80.0));
    let difference = difference_of_independent(&a, &b);
    assert!((difference.value - 0.2).abs() < 1e-15 && near(ends(&difference), (0.0524, 0.3339), 5e-5));
    assert_eq!((difference.method, difference.observations), (IntervalMethod::Mover, 150));
    let none = Estimate::without_interval(0.5, 0.95, 3, 3, IntervalMethod::TooFewClusters);
    assert_eq!(difference_of_independent(&a, &none).method, IntervalMethod::TooFewClusters);
    assert_eq!(difference_of_independent(&none, &b).lower, None);
}

proptest! {
    /// Order, names of clusters and the unit of weights change nothing; exchanged models mirror the figures.
    #[test]
    fn what_must_not_matter_does_not(
        changes in prop::collection::vec(-1_i8..=1, 60..200),
        size in 1_u32..5,
        renamed in 1_u32..1000,
    ) {
        let all = items(size, &changes);
        let found = PairedScores::new(&all);
        let difference = found.difference(0.95);
        let mut other: Vec<PairedScore> =
            all.iter().map(|item| PairedScore { cluster: u32::MAX - renamed * item.cluster, ..*item }).collect();
        other.reverse();
        let again = PairedScores::new(&other).difference(0.95);
        prop_assert!(near(ends(&difference), ends(&again), 1e-9));
        let swap = |item: &PairedScore| PairedScore { base: item.quant, quant: item.base, ..*item };
        let swapped = PairedScores::new(&all.iter().map(swap).collect::<Vec<_>>());
        let (lower, upper) = ends(&swapped.difference(0.95));
        prop_assert!(near(ends(&difference), (-upper, -lower), 1e-9));
        let ratios = found.ratio(0.95).zip(swapped.ratio(0.95));
        if let Some((lower, upper)) = ratios.and_then(|(ratio, swapped)| ratio.lower.zip(swapped.upper)) {
            prop_assert!((lower * upper - 1.0).abs() < 1e-6);
        }
        let (lower, upper) = ends(&difference);
        prop_assert!(lower <= difference.value && difference.value <= upper && lower < upper);
        let base = found.base(0.95);
        let (lower, upper) = ends(&base);
        prop_assert!(0.0 <= lower && lower <= base.value && base.value <= upper && upper <= 1.0 && lower < upper);
    }

    /// Whatever the weights, the macro mean of tasks is the mean of the tasks' means.
    #[test]
    fn weights_make_the_macro_mean(changes in prop::collection::vec(-1_i8..=1, 60..200), split in 20_usize..40) {
        let mut all = items(1, &changes);
        let n = all.len() as f64;
        for (at, item) in all.iter_mut().enumerate() {
            item.stratum = u32::from(at >= split);
            let size = if at < split { split as f64 } else { n - split as f64 };
            item.weight = n / 2.0 / size;
        }
        let mean = |of: &[PairedScore]| of.iter().map(|item| item.quant).sum::<f64>() / of.len() as f64;
        let expected = f64::midpoint(mean(&all[..split]), mean(&all[split..]));
        prop_assert!((PairedScores::new(&all).quant(0.95).value - expected).abs() < 1e-12);
    }
}
