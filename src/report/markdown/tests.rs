//! The Markdown report: what stands in it, what foreign text cannot do, how large it may become.

use super::*;
use crate::report::fixture::{self, Damage};
use crate::report::format::Figure;
use crate::report::questions;

const SOME: Damage =
    Damage { bits_per_weight: 4.5, kl: 0.01, ppl_ratio: 1.02, top1: 0.9, sqnr_db: Some(20.0) };

const HOSTILE: &str = "</details><script>alert(1)</script>|`a`\n| --- |\n\n# x\n- @octocat #12 GH-1 ![i](https://x.example) \
    <img src=x onerror=y> www.x.example deadbeef [a]: //x\n```\n\u{0}\u{1b}[31m\u{202e}";

/// A comparison whose every foreign text is hostile.
fn hostile(tame: &Comparison) -> Comparison {
    fixture::hostile(tame, HOSTILE)
}

/// Cells of a table's line.
fn cells(line: &str) -> usize {
    line.trim().trim_matches('|').split('|').count()
}

/// Checks every table (as many cells in every row as in its heading) and returns the lines of each.
fn tables(markdown: &str) -> Vec<Vec<&str>> {
    let mut tables: Vec<Vec<&str>> = Vec::new();
    let mut in_table = false;
    for line in markdown.lines() {
        match (line.starts_with('|'), in_table) {
            (true, true) => tables.last_mut().unwrap().push(line),
            (true, false) => tables.push(vec![line]),
            (false, _) if line.starts_with("<pre>") => {}
            (false, _) => assert!(!line.contains('|'), "a pipe outside of any table: {line}"),
        }
        in_table = line.starts_with('|');
    }
    for table in &tables {
        assert!(table.len() >= 2 && table[1].replace(['|', '-', ':', ' '], "").is_empty(), "{table:#?}");
        for line in table {
            assert_eq!(cells(line), cells(table[0]), "{line}\nin {table:#?}");
        }
    }
    tables
}

/// What a line is, without its text: to tell whether foreign text changed the shape of the document.
fn shape(markdown: &str) -> Vec<String> {
    let start = |line: &str| -> String {
        let marks = line.chars().take_while(|c| " #>-|".contains(*c)).collect::<String>();
        if line.starts_with('|') { format!("| {}", cells(line)) } else { marks }
    };
    markdown.lines().map(start).collect()
}

/// All elements but those of hashes, which are code only where they are hashes.
fn elements(markdown: &str) -> Vec<String> {
    let lines = markdown.replace("<br>", "");
    let lines: String = lines.lines().map(|line| line.trim_start_matches("> ").to_owned() + "\n").collect();
    fixture::elements(&lines).into_iter().filter(|element| element != "code").collect()
}

fn plain(markdown: &str) -> String {
    let text = markdown.replace(escape::JOINER, "").replace('\u{a0}', " ");
    [("&#91;", "["), ("&#93;", "]"), ("&#42;", "*"), ("&lt;", "<")]
        .iter()
        .fold(text, |text, (from, to)| text.replace(from, to))
}

#[test]
fn a_comparison_is_told_in_order() {
    let comparison = fixture::with_questions();
    let markdown = document(&comparison);
    let text = plain(&markdown);
    let mut rest = text.as_str();
    let headline = plain(&escape::text(&wording::headline(&comparison), HEADING));
    for wanted in [
        headline.as_str(),
        "3 cousins of <b>polyglot6m</b> (11.6 MB, 16.0 bits per weight) · 9 tasks · 10,200 scored tokens · strided",
        "> [!WARNING]\n> - 3 documents of perplexity/russian-news are too short",
        "polyglot6m-Q2_K keeps",
        "| model | size | bits per weight | KL mean (nats) | KL p99 (nats) | KL p99.9 (nats) |",
        "| <i>polyglot6m</i> (base) | 11.6 MB |",
        "| <i>noise floor</i> | – | – |",
        "Flips and recovery over 809 questions.",
        "### Accuracy by task",
        "| reasoning/riddles (guessing) |",
        "not judged",
        "### Languages",
        "| Thai (th) |",
        "### Reasoning by level",
        "| reasoning/sums | not shown | <b>4 digits</b> | <b>4 digits</b> |",
        "<details><summary>Every level</summary>",
        "### Worst layers",
        "| polyglot6m-Q8_0 | layer 0 (48.0 dB), ",
        "<details><summary>Where it diverges most",
        "comes “снег”",
        "<details><summary>Flipped samples",
        "“What is 4712 + 1993?” Expected “6705”.",
        "<details><summary>How it was measured</summary>",
        "<pre>qeval compare models/polyglot6m models/polyglot6m-Q8_0.gguf --suite perplexity</pre>",
        "- Seed: 20260102",
        "| <code>2c26b46b68ff</code> |",
    ] {
        let wanted = wanted.replace("not judged", "could not be judged");
        let at = rest.find(&wanted).unwrap_or_else(|| panic!("{wanted} is not there or too early:\n{text}"));
        rest = &rest[at..];
    }
    assert_eq!(tables(&markdown).len(), 8, "{markdown}");
}

