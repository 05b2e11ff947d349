//! What must be equal to the last bit, or almost, whatever the model: both formats, base against itself, any chunk.

use qeval::comparison::{Comparison, LayerComparison};

use crate::support::{compare, demo_copy, demo_cousin, demo_stories, demo_text, demo_weights};

#[test]
fn the_same_weights_in_both_formats_do_not_diverge() {
    let text = demo_text();
    let args = ["--text", text.to_str().unwrap(), "--window", "256", "--probe-tokens", "all"];
    let comparison = compare(&demo_weights(), &[demo_cousin("bf16")], &args);
    let quant = &comparison.quants[0];
    assert!(quant.overall.kl_divergence.mean.value.abs() < 1e-6);
    assert!(quant.overall.kl_divergence.max < 1e-6);
    assert_eq!(quant.overall.top1_agreement.value, 1.0);
    assert!(quant.weights.iter().all(|weight| weight.identical), "q and k rows are in the same order");
}

#[test]
fn base_against_itself_is_exactly_zero() {
    let base = demo_weights();
    let copy = tempfile::tempdir().unwrap();
    demo_copy(copy.path());
    let args = ["--text", &demo_stories("en"), "--text", &demo_stories("zh"), "--probe", "linear"];
    let comparison = compare(&base, &[copy.path().to_owned(), base.clone()], &args);
    for quant in &comparison.quants {
        let all = &quant.overall;
        for distribution in [&all.kl_divergence, &all.reverse_kl] {
            assert_eq!((distribution.mean.value, distribution.max), (0.0, 0.0));
        }
        assert_eq!((all.delta_nll.value, all.ppl_ratio.value), (0.0, 1.0));
        assert_eq!((all.delta_p.mean.value, all.delta_p.rms.value), (0.0, 0.0));
        assert_eq!((all.top1_agreement.value, all.top5_overlap.value), (1.0, 1.0));
        assert_eq!(all.base_nll.value, all.quant_nll.value);
        assert_eq!(quant.layers.len(), 6, "the embedding and five layers");
        for layer in &quant.layers {
            assert!(layer.cumulative.as_ref().unwrap().all.identical, "layer {}", layer.layer);
            assert!(layer.injected.as_ref().is_none_or(|errors| errors.all.identical));
        }
        assert_eq!(quant.linears.len(), 5 * 7);
        assert!(quant.linears.iter().all(|l| l.cumulative.all.identical && l.injected.all.identical));
        assert!(!quant.weights.is_empty() && quant.weights.iter().all(|weight| weight.identical));
    }
    let floor = comparison.noise_floor.unwrap();
    assert!(floor.overall.kl_divergence.mean.value > 0.0, "rounding to bf16 is not nothing");
}

#[test]
fn the_chunk_size_changes_no_figure() {
    let text = demo_text();
    let run = |memory: &str| {
        let text = ["--text", text.to_str().unwrap(), "--window", "256", "--memory", memory];
        let args = [&text[..], &["--no-hash", "--no-noise-floor"]].concat();
        compare(&demo_weights(), &[demo_cousin("q4_k_m")], &args)
    };
    let (small, large) = (run("1M"), run("2G"));
    assert!(small.provenance.chunk_tokens < large.provenance.chunk_tokens);
    let figures = |c: &Comparison| serde_json::to_value(&c.quants[0].overall).unwrap();
    assert_eq!(figures(&small), figures(&large));
    // Probes add their sums in another order of tiles; the figures agree to rounding.
    for (a, b) in small.quants[0].layers.iter().zip(&large.quants[0].layers) {
        let db = |l: &LayerComparison| l.cumulative.as_ref().unwrap().all.sqnr_db.unwrap();
        assert!((db(a) - db(b)).abs() < 1e-9);
    }
}
