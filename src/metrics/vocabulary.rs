//! The fused vocabulary reduction: from logits in tiles to every per-token metric, never holding a row.
//!
//! One position at a time: base's logits z_p and each quant's z_q arrive in tiles of the vocabulary. Each
//! side keeps its running maximum m and sums of e^{z−m} (as in flash attention, arXiv 2205.14135, and
//! online softmax, arXiv 1805.02867); when m grows, the sums are rescaled. With S = Σe^{z−m}:
//! lse = m + ln S, nll = lse − z_target, entropy = ln S − Σe^{z−m}(z−m)/S, and
//! KL = Σe^{z_p−m_p}(z_p − z_q)/S_p − lse_p + lse_q, the reverse likewise, with base's exponentials computed
//! once for all quants. Soft-capping and logit scaling are the caller's, before.

mod kernels;
mod side;

use kernels::pair_sums;
use side::Side;

/// What [`SideResult::top1`] is where there is no argmax: some logit is NaN or +∞, or all are −∞.
pub const NO_TOKEN: u32 = u32::MAX;

/// Entries whose exponentials are held at a time (8 KiB of f64, a quarter of the smallest L1).
const BLOCK: usize = 1024;

/// What one model predicts at one position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SideResult {
    /// −ln p(target), nats. +∞ if the target is masked (logit −∞), NaN if its id never came.
    pub nll: f64,
    /// −Σ p ln p, nats.
    pub entropy: f64,
    /// max p.
    pub max_probability: f64,
    /// The id of the largest logit, the lowest id among equals; [`NO_TOKEN`] where the others are NaN.
    pub top1: u32,
    /// p(target).
    pub target_probability: f64,
    /// ln Σ e^z, nats: with [`excluded_mass`] it tells how much a cut vocabulary leaves out.
    pub log_sum_exp: f64,
}

/// What one quant predicts at one position, and how far that is from base.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairResult {
    /// The quant by itself.
    pub side: SideResult,
    /// KL(p‖q) = Σ p ln(p/q), nats; exactly 0 for equal logits, +∞ where q rules out what p does not.
    /// Never clamped: rounding may leave it a little below zero.
    pub kl_divergence: f64,
    /// KL(q‖p), nats.
    pub reverse_kl: f64,
    /// Whether both sides' argmax is the same id; false where either side has none.
    pub top1_agrees: bool,
    /// Size of the intersection of both sides' five largest logits, 0..=5 (not yet divided by 5).
    /// A vocabulary of V < 5 has at most V; 0 where either side has a NaN or +∞.
    pub top5_overlap: u8,
    /// q(target) − p(target).
    pub delta_p: f64,
}

/// Everything that is measured at one position.
#[derive(Clone, Debug, PartialEq)]
pub struct PositionResult {
    /// The reference.
    pub base: SideResult,
    /// The quants, in the order in which their logits were given.
    pub quants: Vec<PairResult>,
}

/// Buffers of one thread, reused from tile to tile: the exponentials of one block of base and of a quant.
#[derive(Clone, Debug)]
pub struct Scratch {
    base: Box<[f64]>,
    quant: Box<[f64]>,
}

impl Scratch {
    /// 16 KiB of working space.
    pub fn new() -> Self {
        let block = || vec![0.0; BLOCK].into_boxed_slice();
        Self { base: block(), quant: block() }
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

/// The running state of one position: base and N quants, over the tiles absorbed so far.
///
/// 88 + N · 80 bytes on a 64-bit machine (and the allocator's overhead for one box), so that thousands
/// are kept while the vocabulary is walked once. `Send`: rayon may run over positions, with one
/// [`Scratch`] per thread. The result depends on how the vocabulary is tiled only by f64 rounding.
#[derive(Clone, Debug)]
pub struct PositionReduction {
    target: u32,
    base: Side,
    quants: Box<[Pair]>,
}

impl PositionReduction {
    /// Bytes that one position holds, its quants' state included.
    pub const fn bytes(quants: usize) -> usize {
        size_of::<Self>() + quants * size_of::<Pair>()
    }

    /// An empty reduction for a position whose next token is `target`, over `quants` cousins of base.
    pub fn new(target: u32, quants: usize) -> Self {
        Self { target, base: Side::new(), quants: vec![Pair::new(); quants].into_boxed_slice() }
    }

    /// Takes in the logits of the ids `first_id..first_id + base.len()`, of base and of every quant.
    ///
    /// Each id comes once. Tiles come in ascending order of ids (which is how ties go to the lowest id)
    /// and may be of any length. A masked id is −∞.
    ///
    /// # Panics
    /// If the number of quants is not that of [`PositionReduction::new`], or the tiles differ in length.
    pub fn absorb(&mut self, first_id: u32, base: &[f32], quants: &[&[f32]], scratch: &mut Scratch) {
        assert_eq!(quants.len(), self.quants.len(), "one tile for each quant");
        assert!(quants.iter().all(|q| q.len() == base.len()), "tiles of one length");
        pulp::Arch::new().dispatch(AbsorbTile { position: self, first_id, base, quants, scratch });
    }

    #[inline(always)]
    fn absorb_tile(&mut self, first_id: u32, base: &[f32], quants: &[&[f32]], scratch: &mut Scratch) {
        let base_scale = self.base.prepare(first_id, base, self.target);
        for (pair, tile) in self.quants.iter_mut().zip(quants) {
            pair.base_times_difference *= base_scale;
            pair.quant_times_difference *= pair.side.prepare(first_id, tile, self.target);
        }
        let mut start = 0;
        for z_p in base.chunks(BLOCK) {
            let e_p = &mut scratch.base[..z_p.len()];
            let e_q = &mut scratch.quant[..z_p.len()];
            let plain_p = self.base.absorb_block(z_p, e_p);
            for (pair, tile) in self.quants.iter_mut().zip(quants) {
                let z_q = &tile[start..start + z_p.len()];
                let plain_q = pair.side.absorb_block(z_q, e_q);
                let [by_base, by_quant] = if plain_p && plain_q {
                    pair_sums::<true>(z_p, e_p, z_q, e_q)
                } else {
                    pair_sums::<false>(z_p, e_p, z_q, e_q)
                };
                pair.base_times_difference += by_base;
                pair.quant_times_difference += by_quant;
            }
            start += z_p.len();
        }
    }

    /// The metrics of this position over everything absorbed.
    ///
    /// A side on which some logit is NaN or +∞, or all are −∞, is NaN in every number, and so is every
    /// comparison with it: count those positions, they are not measurements.
    pub fn finish(&self) -> PositionResult {
        let base = self.base.finish();
        let quants = self.quants.iter().map(|pair| pair.finish(&self.base, &base)).collect();
        PositionResult { base, quants }
    }
}

/// The arguments of [`PositionReduction::absorb`]. A type and not a closure: the compiler does not inline
/// a closure's `call_once` here, and what is not inlined is not compiled for the wider registers.
struct AbsorbTile<'a> {
    position: &'a mut PositionReduction,
    first_id: u32,
    base: &'a [f32],
    quants: &'a [&'a [f32]],
    scratch: &'a mut Scratch,
}

