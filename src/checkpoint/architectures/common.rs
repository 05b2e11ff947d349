//! What most families share: the usual keys of a config, llama.cpp's usual names, fused matrices and rotated rows.

use serde_json::Value as Json;

use super::{
    Architecture,
    stored::{Name, Piece},
};
use crate::{
    checkpoint::config::{
        Activation, Attention, FeedForward, LayerConfig, Mixer, Mlp, ModelConfig, NormConfig, NormKind,
        Norms, keys::Keys,
    },
    error::Result,
};

/// Sizes that every config states.
pub(super) struct Sizes {
    pub(super) hidden: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
}

/// What a family assumes where its configs are silent; in a GGUF silence means what it means to Llama.
#[derive(Clone, Copy, Debug)]
pub(super) struct Silent {
    /// Key and value heads; `None`: as many as query heads.
    pub(super) kv_heads: Option<usize>,
    /// Width of a head; `None`: the hidden size over the heads.
    pub(super) head_dim: Option<usize>,
}

/// Llama's assumptions.
pub(super) const DERIVED: Silent = Silent { kv_heads: None, head_dim: None };

/// Widths and heads under their usual names and GPT's.
pub(super) fn sizes(keys: &Keys, silent: Silent) -> Result<Sizes> {
    let hidden = keys.required_count(&["hidden_size", "n_embd"])?;
    let layers = keys.layers()?;
    let heads = keys.required_count(&["num_attention_heads", "n_head", "num_heads"])?;
    let assumed = |key: &str, value: Option<usize>| value.filter(|_| !keys.says(key) && !keys.is_gguf());
    let kv_heads = keys.count("num_key_value_heads")?.or(assumed("num_key_value_heads", silent.kv_heads));
    let head_dim = keys.count("head_dim")?.or(assumed("head_dim", silent.head_dim));
    let (kv_heads, head_dim) = (kv_heads.unwrap_or(heads), head_dim.unwrap_or(hidden / heads));
    Ok(Sizes { hidden, layers, heads, kv_heads, head_dim })
}

/// Softmax attention with rotation 0, no bias, and the usual scale.
pub(super) fn attention(sizes: &Sizes) -> Attention {
    Attention {
        num_attention_heads: sizes.heads,
        num_key_value_heads: sizes.kv_heads,
        head_dim: sizes.head_dim,
        bias: false,
        output_bias: false,
        qk_norm: None,
        rope: Some(0),
        scale: 1.0 / (sizes.head_dim as f64).sqrt(),
        softcap: None,
        window: None,
        sinks: false,
        output_gate: false,
    }
}

/// `attention_bias` on q, k and v and on the output; a GGUF says of both by what is there.
pub(super) fn attention_bias(keys: &Keys, attention: Attention) -> Result<Attention> {
    let bias = keys.flag("attention_bias")?.unwrap_or(false);
    let output_bias =
        if keys.is_gguf() { keys.flag("attention_output_bias")?.unwrap_or(false) } else { bias };
    Ok(Attention { bias, output_bias, ..attention })
}

/// An MLP with a gate; `mlp_bias` where the family has it.
pub(super) fn gated_mlp(keys: &Keys, activation: Activation, biased: bool) -> Result<Mlp> {
    Ok(Mlp {
        intermediate_size: keys.required_count(&["intermediate_size"])?,
        activation,
        gated: true,
        bias: biased && keys.flag("mlp_bias")?.unwrap_or(false),
    })
}

/// The function that a config names under one of these keys.
pub(super) fn activation(keys: &Keys, spellings: &[&str], default: Activation) -> Result<Activation> {
    let Some((key, name)) = spellings.iter().find_map(|key| Some((*key, keys.get(key)?))) else {
        return Ok(default);
    };
    Ok(match name.as_str() {
        Some("silu" | "swish") => Activation::Silu,
        Some("gelu") => Activation::Gelu,
        Some("gelu_new" | "gelu_pytorch_tanh" | "gelu_fast") => Activation::GeluTanh,
        Some("relu") => Activation::Relu,
        _ => return Err(keys.not_implemented(key, "silu, gelu, gelu_new, gelu_pytorch_tanh, relu")),
    })
}

