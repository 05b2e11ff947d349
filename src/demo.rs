//! The demo's files: a small trained model that travels inside the binary, cousins of it in formats that people use, and
//! one that is broken as files are in the wild.
//!
//! The cousins are written by the encoders behind `qeval quantize`, and everything lies on disk as anyone's files would:
//! nothing that measures them knows that it is the demo. It must not know the command line.

use std::path::{Path, PathBuf};

use half::f16;

use crate::{
    checkpoint::gguf::Gguf,
    error::{Error, Result},
    quantize,
};

/// The model as it was trained; the suite `demo` beside it is embedded with the other suites.
const MODEL: &[u8] = include_bytes!("../suites/demo/model.safetensors");

/// Its name in the demo's folder.
const BASE: &str = "base.safetensors";

/// What a model needs beside its weights.
const BESIDE: [(&str, &[u8]); 3] = [
    ("config.json", include_bytes!("../suites/demo/config.json")),
    ("tokenizer.json", include_bytes!("../suites/demo/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("../suites/demo/tokenizer_config.json")),
];

/// Where the comparison is written, in the demo's folder.
pub const REPORT: &str = "report";

/// A cousin that the demo makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cousin {
    /// Its file or folder.
    pub name: &'static str,
    /// What it is, in a few words.
    pub about: &'static str,
    made: Made,
}

/// How a cousin comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Made {
    /// By the encoder of this name.
    Encoded(&'static str),
    /// From another cousin, a Q8_0 file, by [`break_q8_0`].
    Broken(&'static str),
}

/// Every cousin, in the order in which they are made and compared.
pub const COUSINS: &[Cousin] = &[
    Cousin { name: "q8_0.gguf", about: "llama.cpp's 8 bits", made: Made::Encoded("q8_0") },
    Cousin { name: "q4_k_m.gguf", about: "llama.cpp's usual 4 bits", made: Made::Encoded("q4_k_m") },
    Cousin { name: "q2_k.gguf", about: "llama.cpp's 2 bits", made: Made::Encoded("q2_k") },
    Cousin { name: "w8a8", about: "vLLM's int8, weights and activations", made: Made::Encoded("w8a8") },
    Cousin { name: "nf4", about: "bitsandbytes' 4 bits", made: Made::Encoded("nf4") },
    Cousin {
        name: "q8_0-broken.gguf",
        about: "8 bits, one matrix under the scales of its 4-bit version",
        made: Made::Broken("q8_0.gguf"),
    },
];

/// Bytes of a Q8_0 block: its scale, an IEEE binary16, before 32 codes of one byte.
const BLOCK_BYTES: usize = 34;

/// The scale of a Q4_0 block over that of the same weights in Q8_0: codes to 8 against codes to 127
/// (`ggml-quants.c`, `quantize_row_q4_0_ref` and `quantize_row_q8_0_ref`).
const SCALE_OF_4_BITS: f32 = 127.0 / 8.0;

/// Where the demo's models lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The model.
    pub base: PathBuf,
    /// Its cousins, in the order of [`COUSINS`].
    pub cousins: Vec<PathBuf>,
}

/// Creates `folder`, unless it holds anything but an earlier demo; with `force` whatever it holds. Files that carry none
/// of the demo's names stay as they are either way.
///
/// # Errors
/// A folder that belongs to someone else, or cannot be created or listed.
pub fn prepare(folder: &Path, force: bool) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(Error::io(folder, "create the demo's folder"))?;
    if force {
        return Ok(());
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder, "list"))? {
        found.push(entry.map_err(Error::io(folder, "list"))?.file_name().to_string_lossy().into_owned());
    }
    // Hidden files: what an interrupted run left, and what file managers leave everywhere.
    found.retain(|name| !name.starts_with('.'));
    found.sort();
    // Someone's model folder has a config.json too: only our own model makes it ours.
    let is_ours = std::fs::read(folder.join(BASE)).is_ok_and(|bytes| bytes == MODEL);
    let is_known = |name: &String| {
        let own = BESIDE.iter().map(|(name, _)| *name).chain(COUSINS.iter().map(|cousin| cousin.name));
        own.chain([BASE, REPORT]).any(|own| own == name)
    };
    match found.iter().find(|name| !is_ours || !is_known(name)) {
        None => Ok(()),
        Some(name) => Err(Error::file(
            folder,
            format!("the folder is not empty (it holds `{name}`) and is not an earlier demo of this version"),
            "name another folder, or write into this one with --force",
        )),
    }
}

/// Writes the model and its cousins into `folder`, over those of an earlier demo. The broken cousin is broken in
/// `broken_layer`. `progress` is told each cousin before it is made.
///
/// # Errors
/// A layer that the model does not have; whatever the encoders and the operating system say.
pub fn write(folder: &Path, broken_layer: usize, progress: &mut dyn FnMut(&Cousin)) -> Result<Written> {
    // The model first: it marks the folder as the demo's.
    let base = folder.join(BASE);
    write_whole(&base, MODEL)?;
    for (name, bytes) in BESIDE {
        write_whole(&folder.join(name), bytes)?;
    }
    let mut cousins = Vec::with_capacity(COUSINS.len());
    for cousin in COUSINS {
        progress(cousin);
        let path = folder.join(cousin.name);
        match cousin.made {
            Made::Encoded(target) => {
                quantize::quantize(&base, &quantize::target(target)?, &path, &mut |_, _, _| ())?;
            }
            Made::Broken(sound) => {
                let sound = folder.join(sound);
                let mut bytes = std::fs::read(&sound).map_err(Error::io(&sound, "read"))?;
                break_q8_0(&sound, &mut bytes, broken_layer)?;
                write_whole(&path, &bytes)?;
            }
        }
        cousins.push(path);
    }
    Ok(Written { base, cousins })
}

