//! Sections about answered questions: accuracy by task, by language and by difficulty, for cousins and for base alone.
//! Every function takes the comparison and returns a section, empty where nothing was asked.

use super::alternatives::drawn;
use super::table::{Cell, Table, details};
use super::{Section, escaped};
use crate::comparison::Comparison;
use crate::comparison::tasks::{LanguageScores, PairedScores, QuestionComparison, TaskKey};
use crate::error::Result;
use crate::report::charts::Chart;
use crate::report::format::{Figure, count, counted};
use crate::report::questions::{self, Asked, Family, Scope};

/// A loss of this many points has the darkest shade.
const DARKEST: f64 = 0.2;

/// More tasks than that are a long chart, which waits behind a line.
const MOST_DRAWN: usize = 9;

/// Languages, difficulty, questions.
pub(super) fn all(comparison: &Comparison) -> Result<Vec<Section>> {
    let asked = questions::asked(comparison);
    Ok(vec![
        Section {
            id: "languages",
            title: "Languages",
            nav: "Languages",
            html: languages(comparison, &asked)?,
        },
        Section {
            id: "difficulty",
            title: "Reasoning against difficulty",
            nav: "Difficulty",
            html: difficulty(comparison, &asked)?,
        },
        Section {
            id: "questions",
            title: "Questions by task",
            nav: "Questions",
            html: questions_html(comparison, &asked)?,
        },
    ])
}

