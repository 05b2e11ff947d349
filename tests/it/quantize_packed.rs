//! `quantize` to folders of packed weights: against the files that LLM Compressor and bitsandbytes wrote from the same
//! base, byte by byte, and against the simulations of the same names.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use qeval::{
    checkpoint::{Checkpoint, Weight},
    cousin::simulate::Simulation,
    quantize::packed::{self, Scheme, TARGETS},
};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value as Json;

use crate::support;

/// Folders of goldens and the targets that write them.
const GOLDENS: &[(&str, &str)] = &[
    ("ct/fp8_block", "fp8_block"),
    ("ct/fp8_dynamic", "fp8_dynamic"),
    ("ct/mxfp4", "mxfp4"),
    ("ct/mxfp4a16", "mxfp4a16"),
    ("ct/mxfp8", "mxfp8"),
    ("ct/nvfp4a16", "nvfp4a16"),
    ("ct/w2a16", "w2a16"),
    ("ct/w3a16", "w3a16"),
    ("ct/w4a16", "w4a16"),
    ("ct/w4a16_asym", "w4a16_asym"),
    ("ct/w8a8", "w8a8"),
    ("bnb/fp4", "fp4"),
    ("bnb/int8", "llm_int8"),
    ("bnb/nf4", "nf4"),
    ("bnb/nf4-dq", "nf4_dq"),
];

/// Those that no target writes: static scales of inputs come from calibration data.
const CALIBRATED: &[&str] = &["ct/fp8", "ct/nvfp4"];

/// Targets without a golden: held against their simulation alone.
const WITHOUT_GOLDEN: &[&str] = &["w8a16", "fp4_dq"];

fn scheme(target: &str) -> Scheme {
    TARGETS.iter().find(|one| one.name == target).unwrap_or_else(|| panic!("no target {target}")).scheme
}

/// `base` quantized into a folder that lives as long as the first.
fn written(base: &Path, target: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("model");
    let told = packed::write(base, scheme(target), &out, &mut |_, done, total| assert!(done <= total)).unwrap();
    assert_eq!(told.path, out);
    assert_eq!(told.bytes, out.join("model.safetensors").metadata().unwrap().len());
    (folder, out)
}

type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn tensors(folder: &Path) -> Tensors {
    let bytes = std::fs::read(folder.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let own = |(name, tensor): (String, safetensors::tensor::TensorView)| {
        (name, (tensor.dtype(), tensor.shape().to_vec(), tensor.data().to_vec()))
    };
    file.tensors().into_iter().map(own).collect()
}

fn json(path: &Path) -> Json {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Tensors that differ, by the ending of their names: how many bytes of how many.
fn differences(ours: &Tensors, theirs: &Tensors) -> BTreeMap<String, (usize, usize)> {
    let described = |tensors: &Tensors| -> Vec<(String, Dtype, Vec<usize>)> {
        tensors.iter().map(|(name, (dtype, shape, _))| (name.clone(), *dtype, shape.clone())).collect()
    };
    assert_eq!(described(ours), described(theirs));
    let mut found: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for ((name, (.., a)), (.., b)) in ours.iter().zip(theirs.values()) {
        let off = a.iter().zip(b).filter(|(a, b)| a != b).count();
        let ending = name.split("_proj.").last().unwrap();
        let (sum, all) = found.entry(ending.to_owned()).or_default();
        *sum += off;
        *all += a.len();
    }
    found.retain(|_, (off, _)| *off > 0);
    found
}

#[test]
fn probe() {
    let Some(base) = support::shared("goldens/ct-base") else { return };
    for (folder, target) in GOLDENS {
        let golden = support::shared(&format!("goldens/{folder}")).unwrap();
        let (_folder, out) = written(&base, target);
        let (ours, theirs) = (tensors(&out), tensors(&golden));
        let names = |t: &Tensors| t.iter().map(|(n, (d, s, _))| format!("{n} {d:?} {s:?}")).collect::<Vec<_>>();
        let (a, b) = (names(&ours), names(&theirs));
        if a != b {
            println!("{folder}: only ours {:?}", a.iter().filter(|x| !b.contains(x)).collect::<Vec<_>>());
            println!("{folder}: only theirs {:?}", b.iter().filter(|x| !a.contains(x)).collect::<Vec<_>>());
            continue;
        }
        println!("{folder}: {:?}", differences(&ours, &theirs));
        let same = std::fs::read(out.join("model.safetensors")).unwrap() == std::fs::read(golden.join("model.safetensors")).unwrap();
        println!("   file same {same} config same {} bytes {}", json(&out.join("config.json")) == json(&golden.join("config.json")),
            std::fs::read_to_string(out.join("config.json")).unwrap().trim_end() == std::fs::read_to_string(golden.join("config.json")).unwrap().trim_end());
    }
}
