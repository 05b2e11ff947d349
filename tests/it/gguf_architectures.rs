//! Every recorded architecture through a GGUF that is not our program's: written here as llama.cpp converts, read by the
//! program, held against transformers' logits and hidden states.
//!
//! `gguf_hashes.json` is the writer's oracle: metadata, shapes and the first 16 hex digits of the SHA-256 of what the
//! converter of llama.cpp (as vendored in llama_cpp_python 0.3.36) wrote of the same folders in f32, a tensor's layers one
//! after another. Tensors that go through `exp` or `pow`, whose last bit is the machine's own, are there as values.
//!
//! Needs ../shared.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use candle_core::{
    DType, Device, Tensor,
    quantized::gguf_file::{self, Value as Stored},
};
use qeval::checkpoint::architectures::ARCHITECTURES;
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

use crate::{
    gguf_writer::{Model, Value, converted},
    support::{
        compare, edit_json, edit_tensors, entries, input_ids, max_abs_difference, qeval, refusal, shared,
        tensors, traced,
    },
};

/// Largest difference allowed to transformers in any logit or hidden value.
const TOLERANCE: f32 = 1e-3;
/// The same to the folder, whose values are the same but for the order of rows.
const FOLDER_TOLERANCE: f32 = 1e-4;

/// What has no GGUF: llama.cpp has no such model.
const NOT_IN_LLAMA_CPP: &str = "gpt-neo";
/// A GGUF does not hold its window of 16, nor does llama.cpp apply it: only positions that see no further back are the same.
const WINDOW_LOST: (&str, usize) = ("mistral-swa", 16);

/// A golden's name, its folder, and the class its GGUF is read as.
struct Golden {
    name: &'static str,
    folder: PathBuf,
    class: &'static str,
}

