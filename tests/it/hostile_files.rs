//! Damaged copies of real files: refused with the file's name and a way out, never a panic, never a range
//! outside.
//!
//! Needs ../shared: files that llama.cpp wrote, beside those that this program wrote of the demo model.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use qeval::checkpoint::{gguf::Gguf, safetensors};
use qeval::error::Error;

use crate::support::{demo_of_vocabulary, entries, kept, qeval, shared};

/// Real files with the given extension, with their bytes: a demo model whose vocabulary is small, so that its header is
/// read often, in both formats; and llama.cpp's of a model as small.
fn files(extension: &str) -> Vec<(PathBuf, Vec<u8>)> {
    static SMALL: OnceLock<PathBuf> = OnceLock::new();
    let small = SMALL.get_or_init(|| {
        let folder = kept("hostile_files");
        demo_of_vocabulary(&folder, 300);
        let gguf = folder.join("small-Q4_K_M.gguf");
        let args = ["quantize".as_ref(), folder.as_os_str(), "--to".as_ref(), "q4_k_m".as_ref()];
        let output = qeval(args.into_iter().chain(["--force".as_ref(), "--out".as_ref(), gguf.as_os_str()]));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        folder
    });
    let paths = [Some(small.clone()), shared("models/stories260k")].into_iter().flatten();
    let paths = paths.flat_map(|folder| entries(&folder));
    let paths: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    assert!(!paths.is_empty());
    paths.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// Every length near both ends, and a coprime stride between.
fn lengths(whole: usize) -> impl Iterator<Item = usize> {
    (0..whole).filter(move |length| *length < 600 || *length + 600 > whole || length % 1009 == 0)
}

/// Every place of the first bytes, and a coprime stride through the rest of the header.
fn places(header: usize) -> impl Iterator<Item = usize> {
    (0..header).filter(|at| *at < 600 || at % 13 == 0)
}

#[track_caller]
fn check_refusal(path: &Path, error: &Error) {
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(error.to_string().contains(name), "without the file's name: {error}");
    assert!(error.help().is_some_and(|help| !help.is_empty()), "without help: {error}");
}

#[test]
fn real_gguf_headers_are_read() {
    let files = files("gguf");
    for (path, bytes) in files {
        let gguf = Gguf::parse(&path, &bytes).unwrap();
        assert_eq!(Gguf::open(&path).unwrap(), gguf);
        let ours = path.ends_with("small-Q4_K_M.gguf");
        let (architecture, ids, width) = if ours { ("qwen2", 300, 256) } else { ("llama", 512, 64) };
        assert_eq!(gguf.metadata.get_str("general.architecture"), Some(architecture));
        assert_eq!(gguf.metadata.get_strings("tokenizer.ggml.tokens").map(<[String]>::len), Some(ids));
        let scores = gguf.metadata.get_floats("tokenizer.ggml.scores").map(<[f32]>::len);
        assert_eq!(scores, (!ours).then_some(ids), "byte-level vocabularies have none");
        let embedding = gguf.tensors.iter().find(|tensor| tensor.name == "token_embd.weight").unwrap();
        assert_eq!(embedding.shape, [ids, width]);
        // The tensors and the padding between them are the rest of the file.
        let end = gguf.tensors.iter().filter_map(|tensor| tensor.bytes.as_ref()).map(|bytes| bytes.end).max();
        assert_eq!(end.unwrap().next_multiple_of(32), bytes.len(), "{}", path.display());
    }
}

#[test]
fn a_truncated_gguf_is_refused_at_every_length() {
    let files = files("gguf");
    for (path, bytes) in files {
        // What follows the last tensor is padding, which a reader does not need.
        let tensors = Gguf::parse(&path, &bytes).unwrap().tensors;
        let end =
            tensors.iter().filter_map(|tensor| tensor.bytes.as_ref()).map(|bytes| bytes.end).max().unwrap();
        for length in lengths(end) {
            match Gguf::parse(&path, &bytes[..length]) {
                Err(error) => check_refusal(&path, &error),
                Ok(_) => panic!("{} cut to {length} of {end} bytes was read", path.display()),
            }
        }
        assert!(Gguf::parse(&path, &bytes[..end]).is_ok());
    }
}

#[test]
fn a_gguf_with_damaged_header_bytes_is_refused_or_read_within_its_bounds() {
    let files = files("gguf");
    for (path, mut bytes) in files {
        let header = usize::try_from(Gguf::parse(&path, &bytes).unwrap().data_start).unwrap();
        let mut refused = 0;
        for at in places(header) {
            for flip in [0xFF, 0x80, 0x01] {
                bytes[at] ^= flip;
                match Gguf::parse(&path, &bytes) {
                    Err(error) => {
                        check_refusal(&path, &error);
                        refused += 1;
                    }
                    Ok(gguf) => {
                        // Version 2 reads as version 3 does.
                        assert!(at >= 8 || bytes[4] == 2, "byte {at} may not be {:#x}", bytes[at]);
                        let ranges = gguf.tensors.into_iter().filter_map(|tensor| tensor.bytes);
                        assert!(ranges.map(|range| range.end).all(|end| end <= bytes.len()), "byte {at}");
                    }
                }
                bytes[at] ^= flip;
            }
        }
        assert!(refused > 500, "{}: only {refused} damages were noticed", path.display());
    }
}

#[test]
fn a_truncated_or_padded_safetensors_is_refused_at_every_length() {
    let files = files("safetensors");
    for (path, mut bytes) in files {
        assert!(safetensors::parse(&path, &bytes).is_ok());
        for length in lengths(bytes.len()) {
            match safetensors::parse(&path, &bytes[..length]) {
                Err(error) => check_refusal(&path, &error),
                Ok(_) => panic!("{} cut to {length} of {} bytes was read", path.display(), bytes.len()),
            }
        }
        bytes.push(0);
        check_refusal(&path, &safetensors::parse(&path, &bytes).unwrap_err());
    }
}

#[test]
fn a_safetensors_with_damaged_header_bytes_is_refused_or_read_within_its_bounds() {
    let files = files("safetensors");
    for (path, mut bytes) in files {
        let (tensors, _) = safetensors::parse(&path, &bytes).unwrap();
        let header = tensors.iter().map(|tensor| tensor.bytes.start).min().unwrap();
        for at in places(header) {
            for flip in [0xFF, 0x80, 0x01] {
                bytes[at] ^= flip;
                match safetensors::parse(&path, &bytes) {
                    Err(error) => check_refusal(&path, &error),
                    Ok((tensors, _)) => {
                        assert!(at >= 8, "the header's length may not be changed at byte {at}");
                        assert!(tensors.iter().all(|tensor| tensor.bytes.end <= bytes.len()), "byte {at}");
                    }
                }
                bytes[at] ^= flip;
            }
        }
    }
}

#[test]
fn a_model_under_the_name_of_the_other_format_says_so() {
    let (ggufs, safetensors) = (files("gguf"), files("safetensors"));
    let error = safetensors::parse(Path::new("wrong.safetensors"), &ggufs[0].1).unwrap_err();
    assert!(error.to_string().contains("wrong.safetensors: this is a GGUF file"), "{error}");
    let error = Gguf::parse(Path::new("wrong.gguf"), &safetensors[0].1).unwrap_err();
    assert!(error.to_string().contains("wrong.gguf: this is a safetensors file"), "{error}");
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.gguf");
    assert!(Gguf::open(&missing).unwrap_err().to_string().contains("missing.gguf"));
    let empty = folder.path().join("empty.gguf");
    fs::write(&empty, "").unwrap();
    check_refusal(&empty, &Gguf::open(&empty).unwrap_err());
}
