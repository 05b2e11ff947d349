//! One model's logits at one position, as they come: maximum, top five, sums.
//!
//! It knows nothing of a second model. The maximum is the first of the top five; sums are in units of
//! e^−m and rescaled when m grows.

use super::super::exp::exp_clamped;
use super::kernels::{any_above, exponentials, is_plain, side_sums};
use super::{NO_TOKEN, SideResult};

/// Logits that are looked at together, to see whether any enters the top five.
const GROUP: usize = 64;
const TOP: usize = 5;

/// One model at one position. The maximum is the first of the top five: a NaN is not part of it, and
/// needs not be, since it makes the sums NaN.
#[derive(Clone, Copy, Debug)]
pub(super) struct Side {
    /// Σ e^{z−m}.
    pub(super) exponentials: f64,
    /// Σ e^{z−m} (z−m).
    weighted: f64,
    target_logit: f32,
    pub(super) top: TopFive,
}

impl Side {
    pub(super) fn new() -> Self {
        Self { exponentials: 0.0, weighted: 0.0, target_logit: f32::NAN, top: TopFive::new() }
    }

    /// What is subtracted from each logit. Where everything so far is −∞ (or NaN) it is 0, so that −∞
    /// stays −∞ and does not become NaN.
    #[inline(always)]
    pub(super) fn shift(&self) -> f64 {
        let max = self.top.logits[0];
        if max == f32::NEG_INFINITY { 0.0 } else { f64::from(max) }
    }

    /// Notes the target and the largest of a tile and rescales the sums to the new maximum. Returns the
    /// factor by which everything else in units of e^−m is to be multiplied.
    #[inline(always)]
    pub(super) fn prepare(&mut self, first_id: u32, tile: &[f32], target: u32) -> f64 {
        if let Some(&logit) = target.checked_sub(first_id).and_then(|offset| tile.get(offset as usize)) {
            self.target_logit = logit;
        }
        let old = self.top.logits[0];
        self.top.absorb(first_id, tile);
        let new = self.top.logits[0];
        // Before the first finite logit the sums are 0 or NaN: nothing to rescale.
        if new == old || old == f32::NEG_INFINITY {
            return 1.0;
        }
        let growth = f64::from(new) - f64::from(old);
        // Never 0: a divergence that is already infinite must stay so.
        let scale = exp_clamped(-growth);
        // Both terms are negative: no cancellation.
        self.weighted = scale * (self.weighted - growth * self.exponentials);
        self.exponentials *= scale;
        scale
    }

    /// Adds a block to the sums and leaves its exponentials in `e`. Returns whether the block is plain.
    #[inline(always)]
    pub(super) fn absorb_block(&mut self, z: &[f32], e: &mut [f64]) -> bool {
        let shift = self.shift();
        let plain = is_plain(z, shift);
        let [sum, weighted] = if plain {
            exponentials::<true>(z, shift, e);
            side_sums::<true>(z, shift, e)
        } else {
            exponentials::<false>(z, shift, e);
            side_sums::<false>(z, shift, e)
        };
        self.exponentials += sum;
        self.weighted += weighted;
        plain
    }

    pub(super) fn is_distribution(&self) -> bool {
        // A maximum of +∞ has made the sum NaN.
        self.exponentials > 0.0
    }

    pub(super) fn finish(&self) -> SideResult {
        if !self.is_distribution() {
            let nan = f64::NAN;
            return SideResult {
                nll: nan,
                entropy: nan,
                max_probability: nan,
                top1: NO_TOKEN,
                target_probability: nan,
                log_sum_exp: nan,
            };
        }
        let (sum, weighted) = (self.exponentials, self.weighted);
        let below_max = self.shift() - f64::from(self.target_logit);
        SideResult {
            nll: below_max + sum.ln(),
            entropy: sum.ln() - weighted / sum,
            max_probability: 1.0 / sum,
            top1: self.top.ids[0],
            target_probability: (-below_max).exp() / sum,
            log_sum_exp: self.shift() + sum.ln(),
        }
    }
}

/// The five largest logits so far and their ids, largest first, the lowest id first among equals.
#[derive(Clone, Copy, Debug)]
pub(super) struct TopFive {
    logits: [f32; TOP],
    pub(super) ids: [u32; TOP],
}

impl TopFive {
    pub(super) fn new() -> Self {
        Self { logits: [f32::NEG_INFINITY; TOP], ids: [NO_TOKEN; TOP] }
    }

    /// Ids come in ascending order, so that a strict comparison leaves the lowest id in place.
    #[inline(always)]
    pub(super) fn absorb(&mut self, first_id: u32, tile: &[f32]) {
        let mut id = first_id;
        for group in tile.chunks(GROUP) {
            if self.ids[TOP - 1] == NO_TOKEN || any_above(self.logits[TOP - 1], group) {
                self.insert_all(id, group);
            }
            id = id.wrapping_add(group.len() as u32);
        }
    }

    /// Rare: about 5·ln(V/64) groups of a row.
    #[inline(never)]
    fn insert_all(&mut self, first_id: u32, group: &[f32]) {
        for (&logit, id) in group.iter().zip(first_id..) {
            // A place that is still empty takes a masked id too.
            let has_room = self.ids[TOP - 1] == NO_TOKEN && !logit.is_nan();
            if has_room || logit > self.logits[TOP - 1] {
                self.insert(logit, id);
            }
        }
    }

    /// Puts a logit before the first that is smaller, or into the first empty place; the last one drops out.
    fn insert(&mut self, logit: f32, id: u32) {
        let smaller = |place: &usize| logit > self.logits[*place] || self.ids[*place] == NO_TOKEN;
        let place = (0..TOP).find(smaller).unwrap_or(TOP - 1);
        for behind in (place + 1..TOP).rev() {
            self.logits[behind] = self.logits[behind - 1];
            self.ids[behind] = self.ids[behind - 1];
        }
        self.logits[place] = logit;
        self.ids[place] = id;
    }

    pub(super) fn overlap(&self, other: &TopFive) -> u8 {
        let shared = |id: &&u32| **id != NO_TOKEN && other.ids.contains(id);
        self.ids.iter().filter(shared).count() as u8
    }
}
