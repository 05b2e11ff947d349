//! Plain floating-point numbers, little-endian.

use super::f16_at;

/// Binary32: a copy.
#[inline(always)]
pub(super) fn f32(block: &[u8; 4], out: &mut [f32; 1]) {
    *out = [f32::from_le_bytes(*block)];
}

/// Binary64, rounded to nearest.
#[inline(always)]
pub(super) fn f64(block: &[u8; 8], out: &mut [f32; 1]) {
    *out = [f64::from_le_bytes(*block) as f32];
}

/// The upper 16 bits of a binary32: exact.
#[inline(always)]
pub(super) fn bf16(block: &[u8; 2], out: &mut [f32; 1]) {
    *out = [f32::from_bits(u32::from(u16::from_le_bytes(*block)) << 16)];
}

/// Binary16: exact.
#[inline(always)]
pub(super) fn f16(block: &[u8; 2], out: &mut [f32; 1]) {
    *out = [f16_at(block, 0)];
}
