//! The program as a person meets it: output folder, summary, inspect, report, schema, help.

use std::{path::PathBuf, process::Output};

use serde_json::Value;

use crate::support::{compare, entries, qeval, shared};

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// One comparison of the multilingual model with three cousins, on disk.
fn run() -> Option<(tempfile::TempDir, PathBuf, Output)> {
    let models = shared("models/polyglot6m")?;
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let output = qeval([
        "compare".as_ref(),
        models.join("model.safetensors").as_os_str(),
        models.join("polyglot6m-Q8_0.gguf").as_os_str(),
        models.join("polyglot6m-Q4_K_M.gguf").as_os_str(),
        models.join("polyglot6m-Q2_K.gguf").as_os_str(),
        "--out".as_ref(),
        out.as_os_str(),
    ]);
    Some((folder, out, output))
}

#[test]
fn compare_writes_a_complete_folder_and_a_readable_summary() {
    let Some((_folder, out, output)) = run() else { return };
    let summary = stdout(&output);
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
    let comparison: Value =
        serde_json::from_str(&std::fs::read_to_string(out.join("comparison.json")).unwrap()).unwrap();
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
    let Some((_folder, out, _)) = run() else { return };
    let schema: Value = serde_json::from_str(&stdout(&qeval(["schema"]))).unwrap();
    let comparison =
        serde_json::from_str(&std::fs::read_to_string(out.join("comparison.json")).unwrap()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> = validator.iter_errors(&comparison).map(|e| e.to_string()).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    let mut wrong = comparison.clone();
    wrong["quants"][0]["overall"]["scored_tokens"] = "many".into();
    assert!(!validator.is_valid(&wrong), "the schema means something");
}

#[test]
fn inspect_describes_files_that_can_and_cannot_run() {
    let Some(models) = shared("models/polyglot6m") else { return };
    let text = stdout(&qeval(["inspect".as_ref(), models.join("polyglot6m-IQ2_XS.gguf").as_os_str()]));
    for word in
        ["Qwen2ForCausalLM", "IQ2_XS", "2.312", "4,096 ids", "can be measured          yes", "5,773,568"]
    {
        assert!(text.contains(word), "{word} in:\n{text}");
    }
    for golden in entries(&shared("goldens/arch").unwrap()).iter().filter(|p| p.is_dir()) {
        let json = stdout(&qeval(["inspect".as_ref(), golden.as_os_str(), "--json".as_ref()]));
        let inspection: Value = serde_json::from_str(&json).unwrap();
        assert!(inspection["parameters"].as_u64().unwrap() > 0, "{json}");
    }
}

#[test]
fn inspect_counts_bits_as_the_file_has_them() {
    let Some(models) = shared("models/polyglot6m") else { return };
    let json = stdout(&qeval([
        "inspect".as_ref(),
        models.join("polyglot6m-Q4_K_M.gguf").as_os_str(),
        "--json".as_ref(),
    ]));
    let inspection: Value = serde_json::from_str(&json).unwrap();
    // From the sizes of the blocks: 4,259,840 weights in Q4_K, 1,507,328 in Q6_K, 6,400 in F32.
    let bytes = 4_259_840.0 / 256.0 * 144.0 + 1_507_328.0 / 256.0 * 210.0 + 6_400.0 * 4.0;
    assert_eq!(inspection["weight_bytes"].as_f64(), Some(bytes));
    let bits = inspection["bits_per_weight"].as_f64().unwrap();
    assert!((bits - bytes * 8.0 / 5_773_568.0).abs() < 1e-12);
    // What a conversion would weigh, before anyone converts: 4,718,592 weights in linears.
    let simulated = format!("{}@q4_k@kv=q8_0", models.join("model.safetensors").display());
    let inspection: Value = serde_json::from_str(&stdout(&qeval(["inspect", &simulated, "--json"]))).unwrap();
    let bytes = 4_718_592.0 / 256.0 * 144.0 + (5_773_568.0 - 4_718_592.0) * 2.0;
    assert_eq!(inspection["weight_bytes"].as_f64(), Some(bytes));
    let facts = inspection["config"].to_string();
    assert!(facts.contains("q8_0, 8.5"), "{facts}");
}

#[test]
fn known_configs_in_the_older_spelling_are_understood() {
    let Some(configs) = shared("data/configs") else { return };
    for path in entries(&configs) {
        let json: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let config = qeval::checkpoint::config::from_hugging_face(&path, &json);
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        match name.as_str() {
            "llama-3.2-1b" => {
                let config = config.unwrap();
                assert!((config.rope.theta - 500_000.0).abs() < 1e-9 && config.tie_word_embeddings);
                assert!(matches!(config.rope.scaling,
                    qeval::checkpoint::config::RopeScaling::Llama3 { factor, .. } if factor == 32.0));
            }
            "deepseek-r1-distill-qwen-7b" | "deepseek-r1-distill-qwen-7b-w8a8" | "qwen2.5-0.5b-instruct" => {
                let config = config.unwrap();
                assert!(config.attention_bias && !config.attention_output_bias);
            }
            "gemma-2-2b" | "mistral-7b-v0.1" | "phi-3-mini-4k-instruct" | "qwen3-0.6b" => {
                assert!(config.unwrap_err().to_string().contains("not implemented"));
            }
            other => panic!("{other} is not listed in this test"),
        }
    }
}

#[test]
fn settings_without_packed_weights_are_not_believed() {
    let Some(models) = shared("models/stories260k") else { return };
    let folder = tempfile::tempdir().unwrap();
    for file in ["model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(models.join(file), folder.path().join(file)).unwrap();
    }
    let mut config: Value =
        serde_json::from_str(&std::fs::read_to_string(models.join("config.json")).unwrap()).unwrap();
    config["quantization_config"] = serde_json::json!({"quant_method": "gptq", "bits": 4, "group_size": 128});
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let found =
        compare(&models.join("model.safetensors"), &[folder.path().to_owned()], &["--max-windows", "2"]);
    assert!(found.warnings.iter().any(|w| w.contains("gptq") && w.contains("dense")), "{:?}", found.warnings);
    assert_eq!(found.quants[0].overall.kl_divergence.max, 0.0);
}

#[test]
fn a_lone_file_borrows_what_is_missing_from_its_cousin() {
    let Some(models) = shared("models/stories260k") else { return };
    let folder = tempfile::tempdir().unwrap();
    let lone = folder.path().join("lone.safetensors");
    std::fs::copy(models.join("model.safetensors"), &lone).unwrap();
    let comparison = compare(&lone, &[models.join("stories260K-F32.gguf")], &["--no-noise-floor"]);
    assert!(comparison.quants[0].overall.kl_divergence.max < 1e-6);
    assert!(comparison.warnings.iter().any(|w| w.contains("config.json")), "{:?}", comparison.warnings);
    assert!(comparison.warnings.iter().any(|w| w.contains("tokenizer")), "{:?}", comparison.warnings);
}

#[test]
fn a_padded_vocabulary_is_compared_over_the_common_ids() {
    let Some(models) = shared("models/stories260k") else { return };
    // Eight more rows of embedding (and so of the tied head), as padding to a round number does.
    let folder = tempfile::tempdir().unwrap();
    let mut tensors =
        candle_core::safetensors::load(models.join("model.safetensors"), &candle_core::Device::Cpu).unwrap();
    let embedding = tensors["model.embed_tokens.weight"].clone();
    let padding = (embedding.narrow(0, 0, 8).unwrap() * 0.5).unwrap();
    let padded = candle_core::Tensor::cat(&[&embedding, &padding], 0).unwrap();
    tensors.insert("model.embed_tokens.weight".to_owned(), padded);
    candle_core::safetensors::save(&tensors, folder.path().join("model.safetensors")).unwrap();
    let config = std::fs::read_to_string(models.join("config.json"))
        .unwrap()
        .replace("\"vocab_size\": 512", "\"vocab_size\": 520");
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(models.join(file), folder.path().join(file)).unwrap();
    }
    let comparison =
        compare(&models.join("model.safetensors"), &[folder.path().to_owned()], &["--no-noise-floor"]);
    let quant = &comparison.quants[0];
    assert_eq!(comparison.vocabulary_size, 512);
    assert_eq!(quant.overall.kl_divergence.max, 0.0, "equal over the common ids");
    assert!(
        quant.model.excluded_mass > 1e-6 && quant.model.excluded_mass < 0.1,
        "{}",
        quant.model.excluded_mass
    );
    assert_eq!(comparison.base.excluded_mass, 0.0);
    assert!(comparison.warnings.iter().any(|w| w.contains("520 embeddings")), "{:?}", comparison.warnings);
}

