//! bitsandbytes: NF4 and FP4 (arXiv 2305.14314), with and without double quantization, and LLM.int8 (arXiv 2208.07339).
//!
//! 4 bits: `weight`, two codes to a byte, high nibble first, running over the flattened matrix; `weight.quant_map`
//! F32 `[16]`; `weight.absmax`, one value for each block of the flattened matrix; what remains as JSON in
//! `weight.quant_state.bitsandbytes__nf4` (or `fp4`). `w = quant_map[q]·absmax`, then rounded to the `dtype` of the
//! JSON. Double quantization: `absmax = nested_quant_map[u8]·nested_absmax + nested_offset`.
//! 8 bits: `weight` I8 and `SCB` F32 `[out]`: w = q·SCB/127. Layout of bitsandbytes 0.50.

use std::{fmt, ops::Range, sync::Arc};

use half::{f16, slice::HalfFloatSliceExt};
use safetensors::Dtype;
use serde::Deserialize;

use super::{
    Kind, Packed, Packing, TensorView, Tensors,
    affine::{Affine, ByteRows, GridRows, Groups, Offset, Value},
    checks::{FLOATS, matrix_shape},
    grid::{Factor, Grid, Sound},
    warnings::contradiction,
};
use crate::{
    checkpoint::{
        activations::ActivationQuantization,
        quantization::Quantization,
        weight::{RowSource, StoredBytes},
    },
    error::Result,
};

/// bitsandbytes.
pub(super) const KIND: Kind =
    Kind { methods: &["bitsandbytes"], prepare: |_, settings| Ok(Box::new(BitsAndBytes::read(settings)?)) };

#[derive(Debug)]
struct BitsAndBytes {
    threshold: f32,
    double: Option<bool>,
}

/// `llm_int8_threshold` where the settings do not say: transformers' BitsAndBytesConfig.
const DEFAULT_THRESHOLD: f32 = 6.0;

impl BitsAndBytes {
    fn read(settings: Option<&Quantization>) -> Result<Self> {
        const KEY: &str = "llm_int8_threshold";
        let mut threshold = DEFAULT_THRESHOLD;
        if let Some((settings, value)) = settings.and_then(|settings| Some((settings, settings.get(KEY)?))) {
            threshold = value.as_f64().map_or(f32::NAN, |value| value as f32);
            if !(threshold.is_finite() && threshold >= 0.0) {
                let problem = format!("is {value}, expected a number that is not negative");
                return Err(settings.problem(KEY, problem, "its usual value is 6.0"));
            }
        }
        let double = settings.and_then(|settings| settings.get("bnb_4bit_use_double_quant")?.as_bool());
        Ok(Self { threshold, double })
    }
}

impl Packing for BitsAndBytes {
    fn matrix(&self, tensors: &Tensors, module: &str) -> Result<Option<Packed>> {
        if let Some(scale) = tensors.get(&format!("{module}.SCB")) {
            return int8(tensors, module, &scale, self.threshold).map(Some);
        }
        let map = tensors.get(&format!("{module}.weight.quant_map"));
        let state = ["nf4", "fp4"].into_iter().find_map(|kind| {
            Some((kind, tensors.get(&format!("{module}.weight.quant_state.bitsandbytes__{kind}"))?))
        });
        match (state, map) {
            (Some((kind, state)), _) => self.four_bits(tensors, module, kind, &state).map(Some),
            (None, Some(_)) => {
                let name = format!("{module}.weight.quant_state.bitsandbytes__nf4");
                tensors.require(&name, "a quant_map has a quant_state (nf4 or fp4)").map(|_| None)
            }
            (None, None) => Ok(None),
        }
    }
}

/// What the JSON of a 4-bit matrix holds.
#[derive(Debug, Deserialize)]
struct QuantState {
    blocksize: usize,
    shape: Vec<usize>,
    dtype: String,
    nested_blocksize: Option<usize>,
    nested_offset: Option<f64>,
}

/// Far more than the JSON needs.
const MAX_STATE_BYTES: usize = 1 << 16;

/// As bitsandbytes' kernels accept them.
const BLOCK_SIZES: [usize; 8] = [32, 64, 128, 256, 512, 1024, 2048, 4096];

const WRITE_AGAIN: &str = "the file is damaged: download it, or quantize the original, again";

