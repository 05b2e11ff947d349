//! Packing: requests into tiles, tiles into chunks.
//!
//! A tile is a few whole sequences that go through a layer in one product; a
//! chunk is what is held in memory at once. Which requests are probed is drawn
//! here, from the seed alone, so that it does not depend on `--memory`.

use crate::suite::Request;

/// Tokens of one tile, unless a single sequence is longer: enough rows for the GEMM's full speed,
/// few enough that a tile's intermediate values stay small.
const TILE_TOKENS: usize = 1024;

/// A few whole sequences, packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    /// Indices of the requests, in order.
    pub requests: Vec<usize>,
    /// Lengths of their sequences.
    pub lengths: Vec<usize>,
    /// Whether the layer probes look at this tile.
    pub probed: bool,
}

/// What is held in memory at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Its tiles; a tile holds either only probed requests or none.
    pub tiles: Vec<Tile>,
}

impl Tile {
    /// Tokens of all sequences.
    pub(super) fn tokens(&self) -> usize {
        self.lengths.iter().sum()
    }
}

impl Chunk {
    /// Tokens of all tiles.
    pub(super) fn tokens(&self) -> usize {
        self.tiles.iter().map(Tile::tokens).sum()
    }
}

/// Packs all requests, in order, into chunks of at most `chunk_tokens` (a longer request is a chunk of its own).
///
/// `probe_tokens` bounds the sample of probed requests: whole requests, drawn with `seed`, until it is
/// reached; `None` probes everything, 0 nothing.
pub(super) fn plan(
    requests: &[Request],
    chunk_tokens: usize,
    probe_tokens: Option<usize>,
    seed: u64,
) -> Vec<Chunk> {
    let probed = probed_requests(requests, probe_tokens, seed);
    let mut chunks = Vec::new();
    let mut first = 0;
    while first < requests.len() {
        let mut tokens = requests[first].tokens.len();
        let mut end = first + 1;
        while end < requests.len() && tokens + requests[end].tokens.len() <= chunk_tokens {
            tokens += requests[end].tokens.len();
            end += 1;
        }
        let members = |wanted: bool| (first..end).filter(|i| probed[*i] == wanted).collect::<Vec<_>>();
        let mut tiles = tiles(requests, &members(true), true);
        tiles.extend(self::tiles(requests, &members(false), false));
        chunks.push(Chunk { tiles });
        first = end;
    }
    chunks
}

fn tiles(requests: &[Request], members: &[usize], probed: bool) -> Vec<Tile> {
    let mut tiles: Vec<Tile> = Vec::new();
    for index in members {
        let length = requests[*index].tokens.len();
        match tiles.last_mut().filter(|tile| tile.tokens() + length <= TILE_TOKENS) {
            Some(tile) => {
                tile.requests.push(*index);
                tile.lengths.push(length);
            }
            None => tiles.push(Tile { requests: vec![*index], lengths: vec![length], probed }),
        }
    }
    tiles
}

fn probed_requests(requests: &[Request], probe_tokens: Option<usize>, seed: u64) -> Vec<bool> {
    let Some(wanted) = probe_tokens else { return vec![true; requests.len()] };
    let mut order: Vec<usize> = (0..requests.len()).collect();
    // A hash of (seed, index) as sort key is a seeded permutation that needs no state.
    order.sort_by_key(|index| (split_mix(seed ^ split_mix(*index as u64)), *index));
    let mut probed = vec![false; requests.len()];
    let mut tokens = 0;
    for index in order {
        if tokens >= wanted {
            break;
        }
        probed[index] = true;
        tokens += requests[index].tokens.len();
    }
    probed
}

/// SplitMix64's output function (Steele, Lea and Flood 2014).
fn split_mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(lengths: &[usize]) -> Vec<Request> {
        let request = |length: &usize| Request {
            task: 0,
            document: 0,
            window: 0,
            tokens: vec![0; *length],
            scored: 1..*length,
            bytes: vec![1; length - 1],
        };
        lengths.iter().map(request).collect()
    }

    #[test]
    fn every_request_is_in_exactly_one_tile_and_chunks_keep_their_size() {
        let requests = requests(&[512, 30, 700, 2000, 512, 512, 5, 64]);
        for (chunk_tokens, probe) in [(1, None), (1024, Some(600)), (100_000, Some(0)), (2048, Some(1 << 40))]
        {
            let chunks = plan(&requests, chunk_tokens, probe, 7);
            let mut seen: Vec<usize> =
                chunks.iter().flat_map(|c| &c.tiles).flat_map(|t| t.requests.clone()).collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..requests.len()).collect::<Vec<_>>());
            for chunk in &chunks {
                let members: usize = chunk.tiles.iter().map(|t| t.requests.len()).sum();
                assert!(chunk.tokens() <= chunk_tokens || members == 1);
            }
        }
    }

    #[test]
    fn the_probe_sample_depends_on_the_seed_alone() {
        let requests = requests(&[100; 50]);
        let sample = |chunk_tokens, seed| {
            let mut probed: Vec<usize> = plan(&requests, chunk_tokens, Some(950), seed)
                .iter()
                .flat_map(|c| &c.tiles)
                .filter(|t| t.probed)
                .flat_map(|t| t.requests.clone())
                .collect();
            probed.sort_unstable();
            probed
        };
        assert_eq!(sample(100, 1), sample(5000, 1));
        assert_eq!(sample(5000, 1).len(), 10);
        assert_ne!(sample(5000, 1), sample(5000, 2));
    }
}
