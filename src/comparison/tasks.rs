//! Judged samples to figures: accuracies, paired differences, flips, recovery, by task, group, language and level; how
//! written answers diverge; bytes where tokens cannot be compared.
//!
//! Formulas are in `stats`; here is only which samples enter which figure. A sample that could not be judged on either
//! side enters none, and is counted. Estimates of both sides are over the same samples.

use std::collections::BTreeMap;

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::evidence::{self, CONFIDENCE, SampleScores, resampling};
use crate::stats::{
    Bootstrap, ClusterSums, Estimate, Flips, PairedScore, PairedTest, Power, TestMethod, holm,
    minimum_detectable_effect, proportion, scores, sign_flip,
};

/// The language that others are held against.
const ENGLISH: &str = "en";

/// What a row of results is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TaskKey {
    /// Name, as in the task's card.
    pub task: String,
    /// BCP 47 tag.
    pub language: Option<String>,
    /// Tasks of one group are also reported together.
    pub group: Option<String>,
    /// `acc`, `acc_norm`, `exact_match` …
    pub metric: String,
    /// How a written text became an answer, and what was drawn.
    pub filter: Option<String>,
}

/// One sample by one metric on both sides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Item {
    /// Index of the sample in its task.
    pub sample: u32,
    /// Samples of one number hang together, across tasks too.
    pub cluster: u32,
    /// Difficulty.
    pub level: Option<u32>,
    /// Base's score; `None` where it could not be judged.
    pub base: Option<f64>,
    /// The quant's.
    pub quant: Option<f64>,
    /// Whether both answered the same.
    pub same_answer: bool,
}

/// A task's samples by one metric.
#[derive(Clone, Debug)]
pub struct TaskItems {
    /// What they are.
    pub key: TaskKey,
    /// Whether a sample is right or wrong, so that flips are counted.
    pub right_or_wrong: bool,
    /// The share that guessing gets right.
    pub chance: Option<f64>,
    /// What grows with the level.
    pub level_unit: Option<String>,
    /// The samples.
    pub items: Vec<Item>,
}

/// Everything that a cousin's answers show against base's.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct QuestionsComparison {
    /// One per task, metric and filter; the first of a task is its headline.
    pub tasks: Vec<QuestionComparison>,
    /// Headlines of all tasks that are right or wrong, all samples together; absent where there is none.
    pub overall: Option<PairedScores>,
    /// Headlines by group.
    pub groups: Vec<NamedScores>,
    /// Headlines by language, where there is more than one.
    pub languages: Vec<LanguageScores>,
    /// The language with the largest loss, if any is below base.
    pub worst_language: Option<String>,
}

/// One task by one metric.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct QuestionComparison {
    /// What it is.
    pub key: TaskKey,
    /// The figures.
    pub scores: PairedScores,
    /// By difficulty, easiest first; empty where there are no levels.
    pub levels: Vec<LevelScores>,
    /// The first level at which the quant is shown to be worse (Holm over the levels, 5 %); absent where none is.
    pub falls_off_at: Option<u32>,
    /// Whether a sample is right or wrong.
    #[serde(default)]
    pub right_or_wrong: bool,
    /// What the figures are made of; absent in files of older versions.
    #[serde(default)]
    pub samples: Option<SampleScores>,
}

/// Both sides' scores of the same samples.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PairedScores {
    /// Samples that entered the figures.
    pub samples: usize,
    /// Samples that could not be judged on either side: in no figure.
    pub not_judged: usize,
    /// Mean score of base.
    pub base: Estimate,
    /// Mean score of the quant.
    pub quant: Estimate,
    /// Mean of quant − base, paired.
    pub difference: Estimate,
    /// Who went from what to what; absent where a score is not right or wrong.
    pub flips: Option<FlipCounts>,
    /// quant / base, with the interval of the paired ratio; absent where base is 0.
    pub recovery: Option<Estimate>,
    /// The share that guessing gets right.
    pub chance: Option<f64>,
    /// (quant − chance) / (base − chance); absent where base is not shown to be better than guessing.
    pub chance_corrected_recovery: Option<Estimate>,
    /// Why nothing can be learnt here; absent where something can.
    pub uninformative: Option<String>,
    /// Test of no difference.
    pub test: Option<PairedTest>,
    /// Its p, adjusted for all tests of its kind in this comparison (Holm).
    pub p_holm: Option<f64>,
    /// The smallest true difference that this sample would have shown (one-sided 5 %, power 80 %).
    pub minimum_detectable_effect: Option<f64>,
}

