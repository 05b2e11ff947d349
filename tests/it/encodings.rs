//! Every GGUF type against two oracles: values by llama.cpp's own quantizer and gguf-py, and candle's
//! decoders.
//!
//! Needs ../shared: llama.cpp's rows and their values.

use std::borrow::Cow;

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{Device, Tensor};
use qeval::checkpoint::encoding::{Encoding, ggml_type_block, ggml_type_name};
use safetensors::SafeTensors;

use crate::support;

/// FNV-1a over the bits of what gguf-py 0.19 makes of [`noise`], 64 blocks of each type. In numpy:
/// `gguf.quants.dequantize(noise(64 * bytes).reshape(64, bytes), type)`, then [`digest`].
#[rustfmt::skip]
const OF_NOISE_BY_GGUF_PY: &[(&str, u64)] = &[
    ("BF16", 0xf746_025f_2199_0825),
    ("Q4_0", 0xd0b0_afec_f93f_6325),
    ("Q4_1", 0xc717_8d4c_7046_0179),
    ("Q5_0", 0x9887_3299_22af_b725),
    ("Q5_1", 0xf78b_9053_55e9_2ea0),
    ("Q8_0", 0x6875_4bb5_dd96_95e5),
    ("Q2_K", 0x5f14_8a33_6d5e_e07b),
    ("Q3_K", 0x7057_c96a_9d17_40e5),
    ("Q4_K", 0xcb9b_9c42_1bc0_729a),
    ("Q5_K", 0x8a17_ff40_4b4c_f017),
    ("Q6_K", 0xe32d_6130_02df_9dfb),
    ("IQ1_S", 0xa6da_cbca_fd30_c3e5),
    ("IQ1_M", 0x9bc5_4e74_0c06_bba5),
    ("IQ2_XXS", 0xf0d1_6d10_f872_3b19),
    ("IQ2_XS", 0x16d8_5989_5a8f_e91d),
    ("IQ2_S", 0x86cd_321b_c5ce_7059),
    ("IQ3_XXS", 0x26a7_b8c3_e4a3_27f5),
    ("IQ3_S", 0xb1a0_f9d3_b33c_dd65),
    ("IQ4_NL", 0x6412_1619_ce06_a465),
    ("IQ4_XS", 0x7493_1223_24ea_2133),
    ("TQ1_0", 0xa8df_1dec_b596_c325),
    ("TQ2_0", 0x5818_5806_2686_a325),
    ("MXFP4", 0xb903_f7c5_6b6e_c325),
    ("NVFP4", 0x0606_52c5_19fb_6325),
];

/// Raw rows and values of one type of the golden file.
struct Golden {
    name: String,
    raw: Vec<u8>,
    values: Vec<f32>,
}

