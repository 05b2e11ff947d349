//! One decoder, seen as stages: embedding, layers, final norm, head.
//!
//! A stage's weights are decoded when it is asked for and freed when it is
//! dropped; nothing here holds more than one stage. The model does not know what
//! kind of file its weights came from, nor what is measured on it.

mod activations;
mod attention;
mod build;
mod context;
mod delta_net;
mod experts;
mod geometry;
pub mod kv_cache;
mod latent_attention;
mod layer;
mod linear;
mod mlp;
mod norm;
mod random;
mod rope;
mod softmax_attention;
mod state;
mod weights;

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    sync::Arc,
};

use candle_core::{Device, Tensor};

pub use self::{
    context::Seen,
    geometry::{Geometry, Segment},
    layer::Layer,
    linear::{ActivationMode, Linear, Rounding},
    rope::RopeTables,
    state::KvState,
    weights::{expected_weights, linears},
};
use self::{
    kv_cache::KvCacheScheme,
    linear::rounded,
    random::SplitMix,
    weights::{EMBEDDING, FINAL_NORM, HEAD, POSITIONS, multiplied},
};
use crate::{
    checkpoint::{
        Checkpoint, Weight,
        activations::{ActivationFormat, ActivationQuantization, KvCacheQuantization},
        config::{LayerConfig, Mixer, ModelConfig, RopeConfig},
    },
    error::{Error, Result},
};

