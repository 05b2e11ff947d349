//! Every cousin in one word and one sentence, best first: the grade with its thresholds, and what it rests on.
//!
//! The word never says more than the figures: a loss that the questions could not have shown is "not shown", with the
//! smallest loss that they would have. It must not know the terminal or the page. Plain text, not yet escaped.

use crate::comparison::tasks::PairedScores;
use crate::comparison::{Comparison, ForeignComparison, ModelCard, QuantComparison, TokenMetrics};
use crate::stats::Estimate;

use super::super::format::{Figure, counted, number, visible};
use super::super::questions::is_loss;
use super::{capitalized, has_mean, is_identical, is_measured, mean_kl, questions, with_units_kept};

/// A cousin that keeps no more than this share of what base knows above guessing is broken.
const BROKEN_ACCURACY: f64 = 0.5;
/// One that has the same most likely token at fewer positions is broken.
const BROKEN_AGREEMENT: f64 = 0.5;
/// One whose perplexity is more than this many times base's is broken.
const BROKEN_PERPLEXITY: f64 = 2.0;
/// Below this share of base's accuracy a shown loss is clear.
const CLEAR_ACCURACY: f64 = 0.99;
/// Below this share of positions with the same most likely token a loss is clear.
const CLEAR_AGREEMENT: f64 = 0.9;
/// Above this many times base's perplexity a loss is clear.
const CLEAR_PERPLEXITY: f64 = 1.05;
/// A divergence of more than this many times the noise floor's is not rounding, however wide its interval.
const WITHIN_NOISE: f64 = 2.0;

/// What quantization cost a cousin, in a word; from none to all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// No figure differs at all.
    Identical,
    /// Not told apart from rounding base to bf16.
    Lossless,
    /// It differs from base, and these questions do not show that it knows less.
    NotShown,
    /// A difference that is shown and small.
    Small,
    /// A difference that is shown and not small.
    Clear,
    /// Of little use in place of base.
    Broken,
    /// Nothing was measured that a grade could rest on.
    Unmeasured,
}

impl Grade {
    /// All grades, best first.
    pub const ALL: [Grade; 7] = [
        Grade::Identical,
        Grade::Lossless,
        Grade::NotShown,
        Grade::Small,
        Grade::Clear,
        Grade::Broken,
        Grade::Unmeasured,
    ];

    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            Grade::Identical => "identical",
            Grade::Lossless => "lossless within noise",
            Grade::NotShown => "loss not shown",
            Grade::Small => "small loss",
            Grade::Clear => "clear loss",
            Grade::Broken => "broken",
            Grade::Unmeasured => "not graded",
        }
    }

    /// What figures it stands for, in a sentence.
    pub fn meaning(self) -> String {
        let percent = |share: f64| super::super::format::plain(share * 100.0);
        match self {
            Grade::Identical => "Every divergence from base is exactly 0.".to_owned(),
            Grade::Lossless => format!(
                "The interval of the mean KL divergence reaches down to the noise floor (base rounded to bf16), the mean \
                 is at most {WITHIN_NOISE} times the floor's, and no loss of accuracy is shown."
            ),
            Grade::NotShown => "The predictions moved, by no more than under a small loss, and the questions show no \
                loss of accuracy (two-sided test, 5 %). The smallest loss that they would have shown stands beside it."
                .to_owned(),
            Grade::Small => format!(
                "A loss of accuracy is shown and may be less than {} %; or no question was asked, and the predictions \
                 moved less than under a clear loss.",
                percent(1.0 - CLEAR_ACCURACY)
            ),
            Grade::Clear => format!(
                "A loss of accuracy is shown and the whole interval of what is kept lies below {} %; or the same token is \
                 most likely at fewer than {} % of positions; or perplexity rises by more than {} % (whole intervals).",
                percent(CLEAR_ACCURACY),
                percent(CLEAR_AGREEMENT),
                percent(CLEAR_PERPLEXITY - 1.0)
            ),
            Grade::Broken => format!(
                "Any result is NaN or infinite; or less than {} % of base's accuracy above guessing is kept; or the same \
                 token is most likely at fewer than {} % of positions; or perplexity is more than {BROKEN_PERPLEXITY} \
                 times base's (whole intervals).",
                percent(BROKEN_ACCURACY),
                percent(BROKEN_AGREEMENT)
            ),
            Grade::Unmeasured => "Neither text nor questions that base can answer.".to_owned(),
        }
    }
}

