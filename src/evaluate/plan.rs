//! Packing: requests into tiles, tiles into chunks.
//!
//! A tile is a few sequences that go through a layer in one product; a chunk is what is held in memory at once.
//! Neighbouring requests that begin alike share the rows of what they share: a tile is a forest of segments.
//! Which requests are probed is drawn here, from the seed alone, so that it does not depend on `--memory`.

use super::sampling::mix;
use crate::{model::Segment, suite::Request};

/// Tokens of one tile, unless a single sequence is longer: enough rows for the GEMM's full speed,
/// few enough that a tile's intermediate values stay small.
const TILE_TOKENS: usize = 1024;
/// A tile may grow to so many times what its last two requests share, so that a long prompt that many requests
/// share costs at most a quarter more than if it were computed once.
const TILES_OF_SHARED: usize = 4;
/// Fewest tokens worth sharing: each segment costs an attention of its own.
const SHORTEST_SHARED: usize = 4;

/// A run of tokens of a tile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Where it lies and what comes before it.
    pub segment: Segment,
    /// A request that holds it, at the positions from `segment.first_position` on.
    pub request: usize,
}

/// A few sequences, packed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tile {
    /// Indices of the requests, in order.
    pub requests: Vec<usize>,
    /// The run that ends each of them.
    pub leaves: Vec<usize>,
    /// In the order of their rows, without gaps.
    pub runs: Vec<Run>,
    /// Whether the layer probes look at this tile.
    pub probed: bool,
}

/// What is held in memory at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Its tiles; a tile holds either only probed requests or none.
    pub tiles: Vec<Tile>,
}

/// How to pack.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packing {
    /// Most tokens of a chunk (a longer request is a chunk of its own).
    pub chunk_tokens: usize,
    /// Bounds the sample of probed requests: whole requests, drawn with `seed`, until it is reached; `None` probes
    /// everything, 0 nothing.
    pub probe_tokens: Option<usize>,
    /// Only so many of the first requests may be probed.
    pub probe_requests: usize,
    /// Whether requests may share rows.
    pub share: bool,
    /// Of the sample.
    pub seed: u64,
}

impl Tile {
    /// Rows.
    pub(super) fn tokens(&self) -> usize {
        self.runs.last().map_or(0, |run| run.segment.rows.end)
    }

    /// The ids of all rows.
    pub(super) fn ids(&self, requests: &[Request]) -> Vec<u32> {
        let ids = |run: &Run| {
            let first = run.segment.first_position;
            requests[run.request].tokens[first..first + run.segment.rows.len()].iter().copied()
        };
        self.runs.iter().flat_map(ids).collect()
    }

    /// The segments alone.
    pub(super) fn segments(&self) -> Vec<Segment> {
        self.runs.iter().map(|run| run.segment.clone()).collect()
    }

    /// Of each run, how many tokens it has and how many come before it.
    pub(super) fn lengths(&self) -> impl Iterator<Item = (usize, usize)> {
        self.runs.iter().map(|run| (run.segment.rows.len(), run.segment.first_position))
    }

    /// The row of a position of the tile's `member`-th request.
    pub(super) fn row(&self, member: usize, position: usize) -> usize {
        let leaf = &self.runs[self.leaves[member]].segment;
        let holder = |segment: &&Segment| segment.first_position <= position;
        let segment = std::iter::once(leaf)
            .chain(leaf.ancestors.iter().rev().map(|index| &self.runs[*index].segment))
            .find(holder)
            .unwrap_or(leaf);
        segment.rows.start + position - segment.first_position
    }

    /// Adds a request whose first `shared` tokens are also the last request's, of which `read` are read at all.
    fn push(&mut self, index: usize, read: usize, shared: usize) {
        let ancestors = self.path(shared);
        let from = ancestors.last().map_or(0, |last| self.runs[*last].end());
        self.requests.push(index);
        match ancestors.last() {
            // Nothing of its own: it ends within what is there.
            Some(last) if from >= read => self.leaves.push(*last),
            _ => {
                let rows = self.tokens()..self.tokens() + read - from;
                self.leaves.push(self.runs.len());
                let segment = Segment { rows, first_position: from, length: read, ancestors };
                self.runs.push(Run { segment, request: index });
            }
        }
    }

    /// The runs that hold the first `shared` tokens of the last request, or somewhat less where that saves a split.
    fn path(&mut self, shared: usize) -> Vec<usize> {
        let Some(leaf) = self.leaves.last().copied() else { return Vec::new() };
        let mut path = self.runs[leaf].segment.ancestors.clone();
        path.push(leaf);
        let inside = path.partition_point(|index| self.runs[*index].end() <= shared);
        if let Some(straddling) = path.get(inside).copied() {
            let kept = shared.saturating_sub(self.runs[straddling].segment.first_position);
            path.truncate(inside);
            if kept >= SHORTEST_SHARED {
                self.split(straddling, kept);
                path.push(straddling);
            }
        }
        path
    }

