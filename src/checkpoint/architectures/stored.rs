//! Where a tensor of the model lies in a file: under which name, which rows of it, in which form.

use std::sync::Arc;

use super::{Architecture, common};
use crate::checkpoint::{Format, config::ModelConfig};

/// A name of the model, taken apart: `model.layers.3.mlp.experts.7.gate_proj.weight`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::checkpoint) struct Name<'a> {
    /// 3.
    pub(in crate::checkpoint) layer: Option<usize>,
    /// 7.
    pub(in crate::checkpoint) expert: Option<usize>,
    /// `gate_proj` of an expert, `self_attn.q_proj`, `norm`.
    pub(in crate::checkpoint) module: &'a str,
    /// `weight`, `bias`, or nothing.
    pub(in crate::checkpoint) kind: &'a str,
}

/// Modules below this are experts'.
const EXPERTS: &str = "mlp.experts.";

impl<'a> Name<'a> {
    /// Takes a name of the model apart.
    pub(in crate::checkpoint) fn of(full: &'a str) -> Self {
        let rest = full.strip_prefix("model.").unwrap_or(full);
        let (layer, rest) = match rest.strip_prefix("layers.").and_then(|rest| rest.split_once('.')) {
            Some((layer, rest)) => (layer.parse().ok(), rest),
            None => (None, rest),
        };
        let (expert, rest) = match rest.strip_prefix(EXPERTS).and_then(|rest| rest.split_once('.')) {
            Some((expert, rest)) => (expert.parse().ok(), rest),
            None => (None, rest),
        };
        let (module, kind) = match rest.rsplit_once('.') {
            Some((module, kind @ ("weight" | "bias"))) => (module, kind),
            _ => (rest, ""),
        };
        Self { layer, expert, module, kind }
    }

    /// Whether it is a weight or bias of this module.
    pub(in crate::checkpoint) fn is(&self, module: &str) -> bool {
        self.module == module
    }
}

/// A change of every value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::checkpoint) enum Map {
    /// w·factor.
    Times(f32),
    /// w + 1: norms that are stored as what they differ from 1 by.
    PlusOne,
    /// −eʷ: decays that are stored as logarithms.
    NegativeExp,
}

/// Rows of a file's tensor, in the model's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::checkpoint) struct Rows {
    /// Of each of the model's rows, the file's.
    pub(in crate::checkpoint) table: Arc<[u32]>,
    /// How many the file's tensor has.
    pub(in crate::checkpoint) of: usize,
}

/// A part of a tensor of a file, or all of it, before the name is complete.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::checkpoint) struct Piece {
    /// The file's module, without stem, layer and kind; an expert's with its number.
    pub(in crate::checkpoint) module: String,
    /// Whether `.weight` or `.bias` follows.
    pub(in crate::checkpoint) has_kind: bool,
    /// Which rows; `None`: all, in order.
    pub(in crate::checkpoint) rows: Option<Rows>,
    /// Which columns, in the model's order; `None`: all, in order.
    pub(in crate::checkpoint) columns: Option<Arc<[u32]>>,
    /// What is done to every value.
    pub(in crate::checkpoint) map: Option<Map>,
    /// Stored `[groups, in, out]` where the model has `[groups·out, in]`: the width of a group, out.
    pub(in crate::checkpoint) transposed: Option<usize>,
}

impl Piece {
    /// A whole tensor.
    pub(in crate::checkpoint) fn whole(module: impl Into<String>) -> Self {
        Self { module: module.into(), has_kind: true, rows: None, columns: None, map: None, transposed: None }
    }

    /// A whole tensor whose name does not end in `.weight` or `.bias`.
    pub(in crate::checkpoint) fn bare(module: impl Into<String>) -> Self {
        Self { has_kind: false, ..Self::whole(module) }
    }

    /// Some rows of `of`.
    pub(in crate::checkpoint) fn rows(self, of: usize, table: impl IntoIterator<Item = usize>) -> Self {
        let table = table.into_iter().map(|row| row as u32).collect();
        Self { rows: Some(Rows { table, of }), ..self }
    }

    /// The `index`-th of parts with so many rows, one after the other.
    pub(in crate::checkpoint) fn part(self, sizes: &[usize], index: usize) -> Self {
        let start: usize = sizes[..index].iter().sum();
        self.rows(sizes.iter().sum(), start..start + sizes[index])
    }