/// Everything that converts. A folder that is not listed fails, and so does one that is gone.
fn goldens() -> Option<Vec<Golden>> {
    const ALL: &[(&str, &str)] = &[
        ("deepseek-v3", "DeepseekV3ForCausalLM"),
        ("gemma2", "Gemma2ForCausalLM"),
        ("gemma3", "Gemma3ForCausalLM"),
        ("glm4", "Glm4ForCausalLM"),
        ("gpt-neox", "GPTNeoXForCausalLM"),
        ("gpt-oss", "GptOssForCausalLM"),
        ("gpt2", "GPT2LMHeadModel"),
        ("granite", "GraniteForCausalLM"),
        ("llama", "LlamaForCausalLM"),
        ("llama3-rope", "LlamaForCausalLM"),
        // A llama to llama.cpp.
        ("mistral-swa", "LlamaForCausalLM"),
        ("mixtral", "MixtralForCausalLM"),
        ("olmo2", "Olmo2ForCausalLM"),
        ("phi3", "Phi3ForCausalLM"),
        ("qwen2", "Qwen2ForCausalLM"),
        ("qwen3", "Qwen3ForCausalLM"),
        ("qwen3-5", "Qwen3_5ForCausalLM"),
        ("qwen3-moe", "Qwen3MoeForCausalLM"),
        ("qwen3-next", "Qwen3NextForCausalLM"),
        ("smollm3", "SmolLM3ForCausalLM"),
    ];
    let folders = entries(&shared("goldens/arch")?).into_iter().filter(|path| path.is_dir());
    let names: BTreeSet<String> =
        folders.map(|folder| folder.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    let listed = ALL.iter().map(|(name, _)| *name).chain([NOT_IN_LLAMA_CPP]).map(str::to_owned).collect();
    assert_eq!(names, listed);
    let golden = |(name, class): &(&'static str, &'static str)| {
        Some(Golden { name, class, folder: shared(&format!("goldens/arch/{name}"))? })
    };
    ALL.iter().map(golden).collect()
}

/// The golden as a GGUF in `out`.
fn written(golden: &Path, out: &Path, quantized: bool) -> PathBuf {
    let path = out.join(if quantized { "q8_0.gguf" } else { "f32.gguf" });
    std::fs::write(&path, converted(golden).expect("llama.cpp knows it").bytes(quantized)).unwrap();
    path
}

fn inspect(path: &Path) -> Json {
    let output = qeval(["inspect".as_ref(), path.as_os_str(), "--json".as_ref()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A metadata value, a float by its shortest digits.
fn plain(value: &Stored) -> Json {
    match value {
        Stored::U32(number) => json!(number),
        Stored::I32(number) => json!(number),
        Stored::F32(number) => serde_json::from_str(&format!("{number:?}")).unwrap(),
        Stored::Bool(flag) => json!(flag),
        Stored::String(text) => json!(text),
        Stored::Array(all) => all.iter().map(plain).collect(),
        other => panic!("{other:?}"),
    }
}

/// A file as candle reads it, in the words of `gguf_hashes.json`.
fn summary(path: &Path, by_value: &Json) -> Json {
    let mut file = std::fs::File::open(path).unwrap();
    let content = gguf_file::Content::read(&mut file).unwrap();
    let metadata: BTreeMap<&String, Json> =
        content.metadata.iter().map(|(key, value)| (key, plain(value))).collect();
    let (mut computed, mut folded) = (BTreeMap::new(), BTreeMap::new());
    let mut infos: Vec<_> = content.tensor_infos.iter().collect();
    infos.sort_by_key(|(name, _)| *name);
    for (name, info) in infos {
        let tensor = content.tensor(&mut file, name, &Device::Cpu).unwrap().dequantize(&Device::Cpu).unwrap();
        let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
        if by_value.get(name).is_some() {
            computed.insert(name, values);
            continue;
        }
        let layer = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
        let (general, layer) = match layer {
            Some((layer, rest)) => (format!("blk.*.{rest}"), Some(layer.to_owned())),
            None => (name.clone(), None),
        };
        let (shape, layers, hash) =
            folded.entry(general).or_insert_with(|| (info.shape.dims().to_vec(), Vec::new(), Sha256::new()));
        assert_eq!(shape, info.shape.dims(), "{name}: as in the other layers");
        layers.extend(layer);
        for value in values {
            hash.update(value.to_le_bytes());
        }
    }
    let line = |(shape, layers, hash): (Vec<usize>, Vec<String>, Sha256)| {
        let shape: Vec<String> = shape.iter().map(usize::to_string).collect();
        let layers = if layers.is_empty() { String::new() } else { format!(" in {}", layers.join(",")) };
        let hash: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("{}{layers} {hash}", shape.join("x"))
    };
    let folded: BTreeMap<String, String> =
        folded.into_iter().map(|(name, tensor)| (name, line(tensor))).collect();
    json!({"metadata": metadata, "tensors": folded, "computed": computed})
}

/// What differs, key by key.
#[track_caller]
fn assert_same(golden: &str, ours: &Json, theirs: &Json) {
    let (ours, theirs) = (ours.as_object().unwrap(), theirs.as_object().unwrap());
    let keys: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    let different: Vec<_> = keys
        .into_iter()
        .filter(|key| ours.get(*key) != theirs.get(*key))
        .map(|key| (key, ours.get(key), theirs.get(key)))
        .collect();
    assert!(different.is_empty(), "{golden}: ours, theirs: {different:#?}");
}

#[test]
fn the_writer_writes_what_llama_cpp_converts() {
    let Some(goldens) = goldens() else { return };
    let theirs: Json = serde_json::from_str(include_str!("gguf_hashes.json")).unwrap();
    assert_eq!(theirs.as_object().unwrap().len(), goldens.len());
    let folder = tempfile::tempdir().unwrap();
    let mut by_value = 0;
    for Golden { name, folder: golden, .. } in &goldens {
        let theirs = &theirs[name];
        let path = written(golden, folder.path(), false);
        let ours = summary(&path, &theirs["computed"]);
        assert_same(name, &ours["metadata"], &theirs["metadata"]);
        assert_same(name, &ours["tensors"], &theirs["tensors"]);
        for (tensor, values) in theirs["computed"].as_object().into_iter().flatten() {
            let pairs = ours["computed"][tensor].as_array().unwrap().iter().zip(values.as_array().unwrap());
            for (ours, theirs) in pairs {
                let (ours, theirs) = (ours.as_f64().unwrap(), theirs.as_f64().unwrap());
                // A last bit or two of an f32.
                assert!((ours - theirs).abs() <= 3e-7 * theirs.abs(), "{name}: {tensor}: {ours}, {theirs}");
                by_value += 1;
            }
        }
    }
    assert_eq!(by_value, 8 + 2 * 3 * 4, "frequencies; three layers of four heads each of two goldens");
}

/// Largest difference in any tensor, over the first `positions` of both.
fn worst(
    ours: &BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    theirs: &BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    row: usize,
    positions: usize,
) -> (f32, String) {
    assert!(ours.keys().eq(theirs.keys()), "the same tensors");
    let mut worst = (0.0, String::new());
    for (name, (shape, theirs)) in theirs {
        let [_, length, width] = shape[..] else { panic!("{name}: {shape:?}") };
        let (our_shape, ours) = &ours[name];
        assert_eq!(our_shape[1..], shape[1..], "{name}");
        let kept = positions.min(length) * width;
        let difference = max_abs_difference(&ours[..kept], &theirs[row * length * width..][..kept]);
        // Not `max`, which would drop a NaN.
        if difference.is_nan() || difference >= worst.0 {
            worst = (difference, name.clone());
        }
    }
    worst
}

#[test]
fn every_architecture_from_a_gguf_equals_transformers_and_its_folder() {
    let Some(goldens) = goldens() else { return };
    let out = tempfile::tempdir().unwrap();
    for Golden { name, folder, class } in &goldens {
        let path = written(folder, out.path(), false);
        let positions = if *name == WINDOW_LOST.0 { WINDOW_LOST.1 } else { usize::MAX };
        let recorded = folder.join("golden.safetensors");
        let theirs = tensors(&recorded);
        for (row, ids) in input_ids(&recorded).iter().enumerate() {
            let ours = traced(&path, ids);
            let (difference, tensor) = worst(&ours, &theirs, row, positions);
            assert!(difference < TOLERANCE, "{name}: {tensor} differs from transformers by {difference}");
            let (difference, tensor) = worst(&ours, &traced(folder, ids), 0, positions);
            assert!(
                difference < FOLDER_TOLERANCE,
                "{name}: {tensor} differs from the folder by {difference}"
            );
            if positions < ids.len() {
                let (beyond, _) = worst(&ours, &theirs, row, usize::MAX);
                assert!(beyond > TOLERANCE, "{name}: its window would be in the file after all");
            }
        }
        let inspection = inspect(&path);
        assert_eq!(inspection["architecture"], *class, "{name}");
        assert_eq!(inspection["cannot_run"], Json::Null, "{name}");
    }
}

#[test]
fn what_llama_cpp_does_not_have_is_refused_by_name_and_still_described() {
    let Some(golden) = shared(&format!("goldens/arch/{NOT_IN_LLAMA_CPP}")) else { return };
    assert!(converted(&golden).is_none());
    let row = ARCHITECTURES.iter().find(|row| row.class == "GPTNeoForCausalLM").unwrap();
    assert!(row.gguf.is_none());

    let llama = converted(&shared("goldens/arch/llama").expect("beside it")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.gguf");
    for name in ["gptneo", "mamba"] {
        let mut other: Model = llama.clone();
        other.metadata.insert("general.architecture".to_owned(), Value::String(name.to_owned()));
        std::fs::write(&path, other.bytes(false)).unwrap();
        let out = folder.path().join("trace.safetensors");
        let tokens = ["--tokens".as_ref(), "1,2".as_ref(), "--out".as_ref(), out.as_os_str()];
        let said = refusal(["trace".as_ref(), path.as_os_str()].into_iter().chain(tokens));
        assert!(said.contains(&format!("`{name}` is not implemented")), "{said}");
        assert!(!out.exists());
        let inspection = inspect(&path);
        assert_eq!(inspection["architecture"], name);
        let reason = inspection["cannot_run"].as_str().unwrap();
        assert!(reason.contains(&format!("`{name}` is not implemented")), "{reason}");
        assert_eq!(inspection["tensors"].as_array().unwrap().len(), llama.tensors.len());
        let values: usize = llama.tensors.values().map(|tensor| tensor.values.len()).sum();
        assert_eq!(inspection["parameters"], values);
        assert_eq!(inspection["weight_bytes"], values * 4);
        assert_eq!(inspection["encodings"][0]["encoding"], "F32");
    }
}

/// A vocabulary of 320 numbers in words, for the goldens, which have none.
fn tokenizer() -> Json {
    let vocabulary: serde_json::Map<String, Json> =
        (0..320).map(|id| (format!("w{id}"), id.into())).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "w0"}
    })
}

/// A file's tensors as candle decodes them.
fn decoded(path: &Path) -> BTreeMap<String, Vec<f32>> {
    let mut file = std::fs::File::open(path).unwrap();
    let content = gguf_file::Content::read(&mut file).unwrap();
    let mut values = |name: &String| {
        let tensor = content.tensor(&mut file, name, &Device::Cpu).unwrap().dequantize(&Device::Cpu).unwrap();
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    };
    content.tensor_infos.keys().map(|name| (name.clone(), values(name))).collect()
}

/// The golden's GGUF with the values that `quant`, the same in blocks, holds. Some must be rounded, none by more than half a
/// step.
fn with_values_of(golden: &Path, quant: &Path) -> Model {
    let mut model = converted(golden).unwrap();
    let mut values = decoded(quant);
    let mut rounded = 0;
    for (name, tensor) in &mut model.tensors {
        let values = values.remove(name).unwrap();
        let largest = tensor.values.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        let difference = max_abs_difference(&values, &tensor.values);
        // The scale is rounded too, to 11 bits.
        let allowed = largest / 127.0 * 0.5 + largest / 2048.0;
        assert!(difference <= allowed, "{name}: {difference} of {largest}");
        rounded += usize::from(difference > 0.0);
        tensor.values = values;
    }
    assert!(values.is_empty() && rounded * 3 > model.tensors.len(), "{rounded} tensors");
    model
}

/// The golden in `folder`, with a vocabulary.
fn copy(golden: &Path, folder: &Path) {
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(golden.join(file), folder.join(file)).unwrap();
    }
    std::fs::write(folder.join("tokenizer.json"), tokenizer().to_string()).unwrap();
}

/// DeepSeek's golden with heads of 32, so that blocks lie across the half of `kv_b_proj` that is stored turned round, and with
/// a correction of the router's scores, which is 0 in the golden.
fn widen_latent_heads(folder: &Path) {
    let (heads, nope, rope, value, rank) = (4, 32, 8, 32, 32);
    edit_json(&folder.join("config.json"), |config| {
        for (key, size) in [
            ("qk_nope_head_dim", nope),
            ("qk_head_dim", nope + rope),
            ("v_head_dim", value),
            ("kv_lora_rank", rank),
        ] {
            config[key] = size.into();
        }
    });
    edit_tensors(folder, |tensors| {
        let names: BTreeSet<String> = tensors.keys().cloned().collect();
        for name in names {
            let tensor = &tensors[&name];
            let old = tensor.dims().to_vec();
            let module = name.strip_suffix(".weight").and_then(|name| name.rsplit_once('.'));
            let shape = match module.map_or("", |(_, module)| module) {
                "q_b_proj" => vec![heads * (nope + rope), old[1]],
                "kv_a_proj_with_mqa" => vec![rank + rope, old[1]],
                "kv_a_layernorm" => vec![rank],
                "kv_b_proj" => vec![heads * (nope + value), rank],
                "o_proj" => vec![old[0], heads * value],
                _ if name.ends_with("e_score_correction_bias") => old,
                _ => continue,
            };
            let flat = tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            // The old values in another order.
            let value = |at: usize| match name.ends_with("bias") {
                true => at as f32 * 0.37 % 1.0,
                false => flat[at * 7919 % flat.len()],
            };
            let values: Vec<f32> = (0..shape.iter().product()).map(value).collect();
            tensors.insert(name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap());
        }
    });
}

/// Blocks of what is stored otherwise than transformers has it: rows turned round, split, stacked, de-interleaved. These
/// models amplify any rounding (relative errors of a position's logits near a tenth), so the oracle is the same values in
/// f32.
#[test]
fn quantized_tensors_are_the_values_that_their_blocks_hold() {
    for (name, change) in [
        ("deepseek-v3", None),
        ("deepseek-v3", Some(widen_latent_heads as fn(&Path))),
        ("gpt-oss", None),
        ("qwen3-5", None),
        ("mixtral", None),
    ] {
        let Some(golden) = shared(&format!("goldens/arch/{name}")) else { return };
        let folder = tempfile::tempdir().unwrap();
        copy(&golden, folder.path());
        if let Some(change) = change {
            change(folder.path());
        }
        let (folder, out) = (folder.path(), tempfile::tempdir().unwrap());
        let quant = written(folder, out.path(), true);
        let stored = inspect(&quant);
        let is_block = |tensor: &&Json| tensor["encoding"] == "Q8_0";
        let blocks: Vec<_> = stored["tensors"].as_array().unwrap().iter().filter(is_block).collect();
        assert!(blocks.len() * 3 > stored["tensors"].as_array().unwrap().len(), "{name}: {}", blocks.len());
        let turned = blocks.iter().any(|tensor| tensor["name"] == "blk.2.attn_k_b.weight");
        assert_eq!(turned, change.is_some());

        let dense = out.path().join("dense.gguf");
        std::fs::write(&dense, with_values_of(folder, &quant).bytes(false)).unwrap();
        let ids = &input_ids(&golden.join("golden.safetensors"))[0];
        assert!(traced(&quant, ids) == traced(&dense, ids), "{name}");
        let (difference, tensor) =
            worst(&traced(&written(folder, out.path(), false), ids), &traced(folder, ids), 0, usize::MAX);
        assert!(difference < FOLDER_TOLERANCE, "{name}: {tensor} differs from the folder by {difference}");

        let text = out.path().join("text.txt");
        let words: Vec<String> = (0..128).map(|word| format!("w{}", word * 37 % 320)).collect();
        std::fs::write(&text, words.join(" ")).unwrap();
        let args = ["--text", text.to_str().unwrap(), "--protocol", "llama.cpp", "--window", "64"];
        let comparison = compare(folder, &[quant, dense], &args);
        // Of missing or unread tensors, say.
        let warnings = comparison.warnings.iter();
        let other: Vec<_> = warnings.filter(|warning| !warning.contains("has no tokenizer")).collect();
        assert!(other.is_empty(), "{name}: {other:?}");
        let [quant, dense] = [0, 1].map(|at| comparison.quants[at].overall.kl_divergence.mean.value);
        assert_eq!(quant, dense, "{name}");
        assert!(quant > 0.0, "{name}");
    }
}
