//! Two runs side by side: the same documents, prompts and filters, one value per sample, metric and side.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    digest::Digest,
    read::{SampleFile, SampleTask},
    row::{Row, RowAnswer, RowOption, Score},
};
use crate::error::{Error, Result};

/// What two runs have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct Paired {
    /// By task, filter and metric; never empty.
    pub tasks: Vec<PairedTask>,
    /// Tasks, filters and metrics that only the base has, as `q_arc_easy, metric acc_norm`.
    pub only_base: Vec<String>,
    /// Tasks, filters and metrics that only the quant has.
    pub only_quant: Vec<String>,
    /// What a reader of the figures should know besides.
    pub notes: Vec<String>,
}

/// One metric of one task under one filter.
#[derive(Clone, Debug, PartialEq)]
pub struct PairedTask {
    /// As the base's file calls it.
    pub task: String,
    /// `none` without one.
    pub filter: String,
    /// As `acc_norm`.
    pub metric: String,
    /// Documents with the same prompt and the same right answer on both sides, in the base's order.
    pub items: Vec<PairedItem>,
    /// Whether every value is 0 or 1.
    pub right_or_wrong: bool,
    /// How values become the metric.
    pub aggregate: Aggregate,
    /// What guessing gives: mean over the items of right options / options; `None` where nothing is chosen.
    pub chance: Option<f64>,
    /// Documents of the base that the quant lacks.
    pub unpaired_base: usize,
    /// Documents of the quant that the base lacks.
    pub unpaired_quant: usize,
    /// Documents that were left out because their prompts differ, by `doc_id`.
    pub different_prompts: Vec<String>,
    /// Documents that were left out because what is right differs, by `doc_id`.
    pub different_targets: Vec<String>,
    /// Items whose generation settings differ; they stay in.
    pub different_settings: usize,
    /// Items without a finite value on at least one side.
    pub without_value: usize,
    /// Items whose recorded value does not follow from their log-likelihoods, so that the chosen option is unknown.
    pub unexplained: usize,
    /// Mean over the items' options (or texts) of |log-likelihood of base − of quant|, nats, finite ones only.
    pub log_likelihood_difference: Option<f64>,
}

/// One document.
#[derive(Clone, Debug, PartialEq)]
pub struct PairedItem {
    /// The base's `doc_id`; unique among the items.
    pub key: String,
    /// The base's score or log-likelihood (nats); `None` where it is not finite.
    pub base: Option<f64>,
    /// The quant's.
    pub quant: Option<f64>,
    /// What the values are divided by: words or bytes of a rolling text, else 1.
    pub units: f64,
    /// Whether both gave the same answer: chose the same option, wrote the same filtered text. `None` where the
    /// rows do not tell (also where greedy decoding writes the continuation on neither side).
    pub same_answer: Option<bool>,
}

/// How the values of samples become a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregate {
    /// Σ value / n.
    Mean,
    /// exp(−Σ value / Σ units).
    Perplexity,
    /// −Σ value / (Σ units · ln 2).
    Bits,
}

impl PairedTask {
    /// The metric of base and of quant over the items that have a value on both sides; `None` without such.
    pub fn figures(&self) -> Option<(f64, f64)> {
        let both: Vec<(f64, f64, f64)> =
            self.items.iter().filter_map(|item| Some((item.base?, item.quant?, item.units))).collect();
        let units: f64 = both.iter().map(|(_, _, units)| units).sum();
        if both.is_empty() || units <= 0.0 {
            return None;
        }
        let figure = |sum: f64| match self.aggregate {
            Aggregate::Mean => sum / units,
            Aggregate::Perplexity => (-(sum / units)).exp(),
            Aggregate::Bits => -(sum / units) / std::f64::consts::LN_2,
        };
        let base = both.iter().map(|(base, _, _)| base).sum();
        let quant = both.iter().map(|(_, quant, _)| quant).sum();
        Some((figure(base), figure(quant)))
    }
}

