//! `tokenizer.model`: the pieces of a SentencePiece model, with their scores and types.
//!
//! The file is a protocol buffer (`sentencepiece_model.proto` of the sentencepiece repository): field 1 of `ModelProto`,
//! repeated, is a piece (1 text, 2 score as f32, 3 type), field 2 the trainer's settings (3: the kind of model), field 3
//! the normalizer's (3: whether a space is put before a text).

use std::path::Path;

use crate::error::{Error, Result};

/// What a `tokenizer.model` holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SentencePiece {
    /// Text, score, type: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte, as GGUF counts them too.
    pub(super) pieces: Vec<(String, f32, i32)>,
    /// Whether it is byte-pair encoding; else unigram or others.
    pub(super) is_bpe: bool,
    /// Whether a space is put before a text.
    pub(super) adds_space: bool,
}

/// Larger than any vocabulary.
const MAX_BYTES: u64 = 256 << 20;

/// Reads the file at `path`; `None` if there is none.
///
/// # Errors
/// A file that is no such model.
pub(super) fn read(path: &Path) -> Result<Option<SentencePiece>> {
    if !path.is_file() {
        return Ok(None);
    }
    let size = std::fs::metadata(path).map_err(Error::io(path, "read"))?.len();
    let bytes = match size {
        0..=MAX_BYTES => std::fs::read(path).map_err(Error::io(path, "read"))?,
        _ => return Err(damaged(path)),
    };
    parse(&bytes).map(Some).ok_or_else(|| damaged(path))
}

fn damaged(path: &Path) -> Error {
    Error::file(
        path,
        "is no SentencePiece model",
        "download it again, or remove it if tokenizer.json is there",
    )
}

fn parse(bytes: &[u8]) -> Option<SentencePiece> {
    let mut model = SentencePiece { pieces: Vec::new(), is_bpe: false, adds_space: true };
    for field in Fields(bytes) {
        match field? {
            (1, Content::Bytes(piece)) => {
                let mut read = (String::new(), 0.0, 1);
                for field in Fields(piece) {
                    match field? {
                        (1, Content::Bytes(text)) => read.0 = std::str::from_utf8(text).ok()?.to_owned(),
                        (2, Content::Word(bits)) => read.1 = f32::from_bits(bits),
                        (3, Content::Number(kind)) => read.2 = i32::try_from(kind).ok()?,
                        _ => {}
                    }
                }
                model.pieces.push(read);
            }
            (2, Content::Bytes(trainer)) => {
                for field in Fields(trainer) {
                    // 2 is BPE (`TrainerSpec.ModelType`); 1, unigram, is the default.
                    if let (3, Content::Number(kind)) = field? {
                        model.is_bpe = kind == 2;
                    }
                }
            }
            (3, Content::Bytes(normalizer)) => {
                for field in Fields(normalizer) {
                    if let (3, Content::Number(adds)) = field? {
                        model.adds_space = adds != 0;
                    }
                }
            }
            _ => {}
        }
    }
    (!model.pieces.is_empty()).then_some(model)
}

/// A field's content by its wire type.
enum Content<'a> {
    Number(u64),
    Word(u32),
    Bytes(&'a [u8]),
    Other,
}

/// The fields of a message, `None` where it is damaged.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn field(&mut self) -> Option<(u64, Content<'a>)> {
        let tag = self.varint()?;
        let content = match tag & 7 {
            0 => Content::Number(self.varint()?),
            1 => self.take(8).map(|_| Content::Other)?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Content::Bytes(self.take(length)?)
            }
            5 => Content::Word(u32::from_le_bytes(self.take(4)?.try_into().ok()?)),
            _ => return None,
        };
        Some((tag >> 3, content))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u64, Content<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            // Nothing after damage means anything.
            self.0 = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand from the wire format: two pieces, BPE, no space before a text.
    #[test]
    fn a_model_by_hand() {
        let mut bytes = vec![0x0A, 0x09, 0x0A, 0x05];
        bytes.extend(b"<unk>");
        bytes.extend([0x18, 0x02]);
        bytes.extend([0x0A, 0x0A, 0x0A, 0x03]);
        bytes.extend("▁".as_bytes());
        bytes.push(0x15);
        bytes.extend((-1.5f32).to_le_bytes());
        bytes.extend([0x12, 0x02, 0x18, 0x02]);
        bytes.extend([0x1A, 0x02, 0x18, 0x00]);
        let expected = SentencePiece {
            pieces: vec![("<unk>".to_owned(), 0.0, 2), ("▁".to_owned(), -1.5, 1)],
            is_bpe: true,
            adds_space: false,
        };
        assert_eq!(parse(&bytes), Some(expected));
        assert_eq!(parse(&[]), None);
        for end in 1..bytes.len() - 1 {
            // Cut anywhere: refused or fewer fields, never a panic.
            let _ = parse(&bytes[..end]);
        }
        assert_eq!(parse(&bytes[..5]), None);
    }
}
