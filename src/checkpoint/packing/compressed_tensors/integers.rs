//! compressed-tensors' integer weights: one code in a byte, or codes of 1 to 8 bits in words.

use std::{ops::Range, sync::Arc};

use safetensors::Dtype;

use super::{Form, Matrix, require_scale, settings::Args};
use crate::{
    checkpoint::{
        packing::{
            TensorView, Tensors,
            affine::{self, Affine, ByteRows, GridRows, Groups, Offset, PackedRows, PerGroup, Value},
            codes::BitLayout,
            grid::{Grid, Sound, is_grid},
            minifloats::matrix_shape,
            scaling::Block,
        },
        weight::StoredBytes,
    },
    error::Result,
};

const OTHER_TOOL: &str = "the file is damaged, or written by a tool that packs in another way";

/// `weight` of I8.
///
/// # Errors
/// Tensors that do not fit each other.
pub(super) fn bytes(
    tensors: &Tensors,
    module: &str,
    weight: &TensorView,
    declared: Option<&Args>,
) -> Result<Matrix> {
    let shape = matrix_shape(weight)?;
    let scale = require_scale(tensors, module, weight)?;
    let block = Block::of(&scale, shape, declared.and_then(Args::block))?;
    // Codes of fewer bits may lie in bytes, too; which, only the settings can say, and it changes no value.
    let bits = declared.filter(|args| !args.float && args.num_bits < 8).map_or(8, |args| args.num_bits);
    let scales = scales(&scale, shape, block)?;
    let zeros = Zeros::find(tensors, module, shape, block, 8, BitLayout::Dense, declared)?;
    let (offset, symmetric) = Zeros::offset(zeros, 8);
    let source = Affine {
        columns: shape[1],
        groups: Groups::Of(block.columns),
        codes: Arc::new(ByteRows { flip: 0x80, stored: weight.stored() }),
        value: if bits == 8 { Value::Integer(8) } else { Value::Whole },
        scales: Arc::new(scales),
        offset,
        sliced: None,
    };
    let form = Form { float: false, bits, symmetric, block };
    Ok(Matrix {
        shape,
        encoding: form.name(shape),
        source: Arc::new(source),
        tensors: &["weight", "weight_scale", "weight_zero_point"],
        form,
    })
}

/// `weight_packed` of I32.
///
/// # Errors
/// Tensors that do not fit each other.
pub(super) fn packed(
    tensors: &Tensors,
    module: &str,
    packed: &TensorView,
    declared: Option<&Args>,
) -> Result<Matrix> {
    let [rows, words] = matrix_shape(packed)?;
    packed.expect(packed.shape, &[Dtype::I32])?;
    if tensors.by_name.contains_key(&format!("{module}.meta")) {
        return Err(packed.problem(
            "is in the marlin-24 format, which this version cannot decode",
            "compare a checkpoint in the pack-quantized format",
        ));
    }
    let stored_shape = tensors.require(&format!("{module}.weight_shape"), "`weight_packed` needs it")?;
    let shape = weight_shape(&stored_shape)?;
    if shape[0] != rows {
        return Err(stored_shape.problem(
            format!("says {shape:?}, but `weight_packed` has shape {:?}: {rows} rows", packed.shape),
            OTHER_TOOL,
        ));
    }
    let (bits, layout) = width(packed, words, shape[1], declared)?;
    let scale = require_scale(tensors, module, packed)?;
    let block = Block::of(&scale, shape, declared.and_then(Args::block))?;
    let scales = scales(&scale, shape, block)?;
    let zeros = Zeros::find(tensors, module, shape, block, bits, layout, declared)?;
    let (offset, symmetric) = Zeros::offset(zeros, bits);
    let (groups, ordered) = groups(tensors, module, shape, block)?;
    let source = Affine {
        columns: shape[1],
        groups,
        codes: Arc::new(PackedRows { bits, layout, row_bytes: 4 * words, stored: packed.stored() }),
        value: Value::Integer(bits),
        scales: Arc::new(scales),
        offset,
        sliced: None,
    };
    let form = Form { float: false, bits, symmetric, block };
    let ordered = if ordered { ", columns ordered by activation" } else { "" };
    Ok(Matrix {
        shape,
        encoding: format!("{}{ordered}", form.name(shape)),
        source: Arc::new(source),
        tensors: &["weight_packed", "weight_scale", "weight_zero_point", "weight_shape", "weight_g_idx"],
        form,
    })
}

