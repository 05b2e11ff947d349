//! Small checkpoints for the tests of packings: tensors and settings in, a matrix out.

use std::sync::Arc;

use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Value as Json, json};

use super::{Packed, Tensors, codes::BitLayout};
use crate::{
    checkpoint::{Checkpoint, activations::KvCacheQuantization},
    error::{Error, Result},
};

/// A checkpoint in the making.
#[derive(Clone, Default)]
pub(in crate::checkpoint) struct Fixture {
    tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)>,
    /// `config.json` and files beside it.
    files: Vec<(&'static str, Json)>,
}

/// An open one; its folder lives as long.
pub(in crate::checkpoint) struct Opened {
    checkpoint: Checkpoint,
    _folder: tempfile::TempDir,
}

impl Opened {
    /// Its tensors.
    pub(in crate::checkpoint) fn tensors(&self) -> Tensors<'_> {
        self.checkpoint.packed_tensors()
    }
}

impl Fixture {
    /// Adds a tensor, or puts it in the place of one of the same name.
    pub(in crate::checkpoint) fn tensor(
        mut self,
        name: &str,
        dtype: Dtype,
        shape: &[usize],
        bytes: impl Into<Vec<u8>>,
    ) -> Self {
        self = self.without(name);
        self.tensors.push((name.to_owned(), dtype, shape.to_vec(), bytes.into()));
        self
    }

    /// Adds a tensor of F32.
    pub(in crate::checkpoint) fn floats(self, name: &str, shape: &[usize], values: &[f32]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.tensor(name, Dtype::F32, shape, bytes)
    }

    /// Adds a tensor of I64 with one axis.
    pub(in crate::checkpoint) fn numbers(self, name: &str, values: &[i64]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.tensor(name, Dtype::I64, &[values.len()], bytes)
    }

    /// Leaves a tensor out.
    pub(in crate::checkpoint) fn without(mut self, name: &str) -> Self {
        self.tensors.retain(|(known, ..)| known != name);
        self
    }

    /// With this `quantization_config`.
    pub(in crate::checkpoint) fn settings(self, settings: Json) -> Self {
        self.file("config.json", json!({ "quantization_config": settings }))
    }

    /// With a JSON file beside the weights.
    pub(in crate::checkpoint) fn file(mut self, name: &'static str, json: Json) -> Self {
        self.files.retain(|(known, _)| *known != name);
        self.files.push((name, json));
        self
    }

    /// Writes and opens it.
    pub(in crate::checkpoint) fn open(&self) -> Opened {
        let folder = tempfile::tempdir().unwrap();
        let views = self.tensors.iter().map(|(name, dtype, shape, bytes)| {
            (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        let bytes = safetensors::serialize(views, None).unwrap();
        std::fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
        for (name, json) in &self.files {
            std::fs::write(folder.path().join(name), json.to_string()).unwrap();
        }
        Opened { checkpoint: Checkpoint::open(folder.path()).unwrap(), _folder: folder }
    }

    /// The matrix of a module that must be packed.
    pub(in crate::checkpoint) fn matrix(&self, module: &str) -> Result<Packed> {
        Ok(self.find(module)?.unwrap_or_else(|| panic!("{module} is not packed")))
    }

    /// The matrix of a module, if it is packed.
    pub(in crate::checkpoint) fn find(&self, module: &str) -> Result<Option<Packed>> {
        self.open().checkpoint.packed(module)
    }

    /// The declared KV cache.
    pub(in crate::checkpoint) fn kv_cache(&self, attention: &str) -> Result<Option<KvCacheQuantization>> {
        self.open().checkpoint.kv_cache(attention)
    }

    /// The error about a module, from opening or decoding, as a reader sees it.
    pub(in crate::checkpoint) fn refusal(&self, module: &str) -> String {
        let opened = self.open();
        let error = match opened.checkpoint.packed(module) {
            Err(error) => error,
            Ok(Some(packed)) => match try_decode(&packed) {
                Err(error) => error,
                Ok(_) => panic!("{module} was decoded"),
            },
            Ok(None) => panic!("{module} is not packed"),
        };
        assert!(error.help().is_some_and(|help| !help.is_empty()), "no help: {error}");
        without_path(&error)
    }
}

/// The message without the temporary folder.
fn without_path(error: &Error) -> String {
    let text = error.to_string();
    text.split_once(": ").map_or(text.clone(), |(_, rest)| rest.to_owned())
}

/// All rows at once.
pub(in crate::checkpoint) fn decode(packed: &Packed) -> Vec<f32> {
    try_decode(packed).unwrap()
}

/// All rows at once, and again row by row: both must agree.
fn try_decode(packed: &Packed) -> Result<Vec<f32>> {
    let [rows, columns] = packed.shape;
    let mut whole = vec![f32::NAN; rows * columns];
    packed.source.decode(0..rows, &mut whole)?;
    for (row, expected) in whole.chunks(columns).enumerate() {
        let mut single = vec![f32::NAN; columns];
        packed.source.decode(row..row + 1, &mut single)?;
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&single), bits(expected), "row {row} alone");
    }
    packed.source.release();
    Ok(whole)
}

/// The values at fewer bits.
pub(in crate::checkpoint) fn decode_sliced(packed: &Packed, bits: u32) -> Option<Vec<f32>> {
    let source = packed.source.sliced(bits)?;
    let sliced = Packed { source: Arc::clone(&source), ..clone_of(packed) };
    Some(decode(&sliced))
}

fn clone_of(packed: &Packed) -> Packed {
    Packed {
        shape: packed.shape,
        encoding: packed.encoding.clone(),
        source: Arc::clone(&packed.source),
        tensors: Vec::new(),
        input: None,
        output: None,
        warnings: Vec::new(),
    }
}

/// Rows of codes as words, bit by bit.
pub(in crate::checkpoint) fn pack(bits: u32, layout: BitLayout, columns: usize, codes: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for row in codes.chunks(columns) {
        let mut stream: Vec<bool> = Vec::new();
        for code in row {
            if layout == BitLayout::PerWord && stream.len() % 32 + bits as usize > 32 {
                stream.resize(stream.len().next_multiple_of(32), false);
            }
            stream.extend((0..bits).map(|bit| code >> bit & 1 == 1));
        }
        stream.resize(stream.len().next_multiple_of(32), false);
        bytes.extend(
            stream.chunks(8).map(|bits| bits.iter().rev().fold(0, |byte, bit| byte << 1 | u8::from(*bit))),
        );
    }
    bytes
}

/// Numbers that look like noise, the same in every run.
pub(in crate::checkpoint) fn noise(seed: u64) -> impl Iterator<Item = u8> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        // SplitMix64 (Steele, Lea and Flood 2014).
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ mixed >> 31) >> 56) as u8
    })
}
