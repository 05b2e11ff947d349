//! llama.cpp's MXFP4 and NVFP4: 4-bit floating-point codes (E2M1) with a floating-point scale.
//!
//! `w = code·d`. Codes stand for twice their E2M1 value, which is whole, and scales for half of theirs, as in
//! llama.cpp: `kvalues_mxfp4`, `block_mxfp4` and `block_nvfp4` in ggml-common.h, the scales in ggml-impl.h.
//! NVFP4 as other tools define it has one more factor for the whole tensor. A GGUF file that needs it holds
//! it as a tensor of its own, named `.scale` in place of `.weight`; it is not applied here.

/// One E8M0 scale for 32 weights, 16 bytes of nibbles: byte `i` holds weights `i` and `i + 16`.
#[inline(always)]
pub(super) fn mxfp4(block: &[u8; 17], out: &mut [f32; 32]) {
    codes(out, half_of_e8m0(block[0]), &block[1..]);
}

/// Four unsigned E4M3 scales for 16 weights each, 4 × 8 bytes of nibbles: of 16 weights, byte `i` holds
/// weights `i` and `i + 8`.
#[inline(always)]
pub(super) fn nvfp4(block: &[u8; 36], out: &mut [f32; 64]) {
    let codes_of = block[4..].as_chunks::<8>().0;
    for (i, (out, bytes)) in out.as_chunks_mut::<16>().0.iter_mut().zip(codes_of).enumerate() {
        codes(out, HALF_OF_E4M3[usize::from(block[i])], bytes);
    }
}

/// The low nibbles of `bytes`, then the high ones, times `scale`.
#[inline(always)]
fn codes<const WEIGHTS: usize>(out: &mut [f32; WEIGHTS], scale: f32, bytes: &[u8]) {
    let (low, high) = out.split_at_mut(WEIGHTS / 2);
    for ((low, high), byte) in low.iter_mut().zip(high).zip(bytes) {
        *low = f32::from(twice_e2m1(byte & 0x0F)) * scale;
        *high = f32::from(twice_e2m1(byte >> 4)) * scale;
    }
}

/// Twice the value of a 4-bit E2M1 code: 0, 1, 2, 3, 4, 6, 8, 12 and, from 8 on, the same negated.
///
/// In arithmetic that vectors of bytes have: the steps grow from 1 to 2 above code 4 and to 4 above code 6.
/// There is no negative zero, as in llama.cpp.
#[inline(always)]
fn twice_e2m1(code: u8) -> i8 {
    let magnitude = code & 7;
    let two = magnitude.saturating_sub(4);
    let four = magnitude.saturating_sub(6) << 1;
    let value = magnitude.wrapping_add(two).wrapping_add(four) as i8;
    if code & 8 == 0 { value } else { value.wrapping_neg() }
}

/// Half of 2^(code − 127); the two smallest are subnormal. 255, NaN in the standard, is a number here.
#[inline(always)]
fn half_of_e8m0(code: u8) -> f32 {
    let code = u32::from(code);
    f32::from_bits(if code < 2 { 0x0020_0000 << code } else { (code - 1) << 23 })
}

/// Half of an unsigned E4M3: exponent in bits 3 to 6 with bias 7, 3 bits of fraction, bit 7 ignored. 0x7F,
/// NaN in the standard, is zero here.
static HALF_OF_E4M3: [f32; 256] = {
    let mut values = [0.0; 256];
    let mut code = 0u32;
    while code < 256 {
        let (exponent, fraction) = (code >> 3 & 15, code & 7);
        values[code as usize] = if code == 0x7F {
            0.0
        } else if exponent == 0 {
            fraction as f32 / 1024.0
        } else {
            f32::from_bits((exponent + 127 - 8) << 23 | fraction << 20)
        };
        code += 1;
    }
    values
};

#[cfg(test)]
mod tests {
    use super::*;

    /// By the definition of the formats, in f64, rounded once.
    #[test]
    fn every_scale_and_code_has_the_value_of_its_format() {
        for code in 0..=u8::MAX {
            assert_eq!(half_of_e8m0(code), 2f64.powi(i32::from(code) - 128) as f32);
            let (exponent, fraction) = (i32::from(code >> 3 & 15), f64::from(code & 7) / 8.0);
            let value = match (exponent, code) {
                (_, 0x7F) => 0.0,
                (0, _) => fraction * 2f64.powi(-6),
                _ => (1.0 + fraction) * 2f64.powi(exponent - 7),
            };
            assert_eq!(f64::from(HALF_OF_E4M3[usize::from(code)]), value / 2.0, "{code:#x}");
        }
        for code in 0..16u8 {
            let (exponent, fraction) = (i32::from(code >> 1 & 3), f64::from(code & 1) / 2.0);
            let magnitude = if exponent == 0 { fraction } else { (1.0 + fraction) * 2f64.powi(exponent - 1) };
            let sign = if code < 8 { 2.0 } else { -2.0 };
            assert_eq!(f64::from(twice_e2m1(code)), sign * magnitude, "{code}");
        }
    }
}
