//! Is a difference that comes in clusters zero? The sign-flip (randomization) test.
//!
//! If base and quant are exchangeable, each cluster's summed difference d_c is as likely as its negative. So
//! p is the share of sign assignments with |Σ±d_c| ≥ |Σd_c| (Fisher 1935, The Design of Experiments, § 21;
//! with whole clusters flipped together nothing is assumed of the items inside one). It knows no cluster's
//! meaning.

use super::bootstrap::Resampling;
use super::cluster::ClusterSums;
use super::random::Xoshiro256;

/// Up to this many clusters with a difference, all 2^m sign assignments are counted.
pub const MAX_EXACT: usize = 16;

/// Sums this close, as a share of Σ|d_c|, are equal but for rounding: a tie counts as extreme.
const TIE: f64 = 1e-10;

/// What the test found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SignFlip {
    /// Two-sided p.
    pub p: f64,
    /// Whether all sign assignments were counted, and not a sample of them.
    pub exact: bool,
}

/// Two-sided p of Σ_c d_c, the numerators of `sums`, under random signs; `None` where a sum is not finite.
///
/// Clusters without a difference change nothing, and are left out. With m ≤ [`MAX_EXACT`] others p is exact
/// (and never below 2/2^m: with few clusters nothing can be significant; without any it is 1). With more, p =
/// (1 + k)/(1 + N), k of N seeded random assignments being as extreme (Phipson and Smyth 2010, doi
/// 10.2202/1544-6115.1585): never 0, and valid for any N.
pub fn sign_flip(sums: &ClusterSums, resampling: Resampling) -> Option<SignFlip> {
    let differences: Vec<f64> = sums.occupied().iter().map(|s| s[0]).filter(|&d| d != 0.0).collect();
    let total: f64 = differences.iter().map(|d| d.abs()).sum();
    if !total.is_finite() {
        return None;
    }
    let threshold = differences.iter().sum::<f64>().abs() - TIE * total;
    let extreme = |sum: f64| sum.abs() >= threshold;
    if differences.len() <= MAX_EXACT {
        let assignments = 1_u64 << differences.len();
        let count = (0..assignments).filter(|&signs| extreme(signed_sum(&differences, || signs))).count();
        return Some(SignFlip { p: count as f64 / assignments as f64, exact: true });
    }
    let mut random = Xoshiro256::seeded(resampling.seed);
    let differences = Differences::new(&differences);
    let count = (0..resampling.resamples).filter(|_| extreme(differences.signed_sum(&mut random))).count();
    let p = (1.0 + count as f64) / (1.0 + resampling.resamples as f64);
    Some(SignFlip { p, exact: false })
}

/// Differences of which many may be of one size, as those of right-or-wrong items are: of these only how many
/// are negative matters, which is a count of bits.
struct Differences {
    /// Size and how many there are of it, where that is [`MANY_ALIKE`] or more.
    alike: Vec<(f64, u32)>,
    others: Vec<f64>,
}

/// From this many on, counting bits is faster.
const MANY_ALIKE: usize = 8;

impl Differences {
    fn new(differences: &[f64]) -> Self {
        let mut sizes: Vec<f64> = differences.iter().map(|d| d.abs()).collect();
        sizes.sort_unstable_by(f64::total_cmp);
        let (mut alike, mut others) = (Vec::new(), Vec::new());
        for run in sizes.chunk_by(|a, b| a == b) {
            match (run.first(), u32::try_from(run.len())) {
                (Some(&size), Ok(count)) if run.len() >= MANY_ALIKE => alike.push((size, count)),
                _ => others.extend_from_slice(run),
            }
        }
        Self { alike, others }
    }

    fn signed_sum(&self, random: &mut Xoshiro256) -> f64 {
        let alike = self.alike.iter().map(|&(size, count)| {
            let whole: u32 = (0..count / u64::BITS).map(|_| random.next().count_ones()).sum();
            let rest = count % u64::BITS;
            let last = if rest > 0 { (random.next() >> (u64::BITS - rest)).count_ones() } else { 0 };
            size * (f64::from(count) - 2.0 * f64::from(whole + last))
        });
        let alike: f64 = alike.sum();
        alike + signed_sum(&self.others, || random.next())
    }
}

