//! The reduction against closed forms, 50-digit values, a plain two-pass softmax in f64, and its own laws.

use super::*;
use proptest::prelude::*;

const MASKED: f32 = f32::NEG_INFINITY;

/// The reduction of a whole row, cut into tiles of the given width.
fn reduce(target: u32, base: &[f32], quants: &[&[f32]], width: usize) -> PositionResult {
    let mut scratch = Scratch::new();
    let mut position = PositionReduction::new(target, quants.len());
    for start in (0..base.len()).step_by(width) {
        let end = (start + width).min(base.len());
        let tiles: Vec<&[f32]> = quants.iter().map(|q| &q[start..end]).collect();
        position.absorb(start as u32, &base[start..end], &tiles, &mut scratch);
    }
    position.finish()
}

fn reduce_pair(target: u32, base: &[f32], quant: &[f32], width: usize) -> (SideResult, PairResult) {
    let result = reduce(target, base, &[quant], width);
    (result.base, result.quants[0])
}

fn close(value: f64, expected: f64, relative: f64) -> bool {
    (value - expected).abs() <= relative * expected.abs() || value == expected
}

/// Log-probabilities by definition: two passes over the row, std's exponential.
fn log_softmax(z: &[f32]) -> Vec<f64> {
    let max = z.iter().copied().fold(MASKED, f32::max);
    let sum: f64 = z.iter().map(|&z| (f64::from(z) - f64::from(max)).exp()).sum();
    z.iter().map(|&z| f64::from(z) - f64::from(max) - sum.ln()).collect()
}

/// Σ p (ln p − ln q) with 0 · anything = 0.
fn divergence(log_p: &[f64], log_q: &[f64]) -> f64 {
    let terms = log_p.iter().zip(log_q).filter(|(p, _)| **p > f64::NEG_INFINITY);
    // exp underflows before a probability is zero: what q rules out counts whatever p makes of it.
    terms.map(|(p, q)| if q.is_infinite() { f64::INFINITY } else { p.exp() * (p - q) }).sum()
}

/// A deterministic row of roughly normal logits.
fn row(seed: u64, len: usize, scale: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u32 << 24) as f32
    };
    (0..len).map(|_| (uniform() + uniform() + uniform() + uniform() - 2.0) * scale).collect()
}

/// Expected values: mpmath 1.4 with 50 digits, softmax of the two rows by definition.
#[test]
fn seven_logits_agree_with_fifty_digits() {
    let base = [2.5, -1.25, 0.0, 7.75, 7.5, -30.0, 3.125];
    let quant = [2.25, -1.5, 0.5, 7.0, 7.875, -12.0, 3.0];
    for width in 1..=7 {
        let (p, q) = reduce_pair(4, &base, &quant, width);
        let expect = [
            (p.log_sum_exp, 8.334_674_108_615_676),
            (q.side.log_sum_exp, 8.231_845_586_390_351),
            (p.nll, 0.834_674_108_615_676),
            (q.side.nll, 0.356_845_586_390_351_5),
            (p.entropy, 0.736_278_872_714_844),
            (q.side.entropy, 0.656_170_221_709),
            (p.max_probability, 0.557_287_447_399_677),
            (q.side.max_probability, 0.699_880_560_474_883_1),
            (p.target_probability, 0.434_015_900_430_732_8),
            (q.side.target_probability, 0.699_880_560_474_883_1),
            (q.kl_divergence, 0.153_692_296_410_850_1),
            (q.reverse_kl, 0.145_374_022_494_971_23),
            (q.delta_p, 0.265_864_660_044_150_4),
        ];
        for (i, (value, expected)) in expect.into_iter().enumerate() {
            assert!(close(value, expected, 4e-15), "figure {i}, width {width}: {value} against {expected}");
        }
        assert_eq!((p.top1, q.side.top1, q.top1_agrees), (3, 4, false));
        assert_eq!(q.top5_overlap, 5);
    }
}

