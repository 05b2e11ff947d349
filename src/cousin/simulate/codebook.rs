//! bitsandbytes' 4-bit codebooks and its 8-bit codebook for scales.
//!
//! Values of a block, divided by its largest magnitude, go to the nearest entry; ties to the lower one.

use super::{
    quantizer::Book,
    rounding::{Rounding, amax},
};

/// Values that share a scale, counted through the flattened matrix.
pub(crate) const BLOCK: usize = 64;

/// Scales that share a scale, in double quantization.
pub(crate) const NESTED_BLOCK: usize = 256;

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

/// The code in a file of each entry of [`FP4`]: sign, then the order of bitsandbytes' `fp4_type`.
const FP4_CODES: [u8; 16] = [11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3];

/// The code in a file of each entry of a codebook.
fn codes(book: Book) -> [u8; 16] {
    match book {
        Book::Nf4 => std::array::from_fn(|entry| entry as u8),
        Book::Fp4 => FP4_CODES,
    }
}

/// What each code of a file stands for.
pub(crate) fn quant_map(book: Book) -> [f32; 16] {
    let (entries, mut map) = (Codebook::new(book).entries, [0.0; 16]);
    for (code, entry) in codes(book).into_iter().zip(entries) {
        map[usize::from(code)] = entry;
    }
    map
}

/// The codes of whole blocks (the last may be shorter) and the largest magnitude of each.
pub(super) fn encode_blocks(book: Book, values: &[f32], codes: &mut [u8], scales: &mut [f32]) {
    struct Encode<'a> {
        book: Book,
        values: &'a [f32],
        codes: &'a mut [u8],
        scales: &'a mut [f32],
    }

    impl pulp::WithSimd for Encode<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, _: S) {
            let (codebook, stored) = (Codebook::new(self.book), self::codes(self.book));
            let blocks = self.values.chunks(BLOCK).zip(self.codes.chunks_mut(BLOCK)).zip(self.scales);
            for ((values, codes), scale) in blocks {
                *scale = amax(values);
                let inverse = inverse(*scale);
                for (x, code) in values.iter().zip(codes) {
                    let scaled = *x * inverse;
                    let entry: u8 = codebook.bounds.iter().map(|bound| u8::from(scaled > *bound)).sum();
                    *code = stored[usize::from(entry & 15)];
                }
            }
        }
    }

    pulp::Arch::new().dispatch(Encode { book, values, codes, scales });
}

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

/// Scales as double quantization stores them: less their mean, by 256 to the nearest of [`dynamic_map`].
///
/// Exactly the nearest, as on a GPU; bitsandbytes on a CPU looks it up in a table and is off by one for one in 500.
#[derive(Clone, Debug)]
pub(crate) struct NestedScales {
    /// One for each scale.
    pub(crate) codes: Vec<u8>,
    /// The largest magnitude of every 256.
    pub(crate) absmax: Vec<f32>,
    /// The mean.
    pub(crate) offset: f32,
}

impl NestedScales {
    pub(super) fn new(scales: &[f32]) -> Self {
        let sum: f64 = scales.iter().map(|scale| f64::from(*scale)).sum();
        let offset = (sum / scales.len().max(1) as f64) as f32;
        let bounds: Vec<f32> = dynamic_map().windows(2).map(|pair| (pair[0] + pair[1]) / 2.0).collect();
        let (mut codes, mut absmax) = (Vec::with_capacity(scales.len()), Vec::new());
        for block in scales.chunks(NESTED_BLOCK) {
            let amax = block.iter().fold(0.0f32, |largest, scale| largest.max((scale - offset).abs()));
            let inverse = inverse(amax);
            codes.extend(block.iter().map(|scale| {
                // At most 255: there is one bound fewer than entries.
                bounds.partition_point(|bound| *bound < (scale - offset) * inverse) as u8
            }));
            absmax.push(amax);
        }
        Self { codes, absmax, offset }
    }

    /// The scales as a reader restores them.
    pub(super) fn restored(&self) -> Vec<f32> {
        let (map, offset) = (&dynamic_map(), self.offset);
        let blocks = self.codes.chunks(NESTED_BLOCK).zip(&self.absmax);
        blocks
            .flat_map(|(codes, amax)| codes.iter().map(move |code| map[usize::from(*code)] * amax + offset))
            .collect()
    }
}

/// The signed dynamic data type of 8 bits (8-bit optimizers, arXiv 2110.02861), in order: for each of seven decades,
/// 1 to 64 even steps between a tenth and the whole of it, of either sign; 0 and 1.
pub(crate) fn dynamic_map() -> Vec<f32> {
    let mut map = vec![0.0, 1.0];
    for decade in 0..7u32 {
        let steps = 1u32 << decade;
        // As torch.linspace has it: from both ends to the middle, product and sum rounded once, in f32.
        let step = (1.0f32 - 0.1) / steps as f32;
        let boundary = |i: u32| match i < steps.div_ceil(2) {
            true => step.mul_add(i as f32, 0.1),
            false => (-step).mul_add((steps - i) as f32, 1.0),
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
