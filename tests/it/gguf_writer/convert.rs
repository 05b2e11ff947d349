//! From a Hugging Face folder to what llama.cpp's converter makes of it: metadata, names, and tensors where they change.
//!
//! Facts: `conversion/*.py` and `gguf-py/gguf/tensor_mapping.py` of llama.cpp as vendored in llama_cpp_python 0.3.36.
//! Every tensor of the folder must be known: one that no rule names fails.

use std::{collections::BTreeMap, ops::Range, path::Path};

use super::{Config, Model, Tensor, Value, widened};

/// Changes a tensor on its way.
type Change = fn(&Config, &Tensor) -> Tensor;

/// A module (or a whole tensor) of Hugging Face's, its name in the GGUF, and how it changes. The layer's number is left out.
struct Rule(&'static str, &'static str, Change);

/// Where a metadata value comes from.
enum Key {
    Count(&'static [&'static str]),
    Real(&'static [&'static str]),
    Flag(&'static str),
    Made(fn(&Config) -> Value),
}

/// What llama.cpp calls a family, and what is its own.
struct Family {
    classes: &'static [&'static str],
    name: &'static str,
    /// Norms are stored with 1 added, as their graph does not add it.
    raised_norms: bool,
    /// These go before the common ones.
    rules: &'static [Rule],
    /// These go before the common ones.
    keys: &'static [(&'static str, Key)],
    /// Common keys that are not written.
    silent_on: &'static [&'static str],
}

const PLAIN: Family =
    Family { classes: &[], name: "", raised_norms: false, rules: &[], keys: &[], silent_on: &[] };

/// The converter's rules for this class of Hugging Face's; `None` where it has none.
fn family(class: &str) -> Option<Family> {
    let families = [
        Family {
            classes: &["LlamaForCausalLM", "MistralForCausalLM", "MixtralForCausalLM"],
            name: "llama",
            rules: LLAMA_RULES,
            keys: LLAMA_KEYS,
            ..PLAIN
        },
        Family {
            classes: &["GraniteForCausalLM"],
            name: "granite",
            rules: LLAMA_RULES,
            keys: GRANITE_KEYS,
            ..PLAIN
        },
        Family {
            classes: &["SmolLM3ForCausalLM"],
            name: "smollm3",
            rules: LLAMA_RULES,
            keys: LLAMA_KEYS,
            ..PLAIN
        },
        Family { classes: &["Qwen2ForCausalLM"], name: "qwen2", ..PLAIN },
        Family { classes: &["Qwen3ForCausalLM"], name: "qwen3", ..PLAIN },
        Family { classes: &["Qwen3MoeForCausalLM"], name: "qwen3moe", keys: MOE_KEYS, ..PLAIN },
        Family {
            classes: &["Gemma2ForCausalLM"],
            name: "gemma2",
            raised_norms: true,
            rules: GEMMA_RULES,
            keys: GEMMA2_KEYS,
            silent_on: &["rope.freq_base"],
        },
        Family {
            classes: &["Gemma3ForCausalLM"],
            name: "gemma3",
            raised_norms: true,
            rules: GEMMA_RULES,
            keys: GEMMA3_KEYS,
            ..PLAIN
        },
        Family { classes: &["Phi3ForCausalLM"], name: "phi3", keys: PHI3_KEYS, ..PLAIN },
        Family { classes: &["Olmo2ForCausalLM"], name: "olmo2", rules: OLMO2_RULES, ..PLAIN },
        Family {
            classes: &["Glm4ForCausalLM"],
            name: "glm4",
            rules: GLM4_RULES,
            keys: PARTIAL_KEYS,
            ..PLAIN
        },
        Family { classes: &["GPT2LMHeadModel"], name: "gpt2", rules: GPT2_RULES, keys: GPT2_KEYS, ..PLAIN },
        Family {
            classes: &["GPTNeoXForCausalLM"],
            name: "gptneox",
            rules: NEOX_RULES,
            keys: NEOX_KEYS,
            silent_on: &["rope.freq_base", "attention.head_count_kv"],
            ..PLAIN
        },
        Family {
            classes: &["GptOssForCausalLM"],
            name: "gpt-oss",
            rules: GPT_OSS_RULES,
            keys: GPT_OSS_KEYS,
            ..PLAIN
        },
        Family {
            classes: &["DeepseekV3ForCausalLM"],
            name: "deepseek2",
            rules: DEEPSEEK_RULES,
            keys: DEEPSEEK_KEYS,
            ..PLAIN
        },
        Family {
            classes: &["Qwen3NextForCausalLM"],
            name: "qwen3next",
            raised_norms: true,
            rules: QWEN3_NEXT_RULES,
            keys: QWEN3_NEXT_KEYS,
            ..PLAIN
        },
        Family {
            classes: &["Qwen3_5ForCausalLM"],
            name: "qwen35",
            raised_norms: true,
            rules: QWEN35_RULES,
            keys: QWEN35_KEYS,
            ..PLAIN
        },
    ];
    families.into_iter().find(|family| family.classes.contains(&class))
}

