//! The gate on a real model: outcomes and exit codes, what it writes, and what CI services get to see.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use serde_json::Value;

use crate::support::{
    demo_copy, demo_cousin, demo_model, demo_stories, edit_tensors, entries, kept, qeval, refusal,
};

/// A run of base against Q8_0, Q4_K_M and a copy of base in which one matrix is too small, as a wrong scale makes it.
struct Run {
    folder: tempfile::TempDir,
    out: PathBuf,
    code: Option<i32>,
    printed: String,
}

const BROKEN: &str = "model.layers.3.mlp.down_proj.weight";

/// What every run here reads.
fn texts() -> [String; 4] {
    ["--text", &demo_stories("en"), "--text", &demo_stories("ru")].map(str::to_owned)
}

/// One run, measured once and gated by `smoke`; every test gets a copy of its folder.
fn run() -> Run {
    static MEASURED: OnceLock<(PathBuf, Option<i32>, String)> = OnceLock::new();
    let (measured, code, printed) = MEASURED.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let broken = folder.path().join("broken");
        std::fs::create_dir(&broken).unwrap();
        demo_copy(&broken);
        edit_tensors(&broken, |tensors| {
            let smaller = (&tensors[BROKEN] * 0.25).unwrap();
            tensors.insert(BROKEN.to_owned(), smaller);
        });
        let out = kept("gate").join("run");
        let output = Command::new(env!("CARGO_BIN_EXE_qeval"))
            .arg("compare")
            .args([demo_model(), demo_cousin("q8_0"), demo_cousin("q4_k_m"), broken])
            .args(texts())
            .args(["--quiet", "--gate", "smoke", "--out"])
            .arg(&out)
            .output()
            .unwrap();
        assert!(out.join("comparison.json").is_file(), "{}", String::from_utf8_lossy(&output.stderr));
        (out, output.status.code(), String::from_utf8(output.stdout).unwrap())
    });
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    copy(measured, &out);
    Run { folder, out, code: *code, printed: printed.clone() }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in entries(from) {
        let to = to.join(entry.file_name().unwrap());
        match entry.is_dir() {
            true => copy(&entry, &to),
            false => std::fs::copy(&entry, &to).map(|_| ()).unwrap(),
        }
    }
}

fn gate(run: &Path, args: &[&str]) -> (i32, String) {
    let mut command = vec!["gate".as_ref(), run.as_os_str()];
    command.extend(args.iter().map(std::ffi::OsStr::new));
    let output = qeval(command);
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap(), text)
}

fn policy(run: &Run, text: &str) -> String {
    let path = run.folder.path().join("policy.yaml");
    std::fs::write(&path, format!("version: 1\n{text}")).unwrap();
    path.display().to_string()
}

