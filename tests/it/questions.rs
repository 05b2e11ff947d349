//! Questions through the whole program: sides agree with each other, another vocabulary is compared by sample, sample
//! files written elsewhere are read, what is drawn is drawn alike.
//!
//! Needs ../shared: the sample files that lm-evaluation-harness wrote.

use std::{ffi::OsStr, path::Path};

use qeval::comparison::{Comparison, tasks::PairedScores};
use serde_json::Value;

use crate::support::{
    compare, demo_copy, demo_cousin, demo_of_vocabulary, demo_stories, demo_suite, demo_weights, edit_json,
    entries, qeval, refusal, shared,
};

/// Runs a command with `--json` into a temporary folder.
fn run<S: AsRef<OsStr>>(args: &[S]) -> Comparison {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let mut all: Vec<&OsStr> = args.iter().map(AsRef::as_ref).collect();
    all.extend([OsStr::new("--json"), "--quiet".as_ref(), "--out".as_ref(), out.as_os_str()]);
    let output = qeval(all);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(out.join("report.html").is_file());
    serde_json::from_slice(&output.stdout).unwrap()
}

fn overall(comparison: &Comparison) -> &PairedScores {
    comparison.quants[0].questions.as_ref().unwrap().overall.as_ref().unwrap()
}

#[test]
fn a_model_against_itself_loses_nothing_anywhere() {
    let base = demo_weights();
    let folder = tempfile::tempdir().unwrap();
    let suite = demo_suite(
        folder.path(),
        &["en", "zh", "en-questions", "de-questions", "zh-questions", "en-endings", "ru-endings"],
    );
    let args = ["--suite", suite.to_str().unwrap(), "--suite", "reasoning", "--per-level", "2"];
    let args = [&args[..], &["--limit", "12", "--max-new-tokens", "6", "--no-noise-floor"]].concat();
    let comparison = compare(&base, std::slice::from_ref(&base), &args);
    let row = &comparison.quants[0];
    assert_eq!(row.overall.kl_divergence.max, 0.0);
    let flips = overall(&comparison).flips.unwrap();
    assert_eq!((flips.right_to_wrong, flips.wrong_to_right, flips.wrong_to_another_wrong), (0, 0, 0));
    // Nothing flipped is not nothing known: the interval has a width.
    let difference = overall(&comparison).difference;
    assert!(difference.value == 0.0 && difference.upper.unwrap() > 0.0);
    let questions = row.questions.as_ref().unwrap();
    // Five tasks of choices, 8 families in two forms.
    let tasks: std::collections::BTreeSet<&str> =
        questions.tasks.iter().map(|t| t.key.task.as_str()).collect();
    assert_eq!(tasks.len(), 5 + 16);
    let languages: Vec<&str> = questions.languages.iter().map(|l| l.language.as_str()).collect();
    assert_eq!(languages.len(), 4, "{languages:?}");
    assert!(questions.languages.iter().all(|l| (l.language == "en") == l.difference_to_english.is_none()));
    assert!(
        questions.tasks.iter().filter(|t| t.key.task.contains("arithmetic")).all(|t| t.levels.len() >= 4)
    );
    assert_eq!(row.generations.len(), 8);
    assert!(row.generations.iter().all(|task| task.figures.identical.value == 1.0));
    assert!(!row.traces.is_empty());
    assert!(row.traces.iter().all(|task| task.metrics.as_ref().unwrap().kl_divergence.max == 0.0));
    assert!(row.flipped.is_empty());
    assert!(comparison.asking.as_ref().unwrap().contains("greedy"));
}

/// Two sums with an answer to write, as a task file of lm-evaluation-harness and its data.
fn written_sums(folder: &Path) -> String {
    let sums: String = (2..10)
        .map(|n| format!("{{\"question\": \"{n} + {} =\", \"answer\": \"{}\"}}\n", 12 - n, 12))
        .collect();
    let data = folder.join("sums.data.jsonl");
    std::fs::write(&data, sums).unwrap();
    let yaml = folder.join("sums.yaml");
    let text = format!(
        "task: sums\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: '{}'}}}}\ntest_split: test\n\
         output_type: generate_until\ndoc_to_text: '{{{{question}}}}'\ndoc_to_target: ' {{{{answer}}}}'\n\
         generation_kwargs: {{until: [\"\\n\"]}}\nmetric_list: [{{metric: exact_match}}]\n",
        data.display()
    );
    std::fs::write(&yaml, text).unwrap();
    yaml.to_str().unwrap().to_owned()
}

