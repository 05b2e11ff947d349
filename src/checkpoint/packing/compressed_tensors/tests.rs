//! Every format against a decoder that is as plain as its definition; every contradiction by its words.

mod activations;

use safetensors::Dtype;
use serde_json::{Value as Json, json};

use crate::{
    checkpoint::packing::{
        codes::BitLayout,
        fixture::{Fixture, decode, decode_sliced, noise, pack},
    },
    minifloat::{E2M1, E4M3},
};

const MODULE: &str = "model.layers.0.self_attn.q_proj";

fn named(ending: &str) -> String {
    format!("{MODULE}.{ending}")
}

/// Settings with one group for all linears.
fn settings(weights: Json, input: Json) -> Json {
    json!({
        "quant_method": "compressed-tensors",
        "format": "mixed-precision",
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": input}},
    })
}

fn int(bits: u32, strategy: &str, group: Option<usize>, symmetric: bool) -> Json {
    json!({"num_bits": bits, "type": "int", "strategy": strategy, "group_size": group, "symmetric": symmetric})
}

fn float(bits: u32, strategy: &str, group: Option<usize>) -> Json {
    json!({"num_bits": bits, "type": "float", "strategy": strategy, "group_size": group, "symmetric": true})
}

/// Positive scales that differ, all exact in bf16.
fn scales(count: usize) -> Vec<f32> {
    (0..count).map(|i| (1.0 + (i * 37 % 128) as f32 / 128.0) / [64.0, 1024.0][i % 2]).collect()
}

/// What `decode` must give: (code − zero)·scale with the scale of a block `[rows, columns]`.
fn expected(
    [out, inner]: [usize; 2],
    [rows, columns]: [usize; 2],
    value: impl Fn(usize) -> f32,
    zero: impl Fn(usize) -> f32,
    scale: impl Fn(usize) -> f32,
) -> Vec<f32> {
    let across = inner.div_ceil(columns);
    let at = |i: usize| i / inner / rows * across + i % inner / columns;
    (0..out * inner).map(|i| (value(i) - zero(at(i))) * scale(at(i))).collect()
}

#[test]
fn int8_with_every_sharing_of_scales() {
    let shape @ [out, inner] = [6, 40];
    let codes: Vec<u8> = noise(1).take(out * inner).collect();
    for (strategy, group, block, stored, name) in [
        ("tensor", None, [6, 40], vec![1], "int8 tensor"),
        ("tensor", None, [6, 40], vec![], "int8 tensor"),
        ("channel", None, [1, 40], vec![6, 1], "int8 channel"),
        ("channel", None, [1, 40], vec![6], "int8 channel"),
        ("group", Some(8), [1, 8], vec![6, 5], "int8 g8"),
    ] {
        let scales = scales(stored.iter().product());
        let symmetric = Fixture::default()
            .tensor(&named("weight"), Dtype::I8, &shape, codes.clone())
            .floats(&named("weight_scale"), &stored, &scales)
            .settings(settings(int(8, strategy, group, true), Json::Null));
        let packed = symmetric.matrix(MODULE).unwrap();
        assert_eq!((packed.shape, packed.encoding.as_str()), (shape, name));
        assert_eq!(packed.warnings, [""; 0]);
        let value = |i: usize| f32::from(codes[i] as i8);
        assert_eq!(decode(&packed), expected(shape, block, value, |_| 0.0, |i| scales[i]));

        let zeros: Vec<u8> = noise(2).take(scales.len()).collect();
        let packed = symmetric
            .tensor(&named("weight_zero_point"), Dtype::I8, &stored, zeros.clone())
            .settings(settings(int(8, strategy, group, false), Json::Null))
            .matrix(MODULE)
            .unwrap();
        assert_eq!(packed.encoding, format!("{name} asymmetric"));
        let zero = |i: usize| f32::from(zeros[i] as i8);
        assert_eq!(decode(&packed), expected(shape, block, value, zero, |i| scales[i]));
        assert_eq!(packed.tensors, ["weight", "weight_scale", "weight_zero_point"].map(named));
    }
}