/// Σ±d, the signs being bits: 64 of them at each call.
fn signed_sum(differences: &[f64], mut signs: impl FnMut() -> u64) -> f64 {
    differences
        .chunks(u64::BITS as usize)
        .map(|chunk| {
            let bits = signs();
            let signed = |(at, &d): (usize, &f64)| if bits >> at & 1 == 1 { -d } else { d };
            chunk.iter().enumerate().map(signed).sum::<f64>()
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::super::paired::mcnemar;
    use super::*;

    fn sums(differences: &[f64]) -> ClusterSums {
        ClusterSums::of_mean(&(0..differences.len() as u32).collect::<Vec<_>>(), differences)
    }

    fn exact(differences: &[f64]) -> f64 {
        let result = sign_flip(&sums(differences), Resampling::default()).unwrap();
        assert!(result.exact);
        result.p
    }

    /// How many sums of the remaining differences, added to or subtracted from `sum`, are as extreme.
    fn count(rest: &[i64], sum: i64, observed: i64) -> u64 {
        let Some((first, rest)) = rest.split_first() else { return u64::from(sum.abs() >= observed.abs()) };
        count(rest, sum + first, observed) + count(rest, sum - first, observed)
    }

    #[test]
    fn few_clusters_are_counted_exactly() {
        let mut random = Xoshiro256::seeded(5);
        for clusters in 1..=13_usize {
            let whole: Vec<i64> = (0..clusters).map(|_| (random.next() % 9) as i64 - 3).collect();
            let expected = count(&whole, 0, whole.iter().sum()) as f64 / (1_u64 << clusters) as f64;
            let tenths: Vec<f64> = whole.iter().map(|&d| d as f64 / 10.0).collect();
            // Tenths are not exact in binary: their ties are found none the less.
            assert_eq!(exact(&tenths), expected, "{whole:?}");
        }
    }

    #[test]
    fn known_values() {
        assert_eq!(exact(&[]), 1.0);
        assert_eq!(exact(&[0.0; 40]), 1.0);
        assert_eq!(exact(&[-3.0]), 1.0);
        assert_eq!(exact(&[1.0, -1.0]), 1.0);
        assert_eq!(exact(&[1.0; 16]), 2.0 / 65_536.0);
        // Of 8 sums, ±6 are as extreme as 6.
        assert_eq!(exact(&[1.0, 2.0, 3.0]), 0.25);
    }

    /// Differences of one each are McNemar's test, exactly and (to four standard errors) when sampled.
    #[test]
    fn singletons_are_mcnemars_test() {
        for (b, c) in [(5, 1), (9, 3), (4, 4), (12, 4), (40, 20), (33, 31), (900, 800)] {
            let differences: Vec<f64> =
                (0..b + c).flat_map(|i| [if i < b { -1.0 } else { 1.0 }, 0.0]).collect();
            let result = sign_flip(&sums(&differences), Resampling::default()).unwrap();
            let expected = mcnemar(b, c);
            assert_eq!(result.exact, b + c <= 16);
            let error =
                if result.exact { 1e-14 } else { 4.0 * (expected * (1.0 - expected) / 1e4).sqrt() + 1e-4 };
            assert!((result.p - expected).abs() <= error, "{b} {c}: {} {expected}", result.p);
        }
    }

    /// Some of one size, some not: as by an exact count with the same sizes (to four standard errors).
    #[test]
    fn sizes_may_be_alike_or_not() {
        let whole: Vec<i64> = (0..19).map(|i| if i < 12 { 3 } else { 2 * i - 30 }).collect();
        let differences: Vec<f64> = whole.iter().map(|&d| d as f64).collect();
        let result = sign_flip(&sums(&differences), Resampling { resamples: 40_000, seed: 3 }).unwrap();
        let expected = count(&whole, 0, whole.iter().sum()) as f64 / (1_u64 << 19) as f64;
        assert!(!result.exact && expected > 0.01);
        let error = 4.0 * (expected * (1.0 - expected) / 4e4).sqrt();
        assert!((result.p - expected).abs() < error, "{} {expected}", result.p);
    }

    /// Within clusters that move as one, 40 items are no more evidence than 4.
    #[test]
    fn items_of_a_cluster_move_together() {
        let of: Vec<u32> = (0..40).map(|i| i / 10).collect();
        let result = sign_flip(&ClusterSums::of_mean(&of, &[-1.0; 40]), Resampling::default()).unwrap();
        assert_eq!(result, SignFlip { p: 0.125, exact: true });
    }

    #[test]
    fn the_seed_decides_and_p_is_never_zero() {
        let differences: Vec<f64> = (0..200).map(|i| f64::from(i % 7) - 2.8).collect();
        let p = |seed| sign_flip(&sums(&differences), Resampling { resamples: 1000, seed }).unwrap().p;
        assert_eq!(p(1), p(1));
        assert!((2..9).any(|seed| p(seed) != p(1)));
        let all = sign_flip(&sums(&[1.0; 500]), Resampling { resamples: 99, seed: 0 }).unwrap();
        assert_eq!(all, SignFlip { p: 0.01, exact: false });
    }

    #[test]
    fn what_is_not_finite_has_no_p() {
        assert_eq!(sign_flip(&sums(&[1.0, f64::NAN]), Resampling::default()), None);
        assert_eq!(sign_flip(&sums(&[1.0, f64::INFINITY]), Resampling::default()), None);
    }
}
