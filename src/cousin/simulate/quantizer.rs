//! The quantizers that can be simulated: one list, with what each does and where it is defined.
//!
//! Three families: GGUF types as llama.cpp's quantizer writes them, codes and scales as LLM Compressor computes them
//! with its memoryless min-max observer, and bitsandbytes' formats. None looks at data: what calibration would gain
//! (GPTQ, AWQ, importance matrices) is not in them.

use crate::{
    checkpoint::{
        activations::{
            ActivationFormat, ActivationQuantization, ActivationScale, GgmlActivation, Granularity,
        },
        encoding::Encoding,
    },
    error::{Error, Result},
};

/// What a reader may write, and what it means.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// As written after `@`.
    pub name: &'static str,
    /// One line for `--help`.
    pub summary: &'static str,
    /// Where it is defined.
    pub source: &'static str,
    scheme: Scheme,
    input: Input,
}

/// How the values of a matrix are rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// A GGUF type, row by row.
    Ggml(Encoding),
    /// Integers; `group` neighbouring values of a row share a scale, `None`: the whole row.
    Int { bits: u32, symmetric: bool, group: Option<usize> },
    /// E4M3, scale amax/448.
    E4m3(Share),
    /// E2M1 by 16, the scale in E4M3 against a factor of the whole matrix.
    Nvfp4,
    /// E2M1 by 32, the scale a power of two.
    Mxfp4,
    /// E4M3 by 32, the scale a power of two.
    Mxfp8,
    /// A codebook of 16 values, scaled by the largest magnitude among 64 of the flattened matrix.
    Codebook { book: Book, double_quantized: bool },
    /// int8 by row, scale amax/127.
    LlmInt8,
}

/// Which values of a matrix share an E4M3 scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    Row,
    Matrix,
    /// Squares of [`FP8_BLOCK`].
    Block,
}

/// Side of the blocks of `fp8_block`.
pub(crate) const FP8_BLOCK: usize = 128;

/// bitsandbytes' 4-bit codebooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Book {
    Nf4,
    Fp4,
}

/// What happens to the input of the linear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    /// Nothing.
    None,
    /// What llama.cpp's kernels do for this type, where activations are computed so.
    Ggml,
    Int8Token,
    E4m3Token,
    E4m3Request,
    E4m3Group,
    E2m1Group,
    Mxfp4,
    Mxfp8,
    LlmInt8,
}

const GGML: &str =
    "llama.cpp, ggml-quants.c, quantize_row_*_ref: its quantizers without an importance matrix";
const COMPRESSED: &str =
    "compressed-tensors, calculate_qparams and forward_helpers.py; LLM Compressor's memoryless_minmax";
const OCP: &str = "OCP Microscaling Formats (MX) 1.0; scales as compressed-tensors rounds them";
const QLORA: &str = "QLoRA, arXiv 2305.14314; bitsandbytes";

const fn ggml(name: &'static str, encoding: Encoding, summary: &'static str) -> Entry {
    Entry { name, summary, source: GGML, scheme: Scheme::Ggml(encoding), input: Input::Ggml }
}

const fn int(
    name: &'static str,
    bits: u32,
    symmetric: bool,
    group: Option<usize>,
    input: Input,
    summary: &'static str,
) -> Entry {
    Entry { name, summary, source: COMPRESSED, scheme: Scheme::Int { bits, symmetric, group }, input }
}

const fn float(
    name: &'static str,
    scheme: Scheme,
    input: Input,
    summary: &'static str,
    source: &'static str,
) -> Entry {
    Entry { name, summary, source, scheme, input }
}

const fn bnb(name: &'static str, book: Book, double_quantized: bool, summary: &'static str) -> Entry {
    let scheme = Scheme::Codebook { book, double_quantized };
    Entry { name, summary, source: QLORA, scheme, input: Input::None }
}

