//! Suites from files: what a suite's YAML may say, checked as a whole before anything is measured.
//!
//! Unknown keys are refused, because a misspelt `limit` that is silently ignored measures something else.
//! Data lies inside the suite's folder, so that a suite can be handed on as a whole and reads nothing else.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::suggest::did_you_mean;
use super::written::{self, Writing};
use super::{Content, EMBEDDED, Suite, Task, choices, documents};
use crate::error::{Error, Result};

/// What a suite's YAML may say.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SuiteFile {
    name: String,
    #[serde(default = "first_version")]
    version: u32,
    #[serde(default)]
    description: String,
    #[serde(default)]
    license: String,
    #[serde(default)]
    seed: u64,
    tasks: Vec<TaskFile>,
}

/// What it may say of a task.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TaskFile {
    name: String,
    kind: TaskKind,
    #[serde(default = "undetermined")]
    language: String,
    /// Reported together with the other tasks of this group.
    group: Option<String>,
    /// Relative to the suite's folder: a `.jsonl` file of documents or questions, or a `.txt` file that is one
    /// document.
    data: String,
    /// Between a question and its answer; one space where not stated. Choices only.
    delimiter: Option<String>,
    /// What the records' `level` counts, as "digits". Questions only.
    level_unit: Option<String>,
    /// Strings that end a written answer. Written answers only, as the next two.
    until: Option<Vec<String>>,
    /// Most tokens of a written answer; 256 where not stated.
    max_new_tokens: Option<usize>,
    /// The last match of its group in what was written is the answer; where not stated, all of it is.
    answer_pattern: Option<String>,
    /// Only the first so many documents.
    limit: Option<usize>,
}

/// What is done with a task's data.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum TaskKind {
    /// Every token of the text is predicted from those before it.
    Text,
    /// The likeliest of several continuations is the answer.
    Choice,
    /// The model writes, and the answer is taken from its text.
    Written,
}

/// The key of `task` that its kind has no use for, with the kinds that have one.
fn foreign_key(task: &TaskFile) -> Option<(&'static str, &'static str)> {
    const QUESTIONS: &str = "`kind: choice` or `kind: written`";
    let given = [
        (task.delimiter.is_some(), "delimiter", "`kind: choice`"),
        (task.level_unit.is_some(), "level_unit", QUESTIONS),
        (task.until.is_some(), "until", "`kind: written`"),
        (task.max_new_tokens.is_some(), "max_new_tokens", "`kind: written`"),
        (task.answer_pattern.is_some(), "answer_pattern", "`kind: written`"),
    ];
    let own: &[&str] = match task.kind {
        TaskKind::Text => &[],
        TaskKind::Choice => &["delimiter", "level_unit"],
        TaskKind::Written => &["level_unit", "until", "max_new_tokens", "answer_pattern"],
    };
    let foreign = given.into_iter().find(|(is_given, key, _)| *is_given && !own.contains(key));
    foreign.map(|(_, key, kinds)| (key, kinds))
}

fn first_version() -> u32 {
    1
}

fn undetermined() -> String {
    "und".to_owned()
}

/// The suite at `path`: a YAML file, or a folder that holds a `suite.yaml`.
///
/// # Errors
/// Names the file, the key or line, and what to write instead.
pub fn load(path: &Path) -> Result<Suite> {
    let path = if path.is_dir() { path.join("suite.yaml") } else { path.to_owned() };
    if !path.exists() {
        let names: Vec<&str> = EMBEDDED.iter().map(|suite| suite.name).collect();
        let help = did_you_mean(&path.to_string_lossy(), &names).unwrap_or_else(|| {
            format!(
                "give a YAML file, a folder with a suite.yaml, or an embedded suite: {}",
                names.join(", ")
            )
        });
        return Err(Error::file(&path, "there is no such suite", help));
    }
    let definition = std::fs::read(&path).map_err(Error::io(&path, "read the suite"))?;
    let folder = folder_of(&path);
    let home = std::fs::canonicalize(folder).map_err(Error::io(folder, "open the suite's folder"))?;
    parse(&path, &definition, &|_, file| {
        let target = std::fs::canonicalize(file).map_err(Error::io(file, "open the data of a task"))?;
        if !target.starts_with(&home) {
            let problem = format!("is a link out of the suite's folder, to {}", target.display());
            return Err(Error::file(file, problem, "copy the data into the suite's folder"));
        }
        std::fs::read(file).map_err(Error::io(file, "read the data of a task"))
    })
}

