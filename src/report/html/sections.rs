//! Sections about tokens: texts by task, breakdowns, the worst tokens.
//! Every function takes the comparison and returns a section, empty where nothing was measured.

use super::alternatives::drawn;
use super::filter::{Choice, controls, number_of};
use super::ranking::tokens_cell;
use super::table::{Cell, Table, details};
use super::{Section, escaped, escaped_block, indexed, model_name};
use crate::comparison::{Bucket, Comparison, QuantComparison, TokenMetrics, WorstToken};
use crate::error::Result;
use crate::report::charts::Chart;
use crate::report::format::{Figure, count, counted, number, plain};
use crate::report::questions;

/// More tasks than that are a long chart and a long table, which wait behind a line.
const MOST_DRAWN: usize = 8;
/// Worst tokens shown per cousin; the saved comparison may hold more.
const WORST: usize = 20;

/// Texts by task.
pub(super) fn texts(comparison: &Comparison) -> Result<Section> {
    Ok(Section { id: "tasks", title: "Texts by task", nav: "Texts", html: tasks(comparison)? })
}

/// The distribution over tokens, and breakdowns of it.
pub(super) fn by_token(comparison: &Comparison) -> Result<Vec<Section>> {
    Ok(vec![
        Section {
            id: "distribution",
            title: "Token by token",
            nav: "Tokens",
            html: drawn(Chart::KlDistribution, comparison)?,
        },
        Section {
            id: "confidence",
            title: "By base's confidence and by context",
            nav: "Context",
            html: breakdowns(comparison)?,
        },
    ])
}

fn tasks(comparison: &Comparison) -> Result<String> {
    if comparison.tasks.is_empty() {
        return Ok(String::new());
    }
    let amounts = how_much(comparison);
    if comparison.quants.is_empty() {
        return Ok(base_text(comparison) + &amounts);
    }
    let lines: Vec<Line<'_>> = comparison
        .tasks
        .iter()
        .map(|card| Line {
            name: card.name.clone(),
            metrics: indexed(comparison)
                .map(|(_, q)| q.tasks.iter().find(|t| t.task == card.name)?.metrics.as_ref())
                .collect(),
        })
        // Written answers are scored elsewhere.
        .filter(|line| line.metrics.iter().any(Option::is_some))
        .collect();
    if lines.is_empty() {
        return Ok(amounts);
    }
    let chart = drawn(Chart::TaskDegradation, comparison)?;
    let is_long = lines.len() > MOST_DRAWN;
    let chart = match chart.is_empty() || !is_long {
        true => chart,
        false => details("Change of perplexity by task, drawn", &chart, false),
    };
    let matrix = matrix(comparison, "Mean KL divergence by task, nats", "task", &lines);
    let summary = format!("Mean KL divergence of {}", counted(lines.len() as u64, "task"));
    let all = details(
        "All figures of every task",
        &full_table(comparison, "Every task and cousin", "task", &lines),
        false,
    );
    Ok(extremes(comparison) + &chart + &details(&summary, &matrix, !is_long) + &all + &amounts)
}

/// Where each cousin diverges most and least; nothing where there is but one task.
fn extremes(comparison: &Comparison) -> String {
    let mut table = Table::new(
        "Where each cousin diverges most, and least",
        &[
            ("model", ""),
            ("most on", ""),
            ("KL mean", "nats"),
            ("perplexity", "change, %"),
            ("tokens", "scored"),
            ("least on", ""),
            ("KL mean", "nats"),
            ("perplexity", "change, %"),
            ("tokens", "scored"),
        ],
    );
    for (index, quant) in indexed(comparison).filter(|(index, _)| index.is_some()) {
        let mut tasks: Vec<(&str, &TokenMetrics)> = quant
            .tasks
            .iter()
            .filter_map(|task| Some((task.task.as_str(), task.metrics.as_ref()?)))
            .filter(|(_, metrics)| metrics.kl_divergence.mean.value.is_finite())
            .collect();
        let kl = |metrics: &TokenMetrics| metrics.kl_divergence.mean.value;
        tasks.sort_by(|(_, a), (_, b)| kl(b).total_cmp(&kl(a)));
        let [most, .., least] = tasks.as_slice() else { continue };
        let cells = |(task, metrics): &(&str, &TokenMetrics)| {
            [
                Cell::text(*task),
                Cell::figure(Figure::from(&metrics.kl_divergence.mean)),
                Cell::change(Figure::percent_change(&metrics.ppl_ratio)),
                tokens_cell(metrics),
            ]
        };
        table.row(model_name(quant, index), cells(most).into_iter().chain(cells(least)).collect());
    }
    if table.is_empty() { String::new() } else { table.html() }
}