const COMMON_RULES: &[Rule] = &[
    Rule("model.embed_tokens", "token_embd", same),
    Rule("model.norm", "output_norm", same),
    Rule("lm_head", "output", same),
    Rule("input_layernorm", "attn_norm", same),
    Rule("post_attention_layernorm", "ffn_norm", same),
    Rule("self_attn.q_proj", "attn_q", same),
    Rule("self_attn.k_proj", "attn_k", same),
    Rule("self_attn.v_proj", "attn_v", same),
    Rule("self_attn.qkv_proj", "attn_qkv", same),
    Rule("self_attn.o_proj", "attn_output", same),
    Rule("self_attn.q_norm", "attn_q_norm", same),
    Rule("self_attn.k_norm", "attn_k_norm", same),
    Rule("mlp.gate_proj", "ffn_gate", same),
    Rule("mlp.up_proj", "ffn_up", same),
    Rule("mlp.gate_up_proj", "ffn_up", same),
    Rule("mlp.down_proj", "ffn_down", same),
    // Experts have been stacked.
    Rule("mlp.gate", "ffn_gate_inp", same),
    Rule("mlp.experts.gate_proj", "ffn_gate_exps", same),
    Rule("mlp.experts.up_proj", "ffn_up_exps", same),
    Rule("mlp.experts.down_proj", "ffn_down_exps", same),
];

/// Mixtral's experts go by numbers.
const LLAMA_RULES: &[Rule] = &[
    Rule("self_attn.q_proj", "attn_q", |config, tensor| paired(tensor, config.size("/num_attention_heads"))),
    Rule("self_attn.k_proj", "attn_k", |config, tensor| paired(tensor, config.size("/num_key_value_heads"))),
    Rule("block_sparse_moe.gate", "ffn_gate_inp", same),
    Rule("block_sparse_moe.experts.w1", "ffn_gate_exps", same),
    Rule("block_sparse_moe.experts.w2", "ffn_down_exps", same),
    Rule("block_sparse_moe.experts.w3", "ffn_up_exps", same),
];

const GEMMA_RULES: &[Rule] = &[
    Rule("post_attention_layernorm", "post_attention_norm", same),
    Rule("pre_feedforward_layernorm", "ffn_norm", same),
    Rule("post_feedforward_layernorm", "post_ffw_norm", same),
];

const OLMO2_RULES: &[Rule] = &[
    Rule("post_attention_layernorm", "post_attention_norm", same),
    Rule("post_feedforward_layernorm", "post_ffw_norm", same),
];

const GLM4_RULES: &[Rule] = &[
    Rule("post_self_attn_layernorm", "post_attention_norm", same),
    Rule("post_mlp_layernorm", "post_ffw_norm", same),
];

const GPT2_RULES: &[Rule] = &[
    Rule("transformer.wte", "token_embd", same),
    Rule("transformer.wpe", "position_embd", same),
    Rule("transformer.ln_f", "output_norm", same),
    Rule("ln_1", "attn_norm", same),
    Rule("ln_2", "ffn_norm", same),
    Rule("attn.c_attn", "attn_qkv", turned),
    Rule("attn.c_proj", "attn_output", turned),
    Rule("mlp.c_fc", "ffn_up", turned),
    Rule("mlp.c_proj", "ffn_down", turned),
];

