//! The charts of a comparison, as SVG and PNG. With `render`, the only place that knows plotters.
//!
//! Every chart is a function from a [`Comparison`] and a width to a `Picture` (plain marks), drawn
//! wide for a screen and narrow for a phone. A figure that is missing or not a number is left out and
//! its cousin named in the chart; an error of exactly zero, which a logarithm cannot show, has a place
//! of its own. Colours: Okabe and Ito's palette for colour-blind readers (jfly.uni-koeln.de/color).

mod axis;
mod breakdown;
mod differences;
mod difficulty;
mod heat;
mod kl_distribution;
mod language_heatmap;
mod layer_heatmap;
mod layer_profile;
mod picture;
mod render;
mod size_quality;
mod task_degradation;

use std::path::Path;

use crate::comparison::{Comparison, QuantComparison};
use crate::error::Result;

use super::format::{listed, shortened, visible};
use differences::By;
use picture::{Align, Ink, Picture, Shape};

/// Colours of the series, red, green and blue; a seventh cousin starts over with another shape.
pub(super) const PALETTE: [[u8; 3]; 6] =
    [[0, 114, 178], [213, 94, 0], [0, 158, 115], [204, 121, 167], [230, 159, 0], [86, 180, 233]];

/// The same on a dark page, where the darker ones would sink.
pub(super) const PALETTE_ON_DARK: [[u8; 3]; 6] =
    [[64, 156, 226], [244, 128, 60], [32, 191, 146], [222, 146, 187], [242, 180, 41], [154, 214, 246]];

/// A chart of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chart {
    /// How per-token KL divergence is distributed.
    KlDistribution,
    /// SQNR after each layer.
    LayerProfile,
    /// Change of perplexity per task.
    TaskDegradation,
    /// Mean KL divergence against size.
    SizeQuality,
    /// Difference of accuracy per task.
    Questions,
    /// Difference of accuracy per language.
    Languages,
    /// Change of accuracy, and KL divergence, of languages by cousins.
    LanguageHeatmap,
    /// Accuracy against difficulty.
    Difficulty,
    /// SQNR of layers by projections.
    LayerHeatmap,
    /// Mean KL divergence by base's confidence.
    Confidence,
    /// Mean KL divergence by length of context.
    Context,
}

/// How much room a chart has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// A screen, a slide: 920 pixels.
    Wide,
    /// A phone: 360 pixels.
    Narrow,
}

impl Room {
    fn width(self) -> f64 {
        match self {
            Room::Wide => 920.0,
            Room::Narrow => 360.0,
        }
    }
}

impl Chart {
    /// All charts, in the order in which a report shows them.
    pub const ALL: [Chart; 11] = [
        Chart::SizeQuality,
        Chart::TaskDegradation,
        Chart::Questions,
        Chart::LanguageHeatmap,
        Chart::Languages,
        Chart::Difficulty,
        Chart::KlDistribution,
        Chart::Confidence,
        Chart::Context,
        Chart::LayerProfile,
        Chart::LayerHeatmap,
    ];

    /// Whether a report on `comparison` has this chart: nothing is drawn of what was not asked for.
    pub fn is_drawn(self, comparison: &Comparison) -> bool {
        match self {
            Chart::KlDistribution | Chart::LayerProfile | Chart::TaskDegradation | Chart::SizeQuality => {
                !comparison.quants.is_empty()
            }
            Chart::Questions => differences::has_rows(comparison, By::Task),
            Chart::Languages => differences::has_rows(comparison, By::Language),
            Chart::LanguageHeatmap => language_heatmap::is_drawn(comparison),
            Chart::Difficulty => difficulty::has_levels(comparison),
            Chart::LayerHeatmap => layer_heatmap::is_drawn(comparison),
            Chart::Confidence => breakdown::is_drawn(comparison, breakdown::By::Confidence),
            Chart::Context => breakdown::is_drawn(comparison, breakdown::By::Context),
        }
    }

