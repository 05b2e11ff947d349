//! Matrices that take several tensors to store: codes, scales, zero points. One file per packing, one list.
//!
//! A packing recognises its matrices by the names and types of the tensors, and reads from the settings only what
//! the tensors cannot say; where both speak and differ, the tensors are believed and the reader is warned.
//!
//! To add one: write its file below `packing/` and add its line to [`PACKINGS`].

mod affine;
mod awq;
mod bitsandbytes;
mod checks;
pub(super) mod codes;
mod compressed_tensors;
mod deepseek_fp8;
#[cfg(test)]
mod fixture;
mod gpt_oss;
mod gptq;
mod grid;
mod minifloats;
mod mlx;
mod modelopt;
mod scaling;
mod stated;
mod transposed;
#[cfg(test)]
mod typed;
mod warnings;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
    sync::Arc,
};

use safetensors::Dtype;

use super::{
    StoredTensor,
    activations::{ActivationQuantization, KvCacheQuantization},
    mapped::MappedFile,
    quantization::Quantization,
    weight::{RowSource, StoredBytes},
};
use crate::error::{Error, Result};

/// One way of packing.
pub(super) struct Kind {
    /// Values of `quant_method` that mean it, in lower case.
    pub(super) methods: &'static [&'static str],
    /// Reads the settings, if they are its own (`None` otherwise), once per checkpoint.
    pub(super) prepare: Prepare,
}

/// See [`Kind::prepare`].
type Prepare = fn(&Tensors, Option<&Quantization>) -> Result<Box<dyn Packing>>;

/// All of them, in the order in which a matrix is offered to them. compressed-tensors stands last: its names are the
/// most common ones, and it takes them without settings, too.
pub(super) const PACKINGS: &[Kind] = &[
    gptq::KIND,
    awq::KIND,
    bitsandbytes::KIND,
    mlx::KIND,
    gpt_oss::KIND,
    modelopt::KIND,
    deepseek_fp8::KIND,
    compressed_tensors::KIND,
];

/// A packing with its settings read.
pub(super) trait Packing: fmt::Debug + Send + Sync {
    /// The matrix of a module ("model.layers.0.self_attn.q_proj"), if it is packed in this way.
    ///
    /// # Errors
    /// Tensors that are there but do not fit each other, naming tensor, expected and found.
    fn matrix(&self, tensors: &Tensors, module: &str) -> Result<Option<Packed>>;

    /// What is declared about a layer's KV cache; `attention` is its module ("model.layers.0.self_attn").
    fn kv_cache(&self, tensors: &Tensors, attention: &str) -> Result<Option<KvCacheQuantization>> {
        let _ = (tensors, attention);
        Ok(None)
    }
}

/// A matrix that was found.
#[derive(Debug)]
pub(super) struct Packed {
    /// `[out, in]`, from the tensors.
    pub(super) shape: [usize; 2],
    /// For reports: "int4 g128", "NF4", "FP8 channel".
    pub(super) encoding: String,
    /// Its rows.
    pub(super) source: Arc<dyn RowSource>,
    /// Every tensor used, as stored; their sizes are counted.
    pub(super) tensors: Vec<String>,
    /// What is declared about the linear's input.
    pub(super) input: Option<ActivationQuantization>,
    /// What is declared about its output.
    pub(super) output: Option<ActivationQuantization>,
    /// What the reader should know.
    pub(super) warnings: Vec<String>,
}

/// The tensors of a safetensors checkpoint.
#[derive(Clone, Copy)]
pub(super) struct Tensors<'a> {
    pub(super) files: &'a [Arc<MappedFile>],
    pub(super) by_name: &'a BTreeMap<String, StoredTensor>,
}

impl<'a> Tensors<'a> {
    /// A tensor by its stored name.
    pub(super) fn get(&self, name: &str) -> Option<TensorView<'a>> {
        let (name, tensor) = self.by_name.get_key_value(name)?;
        Some(TensorView {
            name,
            shape: &tensor.shape,
            dtype: tensor.dtype?,
            file: &self.files[tensor.file],
            tensor,
        })
    }

    /// Names of a module's tensors with these endings, of those that are there.
    pub(super) fn present(&self, module: &str, endings: &[&str]) -> Vec<String> {
        let names = endings.iter().map(|ending| format!("{module}.{ending}"));
        names.filter(|name| self.by_name.contains_key(name)).collect()
    }

    /// A tensor that must be there.
    pub(super) fn require(&self, name: &str, why: &str) -> Result<TensorView<'a>> {
        self.get(name).ok_or_else(|| {
            let path = self.files.first().map_or(Path::new("."), |file| file.path());
            Error::tensor(
                path,
                name,
                format!("is missing, but {why}"),
                "the checkpoint is incomplete: write or download it again",
            )
        })
    }
}

/// One tensor of a safetensors file.
#[derive(Clone, Copy, Debug)]
pub(super) struct TensorView<'a> {
    /// As stored.
    pub(super) name: &'a str,
    /// Row-major.
    pub(super) shape: &'a [usize],
    /// Element type.
    pub(super) dtype: Dtype,
    file: &'a Arc<MappedFile>,
    tensor: &'a StoredTensor,
}

impl TensorView<'_> {
    /// Its bytes; the header's check made them fit the shape.
    pub(super) fn stored(&self) -> StoredBytes {
        StoredBytes { file: Arc::clone(self.file), range: self.tensor.bytes.clone().unwrap_or(0..0) }
    }

    /// An error about it.
    pub(super) fn problem(&self, problem: impl Into<String>, help: &str) -> Error {
        Error::tensor(self.file.path(), self.name, problem, help)
    }

    /// Refuses another shape or element type.
    pub(super) fn expect(&self, shape: &[usize], dtypes: &[Dtype]) -> Result<()> {
        if self.shape != shape {
            return Err(self.problem(
                format!("has shape {:?}, expected {shape:?}", self.shape),
                "the file is damaged, or written by a tool that packs in another way",
            ));
        }
        if !dtypes.contains(&self.dtype) {
            let known = dtypes.iter().map(|dtype| format!("{dtype:?}")).collect::<Vec<_>>().join(" or ");
            return Err(self.problem(
                format!("is of type {:?}, expected {known}", self.dtype),
                "the file is damaged, or written by a tool that packs in another way",
            ));
        }
        Ok(())
    }
}

/// Prepares every packing; the settings go to the one that they belong to.
///
/// # Errors
/// A `quant_method` that no packing knows, by name.
pub(super) fn prepare(tensors: &Tensors, settings: Option<&Quantization>) -> Result<Vec<Box<dyn Packing>>> {
    let method = settings.and_then(Quantization::method);
    if let (Some(settings), Some(method)) = (settings, &method)
        && !PACKINGS.iter().any(|kind| kind.methods.contains(&method.as_str()))
    {
        let known: BTreeSet<&str> = PACKINGS.iter().flat_map(|kind| kind.methods).copied().collect();
        let known: Vec<&str> = known.into_iter().collect();
        return Err(settings.problem(
            "quant_method",
            format!("the weights are packed by `{method}`, which this version cannot decode"),
            format!("decoded: {}; or compare a GGUF file of the same model", known.join(", ")),
        ));
    }
    PACKINGS
        .iter()
        .map(|kind| {
            let own = method.as_ref().is_some_and(|method| kind.methods.contains(&method.as_str()));
            (kind.prepare)(tensors, settings.filter(|_| own))
        })
        .collect()
}
