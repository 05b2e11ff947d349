//! What a rule is about in a given run: which cousins, and of each all text, a task, a language, a group, a level. What a
//! rule names and a run does not have is a target too: one that was not measured.

use serde::Serialize;

use super::metric::Source;
use super::policy::{Per, Rule};
use crate::comparison::tasks::QuestionComparison;
use crate::comparison::{Comparison, ForeignComparison, ModelCard, QuantComparison, TaskCard};
use crate::pattern::chooses;

/// A cousin of either kind.
#[derive(Clone, Copy)]
pub(super) enum Cousin<'a> {
    /// One whose tokens are base's.
    Same(&'a QuantComparison),
    /// One of another vocabulary.
    Foreign(&'a ForeignComparison),
}

impl<'a> Cousin<'a> {
    pub(super) fn model(self) -> &'a ModelCard {
        match self {
            Cousin::Same(quant) => &quant.model,
            Cousin::Foreign(foreign) => &foreign.model,
        }
    }

    fn rows(self) -> &'a [QuestionComparison] {
        let questions = match self {
            Cousin::Same(quant) => &quant.questions,
            Cousin::Foreign(foreign) => &foreign.questions,
        };
        questions.as_ref().map_or(&[], |questions| &questions.tasks)
    }
}

/// Every cousin of a run, in its order.
pub(super) fn cousins(comparison: &Comparison) -> Vec<Cousin<'_>> {
    let same = comparison.quants.iter().map(Cousin::Same);
    same.chain(comparison.foreign.iter().map(Cousin::Foreign)).collect()
}

/// What a check is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Subject {
    /// Over what the metric was taken.
    pub per: Per,
    /// Which task, language, group or level; absent for all together.
    pub name: Option<String>,
}

/// Where in a comparison the figure lies.
pub(super) enum Place<'a> {
    /// All text, or a text task.
    Text(Option<String>),
    /// A task of another kind.
    Task(String),
    /// Rows of questions, and the same rows of an earlier run.
    Rows {
        rows: Vec<&'a QuestionComparison>,
        previous: Vec<&'a QuestionComparison>,
        level: Option<u32>,
        /// Tasks that are no accuracy and have no place among others.
        left_out: usize,
    },
    /// The model itself.
    Model,
    /// Nowhere, and why.
    Missing(String),
}

/// One thing to check.
pub(super) struct Target<'a> {
    pub(super) subject: Subject,
    pub(super) place: Place<'a>,
    /// Tasks that it rests on; empty for all.
    pub(super) tasks: Vec<String>,
}

fn target<'a>(per: Per, name: Option<&str>, place: Place<'a>, tasks: Vec<String>) -> Target<'a> {
    Target { subject: Subject { per, name: name.map(str::to_owned) }, place, tasks }
}

fn missing(per: Per, reason: String) -> Vec<Target<'static>> {
    vec![target(per, None, Place::Missing(reason), Vec::new())]
}

/// The targets of a rule for one cousin; never none.
pub(super) fn of<'a>(
    rule: &Rule,
    source: Source,
    comparison: &'a Comparison,
    cousin: Cousin<'a>,
    previous: Option<Cousin<'a>>,
) -> Vec<Target<'a>> {
    let narrowed = !rule.tasks.0.is_empty() || !rule.languages.0.is_empty();
    let per = rule.per.unwrap_or(match source {
        Source::Tokens if narrowed => Per::Task,
        Source::Tokens | Source::Questions | Source::Weights => Per::Overall,
        Source::Traces | Source::Generations | Source::Bytes => Per::Task,
    });
    let is_wanted = |card: &&TaskCard| {
        is_of(source, &card.kind)
            && chooses(&rule.tasks.0, &card.name)
            && (rule.languages.0.is_empty()
                || card.language.as_ref().is_some_and(|language| chooses(&rule.languages.0, language)))
    };
    let cards: Vec<&TaskCard> = comparison.tasks.iter().filter(is_wanted).collect();
    match source {
        Source::Weights => vec![target(Per::Overall, None, Place::Model, Vec::new())],
        Source::Tokens if per == Per::Overall => {
            vec![target(per, None, Place::Text(None), Vec::new())]
        }
        _ if cards.is_empty() => missing(per, nothing_matches(rule, source, comparison)),
        Source::Questions => questions(rule, per, &cards, cousin, previous),
        _ => {
            let targets: Vec<Target> = cards.iter().filter_map(|card| of_card(per, source, card)).collect();
            if targets.is_empty() { missing(per, nothing_per(per)) } else { targets }
        }
    }
}

/// Whether a task of this kind has figures from there.
fn is_of(source: Source, kind: &str) -> bool {
    match source {
        Source::Tokens => kind == "text",
        Source::Questions => !["text", "rolling"].contains(&kind),
        Source::Traces | Source::Generations => kind == "generation",
        Source::Bytes => ["text", "rolling"].contains(&kind),
        Source::Weights => false,
    }
}

