//! Sections about the inside of the models: layers, linear layers, weights.
//! Every function takes the comparison and returns a section, empty where nothing was probed.

use super::alternatives::drawn;
use super::table::{Cell, Table, details};
use super::{Section, escaped, indexed, model_name};
use crate::comparison::{Comparison, ErrorView, LayerErrors, QuantComparison, WeightComparison};
use crate::error::Result;
use crate::report::charts::Chart;
use crate::report::wording::layer_name;

/// Weights and linear layers shown per cousin; the tables beside the report hold all.
const WORST: usize = 12;

/// Layers, linear layers, weights.
pub(super) fn all(comparison: &Comparison) -> Result<Vec<Section>> {
    Ok(vec![
        Section { id: "layers", title: "Layer by layer", nav: "Layers", html: layers(comparison)? },
        Section { id: "linears", title: "Linear layers", nav: "Linears", html: linears(comparison) },
        Section { id: "weights", title: "Weights", nav: "Weights", html: weights(comparison) },
    ])
}

fn layers(comparison: &Comparison) -> Result<String> {
    if comparison.rows().all(|q| q.layers.is_empty()) {
        return Ok(String::new());
    }
    let mut table = Table::new(
        "Every layer of every cousin, without each request's first position where others were probed",
        &[
            ("layer", ""),
            ("model", ""),
            ("cumulative SQNR", "dB"),
            ("injected SQNR", "dB"),
            ("of the update", "injected, dB"),
            ("with first position", "cumulative, dB"),
            ("relative error", "cumulative"),
            ("cosine distance", "cumulative"),
            ("largest error", "cumulative"),
            ("kurtosis", "base"),
            ("kurtosis", "quant"),
            ("CKA", ""),
            ("same experts", "of tokens"),
            ("same experts", "injected"),
        ],
    );
    for (index, quant) in indexed(comparison) {
        for layer in &quant.layers {
            let (cumulative, injected) =
                (preferred(layer.cumulative.as_ref()), preferred(layer.injected.as_ref()));
            let figure = |view: Option<&ErrorView>, get: fn(&ErrorView) -> f64| {
                view.map_or_else(Cell::missing, |v| Cell::number(get(v), 3))
            };
            let cells = vec![
                Cell::text(if index.is_some() { quant.model.label.as_str() } else { "noise floor" }),
                sqnr(cumulative, |v| v.sqnr_db),
                sqnr(injected, |v| v.sqnr_db),
                sqnr(injected, |v| v.update_sqnr_db),
                sqnr(layer.cumulative.as_ref().map(|e| &e.all), |v| v.sqnr_db),
                figure(cumulative, |v| v.relative_error),
                figure(cumulative, |v| v.cosine_distance),
                figure(cumulative, |v| v.max_abs_error),
                figure(cumulative, |v| v.base_kurtosis),
                figure(cumulative, |v| v.quant_kurtosis),
                layer.cka.map_or_else(Cell::missing, |cka| Cell::number(cka, 4)),
                layer.router_agreement.map_or_else(Cell::missing, |share| Cell::number(share, 4)),
                layer.injected_router_agreement.map_or_else(Cell::missing, |share| Cell::number(share, 4)),
            ];
            table.row(escaped(layer_name(layer).trim_start_matches("the ")), cells);
        }
    }
    let non_finite: u64 = comparison
        .rows()
        .flat_map(|q| &q.layers)
        .filter_map(|l| Some(l.cumulative.as_ref()?.all.non_finite))
        .sum();
    let note = match non_finite {
        0 => String::new(),
        n => format!("<p class=\"note\">{n} elements were NaN or infinite and are in no figure.</p>"),
    };
    Ok(drawn(Chart::LayerHeatmap, comparison)?
        + &drawn(Chart::LayerProfile, comparison)?
        + &note
        + &details("All figures of every layer", &table.html(), false))
}

