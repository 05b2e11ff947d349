//! The header of a GGUF file: metadata and where each tensor's bytes lie. Never touches tensor data.
//!
//! Layout (little-endian): `GGUF`, u32 version, u64 tensor count, u64 metadata count; metadata as (string
//! key, u32 type, value); tensors as (string name, u32 rank, u64 dimensions, innermost first, u32 type, u64
//! offset); then, from the next multiple of `general.alignment`, the data. Source: docs/gguf.md of the ggml
//! repository.
//!
//! Every number in the file is taken for hostile: a count is compared with the bytes that are left before
//! anything is allocated, and a header may not be longer than 100 MB, of which memory is never more than
//! about eightfold. Knows nothing of architectures, nor which types can be decoded.

mod split;
mod values;

pub use split::{Split, check_parts};
pub use values::{Metadata, Value};

use super::content::{self, Content, shown};
use super::encoding::{ggml_type_block, ggml_type_name};
use super::mapped::MappedFile;
use crate::error::{Error, Result};
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::path::Path;
use values::Reader;

/// One tensor of the header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GgufTensor {
    /// Name as stored: `blk.0.attn_q.weight`.
    pub name: String,
    /// Row-major shape, `[out, in]` of a matrix: the file's dimensions reversed.
    pub shape: Vec<usize>,
    /// The `ggml_type` number, see [`ggml_type_name`].
    pub ggml_type: u32,
    /// Where in the file its bytes lie; `None` if the block size of its type is not known.
    pub bytes: Option<Range<usize>>,
}

/// The header of one GGUF file.
#[derive(Clone, Debug, PartialEq)]
pub struct Gguf {
    /// Format version: 2 or 3, which read alike.
    pub version: u32,
    /// Metadata by key.
    pub metadata: Metadata,
    /// Tensors in the order of the file.
    pub tensors: Vec<GgufTensor>,
    /// What offsets are multiples of, in bytes.
    pub alignment: u64,
    /// Where the data section begins, in bytes; past the end of a file without tensors if it was not padded.
    pub data_start: u64,
    /// Which part of a split model this is; `None` of a whole one.
    pub split: Option<Split>,
}

/// Alignment of a file that does not state one.
const DEFAULT_ALIGNMENT: u64 = 32;
/// Fewest bytes that one metadata pair takes: an empty key, a type and a one-byte value.
const SMALLEST_PAIR_BYTES: u64 = 8 + 4 + 1;
/// Fewest bytes that one tensor takes: an empty name, rank 0, a type and an offset.
const SMALLEST_TENSOR_BYTES: u64 = 8 + 4 + 4 + 8;
/// Most dimensions of a tensor (`GGML_MAX_DIMS`).
const MAX_RANK: u32 = 4;

const COPY_AGAIN: &str = "copy or download the file again and compare its size or checksum with the original";

impl Gguf {
    /// Reads the header of `file`, the whole of a GGUF file; `path` is for messages.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Key`] or [`Error::Tensor`] with what is wrong: not a GGUF file, a version or
    /// byte order that is not read, or a header that contradicts itself or the file's
    /// length.
    pub fn parse(path: &Path, file: &[u8]) -> Result<Gguf> {
        let mut reader = Reader::new(file);
        let version = read_version(path, &mut reader)?;
        let (tensor_count, pair_count) = read_counts(path, &mut reader)?;
        let metadata = read_metadata(path, &mut reader, pair_count)?;
        let split = Split::of(path, &metadata)?;
        let alignment = read_alignment(path, &metadata)?;
        let infos = read_tensors(path, &mut reader, tensor_count)?;
        let data_start = (reader.position() as u64)
            .checked_next_multiple_of(alignment)
            .ok_or_else(|| Error::key(path, "general.alignment", "is too large", COPY_AGAIN))?;
        let tensors = infos
            .into_iter()
            .map(|info| info.place(path, file.len(), alignment, data_start))
            .collect::<Result<Vec<_>>>()?;
        refuse_overlaps(path, &tensors)?;
        Ok(Gguf { version, metadata, tensors, alignment, data_start, split })
    }

