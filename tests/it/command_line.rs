//! The program as a person meets it: output folder, summary, inspect, report, schema, help.
//!
//! Needs ../shared: what `inspect` says of every recorded architecture, and configs of well-known models.

use std::{
    path::{Path, PathBuf},
    process::Output,
    sync::OnceLock,
};

use candle_core::{Tensor, quantized::gguf_file};
use qeval::checkpoint::config::Mixer;
use serde_json::Value;

use crate::support::{
    compare, demo_copy, demo_cousin, demo_model, demo_of_layers, demo_stories, demo_text, demo_weights,
    edit_json, edit_tensors, entries, kept, qeval, shared,
};

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// One comparison with three cousins, on disk.
struct Run {
    out: PathBuf,
    output: Output,
    /// Of `comparison.json`, as it was written.
    comparison: Value,
}

fn run() -> &'static Run {
    static RUN: OnceLock<Run> = OnceLock::new();
    RUN.get_or_init(|| {
        let out = kept("command_line").join("run");
        let output = qeval([
            "compare".as_ref(),
            demo_weights().as_os_str(),
            demo_cousin("q8_0").as_os_str(),
            demo_cousin("q4_k_m").as_os_str(),
            demo_cousin("q2_k").as_os_str(),
            "--max-windows".as_ref(),
            "2".as_ref(),
            "--window".as_ref(),
            "256".as_ref(),
            "--out".as_ref(),
            out.as_os_str(),
        ]);
        stdout(&output);
        let comparison = std::fs::read_to_string(out.join("comparison.json")).unwrap();
        Run { out, output, comparison: serde_json::from_str(&comparison).unwrap() }
    })
}

/// Arguments of a small run on held-out stories.
fn a_few_stories() -> [String; 5] {
    ["--text", &demo_stories("en"), "--max-windows", "6", "--no-noise-floor"].map(str::to_owned)
}

/// A comparison of the demo model with one cousin on a few stories.
fn compare_few(base: &Path, quant: &Path) -> qeval::comparison::Comparison {
    let args = a_few_stories();
    compare(base, &[quant.to_owned()], &args.each_ref().map(String::as_str))
}

#[test]
fn compare_writes_a_complete_folder_and_a_readable_summary() {
    let Run { out, output, comparison } = run();
    let summary = stdout(output);
    assert!(summary.lines().all(|line| line.chars().count() <= 80), "{summary}");
    for word in ["Q8_0", "Q4_K_M", "Q2_K", "strided", "noise floor"] {
        assert!(summary.contains(word), "{word} in:\n{summary}");
    }
    let names = |folder: &str| -> Vec<String> {
        entries(&out.join(folder))
            .iter()
            .map(|p| p.file_name().unwrap().to_string_lossy().into_owned())
            .collect()
    };
    assert_eq!(
        names(""),
        ["charts", "comparison.json", "model-index.yaml", "report.html", "report.md", "tables"],
        "no scratch file is left"
    );
    for chart in ["kl_distribution", "layer_profile", "task_degradation", "size_quality"] {
        assert!(
            names("charts").contains(&format!("{chart}.svg"))
                && names("charts").contains(&format!("{chart}.png"))
        );
    }
    for table in ["tokens", "layers", "tasks", "models"] {
        assert!(names("tables").contains(&format!("{table}.csv")));
        assert!(names("tables").contains(&format!("{table}.parquet")));
    }
    let html = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(!html.contains("http://") && !html.contains("https://"), "nothing is loaded from anywhere");
    // One row per scored token and cousin (the noise floor among them).
    let scored: u64 =
        comparison["tasks"].as_array().unwrap().iter().map(|t| t["scored_tokens"].as_u64().unwrap()).sum();
    let rows = std::fs::read_to_string(out.join("tables/tokens.csv")).unwrap().lines().count() as u64;
    assert_eq!(rows, 4 * scored + 1);

    // Redrawing needs no model and gives the same pages.
    std::fs::remove_file(out.join("report.html")).unwrap();
    assert!(qeval(["report".as_ref(), out.as_os_str()]).status.success());
    assert_eq!(std::fs::read_to_string(out.join("report.html")).unwrap(), html);
    // A second run replaces the first.
    let again = qeval(["report".as_ref(), out.join("nowhere").as_os_str()]);
    assert_eq!(again.status.code(), Some(2));
}

