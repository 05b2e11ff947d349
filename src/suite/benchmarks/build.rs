//! Items to questions: ids, clusters, worked examples, and what is left out, the same for every benchmark.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::fields::{Fields, Found, Unusable};
use super::files::Split;
use super::{Benchmark, Data, Part, Settings};
use crate::error::{Error, Result};
use crate::suite::python_random::PythonRandom;
use crate::suite::question::{
    Answer, ChoiceOption, Filter, Level, Metric, QuestionKind, Questions, Sample, Shot,
};

/// How a benchmark's files become questions.
#[derive(Debug)]
pub(super) struct Recipe {
    /// The splits that are asked, the best first.
    pub(super) scored: &'static [Split],
    /// The splits that worked examples come from, the best first.
    pub(super) shots: &'static [Split],
    /// How worked examples are chosen.
    pub(super) draw: Draw,
    /// Whether there may be worked examples at all.
    pub(super) few_shot: bool,
    /// Words in the names of files that tell nothing, separated by spaces.
    pub(super) noise: &'static str,
    /// Columns of a table without a header row.
    pub(super) columns: Option<&'static [&'static str]>,
    /// The field that names a record's part; the first that there is.
    pub(super) part_fields: &'static [&'static str],
    /// The record's own id.
    pub(super) id: &'static str,
    /// Records that hold several items become one record each.
    pub(super) expand: fn(Vec<Value>) -> Vec<Value>,
    /// The tasks that are made of the same records; usually one.
    pub(super) variants: &'static [Variant],
}

/// How worked examples are chosen from their split.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Draw {
    /// The first ones, for every sample.
    First,
    /// At random, anew for each sample.
    Random,
}

/// One way to ask.
#[derive(Debug)]
pub(super) struct Variant {
    /// Follows the benchmark's name.
    pub(super) suffix: &'static str,
    /// What all samples share, given the part's name (empty: none).
    pub(super) frame: fn(&str) -> Frame,
    /// One sample, given the part's name.
    pub(super) item: fn(Fields, &str) -> Found<Item>,
}

/// What all samples of a task share.
pub(super) struct Frame {
    pub(super) kind: QuestionKind,
    pub(super) description: String,
    pub(super) target_delimiter: &'static str,
    pub(super) metrics: Vec<Metric>,
    pub(super) filters: Vec<Filter>,
}

/// What a record asks.
pub(super) struct Item {
    pub(super) question: String,
    pub(super) answer: Answer,
    /// The record as a worked example.
    pub(super) shot: Shot,
    pub(super) id: Option<String>,
    pub(super) cluster: Cluster,
    pub(super) level: Option<Level>,
}

/// What an item hangs together with.
pub(super) enum Cluster {
    /// Nothing: its id.
    Own,
    /// All items with this key.
    Key(String),
    /// All items with this text; the cluster is called after the first of them, so that it is the same for
    /// parallel items whose texts differ by language.
    SameText(String),
}

impl Item {
    /// An item whose question is a text and whose right option, or first target, is the worked answer.
    pub(super) fn new(question: String, answer: Answer) -> Self {
        let worked = match &answer {
            Answer::Choice { options, gold } => gold
                .first()
                .and_then(|gold| options.get(*gold))
                .map(|option| option.continuation.clone())
                .unwrap_or_default(),
            Answer::Continuation(text) => text.clone(),
            Answer::Generation(targets) => targets.first().cloned().unwrap_or_default(),
            Answer::Text => String::new(),
        };
        let shot = Shot { question: question.clone(), answer: worked };
        Item { question, answer, shot, id: None, cluster: Cluster::Own, level: None }
    }

    /// The same, of a cluster.
    pub(super) fn of(self, cluster: Cluster) -> Self {
        Item { cluster, ..self }
    }
}

/// Options that are scored as they are, of which one is right.
pub(super) fn choice(options: &[impl AsRef<str>], gold: usize) -> Answer {
    let options = options
        .iter()
        .map(|text| ChoiceOption {
            continuation: text.as_ref().to_owned(),
            question: None,
            normalizer: text.as_ref().to_owned(),
        })
        .collect();
    Answer::Choice { options, gold: vec![gold] }
}

