//! The last stage: vocabulary tiles of all models side by side, reduced on the spot.
//!
//! Logits exist only for one tile of ids and one tile of positions at a time; what stays per
//! position is a [`PositionReduction`]. Every figure is taken over the ids that all models share;
//! the probability mass on other ids is summed apart.

use std::{ops::Range, time::Instant};

use candle_core::Tensor;
use rayon::prelude::*;

use super::{logits_file::LogitsFile, to_values};
use crate::{
    error::{Error, Result},
    metrics::vocabulary::{self, LogSumExp, PositionReduction, PositionResult, Scratch},
    model::Decoder,
};

/// Ids of one tile: a tile of every model's head is decoded at once.
const VOCABULARY_TILE: usize = 4096;
/// Positions of one tile.
const POSITION_TILE: usize = 256;

/// Where a side's distribution at each scored position comes from.
pub(super) enum Source<'a> {
    /// Rows of the final, normed hidden state: `[positions, hidden]`.
    Hidden { decoder: &'a Decoder, rows: Tensor },
    /// Stored log-probabilities: window and target of each position.
    Stored { file: &'a LogitsFile, targets: Vec<(usize, usize)> },
}

impl Source<'_> {
    fn vocab_size(&self) -> usize {
        match self {
            Source::Hidden { decoder, .. } => decoder.config.vocab_size,
            Source::Stored { file, .. } => file.vocab_size,
        }
    }

    /// The decoded tile of the head that [`Source::logits`] wants; `None` for stored distributions.
    fn head(&self, ids: Range<usize>) -> Result<Option<Tensor>> {
        match self {
            Source::Hidden { decoder, .. } => decoder.head_rows(ids).map(Some),
            Source::Stored { .. } => Ok(None),
        }
    }

    /// Logits of some positions over some ids, row-major.
    fn logits(&self, head: Option<&Tensor>, ids: Range<usize>, positions: Range<usize>) -> Result<Vec<f32>> {
        match (self, head) {
            (Source::Hidden { decoder, rows }, Some(head)) => rows
                .narrow(0, positions.start, positions.len())
                .and_then(|rows| decoder.logits(&rows, &head.t()?))
                .and_then(|logits| to_values(&logits))
                .map_err(Error::compute("computing logits")),
            (Source::Stored { file, targets }, _) => {
                let mut values = vec![0.0; positions.len() * ids.len()];
                for (row, (window, target)) in values.chunks_exact_mut(ids.len()).zip(&targets[positions]) {
                    file.log_probabilities(*window, *target, ids.clone(), row)?;
                }
                Ok(values)
            }
            (Source::Hidden { .. }, None) => {
                Err(Error::argument("the head was not decoded", "report this as a bug"))
            }
        }
    }
}

/// What the head found.
pub(super) struct HeadResult {
    /// One per scored position.
    pub positions: Vec<PositionResult>,
    /// Per side (base first): probability mass on ids outside the shared vocabulary, summed over positions.
    pub excluded_mass: Vec<f64>,
    /// Per side (base first): seconds spent on its products.
    pub seconds: Vec<f64>,
}

/// Reduces all scored positions of a chunk. `sides` is base and then the quants; ids below `shared` exist on all.
/// `tile_done(i, n)` is called after the i-th of n vocabulary tiles.
pub(super) fn reduce(
    sides: &[Source],
    targets: &[u32],
    shared: usize,
    tile_done: &dyn Fn(u64, u64),
) -> Result<HeadResult> {
    let quants = sides.len() - 1;
    let mut reductions: Vec<PositionReduction> =
        targets.iter().map(|target| PositionReduction::new(*target, quants)).collect();
    let mut seconds = vec![0.0; sides.len()];
    let tiles = shared.div_ceil(VOCABULARY_TILE) as u64;
    for (tile, first) in (0..shared).step_by(VOCABULARY_TILE).enumerate() {
        let ids = first..shared.min(first + VOCABULARY_TILE);
        let heads = heads(sides, &mut seconds, &ids)?;
        for start in (0..targets.len()).step_by(POSITION_TILE) {
            let positions = start..targets.len().min(start + POSITION_TILE);
            let logits = timed_sides(sides, &mut seconds, |side, index| {
                side.logits(heads[index].as_ref(), ids.clone(), positions.clone())
            })?;
            let width = ids.len();
            reductions[positions.clone()].par_iter_mut().enumerate().for_each_init(
                Scratch::new,
                |scratch, (row, reduction)| {
                    let row = row * width..(row + 1) * width;
                    let quants: Vec<&[f32]> = logits[1..].iter().map(|values| &values[row.clone()]).collect();
                    let base = &logits[0][row];
                    reduction.absorb(first as u32, base, &quants, scratch);
                },
            );
        }
        tile_done(tile as u64, tiles);
    }
    let positions = reductions.iter().map(PositionReduction::finish).collect();
    let excluded_mass =
        sides.iter().map(|side| excluded_mass(side, targets.len(), shared)).collect::<Result<_>>()?;
    Ok(HeadResult { positions, excluded_mass, seconds })
}

/// The decoded tile of each side's head; sides with one head share the tensor.
fn heads(sides: &[Source], seconds: &mut [f64], ids: &Range<usize>) -> Result<Vec<Option<Tensor>>> {
    let mut heads: Vec<Option<Tensor>> = Vec::with_capacity(sides.len());
    for (index, side) in sides.iter().enumerate() {
        let start = Instant::now();
        let twin = sides[..index].iter().position(|other| match (side, other) {
            (Source::Hidden { decoder, .. }, Source::Hidden { decoder: other, .. }) => {
                decoder.shares_head_with(other)
            }
            _ => false,
        });
        let head = match twin {
            Some(twin) => heads[twin].clone(),
            None => side.head(ids.clone())?,
        };
        heads.push(head);
        seconds[index] += start.elapsed().as_secs_f64();
    }
    Ok(heads)
}

fn timed_sides<'a, 'b, T>(
    sides: &'a [Source<'b>],
    seconds: &mut [f64],
    compute: impl Fn(&'a Source<'b>, usize) -> Result<T>,
) -> Result<Vec<T>> {
    sides
        .iter()
        .enumerate()
        .map(|(index, side)| {
            let start = Instant::now();
            let value = compute(side, index);
            seconds[index] += start.elapsed().as_secs_f64();
            value
        })
        .collect()
}

/// Σ over positions of the probability on ids from `border` upwards.
fn excluded_mass(side: &Source, positions: usize, border: usize) -> Result<f64> {
    if side.vocab_size() <= border {
        return Ok(0.0);
    }
    let mut shared = vec![LogSumExp::new(); positions];
    let mut excluded = shared.clone();
    let mut first = 0;
    while first < side.vocab_size() {
        // Tiles never straddle the border.
        let end = if first < border { border } else { side.vocab_size() };
        let ids = first..end.min(first + VOCABULARY_TILE);
        let sums = if first < border { &mut shared } else { &mut excluded };
        let head = side.head(ids.clone())?;
        for start in (0..positions).step_by(POSITION_TILE) {
            let tile = start..positions.min(start + POSITION_TILE);
            let logits = side.logits(head.as_ref(), ids.clone(), tile.clone())?;
            for (sum, row) in sums[tile].iter_mut().zip(logits.chunks_exact(ids.len())) {
                sum.absorb(row);
            }
        }
        first = ids.end;
    }
    Ok(shared.iter().zip(&excluded).map(|(a, b)| vocabulary::excluded_mass(a.value(), b.value())).sum())
}