/// A packed matrix with codes and zero points of its own.
struct Words {
    fixture: Fixture,
    codes: Vec<u8>,
    zeros: Vec<u8>,
    scales: Vec<f32>,
}

fn words(bits: u32, layout: BitLayout, [out, inner]: [usize; 2], group: usize) -> Words {
    let groups = inner.div_ceil(group);
    let mask = ((1u32 << bits) - 1) as u8;
    let codes: Vec<u8> = noise(3).map(|code| code & mask).take(out * inner).collect();
    let zeros: Vec<u8> = noise(4).map(|zero| zero & mask).take(out * groups).collect();
    let scales = scales(out * groups);
    // Zero points are packed down the rows: as the transpose is along them.
    let transposed: Vec<u8> = (0..groups * out).map(|i| zeros[i % out * groups + i / out]).collect();
    let down = pack(bits, layout, out, &transposed);
    let words_down = layout.words(bits, out).unwrap();
    let stored_zeros: Vec<u8> = (0..words_down * groups)
        .flat_map(|i| {
            let at = 4 * (i % groups * words_down + i / groups);
            down[at..at + 4].to_vec()
        })
        .collect();
    let bf16: Vec<u8> =
        scales.iter().flat_map(|scale| (scale.to_bits() >> 16).to_le_bytes()[..2].to_vec()).collect();
    let fixture = Fixture::default()
        .tensor(
            &named("weight_packed"),
            Dtype::I32,
            &[out, layout.words(bits, inner).unwrap()],
            pack(bits, layout, inner, &codes),
        )
        .tensor(&named("weight_scale"), Dtype::BF16, &[out, groups], bf16)
        .tensor(&named("weight_zero_point"), Dtype::I32, &[words_down, groups], stored_zeros)
        .numbers(&named("weight_shape"), &[out as i64, inner as i64])
        .settings(settings(int(bits, "group", Some(group), false), Json::Null));
    Words { fixture, codes, zeros, scales }
}

#[test]
fn packed_integers_of_every_width_in_both_layouts() {
    // 37 rows: zero points cross words; 320 columns: the layouts differ in width.
    let (shape, group) = ([37, 320], 32);
    for layout in [BitLayout::Dense, BitLayout::PerWord] {
        for bits in 1..=8 {
            let Words { fixture, codes, zeros, scales } = words(bits, layout, shape, group);
            let value = |i: usize| f32::from(codes[i]);
            let packed = fixture.matrix(MODULE).unwrap();
            assert_eq!(packed.encoding, format!("int{bits} g32 asymmetric"));
            assert_eq!(packed.warnings, [""; 0], "{layout:?} {bits}");
            assert_eq!(
                decode(&packed),
                expected(shape, [1, group], value, |i| f32::from(zeros[i]), |i| scales[i]),
                "{layout:?} {bits}"
            );
            let symmetric = fixture
                .without(&named("weight_zero_point"))
                .settings(settings(int(bits, "group", Some(group), true), Json::Null));
            let packed = symmetric.matrix(MODULE).unwrap();
            let middle = (1u32 << bits >> 1) as f32;
            assert_eq!(packed.encoding, format!("int{bits} g32"));
            assert_eq!(decode(&packed), expected(shape, [1, group], value, |_| middle, |i| scales[i]));
        }
    }
}

