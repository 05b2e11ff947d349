//! The tables of the Markdown report: models, accuracy by task, languages, levels, layers; of a model alone its texts
//! and scores. Every function returns the parts that have anything to say.

use super::escape::{name, text};
use super::part::{MISSING, Part, Table};
use crate::comparison::tasks::{PairedScores, TaskKey};
use crate::comparison::{Comparison, LayerComparison, ModelCard, QuantComparison, TokenMetrics};
use crate::report::format::{Figure, bytes, count, counted, listed, number};
use crate::report::questions::{self, Asked, Scope};
use crate::report::wording;
use crate::stats::Estimate;

/// Characters of a name in a cell.
pub(super) const NAME: usize = 48;
/// Cousins side by side in a table.
const COLUMNS: usize = 12;
/// Layers named per cousin.
const LAYERS: usize = 3;

fn headings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A figure with its interval below it.
fn cell(figure: Figure, signed: bool) -> String {
    let [value, interval] = figure.parts(signed);
    match interval.trim() {
        "" => value,
        interval => format!("{value}<br><sub>{interval}</sub>"),
    }
}

fn optional(figure: Option<Figure>) -> String {
    figure.map_or_else(|| MISSING.to_owned(), |figure| cell(figure, false))
}

fn percent_of(share: Option<f64>) -> String {
    share.map_or_else(|| MISSING.to_owned(), |share| number(share * 100.0, 3))
}

/// Cousins from the closest to the furthest, between base and the noise floor.
pub(super) fn ranking(comparison: &Comparison) -> Vec<Part> {
    if comparison.rows().next().is_none() && comparison.foreign.is_empty() {
        return Vec::new();
    }
    let asked = questions::asked(comparison);
    let line = questions::lines(&asked).into_iter().next();
    let answers = |index: Option<usize>| {
        let place = asked.iter().position(|cousin| cousin.index == index)?;
        line.as_ref()?.scores.get(place).copied().flatten()
    };
    let mut table = Table::new(
        headings(&[
            "model",
            "size",
            "bits per weight",
            "KL mean (nats)",
            "KL p99 (nats)",
            "KL p99.9 (nats)",
            "same top token (%)",
            "perplexity (%)",
            "flips (%)",
            "recovery (%)",
            "tokens/s",
        ]),
        "model",
    );
    let base = format!("<i>{}</i> (base)", name(&comparison.base.label, NAME));
    table.row(
        [vec![base], size_cells(&comparison.base), vec![MISSING.to_owned(); 7], speed(&comparison.base)]
            .concat(),
    );
    for quant in wording::ranking(comparison) {
        let index = comparison.quants.iter().position(|other| std::ptr::eq(other, quant));
        let own = vec![name(&quant.model.label, NAME)];
        let figures = [token_cells(Some(&quant.overall)), answer_cells(index.and_then(|i| answers(Some(i))))];
        table.row([own, size_cells(&quant.model), figures.concat(), speed(&quant.model)].concat());
    }
    for (i, foreign) in comparison.foreign.iter().enumerate() {
        let scores = answers(Some(comparison.quants.len() + i));
        let figures = [token_cells(None), answer_cells(scores)].concat();
        let own = vec![name(&foreign.model.label, NAME)];
        table.row([own, size_cells(&foreign.model), figures, speed(&foreign.model)].concat());
    }
    if let Some(floor) = &comparison.noise_floor {
        let own = headings(&["<i>noise floor</i>", MISSING, MISSING]);
        table.row([own, token_cells(Some(&floor.overall)), answer_cells(answers(None))].concat());
    }
    let missing = table.take_missing_columns();
    let mut notes = Vec::new();
    if let Some(scores) = line.as_ref().and_then(|line| line.first()) {
        notes.push(format!("Flips and recovery over {}.", counted(scores.samples as u64, "question")));
    }
    notes.push(text(&wording::about_intervals(comparison), 600));
    if !missing.is_empty() {
        notes.push(format!("Not measured: {}.", listed(&missing)));
    }
    notes.retain(|note| !note.is_empty());
    vec![table.part("").followed_by(&format!("\n{}\n", notes.join(" ")))]
}

