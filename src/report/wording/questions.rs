//! What answers show, in sentences: how much of base's accuracy is kept, where it is lost first, and what could not
//! be seen at all. No significant difference is never called no difference: the loss that would have been shown is
//! said instead.

use crate::comparison::tasks::{PairedScores, QuestionComparison, SideScores};
use crate::comparison::{Comparison, ForeignComparison};
use crate::stats::Estimate;

use super::super::format::{Figure, count, counted, listed, number, visible};
use super::super::questions::{self, Asked, is_loss, is_shown};
use super::cousins::percent;
use super::{Grade, Sentence, caution, plain};

/// Names that a sentence can hold.
const NAMED: usize = 3;

/// The headline where there is no quant with base's vocabulary.
pub(super) fn without_quants(comparison: &Comparison) -> String {
    if let Some(headline) = headline(comparison) {
        return headline;
    }
    let label = visible(&comparison.base.label);
    if comparison.base_text.is_empty() && comparison.base_questions.is_none() && comparison.foreign.is_empty()
    {
        return "Nothing was compared".to_owned();
    }
    let mut found = Vec::new();
    found.extend(
        super::base_perplexity(comparison).map(|p| format!("perplexity {}", Figure::from(p).alone())),
    );
    if let Some(side) = &comparison.base_questions {
        let tasks = questions::headlines(&side.tasks, |row| &row.key);
        found.push(match tasks.as_slice() {
            [only] if questions::is_share(&only.key) => {
                let (right, asked) =
                    (Figure::percent(&only.score).alone(), counted(only.samples as u64, "question"));
                format!("{right} % of {asked} right")
            }
            several => format!("answers to {}", counted(several.len() as u64, "task")),
        });
    }
    match found.as_slice() {
        [] => format!("{label}: nothing could be measured with its own vocabulary"),
        found => format!("{label}: {}", listed(found)),
    }
}

/// The headline where cousins answered what base knows; `None` without any.
///
/// Losses that are shown come with where they are largest; where none is shown, the loss that would have been.
pub(super) fn headline(comparison: &Comparison) -> Option<String> {
    let mut rows = cousins(comparison);
    rows.retain(|(_, scores)| scores.difference.value.is_finite());
    rows.sort_by(|(_, a), (_, b)| b.difference.value.total_cmp(&a.difference.value));
    let (_, best) = rows.first()?;
    let asked = counted(best.samples as u64, "question");
    if rows.iter().all(|(_, scores)| scores.uninformative.is_some()) {
        return Some(format!("Nothing can be learnt from {asked}: base knows too little"));
    }
    rows.retain(|(_, scores)| scores.uninformative.is_none());
    let base = visible(&comparison.base.label);
    let lost = rows.last().filter(|(_, scores)| is_loss(scores));
    let Some((worst, least)) = lost else {
        return Some(none_shown(&rows, &asked) + &clearly_moved(comparison));
    };
    let places = places(worst);
    let places: Vec<&str> = places.iter().map(|place| place.name.as_str()).collect();
    let places = match places.as_slice() {
        [] => String::new(),
        [only] => format!("; {only} is worst"),
        several => format!("; {} are worst", listed(several)),
    };
    Some(match rows.as_slice() {
        [(only, scores)] => format!("{} keeps {} of {base}’s accuracy{places}", only.name(), share(scores)),
        [(first, scores), ..] => format!(
            "{} keeps {} of {base}’s accuracy, {} {}{places}",
            first.name(),
            share(scores),
            worst.name(),
            share(least)
        ),
        [] => return None,
    })
}

/// "99.1 % [98.4, 99.7]", or the points lost where base got nothing right.
fn share(scores: &PairedScores) -> String {
    match &scores.recovery {
        Some(recovery) => percent(&Figure::percent(recovery)),
        None => format!("{} points", Figure::percent(&scores.difference).signed_with_interval()),
    }
}