/// Pairs two runs document by document.
///
/// Documents are the same if their hashes are (identical documents in their order), or, where a file has neither
/// documents nor hashes, if their `doc_id` is. Two single files that are not named after a task are taken to be of
/// the same task.
///
/// # Errors
/// No task in common, or nothing in common within them; a task in both whose documents, prompts or right answers are
/// all different.
pub fn pair(base: &SampleFile, quant: &SampleFile) -> Result<Paired> {
    let mut paired =
        Paired { tasks: Vec::new(), only_base: Vec::new(), only_quant: Vec::new(), notes: Vec::new() };
    for (side, file) in [("base", base), ("quant", quant)] {
        paired.notes.extend(file.notes.iter().map(|note| format!("{side}: {note}")));
    }
    let by_name =
        |file: &'_ SampleFile| -> Vec<String> { file.tasks.iter().map(|t| t.name.clone()).collect() };
    match (base.tasks.as_slice(), quant.tasks.as_slice()) {
        ([one], [other]) if one.name != other.name && !(one.is_named && other.is_named) => {
            paired.notes.push(format!("taken to be the same task: `{}` and `{}`", one.name, other.name));
            pair_task(base, quant, one, other, &mut paired)?;
        }
        _ => {
            let find =
                |file: &'_ SampleFile, name: &str| file.tasks.iter().position(|task| task.name == name);
            for task in &base.tasks {
                match find(quant, &task.name).and_then(|index| quant.tasks.get(index)) {
                    Some(other) => pair_task(base, quant, task, other, &mut paired)?,
                    None => paired.only_base.push(task.name.clone()),
                }
            }
            let lonely = quant.tasks.iter().filter(|task| find(base, &task.name).is_none());
            paired.only_quant.extend(lonely.map(|task| task.name.clone()));
        }
    }
    if paired.tasks.is_empty() {
        let (left, right) = match (&paired.only_base, &paired.only_quant) {
            (left, right) if left.is_empty() && right.is_empty() => (by_name(base), by_name(quant)),
            (left, right) => (left.clone(), right.clone()),
        };
        let problem = format!("nothing in common: {} against {}", some_of(&left), some_of(&right));
        return Err(incomparable(base, quant, problem, "give the sample files of the same tasks"));
    }
    Ok(paired)
}

fn incomparable(base: &SampleFile, quant: &SampleFile, problem: String, help: &str) -> Error {
    Error::Incomparable { base: base.path.clone(), quant: quant.path.clone(), problem, help: help.to_owned() }
}

/// The first few of many names.
fn some_of(names: &[String]) -> String {
    let shown = names.iter().take(5).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match names.len() {
        0 => "nothing".to_owned(),
        1..=5 => shown,
        count => format!("{shown} and {} more", count.saturating_sub(5)),
    }
}

fn pair_task(
    base: &SampleFile,
    quant: &SampleFile,
    left: &SampleTask,
    right: &SampleTask,
    paired: &mut Paired,
) -> Result<()> {
    let lonely = |a: &SampleTask, b: &SampleTask| -> Vec<String> {
        let missing = a.filters().filter(|name| !b.rows.contains_key(*name));
        missing.map(|name| format!("{}, filter {name}", left.name)).collect()
    };
    paired.only_base.extend(lonely(left, right));
    paired.only_quant.extend(lonely(right, left));
    for (filter, left_rows) in &left.rows {
        let Some(right_rows) = right.rows.get(filter) else { continue };
        let pairs = Pairs::new(left_rows, right_rows);
        pairs.check().map_err(|(problem, help)| {
            let place = format!("task `{}`, filter `{filter}`: {problem}", left.name);
            incomparable(base, quant, place, help)
        })?;
        if pairs.unchecked_prompts > 0 {
            let count = pairs.unchecked_prompts;
            paired.notes.push(format!(
                "{}, filter {filter}: {count} documents without prompts to compare",
                left.name
            ));
        }
        let metrics = |rows: &[&Row]| -> BTreeSet<String> {
            rows.iter().flat_map(|row| row.metrics.iter().map(|(name, _)| name.clone())).collect()
        };
        let of_base = metrics(&pairs.rows.iter().map(|(row, _)| *row).collect::<Vec<_>>());
        let of_quant = metrics(&pairs.rows.iter().map(|(_, row)| *row).collect::<Vec<_>>());
        let only = |name: &String| format!("{}, filter {filter}, metric {name}", left.name);
        paired.only_base.extend(of_base.difference(&of_quant).map(only));
        paired.only_quant.extend(of_quant.difference(&of_base).map(only));
        for metric in of_base.intersection(&of_quant) {
            match pairs.task(&left.name, filter, metric) {
                Some(task) => paired.tasks.push(task),
                None => paired.notes.push(format!(
                    "{}, filter {filter}: {metric} has no value per sample, so it cannot be paired",
                    left.name
                )),
            }
        }
    }
    Ok(())
}

