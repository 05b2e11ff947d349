//! TurboQuant (arXiv 2504.19874): rotate at random, then quantize every coordinate by the same optimal
//! quantizer.
//!
//! For a unit vector, y = Π·x has coordinates of a known law whatever x is; each goes to the nearest of 2^b
//! Lloyd-Max centroids, and x̂ = Πᵀ·c (algorithm 1, MSE form). A vector of another length is divided by its
//! norm ‖x‖, which is stored beside it and multiplied back. The inner-product form (algorithm 2) spends b − 1
//! bits so and the last one on the residual r = x − x̂: x̂ + ‖r‖·√(π/2)/d·Sᵀ·sign(S·r), S Gaussian (QJL),
//! which estimates ⟨y, x⟩ without bias.
//!
//! What the paper leaves open, and is chosen here:
//!
//! - Norms are stored in f16, one of x and in the inner-product form one of r, largest 65504. r is taken from
//!   x̂ as stored, so that the rounded norm adds no bias.
//! - Π and S are the same for all layers and heads, one of each for keys and one for values.
//! - Fractional bits: an instance for a head's outlier channels and one for the others. The paper's 2.5 gives
//!   32 of 128 channels one bit more, which is 2.25 bits a channel; with the two norms it is 2.5. The same
//!   quarter is used for 3.5, whose ratio the paper does not give.
//! - Outliers are, per head, the quarter of the channels with the largest norm over the first 32 tokens of
//!   the request, for keys and for values alike. (The paper refers to QJL, whose code picks them by the same
//!   norm for every 32 tokens.) These tokens stay as computed until the 32nd is there; from then on every
//!   token is stored at once.

use std::{
    collections::BTreeMap,
    f64::consts::PI,
    sync::{Arc, Mutex, PoisonError},
};

use rayon::prelude::*;

use super::{
    Part,
    lloyd_max::{self, Codebook},
    random_matrix::{LANES, Matrix, padded},
    round_f16,
};

/// Smallest dimension whose law the quantizer is made for.
const MIN_DIM: usize = 8;

/// Largest head; a rotation holds the square of it.
const MAX_DIM: usize = 1024;

/// Tokens that decide which channels are outliers.
const PROMPT: usize = 32;

/// One outlier channel in so many.
const OUTLIER_SHARE: usize = 4;

/// Bits of one stored norm.
const NORM_BITS: f64 = 16.0;

/// What the seed of every matrix is made from: the paper's number.
const SEED: u64 = 250_419_874;

/// Bits of a coordinate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurboBits {
    /// 2 everywhere.
    Two,
    /// 3 for the outlier channels, 2 for the others.
    TwoAndHalf,
    /// 3 everywhere.
    Three,
    /// 4 for the outlier channels, 3 for the others.
    ThreeAndHalf,
    /// 4 everywhere.
    Four,
}

/// Which error TurboQuant makes small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurboForm {
    /// ‖x − x̂‖² (algorithm 1).
    Mse,
    /// That of inner products, without bias (algorithm 2).
    InnerProduct,
}

/// Which channels of a head an instance is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Channels {
    All,
    Outliers,
    Others,
}

impl TurboBits {
    fn has_outliers(self) -> bool {
        matches!(self, TurboBits::TwoAndHalf | TurboBits::ThreeAndHalf)
    }

    /// Bits of a coordinate outside the outliers.
    fn regular(self) -> u32 {
        match self {
            TurboBits::Two | TurboBits::TwoAndHalf => 2,
            TurboBits::Three | TurboBits::ThreeAndHalf => 3,
            TurboBits::Four => 4,
        }
    }
}

/// Why heads of this size cannot be stored.
pub(super) fn problem(bits: TurboBits, head_dim: usize) -> Option<String> {
    let (least, divisor) =
        if bits.has_outliers() { (OUTLIER_SHARE * MIN_DIM, OUTLIER_SHARE) } else { (MIN_DIM, 1) };
    let fits = (least..=MAX_DIM).contains(&head_dim) && head_dim.is_multiple_of(divisor);
    (!fits).then(|| {
        format!("rotates heads of {least} to {MAX_DIM} values, a multiple of {divisor}, but head_dim is {head_dim}")
    })
}

/// Codes and norms. The one list of outlier channels per head does not grow.
pub(super) fn bits_per_value(bits: TurboBits, form: TurboForm, head_dim: usize) -> f64 {
    let outliers = if bits.has_outliers() { 1.0 / OUTLIER_SHARE as f64 } else { 0.0 };
    let instances = if bits.has_outliers() { 2.0 } else { 1.0 };
    let norms = match form {
        TurboForm::Mse => 1.0,
        TurboForm::InnerProduct => 2.0,
    };
    f64::from(bits.regular()) + outliers + instances * norms * NORM_BITS / head_dim as f64
}

