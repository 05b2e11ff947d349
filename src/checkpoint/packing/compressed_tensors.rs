//! compressed-tensors: what LLM Compressor writes and vLLM serves, from W2A16 to NVFP4.
//!
//! | tensors of a module | meaning |
//! |-|-|
//! | `weight` I8, `weight_scale` | w = (q − zero)·s, zero from `weight_zero_point` if there |
//! | `weight_packed` I32, `weight_scale`, `weight_shape` | the same, q + 2^(b−1) in b bits, lowest first |
//! | `weight` F8, `weight_scale` | w = q·s, s a float or (U8) a power of two |
//! | `weight_packed` U8, `weight_scale` U8 | E2M1 pairs, s a power of two (MXFP4) |
//! | `weight_packed` U8, `weight_scale` F8, `weight_global_scale` | E2M1 pairs, w = q·(s / global) (NVFP4) |
//!
//! Zeros of packed weights are packed, too, down the rows; `weight_g_idx` names the group of each column.
//!
//! The tensors decide how a matrix is stored, down to bits and group size; the settings add what is declared about
//! activations, and a warning where they say otherwise. Facts from `compressors/*` and `quantization/*` of
//! compressed-tensors 0.19 and earlier.

mod activations;
mod integers;
mod settings;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use safetensors::Dtype;

use self::settings::{Args, Declared, Group, Settings, Strategy};
use super::{
    Kind, Packed, Packing, TensorView, Tensors,
    grid::{Factor, Number, Sound, scalar},
    minifloats::{self, Minifloats},
    scaling::Block,
    warnings,
};
use crate::{
    checkpoint::{
        activations::KvCacheQuantization,
        encoding::Encoding,
        quantization::Quantization,
        weight::{Blocks, RowSource},
    },
    error::Result,
};

/// The line in the list.
pub(super) const KIND: Kind = Kind { methods: &["compressed-tensors"], prepare };

fn prepare(_: &Tensors, settings: Option<&Quantization>) -> Result<Box<dyn Packing>> {
    Ok(Box::new(CompressedTensors { settings: settings.map(Settings::read).transpose()? }))
}

#[derive(Debug)]
struct CompressedTensors {
    settings: Option<Settings>,
}

/// A matrix as its tensors describe it.
struct Matrix {
    shape: [usize; 2],
    encoding: String,
    source: Arc<dyn RowSource>,
    /// Endings of the names of its tensors; those that are not there do not count.
    tensors: &'static [&'static str],
    form: Form,
}

/// What settings and tensors can differ in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Form {
    float: bool,
    bits: u32,
    symmetric: bool,
    block: Block,
}

impl Form {
    fn name(self, shape: [usize; 2]) -> String {
        let (kind, bits) = (if self.float { "float" } else { "int" }, self.bits);
        let zeros = if self.symmetric { "" } else { " asymmetric" };
        format!("{kind}{bits} {}{zeros}", self.block.name(shape))
    }
}

/// Tensors of a module that belong to no weight but to what flows.
const DECLARED_TENSORS: &[&str] = &[
    "input_scale",
    "input_zero_point",
    "input_global_scale",
    "output_scale",
    "output_zero_point",
    "k_scale",
    "v_scale",
];

