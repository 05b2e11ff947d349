//! `qeval demo` from an empty folder to the report: files, sentences, no network, twice in one place.

use std::{
    path::{Path, PathBuf},
    process::Output,
    sync::LazyLock,
};

use qeval::{
    comparison::{Comparison, QuantComparison},
    demo::COUSINS,
    report::wording::{self, Grade},
};

use crate::support::entries;

/// A demo that was made by the program.
struct Demo {
    /// The folder above it, where nothing else is.
    above: tempfile::TempDir,
    output: Output,
}

impl Demo {
    fn folder(&self) -> PathBuf {
        self.above.path().join("qeval-demo")
    }

    fn comparison(&self) -> Comparison {
        let text = std::fs::read(self.folder().join("report/comparison.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }
}

/// Runs `qeval demo ARGS…` in `folder`, as someone without a network and without the Hub's cache would.
fn demo_in(folder: &Path, args: &[&str]) -> Output {
    let hub = folder.join("hub");
    std::process::Command::new(env!("CARGO_BIN_EXE_qeval"))
        .arg("demo")
        .args(args)
        .current_dir(folder)
        .env("HF_HOME", &hub)
        .env("HF_HUB_CACHE", &hub)
        // Nobody answers there: an address that is opened is an error.
        .env("HF_ENDPOINT", "http://127.0.0.1:9")
        .env_remove("HF_TOKEN")
        .output()
        .expect("the program starts")
}

fn run(args: &[&str]) -> Demo {
    let above = tempfile::tempdir().unwrap();
    let output = demo_in(above.path(), args);
    Demo { above, output }
}

/// The whole demo, once for all tests.
static DEMO: LazyLock<Demo> = LazyLock::new(|| run(&[]));

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap().replace('\u{a0}', " ")
}

fn names(folder: &Path) -> Vec<String> {
    entries(folder).iter().map(|p| p.file_name().unwrap().to_string_lossy().into_owned()).collect()
}

fn cousin<'a>(comparison: &'a Comparison, label: &str) -> &'a QuantComparison {
    comparison.quants.iter().find(|quant| quant.model.label == label).unwrap()
}

/// One line of words, for sentences that are broken into lines.
fn flowing(text: &str) -> String {
    text.split_whitespace().filter(|word| *word != "!").collect::<Vec<_>>().join(" ")
}

