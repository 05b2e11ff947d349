//! Sections about tokens: size against quality, the summary, tasks, breakdowns, the worst tokens.
//! Every function takes the comparison and returns a section, empty where nothing was measured.

use super::table::{Cell, Table, details};
use super::{Section, escaped, escaped_block, figure, indexed, model_name};
use crate::comparison::{Bucket, Comparison, ModelCard, QuantComparison, TokenMetrics, WorstToken};
use crate::error::Result;
use crate::report::charts::Chart;
use crate::report::format::{Figure, bytes, count, counted, number, plain};

/// Worst tokens shown per cousin; the saved comparison may hold more.
const WORST: usize = 20;

/// What comes first: size against quality, the summary, texts by task.
pub(super) fn all(comparison: &Comparison) -> Result<Vec<Section>> {
    Ok(vec![
        Section {
            id: "size",
            title: Chart::SizeQuality.title(),
            html: drawn(Chart::SizeQuality, comparison)?,
        },
        Section { id: "summary", title: "All cousins", html: summary(comparison) },
        Section { id: "tasks", title: "Task by task", html: tasks(comparison)? },
    ])
}

/// What comes after the answers: the distribution over tokens, and breakdowns of it.
pub(super) fn by_token(comparison: &Comparison) -> Result<Vec<Section>> {
    Ok(vec![
        Section {
            id: "distribution",
            title: "Token by token",
            html: drawn(Chart::KlDistribution, comparison)?,
        },
        Section { id: "confidence", title: "By confidence and by context", html: breakdowns(comparison) },
    ])
}

/// A chart, where there is anything to draw.
pub(super) fn drawn(chart: Chart, comparison: &Comparison) -> Result<String> {
    if chart.is_drawn(comparison) { figure(chart, comparison) } else { Ok(String::new()) }
}

fn summary(comparison: &Comparison) -> String {
    if comparison.quants.is_empty() {
        return String::new();
    }
    let mut table = Table::new(
        "Each cousin over all scored tokens; intervals below the figures",
        &[
            ("model", ""),
            ("size", "of the weights"),
            ("bits", "per weight"),
            ("KL mean", "nats"),
            ("same top token", "%"),
            ("perplexity", "ratio to base"),
            ("KL p99", "nats"),
            ("KL p99.9", "nats"),
            ("KL max", "nats"),
            ("perplexity", ""),
            ("change of p", "RMS, %"),
            ("own noise", "KL mean, nats"),
            ("speed", "tokens/s, this run"),
        ],
    );
    let base = format!("{} <span class=\"soft\">(base)</span>", escaped(&comparison.base.label));
    table.aside(base, base_cells(comparison));
    for (index, quant) in indexed(comparison) {
        let (heading, cells) = (model_name(quant, index), summary_cells(quant, index.is_some()));
        if index.is_some() { table.row(heading, cells) } else { table.aside(heading, cells) }
    }
    let notes = "<p class=\"note\">KL divergence: how far the quant's distribution over the next token is from \
        base's, 0 only where nothing changed; p99 and p99.9 are the values that one token in a hundred and in a \
        thousand exceeds. Same top token: share of positions with the same most likely token. Change of p: root \
        mean square of the change of the right token's probability. The noise floor is base against itself, \
        rounded to bf16 at every layer: what lies below it is rounding. Own noise: a cousin that rounds its \
        activations against itself, with embeddings moved by one part in four million.</p>";
    table.html() + notes
}

fn size_cells(model: &ModelCard) -> [Cell; 2] {
    [
        Cell::labelled(model.weight_bytes as f64, bytes(model.weight_bytes)),
        Cell::number(model.bits_per_weight, 3),
    ]
}

fn speed_cell(model: &ModelCard) -> Cell {
    model
        .tokens_per_second
        .map_or_else(Cell::missing, |v| Cell::labelled(v, count(v.max(0.0).round() as u64)))
}

