//! The demo model as candle's autograd sees it: Qwen2, tied head, parameters under Hugging Face's names.

use candle_core::{Device, Result, Tensor, Var};

use super::fused::{CausalSoftmax, CrossEntropy, RmsNorm, Rotate, SwiGlu};

/// The model's dimensions; `config.json` is written from them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) vocab_size: usize,
    pub(crate) hidden_size: usize,
    pub(crate) intermediate_size: usize,
    pub(crate) num_hidden_layers: usize,
    pub(crate) num_attention_heads: usize,
    pub(crate) num_key_value_heads: usize,
    /// Also the length of a row in training.
    pub(crate) max_position_embeddings: usize,
}

/// Base of the rotary frequencies.
pub(crate) const ROPE_THETA: f64 = 10_000.0;
/// Added to the mean square.
pub(crate) const RMS_NORM_EPS: f32 = 1e-6;

impl Shape {
    /// Every parameter: Hugging Face's name and shape, in the order in which a checkpoint lists them.
    pub(crate) fn parameters(&self) -> Vec<(String, Vec<usize>)> {
        let (hidden, inner) = (self.hidden_size, self.intermediate_size);
        let kv = hidden / self.num_attention_heads * self.num_key_value_heads;
        let mut all = vec![("model.embed_tokens.weight".to_owned(), vec![self.vocab_size, hidden])];
        for layer in 0..self.num_hidden_layers {
            let mut add = |name: &str, shape: &[usize]| {
                all.push((format!("model.layers.{layer}.{name}"), shape.to_vec()));
            };
            add("input_layernorm.weight", &[hidden]);
            add("self_attn.q_proj.weight", &[hidden, hidden]);
            add("self_attn.q_proj.bias", &[hidden]);
            add("self_attn.k_proj.weight", &[kv, hidden]);
            add("self_attn.k_proj.bias", &[kv]);
            add("self_attn.v_proj.weight", &[kv, hidden]);
            add("self_attn.v_proj.bias", &[kv]);
            add("self_attn.o_proj.weight", &[hidden, hidden]);
            add("post_attention_layernorm.weight", &[hidden]);
            add("mlp.gate_proj.weight", &[inner, hidden]);
            add("mlp.up_proj.weight", &[inner, hidden]);
            add("mlp.down_proj.weight", &[hidden, inner]);
        }
        all.push(("model.norm.weight".to_owned(), vec![hidden]));
        all
    }
}

/// Parameters that candle records operations on.
pub(crate) struct Model {
    pub(crate) shape: Shape,
    /// In the order of [`Shape::parameters`].
    pub(crate) parameters: Vec<Var>,
}

/// Parameters of one layer.
const OF_A_LAYER: usize = 12;

impl Model {
    /// `values`: one list for each parameter, in their order.
    pub(crate) fn new(shape: Shape, values: &[Vec<f32>]) -> Result<Self> {
        let parameters = shape
            .parameters()
            .into_iter()
            .zip(values)
            .map(|((_, shape), values)| Var::from_vec(values.clone(), shape, &Device::Cpu))
            .collect::<Result<_>>()?;
        Ok(Self { shape, parameters })
    }

    /// Hidden states after the final norm, `[rows · positions, hidden]`, of `rows` token rows of one length.
    fn hidden(&self, tokens: &[u32], rows: usize) -> Result<Tensor> {
        let Shape { hidden_size, num_attention_heads: heads, num_key_value_heads: kv_heads, .. } = self.shape;
        let positions = tokens.len() / rows;
        let head = hidden_size / heads;
        let norm = |x: &Tensor, weight: &Tensor| x.apply_op2(weight, RmsNorm { eps: RMS_NORM_EPS });
        let split = |x: Tensor, heads: usize| {
            x.reshape((rows, positions, heads, head))?.transpose(1, 2)?.contiguous()
        };
        let rotate = |x: Tensor| x.apply_op1(Rotate { theta: ROPE_THETA, direction: 1.0 });
        let ids = Tensor::new(tokens, &Device::Cpu)?;
        let mut x = self.parameters[0].index_select(&ids, 0)?;
        for layer in self.parameters[1..].chunks_exact(OF_A_LAYER) {
            let [norm_1, wq, bq, wk, bk, wv, bv, wo, norm_2, gate, up, down] = layer else { break };
            let input = norm(&x, norm_1)?;
            let linear = |w: &Tensor, b: &Tensor| input.matmul(&w.t()?)?.broadcast_add(b);
            let q = rotate(split(linear(wq, bq)?, heads)?)?;
            let k = rotate(split(linear(wk, bk)?, kv_heads)?)?;
            let v = split(linear(wv, bv)?, kv_heads)?;
            // Queries of the heads that share keys are stacked, so that keys need no copies.
            let shared = heads / kv_heads;
            let q = q.reshape((rows * kv_heads * shared, positions, head))?;
            let repeat = |x: Tensor| {
                x.unsqueeze(2)?.expand((rows, kv_heads, shared, positions, head))?.reshape((
                    rows * kv_heads * shared,
                    positions,
                    head,
                ))
            };
            let (k, v) = (repeat(k)?, repeat(v)?);
            let scores = q.matmul(&k.t()?)?;
            let weights = scores.apply_op1(CausalSoftmax { scale: (head as f32).powf(-0.5) })?;
            let attended = weights
                .matmul(&v)?
                .reshape((rows, heads, positions, head))?
                .transpose(1, 2)?
                .reshape((rows * positions, hidden_size))?;
            x = (x + attended.matmul(&wo.t()?)?)?;
            let input = norm(&x, norm_2)?;
            let inner = input.matmul(&gate.t()?)?.apply_op2(&input.matmul(&up.t()?)?, SwiGlu)?;
            x = (x + inner.matmul(&down.t()?)?)?;
        }
        norm(&x, &self.parameters[self.parameters.len() - 1])
    }

    /// Sum of the targets' negative log-likelihoods, nats; `targets[i]` is what comes after `tokens[i]`.
    pub(crate) fn loss(&self, tokens: &[u32], targets: Vec<u32>, rows: usize) -> Result<Tensor> {
        let logits = self.hidden(tokens, rows)?.matmul(&self.parameters[0].t()?)?;
        logits.apply_op1(CrossEntropy::new(targets))
    }

    /// The likeliest token after these.
    pub(crate) fn next_token(&self, tokens: &[u32]) -> Result<u32> {
        let last = self.hidden(tokens, 1)?.narrow(0, tokens.len() - 1, 1)?;
        last.matmul(&self.parameters[0].t()?)?.flatten_all()?.argmax(0)?.to_scalar()
    }
}
