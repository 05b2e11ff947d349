//! Against a decoder written from the definition, one weight at a time.

use super::{
    super::fixture::Fixture,
    super::typed::{Noise, Typed, assert_decodes, decoded},
    *,
};
use half::bf16;
use serde_json::{Value as Json, json};

const M: &str = "model.layers.0.mlp.up_proj";

const NF4: [f32; 16] = [
    -1.0,
    -0.6961928,
    -0.52507305,
    -0.3949175,
    -0.28444138,
    -0.18477343,
    -0.09105004,
    0.0,
    0.0795803,
    0.1609302,
    0.2461123,
    0.33791524,
    0.44070983,
    0.562617,
    0.72295684,
    1.0,
];

fn part(name: &str) -> String {
    format!("{M}.weight{name}")
}

/// The parts of a 4-bit matrix, before they are written.
struct Matrix {
    shape: [usize; 2],
    blocksize: usize,
    dtype: &'static str,
    bytes: Vec<u8>,
    absmax: Vec<f32>,
}

impl Matrix {
    fn new(shape: [usize; 2], blocksize: usize) -> Self {
        let mut noise = Noise::new(shape[1] as u64);
        let weights = shape[0] * shape[1];
        let bytes = noise.bytes(weights.div_ceil(2));
        let absmax =
            noise.scales(weights.div_ceil(blocksize)).iter().map(|scale| scale.abs() * 1.37).collect();
        Self { shape, blocksize, dtype: "float32", bytes, absmax }
    }

    fn state(&self) -> Json {
        json!({"quant_type": "nf4", "blocksize": self.blocksize, "dtype": self.dtype, "shape": self.shape})
    }

    fn fixture(&self) -> Fixture {
        with_state(Fixture::default(), &self.state())
            .u8(&part(""), &[self.bytes.len(), 1], &self.bytes)
            .f32(&part(".absmax"), &[self.absmax.len()], &self.absmax)
            .f32(&part(".quant_map"), &[16], &NF4)
    }

    fn weights(&self) -> Vec<f32> {
        self.weights_of(&self.absmax)
    }

    fn weights_of(&self, absmax: &[f32]) -> Vec<f32> {
        (0..self.shape[0] * self.shape[1])
            .map(|at| {
                let byte = self.bytes[at / 2];
                let code = if at % 2 == 0 { byte >> 4 } else { byte & 15 };
                NF4[usize::from(code)] * absmax[at / self.blocksize]
            })
            .collect()
    }
}

fn with_state(fixture: Fixture, state: &Json) -> Fixture {
    let text = state.to_string().into_bytes();
    fixture.u8(&part(".quant_state.bitsandbytes__nf4"), &[text.len()], &text)
}

fn settings(double: bool) -> Option<Json> {
    Some(json!({"quant_method": "bitsandbytes", "bnb_4bit_use_double_quant": double}))
}

#[test]
fn blocks_run_over_the_flattened_matrix() {
    // Rows of whole blocks; blocks across rows; rows that begin inside a byte; a last block that ends short.
    for (shape, blocksize) in [([5, 128], 64), ([7, 96], 64), ([6, 33], 64), ([3, 1], 32), ([4, 100], 4096)] {
        let matrix = Matrix::new(shape, blocksize);
        let packed = matrix.fixture().packed(settings(false), M);
        assert_eq!((packed.shape, packed.warnings.len()), (shape, 0));
        assert_decodes(&packed, &matrix.weights());
    }
    let packed = Matrix::new([4, 64], 64).fixture().packed(None, M);
    assert_eq!(packed.encoding, "NF4 g64");
    let names = ["", ".absmax", ".quant_map", ".quant_state.bitsandbytes__nf4"].map(part);
    assert_eq!(packed.tensors, names);
    assert!(packed.input.is_none() && packed.source.sliced(2).is_none());
}

