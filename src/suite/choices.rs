//! Choice questions of a suite's own: one JSON object per line, a context and options that continue it.

use std::{collections::BTreeSet, path::Path};

use serde::Deserialize;

use super::lines;
use super::question::{Answer, ChoiceOption, Metric, QuestionKind, Questions};
use crate::error::Result;

/// How a line is written.
const HELP: &str = r#"write one object per line: {"id": "a name", "context": "It rained, so", "options": ["the street was wet.", "the street was dry."], "gold": 0}"#;

/// One line. Other fields are allowed: they are kept for whoever looks at the sample.
#[derive(Deserialize)]
struct Record {
    context: String,
    options: Vec<String>,
    gold: usize,
}

/// The questions of `bytes`, the content of the file `path`; `level_unit` is what their `level` counts. Records of one
/// id are parallel: in other tasks of the suite they say the same in another language, and count as one cluster.
///
/// # Errors
/// Not UTF-8, no record, or a line that is none: the line is named.
pub(super) fn parse(
    path: &Path,
    bytes: &[u8],
    delimiter: String,
    level_unit: Option<&str>,
) -> Result<Questions> {
    Ok(Questions {
        kind: QuestionKind::Choice,
        description: String::new(),
        target_delimiter: delimiter,
        fewshot_delimiter: "\n\n".to_owned(),
        samples: lines::parse((path, bytes), level_unit, HELP, question)?,
        metrics: vec![Metric::Acc, Metric::AccNorm, Metric::AccBytes],
        filters: Vec::new(),
        left_out: Vec::new(),
    })
}

fn question(record: Record) -> std::result::Result<(String, Answer), String> {
    let distinct: BTreeSet<&str> = record.options.iter().map(|option| option.trim()).collect();
    if distinct.len() < 2 || distinct.len() != record.options.len() || distinct.contains("") {
        return Err("`options` must be at least two, all different and none empty".to_owned());
    }
    if record.gold >= record.options.len() {
        return Err(format!("`gold` is {}, but the options end at {}", record.gold, distinct.len() - 1));
    }
    let option = |text: String| ChoiceOption { normalizer: text.clone(), continuation: text, question: None };
    let options = record.options.into_iter().map(option).collect();
    Ok((record.context, Answer::Choice { options, gold: vec![record.gold] }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Questions> {
        parse(Path::new("q.jsonl"), text.as_bytes(), " ".to_owned(), None)
    }

    #[test]
    fn a_line_is_a_question() {
        let line = r#"{"id": "rain", "kind": "effect", "context": "It rained, so", "options": ["b.", "a."], "gold": 1}"#;
        let questions = read(&format!("{line}\n\n")).unwrap();
        let sample = &questions.samples[0];
        assert_eq!(
            (sample.id.as_str(), sample.cluster.as_str(), sample.question.as_str()),
            ("rain", "rain", "It rained, so")
        );
        let Answer::Choice { options, gold } = &sample.answer else { panic!("{sample:?}") };
        assert_eq!((options[1].continuation.as_str(), gold.as_slice()), ("a.", [1].as_slice()));
        assert_eq!(sample.record["kind"], "effect");
    }

    #[test]
    fn a_level_needs_its_unit_and_a_unit_its_levels() {
        let line = r#"{"id": "x", "context": "c", "options": ["a", "b"], "gold": 0, "level": 3}"#;
        let of = |line: &str, unit| parse(Path::new("q.jsonl"), line.as_bytes(), " ".to_owned(), unit);
        let level = of(line, Some("steps")).unwrap().samples[0].level.clone().unwrap();
        assert_eq!((level.unit.as_str(), level.value), ("steps", 3));
        let error = read(line).unwrap_err().to_string();
        assert_eq!(error, "q.jsonl: line 1: has a `level`, but the task no `level_unit`");
        let bare = line.replace(", \"level\": 3", "");
        let error = of(&format!("{line}\n\n{}", bare.replace("\"x\"", "\"y\"")), Some("steps")).unwrap_err();
        assert_eq!(error.to_string(), "q.jsonl: line 3: has no `level`, but the task a `level_unit`");
        for level in ["-1", "1.5", "\"2\""] {
            assert!(
                of(&line.replace("\"level\": 3", &format!("\"level\": {level}")), Some("steps")).is_err()
            );
        }
    }

    #[test]
    fn what_is_no_question_is_named() {
        let base = r#"{"id": "x", "context": "c", "options": ["a", "b"], "gold": 0}"#;
        assert!(read(base).is_ok());
        for (from, to, expected) in [
            ("0}", "2}", "line 1: `gold` is 2"),
            (r#""b"]"#, r#""a"]"#, "line 1: `options` must be"),
            (r#""b"]"#, r#"" "]"#, "line 1: `options` must be"),
            (r#""id": "x", "#, "", "missing field `id`"),
            ("{", "", "line 1: "),
        ] {
            let error = read(&base.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert!(read(&format!("{base}\n{base}")).unwrap_err().to_string().contains("line 2: the id `x`"));
        assert!(read("\n").unwrap_err().to_string().contains("no question"));
    }
}
