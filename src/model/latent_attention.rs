//! Multi-head latent attention: what is cached is one narrow row per position, from which all heads' keys and values
//! are made (DeepSeek-V2, arXiv 2405.04434).

use candle_core::{Result, Tensor};

use super::{
    attention::{Scores, causal_attention},
    context::Context,
    kv_cache::Part,
    linear::Linear,
    norm::Norm,
    rope::rotate,
    softmax_attention::{attend, stored},
};
use crate::checkpoint::config::LatentAttention as Config;

/// Latent attention with its weights decoded.
#[derive(Clone, Debug)]
pub(super) struct LatentAttention {
    pub(super) config: Config,
    pub(super) queries: Queries,
    /// To the latent, and the part of the key that is rotated and shared by all heads.
    pub(super) kv_a: Linear,
    pub(super) kv_norm: Norm,
    pub(super) k_b: Linear,
    pub(super) v_b: Linear,
    pub(super) o: Linear,
}

/// How queries are made.
#[derive(Clone, Debug)]
pub(super) enum Queries {
    /// Straight from the input.
    Whole(Linear),
    /// Through a latent of their own.
    Latent { down: Linear, norm: Norm, up: Linear },
}

impl LatentAttention {
    /// `[n, hidden]` → `[n, hidden]`.
    pub(super) fn forward(&self, x: &Tensor, context: &mut Context) -> Result<Tensor> {
        let Config { num_attention_heads: heads, qk_nope_head_dim: nope, qk_rope_head_dim: rope, .. } =
            self.config;
        let rank = self.config.kv_lora_rank;
        let q = match &self.queries {
            Queries::Whole(linear) => context.linear(linear, x)?,
            Queries::Latent { down, norm, up } => {
                let latent = norm.forward(&context.linear(down, x)?)?;
                context.linear(up, &latent)?
            }
        };
        let q = q.reshape(((), heads, nope + rope))?;
        let rotation = context.geometry.rotations.get(self.config.rope);
        let turned = |x: Tensor| match rotation {
            Some(rotation) => rotate(&x, rotation),
            None => Ok(x),
        };
        let q = Tensor::cat(&[q.narrow(2, 0, nope)?.contiguous()?, turned(q.narrow(2, nope, rope)?)?], 2)?;
        let down = context.linear(&self.kv_a, x)?;
        let latent = self.kv_norm.forward(&down.narrow(1, 0, rank)?)?;
        let shared = turned(down.narrow(1, rank, rope)?.contiguous()?.reshape(((), 1, rope))?)?;
        let row = Tensor::cat(&[latent.unsqueeze(1)?, shared], 2)?;
        // What a quantized cache gives back of a row does not depend on other rows (see `Decoder::with_kv_cache`).
        let kept = match (context.kv_cache, context.states.is_some()) {
            (Some(scheme), false) => stored(scheme, Part::Keys, &row)?,
            _ => row,
        };
        let scores = Scores { scale: self.config.scale, softcap: None, window: None, sinks: None };
        let segments = &context.geometry.segments;
        let mixed = if context.states.is_some() {
            let scheme = context.kv_cache;
            attend(&q, vec![kept], segments, context.states.as_deref_mut(), |q, cached| {
                let [row] = cached else { candle_core::bail!("latent attention has one cache") };
                let row = match scheme {
                    Some(scheme) => stored(scheme, Part::Keys, &row.contiguous()?)?,
                    None => row.clone(),
                };
                let whole = 0..row.dim(0)?;
                let expand = |linear: &Linear, x: &Tensor| linear.forward(x, std::slice::from_ref(&whole));
                let (k, v) = self.expanded(&row, expand)?;
                causal_attention(q, &k, &v, &scores)
            })?
        } else {
            let (k, v) = self.expanded(&kept, |linear, x| context.linear(linear, x))?;
            attend(&q, vec![k, v], segments, None, |q, cached| {
                let [k, v] = cached else { candle_core::bail!("attention has keys and values") };
                causal_attention(q, k, v, &scores)
            })?
        };
        context.linear(&self.o, &mixed)
    }

    pub(super) fn linears(&self) -> impl Iterator<Item = &Linear> {
        let queries: Vec<&Linear> = match &self.queries {
            Queries::Whole(linear) => vec![linear],
            Queries::Latent { down, up, .. } => vec![down, up],
        };
        queries.into_iter().chain([&self.kv_a, &self.k_b, &self.v_b, &self.o])
    }

    /// Keys `[n, heads, nope + rope]` and values `[n, heads, v_head_dim]` from cached rows `[n, 1, rank + rope]`.
    fn expanded(
        &self,
        row: &Tensor,
        mut linear: impl FnMut(&Linear, &Tensor) -> Result<Tensor>,
    ) -> Result<(Tensor, Tensor)> {
        let Config { num_attention_heads: heads, qk_nope_head_dim: nope, qk_rope_head_dim: rope, .. } =
            self.config;
        let rank = self.config.kv_lora_rank;
        let latent = row.narrow(2, 0, rank)?.contiguous()?.squeeze(1)?;
        let n = latent.dim(0)?;
        let k = linear(&self.k_b, &latent)?.reshape((n, heads, nope))?;
        let v = linear(&self.v_b, &latent)?.reshape((n, heads, self.config.v_head_dim))?;
        let shared = row.narrow(2, rank, rope)?.broadcast_as((n, heads, rope))?.contiguous()?;
        Ok((Tensor::cat(&[k, shared], 2)?, v))
    }
}
