//! `qeval quantize` to GGUF against the files that llama.cpp's converter and quantizer made from the same models.
//!
//! Needs ../shared.

use std::path::{Path, PathBuf};

use qeval::{
    checkpoint::{
        Checkpoint, Weight,
        encoding::Encoding,
        gguf::{Gguf, Value},
    },
    cousin::simulate::Simulation,
    model::expected_weights,
    quantize::{self, Written},
    tokenizer::Tokenizer,
};
use serde_json::json;

use crate::support::{input_ids, max_abs_difference, qeval, refusal, shared, tensors};

fn write(base: &Path, to: &str, out: &Path) -> Written {
    quantize::quantize(base, &quantize::target(to).unwrap(), out, &mut |_, _, _| {}).unwrap()
}

fn weights(path: &Path) -> (Checkpoint, Vec<Weight>) {
    let checkpoint = Checkpoint::open(path).unwrap();
    let config = checkpoint.config().unwrap().unwrap();
    let weights = expected_weights(&config)
        .iter()
        .map(|(name, shape)| checkpoint.weight(&config, name, shape).unwrap())
        .collect();
    (checkpoint, weights)
}

struct File {
    gguf: Gguf,
    bytes: Vec<u8>,
}

impl File {
    fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        Self { gguf: Gguf::parse(path, &bytes).unwrap(), bytes }
    }

    fn data(&self) -> &[u8] {
        &self.bytes[usize::try_from(self.gguf.data_start).unwrap()..]
    }

    fn tensor(&self, name: &str) -> (u32, &[usize], &[u8]) {
        let tensor = self.gguf.tensors.iter().find(|tensor| tensor.name == name).expect(name);
        (tensor.ggml_type, &tensor.shape, &self.bytes[tensor.bytes.clone().unwrap()])
    }

    fn names(&self) -> Vec<&str> {
        self.gguf.tensors.iter().map(|tensor| tensor.name.as_str()).collect()
    }
}

/// Every key of `theirs` is in `ours` with the same value, but for those named; `extra` is what ours has beside.
fn assert_same_metadata(ours: &File, theirs: &File, other_value: &[&str], extra: &[&str], what: &str) {
    let of_the_imatrix = |key: &String| key.starts_with("quantize.imatrix.");
    for (key, value) in theirs.gguf.metadata.0.iter().filter(|(key, _)| !of_the_imatrix(key)) {
        if !other_value.contains(&key.as_str()) {
            assert_eq!(ours.gguf.metadata.0.get(key), Some(value), "{what}: {key}");
        }
    }
    let beside: Vec<&str> = ours
        .gguf
        .metadata
        .0
        .keys()
        .filter(|key| !theirs.gguf.metadata.0.contains_key(*key))
        .map(String::as_str)
        .collect();
    assert_eq!(beside, extra, "{what}");
}

/// The models and what llama.cpp quantized them to without an importance matrix.
const FILES: &[(&str, &str, &[&str])] = &[
    ("stories260k", "stories260K", &["Q4_0", "Q8_0", "Q4_K_M", "Q5_K_M", "IQ4_NL"]),
    (
        "stories260k-wide256",
        "stories260K-wide256",
        &["Q2_K", "Q3_K_M", "Q4_0", "Q4_K_M", "Q6_K", "Q8_0", "IQ4_XS"],
    ),
];

#[test]
fn files_equal_llama_cpps_byte_by_byte() {
    let out = tempfile::tempdir().unwrap();
    let out = out.path().join("ours.gguf");
    let mut compared = 0;
    for (folder, stem, kinds) in FILES {
        let Some(base) = shared(&format!("models/{folder}")) else { return };
        for kind in *kinds {
            let theirs = File::read(&base.join(format!("{stem}-{kind}.gguf")));
            write(&base, kind, &out);
            let ours = File::read(&out);
            // Name, type, shape, place: all of the header that is no metadata. Then every block.
            let placed = |file: &File| -> Vec<_> {
                let start = usize::try_from(file.gguf.data_start).unwrap();
                let place = |t: &qeval::checkpoint::gguf::GgufTensor| t.bytes.clone().unwrap().start - start;
                let all = file.gguf.tensors.iter();
                all.map(|t| (t.name.clone(), t.ggml_type, t.shape.clone(), place(t))).collect()
            };
            assert_eq!(placed(&ours), placed(&theirs), "{folder} {kind}");
            assert!(ours.data() == theirs.data(), "{folder} {kind}: data differs");
            // They were given a name by hand; ours is the folder's.
            assert_same_metadata(&ours, &theirs, &["general.name"], &[], kind);
            compared += 1;
        }
    }
    assert_eq!(compared, 12);
}