#[test]
fn the_json_obeys_its_own_schema() {
    let comparison = &run().comparison;
    let schema: Value = serde_json::from_str(&stdout(&qeval(["schema"]))).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> = validator.iter_errors(comparison).map(|e| e.to_string()).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    let mut wrong = comparison.clone();
    wrong["quants"][0]["overall"]["scored_tokens"] = "many".into();
    assert!(!validator.is_valid(&wrong), "the schema means something");
}

/// Names, numbers of values and bytes of a GGUF file's tensors, as candle reads its header.
fn tensors_of(path: &Path) -> Vec<(String, usize, usize)> {
    let content = gguf_file::Content::read(&mut std::fs::File::open(path).unwrap()).unwrap();
    let sizes = content.tensor_infos.iter().map(|(name, info)| {
        let values = info.shape.elem_count();
        let blocks = values / info.ggml_dtype.block_size();
        (name.clone(), values, blocks * info.ggml_dtype.type_size())
    });
    sizes.collect()
}

#[test]
fn inspect_describes_a_file_that_can_run() {
    let path = demo_cousin("q2_k");
    let text = stdout(&qeval(["inspect".as_ref(), path.as_os_str()]));
    let tensors = tensors_of(&path);
    let values: usize = tensors.iter().map(|(_, values, _)| values).sum();
    let bytes: usize = tensors.iter().map(|(_, _, bytes)| bytes).sum();
    let bits = format!("{:.3}", bytes as f64 * 8.0 / values as f64);
    let [parameters, ids] = [values, vocabulary()].map(with_commas);
    let ids = format!("{ids} ids");
    for word in ["Qwen2ForCausalLM", "Q2_K", "can be measured          yes", &bits, &parameters, &ids] {
        assert!(text.contains(word), "{word} in:\n{text}");
    }
}

/// Rows of the demo model's embedding.
fn vocabulary() -> usize {
    let config = std::fs::read_to_string(demo_model().join("config.json")).unwrap();
    serde_json::from_str::<Value>(&config).unwrap()["vocab_size"].as_u64().unwrap() as usize
}

/// A number as people write it: 5,773,568.
fn with_commas(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<String> = digits
        .bytes()
        .rev()
        .collect::<Vec<_>>()
        .chunks(3)
        .map(|g| g.iter().map(|b| *b as char).collect())
        .collect();
    groups.join(",").chars().rev().collect()
}

#[test]
fn inspect_describes_files_that_can_and_cannot_run() {
    let Some(goldens) = shared("goldens/arch") else { return };
    for golden in entries(&goldens).iter().filter(|p| p.is_dir()) {
        let json = stdout(&qeval(["inspect".as_ref(), golden.as_os_str(), "--json".as_ref()]));
        let inspection: Value = serde_json::from_str(&json).unwrap();
        assert!(inspection["parameters"].as_u64().unwrap() > 0, "{json}");
    }
}

#[test]
fn inspect_counts_bits_as_the_file_has_them() {
    let path = demo_cousin("q4_k_m");
    let json = stdout(&qeval(["inspect".as_ref(), path.as_os_str(), "--json".as_ref()]));
    let inspection: Value = serde_json::from_str(&json).unwrap();
    let tensors = tensors_of(&path);
    let values = tensors.iter().map(|(_, values, _)| values).sum::<usize>() as f64;
    let bytes = tensors.iter().map(|(_, _, bytes)| bytes).sum::<usize>() as f64;
    assert_eq!(inspection["weight_bytes"].as_f64(), Some(bytes));
    let bits = inspection["bits_per_weight"].as_f64().unwrap();
    assert!((bits - bytes * 8.0 / values).abs() < 1e-12);
    // What a conversion would weigh, before anyone converts: linears in blocks of 256, the rest in bf16.
    let linears = tensors.iter().filter(|(name, ..)| name.starts_with("blk.") && !name.contains("norm"));
    let linears = linears.filter(|(name, ..)| name.ends_with(".weight")).map(|(_, values, _)| values);
    let linears = linears.sum::<usize>() as f64;
    let simulated = format!("{}@q4_k@kv=q8_0", demo_weights().display());
    let inspection: Value = serde_json::from_str(&stdout(&qeval(["inspect", &simulated, "--json"]))).unwrap();
    let bytes = linears / 256.0 * 144.0 + (values - linears) * 2.0;
    assert_eq!(inspection["weight_bytes"].as_f64(), Some(bytes));
    let facts = inspection["config"].to_string();
    assert!(facts.contains("q8_0, 8.5"), "{facts}");
}

