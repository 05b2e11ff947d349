//! Trains the demo model from nothing and writes `suites/demo`: checkpoint, suite, card.
//!
//!     cargo run --release --example train_demo
//!
//! An hour or so of two cores. A stopped run goes on where its state was saved last. The same seed draws the same
//! documents and the same first weights everywhere; sums of floats differ between processors in the last bits.

mod card;
mod examination;
mod export;
mod fused;
mod model;
mod optimizer;
mod suite;
mod tokenizer;
mod training;
mod world;

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result};
use clap::Parser;

/// Trains the demo model and writes its checkpoint, suite and card.
#[derive(Parser)]
struct Arguments {
    /// Steps of 4096 tokens.
    #[arg(long, default_value_t = 3000)]
    steps: usize,
    /// Seed of documents and first weights.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the state is saved as training goes, and taken up again.
    #[arg(long, default_value = "target/train_demo")]
    state: PathBuf,
    /// Where the results go.
    #[arg(long, default_value = "suites/demo")]
    out: PathBuf,
    /// Write what the saved state has learnt so far, without training on.
    #[arg(long)]
    export: bool,
}

/// Libraries' own threads, which would stand in the way of shards side by side; and large blocks that go back to
/// the system after every operation, to be zeroed again for the next.
const ENVIRONMENT: [(&str, &str); 4] = [
    ("RAYON_NUM_THREADS", "1"),
    ("CANDLE_NUM_THREADS", "1"),
    ("MALLOC_MMAP_THRESHOLD_", "2000000000"),
    ("MALLOC_TRIM_THRESHOLD_", "3000000000"),
];

fn main() -> Result<()> {
    if std::env::var_os(ENVIRONMENT[1].0).is_none() {
        // They are read when a process starts or a library is first used: start again with them set.
        let status = Command::new(std::env::current_exe()?)
            .args(std::env::args_os().skip(1))
            .envs(ENVIRONMENT)
            .status()?;
        std::process::exit(status.code().unwrap_or(1));
    }
    let arguments = Arguments::parse();
    let world = world::World::new().map_err(anyhow::Error::msg)?;
    let tokenizer = tokenizer::train(&world).map_err(anyhow::Error::msg)?;
    let shape = model::Shape {
        vocab_size: tokenizer.get_vocab_size(true),
        hidden_size: 256,
        intermediate_size: 512,
        num_hidden_layers: 5,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        max_position_embeddings: training::POSITIONS,
    };
    let settings = optimizer::Settings {
        peak: 3e-3,
        floor: 0.02,
        warmup: 100,
        steps: arguments.steps,
        beta_1: 0.9,
        beta_2: 0.98,
        eps: 1e-8,
        weight_decay: 0.1,
        clip: 1.0,
    };
    let mut run = training::Run::resume(&arguments.state, shape, settings, arguments.seed)?;
    if !arguments.export {
        run.train(&world, &tokenizer, &arguments.state)?;
    }
    let out = &arguments.out;
    std::fs::create_dir_all(out).with_context(|| format!("making {}", out.display()))?;
    let model = export::as_stored(&run)?;
    export::write(&model, &tokenizer, out)?;
    let suite = suite::DemoSuite::new(&world);
    suite.write(out)?;
    let figures = examination::examine(&model, &tokenizer, &suite)?;
    card::write(&run, &figures, out)
}
