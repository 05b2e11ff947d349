//! The metadata of a GGUF file: what a value can be, and how one is read.
//!
//! Nothing is allocated for a count that the rest of the file could not hold. The most that memory can exceed
//! the bytes it came from is eightfold, by an array of u8 kept as i64.

use super::content::{MAX_HEADER_BYTES, shown};
use std::collections::BTreeMap;

/// A metadata value. Numbers keep their kind, not their width.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// u8, u16, u32 or u64.
    Unsigned(u64),
    /// i8, i16, i32 or i64.
    Signed(i64),
    /// f32 (widened exactly) or f64.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// A text.
    String(String),
    /// An array of texts.
    Strings(Vec<String>),
    /// An array of integers of any width.
    Integers(Vec<i64>),
    /// An array of f32, or of f64 rounded to f32.
    Floats(Vec<f32>),
    /// An array of truth values.
    Bools(Vec<bool>),
    /// An array of arrays.
    Nested(Vec<Value>),
}

/// All metadata of a file by key, with typed access.
///
/// A getter answers `None` both for a missing key and for a value of another kind; whoever needs the key says
/// so.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata(pub BTreeMap<String, Value>);

impl Metadata {
    /// A text.
    pub fn get_str(&self, key: &str) -> Option<&str> {
        match self.0.get(key)? {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// An integer that is not negative, whether it was written as signed or not.
    pub fn get_u64(&self, key: &str) -> Option<u64> {
        match self.0.get(key)? {
            Value::Unsigned(number) => Some(*number),
            Value::Signed(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    /// A truth value.
    pub fn get_bool(&self, key: &str) -> Option<bool> {
        match self.0.get(key)? {
            Value::Bool(truth) => Some(*truth),
            _ => None,
        }
    }

    /// A number; an integer is converted.
    pub fn get_f64(&self, key: &str) -> Option<f64> {
        match self.0.get(key)? {
            Value::Float(number) => Some(*number),
            Value::Unsigned(number) => Some(*number as f64),
            Value::Signed(number) => Some(*number as f64),
            _ => None,
        }
    }

    /// An array of texts.
    pub fn get_strings(&self, key: &str) -> Option<&[String]> {
        match self.0.get(key)? {
            Value::Strings(texts) => Some(texts),
            _ => None,
        }
    }

    /// An array of integers.
    pub fn get_integers(&self, key: &str) -> Option<&[i64]> {
        match self.0.get(key)? {
            Value::Integers(numbers) => Some(numbers),
            _ => None,
        }
    }

    /// An array of floating-point numbers.
    pub fn get_floats(&self, key: &str) -> Option<&[f32]> {
        match self.0.get(key)? {
            Value::Floats(numbers) => Some(numbers),
            _ => None,
        }
    }
}

/// Arrays within arrays deeper than this are refused; no known writer nests at all.
const MAX_NESTING: usize = 4;

/// Steps through the header. Errors are the problem alone; the caller knows what was being read.
pub(super) struct Reader<'a> {
    file: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a [u8]) -> Self {
        Reader { file, at: 0 }
    }

    /// The whole file.
    pub(super) fn file(&self) -> &'a [u8] {
        self.file
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Bytes not yet read that the header may still take.
    pub(super) fn left(&self) -> usize {
        self.file.len().min(MAX_HEADER_BYTES).saturating_sub(self.at)
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], String> {
        let taken = usize::try_from(length)
            .ok()
            .filter(|length| *length <= self.left())
            .and_then(|length| self.file.get(self.at..)?.get(..length));
        let Some(taken) = taken else {
            let start = self.at as u64;
            let (end, file_bytes) = (start.saturating_add(length), self.file.len());
            return Err(if end > file_bytes as u64 {
                format!("truncated or corrupt: needs bytes {start}..{end}, the file has {file_bytes}")
            } else {
                format!("corrupt: bytes {start}..{end} are beyond the {MAX_HEADER_BYTES} of any header")
            });
        };
        self.at += taken.len();
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N as u64)?);
        Ok(bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn string(&mut self) -> Result<&'a str, String> {
        let length = self.u64()?;
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes)
            .map_err(|_| format!("`{}` is not UTF-8", shown(&String::from_utf8_lossy(bytes))))
    }

    /// A metadata value: its type, then itself.
    pub(super) fn value(&mut self) -> Result<Value, String> {
        let kind = self.u32()?;
        Ok(match kind {
            0 => Value::Unsigned(u8::from_le_bytes(self.array()?).into()),
            1 => Value::Signed(i8::from_le_bytes(self.array()?).into()),
            2 => Value::Unsigned(u16::from_le_bytes(self.array()?).into()),
            3 => Value::Signed(i16::from_le_bytes(self.array()?).into()),
            4 => Value::Unsigned(u32::from_le_bytes(self.array()?).into()),
            5 => Value::Signed(i32::from_le_bytes(self.array()?).into()),
            6 => Value::Float(f32::from_le_bytes(self.array()?).into()),
            7 => Value::Bool(truth(u8::from_le_bytes(self.array()?))?),
            8 => Value::String(self.string()?.to_owned()),
            9 => self.array_value(0)?,
            10 => Value::Unsigned(u64::from_le_bytes(self.array()?)),
            11 => Value::Signed(i64::from_le_bytes(self.array()?)),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            other => return Err(unknown_kind(other)),
        })
    }

    /// An array, inside `depth` others: the type of its elements, their number, the elements.
    fn array_value(&mut self, depth: usize) -> Result<Value, String> {
        let kind = self.u32()?;
        let count = self.u64()?;
        Ok(match kind {
            0 => Value::Integers(self.numbers(count, |bytes| Ok(u8::from_le_bytes(bytes).into()))?),
            1 => Value::Integers(self.numbers(count, |bytes| Ok(i8::from_le_bytes(bytes).into()))?),
            2 => Value::Integers(self.numbers(count, |bytes| Ok(u16::from_le_bytes(bytes).into()))?),
            3 => Value::Integers(self.numbers(count, |bytes| Ok(i16::from_le_bytes(bytes).into()))?),
            4 => Value::Integers(self.numbers(count, |bytes| Ok(u32::from_le_bytes(bytes).into()))?),
            5 => Value::Integers(self.numbers(count, |bytes| Ok(i32::from_le_bytes(bytes).into()))?),
            6 => Value::Floats(self.numbers(count, |bytes| Ok(f32::from_le_bytes(bytes)))?),
            7 => Value::Bools(self.numbers(count, |bytes| truth(u8::from_le_bytes(bytes)))?),
            8 => Value::Strings(self.elements(count, 8, |reader| reader.string().map(str::to_owned))?),
            9 if depth + 1 >= MAX_NESTING => {
                return Err(format!("arrays are nested deeper than {MAX_NESTING} levels"));
            }
            9 => Value::Nested(self.elements(count, 12, |reader| reader.array_value(depth + 1))?),
            10 => Value::Integers(self.numbers(count, |bytes| {
                let number = u64::from_le_bytes(bytes);
                i64::try_from(number).map_err(|_| format!("{number} is beyond the range of an i64"))
            })?),
            11 => Value::Integers(self.numbers(count, |bytes| Ok(i64::from_le_bytes(bytes)))?),
            12 => Value::Floats(self.numbers(count, |bytes| Ok(f64::from_le_bytes(bytes) as f32))?),
            other => return Err(unknown_kind(other)),
        })
    }

    /// `count` numbers of `N` bytes each.
    fn numbers<const N: usize, T>(
        &mut self,
        count: u64,
        convert: impl Fn([u8; N]) -> Result<T, String>,
    ) -> Result<Vec<T>, String> {
        let bytes = self.take(count.saturating_mul(N as u64))?;
        bytes.as_chunks().0.iter().map(|bytes| convert(*bytes)).collect()
    }

    /// `count` elements of at least `smallest` bytes each.
    fn elements<T>(
        &mut self,
        count: u64,
        smallest: u64,
        read: impl Fn(&mut Self) -> Result<T, String>,
    ) -> Result<Vec<T>, String> {
        if count.saturating_mul(smallest) > self.left() as u64 {
            return Err(format!(
                "truncated or corrupt: promises {count} elements, {} bytes of the file are left",
                self.left()
            ));
        }
        (0..count).map(|index| read(self).map_err(|problem| format!("element {index}: {problem}"))).collect()
    }
}

fn truth(byte: u8) -> Result<bool, String> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(format!("a truth value must be 0 or 1, not {other}")),
    }
}

fn unknown_kind(kind: u32) -> String {
    format!("value type {kind} is not known")
}
