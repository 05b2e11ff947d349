//! llama.cpp's types of one and two bits without codebook: Q1_0 and Q2_0, and TQ1_0 and TQ2_0 for weights
//! that are -1, 0 or 1.
//!
//! `w = (code − 1)·d`, for Q1_0 `w = ±d`. Layouts: `block_q1_0`, `block_q2_0`, `block_tq1_0` and
//! `block_tq2_0` in llama.cpp's ggml-common.h, 2026. Q2_0 has 64 weights to a scale; the fork that it comes
//! from wrote 128 under the same number, in blocks that are shorter per weight, so that its tensors overlap
//! when read as these.

use super::{f16_at, u32_at};

/// `d` f16, 16 bytes: weight `i` is `d` if bit `i` is set, else `−d`.
#[inline(always)]
pub(super) fn q1_0(block: &[u8; 18], out: &mut [f32; 128]) {
    let d = f16_at(block, 0).to_bits();
    for (out, byte) in out.as_chunks_mut::<8>().0.iter_mut().zip(&block[2..]) {
        let minus = u32::from(!byte);
        for (i, out) in out.iter_mut().enumerate() {
            *out = f32::from_bits(d ^ (minus << (31 - i) & 0x8000_0000));
        }
    }
}

/// `d` f16, 16 bytes of four codes each, the first in the lowest bits; code 3 stands for 2·d.
#[inline(always)]
pub(super) fn q2_0(block: &[u8; 18], out: &mut [f32; 64]) {
    let d = f16_at(block, 0);
    for (l, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let codes = u32_at(block, 2 + 4 * l);
        for (i, out) in out.iter_mut().enumerate() {
            *out = ((codes >> (2 * i) & 3) as f32 - 1.0) * d;
        }
    }
}

/// 48 bytes of five ternary digits, 4 bytes of four, `d` f16.
#[inline(always)]
pub(super) fn tq1_0(block: &[u8; 54], out: &mut [f32; 256]) {
    let d = f16_at(block, 52);
    let (runs_of_32, rest) = out.split_at_mut(160);
    let (runs_of_16, runs_of_4) = rest.split_at_mut(80);
    for (out, power) in runs_of_32.as_chunks_mut::<32>().0.iter_mut().zip(POWERS) {
        digits(out, d, &block[..32], power);
    }
    for (out, power) in runs_of_16.as_chunks_mut::<16>().0.iter_mut().zip(POWERS) {
        digits(out, d, &block[32..48], power);
    }
    for (out, power) in runs_of_4.as_chunks_mut::<4>().0.iter_mut().zip(POWERS) {
        digits(out, d, &block[48..52], power);
    }
}

/// 64 bytes of 2-bit codes, `d` f16: bits `2·l` of 32 bytes are 32 neighbouring weights.
#[inline(always)]
pub(super) fn tq2_0(block: &[u8; 66], out: &mut [f32; 256]) {
    let d = f16_at(block, 64);
    for (i, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (half, shift) = (i / 4, i % 4 * 2);
        for (out, byte) in out.iter_mut().zip(&block[32 * half..32 * half + 32]) {
            *out = (f32::from(byte >> shift & 3) - 1.0) * d;
        }
    }
}

/// What moves a ternary digit to the first place after the point.
const POWERS: [u8; 5] = [1, 3, 9, 27, 81];

/// One ternary digit of each byte: a byte is a fraction of 256 whose first five ternary digits are five
/// weights.
#[inline(always)]
fn digits(out: &mut [f32], d: f32, bytes: &[u8], power: u8) {
    for (out, byte) in out.iter_mut().zip(bytes) {
        let fraction = u16::from(byte.wrapping_mul(power));
        let digit = fraction.wrapping_mul(3) >> 8;
        *out = (f32::from(digit) - 1.0) * d;
    }
}