/// The rows of one task and filter that belong together.
struct Pairs<'a> {
    rows: Vec<(&'a Row, &'a Row)>,
    unpaired_base: usize,
    unpaired_quant: usize,
    different_prompts: Vec<String>,
    different_targets: Vec<String>,
    different_settings: usize,
    unchecked_prompts: usize,
}

/// What makes a document the same: its hash and which of several identical ones it is, or its index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Document(Digest, usize),
    Index(u64),
}

impl<'a> Pairs<'a> {
    fn new(base: &'a [Row], quant: &'a [Row]) -> Self {
        let hashed = base.iter().chain(quant).all(|row| row.document.is_some());
        let others: BTreeMap<Key, &Row> = keyed(quant, hashed).collect();
        let mut pairs = Self {
            rows: Vec::new(),
            unpaired_base: 0,
            unpaired_quant: 0,
            different_prompts: Vec::new(),
            different_targets: Vec::new(),
            different_settings: 0,
            unchecked_prompts: 0,
        };
        let mut met = 0_usize;
        for (key, left) in keyed(base, hashed) {
            let other = others.get(&key).filter(|right| !differ(left.document, right.document));
            let Some(right) = other else {
                pairs.unpaired_base = pairs.unpaired_base.saturating_add(1);
                continue;
            };
            met = met.saturating_add(1);
            if differ(left.prompt, right.prompt) || differ(left.asked, right.asked) {
                pairs.different_prompts.push(left.doc_id.to_string());
            } else if differ(left.target, right.target) {
                pairs.different_targets.push(left.doc_id.to_string());
            } else {
                let unchecked = left.prompt.is_none() || right.prompt.is_none();
                pairs.unchecked_prompts = pairs.unchecked_prompts.saturating_add(usize::from(unchecked));
                let settings = usize::from(differ(left.settings, right.settings));
                pairs.different_settings = pairs.different_settings.saturating_add(settings);
                pairs.rows.push((left, right));
            }
        }
        pairs.unpaired_quant = quant.len().saturating_sub(met);
        pairs
    }

    /// Whether anything is left, else why not and what to do.
    fn check(&self) -> std::result::Result<(), (String, &'static str)> {
        let (prompts, targets) = (self.different_prompts.len(), self.different_targets.len());
        match (self.rows.is_empty(), prompts, targets) {
            (false, _, _) => Ok(()),
            (true, 0, 0) => Err((
                format!(
                    "none of {} documents is among the other's {}",
                    self.unpaired_base, self.unpaired_quant
                ),
                "run both models on the same data",
            )),
            (true, _, 0) => Err((
                format!("the prompts of all {prompts} common documents differ"),
                "run both models with the same examples, description and chat template, or leave this task out",
            )),
            (true, _, _) => Err((
                format!(
                    "of the common documents, the prompts of {prompts} and the right answers of {targets} differ"
                ),
                "run both models with the same version of the task",
            )),
        }
    }