const NEOX_RULES: &[Rule] = &[
    Rule("gpt_neox.embed_in", "token_embd", same),
    Rule("gpt_neox.final_layer_norm", "output_norm", same),
    Rule("embed_out", "output", same),
    Rule("attention.query_key_value", "attn_qkv", parts_first),
    Rule("attention.dense", "attn_output", same),
    Rule("mlp.dense_h_to_4h", "ffn_up", same),
    Rule("mlp.dense_4h_to_h", "ffn_down", same),
];

const GPT_OSS_RULES: &[Rule] = &[
    Rule("post_attention_layernorm", "post_attention_norm", same),
    Rule("self_attn.sinks", "attn_sinks.weight", same),
    Rule("mlp.router", "ffn_gate_inp", same),
    Rule("mlp.experts.gate_up_proj", "ffn_gate_exps.weight", |_, tensor| {
        every_other(&tensor.transposed(), 0)
    }),
    Rule("mlp.experts.gate_up_proj", "ffn_up_exps.weight", |_, tensor| every_other(&tensor.transposed(), 1)),
    Rule("mlp.experts.gate_up_proj_bias", "ffn_gate_exps.bias", |_, tensor| every_other(tensor, 0)),
    Rule("mlp.experts.gate_up_proj_bias", "ffn_up_exps.bias", |_, tensor| every_other(tensor, 1)),
    Rule("mlp.experts.down_proj", "ffn_down_exps.weight", |_, tensor| tensor.transposed()),
    Rule("mlp.experts.down_proj_bias", "ffn_down_exps.bias", same),
];

const DEEPSEEK_RULES: &[Rule] = &[
    Rule("self_attn.q_a_proj", "attn_q_a", same),
    Rule("self_attn.q_a_layernorm", "attn_q_a_norm", same),
    Rule("self_attn.q_b_proj", "attn_q_b", same),
    Rule("self_attn.kv_a_proj_with_mqa", "attn_kv_a_mqa", same),
    Rule("self_attn.kv_a_layernorm", "attn_kv_a_norm", same),
    Rule("self_attn.kv_b_proj", "attn_k_b", |config, tensor| {
        of_each_head(config, tensor, 0..config.size("/qk_nope_head_dim")).transposed()
    }),
    Rule("self_attn.kv_b_proj", "attn_v_b", |config, tensor| {
        let nope = config.size("/qk_nope_head_dim");
        of_each_head(config, tensor, nope..nope + config.size("/v_head_dim"))
    }),
    Rule("mlp.gate.e_score_correction_bias", "exp_probs_b.bias", same),
    Rule("mlp.shared_experts.gate_proj", "ffn_gate_shexp", same),
    Rule("mlp.shared_experts.up_proj", "ffn_up_shexp", same),
    Rule("mlp.shared_experts.down_proj", "ffn_down_shexp", same),
];

const QWEN3_NEXT_RULES: &[Rule] = &[
    Rule("post_attention_layernorm", "post_attention_norm", same),
    Rule("mlp.shared_expert.gate_proj", "ffn_gate_shexp", same),
    Rule("mlp.shared_expert.up_proj", "ffn_up_shexp", same),
    Rule("mlp.shared_expert.down_proj", "ffn_down_shexp", same),
    Rule("mlp.shared_expert_gate", "ffn_gate_inp_shexp", same),
    Rule("linear_attn.in_proj_qkvz", "attn_qkv", |config, tensor| {
        let Delta { key_heads, key_dim, .. } = delta(config);
        let [q, k, v, _] = qkvz(config);
        let width = tensor.shape[0] / key_heads;
        assert_eq!((q.len(), k.len()), (key_dim, key_dim));
        tensor.rows([q, k, v].iter().flat_map(|part| of_each(key_heads, width, part)))
    }),
    Rule("linear_attn.in_proj_qkvz", "attn_gate", |config, tensor| {
        let [.., z] = qkvz(config);
        let Delta { key_heads, .. } = delta(config);
        tensor.rows(of_each(key_heads, tensor.shape[0] / key_heads, &z))
    }),
    Rule("linear_attn.in_proj_ba", "ssm_ba", same),
    Rule("linear_attn.conv1d", "ssm_conv1d", |_, tensor| squeezed(tensor)),
    Rule("linear_attn.A_log", "ssm_a", |_, tensor| decay(tensor)),
    Rule("linear_attn.dt_bias", "ssm_dt.bias", same),
    Rule("linear_attn.norm", "ssm_norm", same),
    Rule("linear_attn.out_proj", "ssm_out", same),
];