#[test]
fn a_worse_cousin_answers_otherwise_and_is_the_same_alone() {
    let folder = tempfile::tempdir().unwrap();
    let suite = demo_suite(folder.path(), &["en-questions", "en-endings"]);
    let sums = written_sums(folder.path());
    // Integers of two bits: hardly the same model.
    let (base, quant) = (demo_weights(), format!("{}@w2a16", demo_weights().display()));
    let args = ["--suite", suite.to_str().unwrap(), "--suite", &sums, "--limit", "40"];
    let args =
        [&args[..], &["--max-new-tokens", "12", "--draws", "2", "--temperature", "0.7", "--top-p", "0.95"]]
            .concat();
    let comparison = compare(&base, &[quant.clone().into()], &args);
    let row = &comparison.quants[0];
    let questions = row.questions.as_ref().unwrap();
    let asked = "demo/en-questions";
    let choices = questions.tasks.iter().find(|t| t.key.task == asked && t.key.metric == "acc").unwrap();
    let flips = choices.scores.flips.unwrap();
    assert!(flips.right_to_wrong + flips.wrong_to_right > 0);
    assert_eq!((choices.scores.samples, choices.scores.chance), (40, Some(0.25)));
    assert_eq!(
        row.flipped.iter().filter(|f| f.task == asked).count() as u64,
        (flips.right_to_wrong + flips.wrong_to_right).min(10)
    );
    assert!(row.flipped.iter().all(|f| f.base_answer != f.quant_answer && f.base_score != f.quant_score));
    let written = &row.generations[0].figures;
    assert!(written.identical.value < 0.5 && written.first_divergence_median < 12.0, "{written:?}");
    assert!(row.traces[0].metrics.as_ref().unwrap().kl_divergence.mean.value > 1e-3);
    let filters: Vec<&str> = questions.tasks.iter().filter_map(|t| t.key.filter.as_deref()).collect();
    assert!(filters.iter().any(|f| f.ends_with("mean of 2 draws")), "{filters:?}");
    // The noise floor chooses, but does not write.
    let floor = comparison.noise_floor.as_ref().unwrap().questions.as_ref().unwrap();
    assert!(!floor.tasks.is_empty() && floor.tasks.iter().all(|task| task.key.task.starts_with("demo/en-")));

    let alone = |model: &OsStr| {
        let mut all = vec![OsStr::new("eval"), model];
        all.extend(args.iter().map(OsStr::new));
        run(&all)
    };
    for (side, model) in [("base", base.as_os_str()), ("quant", quant.as_ref())] {
        let alone = alone(model);
        assert!(alone.quants.is_empty() && alone.unmeasured() == 0);
        for task in &alone.base_questions.as_ref().unwrap().tasks {
            let paired = questions.tasks.iter().find(|other| other.key == task.key).unwrap();
            let expected = if side == "base" { &paired.scores.base } else { &paired.scores.quant };
            assert_eq!(task.score.value, expected.value, "{side} {:?}", task.key);
        }
    }
}

