//! Layers by projections: how far each weight matrix is from base's, and how much each linear's output on base's
//! input is off. One panel per cousin and view, all panels of a view in one scale. Rows go by the names in the data,
//! so fused and expert projections have theirs; where several share a cell, the worst is shown.

use std::collections::BTreeMap;

use super::heat::{self, STEPS};
use super::picture::{self, Align, Ink, LABEL, LINE, Picture, Rect, TICK, fitted};
use super::render::text_width;
use super::{Series, Title, all_series, note_at_bottom, note_missing};
use crate::comparison::{Comparison, ErrorView, LayerErrors, QuantComparison, Stage};
use crate::report::format::{number, plain, visible};

/// Layers that a picture can hold; a file may claim any number.
const MOST_LAYERS: usize = 512;
/// Rows of a panel.
const MOST_ROWS: usize = 16;
/// Height that a picture may have.
const MOST_HEIGHT: f64 = 3860.0;
/// Of a panel: its name, the numbers of layers, the line on the worst, and air.
const AROUND: f64 = 62.0;
/// The row of the residual stream.
const WHOLE: &str = "whole layer";
/// From the top of an attention block to the end of a layer.
const ORDER: [&str; 12] = [
    "q_proj",
    "k_proj",
    "v_proj",
    "qkv_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "gate_up_proj",
    "down_proj",
    WHOLE,
    "embedding",
    "head",
];

/// What a panel shows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum View {
    /// Weights against base's.
    Weight,
    /// Outputs of linears on base's input.
    Injected,
}

impl View {
    fn name(self) -> &'static str {
        match self {
            View::Weight => "weight",
            View::Injected => "injected",
        }
    }
}

/// A cell's figure.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Cell {
    /// Signal-to-noise ratio, dB.
    Db(f64),
    /// No error at all.
    Same,
}

/// One cousin's figures: by row, and by layer or outside of all layers.
struct Grid {
    cells: BTreeMap<(String, Option<usize>), Cell>,
}

/// All panels of a view: their common rows, layers and scale.
struct Map<'a> {
    view: View,
    rows: Vec<String>,
    layers: usize,
    low: f64,
    high: f64,
    grids: Vec<(Series<'a>, Grid)>,
}

/// Whether any weight or linear was compared.
pub(super) fn is_drawn(comparison: &Comparison) -> bool {
    !maps(comparison).is_empty()
}

pub(super) fn caption(comparison: &Comparison) -> String {
    let maps = maps(comparison);
    let has = |view: View| maps.iter().any(|map| map.view == view);
    let weight = "Weight: every weight matrix against base's. Norms, biases and other vectors are left out.";
    let injected = "Injected: the output of the cousin's linear on base's input, without each request's first position; \
                    “whole layer” is the residual stream after it.";
    let of_views = [(View::Weight, weight), (View::Injected, injected)];
    let parts: Vec<&str> =
        of_views.into_iter().filter(|(view, _)| has(*view)).map(|(_, text)| text).collect();
    format!(
        "Signal-to-noise ratio (SQNR, decibels) by layer and projection; the more a cell stands out from the \
         page, the larger the error. \
         {} Panels of a view share one scale. Where several matrices share a cell, as experts do, it shows the worst; \
         an empty cell was not measured. The frame is around each panel's worst cell.",
        parts.join(" ")
    )
}