    /// Cuts a run in two, after its first `kept` rows; who continued it continues its second part.
    fn split(&mut self, index: usize, kept: usize) {
        let mut second = self.runs[index].clone();
        second.segment.rows.start += kept;
        second.segment.first_position += kept;
        second.segment.ancestors.push(index);
        self.runs[index].segment.rows.end = second.segment.rows.start;
        self.runs.insert(index + 1, second);
        for run in &mut self.runs[index + 2..] {
            let ancestors = &mut run.segment.ancestors;
            ancestors.iter_mut().filter(|ancestor| **ancestor > index).for_each(|ancestor| *ancestor += 1);
            if let Some(at) = ancestors.iter().position(|ancestor| *ancestor == index) {
                ancestors.insert(at + 1, index + 1);
            }
        }
        self.leaves.iter_mut().filter(|leaf| **leaf >= index).for_each(|leaf| *leaf += 1);
    }
}

impl Run {
    /// The position after its last.
    fn end(&self) -> usize {
        self.segment.first_position + self.segment.rows.len()
    }
}

impl Chunk {
    /// Rows of all tiles.
    pub(super) fn tokens(&self) -> usize {
        self.tiles.iter().map(Tile::tokens).sum()
    }
}

/// Packs all requests, in order.
pub(super) fn plan(requests: &[Request], packing: Packing) -> Vec<Chunk> {
    let probed = probed_requests(requests, packing);
    let mut chunks = Vec::new();
    // One open tile for probed requests, one for the others.
    let mut open = [Tile::default(), Tile::default()];
    let mut chunk = Chunk::default();
    for (index, request) in requests.iter().enumerate() {
        // The last token is only ever a target; it is read where layers are probed, and where a scheme looks at a
        // whole request.
        let all = probed[index] || !packing.share;
        let read = request.tokens.len() - usize::from(!all && request.tokens.len() > 1);
        let which = usize::from(!probed[index]);
        let shared_with = |tile: &Tile| match tile.requests.last() {
            Some(last) if packing.share => common(&requests[*last].tokens, &request.tokens[..read]),
            _ => 0,
        };
        let shared = shared_with(&open[which]);
        let held = chunk.tokens() + open.iter().map(Tile::tokens).sum::<usize>();
        if held > 0 && held + read - shared > packing.chunk_tokens {
            close(&mut chunk, &mut open);
            chunks.push(std::mem::take(&mut chunk));
        }
        let tile = &mut open[which];
        let shared = shared.min(if tile.requests.is_empty() { 0 } else { usize::MAX });
        let largest = TILE_TOKENS.max(TILES_OF_SHARED * shared);
        if !tile.requests.is_empty() && tile.tokens() + read - shared > largest {
            chunk.tiles.push(std::mem::take(tile));
        }
        let tile = &mut open[which];
        tile.probed = probed[index];
        // What lies in the tile may end earlier: the last request's last token may not have been read.
        let shared = tile.leaves.last().map_or(0, |leaf| shared.min(tile.runs[*leaf].end()));
        tile.push(index, read, shared);
    }
    close(&mut chunk, &mut open);
    if !chunk.tiles.is_empty() {
        chunks.push(chunk);
    }
    chunks
}

/// Moves the open tiles into the chunk, probed ones first.
fn close(chunk: &mut Chunk, open: &mut [Tile; 2]) {
    chunk.tiles.extend(open.iter_mut().map(std::mem::take).filter(|tile| !tile.requests.is_empty()));
    chunk.tiles.sort_by_key(|tile| !tile.probed);
}

/// Tokens that both begin with.
fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

