//! Layer probes and weights: how far a quant's numbers are from base's, streamed in blocks of rows.
//!
//! y is base's, ŷ the quant's; a row is one token's hidden state. `sqnr_db` = 10·log₁₀(Σ‖y‖²/Σ‖y−ŷ‖²),
//! `relative_error` = ‖y−ŷ‖_F/‖y‖_F, `cosine_distance` = 1 − mean cos per token, and the same without
//! position 0 of each request, whose massive activations (arXiv 2402.17762) would hide everything else.
//! Outliers are described by Pearson's kurtosis and by max/rms. All sums are f64; central moments are merged
//! by Pébay's formulas (Sandia report SAND2008-6212). It knows nothing of tensors, layers or models.

mod moments;

use super::{LANES, lane_sum};
use moments::Moments;

/// Both views of one layer's (or one linear layer's) output.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerErrorReport {
    /// Over all tokens.
    pub all: ErrorView,
    /// Over all tokens but the first of each request; `None` if there is no other.
    pub without_first: Option<ErrorView>,
}

/// How far quant's rows are from base's.
///
/// Where `non_finite` is not 0, every other number is NaN: it is not a measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct ErrorView {
    /// Rows.
    pub tokens: u64,
    /// 10·log₁₀(Σ‖y‖²/Σ‖y−ŷ‖²), decibels; `None` where there is no error at all.
    pub sqnr_db: Option<f64>,
    /// Whether no element differs (+0 and −0 do not). False over no tokens, or with NaN or ∞ about.
    pub identical: bool,
    /// ‖y−ŷ‖_F/‖y‖_F; +∞ if base is zero and quant is not.
    pub relative_error: f64,
    /// 1 − mean cos(y, ŷ) over tokens. Identical rows count exactly 0 (two zero rows are identical),
    /// a zero row against another one counts 1.
    pub cosine_distance: f64,
    /// max |y−ŷ|.
    pub max_abs_error: f64,
    /// 10·log₁₀(Σ‖y−x‖²/Σ‖y−ŷ‖²), decibels, x being base's input of the layer: the layer's own
    /// contribution as the signal. `None` where there is no error, or not every row came with its x.
    pub update_sqnr_db: Option<f64>,
    /// Σ(v−v̄)⁴/n / (Σ(v−v̄)²/n)² over all elements of base (3 for a normal distribution); NaN if constant.
    pub base_kurtosis: f64,
    /// The same of quant.
    pub quant_kurtosis: f64,
    /// max |v| / √(Σv²/n) over all elements of base; NaN if all are zero.
    pub base_max_over_rms: f64,
    /// The same of quant.
    pub quant_max_over_rms: f64,
    /// NaN or infinite elements, of base and of quant together.
    pub non_finite: u64,
}

/// The accumulator of one layer's probe.
#[derive(Clone, Debug, Default)]
pub struct LayerErrors {
    first: RowSums,
    others: RowSums,
}

impl LayerErrors {
    /// Nothing seen yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in rows of `width` elements: `base` and `quant` (and `input`, base's input of the layer) hold
    /// one row after another, `first_flags` says of each whether it is position 0 of its request.
    ///
    /// # Panics
    /// If a slice does not hold `first_flags.len()` rows.
    pub fn absorb_rows(
        &mut self,
        width: usize,
        first_flags: &[bool],
        input: Option<&[f32]>,
        base: &[f32],
        quant: &[f32],
    ) {
        let elements = width * first_flags.len();
        assert!(base.len() == elements && quant.len() == elements, "rows of one width");
        assert!(input.is_none_or(|x| x.len() == elements), "an input for each row");
        pulp::Arch::new().dispatch(AbsorbRows { errors: self, width, first_flags, input, base, quant });
    }

    /// Takes in what another accumulator saw. The order of merging matters only to rounding; merge in a
    /// fixed order where a figure is to be the same to the last bit.
    pub fn merge(&mut self, other: &LayerErrors) {
        self.first.merge(&other.first);
        self.others.merge(&other.others);
    }

    /// The figures over everything seen.
    pub fn finish(&self) -> LayerErrorReport {
        let mut all = self.first.clone();
        all.merge(&self.others);
        let without_first = (self.others.tokens > 0).then(|| self.others.finish());
        LayerErrorReport { all: all.finish(), without_first }
    }
}

