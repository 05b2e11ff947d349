//! Writing quantized checkpoints: a base model in, a file that other tools load out.
//!
//! Two lists of targets (GGUF files here, folders in `packed`), one function. The codes are those of the simulated quantizers (`cousin::simulate`), so that a
//! file measures as its simulation did. Nothing is written under the final name before it is complete.

pub mod gguf;
pub mod packed;

use std::path::{Path, PathBuf};

use crate::{
    checkpoint::{Checkpoint, Format, Weight, config::ModelConfig},
    error::{Error, Result},
    model::expected_weights,
};

/// What a checkpoint can be quantized to.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// As written after `--to`.
    pub name: &'static str,
    /// One line for `--help`.
    pub summary: &'static str,
    /// Where it is defined.
    pub source: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Gguf(gguf::FileType),
    Packed(packed::Scheme),
}

const GGUF: &str =
    "llama.cpp, llama-quant.cpp (mixtures), ggml-quants.c (blocks), without an importance matrix";

const fn gguf(name: &'static str, file_type: gguf::FileType, summary: &'static str) -> Target {
    Target { name, summary, source: GGUF, kind: Kind::Gguf(file_type) }
}

/// The GGUF files.
const GGUF_TARGETS: &[Target] = {
    use gguf::FileType;
    &[
        gguf("f16", FileType::F16, "GGUF, 16 bits, IEEE binary16"),
        gguf("bf16", FileType::Bf16, "GGUF, 16 bits, bfloat16"),
        gguf("q8_0", FileType::Q8_0, "GGUF, 8 bits, a scale for 32 weights"),
        gguf("q6_k", FileType::Q6K, "GGUF, 6 bits, 256 weights share scales"),
        gguf("q5_k_m", FileType::Q5KM, "GGUF, 5 bits, the more sensitive half of attn_v and ffn_down in 6"),
        gguf("q5_k_s", FileType::Q5KS, "GGUF, 5 bits"),
        gguf("q5_1", FileType::Q5_1, "GGUF, 5 bits, a scale and a minimum for 32 weights"),
        gguf("q5_0", FileType::Q5_0, "GGUF, 5 bits, a scale for 32 weights"),
        gguf("q4_k_m", FileType::Q4KM, "GGUF, 4 bits, the more sensitive half of attn_v and ffn_down in 6"),
        gguf("q4_k_s", FileType::Q4KS, "GGUF, 4 bits, the first layers' attn_v and ffn_down in 5"),
        gguf("q4_1", FileType::Q4_1, "GGUF, 4 bits, a scale and a minimum for 32 weights"),
        gguf("q4_0", FileType::Q4_0, "GGUF, 4 bits, a scale for 32 weights"),
        gguf("iq4_nl", FileType::Iq4Nl, "GGUF, 4 bits on an uneven grid, a scale for 32 weights"),
        gguf("iq4_xs", FileType::Iq4Xs, "GGUF, 4 bits on an uneven grid, 256 weights share scales"),
        gguf("q3_k_l", FileType::Q3KL, "GGUF, 3 bits, attn_v, attn_output and ffn_down in 5"),
        gguf("q3_k_m", FileType::Q3KM, "GGUF, 3 bits, attn_v, attn_output and ffn_down in 4 or 5"),
        gguf("q3_k_s", FileType::Q3KS, "GGUF, 3 bits"),
        gguf("q2_k", FileType::Q2K, "GGUF, 2 bits, attn_v, attn_output and ffn_down in 3 or 4"),
    ]
};

/// Every target, in the order of `--help`.
pub fn targets() -> impl Iterator<Item = Target> {
    let folders = packed::TARGETS.iter().map(|target| Target {
        name: target.name,
        summary: target.summary,
        source: target.source,
        kind: Kind::Packed(target.scheme),
    });
    GGUF_TARGETS.iter().copied().chain(folders)
}

/// The target of this name, in any case and with `-` for `_`; `-g64` at the end of a folder's says how many
/// neighbouring weights share a scale.
///
/// # Errors
/// A name that is none, listing those there are; a group where it is fixed.
pub fn target(name: &str) -> Result<Target> {
    let plain = name.to_lowercase().replace('-', "_");
    let found = |name: &str| targets().find(|target| target.name == name);
    if let Some(target) = found(&plain) {
        return Ok(target);
    }
    let grouped = plain.rsplit_once("_g").and_then(|(name, group)| Some((found(name)?, group.parse().ok()?)));
    match grouped {
        Some((target @ Target { kind: Kind::Packed(scheme), .. }, group)) => {
            Ok(Target { kind: Kind::Packed(scheme.with_group(group)?), ..target })
        }
        _ => {
            let names: Vec<&str> = targets().map(|target| target.name).collect();
            Err(Error::argument(
                format!("`{name}` is nothing that a model can be quantized to"),
                format!("write one of {}", names.join(", ")),
            ))
        }
    }
}

