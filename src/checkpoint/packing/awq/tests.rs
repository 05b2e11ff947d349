//! Against a decoder written from the definition, one weight at a time.

use super::{
    super::fixture::Fixture,
    super::typed::{Noise, Typed, assert_decodes, decoded},
    *,
};
use half::f16;
use serde_json::{Value as Json, json};

const M: &str = "model.layers.0.mlp.up_proj";

/// AutoAWQ's order: nibble n of a word holds column ORDER[n] of its eight.
const ORDER: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];

fn words(codes: &[u32]) -> Vec<u32> {
    codes
        .chunks(8)
        .map(|eight| ORDER.iter().enumerate().fold(0, |word, (n, column)| word | eight[*column] << (4 * n)))
        .collect()
}

/// The checkpoint, and its weights after `code_of`.
fn matrix([outputs, inputs]: [usize; 2], group: usize, code_of: impl Fn(u32) -> u32) -> (Fixture, Vec<f32>) {
    let mut noise = Noise::new(inputs as u64);
    let groups = inputs.div_ceil(group);
    let (codes, zeros) = (noise.codes(4, inputs * outputs), noise.codes(4, groups * outputs));
    let scales = noise.scales(groups * outputs);
    let half: Vec<f16> = scales.iter().map(|scale| f16::from_f32(*scale)).collect();
    let fixture = Fixture::default()
        .i32(&format!("{M}.qweight"), &[inputs, outputs / 8], &words(&codes))
        .i32(&format!("{M}.qzeros"), &[groups, outputs / 8], &words(&zeros))
        .f16(&format!("{M}.scales"), &[groups, outputs], &half);
    let mut weights = Vec::new();
    for output in 0..outputs {
        for input in 0..inputs {
            let at = input / group * outputs + output;
            let code = code_of(codes[input * outputs + output]);
            weights.push(((f64::from(code) - f64::from(zeros[at])) * f64::from(scales[at])) as f32);
        }
    }
    (fixture, weights)
}

fn settings(group: i64) -> Option<Json> {
    Some(
        json!({"quant_method": "awq", "bits": 4, "group_size": group, "version": "GEMM", "zero_point": true}),
    )
}

#[test]
fn weights_equal_the_definition() {
    for (shape, group) in [([64, 1280], 128), ([8, 40], 8), ([24, 1100], 128), ([72, 2080], 32)] {
        let (fixture, weights) = matrix(shape, group, |code| code);
        let packed = fixture.packed(settings(group as i64), M);
        assert_eq!((packed.shape, packed.warnings.len()), (shape, 0));
        assert_decodes(&packed, &weights);
    }
    let packed = matrix([64, 256], 128, |code| code).0.packed(settings(128), M);
    assert_eq!(packed.encoding, "int4 g128");
    assert_eq!(packed.tensors, ["qweight", "qzeros", "scales"].map(|part| format!("{M}.{part}")));
}

#[test]
fn codes_0_to_7_have_the_known_fingerprint() {
    assert_eq!(words(&[0, 1, 2, 3, 4, 5, 6, 7]), [0x7531_6420]);
}

#[test]
fn settings_are_not_needed_and_give_way_to_the_tensors() {
    let (fixture, weights) = matrix([16, 256], 64, |code| code);
    let packed = fixture.packed(None, M);
    assert_decodes(&packed, &weights);
    assert_eq!(packed.warnings.len(), 0);
    let packed = fixture.packed(settings(128), M);
    assert_decodes(&packed, &weights);
    assert!(packed.warnings[0].contains("groups of 128 inputs, the tensors say groups of 64"));
    // AutoRound's settings, and a matrix in the other layout.
    let auto_round =
        json!({"quant_method": "auto-round", "packing_format": "auto_round:auto_awq", "bits": 4});
    assert_decodes(&fixture.packed(Some(auto_round), M), &weights);
    let auto_round =
        json!({"quant_method": "auto-round", "packing_format": "auto_round:auto_gptq", "bits": 4});
    assert_decodes(&fixture.packed(Some(auto_round), M), &weights);
}

#[test]
fn the_most_significant_bits_are_those_of_the_code() {
    let (fixture, _) = matrix([16, 128], 32, |code| code);
    let packed = fixture.packed(settings(32), M);
    let (_, expected) = matrix([16, 128], 32, |code| ((code + 2) / 4).min(3) * 4);
    let sliced = Packed { source: packed.source.sliced(2).unwrap(), ..packed };
    assert_eq!(decoded(&sliced, 7), expected);
}

#[test]
fn what_is_not_gemm_or_does_not_fit_is_refused() {
    let fixture = || matrix([16, 128], 32, |code| code).0;
    for version in ["gemv", "gemv_fast", "marlin", "exllama"] {
        let json = json!({"quant_method": "awq", "bits": 4, "version": version});
        let said = fixture().refused(Some(json), M);
        assert!(
            said.contains("quantization_config.version") && said.contains(&format!("`{version}`")),
            "{said}"
        );
    }
    let part = |name: &str| format!("{M}.{name}");
    let refused = |fixture: Fixture, words: &str| {
        let said = fixture.refused(settings(32), M);
        assert!(said.contains(words), "{words}: {said}");
    };
    refused(fixture().without(&part("qzeros")), "qzeros`: is missing");
    refused(fixture().without(&part("scales")), "scales`: is missing");
    refused(fixture().i32(&part("qzeros"), &[4, 4], &[0; 16]), "qzeros`: has 4 columns, expected 2");
    refused(fixture().i32(&part("qzeros"), &[3, 2], &[0; 6]), "qzeros`: has 3 rows, expected 4");
    let odd = fixture().i32(&part("qzeros"), &[3, 2], &[0; 6]).f32(&part("scales"), &[3, 16], &[1.0; 48]);
    refused(odd, "scales`: has 3 rows for 128 inputs, expected 4 for groups of 32");
    refused(
        fixture().f32(&part("scales"), &[4, 12], &[1.0; 48]),
        "scales`: has 12 columns, expected 2 (GPTQ) or 16",
    );
    refused(
        fixture().f32(&part("scales"), &[4, 16], &[0.0; 64]),
        "scales`: row 0, column 0 is 0, expected a number that is not zero",
    );
}
