//! Operations with a backward pass of their own, where candle's would be a chain of a dozen passes over memory.
//!
//! Each works on contiguous f32 on one core; the training loop runs shards of a batch side by side. Gradients are
//! held against finite differences in `tests`.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, DType, Layout, Result, Shape, Tensor, bail};

/// The values behind a contiguous layout.
fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(all), Some((start, end))) => Ok(&all[start..end]),
        _ => bail!("a fused operation needs contiguous f32"),
    }
}

/// Length of the last axis.
fn width(layout: &Layout) -> usize {
    layout.dims().last().copied().unwrap_or(1)
}

/// y = x / √(mean(x²) + ε) · w over the last axis.
pub(crate) struct RmsNorm {
    pub(crate) eps: f32,
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        w: &CpuStorage,
        lw: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, w, width) = (values(x, lx)?, values(w, lw)?, width(lx));
        let mut out = vec![0.0; x.len()];
        for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            let inverse = inverse_rms(x, self.eps);
            for ((out, x), w) in out.iter_mut().zip(x).zip(w) {
                *out = x * inverse * w;
            }
        }
        Ok((CpuStorage::F32(out), lx.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let eps = self.eps;
        let grad = grad.contiguous()?;
        let by_x = x.apply_op3_no_bwd(w, &grad, &RmsNormByX { eps })?;
        let by_w = x.apply_op2_no_bwd(&grad, &RmsNormByW { eps })?;
        Ok((Some(by_x), Some(by_w)))
    }
}

fn inverse_rms(x: &[f32], eps: f32) -> f32 {
    let squares: f32 = x.iter().map(|x| x * x).sum();
    1.0 / (squares / x.len() as f32 + eps).sqrt()
}

struct RmsNormByX {
    eps: f32,
}

impl CustomOp3 for RmsNormByX {
    fn name(&self) -> &'static str {
        "rms_norm_by_x"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        w: &CpuStorage,
        lw: &Layout,
        g: &CpuStorage,
        lg: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, w, g, width) = (values(x, lx)?, values(w, lw)?, values(g, lg)?, width(lx));
        let mut out = vec![0.0; x.len()];
        for ((x, g), out) in x.chunks_exact(width).zip(g.chunks_exact(width)).zip(out.chunks_exact_mut(width))
        {
            let inverse = inverse_rms(x, self.eps);
            let dot: f32 = x.iter().zip(g).zip(w).map(|((x, g), w)| x * g * w).sum();
            let pull = dot * inverse * inverse * inverse / width as f32;
            for (((out, x), g), w) in out.iter_mut().zip(x).zip(g).zip(w) {
                *out = g * w * inverse - x * pull;
            }
        }
        Ok((CpuStorage::F32(out), lx.shape().clone()))
    }
}

struct RmsNormByW {
    eps: f32,
}

impl CustomOp2 for RmsNormByW {
    fn name(&self) -> &'static str {
        "rms_norm_by_w"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        g: &CpuStorage,
        lg: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, g, width) = (values(x, lx)?, values(g, lg)?, width(lx));
        let mut out = vec![0.0; width];
        for (x, g) in x.chunks_exact(width).zip(g.chunks_exact(width)) {
            let inverse = inverse_rms(x, self.eps);
            for ((out, x), g) in out.iter_mut().zip(x).zip(g) {
                *out += x * g * inverse;
            }
        }
        Ok((CpuStorage::F32(out), Shape::from(width)))
    }
}

/// Softmax of `scale`·x over the last axis, where query `i` of `n` sees keys 0 to `i`; the rest is 0.
pub(crate) struct CausalSoftmax {
    pub(crate) scale: f32,
}

impl CustomOp1 for CausalSoftmax {
    fn name(&self) -> &'static str {
        "causal_softmax"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, n) = (values(x, lx)?, width(lx));
        let mut out = vec![0.0; x.len()];
        for (row, (x, out)) in x.chunks_exact(n).zip(out.chunks_exact_mut(n)).enumerate() {
            let seen = row % n + 1;
            softmax(&x[..seen], self.scale, &mut out[..seen]);
        }
        Ok((CpuStorage::F32(out), lx.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(y.apply_op2_no_bwd(&grad.contiguous()?, &SoftmaxBackward { scale: self.scale })?))
    }
}

/// y = softmax(scale·x); returns Σ exp(scale·x − max) and the maximum.
fn softmax(x: &[f32], scale: f32, y: &mut [f32]) -> (f32, f32) {
    let max = x.iter().fold(f32::NEG_INFINITY, |max, x| max.max(scale * x));
    let mut sum = 0.0;
    for (y, x) in y.iter_mut().zip(x) {
        *y = (scale * x - max).exp();
        sum += *y;
    }
    let inverse = 1.0 / sum;
    y.iter_mut().for_each(|y| *y *= inverse);
    (sum, max)
}

struct SoftmaxBackward {
    scale: f32,
}

