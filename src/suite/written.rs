//! Questions of a suite's own that are answered by writing: a prompt, and the answers that are right.
//!
//! The model writes greedily until one of the strings of `until`, its end of text or `max_new_tokens`. The answer is the
//! last match of the task's pattern in what it wrote, or, without a pattern, all of it but the white space around it;
//! it is right if it equals one of the record's answers to the letter. Where the pattern finds nothing the answer is wrong.

use std::path::Path;

use serde::Deserialize;

use super::lines;
use super::question::{
    Answer, Filter, FilterStep, GenerationSettings, Metric, QuestionKind, Questions, TextComparison,
};
use super::score::Pattern;
use crate::error::Result;

/// Most tokens of an answer where the task does not say, as lm-evaluation-harness has it.
pub(super) const MAX_NEW_TOKENS: usize = 256;

/// What the pattern gives that finds nothing; no record may have it as its answer.
const NOTHING: &str = "[invalid]";

/// How a line is written.
const HELP: &str = r#"write one object per line: {"id": "a name", "prompt": "12 + 30 =", "answer": "42"}, or several answers as a list"#;

/// How a task's answers are written and found.
#[derive(Debug)]
pub(super) struct Writing {
    /// Strings that end an answer.
    pub until: Vec<String>,
    /// At least 1.
    pub max_new_tokens: usize,
    /// [`check_pattern`] accepted it.
    pub answer_pattern: Option<String>,
    /// What the records' `level` counts.
    pub level_unit: Option<String>,
}

/// One line. Other fields are allowed: they are kept for whoever looks at the sample.
#[derive(Deserialize)]
struct Record {
    prompt: String,
    answer: Answers,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "`answer` must be a string or a list of strings")]
enum Answers {
    One(String),
    Several(Vec<String>),
}

/// What is wrong with a pattern, for "the pattern `…` …"; it must have one group, which is the answer.
pub(super) fn check_pattern(pattern: &str) -> std::result::Result<(), String> {
    match Pattern::new(pattern)?.groups() {
        1 => Ok(()),
        0 => Err("has no group".to_owned()),
        several => Err(format!("has {several} groups")),
    }
}

/// The questions of `bytes`, the content of the file `path`. Records of one id are parallel, as those of choices.
///
/// # Errors
/// Not UTF-8, no record, or a line that is none: the line is named.
pub(super) fn parse(path: &Path, bytes: &[u8], writing: Writing) -> Result<Questions> {
    let samples = lines::parse((path, bytes), writing.level_unit.as_deref(), HELP, question)?;
    let step = match writing.answer_pattern {
        Some(pattern) => FilterStep::Regex { pattern, group_select: -1, fallback: NOTHING.to_owned() },
        None => FilterStep::RemoveWhitespace,
    };
    Ok(Questions {
        kind: QuestionKind::Generation(GenerationSettings {
            until: writing.until,
            max_new_tokens: writing.max_new_tokens,
            sampling: None,
            repeats: 1,
        }),
        description: String::new(),
        target_delimiter: " ".to_owned(),
        fewshot_delimiter: "\n\n".to_owned(),
        samples,
        metrics: vec![Metric::ExactMatch(TextComparison::default())],
        filters: vec![Filter { name: "answer".to_owned(), steps: vec![step, FilterStep::TakeFirst] }],
        left_out: Vec::new(),
    })
}

fn question(record: Record) -> std::result::Result<(String, Answer), String> {
    let answers = match record.answer {
        Answers::One(answer) => vec![answer],
        Answers::Several(answers) => answers,
    };
    if record.prompt.trim().is_empty() {
        return Err("`prompt` is empty".to_owned());
    }
    // What a model wrote is compared without the white space around it.
    if answers.is_empty() || answers.iter().any(|answer| answer.is_empty() || answer.trim() != answer) {
        return Err(
            "`answer` must be at least one text, none empty, without white space at its ends".to_owned()
        );
    }
    if answers.iter().any(|answer| answer == NOTHING) {
        return Err(format!("`answer` is `{NOTHING}`, which stands for an answer that was not found"));
    }
    Ok((record.prompt, Answer::Generation(answers)))
}

