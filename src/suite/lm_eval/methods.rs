//! Methods of Python's `str`, `list` and `dict` that task files call in templates.
//!
//! Only those whose results are Python's for every text; any other is refused by name. Indexes count
//! characters; white space is what `str.isspace` says.

use minijinja::value::{Value, ValueKind, from_args};
use minijinja::{Error as JinjaError, ErrorKind};

use super::template::refusal;
use crate::suite::score::is_space;

type Result<T> = std::result::Result<T, JinjaError>;

/// `value.name(arguments)`.
pub(super) fn call(value: &Value, name: &str, arguments: &[Value]) -> Result<Value> {
    let found = match (value.as_str(), value.kind()) {
        (Some(text), _) => of_text(text, name, arguments)?,
        (None, ValueKind::Map) => of_map(value, name, arguments)?,
        (None, ValueKind::Seq) => of_list(value, name, arguments)?,
        _ => None,
    };
    found.ok_or_else(|| {
        let problem = format!("the method `{name}` of a {} is not supported", value.kind());
        JinjaError::new(ErrorKind::UnknownMethod, problem)
    })
}

fn of_map(map: &Value, name: &str, arguments: &[Value]) -> Result<Option<Value>> {
    let pair = |key: Value| Ok((key.clone(), map.get_item(&key)?));
    Ok(Some(match name {
        "get" => {
            let (key, default): (Value, Option<Value>) = from_args(arguments)?;
            let found = map.get_item(&key)?;
            if found.is_undefined() { default.unwrap_or_else(|| Value::from(())) } else { found }
        }
        "keys" => {
            let () = from_args(arguments)?;
            Value::from(map.try_iter()?.collect::<Vec<Value>>())
        }
        "values" => {
            let () = from_args(arguments)?;
            Value::from(map.try_iter()?.map(|key| map.get_item(&key)).collect::<Result<Vec<Value>>>()?)
        }
        "items" => {
            let () = from_args(arguments)?;
            let pairs = map.try_iter()?.map(pair).collect::<Result<Vec<(Value, Value)>>>()?;
            Value::from(pairs.into_iter().map(Value::from).collect::<Vec<Value>>())
        }
        _ => return Ok(None),
    }))
}

fn of_list(list: &Value, name: &str, arguments: &[Value]) -> Result<Option<Value>> {
    let (wanted,): (&Value,) = match name {
        "index" | "count" => from_args(arguments)?,
        _ => return Ok(None),
    };
    let mut items = list.try_iter()?;
    if name == "count" {
        return Ok(Some(Value::from(items.filter(|item| item == wanted).count())));
    }
    match items.position(|item| item == *wanted) {
        Some(index) => Ok(Some(Value::from(index))),
        None => Err(refusal(format!("{wanted} is not in the list"))),
    }
}