/// The headline where no cousin is shown to know less than base.
fn none_shown(rows: &[(Asked<'_>, &PairedScores)], asked: &str) -> String {
    let who = match rows {
        [(only, _)] => format!("No loss of accuracy is shown for {}", only.name()),
        all => format!("No loss of accuracy is shown for any of {}", counted(all.len() as u64, "cousin")),
    };
    let effects = rows.iter().filter_map(|(_, scores)| visible_loss(scores));
    match effects.max_by(f64::total_cmp) {
        None => format!("{who} on {asked}"),
        Some(effect) => {
            format!("{who} on {asked} (a loss of {} points would have been)", number(effect * 100.0, 2))
        }
    }
}

/// "; but the predictions of Q2_K moved clearly": what no answer shows and a reader must not miss.
fn clearly_moved(comparison: &Comparison) -> String {
    let all = super::cousins(comparison);
    let moved: Vec<String> = all
        .iter()
        .filter(|cousin| matches!(cousin.grade, Grade::Clear | Grade::Broken))
        .map(|cousin| visible(&cousin.model.label))
        .collect();
    match (moved.len(), all.len()) {
        (0, _) => String::new(),
        (1, 1) => "; but its predictions moved clearly".to_owned(),
        (n, all) if n == all => "; but their predictions moved clearly".to_owned(),
        _ => format!("; but the predictions of {} moved clearly", some_of(&moved)),
    }
}

/// The smallest loss that the questions would have shown.
fn visible_loss(scores: &PairedScores) -> Option<f64> {
    scores.minimum_detectable_effect.filter(|effect| effect.is_finite() && *effect > 0.0)
}

/// Figures that say something about intervals where no text was scored.
pub(super) fn figures(comparison: &Comparison) -> impl Iterator<Item = &Estimate> {
    let differences = cousins(comparison).into_iter().map(|(_, scores)| &scores.difference);
    let alone = comparison.base_questions.iter().flat_map(|side| &side.tasks).map(|row| &row.score);
    differences.chain(alone)
}

/// What every cousin kept, the largest loss first.
pub(super) fn verdict(comparison: &Comparison) -> Vec<Sentence> {
    let rows = cousins(comparison);
    if nothing_to_learn(&rows).is_some() {
        return Vec::new();
    }
    let mut sentences = losses(&rows);
    sentences.extend(not_shown(&rows));
    sentences
}

/// What is no figure of a single cousin, and what is easily misread, most important first.
pub(super) fn findings(comparison: &Comparison) -> Vec<Sentence> {
    let rows = cousins(comparison);
    let mut sentences: Vec<Sentence> = nothing_to_learn(&rows).into_iter().collect();
    if sentences.is_empty() {
        sentences.extend(gains(&rows));
    }
    sentences.extend(at_chance(comparison));
    sentences.extend(written(comparison));
    sentences.extend(comparison.foreign.iter().map(other_vocabulary));
    if rows.is_empty() {
        sentences.extend(base_alone(comparison));
    }
    sentences
}

/// Every cousin but the noise floor, with its figures over all questions, or over the only task.
pub(super) fn cousins(comparison: &Comparison) -> Vec<(Asked<'_>, &PairedScores)> {
    let asked = questions::asked(comparison).into_iter().filter(|a| a.index.is_some());
    asked.filter_map(|cousin| Some((cousin, overall(&cousin)?))).collect()
}

/// A cousin's figures over all questions, or over the only task; `None` for the noise floor.
pub fn scores_of(comparison: &Comparison, index: Option<usize>) -> Option<&PairedScores> {
    overall(questions::asked(comparison).iter().find(|asked| asked.index == index)?)
}

fn overall<'a>(cousin: &Asked<'a>) -> Option<&'a PairedScores> {
    let only = match questions::tasks(&[*cousin]).as_slice() {
        [only] => only.first(),
        _ => None,
    };
    only.or(cousin.questions.overall.as_ref())
}

