//! llama.cpp's own perplexities of the same files, which differ only by what its kernels and its file round.
//!
//! Needs ../shared: the models, the texts, the figures.

use std::path::{Path, PathBuf};

use qeval::{comparison::Comparison, report};
use serde_json::Value;

use crate::support::{entries, qeval, shared};

/// Its F32 and F16 files run with an f16 KV cache; quantized ones with 8-bit activations too.
const DENSE_TOLERANCE: f64 = 5e-4;
const QUANTIZED_TOLERANCE: f64 = 1e-3;
/// With activations in its own blocks and its f16 cache what is left is its 16-bit file (5e-6 on identical models),
/// the order of its sums, which rounding amplifies (1.4 % of the KL of one file, below 0.5 % of all others), and the
/// rounding of its printed figures (5e-7).
const GGML_KL_RELATIVE: f64 = 0.02;
const GGML_KL_ABSOLUTE: f64 = 6.5e-6;
/// Its saved base logits are cut off this far below each position's best, nats.
const CLIP_NATS: f64 = 16.0;

/// Not the files that the golden's maker did not keep.
fn is_measurable(models: &Path, file: &str) -> bool {
    models.join(file).is_file()
}

/// Perplexity of base as llama.cpp sees it after its own clipping, from the table of tokens.
fn clipped_base_perplexity(tokens: &Path) -> f64 {
    let table = std::fs::read_to_string(tokens).unwrap();
    let mut lines = table.lines();
    let header: Vec<&str> = lines.next().unwrap().split(',').collect();
    let column = |name: &str| header.iter().position(|title| *title == name).unwrap();
    let (label, nll, best) = (column("label"), column("base_nll"), column("base_max_probability"));
    let rows: Vec<Vec<&str>> = lines.map(|line| line.split(',').collect()).collect();
    let of_one_quant: Vec<f64> = rows
        .iter()
        .filter(|row| row[label] == rows[0][label])
        .map(|row| {
            let number = |at: usize| row[at].parse::<f64>().unwrap();
            number(nll).min(CLIP_NATS - number(best).ln())
        })
        .collect();
    (of_one_quant.iter().sum::<f64>() / of_one_quant.len() as f64).exp()
}

#[test]
fn perplexities_agree_within_its_kernels_noise() {
    let Some(folder) = shared("goldens/llamacpp") else { return };
    let mut checked = 0;
    for path in entries(&folder) {
        let golden: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let models = shared(&format!("models/{}", golden["model"].as_str().unwrap())).unwrap();
        let all = golden["quants"].as_array().unwrap();
        let quants: Vec<&Value> =
            all.iter().filter(|quant| is_measurable(&models, quant["file"].as_str().unwrap())).collect();
        let files: Vec<PathBuf> =
            quants.iter().map(|quant| models.join(quant["file"].as_str().unwrap())).collect();
        checked += files.len();
        check(&golden, &models, &quants, &files);
    }
    assert_eq!(checked, 19, "files that were compared");
}

fn run(golden: &Value, models: &Path, files: &[PathBuf], activations: &str, out: &Path) -> Comparison {
    let text = shared(golden["text"].as_str().unwrap()).unwrap();
    let (n_ctx, chunks) = (golden["n_ctx"].to_string(), golden["chunks"].to_string());
    let mut args: Vec<&std::ffi::OsStr> = vec!["compare".as_ref()];
    let base = models.join("model.safetensors");
    args.push(base.as_os_str());
    args.extend(files.iter().map(|file| file.as_os_str()));
    let text = text.to_str().unwrap();
    let options = [
        "--text",
        text,
        "--protocol",
        "llama.cpp",
        "--window",
        &n_ctx,
        "--max-windows",
        &chunks,
        "--activations",
        activations,
        "--probe",
        "none",
        "--no-noise-floor",
        "--no-hash",
        "--quiet",
        "--out",
    ];
    args.extend(options.iter().map(std::ffi::OsStr::new));
    args.push(out.as_os_str());
    let output = qeval(args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    report::read(out).unwrap()
}

fn check(golden: &Value, models: &Path, quants: &[&Value], files: &[PathBuf]) {
    let out = tempfile::tempdir().unwrap();
    let weights_only = out.path().join("weights-only");
    let comparison = run(golden, models, files, "declared", &weights_only);
    let clipped = clipped_base_perplexity(&weights_only.join("tables/tokens.csv"));
    for (quant, measured) in quants.iter().zip(&comparison.quants) {
        let file = quant["file"].as_str().unwrap();
        assert_eq!(
            measured.overall.scored_tokens as u64,
            golden["scored_tokens"].as_u64().unwrap(),
            "{file}"
        );
        let dense = file.contains("F32") || file.contains("F16");
        let tolerance = if dense { DENSE_TOLERANCE } else { QUANTIZED_TOLERANCE };
        let agree = |what: &str, ours: f64, theirs: &Value, tolerance: f64| {
            let theirs = theirs.as_f64().unwrap();
            let relative = (ours / theirs - 1.0).abs();
            assert!(
                relative <= tolerance,
                "{file}: {what} {ours} against llama.cpp's {theirs}: {relative:e}"
            );
        };
        agree("perplexity", measured.overall.quant_perplexity.value, &quant["quant_ppl"], tolerance);
        // Its base's perplexity comes out of the clipped file; ours, clipped alike, is the same.
        agree("clipped base perplexity", clipped, &quant["base_ppl"], DENSE_TOLERANCE);
    }
    // As its kernels compute: not only the perplexity, the divergence is its own too.
    let cached: Vec<PathBuf> = files.iter().map(|file| format!("{}@kv=f16", file.display()).into()).collect();
    let as_ggml = run(golden, models, &cached, "ggml", &out.path().join("ggml"));
    for ((quant, measured), weights_only) in quants.iter().zip(&as_ggml.quants).zip(&comparison.quants) {
        let (file, theirs) = (quant["file"].as_str().unwrap(), quant["kl_mean"].as_f64().unwrap());
        let ours = measured.overall.kl_divergence.mean.value;
        let allowed = (GGML_KL_RELATIVE * theirs).max(GGML_KL_ABSOLUTE);
        assert!((ours - theirs).abs() <= allowed, "{file}: KL {ours:e} against llama.cpp's {theirs:e}");
        let alone = weights_only.overall.kl_divergence.mean.value;
        if file.contains("Q8_0") {
            assert!(
                alone < 0.6 * ours,
                "{file}: the weights alone give {alone:e}, with activations {ours:e}"
            );
        }
    }
}
