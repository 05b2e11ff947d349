//! The metadata of a GGUF file, from a config and a tokenizer, or from another GGUF.
//!
//! Keys and their meaning: docs/gguf.md of the ggml repository and llama.cpp's gguf-py/gguf/constants.py.

use super::{
    super::Base,
    FileType,
    header::{Item, Keys},
    vocabulary,
};
use crate::{
    checkpoint::config::{FeedForward, Mixer, RopeScaling},
    error::{Error, Result},
};

/// `general.quantization_version`: of the block layouts (`GGML_QNT_VERSION`).
const QUANTIZATION_VERSION: u32 = 2;

/// All keys in the order of the file, and what the reader should know.
///
/// # Errors
/// A setting or a tokenizer that GGUF cannot hold, by name.
pub(super) fn keys(base: &Base, file_type: FileType) -> Result<(Keys, Vec<String>)> {
    let (mut keys, notes) = match &base.checkpoint.gguf_metadata {
        Some(metadata) => {
            let copied = metadata.0.iter().filter(|(key, _)| !is_of_the_file(key));
            let mut keys: Keys =
                copied.map(|(key, value)| (key.clone(), Item::Copied(value.clone()))).collect();
            // The architecture first, as every writer has it: readers that stop early find it.
            keys.sort_by_key(|(key, _)| key != "general.architecture");
            (keys, Vec::new())
        }
        None => {
            let mut keys = of_config(base)?;
            let (vocabulary, notes) = vocabulary::keys(&base.checkpoint, &base.config)?;
            keys.extend(vocabulary);
            (keys, notes)
        }
    };
    keys.push(("general.quantization_version".to_owned(), Item::U32(QUANTIZATION_VERSION)));
    keys.push(("general.file_type".to_owned(), Item::U32(file_type.number())));
    Ok((keys, notes))
}

/// Keys about how a file was written, not about its model.
fn is_of_the_file(key: &str) -> bool {
    const OWN: &[&str] = &["general.quantization_version", "general.file_type", "general.alignment"];
    OWN.contains(&key) || key.starts_with("split.") || key.starts_with("quantize.")
}

fn of_config(base: &Base) -> Result<Keys> {
    let config = &base.config;
    let not_yet = || {
        let name = config.architecture.name();
        Error::file(
            &base.checkpoint.path,
            format!("is a {name}, of which GGUF files cannot be written yet"),
            "files of Llama- and Qwen2-type models can be written so far; llama.cpp's converter writes the others",
        )
    };
    let name = config.architecture.gguf.map(|gguf| gguf.name).ok_or_else(not_yet)?;
    // Keys of these two say all that their configs can.
    let is_llama = name == "llama";
    let first = config.layers.first().ok_or_else(not_yet)?;
    let (Mixer::Attention(attention), FeedForward::Mlp(mlp), [rope], true) =
        (&first.mixer, &first.feed_forward, &config.ropes[..], is_llama || name == "qwen2")
    else {
        return Err(not_yet());
    };
    let mut keys: Keys = vec![
        ("general.architecture".to_owned(), Item::Text(name.to_owned())),
        ("general.name".to_owned(), Item::Text(base.name())),
    ];
    let mut put = |key: &str, item: Item| keys.push((format!("{name}.{key}"), item));
    let count = |key: &str, n: usize| {
        u32::try_from(n).map(Item::U32).map_err(|_| {
            Error::key(
                &base.checkpoint.path,
                key,
                format!("{n} does not fit into 32 bits"),
                "correct the config",
            )
        })
    };
    put("context_length", count("max_position_embeddings", config.max_position_embeddings)?);
    put("embedding_length", count("hidden_size", config.hidden_size)?);
    put("block_count", count("num_hidden_layers", config.num_hidden_layers())?);
    put("feed_forward_length", count("intermediate_size", mlp.intermediate_size)?);
    put("attention.head_count", count("num_attention_heads", attention.num_attention_heads)?);
    put("attention.head_count_kv", count("num_key_value_heads", attention.num_key_value_heads)?);
    put("attention.layer_norm_rms_epsilon", Item::F32(config.norm.eps as f32));
    if attention.num_attention_heads.checked_mul(attention.head_dim) != Some(config.hidden_size) {
        put("attention.key_length", count("head_dim", attention.head_dim)?);
        put("attention.value_length", count("head_dim", attention.head_dim)?);
    }
    // As llama.cpp's converter: a Llama states what other architectures leave to be derived.
    if is_llama {
        put("rope.dimension_count", count("head_dim", attention.head_dim)?);
    }
    put("rope.freq_base", Item::F32(rope.theta as f32));
    for (key, item) in rope_scaling(base, &rope.scaling)? {
        put(key, item);
    }
    if is_llama {
        put("vocab_size", count("vocab_size", config.vocab_size)?);
    }
    Ok(keys)
}

/// Llama 3.1's scaling is a tensor, see `rope_divisors`.
fn rope_scaling(base: &Base, scaling: &RopeScaling) -> Result<Vec<(&'static str, Item)>> {
    let kind = |name: &str| ("rope.scaling.type", Item::Text(name.to_owned()));
    Ok(match scaling {
        RopeScaling::Default | RopeScaling::Llama3 { .. } | RopeScaling::Divisors { .. } => Vec::new(),
        RopeScaling::Dynamic { .. } | RopeScaling::LongRope { .. } | RopeScaling::Proportional { .. } => {
            return Err(Error::key(
                &base.checkpoint.path,
                "rope_type",
                format!("`{}` cannot be said in the GGUF of this architecture", scaling.name()),
                "quantize to a safetensors layout",
            ));
        }
        RopeScaling::Linear { factor } => {
            vec![kind("linear"), ("rope.scaling.factor", Item::F32(*factor as f32))]
        }
        RopeScaling::Yarn {
            factor,
            beta_fast,
            beta_slow,
            original_max_position_embeddings,
            attention_factor,
            truncate,
        } => {
            if !truncate {
                return Err(Error::key(
                    &base.checkpoint.path,
                    "rope_parameters.truncate",
                    "false cannot be said in GGUF",
                    "quantize to a safetensors layout, or set it to true if the model was trained so",
                ));
            }
            // llama.cpp multiplies its own 1 + 0.1·ln(factor) by the stored factor.
            let own = if *factor > 1.0 { 1.0 + 0.1 * factor.ln() } else { 1.0 };
            let mut items = vec![
                kind("yarn"),
                ("rope.scaling.factor", Item::F32(*factor as f32)),
                ("rope.scaling.original_context_length", Item::U32(*original_max_position_embeddings as u32)),
            ];
            let relative = attention_factor / own;
            if (relative - 1.0).abs() > 1e-6 {
                items.push(("rope.scaling.attn_factor", Item::F32(relative as f32)));
            }
            if *beta_fast != 32.0 {
                items.push(("rope.scaling.yarn_beta_fast", Item::F32(*beta_fast as f32)));
            }
            if *beta_slow != 1.0 {
                items.push(("rope.scaling.yarn_beta_slow", Item::F32(*beta_slow as f32)));
            }
            items
        }
    })
}
