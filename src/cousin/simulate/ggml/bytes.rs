//! Settled blocks as the bytes of a GGUF file: the counterpart of the decoders in `checkpoint/encoding/`.
//!
//! Layouts: the block structs of llama.cpp's ggml-common.h, described at the decoders. Codes are whole numbers in
//! their ranges, so every conversion to an integer here is exact.

use half::f16;

use super::{IQ4, Quantizer, Settled};
use crate::{checkpoint::encoding::Encoding, model::kv_cache::GgmlBlock};

/// Anything that turns a group of weights into its blocks' bytes.
pub(super) trait Encode {
    /// Must be `#[inline(always)]`, see [`each_block`].
    fn encode(&self, encoding: Encoding, group: &[f32], out: &mut [u8]);
}

/// Encodes every `group` neighbouring values (the last may be fewer, whole blocks), compiled for the widest vectors that
/// this processor has.
pub(super) fn each_block(
    quantizer: impl Encode,
    encoding: Encoding,
    group: usize,
    values: &[f32],
    out: &mut [u8],
) {
    struct EachBlock<'a, Q> {
        quantizer: Q,
        encoding: Encoding,
        group: usize,
        values: &'a [f32],
        out: &'a mut [u8],
    }

    impl<Q: Encode> pulp::WithSimd for EachBlock<'_, Q> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, _: S) {
            let Self { quantizer, encoding, group, values, out } = self;
            let bytes = group / encoding.block_weights() * encoding.block_bytes();
            for (values, out) in values.chunks(group).zip(out.chunks_mut(bytes)) {
                quantizer.encode(encoding, values, out);
            }
        }
    }

    pulp::Arch::new().dispatch(EachBlock { quantizer, encoding, group, values, out });
}

macro_rules! encoding_settles {
    ($($quantizer:ident),*) => {$(
        impl Encode for super::$quantizer {
            #[inline(always)]
            fn encode(&self, encoding: Encoding, group: &[f32], out: &mut [u8]) {
                Self::write(&self.settle(group), encoding, out);
            }
        }
    )*};
}

encoding_settles!(Q2K, Q3K, Q4K, Q6K, Iq4Nl, Iq4Xs);

impl Encode for GgmlBlock {
    #[inline(always)]
    fn encode(&self, _: Encoding, group: &[f32], out: &mut [u8]) {
        let Some(block) = group.as_chunks().0.first() else { return };
        let settled = self.settle(block);
        let code = |i: usize| settled.codes[i] as i8 as u8;
        put_f16(out, 0, settled.scale);
        match self {
            GgmlBlock::Q8_0 => out[2..].iter_mut().enumerate().for_each(|(i, byte)| *byte = code(i)),
            GgmlBlock::Q4_0 => put_nibbles(&mut out[2..], code),
            GgmlBlock::Q4_1 => {
                put_f16(out, 2, settled.minimum);
                put_nibbles(&mut out[4..], code);
            }
            GgmlBlock::Q5_0 => {
                put_fifth_bits(&mut out[2..6], code);
                put_nibbles(&mut out[6..], code);
            }
            GgmlBlock::Q5_1 => {
                put_f16(out, 2, settled.minimum);
                put_fifth_bits(&mut out[4..8], code);
                put_nibbles(&mut out[8..], code);
            }
            GgmlBlock::Iq4Nl => put_nibbles(&mut out[2..], |i| level_index(settled.codes[i])),
        }
    }
}

