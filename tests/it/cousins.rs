//! Cousins that are made as they are measured (`PATH@STEP`), and models that lie in several files.
//!
//! Needs ../shared: what LLM Compressor's and bitsandbytes' checkpoints declare, and an untied head.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use candle_core::{
    Device, Tensor,
    quantized::{GgmlDType, QTensor, gguf_file},
};
use qeval::{
    checkpoint::Checkpoint,
    cousin::Recipe,
    evaluate::trace,
    model::{
        ActivationMode, Decoder,
        kv_cache::{KvCacheScheme, Part},
    },
    tokenizer::Tokenizer,
};

use crate::support::{
    compare, demo_copy, demo_cousin, demo_of_layers, demo_stories, demo_text, demo_weights, edit_json,
    edit_tensors, entries, input_ids, max_abs_difference, qeval, refusal, shared, stories,
};

fn open(recipe: &str) -> Decoder {
    let recipe = Recipe::parse(Path::new(recipe)).unwrap();
    let checkpoint = Checkpoint::open(&recipe.path).unwrap();
    let config = checkpoint.config().unwrap().unwrap();
    recipe.apply(&Decoder::open(&checkpoint, config, &Device::Cpu).unwrap()).unwrap()
}

fn logits(decoder: &Decoder, ids: &[u32]) -> Vec<f32> {
    trace::trace(decoder, ids).unwrap().logits.flatten_all().unwrap().to_vec1().unwrap()
}

/// Values of every linear inside the layers, by name.
fn linears(decoder: &Decoder) -> BTreeMap<String, Vec<f32>> {
    let inside = decoder.weights().iter().filter(|w| w.is_matrix() && w.name.contains(".layers."));
    inside.map(|weight| (weight.name.clone(), weight.decode().unwrap())).collect()
}

/// Arguments that score the first windows of a multilingual text.
fn windows<'a>(text: &'a Path, count: &'a str) -> Vec<&'a str> {
    let text = text.to_str().unwrap();
    vec!["--text", text, "--protocol", "llama.cpp", "--window", "128", "--max-windows", count]
}

/// The first 64 tokens of a story and what follows it.
fn tokens() -> Vec<u32> {
    let tokenizer = Tokenizer::of(&Checkpoint::open(&demo_weights()).unwrap()).unwrap().unwrap();
    let mut ids = tokenizer.encode(&stories("en").join(" ")).unwrap().ids;
    ids.truncate(64);
    ids
}

/// Their values are compared in `simulated`.
#[test]
fn a_simulated_base_rounds_activations_as_the_real_file_declares() {
    let Some(goldens) = shared("goldens") else { return };
    let base = goldens.join("ct-base");
    let mut rounding = 0;
    for (quantizer, real) in [
        ("w8a8", "ct/w8a8"),
        ("w4a16", "ct/w4a16"),
        ("fp8_dynamic", "ct/fp8_dynamic"),
        ("fp8_block", "ct/fp8_block"),
        ("nvfp4a16", "ct/nvfp4a16"),
        ("mxfp4", "ct/mxfp4"),
        ("mxfp8", "ct/mxfp8"),
        ("nf4", "bnb/nf4"),
        ("llm_int8", "bnb/int8"),
    ] {
        let real = open(goldens.join(real).to_str().unwrap());
        let simulated = open(&format!("{}@{quantizer}", base.display()));
        assert_eq!(real.rounds_activations(), simulated.rounds_activations(), "{quantizer}");
        assert_eq!(real.activations_in_words(), simulated.activations_in_words(), "{quantizer}");
        rounding += usize::from(real.rounds_activations());
    }
    assert_eq!(rounding, 6);
}

