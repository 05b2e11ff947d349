//! Closed forms, and each scheme against a naive computation that shares no step with it.

use proptest::prelude::*;

use super::*;

fn scaled(
    format: ActivationFormat,
    granularity: Granularity,
    scale: ActivationScale,
) -> ActivationQuantization {
    ActivationQuantization::Scaled { format, granularity, scale }
}

fn int(bits: u32, granularity: Granularity, half_range: f32) -> ActivationQuantization {
    let format = ActivationFormat::Int { bits, symmetric: true };
    scaled(format, granularity, ActivationScale::Dynamic { half_range })
}

fn asymmetric(bits: u32, granularity: Granularity) -> ActivationQuantization {
    let half_range = (2f32.powi(bits as i32) - 1.0) / 2.0;
    let format = ActivationFormat::Int { bits, symmetric: false };
    scaled(format, granularity, ActivationScale::Dynamic { half_range })
}

fn mx(format: ActivationFormat, size: usize) -> ActivationQuantization {
    scaled(format, Granularity::Group(size), ActivationScale::PowerOfTwo)
}

fn nvfp4(global: f32, size: usize) -> ActivationQuantization {
    scaled(ActivationFormat::E2m1, Granularity::Group(size), ActivationScale::Local { global })
}

/// One request.
fn rounded(scheme: &ActivationQuantization, values: &[f32], columns: usize) -> Vec<f32> {
    let mut values = values.to_vec();
    let rows = values.len() / columns;
    round_activations(scheme, &mut values, columns, std::slice::from_ref(&(0..rows))).unwrap();
    values
}

/// `values`, filled up with zeros to a block.
fn rounded_block(kind: GgmlActivation, values: &[f32]) -> Vec<f32> {
    let mut block = values.to_vec();
    block.resize(super::block(kind), 0.0);
    let length = block.len();
    rounded(&ActivationQuantization::Ggml(kind), &block, length)[..values.len()].to_vec()
}

use ActivationFormat::{E2m1 as E2M1, E4m3 as E4M3};
use Granularity::{Group, Tensor, Token};

#[test]
fn symmetric_integers_by_hand() {
    // amax 127.5, so that s = 1; 127.5 is clamped, −127.5 goes to the even −128.
    let values = [127.5, -127.5, 0.5, 1.5, 2.5, -0.5, -3.5, 7.2];
    let expected = [127.0, -128.0, 0.0, 2.0, 2.0, 0.0, -4.0, 7.0];
    assert_eq!(rounded(&int(8, Token, 127.5), &values, 8), expected);
    // amax 7.5·0.25: s = 0.25, integers from −8 to 7; each token for itself.
    let values = [1.875, -1.875, 0.3, 3.75, -0.25, 1.0];
    assert_eq!(rounded(&int(4, Token, 7.5), &values, 3), [1.75, -2.0, 0.25, 3.5, 0.0, 1.0]);
    // vLLM's range: amax itself is representable.
    assert_eq!(rounded(&int(8, Token, 127.0), &[254.0, -254.0, 3.1], 3), [254.0, -254.0, 4.0]);
}

#[test]
fn asymmetric_integers_by_hand() {
    // 2 bits: codes −2 to 1. From −1 to 2: s = 1, z = −2 + 1 = −1.
    let values = [-1.0, 2.0, 0.4, 1.4, 0.6];
    assert_eq!(rounded(&asymmetric(2, Token), &values, 5), [-1.0, 2.0, 0.0, 1.0, 1.0]);
    // The range includes 0: from 0 to 6, s = 2, z = −2; from −6 to 0, z = 1.
    assert_eq!(rounded(&asymmetric(2, Token), &[6.0, 5.0, 3.2, 0.9], 4), [6.0, 4.0, 4.0, 0.0]);
    assert_eq!(rounded(&asymmetric(2, Token), &[-6.0, -3.2], 2), [-6.0, -4.0]);
    // From −1.25 to 1.75: s = 1, and z = −0.75 is rounded to −1 before use.
    assert_eq!(rounded(&asymmetric(2, Token), &[-1.25, 1.75, 0.2], 3), [-1.0, 2.0, 0.0]);
}

