//! Debiased linear centred kernel alignment of two representations of the same n samples.
//!
//! CKA(K, L) = HSIC₁(K, L) / √(HSIC₁(K, K) · HSIC₁(L, L)) (Kornblith et al. 2019, arXiv 1905.00414) with the
//! unbiased estimator HSIC₁ of Song et al. 2012 (JMLR 13:1393), as Nguyen et al. 2020 (arXiv 2010.15327) use
//! it: the usual estimator drifts towards 1 when the width is not small against n. HSIC₁ is evaluated as the
//! mean product of U-centred entries (Székely and Rizzo 2014, doi 10.1214/14-AOS1255), which is the same
//! number without its cancellations. It knows nothing of layers: whoever calls has the Gram matrices.

/// Debiased linear CKA from two n × n Gram matrices, row-major: K = X·Xᵀ with the n samples as rows of X.
///
/// 1 for the same representation up to rotation and scale, about 0 for independent ones (it may be slightly
/// negative: it is unbiased). `None` where it does not exist: fewer than 4 samples, or a representation
/// that does not vary (HSIC₁(K, K) is 0 to rounding), or a NaN or ∞. O(n²).
///
/// # Panics
/// If a slice does not hold n² numbers.
pub fn debiased_cka(n: usize, base_gram: &[f64], quant_gram: &[f64]) -> Option<f64> {
    assert!(base_gram.len() == n * n && quant_gram.len() == n * n, "two square matrices");
    if n < 4 {
        return None;
    }
    let (base, quant) = (UCentered::new(n, base_gram), UCentered::new(n, quant_gram));
    let [mut both, mut base_alone, mut quant_alone, mut base_raw, mut quant_raw] = [0.0; 5];
    for row in 0..n {
        for column in (0..n).filter(|&column| column != row) {
            let (k, l) = (base.entry(row, column), quant.entry(row, column));
            both += k * l;
            base_alone += k * k;
            quant_alone += l * l;
            base_raw += base_gram[row * n + column].powi(2);
            quant_raw += quant_gram[row * n + column].powi(2);
        }
    }
    // What centring leaves of a constant is rounding, about 1e-15 of each entry: no variation to compare.
    if base_alone <= 1e-26 * base_raw || quant_alone <= 1e-26 * quant_raw {
        return None;
    }
    // The factor 1/(n(n−3)) of each HSIC₁ cancels.
    let cka = both / (base_alone.sqrt() * quant_alone.sqrt());
    cka.is_finite().then_some(cka)
}

/// A Gram matrix with its diagonal left out and its rows and columns centred so that they sum to zero.
struct UCentered<'a> {
    n: usize,
    gram: &'a [f64],
    /// Mean of each row without the diagonal, over n − 2 as U-centring has it.
    rows: Vec<f64>,
    /// Sum of all off-diagonal entries over (n−1)(n−2).
    all: f64,
}

impl<'a> UCentered<'a> {
    fn new(n: usize, gram: &'a [f64]) -> Self {
        let sums: Vec<f64> = gram
            .chunks_exact(n)
            .enumerate()
            .map(|(i, row)| row[..i].iter().chain(&row[i + 1..]).sum::<f64>())
            .collect();
        let m = n as f64;
        let all = sums.iter().sum::<f64>() / ((m - 1.0) * (m - 2.0));
        let rows = sums.into_iter().map(|sum| sum / (m - 2.0)).collect();
        Self { n, gram, rows, all }
    }