const QWEN35_RULES: &[Rule] = &[
    Rule("post_attention_layernorm", "post_attention_norm", same),
    Rule("linear_attn.in_proj_qkv", "attn_qkv", tiled_after_keys),
    Rule("linear_attn.in_proj_z", "attn_gate", tiled_wide),
    Rule("linear_attn.in_proj_a", "ssm_alpha", tiled),
    Rule("linear_attn.in_proj_b", "ssm_beta", tiled),
    Rule("linear_attn.conv1d", "ssm_conv1d", |config, tensor| tiled_after_keys(config, &squeezed(tensor))),
    Rule("linear_attn.A_log", "ssm_a", |config, tensor| decay(&tiled(config, tensor))),
    Rule("linear_attn.dt_bias", "ssm_dt.bias", tiled),
    Rule("linear_attn.norm", "ssm_norm", same),
    // Its columns are what the heads give.
    Rule("linear_attn.out_proj", "ssm_out", |config, tensor| {
        tiled_wide(config, &tensor.transposed()).transposed()
    }),
];

const COMMON_KEYS: &[(&str, Key)] = &[
    ("block_count", Key::Count(&["/num_hidden_layers", "/n_layer"])),
    ("context_length", Key::Count(&["/max_position_embeddings", "/n_positions"])),
    ("embedding_length", Key::Count(&["/hidden_size", "/n_embd"])),
    ("feed_forward_length", Key::Count(&["/intermediate_size"])),
    ("attention.head_count", Key::Count(&["/num_attention_heads", "/n_head"])),
    ("attention.head_count_kv", Key::Count(&["/num_key_value_heads"])),
    ("attention.key_length", Key::Count(&["/head_dim"])),
    ("attention.value_length", Key::Count(&["/head_dim"])),
    ("attention.layer_norm_rms_epsilon", Key::Real(&["/rms_norm_eps"])),
    ("attention.layer_norm_epsilon", Key::Real(&["/layer_norm_eps", "/layer_norm_epsilon"])),
    ("rope.freq_base", Key::Real(&["/rope_parameters/rope_theta"])),
    ("expert_count", Key::Count(&["/num_local_experts", "/num_experts", "/n_routed_experts"])),
    ("expert_used_count", Key::Count(&["/num_experts_per_tok"])),
];

const LLAMA_KEYS: &[(&str, Key)] = &[
    ("vocab_size", Key::Count(&["/vocab_size"])),
    ("rope.dimension_count", Key::Made(|config| count(config.head_dim()))),
];

const GRANITE_KEYS: &[(&str, Key)] = &[
    ("vocab_size", Key::Count(&["/vocab_size"])),
    ("rope.dimension_count", Key::Made(|config| count(config.head_dim()))),
    ("attention.scale", Key::Real(&["/attention_multiplier"])),
    ("embedding_scale", Key::Real(&["/embedding_multiplier"])),
    ("residual_scale", Key::Real(&["/residual_multiplier"])),
    ("logit_scale", Key::Real(&["/logits_scaling"])),
];

const MOE_KEYS: &[(&str, Key)] = &[("expert_feed_forward_length", Key::Count(&["/moe_intermediate_size"]))];

