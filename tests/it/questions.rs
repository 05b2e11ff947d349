//! Questions through the whole program: sides agree with each other, another vocabulary is compared by sample, sample
//! files written elsewhere are read, what is drawn is drawn alike.

use std::{ffi::OsStr, path::PathBuf};

use qeval::comparison::{Comparison, tasks::PairedScores};
use serde_json::Value;

use crate::support::{compare, entries, qeval, refusal, shared};

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
    let Some(models) = shared("models/polyglot6m") else { return };
    let base = models.join("model.safetensors");
    let args = ["--suite", "multilingual", "--suite", "reasoning", "--per-level", "3", "--limit", "12"];
    let args = [&args[..], &["--max-windows", "1", "--max-new-tokens", "6", "--no-noise-floor"]].concat();
    let comparison = compare(&base, std::slice::from_ref(&base), &args);
    let row = &comparison.quants[0];
    assert_eq!(row.overall.kl_divergence.max, 0.0);
    let flips = overall(&comparison).flips.unwrap();
    assert_eq!((flips.right_to_wrong, flips.wrong_to_right, flips.wrong_to_another_wrong), (0, 0, 0));
    // Nothing flipped is not nothing known: the interval has a width.
    let difference = overall(&comparison).difference;
    assert!(difference.value == 0.0 && difference.upper.unwrap() > 0.0);
    let questions = row.questions.as_ref().unwrap();
    // 24 languages of choices, 8 families in two forms.
    let tasks: std::collections::BTreeSet<&str> =
        questions.tasks.iter().map(|t| t.key.task.as_str()).collect();
    assert_eq!(tasks.len(), 24 + 16);
    assert_eq!(questions.languages.len(), 24);
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