fn scales(scale: &TensorView, shape: [usize; 2], block: Block) -> Result<GridRows> {
    let [rows, columns] = block.grid(shape);
    Ok(GridRows { grid: Grid::new(scale, rows, columns, Sound::Positive)?, rows_each: block.rows })
}

/// The two numbers of `weight_shape`.
fn weight_shape(tensor: &TensorView) -> Result<[usize; 2]> {
    let stored = tensor.stored();
    let numbers: Vec<i64> = match tensor.dtype {
        Dtype::I64 => stored.bytes().as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect(),
        Dtype::I32 => {
            stored.bytes().as_chunks().0.iter().map(|bytes| i32::from_le_bytes(*bytes).into()).collect()
        }
        other => return Err(tensor.problem(format!("is of type {other:?}, expected I64"), OTHER_TOOL)),
    };
    let sides: Option<Vec<usize>> =
        numbers.iter().map(|n| usize::try_from(*n).ok().filter(|n| *n > 0)).collect();
    match sides.as_deref() {
        Some([out, inner]) if out.checked_mul(*inner).is_some() => Ok([*out, *inner]),
        _ => Err(tensor.problem(
            format!("has shape {:?} and does not hold two positive numbers", tensor.shape),
            OTHER_TOOL,
        )),
    }
}

/// Bits and layout of rows of `words` words that hold `columns` codes. The layout follows from the width; so do the
/// bits, where the settings do not fit.
fn width(
    packed: &TensorView,
    words: usize,
    columns: usize,
    declared: Option<&Args>,
) -> Result<(u32, BitLayout)> {
    let fits = |bits: u32, layout: BitLayout| layout.words(bits, columns) == Some(words);
    let layout_of = |bits: u32| match (fits(bits, BitLayout::Dense), fits(bits, BitLayout::PerWord)) {
        // One word is laid out alike in both; more are not.
        (true, true) if 32 % bits != 0 && words > 1 => Some(None),
        (true, _) => Some(Some(BitLayout::Dense)),
        (false, true) => Some(Some(BitLayout::PerWord)),
        (false, false) => None,
    };
    let declared = declared.filter(|args| !args.float).map(|args| args.num_bits).filter(|bits| *bits <= 8);
    // Without settings that fit: the dense layout, which determines the bits of any row of 32 codes or more.
    let dense = || (1..=8).find(|bits| fits(*bits, BitLayout::Dense));
    let padded = || (1..=8).find(|bits| fits(*bits, BitLayout::PerWord));
    let bits = declared.filter(|bits| layout_of(*bits).is_some()).or_else(dense).or_else(padded);
    match bits.and_then(|bits| Some((bits, layout_of(bits)?))) {
        Some((bits, Some(layout))) => Ok((bits, layout)),
        Some((bits, None)) => Err(packed.problem(
            format!(
                "has rows of {words} words for {columns} codes of {bits} bits, as both ways of packing give"
            ),
            "a row this short does not tell them apart: compare a checkpoint of 2, 4 or 8 bits",
        )),
        None => {
            let expected = |bits: u32| {
                let words = |layout: BitLayout| layout.words(bits, columns).unwrap_or(0);
                format!("{} (dense) or {} (per word)", words(BitLayout::Dense), words(BitLayout::PerWord))
            };
            let expected = match declared {
                Some(bits) => format!("{} for {bits} bits", expected(bits)),
                None => "as many as 1 to 8 bits give".to_owned(),
            };
            Err(packed.problem(
                format!("has rows of {words} words for {columns} codes, expected {expected}"),
                OTHER_TOOL,
            ))
        }
    }
}

/// Groups of neighbours, or those of `weight_g_idx`; whether the latter.
fn groups(tensors: &Tensors, module: &str, shape: [usize; 2], block: Block) -> Result<(Groups, bool)> {
    let neighbours = (Groups::Of(block.columns), false);
    let Some(index) = tensors.get(&format!("{module}.weight_g_idx")) else { return Ok(neighbours) };
    let columns = shape[1];
    index.expect(&[columns], &[Dtype::I32])?;
    // −1 stands for "in the order of columns".
    if index.stored().bytes().as_chunks().0.iter().any(|bytes| i32::from_le_bytes(*bytes) == -1) {
        return Ok(neighbours);
    }
    let count = columns.div_ceil(block.columns);
    let groups = affine::listed(&index, columns, count)?;
    if let Groups::Listed(list, _) = &groups {
        let mut sizes = vec![0usize; count];
        list.iter().for_each(|group| sizes[*group as usize] += 1);
        if let Some(group) = sizes.iter().position(|size| *size != block.columns)
            && columns.is_multiple_of(block.columns)
        {
            return Err(index.problem(
                format!("puts {} columns into group {group}, expected {}", sizes[group], block.columns),
                OTHER_TOOL,
            ));
        }
    }
    Ok((groups, true))
}