/// Every quantizer.
pub const QUANTIZERS: &[Entry] = &[
    ggml("q4_0", Encoding::Q4_0, "4 bits about zero, a scale for 32 weights"),
    ggml("q4_1", Encoding::Q4_1, "4 bits, scale and minimum for 32 weights"),
    ggml("q5_0", Encoding::Q5_0, "5 bits about zero, a scale for 32 weights"),
    ggml("q5_1", Encoding::Q5_1, "5 bits, scale and minimum for 32 weights"),
    ggml("q8_0", Encoding::Q8_0, "8 bits about zero, a scale for 32 weights"),
    ggml("q2_k", Encoding::Q2K, "2 bits, 4-bit scale and minimum for 16 weights"),
    ggml("q3_k", Encoding::Q3K, "3 bits about zero, 6-bit scale for 16 weights"),
    ggml("q4_k", Encoding::Q4K, "4 bits, 6-bit scale and minimum for 32 weights"),
    ggml("q5_k", Encoding::Q5K, "5 bits, 6-bit scale and minimum for 32 weights"),
    ggml("q6_k", Encoding::Q6K, "6 bits about zero, 8-bit scale for 16 weights"),
    ggml("iq4_nl", Encoding::Iq4Nl, "16 uneven values, a scale for 32 weights"),
    ggml("iq4_xs", Encoding::Iq4Xs, "16 uneven values, 6-bit scale for 32 weights"),
    int("int8", 8, true, None, Input::None, "8 bits about zero, a scale for each row; weights only"),
    int("int6", 6, true, None, Input::None, "6 bits about zero, a scale for each row; weights only"),
    int("int5", 5, true, None, Input::None, "5 bits about zero, a scale for each row; weights only"),
    int("int4", 4, true, None, Input::None, "4 bits about zero, a scale for each row; weights only"),
    int("int3", 3, true, None, Input::None, "3 bits about zero, a scale for each row; weights only"),
    int("int2", 2, true, None, Input::None, "2 bits about zero, a scale for each row; weights only"),
    int("w8a16", 8, true, Some(128), Input::None, "8 bits about zero, a scale for 128 weights"),
    int("w4a16", 4, true, Some(128), Input::None, "4 bits about zero, a scale for 128 weights"),
    int("w4a16_asym", 4, false, Some(128), Input::None, "4 bits, scale and zero point for 128 weights"),
    int("w3a16", 3, true, Some(128), Input::None, "3 bits about zero, a scale for 128 weights"),
    int("w2a16", 2, true, Some(128), Input::None, "2 bits about zero, a scale for 128 weights"),
    int("w8a8", 8, true, None, Input::Int8Token, "int8, a scale for each row; input int8 by token"),
    int("w4a8", 4, true, Some(128), Input::Int8Token, "4 bits, a scale for 128 weights; input int8 by token"),
    int(
        "w4afp8",
        4,
        true,
        Some(128),
        Input::E4m3Token,
        "4 bits, a scale for 128 weights; input E4M3 by token",
    ),
    float(
        "fp8",
        Scheme::E4m3(Share::Row),
        Input::E4m3Token,
        "E4M3, a scale for each row; input E4M3 by token",
        COMPRESSED,
    ),
    float(
        "fp8_dynamic",
        Scheme::E4m3(Share::Row),
        Input::E4m3Token,
        "the same as fp8, by LLM Compressor's name",
        COMPRESSED,
    ),
    float(
        "fp8_tensor",
        Scheme::E4m3(Share::Matrix),
        Input::E4m3Request,
        "E4M3, one scale for the matrix; input E4M3, one scale for a request",
        COMPRESSED,
    ),
    float(
        "fp8_block",
        Scheme::E4m3(Share::Block),
        Input::E4m3Group,
        "E4M3, a scale for 128 × 128 weights; input E4M3 by 128 channels",
        COMPRESSED,
    ),
    float(
        "fp8_weight",
        Scheme::E4m3(Share::Row),
        Input::None,
        "E4M3, a scale for each row; weights only",
        COMPRESSED,
    ),
    float(
        "nvfp4",
        Scheme::Nvfp4,
        Input::E2m1Group,
        "E2M1 by 16, scales in E4M3; input E2M1 by 16, its scales unrounded for want of calibration",
        COMPRESSED,
    ),
    float("nvfp4a16", Scheme::Nvfp4, Input::None, "E2M1 by 16, scales in E4M3; weights only", COMPRESSED),
    float("mxfp4", Scheme::Mxfp4, Input::Mxfp4, "E2M1 by 32, scales powers of two; input the same", OCP),
    float("mxfp4a16", Scheme::Mxfp4, Input::None, "E2M1 by 32, scales powers of two; weights only", OCP),
    float("mxfp8", Scheme::Mxfp8, Input::Mxfp8, "E4M3 by 32, scales powers of two; input the same", OCP),
    float("mxfp8a16", Scheme::Mxfp8, Input::None, "E4M3 by 32, scales powers of two; weights only", OCP),
    bnb("nf4", Book::Nf4, false, "16 quantiles of a normal distribution, a scale for 64 weights"),
    bnb("nf4-dq", Book::Nf4, true, "NF4 with its scales quantized to 8 bits"),
    bnb("fp4", Book::Fp4, false, "bitsandbytes' own 4-bit float, a scale for 64 weights"),
    bnb("fp4-dq", Book::Fp4, true, "FP4 with its scales quantized to 8 bits"),
    Entry {
        name: "llm_int8",
        summary: "int8, a scale for each row; input int8 by token, outlier columns (from 6) as they are",
        source: "LLM.int8(), arXiv 2208.07339; bitsandbytes",
        scheme: Scheme::LlmInt8,
        input: Input::LlmInt8,
    },
];