/// The figures of one weight.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightErrorReport {
    /// Elements seen.
    pub elements: u64,
    /// 10·log₁₀(Σw²/Σ(w−ŵ)²), decibels; `None` where there is no error at all, NaN with NaN or ∞ about.
    pub sqnr_db: Option<f64>,
    /// Whether no element differs. False over no elements, or with NaN or ∞ about.
    pub identical: bool,
    /// NaN or infinite elements, of base and of quant together.
    pub non_finite: u64,
}

/// The accumulator of one weight, streamed in blocks of any length.
#[derive(Clone, Debug, Default)]
pub struct WeightErrors {
    elements: u64,
    signal: f64,
    error: f64,
    non_finite: u64,
}

impl WeightErrors {
    /// Nothing seen yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in some elements of base's weight and the same ones of quant's.
    ///
    /// # Panics
    /// If the two differ in length.
    pub fn absorb(&mut self, base: &[f32], quant: &[f32]) {
        assert_eq!(base.len(), quant.len(), "the same elements of both");
        pulp::Arch::new().dispatch(AbsorbWeights { errors: self, base, quant });
    }

    /// Takes in what another accumulator saw.
    pub fn merge(&mut self, other: &WeightErrors) {
        self.elements += other.elements;
        self.signal += other.signal;
        self.error += other.error;
        self.non_finite += other.non_finite;
    }

    /// The figures over everything seen.
    pub fn finish(&self) -> WeightErrorReport {
        let finite = self.non_finite == 0;
        WeightErrorReport {
            elements: self.elements,
            sqnr_db: if finite { decibels(self.signal, self.error) } else { Some(f64::NAN) },
            identical: finite && self.elements > 0 && self.error == 0.0,
            non_finite: self.non_finite,
        }
    }
}

/// 10·log₁₀(signal/error); `None` without error.
fn decibels(signal: f64, error: f64) -> Option<f64> {
    (error != 0.0).then(|| 10.0 * (signal / error).log10())
}

/// Arguments as a type, for the reason given at `vocabulary::AbsorbTile`.
struct AbsorbRows<'a> {
    errors: &'a mut LayerErrors,
    width: usize,
    first_flags: &'a [bool],
    input: Option<&'a [f32]>,
    base: &'a [f32],
    quant: &'a [f32],
}

impl pulp::WithSimd for AbsorbRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        for (i, &is_first) in self.first_flags.iter().enumerate() {
            let row = i * self.width..(i + 1) * self.width;
            let input = self.input.map(|x| &x[row.clone()]);
            let sums = if is_first { &mut self.errors.first } else { &mut self.errors.others };
            sums.absorb(input, &self.base[row.clone()], &self.quant[row]);
        }
    }
}

struct AbsorbWeights<'a> {
    errors: &'a mut WeightErrors,
    base: &'a [f32],
    quant: &'a [f32],
}

impl pulp::WithSimd for AbsorbWeights<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let [signal, error] = lanes2(self.base, self.quant, |[signal, error], w, v| {
            *signal = w.mul_add(w, *signal);
            *error = (w - v).mul_add(w - v, *error);
        });
        // A value of f32 squared and summed does not overflow f64: only NaN and ∞ make these not finite.
        if !(signal + error).is_finite() {
            self.errors.non_finite += non_finite(self.base) + non_finite(self.quant);
        }
        self.errors.elements += self.base.len() as u64;
        self.errors.signal += signal;
        self.errors.error += error;
    }
}

/// Sums over the rows of one view.
#[derive(Clone, Debug, Default)]
struct RowSums {
    tokens: u64,
    /// Rows that came with base's input.
    with_input: u64,
    squared_error: f64,
    squared_update: f64,
    cosine_distance: f64,
    max_abs_error: f64,
    base: Moments,
    quant: Moments,
    non_finite: u64,
}

