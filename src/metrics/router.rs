//! How many tokens a mixture of experts sends through the same experts on both sides.

/// Counts tokens whose sets of experts are equal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouterAgreement {
    tokens: u64,
    equal: u64,
}

impl RouterAgreement {
    /// Takes in the experts of some tokens, each token's in ascending order: as many tokens on both sides, and as many
    /// experts to a token on each side as it has.
    pub fn absorb(&mut self, tokens: usize, base: &[u32], quant: &[u32]) {
        let (base_each, quant_each) = (base.len() / tokens.max(1), quant.len() / tokens.max(1));
        if base_each == 0 || quant_each == 0 {
            return;
        }
        let pairs = base.chunks_exact(base_each).zip(quant.chunks_exact(quant_each));
        self.equal += pairs.filter(|(base, quant)| base == quant).count() as u64;
        self.tokens += tokens as u64;
    }

    /// Takes in what another counted.
    pub fn merge(&mut self, other: &Self) {
        self.tokens += other.tokens;
        self.equal += other.equal;
    }

    /// Share of tokens with equal sets; `None` where there are no experts.
    pub fn share(&self) -> Option<f64> {
        (self.tokens > 0).then(|| self.equal as f64 / self.tokens as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_compared_token_by_token() {
        let mut agreement = RouterAgreement::default();
        assert_eq!(agreement.share(), None);
        agreement.absorb(3, &[0, 1, 2, 3, 0, 3], &[0, 1, 1, 3, 0, 3]);
        assert_eq!(agreement.share(), Some(2.0 / 3.0));
        let mut other = RouterAgreement::default();
        other.absorb(1, &[4, 5], &[4, 6]);
        agreement.merge(&other);
        assert_eq!(agreement.share(), Some(0.5));
        // Layers without experts leave no trace.
        agreement.absorb(7, &[], &[]);
        assert_eq!(agreement.share(), Some(0.5));
    }
}
