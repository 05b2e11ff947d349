//! Accuracy against difficulty for base and every cousin, one small plot per task: where does a cousin fall off
//! first? Levels are equally far apart whatever they count. What guessing gives is dashed; the level at which a
//! cousin is first shown to be worse is marked by a larger, hollow sign.

use super::axis::{Axis, Scale};
use super::picture::{self, Align, Ink, LABEL, Picture, Rect, Shape, TICK, fitted};
use super::{Title, note_at_bottom};
use crate::comparison::Comparison;
use crate::report::format::{Figure, plain, visible};
use crate::report::questions::{self, Asked, Family};

/// Height of one plot with its title and axis.
const PANEL: f64 = 226.0;
/// Plots that a picture can hold.
const MOST: usize = 14;
/// Between the signs of two models at one level.
const DODGE: f64 = 5.0;
/// Base's sign: no cousin's, as the first of its line.
const BASE: (Ink, Shape) = (Ink::Foreground, Shape::Circle);

pub(super) fn caption(_: &Comparison) -> String {
    "Share of right answers (%) by level of difficulty, base in the colour of the text, with 95 % intervals where a \
     level has enough samples. Dashed: what guessing gives. A hollow sign marks the first level at which a cousin is \
     shown to be worse than base (5 %, Holm over the levels); without one, no level shows it."
        .to_owned()
}

/// Whether any task has levels.
pub(super) fn has_levels(comparison: &Comparison) -> bool {
    !questions::families(comparison, &questions::asked(comparison)).is_empty()
}

pub(super) fn draw(comparison: &Comparison, width: f64, title: Title) -> Picture {
    let mut picture = Picture::new(width, 0.0);
    let mut top = title.map_or(4.0, |(title, subtitle)| picture.title(title, &subtitle));
    let asked = questions::asked(comparison);
    let mut legend = vec![(visible(&comparison.base.label), BASE, false)];
    legend.extend(asked.iter().map(|a| (a.name(), picture::series(a.index), a.index.is_none())));
    top += picture.legend(top, &legend) + 4.0;
    let families = questions::families(comparison, &asked);
    if families.is_empty() {
        picture.height = top + 120.0;
        picture.instead("no task has levels of difficulty");
        return picture;
    }
    let shown = worst_first(&families);
    let beside = match width {
        w if w > 600.0 => shown.len().min(3),
        _ => 1,
    };
    let panel = width / beside as f64;
    for (i, family) in shown.iter().enumerate() {
        let (left, top) = ((i % beside) as f64 * panel, top + (i / beside) as f64 * PANEL);
        draw_panel(
            &mut picture,
            family,
            &asked,
            Rect { left, top, right: left + panel, bottom: top + PANEL },
        );
    }
    picture.height = top + shown.len().div_ceil(beside) as f64 * PANEL;
    if shown.len() < families.len() {
        let note =
            format!("{} of {} tasks, those with the largest loss at a level", shown.len(), families.len());
        note_at_bottom(&mut picture, &note);
    }
    picture
}

/// As many families as there is room for: in their order, or those with the largest loss at any level.
fn worst_first<'f, 'a>(families: &'f [Family<'a>]) -> Vec<&'f Family<'a>> {
    let loss = |family: &Family<'_>| {
        let cousins = 0..family.rows.len();
        let all = cousins.flat_map(|c| family.levels.iter().filter_map(move |level| family.at(c, *level)));
        all.map(|scores| scores.difference.value).filter(|v| v.is_finite()).fold(f64::INFINITY, f64::min)
    };
    let mut order: Vec<&Family<'_>> = families.iter().collect();
    if order.len() > MOST {
        order.sort_by(|a, b| loss(a).total_cmp(&loss(b)));
        order.truncate(MOST);
    }
    order
}

