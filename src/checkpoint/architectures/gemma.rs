//! Gemma 1, 2 and 3: norms stored as what they differ from 1 by, a scaled embedding, windows on most layers.

use serde_json::{Value as Json, json};

use super::{
    Architecture, Gguf, HuggingFaceNames,
    common::{
        Silent, activation, attention, attention_bias, gated_mlp, layer, model, only_causal, rms, sizes,
        sliding, window,
    },
    stored::{Map, Name, Piece, as_it_is},
};
use crate::{
    checkpoint::config::{
        Activation, Attention, FeedForward, LayerConfig, Mixer, ModelConfig, Norms, QkNorm, RopeConfig,
        gguf::GgufSettings,
        keys::Keys,
        rope::{RopeDefaults, WHOLE, block, of_block, rope},
    },
    error::Result,
};

/// `GemmaForCausalLM`.
pub(super) static GEMMA: Architecture = Architecture {
    class: "GemmaForCausalLM",
    models: "Gemma 1",
    model_types: &["gemma"],
    gguf: Some(Gguf { name: "gemma", experts: false, settings: |_| Ok(()), piece: |_, _| None }),
    config: gemma,
    hugging_face: HuggingFaceNames { stem: "model", layers: "layers", modules: &[], piece: norms_less_one },
};

/// `Gemma2ForCausalLM`.
pub(super) static GEMMA2: Architecture = Architecture {
    class: "Gemma2ForCausalLM",
    models: "Gemma 2",
    model_types: &["gemma2"],
    gguf: Some(Gguf { name: "gemma2", experts: false, settings: gemma2_settings, piece: |_, _| None }),
    config: gemma2,
    hugging_face: NAMES,
};

/// `Gemma3ForCausalLM`: norms on queries and keys, another base of the rotation where a window is.
pub(super) static GEMMA3: Architecture = Architecture {
    class: "Gemma3ForCausalLM",
    models: "Gemma 3 (its text)",
    model_types: &["gemma3_text"],
    gguf: Some(Gguf { name: "gemma3", experts: false, settings: gemma3_settings, piece: |_, _| None }),
    config: gemma3,
    hugging_face: NAMES,
};

/// Norms on inputs and outputs: its "post attention" norm is on the output.
const NAMES: HuggingFaceNames = HuggingFaceNames {
    stem: "model",
    layers: "layers",
    modules: &[
        ("post_self_attn_layernorm", "post_attention_layernorm"),
        ("post_attention_layernorm", "pre_feedforward_layernorm"),
        ("post_mlp_layernorm", "post_feedforward_layernorm"),
    ],
    piece: norms_less_one,
};

fn norms_less_one(config: &ModelConfig, name: &Name) -> Option<Vec<Piece>> {
    let is_norm = name.is("norm") || name.module.ends_with("norm");
    is_norm.then(|| vec![as_it_is(config.architecture, name).map(Map::PlusOne)])
}

fn silent(kv_heads: usize) -> Silent {
    Silent { kv_heads: Some(kv_heads), head_dim: Some(256) }
}

fn scaled_embedding(model: ModelConfig) -> ModelConfig {
    ModelConfig { embedding_multiplier: (model.hidden_size as f64).sqrt(), ..model }
}

fn gemma(architecture: &'static Architecture, keys: &Keys) -> Result<ModelConfig> {
    only_causal(keys)?;
    let sizes = sizes(keys, silent(16))?;
    let attention = attention_bias(keys, attention(&sizes))?;
    // As transformers reads it; the others have another key for it.
    let mlp = gated_mlp(keys, activation(keys, &["hidden_act"], Activation::GeluTanh)?, false)?;
    let layers = vec![layer(Mixer::Attention(attention), FeedForward::Mlp(mlp)); sizes.layers];
    let model = scaled_embedding(model(architecture, keys, rms(keys, 1e-6)?, true, layers)?);
    Ok(ModelConfig { ropes: vec![rope(keys, sizes.head_dim, WHOLE)?], ..model })
}

/// Both kinds of layers, rotated by `ropes[0]` where all is seen and `ropes[1]` where a window is, if there are two.
fn windowed(
    architecture: &'static Architecture,
    keys: &Keys,
    softcap: Option<f64>,
    qk_norm: Option<QkNorm>,
    slides: impl Fn(usize) -> Result<bool>,
    ropes: Vec<RopeConfig>,
) -> Result<ModelConfig> {
    only_causal(keys)?;
    let sizes = sizes(keys, silent(4))?;
    let scalar = keys.positive("query_pre_attn_scalar")?.unwrap_or(256.0);
    let general = Attention {
        qk_norm,
        scale: 1.0 / scalar.sqrt(),
        softcap,
        ..attention_bias(keys, attention(&sizes))?
    };
    let mlp = gated_mlp(keys, activation(keys, &["hidden_activation"], Activation::GeluTanh)?, false)?;
    let layers = sliding(keys, sizes.layers, slides)?
        .into_iter()
        .map(|slides| {
            let attention = Attention {
                window: window(keys, slides, Some(4096))?,
                rope: Some(if slides { ropes.len() - 1 } else { 0 }),
                ..general.clone()
            };
            Ok(LayerConfig {
                norms: Norms::BOTH,
                ..layer(Mixer::Attention(attention), FeedForward::Mlp(mlp))
            })
        })
        .collect::<Result<_>>()?;
    let model = scaled_embedding(model(architecture, keys, rms(keys, 1e-6)?, true, layers)?);
    Ok(ModelConfig { ropes, ..model })
}

