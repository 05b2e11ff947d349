//! Patterns of Python's `re`, translated and applied so that they find what Python 3.11 finds.
//!
//! `fancy-regex` has lookarounds and references as Python has, but another syntax for classes, another
//! meaning of `$`, `\Z`, `\s`, `\w` and `\b`, and other rules for empty matches. What is translated is
//! what Python's documentation of `re` says of `str` patterns; what cannot be is refused by name.

use fancy_regex::{Captures, Regex, RegexBuilder};

/// Steps of backtracking within one search, far beyond what an honest pattern needs.
const MOST_STEPS: usize = 5_000_000;
/// Longest pattern, in bytes.
const LONGEST: usize = 20_000;

/// Python's `\w` in a `str` pattern: letters, numbers and the underscore, but no combining marks.
const WORD: &str = r"\p{L}\p{N}_";
/// Python's `\s`: white space and the four separators of ASCII.
const SPACE: &str = r"\s\x{1c}-\x{1f}";

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    /// The pattern as it was given.
    source: String,
    regex: Regex,
    /// The same, but it matches nothing empty where the search begins: the rule after an empty match.
    advancing: Regex,
}

impl Pattern {
    /// Compiles `source`; otherwise says what of it cannot be used, for "the pattern `…` …".
    pub(crate) fn new(source: &str) -> Result<Self, String> {
        if source.len() > LONGEST {
            return Err(format!("is longer than {LONGEST} bytes"));
        }
        let translated = Translation::new(source).run()?;
        let build = |text: &str| {
            RegexBuilder::new(text)
                .backtrack_limit(MOST_STEPS)
                .build()
                .map_err(|e| format!("cannot be compiled: {}", one_line(&e.to_string())))
        };
        let regex = build(&translated)?;
        let advancing = build(&format!(r"(?:{translated})(?!\G)"))?;
        Ok(Self { source: source.to_owned(), regex, advancing })
    }

    /// How many groups it has, the whole match not among them.
    pub(crate) fn groups(&self) -> usize {
        self.regex.captures_len().saturating_sub(1)
    }

    /// Every match, from left to right, as `re.finditer` gives them: an empty match may follow another match
    /// directly, and after an empty match a longer one may begin at the same place.
    fn matches<'t>(&self, text: &'t str) -> Result<Vec<Captures<'t>>, String> {
        let mut found = Vec::new();
        let (mut position, mut after_empty) = (0, false);
        loop {
            let regex = if after_empty { &self.advancing } else { &self.regex };
            let captures = regex.captures_from_pos(text, position).map_err(|e| {
                format!("the pattern `{}` gave up on a text: {}", self.source, one_line(&e.to_string()))
            })?;
            let Some(captures) = captures else { return Ok(found) };
            let Some(whole) = captures.get(0) else { return Ok(found) };
            after_empty = whole.start() == whole.end();
            position = whole.end();
            found.push(captures);
        }
    }

    /// `re.findall`: of each match the whole, or its groups where the pattern has some (a group that took no
    /// part is empty).
    pub(crate) fn find_all<'t>(&self, text: &'t str) -> Result<Vec<Vec<&'t str>>, String> {
        let groups = |captures: &Captures<'t>| -> Vec<&'t str> {
            let first = usize::from(captures.len() > 1);
            (first..captures.len()).map(|group| captures.get(group).map_or("", |m| m.as_str())).collect()
        };
        Ok(self.matches(text)?.iter().map(groups).collect())
    }

    /// `re.sub(pattern, "", text)`.
    pub(crate) fn remove(&self, text: &str) -> Result<String, String> {
        self.replace(text, &Replacement(Vec::new()), 0)
    }

    /// `re.sub(pattern, replacement, text, count)`; a count of 0 is none.
    pub(crate) fn replace(
        &self,
        text: &str,
        replacement: &Replacement,
        count: usize,
    ) -> Result<String, String> {
        let mut out = String::with_capacity(text.len());
        let mut done = 0;
        for (nth, captures) in self.matches(text)?.iter().enumerate() {
            if count > 0 && nth >= count {
                break;
            }
            let Some(whole) = captures.get(0) else { continue };
            out.push_str(text.get(done..whole.start()).unwrap_or_default());
            for piece in &replacement.0 {
                match piece {
                    Piece::Text(text) => out.push_str(text),
                    Piece::Group(group) if *group >= captures.len() => {
                        return Err(format!("the pattern `{}` has no group {group}", self.source));
                    }
                    Piece::Group(group) => out.push_str(captures.get(*group).map_or("", |m| m.as_str())),
                    Piece::Name(name) => out.push_str(captures.name(name).map_or("", |m| m.as_str())),
                }
            }
            done = whole.end();
        }
        out.push_str(text.get(done..).unwrap_or_default());
        Ok(out)
    }
}

