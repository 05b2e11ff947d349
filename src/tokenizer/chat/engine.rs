//! The template engine, set up as transformers sets up Jinja, and nothing of it that can grow without being asked.

use std::sync::Arc;

use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, State, UndefinedBehavior, Value, filters, functions,
    machinery::{self, Instructions},
    syntax::SyntaxConfig,
    tests,
    value::{Kwargs, Rest, ValueKind, ValueOrKwargs},
};

use super::{
    date::Date,
    limits::{self, Budget, error},
    operators::{self, Comparison, compare, percent_format},
    python, scan,
};

/// Why nothing came out.
#[derive(Debug)]
pub(super) struct Failure {
    /// Line in the template, from 1, where known.
    pub(super) line: Option<usize>,
    /// What the template said to `raise_exception`, or what is wrong with it.
    pub(super) reason: String,
    /// Whether the template refused by `raise_exception`.
    pub(super) refused: bool,
}

/// The words that a template gave to `raise_exception`.
#[derive(Debug)]
struct Refused(String);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let mut cause: Option<&dyn std::error::Error> = Some(&error);
        while let Some(next) = cause {
            if let Some(Refused(words)) = next.downcast_ref() {
                return Self { line: error.line(), reason: words.clone(), refused: true };
            }
            cause = next.source();
        }
        let reason = match (error.kind(), error.detail()) {
            (ErrorKind::OutOfFuel, _) => "more steps than a prompt can need".to_owned(),
            (ErrorKind::InvalidOperation | ErrorKind::SyntaxError, Some(detail)) => detail.to_owned(),
            (kind, Some(detail)) => format!("{kind}: {detail}"),
            (kind, None) => kind.to_string(),
        };
        Self { line: error.line(), reason, refused: false }
    }
}

/// A template that the engine has read.
#[derive(Debug)]
pub(super) struct Compiled {
    source: String,
}

impl Compiled {
    /// Reads a template.
    pub(super) fn new(source: &str) -> Result<Self, Failure> {
        let source = scan::prepare(source).map_err(|(line, reason)| Failure {
            line: Some(line),
            reason: reason.to_owned(),
            refused: false,
        })?;
        let compiled = Self { source };
        let environment = compiled.environment(&Arc::new(Budget::new(0)), Date::FIXED)?;
        compiled.program(&environment)?;
        Ok(compiled)
    }

    /// Renders it with the variables of `context`, of which the conversation has so many bytes.
    pub(super) fn render(&self, context: Value, conversation: usize, date: Date) -> Result<String, Failure> {
        let environment = self.environment(&Arc::new(Budget::new(conversation)), date)?;
        let program = self.program(&environment)?;
        let blocks = std::collections::BTreeMap::new();
        let mut text = String::new();
        let mut out = machinery::make_string_output(&mut text);
        machinery::eval(&environment, &program, context, &blocks, &mut out, AutoEscape::None)?;
        Ok(text)
    }

    fn environment(&self, budget: &Arc<Budget>, date: Date) -> Result<Environment<'_>, Failure> {
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
        let mut environment = Environment::empty();
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_fuel(Some(limits::MAX_STEPS));
        environment.set_recursion_limit(limits::MAX_RECURSION);
        environment.set_syntax(syntax);
        let b = budget.clone();
        let printed = std::sync::atomic::AtomicUsize::new(0);
        environment.set_formatter(move |out, _, value| {
            let size = b.measure(value)?;
            // Every value counts for a little, so that printing nothing is not free.
            let before = printed.fetch_add(size, std::sync::atomic::Ordering::Relaxed);
            if before > limits::MAX_VALUE {
                return Err(error("more text than a prompt can be"));
            }
            match value.as_str() {
                Some(text) => out.write_str(text),
                None => out.write_str(&python::text(value)),
            }
            .map_err(Error::from)
        });
        let b = budget.clone();
        environment.set_unknown_method_callback(move |state, value, method, arguments| {
            python::method(&b, state, value, method, arguments)
        });
        operators::add_operators(&mut environment, budget);
        add_functions(&mut environment, budget, date);
        add_filters(&mut environment, budget);
        add_tests(&mut environment, budget);
        Ok(environment)
    }

    fn program<'e>(&'e self, environment: &'e Environment<'e>) -> Result<Instructions<'e>, Failure> {
        let template = environment.template_from_str(&self.source)?;
        limits::bounded(&machinery::get_compiled_template(&template).instructions)
            .map_err(|(line, error)| Failure { line, ..error.into() })
    }
}