const GEMMA2_KEYS: &[(&str, Key)] = &[
    ("attn_logit_softcapping", Key::Real(&["/attn_logit_softcapping"])),
    ("final_logit_softcapping", Key::Real(&["/final_logit_softcapping"])),
    ("attention.sliding_window", Key::Count(&["/sliding_window"])),
];

const GEMMA3_KEYS: &[(&str, Key)] = &[
    ("rope.freq_base", Key::Real(&["/rope_parameters/full_attention/rope_theta"])),
    ("rope.freq_base_swa", Key::Real(&["/rope_parameters/sliding_attention/rope_theta"])),
    ("final_logit_softcapping", Key::Real(&["/final_logit_softcapping"])),
    ("attention.sliding_window", Key::Count(&["/sliding_window"])),
];

const PHI3_KEYS: &[(&str, Key)] = &[
    ("rope.scaling.original_context_length", Key::Count(&["/original_max_position_embeddings"])),
    ("rope.dimension_count", Key::Made(rotated)),
    // 0 says that there is none.
    ("attention.sliding_window", Key::Made(|config| count(config.count(&["/sliding_window"]).unwrap_or(0)))),
];

const PARTIAL_KEYS: &[(&str, Key)] = &[("rope.dimension_count", Key::Made(rotated))];

const GPT2_KEYS: &[(&str, Key)] =
    &[("feed_forward_length", Key::Made(|config| count(4 * config.size("/n_embd"))))];

const NEOX_KEYS: &[(&str, Key)] = &[
    ("rope.dimension_count", Key::Made(rotated)),
    ("use_parallel_residual", Key::Flag("/use_parallel_residual")),
];

const GPT_OSS_KEYS: &[(&str, Key)] = &[
    ("rope.scaling.type", Key::Made(|_| Value::String("yarn".to_owned()))),
    ("rope.scaling.factor", Key::Real(&["/rope_parameters/factor"])),
    (
        "rope.scaling.original_context_length",
        Key::Count(&["/rope_parameters/original_max_position_embeddings"]),
    ),
    ("rope.scaling.yarn_beta_fast", Key::Real(&["/rope_parameters/beta_fast"])),
    ("rope.scaling.yarn_beta_slow", Key::Real(&["/rope_parameters/beta_slow"])),
    ("attention.sliding_window", Key::Count(&["/sliding_window"])),
    ("expert_feed_forward_length", Key::Count(&["/intermediate_size"])),
];

const DEEPSEEK_KEYS: &[(&str, Key)] = &[
    // Compressed keys and values are one head that all queries share.
    ("attention.head_count_kv", Key::Made(|_| count(1))),
    (
        "attention.key_length",
        Key::Made(|config| count(config.size("/kv_lora_rank") + config.size("/qk_rope_head_dim"))),
    ),
    ("attention.value_length", Key::Count(&["/kv_lora_rank"])),
    (
        "attention.key_length_mla",
        Key::Made(|config| count(config.size("/qk_nope_head_dim") + config.size("/qk_rope_head_dim"))),
    ),
    ("attention.value_length_mla", Key::Count(&["/v_head_dim"])),
    ("attention.q_lora_rank", Key::Count(&["/q_lora_rank"])),
    ("attention.kv_lora_rank", Key::Count(&["/kv_lora_rank"])),
    ("rope.dimension_count", Key::Count(&["/qk_rope_head_dim"])),
    ("leading_dense_block_count", Key::Count(&["/first_k_dense_replace"])),
    ("vocab_size", Key::Count(&["/vocab_size"])),
    ("expert_feed_forward_length", Key::Count(&["/moe_intermediate_size"])),
    ("expert_shared_count", Key::Count(&["/n_shared_experts"])),
    ("expert_weights_scale", Key::Real(&["/routed_scaling_factor"])),
    ("expert_weights_norm", Key::Flag("/norm_topk_prob")),
    ("expert_group_count", Key::Count(&["/n_group"])),
    ("expert_group_used_count", Key::Count(&["/topk_group"])),
];

