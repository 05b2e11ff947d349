//! A verdict as JUnit XML: a suite for each cousin, a case for each check. What failed is a failure, what was not measured
//! an error; what is inconclusive is a failure too, unless the caller lets it pass, then it is skipped.
//!
//! The dialect is the one that GitLab, Jenkins and GitHub's reporters read: `testsuites`, `testsuite`, `testcase`,
//! `failure`, `error`, `skipped`.

use std::fmt::Write as _;

use super::title;
use crate::gate::{Check, Outcome, Verdict};
use crate::report::html::escaped;

/// The document. `lets_inconclusive_pass`: whether what is inconclusive does not stop a release.
pub fn document(verdict: &Verdict, lets_inconclusive_pass: bool) -> String {
    let mut cousins: Vec<Option<&str>> = Vec::new();
    for check in &verdict.checks {
        if !cousins.contains(&check.cousin.as_deref()) {
            cousins.push(check.cousin.as_deref());
        }
    }
    let all: Vec<&Check> = verdict.checks.iter().collect();
    let name = format!("qeval gate {}", verdict.policy);
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    text += &format!("<testsuites name=\"{}\" {}>\n", escaped(&name), counts(&all, lets_inconclusive_pass));
    for cousin in cousins {
        let checks: Vec<&Check> =
            verdict.checks.iter().filter(|check| check.cousin.as_deref() == cousin).collect();
        let name = escaped(cousin.unwrap_or("the run"));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  <testsuite name=\"{name}\" {}>", counts(&checks, lets_inconclusive_pass));
        for check in checks {
            text += &case(check, &name, lets_inconclusive_pass);
        }
        text += "  </testsuite>\n";
    }
    text + "</testsuites>\n"
}

fn element(outcome: Outcome, lets_inconclusive_pass: bool) -> Option<&'static str> {
    match outcome {
        Outcome::Pass => None,
        Outcome::Fail => Some("failure"),
        Outcome::NotMeasured => Some("error"),
        Outcome::Inconclusive if lets_inconclusive_pass => Some("skipped"),
        Outcome::Inconclusive => Some("failure"),
    }
}

fn counts(checks: &[&Check], lets_inconclusive_pass: bool) -> String {
    let of = |name: &str| {
        checks.iter().filter(|check| element(check.outcome, lets_inconclusive_pass) == Some(name)).count()
    };
    format!(
        "tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\" time=\"0\"",
        checks.len(),
        of("failure"),
        of("error"),
        of("skipped")
    )
}

fn case(check: &Check, cousin: &str, lets_inconclusive_pass: bool) -> String {
    let head = format!("    <testcase classname=\"{cousin}\" name=\"{}\" time=\"0\"", escaped(&title(check)));
    let message = escaped(&check.message);
    let why = check.why.as_deref().map(escaped).unwrap_or_default();
    match element(check.outcome, lets_inconclusive_pass) {
        None => format!("{head}>\n      <system-out>{message}</system-out>\n    </testcase>\n"),
        Some("skipped") => format!("{head}>\n      <skipped message=\"{message}\"/>\n    </testcase>\n"),
        Some(element) => format!(
            "{head}>\n      <{element} type=\"{}\" message=\"{message}\">{why}</{element}>\n    </testcase>\n",
            check.outcome.name()
        ),
    }
}
