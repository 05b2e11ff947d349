//! How a number or a foreign text looks to a reader: in the terminal, in HTML and in charts alike.
//!
//! An estimate is shown with as many digits as its interval supports: two significant digits of the
//! larger half of the interval, and the value cut at the same place. Without an interval it gets four
//! significant digits. Exactly zero is "0" and nothing else is; what is not a number says so.
//! It must not know HTML, charts, tables or a policy.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::stats::Estimate;

/// Significant digits where no interval says how many are meant.
const DIGITS: usize = 4;
/// A half width below this share of the value is rounding, not a sampling error.
const ROUNDING: f64 = 1e-12;

/// A value and its interval, free of units: what is left of an [`Estimate`] once it is to be shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// The point estimate.
    pub value: f64,
    /// Lower end of the interval; alone, a one-sided bound.
    pub lower: Option<f64>,
    /// Upper end of the interval, likewise.
    pub upper: Option<f64>,
}

impl From<&Estimate> for Figure {
    fn from(estimate: &Estimate) -> Self {
        let finite = |end: Option<f64>| end.filter(|end| end.is_finite());
        Figure { value: estimate.value, lower: finite(estimate.lower), upper: finite(estimate.upper) }
    }
}

impl Figure {
    /// A proportion in percent.
    pub fn percent(estimate: &Estimate) -> Self {
        Figure::from(estimate).scaled(100.0, 0.0)
    }

    /// A ratio as its distance from 1, in percent: 1.02 becomes 2.
    pub fn percent_change(estimate: &Estimate) -> Self {
        Figure::from(estimate).scaled(100.0, -100.0)
    }

    /// What is left of `whole`: agreement of 97 % becomes disagreement of 3 %.
    #[must_use]
    pub fn rest_of(self, whole: f64) -> Self {
        let map = |x: f64| whole - x;
        Figure { value: map(self.value), lower: self.upper.map(map), upper: self.lower.map(map) }
    }

    /// `factor`·x + `offset`, for a positive factor.
    fn scaled(self, factor: f64, offset: f64) -> Self {
        let map = |x: f64| x * factor + offset;
        Figure { value: map(self.value), lower: self.lower.map(map), upper: self.upper.map(map) }
    }

    /// The ends of the interval, the value itself where there is none.
    pub fn ends(&self) -> (f64, f64) {
        (self.lower.unwrap_or(self.value), self.upper.unwrap_or(self.value))
    }

    /// Whether there is a bound on either side.
    pub fn has_interval(&self) -> bool {
        self.lower.or(self.upper).is_some()
    }

    /// "0.0324 [0.0312, 0.0336]" with spaces that do not break, "100 [≥ 99.97]" for a one-sided bound,
    /// or the value alone.
    pub fn with_interval(&self) -> String {
        self.parts(false).concat()
    }

    /// As [`Figure::with_interval`], every number with its sign: for changes.
    pub fn signed_with_interval(&self) -> String {
        self.parts(true).concat()
    }

    /// The value, and its interval with a space before it (or nothing).
    pub fn parts(&self, signed: bool) -> [String; 2] {
        let text = |x: f64| self.at_its_precision(x, signed);
        let interval = match (self.lower.map(text), self.upper.map(text)) {
            (Some(lower), Some(upper)) => format!("\u{a0}[{lower},\u{a0}{upper}]"),
            (Some(lower), None) => format!("\u{a0}[≥\u{a0}{lower}]"),
            (None, Some(upper)) => format!("\u{a0}[≤\u{a0}{upper}]"),
            (None, None) => String::new(),
        };
        [text(self.value), interval]
    }

    /// "0.0324 ±0.0012", the larger half of the interval; the value alone without a width.
    pub fn plus_minus(&self, signed: bool) -> String {
        let [value, _] = self.parts(signed);
        match (self.lower, self.upper, self.half_width()) {
            (Some(_), Some(_), Some(half)) if half > self.value.abs() * ROUNDING => {
                format!("{value}\u{a0}±{}", self.at_its_precision(half, false))
            }
            _ => value,
        }
    }

