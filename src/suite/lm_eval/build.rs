//! From a task's configuration and records to questions.
//!
//! The order of things, and what stands between them, is that of `fewshot_context`, `build_qa_turn` and
//! `construct_requests` in lm-evaluation-harness 0.4.13 (`api/task.py`). Where the harness puts something
//! other between a question and its answer than the task's own delimiter, the delimiter becomes empty and
//! what stands there becomes part of the question or of the answer, so that every prompt is the same text.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use serde_json::Value as Json;

use super::Settings;
use super::config::{FewshotConfig, Output, TaskConfig};
use super::data::{Data, Split};
use super::literal::str_of;
use super::parts::{Doc, Parts, Text, at, index_of};
use super::shots::Sampler;
use super::sources::Definition;
use crate::error::{Error, Result};
use crate::suite::question::{Answer, ChoiceOption, QuestionKind, Questions, Sample, Shot};
use crate::suite::score::is_space;

/// A worked example before it is known what stands between all questions and answers.
#[derive(Clone)]
struct ShotDraft {
    question: String,
    between: String,
    answer: String,
}

/// A sample before its examples are written.
struct Draft {
    doc_id: usize,
    shots: Vec<usize>,
    description: String,
    question: String,
    prefix: String,
    answer: Answer,
}

/// The questions of a task. What was not followed is added to `notes`.
///
/// # Errors
/// Names the file, the key and the record: data that is not there, a template that does not fit a record, a
/// value of the wrong type.
pub(super) fn questions(
    definition: &Definition,
    config: &TaskConfig,
    data: &mut Data,
    settings: &Settings,
    notes: &mut Vec<String>,
) -> Result<Questions> {
    let Some((key, split)) = config.evaluated_split() else {
        let help = "name the split whose records are asked";
        return Err(Error::key(&definition.path, "test_split", "is missing, and validation_split too", help));
    };
    let asked = data.split(key, split)?;
    let count = shot_count(config, settings, notes);
    let pool = match &config.fewshot.samples {
        _ if count == 0 => None,
        Some(samples) => Some(Rc::new(written_out(samples, &definition.path))),
        None => match config.shots_split() {
            Some((key, split)) => Some(data.split(key, split)?),
            None => None,
        },
    };
    let mut builder = Builder::new(definition, config, &asked, notes)?;
    let mut sampler = pool
        .as_ref()
        .map(|pool| Sampler::new(Rc::clone(pool), config.fewshot.first_n, settings.fewshot_seed));
    // The harness compares the names of the splits; two that are not stated are the same.
    let may_be_its_own_example = config.fewshot.split == config.test_split;

    let mut drafts = Vec::new();
    let limit = settings.limit.unwrap_or(usize::MAX);
    for (index, record) in asked.records.iter().enumerate().take(limit) {
        let doc = Doc::new(record, index, &asked.file);
        let shots = match &mut sampler {
            None => Vec::new(),
            Some(sampler) => sampler
                .draw(count, may_be_its_own_example.then_some(record))
                .map_err(|problem| Error::key(&definition.path, "num_fewshot", problem, "ask for fewer"))?,
        };
        if let Some(draft) = builder.draft(&doc, index, shots)? {
            drafts.push(draft);
        }
    }
    builder.finish(drafts, &asked, pool.as_deref(), notes)
}

/// How many worked examples each sample gets.
fn shot_count(config: &TaskConfig, settings: &Settings, notes: &mut Vec<String>) -> usize {
    if config.output == Output::Rolling {
        return 0;
    }
    match (config.num_fewshot, settings.num_fewshot) {
        (Some(0), Some(wanted)) if wanted > 0 => {
            notes.push(format!("{wanted} worked examples were asked for, but the task is fixed to 0"));
            0
        }
        (_, Some(wanted)) => wanted,
        (own, None) => own.unwrap_or(0),
    }
}

