//! KIVI (arXiv 2402.02750): asymmetric integers, keys grouped along tokens, values along channels.
//!
//! As its own code does it (`quant/new_pack.py`, `models/llama_kivi.py`): s = (max − min)/(2^b − 1), q =
//! round(clamp((x − min)/s, 0, 2^b − 1)), ties to even, x̂ = q·s + min, with s and min stored in f16. Its
//! tensors are f16 throughout; here only what is stored is, and arithmetic is f32.
//!
//! The newest tokens stay as computed. Keys are stored 128 at a time, when 128 have gathered; values one by
//! one, when they are older than the last 128. Both after attention of the token that made it so.

use rayon::prelude::*;

use super::{Part, clamp, each_block, round_f16, round_half_even};

/// Numbers that share a scale and a minimum (`group_size`).
const GROUP: usize = 32;

/// Tokens kept as computed (`residual_length`); a multiple of [`GROUP`].
const RESIDUAL: usize = 128;

/// Bits of a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KiviBits {
    /// 4 levels.
    Two,
    /// 16 levels.
    Four,
}

impl KiviBits {
    /// Code, and its share of an f16 scale and minimum.
    pub(super) fn bits_per_value(self) -> f64 {
        let code = match self {
            KiviBits::Two => 2.0,
            KiviBits::Four => 4.0,
        };
        code + 32.0 / GROUP as f64
    }

    fn largest_code(self) -> f32 {
        match self {
            KiviBits::Two => 3.0,
            KiviBits::Four => 15.0,
        }
    }
}

/// Why heads of this size cannot be stored.
pub(super) fn problem(head_dim: usize) -> Option<String> {
    (!head_dim.is_multiple_of(GROUP)).then(|| {
        format!("groups {GROUP} channels of a head, but head_dim is {head_dim} (a multiple is expected)")
    })
}

/// The query sees the cache as the token before it left it.
pub(super) fn stored_before(part: Part, query: usize) -> usize {
    match part {
        Part::Keys => query / RESIDUAL * RESIDUAL,
        Part::Values => query.saturating_sub(RESIDUAL),
    }
}

/// Values of one token, 32 neighbouring channels a group.
pub(super) fn store_values(values: &mut [f32], bits: KiviBits) {
    let largest_code = bits.largest_code();
    each_block(values, |group: &mut [f32; GROUP]| {
        let (mut min, mut max) = (group[0], group[0]);
        for x in &*group {
            min = if *x < min { *x } else { min };
            max = if *x > max { *x } else { max };
        }
        let (scale, min) = parameters(min, max, largest_code);
        for x in group {
            *x = round_trip(*x, scale, min, largest_code);
        }
    });
}

/// Keys `[tokens, width]`, 32 neighbouring tokens of one channel a group; tokens that have not gathered to
/// 128 are left as they are.
pub(super) fn store_keys(keys: &mut [f32], width: usize, bits: KiviBits) {
    struct Group<'a> {
        rows: &'a mut [f32],
        width: usize,
        largest_code: f32,
    }

    impl pulp::WithSimd for Group<'_> {
        type Output = ();

        /// Channels side by side in the lanes.
        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, _: S) {
            for first in (0..self.width).step_by(GROUP) {
                let mut min = [f32::MAX; GROUP];
                let mut max = [f32::MIN; GROUP];
                for row in self.rows.chunks_exact(self.width) {
                    let Some(row) = row[first..].first_chunk::<GROUP>() else { continue };
                    for lane in 0..GROUP {
                        min[lane] = if row[lane] < min[lane] { row[lane] } else { min[lane] };
                        max[lane] = if row[lane] > max[lane] { row[lane] } else { max[lane] };
                    }
                }
                let mut scale = [0.0; GROUP];
                for lane in 0..GROUP {
                    (scale[lane], min[lane]) = parameters(min[lane], max[lane], self.largest_code);
                }
                for row in self.rows.chunks_exact_mut(self.width) {
                    let Some(row) = row[first..].first_chunk_mut::<GROUP>() else { continue };
                    for lane in 0..GROUP {
                        row[lane] = round_trip(row[lane], scale[lane], min[lane], self.largest_code);
                    }
                }
            }
        }
    }

    let tokens = keys.len() / width;
    let gathered = tokens / RESIDUAL * RESIDUAL;
    let largest_code = bits.largest_code();
    keys[..gathered * width]
        .par_chunks_mut(GROUP * width)
        .for_each(|rows| pulp::Arch::new().dispatch(Group { rows, width, largest_code }));
}

/// Scale and minimum as stored.
#[inline(always)]
fn parameters(min: f32, max: f32, largest_code: f32) -> (f32, f32) {
    (round_f16((max - min) / largest_code), round_f16(min))
}

/// A group without spread has scale 0, and every code means its minimum.
#[inline(always)]
fn round_trip(x: f32, scale: f32, min: f32, largest_code: f32) -> f32 {
    let divisor = if scale == 0.0 { 1.0 } else { scale };
    round_half_even(clamp((x - min) / divisor, 0.0, largest_code)) * scale + min
}
