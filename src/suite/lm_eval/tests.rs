//! Task files against the harness itself: `harness_facts.json` holds what lm-evaluation-harness 0.4.13 made of
//! small task files over invented records (its own task code was run, with a stand-in for the library
//! `datasets`); and what is refused, with the words that say so.

use serde::Deserialize;
use serde_json::Value;

use super::*;
use crate::error::Error;
use crate::suite::question::{Answer, Metric, QuestionKind, Sample};
use crate::suite::score::{CompiledComparison, CompiledFilter, apply, choice_score, exact_match, is_space};

#[derive(Deserialize)]
struct Facts {
    data: BTreeMap<String, String>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    yaml: String,
    test: String,
    train: Option<String>,
    num_fewshot: Option<usize>,
    seed: Option<u64>,
    limit: Option<usize>,
    rows: Vec<Row>,
    metrics: Vec<String>,
}

#[derive(Deserialize)]
struct Row {
    context: Option<String>,
    contexts: Option<Vec<String>>,
    continuations: Vec<Option<String>>,
    /// Log-likelihoods of the choices, and what they score.
    values: Option<Vec<f64>>,
    kwargs: Option<Value>,
    answers: Option<Vec<String>>,
    scores: Option<Value>,
}

/// A folder with files in it.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    folder
}

/// The prompt without a chat template.
fn prompt(questions: &Questions, sample: &Sample, question: &str) -> String {
    let mut text = questions.description.clone();
    for shot in sample.shots.iter() {
        text +=
            &[&shot.question, &questions.target_delimiter[..], &shot.answer, &questions.fewshot_delimiter]
                .concat();
    }
    text += question;
    let prefix = &sample.answer_prefix;
    let meets = [question.chars().next_back(), prefix.chars().next()];
    if !question.is_empty() && !prefix.is_empty() && !meets.into_iter().flatten().any(is_space) {
        text += &questions.target_delimiter;
    }
    text + prefix
}

fn requests(questions: &Questions, sample: &Sample) -> Vec<(String, Option<String>)> {
    let delimiter = &questions.target_delimiter;
    let context = prompt(questions, sample, &sample.question);
    match &sample.answer {
        Answer::Choice { options, .. } => options
            .iter()
            .map(|option| {
                let own = option.question.as_ref().map(|question| prompt(questions, sample, question));
                (own.unwrap_or_else(|| context.clone()), Some(format!("{delimiter}{}", option.continuation)))
            })
            .collect(),
        Answer::Continuation(text) => vec![(context, Some(format!("{delimiter}{text}")))],
        Answer::Text => vec![(sample.question.clone(), None)],
        Answer::Generation(_) => vec![(context, None)],
    }
}

#[test]
fn everything_is_as_the_harness_has_it() {
    let facts: Facts = serde_json::from_str(include_str!("harness_facts.json")).unwrap();
    assert_eq!(facts.cases.len(), 66);
    for case in &facts.cases {
        let train = case.train.as_ref().map_or("", |name| &facts.data[name]);
        let files =
            [("t.yaml", &case.yaml[..]), ("test.jsonl", &facts.data[&case.test]), ("train.jsonl", train)];
        let folder = folder(&files);
        let settings = Settings {
            limit: case.limit,
            num_fewshot: case.num_fewshot,
            fewshot_seed: case.seed.unwrap_or(1234),
            ..Settings::default()
        };
        let name = &case.name;
        let tasks = load(&folder.path().join("t.yaml"), &settings)
            .unwrap_or_else(|e| panic!("{name}: {e} ({:?})", e.help()));
        let questions = &tasks[0].questions;
        assert_eq!(questions.samples.len(), case.rows.len(), "{name}: {:?}", questions.left_out);
        let metrics: Vec<&str> = questions.metrics.iter().map(Metric::name).collect();
        assert_eq!(metrics, case.metrics, "{name}");
        for (index, (row, sample)) in case.rows.iter().zip(&questions.samples).enumerate() {
            let place = format!("{name}, record {index}");
            assert_eq!(sample.doc_id, index);
            let all = vec![row.context.clone().unwrap_or_default(); row.continuations.len()];
            let contexts = row.contexts.clone().unwrap_or(all);
            let expect: Vec<_> = contexts.into_iter().zip(row.continuations.iter().cloned()).collect();
            assert_eq!(requests(questions, sample), expect, "{place}");
            check_scores(row, sample, questions, &place);
        }
    }
}