/// Of sample files and logits files no size is known.
fn size_cells(model: &ModelCard) -> Vec<String> {
    match model.weight_bytes {
        0 => headings(&[MISSING, MISSING]),
        size => vec![bytes(size), number(model.bits_per_weight, 3)],
    }
}

fn speed(model: &ModelCard) -> Vec<String> {
    let speed = model.tokens_per_second.filter(|speed| speed.is_finite());
    vec![speed.map_or_else(|| MISSING.to_owned(), |speed| count(speed.max(0.0).round() as u64))]
}

fn token_cells(metrics: Option<&TokenMetrics>) -> Vec<String> {
    let Some(metrics) = metrics.filter(|metrics| wording::is_measured(metrics)) else {
        return vec![MISSING.to_owned(); 5];
    };
    let kl = &metrics.kl_divergence;
    vec![
        cell(Figure::from(&kl.mean), false),
        optional(kl.p99.as_ref().map(Figure::from)),
        optional(kl.p99_9.as_ref().map(Figure::from)),
        cell(Figure::percent(&metrics.top1_agreement), false),
        cell(Figure::percent_change(&metrics.ppl_ratio), true),
    ]
}

fn answer_cells(scores: Option<&PairedScores>) -> Vec<String> {
    let flips = scores.and_then(|scores| scores.flips.as_ref()).map(|flips| flips.flips);
    let recovery = scores.and_then(|scores| scores.recovery.as_ref());
    vec![percent_of(flips), optional(recovery.map(Figure::percent))]
}

/// "−6.7 ±2.1" points, bold where a loss is shown.
fn points(scores: Option<&PairedScores>) -> String {
    let Some(scores) = scores else { return MISSING.to_owned() };
    let figure = Figure::percent(&scores.difference);
    let change = match (figure.lower, figure.upper) {
        (Some(_), Some(_)) => figure.plus_minus(true),
        _ => figure.signed_with_interval(),
    };
    if questions::is_loss(scores) { format!("<b>{change}</b>") } else { change }
}

/// Tables with a column per cousin: who stands in them, and what to say of the others.
fn side_by_side<'s, 'a>(asked: &'s [Asked<'a>]) -> (&'s [Asked<'a>], String) {
    match asked.split_at_checked(COLUMNS) {
        Some((shown, more)) if !more.is_empty() => {
            (shown, format!("\n… {} in report.html\n", counted(more.len() as u64, "more cousin")))
        }
        _ => (asked, String::new()),
    }
}

