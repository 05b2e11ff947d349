//! Answers of MATH: where they stand in a solution, and when two are the same.
//!
//! The rules are those of the benchmark's authors (`math_equivalence.py`, hendrycks/math), as
//! lm-evaluation-harness 0.4.13 applies them in `lm_eval/tasks/hendrycks_math`: a normal form of the LaTeX,
//! not mathematics. Knows nothing of records.

/// What the comparison of answers ignores as far as patterns can say it: a part of [`normalized`].
pub(super) const IGNORED: &[&str] =
    &[r"\\text\{ (?s:.*)$", r"\\!", r"\\left", r"\\right", r"\^\{?\\circ\}?", r"\\\$", r"\\%", r"\s+"];

/// The answer in a worked solution: the content of its last `\boxed{…}` (or `\fbox{…}`); after `\boxed ` all
/// up to the next `$`. `None` where there is no such thing, or its braces do not close.
pub fn boxed_answer(solution: &str) -> Option<&str> {
    if let Some((_, rest)) = solution.rsplit_once(r"\boxed ") {
        return rest.split('$').next();
    }
    let start = solution.rfind(r"\boxed").or_else(|| solution.rfind(r"\fbox"))?;
    let boxed = solution.get(start..)?;
    let open = boxed.find('{')?;
    let mut depth = 0usize;
    for (index, byte) in boxed.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => depth = depth.checked_sub(1)?,
            _ => continue,
        }
        if depth == 0 {
            return boxed.get(open + 1..index);
        }
    }
    None
}