const QWEN3_NEXT_KEYS: &[(&str, Key)] = &[
    ("expert_feed_forward_length", Key::Count(&["/moe_intermediate_size"])),
    ("expert_shared_feed_forward_length", Key::Count(&["/shared_expert_intermediate_size"])),
    ("ssm.conv_kernel", Key::Count(&["/linear_conv_kernel_dim"])),
    ("ssm.state_size", Key::Count(&["/linear_key_head_dim"])),
    ("ssm.group_count", Key::Count(&["/linear_num_key_heads"])),
    ("ssm.time_step_rank", Key::Count(&["/linear_num_value_heads"])),
    ("ssm.inner_size", Key::Made(inner_size)),
    ("attention.recurrent_layers", Key::Made(recurrent_layers)),
    ("full_attention_interval", Key::Made(|_| count(4))),
    ("rope.dimension_count", Key::Made(rotated)),
];

const QWEN35_KEYS: &[(&str, Key)] = &[
    ("ssm.conv_kernel", Key::Count(&["/linear_conv_kernel_dim"])),
    ("ssm.state_size", Key::Count(&["/linear_key_head_dim"])),
    ("ssm.group_count", Key::Count(&["/linear_num_key_heads"])),
    ("ssm.time_step_rank", Key::Count(&["/linear_num_value_heads"])),
    ("ssm.inner_size", Key::Made(inner_size)),
    ("attention.recurrent_layers", Key::Made(recurrent_layers)),
    ("full_attention_interval", Key::Made(|_| count(4))),
    ("rope.dimension_count", Key::Made(rotated)),
    // What is written where the config has none; text does not need it.
    ("rope.dimension_sections", Key::Made(|_| Value::I32s(vec![11, 11, 10, 0]))),
];

fn count(number: usize) -> Value {
    Value::U32(u32::try_from(number).expect("a count"))
}

/// Channels of a head that are rotated.
fn rotated(config: &Config) -> Value {
    let share = config.real(&["/rope_parameters/partial_rotary_factor"]).expect("a share");
    count((config.head_dim() as f32 * share) as usize)
}

fn inner_size(config: &Config) -> Value {
    count(config.size("/linear_value_head_dim") * config.size("/linear_num_value_heads"))
}

fn recurrent_layers(config: &Config) -> Value {
    let kinds = config.get(&["/layer_types"]).and_then(|list| list.as_array()).expect("a list");
    Value::Bools(kinds.iter().map(|kind| kind == "linear_attention").collect())
}

fn same(_: &Config, tensor: &Tensor) -> Tensor {
    tensor.clone()
}

/// The halves of a head in turn: a rotation turns pairs of neighbours there, not of halves.
fn paired(tensor: &Tensor, heads: usize) -> Tensor {
    let width = tensor.shape[0] / heads;
    let row = |row: usize| row - row % width + row % width % 2 * (width / 2) + row % width / 2;
    tensor.rows((0..tensor.shape[0]).map(row))
}

/// GPT-2's matrices are `[in, out]`.
fn turned(_: &Config, tensor: &Tensor) -> Tensor {
    if tensor.shape.len() == 2 { tensor.transposed() } else { tensor.clone() }
}

/// Rows by head, then q, k, v; wanted by q, k, v, then head.
fn parts_first(config: &Config, tensor: &Tensor) -> Tensor {
    let heads = config.size("/num_attention_heads");
    let width = tensor.shape[0] / heads / 3;
    tensor.rows((0..3).flat_map(|part| of_each(heads, 3 * width, &(part * width..(part + 1) * width))))
}

/// Of each of `blocks` blocks of `width` rows, these.
fn of_each(blocks: usize, width: usize, which: &Range<usize>) -> impl Iterator<Item = usize> + use<> {
    let which = which.clone();
    (0..blocks).flat_map(move |block| which.clone().map(move |row| block * width + row))
}

/// Of each expert's rows every other one, from `first` on.
fn every_other(tensor: &Tensor, first: usize) -> Tensor {
    let [experts, rows, rest @ ..] = tensor.shape.as_slice() else { panic!("{:?}", tensor.shape) };
    let flat = tensor.clone().shaped(&[&[experts * rows], rest].concat());
    flat.rows((first..experts * rows).step_by(2)).shaped(&[&[*experts, rows / 2], rest].concat())
}