fn columns(first: &[&str], asked: &[Asked<'_>]) -> Vec<String> {
    let names = asked.iter().map(|cousin| match cousin.index {
        Some(_) => name(cousin.label, NAME),
        None => cousin.name(),
    });
    headings(first).into_iter().chain(names).collect()
}

fn not_judged(asked: &[Asked<'_>]) -> String {
    let of = |cousin: &Asked<'_>| {
        let n: usize = cousin.questions.tasks.iter().map(|row| row.scores.not_judged).sum();
        let who = if cousin.index.is_some() { name(cousin.label, NAME) } else { cousin.name() };
        (n > 0).then(|| format!("{} of {who}", count(n as u64)))
    };
    let parts: Vec<String> = asked.iter().filter_map(of).collect();
    match parts.as_slice() {
        [] => String::new(),
        parts => format!(" Answers that could not be judged, and are in no figure: {}.", listed(parts)),
    }
}

/// Change of accuracy by task, cousins side by side.
pub(super) fn accuracy(comparison: &Comparison) -> Vec<Part> {
    let asked = questions::asked(comparison);
    let (shown, more) = side_by_side(&asked);
    let mut table = Table::new(columns(&["task", "n", "base (%)"], shown), "task");
    for line in questions::lines(&asked) {
        let group = if line.scope == Scope::Group { "all of " } else { "" };
        let mark = if line.uninformative().is_some() { " (guessing)" } else { "" };
        let first = line.first();
        let mut cells = vec![
            format!("{group}{}{mark}", name(&line.name, NAME)),
            first.map_or_else(|| MISSING.to_owned(), |scores| count(scores.samples as u64)),
            optional(first.map(|scores| Figure::percent(&scores.base))),
        ];
        cells.extend(line.scores.iter().take(shown.len()).map(|scores| points(*scores)));
        table.marked_row(cells, line.scores.iter().flatten().any(|scores| questions::is_loss(scores)));
    }
    if table.is_empty() {
        return Vec::new();
    }
    let note = format!(
        "\nPercentage points against base with half of the 95 % interval; bold where a loss is shown (p &lt; 0.05, \
         Holm). Guessing: base is not shown to do better there.{}\n",
        not_judged(shown)
    );
    vec![table.part("### Accuracy by task\n\n").followed_by(&(more + &note))]
}

/// The same by language.
pub(super) fn languages(comparison: &Comparison) -> Vec<Part> {
    let asked = questions::asked(comparison);
    let (shown, more) = side_by_side(&asked);
    let mut table = Table::new(columns(&["language", "n", "base (%)"], shown), "language");
    for line in questions::languages(&asked) {
        let first = line.scores.iter().flatten().next().map(|language| &language.scores);
        let mut cells = vec![
            text(&questions::language_name(line.tag), NAME),
            first.map_or_else(|| MISSING.to_owned(), |scores| count(scores.samples as u64)),
            optional(first.map(|scores| Figure::percent(&scores.base))),
        ];
        let scores = || line.scores.iter().map(|language| language.map(|language| &language.scores));
        cells.extend(scores().take(shown.len()).map(points));
        table.marked_row(cells, scores().flatten().any(questions::is_loss));
    }
    if table.is_empty() { Vec::new() } else { vec![table.part("### Languages\n\n").followed_by(&more)] }
}

/// Where each cousin falls off, and every level.
pub(super) fn levels(comparison: &Comparison) -> Vec<Part> {
    let asked = questions::asked(comparison);
    let families = questions::families(comparison, &asked);
    if families.is_empty() {
        return Vec::new();
    }
    let (shown, more) = side_by_side(&asked);
    let mut falls = Table::new(columns(&["task"], shown), "task");
    let mut all = Table::new(columns(&["task", "level", "n", "base (%)"], shown), "level");
    for family in &families {
        let at = |row: &Option<&crate::comparison::tasks::QuestionComparison>| match row
            .map(|row| row.falls_off_at)
        {
            None => MISSING.to_owned(),
            Some(None) => "not shown".to_owned(),
            Some(Some(level)) => format!("<b>{}</b>", text(&questions::level_name(level, family.unit), NAME)),
        };
        let cells =
            std::iter::once(name(family.name, NAME)).chain(family.rows.iter().take(shown.len()).map(at));
        falls.marked_row(cells.collect(), family.rows.iter().flatten().any(|row| row.falls_off_at.is_some()));
        for (i, level) in family.levels.iter().enumerate() {
            let first = family.first_at(*level);
            let mut cells = vec![
                name(family.name, NAME),
                text(&questions::level_name(*level, family.unit), NAME),
                first.map_or_else(|| MISSING.to_owned(), |scores| count(scores.samples as u64)),
                optional(family.base.get(i).copied().flatten().map(Figure::percent)),
            ];
            cells.extend((0..shown.len()).map(|cousin| points(family.at(cousin, *level))));
            let is_loss = |cousin| family.at(cousin, *level).is_some_and(questions::is_loss);
            all.marked_row(cells, (0..asked.len()).any(is_loss));
        }
    }
    const TITLE: &str = "### Reasoning by level\n\n";
    if asked.is_empty() {
        return vec![all.part(TITLE)];
    }
    let about =
        "The first level at which a cousin is shown to be worse than base (5 %, Holm over the levels).\n\n";
    vec![falls.part(&format!("{TITLE}{about}")).followed_by(&more), all.part("").behind("Every level")]
}

/// The layers that add the largest error of their own, by cousin.
pub(super) fn layers(comparison: &Comparison) -> Vec<Part> {
    let mut table = Table::new(headings(&["model", "worst layers"]), "cousin").of_texts();
    for quant in wording::ranking(comparison) {
        let worst = worst_layers(quant);
        if !worst.is_empty() {
            table.row(vec![name(&quant.model.label, NAME), worst.join(", ")]);
        }
    }
    if table.is_empty() {
        return Vec::new();
    }
    let about = "The largest error of their own on base's input, as SQNR (the lower, the worse; without first positions \
                 where others were probed); CKA where depth or width differ from base's.\n\n";
    vec![table.part(&format!("### Worst layers\n\n{about}"))]
}

fn worst_layers(quant: &QuantComparison) -> Vec<String> {
    let cka = |layer: &LayerComparison| layer.cka.filter(|cka| cka.is_finite());
    let named =
        |(layer, figure): &(&LayerComparison, String)| format!("{} ({figure})", wording::layer_name(layer));
    let lowest = |get: &dyn Fn(&LayerComparison) -> Option<f64>, digits: usize, unit: &str| {
        let mut found: Vec<(&LayerComparison, f64)> =
            quant.layers.iter().filter_map(|layer| Some((layer, get(layer)?))).collect();
        found.sort_by(|a, b| a.1.total_cmp(&b.1));
        let of = |(layer, value): &(_, f64)| (*layer, format!("{}{unit}", number(*value, digits)));
        found.iter().take(LAYERS).map(of).map(|pair| named(&pair)).collect::<Vec<String>>()
    };
    let errors = lowest(&wording::own_sqnr, 3, "\u{a0}dB");
    if errors.is_empty() { lowest(&cka, 4, " CKA") } else { errors }
}

/// Texts of a model alone.
pub(super) fn own_texts(comparison: &Comparison) -> Vec<Part> {
    let texts = comparison.base_text.iter().filter(|text| text.scored_tokens > 0);
    let mut table =
        Table::new(headings(&["text", "tokens", "perplexity", "bits per byte", "not finite"]), "text");
    for side in texts.filter(|_| comparison.quants.is_empty()) {
        table.row(vec![
            side.task.as_deref().map_or_else(|| "<i>all text</i>".to_owned(), |task| name(task, NAME)),
            count(side.scored_tokens as u64),
            cell(Figure::from(&side.perplexity), false),
            optional(side.bits_per_byte.as_ref().map(Figure::from)),
            count(side.non_finite_tokens as u64),
        ]);
    }
    if table.is_empty() { Vec::new() } else { vec![table.part("### Texts under this model alone\n\n")] }
}

/// Scores of a model alone.
pub(super) fn own_scores(comparison: &Comparison) -> Vec<Part> {
    let Some(side) = &comparison.base_questions else { return Vec::new() };
    if !questions::asked(comparison).is_empty() {
        return Vec::new();
    }
    let first = ["task", "metric", "n", "score (%)", "guessing (%)", "not judged"];
    let mut table = Table::new(headings(&first), "task");
    for row in &side.tasks {
        let is_share = questions::is_share(&row.key);
        let figure =
            |estimate: &Estimate| if is_share { Figure::percent(estimate) } else { Figure::from(estimate) };
        table.row(vec![
            name(&row.key.task, NAME),
            metric(&row.key) + if is_share { "" } else { " (no share)" },
            count(row.samples as u64),
            cell(figure(&row.score), false),
            percent_of(row.chance),
            count(row.not_judged as u64),
        ]);
    }
    if table.is_empty() { Vec::new() } else { vec![table.part("### Scores of this model alone\n\n")] }
}

fn metric(key: &TaskKey) -> String {
    match &key.filter {
        Some(filter) => text(&format!("{} ({filter})", key.metric), NAME),
        None => text(&key.metric, NAME),
    }
}
