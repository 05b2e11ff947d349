//! Answers in the form of lm-evaluation-harness: a folder per model with `results.json` and `samples_<task>.jsonl`.

use std::{collections::BTreeMap, path::Path};

use super::{
    answers::{Judge, SideAnswer, SideAnswers},
    assemble::Measured,
    conversation::Conversation,
    workload::Workload,
};
use crate::{
    error::{Error, Result},
    samples::{self, AggregateMetric, Json, MetricValue, Run, SampleRow, TaskRun},
    suite::{
        self, Converse, Reader, Task, TokenizedText, Turn,
        question::{Answer, Metric, QuestionKind, Questions, Sample},
        score,
    },
};

/// What a row without a filter is called.
const NO_FILTER: &str = "none";

/// Writes base's answers and every cousin's that are in the run, each into a folder of its label.
///
/// # Errors
/// A folder that cannot be written.
pub(super) fn write(
    folder: &Path,
    measured: &Measured,
    work: &Workload,
    base: &SideAnswers,
    conversation: Option<&Conversation>,
) -> Result<()> {
    let models = measured.models;
    let base_label = models.base.model().map_or("base", |model| model.label.as_str());
    let mut sides = vec![(base_label, base)];
    sides
        .extend(models.quants.iter().zip(measured.quant_answers).map(|(model, a)| (model.label.as_str(), a)));
    sides.extend(
        models.foreign.iter().zip(measured.foreign).map(|(f, run)| (f.model.label.as_str(), &run.answers)),
    );
    let nothing = || Error::argument("no text is tokenized here", "report this as a bug of qeval");
    let tokenize = |_: &str| -> Result<TokenizedText> { Err(nothing()) };
    let tokenize_question = |_: &str| -> Result<Vec<u32>> { Err(nothing()) };
    let writer = conversation.map(|conversation| move |turns: &[Turn]| conversation.write(turns));
    let reader = Reader {
        bos: None,
        prefix: None,
        max_length: usize::MAX,
        tokenize: &tokenize,
        tokenize_question: &tokenize_question,
        chat: writer.as_ref().map(|write| write as Converse),
        chat_choices: conversation.is_some_and(|conversation| conversation.choices),
    };
    for (label, answers) in sides {
        let mut tasks = Vec::new();
        for (index, (suite, task)) in measured.tasks.iter().enumerate() {
            let Some(questions) = task.questions() else { continue };
            let twins = measured.tasks.iter().filter(|(_, other)| other.name == task.name).count();
            let name = if twins > 1 { format!("{}_{}", suite.name, task.name) } else { task.name.clone() };
            tasks.push(task_run(name, task, questions, &answers[index], &reader, suite.version)?);
        }
        let folder_name: String =
            label.chars().map(|c| if c.is_alphanumeric() || "-_.@".contains(c) { c } else { '_' }).collect();
        let run = Run {
            model: label.to_owned(),
            model_source: "qeval".to_owned(),
            tasks,
            date: std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0.0, |elapsed| elapsed.as_secs_f64()),
            system_instruction: None,
            fewshot_as_multiturn: conversation.map(|_| true),
            chat_template: conversation.map(|conversation| conversation.source().to_owned()),
            settings: Json::Object(vec![
                ("random_seed".to_owned(), Json::Integer(measured.provenance.seed.into())),
                ("prompts".to_owned(), Json::Integer(work.prompts.len() as i128)),
            ]),
            total_evaluation_time_seconds: measured.provenance.wall_seconds,
        };
        samples::write(&folder.join(folder_name), &run)?;
    }
    Ok(())
}

fn task_run(
    name: String,
    task: &Task,
    questions: &Questions,
    answers: &[SideAnswer],
    reader: &Reader,
    version: u32,
) -> Result<TaskRun> {
    let judges = Judge::all(questions, answers)?;
    let mut filters: Vec<String> = judges.iter().map(|judge| filter_name(&judge.filter)).collect();
    filters.dedup();
    filters.sort();
    filters.dedup();
    let mut rows = Vec::new();
    let mut sums = BTreeMap::<(String, String), Vec<f64>>::new();
    let mut rolling = (0.0, 0u64, 0u64);
    for filter in &filters {
        for (sample, answer) in questions.samples.iter().zip(answers) {
            let mut metrics = Vec::new();
            let mut filtered = None;
            for judge in judges.iter().filter(|judge| filter_name(&judge.filter) == *filter) {
                let judged = judge.judge(sample, answer)?;
                let name = judge.metric.name().to_owned();
                let value = judged.score.unwrap_or(f64::NAN);
                filtered.get_or_insert(judged.answer);
                if questions.kind == QuestionKind::Rolling {
                    let text = sample.record["page"].as_str().unwrap_or(&sample.question);
                    let (words, bytes) = (score::count_words(text) as u64, text.len() as u64);
                    let units = if *judge.metric == Metric::WordPerplexity { words } else { bytes };
                    if metrics.is_empty() {
                        rolling = (rolling.0 + value, rolling.1 + words, rolling.2 + bytes);
                    }
                    metrics.push((name, MetricValue::Rolling { log_likelihood: value, units }));
                    continue;
                }
                sums.entry((name.clone(), filter.clone())).or_default().push(value);
                metrics.push((name, MetricValue::Number(value)));
            }
            rows.push(row(questions, sample, answer, (filter, filtered), metrics, reader)?);
        }
    }
    let aggregate = |judge: &Judge| {
        let filter = filter_name(&judge.filter);
        let values = sums.get(&(judge.metric.name().to_owned(), filter.clone()));
        let (value, stderr) = match (judge.metric, values) {
            (Metric::WordPerplexity, _) => ((-rolling.0 / rolling.1 as f64).exp(), None),
            (Metric::BytePerplexity, _) => ((-rolling.0 / rolling.2 as f64).exp(), None),
            (Metric::BitsPerByte, _) => (-rolling.0 / rolling.2 as f64 / std::f64::consts::LN_2, None),
            (Metric::Perplexity, Some(values)) => ((-mean(values)).exp(), None),
            (_, Some(values)) => (mean(values), standard_error(values)),
            (_, None) => (f64::NAN, None),
        };
        let falls = matches!(
            judge.metric,
            Metric::Perplexity | Metric::WordPerplexity | Metric::BytePerplexity | Metric::BitsPerByte
        );
        AggregateMetric {
            name: judge.metric.name().to_owned(),
            filter,
            value,
            stderr,
            higher_is_better: !falls,
        }
    };
    let n_shot = questions.samples.iter().map(|sample| sample.shots.len()).max().unwrap_or(0) as u64;
    Ok(TaskRun {
        task: name,
        version: Json::Integer(version.into()),
        config: Json::Object(vec![
            ("task".to_owned(), Json::from(task.name.as_str())),
            ("output_type".to_owned(), Json::from(output_type(&questions.kind))),
            ("num_fewshot".to_owned(), Json::Integer(n_shot.into())),
            ("description".to_owned(), Json::from(questions.description.as_str())),
            ("target_delimiter".to_owned(), Json::from(questions.target_delimiter.as_str())),
            ("fewshot_delimiter".to_owned(), Json::from(questions.fewshot_delimiter.as_str())),
        ]),
        n_shot,
        original_samples: questions.samples.len() as u64,
        metrics: judges.iter().map(aggregate).collect(),
        rows,
    })
}

