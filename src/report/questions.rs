//! Who was asked, and what the rows of an answer are: the tasks' headlines, groups, languages and levels of all
//! cousins side by side, for the terminal, the page and the charts alike.
//!
//! It chooses and orders; how a figure looks is not known here, nor is any figure computed.

pub(super) use crate::comparison::tasks::headlines;
use crate::comparison::tasks::{
    LanguageScores, PairedScores, QuestionComparison, QuestionsComparison, SideLevel, TaskKey,
};
use crate::comparison::{Comparison, FlippedSample};
use crate::stats::Estimate;

use super::format::visible;

/// A difference is called shown below this p, adjusted where there are several tests.
const SHOWN: f64 = 0.05;
/// Metrics that are no share of anything: percent of them would mean nothing.
const NO_SHARES: [&str; 4] = ["perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte"];

/// A cousin that answered.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    /// As on its card; foreign text.
    pub(super) label: &'a str,
    /// Its place among all cousins, those of another vocabulary last; `None` for the noise floor.
    pub(super) index: Option<usize>,
    /// What it answered.
    pub(super) questions: &'a QuestionsComparison,
}

impl Asked<'_> {
    /// The name of a row or a series.
    pub(super) fn name(&self) -> String {
        name_of(self.label, self.index)
    }
}

/// A cousin's label, or what stands for the noise floor.
pub(super) fn name_of(label: &str, index: Option<usize>) -> String {
    if index.is_some() { visible(label) } else { "noise floor".to_owned() }
}

/// Every cousin that answered: quants, cousins of another vocabulary, the noise floor.
pub(super) fn asked(comparison: &Comparison) -> Vec<Asked<'_>> {
    let quants = comparison.quants.iter().map(|q| (q.model.label.as_str(), q.questions.as_ref()));
    let foreign = comparison.foreign.iter().map(|f| (f.model.label.as_str(), f.questions.as_ref()));
    let cousins =
        quants.chain(foreign).enumerate().map(|(i, (label, questions))| (label, Some(i), questions));
    let floor = comparison.noise_floor.iter().map(|q| (q.model.label.as_str(), None, q.questions.as_ref()));
    let row =
        |(label, index, questions): (_, _, Option<_>)| Some(Asked { label, index, questions: questions? });
    cousins.chain(floor).filter_map(row).collect()
}

/// Every cousin with flipped samples, numbered as in [`asked`].
pub(super) fn flipped(comparison: &Comparison) -> impl Iterator<Item = (&str, usize, &[FlippedSample])> {
    let quants = comparison.quants.iter().map(|q| (q.model.label.as_str(), q.flipped.as_slice()));
    let foreign = comparison.foreign.iter().map(|f| (f.model.label.as_str(), f.flipped.as_slice()));
    let all = quants.chain(foreign).enumerate().map(|(i, (label, samples))| (label, i, samples));
    all.filter(|(.., samples)| !samples.is_empty())
}

/// What a line sums up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Every headline together.
    All,
    /// The tasks of a group.
    Group,
    /// A task's headline.
    Task,
}

/// One line of figures: the same questions under every cousin that was asked, in the order of [`asked`].
pub(super) struct Line<'a> {
    /// What it sums up.
    pub(super) scope: Scope,
    /// Its name; foreign text.
    pub(super) name: String,
    /// Each cousin's figures; `None` where it has none.
    pub(super) scores: Vec<Option<&'a PairedScores>>,
}

impl<'a> Line<'a> {
    /// The figures of the first cousin that has any: for what is about base.
    pub(super) fn first(&self) -> Option<&'a PairedScores> {
        self.scores.iter().flatten().next().copied()
    }

    /// Why nothing can be learnt from it; foreign text.
    pub(super) fn uninformative(&self) -> Option<&'a str> {
        self.scores.iter().flatten().find_map(|scores| scores.uninformative.as_deref())
    }

    /// The largest loss of any cousin, as a difference; NaN and absent figures are none.
    pub(super) fn largest_loss(&self) -> f64 {
        let differences = self.scores.iter().flatten().map(|scores| scores.difference.value);
        differences.filter(|value| value.is_finite()).fold(f64::INFINITY, f64::min)
    }
}