#[test]
fn columns_may_be_assigned_to_groups_one_by_one() {
    let (shape @ [_, inner], group) = ([5, 320], 32);
    let Words { fixture, codes, zeros, scales } = words(4, BitLayout::Dense, shape, group);
    // 7 is prime to 320: every group gets 32 columns, none of them neighbours.
    let list: Vec<u32> = (0..inner as u32).map(|column| column * 7 % 320 / 32).collect();
    let bytes = |list: &[u32]| list.iter().flat_map(|group| group.to_le_bytes()).collect::<Vec<_>>();
    let ordered = fixture.clone().tensor(&named("weight_g_idx"), Dtype::I32, &[inner], bytes(&list));
    let packed = ordered.matrix(MODULE).unwrap();
    let at = |i: usize| i / inner * 10 + list[i % inner] as usize;
    let naive: Vec<f32> =
        (0..codes.len()).map(|i| (f32::from(codes[i]) - f32::from(zeros[at(i)])) * scales[at(i)]).collect();
    assert_eq!(decode(&packed), naive);
    assert_eq!(packed.encoding, "int4 g32 asymmetric, columns ordered by activation");
    assert!(packed.tensors.contains(&named("weight_g_idx")));

    // −1 means that there is no order.
    let mut none = list.clone();
    none[3] = u32::MAX;
    let none = fixture.clone().tensor(&named("weight_g_idx"), Dtype::I32, &[inner], bytes(&none));
    assert_eq!(decode(&none.matrix(MODULE).unwrap()), decode(&fixture.matrix(MODULE).unwrap()));

    let (mut beyond, mut uneven) = (list.clone(), list);
    beyond[5] = 10;
    uneven[0] = 1;
    for (list, problem) in [
        (beyond, "puts column 5 into group 10, but there are 10 groups"),
        (uneven, "puts 31 columns into group 0, expected 32"),
    ] {
        let broken = fixture.clone().tensor(&named("weight_g_idx"), Dtype::I32, &[inner], bytes(&list));
        assert_eq!(broken.refusal(MODULE), format!("tensor `{}`: {problem}", named("weight_g_idx")));
    }
}

