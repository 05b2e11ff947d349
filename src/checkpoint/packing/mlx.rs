//! MLX: affine codes, and its MXFP4, MXFP8 and NVFP4 modes.
//!
//! Affine: `weight` U32 `[out, in·b/32]`, a stream of b-bit codes along each row; `scales` and `biases` `[out, in/g]`;
//! w = q·s + bias. The floating-point modes have no biases and U8 scales: `[out, in/32]`, 2^(e − 127), for E2M1
//! (mxfp4) and E4M3 (mxfp8) codes; `[out, in/16]`, E4M3, for E2M1 codes (nvfp4). Embeddings are packed like linears.
//! Settings: `quantization {group_size, bits, mode, <module>: the same or false}` of `config.json`. Layout of MLX 0.30
//! (`mlx/ops.cpp`) and mlx-lm.

use std::sync::Arc;

use safetensors::Dtype;
use serde_json::Value as Json;

use super::{
    Kind, Packed, Packing, TensorView, Tensors,
    affine::{Affine, GridRows, Groups, Offset, PackedRows, Value},
    checks::{FLOATS, matrix_shape, stacked},
    codes::BitLayout,
    grid::{Grid, Number, Sound},
    warnings::contradiction,
};
use crate::{
    checkpoint::{encoding::Encoding, quantization::Quantization},
    error::{Error, Result},
    minifloat::E4M3,
};

/// MLX.
pub(super) const KIND: Kind =
    Kind { methods: &["mlx"], prepare: |_, settings| Ok(Box::new(Mlx::read(settings)?)) };

#[derive(Debug)]
struct Mlx {
    settings: Option<Quantization>,
}

/// What the codes mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Affine,
    MxFp4,
    MxFp8,
    NvFp4,
}

impl Mode {
    const ALL: [Mode; 4] = [Mode::Affine, Mode::MxFp4, Mode::MxFp8, Mode::NvFp4];

    fn name(self) -> &'static str {
        match self {
            Mode::Affine => "affine",
            Mode::MxFp4 => "mxfp4",
            Mode::MxFp8 => "mxfp8",
            Mode::NvFp4 => "nvfp4",
        }
    }

    /// Bits and group size, where the mode fixes them.
    fn fixed(self) -> Option<(u32, usize)> {
        match self {
            Mode::Affine => None,
            Mode::MxFp4 => Some((4, 32)),
            Mode::MxFp8 => Some((8, 32)),
            Mode::NvFp4 => Some((4, 16)),
        }
    }
}

/// What the settings say about a module; `None` where they do not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Stated {
    skipped: bool,
    bits: Option<u64>,
    group_size: Option<u64>,
    mode: Option<Mode>,
}

impl Stated {
    fn with(self, json: &Json) -> Self {
        let mode = json.get("mode").and_then(Json::as_str);
        Self {
            skipped: *json == Json::Bool(false),
            bits: json.get("bits").and_then(Json::as_u64).or(self.bits),
            group_size: json.get("group_size").and_then(Json::as_u64).or(self.group_size),
            mode: mode
                .and_then(|mode| Mode::ALL.into_iter().find(|known| known.name() == mode))
                .or(self.mode),
        }
    }
}

/// Widths and group sizes of the affine mode.
const WIDTHS: [u32; 6] = [2, 3, 4, 5, 6, 8];
const GROUPS: [usize; 3] = [32, 64, 128];

impl Mlx {
    fn read(settings: Option<&Quantization>) -> Result<Self> {
        if let Some(settings) = settings
            && let Some(mode) = settings.get("mode")
            && !Mode::ALL.iter().any(|known| mode.as_str() == Some(known.name()))
        {
            let known = Mode::ALL.map(Mode::name).join(", ");
            let problem = format!("the weights are packed in mode {mode}, which this version cannot decode");
            return Err(settings.problem("mode", problem, format!("decoded: {known}")));
        }
        Ok(Self { settings: settings.cloned() })
    }

    fn stated(&self, module: &str) -> Stated {
        let Some(settings) = &self.settings else { return Stated::default() };
        let base = Stated::default().with(&settings.json);
        // Paths hold dots: one key, not nested ones.
        settings.json.get(module).map_or(base, |json| base.with(json))
    }
}

/// The bits and group size that fit; bits·group = 32·(columns of weight) / (columns of scales).
///
/// # Errors
/// No pair fits, or several do and neither side of the settings' pair tells which.
fn affine(
    module: &str,
    weight: &TensorView,
    scales: &TensorView,
    stated: &Stated,
    warnings: &mut Vec<String>,
) -> Result<(u32, usize)> {
    let (words, groups) = (columns(weight), columns(scales));
    let fits = |bits: u32, group: usize| {
        words.checked_mul(32).is_some_and(|all| groups.checked_mul(group * bits as usize) == Some(all))
    };
    let fitting: Vec<(u32, usize)> = WIDTHS
        .into_iter()
        .flat_map(|bits| GROUPS.map(|group| (bits, group)))
        .filter(|(bits, group)| fits(*bits, *group))
        .collect();
    let exact = |(bits, group): &&(u32, usize)| {
        stated.bits == Some(u64::from(*bits)) && stated.group_size == Some(*group as u64)
    };
    if let Some(pair) = fitting.iter().find(exact) {
        return Ok(*pair);
    }
    let names = |pairs: &[(u32, usize)]| {
        pairs.iter().map(|(bits, group)| format!("{bits} bits g{group}")).collect::<Vec<_>>().join(", ")
    };
    match *fitting.as_slice() {
        [(bits, group)] => {
            if let (Some(said_bits), Some(said_group)) = (stated.bits, stated.group_size) {
                let said = format!("{said_bits} bits in groups of {said_group}");
                let found = format!("{bits} bits in groups of {group}");
                warnings.push(contradiction(module, &said, &found));
            }
            Ok((bits, group))
        }
        [] => Err(scales.problem(
            format!(
                "has {groups} columns for {words} words of weight: no width of 2, 3, 4, 5, 6 or 8 bits in groups of \
                 32, 64 or 128 fits"
            ),
            "the file is damaged, or written by a tool that packs in another way",
        )),
        _ => Err(scales.problem(
            format!("has {groups} columns for {words} words of weight, which fits {}", names(&fitting)),
            match stated.bits {
                Some(_) => "the settings' bits and group_size fit none of these: correct them in config.json",
                None => "keep config.json beside the weights: its `quantization` decides",
            },
        )),
    }
}

