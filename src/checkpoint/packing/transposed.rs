//! Integer codes stored `[in, out]`, outputs across: what GPTQ and AWQ have in common.
//!
//! Both write `qweight`, `qzeros` and `scales`; W[o, i] = scales[g, o]·(q[i, o] − z[g, o]) with g the group of input i.
//! GPTQ packs neighbouring inputs into a word, AWQ neighbouring outputs. A row of the matrix lies scattered over the
//! whole file, so a tile of rows is unpacked at once: its words are gathered first, then every row is one stream. The
//! arithmetic is that of [`super::affine`].

use std::{ops::Range, sync::Arc};

use safetensors::Dtype;

use super::{
    TensorView, Tensors,
    affine::{Affine, Codes, Groups, Offset, PerGroup, Value},
    checks::FLOATS,
    codes::{BitLayout, unpack},
    grid::{Grid, Sound},
};
use crate::{
    checkpoint::weight::{RowSource, StoredBytes},
    error::Result,
};

/// What a word packs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// A stream of codes down the inputs, first code lowest.
    Gptq,
    /// Eight 4-bit codes of neighbouring outputs, in the order of [`AWQ_NIBBLE`].
    Awq,
}

/// The nibble of a word that holds output 8c + j of word column c: AutoAWQ's order 0 2 4 6 1 3 5 7, inverted.
const AWQ_NIBBLE: [u32; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

/// The three tensors of a module, their types and column counts agreeing with one layout.
pub(super) struct Found<'a> {
    pub(super) layout: Layout,
    pub(super) qweight: TensorView<'a>,
    pub(super) qzeros: TensorView<'a>,
    pub(super) scales: TensorView<'a>,
    /// Rows of the matrix.
    pub(super) outputs: usize,
    /// Rows of `scales`.
    pub(super) groups: usize,
}

const ANOTHER_TOOL: &str =
    "the file is damaged, or written by a tool that packs in another way; GPTQ and AWQ (GEMM) are decoded";

/// The tensors of a module that has a `qweight`.
///
/// # Errors
/// A companion that is missing, types or shapes that fit neither layout.
pub(super) fn find<'a>(tensors: &Tensors<'a>, module: &str) -> Result<Option<Found<'a>>> {
    let Some(qweight) = tensors.get(&format!("{module}.qweight")) else { return Ok(None) };
    let scales = tensors.require(&format!("{module}.scales"), "a qweight has scales")?;
    let qzeros = tensors.require(&format!("{module}.qzeros"), "a qweight has zero points")?;
    if qweight.dtype == Dtype::I16 {
        let problem = "is of 16-bit words, as version gemv_fast of AWQ; only version gemm is decoded";
        return Err(qweight.problem(problem, "write the checkpoint again as version gemm"));
    }
    for (view, dtypes) in [
        (qweight, [Dtype::I32, Dtype::U32].as_slice()),
        (qzeros, [Dtype::I32, Dtype::U32].as_slice()),
        (scales, FLOATS),
    ] {
        if view.shape.len() != 2 || view.shape.contains(&0) {
            let problem = format!("has shape {:?}, expected two dimensions", view.shape);
            return Err(view.problem(problem, ANOTHER_TOOL));
        }
        view.expect(view.shape, dtypes)?;
    }
    let (words, outputs) = (qweight.shape[1], scales.shape[1]);
    let layout = if words == outputs {
        Layout::Gptq
    } else if words.checked_mul(8) == Some(outputs) {
        Layout::Awq
    } else if scales.shape[0] == qweight.shape[0] {
        let problem = format!(
            "has one row per row of qweight ({}), as version gemv of AWQ; only version gemm is decoded",
            scales.shape[0]
        );
        return Err(scales.problem(problem, "write the checkpoint again as version gemm"));
    } else {
        let problem = format!(
            "has {outputs} columns, expected {words} (GPTQ) or {} (AWQ) to fit qweight of shape {:?}",
            words.saturating_mul(8),
            qweight.shape
        );
        return Err(scales.problem(problem, ANOTHER_TOOL));
    };
    let groups = scales.shape[0];
    if qzeros.shape[0] != groups {
        let problem = format!("has {} rows, expected {groups}, one per row of scales", qzeros.shape[0]);
        return Err(qzeros.problem(problem, ANOTHER_TOOL));
    }
    Ok(Some(Found { layout, qweight, qzeros, scales, outputs, groups }))
}

