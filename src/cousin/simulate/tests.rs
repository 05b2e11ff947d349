//! Against values worked out by hand, naive re-implementations, and candle's quantizers.

use candle_core::quantized::k_quants::{self, GgmlType};

use super::{
    fixture::{matrix, model, noise},
    *,
};
use crate::{
    checkpoint::activations::{ActivationFormat, ActivationQuantization, ActivationScale, Granularity},
    minifloat::{E2M1, E4M3},
};

fn simulated(text: &str, rows: usize, columns: usize, values: &[f32]) -> Vec<f32> {
    let (_folder, weight) = matrix(rows, columns, values);
    Simulation::parse(text).unwrap().apply(weight, &[]).unwrap().decode().unwrap()
}

/// A group of 16 values that begins with these.
fn group(values: &[f32]) -> Vec<f32> {
    let mut group = values.to_vec();
    group.resize(16, 0.0);
    group
}

#[test]
fn integers_by_hand() {
    // amax 7.5 makes the scale 1: 7.5 is clamped, halves go to the even neighbour.
    let x = [7.5, -7.5, 0.5, 1.5, -2.5, 3.25, 0.0, 6.75];
    assert_eq!(simulated("int4", 1, 8, &x), [7.0, -8.0, 0.0, 2.0, -2.0, 3.0, 0.0, 7.0]);
    // amax 127.5 the same for int8, each row by itself.
    let x = [127.5, 0.49, -3.5, 1.0, 255.0, 1.0, 3.0, -255.0];
    assert_eq!(simulated("w8a8", 2, 4, &x), [127.0, 0.0, -4.0, 1.0, 254.0, 0.0, 4.0, -256.0]);
    // Groups of two: 1.5 and −3 have scales 1 and 2 at 2 bits, codes −2 to 1.
    assert_eq!(simulated("w2a16-g2", 1, 4, &[1.5, -0.6, -3.0, 1.1]), [1.0, -1.0, -4.0, 2.0]);
    // From −5 to 10: scale 1, zero point −8 + 5; zero is exact.
    let x = [-5.0, 10.0, 0.0, 2.5, 3.5, -4.4, 9.6, 0.4];
    assert_eq!(simulated("w4a16_asym-g8", 1, 8, &x), [-5.0, 10.0, 0.0, 3.0, 3.0, -4.0, 10.0, 0.0]);
    // Only positive values: the range begins at zero.
    let x = [15.0, 14.6, 7.0, 7.4];
    assert_eq!(simulated("w4a16_asym-g4", 1, 4, &x), [15.0, 15.0, 7.0, 7.0]);
}

/// The nearest of `values` times `scale`, by trying all, in f64.
fn nearest_of(x: f32, scale: f64, values: impl Iterator<Item = f64>) -> f64 {
    values
        .map(|value| value * scale)
        .min_by(|a, b| {
            let off = |value: &f64| (value - f64::from(x)).abs();
            off(a).total_cmp(&off(b))
        })
        .unwrap()
}

/// As near to `x` as `expected`: of two codes at one distance either will do, for they are tested by hand.
fn assert_nearest(found: &[f32], expected: &[f64], x: &[f32], text: &str) {
    assert_eq!(found.len(), expected.len());
    for (index, ((found, expected), x)) in found.iter().zip(expected).zip(x).enumerate() {
        let off = |value: f64| (value - f64::from(*x)).abs();
        let further = off(f64::from(*found)) - off(*expected);
        assert!(
            further.abs() <= 1e-6 * f64::from(x.abs()),
            "{text}: {index}: {x} became {found}, not {expected}"
        );
    }
}

fn amax(values: &[f32]) -> f64 {
    values.iter().fold(0.0, |largest, x| largest.max(f64::from(x.abs())))
}

