//! One weight of a model, ready to be decoded row by row.
//!
//! A weight carries Hugging Face's name and row order whatever file it lies in; what the file calls it, how it
//! orders rows and how many tensors it takes to store it ends here. All ways of storing meet at [`RowSource`].

use std::{fmt, ops::Range, path::PathBuf, sync::Arc};

use rayon::prelude::*;

use super::{
    activations::{ActivationQuantization, GgmlActivation},
    architectures::stored::Map,
    encoding::Encoding,
    mapped::MappedFile,
    packing::codes::slice_table,
};
use crate::error::{Error, Result};

/// Anything that yields the rows of a matrix as `f32`: one implementation per way of storing.
///
/// Shapes, sizes and scales were checked when it was made, so that decoding can fail only where the contents do.
pub trait RowSource: fmt::Debug + Send + Sync {
    /// Decodes rows, in the order in which they are stored, row-major, on one thread.
    ///
    /// Called with `rows` inside the matrix and `out` of exactly their size.
    ///
    /// # Errors
    /// Contents that mean nothing, naming tensor and place.
    fn decode(&self, rows: Range<usize>, out: &mut [f32]) -> Result<()>;

    /// Hands mapped pages back to the system.
    fn release(&self) {}

    /// The same matrix at the most significant `bits` of its codes (MatQuant, arXiv 2502.06786); `None` where
    /// codes are not integers or not wider than that.
    fn sliced(&self, bits: u32) -> Option<Arc<dyn RowSource>> {
        let _ = bits;
        None
    }
}

/// A range of bytes of a mapped file.
#[derive(Clone, Debug)]
pub struct StoredBytes {
    /// The file.
    pub(super) file: Arc<MappedFile>,
    /// Inside the file.
    pub(super) range: Range<usize>,
}

impl StoredBytes {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.file.bytes()[self.range.clone()]
    }

    /// Hands their pages back to the system.
    pub fn release(&self) {
        self.file.release(self.range.clone());
    }
}

/// Whole blocks of one encoding: dense floats and every GGUF type.
#[derive(Debug)]
pub(super) struct Blocks {
    pub(super) encoding: Encoding,
    pub(super) columns: usize,
    pub(super) stored: StoredBytes,
}

impl Blocks {
    fn row_bytes(&self) -> usize {
        self.columns / self.encoding.block_weights() * self.encoding.block_bytes()
    }

    fn decode_bytes(&self, bytes: &[u8], out: &mut [f32]) -> Result<()> {
        self.encoding
            .decode(bytes, out)
            .map_err(|mismatch| Error::argument(mismatch.to_string(), "report this as a bug of qeval"))
    }
}

impl RowSource for Blocks {
    fn decode(&self, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        let row_bytes = self.row_bytes();
        self.decode_bytes(&self.stored.bytes()[rows.start * row_bytes..rows.end * row_bytes], out)
    }

    fn release(&self) {
        self.stored.release();
    }

    /// Q8_0 alone: its blocks are plain signed integers; the others' codes are not what a Matryoshka model nests.
    fn sliced(&self, bits: u32) -> Option<Arc<dyn RowSource>> {
        if self.encoding != Encoding::Q8_0 || !(1..8).contains(&bits) {
            return None;
        }
        let unsigned = slice_table(8, bits);
        let table = std::array::from_fn(|code: usize| unsigned[code ^ 0x80] ^ 0x80);
        let Self { encoding, columns, stored } = self;
        let blocks = Self { encoding: *encoding, columns: *columns, stored: stored.clone() };
        Some(Arc::new(SlicedBlocks { blocks, table }))
    }
}

/// Q8_0 blocks with every code replaced.
#[derive(Debug)]
struct SlicedBlocks {
    blocks: Blocks,
    /// By stored code, two's complement.
    table: [u8; 256],
}

impl RowSource for SlicedBlocks {
    fn decode(&self, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        let row_bytes = self.blocks.row_bytes();
        let mut bytes = self.blocks.stored.bytes()[rows.start * row_bytes..rows.end * row_bytes].to_vec();
        for block in bytes.chunks_exact_mut(Encoding::Q8_0.block_bytes()) {
            // Behind the scale of two bytes.
            block[2..].iter_mut().for_each(|code| *code = self.table[usize::from(*code)]);
        }
        self.blocks.decode_bytes(&bytes, out)
    }

    fn release(&self) {
        self.blocks.release();
    }
}

/// A matrix with every value changed.
#[derive(Debug)]
pub(super) struct Mapped {
    pub(super) inner: Arc<dyn RowSource>,
    pub(super) map: Map,
}

