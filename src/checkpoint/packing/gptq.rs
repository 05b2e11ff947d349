//! GPTQ (arXiv 2210.17323) as AutoGPTQ, GPTQModel and AutoRound store it.
//!
//! `qweight` I32 `[in·b/32, out]`, a stream of b-bit codes down the inputs; `qzeros` I32 `[groups, out·b/32]`;
//! `scales` `[groups, out]`; `g_idx` I32 `[in]`, the group of each input, which need not be in order (desc_act).
//! The first format stores zero points less one, `gptq_v2` as they are; AutoRound's `auto_round:auto_gptq` is the
//! first, its `auto_round` and `auto_round:gptqmodel` the second. Layout of GPTQModel 5 and auto-round 0.15.

use super::{
    Kind, Packed, Packing, Tensors,
    affine::{Groups, listed},
    checks::matrix_shape,
    codes::{BitLayout, unpack},
    stated::{Expected, Stated, differences},
    transposed::{Found, Layout, find, group_size, label, rows},
    warnings::contradiction,
};
use crate::{checkpoint::quantization::Quantization, error::Result};

/// GPTQ, and AutoRound in its layout.
pub(super) const KIND: Kind = Kind {
    methods: &["gptq", "auto-round", "autoround", "intel/auto-round"],
    prepare: |_, settings| Ok(Box::new(Gptq::read(settings)?)),
};

/// How zero points are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ZeroPoints {
    /// z − 1.
    LessOne,
    /// z.
    Plain,
}

#[derive(Debug, Default)]
struct Gptq {
    stated: Option<Stated>,
    /// What the settings say, if they do.
    zero_points: Option<ZeroPoints>,
    /// Inputs were quantized in another order than they are stored: only `g_idx` tells their groups.
    reordered: bool,
}

/// Widths that the continuous layout has.
const WIDTHS: [u32; 4] = [2, 3, 4, 8];

impl Gptq {
    fn read(settings: Option<&Quantization>) -> Result<Self> {
        let Some(settings) = settings else { return Ok(Self::default()) };
        let text = |key: &str| Some(settings.get(key)?.as_str()?.to_lowercase());
        if let Some(dtype) = text("pack_dtype").filter(|dtype| !dtype.ends_with("int32")) {
            let problem = format!("codes are packed into words of {dtype}; only int32 is decoded");
            return Err(settings.problem("pack_dtype", problem, "quantize again with pack_dtype int32"));
        }
        if settings.get("is_marlin_format").and_then(|value| value.as_bool()) == Some(true) {
            let problem = "the weights are in Marlin's layout, which this version cannot decode";
            return Err(settings.problem(
                "is_marlin_format",
                problem,
                "use the checkpoint in GPTQ's own format",
            ));
        }
        let gptq = settings.method().as_deref() == Some("gptq");
        let zero_points = if gptq { of_gptq(settings, text)? } else { of_auto_round(settings, text)? };
        let reordered = settings.get("desc_act").and_then(|value| value.as_bool()) == Some(true);
        Ok(Self { stated: Some(Stated::read(settings)), zero_points, reordered })
    }

    /// Bits of a code, from the widths of the tensors; what the settings say decides only where several fit.
    fn bits(found: &Found, expected: &[Expected]) -> Result<u32> {
        let (lines, width) = (found.qweight.shape[0], found.qzeros.shape[1]);
        let fits = |bits: u32| {
            BitLayout::Dense.words(bits, found.outputs) == Some(width) && (bits != 3 || lines % 3 == 0)
        };
        let fitting: Vec<u32> = WIDTHS.into_iter().filter(|bits| fits(*bits)).collect();
        let stated = expected.iter().filter_map(|expected| expected.bits).find(|bits| fitting.contains(bits));
        match (fitting.as_slice(), stated) {
            (_, Some(bits)) => Ok(bits),
            ([bits], None) => Ok(*bits),
            ([], None) => {
                let planar = [5, 6, 7].into_iter().find(|bits| fits(*bits));
                let problem = match planar {
                    Some(bits) => {
                        format!("is of {bits} bits, which only format gptq_p has; it is not decoded")
                    }
                    None => format!(
                        "has {width} columns, expected {} words for {} zero points of 2, 3, 4 or 8 bits",
                        WIDTHS
                            .map(|bits| BitLayout::Dense.words(bits, found.outputs).unwrap_or(0).to_string())
                            .join(", "),
                        found.outputs
                    ),
                };
                Err(found.qzeros.problem(problem, "use a checkpoint of 2, 3, 4 or 8 bits in format gptq"))
            }
            (several, None) => Err(found.qzeros.problem(
                format!("of shape {:?} fits several widths: {several:?} bits", found.qzeros.shape),
                "keep config.json beside the weights: its `bits` decides",
            )),
        }
    }