#[test]
fn known_configs_in_the_older_spelling_are_understood() {
    let Some(configs) = shared("data/configs") else { return };
    for path in entries(&configs) {
        let json: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let config = qeval::checkpoint::config::from_hugging_face(&path, &json).unwrap();
        let attention = config.attention().unwrap();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        match name.as_str() {
            "llama-3.2-1b" => {
                assert!((config.ropes[0].theta - 500_000.0).abs() < 1e-9 && config.tie_word_embeddings);
                assert!(matches!(config.ropes[0].scaling,
                    qeval::checkpoint::config::RopeScaling::Llama3 { factor, .. } if factor == 32.0));
            }
            "deepseek-r1-distill-qwen-7b" | "deepseek-r1-distill-qwen-7b-w8a8" | "qwen2.5-0.5b-instruct" => {
                assert!(attention.bias && !attention.output_bias && attention.window.is_none());
            }
            "gemma-2-2b" => {
                let windows = config.layers.iter().filter(|layer| match &layer.mixer {
                    Mixer::Attention(attention) => attention.window == Some(4096),
                    _ => false,
                });
                assert_eq!((windows.count(), config.layers.len()), (13, 26));
                assert_eq!((attention.softcap, config.logits_softcap), (Some(50.0), Some(30.0)));
            }
            "mistral-7b-v0.1" => assert_eq!(attention.window, Some(4096)),
            "phi-3-mini-4k-instruct" => assert_eq!(attention.window, Some(2047)),
            "qwen3-0.6b" => assert_eq!((attention.head_dim, attention.num_attention_heads), (128, 16)),
            other => panic!("{other} is not listed in this test"),
        }
    }
}

#[test]
fn settings_without_packed_weights_are_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    demo_copy(folder.path());
    edit_json(&folder.path().join("config.json"), |config| {
        config["quantization_config"] =
            serde_json::json!({"quant_method": "gptq", "bits": 4, "group_size": 128});
    });
    let found = compare_few(&demo_weights(), folder.path());
    assert!(found.warnings.iter().any(|w| w.contains("gptq") && w.contains("dense")), "{:?}", found.warnings);
    assert_eq!(found.quants[0].overall.kl_divergence.max, 0.0);
}

#[test]
fn a_lone_file_borrows_what_is_missing_from_its_cousin() {
    let folder = tempfile::tempdir().unwrap();
    let lone = folder.path().join("lone.safetensors");
    std::fs::copy(demo_weights(), &lone).unwrap();
    let comparison = compare_few(&lone, &demo_cousin("bf16"));
    assert!(comparison.quants[0].overall.kl_divergence.max < 1e-6);
    assert!(comparison.warnings.iter().any(|w| w.contains("config.json")), "{:?}", comparison.warnings);
    assert!(comparison.warnings.iter().any(|w| w.contains("tokenizer")), "{:?}", comparison.warnings);
}

#[test]
fn a_padded_vocabulary_is_compared_over_the_common_ids() {
    // Eight more rows of embedding (and so of the tied head), as padding to a round number does.
    let folder = tempfile::tempdir().unwrap();
    demo_copy(folder.path());
    let ids = vocabulary();
    edit_json(&folder.path().join("config.json"), |config| config["vocab_size"] = (ids + 8).into());
    edit_tensors(folder.path(), |tensors| {
        let embedding = &tensors["model.embed_tokens.weight"];
        let padding = embedding.zeros_like().unwrap().narrow(0, 0, 8).unwrap();
        let padded = Tensor::cat(&[embedding, &padding], 0).unwrap();
        tensors.insert("model.embed_tokens.weight".to_owned(), padded);
    });
    let comparison = compare_few(&demo_weights(), folder.path());
    let quant = &comparison.quants[0];
    assert_eq!(comparison.vocabulary_size, ids);
    assert_eq!(quant.overall.kl_divergence.max, 0.0, "equal over the common ids");
    // A logit of 0 each: some probability, and less than the vocabulary's share of an even distribution.
    let excluded = quant.model.excluded_mass;
    assert!(excluded > 0.0 && excluded < 0.1, "{excluded}");
    assert_eq!(comparison.base.excluded_mass, 0.0);
    let said = format!("{} embeddings", ids + 8);
    assert!(comparison.warnings.iter().any(|w| w.contains(&said)), "{:?}", comparison.warnings);
}

