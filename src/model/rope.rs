//! Rotary position embedding: frequencies from the config, tables from positions.
//!
//! Formulas follow transformers' `modeling_rope_utils`; frequencies and angles are
//! rounded to f32 where it rounds them, so that long positions agree.

use std::f64::consts::PI;

use candle_core::{Device, Result, Tensor};

use crate::checkpoint::config::{RopeConfig, RopeScaling};

/// cos and sin of positions 0, 1, 2 …, each `[positions, head_dim / 2]` f32.
#[derive(Clone, Debug)]
pub struct RopeTables {
    pub(super) cos: Tensor,
    pub(super) sin: Tensor,
}

/// Inverse frequencies of one head, and the factor on cos and sin.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rope {
    /// `head_dim / 2` values.
    pub inverse_frequencies: Vec<f32>,
    /// 1 except for YaRN.
    pub attention_factor: f64,
}

impl Rope {
    /// Frequencies for a head of `head_dim`.
    pub(super) fn new(config: &RopeConfig, head_dim: usize) -> Self {
        let plain = |i: usize| 1.0 / config.theta.powf((2 * i) as f64 / head_dim as f64);
        let scaled = |i: usize| -> f64 {
            let frequency = plain(i);
            match &config.scaling {
                RopeScaling::Default => frequency,
                RopeScaling::Linear { factor } => frequency / factor,
                RopeScaling::Divisors { divisors } => {
                    frequency / divisors.get(i).map_or(1.0, |divisor| f64::from(*divisor))
                }
                RopeScaling::Llama3 {
                    factor,
                    low_freq_factor,
                    high_freq_factor,
                    original_max_position_embeddings,
                } => {
                    let wavelength = 2.0 * PI / frequency;
                    let rotations = original_max_position_embeddings / wavelength;
                    if rotations < *low_freq_factor {
                        frequency / factor
                    } else if rotations > *high_freq_factor {
                        frequency
                    } else {
                        let kept = (rotations - low_freq_factor) / (high_freq_factor - low_freq_factor);
                        (1.0 - kept) * frequency / factor + kept * frequency
                    }
                }
                RopeScaling::Yarn {
                    factor,
                    beta_fast,
                    beta_slow,
                    original_max_position_embeddings,
                    truncate,
                    ..
                } => {
                    // The dimension whose frequency makes `rotations` turns over the original context.
                    let dimension = |rotations: f64| {
                        head_dim as f64 * (original_max_position_embeddings / (rotations * 2.0 * PI)).ln()
                            / (2.0 * config.theta.ln())
                    };
                    let (mut low, mut high) = (dimension(*beta_fast), dimension(*beta_slow));
                    if *truncate {
                        (low, high) = (low.floor(), high.ceil());
                    }
                    (low, high) = (low.max(0.0), high.min(head_dim as f64 - 1.0));
                    if low == high {
                        high += 0.001;
                    }
                    let divided = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                    divided * frequency / factor + (1.0 - divided) * frequency
                }
            }
        };
        let attention_factor = match config.scaling {
            RopeScaling::Yarn { attention_factor, .. } => attention_factor,
            _ => 1.0,
        };
        Self { inverse_frequencies: (0..head_dim / 2).map(|i| scaled(i) as f32).collect(), attention_factor }
    }

    /// Tables of the first `length` positions.
    pub(super) fn tables(&self, length: usize, device: &Device) -> Result<RopeTables> {
        let shape = (length, self.inverse_frequencies.len());
        let mut cos = Vec::with_capacity(shape.0 * shape.1);
        let mut sin = Vec::with_capacity(shape.0 * shape.1);
        for position in 0..length {
            for frequency in &self.inverse_frequencies {
                let angle = f64::from(position as f32 * frequency);
                cos.push((angle.cos() * self.attention_factor) as f32);
                sin.push((angle.sin() * self.attention_factor) as f32);
            }
        }
        Ok(RopeTables {
            cos: Tensor::from_vec(cos, shape, device)?,
            sin: Tensor::from_vec(sin, shape, device)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rope(scaling: RopeScaling) -> Rope {
        Rope::new(&RopeConfig { theta: 10_000.0, scaling }, 64)
    }

    #[test]
    fn linear_divides_every_frequency() {
        let (plain, linear) = (rope(RopeScaling::Default), rope(RopeScaling::Linear { factor: 4.0 }));
        for (a, b) in plain.inverse_frequencies.iter().zip(&linear.inverse_frequencies) {
            assert_eq!(a / 4.0, *b);
        }
    }

    #[test]
    fn llama3_keeps_high_and_divides_low_frequencies() {
        let scaled = rope(RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192.0,
        });
        let plain = rope(RopeScaling::Default);
        let ratio = |i: usize| plain.inverse_frequencies[i] / scaled.inverse_frequencies[i];
        // Turns over 8192 positions: dimension 0 has 1303, dimension 31 has 0.17.
        assert_eq!(ratio(0), 1.0);
        assert!((ratio(31) - 8.0).abs() < 1e-5);
        for i in 1..32 {
            assert!((1.0..=8.00001).contains(&ratio(i)) && ratio(i) >= ratio(i - 1) * 0.999_999);
        }
    }

    #[test]
    fn yarn_equals_transformers() {
        // transformers 5.17, `_compute_yarn_parameters`: head_dim 16, theta 10000, factor 4, original 64;
        // the ramp runs from dimension floor(16·ln(64/64π)/2ln1e4)→0 to ceil(16·ln(64/2π)/2ln1e4)=3.
        let rope = Rope::new(
            &RopeConfig {
                theta: 10_000.0,
                scaling: RopeScaling::Yarn {
                    factor: 4.0,
                    beta_fast: 32.0,
                    beta_slow: 1.0,
                    original_max_position_embeddings: 64.0,
                    attention_factor: 1.0,
                    truncate: true,
                },
            },
            16,
        );
        for (i, share) in [0.0, 1.0 / 3.0, 2.0 / 3.0, 1.0, 1.0, 1.0, 1.0, 1.0].iter().enumerate() {
            let plain = 10_000f64.powf(-(i as f64) / 8.0);
            let expected = share * plain / 4.0 + (1.0 - share) * plain;
            assert!((f64::from(rope.inverse_frequencies[i]) - expected).abs() < 1e-7 * plain, "{i}");
        }
    }
}
