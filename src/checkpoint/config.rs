//! What a decoder computes, as data: a stream of hidden states, and layers of a mixer and a feed-forward block each.
//!
//! Whatever file says it, in whatever spelling: `architectures` reads Hugging Face's `config.json` and a GGUF's
//! metadata into one [`ModelConfig`], and `model` builds the decoder from it. Field names are Hugging Face's where it
//! has one. Nothing here is guessed: what would change the computation and is not implemented is refused by name.

pub(super) mod gguf;
pub(super) mod keys;
pub(super) mod rope;

use std::path::Path;

use serde_json::Value as Json;

pub use self::rope::{RopeConfig, RopeScaling};
use super::architectures::{self, Architecture};
use crate::error::{Error, Result};

/// Everything the decoder needs to know.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// The family.
    pub architecture: &'static Architecture,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Rows of embedding and head.
    pub vocab_size: usize,
    /// Longest context the model was trained for.
    pub max_position_embeddings: usize,
    /// Whether the head is the embedding.
    pub tie_word_embeddings: bool,
    /// Every norm over the width of the residual stream.
    pub norm: NormConfig,
    /// Rows of a learned embedding of positions, added to the tokens'; `None` where there is none.
    pub learned_positions: Option<usize>,
    /// Factor on the embedding of a token.
    pub embedding_multiplier: f64,
    /// What logits are divided by.
    pub logits_divisor: f64,
    /// c of c·tanh(logit/c), after the division.
    pub logits_softcap: Option<f64>,
    /// Rotary embeddings that layers refer to by index.
    pub ropes: Vec<RopeConfig>,
    /// First to last.
    pub layers: Vec<LayerConfig>,
    /// Layers that a file may hold beyond those: they predict further tokens, and no pass goes through them.
    pub num_nextn_predict_layers: usize,
}

/// A norm: x/√(mean(x²) + ε)·w, or with mean and bias.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormConfig {
    /// Which.
    pub kind: NormKind,
    /// ε.
    pub eps: f64,
}

/// Kinds of norms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// Root mean square.
    Rms,
    /// Mean and variance, with weight and bias (Ba et al. 2016).
    Layer,
}

/// One decoder layer.
///
/// x′ = x + r·post(mixer(pre(x))), then x′ + r·post(feed_forward(pre(x′))); where `parallel`, both read x and are added
/// together.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerConfig {
    /// What mixes positions.
    pub mixer: Mixer,
    /// What mixes channels.
    pub feed_forward: FeedForward,
    /// Which norms stand where.
    pub norms: Norms,
    /// Whether both blocks read the layer's input.
    pub parallel: bool,
    /// r, on what is added to the residual stream.
    pub residual_multiplier: f64,
}

/// Where a layer has norms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Norms {
    /// On the mixer's input.
    pub input: bool,
    /// On the mixer's output, before it is added.
    pub post_mixer: bool,
    /// On the feed-forward block's input.
    pub pre_feed_forward: bool,
    /// On its output, before it is added.
    pub post_feed_forward: bool,
}

impl Norms {
    /// On the inputs, as in Llama.
    pub const PRE: Norms =
        Norms { input: true, post_mixer: false, pre_feed_forward: true, post_feed_forward: false };
    /// On the outputs, as in OLMo 2.
    pub const POST: Norms =
        Norms { input: false, post_mixer: true, pre_feed_forward: false, post_feed_forward: true };
    /// On both, as in Gemma 2.
    pub const BOTH: Norms =
        Norms { input: true, post_mixer: true, pre_feed_forward: true, post_feed_forward: true };
}

/// What mixes positions.
#[derive(Clone, Debug, PartialEq)]
pub enum Mixer {
    /// softmax(q·kᵀ)·v with grouped heads.
    Attention(Attention),
    /// The same with keys and values from a narrow latent: MLA (DeepSeek-V2, arXiv 2405.04434).
    LatentAttention(LatentAttention),
    /// A linear recurrence without a cache that grows: gated delta net (arXiv 2412.06464).
    GatedDeltaNet(GatedDeltaNet),
}

/// Softmax attention.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; divides `num_attention_heads`.
    pub num_key_value_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Biases on q, k and v.
    pub bias: bool,
    /// Bias on the output projection.
    pub output_bias: bool,
    /// Norms of queries and keys, before the rotation.
    pub qk_norm: Option<QkNorm>,
    /// Which of [`ModelConfig::ropes`] rotates queries and keys; `None`: no rotation.
    pub rope: Option<usize>,
    /// Factor on q·k.
    pub scale: f64,
    /// c of c·tanh(score/c), after scaling.
    pub softcap: Option<f64>,
    /// A query sees itself and so many positions less one before it; `None`: all before it.
    pub window: Option<usize>,
    /// One more logit per head that takes weight and gives nothing.
    pub sinks: bool,
    /// Whether the mixture is multiplied by σ of a gate that the input makes, element by element.
    pub output_gate: bool,
}

