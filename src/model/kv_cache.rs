//! What attention reads back from a quantized KV cache: one closed list of schemes.
//!
//! A scheme is a function from what was computed to what the cache returns, plus the position up to which a
//! query reads the cache rather than what was computed. Both depend on nothing later than the query, so that
//! a whole sequence computed at once equals storing it token by token. Queries stay as computed: some kernels
//! of these formats round them too, which is a property of the kernel and not of the cache.
//!
//! To add a scheme: write its file below `kv_cache/`, add a variant, and add its names to `SCHEMES`.

mod fp8;
mod ggml;
mod kivi;
mod lloyd_max;
mod random_matrix;
mod turboquant;

use rayon::prelude::*;

pub use self::{
    ggml::{GgmlBlock, GgmlCache},
    kivi::KiviBits,
    turboquant::{TurboBits, TurboForm},
};
use crate::error::{Error, Result};

/// One half of the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Keys, after rotary embedding.
    Keys,
    /// Values.
    Values,
}

/// How keys and values are stored between the moment they are computed and the moment attention reads them.
#[derive(Clone, Debug, PartialEq)]
pub enum KvCacheScheme {
    /// A cache type of llama.cpp.
    Ggml(GgmlCache),
    /// E4M3 with one calibrated scale for keys and one for values: x̂ = s·E4M3(x/s), saturating, as vLLM's
    /// `fp8` cache and compressed-tensors' `kv_cache_scheme` compute it.
    Fp8 {
        /// s of the keys; 1 where the checkpoint has none.
        k_scale: f32,
        /// s of the values; 1 where the checkpoint has none.
        v_scale: f32,
    },
    /// Int8 with one calibrated scale for keys and one for values: x̂ = s·clamp(round(x/s), −128, 127), ties
    /// to even, as compressed-tensors' `kv_cache_scheme` computes it. Has no name to parse: a scale must be
    /// known.
    Int8 {
        /// s of the keys.
        k_scale: f32,
        /// s of the values.
        v_scale: f32,
    },
    /// KIVI (arXiv 2402.02750): keys in groups of tokens, values in groups of channels, recent tokens as
    /// computed.
    Kivi(KiviBits),
    /// TurboQuant (arXiv 2504.19874): a random rotation, then one optimal scalar quantizer for all
    /// coordinates.
    TurboQuant {
        /// Bits of a coordinate.
        bits: TurboBits,
        /// Which error is made small.
        form: TurboForm,
    },
    /// One scheme for keys and another for values, like llama.cpp's `-ctk` and `-ctv`.
    Mixed {
        /// The scheme whose keys are stored.
        keys: Box<KvCacheScheme>,
        /// The scheme whose values are stored.
        values: Box<KvCacheScheme>,
    },
}

struct Named {
    name: &'static str,
    about: &'static str,
    scheme: KvCacheScheme,
}

macro_rules! schemes {
    ($($name:literal: $about:literal => $scheme:expr;)*) => {
        /// Every scheme that has a name of its own; parsing, naming and help read this list.
        static SCHEMES: &[Named] = &[$(Named { name: $name, about: $about, scheme: $scheme },)*];
    };
}

const fn ggml(cache: GgmlCache) -> KvCacheScheme {
    KvCacheScheme::Ggml(cache)
}

const fn plain(format: GgmlBlock) -> KvCacheScheme {
    ggml(GgmlCache::Block { format, hadamard: false })
}

const fn rotated(format: GgmlBlock) -> KvCacheScheme {
    ggml(GgmlCache::Block { format, hadamard: true })
}

const fn turbo(bits: TurboBits) -> KvCacheScheme {
    KvCacheScheme::TurboQuant { bits, form: TurboForm::Mse }
}

const fn turbo_prod(bits: TurboBits) -> KvCacheScheme {
    KvCacheScheme::TurboQuant { bits, form: TurboForm::InnerProduct }
}

