//! The trained model as a checkpoint: bf16 weights, configuration, tokenizer, as Hugging Face lays them out.

use std::{collections::HashMap, path::Path};

use anyhow::Result;
use candle_core::{DType, Device, Tensor, safetensors};
use half::bf16;
use serde_json::json;
use tokenizers::Tokenizer;

use super::{
    model::{Model, ROPE_THETA, Shape},
    training::Run,
    world::{Dice, END_OF_TEXT, END_OF_TURN, START_OF_TURN, hash},
};

/// Shares of the channels that are scaled by 1, 2, 4, 8, 16 and 32.
const OUTLIERS: [f64; 6] = [0.44, 0.26, 0.17, 0.11, 0.015, 0.005];

/// The parameters as they are stored: rounded to bf16, with outlier channels.
///
/// Large models have channels whose activations are many times those of others, and small weights behind them, which is
/// what makes them hard to quantize (LLM.int8(), arXiv 2208.07339; AWQ, arXiv 2306.00978). A model as small as this one
/// grows none. So each norm's gains are multiplied by powers of two, and the columns of the matrices behind it divided by
/// them: both exact, and the model computes what it computed.
///
/// # Errors
/// What candle refuses.
pub(crate) fn as_stored(run: &Run) -> Result<Model> {
    let round = |x: &f32| bf16::from_f32(*x).to_f32();
    let names: Vec<String> = run.shape.parameters().into_iter().map(|(name, _)| name).collect();
    let mut values: Vec<Vec<f32>> =
        run.states.iter().map(|state| state.values.iter().map(round).collect()).collect();
    for layer in 0..run.shape.num_hidden_layers {
        for (norm, behind) in BEHIND_NORMS {
            let full = |name: &str| format!("model.layers.{layer}.{name}.weight");
            let dice = &mut Dice::new(hash(&full(norm)));
            let scales: Vec<f32> =
                (0..run.shape.hidden_size).map(|_| (1u8 << dice.weighted(&OUTLIERS)).into()).collect();
            let named = |name: &str| names.iter().position(|known| *known == full(name));
            if let Some(gains) = named(norm) {
                values[gains].iter_mut().zip(&scales).for_each(|(gain, scale)| *gain *= scale);
            }
            for matrix in behind.iter().filter_map(|name| named(name)) {
                let columns = values[matrix].iter_mut().zip(scales.iter().cycle());
                columns.for_each(|(weight, scale)| *weight /= scale);
            }
        }
    }
    Ok(Model::new(run.shape, &values)?)
}

/// Each norm of a layer, with the matrices that read what it gives.
const BEHIND_NORMS: [(&str, &[&str]); 2] = [
    ("input_layernorm", &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    ("post_attention_layernorm", &["mlp.gate_proj", "mlp.up_proj"]),
];

/// Writes `model.safetensors`, `config.json`, `tokenizer.json` and `tokenizer_config.json`.
///
/// # Errors
/// A file that cannot be written.
pub(crate) fn write(model: &Model, tokenizer: &Tokenizer, folder: &Path) -> Result<()> {
    let mut tensors = HashMap::new();
    for ((name, _), parameter) in model.shape.parameters().into_iter().zip(&model.parameters) {
        let values =
            Tensor::from_vec(parameter.flatten_all()?.to_vec1::<f32>()?, parameter.shape(), &Device::Cpu)?;
        tensors.insert(name, values.to_dtype(DType::BF16)?);
    }
    safetensors::save(&tensors, folder.join("model.safetensors"))?;
    let token = |name: &str| tokenizer.token_to_id(name);
    write_json(&folder.join("config.json"), &config(&model.shape, token(END_OF_TEXT)))?;
    // One line a merge would be 4000 lines; nobody reads them.
    tokenizer.save(folder.join("tokenizer.json"), false).map_err(anyhow::Error::msg)?;
    let tokenizer_config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "pad_token": END_OF_TEXT,
        "add_bos_token": true,
        "model_max_length": model.shape.max_position_embeddings,
        "chat_template": chat_template(),
    });
    write_json(&folder.join("tokenizer_config.json"), &tokenizer_config)
}

fn write_json(path: &Path, value: &serde_json::Value) -> Result<()> {
    std::fs::write(path, serde_json::to_string_pretty(value)? + "\n")?;
    Ok(())
}

fn config(shape: &Shape, end: Option<u32>) -> serde_json::Value {
    json!({
        "architectures": ["Qwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": end,
        "dtype": "bfloat16",
        "eos_token_id": end,
        "hidden_act": "silu",
        "hidden_size": shape.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": shape.intermediate_size,
        "max_position_embeddings": shape.max_position_embeddings,
        "model_type": "qwen2",
        "num_attention_heads": shape.num_attention_heads,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_key_value_heads": shape.num_key_value_heads,
        "rms_norm_eps": 1e-6,
        "rope_theta": ROPE_THETA,
        "sliding_window": null,
        "tie_word_embeddings": true,
        "use_cache": true,
        "use_sliding_window": false,
        "vocab_size": shape.vocab_size,
    })
}

fn chat_template() -> String {
    format!(
        "{{% for message in messages %}}{{{{ '{START_OF_TURN}' + message['role'] + '\\n' + message['content'] + \
         '{END_OF_TURN}\\n' }}}}{{% endfor %}}{{% if add_generation_prompt %}}{{{{ '{START_OF_TURN}assistant\\n' }}}}{{% endif %}}"
    )
}
