//! A check in words: the figure, what is shown of it, what was asked, and what would decide it.

use super::metric::Metric;
use super::policy::Limit;
use super::{Check, Outcome};
use crate::format::{bytes, count, number, plain};

/// Digits of a figure.
const DIGITS: usize = 4;
/// Decibels above which no error is left to speak of.
const EQUAL_DB: f64 = 1e6;

/// One or two sentences; empty for nothing but an outcome.
pub(super) fn message(check: &Check) -> String {
    let mut text = match (check.metric, check.limit, check.value) {
        (Some(metric), Some(limit), Some(value)) => figure(check, metric, limit, value),
        _ => String::new(),
    };
    if let Some(reason) = &check.reason {
        if !text.is_empty() {
            text += "; ";
        }
        text += reason;
    }
    if let (Outcome::Inconclusive, Some(needed), Some(samples)) =
        (check.outcome, check.samples_needed, check.samples)
    {
        let what =
            if check.metric.is_some_and(|metric| metric.unit() == "nats") { "tokens" } else { "samples" };
        let more = needed.saturating_sub(samples);
        text += &format!(
            "; about {} more {what} would decide it if the figure stays as it is (this run has {})",
            count(rounded_up(more)),
            count(samples)
        );
    } else if check.outcome == Outcome::Inconclusive && check.value.is_some() {
        text += "; the figure lies too near the limit for any sample to decide";
    }
    text
}

/// Two significant digits, upwards: a guess should look like one.
fn rounded_up(n: u64) -> u64 {
    let unit = 10u64.pow(n.checked_ilog10().unwrap_or(0).saturating_sub(1));
    n.div_ceil(unit).saturating_mul(unit)
}

fn figure(check: &Check, metric: Metric, limit: Limit, value: f64) -> String {
    let show = |x: f64| shown(metric, limit, x, |x| number(x, DIGITS));
    let asked = |x: f64| shown(metric, limit, x, plain);
    let (name, asked) = match limit {
        Limit::Margin(margin) => {
            let of = if check.against_previous { "than before" } else { "than base" };
            (format!("{} worse {of} by", metric.name()), format!("less than {}", asked(margin)))
        }
        Limit::Max(most) => (metric.name().to_owned(), format!("at most {}", asked(most))),
        Limit::Min(least) => (metric.name().to_owned(), format!("at least {}", asked(least))),
        Limit::MaxNoiseFloors(factor) => {
            let name = format!("{} above {} noise floors:", metric.name(), plain(factor));
            (name, "at most 0".to_owned())
        }
    };
    // Of a pass the bound that shows it, else both; what is exact has none.
    let at_most = |upper: f64| format!("at most {}", show(upper));
    let at_least = |lower: f64| format!("at least {}", show(lower));
    let is_exact = check.lower == Some(value) && check.upper == Some(value);
    let upper_shows = !matches!(limit, Limit::Min(_));
    let shown = match (check.outcome, check.lower, check.upper) {
        _ if is_exact => String::new(),
        (Outcome::Pass, _, Some(upper)) if upper_shows => format!(", shown {}", at_most(upper)),
        (Outcome::Pass, Some(lower), _) if !upper_shows => format!(", shown {}", at_least(lower)),
        (Outcome::Fail, Some(lower), _) if upper_shows => format!(", shown {}", at_least(lower)),
        (Outcome::Fail, _, Some(upper)) if !upper_shows => format!(", shown {}", at_most(upper)),
        (_, lower, upper) => {
            let end = |end: Option<f64>| end.map_or_else(|| "?".to_owned(), show);
            format!(", between {} and {}", end(lower), end(upper))
        }
    };
    format!("{name} {}{shown}; asked {asked}", show(value))
}

/// A figure in its unit: shares in per cent.
fn shown(metric: Metric, limit: Limit, x: f64, number: impl Fn(f64) -> String) -> String {
    let is_ratio_itself = metric == Metric::PplRatio && !matches!(limit, Limit::Margin(_));
    match metric.unit() {
        "" if is_ratio_itself => number(x),
        "" => format!("{} %", number(x * 100.0)),
        "bytes" if x >= 0.0 => bytes(x as u64),
        "dB" if x > EQUAL_DB => "no error at all".to_owned(),
        unit => format!("{} {unit}", number(x)),
    }
}