/// One quantizer, its group size settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantizer {
    pub(crate) scheme: Scheme,
    input: Input,
}

/// Groups beyond this are longer than any row.
const MAX_GROUP: usize = 1 << 20;

impl Quantizer {
    /// Reads a name of [`QUANTIZERS`], with `-gN` after those of integers for groups of N weights: `int4-g64`.
    ///
    /// # Errors
    /// A name that is not on the list, with the list or with what to write in its stead.
    pub fn parse(text: &str) -> Result<Self> {
        let name = text.to_lowercase();
        let find = |name: &str| QUANTIZERS.iter().find(|entry| entry.name == name);
        if let Some(entry) = find(&name) {
            return Ok(Self { scheme: entry.scheme, input: entry.input });
        }
        if let Some((stem, group)) = name.rsplit_once("-g")
            && let Some(entry) = find(stem)
        {
            let Scheme::Int { bits, symmetric, .. } = entry.scheme else {
                return Err(Error::argument(
                    format!("`{text}`: the group of {stem} is fixed"),
                    "group sizes are for the integer quantizers: int4-g64, w4a16_asym-g32",
                ));
            };
            let group =
                group.parse().ok().filter(|group| (2..=MAX_GROUP).contains(group)).ok_or_else(|| {
                    Error::argument(
                        format!("`{text}`: `{group}` is not a group size"),
                        "write the number of neighbouring weights that share a scale: int4-g64",
                    )
                })?;
            let scheme = Scheme::Int { bits, symmetric, group: Some(group) };
            return Ok(Self { scheme, input: entry.input });
        }
        Err(unknown(text, &name))
    }

