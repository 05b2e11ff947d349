//! Gated delta net: a memory of fixed size per head, decayed and corrected by every token (arXiv 2412.06464).
//!
//! Per head, with S `[key_head_dim, value_head_dim]`: S ← e^g·S, then S ← S + k·(β·(v − kᵀS))ᵀ, and the output is qᵀS.
//! q and k are of unit length, q divided by √key_head_dim; q, k, v come through a causal convolution and SiLU. Source:
//! transformers 5.17, `models/qwen3_next/modeling_qwen3_next.py` (`torch_recurrent_gated_delta_rule`).

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::{context::Context, linear::Linear, norm::Norm, state::KvState};
use crate::checkpoint::config::GatedDeltaNet as Config;

/// A gated delta net with its weights decoded.
#[derive(Clone, Debug)]
pub(super) struct DeltaNet {
    pub(super) config: Config,
    pub(super) qkv: Linear,
    pub(super) z: Linear,
    pub(super) b: Linear,
    pub(super) a: Linear,
    pub(super) out: Linear,
    /// `[channels, kernel]`.
    pub(super) conv: Vec<f32>,
    /// `[value heads]`.
    pub(super) dt_bias: Vec<f32>,
    /// −e^A_log, `[value heads]`.
    pub(super) decay: Vec<f32>,
    /// Over the values of a head.
    pub(super) norm: Norm,
}

/// What a sequence leaves behind.
#[derive(Clone, Debug)]
pub struct Memory {
    /// The last inputs of the convolution, oldest first: `[kernel − 1, channels]`.
    conv: Vec<f32>,
    /// `[value heads, key_head_dim, value_head_dim]`.
    heads: Vec<f32>,
}

impl Memory {
    /// Of a sequence that has not begun.
    pub(super) fn empty(config: &Config) -> Self {
        let channels = channels(config);
        Self {
            conv: vec![0.0; (config.conv_kernel_dim - 1) * channels],
            heads: vec![0.0; config.num_value_heads * config.key_head_dim * config.value_head_dim],
        }
    }
}

fn channels(config: &Config) -> usize {
    2 * config.num_key_heads * config.key_head_dim + config.num_value_heads * config.value_head_dim
}

/// Under the root of a vector's length.
const L2_EPS: f32 = 1e-6;

impl DeltaNet {
    /// `[n, hidden]` → `[n, hidden]`.
    pub(super) fn forward(&self, x: &Tensor, context: &mut Context) -> Result<Tensor> {
        let values = |x: Tensor| x.flatten_all()?.to_vec1::<f32>();
        let qkv = values(context.linear(&self.qkv, x)?)?;
        let z = context.linear(&self.z, x)?;
        let (b, a) = (values(context.linear(&self.b, x)?)?, values(context.linear(&self.a, x)?)?);
        let width = self.config.num_value_heads * self.config.value_head_dim;
        let rows = x.dim(0)?;
        let mut mixed = vec![0.0; rows * width];
        let segments = &context.geometry.segments;
        // Kept for those that continue a segment.
        let mut ends: Vec<Option<Memory>> = vec![None; segments.len()];
        let is_continued = |index: usize| segments.iter().any(|other| other.ancestors.last() == Some(&index));
        for (index, segment) in segments.iter().enumerate() {
            let mut memory = match (context.states.as_deref(), segment.ancestors.last()) {
                (Some(states), _) => match states.get(index) {
                    Some(KvState::Fixed(memory)) => memory.clone(),
                    _ => candle_core::bail!("a delta net keeps a memory of fixed size"),
                },
                (None, Some(ancestor)) => match ends.get(*ancestor).and_then(Option::as_ref) {
                    Some(memory) => memory.clone(),
                    None => candle_core::bail!("a segment comes before the one it continues"),
                },
                (None, None) => Memory::empty(&self.config),
            };
            let span = segment.rows.clone();
            let (channels, heads) = (channels(&self.config), self.config.num_value_heads);
            let qkv = self.convolved(&qkv[span.start * channels..span.end * channels], &mut memory.conv);
            let gates = Gates {
                b: &b[span.start * heads..span.end * heads],
                a: &a[span.start * heads..span.end * heads],
            };
            self.recur(&qkv, &gates, &mut memory.heads, &mut mixed[span.start * width..span.end * width]);
            match context.states.as_deref_mut().and_then(|states| states.get_mut(index)) {
                Some(state) => *state = KvState::Fixed(memory),
                None if is_continued(index) => ends[index] = Some(memory),
                None => {}
            }
        }
        let heads = (rows, self.config.num_value_heads, self.config.value_head_dim);
        let mixed = self.norm.forward(&Tensor::from_vec(mixed, heads, x.device())?)?;
        let gated = (mixed.reshape((rows, width))? * candle_nn::ops::silu(&z)?)?;
        context.linear(&self.out, &gated)
    }