#[test]
fn floats_of_eight_bits_by_hand() {
    let dynamic = |granularity| scaled(E4M3, granularity, ActivationScale::Dynamic { half_range: 448.0 });
    // amax 448, so that s = 1: steps of 2 from 16, of 2^−9 below 2^−6.
    let values = [448.0, 17.0, 19.0, -19.1, 2f32.powi(-10), 1.5 * 2f32.powi(-9)];
    let expected = [448.0, 16.0, 20.0, -20.0, 0.0, 2f32.powi(-8)];
    assert_eq!(rounded(&dynamic(Token), &values, 6), expected);
    // The same values two by two: 17 is then the largest of its group, and exact.
    assert_eq!(rounded(&dynamic(Group(2)), &[448.0, 17.0, 17.0, 17.0], 4), [448.0, 16.0, 17.0, 17.0]);
    // A calibrated scale saturates.
    let fixed = scaled(E4M3, Tensor, ActivationScale::Static { scale: 0.5, zero_point: 0.0 });
    assert_eq!(rounded(&fixed, &[1e9, -1e9, 8.5, 0.7], 4), [224.0, -224.0, 8.0, 0.6875]);
    let shifted = ActivationFormat::Int { bits: 8, symmetric: false };
    let shifted = scaled(shifted, Tensor, ActivationScale::Static { scale: 0.5, zero_point: 100.0 });
    assert_eq!(rounded(&shifted, &[20.0, -120.0, 0.74, -0.3], 4), [13.5, -114.0, 0.5, -0.5]);
}

#[test]
fn nvfp4_by_hand() {
    // amax/6 = 1 is an E4M3: E2M1 as it is, ties to even.
    let values = [6.0, 5.0, -3.5, 2.5, 1.75, 1.25, 0.75, 0.25];
    let expected = [6.0, 4.0, -4.0, 2.0, 2.0, 1.0, 1.0, 0.0];
    assert_eq!(rounded(&nvfp4(1.0, 8), &values, 8), expected);
    // amax/6 = 1.0625 lies between 1 and 1.125, and goes to 1: 6.375 saturates. Doubled by `global`: the same.
    for global in [1.0, 2.0] {
        assert_eq!(rounded(&nvfp4(global, 2), &[6.375, 2.9], 2), [6.0, 3.0]);
    }
    // Calibrated to less than what came: the scale saturates at 448, then the values at 6·448.
    assert_eq!(rounded(&nvfp4(1.0, 2), &[6000.0, 448.0], 2), [2688.0, 448.0]);
    // amax/6 first, then times `global`: 1.8125 exactly, a tie that goes to 1.75. The other way round it is more.
    assert_eq!(rounded(&nvfp4(3.0, 1), &[3.625f32.next_up()], 1), [6.0 * (1.75 / 3.0)]);
    // A group whose scale rounds to 0 gets 1/8.
    assert_eq!(rounded(&nvfp4(1.0, 2), &[0.004, 0.0], 2), [0.0, 0.0]);
    assert_eq!(rounded(&nvfp4(1.0 / 64.0, 2), &[0.3, 0.1], 2), [0.0, 0.0]);
}

#[test]
fn mx_by_hand() {
    // Scale 1 up to just below 7 = 1.75·2², then 2.
    let below = 7f32.next_down();
    assert_eq!(rounded(&mx(E2M1, 2), &[below, 3.5, 7.0, 3.5], 4), [6.0, 4.0, 8.0, 4.0]);
    assert_eq!(rounded(&mx(E2M1, 2), &[3.5, 0.25, 3.49, 0.25], 4), [4.0, 0.0, 3.0, 0.25]);
    // In E4M3 up to just below 448 = 1.75·2⁸: 27 is a tie of 26 and 28 where steps are 2, as it is for 1.
    let below = 448f32.next_down();
    assert_eq!(rounded(&mx(E4M3, 2), &[below, 27.0, 448.0, 54.0], 4), [448.0, 28.0, 448.0, 56.0]);
    assert_eq!(rounded(&mx(E4M3, 2), &[below, 2f32.powi(-9), 448.0, 2f32.powi(-9)], 4)[1], 2f32.powi(-9));
    assert_eq!(rounded(&mx(E4M3, 2), &[448.0, 2f32.powi(-9)], 2)[1], 0.0);
    // The smallest scale is 2^−127; beyond the largest there is none.
    assert_eq!(rounded(&mx(E4M3, 1), &[2f32.powi(-124)], 1), [2f32.powi(-124)]);
    assert!(rounded(&mx(E2M1, 1), &[f32::MAX], 1)[0].is_nan());
}