/// Every logit moved by ±2^−13: KL of 7e-9, where subtracting two log-sum-exps of 16-bit values would see
/// nothing. Expected values: mpmath as above.
#[test]
fn a_tiny_divergence_is_resolved() {
    let base = [2.5f32, -1.25, 0.0, 7.75, 7.5, -30.0, 3.125];
    let step = (-13f32).exp2();
    let quant: Vec<f32> = (0..7).map(|i| base[i] + if i % 2 == 0 { step } else { -step }).collect();
    let (_, pair) = reduce_pair(0, &base, &quant, 3);
    assert!((pair.kl_divergence - 7.352_607_438_380_684e-9).abs() < 1e-15, "{:e}", pair.kl_divergence);
    assert!((pair.reverse_kl - 7.352_676_041_622_624e-9).abs() < 1e-15, "{:e}", pair.reverse_kl);
}

/// p = (½, ½), q ∝ (e, 1): KL = ln((e+1)/2) − ½, H(p) = ln 2.
#[test]
fn two_logits_agree_with_the_closed_form() {
    let (p, q) = reduce_pair(1, &[3.0, 3.0], &[1.0, 0.0], 1);
    let e = std::f64::consts::E;
    assert!(close(p.entropy, 2f64.ln(), 1e-15));
    assert!(close(p.nll, 2f64.ln(), 1e-15));
    assert!(close(q.kl_divergence, f64::midpoint(e, 1.0).ln() - 0.5, 1e-14));
    assert!(close(q.side.nll, (e + 1.0).ln(), 1e-15));
    let q1 = 1.0 / (e + 1.0);
    let reverse = (1.0 - q1) * (2.0 * (1.0 - q1)).ln() + q1 * (2.0 * q1).ln();
    assert!(close(q.reverse_kl, reverse, 1e-14));
}

#[test]
fn a_large_vocabulary_agrees_with_the_definition() {
    let base = row(1, 32_003, 9.0);
    for (seed, noise) in [(2, 1.0), (3, 0.01), (4, 30.0)] {
        let quant: Vec<f32> = base.iter().zip(row(seed, base.len(), noise)).map(|(z, n)| z + n).collect();
        let (log_p, log_q) = (log_softmax(&base), log_softmax(&quant));
        let (p, q) = reduce_pair(17, &base, &quant, 4096);
        // Both ways subtract numbers of the size of the noise.
        let tolerance = 1e-14 * (1.0 + f64::from(noise));
        assert!((q.kl_divergence - divergence(&log_p, &log_q)).abs() < tolerance);
        assert!((q.reverse_kl - divergence(&log_q, &log_p)).abs() < tolerance);
        assert!(close(p.nll, -log_p[17], 1e-14));
        assert!(close(q.side.nll, -log_q[17], 1e-14));
        assert!(close(q.side.entropy, -log_q.iter().map(|l| l.exp() * l).sum::<f64>(), 1e-13));
        assert!(close(q.delta_p, log_q[17].exp() - log_p[17].exp(), 1e-12));
    }
}

#[test]
fn equal_logits_differ_by_exactly_nothing() {
    let mut base = row(5, 5000, 12.0);
    base[4999] = 25.0;
    base[77] = MASKED;
    base[3] = -1500.0;
    for width in [1, 7, 64, 1000, 4096, 5000] {
        let (p, q) = reduce_pair(9, &base, &base.clone(), width);
        assert_eq!(p, q.side);
        // Bits, so that −0 does not pass.
        assert_eq!(q.kl_divergence.to_bits(), 0);
        assert_eq!(q.reverse_kl.to_bits(), 0);
        assert_eq!(q.delta_p.to_bits(), 0);
        assert!(q.top1_agrees);
        assert_eq!(q.top5_overlap, 5);
    }
}

/// The kernels compiled for the machine's registers and those for the plainest machine of its family.
#[test]
fn the_instruction_set_does_not_change_a_bit() {
    let mut base = row(13, 2077, 9.0);
    let mut quant = row(14, 2077, 9.0);
    for masked in [false, true] {
        if masked {
            (base[40], quant[40], quant[1500]) = (MASKED, MASKED, -1200.0);
        }
        let mut scratch = Scratch::new();
        let mut dispatched = PositionReduction::new(3, 1);
        let mut plain = PositionReduction::new(3, 1);
        for start in [0, 1000, 2000] {
            let tile = start..(start + 1000).min(base.len());
            let (z_p, z_q) = (&base[tile.clone()], &quant[tile]);
            dispatched.absorb(start as u32, z_p, &[z_q], &mut scratch);
            plain.absorb_tile(start as u32, z_p, &[z_q], &mut scratch);
        }
        assert_eq!(dispatched.finish(), plain.finish());
    }
}

