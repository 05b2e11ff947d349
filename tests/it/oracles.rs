//! The decoder against candle-transformers, which shares no model code with it.

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{llama, qwen2};
use qeval::{checkpoint::Checkpoint, evaluate::trace, model::Decoder};

use crate::support::shared;

fn ours(folder: &str, tokens: &[u32]) -> Option<(Decoder, Tensor)> {
    let checkpoint = Checkpoint::open(&shared(folder)?).unwrap();
    let config = checkpoint.config().unwrap().unwrap();
    let decoder = Decoder::open(&checkpoint, config, &Device::Cpu).unwrap();
    let logits = trace::trace(&decoder, tokens).unwrap().logits;
    Some((decoder, logits))
}

fn weights(folder: &str) -> VarBuilder<'static> {
    let path = shared(folder).unwrap().join("model.safetensors");
    let tensors = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu)
}

fn last_row_difference(ours: &Tensor, theirs: &Tensor) -> f32 {
    let last = ours.get(ours.dim(0).unwrap() - 1).unwrap();
    let theirs = theirs.flatten_all().unwrap().to_dtype(DType::F32).unwrap();
    (last - theirs).unwrap().abs().unwrap().max(0).unwrap().to_scalar().unwrap()
}

#[test]
fn llama_equals_candle_transformers() {
    let tokens: Vec<u32> = (0..100).map(|i| (i * 37 + 5) % 512).collect();
    let Some((decoder, logits)) = ours("models/stories260k", &tokens) else { return };
    let config = llama::Config {
        hidden_size: decoder.config.hidden_size,
        intermediate_size: decoder.config.intermediate_size,
        vocab_size: decoder.config.vocab_size,
        num_hidden_layers: decoder.config.num_hidden_layers,
        num_attention_heads: decoder.config.num_attention_heads,
        num_key_value_heads: decoder.config.num_key_value_heads,
        use_flash_attn: false,
        rms_norm_eps: decoder.config.rms_norm_eps,
        rope_theta: 10_000.0,
        bos_token_id: None,
        eos_token_id: None,
        rope_scaling: None,
        max_position_embeddings: 512,
        tie_word_embeddings: true,
    };
    let mut cache = llama::Cache::new(false, DType::F32, &config, &Device::Cpu).unwrap();
    let model = llama::Llama::load(weights("models/stories260k"), &config).unwrap();
    let input = Tensor::new(tokens.as_slice(), &Device::Cpu).unwrap().unsqueeze(0).unwrap();
    let theirs = model.forward(&input, 0, &mut cache).unwrap();
    assert!(last_row_difference(&logits, &theirs) < 1e-4);
}

#[test]
fn qwen2_equals_candle_transformers() {
    let tokens: Vec<u32> = (0..200).map(|i| (i * 101 + 7) % 4096).collect();
    let Some((_, logits)) = ours("models/polyglot6m", &tokens) else { return };
    let json = std::fs::read_to_string(shared("models/polyglot6m").unwrap().join("config.json")).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&json).unwrap();
    json["rope_theta"] = 10_000.0.into();
    json["sliding_window"] = 1024.into();
    let config: qwen2::Config = serde_json::from_value(json).unwrap();
    let mut model = qwen2::ModelForCausalLM::new(&config, weights("models/polyglot6m")).unwrap();
    let input = Tensor::new(tokens.as_slice(), &Device::Cpu).unwrap().unsqueeze(0).unwrap();
    let theirs = model.forward(&input, 0).unwrap();
    assert!(last_row_difference(&logits, &theirs) < 1e-3);
}
