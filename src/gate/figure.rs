//! The figure that a rule asks about, with one-sided bounds at the rule's confidence: from what the comparison saved.
//!
//! Means and scores are estimated anew from their samples and sums (means without an upper limit at half the error, see
//! `evidence::mean_bounds`), percentiles have bounds at several confidences; what
//! has neither keeps the ends of its 95 % interval, which are bounds at 97.5 % and so hold at any lower confidence too.
//! A loss is oriented so that more is worse. It must not know a policy's limits beyond their kind.

use std::collections::BTreeMap;

use super::metric::{Metric, Source};
use super::policy::Limit;
use super::target::{Cousin, Place, Target};
use crate::comparison::evidence::{self, CONFIDENCE, TokenFigure, TokenSums, two_sided};
use crate::comparison::pairwise::same_samples;
use crate::comparison::tasks::{Item, QuestionComparison, mean_chance, why_uninformative};
use crate::comparison::{Comparison, TaskMetrics, TokenMetrics};
use crate::format::counted;
use crate::stats::{ClusterSums, Estimate, IntervalMethod, MIN_CLUSTERS, share};

/// Two confidences nearer than this are the same one, after rounding.
const ROUNDING: f64 = 1e-9;

/// A figure and what it rests on.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// The value; the ends are one-sided bounds.
    pub(super) estimate: Estimate,
    /// Questions or tokens; none of what is exact.
    pub(super) samples: Option<u64>,
    /// What a reader should know beside it.
    pub(super) note: Option<String>,
}

/// Why there is none.
#[derive(Clone, Debug)]
pub(super) enum Gap {
    /// It was not measured, or came out as no number.
    NotMeasured(String),
    /// It was, and cannot decide anything.
    Undecided(String),
}

pub(super) type Figure = Result<Found, Gap>;

/// What is asked for.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) metric: Metric,
    pub(super) limit: Limit,
    /// One-sided.
    pub(super) confidence: f64,
    pub(super) comparison: &'a Comparison,
    pub(super) cousin: Cousin<'a>,
    /// The same cousin of an earlier run, where it is held against that.
    pub(super) previous: Option<Cousin<'a>>,
}

impl Question<'_> {
    fn is_loss(&self) -> bool {
        matches!(self.limit, Limit::Margin(_))
    }

    fn seed(&self) -> u64 {
        self.comparison.provenance.seed
    }

    /// A value as the rule wants it: itself, or how far it is on the bad side of base's.
    fn oriented(&self, estimate: Estimate) -> Estimate {
        match (self.is_loss(), self.metric.neutral()) {
            (true, Some(neutral)) if self.metric.higher_is_better() => mapped(estimate, -1.0, neutral),
            (true, Some(neutral)) => mapped(estimate, 1.0, -neutral),
            _ => estimate,
        }
    }
}

/// `factor`·x + `offset`.
fn mapped(estimate: Estimate, factor: f64, offset: f64) -> Estimate {
    let map = |x: f64| factor * x + offset;
    let (lower, upper) = (estimate.lower.map(map), estimate.upper.map(map));
    let (lower, upper) = if factor < 0.0 { (upper, lower) } else { (lower, upper) };
    Estimate { value: map(estimate.value), lower, upper, ..estimate }
}

/// The figure for one target.
pub(super) fn of(question: &Question<'_>, target: &Target<'_>) -> Figure {
    let found = match (&target.place, question.metric.source()) {
        (Place::Missing(reason), _) => return Err(Gap::NotMeasured(reason.clone())),
        (Place::Text(task), Source::Tokens) => tokens(question, task.as_deref()),
        (Place::Task(task), Source::Traces) => traces(question, task),
        (Place::Task(task), Source::Generations) => generations(question, task),
        (Place::Task(task), Source::Bytes) => bytes(question, task),
        (Place::Rows { rows, previous, level, left_out }, Source::Questions) => {
            let found = questions(question, rows, previous, *level);
            let note = counted(*left_out as u64, "task") + " left out that are not judged right or wrong";
            found.map(|found| if *left_out > 0 { Found { note: Some(note), ..found } } else { found })
        }
        (Place::Model, Source::Weights) => weights(question),
        _ => Err(Gap::NotMeasured("this cannot be measured there".to_owned())),
    }?;
    with_bounds(found)
}

