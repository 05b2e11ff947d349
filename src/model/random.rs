//! Numbers without a pattern, the same on every machine: for matrices and signs that must not change between runs.

/// SplitMix64 (Steele, Lea and Flood 2014).
pub(super) struct SplitMix(u64);

impl SplitMix {
    /// Equal seeds give equal numbers.
    pub(super) fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 bits.
    pub(super) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A multiple of 2^−53 in [0, 1).
    pub(super) fn next(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }
}
