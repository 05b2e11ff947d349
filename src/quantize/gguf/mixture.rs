//! Which tensor of a GGUF file is stored in which type: llama.cpp's mixtures.
//!
//! A file type names the type of most matrices; the sensitive ones get more bits, by kind and by layer, and rows that
//! are no whole number of blocks another type. Source: llama.cpp, `src/llama-quant.cpp`
//! (`llama_tensor_get_type_impl`, `tensor_type_fallback`, `tensor_allows_quantization`) as of 2026, without an importance
//! matrix, for dense models.

use crate::checkpoint::{config::ModelConfig, encoding::Encoding};

/// A kind of file, as `general.file_type` numbers them (`llama_ftype` in llama.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileType {
    /// binary16.
    F16,
    /// bfloat16.
    Bf16,
    /// Q8_0.
    Q8_0,
    /// Q4_0.
    Q4_0,
    /// Q4_1.
    Q4_1,
    /// Q5_0.
    Q5_0,
    /// Q5_1.
    Q5_1,
    /// Q2_K with Q3_K.
    Q2K,
    /// Q3_K.
    Q3KS,
    /// Q3_K with Q4_K and Q5_K.
    Q3KM,
    /// Q3_K with Q5_K.
    Q3KL,
    /// Q4_K with Q5_K in the first layers.
    Q4KS,
    /// Q4_K with Q6_K.
    Q4KM,
    /// Q5_K.
    Q5KS,
    /// Q5_K with Q6_K.
    Q5KM,
    /// Q6_K.
    Q6K,
    /// IQ4_NL with Q5_K in the first layers.
    Iq4Nl,
    /// IQ4_XS with Q5_K in the first layers.
    Iq4Xs,
}

impl FileType {
    /// `general.file_type`, and the type of most matrices.
    const fn row(self) -> (u32, Encoding) {
        match self {
            FileType::F16 => (1, Encoding::F16),
            FileType::Q4_0 => (2, Encoding::Q4_0),
            FileType::Q4_1 => (3, Encoding::Q4_1),
            FileType::Q8_0 => (7, Encoding::Q8_0),
            FileType::Q5_0 => (8, Encoding::Q5_0),
            FileType::Q5_1 => (9, Encoding::Q5_1),
            FileType::Q2K => (10, Encoding::Q2K),
            FileType::Q3KS => (11, Encoding::Q3K),
            FileType::Q3KM => (12, Encoding::Q3K),
            FileType::Q3KL => (13, Encoding::Q3K),
            FileType::Q4KS => (14, Encoding::Q4K),
            FileType::Q4KM => (15, Encoding::Q4K),
            FileType::Q5KS => (16, Encoding::Q5K),
            FileType::Q5KM => (17, Encoding::Q5K),
            FileType::Q6K => (18, Encoding::Q6K),
            FileType::Iq4Nl => (25, Encoding::Iq4Nl),
            FileType::Iq4Xs => (30, Encoding::Iq4Xs),
            FileType::Bf16 => (32, Encoding::Bf16),
        }
    }

    /// `general.file_type`.
    pub fn number(self) -> u32 {
        self.row().0
    }

    /// The type of most matrices.
    pub fn encoding(self) -> Encoding {
        self.row().1
    }

    fn is_quantized(self) -> bool {
        !matches!(self, FileType::F16 | FileType::Bf16)
    }
}

/// What the mixtures ask of a model.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    layers: usize,
    /// Query heads to a key head.
    queries_per_key: usize,
    /// No output matrix of its own.
    tied: bool,
    /// What llama.cpp takes for a 70B model: 80 layers, of Llama with grouped queries.
    is_70b: bool,
}

impl Shape {
    pub(super) fn of(config: &ModelConfig) -> Self {
        let attention = config.attention();
        let queries_per_key = attention
            .map_or(1, |attention| attention.num_attention_heads / attention.num_key_value_heads.max(1));
        let is_llama = config.architecture.gguf.is_some_and(|gguf| gguf.name == "llama");
        let grouped = !is_llama || queries_per_key > 1;
        Self {
            layers: config.num_hidden_layers(),
            queries_per_key,
            tied: config.tie_word_embeddings,
            is_70b: config.num_hidden_layers() == 80 && grouped,
        }
    }

