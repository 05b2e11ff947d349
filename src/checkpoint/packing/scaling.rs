//! Which weights share a scale, worked out from the shapes of weights and scales.
//!
//! One scale, one per row, one per group of a row, one per block: all are a block of so many rows and columns.
//! Settings are needed only where a block does not divide the matrix; where they contradict the shapes, the shapes are
//! believed.

use super::TensorView;
use crate::error::Result;

/// The weights that share a scale: so many neighbouring rows by so many neighbouring columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::checkpoint) struct Block {
    /// Rows; the lowest block of a matrix may have fewer.
    pub(in crate::checkpoint) rows: usize,
    /// Columns; the rightmost block may have fewer.
    pub(in crate::checkpoint) columns: usize,
}

/// The block that every tool for FP8 uses; believed where a shape allows several.
const USUAL_BLOCK: usize = 128;

impl Block {
    /// Cut to the matrix, so that equal groupings are equal.
    pub(in crate::checkpoint) fn within(self, [out, inner]: [usize; 2]) -> Self {
        Self { rows: self.rows.min(out).max(1), columns: self.columns.min(inner).max(1) }
    }

    /// The shape of the scales.
    pub(in crate::checkpoint) fn grid(self, [out, inner]: [usize; 2]) -> [usize; 2] {
        [out.div_ceil(self.rows), inner.div_ceil(self.columns)]
    }

    /// For reports: "tensor", "channel", "g128", "block 128x128".
    pub(in crate::checkpoint) fn name(self, [out, inner]: [usize; 2]) -> String {
        match (self.rows, self.columns) {
            (rows, columns) if rows >= out && columns >= inner => "tensor".to_owned(),
            (1, columns) if columns >= inner => "channel".to_owned(),
            (1, columns) => format!("g{columns}"),
            (rows, columns) => format!("block {rows}x{columns}"),
        }
    }

    /// The block that `scales` have over a matrix of `shape`; `declared` decides where it explains their shape.
    ///
    /// # Errors
    /// Scales whose number no block explains, with what was expected.
    pub(in crate::checkpoint) fn of(
        scales: &TensorView,
        shape: [usize; 2],
        declared: Option<Block>,
    ) -> Result<Self> {
        let [out, inner] = shape;
        let declared = declared.map(|block| block.within(shape));
        let found = stored_grid(scales.shape, shape);
        if let (Some(block), Some(found)) = (declared, found)
            && block.grid(shape) == found
        {
            return Ok(block);
        }
        let block = found.and_then(|[rows, columns]| {
            // Groups of a row divide it; blocks may overlap the edge, and are then of the usual size.
            let blocks = rows < out && rows > 1 || columns < inner && columns > 1 && rows < out;
            let side = |parts: usize, whole: usize| match parts {
                0 => None,
                1 => Some(whole),
                parts if blocks && whole.div_ceil(USUAL_BLOCK) == parts => Some(USUAL_BLOCK),
                parts => whole.is_multiple_of(parts).then_some(whole / parts),
            };
            Some(Block { rows: side(rows, out)?, columns: side(columns, inner)? })
        });
        block.ok_or_else(|| {
            let expected = match declared {
                Some(block) => format!("{:?} for {}", block.grid(shape), block.name(shape)),
                None => format!("one scale, or [{out}, n] with n a divisor of {inner}"),
            };
            scales.problem(
                format!("has shape {:?} for weights of {shape:?}, expected {expected}", scales.shape),
                "the group size of the settings is wrong, or the file is damaged or packed in another way",
            )
        })
    }
}

/// The shape as rows and columns: one number, a list of one per row, or a matrix with axes of length one between.
fn stored_grid(shape: &[usize], [out, _]: [usize; 2]) -> Option<[usize; 2]> {
    match *shape {
        [rows, columns] => Some([rows, columns]),
        [rows, 1, columns, 1] => Some([rows, columns]),
        _ if shape.iter().all(|n| *n == 1) => Some([1, 1]),
        [rows] if rows == out => Some([out, 1]),
        _ => None,
    }
}