/// A cousin's grade, from all its text, all its answers and the noise floor's mean KL divergence.
///
/// Text alone, the first that holds (an end of an interval, where there is one):
/// every divergence 0: identical; a result that is not finite, the same most likely token at fewer than 50 % of
/// positions (upper end), or a perplexity ratio above 2 (lower end): broken; below 90 %, or above 1.05: clear; a mean
/// KL divergence whose lower end is not above the floor's upper end and that is at most twice the floor: lossless
/// within noise; anything else: small.
///
/// Answers alone, where base knows more than guessing gives: without a significant loss (5 %): not shown; else less
/// than 50 % of what base knows above guessing (upper end): broken; less than 99 % of base's accuracy (upper end):
/// clear; else small.
///
/// Both: the worse of the two; but a small change of the text with no loss shown by the answers is "not shown", and
/// text that is within noise stays so where the answers show nothing.
pub fn grade(text: Option<&TokenMetrics>, answers: Option<&PairedScores>, floor: Option<&Estimate>) -> Grade {
    match (text.and_then(|text| of_text(text, floor)), answers.and_then(of_answers)) {
        (None, None) => Grade::Unmeasured,
        (Some(Grade::Small), Some(Grade::NotShown)) => Grade::NotShown,
        (Some(text), None | Some(Grade::NotShown)) => text,
        (None, Some(answers)) => answers,
        (Some(text), Some(answers)) => text.max(answers),
    }
}

fn of_text(metrics: &TokenMetrics, floor: Option<&Estimate>) -> Option<Grade> {
    if !is_measured(metrics) {
        return None;
    }
    if is_identical(metrics) {
        return Some(Grade::Identical);
    }
    let mean = &metrics.kl_divergence.mean;
    let agreement = Figure::from(&metrics.top1_agreement).ends().1;
    let perplexity = Figure::from(&metrics.ppl_ratio).ends().0;
    let is_finite = metrics.non_finite_tokens == 0 && mean.value.is_finite();
    let is_noise = |floor: &Estimate| {
        Figure::from(mean).ends().0 <= Figure::from(floor).ends().1
            && mean.value <= floor.value * WITHIN_NOISE
    };
    Some(match () {
        () if !is_finite || agreement < BROKEN_AGREEMENT || perplexity > BROKEN_PERPLEXITY => Grade::Broken,
        () if agreement < CLEAR_AGREEMENT || perplexity > CLEAR_PERPLEXITY => Grade::Clear,
        () if floor.is_some_and(is_noise) => Grade::Lossless,
        () => Grade::Small,
    })
}

fn of_answers(scores: &PairedScores) -> Option<Grade> {
    if scores.uninformative.is_some() || !scores.difference.value.is_finite() {
        return None;
    }
    if !is_loss(scores) {
        return Some(Grade::NotShown);
    }
    let at_most = |share: Option<&Estimate>, limit: f64| {
        share.is_some_and(|share| Figure::from(share).ends().1 < limit)
    };
    let above_guessing = scores.chance_corrected_recovery.as_ref().or(scores.recovery.as_ref());
    Some(match () {
        () if at_most(above_guessing, BROKEN_ACCURACY) => Grade::Broken,
        () if at_most(scores.recovery.as_ref(), CLEAR_ACCURACY) => Grade::Clear,
        () => Grade::Small,
    })
}

/// One cousin: its grade, and the figures behind it in words.
#[derive(Clone, Debug)]
pub struct CousinVerdict<'a> {
    /// Its place among all cousins, those of another vocabulary last: its sign in every chart.
    pub index: usize,
    /// Its card.
    pub model: &'a ModelCard,
    /// The word.
    pub grade: Grade,
    /// What it rests on, in a sentence without the cousin's name: its answers, or its text where nothing was asked.
    pub lead: String,
    /// What else it rests on: its text, where there are answers; why there is none.
    pub more: Option<String>,
    /// Layers of it that no encoding explains.
    pub fault: Option<String>,
}

