//! Simulated quantization: a checkpoint's matrices as a quantizer would leave them, so that a choice can be judged
//! before anyone converts a file.
//!
//! `q4_k` quantizes the linears inside the layers; `q4_k,down_proj=q6_k,lm_head=q8_0,model.layers.0.*=none` says more:
//! each `PATTERN=QUANTIZER` overrides what stands before it. A pattern is a module's full name, its last components
//! (`mlp.down_proj`), or a glob over the full name, in which `*` stands for anything. Embedding, head and the routers
//! of experts stay as they are unless a pattern names them. No dense copy is made: rows are quantized and restored as they are read.

mod codebook;
#[cfg(test)]
pub(in crate::cousin) mod fixture;
mod ggml;
mod quantizer;
mod rounding;
mod source;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use self::ggml::encode as encode_ggml;
pub use self::quantizer::{Entry, QUANTIZERS, Quantizer};
use self::source::Simulated;
pub(crate) use self::{
    codebook::{BLOCK as CODEBOOK_BLOCK, NESTED_BLOCK, NestedScales, dynamic_map, quant_map},
    quantizer::{Book, FP8_BLOCK, Scheme, Share},
    rounding::StoredScale,
    source::Encoder,
};
use crate::{
    checkpoint::Weight,
    error::{Error, Result},
    pattern,
};

/// Which matrix is quantized how.
#[derive(Clone, Debug, PartialEq)]
pub struct Simulation {
    default: Option<Quantizer>,
    overrides: Vec<Override>,
}

#[derive(Clone, Debug, PartialEq)]
struct Override {
    pattern: String,
    quantizer: Option<Quantizer>,
}

/// Matrices that a runtime joins into one product, which then share NVFP4's factor: LLM Compressor takes it from the
/// largest magnitude among all of them (`FUSED_LAYER_NAMES` in its observers/helpers.py).
const JOINED: &[&[&str]] = &[
    &["gate_proj", "up_proj"],
    &["q_proj", "k_proj", "v_proj"],
    &["q_a_proj", "kv_a_proj_with_mqa"],
    &["w1", "w3"],
];

/// Matrices of a layer that no tool quantizes unasked: routers of experts, short convolutions.
const LEFT_DENSE: &[&str] = &["gate", "router", "shared_expert_gate", "conv1d"];

impl Simulation {
    /// Reads `QUANTIZER,PATTERN=QUANTIZER,…`; `none` leaves a matrix as it is.
    ///
    /// # Errors
    /// A quantizer that is not known, an override without a pattern, or nothing to quantize.
    pub fn parse(text: &str) -> Result<Self> {
        let mut items = text.split(',').map(str::trim);
        let first = items.next().unwrap_or_default();
        if first.is_empty() || first.contains('=') {
            return Err(Error::argument(
                format!("`{text}` does not begin with a quantizer"),
                "write the quantizer of all linears first, or `none`: q4_k,down_proj=q6_k",
            ));
        }
        let overrides = items.map(Override::parse).collect::<Result<Vec<_>>>()?;
        let simulation = Self { default: quantizer_or_none(first)?, overrides };
        if simulation.default.is_none() && simulation.overrides.iter().all(|one| one.quantizer.is_none()) {
            return Err(Error::argument(
                format!("`{text}` quantizes nothing"),
                "name a quantizer: q4_k, or none,down_proj=q4_k",
            ));
        }
        Ok(simulation)
    }

    /// Holds the patterns against the names of all weights of a model.
    ///
    /// # Errors
    /// A pattern that names no matrix, or a model in which nothing would be quantized.
    pub fn check_matched(&self, names: &[String]) -> Result<()> {
        let modules = || names.iter().filter_map(|name| name.strip_suffix(".weight"));
        if let Some(idle) =
            self.overrides.iter().find(|one| !modules().any(|module| matches(&one.pattern, module)))
        {
            let mut kinds: Vec<&str> =
                modules().map(|module| module.rsplit('.').next().unwrap_or(module)).collect();
            kinds.sort_unstable();
            kinds.dedup();
            return Err(Error::argument(
                format!("the pattern `{}` names no matrix of this model", idle.pattern),
                format!(
                    "write a module's full name, its last components or a glob; this model has {}",
                    kinds.join(", ")
                ),
            ));
        }
        if !modules().any(|module| self.quantizer(module).is_some()) {
            return Err(Error::argument(
                "no matrix of this model would be quantized",
                "name the matrices: PATTERN=QUANTIZER",
            ));
        }
        Ok(())
    }

    /// The weight as its quantizer would leave it, or unchanged; `model` holds all weights of the model, among which
    /// NVFP4 finds those that share its factor.
    ///
    /// # Errors
    /// Rows that the format cannot hold, or a quantizer for something that is no matrix, naming the weight.
    pub fn apply(&self, weight: Weight, model: &[Weight]) -> Result<Weight> {
        let Some((quantizer, source)) = self.simulated(&weight, model)? else { return Ok(weight) };
        let label = format!("{} simulated", quantizer.label());
        let stored_bytes = quantizer.stored_bytes(weight.rows(), weight.columns());
        let mut derived = weight.derived(label, stored_bytes, Arc::new(source));
        derived.input = quantizer.input();
        derived.ggml_input = quantizer.ggml_input();
        derived.output = None;
        if !is_dense(&weight) {
            derived.warnings.push(format!(
                "{} is simulated on weights that are already quantized ({}): both errors are in it",
                quantizer.label(),
                weight.encoding
            ));
        }
        Ok(derived)
    }

