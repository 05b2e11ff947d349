//! What a checkpoint declares about the numbers that flow into its linears: the other half of a scheme like W8A8.
//!
//! Only the declaration lives here; `model` computes it.

use std::fmt;

/// How a linear's input is quantized before the product.
#[derive(Clone, Debug, PartialEq)]
pub enum ActivationQuantization {
    /// x̂ = (clamp(round(x/s + z)) − z)·s, as compressed-tensors computes it.
    Scaled {
        /// What x/s is rounded to.
        format: ActivationFormat,
        /// How many values share a scale.
        granularity: Granularity,
        /// Where the scale comes from.
        scale: ActivationScale,
    },
    /// LLM.int8() (arXiv 2208.07339), as bitsandbytes' kernels compute it: columns that hold a value of at least
    /// `threshold` anywhere in the request stay as they are; the rest is rounded to int8 per token, scale amax/127,
    /// values that large left out of amax.
    LlmInt8 {
        /// Magnitude from which a column is an outlier; 0 means that none is.
        threshold: f32,
    },
    /// The block format that ggml gives to the activations of a weight's type.
    Ggml(GgmlActivation),
}

impl ActivationQuantization {
    /// Whether what is done to one token depends on the other tokens of its request.
    pub fn looks_at_requests(&self) -> bool {
        match self {
            Self::Scaled { granularity: Granularity::Tensor, scale, .. } => {
                !matches!(scale, ActivationScale::Static { .. })
            }
            Self::Scaled { .. } | Self::Ggml(_) => false,
            Self::LlmInt8 { .. } => true,
        }
    }
}

/// What activations are rounded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActivationFormat {
    /// Two's complement integers of so many bits, rounded half to even.
    Int {
        /// 2 to 8.
        bits: u32,
        /// Whether the zero point is zero.
        symmetric: bool,
    },
    /// 8-bit floats, at most ±448.
    E4m3,
    /// 4-bit floats, at most ±6.
    E2m1,
}

/// How many values share a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granularity {
    /// All tokens of a request.
    Tensor,
    /// One token.
    Token,
    /// So many neighbouring channels of one token.
    Group(usize),
}

/// Where a scale comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ActivationScale {
    /// Calibrated, stored in the checkpoint.
    Static {
        /// s.
        scale: f32,
        /// z; 0 for symmetric formats.
        zero_point: f32,
    },
    /// From the values themselves: amax / `half_range`; asymmetric integers: (max − min) / (2·`half_range`).
    Dynamic {
        /// Half of the format's range: compressed-tensors takes 127.5 for int8, vLLM's kernels 127; 448; 6.
        half_range: f32,
    },
    /// NVFP4: the group's scale amax/6 is itself rounded to E4M3 against a calibrated factor of the whole tensor.
    Local {
        /// 448·6 / amax of the calibration.
        global: f32,
    },
    /// MX: the group's scale is a power of two.
    PowerOfTwo,
}

/// The types that ggml's matrix products convert activations to (`vec_dot_type` of ggml-cpu's type table).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GgmlActivation {
    /// Rounded to binary16.
    F16,
    /// Rounded to bfloat16.
    Bf16,
    /// Blocks of 32: int8, scale amax/127 stored as f16.
    Q8_0,
    /// As Q8_0, with a stored sum for types that have a minimum; the values are those of Q8_0.
    Q8_1,
    /// Blocks of 256: int8, scale in f32 from the value of largest magnitude.
    Q8K,
}

impl fmt::Display for ActivationQuantization {
    /// "int8 per token, dynamic", "E4M3 per tensor, static", "Q8_K blocks".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (format, granularity, scale) = match self {
            ActivationQuantization::LlmInt8 { threshold } => {
                return write!(
                    f,
                    "int8 per token (LLM.int8(), outlier columns from {threshold} as they are)"
                );
            }
            ActivationQuantization::Ggml(GgmlActivation::F16) => return f.write_str("f16"),
            ActivationQuantization::Ggml(GgmlActivation::Bf16) => return f.write_str("bf16"),
            ActivationQuantization::Ggml(GgmlActivation::Q8_0) => return f.write_str("Q8_0 blocks"),
            ActivationQuantization::Ggml(GgmlActivation::Q8_1) => return f.write_str("Q8_1 blocks"),
            ActivationQuantization::Ggml(GgmlActivation::Q8K) => return f.write_str("Q8_K blocks"),
            ActivationQuantization::Scaled { format, granularity, scale } => (format, granularity, scale),
        };
        match format {
            ActivationFormat::Int { bits, symmetric: true } => write!(f, "int{bits}")?,
            ActivationFormat::Int { bits, symmetric: false } => write!(f, "asymmetric int{bits}")?,
            ActivationFormat::E4m3 => f.write_str("E4M3")?,
            ActivationFormat::E2m1 => f.write_str("E2M1")?,
        }
        match granularity {
            Granularity::Tensor => f.write_str(" per tensor")?,
            Granularity::Token => f.write_str(" per token")?,
            Granularity::Group(size) => write!(f, " per group of {size}")?,
        }
        f.write_str(match scale {
            ActivationScale::Static { .. } => ", static",
            ActivationScale::Dynamic { .. } => ", dynamic",
            ActivationScale::Local { .. } => ", scales in E4M3 against a static one",
            ActivationScale::PowerOfTwo => ", scales powers of two",
        })
    }
}

/// What a checkpoint declares about one layer's KV cache.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KvCacheQuantization {
    /// E4M3 or int8.
    pub format: ActivationFormat,
    /// Scale of the keys, after rotary embedding.
    pub k_scale: f32,
    /// Scale of the values.
    pub v_scale: f32,
}

impl GgmlActivation {
    /// What llama.cpp's CPU kernels convert the input of a product with weights of this type to; `None`: nothing.
    pub fn of(encoding: super::encoding::Encoding) -> Option<Self> {
        match encoding.name() {
            "F32" | "F64" => None,
            "F16" => Some(GgmlActivation::F16),
            "BF16" => Some(GgmlActivation::Bf16),
            "Q4_1" | "Q5_1" => Some(GgmlActivation::Q8_1),
            "Q4_0" | "Q5_0" | "Q8_0" | "IQ4_NL" | "MXFP4" | "NVFP4" | "Q1_0" | "Q2_0" => {
                Some(GgmlActivation::Q8_0)
            }
            _ => Some(GgmlActivation::Q8K),
        }
    }
}
