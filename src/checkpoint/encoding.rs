//! How a weight matrix is laid out in bytes: one closed list of encodings, each with its block size and
//! decoder.
//!
//! An encoding stores a row of weights as whole blocks of `block_weights` weights in `block_bytes` bytes and
//! stands alone: no other tensor is needed to decode it. This file knows neither file formats nor tensors nor
//! threads; it turns bytes into `f32`. Values are those of llama.cpp's `dequantize_row_*`, operation by
//! operation, so they are equal to the last bit.
//!
//! To add an encoding: write its block decoder in a file below `encoding/`, add one line to the list in
//! `encodings!`, and delete its line from `NOT_DECODED`.

mod codebooks;
mod floats;
mod fp4;
mod iq1;
mod iq2;
mod iq3;
mod iq4;
mod k_quants;
mod legacy;
mod low_bits;
mod signs;

pub use self::iq4::IQ4_VALUES;

/// What is known of one encoding.
struct Row {
    encoding: Encoding,
    name: &'static str,
    ggml_type: u32,
    block_weights: usize,
    block_bytes: usize,
    /// Decodes whole blocks; called only with lengths that fit each other.
    decode: fn(&[u8], &mut [f32]),
}

macro_rules! encodings {
    ($(
        $(#[$doc:meta])*
        $variant:ident = $name:literal, $ggml_type:literal, $weights:literal / $bytes:literal, $decode:path;
    )*) => {
        /// An encoding of weights that can be decoded here.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Encoding {
            $($(#[$doc])* $variant,)*
        }

        /// One row per encoding, in the order of the enum: `ROWS[e as usize].encoding == e`.
        const ROWS: &[Row] = &[$(Row {
            encoding: Encoding::$variant,
            name: $name,
            ggml_type: $ggml_type,
            block_weights: $weights,
            block_bytes: $bytes,
            // Not `$decode` itself: a function that is passed by name is called by way of code that nobody
            // marked `inline(always)`, and is then compiled apart, for the oldest of processors.
            decode: |bytes, out| {
                each_block::<$bytes, $weights>(
                    bytes,
                    out,
                    #[inline(always)]
                    |block, out| $decode(block, out),
                );
            },
        },)*];

        impl Encoding {
            /// Every encoding, in the order of their declaration.
            pub const ALL: &'static [Encoding] = &[$(Encoding::$variant,)*];
        }
    };
}

// Name as llama.cpp writes it, its `ggml_type` number, weights / bytes of a block (ggml.h and ggml-common.h),
// decoder of one block. A decoder for blocks of another size does not compile.
encodings! {
    /// IEEE 754 binary32.
    F32 = "F32", 0, 1 / 4, floats::f32;
    /// IEEE 754 binary16.
    F16 = "F16", 1, 1 / 2, floats::f16;
    /// The upper half of a binary32.
    Bf16 = "BF16", 30, 1 / 2, floats::bf16;
    /// IEEE 754 binary64, rounded to the nearest `f32` when decoded.
    F64 = "F64", 28, 1 / 8, floats::f64;
    /// 4-bit codes about zero, one f16 scale for 32 weights.
    Q4_0 = "Q4_0", 2, 32 / 18, legacy::q4_0;
    /// 4-bit codes, one f16 scale and minimum for 32 weights.
    Q4_1 = "Q4_1", 3, 32 / 20, legacy::q4_1;
    /// 5-bit codes about zero, one f16 scale for 32 weights.
    Q5_0 = "Q5_0", 6, 32 / 22, legacy::q5_0;
    /// 5-bit codes, one f16 scale and minimum for 32 weights.
    Q5_1 = "Q5_1", 7, 32 / 24, legacy::q5_1;
    /// 8-bit signed codes, one f16 scale for 32 weights.
    Q8_0 = "Q8_0", 8, 32 / 34, legacy::q8_0;
    /// 2-bit codes, 4-bit scale and minimum for 16 weights.
    Q2K = "Q2_K", 10, 256 / 84, k_quants::q2_k;
    /// 3-bit codes about zero, 6-bit scale for 16 weights.
    Q3K = "Q3_K", 11, 256 / 110, k_quants::q3_k;
    /// 4-bit codes, 6-bit scale and minimum for 32 weights.
    Q4K = "Q4_K", 12, 256 / 144, k_quants::q4_k;
    /// 5-bit codes, 6-bit scale and minimum for 32 weights.
    Q5K = "Q5_K", 13, 256 / 176, k_quants::q5_k;
    /// 6-bit codes about zero, 8-bit scale for 16 weights.
    Q6K = "Q6_K", 14, 256 / 210, k_quants::q6_k;
    /// One of 2048 ternary vectors for 8 weights, 3-bit scale for 32 weights.
    Iq1S = "IQ1_S", 19, 256 / 50, iq1::iq1_s;
    /// One of 2048 ternary vectors for 8 weights, 3-bit scale for 16 weights.
    Iq1M = "IQ1_M", 29, 256 / 56, iq1::iq1_m;
    /// Signs and one of 256 vectors for 8 weights, 4-bit scale for 32 weights.
    Iq2Xxs = "IQ2_XXS", 16, 256 / 66, iq2::iq2_xxs;
    /// Signs and one of 512 vectors for 8 weights, 4-bit scale for 16 weights.
    Iq2Xs = "IQ2_XS", 17, 256 / 74, iq2::iq2_xs;
    /// Signs and one of 1024 vectors for 8 weights, 4-bit scale for 16 weights.
    Iq2S = "IQ2_S", 22, 256 / 82, iq2::iq2_s;
    /// Signs and one of 256 vectors for 4 weights, 4-bit scale for 32 weights.
    Iq3Xxs = "IQ3_XXS", 18, 256 / 98, iq3::iq3_xxs;
    /// Signs and one of 512 vectors for 4 weights, 4-bit scale for 32 weights.
    Iq3S = "IQ3_S", 21, 256 / 110, iq3::iq3_s;
    /// 4-bit codes for 16 unevenly spaced values, one f16 scale for 32 weights.
    Iq4Nl = "IQ4_NL", 20, 32 / 18, iq4::iq4_nl;
    /// 4-bit codes for 16 unevenly spaced values, 6-bit scale for 32 weights.
    Iq4Xs = "IQ4_XS", 23, 256 / 136, iq4::iq4_xs;
    /// Ternary weights, five to a byte, one f16 scale for 256 weights.
    Tq1_0 = "TQ1_0", 34, 256 / 54, low_bits::tq1_0;
    /// Ternary weights, four to a byte, one f16 scale for 256 weights.
    Tq2_0 = "TQ2_0", 35, 256 / 66, low_bits::tq2_0;
    /// 4-bit floating-point codes, one power of two for 32 weights.
    Mxfp4 = "MXFP4", 39, 32 / 17, fp4::mxfp4;
    /// 4-bit floating-point codes, one 8-bit floating-point scale for 16 weights.
    Nvfp4 = "NVFP4", 40, 64 / 36, fp4::nvfp4;
    /// Signs only, one f16 magnitude for 128 weights.
    Q1_0 = "Q1_0", 41, 128 / 18, low_bits::q1_0;
    /// 2-bit codes for -1, 0, 1 and 2, one f16 scale for 64 weights.
    Q2_0 = "Q2_0", 42, 64 / 18, low_bits::q2_0;
}

/// Weights and bytes of one block.
type Block = (usize, usize);

/// llama.cpp's other types, none of them for weights: intermediate results of its own, integers, and types it
/// has withdrawn, whose block is `None`.
///
/// Source: `enum ggml_type` (ggml.h) and the block structs (ggml-common.h) of llama.cpp, 2026.
const NOT_DECODED: &[(u32, &str, Option<Block>)] = &[
    (4, "Q4_2", None),
    (5, "Q4_3", None),
    (9, "Q8_1", Some((32, 36))),
    (15, "Q8_K", Some((256, 292))),
    (24, "I8", Some((1, 1))),
    (25, "I16", Some((1, 2))),
    (26, "I32", Some((1, 4))),
    (27, "I64", Some((1, 8))),
    (31, "Q4_0_4_4", None),
    (32, "Q4_0_4_8", None),
    (33, "Q4_0_8_8", None),
    (36, "IQ4_NL_4_4", None),
    (37, "IQ4_NL_4_8", None),
    (38, "IQ4_NL_8_8", None),
];

/// The name that llama.cpp gives to a `ggml_type`, decoded here or not; `None` for a number it has never
/// used.
pub fn ggml_type_name(ggml_type: u32) -> Option<&'static str> {
    Encoding::from_ggml_type(ggml_type)
        .map(Encoding::name)
        .or_else(|| NOT_DECODED.iter().find(|row| row.0 == ggml_type).map(|row| row.1))
}

/// Weights and bytes of one block of a `ggml_type`, decoded here or not.
///
/// `None` for a number that is not known and for types that llama.cpp has withdrawn.
pub fn ggml_type_block(ggml_type: u32) -> Option<(usize, usize)> {
    Encoding::from_ggml_type(ggml_type)
        .map(|encoding| (encoding.block_weights(), encoding.block_bytes()))
        .or_else(|| NOT_DECODED.iter().find(|row| row.0 == ggml_type)?.2)
}

/// The bytes given to [`Encoding::decode`] do not hold the number of weights asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{bytes} bytes of {} are not {weights} weights (a block is {} weights in {} bytes)",
    encoding.name(), encoding.block_weights(), encoding.block_bytes()
)]
pub struct LengthMismatch {
    /// The encoding.
    pub encoding: Encoding,
    /// Length of the input, in bytes.
    pub bytes: usize,
    /// Length of the output, in weights.
    pub weights: usize,
}

