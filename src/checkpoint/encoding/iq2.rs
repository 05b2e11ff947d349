//! llama.cpp's IQ2_XXS, IQ2_XS and IQ2_S: eight weights are one vector of a codebook of magnitudes, with a
//! sign each.
//!
//! `w = (d·(1/2 + scale)·1/4)·magnitude`, negated where the weight's sign bit is set; every operation rounded
//! to f32 in this order. 256 weights with 4-bit scales. Layouts: `block_iq2_xxs`, `block_iq2_xs` and
//! `block_iq2_s` in llama.cpp's ggml-common.h.

use super::signs::{even_signs, signed};
use super::{codebooks, f16_at, u16_at, u32_at};

/// `d` f16, then for each 32 weights four 8-bit codes and a u32 of four 7-bit signs and one scale.
#[inline(always)]
pub(super) fn iq2_xxs(block: &[u8; 66], out: &mut [f32; 256]) {
    let d = f16_at(block, 0);
    let groups = block[2..].as_chunks::<8>().0;
    for (out, group) in out.as_chunks_mut::<32>().0.iter_mut().zip(groups) {
        let rest = u32_at(group, 4);
        let scale = scale(d, (rest >> 28) as u8);
        for (l, out) in out.as_chunks_mut().0.iter_mut().enumerate() {
            let magnitudes = codebooks::IQ2_XXS[usize::from(group[l])];
            signed(out, scale, magnitudes, even_signs(rest >> (7 * l)));
        }
    }
}

/// `d` f16, 32 × u16: 9-bit code and 7-bit signs; 16 nibbles of scales.
#[inline(always)]
pub(super) fn iq2_xs(block: &[u8; 74], out: &mut [f32; 256]) {
    let d = f16_at(block, 0);
    let codes = block[2..66].as_chunks::<4>().0;
    for (i, (out, codes)) in out.as_chunks_mut::<16>().0.iter_mut().zip(codes).enumerate() {
        let scale = scale(d, block[66 + i / 2] >> (i % 2 * 4) & 0x0F);
        for (l, out) in out.as_chunks_mut().0.iter_mut().enumerate() {
            let code = u16_at(codes, 2 * l);
            let magnitudes = codebooks::IQ2_XS[usize::from(code & 511)];
            signed(out, scale, magnitudes, even_signs(u32::from(code >> 9)));
        }
    }
}

/// `d` f16, 32 bytes of codes, 32 bytes of signs, 8 bytes of upper 2 bits of codes, 16 nibbles of scales.
#[inline(always)]
pub(super) fn iq2_s(block: &[u8; 82], out: &mut [f32; 256]) {
    let d = f16_at(block, 0);
    let codes = block[2..34].as_chunks::<2>().0;
    let signs = block[34..66].as_chunks::<2>().0;
    for (i, (out, (codes, signs))) in
        out.as_chunks_mut::<16>().0.iter_mut().zip(codes.iter().zip(signs)).enumerate()
    {
        let scale = scale(d, block[74 + i / 2] >> (i % 2 * 4) & 0x0F);
        let high = block[66 + i / 2] >> (i % 2 * 4);
        for (l, out) in out.as_chunks_mut().0.iter_mut().enumerate() {
            let high = usize::from(high >> (2 * l) & 3);
            let magnitudes = codebooks::IQ2_S[high << 8 | usize::from(codes[l])];
            signed(out, scale, magnitudes, signs[l]);
        }
    }
}

#[inline(always)]
fn scale(d: f32, scale: u8) -> f32 {
    d * (0.5 + f32::from(scale)) * 0.25
}
