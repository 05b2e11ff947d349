//! Sample files of lm-evaluation-harness 0.4.13: written again to the byte, and two models of them paired.
//!
//! Needs ../shared: the sample files.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use qeval::samples::{self, AggregateMetric, Json, MetricValue, Run, SampleRow, TaskRun};

use crate::support;

/// What of `results.json` is about the harness and its libraries alone; see `samples/write.rs`.
const ABSENT: [&str; 7] = [
    "transformers_version",
    "lm_eval_version",
    "tokenizer_pad_token",
    "tokenizer_eos_token",
    "tokenizer_bos_token",
    "eot_token_id",
    "max_length",
];
/// What the harness writes too, though the golden was stored without: it differs from run to run.
const ADDED: [&str; 3] = ["model_name_sanitized", "qeval_version", "total_evaluation_time_seconds"];

/// Task, metric, items whose answers differ between the two models, mean |difference of log-likelihoods|: what a
/// few lines of Python give for the same files (`max` over `float(resp) / len(continuation without its space)`).
const DIFFERENCES: [(&str, &str, usize, f64); 16] = [
    ("q_arc_easy", "acc", 61, 11.709513340393702),
    ("q_arc_easy", "acc_norm", 62, 11.709513340393702),
    ("q_piqa", "acc", 33, 26.210702482859293),
    ("q_piqa", "acc_norm", 37, 26.210702482859293),
    ("q_hellaswag", "acc", 32, 36.19707857370376),
    ("q_hellaswag", "acc_norm", 48, 36.19707857370376),
    ("q_xcopa_it", "acc", 10, 73.79734525680541),
    ("q_xcopa_it", "acc_norm", 28, 73.79734525680541),
    ("q_xcopa_sw", "acc", 14, 78.55456196467081),
    ("q_xcopa_sw", "acc_norm", 26, 78.55456196467081),
    ("q_xcopa_zh", "acc", 13, 588.3230869452159),
    ("q_xcopa_zh", "acc_norm", 22, 588.3230869452159),
    ("q_wikitext_rolling", "word_perplexity", 0, 8712.986202637354),
    ("q_wikitext_rolling", "byte_perplexity", 0, 8712.986202637354),
    ("q_wikitext_rolling", "bits_per_byte", 0, 8712.986202637354),
    ("q_gsm8k", "exact_match", 59, 0.0),
];

/// The recorded models' folders; empty where shared files are absent.
fn models() -> Vec<PathBuf> {
    let folders = ["lm-eval/stories260k", "lm-eval/polyglot6m"];
    folders.iter().filter_map(|name| support::shared(&format!("goldens/{name}"))).collect()
}

fn text(value: Option<&Json>) -> String {
    match value {
        Some(Json::Text(text)) => text.clone(),
        other => panic!("{other:?} is no text"),
    }
}

fn list(value: Option<&Json>) -> &[Json] {
    match value {
        Some(Json::List(items)) => items,
        other => panic!("{other:?} is no list"),
    }
}

fn fields(value: Option<&Json>) -> &[(String, Json)] {
    match value {
        Some(Json::Object(fields)) => fields,
        other => panic!("{other:?} is no object"),
    }
}

fn number(value: Option<&Json>) -> f64 {
    match value {
        Some(Json::Float(value)) => *value,
        Some(Json::Integer(value)) => *value as f64,
        other => panic!("{other:?} is no number"),
    }
}

fn count(value: Option<&Json>) -> u64 {
    match value {
        Some(Json::Integer(value)) => u64::try_from(*value).expect("a count"),
        other => panic!("{other:?} is no count"),
    }
}

/// Responses as a program has them before they are texts: numbers and truth values.
fn as_measured(value: &Json) -> Json {
    match value {
        Json::List(items) => Json::List(items.iter().map(as_measured).collect()),
        Json::Text(text) if text == "True" || text == "False" => Json::Bool(text == "True"),
        Json::Text(text) => Json::Float(text.parse().expect("a log-likelihood")),
        other => panic!("{other:?} in recorded responses"),
    }
}