    pub(super) fn linears(&self) -> impl Iterator<Item = &Linear> {
        [&self.qkv, &self.z, &self.b, &self.a, &self.out].into_iter()
    }

    /// Causal convolution of each channel by itself, and SiLU; `history` becomes the last inputs.
    fn convolved(&self, rows: &[f32], history: &mut Vec<f32>) -> Vec<f32> {
        let (channels, kernel) = (channels(&self.config), self.config.conv_kernel_dim);
        let count = rows.len() / channels;
        let padded = [history.as_slice(), rows].concat();
        let mut out = vec![0.0; rows.len()];
        out.par_chunks_exact_mut(channels).enumerate().for_each(|(row, out)| {
            for tap in 0..kernel {
                let input = &padded[(row + tap) * channels..(row + tap + 1) * channels];
                for ((out, x), weights) in out.iter_mut().zip(input).zip(self.conv.chunks_exact(kernel)) {
                    *out += x * weights[tap];
                }
            }
            out.iter_mut().for_each(|x| *x /= 1.0 + (-*x).exp());
        });
        *history = padded[count * channels..].to_vec();
        out
    }

    /// The recurrence of all heads, side by side.
    fn recur(&self, qkv: &[f32], gates: &Gates, memory: &mut [f32], out: &mut [f32]) {
        let Config { num_value_heads: heads, key_head_dim: key, value_head_dim: value, .. } = self.config;
        let channels = channels(&self.config);
        let tokens = qkv.len() / channels;
        let each = heads / self.config.num_key_heads;
        let keys = self.config.num_key_heads * key;
        let of_head = |(head, memory): (usize, &mut [f32])| {
            let mut result = vec![0.0; tokens * value];
            let steps = (0..tokens).map(|token| {
                let row = &qkv[token * channels..(token + 1) * channels];
                let at = head / each * key;
                let gate = token * heads + head;
                let decay = (self.decay[head] * softplus(gates.a[gate] + self.dt_bias[head])).exp();
                Step {
                    q: &row[at..at + key],
                    k: &row[keys + at..keys + at + key],
                    v: &row[2 * keys + head * value..2 * keys + (head + 1) * value],
                    decay,
                    beta: 1.0 / (1.0 + (-gates.b[gate]).exp()),
                }
            });
            let steps: Vec<Step> = steps.collect();
            pulp::Arch::new().dispatch(Recurrence { steps: &steps, memory, out: &mut result });
            result
        };
        let results: Vec<Vec<f32>> =
            memory.par_chunks_exact_mut(key * value).enumerate().map(of_head).collect();
        for (head, result) in results.iter().enumerate() {
            for (token, row) in result.chunks_exact(value).enumerate() {
                out[(token * heads + head) * value..][..value].copy_from_slice(row);
            }
        }
    }
}

/// Rows `[tokens, value heads]`.
struct Gates<'a> {
    b: &'a [f32],
    a: &'a [f32],
}

/// ln(1 + eˣ), x itself beyond 20, as torch has it.
fn softplus(x: f32) -> f32 {
    if x > 20.0 { x } else { x.exp().ln_1p() }
}

/// One token of one head.
struct Step<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    decay: f32,
    beta: f32,
}

/// One head over some tokens. A struct, so that its body is compiled for the detected instruction set.
struct Recurrence<'a> {
    steps: &'a [Step<'a>],
    /// `[key_head_dim, value_head_dim]`.
    memory: &'a mut [f32],
    /// `[tokens, value_head_dim]`.
    out: &'a mut [f32],
}

impl pulp::WithSimd for Recurrence<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Some(width) = self.steps.first().map(|step| step.v.len()) else { return };
        let mut predicted = vec![0.0f32; width];
        for (step, out) in self.steps.iter().zip(self.out.chunks_exact_mut(width)) {
            let length = |x: &[f32]| 1.0 / (x.iter().map(|x| x * x).sum::<f32>() + L2_EPS).sqrt();
            let (of_k, of_q) = (length(step.k), length(step.q) / (step.k.len() as f32).sqrt());
            predicted.fill(0.0);
            for (k, row) in step.k.iter().zip(self.memory.chunks_exact_mut(width)) {
                for (memory, predicted) in row.iter_mut().zip(&mut predicted) {
                    *memory *= step.decay;
                    *predicted += k * of_k * *memory;
                }
            }
            for (predicted, v) in predicted.iter_mut().zip(step.v) {
                *predicted = (v - *predicted) * step.beta;
            }
            for ((k, q), row) in step.k.iter().zip(step.q).zip(self.memory.chunks_exact_mut(width)) {
                for ((memory, delta), out) in row.iter_mut().zip(&predicted).zip(&mut *out) {
                    *memory += k * of_k * delta;
                    *out += q * of_q * *memory;
                }
            }
        }
    }
}
