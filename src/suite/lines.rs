//! Questions of a suite's own, line by line: what their files have in common, whatever is asked.
//!
//! One JSON object per line, blank lines apart; each has an id of its own, and a `level` exactly where the task names a
//! unit for it: a question without one would be missing from the figures by level, and nobody would see it.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::question::{Answer, Level, Sample};
use crate::error::{Error, Result};

/// What every line may say beside its question.
#[derive(Deserialize)]
struct Common {
    id: String,
    level: Option<u32>,
}

/// The samples of `bytes`, the content of the file `path`; `question` reads question and answer off a line, or
/// says what is wrong with it. `help` shows how a line is written.
///
/// # Errors
/// Not UTF-8, no question, or a line that is none: the line is named.
pub(super) fn parse<R: DeserializeOwned>(
    (path, bytes): (&Path, &[u8]),
    level_unit: Option<&str>,
    help: &str,
    question: impl Fn(R) -> std::result::Result<(String, Answer), String>,
) -> Result<Vec<Sample>> {
    let text = std::str::from_utf8(bytes)
        .map_err(|e| Error::file(path, format!("not UTF-8 (byte {} of the file)", e.valid_up_to()), help))?;
    let mut ids = BTreeSet::new();
    let mut samples = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = |problem: String| Error::file(path, format!("line {}: {problem}", index + 1), help);
        let record: Value = serde_json::from_str(line).map_err(|e| wrong(e.to_string()))?;
        let own = R::deserialize(&record).map_err(|e| wrong(e.to_string()))?;
        let common = Common::deserialize(&record).map_err(|e| wrong(e.to_string()))?;
        if !ids.insert(common.id.clone()) {
            return Err(wrong(format!("the id `{}` is already in use", common.id)));
        }
        let level = match (common.level, level_unit) {
            (Some(value), Some(unit)) => Some(Level { unit: unit.to_owned(), value }),
            (None, None) => None,
            (Some(_), None) => return Err(wrong("has a `level`, but the task no `level_unit`".to_owned())),
            (None, Some(_)) => return Err(wrong("has no `level`, but the task a `level_unit`".to_owned())),
        };
        let (question, answer) = question(own).map_err(wrong)?;
        samples.push(Sample {
            cluster: common.id.clone(),
            id: common.id,
            doc_id: samples.len(),
            level,
            shots: Arc::from([]),
            question,
            answer_prefix: String::new(),
            answer,
            record,
        });
    }
    if samples.is_empty() {
        return Err(Error::file(path, "the file holds no question", help));
    }
    Ok(samples)
}
