//! Causal attention of one sequence, or of its last part, in blocks of queries.
//!
//! A block of queries meets only the keys up to its own end, so that half of the
//! square is never computed, and scores stay small enough for the cache. On the
//! CPU the causal softmax is one fused pass; elsewhere it is the tensor library's.

use candle_core::{CpuStorage, D, InplaceOp1, Layout, Result, Tensor};
use rayon::prelude::*;

/// Queries of one block.
const QUERY_BLOCK: usize = 128;

/// What becomes of q·k before and in the softmax.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scores<'a> {
    /// Factor.
    pub(super) scale: f64,
    /// c of c·tanh(score/c).
    pub(super) softcap: Option<f32>,
    /// A query sees itself and so many positions less one before it.
    pub(super) window: Option<usize>,
    /// A logit per head that takes weight and gives nothing.
    pub(super) sinks: Option<&'a [f32]>,
}

impl Scores<'_> {
    /// The first position that a query sees.
    fn first_seen(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }
}

/// Attention over one sequence, of which the last `t` positions are asked.
///
/// `q` `[t, num_attention_heads, d]`, `k` `[n, num_key_value_heads, d]` and `v` `[n, num_key_value_heads, e]` with n ≥ t,
/// rotated; returns `[t, num_attention_heads · e]`. softmax(scale·q·kᵀ)·v, each query seeing keys up to itself.
pub(super) fn causal_attention(q: &Tensor, k: &Tensor, v: &Tensor, scores: &Scores) -> Result<Tensor> {
    let (t, heads, head_dim) = q.dims3()?;
    let (n, kv_heads, value_dim) = v.dims3()?;
    let before = n - t;
    let group = heads / kv_heads;
    let q = (q.reshape((t, kv_heads, group, head_dim))?.permute((1, 2, 0, 3))? * scores.scale)?;
    let k = k.permute((1, 2, 0))?;
    let v = v.transpose(0, 1)?.contiguous()?;
    let mut blocks = Vec::with_capacity(t.div_ceil(QUERY_BLOCK));
    for first in (0..t).step_by(QUERY_BLOCK) {
        let rows = QUERY_BLOCK.min(t - first);
        // What no query of the block sees is not multiplied at all.
        let start = scores.first_seen(before + first);
        let keys = before + first + rows - start;
        let q = q.narrow(2, first, rows)?.contiguous()?.reshape((kv_heads, group * rows, head_dim))?;
        let products = q.matmul(&k.narrow(2, start, keys)?.contiguous()?)?;
        let weights = causal_softmax(products, rows, before + first - start, scores)?;
        let mixed = weights.matmul(&v.narrow(1, start, keys)?.contiguous()?)?;
        // [kv, group·rows, e] → [rows, kv·group·e]
        let mixed = mixed.reshape((kv_heads, group, rows, value_dim))?.permute((2, 0, 1, 3))?;
        blocks.push(mixed.contiguous()?.reshape((rows, heads * value_dim))?);
    }
    if let [one] = blocks.as_slice() { Ok(one.clone()) } else { Tensor::cat(&blocks, 0) }
}

/// Keys or values of one sequence, as computed and as a quantized cache holds them.
#[derive(Clone, Copy)]
pub(super) struct Cached<'a> {
    /// `[n, num_key_value_heads, head_dim]`, as computed.
    pub(super) fresh: &'a Tensor,
    /// The same, as stored.
    pub(super) stored: &'a Tensor,
    /// For each query, how many leading positions it reads as stored; never decreases.
    pub(super) stored_before: &'a [usize],
}

impl Cached<'_> {
    /// Of each of the first `keys` positions, whether the queries `first..first + rows` read it as stored.
    fn mask(&self, first: usize, rows: usize, keys: usize, stored: bool) -> Result<Tensor> {
        let mask: Vec<f32> = self.stored_before[first..first + rows]
            .iter()
            .flat_map(|before| (0..keys).map(move |key| if (key < *before) == stored { 1.0 } else { 0.0 }))
            .collect();
        Tensor::from_vec(mask, (1, 1, rows, keys), self.fresh.device())
    }
}

