//! Charts with their captions, and the main figures of each as text for those who do not see it.
//! The text repeats figures of the comparison and computes none.

use super::escaped;
use crate::comparison::{Bucket, Comparison, QuantComparison};
use crate::error::Result;
use crate::report::charts::{Chart, Room};
use crate::report::format::{Figure, bytes, number, plain, visible};
use crate::report::questions::{self, Asked};
use crate::report::wording;

/// A chart, wide and narrow, with its caption and its text.
pub(super) fn figure(chart: Chart, comparison: &Comparison) -> Result<String> {
    let text = text(chart, comparison);
    let id = format!("figures-{}", chart.file_stem());
    let svg = |room| -> Result<String> {
        let svg = chart.inline_svg(comparison, room)?;
        // The chart names itself; the page says what is in it.
        Ok(match text.is_empty() {
            true => svg,
            false => svg.replacen("role=\"img\"", &format!("role=\"img\" aria-describedby=\"{id}\""), 1),
        })
    };
    let described = match text.is_empty() {
        true => String::new(),
        false => format!("<p class=\"unseen\" id=\"{id}\">{}</p>", escaped(&text)),
    };
    Ok(format!(
        "<figure><div class=\"wide\">{}</div><div class=\"narrow\">{}</div>{described}<figcaption>{}</figcaption></figure>",
        svg(Room::Wide)?,
        svg(Room::Narrow)?,
        escaped(&chart.caption(comparison))
    ))
}

/// A chart, where there is anything to draw.
pub(super) fn drawn(chart: Chart, comparison: &Comparison) -> Result<String> {
    if chart.is_drawn(comparison) { figure(chart, comparison) } else { Ok(String::new()) }
}

/// The main figures of a chart.
fn text(chart: Chart, comparison: &Comparison) -> String {
    match chart {
        Chart::SizeQuality => of_cousins(comparison, |quant| {
            Some(format!("{}, mean KL divergence {} nats", bytes(quant.model.weight_bytes), mean_kl(quant)))
        }),
        Chart::TaskDegradation => of_cousins(comparison, worst_perplexity),
        Chart::KlDistribution => of_cousins(comparison, |quant| {
            let kl = &quant.overall.kl_divergence;
            let tail = |e: &Option<_>| e.as_ref().map_or("unknown".to_owned(), |e| Figure::from(e).alone());
            Some(format!(
                "median {}, 99th percentile {}, largest {} nats",
                tail(&kl.median),
                tail(&kl.p99),
                number(kl.max, 3)
            ))
        }),
        Chart::Confidence => {
            of_cousins(comparison, |quant| ends_of(&quant.by_base_confidence, "probability"))
        }
        Chart::Context => {
            of_cousins(comparison, |quant| ends_of(&quant.by_context_position, "context tokens"))
        }
        Chart::LayerProfile | Chart::LayerHeatmap => of_cousins(comparison, |quant| {
            let (layer, db) = wording::worst_layer_of(quant)?;
            Some(format!("{} adds the largest error, SQNR {} dB", wording::layer_name(layer), number(db, 3)))
        }),
        Chart::Questions => of_asked(comparison, |asked| {
            let tasks = questions::tasks(std::slice::from_ref(asked));
            let worst = tasks.iter().min_by(|a, b| a.largest_loss().total_cmp(&b.largest_loss()))?;
            let points = Figure::percent(&worst.first()?.difference).signed();
            Some(format!("largest change on {}, {points} points", visible(&worst.name)))
        }),
        Chart::Languages | Chart::LanguageHeatmap => of_asked(comparison, worst_language),
        Chart::Difficulty => of_asked(comparison, |asked| {
            let falls: Vec<String> = questions::families(comparison, std::slice::from_ref(asked))
                .iter()
                .filter_map(|family| {
                    let level = family.rows.first().copied().flatten()?.falls_off_at?;
                    Some(format!("{} at {}", visible(family.name), questions::level_name(level, family.unit)))
                })
                .collect();
            Some(match falls.as_slice() {
                [] => "no level is shown to be worse than base".to_owned(),
                falls => format!("first shown to be worse in {}", falls.join(", ")),
            })
        }),
    }
}

fn mean_kl(quant: &QuantComparison) -> String {
    Figure::from(&quant.overall.kl_divergence.mean).with_interval()
}

fn of_cousins(comparison: &Comparison, say: impl Fn(&QuantComparison) -> Option<String>) -> String {
    let lines = comparison.quants.iter().filter_map(|q| Some((visible(&q.model.label), say(q)?)));
    sentences(lines)
}

fn of_asked(comparison: &Comparison, say: impl Fn(&Asked<'_>) -> Option<String>) -> String {
    let asked = questions::asked(comparison);
    sentences(asked.iter().filter(|a| a.index.is_some()).filter_map(|a| Some((a.name(), say(a)?))))
}

fn sentences(lines: impl Iterator<Item = (String, String)>) -> String {
    lines.map(|(name, said)| format!("{name}: {said}.")).collect::<Vec<_>>().join(" ")
}

fn worst_perplexity(quant: &QuantComparison) -> Option<String> {
    let changes = quant.tasks.iter().filter_map(|t| Some((t, &t.metrics.as_ref()?.ppl_ratio)));
    let changes = changes.filter(|(_, ratio)| ratio.value.is_finite());
    let (task, ratio) = changes.max_by(|a, b| a.1.value.total_cmp(&b.1.value))?;
    let change = Figure::percent_change(ratio).signed();
    Some(format!("perplexity rises most on {}, {change} %", visible(&task.task)))
}

fn worst_language(asked: &Asked<'_>) -> Option<String> {
    let languages = asked.questions.languages.iter().filter(|l| l.scores.difference.value.is_finite());
    let worst = languages.min_by(|a, b| a.scores.difference.value.total_cmp(&b.scores.difference.value))?;
    let name = questions::language_name(&worst.language);
    Some(format!(
        "lowest in {}, {} points",
        visible(&name),
        Figure::percent(&worst.scores.difference).signed()
    ))
}

/// The first and the last bucket with a figure.
fn ends_of(buckets: &[Bucket], unit: &str) -> Option<String> {
    let with_figure =
        || buckets.iter().filter_map(|b| Some((b.from, &b.metrics.as_ref()?.kl_divergence.mean)));
    let (first, last) = (with_figure().next()?, with_figure().next_back()?);
    let end = |(from, mean): (f64, _)| {
        format!("mean KL divergence {} nats from {} {unit}", Figure::from(mean).alone(), plain(from))
    };
    Some(format!("{}, {}", end(first), end(last)))
}
