//! The parts of a question, from a record: `doc_to_text`, `doc_to_target`, `doc_to_choice`, prefixes.
//!
//! A part that names a field is that field, anything else is a template; what comes out is read as
//! lm-evaluation-harness 0.4.13 reads it (`ConfigurableTask.doc_to_*` in `api/task.py`): digits are an index
//! where the task has choices, a text in brackets is a Python list.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::config::Field;
use super::data::Record;
use super::literal;
use super::template::{Templates, value_of};
use crate::error::{Error, Result};
use crate::suite::suggest::did_you_mean;

/// A record, ready for templates.
pub(super) struct Doc<'a> {
    pub(super) record: &'a Record,
    value: minijinja::Value,
    /// "record 7 of the data", for messages.
    place: String,
}

impl<'a> Doc<'a> {
    pub(super) fn new(record: &'a Record, index: usize, file: &Path) -> Self {
        let value = value_of(&Json::Object(record.clone()));
        Self { record, value, place: format!("record {index} of {}", file.display()) }
    }
}

/// What `doc_to_text` gives.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Text {
    Words(String),
    /// Which of the choices is the right context, where each choice is one.
    Index(i64),
}

/// Compiled parts of one task.
pub(super) struct Parts<'a> {
    path: PathBuf,
    /// The fields of the records that are asked.
    fields: &'a BTreeSet<String>,
    has_choice: bool,
    templates: Templates,
}

impl<'a> Parts<'a> {
    pub(super) fn new(path: &Path, fields: &'a BTreeSet<String>, has_choice: bool) -> Self {
        Self { path: path.to_owned(), fields, has_choice, templates: Templates::new() }
    }

    /// Compiles the part `key`. What is no field though it looks like one is noted: it stands in every prompt
    /// as it is.
    pub(super) fn add(&mut self, key: &str, source: &str, notes: &mut Vec<String>) -> Result<()> {
        if self.fields.contains(source) {
            return Ok(());
        }
        let is_word = !source.is_empty() && source.chars().all(|c| c.is_alphanumeric() || c == '_');
        if is_word {
            let known: Vec<&String> = self.fields.iter().collect();
            let near = did_you_mean(source, &known).map(|near| format!(" ({near})")).unwrap_or_default();
            notes.push(format!(
                "`{key}` is the text `{source}` for every record, as no field has this name{near}"
            ));
        }
        self.templates.add(key, source).map_err(|problem| {
            let help =
                "write the template without what is named here; only what renders as in Jinja is offered";
            Error::key(&self.path, key, problem, help)
        })
    }

    /// Compiles the part `key` where it is a template.
    pub(super) fn add_field(&mut self, key: &str, field: &Field, notes: &mut Vec<String>) -> Result<()> {
        match field {
            Field::Text(source) => self.add(key, source, notes),
            Field::Index(_) | Field::List(_) => Ok(()),
        }
    }

    /// An error about the part `key` of a record.
    pub(super) fn error(&self, key: &str, doc: &Doc, problem: impl std::fmt::Display) -> Error {
        let fields: Vec<&str> = doc.record.keys().map(String::as_str).collect();
        let help = format!("its fields are {}", fields.join(", "));
        Error::key(&self.path, key, format!("{}: {problem}", doc.place), help)
    }

    fn render(&self, key: &str, doc: &Doc) -> Result<String> {
        self.templates.render(key, &doc.value).map_err(|problem| self.error(key, doc, problem))
    }

