//! The training loop: a batch is cut into shards that cores work on side by side, and gradients are added in the shards'
//! order, so that the number of cores changes nothing. Its state is saved as it goes; a stopped run goes on.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor, safetensors};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use tokenizers::Tokenizer;

use super::{
    fused::IGNORED,
    model::{Model, Shape},
    optimizer::{self, Settings, State},
    world::{Dice, END_OF_TEXT, World, hash},
};

/// Token rows of a shard, and shards of a batch.
const ROWS: usize = 2;
const SHARDS: usize = 8;

/// Tokens that one step learns from.
pub(crate) const TOKENS_OF_A_STEP: usize = ROWS * SHARDS * POSITIONS;

/// Length of a row.
pub(crate) const POSITIONS: usize = 256;

/// Steps between two savings of the state.
const SAVE_EVERY: usize = 50;

/// Steps that one point of the loss curve is the mean of.
const POINT: usize = 10;

/// One point of the loss curve.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Point {
    pub(crate) step: usize,
    /// Mean negative log-likelihood of the training tokens since the last point, nats per token.
    pub(crate) loss: f64,
    /// Entropy of the same documents, nats per token.
    pub(crate) entropy: f64,
    /// Norm of the gradient, before clipping.
    pub(crate) gradient_norm: f64,
    /// Wall clock of training so far, seconds; what was lost when a run was stopped does not count.
    pub(crate) seconds: f64,
}

/// A run at some step.
pub(crate) struct Run {
    pub(crate) shape: Shape,
    pub(crate) settings: Settings,
    pub(crate) seed: u64,
    /// Steps done.
    pub(crate) step: usize,
    pub(crate) states: Vec<State>,
    pub(crate) curve: Vec<Point>,
}

/// What a saved run says beside its tensors.
#[derive(Serialize, Deserialize)]
struct Record {
    step: usize,
    seed: u64,
    curve: Vec<Point>,
}

/// Rows of tokens with what follows each; a row begins where a document begins.
struct Shard {
    tokens: Vec<u32>,
    targets: Vec<u32>,
    /// Entropy of what is scored; a document that is cut counts in proportion.
    nats: f64,
}

/// A loss and its gradients, in the order of the parameters.
type Gradients = (f64, Vec<Vec<f32>>);

impl Run {
    /// From the saved state in `folder`, or from the beginning.
    ///
    /// # Errors
    /// A state that cannot be read, or that is of another shape or seed.
    pub(crate) fn resume(folder: &Path, shape: Shape, settings: Settings, seed: u64) -> Result<Self> {
        let mut run = Self::new(shape, settings, seed);
        let (tensors, record) = (state_path(folder), record_path(folder));
        if !record.exists() {
            return Ok(run);
        }
        let record: Record = serde_json::from_slice(&std::fs::read(&record)?).context("the saved record")?;
        ensure!(record.seed == seed, "{} holds a run with seed {}", folder.display(), record.seed);
        let mut saved = safetensors::load(&tensors, &Device::Cpu)?;
        for ((name, _), state) in shape.parameters().iter().zip(&mut run.states) {
            let mut take = |kind: &str, into: &mut Vec<f32>| -> Result<()> {
                let tensor = saved
                    .remove(&format!("{kind}.{name}"))
                    .with_context(|| format!("{name} is not saved"))?;
                let values = tensor.flatten_all()?.to_vec1()?;
                ensure!(values.len() == into.len(), "{name} is saved in another shape");
                *into = values;
                Ok(())
            };
            take("values", &mut state.values)?;
            take("first", &mut state.first)?;
            take("second", &mut state.second)?;
        }
        (run.step, run.curve) = (record.step, record.curve);
        Ok(run)
    }

