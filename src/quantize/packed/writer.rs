//! A safetensors file written tensor by tensor: header first, then each tensor's bytes at their place.
//!
//! Tensors lie in the order in which the `safetensors` crate writes them (wider element types first, then by name), so
//! that every tensor is aligned and files compare byte by byte with those of other tools.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use safetensors::{
    Dtype,
    tensor::{Metadata, TensorInfo},
};

use crate::error::{Error, Result};

/// A tensor of the file to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
}

impl Part {
    pub(super) fn new(name: String, dtype: Dtype, shape: impl Into<Vec<usize>>) -> Self {
        Self { name, dtype, shape: shape.into() }
    }

    /// Bytes; `None` beyond what a file can hold.
    pub(super) fn bytes(&self) -> Option<usize> {
        let bits = self.shape.iter().try_fold(self.dtype.bitsize(), |bits, size| bits.checked_mul(*size))?;
        bits.is_multiple_of(8).then_some(bits / 8)
    }
}

/// A file in the making.
#[derive(Debug)]
pub(super) struct TensorFile {
    path: PathBuf,
    file: File,
    /// Offset in the file and length of each tensor not yet written.
    missing: BTreeMap<String, (u64, usize)>,
    data_start: u64,
    bytes: u64,
    written: u64,
}

/// The header's length stands before it.
const LENGTH_BYTES: usize = 8;

const BUG: &str = "report this as a bug of qeval";

impl TensorFile {
    /// Creates the file at its final length and writes the header.
    ///
    /// # Errors
    /// The operating system's; parts that are no tensors of one file.
    pub(super) fn create(path: &Path, mut parts: Vec<Part>) -> Result<Self> {
        let broken = |problem: String| Error::file(path, problem, BUG);
        parts.sort_by(|a, b| (Reverse(a.dtype), &a.name).cmp(&(Reverse(b.dtype), &b.name)));
        let (mut end, mut infos, mut places) = (0usize, Vec::new(), Vec::new());
        for part in parts {
            let bytes = part.bytes();
            let Part { name, dtype, shape } = part;
            let (Some(bytes), start) = (bytes, end) else {
                return Err(broken(format!("`{name}` of shape {shape:?} cannot be a tensor")));
            };
            end = start
                .checked_add(bytes)
                .ok_or_else(|| broken("would be larger than any file can be".to_owned()))?;
            infos.push((name.clone(), TensorInfo { dtype, shape, data_offsets: (start, end) }));
            places.push((name, start, bytes));
        }
        // As PyTorch's writers mark their files; some readers ask for it.
        let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let header = Metadata::new(Some(format), infos)
            .map_err(|reason| reason.to_string())
            .and_then(|header| serde_json::to_vec(&header).map_err(|reason| reason.to_string()));
        let mut header = header.map_err(|reason| broken(format!("has no header: {reason}")))?;
        header.resize(header.len().next_multiple_of(LENGTH_BYTES), b' ');
        let data_start = (LENGTH_BYTES + header.len()) as u64;
        let bytes = data_start + end as u64;

        let mut file = File::create_new(path).map_err(Error::io(path, "create"))?;
        file.set_len(bytes).map_err(Error::io(path, "make room for the tensors"))?;
        file.write_all(&(header.len() as u64).to_le_bytes())
            .and_then(|()| file.write_all(&header))
            .map_err(Error::io(path, "write the header"))?;
        let missing: BTreeMap<_, _> = places
            .into_iter()
            .map(|(name, start, bytes)| (name, (data_start + start as u64, bytes)))
            .collect();
        Ok(Self { path: path.to_owned(), file, missing, data_start, bytes, written: 0 })
    }

    /// Writes a tensor, once.
    ///
    /// # Errors
    /// The operating system's; bytes that are not those of the header.
    pub(super) fn write(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let place = self.missing.remove(name).filter(|(_, length)| *length == bytes.len());
        let Some((start, _)) = place else {
            let problem = format!("{} bytes are not what the header announced", bytes.len());
            return Err(Error::tensor(&self.path, name, problem, BUG));
        };
        self.file
            .seek(SeekFrom::Start(start))
            .and_then(|_| self.file.write_all(bytes))
            .map_err(Error::io(&self.path, "write"))?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Bytes of the tensors written so far.
    pub(super) fn written_bytes(&self) -> u64 {
        self.written
    }

    /// Bytes of all tensors, without the header.
    pub(super) fn data_bytes(&self) -> u64 {
        self.bytes - self.data_start
    }

    /// Hands all to the disk; the file's length in bytes.
    ///
    /// # Errors
    /// The operating system's; a tensor that was announced and never written.
    pub(super) fn finish(self) -> Result<u64> {
        if let Some(name) = self.missing.keys().next() {
            return Err(Error::tensor(&self.path, name, "was never written", BUG));
        }
        self.file.sync_all().map_err(Error::io(&self.path, "write"))?;
        Ok(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> Vec<Part> {
        let part = |name: &str, dtype, shape: &[usize]| Part::new(name.to_owned(), dtype, shape);
        vec![
            part("b.codes", Dtype::U8, &[3]),
            part("b.scales", Dtype::F32, &[1, 2]),
            part("a.codes", Dtype::U8, &[1]),
            part("a.shape", Dtype::I64, &[1]),
        ]
    }

    #[test]
    fn the_file_is_the_one_that_the_safetensors_crate_writes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.safetensors");
        let mut file = TensorFile::create(&path, parts()).unwrap();
        let bytes: Vec<Vec<u8>> =
            parts().iter().zip(1..).map(|(part, value)| vec![value; part.bytes().unwrap()]).collect();
        for (part, bytes) in parts().iter().zip(&bytes).rev() {
            file.write(&part.name, bytes).unwrap();
        }
        let length = file.finish().unwrap();
        let parts = parts();
        let views = parts.iter().zip(&bytes).map(|(part, bytes)| {
            let view = safetensors::tensor::TensorView::new(part.dtype, part.shape.clone(), bytes).unwrap();
            (part.name.as_str(), view)
        });
        let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let expected = safetensors::serialize(views, Some(format)).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), expected);
        assert_eq!(length, expected.len() as u64);
    }

    #[test]
    fn what_was_not_announced_or_not_written_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.safetensors");
        let mut file = TensorFile::create(&path, parts()).unwrap();
        for (name, bytes) in [("c", 1), ("b.codes", 4)] {
            let error = file.write(name, &vec![0; bytes]).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("announced"), "{error}");
        }
        assert!(file.finish().unwrap_err().to_string().contains("never written"));
        let huge = Part::new("huge".to_owned(), Dtype::F32, [usize::MAX, 2]);
        assert!(TensorFile::create(&folder.path().join("n"), vec![huge]).is_err());
        // An existing file is never written over.
        assert!(matches!(TensorFile::create(&path, parts()), Err(Error::Io { .. })));
    }
}