#[test]
fn each_quant_is_reduced_as_if_it_were_alone() {
    let base = row(6, 3000, 8.0);
    let quants = [row(7, 3000, 8.0), base.clone(), row(8, 3000, 4.0)];
    let tiles: Vec<&[f32]> = quants.iter().map(Vec::as_slice).collect();
    let all = reduce(5, &base, &tiles, 700);
    for (i, quant) in quants.iter().enumerate() {
        let alone = reduce(5, &base, &[quant], 700);
        assert_eq!(alone.base, all.base);
        assert_eq!(alone.quants[0], all.quants[i]);
    }
    assert_eq!(reduce(5, &base, &[], 700).base, all.base);
}

#[test]
fn ties_go_to_the_lowest_id() {
    let base = [1.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 0.0];
    let quant = [5.0, 5.0, 0.0, 5.0, 5.0, 5.0, 5.0, 5.0];
    for width in 1..=8 {
        let (p, q) = reduce_pair(0, &base, &quant, width);
        assert_eq!((p.top1, q.side.top1), (1, 0));
        // {1, 2, 3, 4, 5} and {0, 1, 3, 4, 5}.
        assert_eq!(q.top5_overlap, 4);
    }
}

#[test]
fn the_top_five_are_those_of_a_sort() {
    for seed in 0..50 {
        let coarse = |seed| row(seed, 1500, 6.0).iter().map(|z| z.round()).collect::<Vec<f32>>();
        let (base, quant) = (coarse(seed), coarse(seed + 1000));
        let top = |z: &[f32]| {
            let mut ids: Vec<usize> = (0..z.len()).collect();
            ids.sort_by(|&a, &b| z[b].total_cmp(&z[a]).then(a.cmp(&b)));
            ids.truncate(5);
            ids
        };
        let (p, q) = (top(&base), top(&quant));
        let (side, pair) = reduce_pair(0, &base, &quant, 333);
        assert_eq!(side.top1 as usize, p[0]);
        assert_eq!(pair.side.top1 as usize, q[0]);
        assert_eq!(usize::from(pair.top5_overlap), p.iter().filter(|id| q.contains(id)).count());
    }
}

#[test]
fn a_vocabulary_of_three_has_a_top_three() {
    let (_, pair) = reduce_pair(0, &[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0], 2);
    assert_eq!(pair.top5_overlap, 3);
}

#[test]
fn masked_ids_have_no_mass() {
    let base = [1.0, MASKED, 2.0, MASKED, 0.5];
    let quant = [0.5, MASKED, 2.5, MASKED, 0.0];
    let keep = |z: &[f32]| [z[0], z[2], z[4]];
    for width in 1..=5 {
        let (p, q) = reduce_pair(2, &base, &quant, width);
        let (p_cut, q_cut) = reduce_pair(1, &keep(&base), &keep(&quant), 3);
        assert!(close(q.kl_divergence, q_cut.kl_divergence, 1e-14));
        assert!(close(q.reverse_kl, q_cut.reverse_kl, 1e-14));
        assert!(close(p.entropy, p_cut.entropy, 1e-15));
        assert!(close(p.nll, p_cut.nll, 1e-15));
    }
    // A masked target is impossible, and known to be.
    let (p, q) = reduce_pair(1, &base, &quant, 2);
    assert_eq!((p.nll, p.target_probability, q.delta_p), (f64::INFINITY, 0.0, 0.0));
}

#[test]
fn ruling_out_what_base_does_not_is_infinite() {
    for width in 1..=4 {
        let full = [1.0, 2.0, 3.0, 900.0];
        let holed = [1.0, MASKED, 3.0, 900.0];
        let (_, pair) = reduce_pair(0, &full, &holed, width);
        assert_eq!(pair.kl_divergence, f64::INFINITY, "width {width}, p = e^-898");
        assert!(pair.reverse_kl.is_finite());
        let (_, pair) = reduce_pair(0, &holed, &full, width);
        assert!(pair.kl_divergence.is_finite());
        assert_eq!(pair.reverse_kl, f64::INFINITY);
    }
}

