//! One weight of a model, ready to be decoded row by row.
//!
//! A weight carries Hugging Face's name and row order whatever file it lies in;
//! what the file calls it and how it orders rows ends here. Nothing outside
//! `checkpoint` knows encodings beyond their name.

use std::{ops::Range, sync::Arc};

use rayon::prelude::*;

use super::{encoding::Encoding, mapped::MappedFile};
use crate::error::{Error, Result};

/// Order of the rows in the file against the order that the model wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowOrder {
    /// As the model wants them.
    Plain,
    /// llama.cpp's converter interleaves the two rotary halves of every head of q and k:
    /// row `2j + s` of a head in the file is row `s·d/2 + j` in the model.
    RotaryInterleaved {
        /// Rows of one head, d.
        head_dim: usize,
    },
}

impl RowOrder {
    fn stored_row(self, row: usize) -> usize {
        match self {
            RowOrder::Plain => row,
            RowOrder::RotaryInterleaved { head_dim } => {
                let (head, within) = (row / head_dim, row % head_dim);
                let half = head_dim / 2;
                head * head_dim + 2 * (within % half) + within / half
            }
        }
    }
}

/// A weight as it lies in a file.
#[derive(Clone, Debug)]
pub struct Weight {
    /// Hugging Face's name, as "model.layers.0.self_attn.q_proj.weight".
    pub name: String,
    /// The name in the file, for messages.
    pub stored_name: String,
    /// `[out, in]` of a matrix, `[n]` of a norm or bias.
    pub shape: Vec<usize>,
    /// How the values are coded.
    pub encoding: Encoding,
    pub(super) row_order: RowOrder,
    pub(super) file: Arc<MappedFile>,
    pub(super) bytes: Range<usize>,
}

/// Rows decoded by one task: large enough to amortise scheduling, small enough to balance two cores.
const DECODE_TASK_WEIGHTS: usize = 1 << 16;

impl Weight {
    /// Rows of a matrix; 1 for a vector (a reordered vector counts its elements as rows).
    pub fn rows(&self) -> usize {
        match (self.shape.len(), self.row_order) {
            (1, RowOrder::Plain) => 1,
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

    /// Bytes in the file, scales included.
    pub fn stored_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Decodes `rows` (in the model's order) into `out`, row-major `[rows.len(), columns]`, on all cores.
    ///
    /// # Errors
    /// A NaN or infinite value, named by row and column: a figure computed from it would mean nothing.
    pub fn decode_rows(&self, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        let columns = self.columns();
        let row_bytes = self.row_bytes();
        let wanted = rows.len().checked_mul(columns);
        if rows.end > self.rows() || wanted != Some(out.len()) || columns == 0 {
            return Err(self.problem(
                format!("rows {rows:?} were asked of {} for {} values", self.rows(), out.len()),
                "report this as a bug of qeval",
            ));
        }
        let stored = &self.file.bytes()[self.bytes.clone()];
        let rows_per_task = (DECODE_TASK_WEIGHTS / columns).max(1);
        out.par_chunks_mut(rows_per_task * columns).enumerate().try_for_each(|(task, out)| {
            let first = rows.start + task * rows_per_task;
            if self.row_order == RowOrder::Plain {
                let bytes = &stored[first * row_bytes..][..out.len() / columns * row_bytes];
                self.decode_block(bytes, out)?;
            } else {
                for (offset, out) in out.chunks_exact_mut(columns).enumerate() {
                    let row = self.row_order.stored_row(first + offset);
                    self.decode_block(&stored[row * row_bytes..][..row_bytes], out)?;
                }
            }
            self.check_finite(first, out)
        })
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
        let stored = &self.file.bytes()[self.bytes.clone()];
        let row_bytes = self.row_bytes();
        out.par_chunks_mut(columns).zip(rows).with_min_len(64).try_for_each(|(out, row)| {
            let row = *row as usize;
            self.decode_block(&stored[self.row_order.stored_row(row) * row_bytes..][..row_bytes], out)?;
            self.check_finite(row, out)
        })
    }

    fn decode_block(&self, bytes: &[u8], out: &mut [f32]) -> Result<()> {
        self.encoding
            .decode(bytes, out)
            .map_err(|mismatch| self.problem(mismatch.to_string(), "report this as a bug of qeval"))
    }

    fn row_bytes(&self) -> usize {
        self.columns() / self.encoding.block_weights() * self.encoding.block_bytes()
    }

    /// Decodes the whole weight, row-major.
    pub fn decode(&self) -> Result<Vec<f32>> {
        let mut values = vec![0.0; self.parameters()];
        self.decode_rows(0..self.rows(), &mut values)?;
        Ok(values)
    }

    /// Hands the mapped pages of this weight back to the system.
    pub fn release(&self) {
        self.file.release(self.bytes.clone());
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

    fn problem(&self, problem: String, help: &str) -> Error {
        Error::tensor(self.file.path(), &self.stored_name, problem, help)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interleaved_order_undoes_the_converter() {
        // The converter: rows of a head viewed as [2, d/2], transposed to [d/2, 2].
        let (heads, head_dim) = (3, 8);
        let half = head_dim / 2;
        let mut stored = Vec::new();
        for head in 0..heads {
            for j in 0..half {
                for s in 0..2 {
                    stored.push(head * head_dim + s * half + j);
                }
            }
        }
        let order = RowOrder::RotaryInterleaved { head_dim };
        for row in 0..heads * head_dim {
            assert_eq!(stored[order.stored_row(row)], row);
        }
    }
}