fn add_functions(environment: &mut Environment<'_>, budget: &Arc<Budget>, date: Date) {
    environment.add_global(scan::ONE, Value::from(1));
    environment.add_function("raise_exception", |words: Value| -> Result<Value, Error> {
        let words = python::text(&words);
        Err(error(words.clone()).with_source(Refused(words)))
    });
    environment.add_function("strftime_now", move |pattern: &str| {
        if pattern.len() > 1_000 {
            return Err(error("a long format for a date"));
        }
        date.format(pattern)
            .map_err(|directive| error(format!("strftime_now: `{directive}` is not supported")))
    });
    for (name, function) in [
        ("range", Value::from_function(functions::range)),
        ("dict", Value::from_function(functions::dict)),
        ("namespace", Value::from_function(functions::namespace)),
    ] {
        let b = budget.clone();
        environment.add_function(name, move |state: &mut State, arguments: Arguments| {
            let arguments = arguments.into_values();
            b.measure_all(&arguments)?;
            b.keep(function.call(state, &arguments)?)
        });
    }
}

/// All arguments as they are, named ones together as the last.
type Arguments = Rest<ValueOrKwargs>;

/// Jinja's filters. Those of the engine are called with measured arguments, and their results are measured; those
/// that could make much of little are written anew.
fn add_filters(environment: &mut Environment<'_>, budget: &Arc<Budget>) {
    let engine = [
        ("abs", Value::from_function(filters::abs)),
        ("dictsort", Value::from_function(filters::dictsort)),
        ("e", Value::from_function(filters::escape)),
        ("escape", Value::from_function(filters::escape)),
        ("groupby", Value::from_function(filters::groupby)),
        ("items", Value::from_function(filters::items)),
        ("map", Value::from_function(filters::map)),
        ("max", Value::from_function(filters::max)),
        ("min", Value::from_function(filters::min)),
        ("reject", Value::from_function(filters::reject)),
        ("rejectattr", Value::from_function(filters::rejectattr)),
        ("reverse", Value::from_function(filters::reverse)),
        ("round", Value::from_function(filters::round)),
        ("select", Value::from_function(filters::select)),
        ("selectattr", Value::from_function(filters::selectattr)),
        ("sort", Value::from_function(filters::sort)),
        ("title", Value::from_function(filters::title)),
        ("unique", Value::from_function(filters::unique)),
    ];
    for (name, filter) in engine {
        let b = budget.clone();
        let picks = matches!(name, "map" | "select" | "selectattr" | "reject" | "rejectattr");
        // Sorting compares a value with about as many others as it has bits in its index.
        let passes = if matches!(name, "sort" | "dictsort" | "groupby" | "unique") { 20 } else { 1 };
        environment.add_filter(name, move |state: &mut State, arguments: Arguments| {
            let arguments = arguments.into_values();
            let size = b.measure_all(&arguments)?;
            b.spend(size.saturating_mul(passes))?;
            // Jinja does not look into what counts as false, `none` included.
            if picks && arguments.first().is_some_and(|value| !value.is_true()) {
                return Ok(Value::from(Vec::<Value>::new()));
            }
            b.keep(filter.call(state, &arguments)?)
        });
    }
    add_text_filters(environment, budget);
    let b = budget.clone();
    let length = move |value: Value| match value.as_str() {
        Some(text) => b.spend(text.len()).map(|()| text.chars().count()),
        None if value.is_undefined() => Ok(0),
        None => value.len().ok_or_else(|| error(format!("{} has no length", value.kind()))),
    };
    environment.add_filter("length", length.clone());
    environment.add_filter("count", length);
    let b = budget.clone();
    environment.add_filter("list", move |value: Value| {
        let size = b.measure(&value)?;
        if let Some(text) = value.as_str() {
            b.allow(size.saturating_mul(32))?;
            return Ok(text.chars().map(Value::from).collect());
        }
        if value.is_undefined() {
            return Ok(Value::from(Vec::<Value>::new()));
        }
        let items: Vec<Value> = value.try_iter()?.checked().collect::<Result<_, _>>()?;
        Ok::<_, Error>(Value::from(items))
    });
    let b = budget.clone();
    environment.add_filter(
        "sum",
        move |value: Value, attribute: Option<String>, start: Option<Value>, named: Kwargs| {
            let attribute = named.get::<Option<String>>("attribute")?.or(attribute);
            let mut sum = named.get::<Option<Value>>("start")?.or(start).unwrap_or_else(|| Value::from(0));
            named.assert_all_used()?;
            for item in value.try_iter()?.checked() {
                let item = item?;
                sum = operators::add(
                    &b,
                    &sum,
                    &attribute.as_ref().map_or(Ok(item.clone()), |name| item.get_attr(name))?,
                )?;
            }
            Ok::<_, Error>(sum)
        },
    );
    add_choosing_filters(environment, budget);
    let b = budget.clone();
    environment.add_filter("tojson", move |value: Value, positional: Rest<Value>, named: Kwargs| {
        // An escaped character has up to six bytes.
        b.allow(b.measure(&value)?.saturating_mul(6))?;
        let json = python::to_json(&value, &positional, &named)?;
        b.allow(json.len())?;
        Ok::<_, Error>(json)
    });
}