/// Worked examples that the task file writes out, as a split.
fn written_out(samples: &[Json], file: &std::path::Path) -> Split {
    let records = samples.iter().filter_map(Json::as_object).cloned().collect();
    Split { records, fields: BTreeSet::new(), file: file.to_owned() }
}

struct Builder<'a> {
    config: &'a TaskConfig,
    parts: Parts<'a>,
    /// Every choice is a context of its own, with one continuation (`multiple_input` there).
    contexts_are_chosen: bool,
    /// The first record has several targets, so that a list is one for all records.
    several_targets: bool,
    left_out: BTreeMap<&'static str, usize>,
}

impl<'a> Builder<'a> {
    fn new(
        definition: &'a Definition,
        config: &'a TaskConfig,
        asked: &'a Split,
        notes: &mut Vec<String>,
    ) -> Result<Self> {
        let mut parts = Parts::new(&definition.path, &asked.fields, config.choice.is_some());
        parts.add_field("doc_to_text", &config.text, notes)?;
        parts.add_field("doc_to_target", &config.target, notes)?;
        if let Some(choice) = &config.choice {
            parts.add_field("doc_to_choice", choice, notes)?;
        }
        // A description and a prefix are usually plain words.
        parts.add("description", &config.description, &mut Vec::new())?;
        parts.add("gen_prefix", config.gen_prefix.as_deref().unwrap_or_default(), &mut Vec::new())?;
        let shots = &config.fewshot;
        let mut unheard = Vec::new();
        parts.add_field(SHOT_KEYS.text, &shots.text, &mut unheard)?;
        parts.add_field(SHOT_KEYS.target, &shots.target, &mut unheard)?;
        if let Some(choice) = &shots.choice {
            parts.add_field(SHOT_KEYS.choice, choice, &mut unheard)?;
        }
        parts.add(SHOT_KEYS.prefix, shots.gen_prefix.as_deref().unwrap_or_default(), &mut unheard)?;

        let mut builder = Self {
            config,
            parts,
            contexts_are_chosen: false,
            several_targets: false,
            left_out: BTreeMap::new(),
        };
        if let Some(first) = asked.records.first() {
            let doc = Doc::new(first, 0, &asked.file);
            if config.output == Output::Choice {
                let text = builder.parts.text("doc_to_text", &config.text, &doc)?;
                builder.contexts_are_chosen = matches!(text, Text::Index(_));
            }
            let target = builder.parts.target("doc_to_target", &config.target, &doc)?;
            builder.several_targets = target.is_array();
        }
        Ok(builder)
    }

