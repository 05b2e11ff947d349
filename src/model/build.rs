//! From weights to blocks: which weights a layer is made of, decoded.

use candle_core::Tensor;

use super::{
    Decoded, Decoder, Weight,
    delta_net::DeltaNet,
    experts::Experts,
    latent_attention::{LatentAttention, Queries},
    layer::{FeedForward, Layer, Mixer},
    linear::Linear,
    mlp::Mlp,
    norm::Norm,
    softmax_attention::SoftmaxAttention,
    weights::EXPERTS,
};
use crate::{
    checkpoint::config::{self, NormKind},
    error::{Error, Result},
};

/// Decodes the weights of one layer by their names inside it.
struct Builder<'a> {
    decoder: &'a Decoder,
    layer: usize,
    decoded: &'a mut Decoded,
}

impl Decoder {
    /// Decodes one layer.
    ///
    /// # Errors
    /// A weight that cannot be decoded.
    pub fn layer(&self, layer: usize, decoded: &mut Decoded) -> Result<Layer> {
        let Some(config) = self.config.layers.get(layer) else {
            return Err(Error::argument(
                format!("there is no layer {layer}"),
                "report this as a bug of qeval",
            ));
        };
        let mut builder = Builder { decoder: self, layer, decoded };
        let norms = config.norms;
        Ok(Layer {
            input_norm: builder.norm_if(norms.input, "input_layernorm")?,
            mixer: match &config.mixer {
                config::Mixer::Attention(attention) => {
                    Mixer::Attention(Box::new(builder.attention(attention)?))
                }
                config::Mixer::LatentAttention(latent) => {
                    Mixer::LatentAttention(Box::new(builder.latent(latent)?))
                }
                config::Mixer::GatedDeltaNet(net) => Mixer::DeltaNet(Box::new(builder.net(net)?)),
            },
            post_mixer_norm: builder.norm_if(norms.post_mixer, "post_self_attn_layernorm")?,
            pre_feed_forward_norm: builder.norm_if(norms.pre_feed_forward, "post_attention_layernorm")?,
            feed_forward: match &config.feed_forward {
                config::FeedForward::Mlp(mlp) => FeedForward::Mlp(Box::new(builder.mlp("mlp", mlp, MLP)?)),
                config::FeedForward::Experts(experts) => {
                    FeedForward::Experts(Box::new(builder.experts(experts)?))
                }
            },
            post_feed_forward_norm: builder.norm_if(norms.post_feed_forward, "post_mlp_layernorm")?,
            parallel: config.parallel,
            residual_multiplier: config.residual_multiplier,
            rounding: self.rounding,
            kv_cache: self.kv_cache(layer).cloned(),
        })
    }

    /// A norm over the residual stream.
    pub(super) fn norm(&self, module: &str, decoded: &mut Decoded) -> Result<Norm> {
        let mut tensor = |kind: &str| decoded.tensor(self.weight(&format!("{module}.{kind}"))?, &self.device);
        let bias = match self.config.norm.kind {
            NormKind::Rms => None,
            NormKind::Layer => Some(tensor("bias")?),
        };
        Ok(Norm { weight: tensor("weight")?, bias, eps: self.config.norm.eps as f32 })
    }
}

