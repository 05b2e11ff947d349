//! `qeval trace` against Hugging Face transformers' logits and hidden states (f32).
//!
//! Needs ../shared: all but the two formats of the demo model against each other.

use std::path::Path;

use crate::support::{
    demo_cousin, demo_weights, entries, input_ids, max_abs_difference, qeval, shared, stories, tensors,
    traced,
};

/// Largest difference allowed in any logit or hidden value.
const TOLERANCE: f32 = 1e-3;

fn check(folder: &Path) {
    let golden_path = folder.join("golden.safetensors");
    let golden = tensors(&golden_path);
    for (row, ids) in input_ids(&golden_path).iter().enumerate() {
        let traced = traced(folder, ids);
        assert_eq!(traced.len(), golden.len(), "{}: the same tensors", folder.display());
        for (name, (shape, expected)) in &golden {
            let (traced_shape, values) = &traced[name];
            assert_eq!(traced_shape[1..], shape[1..], "{name}");
            let per_row = expected.len() / shape[0];
            let worst = max_abs_difference(values, &expected[row * per_row..(row + 1) * per_row]);
            assert!(worst < TOLERANCE, "{}: {name} differs by {worst}", folder.display());
        }
    }
}

#[test]
fn every_implemented_architecture_equals_transformers() {
    let Some(folder) = shared("goldens/arch") else { return };
    let mut checked = Vec::new();
    for golden in entries(&folder).iter().filter(|path| path.is_dir()) {
        check(golden);
        checked.push(golden.file_name().unwrap().to_string_lossy().into_owned());
    }
    assert_eq!(checked.len(), 21, "{checked:?}");
}

#[test]
fn the_base_of_the_packed_goldens_equals_transformers() {
    let Some(folder) = shared("goldens/ct-base") else { return };
    check(&folder);
}

#[test]
fn polyglot_equals_its_golden() {
    let Some(folder) = shared("models/polyglot6m") else { return };
    let golden = tensors(&folder.join("golden.safetensors"));
    assert!(golden.contains_key("logits"), "{:?}", golden.keys());
    check_logits_only(&folder, &golden["logits"]);
}

fn check_logits_only(folder: &Path, (shape, expected): &(Vec<usize>, Vec<f32>)) {
    for (row, ids) in input_ids(&folder.join("golden.safetensors")).iter().enumerate() {
        let traced = traced(&folder.join("model.safetensors"), ids);
        let per_row = expected.len() / shape[0];
        let worst = max_abs_difference(&traced["logits"].1, &expected[row * per_row..(row + 1) * per_row]);
        assert!(worst < TOLERANCE, "logits differ by {worst}");
    }
}

#[test]
fn both_formats_give_equal_logits() {
    let out = tempfile::tempdir().unwrap();
    let traces: Vec<_> = [demo_weights(), demo_cousin("bf16")]
        .iter()
        .map(|file| {
            let path = out.path().join("trace.safetensors");
            let output = qeval([
                "trace".as_ref(),
                file.as_os_str(),
                "--text".as_ref(),
                stories("en")[0].as_ref(),
                "--out".as_ref(),
                path.as_os_str(),
            ]);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            (input_ids(&path), tensors(&path))
        })
        .collect();
    assert_eq!(traces[0].0, traces[1].0, "both vocabularies give the same ids");
    assert_eq!(traces[0].0[0][0], 0, "BOS first");
    let worst = max_abs_difference(&traces[0].1["logits"].1, &traces[1].1["logits"].1);
    assert!(worst < 1e-4, "logits differ by {worst}");
}