/// `[heads, part, rank]` of the rows of each head.
fn of_each_head(config: &Config, tensor: &Tensor, part: Range<usize>) -> Tensor {
    let heads = config.size("/num_attention_heads");
    let picked = tensor.rows(of_each(heads, tensor.shape[0] / heads, &part));
    picked.shaped(&[heads, part.len(), tensor.shape[1]])
}

/// Heads of a gated delta net.
struct Delta {
    key_heads: usize,
    key_dim: usize,
    /// Value heads for each key head.
    ratio: usize,
    value_dim: usize,
}

fn delta(config: &Config) -> Delta {
    let key_heads = config.size("/linear_num_key_heads");
    Delta {
        key_heads,
        key_dim: config.size("/linear_key_head_dim"),
        ratio: config.size("/linear_num_value_heads") / key_heads,
        value_dim: config.size("/linear_value_head_dim"),
    }
}

/// Where q, k, v and z lie in the rows of one key head.
fn qkvz(config: &Config) -> [Range<usize>; 4] {
    let Delta { key_dim, ratio, value_dim, .. } = delta(config);
    let mut end = 0;
    [key_dim, key_dim, ratio * value_dim, ratio * value_dim].map(|width| {
        end += width;
        end - width..end
    })
}

/// Value heads lie with their key head; wanted are the first of all key heads, then the second of all. Each of `width` rows,
/// after `before` rows that stay.
fn tiled_heads(config: &Config, tensor: &Tensor, before: usize, width: usize) -> Tensor {
    let Delta { key_heads, ratio, .. } = delta(config);
    let heads = (0..ratio).flat_map(|value| (0..key_heads).map(move |key| key * ratio + value));
    let rows = heads.flat_map(|head| (0..width).map(move |row| before + head * width + row));
    tensor.rows((0..before).chain(rows))
}

fn tiled(config: &Config, tensor: &Tensor) -> Tensor {
    tiled_heads(config, tensor, 0, 1)
}

fn tiled_wide(config: &Config, tensor: &Tensor) -> Tensor {
    tiled_heads(config, tensor, 0, delta(config).value_dim)
}

fn tiled_after_keys(config: &Config, tensor: &Tensor) -> Tensor {
    let Delta { key_heads, key_dim, value_dim, .. } = delta(config);
    tiled_heads(config, tensor, 2 * key_heads * key_dim, value_dim)
}

/// A convolution over single channels: `[channels, 1, kernel]`.
fn squeezed(tensor: &Tensor) -> Tensor {
    tensor.clone().shaped(&[tensor.shape[0], tensor.shape[2]])
}

fn decay(tensor: &Tensor) -> Tensor {
    tensor.clone().map(|logarithm| -logarithm.exp())
}

/// Llama 3's scaling, which is only stored as divisors of the frequencies.
fn llama3_divisors(config: &Config) -> Option<Tensor> {
    let of = |key: &str| config.real(&[&format!("/rope_parameters/{key}")]);
    if config.get(&["/rope_parameters/rope_type"])? != "llama3" {
        return None;
    }
    let (theta, factor, original) =
        (of("rope_theta")?, of("factor")?, of("original_max_position_embeddings")?);
    let (low, high) = (of("low_freq_factor")?, of("high_freq_factor")?);
    let width = config.head_dim();
    let divisor = |channel: usize| {
        let wavelength = std::f32::consts::TAU * theta.powf(channel as f32 / width as f32);
        // How often a wave fits into the trained length.
        let turns = original / wavelength;
        let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
        1.0 / ((1.0 - kept) / factor + kept)
    };
    let values: Vec<f32> = (0..width).step_by(2).map(divisor).collect();
    Some(Tensor { shape: vec![values.len()], values })
}

