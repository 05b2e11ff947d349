//! The report as one HTML file: no network, no external resource, readable without its script.
//!
//! A model's name, a path and above all a model's output are hostile text: everything that is not
//! written in this folder goes through `escaped` (and a content security policy forbids whatever
//! might slip through). The template beside this file holds the page, `html/` its sections; this file
//! fills one with the others. It must not know where the page is written.

mod answers;
mod layers;
mod provenance;
mod questions;
mod sections;
mod table;

use std::fmt::Write as _;

use crate::comparison::{Comparison, ForeignComparison, QuantComparison};
use crate::error::Result;

use super::charts::{Chart, PALETTE, PALETTE_ON_DARK, Room};
use super::format::{bytes, counted, number, visible};
use super::wording::{self, Tone};

const TEMPLATE: &str = include_str!("template.html");
const SCRIPT: &str = include_str!("report.js");
/// SHA-256 of [`SCRIPT`] in base64, so that the policy lets this script run and no other.
const SCRIPT_HASH: &str = "sha256-7NX0MFNUYDqRB0hAKYrTY3rTZUEqSNU3bMDoPO66O/0=";

/// A section of the page: its anchor, its heading and its HTML (empty: left out).
struct Section {
    id: &'static str,
    title: &'static str,
    html: String,
}

