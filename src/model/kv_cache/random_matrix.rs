//! Seeded random matrices, and products of many vectors with one of them.
//!
//! The same seed gives the same matrix in every run. Every sum runs over the columns in their order, so that
//! a product does not depend on which vectors are computed with it.

use crate::model::random::SplitMix;
use std::f64::consts::TAU;

/// Lanes of a row; rows are padded with zeros to a multiple.
pub(super) const LANES: usize = 16;

/// Vectors that share a pass over the matrix.
const TILE: usize = 4;

/// Length of a padded vector.
pub(super) const fn padded(dim: usize) -> usize {
    dim.next_multiple_of(LANES)
}

/// A square matrix M and its transpose, ready for M·x and Mᵀ·x.
#[derive(Debug)]
pub(super) struct Matrix {
    dim: usize,
    /// Column j of M in row j, padded: what M·x adds up.
    columns: Vec<f32>,
    /// Row j of M in row j, padded: what Mᵀ·x adds up.
    rows: Vec<f32>,
}

impl Matrix {
    /// Independent standard normal entries.
    pub(super) fn gaussian(dim: usize, seed: u64) -> Self {
        Self::new(dim, &normals(dim, seed))
    }

    /// An orthogonal matrix drawn evenly from all: the orthogonal factor of a Gaussian matrix, with the signs
    /// that make the triangular factor's diagonal positive.
    pub(super) fn orthogonal(dim: usize, seed: u64) -> Self {
        let mut rows = normals(dim, seed);
        for row in 0..dim {
            let (done, rest) = rows.split_at_mut(row * dim);
            let row = &mut rest[..dim];
            // Gram-Schmidt twice over: once leaves rounding errors, twice is enough (Kahan).
            for _ in 0..2 {
                for earlier in done.chunks_exact(dim) {
                    let along: f64 = earlier.iter().zip(&*row).map(|(a, b)| a * b).sum();
                    for (x, a) in row.iter_mut().zip(earlier) {
                        *x -= along * a;
                    }
                }
                let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
                for x in row.iter_mut() {
                    *x /= norm;
                }
            }
        }
        Self::new(dim, &rows)
    }

    fn new(dim: usize, entries: &[f64]) -> Self {
        let stride = padded(dim);
        let (mut columns, mut rows) = (vec![0.0; dim * stride], vec![0.0; dim * stride]);
        for (row, entries) in entries.chunks_exact(dim).enumerate() {
            for (column, entry) in entries.iter().enumerate() {
                rows[row * stride + column] = *entry as f32;
                columns[column * stride + row] = *entry as f32;
            }
        }
        Self { dim, columns, rows }
    }

    /// M·x for padded vectors.
    #[inline(always)]
    pub(super) fn times(&self, x: &[f32], out: &mut [f32]) {
        self.product(&self.columns, x, out);
    }

    /// Mᵀ·x for padded vectors.
    #[inline(always)]
    pub(super) fn transposed_times(&self, x: &[f32], out: &mut [f32]) {
        self.product(&self.rows, x, out);
    }

    /// `out[v] = Σ_j x[v][j]·matrix[j]`.
    #[inline(always)]
    fn product(&self, matrix: &[f32], x: &[f32], out: &mut [f32]) {
        let stride = padded(self.dim);
        let mut tiles = x.chunks_exact(TILE * stride);
        let mut outs = out.chunks_exact_mut(TILE * stride);
        for (x, out) in tiles.by_ref().zip(outs.by_ref()) {
            self.tile::<TILE>(matrix, x, out);
        }
        let rest = tiles.remainder().chunks_exact(stride);
        for (x, out) in rest.zip(outs.into_remainder().chunks_exact_mut(stride)) {
            self.tile::<1>(matrix, x, out);
        }
    }

    #[inline(always)]
    fn tile<const N: usize>(&self, matrix: &[f32], x: &[f32], out: &mut [f32]) {
        let stride = padded(self.dim);
        for first in (0..stride).step_by(LANES) {
            let mut sums = [[0f32; LANES]; N];
            for (j, row) in matrix.chunks_exact(stride).enumerate() {
                let Some(row) = row[first..].first_chunk::<LANES>() else { continue };
                for vector in 0..N {
                    let factor = x[vector * stride + j];
                    for lane in 0..LANES {
                        sums[vector][lane] += factor * row[lane];
                    }
                }
            }
            for (vector, sums) in sums.iter().enumerate() {
                out[vector * stride + first..][..LANES].copy_from_slice(sums);
            }
        }
    }

    /// Entry of M.
    #[cfg(test)]
    pub(super) fn entry(&self, row: usize, column: usize) -> f32 {
        self.rows[row * padded(self.dim) + column]
    }
}

/// dim² standard normal numbers: Box and Muller's method on [`SplitMix`].
fn normals(dim: usize, seed: u64) -> Vec<f64> {
    let mut uniform = SplitMix::seeded(seed);
    let mut numbers = Vec::with_capacity(dim * dim + 1);
    while numbers.len() < dim * dim {
        let radius = (-2.0 * (1.0 - uniform.next()).ln()).sqrt();
        let angle = TAU * uniform.next();
        numbers.extend([radius * angle.cos(), radius * angle.sin()]);
    }
    numbers.truncate(dim * dim);
    numbers
}