/// A layer with norms on its inputs.
pub(super) fn layer(mixer: Mixer, feed_forward: FeedForward) -> LayerConfig {
    LayerConfig { mixer, feed_forward, norms: Norms::PRE, parallel: false, residual_multiplier: 1.0 }
}

/// RMS norms with `rms_norm_eps`.
pub(super) fn rms(keys: &Keys, default: f64) -> Result<NormConfig> {
    Ok(NormConfig { kind: NormKind::Rms, eps: keys.positive("rms_norm_eps")?.unwrap_or(default) })
}

/// Layer norms under the names that GPTs give ε.
pub(super) fn layer_norm(keys: &Keys) -> Result<NormConfig> {
    let eps = keys.positive("layer_norm_eps")?.or(keys.positive("layer_norm_epsilon")?);
    Ok(NormConfig { kind: NormKind::Layer, eps: eps.unwrap_or(1e-5) })
}

/// A decoder of these layers, without rotation or multipliers.
pub(super) fn model(
    architecture: &'static Architecture,
    keys: &Keys,
    norm: NormConfig,
    tied: bool,
    layers: Vec<LayerConfig>,
) -> Result<ModelConfig> {
    Ok(ModelConfig {
        architecture,
        hidden_size: keys.required_count(&["hidden_size", "n_embd"])?,
        vocab_size: keys.required_count(&["vocab_size"])?,
        max_position_embeddings: keys
            .any_count(&["max_position_embeddings", "n_positions", "n_ctx"])?
            .unwrap_or(2048),
        tie_word_embeddings: keys.flag("tie_word_embeddings")?.unwrap_or(tied),
        norm,
        learned_positions: None,
        embedding_multiplier: 1.0,
        logits_divisor: 1.0,
        logits_softcap: None,
        ropes: Vec::new(),
        layers,
        num_nextn_predict_layers: keys
            .count_or_none(&["num_nextn_predict_layers", "num_mtp_layers"])?
            .unwrap_or(0),
    })
}

/// Which layers look at a window only: by `layer_types`, or as the family has it where that is absent.
pub(super) fn sliding(
    keys: &Keys,
    layers: usize,
    default: impl Fn(usize) -> Result<bool>,
) -> Result<Vec<bool>> {
    let Some(types) = keys.per_layer("layer_types", layers)? else {
        return (0..layers).map(default).collect();
    };
    let one = |kind: &Json| match kind.as_str() {
        Some("full_attention" | "attention") => Ok(false),
        Some("sliding_attention") => Ok(true),
        _ => Err(keys.problem(
            "layer_types",
            format!("{kind} is not implemented for this architecture"),
            "implemented: full_attention, sliding_attention",
        )),
    };
    types.iter().map(one).collect()
}

/// The window of layers that have one.
pub(super) fn window(keys: &Keys, slides: bool, default: Option<usize>) -> Result<Option<usize>> {
    if !slides {
        return Ok(None);
    }
    match keys.count("sliding_window")?.or(default) {
        Some(window) => Ok(Some(window)),
        None => Err(keys.missing("sliding_window")),
    }
}

/// The window of a family whose layers all have one: of its default size where the config is silent, none where it says
/// `null`. In a GGUF silence is none.
pub(super) fn window_of_all(keys: &Keys, default: usize) -> Result<Option<usize>> {
    match keys.says("sliding_window") || keys.is_gguf() {
        true => keys.count("sliding_window"),
        false => Ok(Some(default)),
    }
}

/// Refuses attention to later positions.
pub(super) fn only_causal(keys: &Keys) -> Result<()> {
    keys.only_flag("use_bidirectional_attention", false)
}

