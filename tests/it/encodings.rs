//! Every GGUF type against two oracles: values by llama.cpp's own quantizer and gguf-py, and candle's
//! decoders.

use std::borrow::Cow;
use std::collections::BTreeSet;

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{Device, Tensor};
use qeval::checkpoint::encoding::{Encoding, ggml_type_block, ggml_type_name};
use safetensors::SafeTensors;

use crate::support;

/// Types of the golden file without a decoder yet. Whoever writes one deletes its name here.
const NOT_DECODED_YET: &[&str] = &[
    "IQ1_M", "IQ1_S", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ3_S", "IQ3_XXS", "IQ4_NL", "IQ4_XS", "MXFP4", "NVFP4",
    "TQ1_0", "TQ2_0",
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
fn every_golden_type_is_decoded_to_the_bit_or_known_to_be_missing() {
    let Some(goldens) = goldens() else { return };
    assert_eq!(goldens.len(), 24);
    for golden in &goldens {
        let name = golden.name.as_str();
        let number = ggml_type(name).unwrap_or_else(|| panic!("{name} has no number"));
        let (weights, bytes) = ggml_type_block(number).unwrap_or_else(|| panic!("{name} has no block size"));
        assert_eq!(golden.raw.len() * weights, golden.values.len() * bytes, "block size of {name}");
        match encoding(name) {
            Some(encoding) => {
                assert!(
                    !NOT_DECODED_YET.contains(&name),
                    "{name} is decoded: delete it from NOT_DECODED_YET"
                );
                assert_eq!(Encoding::from_ggml_type(number), Some(encoding));
                assert_same_bits(&decoded(encoding, &golden.raw), &golden.values, name);
            }
            None => assert!(NOT_DECODED_YET.contains(&name), "{name} has goldens but no decoder"),
        }
    }
    let names: BTreeSet<&str> = goldens.iter().map(|golden| golden.name.as_str()).collect();
    assert!(
        NOT_DECODED_YET.iter().all(|name| names.contains(name)),
        "a name without goldens in NOT_DECODED_YET"
    );
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
        // Also what is decoded some day and what candle does not know.
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
    let mut state = 7u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let mut compared = 0;
    for &encoding in Encoding::ALL {
        let Some(dtype) = candle_type(encoding) else { continue };
        let raw: Vec<u8> = (0..64 * encoding.block_bytes()).map(|_| noise()).collect();
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
