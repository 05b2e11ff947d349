//! Every architecture through the whole measurement: packing, shared prefixes, streaming, probes, generation, caches.
//!
//! That a decoder computes what transformers computes is held elsewhere (`trace`, `variants`); here it is held against
//! itself, computed in other ways. Needs ../shared: the tiny checkpoints of every architecture.

use std::path::{Path, PathBuf};

use candle_core::Device;
use qeval::{
    checkpoint::{Checkpoint, config::FeedForward},
    cousin::Recipe,
    evaluate::{
        self, Base, Observations, Settings,
        generate::{GenerateSettings, Prompt, generate},
        trace,
    },
    model::{Decoder, linears},
    progress::Silent,
    suite::Request,
};

use crate::support::{entries, shared};

fn folders() -> Vec<PathBuf> {
    let Some(folder) = shared("goldens/arch") else { return Vec::new() };
    let folders: Vec<PathBuf> = entries(&folder).into_iter().filter(|path| path.is_dir()).collect();
    assert_eq!(folders.len(), 21);
    folders
}

/// With the steps of a recipe: "@int8".
fn open(folder: &Path, steps: &str) -> Decoder {
    let recipe = Recipe::parse(format!("{}{steps}", folder.display()).as_ref()).unwrap();
    let checkpoint = Checkpoint::open(&recipe.path).unwrap();
    let config = checkpoint.config().unwrap().unwrap();
    recipe.apply(&Decoder::open(&checkpoint, config, &Device::Cpu).unwrap()).unwrap()
}

/// Ids below 320, the vocabulary of all goldens.
fn ids(seed: usize, count: usize) -> Vec<u32> {
    (0..count).map(|index| ((index * index * 31 + index * 7 + seed * 13 + 3) % 320) as u32).collect()
}

/// Requests of which several begin alike, longer than every window.
fn requests() -> Vec<Request> {
    let mut requests = Vec::new();
    for document in 0..4 {
        let stem = ids(document, 20 + document);
        for window in 0..3 {
            let tokens = [stem.clone(), ids(100 + document * 3 + window, 5 + 4 * window)].concat();
            requests.push(Request {
                task: 0,
                document: document as u32,
                window: window as u32,
                scored: stem.len()..tokens.len(),
                bytes: vec![1; tokens.len() - stem.len()],
                tokens,
            });
        }
    }
    requests
}

fn settings(share_prefixes: bool, chunk_tokens: usize) -> Settings {
    Settings {
        chunk_tokens,
        probe_tokens: None,
        probe_linears: true,
        compare_weights: true,
        probe_requests: usize::MAX,
        share_prefixes,
        seed: 0,
        scratch_folder: std::env::temp_dir(),
    }
}

fn run(base: &Decoder, quant: &Decoder, settings: &Settings) -> Observations {
    let quants = std::slice::from_ref(quant);
    let vocabulary = base.config.vocab_size;
    evaluate::run(Base::Model(base), quants, &requests(), vocabulary, settings, &Silent).unwrap()
}

/// Largest difference of any token's nll, base's and the quant's.
fn apart(a: &Observations, b: &Observations) -> f64 {
    let base = a.base_tokens.as_slice().iter().zip(b.base_tokens.as_slice()).map(|(a, b)| {
        assert_eq!((a.document, a.window, a.position, a.token), (b.document, b.window, b.position, b.token));
        (a.nll - b.nll).abs()
    });
    let quant = a.quants[0].tokens.as_slice().iter().zip(b.quants[0].tokens.as_slice());
    base.chain(quant.map(|(a, b)| (a.nll - b.nll).abs())).fold(0.0, f64::max)
}

/// The pass in one piece, in many chunks, with and without shared prefixes, against each request traced by itself.
#[test]
fn packing_sharing_and_streaming_change_nothing() {
    for folder in folders() {
        let name = folder.display();
        let (base, quant) = (open(&folder, ""), open(&folder, "@int8"));
        let whole = run(&base, &quant, &settings(false, 4096));
        let (shared, streamed) =
            (run(&base, &quant, &settings(true, 4096)), run(&base, &quant, &settings(true, 64)));
        // Random weights amplify rounding through many layers, most through a recurrence.
        assert!(apart(&whole, &shared) < 1e-3, "{name}: sharing moves by {}", apart(&whole, &shared));
        assert!(apart(&whole, &streamed) < 1e-3, "{name}: streaming moves by {}", apart(&whole, &streamed));
        let mut tokens = whole.base_tokens.as_slice().iter();
        for request in requests() {
            let logits = trace::trace(&base, &request.tokens).unwrap().logits.to_vec2::<f32>().unwrap();
            for target in request.scored.clone() {
                let row: Vec<f64> = logits[target - 1].iter().map(|x| f64::from(*x)).collect();
                let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = row.iter().map(|x| (x - max).exp()).sum();
                let nll = max + sum.ln() - row[request.tokens[target] as usize];
                let token = tokens.next().unwrap();
                assert!((token.nll - nll).abs() < 1e-3, "{name}: {} against {nll}", token.nll);
            }
        }
    }
}