/// Who went from what to what.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FlipCounts {
    /// b: right under base, wrong under quant.
    pub right_to_wrong: u64,
    /// c: wrong under base, right under quant.
    pub wrong_to_right: u64,
    /// w: wrong under both, with different answers.
    pub wrong_to_another_wrong: u64,
    /// (b + c) / n.
    #[serde(deserialize_with = "crate::stats::estimate::nan_if_null")]
    #[schemars(with = "Option<f64>")]
    pub flips: f64,
    /// (b + c + w) / n.
    #[serde(deserialize_with = "crate::stats::estimate::nan_if_null")]
    #[schemars(with = "Option<f64>")]
    pub answer_changes: f64,
}

/// Scores of one level of difficulty.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LevelScores {
    /// What grows.
    pub unit: String,
    /// How much of it.
    pub value: u32,
    /// The figures.
    pub scores: PairedScores,
}

/// Scores of a group of tasks.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct NamedScores {
    /// The group.
    pub name: String,
    /// Tasks in it.
    pub tasks: usize,
    /// The figures, all samples together.
    pub scores: PairedScores,
}

/// Scores of one language.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LanguageScores {
    /// BCP 47 tag.
    pub language: String,
    /// The figures, all tasks of the language together.
    pub scores: PairedScores,
    /// Its difference less that of English, over the items that both have; absent for English, and without it.
    pub difference_to_english: Option<Estimate>,
}

/// Base's scores alone.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SideQuestions {
    /// One per task, metric and filter.
    pub tasks: Vec<SideScores>,
}

/// One task by one metric under one model.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SideScores {
    /// What it is.
    pub key: TaskKey,
    /// Samples that entered the figure.
    pub samples: usize,
    /// Samples that could not be judged.
    pub not_judged: usize,
    /// Mean score.
    pub score: Estimate,
    /// The share that guessing gets right.
    pub chance: Option<f64>,
    /// By difficulty: level, samples, mean score.
    pub levels: Vec<SideLevel>,
}

/// One level of difficulty under one model.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SideLevel {
    /// What grows.
    pub unit: String,
    /// How much of it.
    pub value: u32,
    /// Samples that entered the figure.
    pub samples: usize,
    /// Mean score.
    pub score: Estimate,
}

/// Compares a cousin's answers with base's.
pub fn compare(tasks: &[TaskItems], seed: u64) -> QuestionsComparison {
    let mut rows: Vec<QuestionComparison> = tasks.par_iter().map(|task| of_task(task, seed)).collect();
    let headlines: Vec<&TaskItems> =
        headlines(tasks, |task| &task.key).into_iter().filter(|task| task.right_or_wrong).collect();
    // Holm over the headlines: other metrics of a task are the same answers seen in another way.
    let of_headline = |row: &QuestionComparison| headlines.iter().any(|task| task.key == row.key);
    adjust(rows.iter_mut().filter(|row| of_headline(row)).map(|row| &mut row.scores));
    let overall = (!headlines.is_empty()).then(|| scores_of(&headlines, seed));

    let mut names: Vec<&str> = headlines.iter().filter_map(|task| task.key.group.as_deref()).collect();
    names.sort_unstable();
    names.dedup();
    let mut groups: Vec<NamedScores> = names
        .par_iter()
        .map(|name| {
            let members: Vec<&TaskItems> =
                headlines.iter().filter(|task| task.key.group.as_deref() == Some(*name)).copied().collect();
            NamedScores { name: (*name).to_owned(), tasks: members.len(), scores: scores_of(&members, seed) }
        })
        .collect();
    adjust(groups.iter_mut().map(|group| &mut group.scores));

    let languages = languages(&headlines, seed);
    let worst = languages.iter().filter(|l| l.scores.difference.value < 0.0);
    let worst = worst.min_by(|a, b| a.scores.difference.value.total_cmp(&b.scores.difference.value));
    let worst_language = worst.map(|language| language.language.clone());
    QuestionsComparison { tasks: rows, overall, groups, languages, worst_language }
}