    /// Name of the file without extension.
    pub fn file_stem(self) -> &'static str {
        match self {
            Chart::KlDistribution => "kl_distribution",
            Chart::LayerProfile => "layer_profile",
            Chart::TaskDegradation => "task_degradation",
            Chart::SizeQuality => "size_quality",
            Chart::Questions => "questions",
            Chart::Languages => "languages",
            Chart::LanguageHeatmap => "language_heatmap",
            Chart::Difficulty => "difficulty",
            Chart::LayerHeatmap => "layer_heatmap",
            Chart::Confidence => "by_confidence",
            Chart::Context => "by_context",
        }
    }

    /// What the chart shows, as a heading.
    pub fn title(self) -> &'static str {
        match self {
            Chart::KlDistribution => "How the divergence is distributed over tokens",
            Chart::LayerProfile => "Error layer by layer",
            Chart::TaskDegradation => "Change of perplexity by task",
            Chart::SizeQuality => "Size against quality",
            Chart::Questions => "Change of accuracy by task",
            Chart::Languages => "Change of accuracy by language",
            Chart::LanguageHeatmap => "Languages by cousins",
            Chart::Difficulty => "Accuracy against difficulty",
            Chart::LayerHeatmap => "Error by layer and projection",
            Chart::Confidence => "Divergence by base's confidence",
            Chart::Context => "Divergence by length of context",
        }
    }

    /// How to read it, in a sentence or two.
    pub fn caption(self, comparison: &Comparison) -> String {
        match self {
            Chart::KlDistribution => kl_distribution::caption(comparison),
            Chart::LayerProfile => layer_profile::caption(comparison),
            Chart::TaskDegradation => task_degradation::caption(comparison),
            Chart::SizeQuality => size_quality::caption(comparison),
            Chart::Questions => differences::caption(By::Task),
            Chart::Languages => differences::caption(By::Language),
            Chart::LanguageHeatmap => language_heatmap::caption(comparison),
            Chart::Difficulty => difficulty::caption(comparison),
            Chart::LayerHeatmap => layer_heatmap::caption(comparison),
            Chart::Confidence => breakdown::caption(breakdown::By::Confidence),
            Chart::Context => breakdown::caption(breakdown::By::Context),
        }
    }

    /// The chart for a page: without title, in the page's colour and font.
    pub fn inline_svg(self, comparison: &Comparison, room: Room) -> Result<String> {
        let picture = self.picture(comparison, room, false);
        render::svg(&picture, render::Svg::Inline, self.title(), &self.caption(comparison))
    }

    /// The chart as an SVG file by itself.
    pub fn svg_file(self, comparison: &Comparison) -> Result<String> {
        let picture = self.picture(comparison, Room::Wide, true);
        render::svg(&picture, render::Svg::File, self.title(), &self.caption(comparison))
    }

    /// The chart as a PNG file; the path must end in ".png".
    pub fn write_png(self, comparison: &Comparison, path: &Path) -> Result<()> {
        render::png(&self.picture(comparison, Room::Wide, true), path)
    }

    fn picture(self, comparison: &Comparison, room: Room, titled: bool) -> Picture {
        let title = titled.then(|| (self.title(), subtitle(comparison)));
        let width = room.width();
        match self {
            Chart::KlDistribution => kl_distribution::draw(comparison, width, title),
            Chart::LayerProfile => layer_profile::draw(comparison, width, title),
            Chart::TaskDegradation => task_degradation::draw(comparison, width, title),
            Chart::SizeQuality => size_quality::draw(comparison, width, title),
            Chart::Questions => differences::draw(comparison, width, title, By::Task),
            Chart::Languages => differences::draw(comparison, width, title, By::Language),
            Chart::LanguageHeatmap => language_heatmap::draw(comparison, width, title),
            Chart::Difficulty => difficulty::draw(comparison, width, title),
            Chart::LayerHeatmap => layer_heatmap::draw(comparison, width, title),
            Chart::Confidence => breakdown::draw(comparison, width, title, breakdown::By::Confidence),
            Chart::Context => breakdown::draw(comparison, width, title, breakdown::By::Context),
        }
    }
}