    /// A sample, or `None` where the record cannot be one, which is counted.
    fn draft(&mut self, doc: &Doc, doc_id: usize, shots: Vec<usize>) -> Result<Option<Draft>> {
        let (config, parts) = (self.config, &self.parts);
        let description = match config.output {
            Output::Rolling => String::new(),
            _ => parts.plain("description", Some(&config.description), doc)?,
        };
        let mut prefix = match config.output {
            Output::Rolling => String::new(),
            _ => parts.plain("gen_prefix", config.gen_prefix.as_deref(), doc)?,
        };
        let target = parts.target("doc_to_target", &config.target, doc)?;
        if config.output == Output::Rolling {
            let text = str_of(&target);
            if target.is_null() || text.is_empty() {
                return Ok(self.leave_out("without text"));
            }
            return Ok(Some(Draft {
                doc_id,
                shots,
                description,
                question: text,
                prefix,
                answer: Answer::Text,
            }));
        }
        let text = parts.text("doc_to_text", &config.text, doc)?;
        let choices = match &config.choice {
            Some(choice) => Some(parts.choices("doc_to_choice", choice, doc)?),
            None => None,
        };
        let question = match &text {
            Text::Words(words) if !self.contexts_are_chosen => words.clone(),
            Text::Index(_) if self.contexts_are_chosen => String::new(),
            Text::Words(_) => {
                return Err(parts.error("doc_to_text", doc, "a text, but of other records an index"));
            }
            Text::Index(_) => return Err(parts.error("doc_to_text", doc, "an index is no question")),
        };
        let answer = match (config.output, choices) {
            (Output::Choice, choices) => {
                let choices = choices.unwrap_or_default();
                if choices.len() < 2 {
                    return Ok(self.leave_out("with fewer than two choices"));
                }
                let gold = match text {
                    Text::Index(index) if self.contexts_are_chosen => gold(&Json::from(index), &choices),
                    _ => gold(&target, &choices),
                };
                if gold.is_empty() {
                    let reason = if target.is_null() {
                        "without an answer"
                    } else {
                        "whose answer is none of the choices"
                    };
                    return Ok(self.leave_out(reason));
                }
                let options = if self.contexts_are_chosen {
                    let continuation = str_of(&target);
                    let context = |choice: &String| format!("{choice}{prefix}");
                    let option = |choice: String| ChoiceOption {
                        continuation: continuation.clone(),
                        question: Some(context(&choice)),
                        normalizer: choice,
                    };
                    choices.into_iter().map(option).collect()
                } else {
                    let option = |choice: String| ChoiceOption {
                        continuation: choice.clone(),
                        question: None,
                        normalizer: choice,
                    };
                    choices.into_iter().map(option).collect()
                };
                if self.contexts_are_chosen {
                    prefix.clear();
                }
                Answer::Choice { options, gold }
            }
            (Output::Continuation, _) => match target {
                Json::Null => return Ok(self.leave_out("without an answer")),
                Json::String(text) if text.is_empty() => return Ok(self.leave_out("without an answer")),
                Json::String(text) => Answer::Continuation(text),
                _ => return Err(parts.error("doc_to_target", doc, "the answer is no text")),
            },
            (_, choices) => match self.targets(target, choices.as_deref(), doc)? {
                targets if targets.is_empty() => return Ok(self.leave_out("without an answer")),
                targets => Answer::Generation(targets),
            },
        };
        Ok(Some(Draft { doc_id, shots, description, question, prefix, answer }))
    }

    fn leave_out(&mut self, reason: &'static str) -> Option<Draft> {
        *self.left_out.entry(reason).or_default() += 1;
        None
    }

    /// The texts of which a generated answer has to be one; none where the record says nothing.
    fn targets(&self, target: Json, choices: Option<&[String]>, doc: &Doc) -> Result<Vec<String>> {
        let wrong = |problem: &str| self.parts.error("doc_to_target", doc, problem);
        Ok(match (target, choices) {
            (Json::Null, _) => Vec::new(),
            (Json::String(text), _) => vec![text],
            (target, Some(choices)) => {
                let index = index_of(&target).ok_or_else(|| wrong("the answer is no index of a choice"))?;
                vec![at(choices, index).ok_or_else(|| wrong("the answer is none of the choices"))?.clone()]
            }
            (Json::Array(items), None) if self.several_targets => items.iter().map(str_of).collect(),
            (other, None) => vec![str_of(&other)],
        })
    }

