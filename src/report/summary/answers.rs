//! The part of the summary about answers: questions, languages, difficulty, written answers, texts per byte; of a
//! model alone its own figures. Every function returns lines of at most `width` columns, empty where nothing was asked.

use crate::comparison::tasks::{GenerationComparison, PairedScores, QuestionComparison};
use crate::comparison::{Comparison, TaskBytes, TokenMetrics};
use crate::stats::Estimate;

use super::super::columns::{self, Heading, LEAST_LABEL, table, wrapped};
use super::super::format::{Figure, count, counted, listed, number, shortened, visible};
use super::super::questions::{self, Asked, Family, Line, Scope};
use super::dash;

/// With more tasks than this only the worst ones are shown.
const MOST_TASKS: usize = 12;
/// How many of them.
const WORST: usize = 5;
/// Columns of a model's name beside a task's.
const NAME: usize = 20;
/// The same where there are many figures.
const NARROW_NAME: usize = 14;
/// Lines of a table beside the questions'.
const MOST_ROWS: usize = 16;

/// All parts that have anything to say, each ended by a line feed.
pub(super) fn all(comparison: &Comparison, width: usize) -> Vec<String> {
    let asked = questions::asked(comparison);
    let mut parts = vec![base_alone(comparison, asked.is_empty(), width)];
    if !asked.is_empty() {
        parts.push(questions_part(&asked, width));
    }
    parts.push(languages(&asked, width) + &difficulty(comparison, &asked, width));
    parts.push(written(comparison, width));
    parts.push(per_byte(comparison, width));
    parts.retain(|part| !part.is_empty());
    parts
}

fn headings(columns: &[(&str, u8)]) -> Vec<Heading> {
    columns.iter().map(|(name, least)| ((*name).to_owned(), *least)).collect()
}

/// `rows` cut to what a terminal has room for, and what to say about the rest.
fn first_rows(mut rows: Vec<Vec<String>>) -> (Vec<Vec<String>>, String) {
    let more = rows.len().saturating_sub(MOST_ROWS);
    rows.truncate(MOST_ROWS);
    let note = match more {
        0 => String::new(),
        n => format!("and {} in the report", counted(n as u64, "more row")),
    };
    (rows, note)
}

fn table_of(columns: &[(&str, u8)], rows: Vec<Vec<String>>, width: usize) -> String {
    let (rows, note) = first_rows(rows);
    let mut text = table(&headings(columns), &rows, width);
    if !note.is_empty() {
        text += &wrapped(&note, "  ", width);
    }
    text
}

/// Base's own figures: its texts where nothing is held against it, its answers where no cousin answered.
fn base_alone(comparison: &Comparison, nobody_asked: bool, width: usize) -> String {
    let mut text = String::new();
    let figure = |estimate: &Estimate| Figure::from(estimate).plus_minus(false);
    let texts = comparison.base_text.iter().filter(|text| text.scored_tokens > 0);
    let rows: Vec<Vec<String>> = texts
        .map(|side| {
            vec![
                side.task.as_deref().map_or_else(|| "all text".to_owned(), columns::label),
                count(side.scored_tokens as u64),
                figure(&side.perplexity),
                side.bits_per_byte.as_ref().map_or_else(dash, figure),
            ]
        })
        .collect();
    if comparison.quants.is_empty() && !rows.is_empty() {
        text +=
            &table_of(&[("text", 0), ("tokens", 2), ("perplexity", 0), ("bits per byte", 1)], rows, width);
    }
    let Some(side) = comparison.base_questions.as_ref().filter(|_| nobody_asked) else { return text };
    let rows = questions::headlines(&side.tasks, |row| &row.key).into_iter().map(|row| {
        let score = match questions::is_share(&row.key) {
            true => Figure::percent(&row.score),
            false => Figure::from(&row.score),
        };
        vec![
            columns::label(&row.key.task),
            count(row.samples as u64),
            score.plus_minus(false),
            row.chance.map_or_else(dash, |chance| number(chance * 100.0, 3)),
            count(row.not_judged as u64),
        ]
    });
    let columns = [("task", 0), ("n", 2), ("right, %", 0), ("guessing, %", 1), ("not judged", 3)];
    if !text.is_empty() {
        text.push('\n');
    }
    text + &table_of(&columns, rows.collect(), width)
}

/// "0.012*": the star where a difference is shown.
fn p_cell(scores: &PairedScores) -> String {
    let star = if questions::is_shown(scores) { "*" } else { "" };
    match questions::p_value(scores) {
        None => dash(),
        Some(p) if p < 0.001 => format!("<0.001{star}"),
        Some(p) => format!("{}{star}", number(p, 2)),
    }
}

/// "−6.7 ±2.1".
fn difference(scores: &PairedScores) -> String {
    Figure::percent(&scores.difference).plus_minus(true)
}