#[test]
fn ggml_by_hand() {
    for kind in [GgmlActivation::Q8_0, GgmlActivation::Q8_1, GgmlActivation::Q8K] {
        // s = 1, ties to even; nothing reaches −128.
        let values = [-127.0, 0.5, 1.5, 2.5, -3.5, 127.0];
        assert_eq!(rounded_block(kind, &values), [-127.0, 0.0, 2.0, 2.0, -4.0, 127.0]);
    }
    // Scale 1 + 2^−12: as f16 it is 1.
    let largest = 127.0 * (1.0 + 2f32.powi(-12));
    assert_eq!(rounded_block(GgmlActivation::Q8_0, &[largest, -63.4]), [127.0, -63.0]);
    assert_eq!(rounded_block(GgmlActivation::Q8K, &[largest, 1.0])[1], 1.0 + 2f32.powi(-12));
    // 127/amax is beyond f32.
    assert_eq!(rounded_block(GgmlActivation::Q8_0, &[1e-37, 0.0]), [0.0, 0.0]);
    assert_eq!(rounded_block(GgmlActivation::Q8K, &[1e-37, 0.0]), [0.0, 0.0]);
    // Blocks of 32 and of 256.
    let values: Vec<f32> = (0..256).map(|i| if i < 32 { 1.0 } else { 1000.0 }).collect();
    let first = |kind| rounded(&ActivationQuantization::Ggml(kind), &values, 256)[0];
    assert!((first(GgmlActivation::Q8_0) - 1.0).abs() < 1e-3);
    assert_eq!(first(GgmlActivation::Q8K), 0.0);
}

#[test]
fn every_f16_boundary_and_bf16_is_as_in_the_half_crate() {
    let around = |x: f32| [x.next_down(), x, x.next_up()];
    let middles = |bits: u16| {
        let (low, high) = (half::f16::from_bits(bits).to_f32(), half::f16::from_bits(bits + 1).to_f32());
        around(if high.is_finite() { (low + high) / 2.0 } else { 65_520.0 })
    };
    let f16s: Vec<f32> = (0..0x7C00).flat_map(middles).flat_map(|x| [x, -x]).collect();
    let ours = rounded(&ActivationQuantization::Ggml(GgmlActivation::F16), &f16s, 1);
    for (x, ours) in f16s.iter().zip(ours) {
        assert_eq!(ours, half::f16::from_f32(*x).to_f32(), "{x:e}");
    }
    let bf16s: Vec<f32> = (0..=u32::MAX).step_by(9_973).map(f32::from_bits).collect();
    let ours = rounded(&ActivationQuantization::Ggml(GgmlActivation::Bf16), &bf16s, 1);
    for (x, ours) in bf16s.iter().zip(ours) {
        let theirs = half::bf16::from_f32(*x).to_f32();
        assert!(ours.to_bits() == theirs.to_bits() || (ours.is_nan() && theirs.is_nan()), "{x:e}");
    }
}

#[test]
fn llm_int8_by_hand() {
    let scheme = ActivationQuantization::LlmInt8 { threshold: 6.0 };
    // Column 1 has an outlier: all of it stays, 0.1 included, which no f16 is. The row's amax is 127/32 without
    // the 7, but with the small 5 in the second row.
    let values = [127.0 / 32.0, 7.0, 1.55, 2.0, 5.0, 0.0, 0.0, 0.1, 0.0];
    let out = rounded(&scheme, &values, 3);
    assert_eq!(out[..3], [127.0 / 32.0, 7.0, 50.0 / 32.0]);
    assert_eq!(out[3], 51.0 * (5.0 / 127.0));
    assert_eq!(out[4..], [5.0, 0.0, 0.0, 0.1, 0.0]);
    // A NaN hides no outlier, and takes only its row with it.
    let out = rounded(&scheme, &[f32::NAN, 1.0, 7.0, 1.0, 0.1, 1.0], 2);
    assert!(out[0].is_nan() && out[1].is_nan());
    assert_eq!(out[2..], [7.0, 127.0 * (1.0 / 127.0), 0.1, 127.0 * (1.0 / 127.0)]);
    // 5.9999 is 6 in f16.
    assert_eq!(rounded(&scheme, &[5.9999, 0.0], 2), [5.9999, 0.0]);
    // Without a threshold all are rounded, amax as f16.
    let scheme = ActivationQuantization::LlmInt8 { threshold: 0.0 };
    assert_eq!(rounded(&scheme, &[127.01, 1.4], 2), [127.0, 1.0]);
    // An outlier is one for its own request only.
    let mut values = [7.0, 1.0, 3.0, 1.0];
    let scheme = ActivationQuantization::LlmInt8 { threshold: 6.0 };
    round_activations(&scheme, &mut values, 2, &[0..1, 1..2]).unwrap();
    assert_eq!(values, [7.0, 1.0, 127.0 * (3.0 / 127.0), 42.0 * (3.0 / 127.0)]);
}

