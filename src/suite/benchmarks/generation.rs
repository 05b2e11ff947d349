//! Questions that the model answers in writing: GSM8K, MATH, SQuAD, BIG-Bench Hard.
//!
//! Prompts, stop strings, filters and comparisons: lm-evaluation-harness 0.4.13, `lm_eval/tasks/<name>`. An
//! answer has at most 256 tokens, as there.

use serde_json::{Map, Value};

use super::build::{Cluster, Frame, Item};
use super::fields::{Fields, Found, Unusable, texts};
use super::{math, subjects};
use crate::suite::question::{
    Answer, Filter, FilterStep, GenerationSettings, Level, Metric, QuestionKind, TextComparison,
};

/// What a filter gives that finds nothing.
const NOTHING: &str = "[invalid]";

/// Greedy, until one of the strings.
pub(super) fn until(stops: &[&str], metrics: Vec<Metric>) -> Frame {
    Frame {
        kind: QuestionKind::Generation(GenerationSettings {
            until: stops.iter().map(|stop| (*stop).to_owned()).collect(),
            max_new_tokens: 256,
            sampling: None,
            repeats: 1,
        }),
        description: String::new(),
        target_delimiter: " ",
        metrics,
        filters: Vec::new(),
    }
}

fn regex(name: &str, pattern: &str, group_select: i64) -> Filter {
    let step = FilterStep::Regex { pattern: pattern.to_owned(), group_select, fallback: NOTHING.to_owned() };
    Filter { name: name.to_owned(), steps: vec![step, FilterStep::TakeFirst] }
}

/// The last number of an answer.
pub(super) fn last_number() -> Filter {
    regex("flexible-extract", "(-?[$0-9.,]{2,})|(-?[0-9]+)", -1)
}

fn ignoring(regexes: &[&str]) -> TextComparison {
    TextComparison {
        regexes_to_ignore: regexes.iter().map(|regex| (*regex).to_owned()).collect(),
        ignore_case: true,
        ..TextComparison::default()
    }
}

/// GSM8K. Columns: `question`, `answer` (with `#### n` at its end).
pub(super) fn gsm8k(fields: Fields, _: &str) -> Found<Item> {
    let question = fields.text(&["question"])?;
    let answer = fields.text(&["answer"])?;
    Ok(Item::new(format!("Question: {question}\nAnswer:"), Answer::Generation(vec![answer.to_owned()])))
}

/// GSM8K: the number after `####` (strict), or the last one (flexible).
pub(super) fn gsm8k_frame(_: &str) -> Frame {
    let same = ignoring(&[",", r"\$", "(?s).*#### ", r"\.$"]);
    Frame {
        filters: vec![regex("strict-match", r"#### (\-?[0-9\.\,]+)", 0), last_number()],
        ..until(&["Question:", "</s>", "<|im_end|>"], vec![Metric::ExactMatch(same)])
    }
}

/// MATH (Hendrycks et al., arXiv 2103.03874). Columns: `problem`, `solution` with a `\boxed{}` answer (or an
/// `answer` of its own, as MATH-500), `level` ("Level 1" to "Level 5").
pub(super) fn math(fields: Fields, _: &str) -> Found<Item> {
    let problem = fields.text(&["problem"])?;
    let answer = match fields.text(&["solution"]) {
        Ok(solution) => math::boxed_answer(solution),
        Err(_) => Some(fields.text(&["answer", "solution"])?),
    };
    let Some(answer) = answer.filter(|answer| !answer.trim().is_empty()) else {
        return Err(Unusable::LeftOut(r"without a \boxed answer".to_owned()));
    };
    let item = Item::new(format!("Problem: {problem}\nAnswer:"), Answer::Generation(math::spellings(answer)));
    let value = match fields.value(&["level"]) {
        Ok(Value::String(level)) => level.trim_start_matches("Level").trim().parse().ok(),
        Ok(Value::Number(level)) => level.as_u64().and_then(|level| u32::try_from(level).ok()),
        _ => None,
    };
    Ok(Item { level: value.map(|value| Level { unit: "level".to_owned(), value }), ..item })
}

/// MATH: what stands between the first and the last `$` (all, where there are not two), as
/// lm-evaluation-harness takes it; and, for models that box their answers, the last `\boxed{}`.
pub(super) fn math_frame(_: &str) -> Frame {
    let same = TextComparison {
        regexes_to_ignore: math::IGNORED.iter().map(|regex| (*regex).to_owned()).collect(),
        ..TextComparison::default()
    };
    // Braces inside of the box, to the depth that a pattern can tell.
    let boxed = r"\\boxed\s*\{((?:[^{}]|\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\})*)\}";
    Frame {
        filters: vec![regex("dollars", r"(?s)^[^$]*\$(.*)\$[^$]*$|^(.*)$", 0), regex("boxed", boxed, -1)],
        ..until(&["Problem:"], vec![Metric::ExactMatch(same)])
    }
}

