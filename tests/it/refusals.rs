//! Bad input: each a clear error that names the file, exit code 2, and nothing left that looks complete.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{
    demo_copy, demo_cousin, demo_stories, demo_weights, edit_json, edit_tensors, qeval, refusal,
};

/// A copy of the demo model's folder, to be damaged, and a cousin.
fn copy() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    demo_copy(folder.path());
    (folder, demo_cousin("q8_0"))
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
        (|c| c["rope_scaling"] = serde_json::json!({"rope_type": "wavelets"}), &["wavelets"]),
        (|c| c["rope_scaling"] = serde_json::json!({"rope_type": "longrope"}), &["short_factor", "missing"]),
        (|c| c["rope_scaling"] = serde_json::json!({"rope_type": "linear"}), &["factor", "missing"]),
        (|c| c["rope_theta"] = (-1).into(), &["rope_theta"]),
        (|c| c["hidden_act"] = "xielu".into(), &["hidden_act", "xielu"]),
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
        (|c| c["layer_types"] = serde_json::json!(vec!["conv"; 5]), &["layer_types", "conv"]),
        (|c| c["head_dim"] = 7.into(), &["head_dim"]),
        (
            |c| {
                c.as_object_mut().unwrap().remove("hidden_size");
            },
            &["hidden_size", "missing"],
        ),
        (
            |c| {
                c["architectures"] = serde_json::json!(["LlamaForCausalLM"]);
                c["attention_bias"] = true.into();
            },
            &["o_proj.bias", "missing"],
        ),
    ];
    for (edit, expected) in cases {
        let (folder, quant) = copy();
        edit_json(&folder.path().join("config.json"), edit);
        let said = compare(folder.path(), &quant, &[]);
        assert!(expected.iter().all(|word| said.contains(word)), "{expected:?} in: {said}");
    }
}

#[test]
fn weights_must_be_finite() {
    for (value, name) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
        let (folder, quant) = copy();
        let path = folder.path().join("model.safetensors");
        let mut bytes = std::fs::read(&path).unwrap();
        let last = bytes.len() - 2;
        bytes[last..].copy_from_slice(&half::bf16::from_f32(value).to_le_bytes());
        std::fs::write(&path, bytes).unwrap();
        let said = compare(folder.path(), &quant, &[]);
        assert!(said.contains("tensor `") && said.contains(name), "{said}");
    }
}

#[test]
fn truncated_weights_and_missing_shards_name_the_file() {
    let (folder, quant) = copy();
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
    let said = compare(&demo_weights(), &gguf, &[]);
    assert!(said.contains("half.gguf"), "{said}");
}

#[test]
fn a_sharded_checkpoint_equals_its_single_file() {
    let (folder, _) = copy();
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
    let args = ["--text", &demo_stories("en"), "--no-noise-floor"];
    let comparison = crate::support::compare(&demo_weights(), &[folder.path().to_owned()], &args);
    assert_eq!(comparison.quants[0].overall.kl_divergence.max, 0.0);
    assert_eq!(comparison.quants[0].model.files.len(), 2);
}

#[test]
fn a_tokenizer_of_another_model_is_refused() {
    let (folder, quant) = copy();
    // A larger vocabulary, as another model of the family has.
    edit_json(&folder.path().join("tokenizer.json"), |tokenizer| {
        let vocabulary = tokenizer["model"]["vocab"].as_object_mut().unwrap();
        let ids = vocabulary.len();
        vocabulary.extend((ids..ids + 1000).map(|id| (format!("piece{id}"), id.into())));
    });
    let said = compare(folder.path(), &quant, &[]);
    assert!(said.contains("tokenizer") && said.contains("embeddings"), "{said}");
    std::fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
    let said = compare(folder.path(), &quant, &[]);
    assert!(said.contains("tokenizer.json"), "{said}");
}

#[test]
fn texts_that_cannot_be_scored_are_refused() {
    let (folder, quant) = copy();
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
    let (folder, quant) = copy();
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
    let (folder, _) = copy();
    edit_tensors(folder.path(), |tensors| {
        for (name, factor) in [("model.norm.weight", 1e37), ("model.embed_tokens.weight", 100.0)] {
            let larger = (&tensors[name] * factor).unwrap();
            tensors.insert(name.to_owned(), larger);
        }
    });
    let out = folder.path().join("run");
    let output = qeval([
        "compare".as_ref(),
        demo_weights().as_os_str(),
        folder.path().as_os_str(),
        "--text".as_ref(),
        demo_stories("en").as_ref(),
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
