//! The form that nearly all packings share: w = (value(code) − zero)·scale, or value(code)·scale + bias, where a group
//! of neighbouring weights of a row shares scale and zero.
//!
//! A packing says where codes, scales and zeros lie ([`Codes`], [`PerGroup`]); the arithmetic is here, once. Codes are
//! unsigned bytes: integers as stored, or numbers of a table of floats (FP8, FP4). Every operation is rounded to f32
//! in the order written, as PyTorch does; Rust never fuses them.

use std::{fmt, ops::Range, sync::Arc};

use super::{
    TensorView,
    codes::{self, BitLayout},
    grid::Grid,
};
use crate::{
    checkpoint::weight::{RowSource, StoredBytes},
    error::Result,
    minifloat::E2M1,
};

/// The codes of a matrix.
pub(in crate::checkpoint) trait Codes: fmt::Debug + Send + Sync {
    /// Unpacks whole rows, row-major `[rows.len(), columns]`.
    fn rows(&self, rows: Range<usize>, columns: usize, out: &mut [u8]);

    /// Hands mapped pages back to the system.
    fn release(&self);
}

/// One number per row and group.
pub(in crate::checkpoint) trait PerGroup: fmt::Debug + Send + Sync {
    /// The numbers of whole rows, row-major `[rows.len(), groups]`.
    ///
    /// # Errors
    /// A number that is not sound, naming tensor and place.
    fn rows(&self, rows: Range<usize>, groups: usize, out: &mut [f32]) -> Result<()>;

    /// Hands mapped pages back to the system.
    fn release(&self) {}
}

/// Which weights of a row share a scale.
#[derive(Clone, Debug)]
pub(in crate::checkpoint) enum Groups {
    /// So many neighbours each; the last group may be smaller.
    Of(usize),
    /// The group of each column, all below the count.
    Listed(Arc<[u32]>, usize),
}

impl Groups {
    /// Groups of a row.
    fn count(&self, columns: usize) -> usize {
        match self {
            Groups::Of(size) => columns.div_ceil(*size),
            Groups::Listed(_, count) => *count,
        }
    }
}

/// The number that a code stands for.
#[derive(Clone, Debug)]
pub(in crate::checkpoint) enum Value {
    /// An unsigned integer of so many bits; these can be sliced.
    Integer(u32),
    /// An unsigned integer that cannot be sliced.
    Whole,
    /// An entry of a table.
    Table(Arc<[f32; 256]>),
}

impl Value {
    /// E2M1 codes of 4 bits.
    pub(in crate::checkpoint) fn e2m1() -> Self {
        Value::Table(Arc::new(std::array::from_fn(|code| E2M1[code % 16])))
    }
}

/// What is subtracted or added.
#[derive(Clone, Debug)]
pub(in crate::checkpoint) enum Offset {
    /// (value − zero)·scale with the same zero everywhere.
    Zero(f32),
    /// (value − zero)·scale.
    Zeros(Arc<dyn PerGroup>),
    /// value·scale + bias.
    Biases(Arc<dyn PerGroup>),
}

/// A matrix in this form.
#[derive(Clone, Debug)]
pub(in crate::checkpoint) struct Affine {
    /// Weights of a row.
    pub(in crate::checkpoint) columns: usize,
    /// Which of them share a scale.
    pub(in crate::checkpoint) groups: Groups,
    /// Stored codes.
    pub(in crate::checkpoint) codes: Arc<dyn Codes>,
    /// Their meaning.
    pub(in crate::checkpoint) value: Value,
    /// Scales.
    pub(in crate::checkpoint) scales: Arc<dyn PerGroup>,
    /// Zeros or biases.
    pub(in crate::checkpoint) offset: Offset,
    /// Codes after slicing, by stored code.
    pub(in crate::checkpoint) sliced: Option<Arc<[u8; 256]>>,
}

/// Codes unpacked at once: they stay in the second-level cache until they are scaled.
const PASS_CODES: usize = 1 << 16;