/// A suite of one task that is the text at `path`: a `.jsonl` file with one document per line (its `text`),
/// any other file as one document. The task is called after the file.
///
/// # Errors
/// A file that cannot be read, is not UTF-8 (the line is named) or holds no text.
pub fn from_text(path: &Path) -> Result<Suite> {
    let bytes = std::fs::read(path).map_err(Error::io(path, "read the text"))?;
    let sha256 = hex_sha256(&bytes);
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let name: String = stem.chars().map(|c| if is_name_character(c) { c } else { '-' }).collect();
    let documents = documents::parse(path, bytes, &name)?;
    let language = undetermined();
    Ok(Suite {
        name: "text".to_owned(),
        version: first_version(),
        description: format!("the text of {}", path.file_name().unwrap_or_default().to_string_lossy()),
        license: String::new(),
        seed: 0,
        tasks: vec![Task { name, language, group: None, content: Content::Text(documents) }],
        sha256,
    })
}

/// The suite that `definition`, the content of `path`, describes. `read` gives the content of a data file,
/// from its name in the YAML and its whole path; the name is known to stay inside the folder as far as its
/// letters go.
pub(super) fn parse(
    path: &Path,
    definition: &[u8],
    read: &dyn Fn(&str, &Path) -> Result<Vec<u8>>,
) -> Result<Suite> {
    let file: SuiteFile = serde_yaml::from_slice(definition).map_err(|e| explain_yaml(path, &e))?;
    check_name(path, "name", &file.name)?;
    if file.tasks.is_empty() {
        return Err(Error::key(path, "tasks", "is empty", "list at least one task"));
    }
    let own_name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut listing = checksum_line(&own_name, definition);
    let mut listed = BTreeSet::new();
    let mut names = BTreeSet::new();
    let mut tasks = Vec::with_capacity(file.tasks.len());
    for (index, task) in file.tasks.into_iter().enumerate() {
        let key = |field: &str| format!("tasks[{index}].{field}");
        check_name(path, &key("name"), &task.name)?;
        if !names.insert(task.name.clone()) {
            let problem = format!("another task is already called `{}`", task.name);
            return Err(Error::key(path, &key("name"), problem, "give every task a name of its own"));
        }
        if task.language.is_empty() || !task.language.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            let problem = format!("`{}` is no language tag", task.language);
            return Err(Error::key(
                path,
                &key("language"),
                problem,
                "write a BCP 47 tag such as `en` or `pt-BR`",
            ));
        }
        if task.limit == Some(0) {
            return Err(Error::key(
                path,
                &key("limit"),
                "leaves no document",
                "give at least 1, or leave it out",
            ));
        }
        check_answers(path, &key, &task)?;
        let data = data_path(path, &key("data"), &task.data)?;
        let bytes = read(&task.data, &data)?;
        if listed.insert(task.data.clone()) {
            listing.push_str(&checksum_line(&task.data, &bytes));
        }
        let limit = task.limit.unwrap_or(usize::MAX);
        let content = match task.kind {
            TaskKind::Text => {
                let mut documents = documents::parse(&data, bytes, &task.name)?;
                documents.truncate(limit);
                Content::Text(documents)
            }
            TaskKind::Choice => {
                let delimiter = task.delimiter.unwrap_or_else(|| " ".to_owned());
                let mut questions = choices::parse(&data, &bytes, delimiter, task.level_unit.as_deref())?;
                questions.samples.truncate(limit);
                Content::Questions(questions)
            }
            TaskKind::Written => {
                let writing = Writing {
                    until: task.until.unwrap_or_default(),
                    max_new_tokens: task.max_new_tokens.unwrap_or(written::MAX_NEW_TOKENS),
                    answer_pattern: task.answer_pattern,
                    level_unit: task.level_unit,
                };
                let mut questions = written::parse(&data, &bytes, writing)?;
                questions.samples.truncate(limit);
                Content::Questions(questions)
            }
        };
        tasks.push(Task { name: task.name, language: task.language, group: task.group, content });
    }
    Ok(Suite {
        name: file.name,
        version: file.version,
        description: file.description,
        license: file.license,
        seed: file.seed,
        tasks,
        sha256: hex_sha256(listing.as_bytes()),
    })
}

