//! What a file holds of a quantized matrix: codes and scales, by the operations of the simulation.
//!
//! How codes are packed and what the tensors are called is the business of whoever writes the file.

use std::ops::Range;

use super::{
    super::{
        codebook::{self, NestedScales},
        quantizer::{FP8_BLOCK, Scheme, Share},
        rounding::{
            Asymmetric, E4m3, LlmInt8, Mxfp4, Mxfp8, Nvfp4, StoredScale, Symmetric, encode_each_group,
        },
    },
    Simulated, flat,
};
use crate::{checkpoint::Weight, error::Result};

/// A matrix on its way into a file.
#[derive(Debug)]
pub(crate) struct Encoder {
    source: Simulated,
}

impl Encoder {
    pub(in super::super) fn new(source: Simulated) -> Self {
        Self { source }
    }

    /// The original.
    pub(crate) fn weight(&self) -> &Weight {
        &self.source.inner
    }

    /// How it is quantized.
    pub(crate) fn scheme(&self) -> Scheme {
        self.source.scheme
    }

    /// Rows and columns of the weights that share a scale; of codebooks, whose blocks know no rows, a block.
    pub(crate) fn shared(&self) -> [usize; 2] {
        let columns = self.weight().columns();
        match self.scheme() {
            Scheme::Int { group, .. } => [1, group.unwrap_or(columns)],
            Scheme::E4m3(Share::Matrix) => [self.weight().rows(), columns],
            Scheme::E4m3(Share::Block) => [FP8_BLOCK, FP8_BLOCK],
            Scheme::Nvfp4 => [1, 16],
            Scheme::Mxfp4 | Scheme::Mxfp8 => [1, 32],
            Scheme::Codebook { .. } => [1, codebook::BLOCK],
            Scheme::E4m3(Share::Row) | Scheme::LlmInt8 | Scheme::Ggml(_) => [1, columns],
        }
    }

    /// Codes of `rows`, one byte each, row-major, and their scales, in the order of [`Encoder::shared`]'s grid.
    ///
    /// Integers are two's complement. Where rows share scales, `rows` begins with such a group of rows.
    ///
    /// # Errors
    /// A weight that is not finite, or a scale that would not be; a scheme that has no codes of rows.
    pub(crate) fn rows(
        &self,
        rows: Range<usize>,
        codes: &mut [u8],
        scales: &mut [StoredScale],
    ) -> Result<()> {
        let weight = self.weight();
        let columns = weight.columns();
        let mut values = vec![0.0; codes.len()];
        weight.decode_rows_here(rows.clone(), &mut values)?;
        let values = values.as_mut_slice();
        let [shared_rows, group] = self.shared();
        match self.scheme() {
            Scheme::Int { bits, symmetric: true, .. } => {
                encode_each_group(Symmetric { bits }, group, values, codes, scales);
            }
            Scheme::Int { bits, symmetric: false, .. } => {
                encode_each_group(Asymmetric { bits }, group, values, codes, scales);
            }
            Scheme::E4m3(Share::Row) => encode_each_group(E4m3 { amax: None }, group, values, codes, scales),
            Scheme::E4m3(Share::Block) => {
                let across = columns.div_ceil(FP8_BLOCK).max(1);
                let each = values.chunks_exact_mut(columns).zip(codes.chunks_exact_mut(columns));
                for (row, (values, codes)) in rows.clone().zip(each) {
                    let found = self.source.found(&self.source.bands[row / FP8_BLOCK])?;
                    let scales = &mut scales[(row - rows.start) / FP8_BLOCK * across..];
                    let blocks = values.chunks_mut(FP8_BLOCK).zip(codes.chunks_mut(FP8_BLOCK));
                    for (((values, codes), amax), scale) in blocks.zip(found).zip(scales.chunks_mut(1)) {
                        encode_each_group(E4m3 { amax: Some(*amax) }, FP8_BLOCK, values, codes, scale);
                    }
                }
            }
            Scheme::Nvfp4 => {
                encode_each_group(Nvfp4::new(self.source.amax()?), group, values, codes, scales);
            }
            Scheme::Mxfp4 => encode_each_group(Mxfp4, group, values, codes, scales),
            Scheme::Mxfp8 => encode_each_group(Mxfp8, group, values, codes, scales),
            Scheme::LlmInt8 => encode_each_group(LlmInt8, group, values, codes, scales),
            Scheme::E4m3(Share::Matrix) | Scheme::Codebook { .. } | Scheme::Ggml(_) => {
                return Err(weight.problem(
                    "has no codes row by row in this scheme".to_owned(),
                    "report this as a bug of qeval",
                ));
            }
        }
        match scales.iter().position(|stored| !stored.scale.is_finite()) {
            None => Ok(()),
            Some(at) => {
                let row = rows.start + at / columns.div_ceil(group).max(1) * shared_rows;
                Err(weight.problem(
                    format!("row {row} has weights beyond what the format can hold: its scale is infinite"),
                    "the weights are damaged; or choose a format that does not go through f16",
                ))
            }
        }
    }

    /// Codes of whole blocks of the flattened matrix, and the largest magnitude of each; codebooks only.
    ///
    /// # Errors
    /// A weight that is not finite.
    pub(crate) fn blocks(&self, blocks: Range<usize>, codes: &mut [u8], absmax: &mut [f32]) -> Result<()> {
        let weight = self.weight();
        let Scheme::Codebook { book, .. } = self.scheme() else {
            let problem = "is not cut into blocks by this scheme";
            return Err(weight.problem(problem, "report this as a bug of qeval"));
        };
        let end = (blocks.end * codebook::BLOCK).min(weight.parameters());
        let values = flat(weight, blocks.start * codebook::BLOCK..end)?;
        codebook::encode_blocks(book, &values, codes, absmax);
        Ok(())
    }

    /// NVFP4's factor of the whole matrix.
    ///
    /// # Errors
    /// A weight that is not finite.
    pub(crate) fn global(&self) -> Result<f32> {
        Ok(Nvfp4::new(self.source.amax()?).global())
    }

    /// The scales of all blocks, double-quantized.
    ///
    /// # Errors
    /// A weight that is not finite.
    pub(crate) fn nested(&self) -> Result<NestedScales> {
        Ok(NestedScales::new(&self.source.all_found()?))
    }
}
