//! Rotary position embedding as a config says it: base, rotated channels, scaling for long contexts.
//!
//! Definitions: transformers 5.17, `modeling_rope_utils` (both spellings, `rope_parameters` and `rope_scaling`).

use std::path::Path;

use serde_json::Value as Json;

use super::keys::Keys;
use crate::error::{Error, Result};

/// Rotary position embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeConfig {
    /// Base of the geometric sequence of frequencies.
    pub theta: f64,
    /// Channels of a head that are rotated, the first ones.
    pub dims: usize,
    /// How frequencies are changed for contexts longer than trained.
    pub scaling: RopeScaling,
}

/// Frequency scaling, as Hugging Face's `rope_type`.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// None.
    Default,
    /// Every frequency divided by `factor`.
    Linear {
        /// Divisor.
        factor: f64,
    },
    /// A larger base for sequences beyond the trained length, by their own length.
    Dynamic {
        /// How much longer.
        factor: f64,
        /// The trained length.
        max_position_embeddings: f64,
    },
    /// Llama 3.1: low frequencies divided, high ones kept, a ramp in between.
    Llama3 {
        /// Divisor of low frequencies.
        factor: f64,
        /// Wavelengths above original length / this are divided.
        low_freq_factor: f64,
        /// Wavelengths below original length / this are kept.
        high_freq_factor: f64,
        /// Context length before scaling.
        original_max_position_embeddings: f64,
    },
    /// YaRN (arXiv 2309.00071).
    Yarn {
        /// Divisor of low frequencies.
        factor: f64,
        /// Rotations above which a frequency is kept.
        beta_fast: f64,
        /// Rotations below which a frequency is divided.
        beta_slow: f64,
        /// Context length before scaling.
        original_max_position_embeddings: f64,
        /// Factor on cos and sin.
        attention_factor: f64,
        /// Whether the ramp's ends are rounded to whole dimensions.
        truncate: bool,
    },
    /// LongRoPE (arXiv 2402.13753): one list of divisors for sequences up to the original length, one for longer.
    LongRope {
        /// Divisors, one per frequency.
        short: Vec<f64>,
        /// Divisors, one per frequency.
        long: Vec<f64>,
        /// Context length before scaling.
        original_max_position_embeddings: f64,
        /// Factor on cos and sin.
        attention_factor: f64,
    },
    /// Only the first frequencies turn, over the exponents of a whole head; all divided by `factor`.
    Proportional {
        /// Frequencies that turn.
        turning: usize,
        /// Divisor.
        factor: f64,
    },
    /// Divisors, one per frequency, as llama.cpp stores Llama 3's in `rope_freqs.weight`.
    Divisors {
        /// `dims / 2` positive values.
        divisors: Vec<f32>,
    },
}

impl RopeScaling {
    /// Hugging Face's name of it.
    pub fn name(&self) -> &'static str {
        match self {
            RopeScaling::Default => "default",
            RopeScaling::Linear { .. } => "linear",
            RopeScaling::Dynamic { .. } => "dynamic",
            RopeScaling::Llama3 { .. } => "llama3",
            RopeScaling::Yarn { .. } => "yarn",
            RopeScaling::LongRope { .. } => "longrope",
            RopeScaling::Proportional { .. } => "proportional",
            RopeScaling::Divisors { .. } => "stored divisors",
        }
    }
}

impl RopeConfig {
    /// Whether frequencies depend on the length of the sequence.
    pub fn depends_on_length(&self) -> bool {
        matches!(self.scaling, RopeScaling::Dynamic { .. } | RopeScaling::LongRope { .. })
    }

    /// "theta 10000, default".
    pub(super) fn in_words(&self) -> String {
        format!("theta {}, {}", self.theta, self.scaling.name())
    }

