//! The header of a safetensors file, and the index of a model that is split into several of them.
//!
//! Layout: u64 length of the header, the header as JSON (`name → {dtype, shape, data_offsets}`), then the
//! data, which the tensors must cover without hole or overlap to the last byte. The `safetensors` crate
//! defines and checks the entries; reading them here instead of by its `read_metadata` is what lets a message
//! name the tensor and the sizes, and keeps its unchecked sums away from hostile offsets. Never touches
//! tensor data.

use super::content::{self, Content, MAX_HEADER_BYTES, shown};
use crate::error::{Error, Result};
use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{Dtype, SafeTensorError};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Component, Path};

/// One tensor of the header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SafetensorsTensor {
    /// Name as stored: `model.layers.0.self_attn.q_proj.weight`.
    pub name: String,
    /// Row-major shape, `[out, in]` of a matrix.
    pub shape: Vec<usize>,
    /// Type of its elements.
    pub dtype: Dtype,
    /// Where in the file its bytes lie.
    pub bytes: Range<usize>,
}

/// Reads the header of `file`, the whole of a safetensors file; `path` is for messages.
///
/// Gives the tensors in the order of their bytes, and the free text of `__metadata__`.
///
/// # Errors
/// [`Error::File`] or [`Error::Tensor`] with what is wrong: another kind of file, a truncated one, a header
/// that is not JSON, an element type that is not known, offsets that contradict the shape, each other or the
/// file's length.
pub fn parse(path: &Path, file: &[u8]) -> Result<(Vec<SafetensorsTensor>, BTreeMap<String, String>)> {
    let (header, data_start) = split_header(path, file)?;
    let header: Header = serde_json::from_slice(header)
        .map_err(|error| Error::file(path, format!("its header cannot be read: {error}"), COPY_AGAIN))?;
    let mut tensors: Vec<(String, TensorInfo)> = header.tensors.into_iter().collect();
    tensors.sort_by_key(|(_, info)| info.data_offsets);
    for (name, info) in &tensors {
        check_size(info).map_err(|problem| Error::tensor(path, &shown(name), problem, COPY_AGAIN))?;
    }
    let checked = Metadata::new(None, tensors.clone()).map_err(|error| refusal(path, &error))?;
    check_length(path, data_start, checked.data_len(), file.len())?;
    let tensors = tensors
        .into_iter()
        .map(|(name, TensorInfo { dtype, shape, data_offsets: (start, end) })| {
            // Both sums are at most the file's length, which has just been checked.
            let bytes = data_start.saturating_add(start)..data_start.saturating_add(end);
            SafetensorsTensor { name, shape, dtype, bytes }
        })
        .collect();
    Ok((tensors, header.metadata))
}

/// Which file holds which tensor of a split model: `model.safetensors.index.json`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub struct ShardIndex {
    /// File name by tensor name; files lie in the index's own folder, or below it.
    pub weight_map: BTreeMap<String, String>,
}

/// Reads the index of a split model.
///
/// # Errors
/// [`Error::Io`] if it cannot be read, [`Error::File`] if it is not an index, [`Error::Key`] if a file name
/// is empty, absolute or leads out of the index's folder.
pub fn read_index(path: &Path) -> Result<ShardIndex> {
    let text = std::fs::read(path).map_err(Error::io(path, "read the shard index"))?;
    match content::sniff(&text) {
        Content::Json | Content::Unknown => {}
        other => return Err(other.refusal(path, "shard index")),
    }
    let index: ShardIndex = serde_json::from_slice(&text)
        .map_err(|error| Error::file(path, format!("this is not a shard index: {error}"), COPY_AGAIN))?;
    for (tensor, file) in &index.weight_map {
        if !stays_inside(file) {
            return Err(Error::key(
                path,
                &format!("weight_map.{}", shown(tensor)),
                format!("the file name `{}` leads out of the model's folder", shown(file)),
                "an index names files beside it; do not trust a model that does otherwise",
            ));
        }
    }
    Ok(index)
}

const COPY_AGAIN: &str = "copy or download the file again and compare its size or checksum with the original";

/// The JSON of the header and where the data begins, in bytes.
fn split_header<'a>(path: &Path, file: &'a [u8]) -> Result<(&'a [u8], usize)> {
    let damaged = |problem: String| Error::file(path, problem, COPY_AGAIN);
    match content::sniff(file) {
        Content::Safetensors | Content::Unknown => {}
        other => return Err(other.refusal(path, "safetensors")),
    }
    let Some((length, rest)) = file.split_first_chunk() else {
        return Err(damaged(format!("truncated: {} bytes do not hold even the header's length", file.len())));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER_BYTES as u64 {
        return Err(Content::Unknown.refusal(path, "safetensors"));
    }
    match usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length)) {
        Some((header, data)) => Ok((header, file.len() - data.len())),
        None => Err(damaged(format!(
            "truncated: the header says that it is {length} bytes long, the file has {}",
            file.len()
        ))),
    }
}

