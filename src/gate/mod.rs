//! The gate: a comparison held against a policy. Every rule, for every cousin and everything that it names, gives a check
//! with one of four outcomes; nothing passes that was not measured.
//!
//! For a figure with one-sided bounds at the rule's confidence: `margin: δ` passes where the loss's upper bound is below δ
//! and fails where its lower bound is above; `max: M` passes where the upper bound is at most M and fails where the lower
//! bound is above; `min` mirrored; else nothing is decided. All rules must pass, so no correction for their number is
//! needed (intersection-union; Berger 1982). Limits are never rounded. It must not know a file's place nor how a verdict is
//! shown.

mod figure;
pub mod metric;
pub mod policy;
mod power;
mod target;
#[cfg(test)]
mod tests;
mod wording;

use rayon::prelude::*;
use serde::Serialize;

use self::figure::{Found, Gap, Question};
use self::metric::Metric;
use self::policy::{Limit, Per, Policy, Rule};
use self::target::{Cousin, Target};
use crate::comparison::{Comparison, TaskCard};
use crate::pattern::chooses;

pub use self::target::Subject;

/// Version of the verdict's JSON.
const SCHEMA_VERSION: u32 = 1;

/// How a check, or all of them, came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is shown to hold.
    Pass,
    /// It is shown not to.
    Fail,
    /// The sample shows neither.
    Inconclusive,
    /// It could not be looked at: missing, changed or no number.
    NotMeasured,
}

impl Outcome {
    /// The process's exit code: 0, 1, 3, 2.
    pub fn exit_code(self) -> u8 {
        match self {
            Outcome::Pass => 0,
            Outcome::Fail => 1,
            Outcome::NotMeasured => 2,
            Outcome::Inconclusive => 3,
        }
    }

    /// As in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Pass => "pass",
            Outcome::Fail => "fail",
            Outcome::Inconclusive => "inconclusive",
            Outcome::NotMeasured => "not_measured",
        }
    }

    /// Of two, the one that decides: what was not measured hides what else might be wrong, a failure is a failure.
    fn worse(self, other: Self) -> Self {
        let rank = |outcome: Self| match outcome {
            Outcome::Pass => 0,
            Outcome::Inconclusive => 1,
            Outcome::Fail => 2,
            Outcome::NotMeasured => 3,
        };
        if rank(other) > rank(self) { other } else { self }
    }
}

/// What became of a policy.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// Version of this format.
    pub schema_version: u32,
    /// Version of qeval that judged.
    pub qeval_version: String,
    /// The policy's name.
    pub policy: String,
    /// When the run began, UTC, RFC 3339.
    pub run_created_utc: String,
    /// When the earlier run began; absent where there is none.
    pub previous_created_utc: Option<String>,
    /// All checks together.
    pub outcome: Outcome,
    /// Every check, in the order of the policy's rules, and of each of the run's cousins.
    pub checks: Vec<Check>,
    /// What else a reader should know.
    pub notes: Vec<String>,
}

/// One rule held against one figure.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// The rule's name.
    pub rule: String,
    /// Why it is there.
    pub why: Option<String>,
    /// The cousin's label; absent where it is about the whole run.
    pub cousin: Option<String>,
    /// What it is about; absent where it is about the whole run.
    pub subject: Option<Subject>,
    /// What was measured.
    pub metric: Option<Metric>,
    /// Whether against the same cousin of an earlier run, instead of base.
    pub against_previous: bool,
    /// What the figure was held against.
    pub limit: Option<Limit>,
    /// How it came out.
    pub outcome: Outcome,
    /// The figure: of a margin the loss, else the metric itself.
    pub value: Option<f64>,
    /// Its lower bound, one-sided.
    pub lower: Option<f64>,
    /// Its upper bound, one-sided.
    pub upper: Option<f64>,
    /// One-sided confidence that was asked for.
    pub confidence: Option<f64>,
    /// Questions or tokens.
    pub samples: Option<u64>,
    /// Samples that would probably decide it (power 80 %), should the figure stay as it is.
    pub samples_needed: Option<u64>,
    /// Why nothing was decided or measured, and what is worth knowing besides.
    pub reason: Option<String>,
    /// All of it in words.
    pub message: String,
}