fn check_scores(row: &Row, sample: &Sample, questions: &Questions, place: &str) {
    match &sample.answer {
        Answer::Choice { options, gold } => {
            let scores = row.scores.as_ref().unwrap();
            for metric in &questions.metrics {
                let found = choice_score(metric, row.values.as_ref().unwrap(), options, gold);
                assert_eq!(found, scores[metric.name()].as_f64(), "{place}, {}", metric.name());
            }
        }
        Answer::Generation(targets) => {
            let QuestionKind::Generation(settings) = &questions.kind else { panic!("{place}") };
            let kwargs = row.kwargs.as_ref().unwrap();
            let until = match &kwargs["until"] {
                Value::String(one) => serde_json::json!([one]),
                list => list.clone(),
            };
            assert_eq!(serde_json::json!(settings.until), until, "{place}");
            let tokens = [&kwargs["max_gen_toks"], &kwargs["max_new_tokens"]];
            let tokens = tokens.into_iter().find_map(Value::as_u64).unwrap_or(256);
            assert_eq!(settings.max_new_tokens as u64, tokens, "{place}");
            let temperature = settings.sampling.map_or(0.0, |sampling| sampling.temperature);
            assert_eq!(Some(temperature), kwargs["temperature"].as_f64().or(Some(0.0)), "{place}");
            let top_p = settings.sampling.map_or(1.0, |sampling| sampling.top_p);
            assert_eq!(Some(top_p), kwargs["top_p"].as_f64().or(Some(1.0)), "{place}");
            let answers = row.answers.as_ref().unwrap();
            let groups = if settings.repeats > 1 { vec![&answers[..]] } else { answers.chunks(1).collect() };
            let recorded = row.scores.as_ref().unwrap().as_array().unwrap();
            assert_eq!(groups.len(), recorded.len(), "{place}");
            let [Metric::ExactMatch(comparison)] = &questions.metrics[..] else { panic!("{place}") };
            let comparison = CompiledComparison::new(comparison).unwrap();
            for (group, recorded) in groups.into_iter().zip(recorded) {
                assert_eq!(questions.filters.len(), recorded.as_object().unwrap().len(), "{place}");
                for filter in &questions.filters {
                    let filtered = apply(&CompiledFilter::new(filter).unwrap(), group).unwrap();
                    let expect = &recorded[&filter.name];
                    assert_eq!(filtered, [expect[0].as_str().unwrap()], "{place}, {}", filter.name);
                    let found = exact_match(&comparison, &filtered[0], targets).unwrap();
                    let expect = expect[1]["exact_match"].as_f64();
                    assert_eq!(
                        Some(f64::from(u8::from(found))),
                        expect,
                        "{place}, {}: {filtered:?}",
                        filter.name
                    );
                }
            }
        }
        Answer::Continuation(_) | Answer::Text => {}
    }
}

const TASK: &str = "task: mine\ndataset_path: json\ndataset_kwargs: {data_files: {test: d.jsonl}}\ntest_split: test\n\
                    doc_to_text: '{{q}}'\ndoc_to_target: '{{a}}'\n";
const CHOICE: &str = "task: mine\ndataset_path: json\ndataset_kwargs: {data_files: {test: c.jsonl}}\ntest_split: test\n\
                      output_type: multiple_choice\ndoc_to_text: q\ndoc_to_target: a\ndoc_to_choice: c\n";
const RECORDS: &str = "{\"q\": \"one?\", \"a\": \"1\"}\n{\"q\": \"two?\", \"a\": \"2\"}\n";
const CHOICES: &str = "{\"q\": \"x\", \"c\": [\"y\", \"z\"], \"a\": 1}\n{\"q\": \"x\", \"c\": [\"y\"], \"a\": 0}\n\
                       {\"q\": \"x\", \"c\": [\"y\", \"z\"], \"a\": 2}\n{\"q\": \"x\", \"c\": [\"y\", \"z\"], \"a\": null}\n\
                       {\"q\": \"x\", \"c\": [\"y\", \"z\"], \"a\": \"z\"}\n{\"q\": \"x\", \"c\": [\"y\", \"z\"], \"a\": -1}\n";

