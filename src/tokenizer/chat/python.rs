//! What Python does where the engine does something else: text of values, white space, slices, JSON, methods.

use minijinja::{
    Error, ErrorKind, State, Value,
    formatting::{FormatStyle, format},
    value::{Kwargs, Rest, Tuple, ValueKind, from_args},
};

use super::limits::{Budget, error, is_namespace};

/// `str(value)`, and nothing for what is undefined.
pub(super) fn text(value: &Value) -> String {
    match value.as_str() {
        Some(text) => text.to_owned(),
        None if value.is_undefined() => String::new(),
        None => float(value).map_or_else(|| value.to_string(), python_float),
    }
}

fn float(value: &Value) -> Option<f64> {
    (value.kind() == ValueKind::Number && !value.is_integer()).then(|| f64::try_from(value.clone()).ok())?
}

/// `repr(float)`: exponents from 16 digits on, and two digits in an exponent.
fn python_float(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let size = value.abs();
    if size != 0.0 && !(1e-4..1e16).contains(&size) {
        let shortest = format!("{value:e}");
        let (digits, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(exponent) => ('-', exponent),
            None => ('+', exponent),
        };
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    format!("{value:?}")
}

/// `str.isspace` of one character: Unicode's white space and the four separators of ASCII.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// `str.strip`, `lstrip` and `rstrip`.
pub(super) fn strip<'t>(text: &'t str, characters: Option<&str>, start: bool, end: bool) -> &'t str {
    let strips = |c: char| characters.map_or_else(|| is_space(c), |characters| characters.contains(c));
    let text = if start { text.trim_start_matches(strips) } else { text };
    if end { text.trim_end_matches(strips) } else { text }
}

/// Positions that `[start:stop:step]` of `length` items takes, as Python's `slice.indices`.
fn slice_positions(length: usize, bounds: [&Value; 3]) -> Result<impl Iterator<Item = usize>, Error> {
    let number = |value: &Value| match value {
        value if value.is_none() => Ok(None),
        value => value.as_i64().map(Some).ok_or_else(|| error("slice indices must be integers")),
    };
    let [start, stop, step] = bounds;
    let length = i64::try_from(length).map_err(|_| error("too long"))?;
    let step = number(step)?.unwrap_or(1);
    if step == 0 {
        return Err(error("slice step cannot be zero"));
    }
    let (low, high) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let bound = |value: Option<i64>, default: i64| match value {
        None => default,
        Some(at) if at < 0 => at.saturating_add(length).clamp(low, high),
        Some(at) => at.clamp(low, high),
    };
    let start = bound(number(start)?, if step > 0 { low } else { high });
    let stop = bound(number(stop)?, if step > 0 { high } else { low });
    let positions = std::iter::successors(Some(start), move |at| at.checked_add(step));
    Ok(positions
        .take_while(move |at| if step > 0 { *at < stop } else { *at > stop })
        .filter_map(|at| usize::try_from(at).ok()))
}

/// `value[start:stop:step]`; of what has no parts, undefined, as any item that is not there.
pub(super) fn slice(value: &Value, bounds: [&Value; 3]) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        let chars: Vec<char> = text.chars().collect();
        let taken = slice_positions(chars.len(), bounds)?.filter_map(|at| chars.get(at));
        return Ok(Value::from(taken.collect::<String>()));
    }
    if value.is_undefined() {
        return Err(Error::new(ErrorKind::UndefinedError, "a slice of a value that is not defined"));
    }
    if !matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
        return Ok(Value::UNDEFINED);
    }
    let items: Vec<Value> = value.try_iter()?.checked().collect::<Result<_, _>>()?;
    let taken: Vec<Value> =
        slice_positions(items.len(), bounds)?.filter_map(|at| items.get(at).cloned()).collect();
    Ok(if value.is_tuple() { Value::from(Tuple::from(taken)) } else { Value::from(taken) })
}