/// Refuses what has no bounds.
fn with_bounds(found: Found) -> Figure {
    let Estimate { value, lower, upper, clusters, .. } = found.estimate;
    if !value.is_finite() || lower.is_some_and(f64::is_nan) || upper.is_some_and(f64::is_nan) {
        return Err(Gap::NotMeasured("it came out as no finite number".to_owned()));
    }
    if lower.is_none() && upper.is_none() {
        return Err(Gap::Undecided(format!(
            "{} (of documents, windows or samples) give no interval; at least {MIN_CLUSTERS} are needed",
            counted(clusters, "cluster")
        )));
    }
    Ok(found)
}

fn not_measured<T>(reason: impl Into<String>) -> Result<T, Gap> {
    Err(Gap::NotMeasured(reason.into()))
}

fn found(estimate: Estimate) -> Found {
    Found { estimate, samples: Some(estimate.observations), note: None }
}

// ---- tokens ----

fn metrics_of<'a>(cousin: Cousin<'a>, task: Option<&str>) -> Result<&'a TokenMetrics, Gap> {
    let quant = match cousin {
        Cousin::Same(quant) => quant,
        Cousin::Foreign(foreign) => {
            return not_measured(format!(
                "its tokens cannot be compared with base's ({}); exclude it with `cousins`, or use a metric of \
                 questions or bytes",
                foreign.reason
            ));
        }
    };
    match task {
        None if quant.overall.scored_tokens + quant.overall.non_finite_tokens == 0 => {
            not_measured("no text was scored")
        }
        None => Ok(&quant.overall),
        Some(task) => of_task(&quant.tasks, task),
    }
}

fn of_task<'a>(tasks: &'a [TaskMetrics], task: &str) -> Result<&'a TokenMetrics, Gap> {
    let metrics = tasks.iter().find(|metrics| metrics.task == task).and_then(|task| task.metrics.as_ref());
    metrics.ok_or_else(|| Gap::NotMeasured("no token of it could be scored".to_owned()))
}

fn tokens(question: &Question<'_>, task: Option<&str>) -> Figure {
    let metrics = metrics_of(question.cousin, task)?;
    finite(metrics)?;
    if let Some(previous) = question.previous {
        let earlier = metrics_of(previous, task)?;
        finite(earlier)?;
        return tokens_since(question, metrics, earlier);
    }
    if let Limit::MaxNoiseFloors(factor) = question.limit {
        let floor = question.comparison.noise_floor.as_ref().map(|floor| match task {
            None => Ok(&floor.overall),
            Some(task) => of_task(&floor.tasks, task),
        });
        let Some(floor) = floor.transpose()? else {
            return not_measured("the noise floor was not measured: leave out --no-noise-floor");
        };
        return difference(question, (metrics, floor), factor);
    }
    mean_or_percentile(question, metrics)
        .map(|found| Found { estimate: question.oriented(found.estimate), ..found })
}

fn finite(metrics: &TokenMetrics) -> Result<(), Gap> {
    match metrics.non_finite_tokens {
        0 => Ok(()),
        n => not_measured(format!("{} with a NaN or an infinite figure", counted(n as u64, "token"))),
    }
}

/// Which sums a metric is made of.
fn figure_of(metric: Metric) -> Option<TokenFigure> {
    match metric {
        Metric::KlDivergence | Metric::TraceKlDivergence => Some(TokenFigure::KlDivergence),
        Metric::ReverseKl => Some(TokenFigure::ReverseKl),
        Metric::DeltaNll | Metric::PplRatio => Some(TokenFigure::DeltaNll),
        Metric::Top1Agreement | Metric::TraceTop1Agreement => Some(TokenFigure::Top1Agreement),
        Metric::Top5Overlap => Some(TokenFigure::Top5Overlap),
        _ => None,
    }
}

