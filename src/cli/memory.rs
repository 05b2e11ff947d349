//! How many tokens fit into the memory that the user allows.

use crate::{
    checkpoint::config::{FeedForward, LayerConfig, Mixer},
    model::{Decoded, Decoder},
};

/// Parses "800M", "4G", "1.5GiB" or plain bytes; suffixes are binary.
pub(super) fn parse_bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let unit = match suffix.trim().to_ascii_lowercase().trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(format!("`{suffix}` is not K, M, G or T")),
    };
    let number: f64 = number.parse().map_err(|_| format!("`{text}` is not a size; write 800M or 4G"))?;
    let bytes = number * f64::from(unit).exp2();
    if !(1.0..1e18).contains(&bytes) {
        return Err(format!("`{text}` is out of range"));
    }
    Ok(bytes as u64)
}

/// What the program itself, its tables and the allocator's slack take (measured: 45 to 60 MB).
const BASELINE_BYTES: u64 = 64 << 20;
/// Fewest tokens of a chunk: one full tile.
const SMALLEST_CHUNK: usize = 1024;

/// How many tokens to hold at once.
pub(super) struct ChunkSize {
    pub tokens: usize,
    /// What the smallest chunk needs, if that is more than was allowed.
    pub needed_bytes: Option<u64>,
}

/// Sizes the chunk: what `memory` leaves after the program itself, one decoded stage (two where weights
/// are shared) and, per core, one tile's intermediate values, divided by the bytes of a token's hidden states (all models) and reduction.
pub(super) fn chunk_tokens(memory: u64, models: &[&Decoder], reduction_bytes: usize) -> ChunkSize {
    const F32: u64 = 4;
    let stage = models.iter().map(|decoder| {
        let largest_layer: usize = (0..decoder.config.num_hidden_layers())
            .map(|layer| decoder.layer_weights(layer).map(|weight| weight.parameters()).sum())
            .max()
            .unwrap_or(0);
        largest_layer as u64 * F32
    });
    let tile = models.iter().map(|decoder| {
        let config = &decoder.config;
        let widths = 4 * config.hidden_size + config.layers.iter().map(values_within).max().unwrap_or(0);
        (widths * SMALLEST_CHUNK) as u64 * F32
    });
    let tiles = tile.max().unwrap_or(0) * rayon::current_num_threads() as u64;
    // Weights that several models share stay decoded while another model's layer runs.
    let stages = if Decoded::of(models.iter().copied()).is_needed() { 2 } else { 1 };
    let fixed = BASELINE_BYTES + stages * stage.max().unwrap_or(0) + tiles;
    let hidden: u64 = models.iter().map(|decoder| decoder.config.hidden_size as u64 * F32).sum();
    let per_token = (hidden + reduction_bytes as u64).max(1);
    let tokens = usize::try_from(memory.saturating_sub(fixed) / per_token).unwrap_or(usize::MAX);
    let needed_bytes = fixed + per_token * SMALLEST_CHUNK as u64;
    ChunkSize {
        tokens: tokens.max(SMALLEST_CHUNK),
        needed_bytes: Some(needed_bytes).filter(|needed| *needed > memory),
    }
}

/// Values that a token has inside a layer.
fn values_within(layer: &LayerConfig) -> usize {
    let mixing = match &layer.mixer {
        Mixer::Attention(attention) => 4 * attention.num_attention_heads * attention.head_dim,
        Mixer::LatentAttention(latent) => {
            let width = latent.qk_nope_head_dim + latent.qk_rope_head_dim + latent.v_head_dim;
            4 * latent.num_attention_heads * width
        }
        Mixer::GatedDeltaNet(net) => 6 * net.num_value_heads * net.value_head_dim,
    };
    let feeding = match &layer.feed_forward {
        FeedForward::Mlp(mlp) => 3 * mlp.intermediate_size,
        FeedForward::Experts(experts) => {
            let shared = experts.shared.map_or(0, |shared| shared.mlp.intermediate_size);
            3 * (experts.num_experts_per_tok * experts.expert.intermediate_size + shared)
        }
    };
    mixing + feeding
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(parse_bytes("800M"), Ok(800 << 20));
        assert_eq!(parse_bytes("4GiB"), Ok(4 << 30));
        assert_eq!(parse_bytes("1.5 gb"), Ok(3 << 29));
        assert_eq!(parse_bytes("4096"), Ok(4096));
        assert!(parse_bytes("lots").is_err());
        assert!(parse_bytes("-1G").is_err());
        assert!(parse_bytes("0").is_err());
    }
}
