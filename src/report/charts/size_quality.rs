//! Mean KL divergence against size: what a bit costs. The line joins the cousins that no other one
//! beats in both (the Pareto frontier). Bits per weight where all models have base's number of
//! weights, else megabytes. A mean of exactly zero has a place of its own below the logarithmic axis.

use super::axis::{Axis, Scale};
use super::picture::{Align, Ink, LABEL, LINE, Picture, Rect, TICK, end_of, fitted};
use super::render::text_width;
use super::{Series, Title, all_series, note_missing};
use crate::comparison::{Comparison, ModelCard};
use crate::report::format::{Figure, number, plain};

const HEIGHT: f64 = 380.0;
/// Room below the plot for a mean of zero.
const SLOT: f64 = 34.0;

/// What a pixel of distance between a label and its point costs, in square pixels covered.
const FAR: f64 = 1.5;
/// What a shortened name costs, likewise.
const SHORTENING: f64 = 16.0;

/// What the horizontal axis shows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Size {
    BitsPerWeight,
    Megabytes,
}

/// A cousin's place in the picture.
struct Point<'a> {
    series: &'a Series<'a>,
    size: f64,
    kl: Figure,
    at: (f64, f64),
}

pub(super) fn caption(comparison: &Comparison) -> String {
    let size = match size_axis(comparison) {
        Size::BitsPerWeight => "bits per weight, scales included",
        Size::Megabytes => "megabytes of weights",
    };
    format!(
        "Mean KL divergence from base (nats, logarithmic, lower is closer) against {size}, with intervals. \
         The line is the Pareto front: it joins the cousins that no other cousin beats in both size and divergence. \
         Hollow signs are off the front."
    )
}

pub(super) fn draw(comparison: &Comparison, width: f64, title: Title) -> Picture {
    let top = if title.is_some() { 64.0 } else { 0.0 };
    let mut picture = Picture::new(width, HEIGHT + top);
    if let Some((title, subtitle)) = title {
        picture.title(title, &subtitle);
    }
    let series = all_series(comparison);
    let (drawn, missing): (Vec<_>, Vec<_>) =
        series.iter().filter(|s| s.index.is_some()).partition(|s| mean(s).value.is_finite());
    if drawn.is_empty() {
        picture.instead("no cousin has a finite mean KL divergence");
        return picture;
    }
    let has_zero = drawn.iter().any(|s| mean(s).value <= 0.0);
    let slot = if has_zero { SLOT } else { 0.0 };
    let plot = Rect { left: 68.0, top: top + 2.0 * LINE, right: width - 16.0, bottom: top + HEIGHT - 50.0 };
    let floor = comparison.noise_floor.as_ref().map(|q| Figure::from(&q.overall.kl_divergence.mean));
    let (x, y) = axes(comparison, &drawn, floor, Rect { bottom: plot.bottom - slot, ..plot });
    let kind = size_axis(comparison);
    picture.rows(plot, &y, 6, |kl| number(kl, 1));
    picture.columns(plot, &x, (width / 90.0) as usize, plain);
    let name = match kind {
        Size::BitsPerWeight => "bits per weight, scales included",
        Size::Megabytes => "size of the weights, MB",
    };
    picture.axis_names(plot, "mean KL divergence, nats", name);
    draw_key(&mut picture, plot);
    if has_zero {
        let y = plot.bottom - SLOT / 2.0;
        picture.line(vec![(plot.left, y), (plot.right, y)], Ink::Grid, 1.0, true);
        picture.text((plot.left - 8.0, y), "0", TICK, Ink::Muted, Align::End);
    }
    let floor_line = floor.and_then(|f| y.place(f.value));
    draw_floor(&mut picture, plot, floor_line);
    let points = placed(&drawn, kind, (&x, &y), plot.bottom - SLOT / 2.0);
    draw_points(&mut picture, &points, &y, plot, floor_line);
    let missing: Vec<String> = missing.iter().map(|s| s.label()).collect();
    note_missing(&mut picture, &missing, "no finite mean");
    picture
}

