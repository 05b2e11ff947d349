//! Where a loss is uneven: which languages lost most, and how a loss grows with difficulty.
//!
//! Only what is shown: losses by language and by level after Holm, or, of cousins whose answers show none by language,
//! divergences on text whose intervals do not touch. It must not know the terminal or the page. Plain text, not yet escaped.

use std::collections::BTreeMap;

use crate::comparison::tasks::PairedScores;
use crate::comparison::{Comparison, QuantComparison};

use super::super::format::{Figure, listed, number, visible};
use super::super::questions::{self, Asked, is_loss};
use super::{Sentence, is_identical, name, plain};

/// Cousins and languages that are named.
const NAMED: usize = 3;
/// Text of one language must diverge at least so many times as much as that of another to be worth a sentence.
const SPREAD: f64 = 2.0;
/// Levels that a sentence can hold.
const LEVELS: usize = 4;

/// What is uneven, for the cousins where it is most so.
pub(super) fn uneven(comparison: &Comparison) -> Vec<Sentence> {
    let asked: Vec<Asked<'_>> =
        questions::asked(comparison).into_iter().filter(|cousin| cousin.index.is_some()).collect();
    let mut sentences = languages(comparison, &asked);
    sentences.extend(levels(comparison, &asked));
    sentences
}

fn languages(comparison: &Comparison, asked: &[Asked<'_>]) -> Vec<Sentence> {
    let mut by_answers: Vec<(&Asked<'_>, f64, String)> = asked
        .iter()
        .filter_map(|cousin| by_answers(cousin).map(|(loss, text)| (cousin, loss, text)))
        .collect();
    by_answers.sort_by(|a, b| a.1.total_cmp(&b.1));
    let told: Vec<Option<usize>> = by_answers.iter().map(|(cousin, ..)| cousin.index).collect();
    // Text stands in where answers show nothing by language: of the cousin that it moved most, the others are much alike.
    let by_text = comparison.quants.iter().enumerate().filter(|(index, _)| !told.contains(&Some(*index)));
    let by_text = by_text.filter_map(|(_, quant)| by_text_of(comparison, quant));
    let by_text = by_text.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, text)| text);
    by_answers.into_iter().take(NAMED).map(|(.., text)| text).chain(by_text).map(plain).collect()
}

/// "Q2_K: Arabic, Hindi and Greek lost most (−31, −25 and −20 points); a loss is shown in 7 of 9 languages": the
/// largest loss and the sentence; of at least two languages with a shown loss.
fn by_answers(cousin: &Asked<'_>) -> Option<(f64, String)> {
    let all = &cousin.questions.languages;
    let mut lost: Vec<(&str, &PairedScores)> =
        all.iter().filter(|l| is_loss(&l.scores)).map(|l| (l.language.as_str(), &l.scores)).collect();
    lost.sort_by(|a, b| a.1.difference.value.total_cmp(&b.1.difference.value));
    let (first, _) = lost.split_first().filter(|(_, more)| !more.is_empty())?;
    let most = lost.iter().take(NAMED);
    let names: Vec<String> = most.clone().map(|(tag, _)| visible(questions::language(tag))).collect();
    let points: Vec<String> = most.map(|(_, s)| Figure::percent(&s.difference).signed()).collect();
    let text = format!(
        "{}: {} lost most ({} points); a loss is shown in {} of {} languages.",
        cousin.name(),
        listed(&names),
        listed(&points),
        lost.len(),
        all.len()
    );
    Some((first.1.difference.value, text))
}

/// Mean KL divergence of a language's text, with the ends of its interval.
#[derive(Clone, Copy, Default)]
struct OnText {
    tokens: f64,
    value: f64,
    lower: f64,
    upper: f64,
}