    /// For reports: "int4 g128", "NVFP4", "Q4_K".
    pub fn label(self) -> String {
        match self.scheme {
            Scheme::Ggml(encoding) => encoding.name().to_owned(),
            Scheme::Int { bits, symmetric, group } => {
                let share = group.map_or("channel".to_owned(), |group| format!("g{group}"));
                format!("int{bits} {share}{}", if symmetric { "" } else { " asym" })
            }
            Scheme::E4m3(Share::Row) => "FP8 channel".to_owned(),
            Scheme::E4m3(Share::Matrix) => "FP8 tensor".to_owned(),
            Scheme::E4m3(Share::Block) => format!("FP8 block {FP8_BLOCK}x{FP8_BLOCK}"),
            Scheme::Nvfp4 => "NVFP4".to_owned(),
            Scheme::Mxfp4 => "MXFP4".to_owned(),
            Scheme::Mxfp8 => "MXFP8".to_owned(),
            Scheme::Codebook { book, double_quantized } => {
                let book = if book == Book::Nf4 { "NF4" } else { "FP4" };
                format!("{book}{}", if double_quantized { " double-quantized" } else { "" })
            }
            Scheme::LlmInt8 => "LLM.int8()".to_owned(),
        }
    }

    /// What the linear's input is rounded to, wherever activations are measured.
    pub fn input(self) -> Option<ActivationQuantization> {
        use ActivationFormat::{E2m1, E4m3, Int};
        use Granularity::{Group, Tensor, Token};
        let scaled =
            |format, granularity, scale| Some(ActivationQuantization::Scaled { format, granularity, scale });
        let dynamic = |half_range| ActivationScale::Dynamic { half_range };
        match self.input {
            Input::None | Input::Ggml => None,
            Input::Int8Token => scaled(Int { bits: 8, symmetric: true }, Token, dynamic(127.5)),
            Input::E4m3Token => scaled(E4m3, Token, dynamic(448.0)),
            Input::E4m3Request => scaled(E4m3, Tensor, dynamic(448.0)),
            Input::E4m3Group => scaled(E4m3, Group(FP8_BLOCK), dynamic(448.0)),
            // A checkpoint stores a calibrated factor against which these scales are rounded to E4M3. Any factor made
            // up here could flush small groups to zero, so the scales stay as they are: a little too kind.
            Input::E2m1Group => scaled(E2m1, Group(16), dynamic(6.0)),
            Input::Mxfp4 => scaled(E2m1, Group(32), ActivationScale::PowerOfTwo),
            Input::Mxfp8 => scaled(E4m3, Group(32), ActivationScale::PowerOfTwo),
            // The default of transformers' BitsAndBytesConfig.
            Input::LlmInt8 => Some(ActivationQuantization::LlmInt8 { threshold: 6.0 }),
        }
    }

    /// What llama.cpp converts the input to, for GGUF types.
    pub fn ggml_input(self) -> Option<GgmlActivation> {
        match self.scheme {
            Scheme::Ggml(encoding) => GgmlActivation::of(encoding),
            _ => None,
        }
    }

    /// What the tool that writes this format says of a row of so many weights, if it cannot hold one.
    pub(super) fn refusal(self, columns: usize) -> Option<(String, String)> {
        let (block, help) = match self.scheme {
            Scheme::Ggml(encoding) => {
                // As llama.cpp falls back where a row is no multiple of 256.
                let instead = match encoding {
                    Encoding::Q2K | Encoding::Q3K | Encoding::Iq4Xs => "iq4_nl",
                    Encoding::Q4K => "q5_0",
                    Encoding::Q5K => "q5_1",
                    Encoding::Q6K => "q8_0",
                    _ => "int8",
                };
                let instead = if columns.is_multiple_of(32) { instead } else { "int8" };
                (encoding.block_weights(), format!("quantize it otherwise: MODULE={instead}"))
            }
            Scheme::Int { group: Some(group), .. } => {
                let fits = [128, 64, 32, 16, 8].into_iter().find(|fit| columns.is_multiple_of(*fit));
                let help = match fits {
                    Some(fit) => {
                        format!("choose a group that divides it, as -g{fit}, or a scale for each row")
                    }
                    None => "choose a scale for each row: int8, int4".to_owned(),
                };
                (group, help)
            }
            Scheme::Nvfp4 => (16, "quantize it otherwise: MODULE=fp8".to_owned()),
            Scheme::Mxfp4 | Scheme::Mxfp8 => (32, "quantize it otherwise: MODULE=fp8".to_owned()),
            _ => return None,
        };
        let problem = || {
            format!("has rows of {columns} weights, which is no multiple of the {block} of {}", self.label())
        };
        (!columns.is_multiple_of(block)).then(|| (problem(), help))
    }