/// All cousins, best first: by mean KL divergence, those without one by their answers, after them.
pub fn cousins(comparison: &Comparison) -> Vec<CousinVerdict<'_>> {
    let answers = questions::cousins(comparison);
    let scores = |index: usize| answers.iter().find(|(cousin, _)| cousin.index == Some(index));
    let floor = comparison.noise_floor.as_ref().map(|q| &q.overall.kl_divergence.mean);
    let quants = comparison.quants.iter().enumerate().map(|(index, quant)| {
        let answers = scores(index).map(|(_, scores)| *scores);
        let grade = grade(Some(&quant.overall), answers, floor);
        let mut said = [
            scores(index).map(|(cousin, scores)| questions::said_of(cousin, scores)),
            text_said(quant, comparison.noise_floor.as_ref()),
        ];
        // What makes the grade leads.
        if grade > Grade::Small && answers.and_then(of_answers) < Some(grade) {
            said.reverse();
        }
        let (lead, more) = in_order(said);
        let fault = super::faults::fault_of(quant).map(|fault| in_order([Some(fault), None]).0);
        (Some(quant), CousinVerdict { index, model: &quant.model, grade, lead, more, fault })
    });
    let foreign = comparison.foreign.iter().enumerate().map(|(i, foreign)| {
        let index = comparison.quants.len() + i;
        let said = [
            scores(index).map(|(cousin, scores)| questions::said_of(cousin, scores)),
            Some(foreign_said(foreign)),
        ];
        let (lead, more) = in_order(said);
        let grade = grade(None, scores(index).map(|(_, scores)| *scores), None);
        (None, CousinVerdict { index, model: &foreign.model, grade, lead, more, fault: None })
    });
    let mut all: Vec<(Option<&QuantComparison>, CousinVerdict<'_>)> = quants.chain(foreign).collect();
    let kl = |quant: &Option<&QuantComparison>| quant.filter(|q| has_mean(q)).map_or(f64::INFINITY, mean_kl);
    let loss = |verdict: &CousinVerdict<'_>| {
        let difference = scores(verdict.index).map(|(_, scores)| -scores.difference.value);
        difference.filter(|loss| loss.is_finite()).unwrap_or(f64::INFINITY)
    };
    all.sort_by(|(a, left), (b, right)| {
        kl(a).total_cmp(&kl(b)).then_with(|| loss(left).total_cmp(&loss(right)))
    });
    all.into_iter().map(|(_, verdict)| verdict).collect()
}

/// The first that says something leads.
fn in_order(parts: [Option<String>; 2]) -> (String, Option<String>) {
    let mut parts =
        parts.into_iter().flatten().map(|part| with_units_kept(&format!("{}.", capitalized(&part))));
    (parts.next().unwrap_or_else(|| "Nothing was measured.".to_owned()), parts.next())
}

/// "same top token at 93.3 % of 64,384 tokens; mean KL divergence 0.0031 nats (169 times the noise floor); perplexity
/// +3.5 %".
fn text_said(quant: &QuantComparison, floor: Option<&QuantComparison>) -> Option<String> {
    let metrics = &quant.overall;
    if !is_measured(metrics) {
        return None;
    }
    let tokens = counted(metrics.scored_tokens as u64, "token");
    if is_identical(metrics) {
        return Some(format!("no difference at all: every divergence is exactly 0 at all {tokens}"));
    }
    if !has_mean(quant) {
        return Some("no finite mean KL divergence".to_owned());
    }
    let floor = floor.map(mean_kl).filter(|floor| floor.is_finite() && *floor > 0.0);
    let times = floor.map(|floor| format!(" ({} times the noise floor)", number(mean_kl(quant) / floor, 2)));
    let lost = match metrics.non_finite_tokens {
        0 => String::new(),
        n => format!("NaN or infinite at {}; ", counted(n as u64, "position")),
    };
    Some(format!(
        "{lost}same top token at {} of {tokens}; mean KL divergence {} nats{}; perplexity {}",
        percent(&Figure::percent(&metrics.top1_agreement)),
        Figure::from(&metrics.kl_divergence.mean).with_interval(),
        times.unwrap_or_default(),
        signed_percent(&Figure::percent_change(&metrics.ppl_ratio))
    ))
}

fn foreign_said(foreign: &ForeignComparison) -> String {
    format!("no KL divergence, because {}", visible(foreign.reason.trim_end_matches('.')))
}