impl QuantState {
    fn read(view: &TensorView) -> Result<Self> {
        view.expect(view.shape, &[Dtype::U8])?;
        let stored = view.stored();
        let text = stored.bytes();
        if text.len() > MAX_STATE_BYTES {
            let problem = format!("is {} bytes long; its JSON is never that long", text.len());
            return Err(view.problem(problem, WRITE_AGAIN));
        }
        let state: Self = serde_json::from_slice(text)
            .map_err(|reason| view.problem(format!("is not the JSON expected: {reason}"), WRITE_AGAIN))?;
        if !BLOCK_SIZES.contains(&state.blocksize) {
            let problem = format!("says blocksize {}, expected one of {BLOCK_SIZES:?}", state.blocksize);
            return Err(view.problem(problem, WRITE_AGAIN));
        }
        Ok(state)
    }
}

/// What decoded weights are rounded to, as `dequantize_4bit` returns them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rounding {
    F32,
    F16,
    Bf16,
}

impl BitsAndBytes {
    fn four_bits(&self, tensors: &Tensors, module: &str, kind: &str, state: &TensorView) -> Result<Packed> {
        let part = |name: &str| format!("{module}.weight{name}");
        let require = |name: &str| tensors.require(&part(name), "a 4-bit weight of bitsandbytes has one");
        let (weight, map, absmax) = (require("")?, require(".quant_map")?, require(".absmax")?);
        let QuantState { blocksize, shape, dtype, nested_blocksize, nested_offset } =
            QuantState::read(state)?;
        let [rows, columns] = *shape else {
            return Err(state.problem(format!("says shape {shape:?}, expected [out, in]"), WRITE_AGAIN));
        };
        let shape = matrix_shape(state, rows, Some(columns))?;
        let rounding = match dtype.trim_start_matches("torch.") {
            "float32" => Rounding::F32,
            "float16" => Rounding::F16,
            "bfloat16" => Rounding::Bf16,
            other => {
                let problem = format!("says dtype {other}, expected float32, float16 or bfloat16");
                return Err(state.problem(problem, WRITE_AGAIN));
            }
        };
        let codes = weight.stored();
        // Whatever type the bytes are stored as (quant_storage), they are the same bytes.
        let weights = rows * columns;
        if codes.bytes().len() != weights.div_ceil(2) {
            return Err(weight.problem(
                format!("has {} bytes, expected {} for {shape:?}", codes.bytes().len(), weights.div_ceil(2)),
                WRITE_AGAIN,
            ));
        }
        let mut table = [0.0; 16];
        map.expect(&[16], FLOATS)?;
        Grid::new(&map, 1, 16, Sound::Finite)?.read(0, 0..16, &mut table)?;
        let mut warnings = Vec::new();
        let mut used = vec![weight.name, absmax.name, map.name, state.name];
        let blocks = weights.div_ceil(blocksize);
        let double = absmax.dtype == Dtype::U8;
        let absmax = if double {
            let (nested, nested_map) = (require(".nested_absmax")?, require(".nested_quant_map")?);
            used.extend([nested.name, nested_map.name]);
            let (Some(size), Some(offset)) = (nested_blocksize.filter(|size| *size > 0), nested_offset)
            else {
                return Err(state.problem("says no nested_blocksize and nested_offset", WRITE_AGAIN));
            };
            absmax.expect(&[blocks], &[Dtype::U8])?;
            if !(offset as f32).is_finite() {
                return Err(state.problem(format!("says nested_offset {offset}"), WRITE_AGAIN));
            }
            let outer = blocks.div_ceil(size);
            nested_map.expect(&[256], FLOATS)?;
            nested.expect(&[outer], FLOATS)?;
            let (mut map, mut scales) = (vec![0.0; 256], vec![0.0; outer]);
            Grid::new(&nested_map, 1, 256, Sound::Finite)?.read(0, 0..256, &mut map)?;
            Grid::new(&nested, 1, outer, Sound::Finite)?.read(0, 0..outer, &mut scales)?;
            Absmax::Nested { codes: absmax.stored(), map, scales, size, offset: offset as f32 }
        } else if absmax.shape.len() == 2 && columns.is_multiple_of(blocksize) {
            warnings.push(format!(
                "{module}: absmax was stored transposed, as {:?}: a matrix saved after bitsandbytes' CPU path had \
                 used it; its scales may have been rounded on the way",
                absmax.dtype
            ));
            let across = columns / blocksize;
            absmax.expect(&[across, rows], FLOATS)?;
            Absmax::Transposed { values: Grid::new(&absmax, across, rows, Sound::Finite)?, across }
        } else {
            absmax.expect(&[blocks], FLOATS)?;
            Absmax::Plain(Grid::new(&absmax, 1, blocks, Sound::Finite)?)
        };
        if let Some(stated) = self.double.filter(|stated| *stated != double) {
            let name = |double| if double { "double quantization" } else { "no double quantization" };
            warnings.push(contradiction(module, name(stated), name(double)));
        }
        let nested = if double { " double-quantized" } else { "" };
        Ok(Packed {
            shape,
            encoding: format!("{} g{blocksize}{nested}", kind.to_uppercase()),
            source: Arc::new(FourBits {
                codes,
                absmax,
                pairs: Pairs::new(&table),
                blocksize,
                columns,
                rounding,
            }),
            tensors: used.into_iter().map(str::to_owned).collect(),
            input: None,
            output: None,
            warnings,
        })
    }
}

