//! SQNR along the layers: cumulative (all errors so far) and injected (each layer's own), in two
//! panels over the same axes. An output that equals base's exactly has no SQNR and sits on a line of
//! its own above the plot. First positions are left out where they can be: their massive activations
//! would make every layer look alike.

use super::axis::{Axis, Scale};
use super::picture::{Align, Ink, LABEL, Picture, Rect, TICK};
use super::{Series, Title, all_series, legend_of, note_missing};
use crate::comparison::{Comparison, ErrorView, LayerComparison, LayerErrors, Stage};
use crate::report::format::plain;

const PANEL: f64 = 310.0;

/// One of the two views of a layer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum View {
    Cumulative,
    Injected,
}

pub(super) fn caption(_: &Comparison) -> String {
    "Signal-to-noise ratio (SQNR, decibels; higher is closer to base) of the residual stream after the \
     embedding (E) and after every layer, without each request's first position. Cumulative: the quant on \
     its own input, so that the errors of all layers before add up. Injected: the quant's layer on base's \
     input, the error that this layer adds by itself."
        .to_owned()
}

pub(super) fn draw(comparison: &Comparison, width: f64, title: Title) -> Picture {
    let mut picture = Picture::new(width, 0.0);
    let mut top = title.map_or(4.0, |(title, subtitle)| picture.title(title, &subtitle));
    let (drawn, missing): (Vec<_>, Vec<_>) = all_series(comparison).into_iter().partition(is_drawable);
    top += picture.legend(top, &legend_of(&drawn));
    let beside = width > 600.0;
    let panels: Vec<View> = [View::Cumulative, View::Injected]
        .into_iter()
        .filter(|v| drawn.iter().any(|s| !points(s, *v).is_empty()))
        .collect();
    picture.height = top + PANEL * if beside { 1.0 } else { panels.len().max(1) as f64 };
    if panels.is_empty() {
        picture.instead("no layer could be compared");
    }
    let panel_width = if beside { width / panels.len().max(1) as f64 } else { width };
    let axes = shared_axes(&drawn);
    for (i, view) in panels.into_iter().enumerate() {
        let (left, top) = if beside { (i as f64 * panel_width, top) } else { (0.0, top + i as f64 * PANEL) };
        let area = Rect { left, top, right: left + panel_width, bottom: top + PANEL };
        draw_panel(&mut picture, &drawn, view, area, &axes);
    }
    let missing: Vec<String> = missing.iter().map(Series::label).collect();
    note_missing(&mut picture, &missing, "other depth or width: see CKA in the table");
    picture
}

/// What both panels have in common.
struct Axes {
    x: Axis,
    y: Axis,
    has_identical: bool,
}