/// Base's scores alone.
pub fn side(tasks: &[TaskItems], seed: u64) -> SideQuestions {
    let score = |items: &[&Item]| {
        let mut sums = ClusterSums::default();
        items
            .iter()
            .filter_map(|item| Some((item.cluster, item.base?)))
            .for_each(|(c, x)| sums.add(c, x, 1.0));
        (sums.observations() as usize, sums)
    };
    let one = |task: &TaskItems| {
        let all: Vec<&Item> = task.items.iter().collect();
        let mean = |sums: &ClusterSums| match task.right_or_wrong {
            true => proportion(sums, resampling(seed), CONFIDENCE),
            false => Bootstrap::new(sums, resampling(seed)).estimate(CONFIDENCE),
        };
        let (samples, sums) = score(&all);
        let levels = by_level(task).map(|(unit, value, items)| {
            let (samples, sums) = score(&items);
            SideLevel { unit, value, samples, score: mean(&sums) }
        });
        SideScores {
            key: task.key.clone(),
            samples,
            not_judged: all.len() - samples,
            score: mean(&sums),
            chance: task.chance,
            levels: levels.collect(),
        }
    };
    SideQuestions { tasks: tasks.par_iter().map(one).collect() }
}

/// The first row of every task: its headline.
pub fn headlines<T>(rows: &[T], key: impl Fn(&T) -> &TaskKey) -> Vec<&T> {
    let mut seen = std::collections::BTreeSet::new();
    rows.iter().filter(|row| seen.insert(key(row).task.as_str())).collect()
}

fn of_task(task: &TaskItems, seed: u64) -> QuestionComparison {
    let mut levels: Vec<LevelScores> = by_level(task)
        .map(|(unit, value, items)| LevelScores {
            unit,
            value,
            scores: paired(items.into_iter().map(|item| (item, task.chance)), task.right_or_wrong, seed),
        })
        .collect();
    adjust(levels.iter_mut().map(|level| &mut level.scores));
    let worse = |level: &&LevelScores| {
        level.scores.difference.value < 0.0 && level.scores.p_holm.is_some_and(|p| p < 0.05)
    };
    let falls_off_at = levels.iter().find(worse).map(|level| level.value);
    let scores = paired(task.items.iter().map(|item| (item, task.chance)), task.right_or_wrong, seed);
    QuestionComparison {
        key: task.key.clone(),
        scores,
        levels,
        falls_off_at,
        right_or_wrong: task.right_or_wrong,
        samples: Some(SampleScores::of(&task.items)),
    }
}

/// The samples of each level, easiest first.
fn by_level(task: &TaskItems) -> impl Iterator<Item = (String, u32, Vec<&Item>)> {
    let mut levels = BTreeMap::<u32, Vec<&Item>>::new();
    for item in &task.items {
        if let Some(level) = item.level {
            levels.entry(level).or_default().push(item);
        }
    }
    let unit = task.level_unit.clone().unwrap_or_default();
    levels.into_iter().map(move |(value, items)| (unit.clone(), value, items))
}

/// Several tasks' samples together.
fn scores_of(tasks: &[&TaskItems], seed: u64) -> PairedScores {
    let items = tasks.iter().flat_map(|task| task.items.iter().map(|item| (item, task.chance)));
    paired(items, tasks.iter().all(|task| task.right_or_wrong), seed)
}