/// What `re.sub` puts in place of a match: the template's text and its references to groups.
pub(crate) struct Replacement(Vec<Piece>);

enum Piece {
    Text(String),
    Group(usize),
    Name(String),
}

impl Replacement {
    /// Reads a template: `\1`, `\g<1>`, `\g<name>`, `\n` and its like, `\\`.
    pub(crate) fn new(template: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut text = String::new();
        let mut rest = template.chars().peekable();
        while let Some(c) = rest.next() {
            if c != '\\' {
                text.push(c);
                continue;
            }
            let piece = match rest.next() {
                Some('g') => {
                    let name: String =
                        rest.by_ref().skip_while(|c| *c == '<').take_while(|c| *c != '>').collect();
                    name.parse().map_or(Piece::Name(name), Piece::Group)
                }
                Some(digit @ '1'..='9') => {
                    let mut number = usize::from(digit as u8 - b'0');
                    if let Some(second) = rest.next_if(char::is_ascii_digit) {
                        number = number * 10 + usize::from(second as u8 - b'0');
                    }
                    Piece::Group(number)
                }
                Some(letter) if simple_escape(letter).is_some() => {
                    text.extend(simple_escape(letter));
                    continue;
                }
                Some(other) if !other.is_ascii_alphanumeric() => {
                    if other != '\\' {
                        text.push('\\');
                    }
                    text.push(other);
                    continue;
                }
                other => {
                    let shown = other.map(String::from).unwrap_or_default();
                    return Err(format!(
                        "the replacement has the escape `\\{shown}`, which is not supported"
                    ));
                }
            };
            pieces.push(Piece::Text(std::mem::take(&mut text)));
            pieces.push(piece);
        }
        pieces.push(Piece::Text(text));
        Ok(Self(pieces))
    }
}

/// The character that a backslash and a letter stand for in strings and patterns alike.
fn simple_escape(letter: char) -> Option<char> {
    Some(match letter {
        'a' => '\x07',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        _ => return None,
    })
}

/// An error's text without line breaks (the parser draws arrows under the pattern).
fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.last().copied().unwrap_or("unknown reason").trim_start_matches("error: ").to_owned()
}

/// A pattern on its way from Python's syntax to that of `fancy-regex`.
struct Translation {
    source: Vec<char>,
    at: usize,
    out: String,
    /// Whether `$` and `^` mean lines, for each open group.
    lines: Vec<bool>,
}

/// A member of a character class.
enum Member {
    One(char),
    /// Already in the syntax of the target, without brackets or as a class of its own.
    Many(String),
}

impl Translation {
    fn new(source: &str) -> Self {
        Self { source: source.chars().collect(), at: 0, out: String::new(), lines: vec![false] }
    }

    fn peek(&self) -> Option<char> {
        self.source.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek();
        self.at += usize::from(c.is_some());
        c
    }

    fn skip(&mut self, text: &str) -> bool {
        let found = text.chars().enumerate().all(|(i, c)| self.source.get(self.at + i) == Some(&c));
        self.at += if found { text.chars().count() } else { 0 };
        found
    }

    /// Everything up to `end`, which is skipped too.
    fn until(&mut self, end: char) -> Result<String, String> {
        let mut text = String::new();
        loop {
            match self.next() {
                Some(c) if c == end => return Ok(text),
                Some(c) => text.push(c),
                None => return Err(format!("lacks a `{end}`")),
            }
        }
    }

    fn run(mut self) -> Result<String, String> {
        while let Some(c) = self.next() {
            match c {
                '\\' => self.escape()?,
                '[' => self.class()?,
                '(' => self.group()?,
                ')' => {
                    if self.lines.len() < 2 {
                        return Err("has a `)` too many".to_owned());
                    }
                    self.lines.pop();
                    self.out.push(')');
                }
                '$' if !self.lines.last().copied().unwrap_or(false) => self.out.push_str(r"(?=\n?\z)"),
                '{' => self.repetition(),
                '^' | '$' | '.' | '*' | '+' | '?' | '|' => self.out.push(c),
                literal => self.literal(literal),
            }
        }
        if self.lines.len() > 1 {
            return Err("lacks a `)`".to_owned());
        }
        Ok(self.out)
    }

