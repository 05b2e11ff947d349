//! SHA-256 as the harness uses it: of UTF-8 text, written in lower-case hexadecimal.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// A SHA-256.
pub(super) type Digest = [u8; 32];

/// Of `text` in UTF-8.
pub(super) fn digest(text: &str) -> Digest {
    let mut bytes = [0; 32];
    bytes.iter_mut().zip(Sha256::digest(text.as_bytes())).for_each(|(to, from)| *to = from);
    bytes
}

/// Of `text` in UTF-8, in hexadecimal (the harness's `hash_string`).
pub(super) fn hash_string(text: &str) -> String {
    let mut hex = String::with_capacity(64);
    for byte in digest(text) {
        let _ = write!(hex, "{byte:02x}"); // Writing to a string cannot fail.
    }
    hex
}

/// What [`hash_string`] wrote; `None` for anything else.
pub(super) fn from_hex(hex: &str) -> Option<Digest> {
    let mut bytes = [0; 32];
    if hex.len() != 64 || !hex.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(bytes)
}