fn of_card<'a>(per: Per, source: Source, card: &TaskCard) -> Option<Target<'a>> {
    let place = match source {
        Source::Tokens => Place::Text(Some(card.name.clone())),
        _ => Place::Task(card.name.clone()),
    };
    let name = match (per, &card.language) {
        (Per::Language, None) => return None,
        (Per::Language, Some(language)) => format!("{language} ({})", card.name),
        _ => card.name.clone(),
    };
    Some(target(per, Some(&name), place, vec![card.name.clone()]))
}

fn nothing_matches(rule: &Rule, source: Source, comparison: &Comparison) -> String {
    let there: Vec<&str> =
        comparison.tasks.iter().filter(|c| is_of(source, &c.kind)).map(|c| c.name.as_str()).collect();
    let what = match source {
        Source::Questions => "no question was asked; add --suite reasoning, --suite multilingual or --data",
        Source::Traces | Source::Generations => {
            "no answer was written; add --suite reasoning or --data gsm8k=…"
        }
        _ => "no text was scored; add --suite perplexity or --text",
    };
    if there.is_empty() {
        return what.to_owned();
    }
    const SHOWN: usize = 5;
    let shown = there.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    let more = if there.len() > SHOWN { format!(" and {} more", there.len() - SHOWN) } else { String::new() };
    let patterns: Vec<&str> = rule.tasks.0.iter().chain(&rule.languages.0).map(String::as_str).collect();
    format!("no task matches {}; there are {shown}{more}", patterns.join(", "))
}

/// Rows of questions pooled as the rule says.
fn questions<'a>(
    rule: &Rule,
    per: Per,
    cards: &[&TaskCard],
    cousin: Cousin<'a>,
    previous: Option<Cousin<'a>>,
) -> Vec<Target<'a>> {
    // The first row of a task is its headline.
    let is_score =
        |row: &QuestionComparison| rule.score.as_ref().is_none_or(|score| *score == row.key.metric);
    let row_of = |cousin: Cousin<'a>, card: &TaskCard| {
        cousin.rows().iter().find(|row| row.key.task == card.name && is_score(row))
    };
    let pooled = |name: Option<&str>, members: &[&TaskCard], level: Option<u32>| -> Target<'a> {
        let tasks: Vec<String> = members.iter().map(|card| card.name.clone()).collect();
        let (mut rows, mut earlier, mut left_out) = (Vec::new(), Vec::new(), 0);
        for card in members {
            let Some(row) = row_of(cousin, card) else {
                let score = rule.score.as_ref().map_or(String::new(), |score| format!(" with {score}"));
                let reason = format!("{} was not answered{score}", card.name);
                return target(per, name, Place::Missing(reason), tasks);
            };
            // Alone it is refused with the reason, and so is a row of an older version, which does not say what it is.
            if per != Per::Task && !row.right_or_wrong && row.samples.is_some() {
                left_out += 1;
                continue;
            }
            rows.push(row);
            match previous.map(|previous| row_of(previous, card)) {
                None => {}
                Some(Some(row)) => earlier.push(row),
                Some(None) => {
                    let reason = format!("{} was not answered in the earlier run", card.name);
                    return target(per, name, Place::Missing(reason), tasks);
                }
            }
        }
        if rows.is_empty() {
            return target(per, name, Place::Missing("nothing there is right or wrong".to_owned()), tasks);
        }
        target(per, name, Place::Rows { rows, previous: earlier, level, left_out }, tasks)
    };
    let by = |key: &dyn Fn(&TaskCard) -> Option<String>| -> Vec<Target<'a>> {
        let mut names: Vec<String> = cards.iter().filter_map(|card| key(card)).collect();
        names.sort();
        names.dedup();
        let members = |name: &String| -> Vec<&TaskCard> {
            cards.iter().filter(|card| key(card).as_ref() == Some(name)).copied().collect()
        };
        names.iter().map(|name| pooled(Some(name), &members(name), None)).collect()
    };
    let targets = match per {
        Per::Overall => vec![pooled(None, cards, None)],
        Per::Task => by(&|card| Some(card.name.clone())),
        Per::Group => by(&|card| card.group.clone()),
        Per::Language => by(&|card| card.language.clone()),
        Per::Level => cards
            .iter()
            .flat_map(|card| {
                let levels = row_of(cousin, card).map_or(&[][..], |row| &row.levels);
                levels.iter().map(|level| {
                    let name = format!("{}, {} {}", card.name, level.value, level.unit);
                    pooled(Some(&name), &[card], Some(level.value))
                })
            })
            .collect(),
    };
    match targets.is_empty() {
        true => missing(per, nothing_per(per)),
        false => targets,
    }
}

fn nothing_per(per: Per) -> String {
    let name = match per {
        Per::Overall | Per::Task => "name",
        Per::Group => "group",
        Per::Language => "language",
        Per::Level => "level of difficulty",
    };
    format!("no task of this run has a {name}")
}