fn shared_axes(drawn: &[Series<'_>]) -> Axes {
    let all: Vec<(f64, Option<f64>)> = drawn
        .iter()
        .flat_map(|s| [View::Cumulative, View::Injected].map(|v| points(s, v)))
        .flatten()
        .collect();
    Axes {
        x: Axis::around(Scale::Linear, all.iter().map(|(place, _)| *place), 0.02),
        y: Axis::around(Scale::Linear, all.iter().filter_map(|(_, db)| *db), 0.06),
        has_identical: all.iter().any(|(_, db)| db.is_none()),
    }
}

fn draw_panel(picture: &mut Picture, drawn: &[Series<'_>], view: View, area: Rect, axes: &Axes) {
    let slot = if axes.has_identical { 26.0 } else { 0.0 };
    let plot = Rect {
        left: area.left + 44.0,
        top: area.top + 30.0 + slot,
        right: area.right - 14.0,
        bottom: area.bottom - 50.0,
    };
    let (x, y) = (axes.x.onto(plot.left + 6.0, plot.right - 6.0), axes.y.onto(plot.bottom, plot.top));
    let name = match view {
        View::Cumulative => "cumulative SQNR, dB",
        View::Injected => "injected SQNR, dB",
    };
    picture.text((area.left + 16.0, area.top + 12.0), name, LABEL, Ink::Foreground, Align::Start);
    picture.rows(plot, &y, 6, plain);
    let whole = |place: f64| if place < 0.0 { "E".to_owned() } else { plain(place) };
    columns_of_layers(picture, plot, &x, drawn, whole);
    picture.text(
        ((plot.left + plot.right) / 2.0, plot.bottom + 36.0),
        "layer",
        TICK,
        Ink::Muted,
        Align::Middle,
    );
    let identical_at = plot.top - slot / 2.0 - 2.0;
    if axes.has_identical {
        picture.line(vec![(plot.left, identical_at), (plot.right, identical_at)], Ink::Grid, 1.0, true);
        let at = (plot.right, identical_at - 11.0);
        picture.text(at, "no error at all (identical)", TICK, Ink::Muted, Align::End);
    }
    for s in drawn {
        draw_profile(picture, s, &points(s, view), (&x, &y), identical_at);
    }
}

fn columns_of_layers(
    picture: &mut Picture,
    plot: Rect,
    x: &Axis,
    drawn: &[Series<'_>],
    label: impl Fn(f64) -> String,
) {
    let places = drawn.iter().flat_map(|s| s.quant.layers.iter().map(place_of));
    let last = places.fold(-1.0, f64::max);
    let wanted = ((plot.right - plot.left) / 36.0).max(2.0);
    let every = [1.0, 2.0, 4.0, 5.0, 8.0, 10.0, 16.0, 20.0, 32.0, 50.0, 64.0, 100.0];
    let every = every.into_iter().find(|e| (last + 2.0) / e <= wanted).unwrap_or(200.0);
    let layers = (0..).map(|i| f64::from(i) * every).take_while(|layer| *layer <= last);
    for layer in std::iter::once(-1.0).chain(layers) {
        let Some(at) = x.place(layer) else { continue };
        picture.line(vec![(at, plot.bottom), (at, plot.bottom + 4.0)], Ink::Muted, 1.0, false);
        picture.text((at, plot.bottom + 15.0), label(layer), TICK, Ink::Muted, Align::Middle);
    }
    picture.line(vec![(plot.left, plot.bottom), (plot.right, plot.bottom)], Ink::Muted, 1.0, false);
}

fn draw_profile(
    picture: &mut Picture,
    series: &Series<'_>,
    points: &[(f64, Option<f64>)],
    (x, y): (&Axis, &Axis),
    identical_at: f64,
) {
    // As in the legend, and in every other chart.
    let (style, dashed) = (series.style(), series.index.is_none());
    let mut run = Vec::new();
    for (place, db) in points {
        let Some(across) = x.place(*place) else { continue };
        match db.and_then(|db| y.place(db)) {
            Some(height) => run.push((across, height)),
            None => {
                picture.line(std::mem::take(&mut run), style.0, 2.0, dashed);
                picture.dot((across, identical_at), 4.0, style, true);
            }
        }
    }
    let is_sparse = points.len() <= 48;
    picture.line(run, style.0, 2.0, dashed);
    for (place, db) in points {
        if let (true, Some(across), Some(height)) =
            (is_sparse, x.place(*place), db.and_then(|db| y.place(db)))
        {
            picture.dot((across, height), 2.8, style, false);
        }
    }
}

/// Place on the axis and SQNR (None: identical) of every layer that has this view and a figure.
fn points(series: &Series<'_>, view: View) -> Vec<(f64, Option<f64>)> {
    let figures = series.quant.layers.iter().filter_map(|layer| {
        let errors = match view {
            View::Cumulative => layer.cumulative.as_ref(),
            View::Injected => layer.injected.as_ref(),
        };
        let view = preferred(errors?);
        match view.sqnr_db.filter(|db| db.is_finite()) {
            Some(db) => Some((place_of(layer), Some(db))),
            None => view.identical.then(|| (place_of(layer), None)),
        }
    });
    figures.collect()
}

/// Without the first positions, where anything else was probed.
fn preferred(errors: &LayerErrors) -> &ErrorView {
    errors.without_first.as_ref().unwrap_or(&errors.all)
}

/// The embedding is left of layer 0.
fn place_of(layer: &LayerComparison) -> f64 {
    match layer.stage {
        Stage::Embedding => -1.0,
        Stage::Layer => layer.layer as f64,
    }
}

fn is_drawable(series: &Series<'_>) -> bool {
    [View::Cumulative, View::Injected].into_iter().any(|view| !points(series, view).is_empty())
}