#[test]
fn every_closed_form_is_the_nearest_of_its_codes() {
    let (rows, columns) = (130, 256);
    let x = noise(rows * columns, 1);
    let eights = || E4M3.iter().filter(|value| value.is_finite()).map(|value| f64::from(*value));
    let fours = || E2M1.iter().map(|value| f64::from(*value));
    let codes = |bits: i32| (-(1 << (bits - 1))..(1 << (bits - 1))).map(f64::from);
    type Nearest<'a> = Box<dyn Fn(f32, &[f32]) -> f64 + 'a>;
    let int = |bits: i32| -> Nearest {
        Box::new(move |x, group| {
            nearest_of(x, amax(group) / ((f64::from(bits).exp2() - 1.0) / 2.0), codes(bits))
        })
    };
    let power = |exponent: i32, group: &[f32]| {
        let amax = amax(group);
        let floor = amax.log2().floor();
        let up = f64::from(amax / floor.exp2() >= 1.75);
        (floor + up - f64::from(exponent)).exp2()
    };
    let eight: Nearest = Box::new(|x, group| nearest_of(x, amax(group) / 448.0, eights()));
    let four: Nearest = Box::new(|x, group| nearest_of(x, power(2, group), fours()));
    let mx8: Nearest = Box::new(|x, group| nearest_of(x, power(8, group), eights()));
    let whole = amax(&x);
    let nvfp4: Nearest = Box::new(|x, group| {
        let global = 448.0 * 6.0 / whole;
        let scale = nearest_of((global * amax(group) / 6.0) as f32, 1.0, eights());
        nearest_of(x, scale / global, fours())
    });
    let tensor: Nearest = Box::new(|x, _| nearest_of(x, whole / 448.0, eights()));
    for (text, size, nearest) in [
        ("int8", columns, int(8)),
        ("int6", columns, int(6)),
        ("int3", columns, int(3)),
        ("w4a16", 128, int(4)),
        ("int4-g32", 32, int(4)),
        ("w3a16-g64", 64, int(3)),
        ("w2a16", 128, int(2)),
        ("fp8", columns, eight),
        ("fp8_tensor", columns, tensor),
        ("mxfp4a16", 32, four),
        ("mxfp8", 32, mx8),
        ("nvfp4a16", 16, nvfp4),
    ] {
        let expected: Vec<f64> =
            x.chunks(size).flat_map(|group| group.iter().map(|x| nearest(*x, group))).collect();
        assert_nearest(&simulated(text, rows, columns, &x), &expected, &x, text);
    }
}

#[test]
fn blocks_of_fp8_reach_across_rows() {
    // 130 × 200: the last blocks are 2 rows high and 72 columns wide.
    let (rows, columns) = (130, 200);
    let x = noise(rows * columns, 2);
    let eights = || E4M3.iter().filter(|value| value.is_finite()).map(|value| f64::from(*value));
    let mut scales = [[0.0f64; 2]; 2];
    for (at, x) in x.iter().enumerate() {
        let scale = &mut scales[at / columns / 128][at % columns / 128];
        *scale = scale.max(f64::from(x.abs()) / 448.0);
    }
    let expected: Vec<f64> = x
        .iter()
        .enumerate()
        .map(|(at, x)| nearest_of(*x, scales[at / columns / 128][at % columns / 128], eights()))
        .collect();
    assert_nearest(&simulated("fp8_block", rows, columns, &x), &expected, &x, "fp8_block");
}

#[test]
fn four_bit_floats_by_hand() {
    // The largest value 2688 makes NVFP4's factor 1, so that a group with amax 6 has scale 1. Ties to even.
    let mut x = group(&[2688.0]);
    x.extend(group(&[6.0, 0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, -5.1, -0.2]));
    let rounded = simulated("nvfp4a16", 1, 32, &x);
    assert_eq!(rounded[0], 2688.0);
    assert_eq!(rounded[16..26], [6.0, 0.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0, -6.0, -0.0]);
    // A group far below the others: its scale 2^−10 is half of E4M3's smallest and ties to zero, so 1/8 stands in.
    let mut x = group(&[2688.0]);
    x.extend(group(&[6.0 / 1024.0]));
    assert_eq!(simulated("nvfp4a16", 1, 32, &x)[16], 0.0);
    // MXFP4: 6.9 scales by 1 and is cut to 6; from 7 on, by 2.
    let mut x = vec![6.9, 1.0, 0.3];
    x.resize(32, 0.0);
    assert_eq!(simulated("mxfp4a16", 1, 32, &x)[..3], [6.0, 1.0, 0.5]);
    x[0] = 7.0;
    assert_eq!(simulated("mxfp4a16", 1, 32, &x)[..3], [8.0, 1.0, 0.0]);
}