/// Loads a task file that lies beside two files of records.
fn load_yaml(yaml: &str) -> Result<Vec<LoadedTask>> {
    let folder = folder(&[("t.yaml", yaml), ("d.jsonl", RECORDS), ("c.jsonl", CHOICES)]);
    load(&folder.path().join("t.yaml"), &Settings::default())
}

#[track_caller]
fn refused(yaml: &str, message: &str, help: &str) {
    let Err(error) = load_yaml(yaml) else { panic!("accepted:\n{yaml}") };
    let text = error.to_string();
    assert!(text.contains(message), "{text:?} does not say {message:?}");
    assert!(text.contains(".yaml: ") || text.contains(".jsonl: "), "{text:?} names no file");
    assert!(error.help().unwrap_or_default().contains(help), "{:?} does not say {help:?}", error.help());
}

/// [`TASK`] with more keys, or others.
fn with(more: &str) -> String {
    let key = |line: &str| line.split(':').next().unwrap_or_default().to_owned();
    let replaced: Vec<String> = more.lines().map(key).collect();
    let kept = TASK.lines().filter(|line| !replaced.contains(&key(line)));
    kept.chain(more.lines()).map(|line| format!("{line}\n")).collect()
}

#[test]
fn a_task_says_where_it_came_from() {
    let task = &load_yaml(&with("task: mgsm_de\ntag: maths\nmetadata: {version: 2.0}\ndataset_name: de"))
        .unwrap()[0];
    assert_eq!(
        (&task.name[..], task.group.as_deref(), task.language.as_deref()),
        ("mgsm_de", None, Some("de"))
    );
    assert_eq!((&task.version[..], &task.dataset[..]), ("2.0", "json de, test"));
    let files: Vec<_> = task.data_files.iter().map(|path| path.file_name().unwrap().to_owned()).collect();
    assert_eq!(files, ["t.yaml", "d.jsonl"]);
    assert!(task.notes.is_empty() && task.questions.left_out.is_empty());
    let other = &load_yaml(TASK).unwrap()[0];
    assert_eq!((&other.version[..], other.language.as_deref()), ("unversioned", None));
    assert_eq!(other.questions.samples[1].id, "1");
    assert_eq!(other.questions.samples[1].record, serde_json::json!({"q": "two?", "a": "2"}));
}

#[test]
fn ids_are_the_records_own_where_they_are_unique() {
    let ids = |records: &str| -> Vec<String> {
        let folder = folder(&[("t.yaml", TASK), ("d.jsonl", records)]);
        let tasks = load(&folder.path().join("t.yaml"), &Settings::default()).unwrap();
        tasks[0].questions.samples.iter().map(|sample| sample.id.clone()).collect()
    };
    let record = |id: &str| format!("{{\"q\": \"x\", \"a\": \"y\"{id}}}\n");
    assert_eq!(ids(&[record(", \"id\": \"p\""), record(", \"id\": \"q\"")].concat()), ["p", "q"]);
    assert_eq!(ids(&[record(", \"id\": 7"), record(", \"id\": 8")].concat()), ["7", "8"]);
    assert_eq!(ids(&[record(", \"id\": \"p\""), record(", \"id\": \"p\"")].concat()), ["0", "1"]);
    assert_eq!(ids(&[record(", \"id\": \"p\""), record("")].concat()), ["0", "1"]);
}

#[test]
fn what_cannot_be_asked_is_counted() {
    let task = &load_yaml(CHOICE).unwrap()[0];
    let ids: Vec<usize> = task.questions.samples.iter().map(|sample| sample.doc_id).collect();
    assert_eq!(ids, [0, 4]);
    let reasons = [
        "2 records whose answer is none of the choices",
        "1 record with fewer than two choices",
        "1 record without an answer",
    ];
    assert_eq!(task.questions.left_out, reasons);
    let nothing = CHOICE.replace("doc_to_target: a", "doc_to_target: 7");
    refused(
        &nothing,
        "holds nothing to ask: 5 records whose answer is none of the choices, 1 record with fewer",
        "doc_to_target",
    );
}