/// "99.1 % [98.4, 99.7]".
pub(super) fn percent(figure: &Figure) -> String {
    let [value, interval] = figure.parts(false);
    format!("{value} %{interval}")
}

/// "+3.5 % [+2.6, +4.8]".
pub(super) fn signed_percent(figure: &Figure) -> String {
    let [value, interval] = figure.parts(true);
    format!("{value} %{interval}")
}

#[cfg(test)]
mod tests {
    use super::super::super::fixture::{self, Damage, NONE, estimate};
    use super::*;

    const FLOOR: f64 = 2e-5;
    const SOME: Damage =
        Damage { bits_per_weight: 4.5, kl: 0.01, ppl_ratio: 1.01, top1: 0.95, sqnr_db: Some(20.0) };

    fn text(change: impl FnOnce(&mut TokenMetrics)) -> Grade {
        let mut metrics = fixture::token_metrics(SOME);
        change(&mut metrics);
        grade(Some(&metrics), None, Some(&estimate(FLOOR, 1e-6)))
    }

    /// Answers of the fixture's broken cousin with another recovery.
    fn answers(recovery: f64, half: f64, p: f64) -> PairedScores {
        let comparison = fixture::with_questions();
        let mut scores = comparison.quants[1].questions.as_ref().unwrap().overall.clone().unwrap();
        scores.recovery = Some(estimate(recovery, half));
        scores.chance_corrected_recovery = None;
        scores.difference = estimate((recovery - 1.0) * 0.8, half);
        scores.test.as_mut().unwrap().p = p;
        scores
    }

    #[test]
    fn text_is_graded_at_its_thresholds() {
        assert_eq!(grade(Some(&fixture::token_metrics(NONE)), None, None), Grade::Identical);
        assert_eq!(text(|_| ()), Grade::Small);
        // Upper ends of the agreement: 0.9 and 0.5.
        for (value, wanted) in
            [(0.891, Grade::Small), (0.889, Grade::Clear), (0.491, Grade::Clear), (0.489, Grade::Broken)]
        {
            assert_eq!(text(|m| m.top1_agreement = estimate(value, 0.01)), wanted, "{value}");
        }
        // Lower ends of the ratio: 1.05 and 2.
        for (value, wanted) in
            [(1.059, Grade::Small), (1.061, Grade::Clear), (2.009, Grade::Clear), (2.011, Grade::Broken)]
        {
            assert_eq!(text(|m| m.ppl_ratio = estimate(value, 0.01)), wanted, "{value}");
        }
        assert_eq!(text(|m| m.non_finite_tokens = 1), Grade::Broken);
        assert_eq!(text(|m| m.kl_divergence.mean.value = f64::NAN), Grade::Broken);
    }

    #[test]
    fn lossless_is_only_what_the_floor_cannot_be_told_from() {
        let kl = |value: f64, half: f64| text(|m| m.kl_divergence.mean = estimate(value, half));
        assert_eq!(kl(1e-5, 1e-7), Grade::Lossless);
        assert_eq!(kl(2.2e-5, 1.1e-6), Grade::Lossless);
        assert_eq!(kl(2.3e-5, 1e-6), Grade::Small, "shown to be above the floor");
        assert_eq!(kl(5e-5, 4e-5), Grade::Small, "an interval that says nothing makes nothing lossless");
        let metrics = fixture::token_metrics(Damage { kl: 1e-5, ..SOME });
        assert_eq!(grade(Some(&metrics), None, None), Grade::Small, "without a floor nothing is within it");
    }

    #[test]
    fn answers_are_graded_at_their_thresholds() {
        let of = |recovery, half, p| grade(None, Some(&answers(recovery, half, p)), None);
        assert_eq!(of(0.97, 0.01, 0.2), Grade::NotShown);
        assert_eq!(of(0.981, 0.01, 0.01), Grade::Small);
        assert_eq!(of(0.979, 0.01, 0.01), Grade::Clear);
        assert_eq!(of(0.491, 0.01, 0.01), Grade::Clear);
        assert_eq!(of(0.489, 0.01, 0.01), Grade::Broken);
        let mut guessed = answers(0.4, 0.01, 1e-9);
        guessed.uninformative = Some("base only guesses".to_owned());
        assert_eq!(grade(None, Some(&guessed), None), Grade::Unmeasured);
        let mut above = answers(0.7, 0.01, 1e-9);
        above.chance_corrected_recovery = Some(estimate(0.3, 0.1));
        assert_eq!(grade(None, Some(&above), None), Grade::Broken, "most of what is left is guessing");
        assert_eq!(of(1.05, 0.01, 0.001), Grade::NotShown, "more right answers are no loss");
    }

