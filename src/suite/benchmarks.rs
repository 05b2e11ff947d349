//! Well-known benchmarks: their files, as their authors or the Hub publish them, become questions.
//!
//! Prompts, answer words, metrics and filters are those of lm-evaluation-harness 0.4.13, so that figures can
//! be compared; where the interface of [`Questions`] cannot say the same, the benchmark's `about` says what
//! differs. No data is embedded: the reader brings the files. [`BENCHMARKS`] is the table of contents.
//! Reading order: `files` tells which files are what, `fields` reads a record, the others make one item each.

mod build;
mod fields;
mod files;
mod generation;
mod languages;
pub mod math;
mod multilingual;
mod multiple_choice;
mod subjects;
mod table;
mod wikitext;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use self::build::Recipe;
use super::question::Questions;
use super::records::{self, ReadOptions};
use super::suggest::did_you_mean;
use crate::error::{Error, Result};

pub use table::BENCHMARKS;

/// A benchmark that [`load()`] knows.
#[derive(Debug)]
pub struct Benchmark {
    /// As [`load()`] takes it.
    pub name: &'static str,
    /// What it asks, and how the questions differ from lm-evaluation-harness's, if they do.
    pub about: &'static str,
    /// Languages or subjects; each becomes a task of its own.
    pub parts: Parts,
    /// BCP 47 tag of the questions where the parts are no languages.
    pub language: &'static str,
    /// Worked examples where the caller does not say, as lm-evaluation-harness's default.
    pub num_fewshot: usize,
    /// What is done with a sample.
    pub output: Output,
    /// The data set's name on the Hub.
    pub dataset: &'static str,
    /// The configuration on the Hub, which is the folder its files lie in; empty: one per part, or none.
    pub config: &'static str,
    /// The splits: first the one that is asked, then the one that worked examples come from.
    pub splits: &'static str,
    /// Licence of the data as published, an SPDX expression where there is one.
    pub license: &'static str,
    recipe: Recipe,
}

impl Benchmark {
    /// BCP 47 tags of all languages it asks in, in the order of the parts.
    pub fn languages(&self) -> Vec<&'static str> {
        match self.parts {
            Parts::Languages(parts) => parts.iter().map(|part| part.language).collect(),
            Parts::One | Parts::Subjects(_) => vec![self.language],
        }
    }
}

/// What is done with a benchmark's samples (as [`QuestionKind`](super::question::QuestionKind), before the
/// details).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// The likeliest of several continuations.
    Choice,
    /// The likelihood of one.
    Continuation,
    /// The likelihood of a whole text.
    Rolling,
    /// The model writes.
    Generation,
}

/// How a benchmark is divided.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Parts {
    /// It is not.
    One,
    /// By language; items are parallel.
    Languages(&'static [Part]),
    /// By subject.
    Subjects(&'static [Part]),
}

impl Parts {
    /// The parts, none where it is not divided.
    pub fn list(&self) -> &'static [Part] {
        match self {
            Parts::One => &[],
            Parts::Languages(parts) | Parts::Subjects(parts) => parts,
        }
    }
}

/// A language or a subject.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Part {
    /// As it ends the task's name, in the spelling of the data set: `de`, `deu_Latn`, `anatomy`.
    pub name: &'static str,
    /// BCP 47 tag.
    pub language: &'static str,
}

/// What of a benchmark is asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Only the first so many usable records of every task.
    pub limit: Option<usize>,
    /// Worked examples; `None`: as [`Benchmark::num_fewshot`].
    pub num_fewshot: Option<usize>,
    /// Seed where worked examples are drawn; lm-evaluation-harness uses 1234.
    pub seed: u64,
    /// Only these parts, separated by commas. Where the names of the files do not say which part they hold,
    /// a single name says it.
    pub subset: Option<String>,
}

/// One task of a benchmark.
#[derive(Clone, Debug, PartialEq)]
pub struct BenchmarkTask {
    /// The benchmark's name and the part's: `mgsm_de`, `mmlu_abstract_algebra`, `truthfulqa_mc1`.
    pub name: String,
    /// The benchmark, where it has several tasks.
    pub group: Option<String>,
    /// BCP 47 tag.
    pub language: String,
    /// What is asked.
    pub questions: Questions,
}