/// The figures of some samples, each with the share that guessing gets right.
fn paired<'a>(
    items: impl Iterator<Item = (&'a Item, Option<f64>)>,
    right_or_wrong: bool,
    seed: u64,
) -> PairedScores {
    let (mut samples, mut not_judged) = (0usize, 0usize);
    let (mut outcomes, mut both) = (Flips::default(), Vec::new());
    let [mut base, mut quant, mut difference] = std::array::from_fn(|_| ClusterSums::default());
    let mut chances = Vec::new();
    // Scores that are means of draws are no outcomes.
    let mut whole = right_or_wrong;
    for (item, chance) in items {
        let (Some(left), Some(right)) = (item.base, item.quant) else {
            not_judged += 1;
            continue;
        };
        samples += 1;
        whole &= [left, right].iter().all(|score| *score == 0.0 || *score == 1.0);
        outcomes.add(left == 1.0, right == 1.0, item.same_answer);
        both.push(paired_score(item.cluster, 1.0, left, right));
        base.add(item.cluster, left, 1.0);
        quant.add(item.cluster, right, 1.0);
        difference.add(item.cluster, right - left, 1.0);
        chances.push(chance);
    }
    let both = evidence::bounded(&both);
    let mean = |sums: &ClusterSums| Bootstrap::new(sums, resampling(seed)).estimate(CONFIDENCE);
    let (base, quant, delta, test) = match &both {
        Some(both) => (
            both.base(CONFIDENCE),
            both.quant(CONFIDENCE),
            both.difference(CONFIDENCE),
            both.test(resampling(seed)),
        ),
        None => (
            mean(&base),
            mean(&quant),
            mean(&difference),
            sign_flip(&difference, resampling(seed)).map(|test| PairedTest {
                p: test.p,
                method: if test.exact { TestMethod::SignFlip } else { TestMethod::SignFlipSampled },
            }),
        ),
    };
    let flips = whole.then_some(outcomes);
    let chance = mean_chance(&chances);
    let uninformative = why_uninformative(&base, chance, samples);
    let above = chance.filter(|_| uninformative.is_none());
    let above = above.and_then(|chance| both.as_ref()?.ratio_above(chance, CONFIDENCE));
    let recovery = both.as_ref().filter(|_| right_or_wrong).and_then(|both| both.ratio(CONFIDENCE));
    PairedScores {
        samples,
        not_judged,
        recovery,
        base,
        quant,
        difference: delta,
        flips: flips.map(|flips| FlipCounts {
            right_to_wrong: flips.right_to_wrong,
            wrong_to_right: flips.wrong_to_right,
            wrong_to_another_wrong: flips.wrong_to_another_wrong,
            flips: flips.flips(),
            answer_changes: flips.answer_changes(),
        }),
        chance,
        chance_corrected_recovery: above,
        uninformative,
        test,
        p_holm: None,
        minimum_detectable_effect: match flips {
            Some(flips) => minimum_detectable_effect(&delta, &flips, Power::default()),
            None => delta.standard_error.map(|error| Power::default().detectable(error)),
        },
    }
}

/// The share that guessing gets right over several samples; `None` without any, or where one has none to guess among.
pub fn mean_chance(chances: &[Option<f64>]) -> Option<f64> {
    let known: Option<Vec<f64>> = chances.iter().copied().collect();
    known.filter(|known| !known.is_empty()).map(|known| known.iter().sum::<f64>() / known.len() as f64)
}

/// Why a figure says nothing about a loss: base guesses, or gets nothing right; `None` where it says something.
pub fn why_uninformative(base: &Estimate, chance: Option<f64>, samples: usize) -> Option<String> {
    if samples == 0 {
        return Some("no sample could be judged".to_owned());
    }
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    match (chance, base.lower) {
        (Some(chance), Some(lower)) if lower <= chance => Some(format!(
            "base is not shown to be better than guessing ({} against {}): what it does not know it cannot lose",
            percent(base.value),
            percent(chance)
        )),
        (Some(chance), None) if base.value <= chance => {
            Some(format!("base is no better than guessing ({})", percent(chance)))
        }
        (None, _) if base.value == 0.0 => Some("base gets nothing right: it has nothing to lose".to_owned()),
        _ => None,
    }
}

/// Holm's adjustment over all tests of one kind.
fn adjust<'a>(scores: impl Iterator<Item = &'a mut PairedScores>) {
    let mut tested: Vec<&mut PairedScores> = scores.filter(|scores| scores.test.is_some()).collect();
    let p_values: Vec<f64> = tested.iter().filter_map(|scores| Some(scores.test.as_ref()?.p)).collect();
    for (scores, adjusted) in tested.iter_mut().zip(holm(&p_values)) {
        scores.p_holm = Some(adjusted);
    }
}

