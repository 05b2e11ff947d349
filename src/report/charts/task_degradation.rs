//! Perplexity of every cousin relative to base, task by task, with intervals. Drawn lying down, the
//! task's name above its dots, so that names of any length have room. Small changes are read in
//! percent on a linear axis; where a cousin is ruined, ratios on a logarithmic one.

use super::axis::{Axis, Scale};
use super::picture::{Align, Ink, LABEL, LINE, Picture, Rect, fitted};
use super::{Series, Title, all_series, legend_of, note_at_bottom, note_missing};
use crate::comparison::{Comparison, TaskCard, TaskMetrics};
use crate::report::format::{Figure, count, number, plain, visible};

/// Above this ratio percent on a linear axis would hide all the other cousins.
const RUINED: f64 = 2.5;
/// Lines that a picture can hold; with more tasks, those that changed most are drawn.
const MOST_LINES: usize = 220;
/// Height of one cousin's line.
const ROW: f64 = 13.0;

pub(super) fn caption(_: &Comparison) -> String {
    "Perplexity of each cousin relative to base, per task, with 95 % intervals where there are enough \
     documents for one. Right of the line: worse than base. Left of it the text became easier to predict, \
     which is a change too and no improvement."
        .to_owned()
}

pub(super) fn draw(comparison: &Comparison, width: f64, title: Title) -> Picture {
    let mut picture = Picture::new(width, 0.0);
    let mut top = title.map_or(4.0, |(title, subtitle)| picture.title(title, &subtitle));
    let (mut drawn, missing): (Vec<_>, Vec<_>) =
        all_series(comparison).into_iter().partition(|s| s.quant.tasks.iter().any(|t| ratio(t).is_some()));
    drawn.sort_by_key(|s| s.index.unwrap_or(usize::MAX));
    top += picture.legend(top, &legend_of(&drawn)) + 6.0;
    let group = LINE + drawn.len() as f64 * ROW + 14.0;
    let tasks = most_changed(comparison, &drawn);
    picture.height = top + tasks.len() as f64 * group + 56.0;
    if drawn.is_empty() {
        picture.height = top + 120.0;
        picture.instead("no task could be scored");
        return picture;
    }
    let plot = Rect { left: 20.0, top, right: width - 20.0, bottom: picture.height - 56.0 };
    let axis = ChangeAxis::around(&drawn, plot);
    draw_axis(&mut picture, plot, &axis);
    for (i, task) in tasks.iter().enumerate() {
        let top = plot.top + i as f64 * group;
        let name = fitted(&visible(&task.name), LABEL, plot.right - plot.left);
        picture.text((plot.left, top + LINE / 2.0), name, LABEL, Ink::Foreground, Align::Start);
        let rows = Rect { top: top + LINE, bottom: top + group - 10.0, ..plot };
        axis.draw_grid(&mut picture, rows);
        for (row, s) in drawn.iter().enumerate() {
            if let Some(figure) = figure_of(s, task) {
                draw_figure(&mut picture, s, &axis, figure, rows.top + (row as f64 + 0.5) * ROW);
            }
        }
    }
    let missing: Vec<String> = missing.iter().map(Series::label).collect();
    note_missing(&mut picture, &missing, "no finite figure");
    let all = comparison.tasks.iter().filter(|task| has_figure(&drawn, task)).count();
    if tasks.len() < all {
        let note = format!("the {} of {all} tasks that changed most", tasks.len());
        note_at_bottom(&mut picture, &note);
    }
    picture
}

/// As many tasks as there is room for: those whose perplexity changed most in any cousin, in their order.
fn most_changed<'a>(comparison: &'a Comparison, drawn: &[Series<'_>]) -> Vec<&'a TaskCard> {
    let room = (MOST_LINES / drawn.len().max(1)).clamp(1, 16);
    let change = |task: &TaskCard| {
        let ratios = drawn.iter().filter_map(|s| figure_of(s, task));
        ratios.map(|figure| figure.value.ln().abs()).fold(0.0, f64::max)
    };
    let tasks = comparison.tasks.iter().filter(|task| has_figure(drawn, task));
    let mut order: Vec<(usize, f64, &TaskCard)> =
        tasks.enumerate().map(|(i, task)| (i, change(task), task)).collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1));
    order.truncate(room);
    order.sort_by_key(|(i, ..)| *i);
    order.into_iter().map(|(.., task)| task).collect()
}