/// As [`causal_attention`], where each query reads the oldest positions as stored and the recent ones as computed: what
/// a cache with a residual window of full precision gives when tokens come one at a time.
pub(super) fn with_residual_window(q: &Tensor, k: Cached, v: Cached, how: &Scores) -> Result<Tensor> {
    let (t, heads, head_dim) = q.dims3()?;
    let (n, kv_heads, _) = k.fresh.dims3()?;
    let past = n - t;
    let group = heads / kv_heads;
    let q = (q.reshape((t, kv_heads, group, head_dim))?.permute((1, 2, 0, 3))? * how.scale)?;
    let transposed = |x: &Tensor| x.permute((1, 2, 0));
    let by_head = |x: &Tensor| x.transpose(0, 1)?.contiguous();
    let (fresh_k, stored_k) = (transposed(k.fresh)?, transposed(k.stored)?);
    let (fresh_v, stored_v) = (by_head(v.fresh)?, by_head(v.stored)?);
    let mut blocks = Vec::with_capacity(t.div_ceil(QUERY_BLOCK));
    for first in (0..t).step_by(QUERY_BLOCK) {
        let rows = QUERY_BLOCK.min(t - first);
        let keys = past + first + rows;
        let q = q.narrow(2, first, rows)?.contiguous()?.reshape((kv_heads, group * rows, head_dim))?;
        let masked = |x: Tensor, cached: Cached, stored: bool| -> Result<Tensor> {
            let shape = (kv_heads, group * rows, keys);
            let mask = cached.mask(first, rows, keys, stored)?;
            x.reshape((kv_heads, group, rows, keys))?.broadcast_mul(&mask)?.reshape(shape)
        };
        let scores = |keys_of: &Tensor, stored: bool| -> Result<Tensor> {
            masked(q.matmul(&keys_of.narrow(2, 0, keys)?.contiguous()?)?, k, stored)
        };
        let scores = (scores(&fresh_k, false)? + scores(&stored_k, true)?)?;
        let weights = causal_softmax(scores, rows, past + first, how)?;
        let mixed = |values: &Tensor, stored: bool| -> Result<Tensor> {
            masked(weights.clone(), v, stored)?.matmul(&values.narrow(1, 0, keys)?.contiguous()?)
        };
        let mixed = (mixed(&fresh_v, false)? + mixed(&stored_v, true)?)?;
        let mixed = mixed.reshape((kv_heads, group, rows, head_dim))?.permute((2, 0, 1, 3))?;
        blocks.push(mixed.contiguous()?.reshape((rows, heads * head_dim))?);
    }
    Tensor::cat(&blocks, 0)
}

/// Row-wise softmax of `[b, n·rows, keys]`, where row `r` of a head sees key `first + r % rows` and those before it.
fn causal_softmax(products: Tensor, rows: usize, first: usize, scores: &Scores) -> Result<Tensor> {
    if products.device().is_cpu() {
        products.inplace_op1(&CausalSoftmax { rows, first, scores })?;
        return Ok(products);
    }
    masked_softmax(&products, rows, first, scores)
}

/// The same by the tensor library's own operations, for devices without the fused pass.
fn masked_softmax(products: &Tensor, rows: usize, first: usize, scores: &Scores) -> Result<Tensor> {
    let (batch, all_rows, keys) = products.dims3()?;
    let heads = batch * all_rows / rows;
    let sees = |row: usize, key: usize| key <= first + row && key >= scores.first_seen(first + row);
    let mask: Vec<f32> = (0..rows)
        .flat_map(|row| (0..keys).map(move |key| if sees(row, key) { 0.0 } else { f32::NEG_INFINITY }))
        .collect();
    let mask = Tensor::from_vec(mask, (1, rows, keys), products.device())?;
    let products = match scores.softcap {
        Some(cap) => ((products / f64::from(cap))?.tanh()? * f64::from(cap))?,
        None => products.clone(),
    };
    let masked = products.reshape((heads, rows, keys))?.broadcast_add(&mask)?;
    let weights = match scores.sinks {
        None => candle_nn::ops::softmax(&masked, D::Minus1)?,
        Some(sinks) => {
            let sinks = Tensor::from_slice(sinks, (heads, 1, 1), products.device())?;
            let sinks = sinks.broadcast_as((heads, rows, 1))?.contiguous()?;
            let all = candle_nn::ops::softmax(&Tensor::cat(&[masked, sinks], 2)?, D::Minus1)?;
            all.narrow(2, 0, keys)?.contiguous()?
        }
    };
    weights.reshape((batch, all_rows, keys))
}

