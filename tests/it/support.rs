//! What tests share: the shared folder, running the program, reading tensors.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use qeval::comparison::Comparison;

/// `path` in the shared folder; `None` only where the folder is absent and nobody requires it.
///
/// # Panics
/// If QEVAL_REQUIRE_SHARED=1 and the file is not there: a test must fail then, not pass by doing nothing.
pub(crate) fn shared(path: &str) -> Option<PathBuf> {
    let found = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared").join(path);
    if found.exists() {
        return Some(found);
    }
    let required = std::env::var_os("QEVAL_REQUIRE_SHARED").is_some_and(|value| value == "1");
    assert!(!required, "QEVAL_REQUIRE_SHARED=1, but {} is not there", found.display());
    eprintln!("skipped: {} is not there", found.display());
    None
}

/// Runs the program.
pub(crate) fn qeval<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    Command::new(env!("CARGO_BIN_EXE_qeval")).args(args).output().expect("the program starts")
}

/// Runs `qeval compare BASE QUANTS… ARGS… --json` into a temporary folder.
pub(crate) fn compare(base: &Path, quants: &[PathBuf], args: &[&str]) -> Comparison {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut all: Vec<&OsStr> = vec!["compare".as_ref(), base.as_os_str()];
    all.extend(quants.iter().map(|path| path.as_os_str()));
    all.extend(args.iter().map(OsStr::new));
    let out = folder.path().join("run");
    all.extend([OsStr::new("--json"), "--quiet".as_ref(), "--out".as_ref(), out.as_os_str()]);
    let output = qeval(all);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("stdout is a comparison")
}

/// Runs the program, expects exit code 2, and returns what it said.
pub(crate) fn refusal<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> String {
    let output = qeval(args);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("error:") && !stderr.contains("panicked"), "{stderr}");
    stderr
}

/// All f32 tensors of a safetensors file, by name, with their shapes.
pub(crate) fn tensors(path: &Path) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let bytes = std::fs::read(path).expect("readable");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    file.tensors()
        .into_iter()
        .filter(|(_, tensor)| tensor.dtype() == safetensors::Dtype::F32)
        .map(|(name, tensor)| {
            let values =
                tensor.data().as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect();
            (name, (tensor.shape().to_vec(), values))
        })
        .collect()
}

/// Token ids `[rows, length]` of a golden's `input_ids`.
pub(crate) fn input_ids(path: &Path) -> Vec<Vec<u32>> {
    let bytes = std::fs::read(path).expect("readable");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    let ids = file.tensor("input_ids").expect("input_ids");
    let length = ids.shape()[1];
    let wide = |word: &[u8; 8]| u32::try_from(i64::from_le_bytes(*word)).expect("an id");
    let all: Vec<u32> = match ids.dtype() {
        safetensors::Dtype::I64 => ids.data().as_chunks::<8>().0.iter().map(wide).collect(),
        safetensors::Dtype::I32 => {
            ids.data().as_chunks::<4>().0.iter().map(|w| u32::from_le_bytes(*w)).collect()
        }
        other => panic!("input_ids of {other:?}"),
    };
    all.chunks(length).map(<[u32]>::to_vec).collect()
}

/// Largest absolute difference.
pub(crate) fn max_abs_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Entries of a folder, sorted.
pub(crate) fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    all.sort();
    all
}