    fn entry(&self, row: usize, column: usize) -> f64 {
        self.gram[row * self.n + column] - self.rows[row] - self.rows[column] + self.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Song's estimator as printed: K̃ and L̃ with zero diagonals,
    /// [tr K̃L̃ + 1ᵀK̃1·1ᵀL̃1/((n−1)(n−2)) − 2·1ᵀK̃L̃1/(n−2)] / (n(n−3)).
    fn song_hsic(n: usize, k: &[f64], l: &[f64]) -> f64 {
        let off = |gram: &[f64], i: usize, j: usize| if i == j { 0.0 } else { gram[i * n + j] };
        let (mut trace, mut product, mut sum_k, mut sum_l) = (0.0, 0.0, 0.0, 0.0);
        for i in 0..n {
            for j in 0..n {
                trace += off(k, i, j) * off(l, j, i);
                sum_k += off(k, i, j);
                sum_l += off(l, i, j);
                product += (0..n).map(|m| off(k, i, m) * off(l, m, j)).sum::<f64>();
            }
        }
        let m = n as f64;
        (trace + sum_k * sum_l / ((m - 1.0) * (m - 2.0)) - 2.0 * product / (m - 2.0)) / (m * (m - 3.0))
    }

    fn song_cka(n: usize, k: &[f64], l: &[f64]) -> f64 {
        song_hsic(n, k, l) / (song_hsic(n, k, k) * song_hsic(n, l, l)).sqrt()
    }

    /// Roughly normal features, n × width, and their Gram matrix.
    fn features(seed: u64, n: usize, width: usize) -> Vec<f64> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut uniform = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1u64 << 53) as f64 - 0.5
        };
        (0..n * width).map(|_| (0..12).map(|_| uniform()).sum()).collect()
    }

    fn gram(n: usize, x: &[f64]) -> Vec<f64> {
        let width = x.len() / n;
        let row = |i: usize| &x[i * width..(i + 1) * width];
        let dot = |i: usize, j: usize| row(i).iter().zip(row(j)).map(|(a, b)| a * b).sum::<f64>();
        (0..n * n).map(|at| dot(at / n, at % n)).collect()
    }

    #[test]
    fn is_songs_estimator() {
        for (n, width, other) in [(4, 3, 2), (9, 5, 30), (25, 64, 8)] {
            let x = features(1, n, width);
            let mixed: Vec<f64> = features(2, n, other);
            let y: Vec<f64> = (0..n * other).map(|at| x[at / other * width] + mixed[at]).collect();
            let (k, l) = (gram(n, &x), gram(n, &y));
            let expected = song_cka(n, &k, &l);
            assert!((debiased_cka(n, &k, &l).unwrap() - expected).abs() < 1e-12);
        }
    }

    #[test]
    fn a_representation_agrees_with_itself() {
        let k = gram(20, &features(3, 20, 7));
        assert!((debiased_cka(20, &k, &k).unwrap() - 1.0).abs() < 1e-15);
    }

    /// Turned by a Givens rotation of every neighbouring pair of features, and scaled.
    #[test]
    fn rotation_and_scale_change_nothing() {
        let (n, width) = (30, 6);
        let x = features(4, n, width);
        let rotated: Vec<f64> = x
            .chunks_exact(width)
            .flat_map(|row| {
                let mut row = row.to_vec();
                for at in 0..width - 1 {
                    let (sin, cos) = (0.3 + at as f64).sin_cos();
                    let (a, b) = (row[at], row[at + 1]);
                    row[at] = cos * a - sin * b;
                    row[at + 1] = sin * a + cos * b;
                }
                row.iter().map(|v| v * 3.0).collect::<Vec<f64>>()
            })
            .collect();
        let cka = debiased_cka(n, &gram(n, &x), &gram(n, &rotated)).unwrap();
        assert!((cka - 1.0).abs() < 1e-12);
    }

    /// Width 200 over 60 samples, where the biased estimator would call them closely related.
    #[test]
    fn independent_features_are_unrelated() {
        let (n, width) = (60, 200);
        let values: Vec<f64> = (0..20)
            .map(|seed| {
                let k = gram(n, &features(100 + seed, n, width));
                let l = gram(n, &features(200 + seed, n, width));
                debiased_cka(n, &k, &l).unwrap()
            })
            .collect();
        let mean = values.iter().sum::<f64>() / 20.0;
        assert!(values.iter().all(|v| v.abs() < 0.1), "{values:?}");
        assert!(mean.abs() < 0.02, "{mean}");
    }

    #[test]
    fn what_does_not_exist_is_none() {
        let k = gram(3, &features(5, 3, 4));
        assert_eq!(debiased_cka(3, &k, &k), None);
        assert_eq!(debiased_cka(0, &[], &[]), None);
        for constant in [0.0, 1.0, 0.1, -7e30] {
            assert_eq!(debiased_cka(5, &[constant; 25], &[constant; 25]), None);
        }
        assert_eq!(debiased_cka(5, &gram(5, &features(7, 5, 4)), &[0.1; 25]), None);
        let mut broken = gram(5, &features(6, 5, 4));
        broken[7] = f64::NAN;
        assert_eq!(debiased_cka(5, &broken, &broken), None);
    }
}
