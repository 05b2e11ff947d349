//! Speed of the whole pass against the machine's GEMM peak, on a model of 134 M parameters.
//!
//! `cargo bench --bench throughput`. Hidden 768, 12 layers, vocabulary 32 000, random weights: base in f32,
//! one cousin in Q8_0, windows of 512. The peak is measured first, in the same process, by the tensor
//! library's own f32 product. Figures belong into `reports/performance.md` with the machine they came from.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::{collections::HashMap, path::Path, time::Instant};

use candle_core::{
    Device, Tensor,
    quantized::{GgmlDType, QTensor, gguf_file},
};
use qeval::{
    checkpoint::Checkpoint,
    evaluate::{
        self, Base, Settings,
        generate::{GenerateSettings, Prompt, generate},
    },
    model::{Decoder, Rounding},
    progress::Silent,
    suite::Request,
};

const HIDDEN: usize = 768;
const MLP: usize = 2048;
const LAYERS: usize = 12;
const HEADS: usize = 12;
const VOCABULARY: usize = 32_000;
const WINDOW: usize = 512;
const WINDOWS: usize = 8;

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let weights = random_weights();
    write_checkpoints(folder.path(), &weights);
    drop(weights);
    let peak = gemm_peak();
    println!("threads                 {}", rayon::current_num_threads());
    println!("f32 GEMM peak           {:>9.1} GFLOP/s  (2048 x 2048 x 2048)", peak / 1e9);
    let base = open(&folder.path().join("model.safetensors"));
    let quant = open(&folder.path().join("model.gguf"));
    println!("rows: pass, tokens read per second and model, GFLOP/s of the whole pass, share of peak");
    let requests = requests();
    measure("one cousin, no probes", peak, &base, std::slice::from_ref(&quant), &requests, Some(0));
    measure("one cousin, default probes", peak, &base, std::slice::from_ref(&quant), &requests, Some(4096));
    let with_floor = [quant.clone(), base.with_rounding(Rounding::Bf16)];
    measure("one cousin, probes, noise floor", peak, &base, &with_floor, &requests, Some(4096));
    println!(
        "choices: 5 examples of 100 tokens, a question of 40, 4 options of 25; samples per second of one model"
    );
    for (name, share) in [("every request whole", false), ("shared prefixes", true)] {
        choices(name, &base, share);
    }
    writing(&base);
}

/// Samples of four options that share a few-shot prompt and a question.
fn choices(name: &str, base: &Decoder, share_prefixes: bool) {
    const SAMPLES: usize = 12;
    let mut state = 7u32;
    let mut tokens = |count: usize| -> Vec<u32> {
        let token = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state % VOCABULARY as u32
        };
        std::iter::repeat_with(token).take(count).collect()
    };
    let prompt = tokens(500);
    let mut requests = Vec::new();
    for document in 0..SAMPLES as u32 {
        let question = tokens(40);
        for window in 0..4 {
            let tokens = [prompt.clone(), question.clone(), tokens(25)].concat();
            let scored = tokens.len() - 25..tokens.len();
            requests.push(Request { task: 0, document, window, bytes: vec![0; 25], scored, tokens });
        }
    }
    let settings = Settings {
        chunk_tokens: 1 << 20,
        probe_tokens: Some(0),
        probe_linears: false,
        compare_weights: false,
        probe_requests: 0,
        share_prefixes,
        seed: 0,
        scratch_folder: std::env::temp_dir(),
    };
    let run = || evaluate::run(Base::Model(base), &[], &requests, VOCABULARY, &settings, &Silent).unwrap();
    run();
    let start = Instant::now();
    run();
    println!("{name:32} {:>7.2} samples/s", SAMPLES as f64 / start.elapsed().as_secs_f64());
}

/// New tokens per second of one model, in batches.
fn writing(base: &Decoder) {
    for batch in [1, 8, 32] {
        let prompts: Vec<Prompt> = (0..batch as u64)
            .map(|number| Prompt {
                tokens: (0..64).map(|t| ((number * 64 + t) * 977 % VOCABULARY as u64) as u32).collect(),
                max_new_tokens: 32,
                sampling: None,
                repeat: 0,
                number,
            })
            .collect();
        let settings = GenerateSettings { batch, memory: 4 << 30, end_of_sequence: Vec::new(), seed: 0 };
        let start = Instant::now();
        let written = generate(base, &prompts, &settings, &|_, _| false, &Silent).unwrap();
        let tokens: usize = written.iter().map(|answer| answer.tokens.len()).sum();
        let name = format!("writing, {batch} at once");
        println!("{name:32} {:>7.0} new tokens/s", tokens as f64 / start.elapsed().as_secs_f64());
    }
}

fn measure(
    name: &str,
    peak: f64,
    base: &Decoder,
    quants: &[Decoder],
    requests: &[Request],
    probe_tokens: Option<usize>,
) {
    let settings = Settings {
        chunk_tokens: 1 << 20,
        probe_tokens,
        probe_linears: false,
        compare_weights: probe_tokens != Some(0),
        probe_requests: usize::MAX,
        share_prefixes: true,
        seed: 0,
        scratch_folder: std::env::temp_dir(),
    };
    let run = || evaluate::run(Base::Model(base), quants, requests, VOCABULARY, &settings, &Silent).unwrap();
    run();
    let mut best = f64::INFINITY;
    let mut operations = 0.0;
    for _ in 0..2 {
        let start = Instant::now();
        operations = run().floating_point_operations;
        best = best.min(start.elapsed().as_secs_f64());
    }
    let tokens = requests.len() * WINDOW;
    let rate = operations / best;
    println!(
        "{name:32} {:>7.0} tok/s {:>8.1} GFLOP/s {:>6.1} %",
        (tokens * (quants.len() + 1)) as f64 / best,
        rate / 1e9,
        100.0 * rate / peak
    );
}