    /// The record's own field, if the part names one of the task's fields.
    fn own<'d>(&self, key: &str, source: &str, doc: &'d Doc) -> Result<Option<&'d Json>> {
        if !self.fields.contains(source) {
            return Ok(None);
        }
        let field = doc.record.get(source);
        field.map(Some).ok_or_else(|| self.error(key, doc, format!("the field `{source}` is missing")))
    }

    /// A description or prefix: a text, from a field or a template; empty where there is none.
    pub(super) fn plain(&self, key: &str, source: Option<&str>, doc: &Doc) -> Result<String> {
        match source {
            None | Some("") => Ok(String::new()),
            Some(source) => match self.own(key, source, doc)? {
                None => self.render(key, doc),
                Some(Json::Null) => Ok(String::new()),
                Some(Json::String(text)) => Ok(text.clone()),
                Some(_) => Err(self.error(key, doc, format!("the field `{source}` is no text"))),
            },
        }
    }

    /// `doc_to_text`.
    pub(super) fn text(&self, key: &str, field: &Field, doc: &Doc) -> Result<Text> {
        let source = match field {
            Field::Index(index) => return Ok(Text::Index(*index)),
            Field::List(_) => return Err(self.error(key, doc, "a list is no question")),
            Field::Text(source) => source,
        };
        match self.own(key, source, doc)? {
            Some(Json::String(text)) => Ok(Text::Words(text.clone())),
            Some(value) => match index_of(value) {
                Some(index) => Ok(Text::Index(index)),
                None => Err(self.error(key, doc, format!("the field `{source}` is neither text nor index"))),
            },
            None => {
                let text = self.render(key, doc)?;
                Ok(self.digits(key, &text, doc)?.map_or(Text::Words(text), Text::Index))
            }
        }
    }

    /// `doc_to_target`: a text, an index or a list of either; null where the record says nothing.
    pub(super) fn target(&self, key: &str, field: &Field, doc: &Doc) -> Result<Json> {
        let source = match field {
            Field::Index(index) => return Ok(Json::from(*index)),
            Field::List(items) => return Ok(Json::Array(items.clone())),
            Field::Text(source) => source,
        };
        if let Some(value) = self.own(key, source, doc)? {
            return Ok(value.clone());
        }
        let text = self.render(key, doc)?;
        if let Some(index) = self.digits(key, &text, doc)? {
            return Ok(Json::from(index));
        }
        let in_brackets = text.len() >= 2 && text.starts_with('[') && text.ends_with(']');
        match in_brackets.then(|| literal::parse(&text)) {
            Some(Ok(list)) => Ok(list),
            _ => Ok(Json::String(text)),
        }
    }

    /// `doc_to_choice`: a list of texts.
    pub(super) fn choices(&self, key: &str, field: &Field, doc: &Doc) -> Result<Vec<String>> {
        let list = match field {
            Field::Index(_) => Json::Null,
            Field::List(items) => Json::Array(items.clone()),
            Field::Text(source) => match self.own(key, source, doc)? {
                Some(value) => value.clone(),
                None => {
                    let text = self.render(key, doc)?;
                    literal::parse(&text)
                        .map_err(|problem| self.error(key, doc, format!("the template's text {problem}")))?
                }
            },
        };
        let Json::Array(items) = list else {
            return Err(self.error(key, doc, "the choices are no list"));
        };
        let texts =
            items.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<Vec<String>>>();
        texts.ok_or_else(|| self.error(key, doc, "a choice is no text"))
    }

    /// A rendered text as an index, where the task has choices and the text is digits.
    fn digits(&self, key: &str, text: &str, doc: &Doc) -> Result<Option<i64>> {
        if !self.has_choice || text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Ok(None);
        }
        let number = literal::parse(text).ok().and_then(|number| number.as_i64());
        number.map(Some).ok_or_else(|| self.error(key, doc, format!("`{text}` is no index")))
    }
}

/// A whole number, or a switch as Python counts it.
pub(super) fn index_of(value: &Json) -> Option<i64> {
    match value {
        Json::Bool(yes) => Some(i64::from(*yes)),
        Json::Number(number) => number.as_i64(),
        _ => None,
    }
}

/// `list[index]` of Python: negative indexes count from the end.
pub(super) fn at<T>(list: &[T], index: i64) -> Option<&T> {
    match usize::try_from(index) {
        Ok(index) => list.get(index),
        Err(_) => {
            list.len().checked_sub(usize::try_from(index.unsigned_abs()).ok()?).and_then(|i| list.get(i))
        }
    }
}