/// What was scored and asked, and what was not.
fn how_much(comparison: &Comparison) -> String {
    let mut texts = Table::new(
        "What was scored",
        &[
            ("task", ""),
            ("kind", ""),
            ("language", ""),
            ("documents", "or samples"),
            ("too short", "documents"),
            ("cut on the left", "samples"),
            ("not asked", "options"),
            ("tokens", ""),
            ("scored", "tokens"),
            ("without context", "tokens"),
            ("cut off", "tokens"),
            ("cut off", "tokens of answers"),
            ("left out", "records"),
        ],
    );
    for card in &comparison.tasks {
        let amount = |n: usize| Cell::labelled(n as f64, count(n as u64));
        let language = card.language.as_deref().map_or_else(Cell::missing, Cell::text);
        let counts = [
            card.documents,
            card.documents_dropped,
            card.samples_cut,
            card.samples_not_asked,
            card.tokens,
            card.scored_tokens,
            card.unscored_tokens,
            card.dropped_tokens,
            card.answer_tokens_cut,
        ];
        let mut cells = vec![Cell::text(card.kind.as_str()), language];
        cells.extend(counts.map(amount));
        cells.push(match card.left_out.as_slice() {
            [] => Cell::missing(),
            reasons => Cell::text(reasons.join("; ")),
        });
        texts.row(escaped(&card.name), cells);
    }
    details("How much was scored and asked", &texts.html(), false)
}

/// Base's own figures, where no quant stands beside it.
fn base_text(comparison: &Comparison) -> String {
    let mut table = Table::new(
        "Texts under this model alone",
        &[
            ("task", ""),
            ("tokens", "scored"),
            ("perplexity", ""),
            ("bits per byte", ""),
            ("nll", "nats"),
            ("entropy", "nats"),
        ],
    );
    for side in &comparison.base_text {
        let tokens = Cell::labelled(side.scored_tokens as f64, count(side.scored_tokens as u64));
        let tokens = match side.non_finite_tokens {
            0 => tokens,
            n => tokens.noted(format!("{} not finite", count(n as u64))),
        };
        let cells = vec![
            tokens,
            Cell::figure(Figure::from(&side.perplexity)),
            Cell::optional(side.bits_per_byte.as_ref().map(Figure::from)),
            Cell::figure(Figure::from(&side.nll)),
            Cell::figure(Figure::from(&side.entropy)),
        ];
        match &side.task {
            None => table.aside("all texts".to_owned(), cells),
            Some(task) => table.row(escaped(task), cells),
        }
    }
    if table.is_empty() { String::new() } else { table.html() }
}

