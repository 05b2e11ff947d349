//! gpt-oss: sinks, windows on every other layer, experts with biases and a clamped gate.

use serde_json::json;

use super::{
    Architecture, Gguf, HuggingFaceNames,
    common::{Silent, attention, gguf_piece as common_piece, layer, model, rms, sizes, sliding, window},
    stored::{Name, Piece},
};
use crate::{
    checkpoint::config::{
        Activation, Attention, Experts, FeedForward, Mixer, Mlp, ModelConfig, Scoring,
        gguf::GgufSettings,
        keys::Keys,
        rope::{RopeDefaults, WHOLE, block, of_block, rope},
    },
    error::Result,
};

/// `GptOssForCausalLM`.
pub(super) static GPT_OSS: Architecture = Architecture {
    class: "GptOssForCausalLM",
    models: "gpt-oss 20B, 120B",
    model_types: &["gpt_oss"],
    gguf: Some(Gguf { name: "gpt-oss", experts: true, settings: gguf, piece: gguf_piece }),
    config,
    hugging_face: HuggingFaceNames {
        stem: "model",
        layers: "layers",
        modules: &[("mlp.gate", "mlp.router")],
        piece,
    },
};

fn config(architecture: &'static Architecture, keys: &Keys) -> Result<ModelConfig> {
    let sizes = sizes(keys, Silent { kv_heads: Some(8), head_dim: Some(64) })?;
    let bias = keys.flag("attention_bias")?.unwrap_or(true);
    let general = Attention { bias, output_bias: bias, sinks: true, ..attention(&sizes) };
    let experts = Experts {
        num_experts: keys.required_count(&["num_local_experts", "num_experts"])?,
        num_experts_per_tok: keys.any_count(&["num_experts_per_tok", "experts_per_token"])?.unwrap_or(4),
        expert: Mlp {
            intermediate_size: keys.required_count(&["intermediate_size"])?,
            activation: Activation::ClampedSwiglu,
            gated: true,
            bias: true,
        },
        scoring: Scoring::SoftmaxOfChosen,
        norm_topk_prob: false,
        routed_scaling_factor: 1.0,
        groups: None,
        correction_bias: false,
        router_bias: true,
        shared: None,
    };
    keys.only_number("swiglu_limit", 7.0)?;
    let layers = sliding(keys, sizes.layers, |index| Ok(index % 2 == 0))?
        .into_iter()
        .map(|slides| {
            let attention = Attention { window: window(keys, slides, Some(128))?, ..general.clone() };
            Ok(layer(Mixer::Attention(attention), FeedForward::Experts(experts.clone())))
        })
        .collect::<Result<_>>()?;
    let model = model(architecture, keys, rms(keys, 1e-5)?, false, layers)?;
    let defaults = RopeDefaults { theta: 150_000.0, ..WHOLE };
    let rope = match block(keys)? {
        (_, Some(_)) => rope(keys, sizes.head_dim, defaults)?,
        (name, None) => {
            let usual = json!({
                "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": false,
                "original_max_position_embeddings": 4096
            });
            of_block(keys, name, &usual, sizes.head_dim, defaults)?
        }
    };
    Ok(ModelConfig { ropes: vec![rope], ..model })
}

/// Stacked, gate and up in turn, and turned round where they are not packed.
fn piece(config: &ModelConfig, name: &Name) -> Option<Vec<Piece>> {
    if name.is("self_attn.sinks") {
        return Piece::bare("self_attn.sinks").only();
    }
    let expert = name.expert?;
    let FeedForward::Experts(experts) = &config.layers.get(name.layer?)?.feed_forward else { return None };
    let (count, width, hidden) = (experts.num_experts, experts.expert.intermediate_size, config.hidden_size);
    let ending = if name.kind == "bias" { "_bias" } else { "" };
    let piece = match name.module {
        "down_proj" => Piece::bare(format!("mlp.experts.down_proj{ending}"))
            .rows(count * hidden, expert * hidden..(expert + 1) * hidden)
            .transposed(hidden),
        module => {
            let parity = usize::from(module == "up_proj");
            Piece::bare(format!("mlp.experts.gate_up_proj{ending}"))
                .rows(count * 2 * width, (0..width).map(|row| (expert * width + row) * 2 + parity))
                .transposed(2 * width)
        }
    };
    if name.kind == "bias" { Piece { transposed: None, ..piece }.only() } else { piece.only() }
}

fn gguf_piece(config: &ModelConfig, name: &Name) -> Option<Vec<Piece>> {
    match name.module {
        "self_attn.sinks" => Piece::bare("attn_sinks.weight").only(),
        // Not on the output, as elsewhere.
        "post_attention_layernorm" => Piece::whole("post_attention_norm").only(),
        _ => common_piece(config, name),
    }
}

fn gguf(settings: &mut GgufSettings) -> Result<()> {
    settings.copy("expert_feed_forward_length", "intermediate_size");
    settings.put("attention_bias", true);
    // Not stored; llama.cpp rounds the ramp's ends, which the model was not trained with.
    settings.put_rope("truncate", false);
    Ok(())
}