pub(super) fn draw(comparison: &Comparison, width: f64, title: Title) -> Picture {
    let mut picture = Picture::new(width, 0.0);
    let mut top = title.map_or(4.0, |(title, subtitle)| picture.title(title, &subtitle));
    let maps = maps(comparison);
    if maps.is_empty() {
        picture.height = top + 120.0;
        picture.instead("no weight matrix could be compared");
        return picture;
    }
    for map in &maps {
        top += draw_scale(&mut picture, map, top);
    }
    top += 6.0;
    let panels = in_order(&maps);
    let beside = match (width > 600.0, maps.len(), maps.iter().map(|m| m.layers).max()) {
        (false, ..) => 1,
        (true, 1, Some(layers)) if layers <= 16 => panels.len().clamp(1, 3),
        _ => 2,
    };
    let rows = maps.iter().map(|map| map.rows.len()).max().unwrap_or(1).max(1) as f64;
    let lines = panels.len().div_ceil(beside) as f64;
    let row = (((MOST_HEIGHT - top) / lines - AROUND) / rows).clamp(12.0, 18.0);
    let height = rows * row + AROUND;
    let room = (((MOST_HEIGHT - top) / height) as usize).max(1) * beside;
    for (i, (map, at)) in panels.iter().take(room).enumerate() {
        let (left, top) = ((i % beside) as f64 * width / beside as f64, top + (i / beside) as f64 * height);
        let area = Rect { left, top, right: left + width / beside as f64, bottom: top + height };
        if let Some((series, grid)) = map.grids.get(*at) {
            draw_panel(&mut picture, map, series, grid, (area, row));
        }
    }
    picture.height = top + panels.len().min(room).div_ceil(beside) as f64 * height;
    if panels.len() > room {
        note_at_bottom(&mut picture, &format!("the first {room} of {} panels", panels.len()));
    }
    let without = |s: &Series<'_>| {
        let drawn = |map: &Map<'_>| map.grids.iter().any(|(drawn, _)| drawn.index == s.index);
        s.index.is_some() && !maps.iter().any(drawn)
    };
    let missing: Vec<String> =
        all_series(comparison).iter().filter(|s| without(s)).map(Series::label).collect();
    note_missing(&mut picture, &missing, "no matrix with a finite figure");
    picture
}

/// Every cousin's panels side by side, as map and place in it.
fn in_order<'m, 'a>(maps: &'m [Map<'a>]) -> Vec<(&'m Map<'a>, usize)> {
    let mut panels: Vec<_> =
        maps.iter().flat_map(|map| (0..map.grids.len()).map(move |i| (map, i))).collect();
    panels.sort_by_key(|(map, i)| map.grids.get(*i).and_then(|(series, _)| series.index));
    panels
}

fn maps(comparison: &Comparison) -> Vec<Map<'_>> {
    [View::Weight, View::Injected].into_iter().filter_map(|view| map_of(comparison, view)).collect()
}

fn map_of(comparison: &Comparison, view: View) -> Option<Map<'_>> {
    let cousins = all_series(comparison).into_iter().filter(|s| s.index.is_some());
    let grids: Vec<_> = cousins
        .map(|series| {
            let cells = match view {
                View::Weight => weights(series.quant),
                View::Injected => injected(series.quant),
            };
            (series, Grid { cells })
        })
        .filter(|(_, grid)| !grid.cells.is_empty())
        .collect();
    let keys = || grids.iter().flat_map(|(_, grid)| grid.cells.keys());
    let layers = keys().filter_map(|(_, layer)| *layer).max().map_or(0, |last| last + 1);
    let mut rows: Vec<String> = keys().map(|(row, _)| row.clone()).collect();
    let rank = |row: &String| {
        let known = ORDER.iter().position(|name| name == row);
        // Unknown projections stand before the sums of a whole layer.
        known.map_or(ORDER.len() - 4, |i| i)
    };
    rows.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.cmp(b)));
    rows.dedup();
    rows.truncate(MOST_ROWS);
    let figures = || grids.iter().flat_map(|(_, grid)| grid.cells.values()).filter_map(db);
    let low = (figures().fold(f64::INFINITY, f64::min) / 5.0).floor() * 5.0;
    let high = (figures().fold(f64::NEG_INFINITY, f64::max) / 5.0).ceil() * 5.0;
    let (low, high) =
        if low.is_finite() && high.is_finite() { (low, high.max(low + 5.0)) } else { (0.0, 5.0) };
    (!grids.is_empty()).then_some(Map { view, rows, layers, low, high, grids })
}