/// SQuAD. Columns: `title`, `context`, `question`, `answers` (`text`, a list; or a list of objects with
/// `text`). Questions without an answer (SQuAD 2.0) are answered "unanswerable".
pub(super) fn squad(fields: Fields, _: &str) -> Found<Item> {
    let context = fields.text(&["context"])?;
    let question = fields.text(&["question"])?;
    let title = fields.text_or_empty(&["title"])?;
    let mut targets = answers(fields)?;
    if targets.is_empty() {
        targets.push("unanswerable".to_owned());
    }
    let prompt = format!("Title: {title}\n\nBackground: {context}\n\nQuestion: {question}\n\nAnswer:");
    Ok(Item::new(prompt, Answer::Generation(targets)).of(Cluster::SameText(context.to_owned())))
}

/// SQuAD and XQuAD: one line, compared without articles, case, punctuation and spaces.
pub(super) fn squad_frame(_: &str) -> Frame {
    let same = TextComparison { ignore_punctuation: true, ..ignoring(&[r"(?i)\b(a|an|the)\b", r"\s+"]) };
    until(&["\n"], vec![Metric::ExactMatch(same), Metric::F1])
}

/// The texts of `answers`, each once.
pub(super) fn answers(fields: Fields) -> Found<Vec<String>> {
    let found: Vec<&str> = match fields.value(&["answers"])? {
        Value::Object(answers) => match answers.get("text") {
            Some(Value::Array(items)) => texts(&["answers.text"], items, 0)?,
            Some(Value::String(text)) => vec![text],
            _ => return Err(Unusable::Missing("`answers.text`".to_owned())),
        },
        Value::Array(items) => {
            let texts: Vec<&str> = items.iter().filter_map(|answer| answer.get("text")?.as_str()).collect();
            if texts.len() != items.len() {
                return Err(Unusable::Wrong("`answers` is a list of something else than `text`".to_owned()));
            }
            texts
        }
        _ => return Err(Unusable::Wrong("`answers` is neither an object nor a list".to_owned())),
    };
    let mut different: Vec<String> = Vec::new();
    for text in found {
        if !different.iter().any(|other| other == text) {
            different.push(text.to_owned());
        }
    }
    Ok(different)
}

/// The authors' files of SQuAD and XQuAD hold articles of paragraphs of questions; each question becomes a
/// record as on the Hub. Other records stay as they are.
pub(super) fn one_question_each(records: Vec<Value>) -> Vec<Value> {
    let mut each = Vec::with_capacity(records.len());
    for record in records {
        let Some(paragraphs) = record.get("paragraphs").and_then(Value::as_array) else {
            each.push(record);
            continue;
        };
        for paragraph in paragraphs {
            for question in paragraph.get("qas").and_then(Value::as_array).into_iter().flatten() {
                let mut flat = Map::new();
                for (name, from) in [("title", &record), ("context", paragraph)] {
                    flat.insert(name.to_owned(), from.get(name).cloned().unwrap_or_default());
                }
                for name in ["id", "question", "answers"] {
                    if let Some(value) = question.get(name) {
                        flat.insert(name.to_owned(), value.clone());
                    }
                }
                each.push(Value::Object(flat));
            }
        }
    }
    each
}

/// BIG-Bench Hard, asked directly. Columns: `input`, `target`.
pub(super) fn bbh(fields: Fields, _: &str) -> Found<Item> {
    let input = fields.text(&["input"])?;
    let target = fields.text(&["target"])?;
    Ok(Item::new(format!("Q: {input}\nA:"), Answer::Generation(vec![target.to_owned()])))
}

/// BIG-Bench Hard: the whole answer (strict-match); and what can be taken out of it by a pattern, called
/// flexible-extract only where it is what lm-evaluation-harness takes out.
pub(super) fn bbh_frame(task: &str) -> Frame {
    let strict = Filter { name: "strict-match".to_owned(), steps: vec![FilterStep::TakeFirst] };
    let extract = match subjects::answers_of(task) {
        subjects::BbhAnswer::Pattern(pattern) => Some(regex("flexible-extract", pattern, 0)),
        subjects::BbhAnswer::Letter => Some(regex("extract", r"(\([A-Z]\))", 0)),
        subjects::BbhAnswer::Number => Some(regex("extract", "([-0-9]+)", 0)),
        subjects::BbhAnswer::YesNo => {
            let mut filter = regex("extract", r"\b(yes|no)\b", 0);
            filter.steps.insert(0, FilterStep::Lowercase);
            Some(filter)
        }
        subjects::BbhAnswer::Words => None,
    };
    let same = ignoring(&[r"\.$", ",", "\n", r"\\", "\""]);
    Frame {
        description: format!("{}\n\n", subjects::describe(task)),
        filters: [Some(strict), extract].into_iter().flatten().collect(),
        ..until(&["</s>", "Q:", "<|im_end|>"], vec![Metric::ExactMatch(same)])
    }
}
