//! What stands above the sections: what was compared, every cousin in a word and a sentence, size against quality, what
//! must be known before a figure is trusted, and what else was found. It must not know how a grade is computed.

use super::table::details;
use super::{alternatives, escaped, signed_name};
use crate::comparison::Comparison;
use crate::error::Result;
use crate::report::charts::Chart;
use crate::report::format::{bytes, counted, number};
use crate::report::wording::{self, CousinVerdict, Grade, Tone};

/// What was compared, in one line.
pub(super) fn facts(comparison: &Comparison) -> String {
    let base = &comparison.base;
    let scored = comparison.tasks.iter().map(|t| t.scored_tokens as u64).sum();
    let cousins = comparison.quants.len() + comparison.foreign.len();
    let of = if cousins == 0 { String::new() } else { format!("{} of ", counted(cousins as u64, "cousin")) };
    format!(
        "{of}<b>{}</b> ({}, {} bits per weight) · {} · {} · {} · {}",
        escaped(&base.label),
        bytes(base.weight_bytes),
        number(base.bits_per_weight, 3),
        counted(comparison.tasks.len() as u64, "task"),
        counted(scored, "scored token"),
        escaped(&comparison.protocol.description),
        escaped(comparison.provenance.created_utc.get(..10).unwrap_or(&comparison.provenance.created_utc))
    )
}

/// Every cousin, best first, and what the words mean; nothing without a cousin.
pub(super) fn cousins(comparison: &Comparison) -> String {
    let verdicts = wording::cousins(comparison);
    if verdicts.is_empty() {
        return String::new();
    }
    let lines: String = verdicts.iter().map(line).collect();
    let meanings: String = Grade::ALL
        .into_iter()
        .map(|grade| format!("<dt>{}</dt><dd>{}</dd>\n", badge(grade), escaped(&grade.meaning())))
        .collect();
    let order = "<p class=\"note\">Best first, by mean KL divergence from base; cousins without one by their answers. \
        Brackets are 95 % intervals. The first that holds counts, from broken upwards; of text and answers the worse.</p>";
    let definitions = details("What these words mean", &format!("{order}<dl>{meanings}</dl>"), false);
    format!("<ol class=\"cousins\">{lines}</ol>{definitions}")
}

/// A grade's sign and word, in its colour: never the colour alone.
pub(super) fn badge(grade: Grade) -> String {
    let (class, sign) = match grade {
        Grade::Identical => ("best", "="),
        Grade::Lossless => ("best", "✓"),
        Grade::NotShown => ("open", "○"),
        Grade::Small => ("small", "▽"),
        Grade::Clear => ("clear", "▼"),
        Grade::Broken => ("broken", "✕"),
        Grade::Unmeasured => ("open", "–"),
    };
    format!("<span class=\"grade {class}\"><span aria-hidden=\"true\">{sign}</span> {}</span>", grade.word())
}

fn line(verdict: &CousinVerdict<'_>) -> String {
    let model = verdict.model;
    let fault = verdict.fault.iter().map(|text| format!("<p>{}</p>", escaped(text)));
    let more = verdict.more.iter().map(|text| format!("<p class=\"soft\">{}</p>", escaped(text)));
    format!(
        "<li><div class=\"who\"><b>{}</b>{}<span class=\"soft\">{} · {} bits/weight</span></div><div><p>{}</p>{}</div></li>\n",
        signed_name(&model.label, Some(verdict.index)),
        badge(verdict.grade),
        bytes(model.weight_bytes),
        number(model.bits_per_weight, 3),
        escaped(&verdict.lead),
        fault.chain(more).collect::<String>()
    )
}

/// Size against quality; nothing without a cousin.
pub(super) fn size(comparison: &Comparison) -> Result<String> {
    if !Chart::SizeQuality.is_drawn(comparison) {
        return Ok(String::new());
    }
    Ok(format!(
        "<section aria-labelledby=\"size\">\n<h2 id=\"size\">{}</h2>\n{}</section>\n",
        Chart::SizeQuality.title(),
        alternatives::figure(Chart::SizeQuality, comparison)?
    ))
}

/// Warnings shown at once; the others wait behind a line.
const MOST_WARNINGS: usize = 6;

/// What must be known before a figure is trusted: the run's own warnings, and findings that are easily misread.
pub(super) fn warnings(comparison: &Comparison) -> String {
    let cautions = wording::findings(comparison).into_iter().filter(|s| s.tone == Tone::Caution);
    let all: Vec<String> = comparison.warnings.iter().cloned().chain(cautions.map(|s| s.text)).collect();
    if all.is_empty() {
        return String::new();
    }
    let items = |texts: &[String]| -> String {
        texts.iter().map(|text| format!("<li>{}</li>", escaped(text))).collect()
    };
    let (first, more) = all.split_at(all.len().min(MOST_WARNINGS));
    let more = match more {
        [] => String::new(),
        more => {
            details(&counted(more.len() as u64, "more warning"), &format!("<ul>{}</ul>", items(more)), false)
        }
    };
    format!(
        "<aside class=\"warnings\" aria-labelledby=\"warnings\"><h2 id=\"warnings\">Before you trust a figure</h2>\
         <ul>{}</ul>{more}</aside>",
        items(first)
    )
}

/// What was found that is about no single cousin, as a section; nothing where there is nothing.
pub(super) fn findings(comparison: &Comparison) -> String {
    let findings = wording::findings(comparison).into_iter().filter(|s| s.tone == Tone::Plain);
    let list: String = findings.map(|s| format!("<li>{}</li>", escaped(&s.text))).collect();
    let intervals = wording::about_intervals(comparison);
    if list.is_empty() && intervals.is_empty() {
        return String::new();
    }
    let alone = comparison.quants.is_empty() && comparison.foreign.is_empty();
    let title = if alone { "What was found" } else { "What else was found" };
    format!(
        "<section aria-labelledby=\"verdict\">\n<h2 id=\"verdict\">{title}</h2>\n<ul class=\"verdict\">{list}</ul>\
         <p class=\"note\">{}</p></section>\n",
        escaped(&intervals)
    )
}
