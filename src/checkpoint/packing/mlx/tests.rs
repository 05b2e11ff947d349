//! Against a decoder written from the definition, one weight at a time.

use super::{
    super::fixture::Fixture,
    super::typed::{Noise, Typed, assert_decodes, decoded, pack},
    *,
};
use half::{bf16, f16};
use serde_json::json;

const M: &str = "model.layers.0.mlp.up_proj";

fn part(name: &str) -> String {
    format!("{M}.{name}")
}

/// An affine matrix and its weights after `code_of`.
fn affine_matrix(
    bits: u32,
    [outputs, inputs]: [usize; 2],
    group: usize,
    code_of: impl Fn(u32) -> u32,
) -> (Fixture, Vec<f32>) {
    let mut noise = Noise::new(u64::from(bits));
    let groups = inputs / group;
    let codes = noise.codes(bits, outputs * inputs);
    let (scales, mut biases) = (noise.scales(outputs * groups), noise.scales(outputs * groups));
    biases[0] = 0.0;
    let words: Vec<u32> = codes.chunks(inputs).flat_map(|row| pack(bits, row)).collect();
    let half = |values: &[f32]| values.iter().map(|value| f16::from_f32(*value)).collect::<Vec<_>>();
    let fixture = Fixture::default()
        .u32(&part("weight"), &[outputs, inputs * bits as usize / 32], &words)
        .f16(&part("scales"), &[outputs, groups], &half(&scales))
        .f16(&part("biases"), &[outputs, groups], &half(&biases));
    let weight = |(at, code): (usize, &u32)| {
        let group = at / group;
        (f64::from(code_of(*code)) * f64::from(scales[group]) + f64::from(biases[group])) as f32
    };
    (fixture, codes.iter().enumerate().map(weight).collect())
}

fn settings(bits: u32, group: usize) -> Option<Json> {
    Some(json!({"group_size": group, "bits": bits, "mode": "affine"}))
}

#[test]
fn every_width_equals_the_definition() {
    for bits in WIDTHS {
        for (shape, group) in [([5, 256], 64), ([3, 128], 128), ([2, 1088], 32)] {
            let (fixture, weights) = affine_matrix(bits, shape, group, |code| code);
            let packed = fixture.packed(settings(bits, group), M);
            assert_eq!((packed.shape, packed.encoding), (shape, format!("int{bits} g{group}")));
            assert_eq!(packed.warnings, Vec::<String>::new());
            assert_eq!(packed.tensors, ["weight", "scales", "biases"].map(part));
            assert_decodes(&fixture.packed(settings(bits, group), M), &weights);
        }
    }
}

#[test]
fn scales_may_be_of_other_floats_and_experts_are_stacked() {
    let (fixture, weights) = affine_matrix(4, [6, 64], 32, |code| code);
    let brain = [bf16::from_f32(0.5); 12];
    let packed = fixture.bf16(&part("scales"), &[6, 2], &brain).packed(settings(4, 32), M);
    assert_ne!(decoded(&packed, 6), weights);
    let (fixture, weights) = affine_matrix(4, [6, 64], 32, |code| code);
    let files = fixture.open();
    let tensors = files.tensors();
    let bytes = |name: &str| tensors.get(&part(name)).unwrap().stored().bytes().to_vec();
    let stacked = Fixture::default()
        .with(&part("weight"), Dtype::U32, &[2, 3, 8], bytes("weight"))
        .with(&part("scales"), Dtype::F16, &[2, 3, 2], bytes("scales"))
        .with(&part("biases"), Dtype::F16, &[2, 3, 2], bytes("biases"));
    let packed = stacked.packed(settings(4, 32), M);
    assert_eq!(packed.shape, [6, 64]);
    assert_decodes(&packed, &weights);
}

