//! Models that are split into several GGUF files: which part a file is, where the others are, whether they fit.
//!
//! Names and keys as llama.cpp's `llama-gguf-split` writes them: `NAME-00001-of-00003.gguf`; `split.no`,
//! `split.count` and `split.tensors.count`.

use std::path::{Path, PathBuf};

use super::{Gguf, Metadata};
use crate::error::{Error, Result};

/// Which part of a model a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// Counted from 0.
    pub number: u64,
    /// Parts of the model.
    pub count: u64,
    /// Tensors of all parts together, if it is stated.
    pub tensors: Option<u64>,
}

/// More parts than any model has; five digits are all that the names hold.
const MAX_PARTS: u64 = 99_999;

impl Split {
    /// What the metadata says; `None` for a whole model.
    ///
    /// # Errors
    /// A part whose number is missing or not below the count.
    pub(super) fn of(path: &Path, metadata: &Metadata) -> Result<Option<Self>> {
        let Some(count) = metadata.get_u64("split.count").filter(|count| *count > 1) else { return Ok(None) };
        match metadata.get_u64("split.no") {
            Some(number) if number < count && count <= MAX_PARTS => {
                Ok(Some(Self { number, count, tensors: metadata.get_u64("split.tensors.count") }))
            }
            number => Err(Error::key(
                path,
                "split.no",
                format!("is {number:?} of {count} parts: there is no such part"),
                "split the model again with llama.cpp's llama-gguf-split",
            )),
        }
    }

    /// Whether a file is by its name the first of so many parts.
    pub fn is_first_of(path: &Path, count: usize) -> bool {
        path.to_string_lossy().ends_with(&format!("-00001-of-{count:05}.gguf"))
    }

    /// The paths of all parts, this one's being `path`.
    ///
    /// # Errors
    /// A file that was renamed, so that the others cannot be found; a part that is not there.
    pub fn parts(&self, path: &Path) -> Result<Vec<PathBuf>> {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let ending = |number: u64| format!("-{:05}-of-{:05}.gguf", number + 1, self.count);
        let Some(stem) = name.strip_suffix(&ending(self.number)) else {
            return Err(Error::file(
                path,
                format!(
                    "is part {} of {} and should be called NAME{}",
                    self.number + 1,
                    self.count,
                    ending(self.number)
                ),
                "give it the name that llama-gguf-split gave it, or join the parts with `llama-gguf-split --merge`",
            ));
        };
        let parts: Vec<PathBuf> =
            (0..self.count).map(|number| path.with_file_name(format!("{stem}{}", ending(number)))).collect();
        match parts.iter().find(|part| !part.is_file()) {
            Some(missing) => Err(Error::file(
                missing,
                format!("this part of the model is missing; {} is there", path.display()),
                "download all parts into one folder",
            )),
            None => Ok(parts),
        }
    }
}

/// Refuses parts that do not belong together.
///
/// # Errors
/// A part that states another number or count, or a total that differs from the parts' tensors.
pub fn check_parts(split: &Split, paths: &[PathBuf], parts: &[Gguf]) -> Result<()> {
    for (number, (path, part)) in paths.iter().zip(parts).enumerate() {
        let stated = part.split.map(|split| (split.number, split.count));
        if stated != Some((number as u64, split.count)) {
            return Err(Error::file(
                path,
                format!(
                    "its name says part {} of {}, its metadata {stated:?} (counted from 0)",
                    number + 1,
                    split.count
                ),
                "parts of different models were mixed: download them again",
            ));
        }
    }
    let found: u64 = parts.iter().map(|part| part.tensors.len() as u64).sum();
    match split.tensors {
        Some(stated) if stated != found => Err(Error::key(
            &paths[0],
            "split.tensors.count",
            format!("{stated} tensors are promised, the parts hold {found}"),
            "parts of different models were mixed: download them again",
        )),
        _ => Ok(()),
    }
}