/// "Q2_K moved furthest in Arabic, Hindi and Greek (mean KL 0.31, 0.29 and 0.25 nats, against 0.050 in English)", with
/// the first of these figures. Only where the interval of the first lies above that of the last.
fn by_text_of(comparison: &Comparison, quant: &QuantComparison) -> Option<(f64, String)> {
    if is_identical(&quant.overall) {
        return None;
    }
    let mut languages = BTreeMap::<&str, OnText>::new();
    for task in &quant.tasks {
        let card = comparison.tasks.iter().find(|card| card.name == task.task);
        let tag = card.and_then(|card| card.language.as_deref()).filter(|tag| *tag != "und");
        let (Some(tag), Some(metrics)) = (tag, &task.metrics) else { continue };
        let figure = Figure::from(&metrics.kl_divergence.mean);
        let ((lower, upper), tokens) = (figure.ends(), metrics.scored_tokens as f64);
        let of = languages.entry(tag).or_default();
        of.tokens += tokens;
        of.value += metrics.kl_divergence.mean.value * tokens;
        // Of several tasks together never narrower than it is.
        of.lower += lower * tokens;
        of.upper += upper * tokens;
    }
    let mut means: Vec<(&str, OnText)> = languages
        .into_iter()
        .filter(|(_, sum)| sum.tokens > 0.0 && sum.value.is_finite())
        .map(|(tag, sum)| {
            let mean = |x: f64| x / sum.tokens;
            let (value, lower, upper) = (mean(sum.value), mean(sum.lower), mean(sum.upper));
            (tag, OnText { value, lower, upper, ..sum })
        })
        .collect();
    means.sort_by(|a, b| b.1.value.total_cmp(&a.1.value));
    let [(_, most), .., (least_tag, least)] = means.as_slice() else { return None };
    if !(most.value >= SPREAD * least.value && most.lower > least.upper) {
        return None;
    }
    // Of few languages the best is not among the worst.
    let named = NAMED.min(means.len() / 2);
    let names: Vec<String> =
        means.iter().take(named).map(|(tag, _)| visible(questions::language(tag))).collect();
    let values: Vec<String> = means.iter().take(named).map(|(_, of)| number(of.value, 2)).collect();
    let text = format!(
        "{} moved furthest in {} (mean KL {} nats on text, against {} in {}).",
        name(quant),
        listed(&names),
        listed(&values),
        number(least.value, 2),
        visible(questions::language(least_tag))
    );
    Some((most.value, text))
}