/// The header as JSON, before its entries are held against each other.
struct Header {
    metadata: BTreeMap<String, String>,
    tensors: BTreeMap<String, TensorInfo>,
}

impl<'de> Deserialize<'de> for Header {
    /// Entry by entry, so that an error names the tensor and a repeated name is noticed.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object of tensors by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut header = Header { metadata: BTreeMap::new(), tensors: BTreeMap::new() };
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        header.metadata = map.next_value()?;
                        continue;
                    }
                    let info = map
                        .next_value()
                        .map_err(|error| A::Error::custom(format!("tensor `{}`: {error}", shown(&name))))?;
                    if header.tensors.contains_key(&name) {
                        return Err(A::Error::custom(format!("tensor `{}` is there twice", shown(&name))));
                    }
                    header.tensors.insert(name, info);
                }
                Ok(header)
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// Holds the shape and element type of one tensor against its offsets.
fn check_size(info: &TensorInfo) -> Result<(), String> {
    let (start, end) = info.data_offsets;
    let bits = info.shape.iter().try_fold(info.dtype.bitsize(), |product, size| product.checked_mul(*size));
    let bits = bits.ok_or_else(|| format!("its shape {:?} is too large for any file", info.shape))?;
    let stated = end
        .checked_sub(start)
        .ok_or_else(|| format!("it ends at byte {end} before it begins, at {start}"))?;
    if stated.checked_mul(8) != Some(bits) {
        let (dtype, shape) = (info.dtype, &info.shape);
        return Err(format!(
            "{dtype} of shape {shape:?} is {bits} bits, its offsets {start}..{end} say {stated} bytes"
        ));
    }
    Ok(())
}

/// The crate's own verdict on the whole: each tensor begins where the one before it ends.
fn refusal(path: &Path, error: &SafeTensorError) -> Error {
    match error {
        SafeTensorError::InvalidOffset(name) => Error::tensor(
            path,
            &shown(name),
            "it does not begin where the tensor before it ends: there is a hole or an overlap",
            COPY_AGAIN,
        ),
        other => Error::file(path, format!("its header contradicts itself: {other}"), COPY_AGAIN),
    }
}

fn check_length(path: &Path, data_start: usize, stated: usize, file_bytes: usize) -> Result<()> {
    let held = file_bytes.saturating_sub(data_start);
    let problem = match stated.cmp(&held) {
        std::cmp::Ordering::Equal => return Ok(()),
        std::cmp::Ordering::Greater => "truncated",
        std::cmp::Ordering::Less => "too long",
    };
    Err(Error::file(
        path,
        format!("{problem}: the header says {stated} bytes of data, the file has {held}"),
        COPY_AGAIN,
    ))
}

