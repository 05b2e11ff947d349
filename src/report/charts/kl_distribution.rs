//! Per-token KL divergence as a distribution: a mean hides whether a quant is a little off everywhere
//! or far off in a few places. Logarithmic axis; positions at or below the first bin edge (exactly
//! equal distributions among them) have a place of their own at the left.

use super::axis::{Axis, Scale};
use super::picture::{Align, Ink, LINE, Picture, Rect, TICK};
use super::{Series, Title, all_series, legend_of, note_missing};
use crate::comparison::{Comparison, Histogram};
use crate::report::format::{number, plain};

/// Room for the positions that a logarithm cannot show.
const SLOT: f64 = 56.0;

pub(super) fn caption(comparison: &Comparison) -> String {
    let bins = comparison.rows().find_map(|q| bins_per_decade(&q.kl_histogram));
    let bins = bins.map_or(String::new(), |n| format!(" ({} bins per decade)", plain(n)));
    format!(
        "Share of scored tokens by KL divergence from base in nats{bins}, on a logarithmic axis. \
         Further left is closer to base; a hump at the right is a set of tokens that changed much."
    )
}

pub(super) fn draw(comparison: &Comparison, width: f64, title: Title) -> Picture {
    let mut picture = Picture::new(width, 380.0);
    let mut top = title.map_or(4.0, |(title, subtitle)| picture.title(title, &subtitle));
    let series = all_series(comparison);
    let (drawn, missing): (Vec<_>, Vec<_>) =
        series.into_iter().partition(|s| total(&s.quant.kl_histogram) > 0.0);
    top += picture.legend(top, &legend_of(&drawn));
    picture.height += top;
    if drawn.is_empty() {
        picture.instead("no token could be scored");
        return picture;
    }
    let has_slot = drawn.iter().any(|s| s.quant.kl_histogram.below > 0);
    let plot = Rect { left: 58.0, top: top + 2.0 * LINE, right: width - 12.0, bottom: picture.height - 50.0 };
    let x = Axis::around(Scale::Log, drawn.iter().flat_map(|s| occupied(&s.quant.kl_histogram)), 0.02)
        .onto(plot.left + if has_slot { SLOT } else { 0.0 }, plot.right);
    let highest = drawn.iter().flat_map(shares_of).fold(0.0, f64::max);
    let y = Axis::around(Scale::Linear, [0.0, highest * 1.04], 0.0).onto(plot.bottom, plot.top);
    picture.rows(plot, &y, 5, |v| format!("{} %", plain(v)));
    picture.columns(Rect { left: plot.left, ..plot }, &x, (width / 90.0) as usize, |v| number(v, 1));
    picture.axis_names(plot, "share of scored tokens, %", "KL divergence per token, nats");
    if has_slot {
        let first = drawn.iter().find_map(|s| s.quant.kl_histogram.edges.first()).copied().unwrap_or(0.0);
        let at = (plot.left + SLOT / 2.0, plot.bottom + 15.0);
        picture.text(at, format!("<{}", number(first, 1)), TICK, Ink::Muted, Align::Middle);
    }
    for s in &drawn {
        draw_one(&mut picture, s, &x, &y, plot, has_slot);
    }
    let missing: Vec<String> = missing.iter().map(Series::label).collect();
    note_missing(&mut picture, &missing, "no scored token");
    picture
}

fn draw_one(picture: &mut Picture, series: &Series<'_>, x: &Axis, y: &Axis, plot: Rect, has_slot: bool) {
    let (histogram, style) = (&series.quant.kl_histogram, series.style());
    let line: Vec<(f64, f64)> = shares(histogram)
        .into_iter()
        .filter_map(|(centre, share)| Some((x.place(centre)?, y.place(share)?)))
        .collect();
    if let (Some(i), Some(first), Some(last)) = (series.index, line.first(), line.last()) {
        let corners = [(last.0, plot.bottom), (first.0, plot.bottom)];
        picture.area(line.iter().copied().chain(corners).collect(), Ink::Wash(i));
    }
    // The shape at the top tells curves of one colour apart.
    if let Some(top) = line.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1)) {
        picture.dot(top, 4.0, style, false);
    }
    picture.line(line, style.0, 2.0, series.index.is_none());
    let below = histogram.below as f64 / total(histogram) * 100.0;
    if let (true, true, Some(height)) = (has_slot, below > 0.0, y.place(below)) {
        // Side by side within the slot, so that two cousins without any difference are both seen.
        let shift = series.index.map_or(-0.5, |i| (i % 8) as f64 / 8.0 - 0.4) * (SLOT - 16.0);
        let at = plot.left + SLOT / 2.0 + shift;
        picture.line(vec![(at, plot.bottom), (at, height)], style.0, 2.0, series.index.is_none());
        picture.dot((at, height), 4.0, style, false);
    }
}

fn total(histogram: &Histogram) -> f64 {
    (histogram.counts.iter().sum::<u64>() + histogram.below + histogram.above) as f64
}

/// Edges of the bins that hold anything.
fn occupied(histogram: &Histogram) -> Vec<f64> {
    let pairs = histogram.edges.windows(2).zip(&histogram.counts);
    pairs.filter(|(_, n)| **n > 0).flat_map(|(edges, _)| edges.iter().copied()).collect()
}

/// Geometric centre and share of all tokens in percent, for each bin from the one before the first
/// occupied to the one after the last: the line starts and ends on the ground.
fn shares(histogram: &Histogram) -> Vec<(f64, f64)> {
    let all = total(histogram);
    let first = histogram.counts.iter().position(|&n| n > 0);
    let last = histogram.counts.iter().rposition(|&n| n > 0);
    let (Some(first), Some(last)) = (first, last) else { return Vec::new() };
    let bins = histogram.edges.windows(2).zip(&histogram.counts);
    bins.skip(first.saturating_sub(1))
        .take(last + 2 - first.saturating_sub(1))
        .map(|(edges, &n)| (edges.iter().product::<f64>().sqrt(), n as f64 / all * 100.0))
        .collect()
}

fn shares_of(series: &Series<'_>) -> Vec<f64> {
    let histogram = &series.quant.kl_histogram;
    let below = histogram.below as f64 / total(histogram) * 100.0;
    shares(histogram).into_iter().map(|(_, share)| share).chain([below]).collect()
}

fn bins_per_decade(histogram: &Histogram) -> Option<f64> {
    match histogram.edges.as_slice() {
        [first, second, ..] if *first > 0.0 && second > first => {
            Some((1.0 / (second / first).log10()).round())
        }
        _ => None,
    }
}