/// All headlines that are shares: everything together, then groups, then tasks. What would only repeat another
/// line is left out: the sum over a single task, groups of one task, a group of all tasks.
pub(super) fn lines<'a>(asked: &[Asked<'a>]) -> Vec<Line<'a>> {
    let tasks = tasks(asked);
    let mut lines = Vec::new();
    if tasks.len() > 1 {
        let overall: Vec<_> = asked.iter().map(|a| a.questions.overall.as_ref()).collect();
        if overall.iter().any(Option::is_some) {
            lines.push(Line { scope: Scope::All, name: "all questions".to_owned(), scores: overall });
        }
        let groups = asked.iter().flat_map(|a| &a.questions.groups);
        let groups = groups.filter(|group| group.tasks > 1 && group.tasks < tasks.len());
        for name in distinct(groups.map(|group| group.name.as_str())) {
            let of = |a: &Asked<'a>| Some(&a.questions.groups.iter().find(|g| g.name == name)?.scores);
            lines.push(Line {
                scope: Scope::Group,
                name: name.to_owned(),
                scores: asked.iter().map(of).collect(),
            });
        }
    }
    lines.extend(tasks);
    lines
}

/// The headline of every task that is a share.
pub(super) fn tasks<'a>(asked: &[Asked<'a>]) -> Vec<Line<'a>> {
    let headlines: Vec<Vec<&QuestionComparison>> =
        asked.iter().map(|a| headlines(&a.questions.tasks, |row| &row.key)).collect();
    let names = headlines.iter().flatten().filter(|row| is_share(&row.key)).map(|row| row.key.task.as_str());
    let line = |name: &str| Line {
        scope: Scope::Task,
        name: name.to_owned(),
        scores: headlines
            .iter()
            .map(|rows| Some(&rows.iter().find(|row| row.key.task == name)?.scores))
            .collect(),
    };
    distinct(names).into_iter().map(line).collect()
}

/// Whether a metric is a share, so that percent make sense of it.
pub(super) fn is_share(key: &TaskKey) -> bool {
    !NO_SHARES.contains(&key.metric.as_str())
}

/// A task of graded difficulty under everyone who was asked.
pub(super) struct Family<'a> {
    /// The task; foreign text.
    pub(super) name: &'a str,
    /// What grows; foreign text.
    pub(super) unit: &'a str,
    /// Levels, easiest first.
    pub(super) levels: Vec<u32>,
    /// Base at each of the levels.
    pub(super) base: Vec<Option<&'a Estimate>>,
    /// The share that guessing gets right at each level.
    pub(super) chance: Vec<Option<f64>>,
    /// Each cousin's headline, in the order of [`asked`].
    pub(super) rows: Vec<Option<&'a QuestionComparison>>,
}

impl<'a> Family<'a> {
    /// A cousin's figures at a level.
    pub(super) fn at(&self, cousin: usize, level: u32) -> Option<&'a PairedScores> {
        let row = self.rows.get(cousin).copied().flatten()?;
        row.levels.iter().find(|l| l.value == level).map(|l| &l.scores)
    }

    /// The figures at a level of the first cousin that has any.
    pub(super) fn first_at(&self, level: u32) -> Option<&'a PairedScores> {
        (0..self.rows.len()).find_map(|cousin| self.at(cousin, level))
    }
}

/// Every task whose headline has levels, of cousins or of base alone.
pub(super) fn families<'a>(comparison: &'a Comparison, asked: &[Asked<'a>]) -> Vec<Family<'a>> {
    let rows: Vec<Vec<&QuestionComparison>> =
        asked.iter().map(|a| headlines(&a.questions.tasks, |row| &row.key)).collect();
    let alone = comparison.base_questions.iter().flat_map(|side| headlines(&side.tasks, |row| &row.key));
    let alone: Vec<_> = alone.filter(|row| is_share(&row.key) && !row.levels.is_empty()).collect();
    let graded = rows.iter().flatten().filter(|row| is_share(&row.key) && !row.levels.is_empty());
    let names = graded.map(|row| row.key.task.as_str()).chain(alone.iter().map(|row| row.key.task.as_str()));
    let family = |name: &'a str| {
        let rows: Vec<Option<&QuestionComparison>> =
            rows.iter().map(|rows| rows.iter().find(|row| row.key.task == name).copied()).collect();
        let alone = alone.iter().find(|row| row.key.task == name);
        let own: &[SideLevel] = alone.map_or(&[], |row| &row.levels);
        let of_cousins = || rows.iter().flatten().flat_map(|row| &row.levels);
        let mut levels: Vec<u32> = of_cousins().map(|l| l.value).chain(own.iter().map(|l| l.value)).collect();
        levels.sort_unstable();
        levels.dedup();
        let unit = of_cousins().map(|l| l.unit.as_str()).chain(own.iter().map(|l| l.unit.as_str())).next();
        let paired = |level: &u32| of_cousins().find(|l| l.value == *level).map(|l| &l.scores);
        let base = |level: &u32| {
            let own = own.iter().find(|l| l.value == *level).map(|l| &l.score);
            own.or_else(|| paired(level).map(|scores| &scores.base))
        };
        let chance = |level: &u32| paired(level).and_then(|s| s.chance).or(alone.and_then(|row| row.chance));
        Family {
            name,
            unit: unit.unwrap_or_default(),
            base: levels.iter().map(base).collect(),
            chance: levels.iter().map(chance).collect(),
            levels,
            rows,
        }
    };
    distinct(names).into_iter().map(family).collect()
}