fn gemm_peak() -> f64 {
    const N: usize = 2048;
    let a = Tensor::randn(0f32, 1.0, (N, N), &Device::Cpu).unwrap();
    let b = Tensor::randn(0f32, 1.0, (N, N), &Device::Cpu).unwrap();
    let mut best = f64::INFINITY;
    for _ in 0..8 {
        let start = Instant::now();
        a.matmul(&b.t().unwrap()).unwrap();
        best = best.min(start.elapsed().as_secs_f64());
    }
    2.0 * (N * N * N) as f64 / best
}

fn requests() -> Vec<Request> {
    let mut state = 1u32;
    let mut token = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state % VOCABULARY as u32
    };
    (0..WINDOWS)
        .map(|window| Request {
            task: 0,
            document: 0,
            window: window as u32,
            tokens: std::iter::repeat_with(&mut token).take(WINDOW).collect(),
            scored: 1..WINDOW,
            bytes: vec![4; WINDOW - 1],
        })
        .collect()
}

fn open(path: &Path) -> Decoder {
    let checkpoint = Checkpoint::open(path).unwrap();
    let config = checkpoint.config().unwrap().unwrap();
    Decoder::open(&checkpoint, config, &Device::Cpu).unwrap()
}

/// (Hugging Face's name, GGUF's name, tensor).
fn random_weights() -> Vec<(String, String, Tensor)> {
    let random = |shape: &[usize]| Tensor::randn(0f32, 0.02, shape, &Device::Cpu).unwrap();
    let ones = || Tensor::ones(HIDDEN, candle_core::DType::F32, &Device::Cpu).unwrap();
    let mut weights = vec![
        ("model.embed_tokens.weight".into(), "token_embd.weight".into(), random(&[VOCABULARY, HIDDEN])),
        ("lm_head.weight".into(), "output.weight".into(), random(&[VOCABULARY, HIDDEN])),
        ("model.norm.weight".into(), "output_norm.weight".into(), ones()),
    ];
    for layer in 0..LAYERS {
        let mut push = |hf: &str, gguf: &str, tensor: Tensor| {
            weights.push((
                format!("model.layers.{layer}.{hf}.weight"),
                format!("blk.{layer}.{gguf}.weight"),
                tensor,
            ));
        };
        push("input_layernorm", "attn_norm", ones());
        push("post_attention_layernorm", "ffn_norm", ones());
        push("self_attn.q_proj", "attn_q", random(&[HIDDEN, HIDDEN]));
        push("self_attn.k_proj", "attn_k", random(&[HIDDEN, HIDDEN]));
        push("self_attn.v_proj", "attn_v", random(&[HIDDEN, HIDDEN]));
        push("self_attn.o_proj", "attn_output", random(&[HIDDEN, HIDDEN]));
        push("mlp.gate_proj", "ffn_gate", random(&[MLP, HIDDEN]));
        push("mlp.up_proj", "ffn_up", random(&[MLP, HIDDEN]));
        push("mlp.down_proj", "ffn_down", random(&[HIDDEN, MLP]));
    }
    weights
}

fn write_checkpoints(folder: &Path, weights: &[(String, String, Tensor)]) {
    let dense: HashMap<&str, Tensor> = weights.iter().map(|(hf, _, t)| (hf.as_str(), t.clone())).collect();
    candle_core::safetensors::save(&dense, folder.join("model.safetensors")).unwrap();
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "hidden_size": HIDDEN, "intermediate_size": MLP,
        "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": HEADS,
        "vocab_size": VOCABULARY, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "tie_word_embeddings": false, "hidden_act": "silu",
    });
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let quantized: Vec<(&str, QTensor)> = weights
        .iter()
        .map(|(_, gguf, tensor)| {
            let dtype = if tensor.dims().len() == 2 { GgmlDType::Q8_0 } else { GgmlDType::F32 };
            (gguf.as_str(), QTensor::quantize(tensor, dtype).unwrap())
        })
        .collect();
    let tensors: Vec<(&str, &QTensor)> = quantized.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let u32_value = |n: usize| gguf_file::Value::U32(n as u32);
    let metadata = [
        ("general.architecture", gguf_file::Value::String("llama".into())),
        ("llama.embedding_length", u32_value(HIDDEN)),
        ("llama.feed_forward_length", u32_value(MLP)),
        ("llama.block_count", u32_value(LAYERS)),
        ("llama.attention.head_count", u32_value(HEADS)),
        ("llama.attention.layer_norm_rms_epsilon", gguf_file::Value::F32(1e-5)),
        ("llama.context_length", u32_value(2048)),
    ];
    let metadata: Vec<(&str, &gguf_file::Value)> = metadata.iter().map(|(k, v)| (*k, v)).collect();
    let mut file = std::fs::File::create(folder.join("model.gguf")).unwrap();
    gguf_file::write(&mut file, &metadata, &tensors).unwrap();
}