/// Records of one part: what is asked, and what worked examples come from.
struct Data {
    records: Vec<Value>,
    shots: Vec<Value>,
}

/// The tasks of the benchmark called `name`, from the files at `path`: a data file, or a folder as the Hub or
/// the authors publish it. One task per language or subject that is there.
///
/// Worked examples come from the split that lm-evaluation-harness takes (training, else validation), if it
/// lies in the folder or beside the file: the first ones for MMLU, CMMLU and Belebele, else drawn anew for
/// each sample as Python's `random.Random(seed).sample` draws them. Without such a split the first usable
/// records of the data are the examples of all others, are not asked, and are counted in
/// [`Questions::left_out`].
///
/// # Errors
/// An unknown benchmark or part; files that cannot be read; a column that is missing (it is named, with those
/// found); a value of another kind than it should be (with the record's number); no usable record; fewer
/// records than worked examples.
pub fn load(name: &str, path: &Path, settings: &Settings) -> Result<Vec<BenchmarkTask>> {
    let benchmark = find(name)?;
    let num_fewshot = settings.num_fewshot.unwrap_or(benchmark.num_fewshot);
    if num_fewshot > 0 && !benchmark.recipe.few_shot {
        let problem = format!("{name} is asked without worked examples, not with {num_fewshot}");
        return Err(Error::argument(problem, "leave the number of examples out, or give 0"));
    }
    if settings.limit == Some(0) {
        return Err(Error::argument("a limit of 0 leaves no sample", "give at least 1, or leave it out"));
    }
    let wanted = subset(benchmark, settings)?;
    let mut tasks = Vec::new();
    for (part, data) in read(benchmark, path, num_fewshot > 0, &wanted)? {
        for variant in benchmark.recipe.variants {
            let mut name = format!("{}{}", benchmark.name, variant.suffix);
            if let Some(part) = part {
                name = format!("{name}_{}", part.name);
            }
            let many = !benchmark.parts.list().is_empty() || benchmark.recipe.variants.len() > 1;
            tasks.push(BenchmarkTask {
                questions: build::questions(benchmark, variant, part, &data, path, num_fewshot, settings)?,
                name,
                group: many.then(|| benchmark.name.to_owned()),
                language: part.map_or(benchmark.language, |part| part.language).to_owned(),
            });
        }
    }
    Ok(tasks)
}

fn find(name: &str) -> Result<&'static Benchmark> {
    BENCHMARKS.iter().find(|benchmark| benchmark.name == name).ok_or_else(|| {
        let names: Vec<&str> = BENCHMARKS.iter().map(|benchmark| benchmark.name).collect();
        let help = did_you_mean(name, &names).unwrap_or_else(|| format!("use one of {}", names.join(", ")));
        Error::argument(format!("there is no benchmark called `{name}`"), help)
    })
}

/// The parts that the settings name; none: all.
fn subset(benchmark: &Benchmark, settings: &Settings) -> Result<Vec<&'static Part>> {
    let names = settings.subset.iter().flat_map(|names| names.split(',')).map(str::trim);
    names
        .map(|name| {
            let by_tag = || benchmark.parts.list().iter().find(|part| part.language == name);
            let tagged = matches!(benchmark.parts, Parts::Languages(_)).then(by_tag).flatten();
            files::part_called(benchmark, name).or(tagged).ok_or_else(|| {
                let known: Vec<&str> = benchmark.parts.list().iter().map(|part| part.name).collect();
                let help = match known.is_empty() {
                    true => "leave the subset out".to_owned(),
                    false => {
                        did_you_mean(name, &known).unwrap_or_else(|| format!("use {}", known.join(", ")))
                    }
                };
                Error::argument(format!("{} has no part called `{name}`", benchmark.name), help)
            })
        })
        .collect()
}