/// The largest magnitude of each block.
#[derive(Debug)]
enum Absmax {
    Plain(Grid),
    /// `[in/blocksize, out]` instead of one after the other.
    Transposed {
        values: Grid,
        across: usize,
    },
    Nested {
        codes: StoredBytes,
        map: Vec<f32>,
        scales: Vec<f32>,
        size: usize,
        offset: f32,
    },
}

impl Absmax {
    fn read(&self, blocks: Range<usize>, out: &mut [f32]) -> Result<()> {
        match self {
            Absmax::Plain(values) => values.read(0, blocks, out),
            Absmax::Transposed { values, across } => {
                blocks.zip(out.chunks_mut(1)).try_for_each(|(block, out)| {
                    let row = block / across;
                    values.read(block % across, row..row + 1, out)
                })
            }
            Absmax::Nested { codes, map, scales, size, offset } => {
                let codes = &codes.bytes()[blocks.clone()];
                for ((block, code), out) in blocks.zip(codes).zip(out) {
                    *out = map[usize::from(*code)] * scales[block / size] + offset;
                }
                Ok(())
            }
        }
    }

    fn release(&self) {
        match self {
            Absmax::Plain(values) | Absmax::Transposed { values, .. } => values.release(),
            Absmax::Nested { codes, .. } => codes.release(),
        }
    }
}

/// The two entries of the map that each byte stands for. A byte is looked up whole: 256 pairs stay in the first-level
/// cache and yield two weights at once.
struct Pairs([[f32; 2]; 256]);

impl fmt::Debug for Pairs {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Pairs")
    }
}

impl Pairs {
    fn new(map: &[f32; 16]) -> Self {
        Self(std::array::from_fn(|byte| [map[byte >> 4], map[byte & 15]]))
    }

    #[inline(always)]
    fn of(&self, byte: u8) -> [f32; 2] {
        self.0[usize::from(byte)]
    }
}

#[derive(Debug)]
struct FourBits {
    codes: StoredBytes,
    absmax: Absmax,
    pairs: Pairs,
    blocksize: usize,
    columns: usize,
    rounding: Rounding,
}

impl RowSource for FourBits {
    fn decode(&self, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        let weights = rows.start * self.columns..rows.end * self.columns;
        let blocks = weights.start / self.blocksize..weights.end.div_ceil(self.blocksize);
        let mut absmax = vec![0.0; blocks.len()];
        self.absmax.read(blocks, &mut absmax)?;
        pulp::Arch::new().dispatch(Flattened {
            codes: self.codes.bytes(),
            pairs: &self.pairs,
            absmax: &absmax,
            blocksize: self.blocksize,
            weights,
            out,
        });
        match self.rounding {
            Rounding::F32 => {}
            Rounding::F16 => {
                let mut narrow = [f16::ZERO; 256];
                for out in out.chunks_mut(narrow.len()) {
                    narrow[..out.len()].convert_from_f32_slice(out);
                    narrow[..out.len()].convert_to_f32_slice(out);
                }
            }
            Rounding::Bf16 => pulp::Arch::new().dispatch(ToBf16(out)),
        }
        Ok(())
    }