/// Every kind of scheme, for rows of any multiple of 256.
fn schemes() -> Vec<ActivationQuantization> {
    let e4m3 = ActivationScale::Dynamic { half_range: 448.0 };
    let e2m1 = ActivationScale::Dynamic { half_range: 6.0 };
    let ggml = [
        GgmlActivation::F16,
        GgmlActivation::Bf16,
        GgmlActivation::Q8_0,
        GgmlActivation::Q8_1,
        GgmlActivation::Q8K,
    ];
    let mut all = vec![
        int(8, Token, 127.5),
        int(8, Tensor, 127.0),
        int(4, Group(8), 7.5),
        asymmetric(8, Token),
        asymmetric(8, Tensor),
        asymmetric(4, Group(64)),
        scaled(E4M3, Token, e4m3),
        scaled(E4M3, Tensor, e4m3),
        scaled(E4M3, Group(128), e4m3),
        scaled(E2M1, Group(32), e2m1),
        scaled(E4M3, Tensor, ActivationScale::Static { scale: 0.03, zero_point: 0.0 }),
        scaled(
            ActivationFormat::Int { bits: 8, symmetric: false },
            Tensor,
            ActivationScale::Static { scale: 0.03, zero_point: -7.0 },
        ),
        nvfp4(700.0, 16),
        mx(E2M1, 32),
        mx(E4M3, 32),
        ActivationQuantization::LlmInt8 { threshold: 6.0 },
        ActivationQuantization::LlmInt8 { threshold: 0.0 },
    ];
    all.extend(ggml.map(ActivationQuantization::Ggml));
    all
}

/// The values that share a scale, one index list per scale.
fn sharing(scheme: &ActivationQuantization, columns: usize, requests: &[Range<usize>]) -> Vec<Range<usize>> {
    let rows = requests.last().map_or(0, |request| request.end);
    let size = match scheme {
        ActivationQuantization::Scaled { scale: ActivationScale::Static { .. }, .. } => 1,
        ActivationQuantization::Scaled { granularity: Tensor, .. } => {
            return requests.iter().map(|rows| rows.start * columns..rows.end * columns).collect();
        }
        ActivationQuantization::Scaled { granularity: Group(size), .. } => *size,
        ActivationQuantization::Scaled { granularity: Token, .. } => columns,
        ActivationQuantization::LlmInt8 { .. } => columns,
        ActivationQuantization::Ggml(kind) => super::block(*kind),
    };
    (0..rows * columns / size).map(|group| group * size..(group + 1) * size).collect()
}

fn naive_nearest(format: ActivationFormat, x: f32) -> f32 {
    match format {
        ActivationFormat::Int { bits, .. } => {
            let half = (1i32 << (bits - 1)) as f32;
            x.round_ties_even().clamp(-half, half - 1.0)
        }
        ActivationFormat::E4m3 => float8::F8E4M3::from_f32(x.clamp(-448.0, 448.0)).to_f32(),
        ActivationFormat::E2m1 => {
            let magnitude = match x.abs() {
                m if m <= 0.25 => 0.0,
                m if m < 0.75 => 0.5,
                m if m <= 1.25 => 1.0,
                m if m < 1.75 => 1.5,
                m if m <= 2.5 => 2.0,
                m if m < 3.5 => 3.0,
                m if m <= 5.0 => 4.0,
                _ => 6.0,
            };
            f32::copysign(magnitude, x)
        }
    }
}

fn naive_power_of_two(amax: f32, max_exponent: i32) -> f32 {
    let Some(exponent) = (-126..=127).rev().find(|exponent| 2f32.powi(*exponent) <= amax) else {
        return 2f32.powi(-127);
    };
    let exponent = if amax >= 1.75 * 2f32.powi(exponent) { exponent + 1 } else { exponent };
    if exponent == 128 { f32::NAN } else { 2f32.powi((exponent - max_exponent).max(-127)) }
}

