//! The files for continuous integration: they parse, no input is ever part of a script, and the script hands every
//! argument and every exit code on as it is. The script is taken from the action itself and run by bash, beside a stub.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_yaml::Value;

use crate::support::{demo_cousin, demo_model, demo_stories, entries};

const ACTION: &str = ".github/actions/gate/action.yml";

fn yaml(path: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_yaml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Every string in a document, with the keys that lead to it.
fn strings(value: &Value, path: &str, found: &mut Vec<(String, String)>) {
    match value {
        Value::String(text) => found.push((path.to_owned(), text.clone())),
        Value::Sequence(items) => items.iter().for_each(|item| strings(item, path, found)),
        Value::Mapping(map) => {
            for (key, value) in map {
                strings(value, &format!("{path}/{}", key.as_str().unwrap_or("?")), found);
            }
        }
        _ => {}
    }
}

/// Names behind `inputs.` in every `${{ … }}` of a text.
fn inputs_of(text: &str) -> Vec<String> {
    let expressions = text.split("${{").skip(1).map(|rest| rest.split("}}").next().unwrap());
    let is_name = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
    expressions
        .flat_map(|expression| expression.split("inputs.").skip(1))
        .map(|rest| rest.chars().take_while(|c| is_name(*c)).collect())
        .collect()
}

fn step<'y>(action: &'y Value, id: &str) -> &'y Value {
    let steps = action["runs"]["steps"].as_sequence().expect("steps");
    steps.iter().find(|step| step["id"] == id).unwrap_or_else(|| panic!("a step `{id}`"))
}

#[test]
fn every_input_exists_and_none_is_part_of_a_script() {
    let action = yaml(ACTION);
    assert_eq!(action["runs"]["using"], "composite");
    let known: Vec<&str> = action["inputs"].as_mapping().unwrap().keys().filter_map(Value::as_str).collect();
    let mut all = Vec::new();
    strings(&action, "", &mut all);
    let mut used = Vec::new();
    for (path, text) in &all {
        let names = inputs_of(text);
        assert!(names.iter().all(|name| known.contains(&name.as_str())), "{path} uses {names:?}");
        if path.ends_with("/run") {
            assert!(!text.contains("${{"), "{path} has an expression in its script");
        }
        used.extend(names);
    }
    for name in known {
        assert!(used.iter().any(|used| used == name), "input `{name}` is used nowhere");
    }
    for step in action["runs"]["steps"].as_sequence().unwrap() {
        assert!(step.get("uses").is_some() != (step["shell"] == "bash"), "{step:?}");
        let pinned = step["uses"].as_str().is_none_or(|uses| uses.contains("@v"));
        assert!(pinned, "{step:?}");
    }
    for output in ["outcome", "report"] {
        let value = action["outputs"][output]["value"].as_str().unwrap();
        assert_eq!(value, format!("${{{{ steps.gate.outputs.{output} }}}}"));
    }
}

#[test]
fn the_examples_fit_the_action() {
    let action = yaml(ACTION);
    let workflow = yaml("examples/ci/github.yml");
    let steps = workflow["jobs"]["gate"]["steps"].as_sequence().unwrap();
    let gate = steps.iter().find(|step| step["id"] == "gate").unwrap();
    assert!(gate["uses"].as_str().unwrap().contains("/.github/actions/gate@"));
    let given = gate["with"].as_mapping().unwrap();
    for (name, _) in given {
        assert!(action["inputs"].get(name).is_some(), "the workflow gives {name:?}");
    }
    for (name, input) in action["inputs"].as_mapping().unwrap() {
        assert!(input["required"] != Value::Bool(true) || given.contains_key(name), "{name:?} is required");
    }
    for step in steps {
        assert!(!step["run"].as_str().is_some_and(|run| run.contains("${{")), "{step:?}");
    }
    let gitlab = yaml("examples/ci/gitlab.yml");
    let job = &gitlab["quants"];
    assert_eq!(job["artifacts"]["reports"]["junit"], "qeval-report/gate.junit.xml");
    assert_eq!(job["allow_failure"]["exit_codes"], 3);
    let script = job["script"].as_sequence().unwrap();
    let last = script.last().and_then(Value::as_str).unwrap();
    assert!(last.contains("--gate=release --out=qeval-report -- "), "{last}");
}

/// Whether there is a bash to run the script with.
fn has_bash() -> bool {
    cfg!(unix) && Command::new("bash").arg("--version").output().is_ok()
}

/// What the gate's script runs.
#[derive(Clone, Copy)]
enum Program {
    /// Notes its arguments and exits with this code.
    Stub(i32),
    /// The program itself.
    Qeval,
}

/// The gate's script run as the runner runs it.
struct Run {
    output: Output,
    arguments: Vec<String>,
    outputs: String,
    folder: PathBuf,
    _keep: tempfile::TempDir,
}

