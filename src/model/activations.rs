//! Rounds a linear's input as the checkpoint declares it: to the few values that a quantized kernel would see.
//!
//! The result is back in f32; the product stays dense. A kernel that multiplies integers and scales afterwards
//! computes the same sum, but for the order of its additions. Definitions are those of compressed-tensors 0.19
//! (`lifecycle/forward_helpers.py`, `utils/helpers.py`, `utils/mxfp_utils.py`), bitsandbytes 0.50
//! (`int8_vectorwise_quant`, `int8_mixed_scaled_mm`) and ggml on x86 (`ggml-cpu/arch/x86/quants.c`).
//!
//! An input that is NaN or infinite must not come out as a number: it makes everything NaN that shares its
//! scale. Largest magnitudes are therefore compared as bits, an order in which NaN stands above all.

use std::ops::Range;

use crate::{
    checkpoint::activations::{
        ActivationFormat, ActivationQuantization, ActivationScale, GgmlActivation, Granularity,
    },
    minifloat::{E2M1_MAX, e8m0, round_e2m1, round_e4m3},
};

/// Quantizes and dequantizes `values`, row-major `[rows, columns]`, in place, on this thread.
///
/// `requests`: the rows of each request, in order and without gaps. A scale of a whole tensor and the outlier
/// columns of LLM.int8() are found per request, so that they do not depend on what it was packed with.
///
/// # Errors
/// What [`check`] says; rows or requests that do not fit `values`. Nothing is changed then.
pub(super) fn round_activations(
    scheme: &ActivationQuantization,
    values: &mut [f32],
    columns: usize,
    requests: &[Range<usize>],
) -> Result<(), String> {
    check(scheme, columns)?;
    let rows = values.len() / columns;
    if rows * columns != values.len() {
        return Err(format!("{} values are not rows of {columns}", values.len()));
    }
    let mut end = 0;
    for request in requests {
        if request.start != end || request.end < end {
            return Err(format!("a request has rows {request:?}, where row {end} comes next"));
        }
        end = request.end;
    }
    if end != rows {
        return Err(format!("the requests have {end} rows, the values {rows}"));
    }

    match *scheme {
        ActivationQuantization::Scaled { format, granularity, scale } => {
            let groups = Groups { columns, granularity, requests };
            match format {
                ActivationFormat::Int { bits, symmetric } => {
                    let half = 2f32.powi(bits as i32 - 1);
                    let format = Int { min: -half, max: half - 1.0 };
                    match scale {
                        ActivationScale::Dynamic { half_range } if !symmetric => {
                            groups.round(values, Asymmetric { format, half_range });
                        }
                        _ => groups.scaled(values, format, scale),
                    }
                }
                ActivationFormat::E4m3 => groups.scaled(values, E4m3, scale),
                ActivationFormat::E2m1 => groups.scaled(values, E2m1, scale),
            }
        }
        ActivationQuantization::LlmInt8 { threshold } => {
            for request in requests {
                let values = &mut values[request.start * columns..request.end * columns];
                pulp::Arch::new().dispatch(LlmInt8 { values, columns, threshold });
            }
        }
        ActivationQuantization::Ggml(kind) => match kind {
            GgmlActivation::F16 => each_group(values, columns, Each(F16)),
            GgmlActivation::Bf16 => each_group(values, columns, Each(Bf16)),
            GgmlActivation::Q8_0 | GgmlActivation::Q8_1 => {
                each_group(values, block(kind), GgmlQ8 { scale_is_f16: true });
            }
            GgmlActivation::Q8K => each_group(values, block(kind), GgmlQ8 { scale_is_f16: false }),
        },
    }
    Ok(())
}