fn languages(headlines: &[&TaskItems], seed: u64) -> Vec<LanguageScores> {
    let mut by_language = BTreeMap::<&str, Vec<&TaskItems>>::new();
    for task in headlines {
        if let Some(language) = &task.key.language {
            by_language.entry(language).or_default().push(task);
        }
    }
    if by_language.len() < 2 {
        return Vec::new();
    }
    let english = by_language.get(ENGLISH).cloned();
    let mut languages: Vec<LanguageScores> = by_language
        .par_iter()
        .map(|(language, tasks)| LanguageScores {
            language: (*language).to_owned(),
            scores: scores_of(tasks, seed),
            difference_to_english: english
                .as_ref()
                .filter(|_| *language != ENGLISH)
                .and_then(|english| to_english(tasks, english)),
        })
        .collect();
    adjust(languages.iter_mut().map(|language| &mut language.scores));
    languages
}

/// Mean over parallel items of (quant − base) here less (quant − base) in English.
fn to_english(tasks: &[&TaskItems], english: &[&TaskItems]) -> Option<Estimate> {
    let differences = |tasks: &[&TaskItems]| -> BTreeMap<u32, (f64, f64)> {
        let mut sums = BTreeMap::<u32, (f64, f64)>::new();
        for item in tasks.iter().flat_map(|task| &task.items) {
            if let (Some(base), Some(quant)) = (item.base, item.quant) {
                let sum = sums.entry(item.cluster).or_default();
                *sum = (sum.0 + quant - base, sum.1 + 1.0);
            }
        }
        sums
    };
    let (here, there) = (differences(tasks), differences(english));
    // Half of it lies in [−1, 1], and is a paired difference like any other.
    let shared: Vec<PairedScore> = here
        .iter()
        .filter_map(|(&cluster, (sum, count))| {
            let (other, others) = there.get(&cluster)?;
            let half = (sum / count - other / others) / 2.0;
            Some(paired_score(cluster, count.min(*others), (-half).max(0.0), half.max(0.0)))
        })
        .collect();
    (!shared.is_empty()).then(|| scores::PairedScores::new(&shared).difference(CONFIDENCE).scaled(2.0))
}

pub(super) fn paired_score(cluster: u32, weight: f64, base: f64, quant: f64) -> PairedScore {
    PairedScore { cluster, stratum: 0, weight, base, quant }
}

/// Two greedy answers to one prompt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GenerationItem {
    /// See [`Item::cluster`].
    pub cluster: u32,
    /// Tokens of base's answer.
    pub base_tokens: u32,
    /// Tokens of the quant's.
    pub quant_tokens: u32,
    /// Index of the first token that differs; `None`: equal to the end.
    pub first_divergence: Option<u32>,
    /// Whether base ran out of tokens.
    pub base_truncated: bool,
    /// Whether the quant did.
    pub quant_truncated: bool,
    /// Share of base's 4-grams that occurred before.
    pub base_repetition: f64,
    /// The same of the quant.
    pub quant_repetition: f64,
    /// Whether base never closed its thinking.
    pub base_unclosed_think: bool,
    /// Whether the quant did not.
    pub quant_unclosed_think: bool,
}

/// How a cousin's greedy answers diverge from base's.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct GenerationComparison {
    /// Prompts.
    pub samples: usize,
    /// Share of answers that are equal to the last token.
    pub identical: Estimate,
    /// Median index of the first token that differs, over all answers; those that are equal count with their length.
    #[serde(deserialize_with = "crate::stats::estimate::nan_if_null")]
    #[schemars(with = "Option<f64>")]
    pub first_divergence_median: f64,
    /// Mean of that index as a share of base's length.
    pub first_divergence_share: Estimate,
    /// Mean tokens of base's answers.
    pub base_tokens: Estimate,
    /// Mean tokens of the quant's.
    pub quant_tokens: Estimate,
    /// Share of base's answers that ran out of tokens.
    pub base_truncated: Estimate,
    /// The same of the quant.
    pub quant_truncated: Estimate,
    /// Mean share of base's 4-grams of tokens that occurred before in the same answer.
    pub base_repetition: Estimate,
    /// The same of the quant.
    pub quant_repetition: Estimate,
    /// Share of base's answers that never close their thinking.
    pub base_unclosed_think: Estimate,
    /// The same of the quant.
    pub quant_unclosed_think: Estimate,
}