schemes! {
    "f16": "half precision" => ggml(GgmlCache::F16);
    "bf16": "bfloat16" => ggml(GgmlCache::Bf16);
    "q8_0": "llama.cpp, 8 bits, an f16 scale for 32 values" => plain(GgmlBlock::Q8_0);
    "q5_0": "llama.cpp, 5 bits, an f16 scale for 32 values" => plain(GgmlBlock::Q5_0);
    "q5_1": "llama.cpp, 5 bits, an f16 scale and minimum for 32 values" => plain(GgmlBlock::Q5_1);
    "q4_0": "llama.cpp, 4 bits, an f16 scale for 32 values" => plain(GgmlBlock::Q4_0);
    "q4_1": "llama.cpp, 4 bits, an f16 scale and minimum for 32 values" => plain(GgmlBlock::Q4_1);
    "iq4_nl": "llama.cpp, 4 bits on an uneven grid, an f16 scale for 32 values" => plain(GgmlBlock::Iq4Nl);
    "q8_0-hadamard": "q8_0 of rotated heads, as newer llama.cpp stores it" => rotated(GgmlBlock::Q8_0);
    "q5_0-hadamard": "q5_0 of rotated heads" => rotated(GgmlBlock::Q5_0);
    "q5_1-hadamard": "q5_1 of rotated heads" => rotated(GgmlBlock::Q5_1);
    "q4_0-hadamard": "q4_0 of rotated heads" => rotated(GgmlBlock::Q4_0);
    "q4_1-hadamard": "q4_1 of rotated heads" => rotated(GgmlBlock::Q4_1);
    "iq4_nl-hadamard": "iq4_nl of rotated heads" => rotated(GgmlBlock::Iq4Nl);
    "fp8": "E4M3 with the checkpoint's k_scale and v_scale, else 1"
        => KvCacheScheme::Fp8 { k_scale: 1.0, v_scale: 1.0 };
    "kivi2": "KIVI, 2 bits, the last 128 tokens as computed" => KvCacheScheme::Kivi(KiviBits::Two);
    "kivi4": "KIVI, 4 bits, the last 128 tokens as computed" => KvCacheScheme::Kivi(KiviBits::Four);
    "turboquant2": "TurboQuant, 2 bits" => turbo(TurboBits::Two);
    "turboquant2.5": "TurboQuant, 2 bits, outlier channels 3" => turbo(TurboBits::TwoAndHalf);
    "turboquant3": "TurboQuant, 3 bits" => turbo(TurboBits::Three);
    "turboquant3.5": "TurboQuant, 3 bits, outlier channels 4" => turbo(TurboBits::ThreeAndHalf);
    "turboquant4": "TurboQuant, 4 bits" => turbo(TurboBits::Four);
    "turboquant2-prod": "TurboQuant for inner products, 1 bit + 1 of QJL" => turbo_prod(TurboBits::Two);
    "turboquant2.5-prod": "TurboQuant for inner products, 1 bit (outlier channels 2) + 1 of QJL"
        => turbo_prod(TurboBits::TwoAndHalf);
    "turboquant3-prod": "TurboQuant for inner products, 2 bits + 1 of QJL" => turbo_prod(TurboBits::Three);
    "turboquant3.5-prod": "TurboQuant for inner products, 2 bits (outlier channels 3) + 1 of QJL"
        => turbo_prod(TurboBits::ThreeAndHalf);
    "turboquant4-prod": "TurboQuant for inner products, 3 bits + 1 of QJL" => turbo_prod(TurboBits::Four);
}

impl KvCacheScheme {
    /// Name and one line about every scheme, for `--help`. Two of them combine as `k:NAME+v:NAME`.
    pub fn names() -> impl Iterator<Item = (&'static str, &'static str)> {
        SCHEMES.iter().map(|named| (named.name, named.about))
    }

    /// The scheme of a name, or of two as in `k:q8_0+v:q4_0`.
    ///
    /// # Errors
    /// An unknown name; the help lists all.
    pub fn parse(text: &str) -> Result<Self> {
        let Some((keys, values)) = text.strip_prefix("k:").and_then(|rest| rest.split_once("+v:")) else {
            return Self::parse_one(text);
        };
        let (keys, values) = (Self::parse_one(keys)?, Self::parse_one(values)?);
        if keys == values {
            return Ok(keys);
        }
        Ok(Self::Mixed { keys: Box::new(keys), values: Box::new(values) })
    }

