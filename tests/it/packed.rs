//! Checkpoints by LLM Compressor, bitsandbytes and AutoRound against the outputs of their own tools: logits, nll, and
//! single linears with their declared activation quantization.
//!
//! Every folder of the goldens is enumerated: one that no rule below knows fails.
//!
//! Needs ../shared: the checkpoints and the logits of the tools that wrote them.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use candle_core::{Device, Tensor};
use qeval::{
    Result,
    checkpoint::{Checkpoint, RowSource, Weight},
    evaluate::trace,
    model::{ActivationMode, Decoded, Decoder, Geometry, kv_cache::KvCacheScheme},
};

use crate::support::{entries, input_ids, max_abs_difference, shared, tensors};

/// How a folder's logits are held against its golden.
enum Rule {
    /// Largest difference of any logit, and of the mean nll.
    Equal { logits: f32, nll: f64 },
    /// Rounded activations amplify what no one controls: rms(ours − golden) against rms(golden − base golden), and
    /// relative difference of the mean nll.
    Noisy { rms_ratio: f64, nll: f64 },
}

fn rule(folder: &Path) -> Rule {
    let name = folder.file_name().unwrap().to_str().unwrap();
    let family = folder.parent().unwrap().file_name().unwrap().to_str().unwrap();
    match (family, name) {
        ("ct", "w2a16" | "w3a16" | "w4a16" | "w4a16_asym")
        | ("bnb", "nf4" | "nf4-dq" | "fp4")
        | (
            "gptq-awq",
            "auto_awq-4-asym" | "auto_gptq-2-sym" | "auto_gptq-4-asym" | "auto_gptq-4-sym"
            | "auto_gptq-8-sym" | "auto_round-4-sym",
        ) => Rule::Equal { logits: 2e-3, nll: 1e-4 },
        // The reference decompresses these to bf16, which is exact for MXFP4; NVFP4 is held against it below.
        ("ct", "nvfp4a16" | "mxfp4a16") => Rule::Equal { logits: 3e-2, nll: 2e-3 },
        ("ct", "w8a8" | "fp8" | "fp8_dynamic" | "fp8_block" | "nvfp4" | "mxfp4" | "mxfp8") => {
            Rule::Noisy { rms_ratio: 0.75, nll: 0.01 }
        }
        // Its kernel rounds activations to f16 as well; only the ratio is asked for.
        ("bnb", "int8") => Rule::Noisy { rms_ratio: 0.75, nll: f64::INFINITY },
        _ => panic!("no rule for {}", folder.display()),
    }
}

fn open(folder: &Path) -> Decoder {
    let checkpoint = Checkpoint::open(folder).unwrap();
    let config = checkpoint.config().unwrap().unwrap();
    Decoder::open(&checkpoint, config, &Device::Cpu).unwrap()
}

/// Logits of every row of `input_ids`, joined.
fn logits(decoder: &Decoder, ids: &[Vec<u32>]) -> Vec<f32> {
    ids.iter()
        .flat_map(|ids| {
            trace::trace(decoder, ids).unwrap().logits.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        })
        .collect()
}

/// Mean −ln p of each next token.
fn nll(logits: &[f32], ids: &[Vec<u32>]) -> f64 {
    let vocabulary = logits.len() / ids.iter().map(Vec::len).sum::<usize>();
    let mut rows = logits.chunks_exact(vocabulary);
    let (mut sum, mut count) = (0.0, 0);
    for ids in ids {
        for next in ids.iter().skip(1).map(Some).chain([None]) {
            let row = rows.next().unwrap();
            let Some(next) = next else { continue };
            let max = f64::from(row.iter().copied().fold(f32::MIN, f32::max));
            let total: f64 = row.iter().map(|x| (f64::from(*x) - max).exp()).sum();
            sum += total.ln() + max - f64::from(row[*next as usize]);
            count += 1;
        }
    }
    sum / f64::from(count)
}

