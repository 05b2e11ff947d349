//! Floats of 8 and 4 bits: their values, their codes, and rounding to them.
//!
//! E4M3 and E5M2 as OCP's 8-bit floating point specification (OFP8, 2023) defines them (E4M3 without infinities,
//! largest 448), E2M1 and E8M0 as its microscaling specification (MX 1.0, 2023). Rounding is to nearest, ties to
//! even, saturating, without a branch, so that loops over it vectorize.

/// The largest finite E4M3.
pub const E4M3_MAX: f32 = 448.0;

/// The largest E2M1.
pub const E2M1_MAX: f32 = 6.0;

/// The value of each E2M1 code; bit 3 is the sign.
pub const E2M1: [f32; 16] =
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

/// The value of each E4M3 code; 0x7F and 0xFF are NaN.
pub static E4M3: [f32; 256] = table(4, 3);

/// The value of each E5M2 code, infinities and NaN included.
pub static E5M2: [f32; 256] = table(5, 2);

const fn table(exponent_bits: u32, mantissa_bits: u32) -> [f32; 256] {
    let mut values = [0.0; 256];
    let mut code = 0u32;
    while code < 256 {
        values[code as usize] = value(code, exponent_bits, mantissa_bits);
        code += 1;
    }
    values
}

const fn value(code: u32, exponent_bits: u32, mantissa_bits: u32) -> f32 {
    let sign = (code >> 7) << 31;
    let exponent = (code >> mantissa_bits) & ((1 << exponent_bits) - 1);
    let mantissa = code & ((1 << mantissa_bits) - 1);
    let bias = (1 << (exponent_bits - 1)) - 1;
    let all_ones = exponent == (1 << exponent_bits) - 1;
    let bits = if exponent_bits == 5 && all_ones {
        0xFF << 23 | mantissa << (23 - mantissa_bits)
    } else if exponent_bits == 4 && all_ones && mantissa == (1 << mantissa_bits) - 1 {
        0x7FC0_0000
    } else if exponent == 0 {
        // mantissa · 2^(1 − bias − mantissa_bits), a product of two exact floats.
        let unit = f32::from_bits((127 + 1 - bias - mantissa_bits) << 23);
        (mantissa as f32 * unit).to_bits()
    } else {
        (exponent + 127 - bias) << 23 | mantissa << (23 - mantissa_bits)
    };
    f32::from_bits(sign | bits)
}

/// The value of an E8M0 scale, 2^(code − 127); 255 is NaN.
#[inline(always)]
pub const fn e8m0(code: u8) -> f32 {
    match code {
        // 2^−127 is subnormal in f32.
        0 => f32::from_bits(1 << 22),
        255 => f32::NAN,
        code => f32::from_bits((code as u32) << 23),
    }
}

/// The code of a value that is one of E4M3's, the sign of zero included.
#[inline(always)]
pub fn e4m3_code(value: f32) -> u8 {
    const LEAST_NORMAL: f32 = 1.0 / 64.0;
    let (bits, magnitude) = (value.to_bits(), value.abs());
    // The exponent's bias is 127 in f32 and 7 here; a subnormal counts steps of 2^−9.
    let normal = ((bits >> 20) & 0x7FF).wrapping_sub((127 - 7) << 3);
    let code = if magnitude < LEAST_NORMAL { (magnitude * 512.0) as u32 } else { normal };
    (code & 0x7F) as u8 | (bits >> 24 & 0x80) as u8
}

/// The code of a value that is one of E2M1's, the sign of zero included.
#[inline(always)]
pub fn e2m1_code(value: f32) -> u8 {
    let (bits, magnitude) = (value.to_bits(), value.abs());
    // The exponent's bias is 127 in f32 and 1 here; a subnormal counts steps of ½.
    let normal = ((bits >> 22) & 0x1FF).wrapping_sub((127 - 1) << 1);
    let code = if magnitude < 1.0 { (magnitude * 2.0) as u32 } else { normal };
    (code & 7) as u8 | (bits >> 28 & 8) as u8
}

/// The code of an E8M0 scale: of 2^(code − 127).
#[inline(always)]
pub fn e8m0_code(scale: f32) -> u8 {
    // 2^−127, code 0, is subnormal in f32, where the exponent's bits are 0, too.
    (scale.to_bits() >> 23) as u8
}

/// The nearest E4M3 value; beyond ±448 the largest. NaN stays NaN.
#[inline(always)]
pub fn round_e4m3(x: f32) -> f32 {
    round_to::<3, -6>(x, E4M3_MAX)
}

