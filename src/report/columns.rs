//! Text in columns for a terminal: tables and wrapped paragraphs of which no line is wider than asked. Where the
//! columns of a table do not fit, the least important ones go first and labels are shortened in the middle.
//! It must not know what a figure means.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::format::{shortened, visible};

/// Columns between two cells, where there is room; else one.
const GAP: usize = 2;
/// A label shorter than this tells nothing.
pub(super) const LEAST_LABEL: usize = 11;
/// Variation selector 16.
const EMOJI_SIGN: char = '\u{fe0f}';

/// A heading, and how soon its column goes where room is short: the higher, the sooner.
pub(super) type Heading = (String, u8);

/// Foreign text as a cell whose width is the sum of its characters' widths: the sign that makes an emoji of the
/// character before it, and a column wider, is left out.
pub(super) fn label(text: &str) -> String {
    visible(text).replace(EMOJI_SIGN, "")
}

/// A table with its headings. The first column holds labels; it is shortened, all others are not, unless one of
/// them would take half the line.
pub(super) fn table(headings: &[Heading], rows: &[Vec<String>], width: usize) -> String {
    let cells = |row: &[String]| -> Vec<String> {
        let cell =
            |(c, cell): (usize, &String)| if c == 0 { cell.clone() } else { shortened(cell, width / 2) };
        row.iter().enumerate().map(cell).collect()
    };
    let names: Vec<String> = headings.iter().map(|(name, _)| name.clone()).collect();
    let lines: Vec<Vec<String>> =
        std::iter::once(names.as_slice()).chain(rows.iter().map(Vec::as_slice)).map(cells).collect();
    let wide =
        |c: usize| lines.iter().map(|row| row.get(c).map_or(0, |cell| cell.width())).max().unwrap_or(0);
    let widths: Vec<usize> = (0..headings.len()).map(wide).collect();
    let Layout { kept, label, gap } = layout(headings, &widths, width);
    let mut text = String::new();
    for (i, row) in lines.iter().enumerate() {
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

fn layout(headings: &[Heading], widths: &[usize], width: usize) -> Layout {
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
        let priority = |c: usize| headings.get(c).map_or(0, |(_, priority)| *priority);
        let least = kept.iter().skip(1).copied().max_by_key(|&c| priority(c));
        kept.retain(|&c| Some(c) != least);
    }
}

/// `text` broken at spaces; the first line begins with `first`, the others with as many spaces.
pub(super) fn wrapped(text: &str, first: &str, width: usize) -> String {
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
