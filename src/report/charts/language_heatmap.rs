//! Languages by cousins: the change of accuracy, and where text of several languages was scored, the mean KL
//! divergence. English comes first, which most quantizers are calibrated on, then the largest loss. Colour is never
//! alone: every cell holds its number where it fits, and a loss that is shown has a frame.

use super::heat::{self, STEPS};
use super::picture::{self, Align, Ink, LABEL, LINE, Picture, Rect, Shape, TICK, end_of, fitted};
use super::render::text_width;
use super::{Series, Title, all_series, note_at_bottom};
use crate::comparison::tasks::PairedScores;
use crate::comparison::{Comparison, QuantComparison};
use crate::report::format::{Figure, count, number, plain, visible};
use crate::report::questions::{self, Asked};

/// Most rows of a panel; with more languages, those that lost most are drawn.
const MOST_ROWS: usize = 64;
/// Smallest size of a number in a cell.
const SMALL: f64 = 12.0;

/// A cell: its number in ever shorter forms, and how it is marked.
struct Cell {
    forms: [String; 3],
    ink: Option<Ink>,
    framed: bool,
}

/// A language: its name, whether base only guesses, how much was measured, and a cell per cousin.
struct Row {
    name: String,
    guesses: bool,
    measured: usize,
    cells: Vec<Option<Cell>>,
}

/// A map with its heading and what stands for a cousin above each column.
struct Panel {
    heading: &'static str,
    unit: &'static str,
    columns: Vec<(String, (Ink, Shape))>,
    rows: Vec<Row>,
    scale: Scale,
}

/// What the colours mean.
enum Scale {
    /// From a loss to a gain of that many percentage points.
    Points(f64),
    /// From the first to the second, nats, logarithmic.
    Nats(f64, f64),
}

/// Whether there are two languages to compare.
pub(super) fn is_drawn(comparison: &Comparison) -> bool {
    !panels(comparison).is_empty()
}

pub(super) fn caption(comparison: &Comparison) -> String {
    let accuracy = "Change of accuracy against base in percentage points: orange is a loss, blue a gain. A frame marks \
                    a loss that is shown (5 %, Holm over the languages). Where base is not shown to know more than \
                    guessing gives, there is nothing to lose and no colour.";
    let text = "Mean KL divergence from base on the text of each language, nats; the stronger the colour, the \
                further from base.";
    let order = "English first, then the language that any cousin lost most on. ± is the larger half of the 95 % \
                 interval, where there is room for it; all intervals are in the tables.";
    let parts: Vec<&str> = panels(comparison)
        .iter()
        .map(|panel| match panel.scale {
            Scale::Points(_) => accuracy,
            Scale::Nats(..) => text,
        })
        .collect();
    format!("{} {order}", parts.join(" "))
}

pub(super) fn draw(comparison: &Comparison, width: f64, title: Title) -> Picture {
    let mut picture = Picture::new(width, 0.0);
    let mut top = title.map_or(4.0, |(title, subtitle)| picture.title(title, &subtitle));
    let panels = panels(comparison);
    if panels.is_empty() {
        picture.height = top + 120.0;
        picture.instead("no two languages were measured");
        return picture;
    }
    top += picture.legend(top, &legend(&panels)) + 2.0;
    let mut notes = Vec::new();
    for panel in &panels {
        top += draw_panel(&mut picture, panel, top) + 14.0;
        if panel.rows.len() > MOST_ROWS {
            notes.push(format!("{MOST_ROWS} of {} languages, those that lost most", panel.rows.len()));
        }
    }
    picture.height = top;
    for note in notes {
        note_at_bottom(&mut picture, &note);
    }
    picture
}

/// Every cousin of any panel once: the noise floor and cousins of another vocabulary may be in one only.
fn legend(panels: &[Panel]) -> Vec<(String, (Ink, Shape), bool)> {
    let mut entries: Vec<(String, (Ink, Shape), bool)> = Vec::new();
    for (name, style) in panels.iter().flat_map(|panel| &panel.columns) {
        if !entries.iter().any(|(_, known, _)| known == style) {
            entries.push((name.clone(), *style, style.0 == Ink::Noise));
        }
    }
    entries
}

