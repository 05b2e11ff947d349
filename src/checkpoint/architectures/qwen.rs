//! Qwen2 and Qwen3, dense and with experts.

use serde_json::Value as Json;

use super::{
    Architecture, Gguf, HuggingFaceNames,
    common::{
        Silent, Sizes, activation, attention, attention_bias, gated_mlp, layer, mlp_of, model, of_stack, rms,
        sizes, sliding, window,
    },
    llama,
    stored::{Name, Piece, as_it_is},
};
use crate::{
    checkpoint::config::{
        Activation, Attention, Experts, FeedForward, Mixer, Mlp, ModelConfig, QkNorm, Scoring, SharedExpert,
        gguf::GgufSettings,
        keys::Keys,
        rope::{WHOLE, rope},
    },
    error::Result,
};

/// `Qwen2ForCausalLM`: biases on q, k and v.
pub(super) static QWEN2: Architecture = Architecture {
    class: "Qwen2ForCausalLM",
    models: "Qwen2, Qwen2.5, R1-Distill-Qwen",
    model_types: &["qwen2"],
    gguf: Some(Gguf { name: "qwen2", experts: false, settings: |_| Ok(()), piece: |_, _| None }),
    config: |architecture, keys| {
        decoder(architecture, keys, silent(32, None), qwen2_attention, late_layers_slide, dense)
    },
    hugging_face: llama::NAMES,
};

/// `Qwen3ForCausalLM`: norms on every query and key.
pub(super) static QWEN3: Architecture = Architecture {
    class: "Qwen3ForCausalLM",
    models: "Qwen3",
    model_types: &["qwen3"],
    gguf: Some(Gguf { name: "qwen3", experts: false, settings: |_| Ok(()), piece: |_, _| None }),
    config: |architecture, keys| {
        decoder(architecture, keys, silent(32, Some(128)), qwen3_attention, late_layers_slide, dense)
    },
    hugging_face: llama::NAMES,
};

/// `Qwen2MoeForCausalLM`: a shared expert behind a gate.
pub(super) static QWEN2_MOE: Architecture = Architecture {
    class: "Qwen2MoeForCausalLM",
    models: "Qwen1.5-MoE, Qwen2-57B",
    model_types: &["qwen2_moe"],
    gguf: Some(Gguf {
        name: "qwen2moe",
        experts: true,
        settings: |settings| experts_settings(settings, false),
        piece: |_, _| None,
    }),
    config: |architecture, keys| {
        decoder(architecture, keys, silent(16, None), qwen2_moe_attention, even_layers_slide, qwen2_moe)
    },
    hugging_face: MOE_NAMES,
};

/// `Qwen3MoeForCausalLM`.
pub(super) static QWEN3_MOE: Architecture = Architecture {
    class: "Qwen3MoeForCausalLM",
    models: "Qwen3-30B-A3B, -235B",
    model_types: &["qwen3_moe"],
    gguf: Some(Gguf {
        name: "qwen3moe",
        experts: true,
        settings: |settings| experts_settings(settings, true),
        piece: |_, _| None,
    }),
    config: |architecture, keys| {
        decoder(architecture, keys, silent(4, None), qwen3_attention, every_layer_slides, qwen3_moe)
    },
    hugging_face: MOE_NAMES,
};

/// Experts by number, or stacked.
pub(super) const MOE_NAMES: HuggingFaceNames =
    HuggingFaceNames { stem: "model", layers: "layers", modules: &[], piece: stacked_or_not };

/// An expert's matrix by its number, or as rows of `experts.gate_up_proj` `[E, 2·f, hidden]` and `experts.down_proj`
/// `[E, hidden, f]`, as transformers 5 keeps them.
pub(super) fn stacked_or_not(config: &ModelConfig, name: &Name) -> Option<Vec<Piece>> {
    let expert = name.expert?;
    let FeedForward::Experts(experts) = &config.layers.get(name.layer?)?.feed_forward else { return None };
    let width = mlp_of(config, name)?.intermediate_size;
    let pair = |half: usize| {
        let first = (2 * expert + half) * width;
        Piece::bare("mlp.experts.gate_up_proj").rows(experts.num_experts * 2 * width, first..first + width)
    };
    let stacked = match name.module {
        "gate_proj" => pair(0),
        "up_proj" => pair(1),
        _ => of_stack(Piece::bare("mlp.experts.down_proj"), experts.num_experts, config.hidden_size, expert),
    };
    Some(vec![as_it_is(config.architecture, name), stacked])
}

type MakeAttention = fn(&Keys, &Sizes) -> Result<Attention>;
/// Of so many layers, which look at a window only.
type Slides = fn(&Keys, usize) -> Result<Vec<bool>>;
type MakeFeedForward = fn(&Keys, usize) -> Result<FeedForward>;

