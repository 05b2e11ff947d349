//! Against a decoder written from the definition, one weight at a time.

use super::{
    super::fixture::Fixture,
    super::typed::{Noise, Typed, assert_decodes, decoded, pack},
    *,
};
use half::{bf16, f16};
use safetensors::Dtype;
use serde_json::{Value as Json, json};

const M: &str = "model.layers.0.mlp.up_proj";

/// A matrix before it is packed: codes `[in, out]`, zero points and scales `[groups, out]`.
struct Matrix {
    bits: u32,
    inputs: usize,
    outputs: usize,
    group_of: Vec<usize>,
    codes: Vec<u32>,
    zeros: Vec<u32>,
    scales: Vec<f32>,
}

impl Matrix {
    fn new(bits: u32, [outputs, inputs]: [usize; 2], group: usize) -> Self {
        let mut noise = Noise::new(u64::from(bits) + inputs as u64);
        let groups = inputs.div_ceil(group);
        let codes = noise.codes(bits, inputs * outputs);
        // From 1 on: 0 stored less one is a case of its own.
        let zeros = noise.codes(bits, groups * outputs).iter().map(|zero| (*zero).max(1)).collect();
        let scales = noise.scales(groups * outputs);
        let group_of = (0..inputs).map(|input| input / group).collect();
        Self { bits, inputs, outputs, group_of, codes, zeros, scales }
    }

    fn groups(&self) -> usize {
        self.zeros.len() / self.outputs
    }

    /// Stored zero points are z − `less`, borrowing between fields where z is 0.
    fn fixture(&self, less: u32) -> Fixture {
        let (bits, outputs) = (self.bits, self.outputs);
        let columns: Vec<Vec<u32>> = (0..outputs)
            .map(|output| {
                pack(bits, &(0..self.inputs).map(|i| self.codes[i * outputs + output]).collect::<Vec<_>>())
            })
            .collect();
        let lines = columns[0].len();
        let words: Vec<u32> =
            (0..lines).flat_map(|line| columns.iter().map(move |column| column[line])).collect();
        let ones = pack(bits, &vec![less; outputs]);
        let zeros: Vec<u32> = self
            .zeros
            .chunks(outputs)
            .flat_map(|zeros| {
                let stored: Vec<u32> = if bits == 3 {
                    pack(bits, &zeros.iter().map(|zero| zero.wrapping_sub(less) & 7).collect::<Vec<_>>())
                } else {
                    pack(bits, zeros).iter().zip(&ones).map(|(word, one)| word.wrapping_sub(*one)).collect()
                };
                stored
            })
            .collect();
        let scales: Vec<f16> = self.scales.iter().map(|scale| f16::from_f32(*scale)).collect();
        let width = zeros.len() / self.groups();
        Fixture::default()
            .i32(&format!("{M}.qweight"), &[lines, outputs], &words)
            .i32(&format!("{M}.qzeros"), &[self.groups(), width], &zeros)
            .f16(&format!("{M}.scales"), &[self.groups(), outputs], &scales)
    }

    fn g_idx(&self) -> Vec<u32> {
        self.group_of.iter().map(|group| *group as u32).collect()
    }

    fn weights(&self) -> Vec<f32> {
        self.weights_of(|code| code)
    }

    fn weights_of(&self, code_of: impl Fn(u32) -> u32) -> Vec<f32> {
        let weight = |output: usize, input: usize| {
            let at = self.group_of[input] * self.outputs + output;
            let code = code_of(self.codes[input * self.outputs + output]);
            ((f64::from(code) - f64::from(self.zeros[at])) * f64::from(self.scales[at])) as f32
        };
        (0..self.outputs)
            .flat_map(|output| (0..self.inputs).map(move |input| (output, input)))
            .map(|(output, input)| weight(output, input))
            .collect()
    }
}

