//! The pages of a Parquet file, looked at before they are decoded: how many values each says it has.
//!
//! The decoder believes that number and reserves memory for it; a wrong one ends the program, which no caller
//! can catch. Only page headers are read: Thrift's compact protocol, as far as `PageHeader` of the Parquet
//! format (`parquet.thrift`) needs it. Knows nothing of records.

use std::io::{self, BufReader, Error, ErrorKind, Read, Seek, SeekFrom};
use std::ops::Range;

/// Most values of one column in one row group.
const MOST_VALUES: i64 = 100_000_000;

/// Deepest nesting of what is skipped.
const DEEPEST: usize = 8;

// Types of the compact protocol.
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const BYTE: u8 = 3;
const I16: u8 = 4;
const I32: u8 = 5;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const STRUCT: u8 = 12;

// Fields of PageHeader and of its two kinds of data page.
const COMPRESSED_PAGE_SIZE: i64 = 3;
const DATA_PAGE: i64 = 5;
const DATA_PAGE_V2: i64 = 8;
const NUM_VALUES: i64 = 1;

/// Checks the pages of the columns that lie in `ranges` of `file`.
///
/// # Errors
/// A range that is not in the file, a header that cannot be read, or a number of values that is negative or
/// above 100 million.
pub(super) fn check(file: impl Read + Seek, ranges: impl Iterator<Item = Range<u64>>) -> io::Result<()> {
    let mut file = BufReader::new(file);
    let size = file.seek(SeekFrom::End(0))?;
    for range in ranges {
        if range.start > range.end || range.end > size {
            return Err(wrong("a column lies outside of the file"));
        }
        let mut at = file.seek(SeekFrom::Start(range.start))?;
        let mut values = 0i64;
        while at < range.end {
            let page = Compact(&mut file).page()?;
            values = values.saturating_add(page.values);
            if page.values < 0 || values > MOST_VALUES {
                return Err(wrong("a page says that it has an impossible number of values"));
            }
            at = file.seek(SeekFrom::Current(page.compressed_size))?;
        }
    }
    Ok(())
}

fn wrong(problem: &str) -> Error {
    Error::new(ErrorKind::InvalidData, problem)
}

/// What matters of a page's header.
#[derive(Debug, Default, PartialEq)]
struct Page {
    compressed_size: i64,
    values: i64,
}

/// Thrift's compact protocol.
struct Compact<R>(R);

impl<R: Read> Compact<R> {
    fn page(&mut self) -> io::Result<Page> {
        let mut page = Page::default();
        let mut id = 0;
        while let Some(kind) = self.field(&mut id)? {
            match (id, kind) {
                (COMPRESSED_PAGE_SIZE, I32) => page.compressed_size = self.integer()?,
                (DATA_PAGE | DATA_PAGE_V2, STRUCT) => {
                    let mut inner = 0;
                    while let Some(kind) = self.field(&mut inner)? {
                        match (inner, kind) {
                            (NUM_VALUES, I32) => page.values = self.integer()?,
                            _ => self.skip(kind, DEEPEST)?,
                        }
                    }
                }
                _ => self.skip(kind, DEEPEST)?,
            }
        }
        match page.compressed_size {
            ..0 => Err(wrong("a page says that it has a negative size")),
            _ => Ok(page),
        }
    }

    /// The type of the next field, whose number becomes `id`; `None` at the end of the struct.
    fn field(&mut self, id: &mut i64) -> io::Result<Option<u8>> {
        let head = self.byte()?;
        if head == 0 {
            return Ok(None);
        }
        *id = match head >> 4 {
            0 => self.integer()?,
            delta => id.saturating_add(i64::from(delta)),
        };
        Ok(Some(head & 15))
    }

    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.0.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    fn unsigned(&mut self) -> io::Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 127) << shift;
            if byte < 128 {
                return Ok(value);
            }
        }
        Err(wrong("a number in a page's header has no end"))
    }

    /// A signed number, which is stored so that small ones of either sign are short.
    fn integer(&mut self) -> io::Result<i64> {
        let value = self.unsigned()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn skip(&mut self, kind: u8, depth: usize) -> io::Result<()> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(wrong("a page's header is nested too deeply"));
        };
        match kind {
            TRUE | FALSE => Ok(()),
            BYTE => self.byte().map(drop),
            I16 | I32 | I64 => self.unsigned().map(drop),
            DOUBLE => self.pass(8),
            BINARY => {
                let length = self.unsigned()?;
                self.pass(length)
            }
            LIST | SET => {
                let head = self.byte()?;
                let length = match head >> 4 {
                    15 => self.unsigned()?,
                    short => u64::from(short),
                };
                for _ in 0..length {
                    // Truth values in a list, other than in a field, are bytes.
                    let item = if matches!(head & 15, TRUE | FALSE) { BYTE } else { head & 15 };
                    self.skip(item, depth)?;
                }
                Ok(())
            }
            STRUCT => {
                let mut id = 0;
                while let Some(kind) = self.field(&mut id)? {
                    self.skip(kind, depth)?;
                }
                Ok(())
            }
            _ => Err(wrong("a page's header holds what no header has")),
        }
    }

    fn pass(&mut self, length: u64) -> io::Result<()> {
        let passed = io::copy(&mut self.0.by_ref().take(length), &mut io::sink())?;
        if passed == length { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// A header by hand, from the specification of the compact protocol: type DATA_PAGE, sizes 300 and −n or
    /// n, a data page header with `values`, PLAIN, RLE, RLE and statistics.
    fn header(compressed: u8, values: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x15, 0x00, 0x15, 0xd8, 0x04, 0x15, compressed, 0x2c, 0x15];
        bytes.extend(values);
        bytes.extend([0x15, 0x00, 0x15, 0x06, 0x15, 0x06]);
        // Statistics: two texts, a count, a list of two structs, true.
        bytes.extend([
            0x1c, 0x18, 0x02, b'a', b'b', 0x18, 0x00, 0x16, 0x07, 0x19, 0x2c, 0x00, 0x00, 0x11, 0x00,
        ]);
        bytes.extend([0x00, 0x00]);
        bytes
    }

    #[test]
    fn a_header_by_hand() {
        let page = Compact(&header(10, &[0xac, 0x02])[..]).page().unwrap();
        assert_eq!(page, Page { compressed_size: 5, values: 150 });
    }

    #[test]
    fn pages_are_walked_to_the_end_of_the_column() {
        let mut two = header(6, &[0x04]);
        two.extend(b"abc");
        two.extend(header(0, &[0x06]));
        let end = two.len() as u64;
        let check = |bytes: &[u8], range| {
            check(Cursor::new(bytes), std::iter::once(range)).map_err(|e| e.to_string())
        };
        assert_eq!(check(&two, 0..end), Ok(()));
        assert!(check(&two, 0..end + 1).unwrap_err().contains("outside of the file"));
        assert!(check(&two[..end as usize - 1], 0..end - 1).is_err());
        let impossible = "a page says that it has an impossible number of values";
        let negative = header(0, &[0x01]);
        assert_eq!(check(&negative, 0..negative.len() as u64).unwrap_err(), impossible);
        let many = header(0, &[0xff, 0xff, 0xff, 0xff, 0x0e]);
        assert_eq!(check(&many, 0..many.len() as u64).unwrap_err(), impossible);
        let backwards = header(0x13, &[0x04]);
        assert!(check(&backwards, 0..backwards.len() as u64).unwrap_err().contains("negative size"));
        // Nested without end.
        assert!(Compact(&[0x9c; 100][..]).page().is_err());
        assert!(Compact(&[0xff; 100][..]).page().is_err());
    }
}
