//! GPT-NeoX (Pythia): attention and MLP side by side, q, k and v of each head together.

use serde_json::Value as Json;

use super::{
    Architecture, Gguf, HuggingFaceNames,
    common::{DERIVED, activation, attention, attention_of, fused_qkv, layer, layer_norm, model, sizes},
    stored::{Name, Piece},
};
use crate::{
    checkpoint::config::{
        Activation, Attention, FeedForward, LayerConfig, Mixer, Mlp, ModelConfig,
        gguf::GgufSettings,
        keys::Keys,
        rope::{RopeDefaults, WHOLE, block, of_block},
    },
    error::Result,
};

/// `GPTNeoXForCausalLM`.
pub(super) static GPT_NEOX: Architecture = Architecture {
    class: "GPTNeoXForCausalLM",
    models: "GPT-NeoX, Pythia",
    model_types: &["gpt_neox"],
    gguf: Some(Gguf { name: "gptneox", experts: false, settings: gguf, piece: gguf_piece }),
    config,
    hugging_face: HuggingFaceNames {
        stem: "gpt_neox",
        layers: "layers",
        modules: &[
            ("embed_tokens", "embed_in"),
            ("norm", "final_layer_norm"),
            ("lm_head", "embed_out"),
            ("self_attn.o_proj", "attention.dense"),
            ("mlp.up_proj", "mlp.dense_h_to_4h"),
            ("mlp.down_proj", "mlp.dense_4h_to_h"),
        ],
        piece,
    },
};

fn config(architecture: &'static Architecture, keys: &Keys) -> Result<ModelConfig> {
    let found = sizes(keys, DERIVED)?;
    // Keys and values have as many heads as queries, whatever else the config says.
    let sizes = super::common::Sizes { kv_heads: found.heads, head_dim: found.hidden / found.heads, ..found };
    let bias = keys.flag("attention_bias")?.unwrap_or(true);
    let attention = Attention { bias, output_bias: bias, ..attention(&sizes) };
    let mlp = Mlp {
        intermediate_size: keys.required_count(&["intermediate_size"])?,
        activation: activation(keys, &["hidden_act"], Activation::Gelu)?,
        gated: false,
        bias: true,
    };
    let one = LayerConfig {
        parallel: keys.flag("use_parallel_residual")?.unwrap_or(true),
        ..layer(Mixer::Attention(attention), FeedForward::Mlp(mlp))
    };
    let model = model(architecture, keys, layer_norm(keys)?, false, vec![one; sizes.layers])?;
    // Beside the block it has names of its own for both.
    let theta = keys.positive("rotary_emb_base")?.unwrap_or(10_000.0);
    let share = match keys.is_gguf() {
        true => None,
        false => Some(keys.positive("rotary_pct")?.unwrap_or(0.25)),
    };
    let (key, json) = block(keys)?;
    let mut json = json.and_then(Json::as_object).cloned().unwrap_or_default();
    json.entry("rope_theta").or_insert(theta.into());
    if let Some(share) = share {
        json.entry("partial_rotary_factor").or_insert(share.into());
    }
    let defaults = RopeDefaults { partial_rotary_factor: Some(1.0), ..WHOLE };
    let rope = of_block(keys, key, &Json::Object(json), sizes.head_dim, defaults)?;
    Ok(ModelConfig { ropes: vec![rope], ..model })
}

/// Of each head q, k and v, one after the other.
fn piece(config: &ModelConfig, name: &Name) -> Option<Vec<Piece>> {
    let part =
        ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"].iter().position(|m| name.is(m))?;
    let attention = attention_of(config, name)?;
    let (heads, width) = (attention.num_attention_heads, attention.head_dim);
    let rows = (0..heads).flat_map(|head| (0..width).map(move |row| (3 * head + part) * width + row));
    Piece::whole("attention.query_key_value").rows(3 * heads * width, rows).only()
}

fn gguf_piece(config: &ModelConfig, name: &Name) -> Option<Vec<Piece>> {
    fused_qkv(config, name, "attn_qkv")?.only()
}

fn gguf(settings: &mut GgufSettings) -> Result<()> {
    settings.copy("use_parallel_residual", "use_parallel_residual");
    Ok(())
}