#[test]
fn stored_keys_and_values_are_what_candle_quantizes() {
    // Numbers without a pattern, some large.
    let mut state = 7u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let x = ((state >> 40) as f32 / (1u64 << 23) as f32) - 1.0;
        x * x * x * 5.0
    };
    let (tokens, heads, head_dim) = (50, 3, 64);
    let x: Vec<f32> = std::iter::repeat_with(next).take(tokens * heads * head_dim).collect();
    for (name, dtype) in [
        ("q8_0", GgmlDType::Q8_0),
        ("q5_0", GgmlDType::Q5_0),
        ("q5_1", GgmlDType::Q5_1),
        ("q4_0", GgmlDType::Q4_0),
        ("q4_1", GgmlDType::Q4_1),
    ] {
        let ours = KvCacheScheme::parse(name).unwrap().stored(Part::Keys, &x, heads, head_dim);
        let tensor = Tensor::from_slice(&x, (tokens * heads, head_dim), &Device::Cpu).unwrap();
        let theirs = QTensor::quantize(&tensor, dtype).unwrap().dequantize(&Device::Cpu).unwrap();
        let theirs: Vec<f32> = theirs.flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(ours, theirs, "{name}");
    }
}

#[test]
fn every_cache_changes_the_model_a_little_and_more_bits_change_it_less() {
    let ids = &tokens();
    let base = demo_weights().display().to_string();
    let exact = logits(&open(&base), ids);
    let error = |scheme: &str| -> f64 {
        let quant = logits(&open(&format!("{base}@kv={scheme}")), ids);
        let sum: f64 = quant.iter().zip(&exact).map(|(a, b)| f64::from(a - b).powi(2)).sum();
        (sum / exact.len() as f64).sqrt()
    };
    for (fine, coarse) in
        [("f16", "q8_0"), ("q8_0", "q5_1"), ("q5_1", "q4_0"), ("turboquant4", "turboquant2")]
    {
        let (fine_error, coarse_error) = (error(fine), error(coarse));
        assert!(
            fine_error > 0.0 && fine_error < coarse_error,
            "{fine} {fine_error}, {coarse} {coarse_error}"
        );
    }
    // 64 tokens lie inside KIVI's window of 128: nothing is stored yet.
    assert_eq!(error("kivi2"), 0.0);
}

#[test]
fn recipes_share_weights_and_combine_with_any_encoding() {
    let base = demo_weights();
    let of = |path: &Path, steps: &str| PathBuf::from(format!("{}{steps}", path.display()));
    let gguf = demo_cousin("q4_k_m");
    let quants = [
        of(&base, "@kv=q4_0"),
        of(&base, "@q4_k,down_proj=q6_k,model.layers.0.*=none"),
        gguf.clone(),
        of(&gguf, "@kv=q8_0"),
        of(&base, "@w8a8@kv=fp8"),
    ];
    let text = demo_text();
    let args = [windows(&text, "10"), vec!["--probe-tokens", "512"]].concat();
    let together = compare(&base, &quants, &args);
    let label = |index: usize| together.quants[index].model.label.as_str();
    assert_eq!((label(0), label(3)), ("@kv=q4_0", "demo-Q4_K_M@kv=q8_0"));
    let kv = |index: usize| together.quants[index].model.kv_cache.clone().unwrap_or_default();
    assert!(kv(0).contains("q4_0, 4.5") && kv(2).is_empty(), "{} {}", kv(0), kv(2));
    // What a cousin gives does not depend on who else is measured, or whose decoded weights it uses.
    for (index, quant) in quants.iter().enumerate() {
        let alone = compare(&base, std::slice::from_ref(quant), &args);
        let kl = |comparison: &qeval::comparison::Comparison, index: usize| {
            comparison.quants[index].overall.kl_divergence.mean.value
        };
        assert_eq!(kl(&alone, 0), kl(&together, index), "{}", quant.display());
        assert!(kl(&alone, 0) > 0.0);
    }
    let overridden = &together.quants[1];
    let encoding = |name: &str| {
        overridden.weights.iter().find(|weight| weight.name == name).map(|w| w.encoding.clone()).unwrap()
    };
    assert!(encoding("model.layers.1.mlp.down_proj.weight").contains("Q6_K"));
    assert!(encoding("model.layers.1.mlp.up_proj.weight").contains("Q4_K"));
    assert_eq!(encoding("model.layers.0.mlp.up_proj.weight"), "BF16");
    assert!(overridden.model.bits_per_weight < 16.0);
    // Only the cousin that rounds activations has a rounding noise, well below its distance from base.
    let noise: Vec<bool> = together.quants.iter().map(|quant| quant.rounding_noise.is_some()).collect();
    assert_eq!(noise, [false, false, false, false, true]);
    let noise = together.quants[4].rounding_noise.as_ref().unwrap();
    assert!(noise.kl_divergence.value > 0.0 && noise.scored_tokens > 500);
    // On whole stories: where windows cut through them, the model has seen nothing like it, and noise may be all there is.
    let text = demo_stories("hi");
    let whole = compare(&base, &quants[4..], &["--text", &text]);
    let noise = whole.quants[0].rounding_noise.as_ref().unwrap();
    assert!(noise.kl_divergence.value < noise.kl_divergence_from_base.value / 2.0, "{noise:?}");
}