fn columns(view: &TensorView) -> usize {
    view.shape.last().copied().unwrap_or(0)
}

impl Packing for Mlx {
    fn matrix(&self, tensors: &Tensors, module: &str) -> Result<Option<Packed>> {
        let Some(weight) = tensors.get(&format!("{module}.weight")).filter(|view| view.dtype == Dtype::U32)
        else {
            return Ok(None);
        };
        let scales = tensors.require(&format!("{module}.scales"), "a weight of U32 words has scales")?;
        let stated = self.stated(module);
        let mut warnings = Vec::new();
        let mode = match scales.dtype {
            Dtype::U8 => by_width(&weight, &scales)?,
            _ => Mode::Affine,
        };
        if let Some(said) = stated.mode.filter(|said| *said != mode) {
            warnings.push(contradiction(module, &format!("mode {}", said.name()), mode.name()));
        }
        if stated.skipped {
            warnings.push(contradiction(
                module,
                "that it is not quantized",
                &format!("{} codes", mode.name()),
            ));
        }
        let (bits, group) = match mode.fixed() {
            Some(fixed) => fixed,
            None => affine(module, &weight, &scales, &stated, &mut warnings)?,
        };
        let [rows, words] = stacked(weight.shape);
        let inputs = words.checked_mul(32).map(|all| all / bits as usize);
        let shape = matrix_shape(&weight, rows, inputs)?;
        if !shape[1].is_multiple_of(group) {
            return Err(weight.problem(
                format!("holds {} inputs, expected a multiple of the group size {group}", shape[1]),
                "the file is damaged, or written by a tool that packs in another way",
            ));
        }
        let table = |view: &TensorView, number, sound| {
            let expected: Vec<usize> = match weight.shape.split_last() {
                Some((_, leading)) => leading.iter().copied().chain([shape[1] / group]).collect(),
                None => Vec::new(),
            };
            view.expect(&expected, if mode == Mode::Affine { FLOATS } else { &[Dtype::U8] })?;
            let flat = stacked(view.shape);
            let grid = Grid::of(&TensorView { shape: &flat, ..*view }, number, flat[0], flat[1], sound)?;
            Ok::<_, Error>(Arc::new(GridRows { grid, rows_each: 1 }))
        };
        let mut used = vec![weight.name, scales.name];
        let biases = tensors.get(&format!("{module}.biases"));
        let floats = |view: &TensorView| Encoding::from_safetensors(view.dtype).map(Number::Float);
        let (value, scales, offset) = match (mode, biases) {
            (Mode::Affine, _) => {
                let biases = tensors.require(&format!("{module}.biases"), "affine codes have biases")?;
                used.push(biases.name);
                // A type that is no float is refused by the table.
                let scales = table(&scales, floats(&scales).unwrap_or(Number::E8m0), Sound::NotZero)?;
                let biases = table(&biases, floats(&biases).unwrap_or(Number::E8m0), Sound::Finite)?;
                (Value::Integer(bits), scales, Offset::Biases(biases))
            }
            (mode, Some(biases)) => {
                let problem = format!("is there, but mode {} has no biases", mode.name());
                return Err(biases.problem(problem, "convert the model again"));
            }
            (mode, None) => {
                let value = match mode {
                    Mode::MxFp8 => Value::Table(Arc::new(E4M3)),
                    _ => Value::e2m1(),
                };
                let scales = match mode {
                    // Zero is the scale of a block of zeros.
                    Mode::NvFp4 => table(&scales, Number::E4m3, Sound::Finite)?,
                    _ => table(&scales, Number::E8m0, Sound::Positive)?,
                };
                (value, scales, Offset::Zero(0.0))
            }
        };
        let codes =
            PackedRows { bits, layout: BitLayout::Dense, row_bytes: 4 * words, stored: weight.stored() };
        Ok(Some(Packed {
            shape,
            encoding: match mode {
                Mode::Affine => format!("int{bits} g{group}"),
                mode => mode.name().to_uppercase(),
            },
            source: Arc::new(Affine {
                columns: shape[1],
                groups: Groups::Of(group),
                codes: Arc::new(codes),
                value,
                scales,
                offset,
                sliced: None,
            }),
            tensors: used.into_iter().map(str::to_owned).collect(),
            input: None,
            output: None,
            warnings,
        }))
    }
}

/// The floating-point mode whose width and group size fit; they differ in words per scale: 4, 8, 2.
fn by_width(weight: &TensorView, scales: &TensorView) -> Result<Mode> {
    let (words, groups) = (columns(weight), columns(scales));
    let fits = |mode: &Mode| {
        mode.fixed()
            .is_some_and(|(bits, group)| groups.checked_mul(bits as usize * group / 32) == Some(words))
    };
    Mode::ALL.into_iter().find(fits).ok_or_else(|| {
        scales.problem(
            format!(
                "has {groups} columns for {words} words of weight, which fits neither mxfp4, mxfp8 nor nvfp4"
            ),
            "the file is damaged, or written by a tool that packs in another way",
        )
    })
}

#[cfg(test)]
mod tests;