/// What `scheme` makes of values that share a scale and are all finite.
fn naive_group(scheme: &ActivationQuantization, group: &mut [f32]) {
    let amax = group.iter().fold(0f32, |a, x| a.max(x.abs()));
    match *scheme {
        ActivationQuantization::Scaled { format, scale, .. } => {
            let not_zero = |scale: f32| if scale == 0.0 { 2f32.powi(-23) } else { scale };
            let (scale, zero) = match (scale, format) {
                (ActivationScale::Static { scale, zero_point }, _) => (scale, zero_point),
                (
                    ActivationScale::Dynamic { half_range },
                    ActivationFormat::Int { symmetric: false, bits },
                ) => {
                    let min = group.iter().fold(0f32, |a, x| a.min(*x));
                    let max = group.iter().fold(0f32, |a, x| a.max(*x));
                    let scale = (max - min) / (2.0 * half_range);
                    let lowest = -((1i32 << (bits - 1)) as f32);
                    let zero = naive_nearest(format, lowest - min / not_zero(scale));
                    (not_zero(scale), zero)
                }
                (ActivationScale::Dynamic { half_range }, _) => (not_zero(amax / half_range), 0.0),
                (ActivationScale::Local { global }, _) => {
                    let scale = naive_nearest(ActivationFormat::E4m3, global * (amax / 6.0));
                    (if scale == 0.0 { 0.125 } else { scale } / global, 0.0)
                }
                (ActivationScale::PowerOfTwo, ActivationFormat::E4m3) => (naive_power_of_two(amax, 8), 0.0),
                (ActivationScale::PowerOfTwo, _) => (naive_power_of_two(amax, 2), 0.0),
            };
            for x in group {
                *x = (naive_nearest(format, *x / scale + zero) - zero) * scale;
            }
        }
        ActivationQuantization::Ggml(GgmlActivation::F16) => {
            group[0] = half::f16::from_f32(group[0]).to_f32();
        }
        ActivationQuantization::Ggml(GgmlActivation::Bf16) => {
            group[0] = half::bf16::from_f32(group[0]).to_f32();
        }
        ActivationQuantization::Ggml(kind) => {
            let largest = group.iter().copied().rfind(|x| x.abs() == amax).unwrap();
            let inverse = if kind == GgmlActivation::Q8K { -127.0 / largest } else { 127.0 / amax };
            let scale = match kind {
                GgmlActivation::Q8K => 1.0 / inverse,
                _ => half::f16::from_f32(amax / 127.0).to_f32(),
            };
            for x in group {
                // Integers, as they are stored: a float that is not a number becomes 0.
                let q = (*x * inverse).round_ties_even() as i8;
                *x = if inverse.is_finite() { f32::from(q) * scale } else { 0.0 };
            }
        }
        ActivationQuantization::LlmInt8 { .. } => unreachable!("has outliers"),
    }
}

fn naive_llm_int8(threshold: f32, values: &[f32], columns: usize) -> Vec<f32> {
    let f16 = |x: f32| half::f16::from_f32(x).to_f32();
    let is_outlier = |x: f32| threshold > 0.0 && f16(x).abs() >= threshold;
    let outlier_column = |column: usize| values.chunks(columns).any(|row| is_outlier(row[column]));
    let kept: Vec<bool> = (0..columns).map(outlier_column).collect();
    let mut out = values.to_vec();
    for row in out.chunks_mut(columns) {
        let counted: Vec<f32> = row.iter().copied().filter(|x| !is_outlier(*x)).map(f16).collect();
        let lost = counted.iter().any(|x| !x.is_finite());
        let amax = counted.iter().fold(0f32, |a, x| a.max(x.abs()));
        for (x, kept) in row.iter_mut().zip(&kept).filter(|(_, kept)| !**kept) {
            debug_assert!(!kept);
            *x = match amax {
                _ if lost => f32::NAN,
                0.0 => 0.0,
                _ => (f16(*x) * (1.0 / amax * 127.0)).round_ties_even() * (amax / 127.0),
            };
        }
    }
    out
}

