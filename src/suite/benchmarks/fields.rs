//! The fields of one record: read by any of their names, with the reason where one cannot be used.
//!
//! Two things can be wrong with a record. A *missing* field means that the file is another one than was
//! meant, which is an error; an *empty* one (null, "", a hidden label −1) means that this record has nothing
//! to ask, and it is left out and counted. Knows nothing of files or benchmarks.

use serde_json::{Map, Value};

/// Why no sample was made of a record.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Unusable {
    /// Nothing to ask: completes "3 records …", as "without a label".
    LeftOut(String),
    /// The file lacks a column; its names, joined by "or".
    Missing(String),
    /// A field holds something else than it should.
    Wrong(String),
}

/// What a record gives.
pub(super) type Found<T> = Result<T, Unusable>;

/// One record.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(pub(super) &'a Map<String, Value>);

impl<'a> Fields<'a> {
    /// Whether there is a field of this name, empty or not.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The first of these fields that there is.
    pub(super) fn value(&self, names: &[&str]) -> Found<&'a Value> {
        names.iter().find_map(|name| self.0.get(*name)).ok_or_else(|| missing(names))
    }

    /// A text as it is, which may be empty.
    pub(super) fn text_or_empty(&self, names: &[&str]) -> Found<&'a str> {
        match self.value(names)? {
            Value::String(text) => Ok(text),
            Value::Null => Ok(""),
            other => Err(wrong(names, "a text", other)),
        }
    }

    /// A text with something in it.
    pub(super) fn text(&self, names: &[&str]) -> Found<&'a str> {
        let text = self.text_or_empty(names)?;
        if text.trim().is_empty() { Err(empty(names)) } else { Ok(text) }
    }

    /// A text, or a number written out.
    pub(super) fn text_or_number(&self, names: &[&str]) -> Found<String> {
        match self.value(names)? {
            Value::Number(number) => Ok(number.to_string()),
            _ => self.text(names).map(str::to_owned),
        }
    }

    /// A list of texts, at least `least` and none of them empty.
    pub(super) fn texts(&self, names: &[&str], least: usize) -> Found<Vec<&'a str>> {
        match self.value(names)? {
            Value::Array(items) => texts(names, items, least),
            Value::Null => Err(empty(names)),
            other => Err(wrong(names, "a list of texts", other)),
        }
    }

    /// Fields of a field.
    pub(super) fn inner(&self, names: &[&str]) -> Found<Fields<'a>> {
        match self.value(names)? {
            Value::Object(fields) => Ok(Fields(fields)),
            Value::Null => Err(empty(names)),
            other => Err(wrong(names, "an object", other)),
        }
    }

    /// An index below `options` from a number, a number in a text, or a truth value (false 0, true 1). Hidden
    /// labels are −1, "" or null.
    pub(super) fn index(&self, names: &[&str], options: usize) -> Found<usize> {
        let value = self.value(names)?;
        let number = match value {
            Value::Number(number) => number.as_i64(),
            Value::Bool(truth) => Some(i64::from(*truth)),
            Value::String(text) if text.trim().is_empty() => Some(-1),
            Value::String(text) => text.trim().parse().ok(),
            Value::Null => Some(-1),
            _ => None,
        };
        match number {
            Some(-1) => Err(hidden(names)),
            Some(number) => match usize::try_from(number) {
                Ok(index) if index < options => Ok(index),
                _ => Err(Unusable::Wrong(format!(
                    "{} is {number}, where there are {options} choices",
                    quoted(names)
                ))),
            },
            None => Err(wrong(names, "a number", value)),
        }
    }

    /// Which of `labels` an answer key names. Keys of one kind (A, B, …) find labels of the other (1, 2, …),
    /// because ARC and OpenBookQA have both.
    pub(super) fn key(&self, names: &[&str], labels: &[&str]) -> Found<usize> {
        let key = match self.value(names)? {
            Value::Number(number) => number.to_string(),
            _ => self.text_or_empty(names)?.trim().to_owned(),
        };
        if key.is_empty() || key == "-1" {
            return Err(hidden(names));
        }
        let same = |label: &&str| label.trim() == key;
        if let Some(index) = labels.iter().position(same) {
            return Ok(index);
        }
        let ordinal = match key.as_bytes() {
            [letter @ b'A'..=b'Z'] => Some(usize::from(letter - b'A')),
            [digit @ b'1'..=b'9'] => Some(usize::from(digit - b'1')),
            _ => None,
        };
        let letters = |label: &&str| matches!(label.trim().as_bytes(), [b'A'..=b'Z']);
        let of_another_kind = labels.iter().all(letters) != key.bytes().all(|b| b.is_ascii_uppercase());
        ordinal.filter(|index| of_another_kind && *index < labels.len()).ok_or_else(|| {
            Unusable::Wrong(format!("{} is `{key}`, none of {}", quoted(names), labels.join(", ")))
        })
    }
}

