//! Layers that no encoding explains: one that is far worse than all others of the same cousin, and the matrix in it.
//!
//! A file can be broken in one place (scales of another row, a layer's tensors swapped) and still load and write text.
//! Its averages then look like a hard quantization; its layers do not.

use crate::comparison::{Comparison, QuantComparison, Stage, WeightComparison};

use super::super::format::{listed, number, visible};
use super::{Sentence, caution, name, own_sqnr};

/// Decibels by which a layer, and a matrix in it, must lie apart from the others: a factor of ten in the squared error.
/// Between neighbouring sizes of one encoding lie about 6 (one bit), and between layers of a sound file that mixes
/// encodings less than that in one step.
const APART_DB: f64 = 10.0;

/// A layer that stands out.
#[derive(Debug)]
struct Fault<'a> {
    layer: usize,
    /// How far its own error lies above the median of the sound layers', dB.
    above_db: f64,
    /// The matrix furthest below the same matrix elsewhere, without the layer's name: "mlp.down_proj".
    matrix: &'a str,
    /// That matrix' SQNR, dB.
    matrix_db: f64,
    /// Median SQNR of the same matrix in sound layers; `None` where it equals base's there.
    elsewhere_db: Option<f64>,
}

/// Every cousin with layers that stand out, in the order given.
pub(super) fn faults(comparison: &Comparison) -> Vec<Sentence> {
    let say = |quant| Some(caution(format!("{}: {}.", name(quant), fault_of(quant)?)));
    comparison.quants.iter().filter_map(say).collect()
}

/// "layer 3 stands out: its own error is 24 dB above that of the other layers (mlp.down_proj: 3.1 dB against 43 dB
/// elsewhere); such a jump is a fault of the file, not of the encoding", for a cousin that has such a layer.
///
/// A layer stands out where both hold:
/// the SQNR that it has by itself (its error on base's input) lies below a gap of 10 dB in the sorted SQNRs of all
/// layers, with no more than half of them below it; and one of its weights lies 10 dB or more below the median of the
/// same weight of the layers above the gap, of those in the same encoding.
/// A gap, not a distance: where layers differ gradually there is none, however far the first is from the last, and it
/// means the same with 4 layers as with 80. The same encoding, because a layer that was given fewer bits on purpose is
/// no fault. Weights, because a layer can amplify the error of sound ones. Nothing is said of an adapter, which may
/// change a few layers only.
pub(super) fn fault_of(quant: &QuantComparison) -> Option<String> {
    if quant.model.path.contains("@lora=") {
        return None;
    }
    let faults = found(quant);
    let layers: Vec<String> = faults.iter().map(|fault| fault.layer.to_string()).collect();
    let jump = "such a jump is a fault of the file, not of the encoding";
    let matrix = |fault: &Fault<'_>| {
        let elsewhere =
            fault.elsewhere_db.map_or_else(|| "no error".to_owned(), |db| format!("{} dB", number(db, 2)));
        format!("{}: {} dB against {elsewhere} elsewhere", visible(fault.matrix), number(fault.matrix_db, 2))
    };
    match faults.as_slice() {
        [] => None,
        [only] => Some(format!(
            "layer {} stands out: its own error is {} dB above that of the other layers ({}); {jump}",
            only.layer,
            number(only.above_db, 2),
            matrix(only)
        )),
        several => {
            let above: Vec<String> =
                several.iter().map(|fault| format!("{} dB", number(fault.above_db, 2))).collect();
            let matrices: Vec<String> =
                several.iter().map(|fault| format!("layer {}, {}", fault.layer, matrix(fault))).collect();
            Some(format!(
                "layers {} stand out: their own errors are {} above those of the other layers ({}); {jump}",
                listed(&layers),
                listed(&above),
                matrices.join("; ")
            ))
        }
    }
}

fn found(quant: &QuantComparison) -> Vec<Fault<'_>> {
    let of_layers = quant.layers.iter().filter(|layer| layer.stage == Stage::Layer);
    let mut sqnrs: Vec<(usize, f64)> =
        of_layers.filter_map(|layer| Some((layer.layer, own_sqnr(layer)?))).collect();
    sqnrs.sort_by(|a, b| a.1.total_cmp(&b.1));
    // The largest gap with at most half of the layers below it.
    let gap = |below: usize| Some(sqnrs.get(below)?.1 - sqnrs.get(below.checked_sub(1)?)?.1);
    let gaps = (1..=sqnrs.len() / 2).filter_map(|below| Some((below, gap(below)?)));
    let Some((below, _)) = gaps.filter(|(_, db)| *db >= APART_DB).max_by(|a, b| a.1.total_cmp(&b.1)) else {
        return Vec::new();
    };
    let (suspects, sound) = sqnrs.split_at(below);
    let sound_db = median(sound.iter().map(|(_, db)| *db));
    let is_sound = |layer: usize| sound.iter().any(|(other, _)| *other == layer);
    let fault = |&(layer, db): &(usize, f64)| {
        let (matrix, matrix_db, elsewhere_db) = worst_weight(quant, layer, &is_sound)?;
        Some(Fault { layer, above_db: sound_db? - db, matrix, matrix_db, elsewhere_db })
    };
    let mut faults: Vec<Fault<'_>> = suspects.iter().filter_map(fault).collect();
    faults.sort_by_key(|fault| fault.layer);
    faults
}

