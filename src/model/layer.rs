//! One decoder layer of the Llama family: norm, attention, norm, gated MLP.
//!
//! Weights arrive decoded; whatever their encoding was, the products are dense
//! f32. Sequences are packed: positions and attention go by the [`Geometry`],
//! never by the row's index in the tile.

use std::ops::Range;

use candle_core::{DType, Result, Tensor};
use rayon::prelude::*;

use super::{
    Decoder,
    attention::{self, causal_attention},
    kv_cache::{KvCacheScheme, Part},
    linear::{Linear, Rounding},
    rope::RopeTables,
};
use crate::{checkpoint::config::ModelConfig, error::Error};

/// A run of rows of a tile: a whole sequence, or a part that several sequences share, or one that continues such
/// a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its rows.
    pub rows: Range<usize>,
    /// Position of its first row in its sequence.
    pub first_position: usize,
    /// The segments of the tile that hold the positions before, first to last; empty where there are none, or
    /// where they are in a [`KvState`].
    pub ancestors: Vec<usize>,
}

/// Which rows of a tile belong to which sequence, and where in it they are.
#[derive(Clone, Debug)]
pub struct Geometry {
    segments: Vec<Segment>,
    /// The rows of each segment: what is rounded together where a scheme looks at a whole request.
    rows: Vec<Range<usize>>,
    cos: Tensor,
    sin: Tensor,
}

impl Geometry {
    /// For packed sequences of the given lengths, each starting at position 0 of `tables`.
    pub fn new(lengths: &[usize], tables: &RopeTables) -> Result<Self> {
        let mut start = 0;
        let segment = |length: &usize| {
            start += length;
            Segment { rows: start - length..start, first_position: 0, ancestors: Vec::new() }
        };
        Self::of(lengths.iter().map(segment).collect(), tables)
    }

    /// For segments that follow each other without gaps.
    pub fn of(segments: Vec<Segment>, tables: &RopeTables) -> Result<Self> {
        let packed = |table: &Tensor| -> Result<Tensor> {
            let part = |segment: &Segment| table.narrow(0, segment.first_position, segment.rows.len());
            Tensor::cat(&segments.iter().map(part).collect::<Result<Vec<_>>>()?, 0)
        };
        let (cos, sin) = (packed(&tables.cos)?, packed(&tables.sin)?);
        Ok(Self { rows: segments.iter().map(|segment| segment.rows.clone()).collect(), segments, cos, sin })
    }
}

/// Keys and values of one sequence in one layer, as computed: what generation keeps between tokens.
#[derive(Clone, Debug)]
pub struct KvState {
    /// `[capacity, num_key_value_heads, head_dim]`.
    keys: Tensor,
    values: Tensor,
    len: usize,
}

impl KvState {
    /// Of a sequence that has not begun, with room for `capacity` positions.
    pub fn empty(decoder: &Decoder, capacity: usize) -> crate::error::Result<Self> {
        let config = &decoder.config;
        let shape = (capacity.max(1), config.num_key_value_heads, config.head_dim);
        let empty = || Tensor::zeros(shape, DType::F32, decoder.device());
        let state = || Ok(Self { keys: empty()?, values: empty()?, len: 0 });
        state().map_err(Error::compute("making room for a sequence"))
    }

    /// The same past, to be continued in another way; with room for `capacity` positions in all.
    pub fn forked(&self, capacity: usize) -> Result<Self> {
        let (_, heads, head_dim) = self.keys.dims3()?;
        let copy = |x: &Tensor| -> Result<Tensor> {
            let room =
                Tensor::zeros((capacity.max(self.len).max(1), heads, head_dim), x.dtype(), x.device())?;
            if self.len > 0 {
                room.slice_set(&x.narrow(0, 0, self.len)?.contiguous()?, 0, 0)?;
            }
            Ok(room)
        };
        Ok(Self { keys: copy(&self.keys)?, values: copy(&self.values)?, len: self.len })
    }