/// `weight_zero_point`, in either way of storing.
#[derive(Debug)]
struct Zeros {
    stored: StoredBytes,
    form: ZerosForm,
    /// 2^(b−1): what makes a signed zero point one of unsigned codes.
    middle: f32,
    rows_each: usize,
}

#[derive(Debug)]
enum ZerosForm {
    /// One signed byte each, `[rows, groups]`.
    Bytes,
    /// As the weights, but down the rows: `[words, groups]`.
    PackedDown(u32, BitLayout),
}

impl Zeros {
    fn find(
        tensors: &Tensors,
        module: &str,
        shape: [usize; 2],
        block: Block,
        bits: u32,
        layout: BitLayout,
        declared: Option<&Args>,
    ) -> Result<Option<Self>> {
        let name = format!("{module}.weight_zero_point");
        let asymmetric = declared.is_some_and(|args| !args.symmetric && !args.float);
        let tensor = match tensors.get(&name) {
            Some(tensor) => tensor,
            None if asymmetric => tensors.require(&name, "the settings declare asymmetric codes")?,
            None => return Ok(None),
        };
        let [rows, groups] = block.grid(shape);
        let middle = (1u32 << (bits - 1)) as f32;
        let stored = tensor.stored();
        if tensor.dtype == Dtype::I32 {
            let words = layout.words(bits, rows).unwrap_or(0);
            tensor.expect(&[words, groups], &[Dtype::I32])?;
            let form = ZerosForm::PackedDown(bits, layout);
            return Ok(Some(Self { stored, form, middle, rows_each: block.rows }));
        }
        let expected = if is_grid(tensor.shape, rows, groups) { tensor.shape } else { &[rows, groups] };
        tensor.expect(expected, &[Dtype::I8])?;
        // Earlier versions store the zeros of symmetric codes.
        if !asymmetric && stored.bytes().iter().all(|zero| *zero == 0) {
            return Ok(None);
        }
        Ok(Some(Self { stored, form: ZerosForm::Bytes, middle, rows_each: block.rows }))
    }

    /// What the kernel subtracts, and whether it is the middle of the codes.
    fn offset(zeros: Option<Self>, bits: u32) -> (Offset, bool) {
        match zeros {
            Some(zeros) => (Offset::Zeros(Arc::new(zeros)), false),
            None => (Offset::Zero((1u32 << (bits - 1)) as f32), true),
        }
    }
}

impl PerGroup for Zeros {
    fn rows(&self, rows: Range<usize>, groups: usize, out: &mut [f32]) -> Result<()> {
        let bytes = self.stored.bytes();
        for (row, out) in rows.zip(out.chunks_exact_mut(groups)) {
            let row = row / self.rows_each;
            match self.form {
                ZerosForm::Bytes => {
                    for (out, zero) in out.iter_mut().zip(&bytes[row * groups..]) {
                        *out = f32::from(*zero as i8) + self.middle;
                    }
                }
                ZerosForm::PackedDown(bits, layout) => {
                    let first = layout.first_bit(bits, row);
                    let (word, shift) = (first / 32, first % 32);
                    let line = |word: usize| bytes.get(4 * word * groups..).unwrap_or(&[]).as_chunks::<4>().0;
                    let crosses = shift + bits as usize > 32;
                    for (group, (out, low)) in out.iter_mut().zip(line(word)).enumerate() {
                        let high = if crosses { u32::from_le_bytes(line(word + 1)[group]) } else { 0 };
                        let both = u64::from(u32::from_le_bytes(*low)) | u64::from(high) << 32;
                        *out = ((both >> shift) & ((1 << bits) - 1)) as f32;
                    }
                }
            }
        }
        Ok(())
    }

    fn release(&self) {
        self.stored.release();
    }
}
