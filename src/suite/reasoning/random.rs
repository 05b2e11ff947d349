//! The suite's own small generator: the same questions on every platform, in every version.
//!
//! SplitMix64 (Steele, Lea and Flood 2014, doi 10.1145/2660193.2660195). Kept apart from the one that
//! resamples, so that a change there never changes a question. Not for cryptography.

/// The generator.
pub(super) struct Random {
    state: u64,
}

impl Random {
    /// A stream for a list of numbers; another list is another stream.
    pub(super) fn of(parts: &[u64]) -> Self {
        let mut random = Self { state: 0 };
        for part in parts {
            random.state ^= part;
            random.state = random.next();
        }
        random
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 to `bound − 1` (0 if `bound` is 0), by multiplication (Lemire 2019, doi 10.1145/3230636): no
    /// value is likelier than another by more than bound/2⁶⁴.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    /// From `low` to `high`, both included; `low` if `high` is less.
    pub(super) fn between(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low + 1).max(0) as usize) as i64
    }

    /// True `part` times in `whole`.
    pub(super) fn chance(&mut self, part: usize, whole: usize) -> bool {
        self.below(whole) < part
    }

    /// One of `items`, of which there must be at least one.
    pub(super) fn pick<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())].clone()
    }

    /// So many different ones of `items`, in random order; all of them if there are fewer.
    pub(super) fn sample<T: Clone>(&mut self, items: &[T], count: usize) -> Vec<T> {
        let mut items = items.to_vec();
        self.shuffle(&mut items);
        items.truncate(count);
        items
    }

    /// Every order equally likely (Fisher and Yates).
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// A number for a name (FNV-1a, 64 bits), so that the order of families does not matter.
pub(super) fn tag(name: &str) -> u64 {
    name.bytes()
        .fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// First outputs of the authors' C code (prng.di.unimi.it/splitmix64.c) from 1234567.
    #[test]
    fn is_the_published_generator() {
        let mut random = Random { state: 1_234_567 };
        let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!(expected.map(|_: u64| random.next()), expected);
    }

    /// The published test vectors of FNV-1a (www.isthe.com/chongo/tech/comp/fnv): "", "a", "foobar".
    #[test]
    fn tags_are_fnv_1a() {
        let expected = [0xCBF2_9CE4_8422_2325, 0xAF63_DC4C_8601_EC8C, 0x8594_4171_F739_67E8];
        assert_eq!(["", "a", "foobar"].map(tag), expected);
    }

    #[test]
    fn bounds_are_kept_and_values_are_as_likely() {
        let mut random = Random::of(&[1, 2, 3]);
        let mut counts = [0u32; 7];
        for _ in 0..70_000 {
            counts[random.below(7)] += 1;
        }
        // Standard deviation 93.
        assert!(counts.iter().all(|&count| count.abs_diff(10_000) < 400), "{counts:?}");
        assert_eq!((random.below(0), random.below(1), random.between(5, 4)), (0, 0, 5));
        let drawn: std::collections::BTreeSet<i64> = (0..200).map(|_| random.between(-2, 2)).collect();
        assert_eq!(drawn.into_iter().collect::<Vec<_>>(), [-2, -1, 0, 1, 2]);
    }

    #[test]
    fn every_order_is_as_likely() {
        let mut random = Random::of(&[7]);
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..12_000 {
            let mut items = [0, 1, 2];
            random.shuffle(&mut items);
            *counts.entry(items).or_insert(0u32) += 1;
        }
        // Standard deviation 41.
        assert!(counts.len() == 6 && counts.values().all(|&count| count.abs_diff(2000) < 180), "{counts:?}");
        let mut sample = random.sample(&[1, 2, 3, 4], 3);
        sample.sort_unstable();
        sample.dedup();
        assert_eq!((sample.len(), random.sample(&[1, 2], 5).len()), (3, 2));
    }
}
