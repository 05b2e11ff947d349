//! What stands folded away in the Markdown report: tokens and answers that changed, and how it was measured. What a
//! model wrote is the most hostile text of all.

use super::escape::{self, name, text, verbatim};
use super::part::{MISSING, Part, Table};
use super::tables::NAME;
use crate::comparison::{Comparison, FlippedSample, ModelCard, WorstToken};
use crate::report::format::{bytes, count, number};
use crate::report::{questions, wording};

/// Tokens and samples shown per cousin.
const EXAMPLES: usize = 3;
/// Characters of what a model read or wrote.
const WRITTEN: usize = 240;
/// Characters of a setting.
const SETTING: usize = 300;
/// Characters of the command line.
const COMMAND: usize = 1200;
/// Characters of a hash: enough to tell files apart.
const HASH: usize = 12;

/// The tokens that changed most, by cousin.
pub(super) fn tokens(comparison: &Comparison) -> Vec<Part> {
    let of = |label: &str, tokens: &[WorstToken]| {
        let items: String = tokens.iter().take(EXAMPLES).map(token).collect();
        format!("<b>{}</b>\n\n{items}\n", name(label, NAME))
    };
    let order = wording::ranking(comparison).into_iter().filter(|quant| !quant.worst_tokens.is_empty());
    let rows: Vec<String> = order.map(|quant| of(&quant.model.label, &quant.worst_tokens)).collect();
    behind(rows, "Where it diverges most: three tokens per cousin")
}

fn token(token: &WorstToken) -> String {
    // Of what was read the end matters.
    let length = token.context.chars().count();
    let context: String = token.context.chars().skip(length.saturating_sub(WRITTEN / 2)).collect();
    format!(
        "- after “{}” comes “{}”: base expects “{}”, the cousin “{}”; its probability goes from {}\u{a0}% to \
         {}\u{a0}% (KL {}\u{a0}nats). {}, document {}, window {}, position {}\n",
        escape::token(&context, WRITTEN / 2),
        escape::token(&token.target, NAME),
        escape::token(&token.base_top1, NAME),
        escape::token(&token.quant_top1, NAME),
        number(token.base_probability * 100.0, 3),
        number(token.quant_probability * 100.0, 3),
        number(token.kl_divergence, 3),
        name(&token.task, NAME),
        token.document,
        token.window,
        token.position
    )
}

/// Samples that one side got right and the other wrong, by cousin.
pub(super) fn flipped(comparison: &Comparison) -> Vec<Part> {
    let of = |(label, _, samples): (&str, usize, &[FlippedSample])| {
        let items: String = samples.iter().take(EXAMPLES).map(sample).collect();
        format!("<b>{}</b>\n\n{items}\n", name(label, NAME))
    };
    behind(questions::flipped(comparison).map(of).collect(), "Flipped samples: three per cousin")
}

fn sample(sample: &FlippedSample) -> String {
    let score = |score: f64| match score {
        s if s >= 1.0 => "right".to_owned(),
        s if s <= 0.0 => "wrong".to_owned(),
        s => format!("scores {}", number(s, 2)),
    };
    let expected = match sample.expected.trim() {
        "" => String::new(),
        expected => format!(" Expected “{}”.", text(expected, WRITTEN)),
    };
    // Of a question the end is saved, and of that the end matters.
    let length = sample.question.chars().count();
    let question: String = sample.question.chars().skip(length.saturating_sub(WRITTEN)).collect();
    format!(
        "- {}, {}: “{}”{expected}\n  - base ({}): “{}”\n  - cousin ({}): “{}”\n",
        name(&sample.task, NAME),
        name(&sample.sample, NAME),
        text(&question, WRITTEN),
        score(sample.base_score),
        text(&sample.base_answer, WRITTEN),
        score(sample.quant_score),
        text(&sample.quant_answer, WRITTEN),
    )
}

fn behind(rows: Vec<String>, summary: &'static str) -> Vec<Part> {
    if rows.is_empty() {
        return Vec::new();
    }
    vec![Part::list(String::new(), rows, "cousin").behind(summary)]
}

