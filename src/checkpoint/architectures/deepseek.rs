//! DeepSeek-V2 and -V3 (R1): attention through a narrow latent, experts in groups beside a shared one.

use serde_json::Value as Json;

use super::{
    Architecture, Gguf, HuggingFaceNames,
    common::{activation, gguf_module, halves_of_pairs, layer, model, rms},
    qwen::stacked_or_not,
    stored::{Name, Piece, as_it_is},
};
use crate::{
    checkpoint::config::{
        Activation, Experts, FeedForward, Groups, LatentAttention, Mixer, Mlp, ModelConfig, RopeScaling,
        Scoring, SharedExpert,
        gguf::GgufSettings,
        keys::Keys,
        rope::{WHOLE, block, mscale, rope},
    },
    error::Result,
};

/// `DeepseekV2ForCausalLM`: scores by softmax.
pub(super) static DEEPSEEK_V2: Architecture = Architecture {
    class: "DeepseekV2ForCausalLM",
    models: "DeepSeek-V2, -V2-Lite",
    model_types: &["deepseek_v2"],
    gguf: Some(Gguf { name: "deepseek2", experts: false, settings: gguf, piece: gguf_piece }),
    config: |architecture, keys| config(architecture, keys, Family::V2),
    hugging_face: NAMES,
};

/// `DeepseekV3ForCausalLM`: scores by σ, corrected for the choice.
pub(super) static DEEPSEEK_V3: Architecture = Architecture {
    class: "DeepseekV3ForCausalLM",
    models: "DeepSeek-V3, R1",
    model_types: &["deepseek_v3"],
    gguf: Some(Gguf { name: "deepseek2", experts: true, settings: gguf, piece: gguf_piece }),
    config: |architecture, keys| config(architecture, keys, Family::V3),
    hugging_face: NAMES,
};

const NAMES: HuggingFaceNames = HuggingFaceNames {
    stem: "model",
    layers: "layers",
    modules: &[
        ("mlp.shared_expert.gate_proj", "mlp.shared_experts.gate_proj"),
        ("mlp.shared_expert.up_proj", "mlp.shared_experts.up_proj"),
        ("mlp.shared_expert.down_proj", "mlp.shared_experts.down_proj"),
    ],
    piece,
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    V2,
    V3,
}

fn config(architecture: &'static Architecture, keys: &Keys, family: Family) -> Result<ModelConfig> {
    let family = match (keys.text("scoring_func")?, family) {
        // llama.cpp calls both by one name; how experts are scored tells them apart.
        (Some("sigmoid"), _) if keys.is_gguf() => Family::V3,
        (Some("softmax"), _) if keys.is_gguf() => Family::V2,
        (None, _) | (Some("sigmoid"), Family::V3) | (Some("softmax"), Family::V2) => family,
        _ => return Err(keys.not_implemented("scoring_func", "sigmoid in V3, softmax in V2")),
    };
    let heads = keys.required_count(&["num_attention_heads"])?;
    let layers = keys.layers()?;
    // In a GGUF silence means that there is none; in a config, what its class assumes.
    let assumed = |key: &'static str, value: usize| match keys.says(key) || keys.is_gguf() {
        true => keys.count_or_none(&[key]),
        false => Ok(Some(value)),
    };
    let width = |key: &'static str, value: usize| assumed(key, value)?.ok_or_else(|| keys.missing(key));
    let rope_dim = width("qk_rope_head_dim", 64)?;
    let rope = rope(keys, rope_dim, WHOLE)?;
    let nope_dim = width("qk_nope_head_dim", 128)?;
    // YaRN's magnitude is on the scores, too, and there with any other scaling.
    let (_, json) = block(keys)?;
    let all =
        json.map(|json| keys.block(json).number("mscale_all_dim")).transpose()?.flatten().unwrap_or(0.0);
    let magnitude = match rope.scaling {
        RopeScaling::Yarn { factor, .. }
        | RopeScaling::Linear { factor }
        | RopeScaling::Dynamic { factor, .. }
        | RopeScaling::Llama3 { factor, .. }
            if all != 0.0 =>
        {
            mscale(factor, all)
        }
        _ => 1.0,
    };
    let attention = LatentAttention {
        num_attention_heads: heads,
        q_lora_rank: assumed("q_lora_rank", 1536)?,
        kv_lora_rank: width("kv_lora_rank", 512)?,
        qk_nope_head_dim: nope_dim,
        qk_rope_head_dim: rope_dim,
        v_head_dim: width("v_head_dim", 128)?,
        rope_interleave: family == Family::V2 || keys.flag("rope_interleave")?.unwrap_or(true),
        bias: keys.flag("attention_bias")?.unwrap_or(false),
        // Not `rms_norm_eps`: transformers gives these two norms the default.
        latent_norm_eps: 1e-6,
        rope: 0,
        scale: magnitude * magnitude / ((nope_dim + rope_dim) as f64).sqrt(),
    };
    let activation = activation(keys, &["hidden_act"], Activation::Silu)?;
    let bias = family == Family::V2 && keys.flag("mlp_bias")?.unwrap_or(false);
    let mlp = |intermediate_size| Mlp { intermediate_size, activation, gated: true, bias };
    let dense = mlp(keys.required_count(&["intermediate_size"])?);
    let first_sparse = match keys.get("first_k_dense_replace").and_then(Json::as_u64) {
        Some(first) => first as usize,
        None if family == Family::V3 => 3,
        None => 0,
    };
    let expert = Mlp { bias: false, ..mlp(keys.required_count(&["moe_intermediate_size"])?) };
    let experts = experts(keys, family, expert, bias)?;
    let layers = (0..layers).map(|index| {
        let feed_forward = match index < first_sparse {
            true => FeedForward::Mlp(dense),
            false => FeedForward::Experts(experts.clone()),
        };
        layer(Mixer::LatentAttention(attention.clone()), feed_forward)
    });
    let model = model(architecture, keys, rms(keys, 1e-6)?, false, layers.collect())?;
    Ok(ModelConfig { ropes: vec![rope], ..model })
}