#[test]
fn python_is_refused_by_name() {
    refused(
        &with("process_docs: !function utils.f"),
        "`process_docs`: needs Python, which is not run (`!function utils.f`)",
        "--data",
    );
    refused(
        &with("task: hellaswag_x\nprocess_docs: !function utils.f"),
        "needs Python",
        "built-in benchmark `hellaswag`",
    );
    refused(&with("task: cmmlu_x\ndoc_to_text: !function utils.f"), "`doc_to_text`", "benchmark `cmmlu`");
    refused(&with("doc_to_text: !function utils.f"), "needs Python", "Jinja");
    refused(&with("doc_to_target: !include x.txt"), "(`!include x.txt`)", "Jinja");
    refused(&with("fewshot_config: {samples: !function utils.f}"), "`fewshot_config.samples`", "");
    refused(
        &with("filter_list: [{name: a, filter: [{function: custom, filter_fn: !function utils.f}]}]"),
        "`filter_list[0].filter[0].filter_fn`",
        "",
    );
    refused(
        &with("metric_list: [{metric: !function utils.f}]"),
        "no metric is left: `utils.f` needs Python",
        "use exact_match",
    );
    refused(&with("process_results: x"), "`process_results`: is not supported", "");
    refused(&with("custom_dataset: x"), "`custom_dataset`", "");
    refused(&with("class: x"), "`class`", "YAML");
    refused(&with("use_prompt: x"), "`use_prompt`", "");
    refused(&with("doc_to_image: x"), "`doc_to_image`", "only text");
    refused(&with("unsafe_code: true"), "`unsafe_code`: the task runs what the model wrote", "");
    assert!(load_yaml(&with("unsafe_code: no\nprocess_docs: null\nshould_decontaminate: true\ndoc_to_decontamination_query: !function f")).is_ok());
    let half = with(
        "metric_list: [{metric: exact_match}, {metric: f1, aggregation: !function utils.f}, {metric: bleu}]",
    );
    let notes = &load_yaml(&half).unwrap()[0].notes;
    assert!(
        notes[0].contains("`f1` needs Python") && notes[1].contains("`bleu` is not computed"),
        "{notes:?}"
    );
}

#[test]
fn what_is_unknown_is_refused_with_the_nearest() {
    refused(
        &with("doc_to_txt: x"),
        "`doc_to_txt`: is not a key that is known here",
        "did you mean `doc_to_text`?",
    );
    refused(&with("zzz: x"), "`zzz`", "take it out");
    refused(
        &with("output_type: generate_untill"),
        "`output_type`: `generate_untill` is not known",
        "`generate_until`",
    );
    refused(
        &with("fewshot_config: {sampler: firstn}"),
        "`fewshot_config.sampler`: `firstn`",
        "did you mean `first_n`?",
    );
    refused(&with("fewshot_config: {sampels: []}"), "`fewshot_config.sampels`", "did you mean `samples`?");
    refused(
        &with("metric_list: [{metric: exact_mach}]"),
        "`metric_list[0].metric`: `exact_mach`",
        "did you mean `exact_match`?",
    );
    refused(
        &with("metric_list: [{metric: exact_match, ignore_cases: true}]"),
        "`metric_list[0].ignore_cases`",
        "`ignore_case`",
    );
    refused(
        &with("metric_list: [{metric: exact_match, aggregation: median}]"),
        "`median` is not how",
        "use mean",
    );
    refused(&with("metric_list: [{metric: exact_match}, {metric: exact_match}]"), "listed twice", "");
    refused(
        &with("metric_list: [{metric: acc}]"),
        "`acc` is not computed for `generate_until`",
        "use exact_match",
    );
    refused(&with("metric_list: []"), "`metric_list`: is empty", "");
    refused(&with("metric_list: [x]"), "`metric_list[0]`: is no mapping", "");
    refused(&with("metric_list: [{metric: exact_match, regexes_to_ignore: ['(']}]"), "lacks a `)`", "");
    refused(
        &with("filter_list: [{name: a, filter: [{function: map}]}]"),
        "`filter_list[0].filter[0].function`: the filter `map`",
        "use regex, take_first",
    );
    refused(
        &with("filter_list: [{name: a, filter: [{function: take_frist}]}]"),
        "`take_frist`",
        "did you mean `take_first`?",
    );
    refused(
        &with("filter_list: [{name: a, filter: [{function: regex, regex_pattern: '(?x)a'}]}]"),
        "filter `a`: the pattern `(?x)a` has `(?x`",
        "",
    );
    refused(
        &with("filter_list: [{name: a, filter: [{function: regex, regex_patern: a}]}]"),
        "`filter_list[0].filter[0].regex_patern`",
        "`regex_pattern`",
    );
    refused(
        &with("filter_list: [{name: a, filter: [{function: take_first}, {function: lowercase}]}]"),
        "stands after `take_first`",
        "last",
    );
    refused(
        &with("filter_list: [{name: a, filter: []}, {name: a, filter: []}]"),
        "another filter is already called `a`",
        "",
    );
    refused(&with("generation_kwargs: {num_beams: 4}"), "`generation_kwargs.num_beams`: beam search", "");
    refused(&with("generation_kwargs: {max_length: 4}"), "`generation_kwargs.max_length`", "max_gen_toks");
    refused(&with("generation_kwargs: {temprature: 1}"), "`generation_kwargs.temprature`", "`temperature`");
    refused(
        &with("dataset_kwargs: {data_files: {test: d.jsonl}, header: 0}"),
        "`dataset_kwargs.header`",
        "first line",
    );
}