    /// The value alone, with the digits that the interval supports.
    pub fn alone(&self) -> String {
        self.at_its_precision(self.value, false)
    }

    /// The value alone with its sign.
    pub fn signed(&self) -> String {
        self.at_its_precision(self.value, true)
    }

    /// The larger distance from the value to an end of its interval.
    fn half_width(&self) -> Option<f64> {
        let (lower, upper) = self.ends();
        self.has_interval().then(|| (self.value - lower).max(upper - self.value))
    }

    /// `x` cut where this figure's own digits end, so that a value and its interval line up.
    fn at_its_precision(&self, x: f64, signed: bool) -> String {
        let digits = match self.half_width() {
            // An interval as narrow as rounding supports no digit more than none does.
            Some(half)
                if half > self.value.abs() * ROUNDING && half.is_finite() && self.value.is_finite() =>
            {
                let last = exponent(half) - 1;
                let (lower, upper) = self.ends();
                let largest = self.value.abs().max(lower.abs()).max(upper.abs());
                return sign(x, signed) + &cut(x.abs(), last, is_extreme(largest));
            }
            _ => DIGITS,
        };
        sign(x, signed) + &number(x.abs(), digits)
    }
}

/// `x` with `digits` significant digits: "0.0324", "1.23e−5", "0", "not a number".
pub fn number(x: f64, digits: usize) -> String {
    if x == 0.0 || !x.is_finite() {
        return sign(x, false) + &cut(x.abs(), 0, false);
    }
    let last = exponent_after_rounding(x, digits) - digits as i32 + 1;
    sign(x, false) + &cut(x.abs(), last, is_extreme(x))
}

/// A bound or a tick: as short as it is, to six decimals.
pub fn plain(x: f64) -> String {
    let text = format!("{x:.6}");
    match text.trim_end_matches('0').trim_end_matches('.') {
        "-0" | "" => "0".to_owned(),
        short => short.replace('-', "−"),
    }
}

