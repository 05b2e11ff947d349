//! The rows of a matrix as a quantizer would leave them, made anew whenever they are asked for.
//!
//! No dense copy is kept. What a scheme must know of the whole matrix (its largest magnitude, the scales of all
//! blocks) is gathered once, when the first row is asked for, in bands that all asking threads share out.

mod encode;

use std::{
    ops::Range,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

pub(crate) use self::encode::Encoder;
use super::{
    codebook::{self, Codebook, NestedScales},
    ggml,
    quantizer::{FP8_BLOCK, Scheme, Share},
    rounding::{Asymmetric, E4m3, LlmInt8, Mxfp4, Mxfp8, Nvfp4, Symmetric, each_group, largest_magnitude},
};
use crate::{
    checkpoint::{RowSource, Weight},
    error::Result,
};

/// A weight seen through a quantizer.
#[derive(Debug)]
pub(super) struct Simulated {
    inner: Weight,
    scheme: Scheme,
    /// Matrices whose values decide about scales of this one: itself, and what a runtime joins with it.
    observed: Vec<Weight>,
    bands: Vec<Band>,
    /// The first band that no thread has taken.
    next: AtomicUsize,
    whole: OnceLock<Vec<f32>>,
}

/// What was found in some rows (flat blocks, for codebooks) of an observed matrix.
#[derive(Debug)]
struct Band {
    matrix: usize,
    range: Range<usize>,
    found: OnceLock<Vec<f32>>,
}

/// Weights of a band: few enough that many threads share out a matrix.
const BAND_WEIGHTS: usize = 1 << 20;

impl Simulated {
    /// `joined`: other matrices that share NVFP4's factor with this one.
    pub(super) fn new(inner: Weight, scheme: Scheme, joined: Vec<Weight>) -> Self {
        let observed: Vec<Weight> = match scheme {
            Scheme::Nvfp4 => std::iter::once(inner.clone()).chain(joined).collect(),
            Scheme::E4m3(Share::Matrix | Share::Block) | Scheme::Codebook { double_quantized: true, .. } => {
                vec![inner.clone()]
            }
            _ => Vec::new(),
        };
        let mut bands = Vec::new();
        for (matrix, weight) in observed.iter().enumerate() {
            let (units, step) = match scheme {
                Scheme::E4m3(Share::Block) => (weight.rows(), FP8_BLOCK),
                Scheme::Codebook { .. } => {
                    (weight.parameters().div_ceil(codebook::BLOCK), BAND_WEIGHTS / codebook::BLOCK)
                }
                _ => (weight.rows(), (BAND_WEIGHTS / weight.columns().max(1)).max(1)),
            };
            bands.extend((0..units).step_by(step).map(|first| Band {
                matrix,
                range: first..units.min(first.saturating_add(step)),
                found: OnceLock::new(),
            }));
        }
        Self { inner, scheme, observed, bands, next: AtomicUsize::new(0), whole: OnceLock::new() }
    }

    /// What a band holds. Two threads may both find it, and find the same: nobody waits for anybody, so that a
    /// thread of the pool never sleeps.
    fn found<'a>(&self, band: &'a Band) -> Result<&'a [f32]> {
        if band.found.get().is_none() {
            let found = self.observe(band)?;
            // If another thread was first, its figures are these.
            let _ = band.found.set(found);
        }
        Ok(band.found.get().map_or(&[], Vec::as_slice))
    }

    /// What the scheme must know of all that is observed: the largest magnitude, or for double quantization every
    /// block's scale as it will be restored.
    fn whole(&self) -> Result<&[f32]> {
        if self.whole.get().is_none() {
            let all = self.all_found()?;
            let whole = match self.scheme {
                Scheme::Codebook { .. } => NestedScales::new(&all).restored(),
                _ => vec![largest_magnitude(&all)],
            };
            let _ = self.whole.set(whole);
        }
        Ok(self.whole.get().map_or(&[], Vec::as_slice))
    }

    /// What all bands hold, in their order.
    fn all_found(&self) -> Result<Vec<f32>> {
        while let Some(band) = self.bands.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            self.found(band)?;
        }
        Ok(self.bands.iter().map(|band| self.found(band)).collect::<Result<Vec<_>>>()?.concat())
    }

    fn amax(&self) -> Result<f32> {
        Ok(self.whole()?.first().copied().unwrap_or(0.0))
    }

    fn observe(&self, band: &Band) -> Result<Vec<f32>> {
        let weight = &self.observed[band.matrix];
        let columns = weight.columns();
        match self.scheme {
            Scheme::Codebook { .. } => {
                let end = (band.range.end * codebook::BLOCK).min(weight.parameters());
                let values = flat(weight, band.range.start * codebook::BLOCK..end)?;
                Ok(values.chunks(codebook::BLOCK).map(largest_magnitude).collect())
            }
            Scheme::E4m3(Share::Block) => {
                let values = whole_rows(weight, band.range.clone())?;
                let mut found = vec![0.0f32; columns.div_ceil(FP8_BLOCK)];
                for row in values.chunks_exact(columns) {
                    for (found, block) in found.iter_mut().zip(row.chunks(FP8_BLOCK)) {
                        *found = found.max(largest_magnitude(block));
                    }
                }
                Ok(found)
            }
            _ => Ok(vec![largest_magnitude(&whole_rows(weight, band.range.clone())?)]),
        }
    }

    fn round_rows(&self, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        let columns = self.inner.columns();
        self.inner.decode_rows_here(rows.clone(), out)?;
        match self.scheme {
            Scheme::Ggml(encoding) => {
                if !ggml::round(encoding, out) {
                    return Err(self.inner.problem(
                        format!("{} has no quantizer here", encoding.name()),
                        "report this as a bug of qeval",
                    ));
                }
            }
            Scheme::Int { bits, symmetric, group } => {
                let group = group.unwrap_or(columns);
                match symmetric {
                    true => each_group(Symmetric { bits }, group, out),
                    false => each_group(Asymmetric { bits }, group, out),
                }
            }
            Scheme::E4m3(Share::Row) => each_group(E4m3 { amax: None }, columns, out),
            Scheme::E4m3(Share::Matrix) => each_group(E4m3 { amax: Some(self.amax()?) }, columns, out),
            Scheme::E4m3(Share::Block) => {
                for (row, out) in rows.zip(out.chunks_exact_mut(columns)) {
                    let scales = self.found(&self.bands[row / FP8_BLOCK])?;
                    for (block, amax) in out.chunks_mut(FP8_BLOCK).zip(scales) {
                        each_group(E4m3 { amax: Some(*amax) }, FP8_BLOCK, block);
                    }
                }
            }
            Scheme::Nvfp4 => each_group(Nvfp4::new(self.amax()?), 16, out),
            Scheme::Mxfp4 => each_group(Mxfp4, 32, out),
            Scheme::Mxfp8 => each_group(Mxfp8, 32, out),
            Scheme::LlmInt8 => each_group(LlmInt8, columns, out),
            Scheme::Codebook { .. } => {}
        }
        Ok(())
    }

    /// Blocks run through the flattened matrix: the rows asked for may begin and end inside of one.
    fn round_flat(
        &self,
        codebook: Codebook,
        double: bool,
        rows: Range<usize>,
        out: &mut [f32],
    ) -> Result<()> {
        let columns = self.inner.columns();
        let asked = rows.start * columns..rows.end * columns;
        let blocks = asked.start / codebook::BLOCK..asked.end.div_ceil(codebook::BLOCK);
        let whole =
            blocks.start * codebook::BLOCK..(blocks.end * codebook::BLOCK).min(self.inner.parameters());
        let aligned = whole == asked;
        let mut around = Vec::new();
        let values: &mut [f32] = match aligned {
            true => {
                self.inner.decode_rows_here(rows, out)?;
                out
            }
            false => {
                around = flat(&self.inner, whole.clone())?;
                &mut around
            }
        };
        match double {
            false => each_group(codebook, codebook::BLOCK, values),
            true => codebook::round_restored(codebook, &self.whole()?[blocks], values),
        }
        if !aligned {
            out.copy_from_slice(&around[asked.start - whole.start..asked.end - whole.start]);
        }
        Ok(())
    }
}

impl RowSource for Simulated {
    fn decode(&self, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        match self.scheme {
            Scheme::Codebook { book, double_quantized } => {
                self.round_flat(Codebook::new(book), double_quantized, rows, out)
            }
            _ => self.round_rows(rows, out),
        }
    }

    fn release(&self) {
        self.inner.release();
    }
}

fn whole_rows(weight: &Weight, rows: Range<usize>) -> Result<Vec<f32>> {
    let mut values = vec![0.0; rows.len() * weight.columns()];
    weight.decode_rows_here(rows, &mut values)?;
    Ok(values)
}

/// A stretch of the flattened matrix.
fn flat(weight: &Weight, range: Range<usize>) -> Result<Vec<f32>> {
    let columns = weight.columns();
    let rows = range.start / columns..range.end.div_ceil(columns);
    let before = range.start - rows.start * columns;
    let mut values = whole_rows(weight, rows)?;
    values.truncate(before + range.len());
    values.drain(..before);
    Ok(values)
}