/// The questions that `variant` asks of a part's records.
pub(super) fn questions(
    benchmark: &Benchmark,
    variant: &Variant,
    part: Option<&Part>,
    data: &Data,
    path: &Path,
    num_fewshot: usize,
    settings: &Settings,
) -> Result<Questions> {
    let part = part.map_or("", |part| part.name);
    let mut left_out = BTreeMap::new();
    let mut items = items(benchmark, variant, part, &data.records, path, &mut left_out)?;
    let mut reasons: Vec<String> = left_out.into_iter().map(|(reason, n)| records_say(n, &reason)).collect();
    if items.is_empty() {
        let problem = format!("no record can be asked: {}", reasons.join(", "));
        return Err(Error::file(
            path,
            problem,
            format!("give the split that is asked ({})", benchmark.splits),
        ));
    }
    name_ids(&mut items);
    let mut pool: Vec<Shot> = Vec::new();
    let mut draw = benchmark.recipe.draw;
    if num_fewshot > 0 {
        let shown = self::items(benchmark, variant, part, &data.shots, path, &mut BTreeMap::new())?;
        pool = shown.into_iter().map(|(_, _, item)| item.shot).collect();
        if data.shots.is_empty() {
            let rest = items.split_off(num_fewshot.min(items.len()));
            reasons.push(records_say(items.len(), "that serve as worked examples"));
            pool = items.into_iter().map(|(_, _, item)| item.shot).collect();
            items = rest;
            draw = Draw::First;
        }
        if pool.len() < num_fewshot || items.is_empty() {
            let problem = format!("has {} records for {num_fewshot} worked examples", pool.len());
            return Err(Error::file(path, problem, "ask for fewer, or add the split that they come from"));
        }
    }
    items.truncate(settings.limit.unwrap_or(usize::MAX));
    let mut random = PythonRandom::new(settings.seed);
    let first: Arc<[Shot]> = pool.iter().take(num_fewshot).cloned().collect();
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    let samples = items
        .into_iter()
        .map(|(doc_id, record, item)| {
            let shots = match draw {
                Draw::Random if num_fewshot > 0 => random
                    .sample_indices(pool.len(), num_fewshot)
                    .unwrap_or_default()
                    .into_iter()
                    .filter_map(|index| pool.get(index).cloned())
                    .collect(),
                _ => Arc::clone(&first),
            };
            let id = item.id.unwrap_or_else(|| doc_id.to_string());
            let cluster = match item.cluster {
                Cluster::Own => id.clone(),
                Cluster::Key(key) => key,
                Cluster::SameText(text) => texts.entry(text).or_insert_with(|| id.clone()).clone(),
            };
            Sample {
                id,
                doc_id,
                cluster,
                level: item.level,
                shots,
                question: item.question,
                answer_prefix: String::new(),
                answer: item.answer,
                record: record.clone(),
            }
        })
        .collect();
    let frame = (variant.frame)(part);
    Ok(Questions {
        kind: frame.kind,
        description: frame.description,
        target_delimiter: frame.target_delimiter.to_owned(),
        fewshot_delimiter: "\n\n".to_owned(),
        samples,
        metrics: frame.metrics,
        filters: frame.filters,
        left_out: reasons,
    })
}

/// The usable records with their indexes; the others are counted by reason.
fn items<'a>(
    benchmark: &Benchmark,
    variant: &Variant,
    part: &str,
    records: &'a [Value],
    path: &Path,
    left_out: &mut BTreeMap<String, usize>,
) -> Result<Vec<(usize, &'a Value, Item)>> {
    let mut items = Vec::with_capacity(records.len());
    for (doc_id, record) in records.iter().enumerate() {
        let Some(fields) = record.as_object() else {
            return Err(Error::file(
                path,
                format!("record {doc_id}: not an object"),
                "give one object per record",
            ));
        };
        match (variant.item)(Fields(fields), part) {
            Ok(mut item) => {
                if item.id.is_none() {
                    item.id = Fields(fields).text_or_number(&[benchmark.recipe.id]).ok();
                }
                items.push((doc_id, record, item));
            }
            Err(Unusable::LeftOut(reason)) => *left_out.entry(reason).or_default() += 1,
            Err(Unusable::Missing(column)) => {
                let found: Vec<String> = fields.keys().map(|name| format!("`{name}`")).collect();
                let problem = format!("record {doc_id}: no {column}, only {}", found.join(", "));
                return Err(Error::file(path, problem, format!("give the data of {}", benchmark.dataset)));
            }
            Err(Unusable::Wrong(what)) => {
                let help = format!("give the data of {}", benchmark.dataset);
                return Err(Error::file(path, format!("record {doc_id}: {what}"), help));
            }
        }
    }
    Ok(items)
}

/// Keeps the records' own ids only if all have one and no two the same.
fn name_ids(items: &mut [(usize, &Value, Item)]) {
    let ids: BTreeSet<&str> = items.iter().filter_map(|(_, _, item)| item.id.as_deref()).collect();
    if ids.len() != items.len() {
        items.iter_mut().for_each(|(_, _, item)| item.id = None);
    }
}

fn records_say(n: usize, reason: &str) -> String {
    format!("{n} record{} {reason}", if n == 1 { "" } else { "s" })
}
