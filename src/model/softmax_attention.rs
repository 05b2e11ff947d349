//! Softmax attention with grouped heads, and what families add: norms of queries and keys, rotation, windows, sinks, gates.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::{
    attention::{self, Scores, causal_attention},
    context::{Context, part, seen},
    geometry::Segment,
    kv_cache::{KvCacheScheme, Part},
    linear::Linear,
    norm::Norm,
    rope::rotate,
    state::KvState,
};
use crate::checkpoint::config::{Attention, QkNorm};

/// Softmax attention with its weights decoded.
#[derive(Clone, Debug)]
pub(super) struct SoftmaxAttention {
    pub(super) config: Attention,
    pub(super) q: Linear,
    pub(super) k: Linear,
    pub(super) v: Linear,
    pub(super) o: Linear,
    pub(super) gate: Option<Linear>,
    pub(super) q_norm: Option<Norm>,
    pub(super) k_norm: Option<Norm>,
    pub(super) sinks: Option<Vec<f32>>,
}

impl SoftmaxAttention {
    /// `[n, hidden]` → `[n, hidden]`.
    pub(super) fn forward(&self, x: &Tensor, context: &mut Context) -> Result<Tensor> {
        let config = &self.config;
        let (heads, kv_heads) = (config.num_attention_heads, config.num_key_value_heads);
        let q = self.query_or_key(context.linear(&self.q, x)?, heads, self.q_norm.as_ref(), context)?;
        let k = self.query_or_key(context.linear(&self.k, x)?, kv_heads, self.k_norm.as_ref(), context)?;
        let v = context.linear(&self.v, x)?.reshape(((), kv_heads, config.head_dim))?;
        let gate = self.gate.as_ref().map(|gate| context.linear(gate, x)).transpose()?;
        let scores = self.scores();
        let (scheme, segments) = (context.kv_cache, &context.geometry.segments);
        let mixed = attend(&q, vec![k, v], segments, context.states.as_deref_mut(), |q, cached| {
            let [k, v] = cached else { candle_core::bail!("attention has keys and values") };
            through_cache(q, k, v, scheme, &scores)
        })?;
        let mixed = match gate {
            Some(gate) => (mixed * candle_nn::ops::sigmoid(&gate)?)?,
            None => mixed,
        };
        context.linear(&self.o, &mixed)
    }

    pub(super) fn linears(&self) -> impl Iterator<Item = &Linear> {
        [&self.q, &self.k, &self.v, &self.o].into_iter().chain(&self.gate)
    }

    fn scores(&self) -> Scores<'_> {
        Scores {
            scale: self.config.scale,
            softcap: self.config.softcap.map(|cap| cap as f32),
            window: self.config.window,
            sinks: self.sinks.as_deref(),
        }
    }

    /// `[n, heads · head_dim]` → `[n, heads, head_dim]`, normed and rotated.
    fn query_or_key(
        &self,
        x: Tensor,
        heads: usize,
        norm: Option<&Norm>,
        context: &Context,
    ) -> Result<Tensor> {
        let split = |x: &Tensor| x.reshape(((), heads, self.config.head_dim));
        let x = match (norm, self.config.qk_norm) {
            (Some(norm), Some(QkNorm::Head)) => norm.forward(&split(&x)?)?,
            (Some(norm), _) => split(&norm.forward(&x)?)?,
            (None, _) => split(&x)?,
        };
        match self.config.rope.and_then(|index| context.geometry.rotations.get(index)) {
            Some(rotation) => rotate(&x, rotation),
            None => Ok(x),
        }
    }
}

/// Applies `one` to each segment: to its queries and to all cached rows that they see, as computed.
pub(super) fn attend(
    q: &Tensor,
    cached: Vec<Tensor>,
    segments: &[Segment],
    states: Option<&mut [KvState]>,
    one: impl Fn(&Tensor, &[Tensor]) -> Result<Tensor> + Sync,
) -> Result<Tensor> {
    let mixed = match states {
        None => segments
            .iter()
            .map(|segment| {
                let rows = cached.iter().map(|x| seen(x, segment, segments)).collect::<Result<Vec<_>>>()?;
                one(&part(q, segment)?, &rows)
            })
            .collect::<Result<Vec<_>>>()?,
        Some(states) => {
            let continued = |(segment, state): (&Segment, &mut KvState)| {
                let rows = cached.iter().map(|x| part(x, segment)).collect::<Result<Vec<_>>>()?;
                one(&part(q, segment)?, &state.append(&rows)?)
            };
            let pairs: Vec<_> = segments.iter().zip(states.iter_mut()).collect();
            match q.device().is_cpu() {
                true => pairs.into_par_iter().map(continued).collect::<Result<Vec<_>>>()?,
                false => pairs.into_iter().map(continued).collect::<Result<Vec<_>>>()?,
            }
        }
    };
    Tensor::cat(&mixed, 0)
}

/// Attention of one sequence, or of its last positions, through the KV cache where it is quantized: `k` and `v`
/// hold all positions, as computed.
fn through_cache(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    scheme: Option<&KvCacheScheme>,
    scores: &Scores,
) -> Result<Tensor> {
    let Some(scheme) = scheme else { return causal_attention(q, k, v, scores) };
    let (stored_k, stored_v) = (stored(scheme, Part::Keys, k)?, stored(scheme, Part::Values, v)?);
    let last = k.dim(0)? - 1;
    let first = last + 1 - q.dim(0)?;
    if stores_at_once(scheme, last) {
        return causal_attention(q, &stored_k, &stored_v, scores);
    }
    let before = |part| (first..=last).map(|query| scheme.stored_before(part, query)).collect::<Vec<_>>();
    attention::with_residual_window(
        q,
        attention::Cached { fresh: k, stored: &stored_k, stored_before: &before(Part::Keys) },
        attention::Cached { fresh: v, stored: &stored_v, stored_before: &before(Part::Values) },
        scores,
    )
}

/// `[n, heads, width]` as the cache gives it back.
pub(super) fn stored(scheme: &KvCacheScheme, part: Part, x: &Tensor) -> Result<Tensor> {
    let (_, heads, width) = x.dims3()?;
    let values = x.flatten_all()?.to_vec1::<f32>()?;
    Tensor::from_vec(scheme.stored(part, &values, heads, width), x.dims(), x.device())
}

/// Whether every position is read as stored by the query at the same position.
fn stores_at_once(scheme: &KvCacheScheme, last: usize) -> bool {
    let at_once = |part| scheme.stored_before(part, last) == last + 1 && scheme.stored_before(part, 0) == 1;
    at_once(Part::Keys) && at_once(Part::Values)
}