/// Questions have no perplexity, and no place here.
fn has_figure(drawn: &[Series<'_>], task: &TaskCard) -> bool {
    drawn.iter().any(|s| figure_of(s, task).is_some())
}

fn figure_of(series: &Series<'_>, task: &TaskCard) -> Option<Figure> {
    series.quant.tasks.iter().find(|t| t.task == task.name).and_then(ratio)
}

/// The horizontal axis: perplexity ratios, shown as percent unless a cousin is ruined.
struct ChangeAxis {
    axis: Axis,
    is_ratio: bool,
}

impl ChangeAxis {
    fn around(drawn: &[Series<'_>], plot: Rect) -> Self {
        let figures: Vec<Figure> =
            drawn.iter().flat_map(|s| s.quant.tasks.iter().filter_map(ratio)).collect();
        let is_ratio = figures.iter().any(|f| f.value > RUINED);
        let ends = figures.iter().flat_map(|f| {
            let (lower, upper) = f.ends();
            [f.value, lower, upper]
        });
        let scale = if is_ratio { Scale::Log } else { Scale::Linear };
        // No change at all is shown within a hundredth of a percent, not magnified without end.
        let values: Vec<f64> = ends.chain([0.9999, 1.0, 1.0001]).map(|v| shown(v, is_ratio)).collect();
        ChangeAxis {
            axis: Axis::around(scale, values, 0.04).onto(plot.left + 8.0, plot.right - 8.0),
            is_ratio,
        }
    }

    fn place(&self, ratio: f64) -> Option<f64> {
        self.axis.place(shown(ratio, self.is_ratio))
    }

    fn wanted(&self, picture: &Picture) -> usize {
        (picture.width / 90.0) as usize
    }

    fn draw_grid(&self, picture: &mut Picture, rows: Rect) {
        for x in self.axis.ticks(self.wanted(picture)).into_iter().filter_map(|tick| self.axis.place(tick)) {
            picture.line(vec![(x, rows.top), (x, rows.bottom)], Ink::Grid, 1.0, false);
        }
        if let Some(x) = self.place(1.0) {
            picture.line(vec![(x, rows.top), (x, rows.bottom)], Ink::Muted, 1.5, false);
        }
    }
}

/// A ratio as the axis shows it.
fn shown(ratio: f64, is_ratio: bool) -> f64 {
    if is_ratio { ratio } else { (ratio - 1.0) * 100.0 }
}

fn draw_axis(picture: &mut Picture, plot: Rect, axis: &ChangeAxis) {
    let (label, name): (fn(f64) -> String, _) = if axis.is_ratio {
        (
            |v| format!("×{}", if v < 1.0 { number(v, 1) } else { count(v.round() as u64) }),
            "perplexity relative to base, ratio",
        )
    } else {
        (
            |v| format!("{}{} %", if v > 0.0 { "+" } else { "" }, plain(v)),
            "change of perplexity against base, %",
        )
    };
    let ground = Rect { top: plot.bottom, ..plot };
    picture.columns(ground, &axis.axis, axis.wanted(picture), label);
    picture.axis_names(ground, "", name);
}

fn draw_figure(picture: &mut Picture, series: &Series<'_>, axis: &ChangeAxis, figure: Figure, y: f64) {
    let style = series.style();
    let (lower, upper) = figure.ends();
    if let (true, Some(low), Some(high)) = (figure.has_interval(), axis.place(lower), axis.place(upper)) {
        picture.bar((low, high), y, style.0, true);
    }
    if let Some(x) = axis.place(figure.value) {
        picture.dot((x, y), 4.0, style, false);
    }
}

fn ratio(task: &TaskMetrics) -> Option<Figure> {
    let figure = Figure::from(&task.metrics.as_ref()?.ppl_ratio);
    (figure.value.is_finite() && figure.value > 0.0).then_some(figure)
}