#[test]
fn what_is_not_finite_surfaces() {
    let good = row(11, 200, 5.0);
    for bad in [f32::NAN, f32::INFINITY] {
        for at in [0, 100, 199] {
            for width in [1, 50, 200] {
                let mut broken = good.clone();
                broken[at] = bad;
                let (base, pair) = reduce_pair(7, &good, &broken, width);
                assert!(base.nll.is_finite() && base.top1 != NO_TOKEN);
                assert_all_nan(&pair.side);
                assert_incomparable(&pair);
                let (base, pair) = reduce_pair(7, &broken, &good, width);
                assert_all_nan(&base);
                assert!(pair.side.nll.is_finite());
                assert_incomparable(&pair);
                let (_, pair) = reduce_pair(7, &broken, &broken.clone(), width);
                assert_incomparable(&pair);
            }
        }
    }
    // A model that rules out everything predicts nothing.
    let (base, pair) = reduce_pair(0, &[MASKED; 10], &[MASKED; 10], 3);
    assert_all_nan(&base);
    assert_incomparable(&pair);
}

fn assert_all_nan(side: &SideResult) {
    let SideResult { nll, entropy, max_probability, top1, target_probability, log_sum_exp } = *side;
    assert!([nll, entropy, max_probability, target_probability, log_sum_exp].iter().all(|v| v.is_nan()));
    assert_eq!(top1, NO_TOKEN);
}

fn assert_incomparable(pair: &PairResult) {
    assert!([pair.kl_divergence, pair.reverse_kl, pair.delta_p].iter().all(|v| v.is_nan()));
    assert!(!pair.top1_agrees);
    assert_eq!(pair.top5_overlap, 0);
}

#[test]
fn a_target_that_never_came_has_no_likelihood() {
    let (base, pair) = reduce_pair(10, &[1.0, 2.0], &[1.0, 2.5], 2);
    assert!(base.nll.is_nan() && pair.delta_p.is_nan());
    assert!(pair.kl_divergence > 0.0);
}

#[test]
fn extreme_logits_do_not_overflow() {
    let base = [-3e38, 3e38, 0.0];
    let (p, q) = reduce_pair(1, &base, &[-3e38, 3e38, 1.0], 1);
    assert_eq!((p.nll, p.max_probability), (0.0, 1.0));
    assert!(q.kl_divergence.abs() < 1e-300 && q.reverse_kl.abs() < 1e-300);
    // The first tile's mass is gone once the maximum has grown by more than f64 can express.
    let (p, _) = reduce_pair(0, &[-2000.0, -2000.5, 0.0], &[0.0; 3], 1);
    assert_eq!(p.nll, 2000.0);
    assert!(p.entropy >= 0.0 && p.entropy < 1e-300);
}

#[test]
fn the_excluded_mass_is_a_share_of_the_whole() {
    let row = row(12, 1000, 6.0);
    let (common, padding) = row.split_at(900);
    let whole = reduce(0, &row, &[], 128).base;
    let cut = reduce(0, common, &[], 128).base;
    let mut excluded = LogSumExp::new();
    assert_eq!(excluded_mass(cut.log_sum_exp, excluded.value()), 0.0);
    padding.chunks(33).for_each(|piece| excluded.absorb(piece));
    let expected = log_softmax(&row)[900..].iter().map(|l| l.exp()).sum::<f64>();
    assert!(close(excluded_mass(cut.log_sum_exp, excluded.value()), expected, 1e-13));
    // And so a token's probability over the whole vocabulary is that over the common one, less that share.
    assert!(close(whole.target_probability, cut.target_probability * (1.0 - expected), 1e-13));
    let mut broken = excluded;
    broken.absorb(&[f32::NAN]);
    assert!(broken.value().is_nan());
    let mut masked = LogSumExp::default();
    masked.absorb(&[MASKED, MASKED]);
    assert_eq!(masked.value(), f64::NEG_INFINITY);
    masked.absorb(&[-2.0]);
    assert_eq!(masked.value(), -2.0);
}

#[test]
fn the_state_is_as_small_as_stated_and_can_be_sent() {
    fn assert_send<T: Send>() {}
    assert_send::<PositionReduction>();
    assert_eq!(size_of::<PositionReduction>(), 88);
    assert_eq!(size_of::<Pair>(), 80);
}

