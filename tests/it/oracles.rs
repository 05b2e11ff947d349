//! The decoder against candle-transformers, which shares no model code with it.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{llama, qwen2};
use qeval::{
    checkpoint::{Checkpoint, config::FeedForward},
    evaluate::{self, Base, Observations, Settings, trace},
    model::Decoder,
    progress::Silent,
    suite::Request,
};

use crate::support::{demo_copy, demo_cousin, demo_model, demo_weights, edit_json, edit_tensors};

fn ours(folder: &Path, tokens: &[u32]) -> (Decoder, Tensor) {
    let decoder = open(folder);
    let logits = trace::trace(&decoder, tokens).unwrap().logits;
    (decoder, logits)
}

fn weights(folder: &Path) -> VarBuilder<'static> {
    let tensors = candle_core::safetensors::load(folder.join("model.safetensors"), &Device::Cpu).unwrap();
    VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu)
}

fn last_row_difference(ours: &Tensor, theirs: &Tensor) -> f32 {
    let last = ours.get(ours.dim(0).unwrap() - 1).unwrap();
    let theirs = theirs.flatten_all().unwrap().to_dtype(DType::F32).unwrap();
    (last - theirs).unwrap().abs().unwrap().max(0).unwrap().to_scalar().unwrap()
}

/// Without its biases the demo model is a Llama.
#[test]
fn llama_equals_candle_transformers() {
    let folder = tempfile::tempdir().unwrap();
    demo_copy(folder.path());
    edit_json(&folder.path().join("config.json"), |config| {
        config["architectures"] = serde_json::json!(["LlamaForCausalLM"]);
        config["model_type"] = "llama".into();
    });
    edit_tensors(folder.path(), |tensors| tensors.retain(|name, _| !name.ends_with(".bias")));
    let tokens: Vec<u32> = (0..100).map(|i| (i * 37 + 5) % 512).collect();
    let (decoder, logits) = ours(folder.path(), &tokens);
    let attention = decoder.config.attention().unwrap();
    let FeedForward::Mlp(mlp) = &decoder.config.layers[0].feed_forward else { panic!("a Llama has MLPs") };
    let config = llama::Config {
        hidden_size: decoder.config.hidden_size,
        intermediate_size: mlp.intermediate_size,
        vocab_size: decoder.config.vocab_size,
        num_hidden_layers: decoder.config.num_hidden_layers(),
        num_attention_heads: attention.num_attention_heads,
        num_key_value_heads: attention.num_key_value_heads,
        use_flash_attn: false,
        rms_norm_eps: decoder.config.norm.eps,
        rope_theta: 10_000.0,
        bos_token_id: None,
        eos_token_id: None,
        rope_scaling: None,
        max_position_embeddings: 512,
        tie_word_embeddings: true,
    };
    let mut cache = llama::Cache::new(false, DType::F32, &config, &Device::Cpu).unwrap();
    let model = llama::Llama::load(weights(folder.path()), &config).unwrap();
    let input = Tensor::new(tokens.as_slice(), &Device::Cpu).unwrap().unsqueeze(0).unwrap();
    let theirs = model.forward(&input, 0, &mut cache).unwrap();
    assert!(last_row_difference(&logits, &theirs) < 1e-4);
}

#[test]
fn qwen2_equals_candle_transformers() {
    let tokens: Vec<u32> = (0..200).map(|i| (i * 101 + 7) % 3000).collect();
    let (_, logits) = ours(&demo_model(), &tokens);
    let json = std::fs::read_to_string(demo_model().join("config.json")).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&json).unwrap();
    json["rope_theta"] = 10_000.0.into();
    json["sliding_window"] = 1024.into();
    json["max_window_layers"] = json["num_hidden_layers"].clone();
    let config: qwen2::Config = serde_json::from_value(json).unwrap();
    let mut model = qwen2::ModelForCausalLM::new(&config, weights(&demo_model())).unwrap();
    let input = Tensor::new(tokens.as_slice(), &Device::Cpu).unwrap().unsqueeze(0).unwrap();
    let theirs = model.forward(&input, 0).unwrap();
    assert!(last_row_difference(&logits, &theirs) < 1e-3);
}

fn open(path: &Path) -> Decoder {
    let checkpoint = Checkpoint::open(path).unwrap();
    let config = checkpoint.config().unwrap().unwrap();
    Decoder::open(&checkpoint, config, &Device::Cpu).unwrap()
}

fn request(window: u32, length: u32) -> Request {
    let tokens: Vec<u32> = (0..length).map(|i| (i * 131 + window * 17 + 3) % 3000).collect();
    let scored = 1..tokens.len();
    let bytes = vec![1; scored.len()];
    Request { task: 0, document: 0, window, tokens, scored, bytes }
}