fn gemma2(architecture: &'static Architecture, keys: &Keys) -> Result<ModelConfig> {
    let ropes = vec![rope(keys, sizes(keys, silent(4))?.head_dim, WHOLE)?];
    let softcap = keys.optional_number("attn_logit_softcapping", Some(50.0))?;
    let model = windowed(architecture, keys, softcap, None, |index| Ok(index % 2 == 0), ropes)?;
    Ok(ModelConfig { logits_softcap: keys.optional_number("final_logit_softcapping", Some(30.0))?, ..model })
}

fn gemma3(architecture: &'static Architecture, keys: &Keys) -> Result<ModelConfig> {
    let head_dim = sizes(keys, silent(4))?.head_dim;
    let pattern = keys.count("sliding_window_pattern")?.unwrap_or(6);
    let ropes = gemma3_ropes(keys, head_dim)?;
    let slides = |index: usize| Ok(!(index + 1).is_multiple_of(pattern));
    // Its configs may have a cap on scores; nothing reads it.
    let model = windowed(architecture, keys, None, Some(QkNorm::Head), slides, ropes)?;
    Ok(ModelConfig { logits_softcap: keys.optional_number("final_logit_softcapping", None)?, ..model })
}

/// Scaling is for layers that see all; those with a window have a base of their own and none.
fn gemma3_ropes(keys: &Keys, head_dim: usize) -> Result<Vec<RopeConfig>> {
    let full = RopeDefaults { theta: 1e6, ..WHOLE };
    let local = RopeDefaults { theta: keys.positive("rope_local_base_freq")?.unwrap_or(1e4), ..WHOLE };
    let (name, json) = block(keys)?;
    let part = |kind: &str| json.and_then(|json| json.get(kind)).filter(|part| part.is_object());
    let nested = part("full_attention").is_some() || part("sliding_attention").is_some();
    let whole = if nested { part("full_attention") } else { json };
    let mut whole = whole.and_then(Json::as_object).cloned().unwrap_or_default();
    // The older spelling of the type does not count here, nor does where YaRN's ramp ends.
    whole.entry("rope_type").or_insert(json!("default"));
    if !keys.is_gguf() {
        whole.remove("truncate");
    }
    // `rope_theta` beside the blocks is the base of the others.
    let mut sliding = part("sliding_attention").and_then(Json::as_object).cloned().unwrap_or_default();
    sliding.entry("rope_theta").or_insert(json!(local.theta));
    sliding.remove("truncate");
    Ok(vec![
        of_block(keys, name, &Json::Object(whole), head_dim, full)?,
        of_block(keys, name, &Json::Object(sliding), head_dim, local)?,
    ])
}

/// llama.cpp stores neither pattern nor scale; both are fixed in its graph, but for the 27B models.
fn gemma2_settings(settings: &mut GgufSettings) -> Result<()> {
    settings.copy("attn_logit_softcapping", "attn_logit_softcapping");
    settings.copy("final_logit_softcapping", "final_logit_softcapping");
    scalar(settings, 46)?;
    pattern(settings, 2)
}

fn gemma3_settings(settings: &mut GgufSettings) -> Result<()> {
    settings.copy("final_logit_softcapping", "final_logit_softcapping");
    settings.copy("rope.freq_base_swa", "rope_local_base_freq");
    scalar(settings, 62)?;
    if settings.count("attention.sliding_window").is_none() {
        let layers = settings.layers();
        settings.put("layer_types", vec![json!("full_attention"); layers]);
        return Ok(());
    }
    pattern(settings, 6)
}

fn scalar(settings: &mut GgufSettings, large: usize) -> Result<()> {
    let scalar = match (settings.count("block_count"), settings.count("embedding_length")) {
        (Some(layers), Some(hidden)) if layers == large => {
            hidden as f64 / settings.count("attention.head_count").unwrap_or(1) as f64
        }
        _ => settings.head_dim()? as f64,
    };
    settings.put("query_pre_attn_scalar", scalar);
    Ok(())
}

/// Every `period`-th layer sees all, unless the file says which.
fn pattern(settings: &mut GgufSettings, period: usize) -> Result<()> {
    let layers = settings.layers();
    let stated = settings.flags("attention.sliding_window_pattern");
    let period = settings.count("attention.sliding_window_pattern").unwrap_or(period);
    let kind = |slides: bool| json!(if slides { "sliding_attention" } else { "full_attention" });
    let types: Vec<Json> = match stated {
        Some(flags) => flags.into_iter().map(kind).collect(),
        None => (0..layers).map(|layer| kind((layer + 1) % period != 0)).collect(),
    };
    settings.put("layer_types", types);
    Ok(())
}