#[test]
fn a_module_may_have_settings_of_its_own() {
    let (fixture, weights) = affine_matrix(6, [4, 256], 32, |code| code);
    let own = json!({"group_size": 64, "bits": 4, M: {"group_size": 32, "bits": 6}});
    let packed = fixture.packed(Some(own), M);
    assert_decodes(&packed, &weights);
    assert_eq!(packed.warnings, Vec::<String>::new());
    // Half an override takes the rest from the base.
    let own = json!({"group_size": 32, "bits": 4, M: {"bits": 6}});
    assert_decodes(&fixture.packed(Some(own), M), &weights);
    let skipped = json!({"group_size": 32, "bits": 6, M: false});
    let packed = fixture.packed(Some(skipped), M);
    assert_decodes(&packed, &weights);
    assert!(packed.warnings[0].contains("not quantized"), "{:?}", packed.warnings);
}

#[test]
fn without_settings_only_what_is_clear_is_decoded() {
    // 3·32, 5·64 and 8·128 have no other pair; 4·64 = 8·32 = 2·128.
    for (bits, group) in [(3, 32), (5, 64), (8, 128), (6, 128), (2, 32)] {
        let (fixture, weights) = affine_matrix(bits, [2, 256], group, |code| code);
        assert_decodes(&fixture.packed(None, M), &weights);
        // Settings that cannot be: believed are the tensors.
        let packed = fixture.packed(settings(4, 48), M);
        assert_decodes(&packed, &weights);
        assert!(packed.warnings[0].contains("4 bits in groups of 48"), "{:?}", packed.warnings);
    }
    let (fixture, _) = affine_matrix(4, [2, 256], 64, |code| code);
    let said = fixture.refused(None, M);
    assert!(
        said.contains("scales`: ") && said.contains("fits 2 bits g128, 4 bits g64, 8 bits g32"),
        "{said}"
    );
    let said = fixture.refused(settings(4, 128), M);
    assert!(said.contains("fits 2 bits g128, 4 bits g64, 8 bits g32"), "{said}");
}

#[test]
fn the_most_significant_bits_are_those_of_the_code() {
    let (fixture, _) = affine_matrix(8, [4, 128], 64, |code| code);
    let source = fixture.packed(settings(8, 64), M).source.sliced(4).unwrap();
    let (_, expected) = affine_matrix(8, [4, 128], 64, |code| ((code + 8) / 16).min(15) * 16);
    let mut values = vec![0.0; 4 * 128];
    source.decode(0..4, &mut values).unwrap();
    assert_eq!(values, expected);
    assert!(source.sliced(4).is_none() && source.sliced(8).is_none());
}

/// E4M3 from its definition: sign, 4 bits of exponent about 7, 3 bits of mantissa.
fn e4m3(code: u8) -> f64 {
    let (exponent, mantissa) = (i32::from(code >> 3 & 15), f64::from(code & 7));
    let magnitude = match exponent {
        0 => mantissa / 8.0 * 2f64.powi(-6),
        _ => (1.0 + mantissa / 8.0) * 2f64.powi(exponent - 7),
    };
    if code > 127 { -magnitude } else { magnitude }
}

fn e2m1(code: u8) -> f64 {
    let magnitude = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0][usize::from(code & 7)];
    if code > 7 { -magnitude } else { magnitude }
}

/// A matrix of a floating-point mode, and its weights.
fn minifloats(mode: &str, [outputs, inputs]: [usize; 2]) -> (Fixture, Vec<f32>) {
    let mut noise = Noise::new(8);
    let (bits, group) = match mode {
        "mxfp4" => (4, 32),
        "nvfp4" => (4, 16),
        _ => (8, 32),
    };
    // 0x7F and 0xFF are no numbers in E4M3; 255 is none in E8M0.
    let number = |byte: u8| if byte & 0x7F == 0x7F { byte - 1 } else { byte };
    let bytes: Vec<u8> = noise.bytes(outputs * inputs * bits / 8);
    let bytes: Vec<u8> = if bits == 8 { bytes.into_iter().map(number).collect() } else { bytes };
    let mut scales: Vec<u8> =
        noise.bytes(outputs * inputs / group).into_iter().map(|s| number(s) & 0x7F).collect();
    scales[1] = 0;
    let scale = |code: u8| match mode {
        "nvfp4" => e4m3(code),
        _ => 2f64.powi(i32::from(code) - 127),
    };
    let weights = (0..outputs * inputs)
        .map(|at| {
            let value = match bits {
                8 => e4m3(bytes[at]),
                _ => e2m1(bytes[at / 2] >> (4 * (at % 2)) & 15),
            };
            (value * scale(scales[at / group])) as f32
        })
        .collect();
    let fixture = Fixture::default()
        .with(&part("weight"), Dtype::U32, &[outputs, inputs * bits / 32], bytes)
        .u8(&part("scales"), &[outputs, inputs / group], &scales);
    (fixture, weights)
}