    /// Maps the file at `path` and reads its header.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be mapped, else as [`Gguf::parse`].
    pub fn open(path: &Path) -> Result<Gguf> {
        Gguf::parse(path, MappedFile::open(path)?.bytes())
    }
}

/// A tensor type as it is shown: llama.cpp's name, or its number if that is not known.
pub fn type_label(ggml_type: u32) -> String {
    ggml_type_name(ggml_type).map_or_else(|| format!("ggml type {ggml_type}"), str::to_owned)
}

fn read_version(path: &Path, reader: &mut Reader) -> Result<u32> {
    match content::sniff(reader.file()) {
        Content::Gguf => {}
        other => return Err(other.refusal(path, "GGUF")),
    }
    let (_magic, version) = (reader.u32(), reader.u32());
    match version.map_err(|problem| Error::file(path, problem, COPY_AGAIN))? {
        version @ (2 | 3) => Ok(version),
        1 => Err(Error::file(
            path,
            "GGUF version 1 is not read: its counts are 32 bits wide",
            "convert the model again with a current llama.cpp; version 1 was in use for a few days of 2023",
        )),
        // Any version that is small in the other byte order.
        version if version & 0xFFFF == 0 && version != 0 => Err(Error::file(
            path,
            format!("this GGUF file is big-endian (its version reads as {version:#010x})"),
            "convert it to little-endian with llama.cpp's gguf-py/gguf/scripts/gguf_convert_endian.py",
        )),
        version => Err(Error::file(
            path,
            format!("GGUF version {version} is not known; 2 and 3 are"),
            "convert the model again with a current llama.cpp, or look for a newer qeval",
        )),
    }
}

fn read_counts(path: &Path, reader: &mut Reader) -> Result<(u64, u64)> {
    let damaged = |problem: String| Error::file(path, problem, COPY_AGAIN);
    let tensors = reader.u64().map_err(damaged)?;
    let pairs = reader.u64().map_err(damaged)?;
    let needed = u128::from(tensors) * u128::from(SMALLEST_TENSOR_BYTES)
        + u128::from(pairs) * u128::from(SMALLEST_PAIR_BYTES);
    if needed > reader.left() as u128 {
        return Err(damaged(format!(
            "truncated or corrupt: the header promises {tensors} tensors and {pairs} metadata pairs, \
             which the {} bytes after it cannot hold",
            reader.left()
        )));
    }
    Ok((tensors, pairs))
}

fn read_metadata(path: &Path, reader: &mut Reader, count: u64) -> Result<Metadata> {
    let mut metadata = BTreeMap::new();
    for index in 0..count {
        let key = reader.string().map_err(|problem| {
            Error::file(path, format!("key {index} of {count} of the metadata: {problem}"), COPY_AGAIN)
        })?;
        let damaged = |problem: String| Error::key(path, &shown(key), problem, COPY_AGAIN);
        let value = reader.value().map_err(damaged)?;
        if metadata.insert(key.to_owned(), value).is_some() {
            return Err(damaged("the metadata has this key twice".to_owned()));
        }
    }
    Ok(Metadata(metadata))
}

fn read_alignment(path: &Path, metadata: &Metadata) -> Result<u64> {
    const KEY: &str = "general.alignment";
    if !metadata.0.contains_key(KEY) {
        return Ok(DEFAULT_ALIGNMENT);
    }
    metadata
        .get_u64(KEY)
        .filter(|alignment| alignment.is_power_of_two())
        .ok_or_else(|| Error::key(path, KEY, "the alignment must be a power of two", COPY_AGAIN))
}

/// A tensor as the header states it, not yet held against the file.
struct TensorInfo {
    name: String,
    /// Innermost first, as stored.
    dimensions: Vec<u64>,
    ggml_type: u32,
    /// From the start of the data section, in bytes.
    offset: u64,
}

