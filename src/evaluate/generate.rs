//! Generation: one model writes, many prompts side by side, token by token.
//!
//! Every sequence keeps the keys and values of its past; what all prompts begin with is read once. Sequences that end
//! make room for the next prompt. Weights stay decoded where the memory allows, else each layer is decoded once per
//! step for all sequences.
//!
//! What a sequence writes depends on its own tokens alone, but for rounding: a product over more or fewer rows may add
//! in another order. Logits move by a few units in the last place then; where the two likeliest tokens are that
//! close, the answer may be another. A test bounds it.

use candle_core::Tensor;
use rayon::prelude::*;

use super::{
    sampling::{Sampling, argmax, draw, uniform},
    to_values,
};
use crate::{
    checkpoint::config::LayerConfig,
    error::{Error, Result},
    model::{Decoded, Decoder, Geometry, KvState, Layer, RopeTables, Segment},
    progress::Progress,
};

/// What one sequence is asked to do.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// At least one token.
    pub tokens: Vec<u32>,
    /// At least one.
    pub max_new_tokens: usize,
    /// `None`: greedy.
    pub sampling: Option<Sampling>,
    /// Which of several answers to the same prompt this is: only changes the draws.
    pub repeat: u64,
    /// What the draws depend on besides: equal numbers draw equally.
    pub number: u64,
}

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The model ended it.
    EndOfSequence,
    /// It holds one of the strings that end it.
    Text,
    /// It had no more tokens to spend.
    Length,
    /// The model's logits were not finite.
    NotFinite,
}

/// What a sequence wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// New tokens; an end-of-sequence token is not among them.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub stop: Stop,
}

/// How to generate.
#[derive(Clone, Debug)]
pub struct GenerateSettings {
    /// Most sequences at once.
    pub batch: usize,
    /// Bytes that decoded weights, caches and logits may take.
    pub memory: u64,
    /// Tokens that end a sequence.
    pub end_of_sequence: Vec<u32>,
    /// Seed of the draws.
    pub seed: u64,
}

/// Fewest tokens in common that are read once for all prompts.
const SHORTEST_PREFIX: usize = 16;
/// Most new prompt tokens that enter the batch at once.
const PREFILL_TOKENS: usize = 4096;
/// Ids of the head decoded at once where it does not stay decoded.
const HEAD_TILE: usize = 8192;
const F32: u64 = 4;

/// Lets `decoder` continue every prompt. `ends(i, tokens)` says whether what prompt i wrote so far holds a string that
/// ends it.
///
/// # Errors
/// An empty prompt, a weight that cannot be decoded, a memory that does not hold one sequence.
pub fn generate(
    decoder: &Decoder,
    prompts: &[Prompt],
    settings: &GenerateSettings,
    ends: &(dyn Fn(usize, &[u32]) -> bool + Sync),
    progress: &dyn Progress,
) -> Result<Vec<Written>> {
    if let Some(empty) =
        prompts.iter().position(|prompt| prompt.tokens.is_empty() || prompt.max_new_tokens == 0)
    {
        return Err(Error::argument(
            format!("prompt {empty} has nothing to read or nothing to write"),
            "give a model whose tokenizer has a BOS token, or a prompt with text in it",
        ));
    }
    let longest = prompts.iter().map(capacity).max().unwrap_or(0);
    let mut writer = Writer::new(decoder, settings, longest)?;
    let shared = if decoder.needs_whole_requests() { 0 } else { shared_prefix(prompts) };
    let prefix = writer.prefix(prompts, shared)?;
    let mut written: Vec<Option<Written>> = vec![None; prompts.len()];
    let mut waiting = 0;
    let mut active: Vec<Sequence> = Vec::new();
    progress.start("generating", prompts.iter().map(|prompt| prompt.max_new_tokens as u64).sum());
    while waiting < prompts.len() || !active.is_empty() {
        // New sequences read their prompts, the others their last token.
        let mut incoming = 0;
        while waiting < prompts.len() && active.len() < writer.batch && incoming < PREFILL_TOKENS {
            let prompt = &prompts[waiting];
            active.push(Sequence {
                index: waiting,
                unread: prompt.tokens[shared..].to_vec(),
                read: shared,
                written: Vec::new(),
            });
            writer.enter(&prefix, capacity(prompt))?;
            incoming += prompt.tokens.len() - shared;
            waiting += 1;
        }
        let logits = writer.step(&active)?;
        let width = decoder.config.vocab_size;
        let next: Vec<Option<u32>> = active
            .par_iter()
            .zip(logits.par_chunks_exact(width))
            .map(|(sequence, logits)| {
                let prompt = &prompts[sequence.index];
                match &prompt.sampling {
                    None => argmax(logits),
                    Some(sampling) => {
                        let step = sequence.written.len() as u64;
                        draw(logits, sampling, uniform(settings.seed, prompt.number, prompt.repeat, step))
                    }
                }
            })
            .collect();
        for (sequence, next) in active.iter_mut().zip(next) {
            let prompt = &prompts[sequence.index];
            sequence.read += sequence.unread.len();
            sequence.unread.clear();
            let stop = match next {
                None => Some(Stop::NotFinite),
                Some(id) if settings.end_of_sequence.contains(&id) => Some(Stop::EndOfSequence),
                Some(id) => {
                    sequence.written.push(id);
                    sequence.unread.push(id);
                    progress.advance(1);
                    if ends(sequence.index, &sequence.written) {
                        Some(Stop::Text)
                    } else {
                        Some(Stop::Length).filter(|_| sequence.written.len() >= prompt.max_new_tokens)
                    }
                }
            };
            if let Some(stop) = stop {
                progress.advance((prompt.max_new_tokens - sequence.written.len()) as u64);
                written[sequence.index] =
                    Some(Written { tokens: std::mem::take(&mut sequence.written), stop });
            }
        }
        for at in
            (0..active.len()).rev().filter(|at| written[active[*at].index].is_some()).collect::<Vec<_>>()
        {
            active.swap_remove(at);
            writer.leave(at);
        }
    }
    progress.finish();
    Ok(written.into_iter().flatten().collect())
}

