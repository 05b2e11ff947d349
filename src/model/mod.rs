//! One decoder, seen as stages: embedding, layers, final norm, head.
//!
//! A stage's weights are decoded when it is asked for and freed when it is
//! dropped; nothing here holds more than one stage. The model does not know what
//! kind of file its weights came from, nor what is measured on it.

mod activations;
mod attention;
pub mod kv_cache;
mod layer;
mod linear;
mod random;
mod rope;

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    sync::Arc,
};

use candle_core::{Device, Tensor};

pub use self::layer::{Geometry, KvState, LINEARS, Layer, Segment};
pub use self::linear::{ActivationMode, Linear, Rounding};
pub use self::rope::RopeTables;
use self::{kv_cache::KvCacheScheme, layer::linear_shapes, linear::rounded, random::SplitMix, rope::Rope};
use crate::{
    checkpoint::{
        Checkpoint, Weight,
        activations::{ActivationFormat, ActivationQuantization, KvCacheQuantization},
        config::ModelConfig,
    },
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
    activations: ActivationMode,
    /// What the checkpoint declares, per layer.
    declared_kv_cache: Arc<Vec<Option<KvCacheScheme>>>,
    /// What the user asked for instead.
    kv_cache: Option<KvCacheScheme>,
    nudged: bool,
}

/// Weights decoded at this stage that another model of the run wants too: cousins that share weights (another KV
/// cache, another rounding) decode them once.
#[derive(Debug, Default)]
pub struct Decoded {
    /// Sources that more than one model reads.
    shared: Vec<Weight>,
    tensors: Vec<(Weight, Tensor)>,
}

impl Decoded {
    /// For models that run together.
    pub fn of<'a>(models: impl IntoIterator<Item = &'a Decoder>) -> Self {
        let (mut seen, mut shared) = (HashMap::new(), Vec::<Weight>::new());
        for model in models {
            for weight in model.weights.iter() {
                let earlier: &mut Vec<&Weight> = seen.entry(weight.name.as_str()).or_default();
                if earlier.iter().any(|other| other.same_source(weight)) {
                    shared.push(weight.clone());
                } else {
                    earlier.push(weight);
                }
            }
        }
        shared.sort_by(|a, b| a.name.cmp(&b.name));
        Self { shared, tensors: Vec::new() }
    }

    /// Whether anything is shared at all.
    pub fn is_needed(&self) -> bool {
        !self.shared.is_empty()
    }

    /// Lets the tensors of this stage go.
    pub fn clear(&mut self) {
        self.tensors.clear();
    }

    /// The decoded weight, decoded now unless it is there.
    fn tensor(&mut self, weight: &Weight, device: &Device) -> Result<Tensor> {
        if let Some((_, tensor)) = self.tensors.iter().find(|(other, _)| other.same_source(weight)) {
            return Ok(tensor.clone());
        }
        let tensor = decoded(weight, device)?;
        let first = self.shared.partition_point(|other| other.name < weight.name);
        let same_name = self.shared[first..].iter().take_while(|other| other.name == weight.name);
        if same_name.into_iter().any(|other| other.same_source(weight)) {
            self.tensors.push((weight.clone(), tensor.clone()));
        }
        Ok(tensor)
    }
}

