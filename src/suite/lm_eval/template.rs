//! Jinja templates as lm-evaluation-harness renders them: strict about what is undefined, a last line break
//! kept, values printed as Python prints them, Python's methods of strings, lists and dictionaries.
//!
//! Filters and tests are offered where they were compared with Jinja 3.1; the others are unknown, so that a
//! template which needs them is refused and not rendered differently.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{
    Environment, Error as JinjaError, ErrorKind, UndefinedBehavior, filters, functions, tests as jinja,
};
use serde_json::Value as Json;

use super::literal::{repr_float, repr_text};
use super::methods;
use crate::suite::score::{Pattern, Replacement, is_space};

/// Instructions of one rendering, far beyond what an honest template needs.
const MOST_STEPS: u64 = 2_000_000;

type Result<T> = std::result::Result<T, JinjaError>;

/// Compiled templates, by name.
pub(super) struct Templates {
    environment: Environment<'static>,
}

impl Templates {
    /// None yet.
    pub(super) fn new() -> Self {
        let mut environment = Environment::empty();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        // Building fails only where delimiters are empty or alike; these are the default ones.
        if let Ok(syntax) = SyntaxConfig::builder().keep_trailing_newline(true).build() {
            environment.set_syntax(syntax);
        }
        environment.set_fuel(Some(MOST_STEPS));
        environment.set_recursion_limit(100);
        environment
            .set_unknown_method_callback(|_, value, name, arguments| methods::call(value, name, arguments));
        environment.set_formatter(|out, _, value| {
            let text = printed(value)?;
            out.write_str(&text).map_err(JinjaError::from)
        });
        add_filters(&mut environment);
        add_tests(&mut environment);
        environment.add_function("range", functions::range);
        environment.add_function("dict", functions::dict);
        environment.add_function("namespace", functions::namespace);
        Self { environment }
    }

    /// Compiles `source` under `name`; otherwise says what is wrong with it.
    pub(super) fn add(&mut self, name: &str, source: &str) -> std::result::Result<(), String> {
        self.environment.add_template_owned(name.to_owned(), source.to_owned()).map_err(|e| explained(&e))
    }

    /// The template called `name` with the fields of a record (see [`value_of`]); otherwise what is wrong.
    pub(super) fn render(&self, name: &str, record: &Value) -> std::result::Result<String, String> {
        let template = self.environment.get_template(name).map_err(|e| explained(&e))?;
        template.render(record).map_err(|e| explained(&e))
    }
}

/// The engine's message, on one line.
fn explained(error: &JinjaError) -> String {
    let kind = error.kind().to_string();
    let detail = match error.detail() {
        Some(detail) => format!("{kind}: {detail}"),
        None => kind,
    };
    match error.line() {
        Some(line) if line > 1 => format!("{detail} (line {line} of the template)"),
        _ => detail,
    }
}

/// A record for templates.
pub(super) fn value_of(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(yes) => Value::from(*yes),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(integer), _) => Value::from(integer),
            (None, Some(integer)) => Value::from(integer),
            (None, None) => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => Value::from(items.iter().map(value_of).collect::<Vec<_>>()),
        Json::Object(pairs) => {
            Value::from_pairs(pairs.iter().map(|(key, value)| (key.as_str(), value_of(value))))
        }
    }
}

/// `str(value)` of Python.
pub(super) fn printed(value: &Value) -> Result<String> {
    match value.as_str() {
        Some(text) => Ok(text.to_owned()),
        None => represented(value),
    }
}

/// `str(value)` of Python, of anything but an undefined value.
fn defined(value: &Value) -> Result<String> {
    if value.is_undefined() { Err(JinjaError::from(ErrorKind::UndefinedError)) } else { printed(value) }
}

/// `repr(value)` of Python.
fn represented(value: &Value) -> Result<String> {
    let all = |value: &Value| value.try_iter()?.map(|item| represented(&item)).collect::<Result<Vec<_>>>();
    match value.kind() {
        // The printed default of an `if` without `else`; a strict lookup fails before it comes here.
        ValueKind::Undefined => Ok(String::new()),
        ValueKind::None | ValueKind::Bool => Ok(value.to_string()),
        ValueKind::Number if value.is_integer() => Ok(value.to_string()),
        ValueKind::Number => Ok(f64::try_from(value.clone()).map_or_else(|_| value.to_string(), repr_float)),
        ValueKind::String => Ok(repr_text(value.as_str().unwrap_or_default())),
        // What a slice or a sum of lists gives is an iterator to the engine, and a list to Python.
        ValueKind::Seq | ValueKind::Iterable => {
            let items = all(value)?;
            // The engine prints a tuple in parentheses, but has no other sign of one.
            Ok(match (value.to_string().starts_with('('), items.as_slice()) {
                (false, items) => format!("[{}]", items.join(", ")),
                (true, [only]) => format!("({only},)"),
                (true, items) => format!("({})", items.join(", ")),
            })
        }
        ValueKind::Map => {
            let mut pairs = Vec::new();
            for key in value.try_iter()? {
                pairs.push(format!("{}: {}", represented(&key)?, represented(&value.get_item(&key)?)?));
            }
            Ok(format!("{{{}}}", pairs.join(", ")))
        }
        other => Err(refusal(format!("a value of the kind `{other}` cannot be printed as Python prints it"))),
    }
}

