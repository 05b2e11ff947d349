//! CPython's `random.Random`: worked examples must be drawn exactly as lm-evaluation-harness draws them.
//!
//! The Mersenne Twister MT19937 of Matsumoto and Nishimura (ACM TOMACS 8, 1998) with CPython's seeding
//! (`init_by_array` over the seed's 32-bit words) and CPython's ways from words to numbers: `getrandbits`,
//! rejection in `_randbelow`, and the two algorithms of `sample`. Equal to Python 3.11 draw for draw.

use std::collections::BTreeSet;

/// Words of the generator's state.
const WORDS: usize = 624;
/// Distance of the words that are combined.
const MIDDLE: usize = 397;

/// A generator that draws what Python's `random.Random(seed)` draws.
#[derive(Clone)]
pub(super) struct PythonRandom {
    state: [u32; WORDS],
    /// The next word to hand out; `WORDS`: all are used up.
    next: usize,
}

impl PythonRandom {
    /// `random.Random(seed)`.
    pub(super) fn new(seed: u64) -> Self {
        let bytes = seed.to_le_bytes();
        let mut key: Vec<u32> =
            bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
        while key.len() > 1 && key.last() == Some(&0) {
            key.pop();
        }
        let mut random = Self { state: knuth(19_650_218), next: WORDS };
        random.mix_in(&key);
        random
    }

    /// Number of at most 64 random bits: `getrandbits(bits)`.
    fn bits(&mut self, bits: u32) -> u64 {
        let word = |random: &mut Self, bits: u32| match bits {
            0 => 0,
            bits => u64::from(random.word() >> (32 - bits.min(32))),
        };
        let low = word(self, bits.min(32));
        low | if bits > 32 { word(self, bits - 32) << 32 } else { 0 }
    }

    /// A number below `bound`, as `randrange(bound)` draws it; 0 without a draw where `bound` is 0.
    pub(super) fn randbelow(&mut self, bound: u64) -> u64 {
        if bound == 0 {
            return 0;
        }
        let bits = u64::BITS - bound.leading_zeros();
        loop {
            let drawn = self.bits(bits);
            if drawn < bound {
                return drawn;
            }
        }
    }

    /// An index below `length`; 0 where `length` is 0.
    fn index_below(&mut self, length: usize) -> usize {
        usize::try_from(self.randbelow(length as u64)).unwrap_or(0)
    }

    /// Indices of `count` members of a population, in the order in which `sample(population, count)` has
    /// them; `None` where the population is smaller.
    pub(super) fn sample_indices(&mut self, population: usize, count: usize) -> Option<Vec<usize>> {
        if count > population {
            return None;
        }
        if population <= largest_pool(count) {
            let mut pool: Vec<usize> = (0..population).collect();
            let mut drawn = Vec::with_capacity(count);
            for taken in 0..count {
                let last = population - taken - 1;
                let chosen = self.index_below(last + 1);
                drawn.push(pool.get(chosen).copied()?);
                pool.swap(chosen, last);
            }
            return Some(drawn);
        }
        let mut seen = BTreeSet::new();
        let mut drawn = Vec::with_capacity(count);
        while drawn.len() < count {
            let chosen = self.index_below(population);
            if seen.insert(chosen) {
                drawn.push(chosen);
            }
        }
        Some(drawn)
    }

