//! What the library `datasets` makes of a file's records: columns that have one type each.
//!
//! JSON goes through pyarrow there, CSV through pandas; a template sees the difference between `1`, `1.0` and
//! `"1"`, so the rules are followed here. Not followed: pyarrow takes texts that are all dates for dates.

use std::collections::BTreeSet;

use serde_json::{Map, Number, Value};

use super::data::Record;
use crate::suite::score::is_space;

/// What pandas takes for nothing.
const NOTHING: [&str; 19] = [
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A",
    "NA", "NULL", "NaN", "None", "n/a", "nan", "null",
];

/// Gives the columns of a CSV file, which are texts, the types that pandas gives them: whole numbers if all
/// values are, fractions if all are numbers or nothing, switches if all are `true` or `false`; else texts.
/// What stands for nothing becomes null.
pub(super) fn type_columns(records: &mut [Record]) {
    let fields: BTreeSet<String> = records.iter().flat_map(Map::keys).cloned().collect();
    for field in &fields {
        let mut column: Vec<&mut Value> =
            records.iter_mut().filter_map(|record| record.get_mut(field)).collect();
        for value in &mut column {
            if value.as_str().is_some_and(|text| NOTHING.contains(&text)) {
                **value = Value::Null;
            }
        }
        let all = |read: fn(&str) -> Option<Value>| -> Option<Vec<Value>> {
            let read = |value: &&mut Value| match value.as_str() {
                Some(text) => read(text),
                None => Some(Value::Null),
            };
            column.iter().map(read).collect()
        };
        let whole = all(whole_number).filter(|values| !values.contains(&Value::Null));
        let signed = |values: &Vec<Value>| {
            values.iter().all(|value| value.is_i64()) || values.iter().all(|value| value.is_u64())
        };
        let typed = match whole {
            Some(values) => Some(values).filter(signed),
            None => all(fraction).or_else(|| all(switch)),
        };
        for (value, typed) in column.into_iter().zip(typed.into_iter().flatten()) {
            *value = typed;
        }
    }
}

fn whole_number(text: &str) -> Option<Value> {
    let text = text.trim_matches(is_space);
    let number = text.parse::<i64>().ok().map(Value::from);
    number.or_else(|| text.parse::<u64>().ok().map(Value::from))
}

fn fraction(text: &str) -> Option<Value> {
    text.trim_matches(is_space).parse::<f64>().ok().and_then(Number::from_f64).map(Value::Number)
}

fn switch(text: &str) -> Option<Value> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Some(Value::Bool(true)),
        "false" => Some(Value::Bool(false)),
        _ => None,
    }
}

/// Makes records alike as a table holds them (pyarrow, which `datasets` reads JSON with): every record has
/// every field, null where it was missing, also within mappings; numbers are fractions throughout where a
/// field has some. Returns the fields' names.
pub(super) fn make_alike(records: &mut [Record]) -> BTreeSet<String> {
    let fields: BTreeSet<String> = records.iter().flat_map(Map::keys).cloned().collect();
    for field in &fields {
        unify(records.iter_mut().map(|record| record.entry(field).or_insert(Value::Null)).collect());
    }
    fields
}