    /// Matrices normal with a standard deviation of 0.02, those that write into the residual stream less by the root of
    /// twice the layers (as GPT-2); norms 1, biases 0.
    fn new(shape: Shape, settings: Settings, seed: u64) -> Self {
        let mut dice = Dice::new(hash("parameters") ^ seed);
        let mut normal = || {
            let (u, v) = (1.0 - dice.uncounted(), dice.uncounted());
            (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
        };
        let initial = |(name, dims): &(String, Vec<usize>)| {
            let writes = name.contains("o_proj") || name.contains("down_proj");
            let deviation = if writes { 0.02 / (2.0 * shape.num_hidden_layers as f64).sqrt() } else { 0.02 };
            let count = dims.iter().product();
            let decays = dims.len() > 1;
            let values = (0..count).map(|_| match decays {
                true => (deviation * normal()) as f32,
                false if name.contains("norm") => 1.0,
                false => 0.0,
            });
            State { values: values.collect(), first: vec![0.0; count], second: vec![0.0; count], decays }
        };
        let states = shape.parameters().iter().map(initial).collect();
        Self { shape, settings, seed, step: 0, states, curve: Vec::new() }
    }

    /// Trains to the last step, saving into `folder` as it goes.
    ///
    /// # Errors
    /// What candle or the file system refuses.
    pub(crate) fn train(&mut self, world: &World, tokenizer: &Tokenizer, folder: &Path) -> Result<()> {
        let style = "{bar:30} step {pos}/{len}  {msg}  {elapsed} gone, {eta} left";
        let bar =
            ProgressBar::new(self.settings.steps as u64).with_style(ProgressStyle::with_template(style)?);
        bar.set_position(self.step as u64);
        bar.reset_eta();
        let start = std::time::Instant::now();
        let before = self.curve.last().map_or(0.0, |point| point.seconds);
        let (mut loss, mut nats, mut tokens, mut norm) = (0.0, 0.0, 0.0, 0.0);
        while self.step < self.settings.steps {
            let shards = self.batch(world, tokenizer)?;
            let scored =
                |shard: &Shard| shard.targets.iter().filter(|target| **target != IGNORED).count() as f64;
            let count: f64 = shards.iter().map(scored).sum();
            let (batch_loss, mut gradients) = self.gradients(&shards)?;
            let share = (1.0 / count) as f32;
            gradients.iter_mut().flatten().for_each(|gradient| *gradient *= share);
            norm += optimizer::step(&self.settings, self.step, &mut self.states, &gradients) / POINT as f64;
            self.step += 1;
            loss += batch_loss;
            nats += shards.iter().map(|shard| shard.nats).sum::<f64>();
            tokens += count;
            if self.step.is_multiple_of(POINT) {
                let seconds = before + start.elapsed().as_secs_f64();
                let point = Point {
                    step: self.step,
                    loss: loss / tokens,
                    entropy: nats / tokens,
                    gradient_norm: norm,
                    seconds,
                };
                self.curve.push(point);
                bar.set_message(format!("{:.3} nats a token, entropy {:.3}", point.loss, point.entropy));
                (loss, nats, tokens, norm) = (0.0, 0.0, 0.0, 0.0);
            }
            if self.step.is_multiple_of(SAVE_EVERY) || self.step == self.settings.steps {
                self.save(folder)?;
            }
            bar.set_position(self.step as u64);
        }
        bar.finish();
        Ok(())
    }

    /// The batch of the next step: the same, whenever a run goes on.
    fn batch(&self, world: &World, tokenizer: &Tokenizer) -> Result<Vec<Shard>> {
        let dice = &mut Dice::new(hash(&format!("batch {} {}", self.seed, self.step)));
        (0..SHARDS).map(|_| shard(world, tokenizer, dice, self.shape.max_position_embeddings)).collect()
    }

    /// Sum of the losses, and of their gradients in the order of the parameters.
    fn gradients(&self, shards: &[Shard]) -> Result<Gradients> {
        let values: Vec<Vec<f32>> = self.states.iter().map(|state| state.values.clone()).collect();
        let model = Model::new(self.shape, &values)?;
        // More threads than cores do no harm, and hold their own where other programs run beside.
        let results: Vec<Result<Gradients>> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                shards.iter().map(|shard| scope.spawn(|| of_shard(&model, shard))).collect();
            let joined = |thread: std::thread::ScopedJoinHandle<'_, Result<Gradients>>| {
                thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a shard's thread panicked")))
            };
            threads.into_iter().map(joined).collect()
        });
        let mut sum: Option<Gradients> = None;
        for result in results {
            let (loss, gradients) = result?;
            match &mut sum {
                None => sum = Some((loss, gradients)),
                Some((all, total)) => {
                    *all += loss;
                    for (total, gradient) in total.iter_mut().flatten().zip(gradients.iter().flatten()) {
                        *total += gradient;
                    }
                }
            }
        }
        sum.context("an empty batch")
    }

    /// Writes the state beside itself and renames it, so that there is always a whole one.
    fn save(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder)?;
        let mut tensors = HashMap::new();
        for ((name, shape), state) in self.shape.parameters().iter().zip(&self.states) {
            for (kind, values) in
                [("values", &state.values), ("first", &state.first), ("second", &state.second)]
            {
                let tensor = Tensor::from_slice(values, shape.as_slice(), &Device::Cpu)?;
                tensors.insert(format!("{kind}.{name}"), tensor);
            }
        }
        let record = Record { step: self.step, seed: self.seed, curve: self.curve.clone() };
        let (state, said) = (state_path(folder), record_path(folder));
        let aside = |path: &Path| path.with_extension("part");
        safetensors::save(&tensors, aside(&state))?;
        std::fs::write(aside(&said), serde_json::to_vec(&record)?)?;
        std::fs::rename(aside(&state), &state)?;
        std::fs::rename(aside(&said), &said)?;
        Ok(())
    }
}

