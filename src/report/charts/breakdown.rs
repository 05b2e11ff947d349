//! Mean KL divergence of every cousin by a property of the position: how sure base is there, and how much context
//! it has. Buckets are equally far apart whatever they span, with their numbers of tokens below their names. A mean
//! of exactly zero has a place of its own below the logarithmic axis.

use super::axis::{Axis, Scale};
use super::picture::{Align, Ink, LINE, Picture, Rect, Shape, TICK, fitted};
use super::render::text_width;
use super::{Series, Title, all_series, legend_of, note_missing};
use crate::comparison::{Bucket, Comparison, QuantComparison};
use crate::report::format::{Figure, count, number, plain};

const HEIGHT: f64 = 380.0;
/// Room below the plot for a mean of zero.
const SLOT: f64 = 30.0;

/// What positions are sorted by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// Base's largest probability.
    Confidence,
    /// Tokens before the target.
    Context,
}

impl By {
    fn buckets(self, quant: &QuantComparison) -> &[Bucket] {
        match self {
            By::Confidence => &quant.by_base_confidence,
            By::Context => &quant.by_context_position,
        }
    }

    fn axis_name(self, names_fit: bool) -> String {
        let what = match self {
            By::Confidence => "base's largest probability",
            By::Context => "tokens of context",
        };
        format!("{what}{}; below it: scored tokens", if names_fit { "" } else { ", from" })
    }
}

/// The buckets of all cousins together: their bounds and the positions in them.
struct Span {
    from: f64,
    to: f64,
    tokens: usize,
}

pub(super) fn caption(by: By) -> String {
    let what = match by {
        By::Confidence => {
            "by base's largest probability at the position: a cousin may differ only where base is unsure, or also \
             where it is sure, which costs more"
        }
        By::Context => {
            "by the number of tokens before the position: a rise to the right means that errors grow with the context"
        }
    };
    format!(
        "Mean KL divergence from base (nats, logarithmic) {what}. Bars are 95 % intervals, where a bucket has enough \
         documents; the small numbers count its scored tokens."
    )
}

/// Whether at least two buckets hold anything.
pub(super) fn is_drawn(comparison: &Comparison, by: By) -> bool {
    !comparison.quants.is_empty() && spans(&all_series(comparison), by).len() > 1
}

pub(super) fn draw(comparison: &Comparison, width: f64, title: Title, by: By) -> Picture {
    let mut picture = Picture::new(width, 0.0);
    let mut top = title.map_or(4.0, |(title, subtitle)| picture.title(title, &subtitle));
    let (drawn, missing): (Vec<_>, Vec<_>) = all_series(comparison)
        .into_iter()
        .partition(|s| by.buckets(s.quant).iter().any(|bucket| mean(bucket).is_some()));
    top += picture.legend(top, &legend_of(&drawn));
    picture.height = top + HEIGHT;
    let spans = spans(&drawn, by);
    if spans.is_empty() {
        picture.instead("no bucket has a finite mean KL divergence");
        return picture;
    }
    let figures: Vec<Figure> = drawn.iter().flat_map(|s| by.buckets(s.quant)).filter_map(mean).collect();
    let slot = if figures.iter().any(|f| f.value <= 0.0) { SLOT } else { 0.0 };
    let plot = Rect { left: 68.0, top: top + 2.0 * LINE, right: width - 12.0, bottom: picture.height - 68.0 };
    let y = height_axis(&figures).onto(plot.bottom - slot, plot.top);
    picture.rows(plot, &y, 6, |kl| number(kl, 1));
    if slot > 0.0 {
        let zero = plot.bottom - slot / 2.0;
        picture.line(vec![(plot.left, zero), (plot.right, zero)], Ink::Grid, 1.0, true);
        picture.text((plot.left - 8.0, zero), "0", TICK, Ink::Muted, Align::End);
    }
    let each = (plot.right - plot.left) / spans.len() as f64;
    let names_fit = spans.iter().all(|span| text_width(&span_name(span), TICK) <= each - 4.0);
    draw_buckets(&mut picture, &spans, plot, names_fit);
    picture.axis_names(
        Rect { bottom: plot.bottom + 20.0, ..plot },
        "mean KL divergence, nats",
        &by.axis_name(names_fit),
    );
    let zero = plot.bottom - slot / 2.0;
    for (i, series) in drawn.iter().enumerate() {
        draw_series(&mut picture, series, &places(series, by, &spans, plot, (i, drawn.len())), (&y, zero));
    }
    let missing: Vec<String> = missing.iter().map(Series::label).collect();
    note_missing(&mut picture, &missing, "no finite mean");
    picture
}

