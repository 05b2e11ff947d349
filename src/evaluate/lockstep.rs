//! The pass: all models through the same depth together, one stage of weights at a time.
//!
//! For each chunk and each of base's layers: base moves on, then every quant that is due at this depth
//! moves on, and both sides are on the table. A quant with as many layers as base is due one layer at a
//! time; one of another depth is due where its relative depth is nearest (CKA instead of errors).
//! Nothing here knows a file format, and nothing is averaged beyond the accumulators of `metrics`.

use std::{path::PathBuf, time::Instant};

use candle_core::Tensor;

use super::{
    head::{self, Source},
    layers::{LayerAccumulator, TileProbe, cka, layer_observations, schedule},
    logits_file::LogitsFile,
    observations::{Observations, QuantObservations, WeightObservation},
    plan::{Chunk, Packing, plan},
    probe,
    side::{Probed, Side, map_tiles, scored_rows},
    spill::Spill,
};
use crate::{
    checkpoint::Weight,
    error::{Error, Result},
    metrics::layer::LayerErrors,
    model::{Decoded, Decoder, Geometry, Layer, Seen},
    observation::{BaseToken, QuantToken},
    progress::Progress,
    suite::Request,
};

/// The reference: a model, or the logits that llama.cpp saved of one.
#[derive(Clone, Copy, Debug)]
pub enum Base<'a> {
    /// A model.
    Model(&'a Decoder),
    /// Saved distributions: no layers, no weights.
    Logits(&'a LogitsFile),
}

/// How to run a pass.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Most tokens held in memory at once.
    pub chunk_tokens: usize,
    /// Tokens of the layer probes' sample; `None` probes all, 0 nothing.
    pub probe_tokens: Option<usize>,
    /// Only so many of the first requests may be probed.
    pub probe_requests: usize,
    /// Whether every linear's output is probed too.
    pub probe_linears: bool,
    /// Whether weights are compared.
    pub compare_weights: bool,
    /// Whether neighbouring requests that begin alike share the computation of what they share; never done where a
    /// scheme looks at whole requests.
    pub share_prefixes: bool,
    /// Seed of the probes' sample.
    pub seed: u64,
    /// Where the scratch file of token records goes.
    pub scratch_folder: PathBuf,
}

/// Runs the pass over all requests.
///
/// `vocabulary` is the number of ids that all models share. Every quant is computed from its own
/// weights through the same code, whether or not it is the same file as base.
///
/// # Errors
/// A weight that cannot be decoded, a device out of memory, a scratch file that cannot be written.
pub fn run(
    base: Base,
    quants: &[Decoder],
    requests: &[Request],
    vocabulary: usize,
    settings: &Settings,
    progress: &dyn Progress,
) -> Result<Observations> {
    let longest = requests.iter().map(|request| request.tokens.len()).max().unwrap_or(0);
    let mut pass = Pass::new(base, quants, requests, vocabulary, settings, longest)?;
    let models = || pass.base.iter().chain(&pass.quants).map(|side| side.decoder);
    let packing = Packing {
        chunk_tokens: settings.chunk_tokens,
        probe_tokens: settings.probe_tokens,
        probe_requests: settings.probe_requests,
        share: settings.share_prefixes && !models().any(Decoder::needs_whole_requests),
        seed: settings.seed,
    };
    let chunks = plan(requests, packing);
    progress.start("measuring", pass.work(&chunks));
    for (index, chunk) in chunks.iter().enumerate() {
        pass.chunk(chunk, index == 0, progress)?;
    }
    progress.finish();
    pass.finish()
}

struct Pass<'a> {
    base: Option<Side<'a>>,
    logits: Option<&'a LogitsFile>,
    quants: Vec<Side<'a>>,
    /// Weights of this stage that several models share.
    decoded: Decoded,
    requests: &'a [Request],
    vocabulary: usize,
    settings: &'a Settings,
    /// Per quant: index 0 is the embedding, then the layers.
    layers: Vec<Vec<LayerAccumulator>>,
    weights: Vec<Vec<WeightObservation>>,
    base_tokens: Spill<BaseToken>,
    quant_tokens: Vec<Spill<QuantToken>>,
    /// Base first.
    excluded_mass: Vec<f64>,
    scored: usize,
    tokens: usize,
    operations: f64,
}

