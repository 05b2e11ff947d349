//! What each model answered, and how it is judged: token records and written texts into one score per sample, metric
//! and side.

use super::{
    workload::Tasks,
    writing::{AnswerText, Answers},
};
use crate::{
    error::Result,
    evaluate::generate::Stop,
    observation::BaseToken,
    suite::{
        WritingPrompt,
        question::{Answer, Metric, QuestionKind, Questions, Sample},
        score::{self, CompiledComparison, CompiledFilter, ThinkBlock},
    },
};

/// How likely a continuation was, and whether greedy decoding would have written it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Likelihood {
    /// Σ log p of its tokens, nats; NaN where it was not asked.
    pub log_likelihood: f64,
    pub greedy: bool,
}

/// One model's answer to one sample.
#[derive(Clone, Debug)]
pub(super) enum SideAnswer {
    /// By option; one for a continuation, one for all windows of a rolling text.
    Likelihoods(Vec<Likelihood>),
    /// Greedy and drawn texts.
    Written(Answers),
    /// Nothing was asked.
    Missing,
}

/// One model's answers: by task, then by sample; empty for text tasks.
pub(super) type SideAnswers = Vec<Vec<SideAnswer>>;

/// A side of a token record: −log p of the target, and the likeliest token.
pub(super) type TokenOf<'a> = &'a dyn Fn(usize) -> (f64, u32);

/// Gathers one model's answers from its token records (in the requests' order) and from what it wrote.
pub(super) fn gather(
    tasks: &Tasks,
    records: &[BaseToken],
    token: TokenOf,
    written: Option<(&[WritingPrompt], &[Answers])>,
) -> SideAnswers {
    let mut answers: SideAnswers = tasks
        .iter()
        .map(|(_, task)| {
            let Some(questions) = task.questions() else { return Vec::new() };
            let of = |sample: &Sample| match (&questions.kind, &sample.answer) {
                (QuestionKind::Generation(_), _) => SideAnswer::Missing,
                (_, Answer::Choice { options, .. }) => {
                    SideAnswer::Likelihoods(vec![NOT_ASKED; options.len()])
                }
                _ => SideAnswer::Likelihoods(vec![NOT_ASKED]),
            };
            questions.samples.iter().map(of).collect()
        })
        .collect();
    for (index, record) in records.iter().enumerate() {
        let sample =
            answers.get_mut(record.task as usize).and_then(|task| task.get_mut(record.document as usize));
        let Some(SideAnswer::Likelihoods(likelihoods)) = sample else { continue };
        // All windows of a rolling text are one answer.
        let option = if likelihoods.len() == 1 { 0 } else { record.window as usize };
        let Some(likelihood) = likelihoods.get_mut(option) else { continue };
        if likelihood.log_likelihood.is_nan() {
            *likelihood = Likelihood { log_likelihood: 0.0, greedy: true };
        }
        let (nll, top1) = token(index);
        likelihood.log_likelihood -= if nll.is_nan() { f64::INFINITY } else { nll };
        likelihood.greedy &= top1 == record.token;
    }
    for (prompt, answer) in written.into_iter().flat_map(|(prompts, answers)| prompts.iter().zip(answers)) {
        let sample =
            answers.get_mut(prompt.task as usize).and_then(|task| task.get_mut(prompt.sample as usize));
        if let Some(sample) = sample {
            *sample = SideAnswer::Written(answer.clone());
        }
    }
    answers
}

const NOT_ASKED: Likelihood = Likelihood { log_likelihood: f64::NAN, greedy: true };

/// One way in which a task's samples are judged: a row of results.
pub(super) struct Judge<'a> {
    pub metric: &'a Metric,
    /// Name of the filter, with what was drawn; empty where texts are taken as they are.
    pub filter: String,
    compiled: Option<CompiledFilter>,
    comparison: Option<CompiledComparison>,
    drawn: bool,
}

/// A sample's score on one side.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Judged {
    /// In [0, 1]; a log-likelihood for perplexities; `None` where it could not be judged.
    pub score: Option<f64>,
    /// What was answered, for a reader; equal answers have equal texts.
    pub answer: String,
}

impl<'a> Judge<'a> {
    /// Every way in which a task is judged.
    ///
    /// # Errors
    /// A pattern that cannot be compiled.
    pub(super) fn all(questions: &'a Questions, answers: &[SideAnswer]) -> Result<Vec<Self>> {
        let mut judges = Vec::new();
        let draws = answers.iter().find_map(|answer| match answer {
            SideAnswer::Written(answers) => Some((answers.greedy.is_some(), answers.drawn.len())),
            _ => None,
        });
        let (greedy, draws) = draws.unwrap_or((true, 0));
        for metric in &questions.metrics {
            let comparison = match metric {
                Metric::ExactMatch(comparison) => Some(CompiledComparison::new(comparison)?),
                _ => None,
            };
            let filters = questions.filters.iter().map(Some).collect::<Vec<_>>();
            for filter in if filters.is_empty() { vec![None] } else { filters } {
                let compiled = filter.map(CompiledFilter::new).transpose()?;
                let name = compiled.as_ref().map_or("", CompiledFilter::name);
                let mut push = |drawn: bool, filter: String| {
                    let (compiled, comparison) = (compiled.clone(), comparison.clone());
                    judges.push(Judge { metric, filter, compiled, comparison, drawn });
                };
                if greedy {
                    push(false, name.to_owned());
                }
                if draws > 0 {
                    let mean = format!("mean of {draws} draws");
                    push(true, if name.is_empty() { mean } else { format!("{name}, {mean}") });
                }
            }
        }
        Ok(judges)
    }