/// Whether `scheme` can be computed on rows of so many columns; without values, so that it can be asked first.
///
/// # Errors
/// A group or block that does not divide `columns` (compressed-tensors and ggml refuse it, too); a number out of
/// its range; a kind of scale that is not defined for the format.
pub(super) fn check(scheme: &ActivationQuantization, columns: usize) -> Result<(), String> {
    let positive = |what: &str, value: f32| {
        if value > 0.0 && value < f32::INFINITY {
            Ok(())
        } else {
            Err(format!("{what} is {value}, expected a positive number"))
        }
    };
    let divides = |what: &str, size: usize| {
        if size > 0 && columns.is_multiple_of(size) {
            Ok(())
        } else {
            Err(format!("{what} of {size} does not divide {columns} columns"))
        }
    };
    if columns == 0 {
        return Err("rows have no columns".to_owned());
    }
    match *scheme {
        ActivationQuantization::Scaled { format, granularity, scale } => {
            if let Granularity::Group(size) = granularity {
                divides("a group", size)?;
            }
            if let ActivationFormat::Int { bits, .. } = format
                && !(2..=8).contains(&bits)
            {
                return Err(format!("integers have {bits} bits, expected 2 to 8"));
            }
            match (scale, format) {
                (ActivationScale::Static { zero_point, .. }, _) if !zero_point.is_finite() => {
                    Err(format!("the zero point is {zero_point}"))
                }
                (ActivationScale::Static { scale, .. }, _) => positive("the scale", scale),
                (ActivationScale::Dynamic { half_range }, _) => positive("half of the range", half_range),
                (ActivationScale::Local { global }, ActivationFormat::E2m1) => {
                    positive("the global scale", global)
                }
                (ActivationScale::Local { .. }, _) => {
                    Err("local scales are defined for E2M1 only".to_owned())
                }
                (ActivationScale::PowerOfTwo, ActivationFormat::Int { .. }) => {
                    Err("scales that are powers of two are defined for E4M3 and E2M1 only".to_owned())
                }
                (ActivationScale::PowerOfTwo, _) => Ok(()),
            }
        }
        ActivationQuantization::LlmInt8 { threshold: 0.0 } => Ok(()),
        ActivationQuantization::LlmInt8 { threshold } => positive("the outlier threshold", threshold),
        ActivationQuantization::Ggml(kind) => divides("a block", block(kind)),
    }
}

/// Values in one block.
const fn block(kind: GgmlActivation) -> usize {
    match kind {
        GgmlActivation::F16 | GgmlActivation::Bf16 => 1,
        GgmlActivation::Q8_0 | GgmlActivation::Q8_1 => 32,
        GgmlActivation::Q8K => 256,
    }
}

/// Rounds neighbouring values that share a scale.
trait Round: Copy {
    fn round(self, group: &mut [f32]);
}

/// What one value becomes.
trait Value: Copy {
    fn value(self, x: f32) -> f32;
}

/// Rounds every `length` neighbours of `values`, compiled for the widest vectors that this processor has.
///
/// All that `kernel` calls must be `#[inline(always)]`: only then is it compiled together with this loop.
fn each_group<K: Round>(values: &mut [f32], length: usize, kernel: K) {
    struct EachGroup<'a, K> {
        values: &'a mut [f32],
        length: usize,
        kernel: K,
    }

    impl<K: Round> pulp::WithSimd for EachGroup<'_, K> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, _simd: S) {
            for group in self.values.chunks_exact_mut(self.length) {
                self.kernel.round(group);
            }
        }
    }

    pulp::Arch::new().dispatch(EachGroup { values, length, kernel });
}

/// Values taken together, so that even a group of 16 is a few whole vectors.
const LANES: usize = 16;

/// Replaces every value.
#[inline(always)]
fn replace(values: &mut [f32], by: impl Value) {
    let (chunks, rest) = values.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for x in chunk {
            *x = by.value(*x);
        }
    }
    for x in rest {
        *x = by.value(*x);
    }
}

