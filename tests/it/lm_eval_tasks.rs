//! Task files of lm-evaluation-harness against what that program itself recorded: every prompt, every
//! continuation, every filtered answer and every score of its sample files.
//!
//! Needs ../shared: the task files and the samples.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use qeval::suite::lm_eval::{LoadedTask, Settings, load};
use qeval::suite::question::{Answer, Metric, QuestionKind, Questions, Sample};
use qeval::suite::score::{
    CompiledComparison, CompiledFilter, apply, choice_score, count_words, exact_match,
};
use serde_json::Value;

use crate::support::shared;

/// The prompt without a chat template: description, examples, question, and what the answer begins with.
fn prompt(questions: &Questions, sample: &Sample, question: &str) -> String {
    let mut text = questions.description.clone();
    for shot in sample.shots.iter() {
        text += &shot.question;
        text += &questions.target_delimiter;
        text += &shot.answer;
        text += &questions.fewshot_delimiter;
    }
    assert!(sample.answer_prefix.is_empty(), "no golden task has a prefix");
    text + question
}

/// The requests that a sample becomes: context and continuation, as `arg_0` and `arg_1` of the sample files.
fn requests(questions: &Questions, sample: &Sample) -> Vec<(String, Option<String>)> {
    let context = prompt(questions, sample, &sample.question);
    match &sample.answer {
        Answer::Choice { options, .. } => options
            .iter()
            .map(|option| {
                let own = option.question.as_ref().map(|question| prompt(questions, sample, question));
                let continuation = format!("{}{}", questions.target_delimiter, option.continuation);
                (own.unwrap_or_else(|| context.clone()), Some(continuation))
            })
            .collect(),
        Answer::Continuation(text) => {
            vec![(context, Some(format!("{}{text}", questions.target_delimiter)))]
        }
        Answer::Text => vec![(sample.question.clone(), None)],
        Answer::Generation(_) => vec![(context, None)],
    }
}

fn task_files() -> Option<Vec<PathBuf>> {
    let folder = shared("goldens/lm-eval/tasks")?;
    let files: Vec<PathBuf> = crate::support::entries(&folder);
    assert!(files.len() >= 13, "{files:?}");
    Some(files)
}

fn the_only(path: &Path, settings: &Settings) -> LoadedTask {
    let tasks = load(path, settings).unwrap_or_else(|e| panic!("{e} ({:?})", e.help()));
    let [task] = <[LoadedTask; 1]>::try_from(tasks).expect("one task");
    task
}

