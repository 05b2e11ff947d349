//! Every task file of the shared folder, against lm-evaluation-harness's own samples: likelihoods, decisions,
//! generations, perplexities.
//!
//! Needs ../shared: task files, models and samples.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use candle_core::Device;
use qeval::{
    checkpoint::Checkpoint,
    evaluate::{
        generate::{GenerateSettings, Prompt, generate},
        trace,
    },
    model::Decoder,
    progress::Silent,
    tokenizer::Tokenizer,
};
use serde_json::{Value, json};

use crate::support::{entries, qeval, shared};

/// Largest difference of a log-likelihood.
const LIKELIHOOD: f64 = 2e-3;
/// Two best golden log-likelihoods that are closer may be chosen either way.
const TIE: f64 = 4e-3;
/// The golden's two likeliest tokens may be exchanged where their logits are closer.
const LOGIT_TIE: f32 = 1e-3;

/// The model as the harness read it: whatever tokenizer.json says, transformers 5 takes the pre-tokenizer of Qwen2 or
/// Llama for models of these types.
fn as_transformers_reads_it(model: &Path, folder: &Path) -> PathBuf {
    for name in ["config.json", "tokenizer_config.json", "model.safetensors"] {
        std::fs::copy(model.join(name), folder.join(name)).unwrap();
    }
    let text = std::fs::read_to_string(model.join("tokenizer.json")).unwrap();
    let config: Value =
        serde_json::from_str(&std::fs::read_to_string(model.join("config.json")).unwrap()).unwrap();
    let mut tokenizer: Value = serde_json::from_str(&text).unwrap();
    if config["model_type"] == "qwen2" {
        const SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
        tokenizer["normalizer"] = json!({"type": "NFC"});
        tokenizer["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
        ]});
    }
    if config["model_type"] == "llama" {
        tokenizer["normalizer"] = Value::Null;
        tokenizer["pre_tokenizer"] =
            json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": false});
    }
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    folder.join("model.safetensors")
}