#[test]
fn impossible_values_are_refused() {
    refused("task: x\n  y: [", "is no YAML", "indentation");
    refused("[a]", "is no mapping", "");
    refused("1: x", "a key that is no text", "");
    refused("dataset_path: json", "`task`: the task has no name", "");
    refused("task: [a]", "`task`: is a list", "group");
    refused(&with("task: x\ntask: y"), "is no YAML: duplicate", "once");
    refused(&with("doc_to_text: null"), "`doc_to_text`: is missing", "");
    refused(&with("doc_to_target: null"), "`doc_to_target`: is missing", "");
    refused(&with("doc_to_text: [a]"), "`doc_to_text`: is a list", "");
    refused(&with("doc_to_target: 1.5"), "`doc_to_target`: has a value of the wrong type", "");
    refused(&with("output_type: multiple_choice"), "`doc_to_choice`: is missing", "");
    refused(&with("test_split: null"), "`test_split`: is missing, and validation_split too", "");
    refused(&with("test_split: 'test[:10]'"), "`test[:10]` is not the name of a whole split", "");
    refused(&with("test_split: tset"), "there is no split `tset`", "use test");
    refused(&with("description: [a]"), "`description`: is not a text", "");
    refused(&with("num_fewshot: -1"), "`num_fewshot`: is not a whole number", "");
    refused(&with("num_fewshot: 3"), "`num_fewshot`: 3 worked examples are wanted of 2 records", "fewer");
    refused(
        &with("num_fewshot: 3\nfewshot_split: test"),
        "`num_fewshot`: 4 worked examples are wanted of 2 records",
        "fewer",
    );
    refused(
        &with("num_fewshot: 3\nfewshot_split: test\nfewshot_config: {sampler: first_n}"),
        "3 worked examples are wanted of 1 records",
        "fewer",
    );
    refused(&with("repeats: 0"), "`repeats`: is 0", "");
    refused(&with("generation_kwargs: {top_p: 2}"), "`generation_kwargs.top_p`: is 2", "");
    refused(&with("generation_kwargs: {temperature: -1}"), "`generation_kwargs.temperature`: is -1", "");
    refused(&with("generation_kwargs: {max_gen_toks: 0}"), "is 0", "");
    refused(&with("generation_kwargs: {until: ['']}"), "an empty text", "");
    refused(&with("generation_kwargs: {until: 3}"), "`generation_kwargs.until`: is not a text or a list", "");
    refused(
        &with(
            "repeats: 2\ngeneration_kwargs: {temperature: 1}\nfilter_list: [{name: a, filter: [{function: take_first_k, k: 3}]}]",
        ),
        "3 answers are wanted of 2",
        "repeats",
    );
    refused(&with("doc_to_text: '{{zz}}'"), "`doc_to_text`: record 0 of ", "its fields are q, a");
    refused(&with("doc_to_text: '{{q'"), "`doc_to_text`: syntax error", "");
    refused(&with("doc_to_text: '{{q|title}}'"), "unknown filter", "");
    refused(&with("doc_to_text: 3"), "an index is no question", "");
    refused(&CHOICE.replace("doc_to_choice: c", "doc_to_choice: '{{c}} x'"), "is no Python literal", "");
    refused(&CHOICE.replace("doc_to_choice: c", "doc_to_choice: q"), "the choices are no list", "");
    refused(&CHOICE.replace("doc_to_choice: c", "doc_to_choice: [1, 2]"), "a choice is no text", "");
    refused(&CHOICE.replace("doc_to_target: a", "doc_to_target: '07'"), "`07` is no index", "");
}

