//! The bytes before the data of a GGUF file: metadata and where each tensor lies.
//!
//! Layout: see `checkpoint/gguf.rs`, which reads it.

use crate::checkpoint::{encoding::Encoding, gguf::Value};

/// What offsets are multiples of, in bytes: the default, which needs no key.
pub(super) const ALIGNMENT: u64 = 32;

/// A metadata value with the width that it is written in.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Item {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    I32s(Vec<i32>),
    F32s(Vec<f32>),
    /// As another file had it; widths that a reader does not distinguish are written as 32 bits where that is exact.
    Copied(Value),
}

/// Metadata in the order of the file.
pub(super) type Keys = Vec<(String, Item)>;

/// A tensor as the header lists it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    /// `[out, in]` of a matrix.
    pub(super) shape: Vec<usize>,
    pub(super) encoding: Encoding,
    /// Without what follows it to the next multiple of [`ALIGNMENT`].
    pub(super) bytes: u64,
}

/// Everything up to the first tensor's data.
pub(super) fn bytes(keys: &Keys, tensors: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(b"GGUF");
    put_u32(&mut out, 3);
    put_u64(&mut out, tensors.len() as u64);
    put_u64(&mut out, keys.len() as u64);
    for (key, item) in keys {
        put_text(&mut out, key);
        put_item(&mut out, item);
    }
    let mut offset = 0;
    for tensor in tensors {
        put_text(&mut out, &tensor.name);
        put_u32(&mut out, tensor.shape.len() as u32);
        for dimension in tensor.shape.iter().rev() {
            put_u64(&mut out, *dimension as u64);
        }
        put_u32(&mut out, tensor.encoding.ggml_type());
        put_u64(&mut out, offset);
        offset += tensor.bytes + padding(tensor.bytes);
    }
    out.resize(out.len() + padding(out.len() as u64) as usize, 0);
    out
}

/// Zero bytes from here to the next multiple of [`ALIGNMENT`].
pub(super) fn padding(bytes: u64) -> u64 {
    (ALIGNMENT - bytes % ALIGNMENT) % ALIGNMENT
}

fn put_u32(out: &mut Vec<u8>, number: u32) {
    out.extend(number.to_le_bytes());
}

fn put_u64(out: &mut Vec<u8>, number: u64) {
    out.extend(number.to_le_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_u64(out, text.len() as u64);
    out.extend(text.as_bytes());
}

/// Numbers of value types (`gguf_metadata_value_type` in gguf.h).
mod kind {
    pub(super) const U32: u32 = 4;
    pub(super) const I32: u32 = 5;
    pub(super) const F32: u32 = 6;
    pub(super) const BOOL: u32 = 7;
    pub(super) const TEXT: u32 = 8;
    pub(super) const ARRAY: u32 = 9;
    pub(super) const U64: u32 = 10;
    pub(super) const I64: u32 = 11;
    pub(super) const F64: u32 = 12;
}

fn put_item(out: &mut Vec<u8>, item: &Item) {
    match item {
        Item::U32(number) => put_scalar(out, kind::U32, number.to_le_bytes()),
        Item::F32(number) => put_scalar(out, kind::F32, number.to_le_bytes()),
        Item::Bool(truth) => put_scalar(out, kind::BOOL, [u8::from(*truth)]),
        Item::Text(text) => {
            put_u32(out, kind::TEXT);
            put_text(out, text);
        }
        Item::Texts(texts) => put_texts(out, texts),
        Item::I32s(numbers) => put_array(out, kind::I32, numbers, |number| number.to_le_bytes()),
        Item::F32s(numbers) => put_array(out, kind::F32, numbers, |number| number.to_le_bytes()),
        Item::Copied(value) => put_value(out, value),
    }
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Unsigned(number) => match u32::try_from(*number) {
            Ok(number) => put_scalar(out, kind::U32, number.to_le_bytes()),
            Err(_) => put_scalar(out, kind::U64, number.to_le_bytes()),
        },
        Value::Signed(number) => match i32::try_from(*number) {
            Ok(number) => put_scalar(out, kind::I32, number.to_le_bytes()),
            Err(_) => put_scalar(out, kind::I64, number.to_le_bytes()),
        },
        Value::Float(number) if f64::from(*number as f32) == *number => {
            put_scalar(out, kind::F32, (*number as f32).to_le_bytes());
        }
        Value::Float(number) => put_scalar(out, kind::F64, number.to_le_bytes()),
        Value::Bool(truth) => put_scalar(out, kind::BOOL, [u8::from(*truth)]),
        Value::String(text) => {
            put_u32(out, kind::TEXT);
            put_text(out, text);
        }
        Value::Strings(texts) => put_texts(out, texts),
        Value::Integers(numbers) => {
            let narrow: Result<Vec<i32>, _> = numbers.iter().map(|number| i32::try_from(*number)).collect();
            match narrow {
                Ok(numbers) => put_array(out, kind::I32, &numbers, |number| number.to_le_bytes()),
                Err(_) => put_array(out, kind::I64, numbers, |number| number.to_le_bytes()),
            }
        }
        Value::Floats(numbers) => put_array(out, kind::F32, numbers, |number| number.to_le_bytes()),
        Value::Bools(truths) => put_array(out, kind::BOOL, truths, |truth| [u8::from(*truth)]),
        Value::Nested(values) => {
            put_u32(out, kind::ARRAY);
            put_u32(out, kind::ARRAY);
            put_u64(out, values.len() as u64);
            for value in values {
                let mut inner = Vec::new();
                put_value(&mut inner, value);
                // Elements of an array of arrays do not repeat that they are arrays.
                out.extend(&inner[4..]);
            }
        }
    }
}