#[test]
fn a_shallower_cousin_is_compared_by_cka() {
    let Some(models) = shared("models/polyglot6m") else { return };
    // The same model without its last two layers.
    let folder = tempfile::tempdir().unwrap();
    let mut tensors =
        candle_core::safetensors::load(models.join("model.safetensors"), &candle_core::Device::Cpu).unwrap();
    tensors.retain(|name, _| !name.contains("layers.4.") && !name.contains("layers.5."));
    candle_core::safetensors::save(&tensors, folder.path().join("model.safetensors")).unwrap();
    let mut config: Value =
        serde_json::from_str(&std::fs::read_to_string(models.join("config.json")).unwrap()).unwrap();
    config["num_hidden_layers"] = 4.into();
    config["layer_types"] =
        serde_json::json!(["full_attention", "full_attention", "full_attention", "full_attention"]);
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let comparison =
        compare(&models.join("model.safetensors"), &[folder.path().to_owned()], &["--no-noise-floor"]);
    let quant = &comparison.quants[0];
    assert!(quant.overall.kl_divergence.mean.value > 0.01, "two layers are missing");
    assert!(
        comparison.warnings.iter().any(|w| w.contains("tokenizer")),
        "base's tokenizer was taken, and said so"
    );
    let layers: Vec<(usize, usize)> = quant.layers.iter().map(|l| (l.layer, l.base_layer)).collect();
    assert_eq!(
        layers,
        [(0, 0), (0, 1), (1, 2), (2, 4), (3, 5)],
        "the embedding, then the nearest relative depths"
    );
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
    let Some(models) = shared("models/stories260k") else { return };
    let text = shared("data/text/tinystories-80k.txt").unwrap();
    let args = ["--text", text.to_str().unwrap(), "--no-noise-floor", "--probe", "none"];
    let comparison =
        compare(&models.join("model.safetensors"), &[models.join("stories260K-Q4_0.gguf")], &args);
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
    let charts = |folder: &std::path::Path| -> Vec<String> {
        let names = entries(&folder.join("charts"));
        names.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
    };
    assert_eq!(charts(&copy), charts(&sample));
}