/// Over what queries and keys are normed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    /// Each head by itself, with one weight for all heads.
    Head,
    /// The whole projection.
    Projection,
}

/// Attention whose keys and values are made from one latent vector per position.
#[derive(Clone, Debug, PartialEq)]
pub struct LatentAttention {
    /// Heads.
    pub num_attention_heads: usize,
    /// Width of the queries' latent; `None`: queries come straight from the input.
    pub q_lora_rank: Option<usize>,
    /// Width of the latent of keys and values.
    pub kv_lora_rank: usize,
    /// Width of a head's query and key without rotation.
    pub qk_nope_head_dim: usize,
    /// Width of the rotated part, whose key is shared by all heads.
    pub qk_rope_head_dim: usize,
    /// Width of a head's value.
    pub v_head_dim: usize,
    /// Whether a file's rows of what is rotated come in pairs.
    pub rope_interleave: bool,
    /// Biases on the projections down and on the output.
    pub bias: bool,
    /// ε of the norms of the latents.
    pub latent_norm_eps: f64,
    /// Which of [`ModelConfig::ropes`] rotates.
    pub rope: usize,
    /// Factor on q·k.
    pub scale: f64,
}

/// A gated delta net: per head S ← e^g·S; S ← S + k·(β·(v − kᵀS))ᵀ; the output is qᵀS.
#[derive(Clone, Debug, PartialEq)]
pub struct GatedDeltaNet {
    /// Heads of queries and keys; divides the value heads.
    pub num_key_heads: usize,
    /// Heads of values.
    pub num_value_heads: usize,
    /// Width of a query and a key.
    pub key_head_dim: usize,
    /// Width of a value.
    pub value_head_dim: usize,
    /// Positions that the convolution before it sees.
    pub conv_kernel_dim: usize,
}

/// What mixes channels.
#[derive(Clone, Debug, PartialEq)]
pub enum FeedForward {
    /// One MLP.
    Mlp(Mlp),
    /// Some of many MLPs, chosen per token.
    Experts(Experts),
}

/// down(act(gate(x))·up(x)), or down(act(up(x))) without a gate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mlp {
    /// Width in between.
    pub intermediate_size: usize,
    /// act.
    pub activation: Activation,
    /// Whether there is a gate.
    pub gated: bool,
    /// Biases.
    pub bias: bool,
}

/// Functions between the matrices of an MLP.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// x·σ(x).
    Silu,
    /// x·Φ(x).
    Gelu,
    /// The same with tanh in Φ's place, √(2/π)·(x + 0.044715·x³).
    GeluTanh,
    /// max(x, 0).
    Relu,
    /// g·σ(1.702·g)·(u + 1) with g at most 7 and u between −7 and 7 (gpt-oss).
    ClampedSwiglu,
}

/// A mixture of experts.
#[derive(Clone, Debug, PartialEq)]
pub struct Experts {
    /// How many there are.
    pub num_experts: usize,
    /// How many a token goes through.
    pub num_experts_per_tok: usize,
    /// Each of them.
    pub expert: Mlp,
    /// How the router scores them.
    pub scoring: Scoring,
    /// Whether the weights of the chosen are divided by their sum.
    pub norm_topk_prob: bool,
    /// Factor on the weights.
    pub routed_scaling_factor: f64,
    /// Experts come in groups, of which some are chosen first.
    pub groups: Option<Groups>,
    /// Whether a stored correction is added to the scores for the choice alone.
    pub correction_bias: bool,
    /// Whether the router has a bias.
    pub router_bias: bool,
    /// An MLP that every token goes through.
    pub shared: Option<SharedExpert>,
}

/// What a router makes of its logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scoring {
    /// Softmax over all experts.
    Softmax,
    /// Softmax over the chosen.
    SoftmaxOfChosen,
    /// σ of each.
    Sigmoid,
}

/// Groups of experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Groups {
    /// How many.
    pub n_group: usize,
    /// How many may be chosen from.
    pub topk_group: usize,
    /// What a group is judged by: the sum of so many of its best scores.
    pub best: usize,
}

/// An MLP beside the experts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SharedExpert {
    /// The MLP.
    pub mlp: Mlp,
    /// Whether it is multiplied by σ of a number that the input makes.
    pub gated: bool,
}

/// What a KV cache holds of one position of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvWidths {
    /// Heads that are cached.
    pub heads: usize,
    /// Width of a cached key.
    pub key: usize,
    /// Width of a cached value; 0 where it is part of the key (MLA's latent).
    pub value: usize,
}