    /// One metric; `None` where it has no value per sample.
    fn task(&self, task: &str, filter: &str, metric: &str) -> Option<PairedTask> {
        let stripped = self.has_delimiter();
        let mut items = Vec::with_capacity(self.rows.len());
        let mut unexplained = 0_usize;
        for (left, right) in &self.rows {
            let (base, units) = value(left, metric)?;
            let (quant, _) = value(right, metric)?;
            let (from, to) = (answer(left, metric, stripped), answer(right, metric, stripped));
            let lost = from == Given::Unexplained || to == Given::Unexplained;
            unexplained = unexplained.saturating_add(usize::from(lost));
            let finite = |value: f64| Some(value).filter(|value| value.is_finite());
            items.push(PairedItem {
                key: left.doc_id.to_string(),
                base: finite(base),
                quant: finite(quant),
                units,
                same_answer: from.same(&to),
            });
        }
        let values = items.iter().flat_map(|item| [item.base, item.quant]).flatten();
        let right_or_wrong =
            values.clone().next().is_some() && values.clone().all(|value| value == 0.0 || value == 1.0);
        let without_value = items.iter().filter(|item| item.base.is_none() || item.quant.is_none()).count();
        let chosen = right_or_wrong && metric.starts_with("acc");
        Some(PairedTask {
            task: task.to_owned(),
            filter: filter.to_owned(),
            metric: metric.to_owned(),
            right_or_wrong,
            aggregate: match metric {
                "perplexity" | "word_perplexity" | "byte_perplexity" => Aggregate::Perplexity,
                "bits_per_byte" => Aggregate::Bits,
                _ => Aggregate::Mean,
            },
            chance: if chosen { self.chance() } else { None },
            unpaired_base: self.unpaired_base,
            unpaired_quant: self.unpaired_quant,
            different_prompts: self.different_prompts.clone(),
            different_targets: self.different_targets.clone(),
            different_settings: self.different_settings,
            without_value,
            unexplained,
            log_likelihood_difference: self.log_likelihood_difference(),
            items,
        })
    }

    /// Mean of right options / options; of an option that is not known to be right, one is.
    fn chance(&self) -> Option<f64> {
        let share = |(row, _): &(&Row, &Row)| match &row.answer {
            RowAnswer::Choice(options) => {
                let gold: BTreeSet<usize> = row.gold.iter().copied().collect();
                Some(gold.len().max(1) as f64 / options.len() as f64)
            }
            _ => None,
        };
        let shares: Option<Vec<f64>> = self.rows.iter().map(share).collect();
        shares
            .filter(|shares| !shares.is_empty())
            .map(|shares| shares.iter().sum::<f64>() / shares.len() as f64)
    }

    fn log_likelihood_difference(&self) -> Option<f64> {
        let (mut sum, mut count) = (0.0, 0_usize);
        for (left, right) in &self.rows {
            let (left, right) = (log_likelihoods(&left.answer), log_likelihoods(&right.answer));
            if left.len() != right.len() {
                continue;
            }
            for difference in left.iter().zip(&right).map(|(a, b)| (a - b).abs()).filter(|d| d.is_finite()) {
                sum += difference;
                count = count.saturating_add(1);
            }
        }
        (count > 0).then(|| sum / count as f64)
    }

    /// Whether the continuations begin with a delimiter of one character, which counts for no length. The rows do
    /// not say so: where all begin with white space, it is taken for one unless more recorded values follow
    /// without it.
    fn has_delimiter(&self) -> bool {
        let rows = || self.rows.iter().flat_map(|(left, right)| [*left, *right]);
        let mut options = rows().flat_map(|row| match &row.answer {
            RowAnswer::Choice(options) => options.as_slice(),
            _ => &[],
        });
        if !options.all(|option| option.spaced) {
            return false;
        }
        let unexplained = |stripped: bool| {
            let metrics = ["acc_norm", "acc_bytes"];
            let lost =
                |row: &Row| metrics.iter().filter(|m| answer(row, m, stripped) == Given::Unexplained).count();
            rows().map(lost).sum::<usize>()
        };
        unexplained(true) <= unexplained(false)
    }
}

