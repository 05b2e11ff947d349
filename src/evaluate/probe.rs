//! Layer probes: two sides' hidden states, tile by tile, into error accumulators.

use candle_core::Tensor;
use rayon::prelude::*;

use super::{plan::Tile, to_values};
use crate::{
    checkpoint::Weight,
    error::{Error, Result},
    metrics::layer::{LayerErrors, WeightErrors},
};

/// Rows that one task absorbs.
const ROWS_PER_TASK: usize = 64;
/// Weights compared at once: large enough for the decoders, small beside a layer.
const WEIGHTS_PER_BLOCK: usize = 1 << 20;

/// Which rows of a tile are position 0 of their sequence.
fn first_flags(tile: &Tile) -> Vec<bool> {
    let positions = |(tokens, before): (usize, usize)| before..before + tokens;
    tile.lengths().flat_map(positions).map(|position| position == 0).collect()
}

/// Adds one tile: base's output and the quant's, and base's input for the update's signal.
pub(super) fn absorb(
    errors: &mut LayerErrors,
    tile: &Tile,
    input: Option<&Tensor>,
    base: &Tensor,
    quant: &Tensor,
) -> Result<()> {
    let values = |x: &Tensor| to_values(x).map_err(Error::compute("reading hidden states"));
    let (base, quant) = (values(base)?, values(quant)?);
    let input = input.map(values).transpose()?;
    let first = first_flags(tile);
    let width = base.len() / first.len().max(1);
    let parts: Vec<LayerErrors> = first
        .par_chunks(ROWS_PER_TASK)
        .enumerate()
        .map(|(task, first)| {
            let rows = task * ROWS_PER_TASK * width..(task * ROWS_PER_TASK + first.len()) * width;
            let input = input.as_ref().map(|x| &x[rows.clone()]);
            let mut part = LayerErrors::new();
            part.absorb_rows(width, first, input, &base[rows.clone()], &quant[rows]);
            part
        })
        .collect();
    // In order: the sums must not depend on which core was faster.
    parts.iter().for_each(|part| errors.merge(part));
    Ok(())
}

/// Compares two weights of one shape, block by block of rows.
pub(super) fn compare_weights(base: &Weight, quant: &Weight) -> Result<WeightErrors> {
    let mut errors = WeightErrors::new();
    if base.shape != quant.shape {
        let problem = format!("shapes {:?} and {:?} differ", base.shape, quant.shape);
        return Err(Error::argument(
            format!("weight {}: {problem}", base.name),
            "report this as a bug of qeval",
        ));
    }
    // A norm's or bias's rows may be counted differently on the two sides; then it is small.
    if base.rows() != quant.rows() {
        errors.absorb(&base.decode()?, &quant.decode()?);
        return Ok(errors);
    }
    let columns = base.columns().max(1);
    let rows = (WEIGHTS_PER_BLOCK / columns).max(1);
    let mut buffers = (Vec::new(), Vec::new());
    for first in (0..base.rows()).step_by(rows) {
        let block = first..base.rows().min(first + rows);
        buffers.0.resize(block.len() * columns, 0.0);
        buffers.1.resize(block.len() * columns, 0.0);
        base.decode_rows(block.clone(), &mut buffers.0)?;
        quant.decode_rows(block, &mut buffers.1)?;
        errors.absorb(&buffers.0, &buffers.1);
    }
    Ok(errors)
}