fn settings(bits: u32, group: i64, format: &str) -> Json {
    json!({
        "quant_method": "gptq", "bits": bits, "group_size": group, "sym": false, "desc_act": false,
        "checkpoint_format": format,
    })
}

#[test]
fn every_width_and_both_formats_equal_the_definition() {
    for bits in WIDTHS {
        // More inputs than are decoded at once, more outputs than a tile, a group across both borders.
        for (shape, group) in [([64, 1280], 160), ([32, 96], 32), ([32, 64], 64), ([96, 2080], 32)] {
            let matrix = Matrix::new(bits, shape, group);
            for (format, less) in [("gptq", 1), ("gptq_v2", 0)] {
                let stated = Some(settings(bits, group as i64, format));
                let packed = matrix.fixture(less).packed(stated, M);
                assert_eq!(packed.shape, shape);
                assert_eq!(packed.warnings, Vec::<String>::new(), "{bits} {format}");
                assert_decodes(&packed, &matrix.weights());
            }
        }
    }
}

#[test]
fn reports_name_width_and_group() {
    let packed = Matrix::new(4, [32, 256], 128).fixture(1).packed(Some(settings(4, 128, "gptq")), M);
    assert_eq!(packed.encoding, "int4 g128");
    assert_eq!(packed.tensors, ["qweight", "qzeros", "scales"].map(|part| format!("{M}.{part}")));
    assert_eq!((packed.input, packed.output), (None, None));
    let packed = Matrix::new(8, [32, 256], 256).fixture(1).packed(Some(settings(8, -1, "gptq")), M);
    assert_eq!((packed.encoding.as_str(), packed.warnings.len()), ("int8 channel", 0));
}

#[test]
fn scales_of_every_type_and_groups_that_end_short() {
    // 1100 = 8·128 + 76 would need 2.4 words of 3 bits; 4 bits fit.
    let matrix = Matrix::new(4, [32, 1104], 128);
    let stated = || Some(settings(4, 128, "gptq"));
    let shape = [9, 32];
    let name = format!("{M}.scales");
    let brain: Vec<bf16> = matrix.scales.iter().map(|scale| bf16::from_f32(*scale)).collect();
    assert_decodes(&matrix.fixture(1).packed(stated(), M), &matrix.weights());
    let wide = matrix.fixture(1).f32(&name, &shape, &matrix.scales).packed(stated(), M);
    assert_decodes(&wide, &matrix.weights());
    assert_decodes(&matrix.fixture(1).bf16(&name, &shape, &brain).packed(stated(), M), &matrix.weights());
    // Without the settings' group size nothing says where groups end.
    let said = matrix.fixture(1).refused(Some(json!({"quant_method": "gptq", "bits": 4})), M);
    assert!(said.contains(".scales") && said.contains("has 9 rows for 1104 inputs"), "{said}");
    let said = matrix.fixture(1).refused(Some(settings(4, 64, "gptq")), M);
    assert!(said.contains("has 9 rows for 1104 inputs, expected 18 for groups of 64"), "{said}");
}