    /// A worked example.
    fn shot(&self, doc: &Doc) -> Result<ShotDraft> {
        let (config, parts): (&FewshotConfig, _) = (&self.config.fewshot, &self.parts);
        let text = parts.text(SHOT_KEYS.text, &config.text, doc)?;
        let choices = match &config.choice {
            Some(choice) => Some(parts.choices(SHOT_KEYS.choice, choice, doc)?),
            None => None,
        };
        let target = parts.target(SHOT_KEYS.target, &config.target, doc)?;
        let no_choice = |key| parts.error(key, doc, "the index is that of no choice");
        let question = match text {
            Text::Words(words) if !self.contexts_are_chosen => words,
            Text::Index(index) if self.contexts_are_chosen => {
                at(choices.as_deref().unwrap_or_default(), index)
                    .ok_or_else(|| no_choice(SHOT_KEYS.text))?
                    .clone()
            }
            _ => {
                return Err(parts.error(
                    SHOT_KEYS.text,
                    doc,
                    "a worked example is of another kind than the questions",
                ));
            }
        };
        let choices = choices.filter(|_| !self.contexts_are_chosen);
        let target = match target {
            Json::Array(items) => items.into_iter().next().unwrap_or(Json::Null),
            other => other,
        };
        let answer = match (index_of(&target), choices) {
            (Some(index), Some(choices)) => {
                at(&choices, index).ok_or_else(|| no_choice(SHOT_KEYS.target))?.clone()
            }
            _ if target.is_null() => String::new(),
            _ => str_of(&target),
        };
        if answer.is_empty() {
            return Err(parts.error(SHOT_KEYS.target, doc, "a worked example has no answer"));
        }
        let prefix = parts.plain(SHOT_KEYS.prefix, config.gen_prefix.as_deref(), doc)?;
        let delimited = prefix.is_empty() || needs_delimiter(&question, &prefix);
        let between = if delimited { config.target_delimiter.clone() } else { String::new() };
        let inner = if !prefix.is_empty() && needs_delimiter(&prefix, &answer) { " " } else { "" };
        Ok(ShotDraft { question, between, answer: format!("{prefix}{inner}{answer}") })
    }

    /// Puts samples together.
    fn finish(
        self,
        drafts: Vec<Draft>,
        asked: &Split,
        pool: Option<&Split>,
        notes: &mut Vec<String>,
    ) -> Result<Questions> {
        let config = self.config;
        if drafts.is_empty() {
            let reasons: Vec<String> = self.reasons();
            let problem = format!("holds nothing to ask: {}", reasons.join(", "));
            return Err(Error::file(&asked.file, problem, "check doc_to_target and doc_to_choice"));
        }
        let mut shots: BTreeMap<usize, ShotDraft> = BTreeMap::new();
        if let Some(pool) = pool {
            let used: BTreeSet<usize> = drafts.iter().flat_map(|draft| draft.shots.iter().copied()).collect();
            for index in used {
                let Some(record) = pool.records.get(index) else { continue };
                shots.insert(index, self.shot(&Doc::new(record, index, &pool.file))?);
            }
        }
        // A continuation is asked for as it is, without a delimiter.
        let folded = config.output == Output::Continuation
            || shots.values().any(|shot| shot.between != config.target_delimiter);
        let target_delimiter = if folded { String::new() } else { config.target_delimiter.clone() };
        let one_description = drafts.windows(2).all(|pair| match pair {
            [a, b] => a.description == b.description,
            _ => true,
        });
        let description = match drafts.first() {
            Some(first) if one_description => first.description.clone(),
            _ => {
                notes.push(
                    "the description differs between records, so it begins the first question".to_owned(),
                );
                String::new()
            }
        };
        let ids = ids_of(asked, &drafts);
        let mut last: Option<(Vec<usize>, Arc<[Shot]>)> = None;
        let mut samples = Vec::with_capacity(drafts.len());
        for (draft, id) in drafts.into_iter().zip(ids) {
            let Draft { doc_id, shots: indices, description, mut question, prefix, mut answer } = draft;
            let own_description = if one_description { None } else { Some(description) };
            let written = match &last {
                Some((same, written)) if *same == indices && own_description.is_none() => Arc::clone(written),
                _ => {
                    let drafts = indices.iter().filter_map(|index| shots.get(index));
                    let mut written: Vec<Shot> = drafts.map(|draft| written_shot(draft, folded)).collect();
                    if let (Some(first), Some(description)) = (written.first_mut(), &own_description) {
                        first.question.insert_str(0, description);
                    }
                    Arc::from(written)
                }
            };
            last = Some((indices, Arc::clone(&written)));
            if folded && !prefix.is_empty() && needs_delimiter(&question, &prefix) {
                question.push_str(&config.target_delimiter);
            }
            let own_description = own_description.filter(|_| written.is_empty()).unwrap_or_default();
            if let Answer::Choice { options, .. } = &mut answer {
                for option in options {
                    if folded {
                        option.continuation.insert_str(0, &config.target_delimiter);
                    }
                    if let Some(question) = &mut option.question {
                        question.insert_str(0, &own_description);
                    }
                }
            }
            if !self.contexts_are_chosen {
                question.insert_str(0, &own_description);
            }
            let record = asked.records.get(doc_id).cloned().map_or(Json::Null, Json::Object);
            samples.push(Sample {
                cluster: id.clone(),
                id,
                doc_id,
                level: None,
                shots: written,
                question,
                answer_prefix: prefix,
                answer,
                record,
            });
        }
        Ok(Questions {
            kind: match config.output {
                Output::Choice => QuestionKind::Choice,
                Output::Continuation => QuestionKind::Continuation,
                Output::Rolling => QuestionKind::Rolling,
                Output::Generation => QuestionKind::Generation(config.generation.clone()),
            },
            description,
            target_delimiter,
            fewshot_delimiter: config.fewshot.fewshot_delimiter.clone(),
            samples,
            metrics: config.metrics.clone(),
            filters: config.filters.clone(),
            left_out: self.reasons(),
        })
    }