/// Nothing where base only guesses.
fn nothing_to_learn(rows: &[(Asked<'_>, &PairedScores)]) -> Option<Sentence> {
    let (_, first) = rows.first()?;
    let reason = first.uninformative.as_ref()?;
    rows.iter().all(|(_, scores)| scores.uninformative.is_some()).then(|| {
        caution(format!(
            "Nothing about a loss can be learnt from {} together: {}.",
            counted(first.samples as u64, "question"),
            visible(reason)
        ))
    })
}

fn losses(rows: &[(Asked<'_>, &PairedScores)]) -> Vec<Sentence> {
    let mut lost: Vec<_> = rows.iter().filter(|(_, scores)| is_loss(scores)).collect();
    lost.sort_by(|(_, a), (_, b)| a.difference.value.total_cmp(&b.difference.value));
    let mut sentences: Vec<Sentence> = lost
        .iter()
        .take(NAMED)
        .map(|(cousin, scores)| plain(kept(cousin, scores) + &worst(cousin) + "."))
        .collect();
    if let Some((_, more)) = lost.split_at_checked(NAMED).filter(|(_, more)| !more.is_empty()) {
        let names: Vec<String> = more.iter().map(|(cousin, _)| cousin.name()).collect();
        sentences.push(plain(format!("A loss is also shown for {}.", listed(&names))));
    }
    sentences
}

/// "Q2_K keeps 91.2 % [86.0, 96.4] of base's accuracy on 720 questions (81.1 % → 74.0 %, …)".
fn kept(cousin: &Asked<'_>, scores: &PairedScores) -> String {
    let from_to =
        format!("{} % → {} %", Figure::percent(&scores.base).alone(), Figure::percent(&scores.quant).alone());
    let above = above_guessing(scores).map(|above| format!(", {above}")).unwrap_or_default();
    format!("{} {} ({from_to}{above})", cousin.name(), keeps(scores))
}

/// "keeps 91.2 % [86.0, 96.4] of base's accuracy on 720 questions".
fn keeps(scores: &PairedScores) -> String {
    let asked = counted(scores.samples as u64, "question");
    match &scores.recovery {
        Some(recovery) => {
            format!("keeps {} of base's accuracy on {asked}", percent(&Figure::percent(recovery)))
        }
        None => {
            let points = Figure::percent(&scores.difference).signed_with_interval();
            format!("scores {points} points against base on {asked}")
        }
    }
}

/// "81.3 % [76, 86] of what is above guessing".
fn above_guessing(scores: &PairedScores) -> Option<String> {
    let above = scores.chance_corrected_recovery.as_ref()?;
    Some(format!("{} of what is above guessing", percent(&Figure::percent(above))))
}

/// A cousin's answers in a sentence without its name and full stop.
pub(super) fn said_of(cousin: &Asked<'_>, scores: &PairedScores) -> String {
    if let Some(reason) = &scores.uninformative {
        let asked = counted(scores.samples as u64, "question");
        return format!("nothing about a loss can be learnt from {asked}: {}", visible(reason));
    }
    let flips = scores.flips.as_ref();
    if flips.is_some_and(|flips| flips.answer_changes == 0.0) {
        return format!("the same answer as base's to all {}", counted(scores.samples as u64, "question"));
    }
    match (is_loss(scores), is_shown(scores)) {
        (true, _) => {
            let above = above_guessing(scores).map(|above| format!(" ({above})")).unwrap_or_default();
            keeps(scores) + &above + &worst(cousin)
        }
        (_, true) => format!("{}: its answers changed, which is no improvement", keeps(scores)),
        _ => keeps(scores) + &no_loss(scores) + &worst(cousin).replacen("; worst:", ". It is shown for", 1),
    }
}

/// ": a loss is not shown, and only one of 1.9 points or more would have been".
fn no_loss(scores: &PairedScores) -> String {
    let effect = visible_loss(scores).map(|effect| {
        format!(", and only one of {} points or more would have been", number(effect * 100.0, 2))
    });
    format!(": a loss is not shown{}", effect.unwrap_or_default())
}

/// Where a loss is shown.
struct Place {
    /// "Thai", "reasoning/sums at 4 digits": for a list. Foreign text, made visible.
    name: String,
    /// "Thai (−6.7 points)": the same with its figure.
    with_figure: String,
}

/// "; worst: Thai (−6.7 points) and arithmetic (−4.1 points, first at 4 digits)", of what is shown.
fn worst(cousin: &Asked<'_>) -> String {
    let places: Vec<String> = places(cousin).into_iter().map(|place| place.with_figure).collect();
    if places.is_empty() { String::new() } else { format!("; worst: {}", listed(&places)) }
}

/// The language and the tasks with the largest losses, of what is shown.
fn places(cousin: &Asked<'_>) -> Vec<Place> {
    let points = |scores: &PairedScores| format!("{} points", Figure::percent(&scores.difference).signed());
    let worst = cousin.questions.worst_language.as_deref();
    let language = worst.and_then(|tag| cousin.questions.languages.iter().find(|l| l.language == tag));
    let language = language.filter(|l| is_loss(&l.scores));
    let mut places: Vec<Place> = language
        .iter()
        .map(|l| {
            let name = visible(questions::language(&l.language));
            Place { with_figure: format!("{name} ({})", points(&l.scores)), name }
        })
        .collect();
    let level = |row: &QuestionComparison| {
        let at = row.falls_off_at?;
        let unit = row.levels.iter().find(|l| l.value == at)?.unit.as_str();
        Some(questions::level_name(at, unit))
    };
    // A task of the language just named would say the same again.
    let named = language.map(|l| l.language.as_str());
    let tasks = questions::headlines(&cousin.questions.tasks, |row| &row.key);
    let several = tasks.len() > 1;
    let mut lost: Vec<&QuestionComparison> = tasks
        .into_iter()
        .filter(|row| questions::is_share(&row.key))
        .filter(|row| row.falls_off_at.is_some() || (several && is_loss(&row.scores)))
        .filter(|row| row.falls_off_at.is_some() || named.is_none() || row.key.language.as_deref() != named)
        .collect();
    lost.sort_by(|a, b| a.scores.difference.value.total_cmp(&b.scores.difference.value));
    places.extend(lost.iter().take(NAMED - 1).map(|row| {
        let task = visible(&row.key.task);
        let at = level(row);
        let name = at.as_ref().map_or_else(|| task.clone(), |at| format!("{task} at {at}"));
        let with_figure = match (several && is_loss(&row.scores), at) {
            (true, Some(level)) => format!("{task} ({}, first at {level})", points(&row.scores)),
            (true, None) => format!("{task} ({})", points(&row.scores)),
            (false, Some(level)) => format!("{task} at {level}"),
            (false, None) => task,
        };
        Place { name, with_figure }
    }));
    places
}

/// More right answers than base's: a change.
fn gains(rows: &[(Asked<'_>, &PairedScores)]) -> Vec<Sentence> {
    let gained = rows.iter().filter(|(_, scores)| is_shown(scores) && scores.difference.value > 0.0);
    let say = |(cousin, scores): &(Asked<'_>, &PairedScores)| {
        caution(format!(
            "{} gets more of {} right than base ({} points): its answers changed, and there is nothing that \
             quantization could have taught it.",
            cousin.name(),
            counted(scores.samples as u64, "question"),
            Figure::percent(&scores.difference).signed_with_interval()
        ))
    };
    gained.map(say).collect()
}

/// Cousins of which no difference is shown: what would have been.
fn not_shown(rows: &[(Asked<'_>, &PairedScores)]) -> Vec<Sentence> {
    let quiet: Vec<&(Asked<'_>, &PairedScores)> =
        rows.iter().filter(|(_, scores)| !is_shown(scores) && scores.uninformative.is_none()).collect();
    let same = |scores: &PairedScores| scores.flips.as_ref().is_some_and(|f| f.answer_changes == 0.0);
    let mut sentences = Vec::new();
    let equal: Vec<String> = quiet.iter().filter(|(_, s)| same(s)).map(|(cousin, _)| cousin.name()).collect();
    if let (false, Some((_, scores))) = (equal.is_empty(), quiet.iter().find(|(_, s)| same(s))) {
        let all = counted(scores.samples as u64, "question");
        sentences.push(plain(format!("{}: the same answer as base's to all {all}.", listed(&equal))));
    }
    let quiet: Vec<_> = quiet.into_iter().filter(|(_, scores)| !same(scores)).collect();
    for (cousin, scores) in quiet.iter().take(NAMED) {
        let mut text = kept(cousin, scores) + &no_loss(scores);
        text += &worst(cousin).replacen("; worst:", ". It is shown for", 1);
        sentences.push(plain(text + "."));
    }
    if let Some((_, more)) = quiet.split_at_checked(NAMED).filter(|(_, more)| !more.is_empty()) {
        let names: Vec<String> = more.iter().map(|(cousin, _)| cousin.name()).collect();
        sentences.push(plain(format!("A loss is not shown for {} either.", listed(&names))));
    }
    sentences
}

/// Tasks of which base knows nothing.
fn at_chance(comparison: &Comparison) -> Option<Sentence> {
    let asked: Vec<Asked<'_>> =
        questions::asked(comparison).into_iter().filter(|a| a.index.is_some()).collect();
    let tasks = questions::tasks(&asked);
    let without: Vec<String> =
        tasks.iter().filter(|line| line.uninformative().is_some()).map(|line| visible(&line.name)).collect();
    if without.is_empty() || tasks.len() < 2 {
        return None;
    }
    let names = some_of(&without);
    Some(caution(format!(
        "{} of {} say nothing about a loss, because base is not shown to know more there than guessing gives: {names}.",
        count(without.len() as u64),
        counted(tasks.len() as u64, "task")
    )))
}

/// The first few names, and how many more there are.
fn some_of(names: &[String]) -> String {
    match names.split_at_checked(NAMED) {
        Some((first, more)) if !more.is_empty() => format!("{} and {} more", first.join(", "), more.len()),
        _ => listed(names),
    }
}

/// What happened to written answers.
fn written(comparison: &Comparison) -> Vec<Sentence> {
    let mut sentences = Vec::new();
    let least = comparison.quants.iter().flat_map(|q| {
        q.generations.iter().map(move |g| (q, g)).filter(|(_, g)| g.figures.identical.value.is_finite())
    });
    let least = least.min_by(|a, b| a.1.figures.identical.value.total_cmp(&b.1.figures.identical.value));
    if let Some((quant, task)) = least {
        let g = &task.figures;
        let trace = quant.traces.iter().find(|t| t.task == task.task).and_then(|t| t.metrics.as_ref());
        let forks = trace.map(|t| {
            let share = number((1.0 - t.top1_agreement.value) * 100.0, 2);
            format!("; reading base's own answers, it would go another way at {share} % of the tokens")
        });
        sentences.push(plain(format!(
            "{} writes base's answer to the last token for {} % of {} of {}{}.",
            visible(&quant.model.label),
            Figure::percent(&g.identical).with_interval(),
            counted(g.samples as u64, "prompt"),
            visible(&task.task),
            forks.unwrap_or_default()
        )));
    }
    for quant in &comparison.quants {
        for task in &quant.generations {
            let g = &task.figures;
            let worse = [
                ("repeats itself more than base", &g.base_repetition, &g.quant_repetition),
                ("runs out of tokens more often than base", &g.base_truncated, &g.quant_truncated),
                (
                    "leaves its thinking open more often than base",
                    &g.base_unclosed_think,
                    &g.quant_unclosed_think,
                ),
            ];
            let shown = worse.iter().filter(|(_, base, quant)| lies_above(quant, base));
            sentences.extend(shown.map(|(what, base, own)| {
                caution(format!(
                    "{} {what} in {}: {} % against {} %.",
                    visible(&quant.model.label),
                    visible(&task.task),
                    Figure::percent(own).with_interval(),
                    Figure::percent(base).with_interval()
                ))
            }));
        }
    }
    sentences
}

/// Whether the whole interval of `a` lies above that of `b`.
fn lies_above(a: &Estimate, b: &Estimate) -> bool {
    let top = b.upper.or((b.value == 0.0).then_some(0.0));
    matches!((a.lower, top), (Some(low), Some(top)) if low > top)
}

fn other_vocabulary(foreign: &ForeignComparison) -> Sentence {
    let changes: Vec<String> = foreign
        .bytes
        .iter()
        .take(NAMED)
        .map(|task| {
            let change = Figure::from(&task.figures.delta_bits_per_byte).signed_with_interval();
            format!("{} ({change})", visible(&task.task))
        })
        .collect();
    let bytes = match changes.as_slice() {
        [] => String::new(),
        changes => format!(" Change in bits per byte against base: {}.", listed(changes)),
    };
    // Of sample files nothing is known but what was answered.
    let why = if foreign.model.format == "samples" {
        "is compared by answers alone"
    } else {
        "has another vocabulary"
    };
    caution(format!(
        "{} {why} ({}), so there is no KL divergence; it is compared by bytes and answers.{bytes}",
        visible(&foreign.model.label),
        visible(foreign.reason.trim_end_matches('.'))
    ))
}

/// One model alone: what it gets right, and where it only guesses.
fn base_alone(comparison: &Comparison) -> Vec<Sentence> {
    let Some(side) = &comparison.base_questions else { return Vec::new() };
    let tasks = questions::headlines(&side.tasks, |row| &row.key);
    let shares: Vec<_> =
        tasks.into_iter().filter(|row| questions::is_share(&row.key) && row.samples > 0).collect();
    let mut sentences = Vec::new();
    let label = visible(&comparison.base.label);
    let by_score = |a: &f64, b: &f64| a.total_cmp(b);
    let best = shares.iter().max_by(|a, b| by_score(&a.score.value, &b.score.value));
    let worst = shares.iter().min_by(|a, b| by_score(&a.score.value, &b.score.value));
    if let (Some(best), Some(worst)) = (best, worst) {
        let percent = |row: &SideScores| {
            format!("{} % on {}", Figure::percent(&row.score).with_interval(), visible(&row.key.task))
        };
        sentences.push(plain(match shares.len() {
            1 => format!("{label} gets {} right.", percent(best)),
            n => format!("{label} answers {n} tasks, from {} to {}.", percent(worst), percent(best)),
        }));
    }
    let guesses = |row: &&&SideScores| {
        row.chance.is_some_and(|chance| row.score.lower.unwrap_or(row.score.value) <= chance)
    };
    let guessed: Vec<String> = shares.iter().filter(guesses).map(|row| visible(&row.key.task)).collect();
    if !guessed.is_empty() {
        let names = some_of(&guessed);
        sentences.push(caution(format!("{label} is not shown to do better than guessing on {names}.")));
    }
    sentences
}

#[cfg(test)]
mod tests {
    use super::super::super::fixture;
    use super::*;

    fn text_of(comparison: &Comparison) -> String {
        let all = verdict(comparison).into_iter().chain(findings(comparison));
        all.map(|s| s.text.replace('\u{a0}', " ") + "\n").collect()
    }

    #[test]
    fn a_loss_is_said_with_its_places() {
        let comparison = fixture::with_questions();
        let text = text_of(&comparison);
        let first = text.lines().next().unwrap();
        assert!(
            first.starts_with("polyglot6m-Q2_K keeps ")
                && first.contains("] of base's accuracy on 809 questions ("),
            "{text}"
        );
        assert!(first.contains("; worst: Thai (−35.6 points), reasoning/sums (−"), "{text}");
        assert!(first.contains(" points, first at 4 digits) and passages/en (−"), "{text}");
        assert!(
            text.contains("1 of 5 tasks say nothing about a loss") && text.contains("reasoning/riddles"),
            "{text}"
        );
        assert!(text.contains("other-4b has another vocabulary"), "{text}");
        assert!(text.contains("polyglot6m-Q2_K repeats itself more than base in reasoning/sums"), "{text}");
    }

    #[test]
    fn what_is_not_shown_is_never_called_equal() {
        let mut comparison = fixture::with_questions();
        comparison.foreign.clear();
        let text = text_of(&comparison);
        let quiet = text.lines().find(|line| line.starts_with("polyglot6m-Q8_0 keeps")).unwrap();
        assert!(quiet.contains(": a loss is not shown, and only one of "), "{quiet}");
        assert!(quiet.contains(" points or more would have been"), "{quiet}");
        for claim in ["no difference", "equivalent", "lossless", "as good as", "identical to base"] {
            assert!(!text.contains(claim), "{claim}: {text}");
        }
    }

    #[test]
    fn sentences_follow_the_figures() {
        let mut comparison = fixture::with_questions();
        comparison.quants.remove(0);
        comparison.foreign.clear();
        let overall = |c: &mut Comparison, change: &dyn Fn(&mut PairedScores)| {
            change(c.quants[0].questions.as_mut().unwrap().overall.as_mut().unwrap());
        };
        overall(&mut comparison, &|scores| scores.recovery = Some(fixture::estimate(0.912, 0.05)));
        assert!(
            text_of(&comparison).contains("keeps 91.2 % [86.2, 96.2] of base's accuracy"),
            "{}",
            text_of(&comparison)
        );
        overall(&mut comparison, &|scores| {
            scores.difference = fixture::estimate(0.05, 0.02);
            scores.test.as_mut().unwrap().p = 1e-6;
        });
        let text = text_of(&comparison);
        assert!(
            text.contains("gets more of 809 questions right than base (+5.0 [+3.0, +7.0] points)"),
            "{text}"
        );
        overall(&mut comparison, &|scores| {
            scores.difference = fixture::estimate(0.0, 0.001);
            scores.test.as_mut().unwrap().p = 1.0;
            let flips = scores.flips.as_mut().unwrap();
            (flips.flips, flips.answer_changes) = (0.0, 0.0);
        });
        assert!(text_of(&comparison).contains("the same answer as base's to all 809 questions"));
        overall(&mut comparison, &|scores| scores.uninformative = Some("base only guesses".to_owned()));
        assert!(verdict(&comparison).is_empty());
        let first = findings(&comparison).into_iter().next().unwrap();
        assert_eq!(
            first.text,
            "Nothing about a loss can be learnt from 809 questions together: base only guesses."
        );
        assert_eq!(first.tone, super::super::Tone::Caution);
    }

    #[test]
    fn the_headline_leads_with_accuracy_and_follows_it() {
        let said = |c: &Comparison| super::super::headline(c).replace('\u{a0}', " ");
        let mut comparison = fixture::with_questions();
        comparison.foreign.clear();
        let text = said(&comparison);
        assert!(
            text.starts_with("polyglot6m-Q8_0 keeps ") && text.contains("] of polyglot6m’s accuracy, "),
            "{text}"
        );
        assert!(text.ends_with("; Thai, reasoning/sums at 4 digits and passages/en are worst"), "{text}");
        for quant in &mut comparison.quants {
            quant.overall.scored_tokens = 0;
            quant.overall.kl_divergence.mean.value = f64::NAN;
        }
        assert_eq!(said(&comparison), text, "text is not needed for it");
        assert!(!super::super::verdict(&comparison).iter().any(|s| s.text.contains("finite")));
        comparison.quants.remove(0);
        let overall = |c: &mut Comparison| c.quants[0].questions.as_mut().unwrap().overall.clone().unwrap();
        let mut scores = overall(&mut comparison);
        scores.recovery = Some(fixture::estimate(0.912, 0.05));
        comparison.quants[0].questions.as_mut().unwrap().overall = Some(scores.clone());
        let text = said(&comparison);
        assert!(
            text.starts_with("polyglot6m-Q2_K keeps 91.2 % [86.2, 96.2] of polyglot6m’s accuracy; Thai"),
            "{text}"
        );
        scores.test.as_mut().unwrap().p = 0.3;
        scores.minimum_detectable_effect = Some(0.031);
        comparison.quants[0].questions.as_mut().unwrap().overall = Some(scores.clone());
        assert_eq!(
            said(&comparison),
            "No loss of accuracy is shown for polyglot6m-Q2_K on 809 questions (a loss of 3.1 points would have been)"
        );
        let mut moved = comparison.clone();
        moved.quants[0].overall = fixture::comparison().quants[3].overall.clone();
        assert!(
            said(&moved).ends_with(" would have been); but its predictions moved clearly"),
            "{}",
            said(&moved)
        );
        scores.uninformative = Some("base only guesses".to_owned());
        comparison.quants[0].questions.as_mut().unwrap().overall = Some(scores);
        assert_eq!(said(&comparison), "Nothing can be learnt from 809 questions: base knows too little");
    }

    #[test]
    fn a_model_alone_is_described_and_not_compared() {
        let comparison = fixture::alone();
        let headline = super::super::headline(&comparison);
        assert!(headline.starts_with("polyglot6m: perplexity 46.5 and answers to 5 tasks"), "{headline}");
        let text = text_of(&comparison);
        assert!(text.contains("polyglot6m answers 5 tasks, from "), "{text}");
        assert!(text.contains("is not shown to do better than guessing on reasoning/riddles."), "{text}");
        assert!(
            super::super::about_intervals(&comparison)
                .starts_with("Brackets are 95 % intervals over 40 clusters")
        );
    }
}