#[test]
fn a_worse_cousin_answers_otherwise_and_is_the_same_alone() {
    let Some(models) = shared("models/polyglot6m") else { return };
    let (base, quant) = (models.join("model.safetensors"), models.join("polyglot6m-Q2_K.gguf"));
    let piqa = format!("piqa={}", shared("data/tasks/piqa.jsonl").unwrap().display());
    let gsm8k = format!("gsm8k={}", shared("data/tasks/gsm8k.jsonl").unwrap().display());
    let args = ["--data", piqa.as_str(), "--data", gsm8k.as_str(), "--num-fewshot", "0", "--limit", "40"];
    let args =
        [&args[..], &["--max-new-tokens", "24", "--draws", "2", "--temperature", "0.7", "--top-p", "0.95"]]
            .concat();
    let comparison = compare(&base, std::slice::from_ref(&quant), &args);
    let row = &comparison.quants[0];
    let questions = row.questions.as_ref().unwrap();
    let piqa = questions.tasks.iter().find(|t| t.key.task == "piqa/piqa" && t.key.metric == "acc").unwrap();
    let flips = piqa.scores.flips.unwrap();
    assert!(flips.right_to_wrong + flips.wrong_to_right > 0);
    assert_eq!((piqa.scores.samples, piqa.scores.chance), (40, Some(0.5)));
    assert_eq!(
        row.flipped.iter().filter(|f| f.task == "piqa/piqa").count() as u64,
        (flips.right_to_wrong + flips.wrong_to_right).min(10)
    );
    assert!(row.flipped.iter().all(|f| f.base_answer != f.quant_answer && f.base_score != f.quant_score));
    let written = &row.generations[0].figures;
    assert!(written.identical.value < 0.5 && written.first_divergence_median < 24.0, "{written:?}");
    assert!(row.traces[0].metrics.as_ref().unwrap().kl_divergence.mean.value > 1e-3);
    let filters: Vec<&str> = questions.tasks.iter().filter_map(|t| t.key.filter.as_deref()).collect();
    assert!(filters.iter().any(|f| f.ends_with("mean of 2 draws")), "{filters:?}");
    // The noise floor chooses, but does not write.
    let floor = comparison.noise_floor.as_ref().unwrap().questions.as_ref().unwrap();
    assert!(floor.tasks.iter().all(|task| task.key.task == "piqa/piqa"));

    let alone = |model: &PathBuf| {
        let mut all = vec![OsStr::new("eval"), model.as_os_str()];
        all.extend(args.iter().map(OsStr::new));
        run(&all)
    };
    for (side, model) in [("base", &base), ("quant", &quant)] {
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
    let Some(stories) = shared("models/stories260k") else { return };
    let polyglot = shared("models/polyglot6m").unwrap();
    let piqa = format!("piqa={}", shared("data/tasks/piqa.jsonl").unwrap().display());
    let args = ["--suite", "perplexity", "--data", &piqa];
    let cousins = [stories.join("stories260K-Q8_0.gguf"), polyglot.join("polyglot6m-Q4_K_M.gguf")];
    let comparison = compare(&polyglot.join("model.safetensors"), &cousins, &args);
    // The cousin of the same vocabulary is measured as ever.
    assert_eq!((comparison.quants.len(), comparison.foreign.len()), (1, 1));
    assert!(comparison.quants[0].overall.kl_divergence.mean.value > 0.0);
    let foreign = &comparison.foreign[0];
    assert!(foreign.reason.contains("vocabular"), "{}", foreign.reason);
    assert!(comparison.warnings.iter().any(|w| w.contains("per byte and per sample")));
    assert_eq!(foreign.bytes.len(), 3);
    // Alone, by the harness's protocol, with every byte scored: the same bits per byte.
    let eval = |model: PathBuf| {
        run(&[
            OsStr::new("eval"),
            model.as_os_str(),
            "--suite".as_ref(),
            "perplexity".as_ref(),
            "--data".as_ref(),
            piqa.as_ref(),
            "--protocol".as_ref(),
            "lm-eval".as_ref(),
            "--window".as_ref(),
            "511".as_ref(),
        ])
    };
    let alone = eval(stories.join("stories260K-Q8_0.gguf"));
    for task in &foreign.bytes {
        let text = alone.base_text.iter().find(|text| text.task.as_ref() == Some(&task.task)).unwrap();
        let (ours, theirs) = (task.figures.quant_bits_per_byte.value, text.bits_per_byte.unwrap().value);
        assert!((ours - theirs).abs() < 2e-3 * theirs, "{}: {ours} {theirs}", task.task);
    }
    let paired = &foreign.questions.as_ref().unwrap().tasks[0].scores;
    let score = alone.base_questions.as_ref().unwrap().tasks[0].score;
    assert_eq!(paired.quant.value, score.value);
    assert!(paired.flips.unwrap().right_to_wrong > 0);
}

#[test]
fn one_piece_that_differs_is_another_vocabulary() {
    let Some(models) = shared("models/stories260k") else { return };
    let folder = tempfile::tempdir().unwrap();
    for name in ["model.safetensors", "config.json", "tokenizer_config.json"] {
        std::fs::copy(models.join(name), folder.path().join(name)).unwrap();
    }
    let text = std::fs::read_to_string(models.join("tokenizer.json")).unwrap();
    let mut tokenizer: Value = serde_json::from_str(&text).unwrap();
    let vocabulary = tokenizer["model"]["vocab"].as_object_mut().unwrap();
    let (the, and) = (vocabulary["▁the"].clone(), vocabulary["▁and"].clone());
    vocabulary.insert("▁the".to_owned(), and);
    vocabulary.insert("▁and".to_owned(), the);
    std::fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let comparison =
        compare(&models.join("model.safetensors"), &[folder.path().to_owned()], &["--no-noise-floor"]);
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

#[test]
fn mistakes_are_named_with_what_to_do() {
    let Some(models) = shared("models/stories260k") else { return };
    let model = models.join("model.safetensors");
    let folder = tempfile::tempdir().unwrap();
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
