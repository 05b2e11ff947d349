//! The summary for a terminal: protocol, warnings, one row per model, the verdict. No line is wider
//! than asked. Where the columns do not fit, the least important ones go first and labels are
//! shortened in the middle. It returns text and prints nothing; colours are not its business.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::comparison::{Comparison, ModelCard, QuantComparison};

use super::format::{Figure, bytes, counted, number, shortened, visible};
use super::wording::{self, Tone};

/// Columns between two cells, where there is room; else one.
const GAP: usize = 2;
/// A label shorter than this tells nothing.
const LEAST_LABEL: usize = 11;
/// Narrower than this nothing can be laid out.
const LEAST_WIDTH: usize = 40;

/// Variation selector 16.
const EMOJI_SIGN: char = '\u{fe0f}';

/// Columns with their headings; the higher the number, the sooner a column goes where room is short.
const COLUMNS: [(&str, u8); 8] = [
    ("model", 0),
    ("size", 4),
    ("bpw", 3),
    ("ppl", 6),
    ("vs base, %", 1),
    ("KL, mean nats", 0),
    ("KL p99", 5),
    ("top-1 %", 2),
];

/// The summary as lines of at most `width` columns (40 at least), each ended by a line feed.
pub fn terminal(comparison: &Comparison, width: usize) -> String {
    let width = width.max(LEAST_WIDTH);
    let mut text = String::new();
    let mut paragraph = |first: &str, sentence: &str| text += &wrapped(sentence, first, width);
    paragraph("", &subject(comparison));
    paragraph("", &format!("protocol {}", visible(&comparison.protocol.description)));
    for warning in &comparison.warnings {
        paragraph("! ", &visible(warning));
    }
    text.push('\n');
    text += &table(&rows(comparison), width);
    text.push('\n');
    let mut paragraph = |first: &str, sentence: &str| text += &wrapped(sentence, first, width);
    for sentence in wording::verdict(comparison) {
        paragraph(if sentence.tone == Tone::Caution { "! " } else { "  " }, &sentence.text);
    }
    text
}

fn subject(comparison: &Comparison) -> String {
    let scored = comparison.tasks.iter().map(|t| t.scored_tokens as u64).sum();
    format!(
        "{} of {} on {}, {}",
        counted(comparison.quants.len() as u64, "cousin"),
        label_of(&comparison.base),
        counted(comparison.tasks.len() as u64, "task"),
        counted(scored, "scored token")
    )
}

type Row = [String; COLUMNS.len()];

fn rows(comparison: &Comparison) -> Vec<Row> {
    let mut rows = vec![base_row(comparison)];
    rows.extend(comparison.quants.iter().map(|q| row(label_of(&q.model), Some(&q.model), q)));
    rows.extend(comparison.noise_floor.iter().map(|q| row("noise floor".to_owned(), None, q)));
    rows
}

fn base_row(comparison: &Comparison) -> Row {
    let perplexity = comparison.rows().next().map(|q| Figure::from(&q.overall.base_perplexity).value);
    let [size, bits] = size_cells(Some(&comparison.base));
    let dash = || "–".to_owned();
    [
        label_of(&comparison.base),
        size,
        bits,
        perplexity.map_or_else(dash, |p| number(p, 4)),
        dash(),
        dash(),
        dash(),
        dash(),
    ]
}

/// A label whose width is the sum of its characters' widths: the sign that makes an emoji of the
/// character before it, and a column wider, is left out.
fn label_of(model: &ModelCard) -> String {
    visible(&model.label).replace(EMOJI_SIGN, "")
}

fn row(label: String, model: Option<&ModelCard>, quant: &QuantComparison) -> Row {
    let [size, bits] = size_cells(model);
    let metrics = &quant.overall;
    [
        label,
        size,
        bits,
        number(metrics.quant_perplexity.value, 4),
        Figure::percent_change(&metrics.ppl_ratio).plus_minus(true),
        Figure::from(&metrics.kl_divergence.mean).plus_minus(false),
        metrics.kl_divergence.p99.as_ref().map_or_else(|| "–".to_owned(), |p99| number(p99.value, 3)),
        Figure::percent(&metrics.top1_agreement).alone(),
    ]
}

fn size_cells(model: Option<&ModelCard>) -> [String; 2] {
    let dash = || "–".to_owned();
    [
        model.map_or_else(dash, |m| bytes(m.weight_bytes)),
        model.map_or_else(dash, |m| number(m.bits_per_weight, 3)),
    ]
}