#[test]
fn slices_of_an_integer_checkpoint_get_worse_bit_by_bit() {
    let text = demo_text();
    let rest = vec!["--probe", "none", "--no-noise-floor", "--slice-bits", "6,4,3"];
    let args = [windows(&text, "4"), rest].concat();
    let found = compare(&demo_weights(), &[demo_cousin("q8_0")], &args);
    let labels: Vec<&str> = found.quants.iter().map(|quant| quant.model.label.as_str()).collect();
    assert_eq!(labels, ["demo-Q8_0", "demo-Q8_0@slice=6", "demo-Q8_0@slice=4", "demo-Q8_0@slice=3"]);
    let kl: Vec<f64> = found.quants.iter().map(|q| q.overall.kl_divergence.mean.value).collect();
    assert!(kl.is_sorted_by(|a, b| a < b), "{kl:?}");
    let base = demo_weights().display().to_string();
    let said = refusal(["compare", &base, &format!("{base}@slice=4"), "--out", "never"]);
    assert!(said.contains("integer"), "{said}");
}

#[test]
fn steps_that_mean_nothing_are_refused_with_what_there_is() {
    let base = demo_weights();
    for (steps, said) in [
        ("@q4_zz", "q4_k"),
        ("@kv=q3_0", "turboquant"),
        ("@q8_0,no_such_proj=q4_0", "no_such_proj"),
        ("@lora=/nowhere", "adapter_config.json"),
        ("@slice=9", "@slice=1"),
    ] {
        let quant = format!("{}{steps}", base.display());
        let text = refusal(["compare", base.to_str().unwrap(), &quant, "--out", "never"]);
        assert!(text.contains(said), "{steps}: {text}");
    }
}

/// A PEFT folder: rank 4 on q_proj and down_proj of every layer, α = 8.
fn write_adapter(folder: &Path, decoder: &Decoder) -> BTreeMap<String, Vec<f32>> {
    const RANK: usize = 4;
    let mut state = 3u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (((state >> 40) as f32 / (1u64 << 23) as f32) - 1.0) * 0.1
    };
    let (mut tensors, mut products) = (std::collections::HashMap::new(), BTreeMap::new());
    for weight in decoder.weights() {
        let Some(module) = weight.name.strip_suffix(".weight") else { continue };
        if !module.ends_with("q_proj") && !module.ends_with("down_proj") {
            continue;
        }
        let (rows, columns) = (weight.shape[0], weight.shape[1]);
        let a: Vec<f32> = (0..RANK * columns).map(|_| next()).collect();
        let b: Vec<f32> = (0..rows * RANK).map(|_| next()).collect();
        let product = (0..rows * columns).map(|at| {
            let (row, column) = (at / columns, at % columns);
            let sum: f64 =
                (0..RANK).map(|r| f64::from(b[row * RANK + r]) * f64::from(a[r * columns + column])).sum();
            (2.0 * sum) as f32
        });
        products.insert(weight.name.clone(), product.collect());
        let tensor =
            |values: Vec<f32>, shape: (usize, usize)| Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
        tensors.insert(format!("base_model.model.{module}.lora_A.weight"), tensor(a, (RANK, columns)));
        tensors.insert(format!("base_model.model.{module}.lora_B.weight"), tensor(b, (rows, RANK)));
    }
    candle_core::safetensors::save(&tensors, folder.join("adapter_model.safetensors")).unwrap();
    let config =
        r#"{"peft_type":"LORA","r":4,"lora_alpha":8,"target_modules":["q_proj","down_proj"],"bias":"none"}"#;
    std::fs::write(folder.join("adapter_config.json"), config).unwrap();
    products
}