fn filter_name(filter: &str) -> String {
    if filter.is_empty() { NO_FILTER.to_owned() } else { filter.to_owned() }
}

fn output_type(kind: &QuestionKind) -> &'static str {
    match kind {
        QuestionKind::Choice => "multiple_choice",
        QuestionKind::Continuation => "loglikelihood",
        QuestionKind::Rolling => "loglikelihood_rolling",
        QuestionKind::Generation(_) => "generate_until",
    }
}

fn row(
    questions: &Questions,
    sample: &Sample,
    answer: &SideAnswer,
    (filter, filtered): (&str, Option<String>),
    metrics: Vec<(String, MetricValue)>,
    reader: &Reader,
) -> Result<SampleRow> {
    let text = |text: &str| Json::from(text);
    let asked = suite::arguments(questions, sample, reader)?;
    let arguments = asked
        .into_iter()
        .map(|(context, continuation)| match &questions.kind {
            QuestionKind::Rolling => vec![text(&continuation)],
            QuestionKind::Generation(settings) => vec![
                text(&context),
                Json::Object(vec![
                    (
                        "until".to_owned(),
                        Json::List(settings.until.iter().map(|until| text(until)).collect()),
                    ),
                    ("do_sample".to_owned(), Json::Bool(settings.sampling.is_some())),
                    ("max_gen_toks".to_owned(), Json::Integer(settings.max_new_tokens as i128)),
                ]),
            ],
            _ => vec![text(&context), text(&continuation)],
        })
        .collect();
    let pair = |likelihood: &super::answers::Likelihood| {
        Json::List(vec![Json::Float(likelihood.log_likelihood), Json::Bool(likelihood.greedy)])
    };
    let (resps, filtered_resps) = match answer {
        SideAnswer::Likelihoods(likelihoods) if questions.kind == QuestionKind::Rolling => {
            let value = Json::Float(likelihoods.first().map_or(f64::NAN, |one| one.log_likelihood));
            (Json::List(vec![Json::List(vec![value.clone()])]), Json::List(vec![value]))
        }
        SideAnswer::Likelihoods(likelihoods) => (
            Json::List(likelihoods.iter().map(|one| Json::List(vec![pair(one)])).collect()),
            Json::List(likelihoods.iter().map(pair).collect()),
        ),
        SideAnswer::Written(answers) => {
            let texts = answers.greedy.iter().chain(&answers.drawn).map(|one| text(&one.text)).collect();
            (Json::List(vec![Json::List(texts)]), Json::List(vec![text(&filtered.unwrap_or_default())]))
        }
        SideAnswer::Missing => (Json::List(Vec::new()), Json::List(Vec::new())),
    };
    let target = match &sample.answer {
        Answer::Choice { gold, .. } => match gold.as_slice() {
            [one] => Json::Integer(*one as i128),
            several => Json::List(several.iter().map(|index| Json::Integer(*index as i128)).collect()),
        },
        Answer::Continuation(target) => text(target),
        Answer::Text => text(&sample.question),
        Answer::Generation(targets) => match targets.as_slice() {
            [one] => text(one),
            several => Json::List(several.iter().map(|target| text(target)).collect()),
        },
    };
    Ok(SampleRow {
        doc_id: sample.doc_id as u64,
        doc: Json::from(sample.record.clone()),
        target,
        arguments,
        resps,
        filtered_resps,
        filter: filter.to_owned(),
        metrics,
    })
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// √(Σ(x − x̄)² / (n − 1) / n), as lm-evaluation-harness prints it.
fn standard_error(values: &[f64]) -> Option<f64> {
    let (n, mean) = (values.len() as f64, mean(values));
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (values.len() > 1).then(|| (squares / (n - 1.0) / n).sqrt())
}
