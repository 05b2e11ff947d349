//! The benchmarks on small files with invented content, in the layouts in which they are published.

mod raw_forms;

use std::collections::BTreeSet;

use regex::Regex;
use serde_json::json;

use super::super::question::{Answer, FilterStep, Metric, QuestionKind};
use super::*;

/// A folder with these files, also in folders below.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    folder
}

/// Question, options (or targets), right ones of each sample.
fn prompts(task: &BenchmarkTask) -> Vec<(String, Vec<String>, Vec<usize>)> {
    let samples = task.questions.samples.iter();
    samples
        .map(|sample| {
            let (options, gold) = match &sample.answer {
                Answer::Choice { options, gold } => {
                    (options.iter().map(|option| option.continuation.clone()).collect(), gold.clone())
                }
                Answer::Continuation(text) => (vec![text.clone()], vec![0]),
                Answer::Generation(targets) => (targets.clone(), vec![0]),
                Answer::Text => (Vec::new(), Vec::new()),
            };
            (sample.question.clone(), options, gold)
        })
        .collect()
}

fn names(tasks: &[BenchmarkTask]) -> Vec<&str> {
    tasks.iter().map(|task| &task.name[..]).collect()
}

fn ids(task: &BenchmarkTask) -> Vec<(&str, &str)> {
    task.questions.samples.iter().map(|sample| (&sample.id[..], &sample.cluster[..])).collect()
}

fn all() -> Settings {
    Settings::default()
}

fn shots(n: usize) -> Settings {
    Settings { num_fewshot: Some(n), seed: 1234, ..all() }
}

fn subset(names: &str) -> Settings {
    Settings { subset: Some(names.to_owned()), ..all() }
}

fn piqa(goal: &str, label: i64) -> String {
    json!({"goal": goal, "sol1": "a", "sol2": "b", "label": label}).to_string() + "\n"
}

fn premise(index: u32) -> String {
    json!({"premise": "It rained.", "choice1": "It dripped.", "choice2": "It burnt.", "question": "effect",
        "label": 0, "idx": index})
    .to_string()
}

#[test]
fn winogrande_fills_the_gap() {
    let record = |id: &str, answer: &str| {
        json!({"qID": id, "sentence": "The box did not fit into the bag because the _ was too _big.",
            "option1": "box", "option2": "bag", "answer": answer})
        .to_string()
    };
    let lines = [record("AB-1", "1"), record("AB-2", "2"), record("CD-1", "")].join("\n");
    let folder = folder(&[("dev.jsonl", &lines)]);
    let task = load("winogrande", folder.path(), &all()).unwrap().remove(0);
    // As preprocess_winogrande.py forms it.
    let expect = |right: usize| (String::new(), vec!["was too _big.".to_owned(); 2], vec![right]);
    assert_eq!(prompts(&task), [expect(0), expect(1)]);
    let Answer::Choice { options, .. } = &task.questions.samples[0].answer else { panic!() };
    let contexts: Vec<&str> = options.iter().map(|option| option.question.as_deref().unwrap()).collect();
    let start = "The box did not fit into the bag because the ";
    assert_eq!(contexts, [format!("{start}box"), format!("{start}bag")]);
    assert_eq!(ids(&task), [("AB-1", "AB"), ("AB-2", "AB")]);
    assert_eq!(task.questions.left_out, ["1 record whose answer (`answer`) is hidden"]);
    assert_eq!((task.group, &task.language[..]), (None, "en"));
}

#[test]
fn winogrande_examples_stand_in_the_right_context() {
    let line =
        r#"{"sentence": "Ann thanked Bo as _ helped.", "option1": "Ann", "option2": "Bo", "answer": "2"}"#;
    let folder = folder(&[("test.jsonl", &format!("{line}\n{line}\n"))]);
    let task = load("winogrande", &folder.path().join("test.jsonl"), &shots(1)).unwrap().remove(0);
    let shot = &task.questions.samples[0].shots[0];
    assert_eq!((&shot.question[..], &shot.answer[..]), ("Ann thanked Bo as Bo", "helped."));
}

