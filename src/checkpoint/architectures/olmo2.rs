//! OLMo 2: norms on outputs, and over whole queries and keys.

use super::{
    Architecture, Gguf, HuggingFaceNames,
    common::{DERIVED, activation, attention, attention_bias, gated_mlp, layer, model, rms, sizes},
};
use crate::{
    checkpoint::config::{
        Activation, Attention, FeedForward, LayerConfig, Mixer, ModelConfig, Norms, QkNorm,
        keys::Keys,
        rope::{WHOLE, rope},
    },
    error::Result,
};

/// `Olmo2ForCausalLM`.
pub(super) static OLMO2: Architecture = Architecture {
    class: "Olmo2ForCausalLM",
    models: "OLMo 2",
    model_types: &["olmo2"],
    gguf: Some(Gguf { name: "olmo2", experts: false, settings: |_| Ok(()), piece: |_, _| None }),
    config,
    hugging_face: HuggingFaceNames {
        stem: "model",
        layers: "layers",
        modules: &[
            ("post_self_attn_layernorm", "post_attention_layernorm"),
            ("post_mlp_layernorm", "post_feedforward_layernorm"),
        ],
        piece: |_, _| None,
    },
};

fn config(architecture: &'static Architecture, keys: &Keys) -> Result<ModelConfig> {
    let sizes = sizes(keys, DERIVED)?;
    if keys.is_gguf() && keys.get("sliding_window").is_some() {
        // Olmo 3 shares llama.cpp's name.
        return Err(keys.not_implemented("sliding_window", "OLMo 2, which has no window"));
    }
    let attention =
        Attention { qk_norm: Some(QkNorm::Projection), ..attention_bias(keys, attention(&sizes))? };
    let mlp = gated_mlp(keys, activation(keys, &["hidden_act"], Activation::Silu)?, false)?;
    let one = LayerConfig { norms: Norms::POST, ..layer(Mixer::Attention(attention), FeedForward::Mlp(mlp)) };
    let model = model(architecture, keys, rms(keys, 1e-5)?, false, vec![one; sizes.layers])?;
    Ok(ModelConfig { ropes: vec![rope(keys, sizes.head_dim, WHOLE)?], ..model })
}
