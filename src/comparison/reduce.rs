//! Token records to figures: subsets, clusters, estimates.
//!
//! Formulas are in `metrics` and `stats`; here is only which observations enter which figure. Positions
//! with a figure that is not finite enter none, and are counted.

use std::collections::HashMap;

use bytemuck::Zeroable;
use rayon::prelude::*;

use super::evidence::{BOUND_CONFIDENCES, CONFIDENCE, PercentileBounds, TokenSums, resampling, two_sided};
use super::{Bucket, DeltaP, Distribution, Histogram, SideText, TaskMetrics, TokenMetrics, WorstToken};
use crate::{
    metrics::confidence::{ConfidenceBucket, ContextBucket},
    observation::{BaseToken, QuantToken},
    stats::{
        Bootstrap, ClusterSums, Estimate, Resampling, clusters_of, percentiles, percentiles_at, proportion,
    },
};

/// Histogram of KL: this many bins per decade …
const BINS_PER_DECADE: i32 = 5;
/// … from 10^this …
const FIRST_DECADE: i32 = -9;
/// … to 10^this nats.
const LAST_DECADE: i32 = 2;
/// Worst tokens kept per quant.
const WORST_TOKENS: usize = 20;

/// All records of one quant, aligned with base's.
#[derive(Clone, Copy, Debug)]
pub struct Tokens<'a> {
    /// Base's side.
    pub base: &'a [BaseToken],
    /// The quant's side.
    pub quant: &'a [QuantToken],
    /// Cluster of every task's every document: parallel documents of several tasks share one. Where it says nothing,
    /// a document is a cluster of its own.
    pub clusters: &'a [Vec<u32>],
    /// Seed of the bootstrap.
    pub seed: u64,
    /// Whether the source text, and so the bytes of each token, is known.
    pub bytes_known: bool,
}

/// Text metrics of one model alone: all records, then each task's. `is_text[i]` says whether task i is text.
pub fn side_text(
    base: &[BaseToken],
    names: &[&str],
    is_text: &[bool],
    clusters: &[Vec<u32>],
    seed: u64,
    bytes_known: bool,
) -> Vec<SideText> {
    // The quant's side of these records is never looked at.
    let quant = vec![QuantToken::zeroed(); base.len()];
    let tokens = Tokens { base, quant: &quant, clusters, seed, bytes_known };
    let of = |task: Option<usize>| {
        let wanted = |record: &BaseToken| match task {
            Some(task) => record.task as usize == task,
            None => is_text.get(record.task as usize).copied().unwrap_or(false),
        };
        let rows: Vec<usize> = (0..base.len()).filter(|row| wanted(&base[*row])).collect();
        let finite = |row: &usize| base[*row].nll.is_finite() && base[*row].entropy.is_finite();
        let (finite, rest): (Vec<usize>, Vec<usize>) = rows.iter().partition(|row| finite(row));
        if rows.is_empty() {
            return None;
        }
        let sample = Sample::new(&tokens, &finite);
        let nll = sample.mean(|base, _| base.nll);
        Some(SideText {
            task: task.and_then(|task| names.get(task)).map(|name| (*name).to_owned()),
            scored_tokens: finite.len(),
            non_finite_tokens: rest.len(),
            nll,
            perplexity: nll.exp(),
            bits_per_byte: sample.per_byte(|base, _| base.nll / std::f64::consts::LN_2),
            entropy: sample.mean(|base, _| base.entropy),
        })
    };
    let text_tasks = (0..names.len()).filter(|task| is_text.get(*task).copied().unwrap_or(false));
    let tasks: Vec<Option<usize>> = std::iter::once(None).chain(text_tasks.map(Some)).collect();
    tasks.into_par_iter().filter_map(of).collect()
}

/// The words around a scored position.
#[derive(Clone, Debug)]
pub struct TokenTexts {
    /// Text before the target.
    pub context: String,
    /// The target.
    pub target: String,
    /// Base's most likely token.
    pub base_top1: String,
    /// The quant's most likely token.
    pub quant_top1: String,
}

impl<'a> Tokens<'a> {
    /// The first records alone.
    pub fn first(&self, count: usize) -> Self {
        let count = count.min(self.base.len());
        Self { base: &self.base[..count], quant: &self.quant[..count], ..*self }
    }

    /// All tasks together.
    pub fn metrics(&self) -> TokenMetrics {
        let all: Vec<usize> = (0..self.base.len()).collect();
        self.with_evidence(&all)
    }

