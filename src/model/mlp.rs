//! The MLP of a layer, of a shared expert, of one of many experts.

use candle_core::{Result, Tensor};

use super::linear::Linear;
use crate::checkpoint::config::Activation;

/// An MLP with its weights decoded.
#[derive(Clone, Debug)]
pub(super) struct Mlp {
    pub(super) activation: Activation,
    pub(super) gate: Option<Linear>,
    pub(super) up: Linear,
    pub(super) down: Linear,
}

impl Mlp {
    /// `[n, hidden]` → `[n, hidden]`; `linear` computes the products.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        mut linear: impl FnMut(&Linear, &Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let gate = self.gate.as_ref().map(|gate| linear(gate, x)).transpose()?;
        let up = linear(&self.up, x)?;
        let inner = match (gate, self.activation) {
            (Some(gate), Activation::ClampedSwiglu) => clamped_swiglu(&gate, &up)?,
            (Some(gate), activation) => (activate(&gate, activation)? * up)?,
            (None, activation) => activate(&up, activation)?,
        };
        linear(&self.down, &inner)
    }

    pub(super) fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.gate.iter().chain([&self.up, &self.down])
    }
}

fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    match activation {
        Activation::Silu => candle_nn::ops::silu(x),
        Activation::Gelu => x.gelu_erf(),
        Activation::GeluTanh => x.gelu(),
        Activation::Relu => x.relu(),
        Activation::ClampedSwiglu => candle_core::bail!("a clamped gate needs a gate"),
    }
}

/// g·σ(1.702·g)·(u + 1), with g at most 7 and u between −7 and 7.
fn clamped_swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    const LIMIT: f64 = 7.0;
    const ALPHA: f64 = 1.702;
    let gate = gate.minimum(LIMIT)?;
    let up = up.clamp(-LIMIT, LIMIT)?;
    let weighted = (&gate * candle_nn::ops::sigmoid(&(&gate * ALPHA)?)?)?;
    (up + 1.0)? * weighted
}