/// The largest of `bits` with each value's bits xor `flip`, as a signed number; 0 where all are negative.
///
/// With `flip` = 0 that is max(x, 0), with the sign bit flipped max(−x, 0), and with the sign bit cleared the
/// largest magnitude: floats without a sign are ordered as their bits are, infinity and then NaN at the end.
#[inline(always)]
fn largest(values: &[f32], keep: u32, flip: u32) -> f32 {
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut largest = [0i32; LANES];
    for chunk in chunks {
        for (largest, x) in largest.iter_mut().zip(chunk) {
            *largest = (*largest).max((x.to_bits() & keep ^ flip) as i32);
        }
    }
    for (largest, x) in largest.iter_mut().zip(rest) {
        *largest = (*largest).max((x.to_bits() & keep ^ flip) as i32);
    }
    f32::from_bits(largest.iter().fold(0, |a, b| a.max(*b)) as u32)
}

const SIGN: u32 = 1 << 31;

/// The largest magnitude; NaN if any value is NaN.
#[inline(always)]
fn amax(values: &[f32]) -> f32 {
    largest(values, !SIGN, 0)
}

/// 1.5·2^23: adding and subtracting it leaves the nearest integer, ties to even, of a magnitude below 2^22.
const MAGIC: f32 = 12_582_912.0;

/// A format with its largest values: clamps, then rounds. NaN stays NaN.
trait Format: Copy {
    /// The largest value's exponent, which a scale that is a power of two leaves room for.
    const MAX_EXPONENT: u32;

    fn nearest(self, x: f32) -> f32;
}

#[derive(Clone, Copy)]
struct Int {
    min: f32,
    max: f32,
}

impl Format for Int {
    // Refused by `check`: no power of two is defined for integers.
    const MAX_EXPONENT: u32 = 0;

    #[inline(always)]
    fn nearest(self, x: f32) -> f32 {
        let x = if x > self.max { self.max } else { x };
        let x = if x < self.min { self.min } else { x };
        (x + MAGIC) - MAGIC
    }
}

#[derive(Clone, Copy)]
struct E4m3;

impl Format for E4m3 {
    const MAX_EXPONENT: u32 = 8;

    #[inline(always)]
    fn nearest(self, x: f32) -> f32 {
        round_e4m3(x)
    }
}

#[derive(Clone, Copy)]
struct E2m1;

impl Format for E2m1 {
    const MAX_EXPONENT: u32 = 2;

    #[inline(always)]
    fn nearest(self, x: f32) -> f32 {
        round_e2m1(x)
    }
}

/// x̂ = (nearest(x/s + z) − z)·s; NaN where x is not finite.
#[derive(Clone, Copy)]
struct Scaled<F> {
    format: F,
    scale: f32,
    zero_point: f32,
}

impl<F: Format> Value for Scaled<F> {
    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        let q = self.format.nearest(x / self.scale + self.zero_point);
        let rounded = (q - self.zero_point) * self.scale;
        if x.abs() < f32::INFINITY { rounded } else { f32::NAN }
    }
}

/// The same for every value: a static scale, or a format without one.
#[derive(Clone, Copy)]
struct Each<V>(V);

impl<V: Value> Round for Each<V> {
    #[inline(always)]
    fn round(self, group: &mut [f32]) {
        replace(group, self.0);
    }
}

/// How a scale follows from the largest magnitude, which is finite.
trait Scale: Copy {
    fn scale(self, amax: f32) -> f32;
}

/// Scales from the largest magnitude, zero point 0.
#[derive(Clone, Copy)]
struct Symmetric<F, S> {
    format: F,
    scale: S,
}

impl<F: Format, S: Scale> Round for Symmetric<F, S> {
    #[inline(always)]
    fn round(self, group: &mut [f32]) {
        let amax = amax(group);
        let scale = if amax < f32::INFINITY { self.scale.scale(amax) } else { f32::NAN };
        replace(group, Scaled { format: self.format, scale, zero_point: 0.0 });
    }
}

/// amax / half_range.
#[derive(Clone, Copy)]
struct Dynamic {
    half_range: f32,
}

impl Scale for Dynamic {
    #[inline(always)]
    fn scale(self, amax: f32) -> f32 {
        positive(amax / self.half_range)
    }
}

/// A scale that came out as 0 is replaced; what it divides is (all but) zero.
#[inline(always)]
fn positive(scale: f32) -> f32 {
    if scale == 0.0 { f32::EPSILON } else { scale }
}