impl RowSource for Affine {
    fn decode(&self, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        let (columns, groups) = (self.columns, self.groups.count(self.columns));
        if columns == 0 || groups == 0 {
            return Ok(());
        }
        let rows_per_pass = (PASS_CODES / columns).clamp(1, rows.len().max(1));
        let mut codes = vec![0; rows_per_pass * columns];
        let mut scales = vec![0.0; rows_per_pass * groups];
        let mut offsets = vec![0.0; rows_per_pass * groups];
        if let Offset::Zero(zero) = self.offset {
            offsets.fill(zero);
        }
        for (pass, out) in out.chunks_mut(rows_per_pass * columns).enumerate() {
            let first = rows.start + pass * rows_per_pass;
            let rows = first..first + out.len() / columns;
            let codes = &mut codes[..out.len()];
            let per_group = rows.len() * groups;
            let (scales, offsets) = (&mut scales[..per_group], &mut offsets[..per_group]);
            self.codes.rows(rows.clone(), columns, codes);
            if let Some(table) = &self.sliced {
                codes.iter_mut().for_each(|code| *code = table[usize::from(*code)]);
            }
            self.scales.rows(rows.clone(), groups, scales)?;
            if let Offset::Zeros(numbers) | Offset::Biases(numbers) = &self.offset {
                numbers.rows(rows.clone(), groups, offsets)?;
            }
            let biased = matches!(self.offset, Offset::Biases(_));
            let (groups_of, value) = (&self.groups, &self.value);
            let kernel = Kernel { columns, groups, groups_of, value, biased, codes, scales, offsets, out };
            pulp::Arch::new().dispatch(kernel);
        }
        Ok(())
    }

    fn release(&self) {
        self.codes.release();
        self.scales.release();
        if let Offset::Zeros(numbers) | Offset::Biases(numbers) = &self.offset {
            numbers.release();
        }
    }

    fn sliced(&self, bits: u32) -> Option<Arc<dyn RowSource>> {
        match self.value {
            Value::Integer(stored) if self.sliced.is_none() && (1..stored).contains(&bits) => {
                let table = Arc::new(codes::slice_table(stored, bits));
                Some(Arc::new(Self { sliced: Some(table), ..self.clone() }))
            }
            _ => None,
        }
    }
}

struct Kernel<'a> {
    columns: usize,
    groups: usize,
    groups_of: &'a Groups,
    value: &'a Value,
    biased: bool,
    codes: &'a [u8],
    scales: &'a [f32],
    offsets: &'a [f32],
    out: &'a mut [f32],
}

impl pulp::WithSimd for Kernel<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        match (self.value, self.biased) {
            (Value::Integer(_) | Value::Whole, false) => {
                self.each(|code, scale, zero| (f32::from(code) - zero) * scale);
            }
            (Value::Integer(_) | Value::Whole, true) => {
                self.each(|code, scale, bias| f32::from(code) * scale + bias);
            }
            (Value::Table(table), false) => {
                self.each(|code, scale, zero| (table[usize::from(code)] - zero) * scale);
            }
            (Value::Table(table), true) => {
                self.each(|code, scale, bias| table[usize::from(code)] * scale + bias);
            }
        }
    }
}