fn linears(comparison: &Comparison) -> String {
    let note = "<p class=\"soft\">The linear layers that add the largest error by themselves (injected: the \
        quant's linear on base's input).</p>";
    per_cousin(comparison, note, |quant| {
        let mut order: Vec<_> = quant.linears.iter().collect();
        let key =
            |errors: &LayerErrors| preferred(Some(errors)).and_then(|v| v.sqnr_db).unwrap_or(f64::INFINITY);
        order.sort_by(|a, b| key(&a.injected).total_cmp(&key(&b.injected)));
        let mut table = Table::new(
            "Linear layers with the lowest injected SQNR",
            &[
                ("linear layer", ""),
                ("injected SQNR", "dB"),
                ("cumulative SQNR", "dB"),
                ("relative error", "injected"),
            ],
        );
        for linear in order.into_iter().take(WORST) {
            let injected = preferred(Some(&linear.injected));
            let cells = vec![
                sqnr(injected, |v| v.sqnr_db),
                sqnr(preferred(Some(&linear.cumulative)), |v| v.sqnr_db),
                injected.map_or_else(Cell::missing, |v| Cell::number(v.relative_error, 3)),
            ];
            table.row(escaped(&format!("{} · {}", linear.layer, linear.linear)), cells);
        }
        table
    })
}

fn weights(comparison: &Comparison) -> String {
    let note = "<p class=\"soft\">The weights furthest from base's, by signal-to-noise ratio of their elements. \
        A weight may be far off and matter little: the layers above say what came of it.</p>";
    per_cousin(comparison, note, |quant| {
        let mut order: Vec<&WeightComparison> = quant.weights.iter().filter(|w| !w.identical).collect();
        order.sort_by(|a, b| {
            a.sqnr_db.unwrap_or(f64::INFINITY).total_cmp(&b.sqnr_db.unwrap_or(f64::INFINITY))
        });
        let identical = quant.weights.len() - order.len();
        let mut table = Table::new(
            format!(
                "Weights with the lowest SQNR, of {}; {identical} are identical to base's",
                quant.weights.len()
            ),
            &[
                ("weight", ""),
                ("encoding", ""),
                ("in base", ""),
                ("shape", ""),
                ("bits", "per weight"),
                ("SQNR", "dB"),
            ],
        );
        for weight in order.into_iter().take(WORST) {
            let shape: Vec<String> = weight.shape.iter().map(ToString::to_string).collect();
            let cells = vec![
                Cell::text(weight.encoding.as_str()),
                Cell::text(weight.base_encoding.as_str()),
                Cell::labelled(weight.shape.iter().map(|&n| n as f64).product(), shape.join(" × ")),
                Cell::number(weight.bits_per_weight, 3),
                weight.sqnr_db.map_or_else(Cell::missing, |db| Cell::number(db, 3)),
            ];
            table.row(escaped(&weight.name), cells);
        }
        table
    })
}

/// One closed table per cousin, behind a note; nothing if all are empty.
fn per_cousin(comparison: &Comparison, note: &str, table: impl Fn(&QuantComparison) -> Table) -> String {
    let tables =
        indexed(comparison).filter(|(index, _)| index.is_some()).map(|(index, q)| (index, q, table(q)));
    let html: String = tables
        .filter(|(.., table)| !table.is_empty())
        .map(|(index, quant, table)| details(&model_name(quant, index), &table.html(), false))
        .collect();
    if html.is_empty() { html } else { note.to_owned() + &html }
}

fn sqnr(view: Option<&ErrorView>, get: fn(&ErrorView) -> Option<f64>) -> Cell {
    match view {
        None => Cell::missing(),
        Some(view) => match get(view) {
            Some(db) => Cell::number(db, 3),
            None if view.identical => Cell::text("identical"),
            None => Cell::missing(),
        },
    }
}

/// Without the first positions, where anything else was probed.
fn preferred(errors: Option<&LayerErrors>) -> Option<&ErrorView> {
    errors.map(|e| e.without_first.as_ref().unwrap_or(&e.all))
}