#[test]
fn lambada_asks_the_last_word() {
    let text =
        ["He went home and closed  the door", "door", "trailing "].map(|t| json!({"text": t}).to_string());
    let folder = folder(&[("lambada_openai_test.jsonl", &text.join("\n"))]);
    let task = load("lambada", folder.path(), &all()).unwrap().remove(0);
    assert_eq!(prompts(&task), [("He went home and closed  the".into(), vec!["door".into()], vec![0])]);
    assert_eq!(task.questions.kind, QuestionKind::Continuation);
    assert_eq!(task.questions.left_out, ["2 records without a last word in `text`"]);
}

#[test]
fn the_authors_own_files() {
    // ARC and OpenBookQA before the Hub: options inside of the question, as objects.
    let arc = r#"{"id": "x", "question": {"stem": "Cork?", "choices": [{"text": "floats", "label": "A"},
        {"text": "sinks", "label": "B"}]}, "answerKey": "A"}"#
        .replace('\n', " ");
    let folder_arc =
        folder(&[("ARC-Easy/ARC-Easy-Test.jsonl", &arc), ("ARC-Easy/ARC-Easy-Train.jsonl", &arc)]);
    let task = load("arc_easy", folder_arc.path(), &all()).unwrap().remove(0);
    let expect =
        ("Question: Cork?\nAnswer:".to_owned(), vec!["floats".to_owned(), "sinks".to_owned()], vec![0]);
    assert_eq!(prompts(&task), [expect]);
    // TruthfulQA: from each option to 0 or 1.
    let truthful = r#"[{"question": "Is it?", "mc1_targets": {"No.": 1, "Yes.": 0},
        "mc2_targets": {"Never.": 1, "No.": 1, "Yes.": 0}}]"#;
    let folder_truthful = folder(&[("mc_task.json", truthful)]);
    let tasks = load("truthfulqa", folder_truthful.path(), &all()).unwrap();
    assert_eq!(names(&tasks), ["truthfulqa_mc1", "truthfulqa_mc2"]);
    assert_eq!(tasks[0].group.as_deref(), Some("truthfulqa"));
    assert_eq!((prompts(&tasks[0])[0].2.clone(), prompts(&tasks[1])[0].2.clone()), (vec![0], vec![0, 1]));
    assert_eq!(tasks[1].questions.metrics, [Metric::GoldProbability]);
    // SQuAD: articles of paragraphs of questions.
    let squad = json!({"version": "1.1", "data": [{"title": "Oder", "paragraphs": [
        {"context": "It is long.", "qas": [
            {"id": "q1", "question": "How is it?", "answers": [{"text": "long", "answer_start": 6}, {"text": "long"}]},
            {"id": "q2", "question": "Why?", "answers": []}]},
        {"context": "It is cold.", "qas": [{"id": "q3", "question": "How?", "answers": [{"text": "cold"}]}]}]}]});
    let folder_squad = folder(&[("dev-v1.1.json", &squad.to_string())]);
    let task = load("squad", folder_squad.path(), &all()).unwrap().remove(0);
    assert_eq!(ids(&task), [("q1", "q1"), ("q2", "q1"), ("q3", "q3")]);
    // As squadv2/task.py puts it together.
    let prompt = "Title: Oder\n\nBackground: It is long.\n\nQuestion: How is it?\n\nAnswer:";
    assert_eq!(prompts(&task)[0], (prompt.to_owned(), vec!["long".to_owned()], vec![0]));
    assert_eq!(prompts(&task)[1].1, ["unanswerable"]);
}

