//! Eight magnitudes and their signs, as IQ2 and IQ3 store them.

/// Eight signs from the low 7 bits of `seven`: the number of minus signs is even, so the eighth follows from
/// the others.
#[inline(always)]
pub(super) fn even_signs(seven: u32) -> u8 {
    SIGNS[(seven & 0x7F) as usize]
}

/// `scale` times each byte of `magnitudes`, lowest first, negated where the bit of `signs` is set.
#[inline(always)]
pub(super) fn signed(out: &mut [f32; 8], scale: f32, magnitudes: u64, signs: u8) {
    for (i, (out, magnitude)) in out.iter_mut().zip(magnitudes.to_le_bytes()).enumerate() {
        let sign = (u32::from(signs) << (31 - i)) & 0x8000_0000;
        *out = f32::from_bits((scale * f32::from(magnitude)).to_bits() ^ sign);
    }
}

/// By 7 bits: the same with their parity as the eighth bit.
static SIGNS: [u8; 128] = {
    let mut signs = [0; 128];
    let mut seven = 0;
    while seven < 128u8 {
        signs[seven as usize] = seven | ((seven.count_ones() & 1) as u8) << 7;
        seven += 1;
    }
    signs
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_are_even_and_negate_their_own_weight() {
        let magnitudes = [1u8, 2, 3, 4, 5, 6, 7, 8];
        for seven in 0..128u8 {
            let signs = even_signs(u32::from(seven) | 0xFFFF_FF80);
            assert_eq!((signs & 0x7F, signs.count_ones() % 2), (seven, 0));
            let mut out = [0.0; 8];
            signed(&mut out, 0.5, u64::from_le_bytes(magnitudes), signs);
            for (weight, magnitude) in magnitudes.iter().enumerate() {
                let half = f32::from(*magnitude) / 2.0;
                assert_eq!(out[weight], if signs >> weight & 1 == 1 { -half } else { half });
            }
        }
    }
}