fn decoder(
    architecture: &'static Architecture,
    keys: &Keys,
    silent: Silent,
    make_attention: MakeAttention,
    slides: Slides,
    feed_forward: MakeFeedForward,
) -> Result<ModelConfig> {
    let sizes = sizes(keys, silent)?;
    let attention = make_attention(keys, &sizes)?;
    let use_window = keys.flag("use_sliding_window")?.unwrap_or(false);
    let layers = slides(keys, sizes.layers)?
        .into_iter()
        .enumerate()
        .map(|(index, slides)| {
            // Layers may be called sliding where the switch is off: then they are not.
            let stated = !keys.says("sliding_window") || keys.get("sliding_window").is_some();
            let window = window(keys, slides && use_window && stated, Some(4096))?;
            let attention = Attention { window, ..attention.clone() };
            Ok(layer(Mixer::Attention(attention), feed_forward(keys, index)?))
        })
        .collect::<Result<_>>()?;
    let model = model(architecture, keys, rms(keys, 1e-6)?, false, layers)?;
    Ok(ModelConfig { ropes: vec![rope(keys, sizes.head_dim, WHOLE)?], ..model })
}

fn silent(kv_heads: usize, head_dim: Option<usize>) -> Silent {
    Silent { kv_heads: Some(kv_heads), head_dim }
}

fn late_layers_slide(keys: &Keys, layers: usize) -> Result<Vec<bool>> {
    sliding(keys, layers, |index| is_late(keys, index))
}

fn is_late(keys: &Keys, index: usize) -> Result<bool> {
    let first = match keys.get("max_window_layers") {
        None => 28,
        Some(_) => keys.count_or_none(&["max_window_layers"])?.unwrap_or(0),
    };
    Ok(index >= first)
}

fn even_layers_slide(keys: &Keys, layers: usize) -> Result<Vec<bool>> {
    sliding(keys, layers, |index| Ok(index.is_multiple_of(2) && !is_late(keys, index)?))
}

/// Whatever `layer_types` says: transformers does not look at it here.
fn every_layer_slides(_: &Keys, layers: usize) -> Result<Vec<bool>> {
    Ok(vec![true; layers])
}

fn qwen2_attention(_: &Keys, sizes: &Sizes) -> Result<Attention> {
    Ok(Attention { bias: true, ..attention(sizes) })
}

fn qwen2_moe_attention(keys: &Keys, sizes: &Sizes) -> Result<Attention> {
    Ok(Attention { bias: keys.flag("qkv_bias")?.unwrap_or(true), ..attention(sizes) })
}

fn qwen3_attention(keys: &Keys, sizes: &Sizes) -> Result<Attention> {
    let attention = attention_bias(keys, attention(sizes))?;
    Ok(Attention { qk_norm: Some(QkNorm::Head), ..attention })
}

fn dense(keys: &Keys, _: usize) -> Result<FeedForward> {
    gated_mlp(keys, activation(keys, &["hidden_act"], Activation::Silu)?, false).map(FeedForward::Mlp)
}

fn qwen2_moe(keys: &Keys, index: usize) -> Result<FeedForward> {
    sparse(keys, index, keys.flag("norm_topk_prob")?.unwrap_or(false), true)
}

fn qwen3_moe(keys: &Keys, index: usize) -> Result<FeedForward> {
    sparse(keys, index, keys.flag("norm_topk_prob")?.unwrap_or(false), false)
}

/// Experts on every so many layers but for those that are named; whether beside a shared one.
pub(super) fn sparse(keys: &Keys, index: usize, norm_topk_prob: bool, shares: bool) -> Result<FeedForward> {
    let step = keys.count("decoder_sparse_step")?.unwrap_or(1);
    let dense_ones = keys.list("mlp_only_layers")?.unwrap_or_default();
    let is_dense = dense_ones.iter().any(|layer| layer.as_u64() == Some(index as u64));
    let Some(num_experts) = keys.count_or_none(&["num_experts", "num_local_experts"])? else {
        return dense(keys, index);
    };
    if is_dense || !(index + 1).is_multiple_of(step) {
        return dense(keys, index);
    }
    let activation = activation(keys, &["hidden_act"], Activation::Silu)?;
    let mlp = |intermediate_size| Mlp { intermediate_size, activation, gated: true, bias: false };
    let shared = if shares { keys.count_or_none(&["shared_expert_intermediate_size"])? } else { None };
    Ok(FeedForward::Experts(Experts {
        num_experts,
        num_experts_per_tok: keys.required_count(&["num_experts_per_tok"])?,
        expert: mlp(keys.required_count(&["moe_intermediate_size"])?),
        scoring: Scoring::Softmax,
        norm_topk_prob,
        routed_scaling_factor: 1.0,
        groups: None,
        correction_bias: false,
        router_bias: false,
        shared: shared.map(|width| SharedExpert { mlp: mlp(width), gated: true }),
    }))
}

/// llama.cpp does not store whether weights of the chosen are normed: each of its graphs has it fixed.
pub(super) fn experts_settings(settings: &mut GgufSettings, normed: bool) -> Result<()> {
    settings.put("norm_topk_prob", Json::Bool(normed));
    settings.copy("expert_feed_forward_length", "moe_intermediate_size");
    settings.copy("expert_shared_feed_forward_length", "shared_expert_intermediate_size");
    if !settings.has("moe_intermediate_size")
        && let (Some(all), Some(used)) =
            (settings.count("feed_forward_length"), settings.count("expert_used_count"))
    {
        settings.put("moe_intermediate_size", all / used.max(1));
    }
    Ok(())
}