/// The weight of a layer that lies furthest below the same weight of sound layers, if far enough: its name within the
/// layer, its SQNR, and theirs (`None`: no error).
fn worst_weight<'a>(
    quant: &'a QuantComparison,
    layer: usize,
    is_sound: &dyn Fn(usize) -> bool,
) -> Option<(&'a str, f64, Option<f64>)> {
    let weights = || quant.weights.iter().filter_map(|weight| Some((place(&weight.name)?, weight)));
    let sqnr = |weight: &WeightComparison| match weight.sqnr_db {
        None => weight.identical.then_some(f64::INFINITY),
        db => db.filter(|db| !db.is_nan()),
    };
    let candidates = weights().filter(|((of, _), _)| *of == layer);
    let compared = candidates.filter_map(|((_, name), weight)| {
        let own = sqnr(weight).filter(|db| db.is_finite())?;
        let alike = weights().filter(|((of, other), neighbour)| {
            is_sound(*of) && *other == name && neighbour.encoding == weight.encoding
        });
        let elsewhere = median(alike.filter_map(|(_, neighbour)| sqnr(neighbour)))?;
        (elsewhere - own >= APART_DB).then_some((name, own, elsewhere))
    });
    let worst = compared.max_by(|a, b| (a.2 - a.1).total_cmp(&(b.2 - b.1)))?;
    Some((worst.0, worst.1, Some(worst.2).filter(|db| db.is_finite())))
}

/// Layer and name within it of "model.layers.3.mlp.down_proj.weight": 3, "mlp.down_proj".
fn place(weight: &str) -> Option<(usize, &str)> {
    let (_, rest) = weight.split_once("layers.")?;
    let (layer, name) = rest.split_once('.')?;
    Some((layer.parse().ok()?, name.strip_suffix(".weight").unwrap_or(name)))
}

/// Middle of the sorted values, or mean of the two middle ones; `None` without any.
fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = *values.get(values.len().saturating_sub(1) / 2)?;
    // Twice infinity is infinity, and its mean with itself must not become a NaN.
    Some(if lower == upper { upper } else { (lower + upper) / 2.0 })
}

#[cfg(test)]
mod tests {
    use super::super::super::fixture::{self, Damage};
    use super::*;
    use crate::comparison::LayerComparison;

    const MATRICES: [&str; 3] = ["self_attn.q_proj", "mlp.up_proj", "mlp.down_proj"];

    /// A cousin whose layers have these SQNRs by themselves, every weight 3 dB below its layer's.
    fn cousin(sqnrs: &[f64]) -> QuantComparison {
        let some =
            Damage { bits_per_weight: 8.5, kl: 0.001, ppl_ratio: 1.0, top1: 0.99, sqnr_db: Some(40.0) };
        let mut quant = fixture::quant("cousin", some);
        let model = quant.layers[1].clone();
        quant.layers.truncate(1);
        let weight = quant.weights[0].clone();
        quant.weights.clear();
        for (index, db) in sqnrs.iter().enumerate() {
            let mut layer: LayerComparison = model.clone();
            (layer.layer, layer.base_layer) = (index, index);
            let view = layer.injected.as_mut().unwrap();
            view.all.sqnr_db = Some(*db);
            view.without_first.as_mut().unwrap().sqnr_db = Some(*db);
            quant.layers.push(layer);
            quant.weights.extend(MATRICES.map(|name| WeightComparison {
                name: format!("model.layers.{index}.{name}.weight"),
                encoding: "Q8_0".to_owned(),
                sqnr_db: Some(db - 3.0),
                identical: false,
                ..weight.clone()
            }));
        }
        quant
    }

    /// The same, one matrix of `layer` alone to blame.
    fn broken(layers: usize, layer: usize, encoding: &str) -> QuantComparison {
        let mut sqnrs = vec![46.0; layers];
        sqnrs[layer] = 22.0;
        let mut quant = cousin(&sqnrs);
        for weight in quant.weights.iter_mut().filter(|w| place(&w.name).unwrap().0 == layer) {
            let is_broken = weight.name.contains("down_proj");
            weight.sqnr_db = Some(if is_broken { 3.1 } else { 43.0 });
            encoding.clone_into(&mut weight.encoding);
        }
        quant
    }