    pub(super) fn check(&self, path: &Path) -> Result<()> {
        let expected = self.dims / 2;
        let wrong = |key: &str, found: usize| {
            let problem = format!("holds {found} divisors; {expected} positive ones are needed");
            Err(Error::key(path, key, problem, "correct the file"))
        };
        match &self.scaling {
            RopeScaling::Divisors { divisors }
                if divisors.len() != expected || !divisors.iter().all(|d| d.is_finite() && *d > 0.0) =>
            {
                wrong("rope_freqs.weight", divisors.len())
            }
            RopeScaling::LongRope { short, .. } if short.len() != expected => {
                wrong("short_factor", short.len())
            }
            RopeScaling::LongRope { long, .. } if long.len() != expected => wrong("long_factor", long.len()),
            // The exponent dims/(dims − 2) of the base.
            RopeScaling::Dynamic { .. } if self.dims <= 2 => Err(Error::key(
                path,
                "rope_type",
                "dynamic needs more than two rotated channels",
                "correct the file",
            )),
            _ => Ok(()),
        }
    }
}

/// What a family assumes where its configs are silent.
#[derive(Clone, Copy, Debug)]
pub(in crate::checkpoint) struct RopeDefaults {
    pub(in crate::checkpoint) theta: f64,
    /// Share of the channels of a head; `None`: all, whatever the config says.
    pub(in crate::checkpoint) partial_rotary_factor: Option<f64>,
    /// The context length before scaling, whatever the block says; `None`: what it says.
    pub(in crate::checkpoint) original: Option<f64>,
}

/// All channels, base 10 000.
pub(in crate::checkpoint) const WHOLE: RopeDefaults =
    RopeDefaults { theta: 10_000.0, partial_rotary_factor: None, original: None };

/// The rotation of all layers, from `rope_parameters` or the older spelling.
pub(in crate::checkpoint) fn rope(
    keys: &Keys,
    head_dim: usize,
    defaults: RopeDefaults,
) -> Result<RopeConfig> {
    let empty = Json::Object(serde_json::Map::new());
    let (name, block) = block(keys)?;
    of_block(keys, name, block.unwrap_or(&empty), head_dim, defaults)
}

/// The block that is there, under today's name or the older one.
pub(in crate::checkpoint) fn block<'a>(keys: &Keys<'a>) -> Result<(&'static str, Option<&'a Json>)> {
    // The older one wins, unless it is empty.
    let older =
        keys.get("rope_scaling").filter(|block| block.as_object().is_none_or(|block| !block.is_empty()));
    let (name, block) = match (older, keys.get("rope_parameters")) {
        (Some(block), _) => ("rope_scaling", Some(block)),
        (None, block) => ("rope_parameters", block),
    };
    match block {
        Some(block) if !block.is_object() => Err(keys.problem(name, "is not an object", "correct the file")),
        block => Ok((name, block)),
    }
}