    fn parse_one(name: &str) -> Result<Self> {
        let found = SCHEMES.iter().find(|named| named.name == name);
        found.map(|named| named.scheme.clone()).ok_or_else(|| {
            let names: Vec<&str> = SCHEMES.iter().map(|named| named.name).collect();
            Error::argument(
                format!("`{name}` is not a KV cache scheme"),
                format!("use one of {}, or two as in k:q8_0+v:q4_0", names.join(", ")),
            )
        })
    }

    /// The scheme's name, which parses to the scheme again; scales from a checkpoint are not part of it, so
    /// that int8's does not parse.
    pub fn name(&self) -> String {
        match self {
            Self::Fp8 { .. } => "fp8".to_owned(),
            Self::Int8 { .. } => "int8".to_owned(),
            Self::Mixed { keys, values } => format!("k:{}+v:{}", keys.name(), values.name()),
            Self::Ggml(_) | Self::Kivi(_) | Self::TurboQuant { .. } => {
                let found = SCHEMES.iter().find(|named| named.scheme == *self);
                found.map_or_else(|| format!("{self:?}"), |named| named.name.to_owned())
            }
        }
    }

    /// Whether heads of `head_dim` values can be stored.
    ///
    /// # Errors
    /// A head size that the scheme's blocks do not divide or its tables do not cover, a scale that is no scale.
    pub fn check(&self, head_dim: usize) -> Result<()> {
        self.check_part(Part::Keys, head_dim)?;
        self.check_part(Part::Values, head_dim)
    }

    fn check_part(&self, part: Part, head_dim: usize) -> Result<()> {
        let scheme = self.of(part);
        let problem = match scheme {
            _ if head_dim == 0 => Some("cannot store heads without values".to_owned()),
            Self::Ggml(cache) => cache.problem(head_dim),
            Self::Kivi(_) => kivi::problem(head_dim),
            Self::TurboQuant { bits, .. } => turboquant::problem(*bits, head_dim),
            Self::Mixed { .. } => Some("is a mixture within a mixture".to_owned()),
            Self::Fp8 { .. } | Self::Int8 { .. } => {
                let scale = scheme.scale(part);
                if scale.is_finite() && scale > 0.0 {
                    return Ok(());
                }
                return Err(Error::argument(
                    format!(
                        "KV cache scheme {} has scale {scale}, a finite one above 0 is expected",
                        scheme.name()
                    ),
                    "k_scale and v_scale in the checkpoint are not usable; name another scheme",
                ));
            }
        };
        problem.map_or(Ok(()), |problem| {
            Err(Error::argument(
                format!("KV cache scheme {} {problem}", scheme.name()),
                "name a scheme that fits every head size, such as bf16 or fp8",
            ))
        })
    }

    /// The static scale of a half; 1 where the scheme has none.
    fn scale(&self, part: Part) -> f32 {
        match (self, part) {
            (Self::Fp8 { k_scale, .. } | Self::Int8 { k_scale, .. }, Part::Keys) => *k_scale,
            (Self::Fp8 { v_scale, .. } | Self::Int8 { v_scale, .. }, Part::Values) => *v_scale,
            _ => 1.0,
        }
    }

    /// The scheme that stores this half.
    fn of(&self, part: Part) -> &Self {
        match (self, part) {
            (Self::Mixed { keys, .. }, Part::Keys) => keys,
            (Self::Mixed { values, .. }, Part::Values) => values,
            _ => self,
        }
    }

    /// Stored bits per cached number, the mean of keys and values: codes, scales, minima and norms of a long
    /// sequence. What is kept as computed for the most recent tokens, and tables that do not grow, are not
    /// counted.
    pub fn bits_per_value(&self, head_dim: usize) -> f64 {
        let bits = |part| match self.of(part) {
            Self::Ggml(cache) => cache.bits(),
            Self::Fp8 { .. } | Self::Int8 { .. } => 8.0,
            Self::Kivi(bits) => bits.bits_per_value(),
            Self::TurboQuant { bits, form } => turboquant::bits_per_value(*bits, *form, head_dim),
            Self::Mixed { .. } => f64::NAN,
        };
        (bits(Part::Keys) + bits(Part::Values)) / 2.0
    }