/// Holds a comparison against a policy, and against an earlier run where there is one.
pub fn judge(policy: &Policy, comparison: &Comparison, previous: Option<&Comparison>) -> Verdict {
    let cousins = target::cousins(comparison);
    let mut checks = requirements(policy, comparison, previous);
    let against_base = policy.rules.iter().map(|rule| (rule, false));
    let against_previous = policy.regressions.iter().filter(|_| previous.is_some()).map(|rule| (rule, true));
    let mut work = Vec::new();
    for (rule, is_regression) in against_base.chain(against_previous) {
        let chosen = |cousin: &&Cousin| chooses(&rule.cousins.0, &cousin.model().label);
        let chosen: Vec<Cousin> = cousins.iter().filter(chosen).copied().collect();
        if chosen.is_empty() {
            checks.push(whole_run(&rule.name, no_cousin(rule, &cousins)));
        }
        work.extend(chosen.into_iter().map(|cousin| (rule, is_regression, cousin)));
    }
    let held: Vec<Vec<Check>> = work
        .par_iter()
        .map(|(rule, is_regression, cousin)| {
            let earlier = previous.filter(|_| *is_regression);
            hold(policy, rule, (comparison, *cousin), earlier)
        })
        .collect();
    checks.extend(held.into_iter().flatten());
    if checks.is_empty() {
        checks.push(whole_run("policy", "no rule of the policy applies: nothing was looked at".to_owned()));
    }
    for check in &mut checks {
        check.message = wording::message(check);
    }
    let outcome = checks.iter().fold(Outcome::Pass, |outcome, check| outcome.worse(check.outcome));
    Verdict {
        schema_version: SCHEMA_VERSION,
        qeval_version: env!("CARGO_PKG_VERSION").to_owned(),
        policy: policy.name.clone().unwrap_or_else(|| "policy".to_owned()),
        run_created_utc: comparison.provenance.created_utc.clone(),
        previous_created_utc: previous.map(|previous| previous.provenance.created_utc.clone()),
        outcome,
        checks,
        notes: notes(policy, comparison, previous),
    }
}

