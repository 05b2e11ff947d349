//! Sections about what models wrote: written answers, base's answers read by each cousin, texts per byte, cousins of
//! another vocabulary, and samples that flipped. What a model wrote is the most hostile text of all.

use super::table::{Cell, Table, details};
use super::{Section, escaped, escaped_block, foreign, indexed, signed_name};
use crate::comparison::{Comparison, FlippedSample, TaskBytes};
use crate::report::format::{Figure, bytes, count, counted, number};
use crate::report::questions;

/// Flipped samples shown per cousin; the saved comparison may hold more.
const FLIPPED: usize = 40;

/// All sections but the flipped samples.
pub(super) fn all(comparison: &Comparison) -> Vec<Section> {
    vec![
        Section { id: "written", title: "Written answers", html: written(comparison) },
        Section { id: "traces", title: "Base's answers under each cousin", html: traces(comparison) },
        Section { id: "bytes", title: "Whole texts, per byte", html: rolling(comparison) },
        Section { id: "foreign", title: "Cousins of another vocabulary", html: other_vocabulary(comparison) },
    ]
}

fn written(comparison: &Comparison) -> String {
    let mut table = Table::new(
        "Greedy answers of every cousin against base's",
        &[
            ("task", ""),
            ("model", ""),
            ("answers", ""),
            ("identical", "%"),
            ("first difference", "median token"),
            ("kept until then", "% of base's length"),
            ("tokens", "base, mean"),
            ("tokens", "model, mean"),
            ("cut off", "base, %"),
            ("cut off", "model, %"),
            ("repeats", "base, %"),
            ("repeats", "model, %"),
            ("open thinking", "base, %"),
            ("open thinking", "model, %"),
        ],
    );
    for (index, quant) in indexed(comparison) {
        for task in &quant.generations {
            let g = &task.figures;
            let mut cells = vec![
                Cell::text(questions::name_of(&quant.model.label, index)),
                Cell::labelled(g.samples as f64, count(g.samples as u64)),
                Cell::figure(Figure::percent(&g.identical)),
                Cell::number(g.first_divergence_median, 3),
                Cell::figure(Figure::percent(&g.first_divergence_share)),
                Cell::figure(Figure::from(&g.base_tokens)),
                Cell::figure(Figure::from(&g.quant_tokens)),
            ];
            let shares = [
                &g.base_truncated,
                &g.quant_truncated,
                &g.base_repetition,
                &g.quant_repetition,
                &g.base_unclosed_think,
                &g.quant_unclosed_think,
            ];
            cells.extend(shares.map(|share| Cell::figure(Figure::percent(share))));
            table.row(escaped(&task.task), cells);
        }
    }
    if table.is_empty() {
        return String::new();
    }
    table.html()
        + "<p class=\"note\">Identical: equal to the last token. First difference: the median over all answers; one that \
           is equal counts with its length. Cut off: the answer ran out of tokens. Repeats: four tokens in a row that \
           occurred before in the same answer. Open thinking: a block of reasoning that is never closed.</p>"
}

fn traces(comparison: &Comparison) -> String {
    let mut table = Table::new(
        "Base's own answers, read token by token by every cousin",
        &[
            ("task", ""),
            ("model", ""),
            ("tokens", "scored"),
            ("KL mean", "nats"),
            ("KL p99", "nats"),
            ("KL max", "nats"),
            ("forks", "% of tokens"),
            ("perplexity", "base"),
            ("perplexity", "model"),
        ],
    );
    for (index, quant) in indexed(comparison) {
        for task in &quant.traces {
            let Some(m) = &task.metrics else { continue };
            let tokens = Cell::labelled(m.scored_tokens as f64, count(m.scored_tokens as u64));
            let tokens = match m.non_finite_tokens {
                0 => tokens,
                n => tokens.noted(format!("{} not finite", count(n as u64))),
            };
            let cells = vec![
                Cell::text(questions::name_of(&quant.model.label, index)),
                tokens,
                Cell::figure(Figure::from(&m.kl_divergence.mean)),
                Cell::optional(m.kl_divergence.p99.as_ref().map(Figure::from)),
                Cell::number(m.kl_divergence.max, 3),
                Cell::figure(Figure::percent(&m.top1_agreement).rest_of(100.0)),
                Cell::figure(Figure::from(&m.base_perplexity)),
                Cell::figure(Figure::from(&m.quant_perplexity)),
            ];
            table.row(escaped(&task.task), cells);
        }
    }
    if table.is_empty() {
        return String::new();
    }
    table.html()
        + "<p class=\"note\">Forks: tokens of base's answer where the cousin's most likely token is another one: there \
           its own greedy answer would leave base's. Both sides read the same text, so nothing here depends on what \
           the cousin wrote before.</p>"
}