/// Puts the codes of `layer`'s down projection under the scales of a 4-bit version: what a converter leaves that writes
/// new codes and forgets the scales of one matrix. The file still loads, no number is out of range, and the model still
/// writes words.
///
/// `file` are the bytes of a GGUF file at `path` whose `blk.N.ffn_down.weight` are Q8_0.
fn break_q8_0(path: &Path, file: &mut [u8], layer: usize) -> Result<()> {
    const HELP: &str = "break another layer";
    let name = format!("blk.{layer}.ffn_down.weight");
    let gguf = Gguf::parse(path, file)?;
    let tensor = gguf.tensors.iter().find(|tensor| tensor.name == name).ok_or_else(|| {
        Error::argument(format!("the demo's model has no layer {layer}: there is no {name}"), HELP)
    })?;
    let data = tensor.bytes.clone().and_then(|range| file.get_mut(range));
    let Some(data) = data.filter(|data| data.len().is_multiple_of(BLOCK_BYTES)) else {
        return Err(Error::tensor(path, &name, "its bytes are no whole Q8_0 blocks", HELP));
    };
    for block in data.chunks_exact_mut(BLOCK_BYTES) {
        if let Some(scale) = block.first_chunk_mut() {
            let larger = f16::from_le_bytes(*scale).to_f32() * SCALE_OF_4_BITS;
            *scale = f16::from_f32(larger).to_le_bytes();
        }
    }
    Ok(())
}

/// Writes a file under another name and renames it when it is complete.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let staged = path.with_file_name(format!(".{name}.partial"));
    std::fs::write(&staged, bytes).map_err(Error::io(&staged, "write"))?;
    std::fs::rename(&staged, path).map_err(Error::io(path, "write"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::quantize::{quantize, target};

    /// The model with its sound Q8_0 cousin.
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        write_whole(&folder.path().join(BASE), MODEL).unwrap();
        for (name, bytes) in BESIDE {
            write_whole(&folder.path().join(name), bytes).unwrap();
        }
        let (base, out) = (folder.path().join(BASE), folder.path().join("q8_0.gguf"));
        quantize(&base, &target("q8_0").unwrap(), &out, &mut |_, _, _| ()).unwrap();
        folder
    }

    /// All weights of a layer's matrix.
    fn weight(path: &Path, layer: usize, matrix: &str, shape: &[usize]) -> Vec<f32> {
        let checkpoint = Checkpoint::open(path).unwrap();
        let config = checkpoint.config().unwrap().unwrap();
        let name = format!("model.layers.{layer}.{matrix}.weight");
        checkpoint.weight(&config, &name, shape).unwrap().decode().unwrap()
    }

    #[test]
    fn the_broken_matrix_alone_is_out_of_scale() {
        const SHAPE: [usize; 2] = [256, 512];
        let folder = folder();
        let (sound, broken) = (folder.path().join("q8_0.gguf"), folder.path().join("broken.gguf"));
        let original = std::fs::read(&sound).unwrap();
        for layer in [0, 3] {
            let mut bytes = original.clone();
            break_q8_0(&sound, &mut bytes, layer).unwrap();
            std::fs::write(&broken, &bytes).unwrap();
            assert_eq!(bytes.len(), original.len());
            let down = |path: &Path, layer| weight(path, layer, "mlp.down_proj", &SHAPE);
            // 11 bits of the new scale's mantissa.
            for (was, is) in down(&sound, layer).iter().zip(down(&broken, layer)) {
                assert!((was * 15.875 - is).abs() <= is.abs() / 2048.0, "{was} {is}");
            }
            for other in [1, 2, 4] {
                assert_eq!(down(&sound, other), down(&broken, other));
            }
            let changed = bytes.iter().zip(&original).filter(|(a, b)| a != b).count();
            let scales = SHAPE[0] * SHAPE[1] / 32;
            assert!((scales..=2 * scales).contains(&changed), "{changed} bytes for {scales} scales");
        }
        let error = break_q8_0(&sound, &mut original.clone(), 5).unwrap_err();
        assert!(error.to_string().contains("has no layer 5"), "{error}");
    }

    #[test]
    fn only_an_earlier_demo_is_written_over() {
        let folder = tempfile::tempdir().unwrap();
        prepare(&folder.path().join("new/deep"), false).unwrap();
        prepare(folder.path(), true).unwrap();
        let error = prepare(folder.path(), false).unwrap_err();
        assert!(error.to_string().contains("holds `new`"), "{error}");
        std::fs::remove_dir_all(folder.path().join("new")).unwrap();
        // Someone's model has these names as well.
        std::fs::write(folder.path().join("config.json"), "{}").unwrap();
        assert!(prepare(folder.path(), false).unwrap_err().to_string().contains("holds `config.json`"));
        std::fs::write(folder.path().join(BASE), "another model").unwrap();
        assert!(prepare(folder.path(), false).is_err());
        write_whole(&folder.path().join(BASE), MODEL).unwrap();
        std::fs::write(folder.path().join(".q8_0.partial"), "").unwrap();
        prepare(folder.path(), false).unwrap();
        std::fs::write(folder.path().join("thesis.txt"), "mine").unwrap();
        assert!(prepare(folder.path(), false).unwrap_err().to_string().contains("holds `thesis.txt`"));
    }
}