    /// Judges one answer.
    ///
    /// # Errors
    /// A pattern that gives up.
    pub(super) fn judge(&self, sample: &Sample, answer: &SideAnswer) -> Result<Judged> {
        match (answer, &sample.answer) {
            (SideAnswer::Likelihoods(likelihoods), Answer::Choice { options, gold }) => {
                let values: Vec<f64> = likelihoods.iter().map(|l| l.log_likelihood).collect();
                let chosen = score::choose(&values, options, self.metric);
                Ok(Judged {
                    score: score::choice_score(self.metric, &values, options, gold),
                    answer: chosen.and_then(|index| options.get(index)).map_or_else(String::new, |option| {
                        option.question.clone().unwrap_or_else(|| option.continuation.clone())
                    }),
                })
            }
            (SideAnswer::Likelihoods(likelihoods), _) => {
                let Some(one) = likelihoods.first().filter(|one| !one.log_likelihood.is_nan()) else {
                    return Ok(Judged { score: None, answer: String::new() });
                };
                let value = match self.metric {
                    Metric::Acc => f64::from(u8::from(one.greedy)),
                    _ => one.log_likelihood,
                };
                let answer = if one.greedy { "as expected" } else { "something else" };
                Ok(Judged { score: Some(value).filter(|value| value.is_finite()), answer: answer.to_owned() })
            }
            (SideAnswer::Written(answers), Answer::Generation(targets)) => self.judge_texts(answers, targets),
            _ => Ok(Judged { score: None, answer: String::new() }),
        }
    }

    fn judge_texts(&self, answers: &Answers, targets: &[String]) -> Result<Judged> {
        let texts: Vec<&AnswerText> =
            if self.drawn { answers.drawn.iter().collect() } else { answers.greedy.iter().collect() };
        if texts.is_empty() || texts.iter().any(|text| text.stop == Stop::NotFinite) {
            return Ok(Judged { score: None, answer: String::new() });
        }
        let raw: Vec<String> = texts.iter().map(|text| text.text.clone()).collect();
        // A vote is over all draws, everything else is judged draw by draw and averaged.
        let votes = self.compiled.as_ref().is_some_and(CompiledFilter::votes);
        let groups: Vec<Vec<String>> =
            if votes { vec![raw] } else { raw.into_iter().map(|text| vec![text]).collect() };
        let mut filtered = Vec::with_capacity(groups.len());
        for group in &groups {
            filtered.extend(match &self.compiled {
                Some(filter) => score::apply(filter, group)?.into_iter().next(),
                None => group.first().cloned(),
            });
        }
        let mut sum = 0.0;
        for text in &filtered {
            sum += match (&self.comparison, self.metric) {
                (Some(comparison), _) => f64::from(u8::from(score::exact_match(comparison, text, targets)?)),
                (None, Metric::F1) => score::f1(text, targets),
                (None, _) => return Ok(Judged { score: None, answer: String::new() }),
            };
        }
        let score = (!filtered.is_empty()).then(|| sum / filtered.len() as f64);
        Ok(Judged { score, answer: filtered.join(" | ") })
    }
}

/// How two greedy answers to one prompt relate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Divergence {
    /// Index of the first token that differs; `None`: equal to the end.
    pub first: Option<u32>,
    pub base: Shape,
    pub quant: Shape,
}

/// What an answer looks like, whatever it says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shape {
    pub tokens: u32,
    /// Whether it ran out of tokens.
    pub truncated: bool,
    /// Share of its 4-grams of tokens that occurred before.
    pub repetition: f64,
    /// Whether it never closed its thinking.
    pub unclosed: bool,
}

impl Shape {
    /// Of one answer; `opened`: the prompt itself opens a thinking block.
    pub(super) fn of(answer: &AnswerText, opened: bool) -> Self {
        let unclosed = match score::strip_thinking(&answer.text).1 {
            ThinkBlock::Unclosed => true,
            ThinkBlock::Closed => false,
            ThinkBlock::None => opened,
        };
        Self {
            tokens: answer.tokens.len() as u32,
            truncated: answer.stop == Stop::Length,
            repetition: score::repeated_ngrams(&answer.tokens, 4),
            unclosed,
        }
    }
}

/// Compares two greedy answers; with another tokenizer only their shapes are comparable.
pub(super) fn divergence(base: &AnswerText, quant: &AnswerText, opened: bool) -> Divergence {
    let same = base.tokens.iter().zip(&quant.tokens).take_while(|(a, b)| a == b).count();
    let ended_together = same == base.tokens.len() && same == quant.tokens.len();
    Divergence {
        first: (!ended_together).then_some(same as u32),
        base: Shape::of(base, opened),
        quant: Shape::of(quant, opened),
    }
}