/// Mean KL(base‖quant) over all positions, nats.
fn mean_kl(base: &[f32], quant: &[f32], vocabulary: usize) -> f64 {
    let log_softmax = |row: &[f32]| -> Vec<f64> {
        let max = f64::from(row.iter().copied().fold(f32::MIN, f32::max));
        let total: f64 = row.iter().map(|x| (f64::from(*x) - max).exp()).sum();
        row.iter().map(|x| f64::from(*x) - max - total.ln()).collect()
    };
    let per_row = base.chunks_exact(vocabulary).zip(quant.chunks_exact(vocabulary)).map(|(base, quant)| {
        let (p, q) = (log_softmax(base), log_softmax(quant));
        p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>()
    });
    let rows: Vec<f64> = per_row.collect();
    rows.iter().sum::<f64>() / rows.len() as f64
}

fn rms(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let sum: f64 = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    (sum / a.len() as f64).sqrt()
}

fn golden_logits(folder: &Path) -> Vec<f32> {
    tensors(&folder.join("golden.safetensors")).remove("logits").unwrap().1
}

fn folders(path: &str) -> Vec<PathBuf> {
    shared(path).map(|path| entries(&path)).unwrap_or_default()
}

#[test]
fn every_packed_golden_gives_its_tools_logits() {
    let Some(base) = shared("goldens/ct-base") else { return };
    let base = golden_logits(&base);
    let all: Vec<PathBuf> =
        ["goldens/ct", "goldens/bnb", "goldens/gptq-awq"].into_iter().flat_map(folders).collect();
    assert!(all.len() >= 23, "{all:?}");
    let mut failed = Vec::new();
    for folder in &all {
        let rule = rule(folder);
        let ids = input_ids(&folder.join("golden.safetensors"));
        let decoder = match folder.ends_with("nvfp4a16") {
            true => nvfp4_through_bf16(&open(folder)),
            false => open(folder),
        };
        let (ours, golden) = (logits(&decoder, &ids), golden_logits(folder));
        let worst = f64::from(max_abs_difference(&ours, &golden));
        let (noise, error) = (rms(&ours, &golden), rms(&golden, &base));
        let (ours_nll, golden_nll) = (nll(&ours, &ids), nll(&golden, &ids));
        let (fine, said) = match rule {
            Rule::Equal { logits, nll } => (
                worst <= f64::from(logits) && (ours_nll - golden_nll).abs() <= nll,
                format!("logits differ by {worst:.2e}, nll by {:.2e}", ours_nll - golden_nll),
            ),
            Rule::Noisy { rms_ratio, nll } => (
                noise <= rms_ratio * error && (ours_nll / golden_nll - 1.0).abs() <= nll,
                format!(
                    "noise is {:.3} of the error, nll {ours_nll:.5} against {golden_nll:.5}",
                    noise / error
                ),
            ),
        };
        if !fine {
            failed.push(format!("{}: {said}", folder.display()));
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

/// The values of a weight after bf16: what the reference computes NVFP4 products with.
#[derive(Debug)]
struct ThroughBf16(Weight);

impl RowSource for ThroughBf16 {
    fn decode(&self, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        self.0.decode_rows(rows, out)?;
        out.iter_mut().for_each(|value| *value = half::bf16::from_f32(*value).to_f32());
        Ok(())
    }
}

fn nvfp4_through_bf16(decoder: &Decoder) -> Decoder {
    let mut rounded = 0;
    let through = |weight: &Weight| match weight.encoding.contains("NVFP4") {
        true => {
            rounded += 1;
            Ok(weight.derived("bf16".to_owned(), 0, Arc::new(ThroughBf16(weight.clone()))))
        }
        false => Ok(weight.clone()),
    };
    let decoder = decoder.with_weights(through).unwrap();
    assert_eq!(rounded, 14);
    decoder
}

/// Ours are the exact values e2m1·scale/global, as kernels multiply them; the reference rounds each to bf16, which
/// alone moves these logits by up to 0.093, in rms by a fiftieth of the quantization error.
#[test]
fn nvfp4_is_decoded_exactly_where_its_reference_rounds_to_bf16() {
    let (Some(folder), Some(base)) = (shared("goldens/ct/nvfp4a16"), shared("goldens/ct-base")) else {
        return;
    };
    let ids = input_ids(&folder.join("golden.safetensors"));
    let (ours, golden, base) = (logits(&open(&folder), &ids), golden_logits(&folder), golden_logits(&base));
    let ratio = rms(&ours, &golden) / rms(&golden, &base);
    assert!(ratio < 0.03, "{ratio}");
    assert!((nll(&ours, &ids) - nll(&golden, &ids)).abs() < 2e-3);
}

#[test]
fn quantized_linears_round_their_inputs_as_compressed_tensors_does() {
    let mut all = folders("goldens/ct");
    all.extend(folders("models/polyglot6m/ct"));
    let mut failed = Vec::new();
    for folder in &all {
        let name = folder.file_name().unwrap().to_str().unwrap();
        let path = folder.join("golden.safetensors");
        let (golden, ids) = (tensors(&path), input_ids(&path));
        let mut decoder = open(folder);
        if name.starts_with("nvfp4") {
            decoder = nvfp4_through_bf16(&decoder);
        }
        let lengths: Vec<usize> = ids.iter().map(Vec::len).collect();
        let tables = decoder.rope_tables(lengths[0]).unwrap();
        let geometry = Geometry::new(&lengths, &tables).unwrap();
        let layer = decoder.layer(0, &mut Decoded::default()).unwrap();
        let mut linears = 0;
        for linear in ["self_attn.q_proj", "mlp.down_proj"] {
            let (shape, x) = &golden[&format!("model.layers.0.{linear}.x")];
            let (_, y) = &golden[&format!("model.layers.0.{linear}.y")];
            let rows = shape[0] * shape[1];
            let x = Tensor::from_slice(x, (rows, shape[2]), &Device::Cpu).unwrap();
            let ours = layer.linear(linear, &x, &geometry).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            let largest = y.iter().fold(0f32, |largest, y| largest.max(y.abs()));
            let differences: Vec<f32> =
                ours.iter().zip(y).map(|(a, b): (&f32, &f32)| (a - b).abs()).collect();
            let equal = differences.iter().filter(|d| **d <= 1e-4 * largest).count();
            let share = equal as f64 / y.len() as f64;
            let worst = differences.iter().copied().fold(0.0, f32::max) / largest;
            // The same x unrounded must not pass, where the scheme rounds it.
            let unrounded = decoder
                .with_activations(ActivationMode::None)
                .layer(0, &mut Decoded::default())
                .map(|layer| layer.linear(linear, &x, &geometry).unwrap())
                .unwrap();
            let unrounded: Vec<f32> = unrounded.flatten_all().unwrap().to_vec1().unwrap();
            let unrounded =
                unrounded.iter().zip(y).filter(|(a, b)| (**a - **b).abs() <= 1e-4 * largest).count();
            let told_apart = !decoder.rounds_activations() || (unrounded as f64) < 0.2 * y.len() as f64;
            if equal < y.len() || worst > 2e-6 || !told_apart {
                failed.push(format!("{name} {linear}: {share}, {worst}, unrounded {unrounded}"));
            }
            linears += 1;
        }
        assert_eq!(linears, 2);
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn the_trained_model_keeps_its_packed_figures() {
    let Some(folder) = shared("models/polyglot6m") else { return };
    let base = golden_logits(&folder);
    let vocabulary = 4096;
    let mut seen = Vec::new();
    for packed in entries(&folder.join("ct")) {
        let ids = input_ids(&packed.join("golden.safetensors"));
        let (ours, golden) = (logits(&open(&packed), &ids), golden_logits(&packed));
        let (ours_nll, golden_nll) = (nll(&ours, &ids), nll(&golden, &ids));
        let (ours_kl, golden_kl) = (mean_kl(&base, &ours, vocabulary), mean_kl(&base, &golden, vocabulary));
        assert!((ours_nll / golden_nll - 1.0).abs() < 1e-3, "{}: {ours_nll} {golden_nll}", packed.display());
        assert!((ours_kl / golden_kl - 1.0).abs() < 0.2, "{}: {ours_kl} {golden_kl}", packed.display());
        let name = packed.file_name().unwrap().to_str().unwrap().to_owned();
        if name == "w4a16" {
            assert!(max_abs_difference(&ours, &golden) < 2e-3);
        }
        seen.push(name);
    }
    assert_eq!(seen, ["w4a16", "w8a8"]);
}

#[test]
fn activations_can_be_turned_off_and_follow_vllm() {
    let Some(folder) = shared("goldens/ct/w8a8") else { return };
    let ids = input_ids(&folder.join("golden.safetensors"));
    let declared = open(&folder);
    assert!(declared.rounds_activations());
    assert_eq!(declared.activations_in_words(), "int8 per token, dynamic into 14 linears");
    let weights_only = declared.with_activations(ActivationMode::None);
    assert!(!weights_only.rounds_activations());
    assert!(weights_only.activations_in_words().contains("turned off"));
    let vllm = declared.with_activations(ActivationMode::Vllm);
    let all: Vec<Vec<f32>> =
        [&declared, &weights_only, &vllm].into_iter().map(|decoder| logits(decoder, &ids)).collect();
    assert!(all[0] != all[1] && all[0] != all[2] && all[1] != all[2]);
    // Per token, 255 steps or 254 of them: the same size of error.
    let (ct, vllm) = (rms(&all[0], &all[1]), rms(&all[2], &all[1]));
    assert!(ct > 0.0 && (0.5..2.0).contains(&(vllm / ct)), "{ct} {vllm}");
}

/// rms difference of logits computed together and one by one, relative to the logits.
fn packed_against_single(decoder: &Decoder, ids: &[Vec<u32>]) -> f64 {
    let single: Vec<f32> = logits(decoder, ids);
    let tokens: Vec<u32> = ids.iter().flatten().copied().collect();
    let lengths: Vec<usize> = ids.iter().map(Vec::len).collect();
    let tables = decoder.rope_tables(lengths.iter().copied().max().unwrap()).unwrap();
    let geometry = Geometry::new(&lengths, &tables).unwrap();
    let positions: Vec<u32> = lengths.iter().flat_map(|length| 0..*length as u32).collect();
    let mut x = decoder.embed(&tokens, &positions).unwrap();
    for layer in 0..decoder.config.num_hidden_layers() {
        x = decoder.layer(layer, &mut Decoded::default()).unwrap().forward(&x, &geometry, None).unwrap();
    }
    let normed = decoder.final_norm(&x).unwrap();
    let head = decoder.head_rows(0..decoder.config.vocab_size).unwrap();
    let packed =
        decoder.logits(&normed, &head.t().unwrap()).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    rms(&packed, &single) / rms(&single, &vec![0.0; single.len()])
}

#[test]
fn packed_sequences_equal_single_ones_under_every_scheme() {
    for folder in folders("goldens/ct").iter().chain(&folders("goldens/bnb")) {
        let ids = input_ids(&folder.join("golden.safetensors"));
        let difference = packed_against_single(&open(folder), &ids);
        assert!(difference < 1e-6, "{}: {difference}", folder.display());
    }
}

#[test]
fn packed_sequences_equal_single_ones_under_every_kv_cache() {
    let Some(base) = shared("goldens/ct-base") else { return };
    let base = open(&base);
    // Longer than KIVI's window, of lengths that end anywhere in it.
    let ids: Vec<Vec<u32>> = [200u32, 7, 301]
        .iter()
        .map(|length| (0..*length).map(|i| i.wrapping_mul(2_654_435_761).rotate_left(9) % 512).collect())
        .collect();
    let mut schemes = 0;
    for (name, _) in KvCacheScheme::names() {
        let decoder = base.with_kv_cache(KvCacheScheme::parse(name).unwrap()).unwrap();
        let difference = packed_against_single(&decoder, &ids);
        assert!(difference < 1e-6, "{name}: {difference}");
        schemes += 1;
    }
    assert!(schemes >= 20);
}