/// The layer's softmax attention, which the caller knows to be there.
pub(super) fn attention_of<'a>(config: &'a ModelConfig, name: &Name) -> Option<&'a Attention> {
    match &config.layers.get(name.layer?)?.mixer {
        Mixer::Attention(attention) => Some(attention),
        _ => None,
    }
}

/// The layer's MLP, or what its experts are.
pub(super) fn mlp_of<'a>(config: &'a ModelConfig, name: &Name) -> Option<&'a Mlp> {
    match &config.layers.get(name.layer?)?.feed_forward {
        FeedForward::Mlp(mlp) => Some(mlp),
        FeedForward::Experts(experts) => Some(&experts.expert),
    }
}

/// Rows of q, k and v.
fn qkv_sizes(attention: &Attention) -> [usize; 3] {
    let kv = attention.num_key_value_heads * attention.head_dim;
    [attention.num_attention_heads * attention.head_dim, kv, kv]
}

/// q, k and v as parts of one matrix, one after the other.
pub(super) fn fused_qkv(config: &ModelConfig, name: &Name, module: &str) -> Option<Piece> {
    let index =
        ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"].iter().position(|m| name.is(m))?;
    Some(Piece::whole(module).part(&qkv_sizes(attention_of(config, name)?), index))
}

/// Gate and up as parts of one matrix, one after the other.
pub(super) fn fused_gate_up(config: &ModelConfig, name: &Name, module: &str) -> Option<Piece> {
    let index = ["mlp.gate_proj", "mlp.up_proj"].iter().position(|m| name.is(m))?;
    let width = mlp_of(config, name)?.intermediate_size;
    Some(Piece::whole(module).part(&[width, width], index))
}

/// Of every head of `head_dim` rows: `dims` rows from `first` on that lie in pairs, taken apart into two halves.
///
/// Rotation of pairs (2i, 2i + 1) is rotation of (i, i + dims/2) with the rows of queries and keys in this order, and
/// q·k does not depend on the order.
pub(super) fn halves_of_pairs(heads: usize, head_dim: usize, first: usize, dims: usize) -> Vec<usize> {
    let half = dims / 2;
    let within = |row: usize| match row.checked_sub(first) {
        Some(rotated) if rotated < half => first + 2 * rotated,
        Some(rotated) if rotated < dims => first + 2 * (rotated - half) + 1,
        _ => row,
    };
    (0..heads).flat_map(|head| (0..head_dim).map(move |row| head * head_dim + within(row))).collect()
}

/// Rows of q or k of a file whose heads are rotated in pairs.
pub(super) fn rotated_in_pairs(config: &ModelConfig, name: &Name, stored: &str) -> Option<Piece> {
    let attention = attention_of(config, name)?;
    let heads = match name.module {
        "self_attn.q_proj" => attention.num_attention_heads,
        "self_attn.k_proj" => attention.num_key_value_heads,
        _ => return None,
    };
    let dims =
        attention.rope.and_then(|rope| config.ropes.get(rope)).map_or(attention.head_dim, |rope| rope.dims);
    let rows = halves_of_pairs(heads, attention.head_dim, 0, dims);
    Some(Piece::whole(stored).rows(rows.len(), rows))
}

/// The rows of one expert in a stack of them.
pub(super) fn of_stack(piece: Piece, experts: usize, rows: usize, expert: usize) -> Piece {
    piece.rows(experts * rows, expert * rows..(expert + 1) * rows)
}

