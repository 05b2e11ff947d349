//! The benchmarks on real slices: every file of the shared folder, prompt by prompt.
//!
//! The digests were recorded by rendering lm-evaluation-harness 0.4.13's own task files (Jinja) and running
//! its own functions in Python over the same records, brought into the Hub's columns; for HellaSwag and the
//! language modelling slice, whose prepared forms the harness does not have, over the fields themselves.
//!
//! Needs ../shared: real slices of the benchmarks, and what the harness recorded for them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use qeval::suite::benchmarks::{BenchmarkTask, Settings, load};
use qeval::suite::question::{Answer, Metric, QuestionKind, Sample};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::support;

/// File (without ending), benchmark, samples, digest of all prompts, and how the first one begins and ends.
const FILES: &[(&str, &str, usize, &str, &str, &str)] = &[
    ("arc_challenge", "arc_challenge", 120, "c2bf8d0773931cbf", "Question: Copper is", "copper?\nAnswer:"),
    ("arc_easy", "arc_easy", 120, "4aa5fae2409eb123", "Question: Using a softball", "machine?\nAnswer:"),
    ("boolq", "boolq", 120, "d40878a4a349c337", "The crank sensor", "a crankshaft sensor?\nAnswer:"),
    ("gsm8k", "gsm8k", 60, "a2b2dfda400bca03", "Question: Carla is", "download the file?\nAnswer:"),
    ("hellaswag", "hellaswag", 120, "4664f0513a07f7e9", "Having an ice cream: There", "camera man. and he"),
    ("lambada_openai", "lambada", 8, "184bb2e03366071f", "In my palm", "I don't care about"),
    ("lm", "wikitext", 12, "4c8f7fdb6695b9e9", "Robert <unk> is", ""),
    ("mgsm_bn", "mgsm", 40, "cdae66cd3a727a7f", "প্রশ্ন: জোশ", "\nAnswer:"),
    ("mgsm_de", "mgsm", 40, "153f1028f4638085", "Frage: Josh beschließt", "macht er?\nAntwort:"),
    ("mgsm_en", "mgsm", 40, "84fc41745e56eef2", "Question: Josh decides", "did he make?\nAnswer:"),
    ("mgsm_es", "mgsm", 40, "b20dea8227d7c459", "Pregunta: Josh decide", "ganancia?\nRespuesta:"),
    ("mgsm_fr", "mgsm", 40, "b0e6ba589873bd56", "Question : Josh se", "réalisé ?\nRéponse :"),
    ("mgsm_ja", "mgsm", 40, "c6e52d403c9e6153", "問題： ジョッシュ", "\nAnswer:"),
    ("mgsm_ru", "mgsm", 40, "05d9dae32c454af1", "Задача: Джош", "\nAnswer:"),
    ("mgsm_sw", "mgsm", 40, "c363c69bdf70f697", "Swali: Josha", "\nAnswer:"),
    ("mgsm_te", "mgsm", 40, "7aac00dc049a1587", "ప్రశ్న: జోష్", "\nAnswer:"),
    ("mgsm_th", "mgsm", 40, "1d732a1c4a6d2248", "โจทย์: จอช", "\nAnswer:"),
    ("mgsm_zh", "mgsm", 40, "abaae316c8e7dade", "问题： 乔希", "\nAnswer:"),
    ("openbook_qa", "openbookqa", 120, "a607f355e6990b4f", "The summer solstice", "months before"),
    ("piqa", "piqa", 120, "4b85420781049762", "Question: To combine", "ingredients.\nAnswer:"),
    ("winogrande", "winogrande", 120, "466b4f94ed016eb4", "", ""),
    ("xcopa_et", "xcopa", 60, "657fb146b53aa5ab", "Väikesed", "olid hirmul sest"),
    ("xcopa_ht", "xcopa", 60, "12cb118df85a7262", "Jèn", "yo pè poukisa"),
    ("xcopa_id", "xcopa", 60, "9dafcb9f1712703a", "Para", "merasa takut karena"),
    ("xcopa_it", "xcopa", 60, "6d2b5f4c60500786", "I giovani", "spaventati perché"),
    ("xcopa_qu", "xcopa", 60, "c2df1ae884cb2a1b", "Wayna", "mancharikurqanku imataq"),
    ("xcopa_sw", "xcopa", 60, "2fd837a9317d5300", "Mpiga", "alihisi woga kwa sababu"),
    ("xcopa_ta", "xcopa", 60, "ccbb14488048d6a6", "இளம்", " காரணமாக"),
    ("xcopa_th", "xcopa", 60, "50f20d7584cf862f", "นักเดินทาง", "รู้สึกกลั ดังนั้น"),
    ("xcopa_tr", "xcopa", 60, "86e43b42bf90d03f", "Genç", "hissettiler bu yüzden"),
    ("xcopa_vi", "xcopa", 60, "408df52527e348ea", "Các", "sợ hãi bởi vì"),
    ("xcopa_zh", "xcopa", 60, "754ab1fb16d960ce", "年轻的", "感到害怕 因为"),
];

