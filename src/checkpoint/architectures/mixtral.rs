//! Mixtral: Mistral with experts. A GGUF of it calls itself a llama.

use serde_json::Value as Json;

use super::{
    Architecture, Gguf, HuggingFaceNames,
    common::{self, DERIVED, Silent, activation, attention, layer, model, rms, sizes, window},
    stored::{Name, Piece},
};
use crate::{
    checkpoint::config::{
        Activation, Attention, Experts, FeedForward, Mixer, Mlp, ModelConfig, Scoring,
        keys::Keys,
        rope::{RopeDefaults, WHOLE, rope},
    },
    error::Result,
};

/// `MixtralForCausalLM`.
pub(super) static MIXTRAL: Architecture = Architecture {
    class: "MixtralForCausalLM",
    models: "Mixtral 8x7B, 8x22B",
    model_types: &["mixtral"],
    gguf: Some(Gguf {
        name: "llama",
        experts: true,
        settings: |settings| {
            settings.put("sliding_window", Json::Null);
            Ok(())
        },
        piece: |config, name| common::gguf_piece_in_pairs(config, name),
    }),
    config,
    hugging_face: HuggingFaceNames {
        stem: "model",
        layers: "layers",
        modules: &[("mlp.gate", "block_sparse_moe.gate")],
        piece: expert,
    },
};

fn config(architecture: &'static Architecture, keys: &Keys) -> Result<ModelConfig> {
    let sizes = sizes(keys, Silent { kv_heads: Some(8), ..DERIVED })?;
    let window = window(keys, keys.get("sliding_window").is_some(), None)?;
    let experts = Experts {
        num_experts: keys.required_count(&["num_local_experts", "num_experts"])?,
        num_experts_per_tok: keys.count("num_experts_per_tok")?.unwrap_or(2),
        expert: Mlp {
            intermediate_size: keys.required_count(&["intermediate_size"])?,
            activation: activation(keys, &["hidden_act"], Activation::Silu)?,
            gated: true,
            bias: false,
        },
        scoring: Scoring::Softmax,
        norm_topk_prob: true,
        routed_scaling_factor: 1.0,
        groups: None,
        correction_bias: false,
        router_bias: false,
        shared: None,
    };
    let attention = Attention { window, ..attention(&sizes) };
    let layers = vec![layer(Mixer::Attention(attention), FeedForward::Experts(experts)); sizes.layers];
    let model = model(architecture, keys, rms(keys, 1e-5)?, false, layers)?;
    let defaults = RopeDefaults { theta: 1e6, ..WHOLE };
    Ok(ModelConfig { ropes: vec![rope(keys, sizes.head_dim, defaults)?], ..model })
}

/// Mistral's names of an expert's matrices.
fn expert(_: &ModelConfig, name: &Name) -> Option<Vec<Piece>> {
    let matrix = match name.module {
        "gate_proj" => "w1",
        "down_proj" => "w2",
        "up_proj" => "w3",
        _ => return None,
    };
    Piece::whole(format!("block_sparse_moe.experts.{}.{matrix}", name.expert?)).only()
}
