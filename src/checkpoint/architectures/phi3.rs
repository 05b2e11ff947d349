//! Phi-3 and Phi-4: q, k and v in one matrix, gate and up in another, LongRoPE.

use serde_json::Value as Json;

use super::{
    Architecture, Gguf, HuggingFaceNames,
    common::{
        DERIVED, activation, attention, fused_gate_up, fused_qkv, gated_mlp, layer, model, rms, sizes, window,
    },
    stored::{Name, Piece},
};
use crate::{
    checkpoint::config::{
        Activation, Attention, FeedForward, Mixer, ModelConfig,
        gguf::GgufSettings,
        keys::Keys,
        rope::{RopeDefaults, WHOLE, block, of_block},
    },
    error::Result,
};

/// `Phi3ForCausalLM`.
pub(super) static PHI3: Architecture = Architecture {
    class: "Phi3ForCausalLM",
    models: "Phi-3, Phi-3.5, Phi-4",
    model_types: &["phi3"],
    gguf: Some(Gguf { name: "phi3", experts: false, settings: gguf, piece: gguf_piece }),
    config,
    hugging_face: HuggingFaceNames { stem: "model", layers: "layers", modules: &[], piece },
};

fn config(architecture: &'static Architecture, keys: &Keys) -> Result<ModelConfig> {
    let sizes = sizes(keys, DERIVED)?;
    let window = window(keys, keys.get("sliding_window").is_some(), None)?;
    let attention = Attention { window, ..attention(&sizes) };
    let mlp = gated_mlp(keys, activation(keys, &["hidden_act"], Activation::Silu)?, false)?;
    let layers = vec![layer(Mixer::Attention(attention), FeedForward::Mlp(mlp)); sizes.layers];
    let model = model(architecture, keys, rms(keys, 1e-5)?, false, layers)?;
    let defaults = RopeDefaults { partial_rotary_factor: Some(1.0), original: Some(4096.0), ..WHOLE };
    // transformers takes what its first configs call YaRN for LongRoPE, too.
    let (key, json) = block(keys)?;
    let mut json = json.and_then(Json::as_object).cloned().unwrap_or_default();
    if json.get("rope_type").or(json.get("type")).and_then(Json::as_str) == Some("yarn") {
        json.insert("rope_type".to_owned(), Json::from("longrope"));
    }
    let rope = of_block(keys, key, &Json::Object(json), sizes.head_dim, defaults)?;
    Ok(ModelConfig { ropes: vec![rope], ..model })
}

fn piece(config: &ModelConfig, name: &Name) -> Option<Vec<Piece>> {
    let fused = fused_qkv(config, name, "self_attn.qkv_proj");
    fused.or_else(|| fused_gate_up(config, name, "mlp.gate_up_proj"))?.only()
}

fn gguf_piece(config: &ModelConfig, name: &Name) -> Option<Vec<Piece>> {
    let fused = fused_qkv(config, name, "attn_qkv");
    fused.or_else(|| fused_gate_up(config, name, "ffn_up"))?.only()
}

/// The window is stored, but llama.cpp does not apply it; LongRoPE's divisors are tensors.
fn gguf(settings: &mut GgufSettings) -> Result<()> {
    settings.put("sliding_window", Json::Null);
    settings.long_rope()
}
