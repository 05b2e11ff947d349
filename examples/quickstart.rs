//! The main job on a machine that has no model: makes a tiny seeded checkpoint, a GGUF of it in Q8_0 and
//! in Q4_K, and compares them, exactly as `qeval compare` would.
//!
//! The weights are random, so the figures say nothing about real models; what they show is the report.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::{collections::HashMap, path::Path, process::ExitCode};

use candle_core::{
    Device, Tensor,
    quantized::{GgmlDType, QTensor, gguf_file},
};
use clap::Parser;
use qeval::cli;

const HIDDEN: usize = 256;
const MLP: usize = 512;
const LAYERS: usize = 4;
const HEADS: usize = 4;
/// Bytes, as a byte-level tokenizer without merges has them.
const VOCABULARY: usize = 256;

fn main() -> ExitCode {
    let folder = std::env::temp_dir().join("qeval-quickstart");
    std::fs::create_dir_all(&folder).unwrap();
    let weights = weights();
    write_safetensors(&folder, &weights);
    write_tokenizer(&folder);
    write_gguf(&folder.join("tiny-Q8_0.gguf"), &weights, GgmlDType::Q8_0);
    write_gguf(&folder.join("tiny-Q4_K.gguf"), &weights, GgmlDType::Q4K);
    let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let arguments = [
        "qeval",
        "compare",
        &path("model.safetensors"),
        &path("tiny-Q8_0.gguf"),
        &path("tiny-Q4_K.gguf"),
        "--out",
        &path("report"),
    ];
    println!("$ {}\n", arguments.join(" "));
    match cli::run(cli::Cli::parse_from(arguments)) {
        Ok(outcome) => ExitCode::from(outcome.exit_code()),
        Err(error) => {
            cli::report_error(&error);
            ExitCode::from(2)
        }
    }
}

/// Seeded values of standard deviation `scale`, near normal (the sum of four uniform ones).
fn random(seed: &mut u64, shape: &[usize], scale: f32) -> Tensor {
    let mut uniform = || {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    let values: Vec<f32> =
        (0..shape.iter().product()).map(|_| (0..4).map(|_| uniform()).sum::<f32>() * scale * 1.732).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// (Hugging Face's name, GGUF's name, tensor).
fn weights() -> Vec<(String, String, Tensor)> {
    let mut seed = 2026;
    let ones = || Tensor::ones(HIDDEN, candle_core::DType::F32, &Device::Cpu).unwrap();
    let mut all = vec![
        ("model.embed_tokens".into(), "token_embd".into(), random(&mut seed, &[VOCABULARY, HIDDEN], 1.0)),
        ("model.norm".into(), "output_norm".into(), ones()),
        ("lm_head".into(), "output".into(), random(&mut seed, &[VOCABULARY, HIDDEN], 0.06)),
    ];
    for layer in 0..LAYERS {
        let mut push = |hf: &str, gguf: &str, tensor| {
            all.push((format!("model.layers.{layer}.{hf}"), format!("blk.{layer}.{gguf}"), tensor));
        };
        push("input_layernorm", "attn_norm", ones());
        push("post_attention_layernorm", "ffn_norm", ones());
        for (hf, gguf, shape) in [
            ("self_attn.q_proj", "attn_q", [HIDDEN, HIDDEN]),
            ("self_attn.k_proj", "attn_k", [HIDDEN, HIDDEN]),
            ("self_attn.v_proj", "attn_v", [HIDDEN, HIDDEN]),
            ("self_attn.o_proj", "attn_output", [HIDDEN, HIDDEN]),
            ("mlp.gate_proj", "ffn_gate", [MLP, HIDDEN]),
            ("mlp.up_proj", "ffn_up", [MLP, HIDDEN]),
            ("mlp.down_proj", "ffn_down", [HIDDEN, MLP]),
        ] {
            push(hf, gguf, random(&mut seed, &shape, 0.06));
        }
    }
    all
}

fn write_safetensors(folder: &Path, weights: &[(String, String, Tensor)]) {
    let tensors: HashMap<String, Tensor> =
        weights.iter().map(|(hf, _, tensor)| (format!("{hf}.weight"), tensor.clone())).collect();
    candle_core::safetensors::save(&tensors, folder.join("model.safetensors")).unwrap();
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "hidden_size": HIDDEN, "intermediate_size": MLP,
        "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": HEADS,
        "vocab_size": VOCABULARY, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "tie_word_embeddings": false, "hidden_act": "silu",
    });
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
}

/// One token per byte, no merges.
fn write_tokenizer(folder: &Path) {
    // GPT-2's printable stand-ins for bytes.
    let printable =
        |byte: u32| (33..127).contains(&byte) || (161..173).contains(&byte) || (174..256).contains(&byte);
    let mut shifted = 0;
    let mut vocabulary = serde_json::Map::new();
    for byte in 0..256u32 {
        let code = if printable(byte) {
            byte
        } else {
            256 + {
                shifted += 1;
                shifted - 1
            }
        };
        vocabulary.insert(char::from_u32(code).unwrap().to_string(), byte.into());
    }
    let byte_level = serde_json::json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false,
    });
    let tokenizer = serde_json::json!({
        "version": "1.0", "added_tokens": [], "normalizer": null, "post_processor": null,
        "pre_tokenizer": byte_level, "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
    });
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
}

/// The rows of q and k as llama.cpp's converter orders them: per head, the two rotary halves interleaved.
fn interleaved(tensor: &Tensor) -> Tensor {
    let half = HIDDEN / HEADS / 2;
    let split = tensor.reshape((HEADS, 2, half, HIDDEN)).unwrap();
    split.transpose(1, 2).unwrap().contiguous().unwrap().reshape((HIDDEN, HIDDEN)).unwrap()
}

fn write_gguf(path: &Path, weights: &[(String, String, Tensor)], encoding: GgmlDType) {
    let tensors: Vec<(String, QTensor)> = weights
        .iter()
        .map(|(_, gguf, tensor)| {
            let rotary = gguf.ends_with("attn_q") || gguf.ends_with("attn_k");
            let tensor = if rotary { interleaved(tensor) } else { tensor.clone() };
            let encoding = if tensor.dims().len() == 2 { encoding } else { GgmlDType::F32 };
            (format!("{gguf}.weight"), QTensor::quantize(&tensor, encoding).unwrap())
        })
        .collect();
    let number = |n: usize| gguf_file::Value::U32(n as u32);
    let metadata = [
        ("general.architecture", gguf_file::Value::String("llama".into())),
        ("llama.embedding_length", number(HIDDEN)),
        ("llama.feed_forward_length", number(MLP)),
        ("llama.block_count", number(LAYERS)),
        ("llama.attention.head_count", number(HEADS)),
        ("llama.attention.layer_norm_rms_epsilon", gguf_file::Value::F32(1e-5)),
        ("llama.context_length", number(2048)),
    ];
    let metadata: Vec<_> = metadata.iter().map(|(key, value)| (*key, value)).collect();
    let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    gguf_file::write(&mut std::fs::File::create(path).unwrap(), &metadata, &tensors).unwrap();
}