/// "model.layers.3.mlp.up_proj.weight" as 3 and "mlp.up_proj.weight".
fn split_layer(name: &str) -> (Option<usize>, &str) {
    let mut rest = name;
    while let Some((segment, after)) = rest.split_once('.') {
        if let Ok(layer) = segment.parse() {
            return (Some(layer), after);
        }
        rest = after;
    }
    (None, name)
}

/// Experts that are tensors of their own become one tensor without their number.
fn stacked(tensors: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let mut whole = BTreeMap::new();
    let mut experts: BTreeMap<String, BTreeMap<usize, Tensor>> = BTreeMap::new();
    for (name, tensor) in tensors {
        let numbered = name.split_once("experts.").and_then(|(before, after)| {
            let (number, rest) = after.split_once('.')?;
            Some((format!("{before}experts.{rest}"), number.parse().ok()?))
        });
        match numbered {
            Some((name, number)) => drop(experts.entry(name).or_default().insert(number, tensor)),
            None => drop(whole.insert(name, tensor)),
        }
    }
    for (name, each) in experts {
        let shape = [&[each.len()], each[&0].shape.as_slice()].concat();
        let values = each.into_values().flat_map(|tensor| tensor.values).collect();
        whole.insert(name, Tensor { shape, values });
    }
    whole
}

/// The new name, where this rule is for a tensor called `rest`.
fn renamed(rule: &Rule, rest: &str) -> Option<String> {
    match rest.strip_prefix(rule.0)? {
        "" => Some(rule.1.to_owned()),
        kind @ (".weight" | ".bias") => Some(format!("{}{kind}", rule.1)),
        _ => None,
    }
}

fn tensors(config: &Config, family: &Family, from: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let mut all = BTreeMap::new();
    for (name, tensor) in stacked(from) {
        let (layer, rest) = split_layer(&name);
        let by = |rules: &'static [Rule]| -> Vec<(String, Change)> {
            rules.iter().filter_map(|rule| Some((renamed(rule, rest)?, rule.2))).collect()
        };
        let mut found = by(family.rules);
        if found.is_empty() {
            found = by(COMMON_RULES);
        }
        assert!(!found.is_empty(), "{name} has no name in a GGUF");
        // The norm of a delta net's output has no 1 added in transformers either.
        let raised = family.raised_norms && name.ends_with("norm.weight") && !name.contains("linear_attn.");
        for (new, change) in found {
            let new = layer.map_or(new.clone(), |layer| format!("blk.{layer}.{new}"));
            let changed = change(config, &tensor);
            let changed = if raised { changed.map(|value| value + 1.0) } else { changed };
            assert!(all.insert(new, changed).is_none(), "{name} comes twice");
        }
    }
    all.extend(llama3_divisors(config).map(|divisors| ("rope_freqs.weight".to_owned(), divisors)));
    all
}

fn metadata(config: &Config, family: &Family) -> BTreeMap<String, Value> {
    let common = COMMON_KEYS.iter().filter(|(key, _)| !family.silent_on.contains(key));
    let mut all = BTreeMap::new();
    // A family's own come last and win.
    for (key, source) in common.chain(family.keys) {
        let value = match source {
            Key::Count(pointers) => config.count(pointers).map(count),
            Key::Real(pointers) => config.real(pointers).map(Value::F32),
            Key::Flag(pointer) => config.get(&[pointer]).and_then(|flag| flag.as_bool()).map(Value::Bool),
            Key::Made(make) => Some(make(config)),
        };
        all.extend(value.map(|value| (format!("{}.{key}", family.name), value)));
    }
    all.insert("general.architecture".to_owned(), Value::String(family.name.to_owned()));
    all
}

/// The folder as llama.cpp's converter would write it, in f32 and without a vocabulary; `None` where it knows no such model.
pub(crate) fn converted(folder: &Path) -> Option<Model> {
    let config = Config::read(folder);
    let class = config.get(&["/architectures/0"]).and_then(|class| class.as_str()).expect("a class");
    let family = family(class)?;
    let from = widened(&folder.join("model.safetensors"));
    Some(Model { metadata: metadata(&config, &family), tensors: tensors(&config, &family, from) })
}