    /// "3 records without an answer", and so on.
    fn reasons(&self) -> Vec<String> {
        let noun = |count: usize| if count == 1 { "record" } else { "records" };
        self.left_out.iter().map(|(reason, count)| format!("{count} {} {reason}", noun(*count))).collect()
    }
}

/// The names of the parts of a worked example.
struct ShotKeys {
    text: &'static str,
    target: &'static str,
    choice: &'static str,
    prefix: &'static str,
}

const SHOT_KEYS: ShotKeys = ShotKeys {
    text: "fewshot_config.doc_to_text",
    target: "fewshot_config.doc_to_target",
    choice: "fewshot_config.doc_to_choice",
    prefix: "fewshot_config.gen_prefix",
};

/// A worked example as it is written.
fn written_shot(draft: &ShotDraft, folded: bool) -> Shot {
    let mut question = draft.question.clone();
    if folded {
        question.push_str(&draft.between);
    }
    Shot { question, answer: draft.answer.clone() }
}

/// Whether a delimiter belongs between two texts: neither has white space where they meet, and the first is
/// not empty (`requires_delimiter` there).
fn needs_delimiter(before: &str, after: &str) -> bool {
    let meets = [before.chars().next_back(), after.chars().next()];
    !before.is_empty() && !meets.into_iter().flatten().any(is_space)
}

/// The right options, ascending: indexes within the choices, or a text that is one of them.
fn gold(target: &Json, choices: &[String]) -> Vec<usize> {
    let one = |target: &Json| match target {
        Json::String(text) => choices.iter().position(|choice| choice == text),
        other => {
            let index = index_of(other).and_then(|index| usize::try_from(index).ok());
            index.filter(|index| *index < choices.len())
        }
    };
    let found: BTreeSet<usize> = match target {
        Json::Array(items) => items.iter().filter_map(one).collect(),
        other => one(other).into_iter().collect(),
    };
    found.into_iter().collect()
}

/// An id for each draft: the records' `id` where every record has one of its own, else their indexes.
fn ids_of(asked: &Split, drafts: &[Draft]) -> Vec<String> {
    let own = |draft: &Draft| match asked.records.get(draft.doc_id)?.get("id")? {
        Json::String(id) if !id.is_empty() => Some(id.clone()),
        Json::Number(id) if !id.is_f64() => Some(id.to_string()),
        _ => None,
    };
    let ids: Option<Vec<String>> = drafts.iter().map(own).collect();
    let is_unique = |ids: &Vec<String>| ids.iter().collect::<BTreeSet<_>>().len() == ids.len();
    ids.filter(is_unique).unwrap_or_else(|| drafts.iter().map(|draft| draft.doc_id.to_string()).collect())
}