/// Positions that a prompt can come to: the last token written is never read.
fn capacity(prompt: &Prompt) -> usize {
    prompt.tokens.len() + prompt.max_new_tokens
}

/// Tokens that all prompts begin with; each keeps one of its own at least.
fn shared_prefix(prompts: &[Prompt]) -> usize {
    let [first, rest @ ..] = prompts else { return 0 };
    let common = |other: &Prompt| first.tokens.iter().zip(&other.tokens).take_while(|(a, b)| a == b).count();
    let shortest = prompts.iter().map(|prompt| prompt.tokens.len() - 1).min().unwrap_or(0);
    let shared = rest.iter().map(common).min().unwrap_or(0).min(shortest);
    if shared < SHORTEST_PREFIX { 0 } else { shared }
}

/// One sequence on its way.
struct Sequence {
    /// Which prompt.
    index: usize,
    /// Tokens to read in the next step.
    unread: Vec<u32>,
    /// Tokens read so far.
    read: usize,
    written: Vec<u32>,
}

/// A model with the states of the sequences in the batch.
struct Writer<'a> {
    decoder: &'a Decoder,
    tables: RopeTables,
    /// All layers, where they fit.
    layers: Vec<Layer>,
    /// The whole head, transposed, where it fits.
    head: Option<Tensor>,
    /// By layer, then as the sequences.
    states: Vec<Vec<KvState>>,
    batch: usize,
}

impl<'a> Writer<'a> {
    fn new(decoder: &'a Decoder, settings: &GenerateSettings, longest: usize) -> Result<Self> {
        let config = &decoder.config;
        let cached = |layer: &LayerConfig| {
            layer.mixer.kv_widths().map_or(0, |widths| widths.heads * (widths.key + widths.value)) as u64
        };
        let per_position = config.layers.iter().map(cached).sum::<u64>() * F32;
        let per_sequence = per_position * longest as u64 + config.vocab_size as u64 * F32;
        let layer = |layer| decoder.layer_weights(layer).map(|w| w.parameters() as u64).sum::<u64>() * F32;
        let layers: u64 = (0..config.num_hidden_layers()).map(layer).sum();
        let head = (config.vocab_size * config.hidden_size) as u64 * F32;
        // What does not stay is decoded anew for every step: worth it only if it buys a larger batch.
        let resident = layers + head + per_sequence <= settings.memory;
        let one_stage = (0..config.num_hidden_layers()).map(layer).max().unwrap_or(0);
        let weights = if resident {
            layers + head
        } else {
            one_stage + HEAD_TILE as u64 * config.hidden_size as u64 * F32
        };
        let room = settings.memory.saturating_sub(weights) / per_sequence.max(1);
        if room == 0 {
            return Err(Error::argument(
                format!(
                    "generation needs {} MiB for one sequence of {longest} tokens, more than --memory allows",
                    (weights + per_sequence) >> 20
                ),
                "give more --memory, or ask for fewer tokens",
            ));
        }
        let resident_layers = if resident {
            let one = |layer| decoder.layer(layer, &mut Decoded::default());
            (0..config.num_hidden_layers()).map(one).collect::<Result<Vec<_>>>()?
        } else {
            Vec::new()
        };
        let head = if resident { Some(transposed(&decoder.head_rows(0..config.vocab_size)?)?) } else { None };
        Ok(Self {
            decoder,
            tables: decoder.rope_tables(longest)?,
            layers: resident_layers,
            head,
            states: vec![Vec::new(); config.num_hidden_layers()],
            batch: usize::try_from(room).unwrap_or(usize::MAX).min(settings.batch).max(1),
        })
    }

    /// The states after the tokens that all prompts begin with.
    fn prefix(&mut self, prompts: &[Prompt], shared: usize) -> Result<Vec<KvState>> {
        let unread = prompts.first().map_or(&[][..], |prompt| &prompt.tokens[..shared]).to_vec();
        let empty = (0..self.states.len())
            .map(|layer| KvState::empty(self.decoder, layer, shared))
            .collect::<Result<Vec<_>>>()?;
        if shared == 0 {
            return Ok(empty);
        }
        for (states, state) in self.states.iter_mut().zip(empty) {
            states.push(state);
        }
        self.read(&[Sequence { index: 0, unread, read: 0, written: Vec::new() }])?;
        Ok(self.states.iter_mut().filter_map(Vec::pop).collect())
    }

