//! bitsandbytes: NF4, FP4 (with and without double quantization) and LLM.int8(), as transformers saves them.
//!
//! Layout as its reader describes it (`checkpoint/packing/bitsandbytes.rs`), bitsandbytes 0.50. A matrix names the
//! type that it is decoded to; it is the base's, as in a model that was loaded from there.

use rayon::prelude::*;
use safetensors::Dtype;
use serde_json::{Value as Json, json};

use super::{Part, f32_bytes, named, of_module};
use crate::{
    checkpoint::Weight,
    cousin::simulate::{
        Book, CODEBOOK_BLOCK, Encoder, NESTED_BLOCK, NestedScales, Quantizer, Scheme, StoredScale,
        dynamic_map, quant_map,
    },
    error::Result,
};

/// What 4-bit weights are decoded to, by its name in torch.
pub(super) fn dtype(weight: &Weight) -> &'static str {
    match weight.encoding.as_str() {
        "BF16" => "bfloat16",
        "F16" => "float16",
        _ => "float32",
    }
}

fn kind(book: Book) -> &'static str {
    match book {
        Book::Nf4 => "nf4",
        Book::Fp4 => "fp4",
    }
}

/// Name of the tensor that holds the JSON, behind the module's.
fn state_name(book: Book) -> String {
    format!("weight.quant_state.bitsandbytes__{}", kind(book))
}

/// The JSON of a 4-bit matrix, spaced as Python spaces it.
fn state(weight: &Weight, book: Book, nested: Option<&NestedScales>) -> String {
    let [rows, columns] = [weight.rows(), weight.columns()];
    let nested = nested.map_or(String::new(), |nested| {
        // Shortest digits that name the same f64.
        let offset = f64::from(nested.offset);
        format!(
            ", \"nested_blocksize\": {NESTED_BLOCK}, \"nested_dtype\": \"float32\", \"nested_offset\": {offset:?}"
        )
    });
    format!(
        "{{\"quant_type\": \"{}\", \"blocksize\": {CODEBOOK_BLOCK}, \"dtype\": \"{}\", \"shape\": [{rows}, \
         {columns}]{nested}}}",
        kind(book),
        dtype(weight)
    )
}

/// The tensors of a matrix.
///
/// # Errors
/// A weight that is not finite: double quantization looks at all of them first.
pub(super) fn parts(encoder: &Encoder) -> Result<Vec<Part>> {
    let weight = encoder.weight();
    let part = |ending: &str, dtype, shape: &[usize]| of_module(weight, ending, dtype, shape);
    let Scheme::Codebook { book, double_quantized } = encoder.scheme() else {
        let rows = weight.rows();
        return Ok(vec![
            part("weight", Dtype::I8, &[rows, weight.columns()]),
            part("SCB", Dtype::F32, &[rows]),
            part("weight_format", Dtype::U8, &[]),
        ]);
    };
    let nested = if double_quantized { Some(encoder.nested()?) } else { None };
    let blocks = weight.parameters().div_ceil(CODEBOOK_BLOCK);
    let mut parts = vec![
        part("weight", Dtype::U8, &[weight.parameters().div_ceil(2), 1]),
        part("weight.absmax", if double_quantized { Dtype::U8 } else { Dtype::F32 }, &[blocks]),
        part("weight.quant_map", Dtype::F32, &[16]),
        part(&state_name(book), Dtype::U8, &[state(weight, book, nested.as_ref()).len()]),
    ];
    if double_quantized {
        parts.push(part("weight.nested_absmax", Dtype::F32, &[blocks.div_ceil(NESTED_BLOCK)]));
        parts.push(part("weight.nested_quant_map", Dtype::F32, &[256]));
    }
    Ok(parts)
}

/// The bytes of every tensor of [`parts`].
///
/// # Errors
/// A weight that is not finite, or for int8 beyond f16.
pub(super) fn encode(encoder: &Encoder) -> Result<Vec<(String, Vec<u8>)>> {
    match encoder.scheme() {
        Scheme::Codebook { book, double_quantized } => four_bits(encoder, book, double_quantized),
        _ => int8(encoder),
    }
}

/// Weights that one task encodes: whole blocks, and an even number of them.
const BAND_WEIGHTS: usize = 1 << 17;

