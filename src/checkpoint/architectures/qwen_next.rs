//! Qwen3-Next and Qwen3.5: gated delta nets on three of four layers, gated attention on the fourth.

use serde_json::{Value as Json, json};

use super::{
    Architecture, Gguf, HuggingFaceNames,
    common::{
        Silent, activation, attention, attention_bias, attention_of, gated_mlp, gguf_module,
        gguf_piece as common_piece, layer, model, rms, sizes,
    },
    qwen::{experts_settings, sparse, stacked_or_not},
    stored::{Map, Name, Piece, as_it_is},
};
use crate::{
    checkpoint::config::{
        Activation, Attention, FeedForward, GatedDeltaNet, Mixer, ModelConfig, QkNorm,
        gguf::GgufSettings,
        keys::Keys,
        rope::{RopeDefaults, WHOLE, rope},
    },
    error::Result,
};

/// `Qwen3NextForCausalLM`.
pub(super) static QWEN3_NEXT: Architecture = Architecture {
    class: "Qwen3NextForCausalLM",
    models: "Qwen3-Next",
    model_types: &["qwen3_next"],
    gguf: Some(Gguf { name: "qwen3next", experts: true, settings: sparse_settings, piece: next_gguf_piece }),
    config: |architecture, keys| decoder(architecture, keys, 2, next_sparse),
    hugging_face: HuggingFaceNames { stem: "model", layers: "layers", modules: &[], piece: next_piece },
};

/// `Qwen3_5ForCausalLM`: the same, dense.
pub(super) static QWEN3_5: Architecture = Architecture {
    class: "Qwen3_5ForCausalLM",
    models: "Qwen3.5 and 3.6, dense",
    model_types: &["qwen3_5_text"],
    gguf: Some(Gguf { name: "qwen35", experts: false, settings, piece: gguf_piece }),
    config: |architecture, keys| decoder(architecture, keys, 4, dense),
    hugging_face: NAMES,
};

/// `Qwen3_5MoeForCausalLM`.
pub(super) static QWEN3_5_MOE: Architecture = Architecture {
    class: "Qwen3_5MoeForCausalLM",
    models: "Qwen3.5 and 3.6 with experts",
    model_types: &["qwen3_5_moe_text"],
    gguf: Some(Gguf { name: "qwen35moe", experts: true, settings: sparse_settings, piece: gguf_piece }),
    config: |architecture, keys| decoder(architecture, keys, 2, normed_sparse),
    hugging_face: NAMES,
};

const NAMES: HuggingFaceNames = HuggingFaceNames { stem: "model", layers: "layers", modules: &[], piece };

fn dense(keys: &Keys, _: usize) -> Result<FeedForward> {
    gated_mlp(keys, activation(keys, &["hidden_act"], Activation::Silu)?, false).map(FeedForward::Mlp)
}

fn next_sparse(keys: &Keys, index: usize) -> Result<FeedForward> {
    sparse(keys, index, keys.flag("norm_topk_prob")?.unwrap_or(true), true)
}

/// Qwen3.5's router always divides by the sum of the chosen.
fn normed_sparse(keys: &Keys, index: usize) -> Result<FeedForward> {
    sparse(keys, index, true, true)
}

