//! Count, mean, central moments to the fourth and largest magnitude of a stream of numbers.
//!
//! Each slice's moments are taken about its own mean in a second walk over it (it is in cache), and merged
//! pairwise: Pébay, "Formulas for robust, one-pass parallel computation of covariances and arbitrary-order
//! statistical moments", SAND2008-6212. Raw power sums would cancel.

use super::super::{LANES, lane_sum};

/// Σ(v−v̄)^k for k = 2, 3, 4, with what is needed to merge them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moments {
    count: f64,
    pub(super) mean: f64,
    m2: f64,
    m3: f64,
    m4: f64,
    max_abs: f64,
}

impl Moments {
    /// The moments of one slice. A NaN or infinite element makes the mean NaN or infinite.
    #[inline(always)]
    pub(super) fn of(values: &[f32]) -> Self {
        let (chunks, rest) = values.as_chunks::<LANES>();
        let mut sum = [0.0; LANES];
        for chunk in chunks {
            for (sum, &v) in sum.iter_mut().zip(chunk) {
                *sum += f64::from(v);
            }
        }
        for (sum, &v) in sum.iter_mut().zip(rest) {
            *sum += f64::from(v);
        }
        let count = values.len() as f64;
        let mean = if values.is_empty() { 0.0 } else { lane_sum(sum) / count };
        let [mut m2, mut m3, mut m4] = [[0.0; LANES]; 3];
        let mut step = |lane: usize, v: f32| {
            let d = f64::from(v) - mean;
            let d2 = d * d;
            m2[lane] += d2;
            m3[lane] = d2.mul_add(d, m3[lane]);
            m4[lane] = d2.mul_add(d2, m4[lane]);
        };
        for chunk in chunks {
            for (lane, &v) in chunk.iter().enumerate() {
                step(lane, v);
            }
        }
        for (lane, &v) in rest.iter().enumerate() {
            step(lane, v);
        }
        let max_abs = f64::from(max_abs(values));
        Self { count, mean, m2: lane_sum(m2), m3: lane_sum(m3), m4: lane_sum(m4), max_abs }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        if other.count == 0.0 {
            return;
        }
        if self.count == 0.0 {
            *self = *other;
            return;
        }
        let (a, b) = (self.count, other.count);
        let n = a + b;
        let d = other.mean - self.mean;
        let m2 = self.m2 + other.m2 + d * d * a * b / n;
        let m3 = self.m3
            + other.m3
            + d.powi(3) * a * b * (a - b) / (n * n)
            + 3.0 * d * (a * other.m2 - b * self.m2) / n;
        let m4 = self.m4
            + other.m4
            + d.powi(4) * a * b * (a * a - a * b + b * b) / n.powi(3)
            + 6.0 * d * d * (a * a * other.m2 + b * b * self.m2) / (n * n)
            + 4.0 * d * (a * other.m3 - b * self.m3) / n;
        let max_abs = self.max_abs.max(other.max_abs);
        *self = Self { count: n, mean: self.mean + d * b / n, m2, m3, m4, max_abs };
    }

    /// Σv² = Σ(v−v̄)² + n·v̄².
    pub(super) fn sum_of_squares(&self) -> f64 {
        (self.count * self.mean).mul_add(self.mean, self.m2)
    }

    /// n·Σ(v−v̄)⁴/(Σ(v−v̄)²)²: 3 for a normal distribution, NaN for a constant.
    pub(super) fn kurtosis(&self) -> f64 {
        self.count * self.m4 / (self.m2 * self.m2)
    }

    /// max|v|/√(Σv²/n), NaN for zeros.
    pub(super) fn max_over_rms(&self) -> f64 {
        self.max_abs / (self.sum_of_squares() / self.count).sqrt()
    }
}

/// The largest magnitude of a slice, NaN left out. A loop of its own: among the sums it is not vectorized.
#[inline(always)]
fn max_abs(values: &[f32]) -> f32 {
    let larger = |m: f32, v: f32| if v.abs() > m { v.abs() } else { m };
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut max = [0.0; LANES];
    for chunk in chunks {
        for lane in 0..LANES {
            max[lane] = larger(max[lane], chunk[lane]);
        }
    }
    max.iter().chain(rest).copied().fold(0.0, larger)
}