impl RowSource for Mapped {
    fn decode(&self, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        self.inner.decode(rows, out)?;
        match self.map {
            Map::Times(factor) => out.iter_mut().for_each(|value| *value *= factor),
            Map::PlusOne => out.iter_mut().for_each(|value| *value += 1.0),
            Map::NegativeExp => out.iter_mut().for_each(|value| *value = -value.exp()),
        }
        Ok(())
    }

    fn release(&self) {
        self.inner.release();
    }
}

/// Matrices `[groups, in, out]`, seen as one of `[groups·out, in]`.
#[derive(Debug)]
pub(super) struct Transposed {
    pub(super) inner: Arc<dyn RowSource>,
    /// Rows of a stored matrix, in.
    pub(super) across: usize,
    /// Its columns, out.
    pub(super) group: usize,
}

impl RowSource for Transposed {
    fn decode(&self, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        let Self { inner, across, group } = self;
        let mut first = rows.start;
        let mut stored = vec![0.0; *group];
        while first < rows.end {
            let (number, within) = (first / group, first % group);
            let count = (group - within).min(rows.end - first);
            let out = &mut out[(first - rows.start) * across..][..count * across];
            for column in 0..*across {
                let row = number * across + column;
                inner.decode(row..row + 1, &mut stored)?;
                for (index, value) in stored[within..within + count].iter().enumerate() {
                    out[index * across + column] = *value;
                }
            }
            first += count;
        }
        Ok(())
    }

    fn release(&self) {
        self.inner.release();
    }
}

/// Which of a source's rows or columns stand where: of each of the model's, the source's.
pub type Order = Arc<[u32]>;

/// A weight as it lies in a file, or as it is made from one.
#[derive(Clone, Debug)]
pub struct Weight {
    /// Hugging Face's name, as "model.layers.0.self_attn.q_proj.weight".
    pub name: String,
    /// The name in the file, for messages.
    pub stored_name: String,
    /// `[out, in]` of a matrix, `[n]` of a norm or bias.
    pub shape: Vec<usize>,
    /// How the values are coded, for reports: "Q4_K", "int4 g128", "NF4".
    pub encoding: String,
    /// Bytes in the file, scales and zero points included.
    pub stored_bytes: u64,
    /// What ggml converts the input of a product with this weight to; GGUF files only.
    pub ggml_input: Option<GgmlActivation>,
    /// What the checkpoint declares about the input of the linear that this weight belongs to.
    pub input: Option<ActivationQuantization>,
    /// What it declares about the output.
    pub output: Option<ActivationQuantization>,
    /// What the reader should know about how the file was read.
    pub warnings: Vec<String>,
    /// Every tensor that was used, as stored.
    pub(super) tensors: Vec<String>,
    /// The file, for messages.
    pub(super) path: PathBuf,
    /// Which rows of the source, in the model's order; `None`: all as they are.
    pub(super) rows: Option<Order>,
    /// The columns' order; `None`: as they are.
    pub(super) columns: Option<Order>,
    pub(super) source: Arc<dyn RowSource>,
}

/// Rows decoded by one task: large enough to amortise scheduling, small enough to balance two cores.
const DECODE_TASK_WEIGHTS: usize = 1 << 16;

impl Weight {
    /// Rows of a matrix; 1 for a vector (a vector that is a part of another counts its elements as rows).
    pub fn rows(&self) -> usize {
        match (self.shape.len(), &self.rows) {
            (1, None) => 1,
            _ => self.shape.first().copied().unwrap_or(1),
        }
    }

    /// Elements of one row.
    pub fn columns(&self) -> usize {
        self.parameters().checked_div(self.rows()).unwrap_or(0)
    }

    /// Number of weights.
    pub fn parameters(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether this is a linear's or an embedding's matrix.
    pub fn is_matrix(&self) -> bool {
        self.shape.len() == 2
    }

    /// Whether it took several tensors to store it.
    pub fn is_packed(&self) -> bool {
        self.tensors.len() > 1
    }

    /// Whether both decode from the same source in the same order, so that decoding once serves both.
    pub fn same_source(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.source, &other.source) && self.rows == other.rows && self.columns == other.columns
    }

    /// This weight with its values replaced by those of `source`, which yields rows in the model's order.
    pub fn derived(&self, encoding: String, stored_bytes: u64, source: Arc<dyn RowSource>) -> Self {
        let (rows, columns) = (None, None);
        Self { encoding, stored_bytes, ggml_input: None, rows, columns, source, ..self.clone() }
    }

