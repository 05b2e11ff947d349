//! A JSON value that keeps what Python keeps: the order of keys, whole numbers apart from others, NaN.
//!
//! The harness hashes a document as `json.dumps(doc, indent=2, ensure_ascii=False)` writes it, so key order and
//! every character count. `serde_json::Value` sorts keys and has no NaN.

use std::fmt::Write as _;

use serde_json::Value;

use super::parse::parse;
use crate::error::{Error, Result};

/// A value as Python's `json` module reads and writes it.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// `null`; Python's `None`.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// A number without fraction and exponent.
    Integer(i128),
    /// Any other number, `NaN`, `Infinity` and `-Infinity`.
    Float(f64),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Json>),
    /// An object, keys in the order in which they were written.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// The one value that `text` is, as Python's `json.loads` understands it.
    ///
    /// # Errors
    /// Anything else; a key that an object has twice, a whole number beyond 128 bits, nesting beyond 128.
    pub fn parse(text: &str) -> Result<Self> {
        parse(text).map_err(|malformed| {
            let before = text.get(..malformed.at).unwrap_or_default();
            let place = before.chars().count().saturating_add(1);
            Error::argument(format!("the JSON text {} (at character {place})", malformed.problem), "")
        })
    }

    /// The value of `key` in an object.
    pub fn get(&self, key: &str) -> Option<&Json> {
        match self {
            Json::Object(fields) => fields.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// As `json.dumps(value, ensure_ascii=False)` writes it: on one line, `", "` and `": "` between.
    pub fn one_line(&self) -> String {
        let mut text = String::new();
        self.dump(&mut text, None);
        text
    }

    /// As `json.dumps(value, indent=2, ensure_ascii=False)` writes it.
    pub fn indented(&self) -> String {
        let mut text = String::new();
        self.dump(&mut text, Some(0));
        text
    }

    /// As Python's `str()` writes it: strings as they are, within lists and dictionaries as their `repr`.
    ///
    /// Which characters a `repr` escapes depends on Unicode's version; characters that Unicode received after
    /// 15.0 may differ from what Python 3.12 writes.
    pub fn python_str(&self) -> String {
        match self {
            Json::Text(text) => text.clone(),
            other => {
                let mut text = String::new();
                other.repr(&mut text);
                text
            }
        }
    }

    /// Every innermost value as its `str()`, as the harness does with responses before it writes them.
    pub(super) fn leaves_as_text(&self) -> Json {
        match self {
            Json::List(items) => Json::List(items.iter().map(Json::leaves_as_text).collect()),
            other => Json::Text(other.python_str()),
        }
    }

    /// A string; nothing else.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Json::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A number (true is 1); nothing else.
    pub(super) fn number(&self) -> Option<f64> {
        match self {
            Json::Bool(value) => Some(f64::from(u8::from(*value))),
            Json::Integer(value) => Some(*value as f64),
            Json::Float(value) => Some(*value),
            _ => None,
        }
    }

    /// `indent`: spaces before this value's line; `None` for one line.
    fn dump(&self, text: &mut String, indent: Option<usize>) {
        let inner = indent.map(|spaces| spaces.saturating_add(2));
        match self {
            Json::Null => text.push_str("null"),
            Json::Bool(value) => text.push_str(if *value { "true" } else { "false" }),
            Json::Integer(value) => {
                let _ = write!(text, "{value}"); // Writing to a string cannot fail.
            }
            Json::Float(value) if value.is_nan() => text.push_str("NaN"),
            Json::Float(value) if value.is_infinite() => {
                text.push_str(if *value > 0.0 { "Infinity" } else { "-Infinity" });
            }
            Json::Float(value) => text.push_str(&float_repr(*value)),
            Json::Text(value) => quote(text, value),
            Json::List(items) if items.is_empty() => text.push_str("[]"),
            Json::Object(fields) if fields.is_empty() => text.push_str("{}"),
            Json::List(items) => {
                text.push('[');
                for (index, item) in items.iter().enumerate() {
                    separate(text, index, inner);
                    item.dump(text, inner);
                }
                close(text, ']', indent);
            }
            Json::Object(fields) => {
                text.push('{');
                for (index, (key, value)) in fields.iter().enumerate() {
                    separate(text, index, inner);
                    quote(text, key);
                    text.push_str(": ");
                    value.dump(text, inner);
                }
                close(text, '}', indent);
            }
        }
    }

    fn repr(&self, text: &mut String) {
        match self {
            Json::Null => text.push_str("None"),
            Json::Bool(value) => text.push_str(if *value { "True" } else { "False" }),
            Json::Integer(value) => {
                let _ = write!(text, "{value}"); // Writing to a string cannot fail.
            }
            Json::Float(value) => text.push_str(&float_repr(*value)),
            Json::Text(value) => text_repr(text, value),
            Json::List(items) => {
                text.push('[');
                for (index, item) in items.iter().enumerate() {
                    text.push_str(if index == 0 { "" } else { ", " });
                    item.repr(text);
                }
                text.push(']');
            }
            Json::Object(fields) => {
                text.push('{');
                for (index, (key, value)) in fields.iter().enumerate() {
                    text.push_str(if index == 0 { "" } else { ", " });
                    text_repr(text, key);
                    text.push_str(": ");
                    value.repr(text);
                }
                text.push('}');
            }
        }
    }
}

/// What stands before an item of a list or object.
fn separate(text: &mut String, index: usize, indent: Option<usize>) {
    match indent {
        Some(spaces) => {
            text.push_str(if index == 0 { "\n" } else { ",\n" });
            text.extend(std::iter::repeat_n(' ', spaces));
        }
        None => text.push_str(if index == 0 { "" } else { ", " }),
    }
}

fn close(text: &mut String, bracket: char, indent: Option<usize>) {
    if let Some(spaces) = indent {
        text.push('\n');
        text.extend(std::iter::repeat_n(' ', spaces));
    }
    text.push(bracket);
}

/// A JSON string: quotes, backslashes and characters below U+0020 escaped, everything else as it is.
fn quote(text: &mut String, value: &str) {
    text.push('"');
    for c in value.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\u{8}' => text.push_str("\\b"),
            '\u{c}' => text.push_str("\\f"),
            control if control < ' ' => {
                let _ = write!(text, "\\u{:04x}", u32::from(control)); // Writing to a string cannot fail.
            }
            other => text.push(other),
        }
    }
    text.push('"');
}