impl<'a> Pass<'a> {
    fn new(
        base: Base<'a>,
        quants: &'a [Decoder],
        requests: &'a [Request],
        vocabulary: usize,
        settings: &'a Settings,
        longest: usize,
    ) -> Result<Self> {
        let (base, logits) = match base {
            Base::Model(decoder) => (Some(Side::new(decoder, longest)?), None),
            Base::Logits(file) => (None, Some(file)),
        };
        // Without a base model nothing keeps the quants at one depth, so nothing is kept for another.
        let decoded = match &base {
            Some(base) => Decoded::of(std::iter::once(base.decoder).chain(quants)),
            None => Decoded::default(),
        };
        let accumulators = |decoder: &Decoder| {
            std::iter::repeat_with(LayerAccumulator::default)
                .take(decoder.config.num_hidden_layers() + 1)
                .collect()
        };
        Ok(Self {
            base,
            logits,
            decoded,
            quants: quants.iter().map(|decoder| Side::new(decoder, longest)).collect::<Result<_>>()?,
            requests,
            vocabulary,
            settings,
            layers: quants.iter().map(accumulators).collect(),
            weights: quants.iter().map(|_| Vec::new()).collect(),
            base_tokens: Spill::create(&settings.scratch_folder)?,
            quant_tokens: quants
                .iter()
                .map(|_| Spill::create(&settings.scratch_folder))
                .collect::<Result<_>>()?,
            excluded_mass: vec![0.0; quants.len() + 1],
            scored: 0,
            tokens: 0,
            operations: 0.0,
        })
    }

    /// Units of progress: tokens times stages, the heads counted as as many layers as they cost.
    fn work(&self, chunks: &[Chunk]) -> u64 {
        let tokens: u64 = chunks.iter().map(|chunk| chunk.tokens() as u64).sum();
        let sides = || self.base.iter().chain(&self.quants);
        let layers: usize = sides().map(|side| side.decoder.config.num_hidden_layers()).sum();
        tokens * (layers as u64 + self.head_stages())
    }

    fn head_stages(&self) -> u64 {
        let in_layers =
            |side: &Side| side.decoder.head_operations() / side.decoder.layer_operations(0, [(1, 0)]);
        self.base.iter().chain(&self.quants).map(in_layers).sum::<f64>().ceil() as u64
    }

    fn chunk(&mut self, chunk: &Chunk, first: bool, progress: &dyn Progress) -> Result<()> {
        self.tokens += chunk.tokens();
        if let Some(base) = &mut self.base {
            base.embed(chunk, self.requests)?;
        }
        let base_layers = self.base.as_ref().map_or(0, |base| base.decoder.config.num_hidden_layers());
        let schedules: Vec<_> = self
            .quants
            .iter()
            .map(|side| {
                let layers = side.decoder.config.num_hidden_layers();
                // Without a base model there is nothing to wait for.
                if base_layers == 0 { vec![None; layers] } else { schedule(layers, base_layers) }
            })
            .collect();
        for quant in 0..self.quants.len() {
            self.quants[quant].embed(chunk, self.requests)?;
            self.probe(quant, chunk, None, None, &[])?;
        }
        self.due_quants(&schedules, chunk, None, &[], None, first, progress)?;
        for base_layer in 0..base_layers {
            self.decoded.clear();
            let (inputs, linears) = self.base_layer(chunk, base_layer, progress)?;
            self.due_quants(&schedules, chunk, Some(base_layer), &inputs, linears.as_ref(), first, progress)?;
        }
        self.decoded.clear();
        if first && self.settings.compare_weights {
            self.compare_outer_weights()?;
        }
        self.head(chunk, progress)
    }

    /// Moves base through a layer; returns its inputs of the probed tiles, and the layer itself if its
    /// linears are probed.
    fn base_layer(
        &mut self,
        chunk: &Chunk,
        index: usize,
        progress: &dyn Progress,
    ) -> Result<(Vec<Option<Probed>>, Option<Layer>)> {
        let Some(base) = &mut self.base else { return Ok((Vec::new(), None)) };
        let start = Instant::now();
        let layer = base.decoder.layer(index, &mut self.decoded)?;
        let inputs = base.advance(&layer, chunk, progress)?;
        base.decoder.layer_weights(index).for_each(|weight| weight.release());
        base.seconds += start.elapsed().as_secs_f64();
        self.operations += operations(base.decoder, index, chunk);
        Ok((inputs, Some(layer).filter(|_| self.settings.probe_linears)))
    }