/// `scale` is one already.
#[inline(always)]
fn put_f16(out: &mut [u8], at: usize, scale: f32) {
    out[at..at + 2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
}

/// Of 32 codes, byte i holds the low nibbles of codes i and i + 16.
#[inline(always)]
fn put_nibbles(out: &mut [u8], code: impl Fn(usize) -> u8) {
    for (i, byte) in out[..16].iter_mut().enumerate() {
        *byte = code(i) & 0x0F | code(i + 16) << 4;
    }
}

/// Bit i of four bytes is bit 4 of code i.
#[inline(always)]
fn put_fifth_bits(out: &mut [u8], code: impl Fn(usize) -> u8) {
    for (byte, out) in out.iter_mut().enumerate() {
        *out = (0..8).fold(0, |bits, i| bits | (code(8 * byte + i) >> 4 & 1) << i);
    }
}

/// The place of a level in [`IQ4`].
#[inline(always)]
fn level_index(level: f32) -> u8 {
    IQ4.iter().fold(0, |below, other| below + u8::from(*other < level))
}

/// Two bits of each code: sixteen bytes for one side of a half, a quarter at every second bit.
#[inline(always)]
fn put_pairs(out: &mut [u8], code: impl Fn(usize, usize) -> u8) {
    for (run, bytes) in out.chunks_exact_mut(16).enumerate() {
        let (half, side) = (run / 2, run % 2);
        for (l, byte) in bytes.iter_mut().enumerate() {
            *byte = (0..4).fold(0, |bits, quarter| {
                bits | (code(l, 8 * half + 2 * quarter + side) & 3) << (2 * quarter)
            });
        }
    }
}

#[inline(always)]
pub(super) fn q2_k(settled: &Settled<16, 16>, out: &mut [u8]) {
    for (p, byte) in out[..16].iter_mut().enumerate() {
        *byte = settled.scales[p] as u8 | (settled.mins[p] as u8) << 4;
    }
    put_pairs(&mut out[16..80], |l, part| settled.codes[l][part] as u8);
    put_f16(out, 80, settled.unit);
    put_f16(out, 82, settled.min_unit);
}

#[inline(always)]
pub(super) fn q3_k(settled: &Settled<16, 16>, out: &mut [u8]) {
    let code = |l: usize, part: usize| (settled.codes[l][part] + 4.0) as u8;
    for (run, bytes) in out[..32].chunks_exact_mut(16).enumerate() {
        for (l, byte) in bytes.iter_mut().enumerate() {
            // Bit 4·half + quarter belongs to part 8·half + 2·quarter + side.
            *byte = (0..8).fold(0, |bits, pair| bits | (code(l, 2 * pair + run) >> 2 & 1) << pair);
        }
    }
    put_pairs(&mut out[32..96], code);
    let packed = &mut out[96..108];
    packed.fill(0);
    for (i, scale) in settled.scales.iter().enumerate() {
        let scale = (scale + 32.0) as u8;
        packed[i % 8] |= (scale & 0x0F) << (i / 8 * 4);
        packed[8 + i % 4] |= scale >> 4 << (i / 4 * 2);
    }
    put_f16(out, 108, settled.unit);
}

/// Both units, then eight scales and minima of 6 bits: the first four whole, the others' upper bits above them.
#[inline(always)]
fn put_scales_and_mins(settled: &Settled<32, 8>, out: &mut [u8]) {
    put_f16(out, 0, settled.unit);
    put_f16(out, 2, settled.min_unit);
    let (scales, mins) = (settled.scales.map(|x| x as u8), settled.mins.map(|x| x as u8));
    for i in 0..4 {
        out[4 + i] = scales[i] | scales[i + 4] >> 4 << 6;
        out[8 + i] = mins[i] | mins[i + 4] >> 4 << 6;
        out[12 + i] = scales[i + 4] & 0x0F | mins[i + 4] << 4;
    }
}

/// Low nibbles of 256 codes: parts 2i and 2i + 1 share 32 bytes.
#[inline(always)]
fn put_paired_nibbles(settled: &Settled<32, 8>, out: &mut [u8]) {
    for (pair, bytes) in out.chunks_exact_mut(32).enumerate() {
        for (codes, byte) in settled.codes.iter().zip(bytes) {
            *byte = codes[2 * pair] as u8 & 0x0F | (codes[2 * pair + 1] as u8) << 4;
        }
    }
}

#[inline(always)]
pub(super) fn q4_k(settled: &Settled<32, 8>, out: &mut [u8]) {
    put_scales_and_mins(settled, out);
    put_paired_nibbles(settled, &mut out[16..144]);
}

#[inline(always)]
pub(super) fn q5_k(settled: &Settled<32, 8>, out: &mut [u8]) {
    put_scales_and_mins(settled, out);
    for (codes, byte) in settled.codes.iter().zip(&mut out[16..48]) {
        *byte = (0..8).fold(0, |bits, part| bits | (codes[part] as u8 >> 4 & 1) << part);
    }
    put_paired_nibbles(settled, &mut out[48..176]);
}

#[inline(always)]
pub(super) fn q6_k(settled: &Settled<16, 16>, out: &mut [u8]) {
    let code = |l: usize, part: usize| (settled.codes[l][part] + 32.0) as u8;
    for (run, bytes) in out[..128].chunks_exact_mut(16).enumerate() {
        // Runs of a half: quarters 0 and 2 of both sides, then quarters 1 and 3.
        let (half, quarter, side) = (run / 4, run / 2 % 2, run % 2);
        let part = 8 * half + 2 * quarter + side;
        for (l, byte) in bytes.iter_mut().enumerate() {
            *byte = code(l, part) & 0x0F | code(l, part + 4) << 4;
        }
    }
    put_pairs(&mut out[128..192], |l, part| code(l, part) >> 4);
    for (byte, scale) in out[192..208].iter_mut().zip(settled.scales) {
        *byte = scale as i8 as u8;
    }
    put_f16(out, 208, settled.unit);
}

/// As many blocks as `out` has room for.
#[inline(always)]
pub(super) fn iq4_nl(settled: &Settled<32, 8>, out: &mut [u8]) {
    for (part, out) in out.chunks_exact_mut(18).enumerate().take(8) {
        put_f16(out, 0, settled.scales[part]);
        put_nibbles(&mut out[2..], |i| level_index(settled.codes[i][part]));
    }
}

#[inline(always)]
pub(super) fn iq4_xs(settled: &Settled<32, 8>, out: &mut [u8]) {
    put_f16(out, 0, settled.unit);
    let (mut high, mut low) = (0u16, 0u32);
    for (part, scale) in settled.scales.iter().enumerate() {
        let scale = (scale + 32.0) as u8;
        high |= u16::from(scale >> 4) << (2 * part);
        low |= u32::from(scale & 0x0F) << (4 * part);
    }
    out[2..4].copy_from_slice(&high.to_le_bytes());
    out[4..8].copy_from_slice(&low.to_le_bytes());
    for (part, out) in out[8..].chunks_exact_mut(16).enumerate() {
        put_nibbles(out, |i| level_index(settled.codes[i][part]));
    }
}
