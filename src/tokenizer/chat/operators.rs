//! The operators of the template language, as Python has them, each measured before it makes anything. They take the
//! place of the engine's instructions; see `limits.rs`.

use std::sync::Arc;

use minijinja::{
    Environment, Error, Value,
    value::{Rest, Tuple, ValueKind},
};

use super::{
    limits::{self, Budget, error, name},
    python,
};

/// Makes them known under the names that the rewritten program calls.
pub(super) fn add_operators(environment: &mut Environment<'_>, budget: &Arc<Budget>) {
    let b = budget.clone();
    environment.add_function(name::ADD, move |left: Value, right: Value| add(&b, &left, &right));
    let b = budget.clone();
    environment.add_function(name::MUL, move |left: Value, right: Value| multiply(&b, &left, &right));
    let b = budget.clone();
    environment.add_function(name::REM, move |left: Value, right: Value| remainder(&b, &left, &right));
    let b = budget.clone();
    environment.add_function(name::CONCAT, move |left: Value, right: Value| {
        b.allow(b.measure(&left)?.saturating_add(b.measure(&right)?))?;
        Ok::<_, Error>(Value::from(python::text(&left) + &python::text(&right)))
    });
    let b = budget.clone();
    environment.add_function(name::SLICE, move |value: Value, start: Value, stop: Value, step: Value| {
        // A string is taken apart into characters of four bytes.
        b.spend(b.measure(&value)?.saturating_mul(4))?;
        python::slice(&value, [&start, &stop, &step])
    });
    let b = budget.clone();
    environment.add_function(name::ITEM, move |base: Value, key: Value| {
        b.spend(base.as_str().map_or(1, str::len).saturating_mul(4))?;
        python::item(&base, &key)
    });
    let b = budget.clone();
    environment.add_function(name::ITERATE, move |value: Value| match (value.kind(), value.as_str()) {
        (_, Some(text)) => {
            b.allow(b.measure(&value)?.saturating_mul(32))?;
            Ok(text.chars().map(Value::from).collect())
        }
        (ValueKind::None | ValueKind::Number | ValueKind::Bool, _) => {
            Err(error(format!("{} is no list", value.kind())))
        }
        _ => Ok(value),
    });
    let b = budget.clone();
    environment.add_function(name::LIST, move |items: Rest<Value>| b.keep(Value::from(items.to_vec())));
    let b = budget.clone();
    environment.add_function(name::TUPLE, move |items: Rest<Value>| {
        b.keep(Value::from(Tuple::from(items.to_vec())))
    });
    let b = budget.clone();
    environment.add_function(name::MAP, move |items: Rest<Value>| {
        let pairs = items.as_chunks::<2>().0;
        if pairs.iter().any(|[key, _]| key.as_object().is_some() && !key.is_tuple()) {
            return Err(error("a list cannot be a key"));
        }
        b.measure_all(&items)?;
        b.keep(Value::from_pairs(pairs.iter().map(|[key, item]| (key.clone(), item.clone()))))
    });
    let b = budget.clone();
    environment.add_function(name::HOLD, move |value: Value| {
        if limits::is_namespace(&value) {
            return Err(error("a namespace inside another value is not supported"));
        }
        b.measure(&value)?;
        Ok(value)
    });
    for (kind, (compare_name, chain_name)) in
        Comparison::ALL.into_iter().zip(name::COMPARE.into_iter().zip(name::CHAIN))
    {
        let b = budget.clone();
        environment.add_function(compare_name, move |left: Value, right: Value| {
            compare(&b, kind, &left, &right).map(Value::from)
        });
        let b = budget.clone();
        environment.add_function(chain_name, move |left: Value, right: Value| {
            let holds = compare(&b, kind, &left, &right)?;
            Ok::<_, Error>(Value::from(Tuple::from([Value::from(holds), right])))
        });
    }
}

/// In the order of the engine's `CompareOp`, and of the names in `limits.rs`.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Comparison {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    In,
    NotIn,
}

impl Comparison {
    const ALL: [Self; 8] =
        [Self::Eq, Self::Ne, Self::Lt, Self::Le, Self::Gt, Self::Ge, Self::In, Self::NotIn];
}

/// `left == right` and the like.
pub(super) fn compare(budget: &Budget, kind: Comparison, left: &Value, right: &Value) -> Result<bool, Error> {
    use Comparison as C;
    budget.measure(left)?;
    budget.measure(right)?;
    Ok(match kind {
        C::Eq => left == right,
        C::Ne => left != right,
        C::In => contains(right, left)?,
        C::NotIn => !contains(right, left)?,
        C::Lt | C::Le | C::Gt | C::Ge => {
            let number = |value: &Value| matches!(value.kind(), ValueKind::Number | ValueKind::Bool);
            let comparable = (number(left) && number(right))
                || (left.kind() == right.kind()
                    && matches!(left.kind(), ValueKind::String | ValueKind::Seq)
                    && left.is_tuple() == right.is_tuple());
            if !comparable {
                let (left, right) = (left.kind(), right.kind());
                return Err(error(format!("{left} and {right} have no order")));
            }
            match kind {
                C::Lt => left < right,
                C::Le => left <= right,
                C::Gt => left > right,
                _ => left >= right,
            }
        }
    })
}

