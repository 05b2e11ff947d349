//! What answers show, in sentences: how much of base's accuracy is kept, where it is lost first, and what could not
//! be seen at all. No significant difference is never called no difference: the loss that would have been shown is
//! said instead.

use crate::comparison::tasks::{PairedScores, QuestionComparison, SideScores};
use crate::comparison::{Comparison, ForeignComparison};
use crate::stats::Estimate;

use super::super::format::{Figure, count, counted, listed, number, visible};
use super::super::questions::{self, Asked, is_loss, is_shown};
use super::{Sentence, caution, plain};

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

/// The headline where only answers can be compared; `None` without any.
pub(super) fn headline(comparison: &Comparison) -> Option<String> {
    let mut rows = cousins(comparison);
    rows.retain(|(_, scores)| scores.difference.value.is_finite());
    rows.sort_by(|(_, a), (_, b)| b.difference.value.total_cmp(&a.difference.value));
    let (first, best) = rows.first()?;
    let questions = counted(best.samples as u64, "question");
    if rows.iter().all(|(_, scores)| scores.uninformative.is_some()) {
        return Some(format!("Nothing can be learnt from {questions}: base knows too little"));
    }
    let points = |scores: &PairedScores| {
        format!("{} points of accuracy", Figure::percent(&scores.difference).signed_with_interval())
    };
    Some(match rows.as_slice() {
        [(only, scores)] => format!("{}: {} on {questions}", only.name(), points(scores)),
        [.., (last, _)] => format!(
            "{} keeps most of {}’s accuracy on {questions}, {} least",
            first.name(),
            visible(&comparison.base.label),
            last.name()
        ),
        [] => return None,
    })
}

/// Figures that say something about intervals where no text was scored.
pub(super) fn figures(comparison: &Comparison) -> impl Iterator<Item = &Estimate> {
    let differences = cousins(comparison).into_iter().map(|(_, scores)| &scores.difference);
    let alone = comparison.base_questions.iter().flat_map(|side| &side.tasks).map(|row| &row.score);
    differences.chain(alone)
}

/// All sentences about answers, most important first.
pub(super) fn verdict(comparison: &Comparison) -> Vec<Sentence> {
    let rows = cousins(comparison);
    let mut sentences = Vec::new();
    if let Some(nothing) = nothing_to_learn(&rows) {
        sentences.push(nothing);
    } else {
        sentences.extend(losses(&rows));
        sentences.extend(gains(&rows));
        sentences.extend(not_shown(&rows));
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
fn cousins(comparison: &Comparison) -> Vec<(Asked<'_>, &PairedScores)> {
    let asked: Vec<Asked<'_>> =
        questions::asked(comparison).into_iter().filter(|a| a.index.is_some()).collect();
    let mut rows: Vec<(Asked<'_>, &PairedScores)> = Vec::new();
    for cousin in asked {
        let only = match questions::tasks(&[cousin]).as_slice() {
            [only] => only.first(),
            _ => None,
        };
        rows.extend(only.or(cousin.questions.overall.as_ref()).map(|scores| (cousin, scores)));
    }
    rows
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

/// "Q2_K keeps 91.2 [86.0, 96.4] % of base's accuracy on 720 questions (81.1 % → 74.0 %)".
fn kept(cousin: &Asked<'_>, scores: &PairedScores) -> String {
    let asked = counted(scores.samples as u64, "question");
    let from_to =
        format!("{} % → {} %", Figure::percent(&scores.base).alone(), Figure::percent(&scores.quant).alone());
    let Some(recovery) = &scores.recovery else {
        let points = Figure::percent(&scores.difference).signed_with_interval();
        return format!("{} scores {points} points against base on {asked} ({from_to})", cousin.name());
    };
    let above = scores
        .chance_corrected_recovery
        .as_ref()
        .map(|above| format!(", {} % of what is above guessing", Figure::percent(above).with_interval()));
    format!(
        "{} keeps {} % of base's accuracy on {asked} ({from_to}{})",
        cousin.name(),
        Figure::percent(recovery).with_interval(),
        above.unwrap_or_default()
    )
}

/// "; worst: Thai (−6.7 points) and arithmetic (−4.1 points, first at 4 digits)", of what is shown.
fn worst(cousin: &Asked<'_>) -> String {
    let points = |scores: &PairedScores| format!("{} points", Figure::percent(&scores.difference).signed());
    let worst = cousin.questions.worst_language.as_deref();
    let language = worst.and_then(|tag| cousin.questions.languages.iter().find(|l| l.language == tag));
    let language = language.filter(|l| is_loss(&l.scores));
    let mut places: Vec<String> = language
        .iter()
        .map(|l| format!("{} ({})", visible(questions::language(&l.language)), points(&l.scores)))
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
        match (several && is_loss(&row.scores), level(row)) {
            (true, Some(level)) => format!("{task} ({}, first at {level})", points(&row.scores)),
            (true, None) => format!("{task} ({})", points(&row.scores)),
            (false, Some(level)) => format!("{task} at {level}"),
            (false, None) => task,
        }
    }));
    if places.is_empty() { String::new() } else { format!("; worst: {}", listed(&places)) }
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
    let visible_loss = |scores: &PairedScores| {
        let effect = scores.minimum_detectable_effect.filter(|effect| effect.is_finite() && *effect > 0.0);
        effect.map(|effect| number(effect * 100.0, 2))
    };
    let quiet: Vec<_> = quiet.into_iter().filter(|(_, scores)| !same(scores)).collect();
    for (cousin, scores) in quiet.iter().take(NAMED) {
        let mut text = kept(cousin, scores) + ": a loss is not shown";
        if let Some(effect) = visible_loss(scores) {
            text += &format!(", and only one of {effect} points or more would have been");
        }
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
        verdict(comparison).into_iter().map(|s| s.text.replace('\u{a0}', " ") + "\n").collect()
    }

    #[test]
    fn a_loss_is_said_with_its_places() {
        let comparison = fixture::with_questions();
        let text = text_of(&comparison);
        let first = text.lines().next().unwrap();
        assert!(
            first.starts_with("polyglot6m-Q2_K keeps ")
                && first.contains(" % of base's accuracy on 809 questions ("),
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
            text_of(&comparison).contains("keeps 91.2 [86.2, 96.2] % of base's accuracy"),
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
        let first = verdict(&comparison).into_iter().next().unwrap();
        assert_eq!(
            first.text,
            "Nothing about a loss can be learnt from 809 questions together: base only guesses."
        );
        assert_eq!(first.tone, super::super::Tone::Caution);
    }

    #[test]
    fn where_no_text_was_scored_the_answers_make_the_headline() {
        let mut comparison = fixture::with_questions();
        assert!(super::super::headline(&comparison).contains("closest to polyglot6m"));
        for quant in &mut comparison.quants {
            quant.overall.scored_tokens = 0;
            quant.overall.kl_divergence.mean.value = f64::NAN;
        }
        let headline = super::super::headline(&comparison);
        assert!(
            headline.starts_with("polyglot6m-Q8_0 keeps most of polyglot6m’s accuracy on 809 questions, "),
            "{headline}"
        );
        assert!(!super::super::verdict(&comparison).iter().any(|s| s.text.contains("finite")));
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