/// `base[key]` as Jinja's environment looks it up: what is not there is undefined, unless the base is.
pub(super) fn item(base: &Value, key: &Value) -> Result<Value, Error> {
    if base.is_undefined() {
        return Err(Error::new(ErrorKind::UndefinedError, "an item of a value that is not defined"));
    }
    let at = key.as_i64().filter(|_| key.is_integer() || matches!(key.kind(), ValueKind::Bool));
    if let (Some(text), Some(at)) = (base.as_str(), at) {
        let at = if at < 0 { at.saturating_add_unsigned(text.chars().count() as u64) } else { at };
        let found = usize::try_from(at).ok().and_then(|at| text.chars().nth(at));
        return Ok(found.map_or(Value::UNDEFINED, Value::from));
    }
    // A list cannot be a key; to look it up would walk through it.
    if key.as_object().is_some() && !key.is_tuple() {
        return Ok(Value::UNDEFINED);
    }
    Ok(base.get_item(key).unwrap_or(Value::UNDEFINED))
}

/// How `json.dumps` is to write.
struct Json {
    indent: Option<String>,
    ascii: bool,
    between: String,
    after_key: String,
    sorted: bool,
}

/// `json.dumps` with transformers' defaults: nothing of HTML is escaped, and letters are written as they are.
pub(super) fn to_json(value: &Value, positional: &Rest<Value>, named: &Kwargs) -> Result<String, Error> {
    let names = ["ensure_ascii", "indent", "separators", "sort_keys"];
    let argument = |index: usize| -> Result<Value, Error> {
        let name = names.get(index).copied().unwrap_or_default();
        let named: Option<Value> = named.get(name)?;
        Ok(named.or_else(|| positional.get(index).cloned()).unwrap_or_default())
    };
    let (ascii, indent, separators, sorted) = (argument(0)?, argument(1)?, argument(2)?, argument(3)?);
    named.assert_all_used()?;
    let indent = match indent.as_i64() {
        _ if indent.is_none() || indent.is_undefined() => None,
        Some(spaces) => Some(" ".repeat(usize::try_from(spaces.clamp(0, 1_000)).unwrap_or(0))),
        None => Some(indent.as_str().ok_or_else(|| error("tojson: indent is no number"))?.to_owned()),
    };
    let (between, after_key) = if separators.is_none() || separators.is_undefined() {
        (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned())
    } else {
        let pair: Vec<Value> = separators.try_iter()?.collect();
        let [between, after_key] = pair.as_slice() else { return Err(error("tojson: separators are two")) };
        (text(between), text(after_key))
    };
    let json = Json { indent, ascii: ascii.is_true(), between, after_key, sorted: sorted.is_true() };
    let mut out = String::new();
    json.write(value, 0, &mut out)?;
    Ok(out)
}