    /// The first and the last eighth of the layers, and every third between them.
    fn uses_more_bits(self, layer: usize) -> bool {
        let eighth = self.layers / 8;
        layer < eighth || layer >= 7 * self.layers / 8 || (layer - eighth) % 3 == 2
    }

    fn is_in_first_eighth(self, layer: usize) -> bool {
        layer < self.layers / 8
    }
}

/// A tensor's type, and why it is another than the file type's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) encoding: Encoding,
    pub(super) why: Option<&'static str>,
}

const MIXTURE: &str = "the mixture gives it more bits";
const OUTPUT: &str = "the matrix that makes the logits";
pub(super) const VECTOR: &str = "they are never quantized";
const ROW: &str = "its rows are no multiple of the block of 256";
const ODD_ROW: &str = "its rows are no multiple of 32, the smallest block";

/// The type of the tensor that llama.cpp calls `name`, with rows of `columns` weights; `vector` of norms and biases.
pub(super) fn choose(file_type: FileType, shape: Shape, name: &str, columns: usize, vector: bool) -> Choice {
    if vector || name.contains("_norm.weight") {
        return Choice { encoding: Encoding::F32, why: Some(VECTOR) };
    }
    let default = file_type.encoding();
    if !file_type.is_quantized() {
        return Choice { encoding: default, why: None };
    }
    let is_output = name == "output.weight" || (shape.tied && name == "token_embd.weight");
    let mixed = match is_output {
        true if !columns.is_multiple_of(default.block_weights()) || default == Encoding::Q8_0 => {
            Encoding::Q8_0
        }
        true => Encoding::Q6K,
        false => layer_and_module(name).map_or(default, |(layer, module)| match module {
            "attn_v" => attention_values(file_type, shape, layer),
            "ffn_down" => mlp_down(file_type, shape, layer),
            "attn_output" => attention_output(file_type),
            _ => default,
        }),
    };
    let encoding = fitting(mixed, columns);
    let why = match () {
        () if encoding == default => None,
        () if encoding == Encoding::F16 => Some(ODD_ROW),
        () if encoding != mixed => Some(ROW),
        () if is_output => Some(OUTPUT),
        () => Some(MIXTURE),
    };
    Choice { encoding, why }
}

/// `blk.3.attn_v.weight` is layer 3's `attn_v`.
fn layer_and_module(name: &str) -> Option<(usize, &str)> {
    let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    Some((layer.parse().ok()?, rest.strip_suffix(".weight")?))
}

fn attention_values(file_type: FileType, shape: Shape, layer: usize) -> Encoding {
    let grouped = shape.queries_per_key >= 4;
    let encoding = match file_type {
        FileType::Q2K if grouped => Encoding::Q4K,
        FileType::Q2K => Encoding::Q3K,
        FileType::Q3KM if layer < 2 => Encoding::Q5K,
        FileType::Q3KM => Encoding::Q4K,
        FileType::Q3KL => Encoding::Q5K,
        FileType::Iq4Nl | FileType::Iq4Xs if grouped => Encoding::Q5K,
        FileType::Q4KM | FileType::Q5KM if shape.uses_more_bits(layer) => Encoding::Q6K,
        FileType::Q4KS if layer < 4 => Encoding::Q5K,
        other => other.encoding(),
    };
    match encoding {
        Encoding::Q3K | Encoding::Q4K if shape.is_70b => Encoding::Q5K,
        encoding => encoding,
    }
}

fn mlp_down(file_type: FileType, shape: Shape, layer: usize) -> Encoding {
    match file_type {
        FileType::Q2K => Encoding::Q3K,
        FileType::Q3KM if layer < shape.layers / 16 => Encoding::Q5K,
        FileType::Q3KM => Encoding::Q4K,
        FileType::Q3KL => Encoding::Q5K,
        FileType::Q4KM | FileType::Q5KM if shape.uses_more_bits(layer) => Encoding::Q6K,
        FileType::Iq4Nl | FileType::Iq4Xs | FileType::Q4KS if shape.is_in_first_eighth(layer) => {
            Encoding::Q5K
        }
        other => other.encoding(),
    }
}