#[test]
fn mmlu_as_tables_without_a_header() {
    let folder = folder(&[
        ("data/test/anatomy_test.csv", "How many hearts, has it?,1,1,3,4,C\n\"a, \"\"b\"\"\",1,2,3,4,A\n"),
        ("data/dev/anatomy_dev.csv", "first,1,2,3,4,B\nsecond,1,2,3,4,D\nthird,1,2,3,4,A\n"),
        ("data/test/world_religions_test.csv", "q,None,,3,4,B\n"),
        ("data/dev/world_religions_dev.csv", "w1,1,2,3,4,B\nw2,1,2,3,4,D\n"),
        ("data/auxiliary_train/arc_easy.csv", "never,read\n"),
    ]);
    // Row 1 has seven cells: an unquoted comma.
    let error = load("mmlu", folder.path(), &all()).unwrap_err().to_string();
    assert!(
        error.contains("anatomy_test.csv: line 1: 7 columns, and no header row with question, A"),
        "{error}"
    );
    std::fs::write(folder.path().join("data/test/anatomy_test.csv"), "How many?,1,1,3,4,C\n").unwrap();
    let tasks = load("mmlu", folder.path(), &shots(2)).unwrap();
    assert_eq!(names(&tasks), ["mmlu_anatomy", "mmlu_world_religions"]);
    let questions = &tasks[0].questions;
    let about = "The following are multiple choice questions (with answers) about anatomy.\n\n";
    assert_eq!(questions.description, about);
    assert_eq!(questions.samples[0].question, "How many?\nA. 1\nB. 1\nC. 3\nD. 4\nAnswer:");
    let examples: Vec<(&str, &str)> = questions.samples[0]
        .shots
        .iter()
        .map(|s| (s.question.split('\n').next().unwrap(), &s.answer[..]))
        .collect();
    assert_eq!(examples, [("first", "B"), ("second", "D")]);
    assert_eq!(prompts(&tasks[1])[0].2, [1]);
    // A file alone finds its examples in the folder beside.
    let file = folder.path().join("data/test/world_religions_test.csv");
    let alone = load("mmlu", &file, &shots(2)).unwrap();
    assert_eq!(alone, &tasks[1..]);
    // One file of all subjects, with a header.
    let one =
        "question,subject,A,B,C,D,answer\nx,anatomy,1,2,3,4,D\ny,virology,1,2,3,4,0\nz,anatomy,1,2,3,4,B\n";
    let folder = self::folder(&[("test.csv", one)]);
    let tasks = load("mmlu", folder.path(), &all()).unwrap();
    assert_eq!(names(&tasks), ["mmlu_anatomy", "mmlu_virology"]);
    assert_eq!(prompts(&tasks[0]).iter().map(|p| p.2[0]).collect::<Vec<_>>(), [3, 1]);
    assert_eq!(names(&load("mmlu", folder.path(), &subset("virology")).unwrap()), ["mmlu_virology"]);
}

#[test]
fn one_task_per_language() {
    let [a, b] = [premise(3), premise(5)];
    let both = format!("{a}\n{b}\n");
    // As the authors, as the Hub, and as a heap of files among others.
    for files in [
        ["data/it/test.it.jsonl", "data/zh/test.zh.jsonl", "data/it/val.it.jsonl", "data-gmt/zh/other.txt"],
        [
            "it/test-00000-of-00001.jsonl",
            "zh/test-00000-of-00001.jsonl",
            "it/validation-00000-of-00001.jsonl",
            "translation-it/test-00000-of-00001.jsonl",
        ],
        ["xcopa_it.jsonl", "xcopa_zh.jsonl", "mgsm_th.jsonl", "hellaswag.jsonl"],
    ] {
        let folder = folder(&files.map(|name| (name, &both[..])));
        let tasks = load("xcopa", folder.path(), &all()).unwrap();
        assert_eq!(names(&tasks), ["xcopa_it", "xcopa_zh"], "{files:?}");
        assert_eq!(tasks.iter().map(|t| &t.language[..]).collect::<Vec<_>>(), ["it", "zh"]);
        // Parallel items have one id, so they are one cluster.
        assert_eq!(ids(&tasks[0]), [("3", "3"), ("5", "5")]);
        assert_eq!(ids(&tasks[0]), ids(&tasks[1]));
        assert_eq!(names(&load("xcopa", folder.path(), &subset("zh")).unwrap()), ["xcopa_zh"]);
        let error = load("xcopa", folder.path(), &subset("th")).unwrap_err();
        assert!(error.to_string().ends_with("holds nothing of th"), "{error}");
        assert_eq!(error.help(), Some("use one of it, zh"));
        // The folder of one language alone.
        if files[0].contains('/') {
            let it = folder.path().join(files[0]);
            assert_eq!(names(&load("xcopa", it.parent().unwrap(), &all()).unwrap()), ["xcopa_it"]);
            assert_eq!(names(&load("xcopa", &it, &all()).unwrap()), ["xcopa_it"]);
        }
    }
}

