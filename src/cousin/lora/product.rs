//! W + s·B·A for a few rows: the small product that makes an adapted weight.

use pulp::{Arch, Simd, WithSimd};

/// Adds `scaling` · `left` · `right` to `out`.
///
/// `left` is `[rows, rank]`, `right` `[rank, columns]`, `out` `[rows, columns]`, all row-major. The sum over the rank
/// goes up from its first term in f32 and is scaled at its end, so that a value does not depend on how rows are cut
/// into calls.
pub(super) fn add_product(out: &mut [f32], left: &[f32], right: &[f32], columns: usize, scaling: f32) {
    Arch::new().dispatch(AddProduct { out, left, right, columns, scaling });
}

struct AddProduct<'a> {
    out: &'a mut [f32],
    left: &'a [f32],
    right: &'a [f32],
    columns: usize,
    scaling: f32,
}

/// Rows and columns of a tile: its sums stay in registers.
const ROWS: usize = 4;
const COLUMNS: usize = 16;

impl WithSimd for AddProduct<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { out, left, right, columns, scaling } = self;
        let rows = out.len().checked_div(columns).unwrap_or(0);
        if rows == 0 {
            return;
        }
        let rank = left.len() / rows;
        let mut row = 0;
        while row < rows {
            let step = if rows - row >= ROWS { ROWS } else { 1 };
            let out = &mut out[row * columns..(row + step) * columns];
            let left = &left[row * rank..(row + step) * rank];
            if step == ROWS {
                some_rows::<ROWS>(out, left, right, columns, scaling);
            } else {
                some_rows::<1>(out, left, right, columns, scaling);
            }
            row += step;
        }
    }
}

#[inline(always)]
fn some_rows<const N: usize>(out: &mut [f32], left: &[f32], right: &[f32], columns: usize, scaling: f32) {
    let rank = left.len() / N;
    let whole = columns / COLUMNS * COLUMNS;
    for first in (0..whole).step_by(COLUMNS) {
        let mut sums = [[0.0f32; COLUMNS]; N];
        for (k, right) in right.chunks_exact(columns).enumerate() {
            let right = &right[first..first + COLUMNS];
            for (row, sums) in sums.iter_mut().enumerate() {
                let factor = left[row * rank + k];
                for (sum, right) in sums.iter_mut().zip(right) {
                    *sum += factor * right;
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            let at = row * columns + first;
            for (out, sum) in out[at..at + COLUMNS].iter_mut().zip(sums) {
                *out += scaling * sum;
            }
        }
    }
    for (out, left) in out.chunks_exact_mut(columns).zip(left.chunks_exact(rank.max(1))) {
        for (column, out) in out.iter_mut().enumerate().skip(whole) {
            let terms =
                left.iter().zip(right.chunks_exact(columns)).map(|(left, right)| left * right[column]);
            *out += scaling * terms.sum::<f32>();
        }
    }
}

/// Square root of the sum of squares, in f64.
pub(super) fn norm(row: &[f32]) -> f64 {
    let (chunks, rest) = row.as_chunks::<8>();
    let mut sums = [0.0f64; 8];
    for chunk in chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += f64::from(*x) * f64::from(*x);
        }
    }
    let rest: f64 = rest.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
    (sums.iter().sum::<f64>() + rest).sqrt()
}
