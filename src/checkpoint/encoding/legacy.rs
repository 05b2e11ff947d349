//! llama.cpp's first encodings: 32 weights share one f16 scale `d`, and in the `_1` kinds one f16 minimum
//! `m`.
//!
//! `w = d·(q − zero)` with the zero in the middle of the codes, or `w = d·q + m`.
//! Byte `i` of the codes holds weight `i` in its low nibble and weight `i + 16` in its high nibble;
//! fifth bits stand apart, weight `i` at bit `i` of a little-endian u32.
//! Layouts: `block_q4_0` … `block_q8_0` in llama.cpp's ggml-common.h.

use super::f16_at;

/// `d` f16, 16 bytes of nibbles; zero is 8.
#[inline(always)]
pub(super) fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    let codes = nibbles(&block[2..]);
    for (out, code) in out.iter_mut().zip(codes) {
        *out = (f32::from(code) - 8.0) * d;
    }
}

/// `d` f16, `m` f16, 16 bytes of nibbles.
#[inline(always)]
pub(super) fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m) = (f16_at(block, 0), f16_at(block, 2));
    let codes = nibbles(&block[4..]);
    for (out, code) in out.iter_mut().zip(codes) {
        *out = f32::from(code) * d + m;
    }
}

/// `d` f16, 4 bytes of fifth bits, 16 bytes of nibbles; zero is 16.
#[inline(always)]
pub(super) fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    let codes = five_bits(&block[6..], [block[2], block[3], block[4], block[5]]);
    for (out, code) in out.iter_mut().zip(codes) {
        *out = (f32::from(code) - 16.0) * d;
    }
}

/// `d` f16, `m` f16, 4 bytes of fifth bits, 16 bytes of nibbles.
#[inline(always)]
pub(super) fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (d, m) = (f16_at(block, 0), f16_at(block, 2));
    let codes = five_bits(&block[8..], [block[4], block[5], block[6], block[7]]);
    for (out, code) in out.iter_mut().zip(codes) {
        *out = f32::from(code) * d + m;
    }
}

/// `d` f16, 32 signed bytes.
#[inline(always)]
pub(super) fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    // A copy cannot overlap `out`; where the compiler fears that it may, it gives up vectors.
    let [_, _, codes @ ..] = *block;
    for (out, code) in out.iter_mut().zip(codes) {
        *out = f32::from(code as i8) * d;
    }
}

/// The 32 codes of 16 bytes: all low nibbles, then all high ones.
#[inline(always)]
fn nibbles(bytes: &[u8]) -> [u8; 32] {
    let mut codes = [0; 32];
    let (low, high) = codes.split_at_mut(16);
    for ((low, high), byte) in low.iter_mut().zip(high).zip(bytes) {
        *low = byte & 0x0F;
        *high = byte >> 4;
    }
    codes
}

/// The nibbles of `bytes` with bit 4 of code `i` from bit `i` of `fifth`.
#[inline(always)]
fn five_bits(bytes: &[u8], fifth: [u8; 4]) -> [u8; 32] {
    let mut codes = nibbles(bytes);
    for (i, code) in codes.iter_mut().enumerate() {
        let bit = (fifth[i / 8] >> (i % 8)) & 1;
        *code |= bit << 4;
    }
    codes
}