/// Refuses what a task of this kind cannot use, and what no answer could be found with.
fn check_answers(path: &Path, key: &dyn Fn(&str) -> String, task: &TaskFile) -> Result<()> {
    if let Some((name, kinds)) = foreign_key(task) {
        let problem = match task.kind {
            TaskKind::Text => "a text has no answers",
            TaskKind::Choice => "nothing is written where options are chosen",
            TaskKind::Written => "a written answer follows its prompt directly",
        };
        return Err(Error::key(path, &key(name), problem, format!("leave it out, or write {kinds}")));
    }
    if task.max_new_tokens == Some(0) {
        let help = "give at least 1, or leave it out";
        return Err(Error::key(path, &key("max_new_tokens"), "leaves no room for an answer", help));
    }
    if task.until.iter().flatten().any(String::is_empty) {
        let help = "give strings of at least one character, or leave it out";
        return Err(Error::key(path, &key("until"), "an empty string ends every answer at once", help));
    }
    if task.level_unit.as_ref().is_some_and(|unit| unit.trim().is_empty()) {
        return Err(Error::key(path, &key("level_unit"), "is empty", "name what grows, as \"digits\""));
    }
    if let Some(pattern) = &task.answer_pattern {
        written::check_pattern(pattern).map_err(|problem| {
            let help = "write it in the syntax of Python's `re`, with one group: the answer";
            Error::key(path, &key("answer_pattern"), format!("the pattern `{pattern}` {problem}"), help)
        })?;
    }
    Ok(())
}

/// Where the data called `data` lies, which is somewhere below the folder of the suite at `path`.
fn data_path(path: &Path, key: &str, data: &str) -> Result<PathBuf> {
    let relative = Path::new(data);
    let inside = relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if data.is_empty() || !inside {
        let problem = format!("`{data}` is not a file inside the suite's folder");
        return Err(Error::key(
            path,
            key,
            problem,
            "put the data beside the YAML and give its relative path",
        ));
    }
    if !documents::is_json_lines(relative) && relative.extension().is_none_or(|e| e != "txt") {
        let problem = format!("`{data}` is neither a .jsonl nor a .txt file");
        let help = "name a .jsonl file with one document per line, or a .txt file that is one document";
        return Err(Error::key(path, key, problem, help));
    }
    Ok(folder_of(path).join(relative))
}

/// The folder of a file, `.` for a bare name.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Names become file names and column values.
fn check_name(path: &Path, key: &str, name: &str) -> Result<()> {
    if !name.is_empty() && name.chars().all(is_name_character) {
        return Ok(());
    }
    let help = "use letters, digits, `-`, `_` and `.`";
    Err(Error::key(path, key, format!("`{}` is no name", name.escape_debug()), help))
}

fn is_name_character(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '-' | '_' | '.')
}

/// The parser's message (it names key, line and column), with the nearest known key as help.
fn explain_yaml(path: &Path, error: &serde_yaml::Error) -> Error {
    let message = error.to_string();
    // serde's wording: unknown field `x`, expected one of `a`, `b` (or: unknown variant `x`, expected `a`).
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let help = match quoted.split_first() {
        Some((word, known)) if message.contains("unknown field") || message.contains("unknown variant") => {
            did_you_mean(word, known).unwrap_or_else(|| format!("use {}", known.join(", ")))
        }
        _ => "see suites/perplexity/suite.yaml for an example".to_owned(),
    };
    Error::file(path, message, help)
}

/// One line of what `sha256sum` prints.
fn checksum_line(name: &str, bytes: &[u8]) -> String {
    format!("{}  {name}\n", hex_sha256(bytes))
}

/// SHA-256 in lower-case hexadecimal.
pub(crate) fn hex_sha256(bytes: &[u8]) -> String {
    hex_sha256_of([bytes])
}