fn questions_html(comparison: &Comparison, asked: &[Asked<'_>]) -> Result<String> {
    if asked.is_empty() {
        return Ok(base_alone(comparison));
    }
    let lines = questions::lines(asked);
    let (tasks, sums): (Vec<&questions::Line<'_>>, Vec<_>) =
        lines.iter().partition(|line| line.scope == Scope::Task);
    let chart = drawn(Chart::Questions, comparison)?;
    let mut html = String::new();
    let (all, groups): (Vec<_>, Vec<_>) = sums.iter().copied().partition(|line| line.scope == Scope::All);
    if !all.is_empty() {
        html += &scores_table("Accuracy over all questions", asked, &all);
    }
    if !groups.is_empty() {
        let table = scores_table("Accuracy by group of tasks", asked, &groups);
        let summary = format!("By group: {}", counted(groups.len() as u64, "group"));
        html += &details(&summary, &table, groups.len() * asked.len() <= MOST_DRAWN);
    }
    html += &match chart.is_empty() || tasks.len() <= MOST_DRAWN {
        true => chart,
        false => details("Change of accuracy by task, drawn", &chart, false),
    };
    if !tasks.is_empty() {
        let table = scores_table("Accuracy by task, by its headline metric", asked, &tasks);
        let summary = format!("Every task: {}", counted(tasks.len() as u64, "task"));
        html += &details(&summary, &table, sums.is_empty() && tasks.len() <= MOST_DRAWN);
    }
    if !lines.is_empty() {
        html += "<p class=\"note\">Differences are cousin − base over the same samples, in percentage points. Flips: \
            right under one side and wrong under the other; answer changes count another wrong answer too. Recovery: \
            cousin / base; above guessing: the same of what lies above the share that guessing gets right. p: two-sided \
            test of no difference, adjusted for all tests of its kind (Holm). Visible: the loss that these questions \
            would have shown (one-sided 5 %, power 80 %); that none is shown is no proof that there is none.</p>";
    }
    let reasons: Vec<String> = lines
        .iter()
        .filter_map(|line| {
            Some(format!("<li>{}: {}</li>", escaped(&line.name), escaped(line.uninformative()?)))
        })
        .collect();
    if !reasons.is_empty() {
        let summary =
            format!("Where nothing can be learnt about a loss: {}", counted(reasons.len() as u64, "row"));
        html += &details(&summary, &format!("<ul class=\"soft\">{}</ul>", reasons.concat()), false);
    }
    Ok(html + &details("Every metric and filter", &every_metric(asked), false))
}

fn p_cell(scores: &PairedScores) -> Cell {
    match questions::p_value(scores) {
        None => Cell::missing(),
        Some(p) => {
            let cell = Cell::number(p, 2);
            if questions::is_shown(scores) { cell.noted("shown") } else { cell }
        }
    }
}

fn samples_cell(scores: &PairedScores) -> Cell {
    let cell = Cell::labelled(scores.samples as f64, count(scores.samples as u64));
    match scores.not_judged {
        0 => cell,
        n => cell.noted(format!("{} not judged", count(n as u64))),
    }
}

/// A difference, shaded where it is a loss.
fn difference_cell(scores: &PairedScores) -> Cell {
    let value = scores.difference.value;
    let cell = Cell::change(Figure::percent(&scores.difference));
    if value < 0.0 { cell.heated(-value / DARKEST) } else { cell }
}

fn share_cell(share: Option<f64>) -> Cell {
    share.map_or_else(Cell::missing, |share| Cell::number(share * 100.0, 3))
}

fn scores_table(caption: &str, asked: &[Asked<'_>], lines: &[&questions::Line<'_>]) -> String {
    let mut table = Table::new(
        caption,
        &[
            ("questions", ""),
            ("model", ""),
            ("samples", ""),
            ("guessing", "%"),
            ("base", "%"),
            ("model", "%"),
            ("difference", "points"),
            ("flips", "%"),
            ("answer changes", "%"),
            ("recovery", "%"),
            ("above guessing", "%"),
            ("p", "Holm"),
            ("visible", "points"),
        ],
    );
    for line in lines {
        let mark =
            if line.uninformative().is_some() { " <span class=\"soft\">(guessing)</span>" } else { "" };
        let heading = match line.scope {
            Scope::Group => format!("all of {}{mark}", escaped(&line.name)),
            _ => format!("{}{mark}", escaped(&line.name)),
        };
        for (cousin, scores) in asked.iter().zip(&line.scores) {
            let Some(scores) = scores else { continue };
            let percent = |estimate: &Option<_>| Cell::optional(estimate.as_ref().map(Figure::percent));
            let flips = scores.flips.as_ref();
            let cells = vec![
                Cell::text(cousin.name()),
                samples_cell(scores),
                share_cell(scores.chance),
                Cell::figure(Figure::percent(&scores.base)),
                Cell::figure(Figure::percent(&scores.quant)),
                difference_cell(scores),
                flips.map_or_else(Cell::missing, |f| {
                    Cell::number(f.flips * 100.0, 3).noted(format!(
                        "{} lost, {} gained",
                        count(f.right_to_wrong),
                        count(f.wrong_to_right)
                    ))
                }),
                flips.map_or_else(Cell::missing, |f| Cell::number(f.answer_changes * 100.0, 3)),
                percent(&scores.recovery),
                percent(&scores.chance_corrected_recovery),
                p_cell(scores),
                share_cell(scores.minimum_detectable_effect),
            ];
            table.row(heading.clone(), cells);
        }
    }
    table.html()
}

fn metric_name(key: &TaskKey) -> String {
    match &key.filter {
        Some(filter) => format!("{} ({filter})", key.metric),
        None => key.metric.clone(),
    }
}

fn every_metric(asked: &[Asked<'_>]) -> String {
    let mut table = Table::new(
        "Every task by every metric and filter, scores as they are (a share is between 0 and 1)",
        &[
            ("task", ""),
            ("model", ""),
            ("metric", ""),
            ("language", ""),
            ("samples", ""),
            ("base", ""),
            ("model", ""),
            ("difference", ""),
            ("p", "adjusted for headlines only"),
        ],
    );
    for cousin in asked {
        for row in &cousin.questions.tasks {
            let scores = &row.scores;
            let cells = vec![
                Cell::text(cousin.name()),
                Cell::text(metric_name(&row.key)),
                row.key.language.as_deref().map_or_else(Cell::missing, Cell::text),
                samples_cell(scores),
                Cell::figure(Figure::from(&scores.base)),
                Cell::figure(Figure::from(&scores.quant)),
                Cell::change(Figure::from(&scores.difference)),
                p_cell(scores),
            ];
            table.row(escaped(&row.key.task), cells);
        }
    }
    table.html()
}

/// What base alone answered.
fn base_alone(comparison: &Comparison) -> String {
    let Some(side) = &comparison.base_questions else { return String::new() };
    let mut table = Table::new(
        "Scores of this model alone, as they are (a share is between 0 and 1)",
        &[
            ("task", ""),
            ("metric", ""),
            ("language", ""),
            ("samples", ""),
            ("not judged", ""),
            ("guessing", ""),
            ("score", ""),
        ],
    );
    for row in &side.tasks {
        let cells = vec![
            Cell::text(metric_name(&row.key)),
            row.key.language.as_deref().map_or_else(Cell::missing, Cell::text),
            Cell::labelled(row.samples as f64, count(row.samples as u64)),
            Cell::labelled(row.not_judged as f64, count(row.not_judged as u64)),
            row.chance.map_or_else(Cell::missing, |chance| Cell::number(chance, 3)),
            Cell::figure(Figure::from(&row.score)),
        ];
        table.row(escaped(&row.key.task), cells);
    }
    if table.is_empty() { String::new() } else { table.html() }
}

fn languages(comparison: &Comparison, asked: &[Asked<'_>]) -> Result<String> {
    let lines = questions::languages(asked);
    let map = drawn(Chart::LanguageHeatmap, comparison)?;
    if lines.is_empty() {
        return Ok(map);
    }
    let mut matrix = Table::new(
        "Difference of accuracy by language, percentage points; the darker, the larger the loss",
        &[("language", ""), ("samples", ""), ("base", "%")],
    );
    let mut english = Table::new(
        "The same less the difference in English, over the items that both languages have, percentage points",
        &[("language", "")],
    );
    for cousin in asked {
        matrix.column(cousin.name());
        english.column(cousin.name());
    }
    for line in &lines {
        let name = escaped(&questions::language_name(line.tag));
        let first = line.scores.iter().flatten().next().map(|l| &l.scores);
        let mut cells = vec![
            first.map_or_else(Cell::missing, samples_cell),
            Cell::optional(first.map(|scores| Figure::percent(&scores.base))),
        ];
        cells
            .extend(line.scores.iter().map(|l| l.map_or_else(Cell::missing, |l| difference_cell(&l.scores))));
        matrix.row(name.clone(), cells);
        let to_english = |l: &Option<&LanguageScores>| {
            let difference = l.as_ref().and_then(|l| l.difference_to_english.as_ref());
            difference.map_or_else(Cell::missing, |d| Cell::change(Figure::percent(d)))
        };
        if line.scores.iter().flatten().any(|l| l.difference_to_english.is_some()) {
            english.row(name, line.scores.iter().map(to_english).collect());
        }
    }
    let english =
        if english.is_empty() { String::new() } else { details("Against English", &english.html(), false) };
    let intervals = drawn(Chart::Languages, comparison)?;
    let intervals = match intervals.is_empty() || map.is_empty() {
        true => intervals,
        false => details("With intervals, drawn", &intervals, false),
    };
    let summary = format!("Every language: {}", counted(lines.len() as u64, "language"));
    Ok(map + &intervals + &details(&summary, &matrix.html(), lines.len() <= MOST_DRAWN) + &english)
}

fn difficulty(comparison: &Comparison, asked: &[Asked<'_>]) -> Result<String> {
    let families = questions::families(comparison, asked);
    if families.is_empty() {
        return Ok(String::new());
    }
    let falls = if asked.is_empty() { String::new() } else { falls(&families, asked) };
    let chart = drawn(Chart::Difficulty, comparison)?;
    Ok(falls + &chart + &details("Every level", &levels(&families, asked), false))
}

/// The first level at which each cousin is worse; tasks without any behind a line.
fn falls(families: &[Family<'_>], asked: &[Asked<'_>]) -> String {
    let table = |caption: &str, families: &[&Family<'_>]| {
        let mut table = Table::new(caption, &[("task", "")]);
        for cousin in asked {
            table.column(cousin.name());
        }
        for family in families {
            let guessed = family.rows.iter().flatten().any(|row| row.scores.uninformative.is_some());
            let mark = if guessed { " <span class=\"soft\">(guessing)</span>" } else { "" };
            let at = |row: &Option<&QuestionComparison>| match row {
                None => Cell::missing(),
                Some(row) => row.falls_off_at.map_or_else(
                    || Cell::text("not shown"),
                    |level| Cell::text(questions::level_name(level, family.unit)),
                ),
            };
            table.row(format!("{}{mark}", escaped(family.name)), family.rows.iter().map(at).collect());
        }
        table.html()
    };
    let (some, none): (Vec<&Family<'_>>, Vec<_>) = families
        .iter()
        .partition(|family| family.rows.iter().flatten().any(|row| row.falls_off_at.is_some()));
    let caption =
        "The first level at which a cousin is shown to be worse than base (5 %, Holm over the levels)";
    let shown = match some.as_slice() {
        [] => String::new(),
        some => table(caption, some),
    };
    let samples = families.iter().flat_map(|f| f.levels.iter().filter_map(|level| f.first_at(*level)));
    let (least, most) = samples
        .fold((usize::MAX, 0), |(least, most), scores| (least.min(scores.samples), most.max(scores.samples)));
    let size = match (least, most) {
        (usize::MAX, _) => String::new(),
        (least, most) if least == most => format!(" Every level has {}.", counted(least as u64, "sample")),
        (least, most) => {
            format!(" A level has {} to {}.", count(least as u64), counted(most as u64, "sample"))
        }
    };
    let quiet = match none.as_slice() {
        [] => String::new(),
        none => {
            let tasks = counted(none.len() as u64, "task");
            let whose = if some.is_empty() { "" } else { "other " };
            let list =
                details(&format!("Tasks where no level shows a loss: {tasks}"), &table(caption, none), false);
            format!(
                "<p>In {whose}{tasks} no cousin is shown to be worse than base at any level.{size} That a loss is not \
                 shown is no proof that there is none.</p>{list}"
            )
        }
    };
    shown + &quiet
}

/// Every level of every task: base, and the difference of every cousin.
fn levels(families: &[Family<'_>], asked: &[Asked<'_>]) -> String {
    let mut levels = Table::new(
        "Every level: base, and the difference of every cousin in percentage points",
        &[("task", ""), ("level", ""), ("samples", ""), ("guessing", "%"), ("base", "%")],
    );
    for cousin in asked {
        levels.column(cousin.name());
    }
    for family in families {
        for (i, level) in family.levels.iter().enumerate() {
            let mut cells = vec![
                Cell::labelled(f64::from(*level), questions::level_name(*level, family.unit)),
                family.first_at(*level).map_or_else(Cell::missing, samples_cell),
                share_cell(family.chance.get(i).copied().flatten()),
                Cell::optional(family.base.get(i).copied().flatten().map(Figure::percent)),
            ];
            let of = |cousin| family.at(cousin, *level).map_or_else(Cell::missing, difference_cell);
            cells.extend((0..asked.len()).map(of));
            levels.row(escaped(family.name), cells);
        }
    }
    levels.html()
}
