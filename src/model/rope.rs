//! Rotary position embedding: frequencies from the config, tables from positions.
//!
//! Formulas follow transformers' `modeling_rope_utils`; frequencies and angles are
//! rounded to f32 where it rounds them, so that long positions agree.

use std::{f64::consts::PI, ops::Range};

use candle_core::{Device, Result, Tensor};

use crate::checkpoint::config::{RopeConfig, RopeScaling};

/// The rotations of a model: of positions 0, 1, 2 … of sequences of any length up to the longest of a run.
#[derive(Clone, Debug)]
pub struct RopeTables {
    /// As [`ModelConfig::ropes`](crate::checkpoint::config::ModelConfig::ropes).
    ropes: Vec<Table>,
    device: Device,
}

/// Of one rotation.
#[derive(Clone, Debug)]
enum Table {
    /// cos and sin `[positions, dims / 2]`, whatever the sequence's length.
    Fixed { cos: Tensor, sin: Tensor },
    /// Computed for each sequence.
    ByLength(RopeConfig),
}

impl RopeTables {
    /// For sequences of up to `longest` tokens.
    pub(super) fn new(ropes: &[RopeConfig], longest: usize, device: &Device) -> Result<Self> {
        let table = |config: &RopeConfig| {
            if config.depends_on_length() {
                return Ok(Table::ByLength(config.clone()));
            }
            let (cos, sin) = Rope::new(config, longest).table(0..longest, device)?;
            Ok(Table::Fixed { cos, sin })
        };
        Ok(Self { ropes: ropes.iter().map(table).collect::<Result<_>>()?, device: device.clone() })
    }

    /// cos and sin of some rows, segment by segment, for each rotation: each `[rows, dims / 2]`. Of a segment: its
    /// positions and the length of its sequence.
    pub(super) fn rows(&self, segments: &[(Range<usize>, usize)]) -> Result<Vec<(Tensor, Tensor)>> {
        let joined = |table: &Table| {
            let of_segment = |(positions, length): &(Range<usize>, usize)| match table {
                Table::Fixed { cos, sin } => Ok((
                    cos.narrow(0, positions.start, positions.len())?,
                    sin.narrow(0, positions.start, positions.len())?,
                )),
                Table::ByLength(config) => Rope::new(config, *length).table(positions.clone(), &self.device),
            };
            let (cos, sin): (Vec<_>, Vec<_>) =
                segments.iter().map(of_segment).collect::<Result<Vec<_>>>()?.into_iter().unzip();
            Ok((Tensor::cat(&cos, 0)?, Tensor::cat(&sin, 0)?))
        };
        self.ropes.iter().map(joined).collect()
    }
}

/// Inverse frequencies of one head, and the factor on cos and sin.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rope {
    /// `dims / 2` values.
    pub inverse_frequencies: Vec<f32>,
    /// 1 except for YaRN and LongRoPE.
    pub attention_factor: f64,
}

impl Rope {
    /// Frequencies for sequences of `length` tokens.
    pub(super) fn new(config: &RopeConfig, length: usize) -> Self {
        let dims = config.dims;
        let theta = match config.scaling {
            RopeScaling::Dynamic { factor, max_position_embeddings } => {
                let stretched = (length as f64).max(max_position_embeddings) / max_position_embeddings;
                let share = dims as f64 / (dims as f64 - 2.0);
                config.theta * (factor * stretched - (factor - 1.0)).powf(share)
            }
            _ => config.theta,
        };
        let plain = |i: usize| 1.0 / theta.powf((2 * i) as f64 / dims as f64);
        let scaled = |i: usize| -> f64 {
            let frequency = plain(i);
            match &config.scaling {
                RopeScaling::Default | RopeScaling::Dynamic { .. } => frequency,
                RopeScaling::Linear { factor } => frequency / factor,
                RopeScaling::Proportional { turning, factor } if i < *turning => frequency / factor,
                RopeScaling::Proportional { .. } => 0.0,
                RopeScaling::Divisors { divisors } => {
                    frequency / divisors.get(i).map_or(1.0, |divisor| f64::from(*divisor))
                }
                RopeScaling::LongRope { short, long, original_max_position_embeddings, .. } => {
                    let divisors =
                        if length as f64 > *original_max_position_embeddings { long } else { short };
                    frequency / divisors.get(i).copied().unwrap_or(1.0)
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
                        dims as f64 * (original_max_position_embeddings / (rotations * 2.0 * PI)).ln()
                            / (2.0 * theta.ln())
                    };
                    let (mut low, mut high) = (dimension(*beta_fast), dimension(*beta_slow));
                    if *truncate {
                        (low, high) = (low.floor(), high.ceil());
                    }
                    (low, high) = (low.max(0.0), high.min(dims as f64 - 1.0));
                    if low == high {
                        high += 0.001;
                    }
                    let divided = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                    divided * frequency / factor + (1.0 - divided) * frequency
                }
            }
        };
        let attention_factor = match config.scaling {
            RopeScaling::Yarn { attention_factor, .. } | RopeScaling::LongRope { attention_factor, .. } => {
                attention_factor
            }
            _ => 1.0,
        };
        Self { inverse_frequencies: (0..dims / 2).map(|i| scaled(i) as f32).collect(), attention_factor }
    }

    /// cos and sin of some positions.
    fn table(&self, positions: Range<usize>, device: &Device) -> Result<(Tensor, Tensor)> {
        let shape = (positions.len(), self.inverse_frequencies.len());
        let mut cos = Vec::with_capacity(shape.0 * shape.1);
        let mut sin = Vec::with_capacity(shape.0 * shape.1);
        for position in positions {
            for frequency in &self.inverse_frequencies {
                let angle = f64::from(position as f32 * frequency);
                cos.push((angle.cos() * self.attention_factor) as f32);
                sin.push((angle.sin() * self.attention_factor) as f32);
            }
        }
        Ok((Tensor::from_vec(cos, shape, device)?, Tensor::from_vec(sin, shape, device)?))
    }
}

/// Rotates the first channels of every head: `[n, heads, head_dim]`, with cos and sin `[n, dims / 2]`.
pub(super) fn rotate(x: &Tensor, (cos, sin): &(Tensor, Tensor)) -> Result<Tensor> {
    let (width, dims) = (x.dim(2)?, 2 * cos.dim(1)?);
    let rotated = |x: &Tensor| -> Result<Tensor> {
        candle_nn::rotary_emb::rope_thd(&x.contiguous()?.unsqueeze(0)?, cos, sin)?.squeeze(0)
    };
    if width == dims {
        return rotated(x);
    }
    Tensor::cat(&[rotated(&x.narrow(2, 0, dims)?)?, x.narrow(2, dims, width - dims)?.contiguous()?], 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rope(scaling: RopeScaling) -> Rope {
        Rope::new(&RopeConfig { theta: 10_000.0, dims: 64, scaling }, 1)
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
                dims: 16,
                scaling: RopeScaling::Yarn {
                    factor: 4.0,
                    beta_fast: 32.0,
                    beta_slow: 1.0,
                    original_max_position_embeddings: 64.0,
                    attention_factor: 1.0,
                    truncate: true,
                },
            },
            1,
        );
        for (i, share) in [0.0, 1.0 / 3.0, 2.0 / 3.0, 1.0, 1.0, 1.0, 1.0, 1.0].iter().enumerate() {
            let plain = 10_000f64.powf(-(i as f64) / 8.0);
            let expected = share * plain / 4.0 + (1.0 - share) * plain;
            assert!((f64::from(rope.inverse_frequencies[i]) - expected).abs() < 1e-7 * plain, "{i}");
        }
    }
}