#[test]
fn codebooks_by_hand() {
    let mut x = vec![2.0, -2.0, 1.4, -1.3, 0.07, 0.0, 0.0795, -0.1];
    x.resize(64, 0.0);
    let nf4 = simulated("nf4", 1, 64, &x);
    let expected = [2.0, -2.0, 2.0 * 0.722_956_84, 2.0 * -0.696_192_8, 0.0, 0.0, 0.0, -2.0 * 0.091_050_036];
    assert_eq!(nf4[..7], expected[..7]);
    // −0.05 lies between 0 and −0.091, nearer to the latter.
    assert_eq!(nf4[7], expected[7]);
    // Over 12: 0.0625, 2, 3, 4, 6, 8, 12. One tie: half way between 8 and 12 goes to the lower.
    let mut x = vec![12.0, 10.0, -10.0, 5.1, 2.6, 0.9, 0.04, 0.02];
    x.resize(64, 0.0);
    let fp4 = simulated("fp4", 1, 64, &x);
    let expected = [12.0, 8.0, -12.0, 6.0, 3.0, 0.0625, 0.0625, 0.0];
    for (found, expected) in fp4.iter().zip(expected) {
        assert!((found - expected).abs() <= 1e-6 * expected.abs(), "{found} against {expected}");
    }
}

#[test]
fn double_quantization_restores_scales_from_its_codebook() {
    let map = super::codebook::dynamic_map();
    assert_eq!(map.len(), 256);
    assert!(map.windows(2).all(|pair| pair[0] < pair[1]));
    // The published data type: from −0.993 over ±5.5e−7 to 1, 0.9929688 below it.
    assert_eq!((map[127], map[255]), (0.0, 1.0));
    for (at, value) in
        [(0, -0.992_968_8f32), (254, 0.992_968_8), (128, 5.5e-7), (126, -5.5e-7), (130, 7.75e-6)]
    {
        assert!((map[at] - value).abs() <= 1e-6 * value.abs(), "{at}: {}", map[at]);
    }

    // 300 blocks, so that scales have two scales of their own.
    let x = noise(300 * 64, 3);
    let scales: Vec<f64> = x.chunks(64).map(amax).collect();
    let mean = scales.iter().sum::<f64>() / 300.0;
    let mut restored = Vec::new();
    for scales in scales.chunks(256) {
        let off: Vec<f32> = scales.iter().map(|scale| (scale - mean) as f32).collect();
        let largest = amax(&off);
        for x in &off {
            restored.push(nearest_of(*x, largest, map.iter().map(|value| f64::from(*value))) + mean);
        }
    }
    let found = simulated("nf4-dq", 300, 64, &x);
    let plain = simulated("nf4", 300, 64, &x);
    for (block, scale) in restored.iter().enumerate() {
        // The codes are those of the exact scale; only what they are multiplied by differs.
        let expected: Vec<f64> =
            plain[block * 64..][..64].iter().map(|x| f64::from(*x) / scales[block] * scale).collect();
        for (found, expected) in found[block * 64..][..64].iter().zip(expected) {
            assert!(
                (f64::from(*found) - expected).abs() <= 1e-6,
                "block {block}: {found} against {expected}"
            );
        }
    }
}

#[test]
fn llm_int8_goes_through_f16() {
    let x = [127.0, 1.0 + 1.0 / 4096.0, 0.6, -126.4, 1.0 / 3.0, 0.49, 5.5, 0.0];
    // 1 + 2^−12 is 1 in f16; 127 / amax is 1.
    assert_eq!(simulated("llm_int8", 1, 8, &x), [127.0, 1.0, 1.0, -126.0, 0.0, 0.0, 6.0, 0.0]);
}

/// What candle's quantizer leaves of whole blocks.
fn by_candle<T: GgmlType>(values: &[f32]) -> Vec<f32> {
    let mut blocks = vec![T::zeros(); values.len() / T::BLCK_SIZE];
    let mut out = vec![0.0; values.len()];
    T::from_float(values, &mut blocks);
    T::to_float(&blocks, &mut out);
    out
}