/// Reduces the answers of one task; `None` without any.
pub fn generations(items: &[GenerationItem], seed: u64) -> Option<GenerationComparison> {
    if items.is_empty() {
        return None;
    }
    let mean = |value: &dyn Fn(&GenerationItem) -> f64, share: bool| {
        let mut sums = ClusterSums::default();
        items.iter().for_each(|item| sums.add(item.cluster, value(item), 1.0));
        match share {
            true => proportion(&sums, resampling(seed), CONFIDENCE),
            false => Bootstrap::new(&sums, resampling(seed)).estimate(CONFIDENCE),
        }
    };
    let share =
        |value: &dyn Fn(&GenerationItem) -> bool| mean(&|item| f64::from(u8::from(value(item))), true);
    let at = |item: &GenerationItem| f64::from(item.first_divergence.unwrap_or(item.base_tokens));
    let mut sorted: Vec<f64> = items.iter().map(at).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    Some(GenerationComparison {
        samples: items.len(),
        identical: share(&|item| item.first_divergence.is_none()),
        first_divergence_median: crate::stats::quantile::quantile_type7(&sorted, 0.5).unwrap_or(f64::NAN),
        first_divergence_share: mean(
            // An empty answer that is no longer empty has diverged at once.
            &|item| match item.first_divergence {
                None => 1.0,
                Some(index) => f64::from(index) / f64::from(item.base_tokens.max(1)),
            },
            false,
        ),
        base_tokens: mean(&|item| f64::from(item.base_tokens), false),
        quant_tokens: mean(&|item| f64::from(item.quant_tokens), false),
        base_truncated: share(&|item| item.base_truncated),
        quant_truncated: share(&|item| item.quant_truncated),
        base_repetition: mean(&|item| item.base_repetition, true),
        quant_repetition: mean(&|item| item.quant_repetition, true),
        base_unclosed_think: share(&|item| item.base_unclosed_think),
        quant_unclosed_think: share(&|item| item.quant_unclosed_think),
    })
}

/// One text under both sides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ByteItem {
    /// See [`Item::cluster`].
    pub cluster: u32,
    /// Σ −ln p of base, nats.
    pub base_nll: f64,
    /// Σ −ln q of the quant, nats.
    pub quant_nll: f64,
    /// UTF-8 bytes.
    pub bytes: f64,
    /// Words, as lm-evaluation-harness counts them.
    pub words: f64,
}

/// Texts of which every byte was scored, by whatever tokens.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ByteComparison {
    /// Texts.
    pub documents: usize,
    /// Texts with a figure that is not finite: in none.
    pub not_finite: usize,
    /// Bits per byte of base.
    pub base_bits_per_byte: Estimate,
    /// Bits per byte of the quant.
    pub quant_bits_per_byte: Estimate,
    /// Quant − base, paired by text.
    pub delta_bits_per_byte: Estimate,
    /// exp of nll per word of base.
    pub base_word_perplexity: Estimate,
    /// The same of the quant.
    pub quant_word_perplexity: Estimate,
}

/// Reduces texts; `None` without any.
pub fn bytes(items: &[ByteItem], seed: u64) -> Option<ByteComparison> {
    let finite: Vec<&ByteItem> =
        items.iter().filter(|item| item.base_nll.is_finite() && item.quant_nll.is_finite()).collect();
    if items.is_empty() {
        return None;
    }
    let per = |value: &dyn Fn(&ByteItem) -> f64, unit: &dyn Fn(&ByteItem) -> f64| {
        let mut sums = ClusterSums::default();
        finite.iter().for_each(|item| sums.add(item.cluster, value(item), unit(item)));
        Bootstrap::new(&sums, resampling(seed)).estimate(CONFIDENCE)
    };
    let bits = std::f64::consts::LN_2;
    Some(ByteComparison {
        documents: finite.len(),
        not_finite: items.len() - finite.len(),
        base_bits_per_byte: per(&|item| item.base_nll / bits, &|item| item.bytes),
        quant_bits_per_byte: per(&|item| item.quant_nll / bits, &|item| item.bytes),
        delta_bits_per_byte: per(&|item| (item.quant_nll - item.base_nll) / bits, &|item| item.bytes),
        base_word_perplexity: per(&|item| item.base_nll, &|item| item.words).exp(),
        quant_word_perplexity: per(&|item| item.quant_nll, &|item| item.words).exp(),
    })
}

#[cfg(test)]
mod tests;