#[test]
fn figures_are_the_comparisons() {
    let comparison = fixture::with_questions();
    let markdown = document(&comparison);
    let quant = &comparison.quants[1];
    let [value, interval] = Figure::from(&quant.overall.kl_divergence.mean).parts(false);
    assert!(markdown.contains(&format!("| {value}<br><sub>{}</sub> |", interval.trim())), "{markdown}");
    let thai = &quant.questions.as_ref().unwrap().tasks.iter().find(|t| t.key.task == "passages/th").unwrap();
    assert!(questions::is_loss(&thai.scores));
    let lost = format!("<b>{}</b>", Figure::percent(&thai.scores.difference).plus_minus(true));
    let line = markdown.lines().find(|line| line.starts_with("| passages/th |")).unwrap();
    assert!(line.contains(&lost), "{lost} in {line}");
    let quiet = comparison.quants[0].questions.as_ref().unwrap();
    let quiet = quiet.tasks.iter().find(|t| t.key.task == "passages/th").unwrap();
    let quiet = Figure::percent(&quiet.scores.difference).plus_minus(true);
    assert!(line.contains(&format!("| {quiet} |")), "what is not shown is not bold: {line}");
    for sentence in wording::verdict(&comparison) {
        assert!(plain(&markdown).contains(&sentence.text.replace('\u{a0}', " ")), "{}", sentence.text);
    }
}

#[test]
fn without_questions_there_are_none() {
    let markdown = document(&fixture::comparison());
    assert_eq!(tables(&markdown).len(), 4, "ranking, layers, files, tasks:\n{markdown}");
    assert!(!markdown.contains("### Accuracy") && !markdown.contains("Flipped"), "{markdown}");
    assert!(plain(&markdown).contains("Not measured: flips (%) and recovery (%)."), "{markdown}");
}

#[test]
fn a_model_alone_shows_its_own_figures() {
    let markdown = document(&fixture::alone());
    tables(&markdown);
    assert!(
        markdown.contains("### Texts under this model alone")
            && markdown.contains("| <i>all text</i> | 10,200 | 46.5<br>"),
        "{markdown}"
    );
    assert!(
        markdown.contains("### Scores of this model alone")
            && markdown.contains("| passages/th | acc | 160 |"),
        "{markdown}"
    );
    assert!(markdown.contains("| reasoning/sums | 4 digits |"), "{markdown}");
    assert!(!markdown.contains("recovery") && !markdown.contains("(base)"), "{markdown}");
}

#[test]
fn sample_files_have_answers_and_nothing_else() {
    let mut comparison = fixture::with_questions();
    (comparison.quants, comparison.noise_floor) = (Vec::new(), None);
    comparison.tasks.retain(|task| task.scored_tokens == 0);
    for model in [&mut comparison.base, &mut comparison.foreign[0].model] {
        (model.format, model.weight_bytes, model.bits_per_weight) = ("samples".to_owned(), 0, 0.0);
        (model.files, model.tokens_per_second) = (Vec::new(), None);
    }
    comparison.base_text = Vec::new();
    comparison.foreign[0].bytes = Vec::new();
    let markdown = document(&comparison);
    tables(&markdown);
    assert!(markdown.contains("1 cousin of <b>polyglot6m</b> · 6 tasks · "), "{markdown}");
    let overall = comparison.foreign[0].questions.as_ref().unwrap().overall.as_ref().unwrap();
    let flips = crate::report::format::number(overall.flips.unwrap().flips * 100.0, 3);
    assert!(plain(&markdown).contains(&format!("| other-4b | {flips} | ")), "{flips} in {markdown}");
    assert!(plain(&markdown).contains("Not measured: size, bits per weight, KL mean (nats), "), "{markdown}");
    assert!(
        plain(&markdown).contains("is compared by answers alone") && !markdown.contains(" 0 B"),
        "{markdown}"
    );
}