impl Packing for CompressedTensors {
    fn matrix(&self, tensors: &Tensors, module: &str) -> Result<Option<Packed>> {
        let declared = self.settings.as_ref().map_or(Declared::Nothing, |all| all.declared(module));
        let weights = match declared {
            Declared::As(group) => group.weights.as_ref(),
            Declared::Nothing | Declared::Ignored => None,
        };
        let named = |ending: &str| tensors.get(&format!("{module}.{ending}"));
        let matrix = match (named("weight_packed"), named("weight")) {
            (Some(packed), _) if packed.dtype == Dtype::U8 => {
                self::packed_floats(tensors, module, &packed, weights)?
            }
            (Some(packed), _) => integers::packed(tensors, module, &packed, weights)?,
            (None, Some(weight)) => {
                let scaled = self.settings.is_some() || named("weight_scale").is_some();
                match weight.dtype {
                    Dtype::I8 if scaled => integers::bytes(tensors, module, &weight, weights)?,
                    Dtype::F8_E4M3 | Dtype::F8_E5M2 if scaled => {
                        self::floats(tensors, module, &weight, weights)?
                    }
                    dtype => {
                        let Some(settings) = &self.settings else { return Ok(None) };
                        return match (declared, Encoding::from_safetensors(dtype), weight.shape) {
                            (Declared::As(group), Some(encoding), [_, _]) => {
                                settings.plain(tensors, module, &weight, encoding, group)
                            }
                            _ => Ok(None),
                        };
                    }
                }
            }
            (None, None) => {
                refuse_sparse(tensors, module)?;
                return Ok(None);
            }
        };
        let Matrix { shape, encoding, source, tensors: used, form } = matrix;
        let mut told = Vec::new();
        let mut packed = Packed {
            shape,
            encoding,
            source,
            tensors: tensors.present(module, used),
            input: None,
            output: None,
            warnings: Vec::new(),
        };
        packed.tensors.extend(tensors.present(module, DECLARED_TENSORS));
        match (&self.settings, declared) {
            (None, _) => told.push(without_settings(tensors, module)),
            (Some(_), Declared::Nothing) => {
                told.push(warnings::contradiction(module, "nothing about it", &form.name(shape)));
            }
            (Some(_), Declared::Ignored) => {
                told.push(warnings::contradiction(module, "to ignore it", &form.name(shape)));
            }
            (Some(settings), Declared::As(group)) => {
                told.extend(contradiction(module, shape, form, group));
                settings.declare(tensors, module, group, &mut packed)?;
            }
        }
        packed.warnings = told;
        Ok(Some(packed))
    }

    fn kv_cache(&self, tensors: &Tensors, attention: &str) -> Result<Option<KvCacheQuantization>> {
        let Some(settings) = &self.settings else { return Ok(None) };
        let Some(args) = &settings.kv_cache else { return Ok(None) };
        activations::kv_cache(settings, args, tensors, attention).map(Some)
    }
}

impl Settings {
    /// Adds what a group declares about inputs and outputs.
    fn declare(&self, tensors: &Tensors, module: &str, group: &Group, packed: &mut Packed) -> Result<()> {
        let read = |args: &Option<Args>, side: &str| {
            args.as_ref().map(|args| activations::declared(self, args, tensors, module, side)).transpose()
        };
        packed.input = read(&group.input, "input")?;
        packed.output = read(&group.output, "output")?;
        Ok(())
    }

    /// A weight in plain floats that the settings name all the same.
    fn plain(
        &self,
        tensors: &Tensors,
        module: &str,
        weight: &TensorView,
        encoding: Encoding,
        group: &Group,
    ) -> Result<Option<Packed>> {
        let shape = minifloats::matrix_shape(weight)?;
        let source = Blocks { encoding, columns: shape[1], stored: weight.stored() };
        let mut packed = Packed {
            shape,
            encoding: encoding.name().to_owned(),
            source: Arc::new(source),
            tensors: tensors.present(module, &["weight", "weight_scale", "weight_zero_point"]),
            input: None,
            output: None,
            warnings: Vec::new(),
        };
        packed.tensors.extend(tensors.present(module, DECLARED_TENSORS));
        if let Some(weights) = &group.weights {
            let (declared, found) = (args_name(weights), encoding.name());
            packed.warnings.push(if self.compressed {
                let left = ", and its activations are left as they are";
                warnings::contradiction(module, &declared, found) + left
            } else {
                let saved = format!("it was saved before packing, as {found}; read as saved");
                format!("{module}: the settings say {declared}, but {saved}")
            });
        }
        if group.weights.is_none() || !self.compressed {
            self.declare(tensors, module, group, &mut packed)?;
        }
        Ok(Some(packed))
    }
}