    /// As [`Simulation::apply`], but what a file would hold of the weight; `None` where it is left as it is.
    ///
    /// # Errors
    /// As [`Simulation::apply`]; also a weight that is quantized already.
    pub(crate) fn encoder(&self, weight: &Weight, model: &[Weight]) -> Result<Option<Encoder>> {
        let module = weight.name.strip_suffix(".weight");
        if let Some(quantizer) =
            module.and_then(|module| self.quantizer(module)).filter(|_| weight.is_matrix())
            && let Some((problem, help)) = quantizer.refusal(weight.columns())
        {
            // Advice for files: there are no choices by module.
            let help = match quantizer.scheme {
                Scheme::Int { .. } => help,
                _ => "choose a format with a scale for each row, as fp8_dynamic or w8a8".to_owned(),
            };
            return Err(weight.problem(problem, &help));
        }
        let Some((_, source)) = self.simulated(weight, model)? else { return Ok(None) };
        if !is_dense(weight) {
            return Err(weight.problem(
                format!("is quantized already ({})", weight.encoding),
                "quantize the original: errors would add up",
            ));
        }
        Ok(Some(Encoder::new(source)))
    }

    /// The weight seen through its quantizer; `None` where it is left as it is.
    fn simulated(&self, weight: &Weight, model: &[Weight]) -> Result<Option<(Quantizer, Simulated)>> {
        let Some(module) = weight.name.strip_suffix(".weight") else { return Ok(None) };
        let Some(quantizer) = self.quantizer(module) else { return Ok(None) };
        if !weight.is_matrix() {
            let named = self.overrides.iter().any(|one| one.names_exactly(module));
            return match named {
                true => Err(weight.problem(
                    format!("is of shape {:?}; only matrices are quantized", weight.shape),
                    "leave it out of the simulation",
                )),
                false => Ok(None),
            };
        }
        if let Some((problem, help)) = quantizer.refusal(weight.columns()) {
            return Err(weight.problem(problem, &help.replace("MODULE", module)));
        }
        let joined = match quantizer.scheme {
            Scheme::Nvfp4 => self.joined(module, model),
            _ => Vec::new(),
        };
        Ok(Some((quantizer, Simulated::new(weight.clone(), quantizer.scheme, joined))))
    }

    /// The quantizer of a module's matrix.
    fn quantizer(&self, module: &str) -> Option<Quantizer> {
        match self.overrides.iter().rev().find(|one| matches(&one.pattern, module)) {
            Some(one) => one.quantizer,
            None => self.default.filter(|_| is_linear_of_a_layer(module)),
        }
    }

    /// The other matrices of the group that a runtime joins with this one, if all of them are NVFP4.
    fn joined(&self, module: &str, model: &[Weight]) -> Vec<Weight> {
        let Some((parent, own)) = module.rsplit_once('.') else { return Vec::new() };
        let Some(group) = JOINED.iter().find(|group| group.contains(&own)) else { return Vec::new() };
        let others: Option<Vec<Weight>> = group
            .iter()
            .filter(|other| **other != own)
            .map(|other| {
                let module = format!("{parent}.{other}");
                let nvfp4 = self.quantizer(&module)?.scheme == Scheme::Nvfp4;
                let named = |weight: &&Weight| weight.name.strip_suffix(".weight") == Some(module.as_str());
                model.iter().find(named).filter(|weight| nvfp4 && weight.is_matrix()).cloned()
            })
            .collect();
        others.unwrap_or_default()
    }
}

impl Override {
    fn parse(item: &str) -> Result<Self> {
        match item.split_once('=').map(|(pattern, quantizer)| (pattern.trim(), quantizer.trim())) {
            Some((pattern, quantizer)) if !pattern.is_empty() => {
                Ok(Self { pattern: pattern.to_owned(), quantizer: quantizer_or_none(quantizer)? })
            }
            _ => Err(Error::argument(
                format!("`{item}` does not say what it is for"),
                "after the first quantizer write PATTERN=QUANTIZER: down_proj=q6_k",
            )),
        }
    }

    /// Without a glob.
    fn names_exactly(&self, module: &str) -> bool {
        self.quantizer.is_some() && !self.pattern.contains('*') && matches(&self.pattern, module)
    }
}

/// Whether the values are floats of the original.
fn is_dense(weight: &Weight) -> bool {
    let dense = ["F32", "F16", "BF16", "F64"];
    weight.encoding.split(' ').next().is_some_and(|encoding| dense.contains(&encoding))
}

fn quantizer_or_none(text: &str) -> Result<Option<Quantizer>> {
    match text {
        "none" => Ok(None),
        text => Quantizer::parse(text).map(Some),
    }
}

/// A module's full name, its last components, or a glob over the full name.
fn matches(pattern: &str, module: &str) -> bool {
    match pattern.contains('*') {
        true => pattern::glob(pattern, module),
        false => {
            module.strip_suffix(pattern).is_some_and(|before| before.is_empty() || before.ends_with('.'))
        }
    }
}

/// Whether a module lies in a numbered layer and is of a kind that tools quantize.
fn is_linear_of_a_layer(module: &str) -> bool {
    let numbered = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let own = module.rsplit('.').next().unwrap_or(module);
    module.split('.').any(numbered) && !LEFT_DENSE.contains(&own)
}