#[test]
fn hostile_text_stays_text() {
    for tame in [fixture::comparison(), fixture::with_questions(), fixture::alone()] {
        let poisoned = hostile(&tame);
        let (tame, markdown) = (document(&tame), document(&poisoned));
        let tables_of = |text| tables(text).iter().map(Vec::len).collect::<Vec<_>>();
        assert!(markdown.len() <= MOST_BYTES);
        let is_whole = !markdown.contains(" in report.html");
        assert!(is_whole || tame.contains("### Accuracy"), "the smaller ones fit");
        if is_whole {
            assert_eq!(tables_of(&markdown), tables_of(&tame));
            assert_eq!(shape(&markdown), shape(&tame), "{markdown}");
            assert_eq!(elements(&markdown), elements(&tame));
        }
        assert!(markdown.chars().all(|c| c == '\n' || !c.is_control()), "no control character survives");
        let lower = markdown.to_lowercase();
        for power in
            ["<script", "<img", "https:/", "@oct", "#12 ", "gh-1", "www.", "](", "deadbeef ", "\u{202e}", "`"]
        {
            let outside: Vec<&str> =
                lower.lines().filter(|l| !l.starts_with("<pre>") && l.contains(power)).collect();
            assert!(outside.is_empty(), "{power}: {outside:#?}");
        }
        assert!(!lower.contains("<script") && !lower.contains("<img"));
    }
}

#[test]
fn hostile_text_is_told_whole() {
    let markdown = document(&hostile(&fixture::of(vec![fixture::quant("Q4", SOME)])));
    assert!(!markdown.contains(" in report.html"), "nothing had to be cut:\n{}", markdown.len());
    assert!(markdown.contains("&lt;script&gt;alert(1)&lt;/script&gt;&#124;&#96;a&#96;"), "{markdown}");
}

#[test]
fn a_large_comparison_fits_and_counts_what_was_cut() {
    let mut comparison = fixture::with_questions();
    let long = "x_|".repeat(200);
    let (quiet, lossy) = (comparison.quants[0].clone(), comparison.quants[1].clone());
    comparison.quants = (0..10)
        .map(|i| {
            let mut quant = if i % 2 == 0 { quiet.clone() } else { lossy.clone() };
            quant.model.label = format!("{long}{i}");
            let questions = quant.questions.as_mut().unwrap();
            let row = questions.tasks[3].clone();
            questions.tasks.extend((0..40).map(|n| {
                let mut row = row.clone();
                row.key.task = format!("suite/{long}{n}");
                row
            }));
            quant
        })
        .collect();
    for n in 0..40 {
        let mut card = comparison.tasks[0].clone();
        card.name = format!("suite/{long}{n}");
        card.left_out = vec![long.clone(); 9];
        comparison.tasks.push(card);
    }
    comparison.warnings = vec![long.clone(); 30];
    let markdown = document(&comparison);
    assert!(markdown.len() <= MOST_BYTES, "{}", markdown.len());
    let tables = tables(&markdown);
    assert!(markdown.contains(" in report.html"), "something was cut");
    let tasks = tables.iter().find(|table| table[0].starts_with("| task | n |")).unwrap();
    let missing = questions::lines(&questions::asked(&comparison)).len() - (tasks.len() - 2);
    if missing > 0 {
        assert!(markdown.contains(&format!("… {missing} more task")), "{missing} of\n{markdown}");
    }
    elements(&markdown);
}

#[test]
fn whatever_comes_it_fits() {
    let mut comparison = fixture::with_questions();
    let endless = "@<|".repeat(30_000);
    let quant = comparison.quants[1].clone();
    comparison.quants = (0..40)
        .map(|i| {
            let mut quant = quant.clone();
            quant.model.label = format!("{i}{endless}{i}");
            quant
        })
        .collect();
    comparison.base.label = endless.clone();
    comparison.protocol.description = endless.clone();
    comparison.asking = Some(endless.clone());
    comparison.provenance.command_line = vec![endless.clone(); 2];
    comparison.provenance.qeval_version = endless.clone();
    comparison.provenance.created_utc = endless.clone();
    comparison.warnings = vec![endless.clone(); 3];
    comparison.tasks[0].left_out = vec![endless];
    let markdown = document(&comparison);
    assert!(markdown.len() <= MOST_BYTES, "{}", markdown.len());
    tables(&markdown);
    assert!(markdown.contains("more cousins in report.html"));
}
