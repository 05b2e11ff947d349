//! Texts, numbers and hashes against what Python 3.11 wrote, rows of several versions, and pairs made by hand.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    Aggregate, AggregateMetric, Json, MetricValue, Paired, PairedTask, Run, SampleFile, SampleRow, TaskRun,
    digest::hash_string, json::float_repr, pair, parse::parse, read, write,
};
use crate::error::Error;

/// A folder of its own for a test, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("qeval-samples-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What an error says, with its help.
fn said(error: &Error) -> String {
    format!("{error}; {}", error.help().unwrap_or_default())
}

#[test]
fn floats_are_written_as_python_writes_them() {
    let cases: &[(f64, &str)] = &[
        (0.1, "0.1"),
        (1.0, "1.0"),
        (-0.0, "-0.0"),
        (1e16, "1e+16"),
        (1e15, "1000000000000000.0"),
        (123_456_789_012_345_680.0, "1.2345678901234568e+17"),
        (1e-4, "0.0001"),
        (1e-5, "1e-05"),
        (1.5e-7, "1.5e-07"),
        (5e-324, "5e-324"),
        (f64::MAX, "1.7976931348623157e+308"),
        (-24.456214904785156, "-24.456214904785156"),
        (2.0 / 3.0, "0.6666666666666666"),
        (100.0, "100.0"),
        // Ties of the last digit, of which Python takes the even one.
        (-135.87893676757812, "-135.87893676757812"),
        (0.000244140625 * 1.0000001192092896, "0.00024414065410383046"),
        (1_125_899_906_842_624.2, "1125899906842624.2"),
        // A power of two, whose neighbours are not equally far.
        (9.007199254740992e15 * 1024.0, "9.223372036854776e+18"),
        (1e22, "1e+22"),
        (9_007_199_254_740_993.0, "9007199254740992.0"),
        (0.00012345, "0.00012345"),
        (f64::NAN, "nan"),
        (f64::NEG_INFINITY, "-inf"),
    ];
    for (value, text) in cases {
        assert_eq!(float_repr(*value), *text);
    }
}

