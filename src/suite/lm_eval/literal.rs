//! Python's literals: what `repr` writes and what `ast.literal_eval` reads.
//!
//! A task file's template for the choices prints a Python list, and lm-evaluation-harness reads it back, so
//! both directions have to be Python's. Read is what templates can print: strings, numbers, lists, tuples,
//! dictionaries with strings as keys, `True`, `False`, `None`; a tuple becomes a list.

use std::fmt::Write as _;

use serde_json::{Map, Number, Value};

/// Deepest nesting of lists.
const DEEPEST: usize = 64;

/// `repr(text)`.
pub(super) fn repr_text(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            c if is_printable(c) => out.push(c),
            c => {
                let code = u32::from(c);
                // Writing to a String cannot fail.
                let _ = match code {
                    0..=0xff => write!(out, "\\x{code:02x}"),
                    0x100..=0xffff => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push(quote);
    out
}

/// Whether Python prints a character as it is: no control, format, private, unassigned or separating
/// character but the space. Rust's debug form follows the same categories for all but the first character.
fn is_printable(c: char) -> bool {
    c == '"' || c == '\'' || format!("a{c}").escape_debug().count() == 2
}

/// `repr(number)` of a float: shortest digits, exponents outside of 1e-4 to 1e16.
pub(super) fn repr_float(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    let scientific = format!("{number:e}");
    let exponent = scientific.split_once('e').and_then(|(digits, e)| Some((digits, e.parse::<i32>().ok()?)));
    match exponent {
        Some((digits, exponent)) if !(-4..16).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        Some(_) if number.fract() == 0.0 => format!("{number:.1}"),
        _ => format!("{number}"),
    }
}

/// `str(value)` of what a record holds: a text as it is, anything else as `repr` writes it.
pub(super) fn str_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => repr(other),
    }
}

/// `repr(value)`.
pub(super) fn repr(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) if number.is_f64() => repr_float(number.as_f64().unwrap_or(f64::NAN)),
        Value::Number(number) => number.to_string(),
        Value::String(text) => repr_text(text),
        Value::Array(items) => format!("[{}]", joined(items.iter().map(repr))),
        Value::Object(pairs) => {
            let pairs = pairs.iter().map(|(key, value)| format!("{}: {}", repr_text(key), repr(value)));
            format!("{{{}}}", joined(pairs))
        }
    }
}