    /// Each task by itself; `names[i]` is task i. `keeps_evidence(i)`: a gate may ask about task i.
    pub fn by_task(&self, names: &[&str], keeps_evidence: impl Fn(usize) -> bool + Sync) -> Vec<TaskMetrics> {
        names
            .par_iter()
            .enumerate()
            .map(|(task, name)| {
                let rows = self.rows(|base| base.task as usize == task);
                let metrics = || match keeps_evidence(task) {
                    true => self.with_evidence(&rows),
                    false => self.without_evidence(&rows),
                };
                let metrics = (!rows.is_empty()).then(metrics);
                TaskMetrics { task: (*name).to_owned(), metrics }
            })
            .collect()
    }

    /// By base's largest probability.
    pub fn by_base_confidence(&self) -> Vec<Bucket> {
        ConfidenceBucket::ALL
            .par_iter()
            .enumerate()
            .map(|(index, bucket)| {
                let metrics = self.where_(|base| ConfidenceBucket::of(base.max_probability) == Some(*bucket));
                let upper = ConfidenceBucket::ALL.get(index + 1).map_or(1.0, |next| next.lower());
                named_bucket(bucket.lower(), upper, metrics)
            })
            .collect()
    }

    /// By number of context tokens.
    pub fn by_context_position(&self) -> Vec<Bucket> {
        let mut buckets: Vec<ContextBucket> =
            self.base.iter().map(|base| ContextBucket::of(base.position as usize)).collect();
        buckets.sort_unstable();
        buckets.dedup();
        buckets
            .par_iter()
            .map(|bucket| {
                let metrics = self.where_(|base| ContextBucket::of(base.position as usize) == *bucket);
                let upper = bucket.upper().map_or(f64::MAX, |n| n as f64);
                named_bucket(bucket.lower() as f64, upper, metrics)
            })
            .collect()
    }

    /// Counts of per-token KL divergence.
    pub fn kl_histogram(&self) -> Histogram {
        let bins = (LAST_DECADE - FIRST_DECADE) * BINS_PER_DECADE;
        let edge =
            |bin: i32| 10f64.powf(f64::from(FIRST_DECADE) + f64::from(bin) / f64::from(BINS_PER_DECADE));
        let edges: Vec<f64> = (0..=bins).map(edge).collect();
        let mut histogram = Histogram { counts: vec![0; bins as usize], edges, below: 0, above: 0 };
        for kl in self.quant.iter().filter(|token| token.is_finite()).map(|token| token.kl_divergence) {
            // The number of edges at or below the value.
            match histogram.edges.partition_point(|edge| *edge <= kl) {
                0 => histogram.below += 1,
                at => match histogram.counts.get_mut(at - 1) {
                    Some(count) => *count += 1,
                    None => histogram.above += 1,
                },
            }
        }
        histogram
    }

    /// The positions with the largest KL divergence above zero, largest first.
    pub fn worst_tokens(
        &self,
        names: &[&str],
        texts: &dyn Fn(&BaseToken, u32) -> TokenTexts,
    ) -> Vec<WorstToken> {
        let mut order: Vec<usize> = (0..self.quant.len())
            .filter(|i| self.quant[*i].is_finite() && self.quant[*i].kl_divergence > 0.0)
            .collect();
        let by_kl = |a: &usize, b: &usize| {
            self.quant[*b].kl_divergence.total_cmp(&self.quant[*a].kl_divergence).then(a.cmp(b))
        };
        if order.len() > WORST_TOKENS {
            order.select_nth_unstable_by(WORST_TOKENS, by_kl);
            order.truncate(WORST_TOKENS);
        }
        order.sort_by(by_kl);
        let worst = |index: usize| {
            let (base, quant) = (&self.base[index], &self.quant[index]);
            let TokenTexts { context, target, base_top1, quant_top1 } = texts(base, quant.top1);
            WorstToken {
                task: names.get(base.task as usize).map_or(String::new(), |name| (*name).to_owned()),
                document: base.document,
                window: base.window,
                position: base.position,
                context,
                target,
                base_top1,
                quant_top1,
                base_probability: (-base.nll).exp(),
                quant_probability: (-quant.nll).exp(),
                kl_divergence: quant.kl_divergence,
            }
        };
        order.into_iter().map(worst).collect()
    }

    fn where_(&self, wanted: impl Fn(&BaseToken) -> bool) -> Option<TokenMetrics> {
        let rows = self.rows(wanted);
        (!rows.is_empty()).then(|| self.without_evidence(&rows))
    }

    fn without_evidence(&self, rows: &[usize]) -> TokenMetrics {
        let (finite, rest) = self.finite(rows);
        self.of(&Sample::new(self, &finite), rest)
    }

    fn rows(&self, wanted: impl Fn(&BaseToken) -> bool) -> Vec<usize> {
        (0..self.base.len()).filter(|i| wanted(&self.base[*i])).collect()
    }