fn experts(keys: &Keys, family: Family, expert: Mlp, shared_bias: bool) -> Result<Experts> {
    let assumed = |key: &'static str, v3: usize, v2: Option<usize>| match keys.says(key) || keys.is_gguf() {
        true => keys.count_or_none(&[key]),
        false => Ok(if family == Family::V3 { Some(v3) } else { v2 }),
    };
    let counts = assumed("n_group", 8, None)?.zip(assumed("topk_group", 4, None)?);
    let groups = |best| counts.map(|(n_group, topk_group)| Groups { n_group, topk_group, best });
    let groups = match (family, keys.text("topk_method")?) {
        (Family::V3, None | Some("noaux_tc")) => groups(2),
        (Family::V2, None | Some("greedy")) => None,
        (Family::V2, Some("group_limited_greedy")) => groups(1),
        _ => {
            return Err(
                keys.not_implemented("topk_method", "greedy, group_limited_greedy (V2), noaux_tc (V3)")
            );
        }
    };
    let shared = assumed("n_shared_experts", 1, Some(2))?;
    let intermediate_size = expert.intermediate_size;
    Ok(Experts {
        num_experts: keys.required_count(&["n_routed_experts", "num_local_experts", "num_experts"])?,
        num_experts_per_tok: assumed("num_experts_per_tok", 8, None)?
            .ok_or_else(|| keys.missing("num_experts_per_tok"))?,
        expert,
        scoring: if family == Family::V3 { Scoring::Sigmoid } else { Scoring::Softmax },
        norm_topk_prob: family == Family::V3 && keys.flag("norm_topk_prob")?.unwrap_or(true),
        routed_scaling_factor: keys.positive("routed_scaling_factor")?.unwrap_or(match family {
            Family::V3 => 2.5,
            Family::V2 => 1.0,
        }),
        groups: groups.filter(|groups| groups.n_group > 1),
        correction_bias: family == Family::V3,
        router_bias: false,
        shared: shared.map(|count| SharedExpert {
            mlp: Mlp { intermediate_size: count * intermediate_size, bias: shared_bias, ..expert },
            gated: false,
        }),
    })
}

fn latent<'a>(config: &'a ModelConfig, name: &Name) -> Option<&'a LatentAttention> {
    match &config.layers.get(name.layer?)?.mixer {
        Mixer::LatentAttention(latent) => Some(latent),
        _ => None,
    }
}

/// Rows of queries and of the shared key, which come in pairs.
fn rotated(latent: &LatentAttention, name: &Name, piece: Piece) -> Option<Piece> {
    let (heads, before) = match name.module {
        "self_attn.q_proj" | "self_attn.q_b_proj" => (latent.num_attention_heads, latent.qk_nope_head_dim),
        "self_attn.kv_a_proj_with_mqa" => (1, latent.kv_lora_rank),
        _ => return None,
    };
    if !latent.rope_interleave {
        return Some(piece);
    }
    let dims = latent.qk_rope_head_dim;
    let rows = halves_of_pairs(heads, before + dims, before, dims);
    Some(piece.rows(rows.len(), rows))
}

