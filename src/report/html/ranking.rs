//! The table of all cousins, best first: what each costs and what it lost, with intervals and counts.

use super::table::{Cell, Table, details};
use super::{Section, escaped, model_name, signed_name};
use crate::comparison::tasks::PairedScores;
use crate::comparison::{Comparison, ModelCard, QuantComparison, TokenMetrics};
use crate::report::format::{Figure, bytes, count, number};
use crate::report::wording::{self, CousinVerdict};

/// Figures that need a text and a base.
const OF_TEXT: usize = 6;
/// Figures that need answers and a base.
const OF_ANSWERS: usize = 3;

/// The section.
pub(super) fn section(comparison: &Comparison) -> Section {
    let verdicts = wording::cousins(comparison);
    let html = match verdicts.is_empty() {
        true => String::new(),
        false => {
            let rest = details("Every other figure over all tokens", &others(comparison, &verdicts), false);
            main_table(comparison, &verdicts) + NOTES + &rest
        }
    };
    Section { id: "summary", title: "All cousins, best first", nav: "Ranking", html }
}

const NOTES: &str = "<p class=\"note\">KL divergence: how far the cousin's distribution over the next token is from \
    base's, 0 only where nothing changed; p99 and p99.9 are the values that one token in a hundred and in a thousand \
    exceeds. Same top token: share of positions with the same most likely token. Flips: right under one side and wrong \
    under the other. Recovery: cousin's accuracy / base's. Speed: reading, by this build on this machine. The noise \
    floor is base against itself, rounded to bf16 at every layer: what lies below it is rounding.</p>";

