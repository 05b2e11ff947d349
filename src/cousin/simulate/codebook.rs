//! bitsandbytes' 4-bit codebooks and its 8-bit codebook for scales.
//!
//! Values of a block, divided by its largest magnitude, go to the nearest entry; ties to the lower one.

use super::{
    quantizer::Book,
    rounding::{Rounding, amax},
};

/// Values that share a scale, counted through the flattened matrix.
pub(super) const BLOCK: usize = 64;

/// Scales that share a scale, in double quantization.
const NESTED_BLOCK: usize = 256;

/// Quantiles of a normal distribution (QLoRA, arXiv 2305.14314, appendix E).
const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// 0, 0.0625, 2, 3, 4, 6, 8, 12 of either sign over 12; one zero repeated.
const FP4: [f32; 16] = [
    -1.0,
    -8.0 / 12.0,
    -6.0 / 12.0,
    -4.0 / 12.0,
    -3.0 / 12.0,
    -2.0 / 12.0,
    -0.0625 / 12.0,
    0.0,
    0.0,
    0.0625 / 12.0,
    2.0 / 12.0,
    3.0 / 12.0,
    4.0 / 12.0,
    6.0 / 12.0,
    8.0 / 12.0,
    1.0,
];

/// Rounds a block to a codebook.
#[derive(Clone, Copy)]
pub(super) struct Codebook {
    entries: [f32; 16],
    /// Half way between neighbours.
    bounds: [f32; 15],
}

impl Codebook {
    pub(super) fn new(book: Book) -> Self {
        let entries = match book {
            Book::Nf4 => NF4,
            Book::Fp4 => FP4,
        };
        let bounds = std::array::from_fn(|i| (entries[i] + entries[i + 1]) / 2.0);
        Self { entries, bounds }
    }

    /// Rounds a block whose scale was found before and is decoded as `restored`.
    #[inline(always)]
    fn round_scaled(&self, block: &mut [f32], amax: f32, restored: f32) {
        let inverse = inverse(amax);
        for x in block {
            let scaled = *x * inverse;
            // A chain of selections vectorizes where a search would not.
            let mut entry = self.entries[0];
            for (bound, next) in self.bounds.iter().zip(&self.entries[1..]) {
                entry = if scaled > *bound { *next } else { entry };
            }
            *x = entry * restored;
        }
    }
}

impl Rounding for Codebook {
    #[inline(always)]
    fn round(&self, block: &mut [f32]) {
        let amax = amax(block);
        self.round_scaled(block, amax, amax);
    }
}

/// Rounds blocks whose scales are stored rounded: `restored`, one for each.
pub(super) fn round_restored(codebook: Codebook, restored: &[f32], values: &mut [f32]) {
    struct RoundRestored<'a> {
        codebook: Codebook,
        restored: &'a [f32],
        values: &'a mut [f32],
    }

    impl pulp::WithSimd for RoundRestored<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, _: S) {
            let (blocks, rest) = self.values.as_chunks_mut::<BLOCK>();
            for (block, restored) in blocks.iter_mut().zip(self.restored) {
                let amax = amax(block);
                self.codebook.round_scaled(block, amax, *restored);
            }
            if let Some(restored) = self.restored.get(blocks.len()) {
                let amax = amax(rest);
                self.codebook.round_scaled(rest, amax, *restored);
            }
        }
    }

    pulp::Arch::new().dispatch(RoundRestored { codebook, restored, values });
}

/// bitsandbytes multiplies by it; a block of zeros keeps a finite one.
#[inline(always)]
fn inverse(amax: f32) -> f32 {
    1.0 / amax.max(1e-38)
}

/// Scales as double quantization restores them: less their mean, to the nearest of [`dynamic_map`] by 256, and back.
///
/// Exactly the nearest, as on a GPU; bitsandbytes on a CPU looks it up in a table and is off by one for one in 500.
pub(super) fn restored_scales(scales: &[f32]) -> Vec<f32> {
    let sum: f64 = scales.iter().map(|scale| f64::from(*scale)).sum();
    let mean = (sum / scales.len().max(1) as f64) as f32;
    let map = dynamic_map();
    let bounds: Vec<f32> = map.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0).collect();
    let mut restored: Vec<f32> = scales.iter().map(|scale| scale - mean).collect();
    for block in restored.chunks_mut(NESTED_BLOCK) {
        let amax = block.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        let inverse = inverse(amax);
        for x in block {
            let code = bounds.partition_point(|bound| *bound < *x * inverse);
            *x = map[code] * amax + mean;
        }
    }
    restored
}

/// The signed dynamic data type of 8 bits (8-bit optimizers, arXiv 2110.02861), in order: for each of seven decades,
/// 1 to 64 even steps between a tenth and the whole of it, of either sign; 0 and 1.
pub(super) fn dynamic_map() -> Vec<f32> {
    let mut map = vec![0.0, 1.0];
    for decade in 0..7u32 {
        let steps = 1u32 << decade;
        // As torch.linspace has it: from both ends to the middle, in f32.
        let step = (1.0f32 - 0.1) / steps as f32;
        let boundary = |i: u32| match i < steps.div_ceil(2) {
            true => 0.1 + step * i as f32,
            false => 1.0 - step * (steps - i) as f32,
        };
        let unit = 10f64.powi(decade.cast_signed() - 6) as f32;
        for i in 0..steps {
            let value = unit * ((boundary(i) + boundary(i + 1)) / 2.0);
            map.extend([value, -value]);
        }
    }
    map.sort_by(f32::total_cmp);
    map
}
