//! The report as one Markdown text, for a comment on a pull request or the summary of a job: what was found, in as
//! little room as a comment has.
//!
//! Sentences and figures are those of the page (`wording`, `format`); a table that is too long loses its last rows, and
//! says how many. A model's name, a path and above all a model's output are hostile text: everything that is not
//! written in this folder goes through `escape`. It must not know where the text is shown.

mod details;
pub(super) mod escape;
mod part;
mod tables;

use crate::comparison::{Comparison, ModelCard};

use super::format::{bytes, counted, number};
use super::wording::{self, Tone};
use part::Part;

/// Bytes of a document at most; GitHub's comments end at 65,536 characters.
pub const MOST_BYTES: usize = 60_000;
/// Characters of a heading.
const HEADING: usize = 300;
/// Characters of a sentence.
const SENTENCE: usize = 1500;
/// Characters of the protocol among the facts.
const PROTOCOL: usize = 120;

/// The whole report.
pub fn document(comparison: &Comparison) -> String {
    let mut parts = vec![Part::text(format!(
        "## {}\n\n{}\n",
        escape::text(&wording::headline(comparison), HEADING),
        facts(comparison)
    ))];
    parts.extend(warnings(comparison));
    parts.extend(verdict(comparison));
    for tables in [
        tables::ranking,
        tables::own_texts,
        tables::own_scores,
        tables::accuracy,
        tables::languages,
        tables::levels,
        tables::layers,
        details::tokens,
        details::flipped,
        details::provenance,
    ] {
        parts.extend(tables(comparison));
    }
    part::fitted(parts, MOST_BYTES)
}

/// Who was compared with whom, on what, when.
fn facts(comparison: &Comparison) -> String {
    let cousins = comparison.quants.len() + comparison.foreign.len();
    let of = if cousins == 0 { String::new() } else { format!("{} of ", counted(cousins as u64, "cousin")) };
    let base = &comparison.base;
    let mut facts = vec![
        format!("{of}<b>{}</b>{}", escape::name(&base.label, tables::NAME), size(base)),
        counted(comparison.tasks.len() as u64, "task"),
    ];
    let scored: u64 = comparison.tasks.iter().map(|task| task.scored_tokens as u64).sum();
    if scored > 0 {
        facts.push(counted(scored, "scored token"));
    }
    let p = &comparison.provenance;
    let day: String = p.created_utc.chars().take(10).collect();
    facts.push(escape::text(&comparison.protocol.description, PROTOCOL));
    facts.push(format!("qeval {}", escape::text(&p.qeval_version, tables::NAME)));
    facts.push(escape::text(&day, tables::NAME));
    facts.join(" · ")
}

/// Of sample files and logits files no size is known.
fn size(model: &ModelCard) -> String {
    match model.weight_bytes {
        0 => String::new(),
        size => format!(" ({}, {} bits per weight)", bytes(size), number(model.bits_per_weight, 3)),
    }
}

fn warnings(comparison: &Comparison) -> Option<Part> {
    let item = |warning: &String| format!("> - {}\n", escape::text(warning, SENTENCE));
    let items: Vec<String> = comparison.warnings.iter().map(item).collect();
    (!items.is_empty()).then(|| Part::list("> [!WARNING]\n".to_owned(), items, "warning"))
}

fn verdict(comparison: &Comparison) -> Option<Part> {
    let item = |sentence: wording::Sentence| {
        let text = escape::text(&sentence.text, SENTENCE);
        match sentence.tone {
            Tone::Plain => format!("- {text}\n"),
            Tone::Caution => format!("- <b>Caution.</b> {text}\n"),
        }
    };
    let items: Vec<String> = wording::verdict(comparison).into_iter().map(item).collect();
    (!items.is_empty()).then(|| Part::list(String::new(), items, "sentence"))
}

#[cfg(test)]
mod tests;