/// All means with their intervals; a lower end near zero would stretch a logarithmic axis without end.
fn height_axis(figures: &[Figure]) -> Axis {
    let ends = figures.iter().flat_map(|f| {
        let (lower, upper) = f.ends();
        [f.value, upper, lower.max(f.value / 3.0)]
    });
    Axis::around(Scale::Log, ends, 0.06)
}

fn spans(series: &[Series<'_>], by: By) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for bucket in series.iter().flat_map(|s| by.buckets(s.quant)).filter(|b| mean(b).is_some()) {
        match spans.iter_mut().find(|span| is_of(bucket, span)) {
            Some(span) => span.tokens = span.tokens.max(bucket.scored_tokens),
            None => spans.push(Span { from: bucket.from, to: bucket.to, tokens: bucket.scored_tokens }),
        }
    }
    spans.sort_by(|a, b| a.from.total_cmp(&b.from).then(a.to.total_cmp(&b.to)));
    spans
}

fn is_of(bucket: &Bucket, span: &Span) -> bool {
    bucket.from.total_cmp(&span.from).is_eq() && bucket.to.total_cmp(&span.to).is_eq()
}

fn mean(bucket: &Bucket) -> Option<Figure> {
    let figure = Figure::from(&bucket.metrics.as_ref()?.kl_divergence.mean);
    figure.value.is_finite().then_some(figure)
}

/// "0.5–0.75", "512+".
fn span_name(span: &Span) -> String {
    if span.to >= f64::MAX {
        format!("{}+", plain(span.from))
    } else {
        format!("{}–{}", plain(span.from), plain(span.to))
    }
}

/// Names (or lower bounds, where names do not fit) and counts below the plot; what would touch the one before it is left out.
fn draw_buckets(picture: &mut Picture, spans: &[Span], plot: Rect, names_fit: bool) {
    let each = (plot.right - plot.left) / spans.len() as f64;
    let mut free_from = [f64::NEG_INFINITY; 2];
    for (i, span) in spans.iter().enumerate() {
        let x = plot.left + (i as f64 + 0.5) * each;
        let name = if names_fit { span_name(span) } else { plain(span.from) };
        if i > 0 {
            let edge = plot.left + i as f64 * each;
            picture.line(vec![(edge, plot.top), (edge, plot.bottom)], Ink::Grid, 1.0, false);
        }
        for ((line, text), free) in
            [name, shorter_count(span.tokens, each)].into_iter().enumerate().zip(&mut free_from)
        {
            let text = fitted(&text, TICK, (2.0 * each).max(30.0));
            let half = text_width(&text, TICK) / 2.0;
            // The outermost names stay within the picture.
            let x = x.clamp(half + 2.0, (picture.width - half - 2.0).max(half + 2.0));
            if x - half >= *free {
                let y = plot.bottom + 14.0 + line as f64 * 17.0;
                picture.text((x, y), text, TICK, Ink::Muted, Align::Middle);
                *free = x + half + 4.0;
            }
        }
    }
    picture.line(vec![(plot.left, plot.bottom), (plot.right, plot.bottom)], Ink::Muted, 1.0, false);
}

/// "10,200", or "10k" where that is too wide.
fn shorter_count(tokens: usize, room: f64) -> String {
    let full = count(tokens as u64);
    if text_width(&full, TICK) <= room - 4.0 {
        return full;
    }
    match tokens as f64 {
        n if n >= 999_500.0 => format!("{}M", number(n / 1e6, 2)),
        n if n >= 1000.0 => format!("{}k", plain((n / 1e3).round())),
        _ => full,
    }
}

/// Where a series has its signs: side by side with the others within each bucket.
fn places(
    series: &Series<'_>,
    by: By,
    spans: &[Span],
    plot: Rect,
    (i, of): (usize, usize),
) -> Vec<(usize, f64, Figure)> {
    let each = (plot.right - plot.left) / spans.len().max(1) as f64;
    let step = (each * 0.7 / of.max(1) as f64).min(11.0);
    let shift = (i as f64 - (of.max(1) - 1) as f64 / 2.0) * step;
    let place = |bucket: &Bucket| {
        let index = spans.iter().position(|span| is_of(bucket, span))?;
        Some((index, plot.left + (index as f64 + 0.5) * each + shift, mean(bucket)?))
    };
    by.buckets(series.quant).iter().filter_map(place).collect()
}

