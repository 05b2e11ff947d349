//! GLM-4 (0414): norms on inputs and outputs, half of every head rotated in pairs.

use super::{
    Architecture, Gguf, HuggingFaceNames,
    common::{
        Silent, activation, attention, fused_gate_up, gated_mlp, gguf_piece_in_pairs, layer, model, rms,
        rotated_in_pairs, sizes,
    },
    stored::{Name, Piece},
};
use crate::{
    checkpoint::config::{
        Activation, Attention, FeedForward, LayerConfig, Mixer, ModelConfig, Norms,
        keys::Keys,
        rope::{RopeDefaults, WHOLE, rope},
    },
    error::Result,
};

/// `Glm4ForCausalLM`.
pub(super) static GLM4: Architecture = Architecture {
    class: "Glm4ForCausalLM",
    models: "GLM-4 (0414)",
    model_types: &["glm4"],
    gguf: Some(Gguf { name: "glm4", experts: false, settings: |_| Ok(()), piece: gguf_piece }),
    config,
    hugging_face: HuggingFaceNames { stem: "model", layers: "layers", modules: &[], piece },
};

fn config(architecture: &'static Architecture, keys: &Keys) -> Result<ModelConfig> {
    let sizes = sizes(keys, Silent { kv_heads: Some(2), head_dim: Some(128) })?;
    let bias = keys.flag("attention_bias")?.unwrap_or(true);
    let mlp = gated_mlp(keys, activation(keys, &["hidden_act"], Activation::Silu)?, false)?;
    let one = LayerConfig {
        norms: Norms::BOTH,
        ..layer(Mixer::Attention(Attention { bias, ..attention(&sizes) }), FeedForward::Mlp(mlp))
    };
    let model = model(architecture, keys, rms(keys, 1.5625e-7)?, false, vec![one; sizes.layers])?;
    let defaults = RopeDefaults { partial_rotary_factor: Some(0.5), ..WHOLE };
    Ok(ModelConfig { ropes: vec![rope(keys, sizes.head_dim, defaults)?], ..model })
}

fn piece(config: &ModelConfig, name: &Name) -> Option<Vec<Piece>> {
    let rotated = rotated_in_pairs(config, name, name.module);
    rotated.or_else(|| fused_gate_up(config, name, "mlp.gate_up_proj"))?.only()
}

fn gguf_piece(config: &ModelConfig, name: &Name) -> Option<Vec<Piece>> {
    match fused_gate_up(config, name, "ffn_up") {
        Some(fused) => fused.only(),
        None => gguf_piece_in_pairs(config, name),
    }
}