fn one(benchmark: &str, path: &Path, settings: &Settings) -> BenchmarkTask {
    let mut tasks = load(benchmark, path, settings).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert_eq!(tasks.len(), 1, "{}", path.display());
    tasks.remove(0)
}

fn zero_shot() -> Settings {
    Settings { num_fewshot: Some(0), ..Settings::default() }
}

/// The first 16 hexadecimal digits of the SHA-256 of all questions with their answers.
fn digest(task: &BenchmarkTask) -> String {
    let mut hash = Sha256::new();
    for sample in &task.questions.samples {
        let question = &sample.question;
        let text = match &sample.answer {
            Answer::Choice { options, gold } => {
                let options: Vec<String> = options
                    .iter()
                    .map(|option| match &option.question {
                        Some(context) => format!("{context}\u{1c}{}", option.continuation),
                        None => option.continuation.clone(),
                    })
                    .collect();
                assert_eq!(gold.len(), 1);
                // WinoGrande has a context for each option and none besides.
                let question = if question.is_empty() { String::new() } else { format!("{question}\u{1e}") };
                format!("{question}{}\u{1e}{}", options.join("\u{1f}"), gold[0])
            }
            Answer::Continuation(word) => format!("{question}\u{1e}{word}"),
            Answer::Generation(targets) => format!("{question}\u{1e}{}", targets[0]),
            Answer::Text => question.clone(),
        };
        hash.update(text);
        hash.update("\u{1d}");
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn tasks_folder() -> Option<PathBuf> {
    support::shared("data/tasks")
}

#[test]
fn every_shared_file_becomes_the_prompts_of_the_harness() {
    let Some(folder) = tasks_folder() else { return };
    let found: BTreeSet<String> = support::entries(&folder)
        .iter()
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    let known: BTreeSet<String> = FILES.iter().map(|(file, ..)| format!("{file}.jsonl")).collect();
    assert_eq!(found, known, "a file without a row here");
    for (file, benchmark, count, expect, begins, ends) in FILES {
        let task = one(benchmark, &folder.join(format!("{file}.jsonl")), &zero_shot());
        let questions = &task.questions;
        assert_eq!(questions.samples.len(), *count, "{file}");
        assert!(questions.left_out.is_empty(), "{file}: {:?}", questions.left_out);
        let ids: BTreeSet<&str> = questions.samples.iter().map(|sample| &sample.id[..]).collect();
        assert_eq!(ids.len(), *count, "{file}");
        let first = &questions.samples[0].question;
        assert!(first.starts_with(begins) && first.ends_with(ends), "{file}: {first:?}");
        assert_eq!(digest(&task), *expect, "{file}");
    }
}

/// What lm-evaluation-harness really sent to the model, from its own log of samples.
#[test]
fn requests_are_those_in_the_harness_log() {
    for (file, benchmark) in [("arc_easy", "arc_easy"), ("hellaswag", "hellaswag")] {
        let Some(log) = support::shared(&format!("goldens/lm-eval/polyglot6m/samples_q_{file}.jsonl")) else {
            return;
        };
        let Some(data) = support::shared(&format!("data/tasks/{file}.jsonl")) else { return };
        let questions = one(benchmark, &data, &zero_shot()).questions;
        let log = std::fs::read_to_string(log).unwrap();
        let mut compared = 0;
        for line in log.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let sample = &questions.samples[usize::try_from(line["doc_id"].as_u64().unwrap()).unwrap()];
            assert_eq!(sample.doc_id as u64, line["doc_id"].as_u64().unwrap());
            let Answer::Choice { options, gold } = &sample.answer else { panic!("{file} is a choice") };
            let arguments = line["arguments"].as_object().unwrap();
            assert_eq!(arguments.len(), options.len());
            for (index, option) in options.iter().enumerate() {
                let sent = &arguments[&format!("gen_args_{index}")];
                assert_eq!(sent["arg_0"], sample.question.as_str());
                let continuation = format!("{}{}", questions.target_delimiter, option.continuation);
                assert_eq!(sent["arg_1"], continuation.as_str());
            }
            assert_eq!(line["target"], gold[0].to_string().as_str());
            compared += 1;
        }
        assert!(compared > 50, "{file}: {compared}");
    }
}

/// Five examples from the data itself: the harness's `first_n` sampler, which leaves out the sample that is
/// asked, agrees from the sixth sample on; the first five are no samples here.
#[test]
fn worked_examples_are_those_in_the_harness_log() {
    let Some(log) = support::shared("goldens/lm-eval/polyglot6m/samples_q_arc_easy_5shot.jsonl") else {
        return;
    };
    let Some(data) = support::shared("data/tasks/arc_easy.jsonl") else { return };
    let settings = Settings { num_fewshot: Some(5), ..Settings::default() };
    let questions = one("arc_easy", &data, &settings).questions;
    assert_eq!((questions.samples.len(), questions.samples[0].doc_id), (115, 5));
    assert_eq!(questions.left_out, ["5 records that serve as worked examples"]);
    let log = std::fs::read_to_string(log).unwrap();
    let mut compared = 0;
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let doc_id = line["doc_id"].as_u64().unwrap();
        let Some(sample) = questions.samples.iter().find(|s| s.doc_id as u64 == doc_id) else { continue };
        assert_eq!(line["arguments"]["gen_args_0"]["arg_0"], with_shots(sample).as_str());
        compared += 1;
    }
    assert!(compared > 50, "{compared}");
}