/// An error of this module.
pub(super) fn refusal(problem: impl Into<String>) -> JinjaError {
    JinjaError::new(ErrorKind::InvalidOperation, problem.into())
}

fn add_filters(environment: &mut Environment<'static>) {
    environment.add_filter("abs", filters::abs);
    environment.add_filter("attr", filters::attr);
    environment.add_filter("batch", filters::batch);
    environment.add_filter("count", filters::length);
    environment.add_filter("d", filters::default);
    environment.add_filter("default", filters::default);
    environment.add_filter("first", filters::first);
    environment.add_filter("groupby", filters::groupby);
    environment.add_filter("items", filters::items);
    environment.add_filter("last", filters::last);
    environment.add_filter("length", filters::length);
    environment.add_filter("list", filters::list);
    environment.add_filter("map", filters::map);
    environment.add_filter("max", filters::max);
    environment.add_filter("min", filters::min);
    environment.add_filter("reject", filters::reject);
    environment.add_filter("rejectattr", filters::rejectattr);
    environment.add_filter("reverse", filters::reverse);
    environment.add_filter("select", filters::select);
    environment.add_filter("selectattr", filters::selectattr);
    environment.add_filter("sort", filters::sort);
    environment.add_filter("sum", filters::sum);
    environment.add_filter("unique", filters::unique);
    environment.add_filter("capitalize", |value: &Value| Ok(methods::capitalized(&defined(value)?)));
    environment.add_filter("lower", |value: &Value| Ok(defined(value)?.to_lowercase()));
    environment.add_filter("upper", |value: &Value| Ok(defined(value)?.to_uppercase()));
    environment.add_filter("string", defined);
    environment.add_filter("trim", |value: &Value, characters: Option<&str>| {
        Ok(methods::stripped(&defined(value)?, characters, true, true).to_owned())
    });
    environment.add_filter("int", integer);
    environment.add_filter("join", join);
    environment.add_filter("replace", replace);
    environment.add_filter("regex_replace", regex_replace);
}

fn add_tests(environment: &mut Environment<'static>) {
    for name in ["eq", "equalto", "=="] {
        environment.add_test(name, jinja::is_eq);
    }
    for name in ["ne", "!="] {
        environment.add_test(name, jinja::is_ne);
    }
    for name in ["lt", "lessthan", "<"] {
        environment.add_test(name, jinja::is_lt);
    }
    for name in ["gt", "greaterthan", ">"] {
        environment.add_test(name, jinja::is_gt);
    }
    for name in ["le", "<="] {
        environment.add_test(name, jinja::is_le);
    }
    for name in ["ge", ">="] {
        environment.add_test(name, jinja::is_ge);
    }
    environment.add_test("boolean", jinja::is_boolean);
    environment.add_test("defined", jinja::is_defined);
    environment.add_test("divisibleby", jinja::is_divisibleby);
    environment.add_test("even", jinja::is_even);
    environment.add_test("false", jinja::is_false);
    environment.add_test("float", jinja::is_float);
    environment.add_test("in", jinja::is_in);
    environment.add_test("integer", jinja::is_integer);
    environment.add_test("mapping", jinja::is_mapping);
    environment.add_test("none", jinja::is_none);
    environment.add_test("number", jinja::is_number);
    environment.add_test("odd", jinja::is_odd);
    environment.add_test("string", jinja::is_string);
    environment.add_test("true", jinja::is_true);
    environment.add_test("undefined", jinja::is_undefined);
}

/// Jinja's `int`: what cannot be read as a number is the default.
fn integer(value: &Value, default: Option<Value>, options: Kwargs) -> Result<Value> {
    let default = match default {
        Some(default) => default,
        None => options.get::<Option<Value>>("default")?.unwrap_or_else(|| Value::from(0)),
    };
    options.assert_all_used()?;
    if value.is_undefined() {
        return Err(JinjaError::from(ErrorKind::UndefinedError));
    }
    if let Some(text) = value.as_str() {
        let text = text.trim_matches(is_space);
        let whole = text.parse::<i64>().ok();
        let cut =
            || text.parse::<f64>().ok().filter(|number| number.abs() < 9e15).map(|number| number as i64);
        return Ok(whole.or_else(cut).map_or(default, Value::from));
    }
    match value.kind() {
        ValueKind::Bool => Ok(Value::from(i64::from(value.is_true()))),
        ValueKind::Number if value.is_integer() => Ok(value.clone()),
        ValueKind::Number => {
            let number = f64::try_from(value.clone())?;
            Ok(if number.abs() < 9e15 { Value::from(number as i64) } else { default })
        }
        _ => Ok(default),
    }
}