#[test]
fn an_adapter_is_added_to_dense_and_quantized_bases_and_survives_requantizing_in_part() {
    let base = demo_weights().display().to_string();
    let folder = tempfile::tempdir().unwrap();
    let products = write_adapter(folder.path(), &open(&base));
    assert_eq!(products.len(), 2 * 5, "two linears of every layer");
    let lora = format!("@lora={}", folder.path().display());
    // On dense weights, on NF4 and on llama.cpp's Q4_K_M alike: W + 2·B·A.
    for stored in [base.clone(), format!("{base}@nf4"), demo_cousin("q4_k_m").display().to_string()] {
        let (without, with) = (linears(&open(&stored)), linears(&open(&format!("{stored}{lora}"))));
        for (name, values) in &with {
            match products.get(name) {
                None => assert_eq!(values, &without[name], "{stored} {name}"),
                Some(product) => {
                    let expected: Vec<f32> = without[name].iter().zip(product).map(|(w, d)| w + d).collect();
                    assert!(max_abs_difference(values, &expected) < 1e-6, "{stored} {name}");
                }
            }
        }
    }
    // What the adapter changed, and what is left of it after merging and requantizing.
    let text = demo_text();
    let args = [windows(&text, "4"), vec!["--probe", "none"]].concat();
    let quants = [format!("{base}{lora}"), format!("{base}@nf4{lora}"), format!("{base}{lora}@nf4")];
    let found = compare(Path::new(&base), &quants.map(PathBuf::from), &args);
    let kl: Vec<f64> = found.quants.iter().map(|quant| quant.overall.kl_divergence.mean.value).collect();
    assert!(kl.iter().all(|kl| *kl > 1e-4), "{kl:?}");
    assert!(found.quants[1].model.encodings.iter().any(|e| e.encoding.contains("LoRA r4")));
    let other = tempfile::tempdir().unwrap();
    demo_of_layers(other.path(), 3);
    let other = format!("{}{lora}", other.path().display());
    let said = refusal(["compare", &base, &other, "--out", "never"]);
    assert!(said.contains("the adapter belongs to another model"), "{said}");
}

/// Writes the tensors of a GGUF file as parts, as `llama-gguf-split` would.
fn split(path: &Path, folder: &Path, parts: usize) {
    let mut file = std::fs::File::open(path).unwrap();
    let content = gguf_file::Content::read(&mut file).unwrap();
    let mut names: Vec<&String> = content.tensor_infos.keys().collect();
    names.sort();
    let chunk = names.len().div_ceil(parts);
    for (number, names) in names.chunks(chunk).enumerate() {
        let tensors: Vec<(&str, QTensor)> = names
            .iter()
            .map(|name| (name.as_str(), content.tensor(&mut file, name, &Device::Cpu).unwrap()))
            .collect();
        let mut metadata: Vec<(String, gguf_file::Value)> = vec![
            ("split.no".to_owned(), gguf_file::Value::U16(number as u16)),
            ("split.count".to_owned(), gguf_file::Value::U16(parts as u16)),
            ("split.tensors.count".to_owned(), gguf_file::Value::I32(content.tensor_infos.len() as i32)),
        ];
        if number == 0 {
            metadata.extend(content.metadata.iter().map(|(key, value)| (key.clone(), value.clone())));
        }
        let metadata: Vec<(&str, &gguf_file::Value)> =
            metadata.iter().map(|(k, v)| (k.as_str(), v)).collect();
        let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
        let name = format!("model-{:05}-of-{parts:05}.gguf", number + 1);
        let mut out = std::fs::File::create(folder.join(name)).unwrap();
        gguf_file::write(&mut out, &metadata, &tensors).unwrap();
    }
}