fn panels(comparison: &Comparison) -> Vec<Panel> {
    [accuracy(comparison), divergence(comparison)].into_iter().flatten().collect()
}

fn accuracy(comparison: &Comparison) -> Option<Panel> {
    let asked = questions::asked(comparison);
    let lines = questions::languages(&asked);
    let figure = |scores: &PairedScores| Figure::percent(&scores.difference);
    let guesses = |line: &questions::LanguageLine<'_>| {
        line.scores.iter().flatten().any(|l| l.scores.uninformative.is_some())
    };
    let informative =
        lines.iter().filter(|line| !guesses(line)).flat_map(|line| line.scores.iter().flatten());
    let largest = informative.map(|l| figure(&l.scores).value.abs()).filter(|v| v.is_finite());
    let limit = round_up(largest.fold(1.0, f64::max));
    let cell = |scores: &PairedScores, guesses: bool| {
        let figure = Some(figure(scores)).filter(|f| f.value.is_finite())?;
        let shade = heat::step(figure.value.abs() / limit);
        let ink = if figure.value < 0.0 { Ink::Loss(shade) } else { Ink::Gain(shade) };
        Some(Cell {
            forms: [
                with_interval(figure, true, tenths(figure.value)),
                tenths(figure.value),
                whole(figure.value),
            ],
            ink: (!guesses).then_some(ink),
            framed: !guesses && questions::is_loss(scores),
        })
    };
    let row = |line: &questions::LanguageLine<'_>| {
        let guesses = guesses(line);
        let scores = || line.scores.iter().flatten().map(|l| &l.scores);
        let losses = scores().map(|s| s.difference.value).filter(|v| v.is_finite());
        let row = Row {
            name: visible(&questions::language_name(line.tag)),
            guesses,
            measured: scores().map(|s| s.samples).max().unwrap_or(0),
            cells: line.scores.iter().map(|l| cell(&l.as_ref()?.scores, guesses)).collect(),
        };
        Ranked { english: is_english(line.tag), guesses, loss: losses.fold(f64::INFINITY, f64::min), row }
    };
    let rows = ordered(lines.iter().map(row).collect());
    (rows.len() > 1).then(|| Panel {
        heading: "change of accuracy, percentage points",
        unit: "samples",
        columns: asked.iter().map(|a: &Asked<'_>| (a.name(), picture::series(a.index))).collect(),
        rows,
        scale: Scale::Points(limit),
    })
}

fn divergence(comparison: &Comparison) -> Option<Panel> {
    let texts: Vec<(&str, &str)> = comparison
        .tasks
        .iter()
        .filter(|task| task.kind == "text")
        .filter_map(|task| Some((task.language.as_deref()?, task.name.as_str())))
        .collect();
    let tags = questions::distinct(texts.iter().map(|(tag, _)| *tag));
    // The names of the other panel, and in the order of `rows`.
    let name = |s: &Series<'_>| questions::name_of(&s.quant.model.label, s.index);
    let (floors, cousins): (Vec<_>, Vec<_>) =
        all_series(comparison).into_iter().partition(|s| s.index.is_none());
    let columns = cousins.into_iter().chain(floors).map(|s| (name(&s), s.style()));
    let quants: Vec<&QuantComparison> = comparison.rows().collect();
    let of = |quant: &QuantComparison, tag: &str| mean_of(quant, &texts, tag);
    let all = tags.iter().flat_map(|tag| quants.iter().filter_map(move |q| of(q, tag)));
    let means: Vec<f64> = all.map(|(figure, _)| figure.value).filter(|v| *v > 0.0).collect();
    let low = means.iter().copied().fold(f64::INFINITY, f64::min);
    let high = means.iter().copied().fold(0.0, f64::max);
    // Figures alike are not magnified into different colours.
    let (low, high) = if high > 0.0 { (low.min(high / 3.0), high) } else { (0.1, 1.0) };
    let cell = |figure: Figure| Cell {
        forms: [
            with_interval(figure, false, number(figure.value, 2)),
            number(figure.value, 2),
            number(figure.value, 1),
        ],
        ink: (figure.value > 0.0)
            .then(|| Ink::Loss(heat::step((figure.value / low).ln() / (high / low).ln()).max(1))),
        framed: false,
    };
    let row = |tag: &&str| {
        let figures: Vec<Option<(Figure, usize)>> = quants.iter().map(|q| of(q, tag)).collect();
        let found = || figures.iter().flatten();
        let worst = found().map(|(figure, _)| figure.value).fold(f64::NEG_INFINITY, f64::max);
        let row = Row {
            name: visible(&questions::language_name(tag)),
            guesses: false,
            measured: found().map(|(_, tokens)| *tokens).max().unwrap_or(0),
            cells: figures.iter().map(|figure| figure.map(|(figure, _)| cell(figure))).collect(),
        };
        Ranked { english: is_english(tag), guesses: false, loss: -worst, row }
    };
    let rows = ordered(tags.iter().map(row).collect());
    (rows.len() > 1).then(|| Panel {
        heading: "mean KL divergence of text, nats",
        unit: "tokens",
        columns: columns.collect(),
        rows,
        scale: Scale::Nats(low, high),
    })
}