#[test]
fn inputs_in_another_order_have_the_scales_of_their_group() {
    let mut matrix = Matrix::new(4, [48, 1536], 128);
    let even = matrix.g_idx();
    let name = format!("{M}.g_idx");
    let act =
        || json!({"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": false, "desc_act": true});
    let packed = matrix.fixture(1).i32(&name, &[1536], &even).packed(Some(act()), M);
    assert_decodes(&packed, &matrix.weights());
    assert!(packed.tensors.contains(&name));
    let mut noise = Noise::new(9);
    for at in (1..matrix.inputs).rev() {
        matrix.group_of.swap(at, noise.below(at as u32 + 1) as usize);
    }
    let fixture = matrix.fixture(1).i32(&name, &[1536], &matrix.g_idx());
    assert_decodes(&fixture.packed(Some(act()), M), &matrix.weights());
    // The list counts, whatever the settings say.
    assert_decodes(&fixture.packed(Some(settings(4, 128, "gptq")), M), &matrix.weights());
    // Groups of one size, but not in order.
    matrix.group_of = even.iter().map(|group| 11 - *group as usize).collect();
    let fixture = matrix.fixture(1).i32(&name, &[1536], &matrix.g_idx());
    assert_decodes(&fixture.packed(Some(act()), M), &matrix.weights());

    let said = matrix.fixture(1).refused(Some(act()), M);
    assert!(said.contains(&name) && said.contains("is missing"), "{said}");
    for (bad, shown) in [(12, "group 12"), (-1i32 as u32, "group -1")] {
        let mut list = even.clone();
        list[700] = bad;
        let said = matrix.fixture(1).i32(&name, &[1536], &list).refused(Some(act()), M);
        assert!(said.contains(&format!("puts column 700 into {shown}, but there are 12 groups")), "{said}");
    }
    let said = matrix.fixture(1).i32(&name, &[1535], &even[..1535]).refused(Some(act()), M);
    assert!(said.contains("has shape [1535], expected [1536]"), "{said}");
}

#[test]
fn a_zero_point_of_zero_is_undone_word_by_word_and_said() {
    for bits in WIDTHS {
        let mut matrix = Matrix::new(bits, [32, 64], 32);
        matrix.zeros[3] = 0;
        matrix.zeros[20] = 0;
        let packed = matrix.fixture(1).packed(Some(settings(bits, 32, "gptq")), M);
        assert_decodes(&packed, &matrix.weights());
        assert_eq!(packed.warnings.len(), 1, "{bits} bits: {:?}", packed.warnings);
        let largest = (1 << bits) - 1;
        assert!(
            packed.warnings[0].contains(&format!("of 64 zero points are 0 and were stored as {largest}"))
        );
        // As they are, there is nothing to say.
        let packed = matrix.fixture(0).packed(Some(settings(bits, 32, "gptq_v2")), M);
        assert_decodes(&packed, &matrix.weights());
        assert_eq!(packed.warnings, Vec::<String>::new());
    }
}

#[test]
fn symmetric_zero_points_show_the_format() {
    let mut matrix = Matrix::new(4, [32, 64], 32);
    matrix.zeros.fill(8);
    let symmetric = |format| json!({"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": true, "checkpoint_format": format});
    for (format, less, warned) in [("gptq", 1, 0), ("gptq", 0, 1), ("gptq_v2", 0, 0), ("gptq_v2", 1, 1)] {
        let packed = matrix.fixture(less).packed(Some(symmetric(format)), M);
        assert_decodes(&packed, &matrix.weights());
        assert_eq!(packed.warnings.len(), warned, "{format} {less}: {:?}", packed.warnings);
    }
    // No settings at all: still shown.
    for less in [0, 1] {
        assert_decodes(&matrix.fixture(less).packed(None, M), &matrix.weights());
    }
    // Stated asymmetric, a matrix full of 7 is believed to mean 7 or 8 as the format says.
    let packed = matrix.fixture(1).packed(Some(settings(4, 32, "gptq_v2")), M);
    matrix.zeros.fill(7);
    assert_decodes(&packed, &matrix.weights());
    let matrix = Matrix::new(4, [32, 64], 32);
    let packed = matrix.fixture(1).packed(Some(symmetric("gptq")), M);
    assert_decodes(&packed, &matrix.weights());
    assert!(packed.warnings[0].contains("the settings say symmetric codes"), "{:?}", packed.warnings);
    let said = matrix.fixture(1).refused(None, M);
    assert!(said.contains(".qzeros") && said.contains("no settings say which"), "{said}");
}