/// A title and what stands below it.
type Title = Option<(&'static str, String)>;

/// One row of a comparison with its place among the series: None for the noise floor.
struct Series<'a> {
    quant: &'a QuantComparison,
    index: Option<usize>,
}

impl Series<'_> {
    fn label(&self) -> String {
        label(self.quant, self.index.is_none())
    }

    fn style(&self) -> (Ink, Shape) {
        picture::series(self.index)
    }
}

/// All rows, the noise floor first, so that the cousins are drawn over it.
fn all_series(comparison: &Comparison) -> Vec<Series<'_>> {
    let floor = comparison.noise_floor.iter().map(|quant| Series { quant, index: None });
    let quants = comparison.quants.iter().enumerate().map(|(i, quant)| Series { quant, index: Some(i) });
    floor.chain(quants).collect()
}

/// Legend entries for all rows, the noise floor last.
fn legend_of(series: &[Series<'_>]) -> Vec<(String, (Ink, Shape), bool)> {
    let entry = |s: &Series<'_>| (s.label(), s.style(), s.index.is_none());
    let (floor, quants): (Vec<_>, Vec<_>) = series.iter().partition(|s| s.index.is_none());
    quants.into_iter().chain(floor).map(entry).collect()
}

fn label(quant: &QuantComparison, is_floor: bool) -> String {
    if is_floor { "noise floor (bf16)".to_owned() } else { visible(&quant.model.label) }
}

fn subtitle(comparison: &Comparison) -> String {
    format!("base {} · {}", visible(&comparison.base.label), visible(&comparison.protocol.description))
}

/// "Not drawn: A and B (no finite figure)" at the bottom of a picture that is made taller for it.
fn note_missing(picture: &mut Picture, missing: &[String], why: &str) {
    if missing.is_empty() {
        return;
    }
    let names: Vec<String> = missing.iter().map(|name| shortened(name, 24)).collect();
    note_at_bottom(picture, &format!("not drawn: {} ({why})", listed(&names)));
}

/// One line at the bottom of a picture, which grows by it.
fn note_at_bottom(picture: &mut Picture, note: &str) {
    picture.height += picture::LINE;
    let note = picture::fitted(note, picture::TICK, picture.width - 32.0);
    picture.text((16.0, picture.height - 10.0), note, picture::TICK, Ink::Muted, Align::Start);
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{self, Damage, NONE, elements};
    use super::picture::{Mark, TICK};
    use super::*;
    use crate::comparison::TaskCard;

    const SOME: Damage =
        Damage { bits_per_weight: 4.5, kl: 0.01, ppl_ratio: 1.02, top1: 0.9, sqnr_db: Some(20.0) };
    const ROOMS: [Room; 2] = [Room::Wide, Room::Narrow];

    /// Comparisons that a chart might stumble over, with a name each.
    fn odd_comparisons() -> Vec<(&'static str, Comparison)> {
        let cousin = |label: &str, damage| fixture::quant(label, damage);
        let long = "Some-Organisation/Some-Model-Family-27B-Instruct-v1.5-Q4_K_M-imatrix-00001-of-00005";
        let many = (0..10).map(|i| {
            let damage =
                Damage { kl: 1e-4 * 2.5f64.powi(i), bits_per_weight: 10.0 - f64::from(i) * 0.7, ..SOME };
            cousin(&format!("{long}-{i}"), damage)
        });
        let nan = Damage {
            bits_per_weight: f64::NAN,
            kl: f64::NAN,
            ppl_ratio: f64::NAN,
            sqnr_db: Some(f64::NAN),
            ..SOME
        };
        let ruined = Damage { kl: 9.0, ppl_ratio: 4.0e4, top1: 0.001, sqnr_db: Some(-12.0), ..SOME };
        let mut bare = fixture::of(Vec::new());
        (bare.noise_floor, bare.tasks) = (None, Vec::new());
        let mut single = fixture::of(vec![cousin("single", SOME)]);
        single.tasks.truncate(1);
        single.noise_floor = None;
        single.quants[0].layers.truncate(1);
        single.quants[0].tasks.truncate(1);
        let mut other_depth = fixture::of(vec![cousin("distilled", SOME), cousin("same depth", SOME)]);
        other_depth.quants[0].model.parameters /= 3;
        for layer in &mut other_depth.quants[0].layers {
            (layer.cumulative, layer.injected, layer.cka) = (None, None, Some(0.93));
        }
        let mut unscored = fixture::of(vec![cousin("unscored", SOME)]);
        unscored.quants[0].kl_histogram.counts.iter_mut().for_each(|n| *n = 0);
        unscored.quants[0].tasks.iter_mut().for_each(|t| t.metrics = None);
        unscored.quants[0].layers.clear();
        let mut without_intervals = fixture::of(vec![cousin("few documents", SOME)]);
        without_intervals.quants[0].overall.kl_divergence.mean = fixture::without_interval(0.01);
        let mut below_zero = fixture::of(vec![cousin("rounding", SOME)]);
        below_zero.quants[0].overall.kl_divergence.mean = fixture::estimate(-1e-12, 1e-12);
        vec![
            ("realistic", fixture::comparison()),
            ("many cousins with long labels", fixture::of(many.collect())),
            ("identical", fixture::of(vec![cousin("same", NONE)])),
            ("identical and not", fixture::of(vec![cousin("same", NONE), cousin("other", SOME)])),
            ("not a number", fixture::of(vec![cousin("lost", nan), cousin("other", SOME)])),
            ("nothing but NaN", fixture::of(vec![cousin("lost", nan)])),
            ("ruined", fixture::of(vec![cousin("ruined", ruined), cousin("fine", SOME)])),
            ("no cousin", bare),
            ("one of everything", single),
            ("another depth", other_depth),
            ("nothing scored", unscored),
            ("no interval", without_intervals),
            ("slightly negative", below_zero),
            ("the same twice", fixture::of(vec![cousin("a", SOME), cousin("b", SOME)])),
            ("answers", fixture::with_questions()),
            ("answers of one model", fixture::alone()),
            ("many tasks and cousins", many_tasks(long)),
            ("many languages", many_languages()),
            ("deep", layer_heatmap::tests::large(10, 80, long)),
            ("tensors without sense", senseless_names()),
        ]
    }

    /// Text and answers in ninety languages under ten cousins.
    fn many_languages() -> Comparison {
        let mut comparison = fixture::with_questions();
        let (card, metrics) = (comparison.tasks[0].clone(), comparison.quants[1].tasks[0].clone());
        for i in 0..90 {
            let (name, tag) = (format!("texts/{i}"), format!("x-{i}-a-long-private-tag"));
            comparison.tasks.push(TaskCard {
                name: name.clone(),
                language: Some(tag.clone()),
                ..card.clone()
            });
            for quant in &mut comparison.quants {
                let mut task = metrics.clone();
                task.task = name.clone();
                quant.tasks.push(task);
                let languages = &mut quant.questions.as_mut().unwrap().languages;
                let mut language = languages[0].clone();
                language.language = tag.clone();
                languages.push(language);
            }
        }
        let cousin = comparison.quants[1].clone();
        comparison.quants.extend(std::iter::repeat_n(cousin, 8));
        comparison
    }

    /// Names and figures of weights that no model has.
    fn senseless_names() -> Comparison {
        let mut comparison = fixture::of(vec![fixture::quant("odd", SOME), fixture::quant("none", SOME)]);
        let names =
            ["", ".", "....", "weight", "7", "a.18446744073709551616.b", "x.511.<b>.weight", "\u{202e}.3.é"];
        for (weight, name) in comparison.quants[0].weights.iter_mut().zip(names) {
            weight.name = name.to_owned();
            weight.sqnr_db = Some(if name.is_empty() { f64::INFINITY } else { -1e300 });
        }
        comparison.quants[1].weights.iter_mut().for_each(|weight| weight.sqnr_db = Some(f64::NAN));
        comparison
    }

    /// Answers of nine cousins to forty tasks with twelve levels each.
    fn many_tasks(long: &str) -> Comparison {
        let mut comparison = fixture::with_questions();
        let questions = comparison.quants[1].questions.as_mut().unwrap();
        let graded = questions.tasks.iter().find(|task| !task.levels.is_empty()).unwrap().clone();
        for i in 0..40 {
            let mut task = graded.clone();
            task.key.task = format!("{long}/{i}");
            let first = task.levels[0].clone();
            task.levels.extend((6..14).map(|value| {
                let mut level = first.clone();
                (level.value, level.scores.quant.value) = (value * 1000, f64::NAN);
                level
            }));
            questions.tasks.push(task);
            let mut language = questions.languages[0].clone();
            language.language = format!("x-{i}");
            questions.languages.push(language);
        }
        let cousin = comparison.quants[1].clone();
        comparison.quants.extend(std::iter::repeat_n(cousin, 7));
        comparison
    }

    /// Every coordinate of a mark, texts with their estimated width.
    fn extent(mark: &Mark) -> Vec<(f64, f64)> {
        match mark {
            Mark::Line { points, .. } | Mark::Area { points, .. } => points.clone(),
            Mark::Dot { at, .. } => vec![*at],
            Mark::Cells { rects, .. } => {
                rects.iter().flat_map(|r| [(r.left, r.top), (r.right, r.bottom)]).collect()
            }
            Mark::Text { at, text, size, align, .. } => {
                let width = render::text_width(text, *size);
                let left = match align {
                    Align::Start => at.0,
                    Align::Middle => at.0 - width / 2.0,
                    Align::End => at.0 - width,
                };
                vec![(left, at.1 - TICK / 2.0), (left + width, at.1 + TICK / 2.0)]
            }
        }
    }

    #[test]
    fn every_mark_has_a_place_within_the_picture() {
        for (name, comparison) in odd_comparisons() {
            for (chart, room) in Chart::ALL.into_iter().flat_map(|chart| ROOMS.map(|room| (chart, room))) {
                let picture = chart.picture(&comparison, room, true);
                assert!(!picture.marks.is_empty() && picture.height < 4000.0, "{name}: {chart:?}");
                for mark in &picture.marks {
                    for (x, y) in extent(mark) {
                        let inside =
                            (-4.0..=picture.width + 4.0).contains(&x) && (0.0..=picture.height).contains(&y);
                        assert!(inside, "{name}: {chart:?} {room:?}: {mark:?} is at {x:.0}, {y:.0}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_chart_is_drawn_as_svg_and_png() {
        let folder = tempfile::tempdir().unwrap();
        for (name, comparison) in odd_comparisons() {
            for chart in Chart::ALL {
                for room in ROOMS {
                    let svg = chart.inline_svg(&comparison, room).unwrap();
                    assert_eq!(elements(&svg).first().map(String::as_str), Some("svg"), "{name}: {chart:?}");
                    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{name}: {chart:?}");
                }
                // Tall pictures take seconds without optimization, and are made of the same marks as others.
                let is_tall = chart.picture(&comparison, Room::Wide, true).height > 800.0;
                if is_tall && !(name == "deep" && chart == Chart::LayerHeatmap) {
                    continue;
                }
                let path = folder.path().join("chart.png");
                chart.write_png(&comparison, &path).unwrap();
                assert!(std::fs::read(&path).unwrap().starts_with(b"\x89PNG"), "{name}: {chart:?}");
            }
        }
    }

    fn texts(picture: &Picture) -> String {
        let texts = picture.marks.iter().filter_map(|mark| match mark {
            Mark::Text { text, .. } => Some(text.as_str()),
            _ => None,
        });
        texts.collect::<Vec<_>>().join("|")
    }

    /// Dots of a series, with their places.
    fn dots(picture: &Picture, wanted: Ink) -> Vec<((f64, f64), bool)> {
        let dots = picture.marks.iter().filter_map(|mark| match mark {
            Mark::Dot { at, ink, hollow, radius, .. } if *ink == wanted && *radius != 4.0 => {
                Some((*at, *hollow))
            }
            _ => None,
        });
        dots.collect()
    }

    #[test]
    fn a_better_cousin_is_drawn_lower_and_a_larger_one_further_right() {
        let picture = Chart::SizeQuality.picture(&fixture::comparison(), Room::Wide, false);
        let place = |i| dots(&picture, Ink::Series(i))[0].0;
        for i in 1..5 {
            assert!(place(i - 1).1 > place(i).1, "cousin {i} diverges more than the one before");
            assert!(place(i - 1).0 > place(i).0, "cousin {i} is smaller than the one before");
        }
    }

    #[test]
    fn an_identical_cousin_is_drawn_where_a_logarithm_has_no_place() {
        let both = fixture::of(vec![fixture::quant("same", NONE), fixture::quant("other", SOME)]);
        let picture = Chart::SizeQuality.picture(&both, Room::Wide, false);
        assert!(dots(&picture, Ink::Series(0))[0].0.1 > dots(&picture, Ink::Series(1))[0].0.1);
        assert!(texts(&picture).split('|').any(|text| text == "0"));
        let picture = Chart::LayerProfile.picture(&both, Room::Wide, false);
        assert!(texts(&picture).contains("no error at all (identical)"));
        let filled = |i| dots(&picture, Ink::Series(i)).iter().filter(|(_, hollow)| !hollow).count();
        assert_eq!((filled(0), filled(1)), (0, 14), "an identical layer has no SQNR to draw");
    }

    #[test]
    fn a_loss_lies_left_of_the_line_and_the_largest_on_top() {
        let comparison = fixture::with_questions();
        for chart in [Chart::Questions, Chart::Languages] {
            let picture = chart.picture(&comparison, Room::Wide, false);
            let texts = texts(&picture);
            let place = |name: &str| texts.find(name).unwrap_or_else(|| panic!("{chart:?}: {name}: {texts}"));
            match chart {
                Chart::Questions => {
                    assert!(place("reasoning/sums") < place("passages/en"));
                    assert!(place("passages/en") < place("reasoning/riddles (guessing)"));
                }
                _ => assert!(place("Thai (th)") < place("Russian (ru)")),
            }
            let dots = picture.marks.iter().filter_map(|mark| match mark {
                Mark::Dot { at, ink, .. } => Some((*ink, *at)),
                _ => None,
            });
            // The first dot of a series is in the legend.
            let dots: Vec<_> = dots.collect();
            let of = |i: usize| dots.iter().filter(|(ink, _)| *ink == Ink::Series(i)).nth(1).unwrap().1;
            assert!(of(1).0 < of(0).0, "{chart:?}: Q2_K loses more than Q8_0 where most is lost");
        }
    }

    #[test]
    fn accuracy_falls_with_difficulty_and_the_first_shown_loss_is_marked() {
        let comparison = fixture::with_questions();
        let picture = Chart::Difficulty.picture(&comparison, Room::Wide, false);
        let rings =
            |i: usize| dots(&picture, Ink::Series(i)).into_iter().filter(|(_, hollow)| *hollow).count();
        assert_eq!((rings(0), rings(1), rings(2)), (0, 1, 1), "Q8_0 falls off nowhere, the others once");
        let line = |i: usize| -> Vec<(f64, f64)> {
            let filled = dots(&picture, Ink::Series(i)).into_iter().filter(|(_, hollow)| !hollow);
            filled.map(|(at, _)| at).collect()
        };
        assert_eq!(line(1).len(), 5, "one per level; the legend's sign is larger");
        assert!(line(1)[4].1 > line(1)[0].1 && line(1)[4].1 > line(0)[4].1, "lower on the page is worse");
        assert!(texts(&picture).contains("digits"));
        let dashed = |p: &Picture| p.marks.iter().any(|m| matches!(m, Mark::Line { dashed: true, .. }));
        assert!(!dashed(&picture), "there is nothing to guess among sums");
        let mut guessed = comparison.clone();
        for quant in &mut guessed.quants {
            for level in quant.questions.as_mut().unwrap().tasks.iter_mut().flat_map(|t| &mut t.levels) {
                level.scores.chance = Some(0.25);
            }
        }
        assert!(dashed(&Chart::Difficulty.picture(&guessed, Room::Wide, false)));
        let alone = Chart::Difficulty.picture(&fixture::alone(), Room::Narrow, false);
        assert_eq!(dots(&alone, Ink::Foreground).len(), 5);
    }

    #[test]
    fn what_cannot_be_drawn_is_named() {
        let lost = Damage { kl: f64::NAN, ppl_ratio: f64::NAN, sqnr_db: Some(f64::NAN), ..SOME };
        let comparison = fixture::of(vec![fixture::quant("lost", lost), fixture::quant("fine", SOME)]);
        for chart in [Chart::SizeQuality, Chart::TaskDegradation, Chart::LayerProfile] {
            let texts = texts(&chart.picture(&comparison, Room::Wide, false));
            assert!(texts.contains("not drawn: lost"), "{chart:?}: {texts}");
        }
    }

    #[test]
    fn of_very_many_tasks_those_that_changed_most_are_drawn() {
        let mut comparison = fixture::comparison();
        let (card, metrics) = (comparison.tasks[0].clone(), comparison.quants[0].tasks[0].clone());
        for i in 0..300 {
            let task = format!("task-{i}");
            comparison.tasks.push(TaskCard { name: task.clone(), ..card.clone() });
            let mut quiet = metrics.clone();
            quiet.task = task;
            comparison.quants[0].tasks.push(quiet);
        }
        let picture = Chart::TaskDegradation.picture(&comparison, Room::Wide, true);
        assert!(picture.height < 4000.0, "{}", picture.height);
        let texts = texts(&picture);
        assert!(texts.contains("grade-school-maths") && texts.contains("the 16 of 303 tasks"), "{texts}");
    }

    #[test]
    fn tasks_without_perplexity_take_no_room() {
        let comparison = fixture::with_questions();
        let picture = Chart::TaskDegradation.picture(&comparison, Room::Wide, false);
        let texts = texts(&picture);
        assert!(texts.contains("russian-news") && !texts.contains("passages/"), "{texts}");
    }

    #[test]
    fn a_file_stands_by_itself_and_an_inline_chart_takes_the_colours_of_its_page() {
        let comparison = fixture::comparison();
        let file = Chart::SizeQuality.svg_file(&comparison).unwrap();
        assert!(file.contains("xmlns") && file.contains("#FFFFFF") && file.contains("#0072B2"));
        let inline = Chart::SizeQuality.inline_svg(&comparison, Room::Wide).unwrap();
        assert!(inline.contains("currentColor") && inline.contains("var(--s0)"));
        assert!(!inline.contains("#0072B2") && !inline.contains("http") && !inline.contains("#FFFFFF"));
    }

    #[test]
    fn a_hostile_label_is_text() {
        let comparison = fixture::of(vec![fixture::quant("<script>alert(1)</script>\u{1b}\"", SOME)]);
        for chart in Chart::ALL {
            let svg = chart.svg_file(&comparison).unwrap();
            assert!(!svg.contains("<script") && !svg.contains('\u{1b}'), "{chart:?}");
        }
    }
}