    /// The most significant `bits` of an integer-coded weight; `None` where it is not one, or not wider.
    pub fn sliced(&self, bits: u32) -> Option<Self> {
        let source = self.source.sliced(bits)?;
        Some(Self { source, encoding: format!("{} sliced to {bits} bits", self.encoding), ..self.clone() })
    }

    /// Decodes `rows` (in the model's order) into `out`, row-major `[rows.len(), columns]`, on all cores.
    ///
    /// # Errors
    /// A NaN or infinite value, named by row and column: a figure computed from it would mean nothing.
    pub fn decode_rows(&self, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        let columns = self.columns();
        self.check_request(&rows, out.len())?;
        let rows_per_task = (DECODE_TASK_WEIGHTS / columns).max(1);
        out.par_chunks_mut(rows_per_task * columns)
            .enumerate()
            .try_for_each(|(task, out)| self.decode_task(rows.start + task * rows_per_task, out))
    }

    /// As [`Weight::decode_rows`], on the calling thread alone: for a [`RowSource`] that is made from a weight.
    pub fn decode_rows_here(&self, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        self.check_request(&rows, out.len())?;
        self.decode_task(rows.start, out)
    }

    fn check_request(&self, rows: &Range<usize>, values: usize) -> Result<()> {
        let columns = self.columns();
        if rows.end <= self.rows() && rows.len().checked_mul(columns) == Some(values) && columns > 0 {
            return Ok(());
        }
        Err(self.problem(
            format!("rows {rows:?} were asked of {} for {values} values", self.rows()),
            "report this as a bug of qeval",
        ))
    }

    fn decode_task(&self, first: usize, out: &mut [f32]) -> Result<()> {
        let columns = self.columns();
        let mut done = 0;
        while done < out.len() / columns {
            let row = self.source_row(first + done);
            // Rows that follow each other in the source are decoded together.
            let count = match &self.rows {
                None => out.len() / columns - done,
                Some(rows) => {
                    let rest = &rows[first + done..first + out.len() / columns];
                    rest.iter().zip(row..).take_while(|(stored, next)| **stored as usize == *next).count()
                }
            };
            self.source.decode(row..row + count, &mut out[done * columns..(done + count) * columns])?;
            done += count;
        }
        self.order_columns(out);
        self.check_finite(first, out)
    }

    fn source_row(&self, row: usize) -> usize {
        self.rows.as_ref().map_or(row, |rows| rows[row] as usize)
    }

    fn order_columns(&self, values: &mut [f32]) {
        let Some(order) = &self.columns else { return };
        let mut stored = vec![0.0; order.len()];
        for row in values.chunks_exact_mut(order.len()) {
            stored.copy_from_slice(row);
            row.iter_mut().zip(order.iter()).for_each(|(value, column)| *value = stored[*column as usize]);
        }
    }

    /// Decodes the given rows, in the order given, repeats allowed: an embedding lookup.
    ///
    /// # Errors
    /// As [`Weight::decode_rows`]; also a row that does not exist.
    pub fn gather_rows(&self, rows: &[u32], out: &mut [f32]) -> Result<()> {
        let columns = self.columns();
        if let Some(row) = rows.iter().find(|row| **row as usize >= self.rows()) {
            return Err(Error::argument(
                format!(
                    "token id {row} is outside the embedding of {} rows ({})",
                    self.rows(),
                    self.stored_name
                ),
                "the tokenizer belongs to another model",
            ));
        }
        if rows.len().checked_mul(columns) != Some(out.len()) || columns == 0 {
            return Err(self.problem(
                format!("{} rows were asked for {} values", rows.len(), out.len()),
                "report this as a bug of qeval",
            ));
        }
        out.par_chunks_mut(columns).zip(rows).with_min_len(64).try_for_each(|(out, row)| {
            let row = *row as usize;
            let stored = self.source_row(row);
            self.source.decode(stored..stored + 1, out)?;
            self.order_columns(out);
            self.check_finite(row, out)
        })
    }

    /// Decodes the whole weight, row-major.
    pub fn decode(&self) -> Result<Vec<f32>> {
        let mut values = vec![0.0; self.parameters()];
        self.decode_rows(0..self.rows(), &mut values)?;
        Ok(values)
    }

    /// Hands the mapped pages of this weight back to the system.
    pub fn release(&self) {
        self.source.release();
    }

    fn check_finite(&self, first_row: usize, values: &[f32]) -> Result<()> {
        // The exponent is all ones exactly for NaN and infinity; `fold` over integers vectorizes.
        let all_finite = values.iter().fold(true, |fine, x| fine & x.is_finite());
        if all_finite {
            return Ok(());
        }
        let at = values.iter().position(|x| !x.is_finite()).unwrap_or(0);
        let (row, column) = (first_row + at / self.columns(), at % self.columns());
        Err(self.problem(
            format!("row {row}, column {column} is {}; every weight must be finite", values[at]),
            "the file is damaged or its quantization failed: write it again from the original",
        ))
    }