fn naive(
    scheme: &ActivationQuantization,
    values: &[f32],
    columns: usize,
    requests: &[Range<usize>],
) -> Vec<f32> {
    if let ActivationQuantization::LlmInt8 { threshold } = scheme {
        let parts = requests.iter().map(|rows| &values[rows.start * columns..rows.end * columns]);
        return parts.flat_map(|part| naive_llm_int8(*threshold, part, columns)).collect();
    }
    let mut out = values.to_vec();
    for group in sharing(scheme, columns, requests) {
        let group = &mut out[group];
        // Conversions to a wider type's upper half keep infinities.
        let converts =
            matches!(scheme, ActivationQuantization::Ggml(GgmlActivation::F16 | GgmlActivation::Bf16));
        if converts || group.iter().all(|x| x.is_finite()) {
            naive_group(scheme, group);
        } else {
            group.fill(f32::NAN);
        }
    }
    out
}

/// Equal, zeros of either sign taken as one, as are all NaNs.
fn assert_same(ours: &[f32], theirs: &[f32], scheme: &ActivationQuantization) {
    assert_eq!(ours.len(), theirs.len());
    for (index, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        let same = ours == theirs || (ours.is_nan() && theirs.is_nan());
        assert!(same, "{scheme:?} at {index}: {ours:e} against {theirs:e}");
    }
}

fn activation() -> impl Strategy<Value = f32> {
    prop_oneof![
        60 => -3f32..3.0,
        10 => -60f32..60.0,
        10 => (-100i32..100, -6i32..6).prop_map(|(x, e)| x as f32 * 2f32.powi(e)),
        5 => Just(0.0),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_scheme_is_as_computed_naively(
        values in prop::collection::vec(activation(), 256 * 6),
        exponent in -30i32..30,
        rare in prop::collection::vec((0usize..256 * 6, any::<f32>()), 0..3),
        cut in 0usize..=6,
    ) {
        let scaled = values.iter().map(|x| x * 2f32.powi(exponent)).collect::<Vec<_>>();
        let mut strange = scaled.clone();
        for (index, x) in rare {
            strange[index] = x;
        }
        for values in [values, scaled, strange] {
            // Two requests, one of them possibly empty; rows of 256 and of 768.
            for (columns, requests) in [(256, vec![0..cut, cut..6]), (768, vec![0..1, 1..2])] {
                for scheme in schemes() {
                    let mut ours = values.clone();
                    round_activations(&scheme, &mut ours, columns, &requests).unwrap();
                    assert_same(&ours, &naive(&scheme, &values, columns, &requests), &scheme);
                }
            }
        }
    }

    /// Where nothing is a multiple of a vector.
    #[test]
    fn rows_of_any_length(values in prop::collection::vec(activation(), 1..200), size in 1usize..40) {
        let e4m3 = ActivationScale::Dynamic { half_range: 448.0 };
        for (columns, granularity) in [(size, Token), (size, Tensor), (2 * size, Group(size))] {
            let rows = values.len() / columns;
            let values = &values[..rows * columns];
            let requests = [0..rows / 2, rows / 2..rows];
            for scheme in [
                int(8, granularity, 127.5),
                asymmetric(8, granularity),
                scaled(E4M3, granularity, e4m3),
                scaled(E2M1, granularity, ActivationScale::PowerOfTwo),
                ActivationQuantization::LlmInt8 { threshold: 20.0 },
            ] {
                let mut ours = values.to_vec();
                round_activations(&scheme, &mut ours, columns, &requests).unwrap();
                assert_same(&ours, &naive(&scheme, values, columns, &requests), &scheme);
            }
        }
    }
}

#[test]
fn what_is_not_finite_stays_visible_and_reaches_only_what_shares_its_scale() {
    let columns = 512;
    let clean: Vec<f32> = (0..4 * columns).map(|i| ((i * 37 % 101) as f32 - 50.0) / 10.0).collect();
    let requests = [0..1, 1..4];
    for scheme in schemes() {
        let mut expected = clean.clone();
        round_activations(&scheme, &mut expected, columns, &requests).unwrap();
        assert!(expected.iter().all(|x| x.is_finite()), "{scheme:?}");
        for strange in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 15, 16, 600, 2047] {
                let mut values = clean.clone();
                values[at] = strange;
                round_activations(&scheme, &mut values, columns, &requests).unwrap();
                assert!(!values[at].is_finite(), "{scheme:?} made {} of {strange}", values[at]);
                let shared = sharing(&scheme, columns, &requests);
                let shared = shared.into_iter().find(|group| group.contains(&at)).unwrap();
                // An infinite outlier takes its column, and no more, out of the rounding.
                if scheme == (ActivationQuantization::LlmInt8 { threshold: 6.0 }) && strange.is_infinite() {
                    continue;
                }
                for index in 0..values.len() {
                    if shared.contains(&index) {
                        assert!(!values[index].is_finite(), "{scheme:?}: {index} is {}", values[index]);
                    } else {
                        assert_eq!(values[index], expected[index], "{scheme:?} at {index}");
                    }
                }
            }
        }
    }
}