fn run_gate(inputs: &[(&str, &str)], program: Program) -> Run {
    let keep = tempfile::tempdir().unwrap();
    let root = keep.path().canonicalize().unwrap();
    let (bin, folder) = (root.join("bin"), root.join("a folder"));
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::create_dir_all(&folder).unwrap();
    let stub = bin.join("qeval");
    let text = match program {
        Program::Stub(code) => format!("printf '%s\\0' \"$@\" > \"$NOTED\"\nexit {code}"),
        Program::Qeval => format!("exec '{}' \"$@\"", env!("CARGO_BIN_EXE_qeval")),
    };
    std::fs::write(&stub, format!("#!/bin/sh\n{text}\n")).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&stub, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let action = yaml(ACTION);
    let gate = step(&action, "gate");
    let script = root.join("script.sh");
    std::fs::write(&script, gate["run"].as_str().unwrap()).unwrap();
    let (noted, outputs) = (root.join("noted"), root.join("outputs"));
    std::fs::write(&outputs, "").unwrap();
    // As the runner fills in `${{ inputs.x }}`: what was given, or the default.
    let given: BTreeMap<&str, &str> = inputs.iter().copied().collect();
    let value = |name: &str| match given.get(name) {
        Some(value) => (*value).to_owned(),
        None => action["inputs"][name]["default"].as_str().unwrap_or_default().to_owned(),
    };
    let path = std::env::join_paths(
        std::iter::once(bin).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    );
    let mut command = Command::new("bash");
    command.args(["--noprofile", "--norc", "-eo", "pipefail"]).arg(&script).current_dir(&folder);
    command.env("PATH", path.unwrap()).env("NOTED", &noted);
    command.env("GITHUB_OUTPUT", &outputs);
    for (name, expression) in gate["env"].as_mapping().unwrap() {
        let expression = expression.as_str().unwrap();
        let input = inputs_of(expression).pop().unwrap();
        assert_eq!(expression, format!("${{{{ inputs.{input} }}}}"), "nothing beside the input");
        command.env(name.as_str().unwrap(), value(&input));
    }
    let output = command.output().expect("bash runs");
    let noted = std::fs::read_to_string(&noted).unwrap_or_default();
    Run {
        arguments: noted.split_terminator('\0').map(str::to_owned).collect(),
        outputs: std::fs::read_to_string(&outputs).unwrap(),
        output,
        folder,
        _keep: keep,
    }
}

#[test]
fn arguments_arrive_unharmed() {
    if !has_bash() {
        return;
    }
    let hostile = "a b'c\"d $(touch pwned) `touch pwned` ; touch pwned # * \\ ${HOME} --x";
    let quants = format!("quants/one.gguf\r\n\n  -starts with a hyphen\n{hostile}");
    let run = run_gate(
        &[
            ("base", hostile),
            ("quants", &quants),
            ("policy", hostile),
            ("suites", "perplexity\nmy suite.yaml\n"),
            ("data", hostile),
            ("against", "an earlier run"),
            ("inconclusive", "keep"),
            ("args", "--limit=5\n--text=$(touch pwned)"),
        ],
        Program::Stub(0),
    );
    assert!(run.output.status.success(), "{}", String::from_utf8_lossy(&run.output.stderr));
    let policy = format!("--gate={hostile}");
    let data = format!("--data={hostile}");
    let expected = [
        "compare",
        &policy,
        "--out=qeval-report",
        "--suite=perplexity",
        "--suite=my suite.yaml",
        &data,
        "--against=an earlier run",
        "--inconclusive=keep",
        "--limit=5",
        "--text=$(touch pwned)",
        "--",
        hostile,
        "quants/one.gguf",
        "  -starts with a hyphen",
        hostile,
    ];
    assert_eq!(run.arguments, expected);
    assert_eq!(entries(&run.folder), Vec::<PathBuf>::new(), "nothing in an input is run");
}

#[test]
fn what_was_not_given_is_left_out() {
    if !has_bash() {
        return;
    }
    let run = run_gate(&[("base", "org/model"), ("quants", "a.gguf\n")], Program::Stub(0));
    let expected = ["compare", "--gate=release", "--out=qeval-report", "--", "org/model", "a.gguf"];
    assert_eq!(run.arguments, expected);
}

#[test]
fn exit_codes_are_handed_on_with_their_name() {
    if !has_bash() {
        return;
    }
    let outcomes =
        [(0, "pass"), (1, "fail"), (2, "not_measured"), (3, "inconclusive"), (101, "not_measured")];
    for (code, outcome) in outcomes {
        let run = run_gate(&[("base", "b"), ("quants", "q")], Program::Stub(code));
        assert_eq!(run.output.status.code(), Some(code));
        let report = run.folder.join("qeval-report");
        assert_eq!(run.outputs, format!("report={}\noutcome={outcome}\n", report.display()));
    }
}

/// The step as it is, with the program and a real model.
#[test]
fn the_step_gates_a_real_model() {
    if !has_bash() {
        return;
    }
    let (base, quant) = (demo_model().display().to_string(), demo_cousin("q8_0").display().to_string());
    let args = format!("--text={}\n--no-noise-floor\n--quiet", demo_stories("en"));
    for (policy, code, outcome) in [("smoke", 0, "pass"), ("release", 2, "not_measured")] {
        let inputs = [("base", base.as_str()), ("quants", &quant), ("policy", policy), ("args", &args)];
        let run = run_gate(&inputs, Program::Qeval);
        let text = String::from_utf8_lossy(&run.output.stdout).into_owned();
        assert_eq!(
            run.output.status.code(),
            Some(code),
            "{text}{}",
            String::from_utf8_lossy(&run.output.stderr)
        );
        assert!(run.outputs.ends_with(&format!("outcome={outcome}\n")), "{}", run.outputs);
        let junit = std::fs::read_to_string(run.folder.join("qeval-report/gate.junit.xml")).unwrap();
        assert!(roxmltree::Document::parse(&junit).is_ok());
    }
}