#[test]
fn a_split_gguf_is_the_model_that_was_split() {
    let whole = demo_cousin("q8_0");
    let folder = tempfile::tempdir().unwrap();
    split(&whole, folder.path(), 3);
    let ids = [1, 403, 407, 261, 378];
    let expected = logits(&open(whole.to_str().unwrap()), &ids);
    let parts = entries(folder.path());
    assert_eq!(parts.len(), 3);
    for path in [folder.path(), &parts[0], &parts[2]] {
        assert_eq!(logits(&open(path.to_str().unwrap()), &ids), expected, "{}", path.display());
    }
    let described = qeval(["inspect".as_ref(), parts[1].as_os_str()]);
    let described = String::from_utf8(described.stdout).unwrap();
    assert!(described.contains("in 3 files") && described.contains("Qwen2ForCausalLM"), "{described}");
    std::fs::remove_file(&parts[1]).unwrap();
    let said = refusal(["inspect".as_ref(), parts[0].as_os_str()]);
    assert!(said.contains("model-00002-of-00003.gguf") && said.contains("missing"), "{said}");
}

/// Writes a GGUF file again with tensors added or replaced.
fn with_tensors(path: &Path, out: &Path, added: &[(&str, &[f32])]) {
    let mut file = std::fs::File::open(path).unwrap();
    let content = gguf_file::Content::read(&mut file).unwrap();
    let mut tensors: Vec<(String, QTensor)> = content
        .tensor_infos
        .keys()
        .map(|name| (name.clone(), content.tensor(&mut file, name, &Device::Cpu).unwrap()))
        .collect();
    for (name, values) in added {
        let tensor = Tensor::from_slice(values, values.len(), &Device::Cpu).unwrap();
        tensors.push(((*name).to_owned(), QTensor::quantize(&tensor, GgmlDType::F32).unwrap()));
    }
    let metadata: Vec<(&str, &gguf_file::Value)> =
        content.metadata.iter().map(|(k, v)| (k.as_str(), v)).collect();
    let tensors: Vec<(&str, &QTensor)> =
        tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    gguf_file::write(&mut std::fs::File::create(out).unwrap(), &metadata, &tensors).unwrap();
}

#[test]
fn a_scale_beside_a_gguf_matrix_multiplies_it() {
    let (whole, folder) = (demo_cousin("q8_0"), tempfile::tempdir().unwrap());
    let scaled = folder.path().join("scaled.gguf");
    with_tensors(&whole, &scaled, &[("blk.0.attn_q.scale", &[2.5]), ("blk.1.ffn_up.input_scale", &[0.1])]);
    let (before, after) = (linears(&open(whole.to_str().unwrap())), open(scaled.to_str().unwrap()));
    for (name, values) in &linears(&after) {
        let factor = if name == "model.layers.0.self_attn.q_proj.weight" { 2.5 } else { 1.0 };
        let expected: Vec<f32> = before[name].iter().map(|w| w * factor).collect();
        assert_eq!(values, &expected, "{name}");
    }
    let warned =
        after.weights().iter().flat_map(|weight| &weight.warnings).any(|w| w.contains("input scale"));
    assert!(warned);
    with_tensors(&whole, &scaled, &[("blk.0.attn_q.scale", &[0.0])]);
    let said = refusal(["trace", scaled.to_str().unwrap(), "--tokens", "1", "--out", "never"]);
    assert!(said.contains("blk.0.attn_q.scale") && said.contains("is 0"), "{said}");
}