fn no_cousin(rule: &Rule, cousins: &[Cousin<'_>]) -> String {
    let labels: Vec<&str> = cousins.iter().map(|cousin| cousin.model().label.as_str()).collect();
    match labels.is_empty() {
        true => "this run has no cousin".to_owned(),
        false => format!("no cousin matches {}; there are {}", rule.cousins.0.join(", "), labels.join(", ")),
    }
}

fn notes(policy: &Policy, comparison: &Comparison, previous: Option<&Comparison>) -> Vec<String> {
    let mut notes = Vec::new();
    match previous {
        None if !policy.regressions.is_empty() => notes.push(format!(
            "{} not looked at: no earlier run was given (--against)",
            crate::format::counted(policy.regressions.len() as u64, "regression rule")
        )),
        Some(_) if policy.regressions.is_empty() => {
            notes.push("the policy has no `regressions`: the earlier run was not looked at".to_owned());
        }
        Some(previous) if !same_files(comparison, previous) => {
            notes.push(
                "base is another one than in the earlier run: each cousin is measured against its own"
                    .to_owned(),
            );
        }
        _ => {}
    }
    notes
}

fn same_files(one: &Comparison, other: &Comparison) -> bool {
    let hashes = |comparison: &Comparison| -> Vec<Option<String>> {
        comparison.base.files.iter().map(|file| file.sha256.clone()).collect()
    };
    hashes(one) == hashes(other)
}

/// A check about the whole run that did not come out well.
fn whole_run(rule: &str, reason: String) -> Check {
    Check {
        rule: rule.to_owned(),
        why: None,
        cousin: None,
        subject: None,
        metric: None,
        against_previous: false,
        limit: None,
        outcome: Outcome::NotMeasured,
        value: None,
        lower: None,
        upper: None,
        confidence: None,
        samples: None,
        samples_needed: None,
        reason: Some(reason),
        message: String::new(),
    }
}

/// What must have been measured and was not.
fn requirements(policy: &Policy, comparison: &Comparison, previous: Option<&Comparison>) -> Vec<Check> {
    let require = &policy.require;
    let mut missing = Vec::new();
    let unmeasured = comparison.unmeasured();
    if unmeasured > 0 {
        let figures = crate::format::counted(unmeasured as u64, "figure");
        missing.push(format!("{figures} of this run came out as NaN or could not be judged"));
    }
    let is_empty = |task: &&TaskCard| match task.kind.as_str() {
        "text" => task.scored_tokens == 0,
        _ => task.documents == 0,
    };
    missing.extend(
        comparison.tasks.iter().filter(is_empty).map(|task| format!("nothing of {} was measured", task.name)),
    );
    let labels: Vec<&str> = target::cousins(comparison).iter().map(|c| c.model().label.as_str()).collect();
    let tasks: Vec<&str> = comparison.tasks.iter().map(|task| task.name.as_str()).collect();
    for (what, patterns, there) in
        [("task", &require.tasks.0, &tasks), ("cousin", &require.cousins.0, &labels)]
    {
        for pattern in patterns.iter().filter(|p| !there.iter().any(|name| crate::pattern::glob(p, name))) {
            missing.push(format!("no {what} of this run matches {pattern}, which the policy requires"));
        }
    }
    if let Some(protocol) = require.protocol.as_ref().filter(|name| **name != comparison.protocol.name) {
        missing.push(format!("text was cut by {}, the policy requires {protocol}", comparison.protocol.name));
    }
    for (suite, hash) in &require.suites {
        let mut of_suite =
            comparison.tasks.iter().filter(|task| task.name.starts_with(&format!("{suite}/"))).peekable();
        if of_suite.peek().is_none() {
            missing.push(format!("the suite {suite} was not measured, which the policy requires"));
        } else if of_suite.any(|task| task.suite_sha256 != *hash) {
            missing.push(format!("the suite {suite} is not the one that the policy requires ({hash})"));
        }
    }
    if require.previous == Some(true) && previous.is_none() {
        missing.push("the policy requires an earlier run: give it with --against".to_owned());
    }
    missing.into_iter().map(|reason| whole_run("require", reason)).collect()
}

/// One rule for one cousin.
fn hold(
    policy: &Policy,
    rule: &Rule,
    (comparison, cousin): (&Comparison, Cousin<'_>),
    previous: Option<&Comparison>,
) -> Vec<Check> {
    let label = cousin.model().label.clone();
    // A policy that was loaded has both; one that was not is told so.
    let (Some(metric), Some(limit)) = (rule.metric, rule.limit()) else {
        return vec![whole_run(&rule.name, "the rule has no metric or no limit".to_owned())];
    };
    let counterpart = match previous.map(|previous| counterpart(comparison, previous, &label)) {
        None => None,
        Some(Ok(counterpart)) => Some(counterpart),
        Some(Err(reason)) => {
            return vec![Check {
                cousin: Some(label),
                against_previous: true,
                ..whole_run(&rule.name, reason)
            }];
        }
    };
    let confidence = policy.confidence_of(rule);
    let question = Question { metric, limit, confidence, comparison, cousin, previous: counterpart };
    let targets = target::of(rule, metric.source(), comparison, cousin, counterpart);
    let check = |target: &Target| {
        let changed = previous.and_then(|previous| changed(comparison, previous, &target.tasks));
        let figure = match changed {
            Some(reason) => Err(Gap::NotMeasured(reason)),
            None => figure::of(&question, target),
        };
        Check {
            why: rule.why.clone(),
            cousin: Some(label.clone()),
            subject: Some(target.subject.clone()),
            metric: Some(metric),
            against_previous: previous.is_some(),
            limit: Some(limit),
            confidence: Some(confidence),
            ..decided(rule, &question, figure)
        }
    };
    targets.iter().map(check).collect()
}

/// The same cousin in an earlier run: of the same label, or the only one of both runs.
fn counterpart<'a>(
    comparison: &Comparison,
    previous: &'a Comparison,
    label: &str,
) -> Result<Cousin<'a>, String> {
    let earlier = target::cousins(previous);
    if let Some(same) = earlier.iter().find(|cousin| cousin.model().label == label) {
        return Ok(*same);
    }
    match (earlier.as_slice(), target::cousins(comparison).len()) {
        ([only], 1) => Ok(*only),
        _ => {
            let labels: Vec<&str> = earlier.iter().map(|cousin| cousin.model().label.as_str()).collect();
            Err(format!("the earlier run has no cousin of this label; it has {}", labels.join(", ")))
        }
    }
}