fn draw_panel(picture: &mut Picture, family: &Family<'_>, asked: &[Asked<'_>], area: Rect) {
    let plot = Rect {
        left: area.left + 54.0,
        top: area.top + 32.0,
        right: area.right - 12.0,
        bottom: area.bottom - 48.0,
    };
    let name = fitted(&visible(family.name), LABEL, area.right - area.left - 28.0);
    picture.text((area.left + 16.0, area.top + 12.0), name, LABEL, Ink::Foreground, Align::Start);
    let y = Axis::around(Scale::Linear, [0.0, 100.0], 0.0).onto(plot.bottom, plot.top);
    picture.rows(plot, &y, 5, |share| format!("{} %", plain(share)));
    let series = 1 + asked.len();
    // The outer levels keep their signs within the plot.
    let margin = (series as f64 * DODGE / 2.0).min((plot.right - plot.left) / 8.0) + 4.0;
    let last = family.levels.len().saturating_sub(1).max(1) as f64;
    let x = |level: usize| plot.left + margin + (plot.right - plot.left - 2.0 * margin) * level as f64 / last;
    level_names(picture, family, plot, &x);
    chance(picture, family, (&x, &y));
    let step = DODGE.min(2.0 * margin / series as f64);
    let shift = |s: usize| (s as f64 - (series - 1) as f64 / 2.0) * step;
    let base = family.base.iter().map(|estimate| estimate.map(Figure::percent));
    draw_line(picture, BASE, base.enumerate().map(|(i, f)| (x(i) + shift(0), f, false)).collect(), &y);
    for (cousin, Asked { index, .. }) in asked.iter().enumerate() {
        let falls = family.rows.get(cousin).copied().flatten().and_then(|row| row.falls_off_at);
        let points = family.levels.iter().enumerate().map(|(i, level)| {
            let figure = family.at(cousin, *level).map(|scores| Figure::percent(&scores.quant));
            (x(i) + shift(cousin + 1), figure, falls == Some(*level))
        });
        draw_line(picture, picture::series(*index), points.collect(), &y);
    }
}

/// Numbers of the levels below the plot, as many as there is room for, and what they count.
fn level_names(picture: &mut Picture, family: &Family<'_>, plot: Rect, x: &impl Fn(usize) -> f64) {
    let mut free_from = f64::NEG_INFINITY;
    for (i, level) in family.levels.iter().enumerate() {
        let text = level.to_string();
        let half = super::render::text_width(&text, TICK) / 2.0;
        if x(i) - half >= free_from && x(i) + half <= picture.width {
            picture.line(vec![(x(i), plot.bottom), (x(i), plot.bottom + 4.0)], Ink::Muted, 1.0, false);
            picture.text((x(i), plot.bottom + 15.0), text, TICK, Ink::Muted, Align::Middle);
            free_from = x(i) + half + 6.0;
        }
    }
    picture.line(vec![(plot.left, plot.bottom), (plot.right, plot.bottom)], Ink::Muted, 1.0, false);
    let unit = if family.unit.trim().is_empty() { "level".to_owned() } else { visible(family.unit) };
    let at = ((plot.left + plot.right) / 2.0, plot.bottom + 34.0);
    picture.text(at, fitted(&unit, TICK, plot.right - plot.left), TICK, Ink::Muted, Align::Middle);
}

/// What guessing gives, level by level.
fn chance(picture: &mut Picture, family: &Family<'_>, (x, y): (&impl Fn(usize) -> f64, &Axis)) {
    let at = |(i, chance): (usize, &Option<f64>)| Some((x(i), y.place((*chance)? * 100.0)?));
    picture.line(family.chance.iter().enumerate().filter_map(at).collect(), Ink::Muted, 1.5, true);
}

/// One model's line with its intervals; a gap where a level was not measured.
fn draw_line(picture: &mut Picture, style: (Ink, Shape), points: Vec<(f64, Option<Figure>, bool)>, y: &Axis) {
    let mut run = Vec::new();
    for (x, figure, _) in &points {
        match figure.and_then(|f| y.place(f.value)) {
            Some(height) => run.push((*x, height)),
            None => picture.line(std::mem::take(&mut run), style.0, 1.5, false),
        }
    }
    picture.line(run, style.0, 1.5, false);
    for (x, figure, falls) in points {
        let Some((figure, height)) = figure.and_then(|f| Some((f, y.place(f.value)?))) else { continue };
        let (lower, upper) = figure.ends();
        if let (true, Some(low), Some(high)) = (figure.has_interval(), y.place(lower), y.place(upper)) {
            picture.line(vec![(x, low), (x, high)], style.0, 1.0, false);
        }
        picture.dot((x, height), 3.0, style, false);
        if falls {
            picture.dot((x, height), 7.0, style, true);
        }
    }
}