/// Jinja's `join`, of a list's items or of one attribute of each.
fn join(value: &Value, delimiter: Option<String>, options: Kwargs) -> Result<String> {
    let delimiter = match delimiter {
        Some(delimiter) => delimiter,
        None => options.get::<Option<String>>("d")?.unwrap_or_default(),
    };
    let attribute: Option<String> = options.get("attribute")?;
    options.assert_all_used()?;
    if value.is_none() {
        return Err(refusal("`none` cannot be joined"));
    }
    let mut out = String::new();
    for (index, item) in value.try_iter()?.enumerate() {
        if index > 0 {
            out.push_str(&delimiter);
        }
        let item = match &attribute {
            Some(name) => item.get_attr(name)?,
            None => item,
        };
        out.push_str(&defined(&item)?);
    }
    Ok(out)
}

/// Jinja's `replace`.
fn replace(value: &Value, old: &Value, new: &Value, count: Option<usize>) -> Result<String> {
    let (text, old, new) = (defined(value)?, defined(old)?, defined(new)?);
    Ok(match count {
        Some(count) => text.replacen(&old, &new, count),
        None => text.replace(&old, &new),
    })
}

/// The harness's own filter: Python's `re.sub`.
fn regex_replace(
    text: String,
    pattern: String,
    replacement: String,
    count: Option<usize>,
    options: Kwargs,
) -> Result<String> {
    let count = match count {
        Some(count) => count,
        None => options.get::<Option<usize>>("count")?.unwrap_or(0),
    };
    options.assert_all_used()?;
    let compiled =
        Pattern::new(&pattern).map_err(|reason| refusal(format!("the pattern `{pattern}` {reason}")))?;
    let replacement = Replacement::new(&replacement).map_err(refusal)?;
    compiled.replace(&text, &replacement, count).map_err(refusal)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a template makes of [`RECORD`].
    fn rendered(source: &str) -> std::result::Result<String, String> {
        let record: Json = serde_json::from_str(super::super::jinja_facts::RECORD).unwrap();
        let mut templates = Templates::new();
        templates.add("t", source)?;
        templates.render("t", &value_of(&record))
    }

    #[test]
    fn templates_render_as_in_python() {
        let mut wrong = Vec::new();
        for (source, expect) in super::super::jinja_facts::RENDERED {
            let found = rendered(source);
            if found.as_deref() != Ok(*expect) {
                wrong.push(format!("{source:?}: {found:?} and not {expect:?}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn what_python_refuses_is_refused() {
        for source in super::super::jinja_facts::REFUSED {
            assert!(rendered(source).is_err(), "{source:?} became {:?}", rendered(source));
        }
    }

    #[test]
    fn what_would_differ_is_refused() {
        for source in [
            "{{ text|title }}",
            "{{ half|round }}",
            "{{ list|tojson }}",
            "{{ list|pprint }}",
            "{{ text is sequence }}",
            "{{ text.swapcase() }}",
            "{{ text.encode() }}",
            "{{ '%s' % text }}",
            "{% include 'x' %}",
        ] {
            assert!(rendered(source).is_err(), "{source:?} became {:?}", rendered(source));
        }
    }

    #[test]
    fn a_template_without_end_is_stopped() {
        let endless = "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}\
                       {% endfor %}{% endfor %}{% endfor %}";
        assert!(rendered(endless).unwrap_err().contains("fuel"), "{:?}", rendered(endless));
        let deep = format!("{}1{}", "{{ (".to_owned() + &"[".repeat(5000), "]".repeat(5000) + ") }}");
        assert!(rendered(&deep).is_err());
    }

    #[test]
    fn messages_say_what_and_where() {
        assert_eq!(rendered("a\n{{ nothing }}"), Err("undefined value (line 2 of the template)".to_owned()));
        let unknown = rendered("{{ text|nope }}").unwrap_err();
        assert!(unknown.contains("nope"), "{unknown}");
        assert!(rendered("{{ text").unwrap_err().contains("syntax error"));
        let pattern = rendered("{{ text|regex_replace('(', '') }}").unwrap_err();
        assert!(pattern.contains("the pattern `(` lacks a `)`"), "{pattern}");
    }
}
