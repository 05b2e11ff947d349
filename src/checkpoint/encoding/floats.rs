//! Plain floating-point numbers, little-endian.

use super::each_block;
use half::slice::HalfFloatSliceExt;

/// Weights converted at once: `half` asks for the processor's abilities once per slice.
const RUN: usize = 256;

/// Binary32: a copy.
pub(super) fn f32(bytes: &[u8], out: &mut [f32]) {
    each_block(bytes, out, |block: &[u8; 4], out: &mut [f32; 1]| out[0] = f32::from_le_bytes(*block));
}

/// Binary64, rounded to nearest.
pub(super) fn f64(bytes: &[u8], out: &mut [f32]) {
    each_block(bytes, out, |block: &[u8; 8], out: &mut [f32; 1]| out[0] = f64::from_le_bytes(*block) as f32);
}

/// The upper 16 bits of a binary32: exact.
pub(super) fn bf16(bytes: &[u8], out: &mut [f32]) {
    each_block(bytes, out, |block: &[u8; 2], out: &mut [f32; 1]| {
        out[0] = f32::from_bits(u32::from(u16::from_le_bytes(*block)) << 16);
    });
}

/// Binary16: exact.
pub(super) fn f16(bytes: &[u8], out: &mut [f32]) {
    let mut run = [half::f16::ZERO; RUN];
    for (bytes, out) in bytes.chunks(2 * RUN).zip(out.chunks_mut(RUN)) {
        let run = &mut run[..out.len()];
        for (value, bytes) in run.iter_mut().zip(bytes.as_chunks().0) {
            *value = half::f16::from_le_bytes(*bytes);
        }
        run.convert_to_f32_slice(out);
    }
}