#[test]
fn outcomes_exit_codes_and_files() {
    let run = run();
    // The broken copy, and it alone, is found, by the matrix that was broken.
    let text = &run.printed;
    assert_eq!(run.code, Some(1), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    let json: Value = serde_json::from_slice(&std::fs::read(run.out.join("gate.json")).unwrap()).unwrap();
    let failed: Vec<(&str, &str)> = json["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["outcome"] == "fail")
        .map(|check| (check["cousin"].as_str().unwrap(), check["rule"].as_str().unwrap()))
        .collect();
    assert!(failed.iter().all(|(cousin, _)| *cousin == "broken"), "{failed:?}");
    let weight = json["checks"]
        .as_array()
        .unwrap()
        .iter()
        .find(|c| c["rule"] == "every_weight" && c["outcome"] == "fail");
    assert!(weight.unwrap()["message"].as_str().unwrap().contains(BROKEN), "{json:#}");
    // 1 − 0.25 is left out: −20·log10(0.75) dB.
    assert!((weight.unwrap()["value"].as_f64().unwrap() - 2.4988).abs() < 0.01);

    let junit = std::fs::read_to_string(run.out.join("gate.junit.xml")).unwrap();
    let document = roxmltree::Document::parse(&junit).unwrap();
    assert_eq!(document.root_element().attribute("failures"), Some(failed.len().to_string().as_str()));

    // The honest cousins pass what is left of the policy.
    let honest = policy(
        &run,
        "extends: smoke\nrules: [{ name: every_weight, metric: weight_sqnr_db, min: 8, cousins: '!broken' }, { name: kl_mean, metric: kl_divergence, max: 1, cousins: '*-Q*' }, { name: same_top_token, enabled: false }, { name: perplexity, metric: ppl_ratio, margin: 0.2, cousins: '*-Q*' }]",
    );
    let (code, text) = gate(&run.out, &["--policy", &honest]);
    assert_eq!(code, 0, "{text}");
    let (code, text) = gate(&run.out, &["--policy", "strict"]);
    assert_eq!(code, 1, "{text}");
    // Nothing was asked: release cannot pass, and says what to add.
    let (code, text) = gate(&run.out, &["--policy", "release"]);
    assert!(code == 2 && text.contains("no question was asked"), "{text}");

    // Four documents too few: inconclusive, and mapped.
    let open = policy(
        &run,
        "rules: [{ name: r, metric: kl_divergence, max: 9, min_samples: 100000000, cousins: '*Q8_0' }]",
    );
    for (args, expected) in [
        (&[][..], 3),
        (&["--inconclusive", "pass"], 0),
        (&["--inconclusive", "fail"], 1),
        (&["--inconclusive", "keep"], 3),
    ] {
        let (code, text) = gate(&run.out, &[&["--policy", &open][..], args].concat());
        assert_eq!(code, expected, "{text}");
        assert!(text.contains("100,000,000 samples") || text.contains("more tokens would decide"), "{text}");
    }
}

#[test]
fn an_earlier_run_and_what_changed_since() {
    let run = run();
    let before = run.out.to_str().unwrap();
    let regressions = policy(
        &run,
        "rules: [{ name: size, metric: bits_per_weight, max: 40 }]\nregressions: [{ name: kl, metric: kl_divergence, margin: 1.0e-9 }]",
    );
    let (code, text) = gate(&run.out, &["--policy", &regressions, "--against", before]);
    assert_eq!(code, 0, "the same run is no worse: {text}");
    let (code, text) = gate(&run.out, &["--policy", &regressions]);
    assert!(code == 0 && text.contains("1 regression rule not looked at"), "{text}");
    // JUnit that is printed is the gate's own verdict: this policy's, against that run.
    let printed = Command::new(env!("CARGO_BIN_EXE_qeval"))
        .arg("compare")
        .args([demo_model(), demo_cousin("q8_0")])
        .args(texts())
        .args(["--no-noise-floor", "--probe", "none", "--quiet", "--format", "junit"])
        .args(["--gate", &regressions, "--against", before, "--out"])
        .arg(run.folder.path().join("printed"))
        .output()
        .unwrap();
    assert!(printed.stdout == std::fs::read(run.folder.path().join("printed/gate.junit.xml")).unwrap());
    assert!(String::from_utf8_lossy(&printed.stdout).contains("kl (against the earlier run)"));
    // Cut otherwise, the text is not the same.
    let again = run.folder.path().join("again");
    let changed = Command::new(env!("CARGO_BIN_EXE_qeval"))
        .arg("compare")
        .args([demo_model(), demo_cousin("q8_0")])
        .args(texts())
        .args(["--window", "256", "--no-noise-floor", "--probe", "none", "--quiet"])
        .args(["--gate", &regressions, "--against", before, "--out"])
        .arg(&again)
        .output()
        .unwrap();
    let text = String::from_utf8(changed.stdout).unwrap();
    assert_eq!(changed.status.code(), Some(2), "{text}");
    assert!(text.contains("the protocol changed"), "{text}");
}

#[test]
fn github_gets_annotations_and_a_summary() {
    let run = run();
    let summary = run.folder.path().join("summary.md");
    std::fs::write(&summary, "before\n").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_qeval"))
        .arg("gate")
        .arg(&run.out)
        .args(["--policy", "smoke"])
        .env("GITHUB_ACTIONS", "true")
        .env("GITHUB_STEP_SUMMARY", &summary)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.code() == Some(1)
            && text.contains("\n::error title=qeval FAIL%3A broken%2C every_weight::"),
        "{text}"
    );
    let summary = std::fs::read_to_string(&summary).unwrap();
    assert!(summary.starts_with("before\n## gate smoke: FAIL"), "{summary}");
    let report = std::fs::read_to_string(run.out.join("report.md")).unwrap();
    assert!(
        summary.contains("| FAIL | broken | every") && summary.ends_with(&report),
        "the report stands below"
    );
    assert!(summary.len() < 130_000 && report.len() <= 60_000);
}

#[test]
fn a_policy_to_start_from_and_its_schema() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.yaml");
    let init = || qeval(["gate".as_ref(), "--init".as_ref(), path.as_os_str()]);
    assert!(init().status.success());
    let starter = std::fs::read_to_string(&path).unwrap();
    assert_eq!(init().status.code(), Some(2), "an existing file is left alone");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), starter);
    let schema: Value = serde_json::from_slice(&qeval(["gate", "--schema"]).stdout).unwrap();
    let policy: Value = serde_yaml::from_str(&starter).unwrap();
    assert!(jsonschema::validator_for(&schema).unwrap().is_valid(&policy));
}

