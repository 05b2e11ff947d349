//! The next token from a row of logits: the likeliest, or drawn at random.
//!
//! A draw inverts the cumulative distribution at a number that depends on the seed, the prompt, the repeat and the
//! step alone. So base and cousin draw with the same numbers, and answers differ where the models do and not
//! where the dice do; and no draw depends on what else is in the batch.

pub use crate::suite::question::Sampling;

/// The id of the largest logit, the lowest id on a tie; `None` if one is NaN or none is finite.
pub fn argmax(logits: &[f32]) -> Option<u32> {
    let mut best = None;
    for (id, logit) in logits.iter().enumerate() {
        if logit.is_nan() {
            return None;
        }
        if best.is_none_or(|(_, largest)| *logit > largest) {
            best = Some((id as u32, *logit));
        }
    }
    best.filter(|(_, logit)| logit.is_finite()).map(|(id, _)| id)
}

/// Draws an id at `uniform`, a number of [0, 1): softmax of logits over temperature, then top-k, then top-p of what
/// is left, as transformers orders them. Likeliest ids come first in the cumulative distribution, of equally
/// likely ones the lowest. `None` as in [`argmax`].
pub fn draw(logits: &[f32], sampling: &Sampling, uniform: f64) -> Option<u32> {
    argmax(logits)?;
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    let logit = |id: u32| logits.get(id as usize).copied().unwrap_or(f32::NEG_INFINITY);
    order.sort_unstable_by(|a, b| logit(*b).total_cmp(&logit(*a)).then(a.cmp(b)));
    order.truncate(sampling.top_k.unwrap_or(order.len()).max(1));
    let largest = f64::from(logit(*order.first()?));
    let weight = |id: &u32| ((f64::from(logit(*id)) - largest) / sampling.temperature).exp();
    let total: f64 = order.iter().map(weight).sum();
    let (mut kept, mut mass) = (0, 0.0);
    for id in &order {
        if kept > 0 && mass >= sampling.top_p * total {
            break;
        }
        mass += weight(id);
        kept += 1;
    }
    order.truncate(kept);
    let mut left = uniform * mass;
    for id in &order {
        left -= weight(id);
        if left < 0.0 {
            return Some(*id);
        }
    }
    order.last().copied()
}

/// The number of [0, 1) for one step of one answer.
pub fn uniform(seed: u64, prompt: u64, repeat: u64, step: u64) -> f64 {
    let mixed = [prompt, repeat, step].iter().fold(mix(seed), |state, part| mix(state ^ mix(*part)));
    (mixed >> 11) as f64 / (1u64 << 53) as f64
}

/// SplitMix64's output function (Steele, Lea and Flood 2014).
pub(super) fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 6] = [0.5, 2.0, -1.0, 1.0, 2.0, 0.0];

    fn sampling(temperature: f64, top_p: f64, top_k: Option<usize>) -> Sampling {
        Sampling { temperature, top_p, top_k }
    }

    #[test]
    fn the_lowest_id_wins_a_tie_and_nan_is_no_answer() {
        assert_eq!(argmax(&LOGITS), Some(1));
        assert_eq!(argmax(&[1.0, f32::NAN]), None);
        assert_eq!(argmax(&[f32::NEG_INFINITY]), None);
        assert_eq!(draw(&[0.0, f32::NAN], &sampling(1.0, 1.0, None), 0.5), None);
        assert_eq!(argmax(&[]), None);
    }

    /// Frequencies over evenly spaced numbers are the probabilities themselves.
    #[track_caller]
    fn frequencies(sampling: &Sampling, expected: &[f64; 6]) {
        let n = 100_000;
        let mut counts = [0u32; 6];
        for i in 0..n {
            counts[draw(&LOGITS, sampling, (f64::from(i) + 0.5) / f64::from(n)).unwrap() as usize] += 1;
        }
        for (count, expected) in counts.iter().zip(expected) {
            assert!((f64::from(*count) / f64::from(n) - expected).abs() < 2e-5, "{counts:?} {expected}");
        }
    }

    #[test]
    fn draws_follow_the_distribution() {
        let softmax = |temperature: f64, kept: [bool; 6]| -> [f64; 6] {
            let weights: [f64; 6] = std::array::from_fn(|i| {
                if kept[i] { ((f64::from(LOGITS[i]) - 2.0) / temperature).exp() } else { 0.0 }
            });
            weights.map(|w| w / weights.iter().sum::<f64>())
        };
        frequencies(&sampling(1.0, 1.0, None), &softmax(1.0, [true; 6]));
        frequencies(&sampling(0.6, 1.0, None), &softmax(0.6, [true; 6]));
        frequencies(&sampling(1.0, 1.0, Some(3)), &softmax(1.0, [false, true, false, true, true, false]));
        // 2.0 and 2.0 have 0.67 together, with 1.0 it is 0.80.
        frequencies(&sampling(1.0, 0.6, None), &softmax(1.0, [false, true, false, false, true, false]));
        frequencies(&sampling(1.0, 0.75, None), &softmax(1.0, [false, true, false, true, true, false]));
        // Of the three that top-k leaves, 2.0 and 2.0 have 0.84.
        frequencies(&sampling(1.0, 0.8, Some(3)), &softmax(1.0, [false, true, false, false, true, false]));
        frequencies(&sampling(1e-3, 1.0, None), &softmax(1e-3, [true; 6]));
    }

    #[test]
    fn numbers_are_uniform_and_depend_on_everything() {
        let n = 20_000;
        let values: Vec<f64> = (0..n).map(|i| uniform(7, i / 100, i / 10 % 10, i % 10)).collect();
        let mean = values.iter().sum::<f64>() / n as f64;
        // Five standard errors of the mean of uniform numbers.
        assert!((mean - 0.5).abs() < 5.0 * (1.0f64 / 12.0 / n as f64).sqrt(), "{mean}");
        let mut sorted = values.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.dedup();
        assert_eq!(sorted.len(), values.len());
        assert!(values.iter().all(|x| (0.0..1.0).contains(x)));
        assert_ne!(uniform(7, 1, 0, 0), uniform(8, 1, 0, 0));
    }
}
