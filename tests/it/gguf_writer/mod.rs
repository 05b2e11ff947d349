//! A GGUF writer of the tests' own: container and block formats here, llama.cpp's conversion in [`convert`].
//!
//! It shares no code and no table with the reader: what it writes is held against what llama.cpp's converter wrote.
//! Layout: ggml's published description of GGUF version 3.

mod convert;

use std::{collections::BTreeMap, path::Path};

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value as Json;

pub(crate) use self::convert::converted;

/// Where tensor data begin, and each tensor among them.
const ALIGNMENT: usize = 32;
/// Values in a block of Q8_0.
const BLOCK: usize = 32;

/// A metadata value, of the kinds that conversion writes.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    U32(u32),
    F32(f32),
    Bool(bool),
    String(String),
    I32s(Vec<i32>),
    Bools(Vec<bool>),
}

/// Values in row-major order, `[out, in]` as torch shows it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tensor {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

/// What a file holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) metadata: BTreeMap<String, Value>,
    pub(crate) tensors: BTreeMap<String, Tensor>,
}

impl Tensor {
    /// Everything below one index of the first dimension.
    fn row_length(&self) -> usize {
        self.shape[1..].iter().product()
    }

    fn shaped(self, shape: &[usize]) -> Tensor {
        assert_eq!(shape.iter().product::<usize>(), self.values.len(), "{:?} as {shape:?}", self.shape);
        Tensor { shape: shape.to_vec(), ..self }
    }

    /// These rows, in this order.
    fn rows(&self, which: impl IntoIterator<Item = usize>) -> Tensor {
        let length = self.row_length();
        let rows: Vec<&[f32]> =
            which.into_iter().map(|row| &self.values[row * length..(row + 1) * length]).collect();
        let shape = [&[rows.len()], &self.shape[1..]].concat();
        Tensor { shape, values: rows.concat() }
    }

    /// The last two dimensions exchanged.
    fn transposed(&self) -> Tensor {
        let [leading @ .., rows, columns] = self.shape.as_slice() else { panic!("{:?}", self.shape) };
        let matrices = self.values.chunks(rows * columns);
        let turned = matrices.flat_map(|matrix| {
            (0..*columns).flat_map(move |column| (0..*rows).map(move |row| matrix[row * columns + column]))
        });
        Tensor { shape: [leading, &[*columns, *rows]].concat(), values: turned.collect() }
    }

    fn map(mut self, each: impl Fn(f32) -> f32) -> Tensor {
        self.values.iter_mut().for_each(|value| *value = each(*value));
        self
    }
}

/// The tensors of a safetensors file, widened to f32.
pub(crate) fn widened(path: &Path) -> BTreeMap<String, Tensor> {
    let bytes = std::fs::read(path).expect("readable");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let tensor = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
        let data = view.data();
        let values = match view.dtype() {
            Dtype::F32 => data.as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect(),
            Dtype::BF16 => {
                data.as_chunks().0.iter().map(|half| bf16::from_le_bytes(*half).to_f32()).collect()
            }
            other => panic!("{name} of {other:?}"),
        };
        (name, Tensor { shape: view.shape().to_vec(), values })
    };
    file.tensors().into_iter().map(tensor).collect()
}

