//! What the code must look like: who may import whom, how long a file may be, which documents are true.

use std::path::{Path, PathBuf};

/// Module (or file) and the crate's modules that it may name; see ARCHITECTURE.md.
const LAYERS: &[(&str, &[&str])] = &[
    ("observation", &[]),
    ("progress", &[]),
    ("metrics", &[]),
    ("stats", &[]),
    ("error", &[]),
    ("minifloat", &[]),
    ("pattern", &[]),
    ("format", &["stats"]),
    ("checkpoint", &["error", "minifloat"]),
    ("tokenizer", &["checkpoint", "error"]),
    ("model", &["checkpoint", "error", "minifloat"]),
    ("cousin", &["checkpoint", "error", "minifloat", "model", "pattern"]),
    ("quantize", &["checkpoint", "cousin", "error", "minifloat", "model", "progress", "tokenizer"]),
    ("suite", &["error"]),
    ("demo", &["checkpoint", "error", "quantize"]),
    ("samples", &["error"]),
    ("hub", &["error", "progress"]),
    ("comparison", &["metrics", "observation", "stats"]),
    ("evaluate", &["checkpoint", "error", "metrics", "model", "observation", "progress", "suite"]),
    ("gate", &["comparison", "error", "format", "pattern", "stats"]),
    ("report", &["comparison", "error", "format", "gate", "observation", "stats"]),
    (
        "cli",
        &[
            "checkpoint",
            "comparison",
            "cousin",
            "demo",
            "error",
            "evaluate",
            "format",
            "gate",
            "hub",
            "metrics",
            "model",
            "observation",
            "progress",
            "quantize",
            "report",
            "samples",
            "suite",
            "tokenizer",
        ],
    ),
];

/// A crate and the only places that may name it.
const CRATES: &[(&str, &[&str])] = &[
    ("candle_core", &["model", "evaluate", "cli", "error.rs"]),
    ("candle_nn", &["model"]),
    ("polars", &["report/tables.rs", "suite/records/parquet.rs"]),
    ("ureq", &["hub/client.rs"]),
    ("plotters", &["report/charts"]),
    ("tokenizers::", &["tokenizer"]),
    ("minijinja", &["tokenizer/chat", "suite/lm_eval"]),
    ("memmap2", &["checkpoint/mapped.rs"]),
    ("indicatif", &["cli/terminal.rs"]),
    ("std::io::stdout", &["cli/terminal.rs"]),
];

/// Longest file, in lines; tests excepted.
const MAX_LINES: usize = 700;

fn sources(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for path in crate::support::entries(&next) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(folder).unwrap().to_string_lossy().replace('\\', "/");
                found.push((name, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The lines of a file before its unit tests; comments left out.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let before_tests = text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text);
    before_tests.lines().filter(|line| !line.trim_start().starts_with("//"))
}

fn is_test_file(name: &str) -> bool {
    name.ends_with("tests.rs") || name.ends_with("fixture.rs") || name.ends_with("tidy.rs")
}

#[test]
fn modules_import_only_what_their_layer_may() {
    let sources = sources(&root().join("src"));
    assert!(sources.len() > 40);
    let mut broken = Vec::new();
    for (name, text) in sources.iter().filter(|(name, _)| !is_test_file(name)) {
        let module = name.split(['/', '.']).next().unwrap();
        if ["lib", "main"].contains(&module) {
            continue;
        }
        let (_, allowed) = LAYERS.iter().find(|(layer, _)| *layer == module).unwrap_or_else(|| {
            panic!("{name}: module `{module}` has no layer; add it to LAYERS and ARCHITECTURE.md")
        });
        // `use crate::{a::b, c}` is flattened by looking for every layer's name after `crate::` or in the braces.
        let code: String = code(text).collect::<Vec<_>>().join("\n");
        for (other, _) in LAYERS.iter().filter(|(other, _)| *other != module && !allowed.contains(other)) {
            let grouped = code.split("use crate::{").skip(1).any(|rest| {
                let group = rest.split("};").next().unwrap_or(rest);
                group.lines().any(|line| {
                    let depth_one = line.starts_with("    ") && !line.starts_with("     ");
                    let first = line.trim_start().split([':', ',', ' ', '}']).next().unwrap_or("");
                    (depth_one || !group.contains('\n')) && first == *other
                }) || (!group.contains('\n')
                    && group.split(", ").any(|item| item.starts_with(&format!("{other}::"))))
            });
            if grouped || code.contains(&format!("crate::{other}::")) {
                broken.push(format!("{name} imports {other}"));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn heavy_crates_stay_where_they_belong() {
    let mut broken = Vec::new();
    for (name, text) in sources(&root().join("src")).iter().filter(|(name, _)| !is_test_file(name)) {
        let code: String = code(text).collect::<Vec<_>>().join("\n");
        for (dependency, places) in CRATES {
            if code.contains(dependency) && !places.iter().any(|place| name.starts_with(place)) {
                broken.push(format!("{name} names {dependency}"));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn files_say_what_they_are_and_stay_readable() {
    for (name, text) in sources(&root().join("src")).iter().chain(&sources(&root().join("tests"))) {
        assert!(text.starts_with("//!"), "{name} does not say what it is in its head");
        let lines = text.lines().count();
        assert!(lines <= MAX_LINES || is_test_file(name), "{name} has {lines} lines");
        assert!(!text.contains(concat!("/", "work/")), "{name} names a path of one machine");
    }
}

#[test]
fn the_top_level_holds_what_was_agreed() {
    const ALLOWED: &[&str] = &[
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE-APACHE",
        "LICENSE-MIT",
        "README.md",
        "benches",
        "examples",
        "reports",
        "src",
        "suites",
        "target",
        "tests",
    ];
    for entry in crate::support::entries(&root()) {
        let name = entry.file_name().unwrap().to_string_lossy().into_owned();
        // What the commands of README.md leave.
        let is_result = ["qeval-demo", "qeval-report"].contains(&name.as_str());
        assert!(
            name.starts_with('.') || is_result || ALLOWED.contains(&name.as_str()),
            "{name} does not belong here"
        );
    }
}

#[test]
fn documents_are_short_and_their_links_lead_somewhere() {
    let architecture = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    assert!(architecture.lines().count() <= 150);
    for document in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "reports/performance.md"] {
        let path = root().join(document);
        let text = std::fs::read_to_string(&path).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") || target.starts_with('#') {
                continue;
            }
            let file = target.split('#').next().unwrap();
            assert!(path.parent().unwrap().join(file).exists(), "{document} links to {target}");
        }
    }
}

#[test]
fn readme_lists_the_architectures_that_the_code_does() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let table = qeval::checkpoint::architectures::table();
    assert!(readme.contains(&table), "README.md should have this table:\n{table}");
}

#[test]
fn readme_names_the_commands_that_ci_runs() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let ci = std::fs::read_to_string(root().join(".ci/run")).unwrap();
    for command in ["cargo run --release -- demo", "cargo test --release"] {
        assert!(readme.contains(command), "README.md does not show `{command}`");
        assert!(ci.contains(command), ".ci/run does not run `{command}`");
    }
}