/// What the line is, at the right of the axis' name.
fn draw_key(picture: &mut Picture, plot: Rect) {
    let (name, y) = ("Pareto front", plot.top - 18.0);
    let left = plot.right - text_width(name, TICK) - 28.0;
    picture.line(vec![(left, y), (left + 22.0, y)], Ink::Muted, 2.0, false);
    picture.text((left + 28.0, y), name, TICK, Ink::Muted, Align::Start);
}

fn axes(comparison: &Comparison, drawn: &[&Series<'_>], floor: Option<Figure>, plot: Rect) -> (Axis, Axis) {
    let kind = size_axis(comparison);
    let sizes = drawn.iter().map(|s| size(&s.quant.model, kind));
    let means = drawn.iter().map(|s| mean(s)).chain(floor);
    let heights = means.flat_map(|f| {
        let (lower, upper) = f.ends();
        // A lower end near zero would stretch a logarithmic axis without end.
        [f.value, upper, lower.max(f.value / 3.0)]
    });
    let y = Axis::around(Scale::Log, heights, 0.1).onto(plot.bottom, plot.top);
    (Axis::around(Scale::Linear, sizes, 0.08).onto(plot.left, plot.right), y)
}

fn placed<'a>(drawn: &[&'a Series<'a>], kind: Size, (x, y): (&Axis, &Axis), zero: f64) -> Vec<Point<'a>> {
    let place = |s: &&'a Series<'a>| {
        let (size, kl) = (size(&s.quant.model, kind), mean(s));
        let height = y.place(kl.value).unwrap_or(zero);
        Some(Point { series: s, size, kl, at: (x.place(size)?, height) })
    };
    drawn.iter().filter_map(place).collect()
}

fn draw_floor(picture: &mut Picture, plot: Rect, floor: Option<f64>) {
    let Some(y) = floor else { return };
    picture.line(vec![(plot.left, y), (plot.right, y)], Ink::Noise, 2.0, true);
    let at = (plot.left + 4.0, y + 12.0);
    picture.text(at, "noise floor (bf16)", TICK, Ink::Muted, Align::Start);
}

fn draw_points(picture: &mut Picture, points: &[Point<'_>], y: &Axis, plot: Rect, floor: Option<f64>) {
    let front = frontier(points);
    picture.line(front.clone(), Ink::Muted, 2.0, false);
    for point in points {
        let (ink, _) = point.series.style();
        if point.kl.has_interval() && point.kl.value > 0.0 {
            let (lower, upper) = point.kl.ends();
            let low = y.place(lower.max(f64::MIN_POSITIVE)).unwrap_or(point.at.1);
            let high = y.place(upper).unwrap_or(point.at.1);
            picture.bar((low, high), point.at.0, ink, false);
        }
        let (is_on_front, style) = (front.contains(&point.at), point.series.style());
        if !is_on_front {
            picture.dot(point.at, 5.5, (Ink::Page, style.1), false);
        }
        picture.dot(point.at, 5.5, style, !is_on_front);
    }
    let mut taken: Vec<Rect> = points.iter().map(|p| around(p.at, 7.0, 7.0)).collect();
    taken.extend(along(&front).map(|at| around(at, 2.0, 2.0)));
    if let Some(y) = floor {
        let label = text_width("noise floor (bf16)", TICK);
        taken.push(Rect { left: plot.left, top: y - 2.0, right: plot.left + label + 8.0, bottom: y + 22.0 });
    }
    for point in points {
        let (name, place) = named_place(point, &taken, plot);
        picture.text(place.at, name, LABEL, Ink::Foreground, place.align);
        taken.push(place.rect);
    }
}

/// Where a label goes, and how much it covers there.
struct Place {
    at: (f64, f64),
    align: Align,
    rect: Rect,
    cost: f64,
}

/// A point's name and its place: the whole name, or its end where that covers less.
fn named_place(point: &Point<'_>, taken: &[Rect], plot: Rect) -> (String, Place) {
    let whole = point.series.label();
    let most = (plot.right - plot.left) * 0.45;
    let place = |name: String| {
        let place = free_place(point.at, text_width(&name, LABEL), taken, plot);
        (name, place)
    };
    let (long, short) = (place(fitted(&whole, LABEL, most)), place(end_of(&whole, LABEL, most * 0.6)));
    if long.1.cost > short.1.cost + SHORTENING { short } else { long }
}

/// Where a label of the given width fits beside its point: to the right, to the left or centred, at the
/// point's height, a little above or below, further off. If it fits nowhere, where it covers least.
fn free_place(point: (f64, f64), width: f64, taken: &[Rect], plot: Rect) -> Place {
    const OFFSETS: [f64; 9] = [0.0, -11.0, 11.0, -20.0, 20.0, -32.0, 32.0, -46.0, 46.0];
    const BESIDE: f64 = 11.0;
    let half = LABEL / 2.0 + 1.0;
    let room = Rect {
        left: plot.left + 2.0,
        top: plot.top - 8.0,
        right: plot.right + 14.0,
        bottom: plot.bottom - 1.0,
    };
    let places = OFFSETS.into_iter().flat_map(|dy| {
        let (x, y) = (point.0, point.1 + dy);
        let place = |x: f64, align: Align, centre: f64| {
            let rect = around((centre, y), width / 2.0, half);
            let covered: f64 = taken.iter().map(|t| overlap(&rect, t)).sum();
            // Far from its point a label is taken for another's.
            Place { at: (x, y), align, rect, cost: outside(&rect, &room) * 4.0 + covered + dy.abs() * FAR }
        };
        [
            place(x + BESIDE, Align::Start, x + BESIDE + width / 2.0),
            place(x - BESIDE, Align::End, x - BESIDE - width / 2.0),
            place(x, Align::Middle, x),
        ]
    });
    let nowhere =
        Place { at: point, align: Align::Start, rect: around(point, width / 2.0, half), cost: f64::INFINITY };
    places.min_by(|a, b| a.cost.total_cmp(&b.cost)).unwrap_or(nowhere)
}

/// Points every few pixels along a line.
fn along(line: &[(f64, f64)]) -> impl Iterator<Item = (f64, f64)> {
    line.windows(2).flat_map(|ends| {
        let ((x0, y0), (x1, y1)) = (ends[0], ends[1]);
        let steps = ((x1 - x0).hypot(y1 - y0) / 4.0).ceil().max(1.0);
        (0..=steps as usize).map(move |i| {
            let share = i as f64 / steps;
            (x0 + (x1 - x0) * share, y0 + (y1 - y0) * share)
        })
    })
}

fn around((x, y): (f64, f64), half_width: f64, half_height: f64) -> Rect {
    Rect { left: x - half_width, top: y - half_height, right: x + half_width, bottom: y + half_height }
}

/// Area that two rectangles have in common, square pixels.
fn overlap(a: &Rect, b: &Rect) -> f64 {
    let width = a.right.min(b.right) - a.left.max(b.left);
    let height = a.bottom.min(b.bottom) - a.top.max(b.top);
    width.max(0.0) * height.max(0.0)
}

/// Area of `a` that is not within `room`, square pixels.
fn outside(a: &Rect, room: &Rect) -> f64 {
    (a.right - a.left) * (a.bottom - a.top) - overlap(a, room)
}

/// Places of the points that no other point beats in both, from small to large.
fn frontier(points: &[Point<'_>]) -> Vec<(f64, f64)> {
    let mut ordered: Vec<&Point<'_>> = points.iter().collect();
    ordered.sort_by(|a, b| a.size.total_cmp(&b.size).then(a.kl.value.total_cmp(&b.kl.value)));
    let mut best = f64::INFINITY;
    let mut line = Vec::new();
    for point in ordered {
        if point.kl.value < best {
            best = point.kl.value;
            line.push(point.at);
        }
    }
    line
}

fn size_axis(comparison: &Comparison) -> Size {
    let base = comparison.base.parameters as f64;
    let same =
        |m: &ModelCard| (m.parameters as f64 - base).abs() <= 0.01 * base && m.bits_per_weight.is_finite();
    if comparison.quants.iter().all(|q| same(&q.model)) { Size::BitsPerWeight } else { Size::Megabytes }
}

fn size(model: &ModelCard, kind: Size) -> f64 {
    match kind {
        Size::BitsPerWeight => model.bits_per_weight,
        Size::Megabytes => model.weight_bytes as f64 / 1e6,
    }
}

fn mean(series: &Series<'_>) -> Figure {
    Figure::from(&series.quant.overall.kl_divergence.mean)
}