/// The converter's own order of tensors is by the layer's parts; contents are the same.
#[test]
fn a_16_bit_file_equals_the_converters() {
    let Some(base) = shared("models/stories260k") else { return };
    let out = tempfile::tempdir().unwrap();
    let out = out.path().join("ours.gguf");
    write(&base, "f16", &out);
    let (ours, theirs) = (File::read(&out), File::read(&base.join("stories260K-F16.gguf")));
    let (mut own, mut other) = (ours.names(), theirs.names());
    own.sort_unstable();
    other.sort_unstable();
    assert_eq!(own, other);
    assert!(own.iter().all(|name| ours.tensor(name) == theirs.tensor(name)));
    assert_same_metadata(&ours, &theirs, &["general.name"], &["general.quantization_version"], "F16");
}

/// These were quantized with an importance matrix: blocks differ where it counts, types do not. Q8_0 has no use for one.
#[test]
fn types_equal_llama_cpps_where_an_importance_matrix_chose_the_codes() {
    let Some(base) = shared("models/polyglot6m") else { return };
    let out = tempfile::tempdir().unwrap();
    let out = out.path().join("ours.gguf");
    for (kind, all_alike) in [("Q8_0", true), ("Q4_K_M", false), ("Q2_K", false)] {
        let theirs = File::read(&base.join(format!("polyglot6m-{kind}.gguf")));
        write(&base, kind, &out);
        let ours = File::read(&out);
        assert_eq!(ours.names(), theirs.names());
        let mut other_blocks = 0;
        for name in ours.names() {
            let ((kind, shape, bytes), other) = (ours.tensor(name), theirs.tensor(name));
            assert_eq!((kind, shape), (other.0, other.1), "{name}");
            other_blocks += usize::from(bytes != other.2);
        }
        assert_eq!(ours.tensor("token_embd.weight"), theirs.tensor("token_embd.weight"));
        // The matrices inside the layers.
        assert_eq!(other_blocks, if all_alike { 0 } else { 42 }, "{kind}");
        // A pad token is stated by tokenizer_config.json; the file was made without.
        assert_same_metadata(&ours, &theirs, &[], &["tokenizer.ggml.padding_token_id"], kind);
    }
}

#[test]
fn a_gguf_base_gives_the_same_file_with_its_own_metadata() {
    let Some(base) = shared("models/stories260k/stories260K-F32.gguf") else { return };
    let out = tempfile::tempdir().unwrap();
    let out = out.path().join("ours.gguf");
    for kind in FILES[0].2 {
        let theirs = File::read(&base.with_file_name(format!("stories260K-{kind}.gguf")));
        write(&base, kind, &out);
        let ours = File::read(&out);
        assert_eq!(ours.names(), theirs.names());
        assert!(ours.data() == theirs.data(), "{kind}: data differs");
        assert_eq!(ours.gguf.metadata, theirs.gguf.metadata, "{kind}");
    }
    // And of what we wrote ourselves: 16 bits hold nothing that 16 bits did not.
    let (one, two) = (out.with_file_name("one.gguf"), out.with_file_name("two.gguf"));
    write(&base, "f16", &one);
    write(&one, "f16", &two);
    assert!(std::fs::read(&one).unwrap() == std::fs::read(&two).unwrap());
}