#[test]
fn texts_in_lists_are_written_as_pythons_repr() {
    let cases = [
        ("it's", r#"["it's"]"#),
        (r#"say "x""#, r#"['say "x"']"#),
        (r#"both ' and ""#, r#"['both \' and "']"#),
        ("tab\t\0\x7f\u{a0}\u{ad}é", r"['tab\t\x00\x7f\xa0\xadé']"),
        ("\u{200b}\u{2028}\u{e0001}\u{301}e", "['\\u200b\\u2028\\U000e0001\u{301}e']"),
        ("😀\u{d7ff}\u{e000}\\", r"['😀\ud7ff\ue000\\']"),
    ];
    for (text, repr) in cases {
        assert_eq!(Json::List(vec![text.into()]).python_str(), repr);
        assert_eq!(Json::from(text).python_str(), text);
    }
    let nested = parse(r#"[1, "a", {"k": null, "x'": [1.0, true]}, []]"#).unwrap();
    assert_eq!(nested.python_str(), r#"[1, 'a', {'k': None, "x'": [1.0, True]}, []]"#);
}

#[test]
fn json_is_written_and_hashed_as_python_does() {
    let text = "{\"b\": [], \"a\": {}, \"z\": [1, -2, 0.5, true, null, NaN, -Infinity], \
                \"t\": \"\\u0000\\u001f\x7f\u{2028}é\\\"\\\\/\\n\\r\\t\\b\\f\"}";
    let value = parse(text).unwrap();
    assert_eq!(value.one_line(), text);
    // What Python 3.11 gives for hashlib.sha256(json.dumps(value, indent=2, ensure_ascii=False).encode()).
    let hash = "ab46437aff94fe03d10c4b6c0f105f747e02311b04413fab499451ae7443553b";
    assert_eq!(hash_string(&value.indented()), hash);
    // A value that came through serde has its keys in that order, here sorted already.
    let sorted: serde_json::Value =
        serde_json::from_str(r#"{"a": 1, "b": [2.5, -3, "x"], "c": null}"#).unwrap();
    assert_eq!(Json::from(sorted).one_line(), r#"{"a": 1, "b": [2.5, -3, "x"], "c": null}"#);
}

#[test]
fn what_is_no_json_is_refused_with_its_place() {
    let cases = [
        ("", 0, "ends where a value"),
        ("{\"a\": 1", 7, "ends in the middle of an object"),
        ("[1, 2", 5, "ends in the middle of an array"),
        ("{\"a", 1, "ends in the middle of a string"),
        ("{\"a\":", 5, "ends where a value"),
        ("[1,]", 3, "has `]`"),
        ("[1 2]", 3, "has `2` in an array where `,`"),
        ("{1: 2}", 1, "key that is no string"),
        ("{\"a\": 1, \"a\": 2}", 12, "`a` twice"),
        ("01", 0, "`01` where a number"),
        ("1.", 0, "`1.` where a number"),
        ("-", 0, "`-` where a number"),
        ("1e", 0, "`1e` where a number"),
        ("nan", 0, "has `nan`"),
        ("True", 0, "has `True`"),
        ("\"\u{1}\"", 0, "a string that is none"),
        ("\"\\ud800\"", 0, "a string that is none"),
        ("{} {}", 3, "has `{` after its end"),
    ];
    for (text, at, problem) in cases {
        let malformed = parse(text).unwrap_err();
        assert_eq!(malformed.at, at, "{text}: {}", malformed.problem);
        assert!(malformed.problem.contains(problem), "{text}: {}", malformed.problem);
    }
    let digits = "9".repeat(60);
    assert!(parse(&digits).unwrap_err().problem.contains("whole number of 60 digits"));
    let deep = "[".repeat(100_000);
    assert!(parse(&deep).unwrap_err().problem.contains("nested more than 128 deep"));
    let fits = format!("{}{}", "[".repeat(128), "]".repeat(128));
    assert!(parse(&fits).is_ok());
}

/// A row of a task with two options, as 0.4.13 writes it; the hashes stand for documents and prompts.
fn choice(doc_id: u64, likelihoods: [&str; 2], acc: &str) -> String {
    let doc = format!("{doc_id:064x}");
    let prompt = format!("{:064x}", doc_id + 1000);
    let [a, b] = likelihoods;
    format!(
        r#"{{"doc_id": {doc_id}, "doc": {{"q": {doc_id}}}, "target": "0", "arguments": {{"gen_args_0": {{"arg_0": "q{doc_id}", "arg_1": " yes"}}, "gen_args_1": {{"arg_0": "q{doc_id}", "arg_1": " no"}}}}, "resps": [[["{a}", "False"]], [["{b}", "False"]]], "filtered_resps": [["{a}", "False"], ["{b}", "False"]], "filter": "none", "metrics": ["acc"], "doc_hash": "{doc}", "prompt_hash": "{prompt}", "target_hash": "{doc}", "acc": {acc}}}"#
    )
}

fn pair_of(name: &str, base: &[String], quant: &[String]) -> Result<Paired, Error> {
    let folder = Folder::new(name);
    let base = read(&folder.file("a/samples_t.jsonl", &(base.join("\n") + "\n")))?;
    let quant = read(&folder.file("b/samples_t_2026-01-02T03-04-05.678901.jsonl", &quant.join("\n")))?;
    pair(&base, &quant)
}

fn only(paired: &Paired) -> &PairedTask {
    assert_eq!(paired.tasks.len(), 1, "{paired:?}");
    &paired.tasks[0]
}

#[test]
fn a_pair_counts_what_is_missing_changed_and_not_finite() {
    let base = [
        choice(0, ["-1.0", "-2.0"], "1.0"),
        choice(1, ["-1.0", "-2.0"], "1.0"),
        choice(2, ["-1.0", "-2.0"], "1.0"),
        choice(3, ["-3.0", "-2.0"], "0.0"),
        choice(4, ["-3.0", "-2.0"], "0.0"),
        choice(5, ["-3.0", "-2.0"], "1.0"),
    ];
    let quant = [
        // Other order, document 0 missing, 7 new, the prompt of 2 and the target of 4 changed, 3 not a number.
        choice(7, ["-1.0", "-2.0"], "1.0"),
        choice(4, ["-1.0", "-2.0"], "0.0").replace(r#""target": "0""#, r#""target": "1""#),
        choice(3, ["nan", "-2.5"], "NaN"),
        choice(2, ["-1.0", "-2.0"], "1.0").replace("\"q2\"", "\"Q: q2\""),
        choice(1, ["-2.0", "-1.5"], "0.0"),
        choice(5, ["-3.0", "-2.0"], "0.0"),
    ];
    let paired = pair_of("counts", &base, &quant).unwrap();
    let task = only(&paired);
    assert_eq!((task.task.as_str(), task.filter.as_str(), task.metric.as_str()), ("t", "none", "acc"));
    assert_eq!((task.unpaired_base, task.unpaired_quant), (1, 1));
    assert_eq!(task.different_prompts, ["2"]);
    assert_eq!(task.different_targets, ["4"]);
    let values: Vec<_> =
        task.items.iter().map(|i| (i.key.as_str(), i.base, i.quant, i.same_answer)).collect();
    let expected = [
        ("1", Some(1.0), Some(0.0), Some(false)),
        ("3", Some(0.0), None, None),
        // Recorded as right though the other option is likelier: what was chosen is not known.
        ("5", Some(1.0), Some(0.0), None),
    ];
    assert_eq!(values, expected);
    assert_eq!((task.without_value, task.unexplained, task.different_settings), (1, 1, 0));
    assert!(task.right_or_wrong);
    assert_eq!(task.chance, Some(0.5));
    assert_eq!(task.figures(), Some((1.0, 0.0)));
    // |−1+2|, |−2+1.5|, |−2+2.5|, 0, 0; NaN is left out.
    assert_eq!(task.log_likelihood_difference, Some(2.0 / 5.0));
    assert!(paired.only_base.is_empty() && paired.only_quant.is_empty() && paired.notes.is_empty());
}

#[test]
fn prompts_that_all_differ_are_refused() {
    let base = [choice(0, ["-1.0", "-2.0"], "1.0"), choice(1, ["-1.0", "-2.0"], "1.0")];
    let quant: Vec<String> = base.iter().map(|row| row.replace("\"arg_0\": \"q", "\"arg_0\": \"Q")).collect();
    let message = said(&pair_of("prompts", &base, &quant).unwrap_err());
    assert!(
        message.contains("task `t`, filter `none`: the prompts of all 2 common documents differ"),
        "{message}"
    );
    assert!(message.contains("chat template"), "{message}");
    // Where only the hash is kept, it decides.
    let bare = |row: &String, hash: u32| {
        let start = row.find("\"arguments\"").unwrap();
        let end = row.find("\"resps\"").unwrap();
        let row = format!("{}{}", &row[..start], &row[end..]);
        row.replace("00000003e8\"", &format!("{hash:010x}\""))
            .replace("00000003e9\"", &format!("{hash:010x}\""))
    };
    let of = |hash: u32| base.iter().map(|row| bare(row, hash)).collect::<Vec<_>>();
    assert_eq!(only(&pair_of("bare", &of(7), &of(7)).unwrap()).items.len(), 2);
    let message = said(&pair_of("bare2", &of(7), &of(8)).unwrap_err());
    assert!(message.contains("prompts of all 2"), "{message}");
    let others = [choice(8, ["-1.0", "-2.0"], "1.0")];
    let message = said(&pair_of("others", &base, &others).unwrap_err());
    assert!(message.contains("none of 2 documents is among the other's 1"), "{message}");
    let targets: Vec<String> =
        base.iter().map(|row| row.replace(r#""target": "0""#, r#""target": "1""#)).collect();
    let message = said(&pair_of("targets", &base, &targets).unwrap_err());
    assert!(message.contains("the right answers of 2 differ"), "{message}");
}

#[test]
fn garbage_is_refused_with_its_line() {
    let folder = Folder::new("garbage");
    let good = choice(0, ["-1.0", "-2.0"], "1.0");
    let second = choice(1, ["-1.0", "-2.0"], "1.0");
    let half = &second[..second.len() / 2];
    let cases = [
        (format!("{good}\n{half}"), "line 2 ends in the middle of"),
        (format!("{good}\n\n{second}\n"), "line 2 is empty"),
        (format!("{good}\n[1]\n"), "line 2 is no object"),
        (
            format!("{good}\n{good}\n"),
            "line 2 is a second row for document 0 and filter `none`; the first is line 1",
        ),
        (good.replace("\"doc_id\": 0", "\"doc_id\": -1"), "line 1 has -1 as its `doc_id`"),
        (good.replace("\"doc_id\": 0", "\"doc_id\": \"0\""), "line 1 has no whole number `doc_id`"),
        (good.replace("[\"acc\"]", "[\"acc\", \"f1\"]"), "line 1 names the metric `f1` without"),
        (good.replace("[\"acc\"]", "\"acc\""), "line 1 has `metrics` that are no list"),
        (good.replace("\"none\"", "3"), "line 1 has a `filter` that is no text"),
        (good.replace("gen_args_1", "gen_args_2"), "line 1 has `arguments` in no form"),
        (
            good.replace("\"doc_hash\": \"00", "\"doc_hash\": \"0g"),
            "line 1 has a `doc_hash` that is no SHA-256",
        ),
        ("{\n  \"results\": {}\n}\n".to_owned(), "line 1 ends"),
        ("[\n{\"doc_id\": 0},\n{\"doc_id\": }]".to_owned(), "line 3 has `}]` where a value"),
        ("[{\"doc_id\": 0}\n{\"doc_id\": 1}]".to_owned(), "line 2 has no `,` between"),
        ("[\n\n{\"doc_id\": 0},\n\n1]".to_owned(), "line 5 is no object"),
        ("[]".to_owned(), "holds no row"),
        (String::new(), "holds no row"),
    ];
    for (index, (text, problem)) in cases.iter().enumerate() {
        let path = folder.file(&format!("samples_{index}.jsonl"), text);
        let message = said(&read(&path).unwrap_err());
        assert!(message.contains(problem), "{index}: {message}");
        assert!(message.contains(&format!("samples_{index}.jsonl")), "{message}");
    }
    let path = folder.0.join("samples_latin.jsonl");
    fs::write(&path, b"{\"doc_id\": 0, \"doc\": \"\xe9\"}\n").unwrap();
    assert!(said(&read(&path).unwrap_err()).contains("line 1 is not UTF-8"));
    assert!(matches!(read(&folder.0.join("nowhere")), Err(Error::Io { .. })));
}

#[test]
fn rows_of_older_versions_are_understood() {
    // 0.4.0: one array over many lines, lists for arguments, numbers for responses, no hashes, no names of filters.
    let row = |answer: &str, score: &str| {
        format!(
            r#"{{"doc_id": 0, "doc": {{"q": "é", "a": 1}}, "target": "18", "arguments": [["Q: é", {{"until": ["\n"]}}]], "resps": [["so 18"]], "filtered_resps": ["{answer}"], "exact_match": {score}}}"#
        )
    };
    let folder = Folder::new("older");
    let old = folder.file(
        "pretrained__a_gsm8k.jsonl",
        &format!("[\n{},\n{}\n]", row("[invalid]", "0.0"), row("18", "1.0")),
    );
    let old = read(&old).unwrap();
    assert_eq!(old.tasks[0].filters().collect::<Vec<_>>(), ["unnamed 1", "unnamed 2"]);
    assert_eq!(old.tasks[0].rows(), 2);
    // The same document by its hash, as newer versions write it: only that filter's name is missing.
    let new = row("18", "1.0").replace(
        "[[\"Q: é\", {\"until\": [\"\\n\"]}]]",
        r#"{"gen_args_0": {"arg_0": "Q: é", "arg_1": {"until": []}}}"#,
    );
    let doc_hash = hash_string("{\n  \"q\": \"é\",\n  \"a\": 1\n}");
    let prompt_hash = hash_string("Q: é");
    let new = new.replace("\"doc\": {\"q\": \"é\", \"a\": 1}", &format!("\"filter\": \"unnamed 2\", \"metrics\": [\"exact_match\"], \"doc_hash\": \"{doc_hash}\", \"prompt_hash\": \"{prompt_hash}\""));
    let new = read(&folder.file("samples_gsm8k_2026-01-02T03-04-05.678901.jsonl", &new)).unwrap();
    assert_eq!(new.tasks[0].name, "gsm8k");
    let paired = pair(&old, &new).unwrap();
    let task = only(&paired);
    assert_eq!((task.filter.as_str(), task.items.len(), task.different_settings), ("unnamed 2", 1, 1));
    assert_eq!(task.items[0].same_answer, Some(true));
    assert_eq!(task.chance, None);
    assert_eq!(paired.only_base, ["pretrained__a_gsm8k, filter unnamed 1"]);
    assert!(paired.notes[0].contains("taken to be the same task"), "{paired:?}");
    // Rows without a filter's name that answered differently are two runs, not two filters.
    let twice = format!("{}\n{}\n", row("1", "0.0"), row("18", "1.0").replace("so 18", "so 19"));
    let message = said(&read(&folder.file("samples_twice.jsonl", &twice)).unwrap_err());
    assert!(message.contains("second row for document 0"), "{message}");
    // Log-likelihoods as numbers.
    let numbers = choice(0, ["-1.0", "-2.0"], "1.0")
        .replace("\"-1.0\", \"False\"", "-1.5, false")
        .replace("\"-2.0\", \"False\"", "-2.0, true");
    let paired = pair_of("numbers", &[choice(0, ["-1.0", "-2.0"], "1.0")], &[numbers]).unwrap();
    assert_eq!(only(&paired).log_likelihood_difference, Some(0.25));
    assert_eq!(only(&paired).items[0].same_answer, Some(true));
}

#[test]
fn identical_documents_pair_in_their_order_and_documents_without_hashes_by_index() {
    let same = |row: String, doc_id: u64| {
        row.replace(&format!("\"doc_hash\": \"{doc_id:064x}\""), &format!("\"doc_hash\": \"{:064x}\"", 9))
            .replace(&format!("q{doc_id}\""), "q\"")
            .replace(&format!("{:064x}", doc_id + 1000), &format!("{:064x}", 1))
    };
    let rows =
        |a: &str, b: &str| [same(choice(0, ["-1.0", "-2.0"], a), 0), same(choice(3, ["-1.0", "-2.0"], b), 3)];
    let paired = pair_of("identical", &rows("1.0", "0.0"), &rows("1.0", "0.0")[..1]).unwrap();
    assert_eq!((only(&paired).items.len(), only(&paired).unpaired_base), (1, 1));
    let paired = pair_of("identical2", &rows("1.0", "0.0"), &rows("1.0", "0.0")).unwrap();
    assert!(only(&paired).items.iter().all(|item| item.base == item.quant) && only(&paired).items.len() == 2);
    // Without documents and hashes.
    let bare = |doc_id: u64, score: &str| {
        format!(r#"{{"doc_id": {doc_id}, "filter": "none", "metrics": ["f1"], "f1": {score}}}"#)
    };
    let paired =
        pair_of("bare-index", &[bare(0, "0.25"), bare(4, "1")], &[bare(4, "0.5"), bare(5, "0")]).unwrap();
    let task = only(&paired);
    assert_eq!(
        (task.items[0].key.as_str(), task.items[0].base, task.items[0].quant),
        ("4", Some(1.0), Some(0.5))
    );
    assert!(!task.right_or_wrong && task.items[0].same_answer.is_none());
    assert!(paired.notes[0].contains("1 documents without prompts"), "{paired:?}");
}

#[test]
fn normalised_choices_follow_the_metric() {
    // Characters: yes 3, no 2. −3/3 > −2.5/2, though −2.5 > −3; with the delimiter counted −.75 > −.83 alike.
    let norm = |row: String, norm: &str| {
        row.replace("[\"acc\"]", "[\"acc\", \"acc_norm\"]")
            .replace("\"acc\": ", &format!("\"acc_norm\": {norm}, \"acc\": "))
    };
    let base = [norm(choice(0, ["-3.0", "-2.5"], "0.0"), "1.0")];
    let quant = [norm(choice(0, ["-3.0", "-1.0"], "0.0"), "0.0")];
    let paired = pair_of("norm", &base, &quant).unwrap();
    let same: Vec<_> = paired
        .tasks
        .iter()
        .map(|task| (task.metric.as_str(), task.items[0].same_answer, task.unexplained))
        .collect();
    assert_eq!(same, [("acc", Some(true), 0), ("acc_norm", Some(false), 0)]);
    // −3/3 = −1 against −2.1/2 = −1.05: the first; as four and three characters −.75 against −.7: the
    // second. The recorded value tells which was meant.
    for (recorded, first) in [("1.0", true), ("0.0", false)] {
        let rows = [norm(choice(0, ["-3.0", "-2.1"], "0.0"), recorded)];
        let other = [norm(choice(0, ["-1.0", "-9.0"], "1.0"), "1.0")];
        let paired = pair_of("delimiter", &rows, &other).unwrap();
        let task = &paired.tasks[1];
        assert_eq!((task.unexplained, task.items[0].same_answer), (0, Some(first)), "{recorded}");
    }
}

#[test]
fn a_folder_gives_its_newest_run() {
    let folder = Folder::new("folder");
    let row = |acc: &str| choice(0, ["-1.0", "-2.0"], acc);
    folder.file("m/samples_t_x_2026-01-02T03-04-05.678901.jsonl", &row("0.0"));
    folder.file("m/samples_t_x_2026-01-12T03-04-05.jsonl", &row("1.0"));
    folder.file("m/samples_u_2026-01-02T03-04-05.678901.jsonl", &row("1.0"));
    folder.file("m/results_2026-01-02T03-04-05.678901.json", "{}");
    let read_in: SampleFile = read(&folder.0).unwrap();
    assert_eq!(read_in.tasks.iter().map(|task| task.name.as_str()).collect::<Vec<_>>(), ["t_x", "u"]);
    assert!(read_in.tasks[0].path.ends_with("samples_t_x_2026-01-12T03-04-05.jsonl"));
    assert_eq!(read_in.notes, ["task `t_x`: 1 older run left out, the newest is of 2026-01-12T03-04-05"]);
    folder.file("m/samples_u.jsonl", &row("1.0"));
    assert!(
        said(&read(&folder.0).unwrap_err()).contains("2 sample files of the task `u`, not all with a time")
    );
    folder.file("n/samples_u.jsonl", &row("1.0"));
    assert!(said(&read(&folder.0).unwrap_err()).contains("sample files of 2 models (m, n)"));
    let empty = Folder::new("empty");
    assert!(said(&read(&empty.0).unwrap_err()).contains("holds no samples_<task>.jsonl file"));
    // Nothing in common.
    let other = folder.file("o/samples_v.jsonl", &row("1.0"));
    let message = said(&pair(&read(&folder.0.join("n")).unwrap(), &read(&other).unwrap()).unwrap_err());
    assert!(message.contains("nothing in common: `u` against `v`"), "{message}");
}

fn run() -> Run {
    let row = SampleRow {
        doc_id: 0,
        doc: parse(r#"{"z": 1, "a": [0.1]}"#).unwrap(),
        target: parse(r#"["it's", "b"]"#).unwrap(),
        arguments: vec![vec!["Q".into(), parse(r#"{"until": []}"#).unwrap()]],
        resps: parse(r#"[["b\n"]]"#).unwrap(),
        filtered_resps: parse(r#"["b"]"#).unwrap(),
        filter: "flexible".to_owned(),
        metrics: vec![
            ("exact_match".to_owned(), MetricValue::Number(1.0)),
            ("perplexity".to_owned(), MetricValue::Number(-2.0)),
        ],
    };
    let metric = AggregateMetric {
        name: "exact_match".to_owned(),
        filter: "flexible".to_owned(),
        value: 1.0,
        stderr: None,
        higher_is_better: true,
    };
    let task = TaskRun {
        task: "t/../x".to_owned(),
        version: Json::Float(1.0),
        config: Json::Null,
        n_shot: 0,
        original_samples: 10,
        metrics: vec![metric],
        rows: vec![row],
    };
    Run {
        model: "org/model".to_owned(),
        model_source: "qeval".to_owned(),
        tasks: vec![task],
        date: 1.5,
        system_instruction: None,
        fewshot_as_multiturn: None,
        chat_template: Some("{{ x }}".to_owned()),
        settings: parse(r#"{"limit": null}"#).unwrap(),
        total_evaluation_time_seconds: 12.0,
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn a_run_is_written_whole_or_not_at_all() {
    let folder = Folder::new("write");
    let out = folder.0.join("new/out");
    let files = write(&out, &run()).unwrap();
    assert_eq!(names(&out), ["results.json", "samples_t__..__x.jsonl"]);
    assert_eq!(files, [out.join("results.json"), out.join("samples_t__..__x.jsonl")]);
    let line = fs::read_to_string(&files[1]).unwrap();
    // The target as Python 3.11 writes it; the document with its keys in its own order.
    assert!(line.contains(r#""target": "[\"it's\", 'b']""#), "{line}");
    assert!(
        line.contains(&format!(
            "\"doc_hash\": \"{}\"",
            hash_string("{\n  \"z\": 1,\n  \"a\": [\n    0.1\n  ]\n}")
        )),
        "{line}"
    );
    let results: serde_json::Value = serde_json::from_slice(&fs::read(&files[0]).unwrap()).unwrap();
    assert_eq!(results["results"]["t/../x"]["exact_match_stderr,flexible"], "N/A");
    assert_eq!(results["n-samples"]["t/../x"], serde_json::json!({"original": 10, "effective": 1}));
    assert_eq!(
        results["config"],
        serde_json::json!({"model": "qeval", "model_args": {"pretrained": "org/model"}, "limit": null})
    );
    assert_eq!(results["chat_template_sha"], hash_string("{{ x }}"));
    assert_eq!(results["model_name_sanitized"], "org__model");
    assert_eq!(results["total_evaluation_time_seconds"], "12.0");
    // It replaces what it wrote, and reads it.
    write(&out, &run()).unwrap();
    let again = read(&out).unwrap();
    let paired = pair(&again, &again).unwrap();
    assert_eq!(
        paired.tasks.iter().map(|t| t.aggregate).collect::<Vec<_>>(),
        [Aggregate::Mean, Aggregate::Perplexity]
    );
    assert_eq!(paired.tasks[1].figures(), Some((2.0_f64.exp(), 2.0_f64.exp())));

    let refused = |change: &dyn Fn(&mut Run), problem: &str| {
        let mut run = run();
        change(&mut run);
        let out = folder.0.join("refused");
        let message = said(&write(&out, &run).unwrap_err());
        assert!(message.contains(problem), "{message}");
        assert!(!out.exists() || names(&out).is_empty(), "{problem}: something was left behind");
    };
    refused(&|run| run.tasks[0].task.clear(), "a task has no name");
    refused(&|run| run.settings = Json::Null, "the settings of a run are no object");
    refused(&|run| run.tasks[0].rows[0].arguments.clear(), "document 0: the first request has no prompt");
    refused(&|run| run.tasks[0].rows[0].metrics[0].0 = "doc".to_owned(), "`doc` is no name for a metric");
    let twin = |run: &mut Run| {
        let mut task = run.tasks[0].clone();
        task.task = "t:..:x".to_owned();
        run.tasks.push(task);
    };
    refused(&twin, "the same file as another");
}
