//! Cousin against cousin: which steps of the ranking the data show, and which they do not.
//!
//! Both saw the same samples, so their differences are paired like any other: sums of KL divergence cluster by cluster,
//! scores sample by sample. Neighbours alone are compared; Holm's adjustment is over all of one kind. It must not know how a
//! report shows it.

use rayon::prelude::*;

use super::evidence::{self, CONFIDENCE, TokenFigure, resampling};
use super::tasks::{Item, QuestionComparison, QuestionsComparison, headlines};
use super::{Comparison, QuantComparison};
use crate::stats::{Estimate, holm, sign_flip};

/// A step is shown where its adjusted p is below this.
const SHOWN: f64 = 0.05;

/// Neighbours in the ranking by mean KL divergence (else by accuracy), compared on the same samples.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The one ahead: an index into [`Comparison::quants`].
    pub better: usize,
    /// The one behind.
    pub worse: usize,
    /// worse − better of the mean KL divergence from base, nats; absent where it was not measured on the same text.
    pub kl_divergence: Option<PairedFigure>,
    /// worse − better of the accuracy over all questions, a share; absent where nothing was asked.
    pub accuracy: Option<PairedFigure>,
}

/// A difference between two cousins.
#[derive(Clone, Copy, Debug)]
pub struct PairedFigure {
    /// worse − better.
    pub difference: Estimate,
    /// Two-sided p of no difference.
    pub p: Option<f64>,
    /// The same, adjusted for all neighbours (Holm).
    pub p_holm: Option<f64>,
    /// Whether the adjusted p is below 5 %.
    pub is_shown: bool,
}

/// Every cousin with the one behind it; none where not even one pair saw the same samples (a file of an older version).
pub fn neighbours(comparison: &Comparison) -> Vec<Pair> {
    let ranking = ranking(comparison);
    let pairs: Vec<(usize, usize)> =
        ranking.iter().zip(ranking.iter().skip(1)).map(|(better, worse)| (*better, *worse)).collect();
    let compared = |(better, worse): &(usize, usize)| {
        let one = comparison.quants.get(*better)?;
        let other = comparison.quants.get(*worse)?;
        Some(Pair {
            better: *better,
            worse: *worse,
            kl_divergence: kl_divergence(one, other, comparison.provenance.seed),
            accuracy: accuracy(one, other, comparison.provenance.seed),
        })
    };
    let mut pairs: Vec<Pair> = pairs.par_iter().filter_map(compared).collect();
    if pairs.iter().all(|pair| pair.kl_divergence.is_none() && pair.accuracy.is_none()) {
        return Vec::new();
    }
    adjust(pairs.iter_mut().filter_map(|pair| pair.kl_divergence.as_mut()).collect());
    adjust(pairs.iter_mut().filter_map(|pair| pair.accuracy.as_mut()).collect());
    pairs
}

/// Indices of the cousins by mean KL divergence, or by accuracy where it was not measured; those without either are left out.
fn ranking(comparison: &Comparison) -> Vec<usize> {
    let by = |figure: &dyn Fn(&QuantComparison) -> Option<f64>| {
        let mut found: Vec<(usize, f64)> = comparison
            .quants
            .iter()
            .enumerate()
            .filter_map(|(index, quant)| Some((index, figure(quant).filter(|value| value.is_finite())?)))
            .collect();
        found.sort_by(|a, b| a.1.total_cmp(&b.1));
        found.into_iter().map(|(index, _)| index).collect::<Vec<usize>>()
    };
    let measured = |quant: &QuantComparison| quant.overall.scored_tokens > 0;
    let by_kl = by(&|quant| measured(quant).then_some(quant.overall.kl_divergence.mean.value));
    match by_kl.len() {
        0 => by(&|quant| Some(-quant.questions.as_ref()?.overall.as_ref()?.quant.value)),
        _ => by_kl,
    }
}

fn kl_divergence(better: &QuantComparison, worse: &QuantComparison, seed: u64) -> Option<PairedFigure> {
    let (better, worse) = (better.overall.sums.as_ref()?, worse.overall.sums.as_ref()?);
    let sums = worse.difference(better, 1.0, TokenFigure::KlDivergence)?;
    let test = sign_flip(&sums, resampling(seed));
    let difference = evidence::bootstrap(&sums, seed).estimate(CONFIDENCE);
    Some(PairedFigure { difference, p: test.map(|test| test.p), p_holm: None, is_shown: false })
}

fn accuracy(better: &QuantComparison, worse: &QuantComparison, seed: u64) -> Option<PairedFigure> {
    let items = between(better.questions.as_ref()?, worse.questions.as_ref()?)?;
    let paired = evidence::paired(&items)?;
    let test = paired.test(resampling(seed));
    Some(PairedFigure {
        difference: paired.difference(CONFIDENCE),
        p: test.map(|test| test.p),
        p_holm: None,
        is_shown: false,
    })
}

/// Samples of all headline tasks that both answered: `base` is the first's score, `quant` the second's. `None` where the two
/// were not asked the same.
fn between(one: &QuestionsComparison, other: &QuestionsComparison) -> Option<Vec<Item>> {
    let judged = |row: &&QuestionComparison| row.right_or_wrong;
    let [one, other]: [Vec<&QuestionComparison>; 2] =
        [one, other].map(|of| headlines(&of.tasks, |row| &row.key).into_iter().filter(judged).collect());
    let mut items = Vec::new();
    for row in &one {
        let counterpart = other.iter().find(|counterpart| counterpart.key == row.key)?;
        items.extend(same_samples(row, counterpart)?);
    }
    (!items.is_empty() && one.len() == other.len()).then_some(items)
}