fn attention_output(file_type: FileType) -> Encoding {
    match file_type {
        FileType::Q2K => Encoding::Q3K,
        FileType::Q3KM => Encoding::Q4K,
        FileType::Q3KL => Encoding::Q5K,
        other => other.encoding(),
    }
}

/// `encoding`, or what stands in for it where rows are no whole number of blocks.
///
/// llama.cpp refuses rows that are no multiple of 32 for types whose block is 32 already, unless it is told a type by
/// hand; here they become F16 as they do for the K types.
fn fitting(encoding: Encoding, columns: usize) -> Encoding {
    if columns.is_multiple_of(encoding.block_weights()) {
        return encoding;
    }
    let smaller = match encoding {
        Encoding::Q2K | Encoding::Q3K => Encoding::Q4_0,
        Encoding::Q4K => Encoding::Q5_0,
        Encoding::Q5K => Encoding::Q5_1,
        Encoding::Q6K => Encoding::Q8_0,
        Encoding::Iq4Xs => Encoding::Iq4Nl,
        _ => Encoding::F16,
    };
    if columns.is_multiple_of(smaller.block_weights()) { smaller } else { Encoding::F16 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(layers: usize, queries_per_key: usize) -> Shape {
        Shape { layers, queries_per_key, tied: false, is_70b: false }
    }

    fn chosen(file_type: FileType, shape: Shape, name: &str) -> Encoding {
        choose(file_type, shape, name, 256, false).encoding
    }

    /// What a Llama-3-8B in Q4_K_M is known to hold: layers 0 to 3, 6, 9 … 27, and 28 to 31 in Q6_K.
    #[test]
    fn q4_k_m_of_32_layers() {
        let more: Vec<usize> = (0..32)
            .filter(|layer| {
                chosen(FileType::Q4KM, shape(32, 4), &format!("blk.{layer}.ffn_down.weight")) == Encoding::Q6K
            })
            .collect();
        assert_eq!(more, [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]);
        assert_eq!(chosen(FileType::Q4KM, shape(32, 4), "output.weight"), Encoding::Q6K);
        assert_eq!(chosen(FileType::Q4KM, shape(32, 4), "token_embd.weight"), Encoding::Q4K);
        assert_eq!(chosen(FileType::Q4KM, shape(32, 4), "blk.0.attn_q.weight"), Encoding::Q4K);
    }

    #[test]
    fn grouped_queries_and_large_models_get_more_bits() {
        let name = "blk.5.attn_v.weight";
        assert_eq!(chosen(FileType::Q2K, shape(32, 4), name), Encoding::Q4K);
        assert_eq!(chosen(FileType::Q2K, shape(32, 2), name), Encoding::Q3K);
        assert_eq!(chosen(FileType::Iq4Xs, shape(32, 4), name), Encoding::Q5K);
        assert_eq!(chosen(FileType::Iq4Xs, shape(32, 1), name), Encoding::Iq4Xs);
        let large = Shape { is_70b: true, ..shape(80, 8) };
        assert_eq!(chosen(FileType::Q3KS, large, "blk.40.attn_v.weight"), Encoding::Q5K);
        assert_eq!(chosen(FileType::Q4KM, large, "blk.40.attn_v.weight"), Encoding::Q5K);
    }

    #[test]
    fn rows_that_do_not_fit_fall_back() {
        let of = |file_type, columns| {
            choose(file_type, shape(32, 1), "blk.9.attn_q.weight", columns, false).encoding
        };
        assert_eq!(of(FileType::Q2K, 96), Encoding::Q4_0);
        assert_eq!(of(FileType::Q3KS, 96), Encoding::Q4_0);
        assert_eq!(of(FileType::Q4KM, 96), Encoding::Q5_0);
        assert_eq!(of(FileType::Q5KS, 96), Encoding::Q5_1);
        assert_eq!(of(FileType::Q6K, 96), Encoding::Q8_0);
        assert_eq!(of(FileType::Iq4Xs, 96), Encoding::Iq4Nl);
        assert_eq!(of(FileType::Q4KM, 172), Encoding::F16);
        assert_eq!(of(FileType::Q8_0, 172), Encoding::F16);
        assert_eq!(of(FileType::Bf16, 172), Encoding::Bf16);
    }
}