fn rms(a: &[f32], b: &[f32]) -> f64 {
    let squares: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    (squares / a.len() as f64).sqrt()
}

#[test]
fn gguf_types_equal_candles_or_lose_less() {
    let mut x = noise(64 * 256, 4);
    // A block of zeros, one of a single value, one of equal magnitudes, a tiny one.
    x[..256].fill(0.0);
    x[256..512].fill(0.0);
    x[300] = -0.7;
    x[512..768].iter_mut().enumerate().for_each(|(i, x)| *x = if i % 3 == 0 { 0.5 } else { -0.5 });
    x[768..1024].iter_mut().for_each(|x| *x *= 1e-12);
    type Oracle = fn(&[f32]) -> Vec<f32>;
    let equal: [(&str, Oracle); 6] = [
        ("q4_0", by_candle::<k_quants::BlockQ4_0>),
        ("q4_1", by_candle::<k_quants::BlockQ4_1>),
        ("q5_0", by_candle::<k_quants::BlockQ5_0>),
        ("q5_1", by_candle::<k_quants::BlockQ5_1>),
        ("q8_0", by_candle::<k_quants::BlockQ8_0>),
        ("q3_k", by_candle::<k_quants::BlockQ3K>),
    ];
    for (text, oracle) in equal {
        let (found, expected) = (simulated(text, 64, 256, &x), oracle(&x));
        let differ = found.iter().zip(&expected).filter(|(a, b)| a != b).count();
        assert_eq!(differ, 0, "{text}");
    }
    // Candle searches as llama.cpp did at first; today's search is closer.
    let closer: [(&str, Oracle); 4] = [
        ("q2_k", by_candle::<k_quants::BlockQ2K>),
        ("q4_k", by_candle::<k_quants::BlockQ4K>),
        ("q5_k", by_candle::<k_quants::BlockQ5K>),
        ("q6_k", by_candle::<k_quants::BlockQ6K>),
    ];
    for (text, oracle) in closer {
        let x = &x[1024..];
        let (ours, candles) = (rms(&simulated(text, 60, 256, x), x), rms(&oracle(x), x));
        assert!(ours < 1.02 * candles && ours > 0.9 * candles, "{text}: {ours} against {candles}");
    }
}

/// Part by part, without lanes: llama.cpp's search for scale and minimum as its source describes it.
fn naive_search(
    x: &[f32],
    weights: &[f32],
    codes: f32,
    first: f32,
    steps: usize,
    absolute: bool,
) -> (f32, f32) {
    let (mut min, max) =
        (x.iter().copied().fold(x[0], f32::min).min(0.0), x.iter().copied().fold(x[0], f32::max));
    if max == min {
        return (0.0, -min);
    }
    let code = |inverse: f32, min: f32, x: f32| (inverse * (x - min)).round_ties_even().clamp(0.0, codes);
    let error = |scale: f32, offset: f32, inverse: f32, min: f32| -> f32 {
        let mut sum = 0.0;
        for (x, w) in x.iter().zip(weights) {
            let off = scale * code(inverse, min, *x) + offset - x;
            sum += w * if absolute { off.abs() } else { off * off };
        }
        sum
    };
    let mut inverse = codes / (max - min);
    let mut scale = 1.0 / inverse;
    let mut best = error(scale, min, inverse, min);
    let total =
        |f: &dyn Fn(f32, f32) -> f32| x.iter().zip(weights).fold(0.0f32, |sum, (x, w)| sum + f(*x, *w));
    let (sum_w, sum_x) = (total(&|_, w| w), total(&|x, w| w * x));
    for step in 0..=steps {
        inverse = (first + 0.1 * step as f32 + codes) / (max - min);
        let l = |x: f32| code(inverse, min, x);
        let (sum_l, sum_l2) = (total(&|x, w| w * l(x)), total(&|x, w| w * l(x) * l(x)));
        let sum_xl = total(&|x, w| w * l(x) * x);
        let determinant = sum_w * sum_l2 - sum_l * sum_l;
        if determinant <= 0.0 {
            continue;
        }
        let mut new_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
        let mut new_min = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
        if new_min > 0.0 {
            (new_min, new_scale) = (0.0, sum_xl / sum_l2);
        }
        let error = error(new_scale, new_min, inverse, min);
        if error < best {
            (best, scale, min) = (error, new_scale, new_min);
        }
    }
    (scale, -min)
}