fn base_cells(comparison: &Comparison) -> Vec<Cell> {
    let perplexity = comparison.rows().next().map(|q| Figure::from(&q.overall.base_perplexity));
    let mut cells = size_cells(&comparison.base).to_vec();
    cells.extend((0..6).map(|_| Cell::missing()));
    cells.extend([
        Cell::optional(perplexity),
        Cell::missing(),
        Cell::missing(),
        speed_cell(&comparison.base),
    ]);
    cells
}

fn summary_cells(quant: &QuantComparison, is_cousin: bool) -> Vec<Cell> {
    let metrics = &quant.overall;
    let kl = &metrics.kl_divergence;
    let optional = |e: &Option<_>| Cell::optional(e.as_ref().map(Figure::from));
    let mut cells =
        if is_cousin { size_cells(&quant.model).to_vec() } else { vec![Cell::missing(), Cell::missing()] };
    cells.extend([
        Cell::figure(Figure::from(&kl.mean)),
        Cell::figure(Figure::percent(&metrics.top1_agreement)),
        Cell::figure(Figure::from(&metrics.ppl_ratio)),
        optional(&kl.p99),
        optional(&kl.p99_9),
        Cell::number(kl.max, 3),
        Cell::figure(Figure::from(&metrics.quant_perplexity)),
        Cell::figure(Figure::percent(&metrics.delta_p.rms)),
        Cell::optional(quant.rounding_noise.as_ref().map(|noise| Figure::from(&noise.kl_divergence))),
        if is_cousin { speed_cell(&quant.model) } else { Cell::missing() },
    ]);
    cells
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
    let matrix = matrix(comparison, "Mean KL divergence by task, nats", "task", &lines);
    let all = details(
        "All figures of every task",
        &full_table(comparison, "Every task and cousin", "task", &lines),
        false,
    );
    Ok(chart + &matrix + &all + &amounts)
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

fn breakdowns(comparison: &Comparison) -> String {
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
    if confidence.is_empty() && position.is_empty() {
        return String::new();
    }
    let part = |title: &str, note: &str, head: &str, lines: &[Line<'_>]| {
        if lines.is_empty() {
            return String::new();
        }
        let matrix = matrix(comparison, "Mean KL divergence, nats", head, lines);
        let all = full_table(comparison, title, head, lines);
        format!(
            "<div><h3>{title}</h3><p class=\"soft\">{note}</p>{matrix}{}</div>",
            details("All figures", &all, false)
        )
    };
    let confidence = part(
        "By base's confidence",
        "Probability of base's most likely token. Changes where base was sure are the ones that show.",
        "confidence",
        &confidence,
    );
    let position = part(
        "By context",
        "Number of tokens before the target. Damage that grows with it comes from attention.",
        "context tokens",
        &position,
    );
    format!("{confidence}{position}")
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

fn tokens_cell(metrics: &TokenMetrics) -> Cell {
    let cell = Cell::labelled(metrics.scored_tokens as f64, count(metrics.scored_tokens as u64));
    match metrics.non_finite_tokens {
        0 => cell,
        n => cell.noted(format!("{} not finite", count(n as u64))),
    }
}

/// Where each cousin was furthest from base, in context.
pub(super) fn worst_tokens(comparison: &Comparison) -> Section {
    let lists = indexed(comparison).filter(|(index, q)| index.is_some() && !q.worst_tokens.is_empty());
    let html: String = lists
        .enumerate()
        .map(|(i, (index, quant))| {
            let items: String = quant.worst_tokens.iter().take(WORST).map(worst_token).collect();
            let shown = quant.worst_tokens.len().min(WORST);
            let summary = format!("{} · {}", model_name(quant, index), counted(shown as u64, "token"));
            details(&summary, &format!("<ol class=\"tokens\">{items}</ol>"), i == 0)
        })
        .collect();
    let note = "<p class=\"soft\">The scored tokens with the largest KL divergence, after the end of the text \
        before them. The right token is marked.</p>";
    let html = if html.is_empty() { html } else { note.to_owned() + &html };
    Section { id: "tokens", title: "Where it diverges most", html }
}

fn worst_token(token: &WorstToken) -> String {
    format!(
        "<li><blockquote>{}<mark>{}</mark></blockquote>\
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