/// Everything at once, except that fractional bits first wait for the tokens that decide about outliers.
pub(super) fn stored_before(bits: TurboBits, query: usize) -> usize {
    if bits.has_outliers() && query + 1 < PROMPT { 0 } else { query + 1 }
}

/// Replaces heads by what the cache returns.
pub(super) fn store(
    part: Part,
    values: &mut [f32],
    heads: usize,
    head_dim: usize,
    bits: TurboBits,
    form: TurboForm,
) {
    if !bits.has_outliers() {
        let quantizer = Quantizer::shared(part, Channels::All, head_dim, bits.regular(), form);
        let every: Vec<usize> = (0..head_dim).collect();
        values
            .par_chunks_mut(VECTORS * head_dim)
            .for_each(|vectors| quantizer.store(vectors, head_dim, &[&every]));
        return;
    }
    if values.len() / (heads * head_dim) < PROMPT {
        return;
    }
    let count = head_dim / OUTLIER_SHARE;
    let orders: Vec<Vec<usize>> =
        (0..heads).map(|head| channels_by_norm(values, heads, head_dim, head, count)).collect();
    let outliers: Vec<&[usize]> = orders.iter().map(|order| &order[..count]).collect();
    let others: Vec<&[usize]> = orders.iter().map(|order| &order[count..]).collect();
    let outlier_quantizer = Quantizer::shared(part, Channels::Outliers, count, bits.regular() + 1, form);
    let other_quantizer = Quantizer::shared(part, Channels::Others, head_dim - count, bits.regular(), form);
    // Whole tokens, so that a vector's head is known from its place.
    values.par_chunks_mut(VECTORS.div_ceil(heads) * heads * head_dim).for_each(|vectors| {
        outlier_quantizer.store(vectors, head_dim, &outliers);
        other_quantizer.store(vectors, head_dim, &others);
    });
}

/// The channels of a head: first its `count` outliers, then the others, each in their order.
pub(super) fn channels_by_norm(
    values: &[f32],
    heads: usize,
    head_dim: usize,
    head: usize,
    count: usize,
) -> Vec<usize> {
    let mut energies = vec![0f64; head_dim];
    for token in values.chunks_exact(heads * head_dim).take(PROMPT) {
        for (energy, x) in energies.iter_mut().zip(&token[head * head_dim..]) {
            *energy += f64::from(*x).powi(2);
        }
    }
    let mut order: Vec<usize> = (0..head_dim).collect();
    // Stable: of equals, the lower channel first.
    order.sort_by(|a, b| energies[*b].total_cmp(&energies[*a]));
    order[..count].sort_unstable();
    order[count..].sort_unstable();
    order
}

/// Head vectors that one thread takes at once.
const VECTORS: usize = 64;

/// One instance of TurboQuant.
#[derive(Debug)]
pub(super) struct Quantizer {
    dim: usize,
    centroids: Vec<f32>,
    boundaries: Vec<f32>,
    rotation: Matrix,
    /// S, in the inner-product form.
    sketch: Option<Matrix>,
}

type Key = (Part, Channels, usize, u32, bool);

/// Quantizers made so far; a run needs a handful.
static MADE: Mutex<BTreeMap<Key, Arc<Quantizer>>> = Mutex::new(BTreeMap::new());

impl Quantizer {
    /// The instance for these channels, made at first use.
    pub(super) fn shared(
        part: Part,
        channels: Channels,
        dim: usize,
        bits: u32,
        form: TurboForm,
    ) -> Arc<Self> {
        let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
        let quantizer =
            made.entry((part, channels, dim, bits, form == TurboForm::InnerProduct)).or_insert_with(|| {
                // One bit of the inner-product form is the sketch's.
                let coordinate_bits = if form == TurboForm::InnerProduct { bits - 1 } else { bits };
                let codebook = lloyd_max::codebook(dim, coordinate_bits);
                Arc::new(Self::new(seed(part, channels, dim), dim, &codebook, form))
            });
        Arc::clone(quantizer)
    }

    /// An instance for vectors of `dim` values, whose matrices the seed decides.
    pub(super) fn new(seed: u64, dim: usize, codebook: &Codebook, form: TurboForm) -> Self {
        let single = |values: &[f64]| values.iter().map(|value| *value as f32).collect();
        Self {
            dim,
            centroids: single(&codebook.centroids),
            boundaries: single(&codebook.boundaries),
            rotation: Matrix::orthogonal(dim, seed),
            sketch: (form == TurboForm::InnerProduct).then(|| Matrix::gaussian(dim, !seed)),
        }
    }

    /// Replaces the given channels of vectors of `head_dim` values; vector i has the channels of list i
    /// modulo lists.
    pub(super) fn store(&self, vectors: &mut [f32], head_dim: usize, channels: &[&[usize]]) {
        let stride = padded(self.dim);
        let mut packed = vec![0.0; vectors.len() / head_dim * stride];
        for ((vector, packed), channels) in
            vectors.chunks_exact(head_dim).zip(packed.chunks_exact_mut(stride)).zip(channels.iter().cycle())
        {
            for (packed, channel) in packed.iter_mut().zip(*channels) {
                *packed = vector[*channel];
            }
        }
        self.replace(&mut packed);
        for ((vector, packed), channels) in
            vectors.chunks_exact_mut(head_dim).zip(packed.chunks_exact(stride)).zip(channels.iter().cycle())
        {
            for (packed, channel) in packed.iter().zip(*channels) {
                vector[*channel] = *packed;
            }
        }
    }