#[test]
fn a_language_that_no_name_tells() {
    let folder = folder(&[("data.jsonl", &premise(1))]);
    let error = load("xcopa", folder.path(), &all()).unwrap_err();
    assert!(error.to_string().ends_with("neither its name nor its records tell the language"), "{error}");
    assert_eq!(error.help(), Some("call the file xcopa_et.jsonl, or choose the subset"));
    assert_eq!(names(&load("xcopa", folder.path(), &subset("qu")).unwrap()), ["xcopa_qu"]);
    let named = premise(1).replace("\"idx\"", "\"language\":\"sw\",\"idx\"");
    std::fs::write(folder.path().join("data.jsonl"), named).unwrap();
    assert_eq!(names(&load("xcopa", folder.path(), &all()).unwrap()), ["xcopa_sw"]);
    // One record with all languages, as XNLI has them.
    let all_languages = json!({"premise": {"de": "Ein Hund bellt.", "en": "A dog barks."},
        "hypothesis": {"language": ["en", "de"], "translation": ["It is loud.", "Es ist laut."]}, "label": 1});
    let folder = self::folder(&[("all_languages/validation.jsonl", &all_languages.to_string())]);
    let tasks = load("xnli", folder.path(), &all()).unwrap();
    assert_eq!(names(&tasks), ["xnli_de", "xnli_en"]);
    assert_eq!(prompts(&tasks[0])[0].1[1], "Ein Hund bellt., richtig? Auch, Es ist laut.");
    assert_eq!(prompts(&tasks[1])[0].2, [1]);
}

#[test]
fn mgsm_as_published_without_a_header() {
    let folder = folder(&[("mgsm_de.tsv", "Anna sagt \"drei\". Wie viele?\t3\nUnd \"vier?\t5,600\n")]);
    let task = load("mgsm", folder.path(), &all()).unwrap().remove(0);
    let first = ("Frage: Anna sagt \"drei\". Wie viele?\nAntwort:".to_owned(), vec!["3".to_owned()], vec![0]);
    assert_eq!(prompts(&task)[0], first);
    assert_eq!(prompts(&task)[1].1, ["5,600"]);
    let questions = &task.questions;
    let QuestionKind::Generation(settings) = &questions.kind else { panic!() };
    assert_eq!(
        (&settings.until[..], settings.max_new_tokens),
        (&["Frage:", "</s>", "<|im_end|>"].map(String::from)[..], 256)
    );
    assert_eq!((&questions.target_delimiter[..], questions.filters.len()), ("", 2));
}

