//! The last section: who measured what, how, with which files. Enough to do it again.

use super::table::{Cell, Table, details};
use super::{Section, escaped, foreign, indexed, model_name, signed_name};
use crate::comparison::{Comparison, ModelCard};
use crate::report::format::{bytes, count, counted, number};
use crate::report::wording;

/// The section.
pub(super) fn section(comparison: &Comparison) -> Section {
    let files = details("Files and their hashes", &files(comparison), false);
    let html = measurement(comparison) + &files + &models(comparison) + &suites(comparison);
    Section { id: "provenance", title: "How it was measured", nav: "Provenance", html }
}

fn measurement(comparison: &Comparison) -> String {
    let p = &comparison.provenance;
    let command: Vec<String> = p.command_line.iter().map(|argument| quoted(argument)).collect();
    let terms = [
        ("Command", format!("<code>{}</code>", escaped(&command.join(" ")))),
        ("Protocol", protocol(comparison)),
        ("Asked", comparison.asking.as_deref().map_or_else(|| "no questions".to_owned(), escaped)),
        ("Computed", escaped(&p.compute)),
        ("Where", format!("{}, {}, {} threads", escaped(&p.platform), escaped(&p.device), p.threads)),
        ("When", escaped(&p.created_utc)),
        ("Took", took(p.wall_seconds, p.floating_point_operations)),
        ("Arithmetic", format!("{} floating-point operations", number(p.floating_point_operations, 3))),
        ("Seed", format!("{} (bootstrap, probe sample)", p.seed)),
        ("Intervals", escaped(&wording::about_intervals(comparison))),
        ("Shared vocabulary", format!("{} token ids", count(comparison.vocabulary_size as u64))),
        ("Tokens held at once", count(p.chunk_tokens as u64)),
        (
            "Versions",
            format!(
                "qeval {}, candle {}, format {} of comparison.json",
                escaped(&p.qeval_version),
                escaped(&p.candle_version),
                comparison.schema_version
            ),
        ),
    ];
    let items: String = terms
        .iter()
        .filter(|(_, html)| !html.is_empty())
        .map(|(term, html)| format!("<dt>{term}</dt><dd>{html}</dd>\n"))
        .collect();
    format!("<dl>{items}</dl>")
}

/// The protocol's name where its description does not say it.
fn protocol(comparison: &Comparison) -> String {
    let card = &comparison.protocol;
    let description = escaped(&card.description);
    match card.description.contains(&card.name) {
        true => description,
        false => format!("{}: {description}", escaped(&card.name)),
    }
}

fn took(seconds: f64, operations: f64) -> String {
    let rate = operations / seconds / 1e9;
    let rate =
        if rate.is_finite() && rate > 0.0 { format!(", {} GFLOP/s", number(rate, 3)) } else { String::new() };
    format!("{} s{rate}", number(seconds, 3))
}

/// An argument as a shell takes it.
fn quoted(argument: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./=:,@%+".contains(c);
    if !argument.is_empty() && argument.chars().all(is_plain) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', "'\\''"))
}

/// Base, then the cousins: the heading of a row and the card.
fn cards(comparison: &Comparison) -> impl Iterator<Item = (String, &ModelCard)> {
    let base =
        (format!("{} <span class=\"soft\">(base)</span>", escaped(&comparison.base.label)), &comparison.base);
    let quants = indexed(comparison).filter(|(index, _)| index.is_some());
    let quants = quants.map(|(index, q)| (model_name(q, index), &q.model));
    let foreign = foreign(comparison).map(|(index, f)| (signed_name(&f.model.label, Some(index)), &f.model));
    std::iter::once(base).chain(quants).chain(foreign)
}

fn files(comparison: &Comparison) -> String {
    let headings = [("model", ""), ("file", ""), ("size", ""), ("SHA-256", "")];
    let mut table = Table::new("Files, as they were read", &headings);
    for (name, model) in cards(comparison) {
        for file in &model.files {
            let hash = file.sha256.as_deref().unwrap_or("not computed");
            let size = Cell::labelled(file.bytes as f64, bytes(file.bytes))
                .noted(format!("{} B", count(file.bytes)));
            table.row(name.clone(), vec![Cell::text(file.name.as_str()), size, Cell::text(hash)]);
        }
    }
    if table.is_empty() { String::new() } else { table.html() }
}

fn models(comparison: &Comparison) -> String {
    let mut table = Table::new(
        "Models",
        &[
            ("model", ""),
            ("path", ""),
            ("format", ""),
            ("architecture", ""),
            ("layers", ""),
            ("width", ""),
            ("vocabulary", ""),
            ("weights", ""),
            ("bytes", "of weights"),
            ("bits", "per weight"),
            ("encodings", "largest first"),
            ("activations", "into quantized linears"),
            ("KV cache", ""),
            ("tokenizer", ""),
            ("excluded mass", ""),
        ],
    );
    for (name, model) in cards(comparison) {
        let amount = |n: u64| Cell::labelled(n as f64, count(n));
        let encodings: Vec<String> = model
            .encodings
            .iter()
            .map(|e| format!("{} {} in {}", e.encoding, bytes(e.bytes), counted(e.tensors as u64, "tensor")))
            .collect();
        let cells = vec![
            Cell::text(model.path.as_str()),
            Cell::text(model.format.as_str()),
            Cell::text(model.architecture.as_str()),
            amount(model.num_hidden_layers as u64),
            amount(model.hidden_size as u64),
            amount(model.vocab_size as u64),
            amount(model.parameters),
            amount(model.weight_bytes),
            Cell::number(model.bits_per_weight, 4),
            Cell::text(encodings.join(", ")),
            Cell::text(model.activations.as_str()),
            Cell::text(model.kv_cache.as_deref().unwrap_or("as computed")),
            Cell::text(model.tokenizer.as_str()),
            Cell::number(model.excluded_mass, 3),
        ];
        table.row(name, cells);
    }
    details("Models in detail", &table.html(), false)
}

fn suites(comparison: &Comparison) -> String {
    let mut table = Table::new(
        "Tasks",
        &[
            ("task", ""),
            ("kind", ""),
            ("group", ""),
            ("language", ""),
            ("version", "of the suite"),
            ("SHA-256", "of the suite"),
        ],
    );
    for task in &comparison.tasks {
        let optional = |text: Option<&str>| text.map_or_else(Cell::missing, Cell::text);
        let cells = vec![
            Cell::text(task.kind.as_str()),
            optional(task.group.as_deref()),
            optional(task.language.as_deref()),
            Cell::labelled(f64::from(task.suite_version), task.suite_version.to_string()),
            Cell::text(task.suite_sha256.as_str()),
        ];
        table.row(escaped(&task.name), cells);
    }
    if table.is_empty() { String::new() } else { details("Suites and their hashes", &table.html(), false) }
}