impl pulp::WithSimd for AbsorbTile<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        self.position.absorb_tile(self.first_id, self.base, self.quants, self.scratch);
    }
}

/// ln Σ e^z over logits that come in pieces, in f64: for what lies outside the common vocabulary.
#[derive(Clone, Copy, Debug)]
pub struct LogSumExp {
    max: f32,
    sum: f64,
}

impl LogSumExp {
    /// Nothing yet: the value is −∞.
    pub fn new() -> Self {
        Self { max: f32::NEG_INFINITY, sum: 0.0 }
    }

    /// Takes in some logits. A NaN or +∞ among them makes the value NaN; −∞ adds nothing.
    pub fn absorb(&mut self, logits: &[f32]) {
        let max = logits.iter().fold(self.max, |m, &z| if z > m { z } else { m });
        if self.sum != 0.0 {
            self.sum *= (f64::from(self.max) - f64::from(max)).exp();
        }
        self.max = max;
        let shift = if max == f32::NEG_INFINITY { 0.0 } else { f64::from(max) };
        self.sum += logits.iter().map(|&z| (f64::from(z) - shift).exp()).sum::<f64>();
    }

    /// ln Σ e^z, nats.
    pub fn value(&self) -> f64 {
        // With no mass at all the maximum is −∞, and so is the logarithm of 0.
        f64::from(self.max) + self.sum.ln()
    }
}

impl Default for LogSumExp {
    fn default() -> Self {
        Self::new()
    }
}

/// The share of a model's probability that lies on excluded ids: e^x / (e^c + e^x), with c the
/// log-sum-exp of the common ids ([`SideResult::log_sum_exp`]) and x that of the excluded ones
/// ([`LogSumExp::value`]).
pub fn excluded_mass(common: f64, excluded: f64) -> f64 {
    1.0 / (1.0 + (common - excluded).exp())
}

/// One quant at one position, with what ties it to base.
#[derive(Clone, Copy, Debug)]
struct Pair {
    side: Side,
    /// Σ e^{z_p−m_p} (z_p − z_q).
    base_times_difference: f64,
    /// Σ e^{z_q−m_q} (z_p − z_q).
    quant_times_difference: f64,
}

impl Pair {
    fn new() -> Self {
        Self { side: Side::new(), base_times_difference: 0.0, quant_times_difference: 0.0 }
    }

    fn finish(&self, base: &Side, base_result: &SideResult) -> PairResult {
        let quant = &self.side;
        let side = quant.finish();
        let comparable = base.is_distribution() && quant.is_distribution();
        let (p, q) = (base.exponentials, quant.exponentials);
        // lse_q − lse_p, maxima and logarithms apart: both differences are exactly 0 for equal logits.
        let normalizer = (quant.shift() - base.shift()) + (q.ln() - p.ln());
        let or_nan = |value: f64| if comparable { value } else { f64::NAN };
        PairResult {
            side,
            kl_divergence: or_nan(self.base_times_difference / p + normalizer),
            reverse_kl: or_nan(0.0 - normalizer - self.quant_times_difference / q),
            top1_agrees: comparable && base.top.ids[0] == quant.top.ids[0],
            top5_overlap: if comparable { base.top.overlap(&quant.top) } else { 0 },
            delta_p: side.target_probability - base_result.target_probability,
        }
    }
}

#[cfg(test)]
mod tests;