fn decoder(
    architecture: &'static Architecture,
    keys: &Keys,
    kv_heads: usize,
    feed_forward: fn(&Keys, usize) -> Result<FeedForward>,
) -> Result<ModelConfig> {
    let sizes = sizes(keys, Silent { kv_heads: Some(kv_heads), head_dim: Some(256) })?;
    if activation(keys, &["hidden_act"], Activation::Silu)? != Activation::Silu {
        return Err(keys.not_implemented("hidden_act", "silu"));
    }
    let attention = Attention {
        qk_norm: Some(QkNorm::Head),
        output_gate: true,
        ..attention_bias(keys, attention(&sizes))?
    };
    let net = GatedDeltaNet {
        num_key_heads: keys.required_count(&["linear_num_key_heads"])?,
        num_value_heads: keys.required_count(&["linear_num_value_heads"])?,
        key_head_dim: keys.required_count(&["linear_key_head_dim"])?,
        value_head_dim: keys.required_count(&["linear_value_head_dim"])?,
        conv_kernel_dim: keys.required_count(&["linear_conv_kernel_dim"])?,
    };
    let interval = keys.count("full_attention_interval")?.unwrap_or(4);
    let types = keys.per_layer("layer_types", sizes.layers)?;
    let layers = (0..sizes.layers)
        .map(|index| {
            let is_linear = match types.map(|types| &types[index]) {
                None => !(index + 1).is_multiple_of(interval),
                Some(Json::String(kind)) if kind == "linear_attention" => true,
                Some(Json::String(kind)) if kind == "full_attention" => false,
                Some(other) => {
                    return Err(keys.problem(
                        "layer_types",
                        format!("{other} is not implemented for this architecture"),
                        "implemented: linear_attention, full_attention",
                    ));
                }
            };
            let mixer = match is_linear {
                true => Mixer::GatedDeltaNet(net.clone()),
                false => Mixer::Attention(attention.clone()),
            };
            Ok(layer(mixer, feed_forward(keys, index)?))
        })
        .collect::<Result<_>>()?;
    let model = model(architecture, keys, rms(keys, 1e-6)?, false, layers)?;
    let defaults = RopeDefaults { partial_rotary_factor: Some(0.25), ..WHOLE };
    Ok(ModelConfig { ropes: vec![rope(keys, sizes.head_dim, defaults)?], ..model })
}

fn net<'a>(config: &'a ModelConfig, name: &Name) -> Option<&'a GatedDeltaNet> {
    match &config.layers.get(name.layer?)?.mixer {
        Mixer::GatedDeltaNet(net) => Some(net),
        _ => None,
    }
}

/// Of each head in `q_proj`: its query, then its gate.
fn query_or_gate(config: &ModelConfig, name: &Name, module: &str) -> Option<Piece> {
    let half = ["self_attn.q_proj", "self_attn.gate_proj"].iter().position(|m| name.is(m))?;
    let attention = attention_of(config, name)?;
    let (heads, width) = (attention.num_attention_heads, attention.head_dim);
    let rows = (0..heads).flat_map(|head| (0..width).map(move |row| (2 * head + half) * width + row));
    Some(Piece::whole(module).rows(2 * heads * width, rows))
}

/// Every norm but the delta net's is stored as what it differs from 1 by; decays as logarithms.
fn piece(config: &ModelConfig, name: &Name) -> Option<Vec<Piece>> {
    if name.expert.is_some() {
        return stacked_or_not(config, name);
    }
    match name.module {
        "linear_attn.norm" => None,
        "linear_attn.A" => Piece::bare("linear_attn.A_log").map(Map::NegativeExp).only(),
        module if module.ends_with("norm") => as_it_is(config.architecture, name).map(Map::PlusOne).only(),
        _ => query_or_gate(config, name, "self_attn.q_proj")?.only(),
    }
}

/// Qwen3-Next: all four projections in one, by heads of keys, and the two of gates in another.
fn next_piece(config: &ModelConfig, name: &Name) -> Option<Vec<Piece>> {
    let Some(net) = net(config, name) else { return piece(config, name) };
    let each = net.num_value_heads / net.num_key_heads;
    let (key, values) = (net.key_head_dim, each * net.value_head_dim);
    let group = 2 * key + 2 * values;
    let groups = net.num_key_heads;
    let part = |start: usize, width: usize| {
        (0..groups).flat_map(move |head| (0..width).map(move |row| head * group + start + row))
    };
    let fused = |rows: Vec<usize>| Piece::whole("linear_attn.in_proj_qkvz").rows(groups * group, rows);
    match name.module {
        "linear_attn.in_proj_qkv" => {
            fused(part(0, key).chain(part(key, key)).chain(part(2 * key, values)).collect()).only()
        }
        "linear_attn.in_proj_z" => fused(part(2 * key + values, values).collect()).only(),
        "linear_attn.in_proj_b" => of_gates(net, "linear_attn.in_proj_ba", 0).only(),
        "linear_attn.in_proj_a" => of_gates(net, "linear_attn.in_proj_ba", 1).only(),
        _ => piece(config, name),
    }
}

/// Of each head of keys: b of its heads of values, then a.
fn of_gates(net: &GatedDeltaNet, module: &str, half: usize) -> Piece {
    let each = net.num_value_heads / net.num_key_heads;
    let rows =
        (0..net.num_key_heads).flat_map(|head| (0..each).map(move |row| (2 * head + half) * each + row));
    Piece::whole(module).rows(2 * net.num_value_heads, rows)
}