/// The recorded samples of a task, by model.
fn recorded(task: &str) -> BTreeMap<String, Vec<Value>> {
    let mut found = BTreeMap::new();
    for model in ["polyglot6m", "stories260k"] {
        let path = shared(&format!("goldens/lm-eval/{model}")).unwrap().join(format!("samples_{task}.jsonl"));
        if let Ok(text) = std::fs::read_to_string(path) {
            let rows = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            found.insert(model.to_owned(), rows);
        }
    }
    found
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

#[test]
fn every_recorded_request_is_put_together_alike() {
    let Some(files) = task_files() else { return };
    let (mut compared, mut with_shots) = (0, 0);
    for path in files {
        let task = the_only(&path, &Settings::default());
        assert_eq!(task.name, path.file_stem().unwrap().to_str().unwrap());
        assert_eq!(task.version, "1.0");
        assert_eq!(task.data_files.len(), 2, "{:?}", task.data_files);
        assert!(task.notes.is_empty() && task.questions.left_out.is_empty(), "{task:?}");
        let models = recorded(&task.name);
        assert!(!models.is_empty(), "{} was never recorded", task.name);
        for (model, rows) in models {
            assert_eq!(rows.len(), task.questions.samples.len(), "{model} {}", task.name);
            for row in rows {
                let index = usize::try_from(row["doc_id"].as_u64().unwrap()).unwrap();
                let sample = &task.questions.samples[index];
                assert_eq!((sample.doc_id, &sample.record), (index, &row["doc"]));
                let made = requests(&task.questions, sample);
                let arguments = row["arguments"].as_object().unwrap();
                assert_eq!(arguments.len(), made.len());
                for (number, (context, continuation)) in made.iter().enumerate() {
                    let arguments = &arguments[&format!("gen_args_{number}")];
                    assert_eq!(context, text(&arguments["arg_0"]), "{model} {} {index}", task.name);
                    match (continuation, &task.questions.kind) {
                        (Some(continuation), _) => assert_eq!(continuation, text(&arguments["arg_1"])),
                        (None, QuestionKind::Generation(settings)) => {
                            let recorded = &arguments["arg_1"];
                            assert_eq!(serde_json::json!(settings.until), recorded["until"]);
                            assert_eq!(serde_json::json!(settings.max_new_tokens), recorded["max_gen_toks"]);
                            assert_eq!((settings.sampling.is_some(), settings.repeats), (false, 1));
                            assert_eq!(recorded["do_sample"], false);
                        }
                        (None, _) => assert!(arguments.get("arg_1").is_none()),
                    }
                    compared += 1;
                }
                with_shots += usize::from(sample.shots.len() == 5);
            }
        }
    }
    // As many as the sample files hold: nothing was passed over.
    assert_eq!((compared, with_shots), (4064, 120));
}

#[test]
fn every_recorded_score_follows_from_the_recorded_answers() {
    let Some(files) = task_files() else { return };
    let mut compared: BTreeMap<&str, usize> = BTreeMap::new();
    for path in files {
        let task = the_only(&path, &Settings::default());
        let questions = &task.questions;
        for (model, rows) in recorded(&task.name) {
            for row in rows {
                let index = usize::try_from(row["doc_id"].as_u64().unwrap()).unwrap();
                let sample = &questions.samples[index];
                let place = format!("{model} {} {index}", task.name);
                let responses: Vec<&Value> = row["resps"].as_array().unwrap().iter().map(|r| &r[0]).collect();
                for metric in &questions.metrics {
                    let score = &row[metric.name()];
                    match &sample.answer {
                        Answer::Choice { options, gold } => {
                            let values: Vec<f64> =
                                responses.iter().map(|r| text(&r[0]).parse().unwrap()).collect();
                            let found = choice_score(metric, &values, options, gold);
                            assert_eq!(found, score.as_f64(), "{place} {}", metric.name());
                            assert_eq!(text(&row["target"]), gold[0].to_string());
                        }
                        Answer::Generation(targets) => {
                            let [filter] = &questions.filters[..] else { panic!("{place}: filters") };
                            assert_eq!(filter.name, text(&row["filter"]));
                            let answers: Vec<String> = responses.iter().map(|r| text(r).to_owned()).collect();
                            let filtered = apply(&CompiledFilter::new(filter).unwrap(), &answers).unwrap();
                            assert_eq!(serde_json::json!(filtered), row["filtered_resps"], "{place}");
                            let Metric::ExactMatch(comparison) = metric else { panic!("{place}: metric") };
                            let comparison = CompiledComparison::new(comparison).unwrap();
                            let found = exact_match(&comparison, &filtered[0], targets).unwrap();
                            assert_eq!(Some(f64::from(u8::from(found))), score.as_f64(), "{place}");
                            assert_eq!(targets, &[text(&row["target"])]);
                        }
                        Answer::Text => {
                            let units = match metric {
                                Metric::WordPerplexity => count_words(&sample.question),
                                _ => sample.question.len(),
                            };
                            assert_eq!(score[1], units, "{place} {}", metric.name());
                        }
                        Answer::Continuation(_) => panic!("{place}: no golden task asks for a continuation"),
                    }
                    *compared.entry(metric.name()).or_default() += 1;
                }
            }
        }
    }
    let expected = [
        ("acc", 1320),
        ("acc_norm", 1320),
        ("bits_per_byte", 24),
        ("byte_perplexity", 24),
        ("exact_match", 200),
        ("word_perplexity", 24),
    ];
    assert_eq!(compared.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn settings_change_what_is_asked() {
    let Some(folder) = shared("goldens/lm-eval/tasks") else { return };
    let limited = Settings { limit: Some(3), num_fewshot: Some(2), ..Settings::default() };
    let path = folder.join("q_arc_easy_5shot.yaml");
    let task = the_only(&path, &limited);
    assert_eq!(task.questions.samples.len(), 3);
    let first: Vec<&str> = task.questions.samples[0].shots.iter().map(|shot| &shot.answer[..]).collect();
    let all = the_only(&path, &Settings::default());
    let of_five: Vec<&str> =
        all.questions.samples[0].shots.iter().take(2).map(|shot| &shot.answer[..]).collect();
    assert_eq!(first, of_five, "the first n are the same for any n");
    let piqa = folder.join("q_piqa.yaml");
    let shots = |seed| {
        let settings = Settings { num_fewshot: Some(2), fewshot_seed: seed, ..limited.clone() };
        the_only(&piqa, &settings).questions.samples.iter().map(|s| s.shots.clone()).collect::<Vec<_>>()
    };
    assert_ne!(shots(1), shots(2));
    assert_eq!(shots(1), shots(1));
}
