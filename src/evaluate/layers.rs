//! When layers of different models meet, and what their probes gather.

use candle_core::{DType, Tensor};

use super::observations::{LayerObservation, LinearObservation};
use crate::{
    error::{Error, Result},
    metrics::{cka::debiased_cka, layer::LayerErrors, router::RouterAgreement},
};

/// Most tokens that enter a CKA: its Gram matrices are this large squared.
const CKA_TOKENS: usize = 1024;

/// Per quant and layer: what its probes have gathered so far.
#[derive(Default)]
pub(super) struct LayerAccumulator {
    cumulative: Option<LayerErrors>,
    injected: Option<LayerErrors>,
    /// Of each product by name, in order: each side on its own input, and the quant's on base's.
    pub(super) linears: Vec<(&'static str, LayerErrors, LayerErrors)>,
    cka: Vec<f64>,
    cumulative_routes: RouterAgreement,
    injected_routes: RouterAgreement,
}

/// What one tile showed.
#[derive(Default)]
pub(super) struct TileProbe {
    pub(super) cumulative: Option<LayerErrors>,
    pub(super) injected: Option<LayerErrors>,
    pub(super) cka: Option<f64>,
    pub(super) cumulative_routes: RouterAgreement,
    pub(super) injected_routes: RouterAgreement,
}

impl LayerAccumulator {
    pub(super) fn absorb(&mut self, probe: TileProbe) {
        for (sum, part) in [(&mut self.cumulative, probe.cumulative), (&mut self.injected, probe.injected)] {
            if let Some(part) = part {
                sum.get_or_insert_with(LayerErrors::new).merge(&part);
            }
        }
        self.cka.extend(probe.cka);
        self.cumulative_routes.merge(&probe.cumulative_routes);
        self.injected_routes.merge(&probe.injected_routes);
    }
}

/// When each of a quant's `layers` is due: after which of base's `base_layers` layers, or `None` right
/// after the embedding. Equal depths: layer by layer.
pub(super) fn schedule(layers: usize, base_layers: usize) -> Vec<Option<usize>> {
    (0..layers)
        .map(|layer| {
            let done = (layer + 1) as f64 / layers as f64 * base_layers as f64;
            (done.round() as usize).min(base_layers).checked_sub(1)
        })
        .collect()
}

/// Debiased linear CKA of two tiles' states, over at most [`CKA_TOKENS`] rows.
pub(super) fn cka(base: &Tensor, quant: &Tensor) -> Result<Option<f64>> {
    let gram = |x: &Tensor| -> candle_core::Result<Vec<f64>> {
        let x = x.narrow(0, 0, x.dim(0)?.min(CKA_TOKENS))?.to_dtype(DType::F64)?;
        x.matmul(&x.t()?)?.flatten_all()?.to_vec1()
    };
    let doing = "computing Gram matrices";
    let (a, b) = (gram(base).map_err(Error::compute(doing))?, gram(quant).map_err(Error::compute(doing))?);
    let n = base.dim(0).map_err(Error::compute(doing))?.min(CKA_TOKENS);
    Ok(debiased_cka(n, &a, &b))
}

/// What a quant's probes gathered, as observations.
pub(super) fn layer_observations(
    accumulators: Vec<LayerAccumulator>,
    base_layers: usize,
) -> (Vec<LayerObservation>, Vec<LinearObservation>) {
    let depths = schedule(accumulators.len() - 1, base_layers);
    let (mut layers, mut linears) = (Vec::new(), Vec::new());
    for (stage, accumulator) in accumulators.into_iter().enumerate() {
        let layer = stage.checked_sub(1);
        for (linear, cumulative, injected) in &accumulator.linears {
            linears.push(LinearObservation {
                layer: layer.unwrap_or(0),
                linear,
                cumulative: cumulative.finish(),
                injected: injected.finish(),
            });
        }
        let cka = Some(&accumulator.cka).filter(|values| !values.is_empty());
        let observation = LayerObservation {
            layer,
            base_layer: layer.and_then(|layer| depths[layer]),
            cumulative: accumulator.cumulative.map(|errors| errors.finish()),
            injected: accumulator.injected.map(|errors| errors.finish()),
            cka: cka.map(|values| values.iter().sum::<f64>() / values.len() as f64),
            router_agreement: accumulator.cumulative_routes.share(),
            injected_router_agreement: accumulator.injected_routes.share(),
        };
        if observation.cumulative.is_some() || observation.cka.is_some() {
            layers.push(observation);
        }
    }
    (layers, linears)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_depths_move_layer_by_layer() {
        assert_eq!(schedule(4, 4), [Some(0), Some(1), Some(2), Some(3)]);
    }

    #[test]
    fn other_depths_meet_at_the_nearest_relative_depth() {
        assert_eq!(schedule(2, 4), [Some(1), Some(3)]);
        assert_eq!(schedule(3, 4), [Some(0), Some(2), Some(3)]);
        // Deeper than base: several layers at one depth, the first before base's first layer is half done.
        assert_eq!(schedule(5, 2), [None, Some(0), Some(0), Some(1), Some(1)]);
    }
}