/// llama.cpp's names of a delta net's tensors, and of gated attention; the norm before the feed-forward block is called
/// as elsewhere the one on the attention's output.
fn named(config: &ModelConfig, name: &Name) -> Option<Piece> {
    Some(match name.module {
        "post_attention_layernorm" => Piece::whole("post_attention_norm"),
        "linear_attn.in_proj_qkv" => Piece::whole("attn_qkv"),
        "linear_attn.in_proj_z" => Piece::whole("attn_gate"),
        "linear_attn.A" => Piece::bare("ssm_a"),
        "linear_attn.dt_bias" => Piece::bare("ssm_dt.bias"),
        "linear_attn.norm" | "linear_attn.out_proj" | "linear_attn.conv1d" => {
            Piece::whole(gguf_module(name)?)
        }
        _ => query_or_gate(config, name, "attn_q")?,
    })
}

fn next_gguf_piece(config: &ModelConfig, name: &Name) -> Option<Vec<Piece>> {
    match (name.module, net(config, name)) {
        ("linear_attn.in_proj_b", Some(net)) => of_gates(net, "ssm_ba", 0).only(),
        ("linear_attn.in_proj_a", Some(net)) => of_gates(net, "ssm_ba", 1).only(),
        _ => named(config, name).map_or_else(|| common_piece(config, name), Piece::only),
    }
}

/// Qwen3.5's heads of values are stored so that head v of key head k is v·keys + k, not k·each + v.
fn gguf_piece(config: &ModelConfig, name: &Name) -> Option<Vec<Piece>> {
    let Some(net) = net(config, name) else {
        return named(config, name).map_or_else(|| common_piece(config, name), Piece::only);
    };
    let each = net.num_value_heads / net.num_key_heads;
    let (keys, key_heads) = (2 * net.num_key_heads * net.key_head_dim, net.num_key_heads);
    let tiled = |width: usize| {
        (0..net.num_value_heads).flat_map(move |head| {
            let stored = head % each * key_heads + head / each;
            (0..width).map(move |row| stored * width + row)
        })
    };
    let values = net.num_value_heads * net.value_head_dim;
    let mixed = || (0..keys).chain(tiled(net.value_head_dim).map(|row| keys + row));
    let piece = match name.module {
        "linear_attn.in_proj_b" => Piece::whole("ssm_beta").rows(net.num_value_heads, tiled(1)),
        "linear_attn.in_proj_a" => Piece::whole("ssm_alpha").rows(net.num_value_heads, tiled(1)),
        "linear_attn.in_proj_z" => named(config, name)?.rows(values, tiled(net.value_head_dim)),
        "linear_attn.A" | "linear_attn.dt_bias" => named(config, name)?.rows(net.num_value_heads, tiled(1)),
        "linear_attn.in_proj_qkv" | "linear_attn.conv1d" => named(config, name)?.rows(keys + values, mixed()),
        "linear_attn.out_proj" => named(config, name)?.columns(tiled(net.value_head_dim)),
        _ => return named(config, name).map_or_else(|| common_piece(config, name), Piece::only),
    };
    piece.only()
}

fn sparse_settings(settings: &mut GgufSettings) -> Result<()> {
    experts_settings(settings, true)?;
    self::settings(settings)
}

fn settings(settings: &mut GgufSettings) -> Result<()> {
    settings.copy("ssm.conv_kernel", "linear_conv_kernel_dim");
    settings.copy("ssm.state_size", "linear_key_head_dim");
    settings.copy("ssm.group_count", "linear_num_key_heads");
    settings.copy("ssm.time_step_rank", "linear_num_value_heads");
    if let (Some(inner), Some(heads)) =
        (settings.count("ssm.inner_size"), settings.count("ssm.time_step_rank"))
    {
        settings.put("linear_value_head_dim", inner / heads.max(1));
    }
    settings.copy("full_attention_interval", "full_attention_interval");
    if let Some(flags) = settings.flags("attention.recurrent_layers") {
        let kind = |linear: bool| json!(if linear { "linear_attention" } else { "full_attention" });
        settings.put("layer_types", flags.into_iter().map(kind).collect::<Vec<_>>());
    }
    Ok(())
}
