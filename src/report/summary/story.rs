//! A comparison told to someone who sees the first one: every cousin in a word and a sentence, then what stands out.
//! No table, no figure that needs an explanation. It returns text and prints nothing.

use super::super::columns::wrapped;
use super::super::format::{bytes, visible};
use super::super::wording::{self, Tone};
use super::LEAST_WIDTH;
use crate::comparison::Comparison;

/// Findings that are told.
const FINDINGS: usize = 5;

/// The story in lines of at most `width` columns (40 at least), each ended by a line feed.
pub fn story(comparison: &Comparison, width: usize) -> String {
    let width = width.max(LEAST_WIDTH);
    let mut text = wrapped(&wording::headline(comparison), "", width);
    for cousin in wording::cousins(comparison) {
        let heading = format!(
            "{}: {} ({})",
            visible(&cousin.model.label),
            cousin.grade.word(),
            bytes(cousin.model.weight_bytes)
        );
        text.push('\n');
        text += &wrapped(&heading, "", width);
        text += &wrapped(&cousin.lead, "  ", width);
        text += &cousin.fault.iter().map(|fault| wrapped(fault, "! ", width)).collect::<String>();
    }
    let findings = wording::findings(comparison);
    if !findings.is_empty() {
        text.push('\n');
    }
    for sentence in findings.iter().take(FINDINGS) {
        text += &wrapped(&sentence.text, if sentence.tone == Tone::Caution { "! " } else { "  " }, width);
    }
    text
}

#[cfg(test)]
mod tests {
    use unicode_width::UnicodeWidthStr;

    use super::super::super::fixture;
    use super::*;

    #[test]
    fn every_cousin_has_its_word_and_no_line_is_too_wide() {
        let comparison = fixture::with_questions();
        for width in [40, 80, 100] {
            let text = story(&comparison, width);
            assert!(text.lines().all(|line| line.width() <= width), "{text}");
        }
        let text = story(&comparison, 80);
        for cousin in wording::cousins(&comparison) {
            let heading = format!("\n{}: {} (", cousin.model.label, cousin.grade.word());
            assert!(text.contains(&heading), "{heading}\n{text}");
        }
        assert!(text.starts_with("polyglot6m-Q8_0 keeps "), "{text}");
        assert!(text.replace('\u{a0}', " ").contains("losses grow with digits in reasoning/sums"), "{text}");
    }
}
