//! One decoder layer: a mixer and a feed-forward block around the residual stream.
//!
//! Weights arrive decoded; whatever their encoding was, the products are dense
//! f32. Sequences are packed: positions and attention go by the [`Geometry`],
//! never by the row's index in the tile.

use candle_core::{Result, Tensor};

use super::{
    context::{Context, Seen},
    delta_net::DeltaNet,
    experts::Experts,
    geometry::Geometry,
    kv_cache::KvCacheScheme,
    latent_attention::LatentAttention,
    linear::{Linear, Rounding},
    mlp::Mlp,
    norm::Norm,
    softmax_attention::SoftmaxAttention,
    state::KvState,
    weights::EXPERTS,
};

/// A decoder layer with its weights decoded.
#[derive(Clone, Debug)]
pub struct Layer {
    pub(super) input_norm: Option<Norm>,
    pub(super) mixer: Mixer,
    pub(super) post_mixer_norm: Option<Norm>,
    pub(super) pre_feed_forward_norm: Option<Norm>,
    pub(super) feed_forward: FeedForward,
    pub(super) post_feed_forward_norm: Option<Norm>,
    pub(super) parallel: bool,
    pub(super) residual_multiplier: f64,
    pub(super) rounding: Rounding,
    /// How keys and values are stored; `None`: as computed.
    pub(super) kv_cache: Option<KvCacheScheme>,
}

/// What mixes positions.
#[derive(Clone, Debug)]
pub(super) enum Mixer {
    Attention(Box<SoftmaxAttention>),
    LatentAttention(Box<LatentAttention>),
    DeltaNet(Box<DeltaNet>),
}

/// What mixes channels.
#[derive(Clone, Debug)]
pub(super) enum FeedForward {
    Mlp(Box<Mlp>),
    Experts(Box<Experts>),
}

impl Layer {
    /// The residual stream after this layer: `[n, hidden]` → `[n, hidden]`. `seen` takes up what happened on the way.
    pub fn forward(&self, x: &Tensor, geometry: &Geometry, seen: Option<&mut Seen>) -> Result<Tensor> {
        self.run(x, &mut self.context(geometry, None, seen))
    }

    /// The same for segments that continue sequences begun earlier: `states[i]` holds what came before segment i, and
    /// takes up what it adds.
    pub fn continue_from(&self, x: &Tensor, geometry: &Geometry, states: &mut [KvState]) -> Result<Tensor> {
        self.run(x, &mut self.context(geometry, Some(states), None))
    }

    /// One of its products by name, applied to an input that another model computed.
    pub fn linear(&self, name: &str, input: &Tensor, geometry: &Geometry) -> Result<Tensor> {
        if let (EXPERTS, FeedForward::Experts(experts)) = (name, &self.feed_forward) {
            return experts.routed_alone(input, &mut self.context(geometry, None, None));
        }
        match self.linears().into_iter().find(|linear| linear.name == name) {
            Some(linear) => self.rounding.apply(linear.forward(input, &geometry.rows)?),
            None => candle_core::bail!("no linear is named {name}"),
        }
    }

    fn linears(&self) -> Vec<&Linear> {
        let mut linears: Vec<&Linear> = match &self.mixer {
            Mixer::Attention(attention) => attention.linears().collect(),
            Mixer::LatentAttention(latent) => latent.linears().collect(),
            Mixer::DeltaNet(net) => net.linears().collect(),
        };
        match &self.feed_forward {
            FeedForward::Mlp(mlp) => linears.extend(mlp.linears()),
            FeedForward::Experts(experts) => linears.extend(experts.linears()),
        }
        linears
    }

    fn context<'a>(
        &'a self,
        geometry: &'a Geometry,
        states: Option<&'a mut [KvState]>,
        seen: Option<&'a mut Seen>,
    ) -> Context<'a> {
        Context { geometry, rounding: self.rounding, kv_cache: self.kv_cache.as_ref(), states, seen }
    }

    fn run(&self, x: &Tensor, context: &mut Context) -> Result<Tensor> {
        let normed = |norm: &Option<Norm>, x: &Tensor| match norm {
            Some(norm) => norm.forward(x),
            None => Ok(x.clone()),
        };
        let added = |x: &Tensor, update: Tensor| {
            let update =
                if self.residual_multiplier == 1.0 { update } else { (update * self.residual_multiplier)? };
            x + update
        };
        let input = normed(&self.input_norm, x)?;
        let mixed = match &self.mixer {
            Mixer::Attention(attention) => attention.forward(&input, context)?,
            Mixer::LatentAttention(latent) => latent.forward(&input, context)?,
            Mixer::DeltaNet(net) => net.forward(&input, context)?,
        };
        let after = self.rounding.apply(added(x, normed(&self.post_mixer_norm, &mixed)?)?)?;
        let input = normed(&self.pre_feed_forward_norm, if self.parallel { x } else { &after })?;
        let fed = match &self.feed_forward {
            FeedForward::Mlp(mlp) => mlp.forward(&input, |linear, x| context.linear(linear, x))?,
            FeedForward::Experts(experts) => experts.forward(&input, context)?,
        };
        self.rounding.apply(added(&after, normed(&self.post_feed_forward_norm, &fed)?)?)
    }
}
