//! Matrices of FP8 and FP4 codes with scales: what compressed-tensors, ModelOpt and DeepSeek's FP8 have in common.
//!
//! They differ in the names of their tensors and in what they declare about activations, not in the arithmetic:
//! w = value(code)·scale, the scale being a float, a power of two (MX), or an E4M3 number with one more factor for the
//! whole tensor (NVFP4).

use std::sync::Arc;

use safetensors::Dtype;

use super::{
    TensorView,
    affine::{Affine, ByteRows, GridRows, Groups, Offset, PackedRows, Value},
    codes::BitLayout,
    grid::{Factor, Grid, Number, Sound},
    scaling::Block,
};
use crate::{
    checkpoint::weight::RowSource,
    error::{Error, Result},
    minifloat,
};

/// A matrix of floats of 8 or 4 bits.
#[derive(Debug)]
pub(in crate::checkpoint) struct Minifloats {
    /// `[out, in]`.
    pub(in crate::checkpoint) shape: [usize; 2],
    /// "FP8 channel", "NVFP4", "MXFP4".
    pub(in crate::checkpoint) encoding: String,
    /// Which weights share a scale.
    pub(in crate::checkpoint) block: Block,
    /// Rows.
    pub(in crate::checkpoint) source: Arc<dyn RowSource>,
}

/// One code in a byte: `weight` of E4M3 or E5M2.
///
/// # Errors
/// Tensors that do not fit each other.
pub(in crate::checkpoint) fn eight_bits(
    weight: &TensorView,
    scale: &TensorView,
    declared: Option<Block>,
) -> Result<Minifloats> {
    let shape = matrix_shape(weight)?;
    let (table, format) = match weight.dtype {
        Dtype::F8_E4M3 => (minifloat::E4M3, "FP8"),
        Dtype::F8_E5M2 => (minifloat::E5M2, "FP8 E5M2"),
        other => {
            let problem = format!("is of type {other:?}, expected F8_E4M3 or F8_E5M2");
            return Err(weight.problem(problem, "the file is written by a tool that packs in another way"));
        }
    };
    let block = Block::of(scale, shape, declared)?;
    let encoding = match (Number::of(scale.dtype), block) {
        (Some(Number::E8m0), Block { rows: 1, columns: 32 }) => format!("MX{format}"),
        (Some(Number::E8m0), _) => format!("{format} {} with power-of-two scales", block.name(shape)),
        _ => format!("{format} {}", block.name(shape)),
    };
    let codes = ByteRows { flip: 0, stored: weight.stored() };
    let source = scaled(shape, block, Arc::new(codes), Value::Table(Arc::new(table)), scale, Factor::One)?;
    Ok(Minifloats { shape, encoding, block, source })
}

/// Two E2M1 codes in a byte, the first in the low nibble: `packed` is `[out, in/2]`.
///
/// # Errors
/// Tensors that do not fit each other.
pub(in crate::checkpoint) fn four_bits(
    packed: &TensorView,
    scale: &TensorView,
    factor: Factor,
    declared: Option<Block>,
) -> Result<Minifloats> {
    let [out, bytes] = matrix_shape(packed)?;
    packed.expect(packed.shape, &[Dtype::U8])?;
    let shape = [out, bytes.checked_mul(2).ok_or_else(|| too_large(packed))?];
    let block = Block::of(scale, shape, declared)?;
    let encoding = match (Number::of(scale.dtype), block) {
        (Some(Number::E4m3), Block { rows: 1, columns: 16 }) => "NVFP4".to_owned(),
        (Some(Number::E8m0), Block { rows: 1, columns: 32 }) => "MXFP4".to_owned(),
        (number, _) => {
            let scales = match number {
                Some(Number::E4m3) => " with E4M3 scales",
                Some(Number::E8m0) => " with power-of-two scales",
                _ => "",
            };
            format!("FP4 {}{scales}", block.name(shape))
        }
    };
    let codes = PackedRows { bits: 4, layout: BitLayout::Dense, row_bytes: bytes, stored: packed.stored() };
    let source = scaled(shape, block, Arc::new(codes), Value::e2m1(), scale, factor)?;
    Ok(Minifloats { shape, encoding, block, source })
}

fn scaled(
    shape: [usize; 2],
    block: Block,
    codes: Arc<dyn super::affine::Codes>,
    value: Value,
    scale: &TensorView,
    factor: Factor,
) -> Result<Arc<dyn RowSource>> {
    let [rows, columns] = block.grid(shape);
    let grid = Grid::new(scale, rows, columns, Sound::Positive)?.with(factor);
    Ok(Arc::new(Affine {
        columns: shape[1],
        groups: Groups::Of(block.columns),
        codes,
        value,
        scales: Arc::new(GridRows { grid, rows_each: block.rows }),
        offset: Offset::Zero(0.0),
        sliced: None,
    }))
}

/// `[out, in]` of a tensor that must be a matrix with weights.
///
/// # Errors
/// Another number of axes, or none of a length.
pub(in crate::checkpoint) fn matrix_shape(tensor: &TensorView) -> Result<[usize; 2]> {
    match *tensor.shape {
        [out, inner] if out > 0 && inner > 0 => Ok([out, inner]),
        _ => Err(tensor.problem(
            format!("has shape {:?}, expected the two axes of a matrix", tensor.shape),
            "stacked matrices (mixtures of experts) are not supported",
        )),
    }
}

fn too_large(tensor: &TensorView) -> Error {
    tensor.problem("has more weights than this machine can count", "the file is damaged: download it again")
}