impl Encoding {
    const fn row(self) -> &'static Row {
        &ROWS[self as usize]
    }

    /// The name as llama.cpp writes it: `Q4_K`.
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// Its `ggml_type` number, as GGUF files write it.
    pub const fn ggml_type(self) -> u32 {
        self.row().ggml_type
    }

    /// The encoding of a GGUF tensor type, if it is one that can be decoded.
    pub fn from_ggml_type(ggml_type: u32) -> Option<Self> {
        ROWS.iter().find(|row| row.ggml_type == ggml_type).map(|row| row.encoding)
    }

    /// The encoding of a safetensors element type; `None` for integers and 8-bit floats, which mean weights
    /// only together with the scales of a packing.
    pub fn from_safetensors(dtype: safetensors::Dtype) -> Option<Self> {
        match dtype {
            safetensors::Dtype::F32 => Some(Encoding::F32),
            safetensors::Dtype::F16 => Some(Encoding::F16),
            safetensors::Dtype::BF16 => Some(Encoding::Bf16),
            safetensors::Dtype::F64 => Some(Encoding::F64),
            _ => None,
        }
    }

    /// Weights in one block; a row of a matrix is a whole number of blocks.
    pub const fn block_weights(self) -> usize {
        self.row().block_weights
    }

    /// Bytes of one block.
    pub const fn block_bytes(self) -> usize {
        self.row().block_bytes
    }

    /// Stored bits per weight, scales included.
    pub fn bits_per_weight(self) -> f64 {
        8.0 * self.block_bytes() as f64 / self.block_weights() as f64
    }

    /// Bytes that hold `weights` weights; `None` if that is not a whole number of blocks, or overflows.
    pub fn encoded_bytes(self, weights: usize) -> Option<usize> {
        let whole_blocks = weights.is_multiple_of(self.block_weights());
        whole_blocks.then_some(weights / self.block_weights())?.checked_mul(self.block_bytes())
    }

    /// Decodes all of `bytes` into all of `out`, on one thread.
    ///
    /// `bytes` needs no alignment. Infinite or NaN scales give infinite or NaN weights; nothing here judges
    /// values. Rows may be split among threads by the caller, as blocks are independent of each other.
    ///
    /// # Errors
    /// [`LengthMismatch`] if `bytes` is not exactly `out.len()` weights; `out` is then untouched.
    pub fn decode(self, bytes: &[u8], out: &mut [f32]) -> Result<(), LengthMismatch> {
        if self.encoded_bytes(out.len()) != Some(bytes.len()) {
            return Err(LengthMismatch { encoding: self, bytes: bytes.len(), weights: out.len() });
        }
        (self.row().decode)(bytes, out);
        Ok(())
    }
}