/// Decimal units: "2.25 MB", "512 B".
pub fn bytes(bytes: u64) -> String {
    const UNITS: [(f64, &str); 4] = [(1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    let exact = bytes as f64;
    // 999,999 bytes are "1.00 MB", not "1000 kB": a unit begins where three digits round up to it.
    match UNITS.iter().find(|(unit, _)| exact >= unit * 0.9995) {
        Some((unit, name)) => format!("{} {name}", number(exact / unit, 3)),
        None => format!("{bytes} B"),
    }
}

/// A count with thousands separated: "10,200".
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// "1 token", "10,200 tokens".
pub fn counted(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(n), if n == 1 { "" } else { "s" })
}

/// "A", "A and B", "A, B and C".
pub fn listed<S: AsRef<str>>(items: &[S]) -> String {
    match items {
        [] => String::new(),
        [only] => only.as_ref().to_owned(),
        [first @ .., last] => {
            let first: Vec<&str> = first.iter().map(AsRef::as_ref).collect();
            format!("{} and {}", first.join(", "), last.as_ref())
        }
    }
}

/// Foreign text on one line and without power over the reader's terminal or page: control characters
/// and invisible direction marks become visible signs. Joiners stay: Persian and emoji need them.
pub fn visible(text: &str) -> String {
    text.chars().map(visible_char).collect()
}

/// `text` cut in the middle to at most `columns` terminal columns: both ends of a label tell models apart.
pub fn shortened(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    // Files of one model differ at their ends: the tail gets the larger part.
    let room = columns.saturating_sub(1);
    let head = take_columns(text.chars(), room / 3);
    let tail: Vec<char> = take_columns(text.chars().rev(), room - room / 3);
    head.into_iter().chain((columns > 0).then_some('…')).chain(tail.into_iter().rev()).collect()
}

fn take_columns(chars: impl Iterator<Item = char>, columns: usize) -> Vec<char> {
    let mut used = 0;
    chars
        .take_while(|c| {
            used += c.width().unwrap_or(0);
            used <= columns
        })
        .collect()
}

fn visible_char(c: char) -> char {
    match c {
        '\n' => '⏎',
        '\t' => '⇥',
        '\u{7f}' => '␡',
        c if (c as u32) < 0x20 => char::from_u32(0x2400 + c as u32).unwrap_or('\u{fffd}'),
        '\u{80}'..='\u{9f}' | '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' => {
            '\u{fffd}'
        }
        '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{fffe}' | '\u{ffff}' => {
            '\u{fffd}'
        }
        c => c,
    }
}

fn sign(x: f64, always: bool) -> String {
    match x {
        x if x < 0.0 => "−".to_owned(),
        x if x > 0.0 && always => "+".to_owned(),
        _ => String::new(),
    }
}

/// Whether plain decimals would be mostly zeros.
fn is_extreme(x: f64) -> bool {
    let x = x.abs();
    x != 0.0 && !(1e-3..1e7).contains(&x)
}

/// `x` ≥ 0 rounded at 10^`last`, in plain or scientific notation.
fn cut(x: f64, last: i32, scientific: bool) -> String {
    if x.is_nan() {
        return "not a number".to_owned();
    }
    if x.is_infinite() {
        return "∞".to_owned();
    }
    if x == 0.0 {
        return "0".to_owned();
    }
    if scientific {
        let kept = (exponent(x) - last + 1).clamp(1, 17) as usize;
        let decimals = (exponent_after_rounding(x, kept) - last).clamp(0, 16) as usize;
        return format!("{x:.decimals$e}").replace('-', "−");
    }
    format!("{x:.*}", last.min(0).unsigned_abs() as usize)
}

/// ⌊log10 |x|⌋, taken from the decimal digits themselves, so that 1000 is 3 and not 2.999….
fn exponent(x: f64) -> i32 {
    exponent_after_rounding(x, 17)
}

fn exponent_after_rounding(x: f64, digits: usize) -> i32 {
    let text = format!("{x:.*e}", digits.saturating_sub(1));
    text.split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(value: f64, lower: f64, upper: f64) -> Figure {
        Figure { value, lower: Some(lower), upper: Some(upper) }
    }

    /// The text with ordinary spaces.
    fn spaced(text: String) -> String {
        text.replace('\u{a0}', " ")
    }

    #[test]
    fn digits_follow_the_interval() {
        assert_eq!(spaced(figure(0.032393, 0.031201, 0.033588).with_interval()), "0.0324 [0.0312, 0.0336]");
        assert_eq!(
            spaced(figure(4.4845e-5, 4.41e-5, 4.56e-5).with_interval()),
            "4.485e−5 [4.410e−5, 4.560e−5]"
        );
        assert_eq!(spaced(figure(0.82058, 0.81, 0.831).with_interval()), "0.821 [0.810, 0.831]");
        assert_eq!(spaced(figure(46.4788, 31.0, 62.0).with_interval()), "46 [31, 62]");
        assert_eq!(spaced(figure(1234.5, 1000.0, 1500.0).with_interval()), "1234 [1000, 1500]");
        assert_eq!(spaced(figure(-0.5, -1.4, 0.4).signed_with_interval()), "−0.50 [−1.40, +0.40]");
    }

    #[test]
    fn a_figure_without_an_interval_has_four_digits() {
        let alone = Figure { value: 0.032393421, lower: None, upper: None };
        assert_eq!(alone.with_interval(), "0.03239");
        assert_eq!(alone.plus_minus(false), "0.03239");
        assert_eq!(spaced(figure(0.5, 0.5, 0.5).plus_minus(false)), "0.5000");
    }

    #[test]
    fn an_interval_of_rounding_makes_no_digits() {
        let constant = figure(1.0 + 4e-16, 1.0 - 4e-16, 1.0 + 9e-16);
        assert_eq!(spaced(constant.with_interval()), "1.000 [1.000, 1.000]");
        assert_eq!(spaced(constant.plus_minus(false)), "1.000");
        assert_eq!(spaced(figure(0.0, -1e-16, 1e-16).with_interval()), "0 [−1.00e−16, 1.00e−16]");
    }

    #[test]
    fn disagreement_is_what_agreement_leaves() {
        let rest = figure(97.0, 96.0, 97.5).rest_of(100.0);
        assert_eq!((rest.value, rest.lower, rest.upper), (3.0, Some(2.5), Some(4.0)));
    }

    #[test]
    fn a_bound_on_one_side_says_which() {
        let all = Figure { value: 100.0, lower: Some(99.97), upper: None };
        assert_eq!(spaced(all.with_interval()), "100.000 [≥ 99.970]");
        assert_eq!(all.plus_minus(false), "100.000");
        let none = Figure { value: 0.0, lower: None, upper: Some(0.03) };
        assert_eq!(spaced(none.with_interval()), "0 [≤ 0.030]");
    }

    #[test]
    fn plus_minus_takes_the_larger_half() {
        assert_eq!(spaced(figure(2.91, 2.70, 3.20).plus_minus(true)), "+2.91 ±0.29");
        assert_eq!(spaced(figure(0.0, -0.3, 0.1).plus_minus(true)), "0 ±0.30");
    }

    #[test]
    fn zero_is_zero_and_nothing_else_is() {
        assert_eq!(number(0.0, 3), "0");
        assert_eq!(number(-0.0, 3), "0");
        assert_eq!(number(1e-300, 3), "1.00e−300");
        assert_eq!(spaced(figure(0.0, 0.0, 0.0).with_interval()), "0 [0, 0]");
    }

    #[test]
    fn what_is_not_a_number_says_so() {
        assert_eq!(number(f64::NAN, 3), "not a number");
        assert_eq!(number(f64::INFINITY, 3), "∞");
        assert_eq!(number(f64::NEG_INFINITY, 3), "−∞");
        assert_eq!(spaced(figure(f64::NAN, 0.0, 1.0).with_interval()), "not a number [0, 1.000]");
    }

    #[test]
    fn numbers_round_into_the_next_decade() {
        assert_eq!(number(9.996, 3), "10.0");
        assert_eq!(number(0.0009999, 3), "1.00e−3");
        assert_eq!(number(1000.0, 4), "1000");
        assert_eq!(number(12_345_678.0, 3), "1.23e7");
    }

    #[test]
    fn bounds_are_as_short_as_they_are() {
        let texts = [0.0, -0.0, 0.1 + 0.2, -0.25, 20.0, 100.0, 1e-9].map(plain);
        assert_eq!(texts, ["0", "0", "0.3", "−0.25", "20", "100", "0"]);
    }

    #[test]
    fn sizes_are_decimal() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(2_254_784), "2.25 MB");
        assert_eq!(bytes(999_999), "1.00 MB");
        assert_eq!(bytes(140_000_000_000), "140 GB");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(counted(1, "task"), "1 task");
        assert_eq!(listed(&["a", "b", "c"]), "a, b and c");
    }

    #[test]
    fn foreign_text_has_no_power() {
        assert_eq!(visible("a\u{1b}[31mb\n\u{202e}c\u{0}"), "a␛[31mb⏎\u{fffd}c␀");
        assert_eq!(shortened("Meta-Llama-3.1-8B-Instruct-Q4_K_M", 11), "Met…-Q4_K_M");
        assert_eq!(shortened("short", 11), "short");
        assert_eq!(shortened("量子化量子化量子化", 7), "量…子化");
        assert_eq!(shortened("anything", 0), "");
    }
}
