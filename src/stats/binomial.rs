//! Exact bounds of a binomial share, for counts that need not be whole.
//!
//! P(X ≤ x) for X binomial (n, u) is I_{1−u}(n − x, x + 1), which is defined for fractions too: those of an
//! effective sample size (Korn and Graubard 1998, Survey Methodology 24:193). The incomplete beta function
//! is our own because statrs ends its continued fraction after 140 terms, too early beyond n of some 20 000.

use statrs::function::gamma::ln_gamma;

use super::estimate::normal_quantile;

/// From this many on both sides the score interval stands in: the ends differ by less than 1/500 of its width.
const MANY: f64 = 20_000.0;

/// The one-sided (Clopper and Pearson 1934) upper bound of a share of which `seen` of `n` were seen: the u with
/// P(X ≤ seen) = 1 − `confidence`. 1 where all were seen, or where n is 0.
pub(super) fn upper_bound(seen: f64, n: f64, confidence: f64) -> f64 {
    bound(seen, n, confidence, 0.0)
}

/// Both bounds, each one-sided at (1 + `confidence`)/2.
pub(super) fn bounds(seen: f64, n: f64, confidence: f64) -> (f64, f64) {
    let one_sided = f64::midpoint(1.0, confidence);
    (1.0 - bound(n - seen, n, one_sided, 0.0), bound(seen, n, one_sided, 0.0))
}

/// The same of which the probability of what was seen counts half (mid-P; Berry and Armitage 1995, The
/// Statistician 44:417): they cover what they say on average, those above never less.
pub(super) fn mid_bounds(seen: f64, n: f64, confidence: f64) -> (f64, f64) {
    let one_sided = f64::midpoint(1.0, confidence);
    (1.0 - bound(n - seen, n, one_sided, 0.5), bound(seen, n, one_sided, 0.5))
}

/// The u with P(X < seen) + (1 − `less`)·P(X = seen) = 1 − `confidence`.
fn bound(seen: f64, n: f64, confidence: f64, less: f64) -> f64 {
    let missing = 1.0 - confidence;
    if n.is_nan() || seen.is_nan() || n <= 0.0 || seen >= n {
        return 1.0;
    }
    if seen <= 0.0 {
        return -((missing / (1.0 - less)).ln() / n).exp_m1();
    }
    if seen > MANY && n - seen > MANY {
        return wilson_upper(seen / n, n, normal_quantile(confidence));
    }
    let at_most = |u: f64| beta_regularized(n - seen, seen + 1.0, 1.0 - u);
    let below = |u: f64| beta_regularized(n - seen + 1.0, seen, 1.0 - u);
    let (mut low, mut high) = (seen / n, 1.0);
    // Each step halves the bracket: 60 leave less than rounding.
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        let less = if less > 0.0 { less * (at_most(middle) - below(middle)) } else { 0.0 };
        if at_most(middle) - less > missing {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

fn wilson_upper(share: f64, n: f64, z: f64) -> f64 {
    let square = z * z / n;
    let reach = (square * share * (1.0 - share) + square * square / 4.0).sqrt();
    (share + square / 2.0 + reach) / (1.0 + square)
}

/// The regularized incomplete beta function I_x(a, b), a and b above 0, by its continued fraction (DLMF
/// 8.17.22) on the side where that converges fast, evaluated by Lentz's method as Thompson and Barnett 1986
/// have it. Terms needed grow as √max(a, b).
fn beta_regularized(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return if x <= 0.0 { 0.0 } else { 1.0 };
    }
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - beta_regularized(b, a, 1.0 - x);
    }
    let ln_front = ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (-x).ln_1p();
    let not_zero = |v: f64| if v.abs() < 1e-300 { 1e-300 } else { v };
    let mut d = 1.0 / not_zero(1.0 - (a + b) * x / (a + 1.0));
    let (mut c, mut h) = (1.0, d);
    for m in (1..10_000).map(f64::from) {
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut change = 1.0;
        for term in [even, odd] {
            d = 1.0 / not_zero(1.0 + term * d);
            c = not_zero(1.0 + term / c);
            change = c * d;
            h *= change;
        }
        if (change - 1.0).abs() < 1e-15 {
            break;
        }
    }
    ln_front.exp() * h / a
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected: `scipy.stats.beta.ppf(0.975, x + 1, n - x)`, SciPy 1.17, counts with fractions among them.
    #[test]
    fn bounds_are_those_of_scipy() {
        for (seen, n, expected) in SCIPY {
            let bound = upper_bound(seen, n, 0.975);
            assert!((bound / expected - 1.0).abs() < 1e-9, "{seen} of {n}: {bound} {expected}");
        }
    }

    const SCIPY: [(f64, f64, f64); 10] = [
        (1.0, 10.0, 0.4450161170281954),
        (9.0, 10.0, 0.9974714214555382),
        (53.0, 1319.0, 0.052231890723018634),
        (2.5, 40.25, 0.18573375448265647),
        (400.0, 14042.0, 0.03137271521534659),
        (19000.0, 40000.0, 0.4799079474572399),
        (19000.5, 800000.0, 0.024086652383021354),
        (3.0, 1000000.0, 8.767247788067677e-06),
        (799990.0, 800000.0, 0.9999940057483776),
        (0.3, 12.7, 0.28987375199525683),
    ];

    /// Expected: bisection on `binom.cdf(x, n, u) - binom.pmf(x, n, u) / 2`, SciPy 1.17.
    #[test]
    fn mid_p_counts_what_was_seen_half() {
        for (seen, n, lower, upper) in MID_P {
            let found = mid_bounds(seen, n, 0.95);
            assert!((found.0 - lower).abs() < 1e-9 && (found.1 - upper).abs() < 1e-9, "{seen} {n} {found:?}");
        }
    }

    const MID_P: [(f64, f64, f64, f64); 5] = [
        (25.0, 50.0, 0.363378258138782, 0.636621741861218),
        (40.0, 100.0, 0.3074766297422594, 0.49823847468305676),
        (60.0, 2000.0, 0.023174093170004184, 0.0381860721479501),
        (1900.0, 2000.0, 0.9397773918227669, 0.9589206235355451),
        (12000.0, 30000.0, 0.3944661543962902, 0.405553140151062),
    ];

    /// Where the score interval takes over, the two agree to 1/500 of the interval's width.
    #[test]
    fn many_observations_have_the_score_interval() {
        for n in [40_100.0, 1e6] {
            let seen = MANY + 1.0;
            let (exact, score) = (upper_bound(MANY - 1.0, n, 0.975), upper_bound(seen, n, 0.975));
            let expected = exact + 2.0 / n;
            assert!((score - expected).abs() < (score - seen / n) / 250.0, "{n}: {score} {expected}");
        }
    }

    #[test]
    fn the_ends() {
        assert_eq!(upper_bound(7.0, 7.0, 0.95), 1.0);
        assert_eq!(upper_bound(0.0, 0.0, 0.95), 1.0);
        assert!((upper_bound(0.0, 1000.0, 0.95) - (1.0 - 0.05_f64.powf(1e-3))).abs() < 1e-15);
        let (lower, upper) = bounds(3.0, 10.0, 0.95);
        let mirrored = bounds(7.0, 10.0, 0.95);
        assert!((lower + mirrored.1 - 1.0).abs() < 1e-15 && (upper + mirrored.0 - 1.0).abs() < 1e-15);
    }
}