/// Filters that give one value, or another in its place.
fn add_choosing_filters(environment: &mut Environment<'_>, budget: &Arc<Budget>) {
    let default = |value: Value, other: Option<Value>, boolean: Option<Value>, named: Kwargs| {
        let other = named.get::<Option<Value>>("default_value")?.or(other).unwrap_or_else(|| Value::from(""));
        let boolean = named.get::<Option<Value>>("boolean")?.or(boolean).is_some_and(|value| value.is_true());
        named.assert_all_used()?;
        Ok::<_, Error>(if value.is_undefined() || (boolean && !value.is_true()) { other } else { value })
    };
    environment.add_filter("default", default);
    environment.add_filter("d", default);
    environment.add_filter("int", |value: Value, other: Option<Value>, base: Option<u32>, named: Kwargs| {
        let other = named.get::<Option<Value>>("default")?.or(other).unwrap_or_else(|| Value::from(0));
        let base = named.get::<Option<u32>>("base")?.or(base).unwrap_or(10);
        named.assert_all_used()?;
        Ok::<_, Error>(python::to_int(&value, other, base))
    });
    environment.add_filter("float", |value: Value, other: Option<Value>, named: Kwargs| {
        let other = named.get::<Option<Value>>("default")?.or(other).unwrap_or_else(|| Value::from(0.0));
        named.assert_all_used()?;
        Ok::<_, Error>(python::to_float(&value, other))
    });
    for (name, last) in [("first", false), ("last", true)] {
        let b = budget.clone();
        environment.add_filter(name, move |value: Value| {
            b.measure(&value)?;
            if let Some(text) = value.as_str() {
                let found = if last { text.chars().next_back() } else { text.chars().next() };
                return Ok(found.map_or(Value::UNDEFINED, Value::from));
            }
            if value.is_undefined() {
                return Ok(Value::UNDEFINED);
            }
            let mut items = value.try_iter()?;
            let found = if last { items.last() } else { items.next() };
            Ok::<_, Error>(found.unwrap_or(Value::UNDEFINED))
        });
    }
}