#[test]
fn fp4_is_the_map_of_its_file() {
    let map: [f32; 16] = std::array::from_fn(|code| code as f32 / 8.0 - 1.0);
    let state =
        json!({"quant_type": "fp4", "blocksize": 32, "dtype": "float32", "shape": [2, 32]}).to_string();
    let packed = Fixture::default()
        .u8(&part(""), &[32, 1], &[0x2F; 32])
        .f32(&part(".absmax"), &[2], &[1.0, 3.0])
        .f32(&part(".quant_map"), &[16], &map)
        .u8(&part(".quant_state.bitsandbytes__fp4"), &[state.len()], state.as_bytes())
        .packed(settings(false), M);
    let expected: Vec<f32> =
        [1.0, 3.0].iter().flat_map(|scale| [-0.75 * scale, 0.875 * scale].repeat(16)).collect();
    assert_decodes(&packed, &expected);
    assert_eq!(packed.encoding, "FP4 g32");
}

#[test]
fn weights_are_rounded_to_the_stated_type() {
    let mut matrix = Matrix::new([5, 300], 64);
    matrix.dtype = "bfloat16";
    let expected: Vec<f32> = matrix.weights().iter().map(|weight| bf16::from_f32(*weight).to_f32()).collect();
    assert_ne!(expected, matrix.weights());
    assert_decodes(&matrix.fixture().packed(settings(false), M), &expected);
    matrix.dtype = "torch.float16";
    let expected: Vec<f32> = matrix.weights().iter().map(|weight| f16::from_f32(*weight).to_f32()).collect();
    assert_decodes(&matrix.fixture().packed(settings(false), M), &expected);
    matrix.dtype = "float64";
    let said = matrix.fixture().refused(settings(false), M);
    assert!(said.contains("bitsandbytes__nf4") && said.contains("dtype float64"), "{said}");
}

#[test]
fn double_quantized_scales_are_decoded_first() {
    let matrix = Matrix::new([40, 672], 64);
    let mut noise = Noise::new(5);
    let blocks = matrix.absmax.len();
    assert_eq!(blocks, 420);
    let (codes, map): (Vec<u8>, Vec<f32>) =
        (noise.bytes(blocks), (0..256).map(|code| (code as f32 - 127.0) / 130.0).collect());
    let (scales, offset) = ([0.02, 0.03], 0.25f32);
    let absmax: Vec<f32> = codes
        .iter()
        .enumerate()
        .map(|(block, code)| map[usize::from(*code)] * scales[block / 256] + offset)
        .collect();
    let mut state = matrix.state();
    state["nested_blocksize"] = json!(256);
    state["nested_offset"] = json!(offset);
    state["nested_dtype"] = json!("float32");
    let fixture = || {
        with_state(matrix.fixture(), &state)
            .u8(&part(".absmax"), &[blocks], &codes)
            .f32(&part(".nested_absmax"), &[2], &scales)
            .f32(&part(".nested_quant_map"), &[256], &map)
    };
    let packed = fixture().packed(settings(true), M);
    assert_decodes(&packed, &matrix.weights_of(&absmax));
    assert_eq!((packed.encoding.as_str(), packed.tensors.len()), ("NF4 g64 double-quantized", 6));
    assert_eq!(packed.warnings, Vec::<String>::new());
    let packed = fixture().packed(settings(false), M);
    assert!(packed.warnings[0].contains("no double quantization, the tensors say double quantization"));

    let refused = |fixture: Fixture, words: &str| {
        let said = fixture.refused(settings(true), M);
        assert!(said.contains(words), "{words}: {said}");
    };
    refused(fixture().without(&part(".nested_absmax")), "nested_absmax`: is missing");
    refused(fixture().without(&part(".nested_quant_map")), "nested_quant_map`: is missing");
    refused(
        fixture().f32(&part(".nested_absmax"), &[3], &[1.0; 3]),
        "nested_absmax`: has shape [3], expected [2]",
    );
    refused(fixture().f32(&part(".nested_quant_map"), &[16], &NF4), "has shape [16], expected [256]");
    refused(with_state(fixture(), &matrix.state()), "says no nested_blocksize and nested_offset");
    state["nested_blocksize"] = json!(0);
    refused(
        with_state(matrix.fixture().u8(&part(".absmax"), &[blocks], &codes), &state),
        "nested_absmax`: is missing",
    );
}