/// What is not as it was in the earlier run, so that nothing can be compared.
fn changed(comparison: &Comparison, previous: &Comparison, tasks: &[String]) -> Option<String> {
    let wanted = |card: &&TaskCard| tasks.is_empty() || tasks.contains(&card.name);
    if tasks.is_empty() && comparison.tasks.len() != previous.tasks.len() {
        return Some("the earlier run measured other tasks".to_owned());
    }
    for card in comparison.tasks.iter().filter(wanted) {
        let Some(earlier) = previous.tasks.iter().find(|earlier| earlier.name == card.name) else {
            return Some(format!("{} was not measured in the earlier run", card.name));
        };
        if card.suite_sha256 != earlier.suite_sha256 {
            let (now, then) = (card.suite_version, earlier.suite_version);
            return Some(format!("the suite of {} changed (version {then} then, {now} now)", card.name));
        }
        if comparison.protocol.description != previous.protocol.description && card.kind == "text" {
            return Some(format!(
                "the protocol changed ({} then, {} now)",
                previous.protocol.description, comparison.protocol.description
            ));
        }
        match (&card.input_sha256, &earlier.input_sha256) {
            (Some(now), Some(then)) if now == then => {}
            (Some(_), Some(_)) => {
                return Some(format!(
                    "what {} asks changed: other samples, another prompt, tokenizer or chat template",
                    card.name
                ));
            }
            _ => {
                return Some(format!(
                    "whether {} asks the same is not known: an older qeval made it",
                    card.name
                ));
            }
        }
    }
    None
}

/// The outcome of one figure.
fn decided(rule: &Rule, question: &Question<'_>, figure: figure::Figure) -> Check {
    let open = |outcome: Outcome, reason: String| Check { outcome, ..whole_run(&rule.name, reason) };
    let Found { estimate, samples, note } = match figure {
        Ok(found) => found,
        Err(Gap::NotMeasured(reason)) => return open(Outcome::NotMeasured, reason),
        Err(Gap::Undecided(reason)) => return open(Outcome::Inconclusive, reason),
    };
    let too_few = rule.min_samples.zip(samples).filter(|(least, samples)| samples < least);
    let outcome = match too_few {
        Some(_) => Outcome::Inconclusive,
        None => outcome(question.limit, estimate.lower, estimate.upper),
    };
    let needed = match (outcome, too_few) {
        (_, Some((least, _))) => Some(least),
        (Outcome::Inconclusive, None) => {
            power::samples_needed(question.limit, &estimate, question.confidence, samples)
        }
        _ => None,
    };
    let reason = match too_few {
        Some((least, _)) => {
            Some(format!("the rule wants at least {}", crate::format::counted(least, "sample")))
        }
        None => note,
    };
    Check {
        outcome,
        value: Some(estimate.value),
        lower: estimate.lower,
        upper: estimate.upper,
        samples,
        samples_needed: needed,
        reason,
        ..open(outcome, String::new())
    }
}

/// What bounds say about a limit; a bound that is absent shows nothing.
fn outcome(limit: Limit, lower: Option<f64>, upper: Option<f64>) -> Outcome {
    let is = |bound: Option<f64>, holds: &dyn Fn(f64) -> bool| bound.is_some_and(holds);
    let (passes, fails) = match limit {
        Limit::Margin(margin) => (is(upper, &|u| u < margin), is(lower, &|l| l > margin)),
        Limit::Max(most) => (is(upper, &|u| u <= most), is(lower, &|l| l > most)),
        Limit::Min(least) => (is(lower, &|l| l >= least), is(upper, &|u| u < least)),
        // The figure is what lies above so many noise floors.
        Limit::MaxNoiseFloors(_) => (is(upper, &|u| u <= 0.0), is(lower, &|l| l > 0.0)),
    };
    match (passes, fails) {
        (true, false) => Outcome::Pass,
        (false, true) => Outcome::Fail,
        _ => Outcome::Inconclusive,
    }
}

impl Verdict {
    /// How many checks came out so.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.checks.iter().filter(|check| check.outcome == outcome).count()
    }
}

impl Subject {
    /// In words: "all", "th", "multilingual/th-causes".
    pub fn words(&self) -> &str {
        match (&self.name, self.per) {
            (Some(name), _) => name,
            (None, Per::Overall) => "all",
            (None, _) => "every one",
        }
    }
}
