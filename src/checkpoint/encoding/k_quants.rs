//! llama.cpp's K-quants: 256 weights in sub-blocks of 16 or 32, whose small integer scales share one f16
//! scale.
//!
//! `w = (d·scale)·q − (dmin·min)` for Q2_K, Q4_K and Q5_K, `w = (d·scale)·(q − zero)` for Q3_K and Q6_K,
//! every operation rounded to f32 in this order. The codes of neighbouring weights lie in neighbouring bytes
//! and the sub-blocks above one another in the bits of those bytes, so each loop below is one shift of a run
//! of bytes. Layouts: `block_q2_K` … `block_q6_K` in llama.cpp's ggml-common.h (QK_K = 256).

use super::{each_block, f16_at};

/// 16 bytes of scale (low nibble) and minimum (high), 64 bytes of 2-bit codes, `d` f16, `dmin` f16.
pub(super) fn q2_k(bytes: &[u8], out: &mut [f32]) {
    each_block(bytes, out, q2_k_block);
}

/// 32 bytes of third bits, 64 bytes of low 2 bits, 12 bytes of 6-bit scales, `d` f16; zero is 4, a scale's is
/// 32.
pub(super) fn q3_k(bytes: &[u8], out: &mut [f32]) {
    each_block(bytes, out, q3_k_block);
}

/// `d` f16, `dmin` f16, 12 bytes of 6-bit scales and minima, 128 bytes of nibbles.
pub(super) fn q4_k(bytes: &[u8], out: &mut [f32]) {
    each_block(bytes, out, q4_k_block);
}

/// `d` f16, `dmin` f16, 12 bytes of 6-bit scales and minima, 32 bytes of fifth bits, 128 bytes of nibbles.
pub(super) fn q5_k(bytes: &[u8], out: &mut [f32]) {
    each_block(bytes, out, q5_k_block);
}

/// 128 bytes of low nibbles, 64 bytes of upper 2 bits, 16 signed bytes of scales, `d` f16; zero is 32.
pub(super) fn q6_k(bytes: &[u8], out: &mut [f32]) {
    each_block(bytes, out, q6_k_block);
}

#[inline(always)]
fn q2_k_block(block: &[u8; 84], out: &mut [f32; 256]) {
    let (scales, codes) = (&block[..16], &block[16..80]);
    let (d, dmin) = (f16_at(block, 80), f16_at(block, 82));
    for (i, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        // Sub-block i: half of the block, 2-bit position in the byte, half of the 32 bytes.
        let (half, shift, side) = (i / 8, i % 8 / 2 * 2, i % 2);
        let scale = d * f32::from(scales[i] & 0x0F);
        let min = dmin * f32::from(scales[i] >> 4);
        let start = 32 * half + 16 * side;
        for (out, byte) in out.iter_mut().zip(&codes[start..start + 16]) {
            *out = scale * f32::from((byte >> shift) & 3) - min;
        }
    }
}

#[inline(always)]
fn q3_k_block(block: &[u8; 110], out: &mut [f32; 256]) {
    let (third_bits, codes, packed_scales) = (&block[..32], &block[32..96], &block[96..108]);
    let d = f16_at(block, 108);
    for (i, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let (half, shift, side) = (i / 8, i % 8 / 2 * 2, i % 2);
        // Scale i: low 4 bits in the nibbles of the first 8 bytes, upper 2 bits in the last 4 bytes.
        let low = (packed_scales[i % 8] >> (4 * (i / 8))) & 0x0F;
        let high = (packed_scales[8 + i % 4] >> (2 * (i / 4))) & 3;
        let scale = d * (f32::from(low | (high << 4)) - 32.0);
        let third = i / 2;
        let start = 32 * half + 16 * side;
        let pairs = codes[start..start + 16].iter().zip(&third_bits[16 * side..16 * side + 16]);
        for (out, (low, high)) in out.iter_mut().zip(pairs) {
            let (low, high) = (i32::from(*low), i32::from(*high));
            let code = ((low >> shift) & 3) | (((high >> third) & 1) << 2);
            *out = scale * (code - 4) as f32;
        }
    }
}

#[inline(always)]
fn q4_k_block(block: &[u8; 144], out: &mut [f32; 256]) {
    let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
    let (packed, codes) = (&block[4..16], &block[16..144]);
    for (i, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, min) = scale_and_min(packed, i);
        let (scale, min) = (d * f32::from(scale), dmin * f32::from(min));
        let (start, shift) = (i / 2 * 32, i % 2 * 4);
        for (out, byte) in out.iter_mut().zip(&codes[start..start + 32]) {
            *out = scale * f32::from((byte >> shift) & 0x0F) - min;
        }
    }
}

#[inline(always)]
fn q5_k_block(block: &[u8; 176], out: &mut [f32; 256]) {
    let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
    let (packed, fifth_bits, codes) = (&block[4..16], &block[16..48], &block[48..176]);
    for (i, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, min) = scale_and_min(packed, i);
        let (scale, min) = (d * f32::from(scale), dmin * f32::from(min));
        let (start, shift) = (i / 2 * 32, i % 2 * 4);
        for (out, (low, high)) in out.iter_mut().zip(codes[start..start + 32].iter().zip(fifth_bits)) {
            let (low, high) = (i32::from(*low), i32::from(*high));
            let code = ((low >> shift) & 0x0F) | (((high >> i) & 1) << 4);
            *out = scale * code as f32 - min;
        }
    }
}

#[inline(always)]
fn q6_k_block(block: &[u8; 210], out: &mut [f32; 256]) {
    let (low_bits, high_bits, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let low_bits = low_bits.as_chunks::<16>().0;
    let high_bits = high_bits.as_chunks::<16>().0;
    let d = f16_at(block, 208);
    for (i, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        // Sub-block i: half of the block, quarter of that half, half of the quarter's 32 weights.
        let (half, quarter, side) = (i / 8, i % 8 / 2, i % 2);
        let scale = d * f32::from(scales[i] as i8);
        let (low, high) = (&low_bits[4 * half + 2 * (quarter % 2) + side], &high_bits[2 * half + side]);
        for ((out, low), high) in out.iter_mut().zip(low).zip(high) {
            let (low, high) = (i32::from(*low), i32::from(*high));
            let code = ((low >> (quarter / 2 * 4)) & 0x0F) | (((high >> (2 * quarter)) & 3) << 4);
            *out = scale * (code - 32) as f32;
        }
    }
}

/// The 6-bit scale and minimum of sub-block `i` (0..8) of Q4_K and Q5_K.
///
/// Bytes 0..4 and 4..8 hold scales and minima 0..4 in their low 6 bits; the nibbles of bytes 8..12 are the
/// low 4 bits of scales and minima 4..8, whose upper 2 bits are the upper bits of bytes 0..4 and 4..8.
#[inline(always)]
fn scale_and_min(packed: &[u8], i: usize) -> (u8, u8) {
    if i < 4 {
        (packed[i] & 0x3F, packed[i + 4] & 0x3F)
    } else {
        let low = packed[i + 4];
        ((low & 0x0F) | (packed[i - 4] >> 6 << 4), (low >> 4) | (packed[i] >> 6 << 4))
    }
}
