//! Llama and Mistral: the pattern that the others vary.

use super::{
    Architecture, Gguf, HuggingFaceNames,
    common::{
        DERIVED, Silent, activation, attention, attention_bias, gated_mlp, gguf_piece_in_pairs, layer, model,
        rms, sizes, window_of_all,
    },
};
use crate::{
    checkpoint::config::{
        Activation, Attention, FeedForward, Mixer, ModelConfig,
        keys::Keys,
        rope::{WHOLE, rope},
    },
    error::Result,
};

/// Names as the model has them.
pub(super) const NAMES: HuggingFaceNames =
    HuggingFaceNames { stem: "model", layers: "layers", modules: &[], piece: |_, _| None };

/// What llama.cpp makes of Llamas: q and k permuted, nothing said beyond the common keys.
pub(super) const GGUF: Gguf =
    Gguf { name: "llama", experts: false, settings: |_| Ok(()), piece: gguf_piece_in_pairs };

/// `LlamaForCausalLM`.
pub(super) static LLAMA: Architecture = Architecture {
    class: "LlamaForCausalLM",
    models: "Llama 1 to 3, Yi, R1-Distill-Llama",
    model_types: &["llama"],
    gguf: Some(GGUF),
    config: llama,
    hugging_face: NAMES,
};

/// `MistralForCausalLM`: a window on every layer. A GGUF of it is a Llama's, and does not know the window.
pub(super) static MISTRAL: Architecture = Architecture {
    class: "MistralForCausalLM",
    models: "Mistral 7B, Nemo, Ministral",
    model_types: &["mistral"],
    gguf: Some(GGUF),
    config: mistral,
    hugging_face: NAMES,
};

/// Also where a family differs from it by multipliers alone.
pub(super) fn llama(architecture: &'static Architecture, keys: &Keys) -> Result<ModelConfig> {
    let sizes = sizes(keys, DERIVED)?;
    let attention = attention_bias(keys, attention(&sizes))?;
    let mlp = gated_mlp(keys, activation(keys, &["hidden_act"], Activation::Silu)?, true)?;
    let layers = vec![layer(Mixer::Attention(attention), FeedForward::Mlp(mlp)); sizes.layers];
    let model = model(architecture, keys, rms(keys, 1e-6)?, false, layers)?;
    Ok(ModelConfig { ropes: vec![rope(keys, sizes.head_dim, WHOLE)?], ..model })
}

fn mistral(architecture: &'static Architecture, keys: &Keys) -> Result<ModelConfig> {
    let sizes = sizes(keys, Silent { kv_heads: Some(8), ..DERIVED })?;
    let mlp = gated_mlp(keys, activation(keys, &["hidden_act"], Activation::Silu)?, false)?;
    let attention = Attention { window: window_of_all(keys, 4096)?, ..attention(&sizes) };
    let layers = vec![layer(Mixer::Attention(attention), FeedForward::Mlp(mlp)); sizes.layers];
    let model = model(architecture, keys, rms(keys, 1e-6)?, false, layers)?;
    Ok(ModelConfig { ropes: vec![rope(keys, sizes.head_dim, WHOLE)?], ..model })
}
