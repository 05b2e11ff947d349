//! Names and shapes of all weights that a config calls for, in the order of their use.
//!
//! Names are Llama's; norms on outputs are called as GLM-4 calls them, parts of fused matrices as if they were not.

use crate::checkpoint::config::{
    Attention, Experts, FeedForward, GatedDeltaNet, LatentAttention, LayerConfig, Mixer, Mlp, ModelConfig,
    NormKind, QkNorm,
};

pub(super) const EMBEDDING: &str = "model.embed_tokens.weight";
pub(super) const POSITIONS: &str = "model.embed_positions.weight";
pub(super) const FINAL_NORM: &str = "model.norm";
pub(super) const HEAD: &str = "lm_head.weight";

/// What [`super::Layer`] calls all routed experts together.
pub(super) const EXPERTS: &str = "mlp.experts";

/// A list of weights on its way.
struct List {
    all: Vec<(String, Vec<usize>)>,
}

impl List {
    fn put(&mut self, name: impl Into<String>, shape: &[usize]) {
        self.all.push((name.into(), shape.to_vec()));
    }

    /// A matrix `[out, in]` and its bias.
    fn linear(&mut self, module: &str, shape: [usize; 2], bias: bool) {
        self.put(format!("{module}.weight"), &shape);
        if bias {
            self.put(format!("{module}.bias"), &shape[..1]);
        }
    }

    fn norm(&mut self, module: &str, kind: NormKind, width: usize) {
        self.put(format!("{module}.weight"), &[width]);
        if kind == NormKind::Layer {
            self.put(format!("{module}.bias"), &[width]);
        }
    }

    fn mlp(&mut self, module: &str, mlp: &Mlp, hidden: usize) {
        for (matrix, shape) in mlp_matrices(mlp, hidden) {
            self.linear(&format!("{module}.{matrix}"), shape, mlp.bias);
        }
    }
}

/// Matrices of an MLP with their shapes.
fn mlp_matrices(mlp: &Mlp, hidden: usize) -> impl Iterator<Item = (&'static str, [usize; 2])> {
    let width = mlp.intermediate_size;
    let gate = mlp.gated.then_some(("gate_proj", [width, hidden]));
    gate.into_iter().chain([("up_proj", [width, hidden]), ("down_proj", [hidden, width])])
}

/// Name and shape of every weight that a decoder of this config has, in the order of use.
pub fn expected_weights(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    let hidden = config.hidden_size;
    let mut list = List { all: Vec::new() };
    list.put(EMBEDDING, &[config.vocab_size, hidden]);
    if let Some(positions) = config.learned_positions {
        list.put(POSITIONS, &[positions, hidden]);
    }
    for (index, layer) in config.layers.iter().enumerate() {
        let before = list.all.len();
        layer_weights(&mut list, layer, config);
        for (name, _) in &mut list.all[before..] {
            *name = format!("model.layers.{index}.{name}");
        }
    }
    list.norm(FINAL_NORM, config.norm.kind, hidden);
    if !config.tie_word_embeddings {
        list.put(HEAD, &[config.vocab_size, hidden]);
    }
    list.all
}

fn layer_weights(list: &mut List, layer: &LayerConfig, config: &ModelConfig) {
    let (hidden, kind) = (config.hidden_size, config.norm.kind);
    if layer.norms.input {
        list.norm("input_layernorm", kind, hidden);
    }
    match &layer.mixer {
        Mixer::Attention(attention) => attention_weights(list, attention, hidden),
        Mixer::LatentAttention(latent) => latent_weights(list, latent, hidden),
        Mixer::GatedDeltaNet(net) => net_weights(list, net, hidden),
    }
    if layer.norms.post_mixer {
        list.norm("post_self_attn_layernorm", kind, hidden);
    }
    if layer.norms.pre_feed_forward {
        list.norm("post_attention_layernorm", kind, hidden);
    }
    match &layer.feed_forward {
        FeedForward::Mlp(mlp) => list.mlp("mlp", mlp, hidden),
        FeedForward::Experts(experts) => expert_weights(list, experts, hidden),
    }
    if layer.norms.post_feed_forward {
        list.norm("post_mlp_layernorm", kind, hidden);
    }
}

fn attention_weights(list: &mut List, attention: &Attention, hidden: usize) {
    let Attention { num_attention_heads, num_key_value_heads, head_dim, bias, .. } = *attention;
    let (q, kv) = (num_attention_heads * head_dim, num_key_value_heads * head_dim);
    list.linear("self_attn.q_proj", [q, hidden], bias);
    list.linear("self_attn.k_proj", [kv, hidden], bias);
    list.linear("self_attn.v_proj", [kv, hidden], bias);
    if attention.output_gate {
        list.linear("self_attn.gate_proj", [q, hidden], bias);
    }
    list.linear("self_attn.o_proj", [hidden, q], attention.output_bias);
    let widths = match attention.qk_norm {
        None => None,
        Some(QkNorm::Head) => Some((head_dim, head_dim)),
        Some(QkNorm::Projection) => Some((q, kv)),
    };
    if let Some((q, k)) = widths {
        list.put("self_attn.q_norm.weight", &[q]);
        list.put("self_attn.k_norm.weight", &[k]);
    }
    if attention.sinks {
        list.put("self_attn.sinks", &[num_attention_heads]);
    }
}