struct CausalSoftmax<'a> {
    rows: usize,
    first: usize,
    scores: &'a Scores<'a>,
}

impl InplaceOp1 for CausalSoftmax<'_> {
    fn name(&self) -> &'static str {
        "causal-softmax"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let CpuStorage::F32(values) = storage else { candle_core::bail!("causal-softmax wants f32") };
        let Some((start, end)) = layout.contiguous_offsets() else {
            candle_core::bail!("causal-softmax wants contiguous scores")
        };
        let keys = layout.dims().last().copied().unwrap_or(1);
        values[start..end].par_chunks_mut(keys * self.rows).enumerate().for_each(|(number, head)| {
            let sink = self.scores.sinks.and_then(|sinks| sinks.get(number).copied());
            pulp::Arch::new().dispatch(SoftmaxRows {
                head,
                keys,
                first: self.first,
                sink,
                scores: self.scores,
            });
        });
        Ok(())
    }
}

/// The rows of one head. A struct and not a closure, so that its body is compiled for the detected
/// instruction set: a closure is not inlined into the dispatching function.
struct SoftmaxRows<'a> {
    head: &'a mut [f32],
    keys: usize,
    first: usize,
    sink: Option<f32>,
    scores: &'a Scores<'a>,
}

impl pulp::WithSimd for SoftmaxRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        for (row, products) in self.head.chunks_exact_mut(self.keys).enumerate() {
            let own = self.first + row;
            let (seen, later) = products.split_at_mut(own + 1);
            let (earlier, seen) = seen.split_at_mut(self.scores.first_seen(own));
            if let Some(cap) = self.scores.softcap {
                seen.iter_mut().for_each(|value| *value = cap * tanh(*value / cap));
            }
            softmax_in_place(seen, self.sink);
            earlier.fill(0.0);
            later.fill(0.0);
        }
    }
}

/// Lanes of the explicit partial results below: enough for AVX-512, a multiple for all others.
const LANES: usize = 16;

#[inline(always)]
fn softmax_in_place(row: &mut [f32], sink: Option<f32>) {
    let mut maxima = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            maxima[lane] = if chunk[lane] > maxima[lane] { chunk[lane] } else { maxima[lane] };
        }
    }
    let lowest = sink.unwrap_or(f32::NEG_INFINITY);
    let max = maxima.iter().chain(rest).fold(lowest, |a, b| if *b > a { *b } else { a });
    let mut sums = [0f32; LANES];
    let (chunks, rest) = row.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            chunk[lane] = exp(chunk[lane] - max);
            sums[lane] += chunk[lane];
        }
    }
    let mut sum: f32 = sums.iter().sum::<f32>() + sink.map_or(0.0, |sink| exp(sink - max));
    for value in rest {
        *value = exp(*value - max);
        sum += *value;
    }
    let scale = 1.0 / sum;
    for value in row {
        *value *= scale;
    }
}

/// eˣ for x ≤ 0 without a branch, so that it vectorizes; relative error below 2e-7 (tested).
///
/// x = n·ln 2 + r with |r| ≤ ln 2 / 2 (ln 2 in two parts, Cody and Waite 1980), e^r by its Taylor
/// polynomial of degree 7 around 0, 2ⁿ by the exponent's bits. Below −87 the result is 0. NaN stays NaN.
#[inline(always)]
fn exp(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Adding and subtracting 1.5·2²³ rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    let clamped = if x < -87.0 { -87.0 } else { x };
    let rounded = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = (clamped - n * LN2_HIGH) - n * LN2_LOW;
    let p = 1.0 / 5040.0;
    let p = p * r + 1.0 / 720.0;
    let p = p * r + 1.0 / 120.0;
    let p = p * r + 1.0 / 24.0;
    let p = p * r + 1.0 / 6.0;
    let p = p * r + 0.5;
    let p = p * r + 1.0;
    let p = p * r + 1.0;
    // The low bits of `rounded` are n itself; integer arithmetic on them, unlike a cast, vectorizes.
    let exponent = rounded.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127);
    let power = f32::from_bits(exponent << 23);
    if x < -87.0 { 0.0 } else { p * power }
}

