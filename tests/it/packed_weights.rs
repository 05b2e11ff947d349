//! Checkpoints that other tools packed, decoded and held against one weight at a time, and against their original.
//!
//! Needs ../shared: the checkpoints of the tools that wrote them.

use std::{collections::BTreeMap, path::Path};

use half::f16;
use qeval::checkpoint::{Checkpoint, activations::ActivationQuantization};
use safetensors::SafeTensors;

use crate::support::{shared, tensors};

/// Bits `first..first + width` of a stream of bytes, bit 0 of byte 0 first.
fn bits(bytes: &[u8], first: usize, width: usize) -> u32 {
    (0..width).map(|bit| u32::from(bytes[(first + bit) / 8] >> ((first + bit) % 8) & 1) << bit).sum()
}

fn f32_at(bytes: &[u8], at: usize) -> f32 {
    f32::from_le_bytes(std::array::from_fn(|i| bytes[4 * at + i]))
}

/// Shape and bytes of a module's tensors, by the rest of their names.
type Parts<'a> = BTreeMap<String, (Vec<usize>, &'a [u8])>;

/// W[o, i] from the tensors of a module, by the definition of its format; `offset` is that of double quantization.
fn weight(parts: &Parts, kind: &str, [out, inputs]: [usize; 2], offset: f32, o: usize, i: usize) -> f32 {
    let shape = |part: &str| &parts[part].0;
    let bytes = |part: &str| parts[part].1;
    let word = |part: &str, at: usize| &bytes(part)[4 * at..4 * at + 4];
    if kind.starts_with("auto") {
        let groups = shape("scales")[0];
        let group = i / (inputs / groups);
        let at = 2 * (group * out + o);
        let scale = f16::from_le_bytes([bytes("scales")[at], bytes("scales")[at + 1]]).to_f32();
        let (code, zero) = if kind.contains("awq") {
            let nibble = [0, 4, 1, 5, 2, 6, 3, 7][o % 8];
            let of = |part: &str, row: usize| bits(word(part, row * out / 8 + o / 8), 4 * nibble, 4);
            (of("qweight", i), of("qzeros", group))
        } else {
            let width = shape("qweight")[0] * 32 / inputs;
            let per = 32 / width;
            let code = bits(word("qweight", i / per * out + o), i % per * width, width);
            let zero = bits(word("qzeros", group * out / per + o / per), o % per * width, width);
            (code, zero + 1)
        };
        return (code as f32 - zero as f32) * scale;
    }
    let at = o * inputs + i;
    if kind == "int8" {
        return f32::from(bytes("weight")[at] as i8) * f32_at(bytes("SCB"), o) / 127.0;
    }
    let code = bytes("weight")[at / 2] >> (4 * (1 - at % 2)) & 15;
    let absmax = if kind == "nf4-dq" {
        let inner = usize::from(bytes("weight.absmax")[at / 64]);
        f32_at(bytes("weight.nested_quant_map"), inner) * f32_at(bytes("weight.nested_absmax"), at / 64 / 256)
            + offset
    } else {
        f32_at(bytes("weight.absmax"), at / 64)
    };
    f32_at(bytes("weight.quant_map"), usize::from(code)) * absmax
}

/// Kind, what reports call it, and the relative error that its quantizer made (root mean square, three digits).
const KINDS: &[(&str, &str, &str, f64)] = &[
    ("gptq-awq", "auto_gptq-2-sym", "int2 g32", 0.336),
    ("gptq-awq", "auto_gptq-4-asym", "int4 g128", 0.101),
    ("gptq-awq", "auto_gptq-4-sym", "int4 g128", 0.0973),
    ("gptq-awq", "auto_gptq-8-sym", "int8 g128", 0.0064),
    ("gptq-awq", "auto_round-4-sym", "int4 g128", 0.0973),
    ("gptq-awq", "auto_awq-4-asym", "int4 g128", 0.101),
    ("bnb", "nf4", "NF4 g64", 0.0921),
    ("bnb", "nf4-dq", "NF4 g64 double-quantized", 0.0921),
    ("bnb", "fp4", "FP4 g64", 0.122),
    ("bnb", "int8", "LLM.int8", 0.0070),
];

#[test]
fn gptq_awq_and_bitsandbytes_weights_equal_their_definition() {
    let Some(goldens) = shared("goldens") else { return };
    let base = tensors(&goldens.join("ct-base/model.safetensors"));
    let matrices: BTreeMap<_, _> = base.iter().filter(|(name, _)| name.ends_with("_proj.weight")).collect();
    assert_eq!(matrices.len(), 14);
    for (folder, kind, encoding, error) in KINDS {
        let path = goldens.join(folder).join(kind);
        let file = std::fs::read(path.join("model.safetensors")).expect("readable");
        let file = SafeTensors::deserialize(&file).expect("safetensors");
        let (mut square_error, mut square) = (0.0, 0.0);
        for (name, (shape, original)) in &matrices {
            let found = decoded(&path, name, shape, encoding);
            let module = format!("{}.", name.trim_end_matches(".weight"));
            let parts: Parts = file
                .iter()
                .filter_map(|(name, view)| {
                    Some((name.strip_prefix(&module)?.to_owned(), (view.shape().to_vec(), view.data())))
                })
                .collect();
            let state = parts.get("weight.quant_state.bitsandbytes__nf4").map(|(_, bytes)| {
                serde_json::from_slice::<serde_json::Value>(bytes).expect("JSON")["nested_offset"].clone()
            });
            let offset = state.and_then(|offset| offset.as_f64()).unwrap_or(0.0) as f32;
            for (at, (found, original)) in found.iter().zip(original).enumerate() {
                let (o, i) = (at / shape[1], at % shape[1]);
                let expected = weight(&parts, kind, [shape[0], shape[1]], offset, o, i);
                assert!(
                    (found - expected).abs() <= 1e-6 * expected.abs(),
                    "{kind} {name} [{o}, {i}]: {found} {expected}"
                );
                square_error += f64::from(found - original).powi(2);
                square += f64::from(*original).powi(2);
            }
        }
        let relative = (square_error / square).sqrt();
        assert!((relative / error - 1.0).abs() < 0.01, "{kind}: {relative}");
    }
}

fn decoded(path: &Path, name: &str, shape: &[usize], encoding: &str) -> Vec<f32> {
    let checkpoint = Checkpoint::open(path).expect("opens");
    let config = checkpoint.config().expect("readable").expect("there");
    let weight = checkpoint.weight(&config, name, shape).expect("decodable");
    assert_eq!((weight.encoding.as_str(), weight.warnings.len()), (encoding, 0), "{:?}", weight.warnings);
    let int8 = ActivationQuantization::LlmInt8 { threshold: 6.0 };
    assert_eq!(weight.input, (encoding == "LLM.int8").then_some(int8));
    weight.decode().expect("finite")
}
