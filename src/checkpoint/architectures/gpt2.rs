//! GPT-2: learned positions, matrices stored the other way round.

use super::{
    Architecture, Gguf, HuggingFaceNames,
    common::{
        DERIVED, activation, attention, attention_of, fused_qkv, layer, layer_norm, mlp_of, model, sizes,
    },
    stored::{Name, Piece},
};
use crate::{
    checkpoint::config::{Activation, Attention, FeedForward, Mixer, Mlp, ModelConfig, keys::Keys},
    error::Result,
};

/// `GPT2LMHeadModel`.
pub(super) static GPT2: Architecture = Architecture {
    class: "GPT2LMHeadModel",
    models: "GPT-2",
    model_types: &["gpt2"],
    gguf: Some(Gguf { name: "gpt2", experts: false, settings: |_| Ok(()), piece: gguf_piece }),
    config,
    hugging_face: HuggingFaceNames { stem: "transformer", layers: "h", modules: MODULES, piece },
};

/// What GPT-Neo calls alike.
pub(super) const MODULES: &[(&str, &str)] = &[
    ("embed_tokens", "wte"),
    ("embed_positions", "wpe"),
    ("norm", "ln_f"),
    ("input_layernorm", "ln_1"),
    ("post_attention_layernorm", "ln_2"),
];

fn config(architecture: &'static Architecture, keys: &Keys) -> Result<ModelConfig> {
    keys.only_flag("add_cross_attention", false)?;
    let sizes = sizes(keys, DERIVED)?;
    let scaled = keys.flag("scale_attn_weights")?.unwrap_or(true);
    let by_layer = keys.flag("scale_attn_by_inverse_layer_idx")?.unwrap_or(false);
    let mlp = Mlp {
        intermediate_size: keys.any_count(&["n_inner", "intermediate_size"])?.unwrap_or(4 * sizes.hidden),
        activation: activation(keys, &["activation_function"], Activation::GeluTanh)?,
        gated: false,
        bias: true,
    };
    let layers = (0..sizes.layers).map(|index| {
        let general = attention(&sizes);
        let scale = if scaled { general.scale } else { 1.0 };
        let scale = if by_layer { scale / (index + 1) as f64 } else { scale };
        let attention = Attention { bias: true, output_bias: true, rope: None, scale, ..general };
        layer(Mixer::Attention(attention), FeedForward::Mlp(mlp))
    });
    let model = model(architecture, keys, layer_norm(keys)?, true, layers.collect())?;
    Ok(ModelConfig { learned_positions: Some(model.max_position_embeddings), ..model })
}

/// `[in, out]` where others have `[out, in]`; q, k and v in one. The first checkpoints have no stem.
fn piece(config: &ModelConfig, name: &Name) -> Option<Vec<Piece>> {
    let transposed = |piece: Piece, width: usize| match name.kind {
        "weight" => piece.transposed(width),
        _ => piece,
    };
    let hidden = config.hidden_size;
    let piece = match name.module {
        "self_attn.o_proj" => transposed(Piece::whole("attn.c_proj"), hidden),
        "mlp.up_proj" => transposed(Piece::whole("mlp.c_fc"), mlp_of(config, name)?.intermediate_size),
        "mlp.down_proj" => transposed(Piece::whole("mlp.c_proj"), hidden),
        _ => {
            let fused = fused_qkv(config, name, "attn.c_attn")?;
            let attention = attention_of(config, name)?;
            transposed(fused, 3 * attention.num_attention_heads * attention.head_dim)
        }
    };
    piece.only()
}

fn gguf_piece(config: &ModelConfig, name: &Name) -> Option<Vec<Piece>> {
    fused_qkv(config, name, "attn_qkv")?.only()
}