    /// A sequence that starts from `prefix` joins as the last one.
    fn enter(&mut self, prefix: &[KvState], capacity: usize) -> Result<()> {
        for (states, prefix) in self.states.iter_mut().zip(prefix) {
            states.push(prefix.forked(capacity).map_err(Error::compute("making room for a sequence"))?);
        }
        Ok(())
    }

    /// The sequence at `at` leaves; the last one takes its place.
    fn leave(&mut self, at: usize) {
        self.states.iter_mut().for_each(|states| {
            states.swap_remove(at);
        });
    }

    /// All sequences read what they have not read; returns the logits after each, row by row.
    fn step(&mut self, sequences: &[Sequence]) -> Result<Vec<f32>> {
        let hidden = self.read(sequences)?;
        let mut end = 0;
        let last_rows: Vec<u32> = sequences
            .iter()
            .map(|sequence| {
                end += sequence.unread.len() as u32;
                end - 1
            })
            .collect();
        let doing = "computing logits";
        let normed = self.decoder.final_norm(&hidden)?;
        let mut start = 0;
        let spans: Vec<_> = sequences
            .iter()
            .map(|sequence| {
                start += sequence.unread.len();
                start - sequence.unread.len()..start
            })
            .collect();
        let input = self.decoder.head_input(&normed, &spans)?;
        let rows = Tensor::from_vec(last_rows, sequences.len(), hidden.device())
            .and_then(|rows| input.index_select(&rows, 0))
            .map_err(Error::compute(doing))?;
        if let Some(head) = &self.head {
            let logits = self.decoder.logits(&rows, head);
            return logits.and_then(|logits| to_values(&logits)).map_err(Error::compute(doing));
        }
        let width = self.decoder.config.vocab_size;
        let mut logits = vec![0.0; sequences.len() * width];
        for first in (0..width).step_by(HEAD_TILE) {
            let ids = first..width.min(first + HEAD_TILE);
            let head = transposed(&self.decoder.head_rows(ids.clone())?)?;
            let tile = self.decoder.logits(&rows, &head);
            let tile = tile.and_then(|tile| to_values(&tile)).map_err(Error::compute(doing))?;
            for (row, tile) in logits.chunks_exact_mut(width).zip(tile.chunks_exact(ids.len())) {
                row[ids.clone()].copy_from_slice(tile);
            }
        }
        Ok(logits)
    }

    /// Moves all sequences through all layers; returns the residual stream, sequence after sequence.
    fn read(&mut self, sequences: &[Sequence]) -> Result<Tensor> {
        // On the CPU each core takes some of the sequences: a step's small operations do not scale by themselves.
        let cores = if self.decoder.device().is_cpu() { rayon::current_num_threads() } else { 1 };
        let per_group = sequences.len().div_ceil(cores).max(1);
        let groups: Vec<&[Sequence]> = sequences.chunks(per_group).collect();
        let doing = "continuing sequences";
        let mut positions = Vec::with_capacity(groups.len());
        let geometries = groups
            .iter()
            .map(|group| {
                let mut end = 0;
                let segment = |sequence: &Sequence| {
                    end += sequence.unread.len();
                    let rows = end - sequence.unread.len()..end;
                    let length = sequence.read + sequence.unread.len();
                    Segment { rows, first_position: sequence.read, length, ancestors: Vec::new() }
                };
                let segments: Vec<Segment> = group.iter().map(segment).collect();
                positions.push(Geometry::positions(&segments));
                Geometry::of(segments, &self.tables)
            })
            .collect::<candle_core::Result<Vec<_>>>()
            .map_err(Error::compute(doing))?;
        let mut hidden = groups
            .iter()
            .zip(&positions)
            .map(|(group, positions)| {
                let tokens: Vec<u32> = group.iter().flat_map(|s| s.unread.iter().copied()).collect();
                self.decoder.embed(&tokens, positions)
            })
            .collect::<Result<Vec<_>>>()?;
        for index in 0..self.states.len() {
            let decoded;
            let layer = match self.layers.get(index) {
                Some(layer) => layer,
                None => {
                    decoded = self.decoder.layer(index, &mut Decoded::default())?;
                    &decoded
                }
            };
            hidden
                .par_iter_mut()
                .zip(&geometries)
                .zip(self.states[index].par_chunks_mut(per_group))
                .try_for_each(|((x, geometry), states)| {
                    *x = layer.continue_from(x, geometry, states)?;
                    Ok(())
                })
                .map_err(Error::compute(doing))?;
        }
        Tensor::cat(&hidden, 0).map_err(Error::compute(doing))
    }
}

fn transposed(head: &Tensor) -> Result<Tensor> {
    head.t().map_err(Error::compute("turning the head"))
}