fn read_tensors(path: &Path, reader: &mut Reader, count: u64) -> Result<Vec<TensorInfo>> {
    let mut infos = Vec::new();
    let mut names = HashSet::new();
    for index in 0..count {
        let name = reader.string().map_err(|problem| {
            Error::file(path, format!("name of tensor {index} of {count}: {problem}"), COPY_AGAIN)
        })?;
        let damaged = |problem: String| Error::tensor(path, &shown(name), problem, COPY_AGAIN);
        if !names.insert(name) {
            return Err(damaged("the header names this tensor twice".to_owned()));
        }
        infos.push(read_tensor(name, reader).map_err(damaged)?);
    }
    Ok(infos)
}

fn read_tensor(name: &str, reader: &mut Reader) -> Result<TensorInfo, String> {
    let rank = reader.u32()?;
    if rank > MAX_RANK {
        return Err(format!("it has {rank} dimensions; at most {MAX_RANK} are possible"));
    }
    let dimensions = (0..rank).map(|_| reader.u64()).collect::<Result<Vec<_>, _>>()?;
    let (ggml_type, offset) = (reader.u32()?, reader.u64()?);
    Ok(TensorInfo { name: name.to_owned(), dimensions, ggml_type, offset })
}

impl TensorInfo {
    /// Holds the stated shape, type and offset against each other and the file.
    fn place(self, path: &Path, file_bytes: usize, alignment: u64, data_start: u64) -> Result<GgufTensor> {
        let damaged = |problem: String| Error::tensor(path, &shown(&self.name), problem, COPY_AGAIN);
        let overflow = || damaged(format!("its shape {:?} is too large for any file", self.dimensions));
        let mut shape = Vec::with_capacity(self.dimensions.len());
        for dimension in self.dimensions.iter().rev() {
            shape.push(usize::try_from(*dimension).map_err(|_| overflow())?);
        }
        let weights =
            shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size)).ok_or_else(overflow)?;
        if !self.offset.is_multiple_of(alignment) {
            return Err(damaged(format!("its offset {} is not a multiple of {alignment}", self.offset)));
        }
        let start = data_start
            .checked_add(self.offset)
            .and_then(|start| usize::try_from(start).ok())
            .ok_or_else(|| damaged(format!("its offset {} is beyond any file", self.offset)))?;
        let bytes = match ggml_type_block(self.ggml_type) {
            None => None,
            Some((block_weights, block_bytes)) => {
                let row = shape.last().copied().unwrap_or(1);
                if !row.is_multiple_of(block_weights) {
                    let label = type_label(self.ggml_type);
                    return Err(damaged(format!(
                        "a row of {row} weights is not a whole number of {label} blocks of {block_weights}"
                    )));
                }
                let length = (weights / block_weights).checked_mul(block_bytes).ok_or_else(overflow)?;
                Some(start..start.checked_add(length).ok_or_else(overflow)?)
            }
        };
        let end = bytes.as_ref().map_or(start, |bytes| bytes.end);
        if end > file_bytes {
            return Err(damaged(format!(
                "truncated: it needs bytes {start}..{end}, the file has {file_bytes}"
            )));
        }
        Ok(GgufTensor { name: self.name, shape, ggml_type: self.ggml_type, bytes })
    }
}

/// Two tensors that share bytes mean that one of the offsets is wrong.
fn refuse_overlaps(path: &Path, tensors: &[GgufTensor]) -> Result<()> {
    let mut placed: Vec<(&Range<usize>, &str)> = tensors
        .iter()
        .filter_map(|tensor| tensor.bytes.as_ref().map(|bytes| (bytes, tensor.name.as_str())))
        .filter(|(bytes, _)| !bytes.is_empty())
        .collect();
    placed.sort_by_key(|(bytes, _)| bytes.start);
    match placed.iter().zip(placed.iter().skip(1)).find(|(left, right)| right.0.start < left.0.end) {
        None => Ok(()),
        Some(((left, left_name), (right, right_name))) => Err(Error::tensor(
            path,
            &shown(right_name),
            format!("its bytes {right:?} overlap bytes {left:?} of tensor `{}`", shown(left_name)),
            COPY_AGAIN,
        )),
    }
}

#[cfg(test)]
mod tests;