#[test]
fn floating_point_modes_equal_the_definition() {
    for mode in ["mxfp4", "mxfp8", "nvfp4"] {
        let (fixture, weights) = minifloats(mode, [5, 96]);
        for stated in [Some(json!({"mode": mode, "bits": 4, "group_size": 32})), None] {
            let packed = fixture.packed(stated, M);
            assert_eq!((packed.shape, packed.encoding), ([5, 96], mode.to_uppercase()));
            assert_eq!((packed.warnings.len(), packed.tensors), (0, ["weight", "scales"].map(part).to_vec()));
        }
        assert_decodes(&fixture.packed(None, M), &weights);
        let packed = fixture.packed(settings(4, 64), M);
        assert!(packed.warnings[0].contains(&format!("mode affine, the tensors say {mode}")));
        assert!(packed.source.sliced(2).is_none());
        let said = fixture.f32(&part("biases"), &[1], &[0.0]).refused(None, M);
        assert!(said.contains("biases`: is there, but mode"), "{said}");
    }
    let (fixture, _) = minifloats("mxfp4", [5, 96]);
    let mut scales = [100; 15];
    scales[4] = 255;
    let packed = fixture.u8(&part("scales"), &[5, 3], &scales).packed(None, M);
    let said = packed.source.decode(1..2, &mut [0.0; 96]).unwrap_err().to_string();
    assert!(said.contains("scales`: row 1, column 1 is NaN"), "{said}");
}

#[test]
fn tensors_that_do_not_fit_are_refused() {
    let fixture = || affine_matrix(4, [4, 128], 64, |code| code).0;
    let refused = |fixture: Fixture, words: &str| {
        let said = fixture.refused(settings(4, 64), M);
        assert!(said.contains(words), "{words}: {said}");
    };
    refused(fixture().without(&part("scales")), "scales`: is missing");
    refused(fixture().without(&part("biases")), "biases`: is missing");
    refused(fixture().f32(&part("scales"), &[4, 3], &[1.0; 12]), "no width of 2, 3, 4, 5, 6 or 8 bits");
    refused(fixture().f32(&part("scales"), &[3, 2], &[1.0; 6]), "scales`: has shape [3, 2], expected [4, 2]");
    refused(fixture().f32(&part("biases"), &[4, 1], &[1.0; 4]), "biases`: has shape [4, 1], expected [4, 2]");
    refused(
        fixture().u32(&part("scales"), &[4, 2], &[1; 8]),
        "scales`: is of type U32, expected F16 or BF16 or F32",
    );
    refused(fixture().f32(&part("scales"), &[4, 2], &[0.0; 8]), "scales`: row 0, column 0 is 0");
    refused(fixture().f32(&part("biases"), &[4, 2], &[f32::NAN; 8]), "biases`: row 0, column 0 is NaN");
    refused(fixture().u8(&part("scales"), &[4, 5], &[1; 20]), "fits neither mxfp4, mxfp8 nor nvfp4");
    refused(fixture().u32(&part("weight"), &[0, 16], &[]), "no matrix of weights");
    let said = fixture().refused(Some(json!({"mode": "mxint8"})), M);
    assert!(said.contains("quantization.mode") && said.contains("mxint8"), "{said}");
    // A dense matrix is none of MLX's.
    assert!(fixture().f32(&part("weight"), &[4, 4], &[1.0; 16]).read(None, M).unwrap().is_none());
}