#[test]
fn another_vocabulary_is_compared_by_byte_and_by_sample() {
    let folder = tempfile::tempdir().unwrap();
    let suite = demo_suite(folder.path(), &["en", "ru", "en-questions", "en-endings"]);
    let args = ["--suite", suite.to_str().unwrap()];
    let other = folder.path().join("other");
    std::fs::create_dir(&other).unwrap();
    demo_of_vocabulary(&other, 800);
    let cousins = [other.clone(), demo_cousin("q4_k_m")];
    let comparison = compare(&demo_weights(), &cousins, &args);
    // The cousin of the same vocabulary is measured as ever.
    assert_eq!((comparison.quants.len(), comparison.foreign.len()), (1, 1));
    assert!(comparison.quants[0].overall.kl_divergence.mean.value > 0.0);
    let foreign = &comparison.foreign[0];
    assert!(foreign.reason.contains("vocabular"), "{}", foreign.reason);
    assert!(comparison.warnings.iter().any(|w| w.contains("per byte and per sample")));
    assert_eq!(foreign.bytes.len(), 2);
    // Alone, by the harness's protocol, with every byte scored: the same bits per byte.
    let mut all = vec![OsStr::new("eval"), other.as_os_str()];
    all.extend(args.iter().chain(&["--protocol", "lm-eval", "--window", "255"]).map(OsStr::new));
    let alone = run(&all);
    for task in &foreign.bytes {
        let text = alone.base_text.iter().find(|text| text.task.as_ref() == Some(&task.task)).unwrap();
        let (ours, theirs) = (task.figures.quant_bits_per_byte.value, text.bits_per_byte.unwrap().value);
        assert!((ours - theirs).abs() < 2e-3 * theirs, "{}: {ours} {theirs}", task.task);
    }
    let tasks = &foreign.questions.as_ref().unwrap().tasks;
    assert!(tasks.len() >= 2);
    for paired in tasks {
        let all = &alone.base_questions.as_ref().unwrap().tasks;
        let score = all.iter().find(|task| task.key == paired.key).unwrap().score;
        assert_eq!(paired.scores.quant.value, score.value);
        let flips = paired.scores.flips.unwrap();
        let lost = flips.right_to_wrong as f64 - flips.wrong_to_right as f64;
        let difference = paired.scores.base.value - paired.scores.quant.value;
        assert!((lost / paired.scores.samples as f64 - difference).abs() < 1e-12, "{:?}", paired.key);
    }
}

#[test]
fn one_piece_that_differs_is_another_vocabulary() {
    let folder = tempfile::tempdir().unwrap();
    demo_copy(folder.path());
    edit_json(&folder.path().join("tokenizer.json"), |tokenizer| {
        let vocabulary = tokenizer["model"]["vocab"].as_object_mut().unwrap();
        let (one, other) = (vocabulary["Ġthe"].clone(), vocabulary["Ġto"].clone());
        vocabulary.insert("Ġthe".to_owned(), other);
        vocabulary.insert("Ġto".to_owned(), one);
    });
    let args = ["--text", &demo_stories("en"), "--no-noise-floor"];
    let comparison = compare(&demo_weights(), &[folder.path().to_owned()], &args);
    assert_eq!((comparison.quants.len(), comparison.foreign.len()), (0, 1));
    assert!(comparison.foreign[0].reason.contains("vocabularies differ"), "{}", comparison.foreign[0].reason);
}

#[test]
fn sample_files_written_elsewhere_are_compared() {
    let Some(goldens) = shared("goldens/lm-eval") else { return };
    let (base, quant) = (goldens.join("polyglot6m"), goldens.join("stories260k"));
    let comparison = run(&[OsStr::new("compare"), "--samples".as_ref(), base.as_os_str(), quant.as_os_str()]);
    let foreign = &comparison.foreign[0];
    let questions = foreign.questions.as_ref().unwrap();
    for (folder, side) in [(&base, "base"), (&quant, "quant")] {
        let results: Value =
            serde_json::from_str(&std::fs::read_to_string(folder.join("results.json")).unwrap()).unwrap();
        for task in &questions.tasks {
            let filter = task.key.filter.as_deref().unwrap_or("none");
            let golden =
                results["results"][&task.key.task][format!("{},{filter}", task.key.metric)].as_f64().unwrap();
            let ours = if side == "base" { task.scores.base.value } else { task.scores.quant.value };
            assert!((golden - ours).abs() < 1e-12, "{:?}: {golden} {ours}", task.key);
        }
    }
    // Eight tasks are in both: one of texts, the others with one or two metrics.
    assert_eq!((foreign.bytes.len(), questions.tasks.len()), (1, 6 * 2 + 1));
    assert!(comparison.warnings.iter().any(|w| w.contains("only base has")), "{:?}", comparison.warnings);
}

