//! llama.cpp's K-quants: 256 weights in sub-blocks of 16 or 32, whose small integer scales share one f16
//! scale.
//!
//! `w = (d·scale)·q − (dmin·min)` for Q2_K, Q4_K and Q5_K, `w = (d·scale)·(q − zero)` for Q3_K and Q6_K,
//! every operation rounded to f32 in this order. The codes of neighbouring weights lie in neighbouring bytes
//! and the sub-blocks above one another in the bits of those bytes, so each loop below shifts a run of bytes.
//! Layouts: `block_q2_K` … `block_q6_K` in llama.cpp's ggml-common.h (QK_K = 256).

use super::f16_at;

/// 16 bytes of scale (low nibble) and minimum (high), 64 bytes of 2-bit codes, `d` f16, `dmin` f16.
#[inline(always)]
pub(super) fn q2_k(block: &[u8; 84], out: &mut [f32; 256]) {
    let (scales, codes) = (&block[..16], block[16..80].as_chunks::<16>().0);
    let (d, dmin) = (f16_at(block, 80), f16_at(block, 82));
    for (half, out) in halves(out).iter_mut().enumerate() {
        for side in [0, 1] {
            let of_quarter = |quarter: usize| scales[8 * half + 2 * quarter + side];
            let scale = [0, 1, 2, 3].map(|quarter| d * f32::from(of_quarter(quarter) & 0x0F));
            let min = [0, 1, 2, 3].map(|quarter| dmin * f32::from(of_quarter(quarter) >> 4));
            let codes = &codes[2 * half + side];
            for l in 0..16 {
                let byte = codes[l];
                out[side][l] = scale[0] * f32::from(byte & 3) - min[0];
                out[2 + side][l] = scale[1] * f32::from(byte >> 2 & 3) - min[1];
                out[4 + side][l] = scale[2] * f32::from(byte >> 4 & 3) - min[2];
                out[6 + side][l] = scale[3] * f32::from(byte >> 6) - min[3];
            }
        }
    }
}

/// 32 bytes of third bits, 64 bytes of low 2 bits, 12 bytes of 6-bit scales, `d` f16; zero is 4, a scale's is
/// 32.
#[inline(always)]
pub(super) fn q3_k(block: &[u8; 110], out: &mut [f32; 256]) {
    let (third_bits, codes) = (block[..32].as_chunks::<16>().0, block[32..96].as_chunks::<16>().0);
    let (packed_scales, d) = (&block[96..108], f16_at(block, 108));
    for (half, out) in halves(out).iter_mut().enumerate() {
        for side in [0, 1] {
            let scale = [0, 1, 2, 3].map(|quarter| {
                // Scale i: low 4 bits in the nibbles of the first 8 bytes, upper 2 bits in the last 4 bytes.
                let i = 8 * half + 2 * quarter + side;
                let low = packed_scales[i % 8] >> (4 * half) & 0x0F;
                let high = packed_scales[8 + i % 4] >> (i / 4 * 2) & 3;
                d * (f32::from(high << 4 | low) - 32.0)
            });
            let (codes, third_bits) = (&codes[2 * half + side], &third_bits[side]);
            for l in 0..16 {
                let (byte, third) = (i32::from(codes[l]), i32::from(third_bits[l]) >> (4 * half));
                out[side][l] = scale[0] * ((byte & 3 | (third & 1) << 2) - 4) as f32;
                out[2 + side][l] = scale[1] * ((byte >> 2 & 3 | (third & 2) << 1) - 4) as f32;
                out[4 + side][l] = scale[2] * ((byte >> 4 & 3 | third & 4) - 4) as f32;
                out[6 + side][l] = scale[3] * ((byte >> 6 | third >> 1 & 4) - 4) as f32;
            }
        }
    }
}

/// `d` f16, `dmin` f16, 12 bytes of 6-bit scales and minima, 128 bytes of nibbles.
#[inline(always)]
pub(super) fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
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

/// `d` f16, `dmin` f16, 12 bytes of 6-bit scales and minima, 32 bytes of fifth bits, 128 bytes of nibbles.
#[inline(always)]
pub(super) fn q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
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

/// 128 bytes of low nibbles, 64 bytes of upper 2 bits, 16 signed bytes of scales, `d` f16; zero is 32.
#[inline(always)]
pub(super) fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let (low_bits, high_bits) = (block[..128].as_chunks::<16>().0, block[128..192].as_chunks::<16>().0);
    let (scales, d) = (&block[192..208], f16_at(block, 208));
    for (half, out) in halves(out).iter_mut().enumerate() {
        for side in [0, 1] {
            let scale =
                [0, 1, 2, 3].map(|quarter| d * f32::from(scales[8 * half + 2 * quarter + side] as i8));
            let (even, odd) = (&low_bits[4 * half + side], &low_bits[4 * half + 2 + side]);
            let high = &high_bits[2 * half + side];
            for l in 0..16 {
                let code = [
                    even[l] & 0x0F | (high[l] & 3) << 4,
                    odd[l] & 0x0F | (high[l] >> 2 & 3) << 4,
                    even[l] >> 4 | (high[l] >> 4 & 3) << 4,
                    odd[l] >> 4 | high[l] >> 6 << 4,
                ];
                out[side][l] = scale[0] * (f32::from(code[0]) - 32.0);
                out[2 + side][l] = scale[1] * (f32::from(code[1]) - 32.0);
                out[4 + side][l] = scale[2] * (f32::from(code[2]) - 32.0);
                out[6 + side][l] = scale[3] * (f32::from(code[3]) - 32.0);
            }
        }
    }
}

/// The two halves of a block as four quarters of two sub-blocks each.
///
/// In Q2_K, Q3_K and Q6_K one run of 16 bytes holds codes of all four quarters of a half. Decoding the four
/// in one loop gives the compiler something that it turns into vectors; a loop over one sub-block it unrolls.
#[inline(always)]
fn halves(out: &mut [f32; 256]) -> &mut [[[f32; 16]; 8]] {
    out.as_chunks_mut().0.as_chunks_mut().0
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
