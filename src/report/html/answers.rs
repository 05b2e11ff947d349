//! Sections about what models wrote: written answers, base's answers read by each cousin, texts per byte, cousins of
//! another vocabulary, and samples that flipped. What a model wrote is the most hostile text of all.

use std::cmp::Ordering;

use super::filter::{Choice, controls, number_of};
use super::table::{Cell, Table, details};
use super::{Section, escaped, escaped_block, foreign, indexed, signed_name};
use crate::comparison::{Comparison, FlippedSample, QuantComparison, TaskBytes};
use crate::report::format::{Figure, bytes, count, counted, number};
use crate::report::questions;

/// Flipped samples shown per cousin; the saved comparison may hold more.
const FLIPPED: usize = 40;

/// All sections but the flipped samples.
pub(super) fn all(comparison: &Comparison) -> Vec<Section> {
    vec![
        Section { id: "written", title: "Written answers", nav: "Written", html: written(comparison) },
        Section {
            id: "traces",
            title: "Base's answers under each cousin",
            nav: "Traces",
            html: traces(comparison),
        },
        Section { id: "bytes", title: "Whole texts, per byte", nav: "Bytes", html: rolling(comparison) },
        Section {
            id: "foreign",
            title: "Cousins of another vocabulary",
            nav: "Other vocabulary",
            html: other_vocabulary(comparison),
        },
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
    let figures = |quant: &'_ QuantComparison, task: &str| {
        let figures = &quant.generations.iter().find(|g| g.task == task)?.figures;
        Some((Figure::percent(&figures.identical), 1.0 - figures.identical.value))
    };
    let tasks = comparison.rows().flat_map(|quant| &quant.generations).map(|g| g.task.as_str());
    let matrix = matrix("Answers that equal base's to the last token, %", comparison, tasks, figures);
    matrix
        + &details("All figures of written answers", &table.html(), false)
        + "<p class=\"note\">Identical: equal to the last token. First difference: the median over all answers; one that \
           is equal counts with its length. Cut off: the answer ran out of tokens. Repeats: four tokens in a row that \
           occurred before in the same answer. Open thinking: a block of reasoning that is never closed.</p>"
}

/// Tasks against cousins, one figure in the cells; the darker, the more was lost (0 to 1).
fn matrix<'a>(
    caption: &str,
    comparison: &'a Comparison,
    tasks: impl Iterator<Item = &'a str>,
    figure: impl Fn(&'a QuantComparison, &str) -> Option<(Figure, f64)>,
) -> String {
    let mut table = Table::new(format!("{caption}; the darker, the further from base"), &[("task", "")]);
    let columns: Vec<(Option<usize>, &QuantComparison)> = indexed(comparison).collect();
    for (index, quant) in &columns {
        table.column(questions::name_of(&quant.model.label, *index));
    }
    for task in questions::distinct(tasks) {
        let cell = |(_, quant): &(_, &'a QuantComparison)| match figure(quant, task) {
            None => Cell::missing(),
            Some((shown, lost)) => Cell::figure(shown).heated(lost),
        };
        table.row(escaped(task), columns.iter().map(cell).collect());
    }
    table.html()
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
    let figures = |quant: &'_ QuantComparison, task: &str| {
        let metrics = quant.traces.iter().find(|trace| trace.task == task)?.metrics.as_ref()?;
        let forks = Figure::percent(&metrics.top1_agreement).rest_of(100.0);
        // A fork at every third token is as far as the shade goes.
        Some((forks, forks.value * 3.0 / 100.0))
    };
    let tasks = comparison.rows().flat_map(|quant| &quant.traces).map(|trace| trace.task.as_str());
    let matrix = matrix("Forks in base's own answers, % of tokens", comparison, tasks, figures);
    matrix
        + &details("All figures of base's answers", &table.html(), false)
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

/// Which way a sample went.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Lost,
    Gained,
    Between,
}

impl Way {
    const ALL: [Way; 3] = [Way::Lost, Way::Gained, Way::Between];