#[test]
fn what_has_no_effect_is_noted() {
    let notes = |more: &str| load_yaml(&with(more)).unwrap()[0].notes.join("; ");
    assert!(notes("doc_to_target: answer").contains("`doc_to_target` is the text `answer` for every record"));
    assert!(notes("repeats: 5").contains("asked once and not 5 times"));
    assert!(notes("generation_kwargs: {do_sample: true}").contains("greedily"));
    assert!(
        notes("generation_kwargs: {do_sample: false, temperature: 0.7}")
            .contains("`temperature` has no effect")
    );
    assert!(notes("fewshot_config: {fewshot_indices: [1]}").contains("fewshot_indices"));
    assert!(notes("description: '{{q}} '").contains("the description differs between records"));
    assert_eq!(notes("generation_kwargs: {do_sample: off, temperature: '0.0', until: x}"), "");
}

#[test]
fn includes_are_read_and_overridden() {
    let base = TASK.replace("task: mine", "task: base\nrepeats: 1\ntask_list: [x]");
    let folder = folder(&[
        ("sub/t.yaml", "include: [../base.yaml, more.yaml]\ntask: t\ndescription: own\n"),
        ("sub/more.yaml", "description: more\ntarget_delimiter: '+'\n"),
        ("base.yaml", &format!("{base}description: base\n")),
        ("d.jsonl", RECORDS),
        ("loop.yaml", "include: sub/loop.yaml\ntask: a"),
        ("sub/loop.yaml", "include: ../loop.yaml"),
        ("none.yaml", "include: nothing.yaml\ntask: a"),
        ("list.yaml", "include: {a: b}\ntask: a"),
    ]);
    let at = |name: &str| load(&folder.path().join(name), &Settings::default());
    let task = &at("sub/t.yaml").unwrap()[0];
    assert_eq!((&task.name[..], &task.questions.description[..]), ("t", "own"));
    assert_eq!(task.questions.target_delimiter, "+");
    let files: Vec<_> = task.data_files.iter().map(|p| p.strip_prefix(folder.path()).unwrap()).collect();
    assert_eq!(files, ["sub/t.yaml", "base.yaml", "sub/more.yaml", "d.jsonl"].map(Path::new));
    assert!(at("loop.yaml").unwrap_err().to_string().contains("`include`: the file includes itself"));
    assert!(matches!(at("none.yaml").unwrap_err(), Error::Io { path, .. } if path.ends_with("nothing.yaml")));
    assert!(at("list.yaml").unwrap_err().to_string().contains("is not a path"));
}