#[test]
fn every_target_reads_back_as_its_simulation() {
    let Some(base) = shared("models/stories260k-wide256") else { return };
    let (_checkpoint, originals) = weights(&base);
    let out = tempfile::tempdir().unwrap();
    let original = Tokenizer::from_file(&base.join("tokenizer.json")).unwrap();
    let text = "Once upon a time, Ärger im Café — 快 12!\n  Done.";
    for target in quantize::targets().filter(quantize::Target::is_file) {
        let path = out.path().join(format!("{}.gguf", target.name));
        let written = write(&base, target.name, &path);
        let (checkpoint, read) = weights(&path);
        for (original, read) in originals.iter().zip(&read) {
            let dense = ["F32", "F16", "BF16"].contains(&read.encoding.as_str());
            let expected = match dense {
                true => {
                    let mut values = original.decode().unwrap();
                    for value in &mut values {
                        *value = match read.encoding.as_str() {
                            "F16" => half::f16::from_f32(*value).to_f32(),
                            "BF16" => half::bf16::from_f32(*value).to_f32(),
                            _ => *value,
                        };
                    }
                    values
                }
                false => {
                    let simulation =
                        Simulation::parse(&format!("none,*={}", read.encoding.to_lowercase())).unwrap();
                    simulation.apply(original.clone(), &originals).unwrap().decode().unwrap()
                }
            };
            assert!(read.decode().unwrap() == expected, "{}: {}", target.name, read.name);
        }
        let tokenizer = Tokenizer::of(&checkpoint).unwrap().unwrap();
        assert_eq!(tokenizer.encode(text).unwrap().ids, original.encode(text).unwrap().ids);
        assert_eq!((tokenizer.bos(), tokenizer.eos_token_id), (original.bos(), original.eos_token_id));
        // What is reported is what is there.
        let size = std::fs::metadata(&path).unwrap().len();
        let tensors: usize = written.encodings.iter().map(|share| share.tensors).sum();
        let stored: u64 = written.encodings.iter().map(|share| share.bytes).sum();
        assert_eq!((written.bytes, tensors), (size, checkpoint.tensors.len()));
        assert_eq!(stored, checkpoint.tensors.values().filter_map(|t| t.stored_bytes).sum::<u64>());
        assert!(written.bits_per_weight > 2.0 && written.bits_per_weight < 16.1, "{written:?}");
    }
}

/// A byte-level tokenizer of 320 ids for the goldens, which have none.
fn tokenizer() -> serde_json::Value {
    let mut extra = 0x100..;
    let letters: Vec<char> = (0..=u8::MAX)
        .map(|byte| match byte {
            b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
            _ => extra.next().and_then(char::from_u32).unwrap(),
        })
        .collect();
    let pairs: Vec<(char, char)> = ('a'..='z').map(|letter| ('Ġ', letter)).collect();
    let texts = letters.iter().map(char::to_string).chain(pairs.iter().map(|(a, b)| format!("{a}{b}")));
    let vocab: serde_json::Map<String, serde_json::Value> =
        texts.enumerate().map(|(id, text)| (text, id.into())).collect();
    let merges: Vec<String> = pairs.iter().map(|(a, b)| format!("{a} {b}")).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                  "vocab": vocab, "merges": merges}
    })
}