/// Every layer, linear and weight is on the table; base beside itself differs nowhere; experts are counted.
#[test]
fn probes_see_every_layer_linear_and_expert() {
    for folder in folders() {
        let name = folder.display();
        let (base, same, quant) = (open(&folder, ""), open(&folder, ""), open(&folder, "@int4"));
        let (equal, observed) =
            (run(&base, &same, &settings(true, 4096)), run(&base, &quant, &settings(true, 4096)));
        let layers = base.config.num_hidden_layers();
        assert_eq!(observed.quants[0].layers.len(), layers + 1, "{name}");
        assert_eq!(observed.quants[0].weights.len(), base.weights().len(), "{name}");
        let expected: Vec<(usize, &str)> = (0..layers)
            .flat_map(|layer| {
                linears(&base.config.layers[layer]).into_iter().map(move |linear| (layer, linear))
            })
            .collect();
        let seen: Vec<(usize, &str)> =
            observed.quants[0].linears.iter().map(|linear| (linear.layer, linear.linear)).collect();
        assert_eq!(seen, expected, "{name}");
        for layer in &equal.quants[0].layers {
            assert!(layer.cumulative.as_ref().unwrap().all.identical, "{name}: {:?}", layer.layer);
        }
        for (ours, theirs) in equal.quants[0].layers.iter().zip(&observed.quants[0].layers).skip(1) {
            let has_experts = ours.layer.is_some_and(|layer| {
                matches!(base.config.layers[layer].feed_forward, FeedForward::Experts(_))
            });
            assert_eq!(ours.router_agreement, has_experts.then_some(1.0), "{name}");
            assert_eq!(ours.injected_router_agreement, has_experts.then_some(1.0), "{name}");
            assert_eq!(theirs.router_agreement.is_some(), has_experts, "{name}");
            assert!(theirs.router_agreement.unwrap_or(1.0) <= 1.0, "{name}");
            assert!(theirs.injected.as_ref().unwrap().all.sqnr_db.unwrap() > 0.0, "{name}");
        }
        let experts = base.config.layers.iter().any(|l| matches!(l.feed_forward, FeedForward::Experts(_)));
        let lost = observed.quants[0].layers.iter().filter_map(|layer| layer.router_agreement);
        let least = lost.fold(1.0, f64::min);
        assert_eq!(least < 1.0, experts, "{name}: 4 bits send some tokens elsewhere ({least})");
    }
}

/// Token by token with what is kept between tokens, many at once, from a shared beginning: what reading it all gives.
#[test]
fn generation_equals_reading_at_once() {
    for folder in folders() {
        let decoder = open(&folder, "");
        let stem = ids(9, 18);
        let prompts: Vec<Prompt> = (0..3)
            .map(|number| Prompt {
                tokens: [stem.clone(), ids(50 + number, 1 + number)].concat(),
                max_new_tokens: 12,
                sampling: None,
                repeat: 0,
                number: number as u64,
            })
            .collect();
        let settings = GenerateSettings { batch: 2, memory: 1 << 30, end_of_sequence: Vec::new(), seed: 0 };
        let written = generate(&decoder, &prompts, &settings, &|_, _| false, &Silent).unwrap();
        for (prompt, written) in prompts.iter().zip(written) {
            let all = [prompt.tokens.clone(), written.tokens.clone()].concat();
            let logits = trace::trace(&decoder, &all).unwrap().logits.to_vec2::<f32>().unwrap();
            for (step, token) in written.tokens.iter().enumerate() {
                let row = &logits[prompt.tokens.len() + step - 1];
                let best = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                // What is written is at most a rounding away from the best.
                let gap = best - row[*token as usize];
                assert!(gap < 1e-3, "{}: step {step} is {gap} below the best", folder.display());
            }
        }
    }
}

/// A quantized cache on every architecture: scoring at once equals writing token by token through it; layers without a
/// cache are left alone.
#[test]
fn quantized_caches_work_wherever_there_is_a_cache() {
    for folder in folders() {
        let (plain, cached) = (open(&folder, ""), open(&folder, "@kv=fp8"));
        let tokens = ids(4, 40);
        let logits =
            |decoder: &Decoder| trace::trace(decoder, &tokens).unwrap().logits.to_vec2::<f32>().unwrap();
        let (exact, rounded) = (logits(&plain), logits(&cached));
        assert!(exact != rounded, "{}: the cache is rounded", folder.display());
        assert!(rounded.iter().flatten().all(|x| x.is_finite()), "{}", folder.display());
        let prompt =
            Prompt { tokens: tokens[..20].to_vec(), max_new_tokens: 8, sampling: None, repeat: 0, number: 0 };
        let settings = GenerateSettings { batch: 1, memory: 1 << 30, end_of_sequence: Vec::new(), seed: 0 };
        let written = generate(&cached, &[prompt], &settings, &|_, _| false, &Silent).unwrap().remove(0);
        let all = [tokens[..20].to_vec(), written.tokens.clone()].concat();
        let rows = trace::trace(&cached, &all).unwrap().logits.to_vec2::<f32>().unwrap();
        for (step, token) in written.tokens.iter().enumerate() {
            let row = &rows[19 + step];
            let best = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert!(best - row[*token as usize] < 1e-3, "{}: step {step}", folder.display());
        }
    }
}