    /// The rows whose figures are all finite, and how many are not.
    fn finite(&self, rows: &[usize]) -> (Vec<usize>, usize) {
        let finite = |i: &usize| {
            self.quant[*i].is_finite() && self.base[*i].nll.is_finite() && self.base[*i].entropy.is_finite()
        };
        let finite: Vec<usize> = rows.iter().copied().filter(finite).collect();
        let rest = rows.len() - finite.len();
        (finite, rest)
    }

    /// The figures with what a gate needs to ask about them at a level of its own.
    fn with_evidence(&self, rows: &[usize]) -> TokenMetrics {
        let (finite, rest) = self.finite(rows);
        let sample = Sample::new(self, &finite);
        TokenMetrics {
            sums: Some(sample.token_sums()),
            kl_divergence_bounds: sample.kl_bounds(),
            ..self.of(&sample, rest)
        }
    }

    fn of(&self, sample: &Sample, non_finite_tokens: usize) -> TokenMetrics {
        let base_nll = sample.mean(|base, _| base.nll);
        let quant_nll = sample.mean(|_, quant| quant.nll);
        let delta_nll = sample.mean(|base, quant| quant.nll - base.nll);
        let per_bit = std::f64::consts::LN_2;
        let agrees = |base: &BaseToken, quant: &QuantToken| f64::from(u8::from(base.top1 == quant.top1));
        TokenMetrics {
            scored_tokens: sample.rows.len(),
            non_finite_tokens,
            base_nll,
            quant_nll,
            base_perplexity: base_nll.exp(),
            quant_perplexity: quant_nll.exp(),
            delta_nll,
            ppl_ratio: delta_nll.exp(),
            base_bits_per_byte: sample.per_byte(|base, _| base.nll / per_bit),
            quant_bits_per_byte: sample.per_byte(|_, quant| quant.nll / per_bit),
            base_entropy: sample.mean(|base, _| base.entropy),
            quant_entropy: sample.mean(|_, quant| quant.entropy),
            kl_divergence: sample.distribution(|quant| quant.kl_divergence),
            reverse_kl: sample.distribution(|quant| quant.reverse_kl),
            top1_agreement: sample.share(agrees),
            top5_overlap: sample.share(|_, quant| f64::from(quant.top5_common) / 5.0),
            delta_p: sample.delta_p(),
            sums: None,
            kl_divergence_bounds: Vec::new(),
        }
    }
}

fn named_bucket(from: f64, to: f64, metrics: Option<TokenMetrics>) -> Bucket {
    let scored_tokens = metrics.as_ref().map_or(0, |metrics| metrics.scored_tokens);
    Bucket { from, to, scored_tokens, metrics }
}

/// The finite positions of a subset, and their clusters.
struct Sample<'a> {
    tokens: &'a Tokens<'a>,
    rows: &'a [usize],
    clusters: Vec<u32>,
    cluster_count: usize,
}

impl<'a> Sample<'a> {
    fn new(tokens: &'a Tokens<'a>, rows: &'a [usize]) -> Self {
        // Documents are numbered per task; a cluster must not join two tasks' first documents.
        let mut numbers: HashMap<(u32, u32), u32> = HashMap::new();
        let stated = |base: &BaseToken| {
            let of_task = tokens.clusters.get(base.task as usize)?;
            of_task.get(base.document as usize).map(|cluster| (u32::MAX, *cluster))
        };
        let documents: Vec<u32> = rows
            .iter()
            .map(|i| {
                let next = numbers.len() as u32;
                let base = &tokens.base[*i];
                *numbers.entry(stated(base).unwrap_or((base.task, base.document))).or_insert(next)
            })
            .collect();
        let windows: Vec<u32> = rows.iter().map(|i| tokens.base[*i].window).collect();
        let clusters = clusters_of(&documents, &windows);
        Self { tokens, rows, clusters: clusters.of, cluster_count: clusters.count }
    }

    fn values(&self, value: impl Fn(&BaseToken, &QuantToken) -> f64) -> impl Iterator<Item = f64> {
        self.rows.iter().map(move |i| value(&self.tokens.base[*i], &self.tokens.quant[*i]))
    }

    fn sums(&self, value: impl Fn(&BaseToken, &QuantToken) -> f64) -> ClusterSums {
        let mut sums = ClusterSums::new(self.cluster_count);
        for (cluster, value) in self.clusters.iter().zip(self.values(value)) {
            sums.add(*cluster, value, 1.0);
        }
        sums
    }

    fn resampling(&self) -> Resampling {
        resampling(self.tokens.seed)
    }