/// The rotation that one block describes; what it leaves out stands beside it.
pub(in crate::checkpoint) fn of_block(
    keys: &Keys,
    name: &str,
    json: &Json,
    head_dim: usize,
    defaults: RopeDefaults,
) -> Result<RopeConfig> {
    let block = keys.block(json);
    let theta = match (block.positive("rope_theta")?, defaults.theta) {
        (Some(theta), _) => theta,
        (None, default) => keys.positive("rope_theta")?.unwrap_or(default),
    };
    let partial = match block.positive("partial_rotary_factor")? {
        Some(factor) => Some(factor),
        // `null` is the whole head, whatever the family assumes.
        None if keys.says("partial_rotary_factor") => {
            Some(keys.positive("partial_rotary_factor")?.unwrap_or(1.0))
        }
        None => None,
    };
    let kind = match block.get("rope_type").or(block.get("type")) {
        None => "default",
        Some(kind) => kind.as_str().unwrap_or("?"),
    };
    let dims = match (defaults.partial_rotary_factor, partial) {
        // Families that always rotate whole heads do not look at it where nothing is scaled.
        (None, Some(factor))
            if factor != 1.0 && (kind != "default" || keys.is_gguf()) && kind != "proportional" =>
        {
            return Err(keys.problem(
                "partial_rotary_factor",
                format!("{factor} is not implemented for this architecture"),
                "it rotates whole heads",
            ));
        }
        (None, _) => head_dim,
        (Some(default), given) => (head_dim as f64 * given.unwrap_or(default)) as usize,
    };
    let trained = || keys.required_positive("max_position_embeddings");
    let original = || -> Result<f64> {
        // Beside the block it goes before the one inside (Phi-3's configs).
        match keys.positive("original_max_position_embeddings")? {
            Some(length) => Ok(length),
            None => match block.positive("original_max_position_embeddings")? {
                Some(length) => Ok(length),
                None => trained(),
            },
        }
    };
    let original = || match defaults.original.filter(|_| !keys.says("original_max_position_embeddings")) {
        Some(length) if !keys.is_gguf() => Ok(length),
        _ => original(),
    };
    let scaling = match kind {
        // "mrope" turns into plain rotation where there is only text.
        "default" | "mrope" => RopeScaling::Default,
        "linear" => RopeScaling::Linear { factor: block.required_positive("factor")? },
        "dynamic" => RopeScaling::Dynamic {
            factor: block.required_positive("factor")?,
            max_position_embeddings: trained()?,
        },
        "llama3" => RopeScaling::Llama3 {
            factor: block.required_positive("factor")?,
            low_freq_factor: block.required_positive("low_freq_factor")?,
            high_freq_factor: block.required_positive("high_freq_factor")?,
            original_max_position_embeddings: original()?,
        },
        "yarn" => yarn(&block, original()?, &trained)?,
        // "su" is what Phi-3's first configs called it.
        "longrope" | "su" => longrope(&block, original()?, &trained)?,
        "proportional" => RopeScaling::Proportional {
            turning: (partial.unwrap_or(1.0) * head_dim as f64 / 2.0) as usize,
            factor: block.positive("factor")?.unwrap_or(1.0),
        },
        other => {
            return Err(keys.problem(
                name,
                format!("the rope type `{other}` is not implemented"),
                "implemented: default, linear, dynamic, llama3, yarn, longrope, proportional",
            ));
        }
    };
    Ok(RopeConfig { theta, dims, scaling })
}

/// YaRN's magnitude: 1 + 0.1·weight·ln(factor).
pub(in crate::checkpoint) fn mscale(factor: f64, weight: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * weight * factor.ln() + 1.0 }
}

fn yarn(block: &Keys, original: f64, trained: &dyn Fn() -> Result<f64>) -> Result<RopeScaling> {
    let factor = match block.positive("factor")? {
        Some(factor) => factor,
        None => trained()? / original,
    };
    let attention_factor = match block.positive("attention_factor")? {
        Some(given) => given,
        None => match (block.number("mscale")?, block.number("mscale_all_dim")?) {
            (Some(one), Some(all)) if one != 0.0 && all != 0.0 => mscale(factor, one) / mscale(factor, all),
            _ => mscale(factor, 1.0),
        },
    };
    Ok(RopeScaling::Yarn {
        factor,
        beta_fast: block.positive("beta_fast")?.unwrap_or(32.0),
        beta_slow: block.positive("beta_slow")?.unwrap_or(1.0),
        original_max_position_embeddings: original,
        attention_factor,
        truncate: block.flag("truncate")?.unwrap_or(true),
    })
}

fn longrope(block: &Keys, original: f64, trained: &dyn Fn() -> Result<f64>) -> Result<RopeScaling> {
    if original <= 1.0 {
        let problem = format!("{original} is no length of a context");
        return Err(block.problem("original_max_position_embeddings", problem, "correct the file"));
    }
    let list = |key: &str| block.positive_numbers(key)?.ok_or_else(|| block.missing(key));
    let factor = match block.positive("factor")? {
        Some(factor) => factor,
        None => trained()? / original,
    };
    let attention_factor = match block.positive("attention_factor")? {
        Some(given) => given,
        None if factor <= 1.0 => 1.0,
        None => (1.0 + factor.ln() / original.ln()).sqrt(),
    };
    Ok(RopeScaling::LongRope {
        short: list("short_factor")?,
        long: list("long_factor")?,
        original_max_position_embeddings: original,
        attention_factor,
    })
}
