//! The optimal scalar quantizer of one coordinate of a random unit vector.
//!
//! A coordinate of a vector drawn evenly from the unit sphere in d dimensions has density ∝ (1 −
//! t²)^((d−3)/2) on [−1, 1] (arXiv 2504.19874, lemma 1). The quantizer of least mean squared error has every
//! centroid at the mean of its cell and every boundary midway between centroids (Lloyd 1957, Max 1960); for
//! this density from d = 3 on there is only one, so iterating the two conditions finds it.

/// Levels of a coordinate and what separates them, ascending.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Codebook {
    /// 2^bits values.
    pub(super) centroids: Vec<f64>,
    /// The midpoints between neighbours.
    pub(super) boundaries: Vec<f64>,
}

/// Points at which the distribution function is tabulated.
const PANELS: usize = 8192;

/// Standard deviations beyond which nothing is left of the law (e^−72).
const REACH: f64 = 12.0;

/// Passes after which the iteration ends in any case; at 4 bits it settles after about a thousand.
const MAX_PASSES: usize = 20_000;

/// The quantizer of 2^`bits` levels in `dim` ≥ 3 dimensions.
pub(super) fn codebook(dim: usize, bits: u32) -> Codebook {
    let law = HalfLaw::new(dim);
    let cells = 1usize << (bits.max(1) - 1);
    let spread = (3.0 * law.deviation).min(law.end);
    // The law is even: the positive half suffices.
    let mut centroids: Vec<f64> =
        (0..cells).map(|cell| spread * (cell as f64 + 0.5) / cells as f64).collect();
    for _ in 0..MAX_PASSES {
        let edges = edges(&centroids, law.end);
        let mut moved = 0f64;
        for (centroid, edge) in centroids.iter_mut().zip(edges.windows(2)) {
            let mean = law.mean(edge[0], edge[1]);
            moved = moved.max((mean - *centroid).abs());
            *centroid = mean;
        }
        if moved < 1e-14 * law.deviation {
            break;
        }
    }
    let negative = centroids.iter().rev().map(|centroid| -centroid);
    let centroids: Vec<f64> = negative.chain(centroids.iter().copied()).collect();
    let boundaries = centroids.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0).collect();
    Codebook { centroids, boundaries }
}

/// 0, the midpoints, the end of the law.
fn edges(centroids: &[f64], end: f64) -> Vec<f64> {
    let midpoints = centroids.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0);
    std::iter::once(0.0).chain(midpoints).chain([end]).collect()
}

/// The law on t ≥ 0, not normalized: f(t) = (1 − t²)^((d−3)/2).
struct HalfLaw {
    exponent: f64,
    /// √(1/d), the standard deviation of a coordinate.
    deviation: f64,
    /// Where the table ends: 1, or where nothing is left.
    end: f64,
    /// ∫ f from 0 to the start of each panel.
    masses: Vec<f64>,
}

impl HalfLaw {
    fn new(dim: usize) -> Self {
        let exponent = (dim as f64 - 3.0) / 2.0;
        let deviation = 1.0 / (dim as f64).sqrt();
        let mut law = Self { exponent, deviation, end: (REACH * deviation).min(1.0), masses: vec![0.0] };
        let step = law.end / PANELS as f64;
        let mut mass = 0.0;
        for panel in 0..PANELS {
            let start = panel as f64 * step;
            // Simpson's rule.
            let heights =
                law.density(start) + 4.0 * law.density(start + step / 2.0) + law.density(start + step);
            mass += heights * step / 6.0;
            law.masses.push(mass);
        }
        law
    }

    fn density(&self, t: f64) -> f64 {
        (1.0 - t * t).max(0.0).powf(self.exponent)
    }

    /// ∫ f from 0 to t: the cubic through the table that has the density as its slope.
    fn mass(&self, t: f64) -> f64 {
        let step = self.end / PANELS as f64;
        let panel = ((t / step) as usize).min(PANELS - 1);
        let start = panel as f64 * step;
        let u = (t - start) / step;
        let (left, right) = (self.masses[panel], self.masses[panel + 1]);
        let (slope_left, slope_right) = (step * self.density(start), step * self.density(start + step));
        let rise = right - left;
        left + u
            * (slope_left
                + u * (3.0 * rise - 2.0 * slope_left - slope_right
                    + u * (slope_left + slope_right - 2.0 * rise)))
    }

    /// E[t | a ≤ t < b]; ∫ t·f is −(1 − t²)^((d−1)/2)/(d − 1).
    fn mean(&self, a: f64, b: f64) -> f64 {
        let power = self.exponent + 1.0;
        let moment = |t: f64| -(1.0 - t * t).max(0.0).powf(power) / (2.0 * power);
        (moment(b) - moment(a)) / (self.mass(b) - self.mass(a))
    }
}