#[test]
fn auto_round_says_the_format_in_its_own_words() {
    let matrix = Matrix::new(4, [32, 64], 32);
    let stated = |key: &str, format: &str| {
        Some(json!({"quant_method": "auto-round", "bits": 4, "group_size": 32, "sym": false, key: format}))
    };
    for (key, format, less) in [
        ("packing_format", "auto_round:auto_gptq", 1),
        ("packing_format", "auto_round:gptq", 1),
        ("packing_format", "auto", 1),
        ("packing_format", "auto_round", 0),
        ("packing_format", "auto_round:gptqmodel", 0),
        ("backend", "auto_round:exllamav2", 0),
        ("backend", "auto_round:gptq:exllamav2", 1),
        ("other", "", 1),
    ] {
        let packed = matrix.fixture(less).packed(stated(key, format), M);
        assert_decodes(&packed, &matrix.weights());
        assert_eq!(packed.warnings, Vec::<String>::new(), "{format}");
    }
    let said = matrix.fixture(1).refused(stated("packing_format", "auto_round:auto_awq"), M);
    assert!(said.contains("no settings say which"), "{said}");
    let mixed = json!({"quant_method": "auto-round", "bits": 2, "group_size": 64, "sym": false,
        "extra_config": {M: {"bits": 4, "group_size": 32}}});
    assert_eq!(matrix.fixture(1).packed(Some(mixed), M).warnings, Vec::<String>::new());
    let inputs = json!({"quant_method": "auto-round", "bits": 4, "act_bits": 8});
    let said = matrix.fixture(1).refused(Some(inputs), M);
    assert!(said.contains("quantization_config.act_bits") && said.contains("8 bits"), "{said}");
}

#[test]
fn tensors_are_believed_and_the_reader_is_warned() {
    let matrix = Matrix::new(4, [32, 256], 64);
    let packed = matrix.fixture(1).packed(Some(settings(8, 128, "gptq")), M);
    assert_decodes(&packed, &matrix.weights());
    assert_eq!(packed.warnings.len(), 2, "{:?}", packed.warnings);
    assert!(packed.warnings[0].contains("the settings say 8 bits, the tensors say codes of 4 bits"));
    assert!(packed.warnings[1].contains("groups of 128 inputs, the tensors say groups of 64"));
    let mut stated = settings(8, 128, "gptq");
    stated["dynamic"] = json!({"+:.*up_proj": {"bits": 4, "group_size": 64}});
    assert_eq!(matrix.fixture(1).packed(Some(stated), M).warnings, Vec::<String>::new());
    let mut stated = settings(4, 64, "gptq");
    stated["dynamic"] = json!({"-:.*up_proj": {}});
    let packed = matrix.fixture(1).packed(Some(stated), M);
    assert!(packed.warnings[0].contains("not quantized"), "{:?}", packed.warnings);
}

#[test]
fn widths_that_are_not_clear_are_refused() {
    // Eight outputs: their zero points fit one word in 2, 3 and 4 bits.
    let matrix = Matrix::new(4, [8, 96], 32);
    let fixture = matrix.fixture(1);
    assert_decodes(&fixture.packed(Some(settings(4, 32, "gptq")), M), &matrix.weights());
    let said = fixture.refused(Some(settings(8, 32, "gptq")), M);
    assert!(said.contains(".qzeros") && said.contains("fits several widths: [2, 3, 4] bits"), "{said}");
    let matrix = Matrix::new(4, [32, 64], 32);
    let (qzeros, stated) = (format!("{M}.qzeros"), || Some(settings(4, 32, "gptq")));
    let said = matrix.fixture(1).i32(&qzeros, &[2, 6], &[0; 12]).refused(stated(), M);
    assert!(said.contains("is of 6 bits, which only format gptq_p has"), "{said}");
    let said = matrix.fixture(1).i32(&qzeros, &[2, 9], &[0; 18]).refused(stated(), M);
    assert!(said.contains("has 9 columns, expected 2, 3, 4, 8 words for 32 zero points"), "{said}");
}