fn draw_series(
    picture: &mut Picture,
    series: &Series<'_>,
    figures: &[(usize, f64, Figure)],
    (y, zero): (&Axis, f64),
) {
    let style: (Ink, Shape) = series.style();
    let height = |figure: &Figure| y.place(figure.value).unwrap_or(zero);
    // A bucket without a figure is a gap.
    for run in figures.chunk_by(|a, b| b.0 == a.0 + 1) {
        let line = run.iter().map(|(_, x, figure)| (*x, height(figure))).collect();
        picture.line(line, style.0, 1.0, series.index.is_none());
    }
    for (_, x, figure) in figures {
        let (lower, upper) = figure.ends();
        if let (true, Some(high)) = (figure.has_interval() && figure.value > 0.0, y.place(upper)) {
            let low = y.place(lower.max(f64::MIN_POSITIVE)).unwrap_or(high);
            picture.bar((low, high), *x, style.0, false);
        }
        picture.dot((*x, height(figure)), 4.5, style, figure.value <= 0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::picture::Mark;
    use super::*;
    use crate::report::fixture;

    fn lines(picture: &Picture, wanted: Ink) -> Vec<Vec<(f64, f64)>> {
        let lines = picture.marks.iter().filter_map(|mark| match mark {
            Mark::Line { points, ink, width, .. } if *ink == wanted && *width == 1.0 => Some(points.clone()),
            _ => None,
        });
        lines.collect()
    }

    fn texts(picture: &Picture) -> Vec<&str> {
        let texts = picture.marks.iter().filter_map(|mark| match mark {
            Mark::Text { text, .. } => Some(text.as_str()),
            _ => None,
        });
        texts.collect()
    }

    #[test]
    fn buckets_stand_in_order_with_their_counts() {
        let mut comparison = fixture::comparison();
        for quant in comparison.quants.iter_mut().chain(comparison.noise_floor.as_mut()) {
            let last = quant.by_context_position.last_mut().unwrap();
            (last.to, last.scored_tokens) = (f64::MAX, 12_345);
            quant.by_context_position.reverse();
        }
        let picture = draw(&comparison, 920.0, None, By::Context);
        let texts = texts(&picture);
        for wanted in
            ["1–64", "64–256", "256+", "12,345", "2,040", "tokens of context; below it: scored tokens"]
        {
            assert!(texts.contains(&wanted), "{wanted}: {texts:?}");
        }
        let spans = spans(&all_series(&comparison), By::Context);
        assert_eq!(spans.iter().map(|s| s.from).collect::<Vec<_>>(), [1.0, 64.0, 256.0]);
    }

    #[test]
    fn more_divergence_is_higher_up() {
        let picture = draw(&fixture::comparison(), 920.0, None, By::Confidence);
        for i in 0..5 {
            let line = &lines(&picture, Ink::Series(i))[0];
            assert_eq!(line.len(), 5, "a point per bucket");
            assert!(line.windows(2).all(|pair| pair[1].1 > pair[0].1), "base is surer to the right");
        }
        let first = |i: usize| lines(&picture, Ink::Series(i))[0][0].1;
        assert!((1..5).all(|i| first(i) < first(i - 1)), "every cousin diverges more than the one before");
    }

    #[test]
    fn an_empty_bucket_is_a_gap() {
        let mut comparison = fixture::comparison();
        comparison.quants[0].by_base_confidence[2].metrics = None;
        let picture = draw(&comparison, 360.0, None, By::Confidence);
        let pieces: Vec<usize> = lines(&picture, Ink::Series(0)).iter().map(Vec::len).collect();
        assert_eq!(pieces, [2, 2]);
        assert_eq!(lines(&picture, Ink::Series(1)).len(), 1);
    }

    #[test]
    fn nothing_is_drawn_of_one_bucket() {
        let mut comparison = fixture::comparison();
        assert!(is_drawn(&comparison, By::Context));
        for quant in comparison.quants.iter_mut().chain(comparison.noise_floor.as_mut()) {
            quant.by_context_position.truncate(1);
        }
        assert!(!is_drawn(&comparison, By::Context));
    }

    #[test]
    fn no_divergence_has_a_place_below() {
        let none = fixture::quant("same", fixture::NONE);
        let mut comparison = fixture::comparison();
        comparison.quants.push(none);
        let picture = draw(&comparison, 920.0, None, By::Confidence);
        let lowest = lines(&picture, Ink::Noise)[0].iter().map(|at| at.1).fold(0.0, f64::max);
        let same = &lines(&picture, Ink::Series(5))[0];
        assert!(same.iter().all(|at| at.1 > lowest));
        assert!(texts(&picture).contains(&"0"));
    }

    #[test]
    fn large_counts_are_shortened_where_there_is_no_room() {
        assert_eq!(shorter_count(12_345, 100.0), "12,345");
        assert_eq!(shorter_count(12_345, 30.0), "12k");
        assert_eq!(shorter_count(2_345_678, 30.0), "2.3M");
        assert_eq!(shorter_count(7, 5.0), "7");
    }
}
