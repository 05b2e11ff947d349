//! A small seeded generator, so that a resampled interval is the same on every platform and in every version.
//!
//! xoshiro256++ (Blackman and Vigna 2021, "Scrambled linear pseudorandom number generators", ACM TOMS 47:36),
//! its state filled by SplitMix64 (Steele, Lea and Flood 2014, doi 10.1145/2660193.2660195) as its authors
//! advise. Not for cryptography.

/// The generator.
#[derive(Clone, Debug)]
pub(super) struct Xoshiro256 {
    state: [u64; 4],
}

impl Xoshiro256 {
    pub(super) fn seeded(seed: u64) -> Self {
        let mut split_mix = seed;
        Self { state: std::array::from_fn(|_| next_split_mix(&mut split_mix)) }
    }

    #[inline]
    pub(super) fn next(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let result = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }
}

/// A number below `bound` from 32 random bits by multiplication (Lemire 2019, doi 10.1145/3230636), without
/// its rejection step: no value is likelier than another by more than bound/2³².
#[inline]
pub(super) fn below(bound: u32, bits: u32) -> usize {
    ((u64::from(bound) * u64::from(bits)) >> 32) as usize
}

fn next_split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// First outputs of the authors' C code (prng.di.unimi.it/xoshiro256plusplus.c) from state 1, 2, 3, 4.
    #[test]
    fn is_the_published_generator() {
        let mut random = Xoshiro256 { state: [1, 2, 3, 4] };
        let expected = [
            41_943_041,
            58_720_359,
            3_588_806_011_781_223,
            3_591_011_842_654_386,
            9_228_616_714_210_784_205,
            9_973_669_472_204_895_162,
        ];
        assert_eq!(expected.map(|_| random.next()), expected);
    }

    /// First outputs of the authors' C code (prng.di.unimi.it/splitmix64.c) from 1234567.
    #[test]
    fn is_seeded_by_the_published_generator() {
        let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        let mut state = 1_234_567;
        assert_eq!(expected.map(|_| next_split_mix(&mut state)), expected);
        assert_eq!(Xoshiro256::seeded(1_234_567).state[..3], expected);
    }

    #[test]
    fn every_index_is_as_likely() {
        let mut random = Xoshiro256::seeded(1);
        let mut counts = [0u32; 7];
        for _ in 0..70_000 {
            counts[below(7, (random.next() >> 32) as u32)] += 1;
        }
        // Standard deviation 93.
        assert!(counts.iter().all(|&count| count.abs_diff(10_000) < 400), "{counts:?}");
        assert_eq!((below(7, 0), below(7, u32::MAX), below(1, u32::MAX)), (0, 6, 0));
    }
}
