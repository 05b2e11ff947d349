//! A verdict where GitHub Actions shows it: annotations (workflow commands on standard output) and a job summary.

use super::{headline, title, word};
use crate::gate::{Check, Outcome, Verdict};
use crate::report::format::{counted, visible};
use crate::report::markdown::escape;

/// GitHub shows ten annotations of a kind for each step; the last one of ours says how many are not shown.
const MOST: usize = 9;
/// Bytes of a job summary that a verdict takes, of the megabyte that GitHub allows for all.
const MOST_BYTES: usize = 60_000;

/// Characters of one text.
const LONGEST: usize = 2000;

fn escaped(text: &str) -> String {
    escape::text(text, LONGEST)
}

/// Workflow commands: an error for each failure, a warning for what is inconclusive, a notice where all passed.
pub fn annotations(verdict: &Verdict) -> String {
    let mut text = String::new();
    for (command, outcomes) in
        [("error", &[Outcome::NotMeasured, Outcome::Fail][..]), ("warning", &[Outcome::Inconclusive][..])]
    {
        let checks: Vec<&Check> =
            verdict.checks.iter().filter(|check| outcomes.contains(&check.outcome)).collect();
        for check in checks.iter().take(MOST) {
            let about = check.cousin.as_deref().unwrap_or("the run");
            let head = format!("qeval {}: {about}, {}", word(check.outcome), title(check));
            text += &format!("::{command} title={}::{}\n", property(&head), data(&check.message));
        }
        if checks.len() > MOST {
            let rest = counted((checks.len() - MOST) as u64, "more check");
            text += &format!("::{command} title=qeval::{}\n", data(&format!("{rest}: see the job summary")));
        }
    }
    if verdict.outcome == Outcome::Pass {
        text += &format!("::notice title=qeval::{}\n", data(&headline(verdict)));
    }
    text
}

/// A workflow command's message: on one line, its own signs as their codes.
fn data(text: &str) -> String {
    visible(text).replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// A property's value: commas and colons would end it.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

/// A job summary: every check as a row, what did not pass first.
pub fn summary(verdict: &Verdict) -> String {
    let mut text = format!("## {}\n\n", escaped(&headline(verdict)));
    text += "| outcome | cousin | rule | what was found |\n|---|---|---|---|\n";
    let (mut cut, mut rows) = (0, Vec::new());
    for outcome in [Outcome::NotMeasured, Outcome::Fail, Outcome::Inconclusive, Outcome::Pass] {
        rows.extend(verdict.checks.iter().filter(|check| check.outcome == outcome));
    }
    for check in rows {
        let cousin = escaped(check.cousin.as_deref().unwrap_or("the run"));
        let (title, message) = (escaped(&title(check)), escaped(&check.message));
        let row = format!("| {} | {cousin} | {title} | {message} |\n", word(check.outcome));
        match text.len() + row.len() > MOST_BYTES {
            true => cut += 1,
            false => text += &row,
        }
    }
    if cut > 0 {
        text += &format!("\n{} not shown here; all are in gate.json.\n", counted(cut, "more check"));
    }
    for note in &verdict.notes {
        text += &format!("\n{}\n", escaped(note));
    }
    text
}
