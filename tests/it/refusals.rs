//! Bad input: each a clear error that names the file, exit code 2, and nothing left that looks complete.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{qeval, refusal, shared};

/// A copy of the small model's folder, to be damaged.
fn copy() -> Option<(tempfile::TempDir, PathBuf)> {
    let from = shared("models/stories260k")?;
    let folder = tempfile::tempdir().unwrap();
    for file in ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(from.join(file), folder.path().join(file)).unwrap();
    }
    Some((folder, from.join("stories260K-Q8_0.gguf")))
}

fn compare(base: &Path, quant: &Path, args: &[&str]) -> String {
    let out = tempfile::tempdir().unwrap();
    let run = out.path().join("run");
    let mut all =
        vec!["compare".as_ref(), base.as_os_str(), quant.as_os_str(), "--out".as_ref(), run.as_os_str()];
    all.extend(args.iter().map(std::ffi::OsStr::new));
    let said = refusal(all);
    assert!(
        !run.join("comparison.json").exists() && !run.join("report.html").exists(),
        "nothing looks complete"
    );
    said
}

fn edit_config(folder: &Path, edit: impl Fn(&mut Value)) {
    let path = folder.join("config.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    edit(&mut config);
    std::fs::write(&path, config.to_string()).unwrap();
}

#[test]
fn a_path_that_is_not_there() {
    let said = refusal(["compare", "no-such-base.safetensors", "no-such-quant.gguf"]);
    assert!(said.contains("no-such-"), "{said}");
}

#[test]
fn configs_that_cannot_be_run_are_refused_by_key() {
    type Edit = fn(&mut Value);
    let cases: &[(Edit, &[&str])] = &[
        (
            |c| c["architectures"] = serde_json::json!(["MambaForCausalLM"]),
            &["MambaForCausalLM", "not implemented"],
        ),
        (|c| c["hidden_size"] = 0.into(), &["hidden_size"]),
        (|c| c["hidden_size"] = 128.into(), &["shape"]),
        (|c| c["num_key_value_heads"] = 3.into(), &["num_key_value_heads"]),
        (|c| c["num_hidden_layers"] = 4.into(), &["layers.4"]),
        (|c| c["num_hidden_layers"] = 6.into(), &["model.layers.5", "missing"]),
        (|c| c["rope_scaling"] = serde_json::json!({"rope_type": "longrope"}), &["longrope"]),
        (|c| c["rope_scaling"] = serde_json::json!({"rope_type": "linear"}), &["factor", "missing"]),
        (|c| c["rope_theta"] = (-1).into(), &["rope_theta"]),
        (|c| c["hidden_act"] = "gelu".into(), &["hidden_act", "gelu"]),
        (
            |c| c["quantization_config"] = serde_json::json!({"quant_method": "vptq"}),
            &["vptq", "quant_method"],
        ),
        (
            |c| {
                c["quantization_config"] =
                    serde_json::json!({"quant_method": "gptq", "checkpoint_format": "gptq_p"})
            },
            &["gptq_p"],
        ),
        (
            |c| {
                c["quantization_config"] =
                    serde_json::json!({"quant_method": "compressed-tensors", "format": "marlin-24"})
            },
            &["marlin-24"],
        ),
        (|c| c["use_sliding_window"] = true.into(), &["use_sliding_window"]),
        (|c| c["head_dim"] = 7.into(), &["head_dim"]),
        (
            |c| {
                c.as_object_mut().unwrap().remove("rms_norm_eps");
            },
            &["rms_norm_eps", "missing"],
        ),
        (|c| c["attention_bias"] = true.into(), &["bias", "missing"]),
    ];
    for (edit, expected) in cases {
        let Some((folder, quant)) = copy() else { return };
        edit_config(folder.path(), edit);
        let said = compare(folder.path(), &quant, &[]);
        assert!(expected.iter().all(|word| said.contains(word)), "{expected:?} in: {said}");
    }
}

#[test]
fn weights_must_be_finite() {
    for (value, name) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
        let Some((folder, quant)) = copy() else { return };
        let path = folder.path().join("model.safetensors");
        let mut bytes = std::fs::read(&path).unwrap();
        let last = bytes.len() - 4;
        bytes[last..].copy_from_slice(&value.to_le_bytes());
        std::fs::write(&path, bytes).unwrap();
        let said = compare(folder.path(), &quant, &[]);
        assert!(said.contains("tensor `") && said.contains(name), "{said}");
    }
}