#[test]
fn fp8_with_every_sharing_of_scales() {
    // Not multiples of the block: the last blocks are smaller.
    let shape @ [out, inner] = [200, 300];
    let codes: Vec<u8> = noise(5).filter(|code| code & 0x7F != 0x7F).take(out * inner).collect();
    let block = json!({"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [128, 128]});
    let odd = json!({"num_bits": 8, "type": "float", "strategy": "block", "block_structure": "50x96"});
    for (declared, block, stored, name) in [
        (float(8, "tensor", None), [200, 300], vec![1], "FP8 tensor"),
        (float(8, "channel", None), [1, 300], vec![200, 1], "FP8 channel"),
        (float(8, "group", Some(60)), [1, 60], vec![200, 5], "FP8 g60"),
        (block, [128, 128], vec![2, 3], "FP8 block 128x128"),
        (odd, [50, 96], vec![4, 4], "FP8 block 50x96"),
    ] {
        let scales = scales(stored.iter().product());
        let fixture = Fixture::default()
            .tensor(&named("weight"), Dtype::F8_E4M3, &shape, codes.clone())
            .floats(&named("weight_scale"), &stored, &scales)
            .settings(settings(declared, Json::Null));
        let packed = fixture.matrix(MODULE).unwrap();
        assert_eq!((packed.encoding.as_str(), packed.warnings.len()), (name, 0), "{:?}", packed.warnings);
        let value = |i: usize| E4M3[usize::from(codes[i])];
        assert_eq!(decode(&packed), expected(shape, block, value, |_| 0.0, |i| scales[i]));
        assert!(packed.source.sliced(4).is_none());
    }
}

#[test]
fn micro_scaled_floats() {
    let shape @ [out, inner] = [3, 128];
    let pairs: Vec<u8> = noise(6).take(out * inner / 2).collect();
    let four = |i: usize| E2M1[usize::from(pairs[i / 2] >> (i % 2 * 4) & 0x0F)];
    let eights: Vec<u8> = noise(7).filter(|code| code & 0x7F != 0x7F).take(out * inner).collect();
    let eight = |i: usize| E4M3[usize::from(eights[i])];
    let exponents: Vec<u8> = noise(8).map(|code| 100 + code % 50).take(out * inner / 32).collect();
    let power = |i: usize| (f64::from(exponents[i]) - 127.0).exp2() as f32;
    let group = |size: usize| [out, inner / size];

    let mxfp4 = Fixture::default()
        .tensor(&named("weight_packed"), Dtype::U8, &[out, inner / 2], pairs.clone())
        .tensor(&named("weight_scale"), Dtype::U8, &group(32), exponents.clone())
        .settings(settings(float(4, "group", Some(32)), Json::Null));
    let packed = mxfp4.matrix(MODULE).unwrap();
    assert_eq!((packed.encoding.as_str(), packed.shape, packed.warnings.len()), ("MXFP4", shape, 0));
    assert_eq!(decode(&packed), expected(shape, [1, 32], four, |_| 0.0, power));

    let mxfp8 = Fixture::default()
        .tensor(&named("weight"), Dtype::F8_E4M3, &shape, eights.clone())
        .tensor(&named("weight_scale"), Dtype::U8, &group(32), exponents.clone())
        .settings(settings(float(8, "group", Some(32)), Json::Null));
    let packed = mxfp8.matrix(MODULE).unwrap();
    assert_eq!((packed.encoding.as_str(), packed.warnings.len()), ("MXFP8", 0));
    assert_eq!(decode(&packed), expected(shape, [1, 32], eight, |_| 0.0, power));

    let scales: Vec<u8> = noise(9).map(|code| 1 + code % 126).take(out * inner / 16).collect();
    let nvfp4 = Fixture::default()
        .tensor(&named("weight_packed"), Dtype::U8, &[out, inner / 2], pairs.clone())
        .tensor(&named("weight_scale"), Dtype::F8_E4M3, &group(16), scales.clone())
        .floats(&named("weight_global_scale"), &[1], &[731.5])
        .settings(settings(float(4, "tensor_group", Some(16)), Json::Null));
    let packed = nvfp4.matrix(MODULE).unwrap();
    assert_eq!((packed.encoding.as_str(), packed.warnings.len()), ("NVFP4", 0));
    let scale = |i: usize| E4M3[usize::from(scales[i])] / 731.5;
    assert_eq!(decode(&packed), expected(shape, [1, 16], four, |_| 0.0, scale));
    assert_eq!(packed.tensors, ["weight_packed", "weight_scale", "weight_global_scale"].map(named));

    let tensor = |ending: &str| format!("tensor `{}`: ", named(ending));
    let missing = nvfp4.clone().without(&named("weight_global_scale")).refusal(MODULE);
    assert_eq!(
        missing,
        tensor("weight_global_scale") + "is missing, but `weight_scale` is E4M3, which is relative to it"
    );
    let mut nan = exponents;
    nan[5] = 255;
    let nan = mxfp4.tensor(&named("weight_scale"), Dtype::U8, &group(32), nan).refusal(MODULE);
    assert_eq!(nan, tensor("weight_scale") + "row 1, column 1 is NaN, expected a positive number");
}

#[test]
fn slices_keep_scale_and_zero_of_the_wide_codes() {
    let (shape, group) = ([4, 320], 64);
    let Words { fixture, codes, zeros, scales } = words(8, BitLayout::Dense, shape, group);
    let packed = fixture.matrix(MODULE).unwrap();
    for bits in 1..8 {
        let step = f32::from(1u16 << (8 - bits));
        let largest = ((1u32 << bits) - 1) as f32;
        let value = |i: usize| (f32::from(codes[i]) / step + 0.5).floor().min(largest) * step;
        let naive = expected(shape, [1, group], value, |i| f32::from(zeros[i]), |i| scales[i]);
        assert_eq!(decode_sliced(&packed, bits), Some(naive), "{bits} bits");
    }
    assert!(packed.source.sliced(8).is_none() && packed.source.sliced(0).is_none());
    // Signed bytes are sliced as unsigned codes: −128 is 0, 127 is 255.
    let bytes = Fixture::default()
        .tensor(&named("weight"), Dtype::I8, &[1, 4], [0x80, 0xFF, 0x07, 0x7F])
        .floats(&named("weight_scale"), &[1], &[2.0]);
    let packed = bytes.matrix(MODULE).unwrap();
    // 0, 127, 135, 255 at 4 bits of steps of 16: 0, 8, 8, 15.
    assert_eq!(decode_sliced(&packed, 4), Some(vec![-256.0, 0.0, 0.0, 224.0]));
}

#[test]
fn tensors_are_believed_and_the_reader_is_warned() {
    let whole = words(4, BitLayout::Dense, [5, 320], 32).fixture;
    let plain =
        Fixture::default().tensor(&named("weight"), Dtype::BF16, &[2, 2], [0, 0x3F, 0x80, 0x3F, 0, 0, 0, 0]);
    let four = || int(4, "group", Some(32), false);
    let replaced = |key: &str, value: Json| {
        let mut settings = settings(four(), Json::Null);
        settings[key] = value;
        settings
    };
    for (fixture, declared, words) in [
        (
            &whole,
            settings(int(4, "group", Some(64), false), Json::Null),
            "settings say int4 g64 asymmetric, the tensors say int4 g32 asymmetric",
        ),
        (
            &whole,
            settings(int(8, "channel", None, false), Json::Null),
            "settings say int8 channel asymmetric, the tensors say int4 g32",
        ),
        (
            &whole,
            settings(int(4, "group", Some(32), true), Json::Null),
            "settings say int4 g32, the tensors say int4 g32 asymmetric",
        ),
        (
            &whole,
            settings(float(4, "group", Some(32)), Json::Null),
            "settings say float4 g32, the tensors say int4 g32",
        ),
        (
            &whole,
            settings(Json::Null, Json::Null),
            "settings say nothing about weights (`config_groups.group_0`), the tensors say int4 g32",
        ),
        (
            &whole,
            replaced("ignore", json!(["re:.*q_proj$"])),
            "the settings say to ignore it, the tensors say int4 g32",
        ),
        (
            &whole,
            replaced("config_groups", json!({})),
            "the settings say nothing about it, the tensors say int4 g32",
        ),
        (&plain, settings(four(), Json::Null), "settings say int4 g32 asymmetric, the tensors say BF16"),
        (&plain, replaced("quantization_status", json!("frozen")), "saved before packing, as BF16"),
        (&plain, replaced("format", json!("dense")), "saved before packing, as BF16"),
    ] {
        let packed = fixture.clone().settings(declared).matrix(MODULE).unwrap();
        assert_eq!(packed.warnings.len(), 1, "{words}: {:?}", packed.warnings);
        assert!(packed.warnings[0].contains(words), "{words}: {:?}", packed.warnings);
        assert!(packed.warnings[0].starts_with(MODULE));
        let same = decode(&packed) == decode(&whole.matrix(MODULE).unwrap())
            || decode(&packed) == [0.5, 1.0, 0.0, 0.0];
        assert!(same, "{words}");
    }
    let mut without = whole.clone();
    without = without.file("config.json", json!({"model_type": "qwen2"}));
    let packed = without.matrix(MODULE).unwrap();
    assert!(packed.warnings[0].contains("no quantization settings were found"), "{:?}", packed.warnings);
    assert_eq!(decode(&packed), decode(&whole.matrix(MODULE).unwrap()));
    assert!(plain.find(MODULE).unwrap().is_none());
    assert!(whole.find("model.layers.0.self_attn.k_proj").unwrap().is_none());
    // Equal under another name: a group as wide as the row is a channel.
    let same = settings(int(8, "group", Some(4), true), Json::Null);
    let channel = Fixture::default()
        .tensor(&named("weight"), Dtype::I8, &[2, 4], [1; 8])
        .floats(&named("weight_scale"), &[2, 1], &[1.0, 2.0])
        .settings(same);
    assert_eq!(channel.matrix(MODULE).unwrap().warnings, [""; 0]);
    // Zeros of symmetric codes, as early versions store them.
    let zeros = channel
        .tensor(&named("weight_zero_point"), Dtype::I8, &[2, 1], [0, 0])
        .settings(settings(int(8, "channel", None, true), Json::Null));
    assert_eq!(zeros.matrix(MODULE).unwrap().warnings, [""; 0]);
}

#[test]
fn tensors_that_do_not_fit_are_refused() {
    let four = words(4, BitLayout::Dense, [5, 320], 32).fixture;
    let three = words(3, BitLayout::Dense, [5, 320], 32).fixture;
    let short = words(3, BitLayout::Dense, [5, 15], 5).fixture;
    let eight = Fixture::default()
        .tensor(&named("weight"), Dtype::I8, &[2, 4], [1; 8])
        .floats(&named("weight_scale"), &[2, 1], &[1.0, 2.0])
        .settings(settings(int(8, "channel", None, true), Json::Null));
    let scale = named("weight_scale");
    let scale = scale.as_str();
    for (fixture, tensor, problem) in [
        (
            four.clone().floats(scale, &[5, 3], &[1.0; 15]),
            "weight_scale",
            "has shape [5, 3] for weights of [5, 320], expected [5, 10] for g32",
        ),
        (
            four.clone().floats(scale, &[4, 10], &[1.0; 40]),
            "weight_scale",
            "has shape [4, 10] for weights of [5, 320], expected [5, 10] for g32",
        ),
        (
            four.clone().without(scale),
            "weight_scale",
            "is missing, but `model.layers.0.self_attn.q_proj.weight_packed` holds I32 codes that need it",
        ),
        (
            four.clone().numbers(scale, &[1]),
            "weight_scale",
            "is of type I64, expected a float or an E8M0 byte",
        ),
        (
            four.clone().without(&named("weight_shape")),
            "weight_shape",
            "is missing, but `weight_packed` needs it",
        ),
        (
            four.clone().numbers(&named("weight_shape"), &[6, 320]),
            "weight_shape",
            "says [6, 320], but `weight_packed` has shape [5, 40]: 5 rows",
        ),
        (
            four.clone().numbers(&named("weight_shape"), &[5, -320]),
            "weight_shape",
            "has shape [2] and does not hold two positive numbers",
        ),
        (
            four.clone().numbers(&named("weight_shape"), &[5, 317, 2]),
            "weight_shape",
            "has shape [3] and does not hold two positive numbers",
        ),
        (
            four.clone().numbers(&named("weight_shape"), &[5, 3200]),
            "weight_packed",
            "has rows of 40 words for 3200 codes, expected 400 (dense) or 400 (per word) for 4 bits",
        ),
        (
            three.clone().tensor(&named("weight_packed"), Dtype::I32, &[5, 31], vec![0; 4 * 5 * 31]),
            "weight_packed",
            "has rows of 31 words for 320 codes, expected 30 (dense) or 32 (per word) for 3 bits",
        ),
        (
            short.clone(),
            "weight_packed",
            "has rows of 2 words for 15 codes of 3 bits, as both ways of packing give",
        ),
        (
            three.clone().tensor(&named("weight_packed"), Dtype::F16, &[5, 30], vec![0; 300]),
            "weight_packed",
            "is of type F16, expected I32",
        ),
        (
            three.clone().tensor(&named("weight_packed"), Dtype::I32, &[150], vec![0; 600]),
            "weight_packed",
            "has shape [150], expected the two axes of a matrix",
        ),
        (
            three.clone().without(&named("weight_zero_point")),
            "weight_zero_point",
            "is missing, but the settings declare asymmetric codes",
        ),
        (
            three.clone().tensor(&named("weight_zero_point"), Dtype::I32, &[2, 10], vec![0; 80]),
            "weight_zero_point",
            "has shape [2, 10], expected [1, 10]",
        ),
        (
            three.tensor(&named("meta"), Dtype::I32, &[1], [0; 4]),
            "weight_packed",
            "is in the marlin-24 format, which this version cannot decode",
        ),
        (
            eight.clone().floats(scale, &[2, 1], &[1.0, 0.0]),
            "weight_scale",
            "row 1, column 0 is 0, expected a positive number",
        ),
        (
            eight.clone().floats(scale, &[2, 1], &[f32::NAN, 1.0]),
            "weight_scale",
            "row 0, column 0 is NaN, expected a positive number",
        ),
        (
            eight.clone().floats(scale, &[2, 1], &[-1.0, 1.0]),
            "weight_scale",
            "row 0, column 0 is -1, expected a positive number",
        ),
        (
            eight.clone().floats(scale, &[2, 1], &[f32::INFINITY, 1.0]),
            "weight_scale",
            "row 0, column 0 is inf, expected a positive number",
        ),
        (
            eight.clone().floats(scale, &[2, 3], &[1.0; 6]),
            "weight_scale",
            "has shape [2, 3] for weights of [2, 4], expected [2, 1] for channel",
        ),
        (
            eight.clone().without(scale),
            "weight_scale",
            "is missing, but `model.layers.0.self_attn.q_proj.weight` holds I8 codes that need it",
        ),
        (
            eight.clone().tensor(&named("weight_zero_point"), Dtype::I8, &[2, 2], [0; 4]),
            "weight_zero_point",
            "has shape [2, 2], expected [2, 1]",
        ),
    ] {
        assert_eq!(fixture.refusal(MODULE), format!("tensor `{}`: {problem}", named(tensor)));
    }
    let sparse = Fixture::default().tensor(&named("compressed"), Dtype::BF16, &[2], [0; 4]).tensor(
        &named("bitmask"),
        Dtype::U8,
        &[1],
        [0; 1],
    );
    assert!(sparse.refusal(MODULE).contains("is stored sparse"));
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(200))]

    /// Whatever the shapes and types, there is a matrix or an error, never a panic.
    #[test]
    fn no_combination_of_tensors_panics(
        parts in proptest::collection::vec((0usize..8, 0usize..6, proptest::collection::vec(0usize..5, 0..4)), 1..7),
        bits in 1u32..9,
        group in 1usize..9,
        symmetric: bool,
        seed: u64,
    ) {
        const ENDINGS: [&str; 8] = [
            "weight", "weight_packed", "weight_scale", "weight_zero_point", "weight_shape", "weight_g_idx",
            "weight_global_scale", "input_scale",
        ];
        const DTYPES: [(Dtype, usize); 6] = [
            (Dtype::I8, 1), (Dtype::U8, 1), (Dtype::F8_E4M3, 1), (Dtype::I32, 4), (Dtype::F32, 4), (Dtype::I64, 8),
        ];
        let declared = int(bits, "group", Some(group), symmetric);
        let mut fixture = Fixture::default().settings(settings(declared, Json::Null));
        for (ending, dtype, shape) in parts {
            let (dtype, size) = DTYPES[dtype];
            let length = size * shape.iter().product::<usize>();
            let bytes: Vec<u8> = noise(seed).map(|byte| byte % 8).take(length).collect();
            fixture = fixture.tensor(&named(ENDINGS[ending]), dtype, &shape, bytes);
        }
        if let Ok(Some(packed)) = fixture.find(MODULE) {
            let [rows, columns] = packed.shape;
            let mut out = vec![0.0; rows * columns];
            let _ = packed.source.decode(0..rows, &mut out);
            if let Some(sliced) = packed.source.sliced(2) {
                let _ = sliced.decode(rows - 1..rows, &mut out[..columns]);
            }
        }
    }
}