impl Json {
    fn write(&self, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => match float(value) {
                Some(number) if number.is_nan() => out.push_str("NaN"),
                Some(number) if number.is_infinite() => {
                    out.push_str(if number > 0.0 { "Infinity" } else { "-Infinity" });
                }
                _ => out.push_str(&text(value)),
            },
            ValueKind::String => self.string(value.as_str().unwrap_or_default(), out),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.checked().collect::<Result<_, _>>()?;
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    self.gap(index, depth + 1, out)?;
                    self.write(item, depth + 1, out)?;
                }
                self.close(items.is_empty(), depth, ']', out);
            }
            ValueKind::Map if !is_namespace(value) => {
                let mut pairs = Vec::new();
                for key in value.try_iter()?.checked() {
                    let key = key?;
                    pairs.push((Self::key(&key)?, value.get_item(&key)?));
                }
                if self.sorted {
                    pairs.sort_by(|a, b| a.0.cmp(&b.0));
                }
                out.push('{');
                for (index, (key, item)) in pairs.iter().enumerate() {
                    self.gap(index, depth + 1, out)?;
                    self.string(key, out);
                    out.push_str(&self.after_key);
                    self.write(item, depth + 1, out)?;
                }
                self.close(pairs.is_empty(), depth, '}', out);
            }
            other => return Err(error(format!("tojson: {other} is not JSON"))),
        }
        Ok(())
    }

    fn key(key: &Value) -> Result<String, Error> {
        match key.kind() {
            ValueKind::String | ValueKind::Number => Ok(text(key)),
            ValueKind::None => Ok("null".to_owned()),
            ValueKind::Bool => Ok(if key.is_true() { "true" } else { "false" }.to_owned()),
            other => Err(error(format!("tojson: {other} is no key"))),
        }
    }

    /// What stands before an item. What the template chose to put between items is asked for here, once for all
    /// of one item; the items themselves are no larger than six times what was measured.
    fn gap(&self, index: usize, depth: usize, out: &mut String) -> Result<(), Error> {
        let indent = self.indent.as_ref().map_or(0, |indent| indent.len().saturating_mul(depth));
        let chosen = self.between.len().saturating_add(self.after_key.len()).saturating_add(indent);
        if out.len().saturating_add(chosen) > super::limits::MAX_VALUE {
            return Err(error("a value larger than a prompt can be"));
        }
        if index > 0 {
            out.push_str(&self.between);
        }
        self.new_line(depth, out);
        Ok(())
    }

    fn new_line(&self, depth: usize, out: &mut String) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(indent.as_str(), depth));
        }
    }

    fn close(&self, empty: bool, depth: usize, bracket: char, out: &mut String) {
        if !empty {
            self.new_line(depth, out);
        }
        out.push(bracket);
    }

    fn string(&self, text: &str, out: &mut String) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if c < ' ' || (self.ascii && !c.is_ascii()) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

/// A method of a string, a dictionary or a list; what is not here is `minijinja-contrib`'s, or unknown.
pub(super) fn method(
    budget: &Budget,
    state: &mut State,
    value: &Value,
    name: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    let size = budget.measure(value)?.saturating_add(budget.measure_all(arguments)?);
    let own = match (value.kind(), value.as_str()) {
        (_, Some(text)) => string_method(budget, text, name, arguments, size)?,
        (ValueKind::Map, _) if name == "items" => {
            let () = from_args(arguments)?;
            let mut pairs = Vec::new();
            for key in value.try_iter()?.checked() {
                let key = key?;
                let item = value.get_item(&key)?;
                pairs.push(Value::from(Tuple::from([key, item])));
            }
            Some(Value::from(pairs))
        }
        _ => None,
    };
    let result = match own {
        Some(result) => result,
        None => minijinja_contrib::pycompat::unknown_method_callback(state, value, name, arguments)?,
    };
    budget.keep(result)
}