    /// With columns in another order.
    pub(in crate::checkpoint) fn columns(self, table: impl IntoIterator<Item = usize>) -> Self {
        Self { columns: Some(table.into_iter().map(|column| column as u32).collect()), ..self }
    }

    /// With every value changed.
    pub(in crate::checkpoint) fn map(self, map: Map) -> Self {
        Self { map: Some(map), ..self }
    }

    /// Stored the other way round, in groups of `group` of the model's rows.
    pub(in crate::checkpoint) fn transposed(self, group: usize) -> Self {
        Self { transposed: Some(group), ..self }
    }

    /// As the only place where a tensor may lie.
    pub(in crate::checkpoint) fn only(self) -> Option<Vec<Piece>> {
        Some(vec![self])
    }
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::checkpoint) struct Place {
    /// The tensor's name in the file.
    pub(in crate::checkpoint) name: String,
    /// What of it, in which form.
    pub(in crate::checkpoint) piece: Piece,
}

/// Where the tensor that the model calls `full` may lie, likeliest first.
pub(in crate::checkpoint) fn places(config: &ModelConfig, format: Format, full: &str) -> Vec<Place> {
    let name = Name::of(full);
    let pieces = match (format, config.architecture.gguf) {
        (Format::Gguf, Some(gguf)) => {
            (gguf.piece)(config, &name).or_else(|| common::gguf_piece(config, &name))
        }
        _ => (config.architecture.hugging_face.piece)(config, &name),
    };
    let pieces = pieces.unwrap_or_else(|| vec![as_it_is(config.architecture, &name)]);
    let complete = |piece: Piece| {
        let kind =
            if piece.has_kind && !name.kind.is_empty() { format!(".{}", name.kind) } else { String::new() };
        let stem = match format {
            Format::Gguf => name.layer.map(|layer| format!("blk.{layer}.")).unwrap_or_default(),
            Format::Safetensors => hugging_face_stem(config.architecture, &name),
        };
        Place { name: format!("{stem}{}{kind}", piece.module), piece }
    };
    pieces.into_iter().map(complete).collect()
}

fn hugging_face_stem(architecture: &Architecture, name: &Name) -> String {
    let names = &architecture.hugging_face;
    match (name.layer, name.module) {
        (Some(layer), _) => format!("{}.{}.{layer}.", names.stem, names.layers),
        (None, "lm_head") => String::new(),
        (None, _) => format!("{}.", names.stem),
    }
}

/// A tensor of a safetensors file under its family's name of it.
pub(in crate::checkpoint) fn as_it_is(architecture: &Architecture, name: &Name) -> Piece {
    let renamed = |module: &str| {
        let row = architecture.hugging_face.modules.iter().find(|(ours, _)| *ours == module);
        row.map_or(module, |(_, theirs)| theirs).to_owned()
    };
    match name.expert {
        None => Piece::whole(renamed(name.module)),
        Some(expert) => {
            let experts = renamed("mlp.experts");
            Piece::whole(format!("{experts}.{expert}.{}", renamed(name.module)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        let name = |layer, expert, module, kind| Name { layer, expert, module, kind };
        assert_eq!(Name::of("model.embed_tokens.weight"), name(None, None, "embed_tokens", "weight"));
        assert_eq!(Name::of("lm_head.weight"), name(None, None, "lm_head", "weight"));
        assert_eq!(
            Name::of("model.layers.3.self_attn.q_proj.bias"),
            name(Some(3), None, "self_attn.q_proj", "bias")
        );
        assert_eq!(
            Name::of("model.layers.3.mlp.experts.7.gate_proj.weight"),
            name(Some(3), Some(7), "gate_proj", "weight")
        );
        assert_eq!(Name::of("model.layers.0.self_attn.sinks"), name(Some(0), None, "self_attn.sinks", ""));
        assert_eq!(
            Name::of("model.layers.0.linear_attn.dt_bias"),
            name(Some(0), None, "linear_attn.dt_bias", "")
        );
    }

    #[test]
    fn parts_follow_each_other() {
        let piece = Piece::whole("qkv").part(&[4, 2, 2], 1);
        let rows = piece.rows.unwrap();
        assert_eq!((rows.of, &rows.table[..]), (8, &[4, 5][..]));
    }
}