    /// The next 32 bits.
    fn word(&mut self) -> u32 {
        if self.next >= WORDS {
            self.renew();
        }
        let mut word = self.state.get(self.next).copied().unwrap_or(0);
        self.next += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    /// The next generation of all words.
    fn renew(&mut self) {
        for at in 0..WORDS {
            let joined = (self.state[at] & 0x8000_0000) | (self.state[(at + 1) % WORDS] & 0x7fff_ffff);
            let twisted = (joined >> 1) ^ if joined % 2 == 1 { 0x9908_b0df } else { 0 };
            self.state[at] = self.state[(at + MIDDLE) % WORDS] ^ twisted;
        }
        self.next = 0;
    }

    /// `init_by_array` of the authors' reference code: every word of the state depends on the whole key.
    fn mix_in(&mut self, key: &[u32]) {
        let mut at = 1;
        let mut step = |state: &mut [u32; WORDS], factor: u32, change: &dyn Fn(u32, u32) -> u32| {
            let before = state[at - 1];
            let spread = (before ^ (before >> 30)).wrapping_mul(factor);
            state[at] = change(state[at] ^ spread, at as u32);
            at += 1;
            if at == WORDS {
                state[0] = state[WORDS - 1];
                at = 1;
            }
        };
        for round in 0..WORDS.max(key.len()) {
            let place = round % key.len().max(1);
            let added = key.get(place).copied().unwrap_or(0).wrapping_add(place as u32);
            step(&mut self.state, 1_664_525, &|word, _| word.wrapping_add(added));
        }
        for _ in 1..WORDS {
            step(&mut self.state, 1_566_083_941, &|word, at| word.wrapping_sub(at));
        }
        self.state[0] = 0x8000_0000;
    }
}

/// A state from one number: `init_genrand` of the reference code.
fn knuth(seed: u32) -> [u32; WORDS] {
    let mut state = [0; WORDS];
    let mut word = seed;
    for (at, slot) in state.iter_mut().enumerate() {
        if at > 0 {
            word = (word ^ (word >> 30)).wrapping_mul(1_812_433_253).wrapping_add(at as u32);
        }
        *slot = word;
    }
    state
}

/// Up to this population CPython draws `count` members from a list that shrinks; beyond it, it draws from
/// the whole and rejects repetitions: 21, above five members plus the power of four that holds `3·count`.
fn largest_pool(count: usize) -> usize {
    if count <= 5 {
        return 21;
    }
    let wanted = count.saturating_mul(3);
    let mut power: usize = 1;
    while power < wanted {
        power = power.saturating_mul(4);
    }
    power.saturating_add(21)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded from CPython 3.11.7: `[random.Random(seed).randrange(bound) for …]`, one generator per row.
    #[test]
    fn numbers_below_a_bound() {
        for (seed, bound, expect) in RANDRANGE {
            let mut random = PythonRandom::new(seed);
            let drawn: Vec<u64> = (0..expect.len()).map(|_| random.randbelow(bound)).collect();
            assert_eq!(drawn, expect, "seed {seed}, bound {bound}");
        }
        let (mut random, mut other) = (PythonRandom::new(7), PythonRandom::new(7));
        assert_eq!(random.randbelow(0), 0);
        assert_eq!(random.randbelow(1000), other.randbelow(1000), "a bound of 0 draws nothing");
    }

    /// Recorded from CPython 3.11.7: `r = random.Random(seed)`, then `r.sample(range(n), k)` twice. The
    /// populations 21, 22, 85, 86, 277, 278 lie at the changes of algorithm, with seeds that tell them apart.
    #[test]
    fn samples() {
        for (seed, population, count, first, second) in SAMPLES {
            let mut random = PythonRandom::new(seed);
            let context = format!("seed {seed}, {count} of {population}");
            assert_eq!(random.sample_indices(population, count).as_deref(), Some(first), "{context}");
            assert_eq!(random.sample_indices(population, count).as_deref(), Some(second), "{context}");
        }
        assert_eq!(PythonRandom::new(1).sample_indices(3, 4), None);
    }

    /// Recorded from CPython 3.11.7. 700 draws go past one generation of the state.
    #[test]
    fn long_runs() {
        let mut random = PythonRandom::new(1234);
        let sum: u64 = (0..2000).map(|_| random.randbelow(1_000_003)).sum();
        assert_eq!(sum, SUM_OF_2000);
        let mut many: Vec<usize> = PythonRandom::new(5).sample_indices(5000, 1000).unwrap();
        let weighted: usize = many.iter().enumerate().map(|(at, index)| at * index).sum();
        assert_eq!(weighted, WEIGHTED_SUM_OF_1000);
        many.sort_unstable();
        many.dedup();
        assert_eq!(many.len(), 1000);
    }

    const RANDRANGE: [(u64, u64, &[u64]); 7] = [
        (1234, 10, &[7, 1, 0, 1, 9, 0, 1, 1]),
        (0, 100, &[49, 97, 53, 5, 33, 65]),
        (42, 1, &[0, 0, 0]),
        (4294967296, 1000, &[115, 359, 427, 957, 17]),
        (9223372036854788153, 7, &[2, 3, 1, 1, 5, 2, 1, 4]),
        (1234, 1099511627779, &[255296002591, 197600671252, 75515092441, 215108876742]),
        (99, 18446744073709551615, &[7023646418445998953, 11057699771802723582, 4247597587064290621]),
    ];
    /// Seed, population, count, first and second sample.
    type Sampled = (u64, usize, usize, &'static [usize], &'static [usize]);

    const SAMPLES: [Sampled; 14] = [
        (1234, 120, 5, &[99, 56, 14, 0, 11], &[116, 103, 74, 4, 85]),
        (1234, 120, 6, &[99, 56, 14, 0, 11, 116], &[103, 74, 4, 85, 88, 10]),
        (1234, 6, 6, &[3, 0, 4, 5, 2, 1], &[0, 2, 1, 5, 4, 3]),
        (1234, 21, 5, &[14, 3, 0, 2, 1], &[2, 3, 11, 7, 0]),
        (1234, 22, 5, &[14, 3, 0, 2, 18], &[1, 21, 2, 3, 11]),
        (5, 85, 6, &[79, 32, 45, 67, 3, 59], &[31, 83, 6, 20, 14, 47]),
        (2, 86, 6, &[7, 11, 10, 46, 21, 85], &[39, 32, 77, 27, 4, 74]),
        (2, 21, 5, &[1, 2, 19, 11, 5], &[9, 8, 6, 1, 5]),
        (2, 22, 5, &[1, 2, 11, 5, 21], &[9, 8, 19, 6, 1]),
        (
            2,
            277,
            22,
            &[
                28, 46, 43, 184, 86, 157, 128, 108, 18, 81, 220, 201, 260, 190, 227, 257, 137, 268, 14, 186,
                238, 163,
            ],
            &[
                194, 216, 269, 84, 90, 120, 118, 12, 272, 166, 88, 69, 261, 264, 184, 93, 228, 212, 186, 181,
                185, 260,
            ],
        ),
        (
            2,
            278,
            22,
            &[
                28, 46, 43, 184, 86, 157, 128, 108, 18, 81, 220, 201, 260, 190, 227, 257, 137, 14, 186, 238,
                163, 194,
            ],
            &[
                216, 269, 84, 90, 120, 118, 12, 166, 88, 69, 261, 184, 263, 93, 228, 212, 268, 186, 181, 185,
                82, 204,
            ],
        ),
        (
            42,
            10000,
            8,
            &[1824, 409, 4506, 4012, 3657, 2286, 1679, 8935],
            &[1424, 9674, 6912, 520, 488, 1535, 3582, 3811],
        ),
        (3, 1, 1, &[0], &[0]),
        (3, 5, 0, &[], &[]),
    ];
    const SUM_OF_2000: u64 = 1012443375;
    const WEIGHTED_SUM_OF_1000: usize = 1192967244;
}
