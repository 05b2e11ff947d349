//! One decoder layer of the Llama family: norm, attention, norm, gated MLP.
//!
//! Weights arrive decoded; whatever their encoding was, the products are dense
//! f32. Sequences are packed: positions and attention go by the [`Geometry`],
//! never by the row's index in the tile.

use std::ops::Range;

use candle_core::{Result, Tensor};

use super::{
    attention::{self, causal_attention},
    kv_cache::{KvCacheScheme, Part},
    linear::{Linear, Rounding},
    rope::RopeTables,
};
use crate::checkpoint::config::ModelConfig;

/// Which rows of a tile belong to which sequence, and where in it they are.
#[derive(Clone, Debug)]
pub struct Geometry {
    segments: Vec<Range<usize>>,
    cos: Tensor,
    sin: Tensor,
}

impl Geometry {
    /// For packed sequences of the given lengths, each starting at position 0 of `tables`.
    pub fn new(lengths: &[usize], tables: &RopeTables) -> Result<Self> {
        let mut segments = Vec::with_capacity(lengths.len());
        let mut start = 0;
        for length in lengths {
            segments.push(start..start + length);
            start += length;
        }
        let packed = |table: &Tensor| -> Result<Tensor> {
            let parts = lengths.iter().map(|t| table.narrow(0, 0, *t)).collect::<Result<Vec<_>>>()?;
            Tensor::cat(&parts, 0)
        };
        Ok(Self { segments, cos: packed(&tables.cos)?, sin: packed(&tables.sin)? })
    }
}

/// Called with each linear's name, input and output.
pub(super) type Tap<'a> = &'a mut dyn FnMut(&'static str, &Tensor, &Tensor) -> Result<()>;

/// A decoder layer with its weights decoded.
#[derive(Clone, Debug)]
pub struct Layer {
    pub(super) input_layernorm: Tensor,
    pub(super) post_attention_layernorm: Tensor,
    /// In the order of [`LINEARS`].
    pub(super) linears: [Linear; 7],
    pub(super) num_attention_heads: usize,
    pub(super) num_key_value_heads: usize,
    pub(super) head_dim: usize,
    pub(super) rms_norm_eps: f32,
    pub(super) rounding: Rounding,
    /// How keys and values are stored; `None`: as computed.
    pub(super) kv_cache: Option<KvCacheScheme>,
}

/// The linears of a layer, in the order of their use.
pub const LINEARS: [&str; 7] = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
];

/// Shape [out, in] of each of [`LINEARS`], and whether it has a bias.
pub(super) fn linear_shapes(config: &ModelConfig) -> [([usize; 2], bool); 7] {
    let (hidden, mlp) = (config.hidden_size, config.intermediate_size);
    let q = config.num_attention_heads * config.head_dim;
    let kv = config.num_key_value_heads * config.head_dim;
    [
        ([q, hidden], config.attention_bias),
        ([kv, hidden], config.attention_bias),
        ([kv, hidden], config.attention_bias),
        ([hidden, q], config.attention_output_bias),
        ([mlp, hidden], config.mlp_bias),
        ([mlp, hidden], config.mlp_bias),
        ([hidden, mlp], config.mlp_bias),
    ]
}

impl Layer {
    /// The residual stream after this layer: `[n, hidden]` → `[n, hidden]`.
    pub fn forward(&self, x: &Tensor, geometry: &Geometry, mut tap: Option<Tap>) -> Result<Tensor> {
        let mut linear = |index: usize, input: &Tensor| -> Result<Tensor> {
            let output = self.rounding.apply(self.linears[index].forward(input, &geometry.segments)?)?;
            if let Some(tap) = tap.as_mut() {
                tap(LINEARS[index], input, &output)?;
            }
            Ok(output)
        };
        let normed = candle_nn::ops::rms_norm(x, &self.input_layernorm, self.rms_norm_eps)?;
        let q = self.rotate(linear(0, &normed)?, self.num_attention_heads, geometry)?;
        let k = self.rotate(linear(1, &normed)?, self.num_key_value_heads, geometry)?;
        let v = linear(2, &normed)?.reshape(((), self.num_key_value_heads, self.head_dim))?;
        let mixed = geometry
            .segments
            .iter()
            .map(|rows| {
                let part = |x: &Tensor| x.narrow(0, rows.start, rows.len());
                self.attend(&part(&q)?, &part(&k)?, &part(&v)?)
            })
            .collect::<Result<Vec<_>>>()?;
        let mixed = Tensor::cat(&mixed, 0)?;
        let x = self.rounding.apply((x + linear(3, &mixed)?)?)?;
        let normed = candle_nn::ops::rms_norm(&x, &self.post_attention_layernorm, self.rms_norm_eps)?;
        let gate = candle_nn::ops::silu(&linear(4, &normed)?)?;
        let gated = (gate * linear(5, &normed)?)?;
        self.rounding.apply((x + linear(6, &gated)?)?)
    }

    /// Attention of one sequence, through the KV cache where it is quantized.
    fn attend(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        let Some(scheme) = &self.kv_cache else { return causal_attention(q, k, v) };
        let stored = |part: Part, x: &Tensor| -> Result<Tensor> {
            let values = x.flatten_all()?.to_vec1::<f32>()?;
            let stored = scheme.stored(part, &values, self.num_key_value_heads, self.head_dim);
            Tensor::from_vec(stored, x.dims(), x.device())
        };
        let (stored_k, stored_v) = (stored(Part::Keys, k)?, stored(Part::Values, v)?);
        let last = q.dim(0)?.saturating_sub(1);
        let at_once =
            |part| scheme.stored_before(part, last) == last + 1 && scheme.stored_before(part, 0) == 1;
        if at_once(Part::Keys) && at_once(Part::Values) {
            return causal_attention(q, &stored_k, &stored_v);
        }
        let before = |part| (0..=last).map(|query| scheme.stored_before(part, query)).collect::<Vec<_>>();
        attention::with_residual_window(
            q,
            attention::Cached { fresh: k, stored: &stored_k, stored_before: &before(Part::Keys) },
            attention::Cached { fresh: v, stored: &stored_v, stored_before: &before(Part::Values) },
        )
    }

    /// One of [`LINEARS`] by name, applied to an input that another model computed.
    pub fn linear(&self, name: &str, input: &Tensor, geometry: &Geometry) -> Result<Tensor> {
        match LINEARS.iter().position(|known| *known == name) {
            Some(index) => self.rounding.apply(self.linears[index].forward(input, &geometry.segments)?),
            None => candle_core::bail!("no linear is named {name}"),
        }
    }

    fn rotate(&self, x: Tensor, heads: usize, geometry: &Geometry) -> Result<Tensor> {
        let x = x.reshape((1, (), heads, self.head_dim))?;
        candle_nn::rotary_emb::rope_thd(&x, &geometry.cos, &geometry.sin)?.squeeze(0)
    }
}
