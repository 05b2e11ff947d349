//! The loops over one block of logits, written so that the compiler vectorizes them.
//!
//! All are inlined into the one function that is compiled for the machine's registers. Each sum runs over
//! eight fixed lanes, so that neither the register width nor the variant chosen changes a bit of it.
//! They know nothing of positions, targets or results.

use super::super::exp::{LOWEST, exp_clamped, exp_nonpositive};
use super::super::{LANES, lane_sum};

/// Whether any of the logits is larger than `bound`; a NaN is not. Without an early exit, hence vectorized.
#[inline(always)]
pub(super) fn any_above(bound: f32, logits: &[f32]) -> bool {
    logits.iter().fold(false, |any, &z| any | (z > bound))
}

/// Whether no logit of a block is masked, NaN, or so small that its exponential must be clamped: then the
/// kernels without those checks serve, and give the same bits.
#[inline(always)]
pub(super) fn is_plain(block: &[f32], shift: f64) -> bool {
    // Within these bounds f32 holds the limit to better than the margin of 1.
    let limit = (shift + LOWEST + 1.0) as f32;
    shift.abs() < 1e6 && block.iter().fold(true, |all, &z| all & (z > limit))
}

/// e^{z−m} of a block; a masked entry has exactly no mass, and everything else has some.
#[inline(always)]
pub(super) fn exponentials<const PLAIN: bool>(block: &[f32], shift: f64, out: &mut [f64]) {
    for (e, &z) in out.iter_mut().zip(block) {
        let z = f64::from(z);
        *e = match PLAIN {
            true => exp_nonpositive(z - shift),
            false if z == f64::NEG_INFINITY => 0.0,
            false => exp_clamped(z - shift),
        };
    }
}

/// Σ e and Σ e·(z − m) over one block.
#[inline(always)]
pub(super) fn side_sums<const PLAIN: bool>(z: &[f32], shift: f64, e: &[f64]) -> [f64; 2] {
    let mut sums = [[0.0; LANES]; 2];
    let step = |[plain, weighted]: &mut [[f64; LANES]; 2], lane: usize, z: f32, e: f64| {
        let z = f64::from(z);
        plain[lane] += e;
        weighted[lane] = e.mul_add(unless_masked::<PLAIN>(z, z - shift), weighted[lane]);
    };
    let (z_chunks, z_rest) = z.as_chunks::<LANES>();
    let (e_chunks, e_rest) = e.as_chunks::<LANES>();
    for (z, e) in z_chunks.iter().zip(e_chunks) {
        for lane in 0..LANES {
            step(&mut sums, lane, z[lane], e[lane]);
        }
    }
    for (lane, (&z, &e)) in z_rest.iter().zip(e_rest).enumerate() {
        step(&mut sums, lane, z, e);
    }
    sums.map(lane_sum)
}

/// Σ e_p (z_p − z_q) and Σ e_q (z_p − z_q) over one block.
#[inline(always)]
pub(super) fn pair_sums<const PLAIN: bool>(z_p: &[f32], e_p: &[f64], z_q: &[f32], e_q: &[f64]) -> [f64; 2] {
    let mut sums = [[0.0; LANES]; 2];
    let step = |[by_p, by_q]: &mut [[f64; LANES]; 2], lane: usize, z_p: f32, e_p: f64, z_q: f32, e_q: f64| {
        let (z_p, z_q) = (f64::from(z_p), f64::from(z_q));
        let difference = z_p - z_q;
        by_p[lane] = e_p.mul_add(unless_masked::<PLAIN>(z_p, difference), by_p[lane]);
        by_q[lane] = e_q.mul_add(unless_masked::<PLAIN>(z_q, difference), by_q[lane]);
    };
    let (zp_chunks, zp_rest) = z_p.as_chunks::<LANES>();
    let (ep_chunks, ep_rest) = e_p.as_chunks::<LANES>();
    let (zq_chunks, zq_rest) = z_q.as_chunks::<LANES>();
    let (eq_chunks, eq_rest) = e_q.as_chunks::<LANES>();
    for (((z_p, e_p), z_q), e_q) in zp_chunks.iter().zip(ep_chunks).zip(zq_chunks).zip(eq_chunks) {
        for lane in 0..LANES {
            step(&mut sums, lane, z_p[lane], e_p[lane], z_q[lane], e_q[lane]);
        }
    }
    let rest = zp_rest.iter().zip(ep_rest).zip(zq_rest).zip(eq_rest);
    for (lane, (((&z_p, &e_p), &z_q), &e_q)) in rest.enumerate() {
        step(&mut sums, lane, z_p, e_p, z_q, e_q);
    }
    sums.map(lane_sum)
}

/// `value`, or 0 where z is masked: 0 · ln 0 = 0, what has no mass contributes nothing, even against an
/// infinite difference.
#[inline(always)]
fn unless_masked<const PLAIN: bool>(z: f64, value: f64) -> f64 {
    if !PLAIN && z == f64::NEG_INFINITY { 0.0 } else { value }
}