    fn release(&self) {
        self.codes.release();
        self.absmax.release();
    }
}

/// A stretch of the flattened matrix; it may begin and end inside a block, and inside a byte.
struct Flattened<'a> {
    codes: &'a [u8],
    pairs: &'a Pairs,
    /// Of the blocks that the stretch touches.
    absmax: &'a [f32],
    blocksize: usize,
    weights: Range<usize>,
    out: &'a mut [f32],
}

impl pulp::WithSimd for Flattened<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Self { codes, pairs, absmax, blocksize, weights, mut out } = self;
        let mut at = weights.start;
        for absmax in absmax {
            let end = ((at / blocksize + 1) * blocksize).min(weights.end);
            let (mut block, later) = std::mem::take(&mut out).split_at_mut(end - at);
            if at % 2 == 1 {
                let (first, rest) = std::mem::take(&mut block).split_at_mut(1);
                first[0] = pairs.of(codes[at / 2])[1] * absmax;
                (block, at) = (rest, at + 1);
            }
            let codes = &codes[at / 2..end.div_ceil(2)];
            let (whole, last) = block.as_chunks_mut::<2>();
            for (out, byte) in whole.iter_mut().zip(codes) {
                *out = pairs.of(*byte).map(|entry| entry * absmax);
            }
            if let ([last], Some(byte)) = (last, codes.last()) {
                *last = pairs.of(*byte)[0] * absmax;
            }
            (out, at) = (later, end);
        }
    }
}

/// Rounds finite values to the nearest bfloat16, ties to even: half of the last place is added and the rest cut.
struct ToBf16<'a>(&'a mut [f32]);

impl pulp::WithSimd for ToBf16<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        for value in self.0 {
            let bits = value.to_bits();
            let odd = bits >> 16 & 1;
            *value = f32::from_bits(bits.wrapping_add(0x7FFF).wrapping_add(odd) & 0xFFFF_0000);
        }
    }
}

/// LLM.int8: rows of int8 with one scale each.
fn int8(tensors: &Tensors, module: &str, scale: &TensorView, threshold: f32) -> Result<Packed> {
    let weight = tensors.require(&format!("{module}.weight"), "its SCB is there")?;
    let [rows, columns] = *weight.shape else {
        return Err(weight.problem(
            format!("has shape {:?}, expected [out, in]", weight.shape),
            "the file is damaged, or written by a tool that packs in another way",
        ));
    };
    weight.expect(weight.shape, &[Dtype::I8])?;
    let shape = matrix_shape(&weight, rows, Some(columns))?;
    let mut used = vec![weight.name, scale.name];
    if let Some(format) = tensors.get(&format!("{module}.weight_format")) {
        // Numbers of bitsandbytes' LINEAR_8BIT_WEIGHTS_FORMAT_MAPPING.
        const NAMES: [&str; 4] = ["row", "col32", "col_turing", "col_ampere"];
        let code = format.stored().bytes().first().copied();
        if code != Some(0) || format.dtype != Dtype::U8 {
            let name = code.and_then(|code| NAMES.get(usize::from(code))).copied().unwrap_or("unknown");
            return Err(format.problem(
                format!("is {} ({name}); only 0 (row) is decoded", code.unwrap_or_default()),
                "save the checkpoint again with bitsandbytes 0.45 or later",
            ));
        }
        used.push(format.name);
    }
    scale.expect(&[rows], FLOATS)?;
    // Zero is the scale of a row of zeros.
    let grid = Grid::new(scale, rows, 1, Sound::Finite)?.with(Factor::Times(1.0 / 127.0));
    Ok(Packed {
        shape,
        encoding: "LLM.int8".to_owned(),
        source: Arc::new(Affine {
            columns,
            groups: Groups::Of(columns),
            // Unsigned, u = q + 128, as codes are sliced.
            codes: Arc::new(ByteRows { flip: 0x80, stored: weight.stored() }),
            value: Value::Integer(8),
            scales: Arc::new(GridRows { grid, rows_each: 1 }),
            offset: Offset::Zero(128.0),
            sliced: None,
        }),
        tensors: used.into_iter().map(str::to_owned).collect(),
        input: Some(ActivationQuantization::LlmInt8 { threshold }),
        output: None,
        warnings: Vec::new(),
    })
}

#[cfg(test)]
mod tests;