fn joined(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

/// `ast.literal_eval(text)`; otherwise what is wrong with it.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    // literal_eval takes away leading blanks and tabs, and a line break may end the text.
    let mut reader = Reader { rest: text.trim_start_matches([' ', '\t']) };
    let value = reader.value(0)?;
    reader.skip_space();
    if reader.rest.is_empty() { Ok(value) } else { Err(reader.stuck()) }
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r', '\x0c']);
    }

    fn stuck(&self) -> String {
        match self.rest.chars().next() {
            None => "is no Python literal: it ends too early".to_owned(),
            Some(_) => {
                let shown: String = self.rest.chars().take(20).collect();
                format!("is no Python literal: `{}` is not understood", shown.escape_debug())
            }
        }
    }

    fn eat(&mut self, text: &str) -> bool {
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value, String> {
        if depth > DEEPEST {
            return Err("is nested too deeply".to_owned());
        }
        self.skip_space();
        if self.eat("[") {
            return Ok(Value::Array(self.items("]", depth)?.0));
        }
        if self.eat("(") {
            let (mut items, has_comma) = self.items(")", depth)?;
            return match items.pop() {
                Some(only) if items.is_empty() && !has_comma => Ok(only),
                last => {
                    items.extend(last);
                    Ok(Value::Array(items))
                }
            };
        }
        if self.eat("{") {
            return self.dictionary(depth);
        }
        if self.rest.starts_with(['\'', '"']) {
            let mut text = String::new();
            while self.rest.starts_with(['\'', '"']) {
                text.push_str(&self.text()?);
                self.skip_space();
            }
            return Ok(Value::String(text));
        }
        for (word, value) in [("None", Value::Null), ("True", true.into()), ("False", false.into())] {
            if self.eat(word) {
                return Ok(value);
            }
        }
        self.number()
    }

    /// Items up to `end`, and whether a comma followed any.
    fn items(&mut self, end: &str, depth: usize) -> Result<(Vec<Value>, bool), String> {
        let mut items = Vec::new();
        let mut has_comma = false;
        loop {
            self.skip_space();
            if self.eat(end) {
                return Ok((items, has_comma));
            }
            items.push(self.value(depth + 1)?);
            self.skip_space();
            has_comma = self.eat(",");
            if !has_comma && !self.rest.starts_with(end) {
                return Err(self.stuck());
            }
        }
    }

    fn dictionary(&mut self, depth: usize) -> Result<Value, String> {
        let mut pairs = Map::new();
        loop {
            self.skip_space();
            if self.eat("}") {
                return Ok(Value::Object(pairs));
            }
            let Value::String(key) = self.value(depth + 1)? else { return Err(self.stuck()) };
            self.skip_space();
            if !self.eat(":") {
                return Err(self.stuck());
            }
            pairs.insert(key, self.value(depth + 1)?);
            self.skip_space();
            if !self.eat(",") && !self.rest.starts_with('}') {
                return Err(self.stuck());
            }
        }
    }

    /// A string in single or double quotes, also three of them.
    fn text(&mut self) -> Result<String, String> {
        let end = ["'''", "\"\"\"", "'", "\""].into_iter().find(|quote| self.eat(quote)).unwrap_or("'");
        let mut text = String::new();
        loop {
            if self.eat(end) {
                return Ok(text);
            }
            let mut rest = self.rest.chars();
            let c = match rest.next() {
                None => return Err(self.stuck()),
                Some('\n') if end.len() == 1 => return Err(self.stuck()),
                Some(c) => c,
            };
            self.rest = rest.as_str();
            if c == '\\' {
                self.escape(&mut text)?;
            } else {
                text.push(c);
            }
        }
    }

    /// What follows a backslash in a string; an escape that Python does not know stays as it is.
    fn escape(&mut self, text: &mut String) -> Result<(), String> {
        let mut rest = self.rest.chars();
        let Some(c) = rest.next() else { return Err(self.stuck()) };
        let before = self.rest;
        self.rest = rest.as_str();
        let (digits, base) = match c {
            '\n' => return Ok(()),
            'x' => (2, 16),
            'u' => (4, 16),
            'U' => (8, 16),
            '0'..='7' => {
                self.rest = before;
                (before.chars().take(3).take_while(|c| ('0'..='7').contains(c)).count(), 8)
            }
            'N' => return Err(self.stuck()),
            c => {
                match c {
                    '\\' | '\'' | '"' => text.push(c),
                    'a' => text.push('\x07'),
                    'b' => text.push('\x08'),
                    'f' => text.push('\x0c'),
                    'n' => text.push('\n'),
                    'r' => text.push('\r'),
                    't' => text.push('\t'),
                    'v' => text.push('\x0b'),
                    other => text.extend(['\\', other]),
                }
                return Ok(());
            }
        };
        let code = self.rest.get(..digits).and_then(|digits| u32::from_str_radix(digits, base).ok());
        let Some(c) = code.and_then(char::from_u32) else { return Err(self.stuck()) };
        self.rest = self.rest.get(digits..).unwrap_or_default();
        text.push(c);
        Ok(())
    }

    fn number(&mut self) -> Result<Value, String> {
        let sign = if self.eat("-") { "-" } else { "" };
        if !sign.is_empty() || self.eat("+") {
            self.skip_space();
        }
        let is_digit = |c: char| c.is_ascii_digit() || c == '_';
        let mut length = 0;
        let mut previous = ' ';
        for c in self.rest.chars() {
            let is_exponent_sign = matches!(c, '+' | '-') && matches!(previous, 'e' | 'E');
            if !(is_digit(c) || matches!(c, '.' | 'e' | 'E') || is_exponent_sign) {
                break;
            }
            previous = c;
            length += 1;
        }
        let (digits, rest) = self.rest.split_at_checked(length).unwrap_or(("", self.rest));
        let plain = format!("{sign}{}", digits.replace('_', ""));
        let is_integer = !digits.is_empty() && digits.chars().all(is_digit);
        // `07` is refused by Python, `00` is not.
        let padded =
            is_integer && digits.starts_with('0') && !digits.trim_start_matches(['0', '_']).is_empty();
        let well_placed = !digits.starts_with('_') && !digits.ends_with('_') && !digits.contains("__");
        let number = match is_integer {
            true if !padded => plain.parse::<i64>().ok().map(Number::from),
            false if digits.contains(is_digit) => plain.parse().ok().and_then(Number::from_f64),
            _ => None,
        };
        match number {
            Some(number) if well_placed => {
                self.rest = rest;
                Ok(Value::Number(number))
            }
            _ => Err(self.stuck()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Recorded from CPython 3.11.7: `repr(x)`.
    #[test]
    fn repr_as_python_writes_it() {
        for (text, expect) in [
            ("", "''"),
            ("it's", "\"it's\""),
            ("\"", "'\"'"),
            ("'\"", "'\\'\"'"),
            ("a\\b\n\r\t", "'a\\\\b\\n\\r\\t'"),
            ("\0\x07\x1f\x7f", "'\\x00\\x07\\x1f\\x7f'"),
            ("\u{85}\u{a0}\u{ad}", "'\\x85\\xa0\\xad'"),
            ("\u{200b}\u{2028}\u{3000}\u{feff}", "'\\u200b\\u2028\\u3000\\ufeff'"),
            ("\u{e000}\u{10ffff}", "'\\ue000\\U0010ffff'"),
            ("äß 中 😀 e\u{301} \u{301} कि", "'äß 中 😀 e\u{301} \u{301} कि'"),
        ] {
            assert_eq!(repr_text(text), expect);
            assert_eq!(parse(expect), Ok(Value::from(text)), "{expect}");
        }
        for (number, expect) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (123_456_789_012_345_680.0, "1.2345678901234568e+17"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-1.5e-7, "-1.5e-07"),
            (1.5e300, "1.5e+300"),
            (5e-324, "5e-324"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
        ] {
            assert_eq!(repr_float(number), expect);
        }
        let nested = json!([1, -2.5, "a", true, false, null, [], {}, {"k": ["v"]}]);
        assert_eq!(repr(&nested), "[1, -2.5, 'a', True, False, None, [], {}, {'k': ['v']}]");
        assert_eq!(parse(&repr(&nested)), Ok(nested));
        assert_eq!((str_of(&json!("it's")), str_of(&json!(["a"]))), ("it's".to_owned(), "['a']".to_owned()));
    }

    /// Recorded from CPython 3.11.7: `ast.literal_eval(x)`; a tuple is a list here.
    #[test]
    fn literals_as_python_reads_them() {
        for (text, expect) in [
            ("[]", json!([])),
            ("[ 1 , 2, ]", json!([1, 2])),
            ("  ['a', \"b\"]\n", json!(["a", "b"])),
            ("['a' 'b' \"c\"]", json!(["abc"])),
            ("('a')", json!("a")),
            ("('a',)", json!(["a"])),
            ("()", json!([])),
            ("[(1, 2), [3]]", json!([[1, 2], [3]])),
            ("{'a': 1, 'b': {}}", json!({"a": 1, "b": {}})),
            ("[\n 'a',\n 'b'\n]", json!(["a", "b"])),
            ("'''a\n'b'''", json!("a\n'b")),
            ("\"\"\"x\"\"\"", json!("x")),
            (r"'\x41\u00e9\U0001f600\101\0\'\q'", json!("Aé😀A\0'\\q")),
            ("'a\\\nb'", json!("ab")),
            ("-3", json!(-3)),
            ("+3", json!(3)),
            ("- 3", json!(-3)),
            ("1_000", json!(1000)),
            ("00", json!(0)),
            ("1.50", json!(1.5)),
            (".5", json!(0.5)),
            ("1e3", json!(1000.0)),
            ("1E-2", json!(0.01)),
            ("[True, False, None]", json!([true, false, null])),
        ] {
            assert_eq!(parse(text), Ok(expect), "{text}");
        }
        for text in [
            "",
            " ",
            "[",
            "[1",
            "[1 2]",
            "[,]",
            "[1,,2]",
            "a",
            "[a]",
            "'a",
            "'a\nb'",
            "07",
            "1__0",
            "1_",
            "_1",
            "1.2.3",
            "e5",
            "[1]]",
            "[1] 2",
            "{1}",
            "{'a' 1}",
            "(",
            "\n 1a",
            "'\\x4'",
            "'\\N{DASH}'",
            "-",
            "--3",
            "Nonesense",
            "١",
        ] {
            assert!(parse(text).is_err(), "{text:?} was read as {:?}", parse(text));
        }
        assert!(parse(&"[".repeat(10_000)).unwrap_err().contains("too deeply"));
    }
}