#[test]
fn groups_hold_tasks_groups_and_tags() {
    let task =
        |name: &str, more: &str| with(&format!("task: {name}\n{more}")).replace("d.jsonl", "../d.jsonl");
    let a = task("a", "tag: letters");
    let b = task("b", "tag: [letters, x]\ndescription: own");
    let folder = folder(&[
        (
            "g.yaml",
            "group: g\ngroup_alias: G\naggregate_metric_list: [{metric: acc}]\ndescription: 'of g'\ntask:\n  \
                    - a\n  - task: b\n    description: 'of b'\n  - inner\n  - files/c.yaml\n  \
                    - group: inline\n    task: [letters_too]\n    target_delimiter: '='\n  \
                    - task: own\n    include: base/base.yaml\n    doc_to_text: '{{q}}!'\n",
        ),
        ("tagged.yaml", "group: tagged\ntask: [letters]\n"),
        ("unknown.yaml", "group: unknown\ntask: [lettres]\n"),
        ("circle.yaml", "group: circle\ntask: [circle]\n"),
        ("empty.yaml", "group: empty\ntask: []\n"),
        ("nothing.yaml", "group: nothing\n"),
        ("clash.yaml", "group: clash\ntask: [{task: a, description: x}, {task: a, description: y}]\n"),
        ("twice.yaml", "group: twice\ntask: [inner, d]\n"),
        ("odd.yaml", "group: odd\ntask: [{alias: x}]\n"),
        ("files/a.yaml", &a),
        ("files/b.yaml", &b),
        ("files/c.yaml", &task("c", "")),
        ("files/d.yaml", &task("d", "")),
        ("files/e.yaml", &task("letters_too", "group: old_style")),
        ("files/inner.yaml", "group: inner\ntask: d\n"),
        ("files/broken.yaml", "task: ["),
        ("base/base.yaml", &task("base", "")),
        ("d.jsonl", RECORDS),
    ]);
    let at = |name: &str| load(&folder.path().join(name), &Settings::default());
    let tasks = at("g.yaml").unwrap_or_else(|e| panic!("{e} {:?}", e.help()));
    let found: Vec<_> = tasks
        .iter()
        .map(|task| (&task.name[..], task.group.as_deref().unwrap(), &task.questions.description[..]))
        .collect();
    assert_eq!(
        found,
        [
            ("a", "g", "of g"),
            ("b", "g", "of b"),
            ("d", "inner", "of g"),
            ("c", "g", "of g"),
            ("letters_too", "inline", "of g"),
            ("own", "g", "of g"),
        ]
    );
    assert_eq!(tasks[4].questions.target_delimiter, "=");
    assert_eq!(tasks[5].questions.samples[0].question, "one?!");
    let files: Vec<_> = tasks[2].data_files.iter().map(|path| path.file_name().unwrap()).collect();
    assert_eq!(files, ["g.yaml", "inner.yaml", "d.yaml", "d.jsonl"]);
    let names = |name: &str| at(name).unwrap().into_iter().map(|task| task.name).collect::<Vec<_>>();
    assert_eq!(names("tagged.yaml"), ["a", "b"]);
    assert_eq!(names("twice.yaml"), ["d"], "the same task by two ways is one");
    assert_eq!(at("files/e.yaml").unwrap()[0].group.as_deref(), Some("old_style"));
    for (name, message, help) in [
        ("unknown.yaml", "no task, group or tag called `lettres`", "did you mean `letters`?"),
        ("circle.yaml", "the group holds itself", "circle"),
        ("empty.yaml", "the group has no members", ""),
        ("nothing.yaml", "the group lists no tasks", ""),
        ("clash.yaml", "another task is already called `a`", ""),
        ("odd.yaml", "a member has neither `task` nor `group`", ""),
    ] {
        let error = at(name).unwrap_err();
        assert!(error.to_string().contains(message), "{name}: {error}");
        assert!(error.help().unwrap_or_default().contains(help), "{name}: {:?}", error.help());
    }
}

