//! One product, y = x·Wᵀ + b, with whatever its scheme rounds on the way in and out.

use std::ops::Range;

use candle_core::{DType, Result, Tensor};

use super::activations::round_activations;
use crate::checkpoint::{
    Weight,
    activations::{ActivationFormat, ActivationQuantization, ActivationScale},
};

/// What the computation rounds, beyond f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// Nothing.
    None,
    /// Every linear's output and the residual stream, to bf16: the noise floor.
    Bf16,
}

impl Rounding {
    pub(super) fn apply(self, x: Tensor) -> Result<Tensor> {
        match self {
            Rounding::None => Ok(x),
            Rounding::Bf16 => x.to_dtype(DType::BF16)?.to_dtype(DType::F32),
        }
    }
}

/// What is done to the numbers that flow into quantized linears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActivationMode {
    /// What the checkpoint declares, as compressed-tensors computes it.
    Declared,
    /// The same with vLLM's kernels' scale of per-token int8, amax/127 instead of amax/127.5.
    Vllm,
    /// Nothing: weights only.
    None,
    /// What ggml's CPU kernels do for GGUF weights (blocks of Q8_0, Q8_1 or Q8_K, or f16 and bf16 beside weights
    /// of these types); other checkpoints as declared.
    Ggml,
}

impl ActivationMode {
    /// What happens to the input of a linear with this weight.
    pub(super) fn input(self, weight: &Weight) -> Option<ActivationQuantization> {
        match self {
            ActivationMode::None => None,
            ActivationMode::Declared => weight.input.clone(),
            ActivationMode::Ggml => {
                weight.ggml_input.map(ActivationQuantization::Ggml).or_else(|| weight.input.clone())
            }
            ActivationMode::Vllm => weight.input.clone().map(|mut input| {
                if let ActivationQuantization::Scaled {
                    format: ActivationFormat::Int { bits: 8, symmetric: true },
                    scale: ActivationScale::Dynamic { half_range },
                    ..
                } = &mut input
                {
                    *half_range = 127.0;
                }
                input
            }),
        }
    }

    /// What happens to its output.
    pub(super) fn output(self, weight: &Weight) -> Option<ActivationQuantization> {
        weight.output.clone().filter(|_| self != ActivationMode::None)
    }
}

/// A linear with its weight decoded.
#[derive(Clone, Debug)]
pub struct Linear {
    /// Its module, as probes call it; empty for one of many experts.
    pub(super) name: &'static str,
    /// `[out, in]`.
    pub(super) weight: Tensor,
    /// `[out]`.
    pub(super) bias: Option<Tensor>,
    /// What its input is rounded to.
    pub(super) input: Option<ActivationQuantization>,
    /// What its output is rounded to.
    pub(super) output: Option<ActivationQuantization>,
}

impl Linear {
    /// `[n, in]` → `[n, out]`; `requests` are the rows of each request.
    pub(super) fn forward(&self, x: &Tensor, requests: &[Range<usize>]) -> Result<Tensor> {
        let x = rounded(x, self.input.as_ref(), requests)?;
        let y = x.matmul(&self.weight.t()?)?;
        let y = match &self.bias {
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        };
        rounded(&y, self.output.as_ref(), requests)
    }
}

/// `[n, columns]` quantized and dequantized.
pub(super) fn rounded(
    x: &Tensor,
    scheme: Option<&ActivationQuantization>,
    requests: &[Range<usize>],
) -> Result<Tensor> {
    let Some(scheme) = scheme else { return Ok(x.clone()) };
    let columns = x.dim(1)?;
    let mut values = x.flatten_all()?.to_vec1::<f32>()?;
    round_activations(scheme, &mut values, columns, requests).map_err(candle_core::Error::msg)?;
    Tensor::from_vec(values, x.dims(), x.device())
}