    /// Moves every quant through the layers that are due after `base_layer`.
    #[allow(clippy::too_many_arguments)]
    fn due_quants(
        &mut self,
        schedules: &[Vec<Option<usize>>],
        chunk: &Chunk,
        base_layer: Option<usize>,
        inputs: &[Option<Probed>],
        base_linears: Option<&Layer>,
        first: bool,
        progress: &dyn Progress,
    ) -> Result<()> {
        for (quant, schedule) in schedules.iter().enumerate() {
            for layer in (0..schedule.len()).filter(|layer| schedule[*layer] == base_layer) {
                let decoded = self.quant_layer(quant, layer, chunk, progress)?;
                self.probe(quant, chunk, Some(layer), Some(&decoded), inputs)?;
                if let Some(base) = base_linears.filter(|_| self.is_parallel(quant)) {
                    self.probe_linears(quant, chunk, layer, base, &decoded, inputs)?;
                }
                if first && self.settings.compare_weights {
                    self.compare_layer_weights(quant, layer)?;
                }
                self.quants[quant].decoder.layer_weights(layer).for_each(|weight| weight.release());
            }
        }
        Ok(())
    }

    fn quant_layer(
        &mut self,
        quant: usize,
        layer: usize,
        chunk: &Chunk,
        progress: &dyn Progress,
    ) -> Result<(Layer, Vec<Option<Probed>>)> {
        let side = &mut self.quants[quant];
        let start = Instant::now();
        let decoded = side.decoder.layer(layer, &mut self.decoded)?;
        let mut inputs = side.advance(&decoded, chunk, progress)?;
        if !self.settings.probe_linears {
            // Only the experts are still asked for.
            inputs.iter_mut().flatten().for_each(|probed| probed.input = None);
        }
        side.seconds += start.elapsed().as_secs_f64();
        self.operations += operations(side.decoder, layer, chunk);
        Ok((decoded, inputs))
    }

    /// Whether a quant has base's depth and width, so that errors are defined.
    fn is_parallel(&self, quant: usize) -> bool {
        let Some(base) = &self.base else { return false };
        let (base, quant) = (&base.decoder.config, &self.quants[quant].decoder.config);
        base.num_hidden_layers() == quant.num_hidden_layers() && base.hidden_size == quant.hidden_size
    }

    /// Looks at both sides after the quant's `layer` (`None`: the embedding).
    fn probe(
        &mut self,
        quant: usize,
        chunk: &Chunk,
        layer: Option<usize>,
        decoded: Option<&(Layer, Vec<Option<Probed>>)>,
        base_inputs: &[Option<Probed>],
    ) -> Result<()> {
        let parallel = self.is_parallel(quant);
        let Some(base) = &self.base else { return Ok(()) };
        let side = &self.quants[quant];
        let accumulator = &mut self.layers[quant][layer.map_or(0, |layer| layer + 1)];
        let look = |number: usize| -> Result<TileProbe> {
            let (tile, ours) = (&chunk.tiles[number], &base.hidden[number]);
            if !parallel {
                return Ok(TileProbe { cka: cka(ours, &side.hidden[number])?, ..TileProbe::default() });
            }
            let of_base = base_inputs.get(number).and_then(Option::as_ref);
            let input = of_base.and_then(|probed| probed.input.as_ref());
            let mut probe = TileProbe::default();
            let cumulative = probe.cumulative.insert(LayerErrors::new());
            probe::absorb(cumulative, tile, input, ours, &side.hidden[number])?;
            let (Some((decoded, inputs)), Some(of_base), Some(base_input)) = (decoded, of_base, input) else {
                return Ok(probe);
            };
            let mut seen = Seen::default();
            let injected = decoded
                .forward(base_input, &side.geometry(tile)?, Some(&mut seen))
                .map_err(Error::compute("running a quant's layer on base's input"))?;
            probe::absorb(probe.injected.insert(LayerErrors::new()), tile, input, ours, &injected)?;
            if let Some(own) = inputs.get(number).and_then(Option::as_ref) {
                probe.cumulative_routes.absorb(tile.tokens(), &of_base.experts, &own.experts);
            }
            probe.injected_routes.absorb(tile.tokens(), &of_base.experts, &seen.experts);
            Ok(probe)
        };
        let probed: Vec<usize> =
            (0..chunk.tiles.len()).filter(|number| chunk.tiles[*number].probed).collect();
        let probes = map_tiles(side.decoder.device(), probed.clone(), look)?;
        // Merged in the tiles' order: the sums must not depend on which core was faster.
        for (number, probe) in probed.iter().zip(probes) {
            if probe.injected.is_some() {
                let layer = layer.unwrap_or(0);
                self.operations += side.decoder.layer_operations(layer, chunk.tiles[*number].lengths());
            }
            accumulator.absorb(probe);
        }
        Ok(())
    }