/// Name and shape of every weight that a decoder of this config has, in the order of use.
pub fn expected_weights(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
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
        let kv_cache = (0..config.num_hidden_layers)
            .map(|layer| {
                let declared = checkpoint.kv_cache(&format!("model.layers.{layer}.self_attn"))?;
                declared.map(|declared| declared_scheme(declared, config.head_dim)).transpose()
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            config,
            weights: Arc::new(weights),
            rope,
            device: device.clone(),
            rounding: Rounding::None,
            activations: ActivationMode::Declared,
            declared_kv_cache: Arc::new(kv_cache),
            kv_cache: None,
            nudged: false,
        })
    }

    /// The same model with its weights replaced one by one; weights that stay are shared.
    ///
    /// # Errors
    /// Whatever `change` refuses.
    pub fn with_weights(&self, change: impl FnMut(&Weight) -> Result<Weight>) -> Result<Self> {
        let weights = self.weights.iter().map(change).collect::<Result<Vec<_>>>()?;
        Ok(Self { weights: Arc::new(weights), ..self.clone() })
    }

    /// The same model with its keys and values stored in another way; weights are shared.
    ///
    /// # Errors
    /// A scheme that does not fit the width of a head.
    pub fn with_kv_cache(&self, scheme: KvCacheScheme) -> Result<Self> {
        scheme.check(self.config.head_dim)?;
        Ok(Self { kv_cache: Some(scheme), ..self.clone() })
    }

    /// The same model with its activations treated in another way; weights are shared.
    pub fn with_activations(&self, activations: ActivationMode) -> Self {
        Self { activations, ..self.clone() }
    }

    /// The same model with every embedding moved by one part in four million: what a scheme's own rounding makes of
    /// differences that no one could call an error.
    pub fn nudged(&self) -> Self {
        Self { nudged: true, ..self.clone() }
    }

    /// How keys and values of a layer are stored; `None`: as computed.
    pub fn kv_cache(&self, layer: usize) -> Option<&KvCacheScheme> {
        let declared = self.declared_kv_cache.get(layer).and_then(Option::as_ref);
        match (&self.kv_cache, declared) {
            // `@kv=fp8` takes the checkpoint's own scales where it has them.
            (Some(KvCacheScheme::Fp8 { .. }), Some(declared @ KvCacheScheme::Fp8 { .. })) => Some(declared),
            (Some(asked), _) => Some(asked),
            (None, declared) => declared.filter(|_| self.activations != ActivationMode::None),
        }
    }

    /// What is done to activations, as one phrase for reports: the schemes of all weights, each with its count.
    pub fn activations_in_words(&self) -> String {
        let mut counts = BTreeMap::<String, usize>::new();
        for input in self.weights.iter().filter_map(|weight| self.activations.input(weight)) {
            *counts.entry(input.to_string()).or_default() += 1;
        }
        let phrases: Vec<String> =
            counts.iter().map(|(scheme, n)| format!("{scheme} into {n} linears")).collect();
        let declared = self.weights.iter().any(|weight| weight.input.is_some());
        match (phrases.is_empty(), self.activations) {
            (false, ActivationMode::Vllm) => format!("{}, as vLLM scales them", phrases.join("; ")),
            (false, _) => phrases.join("; "),
            (true, ActivationMode::None) if declared => {
                "as computed (the declared scheme was turned off)".to_owned()
            }
            (true, _) => "as computed".to_owned(),
        }
    }

    /// Whether any linear rounds its input or output, so that differences near a tie are amplified.
    pub fn rounds_activations(&self) -> bool {
        self.weights.iter().any(|weight| {
            self.activations.input(weight).is_some() || self.activations.output(weight).is_some()
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
        if self.nudged {
            nudge(tokens, self.config.hidden_size, &mut rows);
        }
        Tensor::from_vec(rows, (tokens.len(), self.config.hidden_size), &self.device)
            .map_err(Error::compute("moving the embedding to the device"))
    }

    /// Decodes one layer.
    pub fn layer(&self, layer: usize, decoded: &mut Decoded) -> Result<Layer> {
        let mut tensor = |module: &str| -> Result<(Tensor, &Weight)> {
            let weight = self.weight(&format!("model.layers.{layer}.{module}"))?;
            Ok((decoded.tensor(weight, &self.device)?, weight))
        };
        let mut linears = Vec::with_capacity(LINEARS.len());
        for (module, (_, biased)) in LINEARS.iter().zip(linear_shapes(&self.config)) {
            let (matrix, weight) = tensor(&format!("{module}.weight"))?;
            let bias = if biased { Some(tensor(&format!("{module}.bias"))?.0) } else { None };
            linears.push(Linear {
                weight: matrix,
                bias,
                input: self.activations.input(weight),
                output: self.activations.output(weight),
            });
        }
        let linears = linears
            .try_into()
            .map_err(|_| Error::argument("a layer has another number of linears", "report this as a bug"))?;
        Ok(Layer {
            input_layernorm: tensor("input_layernorm.weight")?.0,
            post_attention_layernorm: tensor("post_attention_layernorm.weight")?.0,
            linears,
            num_attention_heads: self.config.num_attention_heads,
            num_key_value_heads: self.config.num_key_value_heads,
            head_dim: self.config.head_dim,
            rms_norm_eps: self.config.rms_norm_eps as f32,
            rounding: self.rounding,
            kv_cache: self.kv_cache(layer).cloned(),
        })
    }

    /// The final norm: `[n, hidden]` → `[n, hidden]`.
    pub fn final_norm(&self, x: &Tensor) -> Result<Tensor> {
        let weight = decoded(self.weight(FINAL_NORM)?, &self.device)?;
        candle_nn::ops::rms_norm(x, &weight, self.config.rms_norm_eps as f32)
            .map_err(Error::compute("computing the final norm"))
    }

    /// What goes into the head's product: the normed states `[n, hidden]`, rounded where the head's scheme says so.
    /// `requests` are the rows of each request.
    pub fn head_input(&self, normed: &Tensor, requests: &[Range<usize>]) -> Result<Tensor> {
        let scheme = self.activations.input(self.weight(self.head_name())?);
        rounded(normed, scheme.as_ref(), requests).map_err(Error::compute("rounding the head's input"))
    }

    /// Whether [`Decoder::head_input`] changes anything.
    pub fn rounds_head_input(&self) -> bool {
        self.weight(self.head_name()).is_ok_and(|head| self.activations.input(head).is_some())
    }

    fn head_name(&self) -> &'static str {
        if self.config.tie_word_embeddings { EMBEDDING } else { HEAD }
    }

    /// Whether both heads decode to the same rows.
    pub fn shares_head_with(&self, other: &Self) -> bool {
        let head = |decoder: &Self| decoder.weight(decoder.head_name()).ok().cloned();
        head(self).zip(head(other)).is_some_and(|(a, b)| a.same_source(&b))
    }

    /// A tile of the head, decoded: rows `ids` of `[vocab_size, hidden_size]`.
    pub fn head_rows(&self, ids: Range<usize>) -> Result<Tensor> {
        let name = self.head_name();
        let mut rows = vec![0.0; ids.len() * self.config.hidden_size];
        self.weight(name)?.decode_rows(ids.clone(), &mut rows)?;
        Tensor::from_vec(rows, (ids.len(), self.config.hidden_size), &self.device)
            .map_err(Error::compute("moving the head to the device"))
    }

    /// Multiply-adds, counted as two operations, of one layer over runs of tokens: how many each has, and how many
    /// came before it in its sequence.
    pub fn layer_operations(&self, runs: impl IntoIterator<Item = (usize, usize)>) -> f64 {
        let per_token: usize = linear_shapes(&self.config).iter().map(|(shape, _)| shape[0] * shape[1]).sum();
        let attention = 2 * self.config.num_attention_heads * self.config.head_dim;
        let of_run = |(tokens, before): (usize, usize)| {
            let (t, before) = (tokens as f64, before as f64);
            // Each query meets the keys up to itself, once for the scores and once for the values.
            2.0 * t * per_token as f64 + 2.0 * attention as f64 * (t * before + t * (t + 1.0) / 2.0)
        };
        runs.into_iter().map(of_run).sum::<f64>()
    }

    /// Whether a linear rounds its input by a scale (or a set of columns) of the whole request, so that a request must
    /// be computed as a whole.
    pub fn needs_whole_requests(&self) -> bool {
        self.weights.iter().any(|weight| {
            [self.activations.input(weight), self.activations.output(weight)]
                .iter()
                .flatten()
                .any(ActivationQuantization::looks_at_requests)
        })
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
}

/// A whole weight, decoded now.
fn decoded(weight: &Weight, device: &Device) -> Result<Tensor> {
    Tensor::from_vec(weight.decode()?, weight.shape.clone(), device)
        .map_err(Error::compute(format!("moving {} to the device", weight.name)))
}

fn declared_scheme(declared: KvCacheQuantization, head_dim: usize) -> Result<KvCacheScheme> {
    let KvCacheQuantization { format, k_scale, v_scale } = declared;
    let scheme = match format {
        ActivationFormat::Int { bits: 8, symmetric: true } => KvCacheScheme::Int8 { k_scale, v_scale },
        ActivationFormat::E4m3 => KvCacheScheme::Fp8 { k_scale, v_scale },
        other => {
            return Err(Error::argument(
                format!("the checkpoint declares a KV cache of {other:?}, which is not implemented"),
                "declared caches can be E4M3 or symmetric int8; --activations none measures without it",
            ));
        }
    };
    scheme.check(head_dim)?;
    Ok(scheme)
}

/// Multiplies every value by 1 ± 2⁻²², the sign from a hash of token and channel: the same wherever the token lies in
/// a tile.
fn nudge(tokens: &[u32], width: usize, rows: &mut [f32]) {
    const STEP: f32 = 1.0 / 4_194_304.0;
    for (token, row) in tokens.iter().zip(rows.chunks_exact_mut(width.max(1))) {
        let mut signs =
            SplitMix::seeded(u64::from(*token).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        for value in row {
            *value *= if signs.bits() >> 63 == 0 { 1.0 + STEP } else { 1.0 - STEP };
        }
    }
}