fn questions_part(asked: &[Asked<'_>], width: usize) -> String {
    let lines = questions::lines(asked);
    if lines.is_empty() {
        return String::new();
    }
    let (shown, left) = chosen(&lines);
    let mut text = match asked {
        [only] => full_table(&only.name(), &shown, width),
        _ => by_cousin(asked, &lines, width) + "\n" + &matrix(asked, &shown, width),
    };
    let mut notes = Vec::new();
    if left > 0 {
        let all = lines.iter().filter(|line| line.scope == Scope::Task).count();
        notes.push(format!("Of {all} tasks the {} with the largest loss are shown.", all - left));
    }
    notes.push(
        "Points are percentage points with half of the 95 % interval; * p < 0.05, Holm over the tasks; visible: \
         the loss that these questions would have shown (power 80 %)."
            .to_owned(),
    );
    let without: Vec<&Line<'_>> =
        shown.iter().copied().filter(|line| line.uninformative().is_some()).collect();
    for line in without {
        let reason = visible(line.uninformative().unwrap_or_default());
        notes.push(format!("? {}: {reason}.", visible(&line.name)));
    }
    let not_judged = asked.iter().filter_map(|cousin| {
        let n: usize = cousin.questions.tasks.iter().map(|row| row.scores.not_judged).sum();
        (n > 0).then(|| format!("{} of {}", count(n as u64), cousin.name()))
    });
    let not_judged: Vec<String> = not_judged.collect();
    if !not_judged.is_empty() {
        notes.push(format!(
            "Answers that could not be judged, and are in no figure: {}.",
            listed(&not_judged)
        ));
    }
    for note in notes {
        text += &wrapped(&note, "  ", width);
    }
    text
}

/// The lines that are shown, and how many tasks are not: sums and groups always (few of them), of many tasks the worst.
fn chosen<'l, 'a>(lines: &'l [Line<'a>]) -> (Vec<&'l Line<'a>>, usize) {
    let worst = |scope: Scope| -> (Vec<usize>, usize) {
        let mut of: Vec<(usize, &Line<'_>)> =
            lines.iter().enumerate().filter(|(_, l)| l.scope == scope).collect();
        let all = of.len();
        if all > MOST_TASKS {
            // What says nothing about a loss is not among the worst.
            of.sort_by(|(_, a), (_, b)| {
                let key = |line: &Line<'_>| (line.uninformative().is_some(), line.largest_loss());
                let (a, b) = (key(a), key(b));
                a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
            });
            of.truncate(WORST);
        }
        (of.iter().map(|(i, _)| *i).collect(), all - of.len())
    };
    let (groups, _) = worst(Scope::Group);
    let (tasks, left) = worst(Scope::Task);
    let kept =
        |(i, line): &(usize, &Line<'_>)| line.scope == Scope::All || groups.contains(i) || tasks.contains(i);
    (lines.iter().enumerate().filter(kept).map(|(_, line)| line).collect(), left)
}

fn name_of(line: &Line<'_>) -> String {
    let mark = if line.uninformative().is_some() { "? " } else { "" };
    let group = if line.scope == Scope::Group { "all of " } else { "" };
    format!("{mark}{group}{}", columns::label(&line.name))
}

const SCORES: [(&str, u8); 8] = [
    ("", 0),
    ("n", 4),
    ("base %", 3),
    ("points", 0),
    ("flips %", 5),
    ("recovery %", 2),
    ("p", 1),
    ("visible", 6),
];

fn score_cells(name: String, scores: &PairedScores) -> Vec<String> {
    vec![
        name,
        count(scores.samples as u64),
        Figure::percent(&scores.base).alone(),
        difference(scores),
        scores.flips.as_ref().map_or_else(dash, |flips| number(flips.flips * 100.0, 3)),
        scores.recovery.as_ref().map_or_else(dash, |recovery| Figure::percent(recovery).plus_minus(false)),
        p_cell(scores),
        scores.minimum_detectable_effect.map_or_else(dash, |effect| number(effect * 100.0, 2)),
    ]
}

/// One cousin, everything about every line.
fn full_table(name: &str, lines: &[&Line<'_>], width: usize) -> String {
    let mut columns = headings(&SCORES);
    if let Some(first) = columns.first_mut() {
        first.0 = shortened(&columns::label(name), 2 * NAME);
    }
    let row = |line: &&Line<'_>| Some(score_cells(name_of(line), line.first()?));
    table(&columns, &lines.iter().filter_map(row).collect::<Vec<_>>(), width)
}

/// Several cousins: each over all questions, or over the only task.
fn by_cousin(asked: &[Asked<'_>], lines: &[Line<'_>], width: usize) -> String {
    let Some(line) = lines.first() else { return String::new() };
    let mut columns = headings(&SCORES);
    if let Some(first) = columns.first_mut() {
        first.0 = shortened(&columns::label(&line.name), 2 * NAME);
    }
    let row = |(cousin, scores): (&Asked<'_>, &Option<&PairedScores>)| {
        Some(score_cells(columns::label(&cousin.name()), (*scores)?))
    };
    let rows: Vec<Vec<String>> = asked.iter().zip(&line.scores).filter_map(row).collect();
    table(&columns, &rows, width)
}

/// Several cousins: lines against cousins, as many beside each other as there is room for.
fn matrix(asked: &[Asked<'_>], lines: &[&Line<'_>], width: usize) -> String {
    let cell = |scores: &Option<&PairedScores>| {
        scores.map_or_else(dash, |scores| {
            difference(scores) + if questions::is_shown(scores) { "*" } else { "" }
        })
    };
    // Label, n and base, each with a space before it; a cell of a usual size.
    const FIRST: usize = LEAST_LABEL + 6 + 1 + 6 + 1;
    const USUAL: usize = 13;
    let beside = (width.saturating_sub(FIRST) / (USUAL + 1)).max(1);
    let mut text = String::new();
    for (part, cousins) in asked.chunks(beside).enumerate() {
        let mut columns = headings(&[("points", 0), ("n", 2), ("base %", 1)]);
        columns.extend(cousins.iter().map(|c| (shortened(&columns::label(&c.name()), USUAL), 0)));
        let rows: Vec<Vec<String>> = lines
            .iter()
            .map(|line| {
                let base = line.first();
                let mut cells = vec![
                    name_of(line),
                    base.map_or_else(dash, |scores| count(scores.samples as u64)),
                    base.map_or_else(dash, |scores| Figure::percent(&scores.base).alone()),
                ];
                cells.extend(line.scores.iter().skip(part * beside).take(cousins.len()).map(cell));
                cells
            })
            .collect();
        if part > 0 {
            text.push('\n');
        }
        text += &table(&columns, &rows, width);
    }
    text
}

fn languages(asked: &[Asked<'_>], width: usize) -> String {
    let mut text = String::new();
    for cousin in asked.iter().filter(|a| a.index.is_some()) {
        let all = &cousin.questions.languages;
        if all.is_empty() {
            continue;
        }
        let worst = cousin.questions.worst_language.as_ref();
        let worst = worst.and_then(|tag| all.iter().find(|l| l.language == *tag));
        let mut sentence = match worst {
            None => format!("{}: below base in none of {} languages", cousin.name(), all.len()),
            Some(language) => {
                let english = language.difference_to_english.as_ref().map(|difference| {
                    format!(", {} against English's", Figure::percent(difference).plus_minus(true))
                });
                format!(
                    "{}: worst language {}: {} points{}",
                    cousin.name(),
                    visible(&questions::language_name(&language.language)),
                    difference(&language.scores),
                    english.unwrap_or_default()
                )
            }
        };
        if worst.is_some() {
            let lost = all.iter().filter(|l| questions::is_loss(&l.scores)).count();
            sentence += &format!("; a loss is shown in {lost} of {} languages", all.len());
        }
        text += &wrapped(&(sentence + "."), "  ", width);
    }
    text
}

fn difficulty(comparison: &Comparison, asked: &[Asked<'_>], width: usize) -> String {
    let families: Vec<Family<'_>> = questions::families(comparison, asked);
    if families.is_empty() || asked.is_empty() {
        return String::new();
    }
    let falls = |family: &Family<'_>| -> Vec<String> {
        let rows = asked.iter().zip(&family.rows).filter(|(cousin, _)| cousin.index.is_some());
        let at = |(cousin, row): (&Asked<'_>, &Option<&QuestionComparison>)| {
            let row = (*row)?;
            let name = if asked.len() > 1 { format!("{} ", cousin.name()) } else { String::new() };
            Some(format!("{name}falls off at {}", questions::level_name(row.falls_off_at?, family.unit)))
        };
        rows.filter_map(at).collect()
    };
    let mut text = String::new();
    let fallen: Vec<(&Family<'_>, Vec<String>)> = families
        .iter()
        .map(|family| (family, falls(family)))
        .filter(|(_, falls)| !falls.is_empty())
        .collect();
    for (family, falls) in fallen.iter().take(MOST_TASKS) {
        text += &wrapped(&format!("{}: {}.", visible(family.name), listed(falls)), "  ", width);
    }
    let rest = families.len() - fallen.len().min(MOST_TASKS);
    if fallen.len() > MOST_TASKS {
        let more = fallen.len() - MOST_TASKS;
        text +=
            &wrapped(&format!("{} fall off in the report.", counted(more as u64, "more task")), "  ", width);
    } else if rest > 0 {
        let tasks = counted(rest as u64, "task");
        text += &wrapped(&format!("No level of {tasks} of graded difficulty shows a loss."), "  ", width);
    }
    text
}

/// Written answers and what a cousin makes of base's, by task.
fn written(comparison: &Comparison, width: usize) -> String {
    struct Row<'a> {
        task: &'a str,
        model: String,
        figures: Option<&'a GenerationComparison>,
        trace: Option<&'a TokenMetrics>,
    }
    let quants = comparison.quants.iter().enumerate().map(|(i, q)| (Some(i), q));
    let all = quants.chain(comparison.noise_floor.iter().map(|q| (None, q)));
    let mut rows = Vec::new();
    for (index, quant) in all {
        let tasks = quant.generations.iter().map(|g| g.task.as_str());
        for task in questions::distinct(tasks.chain(quant.traces.iter().map(|t| t.task.as_str()))) {
            rows.push(Row {
                task,
                model: questions::name_of(&quant.model.label, index),
                figures: quant.generations.iter().find(|g| g.task == task).map(|g| &g.figures),
                trace: quant.traces.iter().find(|t| t.task == task).and_then(|t| t.metrics.as_ref()),
            });
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    // Columns of what happens to few are there only where it does.
    type Pair = fn(&GenerationComparison) -> (&Estimate, &Estimate);
    let pairs: [(&str, u8, &str, Pair); 3] = [
        ("cut %", 1, "; cut: out of tokens, base→cousin", |g| (&g.base_truncated, &g.quant_truncated)),
        ("repeat %", 1, "; repeat: four tokens in a row that came before", |g| {
            (&g.base_repetition, &g.quant_repetition)
        }),
        ("open %", 1, "; open: thinking that is never closed", |g| {
            (&g.base_unclosed_think, &g.quant_unclosed_think)
        }),
    ];
    let happens = |pair: Pair| {
        rows.iter()
            .filter_map(|row| row.figures)
            .map(pair)
            .any(|(base, quant)| base.value != 0.0 || quant.value != 0.0)
    };
    let pairs: Vec<_> = pairs.into_iter().filter(|(.., pair)| happens(*pair)).collect();
    let mut columns =
        vec![("written", 0), ("model", 0), ("same %", 0), ("differs", 2), ("KL", 4), ("forks %", 3)];
    columns.extend(pairs.iter().map(|(name, least, ..)| (*name, *least)));
    let percent = |estimate: &Estimate| number(estimate.value * 100.0, 2);
    let cells = rows.iter().map(|row| {
        let figures = row.figures;
        let mut cells = vec![
            columns::label(row.task),
            shortened(&columns::label(&row.model), NARROW_NAME),
            figures.map_or_else(dash, |g| percent(&g.identical)),
            figures.map_or_else(dash, |g| number(g.first_divergence_median, 3)),
            row.trace.map_or_else(dash, |t| number(t.kl_divergence.mean.value, 3)),
            row.trace.map_or_else(dash, |t| number((1.0 - t.top1_agreement.value) * 100.0, 3)),
        ];
        let pair = |get: Pair| {
            figures.map_or_else(dash, |g| {
                let (base, quant) = get(g);
                format!("{}→{}", percent(base), percent(quant))
            })
        };
        cells.extend(pairs.iter().map(|(.., get)| pair(*get)));
        cells
    });
    let mut text = table_of(&columns, cells.collect(), width);
    text += &wrapped(
        &format!(
            "same: answers equal to base's to the last token; differs: median token of the first difference; KL, \
             forks: the cousin reads base's answers, mean nats and tokens where it would write another one{}.",
            pairs.iter().map(|(.., what, _)| *what).collect::<String>()
        ),
        "  ",
        width,
    );
    text
}

/// Whole texts per byte: rolling tasks, and cousins of another vocabulary.
fn per_byte(comparison: &Comparison, width: usize) -> String {
    let quants = comparison.quants.iter().map(|q| (q.model.label.as_str(), &q.rolling));
    let foreign = comparison.foreign.iter().map(|f| (f.model.label.as_str(), &f.bytes));
    let row = |label: &str, task: &TaskBytes| {
        let figures = &task.figures;
        let figure = |estimate: &Estimate| Figure::from(estimate).alone();
        vec![
            columns::label(&task.task),
            shortened(&columns::label(label), NAME),
            count(figures.documents as u64),
            figure(&figures.base_bits_per_byte),
            figure(&figures.quant_bits_per_byte),
            Figure::from(&figures.delta_bits_per_byte).plus_minus(true),
        ]
    };
    let rows: Vec<Vec<String>> = quants
        .chain(foreign)
        .flat_map(|(label, tasks)| tasks.iter().map(move |task| row(label, task)))
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let columns =
        [("bits per byte", 0), ("model", 0), ("texts", 3), ("base", 1), ("model's", 2), ("change", 0)];
    table_of(&columns, rows, width)
}