/// Inputs that share a scale, neighbours, `groups` times; `stated` decides where the last group may be short.
///
/// # Errors
/// As a message: no size of groups gives so many.
pub(super) fn group_size(inputs: usize, groups: usize, stated: &[usize]) -> Result<usize, String> {
    if let Some(size) = stated.iter().find(|size| inputs.div_ceil(**size) == groups) {
        return Ok((*size).min(inputs));
    }
    if inputs.is_multiple_of(groups) {
        return Ok(inputs / groups);
    }
    let stated = match stated.first() {
        Some(size) => format!("{} for groups of {size}", inputs.div_ceil(*size)),
        None => format!("a divisor of {inputs}"),
    };
    Err(format!("has {groups} rows for {inputs} inputs, expected {stated}"))
}

/// The rows of a matrix. `bits`, `inputs` and `groups` were derived from the shapes of `found` and agree with them;
/// `less_one`: zero points are stored less one.
///
/// # Errors
/// Scales that are no table of `[groups, out]`.
pub(super) fn rows(
    found: &Found,
    bits: u32,
    inputs: usize,
    groups: Groups,
    less_one: bool,
) -> Result<Arc<dyn RowSource>> {
    let (layout, outputs) = (found.layout, found.outputs);
    let zeros =
        Zeros { layout, bits, less_one, stored: found.qzeros.stored(), row_bytes: 4 * found.qzeros.shape[1] };
    Ok(Arc::new(Affine {
        columns: inputs,
        groups,
        codes: Arc::new(Words { layout, bits, outputs, stored: found.qweight.stored() }),
        value: Value::Integer(bits),
        scales: Arc::new(Scales(Grid::new(&found.scales, found.groups, outputs, Sound::NotZero)?)),
        offset: Offset::Zeros(Arc::new(zeros)),
        sliced: None,
    }))
}

/// `scales`.
#[derive(Debug)]
struct Scales(Grid);

impl PerGroup for Scales {
    fn rows(&self, rows: Range<usize>, groups: usize, out: &mut [f32]) -> Result<()> {
        let mut of_group = vec![0.0; rows.len()];
        for group in 0..groups {
            self.0.read(group, rows.clone(), &mut of_group)?;
            for (out, scale) in out[group..].iter_mut().step_by(groups).zip(&of_group) {
                *out = *scale;
            }
        }
        Ok(())
    }

    fn release(&self) {
        self.0.release();
    }
}

/// `qzeros`.
#[derive(Debug)]
struct Zeros {
    layout: Layout,
    bits: u32,
    less_one: bool,
    stored: StoredBytes,
    /// Of one group.
    row_bytes: usize,
}

impl PerGroup for Zeros {
    fn rows(&self, rows: Range<usize>, groups: usize, out: &mut [f32]) -> Result<()> {
        for (group, words) in self.stored.bytes().chunks_exact(self.row_bytes).take(groups).enumerate() {
            for (out, row) in out[group..].iter_mut().step_by(groups).zip(rows.clone()) {
                *out = stored_zero(self.layout, self.bits, self.less_one, words.as_chunks().0, row) as f32;
            }
        }
        Ok(())
    }

    fn release(&self) {
        self.stored.release();
    }
}

/// Zero point of an output, from its group's row of `qzeros`.
///
/// One is added back as it was taken away: from the whole word, so that a borrow between fields is undone (GPTQModel's
/// conversion between its formats, and AutoRound's sum of shifted fields). Three bits cross words; there GPTQModel
/// counts every field for itself.
fn stored_zero(layout: Layout, bits: u32, less_one: bool, words: &[[u8; 4]], output: usize) -> u32 {
    let word = |at: usize| words.get(at).map_or(0, |word| u32::from_le_bytes(*word));
    let mask = (1 << bits) - 1;
    if layout == Layout::Awq {
        return word(output / 8) >> (4 * AWQ_NIBBLE[output % 8]) & mask;
    }
    let (at, shift) = (output * bits as usize / 32, output * bits as usize % 32);
    if bits == 3 {
        let field = (u64::from(word(at)) | u64::from(word(at + 1)) << 32) >> shift;
        return (field as u32).wrapping_add(u32::from(less_one)) & mask;
    }
    // One in every field: 0x1111_1111 for four bits.
    let ones = u32::MAX / mask;
    word(at).wrapping_add(if less_one { ones } else { 0 }) >> shift & mask
}