/// Items of a list as texts, as [`Fields::texts`].
pub(super) fn texts<'a>(names: &[&str], items: &'a [Value], least: usize) -> Found<Vec<&'a str>> {
    let mut texts = Vec::with_capacity(items.len());
    for item in items {
        match item.as_str() {
            Some(text) if !text.trim().is_empty() => texts.push(text),
            Some(_) => return Err(Unusable::LeftOut(format!("with an empty entry in {}", quoted(names)))),
            None => return Err(wrong(names, "a list of texts", item)),
        }
    }
    if texts.len() < least {
        let entries = if least == 1 { "entry" } else { "entries" };
        return Err(Unusable::LeftOut(format!("with fewer than {least} {entries} in {}", quoted(names))));
    }
    Ok(texts)
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or ")
}

/// None of the names is a column.
pub(super) fn missing(names: &[&str]) -> Unusable {
    Unusable::Missing(quoted(names))
}

fn empty(names: &[&str]) -> Unusable {
    Unusable::LeftOut(format!("with an empty {}", quoted(names)))
}

/// The answer is kept secret, as in the test splits of HellaSwag and others.
fn hidden(names: &[&str]) -> Unusable {
    Unusable::LeftOut(format!("whose answer ({}) is hidden", quoted(names)))
}

fn wrong(names: &[&str], wanted: &str, found: &Value) -> Unusable {
    let mut found = found.to_string();
    if let Some((cut, _)) = found.char_indices().nth(60) {
        found.truncate(cut);
        found.push('…');
    }
    Unusable::Wrong(format!("{} is {found}, where {wanted} should be", quoted(names)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with<T>(record: Value, read: impl Fn(Fields) -> Found<T>) -> Found<T> {
        read(Fields(record.as_object().unwrap()))
    }

    #[test]
    fn labels_come_in_every_shape() {
        for (label, expect) in [
            (json!(2), Ok(2)),
            (json!("2"), Ok(2)),
            (json!(true), Ok(1)),
            (json!(-1), Err("whose answer (`label`) is hidden")),
            (json!("-1"), Err("whose answer (`label`) is hidden")),
            (json!(""), Err("whose answer (`label`) is hidden")),
            (json!(null), Err("whose answer (`label`) is hidden")),
        ] {
            let found = with(json!({"label": label}), |f| f.index(&["gold", "label"], 4));
            let expect = expect
                .map_err(|reason: &str| Unusable::LeftOut(reason.replace("`label`", "`gold` or `label`")));
            assert_eq!(found, expect, "{label}");
        }
        let wrong = with(json!({"label": 4}), |f| f.index(&["label"], 4)).unwrap_err();
        assert_eq!(wrong, Unusable::Wrong("`label` is 4, where there are 4 choices".to_owned()));
        assert!(matches!(with(json!({"label": "x"}), |f| f.index(&["label"], 4)), Err(Unusable::Wrong(_))));
        let missing = with(json!({}), |f| f.index(&["gold", "label"], 4)).unwrap_err();
        assert_eq!(missing, Unusable::Missing("`gold` or `label`".to_owned()));
    }

    #[test]
    fn keys_name_labels_of_either_kind() {
        let key = |key: Value, labels: &[&str]| with(json!({"k": key}), |f| f.key(&["k"], labels));
        let (letters, digits) = (["A", "B", "C", "D"], ["1", "2", "3", "4"]);
        assert_eq!(key(json!("C"), &letters), Ok(2));
        assert_eq!(key(json!(" C"), &letters), Ok(2));
        assert_eq!(key(json!("3"), &digits), Ok(2));
        assert_eq!(key(json!(3), &letters), Ok(2));
        assert_eq!(key(json!("C"), &digits), Ok(2));
        // Out of order: the label counts, not its place in the alphabet.
        assert_eq!(key(json!("A"), &["C", "B", "A"]), Ok(2));
        // A letter among letters that is not there is no second guess.
        assert!(matches!(key(json!("A"), &["B", "C", "D"]), Err(Unusable::Wrong(_))));
        assert!(matches!(key(json!("E"), &digits), Err(Unusable::Wrong(_))));
        assert!(matches!(key(json!(""), &letters), Err(Unusable::LeftOut(_))));
    }

    #[test]
    fn empty_texts_are_left_out_and_others_are_wrong() {
        let texts = |value: Value| with(json!({"c": value}), |f| f.texts(&["c"], 2).map(|t| t.len()));
        assert_eq!(texts(json!(["a", "b"])), Ok(2));
        assert!(matches!(texts(json!(["a", " "])), Err(Unusable::LeftOut(_))));
        assert!(matches!(texts(json!(["a"])), Err(Unusable::LeftOut(_))));
        assert!(matches!(texts(json!(["a", 1])), Err(Unusable::Wrong(_))));
        let long = with(json!({"t": ["é".repeat(99)]}), |f| f.text(&["t"]).map(str::len)).unwrap_err();
        assert!(matches!(long, Unusable::Wrong(text) if text.contains("…, where a text should be")));
    }
}