#[test]
fn data_comes_from_where_it_is_said_to_be() {
    let hub = with("dataset_path: some/set\ndataset_name: en\nnum_fewshot: 1\nfewshot_split: train");
    let folder = folder(&[
        ("t.yaml", &hub),
        ("one.jsonl", RECORDS),
        ("splits/test.jsonl", RECORDS),
        ("splits/train.json", "[{\"q\": \"t\", \"a\": \"u\"}]"),
        ("subset/en/test.jsonl", RECORDS),
        ("subset/en/data/train.jsonl", "{\"q\": \"t\", \"a\": \"u\"}\n"),
        ("shards/test-1.parquet", ""),
        ("shards/train.jsonl", RECORDS),
        ("empty/test.jsonl", "\n"),
        ("lists/test.jsonl", "[1]\n"),
    ]);
    let at = |key: &str, data: &str, shots: Option<usize>| {
        let data = BTreeMap::from([(key.to_owned(), folder.path().join(data))]);
        load(&folder.path().join("t.yaml"), &Settings { data, num_fewshot: shots, ..Settings::default() })
    };
    for key in ["mine", "some/set", "some/set/en"] {
        for data in ["splits", "subset"] {
            let tasks = at(key, data, None).unwrap_or_else(|e| panic!("{key} {data}: {e}"));
            assert_eq!(tasks[0].questions.samples[0].shots[0].question, "t");
            assert_eq!(tasks[0].data_files.len(), 3);
        }
    }
    assert_eq!(at("mine", "one.jsonl", Some(0)).unwrap()[0].questions.samples.len(), 2);
    for (key, data, message, help) in [
        ("other", "splits", "`dataset_path`: `some/set` is a dataset on the Hub", "--data some/set=PATH"),
        (
            "mine",
            "one.jsonl",
            "`fewshot_split`: the split `train` is not in the one file",
            "--data mine=FOLDER",
        ),
        ("mine", "lists", "test.jsonl", ""),
        ("mine", "empty", "holds no record", ""),
        ("mine", "splits/nothing", "nothing", ""),
    ] {
        let shots = if data.contains("nothing") { Some(0) } else { None };
        let error = at(key, data, shots).unwrap_err();
        assert!(error.to_string().contains(message), "{data}: {error}");
        assert!(error.help().unwrap_or_default().contains(help), "{data}: {:?}", error.help());
    }
    // The file's name says that it was found; that it is no Parquet file is another matter.
    assert!(at("mine", "shards", None).unwrap_err().to_string().contains("test-1.parquet"));
    refused(
        &with("dataset_path: json\ndataset_kwargs: null"),
        "`dataset_kwargs.data_files`: is missing",
        "--data",
    );
    refused(
        &with("dataset_kwargs: {data_files: d.jsonl}"),
        "files without a split are the split `train`",
        "`test:`",
    );
    refused(
        &with("dataset_kwargs: {data_files: {test: x.jsonl}}"),
        "there is no file `x.jsonl`",
        "--data mine=PATH",
    );
    refused(
        &with("dataset_kwargs: {data_files: {test: 'https://x/y.jsonl'}}"),
        "is not a local file",
        "--data",
    );
    refused(&with("dataset_path: null"), "`dataset_path`: is missing", "--data mine=PATH");
    let two = with("dataset_kwargs: {data_files: {test: [d.jsonl, ./d.jsonl]}}");
    assert_eq!(load_yaml(&two).unwrap()[0].questions.samples.len(), 4);
    assert!(load_yaml(&with("test_split: train\ndataset_kwargs: {data_files: d.jsonl}")).is_ok());
}

#[test]
fn tables_have_typed_columns() {
    let yaml = "task: t\ndataset_path: csv\ndataset_kwargs: {data_files: {test: d.csv}, column_names: [q, x, y, a], header: null}\n\
                test_split: test\noutput_type: multiple_choice\ndoc_to_text: '{{q}}'\ndoc_to_target: a\n\
                doc_to_choice: '{{[x, y]}}'\n";
    let choices = |yaml: &str, csv: &str| {
        let folder = folder(&[("t.yaml", yaml), ("d.csv", csv)]);
        let tasks = load(&folder.path().join("t.yaml"), &Settings::default()).unwrap();
        tasks[0].questions.samples.iter().map(|s| (s.question.clone(), s.answer.clone())).collect::<Vec<_>>()
    };
    let named = choices(yaml, "one,u,v,0\ntwo,w,z,1\n");
    assert!(
        matches!(&named[1], (question, Answer::Choice { gold, .. }) if question == "two" && *gold == [1])
    );
    let plain = yaml.replace(", column_names: [q, x, y, a], header: null", "");
    assert_eq!(choices(&plain, "q,x,y,a\none,u,v,0\ntwo,w,z,1\n"), named);
}
