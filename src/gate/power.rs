//! How many samples would decide what this many did not.
//!
//! A one-sided bound lies z₍₁₋α₎·SE from the value v, and SE shrinks with √n. For a limit M at the distance |M − v| the
//! bound clears it with probability 1 − β once (z₍₁₋α₎ + z₍₁₋β₎)·SE ≤ |M − v|: with reach r = z₍₁₋α₎·SE now, at
//! n·(r·(z₍₁₋α₎ + z₍₁₋β₎)/(z₍₁₋α₎·|M − v|))². That the value stays what it is is a guess, and a message says so.

use super::policy::Limit;
use crate::stats::{Estimate, Power};

/// Probability with which the larger sample is to decide.
const POWER: f64 = 0.80;
/// More than this nobody measures: the figure lies at the limit.
const MOST: f64 = 1e9;

/// Samples that would probably decide; `None` where the figure lies at the limit, or nothing is known of its spread.
pub(super) fn samples_needed(
    limit: Limit,
    estimate: &Estimate,
    one_sided: f64,
    samples: Option<u64>,
) -> Option<u64> {
    let at = match limit {
        Limit::Margin(at) | Limit::Max(at) | Limit::Min(at) => at,
        Limit::MaxNoiseFloors(_) => 0.0,
    };
    let distance = at - estimate.value;
    let bound = if distance > 0.0 { estimate.upper? } else { estimate.lower? };
    let reach = (bound - estimate.value).abs();
    let power = Power { alpha: 1.0 - one_sided, power: POWER };
    // `detectable` of 1 is the sum of both quantiles, at power 1/2 the first alone.
    let both = power.detectable(1.0) / Power { power: 0.5, ..power }.detectable(1.0);
    let needed = samples? as f64 * (reach * both / distance.abs()).powi(2);
    (needed.is_finite() && needed < MOST).then(|| (needed.ceil() as u64).max(samples.unwrap_or(0)))
}
