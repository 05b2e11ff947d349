//! A file's settings with typed access and errors that name the key as the file spells it.

use std::path::Path;

use serde_json::Value as Json;

use super::{MAX_COUNT, MAX_LAYERS};
use crate::error::{Error, Result};

/// Gives a key's own name in its file.
type Spelled<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Settings in Hugging Face's spelling, wherever they came from.
#[derive(Clone, Copy)]
pub(in crate::checkpoint) struct Keys<'a> {
    path: &'a Path,
    json: &'a Json,
    /// Of a GGUF: its own name of a key, for messages.
    spelled: Option<Spelled<'a>>,
}

impl<'a> Keys<'a> {
    pub(in crate::checkpoint) fn of_hugging_face(path: &'a Path, json: &'a Json) -> Self {
        Self { path, json, spelled: None }
    }

    /// Of settings that were translated; `spelled` gives a key's own name.
    pub(in crate::checkpoint) fn translated(path: &'a Path, json: &'a Json, spelled: Spelled<'a>) -> Self {
        Self { path, json, spelled: Some(spelled) }
    }

    /// Whether they are a GGUF's.
    pub(in crate::checkpoint) fn is_gguf(&self) -> bool {
        self.spelled.is_some()
    }

    /// The settings of a block below these, for errors under the same file.
    pub(in crate::checkpoint) fn block(&self, json: &'a Json) -> Self {
        Self { json, ..*self }
    }

