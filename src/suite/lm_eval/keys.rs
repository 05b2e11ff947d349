//! One mapping of a task file, taken apart key by key: types are checked, what is left over is refused.

use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use serde_yaml::{Mapping, Value};

use crate::error::{Error, Result};
use crate::suite::suggest::did_you_mean;

/// Benchmarks that this program has of its own, without any Python. One that is contained in another's name
/// stands after it.
const NATIVE: [&str; 21] = [
    "hellaswag",
    "arc_easy",
    "arc_challenge",
    "cmmlu",
    "mmlu",
    "winogrande",
    "piqa",
    "boolq",
    "openbookqa",
    "lambada",
    "truthfulqa",
    "gsm8k",
    "math",
    "mgsm",
    "xcopa",
    "belebele",
    "xnli",
    "xquad",
    "squad",
    "bbh",
    "wikitext",
];

/// The keys of one mapping. A key whose value is null is not there.
pub(super) struct Keys {
    path: PathBuf,
    /// The mapping's own key with a dot, empty at the top.
    prefix: String,
    task: String,
    left: Mapping,
    asked: Vec<String>,
}

impl Keys {
    /// Of the mapping `keys`, which stands under `prefix` (empty, or ending in a dot) in the file at `path`.
    pub(super) fn new(path: &Path, prefix: &str, keys: Mapping, task: &str) -> Self {
        Self {
            path: path.to_owned(),
            prefix: prefix.to_owned(),
            task: task.to_owned(),
            left: keys,
            asked: Vec::new(),
        }
    }

    /// The keys of a mapping within this one, called `key`.
    pub(super) fn inner(&self, key: &str, keys: Mapping) -> Self {
        Self::new(&self.path, &format!("{}{key}.", self.prefix), keys, &self.task)
    }

    /// An error about `key`.
    pub(super) fn error(&self, key: &str, problem: impl Into<String>, help: impl Into<String>) -> Error {
        Error::key(&self.path, &format!("{}{key}", self.prefix), problem, help)
    }

    fn wrong_type(&self, key: &str, wanted: &str) -> Error {
        self.error(key, format!("is not {wanted}"), format!("give {wanted}"))
    }

    /// Accepts `key` whatever it is.
    pub(super) fn skip(&mut self, key: &str) {
        self.asked.push(key.to_owned());
        self.left.remove(key);
    }

    /// The value of `key`.
    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        self.asked.push(key.to_owned());
        self.left.remove(key).filter(|value| !value.is_null())
    }

    pub(super) fn text(&mut self, key: &str) -> Result<Option<String>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong_type(key, "a text")),
        }
    }

    /// A switch; `yes`, `no`, `on` and `off` are switches too, as PyYAML reads them.
    pub(super) fn boolean(&mut self, key: &str) -> Result<Option<bool>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Bool(yes)) => Ok(Some(yes)),
            Some(Value::String(word)) => match word.to_lowercase().as_str() {
                "yes" | "on" => Ok(Some(true)),
                "no" | "off" => Ok(Some(false)),
                _ => Err(self.wrong_type(key, "`true` or `false`")),
            },
            Some(_) => Err(self.wrong_type(key, "`true` or `false`")),
        }
    }

    pub(super) fn number(&mut self, key: &str) -> Result<Option<usize>> {
        match self.take(key) {
            None => Ok(None),
            Some(value) => match value.as_u64().and_then(|number| usize::try_from(number).ok()) {
                Some(number) => Ok(Some(number)),
                None => Err(self.wrong_type(key, "a whole number")),
            },
        }
    }

    pub(super) fn integer(&mut self, key: &str) -> Result<Option<i64>> {
        match self.take(key) {
            None => Ok(None),
            Some(value) => value.as_i64().map(Some).ok_or_else(|| self.wrong_type(key, "a whole number")),
        }
    }

    /// A finite number; also one that YAML 1.1 takes for a text, as `1e-1`.
    pub(super) fn float(&mut self, key: &str) -> Result<Option<f64>> {
        let number = match self.take(key) {
            None => return Ok(None),
            Some(Value::String(text)) => text.parse().ok(),
            Some(value) => value.as_f64(),
        };
        match number.filter(|number: &f64| number.is_finite()) {
            Some(number) => Ok(Some(number)),
            None => Err(self.wrong_type(key, "a number")),
        }
    }

    pub(super) fn list(&mut self, key: &str) -> Result<Option<Vec<Value>>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Sequence(items)) => Ok(Some(items)),
            Some(_) => Err(self.wrong_type(key, "a list")),
        }
    }

    /// A text or a list of texts.
    pub(super) fn texts(&mut self, key: &str) -> Result<Option<Vec<String>>> {
        let texts: Option<Vec<String>> = match self.take(key) {
            None => return Ok(None),
            Some(Value::String(text)) => Some(vec![text]),
            Some(Value::Sequence(items)) => {
                items.iter().map(|item| item.as_str().map(str::to_owned)).collect()
            }
            Some(_) => None,
        };
        texts.map(Some).ok_or_else(|| self.wrong_type(key, "a text or a list of texts"))
    }

    pub(super) fn mapping(&mut self, key: &str) -> Result<Option<Self>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Mapping(keys)) => Ok(Some(self.inner(key, keys))),
            Some(_) => Err(self.wrong_type(key, "a mapping")),
        }
    }

    /// Which of `known` the text of `key` is.
    pub(super) fn choice(&mut self, key: &str, known: &[&str]) -> Result<Option<usize>> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        match known.iter().position(|known| *known == text) {
            Some(index) => Ok(Some(index)),
            None => {
                let help = did_you_mean(&text, known).unwrap_or_else(|| format!("use {}", known.join(", ")));
                Err(self.error(key, format!("`{text}` is not known"), help))
            }
        }
    }

    /// The names of the keys that are left.
    pub(super) fn rest(&self) -> Vec<String> {
        let named = self.left.iter().filter(|(_, value)| !value.is_null());
        named.map(|(key, _)| key.as_str().unwrap_or("?").to_owned()).collect()
    }

    /// Refuses the first key that nobody asked for.
    pub(super) fn nothing_left(&self) -> Result<()> {
        let rest = self.rest();
        let Some(key) = rest.first() else { return Ok(()) };
        let help = did_you_mean(key, &self.asked)
            .unwrap_or_else(|| "take it out, if the task means the same without it".to_owned());
        Err(self.error(key, "is not a key that is known here", help))
    }

    /// Refuses `!function` and every other tag in `keys`, except under those named in `without_effect`.
    pub(super) fn check_no_python(&self, keys: &Mapping, without_effect: &[&str]) -> Result<()> {
        for (key, value) in keys {
            let name = key.as_str().unwrap_or("?");
            if without_effect.contains(&name) {
                continue;
            }
            if let Some((place, tagged)) = tagged(value, name) {
                let problem = format!("needs Python, which is not run (`{tagged}`)");
                let instead = match name {
                    "process_docs" => {
                        "store the records as they are after processing, and name them with --data"
                    }
                    "custom_dataset" => "store the data in files, and name them with --data",
                    "filter_list" | "process_results" => "use metrics and filters that need none",
                    _ => "write it as a Jinja template",
                };
                return Err(python_error(&self.path, &place, problem, instead, &self.task));
            }
        }
        Ok(())
    }
}

