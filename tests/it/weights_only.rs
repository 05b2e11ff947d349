//! Every figure of an independent f64 reduction over f32 torch: the same files, text and windows.
//!
//! Needs ../shared: the models, the texts, the figures.

use std::path::Path;

use qeval::comparison::{Comparison, ErrorView};
use serde_json::Value;

use crate::support::{compare, entries, shared};

#[test]
fn every_golden_file_is_reproduced() {
    let Some(folder) = shared("goldens/weights-only") else { return };
    let mut checked = 0;
    for golden in entries(&folder) {
        checked += check_file(&golden);
    }
    assert_eq!(checked, 19, "golden quants that were compared");
}

fn check_file(path: &Path) -> usize {
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(golden["protocol"], "llama.cpp");
    let models = shared(&format!("models/{}", golden["model"].as_str().unwrap())).unwrap();
    let text = shared(&format!("data/text/{}", golden["text"].as_str().unwrap())).unwrap();
    let (n_ctx, chunks) = (golden["n_ctx"].to_string(), golden["chunks"].to_string());
    let base = models.join("model.safetensors");
    let quants = golden["quants"].as_array().unwrap();
    let paths: Vec<_> = quants.iter().map(|quant| models.join(quant["file"].as_str().unwrap())).collect();
    let args = [
        "--text",
        text.to_str().unwrap(),
        "--protocol",
        "llama.cpp",
        "--window",
        &n_ctx,
        "--max-windows",
        &chunks,
        "--probe-tokens",
        "all",
        "--no-noise-floor",
        "--no-hash",
    ];
    let comparison = compare(&base, &paths, &args);
    for (index, quant) in quants.iter().enumerate() {
        check_quant(&comparison, index, quant);
    }
    quants.len()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is not a number"))
}

fn close(what: &str, ours: f64, golden: &Value, relative: f64, absolute: f64) {
    let golden = number(golden);
    let allowed = (relative * golden.abs()).max(absolute);
    assert!((ours - golden).abs() <= allowed, "{what}: {ours} against {golden} (allowed {allowed:e})");
}

fn check_quant(comparison: &Comparison, index: usize, golden: &Value) {
    let quant = &comparison.quants[index];
    let file = golden["file"].as_str().unwrap();
    let all = &quant.overall;
    let what = |figure: &str| format!("{file}: {figure}");
    assert_eq!(all.scored_tokens as u64, golden["scored"].as_u64().unwrap(), "{file}");
    close(&what("base_nll"), all.base_nll.value, &golden["base_nll"], 0.0, 1e-5);
    close(&what("quant_nll"), all.quant_nll.value, &golden["quant_nll"], 0.0, 1e-5);
    close(&what("base_ppl"), all.base_perplexity.value, &golden["base_ppl"], 1e-5, 0.0);
    close(&what("quant_ppl"), all.quant_perplexity.value, &golden["quant_ppl"], 1e-5, 0.0);
    let (kl, expected) = (&all.kl_divergence, &golden["kl"]);
    close(&what("kl mean"), kl.mean.value, &expected["mean"], 1e-3, 1e-6);
    close(&what("reverse kl mean"), all.reverse_kl.mean.value, &golden["reverse_kl_mean"], 1e-3, 1e-6);
    close(&what("kl max"), kl.max, &expected["max"], 1e-2, 1e-7);
    for (name, percentile) in
        [("median", &kl.median), ("p90", &kl.p90), ("p95", &kl.p95), ("p99", &kl.p99), ("p99_9", &kl.p99_9)]
    {
        let value = percentile.as_ref().unwrap_or_else(|| panic!("{file}: no {name}")).value;
        close(&what(name), value, &expected[name], 1e-2, 1e-7);
    }
    close(&what("top-1"), all.top1_agreement.value, &golden["top1_agreement"], 0.0, 2e-4);
    close(&what("top-5"), all.top5_overlap.value, &golden["top5_overlap"], 0.0, 2e-4);
    close(&what("delta_p mean"), all.delta_p.mean.value, &golden["delta_p"]["mean"], 1e-2, 1e-6);
    close(&what("delta_p rms"), all.delta_p.rms.value, &golden["delta_p"]["rms"], 1e-2, 1e-6);
    let layers: Vec<_> = quant.layers.iter().filter(|l| l.stage == qeval::comparison::Stage::Layer).collect();
    let expected = golden["layers"].as_array().unwrap();
    assert_eq!(layers.len(), expected.len(), "{file}: layers");
    for (layer, expected) in layers.iter().zip(expected) {
        assert_eq!(layer.layer as u64, expected["layer"].as_u64().unwrap());
        let views = [("cumulative", &layer.cumulative), ("injected", &layer.injected)];
        for (name, view) in views {
            let view = &view.as_ref().unwrap_or_else(|| panic!("{file}: no {name}")).all;
            check_view(&what(&format!("layer {} {name}", layer.layer)), view, &expected[name]);
        }
    }
    let weights = golden["weights"].as_object().unwrap();
    assert_eq!(quant.weights.len(), weights.len(), "{file}: weights");
    for weight in &quant.weights {
        let expected = &weights[&weight.name];
        assert_eq!(weight.encoding, expected["encoding"].as_str().unwrap(), "{file}: {}", weight.name);
        check_db(&what(&weight.name), weight.sqnr_db, &expected["sqnr_db"], 0.01);
    }
}

fn check_view(what: &str, view: &ErrorView, golden: &Value) {
    check_db(&format!("{what} sqnr"), view.sqnr_db, &golden["sqnr_db"], 0.05);
    close(&format!("{what} relative error"), view.relative_error, &golden["relative_error"], 6e-3, 1e-9);
    close(&format!("{what} cosine distance"), view.cosine_distance, &golden["cosine_distance"], 2e-2, 1e-9);
}

/// Decibels to `tolerance`; `null` (no error at all) must be `None`.
fn check_db(what: &str, ours: Option<f64>, golden: &Value, tolerance: f64) {
    match (ours, golden.as_f64()) {
        (None, None) => {}
        (Some(ours), Some(golden)) => {
            assert!((ours - golden).abs() <= tolerance, "{what}: {ours} dB against {golden} dB");
        }
        (ours, golden) => panic!("{what}: {ours:?} against {golden:?}"),
    }
}