    fn literal(&mut self, c: char) {
        self.out.push_str(&spelled(c));
    }

    /// `{2}`, `{2,}`, `{,3}`, `{2,3}`; any other brace stands for itself.
    fn repetition(&mut self) {
        let length = self.source.iter().skip(self.at).position(|c| *c == '}').unwrap_or(0);
        let inner: String = self.source.iter().skip(self.at).take(length).collect();
        let is_count = |text: &str| text.chars().all(|c| c.is_ascii_digit());
        let quantifier = match inner.split_once(',') {
            Some((low, high)) if is_count(low) && is_count(high) => {
                Some(format!("{{{},{high}}}", if low.is_empty() { "0" } else { low }))
            }
            None if !inner.is_empty() && is_count(&inner) => Some(format!("{{{inner}}}")),
            _ => None,
        };
        match quantifier {
            Some(quantifier) => {
                self.at += length + 1;
                self.out.push_str(&quantifier);
            }
            None => self.literal('{'),
        }
    }

    /// What follows a backslash outside of a class.
    fn escape(&mut self) -> Result<(), String> {
        let before = self.at;
        match self.peek() {
            Some('b') => {
                self.out.push_str(&format!("(?:(?<=[{WORD}])(?![{WORD}])|(?<![{WORD}])(?=[{WORD}]))"))
            }
            // In an empty text Python finds neither a boundary nor a place that is none.
            Some('B') => self
                .out
                .push_str(&format!(r"(?:(?<=[{WORD}])(?=[{WORD}])|(?!\A\z)(?<![{WORD}])(?![{WORD}]))")),
            Some('A') => self.out.push_str(r"\A"),
            Some('Z') => self.out.push_str(r"\z"),
            Some('1'..='9') if !self.is_octal() => {
                let mut number = String::new();
                while let Some(digit) = self.peek().filter(|c| c.is_ascii_digit() && number.len() < 2) {
                    number.push(digit);
                    self.at += 1;
                }
                self.out.push_str(&format!(r"(?:\{number})"));
                return Ok(());
            }
            _ => {
                match self.member_after_backslash()? {
                    Member::One(c) => self.literal(c),
                    Member::Many(set) => self.out.push_str(&format!("[{set}]")),
                }
                return Ok(());
            }
        }
        self.at = before + 1;
        Ok(())
    }

    /// Whether three octal digits follow, the first at most 3: a character, not a group.
    fn is_octal(&self) -> bool {
        let digit =
            |offset: usize| self.source.get(self.at + offset).copied().filter(|c| ('0'..='7').contains(c));
        digit(0).is_some_and(|c| c <= '3') && digit(1).is_some() && digit(2).is_some()
    }

    /// What a backslash stands for in a class, and outside of one where it means no place or group.
    fn member_after_backslash(&mut self) -> Result<Member, String> {
        let Some(c) = self.next() else { return Err("ends with a backslash".to_owned()) };
        if let Some(simple) = simple_escape(c) {
            return Ok(Member::One(simple));
        }
        let set = match c {
            'd' => r"\d".to_owned(),
            'D' => r"\D".to_owned(),
            's' => SPACE.to_owned(),
            'S' => format!("[^{SPACE}]"),
            'w' => WORD.to_owned(),
            'W' => format!("[^{WORD}]"),
            'x' => return self.code(2, 16).map(Member::One),
            'u' => return self.code(4, 16).map(Member::One),
            'U' => return self.code(8, 16).map(Member::One),
            '0'..='7' => {
                self.at -= 1;
                let digits = self.source.iter().skip(self.at).take(3);
                let count = digits.take_while(|c| ('0'..='7').contains(*c)).count();
                return self.code(count, 8).map(Member::One);
            }
            c if c.is_ascii_alphanumeric() => {
                return Err(format!("has the escape `\\{c}`, which is not supported"));
            }
            c => return Ok(Member::One(c)),
        };
        Ok(Member::Many(set))
    }

    /// A character by its number.
    fn code(&mut self, digits: usize, base: u32) -> Result<char, String> {
        let text: String = self.source.iter().skip(self.at).take(digits).collect();
        self.at += digits;
        let number = u32::from_str_radix(&text, base).ok().filter(|_| text.len() == digits);
        number
            .and_then(char::from_u32)
            .ok_or_else(|| format!("has an escape with `{text}`, which is no character"))
    }