#[test]
fn lanes_search_as_one_part_after_the_other_would() {
    let mut x = noise(8 * 256, 5);
    x[..32].fill(0.25);
    x[32..64].iter_mut().for_each(|x| *x = x.abs() + 1.0);
    let half = |x: f32| half::f16::from_f32(x).to_f32();
    for (text, codes, first, steps) in [("q4_k", 15.0, -1.0, 20), ("q5_k", 31.0, -0.5, 15)] {
        let mut expected = Vec::new();
        for block in x.chunks(256) {
            let (mut scales, mut mins) = (Vec::new(), Vec::new());
            for part in block.chunks(32) {
                let typical = (part.iter().fold(0.0f32, |sum, x| sum + x * x) / 32.0).sqrt();
                let weights: Vec<f32> = part.iter().map(|x| typical + x.abs()).collect();
                let (scale, min) = naive_search(part, &weights, codes, first, steps, false);
                scales.push(scale);
                mins.push(min);
            }
            let share = |values: &[f32]| -> Vec<f32> {
                let max = values.iter().copied().fold(0.0, f32::max);
                let inverse = if max > 0.0 { 63.0 / max } else { 0.0 };
                values.iter().map(|x| half(max / 63.0) * (inverse * x).round_ties_even().min(63.0)).collect()
            };
            let (scales, mins) = (share(&scales), share(&mins));
            for (part, x) in
                block.chunks(32).enumerate().flat_map(|(part, xs)| xs.iter().map(move |x| (part, x)))
            {
                let (d, m) = (scales[part], mins[part]);
                let code = if d == 0.0 { 0.0 } else { ((x + m) / d).round_ties_even().clamp(0.0, codes) };
                expected.push(d * code - m);
            }
        }
        assert_eq!(simulated(text, 8, 256, &x), expected, "{text}");
    }
}

#[test]
fn rows_come_out_alike_however_they_are_asked_for() {
    // 67 × 256 fits every format; 37 × 72 lets codebook blocks begin inside of rows.
    for (rows, columns) in [(67, 256), (37, 72)] {
        let x = noise(rows * columns, 6);
        let (_folder, weight) = matrix(rows, columns, &x);
        for entry in QUANTIZERS {
            let simulation = Simulation::parse(entry.name).unwrap();
            let Ok(quantized) = simulation.apply(weight.clone(), &[]) else {
                assert!(!columns.is_multiple_of(256), "{}", entry.name);
                continue;
            };
            let whole = quantized.decode().unwrap();
            let fresh = simulation.apply(weight.clone(), &[]).unwrap();
            let mut out = vec![0.0; columns];
            for row in (0..rows).rev() {
                fresh.decode_rows_here(row..row + 1, &mut out).unwrap();
                assert_eq!(out, whole[row * columns..][..columns], "{}: row {row}", entry.name);
            }
            let mut out = vec![0.0; 5 * columns];
            fresh.decode_rows(3..8, &mut out).unwrap();
            assert_eq!(out, whole[3 * columns..8 * columns], "{}", entry.name);
        }
    }
}

#[test]
fn more_bits_lose_less() {
    let x = noise(64 * 256, 7);
    for ladder in [
        &["int8", "int6", "int5", "int4", "int3", "int2"][..],
        &["q8_0", "q6_k", "q5_k", "q4_k", "q3_k", "q2_k"],
        &["w8a16", "fp8", "nf4", "int3-g32", "int2-g32"],
        &["fp8", "mxfp8", "nvfp4", "mxfp4"],
    ] {
        let errors: Vec<f64> = ladder.iter().map(|text| rms(&simulated(text, 64, 256, &x), &x)).collect();
        assert!(errors.windows(2).all(|pair| pair[0] < pair[1]), "{ladder:?}: {errors:?}");
    }
}