fn put_scalar<const N: usize>(out: &mut Vec<u8>, kind: u32, bytes: [u8; N]) {
    put_u32(out, kind);
    out.extend(bytes);
}

fn put_texts(out: &mut Vec<u8>, texts: &[String]) {
    put_u32(out, kind::ARRAY);
    put_u32(out, kind::TEXT);
    put_u64(out, texts.len() as u64);
    texts.iter().for_each(|text| put_text(out, text));
}

fn put_array<T, const N: usize>(out: &mut Vec<u8>, kind: u32, elements: &[T], bytes: impl Fn(&T) -> [u8; N]) {
    put_u32(out, kind::ARRAY);
    put_u32(out, kind);
    put_u64(out, elements.len() as u64);
    elements.iter().for_each(|element| out.extend(bytes(element)));
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::Path};

    use super::*;
    use crate::checkpoint::gguf::Gguf;

    #[test]
    fn the_reader_reads_what_is_written() {
        let nested = Value::Nested(vec![Value::Integers(vec![1, 2]), Value::Strings(vec!["x".to_owned()])]);
        let copied = [
            ("a", Value::Unsigned(7)),
            ("b", Value::Unsigned(u64::MAX)),
            ("c", Value::Signed(-1)),
            ("d", Value::Signed(i64::MIN)),
            ("e", Value::Float(0.5)),
            ("f", Value::Float(0.1)),
            ("g", Value::Bool(true)),
            ("h", Value::String("ä".to_owned())),
            ("i", Value::Strings(vec!["p".to_owned(), String::new()])),
            ("j", Value::Integers(vec![-1, 1 << 40])),
            ("k", Value::Floats(vec![1.5])),
            ("l", Value::Bools(vec![true, false])),
            ("m", nested),
        ];
        let keys: Keys =
            copied.iter().map(|(key, value)| ((*key).to_owned(), Item::Copied(value.clone()))).collect();
        let entry = |name: &str, shape: &[usize], encoding: Encoding| Entry {
            name: name.to_owned(),
            shape: shape.to_vec(),
            encoding,
            bytes: encoding.encoded_bytes(shape.iter().product()).unwrap() as u64,
        };
        let tensors = [entry("one", &[3], Encoding::F32), entry("two", &[2, 32], Encoding::Q4_0)];
        let mut file = bytes(&keys, &tensors);
        assert!((file.len() as u64).is_multiple_of(ALIGNMENT));
        file.extend([0; 32 + 36]);
        let read = Gguf::parse(Path::new("x.gguf"), &file).unwrap();
        let expected: BTreeMap<String, Value> =
            copied.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        assert_eq!(read.metadata.0, expected);
        assert_eq!(read.tensors[1].shape, [2, 32]);
        assert_eq!(read.tensors[1].ggml_type, Encoding::Q4_0.ggml_type());
        assert_eq!(read.tensors[1].bytes.clone().unwrap().len(), 36);
        assert_eq!(read.tensors[1].bytes.clone().unwrap().start as u64 - read.data_start, 32);
    }
}
