//! A figure with its interval, and the clustered standard error.
//!
//! For a ratio R = Σs/Σw over G clusters (a mean where w counts), the clustered standard error is
//! √(G/(G−1)) · √Σ_c(s_c − R·w_c)² / Σw, with t_{G−1} (Miller 2024, arXiv 2411.00640, with the usual
//! finite-sample factor; the ratio by linearization, Cochran 1977, chapter 6). Below ten clusters there is
//! no interval. It draws nothing at random; that is `bootstrap`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cluster::ClusterSums;
use statrs::distribution::{Continuous, ContinuousCDF, Normal, StudentsT};

/// Below this many clusters no interval is given.
pub const MIN_CLUSTERS: usize = 10;

/// How an interval was found, or why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IntervalMethod {
    /// Studentized bootstrap over cluster sums, no end nearer than the clustered t interval's.
    Studentized,
    /// Bias-corrected and accelerated bootstrap over cluster sums; only in files of older versions.
    Bca,
    /// Clustered standard error and Student's t, because the bootstrap degenerated or was not asked for.
    ClusteredT,
    /// Exact (Clopper-Pearson) bounds of a share, observations in clusters counting as fewer (Korn-Graubard);
    /// where no exception was seen, the rule of three.
    Exact,
    /// Mid-P bounds of a share of independent observations with many exceptions.
    MidP,
    /// Tango's score interval for the difference of paired shares; below 10 flips corrected for continuity.
    Tango,
    /// Nam and Blackwelder's score interval for the ratio of paired shares.
    ScoreRatio,
    /// Either of the two with the effective sample size of items that come in clusters or have partial scores.
    ClusteredScore,
    /// Put together from the intervals of the estimates it is made of.
    Mover,
    /// Woodruff's method for quantiles. An end that would lie beyond the sample is absent.
    Woodruff,
    /// No cluster deviates from the value: the ends are the value, and the sample cannot say more.
    Constant,
    /// None: fewer than [`MIN_CLUSTERS`] clusters.
    TooFewClusters,
    /// None: the value is NaN or infinite, or there is no observation.
    NotFinite,
    /// None: an extreme, whose sampling error the sample does not show.
    Extreme,
}

/// A figure, its two-sided interval and what it rests on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Estimate {
    /// The figure over the whole sample, in the units of the observations.
    #[serde(deserialize_with = "nan_if_null")]
    #[schemars(with = "Option<f64>")]
    pub value: f64,
    /// The lower end; alone, a one-sided bound at (1 + confidence)/2.
    pub lower: Option<f64>,
    /// The upper end, likewise.
    pub upper: Option<f64>,
    /// The clustered standard error; `None` where there is no interval, or an exact one.
    pub standard_error: Option<f64>,
    /// The two-sided confidence of the interval: 0.95, say.
    pub confidence: f64,
    /// Clusters with at least one observation.
    pub clusters: u64,
    /// Observations.
    pub observations: u64,
    /// How the interval was found.
    pub method: IntervalMethod,
}

/// JSON has no NaN and no infinity: they are written as null, and come back as NaN.
pub(crate) fn nan_if_null<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

impl Estimate {
    /// A value without an interval.
    pub fn without_interval(
        value: f64,
        confidence: f64,
        clusters: u64,
        observations: u64,
        method: IntervalMethod,
    ) -> Self {
        Self {
            value,
            lower: None,
            upper: None,
            standard_error: None,
            confidence,
            clusters,
            observations,
            method,
        }
    }

    /// e to the power of this: perplexity of mean nll, `ppl_ratio` of `delta_nll`. The ends are transformed;
    /// the standard error by the delta method.
    #[must_use]
    pub fn exp(self) -> Self {
        let value = self.value.exp();
        self.transformed(f64::exp, value)
    }

    /// The square root, for a root mean square from a mean of squares; a lower end below 0 becomes 0.
    #[must_use]
    pub fn sqrt(self) -> Self {
        self.transformed(|end| end.max(0.0).sqrt(), 0.5 / self.value.sqrt())
    }