/// llama.cpp's names (gguf-py's `tensor_mapping.py`).
const GGUF: &[(&str, &str)] = &[
    ("embed_tokens", "token_embd"),
    ("embed_positions", "position_embd"),
    ("norm", "output_norm"),
    ("lm_head", "output"),
    ("input_layernorm", "attn_norm"),
    ("post_self_attn_layernorm", "post_attention_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("post_mlp_layernorm", "post_ffw_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("mlp.gate", "ffn_gate_inp"),
    ("mlp.shared_expert.gate_proj", "ffn_gate_shexp"),
    ("mlp.shared_expert.up_proj", "ffn_up_shexp"),
    ("mlp.shared_expert.down_proj", "ffn_down_shexp"),
    ("mlp.shared_expert_gate", "ffn_gate_inp_shexp"),
    ("self_attn.q_a_proj", "attn_q_a"),
    ("self_attn.q_a_layernorm", "attn_q_a_norm"),
    ("self_attn.q_b_proj", "attn_q_b"),
    ("self_attn.kv_a_proj_with_mqa", "attn_kv_a_mqa"),
    ("self_attn.kv_a_layernorm", "attn_kv_a_norm"),
    ("linear_attn.norm", "ssm_norm"),
    ("linear_attn.out_proj", "ssm_out"),
    ("linear_attn.conv1d", "ssm_conv1d"),
];

/// llama.cpp's name of a module; of an expert's: of their stack.
pub(super) fn gguf_module(name: &Name) -> Option<&'static str> {
    match (name.expert, name.module) {
        (Some(_), "gate_proj") => Some("ffn_gate_exps"),
        (Some(_), "up_proj") => Some("ffn_up_exps"),
        (Some(_), "down_proj") => Some("ffn_down_exps"),
        _ => GGUF.iter().find(|(ours, _)| name.is(ours)).map(|(_, theirs)| *theirs),
    }
}

/// Where llama.cpp keeps a tensor, for families without a say of their own. Experts are stacked; q, k and v may be fused
/// (`--fuse-qkv` of its converter).
pub(super) fn gguf_piece(config: &ModelConfig, name: &Name) -> Option<Vec<Piece>> {
    let module = gguf_module(name)?;
    let piece = Piece::whole(module);
    if let Some(expert) = name.expert {
        let FeedForward::Experts(experts) = &config.layers.get(name.layer?)?.feed_forward else {
            return None;
        };
        let rows = match name.module {
            "down_proj" => config.hidden_size,
            _ => experts.expert.intermediate_size,
        };
        return of_stack(piece, experts.num_experts, rows, expert).only();
    }
    let fused = fused_qkv(config, name, "attn_qkv");
    Some(std::iter::once(piece).chain(fused).collect())
}

/// As [`gguf_piece`], where q and k are rotated in pairs.
pub(super) fn gguf_piece_in_pairs(config: &ModelConfig, name: &Name) -> Option<Vec<Piece>> {
    let Some(piece) = rotated_in_pairs(config, name, gguf_module(name)?) else {
        return gguf_piece(config, name);
    };
    // Of a fused matrix the rows of q and k are permuted, too.
    let fused = fused_qkv(config, name, "attn_qkv").and_then(|fused| {
        let (rows, order) = (fused.rows.clone()?, piece.rows.clone()?);
        let table: Vec<usize> = order.table.iter().map(|row| rows.table[*row as usize] as usize).collect();
        Some(fused.rows(rows.of, table))
    });
    Some(std::iter::once(piece).chain(fused).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// llama.cpp's converter: rows of a head seen as `[2, d/2]`, turned into `[d/2, 2]`.
    #[test]
    fn halves_undo_the_converter() {
        let (heads, head_dim) = (3, 8);
        let mut stored = Vec::new();
        for head in 0..heads {
            for pair in 0..head_dim / 2 {
                stored.extend([0, 1].map(|side| head * head_dim + side * head_dim / 2 + pair));
            }
        }
        for (row, place) in halves_of_pairs(heads, head_dim, 0, head_dim).into_iter().enumerate() {
            assert_eq!(stored[place], row);
        }
    }

    #[test]
    fn only_the_rotated_rows_move() {
        assert_eq!(halves_of_pairs(1, 6, 2, 4), [0, 1, 2, 4, 3, 5]);
        assert_eq!(halves_of_pairs(2, 4, 0, 2), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(halves_of_pairs(1, 8, 0, 4), [0, 2, 1, 3, 4, 5, 6, 7]);
    }
}