impl Mixer {
    /// What a KV cache holds; `None` for a mixer that has none.
    pub fn kv_widths(&self) -> Option<KvWidths> {
        match self {
            Mixer::Attention(attention) => Some(KvWidths {
                heads: attention.num_key_value_heads,
                key: attention.head_dim,
                value: attention.head_dim,
            }),
            Mixer::LatentAttention(latent) => {
                Some(KvWidths { heads: 1, key: latent.kv_lora_rank + latent.qk_rope_head_dim, value: 0 })
            }
            Mixer::GatedDeltaNet(_) => None,
        }
    }
}

impl ModelConfig {
    /// Decoder layers.
    pub fn num_hidden_layers(&self) -> usize {
        self.layers.len()
    }

    /// The first layer with softmax attention: the one that people mean by "heads".
    pub fn attention(&self) -> Option<&Attention> {
        self.layers.iter().find_map(|layer| match &layer.mixer {
            Mixer::Attention(attention) => Some(attention),
            _ => None,
        })
    }

    /// What a reader wants to know first, as name and value.
    pub fn facts(&self) -> Vec<(&'static str, String)> {
        let mut facts = vec![
            ("num_hidden_layers", self.layers.len().to_string()),
            ("hidden_size", self.hidden_size.to_string()),
        ];
        let mut once = |name: &'static str, values: Vec<String>| {
            let mut distinct: Vec<&String> = Vec::new();
            for value in &values {
                if !distinct.contains(&value) {
                    distinct.push(value);
                }
            }
            if !distinct.is_empty() {
                let words: Vec<&str> = distinct.iter().map(|value| value.as_str()).collect();
                facts.push((name, words.join(" or ")));
            }
        };
        let layers = || self.layers.iter();
        let attention = || {
            layers().filter_map(|layer| match &layer.mixer {
                Mixer::Attention(attention) => Some(attention),
                _ => None,
            })
        };
        let widths = layers().map(|layer| match &layer.feed_forward {
            FeedForward::Mlp(mlp) => mlp.intermediate_size.to_string(),
            FeedForward::Experts(experts) => format!("{} per expert", experts.expert.intermediate_size),
        });
        once("intermediate_size", widths.collect());
        let experts = layers().filter_map(|layer| match &layer.feed_forward {
            FeedForward::Experts(experts) => Some(format!(
                "{} of {}{}",
                experts.num_experts_per_tok,
                experts.num_experts,
                if experts.shared.is_some() { " and a shared one" } else { "" }
            )),
            FeedForward::Mlp(_) => None,
        });
        once("experts", experts.collect());
        let latent = layers().filter_map(|layer| match &layer.mixer {
            Mixer::LatentAttention(latent) => Some(latent),
            _ => None,
        });
        let heads = attention().map(|a| a.num_attention_heads);
        let heads = heads.chain(latent.clone().map(|l| l.num_attention_heads));
        once("num_attention_heads", heads.map(|n| n.to_string()).collect());
        once("num_key_value_heads", attention().map(|a| a.num_key_value_heads.to_string()).collect());
        once("head_dim", attention().map(|a| a.head_dim.to_string()).collect());
        once("kv_lora_rank", latent.map(|l| l.kv_lora_rank.to_string()).collect());
        let windows: Vec<usize> = attention().filter_map(|a| a.window).collect();
        if let Some(window) = windows.first() {
            once("sliding_window", vec![format!("{window} in {} layers", windows.len())]);
        }
        let linear = layers().filter(|layer| matches!(layer.mixer, Mixer::GatedDeltaNet(_))).count();
        if linear > 0 {
            once("gated delta net", vec![format!("in {linear} layers")]);
        }
        facts.push(("vocab_size", self.vocab_size.to_string()));
        facts.push(("max_position_embeddings", self.max_position_embeddings.to_string()));
        let ropes: Vec<String> = self.ropes.iter().map(RopeConfig::in_words).collect();
        facts.push(("rope", if ropes.is_empty() { "none".to_owned() } else { ropes.join("; ") }));
        facts.push(("tie_word_embeddings", self.tie_word_embeddings.to_string()));
        facts
    }
}

/// Larger than any dimension of any published model; keeps products of two within 64 bits.
pub(super) const MAX_COUNT: usize = 1 << 28;

/// Deeper than any published model; names of weights are listed before the file is asked for them.
pub(super) const MAX_LAYERS: usize = 4096;

/// More rows than any matrix of a layer has, stacked experts included: orders of rows are listed before the file is asked.
const MAX_ROWS: usize = 1 << 24;

/// More experts than any published model has, for the same reason.
const MAX_EXPERTS: usize = 4096;