fn db(cell: &Cell) -> Option<f64> {
    match cell {
        Cell::Db(db) => Some(*db),
        Cell::Same => None,
    }
}

fn weights(quant: &QuantComparison) -> BTreeMap<(String, Option<usize>), Cell> {
    let mut cells = BTreeMap::new();
    for weight in quant.weights.iter().filter(|weight| weight.shape.len() > 1) {
        let cell = cell_of(weight.sqnr_db, weight.identical);
        if let (Some(key), Some(cell)) = (place_of(&weight.name), cell) {
            add(&mut cells, key, cell);
        }
    }
    cells
}

fn injected(quant: &QuantComparison) -> BTreeMap<(String, Option<usize>), Cell> {
    let mut cells = BTreeMap::new();
    for linear in quant.linears.iter().filter(|linear| linear.layer < MOST_LAYERS) {
        let name = linear.linear.rsplit('.').next().unwrap_or(&linear.linear);
        if let Some(cell) = cell_of_errors(&linear.injected) {
            add(&mut cells, (name.to_owned(), Some(linear.layer)), cell);
        }
    }
    if cells.is_empty() {
        return cells;
    }
    for layer in quant.layers.iter().filter(|l| l.stage == Stage::Layer && l.layer < MOST_LAYERS) {
        if let Some(cell) = layer.injected.as_ref().and_then(cell_of_errors) {
            add(&mut cells, (WHOLE.to_owned(), Some(layer.layer)), cell);
        }
    }
    cells
}

fn cell_of_errors(errors: &LayerErrors) -> Option<Cell> {
    let view: &ErrorView = errors.without_first.as_ref().unwrap_or(&errors.all);
    cell_of(view.sqnr_db, view.identical)
}

fn cell_of(sqnr_db: Option<f64>, identical: bool) -> Option<Cell> {
    match sqnr_db.filter(|db| db.is_finite()) {
        Some(db) => Some(Cell::Db(db)),
        None => identical.then_some(Cell::Same),
    }
}

/// Of several matrices in one cell the worst.
fn add(cells: &mut BTreeMap<(String, Option<usize>), Cell>, key: (String, Option<usize>), cell: Cell) {
    let worse = match (cells.get(&key).copied(), cell) {
        (Some(Cell::Db(known)), Cell::Db(db)) => Cell::Db(known.min(db)),
        (Some(known @ Cell::Db(_)), Cell::Same) => known,
        _ => cell,
    };
    cells.insert(key, worse);
}

/// Row and layer of a tensor: "model.layers.3.self_attn.q_proj.weight" is `q_proj` of layer 3. Foreign text.
fn place_of(name: &str) -> Option<(String, Option<usize>)> {
    let mut parts: Vec<&str> = name.split('.').collect();
    if parts.last() == Some(&"weight") {
        parts.pop();
    }
    let row = (*parts.last()?).to_owned();
    match parts.iter().find_map(|part| part.parse::<usize>().ok()) {
        Some(layer) if layer < MOST_LAYERS => Some((row, Some(layer))),
        Some(_) => None,
        None if row.contains("embed") => Some(("embedding".to_owned(), None)),
        None if row.contains("head") => Some(("head".to_owned(), None)),
        None => Some((row, None)),
    }
}

/// The ink of a figure in its map's scale.
fn ink_of(cell: Cell, map: &Map<'_>) -> Ink {
    match cell {
        Cell::Db(db) => Ink::Error(heat::step((map.high - db) / (map.high - map.low))),
        Cell::Same => Ink::Same,
    }
}

/// An end of a scale; a file may hold any number.
fn decibels(db: f64) -> String {
    if db.abs() < 1e4 { plain(db) } else { number(db, 2) }
}