/// Applies a block decoder to every block of `bytes`, compiled for the widest vectors that this processor
/// has.
///
/// The decoder must be `#[inline(always)]`: only then are its loops compiled together with this one for AVX2.
/// Loops that become vectors do the same to 16 or more weights, and read only what cannot overlap `out`. Rust
/// never fuses a multiplication with an addition, so the values do not depend on the processor.
fn each_block<const BYTES: usize, const WEIGHTS: usize>(
    bytes: &[u8],
    out: &mut [f32],
    decode: impl Fn(&[u8; BYTES], &mut [f32; WEIGHTS]),
) {
    struct EachBlock<'a, const BYTES: usize, const WEIGHTS: usize, F> {
        bytes: &'a [u8],
        out: &'a mut [f32],
        decode: F,
    }

    impl<const BYTES: usize, const WEIGHTS: usize, F> pulp::WithSimd for EachBlock<'_, BYTES, WEIGHTS, F>
    where
        F: Fn(&[u8; BYTES], &mut [f32; WEIGHTS]),
    {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, _simd: S) {
            let blocks = self.bytes.as_chunks().0;
            let outs = self.out.as_chunks_mut().0;
            for (block, out) in blocks.iter().zip(outs) {
                if WEIGHTS > 1 {
                    // Keeps the compiler from turning this loop into vectors across blocks: it would prefer
                    // gathering bytes of eight blocks to the plain loops inside a decoder.
                    std::hint::black_box(());
                }
                (self.decode)(block, out);
            }
        }
    }

    pulp::Arch::new().dispatch(EachBlock { bytes, out, decode });
}