/// Whether a file name of an index stays in the index's folder, on every operating system.
fn stays_inside(file: &str) -> bool {
    !file.is_empty()
        && !file.contains(['\\', ':', '\0'])
        && Path::new(file).components().all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A file with the given header and `data` bytes of zeros.
    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.resize(file.len() + data, 0);
        file
    }

    const TWO: &str = r#"{"__metadata__":{"format":"pt"},
        "b":{"dtype":"F32","shape":[2,3],"data_offsets":[4,28]},
        "a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}"#;

    fn message(file: &[u8]) -> String {
        let error = parse(Path::new("dir/m.safetensors"), file).unwrap_err();
        assert!(error.help().is_some_and(|help| !help.is_empty()), "no help: {error}");
        let message = error.to_string();
        assert!(message.starts_with("dir/m.safetensors: "), "{message}");
        message
    }

    #[test]
    fn tensors_come_in_the_order_of_their_bytes_with_absolute_ranges() {
        let (tensors, metadata) = parse(Path::new("m"), &file(TWO, 28)).unwrap();
        let start = 8 + TWO.len();
        let expected = [
            SafetensorsTensor {
                name: "a".into(),
                shape: vec![2],
                dtype: Dtype::BF16,
                bytes: start..start + 4,
            },
            SafetensorsTensor {
                name: "b".into(),
                shape: vec![2, 3],
                dtype: Dtype::F32,
                bytes: start + 4..start + 28,
            },
        ];
        assert_eq!(tensors, expected);
        assert_eq!(metadata, BTreeMap::from([("format".to_owned(), "pt".to_owned())]));
    }

    #[test]
    fn what_the_safetensors_crate_writes_is_read() {
        let values: Vec<u8> = (0..24).collect();
        let view =
            |shape: Vec<usize>| safetensors::tensor::TensorView::new(Dtype::F16, shape, &values).unwrap();
        let written =
            safetensors::serialize([("x", view(vec![3, 4])), ("scalars", view(vec![12]))], None).unwrap();
        let (tensors, metadata) = parse(Path::new("m"), &written).unwrap();
        assert_eq!(metadata, BTreeMap::new());
        assert_eq!(tensors.len(), 2);
        for tensor in tensors {
            assert_eq!(written[tensor.bytes], values);
        }
    }

    #[test]
    fn lengths_are_stated_when_they_do_not_fit() {
        assert!(
            message(&file(TWO, 27)).contains("truncated: the header says 28 bytes of data, the file has 27")
        );
        assert!(
            message(&file(TWO, 29)).contains("too long: the header says 28 bytes of data, the file has 29")
        );
        assert!(message(&file(TWO, 0)[..50]).contains("the file has 50"));
        assert!(message(&[9, 0, 0]).contains("truncated: 3 bytes"));
    }

    #[test]
    fn a_contradiction_names_the_tensor() {
        let cases = [
            (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#, "F32 of shape [2] is 64 bits"),
            (r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#, "a hole or an overlap"),
            (r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[8,4]}}"#, "ends at byte 4 before"),
            (r#"{"a":{"dtype":"U8","shape":[4294967296,4294967296,2],"data_offsets":[0,8]}}"#, "too large"),
            (r#"{"a":{"dtype":"Q8","shape":[1],"data_offsets":[0,1]}}"#, "unknown variant `Q8`"),
            (r#"{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}}"#, "invalid value"),
            (
                r#"{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},
                    "a":{"dtype":"I8","shape":[8],"data_offsets":[0,8]}}"#,
                "there twice",
            ),
        ];
        for (header, words) in cases {
            let message = message(&file(header, 8));
            assert!(message.contains("tensor `a`") && message.contains(words), "{message}");
        }
        assert!(message(&file("{\"a\": nonsense}", 0)).contains("its header cannot be read"));
        assert!(message(&file("[1, 2, 3]   ", 0)).contains("an object of tensors by name"));
    }

    /// Eight tensors whose sizes sum to 2^64 - 8: adding the header's length to that would overflow.
    #[test]
    fn sizes_near_the_end_of_the_address_space_do_not_overflow() {
        let size = u64::MAX / 8;
        let entries: Vec<String> = (0..8)
            .map(|i| {
                let (start, end) = (i * size, (i + 1) * size);
                format!(r#""t{i}":{{"dtype":"U8","shape":[{size}],"data_offsets":[{start},{end}]}}"#)
            })
            .collect();
        assert!(message(&file(&format!("{{{}}}", entries.join(",")), 8)).contains("truncated"));
    }

    #[test]
    fn other_files_are_refused_in_their_own_words() {
        assert!(message(b"").contains("empty"));
        assert!(message(b"GGUF\x03\0\0\0").contains("this is a GGUF file"));
        assert!(message(b"version https://git-lfs.github.com/spec/v1\n").contains("git-lfs pointer"));
        assert!(message(b"PK\x03\x04 and then a zip archive").contains("PyTorch"));
        assert!(message(b"<!DOCTYPE html><title>404</title>").contains("web page"));
        assert!(message(b"\xff\xff\xff\xff\xff\xff\xff\xff{}").contains("not a safetensors file"));
    }

    #[test]
    fn an_index_is_read_and_its_file_names_stay_in_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors.index.json");
        let index = |file: &str| {
            let text =
                serde_json::json!({"metadata": {"total_size": 1}, "weight_map": {"w": file}}).to_string();
            std::fs::write(&path, text).unwrap();
            read_index(&path)
        };
        let read = index("model-00001-of-00002.safetensors").unwrap();
        assert_eq!(read.weight_map["w"], "model-00001-of-00002.safetensors");
        assert!(index("part/model.safetensors").is_ok());
        for file in ["", "../x", "/etc/x", "a/../../x", "..", "C:\\x", "a\\..\\x", "./x\0"] {
            let error = index(file).unwrap_err();
            assert!(error.to_string().contains("weight_map.w"), "{file:?}: {error}");
        }
        std::fs::write(&path, "{\"weights\": 1}").unwrap();
        assert!(read_index(&path).unwrap_err().to_string().contains("weight_map"));
        std::fs::write(&path, "version https://git-lfs.github.com/spec/v1").unwrap();
        assert!(read_index(&path).unwrap_err().to_string().contains("git-lfs"));
        assert!(matches!(read_index(&folder.path().join("none")), Err(Error::Io { .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

        #[test]
        fn a_damaged_file_never_panics_and_never_points_outside(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            length in any::<prop::sample::Index>(),
        ) {
            let mut file = file(TWO, 28);
            for (at, byte) in &changes {
                let at = at.index(file.len());
                file[at] = *byte;
            }
            let length = length.index(2 * file.len()).min(file.len());
            if let Ok((tensors, _)) = parse(Path::new("m"), &file[..length]) {
                prop_assert!(tensors.iter().all(|tensor| file[..length].get(tensor.bytes.clone()).is_some()));
            }
        }
    }
}
