//! Granite: a Llama with multipliers on embedding, attention, residual stream and logits.

use super::{Architecture, Gguf, common::gguf_piece_in_pairs, llama};
use crate::{
    checkpoint::config::{Attention, LayerConfig, Mixer, ModelConfig, gguf::GgufSettings, keys::Keys},
    error::Result,
};

/// `GraniteForCausalLM`.
pub(super) static GRANITE: Architecture = Architecture {
    class: "GraniteForCausalLM",
    models: "Granite 3",
    model_types: &["granite"],
    gguf: Some(Gguf { name: "granite", experts: false, settings: gguf, piece: gguf_piece_in_pairs }),
    config,
    hugging_face: llama::NAMES,
};

fn config(architecture: &'static Architecture, keys: &Keys) -> Result<ModelConfig> {
    let model = llama::llama(architecture, keys)?;
    let multiplier = |key: &str| Ok::<_, crate::error::Error>(keys.positive(key)?.unwrap_or(1.0));
    let (scale, residual_multiplier) =
        (multiplier("attention_multiplier")?, multiplier("residual_multiplier")?);
    let layers = model.layers.into_iter().map(|layer| match layer.mixer {
        Mixer::Attention(attention) => LayerConfig {
            mixer: Mixer::Attention(Attention { scale, ..attention }),
            residual_multiplier,
            ..layer
        },
        _ => layer,
    });
    Ok(ModelConfig {
        layers: layers.collect(),
        embedding_multiplier: multiplier("embedding_multiplier")?,
        logits_divisor: multiplier("logits_scaling")?,
        ..model
    })
}

/// An absent scale of the attention is the usual one there, 1 here.
fn gguf(settings: &mut GgufSettings) -> Result<()> {
    settings.copy("attention.scale", "attention_multiplier");
    settings.copy("embedding_scale", "embedding_multiplier");
    settings.copy("residual_scale", "residual_multiplier");
    settings.copy("logit_scale", "logits_scaling");
    if !settings.has("attention_multiplier") {
        let width = settings.head_dim()?;
        settings.put("attention_multiplier", 1.0 / (width as f64).sqrt());
    }
    Ok(())
}