impl CustomOp2 for SoftmaxBackward {
    fn name(&self) -> &'static str {
        "softmax_backward"
    }

    fn cpu_fwd(
        &self,
        y: &CpuStorage,
        ly: &Layout,
        g: &CpuStorage,
        lg: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (y, g, n) = (values(y, ly)?, values(g, lg)?, width(ly));
        let mut out = vec![0.0; y.len()];
        for ((y, g), out) in y.chunks_exact(n).zip(g.chunks_exact(n)).zip(out.chunks_exact_mut(n)) {
            let mean: f32 = y.iter().zip(g).map(|(y, g)| y * g).sum();
            for ((out, y), g) in out.iter_mut().zip(y).zip(g) {
                *out = self.scale * y * (g - mean);
            }
        }
        Ok((CpuStorage::F32(out), ly.shape().clone()))
    }
}

/// Rotary positions, halves apart as in Hugging Face's Qwen2: x of shape `..., positions, width`.
pub(crate) struct Rotate {
    pub(crate) theta: f64,
    /// −1 turns back: the gradient.
    pub(crate) direction: f32,
}

impl CustomOp1 for Rotate {
    fn name(&self) -> &'static str {
        "rotate"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, width) = (values(x, lx)?, width(lx));
        let positions = lx.dims()[lx.dims().len() - 2];
        let half = width / 2;
        let turns: Vec<(f32, f32)> = (0..positions * half)
            .map(|i| {
                let frequency = self.theta.powf(-2.0 * (i % half) as f64 / width as f64);
                let angle = (i / half) as f64 * frequency;
                (angle.cos() as f32, angle.sin() as f32 * self.direction)
            })
            .collect();
        let mut out = vec![0.0; x.len()];
        for (row, (x, out)) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)).enumerate() {
            let turns = &turns[row % positions * half..][..half];
            for (i, (cos, sin)) in turns.iter().enumerate() {
                out[i] = x[i] * cos - x[half + i] * sin;
                out[half + i] = x[half + i] * cos + x[i] * sin;
            }
        }
        Ok((CpuStorage::F32(out), lx.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let back = Rotate { theta: self.theta, direction: -self.direction };
        Ok(Some(grad.contiguous()?.apply_op1_no_bwd(&back)?))
    }
}

/// silu(gate) · up.
pub(crate) struct SwiGlu;

impl CustomOp2 for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        la: &Layout,
        b: &CpuStorage,
        lb: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let out =
            values(a, la)?.iter().zip(values(b, lb)?).map(|(gate, up)| gate * sigmoid(*gate) * up).collect();
        Ok((CpuStorage::F32(out), la.shape().clone()))
    }

    fn bwd(
        &self,
        gate: &Tensor,
        up: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let by_gate = gate.apply_op3_no_bwd(up, &grad, &SwiGluBackward::Gate)?;
        let by_up = gate.apply_op3_no_bwd(up, &grad, &SwiGluBackward::Up)?;
        Ok((Some(by_gate), Some(by_up)))
    }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

enum SwiGluBackward {
    Gate,
    Up,
}

impl CustomOp3 for SwiGluBackward {
    fn name(&self) -> &'static str {
        "swiglu_backward"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        la: &Layout,
        b: &CpuStorage,
        lb: &Layout,
        g: &CpuStorage,
        lg: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let all = values(a, la)?.iter().zip(values(b, lb)?).zip(values(g, lg)?);
        let out = match self {
            SwiGluBackward::Gate => all
                .map(|((gate, up), g)| {
                    let s = sigmoid(*gate);
                    g * up * s * (1.0 + gate * (1.0 - s))
                })
                .collect(),
            SwiGluBackward::Up => all.map(|((gate, _), g)| g * gate * sigmoid(*gate)).collect(),
        };
        Ok((CpuStorage::F32(out), la.shape().clone()))
    }
}

/// Sum over rows of −ln softmax(logits)[target], in nats; rows whose target is [`IGNORED`] do not count.
pub(crate) struct CrossEntropy {
    pub(crate) targets: Vec<u32>,
    /// softmax − one-hot, made in the forward pass, so that exponentials are taken once.
    gradient: OnceLock<Tensor>,
}

/// A target that is not scored.
pub(crate) const IGNORED: u32 = u32::MAX;

impl CrossEntropy {
    pub(crate) fn new(targets: Vec<u32>) -> Self {
        Self { targets, gradient: OnceLock::new() }
    }
}

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, n) = (values(x, lx)?, width(lx));
        let mut gradient = vec![0.0; x.len()];
        let mut loss = 0.0f64;
        for ((x, gradient), target) in x.chunks_exact(n).zip(gradient.chunks_exact_mut(n)).zip(&self.targets)
        {
            if *target == IGNORED {
                continue;
            }
            let target = *target as usize;
            let (sum, max) = softmax(x, 1.0, gradient);
            loss += f64::from(max) + f64::from(sum).ln() - f64::from(x[target]);
            gradient[target] -= 1.0;
        }
        let _ = self.gradient.set(Tensor::from_vec(gradient, lx.shape().clone(), &candle_core::Device::Cpu)?);
        Ok((CpuStorage::F32(vec![loss as f32]), Shape::from(())))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let Some(gradient) = self.gradient.get() else { bail!("backward before forward") };
        let scale = grad.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        Ok(Some(if scale == 1.0 { gradient.clone() } else { (gradient * scale)? }))
    }
}