impl RowSums {
    #[inline(always)]
    fn absorb(&mut self, input: Option<&[f32]>, base: &[f32], quant: &[f32]) {
        let (y, q) = (Moments::of(base), Moments::of(quant));
        let (y_scale, q_scale) = (1.0 / y.sum_of_squares().sqrt(), 1.0 / q.sum_of_squares().sqrt());
        let [squared_error, unit_error] = lanes2(base, quant, |[squared, unit], y, q| {
            *squared = (y - q).mul_add(y - q, *squared);
            let u = y * y_scale - q * q_scale;
            *unit = u.mul_add(u, *unit);
        });
        self.tokens += 1;
        if let Some(input) = input {
            let [update, _] = lanes2(base, input, |[update, _], y, x| {
                *update = (y - x).mul_add(y - x, *update);
            });
            self.squared_update += update;
            self.with_input += 1;
        }
        if !(y.mean + q.mean).is_finite() {
            self.non_finite += non_finite(base) + non_finite(quant);
        }
        self.squared_error += squared_error;
        // 1 − cos = ‖y/|y| − ŷ/|ŷ|‖²/2: nothing cancels, and equal rows give exactly 0.
        self.cosine_distance += match (y_scale.is_finite(), q_scale.is_finite()) {
            (true, true) => unit_error / 2.0,
            (false, false) if squared_error == 0.0 => 0.0,
            _ => 1.0,
        };
        self.max_abs_error = self.max_abs_error.max(max_abs_difference(base, quant));
        self.base.merge(&y);
        self.quant.merge(&q);
    }

    fn merge(&mut self, other: &RowSums) {
        self.tokens += other.tokens;
        self.with_input += other.with_input;
        self.squared_error += other.squared_error;
        self.squared_update += other.squared_update;
        self.cosine_distance += other.cosine_distance;
        self.max_abs_error = self.max_abs_error.max(other.max_abs_error);
        self.base.merge(&other.base);
        self.quant.merge(&other.quant);
        self.non_finite += other.non_finite;
    }

    fn finish(&self) -> ErrorView {
        let finite = self.non_finite == 0;
        let or_nan = |value: f64| if finite { value } else { f64::NAN };
        let signal = self.base.sum_of_squares();
        let identical = finite && self.tokens > 0 && self.squared_error == 0.0;
        let has_input = self.with_input == self.tokens;
        // An infinite input is not counted here (it is some other layer's output), but it is no signal.
        let update = if self.squared_update.is_finite() { self.squared_update } else { f64::NAN };
        let ratio = if identical { 0.0 } else { (self.squared_error / signal).sqrt() };
        ErrorView {
            tokens: self.tokens,
            sqnr_db: if finite { decibels(signal, self.squared_error) } else { Some(f64::NAN) },
            identical,
            relative_error: or_nan(ratio),
            cosine_distance: or_nan(self.cosine_distance / self.tokens as f64),
            max_abs_error: or_nan(self.max_abs_error),
            update_sqnr_db: if finite { decibels(update, self.squared_error) } else { Some(f64::NAN) }
                .filter(|_| has_input),
            base_kurtosis: or_nan(self.base.kurtosis()),
            quant_kurtosis: or_nan(self.quant.kurtosis()),
            base_max_over_rms: or_nan(self.base.max_over_rms()),
            quant_max_over_rms: or_nan(self.quant.max_over_rms()),
            non_finite: self.non_finite,
        }
    }
}

fn non_finite(values: &[f32]) -> u64 {
    values.iter().filter(|v| !v.is_finite()).count() as u64
}

/// Two sums over pairs of elements, each in [`LANES`] lanes.
#[inline(always)]
fn lanes2(a: &[f32], b: &[f32], step: impl Fn([&mut f64; 2], f64, f64)) -> [f64; 2] {
    let [mut s, mut t] = [[0.0; LANES]; 2];
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..LANES {
            step([&mut s[lane], &mut t[lane]], f64::from(a[lane]), f64::from(b[lane]));
        }
    }
    for (lane, (&a, &b)) in a_rest.iter().zip(b_rest).enumerate() {
        step([&mut s[lane], &mut t[lane]], f64::from(a), f64::from(b));
    }
    [lane_sum(s), lane_sum(t)]
}

/// max |a − b|, NaN left out. A loop of its own: among the sums it is not vectorized.
#[inline(always)]
fn max_abs_difference(a: &[f32], b: &[f32]) -> f64 {
    let larger = |m: f64, v: f64| if v.abs() > m { v.abs() } else { m };
    let mut max = [0.0; LANES];
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..LANES {
            max[lane] = larger(max[lane], f64::from(a[lane]) - f64::from(b[lane]));
        }
    }
    let rest = a_rest.iter().zip(b_rest).map(|(&a, &b)| f64::from(a) - f64::from(b));
    max.into_iter().chain(rest).fold(0.0, larger)
}

#[cfg(test)]
mod tests;