#[test]
fn formats_that_are_not_decoded_are_refused_by_name() {
    let fixture = Matrix::new(4, [32, 64], 32).fixture(1);
    for (json, words) in [
        (settings(4, 32, "gptq_p"), ["quantization_config.checkpoint_format", "`gptq_p`"]),
        (settings(4, 32, "marlin"), ["quantization_config.checkpoint_format", "`marlin`"]),
        (json!({"quant_method": "gptq", "format": "bitblas"}), ["quantization_config.format", "`bitblas`"]),
        (json!({"quant_method": "gptq", "pack_dtype": "int16"}), ["quantization_config.pack_dtype", "int16"]),
        (json!({"quant_method": "gptq", "is_marlin_format": true}), ["is_marlin_format", "Marlin"]),
    ] {
        let said = fixture.refused(Some(json), M);
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    }
}

#[test]
fn tensors_that_do_not_fit_are_refused() {
    let fixture = || Matrix::new(4, [32, 64], 32).fixture(1);
    let stated = || Some(settings(4, 32, "gptq"));
    let part = |name: &str| format!("{M}.{name}");
    let refused = |fixture: Fixture, words: &[&str]| {
        let said = fixture.refused(stated(), M);
        assert!(words.iter().all(|word| said.contains(word)), "{words:?}: {said}");
    };
    refused(fixture().without(&part("scales")), &["scales`: is missing"]);
    refused(fixture().without(&part("qzeros")), &["qzeros`: is missing"]);
    refused(
        fixture().f32(&part("scales"), &[2, 16], &[1.0; 32]),
        &["scales`: has 16 columns, expected 32 (GPTQ) or 256"],
    );
    refused(fixture().f32(&part("scales"), &[8, 16], &[1.0; 128]), &["version gemv of AWQ"]);
    refused(fixture().f32(&part("scales"), &[3, 32], &[1.0; 96]), &["qzeros`: has 2 rows, expected 3"]);
    refused(
        fixture().f32(&part("scales"), &[64], &[1.0; 64]),
        &["scales`: has shape [64], expected two dimensions"],
    );
    refused(
        fixture().i32(&part("scales"), &[2, 32], &[1; 64]),
        &["scales`: is of type I32, expected F16 or BF16 or F32"],
    );
    refused(fixture().f32(&part("qweight"), &[8, 32], &[1.0; 256]), &["qweight`: is of type F32"]);
    refused(fixture().with(&part("qweight"), Dtype::I16, &[8, 32], vec![0; 512]), &["gemv_fast"]);
    refused(fixture().i32(&part("qweight"), &[0, 32], &[]), &["qweight`: has shape [0, 32]"]);
    for (bad, shown) in
        [(0.0, "row 1, column 8 is 0"), (f32::NAN, "row 1, column 8 is NaN"), (f32::INFINITY, "inf")]
    {
        let mut scales = [1.0; 64];
        scales[40] = bad;
        refused(fixture().f32(&part("scales"), &[2, 32], &scales), &["scales`: ", shown]);
    }
    assert!(fixture().read(stated(), "model.layers.0.mlp").unwrap().is_none());
}

#[test]
fn the_most_significant_bits_are_those_of_the_code() {
    for (bits, kept) in [(8, 4), (8, 2), (4, 2), (4, 3)] {
        let matrix = Matrix::new(bits, [32, 128], 32);
        let packed = matrix.fixture(1).packed(Some(settings(bits, 32, "gptq")), M);
        let step = f64::from(1 << (bits - kept));
        let slice = |code| {
            let rounded = (f64::from(code) / step + 0.5).floor().min(f64::from((1 << kept) - 1));
            (rounded * step) as u32
        };
        assert!(packed.source.sliced(bits).is_none() && packed.source.sliced(0).is_none());
        let sliced = Packed { source: packed.source.sliced(kept).unwrap(), ..packed };
        assert_eq!(decoded(&sliced, 5), matrix.weights_of(slice));
    }
}