#[test]
fn scales_that_were_saved_transposed_are_read_so() {
    let matrix = Matrix::new([6, 256], 64);
    let brain: Vec<bf16> = matrix.absmax.iter().map(|scale| bf16::from_f32(*scale)).collect();
    let transposed: Vec<bf16> = (0..4)
        .flat_map(|block| (0..6).map(move |row| (row, block)))
        .map(|(row, block)| brain[row * 4 + block])
        .collect();
    let fixture = matrix.fixture().bf16(&part(".absmax"), &[4, 6], &transposed);
    let packed = fixture.packed(settings(false), M);
    let narrow: Vec<f32> = brain.iter().map(|scale| scale.to_f32()).collect();
    assert_decodes(&packed, &matrix.weights_of(&narrow));
    assert!(
        packed.warnings.len() == 1 && packed.warnings[0].contains("transposed, as BF16"),
        "{:?}",
        packed.warnings
    );
    let said = fixture.bf16(&part(".absmax"), &[6, 4], &transposed).refused(settings(false), M);
    assert!(said.contains("absmax`: has shape [6, 4], expected [4, 6]"), "{said}");
}

#[test]
fn bytes_may_be_stored_as_another_type() {
    let matrix = Matrix::new([4, 96], 64);
    let packed = matrix
        .fixture()
        .with(&part(""), Dtype::BF16, &[matrix.bytes.len() / 2, 1], matrix.bytes.clone())
        .packed(settings(false), M);
    assert_decodes(&packed, &matrix.weights());
}

#[test]
fn four_bits_that_do_not_fit_are_refused() {
    let matrix = Matrix::new([4, 96], 64);
    let refused = |fixture: Fixture, words: &str| {
        let said = fixture.refused(settings(false), M);
        assert!(said.contains(words), "{words}: {said}");
    };
    let with = |key: &str, value: Json| {
        let mut state = matrix.state();
        state[key] = value;
        with_state(matrix.fixture(), &state)
    };
    refused(matrix.fixture().without(&part("")), "up_proj.weight`: is missing");
    refused(matrix.fixture().without(&part(".absmax")), "absmax`: is missing");
    refused(matrix.fixture().without(&part(".quant_map")), "quant_map`: is missing");
    refused(
        matrix.fixture().without(&part(".quant_state.bitsandbytes__nf4")),
        "bitsandbytes__nf4`: is missing",
    );
    refused(with("blocksize", json!(128)), "absmax`: has shape [6], expected [3]");
    refused(with("blocksize", json!(0)), "says blocksize 0");
    refused(with("blocksize", json!(-64)), "is not the JSON expected");
    refused(with("shape", json!([4, 95])), "up_proj.weight`: has 192 bytes, expected 190 for [4, 95]");
    refused(with("shape", json!([384])), "says shape [384], expected [out, in]");
    refused(with("shape", json!([0, 96])), "no matrix of weights");
    refused(with("shape", json!([u64::MAX, u64::MAX])), "no matrix of weights");
    let said = "quant_map`: has shape [8], expected [16]";
    refused(matrix.fixture().f32(&part(".quant_map"), &[8], &NF4[..8]), said);
    let mut absmax = matrix.absmax.clone();
    absmax[4] = f32::NAN;
    refused(matrix.fixture().f32(&part(".absmax"), &[6], &absmax), "absmax`: row 0, column 4 is NaN");
    // A block of zeros has none.
    absmax[4] = 0.0;
    let packed = matrix.fixture().f32(&part(".absmax"), &[6], &absmax).packed(settings(false), M);
    assert_eq!(decoded(&packed, 1), matrix.weights_of(&absmax));
    assert!(matrix.fixture().read(None, "model.layers.0.mlp").unwrap().is_none());
}

/// A matrix of LLM.int8 and its weights after `code_of`.
fn eight_bits(code_of: impl Fn(i8) -> i32) -> (Fixture, Vec<f32>) {
    let mut noise = Noise::new(3);
    let codes: Vec<i8> = noise.bytes(5 * 77).iter().map(|byte| *byte as i8).collect();
    let scales = [1.5, 0.0, 0.25, 127.0, 3.25];
    let weight = |(at, code): (usize, &i8)| code_of(*code) as f32 * (scales[at / 77] * (1.0 / 127.0));
    let weights = codes.iter().enumerate().map(weight).collect();
    let fixture = Fixture::default()
        .i8(&format!("{M}.weight"), &[5, 77], &codes)
        .f32(&format!("{M}.SCB"), &[5], &scales)
        .u8(&format!("{M}.weight_format"), &[], &[0]);
    (fixture, weights)
}

