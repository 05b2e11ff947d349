//! Random choices that count what they cost: the generator's entropy is the sum of its choices' −ln p.

/// A seeded generator (SplitMix64, Steele, Lea and Flood 2014) that adds up the information of its choices.
pub(crate) struct Dice {
    state: u64,
    /// −ln of the probability of all choices so far.
    pub(crate) nats: f64,
}

impl Dice {
    /// The same seed gives the same choices everywhere.
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed, nats: 0.0 }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        scramble(self.state)
    }

    /// Uniform in [0, 1), without counting: for choices that are counted otherwise.
    pub(crate) fn uncounted(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform among `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.nats += (n as f64).ln();
        ((self.uncounted() * n as f64) as usize).min(n - 1)
    }

    /// One of all.
    pub(crate) fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// Any of `n` but one.
    pub(crate) fn other(&mut self, n: usize, than: usize) -> usize {
        let other = self.below(n - 1);
        if other < than { other } else { other + 1 }
    }

    /// Index of one of some weights.
    pub(crate) fn weighted(&mut self, weights: &[f64]) -> usize {
        let sum: f64 = weights.iter().sum();
        let mut rest = self.uncounted() * sum;
        let index = weights.iter().position(|weight| {
            rest -= weight;
            rest < 0.0
        });
        let index = index.unwrap_or(weights.len() - 1);
        self.nats -= (weights[index] / sum).ln();
        index
    }

    /// True with probability `p`.
    pub(crate) fn chance(&mut self, p: f64) -> bool {
        self.weighted(&[p, 1.0 - p]) == 0
    }
}

/// Mixes the bits of a number.
pub(crate) fn scramble(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A number that stands for a text.
pub(crate) fn hash(text: &str) -> u64 {
    text.bytes().fold(0, |state, byte| scramble(state.wrapping_mul(257) ^ u64::from(byte)))
}
