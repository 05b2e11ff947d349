//! Tokens that a cousin sends through other experts than base does: how quantization hurts a mixture of experts.

use crate::comparison::{LayerComparison, QuantComparison};

use super::super::format::number;
use super::{Sentence, name, plain};

/// "q2_k sends 31 % of tokens through other experts than base, layer 7 the most (52 %); its layers' own errors alone
/// 4.1 %", for every cousin with experts. Means over the layers that have any, of probed tokens.
pub(super) fn other_experts(differing: &[&QuantComparison]) -> Vec<Sentence> {
    let say = |quant: &&QuantComparison| {
        let changed = |agreement: fn(&LayerComparison) -> Option<f64>| -> Vec<(usize, f64)> {
            quant.layers.iter().filter_map(|layer| Some((layer.layer, 1.0 - agreement(layer)?))).collect()
        };
        let own = changed(|layer| layer.router_agreement);
        let injected = changed(|layer| layer.injected_router_agreement);
        let (worst, most) = own.iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
        if *most == 0.0 {
            return Some(plain(format!("{} sends every token through base's experts.", name(quant))));
        }
        let alone = match mean(&injected) {
            Some(share) => format!("; its layers' own errors alone {} %", percent(share)),
            None => String::new(),
        };
        Some(plain(format!(
            "{} sends {} % of tokens through other experts than base, layer {worst} the most ({} %){alone}.",
            name(quant),
            percent(mean(&own)?),
            percent(*most)
        )))
    };
    differing.iter().filter_map(say).collect()
}

fn mean(shares: &[(usize, f64)]) -> Option<f64> {
    (!shares.is_empty()).then(|| shares.iter().map(|(_, share)| share).sum::<f64>() / shares.len() as f64)
}

fn percent(share: f64) -> String {
    number(100.0 * share, 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn the_layer_that_changes_most_is_named() {
        let mut quant = fixture::comparison().quants.remove(0);
        assert!(other_experts(&[&quant]).is_empty(), "a dense model has nothing to say");
        let layers = quant.layers.len();
        for (index, layer) in quant.layers.iter_mut().enumerate() {
            layer.router_agreement = Some(if index == 2 { 0.5 } else { 0.9 });
            layer.injected_router_agreement = Some(0.98);
        }
        let said = other_experts(&[&quant])[0].text.replace('\u{a0}', " ");
        let mean = 100.0 * (0.1 * (layers - 1) as f64 + 0.5) / layers as f64;
        assert!(said.contains(&format!("{} % of tokens through other experts", number(mean, 2))), "{said}");
        assert!(said.contains(&format!("layer {} the most (50 %)", quant.layers[2].layer)), "{said}");
        assert!(said.contains("own errors alone 2.0 %"), "{said}");
        quant.layers.iter_mut().for_each(|layer| layer.router_agreement = Some(1.0));
        assert!(other_experts(&[&quant])[0].text.contains("every token through base's experts"));
    }
}
