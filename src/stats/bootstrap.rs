//! The studentized bootstrap of a ratio of sums, over clusters.
//!
//! Clusters are drawn with replacement; each resample gives t* = (R* − R)/SE*, R* = Σs*/Σw* and SE* its own
//! clustered standard error. The ends are R − SE·t*₍₁₋α₎ and R − SE·t*₍α₎ (Hall 1988, doi
//! 10.1214/aos/1176350933; over clusters Cameron, Gelbach and Miller 2008, doi 10.1162/rest.90.3.414). Neither
//! end lies nearer to R than the clustered t interval's: a sample that happens to look skewed narrows nothing.
//!
//! Not BCa, which is short of t's width and of its own skewness in small samples: of simulated means of 50 clusters
//! of any shape from normal to lognormal and of uneven size its 95 % interval covers 90 to 94 %, of 20 clusters
//! 86 to 93 %; this one 93 to 96 % and 92 to 96 % (without the lognormal ones 94 and 93.8 % and more; part of it
//! in `examples/coverage.rs`). Where it degenerates, the clustered t interval stands in and says so.

use super::cluster::ClusterSums;
use super::estimate::{Clustered, Estimate, IntervalMethod};
use super::random::{Xoshiro256, below};

/// Resamples that must lie beyond an end for it to be read off.
const MIN_BEYOND: f64 = 5.0;

/// A resample whose squares sum to less than this share of what they are the difference of has no spread.
const NO_SPREAD: f64 = 1e-12;

/// How to resample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resampling {
    /// How often; 10 000 by default.
    pub resamples: usize,
    /// The seed. The same seed draws the same clusters for every figure of a sample.
    pub seed: u64,
}

impl Default for Resampling {
    fn default() -> Self {
        Self { resamples: 10_000, seed: 0 }
    }
}

/// The bootstrap distribution of a ratio of sums, from which intervals of any confidence are read.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    clustered: Clustered,
    /// t* of each resample, sorted; empty where there is nothing to resample.
    studentized: Vec<f64>,
}

impl Bootstrap {
    /// Resamples. Costs resamples × clusters draws of about 2 ns while the sums fit into the cache
    /// (10 000 × 2000: 40 ms), and memory for the resamples alone.
    pub fn new(sums: &ClusterSums, resampling: Resampling) -> Self {
        let occupied = sums.occupied();
        let clustered = Clustered::of_occupied(&occupied, sums.observations());
        if clustered.without_spread(0.95).is_some() {
            return Self { clustered, studentized: Vec::new() };
        }
        let mut studentized = resample(&occupied, clustered.value, resampling);
        studentized.sort_unstable_by(f64::total_cmp);
        Self { clustered, studentized }
    }

    /// The estimate with its two-sided interval at `confidence`.
    pub fn estimate(&self, confidence: f64) -> Estimate {
        let by_t = self.clustered.estimate(confidence);
        let tail = (1.0 - confidence) / 2.0;
        let ends = self.quantile(1.0 - tail).zip(self.quantile(tail));
        let (Some((high, low)), Some(lower), Some(upper)) = (ends, by_t.lower, by_t.upper) else {
            return by_t;
        };
        let Clustered { value, standard_error, .. } = self.clustered;
        let lower = lower.min(value - high * standard_error);
        let upper = upper.max(value - low * standard_error);
        self.clustered.with_interval(lower, upper, confidence, IntervalMethod::Studentized)
    }

    /// The quantile of t* at index (B + 1)·p of B, counted from 1; `None` where the resamples do not resolve
    /// it, or one without spread lies there.
    fn quantile(&self, probability: f64) -> Option<f64> {
        let count = self.studentized.len() as f64;
        if probability.min(1.0 - probability) * count < MIN_BEYOND {
            return None;
        }
        let place = (count + 1.0) * probability - 1.0;
        let below = self.studentized.get(place.floor() as usize).copied()?;
        let above = self.studentized.get(place.ceil() as usize).copied()?;
        let between = (above - below).mul_add(place.fract(), below);
        between.is_finite().then_some(between)
    }
}

/// t* of each resample, in the order drawn.
///
/// With e = s − R·w, t* = Σe*/√(G/(G−1)·Σ(e* − d·w*)²), d = Σe*/Σw*: five sums over what was drawn.
fn resample(sums: &[[f64; 2]], value: f64, resampling: Resampling) -> Vec<f64> {
    let rows: Vec<[f64; 5]> = sums
        .iter()
        .map(|&[s, w]| {
            let e = s - value * w;
            [e, w, e * e, e * w, w * w]
        })
        .collect();
    let mut random = Xoshiro256::seeded(resampling.seed);
    // More clusters than 2³² do not fit into memory's u32 cluster numbers either.
    let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
    let correction = f64::from(count) / (f64::from(count) - 1.0);
    let draw = |totals: &mut [f64; 5], bits: u64| {
        for (total, value) in totals.iter_mut().zip(&rows[below(count, bits as u32)]) {
            *total += value;
        }
    };
    (0..resampling.resamples)
        .map(|_| {
            let [mut even, mut odd] = [[0.0; 5]; 2];
            for _ in 0..count / 2 {
                let bits = random.next();
                draw(&mut even, bits >> 32);
                draw(&mut odd, bits);
            }
            if !count.is_multiple_of(2) {
                draw(&mut even, random.next() >> 32);
            }
            let [e, w, ee, ew, ww]: [f64; 5] = std::array::from_fn(|at| even[at] + odd[at]);
            let shift = e / w;
            let squares = ee - 2.0 * shift * ew + shift * shift * ww;
            if e == 0.0 {
                0.0
            } else if squares > NO_SPREAD * ee {
                e / (correction * squares).sqrt()
            } else {
                e * f64::INFINITY
            }
        })
        .collect()
}

#[cfg(test)]
mod tests;