/// A model whose weights are known by name and shape, but not yet read.
#[derive(Clone, Debug)]
pub struct Decoder {
    /// The architecture.
    pub config: ModelConfig,
    weights: Arc<Vec<Weight>>,
    /// Where each name is in `weights`.
    by_name: Arc<HashMap<String, usize>>,
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
        if let Some(stray) = checkpoint.unused_layer_tensors(&config, &weights).first() {
            return Err(Error::tensor(
                &checkpoint.path,
                stray,
                format!("is not part of a {} as its config describes it", config.architecture.name()),
                "the file computes something else than its config says; it cannot be measured faithfully",
            ));
        }
        let kv_cache = config
            .layers
            .iter()
            .enumerate()
            .map(|(index, layer)| {
                let declared = checkpoint.kv_cache(&format!("model.layers.{index}.self_attn"))?;
                declared.map(|declared| declared_scheme(declared, layer)).transpose()
            })
            .collect::<Result<Vec<_>>>()?;
        let by_name = weights.iter().enumerate().map(|(index, weight)| (weight.name.clone(), index));
        Ok(Self {
            by_name: Arc::new(by_name.collect()),
            config,
            weights: Arc::new(weights),
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
        self.config.layers.iter().try_for_each(|layer| fits(&scheme, layer))?;
        if !self.config.layers.iter().any(|layer| layer.mixer.kv_widths().is_some()) {
            return Err(Error::argument(
                format!("@kv={} changes nothing: no layer of this model has a KV cache", scheme.name()),
                "leave the step out",
            ));
        }
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
        // They lie together.
        let first = self.weights.iter().position(|weight| weight.name.starts_with(&prefix));
        let rest = first.map_or(&[][..], |first| &self.weights[first..]);
        rest.iter().take_while(move |weight| weight.name.starts_with(&prefix))
    }

    /// The weights outside all layers: embedding, final norm, head.
    pub fn outer_weights(&self) -> impl Iterator<Item = &Weight> {
        self.weights.iter().filter(|weight| !weight.name.starts_with("model.layers."))
    }

    /// Rotations for sequences of up to `length` tokens, shared by every tile of a run.
    pub fn rope_tables(&self, length: usize) -> Result<RopeTables> {
        RopeTables::new(&self.config.ropes, length, &self.device)
            .map_err(Error::compute("computing rotary tables"))
    }

    /// Embedding lookup: `[tokens.len(), hidden_size]` f32. `positions` are the tokens' own in their sequences.
    ///
    /// # Errors
    /// An id outside the vocabulary, a position beyond those that the model has learned.
    pub fn embed(&self, tokens: &[u32], positions: &[u32]) -> Result<Tensor> {
        let width = self.config.hidden_size;
        let mut rows = vec![0.0; tokens.len() * width];
        self.weight(EMBEDDING)?.gather_rows(tokens, &mut rows)?;
        if self.config.embedding_multiplier != 1.0 {
            let factor = self.config.embedding_multiplier as f32;
            rows.iter_mut().for_each(|value| *value *= factor);
        }
        if let Some(learned) = self.config.learned_positions {
            if let Some(beyond) = positions.iter().find(|position| **position as usize >= learned) {
                return Err(Error::argument(
                    format!(
                        "a text has a token at position {beyond}; the model has learned {learned} positions"
                    ),
                    format!("give --window {learned} or less"),
                ));
            }
            let mut added = vec![0.0; rows.len()];
            self.weight(POSITIONS)?.gather_rows(positions, &mut added)?;
            rows.iter_mut().zip(added).for_each(|(value, position)| *value += position);
        }
        if self.nudged {
            nudge(tokens, width, &mut rows);
        }
        Tensor::from_vec(rows, (tokens.len(), width), &self.device)
            .map_err(Error::compute("moving the embedding to the device"))
    }

    /// The final norm: `[n, hidden]` → `[n, hidden]`.
    pub fn final_norm(&self, x: &Tensor) -> Result<Tensor> {
        let norm = self.norm(FINAL_NORM, &mut Decoded::default())?;
        norm.forward(x).map_err(Error::compute("computing the final norm"))
    }

    /// Logits of rows that [`Decoder::head_input`] gave, over the ids of a decoded tile of the head, turned:
    /// `[n, hidden]` and `[hidden, ids]` → `[n, ids]`.
    pub fn logits(&self, rows: &Tensor, head: &Tensor) -> candle_core::Result<Tensor> {
        let logits = rows.matmul(head)?;
        let logits = match self.config.logits_divisor {
            1.0 => logits,
            divisor => (logits / divisor)?,
        };
        match self.config.logits_softcap {
            None => Ok(logits),
            Some(cap) => (logits / cap)?.tanh()? * cap,
        }
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
    pub fn layer_operations(&self, layer: usize, runs: impl IntoIterator<Item = (usize, usize)>) -> f64 {
        let Some(config) = self.config.layers.get(layer) else { return 0.0 };
        let per_token = multiplied(config, &self.config) as f64;
        let of_run = |(tokens, before): (usize, usize)| {
            let (t, before) = (tokens as f64, before as f64);
            // Each query meets the keys up to itself, once for the scores and once for the values.
            let mixing = match &config.mixer {
                Mixer::Attention(attention) => {
                    let width = 2 * attention.num_attention_heads * attention.head_dim;
                    let seen =
                        |met: f64| met.min(attention.window.map_or(f64::INFINITY, |window| window as f64));
                    width as f64 * t * seen(before + (t + 1.0) / 2.0)
                }
                Mixer::LatentAttention(latent) => {
                    let width = latent.qk_nope_head_dim + latent.qk_rope_head_dim + latent.v_head_dim;
                    (latent.num_attention_heads * width) as f64 * t * (before + (t + 1.0) / 2.0)
                }
                // The memory is read, corrected and read again.
                Mixer::GatedDeltaNet(net) => {
                    t * 3.0 * (net.num_value_heads * net.key_head_dim * net.value_head_dim) as f64
                }
            };
            2.0 * (t * per_token + mixing)
        };
        runs.into_iter().map(of_run).sum::<f64>()
    }

    /// Whether something depends on the whole request, so that it must be computed as a whole: the scale (or set of
    /// columns) that a linear rounds its input by, or the rotation.
    pub fn needs_whole_requests(&self) -> bool {
        if self.config.ropes.iter().any(RopeConfig::depends_on_length) {
            return true;
        }
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

    /// The weight of this name, if the model has it.
    pub fn find_weight(&self, name: &str) -> Option<&Weight> {
        self.weights.get(*self.by_name.get(name)?)
    }

    fn weight(&self, name: &str) -> Result<&Weight> {
        self.find_weight(name).ok_or_else(|| {
            Error::argument(format!("no weight is named {name}"), "report this as a bug of qeval")
        })
    }
}

/// A whole weight, decoded now.
fn decoded(weight: &Weight, device: &Device) -> Result<Tensor> {
    Tensor::from_vec(weight.decode()?, weight.shape.clone(), device)
        .map_err(Error::compute(format!("moving {} to the device", weight.name)))
}

/// Refuses a cache that does not fit what a layer caches.
fn fits(scheme: &KvCacheScheme, layer: &LayerConfig) -> Result<()> {
    let Some(widths) = layer.mixer.kv_widths() else { return Ok(()) };
    scheme.check(widths.key)?;
    // A latent is a key and a value at once, and expanded as a whole.
    let row_by_row = scheme.stored_before(kv_cache::Part::Keys, 0) == 1;
    if widths.value == 0 && !row_by_row {
        return Err(Error::argument(
            format!(
                "@kv={} keeps recent positions as computed, which is not implemented for latent attention",
                scheme.name()
            ),
            "choose a cache that stores every position at once: q8_0, fp8 …",
        ));
    }
    Ok(())
}

fn declared_scheme(declared: KvCacheQuantization, layer: &LayerConfig) -> Result<KvCacheScheme> {
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
    fits(&scheme, layer)?;
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