    /// How zero points are stored: a symmetric matrix shows it, for all its zero points are the middle code.
    fn zero_points(
        &self,
        module: &str,
        found: &Found,
        bits: u32,
        expected: &[Expected],
        notes: &mut Vec<String>,
    ) -> Result<ZeroPoints> {
        let seen = Seen::of(found, bits);
        let middle = 1 << (bits - 1);
        let shown = match (seen.lowest, seen.highest) {
            (low, high) if low == high && low == middle => Some(ZeroPoints::Plain),
            (low, high) if low == high && low + 1 == middle => Some(ZeroPoints::LessOne),
            _ => None,
        };
        let states = |symmetric| expected.iter().any(|expected| expected.symmetric == Some(symmetric));
        let (symmetric, asymmetric) = (states(true) && !states(false), states(false) && !states(true));
        let decided = match (shown.filter(|_| !asymmetric), self.zero_points) {
            (Some(shown), Some(stated)) if shown != stated => {
                if !symmetric {
                    // Whether the middle is meant is not known, so the statement stands.
                    stated
                } else {
                    let name = |zero_points| match zero_points {
                        ZeroPoints::LessOne => "zero points less one (format gptq)",
                        ZeroPoints::Plain => "zero points as they are (format gptq_v2)",
                    };
                    notes.push(contradiction(module, name(stated), name(shown)));
                    shown
                }
            }
            (Some(shown), _) => shown,
            (None, Some(stated)) => stated,
            (None, None) => {
                return Err(found.qzeros.problem(
                    "may hold zero points as they are or less one, and no settings say which",
                    "keep config.json beside the weights: its `checkpoint_format` decides",
                ));
            }
        };
        if symmetric && shown.is_none() {
            notes.push(contradiction(
                module,
                "symmetric codes",
                "zero points that differ from the middle code",
            ));
        }
        if decided == ZeroPoints::LessOne && seen.wrapped > 0 {
            notes.push(format!(
                "{module}: {} of {} zero points are 0 and were stored as {}; kernels that add one to each field by \
                 itself read them or their neighbours differently",
                seen.wrapped,
                found.groups.saturating_mul(found.outputs),
                (1u32 << bits) - 1
            ));
        }
        Ok(decided)
    }

    /// Which inputs share a scale, and how many do where they are neighbours.
    fn groups(
        &self,
        tensors: &Tensors,
        module: &str,
        found: &Found,
        inputs: usize,
        expected: &[Expected],
    ) -> Result<(Groups, usize)> {
        let name = format!("{module}.g_idx");
        let list = match self.reordered {
            true => Some(tensors.require(&name, "the settings say desc_act: only it tells the groups")?),
            false => tensors.get(&name),
        };
        if let Some(view) = list {
            return Ok(in_order(listed(&view, inputs, found.groups)?, inputs));
        }
        let stated: Vec<usize> = expected.iter().filter_map(|expected| expected.group(inputs)).collect();
        let size = group_size(inputs, found.groups, &stated).map_err(|problem| {
            found.scales.problem(problem, "the file is damaged: write or download it again")
        })?;
        Ok((Groups::Of(size), size))
    }
}

/// `checkpoint_format` of GPTQModel; the first format where nothing is said, as AutoGPTQ wrote it.
fn of_gptq(settings: &Quantization, text: impl Fn(&str) -> Option<String>) -> Result<Option<ZeroPoints>> {
    let key = if settings.get("checkpoint_format").is_some() { "checkpoint_format" } else { "format" };
    match text(key).as_deref() {
        None | Some("gptq") => Ok(Some(ZeroPoints::LessOne)),
        Some("gptq_v2") => Ok(Some(ZeroPoints::Plain)),
        Some(other) => Err(settings.problem(
            key,
            format!("the weights are in format `{other}`, which this version cannot decode"),
            "decoded: gptq, gptq_v2; write the checkpoint again in one of them",
        )),
    }
}