/// FP8 and MXFP8.
fn floats(tensors: &Tensors, module: &str, weight: &TensorView, declared: Option<&Args>) -> Result<Matrix> {
    let scale = require_scale(tensors, module, weight)?;
    let matrix = minifloats::eight_bits(weight, &scale, declared.and_then(Args::block))?;
    Ok(Matrix::of_floats(matrix, 8, &["weight", "weight_scale", "weight_zero_point"]))
}

/// NVFP4 and MXFP4.
fn packed_floats(
    tensors: &Tensors,
    module: &str,
    packed: &TensorView,
    declared: Option<&Args>,
) -> Result<Matrix> {
    let scale = require_scale(tensors, module, packed)?;
    let global = format!("{module}.weight_global_scale");
    let factor = match Number::of(scale.dtype) {
        Some(Number::E4m3) => {
            let why = "`weight_scale` is E4M3, which is relative to it";
            Factor::Over(scalar(&tensors.require(&global, why)?, Sound::Positive)?)
        }
        _ => Factor::One,
    };
    let matrix = minifloats::four_bits(packed, &scale, factor, declared.and_then(Args::block))?;
    Ok(Matrix::of_floats(matrix, 4, &["weight_packed", "weight_scale", "weight_global_scale"]))
}

impl Matrix {
    fn of_floats(matrix: Minifloats, bits: u32, tensors: &'static [&'static str]) -> Self {
        let Minifloats { shape, encoding, block, source } = matrix;
        let form = Form { float: true, bits, symmetric: true, block };
        Self { shape, encoding, source, tensors, form }
    }
}

fn require_scale<'a>(tensors: &Tensors<'a>, module: &str, codes: &TensorView) -> Result<TensorView<'a>> {
    let why = format!("`{}` holds {:?} codes that need it", codes.name, codes.dtype);
    tensors.require(&format!("{module}.weight_scale"), &why)
}

/// Whether settings and tensors agree on bits, kind, zero points and grouping.
fn contradiction(module: &str, shape: [usize; 2], found: Form, group: &Group) -> Option<String> {
    let found_name = found.name(shape);
    let Some(weights) = &group.weights else {
        let nothing = format!("nothing about weights (`config_groups.{}`)", group.name);
        return Some(warnings::contradiction(module, &nothing, &found_name));
    };
    let block = weights.block().map(|block| block.within(shape));
    let agrees = weights.float == found.float
        && weights.num_bits == found.bits
        && (weights.symmetric == found.symmetric || found.float)
        && block == Some(found.block.within(shape));
    (!agrees).then(|| warnings::contradiction(module, &args_name(weights), &found_name))
}

fn args_name(args: &Args) -> String {
    let kind = if args.float { "float" } else { "int" };
    let zeros = if args.symmetric { "" } else { " asymmetric" };
    let sharing = match args.strategy {
        Strategy::Tensor => "tensor".to_owned(),
        Strategy::Channel => "channel".to_owned(),
        Strategy::Token => "token".to_owned(),
        Strategy::AttentionHead => "attention head".to_owned(),
        Strategy::Group(size) | Strategy::TensorGroup(size) => format!("g{size}"),
        Strategy::Block(rows, columns) => format!("block {rows}x{columns}"),
    };
    format!("{kind}{} {sharing}{zeros}", args.num_bits)
}

fn without_settings(tensors: &Tensors, module: &str) -> String {
    let calibrated = tensors.present(module, &["input_scale", "input_global_scale"]);
    let but = calibrated.first().map_or(String::new(), |name| format!(", although `{name}` is stored"));
    warnings::without_settings(module) + &but
}

/// Tensors of the formats that store only the weights that are not zero.
fn refuse_sparse(tensors: &Tensors, module: &str) -> Result<()> {
    let named = |ending: &str| tensors.get(&format!("{module}.{ending}"));
    match (named("compressed"), named("bitmask")) {
        (Some(tensor), Some(_)) => Err(tensor.problem(
            "is stored sparse, beside a bitmask, which this version cannot decode",
            "compare a checkpoint saved without sparse compression",
        )),
        _ => Ok(()),
    }
}
