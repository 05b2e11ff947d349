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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::packing::fixture::Fixture;

    fn found(stored: &[usize], shape: [usize; 2], declared: Option<Block>) -> Result<(usize, usize), String> {
        let fixture = Fixture::default().floats("s", stored, &vec![1.0; stored.iter().product()]);
        let opened = fixture.open();
        let scales = opened.tensors().get("s").unwrap();
        Block::of(&scales, shape, declared)
            .map(|block| (block.rows, block.columns))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn blocks_follow_from_shapes() {
        for (stored, shape, expected) in [
            (&[][..], [8, 64], (8, 64)),
            (&[1], [8, 64], (8, 64)),
            (&[1, 1], [8, 64], (8, 64)),
            (&[8], [8, 64], (1, 64)),
            (&[8, 1], [8, 64], (1, 64)),
            (&[8, 4], [8, 64], (1, 16)),
            (&[1, 4], [8, 64], (8, 16)),
            (&[2, 4], [8, 64], (4, 16)),
            (&[2, 1, 3, 1], [256, 384], (128, 128)),
            // Not divided by 128: the edge is smaller, as the usual block has it.
            (&[2, 3], [200, 300], (128, 128)),
            (&[1, 3], [128, 300], (128, 128)),
            (&[2, 1], [200, 100], (128, 100)),
        ] {
            assert_eq!(found(stored, shape, None), Ok(expected), "{stored:?} over {shape:?}");
        }
    }

    #[test]
    fn settings_decide_where_they_explain_the_shape() {
        let block = |rows, columns| Some(Block { rows, columns });
        // 200 rows in two blocks: of 128 by usage, of 100 if that is declared.
        assert_eq!(found(&[2, 4], [200, 400], block(100, 100)), Ok((100, 100)));
        assert_eq!(found(&[2, 4], [200, 400], block(64, 64)), Ok((128, 128)));
        // A last group that is smaller is believed only where it is declared.
        assert_eq!(found(&[8, 3], [8, 80], block(1, 32)), Ok((1, 32)));
        let error = found(&[8, 3], [8, 80], None).unwrap_err();
        assert!(
            error.contains("has shape [8, 3] for weights of [8, 80], expected one scale, or [8, n]"),
            "{error}"
        );
        assert!(error.ends_with("with n a divisor of 80"), "{error}");
        let error = found(&[8, 3], [8, 80], block(1, 16)).unwrap_err();
        assert!(error.ends_with("expected [8, 5] for g16"), "{error}");
        for stored in [&[4][..], &[3, 80], &[9, 1], &[8, 0], &[2, 2, 2]] {
            assert!(found(stored, [8, 80], None).is_err(), "{stored:?}");
        }
        assert_eq!(found(&[8, 1], [8, 80], block(1, usize::MAX)), Ok((1, 80)));
    }

    #[test]
    fn names_are_those_of_the_field() {
        for (rows, columns, name) in [
            (8, 64, "tensor"),
            (1, 64, "channel"),
            (1, 16, "g16"),
            (4, 16, "block 4x16"),
            (usize::MAX, usize::MAX, "tensor"),
        ] {
            assert_eq!(Block { rows, columns }.name([8, 64]), name);
        }
    }
}