fn run(base: &Decoder, quant: &Decoder, requests: &[Request], probe_linears: bool) -> Observations {
    let settings = Settings {
        chunk_tokens: 4096,
        probe_tokens: None,
        probe_linears,
        compare_weights: false,
        probe_requests: usize::MAX,
        share_prefixes: true,
        seed: 0,
        scratch_folder: std::env::temp_dir(),
    };
    let (quants, ids) = (std::slice::from_ref(quant), base.config.vocab_size);
    evaluate::run(Base::Model(base), quants, requests, ids, &settings, &Silent).unwrap()
}

/// The injected error of layer 0's value projection, written out in f64: norm, product, ratio of sums.
#[test]
fn a_linear_probe_equals_the_formula() {
    let (base, quant) = (open(&demo_weights()), open(&demo_cousin("q4_k_m")));
    let requests = [request(0, 40)];
    let observed = run(&base, &quant, &requests, true);
    let linear = |layer: usize, name: &str| {
        observed.quants[0].linears.iter().find(|l| l.layer == layer && l.linear == name).unwrap().clone()
    };
    let hidden = base.config.hidden_size;
    let weight = |decoder: &Decoder, name: &str| -> Vec<f64> {
        let weight = decoder.weights().iter().find(|weight| weight.name == name).unwrap();
        weight.decode().unwrap().into_iter().map(f64::from).collect()
    };
    let norm = weight(&base, "model.layers.0.input_layernorm.weight");
    let (w, v) = (
        weight(&base, "model.layers.0.self_attn.v_proj.weight"),
        weight(&quant, "model.layers.0.self_attn.v_proj.weight"),
    );
    let (b, c) = (
        weight(&base, "model.layers.0.self_attn.v_proj.bias"),
        weight(&quant, "model.layers.0.self_attn.v_proj.bias"),
    );
    let embedded: Vec<f32> =
        base.embed(&requests[0].tokens, &[]).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    let (mut signal, mut error) = (0.0, 0.0);
    for row in embedded.chunks(hidden) {
        let square: f64 = row.iter().map(|x| f64::from(*x).powi(2)).sum();
        let scale = 1.0 / (square / hidden as f64 + base.config.norm.eps).sqrt();
        let x: Vec<f64> = row.iter().zip(&norm).map(|(x, n)| f64::from(*x) * scale * n).collect();
        for out in 0..b.len() {
            let dot =
                |w: &[f64]| -> f64 { w[out * hidden..][..hidden].iter().zip(&x).map(|(w, x)| w * x).sum() };
            let (y, z) = (dot(&w) + b[out], dot(&v) + c[out]);
            signal += y * y;
            error += (y - z) * (y - z);
        }
    }
    let expected = 10.0 * (signal / error).log10();
    let measured = linear(0, "self_attn.v_proj").injected.all.sqnr_db.unwrap();
    assert!((measured - expected).abs() < 1e-3, "{measured} dB against {expected} dB");
    // Deeper, a cousin's own input carries the errors of the layers before: more than its linear's own.
    let deep = linear(4, "mlp.gate_proj");
    assert!(deep.cumulative.all.sqnr_db < deep.injected.all.sqnr_db);
}

/// Sequences packed into one tile neither see one another nor each other's positions.
#[test]
fn packed_equals_unpacked() {
    let (base, quant) = (open(&demo_weights()), open(&demo_cousin("q8_0")));
    let requests: Vec<Request> =
        [3, 130, 64, 257, 2, 500].iter().enumerate().map(|(i, n)| request(i as u32, *n)).collect();
    let packed = run(&base, &quant, &requests, false);
    let packed: Vec<_> =
        packed.base_tokens.as_slice().iter().zip(packed.quants[0].tokens.as_slice()).collect();
    let mut at = 0;
    for request in &requests {
        let alone = run(&base, &quant, std::slice::from_ref(request), false);
        for (a, b) in alone.base_tokens.as_slice().iter().zip(alone.quants[0].tokens.as_slice()) {
            let (c, d) = packed[at];
            assert_eq!((a.token, a.position, a.window), (c.token, c.position, c.window));
            assert!(
                (a.nll - c.nll).abs() < 1e-5 && (b.nll - d.nll).abs() < 1e-5,
                "{} against {}",
                a.nll,
                c.nll
            );
            assert!((b.kl_divergence - d.kl_divergence).abs() < 1e-6);
            at += 1;
        }
    }
    assert_eq!(at, packed.len());
}