#[test]
fn zero_stays_zero_and_extremes_end_in_values_or_errors() {
    for entry in QUANTIZERS {
        assert_eq!(simulated(entry.name, 4, 256, &vec![0.0; 1024]), vec![0.0; 1024], "{}", entry.name);
        for scale in [1e-44, 1e-30, 1e30, 3e38 / 0.15] {
            let x: Vec<f32> = noise(1024, 8).iter().map(|x| x * scale).collect();
            let (_folder, weight) = matrix(4, 256, &x);
            let quantized = Simulation::parse(entry.name).unwrap().apply(weight, &[]).unwrap();
            // GGUF types cannot hold scales beyond f16: an error, never a panic or a value that is not one.
            if let Ok(values) = quantized.decode() {
                assert!(values.iter().all(|x| x.is_finite()), "{} at {scale}", entry.name);
            }
        }
        let mut x = noise(1024, 9);
        x[777] = f32::NAN;
        let (_folder, weight) = matrix(4, 256, &x);
        let error = Simulation::parse(entry.name).unwrap().apply(weight, &[]).unwrap().decode().unwrap_err();
        assert!(error.to_string().contains("row 3, column 9 is NaN"), "{}: {error}", entry.name);
    }
}

#[test]
fn nvfp4_shares_its_factor_with_what_a_runtime_joins() {
    let (q, mut k, v) = (noise(256, 10), noise(256, 11), noise(256, 12));
    k[100] = 3.0;
    let name = |module: &str| format!("model.layers.0.self_attn.{module}.weight");
    let names = [name("q_proj"), name("k_proj"), name("v_proj")];
    let shape: &[usize] = &[8, 32];
    let (_folder, weights) = model(&[(&names[0], shape, &q), (&names[1], shape, &k), (&names[2], shape, &v)]);
    let first = |text: &str, model: &[Weight]| {
        Simulation::parse(text).unwrap().apply(weights[0].clone(), model).unwrap().decode().unwrap()
    };
    let alone = first("nvfp4", &[]);
    let joined = first("nvfp4", &weights);
    assert_ne!(alone, joined);
    // The factor is 2688 / 3 for all three.
    let global = 448.0 * 6.0 / 3.0;
    let eights = || E4M3.iter().filter(|value| value.is_finite()).map(|value| f64::from(*value));
    let expected: Vec<f64> = q
        .chunks(16)
        .flat_map(|group| {
            let scale = nearest_of((global * amax(group) / 6.0) as f32, 1.0, eights()) / global;
            group.iter().map(move |x| nearest_of(*x, scale, E2M1.iter().map(|value| f64::from(*value))))
        })
        .collect();
    assert_nearest(&joined, &expected, &q, "nvfp4");
    assert_eq!(first("nvfp4,k_proj=none", &weights), alone, "only if all of them are NVFP4");
    assert_eq!(first("nvfp4,v_proj=int4", &weights), alone);
}

#[test]
fn stored_bytes_count_scales() {
    let bits = |text: &str, rows: usize, columns: usize| {
        let (_folder, weight) = matrix(rows, columns, &vec![0.5; rows * columns]);
        let quantized = Simulation::parse(text).unwrap().apply(weight, &[]).unwrap();
        8.0 * quantized.stored_bytes as f64 / (rows * columns) as f64
    };
    for (text, expected) in [
        ("q4_k", 4.5),
        ("q6_k", 6.5625),
        ("q2_k", 2.625),
        ("q8_0", 8.5),
        ("fp8", 8.0 + 32.0 / 1024.0),
        ("w8a8", 8.0 + 32.0 / 1024.0),
        ("fp8_block", 8.0 + 32.0 / 16384.0),
        ("mxfp4", 4.25),
        ("mxfp8", 8.25),
    ] {
        assert_eq!(bits(text, 128, 1024), expected, "{text}");
    }
    // With a shape, a factor or a codebook on top.
    for (text, expected) in
        [("w4a16", 4.25), ("w4a16_asym", 4.28125), ("nvfp4", 4.5), ("nf4", 4.5), ("nf4-dq", 4.126_953_125)]
    {
        let found = bits(text, 1024, 1024);
        assert!((found - expected).abs() < 0.01, "{text}: {found}");
    }
}