impl Kernel<'_> {
    /// Applies `weight(code, scale, offset)` to all; the usual sizes of groups are constants, so that the loop over a
    /// group has no remainder.
    #[inline(always)]
    fn each(self, weight: impl Fn(u8, f32, f32) -> f32 + Copy) {
        let Self { columns, groups, groups_of, codes, scales, offsets, out, .. } = self;
        let rows = out.chunks_exact_mut(columns).zip(codes.chunks_exact(columns));
        let per_row = scales.chunks_exact(groups).zip(offsets.chunks_exact(groups));
        for ((out, codes), (scales, offsets)) in rows.zip(per_row) {
            match groups_of {
                Groups::Of(16) => each_of::<16>(codes, scales, offsets, out, weight),
                Groups::Of(32) => each_of::<32>(codes, scales, offsets, out, weight),
                Groups::Of(64) => each_of::<64>(codes, scales, offsets, out, weight),
                Groups::Of(128) => each_of::<128>(codes, scales, offsets, out, weight),
                Groups::Of(size) => {
                    let groups = out.chunks_mut(*size).zip(codes.chunks(*size));
                    for ((out, codes), (scale, offset)) in groups.zip(scales.iter().zip(offsets)) {
                        for (out, code) in out.iter_mut().zip(codes) {
                            *out = weight(*code, *scale, *offset);
                        }
                    }
                }
                Groups::Listed(list, _) => {
                    for ((out, code), group) in out.iter_mut().zip(codes).zip(list.iter()) {
                        *out = weight(*code, scales[*group as usize], offsets[*group as usize]);
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn each_of<const SIZE: usize>(
    codes: &[u8],
    scales: &[f32],
    offsets: &[f32],
    out: &mut [f32],
    weight: impl Fn(u8, f32, f32) -> f32 + Copy,
) {
    let (whole, rest) = out.as_chunks_mut::<SIZE>();
    let (whole_codes, rest_codes) = codes.as_chunks::<SIZE>();
    for ((out, codes), (scale, offset)) in whole.iter_mut().zip(whole_codes).zip(scales.iter().zip(offsets)) {
        for (out, code) in out.iter_mut().zip(codes) {
            *out = weight(*code, *scale, *offset);
        }
    }
    if let (Some(scale), Some(offset)) = (scales.last(), offsets.last()) {
        for (out, code) in rest.iter_mut().zip(rest_codes) {
            *out = weight(*code, *scale, *offset);
        }
    }
}

/// Codes in rows of 32-bit words.
#[derive(Debug)]
pub(in crate::checkpoint) struct PackedRows {
    /// Bits of a code.
    pub(in crate::checkpoint) bits: u32,
    /// How they lie in the words.
    pub(in crate::checkpoint) layout: BitLayout,
    /// Bytes from one row to the next.
    pub(in crate::checkpoint) row_bytes: usize,
    /// All rows.
    pub(in crate::checkpoint) stored: StoredBytes,
}

impl Codes for PackedRows {
    fn rows(&self, rows: Range<usize>, columns: usize, out: &mut [u8]) {
        let bytes = &self.stored.bytes()[rows.start * self.row_bytes..rows.end * self.row_bytes];
        for (out, words) in out.chunks_exact_mut(columns).zip(bytes.chunks_exact(self.row_bytes)) {
            codes::unpack(self.bits, self.layout, words, out);
        }
    }

    fn release(&self) {
        self.stored.release();
    }
}

/// One byte per code; `flip` is 128 for two's complement, whose codes become unsigned by it.
#[derive(Debug)]
pub(in crate::checkpoint) struct ByteRows {
    /// Exclusive or.
    pub(in crate::checkpoint) flip: u8,
    /// All rows.
    pub(in crate::checkpoint) stored: StoredBytes,
}

impl Codes for ByteRows {
    fn rows(&self, rows: Range<usize>, columns: usize, out: &mut [u8]) {
        let bytes = &self.stored.bytes()[rows.start * columns..rows.end * columns];
        for (out, byte) in out.iter_mut().zip(bytes) {
            *out = byte ^ self.flip;
        }
    }

    fn release(&self) {
        self.stored.release();
    }
}

/// A grid `[⌈rows / rows_each⌉, groups]`.
#[derive(Debug)]
pub(in crate::checkpoint) struct GridRows {
    /// The numbers.
    pub(in crate::checkpoint) grid: Grid,
    /// Rows of the matrix that share a row of the grid.
    pub(in crate::checkpoint) rows_each: usize,
}

impl PerGroup for GridRows {
    fn rows(&self, rows: Range<usize>, groups: usize, out: &mut [f32]) -> Result<()> {
        for (row, out) in rows.zip(out.chunks_exact_mut(groups)) {
            self.grid.read(row / self.rows_each, 0..groups, out)?;
        }
        Ok(())
    }

    fn release(&self) {
        self.grid.release();
    }
}

/// The list of `g_idx`: the group of each column.
///
/// # Errors
/// Not one per column, or a group that does not exist.
pub(in crate::checkpoint) fn listed(tensor: &TensorView, columns: usize, groups: usize) -> Result<Groups> {
    tensor.expect(&[columns], &[safetensors::Dtype::I32])?;
    let stored = tensor.stored();
    let list: Vec<u32> =
        stored.bytes().as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
    match list.iter().position(|group| *group as usize >= groups) {
        Some(column) => Err(tensor.problem(
            format!("puts column {column} into group {}, but there are {groups} groups", list[column] as i32),
            "the file is damaged, or written by a tool that packs in another way",
        )),
        None => Ok(Groups::Listed(list.into(), groups)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::packing::fixture::noise;

    #[derive(Debug)]
    struct Listed<T>(Vec<T>);

    impl Codes for Listed<u8> {
        fn rows(&self, rows: Range<usize>, columns: usize, out: &mut [u8]) {
            out.copy_from_slice(&self.0[rows.start * columns..rows.end * columns]);
        }

        fn release(&self) {}
    }

    impl PerGroup for Listed<f32> {
        fn rows(&self, rows: Range<usize>, groups: usize, out: &mut [f32]) -> Result<()> {
            out.copy_from_slice(&self.0[rows.start * groups..rows.end * groups]);
            Ok(())
        }
    }

    /// Every kind of value and offset with groups of every usual size, the last of a row cut off, over more rows than
    /// one pass takes; against the formula, weight by weight.
    #[test]
    fn all_forms_equal_the_formula() {
        let (rows, columns) = (160, 1000);
        let codes: Vec<u8> = noise(1).take(rows * columns).collect();
        let table: Arc<[f32; 256]> = Arc::new(std::array::from_fn(|code| (code as f32 - 100.0) / 7.0));
        for size in [1, 7, 16, 32, 48, 64, 128, 1000, 5000] {
            let groups = columns.div_ceil(size);
            let some = |seed| noise(seed).map(|byte| f32::from(byte) / 16.0 - 3.0).take(rows * groups);
            let (scales, offsets): (Vec<f32>, Vec<f32>) = (some(2).collect(), some(3).collect());
            let list: Arc<[u32]> = (0..columns).map(|column| ((column * 13) % groups) as u32).collect();
            for value in [Value::Integer(8), Value::Whole, Value::Table(Arc::clone(&table))] {
                for offset in [
                    Offset::Zero(8.0),
                    Offset::Zeros(Arc::new(Listed(offsets.clone()))),
                    Offset::Biases(Arc::new(Listed(offsets.clone()))),
                ] {
                    for groups_of in [Groups::Of(size), Groups::Listed(Arc::clone(&list), groups)] {
                        let affine = Affine {
                            columns,
                            groups: groups_of.clone(),
                            codes: Arc::new(Listed(codes.clone())),
                            value: value.clone(),
                            scales: Arc::new(Listed(scales.clone())),
                            offset: offset.clone(),
                            sliced: None,
                        };
                        let formula = |i: usize| {
                            let (row, column) = (i / columns, i % columns);
                            let group = match groups_of {
                                Groups::Of(size) => column / size,
                                Groups::Listed(..) => column * 13 % groups,
                            };
                            let value = match &value {
                                Value::Table(_) => (f32::from(codes[i]) - 100.0) / 7.0,
                                _ => f32::from(codes[i]),
                            };
                            let at = row * groups + group;
                            match offset {
                                Offset::Zero(zero) => (value - zero) * scales[at],
                                Offset::Zeros(_) => (value - offsets[at]) * scales[at],
                                Offset::Biases(_) => value * scales[at] + offsets[at],
                            }
                        };
                        let (first, last) = (3, rows);
                        let mut out = vec![f32::NAN; (last - first) * columns];
                        affine.decode(first..last, &mut out).unwrap();
                        let wrong = (0..out.len()).find(|i| out[*i] != formula(first * columns + i));
                        assert_eq!(wrong, None, "{size} {value:?} {offset:?}");
                    }
                }
            }
        }
    }
}