#[cfg(test)]
mod tests {
    use super::super::score::{CompiledFilter, apply};
    use super::*;

    fn writing(pattern: Option<&str>) -> Writing {
        Writing {
            until: vec!["\n".to_owned()],
            max_new_tokens: 8,
            answer_pattern: pattern.map(str::to_owned),
            level_unit: Some("digits".to_owned()),
        }
    }

    fn read(text: &str, pattern: Option<&str>) -> Result<Questions> {
        parse(Path::new("w.jsonl"), text.as_bytes(), writing(pattern))
    }

    const LINE: &str = r#"{"id": "x", "prompt": "4 + 6 =", "answer": "10", "level": 1}"#;

    #[test]
    fn a_line_is_a_prompt_and_its_answers() {
        let several = LINE.replace("\"10\"", "[\"10\", \"ten\"]").replace("\"x\"", "\"y\"");
        let questions = read(&format!("{LINE}\n{several}\n"), None).unwrap();
        let QuestionKind::Generation(settings) = &questions.kind else { panic!("{questions:?}") };
        assert_eq!((settings.until.as_slice(), settings.max_new_tokens), (["\n".to_owned()].as_slice(), 8));
        assert_eq!((settings.sampling, settings.repeats), (None, 1));
        assert_eq!(questions.samples[0].question, "4 + 6 =");
        assert_eq!(questions.samples[0].answer, Answer::Generation(vec!["10".to_owned()]));
        assert_eq!(questions.samples[1].answer, Answer::Generation(vec!["10".to_owned(), "ten".to_owned()]));
        assert_eq!(questions.samples[1].level.as_ref().map(|level| level.value), Some(1));
        assert_eq!(questions.samples[1].record["prompt"], "4 + 6 =");
    }

    #[test]
    fn the_last_match_is_the_answer_and_none_is_wrong() {
        let answer = |pattern: Option<&str>, text: &str| {
            let questions = read(LINE, pattern).unwrap();
            let filter = CompiledFilter::new(&questions.filters[0]).unwrap();
            apply(&filter, &[text.to_owned()]).unwrap()
        };
        assert_eq!(answer(Some(r"= (\d+)"), " 40 + 30 = 70 = 85 + 1"), ["85"]);
        assert_eq!(answer(Some(r"= (\d+)"), " forty"), ["[invalid]"]);
        assert_eq!(answer(None, " 85 \t"), ["85"]);
    }

    #[test]
    fn what_is_no_question_is_named() {
        for (from, to, expected) in [
            ("4 + 6 =", " ", "line 1: `prompt` is empty"),
            ("\"10\"", "\"\"", "line 1: `answer` must be at least one text"),
            ("\"10\"", "\" 10\"", "line 1: `answer` must be at least one text"),
            ("\"10\"", "[]", "line 1: `answer` must be at least one text"),
            ("\"10\"", "10", "line 1: `answer` must be a string or a list of strings"),
            ("\"10\"", "\"[invalid]\"", "line 1: `answer` is `[invalid]`"),
            ("\"prompt\": \"4 + 6 =\", ", "", "line 1: missing field `prompt`"),
            (", \"level\": 1", "", "line 1: has no `level`"),
        ] {
            let error = read(&LINE.replacen(from, to, 1), None).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert!(
            read(&format!("{LINE}\n{LINE}"), None).unwrap_err().to_string().contains("line 2: the id `x`")
        );
    }

    #[test]
    fn a_pattern_has_exactly_one_group() {
        assert_eq!(check_pattern(r"= (\d+)"), Ok(()));
        assert_eq!(check_pattern(r"(?:a|b)=(\d+)"), Ok(()));
        assert_eq!(check_pattern(r"= \d+"), Err("has no group".to_owned()));
        assert_eq!(check_pattern(r"(\d+) = (\d+)"), Err("has 2 groups".to_owned()));
        assert!(check_pattern("= (").is_err());
    }
}