#[test]
fn patterns_are_names_endings_or_globs() {
    let module = "model.layers.10.mlp.down_proj";
    for pattern in [
        module,
        "down_proj",
        "mlp.down_proj",
        "*",
        "model.layers.1*",
        "*.down_proj",
        "*layers.10.*",
        "model.*.mlp.*proj",
        "*0*proj",
        "**",
    ] {
        assert!(matches(pattern, module), "{pattern}");
    }
    for pattern in
        ["", "proj", "own_proj", "layers.1", "model.layers.1.*", "*mlp", "*.q_proj", "*proj*x", "x*"]
    {
        assert!(!matches(pattern, module), "{pattern}");
    }
    // Two stretches must not share characters.
    assert!(!matches("*proj*proj", module));
}

#[test]
fn the_last_pattern_wins_and_embeddings_must_be_named() {
    let text = "q4_k,down_proj=q6_k,model.layers.0.*=none,lm_head=q8_0,model.layers.0.mlp.down_proj=int4";
    let simulation = Simulation::parse(text).unwrap();
    let label = |module: &str| simulation.quantizer(module).map(Quantizer::label);
    for (module, expected) in [
        ("model.layers.1.self_attn.q_proj", Some("Q4_K")),
        ("model.layers.1.mlp.down_proj", Some("Q6_K")),
        ("model.layers.0.self_attn.q_proj", None),
        ("model.layers.0.mlp.down_proj", Some("int4 channel")),
        ("model.layers.1.mlp.experts.3.w1", Some("Q4_K")),
        ("model.layers.1.mlp.gate", None),
        ("model.layers.1.block_sparse_moe.gate", None),
        ("lm_head", Some("Q8_0")),
        ("model.embed_tokens", None),
    ] {
        assert_eq!(label(module).as_deref(), expected, "{module}");
    }
}

#[test]
fn a_weight_says_what_became_of_it() {
    let (_folder, weight) = matrix(4, 256, &noise(1024, 13));
    let apply = |text: &str| Simulation::parse(text).unwrap().apply(weight.clone(), &[]).unwrap();
    let w8a8 = apply("w8a8");
    assert_eq!(w8a8.encoding, "int8 channel simulated");
    assert_eq!(
        w8a8.input,
        Some(ActivationQuantization::Scaled {
            format: ActivationFormat::Int { bits: 8, symmetric: true },
            granularity: Granularity::Token,
            scale: ActivationScale::Dynamic { half_range: 127.5 },
        })
    );
    assert!(w8a8.warnings.is_empty() && w8a8.ggml_input.is_none());
    let q4_k = apply("Q4_K");
    assert!(q4_k.ggml_input.is_some() && q4_k.input.is_none());
    assert!(apply("int8").input.is_none());
    let twice = Simulation::parse("nf4").unwrap().apply(q4_k, &[]).unwrap();
    assert!(twice.warnings[0].contains("Q4_K simulated"), "{:?}", twice.warnings);
    assert!(weight.same_source(&apply("none,up_proj=int4")), "untouched");
    for entry in QUANTIZERS {
        assert!(!entry.summary.is_empty() && !entry.source.is_empty());
    }
}

#[test]
fn what_does_not_fit_is_refused_with_what_to_write() {
    let refused = |text: &str, columns: usize| {
        let (_folder, weight) = matrix(2, columns, &vec![0.5; 2 * columns]);
        let error = Simulation::parse(text).unwrap().apply(weight, &[]).unwrap_err();
        (error.to_string(), error.help().unwrap().to_owned())
    };
    let (problem, help) = refused("q4_k", 96);
    assert!(problem.contains("96") && problem.contains("256"), "{problem}");
    assert!(help.contains("model.layers.0.mlp.down_proj=q5_0"), "{help}");
    assert!(refused("q6_k", 100).1.contains("=int8"));
    assert!(refused("w4a16", 192).1.contains("-g64"));
    assert!(refused("mxfp4", 48).0.contains("MXFP4"));
    assert!(refused("nvfp4", 24).0.contains("16"));

    let (_folder, weights) =
        model(&[("model.layers.0.input_layernorm.weight", &[8], &[1.0; 8]), ("x.bias", &[8], &[1.0; 8])]);
    let apply = |text: &str, at: usize| Simulation::parse(text).unwrap().apply(weights[at].clone(), &[]);
    assert!(apply("int4,input_layernorm=int8", 0).unwrap_err().to_string().contains("only matrices"));
    assert!(apply("int4,*=int8", 0).unwrap().same_source(&weights[0]));
    assert!(apply("int4,*=int8", 1).unwrap().same_source(&weights[1]));
}