/// E4M3(global · amax/6) / global.
#[derive(Clone, Copy)]
struct Local {
    global: f32,
}

impl Scale for Local {
    #[inline(always)]
    fn scale(self, amax: f32) -> f32 {
        let rounded = round_e4m3(self.global * (amax / E2M1_MAX));
        // The step of E4M3 at 1, as compressed-tensors has it: a group far below the rest becomes zeros.
        (if rounded == 0.0 { 0.125 } else { rounded }) / self.global
    }
}

/// 2^(floor(log2(amax')) − MAX_EXPONENT), where amax' is amax with its mantissa rounded up from 1.75.
///
/// From 1.75·2² on, amax would exceed the largest E2M1, 6, by half of its last step or more. compressed-tensors has
/// the same bound for E4M3, where 1.75·2⁸ is the largest value itself. MX 1.0 does not round up.
#[derive(Clone, Copy)]
struct PowerOfTwo {
    max_exponent: u32,
}

impl Scale for PowerOfTwo {
    #[inline(always)]
    fn scale(self, amax: f32) -> f32 {
        match amax.to_bits().wrapping_add(1 << 21) >> 23 {
            // Rounded up beyond the largest float.
            255 => f32::NAN,
            exponent => e8m0(exponent.saturating_sub(self.max_exponent) as u8),
        }
    }
}

/// Integers with s = (max − min) / (2·half_range), z = round(clamp(qmin − min/s)); the range includes 0.
#[derive(Clone, Copy)]
struct Asymmetric {
    format: Int,
    half_range: f32,
}

impl Round for Asymmetric {
    #[inline(always)]
    fn round(self, group: &mut [f32]) {
        let max = largest(group, !0, 0);
        let minus_min = largest(group, !0, SIGN);
        // Infinite, it gives 0·∞.
        let scale = (max + minus_min) / (2.0 * self.half_range);
        let zero_point =
            if scale == 0.0 { 0.0 } else { self.format.nearest(self.format.min + minus_min / scale) };
        replace(group, Scaled { format: self.format, scale: positive(scale), zero_point });
    }
}

/// Which values share a scale.
struct Groups<'a> {
    columns: usize,
    granularity: Granularity,
    requests: &'a [Range<usize>],
}

impl Groups<'_> {
    fn round(&self, values: &mut [f32], kernel: impl Round) {
        match self.granularity {
            Granularity::Tensor => {
                for request in self.requests.iter().filter(|request| !request.is_empty()) {
                    let values = &mut values[request.start * self.columns..request.end * self.columns];
                    each_group(values, values.len(), kernel);
                }
            }
            Granularity::Token => each_group(values, self.columns, kernel),
            Granularity::Group(size) => each_group(values, size, kernel),
        }
    }

    fn scaled<F: Format>(&self, values: &mut [f32], format: F, scale: ActivationScale) {
        match scale {
            ActivationScale::Static { scale, zero_point } => {
                each_group(values, self.columns, Each(Scaled { format, scale, zero_point }));
            }
            ActivationScale::Dynamic { half_range } => {
                self.round(values, Symmetric { format, scale: Dynamic { half_range } });
            }
            ActivationScale::Local { global } => {
                self.round(values, Symmetric { format, scale: Local { global } });
            }
            ActivationScale::PowerOfTwo => {
                let scale = PowerOfTwo { max_exponent: F::MAX_EXPONENT };
                self.round(values, Symmetric { format, scale });
            }
        }
    }
}

/// x̂ = round(x·inverse)·scale, for |x·inverse| that is at most 127 by construction.
#[derive(Clone, Copy)]
struct Q8 {
    inverse: f32,
    scale: f32,
}

impl Value for Q8 {
    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        ((x * self.inverse + MAGIC) - MAGIC) * self.scale
    }
}