fn rows(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn number(value: &Value) -> f64 {
    value.as_str().map_or_else(|| value.as_f64().unwrap(), |text| text.parse().unwrap())
}

/// What did not agree for a reason that is allowed, to be looked at.
#[derive(Default)]
struct Listed {
    ties: Vec<String>,
    generations: Vec<String>,
}

#[test]
fn every_task_file_agrees_with_the_harness() {
    let Some(tasks) = shared("goldens/lm-eval/tasks") else { return };
    let files: Vec<PathBuf> = entries(&tasks);
    assert!(files.len() >= 13 && files.iter().all(|file| file.extension().is_some_and(|e| e == "yaml")));
    let mut listed = Listed::default();
    let (mut compared, mut texts) = (0, 0);
    for golden in entries(&shared("goldens/lm-eval").unwrap()) {
        let name = golden.file_name().unwrap().to_string_lossy().into_owned();
        if name == "tasks" {
            continue;
        }
        let folder = tempfile::tempdir().unwrap();
        let model = as_transformers_reads_it(&shared(&format!("models/{name}")).unwrap(), folder.path());
        let out = folder.path().join("lm-eval");
        let mut args: Vec<String> = vec!["eval".into(), model.display().to_string(), "--quiet".into()];
        for file in &files {
            args.extend(["--suite".into(), file.display().to_string()]);
        }
        args.extend(["--lm-eval".into(), out.display().to_string()]);
        args.extend(["--out".into(), folder.path().join("report").display().to_string()]);
        let output = qeval(&args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // One folder per model, here one.
        let [ours] = entries(&out).try_into().unwrap();
        let mut samples = 0;
        for golden in entries(&golden) {
            let file = golden.file_name().unwrap().to_string_lossy().into_owned();
            let Some(task) = file.strip_prefix("samples_").and_then(|f| f.strip_suffix(".jsonl")) else {
                assert_eq!(file, "results.json");
                continue;
            };
            assert!(files.iter().any(|f| f.file_stem().unwrap() == task), "{task} has no task file");
            let place = format!("{name}, {task}");
            let (golden, ours) = (rows(&golden), rows(&ours.join(&file)));
            assert_eq!(golden.len(), ours.len(), "{place}");
            for (golden, ours) in golden.iter().zip(&ours) {
                for key in ["doc_id", "doc_hash", "target_hash", "filter", "doc"] {
                    assert_eq!(golden[key], ours[key], "{place}: {key}");
                }
                match golden["resps"][0][0].is_array() {
                    true => {
                        assert_eq!(golden["arguments"], ours["arguments"], "{place}");
                        likelihoods(&place, golden, ours, &mut listed);
                        compared += 1;
                    }
                    false if golden["arguments"]["gen_args_0"].get("arg_1").is_none() => {
                        let (a, b) = (number(&golden["resps"][0][0]), number(&ours["resps"][0][0]));
                        assert!((a - b).abs() < 1e-4 * a.abs(), "{place}: {a} {b}");
                        compared += 1;
                    }
                    false => {
                        assert_eq!(
                            golden["arguments"]["gen_args_0"]["arg_0"],
                            ours["arguments"]["gen_args_0"]["arg_0"]
                        );
                        generation(&place, &model, golden, ours, &mut listed);
                        texts += 1;
                    }
                }
            }
            samples += 1;
        }
        assert!(samples >= 8, "{name}");
        results(&name, &golden.join("results.json"), &ours.join("results.json"), &listed);
    }
    assert!(compared >= 1344 && texts >= 200, "{compared} {texts}");
    // Seen in the test's output with --nocapture.
    eprintln!("decided either way at a tie: {:?}", listed.ties);
    eprintln!("written otherwise after a tie: {:?}", listed.generations);
    assert!(listed.ties.len() + listed.generations.len() < 20);
}

fn likelihoods(place: &str, golden: &Value, ours: &Value, listed: &mut Listed) {
    let values = |row: &Value| -> Vec<(f64, String)> {
        let pairs = row["resps"].as_array().unwrap().iter().map(|r| &r[0]);
        pairs.map(|pair| (number(&pair[0]), pair[1].as_str().unwrap().to_owned())).collect()
    };
    let (left, right) = (values(golden), values(ours));
    assert_eq!(left.len(), right.len(), "{place}");
    for ((a, greedy), (b, our_greedy)) in left.iter().zip(&right) {
        assert!((a - b).abs() < LIKELIHOOD, "{place} {}: {a} {b}", golden["doc_id"]);
        assert_eq!(greedy, our_greedy, "{place}");
    }
    for metric in golden["metrics"].as_array().unwrap().iter().filter_map(Value::as_str) {
        if golden[metric] == ours[metric] {
            continue;
        }
        let lengths: Vec<f64> = (0..left.len())
            .map(|index| {
                let text = golden["arguments"][format!("gen_args_{index}")]["arg_1"].as_str().unwrap();
                if metric == "acc_norm" { text.chars().count() as f64 - 1.0 } else { 1.0 }
            })
            .collect();
        let mut best: Vec<f64> = left.iter().zip(&lengths).map(|((ll, _), length)| ll / length).collect();
        best.sort_by(|a, b| b.total_cmp(a));
        let gap = (best[0] - best[1]) * lengths.iter().fold(f64::INFINITY, |a, b| a.min(*b));
        assert!(gap < TIE, "{place} {}: {metric} {} {}", golden["doc_id"], golden[metric], ours[metric]);
        listed.ties.push(format!("{place} {} {metric}", golden["doc_id"]));
    }
}

fn generation(place: &str, model: &Path, golden: &Value, ours: &Value, listed: &mut Listed) {
    let text = |row: &Value| row["resps"][0][0].as_str().unwrap().to_owned();
    let (expected, written) = (text(golden), text(ours));
    if expected == written {
        assert_eq!(golden["filtered_resps"], ours["filtered_resps"], "{place}");
        assert_eq!(golden["exact_match"], ours["exact_match"], "{place}");
        return;
    }
    // Where our tokens first write something else than the golden text, the two likeliest must be a tie.
    let checkpoint = Checkpoint::open(model).unwrap();
    let config = checkpoint.config().unwrap().unwrap();
    let max_length = config.max_position_embeddings;
    let tokenizer = Tokenizer::of(&checkpoint).unwrap().unwrap();
    let decoder = Decoder::open(&checkpoint, config, &Device::Cpu).unwrap();
    let settings = &golden["arguments"]["gen_args_0"]["arg_1"];
    let max_new_tokens = settings["max_gen_toks"].as_u64().unwrap() as usize;
    let context = golden["arguments"]["gen_args_0"]["arg_0"].as_str().unwrap();
    let mut tokens: Vec<u32> = tokenizer.bos().into_iter().collect();
    tokens.extend(tokenizer.encode(context).unwrap().ids);
    tokens.drain(..tokens.len().saturating_sub(max_length - max_new_tokens));
    let prompt = Prompt { tokens: tokens.clone(), max_new_tokens, sampling: None, repeat: 0, number: 0 };
    let settings = GenerateSettings {
        batch: 1,
        memory: 1 << 30,
        end_of_sequence: vec![tokenizer.eos_token_id.unwrap()],
        seed: 0,
    };
    let ours = generate(&decoder, &[prompt], &settings, &|_, _| false, &Silent).unwrap().remove(0).tokens;
    let step = (0..ours.len())
        .find(|step| !expected.starts_with(&tokenizer.decode_answer(&ours[..=*step])))
        .unwrap_or(ours.len() - 1);
    let all = [tokens.clone(), ours[..step].to_vec()].concat();
    let logits = trace::trace(&decoder, &all).unwrap().logits.to_vec2::<f32>().unwrap();
    let mut last = logits[all.len() - 1].clone();
    last.sort_by(|a, b| b.total_cmp(a));
    assert!(
        last[0] - last[1] < LOGIT_TIE,
        "{place} {}: token {step}, gap {}\n{expected:?}\n{written:?}",
        golden["doc_id"],
        last[0] - last[1]
    );
    listed.generations.push(format!(
        "{place} {} token {step}, gap {:.1e}",
        golden["doc_id"],
        last[0] - last[1]
    ));
}

/// Every figure of results.json, unless a listed sample was decided otherwise.
fn results(model: &str, golden: &Path, ours: &Path, listed: &Listed) {
    let read =
        |path: &Path| -> Value { serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap() };
    let (golden, ours) = (read(golden), read(ours));
    let figures: BTreeMap<&String, &Value> = golden["results"].as_object().unwrap().iter().collect();
    for (task, figures) in figures {
        let place = format!("{model}, {task} ");
        if listed.ties.iter().chain(&listed.generations).any(|line| line.starts_with(&place)) {
            continue;
        }
        for (key, value) in figures.as_object().unwrap() {
            if let Some(value) = value.as_f64() {
                let own = ours["results"][task][key].as_f64().unwrap_or(f64::NAN);
                assert!((value - own).abs() <= 1e-4 * value.abs(), "{place}{key}: {value} {own}");
            }
        }
    }
}