/// Mean KL divergence over all text of a language and the tokens in it; its interval where it is one task's.
fn mean_of(quant: &QuantComparison, texts: &[(&str, &str)], tag: &str) -> Option<(Figure, usize)> {
    let of_language = |task: &str| texts.iter().any(|(of, name)| *of == tag && *name == task);
    let tasks: Vec<_> = quant
        .tasks
        .iter()
        .filter(|task| of_language(&task.task))
        .filter_map(|task| task.metrics.as_ref())
        .collect();
    let tokens: usize = tasks.iter().map(|m| m.scored_tokens).sum();
    let figure = match tasks.as_slice() {
        [only] => Figure::from(&only.kl_divergence.mean),
        several => {
            let sum: f64 = several.iter().map(|m| m.kl_divergence.mean.value * m.scored_tokens as f64).sum();
            Figure { value: sum / tokens as f64, lower: None, upper: None }
        }
    };
    figure.value.is_finite().then_some((figure, tokens))
}

/// What rows are ordered by.
struct Ranked {
    english: bool,
    guesses: bool,
    loss: f64,
    row: Row,
}

/// English, then the largest loss; where base only guesses last.
fn ordered(mut rows: Vec<Ranked>) -> Vec<Row> {
    rows.retain(|ranked| ranked.row.cells.iter().any(Option::is_some));
    rows.sort_by(|a, b| {
        a.guesses.cmp(&b.guesses).then(b.english.cmp(&a.english)).then(a.loss.total_cmp(&b.loss))
    });
    rows.into_iter().map(|ranked| ranked.row).collect()
}

fn is_english(tag: &str) -> bool {
    tag == "en" || tag.starts_with("en-")
}

/// The next of 1, 2, 5 times a power of ten.
fn round_up(x: f64) -> f64 {
    let power = 10f64.powf(x.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|f| f * power).find(|v| *v >= x * 0.9999).unwrap_or(x)
}

/// With its ±, or where there is no interval, `short`: digits that nothing supports would only take room.
fn with_interval(figure: Figure, signed: bool, short: String) -> String {
    if figure.has_interval() { figure.plus_minus(signed) } else { short }
}

/// "−12.3", "+4".
fn tenths(points: f64) -> String {
    signed((points * 10.0).round() / 10.0)
}

/// "−12", for the narrowest cells.
fn whole(points: f64) -> String {
    signed(points.round())
}

fn signed(points: f64) -> String {
    format!("{}{}", if points > 0.0 { "+" } else { "" }, plain(points))
}

/// Where the cells of a picture lie.
struct Columns {
    left: f64,
    each: f64,
    row: f64,
    /// Whether there is room for the number of samples or tokens.
    counted: bool,
}

impl Columns {
    fn of(picture: &Picture, panel: &Panel) -> Self {
        let counted = picture.width > 600.0;
        let (left, right, row) = match counted {
            true => (206.0, picture.width - 92.0, 24.0),
            false => (128.0, picture.width - 10.0, 21.0),
        };
        Columns { left, each: (right - left) / panel.columns.len().max(1) as f64, row, counted }
    }

    fn left_of(&self, i: usize) -> f64 {
        self.left + i as f64 * self.each
    }
}

