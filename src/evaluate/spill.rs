//! Records appended to an unlinked scratch file and mapped back when complete.
//!
//! A run keeps one record per scored token and cousin; kept in anonymous memory
//! they would grow with the text. The file vanishes with the process.

use std::{
    fs::File,
    io::{BufWriter, Write},
    marker::PhantomData,
    path::{Path, PathBuf},
};

use bytemuck::Pod;

use crate::{
    checkpoint::MappedFile,
    error::{Error, Result},
};

/// Records being written.
#[derive(Debug)]
pub struct Spill<T> {
    writer: BufWriter<File>,
    folder: PathBuf,
    count: usize,
    records: PhantomData<T>,
}

/// Records that are complete.
#[derive(Debug)]
pub struct Records<T> {
    file: Option<MappedFile>,
    records: PhantomData<T>,
}

impl<T: Pod> Spill<T> {
    /// Creates the scratch file in `folder`.
    pub fn create(folder: &Path) -> Result<Self> {
        let file = tempfile::tempfile_in(folder).map_err(Error::io(folder, "create a scratch file in"))?;
        Ok(Self { writer: BufWriter::new(file), folder: folder.to_owned(), count: 0, records: PhantomData })
    }

    /// Appends one record.
    pub fn push(&mut self, record: &T) -> Result<()> {
        self.count += 1;
        self.writer
            .write_all(bytemuck::bytes_of(record))
            .map_err(Error::io(&self.folder, "write scratch records in"))
    }

    /// Maps what was written.
    pub fn finish(self) -> Result<Records<T>> {
        let folder = self.folder;
        let file = self
            .writer
            .into_inner()
            .map_err(|reason| Error::io(&folder, "write scratch records in")(reason.into_error()))?;
        let file = if self.count == 0 { None } else { Some(MappedFile::of(file, &folder)?) };
        Ok(Records { file, records: PhantomData })
    }
}

impl<T: Pod> Records<T> {
    /// All records in the order written.
    pub fn as_slice(&self) -> &[T] {
        self.file.as_ref().map_or(&[], |file| bytemuck::cast_slice(file.bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_in_order() -> Result<()> {
        let folder = std::env::temp_dir();
        let mut spill = Spill::<[f64; 2]>::create(&folder)?;
        for i in 0..10_000 {
            spill.push(&[f64::from(i), -f64::from(i)])?;
        }
        let records = spill.finish()?;
        assert_eq!(records.as_slice().len(), 10_000);
        assert!(records.as_slice().iter().enumerate().all(|(i, r)| *r == [i as f64, -(i as f64)]));
        assert!(Spill::<u32>::create(&folder)?.finish()?.as_slice().is_empty());
        Ok(())
    }
}
