//! llama.cpp's IQ1_S and IQ1_M: eight weights are one of 2048 vectors of -1, 0 and 1, all moved up or down by
//! an eighth.
//!
//! `w = (d·(2·scale + 1))·(vector ± 1/8)`, every operation rounded to f32 in this order. A block has 32 codes
//! of 11 bits: their low 8 bits in a byte each, their upper 3 apart. Layouts: `block_iq1_s` and `block_iq1_m`
//! in llama.cpp's ggml-common.h.

use super::{codebooks, f16_at, f16_to_f32, u16_at};

const SHIFT: f32 = 0.125;

/// `d` f16, 32 low bytes of codes, 8 × u16: upper bits of four codes, 3-bit scale, direction of the shift.
#[inline(always)]
pub(super) fn iq1_s(block: &[u8; 50], out: &mut [f32; 256]) {
    let d = f16_at(block, 0);
    let codes = block[2..34].as_chunks::<4>().0;
    for (i, (out, codes)) in out.as_chunks_mut::<32>().0.iter_mut().zip(codes).enumerate() {
        let rest = u16_at(block, 34 + 2 * i);
        let scale = d * f32::from((rest >> 12 & 7) << 1 | 1);
        let shift = if rest & 0x8000 == 0 { SHIFT } else { -SHIFT };
        for (l, (out, low)) in out.as_chunks_mut().0.iter_mut().zip(codes).enumerate() {
            let high = rest >> (3 * l) & 7;
            octet(out, scale, shift, usize::from(high << 8 | u16::from(*low)));
        }
    }
}

/// 32 low bytes of codes, 16 bytes of nibbles: upper bits of a code and direction of its shift; 4 × u16: four
/// 3-bit scales of 16 weights each and a nibble of `d`.
#[inline(always)]
pub(super) fn iq1_m(block: &[u8; 56], out: &mut [f32; 256]) {
    let scales = [0, 1, 2, 3].map(|i| u16_at(block, 48 + 2 * i));
    let nibbles = [0, 1, 2, 3].map(|i| scales[i] >> 12 << (4 * i));
    let d = f16_to_f32(nibbles[0] | nibbles[1] | nibbles[2] | nibbles[3]);
    let codes = block[..32].as_chunks::<2>().0.iter().zip(&block[32..48]);
    for (i, (out, (codes, rest))) in out.as_chunks_mut::<16>().0.iter_mut().zip(codes).enumerate() {
        let scale = d * f32::from((scales[i / 4] >> (3 * (i % 4)) & 7) << 1 | 1);
        for (l, (out, low)) in out.as_chunks_mut().0.iter_mut().zip(codes).enumerate() {
            let rest = rest >> (4 * l);
            let shift = if rest & 8 == 0 { SHIFT } else { -SHIFT };
            octet(out, scale, shift, usize::from(rest & 7) << 8 | usize::from(*low));
        }
    }
}

/// Eight weights by their code, below 2048.
#[inline(always)]
fn octet(out: &mut [f32; 8], scale: f32, shift: f32, code: usize) {
    for (out, value) in out.iter_mut().zip(codebooks::IQ1[code].to_le_bytes()) {
        *out = scale * (f32::from(value as i8) + shift);
    }
}