fn string_method(
    budget: &Budget,
    text: &str,
    name: &str,
    arguments: &[Value],
    size: usize,
) -> Result<Option<Value>, Error> {
    let list = |parts: Vec<&str>| Value::from(parts.into_iter().map(Value::from).collect::<Vec<_>>());
    Ok(Some(match name {
        "strip" | "lstrip" | "rstrip" => {
            let (characters,): (Option<&str>,) = from_args(arguments)?;
            Value::from(strip(text, characters, name != "rstrip", name != "lstrip"))
        }
        "split" | "rsplit" => {
            let (separator, most, named): (Option<Value>, Option<i64>, Kwargs) = from_args(arguments)?;
            let separator = named.get::<Option<Value>>("sep")?.or(separator).filter(|value| !value.is_none());
            let most = named.get::<Option<i64>>("maxsplit")?.or(most).unwrap_or(-1);
            named.assert_all_used()?;
            let most = usize::try_from(most).unwrap_or(usize::MAX);
            budget.allow(text.len().saturating_mul(16))?;
            list(split(text, separator.as_ref(), most, name == "rsplit")?)
        }
        "splitlines" => {
            let (keep, named): (Option<bool>, Kwargs) = from_args(arguments)?;
            let keep = named.get::<Option<bool>>("keepends")?.or(keep).unwrap_or(false);
            named.assert_all_used()?;
            list(split_lines(text, keep))
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(arguments)?;
            Value::from(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(arguments)?;
            Value::from(text.strip_suffix(suffix).unwrap_or(text))
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(arguments)?;
            if separator.is_empty() {
                return Err(error("empty separator"));
            }
            let from_right = name == "rpartition";
            let found = if from_right { text.rsplit_once(separator) } else { text.split_once(separator) };
            let parts = match found {
                Some((before, after)) => [before, separator, after],
                None if from_right => ["", "", text],
                None => [text, "", ""],
            };
            Value::from(Tuple::from(parts.map(Value::from)))
        }
        "replace" => {
            let (old, new, most): (&str, &str, Option<i64>) = from_args(arguments)?;
            replace(budget, text, old, new, most)?
        }
        "join" => {
            let (values,): (&Value,) = from_args(arguments)?;
            for value in values.try_iter()?.checked() {
                if value?.as_str().is_none() {
                    return Err(error("join: what is joined must be strings"));
                }
            }
            join(budget, text, values)?
        }
        "format" => {
            allow_format(budget, text, '{', size)?;
            Value::from(format(FormatStyle::StrFormat, text, arguments)?)
        }
        // The contrib crate counts and searches in the whole text only, as Python does with one argument.
        _ => return Ok(None),
    }))
}

fn split<'t>(
    text: &'t str,
    separator: Option<&Value>,
    most: usize,
    from_right: bool,
) -> Result<Vec<&'t str>, Error> {
    let mut parts = Vec::new();
    let Some(separator) = separator else {
        // What is left when enough is split off keeps its white space on the far side.
        let near = |text: &'t str| strip(text, None, !from_right, from_right);
        let mut rest = near(text);
        while !rest.is_empty() {
            let cut = if from_right { rest.rfind(is_space) } else { rest.find(is_space) };
            let Some((left, right)) =
                cut.filter(|_| parts.len() < most).and_then(|cut| rest.split_at_checked(cut))
            else {
                parts.push(rest);
                break;
            };
            let (part, remaining) = if from_right {
                let width = right.chars().next().map_or(0, char::len_utf8);
                (right.get(width..).unwrap_or_default(), left)
            } else {
                (left, right)
            };
            parts.push(part);
            rest = near(remaining);
        }
        if from_right {
            parts.reverse();
        }
        return Ok(parts);
    };
    let separator = separator.as_str().ok_or_else(|| error("the separator is no string"))?;
    if separator.is_empty() {
        return Err(error("empty separator"));
    }
    let pieces = most.saturating_add(1);
    if from_right {
        parts.extend(text.rsplitn(pieces, separator));
        parts.reverse();
    } else {
        parts.extend(text.splitn(pieces, separator));
    }
    Ok(parts)
}