/// The same of several pieces one after the other.
pub(crate) fn hex_sha256_of<B: AsRef<[u8]>>(pieces: impl IntoIterator<Item = B>) -> String {
    let mut hasher = Sha256::new();
    pieces.into_iter().for_each(|piece| hasher.update(piece));
    hasher.finalize().iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}"); // Writing to a String cannot fail.
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::super::question::QuestionKind;
    use super::*;

    const TWO_TASKS: &str = "name: mine\ntasks:\n  - {name: a, kind: text, data: a.jsonl}\n  \
                             - {name: b, kind: text, language: de, data: sub/b.txt}\n";

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("sub")).unwrap();
        for (name, content) in files {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        folder
    }

    /// The suite whose YAML is `yaml`, beside two data files.
    fn load_yaml(yaml: &str) -> Result<Suite> {
        let lines = "{\"id\": \"x\", \"text\": \"one\"}\n{\"id\": \"y\", \"text\": \"two\"}\n";
        load(
            folder(&[("suite.yaml", yaml), ("a.jsonl", lines), ("sub/b.txt", "drei\n"), ("c.csv", "4")])
                .path(),
        )
    }

    /// The message without the folder's name, and the help.
    #[track_caller]
    fn refused(yaml: &str, message: &str, help: &str) {
        let error = load_yaml(yaml).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(message), "{text:?} does not say {message:?}");
        assert!(text.contains("suite.yaml: ") || text.contains(".jsonl: "), "{text:?} names no file");
        assert!(error.help().unwrap_or_default().contains(help), "{:?} does not say {help:?}", error.help());
    }

    #[test]
    fn a_suite_as_written() {
        let suite = load_yaml(TWO_TASKS).unwrap();
        assert_eq!((&suite.name[..], suite.version, suite.seed), ("mine", 1, 0));
        let tasks: Vec<_> =
            suite.tasks.iter().map(|t| (&t.name[..], &t.language[..], t.documents().len())).collect();
        assert_eq!(tasks, [("a", "und", 2), ("b", "de", 1)]);
        assert_eq!(
            (&suite.tasks[1].documents()[0].id[..], &suite.tasks[1].documents()[0].text[..]),
            ("b", "drei\n")
        );
        // Recorded with coreutils: sha256sum suite.yaml a.jsonl sub/b.txt | sha256sum
        assert_eq!(suite.sha256, "e19a8cf9c9e1b0967eb12513486eb76bdd720fbc2766527add37a47757ed008d");
        let limited = load_yaml(&TWO_TASKS.replace("a.jsonl", "a.jsonl, limit: 1")).unwrap();
        assert_eq!(limited.tasks[0].documents().len(), 1);
        assert_ne!(limited.sha256, suite.sha256);
    }

    #[test]
    fn the_hash_covers_the_data() {
        let yaml = "name: m\ntasks: [{name: a, kind: text, data: a.txt}]";
        let hash = |text| load(folder(&[("suite.yaml", yaml), ("a.txt", text)]).path()).unwrap().sha256;
        assert_eq!(hash("one"), hash("one"));
        assert_ne!(hash("one"), hash("two"));
    }

    #[test]
    fn unknown_keys_are_refused_with_the_nearest_one() {
        refused("name: m\nsed: 1\ntasks: []", "unknown field `sed`", "did you mean `seed`?");
        refused("name: m\nsed: 1\ntasks: []", "at line 2 column 1", "");
        refused(
            &TWO_TASKS.replace("language", "lanugage"),
            "tasks[1]: unknown field `lanugage`",
            "did you mean `language`?",
        );
        refused(
            &TWO_TASKS.replace("kind: text", "kind: test"),
            "unknown variant `test`",
            "did you mean `text`?",
        );
        refused(&TWO_TASKS.replace("kind: text", "kind: multiple_choice"), "`multiple_choice`", "use text");
        refused("name: m", "missing field `tasks`", "example");
        refused("name: [", "suite.yaml: ", "example");
        refused("name: m\nname: n\ntasks: []", "duplicate", "example");
    }

    #[test]
    fn impossible_values_are_refused() {
        refused("name: m\ntasks: []", "`tasks`: is empty", "at least one");
        refused(&TWO_TASKS.replace("mine", "my/suite"), "`name`: `my/suite` is no name", "letters");
        refused(&TWO_TASKS.replace("name: b", "name: a"), "`tasks[1].name`: another task", "of its own");
        refused(&TWO_TASKS.replace("de,", "d e,"), "`tasks[1].language`: `d e` is no language tag", "BCP 47");
        refused(&TWO_TASKS.replace("a.jsonl", "a.jsonl, limit: 0"), "`tasks[0].limit`", "at least 1");
        refused(
            &TWO_TASKS.replace("a.jsonl", "c.csv"),
            "neither a .jsonl nor a .txt",
            "one document per line",
        );
        refused(&TWO_TASKS.replace("a.jsonl", "sub"), "neither a .jsonl nor a .txt", "");
    }

    const WRITTEN: &str = "name: mine\ntasks:\n  - {name: a, kind: written, data: w.jsonl, level_unit: digits, \
                           until: [\"\\n\"], max_new_tokens: 9, answer_pattern: '= (\\d+)'}\n";

    #[test]
    fn a_task_that_is_answered_by_writing() {
        let lines = "{\"id\": \"x\", \"prompt\": \"4 + 6 =\", \"answer\": \"10\", \"level\": 1}\n";
        let of = |yaml: &str| load(folder(&[("suite.yaml", yaml), ("w.jsonl", lines)]).path());
        let suite = of(WRITTEN).unwrap();
        let questions = suite.tasks[0].questions().unwrap();
        let QuestionKind::Generation(settings) = &questions.kind else { panic!("{questions:?}") };
        assert_eq!((settings.until.as_slice(), settings.max_new_tokens), (["\n".to_owned()].as_slice(), 9));
        let bare =
            of("name: m\ntasks: [{name: a, kind: written, data: w.jsonl, level_unit: digits}]").unwrap();
        let QuestionKind::Generation(settings) = &bare.tasks[0].questions().unwrap().kind else { panic!() };
        assert_eq!((settings.until.len(), settings.max_new_tokens), (0, 256));
        let error = of(&WRITTEN.replace("level_unit: digits, ", "")).unwrap_err().to_string();
        assert!(error.ends_with("w.jsonl: line 1: has a `level`, but the task no `level_unit`"), "{error}");
    }

    #[test]
    fn keys_of_another_kind_and_impossible_answers_are_refused() {
        let text =
            |keys: &str| TWO_TASKS.replace("kind: text, data: a", &format!("kind: text, {keys}, data: a"));
        for (keys, kind) in [
            ("delimiter: x", "`kind: choice`"),
            ("level_unit: digits", "`kind: choice` or `kind: written`"),
            ("until: [x]", "`kind: written`"),
            ("max_new_tokens: 4", "`kind: written`"),
            ("answer_pattern: (x)", "`kind: written`"),
        ] {
            let key = keys.split(':').next().unwrap();
            refused(&text(keys), &format!("`tasks[0].{key}`: a text has no answers"), kind);
        }
        let choice = |keys: &str| text(keys).replacen("kind: text", "kind: choice", 1);
        refused(&choice("until: [x]"), "nothing is written where options are chosen", "`kind: written`");
        let written = |from: &str, to: &str| WRITTEN.replace(from, to);
        refused(
            &written("level_unit: digits", "delimiter: x"),
            "a written answer follows its prompt directly",
            "`kind: choice`",
        );
        refused(
            &written("tokens: 9", "tokens: 0"),
            "`tasks[0].max_new_tokens`: leaves no room",
            "at least 1",
        );
        refused(&written("\"\\n\"", "\"\""), "`tasks[0].until`: an empty string", "at least one character");
        refused(&written("digits", "\" \""), "`tasks[0].level_unit`: is empty", "digits");
        refused(&written("(\\d+)", "(\\d+"), "`= (\\d+` lacks a `)`", "with one group");
        refused(&written("(\\d+)", "\\d+"), "`= \\d+` has no group", "with one group");
    }

    #[test]
    fn data_stays_inside_the_folder() {
        for data in ["../a.jsonl", "sub/../../a.jsonl", "/etc/a.jsonl", "\"\""] {
            refused(
                &TWO_TASKS.replace("a.jsonl", data),
                "not a file inside the suite's folder",
                "beside the YAML",
            );
        }
        assert!(load_yaml(&TWO_TASKS.replace("a.jsonl", "./a.jsonl")).is_ok());
        let error = load_yaml(&TWO_TASKS.replace("a.jsonl", "none.jsonl")).unwrap_err();
        assert!(matches!(&error, Error::Io { path, .. } if path.ends_with("none.jsonl")), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_out_of_the_folder_is_refused() {
        let outside = folder(&[("a.jsonl", "{\"text\": \"x\"}")]);
        let suite = folder(&[("suite.yaml", "name: m\ntasks: [{name: a, kind: text, data: a.jsonl}]")]);
        std::os::unix::fs::symlink(outside.path().join("a.jsonl"), suite.path().join("a.jsonl")).unwrap();
        assert!(load(suite.path()).unwrap_err().to_string().contains("a link out of the suite's folder"));
    }

    #[test]
    fn a_missing_suite_offers_the_embedded_ones() {
        let error = load(Path::new("perplexty")).unwrap_err();
        assert_eq!(error.to_string(), "perplexty: there is no such suite");
        assert_eq!(error.help(), Some("did you mean `perplexity`?"));
        assert!(
            load(Path::new("nowhere/else.yaml"))
                .unwrap_err()
                .help()
                .unwrap()
                .contains("perplexity, multilingual")
        );
    }

    #[test]
    fn a_text_is_a_suite_of_one_task() {
        let folder =
            folder(&[("my text (1).txt", "abc"), ("many.jsonl", "{\"text\": \"x\"}\n{\"text\": \"y\"}\n")]);
        let suite = from_text(&folder.path().join("my text (1).txt")).unwrap();
        assert_eq!((&suite.name[..], &suite.tasks[0].name[..]), ("text", "my-text--1-"));
        // FIPS 180's own example.
        assert_eq!(suite.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let many = from_text(&folder.path().join("many.jsonl")).unwrap();
        assert_eq!(many.tasks[0].documents().iter().map(|d| &d.id[..]).collect::<Vec<_>>(), ["1", "2"]);
        assert!(matches!(from_text(&folder.path().join("none.txt")), Err(Error::Io { .. })));
    }
}