    /// An error about this weight.
    pub fn problem(&self, problem: impl Into<String>, help: &str) -> Error {
        Error::tensor(&self.path, &self.stored_name, problem, help)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows that are their own number times ten plus the column.
    #[derive(Debug)]
    struct Numbered(usize);

    impl RowSource for Numbered {
        fn decode(&self, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
            for (row, out) in rows.zip(out.chunks_exact_mut(self.0)) {
                out.iter_mut().enumerate().for_each(|(column, value)| *value = (row * 10 + column) as f32);
            }
            Ok(())
        }
    }

    fn weight(shape: &[usize], source: Arc<dyn RowSource>) -> Weight {
        Weight {
            name: "w".to_owned(),
            stored_name: "w".to_owned(),
            shape: shape.to_vec(),
            encoding: "F32".to_owned(),
            stored_bytes: 0,
            ggml_input: None,
            input: None,
            output: None,
            warnings: Vec::new(),
            tensors: Vec::new(),
            path: PathBuf::new(),
            rows: None,
            columns: None,
            source,
        }
    }

    #[test]
    fn rows_and_columns_are_picked_in_order() {
        let plain = weight(&[4, 3], Arc::new(Numbered(3)));
        let rows = Some(Order::from([5, 6, 2, 9]));
        let picked = Weight { rows, columns: Some(Order::from([2, 0, 1])), ..plain };
        let expected = [52.0, 50.0, 51.0, 62.0, 60.0, 61.0, 22.0, 20.0, 21.0, 92.0, 90.0, 91.0];
        assert_eq!(picked.decode().unwrap(), expected);
        let mut gathered = [0.0; 6];
        picked.gather_rows(&[3, 0], &mut gathered).unwrap();
        assert_eq!(gathered, [92.0, 90.0, 91.0, 52.0, 50.0, 51.0]);
    }

    #[test]
    fn groups_are_turned_round() {
        // Two matrices [3, 2], rows 0..3 and 3..6.
        let source = Transposed { inner: Arc::new(Numbered(2)), across: 3, group: 2 };
        let mut values = [0.0; 9];
        source.decode(1..4, &mut values).unwrap();
        assert_eq!(values, [1.0, 11.0, 21.0, 30.0, 40.0, 50.0, 31.0, 41.0, 51.0]);
    }

    #[test]
    fn values_are_mapped() {
        let mapped = |map| {
            let mut values = [0.0; 2];
            Mapped { inner: Arc::new(Numbered(2)), map }.decode(0..1, &mut values).unwrap();
            values
        };
        assert_eq!(mapped(Map::Times(3.0)), [0.0, 3.0]);
        assert_eq!(mapped(Map::PlusOne), [1.0, 2.0]);
        assert_eq!(mapped(Map::NegativeExp), [-1.0, -std::f32::consts::E]);
    }

    /// q + 128 = u, kept to its upper bits by the paper's formula, in floating point.
    #[test]
    fn a_sliced_q8_0_block_keeps_the_upper_bits_of_its_codes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("blocks");
        let codes: Vec<i8> = (-128..128).map(|code| code as i8).collect();
        let half = [0x00, 0x38]; // 0.5
        let bytes: Vec<u8> = codes
            .chunks(32)
            .flat_map(|codes| {
                half.into_iter().chain(codes.iter().map(|code| *code as u8)).collect::<Vec<_>>()
            })
            .collect();
        std::fs::write(&path, &bytes).unwrap();
        let file = Arc::new(MappedFile::open(&path).unwrap());
        let stored = StoredBytes { file, range: 0..bytes.len() };
        let blocks = Blocks { encoding: Encoding::Q8_0, columns: 256, stored };
        for bits in 1..8 {
            let mut values = [0.0; 256];
            blocks.sliced(bits).unwrap().decode(0..1, &mut values).unwrap();
            let step = 2f64.powi(8 - bits as i32);
            for (code, value) in codes.iter().zip(values) {
                let unsigned = f64::from(*code) + 128.0;
                let kept = (unsigned / step + 0.5).floor().min(2f64.powi(bits as i32) - 1.0);
                assert_eq!(f64::from(value), (kept * step - 128.0) * 0.5, "{code} at {bits} bits");
            }
        }
        assert!(blocks.sliced(8).is_none());
    }
}