/// Draws a panel from `top` on; returns its height.
fn draw_panel(picture: &mut Picture, panel: &Panel, top: f64) -> f64 {
    let columns = Columns::of(picture, panel);
    let mut y = top + LINE / 2.0;
    picture.text((16.0, y), panel.heading, LABEL, Ink::Foreground, Align::Start);
    y += LINE / 2.0 + 6.0;
    for (i, (name, style)) in panel.columns.iter().enumerate() {
        let (left, right) = (columns.left_of(i), columns.left_of(i + 1));
        draw_column_head(picture, name, *style, Rect { left, top: y, right, bottom: y + LINE });
    }
    if columns.counted {
        let at = (picture.width - 16.0, y + LINE / 2.0);
        picture.text(at, panel.unit, TICK, Ink::Muted, Align::End);
    }
    y += LINE + 4.0;
    let form = form_that_fits(&panel.rows, columns.each - 4.0);
    let drawn: Vec<&Row> = panel.rows.iter().take(MOST_ROWS).collect();
    for (i, line) in drawn.iter().enumerate() {
        // Those where base only guesses come last, below a line of their own.
        if line.guesses && !drawn.get(i.wrapping_sub(1)).is_some_and(|before| before.guesses) {
            let at = (columns.left, y + columns.row / 2.0 + 2.0);
            picture.text(at, "base is not shown to beat guessing:", TICK, Ink::Muted, Align::Start);
            y += columns.row;
        }
        draw_row(picture, line, &columns, y, form);
        y += columns.row;
    }
    y += 10.0;
    y += draw_scale(
        picture,
        &panel.scale,
        (columns.left, y),
        (columns.left_of(panel.columns.len()) - columns.left).min(320.0),
    );
    y - top
}

fn draw_row(picture: &mut Picture, line: &Row, columns: &Columns, top: f64, form: (usize, f64)) {
    let middle = top + columns.row / 2.0;
    let name = fitted(&line.name, TICK, columns.left - 24.0);
    let ink = if line.guesses { Ink::Muted } else { Ink::Foreground };
    picture.text((columns.left - 8.0, middle), name, TICK, ink, Align::End);
    for (i, cell) in line.cells.iter().enumerate() {
        let rect = Rect {
            left: columns.left_of(i) + 1.0,
            top: top + 1.0,
            right: columns.left_of(i + 1) - 1.0,
            bottom: top + columns.row - 1.0,
        };
        draw_cell(picture, cell.as_ref(), rect, form, ink);
    }
    if columns.counted {
        let at = (picture.width - 16.0, middle);
        picture.text(at, count(line.measured as u64), TICK, Ink::Muted, Align::End);
    }
}

/// A cousin's sign, and its name where there is room for enough of it.
fn draw_column_head(picture: &mut Picture, name: &str, style: (Ink, Shape), head: Rect) {
    let (room, y) = (head.right - head.left - 22.0, (head.top + head.bottom) / 2.0);
    if room < 40.0 {
        return picture.dot(((head.left + head.right) / 2.0, y), 5.0, style, false);
    }
    let name = end_of(name, TICK, room);
    let start = (head.left + head.right - text_width(&name, TICK) - 14.0) / 2.0;
    picture.dot((start + 3.0, y), 5.0, style, false);
    picture.text((start + 14.0, y), name, TICK, Ink::Foreground, Align::Start);
}

/// The longest form of all numbers, and its size, that fits into cells `room` wide; a form of 3 is none.
fn form_that_fits(rows: &[Row], room: f64) -> (usize, f64) {
    let drawn = || rows.iter().take(MOST_ROWS).flat_map(|row| row.cells.iter().flatten());
    let widest = |form: usize, size: f64| {
        let texts = drawn().filter_map(|cell| cell.forms.get(form));
        texts.map(|text| text_width(text, size)).fold(0.0, f64::max)
    };
    let candidates = [(0, TICK), (0, SMALL), (1, TICK), (1, SMALL), (2, TICK), (2, SMALL)];
    candidates.into_iter().find(|(form, size)| widest(*form, *size) <= room).unwrap_or((3, SMALL))
}