/// Makes the values of one column alike.
fn unify(mut column: Vec<&mut Value>) {
    let numbers = || column.iter().filter_map(|value| value.as_number());
    let is_mixed = numbers().any(Number::is_f64) && numbers().any(|number| !number.is_f64());
    let keys: BTreeSet<String> =
        column.iter().filter_map(|value| value.as_object()).flat_map(Map::keys).cloned().collect();
    for value in column.iter_mut().filter(|_| is_mixed) {
        if let Some(float) = value.as_number().and_then(Number::as_f64) {
            **value = Value::from(float);
        }
    }
    for key in &keys {
        let within = column.iter_mut().filter_map(|value| value.as_object_mut());
        unify(within.map(|pairs| pairs.entry(key).or_insert(Value::Null)).collect());
    }
    let items: Vec<&mut Value> =
        column.into_iter().filter_map(|value| value.as_array_mut()).flatten().collect();
    if !items.is_empty() {
        unify(items);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Recorded from pandas 3.1.1: `read_csv` of one column with these values.
    #[test]
    fn columns_of_texts_get_types() {
        for (texts, expect) in [
            (vec!["1", "2"], json!([1, 2])),
            (vec!["1", "2.5"], json!([1.0, 2.5])),
            (vec!["1", ""], json!([1.0, null])),
            (vec!["1", "x"], json!(["1", "x"])),
            (vec!["True", "FALSE", "tRUE"], json!([true, false, true])),
            (vec!["True", "", "False"], json!([true, null, false])),
            (vec!["True", "1"], json!(["True", "1"])),
            (vec![" True", "False"], json!([" True", "False"])),
            (vec!["NA", "a"], json!([null, "a"])),
            (vec!["None", "b"], json!([null, "b"])),
            (vec![" NA", "a"], json!([" NA", "a"])),
            (vec!["null", "nan", "1"], json!([null, null, 1.0])),
            (vec!["n/a", "N/A"], json!([null, null])),
            (vec![" 1", "2 "], json!([1, 2])),
            (vec!["1 ", "x"], json!(["1 ", "x"])),
            (vec!["01", "+1", "-2"], json!([1, 1, -2])),
            (vec!["1e3", "1.", ".5", "1E-3"], json!([1000.0, 1.0, 0.5, 0.001])),
            (vec!["1_000", "2"], json!(["1_000", "2"])),
            (vec!["1,000", "2"], json!(["1,000", "2"])),
            (vec!["0x10", "1"], json!(["0x10", "1"])),
            (vec!["yes", "no"], json!(["yes", "no"])),
            (vec!["-", "1"], json!(["-", "1"])),
            (vec!["٣", "1"], json!(["٣", "1"])),
            (vec!["12345678901234567890", "1"], json!([12_345_678_901_234_567_890_u64, 1])),
            (vec!["9223372036854775808", "-1"], json!(["9223372036854775808", "-1"])),
        ] {
            let record = |text: &str| [("x".to_owned(), json!(text))].into_iter().collect();
            let mut records: Vec<Record> = texts.iter().map(|text| record(text)).collect();
            type_columns(&mut records);
            let found: Vec<Value> = records.iter().map(|record| record["x"].clone()).collect();
            assert_eq!(Value::Array(found), expect, "{texts:?}");
        }
    }

    /// Recorded from pyarrow's `read_json`: what it makes of the same records.
    #[test]
    fn records_become_alike() {
        let mut records: Vec<Record> = [
            json!({"m": 1.5, "a": 1, "k": {"x": [1]}, "l": [{"p": 1}, {"q": 2.5}]}),
            json!({"m": 2, "b": "x", "k": {"y": null}, "l": [{"q": 1}]}),
            json!({"a": 7}),
        ]
        .into_iter()
        .map(|record| record.as_object().unwrap().clone())
        .collect();
        let fields = make_alike(&mut records);
        assert_eq!(fields.into_iter().collect::<Vec<_>>(), ["a", "b", "k", "l", "m"]);
        let p = |p: Value, q: Value| json!({"p": p, "q": q});
        let first = json!({"m": 1.5, "a": 1, "b": null, "k": {"x": [1], "y": null},
                           "l": [p(json!(1), json!(null)), p(json!(null), json!(2.5))]});
        let second = json!({"m": 2.0, "a": null, "b": "x", "k": {"x": null, "y": null},
                            "l": [p(json!(null), json!(1.0))]});
        let third = json!({"m": null, "a": 7, "b": null, "k": null, "l": null});
        let found: Vec<Value> = records.into_iter().map(Value::Object).collect();
        assert_eq!(found, [first, second, third]);
    }
}
