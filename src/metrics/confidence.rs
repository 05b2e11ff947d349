//! The buckets into which per-token figures are broken down: base's confidence, and the position in context.
//!
//! Where base is sure, quantization rarely shows; where it is torn, a rounding error decides: a mean over
//! both hides which it was. And damage to attention and to a KV cache grows with the context. Both are closed
//! sets known beforehand, so that the buckets of different runs can be compared. It knows nothing of tables.

use std::fmt;

/// A bucket of base's confidence, by its largest probability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConfidenceBucket {
    /// [0, 0.25)
    Below25,
    /// [0.25, 0.5)
    From25To50,
    /// [0.5, 0.75)
    From50To75,
    /// [0.75, 0.95)
    From75To95,
    /// [0.95, 1]
    From95,
}

impl ConfidenceBucket {
    /// All buckets, least sure first.
    pub const ALL: [Self; 5] =
        [Self::Below25, Self::From25To50, Self::From50To75, Self::From75To95, Self::From95];

    /// The bucket of max p; `None` for a NaN, which belongs in none.
    pub fn of(max_probability: f64) -> Option<Self> {
        if max_probability.is_nan() {
            return None;
        }
        Self::ALL.into_iter().rev().find(|bucket| max_probability >= bucket.lower()).or(Some(Self::Below25))
    }

    /// The smallest probability in it.
    pub fn lower(self) -> f64 {
        match self {
            Self::Below25 => 0.0,
            Self::From25To50 => 0.25,
            Self::From50To75 => 0.5,
            Self::From75To95 => 0.75,
            Self::From95 => 0.95,
        }
    }
}

impl fmt::Display for ConfidenceBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Below25 => "[0, 0.25)",
            Self::From25To50 => "[0.25, 0.5)",
            Self::From50To75 => "[0.5, 0.75)",
            Self::From75To95 => "[0.75, 0.95)",
            Self::From95 => "[0.95, 1]",
        })
    }
}

/// A bucket of context position: how many tokens of its window a prediction rests on.
///
/// Buckets double, [0, 16) [16, 32) [32, 64) …, because what context adds to a prediction falls off roughly
/// with its logarithm, and because they mean the same for every window length (eighths of the window would
/// not: they could not be compared between runs of 512 and of 4096).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContextBucket(u8);

impl ContextBucket {
    const FIRST_LENGTH: usize = 16;

    /// The bucket of a target that has `context` tokens before it in its window.
    pub fn of(context: usize) -> Self {
        Self((context / Self::FIRST_LENGTH).checked_ilog2().map_or(0, |power| power as u8 + 1))
    }

    /// The fewest tokens of context in it.
    pub fn lower(self) -> usize {
        self.0.checked_sub(1).map_or(0, |power| Self::FIRST_LENGTH << power)
    }

    /// The fewest tokens of context beyond it; `None` if that is more than can be counted.
    pub fn upper(self) -> Option<usize> {
        Self::FIRST_LENGTH.checked_mul(1usize.checked_shl(u32::from(self.0))?)
    }
}

impl fmt::Display for ContextBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.upper() {
            Some(upper) => write!(f, "[{}, {upper})", self.lower()),
            None => write!(f, "[{}, …)", self.lower()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confidence_falls_into_its_bucket() {
        let of = |p: f64| ConfidenceBucket::of(p).unwrap().to_string();
        assert_eq!(of(0.0), "[0, 0.25)");
        assert_eq!(of(0.25_f64.next_down()), "[0, 0.25)");
        assert_eq!(of(0.25), "[0.25, 0.5)");
        assert_eq!(of(0.5), "[0.5, 0.75)");
        assert_eq!(of(0.75), "[0.75, 0.95)");
        assert_eq!(of(0.95_f64.next_down()), "[0.75, 0.95)");
        assert_eq!(of(0.95), "[0.95, 1]");
        assert_eq!(of(1.0), "[0.95, 1]");
        assert_eq!(ConfidenceBucket::of(f64::NAN), None);
        assert!(ConfidenceBucket::ALL.is_sorted_by(|a, b| a < b && a.lower() < b.lower()));
    }

    #[test]
    fn context_buckets_double_and_leave_no_gap() {
        let of = |context: usize| ContextBucket::of(context).to_string();
        assert_eq!((of(0), of(15)), ("[0, 16)".into(), "[0, 16)".into()));
        assert_eq!((of(16), of(31)), ("[16, 32)".into(), "[16, 32)".into()));
        assert_eq!((of(511), of(512)), ("[256, 512)".into(), "[512, 1024)".into()));
        for context in 0..10_000 {
            let bucket = ContextBucket::of(context);
            assert!(bucket.lower() <= context && context < bucket.upper().unwrap());
        }
        let last = ContextBucket::of(usize::MAX);
        assert_eq!((last.lower(), last.upper()), (1 << (usize::BITS - 1), None));
    }
}
