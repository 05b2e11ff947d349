//! What tests share: the shared folder, the demo model and what is made of it, running the program, reading tensors.
//!
//! A test that needs any real model takes the demo model, which is part of the repository. Only what other implementations
//! recorded lies in `../shared`; a test that needs it says so in its file's head.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{Arc, Mutex, OnceLock},
};

use candle_core::{Device, Tensor};
use serde_json::Value;

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

/// What makes a folder a model of Hugging Face.
const MODEL_FILES: [&str; 4] =
    ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];

/// The demo model: a Hugging Face folder.
pub(crate) fn demo_model() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("suites/demo")
}

/// The demo model's weights, by themselves a model too: what else it needs lies beside them.
pub(crate) fn demo_weights() -> PathBuf {
    demo_model().join("model.safetensors")
}

/// Held-out stories of one language, a document a line, as `--text` takes them.
pub(crate) fn demo_stories(language: &str) -> String {
    demo_model().join(format!("{language}.jsonl")).to_str().expect("UTF-8").to_owned()
}

/// A folder that stays between tests and between runs.
pub(crate) fn kept(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// The demo model as a GGUF file, as `qeval quantize --to TARGET` writes it: made once, and anew where the program or the
/// model is newer. The file is called `demo-TARGET.gguf`, its target in capitals.
pub(crate) fn demo_cousin(target: &str) -> PathBuf {
    type Made = Mutex<BTreeMap<String, Arc<OnceLock<PathBuf>>>>;
    static MADE: Made = Mutex::new(BTreeMap::new());
    let cell = Arc::clone(MADE.lock().expect("not poisoned").entry(target.to_owned()).or_default());
    cell.get_or_init(|| {
        let folder = kept("demo");
        let path = folder.join(format!("demo-{}.gguf", target.to_uppercase()));
        let time = |path: &Path| std::fs::metadata(path).and_then(|file| file.modified()).ok();
        let newest = time(Path::new(env!("CARGO_BIN_EXE_qeval"))).max(time(&demo_weights()));
        if time(&path) <= newest {
            // Another process may do the same: each writes its own file, and renaming is one step.
            let own = tempfile::tempdir_in(&folder).expect("a folder");
            let unfinished = own.path().join("unfinished.gguf");
            let output = qeval([
                "quantize".as_ref(),
                demo_model().as_os_str(),
                "--to".as_ref(),
                target.as_ref(),
                "--out".as_ref(),
                unfinished.as_os_str(),
            ]);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            std::fs::rename(unfinished, &path).expect("renamed");
        }
        path
    })
    .clone()
}

/// The held-out stories of all nine languages as one plain text: some 3 400 tokens.
pub(crate) fn demo_text() -> PathBuf {
    static TEXT: OnceLock<PathBuf> = OnceLock::new();
    TEXT.get_or_init(|| {
        let languages = ["en", "de", "es", "fr", "ru", "el", "ar", "hi", "zh"];
        let text: String =
            languages.iter().flat_map(|language| stories(language)).map(|story| story + "\n").collect();
        let path = kept("demo").join("stories.txt");
        // Another process may read it at this moment: the same bytes are left alone.
        if std::fs::read(&path).ok().as_deref() != Some(text.as_bytes()) {
            std::fs::write(&path, text).expect("written");
        }
        path
    })
    .clone()
}

/// The held-out stories of one language.
pub(crate) fn stories(language: &str) -> Vec<String> {
    let lines = std::fs::read_to_string(demo_stories(language)).expect("readable");
    let story = |line: &str| -> String {
        let line: Value = serde_json::from_str(line).expect("JSON");
        line["text"].as_str().expect("a text").to_owned()
    };
    lines.lines().map(story).collect()
}

/// The demo suite with these tasks alone, in `folder`.
pub(crate) fn demo_suite(folder: &Path, tasks: &[&str]) -> PathBuf {
    use serde_yaml::Value;
    let yaml = std::fs::read_to_string(demo_model().join("suite.yaml")).expect("readable");
    let mut suite: Value = serde_yaml::from_str(&yaml).expect("YAML");
    let all = suite["tasks"].as_sequence_mut().expect("tasks");
    all.retain(|task| task["name"].as_str().is_some_and(|name| tasks.contains(&name)));
    assert_eq!(all.len(), tasks.len(), "{tasks:?}");
    for data in all.iter().filter_map(|task| task["data"].as_str()) {
        std::fs::copy(demo_model().join(data), folder.join(data)).expect("copied");
    }
    let path = folder.join("suite.yaml");
    std::fs::write(&path, serde_yaml::to_string(&suite).expect("YAML")).expect("written");
    path
}

/// A copy of the demo model in `folder`.
pub(crate) fn demo_copy(folder: &Path) {
    for file in MODEL_FILES {
        std::fs::copy(demo_model().join(file), folder.join(file)).expect("copied");
    }
}

/// Changes a JSON file.
pub(crate) fn edit_json(path: &Path, edit: impl FnOnce(&mut Value)) {
    let mut json = serde_json::from_slice(&std::fs::read(path).expect("readable")).expect("JSON");
    edit(&mut json);
    std::fs::write(path, json.to_string()).expect("written");
}

/// Changes the tensors of a model's folder.
pub(crate) fn edit_tensors(folder: &Path, edit: impl FnOnce(&mut HashMap<String, Tensor>)) {
    let path = folder.join("model.safetensors");
    let mut tensors = candle_core::safetensors::load(&path, &Device::Cpu).expect("tensors");
    edit(&mut tensors);
    candle_core::safetensors::save(&tensors, path).expect("written");
}

/// The demo model in `folder`, its last layers left out.
pub(crate) fn demo_of_layers(folder: &Path, layers: usize) {
    demo_copy(folder);
    edit_json(&folder.join("config.json"), |config| config["num_hidden_layers"] = layers.into());
    edit_tensors(folder, |tensors| {
        tensors.retain(|name, _| {
            let rest = name.strip_prefix("model.layers.");
            rest.is_none_or(|rest| {
                rest.split('.').next().expect("a number").parse::<usize>().unwrap() < layers
            })
        });
    });
}

/// The demo model in `folder` with the first `ids` of its vocabulary alone: it reads the same text in more pieces.
pub(crate) fn demo_of_vocabulary(folder: &Path, ids: usize) {
    demo_copy(folder);
    edit_json(&folder.join("config.json"), |config| config["vocab_size"] = ids.into());
    edit_tensors(folder, |tensors| {
        let embedding = tensors["model.embed_tokens.weight"].narrow(0, 0, ids).expect("fewer rows");
        tensors.insert("model.embed_tokens.weight".to_owned(), embedding.contiguous().expect("copied"));
    });
    edit_json(&folder.join("tokenizer.json"), |tokenizer| {
        let pieces = tokenizer["model"]["vocab"].as_object_mut().expect("pieces");
        pieces.retain(|_, id| id.as_u64().expect("an id") < ids as u64);
        let pieces = pieces.clone();
        let merges = tokenizer["model"]["merges"].as_array_mut().expect("merges");
        merges.retain(|pair| {
            let both: String =
                pair.as_array().expect("a pair").iter().map(|part| part.as_str().unwrap()).collect();
            pieces.contains_key(&both)
        });
    });
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

/// `qeval trace` of these tokens.
pub(crate) fn traced(model: &Path, ids: &[u32]) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("trace.safetensors");
    let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
    let ids = ids.join(",");
    let output = qeval([
        "trace".as_ref(),
        model.as_os_str(),
        "--tokens".as_ref(),
        ids.as_ref(),
        "--out".as_ref(),
        out.as_os_str(),
    ]);
    assert!(output.status.success(), "{}: {}", model.display(), String::from_utf8_lossy(&output.stderr));
    tensors(&out)
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