#[test]
fn mistakes_are_found_before_anything_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    let bad = folder.path().join("bad.yaml");
    std::fs::write(&bad, "version: 1\nrules: [{ name: r, metric: acuracy, min: 1 }]").unwrap();
    let bad = bad.to_str().unwrap();
    let nowhere = folder.path().join("nowhere");
    let nowhere = nowhere.to_str().unwrap();
    for (args, said) in [
        (vec!["gate", nowhere, "--policy", "smoke"], "no complete run"),
        (vec!["gate", nowhere, "--policy", "relaese"], "there is no such policy"),
        (vec!["gate", nowhere, "--policy", bad], "unknown variant `acuracy`"),
        (vec!["gate", nowhere, "--against", nowhere], "no complete run"),
        (
            vec!["compare", "no-base", "no-quant", "--gate", bad, "--out", nowhere],
            "unknown variant `acuracy`",
        ),
        (vec!["compare", "no-base", "no-quant", "--gate", "smoke", "--against", nowhere], "no complete run"),
    ] {
        let text = refusal(&args);
        assert!(text.contains(said) && text.contains("help:"), "{args:?}: {text}");
    }
}

#[test]
fn every_format_is_printed_alone() {
    let run = run();
    let print = |args: &[&str]| {
        let mut command = vec!["report".as_ref(), run.out.as_os_str(), "--format".as_ref()];
        command.extend(args.iter().map(std::ffi::OsStr::new));
        let output = qeval(command);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let file = |name: &str| std::fs::read(run.out.join(name)).unwrap();
    for (args, name) in [
        (&["json"][..], "comparison.json"),
        (&["html"], "report.html"),
        (&["md"], "report.md"),
        (&["model-card"], "model-index.yaml"),
        (&["csv"], "tables/models.csv"),
        (&["csv", "--table", "tasks"], "tables/tasks.csv"),
        (&["parquet", "--table", "tasks"], "tables/tasks.parquet"),
    ] {
        assert!(print(args) == file(name), "{args:?} is {name}");
    }
    let junit = String::from_utf8(print(&["junit", "--policy", "smoke"])).unwrap();
    assert!(roxmltree::Document::parse(&junit).unwrap().root_element().has_tag_name("testsuites"));
    let to = run.folder.path().join("card.yaml");
    print(&["model-card", "--output", to.to_str().unwrap()]);
    assert!(std::fs::read(&to).unwrap() == file("model-index.yaml"));
    let said = refusal([
        "report".as_ref(),
        run.out.as_os_str(),
        "--format".as_ref(),
        "csv".as_ref(),
        "--table".as_ref(),
        "no".as_ref(),
    ]);
    assert!(said.contains("there is no table `no`") && said.contains("layers"), "{said}");
}