/// The scale of a view with its name before it; returns its height.
fn draw_scale(picture: &mut Picture, map: &Map<'_>, top: f64) -> f64 {
    let what = match map.view {
        View::Weight => "weight SQNR, dB (lower is worse)",
        View::Injected => "injected SQNR, dB (lower is worse)",
    };
    let is_wide = picture.width > 600.0;
    picture.text((16.0, top + LINE / 2.0), what, LABEL, Ink::Foreground, Align::Start);
    let (left, width, y) =
        if is_wide { (270.0, 340.0, top + 4.0) } else { (16.0, picture.width - 132.0, top + LINE + 4.0) };
    let shades: Vec<Ink> = (0..STEPS).rev().map(Ink::Error).collect();
    let ends =
        [(0.0, decibels(map.low)), (0.5, decibels((map.low + map.high) / 2.0)), (1.0, decibels(map.high))];
    let height = heat::strip(picture, (left, y), width, &shades, &ends);
    let has_same = map.grids.iter().any(|(_, grid)| grid.cells.values().any(|cell| *cell == Cell::Same));
    if has_same {
        let from = left + width + 16.0;
        picture.cell(Rect { left: from, top: y, right: from + 18.0, bottom: y + 12.0 }, Ink::Same);
        picture.text((from + 24.0, y + 6.0), "identical", TICK, Ink::Muted, Align::Start);
    }
    y - top + height + 8.0
}

fn draw_panel(
    picture: &mut Picture,
    map: &Map<'_>,
    series: &Series<'_>,
    grid: &Grid,
    (area, row): (Rect, f64),
) {
    let size = row.min(TICK - 1.0);
    let name = format!("{} · {}", series.label(), map.view.name());
    picture.dot((area.left + 22.0, area.top + 11.0), 5.0, series.style(), false);
    let name = fitted(&name, LABEL, area.right - area.left - 44.0);
    picture.text((area.left + 34.0, area.top + 11.0), name, LABEL, Ink::Foreground, Align::Start);
    let top = area.top + 24.0;
    let left = area.left + 96.0;
    let plot = Rect { left, top, right: area.right - 14.0, bottom: top + map.rows.len() as f64 * row };
    for (i, name) in map.rows.iter().enumerate() {
        let name = fitted(&visible(name), size, plot.left - area.left - 18.0);
        let at = (plot.left - 6.0, plot.top + (i as f64 + 0.5) * row);
        picture.text(at, name, size, Ink::Muted, Align::End);
        draw_row(picture, map, grid, i, (plot, row));
    }
    draw_layers(picture, map.layers, plot);
    draw_worst(picture, map, grid, (plot, row), (area.left + 16.0, area.right - 8.0));
}

/// Where a cell lies; what is outside of all layers is as wide as all of them.
fn rect_of(map: &Map<'_>, row_index: usize, layer: Option<usize>, (plot, row): (Rect, f64)) -> Rect {
    let each = (plot.right - plot.left) / map.layers.max(1) as f64;
    let gap = if each >= 9.0 { 1.0 } else { 0.0 };
    let (left, right) = match layer {
        Some(layer) => (plot.left + layer as f64 * each, plot.left + (layer + 1) as f64 * each - gap),
        None => (plot.left, plot.right - gap),
    };
    let top = plot.top + row_index as f64 * row;
    Rect { left, top, right, bottom: top + row - 1.0 }
}