fn goldens() -> Option<Vec<Golden>> {
    let file = std::fs::read(support::shared("goldens/gguf-types.safetensors")?).unwrap();
    let file = SafeTensors::deserialize(&file).unwrap();
    let mut names: Vec<&str> = file.names().iter().filter_map(|name| name.strip_suffix(".raw")).collect();
    names.sort_unstable();
    let golden = |name: &&str| Golden {
        name: (*name).to_owned(),
        raw: file.tensor(&format!("{name}.raw")).unwrap().data().to_vec(),
        values: floats(file.tensor(&format!("{name}.f32")).unwrap().data()),
    };
    Some(names.iter().map(golden).collect())
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn ggml_type(name: &str) -> Option<u32> {
    (0..1000).find(|number| ggml_type_name(*number) == Some(name))
}

fn encoding(name: &str) -> Option<Encoding> {
    Encoding::ALL.iter().copied().find(|encoding| encoding.name() == name)
}

fn decoded(encoding: Encoding, raw: &[u8]) -> Vec<f32> {
    let mut values = vec![f32::NAN; raw.len() / encoding.block_bytes() * encoding.block_weights()];
    encoding.decode(raw, &mut values).unwrap();
    values
}

#[track_caller]
fn assert_same_bits(ours: &[f32], theirs: &[f32], name: &str) {
    assert_eq!(ours.len(), theirs.len(), "{name}");
    let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
    if let Some(at) = ours.iter().zip(theirs).position(|pair| !same(pair)) {
        panic!("{name}: weight {at} is {:e}, the oracle says {:e}", ours[at], theirs[at]);
    }
}

#[test]
fn every_golden_type_is_decoded_to_the_bit() {
    let Some(goldens) = goldens() else { return };
    assert_eq!(goldens.len(), 24);
    for golden in &goldens {
        let name = golden.name.as_str();
        let number = ggml_type(name).unwrap_or_else(|| panic!("{name} has no number"));
        let (weights, bytes) = ggml_type_block(number).unwrap_or_else(|| panic!("{name} has no block size"));
        assert_eq!(golden.raw.len() * weights, golden.values.len() * bytes, "block size of {name}");
        let encoding = encoding(name).unwrap_or_else(|| panic!("{name} has goldens but no decoder"));
        assert_eq!((Encoding::from_ggml_type(number), encoding.ggml_type()), (Some(encoding), number));
        assert_same_bits(&decoded(encoding, &golden.raw), &golden.values, name);
    }
}

/// Numbers without a pattern, the same in every run.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 7u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// FNV-1a with the 32 bits of a weight in place of a byte; every NaN counts as 0x7fc00000.
fn digest(weights: &[f32]) -> u64 {
    weights.iter().fold(0xcbf2_9ce4_8422_2325, |digest, weight| {
        let bits = if weight.is_nan() { 0x7fc0_0000 } else { weight.to_bits() };
        (digest ^ u64::from(bits)).wrapping_mul(0x100_0000_01b3)
    })
}

/// Every code and every scale, NaN and infinite ones among them: what a quantizer would never write.
#[test]
fn arbitrary_bytes_are_decoded_as_gguf_py_does() {
    for &(name, expected) in OF_NOISE_BY_GGUF_PY {
        let encoding = encoding(name).unwrap();
        let weights = decoded(encoding, &noise(64 * encoding.block_bytes()));
        assert_eq!(digest(&weights), expected, "{name}");
    }
}

/// Types that gguf-py cannot decode, bit by bit from their layout: block size, bits of a code, value of a
/// code.
#[test]
fn q1_0_and_q2_0_are_decoded_as_their_layout_says() {
    let q1_0: fn(u8) -> f32 = |bit| if bit == 1 { 1.0 } else { -1.0 };
    let q2_0: fn(u8) -> f32 = |code| [-1.0, 0.0, 1.0, 2.0][usize::from(code)];
    for (encoding, weights, bits, value) in [(Encoding::Q1_0, 128, 1, q1_0), (Encoding::Q2_0, 64, 2, q2_0)] {
        let bytes = noise(64 * (2 + weights * bits / 8));
        let blocks = bytes.chunks(2 + weights * bits / 8);
        let expected = blocks.flat_map(|block| {
            let d = half::f16::from_le_bytes([block[0], block[1]]).to_f32();
            (0..weights).map(move |weight| {
                let code = (0..bits).map(|bit| {
                    let at = weight * bits + bit;
                    (block[2 + at / 8] >> (at % 8) & 1) << bit
                });
                value(code.sum()) * d
            })
        });
        assert_same_bits(&decoded(encoding, &bytes), &expected.collect::<Vec<_>>(), encoding.name());
    }
}

/// The same encoding as candle calls it; `None` where candle has none.
fn candle_type(encoding: Encoding) -> Option<GgmlDType> {
    Some(match encoding {
        Encoding::F32 => GgmlDType::F32,
        Encoding::F16 => GgmlDType::F16,
        Encoding::Bf16 => GgmlDType::BF16,
        Encoding::Q4_0 => GgmlDType::Q4_0,
        Encoding::Q4_1 => GgmlDType::Q4_1,
        Encoding::Q5_0 => GgmlDType::Q5_0,
        Encoding::Q5_1 => GgmlDType::Q5_1,
        Encoding::Q8_0 => GgmlDType::Q8_0,
        Encoding::Q2K => GgmlDType::Q2K,
        Encoding::Q3K => GgmlDType::Q3K,
        Encoding::Q4K => GgmlDType::Q4K,
        Encoding::Q5K => GgmlDType::Q5K,
        Encoding::Q6K => GgmlDType::Q6K,
        // Candle does not know the others.
        _ => return None,
    })
}

fn by_candle(encoding: Encoding, dtype: GgmlDType, raw: &[u8]) -> Vec<f32> {
    let weights = raw.len() / encoding.block_bytes() * encoding.block_weights();
    let storage = QStorage::from_data(Cow::Borrowed(raw), &Device::Cpu, dtype).unwrap();
    let tensor = QTensor::new(storage, (1, weights)).unwrap().dequantize(&Device::Cpu).unwrap();
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Arbitrary codes and scales, NaN and infinite ones among them: what a quantizer would never write.
#[test]
fn arbitrary_bytes_are_decoded_as_candle_does() {
    let mut compared = 0;
    for &encoding in Encoding::ALL {
        let Some(dtype) = candle_type(encoding) else { continue };
        let raw = noise(64 * encoding.block_bytes());
        assert_same_bits(&decoded(encoding, &raw), &by_candle(encoding, dtype, &raw), encoding.name());
        compared += 1;
    }
    assert_eq!(compared, 13);
}

/// What candle's quantizers make of a smooth row comes back within half a step of the row.
#[test]
fn what_candle_quantizes_is_decoded_to_nearly_the_original() {
    let row: Vec<f32> = (0..1024).map(|i| (i as f32 * 0.37).sin() * (1.0 + i as f32 / 1024.0)).collect();
    let tensor = Tensor::new(row.as_slice(), &Device::Cpu).unwrap().reshape((1, 1024)).unwrap();
    // Root mean square error over that of the row, an upper bound for a sine with this number of code bits.
    let cases = [
        (Encoding::F16, 3e-4),
        (Encoding::Bf16, 3e-3),
        (Encoding::Q8_0, 6e-3),
        (Encoding::Q6K, 2.5e-2),
        (Encoding::Q5_0, 5e-2),
        (Encoding::Q5_1, 5e-2),
        (Encoding::Q5K, 5e-2),
        (Encoding::Q4_0, 1e-1),
        (Encoding::Q4_1, 1e-1),
        (Encoding::Q4K, 1e-1),
        (Encoding::Q3K, 2e-1),
        (Encoding::Q2K, 4e-1),
    ];
    for (encoding, bound) in cases {
        let quantized = QTensor::quantize(&tensor, candle_type(encoding).unwrap()).unwrap();
        let values = decoded(encoding, &quantized.data().unwrap());
        let square =
            |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x).powi(2)).sum::<f64>();
        let error =
            square(&mut row.iter().zip(&values).map(|(a, b)| a - b)) / square(&mut row.iter().copied());
        assert!(error.sqrt() < bound, "{}: relative error {}", encoding.name(), error.sqrt());
        assert!(error.sqrt() > bound / 20.0, "{}: the bound says nothing, {}", encoding.name(), error.sqrt());
    }
}