/// Python's `repr` of a float: the fewest digits that come back, an exponent below 1e-4 and from 1e16.
///
/// Of two equally near texts of the fewest digits Python takes the even one, the standard library the larger
/// (f32 values, half of whose decimal expansions end in 5, show it): the digits are rounded again.
pub(super) fn float_repr(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let shortest = format!("{:e}", value.abs());
    let decimals = shortest.split_once('e').map_or(0, |(mantissa, _)| mantissa.len().saturating_sub(2));
    let even = format!("{:.decimals$e}", value.abs());
    let text = if even.parse() == Ok(value.abs()) { even } else { shortest };
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let sign = if value.is_sign_negative() { "-" } else { "" };
    match usize::try_from(exponent) {
        Ok(exponent) if exponent < 16 => {
            let (whole, fraction) = digits.split_at(digits.len().min(exponent.saturating_add(1)));
            let zeros = "0".repeat(exponent.saturating_add(1).saturating_sub(whole.len()));
            let fraction = if fraction.is_empty() { "0" } else { fraction };
            format!("{sign}{whole}{zeros}.{fraction}")
        }
        Err(_) if exponent >= -4 => {
            let zeros = "0".repeat((exponent.unsigned_abs() as usize).saturating_sub(1));
            format!("{sign}0.{zeros}{digits}")
        }
        _ => {
            let direction = if exponent < 0 { '-' } else { '+' };
            format!("{sign}{mantissa}e{direction}{:02}", exponent.unsigned_abs())
        }
    }
}

/// Python's `repr` of a string.
fn text_repr(text: &mut String, value: &str) {
    let quote = if value.contains('\'') && !value.contains('"') { '"' } else { '\'' };
    text.push(quote);
    for c in value.chars() {
        let code = u32::from(c);
        // Writing to a string cannot fail.
        let _ = match c {
            '\n' => text.write_str("\\n"),
            '\r' => text.write_str("\\r"),
            '\t' => text.write_str("\\t"),
            c if c == quote || c == '\\' => write!(text, "\\{c}"),
            c if is_printable(c) => text.write_char(c),
            _ if code < 0x100 => write!(text, "\\x{code:02x}"),
            _ if code < 0x1_0000 => write!(text, "\\u{code:04x}"),
            _ => write!(text, "\\U{code:08x}"),
        };
    }
    text.push(quote);
}

/// Python's `str.isprintable`: no character of the categories "other" and "separator", except the space.
///
/// The standard library escapes by the same categories; a combining character only at a text's beginning.
fn is_printable(c: char) -> bool {
    c == '"' || c == '\'' || String::from_iter(['a', c]).escape_debug().count() == 2
}

impl From<Value> for Json {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(value),
            Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(value), _) => Json::Integer(value.into()),
                (_, Some(value)) => Json::Integer(value.into()),
                _ => Json::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => Json::Text(text),
            Value::Array(items) => Json::List(items.into_iter().map(Json::from).collect()),
            Value::Object(fields) => {
                Json::Object(fields.into_iter().map(|(key, value)| (key, value.into())).collect())
            }
        }
    }
}

impl From<&str> for Json {
    fn from(text: &str) -> Self {
        Json::Text(text.to_owned())
    }
}