/// A quantized head rounds its input, too: by hand from the last hidden state, which a trace keeps.
#[test]
fn a_head_that_is_quantized_rounds_its_input() {
    let Some(goldens) = shared("goldens") else { return };
    let base = goldens.join("ct-base").display().to_string();
    let ids = &input_ids(&goldens.join("ct-base/golden.safetensors"))[0];
    let decoder = open(&format!("{base}@none,lm_head=w8a8"));
    assert_eq!(decoder.activations_in_words(), "int8 per token, dynamic into 1 linears");
    let traced = trace::trace(&decoder, ids).unwrap();
    let hidden: Vec<Vec<f32>> = traced.hidden.last().unwrap().to_vec2().unwrap();
    let head = decoder.weights().iter().find(|weight| weight.name == "lm_head.weight").unwrap();
    let (rows, columns) = (head.decode().unwrap(), head.columns());
    let logits: Vec<Vec<f32>> = traced.logits.to_vec2().unwrap();
    for (hidden, logits) in hidden.iter().zip(&logits) {
        let scale = hidden.iter().fold(0f32, |amax, x| amax.max(x.abs())) / 127.5;
        let rounded: Vec<f32> =
            hidden.iter().map(|x| (x / scale).clamp(-128.0, 127.0).round_ties_even() * scale).collect();
        for (row, logit) in rows.chunks_exact(columns).zip(logits) {
            let expected: f64 = row.iter().zip(&rounded).map(|(w, x)| f64::from(w * x)).sum();
            assert!((expected - f64::from(*logit)).abs() < 1e-4, "{expected} {logit}");
        }
    }
}

#[test]
fn a_declared_kv_cache_is_part_of_the_model_and_can_be_replaced() {
    let folder = tempfile::tempdir().unwrap();
    demo_copy(folder.path());
    edit_json(&folder.path().join("config.json"), |config| {
        config["quantization_config"] = serde_json::json!({
            "quant_method": "compressed-tensors", "format": "dense", "quantization_status": "frozen",
            "config_groups": {},
            "kv_cache_scheme": {
                "num_bits": 8, "type": "float", "strategy": "tensor", "symmetric": true, "dynamic": false
            }
        });
    });
    edit_tensors(folder.path(), |tensors| {
        for layer in 0..5 {
            for (name, scale) in [("k_scale", 0.05f32), ("v_scale", 0.02)] {
                let scale = Tensor::new(&[scale], &Device::Cpu).unwrap();
                tensors.insert(format!("model.layers.{layer}.self_attn.{name}"), scale);
            }
        }
    });
    let path = folder.path().display().to_string();
    let fp8 = |scheme: Option<&KvCacheScheme>| match scheme {
        Some(KvCacheScheme::Fp8 { k_scale, v_scale }) => Some((*k_scale, *v_scale)),
        _ => None,
    };
    let declared = open(&path);
    assert_eq!(fp8(declared.kv_cache(4)), Some((0.05, 0.02)));
    // `@kv=fp8` keeps the checkpoint's scales; another cache takes their place; `none` measures without.
    assert_eq!(fp8(open(&format!("{path}@kv=fp8")).kv_cache(0)), Some((0.05, 0.02)));
    assert_eq!(open(&format!("{path}@kv=q8_0")).kv_cache(0).unwrap().name(), "q8_0");
    assert!(declared.with_activations(ActivationMode::None).kv_cache(0).is_none());
    let ids = &tokens();
    let plain = logits(&open(demo_weights().to_str().unwrap()), ids);
    assert!(logits(&declared, ids) != plain);
    assert_eq!(logits(&declared.with_activations(ActivationMode::None), ids), plain);
}
