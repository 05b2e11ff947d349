//! Quantiles of type 7, and their intervals under clustering.
//!
//! Type 7 (Hyndman and Fan 1996, doi 10.1080/00031305.1996.10473566; the default of R and numpy) interpolates
//! linearly at index (n−1)·p of the sorted sample. Intervals are Woodruff's (1952, doi
//! 10.1080/01621459.1952.10483443): the clustered interval of the share of observations up to the quantile is
//! read back through the sample's own quantiles. It knows nothing of what is measured.

use super::cluster::ClusterSums;
use super::estimate::{Clustered, Estimate, IntervalMethod, MIN_CLUSTERS, t_quantile};

/// A quantile is given only with this many observations beyond it.
pub const MIN_BEYOND: usize = 10;

/// The quantile of type 7 of an ascending sample; `None` if that is empty or `probability` outside [0, 1].
/// Sorted by `f64::total_cmp`, a NaN is last and makes the sample's quantiles NaN, all of them.
pub fn quantile_type7(sorted: &[f64], probability: f64) -> Option<f64> {
    let (low, share) = place(sorted.len(), probability)?;
    if sorted.last()?.is_nan() {
        return Some(f64::NAN);
    }
    let next = sorted.get(low + 1).copied();
    Some(interpolate(*sorted.get(low)?, next, share))
}

/// The same of a sample in any order, by selection: O(n), and `values` are left in another order.
pub fn select_quantile_type7(values: &mut [f64], probability: f64) -> Option<f64> {
    let (low, share) = place(values.len(), probability)?;
    if values.iter().any(|value| value.is_nan()) {
        return Some(f64::NAN);
    }
    let (_, &mut at, above) = values.select_nth_unstable_by(low, f64::total_cmp);
    Some(interpolate(at, above.iter().copied().min_by(f64::total_cmp), share))
}

/// How many of n observations lie beyond a quantile, on the side on which there are fewer.
pub fn observations_beyond(n: usize, probability: f64) -> usize {
    place(n, probability).map_or(0, |(low, share)| {
        let below = if share > 0.0 { low + 1 } else { low };
        below.min(n - 1 - low)
    })
}

/// The quantiles of `values` at each probability, each with its interval, or `None` where fewer than
/// [`MIN_BEYOND`] observations lie beyond it.
///
/// `clusters` holds each value's cluster. An end of the interval that the sample does not reach is absent.
/// O(n log n) and O(n) for each probability.
///
/// # Panics
/// If the two slices differ in length.
pub fn percentiles(
    clusters: &[u32],
    values: &[f64],
    probabilities: &[f64],
    confidence: f64,
) -> Vec<Option<Estimate>> {
    let found = percentiles_at(clusters, values, probabilities, &[confidence]);
    found.into_iter().map(|estimates| estimates?.first().copied()).collect()
}

/// The same at several confidences, for which the sample is sorted and summed up but once: per probability one
/// estimate for each confidence.
///
/// # Panics
/// If the two slices differ in length.
pub fn percentiles_at(
    clusters: &[u32],
    values: &[f64],
    probabilities: &[f64],
    confidences: &[f64],
) -> Vec<Option<Vec<Estimate>>> {
    assert_eq!(clusters.len(), values.len(), "a cluster for each value");
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let estimates = |&probability: &f64| {
        let supported = observations_beyond(sorted.len(), probability) >= MIN_BEYOND;
        let value = quantile_type7(&sorted, probability).filter(|_| supported)?;
        let up_to: Vec<f64> = values.iter().map(|&v| f64::from(v <= value)).collect();
        let share = Clustered::new(&ClusterSums::of_mean(clusters, &up_to));
        let at = |&confidence: &f64| woodruff(&share, &sorted, probability, value, confidence);
        Some(confidences.iter().map(at).collect())
    };
    probabilities.iter().map(estimates).collect()
}

/// The largest value: no interval, a sample does not show how far its maximum is from the population's.
/// NaN if any value is.
pub fn maximum(clusters: &[u32], values: &[f64], confidence: f64) -> Estimate {
    let counted = Clustered::new(&ClusterSums::of_mean(clusters, values));
    let larger = |max: f64, &value: &f64| if max.is_nan() || value < max { max } else { value };
    let value = values.iter().fold(f64::NEG_INFINITY, larger);
    let value = if values.is_empty() { f64::NAN } else { value };
    let clusters = counted.clusters as u64;
    Estimate::without_interval(value, confidence, clusters, counted.observations, IntervalMethod::Extreme)
}

/// The interval of a quantile; `share` is that of the observations up to it.
fn woodruff(share: &Clustered, sorted: &[f64], probability: f64, value: f64, confidence: f64) -> Estimate {
    let without = |method| {
        Estimate::without_interval(value, confidence, share.clusters as u64, share.observations, method)
    };
    if value.is_nan() {
        return without(IntervalMethod::NotFinite);
    }
    if share.clusters < MIN_CLUSTERS {
        return without(IntervalMethod::TooFewClusters);
    }
    let t = t_quantile(share.clusters - 1, f64::midpoint(1.0, confidence));
    let reach = t * share.standard_error;
    let lower = quantile_type7(sorted, probability - reach);
    let upper = quantile_type7(sorted, probability + reach);
    // Woodruff's own standard error: half the interval, in units of the reach.
    let width = lower.zip(upper).map(|(lower, upper)| (upper - lower) / (2.0 * t));
    let standard_error = width.filter(|width| width.is_finite());
    let method = IntervalMethod::Woodruff;
    Estimate { lower, upper, standard_error, ..without(method) }
}

/// Index below and the share of the way to the next.
fn place(n: usize, probability: f64) -> Option<(usize, f64)> {
    if n == 0 || !(0.0..=1.0).contains(&probability) {
        return None;
    }
    let index = (n - 1) as f64 * probability;
    Some((index.floor() as usize, index.fract()))
}

/// Not a weighted mean: equal neighbours give exactly themselves, infinite ones too.
fn interpolate(low: f64, next: Option<f64>, share: f64) -> f64 {
    match next {
        Some(next) if share > 0.0 && next != low => (next - low).mul_add(share, low),
        _ => low,
    }
}

#[cfg(test)]
mod tests;