fn add_text_filters(environment: &mut Environment<'_>, budget: &Arc<Budget>) {
    let mut add = |name: &'static str, filter: fn(&str) -> String| {
        let b = budget.clone();
        environment.add_filter(name, move |value: Value| {
            b.allow(b.measure(&value)?)?;
            Ok::<_, Error>(Value::from(filter(&python::text(&value))))
        });
    };
    add("string", str::to_owned);
    add("safe", str::to_owned);
    add("lower", str::to_lowercase);
    add("upper", str::to_uppercase);
    add("capitalize", |text| {
        let mut chars = text.chars();
        let first: String = chars.next().into_iter().flat_map(char::to_uppercase).collect();
        first + &chars.as_str().to_lowercase()
    });
    let b = budget.clone();
    environment.add_filter("trim", move |value: Value, characters: Option<&str>| {
        b.allow(b.measure(&value)?)?;
        Ok::<_, Error>(Value::from(python::strip(&python::text(&value), characters, true, true)))
    });
    let b = budget.clone();
    environment.add_filter("replace", move |value: Value, old: &str, new: &str, most: Option<i64>| {
        b.measure(&value)?;
        python::replace(&b, &python::text(&value), old, new, most)
    });
    let b = budget.clone();
    environment.add_filter(
        "join",
        move |values: Value, separator: Option<Value>, attribute: Option<&str>, named: Kwargs| {
            b.measure(&values)?;
            let separator = named.get::<Option<Value>>("d")?.or(separator).unwrap_or_default();
            let attribute = named.get::<Option<String>>("attribute")?.or(attribute.map(str::to_owned));
            named.assert_all_used()?;
            let separator = if separator.is_undefined() { String::new() } else { python::text(&separator) };
            match attribute {
                None if values.is_undefined() => Ok(Value::from("")),
                None => python::join(&b, &separator, &values),
                Some(name) => {
                    let parts: Vec<Value> =
                        values.try_iter()?.map(|item| item.get_attr(&name)).collect::<Result<_, _>>()?;
                    python::join(&b, &separator, &Value::from(parts))
                }
            }
        },
    );
    let b = budget.clone();
    environment.add_filter(
        "indent",
        move |value: Value, width: Option<Value>, first: Option<bool>, blank: Option<bool>, named: Kwargs| {
            b.measure(&value)?;
            let width = named.get::<Option<Value>>("width")?.or(width).unwrap_or_else(|| Value::from(4));
            let first = named.get::<Option<bool>>("first")?.or(first).unwrap_or(false);
            let blank = named.get::<Option<bool>>("blank")?.or(blank).unwrap_or(false);
            named.assert_all_used()?;
            let by = match width.as_i64() {
                Some(width) => " ".repeat(usize::try_from(width.clamp(0, 1_000)).unwrap_or(0)),
                None => python::text(&width),
            };
            let text = python::text(&value);
            b.allow(text.matches('\n').count().saturating_add(1).saturating_mul(by.len()))?;
            Ok::<_, Error>(python::indent(&text, &by, first, blank))
        },
    );
    let b = budget.clone();
    environment.add_filter("format", move |pattern: &str, arguments: Rest<Value>| {
        percent_format(&b, pattern, &arguments)
    });
}

fn add_tests(environment: &mut Environment<'_>, budget: &Arc<Budget>) {
    let engine = [
        ("defined", Value::from_function(tests::is_defined)),
        ("undefined", Value::from_function(tests::is_undefined)),
        ("none", Value::from_function(tests::is_none)),
        ("boolean", Value::from_function(tests::is_boolean)),
        ("true", Value::from_function(tests::is_true)),
        ("false", Value::from_function(tests::is_false)),
        ("integer", Value::from_function(tests::is_integer)),
        ("float", Value::from_function(tests::is_float)),
        ("string", Value::from_function(tests::is_string)),
        ("mapping", Value::from_function(tests::is_mapping)),
        ("odd", Value::from_function(tests::is_odd)),
        ("even", Value::from_function(tests::is_even)),
        ("divisibleby", Value::from_function(tests::is_divisibleby)),
        ("lower", Value::from_function(tests::is_lower)),
        ("upper", Value::from_function(tests::is_upper)),
        ("sameas", Value::from_function(tests::is_sameas)),
    ];
    for (name, test) in engine {
        let b = budget.clone();
        environment.add_test(name, move |state: &mut State, arguments: Arguments| {
            let arguments = arguments.into_values();
            b.spend(arguments.first().and_then(Value::as_str).map_or(1, str::len).saturating_mul(4))?;
            test.call(state, &arguments).map(|holds| holds.is_true())
        });
    }
    environment.add_test("callable", |value: Value| {
        let is_macro = value.as_object().is_some_and(|object| object.type_name().ends_with("::Macro"));
        is_macro || value.kind() == ValueKind::Plain
    });
    // In Python a truth value is a number, and a string can be iterated.
    environment
        .add_test("number", |value: Value| matches!(value.kind(), ValueKind::Number | ValueKind::Bool));
    let iterable = |value: Value| {
        matches!(
            value.kind(),
            ValueKind::String | ValueKind::Seq | ValueKind::Map | ValueKind::Iterable | ValueKind::Undefined
        )
    };
    environment.add_test("iterable", iterable);
    environment.add_test("sequence", iterable);
    let comparisons: [(Comparison, &[&'static str]); 7] = [
        (Comparison::Eq, &["eq", "equalto", "=="]),
        (Comparison::Ne, &["ne", "!="]),
        (Comparison::Lt, &["lt", "lessthan", "<"]),
        (Comparison::Le, &["le", "<="]),
        (Comparison::Gt, &["gt", "greaterthan", ">"]),
        (Comparison::Ge, &["ge", ">="]),
        (Comparison::In, &["in"]),
    ];
    for (kind, names) in comparisons {
        for name in names {
            let b = budget.clone();
            environment.add_test(*name, move |left: Value, right: Value| compare(&b, kind, &left, &right));
        }
    }
}