#[test]
fn everything_is_made_and_measured_without_an_address() {
    let text = stdout(&DEMO.output);
    let mut wanted: Vec<&str> = COUSINS.iter().map(|cousin| cousin.name).collect();
    wanted.extend(["base.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "report"]);
    wanted.sort_unstable();
    assert_eq!(names(&DEMO.folder()), wanted, "no scratch file is left");
    assert_eq!(names(DEMO.above.path()), ["qeval-demo"], "the Hub's cache was not even created");
    for file in ["report.html", "report.md", "comparison.json"] {
        assert!(DEMO.folder().join("report").join(file).is_file(), "{file}");
    }
    let comparison = DEMO.comparison();
    assert_eq!(comparison.unmeasured(), 0);
    assert_eq!(comparison.quants.len(), COUSINS.len());
    assert!(comparison.foreign.is_empty() && comparison.noise_floor.is_some());
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert!(text.contains("qeval-demo/report/report.html"), "{text}");
}

#[test]
fn the_printed_command_measures_the_same() {
    let text = stdout(&DEMO.output);
    let command = text.split("\n$ ").nth(1).unwrap().split("\n\n").next().unwrap();
    let words: Vec<&str> = command.split_whitespace().filter(|word| *word != "\\").collect();
    assert_eq!(words[..3], ["qeval", "compare", "qeval-demo/base.safetensors"]);
    let listed: Vec<String> = COUSINS.iter().map(|cousin| format!("qeval-demo/{}", cousin.name)).collect();
    assert_eq!(words[3..3 + listed.len()], listed);
    let out = words.iter().position(|word| *word == "--out").unwrap();
    assert_eq!((words[out + 1], out + 2), ("qeval-demo/report", words.len()));
    // The same arguments into another folder, on a few questions.
    let elsewhere = tempfile::tempdir().unwrap();
    let run = elsewhere.path().join("run");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_qeval"))
        .args(&words[1..4])
        .args(&words[3 + listed.len()..out])
        .args(["--limit", "2", "--out"])
        .arg(&run)
        .current_dir(DEMO.above.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let again: Comparison =
        serde_json::from_slice(&std::fs::read(run.join("comparison.json")).unwrap()).unwrap();
    // All text was read in both, so that its figures are the same to the last bit.
    assert_eq!(
        again.quants[0].overall.kl_divergence.mean.value.to_bits(),
        DEMO.comparison().quants[0].overall.kl_divergence.mean.value.to_bits()
    );
}

#[test]
fn every_cousin_is_told_by_its_own_figures() {
    let (text, comparison) = (stdout(&DEMO.output), DEMO.comparison());
    let page = std::fs::read_to_string(DEMO.folder().join("report/report.html")).unwrap();
    for verdict in wording::cousins(&comparison) {
        let heading = format!("\n{}: {} (", verdict.model.label, verdict.grade.word());
        assert!(text.contains(&heading), "{heading}\n{text}");
        assert!(flowing(&text).contains(&flowing(&verdict.lead.replace('\u{a0}', " "))), "{}", verdict.lead);
        assert!(page.contains(verdict.grade.word()), "{}", verdict.grade.word());
    }
    let grade = |label: &str| {
        let all = wording::cousins(&comparison);
        all.iter().find(|verdict| verdict.model.label == label).unwrap().grade
    };
    assert!(grade("q8_0") <= Grade::NotShown, "8 bits lose nothing: {:?}", grade("q8_0"));
    // More bits, less divergence; and the broken file, of as many bits, is further away than the sound one.
    let kl = |label: &str| cousin(&comparison, label).overall.kl_divergence.mean.value;
    assert!(kl("q8_0") < kl("q4_k_m") && kl("q4_k_m") < kl("q2_k"));
    assert!(kl("q8_0-broken") > 10.0 * kl("q8_0"));
    let bits = |label: &str| cousin(&comparison, label).model.bits_per_weight;
    assert!((bits("q8_0-broken") - bits("q8_0")).abs() < 1e-12);
}

/// Whom the sentence about a layer accuses, of a whole text.
fn accused(text: &str) -> Vec<String> {
    let flowing = flowing(&text.replace("&#95;", "_"));
    let mut layers: Vec<String> = flowing
        .split(" stands out: its own error is ")
        .filter_map(|before| before.rsplit_once("ayer "))
        .map(|(_, layer)| layer.to_owned())
        .collect();
    // What follows the last sentence.
    layers.pop_if(|last| last.contains(' '));
    layers
}

#[test]
fn the_broken_layer_is_named_wherever_it_is() {
    let other = run(&["--broken-layer", "4", "--limit", "1"]);
    for (demo, layer) in [(&*DEMO, "2"), (&other, "4")] {
        let text = stdout(&demo.output);
        let sentence = format!("Layer {layer} stands out: its own error is ");
        assert!(flowing(&text).contains(&sentence), "{text}");
        assert_eq!(accused(&text), [layer], "no other file is called broken\n{text}");
        assert!(flowing(&text).contains("(mlp.down_proj: "), "{text}");
        assert!(flowing(&text).contains("a fault of the file, not of the encoding"), "{text}");
        for document in ["report.html", "report.md"] {
            let text = std::fs::read_to_string(demo.folder().join("report").join(document)).unwrap();
            assert!(flowing(&text).contains(&format!("ayer {layer} stands out")), "{document}");
        }
        // The figures behind it, read from the tables of the run.
        let comparison = demo.comparison();
        let broken = cousin(&comparison, "q8_0-broken");
        let (worst, _) = wording::worst_layer_of(broken).unwrap();
        assert_eq!(worst.layer.to_string(), layer);
        let sound = cousin(&comparison, "q8_0");
        for (broken, sound) in broken.weights.iter().zip(&sound.weights) {
            let is_it = broken.name == format!("model.layers.{layer}.mlp.down_proj.weight");
            assert_eq!(broken.sqnr_db != sound.sqnr_db, is_it, "{}", broken.name);
        }
    }
}

#[test]
fn a_second_demo_replaces_the_first_and_a_foreign_folder_is_left_alone() {
    let above = tempfile::tempdir().unwrap();
    let args = ["place", "--limit", "1"];
    stdout(&demo_in(above.path(), &args));
    let first = std::fs::read(above.path().join("place/q2_k.gguf")).unwrap();
    stdout(&demo_in(above.path(), &args));
    assert!(first == std::fs::read(above.path().join("place/q2_k.gguf")).unwrap());
    let refused = |args: &[&str], wanted: &str| {
        let output = demo_in(above.path(), args);
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(wanted) && said.contains("--force"), "{said}");
    };
    std::fs::write(above.path().join("place/notes.txt"), "mine").unwrap();
    refused(&args, "it holds `notes.txt`");
    let mine = above.path().join("mine");
    std::fs::create_dir(&mine).unwrap();
    std::fs::write(mine.join("config.json"), "{}").unwrap();
    refused(&["mine"], "it holds `config.json`");
    assert_eq!(names(&mine), ["config.json"]);
    assert_eq!(std::fs::read(mine.join("config.json")).unwrap(), b"{}");
    let said = demo_in(above.path(), &["deep", "--broken-layer", "5"]);
    assert!(String::from_utf8_lossy(&said.stderr).contains("has no layer 5"), "{said:?}");
}

/// What varies between machines.
fn steady(text: &str) -> String {
    let mut lines = Vec::new();
    for line in text.trim().lines() {
        let seconds = line.split_once("measured in ").and_then(|(_, rest)| rest.split_once(" s."));
        lines.push(match seconds {
            Some((seconds, _)) => line.replace(&format!("measured in {seconds} s."), "measured in … s."),
            None => line.trim_end().to_owned(),
        });
    }
    lines.join("\n")
}

/// The words of a text with `#` for every number, and the numbers.
fn words_and_numbers(text: &str) -> (String, Vec<f64>) {
    let number = regex::Regex::new(r"[+−-]?\d[\d,]*(\.\d+)?(e[+−-]?\d+)?").unwrap();
    let numbers = number.find_iter(text).map(|found| {
        let plain = found.as_str().replace(',', "").replace('−', "-");
        plain.parse().unwrap_or_else(|_| panic!("{plain}"))
    });
    let numbers = numbers.collect();
    // Lines break elsewhere where a number is a digit longer.
    let words = number.replace_all(text, "#").split_whitespace().collect::<Vec<_>>().join(" ");
    (words, numbers)
}

/// The last digits of figures are not the same on every processor; the sentences are.
#[test]
fn the_readme_shows_what_the_demo_prints() {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let shown =
        readme.split("```text\n").find(|block| block.starts_with("A small model that was really trained"));
    let shown = shown.and_then(|block| block.split("```").next()).expect("README.md shows the demo");
    let printed = steady(&stdout(&DEMO.output));
    let ((words, numbers), (printed_words, printed_numbers)) =
        (words_and_numbers(&steady(shown)), words_and_numbers(&printed));
    assert!(words == printed_words, "README.md is stale; the demo prints:\n{printed}\n");
    for (shown, printed_number) in numbers.iter().zip(&printed_numbers) {
        let off = (shown - printed_number).abs();
        let near = off <= 0.1 * shown.abs() || off <= 0.1;
        assert!(near, "README.md says {shown}, not {printed_number}; the demo prints:\n{printed}\n");
    }
}

/// `measured.json` was written by the training program, whose model is candle's operations and shares no code with qeval.
#[test]
fn the_cards_figures_are_those_that_qeval_measures() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("suites/demo/measured.json");
    let measured: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let comparison = DEMO.comparison();
    let asked = &comparison.base_questions.as_ref().unwrap().tasks;
    let score = |task: &str| {
        let name = format!("demo/{task}");
        let headline = asked.iter().find(|row| row.key.task == name && row.key.metric.starts_with("acc"));
        headline.unwrap_or_else(|| panic!("{name} was not asked")).score.value
    };
    let languages = measured["languages"].as_array().unwrap();
    assert_eq!(languages.len(), 9);
    for language in languages {
        let code = language["code"].as_str().unwrap();
        let of = |field: &str| language[field].as_f64().unwrap();
        let task =
            comparison.quants[0].tasks.iter().find(|task| task.task == format!("demo/{code}")).unwrap();
        let metrics = task.metrics.as_ref().unwrap();
        assert_eq!(metrics.scored_tokens as f64, of("tokens"), "{code}");
        let nll = metrics.base_nll.value * of("tokens");
        assert!((nll - of("nll")).abs() < 1e-4 * nll, "{code}: {nll} nats against {}", of("nll"));
        // An answer at a tie may go either way.
        let questions = score(&format!("{code}-questions"));
        assert!((questions - of("questions")).abs() < 1.5 / 77.0, "{code}");
        assert!(questions >= 0.9, "{code}: {questions}");
        assert!((score(&format!("{code}-endings")) - of("endings")).abs() < 1.5 / 16.0, "{code}");
        // No model does better than the generator by more than luck.
        assert!(of("perplexity") < of("generator_perplexity") * 1.1, "{code} is not learnt");
    }
    let sums = asked.iter().find(|row| row.key.task == "demo/sums").unwrap();
    for (level, share) in sums.levels.iter().zip(measured["sums"].as_array().unwrap()) {
        let share = share.as_f64().unwrap();
        assert!((level.score.value - share).abs() < 2.5 / level.samples as f64, "{} digits", level.value);
        assert!(level.value > 2 || level.score.value >= 0.8, "{} digits", level.value);
    }
    assert_eq!(sums.levels.len(), 4);
}