    /// Replaces padded vectors.
    fn replace(&self, vectors: &mut [f32]) {
        struct Replace<'a> {
            quantizer: &'a Quantizer,
            vectors: &'a mut [f32],
        }

        impl pulp::WithSimd for Replace<'_> {
            type Output = ();

            #[inline(always)]
            fn with_simd<S: pulp::Simd>(self, _: S) {
                self.quantizer.replace_vectorized(self.vectors);
            }
        }

        pulp::Arch::new().dispatch(Replace { quantizer: self, vectors });
    }

    #[inline(always)]
    fn replace_vectorized(&self, vectors: &mut [f32]) {
        let stride = padded(self.dim);
        let mut unit = vectors.to_vec();
        let mut norms = Vec::with_capacity(vectors.len() / stride);
        for vector in unit.chunks_exact_mut(stride) {
            let (norm, stored) = norm(vector);
            let inverse = if stored == 0.0 { 0.0 } else { (1.0 / norm) as f32 };
            for x in vector {
                *x *= inverse;
            }
            norms.push(stored);
        }
        let mut rotated = vec![0.0; vectors.len()];
        self.rotation.times(&unit, &mut rotated);
        for lanes in rotated.as_chunks_mut().0 {
            *lanes = self.nearest(lanes);
        }
        let mut stored = unit;
        self.rotation.transposed_times(&rotated, &mut stored);
        for (vector, norm) in stored.chunks_exact_mut(stride).zip(&norms) {
            for x in vector {
                *x *= norm;
            }
        }
        if let Some(sketch) = &self.sketch {
            add_sketched_residual(sketch, self.dim, vectors, &mut stored, &mut rotated);
        }
        vectors.copy_from_slice(&stored);
    }

    /// The centroids nearest to coordinates.
    #[inline(always)]
    fn nearest(&self, y: &[f32; LANES]) -> [f32; LANES] {
        let mut nearest = [self.centroids[0]; LANES];
        // Copied out first: a conditional load would not vectorize.
        for (boundary, centroid) in self.boundaries.iter().copied().zip(self.centroids[1..].iter().copied()) {
            for lane in 0..LANES {
                nearest[lane] = if y[lane] > boundary { centroid } else { nearest[lane] };
            }
        }
        nearest
    }

    /// Π, S and the levels, for naive computations.
    #[cfg(test)]
    pub(super) fn parts(&self) -> (&Matrix, Option<&Matrix>, &[f32]) {
        (&self.rotation, self.sketch.as_ref(), &self.centroids)
    }
}

/// Adds QJL's estimate of x − stored to `stored`; `scratch` is as long.
#[inline(always)]
fn add_sketched_residual(sketch: &Matrix, dim: usize, x: &[f32], stored: &mut [f32], scratch: &mut [f32]) {
    let stride = padded(dim);
    let mut residual: Vec<f32> = x.iter().zip(&*stored).map(|(x, stored)| x - stored).collect();
    let scale = ((PI / 2.0).sqrt() / dim as f64) as f32;
    let factors: Vec<f32> = residual.chunks_exact(stride).map(|residual| norm(residual).1 * scale).collect();
    sketch.times(&residual, scratch);
    for s in &mut *scratch {
        *s = if *s >= 0.0 { 1.0 } else { -1.0 };
    }
    sketch.transposed_times(scratch, &mut residual);
    for ((stored, estimate), factor) in
        stored.chunks_exact_mut(stride).zip(residual.chunks_exact(stride)).zip(factors)
    {
        for (stored, estimate) in stored.iter_mut().zip(estimate) {
            *stored += factor * estimate;
        }
    }
}

/// ‖x‖, and as stored: f16, at most its largest; NaN if x is not finite.
#[inline(always)]
fn norm(vector: &[f32]) -> (f64, f32) {
    const LARGEST: f64 = 65504.0;
    let mut sums = [0f64; 8];
    for lanes in vector.as_chunks::<8>().0 {
        for lane in 0..8 {
            let x = f64::from(lanes[lane]);
            sums[lane] += x * x;
        }
    }
    let norm = sums.iter().sum::<f64>().sqrt();
    let stored = if norm.is_finite() { round_f16(norm.min(LARGEST) as f32) } else { f32::NAN };
    (norm, stored)
}

/// Another matrix for each use.
fn seed(part: Part, channels: Channels, dim: usize) -> u64 {
    SEED.wrapping_add(1_000_003 * dim as u64 + 10 * channels as u64 + part as u64)
}