fn mean_or_percentile(question: &Question<'_>, metrics: &TokenMetrics) -> Figure {
    if let Some(probability) = question.metric.percentile() {
        return percentile(question, metrics, probability);
    }
    let Some(figure) = figure_of(question.metric) else { return not_measured("it is no figure of tokens") };
    let saved = match figure {
        TokenFigure::KlDivergence => &metrics.kl_divergence.mean,
        TokenFigure::ReverseKl => &metrics.reverse_kl.mean,
        TokenFigure::QuantNll => &metrics.quant_nll,
        TokenFigure::DeltaNll => &metrics.delta_nll,
        TokenFigure::Top1Agreement => &metrics.top1_agreement,
        TokenFigure::Top5Overlap => &metrics.top5_overlap,
    };
    let anew = metrics.sums.as_ref().and_then(|s| s.estimate(figure, question.confidence, question.seed()));
    let estimate = match anew {
        Some(estimate) => estimate,
        None => stored(saved, question.confidence)?,
    };
    Ok(found(if question.metric == Metric::PplRatio { estimate.exp() } else { estimate }))
}

fn percentile(question: &Question<'_>, metrics: &TokenMetrics, probability: f64) -> Figure {
    let distribution = &metrics.kl_divergence;
    let saved = match question.metric {
        Metric::KlDivergenceMedian => &distribution.median,
        Metric::KlDivergenceP90 => &distribution.p90,
        Metric::KlDivergenceP95 => &distribution.p95,
        Metric::KlDivergenceP99 => &distribution.p99,
        _ => &distribution.p99_9,
    };
    let Some(saved) = saved else {
        let needed = (crate::stats::quantile::MIN_BEYOND as f64 / (1.0 - probability)).ceil() as u64;
        return Err(Gap::Undecided(format!(
            "{} do not show this percentile; about {} are needed",
            counted(metrics.scored_tokens as u64, "token"),
            counted(needed, "token")
        )));
    };
    let bounds = metrics.kl_divergence_bounds.iter().filter(|bounds| {
        bounds.probability == probability && bounds.one_sided_confidence >= question.confidence - ROUNDING
    });
    let nearest = bounds.min_by(|a, b| a.one_sided_confidence.total_cmp(&b.one_sided_confidence));
    Ok(found(match nearest {
        Some(bounds) => Estimate {
            lower: bounds.lower,
            upper: bounds.upper,
            confidence: two_sided(bounds.one_sided_confidence),
            ..*saved
        },
        None => stored(saved, question.confidence)?,
    }))
}

/// The ends of a saved interval as bounds, where they hold at that confidence.
fn stored(estimate: &Estimate, one_sided: f64) -> Result<Estimate, Gap> {
    if estimate.confidence + ROUNDING < two_sided(one_sided) {
        return not_measured(format!(
            "it is saved with bounds at {} %, and {} % are asked for",
            (1.0 + estimate.confidence) * 50.0,
            one_sided * 100.0
        ));
    }
    Ok(*estimate)
}

/// This cousin's figure less that of an earlier run's, over the same positions.
fn tokens_since(question: &Question<'_>, metrics: &TokenMetrics, earlier: &TokenMetrics) -> Figure {
    let found = difference(question, (metrics, earlier), 1.0)?;
    let estimate = match question.metric {
        // The ratio of two ratios, less 1.
        Metric::PplRatio => mapped(found.estimate.exp(), 1.0, -1.0),
        metric if metric.higher_is_better() => mapped(found.estimate, -1.0, 0.0),
        _ => found.estimate,
    };
    Ok(Found { estimate, ..found })
}

/// One's mean less `factor` times the other's.
fn difference(question: &Question<'_>, (one, other): (&TokenMetrics, &TokenMetrics), factor: f64) -> Figure {
    let sums = |metrics: &TokenMetrics| -> Result<TokenSums, Gap> {
        metrics
            .sums
            .clone()
            .ok_or_else(|| Gap::NotMeasured("it was saved by an older qeval, without sums".to_owned()))
    };
    let (one, other) = (sums(one)?, sums(other)?);
    let difference = figure_of(question.metric).and_then(|figure| one.difference(&other, factor, figure));
    match difference {
        Some(difference) => {
            Ok(found(evidence::mean_bounds(&difference, question.confidence, question.seed())))
        }
        None => not_measured("the two did not score the same positions"),
    }
}