fn bytes_table(caption: &str) -> Table {
    Table::new(
        caption,
        &[
            ("task", ""),
            ("model", ""),
            ("texts", ""),
            ("base", "bits per byte"),
            ("model", "bits per byte"),
            ("change", "bits per byte"),
            ("base", "perplexity per word"),
            ("model", "perplexity per word"),
        ],
    )
}

fn bytes_row(table: &mut Table, label: &str, task: &TaskBytes) {
    let figures = &task.figures;
    let texts = Cell::labelled(figures.documents as f64, count(figures.documents as u64));
    let texts = match figures.not_finite {
        0 => texts,
        n => texts.noted(format!("{} not finite", count(n as u64))),
    };
    let cells = vec![
        Cell::text(label),
        texts,
        Cell::figure(Figure::from(&figures.base_bits_per_byte)),
        Cell::figure(Figure::from(&figures.quant_bits_per_byte)),
        Cell::change(Figure::from(&figures.delta_bits_per_byte)),
        Cell::figure(Figure::from(&figures.base_word_perplexity)),
        Cell::figure(Figure::from(&figures.quant_word_perplexity)),
    ];
    table.row(escaped(&task.task), cells);
}

fn rolling(comparison: &Comparison) -> String {
    let mut table = bytes_table("Rolling texts: every byte scored");
    for (index, quant) in indexed(comparison) {
        for task in &quant.rolling {
            bytes_row(&mut table, &questions::name_of(&quant.model.label, index), task);
        }
    }
    if table.is_empty() { String::new() } else { table.html() }
}

fn other_vocabulary(comparison: &Comparison) -> String {
    let mut html = String::new();
    let mut table =
        bytes_table("Texts under cousins of another vocabulary: every byte scored, by whatever tokens");
    for (index, cousin) in foreign(comparison) {
        let asked = cousin.questions.as_ref().map_or(0, |q| q.tasks.len());
        let answers = if asked > 0 { " Its answers stand with the others' above." } else { "" };
        html += &format!(
            "<p>{}: {}, {} bits per weight. No KL divergence, no layers and no weights, because {}.{answers}</p>",
            signed_name(&cousin.model.label, Some(index)),
            escaped(&bytes(cousin.model.weight_bytes)),
            number(cousin.model.bits_per_weight, 3),
            escaped(cousin.reason.trim_end_matches('.')),
        );
        cousin.bytes.iter().for_each(|task| bytes_row(&mut table, &cousin.model.label, task));
    }
    if table.is_empty() { html } else { html + &table.html() }
}

/// Samples that one side answered right and the other wrong.
pub(super) fn flipped(comparison: &Comparison) -> Section {
    let html: String = questions::flipped(comparison)
        .enumerate()
        .map(|(i, (label, index, samples))| {
            let shown: String = samples.iter().take(FLIPPED).map(flipped_sample).collect();
            let more = samples.len().saturating_sub(FLIPPED);
            let more = match more {
                0 => String::new(),
                n => {
                    format!("<p class=\"soft\">{} in comparison.json.</p>", counted(n as u64, "more sample"))
                }
            };
            let summary =
                format!("{} · {}", signed_name(label, Some(index)), counted(samples.len() as u64, "sample"));
            details(&summary, &format!("<ol class=\"tokens\">{shown}</ol>{more}"), i == 0)
        })
        .collect();
    let note = "<p class=\"soft\">A few samples of every task that one side answered right and the other wrong: the end \
        of the question, what was expected, and both answers as they were given.</p>";
    let html = if html.is_empty() { html } else { note.to_owned() + &html };
    Section { id: "flipped", title: "Flipped samples", html }
}

fn flipped_sample(sample: &FlippedSample) -> String {
    let side = |who: &str, score: f64, answer: &str| {
        let (class, word) = match score {
            s if s >= 1.0 => ("right", "right".to_owned()),
            s if s <= 0.0 => ("wrong", "wrong".to_owned()),
            s => ("partly", format!("scores {}", number(s, 2))),
        };
        format!(
            "<div class=\"{class}\"><b>{who}: {}</b><blockquote dir=\"auto\">{}</blockquote></div>",
            escaped(&word),
            escaped_block(answer)
        )
    };
    format!(
        "<li><span class=\"soft\">{}, {}</span><blockquote dir=\"auto\">{}</blockquote>{}<div class=\"pair\">{}{}</div></li>\n",
        escaped(&sample.task),
        escaped(&sample.sample),
        escaped_block(&sample.question),
        match sample.expected.trim() {
            "" => String::new(),
            _ => format!("<p>expected <code>{}</code></p>", escaped(&sample.expected)),
        },
        side("base", sample.base_score, &sample.base_answer),
        side("cousin", sample.quant_score, &sample.quant_answer)
    )
}