/// "Q2_K: losses grow with digits in reasoning/sums: 1 digit 0 points, 2 digits −3 points, 4 digits −45 points", for
/// the cousins that lose most.
///
/// They grow where the interval of the largest loss, which is shown and not at the easiest level, lies wholly below that
/// of the easiest level. Levels at which base gets nothing right are left out: nothing can be lost there.
fn levels(comparison: &Comparison, asked: &[Asked<'_>]) -> Vec<Sentence> {
    let mut found: Vec<(f64, String)> = Vec::new();
    for family in questions::families(comparison, asked) {
        for (position, cousin) in asked.iter().enumerate() {
            let rows: Vec<(u32, &PairedScores)> = family
                .levels
                .iter()
                .filter_map(|level| Some((*level, family.at(position, *level)?)))
                .filter(|(_, scores)| scores.base.value > 0.0 && scores.difference.value.is_finite())
                .collect();
            let Some((easiest, harder)) = rows.split_first() else { continue };
            let by_loss = |a: &&(u32, &PairedScores), b: &&(u32, &PairedScores)| {
                a.1.difference.value.total_cmp(&b.1.difference.value)
            };
            let Some(worst) = harder.iter().filter(|(_, scores)| is_loss(scores)).min_by(by_loss) else {
                continue;
            };
            let ends = |scores: &PairedScores| Figure::from(&scores.difference).ends();
            if ends(worst.1).1 >= ends(easiest.1).0 {
                continue;
            }
            let upto: Vec<&(u32, &PairedScores)> = rows.iter().filter(|row| row.0 <= worst.0).collect();
            // The first and the last ones: the way down lies before the worst.
            let skipped = upto.len().saturating_sub(LEVELS);
            let shown = upto.iter().enumerate().filter(|(i, _)| *i == 0 || *i > skipped);
            let parts: Vec<String> = shown
                .map(|(_, (level, scores))| {
                    let points = Figure::percent(&scores.difference).signed();
                    format!("{} {points} points", questions::level_name(*level, family.unit))
                })
                .collect();
            let grows = match visible(family.unit).trim() {
                "" | "level" => "difficulty".to_owned(),
                unit => unit.to_owned(),
            };
            let text = format!(
                "{}: losses grow with {grows} in {}: {}.",
                cousin.name(),
                visible(family.name),
                parts.join(", ")
            );
            found.push((worst.1.difference.value, text));
        }
    }
    found.sort_by(|a, b| a.0.total_cmp(&b.0));
    found.into_iter().take(NAMED).map(|(_, text)| plain(text)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::fixture::{self, estimate};
    use super::*;
    use crate::comparison::tasks::LanguageScores;

    fn text_of(comparison: &Comparison) -> String {
        uneven(comparison).into_iter().map(|s| s.text.replace('\u{a0}', " ") + "\n").collect()
    }

    /// A cousin's language with this difference, shown or not.
    fn set(languages: &mut [LanguageScores], tag: &str, difference: f64, p: f64) {
        let of = languages.iter_mut().find(|l| l.language == tag).unwrap();
        of.scores.difference = estimate(difference, 0.02);
        of.scores.p_holm = Some(p);
    }

    #[test]
    fn the_languages_that_lost_most_are_named_in_order() {
        let mut comparison = fixture::with_questions();
        comparison.foreign.clear();
        let languages = &mut comparison.quants[1].questions.as_mut().unwrap().languages;
        set(languages, "en", -0.05, 0.4);
        set(languages, "ru", -0.2, 0.001);
        set(languages, "th", -0.31, 0.001);
        let text = text_of(&comparison);
        let wanted = "polyglot6m-Q2_K: Thai and Russian lost most (−31.0 and −20.0 points); a loss is shown in 2 of 3 \
                      languages.";
        assert!(text.contains(wanted), "{text}");
        assert!(!text.contains("polyglot6m-Q8_0: "), "it lost in no language: {text}");
        set(&mut comparison.quants[1].questions.as_mut().unwrap().languages, "ru", -0.2, 0.2);
        assert!(!text_of(&comparison).contains("lost most"), "one language is named among the worst places");
    }

    #[test]
    fn text_speaks_where_no_answer_shows_a_language() {
        let mut comparison = fixture::comparison();
        comparison.quants.truncate(1);
        for (card, tag) in comparison.tasks.iter_mut().zip(["en", "ru", "th"]) {
            card.language = Some(tag.to_owned());
        }
        let set = |comparison: &mut Comparison, kls: [f64; 3], half: f64| {
            for (task, kl) in comparison.quants[0].tasks.iter_mut().zip(kls) {
                task.metrics.as_mut().unwrap().kl_divergence.mean = estimate(kl, half);
            }
        };
        set(&mut comparison, [0.05, 0.31, 0.06], 0.01);
        assert_eq!(
            text_of(&comparison),
            "polyglot6m-Q8_0 moved furthest in Russian (mean KL 0.31 nats on text, against 0.050 in English).\n"
        );
        set(&mut comparison, [0.05, 0.31, 0.06], 0.14);
        assert_eq!(text_of(&comparison), "", "their intervals touch");
        set(&mut comparison, [0.05, 0.09, 0.06], 0.001);
        assert_eq!(text_of(&comparison), "", "less than twice as much");
        for card in &mut comparison.tasks {
            card.language = Some("en".to_owned());
        }
        set(&mut comparison, [0.05, 0.31, 0.06], 0.01);
        assert_eq!(text_of(&comparison), "", "one language is not uneven");
    }

    #[test]
    fn losses_that_grow_with_difficulty_are_said_level_by_level() {
        let mut comparison = fixture::with_questions();
        comparison.foreign.clear();
        let mut set = |differences: [f64; 5], base: f64| {
            let tasks = &mut comparison.quants[1].questions.as_mut().unwrap().tasks;
            let sums = tasks.iter_mut().find(|row| row.key.task == "reasoning/sums").unwrap();
            for (level, difference) in sums.levels.iter_mut().zip(differences) {
                level.scores.difference = estimate(difference, 0.05);
                level.scores.p_holm = Some(if difference < -0.1 { 0.001 } else { 0.5 });
                level.scores.base = estimate(base, 0.05);
            }
            text_of(&comparison)
        };
        let text = set([0.0, -0.03, -0.2, -0.45, -0.3], 0.9);
        let wanted = "polyglot6m-Q2_K: losses grow with digits in reasoning/sums: 1 digit 0 points, 2 digits −3.0 \
                      points, 3 digits −20.0 points, 4 digits −45.0 points.";
        assert!(text.contains(wanted), "{text}");
        let text = set([0.0, -0.03, -0.03, -0.2, -0.45], 0.9);
        assert!(text.contains("sums: 1 digit 0 points, 3 digits −3.0 points, 4 digits"), "{text}");
        for (differences, base, why) in [
            ([-0.45; 5], 0.9, "the same at every level"),
            ([-0.4, -0.3, -0.2, -0.1, 0.0], 0.9, "it grows less"),
            ([0.0, -0.05, -0.05, -0.09, -0.09], 0.9, "none is shown"),
            ([0.0, -0.03, -0.2, -0.45, -0.3], 0.0, "base gets nothing right"),
        ] {
            assert!(!set(differences, base).contains("losses grow"), "{why}");
        }
    }
}