    fn bootstrap(&self, sums: &ClusterSums) -> Estimate {
        Bootstrap::new(sums, self.resampling()).estimate(CONFIDENCE)
    }

    fn mean(&self, value: impl Fn(&BaseToken, &QuantToken) -> f64) -> Estimate {
        self.bootstrap(&self.sums(value))
    }

    /// A mean of values in [0, 1].
    fn share(&self, value: impl Fn(&BaseToken, &QuantToken) -> f64) -> Estimate {
        proportion(&self.sums(value), self.resampling(), CONFIDENCE)
    }

    /// Σ values / Σ bytes of the tokens' source text.
    fn per_byte(&self, value: impl Fn(&BaseToken, &QuantToken) -> f64) -> Option<Estimate> {
        let mut sums = ClusterSums::new(self.cluster_count);
        let mut total = 0u64;
        for ((cluster, value), row) in self.clusters.iter().zip(self.values(value)).zip(self.rows) {
            let bytes = self.tokens.base[*row].bytes;
            total += u64::from(bytes);
            sums.add(*cluster, value, f64::from(bytes));
        }
        (self.tokens.bytes_known && total > 0).then(|| self.bootstrap(&sums))
    }

    fn percentiles<const N: usize>(
        &self,
        value: impl Fn(&QuantToken) -> f64,
        probabilities: [f64; N],
    ) -> [Option<Estimate>; N] {
        let values: Vec<f64> = self.values(|_, quant| value(quant)).collect();
        let found = percentiles(&self.clusters, &values, &probabilities, CONFIDENCE);
        let mut found = found.into_iter();
        std::array::from_fn(|_| found.next().flatten())
    }

    fn token_sums(&self) -> TokenSums {
        let mut tokens = vec![0u64; self.cluster_count];
        let (mut top1_agreement, mut top5_common) = (tokens.clone(), tokens.clone());
        let [mut base_nll, mut quant_nll, mut kl_divergence, mut reverse_kl] =
            std::array::from_fn(|_| vec![0.0; self.cluster_count]);
        for (cluster, row) in self.clusters.iter().zip(self.rows) {
            let (base, quant, at) = (&self.tokens.base[*row], &self.tokens.quant[*row], *cluster as usize);
            tokens[at] += 1;
            base_nll[at] += base.nll;
            quant_nll[at] += quant.nll;
            kl_divergence[at] += quant.kl_divergence;
            reverse_kl[at] += quant.reverse_kl;
            top1_agreement[at] += u64::from(base.top1 == quant.top1);
            top5_common[at] += u64::from(quant.top5_common);
        }
        TokenSums { tokens, base_nll, quant_nll, kl_divergence, reverse_kl, top1_agreement, top5_common }
    }

    fn kl_bounds(&self) -> Vec<PercentileBounds> {
        const PROBABILITIES: [f64; 5] = [0.5, 0.9, 0.95, 0.99, 0.999];
        let values: Vec<f64> = self.values(|_, quant| quant.kl_divergence).collect();
        let confidences = BOUND_CONFIDENCES.map(two_sided);
        let found = percentiles_at(&self.clusters, &values, &PROBABILITIES, &confidences);
        let bounds = |(probability, estimates): (f64, Option<Vec<Estimate>>)| {
            let at = move |(one_sided_confidence, estimate): (f64, Estimate)| PercentileBounds {
                probability,
                one_sided_confidence,
                lower: estimate.lower,
                upper: estimate.upper,
            };
            BOUND_CONFIDENCES.into_iter().zip(estimates.unwrap_or_default()).map(at)
        };
        PROBABILITIES.into_iter().zip(found).flat_map(bounds).collect()
    }

    fn distribution(&self, value: impl Fn(&QuantToken) -> f64 + Copy) -> Distribution {
        let [median, p90, p95, p99, p99_9] = self.percentiles(value, [0.5, 0.9, 0.95, 0.99, 0.999]);
        Distribution {
            mean: self.mean(|_, quant| value(quant)),
            median,
            p90,
            p95,
            p99,
            p99_9,
            max: self.values(|_, quant| value(quant)).fold(f64::NEG_INFINITY, f64::max).max(f64::MIN),
        }
    }

    fn delta_p(&self) -> DeltaP {
        let [p1, p10, median, p90, p99] =
            self.percentiles(|quant| quant.delta_p, [0.01, 0.1, 0.5, 0.9, 0.99]);
        DeltaP {
            mean: self.mean(|_, quant| quant.delta_p),
            rms: self.mean(|_, quant| quant.delta_p * quant.delta_p).sqrt(),
            p1,
            p10,
            median,
            p90,
            p99,
        }
    }
}
