//! One model on its way through a chunk: its hidden states, tile by tile, and what it cost.

use std::time::Instant;

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::{
    head::Source,
    plan::{Chunk, Tile},
};
use crate::{
    error::{Error, Result},
    model::{Decoder, Geometry, Layer, RopeTables, Seen},
    progress::Progress,
    suite::Request,
};

/// What a layer left behind of a probed tile.
pub(super) struct Probed {
    /// What went into it, as long as it is needed.
    pub(super) input: Option<Tensor>,
    /// The experts that each row went through; empty without any.
    pub(super) experts: Vec<u32>,
}

/// A model on its way through the chunk.
pub(super) struct Side<'a> {
    pub(super) decoder: &'a Decoder,
    pub(super) tables: RopeTables,
    /// One tensor per tile.
    pub(super) hidden: Vec<Tensor>,
    pub(super) seconds: f64,
}

impl<'a> Side<'a> {
    pub(super) fn new(decoder: &'a Decoder, longest: usize) -> Result<Self> {
        Ok(Self { decoder, tables: decoder.rope_tables(longest)?, hidden: Vec::new(), seconds: 0.0 })
    }

    pub(super) fn geometry(&self, tile: &Tile) -> Result<Geometry> {
        Geometry::of(tile.segments(), &self.tables).map_err(Error::compute("packing positions"))
    }

    /// Moves every tile through a layer; returns the inputs of probed tiles and the experts that their rows went
    /// through, the others are let go.
    pub(super) fn advance(
        &mut self,
        layer: &Layer,
        chunk: &Chunk,
        progress: &dyn Progress,
    ) -> Result<Vec<Option<Probed>>> {
        let (decoder, tables) = (self.decoder, &self.tables);
        let one = |(tile, hidden): (&Tile, &mut Tensor)| -> Result<Option<Probed>> {
            let mut seen = Seen::default();
            let output = Geometry::of(tile.segments(), tables)
                .and_then(|geometry| {
                    layer.forward(hidden, &geometry, Some(&mut seen).filter(|_| tile.probed))
                })
                .map_err(Error::compute("running a decoder layer"))?;
            progress.advance(tile.tokens() as u64);
            let input = std::mem::replace(hidden, output);
            Ok(tile.probed.then_some(Probed { input: Some(input), experts: seen.experts }))
        };
        map_tiles(decoder.device(), chunk.tiles.iter().zip(&mut self.hidden).collect(), one)
    }

    pub(super) fn embed(&mut self, chunk: &Chunk, requests: &[Request]) -> Result<()> {
        let start = Instant::now();
        let one =
            |tile: &Tile| self.decoder.embed(&tile.ids(requests), &Geometry::positions(&tile.segments()));
        self.hidden = chunk.tiles.iter().map(one).collect::<Result<_>>()?;
        self.seconds += start.elapsed().as_secs_f64();
        Ok(())
    }
}

/// Applies `each` to every tile, in order of the results. On the CPU tiles run side by side, each on one core: a
/// tile's many small operations do not scale by themselves. A device runs them one after the other.
pub(super) fn map_tiles<T: Send, R: Send>(
    device: &Device,
    tiles: Vec<T>,
    each: impl Fn(T) -> Result<R> + Sync + Send,
) -> Result<Vec<R>> {
    if device.is_cpu() {
        tiles.into_par_iter().map(each).collect()
    } else {
        tiles.into_iter().map(each).collect()
    }
}

/// The final, normed hidden states of a chunk's scored positions; the chunk's states are dropped.
pub(super) fn scored_rows<'a>(
    side: &mut Side<'a>,
    chunk: &Chunk,
    requests: &[Request],
) -> Result<Source<'a>> {
    let doing = "gathering scored positions";
    let start = Instant::now();
    let mut parts = Vec::with_capacity(chunk.tiles.len());
    for (tile, hidden) in chunk.tiles.iter().zip(std::mem::take(&mut side.hidden)) {
        // Token i is predicted from the state at i − 1.
        let rows: Vec<u32> = tile
            .requests
            .iter()
            .enumerate()
            .flat_map(|(member, index)| requests[*index].scored.clone().map(move |target| (member, target)))
            .map(|(member, target)| tile.row(member, target - 1) as u32)
            .collect();
        let spans: Vec<_> = tile.runs.iter().map(|run| run.segment.rows.clone()).collect();
        let count = rows.len();
        let rows = Tensor::from_vec(rows, count, hidden.device()).map_err(Error::compute(doing))?;
        let pick = |x: &Tensor| x.index_select(&rows, 0).map_err(Error::compute(doing));
        // A head that rounds its input may look at all positions of a request, scored or not.
        parts.push(match side.decoder.rounds_head_input() {
            false => side.decoder.final_norm(&pick(&hidden)?)?,
            true => pick(&side.decoder.head_input(&side.decoder.final_norm(&hidden)?, &spans)?)?,
        });
    }
    let rows = Tensor::cat(&parts, 0).map_err(Error::compute(doing))?;
    side.seconds += start.elapsed().as_secs_f64();
    Ok(Source::Hidden { decoder: side.decoder, rows })
}