fn contains(container: &Value, value: &Value) -> Result<bool, Error> {
    match (container.kind(), container.as_str()) {
        (ValueKind::Undefined, _) => Ok(false),
        (_, Some(text)) => match value.as_str() {
            Some(part) => Ok(text.contains(part)),
            None => Err(error(format!("{} cannot be in a string", value.kind()))),
        },
        (ValueKind::Seq | ValueKind::Iterable, _) => Ok(container.try_iter()?.any(|item| item == *value)),
        (ValueKind::Map, _) => {
            let hashable = value.as_object().is_none() || value.is_tuple();
            Ok(hashable && container.as_object().is_some_and(|map| map.get_value(value).is_some()))
        }
        (kind, _) => Err(error(format!("nothing can be in {kind}"))),
    }
}

/// A sum or product of numbers.
fn arithmetic(
    left: &Value,
    right: &Value,
    whole: fn(i64, i64) -> Option<i64>,
    real: fn(f64, f64) -> f64,
) -> Option<Value> {
    let number = |value: &Value| matches!(value.kind(), ValueKind::Number | ValueKind::Bool);
    if !number(left) || !number(right) {
        return None;
    }
    let is_whole = |value: &Value| value.is_integer() || value.kind() == ValueKind::Bool;
    if is_whole(left) && is_whole(right) {
        return whole(i64::try_from(left.clone()).ok()?, i64::try_from(right.clone()).ok()?).map(Value::from);
    }
    let as_real = |value: &Value| {
        f64::try_from(value.clone()).ok().or_else(|| i64::try_from(value.clone()).ok().map(|n| n as f64))
    };
    Some(Value::from(real(as_real(left)?, as_real(right)?)))
}

fn unsupported(sign: char, left: &Value, right: &Value) -> Error {
    error(format!("`{sign}` does not go with {} and {}", left.kind(), right.kind()))
}

fn is_list(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable)
}

/// `left + right`.
pub(super) fn add(budget: &Budget, left: &Value, right: &Value) -> Result<Value, Error> {
    if let Some(sum) = arithmetic(left, right, i64::checked_add, |a, b| a + b) {
        return Ok(sum);
    }
    budget.allow(budget.measure(left)?.saturating_add(budget.measure(right)?))?;
    if let (Some(left), Some(right)) = (left.as_str(), right.as_str()) {
        return Ok(Value::from([left, right].concat()));
    }
    if !is_list(left) || !is_list(right) || left.is_tuple() != right.is_tuple() {
        return Err(unsupported('+', left, right));
    }
    let items: Vec<Value> =
        left.try_iter()?.checked().chain(right.try_iter()?.checked()).collect::<Result<_, _>>()?;
    Ok(if left.is_tuple() { Value::from(Tuple::from(items)) } else { Value::from(items) })
}

/// `left * right`.
fn multiply(budget: &Budget, left: &Value, right: &Value) -> Result<Value, Error> {
    if let Some(product) = arithmetic(left, right, i64::checked_mul, |a, b| a * b) {
        return Ok(product);
    }
    let (value, times) = if left.as_i64().is_some() { (right, left) } else { (left, right) };
    let whole = times.is_integer() || times.kind() == ValueKind::Bool;
    let times = times.as_i64().filter(|_| whole).ok_or_else(|| unsupported('*', left, right))?;
    let times = usize::try_from(times.max(0)).unwrap_or(usize::MAX);
    if let Some(text) = value.as_str() {
        budget.allow(text.len().saturating_mul(times))?;
        return Ok(Value::from(text.repeat(times)));
    }
    if !is_list(value) {
        return Err(unsupported('*', left, right));
    }
    budget.allow(budget.measure(value)?.saturating_mul(times))?;
    let items: Vec<Value> = value.try_iter()?.checked().collect::<Result<_, _>>()?;
    let many: Vec<Value> = std::iter::repeat_n(items, times).flatten().collect();
    Ok(if value.is_tuple() { Value::from(Tuple::from(many)) } else { Value::from(many) })
}

/// `left % right`: the remainder with the divisor's sign, or Python's old formatting.
fn remainder(budget: &Budget, left: &Value, right: &Value) -> Result<Value, Error> {
    if let Some(pattern) = left.as_str() {
        let arguments: Vec<Value> =
            if right.is_tuple() { right.try_iter()?.collect() } else { vec![right.clone()] };
        return percent_format(budget, pattern, &arguments);
    }
    let floor_remainder = |a: i64, b: i64| {
        let remainder = a.checked_rem(b)?;
        if remainder != 0 && (remainder < 0) != (b < 0) { remainder.checked_add(b) } else { Some(remainder) }
    };
    arithmetic(left, right, floor_remainder, |a, b| a - b * (a / b).floor())
        .filter(|value| f64::try_from(value.clone()).map_or(true, f64::is_finite))
        .ok_or_else(|| unsupported('%', left, right))
}

/// `pattern % arguments`.
pub(super) fn percent_format(budget: &Budget, pattern: &str, arguments: &[Value]) -> Result<Value, Error> {
    let size = pattern.len().saturating_add(budget.measure_all(arguments)?);
    python::allow_format(budget, pattern, '%', size)?;
    minijinja::formatting::format(minijinja::formatting::FormatStyle::Printf, pattern, arguments)
        .map(Value::from)
}