#[test]
fn texts_that_mean_nothing_are_refused_by_name() {
    for (text, said, helped) in [
        ("q4_z", "q4_z", "q4_k"),
        ("", "begin", "q4_k"),
        ("down_proj=q4_k", "begin", "none"),
        ("q4_k,down_proj", "down_proj", "PATTERN"),
        ("q4_k,=q8_0", "=q8_0", "PATTERN"),
        ("q4_k,down_proj=q9", "q9", "q4_k"),
        ("none", "nothing", "quantizer"),
        ("none,x=none", "nothing", "quantizer"),
        ("int4-g0", "`0`", "int4-g64"),
        ("int4-g99999999999999999999", "9999", "int4-g64"),
        ("nf4-g32", "fixed", "integer"),
        ("q4_k_m", "q4_k_m", "down_proj=q6_k"),
        ("gptq", "gptq", "compare the file"),
        ("iq2_xs", "iq2_xs", "compare the file"),
    ] {
        let error = Simulation::parse(text).unwrap_err();
        assert!(error.to_string().contains(said), "{text}: {error}");
        assert!(error.help().unwrap().contains(helped), "{text}: {:?}", error.help());
    }
}

#[test]
fn patterns_without_a_matrix_are_reported() {
    let names: Vec<String> =
        ["model.layers.0.mlp.down_proj.weight", "lm_head.weight", "lm_head.bias"].map(str::to_owned).to_vec();
    let check = |text: &str, names: &[String]| Simulation::parse(text).unwrap().check_matched(names);
    check("q4_k,lm_head=q8_0,down_proj=none,*head*=int8", &names).unwrap();
    let error = check("q4_k,lm_head=q8_0,dwn_proj=q6_k", &names).unwrap_err();
    assert!(error.to_string().contains("`dwn_proj`"), "{error}");
    assert!(error.help().unwrap().contains("down_proj, lm_head"));
    assert!(check("q4_k", &names[1..]).unwrap_err().to_string().contains("no matrix"));
    assert!(check("none,down_proj=q4_k,down_proj=none", &names).is_err());
}

#[test]
fn uneven_values_by_a_search_for_the_scale() {
    let values = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
    let nearest = |x: f32| nearest_of(x, 1.0, values.iter().map(|value| f64::from(*value))) as f32;
    // 3 × 160: blocks that the search takes eight at a time are not whole here.
    let x = noise(3 * 160, 18);
    let mut expected = Vec::new();
    for block in x.chunks(32) {
        let largest = block.iter().fold(0.0f32, |max, x| if x.abs() > max.abs() { *x } else { max });
        let (mut best, mut scale) = (-1.0, 0.0);
        for first in std::iter::once(-127.0).chain((-134..=-120).map(|first| first as f32)) {
            let sum = |f: &dyn Fn(f32, f32) -> f32| {
                block.iter().fold(0.0f32, |sum, x| sum + x * x * f(*x, nearest(first / largest * x)))
            };
            let (sum_xq, sum_q2) = (sum(&|x, q| q * x), sum(&|_, q| q * q));
            if sum_xq * sum_xq > 1.000_001 * best * sum_q2 {
                (scale, best) = (sum_xq / sum_q2, sum_xq * sum_xq / sum_q2);
            }
        }
        let stored = half::f16::from_f32(scale).to_f32();
        expected.extend(block.iter().map(|x| f64::from(stored * nearest(x / scale))));
    }
    let found = simulated("iq4_nl", 3, 160, &x);
    let differ = found.iter().zip(&expected).filter(|(a, b)| (f64::from(**a) - **b).abs() > 1e-6).count();
    assert!(differ <= 2, "{differ}: only values half way between two may go to the other");
}