#[test]
fn belebele_clusters_by_passage() {
    let record = |link: &str, number: u32, dialect: &str| {
        json!({"link": link, "question_number": number, "flores_passage": "P", "question": "Q", "mc_answer1": "1",
            "mc_answer2": "2", "mc_answer3": "3", "mc_answer4": "4", "correct_answer_num": "4", "dialect": dialect})
        .to_string()
    };
    let lines = ["deu_Latn", "zho_Hant"]
        .map(|d| [record("a", 1, d), record("a", 2, d), record("b", 1, d)].join("\n"));
    let folder = folder(&[("all.jsonl", &lines.join("\n"))]);
    let tasks = load("belebele", folder.path(), &all()).unwrap();
    assert_eq!(names(&tasks), ["belebele_deu_Latn", "belebele_zho_Hant"]);
    assert_eq!(tasks.iter().map(|t| &t.language[..]).collect::<Vec<_>>(), ["de", "zh-Hant"]);
    assert_eq!(ids(&tasks[0]), [("a#1", "a"), ("a#2", "a"), ("b#1", "b")]);
    assert_eq!(ids(&tasks[0]), ids(&tasks[1]));
    assert_eq!(names(&load("belebele", folder.path(), &subset("de")).unwrap()), ["belebele_deu_Latn"]);
}

#[test]
fn examples_are_drawn_as_python_draws_them() {
    let train: String = (0..30).map(|i| piqa(&format!("train {i}"), 0)).collect();
    let test: String = (0..4).map(|i| piqa(&format!("test {i}"), 1)).collect();
    let folder = folder(&[("piqa/train.jsonl", &train), ("piqa/valid.jsonl", &test)]);
    let task = load("piqa", folder.path(), &shots(3)).unwrap().remove(0);
    let drawn: Vec<Vec<usize>> = task
        .questions
        .samples
        .iter()
        .map(|sample| {
            let index = |q: &str| {
                q.trim_start_matches("Question: train ").trim_end_matches("\nAnswer:").parse().unwrap()
            };
            sample.shots.iter().map(|shot| index(&shot.question)).collect()
        })
        .collect();
    // CPython: r = random.Random(1234); [r.sample(range(30), 3) for _ in range(4)]
    assert_eq!(drawn, [[24, 14, 3], [0, 2, 29], [25, 18, 1], [21, 22, 2]]);
    assert_eq!(task.questions.samples[0].shots[0].answer, "a");
    assert!(task.questions.left_out.is_empty());
    // The file alone finds them too, and does not read them unasked.
    let file = folder.path().join("piqa/valid.jsonl");
    assert_eq!(load("piqa", &file, &shots(3)).unwrap(), [task]);
    std::fs::write(folder.path().join("piqa/train.jsonl"), "broken").unwrap();
    assert_eq!(load("piqa", &file, &shots(0)).unwrap()[0].questions.samples[0].shots.len(), 0);
    assert!(load("piqa", &file, &shots(1)).is_err());
}

#[test]
fn without_a_training_split_the_first_records_are_the_examples() {
    let lines =
        [piqa("hidden", -1), piqa("one", 0), piqa("two", 1), piqa("three", 1), piqa("four", 0)].concat();
    let folder = folder(&[("piqa.jsonl", &lines)]);
    let settings = Settings { limit: Some(1), ..shots(2) };
    let questions = load("piqa", folder.path(), &settings).unwrap().remove(0).questions;
    assert_eq!(questions.samples.len(), 1);
    let sample = &questions.samples[0];
    assert_eq!((sample.doc_id, &sample.id[..], &sample.question[..]), (3, "3", "Question: three\nAnswer:"));
    let examples: Vec<(&str, &str)> =
        sample.shots.iter().map(|s| (&s.question[10..13], &s.answer[..])).collect();
    assert_eq!(examples, [("one", "a"), ("two", "b")]);
    let left_out = ["1 record whose answer (`label`) is hidden", "2 records that serve as worked examples"];
    assert_eq!(questions.left_out, left_out);
    for too_many in [4, 5, 100] {
        let error = load("piqa", folder.path(), &shots(too_many)).unwrap_err();
        assert!(error.to_string().contains("has 4 records for"), "{error}");
    }
}