/// One row; neighbours of one shade become one rectangle where cells have no gap.
fn draw_row(picture: &mut Picture, map: &Map<'_>, grid: &Grid, i: usize, (plot, row): (Rect, f64)) {
    let Some(name) = map.rows.get(i) else { return };
    let ink = |layer: Option<usize>| Some(ink_of(*grid.cells.get(&(name.clone(), layer))?, map));
    if let Some(ink) = ink(None) {
        picture.cell(rect_of(map, i, None, (plot, row)), ink);
    }
    let mut run: Option<(Rect, Ink)> = None;
    for layer in 0..map.layers {
        let next = ink(Some(layer)).map(|ink| (rect_of(map, i, Some(layer), (plot, row)), ink));
        run = match (run, next) {
            (Some((before, same)), Some((rect, ink))) if same == ink && before.right == rect.left => {
                Some((Rect { right: rect.right, ..before }, ink))
            }
            (before, next) => {
                if let Some((rect, ink)) = before {
                    picture.cell(rect, ink);
                }
                next
            }
        };
    }
    if let Some((rect, ink)) = run {
        picture.cell(rect, ink);
    }
}

/// Numbers of layers below the plot, as many as have room.
fn draw_layers(picture: &mut Picture, layers: usize, plot: Rect) {
    let each = (plot.right - plot.left) / layers.max(1) as f64;
    let widest = text_width(&plain(layers as f64), TICK) + 6.0;
    let steps = [1usize, 2, 5, 10, 20, 50, 100];
    let every = steps.into_iter().find(|step| *step as f64 * each >= widest).unwrap_or(200);
    for layer in (0..layers).step_by(every) {
        let x = plot.left + (layer as f64 + 0.5) * each;
        picture.text((x, plot.bottom + 9.0), plain(layer as f64), TICK - 1.0, Ink::Muted, Align::Middle);
    }
    if layers > 0 {
        picture.text((plot.left - 6.0, plot.bottom + 9.0), "layer", TICK - 1.0, Ink::Muted, Align::End);
    }
}

/// The frame around the worst cell, and the line that names it.
fn draw_worst(
    picture: &mut Picture,
    map: &Map<'_>,
    grid: &Grid,
    (plot, row): (Rect, f64),
    (left, right): (f64, f64),
) {
    let y = plot.bottom + 25.0;
    let Some(((name, layer), worst)) = worst_of(grid) else {
        return picture.text((left, y), "worst: none, all are identical", TICK, Ink::Muted, Align::Start);
    };
    if let Some(i) = map.rows.iter().position(|row| row == name) {
        let Rect { left, top, right, bottom } = rect_of(map, i, *layer, (plot, row));
        picture.frame_on_colour(Rect {
            left: left - 1.0,
            top: top - 1.0,
            right: right + 1.0,
            bottom: bottom + 1.0,
        });
    }
    let name = visible(name);
    let place = match layer {
        Some(layer) if name == WHOLE => format!("layer {layer} as a whole"),
        Some(layer) => format!("layer {layer} {name}"),
        None => name,
    };
    let text =
        format!("worst: {}, {} dB", picture::fitted(&place, TICK, right - left - 130.0), number(worst, 3));
    picture.text((left, y), text, TICK, Ink::Foreground, Align::Start);
}