#[test]
fn truncated_weights_and_missing_shards_name_the_file() {
    let Some((folder, quant)) = copy() else { return };
    let path = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let said = compare(folder.path(), &quant, &[]);
    assert!(said.contains("model.safetensors") && said.contains("truncated"), "{said}");
    let index = serde_json::json!({"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}});
    std::fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    let said = compare(folder.path(), &quant, &[]);
    assert!(said.contains("model-00001-of-00002.safetensors") && said.contains("missing"), "{said}");
    let half = std::fs::read(&quant).unwrap();
    let gguf = folder.path().join("half.gguf");
    std::fs::write(&gguf, &half[..half.len() / 2]).unwrap();
    let said = compare(&shared("models/stories260k").unwrap().join("model.safetensors"), &gguf, &[]);
    assert!(said.contains("half.gguf"), "{said}");
}

#[test]
fn a_sharded_checkpoint_equals_its_single_file() {
    let Some((folder, _)) = copy() else { return };
    let single = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&single).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut names: Vec<String> = file.names().iter().map(ToString::to_string).collect();
    names.sort();
    let (first, second) = names.split_at(names.len() / 2);
    let mut map = serde_json::Map::new();
    for (shard, members) in
        [("model-00001-of-00002.safetensors", first), ("model-00002-of-00002.safetensors", second)]
    {
        let views = members.iter().map(|name| (name.clone(), file.tensor(name).unwrap()));
        safetensors::serialize_to_file(views, None, &folder.path().join(shard)).unwrap();
        map.extend(members.iter().map(|name| (name.clone(), Value::from(shard))));
    }
    let index = serde_json::json!({"metadata": {}, "weight_map": map});
    std::fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    std::fs::remove_file(&single).unwrap();
    let base = shared("models/stories260k").unwrap().join("model.safetensors");
    let comparison = crate::support::compare(&base, &[folder.path().to_owned()], &["--no-noise-floor"]);
    assert_eq!(comparison.quants[0].overall.kl_divergence.max, 0.0);
    assert_eq!(comparison.quants[0].model.files.len(), 2);
}

#[test]
fn a_tokenizer_of_another_model_is_refused() {
    let Some((folder, quant)) = copy() else { return };
    std::fs::copy(shared("models/polyglot6m/tokenizer.json").unwrap(), folder.path().join("tokenizer.json"))
        .unwrap();
    let said = compare(folder.path(), &quant, &[]);
    assert!(said.contains("tokenizer") && said.contains("embeddings"), "{said}");
    std::fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
    let said = compare(folder.path(), &quant, &[]);
    assert!(said.contains("tokenizer.json"), "{said}");
}

#[test]
fn texts_that_cannot_be_scored_are_refused() {
    let Some((folder, quant)) = copy() else { return };
    let text = folder.path().join("text.txt");
    std::fs::write(&text, "").unwrap();
    let said = compare(folder.path(), &quant, &["--text", text.to_str().unwrap()]);
    assert!(said.contains("text.txt"), "{said}");
    std::fs::write(&text, "Too short for two windows.").unwrap();
    let said = compare(folder.path(), &quant, &["--text", text.to_str().unwrap(), "--protocol", "llama.cpp"]);
    assert!(said.contains("two windows") && said.contains("--window"), "{said}");
    let said = compare(folder.path(), &quant, &["--protocol", "lamma.cpp"]);
    assert!(said.contains("llama.cpp"), "{said}");
    let said = compare(folder.path(), &quant, &["--suite", "perplexty"]);
    assert!(said.contains("perplexity"), "{said}");
}

#[test]
fn an_output_folder_that_cannot_be_used_is_noticed_before_measuring() {
    let Some((folder, quant)) = copy() else { return };
    let taken = folder.path().join("taken");
    std::fs::write(&taken, "a file").unwrap();
    let run = |out: &Path| {
        refusal([
            "compare".as_ref(),
            folder.path().as_os_str(),
            quant.as_os_str(),
            "--out".as_ref(),
            out.as_os_str(),
        ])
    };
    assert!(run(&taken).contains("taken"));
    let foreign = folder.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("thesis.tex"), "mine").unwrap();
    assert!(run(&foreign).contains("--force"));
    assert_eq!(std::fs::read_to_string(foreign.join("thesis.tex")).unwrap(), "mine");
}

#[test]
fn a_cousin_that_overflows_is_counted_shown_and_exits_with_2() {
    let Some((folder, _)) = copy() else { return };
    let base = shared("models/stories260k").unwrap().join("model.safetensors");
    let path = folder.path().join("model.safetensors");
    let mut tensors = candle_core::safetensors::load(&path, &candle_core::Device::Cpu).unwrap();
    let norm = (&tensors["model.norm.weight"] * 1e37).unwrap();
    tensors.insert("model.norm.weight".to_owned(), norm);
    let embedding = (&tensors["model.embed_tokens.weight"] * 100.0).unwrap();
    tensors.insert("model.embed_tokens.weight".to_owned(), embedding);
    candle_core::safetensors::save(&tensors, &path).unwrap();
    let out = folder.path().join("run");
    let output = qeval([
        "compare".as_ref(),
        base.as_os_str(),
        folder.path().as_os_str(),
        "--out".as_ref(),
        out.as_os_str(),
    ]);
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    let comparison = qeval::report::read(&out).unwrap();
    let all = &comparison.quants[0].overall;
    assert!(all.non_finite_tokens > 0);
    let scored: usize = comparison.tasks.iter().map(|task| task.scored_tokens).sum();
    assert_eq!(all.non_finite_tokens + all.scored_tokens, scored, "every position is accounted for");
    assert!(comparison.warnings.iter().any(|warning| warning.contains("NaN or infinite")));
    assert!(qeval(["report".as_ref(), out.as_os_str()]).status.success(), "it can still be drawn");
}