impl Target {
    /// Whether it is one file, rather than a folder.
    pub fn is_file(&self) -> bool {
        matches!(self.kind, Kind::Gguf(_))
    }
}

/// Told of each tensor as it is written: its name, bytes written so far, bytes of all tensors.
pub type Progress<'a> = dyn FnMut(&str, u64, u64) + 'a;

/// What was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// The file or folder.
    pub path: PathBuf,
    /// Its size, with everything in it.
    pub bytes: u64,
    /// Bits of all tensors over the number of weights.
    pub bits_per_weight: f64,
    /// How many tensors came out in which encoding, the most weights first.
    pub encodings: Vec<EncodingShare>,
    /// What stayed in higher precision than was asked for, or came out otherwise than asked for, and why.
    pub kept: Vec<Kept>,
    /// What else the reader should know.
    pub notes: Vec<String>,
}

/// The tensors of one encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodingShare {
    /// As reports call it: "Q4_K".
    pub encoding: String,
    /// Tensors.
    pub tensors: usize,
    /// Weights in them.
    pub parameters: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// Tensors that came out otherwise than the target's name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The tensor, or a pattern with `*` for the layer's number.
    pub tensors: String,
    /// How many.
    pub count: usize,
    /// In which encoding.
    pub encoding: String,
    /// Why.
    pub why: String,
}

/// Writes `base` (a folder, a `.safetensors` or a `.gguf`) as `target` to `out`, which is replaced if it is there.
///
/// # Errors
/// A base that is quantized already, that no decoder here runs, or whose tokenizer the target cannot hold; a weight that
/// is not finite, named by tensor and row; a file that cannot be written. Nothing is left at `out` then.
pub fn quantize(base: &Path, target: &Target, out: &Path, progress: &mut Progress) -> Result<Written> {
    if out.exists() && base.canonicalize().ok() == out.canonicalize().ok() {
        return Err(Error::argument(
            format!("{} would replace the model that it is made from", out.display()),
            "name another path with --out",
        ));
    }
    match target.kind {
        Kind::Gguf(file_type) => gguf::write(base, file_type, out, progress),
        Kind::Packed(scheme) => packed::write(base, scheme, out, progress),
    }
}

/// A base model that can be quantized, with all its weights, dense.
pub(crate) struct Base {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) config: ModelConfig,
    /// In the order of use.
    pub(crate) weights: Vec<Weight>,
}

impl Base {
    /// Opens a base: headers only.
    ///
    /// # Errors
    /// No config, an architecture that is not implemented, a weight that is missing, misshapen or quantized, or one
    /// that the config does not ask for.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let checkpoint = Checkpoint::open(path)?;
        let config = checkpoint.config()?.ok_or_else(|| {
            Error::file(path, "has no config.json beside it", "put the model's config.json into its folder")
        })?;
        let weights = expected_weights(&config)
            .iter()
            .map(|(name, shape)| checkpoint.weight(&config, name, shape))
            .collect::<Result<Vec<_>>>()?;
        if let Some(stray) = checkpoint.unused_layer_tensors(&config, &weights).first() {
            let problem =
                format!("is not part of a {} as its config describes it", config.architecture.name());
            let help = "the file computes something else than its config says; it would be lost";
            return Err(Error::tensor(&checkpoint.path, stray, problem, help));
        }
        let dense = ["F32", "F16", "BF16", "F64"];
        if let Some(weight) =
            weights.iter().find(|weight| weight.is_packed() || !dense.contains(&weight.encoding.as_str()))
        {
            return Err(weight.problem(
                format!("is quantized already ({})", weight.encoding),
                "quantize the original model: both errors would be in the file",
            ));
        }
        Ok(Self { checkpoint, config, weights })
    }

    /// A name for the model: what its file says, else the folder's or the file's.
    pub(crate) fn name(&self) -> String {
        let path = match self.checkpoint.format {
            Format::Safetensors => &self.checkpoint.folder,
            Format::Gguf => &self.checkpoint.path,
        };
        let path = path.canonicalize().unwrap_or_else(|_| path.clone());
        path.file_stem().map_or_else(|| "model".to_owned(), |stem| stem.to_string_lossy().into_owned())
    }
}