fn draw_cell(picture: &mut Picture, cell: Option<&Cell>, rect: Rect, (form, size): (usize, f64), ink: Ink) {
    let middle = ((rect.left + rect.right) / 2.0, (rect.top + rect.bottom) / 2.0);
    let Some(cell) = cell else {
        return picture.text(middle, "–", size, Ink::Muted, Align::Middle);
    };
    if let Some(ink) = cell.ink {
        picture.cell(rect, ink);
    }
    if let Some(text) = cell.forms.get(form) {
        picture.text(middle, text, size, ink, Align::Middle);
    }
    if cell.framed {
        picture.frame(rect, Ink::Foreground, 2.0);
    }
}

fn draw_scale(picture: &mut Picture, scale: &Scale, at: (f64, f64), width: f64) -> f64 {
    match *scale {
        Scale::Points(limit) => {
            let shades = (0..STEPS).rev().map(Ink::Loss).chain((0..STEPS).map(Ink::Gain));
            let end = plain(limit);
            let names =
                [(0.0, format!("−{end} (loss)")), (0.5, "0".to_owned()), (1.0, format!("+{end} (gain)"))];
            heat::strip(picture, at, width, &shades.collect::<Vec<_>>(), &names)
        }
        Scale::Nats(low, high) => {
            let shades: Vec<Ink> = (1..STEPS).map(Ink::Loss).collect();
            let middle = (low * high).sqrt();
            let name = |share: f64, value: f64| (share, number(value, 2));
            let mut names = vec![name(0.0, low), name(0.5, middle), name(1.0, high)];
            names[2].1 += " nats";
            heat::strip(picture, at, width, &shades, &names)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::picture::Mark;
    use super::*;
    use crate::comparison::tasks::LanguageScores;
    use crate::report::fixture;

    fn texts(picture: &Picture) -> Vec<(&str, (f64, f64))> {
        let texts = picture.marks.iter().filter_map(|mark| match mark {
            Mark::Text { text, at, .. } => Some((text.as_str(), *at)),
            _ => None,
        });
        texts.collect()
    }

    fn height_of(picture: &Picture, wanted: &str) -> f64 {
        texts(picture).iter().find(|(text, _)| *text == wanted).unwrap_or_else(|| panic!("{wanted}")).1.1
    }

    /// Texts at the height of a row, from left to right.
    fn row(picture: &Picture, name: &str) -> Vec<String> {
        let y = height_of(picture, name);
        let mut row: Vec<_> = texts(picture).into_iter().filter(|(_, at)| at.1 == y).collect();
        row.sort_by(|a, b| a.1.0.total_cmp(&b.1.0));
        row.into_iter().map(|(text, _)| text.to_owned()).collect()
    }

    fn language<'a>(comparison: &'a mut Comparison, cousin: usize, tag: &str) -> &'a mut LanguageScores {
        let questions = comparison.quants[cousin].questions.as_mut().unwrap();
        questions.languages.iter_mut().find(|l| l.language == tag).unwrap()
    }

    fn frames(picture: &Picture) -> usize {
        let is_frame = |mark: &&Mark| matches!(mark, Mark::Line { points, ink: Ink::Foreground, .. } if points.len() == 5);
        picture.marks.iter().filter(is_frame).count()
    }

    #[test]
    fn a_cell_holds_the_figure_of_its_language_and_cousin() {
        let mut comparison = fixture::with_questions();
        let expected: Vec<String> = (0..2)
            .map(|i| language(&mut comparison, i, "th").scores.difference)
            .map(|difference| Figure::percent(&difference).plus_minus(true))
            .collect();
        assert!(expected[1].starts_with('−') && expected[1].contains('±'), "{expected:?}");
        let picture = draw(&comparison, 920.0, None);
        let row = row(&picture, "Thai (th)");
        assert_eq!(row[1..3], expected, "{row:?}");
        assert_eq!(row.last().unwrap(), "160", "samples");
    }

    #[test]
    fn english_is_first_then_the_largest_loss_and_guessing_last() {
        let mut comparison = fixture::with_questions();
        let picture = draw(&comparison, 360.0, None);
        let place = |name: &str| height_of(&picture, name);
        assert!(place("English (en)") < place("Thai (th)") && place("Thai (th)") < place("Russian (ru)"));
        for i in 0..2 {
            language(&mut comparison, i, "th").scores.uninformative = Some("as good as guessing".to_owned());
        }
        let picture = draw(&comparison, 360.0, None);
        let place = |name: &str| height_of(&picture, name);
        let line = place("base is not shown to beat guessing:");
        assert!(place("Russian (ru)") < line && line < place("Thai (th)"));
        let inked = |picture: &Picture| -> usize {
            let cells = picture.marks.iter().filter_map(|mark| match mark {
                Mark::Cells { rects, .. } => Some(rects),
                _ => None,
            });
            cells.flatten().filter(|r| r.top < place("Thai (th)") && r.bottom > place("Thai (th)")).count()
        };
        assert_eq!(inked(&picture), 0, "what is guessed has no colour");
    }

    #[test]
    fn only_a_loss_that_is_shown_has_a_frame() {
        let mut comparison = fixture::with_questions();
        comparison.foreign.clear();
        let questions = |c: &Comparison| -> Vec<PairedScores> {
            let all = c.quants.iter().flat_map(|q| &q.questions.as_ref().unwrap().languages);
            all.map(|l| l.scores.clone()).collect()
        };
        let shown = questions(&comparison).iter().filter(|s| questions::is_loss(s)).count();
        assert!((1..6).contains(&shown), "{shown}");
        assert_eq!(frames(&draw(&comparison, 920.0, None)), shown);
        language(&mut comparison, 1, "th").scores.p_holm = Some(0.5);
        assert_eq!(frames(&draw(&comparison, 920.0, None)), shown - 1);
    }

    #[test]
    fn what_is_missing_is_seen_to_be_missing() {
        let mut comparison = fixture::with_questions();
        language(&mut comparison, 0, "ru").scores.difference.value = f64::NAN;
        comparison.quants[1].questions.as_mut().unwrap().languages.retain(|l| l.language != "ru");
        let picture = draw(&comparison, 920.0, None);
        assert_eq!(row(&picture, "Russian (ru)")[1..3], ["–", "–"]);
    }

    #[test]
    fn text_of_several_languages_is_a_panel_of_its_own() {
        let mut comparison = fixture::comparison();
        assert!(!is_drawn(&comparison), "one language");
        comparison.tasks[1].language = Some("ru".to_owned());
        assert!(is_drawn(&comparison));
        // English: two tasks, weighted by their tokens.
        let metrics = |c: &mut Comparison, task: usize, tokens: usize, kl: f64| {
            let metrics = c.quants[0].tasks[task].metrics.as_mut().unwrap();
            metrics.scored_tokens = tokens;
            metrics.kl_divergence.mean = fixture::estimate(kl, kl / 10.0);
        };
        metrics(&mut comparison, 0, 300, 0.01);
        metrics(&mut comparison, 2, 100, 0.05);
        let texts: Vec<(&str, &str)> =
            vec![("en", &comparison.tasks[0].name), ("en", &comparison.tasks[2].name)];
        let (figure, tokens) = mean_of(&comparison.quants[0], &texts, "en").unwrap();
        assert!((figure.value - 0.02).abs() < 1e-12 && tokens == 400 && figure.lower.is_none());
        let picture = draw(&comparison, 920.0, None);
        assert_eq!(row(&picture, "English (en)")[1], "0.020");
        assert!(texts_contain(&picture, "mean KL divergence of text, nats"));
    }

    fn texts_contain(picture: &Picture, wanted: &str) -> bool {
        texts(picture).iter().any(|(text, _)| *text == wanted)
    }

    #[test]
    fn no_number_stands_out_of_its_cell() {
        let mut comparison = fixture::with_questions();
        let cousin = comparison.quants[1].clone();
        comparison.quants.extend(std::iter::repeat_n(cousin, 12));
        let panel = accuracy(&comparison).unwrap();
        let (form, _) = form_that_fits(&panel.rows, Columns::of(&Picture::new(360.0, 0.0), &panel).each);
        assert_eq!(form, 3, "columns of 15 pixels hold no number");
        assert!(form_that_fits(&panel.rows, 200.0).0 == 0);
        assert_eq!([tenths(-12.34), tenths(0.04), whole(-0.4), whole(3.6)], ["−12.3", "0", "0", "+4"]);
    }
}
