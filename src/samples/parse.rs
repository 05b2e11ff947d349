//! From text to [`Json`], accepting what Python's `json.loads` accepts and saying where something is wrong.

use super::json::Json;

/// Deepest nesting; rows of the harness have about eight.
const DEEPEST: usize = 128;

/// Why a text is no JSON, and at which byte.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Malformed {
    pub at: usize,
    pub problem: String,
}

/// Reads values from a text, one after the other.
pub(super) struct Parser<'a> {
    text: &'a str,
    at: usize,
}

/// The one value that `text` is.
pub(super) fn parse(text: &str) -> Result<Json, Malformed> {
    let mut parser = Parser::new(text);
    let value = parser.value()?;
    parser.end()?;
    Ok(value)
}

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Byte of the next character that is not white space.
    pub(super) fn position(&mut self) -> usize {
        let space = self.rest().bytes().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
        self.at = self.at.saturating_add(space.count());
        self.at
    }

    /// The next value.
    pub(super) fn value(&mut self) -> Result<Json, Malformed> {
        self.nested(0)
    }

    /// Nothing but white space may follow.
    pub(super) fn end(&mut self) -> Result<(), Malformed> {
        match self.peek() {
            None => Ok(()),
            Some(other) => self.wrong(format!("has `{other}` after its end")),
        }
    }

    /// Whether the next character is `expected`, which is then taken.
    pub(super) fn take(&mut self, expected: char) -> bool {
        let found = self.peek() == Some(expected);
        if found {
            self.at = self.at.saturating_add(expected.len_utf8());
        }
        found
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&mut self) -> Option<char> {
        self.position();
        self.rest().chars().next()
    }

    fn wrong<T>(&self, problem: impl Into<String>) -> Result<T, Malformed> {
        Err(Malformed { at: self.at, problem: problem.into() })
    }

    fn nested(&mut self, depth: usize) -> Result<Json, Malformed> {
        if depth > DEEPEST {
            return self.wrong(format!("is nested more than {DEEPEST} deep"));
        }
        match self.peek() {
            None => self.wrong("ends where a value should be"),
            Some('{') => self.object(depth),
            Some('[') => {
                self.take('[');
                let mut items = Vec::new();
                while !self.take(']') {
                    if !items.is_empty() {
                        self.expect(',', "an array")?;
                    }
                    items.push(self.nested(depth + 1)?);
                }
                Ok(Json::List(items))
            }
            Some('"') => Ok(Json::Text(self.string()?)),
            Some('-' | '0'..='9') if !self.rest().starts_with("-I") => self.number(),
            Some(_) => self.word(),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json, Malformed> {
        self.take('{');
        let mut fields: Vec<(String, Json)> = Vec::new();
        let mut names = std::collections::BTreeSet::new();
        while !self.take('}') {
            if !fields.is_empty() {
                self.expect(',', "an object")?;
            }
            if self.peek().is_some_and(|next| next != '"') {
                return self.wrong("has a key that is no string");
            }
            let key = self.string()?;
            if !names.insert(key.clone()) {
                return self.wrong(format!("has the key `{key}` twice in one object"));
            }
            self.expect(':', "an object")?;
            fields.push((key, self.nested(depth + 1)?));
        }
        Ok(Json::Object(fields))
    }

    fn expect(&mut self, expected: char, place: &str) -> Result<(), Malformed> {
        if self.take(expected) {
            return Ok(());
        }
        match self.peek() {
            None => self.wrong(format!("ends in the middle of {place}")),
            Some(other) => self.wrong(format!("has `{other}` in {place} where `{expected}` should be")),
        }
    }

    fn string(&mut self) -> Result<String, Malformed> {
        if self.peek().is_none() {
            return self.wrong("ends where a string should be");
        }
        let rest = self.rest();
        let mut escaped = false;
        for (index, byte) in rest.bytes().enumerate().skip(1) {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => {
                    let quoted = rest.get(..=index).unwrap_or_default();
                    let text = serde_json::from_str(quoted);
                    let text =
                        text.or_else(|error| self.wrong(format!("has a string that is none: {error}")))?;
                    self.at = self.at.saturating_add(quoted.len());
                    return Ok(text);
                }
                _ => {}
            }
        }
        self.wrong("ends in the middle of a string")
    }

    fn number(&mut self) -> Result<Json, Malformed> {
        let rest = self.rest();
        let is_part = |c: &char| matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E');
        let token = rest.get(..rest.chars().take_while(is_part).count()).unwrap_or_default();
        if !is_json_number(token) {
            return self.wrong(format!("has `{}` where a number should be", shortened(token)));
        }
        let value = if token.contains(['.', 'e', 'E']) {
            token.parse().ok().map(Json::Float)
        } else {
            token.parse().ok().map(Json::Integer)
        };
        let Some(value) = value else {
            return self.wrong(format!("has a whole number of {} digits", token.len()));
        };
        self.at = self.at.saturating_add(token.len());
        Ok(value)
    }

    fn word(&mut self) -> Result<Json, Malformed> {
        const WORDS: [(&str, Json); 6] = [
            ("null", Json::Null),
            ("true", Json::Bool(true)),
            ("false", Json::Bool(false)),
            ("NaN", Json::Float(f64::NAN)),
            ("Infinity", Json::Float(f64::INFINITY)),
            ("-Infinity", Json::Float(f64::NEG_INFINITY)),
        ];
        let is_part = |c: &char| c.is_alphanumeric() || *c == '-';
        let word: String = self.rest().chars().take_while(is_part).take(16).collect();
        match WORDS.into_iter().find(|(name, _)| *name == word) {
            Some((name, value)) => {
                self.at = self.at.saturating_add(name.len());
                Ok(value)
            }
            None => {
                let start: String = self.rest().chars().take(12).collect();
                self.wrong(format!("has `{start}` where a value should be"))
            }
        }
    }
}

/// JSON's grammar of numbers: `-? (0 | [1-9][0-9]*) (. [0-9]+)? ([eE] [+-]? [0-9]+)?`.
fn is_json_number(token: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let token = token.strip_prefix('-').unwrap_or(token);
    let (mantissa, exponent) = match token.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (token, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|exponent| digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)))
}

fn shortened(token: &str) -> String {
    token.chars().take(24).collect()
}