    /// This times a factor above 0.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        self.transformed(|end| end * factor, factor)
    }

    fn transformed(self, increasing: impl Fn(f64) -> f64, derivative: f64) -> Self {
        Self {
            value: increasing(self.value),
            lower: self.lower.map(&increasing),
            upper: self.upper.map(&increasing),
            standard_error: self.standard_error.map(|error| error * derivative).filter(|e| e.is_finite()),
            ..self
        }
    }
}

/// The ratio of sums with the interval value ± t_{G−1} · clustered standard error.
pub fn clustered_t(sums: &ClusterSums, confidence: f64) -> Estimate {
    Clustered::new(sums).estimate(confidence)
}

/// Value and clustered standard error, of which every interval here is made or to which it falls back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clustered {
    pub(super) value: f64,
    pub(super) standard_error: f64,
    pub(super) clusters: usize,
    pub(super) observations: u64,
}

impl Clustered {
    pub(super) fn new(sums: &ClusterSums) -> Self {
        Self::of_occupied(&sums.occupied(), sums.observations())
    }

    pub(super) fn of_occupied(sums: &[[f64; 2]], observations: u64) -> Self {
        let numerator: f64 = sums.iter().map(|s| s[0]).sum();
        let denominator: f64 = sums.iter().map(|s| s[1]).sum();
        let value = numerator / denominator;
        let squares: f64 = sums.iter().map(|[s, w]| (s - value * w).powi(2)).sum();
        let count = sums.len() as f64;
        let standard_error = (count / (count - 1.0) * squares).sqrt() / denominator;
        Self { value, standard_error, clusters: sums.len(), observations }
    }

    /// The reason for which there is no interval of any kind, or that it has no width.
    pub(super) fn without_spread(&self, confidence: f64) -> Option<Estimate> {
        let without = |method| {
            let clusters = self.clusters as u64;
            Some(Estimate::without_interval(self.value, confidence, clusters, self.observations, method))
        };
        if !self.value.is_finite() || !self.standard_error.is_finite() && self.clusters >= MIN_CLUSTERS {
            return without(IntervalMethod::NotFinite);
        }
        if self.clusters < MIN_CLUSTERS {
            return without(IntervalMethod::TooFewClusters);
        }
        if self.standard_error == 0.0 {
            return Some(self.with_interval(self.value, self.value, confidence, IntervalMethod::Constant));
        }
        None
    }

    pub(super) fn estimate(&self, confidence: f64) -> Estimate {
        self.without_spread(confidence).unwrap_or_else(|| {
            let reach = t_quantile(self.clusters - 1, f64::midpoint(1.0, confidence)) * self.standard_error;
            let (lower, upper) = (self.value - reach, self.value + reach);
            self.with_interval(lower, upper, confidence, IntervalMethod::ClusteredT)
        })
    }

    pub(super) fn with_interval(
        &self,
        lower: f64,
        upper: f64,
        confidence: f64,
        method: IntervalMethod,
    ) -> Estimate {
        Estimate {
            value: self.value,
            lower: Some(lower),
            upper: Some(upper),
            standard_error: Some(self.standard_error),
            confidence,
            clusters: self.clusters as u64,
            observations: self.observations,
            method,
        }
    }
}

/// The quantile of Student's t at `probability`; NaN without a degree of freedom.
///
/// statrs inverts the incomplete beta function to a tolerance that leaves an error of 4e-6 for 100 000
/// degrees of freedom; two Newton steps on its distribution function, which is accurate, remove it.
pub(super) fn t_quantile(degrees_of_freedom: usize, probability: f64) -> f64 {
    let Ok(distribution) = StudentsT::new(0.0, 1.0, degrees_of_freedom as f64) else {
        return f64::NAN;
    };
    let start = distribution.inverse_cdf(probability.clamp(0.0, 1.0));
    (0..2).fold(start, |t, _| t - (distribution.cdf(t) - probability) / distribution.pdf(t))
}

/// The standard normal quantile.
pub(super) fn normal_quantile(probability: f64) -> f64 {
    Normal::standard().inverse_cdf(probability)
}

#[cfg(test)]
mod tests;