/// A row from a recorded line, without its hashes.
fn sample_row(line: &Json) -> SampleRow {
    let arguments: Vec<Vec<Json>> = fields(line.get("arguments"))
        .iter()
        .map(|(_, request)| fields(Some(request)).iter().map(|(_, argument)| argument.clone()).collect())
        .collect();
    let generates = matches!(arguments[0].get(1), Some(Json::Object(_)));
    let responses =
        |key| if generates { line.get(key).unwrap().clone() } else { as_measured(line.get(key).unwrap()) };
    let target = text(line.get("target"));
    let metric = |name: &Json| {
        let name = text(Some(name));
        let value = match line.get(&name) {
            Some(Json::Float(value)) => MetricValue::Number(*value),
            Some(Json::Integer(value)) => MetricValue::Whole(i64::try_from(*value).expect("small")),
            Some(Json::List(parts)) => {
                MetricValue::Rolling { log_likelihood: number(parts.first()), units: count(parts.get(1)) }
            }
            other => panic!("{other:?} as a metric"),
        };
        (name, value)
    };
    SampleRow {
        doc_id: count(line.get("doc_id")),
        doc: line.get("doc").unwrap().clone(),
        target: if arguments.len() > 1 {
            Json::Integer(target.parse().expect("an index"))
        } else {
            Json::Text(target)
        },
        arguments,
        resps: responses("resps"),
        filtered_resps: responses("filtered_resps"),
        filter: text(line.get("filter")),
        metrics: list(line.get("metrics")).iter().map(metric).collect(),
    }
}

/// A run from a recorded folder.
fn recorded_run(folder: &Path, results: &Json) -> Run {
    let task = |(name, scores): &(String, Json)| {
        let of = |key: &str| {
            results.get(key).and_then(|by_task| by_task.get(name)).cloned().expect("for every task")
        };
        let lines = fs::read_to_string(folder.join(format!("samples_{name}.jsonl"))).expect("its samples");
        let metric = |(key, value): &(String, Json)| {
            let (metric, filter) = key.split_once(',')?;
            let stderr = scores.get(&format!("{metric}_stderr,{filter}"))?;
            Some(AggregateMetric {
                name: metric.to_owned(),
                filter: filter.to_owned(),
                value: number(Some(value)),
                stderr: match stderr {
                    Json::Float(value) => Some(*value),
                    _ => None,
                },
                higher_is_better: of("higher_is_better").get(metric) == Some(&Json::Bool(true)),
            })
        };
        TaskRun {
            task: name.clone(),
            version: of("versions"),
            config: of("configs"),
            n_shot: count(Some(&of("n-shot"))),
            original_samples: count(of("n-samples").get("original")),
            metrics: fields(Some(scores)).iter().filter_map(metric).collect(),
            rows: lines.lines().map(|line| sample_row(&Json::parse(line).expect("a row"))).collect(),
        }
    };
    Run {
        model: text(results.get("model_name")),
        model_source: text(results.get("model_source")),
        tasks: fields(results.get("results")).iter().map(task).collect(),
        date: number(results.get("date")),
        system_instruction: None,
        fewshot_as_multiturn: None,
        chat_template: None,
        settings: results.get("config").expect("its settings").clone(),
        total_evaluation_time_seconds: 1.0,
    }
}

/// With keys sorted, so that their order does not count.
fn unordered(value: &Json) -> serde_json::Value {
    serde_json::from_str(&value.one_line()).expect("JSON without NaN")
}

#[test]
fn recorded_samples_are_written_again_to_the_byte() {
    for folder in models() {
        let results = Json::parse(&fs::read_to_string(folder.join("results.json")).unwrap()).unwrap();
        let run = recorded_run(&folder, &results);
        let out = tempfile::tempdir().unwrap();
        let files = samples::write(out.path(), &run).unwrap();
        let written: BTreeSet<_> = files.iter().map(|path| path.file_name().unwrap().to_owned()).collect();
        let recorded: BTreeSet<_> =
            fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(written, recorded);
        let mut rows = 0;
        for path in &files[1..] {
            let name = path.file_name().unwrap();
            let (ours, theirs) =
                (fs::read_to_string(path).unwrap(), fs::read_to_string(folder.join(name)).unwrap());
            assert_eq!(ours.lines().count(), theirs.lines().count(), "{name:?}");
            for (index, (ours, theirs)) in ours.lines().zip(theirs.lines()).enumerate() {
                let (a, b) = (Json::parse(ours).unwrap(), Json::parse(theirs).unwrap());
                for (key, value) in fields(Some(&b)) {
                    assert_eq!(a.get(key), Some(value), "{name:?}, row {index}: {key}");
                }
                assert_eq!(ours, theirs, "{name:?}, row {index}");
                rows += 1;
            }
            assert_eq!(ours, theirs, "{name:?}");
        }
        assert!(rows > 600, "{rows} rows");

        let ours = Json::parse(&fs::read_to_string(&files[0]).unwrap()).unwrap();
        for (key, value) in fields(Some(&results)) {
            match ours.get(key) {
                Some(written) => assert_eq!(unordered(written), unordered(value), "{key}"),
                None => assert!(ABSENT.contains(&key.as_str()), "{key} is missing"),
            }
        }
        for key in ABSENT {
            assert!(results.get(key).is_some() && ours.get(key).is_none(), "{key}");
        }
        let new =
            fields(Some(&ours)).iter().map(|(key, _)| key.as_str()).filter(|key| results.get(key).is_none());
        assert_eq!(new.collect::<BTreeSet<_>>(), BTreeSet::from(ADDED));
    }
}

