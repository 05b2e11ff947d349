//! Tango against published figures and its own definition, McNemar against enumeration, the rules for clusters.

use proptest::prelude::*;

use super::*;

fn flips(b: u64, c: u64, n: u64) -> Flips {
    Flips { both_right: n - b - c, right_to_wrong: b, wrong_to_right: c, ..Flips::default() }
}

fn near(value: (f64, f64), expected: (f64, f64), error: f64) -> bool {
    (value.0 - expected.0).abs() < error && (value.1 - expected.1).abs() < error
}

#[test]
fn outcomes_are_counted() {
    let mut counts = Flips::default();
    let right_right = (true, true, true);
    for (base, quant, same) in [
        right_right,
        right_right,
        (true, true, false),
        (true, false, false),
        (false, true, false),
        (false, true, true),
        (false, false, true),
        (false, false, false),
    ] {
        counts.add(base, quant, same);
    }
    let expected = Flips {
        both_right: 3,
        right_to_wrong: 1,
        wrong_to_right: 2,
        both_wrong: 2,
        wrong_to_another_wrong: 1,
    };
    assert_eq!(counts, expected);
    assert_eq!((counts.items(), counts.flipped()), (8, 3));
    assert_eq!((counts.flips(), counts.answer_changes(), counts.difference()), (0.375, 0.5, 0.125));
    assert!(Flips::default().flips().is_nan() && Flips::default().difference().is_nan());
}

/// By hand: 2·(1 + 6)/2⁶; the others by exact integers (mpmath 1.3).
#[test]
fn mcnemar_has_known_values() {
    for (b, c, expected) in [
        (5, 1, 0.218_75),
        (10, 3, 0.092_285_156_25),
        (40, 20, 0.013_489_293_731_191_86),
        (300, 250, 0.036_578_745_549_102_704),
        (60, 2, 8.474_124_180_146_703e-16),
        (900, 800, 0.016_320_682_494_448_58),
        (3000, 2600, 9.605_025_969_137_84e-8),
    ] {
        for p in [mcnemar(b, c), mcnemar(c, b)] {
            assert!((p / expected - 1.0).abs() < 1e-12, "{b} {c}: {p}");
        }
    }
    assert_eq!((mcnemar(0, 0), mcnemar(1, 0), mcnemar(7, 7), mcnemar(0, 5)), (1.0, 1.0, 1.0, 0.0625));
    assert_eq!(mcnemar(10_000, 0), 0.0);
    assert_eq!(mcnemar(1_000_000, 1_000_000), 1.0);
}

/// Every sequence of b + c coin tosses is tried.
#[test]
fn mcnemar_counts_coin_tosses() {
    for n in 0..=12_u32 {
        for b in 0..=n {
            let extreme = |heads: u32| heads.min(n - heads) <= b.min(n - b);
            let count = (0..1_u32 << n).filter(|tosses| extreme(tosses.count_ones())).count();
            let expected = count as f64 / f64::from(1 << n);
            assert!((mcnemar(u64::from(b), u64::from(n - b)) - expected).abs() < 1e-14, "{b} of {n}");
        }
    }
}

fn statistic(b: f64, c: f64, n: f64, delta: f64) -> f64 {
    let (difference, deviation) = score(b, c, n, delta);
    difference / deviation
}

/// However many items flip: the probability that p is 5 % or less while both directions are as likely.
#[test]
fn mcnemar_keeps_its_level() {
    let mut largest = 0.0_f64;
    for n in (0..60).chain((60..3000).step_by(7)) {
        let alarms = (0..=n / 2).take_while(|&b| mcnemar(b, n - b) <= 0.05).last();
        // Both tails, by symmetry: 2·P(X ≤ b).
        let ln_half = f64::from(n as u32) * 0.5_f64.ln();
        let mut ln_term = ln_half;
        let mut alarm = 0.0;
        for b in 0..=alarms.unwrap_or(0) {
            alarm += if alarms.is_some() { 2.0 * ln_term.exp() } else { 0.0 };
            ln_term += ((n - b) as f64 / (b + 1) as f64).ln();
        }
        assert!(alarm <= 0.05, "{n}: {alarm}");
        largest = largest.max(alarm);
    }
    assert!(largest > 0.04);
}

