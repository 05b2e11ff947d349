//! SmolLM3: a Llama of which every fourth layer does not rotate.

use serde_json::Value as Json;

use super::{
    Architecture, Gguf,
    common::{
        DERIVED, Silent, activation, attention, attention_bias, gated_mlp, gguf_piece_in_pairs, layer, model,
        rms, sizes, sliding, window,
    },
    llama,
};
use crate::{
    checkpoint::config::{
        Activation, Attention, FeedForward, Mixer, ModelConfig,
        keys::Keys,
        rope::{RopeDefaults, WHOLE, rope},
    },
    error::Result,
};

/// `SmolLM3ForCausalLM`.
pub(super) static SMOLLM3: Architecture = Architecture {
    class: "SmolLM3ForCausalLM",
    models: "SmolLM3",
    model_types: &["smollm3"],
    // Which layers rotate is not stored: llama.cpp has every fourth fixed, as the default is here.
    gguf: Some(Gguf { name: "smollm3", experts: false, settings: |_| Ok(()), piece: gguf_piece_in_pairs }),
    config,
    hugging_face: llama::NAMES,
};

fn config(architecture: &'static Architecture, keys: &Keys) -> Result<ModelConfig> {
    let sizes = sizes(keys, Silent { kv_heads: Some(4), ..DERIVED })?;
    let general = attention_bias(keys, attention(&sizes))?;
    let mlp = gated_mlp(keys, activation(keys, &["hidden_act"], Activation::Silu)?, true)?;
    let interval = keys.count("no_rope_layer_interval")?.unwrap_or(4);
    let stated = keys.per_layer("no_rope_layers", sizes.layers)?;
    // 1 where a layer rotates, whatever the name says.
    let rotates = |index: usize| match stated.map(|list| &list[index]) {
        None => Ok(!(index + 1).is_multiple_of(interval)),
        Some(Json::Number(number)) => Ok(number.as_u64() != Some(0)),
        Some(Json::Bool(flag)) => Ok(*flag),
        Some(other) => {
            Err(keys.problem("no_rope_layers", format!("{other} is neither 0 nor 1"), "correct the file"))
        }
    };
    let use_window =
        keys.flag("use_sliding_window")?.unwrap_or(false) && keys.get("sliding_window").is_some();
    let layers = sliding(keys, sizes.layers, |index| Ok(use_window && !rotates(index)?))?
        .into_iter()
        .enumerate()
        .map(|(index, slides)| {
            let rope = if rotates(index)? { Some(0) } else { None };
            let attention = Attention { rope, window: window(keys, slides, None)?, ..general.clone() };
            Ok(layer(Mixer::Attention(attention), FeedForward::Mlp(mlp)))
        })
        .collect::<Result<_>>()?;
    let model = model(architecture, keys, rms(keys, 1e-6)?, true, layers)?;
    let defaults = RopeDefaults { theta: 2e6, ..WHOLE };
    Ok(ModelConfig { ropes: vec![rope(keys, sizes.head_dim, defaults)?], ..model })
}