/// Reads Hugging Face's `config.json`, in today's spelling (`rope_parameters`) and the older one
/// (`rope_theta`, `rope_scaling`).
///
/// # Errors
/// Names the key that is missing, malformed, or asks for something not implemented.
pub fn from_hugging_face(path: &Path, json: &Json) -> Result<ModelConfig> {
    let keys = keys::Keys::of_hugging_face(path, json);
    let architecture = architectures::of_hugging_face(&keys)?;
    // A key that means something in every family.
    keys.only_flag("is_causal", true)?;
    if keys.get("per_layer_config").is_some() {
        return Err(keys.not_implemented("per_layer_config", "layers that are told apart by `layer_types`"));
    }
    // A model that also sees has its decoder's settings in a block.
    let keys = match keys.get("text_config") {
        Some(text) if text.is_object() => keys.block(text),
        _ => keys,
    };
    checked(path, (architecture.config)(architecture, &keys)?)
}

/// Refuses what cannot be computed.
pub(super) fn checked(path: &Path, config: ModelConfig) -> Result<ModelConfig> {
    let wrong = |key: &str, problem: String| Error::key(path, key, problem, "correct the file");
    let bad = |key: &str, problem: String| Err(wrong(key, problem));
    let fits = |key: &str, count: usize, width: usize| match count.checked_mul(width) {
        Some(rows) if rows <= MAX_ROWS => Ok(()),
        _ => Err(wrong(key, format!("{count} times a width of {width} is more than any model has"))),
    };
    for layer in &config.layers {
        match &layer.mixer {
            Mixer::Attention(attention) => {
                let (heads, kv_heads) = (attention.num_attention_heads, attention.num_key_value_heads);
                if !heads.is_multiple_of(kv_heads) {
                    return bad("num_key_value_heads", format!("{kv_heads} does not divide {heads} heads"));
                }
                fits("num_attention_heads", heads, 3 * attention.head_dim)?;
                if attention.head_dim == 0 {
                    return bad("head_dim", "0 is not a width".to_owned());
                }
                let rope = attention.rope.and_then(|index| config.ropes.get(index));
                if let Some(rope) = rope
                    && (rope.dims == 0 || !rope.dims.is_multiple_of(2) || rope.dims > attention.head_dim)
                {
                    let problem = format!(
                        "{} of {} channels of a head would be rotated; an even number of them can be",
                        rope.dims, attention.head_dim
                    );
                    return bad("head_dim", problem);
                }
            }
            Mixer::LatentAttention(latent) => {
                let width = latent.qk_nope_head_dim + latent.qk_rope_head_dim + latent.v_head_dim;
                fits("num_attention_heads", latent.num_attention_heads, width)?;
                fits("kv_lora_rank", 1, latent.kv_lora_rank + latent.qk_rope_head_dim)?;
                if !latent.qk_rope_head_dim.is_multiple_of(2) {
                    return bad("qk_rope_head_dim", format!("{} is odd", latent.qk_rope_head_dim));
                }
            }
            Mixer::GatedDeltaNet(net) => {
                fits("linear_num_key_heads", net.num_key_heads, 2 * net.key_head_dim)?;
                fits("linear_num_value_heads", net.num_value_heads, 2 * net.value_head_dim)?;
                if !net.num_value_heads.is_multiple_of(net.num_key_heads) {
                    let problem =
                        format!("{} does not divide {} value heads", net.num_key_heads, net.num_value_heads);
                    return bad("linear_num_key_heads", problem);
                }
            }
        }
        if let FeedForward::Mlp(mlp) = &layer.feed_forward {
            fits("intermediate_size", 2, mlp.intermediate_size)?;
        }
        if let FeedForward::Experts(experts) = &layer.feed_forward {
            let width = (2 * experts.expert.intermediate_size).max(config.hidden_size);
            fits("num_experts", experts.num_experts, width)?;
            if experts.num_experts > MAX_EXPERTS {
                return bad("num_experts", format!("{} is more than {MAX_EXPERTS}", experts.num_experts));
            }
            let reachable = match experts.groups {
                None => experts.num_experts,
                Some(groups) => {
                    let size = experts.num_experts / groups.n_group;
                    let fits = experts.num_experts.is_multiple_of(groups.n_group)
                        && groups.topk_group <= groups.n_group
                        && size >= groups.best;
                    if !fits {
                        return bad(
                            "n_group",
                            format!(
                                "{} groups of {} experts, of which {} are chosen, do not fit",
                                groups.n_group, experts.num_experts, groups.topk_group
                            ),
                        );
                    }
                    size * groups.topk_group
                }
            };
            if experts.num_experts_per_tok > reachable {
                let problem =
                    format!("{} is more than the {reachable} experts there are", experts.num_experts_per_tok);
                return bad("num_experts_per_tok", problem);
            }
        }
    }
    for rope in &config.ropes {
        rope.check(path)?;
    }
    Ok(config)
}
