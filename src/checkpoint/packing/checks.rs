//! What packings check alike about sizes that come from a file.

use safetensors::Dtype;

use super::TensorView;
use crate::error::Result;

/// Element types that scales are stored in, where none has fewer than 16 bits.
pub(super) const FLOATS: &[Dtype] = &[Dtype::F16, Dtype::BF16, Dtype::F32];

/// The rows and columns of a matrix whose sizes were taken from a file.
///
/// # Errors
/// None of either, or more weights than can be counted.
pub(super) fn matrix_shape(view: &TensorView, rows: usize, columns: Option<usize>) -> Result<[usize; 2]> {
    match columns.filter(|columns| rows > 0 && *columns > 0 && rows.checked_mul(*columns).is_some()) {
        Some(columns) => Ok([rows, columns]),
        None => Err(view.problem(
            format!("has shape {:?}, which is no matrix of weights", view.shape),
            "the file is damaged: download or write it again",
        )),
    }
}

/// All axes but the last as one: a stack of matrices `[experts, out, …]` as the matrix `[experts·out, …]`.
pub(super) fn stacked(shape: &[usize]) -> [usize; 2] {
    let (columns, leading) = shape.split_last().map_or((0, shape), |(last, leading)| (*last, leading));
    let rows = leading.iter().try_fold(1usize, |rows, size| rows.checked_mul(*size));
    [rows.filter(|_| !leading.is_empty()).unwrap_or(0), columns]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_of_matrices_are_one_matrix() {
        assert_eq!(stacked(&[3, 5, 7]), [15, 7]);
        assert_eq!((stacked(&[5, 7]), stacked(&[2, 3, 5, 7])), ([5, 7], [30, 7]));
        assert_eq!((stacked(&[7]), stacked(&[])), ([0, 7], [0, 0]));
        assert_eq!(stacked(&[usize::MAX, 2, 7]), [0, 7]);
    }
}
