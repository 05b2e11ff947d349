//! Neighbours in the ranking against each other, on the same samples: is the order of the ranking shown?

use super::table::{Cell, Table, details};
use super::{Section, escaped, model_name};
use crate::comparison::Comparison;
use crate::comparison::pairwise::{Pair, PairedFigure};
use crate::report::format::Figure;
use crate::report::wording;

/// The section; empty without pairs.
pub(super) fn section(comparison: &Comparison, pairs: &[Pair]) -> Section {
    let html = if pairs.is_empty() { String::new() } else { html(comparison, pairs) };
    Section { id: "pairs", title: "Cousin against cousin", nav: "Pairs", html }
}

fn html(comparison: &Comparison, pairs: &[Pair]) -> String {
    let sentences = wording::pairs(comparison, pairs);
    let items: String = sentences.iter().map(|text| format!("<li>{}</li>", escaped(text))).collect();
    let mut table = Table::new(
        "Neighbours in the ranking: the one behind less the one ahead, on the same samples",
        &[
            ("ahead", ""),
            ("behind", ""),
            ("KL divergence", "difference, nats"),
            ("tokens", ""),
            ("p", "Holm"),
            ("KL divergence", ""),
            ("accuracy", "difference, points"),
            ("samples", ""),
            ("p", "Holm"),
            ("accuracy", ""),
        ],
    );
    for pair in pairs {
        let quant = |index: usize| comparison.quants.get(index);
        let (Some(better), Some(worse)) = (quant(pair.better), quant(pair.worse)) else { continue };
        let mut cells = vec![Cell::text(worse.model.label.as_str())];
        cells.extend(cells_of(pair.kl_divergence.as_ref(), |e| Figure::from(e)));
        cells.extend(cells_of(pair.accuracy.as_ref(), Figure::percent));
        table.row(model_name(better, Some(pair.better)), cells);
    }
    let note = "<p class=\"soft\">The intervals of two cousins may overlap and yet the same samples show which is closer \
        to base, and the other way round. Each cousin is held against the next in the ranking.</p>";
    let lead =
        wording::shown_steps(pairs).map(|text| format!("<p>{}</p>", escaped(&text))).unwrap_or_default();
    format!(
        "{lead}{note}<ul class=\"verdict\">{items}</ul>{}",
        details("All figures of the pairs", &table.html(), false)
    )
}

fn cells_of(figure: Option<&PairedFigure>, shown_as: fn(&crate::stats::Estimate) -> Figure) -> [Cell; 4] {
    let Some(figure) = figure else { return std::array::from_fn(|_| Cell::missing()) };
    let p = figure.p_holm.or(figure.p).filter(|p| p.is_finite());
    let observations = figure.difference.observations;
    [
        Cell::change(shown_as(&figure.difference)),
        Cell::labelled(observations as f64, crate::report::format::count(observations)),
        p.map_or_else(Cell::missing, |p| Cell::number(p, 2)),
        Cell::text(if figure.is_shown { "shown" } else { "not shown" }),
    ]
}
