//! Paired binary outcomes: base right or wrong, quant right or wrong, on the same items.
//!
//! Only items that flip tell the two apart: b from right to wrong, c from wrong to right, of n. The interval
//! of Δ = (c − b)/n is Tango's (1998, Statistics in Medicine 17:891), the test McNemar's in its exact form
//! (1947, doi 10.1007/BF02295996), where each item is its own cluster; `scores` has what items in clusters
//! need. Not rejecting is never called equivalence here: that is what the interval is for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::estimate::normal_quantile;

/// How many items went from what to what, base to quant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Flips {
    /// Right under both.
    pub both_right: u64,
    /// b: right under base, wrong under quant.
    pub right_to_wrong: u64,
    /// c: wrong under base, right under quant.
    pub wrong_to_right: u64,
    /// Wrong under both, the answers equal or not.
    pub both_wrong: u64,
    /// w: those of `both_wrong` whose answers differ.
    pub wrong_to_another_wrong: u64,
}

impl Flips {
    /// Counts one item. Whether the answers are the same matters only where both are wrong.
    pub fn add(&mut self, base_right: bool, quant_right: bool, same_answer: bool) {
        match (base_right, quant_right) {
            (true, true) => self.both_right += 1,
            (true, false) => self.right_to_wrong += 1,
            (false, true) => self.wrong_to_right += 1,
            (false, false) => {
                self.both_wrong += 1;
                self.wrong_to_another_wrong += u64::from(!same_answer);
            }
        }
    }

    /// n: all items.
    pub fn items(&self) -> u64 {
        self.both_right + self.flipped() + self.both_wrong
    }

    /// b + c.
    pub fn flipped(&self) -> u64 {
        self.right_to_wrong + self.wrong_to_right
    }

    /// `flips` = (b + c)/n, a share; NaN without items (Dutta et al. 2024, arXiv 2407.09141).
    pub fn flips(&self) -> f64 {
        self.flipped() as f64 / self.items() as f64
    }

    /// `answer_changes` = (b + c + w)/n, a share; NaN without items.
    pub fn answer_changes(&self) -> f64 {
        (self.flipped() + self.wrong_to_another_wrong) as f64 / self.items() as f64
    }

    /// Δ = (c − b)/n, quant's accuracy less base's, a share; NaN without items.
    pub fn difference(&self) -> f64 {
        (self.wrong_to_right as f64 - self.right_to_wrong as f64) / self.items() as f64
    }

    /// Tango's two-sided score interval of Δ, items taken as independent; (−1, 1) without items.
    ///
    /// It has a width even where nothing flipped: ±z²/(n + z²).
    pub fn tango(&self, confidence: f64) -> (f64, f64) {
        tango(self.right_to_wrong as f64, self.wrong_to_right as f64, self.items() as f64, 0.0, confidence)
    }
}

/// How a p was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TestMethod {
    /// McNemar's exact test: each item is its own cluster.
    Mcnemar,
    /// Sign flips of whole clusters, all of them counted.
    SignFlip,
    /// Sign flips of whole clusters, a seeded sample of them.
    SignFlipSampled,
}

/// A two-sided test of no difference.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PairedTest {
    /// p, not adjusted for other tests.
    pub p: f64,
    /// How it was found.
    pub method: TestMethod,
}

/// McNemar's exact two-sided p: min(1, 2·P(X ≤ min(b, c))) for X binomial (b + c, ½); 1 where b + c = 0.
///
/// The terms follow one another from the middle by their ratio, C(n, j−1)/C(n, j) = j/(n−j+1), and are
/// divided by their own sum: no factorial, no logarithm. O(√(b + c)), for beyond they vanish; so does a p
/// below 1e-308.
pub fn mcnemar(b: u64, c: u64) -> f64 {
    let (n, seen) = (b + c, b.min(c));
    let middle = n / 2;
    let (mut term, mut lower_half, mut tail) = (1.0_f64, 0.0, 0.0);
    // By symmetry the half below the middle stands for both; an even n has its middle term only once.
    let middle_weight = if n.is_multiple_of(2) { 0.5 } else { 1.0 };
    for j in (0..=middle).rev() {
        lower_half += if j == middle { middle_weight } else { 1.0 } * term;
        if j <= seen {
            tail += term;
        }
        term *= j as f64 / (n - j + 1) as f64;
        if term < f64::MIN_POSITIVE {
            break;
        }
    }
    (tail / lower_half).min(1.0)
}

/// Tango's interval for (c − b)/n; counts may be fractions. The lower end is the mirrored upper one.
///
/// `correction` is taken off the difference of the counts that the statistic weighs (a correction for
/// continuity; 0 is Tango's own interval).
pub(super) fn tango(b: f64, c: f64, n: f64, correction: f64, confidence: f64) -> (f64, f64) {
    if n <= 0.0 {
        return (-1.0, 1.0);
    }
    let z = normal_quantile(f64::midpoint(1.0, confidence));
    (-tango_upper(c, b, n, correction, z), tango_upper(b, c, n, correction, z))
}

/// The largest Δ that the score test of one-sided level Φ(−z) does not reject: the statistic falls with Δ,
/// from 0 at (c − b)/n to −∞ at 1.
fn tango_upper(b: f64, c: f64, n: f64, correction: f64, z: f64) -> f64 {
    let (mut low, mut high) = ((c - b) / n, 1.0);
    // Each step halves the bracket: 100 leave less than rounding, but for ends that are all but 0.
    for _ in 0..100 {
        let middle = f64::midpoint(low, high);
        if middle <= low || middle >= high {
            break;
        }
        let (difference, deviation) = score(b, c, n, middle);
        if difference + correction > -z * deviation {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// Numerator and denominator of Tango's statistic (c − b − nΔ)/√(n·(2q + Δ(1 − Δ))) for the hypothesis that Δ is
/// the difference.
///
/// q is the likeliest P(right to wrong) under it, the larger root of 2n·q² + B·q − b·Δ(1 − Δ) = 0 with
/// B = (2n − c + b)·Δ − (b + c); the variance is p_b + p_c − Δ². A negative Δ is mirrored: for others all terms
/// below the root are positive, and nothing cancels.
fn score(b: f64, c: f64, n: f64, delta: f64) -> (f64, f64) {
    if delta < 0.0 {
        let (difference, deviation) = score(c, b, n, -delta);
        return (-difference, deviation);
    }
    let product = delta * (1.0 - delta);
    let linear = (2.0 * n - c + b) * delta - (b + c);
    let root = (linear * linear + 8.0 * n * b * product).sqrt();
    let q = if linear > 0.0 { 2.0 * b * product / (linear + root) } else { (root - linear) / (4.0 * n) };
    (c - b - n * delta, (n * (2.0 * q + product)).sqrt())
}

#[cfg(test)]
mod tests;