/// Row order, rope scaling and biases all go into it: transformers' logits come out of the written file.
#[test]
fn written_architectures_compute_what_transformers_computes() {
    for name in ["llama", "llama3-rope", "qwen2"] {
        let Some(golden) = shared(&format!("goldens/arch/{name}")) else { return };
        let folder = tempfile::tempdir().unwrap();
        for file in ["config.json", "model.safetensors"] {
            std::fs::copy(golden.join(file), folder.path().join(file)).unwrap();
        }
        std::fs::write(folder.path().join("tokenizer.json"), tokenizer().to_string()).unwrap();
        let (out, traced) = (folder.path().join("out.gguf"), folder.path().join("trace.safetensors"));
        write(folder.path(), "bf16", &out);
        let expected = tensors(&golden.join("golden.safetensors"));
        let ids: Vec<String> =
            input_ids(&golden.join("golden.safetensors"))[0].iter().map(u32::to_string).collect();
        let output = qeval([
            "trace".as_ref(),
            out.as_os_str(),
            "--tokens".as_ref(),
            ids.join(",").as_ref(),
            "--out".as_ref(),
            traced.as_os_str(),
        ]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let (shape, logits) = &expected["logits"];
        let worst = max_abs_difference(&tensors(&traced)["logits"].1, &logits[..logits.len() / shape[0]]);
        assert!(worst < 1e-3, "{name}: {worst}");
    }
}

/// Biases of q and k follow their rows.
#[test]
fn biases_are_reordered_with_their_rows() {
    let Some(golden) = shared("goldens/arch/llama") else { return };
    let folder = copied(&golden, &["config.json"]);
    std::fs::write(folder.path().join("tokenizer.json"), tokenizer().to_string()).unwrap();
    edit_config(folder.path(), |config| config["attention_bias"] = true.into());
    let bytes = std::fs::read(golden.join("model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut all: Vec<(String, safetensors::tensor::TensorView<'_>)> = file.tensors();
    let ramp: Vec<u8> = (0..64u16).flat_map(|i| f32::from(i).to_le_bytes()).collect();
    let layers = all.iter().filter(|(name, _)| name.ends_with("q_proj.weight")).count();
    for layer in 0..layers {
        for (module, rows) in [("q_proj", 64), ("k_proj", 32), ("v_proj", 32), ("o_proj", 64)] {
            let view =
                safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![rows], &ramp[..4 * rows])
                    .unwrap();
            all.push((format!("model.layers.{layer}.self_attn.{module}.bias"), view));
        }
    }
    std::fs::write(folder.path().join("model.safetensors"), safetensors::serialize(all, None).unwrap())
        .unwrap();
    let out = folder.path().join("out.gguf");
    write(folder.path(), "q8_0", &out);
    let (_checkpoint, read) = weights(&out);
    let mut seen = 0;
    for bias in read.iter().filter(|weight| weight.name.ends_with(".bias")) {
        let expected: Vec<f32> = (0..bias.parameters()).map(|i| i as f32).collect();
        assert_eq!(bias.decode().unwrap(), expected, "{}", bias.name);
        seen += 1;
    }
    assert_eq!(seen, 4 * layers);
    // As it lies there: the halves of a head of 16, interleaved.
    let file = File::read(&out);
    let stored: Vec<f32> = file
        .tensor("blk.0.attn_q.bias")
        .2
        .as_chunks::<4>()
        .0
        .iter()
        .map(|word| f32::from_le_bytes(*word))
        .collect();
    assert_eq!(stored[..6], [0.0, 8.0, 1.0, 9.0, 2.0, 10.0]);
}

fn copied(from: &Path, files: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in files {
        std::fs::copy(from.join(file), folder.path().join(file)).unwrap();
    }
    folder
}

fn edit_config(folder: &Path, edit: impl Fn(&mut serde_json::Value)) {
    let path = folder.join("config.json");
    let mut config = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    edit(&mut config);
    std::fs::write(&path, config.to_string()).unwrap();
}

/// The small model with one weight of a matrix replaced.
fn damaged(value: f32) -> Option<tempfile::TempDir> {
    let from = shared("models/stories260k")?;
    let folder =
        copied(&from, &["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]);
    let path = folder.path().join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = {
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let tensor = file.tensor("model.layers.2.mlp.up_proj.weight").unwrap();
        // Row 5, column 3 of [172, 64].
        tensor.data().as_ptr() as usize - bytes.as_ptr() as usize + 4 * (5 * 64 + 3)
    };
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    Some(folder)
}

fn refused(base: &Path, to: &str, more: &[&str]) -> (String, PathBuf, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.gguf");
    let mut args = vec!["quantize".as_ref(), base.as_os_str(), "--to".as_ref(), to.as_ref()];
    args.extend(["--out".as_ref(), out.as_os_str()]);
    args.extend(more.iter().map(std::ffi::OsStr::new));
    let said = refusal(args);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "something was left: {said}");
    (said, out, folder)
}

#[test]
fn weights_that_no_block_holds_are_named() {
    for (value, to, expected) in [
        (f32::NAN, "q4_k_m", "row 5, column 3 is NaN"),
        (f32::INFINITY, "q8_0", "row 5, column 3 is inf"),
        (1e30, "q8_0", "row 5 has values beyond what Q8_0 can hold"),
        (1e30, "iq4_nl", "row 5 has values beyond what IQ4_NL can hold"),
        (7e4, "f16", "row 5 has values beyond what F16 can hold"),
    ] {
        let Some(folder) = damaged(value) else { return };
        let (said, ..) = refused(folder.path(), to, &[]);
        assert!(
            said.contains("model.layers.2.mlp.up_proj.weight") && said.contains(expected),
            "{to}: {said}"
        );
    }
    // bf16 holds it.
    let Some(folder) = damaged(1e30) else { return };
    write(folder.path(), "bf16", &folder.path().join("out.gguf"));
}

#[test]
fn what_cannot_be_written_is_refused() {
    let Some(base) = shared("models/stories260k") else { return };
    let (said, ..) = refused(&base, "q4_k_xxl", &[]);
    assert!(said.contains("q4_k_xxl") && said.contains("q4_k_m"), "{said}");
    let (said, ..) = refused(&base.join("stories260K-Q4_0.gguf"), "q8_0", &[]);
    assert!(said.contains("quantized already") && said.contains("Q4_0"), "{said}");
    let (said, ..) = refused(Path::new(&format!("{}@q4_0", base.display())), "q8_0", &[]);
    assert!(said.contains("@q4_0"), "{said}");
    let without = copied(&base, &["config.json", "model.safetensors"]);
    let (said, ..) = refused(without.path(), "q8_0", &[]);
    assert!(said.contains("tokenizer.json"), "{said}");
    let without = copied(&base, &["tokenizer.json", "model.safetensors"]);
    let (said, ..) = refused(without.path(), "q8_0", &[]);
    assert!(said.contains("config.json"), "{said}");
}

#[test]
fn nothing_is_replaced_unasked() {
    let Some(base) = shared("models/stories260k") else { return };
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.gguf");
    std::fs::write(&out, "precious").unwrap();
    let args = ["quantize".as_ref(), base.as_os_str(), "--to".as_ref(), "q8_0".as_ref()];
    let args: Vec<_> = args.into_iter().chain(["--out".as_ref(), out.as_os_str()]).collect();
    let said = refusal(&args);
    assert!(said.contains("is there already") && said.contains("--force"), "{said}");
    assert_eq!(std::fs::read(&out).unwrap(), b"precious");
    let output = qeval(args.iter().copied().chain([std::ffi::OsStr::new("--force")]));
    assert!(output.status.success());
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("Q8_0") && said.contains("qeval compare"), "{said}");
    // Rows of 172 have no block of 32: said, with the reason.
    assert!(said.contains("blk.*.ffn_down.weight") && said.contains("multiple of 32"), "{said}");
    // A model is never its own replacement.
    let again: Vec<_> =
        ["quantize".as_ref(), out.as_os_str(), "--to".as_ref(), "f16".as_ref(), "--out".as_ref()]
            .into_iter()
            .chain([out.as_os_str(), "--force".as_ref()])
            .collect();
    assert!(refusal(again).contains("would replace"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn vocabularies_without_the_original_scores_keep_their_order() {
    let Some(from) = shared("models/stories260k") else { return };
    let folder =
        copied(&from, &["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]);
    let out = folder.path().join("out.gguf");
    write(folder.path(), "q8_0", &out);
    let (ours, theirs) = (File::read(&out), File::read(&from.join("stories260K-Q8_0.gguf")));
    let array = |file: &File, key: &str| file.gguf.metadata.0[&format!("tokenizer.ggml.{key}")].clone();
    assert_eq!(array(&ours, "tokens"), array(&theirs, "tokens"));
    assert_eq!(array(&ours, "token_type"), array(&theirs, "token_type"));
    // Scores of joined tokens fall in the same order.
    let (Value::Floats(own), Value::Floats(other)) = (array(&ours, "scores"), array(&theirs, "scores"))
    else {
        panic!("scores are floats")
    };
    let joined: Vec<usize> = (0..own.len()).filter(|id| own[*id] < 0.0 && own[*id] > -1e5).collect();
    // 151 tokens are joined from others; the first of them has the score 0.
    assert_eq!(joined.len(), 150);
    for pair in joined.windows(2) {
        assert_eq!(own[pair[0]] > own[pair[1]], other[pair[0]] > other[pair[1]], "{pair:?}");
    }
    assert_eq!(Encoding::from_ggml_type(ours.tensor("token_embd.weight").0), Some(Encoding::Q8_0));
    // Pairs that no scores could order are refused.
    let path = folder.path().join("tokenizer.json");
    let mut json: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    json["model"]["merges"].as_array_mut().unwrap().remove(0);
    std::fs::write(&path, json.to_string()).unwrap();
    let (said, ..) = refused(folder.path(), "q8_0", &[]);
    assert!(said.contains("model.merges"), "{said}");
}