    #[test]
    fn the_worse_of_text_and_answers_counts() {
        let both = |damage: Damage, answers: &PairedScores| {
            grade(Some(&fixture::token_metrics(damage)), Some(answers), Some(&estimate(FLOOR, 1e-6)))
        };
        let (quiet, lost) = (answers(0.99, 0.02, 0.5), answers(0.9, 0.02, 0.001));
        assert_eq!(both(SOME, &quiet), Grade::NotShown);
        assert_eq!(both(SOME, &lost), Grade::Clear);
        assert_eq!(both(Damage { top1: 0.7, ..SOME }, &quiet), Grade::Clear, "silence does not excuse it");
        assert_eq!(both(Damage { kl: 1e-5, ..SOME }, &quiet), Grade::Lossless);
        assert_eq!(both(Damage { kl: 1e-5, ..SOME }, &lost), Grade::Clear);
        assert_eq!(both(Damage { top1: 0.2, ..SOME }, &lost), Grade::Broken);
    }

    #[test]
    fn every_cousin_has_a_line_and_the_best_comes_first() {
        let comparison = fixture::with_questions();
        let lines = cousins(&comparison);
        let labels: Vec<&str> = lines.iter().map(|line| line.model.label.as_str()).collect();
        assert_eq!(labels, ["polyglot6m-Q8_0", "polyglot6m-Q2_K", "other-4b"]);
        assert_eq!(lines.iter().map(|line| line.index).collect::<Vec<_>>(), [0, 1, 2]);
        let grades: Vec<Grade> = lines.iter().map(|line| line.grade).collect();
        assert_eq!(grades, [Grade::NotShown, Grade::Clear, Grade::Clear]);
        let said = |text: &str| text.replace('\u{a0}', " ");
        let leads: Vec<String> = lines.iter().map(|line| said(&line.lead)).collect();
        let more: Vec<String> = lines.iter().map(|line| said(line.more.as_deref().unwrap())).collect();
        assert!(leads[0].starts_with("Keeps ") && leads[0].contains("a loss is not shown"), "{}", leads[0]);
        assert!(leads[1].contains("; worst: Thai (−35.6 points)"), "{}", leads[1]);
        assert!(more[1].starts_with("Same top token at 81.9 % [80.8, 83.0] of 10,200 tokens"), "{}", more[1]);
        assert!(more[1].contains("(1003 times the noise floor)"), "{}", more[1]);
        assert!(more[2].starts_with("No KL divergence, because its tokenizer has 32,000"), "{}", more[2]);
    }

    #[test]
    fn what_makes_the_grade_leads() {
        let mut comparison = fixture::with_questions();
        let overall = comparison.quants[1].questions.as_mut().unwrap().overall.as_mut().unwrap();
        (overall.difference, overall.test.as_mut().unwrap().p) = (estimate(-0.01, 0.02), 0.4);
        let lines = cousins(&comparison);
        assert_eq!(lines[1].grade, Grade::Clear, "the same token is most likely at 81.9 % only");
        assert!(lines[1].lead.starts_with("Same top token at 81.9"), "{}", lines[1].lead);
        assert!(lines[1].more.as_ref().unwrap().contains("a loss is not shown"));
    }

    #[test]
    fn the_lines_follow_the_figures() {
        let mut comparison = fixture::comparison();
        comparison.quants[0].overall.kl_divergence.mean.value = f64::NAN;
        comparison.quants[1].overall = fixture::token_metrics(NONE);
        let lines = cousins(&comparison);
        assert_eq!((lines[0].index, lines[0].grade), (1, Grade::Identical));
        assert_eq!(
            lines[0].lead,
            "No difference at all: every divergence is exactly 0 at all 10,200 tokens."
        );
        assert_eq!((lines[4].index, lines[4].grade), (0, Grade::Broken));
        assert_eq!(lines[4].lead, "No finite mean KL divergence.");
        assert!(Grade::ALL.iter().all(|grade| !grade.word().is_empty() && grade.meaning().ends_with('.')));
    }
}