/// Models, tasks and settings: enough to do it again.
pub(super) fn provenance(comparison: &Comparison) -> Vec<Part> {
    const SUMMARY: &str = "How it was measured";
    // Parts of one fold: the first opens it, the last closes it.
    let settings = Part::text(settings(comparison));
    let models = models(comparison).part("");
    let tasks = tasks(comparison);
    let open = Part::text(format!("<details><summary>{SUMMARY}</summary>\n"));
    let mut parts = vec![open, settings, models];
    if !tasks.is_empty() {
        parts.push(tasks.part(""));
    }
    parts.push(Part::text("</details>\n".to_owned()));
    parts
}

fn settings(comparison: &Comparison) -> String {
    let p = &comparison.provenance;
    let command: Vec<String> = p.command_line.iter().map(|argument| quoted(argument)).collect();
    let terms = [
        ("Protocol", comparison.protocol.description.clone()),
        ("Asked", comparison.asking.clone().unwrap_or_default()),
        ("Computed", p.compute.clone()),
        ("Where", format!("{}, {}, {} threads", p.platform, p.device, p.threads)),
        ("When", format!("{}, {} s", p.created_utc, number(p.wall_seconds, 3))),
        ("Versions", format!("qeval {}, candle {}", p.qeval_version, p.candle_version)),
    ];
    let told = terms.iter().filter(|(_, value)| !value.is_empty());
    let items: String = told.map(|(term, value)| format!("- {term}: {}\n", text(value, SETTING))).collect();
    format!("{}\n{items}- Seed: {}\n", verbatim(&command.join(" "), COMMAND), p.seed)
}

/// An argument as a shell takes it.
fn quoted(argument: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./=:,@%+".contains(c);
    if !argument.is_empty() && argument.chars().all(is_plain) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', "'\\''"))
}

fn models(comparison: &Comparison) -> Table {
    let names = ["model", "part", "path", "format", "file", "size", "SHA-256"];
    let mut table = Table::new(names.map(str::to_owned).to_vec(), "file").of_texts();
    let base = std::iter::once((&comparison.base, "base"));
    let quants = comparison.quants.iter().map(|quant| (&quant.model, "cousin"));
    let foreign = comparison.foreign.iter().map(|foreign| (&foreign.model, "other vocabulary"));
    for (model, part) in base.chain(quants).chain(foreign) {
        let known = |model: &ModelCard| {
            vec![
                name(&model.label, NAME),
                part.to_owned(),
                name(&model.path, NAME),
                text(&model.format, NAME),
            ]
        };
        if model.files.is_empty() {
            table.row(known(model));
        }
        for file in &model.files {
            let hash = file.sha256.as_deref();
            let hash = hash.map_or_else(|| "not computed".to_owned(), |hash| escape::hash(hash, HASH));
            table.row([known(model), vec![name(&file.name, NAME), bytes(file.bytes), hash]].concat());
        }
    }
    table
}

fn tasks(comparison: &Comparison) -> Table {
    let names =
        ["task", "kind", "documents or samples", "scored tokens", "not scored or cut", "left out", "suite"];
    let mut table = Table::new(names.map(str::to_owned).to_vec(), "task").of_texts();
    for card in &comparison.tasks {
        let amounts = [
            (card.documents_dropped, "too short"),
            (card.samples_cut, "samples cut"),
            (card.samples_not_asked, "options not asked"),
            (card.answer_tokens_cut, "tokens of answers cut"),
        ];
        let amounts =
            amounts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{} {what}", count(*n as u64)));
        let amounts: Vec<String> = amounts.collect();
        let or_none = |text: String| if text.is_empty() { MISSING.to_owned() } else { text };
        table.row(vec![
            name(&card.name, NAME),
            text(&card.kind, NAME),
            count(card.documents as u64),
            count(card.scored_tokens as u64),
            or_none(amounts.join(", ")),
            or_none(text(&card.left_out.join("; "), SETTING)),
            format!("version {}, {}", card.suite_version, escape::hash(&card.suite_sha256, HASH)),
        ]);
    }
    table
}