/// The nearest E2M1 value; beyond ±6 the largest. NaN stays NaN.
#[inline(always)]
pub fn round_e2m1(x: f32) -> f32 {
    round_to::<1, 0>(x, E2M1_MAX)
}

/// The nearest value with so many mantissa bits, the exponent not below `MIN_EXPONENT` (subnormals keep its step).
///
/// Adding and subtracting 1.5·2^(e + 23 − mantissa bits) leaves a multiple of the step 2^(e − mantissa bits).
#[inline(always)]
fn round_to<const MANTISSA_BITS: u32, const MIN_EXPONENT: i32>(x: f32, max: f32) -> f32 {
    let clamped = if x > max { max } else { x };
    let clamped = if clamped < -max { -max } else { clamped };
    let lowest = ((127 + MIN_EXPONENT) as u32) << 23;
    let exponent = clamped.to_bits() & 0x7F80_0000;
    let exponent = if exponent < lowest { lowest } else { exponent };
    let magic = 1.5 * f32::from_bits(exponent.wrapping_add((23 - MANTISSA_BITS) << 23));
    (clamped + magic) - magic
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e4m3_and_e5m2_equal_the_float8_crate() {
        for code in 0..=255u8 {
            let (e4m3, e5m2) = (float8::F8E4M3::from_bits(code), float8::F8E5M2::from_bits(code));
            for (ours, theirs) in [(E4M3[code as usize], e4m3.to_f32()), (E5M2[code as usize], e5m2.to_f32())]
            {
                assert!(
                    ours.to_bits() == theirs.to_bits() || (ours.is_nan() && theirs.is_nan()),
                    "{code:#04x}: {ours} against {theirs}"
                );
            }
        }
        assert_eq!(E4M3[0x7E], E4M3_MAX);
    }

    #[test]
    fn scales_are_powers_of_two() {
        for code in 0..255u8 {
            assert_eq!(f64::from(e8m0(code)), 2f64.powi(i32::from(code) - 127));
        }
        assert!(e8m0(255).is_nan());
    }

    #[test]
    fn codes_are_those_of_their_values() {
        for code in 0..=255u8 {
            if code & 0x7F != 0x7F {
                assert_eq!(e4m3_code(E4M3[code as usize]), code);
            }
            if code < 255 {
                assert_eq!(e8m0_code(e8m0(code)), code);
            }
        }
        for code in 0..16 {
            assert_eq!(e2m1_code(E2M1[code as usize]), code);
        }
    }

    /// The nearest of `values`, ties to the one with an even index (codes are in the order of magnitude).
    fn nearest(x: f32, values: &[f32]) -> f32 {
        let distance = |value: &f32| (f64::from(*value) - f64::from(x.abs())).abs();
        let mut best = 0;
        for (index, value) in values.iter().enumerate().skip(1) {
            let (new, old) = (distance(value), distance(&values[best]));
            if new < old || (new == old && index % 2 == 0) {
                best = index;
            }
        }
        values[best].copysign(x)
    }

    #[test]
    fn rounding_is_to_the_nearest_value_ties_to_even() {
        let eights: Vec<f32> = E4M3[..0x7F].to_vec();
        let fours = &E2M1[..8];
        let neighbours = |values: &[f32]| -> Vec<f32> {
            let middles = values.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0);
            let around = middles.flat_map(|middle| [middle, middle.next_up(), middle.next_down()]);
            around.chain(values.iter().copied()).flat_map(|x| [x, -x]).collect()
        };
        for x in neighbours(&eights) {
            assert_eq!(round_e4m3(x), nearest(x, &eights), "{x}");
        }
        for x in neighbours(fours) {
            assert_eq!(round_e2m1(x), nearest(x, fours), "{x}");
        }
        for step in 0..200_000 {
            let x = (step as f32 - 100_000.0) * 0.005_3;
            assert_eq!(round_e4m3(x), nearest(x, &eights), "{x}");
            assert_eq!(round_e2m1(x / 64.0), nearest(x / 64.0, fours), "{x}");
        }
        assert_eq!((round_e4m3(1e30), round_e4m3(f32::NEG_INFINITY), round_e2m1(9.0)), (448.0, -448.0, 6.0));
        assert!(round_e4m3(f32::NAN).is_nan() && round_e2m1(f32::NAN).is_nan());
    }
}