#[test]
fn zeros_stay_zeros() {
    for scheme in schemes() {
        let out = rounded(&scheme, &[0.0; 1024], 256);
        assert!(out.iter().all(|x| *x == 0.0), "{scheme:?}");
    }
}

#[test]
fn a_request_does_not_depend_on_what_it_was_packed_with() {
    let columns = 256;
    let part = |rows: usize, factor: f32| -> Vec<f32> {
        (0..rows * columns).map(|i| ((i * 53 % 199) as f32 - 99.0) * factor).collect()
    };
    // The second is far larger and full of outliers.
    let (first, second) = (part(3, 0.05), part(2, 4.0));
    for scheme in schemes() {
        let mut packed = [first.clone(), second.clone()].concat();
        round_activations(&scheme, &mut packed, columns, &[0..3, 3..5]).unwrap();
        let alone = [rounded(&scheme, &first, columns), rounded(&scheme, &second, columns)].concat();
        assert_eq!(packed, alone, "{scheme:?}");
    }
}

#[test]
fn what_cannot_be_computed_is_refused_with_its_numbers() {
    let problem = |scheme: &ActivationQuantization, columns: usize, requests: &[Range<usize>]| {
        let mut values = vec![1.25; 96];
        let problem = round_activations(scheme, &mut values, columns, requests).unwrap_err();
        assert!(values.iter().all(|x| *x == 1.25), "{scheme:?}");
        problem
    };
    let token = int(8, Token, 127.5);
    let fixed = |scale, zero_point| scaled(E4M3, Tensor, ActivationScale::Static { scale, zero_point });
    let local = ActivationScale::Local { global: 1.0 };
    for (scheme, expected) in [
        (int(8, Group(36), 127.5), "a group of 36 does not divide 96 columns"),
        (int(8, Group(0), 127.5), "a group of 0 does not divide 96 columns"),
        (int(8, Group(128), 127.5), "a group of 128 does not divide 96 columns"),
        (ActivationQuantization::Ggml(GgmlActivation::Q8K), "a block of 256 does not divide 96 columns"),
        (int(9, Token, 127.5), "integers have 9 bits, expected 2 to 8"),
        (int(1, Token, 127.5), "integers have 1 bits, expected 2 to 8"),
        (int(8, Token, 0.0), "half of the range is 0, expected a positive number"),
        (fixed(0.0, 0.0), "the scale is 0, expected a positive number"),
        (fixed(f32::INFINITY, 0.0), "the scale is inf, expected a positive number"),
        (fixed(1.0, f32::NAN), "the zero point is NaN"),
        (nvfp4(-2.0, 16), "the global scale is -2, expected a positive number"),
        (scaled(E4M3, Group(16), local), "local scales are defined for E2M1 only"),
        (
            mx(ActivationFormat::Int { bits: 8, symmetric: true }, 32),
            "scales that are powers of two are defined for E4M3 and E2M1 only",
        ),
        (
            ActivationQuantization::LlmInt8 { threshold: f32::NAN },
            "the outlier threshold is NaN, expected a positive number",
        ),
    ] {
        assert_eq!(problem(&scheme, 96, std::slice::from_ref(&(0..1))), expected);
        assert_eq!(check(&scheme, 96).unwrap_err(), expected);
    }
    assert_eq!(problem(&token, 0, &[]), "rows have no columns");
    assert_eq!(problem(&token, 36, &[]), "96 values are not rows of 36");
    assert_eq!(problem(&token, 48, &[]), "the requests have 0 rows, the values 2");
    assert_eq!(problem(&token, 48, &[0..1, 1..3]), "the requests have 3 rows, the values 2");
    assert_eq!(problem(&token, 32, &[0..1, 2..3]), "a request has rows 2..3, where row 1 comes next");
    let reversed = Range { start: 1, end: 0 };
    assert_eq!(problem(&token, 32, &[0..1, reversed]), "a request has rows 1..0, where row 1 comes next");
    for scheme in schemes() {
        round_activations(&scheme, &mut [], 256, &[]).unwrap();
        round_activations(&scheme, &mut [], 256, &[0..0, 0..0]).unwrap();
    }
}