/// What `eval` writes for the harness's readers is compared without a model, with the same figures.
#[test]
fn own_sample_files_are_compared() {
    let folder = tempfile::tempdir().unwrap();
    let suite = demo_suite(folder.path(), &["en", "en-questions", "de-endings"]);
    let quant = format!("{}@q4_0", demo_weights().display());
    let args = ["--suite", suite.to_str().unwrap(), "--limit", "20", "--no-hash"];
    let write = |model: &str, name: &str| {
        let out = folder.path().join(name);
        let mut all = vec!["eval", model];
        all.extend(args);
        run(&[&all[..], &["--lm-eval", out.to_str().unwrap()]].concat());
        out
    };
    let (base, cousin) = (write(demo_weights().to_str().unwrap(), "base"), write(&quant, "cousin"));
    let samples = run(&[OsStr::new("compare"), "--samples".as_ref(), base.as_os_str(), cousin.as_os_str()]);
    let models = compare(&demo_weights(), &[quant.into()], &args);
    let from_samples = &samples.foreign[0].questions.as_ref().unwrap().tasks;
    let from_models = &models.quants[0].questions.as_ref().unwrap().tasks;
    assert_eq!(from_samples.len(), from_models.len());
    for ours in from_models {
        let theirs = from_samples
            .iter()
            .find(|t| ours.key.task == format!("demo/{}", t.key.task) && t.key.metric == ours.key.metric)
            .unwrap_or_else(|| panic!("{:?} among {:?}", ours.key, from_samples[0].key));
        assert_eq!(ours.scores.base.value, theirs.scores.base.value, "{:?}", ours.key);
        assert_eq!(ours.scores.quant.value, theirs.scores.quant.value, "{:?}", ours.key);
        assert_eq!(ours.scores.samples, theirs.scores.samples, "{:?}", ours.key);
    }
}

#[test]
fn mistakes_are_named_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    // Without a chat template.
    let model = folder.path().join("model");
    std::fs::create_dir(&model).unwrap();
    demo_copy(&model);
    edit_json(&model.join("tokenizer_config.json"), |config| {
        config.as_object_mut().unwrap().remove("chat_template");
    });
    let out = folder.path().join("out");
    let said = |args: &[&str]| {
        let mut all = vec![OsStr::new("eval"), model.as_os_str(), "--out".as_ref(), out.as_os_str()];
        all.extend(args.iter().map(OsStr::new));
        let text = refusal(all);
        assert!(!out.exists(), "{args:?} left something behind");
        text
    };
    assert!(said(&["--suite", "hellaswag"]).contains("--data hellaswag=PATH"));
    assert!(said(&["--data", "helaswag=x.jsonl"]).contains("hellaswag"));
    assert!(said(&["--data", "piqa"]).contains("NAME=PATH"));
    assert!(said(&["--data", "piqa=no/such/file.jsonl"]).contains("no such file"));
    assert!(said(&["--offline", "--data", "piqa=org/name"]).contains("offline"));
    assert!(said(&["--chat", "on", "--suite", "reasoning"]).contains("no chat template"));
    assert!(said(&["--suite", "reasoning", "--limit", "0"]).contains("--limit"));
    assert!(said(&["--suite", "reasoning", "--max-new-tokens", "600"]).contains("no room"));
    let yaml = folder.path().join("python.yaml");
    std::fs::write(&yaml, "task: mine\ndataset_path: json\nprocess_docs: !function utils.process\n").unwrap();
    let text = said(&["--suite", yaml.to_str().unwrap()]);
    assert!(text.contains("function") && text.contains("process_docs"), "{text}");
    let nowhere = refusal(["compare", "org-that-is-not/here", "b.gguf", "--offline"]);
    assert!(nowhere.contains("offline"), "{nowhere}");
}

#[test]
fn suites_are_listed_with_what_they_take() {
    let output = qeval(["suites"]);
    let text = String::from_utf8(output.stdout).unwrap();
    for name in ["perplexity", "multilingual", "reasoning", "hellaswag", "mmlu", "belebele", "CC0-1.0"] {
        assert!(text.contains(name), "{name}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    let output = qeval(["suites", "--json"]);
    let lines: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert!(lines.len() > 20);
    let reasoning = lines.iter().find(|line| line["name"] == "reasoning").unwrap();
    assert!(reasoning["samples"].as_u64().unwrap() > 1000);
    // Every shared task file is read by some benchmark; see the benchmarks' own tests.
    assert!(entries(&std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("suites")).len() >= 3);
}