/// tanh by [`exp`], without a branch: (1 − t)/(1 + t) with t = e^(−2|x|). NaN stays NaN.
#[inline(always)]
fn tanh(x: f32) -> f32 {
    let t = exp(-2.0 * x.abs());
    ((1.0 - t) / (1.0 + t)).copysign(x)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn exp_is_accurate_over_its_whole_range() {
        let mut worst = 0f64;
        for step in 0..870_000 {
            let x = -(step as f32) * 1e-4;
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) - exact).abs() / exact);
        }
        assert!(worst < 2e-7, "{worst}");
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-100.0), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert!(exp(f32::NAN).is_nan());
    }

    /// Attention as the textbook writes it, in f64.
    fn naive(q: &[f32], k: &[f32], v: &[f32], t: usize, heads: usize, kv_heads: usize, d: usize) -> Vec<f64> {
        let mut out = vec![0.0; t * heads * d];
        for (query, head) in (0..t).flat_map(|i| (0..heads).map(move |h| (i, h))) {
            let kv = head / (heads / kv_heads);
            let dot = |key: usize| -> f64 {
                let products = (0..d).map(|c| {
                    f64::from(q[(query * heads + head) * d + c]) * f64::from(k[(key * kv_heads + kv) * d + c])
                });
                products.sum::<f64>() / (d as f64).sqrt()
            };
            let weights: Vec<f64> = (0..=query).map(|key| dot(key).exp()).collect();
            let total: f64 = weights.iter().sum();
            for c in 0..d {
                let mixed: f64 =
                    (0..=query).map(|key| weights[key] * f64::from(v[(key * kv_heads + kv) * d + c])).sum();
                out[(query * heads + head) * d + c] = mixed / total;
            }
        }
        out
    }

    /// Everything seen, scaled as usual.
    fn usual(head_dim: usize) -> Scores<'static> {
        Scores { scale: 1.0 / (head_dim as f64).sqrt(), softcap: None, window: None, sinks: None }
    }

    #[test]
    fn tanh_is_accurate() {
        for step in -20_000..20_000 {
            let x = step as f32 * 1e-3;
            assert!((f64::from(tanh(x)) - f64::from(x).tanh()).abs() < 3e-7, "{x}");
        }
        assert!(tanh(f32::NAN).is_nan());
    }

    #[test]
    fn the_fused_softmax_equals_the_tensor_library() -> Result<()> {
        let (rows, first, keys) = (37, 64, 101);
        let sinks = [0.5, -3.0, 9.0, 0.0, 1.0, 2.0];
        let products = Tensor::randn(0f32, 5.0, (3, 2 * rows, keys), &Device::Cpu)?;
        for (softcap, window, sinks) in [
            (None, None, None),
            (Some(3.0), None, None),
            (None, Some(7), None),
            (None, None, Some(&sinks[..])),
            (Some(2.0), Some(70), Some(&sinks[..])),
        ] {
            let scores = Scores { softcap, window, sinks, ..usual(1) };
            let library = masked_softmax(&products, rows, first, &scores)?.flatten_all()?.to_vec1::<f32>()?;
            let fused =
                causal_softmax(products.copy()?, rows, first, &scores)?.flatten_all()?.to_vec1::<f32>()?;
            let worst = library.iter().zip(&fused).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-6, "{worst}");
        }
        Ok(())
    }

    /// A window over blocks: what is cut off is what a mask hides.
    #[test]
    fn a_window_over_many_blocks_equals_its_mask() -> Result<()> {
        let (t, heads, d) = (3 * QUERY_BLOCK + 5, 2, 4);
        let random = || Tensor::randn(0f32, 1.0, (t, heads, d), &Device::Cpu);
        let (q, k, v) = (random()?, random()?, random()?);
        let window = Some(QUERY_BLOCK + 9);
        let ours = causal_attention(&q, &k, &v, &Scores { window, ..usual(d) })?;
        let products =
            (q.transpose(0, 1)?.contiguous()?.matmul(&k.permute((1, 2, 0))?.contiguous()?)? * 0.5)?;
        let weights = masked_softmax(&products, t, 0, &Scores { window, ..usual(d) })?;
        let expected =
            weights.matmul(&v.transpose(0, 1)?.contiguous()?)?.transpose(0, 1)?.reshape((t, heads * d))?;
        let worst = (ours - expected)?.abs()?.max_all()?.to_scalar::<f32>()?;
        assert!(worst < 1e-6, "{worst}");
        Ok(())
    }

    #[test]
    fn blocks_equal_the_textbook() -> Result<()> {
        // Longer than two blocks, grouped heads, sizes that do not divide the lanes.
        let (t, heads, kv_heads, d) = (2 * QUERY_BLOCK + 37, 6, 2, 10);
        let random = |n: usize, seed: u64| -> Vec<f32> {
            let mut state = seed;
            let next = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                ((state >> 40) as f32 / (1u64 << 23) as f32) - 1.0
            };
            std::iter::repeat_with(next).take(n).collect()
        };
        let (q, k, v) = (random(t * heads * d, 1), random(t * kv_heads * d, 2), random(t * kv_heads * d, 3));
        let tensor = |x: &[f32], h: usize| Tensor::from_slice(x, (t, h, d), &Device::Cpu);
        let (k_tensor, v_tensor) = (tensor(&k, kv_heads)?, tensor(&v, kv_heads)?);
        let ours = causal_attention(&tensor(&q, heads)?, &k_tensor, &v_tensor, &usual(d))?;
        let ours = ours.flatten_all()?.to_vec1::<f32>()?;
        let expected = naive(&q, &k, &v, t, heads, kv_heads, d);
        let worst = ours.iter().zip(&expected).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
        assert!(worst < 1e-6, "{worst}");
        Ok(())
    }

    /// Token by token, each query reading the cache as it is at that moment; in f64.
    #[test]
    fn a_residual_window_equals_reading_token_by_token() -> Result<()> {
        let (t, heads, kv_heads, d) = (2 * QUERY_BLOCK + 37, 4, 2, 8);
        let random = |heads: usize| Tensor::randn(0f32, 1.0, (t, heads, d), &Device::Cpu);
        let (q, k, v) = (random(heads)?, random(kv_heads)?, random(kv_heads)?);
        let (stored_k, stored_v) = ((&k + random(kv_heads)?)?, (&v + random(kv_heads)?)?);
        // Keys are flushed 50 at a time, values one by one behind a window of 20.
        let before_k: Vec<usize> = (0..t).map(|query| query / 50 * 50).collect();
        let before_v: Vec<usize> = (0..t).map(|query| query.saturating_sub(20)).collect();
        let ours = with_residual_window(
            &q,
            Cached { fresh: &k, stored: &stored_k, stored_before: &before_k },
            Cached { fresh: &v, stored: &stored_v, stored_before: &before_v },
            &usual(d),
        )?;
        let ours = ours.flatten_all()?.to_vec1::<f32>()?;
        let values = |x: &Tensor| x.flatten_all().and_then(|x| x.to_vec1::<f32>());
        let (q, k, v) = (values(&q)?, values(&k)?, values(&v)?);
        let (stored_k, stored_v) = (values(&stored_k)?, values(&stored_v)?);
        let mut worst = 0f64;
        for query in 0..t {
            let row = kv_heads * d;
            let read = |fresh: &[f32], stored: &[f32], before: usize| -> Vec<f32> {
                [&stored[..before * row], &fresh[before * row..(query + 1) * row]].concat()
            };
            let keys = read(&k, &stored_k, before_k[query]);
            let values = read(&v, &stored_v, before_v[query]);
            let padded =
                [vec![0.0; query * heads * d], q[query * heads * d..][..heads * d].to_vec()].concat();
            let expected = naive(&padded, &keys, &values, query + 1, heads, kv_heads, d);
            for (ours, expected) in
                ours[query * heads * d..][..heads * d].iter().zip(&expected[query * heads * d..])
            {
                worst = worst.max((f64::from(*ours) - expected).abs());
            }
        }
        assert!(worst < 2e-6, "{worst}");
        Ok(())
    }
}