fn traces(question: &Question<'_>, task: &str) -> Figure {
    let Cousin::Same(quant) = question.cousin else {
        return not_measured("base's answers cannot be read token by token by a cousin of another tokenizer");
    };
    let metrics = of_task(&quant.traces, task)?;
    finite(metrics)?;
    mean_or_percentile(question, metrics)
        .map(|found| Found { estimate: question.oriented(found.estimate), ..found })
}

// ---- answers ----

fn generations(question: &Question<'_>, task: &str) -> Figure {
    let Cousin::Same(quant) = question.cousin else {
        return not_measured("written answers are not compared token by token with another tokenizer");
    };
    let Some(generation) = quant.generations.iter().find(|generation| generation.task == task) else {
        return not_measured("nothing was written");
    };
    let figures = &generation.figures;
    let estimate = match question.metric {
        Metric::IdenticalAnswers => &figures.identical,
        Metric::FirstDivergenceShare => &figures.first_divergence_share,
        Metric::Truncated => &figures.quant_truncated,
        Metric::Repetition => &figures.quant_repetition,
        _ => &figures.quant_unclosed_think,
    };
    Ok(found(question.oriented(stored(estimate, question.confidence)?)))
}

fn bytes(question: &Question<'_>, task: &str) -> Figure {
    let tasks = match question.cousin {
        Cousin::Same(quant) => &quant.rolling,
        Cousin::Foreign(foreign) => &foreign.bytes,
    };
    let Some(bytes) = tasks.iter().find(|bytes| bytes.task == task) else {
        return not_measured("its bytes were not scored");
    };
    match bytes.figures.not_finite {
        0 => Ok(found(question.oriented(stored(&bytes.figures.delta_bits_per_byte, question.confidence)?))),
        n => not_measured(format!("{} came out as no finite number", counted(n as u64, "text"))),
    }
}

fn questions(
    question: &Question<'_>,
    rows: &[&QuestionComparison],
    previous: &[&QuestionComparison],
    level: Option<u32>,
) -> Figure {
    let (mut items, mut chances) = (Vec::new(), Vec::new());
    let mut against_base = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let Some(own) = row.samples.as_ref().and_then(|samples| samples.items()) else {
            return not_measured(format!(
                "{}: samples were not saved; it was made by an older qeval",
                row.key.task
            ));
        };
        if !row.right_or_wrong {
            return not_measured(format!(
                "{} is judged by {}, which is no accuracy",
                row.key.task, row.key.metric
            ));
        }
        let compared = match question.previous {
            None => own.clone(),
            Some(_) => match previous.get(index).and_then(|earlier| same_samples(earlier, row)) {
                Some(both) => both,
                None => {
                    return not_measured(format!("{} was not asked alike in the earlier run", row.key.task));
                }
            },
        };
        let wanted = |item: &Item| level.is_none() || item.level == level;
        chances.extend(own.iter().filter(|item| wanted(item)).map(|_| row.scores.chance));
        against_base.extend(own.into_iter().filter(wanted));
        items.extend(compared.into_iter().filter(wanted));
    }
    let missing =
        items.iter().chain(&against_base).filter(|item| item.base.is_none() || item.quant.is_none()).count();
    if missing > 0 {
        return not_measured(format!("{} could not be judged", counted(missing as u64, "answer")));
    }
    informative(&against_base, &chances)?;
    let estimate = of_items(question, &items, mean_chance(&chances))?;
    Ok(Found { samples: Some(items.len() as u64), ..found(estimate) })
}