/// Tango 1998, section 6.1: one of 44 pairs discordant; the statistic at −0.1 and the lower end at 90 %. The
/// others were printed by R's `PropCIs::scoreci.mp` (Bentur et al. 2009: 7 and 1 of 21).
#[test]
fn tango_has_published_values() {
    assert_eq!((statistic(1.0, 0.0, 44.0, -0.1) * 1e3).round(), 1709.0);
    assert_eq!((flips(1, 0, 44).tango(0.90).0 * 1e3).round(), -96.0);
    assert!(near(flips(7, 1, 21).tango(0.95), (-0.517, -0.026), 5e-4));
    assert!(near(flips(25, 28, 618).tango(0.90), (-0.0148, 0.0247), 5e-5));
}

/// Expected: the same equations with 40 digits (mpmath 1.3): the arithmetic loses nothing.
#[test]
fn tango_is_computed_to_the_last_digits() {
    for (b, c, n, confidence, expected) in [
        (1, 0, 44, 0.90, (-0.095_662_426_399_171_68, 0.036_516_938_418_064)),
        (5, 1, 50, 0.95, (-0.198_014_432_373_261_25, 0.021_286_788_148_161_746)),
        (40, 20, 160, 0.95, (-0.218_064_244_166_824_8, -0.030_864_533_133_086_723)),
        (0, 3, 1319, 0.95, (-0.000_636_099_522_798_659_4, 0.006_665_822_662_145_14)),
        (500, 400, 14_042, 0.99, (-0.012_660_960_192_633_126, -0.001_624_093_451_956_702)),
    ] {
        let ends = flips(b, c, n).tango(confidence);
        assert!(near(ends, expected, 1e-13), "{b} {c} {n}: {ends:?}");
    }
}

/// ln likelihood of the table with P(right to wrong) = q and Δ = `delta`, counts of nothing adding nothing.
fn log_likelihood([b, c, n]: [f64; 3], delta: f64, q: f64) -> f64 {
    let term = |count: f64, share: f64| if count == 0.0 { 0.0 } else { count * share.max(0.0).ln() };
    term(b, q) + term(c, q + delta) + term(n - b - c, 1.0 - 2.0 * q - delta)
}

/// By definition: the likelihood is maximized by search, and the difference divided by its deviation there.
fn score_by_search(counts: [f64; 3], delta: f64) -> f64 {
    let (mut low, mut high) = ((-delta).max(0.0), (1.0 - delta) / 2.0);
    for _ in 0..200 {
        let (left, right) = (low + (high - low) / 3.0, high - (high - low) / 3.0);
        if log_likelihood(counts, delta, left) < log_likelihood(counts, delta, right) {
            low = left;
        } else {
            high = right;
        }
    }
    let ([b, c, n], q) = (counts, f64::midpoint(low, high));
    (c - b - n * delta) / (n * (2.0 * q + delta - delta * delta)).sqrt()
}

/// Any table: b, c and n.
fn tables() -> impl Strategy<Value = (u64, u64, u64)> {
    (1_u64..3000)
        .prop_flat_map(|n| {
            (0..=n, Just(n)).prop_flat_map(|(discordant, n)| (0..=discordant, Just(discordant), Just(n)))
        })
        .prop_map(|(b, discordant, n)| (b, discordant - b, n))
}