    fn append(&mut self, k: &Tensor, v: &Tensor) -> Result<(Tensor, Tensor)> {
        self.keys.slice_set(&k.contiguous()?, 0, self.len)?;
        self.values.slice_set(&v.contiguous()?, 0, self.len)?;
        self.len += k.dim(0)?;
        Ok((self.keys.narrow(0, 0, self.len)?, self.values.narrow(0, 0, self.len)?))
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
    pub fn forward(&self, x: &Tensor, geometry: &Geometry, tap: Option<Tap>) -> Result<Tensor> {
        let attend = |q: &Tensor, k: &Tensor, v: &Tensor| {
            let part = |x: &Tensor, segment: &Segment| x.narrow(0, segment.rows.start, segment.rows.len());
            // The keys or values that a segment sees: its ancestors' and its own.
            let seen = |x: &Tensor, segment: &Segment| -> Result<Tensor> {
                if segment.ancestors.is_empty() {
                    return part(x, segment);
                }
                let before = segment.ancestors.iter().map(|index| part(x, &geometry.segments[*index]));
                let parts = before.chain(std::iter::once(part(x, segment))).collect::<Result<Vec<_>>>()?;
                Tensor::cat(&parts, 0)
            };
            let one =
                |segment: &Segment| self.attend(&part(q, segment)?, &seen(k, segment)?, &seen(v, segment)?);
            geometry.segments.iter().map(one).collect::<Result<Vec<_>>>()
        };
        self.run(x, geometry, tap, attend)
    }

    /// The same for segments that continue sequences begun earlier: `states[i]` holds what came before segment i, and
    /// takes up its keys and values.
    pub fn continue_from(&self, x: &Tensor, geometry: &Geometry, states: &mut [KvState]) -> Result<Tensor> {
        let attend = |q: &Tensor, k: &Tensor, v: &Tensor| {
            let one = |(segment, state): (&Segment, &mut KvState)| {
                let part = |x: &Tensor| x.narrow(0, segment.rows.start, segment.rows.len());
                let (k, v) = state.append(&part(k)?, &part(v)?)?;
                self.attend(&part(q)?, &k, &v)
            };
            let pairs: Vec<_> = geometry.segments.iter().zip(states.iter_mut()).collect();
            match x.device().is_cpu() {
                true => pairs.into_par_iter().map(one).collect::<Result<Vec<_>>>(),
                false => pairs.into_iter().map(one).collect(),
            }
        };
        self.run(x, geometry, None, attend)
    }

    fn run(
        &self,
        x: &Tensor,
        geometry: &Geometry,
        mut tap: Option<Tap>,
        attend: impl FnOnce(&Tensor, &Tensor, &Tensor) -> Result<Vec<Tensor>>,
    ) -> Result<Tensor> {
        let mut linear = |index: usize, input: &Tensor| -> Result<Tensor> {
            let output = self.rounding.apply(self.linears[index].forward(input, &geometry.rows)?)?;
            if let Some(tap) = tap.as_mut() {
                tap(LINEARS[index], input, &output)?;
            }
            Ok(output)
        };
        let normed = candle_nn::ops::rms_norm(x, &self.input_layernorm, self.rms_norm_eps)?;
        let q = self.rotate(linear(0, &normed)?, self.num_attention_heads, geometry)?;
        let k = self.rotate(linear(1, &normed)?, self.num_key_value_heads, geometry)?;
        let v = linear(2, &normed)?.reshape(((), self.num_key_value_heads, self.head_dim))?;
        let mixed = attend(&q, &k, &v)?;
        let mixed = Tensor::cat(&mixed, 0)?;
        let x = self.rounding.apply((x + linear(3, &mixed)?)?)?;
        let normed = candle_nn::ops::rms_norm(&x, &self.post_attention_layernorm, self.rms_norm_eps)?;
        let gate = candle_nn::ops::silu(&linear(4, &normed)?)?;
        let gated = (gate * linear(5, &normed)?)?;
        self.rounding.apply((x + linear(6, &gated)?)?)
    }

    /// Attention of one sequence, or of its last positions, through the KV cache where it is quantized: `k` and `v`
    /// hold all positions, as computed.
    fn attend(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        let Some(scheme) = &self.kv_cache else { return causal_attention(q, k, v) };
        let stored = |part: Part, x: &Tensor| -> Result<Tensor> {
            let values = x.flatten_all()?.to_vec1::<f32>()?;
            let stored = scheme.stored(part, &values, self.num_key_value_heads, self.head_dim);
            Tensor::from_vec(stored, x.dims(), x.device())
        };
        let (stored_k, stored_v) = (stored(Part::Keys, k)?, stored(Part::Values, v)?);
        let last = k.dim(0)?.saturating_sub(1);
        let first = last + 1 - q.dim(0)?;
        let at_once =
            |part| scheme.stored_before(part, last) == last + 1 && scheme.stored_before(part, 0) == 1;
        if at_once(Part::Keys) && at_once(Part::Values) {
            return causal_attention(q, &stored_k, &stored_v);
        }
        let before = |part| (first..=last).map(|query| scheme.stored_before(part, query)).collect::<Vec<_>>();
        attention::with_residual_window(
            q,
            attention::Cached { fresh: k, stored: &stored_k, stored_before: &before(Part::Keys) },
            attention::Cached { fresh: v, stored: &stored_v, stored_before: &before(Part::Values) },
        )
    }

    /// One of [`LINEARS`] by name, applied to an input that another model computed.
    pub fn linear(&self, name: &str, input: &Tensor, geometry: &Geometry) -> Result<Tensor> {
        match LINEARS.iter().position(|known| *known == name) {
            Some(index) => self.rounding.apply(self.linears[index].forward(input, &geometry.rows)?),
            None => candle_core::bail!("no linear is named {name}"),
        }
    }

    fn rotate(&self, x: Tensor, heads: usize, geometry: &Geometry) -> Result<Tensor> {
        let x = x.reshape((1, (), heads, self.head_dim))?;
        candle_nn::rotary_emb::rope_thd(&x, &geometry.cos, &geometry.sin)?.squeeze(0)
    }
}