/// Refuses samples on which base has nothing to lose.
fn informative(items: &[Item], chances: &[Option<f64>]) -> Result<(), Gap> {
    let base = evidence::paired(items).map(|paired| paired.base(CONFIDENCE));
    let reason = base.and_then(|base| why_uninformative(&base, mean_chance(chances), items.len()));
    match reason {
        Some(reason) => Err(Gap::Undecided(reason)),
        None => Ok(()),
    }
}

fn of_items(question: &Question<'_>, items: &[Item], chance: Option<f64>) -> Result<Estimate, Gap> {
    let confidence = two_sided(question.confidence);
    let Some(paired) = evidence::paired(items) else { return not_measured("a score is no share") };
    let changed = |changed: &dyn Fn(&Item) -> bool| {
        let whole = |score: Option<f64>| score == Some(0.0) || score == Some(1.0);
        match items.iter().all(|item| whole(item.base) && whole(item.quant)) {
            true => Ok(share(&share_of(items, changed), confidence)),
            false => not_measured("scores that are means of draws have no flips"),
        }
    };
    let estimate = match question.metric {
        Metric::Accuracy if question.is_loss() => {
            return Ok(mapped(paired.difference(confidence), -1.0, 0.0));
        }
        Metric::Accuracy => paired.quant(confidence),
        Metric::Recovery => match paired.ratio(confidence) {
            Some(ratio) => ratio,
            None => return Err(Gap::Undecided("base gets nothing right: it has nothing to lose".to_owned())),
        },
        Metric::ChanceCorrectedRecovery => {
            match chance.and_then(|chance| paired.ratio_above(chance, confidence)) {
                Some(ratio) => ratio,
                None => return not_measured("there is nothing to guess among; use recovery"),
            }
        }
        Metric::Flips => changed(&|item| item.base != item.quant)?,
        _ if question.previous.is_some() => return not_measured("answers of earlier runs are not saved"),
        _ => changed(&|item| item.base != item.quant || (item.base == Some(0.0) && !item.same_answer))?,
    };
    Ok(question.oriented(estimate))
}

/// Sums per cluster; clusters get numbers of their own, for those of a file may be anything.
fn share_of(items: &[Item], is_counted: &dyn Fn(&Item) -> bool) -> ClusterSums {
    let mut sums = BTreeMap::<u32, [f64; 2]>::new();
    for item in items {
        let sum = sums.entry(item.cluster).or_default();
        *sum = [sum[0] + f64::from(is_counted(item)), sum[1] + 1.0];
    }
    ClusterSums::of_sums(sums.into_values().collect(), items.len() as u64)
}

// ---- weights ----

fn weights(question: &Question<'_>) -> Figure {
    let model = question.cousin.model();
    let (value, note) = match question.metric {
        Metric::BitsPerWeight | Metric::WeightBytes if model.parameters == 0 => {
            return not_measured("the model itself is not known");
        }
        Metric::BitsPerWeight => (model.bits_per_weight, None),
        Metric::WeightBytes => (model.weight_bytes as f64, None),
        _ => {
            let Cousin::Same(quant) = question.cousin else {
                return not_measured("weights are compared only between models of one vocabulary");
            };
            if quant.weights.is_empty() {
                return not_measured(
                    "weights were not compared: leave out --probe none, and give base as a model",
                );
            }
            let mut worst: Option<(f64, &str)> = None;
            for weight in quant.weights.iter().filter(|weight| !weight.identical) {
                let Some(sqnr) = weight.sqnr_db.filter(|sqnr| sqnr.is_finite()) else {
                    return not_measured(format!("{} has no finite error", weight.name));
                };
                if worst.is_none_or(|(least, _)| sqnr < least) {
                    worst = Some((sqnr, &weight.name));
                }
            }
            match worst {
                Some((sqnr, name)) => (sqnr, Some(name.to_owned())),
                // All are equal: above any limit.
                None => (f64::MAX, Some("every weight is equal".to_owned())),
            }
        }
    };
    let exact = Estimate::without_interval(value, 1.0, 0, 0, IntervalMethod::Constant);
    let estimate = Estimate { lower: Some(value), upper: Some(value), ..exact };
    Ok(Found { estimate, samples: None, note })
}