fn of_text(text: &str, name: &str, arguments: &[Value]) -> Result<Option<Value>> {
    let characters = || -> Result<Option<&str>> {
        let (characters,): (Option<&str>,) = from_args(arguments)?;
        Ok(characters)
    };
    let nothing = || -> Result<()> { from_args(arguments) };
    Ok(Some(match name {
        "strip" => Value::from(stripped(text, characters()?, true, true)),
        "lstrip" => Value::from(stripped(text, characters()?, true, false)),
        "rstrip" => Value::from(stripped(text, characters()?, false, true)),
        "lower" => nothing().map(|()| Value::from(text.to_lowercase()))?,
        "upper" => nothing().map(|()| Value::from(text.to_uppercase()))?,
        "capitalize" => nothing().map(|()| Value::from(capitalized(text)))?,
        "isspace" => nothing().map(|()| Value::from(!text.is_empty() && text.chars().all(is_space)))?,
        "split" | "rsplit" => {
            let (separator, most): (Option<&str>, Option<i64>) = from_args(arguments)?;
            // A negative limit is none.
            let most = most.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
            let pieces = match separator {
                Some("") => return Err(refusal("empty separator")),
                Some(separator) if name == "split" => {
                    text.splitn(most.saturating_add(1), separator).map(str::to_owned).collect()
                }
                Some(separator) => {
                    let mut pieces: Vec<String> =
                        text.rsplitn(most.saturating_add(1), separator).map(str::to_owned).collect();
                    pieces.reverse();
                    pieces
                }
                None if name == "split" => split_at_space(text, most),
                None if most == usize::MAX => split_at_space(text, most),
                None => return Err(refusal("`rsplit` with a limit needs a separator")),
            };
            Value::from(pieces)
        }
        "splitlines" => nothing().map(|()| Value::from(lines(text)))?,
        "replace" => {
            let (old, new, most): (&str, &str, Option<i64>) = from_args(arguments)?;
            match most.and_then(|most| usize::try_from(most).ok()) {
                Some(most) => Value::from(text.replacen(old, new, most)),
                None => Value::from(text.replace(old, new)),
            }
        }
        "removeprefix" | "removesuffix" => {
            let (affix,): (&str,) = from_args(arguments)?;
            let cut =
                if name == "removeprefix" { text.strip_prefix(affix) } else { text.strip_suffix(affix) };
            Value::from(cut.unwrap_or(text))
        }
        "startswith" | "endswith" => {
            let (affix,): (Value,) = from_args(arguments)?;
            let affixes = match affix.as_str() {
                Some(affix) => vec![affix.to_owned()],
                None => affix.try_iter()?.map(text_of).collect::<Result<Vec<_>>>()?,
            };
            let at_start = name == "startswith";
            let has = |affix: &String| if at_start { text.starts_with(affix) } else { text.ends_with(affix) };
            Value::from(affixes.iter().any(has))
        }
        "find" | "rfind" | "index" | "rindex" => {
            let (wanted,): (&str,) = from_args(arguments)?;
            let at = if name.starts_with('r') { text.rfind(wanted) } else { text.find(wanted) };
            let index = at.and_then(|at| text.get(..at)).map(|before| before.chars().count());
            match index {
                Some(index) => Value::from(index),
                None if name.ends_with("find") => Value::from(-1),
                None => return Err(refusal("substring not found")),
            }
        }
        "count" => {
            let (wanted,): (&str,) = from_args(arguments)?;
            Value::from(text.matches(wanted).count())
        }
        "join" => {
            let (items,): (&Value,) = from_args(arguments)?;
            Value::from(items.try_iter()?.map(text_of).collect::<Result<Vec<String>>>()?.join(text))
        }
        _ => return Ok(None),
    }))
}

/// A value that has to be a string.
fn text_of(value: Value) -> Result<String> {
    match value.as_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(refusal(format!("a string is needed, not a {}", value.kind()))),
    }
}

/// `str.strip`, or one side of it: white space, or any of `characters`.
pub(super) fn stripped<'t>(text: &'t str, characters: Option<&str>, left: bool, right: bool) -> &'t str {
    let goes = |c: char| characters.map_or_else(|| is_space(c), |characters| characters.contains(c));
    let text = if left { text.trim_start_matches(goes) } else { text };
    if right { text.trim_end_matches(goes) } else { text }
}

/// `str.capitalize`: the first character in title case, the others in lower case.
pub(super) fn capitalized(text: &str) -> String {
    let Some(first) = text.chars().next() else { return String::new() };
    let lower = text.to_lowercase();
    let rest = lower.get(first.to_lowercase().map(char::len_utf8).sum()..).unwrap_or_default();
    // Title case is upper case, but of a ligature or digraph only the first letter is large.
    let mut upper = first.to_uppercase();
    let mut out: String = upper.next().into_iter().collect();
    out.extend(upper.flat_map(char::to_lowercase));
    let digraphs = ['ǅ', 'ǈ', 'ǋ', 'ǲ'];
    let title = digraphs.into_iter().find(|d| d.to_uppercase().eq(out.chars()) || *d == first);
    match title {
        Some(title) => format!("{title}{rest}"),
        None => out + rest,
    }
}

/// `str.split()`, at runs of white space; after `most` splits the rest stays whole, without white space
/// before it.
fn split_at_space(text: &str, most: usize) -> Vec<String> {
    let mut pieces = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() {
        let end = if pieces.len() < most { rest.find(is_space) } else { None };
        let (piece, after) = end.and_then(|end| rest.split_at_checked(end)).unwrap_or((rest, ""));
        pieces.push(piece.to_owned());
        rest = after.trim_start_matches(is_space);
    }
    pieces
}

/// `str.splitlines()`.
fn lines(text: &str) -> Vec<String> {
    let breaks = |c: char| {
        matches!(c, '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}')
    };
    let text = text.replace("\r\n", "\n");
    let mut lines: Vec<String> = text.split(breaks).map(str::to_owned).collect();
    if lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}