/// The first tag within a value: its place, and the tag with what follows it.
pub(super) fn tagged(value: &Value, place: &str) -> Option<(String, String)> {
    match value {
        Value::Tagged(tagged) => {
            let what = tagged.value.as_str().unwrap_or("…");
            Some((place.to_owned(), format!("{} {what}", tagged.tag)))
        }
        Value::Sequence(items) => {
            items.iter().enumerate().find_map(|(index, item)| tagged(item, &format!("{place}[{index}]")))
        }
        Value::Mapping(pairs) => pairs.iter().find_map(|(key, value)| {
            let key = key.as_str().unwrap_or("?");
            tagged(value, &format!("{place}.{key}"))
        }),
        _ => None,
    }
}

/// An error about what only Python could do; it offers the benchmark of this program that the task looks
/// like.
pub(super) fn python_error(
    path: &Path,
    key: &str,
    problem: impl Into<String>,
    instead: &str,
    task: &str,
) -> Error {
    let help = match native(task) {
        Some(name) => format!("use the built-in benchmark `{name}`, which needs no Python; or {instead}"),
        None => instead.to_owned(),
    };
    Error::key(path, key, problem, help)
}

/// The benchmark of this program whose name is part of a task's name.
fn native(task: &str) -> Option<&'static str> {
    let words = |name: &str| -> Vec<String> {
        name.to_lowercase().split(|c: char| !c.is_alphanumeric()).map(str::to_owned).collect()
    };
    let task = words(task);
    NATIVE.into_iter().find(|name| {
        let name = words(name);
        task.windows(name.len()).any(|part| part == name)
    })
}

/// A YAML value as JSON: tags fall away, a number that JSON has not is null, other keys than texts are
/// written as texts.
pub(super) fn json_of(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(yes) => Json::Bool(*yes),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(integer), _, _) => Json::from(integer),
            (None, Some(integer), _) => Json::from(integer),
            (None, None, float) => float.map_or(Json::Null, Json::from),
        },
        Value::String(text) => Json::String(text.clone()),
        Value::Sequence(items) => Json::Array(items.iter().map(json_of).collect()),
        Value::Mapping(pairs) => Json::Object(
            pairs
                .iter()
                .map(|(key, value)| {
                    let key = match key {
                        Value::String(key) => key.clone(),
                        other => json_of(other).to_string(),
                    };
                    (key, json_of(value))
                })
                .collect(),
        ),
        Value::Tagged(tagged) => json_of(&tagged.value),
    }
}