fn table(rows: &[Row], width: usize) -> String {
    let headings: Row = COLUMNS.map(|(name, _)| name.to_owned());
    let widths: [usize; COLUMNS.len()] = std::array::from_fn(|c| {
        rows.iter().chain([&headings]).map(|row| row.get(c).map_or(0, |cell| cell.width())).max().unwrap_or(0)
    });
    let Layout { kept, label, gap } = layout(&widths, width);
    let mut text = String::new();
    for (i, row) in std::iter::once(&headings).chain(rows).enumerate() {
        let mut line = String::new();
        for &c in &kept {
            let (Some(cell), Some(&column)) = (row.get(c), widths.get(c)) else { continue };
            if c == 0 {
                let cell = shortened(cell, label);
                line += &cell;
                line += &" ".repeat(label.saturating_sub(cell.width()));
            } else {
                line += &" ".repeat(gap + column.saturating_sub(cell.width()));
                line += cell;
            }
        }
        text += line.trim_end();
        text.push('\n');
        if i == 0 {
            text += &"─".repeat(line.width());
            text.push('\n');
        }
    }
    text
}

/// Which columns are shown, how wide the first one is, and what lies between two.
struct Layout {
    kept: Vec<usize>,
    label: usize,
    gap: usize,
}

fn layout(widths: &[usize], width: usize) -> Layout {
    let longest = widths.first().copied().unwrap_or(0);
    let mut kept: Vec<usize> = (0..widths.len()).collect();
    loop {
        for gap in [GAP, 1] {
            let others: usize = kept.iter().skip(1).filter_map(|&c| widths.get(c)).map(|w| w + gap).sum();
            let label = longest.min(width.saturating_sub(others));
            if label >= longest.min(LEAST_LABEL) || (kept.len() <= 2 && gap == 1) {
                return Layout { kept, label, gap };
            }
        }
        let priority = |c: usize| COLUMNS.get(c).map_or(0, |(_, priority)| *priority);
        let least = kept.iter().copied().max_by_key(|&c| priority(c));
        kept.retain(|&c| Some(c) != least);
    }
}

/// `text` broken at spaces; the first line begins with `first`, the others with as many spaces.
fn wrapped(text: &str, first: &str, width: usize) -> String {
    let indent = first.width();
    let room = width.saturating_sub(indent).max(1);
    let mut lines: Vec<String> = vec![String::new()];
    let text = text.replace(EMOJI_SIGN, "");
    for word in text.split(' ').flat_map(|word| pieces(word, room)) {
        let Some(line) = lines.last_mut() else { continue };
        let used = line.width();
        match used {
            0 => *line += &word,
            _ if used + 1 + word.width() <= room => {
                line.push(' ');
                *line += &word;
            }
            _ => lines.push(word),
        }
    }
    let begin = |i: usize| if i == 0 { first.to_owned() } else { " ".repeat(indent) };
    lines.iter().enumerate().map(|(i, line)| format!("{}\n", (begin(i) + line).trim_end())).collect()
}

/// A word in pieces that are at most `room` columns wide.
fn pieces(word: &str, room: usize) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let mut used = 0;
    for c in word.chars() {
        let wide = c.width().unwrap_or(0);
        if used + wide > room {
            pieces.push(String::new());
            used = 0;
        }
        used += wide;
        if let Some(piece) = pieces.last_mut() {
            piece.push(c);
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fixture::{self, Damage};
    use super::*;

    const SOME: Damage =
        Damage { bits_per_weight: 4.5, kl: 0.01, ppl_ratio: 1.02, top1: 0.9, sqnr_db: Some(20.0) };

    fn widest(text: &str) -> usize {
        text.lines().map(UnicodeWidthStr::width).max().unwrap_or(0)
    }

    #[test]
    fn the_table_fits_eighty_columns() {
        let text = terminal(&fixture::comparison(), 80);
        assert!(widest(&text) <= 80, "{text}");
        let table: Vec<&str> =
            text.lines().filter(|line| line.contains("  ") && !line.starts_with(' ')).collect();
        assert_eq!(table.len(), 8, "heading, base, five cousins, noise floor:\n{text}");
        assert!(table[7].starts_with("noise floor"), "{text}");
        assert!(table[2].contains("Q8_0") && table[2].contains("4.48e−5\u{a0}±2.7e−6"), "{text}");
        assert!(text.contains("! 3 documents of perplexity/russian-news"), "{text}");
    }

    #[test]
    fn the_least_important_columns_go_first() {
        let text = terminal(&fixture::comparison(), 50);
        assert!(widest(&text) <= 50, "{text}");
        assert!(text.contains("KL, mean nats") && !text.contains("KL p99"), "{text}");
    }

    #[test]
    fn labels_have_no_power_over_the_terminal() {
        let text = terminal(&fixture::of(vec![fixture::quant("\u{1b}[2J\nboom\r", SOME)]), 80);
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_line_is_wider_than_asked(
            labels in prop::collection::vec("[\\PC\u{fe0f}]{0,60}", 0..6),
            warning in "[\\PC\u{fe0f}]{0,200}",
            kl in prop_oneof![Just(0.0), Just(f64::NAN), Just(f64::INFINITY), 1e-12..1e3],
            width in 40usize..140,
        ) {
            let cousin = |label: &String| fixture::quant(label, Damage { kl, ..SOME });
            let mut comparison = fixture::of(labels.iter().map(cousin).collect());
            comparison.warnings.push(warning);
            let text = terminal(&comparison, width);
            prop_assert!(widest(&text) <= width, "{}", text);
        }
    }
}