/// The records at `path`, by part, in the order of the table.
fn read(
    benchmark: &'static Benchmark,
    path: &Path,
    with_shots: bool,
    wanted: &[&'static Part],
) -> Result<Vec<(Option<&'static Part>, Data)>> {
    let is_wanted = |part: &Part| wanted.is_empty() || wanted.iter().any(|want| want.name == part.name);
    let mut by_part: BTreeMap<Option<usize>, Data> = BTreeMap::new();
    let mut found = BTreeSet::new();
    for source in files::sources(benchmark, path)? {
        if let Some(part) = source.part {
            found.insert(part.name);
            if !is_wanted(part) {
                continue;
            }
        }
        let scored = read_files(benchmark, path, &source.scored)?;
        let shots = match with_shots && !source.shots.is_empty() {
            true => read_files(benchmark, path, &source.shots)?,
            false => Vec::new(),
        };
        let part = source.part.or(match wanted {
            [only] => Some(*only),
            _ => None,
        });
        let mut shots_by_part = divide(benchmark, path, source.part, part, shots)?;
        for (index, records) in divide(benchmark, path, source.part, part, scored)? {
            if let Some(part) = index.and_then(|index| benchmark.parts.list().get(index)) {
                found.insert(part.name);
                if !is_wanted(part) {
                    continue;
                }
            }
            let shots = shots_by_part.remove(&index).unwrap_or_default();
            by_part.insert(index, Data { records, shots });
        }
    }
    if by_part.is_empty() {
        let wanted: Vec<&str> = wanted.iter().map(|part| part.name).collect();
        let problem = format!("holds nothing of {}", wanted.join(", "));
        let help = format!("use one of {}", found.into_iter().collect::<Vec<_>>().join(", "));
        return Err(Error::file(path, problem, help));
    }
    let part = |index: Option<usize>| index.and_then(|index| benchmark.parts.list().get(index));
    Ok(by_part.into_iter().map(|(index, data)| (part(index), data)).collect())
}

fn read_files(benchmark: &Benchmark, path: &Path, files: &[std::path::PathBuf]) -> Result<Vec<Value>> {
    let columns = benchmark.recipe.columns.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
    let options = ReadOptions { columns };
    let records = match files {
        [text] if wikitext::is_plain_text(text) => wikitext::read_plain_text(text)?,
        _ => records::read_files(path, files, &options)?,
    };
    Ok((benchmark.recipe.expand)(records))
}

/// Records by the index of their part: all of the part that the files' names told, else of the part that each
/// record names, else of the one part that was asked for.
fn divide(
    benchmark: &Benchmark,
    path: &Path,
    told: Option<&Part>,
    asked: Option<&Part>,
    records: Vec<Value>,
) -> Result<BTreeMap<Option<usize>, Vec<Value>>> {
    let parts = benchmark.parts.list();
    let index_of = |part: &Part| parts.iter().position(|other| other.name == part.name);
    let mut divided: BTreeMap<Option<usize>, Vec<Value>> = BTreeMap::new();
    if parts.is_empty() {
        divided.insert(None, records);
        return Ok(divided);
    }
    if let Some(part) = told {
        divided.insert(index_of(part), records);
        return Ok(divided);
    }
    let field = benchmark.recipe.part_fields.iter().find(|field| {
        records.first().is_some_and(|record| record.get(**field).is_some_and(|name| name.is_string()))
    });
    for (number, record) in records.into_iter().enumerate() {
        let part = match field {
            Some(field) => {
                let name = record.get(*field).and_then(Value::as_str).unwrap_or_default();
                Some(files::part_called(benchmark, name).ok_or_else(|| {
                    let known: Vec<&str> = parts.iter().map(|part| part.name).collect();
                    let help = did_you_mean(name, &known)
                        .unwrap_or_else(|| format!("{} has {}", benchmark.name, known.join(", ")));
                    Error::file(path, format!("record {number}: `{field}` is `{name}`, no known part"), help)
                })?)
            }
            None => asked,
        };
        let Some(index) = part.and_then(index_of) else {
            let kind = if matches!(benchmark.parts, Parts::Languages(_)) { "language" } else { "subject" };
            let example = parts.first().map_or("", |part| part.name);
            let problem = format!("neither its name nor its records tell the {kind}");
            let help = format!("call the file {}_{example}.jsonl, or choose the subset", benchmark.name);
            return Err(Error::file(path, problem, help));
        };
        divided.entry(Some(index)).or_default().push(record);
    }
    Ok(divided)
}

#[cfg(test)]
mod tests;