/// The cell with the least signal-to-noise ratio, the first of several.
fn worst_of(grid: &Grid) -> Option<(&(String, Option<usize>), f64)> {
    let figures = grid.cells.iter().filter_map(|(key, cell)| Some((key, db(cell)?)));
    figures.min_by(|a, b| a.1.total_cmp(&b.1))
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::picture::Mark;
    use super::*;
    use crate::comparison::{LinearComparison, WeightComparison};
    use crate::report::fixture::{self, Damage, NONE};

    const PROJECTIONS: [&str; 7] = [
        "mlp.down_proj",
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
    ];

    /// `cousins` of `layers` layers with embedding and head, no two neighbouring cells alike.
    pub(in crate::report::charts) fn large(cousins: usize, layers: usize, label: &str) -> Comparison {
        let damage = Damage { sqnr_db: Some(20.0), kl: 0.01, ..NONE };
        let quants = (0..cousins).map(|c| {
            let mut quant = fixture::quant(&format!("{label}{c}"), damage);
            let of_layer = quant.layers[1].clone();
            let (weight, view) = (quant.weights[0].clone(), of_layer.injected.clone().unwrap());
            let db = |layer: usize, row: usize| 8.0 + ((layer * 17 + row * 29 + c * 5) % 41) as f64;
            let of = |name: String, db: f64| WeightComparison { name, sqnr_db: Some(db), ..weight.clone() };
            let places = || {
                (0..layers)
                    .flat_map(|l| PROJECTIONS.iter().enumerate().map(move |(row, name)| (l, row, *name)))
            };
            quant.weights = places()
                .map(|(l, row, name)| of(format!("model.layers.{l}.{name}.weight"), db(l, row)))
                .chain([
                    of("model.embed_tokens.weight".to_owned(), 30.0),
                    of("lm_head.weight".to_owned(), 31.0),
                ])
                .collect();
            let errors = |db: f64| {
                let mut errors = view.clone();
                errors.without_first.as_mut().unwrap().sqnr_db = Some(db);
                errors
            };
            quant.linears = places()
                .map(|(layer, row, name)| LinearComparison {
                    layer,
                    linear: name.to_owned(),
                    cumulative: view.clone(),
                    injected: errors(db(layer, row) + 4.0),
                })
                .collect();
            quant.layers = (0..layers)
                .map(|layer| {
                    let mut one = of_layer.clone();
                    (one.layer, one.base_layer, one.injected) =
                        (layer, layer, Some(errors(db(layer, 8) + 9.0)));
                    one
                })
                .collect();
            quant
        });
        fixture::of(quants.collect())
    }

    fn texts(picture: &Picture) -> Vec<&str> {
        let texts = picture.marks.iter().filter_map(|mark| match mark {
            Mark::Text { text, .. } => Some(text.as_str()),
            _ => None,
        });
        texts.collect()
    }

    fn cells(picture: &Picture) -> Vec<(Rect, Ink)> {
        let cells = picture.marks.iter().filter_map(|mark| match mark {
            Mark::Cells { rects, ink } => Some(rects.iter().map(|rect| (*rect, *ink))),
            _ => None,
        });
        cells.flatten().collect()
    }

    #[test]
    fn names_become_rows_and_layers() {
        let place = |name: &str| place_of(name);
        let in_layer = |row: &str, layer: usize| Some((row.to_owned(), Some(layer)));
        assert_eq!(place("model.layers.3.self_attn.q_proj.weight"), in_layer("q_proj", 3));
        assert_eq!(place("model.layers.12.mlp.experts.7.down_proj.weight"), in_layer("down_proj", 12));
        assert_eq!(place("model.layers.0.mlp.experts.gate_up_proj"), in_layer("gate_up_proj", 0));
        assert_eq!(place("model.embed_tokens.weight"), Some(("embedding".to_owned(), None)));
        assert_eq!(place("lm_head.weight"), Some(("head".to_owned(), None)));
        assert_eq!(place("model.layers.99999999.self_attn.q_proj.weight"), None, "no file has so many");
        assert_eq!(place(""), Some((String::new(), None)));
    }

    #[test]
    fn rows_stand_in_the_order_of_a_layer_and_vectors_are_left_out() {
        let mut comparison = large(1, 2, "m");
        let quant = &mut comparison.quants[0];
        let vector = WeightComparison {
            name: "model.layers.0.input_layernorm.weight".to_owned(),
            shape: vec![256],
            ..quant.weights[0].clone()
        };
        let router = WeightComparison {
            name: "model.layers.0.mlp.gate.weight".to_owned(),
            ..quant.weights[0].clone()
        };
        quant.weights.extend([vector, router]);
        let rows = map_of(&comparison, View::Weight).unwrap().rows;
        let expected = [
            "q_proj",
            "k_proj",
            "v_proj",
            "o_proj",
            "gate_proj",
            "up_proj",
            "down_proj",
            "gate",
            "embedding",
            "head",
        ];
        assert_eq!(rows, expected);
        assert_eq!(map_of(&comparison, View::Injected).unwrap().rows.last().unwrap(), WHOLE);
    }

    #[test]
    fn the_worst_cell_is_named_and_framed() {
        let mut comparison = large(2, 6, "cousin ");
        comparison.quants[1].weights.iter_mut().find(|w| w.name.contains("3.mlp.down")).unwrap().sqnr_db =
            Some(0.125);
        let picture = draw(&comparison, 920.0, None);
        let texts = texts(&picture);
        assert!(texts.contains(&"worst: layer 3 down_proj, 0.125 dB"), "{texts:?}");
        let framed = |picture: &Picture| {
            let is_frame =
                |m: &&Mark| matches!(m, Mark::Line { points, ink: Ink::Foreground, .. } if points.len() == 5);
            picture.marks.iter().filter(is_frame).count()
        };
        assert_eq!(framed(&picture), 4, "one in each panel");
        // The frame of the panel is around a cell of the last shade.
        let deepest: Vec<Rect> = cells(&picture)
            .into_iter()
            .filter(|(_, ink)| *ink == Ink::Error(STEPS - 1))
            .map(|(r, _)| r)
            .collect();
        let around = |r: &Rect| {
            picture.marks.iter().any(|mark| match mark {
                Mark::Line { points, ink: Ink::Foreground, .. } => {
                    points.first() == Some(&(r.left - 1.0, r.top - 1.0))
                }
                _ => false,
            })
        };
        assert!(deepest.iter().any(around));
    }

    #[test]
    fn of_several_matrices_in_one_cell_the_worst_counts() {
        let mut cells = BTreeMap::new();
        let key = || ("down_proj".to_owned(), Some(0));
        for (cell, expected) in [
            (Cell::Same, Cell::Same),
            (Cell::Db(20.0), Cell::Db(20.0)),
            (Cell::Db(30.0), Cell::Db(20.0)),
            (Cell::Same, Cell::Db(20.0)),
            (Cell::Db(10.0), Cell::Db(10.0)),
        ] {
            add(&mut cells, key(), cell);
            assert_eq!(cells.get(&key()), Some(&expected));
        }
        assert_eq!(cell_of(Some(f64::NAN), false), None, "not a number is missing, not identical");
    }

    #[test]
    fn identical_weights_have_a_colour_of_no_scale() {
        let comparison = fixture::of(vec![fixture::quant("same", NONE)]);
        let picture = draw(&comparison, 920.0, None);
        assert!(
            texts(&picture).contains(&"identical")
                && texts(&picture).contains(&"worst: none, all are identical")
        );
        assert_eq!(
            cells(&picture).iter().filter(|(_, ink)| *ink == Ink::Same).count(),
            36 + 1,
            "and the key"
        );
    }

    #[test]
    fn neighbours_of_one_shade_are_one_rectangle_where_cells_are_narrow() {
        let mut comparison = large(1, 200, "m");
        comparison.quants[0].linears.clear();
        comparison.quants[0].weights.iter_mut().for_each(|w| w.sqnr_db = Some(12.0));
        let picture = draw(&comparison, 360.0, None);
        assert_eq!(cells(&picture).len(), 9 + usize::from(STEPS), "one for each row, and the scale");
    }

    #[test]
    fn a_large_map_stays_small() {
        use super::super::{Chart, Room};
        for (cousins, layers) in [(10, 32), (10, 80)] {
            let comparison = large(cousins, layers, "Some-Organisation/Some-Model-27B-Q4_K_M-");
            for room in [Room::Wide, Room::Narrow] {
                let svg = Chart::LayerHeatmap.inline_svg(&comparison, room).unwrap();
                let most = if layers == 32 { 250_000 } else { 500_000 };
                assert!(svg.len() < most, "{layers} {room:?}: {}", svg.len());
                assert!(svg.matches("worst: ").count() == 20, "every cousin twice");
            }
        }
    }
}