#[test]
fn what_cannot_be_asked_is_refused() {
    let refused = |name: &str, file: &str, content: &str, settings: &Settings| {
        let folder = folder(&[(file, content)]);
        let error = load(name, folder.path(), settings).unwrap_err();
        (
            error.to_string().replace(&folder.path().display().to_string(), "F"),
            error.help().unwrap_or("").to_owned(),
        )
    };
    let (message, help) = refused("piqa", "test.jsonl", r#"{"goal": "g", "sol1": "a", "text": 1}"#, &all());
    // Hidden in the table: PIQA is asked on validation, but a lone other split has nothing to ask.
    assert!(message.starts_with("F: holds no data to ask, only F/test.jsonl"), "{message}");
    assert!(help.contains("validation, train"), "{help}");
    let (message, help) = refused("piqa", "a.jsonl", r#"{"goal": "g", "sol1": "a", "text": 1}"#, &all());
    assert_eq!(message, "F: record 0: no `sol2`, only `goal`, `sol1`, `text`");
    assert_eq!(help, "give the data of baber/piqa");
    let (message, _) = refused("piqa", "a.jsonl", &piqa("g", 2), &all());
    assert_eq!(message, "F: record 0: `label` is 2, where there are 2 choices");
    let (message, help) = refused("piqa", "a.jsonl", &[piqa("g", -1), piqa("", 0)].concat(), &all());
    let reasons = "1 record whose answer (`label`) is hidden, 1 record with an empty `goal`";
    assert_eq!(message, format!("F: no record can be asked: {reasons}"));
    assert_eq!(help, "give the split that is asked (validation, train)");
    let (message, help) = refused("pika", "a.jsonl", "", &all());
    assert_eq!((&message[..], &help[..]), ("there is no benchmark called `pika`", "did you mean `piqa`?"));
    let (message, _) = refused("truthfulqa", "a.jsonl", "", &shots(1));
    assert_eq!(message, "truthfulqa is asked without worked examples, not with 1");
    let (message, help) = refused("xcopa", "a.jsonl", "", &subset("it, xx"));
    assert_eq!(message, "xcopa has no part called `xx`");
    assert!(help.starts_with("did you mean") || help.starts_with("use et, ht"), "{help}");
    let (message, _) = refused("piqa", "a.jsonl", "", &Settings { limit: Some(0), ..all() });
    assert_eq!(message, "a limit of 0 leaves no sample");
    let (message, _) = refused("gsm8k", "readme.md", "", &all());
    assert_eq!(message, "F: the folder holds no data file");
    let (message, _) = refused("mmlu", "a.jsonl", r#"{"question": "q", "subject": "anatomie"}"#, &all());
    assert_eq!(message, "F: record 0: `subject` is `anatomie`, no known part");
    let two = folder(&[("first.jsonl", &piqa("g", 0)), ("second.jsonl", &piqa("g", 0))]);
    let error = load("piqa", two.path(), &all()).unwrap_err().to_string();
    assert!(error.ends_with("holds several data sets (first, second), so which is meant?"), "{error}");
    assert!(
        load("piqa", &two.path().join("none.jsonl"), &all())
            .unwrap_err()
            .to_string()
            .contains("no such file")
    );
}

#[test]
fn the_hubs_configuration_is_taken() {
    let question = |text: &str| json!({"question": text, "answer": "#### 1"}).to_string();
    let [main, socratic, train] = ["main", "socratic", "train"].map(question);
    let folder = folder(&[
        ("main/test-00000-of-00001.jsonl", &main),
        ("main/train-00000-of-00002.jsonl", &train),
        ("main/train-00001-of-00002.jsonl", &train),
        ("socratic/test-00000-of-00001.jsonl", &socratic),
        ("socratic/train-00000-of-00001.jsonl", &train),
    ]);
    let task = load("gsm8k", folder.path(), &shots(2)).unwrap().remove(0);
    assert_eq!(task.questions.samples[0].question, "Question: main\nAnswer:");
    assert_eq!(task.questions.samples[0].shots.len(), 2);
    let socratic = folder.path().join("socratic/test-00000-of-00001.jsonl");
    let task = load("gsm8k", &socratic, &shots(1)).unwrap().remove(0);
    assert_eq!(task.questions.samples[0].question, "Question: socratic\nAnswer:");
    assert_eq!(task.questions.samples[0].shots[0].answer, "#### 1");
}

#[test]
fn math_by_subject_and_level() {
    let record = json!({"problem": "Halve $1$.", "level": "Level 4", "type": "Counting & Probability",
        "solution": "It is $\\boxed{\\dfrac{1}{2}}$."});
    let folder = folder(&[("test.jsonl", &record.to_string())]);
    let task = load("math", folder.path(), &all()).unwrap().remove(0);
    assert_eq!(task.name, "math_counting_and_probability");
    let sample = &task.questions.samples[0];
    let level = sample.level.as_ref().unwrap();
    assert_eq!((&level.unit[..], level.value), ("level", 4));
    let Answer::Generation(targets) = &sample.answer else { panic!() };
    assert_eq!(targets[..2], [r"\dfrac{1}{2}", r"\frac{1}{2}"]);
    for file in ["hendrycks_math_algebra.jsonl", "algebra/test-00000-of-00001.jsonl", "number_theory.jsonl"] {
        let folder = self::folder(&[(file, &record.to_string())]);
        let name = load("math", folder.path(), &all()).unwrap().remove(0).name;
        assert!(file.contains(name.strip_prefix("math_").unwrap()), "{file}: {name}");
    }
}

#[test]
fn the_table_is_whole() {
    let mut names = BTreeSet::new();
    for benchmark in BENCHMARKS {
        assert!(names.insert(benchmark.name));
        let tags = benchmark.languages();
        assert_eq!(tags.iter().collect::<BTreeSet<_>>().len(), tags.len(), "{}", benchmark.name);
        let parts: Vec<&str> = benchmark.parts.list().iter().map(|part| part.name).collect();
        for part in if parts.is_empty() { vec![""] } else { parts } {
            for variant in benchmark.recipe.variants {
                let frame = (variant.frame)(part);
                let kind = match frame.kind {
                    QuestionKind::Choice => Output::Choice,
                    QuestionKind::Continuation => Output::Continuation,
                    QuestionKind::Rolling => Output::Rolling,
                    QuestionKind::Generation(settings) => {
                        assert!(settings.until.iter().all(|stop| !stop.is_empty()));
                        Output::Generation
                    }
                };
                assert_eq!(kind, benchmark.output, "{}", benchmark.name);
                assert!(!frame.metrics.is_empty());
                for step in frame.filters.iter().flat_map(|filter| &filter.steps) {
                    if let FilterStep::Regex { pattern, .. } = step {
                        Regex::new(pattern).unwrap();
                    }
                }
                for metric in &frame.metrics {
                    if let Metric::ExactMatch(same) = metric {
                        same.regexes_to_ignore.iter().for_each(|pattern| drop(Regex::new(pattern).unwrap()));
                    }
                }
            }
        }
        assert!(!benchmark.recipe.variants.is_empty() && !benchmark.license.is_empty());
    }
    let count = |name| find(name).unwrap().parts.list().len();
    let counts = ["mmlu", "cmmlu", "bbh", "math", "mgsm", "xcopa", "xnli", "xquad", "belebele"].map(count);
    assert_eq!(counts, [57, 67, 27, 7, 11, 11, 15, 12, 122]);
    // Every part is found under its own name, also behind the benchmark's.
    for benchmark in BENCHMARKS {
        for part in benchmark.parts.list() {
            assert_eq!(files::part_called(benchmark, part.name), Some(part));
        }
    }
}