#[test]
fn a_shallower_cousin_is_compared_by_cka() {
    // The same model without its last two layers.
    let folder = tempfile::tempdir().unwrap();
    demo_of_layers(folder.path(), 3);
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::remove_file(folder.path().join(file)).unwrap();
    }
    let comparison = compare_few(&demo_weights(), folder.path());
    let quant = &comparison.quants[0];
    assert!(quant.overall.kl_divergence.mean.value > 0.01, "two layers are missing");
    assert!(
        comparison.warnings.iter().any(|w| w.contains("tokenizer")),
        "base's tokenizer was taken, and said so"
    );
    let layers: Vec<(usize, usize)> = quant.layers.iter().map(|l| (l.layer, l.base_layer)).collect();
    assert_eq!(layers, [(0, 0), (0, 1), (1, 2), (2, 4)], "the embedding, then the nearest relative depths");
    for layer in &quant.layers {
        assert!(layer.cumulative.is_none() && layer.injected.is_none());
        assert!((0.0..=1.0 + 1e-9).contains(&layer.cka.unwrap()), "{:?}", layer.cka);
    }
    assert!(quant.layers[0].cka.unwrap() > 1.0 - 1e-6, "the embeddings are the same");
}

#[test]
fn help_and_completions_are_there() {
    let help = stdout(&qeval(["compare", "--help"]));
    for word in ["Examples:", "--protocol", "--memory", "--probe"] {
        assert!(help.contains(word), "{word}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(stdout(&qeval(["completions", shell])).contains("qeval"));
    }
    assert_eq!(qeval(["compare"]).status.code(), Some(2), "a missing argument is exit code 2");
}

#[test]
fn bits_per_byte_count_every_byte_of_the_text() {
    let text = demo_text();
    let args = ["--text", text.to_str().unwrap(), "--window", "256", "--no-noise-floor", "--probe", "none"];
    let comparison = compare(&demo_weights(), &[demo_cousin("q4_0")], &args);
    // With BOS before it even the first token is scored, so the scored tokens cover the whole text once.
    let bytes = std::fs::metadata(&text).unwrap().len() as usize;
    let task = &comparison.tasks[0];
    assert_eq!((task.scored_bytes, task.unscored_tokens, task.dropped_tokens), (bytes, 0, 0));
    let all = &comparison.quants[0].overall;
    let expected = |nll: f64| nll * task.scored_tokens as f64 / (std::f64::consts::LN_2 * bytes as f64);
    for (bits, nll) in [
        (all.base_bits_per_byte.unwrap().value, all.base_nll.value),
        (all.quant_bits_per_byte.unwrap().value, all.quant_nll.value),
    ] {
        assert!((bits - expected(nll)).abs() < 1e-9, "{bits} against {}", expected(nll));
    }
    // The paired figures are those of the two sides.
    assert!((all.delta_nll.value - (all.quant_nll.value - all.base_nll.value)).abs() < 1e-12);
    assert!((all.ppl_ratio.value - all.quant_perplexity.value / all.base_perplexity.value).abs() < 1e-9);
    let buckets = &comparison.quants[0].by_base_confidence;
    assert_eq!(buckets.iter().map(|bucket| bucket.scored_tokens).sum::<usize>(), task.scored_tokens);
    let positions = &comparison.quants[0].by_context_position;
    assert_eq!(positions.iter().map(|bucket| bucket.scored_tokens).sum::<usize>(), task.scored_tokens);
}

/// The sample that README shows is what this version of the program makes of its comparison, and its gate's verdict too.
#[test]
fn the_sample_report_is_what_the_program_writes() {
    let sample = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("reports/sample");
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("sample");
    std::fs::create_dir(&copy).unwrap();
    std::fs::copy(sample.join("comparison.json"), copy.join("comparison.json")).unwrap();
    stdout(&qeval(["report".as_ref(), copy.as_os_str()]));
    let gate = qeval(["gate".as_ref(), copy.as_os_str(), "--policy".as_ref(), "release".as_ref()]);
    assert_eq!(gate.status.code(), Some(1), "{}", String::from_utf8_lossy(&gate.stderr));
    for name in
        ["report.html", "report.md", "model-index.yaml", "gate.json", "gate.junit.xml", "tables/models.csv"]
    {
        let (written, stored) =
            (std::fs::read(copy.join(name)).unwrap(), std::fs::read(sample.join(name)).unwrap());
        assert!(
            written == stored,
            "reports/sample/{name} is stale: run `qeval report reports/sample` and `qeval gate reports/sample`"
        );
    }
    let charts = |folder: &Path| -> Vec<String> {
        let names = entries(&folder.join("charts"));
        names.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
    };
    assert_eq!(charts(&copy), charts(&sample));
}
