//! llama.cpp's IQ3_XXS and IQ3_S: four weights are one vector of a codebook of magnitudes, with a sign each.
//!
//! `w = (d·(1/2 + scale)·1/2)·magnitude` for IQ3_XXS, `w = (d·(2·scale + 1))·magnitude` for IQ3_S, negated
//! where the weight's sign bit is set; every operation rounded to f32 in this order. 256 weights, one 4-bit
//! scale for 32 of them. Layouts: `block_iq3_xxs` and `block_iq3_s` in llama.cpp's ggml-common.h.

use super::signs::{even_signs, signed};
use super::{codebooks, f16_at, u32_at};

/// `d` f16, 64 bytes of codes, then for each 32 weights a u32 of four 7-bit signs and one scale.
#[inline(always)]
pub(super) fn iq3_xxs(block: &[u8; 98], out: &mut [f32; 256]) {
    let d = f16_at(block, 0);
    let codes = block[2..66].as_chunks::<8>().0;
    for (i, (out, codes)) in out.as_chunks_mut::<32>().0.iter_mut().zip(codes).enumerate() {
        let rest = u32_at(block, 66 + 4 * i);
        let scale = d * (0.5 + (rest >> 28) as f32) * 0.5;
        for (l, out) in out.as_chunks_mut().0.iter_mut().enumerate() {
            let magnitudes =
                [codes[2 * l], codes[2 * l + 1]].map(|code| codebooks::IQ3_XXS[usize::from(code)]);
            signed(out, scale, octet(magnitudes), even_signs(rest >> (7 * l)));
        }
    }
}

/// `d` f16, 64 bytes of codes, 8 bytes of their ninth bits, 32 bytes of signs, 8 nibbles of scales.
#[inline(always)]
pub(super) fn iq3_s(block: &[u8; 110], out: &mut [f32; 256]) {
    let d = f16_at(block, 0);
    let (codes, ninth_bits) = (block[2..66].as_chunks::<8>().0, &block[66..74]);
    let (signs, scales) = (block[74..106].as_chunks::<4>().0, &block[106..110]);
    for (i, (out, (codes, signs))) in
        out.as_chunks_mut::<32>().0.iter_mut().zip(codes.iter().zip(signs)).enumerate()
    {
        let ninth_bits = ninth_bits[i];
        let scale = d * f32::from((scales[i / 2] >> (i % 2 * 4) & 0x0F) << 1 | 1);
        for (l, out) in out.as_chunks_mut().0.iter_mut().enumerate() {
            let magnitudes = [2 * l, 2 * l + 1].map(|at| {
                let ninth = usize::from(ninth_bits >> at & 1);
                codebooks::IQ3_S[ninth << 8 | usize::from(codes[at])]
            });
            signed(out, scale, octet(magnitudes), signs[l]);
        }
    }
}

#[inline(always)]
fn octet([first, second]: [u32; 2]) -> u64 {
    u64::from(second) << 32 | u64::from(first)
}
