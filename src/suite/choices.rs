//! Choice questions of a suite's own: one JSON object per line, a context and options that continue it.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use serde::Deserialize;
use serde_json::Value;

use super::question::{Answer, ChoiceOption, Metric, QuestionKind, Questions, Sample};
use crate::error::{Error, Result};

/// One line. Other fields are allowed: they are kept for whoever looks at the sample.
#[derive(Deserialize)]
struct Record {
    id: String,
    context: String,
    options: Vec<String>,
    gold: usize,
}

/// The questions of `bytes`, the content of the file `path`. Records of one id are parallel: in other tasks of the
/// suite they say the same in another language, and count as one cluster.
///
/// # Errors
/// Not UTF-8, no record, or a line that is none: the line is named.
pub(super) fn parse(path: &Path, bytes: &[u8], delimiter: String) -> Result<Questions> {
    let help = r#"write one object per line: {"id": "a name", "context": "It rained, so", "options": ["the street was wet.", "the street was dry."], "gold": 0}"#;
    let text = std::str::from_utf8(bytes)
        .map_err(|e| Error::file(path, format!("not UTF-8 (byte {} of the file)", e.valid_up_to()), help))?;
    let mut ids = BTreeSet::new();
    let mut samples = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = |problem: String| Error::file(path, format!("line {}: {problem}", index + 1), help);
        let whole: Value = serde_json::from_str(line).map_err(|e| wrong(e.to_string()))?;
        let record = Record::deserialize(&whole).map_err(|e| wrong(e.to_string()))?;
        let distinct: BTreeSet<&str> = record.options.iter().map(|option| option.trim()).collect();
        if distinct.len() < 2 || distinct.len() != record.options.len() || distinct.contains("") {
            return Err(wrong("`options` must be at least two, all different and none empty".to_owned()));
        }
        if record.gold >= record.options.len() {
            return Err(wrong(format!(
                "`gold` is {}, but the options end at {}",
                record.gold,
                distinct.len() - 1
            )));
        }
        if !ids.insert(record.id.clone()) {
            return Err(wrong(format!("the id `{}` is already in use", record.id)));
        }
        let option =
            |text: String| ChoiceOption { normalizer: text.clone(), continuation: text, question: None };
        samples.push(Sample {
            cluster: record.id.clone(),
            id: record.id,
            doc_id: samples.len(),
            level: None,
            shots: Arc::from([]),
            question: record.context,
            answer_prefix: String::new(),
            answer: Answer::Choice {
                options: record.options.into_iter().map(option).collect(),
                gold: vec![record.gold],
            },
            record: whole,
        });
    }
    if samples.is_empty() {
        return Err(Error::file(path, "the file holds no question", help));
    }
    Ok(Questions {
        kind: QuestionKind::Choice,
        description: String::new(),
        target_delimiter: delimiter,
        fewshot_delimiter: "\n\n".to_owned(),
        samples,
        metrics: vec![Metric::Acc, Metric::AccNorm, Metric::AccBytes],
        filters: Vec::new(),
        left_out: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Questions> {
        parse(Path::new("q.jsonl"), text.as_bytes(), " ".to_owned())
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
