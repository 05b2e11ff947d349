//! The summary for a terminal: protocol, warnings, one row per model, what was answered, the verdict. No line is
//! wider than asked. It returns text and prints nothing; colours are not its business.

mod answers;
mod story;

pub use story::story;

use crate::comparison::{Comparison, ModelCard, TaskCard, TokenMetrics};

use super::columns::{self, Heading, wrapped};
use super::format::{Figure, bytes, count, counted, listed, number, visible};
use super::wording::{self, Tone};

/// Narrower than this nothing can be laid out.
const LEAST_WIDTH: usize = 40;

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

/// The first of them: what a model has without a cousin.
const OWN_COLUMNS: usize = 4;

/// The summary as lines of at most `width` columns (40 at least), each ended by a line feed.
pub fn terminal(comparison: &Comparison, width: usize) -> String {
    let width = width.max(LEAST_WIDTH);
    let mut text = wrapped(&subject(comparison), "", width);
    text += &wrapped(&format!("protocol {}", visible(&comparison.protocol.description)), "", width);
    if let Some(asking) = &comparison.asking {
        text += &wrapped(&format!("asked {}", visible(asking)), "", width);
    }
    for warning in &comparison.warnings {
        text += &wrapped(&visible(warning), "! ", width);
    }
    for note in left_out(comparison) {
        text += &wrapped(&note, "! ", width);
    }
    // A model alone has nothing in the columns that compare.
    let alone = comparison.rows().next().is_none() && comparison.foreign.is_empty();
    let columns = COLUMNS.iter().take(if alone { OWN_COLUMNS } else { COLUMNS.len() });
    let headings: Vec<Heading> = columns.map(|(name, least)| ((*name).to_owned(), *least)).collect();
    text.push('\n');
    text += &columns::table(&headings, &rows(comparison), width);
    for part in answers::all(comparison, width) {
        text.push('\n');
        text += &part;
    }
    let verdict = wording::verdict(comparison);
    if !verdict.is_empty() {
        text.push('\n');
    }
    for sentence in verdict {
        text += &wrapped(&sentence.text, if sentence.tone == Tone::Caution { "! " } else { "  " }, width);
    }
    text
}

fn subject(comparison: &Comparison) -> String {
    let scored = comparison.tasks.iter().map(|t| t.scored_tokens as u64).sum();
    let cousins = comparison.quants.len() + comparison.foreign.len();
    let base = columns::label(&comparison.base.label);
    let who = if cousins == 0 { base } else { format!("{} of {base}", counted(cousins as u64, "cousin")) };
    format!(
        "{who} on {}, {}",
        counted(comparison.tasks.len() as u64, "task"),
        counted(scored, "scored token")
    )
}

/// What was not asked, or not whole.
fn left_out(comparison: &Comparison) -> Vec<String> {
    /// Tasks whose left out records are told one by one.
    const TOLD: usize = 4;
    let sum = |get: fn(&TaskCard) -> usize| -> usize { comparison.tasks.iter().map(get).sum() };
    let amounts = [
        (
            sum(|card| card.samples_cut),
            "sample was",
            "samples were",
            "cut off on the left (too long for the model)",
        ),
        (sum(|card| card.samples_not_asked), "option had", "options had", "no token to score"),
        (sum(|card| card.answer_tokens_cut), "token of answers was", "tokens of answers were", "cut off"),
    ];
    let amount = |(n, one, many, what): &(usize, &str, &str, &str)| {
        format!("{} {} {what}", count(*n as u64), if *n == 1 { one } else { many })
    };
    let amounts: Vec<String> = amounts.iter().filter(|(n, ..)| *n > 0).map(amount).collect();
    let mut notes: Vec<String> = Vec::new();
    if !amounts.is_empty() {
        notes.push(format!("{}.", listed(&amounts)));
    }
    let cards: Vec<&TaskCard> = comparison.tasks.iter().filter(|card| !card.left_out.is_empty()).collect();
    notes.extend(cards.iter().take(TOLD).map(|card| {
        let reasons: Vec<String> = card.left_out.iter().map(|reason| visible(reason)).collect();
        format!("{}: left out {}.", visible(&card.name), listed(&reasons))
    }));
    if cards.len() > TOLD {
        notes.push(format!("{} more left something out.", counted((cards.len() - TOLD) as u64, "task")));
    }
    notes
}

