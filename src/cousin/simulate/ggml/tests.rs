//! What is written decodes to what is simulated, whatever the weights are.

use super::*;

const QUANTIZED: &[Encoding] = &[
    Encoding::Q4_0,
    Encoding::Q4_1,
    Encoding::Q5_0,
    Encoding::Q5_1,
    Encoding::Q8_0,
    Encoding::Q2K,
    Encoding::Q3K,
    Encoding::Q4K,
    Encoding::Q5K,
    Encoding::Q6K,
    Encoding::Iq4Nl,
    Encoding::Iq4Xs,
];

/// Numbers between −1 and 1, the same in every run.
fn noise(length: usize, mut state: u64) -> Vec<f32> {
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..length).map(next).collect()
}

/// Weights of many kinds, each a multiple of 512.
fn samples() -> Vec<(&'static str, Vec<f32>)> {
    let scaled = |by: f32, seed| noise(4096, seed).into_iter().map(|x| x * by).collect::<Vec<_>>();
    let peaked: Vec<f32> = noise(4096, 3).into_iter().map(|x| x * x * x * 0.1).collect();
    let mut outlier = scaled(0.02, 4);
    outlier.iter_mut().step_by(97).for_each(|x| *x *= 300.0);
    let mut mostly_zero = scaled(1.0, 5);
    mostly_zero.iter_mut().enumerate().filter(|(i, _)| i % 37 != 0).for_each(|(_, x)| *x = 0.0);
    let mut uneven = scaled(1.0, 6);
    // Parts whose scale vanishes beside their neighbours'.
    uneven.chunks_mut(64).for_each(|parts| parts[..32].iter_mut().for_each(|x| *x *= 1e-4));
    let steps: Vec<f32> = (0..4096).map(|i| ((i % 31) as f32 - 15.0) / 8.0).collect();
    vec![
        ("noise", scaled(1.0, 1)),
        ("small", scaled(0.02, 2)),
        ("peaked", peaked),
        ("outliers", outlier),
        ("mostly zero", mostly_zero),
        ("uneven", uneven),
        ("steps", steps),
        ("zero", vec![0.0; 512]),
        ("negative zero", vec![-0.0; 512]),
        ("constant", vec![0.37; 512]),
        ("negative constant", vec![-2.5; 512]),
        ("positive", scaled(1.0, 7).into_iter().map(|x| x + 3.0).collect()),
        ("tiny", scaled(1e-9, 8)),
        ("below any scale", scaled(1e-16, 9)),
        ("subnormal", scaled(1e-40, 10)),
        ("large", scaled(30_000.0, 11)),
        ("alternating", (0..512).map(|i| if i % 2 == 0 { 1.0 } else { -1.0 }).collect()),
    ]
}

#[test]
fn bytes_decode_to_the_simulated_values() {
    for &encoding in QUANTIZED {
        for (kind, values) in samples() {
            let mut simulated = values.clone();
            assert!(round(encoding, &mut simulated));
            let mut bytes = vec![0xAA; encoding.encoded_bytes(values.len()).unwrap()];
            assert!(encode(encoding, &values, &mut bytes));
            let mut decoded = vec![f32::NAN; values.len()];
            encoding.decode(&bytes, &mut decoded).unwrap();
            let first = decoded.iter().zip(&simulated).position(|(a, b)| a != b);
            let at = first.map(|i| (i, values[i], simulated[i], decoded[i]));
            assert_eq!(at, None, "{} of {kind}", encoding.name());
        }
    }
}

/// The worst error of a weight is half a step of the coarsest scale that its block could need.
#[test]
fn errors_are_those_of_the_bits() {
    for (encoding, steps) in [
        (Encoding::Q8_0, 127.0),
        (Encoding::Q6K, 31.0),
        (Encoding::Q5_0, 15.0),
        (Encoding::Q5K, 15.0),
        (Encoding::Q4_0, 7.0),
        (Encoding::Q4K, 7.0),
        (Encoding::Q3K, 3.0),
        (Encoding::Q2K, 1.5),
    ] {
        let values = noise(4096, 12);
        let mut bytes = vec![0; encoding.encoded_bytes(values.len()).unwrap()];
        assert!(encode(encoding, &values, &mut bytes));
        let mut decoded = vec![0.0; values.len()];
        encoding.decode(&bytes, &mut decoded).unwrap();
        let worst = values.iter().zip(&decoded).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1.1 / steps, "{}: {worst}", encoding.name());
    }
}

#[test]
fn plain_floats_are_rounded_to_even() {
    let values = [1.0, -0.1, 65504.0, 1.000_488_3, 1.001_464_8, 6e-8, -0.0];
    let mut bytes = [0; 14];
    assert!(encode(Encoding::F16, &values, &mut bytes));
    let expected = [0x3C00u16, 0xAE66, 0x7BFF, 0x3C00, 0x3C02, 0x0001, 0x8000];
    assert_eq!(bytes.to_vec(), expected.iter().flat_map(|bits| bits.to_le_bytes()).collect::<Vec<_>>());
    assert!(encode(Encoding::Bf16, &values[..2], &mut bytes[..4]));
    assert_eq!(bytes[..4], [0x80, 0x3F, 0xCD, 0xBD]);
    assert!(encode(Encoding::F32, &values[..2], &mut bytes[..8]));
    assert_eq!(bytes[..4], 1.0f32.to_le_bytes());
}

#[test]
fn what_does_not_fit_is_not_written() {
    let mut bytes = [7; 18];
    assert!(!encode(Encoding::Q4_0, &[0.0; 31], &mut bytes));
    assert!(!encode(Encoding::Q4_0, &[0.0; 32], &mut bytes[..17]));
    assert!(!encode(Encoding::Mxfp4, &[0.0; 32], &mut bytes[..17]));
    assert_eq!(bytes, [7; 18]);
}
