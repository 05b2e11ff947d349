//! A file mapped into memory, read-only: the only unsafe code of the crate.
//!
//! Weights are decoded straight from the mapping, so a checkpoint costs no
//! anonymous memory; after a stage its pages are handed back to the system.

use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::error::{Error, Result};

/// A read-only mapping and the path it came from.
#[derive(Debug)]
pub struct MappedFile {
    path: PathBuf,
    map: Mmap,
}

impl MappedFile {
    /// Maps a regular, non-empty file.
    pub fn open(path: &Path) -> Result<Self> {
        Self::of(std::fs::File::open(path).map_err(Error::io(path, "open"))?, path)
    }

    /// Maps an open file; `path` is what messages call it.
    pub fn of(file: std::fs::File, path: &Path) -> Result<Self> {
        let metadata = file.metadata().map_err(Error::io(path, "inspect"))?;
        if !metadata.is_file() {
            return Err(Error::file(path, "is not a regular file", "give a checkpoint file or its folder"));
        }
        if metadata.len() == 0 {
            return Err(Error::file(path, "is empty", "download or write the file again"));
        }
        // SAFETY: the mapping is read-only and private. As with every memory-mapped reader, another
        // process that truncates the file during the run can stop this one; it cannot corrupt it.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io(path, "map"))?;
        Ok(Self { path: path.to_owned(), map })
    }

    /// The path as it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Tells the system that these bytes are not needed for now: clean pages of a
    /// read-only file mapping, which the next access reads again.
    pub fn release(&self, bytes: std::ops::Range<usize>) {
        #[cfg(unix)]
        if bytes.end <= self.map.len() && bytes.start < bytes.end {
            // SAFETY: dropping clean pages of a read-only, file-backed mapping changes no content.
            #[allow(unsafe_code)]
            let advised = unsafe {
                self.map.unchecked_advise_range(
                    memmap2::UncheckedAdvice::DontNeed,
                    bytes.start,
                    bytes.end - bytes.start,
                )
            };
            // Advice that the system declines costs memory, not correctness.
            if let Err(reason) = advised {
                tracing::debug!(path = %self.path.display(), %reason, "mapped pages stay resident");
            }
        }
        #[cfg(not(unix))]
        let _ = bytes;
    }
}