proptest! {
    /// At both ends the statistic is ±z, by a search that knows no closed form.
    #[test]
    fn tango_inverts_the_score_test((b, c, n) in tables(), confidence in 0.5..0.999) {
        let (lower, upper) = flips(b, c, n).tango(confidence);
        let z = normal_quantile(f64::midpoint(1.0, confidence));
        let counts = [b, c, n].map(|count| count as f64);
        if b < n {
            prop_assert!((score_by_search(counts, lower) - z).abs() < 1e-4 * z, "{lower} {z}");
        } else {
            prop_assert_eq!(lower, -1.0);
        }
        if c < n {
            prop_assert!((score_by_search(counts, upper) + z).abs() < 1e-4 * z, "{upper} {z}");
        } else {
            prop_assert_eq!(upper, 1.0);
        }
    }

    #[test]
    fn tango_is_an_interval((b, c, n) in tables()) {
        let table = flips(b, c, n);
        let (lower, upper) = table.tango(0.95);
        prop_assert!(-1.0 <= lower && lower <= table.difference() && table.difference() <= upper && upper <= 1.0);
        prop_assert!(upper > lower);
        let swapped = flips(c, b, n).tango(0.95);
        prop_assert_eq!(swapped, (-upper, -lower));
        let wider = table.tango(0.99);
        prop_assert!(wider.0 <= lower && upper <= wider.1);
        // Ten times the items, at the same rates, make it narrower.
        let more = flips(10 * b, 10 * c, 10 * n).tango(0.95);
        prop_assert!(more.1 - more.0 < upper - lower);
    }

    /// The test's score is McNemar's at 0, and falls all the way: so the bisection finds the only end.
    #[test]
    fn the_statistic_falls((b, c, n) in tables()) {
        let at = |delta| statistic(b as f64, c as f64, n as f64, delta);
        if b + c > 0 {
            let expected = (c as f64 - b as f64) / ((b + c) as f64).sqrt();
            prop_assert!((at(0.0) - expected).abs() < 1e-12 * expected.abs().max(1.0));
        }
        let values: Vec<f64> =
            (-99..100).filter(|&i| i != 0).map(|i| at(f64::from(i) / 100.0)).collect();
        prop_assert!(values.windows(2).all(|pair| pair[1] < pair[0]));
    }
}

#[test]
fn nothing_flipped_still_has_a_width() {
    for n in [1, 10, 250, 14_042] {
        let z = normal_quantile(0.975);
        let expected = z * z / (n as f64 + z * z);
        assert!(near(flips(0, 0, n).tango(0.95), (-expected, expected), 1e-14));
    }
    assert_eq!(Flips::default().tango(0.95), (-1.0, 1.0));
}

/// The exact coverage: all tables of 60 items, each with its trinomial probability, whose interval holds the
/// truth.
#[test]
fn tango_covers_as_it_says() {
    let n = 60;
    let ln_factorial: Vec<f64> = (0..=n)
        .scan(0.0, |sum, i| {
            *sum += if i > 1 { f64::from(i).ln() } else { 0.0 };
            Some(*sum)
        })
        .collect();
    for (b_share, c_share) in [(0.05, 0.05), (0.1, 0.04), (0.2, 0.2), (0.3, 0.1), (0.02, 0.15)] {
        let truth: f64 = c_share - b_share;
        let (mut covered, mut all) = (0.0, 0.0);
        for b in 0..=n {
            for c in 0..=n - b {
                let rest = n - b - c;
                let ln =
                    |count: i32, share: f64| f64::from(count) * share.ln() - ln_factorial[count as usize];
                let probability = (ln_factorial[n as usize]
                    + ln(b, b_share)
                    + ln(c, c_share)
                    + ln(rest, 1.0 - b_share - c_share))
                .exp();
                let (lower, upper) = flips(b as u64, c as u64, n as u64).tango(0.95);
                all += probability;
                covered += if lower <= truth && truth <= upper { probability } else { 0.0 };
            }
        }
        assert!((all - 1.0_f64).abs() < 1e-10);
        assert!((0.935..0.975).contains(&covered), "{b_share} {c_share}: {covered}");
    }
}