/// How a tensor is stored: llama.cpp's number of the type, and the bytes.
fn encoded(name: &str, tensor: &Tensor, quantized: bool) -> (u32, Vec<u8>) {
    const KEPT: &[&str] = &["norm.weight", "ffn_gate_inp.weight", "ffn_gate_inp_shexp.weight"];
    const KEPT_TOO: &[&str] = &["position_embd.weight", "ssm_conv1d.weight"];
    let whole = tensor.shape.len() == 1
        || !name.ends_with(".weight")
        || KEPT.iter().chain(KEPT_TOO).any(|ending| name.ends_with(ending));
    let row = tensor.shape.last().copied().unwrap_or(1);
    match (quantized && !whole, row.is_multiple_of(BLOCK)) {
        (false, _) => (0, tensor.values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        (true, false) => {
            (1, tensor.values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect())
        }
        (true, true) => (8, tensor.values.chunks(BLOCK).flat_map(q8_0).collect()),
    }
}

/// A scale, then a whole number for each value.
fn q8_0(values: &[f32]) -> Vec<u8> {
    let scale = values.iter().fold(0f32, |most, value| most.max(value.abs())) / 127.0;
    let steps = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let codes = values.iter().flat_map(|value| ((value * steps).round() as i8).to_le_bytes());
    f16::from_f32(scale).to_le_bytes().into_iter().chain(codes).collect()
}

impl Value {
    /// Number of the type, and the bytes.
    fn encoded(&self) -> (u32, Vec<u8>) {
        let list = |kind: u32, length: usize, elements: Vec<u8>| {
            (9, [&kind.to_le_bytes()[..], &(length as u64).to_le_bytes(), &elements].concat())
        };
        match self {
            Value::U32(number) => (4, number.to_le_bytes().to_vec()),
            Value::F32(number) => (6, number.to_le_bytes().to_vec()),
            Value::Bool(flag) => (7, vec![u8::from(*flag)]),
            Value::String(text) => (8, string(text)),
            Value::I32s(all) => {
                list(5, all.len(), all.iter().flat_map(|number| number.to_le_bytes()).collect())
            }
            Value::Bools(all) => list(7, all.len(), all.iter().map(|flag| u8::from(*flag)).collect()),
        }
    }
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

impl Model {
    /// The file's bytes; `quantized`: Q8_0 where llama.cpp would choose it, f16 where rows are too short, else all in f32.
    pub(crate) fn bytes(&self, quantized: bool) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(3u32.to_le_bytes());
        file.extend((self.tensors.len() as u64).to_le_bytes());
        file.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            let (kind, bytes) = value.encoded();
            file.extend(string(key));
            file.extend(kind.to_le_bytes());
            file.extend(bytes);
        }
        let mut data = Vec::new();
        for (name, tensor) in &self.tensors {
            let (kind, bytes) = encoded(name, tensor, quantized);
            file.extend(string(name));
            file.extend((tensor.shape.len() as u32).to_le_bytes());
            // The fastest dimension first.
            file.extend(tensor.shape.iter().rev().flat_map(|size| (*size as u64).to_le_bytes()));
            file.extend(kind.to_le_bytes());
            file.extend((data.len() as u64).to_le_bytes());
            data.extend(bytes);
            data.resize(data.len().next_multiple_of(ALIGNMENT), 0);
        }
        file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
        file.extend(data);
        file
    }
}

/// Settings of a Hugging Face folder, by JSON pointers of which the first that is there counts.
struct Config(Json);

impl Config {
    fn read(folder: &Path) -> Config {
        let text = std::fs::read_to_string(folder.join("config.json")).expect("readable");
        Config(serde_json::from_str(&text).expect("JSON"))
    }

    fn get(&self, pointers: &[&str]) -> Option<&Json> {
        pointers.iter().filter_map(|pointer| self.0.pointer(pointer)).find(|value| !value.is_null())
    }

    fn count(&self, pointers: &[&str]) -> Option<usize> {
        self.get(pointers).map(|value| value.as_u64().expect("a count") as usize)
    }

    fn real(&self, pointers: &[&str]) -> Option<f32> {
        self.get(pointers).map(|value| value.as_f64().expect("a number") as f32)
    }

    /// A count that must be there.
    fn size(&self, pointer: &str) -> usize {
        self.count(&[pointer]).unwrap_or_else(|| panic!("{pointer} is missing"))
    }

    /// Width of a head.
    fn head_dim(&self) -> usize {
        let derived = || self.size("/hidden_size") / self.size("/num_attention_heads");
        self.count(&["/head_dim"]).unwrap_or_else(derived)
    }
}