fn breakdowns(comparison: &Comparison) -> Result<String> {
    let confidence = lines_of(
        comparison,
        |q| &q.by_base_confidence,
        |b| format!("{} – {} %", plain(b.from * 100.0), plain(b.to * 100.0)),
    );
    let position = lines_of(
        comparison,
        |q| &q.by_context_position,
        |b| match b.to.is_finite() {
            true => format!("{} – {}", plain(b.from), plain(b.to - 1.0)),
            false => format!("{} and more", plain(b.from)),
        },
    );
    let part = |title: &str, note: &str, head: &str, chart: Chart, lines: &[Line<'_>]| -> Result<String> {
        if lines.is_empty() {
            return Ok(String::new());
        }
        let matrix = matrix(comparison, &format!("{title}: mean KL divergence, nats"), head, lines);
        let all = full_table(comparison, &format!("{title}: all figures"), head, lines);
        Ok(format!(
            "<div><h3>{title}</h3><p class=\"soft\">{note}</p>{}{matrix}{}</div>",
            drawn(chart, comparison)?,
            details("All figures", &all, false)
        ))
    };
    let confidence = part(
        "By base's confidence",
        "Probability of base's most likely token. Changes where base was sure are the ones that show.",
        "confidence",
        Chart::Confidence,
        &confidence,
    )?;
    let position = part(
        "By context",
        "Number of tokens before the target. Damage that grows with it comes from attention.",
        "context tokens",
        Chart::Context,
        &position,
    )?;
    Ok(confidence + &position)
}

/// One line of a breakdown: its name and the figures of every cousin and the noise floor.
struct Line<'a> {
    name: String,
    metrics: Vec<Option<&'a TokenMetrics>>,
}

fn lines_of<'a>(
    comparison: &'a Comparison,
    buckets: impl Fn(&'a QuantComparison) -> &'a [Bucket],
    name: impl Fn(&Bucket) -> String,
) -> Vec<Line<'a>> {
    let Some(first) = comparison.quants.first() else { return Vec::new() };
    let line = |(i, bucket): (usize, &Bucket)| Line {
        name: name(bucket),
        metrics: indexed(comparison).map(|(_, q)| buckets(q).get(i)?.metrics.as_ref()).collect(),
    };
    buckets(first).iter().enumerate().map(line).collect()
}

