//! The bias-corrected and accelerated bootstrap (BCa) of a ratio of sums, over clusters.
//!
//! Efron 1987 (doi 10.1080/01621459.1987.10478410); Efron and Tibshirani 1993, chapter 14. Clusters are drawn
//! with replacement, R* = Σs*/Σw*; z₀ = Φ⁻¹(share of R* below R, ties half), the acceleration from the
//! jackknife, a = Σ(R̄−R₍ᵢ₎)³ / (6·(Σ(R̄−R₍ᵢ₎)²)^{3/2}); the ends are the quantiles of R* at
//! Φ(z₀ + (z₀+z)/(1−a(z₀+z))). Where that degenerates, the clustered t interval stands in and says so.

use super::cluster::ClusterSums;
use super::estimate::{Clustered, Estimate, IntervalMethod, normal_cdf, normal_quantile};
use super::quantile::quantile_type7;
use super::random::{Xoshiro256, below};

/// Resamples that must lie beyond an end for it to be read off.
const MIN_BEYOND: f64 = 5.0;

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
    /// Sorted; empty where there is nothing to resample.
    replicates: Vec<f64>,
    acceleration: f64,
}

impl Bootstrap {
    /// Resamples. Costs resamples × clusters draws of about 1 ns while the sums fit into the cache
    /// (10 000 × 2000: 25 ms), and memory for the resamples alone.
    pub fn new(sums: &ClusterSums, resampling: Resampling) -> Self {
        let occupied = sums.occupied();
        let clustered = Clustered::of_occupied(&occupied, sums.observations());
        if clustered.without_spread(0.95).is_some() {
            return Self { clustered, replicates: Vec::new(), acceleration: 0.0 };
        }
        let mut replicates = resample(&occupied, resampling);
        replicates.sort_unstable_by(f64::total_cmp);
        Self { clustered, replicates, acceleration: acceleration(&occupied) }
    }

    /// The estimate with its two-sided interval at `confidence`.
    pub fn estimate(&self, confidence: f64) -> Estimate {
        self.clustered.without_spread(confidence).unwrap_or_else(|| {
            let ends = self.end((1.0 - confidence) / 2.0).zip(self.end(f64::midpoint(1.0, confidence)));
            ends.map_or_else(
                || self.clustered.estimate(confidence),
                |(lower, upper)| self.clustered.with_interval(lower, upper, confidence, IntervalMethod::Bca),
            )
        })
    }

    /// The BCa bound of one-sided level `level`; `None` where it degenerates: (nearly) all resamples on one
    /// side of the value, a transformation that folds back, or an end beyond what the resamples resolve.
    fn end(&self, level: f64) -> Option<f64> {
        let count = self.replicates.len() as f64;
        let less = self.replicates.partition_point(|&r| r < self.clustered.value);
        let not_greater = self.replicates.partition_point(|&r| r <= self.clustered.value);
        let bias = normal_quantile_inside((less + not_greater) as f64 / (2.0 * count))?;
        let moved = bias + normal_quantile_inside(level)?;
        let stretch = 1.0 - self.acceleration * moved;
        if stretch <= 0.0 || stretch.is_nan() {
            return None;
        }
        let probability = normal_cdf(bias + moved / stretch);
        let resolved = probability.min(1.0 - probability) * count >= MIN_BEYOND;
        if resolved { quantile_type7(&self.replicates, probability) } else { None }
    }
}

/// Φ⁻¹ inside (0, 1), `None` at the ends and for NaN.
fn normal_quantile_inside(probability: f64) -> Option<f64> {
    (probability > 0.0 && probability < 1.0).then(|| normal_quantile(probability))
}

/// R* of each resample, in the order drawn.
fn resample(sums: &[[f64; 2]], resampling: Resampling) -> Vec<f64> {
    let mut random = Xoshiro256::seeded(resampling.seed);
    // More clusters than 2³² do not fit into memory's u32 cluster numbers either.
    let count = u32::try_from(sums.len()).unwrap_or(u32::MAX);
    let draw = |totals: &mut [f64; 2], bits: u64| {
        let [s, w] = sums[below(count, bits as u32)];
        totals[0] += s;
        totals[1] += w;
    };
    (0..resampling.resamples)
        .map(|_| {
            let [mut even, mut odd] = [[0.0; 2]; 2];
            for _ in 0..count / 2 {
                let bits = random.next();
                draw(&mut even, bits >> 32);
                draw(&mut odd, bits);
            }
            if !count.is_multiple_of(2) {
                draw(&mut even, random.next() >> 32);
            }
            (even[0] + odd[0]) / (even[1] + odd[1])
        })
        .collect()
}

/// The acceleration by the jackknife over clusters.
fn acceleration(sums: &[[f64; 2]]) -> f64 {
    let numerator: f64 = sums.iter().map(|s| s[0]).sum();
    let denominator: f64 = sums.iter().map(|s| s[1]).sum();
    let left_out = || sums.iter().map(|[s, w]| (numerator - s) / (denominator - w));
    let mean = left_out().sum::<f64>() / sums.len() as f64;
    let squares: f64 = left_out().map(|r| (mean - r).powi(2)).sum();
    let cubes: f64 = left_out().map(|r| (mean - r).powi(3)).sum();
    cubes / (6.0 * squares.powf(1.5))
}

#[cfg(test)]
mod tests;
