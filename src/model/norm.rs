//! Norms over the last dimension.

use candle_core::{Result, Tensor};

/// A norm with its weights decoded.
#[derive(Clone, Debug)]
pub(super) struct Norm {
    /// `[width]`.
    pub(super) weight: Tensor,
    /// `[width]`; `None`: root mean square, without a mean.
    pub(super) bias: Option<Tensor>,
    /// ε.
    pub(super) eps: f32,
}

impl Norm {
    /// `[…, width]` → `[…, width]`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = x.contiguous()?;
        match &self.bias {
            None => candle_nn::ops::rms_norm(&x, &self.weight, self.eps),
            Some(bias) => candle_nn::ops::layer_norm(&x, &self.weight, bias, self.eps),
        }
    }
}
