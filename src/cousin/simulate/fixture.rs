//! Weights for tests: a checkpoint with the given tensors in a folder of its own.

use std::path::Path;

use safetensors::{Dtype, tensor::TensorView};
use tempfile::TempDir;

use crate::checkpoint::{Checkpoint, Weight};

/// Name, shape, values.
pub(in crate::cousin) type Tensor<'a> = (&'a str, &'a [usize], &'a [f32]);

/// Weights by the names and shapes given; the folder must outlive them.
pub(in crate::cousin) fn model(tensors: &[Tensor]) -> (TempDir, Vec<Weight>) {
    let folder = tempfile::tempdir().unwrap();
    save(&folder.path().join("model.safetensors"), tensors);
    let config = r#"{"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 64,
        "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1,
        "vocab_size": 64, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "max_position_embeddings": 64,
        "hidden_act": "silu", "tie_word_embeddings": false}"#;
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let config = checkpoint.config().unwrap().unwrap();
    let weights =
        tensors.iter().map(|(name, shape, _)| checkpoint.weight(&config, name, shape).unwrap()).collect();
    (folder, weights)
}

/// One matrix of a layer.
pub(in crate::cousin) fn matrix(rows: usize, columns: usize, values: &[f32]) -> (TempDir, Weight) {
    let (folder, mut weights) = model(&[("model.layers.0.mlp.down_proj.weight", &[rows, columns], values)]);
    (folder, weights.remove(0))
}

/// Writes F32 tensors.
pub(in crate::cousin) fn save(path: &Path, tensors: &[Tensor]) {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, _, values)| values.iter().flat_map(|value| value.to_le_bytes()).collect())
        .collect();
    let views: Vec<(&str, TensorView)> = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, shape, _), bytes)| (*name, TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap()))
        .collect();
    safetensors::serialize_to_file(views, None, path).unwrap();
}

/// Numbers as weights have them, bell-shaped about zero, the same in every run.
pub(in crate::cousin) fn noise(length: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..length).map(|_| 0.05 * (0..6).map(|_| uniform()).sum::<f32>()).collect()
}
