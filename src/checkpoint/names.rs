//! llama.cpp's tensor names against Hugging Face's, one table.
//!
//! The model asks for Hugging Face's names only; a GGUF answers through here.

/// Tensors outside the layers.
const GLOBAL: &[(&str, &str)] = &[
    ("model.embed_tokens.weight", "token_embd.weight"),
    ("model.norm.weight", "output_norm.weight"),
    ("lm_head.weight", "output.weight"),
];

/// Modules inside a layer: `model.layers.{l}.{hf}` against `blk.{l}.{gguf}`; both end in `.weight` or `.bias`.
const LAYER: &[(&str, &str)] = &[
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

/// GGUF's name of a tensor that the model calls `name`.
pub fn gguf_name(name: &str) -> Option<String> {
    if let Some((_, gguf)) = GLOBAL.iter().find(|(hf, _)| *hf == name) {
        return Some((*gguf).to_owned());
    }
    let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let (module, kind) = rest.rsplit_once('.')?;
    let (_, gguf) = LAYER.iter().find(|(hf, _)| *hf == module)?;
    Some(format!("blk.{layer}.{gguf}.{kind}"))
}

/// Whether the converter permutes the rows of this tensor for Llama-type rotary embedding.
pub(super) fn is_rotary_projection(name: &str) -> bool {
    ["self_attn.q_proj", "self_attn.k_proj"]
        .iter()
        .any(|module| name.rsplit_once('.').is_some_and(|(stem, _)| stem.ends_with(module)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_converter() {
        assert_eq!(gguf_name("model.embed_tokens.weight").as_deref(), Some("token_embd.weight"));
        assert_eq!(gguf_name("model.layers.11.self_attn.k_proj.bias").as_deref(), Some("blk.11.attn_k.bias"));
        assert_eq!(
            gguf_name("model.layers.0.mlp.gate_proj.weight").as_deref(),
            Some("blk.0.ffn_gate.weight")
        );
        assert_eq!(gguf_name("model.layers.0.mlp.experts.0.w1.weight"), None);
        assert!(is_rotary_projection("model.layers.3.self_attn.q_proj.bias"));
        assert!(!is_rotary_projection("model.layers.3.self_attn.v_proj.weight"));
    }
}
