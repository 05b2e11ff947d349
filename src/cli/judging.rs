//! Both sides' answers, judged: one row of items per task, metric and filter, the samples whose answer flipped, and how
//! written answers diverge.

use super::{
    answers::{self, Judge, SideAnswer, SideAnswers},
    workload::Tasks,
};
use crate::{
    comparison::{
        FlippedSample,
        tasks::{GenerationItem, Item, TaskItems, TaskKey},
    },
    error::Result,
    suite::question::{Answer, Metric, QuestionKind, Questions, Sample},
};

/// Flipped samples kept per task and cousin: enough to look at, few enough for a report.
const FLIPPED_SAMPLES: usize = 10;
/// Characters kept of a question's end and of an answer.
const SHOWN_CHARACTERS: usize = 600;

/// What came of judging one cousin.
#[derive(Default)]
pub(super) struct Judgement {
    pub rows: Vec<TaskItems>,
    pub flipped: Vec<FlippedSample>,
    /// By task.
    pub generations: Vec<(usize, Vec<GenerationItem>)>,
}

/// Judges every task. `quant` is `None` for base alone: then its side of every item is empty. `clusters` as
/// [`Tasks::clusters`]; `names` are those of the task cards; `opened`: prompts open a thinking block.
///
/// # Errors
/// A pattern that cannot be compiled, or gives up.
pub(super) fn judge(
    tasks: &Tasks,
    names: &[String],
    clusters: &[Vec<u32>],
    base: &SideAnswers,
    quant: Option<&SideAnswers>,
    opened: bool,
) -> Result<Judgement> {
    let mut judgement = Judgement::default();
    for (index, (_, task)) in tasks.iter().enumerate() {
        let Some(questions) = task.questions() else { continue };
        // Rolling texts are compared per byte, not per sample.
        if questions.kind == QuestionKind::Rolling {
            continue;
        }
        let of_base = &base[index];
        let of_quant = quant.map(|quant| &quant[index]);
        let name = names.get(index).cloned().unwrap_or_default();
        for (row, judge) in Judge::all(questions, of_base)?.iter().enumerate() {
            let mut items = Vec::with_capacity(questions.samples.len());
            for (number, sample) in questions.samples.iter().enumerate() {
                let ours = judge.judge(sample, &of_base[number])?;
                let theirs = of_quant.map(|quant| judge.judge(sample, &quant[number])).transpose()?;
                let same_answer = theirs.as_ref().is_some_and(|theirs| theirs.answer == ours.answer);
                let (left, right) = (ours.score, theirs.as_ref().and_then(|theirs| theirs.score));
                items.push(Item {
                    sample: number as u32,
                    cluster: clusters[index][number],
                    level: sample.level.as_ref().map(|level| level.value),
                    base: left,
                    quant: right,
                    same_answer,
                });
                // The headline decides which samples are shown.
                if let (0, Some(left), Some(right), Some(theirs)) = (row, left, right, theirs)
                    && left != right
                    && judge.metric.is_right_or_wrong()
                    && judgement.flipped.iter().filter(|flip| flip.task == name).count() < FLIPPED_SAMPLES
                {
                    judgement.flipped.push(FlippedSample {
                        task: name.clone(),
                        sample: sample.id.clone(),
                        question: end_of(&sample.question),
                        expected: expected(sample),
                        base_answer: shown(&of_base[number], &ours.answer),
                        quant_answer: of_quant
                            .map(|quant| shown(&quant[number], &theirs.answer))
                            .unwrap_or_default(),
                        base_score: left,
                        quant_score: right,
                    });
                }
            }
            judgement.rows.push(TaskItems {
                key: TaskKey {
                    task: name.clone(),
                    language: Some(task.language.clone()).filter(|language| language != "und"),
                    group: task.group.clone(),
                    metric: judge.metric.name().to_owned(),
                    filter: Some(judge.filter.clone()).filter(|filter| !filter.is_empty()),
                },
                right_or_wrong: judge.metric.is_right_or_wrong(),
                chance: chance(questions, judge.metric),
                level_unit: questions.samples.iter().find_map(|s| Some(s.level.as_ref()?.unit.clone())),
                items,
            });
        }
        if let (QuestionKind::Generation(_), Some(of_quant)) = (&questions.kind, of_quant) {
            let items = of_base.iter().zip(of_quant).enumerate().filter_map(|(number, (base, quant))| {
                let (SideAnswer::Written(base), SideAnswer::Written(quant)) = (base, quant) else {
                    return None;
                };
                let (base, quant) = (base.greedy.as_ref()?, quant.greedy.as_ref()?);
                Some(generation_item(clusters[index][number], &answers::divergence(base, quant, opened)))
            });
            judgement.generations.push((index, items.collect()));
        }
    }
    Ok(judgement)
}

fn generation_item(cluster: u32, divergence: &answers::Divergence) -> GenerationItem {
    let answers::Divergence { first, base, quant } = *divergence;
    GenerationItem {
        cluster,
        base_tokens: base.tokens,
        quant_tokens: quant.tokens,
        first_divergence: first,
        base_truncated: base.truncated,
        quant_truncated: quant.truncated,
        base_repetition: base.repetition,
        quant_repetition: quant.repetition,
        base_unclosed_think: base.unclosed,
        quant_unclosed_think: quant.unclosed,
    }
}

/// The mean share that guessing gets right; `None` where there is nothing to guess among.
fn chance(questions: &Questions, metric: &Metric) -> Option<f64> {
    if !matches!(metric, Metric::Acc | Metric::AccNorm | Metric::AccBytes | Metric::GoldProbability) {
        return None;
    }
    let share = |sample: &Sample| match &sample.answer {
        Answer::Choice { options, gold } => Some(gold.len() as f64 / options.len().max(1) as f64),
        _ => None,
    };
    let shares: Option<Vec<f64>> = questions.samples.iter().map(share).collect();
    shares.filter(|shares| !shares.is_empty()).map(|shares| shares.iter().sum::<f64>() / shares.len() as f64)
}

fn expected(sample: &Sample) -> String {
    match &sample.answer {
        Answer::Choice { options, gold } => {
            let text = |index: &usize| {
                let option = options.get(*index)?;
                Some(option.question.clone().unwrap_or_else(|| option.continuation.clone()))
            };
            gold.iter().filter_map(text).collect::<Vec<_>>().join(" | ")
        }
        Answer::Continuation(text) => end_of(text),
        Answer::Text => String::new(),
        Answer::Generation(targets) => {
            targets.iter().map(|text| end_of(text)).collect::<Vec<_>>().join(" | ")
        }
    }
}

/// An answer for a reader: of a written one the whole text, not only what a filter found in it.
fn shown(answer: &SideAnswer, judged: &str) -> String {
    match answer {
        SideAnswer::Written(answers) => answers
            .greedy
            .iter()
            .chain(&answers.drawn)
            .next()
            .map_or_else(String::new, |text| end_of(&text.text)),
        _ => end_of(judged),
    }
}

/// The end of a text, where the answer usually is.
fn end_of(text: &str) -> String {
    let count = text.chars().count();
    if count <= SHOWN_CHARACTERS {
        return text.to_owned();
    }
    "…".chars().chain(text.chars().skip(count - SHOWN_CHARACTERS)).collect()
}