fn four_bits(encoder: &Encoder, book: Book, double_quantized: bool) -> Result<Vec<(String, Vec<u8>)>> {
    let weight = encoder.weight();
    let weights = weight.parameters();
    let (mut packed, mut absmax) =
        (vec![0u8; weights.div_ceil(2)], vec![0.0f32; weights.div_ceil(CODEBOOK_BLOCK)]);
    let band = BAND_WEIGHTS / CODEBOOK_BLOCK;
    packed.par_chunks_mut(BAND_WEIGHTS / 2).zip(absmax.par_chunks_mut(band)).enumerate().try_for_each(
        |(index, (packed, absmax))| {
            let first = index * BAND_WEIGHTS;
            let mut codes = vec![0u8; BAND_WEIGHTS.min(weights - first)];
            encoder.blocks(index * band..index * band + absmax.len(), &mut codes, absmax)?;
            for (pair, out) in codes.chunks(2).zip(packed) {
                *out = pair[0] << 4 | pair.get(1).copied().unwrap_or(0);
            }
            Ok(())
        },
    )?;
    let mut tensors = vec![
        (named(weight, "weight"), packed),
        (named(weight, "weight.quant_map"), f32_bytes(quant_map(book))),
    ];
    let mut nested = None;
    if double_quantized {
        let NestedScales { codes, absmax, .. } = nested.insert(encoder.nested()?);
        tensors.push((named(weight, "weight.absmax"), codes.clone()));
        tensors.push((named(weight, "weight.nested_absmax"), f32_bytes(absmax.iter().copied())));
        tensors.push((named(weight, "weight.nested_quant_map"), f32_bytes(dynamic_map())));
    } else {
        tensors.push((named(weight, "weight.absmax"), f32_bytes(absmax)));
    }
    let state = state(weight, book, nested.as_ref()).into_bytes();
    tensors.push((named(weight, &state_name(book)), state));
    Ok(tensors)
}

fn int8(encoder: &Encoder) -> Result<Vec<(String, Vec<u8>)>> {
    let weight = encoder.weight();
    let (rows, columns) = (weight.rows(), weight.columns());
    let (mut codes, mut scales) = (vec![0u8; rows * columns], vec![StoredScale::default(); rows]);
    let band = (BAND_WEIGHTS / columns.max(1)).max(1);
    codes.par_chunks_mut(band * columns).zip(scales.par_chunks_mut(band)).enumerate().try_for_each(
        |(index, (codes, scales))| encoder.rows(index * band..index * band + scales.len(), codes, scales),
    )?;
    Ok(vec![
        (named(weight, "weight"), codes),
        (named(weight, "SCB"), f32_bytes(scales.iter().map(|stored| stored.scale))),
        // Rows, one after the other.
        (named(weight, "weight_format"), vec![0]),
    ])
}

/// `quantization_config`: transformers' BitsAndBytesConfig; `left` are modules inside layers that were not quantized.
pub(super) fn settings(quantizer: Quantizer, dtype: &str, left: &[&str]) -> Json {
    let (four_bits, book, double) = match quantizer.scheme {
        Scheme::Codebook { book, double_quantized } => (true, kind(book), double_quantized),
        // What the class holds where nobody set it.
        _ => (false, kind(Book::Fp4), false),
    };
    // Without a list the head is skipped; with one, only what it names.
    let skipped = match left {
        [] => None,
        left => Some(std::iter::once("lm_head").chain(left.iter().copied()).collect::<Vec<_>>()),
    };
    json!({
        "_load_in_4bit": four_bits,
        "_load_in_8bit": !four_bits,
        "bnb_4bit_compute_dtype": dtype,
        "bnb_4bit_quant_storage": "uint8",
        "bnb_4bit_quant_type": book,
        "bnb_4bit_use_double_quant": double,
        "llm_int8_enable_fp32_cpu_offload": false,
        "llm_int8_has_fp16_weight": false,
        "llm_int8_skip_modules": skipped,
        "llm_int8_threshold": 6.0,
        "load_in_4bit": four_bits,
        "load_in_8bit": !four_bits,
        "quant_method": "bitsandbytes",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_what_is_skipped_names_the_head_too() {
        let quantizer = Quantizer::parse("nf4").unwrap();
        assert_eq!(settings(quantizer, "bfloat16", &[])["llm_int8_skip_modules"], Json::Null);
        let settings = settings(quantizer, "bfloat16", &["model.layers.0.mlp.gate"]);
        assert_eq!(settings["llm_int8_skip_modules"], json!(["lm_head", "model.layers.0.mlp.gate"]));
    }
}