    /// Bytes of all tensors that a checkpoint would hold for a matrix of `rows` × `columns`.
    pub(super) fn stored_bytes(self, rows: usize, columns: usize) -> u64 {
        let (rows, columns) = (rows as u64, columns as u64);
        let (weights, f32_bytes) = (rows * columns, 4);
        // int32 words for so many rows of codes.
        let packed = |rows: u64, codes: u64, bits: u32| rows * (codes * u64::from(bits)).div_ceil(32) * 4;
        match self.scheme {
            Scheme::Ggml(encoding) => {
                weights / encoding.block_weights() as u64 * encoding.block_bytes() as u64
            }
            Scheme::Int { bits, symmetric, group } => {
                let groups = columns / group.map_or(columns, |group| group as u64).max(1);
                let zero_points = if symmetric { 0 } else { packed(groups, rows, bits) };
                // `weight_shape` goes with packed words; int8 with an int8 input is stored as it is.
                let shape = if self.input == Input::Int8Token && bits == 8 { 0 } else { 16 };
                packed(rows, columns, bits) + rows * groups * f32_bytes + zero_points + shape
            }
            Scheme::E4m3(share) => {
                let side = FP8_BLOCK as u64;
                let scales = match share {
                    Share::Row => rows,
                    Share::Matrix => 1,
                    Share::Block => rows.div_ceil(side) * columns.div_ceil(side),
                };
                weights + scales * f32_bytes
            }
            Scheme::Nvfp4 => weights.div_ceil(2) + weights / 16 + f32_bytes,
            Scheme::Mxfp4 => weights.div_ceil(2) + weights / 32,
            Scheme::Mxfp8 => weights + weights / 32,
            Scheme::Codebook { double_quantized, .. } => {
                let scales = weights.div_ceil(64);
                // The codebook, and of double quantization its own codebook of 256 with a scale for 256.
                let book = 16 * f32_bytes;
                let scales = match double_quantized {
                    false => scales * f32_bytes,
                    true => scales + scales.div_ceil(256) * f32_bytes + 256 * f32_bytes,
                };
                weights.div_ceil(2) + scales + book
            }
            // With a byte that names the order of the values.
            Scheme::LlmInt8 => weights + rows * f32_bytes + 1,
        }
    }
}

/// Names that readers know from elsewhere and what to write for them.
fn unknown(text: &str, name: &str) -> Error {
    let problem = format!("`{text}` is no quantizer that can be simulated");
    let mix = [("q4_k", "q4_k,v_proj=q6_k,down_proj=q6_k"), ("q5_k", "q5_k,v_proj=q6_k,down_proj=q6_k")]
        .into_iter()
        .chain([("q3_k", "q3_k,v_proj=q5_k,down_proj=q4_k"), ("q2_k", "q2_k,v_proj=q4_k,down_proj=q3_k")])
        .find(|(stem, _)| name.strip_prefix(stem).is_some_and(|rest| rest.starts_with('_')));
    if let Some((_, instead)) = mix {
        return Error::argument(
            problem,
            format!("it is a mix of types: write which, as `{instead}`, or convert the file"),
        );
    }
    if ["gptq", "awq", "iq", "exl", "hqq", "quip", "aqlm"].iter().any(|start| name.starts_with(start)) {
        let help = "it needs calibration, a search or a codebook that is not simulated: convert the model and \
                    compare the file";
        return Error::argument(problem, help);
    }
    let known: Vec<&str> = QUANTIZERS.iter().map(|entry| entry.name).collect();
    Error::argument(problem, format!("write one of {}; -gN sets a group: int4-g64", known.join(", ")))
}