#[test]
fn int8_rows_have_one_scale_and_declare_their_input() {
    let (fixture, weights) = eight_bits(i32::from);
    let packed = fixture.packed(settings(false), M);
    assert_decodes(&packed, &weights);
    assert_eq!((packed.shape, packed.encoding.as_str()), ([5, 77], "LLM.int8"));
    assert_eq!(packed.tensors, ["weight", "SCB", "weight_format"].map(|part| format!("{M}.{part}")));
    assert_eq!(packed.input, Some(ActivationQuantization::LlmInt8 { threshold: 6.0 }));
    let stated =
        |threshold: Json| Some(json!({"quant_method": "bitsandbytes", "llm_int8_threshold": threshold}));
    let packed = fixture.packed(stated(json!(0)), M);
    assert_eq!(packed.input, Some(ActivationQuantization::LlmInt8 { threshold: 0.0 }));
    for bad in [json!(-1.0), json!("six"), json!(1e300)] {
        let said = fixture.refused(stated(bad), M);
        assert!(said.contains("quantization_config.llm_int8_threshold"), "{said}");
    }
    // Formerly the layout was not written down; it was that of rows.
    let packed = fixture.without(&format!("{M}.weight_format")).packed(None, M);
    assert_decodes(&packed, &weights);
}

#[test]
fn int8_is_sliced_as_an_unsigned_code() {
    let packed = eight_bits(i32::from).0.packed(None, M);
    for (bits, step) in [(4, 16.0), (2, 64.0)] {
        let slice = |code: i8| {
            let unsigned = f64::from(code) + 128.0;
            (((unsigned / step + 0.5).floor()).min(256.0 / step - 1.0) * step) as i32 - 128
        };
        let source = packed.source.sliced(bits).unwrap();
        assert!(source.sliced(bits).is_none());
        let mut values = vec![0.0; 5 * 77];
        source.decode(0..5, &mut values).unwrap();
        assert_eq!(values, eight_bits(slice).1);
    }
    assert!(packed.source.sliced(8).is_none() && packed.source.sliced(0).is_none());
}

#[test]
fn int8_that_does_not_fit_is_refused() {
    let refused = |fixture: Fixture, words: &str| {
        let said = fixture.refused(settings(false), M);
        assert!(said.contains(words), "{words}: {said}");
    };
    let name = |part: &str| format!("{M}.{part}");
    let fixture = || eight_bits(i32::from).0;
    refused(fixture().without(&name("weight")), "up_proj.weight`: is missing");
    refused(fixture().f32(&name("weight"), &[5, 77], &[1.0; 385]), "is of type F32, expected I8");
    refused(fixture().i8(&name("weight"), &[385], &[1; 385]), "has shape [385], expected [out, in]");
    refused(fixture().f32(&name("SCB"), &[4], &[1.0; 4]), "SCB`: has shape [4], expected [5]");
    refused(
        fixture().f32(&name("SCB"), &[5], &[1.0, 1.0, f32::NAN, 1.0, 1.0]),
        "SCB`: row 2, column 0 is NaN",
    );
    refused(
        fixture().u8(&name("weight_format"), &[], &[2]),
        "weight_format`: is 2 (col_turing); only 0 (row)",
    );
    refused(fixture().u8(&name("weight_format"), &[], &[9]), "is 9 (unknown)");
}

#[test]
fn bfloat16_is_rounded_as_the_half_crate_does() {
    // Every upper half of a finite number, with lower halves about the tie.
    for upper in (0..=u16::MAX).filter(|upper| upper & 0x7F80 != 0x7F80) {
        let mut values =
            [0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF].map(|low| f32::from_bits(u32::from(upper) << 16 | low));
        let expected = values.map(|value| bf16::from_f32(value).to_f32().to_bits());
        pulp::Arch::new().dispatch(ToBf16(&mut values));
        assert_eq!(values.map(f32::to_bits), expected, "{upper:#06x}");
    }
}