fn rows(comparison: &Comparison) -> Vec<Vec<String>> {
    let mut rows = vec![base_row(comparison)];
    rows.extend(comparison.quants.iter().map(|q| row(&q.model.label, Some(&q.model), Some(&q.overall))));
    rows.extend(comparison.foreign.iter().map(|f| row(&f.model.label, Some(&f.model), None)));
    rows.extend(comparison.noise_floor.iter().map(|q| row("noise floor", None, Some(&q.overall))));
    rows
}

fn dash() -> String {
    "–".to_owned()
}

fn base_row(comparison: &Comparison) -> Vec<String> {
    let mut cells = row(&comparison.base.label, Some(&comparison.base), None);
    if let (Some(cell), Some(perplexity)) = (cells.get_mut(3), wording::base_perplexity(comparison)) {
        *cell = number(perplexity.value, 4);
    }
    cells
}

/// Without `metrics`, or where no token was scored, there is nothing but the size.
fn row(label: &str, model: Option<&ModelCard>, metrics: Option<&TokenMetrics>) -> Vec<String> {
    let mut cells = vec![
        columns::label(label),
        model.map_or_else(dash, |m| bytes(m.weight_bytes)),
        model.map_or_else(dash, |m| number(m.bits_per_weight, 3)),
    ];
    cells.extend(match metrics.filter(|m| wording::is_measured(m)) {
        None => std::array::from_fn(|_| dash()),
        Some(metrics) => [
            number(metrics.quant_perplexity.value, 4),
            Figure::percent_change(&metrics.ppl_ratio).plus_minus(true),
            Figure::from(&metrics.kl_divergence.mean).plus_minus(false),
            metrics.kl_divergence.p99.as_ref().map_or_else(dash, |p99| number(p99.value, 3)),
            Figure::percent(&metrics.top1_agreement).alone(),
        ],
    });
    cells
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use unicode_width::UnicodeWidthStr;

    use super::super::fixture::{self, Damage};
    use super::*;

    const SOME: Damage =
        Damage { bits_per_weight: 4.5, kl: 0.01, ppl_ratio: 1.02, top1: 0.9, sqnr_db: Some(20.0) };

    static ANSWERS: std::sync::LazyLock<Comparison> = std::sync::LazyLock::new(fixture::with_questions);

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

    /// Lines without breaks, each run of spaces as one.
    fn flowing(text: &str) -> String {
        text.replace('\u{a0}', " ").split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn answers_of_several_cousins_stand_side_by_side() {
        let text = terminal(&fixture::with_questions(), 80);
        assert!(widest(&text) <= 80, "{text}");
        let flowing = flowing(&text);
        for wanted in [
            "3 cousins of polyglot6m",
            "asked plain text",
            "all questions n base %",
            "worst language Thai (th): −",
            "a loss is shown in 0 of 3 languages",
            "reasoning/sums: polyglot6m-Q2_K falls off at 4 digits and other-4b falls off at 4 digits.",
            "? reasoning/riddles: base is not shown to be better than guessing",
            "Answers that could not be judged, and are in no figure: 1 of polyglot6m-Q8_0,",
            "same: answers equal to base's to the last token",
            "repeat %",
            "other-4b has another vocabulary (its tokenizer has 32,000 tokens, base's 4,096)",
            "bits per byte",
        ] {
            assert!(flowing.contains(wanted), "{wanted}:\n{text}");
        }
        assert!(!text.contains("open %"), "columns of what never happens are left out:\n{text}");
        let lost = text.lines().find(|line| line.starts_with("passages/th")).unwrap();
        assert!(lost.matches('*').count() == 2, "Q2_K and other-4b lose Thai, Q8_0 does not: {lost}");
    }

    #[test]
    fn one_cousin_has_everything_about_every_task() {
        let mut comparison = fixture::with_questions();
        comparison.quants.remove(0);
        comparison.foreign.clear();
        let text = terminal(&comparison, 80);
        assert!(widest(&text) <= 80, "{text}");
        let heading = text.lines().find(|line| line.contains("recovery %")).unwrap();
        assert!(heading.contains("flips %") && heading.contains("visible"), "{heading}");
        assert!(text.contains("reasoning/sums: falls off at 4 digits."), "{text}");
        let group = text.lines().find(|line| line.starts_with("all of passages")).unwrap();
        assert!(group.contains("479") && group.contains('*'), "{group}");
    }

    #[test]
    fn of_many_tasks_the_worst_are_shown() {
        let mut comparison = fixture::with_questions();
        for quant in &mut comparison.quants {
            let questions = quant.questions.as_mut().unwrap();
            let quiet = questions.tasks[0].clone();
            for i in 0..20 {
                let mut task = quiet.clone();
                task.key.task = format!("more/{i}");
                questions.tasks.push(task);
            }
        }
        comparison.foreign.clear();
        let text = flowing(&terminal(&comparison, 80));
        assert!(text.contains("Of 25 tasks the 5 with the largest loss are shown."), "{text}");
        assert!(text.contains("passages/th") && !text.contains("more/19"), "{text}");
    }

    #[test]
    fn a_model_alone_shows_its_own_figures() {
        let text = terminal(&fixture::alone(), 80);
        assert!(widest(&text) <= 80, "{text}");
        assert!(text.starts_with("polyglot6m on 9 tasks"), "{text}");
        let base = text.lines().find(|line| line.starts_with("polyglot6m  ")).unwrap();
        assert!(base.contains("46.48"), "{base}");
        for wanted in ["bits per byte", "guessing, %", "passages/th", "reasoning/riddles", "46.5\u{a0}±2.4"]
        {
            assert!(text.contains(wanted), "{wanted}:\n{text}");
        }
        assert!(!text.contains("recovery") && !text.contains("vs base"), "{text}");
    }

    #[test]
    fn a_run_that_scored_no_text_has_no_figures_of_text() {
        let mut comparison = fixture::with_questions();
        comparison.noise_floor = None;
        for quant in &mut comparison.quants {
            quant.overall.scored_tokens = 0;
            quant.overall.kl_divergence.mean.value = f64::NAN;
        }
        let text = terminal(&comparison, 80);
        assert!(!text.contains("not a number") && !text.contains("not ranked"), "{text}");
    }

    #[test]
    fn what_was_not_asked_is_counted() {
        let mut comparison = fixture::with_questions();
        comparison.tasks[0].samples_cut = 2;
        comparison.tasks[1].samples_not_asked = 1;
        comparison.tasks[1].left_out = vec!["3 records without an answer".to_owned()];
        let text = flowing(&terminal(&comparison, 80));
        let counted = "! 2 samples were cut off on the left (too long for the model) and 1 option had no token to score.";
        assert!(text.contains(counted), "{text}");
        assert!(text.contains("! perplexity/russian-news: left out 3 records without an answer."), "{text}");
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

        #[test]
        fn no_line_about_answers_is_wider_than_asked(
            label in "[\\PC\u{fe0f}]{0,60}",
            task in "[\\PC\u{fe0f}]{0,60}",
            value in prop_oneof![Just(0.0), Just(f64::NAN), Just(-1.0), -1e9..1e9],
            width in 40usize..140,
        ) {
            let mut comparison = ANSWERS.clone();
            comparison.quants[0].model.label = label.clone();
            comparison.foreign[0].model.label = label;
            for questions in comparison.quants.iter_mut().filter_map(|q| q.questions.as_mut()) {
                questions.tasks[0].key.task = task.clone();
                questions.tasks[0].scores.difference.value = value;
                questions.tasks[0].scores.base.value = value;
                questions.languages[0].language = task.clone();
            }
            comparison.quants[0].generations[0].task = task.clone();
            comparison.foreign[0].bytes[0].task = task;
            comparison.foreign[0].bytes[0].figures.delta_bits_per_byte.value = value;
            let text = terminal(&comparison, width);
            prop_assert!(widest(&text) <= width, "{}", text);
        }
    }
}