/// The samples of one task under two cousins: `base` is the first's score, `quant` the second's. `None` unless both were asked
/// the same samples.
pub fn same_samples(one: &QuestionComparison, other: &QuestionComparison) -> Option<Vec<Item>> {
    let (one, other) = (one.samples.as_ref()?.items()?, other.samples.as_ref()?.items()?);
    let alike = |(a, b): (&Item, &Item)| a.cluster == b.cluster && a.level == b.level;
    (one.len() == other.len() && one.iter().zip(&other).all(alike)).then(|| {
        let both = |(a, b): (Item, Item)| Item { base: a.quant, same_answer: a.quant == b.quant, ..b };
        one.into_iter().zip(other).map(both).collect()
    })
}

fn adjust(mut figures: Vec<&mut PairedFigure>) {
    figures.retain(|figure| figure.p.is_some());
    let p_values: Vec<f64> = figures.iter().filter_map(|figure| figure.p).collect();
    for (figure, adjusted) in figures.iter_mut().zip(holm(&p_values)) {
        (figure.p_holm, figure.is_shown) = (Some(adjusted), adjusted < SHOWN);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tasks::{self, TaskItems, TaskKey};
    use super::*;
    use crate::comparison::evidence::TokenSums;
    use crate::report::fixture::{self, NONE};

    const DOCUMENTS: u32 = 30;

    /// A cousin whose documents have a mean KL divergence around `kl`, and that gets every `wrong`th question wrong.
    fn cousin(label: &str, kl: f64, wrong: u32) -> QuantComparison {
        let tokens: Vec<u64> = (0..DOCUMENTS).map(|i| 100 + u64::from(i)).collect();
        let zeros = || vec![0.0; DOCUMENTS as usize];
        let sum = |(i, n): (usize, &u64)| *n as f64 * kl * (1.0 + (i as f64 * 0.7).sin() / 4.0);
        let mut quant = fixture::quant(label, NONE);
        quant.overall.kl_divergence.mean = fixture::estimate(kl, kl / 10.0);
        quant.overall.sums = Some(TokenSums {
            base_nll: zeros(),
            quant_nll: zeros(),
            kl_divergence: tokens.iter().enumerate().map(sum).collect(),
            reverse_kl: zeros(),
            top1_agreement: tokens.clone(),
            top5_common: tokens.clone(),
            tokens,
        });
        let item = |i: u32| Item {
            sample: i,
            cluster: i,
            level: None,
            base: Some(1.0),
            quant: Some(f64::from(!i.is_multiple_of(wrong))),
            same_answer: !i.is_multiple_of(wrong),
        };
        let key = TaskKey {
            task: "exam".to_owned(),
            language: None,
            group: None,
            metric: "acc".to_owned(),
            filter: None,
        };
        let task = TaskItems {
            key,
            right_or_wrong: true,
            chance: None,
            level_unit: None,
            items: (0..600).map(item).collect(),
        };
        quant.questions = Some(tasks::compare(&[task], 0));
        quant
    }

    #[test]
    fn neighbours_are_compared_on_the_same_samples() {
        let quants =
            vec![cousin("Q2", 0.1, 2), cousin("Q8", 0.01, 100), cousin("Q8 again", 0.010_000_1, 101)];
        let comparison = fixture::of(quants);
        let pairs = neighbours(&comparison);
        assert_eq!(pairs.iter().map(|p| (p.better, p.worse)).collect::<Vec<_>>(), [(1, 2), (2, 0)]);
        let kl = pairs[1].kl_divergence.unwrap();
        assert!((kl.difference.value - 0.09).abs() < 0.01 && kl.is_shown, "{kl:?}");
        let accuracy = pairs[1].accuracy.unwrap();
        // Q2 misses 300, the other 6: multiples of 101, of which three are even.
        assert!((accuracy.difference.value + 294.0 / 600.0).abs() < 1e-12 && accuracy.is_shown);
        // The first two differ in 9 questions of 600: McNemar cannot show that, Holm's p is twice the larger one.
        let close = pairs[0].accuracy.unwrap();
        assert!(!close.is_shown && close.p_holm.unwrap() >= close.p.unwrap(), "{close:?}");
        assert!((close.p_holm.unwrap() - close.p.unwrap()).abs() < 1e-12, "the largest p stays as it is");
        assert!(
            (accuracy.p_holm.unwrap() - 2.0 * accuracy.p.unwrap()).abs() < 1e-12,
            "the smallest counts both"
        );
    }

    #[test]
    fn other_positions_or_samples_are_not_compared() {
        let (one, mut other) = (cousin("a", 0.01, 9), cousin("b", 0.02, 9));
        other.overall.sums.as_mut().unwrap().tokens[4] += 1;
        let pair = &neighbours(&fixture::of(vec![one.clone(), other.clone()]))[0];
        assert!(pair.kl_divergence.is_none() && pair.accuracy.is_some());
        other.questions.as_mut().unwrap().tasks[0].samples.as_mut().unwrap().clusters[3] = 77;
        assert!(neighbours(&fixture::of(vec![one, other])).is_empty());
        assert!(neighbours(&fixture::comparison()).is_empty(), "an older file has no sums");
    }

    #[test]
    fn a_cousin_that_is_the_same_is_not_ahead() {
        let pair = &neighbours(&fixture::of(vec![cousin("a", 0.01, 9), cousin("a", 0.01, 9)]))[0];
        let (kl, accuracy) = (pair.kl_divergence.unwrap(), pair.accuracy.unwrap());
        assert!(!kl.is_shown && kl.difference.value == 0.0 && !accuracy.is_shown);
    }
}