/// The whole page.
pub fn page(comparison: &Comparison) -> Result<String> {
    let sections: Vec<Section> = sections::all(comparison)?
        .into_iter()
        .chain(questions::all(comparison)?)
        .chain(answers::all(comparison))
        .chain(sections::by_token(comparison)?)
        .chain(layers::all(comparison)?)
        .chain([
            sections::worst_tokens(comparison),
            answers::flipped(comparison),
            provenance::section(comparison),
        ])
        .filter(|section| !section.html.is_empty())
        .collect();
    let headline = wording::headline(comparison);
    Ok(fill(
        TEMPLATE,
        &[
            ("title", escaped(&headline)),
            ("headline", escaped(&headline)),
            ("version", escaped(&comparison.provenance.qeval_version)),
            ("facts", facts(comparison)),
            ("warnings", warnings(comparison)),
            ("verdict", verdict(comparison)),
            ("about_intervals", escaped(&wording::about_intervals(comparison))),
            ("contents", contents(&sections)),
            ("sections", sections.iter().map(in_frame).collect()),
            ("palette", palette(&PALETTE)),
            ("palette_on_dark", palette(&PALETTE_ON_DARK)),
            ("script", SCRIPT.to_owned()),
            ("script_hash", SCRIPT_HASH.to_owned()),
        ],
    ))
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

/// A chart, wide and narrow, with its caption.
fn figure(chart: Chart, comparison: &Comparison) -> Result<String> {
    Ok(format!(
        "<figure><div class=\"wide\">{}</div><div class=\"narrow\">{}</div><figcaption>{}</figcaption></figure>",
        chart.inline_svg(comparison, Room::Wide)?,
        chart.inline_svg(comparison, Room::Narrow)?,
        escaped(&chart.caption(comparison))
    ))
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
    let Section { id, title, html } = section;
    format!("<section aria-labelledby=\"{id}\">\n<h2 id=\"{id}\">{title}</h2>\n{html}\n</section>\n")
}

fn contents(sections: &[Section]) -> String {
    sections.iter().map(|s| format!("<li><a href=\"#{}\">{}</a></li>", s.id, s.title)).collect()
}

fn facts(comparison: &Comparison) -> String {
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

fn warnings(comparison: &Comparison) -> String {
    if comparison.warnings.is_empty() {
        return String::new();
    }
    let items: String = comparison.warnings.iter().map(|w| format!("<li>{}</li>", escaped(w))).collect();
    format!(
        "<aside class=\"warnings\" aria-labelledby=\"warnings\"><h2 id=\"warnings\">Before you trust a figure</h2>\
         <ul>{items}</ul></aside>"
    )
}

fn verdict(comparison: &Comparison) -> String {
    let mut list = String::from("<ul class=\"verdict\">");
    for sentence in wording::verdict(comparison) {
        let text = escaped(&sentence.text);
        // Writing to a string cannot fail.
        let _ = match sentence.tone {
            Tone::Plain => write!(list, "<li>{text}</li>"),
            Tone::Caution => write!(list, "<li class=\"caution\"><b>Caution.</b> {text}</li>"),
        };
    }
    list + "</ul>"
}

fn palette(colours: &[[u8; 3]]) -> String {
    let colour = |(i, [r, g, b]): (usize, &[u8; 3])| format!("--s{i}: #{r:02x}{g:02x}{b:02x}; ");
    colours.iter().enumerate().map(colour).collect()
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::super::fixture::{self, Damage, NONE, elements};
    use super::*;

    const HOSTILE: &str = "<script>alert(1)</script>\"'&{{headline}}\u{0}\u{1b}[31m\u{202e}";

    /// A comparison whose every foreign text is hostile.
    fn hostile(tame: &Comparison) -> Comparison {
        let text = serde_json::to_string(tame).unwrap();
        let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
        fn poison(value: &mut serde_json::Value, key: &str) {
            match value {
                serde_json::Value::String(s) if !["stage", "method"].contains(&key) => {
                    s.insert_str(0, HOSTILE)
                }
                serde_json::Value::Array(items) => items.iter_mut().for_each(|v| poison(v, key)),
                serde_json::Value::Object(map) => map.iter_mut().for_each(|(k, v)| poison(v, k)),
                _ => {}
            }
        }
        poison(&mut value, "");
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_page_is_well_formed_and_complete() {
        let page = page(&fixture::comparison()).unwrap();
        let elements = elements(&page);
        assert_eq!(elements.iter().filter(|e| *e == "h1").count(), 1);
        assert_eq!(elements.iter().filter(|e| *e == "svg").count(), 8, "four charts, wide and narrow");
        assert!(!page.contains("<h2 id=\"questions\">"), "nothing was asked");
        assert!(!page.contains("{{") && !page.contains("}}"), "every placeholder is filled");
        for id in
            ["summary", "tasks", "distribution", "confidence", "layers", "weights", "tokens", "provenance"]
        {
            assert!(page.contains(&format!("<h2 id=\"{id}\">")), "{id}");
            assert!(page.contains(&format!("href=\"#{id}\"")), "{id}");
        }
        assert_eq!(
            elements.iter().filter(|e| *e == "table").count(),
            elements.iter().filter(|e| *e == "caption").count()
        );
    }

    #[test]
    fn nothing_is_fetched() {
        let page = page(&fixture::comparison()).unwrap();
        for forbidden in [
            "http:", "https:", "src=", "url(", "@import", "<link", "<img", "<iframe", "<object", "<base",
            "fetch(",
        ] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
    }

    #[test]
    fn hostile_text_stays_text() {
        for comparison in [fixture::comparison(), fixture::with_questions(), fixture::alone()] {
            let (tame, page) = (page(&comparison).unwrap(), page(&hostile(&comparison)).unwrap());
            assert!(!page.contains("<script>alert"));
            assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;{{headline}}␀␛"));
            assert_eq!(
                elements(&page),
                elements(&tame),
                "foreign text must not add, remove or move an element"
            );
            assert!(page.chars().all(|c| c == '\n' || !c.is_control()), "no control character survives");
            assert!(!page.contains('\u{202e}'));
        }
    }

    #[test]
    fn answers_have_sections_of_their_own() {
        let page = page(&fixture::with_questions()).unwrap();
        let elements = elements(&page);
        assert_eq!(elements.iter().filter(|e| *e == "svg").count(), 14, "seven charts, wide and narrow");
        for id in ["questions", "languages", "difficulty", "written", "traces", "bytes", "foreign", "flipped"]
        {
            assert!(page.contains(&format!("<h2 id=\"{id}\">")), "{id}");
        }
        assert_eq!(
            elements.iter().filter(|e| *e == "table").count(),
            elements.iter().filter(|e| *e == "caption").count()
        );
        for wanted in [
            "Thai (th)",
            "4 digits",
            "not shown",
            "base is not shown to be better than guessing",
            "1 not judged",
        ] {
            assert!(page.contains(wanted), "{wanted}");
        }
    }

    #[test]
    fn what_a_model_wrote_is_text() {
        let comparison = fixture::with_questions();
        assert_eq!(comparison.quants[0].flipped[0].quant_answer, fixture::HOSTILE_ANSWER);
        let page = page(&comparison).unwrap();
        let shown = "<b>cousin: wrong</b><blockquote dir=\"auto\">&lt;/blockquote&gt;&lt;script&gt;\
            alert(&#39;answer&#39;)&lt;/script&gt;␛[2J\u{fffd}\nline two</blockquote>";
        assert_eq!(page.matches(shown).count(), 3, "two cousins and one of another vocabulary");
    }

    #[test]
    fn a_model_alone_has_a_page_without_charts_of_cousins() {
        let page = page(&fixture::alone()).unwrap();
        let elements = elements(&page);
        assert_eq!(elements.iter().filter(|e| *e == "svg").count(), 2, "difficulty, wide and narrow");
        assert!(page.contains("Scores of this model alone") && page.contains("Texts under this model alone"));
        assert!(!page.contains("<h2 id=\"size\">") && !page.contains("<h2 id=\"summary\">"));
    }

    #[test]
    fn odd_comparisons_make_a_page() {
        let mut bare = fixture::of(Vec::new());
        (bare.noise_floor, bare.tasks, bare.warnings) = (None, Vec::new(), Vec::new());
        elements(&page(&bare).unwrap());
        let some = Damage { kl: f64::NAN, ppl_ratio: f64::NAN, ..NONE };
        let mut odd = fixture::of(vec![fixture::quant("same", NONE), fixture::quant("lost", some)]);
        odd.quants[0].tasks[0].metrics = None;
        odd.quants[0].by_context_position[0].metrics = None;
        elements(&page(&odd).unwrap());
    }

    #[test]
    fn filling_does_not_look_at_what_it_filled_in() {
        let values = [("a", "{{b}}".to_owned()), ("b", "x".to_owned())];
        assert_eq!(fill("1{{a}}2{{b}}3{{unknown}}4{{", &values), "1{{b}}2x34{{");
    }

    #[test]
    fn the_policy_names_the_script_by_its_hash() {
        assert!(!SCRIPT.contains("{{") && !SCRIPT.contains("</"));
        assert_eq!(SCRIPT_HASH, format!("sha256-{}", base64(&Sha256::digest(SCRIPT))));
    }

    fn base64(bytes: &[u8]) -> String {
        const SIGNS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let group = |three: &[u8]| {
            let bits =
                three.iter().fold(0u32, |bits, &b| bits << 8 | u32::from(b)) << (8 * (3 - three.len()));
            let sign = |i: usize| {
                if i <= three.len() { SIGNS[(bits >> (18 - 6 * i)) as usize & 63] as char } else { '=' }
            };
            (0..4).map(sign).collect::<String>()
        };
        bytes.chunks(3).map(group).collect()
    }
}