/// ggml's 8-bit blocks: q = round(x·(127/amax)), ties to even.
///
/// So x86 and ARM compute Q8_0 and Q8_1; the portable C code multiplies by 1/(amax/127) and rounds ties away from
/// zero. Q8_K has a signed scale, −max/127 for the value `max` of largest magnitude, which changes the sign of
/// every q and of the scale, and no product.
#[derive(Clone, Copy)]
struct GgmlQ8 {
    /// Stored as f16, amax/127; else as f32, 1/(127/amax).
    scale_is_f16: bool,
}

impl Round for GgmlQ8 {
    #[inline(always)]
    fn round(self, group: &mut [f32]) {
        let amax = amax(group);
        let inverse = 127.0 / amax;
        let scale = if self.scale_is_f16 { round_f16(amax / 127.0) } else { 1.0 / inverse };
        let q8 = if inverse == f32::INFINITY {
            // amax is 0, or so small that both scales are.
            Q8 { inverse: 0.0, scale: 0.0 }
        } else {
            // An infinite amax gives 0·∞.
            Q8 { inverse, scale }
        };
        replace(group, q8);
    }
}

/// To binary16, ties to even; from 65520 on infinite.
#[inline(always)]
fn round_f16(x: f32) -> f32 {
    const LOWEST: u32 = (127 - 14) << 23;
    let exponent = x.to_bits() & 0x7F80_0000;
    let exponent = if exponent < LOWEST { LOWEST } else { exponent };
    let magic = 1.5 * f32::from_bits(exponent.wrapping_add(13 << 23));
    let rounded = (x + magic) - magic;
    if x.abs() < 65_520.0 { rounded } else { x * f32::INFINITY }
}

#[derive(Clone, Copy)]
struct F16;

impl Value for F16 {
    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        round_f16(x)
    }
}

/// To bfloat16, ties to even.
#[derive(Clone, Copy)]
struct Bf16;

impl Value for Bf16 {
    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7FFF).wrapping_add(bits >> 16 & 1) & 0xFFFF_0000;
        if x.is_nan() { x } else { f32::from_bits(rounded) }
    }
}

/// One request under LLM.int8(), as bitsandbytes' kernels compute it.
///
/// Magnitudes are those of x rounded to f16. Columns with a value of at least `threshold` stay as they were given
/// (the kernel multiplies them in the type that the model runs in). A row's amax leaves out the outliers, but not
/// the small values of their columns; everything else becomes round(f16(x)·127/amax)·amax/127.
struct LlmInt8<'a> {
    values: &'a mut [f32],
    columns: usize,
    threshold: f32,
}

impl pulp::WithSimd for LlmInt8<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _simd: S) {
        let Self { values, columns, threshold } = self;
        // Nothing is at least NaN, an infinite magnitude neither: it belongs to amax where none is an outlier.
        let threshold = if threshold == 0.0 { f32::NAN } else { threshold };
        let mut outlier = vec![0u32; columns];
        if threshold > 0.0 {
            for row in values.chunks_exact(columns) {
                for (largest, x) in outlier.iter_mut().zip(row) {
                    // A NaN must not hide an outlier of the same column.
                    *largest = (*largest).max(if x.is_nan() { 0 } else { x.abs().to_bits() });
                }
            }
            for largest in &mut outlier {
                // Rounding keeps the order, so the largest of a column decides.
                *largest = u32::from(round_f16(f32::from_bits(*largest)) >= threshold);
            }
        }
        for row in values.chunks_exact_mut(columns) {
            let mut amax = 0u32;
            for x in row.iter() {
                let magnitude = round_f16(x.abs());
                amax = amax.max(if magnitude >= threshold { 0 } else { magnitude.to_bits() });
            }
            let amax = f32::from_bits(amax);
            // The reciprocal first, as torch divides a number by a tensor: on f16 values ties are real.
            let inverse = if amax == 0.0 { 0.0 } else { 127.0 * (1.0 / amax) };
            let q8 = Q8 { inverse, scale: amax / 127.0 };
            for (x, outlier) in row.iter_mut().zip(&outlier) {
                let rounded = q8.value(round_f16(*x));
                *x = if *outlier == 0 { rounded } else { *x };
            }
        }
    }
}

#[cfg(test)]
mod tests;
