//! One decoder, seen as stages: embedding, layers, final norm, head.
//!
//! A stage's weights are decoded when it is asked for and freed when it is
//! dropped; nothing here holds more than one stage. The model does not know what
//! kind of file its weights came from, nor what is measured on it.

mod attention;
mod layer;
mod rope;

use std::{ops::Range, sync::Arc};

use candle_core::{Device, Tensor};

pub use self::layer::{Geometry, LINEARS, Layer, Linear, Rounding};
pub use self::rope::RopeTables;
use self::{layer::linear_shapes, rope::Rope};
use crate::{
    checkpoint::{Checkpoint, Weight, config::ModelConfig},
    error::{Error, Result},
};

const EMBEDDING: &str = "model.embed_tokens.weight";
const FINAL_NORM: &str = "model.norm.weight";
const HEAD: &str = "lm_head.weight";

/// A model whose weights are known by name and shape, but not yet read.
#[derive(Clone, Debug)]
pub struct Decoder {
    /// The architecture.
    pub config: ModelConfig,
    weights: Arc<Vec<Weight>>,
    rope: Rope,
    device: Device,
    rounding: Rounding,
}

/// Name and shape of every weight that a decoder of this config has, in the order of use.
fn expected_weights(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    let hidden = config.hidden_size;
    let mut expected = vec![(EMBEDDING.to_owned(), vec![config.vocab_size, hidden])];
    for layer in 0..config.num_hidden_layers {
        let name = |module: &str| format!("model.layers.{layer}.{module}");
        expected.push((name("input_layernorm.weight"), vec![hidden]));
        for (module, (shape, biased)) in LINEARS.iter().zip(linear_shapes(config)) {
            expected.push((name(&format!("{module}.weight")), shape.to_vec()));
            if biased {
                expected.push((name(&format!("{module}.bias")), vec![shape[0]]));
            }
        }
        expected.push((name("post_attention_layernorm.weight"), vec![hidden]));
    }
    expected.push((FINAL_NORM.to_owned(), vec![hidden]));
    if !config.tie_word_embeddings {
        expected.push((HEAD.to_owned(), vec![config.vocab_size, hidden]));
    }
    expected
}

impl Decoder {
    /// Finds and checks every weight; reads headers only.
    ///
    /// # Errors
    /// The first weight that is missing, misshapen or in an unknown encoding, and any tensor inside a
    /// layer that this architecture does not use.
    pub fn open(checkpoint: &Checkpoint, config: ModelConfig, device: &Device) -> Result<Self> {
        let weights = expected_weights(&config)
            .iter()
            .map(|(name, shape)| checkpoint.weight(&config, name, shape))
            .collect::<Result<Vec<_>>>()?;
        if let Some(stray) = checkpoint.unused_layer_tensors(&weights).first() {
            return Err(Error::tensor(
                &checkpoint.path,
                stray,
                format!("is not part of a {} as its config describes it", config.architecture.name()),
                "the file computes something else than its config says; it cannot be measured faithfully",
            ));
        }
        let rope = Rope::new(&config.rope, config.head_dim);
        Ok(Self {
            config,
            weights: Arc::new(weights),
            rope,
            device: device.clone(),
            rounding: Rounding::None,
        })
    }

    /// The same model, computed with another rounding; weights are shared.
    pub fn with_rounding(&self, rounding: Rounding) -> Self {
        Self { rounding, ..self.clone() }
    }

