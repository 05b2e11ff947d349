//! What every block of a layer is given beside its input, and what it leaves behind.

use candle_core::{Result, Tensor};

use super::{
    geometry::{Geometry, Segment},
    kv_cache::KvCacheScheme,
    linear::{Linear, Rounding},
    state::KvState,
};

/// What a layer did on the way, for probes.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Whether products are kept.
    pub keeps_linears: bool,
    /// Name, input and output of each product, in order; all routed experts count as one.
    pub linears: Vec<(&'static str, Tensor, Tensor)>,
    /// The experts that each row goes through, `num_experts_per_tok` to a row, in ascending order.
    pub experts: Vec<u32>,
}

/// Of one pass through a layer.
pub(super) struct Context<'a> {
    pub(super) geometry: &'a Geometry,
    pub(super) rounding: Rounding,
    /// How keys and values are stored; `None`: as computed.
    pub(super) kv_cache: Option<&'a KvCacheScheme>,
    /// Of each segment what came before it, where that is not in the tile.
    pub(super) states: Option<&'a mut [KvState]>,
    pub(super) seen: Option<&'a mut Seen>,
}

impl Context<'_> {
    /// A product that probes look at.
    pub(super) fn linear(&mut self, linear: &Linear, input: &Tensor) -> Result<Tensor> {
        let output = self.rounding.apply(linear.forward(input, &self.geometry.rows)?)?;
        self.saw(linear.name, input, &output);
        Ok(output)
    }

    /// Notes a product.
    pub(super) fn saw(&mut self, name: &'static str, input: &Tensor, output: &Tensor) {
        if let Some(seen) = self.seen.as_mut().filter(|seen| seen.keeps_linears) {
            seen.linears.push((name, input.clone(), output.clone()));
        }
    }
}

/// The rows of a segment.
pub(super) fn part(x: &Tensor, segment: &Segment) -> Result<Tensor> {
    x.narrow(0, segment.rows.start, segment.rows.len())
}

/// The rows that a segment sees: its ancestors' and its own.
pub(super) fn seen(x: &Tensor, segment: &Segment, segments: &[Segment]) -> Result<Tensor> {
    if segment.ancestors.is_empty() {
        return part(x, segment);
    }
    let before = segment.ancestors.iter().map(|index| part(x, &segments[*index]));
    Tensor::cat(&before.chain(std::iter::once(part(x, segment))).collect::<Result<Vec<_>>>()?, 0)
}