/// Figures of one language under every cousin, in the order of [`asked`].
pub(super) struct LanguageLine<'a> {
    /// BCP 47 tag; foreign text.
    pub(super) tag: &'a str,
    /// Each cousin's figures.
    pub(super) scores: Vec<Option<&'a LanguageScores>>,
}

/// All languages, in the order of the saved comparison.
pub(super) fn languages<'a>(asked: &[Asked<'a>]) -> Vec<LanguageLine<'a>> {
    let tags = distinct(asked.iter().flat_map(|a| &a.questions.languages).map(|l| l.language.as_str()));
    let line = |tag| LanguageLine {
        tag,
        scores: asked.iter().map(|a| a.questions.languages.iter().find(|l| l.language == tag)).collect(),
    };
    tags.into_iter().map(line).collect()
}

/// p of the test of no difference, adjusted where there were several.
pub(super) fn p_value(scores: &PairedScores) -> Option<f64> {
    scores.p_holm.or(scores.test.as_ref().map(|test| test.p)).filter(|p| p.is_finite())
}

/// Whether a difference is shown.
pub(super) fn is_shown(scores: &PairedScores) -> bool {
    p_value(scores).is_some_and(|p| p < SHOWN)
}

/// Whether a loss is shown.
pub(super) fn is_loss(scores: &PairedScores) -> bool {
    is_shown(scores) && scores.difference.value < 0.0
}

/// "4 digits", "1 digit", "level 4". Foreign text, made visible.
pub(super) fn level_name(level: u32, unit: &str) -> String {
    match (level, visible(unit).trim()) {
        (_, "" | "level") => format!("level {level}"),
        (1, unit) => format!("1 {}", unit.strip_suffix('s').unwrap_or(unit)),
        (_, unit) => format!("{level} {unit}"),
    }
}

/// "Thai (th)", or the tag alone where its name is not known here. Foreign text.
pub(super) fn language_name(tag: &str) -> String {
    let name = language(tag);
    if name == tag { name.to_owned() } else { format!("{name} ({tag})") }
}

/// "Thai", or the tag where its name is not known here. Foreign text.
pub(super) fn language(tag: &str) -> &str {
    const NAMES: [(&str, &str); 40] = [
        ("aeb", "Tunisian Arabic"),
        ("ar", "Arabic"),
        ("bn", "Bengali"),
        ("ca", "Catalan"),
        ("cs", "Czech"),
        ("da", "Danish"),
        ("de", "German"),
        ("el", "Greek"),
        ("en", "English"),
        ("es", "Spanish"),
        ("et", "Estonian"),
        ("eu", "Basque"),
        ("fa", "Persian"),
        ("fi", "Finnish"),
        ("fr", "French"),
        ("he", "Hebrew"),
        ("hi", "Hindi"),
        ("hu", "Hungarian"),
        ("id", "Indonesian"),
        ("it", "Italian"),
        ("ja", "Japanese"),
        ("ko", "Korean"),
        ("mr", "Marathi"),
        ("nl", "Dutch"),
        ("pl", "Polish"),
        ("pt", "Portuguese"),
        ("ro", "Romanian"),
        ("ru", "Russian"),
        ("sv", "Swedish"),
        ("sw", "Swahili"),
        ("ta", "Tamil"),
        ("te", "Telugu"),
        ("th", "Thai"),
        ("tl", "Tagalog"),
        ("tr", "Turkish"),
        ("uk", "Ukrainian"),
        ("ur", "Urdu"),
        ("vi", "Vietnamese"),
        ("yo", "Yoruba"),
        ("zh", "Chinese"),
    ];
    NAMES.iter().find(|(known, _)| *known == tag).map_or(tag, |(_, name)| *name)
}

/// Each once, in the order of their first appearance.
pub(super) fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = std::collections::BTreeSet::new();
    names.filter(|name| seen.insert(*name)).collect()
}