    /// The values as attention reads them once stored.
    ///
    /// `x` `[tokens, heads, head_dim]`: keys after rotary embedding, or values, of one request from its first
    /// position on. The result has the same shape; positions that no query of this request reads as stored
    /// (see [`Self::stored_before`]) may come back as computed. NaN stays NaN or becomes
    /// infinite; infinities stay not finite except in `fp8` and `int8`, which saturate.
    ///
    /// # Panics
    /// If `x` is not whole tokens, or [`Self::check`] refuses `head_dim`.
    pub fn stored(&self, part: Part, x: &[f32], heads: usize, head_dim: usize) -> Vec<f32> {
        let width = heads * head_dim;
        assert!(self.check_part(part, head_dim).is_ok(), "{} cannot store heads of {head_dim}", self.name());
        assert!(width > 0 && x.len().is_multiple_of(width), "{} values are not tokens of {width}", x.len());
        let mut values = x.to_vec();
        let scheme = self.of(part);
        match scheme {
            Self::Ggml(cache) => cache.store(part, &mut values, head_dim),
            Self::Fp8 { .. } => fp8::store_e4m3(&mut values, scheme.scale(part)),
            Self::Int8 { .. } => fp8::store_int8(&mut values, scheme.scale(part)),
            Self::Kivi(bits) if part == Part::Keys => kivi::store_keys(&mut values, width, *bits),
            Self::Kivi(bits) => kivi::store_values(&mut values, *bits),
            Self::TurboQuant { bits, form } => {
                turboquant::store(part, &mut values, heads, head_dim, *bits, *form);
            }
            // `check_part` refuses a mixture within a mixture.
            Self::Mixed { .. } => {}
        }
        values
    }

    /// For the query at position `query`, whose own key and value have been appended: positions below the
    /// result are read as stored, the rest as computed.
    pub fn stored_before(&self, part: Part, query: usize) -> usize {
        match self.of(part) {
            Self::Kivi(_) => kivi::stored_before(part, query),
            Self::TurboQuant { bits, .. } => turboquant::stored_before(*bits, query),
            _ => query + 1,
        }
    }
}

/// Values that one thread takes at once; a multiple of every block.
const RUN: usize = 1 << 15;

/// Replaces every block of `N` values in place, threads side by side; `N` divides [`RUN`].
///
/// The body is compiled for the detected instruction set, so `replace` must be inlined.
fn each_block<const N: usize>(values: &mut [f32], replace: impl Fn(&mut [f32; N]) + Sync) {
    struct EachBlock<'a, const N: usize, F> {
        values: &'a mut [f32],
        replace: &'a F,
    }

    impl<const N: usize, F: Fn(&mut [f32; N])> pulp::WithSimd for EachBlock<'_, N, F> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, _: S) {
            for block in self.values.as_chunks_mut().0 {
                (self.replace)(block);
            }
        }
    }

    values
        .par_chunks_mut(RUN)
        .for_each(|values| pulp::Arch::new().dispatch(EachBlock { values, replace: &replace }));
}

/// The nearest binary16, ties to even; from 65520 on infinite, as IEEE 754 has it.
///
/// Without a branch, so that loops over it vectorize: adding and subtracting 1.5·2^(e + 13) leaves a multiple
/// of binary16's step at exponent e, whose lowest is −14.
#[inline(always)]
fn round_f16(x: f32) -> f32 {
    const TOP: f32 = 65536.0;
    let clamped = if x > TOP { TOP } else { x };
    let clamped = if clamped < -TOP { -TOP } else { clamped };
    let lowest = (127 - 14) << 23;
    let exponent = clamped.to_bits() & 0x7F80_0000;
    let exponent = if exponent < lowest { lowest } else { exponent };
    let magic = 1.5 * f32::from_bits(exponent.wrapping_add(13 << 23));
    let rounded = (clamped + magic) - magic;
    if rounded.abs() >= TOP { f32::INFINITY.copysign(x) } else { rounded }
}

/// 1.5·2²³: adding and subtracting it rounds to the nearest integer, ties to even, up to 2²² in magnitude.
const INTEGER_MAGIC: f32 = 12_582_912.0;

/// The nearest integer, ties to even; |x| at most 2²².
#[inline(always)]
fn round_half_even(x: f32) -> f32 {
    (x + INTEGER_MAGIC) - INTEGER_MAGIC
}

/// `x` within the bounds; NaN stays NaN.
#[inline(always)]
fn clamp(x: f32, low: f32, high: f32) -> f32 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

#[cfg(test)]
mod tests;