fn with_shots(sample: &Sample) -> String {
    let shots: String = sample.shots.iter().map(|s| format!("{} {}\n\n", s.question, s.answer)).collect();
    shots + &sample.question
}

/// A folder with many benchmarks: each takes its own files.
#[test]
fn the_whole_folder_gives_each_benchmark_its_own_files() {
    let Some(folder) = tasks_folder() else { return };
    for (benchmark, languages) in [("mgsm", 11), ("xcopa", 11)] {
        let tasks = load(benchmark, &folder, &zero_shot()).unwrap();
        assert_eq!(tasks.len(), languages);
        // Item i is the same question in every language: one cluster, and for MGSM one answer.
        let clusters = |task: &BenchmarkTask| -> Vec<String> {
            task.questions.samples.iter().map(|sample| sample.cluster.clone()).collect()
        };
        for task in &tasks {
            assert_eq!(task.name, format!("{benchmark}_{}", task.language));
            assert_eq!(task.group.as_deref(), Some(benchmark));
            assert_eq!(clusters(task), clusters(&tasks[0]));
            if benchmark == "mgsm" {
                let answers = |task: &BenchmarkTask| -> Vec<Answer> {
                    task.questions.samples.iter().map(|sample| sample.answer.clone()).collect()
                };
                assert_eq!(answers(task), answers(&tasks[0]));
            }
        }
    }
    for benchmark in
        ["hellaswag", "arc_easy", "arc_challenge", "boolq", "piqa", "winogrande", "openbookqa", "lambada"]
    {
        let task = one(benchmark, &folder, &zero_shot());
        assert_eq!((&task.name[..], &task.language[..], &task.group), (benchmark, "en", &None));
    }
    let gsm8k = one("gsm8k", &folder, &Settings::default());
    assert_eq!(gsm8k.questions.samples.len(), 55);
    assert_eq!(gsm8k.questions.samples[0].shots.len(), 5);
    let limited = Settings { limit: Some(7), subset: Some("de,th".to_owned()), ..zero_shot() };
    let sizes: Vec<(String, usize)> = load("mgsm", &folder, &limited)
        .unwrap()
        .into_iter()
        .map(|task| (task.name, task.questions.samples.len()))
        .collect();
    assert_eq!(sizes, [("mgsm_de".to_owned(), 7), ("mgsm_th".to_owned(), 7)]);
}

#[test]
fn every_kind_has_its_metrics() {
    let Some(folder) = tasks_folder() else { return };
    for (file, benchmark, ..) in FILES {
        let questions = one(benchmark, &folder.join(format!("{file}.jsonl")), &zero_shot()).questions;
        let names: Vec<&str> = questions.metrics.iter().map(Metric::name).collect();
        let expect: &[&str] = match *benchmark {
            "boolq" | "winogrande" | "xcopa" => &["acc"],
            "lambada" => &["acc", "perplexity"],
            "wikitext" => &["word_perplexity", "byte_perplexity", "bits_per_byte"],
            "gsm8k" | "mgsm" => &["exact_match"],
            _ => &["acc", "acc_norm"],
        };
        assert_eq!(names, expect, "{file}");
        assert_eq!(
            questions.filters.is_empty(),
            !matches!(questions.kind, QuestionKind::Generation(_)),
            "{file}"
        );
    }
}