    #[test]
    fn each_broken_layer_is_named_with_its_matrix() {
        for layers in [2, 3, 4, 5, 28, 80] {
            for layer in 0..layers {
                assert_eq!(
                    fault_of(&broken(layers, layer, "Q8_0")).unwrap_or_else(|| panic!("{layer} of {layers}")),
                    format!(
                        "layer {layer} stands out: its own error is 24 dB above that of the other layers \
                         (mlp.down_proj: 3.1 dB against 43 dB elsewhere); such a jump is a fault of the file, not of \
                         the encoding"
                    )
                );
            }
        }
        let sentences = faults(&fixture::of(vec![cousin(&[46.0; 5]), broken(5, 3, "Q8_0")]));
        assert_eq!(sentences.len(), 1);
        assert_eq!(sentences[0].tone, super::super::Tone::Caution);
        assert!(sentences[0].text.starts_with("cousin: layer 3 stands out"), "{sentences:?}");
    }

    #[test]
    fn two_broken_layers_are_both_named() {
        for layers in [4, 5, 80] {
            let mut quant = broken(layers, 1, "Q8_0");
            let other = broken(layers, 3, "Q8_0");
            quant.layers[4] = other.layers[4].clone();
            quant.weights[9..12].clone_from_slice(&other.weights[9..12]);
            assert_eq!(
                fault_of(&quant).unwrap(),
                "layers 1 and 3 stand out: their own errors are 24 dB and 24 dB above those of the other layers \
                 (layer 1, mlp.down_proj: 3.1 dB against 43 dB elsewhere; layer 3, mlp.down_proj: 3.1 dB against 43 dB \
                 elsewhere); such a jump is a fault of the file, not of the encoding",
                "{layers}"
            );
        }
    }

    #[test]
    fn a_gradual_profile_is_no_fault() {
        for (layers, step) in [(2, 9.0), (4, 9.0), (5, 6.0), (28, 1.5), (80, 0.6)] {
            let falling: Vec<f64> = (0..layers).map(|layer| 60.0 - step * f64::from(layer)).collect();
            assert_eq!(fault_of(&cousin(&falling)), None, "{layers} layers");
            let rising: Vec<f64> = falling.iter().rev().copied().collect();
            assert_eq!(fault_of(&cousin(&rising)), None, "{layers} layers");
        }
        assert!(
            fixture::comparison().quants.iter().all(|quant| fault_of(quant).is_none()),
            "made-up K-quants are sound"
        );
    }

    #[test]
    fn fewer_bits_on_purpose_are_no_fault() {
        assert_eq!(fault_of(&broken(5, 0, "Q2_K")), None, "no layer else is in that encoding");
        let mut quant = broken(6, 0, "Q2_K");
        // Another layer in the same encoding, and sound: then it is one.
        for weight in quant.weights.iter_mut().filter(|w| place(&w.name).unwrap().0 == 5) {
            weight.encoding = "Q2_K".to_owned();
        }
        assert!(fault_of(&quant).unwrap().starts_with("layer 0 stands out"));
    }

    #[test]
    fn a_layer_that_amplifies_sound_weights_is_no_fault() {
        let mut quant = broken(5, 2, "Q8_0");
        for weight in &mut quant.weights {
            weight.sqnr_db = Some(43.0);
        }
        assert_eq!(fault_of(&quant), None);
        quant.weights.clear();
        assert_eq!(fault_of(&quant), None, "without weights nothing can be blamed on them");
    }

    #[test]
    fn what_equals_base_elsewhere_is_said_so() {
        let mut quant = broken(4, 2, "F32");
        for weight in quant.weights.iter_mut().filter(|w| !w.name.starts_with("model.layers.2.")) {
            (weight.encoding, weight.sqnr_db, weight.identical) = ("F32".to_owned(), None, true);
        }
        let said = fault_of(&quant).unwrap();
        assert!(said.contains("(mlp.down_proj: 3.1 dB against no error elsewhere)"), "{said}");
        quant.model.path = "base@lora=adapter".to_owned();
        assert_eq!(fault_of(&quant), None, "an adapter may change one layer only");
    }

    #[test]
    fn what_cannot_be_measured_blames_nobody() {
        let mut quant = broken(5, 2, "Q8_0");
        quant.layers.clear();
        assert_eq!(fault_of(&quant), None);
        let mut quant = broken(5, 2, "Q8_0");
        for layer in &mut quant.layers {
            layer.injected = None;
        }
        assert_eq!(fault_of(&quant), None, "other depths have no error by layer");
        assert_eq!(fault_of(&cousin(&[f64::NAN, 40.0, 41.0])), None);
        assert_eq!(fault_of(&cousin(&[])), None);
    }
}