    /// Looks at every linear of a layer, tile by tile: both sides run again with their linears tapped.
    fn probe_linears(
        &mut self,
        quant: usize,
        chunk: &Chunk,
        layer: usize,
        base_layer: &Layer,
        (decoded, quant_inputs): &(Layer, Vec<Option<Probed>>),
        base_inputs: &[Option<Probed>],
    ) -> Result<()> {
        let Some(base) = &self.base else { return Ok(()) };
        let side = &self.quants[quant];
        let accumulators = &mut self.layers[quant][layer + 1].linears;
        for (number, tile) in chunk.tiles.iter().enumerate() {
            let input = |inputs: &'_ [Option<Probed>]| {
                inputs[number].as_ref().and_then(|probed| probed.input.clone())
            };
            let (Some(base_input), Some(quant_input)) = (input(base_inputs), input(quant_inputs)) else {
                continue;
            };
            let seen = |layer: &Layer, geometry: &Geometry, input: &Tensor| {
                let mut seen = Seen { keeps_linears: true, ..Seen::default() };
                layer.forward(input, geometry, Some(&mut seen)).map(|_| seen.linears)
            };
            let doing = "running a layer with its linears probed";
            let ours = seen(base_layer, &base.geometry(tile)?, &base_input).map_err(Error::compute(doing))?;
            let theirs = seen(decoded, &side.geometry(tile)?, &quant_input).map_err(Error::compute(doing))?;
            for (name, input, output) in &ours {
                let Some((_, _, other)) = theirs.iter().find(|(other, ..)| other == name) else { continue };
                let injected =
                    decoded.linear(name, input, &side.geometry(tile)?).map_err(Error::compute(doing))?;
                let at = accumulators.iter().position(|(known, ..)| known == name).unwrap_or_else(|| {
                    accumulators.push((*name, LayerErrors::new(), LayerErrors::new()));
                    accumulators.len() - 1
                });
                let (_, cumulative_errors, injected_errors) = &mut accumulators[at];
                probe::absorb(cumulative_errors, tile, None, output, other)?;
                probe::absorb(injected_errors, tile, None, output, &injected)?;
            }
        }
        Ok(())
    }

    fn compare_layer_weights(&mut self, quant: usize, layer: usize) -> Result<()> {
        if !self.is_parallel(quant) {
            return Ok(());
        }
        let weights: Vec<_> = self.quants[quant].decoder.layer_weights(layer).cloned().collect();
        self.compare_weights(quant, &weights)
    }

    fn compare_outer_weights(&mut self) -> Result<()> {
        for quant in (0..self.quants.len()).filter(|quant| self.is_parallel(*quant)).collect::<Vec<_>>() {
            let weights: Vec<_> = self.quants[quant].decoder.outer_weights().cloned().collect();
            self.compare_weights(quant, &weights)?;
        }
        Ok(())
    }

    fn compare_weights(&mut self, quant: usize, weights: &[Weight]) -> Result<()> {
        let Some(base) = &self.base else { return Ok(()) };
        if base.decoder.shares_weights_with(self.quants[quant].decoder) {
            return Ok(());
        }
        for weight in weights {
            // Padded vocabularies and untied heads have no counterpart of the same shape.
            let counterpart = base.decoder.find_weight(&weight.name);
            let Some(counterpart) = counterpart.filter(|other| other.shape == weight.shape) else { continue };
            let errors = probe::compare_weights(counterpart, weight)?;
            self.weights[quant]
                .push(WeightObservation { name: weight.name.clone(), errors: errors.finish() });
            counterpart.release();
        }
        Ok(())
    }

    /// Final norm, head and fused reduction of the chunk's scored positions.
    fn head(&mut self, chunk: &Chunk, progress: &dyn Progress) -> Result<()> {
        let scored: Vec<(usize, usize)> = chunk
            .tiles
            .iter()
            .flat_map(|tile| &tile.requests)
            .flat_map(|index| self.requests[*index].scored.clone().map(move |target| (*index, target)))
            .collect();
        let targets: Vec<u32> =
            scored.iter().map(|(request, target)| self.requests[*request].tokens[*target]).collect();
        let mut sources = Vec::with_capacity(self.quants.len() + 1);
        match (&mut self.base, self.logits) {
            (Some(base), _) => sources.push(scored_rows(base, chunk, self.requests)?),
            (None, Some(file)) => {
                let target =
                    |(request, target): &(usize, usize)| (self.requests[*request].window as usize, *target);
                sources.push(Source::Stored { file, targets: scored.iter().map(target).collect() });
            }
            (None, None) => return Err(Error::argument("there is no base", "report this as a bug of qeval")),
        }
        for side in &mut self.quants {
            sources.push(scored_rows(side, chunk, self.requests)?);
        }
        let units = chunk.tokens() as u64 * self.head_stages();
        let result = head::reduce(&sources, &targets, self.vocabulary, &|done, of| {
            progress.advance(units * (done + 1) / of - units * done / of);
        })?;
        drop(sources);
        for (side, seconds) in self.base.iter_mut().chain(&mut self.quants).zip(
            // Saved logits are not a side.
            result.seconds.iter().skip(usize::from(self.logits.is_some())),
        ) {
            side.seconds += seconds;
            self.operations += side.decoder.head_operations() * targets.len() as f64;
            side.decoder.outer_weights().for_each(|weight| weight.release());
        }
        for (sum, mass) in self.excluded_mass.iter_mut().zip(&result.excluded_mass) {
            *sum += mass;
        }
        self.scored += scored.len();
        self.record(&scored, &result.positions)
    }

    fn record(
        &mut self,
        scored: &[(usize, usize)],
        positions: &[crate::metrics::vocabulary::PositionResult],
    ) -> Result<()> {
        // Tiles hold probed requests first; records are kept in the requests' order, whatever the chunk.
        let mut order: Vec<usize> = (0..scored.len()).collect();
        order.sort_unstable_by_key(|index| scored[*index]);
        for ((request, target), position) in order.iter().map(|index| (&scored[*index], &positions[*index])) {
            let request = &self.requests[*request];
            self.base_tokens.push(&BaseToken {
                nll: position.base.nll,
                entropy: position.base.entropy,
                max_probability: position.base.max_probability,
                task: request.task,
                document: request.document,
                window: request.window,
                position: u32::try_from(*target).unwrap_or(u32::MAX),
                token: request.tokens[*target],
                top1: position.base.top1,
                bytes: request.bytes[*target - request.scored.start],
                reserved: 0,
            })?;
            for (spill, quant) in self.quant_tokens.iter_mut().zip(&position.quants) {
                spill.push(&QuantToken {
                    nll: quant.side.nll,
                    entropy: quant.side.entropy,
                    kl_divergence: quant.kl_divergence,
                    reverse_kl: quant.reverse_kl,
                    delta_p: quant.delta_p,
                    top1: quant.side.top1,
                    top5_common: u32::from(quant.top5_overlap),
                })?;
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Observations> {
        let speed = |side: &Side| self.tokens as f64 / side.seconds.max(f64::MIN_POSITIVE);
        let base_layers = self.base.as_ref().map_or(0, |base| base.decoder.config.num_hidden_layers());
        let mean_mass = |side: usize| self.excluded_mass[side] / self.scored.max(1) as f64;
        let mut quants = Vec::with_capacity(self.quants.len());
        for (index, ((side, spill), (layers, weights))) in self
            .quants
            .iter()
            .zip(self.quant_tokens)
            .zip(self.layers.into_iter().zip(self.weights))
            .enumerate()
        {
            let (layers, linears) = layer_observations(layers, base_layers);
            quants.push(QuantObservations {
                tokens: spill.finish()?,
                layers,
                linears,
                weights,
                excluded_mass: mean_mass(index + 1),
                tokens_per_second: speed(side),
            });
        }
        Ok(Observations {
            base_tokens: self.base_tokens.finish()?,
            base_excluded_mass: mean_mass(0),
            base_tokens_per_second: self.base.as_ref().map(speed),
            quants,
            floating_point_operations: self.operations,
        })
    }
}

fn operations(decoder: &Decoder, layer: usize, chunk: &Chunk) -> f64 {
    chunk.tiles.iter().map(|tile| decoder.layer_operations(layer, tile.lengths())).sum()
}
