//! A gate's verdict as people and machines read it: a terminal, JUnit, a CI service's annotations, Markdown.
//!
//! What a rule found is worded by the gate; here is only how it is laid out and escaped. It must not know how a verdict
//! comes about.

pub mod github;
pub mod junit;

use super::columns::wrapped;
use super::format::{counted, visible};
use crate::gate::{Check, Outcome, Verdict};

/// Checks of one rule and cousin that came out alike and are told one by one; more are counted.
const TOLD: usize = 4;

/// Checks of one rule for one cousin, in the order of the verdict.
struct Group<'a> {
    rule: &'a str,
    cousin: Option<&'a str>,
    checks: Vec<&'a Check>,
}

fn groups(verdict: &Verdict) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for check in &verdict.checks {
        let (rule, cousin) = (check.rule.as_str(), check.cousin.as_deref());
        match groups.iter_mut().find(|group| group.rule == rule && group.cousin == cousin) {
            Some(group) => group.checks.push(check),
            None => groups.push(Group { rule, cousin, checks: vec![check] }),
        }
    }
    groups
}

/// The outcome in a word that stands out.
pub fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pass => "pass",
        Outcome::Fail => "FAIL",
        Outcome::Inconclusive => "inconclusive",
        Outcome::NotMeasured => "NOT MEASURED",
    }
}

/// "gate release: FAIL (1 failed, 2 inconclusive, 9 passed)".
pub fn headline(verdict: &Verdict) -> String {
    let counts = [
        (Outcome::NotMeasured, "not measured"),
        (Outcome::Fail, "failed"),
        (Outcome::Inconclusive, "inconclusive"),
        (Outcome::Pass, "passed"),
    ];
    let counts: Vec<String> = counts
        .iter()
        .filter_map(|(outcome, name)| match verdict.count(*outcome) {
            0 => None,
            n => Some(format!("{n} {name}")),
        })
        .collect();
    format!("gate {}: {} ({})", visible(&verdict.policy), word(verdict.outcome), counts.join(", "))
}

/// The verdict for a terminal of so many columns: cousin by cousin, what passes in a line, what does not with its reason.
pub fn terminal(verdict: &Verdict, width: usize) -> String {
    let mut text = headline(verdict) + "\n";
    let groups = groups(verdict);
    let mut cousins: Vec<Option<&str>> = Vec::new();
    for group in &groups {
        if !cousins.contains(&group.cousin) {
            cousins.push(group.cousin);
        }
    }
    for cousin in cousins {
        text += &format!("\n{}\n", cousin.map_or_else(|| "the run".to_owned(), visible));
        let own: Vec<&Group<'_>> = groups.iter().filter(|group| group.cousin == cousin).collect();
        text.extend(own.iter().map(|group| told(group, width)));
        text += &passes(&own, width);
    }
    text += &reasons(verdict, width);
    for note in &verdict.notes {
        text += &format!("\n{}", wrapped(&visible(note), "note: ", width));
    }
    text
}

/// What of a rule does not pass, check by check.
fn told(group: &Group<'_>, width: usize) -> String {
    let mut text = String::new();
    for outcome in [Outcome::NotMeasured, Outcome::Fail, Outcome::Inconclusive] {
        let alike: Vec<&&Check> = group.checks.iter().filter(|check| check.outcome == outcome).collect();
        for check in alike.iter().take(TOLD) {
            text += &wrapped(&line(check), &format!("  {:<13} ", word(outcome)), width);
        }
        if alike.len() > TOLD {
            let rest = counted((alike.len() - TOLD) as u64, "more check");
            text += &format!("  {:<13} {}: {rest}\n", word(outcome), visible(group.rule));
        }
    }
    text
}

/// What passes, rule by rule, in one paragraph.
fn passes(groups: &[&Group<'_>], width: usize) -> String {
    let name = |group: &&Group<'_>| {
        let passed = group.checks.iter().filter(|check| check.outcome == Outcome::Pass).count();
        let of =
            if passed < group.checks.len() { format!(" of {}", group.checks.len()) } else { String::new() };
        match (passed, group.checks.len()) {
            (0, _) => None,
            (1, 1) => Some(visible(group.rule)),
            _ => Some(format!("{} ({passed}{of})", visible(group.rule))),
        }
    };
    let names: Vec<String> = groups.iter().filter_map(name).collect();
    match names.is_empty() {
        true => String::new(),
        false => wrapped(&names.join(", "), &format!("  {:<13} ", word(Outcome::Pass)), width),
    }
}

/// "recovery, th: recovery 97.2 %, between …; asked at least 97 %".
fn line(check: &Check) -> String {
    format!("{}: {}", visible(&title(check)), visible(&check.message))
}

/// Why the rules are there that did not pass, each once.
fn reasons(verdict: &Verdict, width: usize) -> String {
    let mut told: Vec<(&str, &str)> = Vec::new();
    for check in verdict.checks.iter().filter(|check| check.outcome != Outcome::Pass) {
        if let Some(why) = &check.why
            && !told.iter().any(|(rule, _)| *rule == check.rule)
        {
            told.push((&check.rule, why));
        }
    }
    let heading = if told.is_empty() { "" } else { "\nwhy these rules\n" };
    let line = |(rule, why): &(&str, &str)| {
        wrapped(&format!("{}: {}", visible(rule), visible(why.trim())), "  ", width)
    };
    heading.to_owned() + &told.iter().map(line).collect::<String>()
}

/// The rule and what it was about, without the cousin.
fn title(check: &Check) -> String {
    let against = if check.against_previous { " (against the earlier run)" } else { "" };
    match check.subject.as_ref().and_then(|subject| subject.name.as_ref()) {
        Some(name) => format!("{}, {name}{against}", check.rule),
        None => format!("{}{against}", check.rule),
    }
}

#[cfg(test)]
mod tests;
