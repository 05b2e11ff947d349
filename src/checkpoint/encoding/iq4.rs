//! llama.cpp's IQ4_NL and IQ4_XS: 4-bit codes for sixteen values that lie closer together near zero.
//!
//! `w = d·value` for IQ4_NL, `w = (d·(scale − 32))·value` for IQ4_XS, every operation rounded to f32 in this
//! order. Of 32 weights, byte `i` of the codes holds weight `i` in its low nibble and weight `i + 16` in its
//! high nibble. Layouts: `block_iq4_nl` and `block_iq4_xs` in llama.cpp's ggml-common.h.

use super::{f16_at, u16_at};

/// The values of the codes: `kvalues_iq4nl` in ggml-common.h.
pub const IQ4_VALUES: [f32; 16] = [
    -127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0,
];

/// A table in memory for look-ups.
static VALUES: [f32; 16] = IQ4_VALUES;

/// `d` f16, 16 bytes of nibbles.
#[inline(always)]
pub(super) fn iq4_nl(block: &[u8; 18], out: &mut [f32; 32]) {
    values(out, f16_at(block, 0), &block[2..]);
}

/// `d` f16, u16 of upper 2 bits of scales, 8 nibbles of their lower 4 bits, 128 bytes of nibbles.
#[inline(always)]
pub(super) fn iq4_xs(block: &[u8; 136], out: &mut [f32; 256]) {
    let d = f16_at(block, 0);
    let high = u16_at(block, 2);
    let codes = block[8..].as_chunks::<16>().0;
    for (i, (out, codes)) in out.as_chunks_mut().0.iter_mut().zip(codes).enumerate() {
        let low = block[4 + i / 2] >> (i % 2 * 4) & 0x0F;
        let scale = (high >> (2 * i) & 3) << 4 | u16::from(low);
        values(out, d * (f32::from(scale) - 32.0), codes);
    }
}

/// `scale` times the values of 32 nibbles.
#[inline(always)]
fn values(out: &mut [f32; 32], scale: f32, codes: &[u8]) {
    let (low, high) = out.split_at_mut(16);
    for ((low, high), byte) in low.iter_mut().zip(high).zip(codes) {
        *low = scale * VALUES[usize::from(byte & 0x0F)];
        *high = scale * VALUES[usize::from(byte >> 4)];
    }
}