/// Whether two answers count as the same: equal normal forms; or, where one has none, equal texts.
pub fn equivalent(a: &str, b: &str) -> bool {
    match (normalized(a), normalized(b)) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

/// The normal form of an answer: no spaces, units, degrees, percent and dollar signs, `\left`, `\right`; all
/// fractions `\frac{a}{b}`, also of two integers `a/b`; `\sqrt{a}`; a zero before a leading point; what
/// follows the sign of `x=…`. `None` where the authors' rules fail on it.
pub fn normalized(answer: &str) -> Option<String> {
    let mut text = answer.replace('\n', "").replace(r"\!", "").replace(r"\\", r"\");
    text = text.replace("tfrac", "frac").replace("dfrac", "frac");
    for nothing in [r"\left", r"\right", r"^{\circ}", r"^\circ", r"\$"] {
        text = text.replace(nothing, "");
    }
    if let Some((quantity, unit)) = text.split_once(r"\text{ ") {
        if unit.contains(r"\text{ ") {
            return None;
        }
        text = quantity.to_owned();
    }
    text = text.replace(r"\%", "").replace(" .", " 0.").replace("{.", "{0.");
    if text.starts_with('.') {
        text.insert(0, '0');
    }
    if let Some((name, value)) = text.split_once('=')
        && !value.contains('=')
        && name.chars().count() <= 2
    {
        text = value.to_owned();
    }
    text = with_braces(&text, r"\sqrt", 1)?.replace(' ', "");
    text = with_braces(&text, r"\frac", 2)?;
    if text == "0.5" {
        text = r"\frac{1}{2}".to_owned();
    }
    integer_fraction(text)
}

/// Puts braces around the one or two arguments of a command where it has them without: `\frac12` becomes
/// `\frac{1}{2}`. `None` where nothing follows the command; a fraction of which only one character is left
/// stays as it is, and so does all of the text.
fn with_braces(text: &str, command: &str, arguments: usize) -> Option<String> {
    let mut parts = text.split(command);
    let mut braced = parts.next()?.to_owned();
    for part in parts {
        braced.push_str(command);
        let mut rest = part.chars();
        let first = rest.next()?;
        if first == '{' {
            braced.push_str(part);
            continue;
        }
        if arguments == 1 {
            braced.push_str(&format!("{{{first}}}{}", rest.as_str()));
            continue;
        }
        match rest.next() {
            None => return Some(text.to_owned()),
            Some('{') => braced.push_str(&format!("{{{first}}}{{{}", rest.as_str())),
            Some(second) => braced.push_str(&format!("{{{first}}}{{{second}}}{}", rest.as_str())),
        }
    }
    Some(braced)
}

/// `a/b` of two integers as a fraction; other texts with one slash have no normal form, unless Python's `int`
/// takes both sides in another spelling (`+3`, `03`), which stay.
fn integer_fraction(text: String) -> Option<String> {
    let Some((a, b)) = text.split_once('/').filter(|(_, b)| !b.contains('/')) else {
        return Some(text);
    };
    let digits = |side: &str| side.trim_start_matches(['+', '-']).to_owned();
    let is_integer = |side: &str| {
        let digits = digits(side);
        side.len() - digits.len() <= 1
            && digits.split('_').all(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()))
    };
    let is_canonical = |side: &str| {
        let digits = digits(side);
        !side.starts_with('+')
            && side != "-0"
            && !digits.contains('_')
            && (digits == "0" || !digits.starts_with('0'))
    };
    match (is_integer(a) && is_integer(b), is_canonical(a) && is_canonical(b)) {
        (true, true) => Some(format!(r"\frac{{{a}}}{{{b}}}")),
        (true, false) => Some(text),
        (false, _) => None,
    }
}

/// The right answer in the spellings that a comparison by [`IGNORED`] patterns would otherwise not know to be
/// the same: first as it is, then the normal form, its fractions set as `\dfrac`, `\tfrac` and without
/// braces, and fractions of integers as `a/b`.
pub(super) fn spellings(answer: &str) -> Vec<String> {
    let mut spellings = vec![answer.to_owned()];
    let mut add = |text: String| {
        if !spellings.contains(&text) {
            spellings.push(text);
        }
    };
    let Some(normal) = normalized(answer) else { return spellings };
    add(normal.clone());
    if normal.contains(r"\frac") {
        add(normal.replace(r"\frac", r"\dfrac"));
        add(normal.replace(r"\frac", r"\tfrac"));
    }
    let integers = normal.strip_prefix(r"\frac{").and_then(|rest| rest.strip_suffix('}')).and_then(|rest| {
        let (a, b) = rest.split_once("}{")?;
        Some((a.parse::<i64>().ok()?, b.parse::<i64>().ok()?))
    });
    if let Some((a, b)) = integers {
        add(format!("{a}/{b}"));
        if (0..10).contains(&a) && (0..10).contains(&b) {
            add(format!(r"\frac{a}{b}"));
        }
        if (a, b) == (1, 2) {
            add("0.5".to_owned());
            add(".5".to_owned());
        }
    }
    spellings
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded from lm-evaluation-harness 0.4.13: `strip_string`, and
    /// `remove_boxed(last_boxed_only_string(…))`; `None` where they raise or find nothing.
    #[test]
    fn the_rules_of_the_authors() {
        for (answer, expect) in NORMAL {
            assert_eq!(normalized(answer).as_deref(), *expect, "{answer:?}");
        }
        for (solution, expect) in BOXED {
            assert_eq!(boxed_answer(solution), *expect, "{solution:?}");
        }
    }

    #[test]
    fn equal_or_not() {
        assert!(equivalent(r"\tfrac12", ".5") && equivalent("x/y", "x/y") && equivalent(r"3\text{ m}", "3"));
        assert!(!equivalent("1/2", "1/3") && !equivalent("x/y", "x / y"));
    }

    /// What the patterns leave of two spellings is the same wherever the authors' rules say so here.
    #[test]
    fn patterns_and_spellings_stand_in_for_the_rules() {
        let left = |text: &str| {
            IGNORED.iter().fold(text.to_owned(), |text, pattern| {
                regex::Regex::new(pattern).unwrap().replace_all(&text, "").into_owned()
            })
        };
        for (written, right) in [
            (r"\dfrac{1}{2}", "0.5"),
            ("1 / 2", r"\frac{1}{2}"),
            (".5", r"\frac12"),
            (r"\tfrac{a}{b}", r"\frac{a}{b}"),
            ("12", r"12\text{ cm}"),
            (r"90^\circ", "90"),
            (r"\left(3,4\right)", "(3, 4)"),
            (r"\$5", "5"),
            (r"50\%", "50"),
        ] {
            assert!(equivalent(written, right));
            assert!(spellings(right).iter().any(|s| left(s) == left(written)), "{written} {right}");
        }
        assert!(spellings("3").iter().all(|s| left(s) != left("4")));
    }

    const NORMAL: &[(&str, Option<&str>)] = &[
        ("\\frac12", Some("\\frac{1}{2}")),
        ("\\frac{1}{2}", Some("\\frac{1}{2}")),
        ("\\dfrac 12", Some("\\frac{1}{2}")),
        ("0.5", Some("\\frac{1}{2}")),
        (".5", Some("\\frac{1}{2}")),
        ("1/2", Some("\\frac{1}{2}")),
        (" 1 / 2", Some("\\frac{1}{2}")),
        ("-3/4", Some("\\frac{-3}{4}")),
        ("a/b", None),
        ("03/4", Some("03/4")),
        ("+3/4", Some("+3/4")),
        ("1/2/3", Some("1/2/3")),
        ("\\sqrt3", Some("\\sqrt{3}")),
        ("\\sqrt{3}x", Some("\\sqrt{3}x")),
        ("2\\sqrt 3", Some("2\\sqrt{}3")),
        ("\\frac1{72}", Some("\\frac{1}{72}")),
        ("\\frac{72}1", Some("\\frac{72}1")),
        ("\\frac", None),
        ("\\frac1", Some("\\frac1")),
        ("\\sqrt", None),
        ("x = 5", Some("5")),
        ("y=7", Some("7")),
        ("abc=4", Some("abc=4")),
        ("x=y=2", Some("x=y=2")),
        ("90^\\circ", Some("90")),
        ("90^{\\circ}", Some("90")),
        ("50\\%", Some("50")),
        ("\\$5.50", Some("5.50")),
        ("12\\text{ cm}", Some("12")),
        ("1\\text{ a}\\text{ b}", None),
        ("\\left(3,\\,4\\right)", Some("(3,\\,4)")),
        ("\\!\\!5", Some("5")),
        ("{.3}", Some("{0.3}")),
        ("", Some("")),
        ("\\text{even}", Some("\\text{even}")),
        ("1,000", Some("1,000")),
        ("\n 7", Some("7")),
        ("\\tfrac{a}{b}+\\dfrac34", Some("\\frac{a}{b}+\\frac{3}{4}")),
        ("\\\\frac{1}{2}", Some("\\frac{1}{2}")),
        ("-0/5", Some("-0/5")),
        ("1_0/5", Some("1_0/5")),
        ("1__0/5", None),
    ];

    const BOXED: &[(&str, Option<&str>)] = &[
        ("So $x=\\boxed{3}$.", Some("3")),
        ("First \\boxed{1}, then \\boxed{\\frac{1}{2}}.", Some("\\frac{1}{2}")),
        ("It is $\\boxed 5$ apples", Some("5")),
        ("\\boxed{a{b}c} end } x", Some("a{b}c")),
        ("none", None),
        ("\\boxed{open", None),
    ];
}