/// `packing_format` of AutoRound, formerly `backend`.
fn of_auto_round(
    settings: &Quantization,
    text: impl Fn(&str) -> Option<String>,
) -> Result<Option<ZeroPoints>> {
    let act_bits = settings.get("act_bits").and_then(|bits| bits.as_u64());
    if let Some(bits) = act_bits.filter(|bits| *bits < 16) {
        let problem = format!("AutoRound's quantization of inputs to {bits} bits is not implemented");
        return Err(settings.problem("act_bits", problem, "export in the llm_compressor format instead"));
    }
    let format = text("packing_format").or_else(|| text("backend")).unwrap_or_default();
    let format = format.replace("auto-round", "auto_round").replace("autoround", "auto_round");
    Ok(if format.contains("awq") {
        None
    } else if format.contains("gptqmodel") {
        Some(ZeroPoints::Plain)
    } else if format.is_empty() || format == "auto" || format.contains("gptq") {
        Some(ZeroPoints::LessOne)
    } else if format.starts_with("auto_round") {
        Some(ZeroPoints::Plain)
    } else {
        None
    })
}

/// The zero points of a matrix, as stored.
struct Seen {
    lowest: u32,
    highest: u32,
    /// How many are the largest code.
    wrapped: usize,
}

impl Seen {
    fn of(found: &Found, bits: u32) -> Self {
        let mut seen = Seen { lowest: u32::MAX, highest: 0, wrapped: 0 };
        let largest = ((1u32 << bits) - 1) as u8;
        let mut fields = vec![0; found.outputs];
        let stored = found.qzeros.stored();
        for words in stored.bytes().chunks_exact(4 * found.qzeros.shape[1]) {
            unpack(bits, BitLayout::Dense, words, &mut fields);
            let (low, high) = fields.iter().fold((u8::MAX, 0), |(low, high), z| (low.min(*z), high.max(*z)));
            seen.lowest = seen.lowest.min(u32::from(low));
            seen.highest = seen.highest.max(u32::from(high));
            if high == largest {
                seen.wrapped += fields.iter().filter(|field| **field == largest).count();
            }
        }
        seen
    }
}

/// A list that only says that neighbours share a scale decodes faster as that.
fn in_order(groups: Groups, inputs: usize) -> (Groups, usize) {
    let Groups::Listed(list, count) = groups else { return (groups, inputs) };
    let run = list.iter().position(|group| *group != list[0]).unwrap_or(inputs);
    let even = list.iter().enumerate().all(|(input, group)| input / run == *group as usize);
    match even {
        true => (Groups::Of(run), run),
        false => (Groups::Listed(list, count), inputs.div_ceil(count)),
    }
}

impl Packing for Gptq {
    fn matrix(&self, tensors: &Tensors, module: &str) -> Result<Option<Packed>> {
        let Some(found) = find(tensors, module)?.filter(|found| found.layout == Layout::Gptq) else {
            return Ok(None);
        };
        let expected = self.stated.as_ref().map(|stated| stated.of(module)).unwrap_or_default();
        let bits = Self::bits(&found, &expected)?;
        let inputs = found.qweight.shape[0].checked_mul(32).map(|codes| codes / bits as usize);
        let shape = matrix_shape(&found.qweight, found.outputs, inputs)?;
        let inputs = shape[1];
        let (groups, group) = self.groups(tensors, module, &found, inputs, &expected)?;
        let mut notes = differences(module, &expected, bits, inputs, Some(group));
        let zero_points = self.zero_points(module, &found, bits, &expected, &mut notes)?;
        let less_one = zero_points == ZeroPoints::LessOne;
        let mut used = vec![found.qweight.name, found.qzeros.name, found.scales.name];
        let g_idx = tensors.get(&format!("{module}.g_idx"));
        used.extend(g_idx.map(|view| view.name));
        Ok(Some(Packed {
            shape,
            encoding: label(bits, found.groups, group),
            source: rows(&found, bits, inputs, groups, less_one)?,
            tensors: used.into_iter().map(str::to_owned).collect(),
            input: None,
            output: None,
            warnings: notes,
        }))
    }
}

#[cfg(test)]
mod tests;