/// The little-endian f16 at byte `at` of a block, as `f32`: exact.
///
/// Not by the half crate, which asks for the processor's abilities at every call.
#[inline(always)]
fn f16_at(block: &[u8], at: usize) -> f32 {
    f16_to_f32(u16_at(block, at))
}

#[inline(always)]
fn f16_to_f32(bits: u16) -> f32 {
    let bits = u32::from(bits);
    let (exponent, fraction) = (bits & 0x7C00, bits & 0x03FF);
    let moved = (bits & 0x7FFF) << 13;
    let magnitude = if exponent == 0x7C00 {
        moved | 0x7F80_0000
    } else if exponent == 0 {
        // Subnormal, or zero: by a conversion, as a product of subnormal f32 is slow and can be switched off.
        (fraction as f32 * (1.0 / 16_777_216.0)).to_bits()
    } else {
        moved.wrapping_add((127 - 15) << 23)
    };
    f32::from_bits(magnitude | (bits & 0x8000) << 16)
}

/// The little-endian u16 at byte `at` of a block.
#[inline(always)]
fn u16_at(block: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([block[at], block[at + 1]])
}

/// The little-endian u32 at byte `at` of a block.
#[inline(always)]
fn u32_at(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers without a pattern, the same in every run.
    fn noise(length: usize) -> Vec<u8> {
        let mut state = 1u64;
        let next = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..length).map(next).collect()
    }

    #[test]
    fn the_list_agrees_with_itself() {
        for (index, (row, encoding)) in ROWS.iter().zip(Encoding::ALL).enumerate() {
            assert_eq!((row.encoding, *encoding as usize), (*encoding, index));
            assert_eq!(Encoding::from_ggml_type(encoding.ggml_type()), Some(*encoding));
            assert_eq!(ggml_type_name(row.ggml_type), Some(row.name));
            assert_eq!(ggml_type_block(row.ggml_type), Some((row.block_weights, row.block_bytes)));
            assert!(
                NOT_DECODED.iter().all(|other| other.0 != row.ggml_type && other.1 != row.name),
                "{} is on both lists",
                row.name
            );
        }
        assert_eq!(ggml_type_name(15), Some("Q8_K"));
        assert_eq!(ggml_type_block(15), Some((256, 292)));
        assert_eq!(Encoding::Nvfp4.ggml_type(), 40);
        assert_eq!((ggml_type_name(31), ggml_type_block(31)), (Some("Q4_0_4_4"), None));
        assert_eq!((ggml_type_name(12_345), ggml_type_block(12_345)), (None, None));
    }

    #[test]
    fn bits_per_weight_count_the_scales() {
        assert_eq!(Encoding::Q8_0.bits_per_weight(), 8.5);
        assert_eq!(Encoding::Q4_0.bits_per_weight(), 4.5);
        assert_eq!(Encoding::Q4K.bits_per_weight(), 4.5);
        assert_eq!(Encoding::Q6K.bits_per_weight(), 6.5625);
        assert_eq!(Encoding::Bf16.bits_per_weight(), 16.0);
    }

    #[test]
    fn every_decoder_reads_blocks_of_the_size_that_the_list_says() {
        for &encoding in Encoding::ALL {
            let blocks = 3;
            let bytes = vec![0; blocks * encoding.block_bytes()];
            let mut out = vec![f32::NAN; blocks * encoding.block_weights()];
            encoding.decode(&bytes, &mut out).unwrap();
            // All-zero bytes have zero scales, and 0·q is 0 of either sign; a weight that was skipped stays
            // NaN.
            assert!(out.iter().all(|weight| *weight == 0.0), "{}", encoding.name());
        }
    }

    #[test]
    fn blocks_are_independent_of_each_other() {
        for &encoding in Encoding::ALL {
            let (blocks, weights) = (5, encoding.block_weights());
            let bytes = noise(blocks * encoding.block_bytes());
            let mut whole = vec![0.0; blocks * weights];
            encoding.decode(&bytes, &mut whole).unwrap();
            for (block, expected) in bytes.chunks(encoding.block_bytes()).zip(whole.chunks(weights)) {
                let mut out = vec![0.0; weights];
                encoding.decode(block, &mut out).unwrap();
                let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&out), bits(expected), "{}", encoding.name());
            }
        }
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused_and_nothing_is_written() {
        for &encoding in Encoding::ALL {
            let (bytes, weights) = (2 * encoding.block_bytes(), 2 * encoding.block_weights());
            for (bytes, weights) in
                [(bytes - 1, weights), (bytes + 1, weights), (bytes, weights + 1), (0, weights)]
            {
                let mut out = vec![7.0; weights];
                let error = encoding.decode(&vec![0; bytes], &mut out).unwrap_err();
                assert_eq!(error, LengthMismatch { encoding, bytes, weights });
                assert!(error.to_string().contains(encoding.name()), "{error}");
                assert!(out.iter().all(|weight| *weight == 7.0), "{}", encoding.name());
            }
            assert_eq!(encoding.encoded_bytes(weights), Some(bytes));
            assert_eq!(encoding.decode(&[], &mut []), Ok(()));
        }
        assert_eq!(Encoding::F64.encoded_bytes(usize::MAX), None);
    }

    #[test]
    fn every_f16_and_bf16_is_converted_as_the_half_crate_does() {
        let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        let mut out = vec![0.0; 1 << 16];
        let same =
            |ours: f32, theirs: f32| ours.to_bits() == theirs.to_bits() || (ours.is_nan() && theirs.is_nan());
        Encoding::F16.decode(&bytes, &mut out).unwrap();
        assert!(
            (0..=u16::MAX)
                .zip(&out)
                .all(|(bits, ours)| same(*ours, half::f16::from_bits(bits).to_f32_const()))
        );
        Encoding::Bf16.decode(&bytes, &mut out).unwrap();
        assert!(
            (0..=u16::MAX)
                .zip(&out)
                .all(|(bits, ours)| same(*ours, half::bf16::from_bits(bits).to_f32_const()))
        );
    }

    #[test]
    fn f32_and_f64_are_read_little_endian_at_any_address() {
        let values = [0.1f32, -3.5e-42, f32::INFINITY, 1.0];
        let mut bytes = vec![0xAA];
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        let mut out = [0.0; 4];
        Encoding::F32.decode(&bytes[1..], &mut out).unwrap();
        assert_eq!(out, values);
        let bytes: Vec<u8> =
            [1e-50, 0.1, 1e300, -2.0].iter().flat_map(|value: &f64| value.to_le_bytes()).collect();
        Encoding::F64.decode(&bytes, &mut out).unwrap();
        assert_eq!(out, [0.0, 0.1, f32::INFINITY, -2.0]);
    }

    /// By hand from the layout, independent of any other implementation: one block whose codes all differ.
    #[test]
    fn a_block_of_q4_0_and_of_q8_0_by_hand() {
        let mut block = vec![0x00, 0x38]; // 0.5
        block.extend((0..16u8).map(|i| i | (15 - i) << 4));
        let mut out = [0.0; 32];
        Encoding::Q4_0.decode(&block, &mut out).unwrap();
        let expected: Vec<f32> = (0..16).chain((0..16).rev()).map(|code| (code as f32 - 8.0) / 2.0).collect();
        assert_eq!(out.as_slice(), expected);

        let mut block = vec![0x00, 0xC0]; // -2
        block.extend((0..32u8).map(|i| (i * 8).wrapping_sub(128)));
        Encoding::Q8_0.decode(&block, &mut out).unwrap();
        let expected: Vec<f32> = (0..32).map(|i| -2.0 * (i * 8 - 128) as f32).collect();
        assert_eq!(out.as_slice(), expected);
    }
}