fn probed_requests(requests: &[Request], packing: Packing) -> Vec<bool> {
    let candidates = packing.probe_requests.min(requests.len());
    let mut probed = vec![false; requests.len()];
    let Some(wanted) = packing.probe_tokens else {
        probed[..candidates].fill(true);
        return probed;
    };
    let mut order: Vec<usize> = (0..candidates).collect();
    // A hash of (seed, index) as sort key is a seeded permutation that needs no state.
    order.sort_by_key(|index| (mix(packing.seed ^ mix(*index as u64)), *index));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn request(tokens: Vec<u32>) -> Request {
        let length = tokens.len();
        Request { task: 0, document: 0, window: 0, tokens, scored: 1..length, bytes: vec![1; length - 1] }
    }

    /// Sequences that have nothing in common.
    fn requests(lengths: &[usize]) -> Vec<Request> {
        let first = |index: usize, token: usize| (index * 10_000 + token) as u32;
        let of = |(index, length): (usize, &usize)| request((0..*length).map(|t| first(index, t)).collect());
        lengths.iter().enumerate().map(of).collect()
    }

    fn packing(chunk_tokens: usize, probe_tokens: Option<usize>, seed: u64) -> Packing {
        Packing { chunk_tokens, probe_tokens, probe_requests: usize::MAX, share: true, seed }
    }

    /// Every position of every request lies in the row of its token, and sees exactly the tokens before it.
    fn assert_faithful(requests: &[Request], chunks: &[Chunk]) {
        let mut seen = Vec::new();
        for tile in chunks.iter().flat_map(|chunk| &chunk.tiles) {
            let ids = tile.ids(requests);
            assert_eq!(ids.len(), tile.tokens());
            for (member, index) in tile.requests.iter().enumerate() {
                seen.push(*index);
                let tokens = &requests[*index].tokens;
                for position in 0..tokens.len() - 1 {
                    let row = tile.row(member, position);
                    let run = tile.runs.iter().find(|run| run.segment.rows.contains(&row)).unwrap();
                    let ancestors =
                        run.segment.ancestors.iter().map(|index| tile.runs[*index].segment.rows.clone());
                    let before: Vec<u32> = ancestors
                        .chain(std::iter::once(run.segment.rows.start..row + 1))
                        .flatten()
                        .map(|row| ids[row])
                        .collect();
                    assert_eq!(before, tokens[..=position], "request {index}, position {position}");
                }
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..requests.len()).collect::<Vec<_>>());
    }

    #[test]
    fn every_request_is_in_exactly_one_tile_and_chunks_keep_their_size() {
        let requests = requests(&[512, 30, 700, 2000, 512, 512, 5, 64]);
        for (chunk_tokens, probe) in [(1, None), (1024, Some(600)), (100_000, Some(0)), (2048, Some(1 << 40))]
        {
            let chunks = plan(&requests, packing(chunk_tokens, probe, 7));
            assert_faithful(&requests, &chunks);
            for chunk in &chunks {
                let members: usize = chunk.tiles.iter().map(|t| t.requests.len()).sum();
                assert!(chunk.tokens() <= chunk_tokens || members == 1);
                assert!(chunk.tiles.iter().all(|tile| tile.runs.len() == tile.requests.len()));
            }
        }
    }

    #[test]
    fn what_neighbours_share_is_computed_once() {
        // A prompt of 50 tokens, questions of 10, four answers of 6 each, two of which begin alike.
        let prompt: Vec<u32> = (0..50).collect();
        let mut all = Vec::new();
        for question in 0..30u32 {
            for answer in 0..4u32 {
                let question_tokens = (0..10).map(|t| 1000 + question * 20 + t);
                let answer_tokens =
                    (0..6).map(|t| if t < 5 { 5000 + answer / 2 * 7 + t } else { 6000 + answer });
                all.push(request(
                    prompt.iter().copied().chain(question_tokens).chain(answer_tokens).collect(),
                ));
            }
        }
        let chunks = plan(&all, packing(1 << 20, Some(0), 0));
        assert_faithful(&all, &chunks);
        // Per question 10 tokens and two different answers of 5 read tokens; the others end in the same rows.
        let tokens: usize = chunks.iter().map(Chunk::tokens).sum();
        assert_eq!(tokens, 50 + 30 * (10 + 2 * 5));
        let apart = Packing { share: false, ..packing(1 << 20, Some(0), 0) };
        let chunks = plan(&all, apart);
        assert_faithful(&all, &chunks);
        assert_eq!(chunks.iter().map(Chunk::tokens).sum::<usize>(), 120 * 66);
    }

    #[test]
    fn any_forest_is_faithful() {
        // Random walks over few tokens: prefixes are shared at every depth, splits happen inside split runs.
        let mut state = 1u64;
        let mut next = |below: u64| {
            state = mix(state);
            state % below
        };
        for round in 0..200 {
            let mut tokens: Vec<u32> = vec![1, 2, 3];
            let mut all = Vec::new();
            for _ in 0..20 {
                tokens.truncate(1 + next(tokens.len() as u64) as usize);
                let more = 1 + next(12);
                tokens.extend((0..more).map(|_| next(3) as u32));
                if tokens.len() > 1 {
                    all.push(request(tokens.clone()));
                }
            }
            let probe = [Some(0), None, Some(40)][round % 3];
            assert_faithful(&all, &plan(&all, packing([1 << 20, 30, 100][round / 3 % 3], probe, 3)));
        }
    }

    #[test]
    fn the_probe_sample_depends_on_the_seed_alone() {
        let requests = requests(&[100; 50]);
        let sample = |chunk_tokens, seed| {
            let mut probed: Vec<usize> = plan(&requests, packing(chunk_tokens, Some(950), seed))
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