fn logit() -> impl Strategy<Value = f32> {
    prop_oneof![8 => -30f32..30.0, 1 => Just(MASKED), 1 => -900f32..900.0, 1 => Just(0.0)]
}

fn rows() -> impl Strategy<Value = (Vec<f32>, Vec<f32>)> {
    (5usize..300).prop_flat_map(|len| {
        let finite_first = |mut z: Vec<f32>| {
            z[0] = 1.0;
            z
        };
        let row = move || proptest::collection::vec(logit(), len).prop_map(finite_first);
        (row(), row())
    })
}

proptest! {
    #[test]
    fn divergences_are_not_negative((base, quant) in rows(), width in 1usize..400) {
        let (_, pair) = reduce_pair(0, &base, &quant, width);
        // In units of the largest difference of logits, which is what cancels.
        prop_assert!(pair.kl_divergence >= -1e-12, "{:e}", pair.kl_divergence);
        prop_assert!(pair.reverse_kl >= -1e-12, "{:e}", pair.reverse_kl);
    }

    #[test]
    fn a_row_does_not_differ_from_itself((base, _) in rows(), width in 1usize..400) {
        let (_, pair) = reduce_pair(0, &base, &base, width);
        prop_assert_eq!(pair.kl_divergence.to_bits(), 0);
        prop_assert_eq!(pair.reverse_kl.to_bits(), 0);
    }

    /// Halves and integers below 2^10: adding the constant is exact in f32.
    #[test]
    fn a_constant_added_to_all_logits_changes_nothing(
        base in proptest::collection::vec(-200i16..200, 5..200), shift in -500i16..500, width in 1usize..300,
    ) {
        let half = |z: i16| f32::from(z) * 0.5;
        let quant: Vec<f32> = base.iter().map(|&z| half(z) * 0.5).collect();
        let moved: Vec<f32> = quant.iter().map(|z| z + f32::from(shift)).collect();
        let base: Vec<f32> = base.into_iter().map(half).collect();
        let (_, here) = reduce_pair(0, &base, &quant, width);
        let (_, there) = reduce_pair(0, &base, &moved, width);
        let tolerance = 1e-13 * (f64::from(shift).abs() + here.kl_divergence + 1.0);
        prop_assert!((here.kl_divergence - there.kl_divergence).abs() <= tolerance);
        prop_assert!((here.reverse_kl - there.reverse_kl).abs() <= tolerance);
        prop_assert!(close(here.side.entropy, there.side.entropy, 1e-13));
        prop_assert_eq!(here.side.top1, there.side.top1);
        prop_assert_eq!(here.top5_overlap, there.top5_overlap);
    }

    #[test]
    fn tiling_matters_only_to_rounding((base, quant) in rows(), width in 1usize..400, target in 0u32..5) {
        let (p, q) = reduce_pair(target, &base, &quant, base.len());
        let (p_tiled, q_tiled) = reduce_pair(target, &base, &quant, width);
        for (a, b) in [
            (p.nll, p_tiled.nll),
            (p.entropy, p_tiled.entropy),
            (q.side.entropy, q_tiled.side.entropy),
            (q.side.target_probability, q_tiled.side.target_probability),
            (q.kl_divergence, q_tiled.kl_divergence),
            (q.reverse_kl, q_tiled.reverse_kl),
        ] {
            prop_assert!(a == b || (a - b).abs() <= 1e-12 * (1.0 + a.abs()), "{a:e} against {b:e}");
        }
        prop_assert_eq!((p.top1, q.side.top1), (p_tiled.top1, q_tiled.side.top1));
        prop_assert_eq!(q.top5_overlap, q_tiled.top5_overlap);
    }

    #[test]
    fn agrees_with_the_definition((base, quant) in rows(), width in 1usize..400) {
        let (log_p, log_q) = (log_softmax(&base), log_softmax(&quant));
        let (_, q) = reduce_pair(0, &base, &quant, width);
        let expected = divergence(&log_p, &log_q);
        let kl = q.kl_divergence;
        let near = (kl - expected).abs() <= 1e-11 * (1.0 + expected);
        prop_assert!(kl == expected || near, "{kl:e} against {expected:e}");
        prop_assert!(close(q.side.nll, -log_q[0], 1e-12));
    }
}