    /// Whether both are views of the same opened weights (the noise floor is, two files never are).
    pub fn shares_weights_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.weights, &other.weights)
    }

    /// Where products run.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Every weight, in the order of use.
    pub fn weights(&self) -> &[Weight] {
        &self.weights
    }

    /// The weights of one layer.
    pub fn layer_weights(&self, layer: usize) -> impl Iterator<Item = &Weight> {
        let prefix = format!("model.layers.{layer}.");
        self.weights.iter().filter(move |weight| weight.name.starts_with(&prefix))
    }

    /// The weights outside all layers: embedding, final norm, head.
    pub fn outer_weights(&self) -> impl Iterator<Item = &Weight> {
        self.weights.iter().filter(|weight| !weight.name.starts_with("model.layers."))
    }

    /// Rotary tables of the first `length` positions, shared by every tile of a run.
    pub fn rope_tables(&self, length: usize) -> Result<RopeTables> {
        self.rope.tables(length, &self.device).map_err(Error::compute("computing rotary tables"))
    }

    /// Embedding lookup: `[tokens.len(), hidden_size]` f32.
    pub fn embed(&self, tokens: &[u32]) -> Result<Tensor> {
        let weight = self.weight(EMBEDDING)?;
        let mut rows = vec![0.0; tokens.len() * self.config.hidden_size];
        weight.gather_rows(tokens, &mut rows)?;
        Tensor::from_vec(rows, (tokens.len(), self.config.hidden_size), &self.device)
            .map_err(Error::compute("moving the embedding to the device"))
    }

    /// Decodes one layer.
    pub fn layer(&self, layer: usize) -> Result<Layer> {
        let tensor = |module: &str| -> Result<Tensor> {
            self.tensor(self.weight(&format!("model.layers.{layer}.{module}"))?)
        };
        let mut linears = Vec::with_capacity(LINEARS.len());
        for (module, (_, biased)) in LINEARS.iter().zip(linear_shapes(&self.config)) {
            let weight = tensor(&format!("{module}.weight"))?;
            let bias = if biased { Some(tensor(&format!("{module}.bias"))?) } else { None };
            linears.push(Linear { weight, bias });
        }
        let linears = linears
            .try_into()
            .map_err(|_| Error::argument("a layer has another number of linears", "report this as a bug"))?;
        Ok(Layer {
            input_layernorm: tensor("input_layernorm.weight")?,
            post_attention_layernorm: tensor("post_attention_layernorm.weight")?,
            linears,
            num_attention_heads: self.config.num_attention_heads,
            num_key_value_heads: self.config.num_key_value_heads,
            head_dim: self.config.head_dim,
            rms_norm_eps: self.config.rms_norm_eps as f32,
            rounding: self.rounding,
        })
    }

    /// The final norm: `[n, hidden]` → `[n, hidden]`.
    pub fn final_norm(&self, x: &Tensor) -> Result<Tensor> {
        let weight = self.tensor(self.weight(FINAL_NORM)?)?;
        candle_nn::ops::rms_norm(x, &weight, self.config.rms_norm_eps as f32)
            .map_err(Error::compute("computing the final norm"))
    }

    /// A tile of the head, decoded: rows `ids` of `[vocab_size, hidden_size]`.
    pub fn head_rows(&self, ids: Range<usize>) -> Result<Tensor> {
        let name = if self.config.tie_word_embeddings { EMBEDDING } else { HEAD };
        let mut rows = vec![0.0; ids.len() * self.config.hidden_size];
        self.weight(name)?.decode_rows(ids.clone(), &mut rows)?;
        Tensor::from_vec(rows, (ids.len(), self.config.hidden_size), &self.device)
            .map_err(Error::compute("moving the head to the device"))
    }

    /// Multiply-adds, counted as two operations, of one layer over sequences of the given lengths.
    pub fn layer_operations(&self, lengths: &[usize]) -> f64 {
        let per_token: usize = linear_shapes(&self.config).iter().map(|(shape, _)| shape[0] * shape[1]).sum();
        let attention = 2 * self.config.num_attention_heads * self.config.head_dim;
        let per_sequence = |t: &usize| {
            let t = *t as f64;
            // Each query meets the keys up to itself, once for the scores and once for the values.
            2.0 * t * per_token as f64 + 2.0 * attention as f64 * t * (t + 1.0) / 2.0
        };
        lengths.iter().map(per_sequence).sum::<f64>()
    }

    /// Multiply-adds, counted as two operations, of the head for one position.
    pub fn head_operations(&self) -> f64 {
        2.0 * (self.config.vocab_size * self.config.hidden_size) as f64
    }

    fn weight(&self, name: &str) -> Result<&Weight> {
        self.weights.iter().find(|weight| weight.name == name).ok_or_else(|| {
            Error::argument(format!("no weight is named {name}"), "report this as a bug of qeval")
        })
    }

    fn tensor(&self, weight: &Weight) -> Result<Tensor> {
        Tensor::from_vec(weight.decode()?, weight.shape.clone(), &self.device)
            .map_err(Error::compute(format!("moving {} to the device", weight.name)))
    }
}