#[test]
fn two_recorded_models_pair_and_give_their_own_figures() {
    let folders = models();
    let [small, large] = folders.as_slice() else { return };
    let paired = samples::pair(&samples::read(small).unwrap(), &samples::read(large).unwrap()).unwrap();
    let figures =
        |folder: &Path| Json::parse(&fs::read_to_string(folder.join("results.json")).unwrap()).unwrap();
    let (small, large) = (figures(small), figures(large));
    let lonely = ["q_arc_easy_5shot", "q_mgsm_de", "q_mgsm_zh", "q_xcopa_th", "q_xcopa_tr"];
    assert_eq!(paired.only_quant, lonely);
    assert!(paired.only_base.is_empty() && paired.notes.is_empty(), "{:?}", paired.notes);
    // Six tasks of choices with two metrics, three perplexities, one generation.
    assert_eq!(paired.tasks.len(), 6 * 2 + 3 + 1);
    for task in &paired.tasks {
        let place = format!("{}, {}", task.task, task.metric);
        let recorded = |results: &Json, key: &str| {
            number(results.get("results").and_then(|by| by.get(&task.task)).and_then(|task| task.get(key)))
        };
        let documents =
            count(small.get("n-samples").and_then(|by| by.get(&task.task)).and_then(|n| n.get("effective")));
        assert_eq!(task.items.len() as u64, documents, "{place}");
        assert_eq!((task.unpaired_base, task.unpaired_quant, task.without_value), (0, 0, 0), "{place}");
        assert!(task.different_prompts.is_empty() && task.different_targets.is_empty(), "{place}");
        // Every recorded score follows from the log-likelihoods, with and without normalisation.
        assert_eq!((task.unexplained, task.different_settings), (0, 0), "{place}");
        let key = format!("{},{}", task.metric, task.filter);
        let (base, quant) = task.figures().expect("values");
        let theirs = (recorded(&small, &key), recorded(&large, &key));
        if task.right_or_wrong {
            assert_eq!((base, quant), theirs, "{place}");
        } else {
            // Other orders of summation end in other last digits.
            assert!(
                (base / theirs.0 - 1.0).abs() < 1e-13 && (quant / theirs.1 - 1.0).abs() < 1e-13,
                "{place}"
            );
        }
        let rolling = task.task == "q_wikitext_rolling";
        assert_eq!(task.right_or_wrong, !rolling, "{place}");
        let options = match task.task.as_str() {
            "q_arc_easy" | "q_hellaswag" => Some(0.25),
            "q_gsm8k" | "q_wikitext_rolling" => None,
            _ => Some(0.5),
        };
        assert_eq!(task.chance, options, "{place}");
        for item in &task.items {
            assert_eq!(item.same_answer.is_some(), !rolling, "{place}, {}", item.key);
            // With one right option, the same answer is judged the same on both sides.
            if item.same_answer == Some(true) {
                assert_eq!(item.base, item.quant, "{place}, {}", item.key);
            }
        }
        let changed = task.items.iter().filter(|item| item.same_answer == Some(false)).count();
        let difference = task.log_likelihood_difference.unwrap_or(0.0);
        let facts =
            DIFFERENCES.iter().find(|(name, metric, ..)| *name == task.task && *metric == task.metric);
        let (_, _, changes, mean) = facts.expect("recorded for every task and metric");
        assert_eq!(changed, *changes, "{place}");
        assert!((difference - mean).abs() <= 1e-12 * mean, "{place}: {difference}");
    }
}

#[test]
fn the_same_documents_with_worked_examples_are_other_prompts() {
    let Some(folder) = support::shared("goldens/lm-eval/polyglot6m") else { return };
    let copy = tempfile::tempdir().unwrap();
    let other = copy.path().join("samples_q_arc_easy_2026-11-21T14-30-00.000001.jsonl");
    fs::copy(folder.join("samples_q_arc_easy_5shot.jsonl"), &other).unwrap();
    let plain = samples::read(&folder.join("samples_q_arc_easy.jsonl")).unwrap();
    let error = samples::pair(&plain, &samples::read(copy.path()).unwrap()).unwrap_err();
    assert!(error.to_string().contains("the prompts of all 120 common documents differ"), "{error}");
    // A model paired with itself: everything the same.
    let itself = samples::pair(&plain, &plain).unwrap();
    for task in &itself.tasks {
        assert!(task.items.iter().all(|item| item.same_answer == Some(true) && item.base == item.quant));
        assert_eq!(task.log_likelihood_difference, Some(0.0));
    }
}