fn main_table(comparison: &Comparison, verdicts: &[CousinVerdict<'_>]) -> String {
    let mut table = Table::new(
        "Every cousin over all scored tokens and all questions; 95 % intervals below the figures",
        &[
            ("model", ""),
            ("grade", ""),
            ("size", "of the weights"),
            ("recovery", "% of base"),
            ("flips", "%"),
            ("KL mean", "nats"),
            ("same top token", "%"),
            ("perplexity", "change, %"),
            ("KL p99", "nats"),
            ("KL p99.9", "nats"),
            ("speed", "tokens/s"),
            ("tokens", "scored"),
            ("questions", "judged"),
        ],
    );
    for verdict in verdicts {
        let index = Some(verdict.index);
        let mut cells = vec![
            Cell::text(verdict.grade.word()).ranked(verdict.grade as usize as f64),
            size_cell(verdict.model),
        ];
        let quant = comparison.quants.get(verdict.index);
        let speed = speed_cell(verdict.model);
        cells.extend(figures(quant, wording::scores_of(comparison, index), speed));
        table.row(signed_name(&verdict.model.label, index), cells);
    }
    if let Some(floor) = &comparison.noise_floor {
        let mut cells = vec![Cell::missing(), Cell::missing()];
        cells.extend(figures(Some(floor), wording::scores_of(comparison, None), Cell::missing()));
        table.aside(model_name(floor, None), cells);
    }
    let mut cells = vec![Cell::missing(), size_cell(&comparison.base)];
    cells.extend(figures(None, None, speed_cell(&comparison.base)));
    table.aside(format!("{} <span class=\"soft\">(base)</span>", escaped(&comparison.base.label)), cells);
    table.html()
}

/// Accuracy first, then text; counts last.
fn figures(quant: Option<&QuantComparison>, scores: Option<&PairedScores>, speed: Cell) -> Vec<Cell> {
    let [recovery, flips, questions] = answer_cells(scores);
    let [mean, p99, p99_9, agreement, perplexity, tokens] = text_cells(quant);
    vec![recovery, flips, mean, agreement, perplexity, p99, p99_9, speed, tokens, questions]
}

fn size_cell(model: &ModelCard) -> Cell {
    Cell::labelled(model.weight_bytes as f64, bytes(model.weight_bytes))
        .noted(format!("{} bits/weight", number(model.bits_per_weight, 3)))
}

fn speed_cell(model: &ModelCard) -> Cell {
    model
        .tokens_per_second
        .map_or_else(Cell::missing, |v| Cell::labelled(v, count(v.max(0.0).round() as u64)))
}

fn text_cells(quant: Option<&QuantComparison>) -> [Cell; OF_TEXT] {
    let Some(metrics) = quant.map(|q| &q.overall).filter(|m| wording::is_measured(m)) else {
        return std::array::from_fn(|_| Cell::missing());
    };
    let kl = &metrics.kl_divergence;
    let optional = |e: &Option<_>| Cell::optional(e.as_ref().map(Figure::from));
    [
        Cell::figure(Figure::from(&kl.mean)),
        optional(&kl.p99),
        optional(&kl.p99_9),
        Cell::figure(Figure::percent(&metrics.top1_agreement)),
        Cell::change(Figure::percent_change(&metrics.ppl_ratio)),
        tokens_cell(metrics),
    ]
}

fn answer_cells(scores: Option<&PairedScores>) -> [Cell; OF_ANSWERS] {
    let Some(scores) = scores else { return std::array::from_fn(|_| Cell::missing()) };
    let flips = scores.flips.as_ref().map_or_else(Cell::missing, |f| {
        Cell::number(f.flips * 100.0, 3).noted(format!(
            "{} lost, {} gained",
            count(f.right_to_wrong),
            count(f.wrong_to_right)
        ))
    });
    let samples = Cell::labelled(scores.samples as f64, count(scores.samples as u64));
    [
        Cell::optional(scores.recovery.as_ref().map(Figure::percent)),
        flips,
        match scores.not_judged {
            0 => samples,
            n => samples.noted(format!("{} not judged", count(n as u64))),
        },
    ]
}

/// Positions that entered a figure, and those that could not.
pub(super) fn tokens_cell(metrics: &TokenMetrics) -> Cell {
    let cell = Cell::labelled(metrics.scored_tokens as f64, count(metrics.scored_tokens as u64));
    match metrics.non_finite_tokens {
        0 => cell,
        n => cell.noted(format!("{} not finite", count(n as u64))),
    }
}

fn others(comparison: &Comparison, verdicts: &[CousinVerdict<'_>]) -> String {
    let mut table = Table::new(
        "All tokens together: what the ranking leaves out",
        &[
            ("model", ""),
            ("perplexity", ""),
            ("nll", "nats"),
            ("bits per byte", ""),
            ("entropy", "nats"),
            ("KL median", "nats"),
            ("KL p90", "nats"),
            ("KL p95", "nats"),
            ("KL max", "nats"),
            ("reverse KL", "mean, nats"),
            ("top-5 overlap", "%"),
            ("change of p", "mean, points"),
            ("change of p", "RMS, points"),
            ("change of p", "p1, points"),
            ("own noise", "KL mean, nats"),
        ],
    );
    let quants = verdicts.iter().filter_map(|v| Some((Some(v.index), comparison.quants.get(v.index)?)));
    let floor = comparison.noise_floor.iter().map(|floor| (None, floor));
    let measured = |quant: &QuantComparison| wording::is_measured(&quant.overall);
    for (index, quant) in quants.chain(floor).filter(|(_, quant)| measured(quant)) {
        let cells = other_cells(quant);
        let heading = model_name(quant, index);
        if index.is_some() { table.row(heading, cells) } else { table.aside(heading, cells) }
    }
    let base = comparison.rows().find(|quant| measured(quant)).map(|quant| &quant.overall);
    if let Some(base) = base {
        let bits = base.base_bits_per_byte.as_ref().map(Figure::from);
        let mut cells = vec![
            Cell::figure(Figure::from(&base.base_perplexity)),
            Cell::figure(Figure::from(&base.base_nll)),
            Cell::optional(bits),
            Cell::figure(Figure::from(&base.base_entropy)),
        ];
        cells.extend((0..10).map(|_| Cell::missing()));
        table.aside(format!("{} <span class=\"soft\">(base)</span>", escaped(&comparison.base.label)), cells);
    }
    table.html()
        + "<p class=\"note\">Change of p: of the right token's probability, in percentage points. Own noise: a cousin \
           that rounds its activations against itself, with embeddings moved by one part in four million.</p>"
}

fn other_cells(quant: &QuantComparison) -> Vec<Cell> {
    let metrics = &quant.overall;
    let kl = &metrics.kl_divergence;
    let optional = |e: &Option<_>| Cell::optional(e.as_ref().map(Figure::from));
    let noise = quant.rounding_noise.as_ref().map(|noise| {
        Cell::figure(Figure::from(&noise.kl_divergence)).noted(format!(
            "{} tokens, {} from base",
            count(noise.scored_tokens as u64),
            number(noise.kl_divergence_from_base.value, 2)
        ))
    });
    vec![
        Cell::figure(Figure::from(&metrics.quant_perplexity)),
        Cell::figure(Figure::from(&metrics.quant_nll)),
        optional(&metrics.quant_bits_per_byte),
        Cell::figure(Figure::from(&metrics.quant_entropy)),
        optional(&kl.median),
        optional(&kl.p90),
        optional(&kl.p95),
        Cell::number(kl.max, 3),
        Cell::figure(Figure::from(&metrics.reverse_kl.mean)),
        Cell::figure(Figure::percent(&metrics.top5_overlap)),
        Cell::change(Figure::percent(&metrics.delta_p.mean)),
        Cell::figure(Figure::percent(&metrics.delta_p.rms)),
        Cell::optional(metrics.delta_p.p1.as_ref().map(Figure::percent)),
        noise.unwrap_or_else(Cell::missing),
    ]
}