    pub(in crate::checkpoint) fn get(&self, key: &str) -> Option<&'a Json> {
        self.json.get(key).filter(|value| !value.is_null())
    }

    /// The first of several spellings that is there.
    fn first(&self, spellings: &[&'static str]) -> Option<(&'static str, &'a Json)> {
        spellings.iter().find_map(|key| Some((*key, self.get(key)?)))
    }

    pub(in crate::checkpoint) fn problem(
        &self,
        key: &str,
        problem: impl Into<String>,
        help: impl Into<String>,
    ) -> Error {
        let spelled = self.spelled.and_then(|spelled| spelled(key));
        Error::key(self.path, spelled.as_deref().unwrap_or(key), problem, help)
    }

    pub(in crate::checkpoint) fn missing(&self, key: &str) -> Error {
        self.problem(key, "is missing", "copy the complete config of the model beside the weights")
    }

    /// Refuses a setting that would change what is computed.
    pub(in crate::checkpoint) fn not_implemented(&self, key: &str, only: &str) -> Error {
        let value = self.get(key).map_or("absent".to_owned(), Json::to_string);
        self.problem(key, format!("{value} is not implemented"), format!("implemented: {only}"))
    }

    pub(in crate::checkpoint) fn number(&self, key: &str) -> Result<Option<f64>> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match value.as_f64().filter(|x| x.is_finite()) {
                Some(x) => Ok(Some(x)),
                None => Err(self.problem(key, format!("{value} is not a finite number"), "correct the file")),
            },
        }
    }

    pub(in crate::checkpoint) fn positive(&self, key: &str) -> Result<Option<f64>> {
        match self.number(key)? {
            Some(x) if x <= 0.0 => {
                Err(self.problem(key, format!("{x} must be greater than zero"), "correct the file"))
            }
            other => Ok(other),
        }
    }

    pub(in crate::checkpoint) fn required_positive(&self, key: &str) -> Result<f64> {
        self.positive(key)?.ok_or_else(|| self.missing(key))
    }

    fn whole(&self, key: &str, value: &Json) -> Result<usize> {
        match value.as_u64().and_then(|n| usize::try_from(n).ok()) {
            Some(n) if (1..=MAX_COUNT).contains(&n) => Ok(n),
            _ => Err(self.problem(
                key,
                format!("{value} is not a whole number between 1 and {MAX_COUNT}"),
                "correct the file",
            )),
        }
    }

    pub(in crate::checkpoint) fn count(&self, key: &'static str) -> Result<Option<usize>> {
        self.any_count(&[key])
    }

    /// A count under one of several names.
    pub(in crate::checkpoint) fn any_count(&self, spellings: &[&'static str]) -> Result<Option<usize>> {
        self.first(spellings).map(|(key, value)| self.whole(key, value)).transpose()
    }

    pub(in crate::checkpoint) fn required_count(&self, spellings: &[&'static str]) -> Result<usize> {
        self.any_count(spellings)?.ok_or_else(|| self.missing(spellings.first().copied().unwrap_or_default()))
    }

    /// How many layers there are: few enough to list them.
    pub(in crate::checkpoint) fn layers(&self) -> Result<usize> {
        let spellings = ["num_hidden_layers", "n_layer", "num_layers"];
        let layers = self.required_count(&spellings)?;
        if layers > MAX_LAYERS {
            let key = self.first(&spellings).map_or(spellings[0], |(key, _)| key);
            return Err(self.problem(key, format!("{layers} is more than {MAX_LAYERS}"), "correct the file"));
        }
        Ok(layers)
    }

    /// A count that may be 0, for "none".
    pub(in crate::checkpoint) fn count_or_none(&self, spellings: &[&'static str]) -> Result<Option<usize>> {
        match self.first(spellings) {
            Some((_, value)) if value.as_u64() == Some(0) => Ok(None),
            _ => self.any_count(spellings),
        }
    }

    pub(in crate::checkpoint) fn flag(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some(Json::Bool(flag)) => Ok(Some(*flag)),
            Some(value) => {
                Err(self.problem(key, format!("{value} is not true or false"), "correct the file"))
            }
        }
    }

    pub(in crate::checkpoint) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Json::String(text)) => Ok(Some(text)),
            Some(value) => Err(self.problem(key, format!("{value} is not a text"), "correct the file")),
        }
    }

    pub(in crate::checkpoint) fn list(&self, key: &str) -> Result<Option<&'a [Json]>> {
        match self.get(key) {
            None => Ok(None),
            Some(Json::Array(list)) => Ok(Some(list)),
            Some(value) => Err(self.problem(key, format!("{value} is not a list"), "correct the file")),
        }
    }

    /// A list of as many entries as there are layers.
    pub(in crate::checkpoint) fn per_layer(&self, key: &str, layers: usize) -> Result<Option<&'a [Json]>> {
        match self.list(key)? {
            Some(list) if list.len() < layers => Err(self.problem(
                key,
                format!("has {} entries for {layers} layers", list.len()),
                "correct the file",
            )),
            Some(list) => Ok(Some(&list[..layers])),
            None => Ok(None),
        }
    }

    /// A list of positive numbers.
    pub(in crate::checkpoint) fn positive_numbers(&self, key: &str) -> Result<Option<Vec<f64>>> {
        let Some(list) = self.list(key)? else { return Ok(None) };
        let numbers: Option<Vec<f64>> =
            list.iter().map(|value| value.as_f64().filter(|x| x.is_finite() && *x > 0.0)).collect();
        match numbers {
            Some(numbers) => Ok(Some(numbers)),
            None => Err(self.problem(key, "is not a list of positive numbers", "correct the file")),
        }
    }

    /// A number that `null` switches off and silence leaves at its default.
    pub(in crate::checkpoint) fn optional_number(
        &self,
        key: &str,
        default: Option<f64>,
    ) -> Result<Option<f64>> {
        match self.json.get(key) {
            None => Ok(default),
            Some(_) => self.positive(key),
        }
    }

    /// Whether the key is there, as `null` or as anything else.
    pub(in crate::checkpoint) fn says(&self, key: &str) -> bool {
        self.json.get(key).is_some()
    }

    /// Refuses `key` unless it is absent or `true`/`false` as given.
    pub(in crate::checkpoint) fn only_flag(&self, key: &str, expected: bool) -> Result<()> {
        match self.flag(key)? {
            Some(flag) if flag != expected => Err(self.not_implemented(key, &expected.to_string())),
            _ => Ok(()),
        }
    }

    /// Refuses `key` unless it is absent or this number.
    pub(in crate::checkpoint) fn only_number(&self, key: &str, expected: f64) -> Result<()> {
        match self.number(key)? {
            Some(x) if x != expected => Err(self.not_implemented(key, &expected.to_string())),
            _ => Ok(()),
        }
    }
}