fn latent_weights(list: &mut List, latent: &LatentAttention, hidden: usize) {
    let heads = latent.num_attention_heads;
    let queries = heads * (latent.qk_nope_head_dim + latent.qk_rope_head_dim);
    match latent.q_lora_rank {
        None => list.linear("self_attn.q_proj", [queries, hidden], false),
        Some(rank) => {
            list.linear("self_attn.q_a_proj", [rank, hidden], latent.bias);
            list.put("self_attn.q_a_layernorm.weight", &[rank]);
            list.linear("self_attn.q_b_proj", [queries, rank], false);
        }
    }
    let rank = latent.kv_lora_rank;
    list.linear("self_attn.kv_a_proj_with_mqa", [rank + latent.qk_rope_head_dim, hidden], latent.bias);
    list.put("self_attn.kv_a_layernorm.weight", &[rank]);
    list.linear("self_attn.k_b_proj", [heads * latent.qk_nope_head_dim, rank], false);
    list.linear("self_attn.v_b_proj", [heads * latent.v_head_dim, rank], false);
    list.linear("self_attn.o_proj", [hidden, heads * latent.v_head_dim], latent.bias);
}

fn net_weights(list: &mut List, net: &GatedDeltaNet, hidden: usize) {
    let values = net.num_value_heads * net.value_head_dim;
    let mixed = 2 * net.num_key_heads * net.key_head_dim + values;
    list.linear("linear_attn.in_proj_qkv", [mixed, hidden], false);
    list.linear("linear_attn.in_proj_z", [values, hidden], false);
    list.linear("linear_attn.in_proj_b", [net.num_value_heads, hidden], false);
    list.linear("linear_attn.in_proj_a", [net.num_value_heads, hidden], false);
    list.put("linear_attn.conv1d.weight", &[mixed, net.conv_kernel_dim]);
    list.put("linear_attn.dt_bias", &[net.num_value_heads]);
    list.put("linear_attn.A", &[net.num_value_heads]);
    list.put("linear_attn.norm.weight", &[net.value_head_dim]);
    list.linear("linear_attn.out_proj", [hidden, values], false);
}

fn expert_weights(list: &mut List, experts: &Experts, hidden: usize) {
    list.linear("mlp.gate", [experts.num_experts, hidden], experts.router_bias);
    if experts.correction_bias {
        list.put("mlp.gate.e_score_correction_bias", &[experts.num_experts]);
    }
    for expert in 0..experts.num_experts {
        list.mlp(&format!("{EXPERTS}.{expert}"), &experts.expert, hidden);
    }
    if let Some(shared) = &experts.shared {
        list.mlp("mlp.shared_expert", &shared.mlp, hidden);
        if shared.gated {
            list.linear("mlp.shared_expert_gate", [1, hidden], false);
        }
    }
}

/// The products of a layer that probes look at, in the order of their use; all routed experts count as one.
pub fn linears(layer: &LayerConfig) -> Vec<&'static str> {
    let mut names = match &layer.mixer {
        Mixer::Attention(attention) => {
            let gate = attention.output_gate.then_some("self_attn.gate_proj");
            let first = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"];
            first.into_iter().chain(gate).chain(["self_attn.o_proj"]).collect()
        }
        Mixer::LatentAttention(latent) => {
            let queries = match latent.q_lora_rank {
                None => vec!["self_attn.q_proj"],
                Some(_) => vec!["self_attn.q_a_proj", "self_attn.q_b_proj"],
            };
            let rest = [
                "self_attn.kv_a_proj_with_mqa",
                "self_attn.k_b_proj",
                "self_attn.v_b_proj",
                "self_attn.o_proj",
            ];
            queries.into_iter().chain(rest).collect::<Vec<_>>()
        }
        Mixer::GatedDeltaNet(_) => vec![
            "linear_attn.in_proj_qkv",
            "linear_attn.in_proj_z",
            "linear_attn.in_proj_b",
            "linear_attn.in_proj_a",
            "linear_attn.out_proj",
        ],
    };
    match &layer.feed_forward {
        FeedForward::Mlp(mlp) => {
            names.extend(mlp.gated.then_some("mlp.gate_proj"));
            names.extend(["mlp.up_proj", "mlp.down_proj"]);
        }
        FeedForward::Experts(experts) => {
            names.extend(["mlp.gate", EXPERTS]);
            if let Some(shared) = &experts.shared {
                names.extend(shared.mlp.gated.then_some("mlp.shared_expert.gate_proj"));
                names.extend(["mlp.shared_expert.up_proj", "mlp.shared_expert.down_proj"]);
                names.extend(shared.gated.then_some("mlp.shared_expert_gate"));
            }
        }
    }
    names
}

/// Weights that one token is multiplied with in a layer: of the experts only those it goes through.
pub(super) fn multiplied(layer: &LayerConfig, config: &ModelConfig) -> usize {
    let mut list = List { all: Vec::new() };
    layer_weights(&mut list, layer, config);
    let matrix = |(_, shape): &&(String, Vec<usize>)| shape.len() == 2;
    let elements = |(_, shape): &(String, Vec<usize>)| shape.iter().product::<usize>();
    let all: usize = list.all.iter().filter(matrix).map(elements).sum();
    match &layer.feed_forward {
        FeedForward::Mlp(_) => all,
        FeedForward::Experts(experts) => {
            let sizes = mlp_matrices(&experts.expert, config.hidden_size);
            let one: usize = sizes.map(|(_, shape)| shape[0] * shape[1]).sum();
            all - (experts.num_experts - experts.num_experts_per_tok) * one
        }
    }
}