/// Names of the matrices of the layer's MLP, of the shared expert's, of one of many experts'.
type MlpNames = [&'static str; 3];
const MLP: MlpNames = ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"];
const SHARED: MlpNames =
    ["mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj", "mlp.shared_expert.down_proj"];
const ONE_OF_MANY: MlpNames = [""; 3];

impl Builder<'_> {
    fn weight(&self, name: &str) -> Result<&Weight> {
        self.decoder.weight(&format!("model.layers.{}.{name}", self.layer))
    }

    fn tensor(&mut self, name: &str) -> Result<Tensor> {
        let weight = self.decoder.weight(&format!("model.layers.{}.{name}", self.layer))?;
        self.decoded.tensor(weight, &self.decoder.device)
    }

    fn values(&self, name: &str) -> Result<Vec<f32>> {
        self.weight(name)?.decode()
    }

    /// A product whose name inside the layer is what probes call it.
    fn linear(&mut self, name: &'static str, bias: bool) -> Result<Linear> {
        self.linear_at(name, name, bias)
    }

    fn linear_at(&mut self, module: &str, name: &'static str, bias: bool) -> Result<Linear> {
        let weight = self.tensor(&format!("{module}.weight"))?;
        let bias = if bias { Some(self.tensor(&format!("{module}.bias"))?) } else { None };
        let stored = self.weight(&format!("{module}.weight"))?;
        let mode = self.decoder.activations;
        Ok(Linear { name, weight, bias, input: mode.input(stored), output: mode.output(stored) })
    }

    fn norm_if(&mut self, there: bool, module: &str) -> Result<Option<Norm>> {
        let full = format!("model.layers.{}.{module}", self.layer);
        there.then(|| self.decoder.norm(&full, self.decoded)).transpose()
    }

    fn rms(&mut self, name: &str, eps: f64) -> Result<Norm> {
        Ok(Norm { weight: self.tensor(name)?, bias: None, eps: eps as f32 })
    }

    fn attention(&mut self, config: &config::Attention) -> Result<SoftmaxAttention> {
        let eps = self.decoder.config.norm.eps;
        let normed = config.qk_norm.is_some();
        Ok(SoftmaxAttention {
            q: self.linear("self_attn.q_proj", config.bias)?,
            k: self.linear("self_attn.k_proj", config.bias)?,
            v: self.linear("self_attn.v_proj", config.bias)?,
            o: self.linear("self_attn.o_proj", config.output_bias)?,
            gate: config.output_gate.then(|| self.linear("self_attn.gate_proj", config.bias)).transpose()?,
            q_norm: normed.then(|| self.rms("self_attn.q_norm.weight", eps)).transpose()?,
            k_norm: normed.then(|| self.rms("self_attn.k_norm.weight", eps)).transpose()?,
            sinks: config.sinks.then(|| self.values("self_attn.sinks")).transpose()?,
            config: config.clone(),
        })
    }

    fn latent(&mut self, config: &config::LatentAttention) -> Result<LatentAttention> {
        let eps = config.latent_norm_eps;
        let queries = match config.q_lora_rank {
            None => Queries::Whole(self.linear("self_attn.q_proj", false)?),
            Some(_) => Queries::Latent {
                down: self.linear("self_attn.q_a_proj", config.bias)?,
                norm: self.rms("self_attn.q_a_layernorm.weight", eps)?,
                up: self.linear("self_attn.q_b_proj", false)?,
            },
        };
        Ok(LatentAttention {
            queries,
            kv_a: self.linear("self_attn.kv_a_proj_with_mqa", config.bias)?,
            kv_norm: self.rms("self_attn.kv_a_layernorm.weight", eps)?,
            k_b: self.linear("self_attn.k_b_proj", false)?,
            v_b: self.linear("self_attn.v_b_proj", false)?,
            o: self.linear("self_attn.o_proj", config.bias)?,
            config: config.clone(),
        })
    }

    fn net(&mut self, config: &config::GatedDeltaNet) -> Result<DeltaNet> {
        Ok(DeltaNet {
            qkv: self.linear("linear_attn.in_proj_qkv", false)?,
            z: self.linear("linear_attn.in_proj_z", false)?,
            b: self.linear("linear_attn.in_proj_b", false)?,
            a: self.linear("linear_attn.in_proj_a", false)?,
            out: self.linear("linear_attn.out_proj", false)?,
            conv: self.values("linear_attn.conv1d.weight")?,
            dt_bias: self.values("linear_attn.dt_bias")?,
            decay: self.values("linear_attn.A")?,
            norm: self.rms("linear_attn.norm.weight", self.decoder.config.norm.eps)?,
            config: config.clone(),
        })
    }

    fn mlp(&mut self, module: &str, config: &config::Mlp, names: MlpNames) -> Result<Mlp> {
        let [gate, up, down] = names;
        let mut linear =
            |matrix: &str, name| self.linear_at(&format!("{module}.{matrix}"), name, config.bias);
        Ok(Mlp {
            activation: config.activation,
            gate: config.gated.then(|| linear("gate_proj", gate)).transpose()?,
            up: linear("up_proj", up)?,
            down: linear("down_proj", down)?,
        })
    }

    fn experts(&mut self, config: &config::Experts) -> Result<Experts> {
        let correction = config.correction_bias;
        let shared = config.shared.as_ref();
        let gated = shared.is_some_and(|shared| shared.gated);
        Ok(Experts {
            router: self.linear("mlp.gate", config.router_bias)?,
            correction: correction.then(|| self.values("mlp.gate.e_score_correction_bias")).transpose()?,
            experts: (0..config.num_experts)
                .map(|expert| self.mlp(&format!("{EXPERTS}.{expert}"), &config.expert, ONE_OF_MANY))
                .collect::<Result<_>>()?,
            shared: shared.map(|shared| self.mlp("mlp.shared_expert", &shared.mlp, SHARED)).transpose()?,
            shared_gate: gated.then(|| self.linear("mlp.shared_expert_gate", false)).transpose()?,
            config: config.clone(),
        })
    }
}