/// Rows by what makes their documents the same.
fn keyed(rows: &[Row], hashed: bool) -> impl Iterator<Item = (Key, &Row)> {
    let mut seen: BTreeMap<Digest, usize> = BTreeMap::new();
    rows.iter().map(move |row| match row.document.filter(|_| hashed) {
        Some(document) => {
            let count = seen.entry(document).or_default();
            *count = count.saturating_add(1);
            (Key::Document(document, *count), row)
        }
        None => (Key::Index(row.doc_id), row),
    })
}

/// Whether both are known and not the same.
fn differ(a: Option<Digest>, b: Option<Digest>) -> bool {
    a.zip(b).is_some_and(|(a, b)| a != b)
}

/// A row's value and its units; `None` where the metric is no number of one sample.
fn value(row: &Row, metric: &str) -> Option<(f64, f64)> {
    match row.score(metric) {
        // Known from other rows; this one lacks it.
        None => Some((f64::NAN, 1.0)),
        Some(Score::Number(value)) => Some((value, 1.0)),
        Some(Score::Rolling(log_likelihood, units)) => Some((log_likelihood, units)),
        Some(Score::Other) => None,
    }
}

fn log_likelihoods(answer: &RowAnswer) -> Vec<f64> {
    match answer {
        RowAnswer::Choice(options) => options.iter().map(|option| option.log_likelihood).collect(),
        RowAnswer::Continuation { log_likelihood, .. } | RowAnswer::Rolling(log_likelihood) => {
            vec![*log_likelihood]
        }
        RowAnswer::Text(_) | RowAnswer::Unknown => Vec::new(),
    }
}

/// What a model answered, as far as one metric looks.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Given {
    Option(usize),
    /// Whether greedy decoding writes the continuation.
    Greedy(bool),
    Text(Digest),
    /// The option that the log-likelihoods prefer is not the one that was judged.
    Unexplained,
    Unknown,
}

impl Given {
    fn same(&self, other: &Given) -> Option<bool> {
        match (self, other) {
            (Given::Option(a), Given::Option(b)) => Some(a == b),
            (Given::Text(a), Given::Text(b)) => Some(a == b),
            // Two continuations that are not the expected one may differ.
            (Given::Greedy(false), Given::Greedy(false)) => None,
            (Given::Greedy(a), Given::Greedy(b)) => Some(a == b),
            _ => None,
        }
    }
}

fn answer(row: &Row, metric: &str, stripped: bool) -> Given {
    let options = match &row.answer {
        RowAnswer::Choice(options) => options,
        RowAnswer::Continuation { greedy: Some(greedy), .. } => return Given::Greedy(*greedy),
        RowAnswer::Text(text) => return Given::Text(*text),
        _ => return Given::Unknown,
    };
    let Some(chosen) = choose(options, metric, stripped) else {
        return Given::Unknown;
    };
    let judges_choice = matches!(metric, "acc" | "acc_norm" | "acc_bytes" | "acc_mutual_info");
    let right = f64::from(u8::from(row.gold.contains(&chosen)));
    match row.score(metric) {
        Some(Score::Number(recorded)) if judges_choice && !row.gold.is_empty() && recorded != right => {
            Given::Unexplained
        }
        _ => Given::Option(chosen),
    }
}

/// The option with the largest value, of equal ones the first (`np.argmax`); `None` where a value is unknown.
fn choose(options: &[RowOption], metric: &str, stripped: bool) -> Option<usize> {
    let delimiter = usize::from(stripped);
    let value = |option: &RowOption| {
        let length = |length: usize| length.saturating_sub(delimiter) as f64;
        Some(match metric {
            "acc_norm" => option.log_likelihood / length(option.length?.0),
            "acc_bytes" => option.log_likelihood / length(option.length?.1),
            "acc_mutual_info" => option.log_likelihood - option.unconditional?,
            _ => option.log_likelihood,
        })
    };
    let mut best: Option<(usize, f64)> = None;
    for (index, option) in options.iter().enumerate() {
        let value = value(option).filter(|value| !value.is_nan())?;
        if best.is_none_or(|(_, largest)| value > largest) {
            best = Some((index, value));
        }
    }
    best.map(|(index, _)| index)
}
