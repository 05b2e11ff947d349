//! Many tests at once: adjusted p-values, so that among many tasks or languages one is not flagged by chance.
//!
//! Holm's step-down procedure (1979, Scandinavian Journal of Statistics 6:65) bounds the probability of even
//! one false flag, however the tests depend on each other. It knows nothing of what was tested.

/// Holm's adjusted p-values, each at the place of its own: flag where it is at most α.
///
/// With m values in ascending order, p̃₍ᵢ₎ = min(1, max over j ≤ i of (m − j + 1)·p₍ⱼ₎); equal values get
/// equal ones. What is not in [0, 1], NaN above all, is a test that could not be made: it comes back as NaN,
/// is never flagged, and still counts among the m, as a value of 1 would. O(m log m).
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let valid = |p: f64| (0.0..=1.0).contains(&p);
    let mut order: Vec<usize> = (0..p_values.len()).filter(|&at| valid(p_values[at])).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let mut adjusted = vec![f64::NAN; p_values.len()];
    let mut largest = 0.0_f64;
    for (rank, at) in order.into_iter().enumerate() {
        let factor = (p_values.len() - rank) as f64;
        largest = largest.max(factor * p_values[at]).min(1.0);
        adjusted[at] = largest;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// By hand: 4·0.005, 3·0.01, 2·0.03, and 1·0.04, which may not be below the one before it.
    #[test]
    fn a_worked_example() {
        let adjusted = holm(&[0.01, 0.04, 0.03, 0.005]);
        for (value, expected) in adjusted.iter().zip([0.03, 0.06, 0.06, 0.02]) {
            assert!((value - expected).abs() < 1e-15, "{adjusted:?}");
        }
    }

    #[test]
    fn the_ends() {
        assert_eq!(holm(&[]), Vec::<f64>::new());
        assert_eq!(holm(&[0.2]), [0.2]);
        assert_eq!(holm(&[0.0, 1.0, 0.7]), [0.0, 1.0, 1.0]);
        assert_eq!(holm(&[0.01, 0.01]), [0.02, 0.02]);
    }

    #[test]
    fn a_test_that_could_not_be_made_still_counts() {
        let adjusted = holm(&[f64::NAN, 0.01, -0.5, 0.02, f64::INFINITY]);
        let with_ones = holm(&[1.0, 0.01, 1.0, 0.02, 1.0]);
        assert_eq!((adjusted[1], adjusted[3]), (with_ones[1], with_ones[3]));
        assert_eq!((adjusted[1], adjusted[3]), (0.05, 0.08));
        assert!([0, 2, 4].iter().all(|&at| adjusted[at].is_nan()));
    }

    /// Holm's procedure as he states it: go up the ordered p-values and stop at the first that is too large.
    fn rejected(p_values: &[f64], alpha: f64) -> Vec<bool> {
        let mut left: Vec<usize> = (0..p_values.len()).collect();
        let mut rejected = vec![false; p_values.len()];
        while let Some(at) = left.iter().copied().min_by(|&a, &b| p_values[a].total_cmp(&p_values[b])) {
            if p_values[at] * left.len() as f64 > alpha {
                break;
            }
            rejected[at] = true;
            left.retain(|&other| other != at);
        }
        rejected
    }

    proptest! {
        #[test]
        fn equals_the_naive_definition(
            p_values in prop::collection::vec((0u32..=200).prop_map(|p| f64::from(p) / 200.0), 0..12),
            alpha in 0.001..0.999,
        ) {
            let adjusted = holm(&p_values);
            // The largest of v · (how many are not below v) over the values v up to one's own.
            for (&p, &value) in p_values.iter().zip(&adjusted) {
                let not_below = |v: f64| p_values.iter().filter(|&&other| other >= v).count() as f64;
                let largest = p_values.iter().filter(|&&v| v <= p).map(|&v| v * not_below(v)).fold(0.0, f64::max);
                prop_assert_eq!(value, largest.min(1.0));
            }
            let flagged: Vec<bool> = adjusted.iter().map(|&value| value <= alpha).collect();
            prop_assert_eq!(flagged, rejected(&p_values, alpha));
        }
    }
}