/// Lines against cousins, mean KL in the cells, shaded within each cousin.
fn matrix(comparison: &Comparison, caption: &str, head: &str, lines: &[Line<'_>]) -> String {
    let caption = format!("{caption}; each cousin shaded by itself, darkest where it diverges most");
    let mut table = Table::new(caption, &[(head, "")]);
    for (index, quant) in indexed(comparison) {
        table.column(if index.is_some() { quant.model.label.as_str() } else { "noise floor" });
    }
    let mean = |m: Option<&TokenMetrics>| m.map(|m| m.kl_divergence.mean.value).filter(|v| v.is_finite());
    let columns = lines.first().map_or(0, |line| line.metrics.len());
    let largest: Vec<f64> = (0..columns)
        .map(|c| lines.iter().filter_map(|l| mean(l.metrics.get(c).copied().flatten())).fold(0.0, f64::max))
        .collect();
    for line in lines {
        let cells = line.metrics.iter().zip(&largest).map(|(metrics, largest)| match metrics {
            None => Cell::missing(),
            Some(m) => {
                let cell = Cell::figure(Figure::from(&m.kl_divergence.mean));
                if *largest > 0.0 { cell.heated(m.kl_divergence.mean.value / largest) } else { cell }
            }
        });
        table.row(escaped(&line.name), cells.collect());
    }
    table.html()
}

/// Every line and cousin with the main figures.
fn full_table(comparison: &Comparison, caption: &str, head: &str, lines: &[Line<'_>]) -> String {
    let headings = [
        (head, ""),
        ("model", ""),
        ("tokens", "scored"),
        ("KL mean", "nats"),
        ("KL p99", "nats"),
        ("KL max", "nats"),
        ("same top token", "%"),
        ("top-5 overlap", "%"),
        ("perplexity", "change, %"),
        ("base perplexity", ""),
        ("bits per byte", "of base"),
    ];
    let mut table = Table::new(caption, &headings);
    for line in lines {
        for ((index, quant), metrics) in indexed(comparison).zip(&line.metrics) {
            let label = if index.is_some() { quant.model.label.as_str() } else { "noise floor" };
            let mut cells = vec![Cell::text(label)];
            match metrics {
                None => cells.extend((0..headings.len() - 2).map(|_| Cell::missing())),
                Some(m) => cells.extend([
                    tokens_cell(m),
                    Cell::figure(Figure::from(&m.kl_divergence.mean)),
                    Cell::optional(m.kl_divergence.p99.as_ref().map(Figure::from)),
                    Cell::number(m.kl_divergence.max, 3),
                    Cell::figure(Figure::percent(&m.top1_agreement)),
                    Cell::figure(Figure::percent(&m.top5_overlap)),
                    Cell::change(Figure::percent_change(&m.ppl_ratio)),
                    Cell::figure(Figure::from(&m.base_perplexity)),
                    Cell::optional(m.base_bits_per_byte.as_ref().map(Figure::from)),
                ]),
            }
            table.row(escaped(&line.name), cells);
        }
    }
    table.html()
}

/// Where each cousin was furthest from base, in context.
pub(super) fn worst_tokens(comparison: &Comparison) -> Section {
    let lists: Vec<(Option<usize>, &QuantComparison)> = indexed(comparison)
        .filter(|(index, quant)| index.is_some() && !quant.worst_tokens.is_empty())
        .collect();
    let of_all = || lists.iter().flat_map(|(_, quant)| quant.worst_tokens.iter().take(WORST));
    let tasks = questions::distinct(of_all().map(|token| token.task.as_str()));
    let tasks: Vec<String> = tasks.into_iter().map(str::to_owned).collect();
    let largest =
        |quant: &QuantComparison| quant.worst_tokens.first().map_or(0.0, |token| token.kl_divergence);
    let furthest = lists.iter().map(|(_, quant)| largest(quant)).fold(0.0, f64::max);
    let html: String = lists
        .iter()
        .enumerate()
        .map(|(i, (index, quant))| {
            let numbers = |token: &WorstToken| {
                format!("data-cousin=\"{i}\" data-task=\"{}\"", number_of(&tasks, &token.task))
            };
            let items =
                quant.worst_tokens.iter().take(WORST).map(|token| worst_token(token, &numbers(token)));
            let items: String = items.collect();
            let shown = quant.worst_tokens.len().min(WORST);
            let summary = format!("{} · {}", model_name(quant, *index), counted(shown as u64, "token"));
            let more = match quant.worst_tokens.len() - shown {
                0 => String::new(),
                n => format!("<p class=\"soft\">{} in comparison.json.</p>", counted(n as u64, "more token")),
            };
            details(&summary, &format!("<ol class=\"tokens\">{items}</ol>{more}"), largest(quant) >= furthest)
        })
        .collect();
    let html = match html.is_empty() {
        true => html,
        false => {
            let choices = [
                Choice {
                    key: "cousin",
                    label: "Cousin",
                    options: lists.iter().map(|(_, quant)| quant.model.label.clone()).collect(),
                },
                Choice { key: "task", label: "Task", options: tasks },
            ];
            let controls = controls("worst-tokens", of_all().count(), "token", &choices);
            format!(
                "<p class=\"soft\">The scored tokens with the largest KL divergence, after the end of the text before \
                 them. The right token is marked.</p>{controls}<div id=\"worst-tokens\">{html}</div>"
            )
        }
    };
    Section { id: "tokens", title: "Where it diverges most", nav: "Worst tokens", html }
}

fn worst_token(token: &WorstToken, numbers: &str) -> String {
    format!(
        "<li {numbers}><blockquote dir=\"auto\">{}<mark>{}</mark></blockquote>\
         base expects <code>{}</code>, the quant <code>{}</code>; the right token's probability goes from \
         {}\u{a0}% to {}\u{a0}% (KL {}\u{a0}nats) <span class=\"soft\">· {}, document {}, window {}, position {}</span></li>\n",
        escaped_block(&token.context),
        escaped(&token.target),
        escaped(&token.base_top1),
        escaped(&token.quant_top1),
        number(token.base_probability * 100.0, 3),
        number(token.quant_probability * 100.0, 3),
        number(token.kl_divergence, 3),
        escaped(&token.task),
        token.document,
        token.window,
        token.position
    )
}
