//! The report as one HTML file: no network, no external resource, readable without its script.
//!
//! A model's name, a path and above all a model's output are hostile text: everything that is not
//! written in this folder goes through `escaped` (and a content security policy forbids whatever
//! might slip through). The template beside this file holds the page, `html/` its sections; this file
//! fills one with the others. It must not know where the page is written.

mod alternatives;
mod answers;
mod filter;
mod layers;
mod pairs;
mod provenance;
mod questions;
mod ranking;
mod sections;
mod table;
#[cfg(test)]
mod tests;
mod top;

use crate::comparison::pairwise::{self, Pair};
use crate::comparison::{Comparison, ForeignComparison, QuantComparison};
use crate::error::Result;

use super::charts::{PALETTE, PALETTE_ON_DARK};
use super::format::visible;
use super::wording;

const TEMPLATE: &str = include_str!("template.html");
const SCRIPT: &str = include_str!("report.js");
/// SHA-256 of [`SCRIPT`] in base64, so that the policy lets this script run and no other.
const SCRIPT_HASH: &str = "sha256-c/TmJDsc28xxm18hIHxLf473LyKAE7dErrzAelfmsTk=";

/// A section of the page: its anchor, its heading, its name in the contents and its HTML (empty: left out).
struct Section {
    id: &'static str,
    title: &'static str,
    nav: &'static str,
    html: String,
}

/// The whole page.
pub fn page(comparison: &Comparison) -> Result<String> {
    with_pairs(comparison, &pairwise::neighbours(comparison))
}

fn with_pairs(comparison: &Comparison, pairs: &[Pair]) -> Result<String> {
    let sections = sections(comparison, pairs)?;
    let headline = wording::headline(comparison);
    Ok(fill(
        TEMPLATE,
        &[
            ("title", escaped(&headline)),
            ("headline", escaped(&headline)),
            ("version", escaped(&comparison.provenance.qeval_version)),
            ("facts", top::facts(comparison)),
            ("cousins", top::cousins(comparison)),
            ("size", top::size(comparison)?),
            ("warnings", top::warnings(comparison)),
            ("findings", top::findings(comparison)),
            ("contents", contents(&sections)),
            ("sections", sections.iter().map(in_frame).collect()),
            ("palette", palette(&PALETTE)),
            ("palette_on_dark", palette(&PALETTE_ON_DARK)),
            ("script", SCRIPT.to_owned()),
            ("script_hash", SCRIPT_HASH.to_owned()),
        ],
    ))
}

/// All sections with anything in them, in the order of a reader's questions: how much, where, why, which samples, how.
fn sections(comparison: &Comparison, pairs: &[Pair]) -> Result<Vec<Section>> {
    let all = std::iter::once(ranking::section(comparison))
        .chain(questions::all(comparison)?)
        .chain([sections::texts(comparison)?])
        .chain(answers::all(comparison))
        .chain(layers::all(comparison)?)
        .chain(sections::by_token(comparison)?)
        .chain([
            pairs::section(comparison, pairs),
            sections::worst_tokens(comparison),
            answers::flipped(comparison),
            provenance::section(comparison),
        ]);
    Ok(all.filter(|section| !section.html.is_empty()).collect())
}

/// Foreign text as HTML or XML text or attribute: on one line, without control characters or markup.
pub(super) fn escaped(text: &str) -> String {
    escaped_markup(&visible(text))
}

/// The same, but line feeds and tabs stay: for text shown with its white space.
fn escaped_block(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(|line| visible(&line.replace('\t', "    "))).collect();
    escaped_markup(&lines.join("\n"))
}

fn escaped_markup(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + text.len() / 8);
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// `template` with every `{{name}}` replaced, in one pass: what is filled in is not looked at again.
fn fill(template: &str, values: &[(&str, String)]) -> String {
    let mut page = String::with_capacity(template.len() + values.iter().map(|(_, v)| v.len()).sum::<usize>());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        page.push_str(before);
        let Some((name, after)) = after.split_once("}}") else {
            page.push_str("{{");
            rest = after;
            continue;
        };
        page.extend(values.iter().find(|(n, _)| *n == name).map(|(_, value)| value.as_str()));
        rest = after;
    }
    page.push_str(rest);
    page
}

/// A cousin's name behind the sign that it has in every chart; `index` None is the noise floor.
fn model_name(quant: &QuantComparison, index: Option<usize>) -> String {
    signed_name(&quant.model.label, index)
}

/// The same of a label.
fn signed_name(label: &str, index: Option<usize>) -> String {
    const SHAPES: [&str; 4] = ["", " square", " diamond", " triangle"];
    match index {
        Some(i) => {
            let shape = SHAPES.get(i / PALETTE.len() % SHAPES.len()).copied().unwrap_or_default();
            let colour = i % PALETTE.len();
            format!("<span class=\"s{shape}\" style=\"--c:var(--s{colour})\"></span>{}", escaped(label))
        }
        None => "<span class=\"s\" style=\"--c:#808080\"></span>noise floor".to_owned(),
    }
}

/// Cousins of another vocabulary, numbered after the others.
fn foreign(comparison: &Comparison) -> impl Iterator<Item = (usize, &ForeignComparison)> {
    comparison.foreign.iter().enumerate().map(|(i, foreign)| (comparison.quants.len() + i, foreign))
}

/// Every cousin with its index, then the noise floor.
fn indexed(comparison: &Comparison) -> impl Iterator<Item = (Option<usize>, &QuantComparison)> {
    let quants = comparison.quants.iter().enumerate().map(|(i, quant)| (Some(i), quant));
    quants.chain(comparison.noise_floor.iter().map(|quant| (None, quant)))
}

fn in_frame(section: &Section) -> String {
    let Section { id, title, html, .. } = section;
    format!("<section aria-labelledby=\"{id}\">\n<h2 id=\"{id}\">{title}</h2>\n{html}\n</section>\n")
}

fn contents(sections: &[Section]) -> String {
    sections.iter().map(|s| format!("<li><a href=\"#{}\">{}</a></li>", s.id, s.nav)).collect()
}

fn palette(colours: &[[u8; 3]]) -> String {
    let colour = |(i, [r, g, b]): (usize, &[u8; 3])| format!("--s{i}: #{r:02x}{g:02x}{b:02x}; ");
    colours.iter().enumerate().map(colour).collect()
}