fn state_path(folder: &Path) -> PathBuf {
    folder.join("state.safetensors")
}

fn record_path(folder: &Path) -> PathBuf {
    folder.join("record.json")
}

/// Whole documents one after the other; the last one is cut.
fn shard(world: &World, tokenizer: &Tokenizer, dice: &mut Dice, length: usize) -> Result<Shard> {
    let end = tokenizer.token_to_id(END_OF_TEXT).context("the tokenizer has no end of text")?;
    let mut shard = Shard { tokens: Vec::new(), targets: Vec::new(), nats: 0.0 };
    for _ in 0..ROWS {
        // The token before a document is the end of the one before it.
        let mut row = vec![end];
        while row.len() <= length {
            let document = world.document(dice);
            let ids = encode(tokenizer, &document.text)?;
            let kept = (ids.len() + 1).min(length + 1 - row.len());
            shard.nats += document.nats * kept as f64 / (ids.len() + 1) as f64;
            row.extend(ids.into_iter().chain([end]).take(kept));
        }
        shard.tokens.extend(&row[..length]);
        shard.targets.extend(&row[1..]);
    }
    Ok(shard)
}

/// A text's tokens, without any that mark its ends.
///
/// # Errors
/// What the tokenizer refuses.
pub(crate) fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    let encoding = tokenizer.encode_fast(text, false).map_err(anyhow::Error::msg)?;
    Ok(encoding.get_ids().to_vec())
}

fn of_shard(model: &Model, shard: &Shard) -> Result<Gradients> {
    let loss = model.loss(&shard.tokens, shard.targets.clone(), ROWS)?;
    let gradients = loss.backward()?;
    let of = |parameter: &candle_core::Var| -> Result<Vec<f32>> {
        let gradient = gradients.get(parameter).context("a parameter without a gradient")?;
        Ok(gradient.flatten_all()?.to_vec1()?)
    };
    let all = model.parameters.iter().map(of).collect::<Result<_>>()?;
    Ok((f64::from(loss.to_scalar::<f32>()?), all))
}
