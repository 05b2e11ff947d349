//! GPT-Neo: learned positions, unscaled attention, every other layer with a window. llama.cpp has no such model.

use serde_json::Value as Json;

use super::{
    Architecture, HuggingFaceNames,
    common::{DERIVED, activation, attention, layer, layer_norm, model, sizes},
    gpt2,
    stored::{Name, Piece},
};
use crate::{
    checkpoint::config::{Activation, Attention, FeedForward, Mixer, Mlp, ModelConfig, keys::Keys},
    error::Result,
};

/// `GPTNeoForCausalLM`.
pub(super) static GPT_NEO: Architecture = Architecture {
    class: "GPTNeoForCausalLM",
    models: "GPT-Neo",
    model_types: &["gpt_neo"],
    gguf: None,
    config,
    hugging_face: HuggingFaceNames { stem: "transformer", layers: "h", modules: gpt2::MODULES, piece },
};

fn piece(_: &ModelConfig, name: &Name) -> Option<Vec<Piece>> {
    let module = match name.module {
        "self_attn.q_proj" => "attn.attention.q_proj",
        "self_attn.k_proj" => "attn.attention.k_proj",
        "self_attn.v_proj" => "attn.attention.v_proj",
        "self_attn.o_proj" => "attn.attention.out_proj",
        "mlp.up_proj" => "mlp.c_fc",
        "mlp.down_proj" => "mlp.c_proj",
        _ => return None,
    };
    Piece::whole(module).only()
}

fn config(architecture: &'static Architecture, keys: &Keys) -> Result<ModelConfig> {
    let sizes = sizes(keys, DERIVED)?;
    let window = keys.count("window_size")?.unwrap_or(256);
    let mlp = Mlp {
        intermediate_size: keys.count("intermediate_size")?.unwrap_or(4 * sizes.hidden),
        activation: activation(keys, &["activation_function"], Activation::GeluTanh)?,
        gated: false,
        bias: true,
    };
    let layers = patterns(keys, sizes.layers)?.into_iter().map(|local| {
        let window = Some(window).filter(|_| local);
        let attention = Attention { output_bias: true, rope: None, scale: 1.0, window, ..attention(&sizes) };
        layer(Mixer::Attention(attention), FeedForward::Mlp(mlp))
    });
    let model = model(architecture, keys, layer_norm(keys)?, true, layers.collect())?;
    Ok(ModelConfig { learned_positions: Some(model.max_position_embeddings), ..model })
}

/// Whether each layer is local: `attention_types` is a list of patterns with how often each comes.
fn patterns(keys: &Keys, layers: usize) -> Result<Vec<bool>> {
    let bad = || {
        let help = "it is a list like [[[\"global\", \"local\"], 12]]";
        keys.problem("attention_types", format!("does not describe {layers} layers"), help)
    };
    let local = |kind: &Json| match kind.as_str() {
        Some("global") => Ok(false),
        Some("local") => Ok(true),
        _ => Err(bad()),
    };
    if let Some(stated) = keys.per_layer("attention_layers", layers)? {
        return stated.iter().map(local).collect();
    }
    let Some(types) = keys.list("attention_types")? else {
        return Ok((0..layers).map(|index| index % 2 == 1).collect());
    };
    let mut all = Vec::new();
    for entry in types {
        let pattern =
            entry.get(0).and_then(Json::as_array).filter(|pattern| !pattern.is_empty()).ok_or_else(bad)?;
        let times = entry.get(1).and_then(Json::as_u64).ok_or_else(bad)?;
        for _ in 0..times {
            for kind in pattern {
                all.push(local(kind)?);
                if all.len() > layers {
                    return Err(bad());
                }
            }
        }
    }
    if all.len() == layers { Ok(all) } else { Err(bad()) }
}