/// Keys and values of a head, one after the other, in `kv_b_proj`.
fn up(latent: &LatentAttention, name: &Name, module: &str) -> Option<Piece> {
    let (key, value) = (latent.qk_nope_head_dim, latent.v_head_dim);
    let within = match name.module {
        "self_attn.k_b_proj" => 0..key,
        "self_attn.v_b_proj" => key..key + value,
        _ => return None,
    };
    let heads = latent.num_attention_heads;
    let rows = (0..heads).flat_map(|head| within.clone().map(move |row| head * (key + value) + row));
    Some(Piece::whole(module).rows(heads * (key + value), rows))
}

fn piece(config: &ModelConfig, name: &Name) -> Option<Vec<Piece>> {
    if name.is("mlp.gate.e_score_correction_bias") {
        return Piece::bare("mlp.gate.e_score_correction_bias").only();
    }
    if name.expert.is_some() {
        return stacked_or_not(config, name);
    }
    let latent = latent(config, name)?;
    if let Some(up) = up(latent, name, "self_attn.kv_b_proj") {
        return up.only();
    }
    rotated(latent, name, as_it_is(config.architecture, name))?.only()
}

/// Newer files split `kv_b_proj`, the keys' half turned round; older ones keep it.
fn gguf_piece(config: &ModelConfig, name: &Name) -> Option<Vec<Piece>> {
    if name.is("mlp.gate.e_score_correction_bias") {
        return Piece::bare("exp_probs_b.bias").only();
    }
    let latent = latent(config, name)?;
    if let Some(up) = up(latent, name, "attn_kv_b") {
        let split = match name.module {
            "self_attn.k_b_proj" => Piece::whole("attn_k_b").transposed(latent.qk_nope_head_dim),
            _ => Piece::whole("attn_v_b"),
        };
        return Some(vec![split, up]);
    }
    rotated(latent, name, Piece::whole(gguf_module(name)?))?.only()
}

fn gguf(settings: &mut GgufSettings) -> Result<()> {
    let rope_dim = settings.count("rope.dimension_count").unwrap_or(64);
    settings.put("qk_rope_head_dim", rope_dim);
    settings.put_rope("partial_rotary_factor", Json::Null);
    // Files from before the split state the widths of a head where newer ones state those of the latent.
    let key = settings.count("attention.key_length_mla").or(settings.count("attention.key_length"));
    if let Some(nope) = key.and_then(|key| key.checked_sub(rope_dim)) {
        settings.put("qk_nope_head_dim", nope);
    }
    let value = settings.count("attention.value_length_mla").or(settings.count("attention.value_length"));
    if let Some(value) = value {
        settings.put("v_head_dim", value);
    }
    settings.copy("attention.kv_lora_rank", "kv_lora_rank");
    settings.copy("attention.q_lora_rank", "q_lora_rank");
    settings.copy("expert_count", "n_routed_experts");
    settings.copy("expert_feed_forward_length", "moe_intermediate_size");
    settings.copy("expert_shared_count", "n_shared_experts");
    settings.copy("expert_weights_scale", "routed_scaling_factor");
    settings.copy("leading_dense_block_count", "first_k_dense_replace");
    settings.copy("expert_group_count", "n_group");
    settings.copy("expert_group_used_count", "topk_group");
    let normed = settings.flag("expert_weights_norm").unwrap_or(false);
    settings.put("norm_topk_prob", Json::Bool(normed));
    // 1 is softmax, 2 is σ; a file that says nothing but corrects the scores is a V3's.
    let corrected = settings.has_tensor("exp_probs_b.bias");
    let sigmoid = settings.count("expert_gating_func").map_or(corrected, |kind| kind == 2);
    settings.put("scoring_func", if sigmoid { "sigmoid" } else { "softmax" });
    if !sigmoid && settings.count("expert_group_count").is_some_and(|groups| groups > 1) {
        settings.put("topk_method", "group_limited_greedy");
    }
    if let Some(log_multiplier) = settings.number("rope.scaling.yarn_log_multiplier") {
        settings.yarn_magnitudes(10.0 * log_multiplier);
    }
    Ok(())
}
