//! AWQ (arXiv 2306.00978) in AutoAWQ's GEMM layout, also as AutoRound exports it.
//!
//! `qweight` I32 `[in, out/8]`, `qzeros` I32 `[groups, out/8]`, eight outputs to a word in the order 0 2 4 6 1 3 5 7;
//! `scales` `[groups, out]`; w = (q − z)·s, zero points as they are. Which modules are packed, the tensors say.

use super::{
    Kind, Packed, Packing, Tensors,
    affine::Groups,
    checks::matrix_shape,
    stated::{Stated, differences},
    transposed::{Layout, find, group_size, label, rows},
};
use crate::{checkpoint::quantization::Quantization, error::Result};

/// AWQ, and AutoRound in its layout.
pub(super) const KIND: Kind = Kind {
    methods: &["awq", "auto-round", "autoround", "intel/auto-round"],
    prepare: |_, settings| Ok(Box::new(Awq::read(settings)?)),
};

#[derive(Debug)]
struct Awq {
    stated: Option<Stated>,
}

impl Awq {
    fn read(settings: Option<&Quantization>) -> Result<Self> {
        let Some(settings) = settings else { return Ok(Self { stated: None }) };
        if settings.method().as_deref() == Some("awq") {
            let key = ["version", "checkpoint_format", "format"]
                .into_iter()
                .find(|key| settings.get(key).is_some());
            let version = key.and_then(|key| Some((key, settings.get(key)?.as_str()?.to_lowercase())));
            if let Some((key, version)) = version.filter(|(_, version)| version != "gemm") {
                return Err(settings.problem(
                    key,
                    format!(
                        "the weights are in version `{version}` of AWQ, which this version cannot decode"
                    ),
                    "decoded: gemm; write the checkpoint again as that",
                ));
            }
        }
        Ok(Self { stated: Some(Stated::read(settings)) })
    }
}

impl Packing for Awq {
    fn matrix(&self, tensors: &Tensors, module: &str) -> Result<Option<Packed>> {
        const BITS: u32 = 4;
        let Some(found) = find(tensors, module)?.filter(|found| found.layout == Layout::Awq) else {
            return Ok(None);
        };
        if found.qzeros.shape[1] != found.qweight.shape[1] {
            return Err(found.qzeros.problem(
                format!(
                    "has {} columns, expected {} as qweight",
                    found.qzeros.shape[1], found.qweight.shape[1]
                ),
                "the file is damaged, or written by a tool that packs in another way",
            ));
        }
        let shape = matrix_shape(&found.qweight, found.outputs, Some(found.qweight.shape[0]))?;
        let inputs = shape[1];
        let expected = self.stated.as_ref().map(|stated| stated.of(module)).unwrap_or_default();
        let stated: Vec<usize> = expected.iter().filter_map(|expected| expected.group(inputs)).collect();
        let group = group_size(inputs, found.groups, &stated).map_err(|problem| {
            found.scales.problem(problem, "the file is damaged: write or download it again")
        })?;
        Ok(Some(Packed {
            shape,
            encoding: label(BITS, found.groups, group),
            source: rows(&found, BITS, inputs, Groups::Of(group), false)?,
            tensors: [found.qweight, found.qzeros, found.scales].map(|view| view.name.to_owned()).to_vec(),
            input: None,
            output: None,
            warnings: differences(module, &expected, BITS, inputs, Some(group)),
        }))
    }
}

#[cfg(test)]
mod tests;