    fn of(sample: &FlippedSample) -> Self {
        match sample.quant_score.partial_cmp(&sample.base_score) {
            Some(Ordering::Less) => Way::Lost,
            Some(Ordering::Greater) => Way::Gained,
            _ => Way::Between,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Way::Lost => "right → wrong",
            Way::Gained => "wrong → right",
            Way::Between => "neither",
        }
    }
}

/// Samples that one side answered right and the other wrong.
pub(super) fn flipped(comparison: &Comparison) -> Section {
    let cousins: Vec<(&str, usize, &[FlippedSample])> = questions::flipped(comparison).collect();
    let shown = |samples: &'_ [FlippedSample]| samples.len().min(FLIPPED);
    let total: usize = cousins.iter().map(|(.., samples)| shown(samples)).sum();
    let of_all = || cousins.iter().flat_map(|(.., samples)| samples.iter().take(FLIPPED));
    let tasks = questions::distinct(of_all().map(|sample| sample.task.as_str()));
    let tasks: Vec<String> = tasks.into_iter().map(str::to_owned).collect();
    let ways: Vec<Way> = Way::ALL.into_iter().filter(|way| of_all().any(|s| Way::of(s) == *way)).collect();
    let most = cousins.iter().map(|(.., samples)| samples.len()).max().unwrap_or_default();
    let lists: String = cousins
        .iter()
        .enumerate()
        .map(|(i, (label, index, samples))| {
            let list: String = samples
                .iter()
                .take(FLIPPED)
                .map(|sample| {
                    let way = ways.iter().position(|way| *way == Way::of(sample)).unwrap_or_default();
                    let numbers = format!(
                        "data-cousin=\"{i}\" data-task=\"{}\" data-way=\"{way}\"",
                        number_of(&tasks, &sample.task)
                    );
                    flipped_sample(sample, &numbers)
                })
                .collect();
            let more = match samples.len().saturating_sub(FLIPPED) {
                0 => String::new(),
                n => {
                    format!("<p class=\"soft\">{} in comparison.json.</p>", counted(n as u64, "more sample"))
                }
            };
            let summary =
                format!("{} · {}", signed_name(label, Some(*index)), counted(samples.len() as u64, "sample"));
            details(&summary, &format!("<ol class=\"tokens\">{list}</ol>{more}"), samples.len() == most)
        })
        .collect();
    let html = match lists.is_empty() {
        true => lists,
        false => {
            let choices = [
                Choice {
                    key: "cousin",
                    label: "Cousin",
                    options: cousins.iter().map(|c| c.0.to_owned()).collect(),
                },
                Choice { key: "task", label: "Task", options: tasks },
                Choice {
                    key: "way",
                    label: "Direction",
                    options: ways.iter().map(|way| way.name().to_owned()).collect(),
                },
            ];
            let note = "<p class=\"soft\">A few samples of every task that one side answered right and the other wrong: \
                the end of the question, what was expected, and both answers as they were given.</p>";
            let controls = controls("flipped-samples", total, "sample", &choices);
            format!("{note}{controls}<div id=\"flipped-samples\">{lists}</div>")
        }
    };
    Section { id: "flipped", title: "Flipped samples", nav: "Flips", html }
}

fn flipped_sample(sample: &FlippedSample, numbers: &str) -> String {
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
        "<li {numbers}><span class=\"soft\">{}, {} · {}</span><blockquote dir=\"auto\">{}</blockquote>{}<div class=\"pair\">{}{}</div></li>\n",
        escaped(&sample.task),
        escaped(&sample.sample),
        Way::of(sample).name(),
        escaped_block(&sample.question),
        match sample.expected.trim() {
            "" => String::new(),
            _ => format!("<p>expected <code>{}</code></p>", escaped(&sample.expected)),
        },
        side("base", sample.base_score, &sample.base_answer),
        side("cousin", sample.quant_score, &sample.quant_answer)
    )
}
