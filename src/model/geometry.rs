//! Where rows of a tile stand: in which sequence, at which position, after which others.

use std::ops::Range;

use candle_core::{Result, Tensor};

use super::rope::RopeTables;

/// A run of rows of a tile: a whole sequence, or a part that several sequences share, or one that continues such
/// a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its rows.
    pub rows: Range<usize>,
    /// Position of its first row in its sequence.
    pub first_position: usize,
    /// Tokens of its whole sequence, where rotations depend on that.
    pub length: usize,
    /// The segments of the tile that hold the positions before, first to last; empty where there are none, or
    /// where they are in a [`KvState`](super::KvState).
    pub ancestors: Vec<usize>,
}

/// Which rows of a tile belong to which sequence, and where in it they are.
#[derive(Clone, Debug)]
pub struct Geometry {
    pub(super) segments: Vec<Segment>,
    /// The rows of each segment: what is rounded together where a scheme looks at a whole request.
    pub(super) rows: Vec<Range<usize>>,
    /// cos and sin of every row, for each rotation of the model.
    pub(super) rotations: Vec<(Tensor, Tensor)>,
}

impl Geometry {
    /// For packed sequences of the given lengths, each starting at position 0 of `tables`.
    pub fn new(lengths: &[usize], tables: &RopeTables) -> Result<Self> {
        let mut start = 0;
        let segment = |length: &usize| {
            start += length;
            Segment { rows: start - length..start, first_position: 0, length: *length, ancestors: Vec::new() }
        };
        Self::of(lengths.iter().map(segment).collect(), tables)
    }

    /// For segments that follow each other without gaps.
    pub fn of(segments: Vec<Segment>, tables: &RopeTables) -> Result<Self> {
        let positions = |segment: &Segment| {
            (segment.first_position..segment.first_position + segment.rows.len(), segment.length)
        };
        let rotations = tables.rows(&segments.iter().map(positions).collect::<Vec<_>>())?;
        let rows = segments.iter().map(|segment| segment.rows.clone()).collect();
        Ok(Self { rows, segments, rotations })
    }

    /// The position of every row in its sequence.
    pub fn positions(segments: &[Segment]) -> Vec<u32> {
        let of_segment = |segment: &Segment| {
            let first = segment.first_position;
            (first..first + segment.rows.len()).map(|position| position as u32)
        };
        segments.iter().flat_map(of_segment).collect()
    }
}
