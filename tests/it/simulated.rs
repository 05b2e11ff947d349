//! Simulated quantization against the files that the tools themselves wrote from the same base: llama.cpp, LLM
//! Compressor, bitsandbytes.
//!
//! Needs ../shared: the files of the tools, and their bases.

use std::path::Path;

use qeval::{
    checkpoint::{Checkpoint, Weight},
    cousin::simulate::Simulation,
};

use crate::support;

fn open(path: &Path) -> (Checkpoint, Vec<Weight>) {
    let checkpoint = Checkpoint::open(path).unwrap();
    let config = checkpoint.config().unwrap().unwrap();
    let weights = checkpoint
        .tensors
        .values()
        .filter_map(|t| checkpoint.weight(&config, &t.name, &t.shape).ok())
        .collect();
    (checkpoint, weights)
}

/// Weights of `base` of which `file` holds a quantized form that `scheme` names: how many values there are, and how
/// many of the simulated ones are within a millionth of the file's.
fn agreement(base: &[Weight], file: &Path, scheme: impl Fn(&Weight) -> String) -> (usize, usize) {
    let quant = Checkpoint::open(file).unwrap();
    let config = quant.config().unwrap().unwrap();
    let (mut values, mut alike) = (0, 0);
    for weight in base.iter().filter(|weight| weight.is_matrix()) {
        let Ok(real) = quant.weight(&config, &weight.name, &weight.shape) else { continue };
        // Matrices that the file holds dense are no quantizer's.
        let Ok(simulation) = Simulation::parse(&scheme(&real)) else { continue };
        let simulated = simulation.apply(weight.clone(), base).unwrap();
        if simulated.same_source(weight) {
            continue;
        }
        let (simulated, real) = (simulated.decode().unwrap(), real.decode().unwrap());
        values += real.len();
        alike += simulated.iter().zip(&real).filter(|(a, b)| (*a - *b).abs() <= 1e-6 * b.abs()).count();
    }
    (values, alike)
}

#[test]
fn gguf_types_equal_llama_cpps_quantizer() {
    // Files written without an importance matrix, from f32 weights.
    for (folder, stem, kinds) in [
        ("stories260k", "stories260K", &["Q4_0", "Q8_0", "Q4_K_M", "Q5_K_M", "IQ4_NL"][..]),
        (
            "stories260k-wide256",
            "stories260K-wide256",
            &["Q2_K", "Q3_K_M", "Q4_0", "Q4_K_M", "Q6_K", "Q8_0", "IQ4_XS"],
        ),
    ] {
        let Some(path) = support::shared(&format!("models/{folder}/model.safetensors")) else { return };
        let (_base, weights) = open(&path);
        for kind in kinds {
            let file = path.with_file_name(format!("{stem}-{kind}.gguf"));
            let (values, alike) =
                agreement(&weights, &file, |real| format!("none,*={}", real.encoding.to_lowercase()));
            assert!(values > 190_000, "{kind}: {values}");
            assert_eq!(alike, values, "{kind}");
        }
    }
}

#[test]
fn schemes_equal_llm_compressors_and_bitsandbytes() {
    let Some(path) = support::shared("goldens/ct-base") else { return };
    let (_base, weights) = open(&path);
    for (folder, scheme, least) in [
        ("ct/w8a8", "w8a8", 1.0),
        ("ct/w4a16", "w4a16", 1.0),
        ("ct/w4a16_asym", "w4a16_asym", 1.0),
        ("ct/w3a16", "w3a16", 1.0),
        ("ct/w2a16", "w2a16", 1.0),
        ("ct/fp8", "fp8_tensor", 1.0),
        ("ct/fp8_dynamic", "fp8", 1.0),
        ("ct/fp8_block", "fp8_block", 1.0),
        ("ct/nvfp4", "nvfp4", 1.0),
        ("ct/nvfp4a16", "nvfp4a16", 1.0),
        ("ct/mxfp4", "mxfp4", 1.0),
        ("ct/mxfp4a16", "mxfp4a16", 1.0),
        ("ct/mxfp8", "mxfp8", 1.0),
        ("bnb/nf4", "nf4", 1.0),
        ("bnb/fp4", "fp4", 1.0),
        // bitsandbytes' CPU path looks the codes of scales up in a coarse table, where its GPU kernel takes the nearest:
        // 37 of 18432 scales are off by one code.
        ("bnb/nf4-dq", "nf4-dq", 0.998),
        ("bnb/int8", "llm_int8", 1.0),
    ] {
        let file = support::shared(&format!("goldens/{folder}")).expect("beside the base");
        let (values, alike) = agreement(&weights, &file, |_| scheme.to_owned());
        assert_eq!(values, 1_179_648, "{folder}");
        let share = alike as f64 / values as f64;
        assert!(share >= least, "{folder}: {share}");
    }
    // A bf16 base, as most are.
    let Some(path) = support::shared("models/polyglot6m/model.safetensors") else { return };
    let (_base, weights) = open(&path);
    for scheme in ["w8a8", "w4a16"] {
        let file = path.with_file_name("ct").join(scheme);
        let (values, alike) = agreement(&weights, &file, |_| scheme.to_owned());
        assert!(values > 4_000_000, "{values}");
        assert_eq!(alike, values, "{scheme}");
    }
}