/// `str.splitlines`: eleven line ends, `\r\n` being one.
fn split_lines(text: &str, keep: bool) -> Vec<&str> {
    let ends = |c: char| matches!(c, '\n'..='\r' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some((line, from_end)) = rest.find(ends).and_then(|at| rest.split_at_checked(at)) {
        let width = match from_end.chars().next() {
            Some('\r') if from_end.starts_with("\r\n") => 2,
            Some(c) => c.len_utf8(),
            None => break,
        };
        lines.push(if keep { rest.get(..line.len() + width).unwrap_or(line) } else { line });
        rest = from_end.get(width..).unwrap_or_default();
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}

/// `str.replace`.
pub(super) fn replace(
    budget: &Budget,
    text: &str,
    old: &str,
    new: &str,
    most: Option<i64>,
) -> Result<Value, Error> {
    let most = most.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
    let times = text.matches(old).count().min(most);
    budget.allow(times.saturating_mul(new.len()).saturating_add(text.len()))?;
    Ok(Value::from(text.replacen(old, new, times)))
}

/// `separator.join(values)`; what is no string is written as one, as Jinja's filter does.
pub(super) fn join(budget: &Budget, separator: &str, values: &Value) -> Result<Value, Error> {
    let mut out = String::new();
    for (index, value) in values.try_iter()?.checked().enumerate() {
        if index > 0 {
            budget.allow(out.len().saturating_add(separator.len()))?;
            out.push_str(separator);
        }
        let part = text(&value?);
        if out.len().saturating_add(part.len()) > super::limits::MAX_VALUE {
            return Err(error("a value larger than a prompt can be"));
        }
        budget.spend(part.len())?;
        out.push_str(&part);
    }
    Ok(Value::from(out))
}

/// Whether a pattern may be filled in: no wide paddings, and no result beyond the limit, `size` being that of the
/// pattern and all arguments together.
pub(super) fn allow_format(budget: &Budget, pattern: &str, mark: char, size: usize) -> Result<(), Error> {
    let mut places = 1_usize;
    for place in pattern.split(mark).skip(1) {
        places = places.saturating_add(1);
        let settings = match mark {
            '{' => place.split('}').next().unwrap_or(place),
            _ => place.split(|c: char| !"#0123456789-+ .*".contains(c)).next().unwrap_or(place),
        };
        let wide = settings.split(|c: char| !c.is_ascii_digit()).any(|digits| digits.len() > 3);
        if wide || settings.contains('*') {
            return Err(error("a format with wide padding is not supported"));
        }
    }
    // `{:{width}}`: a width that is an argument.
    if mark == '{' && pattern.replace("{{", "").split('{').skip(1).any(|place| !place.contains('}')) {
        return Err(error("a format within a format is not supported"));
    }
    budget.allow(places.saturating_mul(size.saturating_add(1_000)))
}

/// Jinja's `indent`: `by` before every line but the first, and before empty ones only if asked.
pub(super) fn indent(text: &str, by: &str, first: bool, blank: bool) -> String {
    // Jinja appends a line end first, so that a last empty line counts as one.
    let text = format!("{text}\n");
    let mut out = String::new();
    let lines = split_lines(&text, false);
    for (index, line) in lines.iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        let indented = if index == 0 { first } else { blank || !line.is_empty() };
        if indented {
            out.push_str(by);
        }
        out.push_str(line);
    }
    out
}

/// Jinja's `int`: what cannot be read as a number is `default`.
pub(super) fn to_int(value: &Value, default: Value, base: u32) -> Value {
    let Some(text) = value.as_str() else {
        let whole = value.as_i64().filter(|_| value.is_integer() || value.kind() == ValueKind::Bool);
        return match (whole, float(value)) {
            (Some(whole), _) => Value::from(whole),
            (None, Some(number)) => whole_part(number).unwrap_or(default),
            _ => default,
        };
    };
    let text = strip(text, None, true, true);
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let digits = match base {
        2 => lower.strip_prefix("0b").unwrap_or(&lower),
        8 => lower.strip_prefix("0o").unwrap_or(&lower),
        16 => lower.strip_prefix("0x").unwrap_or(&lower),
        _ => &lower,
    };
    let plain = digits.starts_with(|c: char| c.is_ascii_alphanumeric());
    let whole = i64::from_str_radix(&format!("{sign}{digits}"), base.clamp(2, 36)).ok().filter(|_| plain);
    let real = || real_text(text).and_then(whole_part);
    whole.map(Value::from).or_else(real).unwrap_or(default)
}

/// Jinja's `float`.
pub(super) fn to_float(value: &Value, default: Value) -> Value {
    let number = match value.as_str() {
        Some(text) => real_text(strip(text, None, true, true)),
        None => float(value).or_else(|| {
            let whole = value.is_integer() || value.kind() == ValueKind::Bool;
            i64::try_from(value.clone()).ok().filter(|_| whole).map(|number| number as f64)
        }),
    };
    number.map_or(default, Value::from)
}

fn real_text(text: &str) -> Option<f64> {
    text.parse().ok()
}

fn whole_part(number: f64) -> Option<Value> {
    let whole = number.trunc();
    (whole.abs() < 9e18).then_some(whole as i64).map(Value::from)
}
