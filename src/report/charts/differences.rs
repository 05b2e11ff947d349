//! Difference of accuracy between each cousin and base, in percentage points with intervals: by task, and by
//! language. Drawn lying down, the name above its dots, those with the largest loss first.

use super::axis::{Axis, Scale};
use super::picture::{self, Align, Ink, LABEL, LINE, Picture, Rect, fitted};
use super::{Title, note_at_bottom};
use crate::comparison::Comparison;
use crate::comparison::tasks::PairedScores;
use crate::report::format::{Figure, plain, visible};
use crate::report::questions::{self, Asked};

/// Lines that a picture can hold; with more rows, those that lost most are drawn.
const MOST_LINES: usize = 190;
/// Most rows, whatever the number of cousins.
const MOST_ROWS: usize = 32;
/// Height of one cousin's line.
const ROW: f64 = 13.0;

/// What a row is about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// A task's headline.
    Task,
    /// A language, all its tasks together.
    Language,
}

/// A row: its name, whether base only guesses there, and a figure per cousin.
struct Row {
    name: String,
    figures: Vec<Option<Figure>>,
}

pub(super) fn caption(by: By) -> String {
    let what = match by {
        By::Task => "every task (its headline metric)",
        By::Language => "every language (all its tasks together)",
    };
    format!(
        "Difference of accuracy to base on {what}, in percentage points, with 95 % intervals where there are enough \
         samples; those with the largest loss first. Left of the line: fewer right answers than base. “(guessing)”: \
         base is not shown to know more than guessing gives, so there is nothing to lose."
    )
}

/// Whether there is anything to draw.
pub(super) fn has_rows(comparison: &Comparison, by: By) -> bool {
    let asked = questions::asked(comparison);
    match by {
        By::Task => !questions::tasks(&asked).is_empty(),
        By::Language => !questions::languages(&asked).is_empty(),
    }
}

pub(super) fn draw(comparison: &Comparison, width: f64, title: Title, by: By) -> Picture {
    let mut picture = Picture::new(width, 0.0);
    let mut top = title.map_or(4.0, |(title, subtitle)| picture.title(title, &subtitle));
    let asked = questions::asked(comparison);
    let entry = |a: &Asked<'_>| (a.name(), picture::series(a.index), a.index.is_none());
    top += picture.legend(top, &asked.iter().map(entry).collect::<Vec<_>>()) + 6.0;
    let all = rows(&asked, by);
    let drawn = all.len().min((MOST_LINES / asked.len().max(1)).clamp(1, MOST_ROWS));
    let group = LINE + asked.len() as f64 * ROW + 14.0;
    if drawn == 0 {
        picture.height = top + 120.0;
        picture.instead("no question was asked");
        return picture;
    }
    let plot = Rect { left: 20.0, top, right: width - 20.0, bottom: top + drawn as f64 * group };
    picture.height = plot.bottom + 56.0;
    let ends = all.iter().take(drawn).flat_map(|row| row.figures.iter().flatten()).flat_map(|f| {
        let (lower, upper) = f.ends();
        [f.value, lower, upper]
    });
    // No difference at all is shown within a tenth of a point, not magnified without end.
    let axis = Axis::around(Scale::Linear, ends.chain([-0.1, 0.0, 0.1]), 0.04);
    let axis = axis.onto(plot.left + 8.0, plot.right - 8.0);
    let wanted = (width / 90.0) as usize;
    let ground = Rect { top: plot.bottom, ..plot };
    let label = |v: f64| format!("{}{}", if v > 0.0 { "+" } else { "" }, plain(v));
    picture.columns(ground, &axis, wanted, label);
    picture.axis_names(ground, "", "difference of accuracy to base, percentage points");
    for (i, row) in all.iter().take(drawn).enumerate() {
        let top = plot.top + i as f64 * group;
        let name = fitted(&row.name, LABEL, plot.right - plot.left);
        picture.text((plot.left, top + LINE / 2.0), name, LABEL, Ink::Foreground, Align::Start);
        let lines = Rect { top: top + LINE, bottom: top + group - 10.0, ..plot };
        draw_grid(&mut picture, &axis, wanted, lines);
        for (line, (cousin, figure)) in asked.iter().zip(&row.figures).enumerate() {
            if let Some(figure) = figure {
                draw_figure(&mut picture, cousin, &axis, *figure, lines.top + (line as f64 + 0.5) * ROW);
            }
        }
    }
    if drawn < all.len() {
        note_at_bottom(&mut picture, &format!("the {drawn} of {} with the largest loss", all.len()));
    }
    picture
}

/// All rows, the largest loss of any cousin first; those where base only guesses last.
fn rows(asked: &[Asked<'_>], by: By) -> Vec<Row> {
    let figure =
        |scores: &PairedScores| Some(Figure::percent(&scores.difference)).filter(|f| f.value.is_finite());
    let mut rows: Vec<(bool, f64, Row)> = match by {
        By::Task => {
            let row = |line: questions::Line<'_>| {
                let guesses = line.uninformative().is_some();
                let mark = if guesses { " (guessing)" } else { "" };
                let of = |scores: &Option<&PairedScores>| figure((*scores)?);
                let row =
                    Row { name: visible(&line.name) + mark, figures: line.scores.iter().map(of).collect() };
                (guesses, line.largest_loss(), row)
            };
            questions::tasks(asked).into_iter().map(row).collect()
        }
        By::Language => {
            let row = |line: questions::LanguageLine<'_>| {
                let scores = || line.scores.iter().flatten().map(|l| &l.scores);
                let guesses = scores().any(|scores| scores.uninformative.is_some());
                let loss = scores().map(|s| s.difference.value).filter(|v| v.is_finite());
                let mark = if guesses { " (guessing)" } else { "" };
                let row = Row {
                    name: visible(&questions::language_name(line.tag)) + mark,
                    figures: line.scores.iter().map(|l| figure(&l.as_ref()?.scores)).collect(),
                };
                (guesses, loss.fold(f64::INFINITY, f64::min), row)
            };
            questions::languages(asked).into_iter().map(row).collect()
        }
    };
    rows.retain(|(.., row)| row.figures.iter().any(Option::is_some));
    rows.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    rows.into_iter().map(|(.., row)| row).collect()
}

fn draw_grid(picture: &mut Picture, axis: &Axis, wanted: usize, rows: Rect) {
    for x in axis.ticks(wanted).into_iter().filter_map(|tick| axis.place(tick)) {
        picture.line(vec![(x, rows.top), (x, rows.bottom)], Ink::Grid, 1.0, false);
    }
    if let Some(x) = axis.place(0.0) {
        picture.line(vec![(x, rows.top), (x, rows.bottom)], Ink::Muted, 1.5, false);
    }
}

fn draw_figure(picture: &mut Picture, cousin: &Asked<'_>, axis: &Axis, figure: Figure, y: f64) {
    let style = picture::series(cousin.index);
    let (lower, upper) = figure.ends();
    if let (true, Some(low), Some(high)) = (figure.has_interval(), axis.place(lower), axis.place(upper)) {
        picture.bar((low, high), y, style.0, true);
    }
    if let Some(x) = axis.place(figure.value) {
        picture.dot((x, y), 4.0, style, false);
    }
}
