//! llama.cpp's own perplexities of the same files, which differ only by what its kernels round.

use serde_json::Value;

use crate::support::{compare, entries, shared};

/// Its F32 and F16 files run with an f16 KV cache; quantized ones with 8-bit activations too.
const DENSE_TOLERANCE: f64 = 5e-4;
const QUANTIZED_TOLERANCE: f64 = 1e-3;

/// Encodings of other issues, and files that the golden's maker did not keep.
fn is_measurable(models: &std::path::Path, file: &str) -> bool {
    !file.contains("IQ") && models.join(file).is_file()
}

#[test]
fn perplexities_agree_within_its_kernels_noise() {
    let Some(folder) = shared("goldens/llamacpp") else { return };
    let mut checked = 0;
    for path in entries(&folder) {
        let golden: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let models = shared(&format!("models/{}", golden["model"].as_str().unwrap())).unwrap();
        let text = shared(golden["text"].as_str().unwrap()).unwrap();
        let all = golden["quants"].as_array().unwrap();
        let quants: Vec<&Value> =
            all.iter().filter(|quant| is_measurable(&models, quant["file"].as_str().unwrap())).collect();
        let paths: Vec<_> = quants.iter().map(|quant| models.join(quant["file"].as_str().unwrap())).collect();
        let (n_ctx, chunks) = (golden["n_ctx"].to_string(), golden["chunks"].to_string());
        let args = [
            "--text",
            text.to_str().unwrap(),
            "--protocol",
            "llama.cpp",
            "--window",
            &n_ctx,
            "--max-windows",
            &chunks,
            "--probe",
            "none",
            "--no-noise-floor",
            "--no-hash",
        ];
        let comparison = compare(&models.join("model.safetensors"), &paths, &args);
        for (quant, measured) in quants.iter().zip(&comparison.quants) {
            let file = quant["file"].as_str().unwrap();
            let scored = golden["scored_tokens"].as_u64().unwrap();
            assert_eq!(measured.overall.scored_tokens as u64, scored, "{file}");
            let tolerance = match file.contains("F32") || file.contains("F16") {
                true => DENSE_TOLERANCE,
                false => QUANTIZED_TOLERANCE,
            };
            for (what, ours, theirs, tolerance) in [
                ("base", measured.overall.base_perplexity.value, &quant["base_ppl"], DENSE_TOLERANCE),
                ("quant", measured.overall.quant_perplexity.value, &quant["quant_ppl"], tolerance),
            ] {
                let theirs = theirs.as_f64().unwrap();
                let relative = (ours / theirs - 1.0).abs();
                assert!(
                    relative <= tolerance,
                    "{file}: {what} {ours} against llama.cpp's {theirs}: {relative:e}"
                );
            }
            checked += 1;
        }
    }
    assert!(checked >= 12, "{checked} files were compared");
}