    /// A class, after its opening bracket.
    fn class(&mut self) -> Result<(), String> {
        self.out.push('[');
        if self.skip("^") {
            self.out.push('^');
        }
        let start = self.at;
        loop {
            let member = match self.next() {
                None => return Err("lacks a `]`".to_owned()),
                Some(']') if self.at > start + 1 => break,
                Some('\\') if self.skip("b") => Member::One('\x08'),
                Some('\\') => self.member_after_backslash()?,
                Some(c) => Member::One(c),
            };
            let is_range =
                self.peek() == Some('-') && self.source.get(self.at + 1).is_some_and(|c| *c != ']');
            let low = match (member, is_range) {
                (Member::One(low), true) => low,
                (Member::One(one), false) => {
                    self.out.push_str(&spelled(one));
                    continue;
                }
                (Member::Many(_), true) => return Err("has a range that begins with a class".to_owned()),
                (Member::Many(set), false) => {
                    self.out.push_str(&set);
                    continue;
                }
            };
            self.at += 1;
            let high = match self.next() {
                Some('\\') => match self.member_after_backslash()? {
                    Member::One(high) => high,
                    Member::Many(_) => return Err("has a range that ends with a class".to_owned()),
                },
                Some(high) => high,
                None => return Err("lacks a `]`".to_owned()),
            };
            self.out.push_str(&format!("{}-{}", spelled(low), spelled(high)));
        }
        self.out.push(']');
        Ok(())
    }

    /// A group, after its opening parenthesis.
    fn group(&mut self) -> Result<(), String> {
        let lines = self.lines.last().copied().unwrap_or(false);
        let plain = ["?:", "?=", "?!", "?<=", "?<!", "?>"].into_iter().find(|kind| self.skip(kind));
        if let Some(kind) = plain {
            self.out.push_str(&format!("({kind}"));
        } else if self.skip("?P<") {
            let name = self.until('>')?;
            self.out.push_str(&format!("(?P<{}>", identifier(name)?));
        } else if self.skip("?P=") {
            let name = self.until(')')?;
            self.out.push_str(&format!("(?:(?P={}))", identifier(name)?));
            return Ok(());
        } else if self.skip("?#") {
            self.until(')')?;
            return Ok(());
        } else if self.skip("?(") {
            return Err("has a conditional group `(?(…)…)`, which is not supported".to_owned());
        } else if self.skip("?") {
            return self.flags(lines);
        } else {
            self.out.push('(');
        }
        self.lines.push(lines);
        Ok(())
    }

    /// `(?i)` at the start of the pattern, or `(?i-m:`.
    fn flags(&mut self, mut lines: bool) -> Result<(), String> {
        let start = self.at - 2;
        let (mut on, mut off) = (String::new(), String::new());
        let mut negative = false;
        loop {
            match self.next() {
                Some(end @ (')' | ':')) => {
                    let minus = if off.is_empty() { "" } else { "-" };
                    if end == ':' {
                        self.lines.push(lines);
                        self.out.push_str(&format!("(?{on}{minus}{off}:"));
                    } else if start == 0 && !negative {
                        self.lines = vec![lines];
                        if !on.is_empty() {
                            self.out.push_str(&format!("(?{on})"));
                        }
                    } else {
                        return Err(
                            "has flags for the whole pattern that do not stand at its start".to_owned()
                        );
                    }
                    return Ok(());
                }
                Some('-') if !negative => negative = true,
                Some('u') if !negative => {}
                Some(flag @ ('i' | 's' | 'm')) => {
                    if flag == 'm' {
                        lines = !negative;
                    }
                    if negative { off.push(flag) } else { on.push(flag) }
                }
                Some(flag) => return Err(format!("has `(?{flag}`, which is not supported")),
                None => return Err("lacks a `)`".to_owned()),
            }
        }
    }
}

/// A character that stands for itself, in a class or outside.
fn spelled(c: char) -> String {
    if c.is_alphanumeric() || c == '_' { c.to_string() } else { format!("\\x{{{:x}}}", u32::from(c)) }
}

/// A group's name, if Python and the target both take it.
fn identifier(name: String) -> Result<String, String> {
    let starts_well = name.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_');
    if starts_well && name.chars().all(|c| c.is_alphanumeric() || c == '_') {
        return Ok(name);
    }
    Err(format!("has the group name `{name}`, which is no identifier"))
}