/// `qweight`.
#[derive(Debug)]
struct Words {
    layout: Layout,
    bits: u32,
    outputs: usize,
    stored: StoredBytes,
}

/// Rows unpacked together: the words of 16 neighbouring rows are one cache line of a GPTQ file.
const TILE: usize = 16;

/// Inputs unpacked at once, so that the words of a tile stay in the first-level cache. A multiple of 32: codes of any
/// width then begin with a word.
const STRETCH: usize = 1024;

impl Words {
    /// The words of a tile for some inputs, a stream for each row (GPTQ) or for each column of words (AWQ).
    fn gather(&self, rows: &Range<usize>, inputs: &Range<usize>, streams: &mut [[u8; 4]], stride: usize) {
        let bits = self.bits as usize;
        let (width, columns, lines) = match self.layout {
            Layout::Gptq => (self.outputs, rows.clone(), inputs.start * bits / 32..inputs.end * bits / 32),
            Layout::Awq => (self.outputs / 8, rows.start / 8..rows.end.div_ceil(8), inputs.clone()),
        };
        let words: &[[u8; 4]] = self.stored.bytes().as_chunks().0;
        let lines = words[lines.start * width..lines.end * width].chunks_exact(width);
        // Every line lies on another page, where no hardware prefetches: asking for all of them first lets the misses
        // overlap, which doubles the speed of the whole.
        let touched = lines.clone().fold(0, |touched, line| touched ^ line[columns.start][0]);
        std::hint::black_box(touched);
        for (at, line) in lines.enumerate() {
            for (stream, word) in streams[at..].iter_mut().step_by(stride).zip(&line[columns.clone()]) {
                *stream = *word;
            }
        }
    }
}

impl Codes for Words {
    fn rows(&self, rows: Range<usize>, columns: usize, out: &mut [u8]) {
        let mut streams = vec![[0; 4]; TILE * STRETCH.min(columns) * self.bits.max(4) as usize / 32];
        let mut first = rows.start;
        let mut rest = out;
        while first < rows.end {
            // Tiles end at multiples of their size, so that no word of AWQ is gathered twice.
            let tile = first..(first + TILE - first % TILE).min(rows.end);
            let (out, behind) = std::mem::take(&mut rest).split_at_mut(tile.len() * columns);
            (first, rest) = (tile.end, behind);
            for start in (0..columns).step_by(STRETCH) {
                let inputs = start..(start + STRETCH).min(columns);
                let stride = match self.layout {
                    Layout::Gptq => inputs.len() * self.bits as usize / 32,
                    Layout::Awq => inputs.len(),
                };
                self.gather(&tile, &inputs, &mut streams, stride);
                for (row, out) in out.chunks_exact_mut(columns).enumerate() {
                    let (codes, output) = (&mut out[inputs.clone()], tile.start + row);
                    let stream = match self.layout {
                        Layout::Gptq => row,
                        Layout::Awq => output / 8 - tile.start / 8,
                    };
                    let words = &streams[stream * stride..(stream + 1) * stride];
                    match self.layout {
                        Layout::Gptq => unpack(self.bits, BitLayout::Dense, words.as_flattened(), codes),
                        Layout::Awq => {
                            let shift = 4 * AWQ_NIBBLE[output % 8];
                            pulp::Arch::new().dispatch(Nibbles { words, shift, codes });
                        }
                    }
                }
            }
        }
    }

    fn release(&self) {
        self.stored.release();
    }
}

/// One nibble of every word.
struct Nibbles<'a> {
    words: &'a [[u8; 4]],
    shift: u32,
    codes: &'a mut [u8],
}

impl pulp::WithSimd for Nibbles<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        for (code, word) in self.codes.iter_mut().zip(self.words) {
            *code = (u32::from_le_bytes(*word) >> (self.shift & 31)) as u8 & 15;
        }
    }
}

/// Name for reports: "int4 g128", "int8 channel".
pub(super) fn label(bits: u32, groups: usize, group: usize) -> String {
    match groups {
        1 => format!("int{bits} channel"),
        _ => format!("int{bits} g{group}"),
    }
}
