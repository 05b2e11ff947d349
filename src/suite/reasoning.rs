//! The embedded suite `reasoning`: questions that are made on the spot, so that no model has learned them.
//!
//! Nothing is stored: [`generate()`] draws every question from a seed, and another seed gives another
//! edition. Each family of questions is asked in two ways, about the same items under the same ids: as a
//! choice of four continuations, and as a generation. Difficulty is a level in the family's own unit. What is
//! drawn depends on nothing but seed, family, level and index, all in integers: the same bytes on every
//! platform, and a larger edition begins, level by level, with the smaller one.

mod arithmetic;
mod calendar;
mod code;
mod logic;
mod needle;
mod numbers;
mod random;
mod sorting;
mod state_tracking;
mod word_problems;
mod words;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use self::random::Random;
use super::question::{
    Answer, ChoiceOption, Filter, FilterStep, GenerationSettings, Level, Metric, QuestionKind, Questions,
    Sample, Shot, TextComparison,
};

/// Raised whenever a seed gives other questions, prompts or judgements than before: figures of two versions
/// are not comparable.
pub const VERSION: u32 = 1;
/// Questions of each level of each task where nothing else is asked for. A multiple of four, so that the
/// right option stands equally often at each of the four places.
pub const DEFAULT_PER_LEVEL: usize = 20;
/// Most questions of a level; a longer list would only cost memory.
pub const MAX_PER_LEVEL: usize = 1000;

/// Draws for one question before it is left out. A draw fails where it repeats a question or where no
/// plausible wrong answers can be made.
const ATTEMPTS: u64 = 500;
/// Options of a choice.
const OPTIONS: usize = 4;
/// Tags of what is drawn from a stream of its own, besides the questions.
const SHOTS: u64 = 1 << 32;
const PLACES: u64 = 2 << 32;

/// Questions of one sort, from easy to hard.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// First part of the names of its two tasks, `<name>.choice` and `<name>.generate`.
    pub name: &'static str,
    /// What grows with the level.
    pub unit: &'static str,
    /// Levels, ascending, in that unit.
    pub levels: &'static [u32],
    /// One line for a reader of a report.
    pub about: &'static str,
    /// Stands before the worked examples.
    description: &'static str,
    /// Kinds of question, asked in turn; each is preceded by worked examples of its own kind.
    kinds: usize,
    /// Worked examples before each question.
    shots: usize,
    /// What an answer looks like, wherever it stands in what a model wrote. No capture groups.
    answer_pattern: &'static str,
    /// Enough for the longest answer under any common tokenizer.
    max_new_tokens: usize,
    /// A question of a level and turn (its kind is the turn modulo `kinds`); `None`: draw again.
    draw: fn(&mut Random, u32, usize) -> Option<Item>,
}

/// Every family of the suite, in the order of its tasks.
pub const FAMILIES: &[Family] = &[
    Family {
        name: "arithmetic",
        unit: "digits",
        levels: &[1, 2, 3, 4, 6],
        about: "sums, differences and products with a one-digit number",
        description: "Each answer is a number.\n\n",
        kinds: 1,
        shots: 3,
        answer_pattern: NUMBER,
        max_new_tokens: 24,
        draw: arithmetic::draw,
    },
    Family {
        name: "word-problems",
        unit: "steps",
        levels: &[1, 2, 4, 6],
        about: "stories in which a quantity changes step by step",
        description: "Each answer is a number.\n\n",
        kinds: 1,
        shots: 3,
        answer_pattern: NUMBER,
        max_new_tokens: 24,
        draw: word_problems::draw,
    },
    Family {
        name: "logic",
        unit: "premises",
        levels: &[2, 3, 4, 5, 6],
        about: "truth values that follow from premises, and syllogisms with invented words",
        description: "Each answer is a pair of words joined by \"and\".\n\n",
        kinds: logic::KINDS,
        shots: 3,
        answer_pattern: r"(?i)\b(?:true|false|yes|no) and (?:true|false|yes|no)\b",
        max_new_tokens: 24,
        draw: logic::draw,
    },
    Family {
        name: "state-tracking",
        unit: "moves",
        levels: &[1, 2, 4, 8, 12],
        about: "things that change their places or owners",
        description: "Each answer is one word.\n\n",
        kinds: state_tracking::KINDS,
        shots: 3,
        answer_pattern: state_tracking::ANSWERS,
        max_new_tokens: 24,
        draw: state_tracking::draw,
    },
    Family {
        name: "sorting",
        unit: "items",
        levels: &[3, 5, 7, 9],
        about: "numbers and words to be put in order",
        description: "Each answer is the whole list in the right order.\n\n",
        kinds: sorting::KINDS,
        shots: 3,
        answer_pattern: r"[A-Za-z0-9]+(?:,\s*[A-Za-z0-9]+)+",
        max_new_tokens: 96,
        draw: sorting::draw,
    },
    Family {
        name: "code",
        unit: "lines",
        levels: &[2, 4, 6, 9, 12],
        about: "what a short Python program prints",
        description: "Each answer is the number that the program prints.\n\n",
        kinds: 1,
        shots: 3,
        answer_pattern: NUMBER,
        max_new_tokens: 24,
        draw: code::draw,
    },
    Family {
        name: "needle",
        unit: "words",
        levels: &[50, 100, 200, 400, 800],
        about: "a fact to be found again in a text, so many words before the question",
        description: "Each answer stands in the text before the question.\n\n",
        kinds: needle::KINDS,
        shots: 2,
        answer_pattern: needle::ANSWERS,
        max_new_tokens: 24,
        draw: needle::draw,
    },
    Family {
        name: "calendar",
        unit: "days",
        levels: &[10, 30, 100, 365],
        about: "weekdays and dates up to so many days away",
        description: "Each answer is a day of the week or a date.\n\n",
        kinds: calendar::KINDS,
        shots: 3,
        answer_pattern: r"(?i)\b(?:mon|tues|wednes|thurs|fri|satur|sun)day\b|\b\d{4}-\d{2}-\d{2}\b",
        max_new_tokens: 24,
        draw: calendar::draw,
    },
];

/// A number as people write it, thousands apart or not.
const NUMBER: &str = r"-?\d[\d,]*(?:\.\d+)?";

/// One task of an edition.
#[derive(Clone, Debug, PartialEq)]
pub struct ReasoningTask {
    /// `<family>.choice` or `<family>.generate`.
    pub name: String,
    /// [`Family::about`].
    pub about: &'static str,
    /// What is asked.
    pub questions: Questions,
}

/// A drawn question before it is put into a form.
struct Item {
    /// Without "Question:" and "Answer:".
    text: String,
    answer: String,
    /// All different from each other and from the answer.
    wrong: [String; OPTIONS - 1],
    /// All that is needed to check the answer.
    record: Value,
}

/// An item with its place in the edition.
struct Placed {
    level: u32,
    index: usize,
    /// Where the right option stands.
    place: usize,
    item: Item,
}

/// An edition of the suite: each family twice, `.choice` (acc, then acc_norm) and `.generate` (exact match
/// under the filters `strict` and `flexible`), with `per_level` questions at each level.
///
/// `per_level` is brought into 1 to [`MAX_PER_LEVEL`]. A question that only repeats another one of its level
/// is drawn anew; where a level has not that many different ones, [`Questions::left_out`] says how many are
/// missing.
pub fn generate(seed: u64, per_level: usize) -> Vec<ReasoningTask> {
    let per_level = per_level.clamp(1, MAX_PER_LEVEL);
    FAMILIES.iter().flat_map(|family| family.tasks(seed, per_level)).collect()
}

impl Family {
    fn tasks(&self, seed: u64, per_level: usize) -> [ReasoningTask; 2] {
        let shots: Vec<Vec<Item>> = (0..self.kinds).map(|kind| self.worked_examples(seed, kind)).collect();
        let taken: BTreeSet<&str> = shots.iter().flatten().map(|item| item.text.as_str()).collect();
        let mut items = Vec::new();
        let mut left_out = Vec::new();
        for &level in self.levels {
            let drawn = self.level(seed, level, per_level, &taken);
            if drawn.len() < per_level {
                let missing = per_level - drawn.len();
                left_out.push(format!("{missing} at level {level}: no more different questions were found"));
            }
            items.extend(drawn);
        }
        let shots: Vec<Arc<[Shot]>> = shots.iter().map(|items| items.iter().map(shot).collect()).collect();
        let task = |form: &str, questions| ReasoningTask {
            name: format!("{}.{form}", self.name),
            about: self.about,
            questions,
        };
        [
            task("choice", self.choice(&items, &shots, &left_out)),
            task("generate", self.generation(&items, &shots, left_out.clone())),
        ]
    }

    /// Different questions of the lowest level with different answers.
    fn worked_examples(&self, seed: u64, kind: usize) -> Vec<Item> {
        let level = self.levels.first().copied().unwrap_or_default();
        let mut examples: Vec<Item> = Vec::with_capacity(self.shots);
        for i in 0..self.shots {
            let turn = kind + self.kinds * i;
            let item = self.attempts(seed, SHOTS, turn, |random| {
                let item = (self.draw)(random, level, turn)?;
                examples.iter().all(|e| e.answer != item.answer && e.text != item.text).then_some(item)
            });
            examples.extend(item);
        }
        examples
    }

    fn level(&self, seed: u64, level: u32, per_level: usize, taken: &BTreeSet<&str>) -> Vec<Placed> {
        let mut seen: BTreeSet<String> = BTreeSet::new();
        let mut placed = Vec::with_capacity(per_level);
        for index in 0..per_level {
            let item = self.attempts(seed, u64::from(level), index, |random| {
                let item = (self.draw)(random, level, index)?;
                (!taken.contains(item.text.as_str()) && seen.insert(item.text.clone())).then_some(item)
            });
            let place = self.place(seed, level, index);
            placed.extend(item.map(|item| Placed { level, index, place, item }));
        }
        placed
    }

    /// The first draw that is usable, each attempt from a stream of its own.
    fn attempts(
        &self,
        seed: u64,
        tag: u64,
        index: usize,
        mut draw: impl FnMut(&mut Random) -> Option<Item>,
    ) -> Option<Item> {
        let stream = |attempt| Random::of(&[seed, random::tag(self.name), tag, index as u64, attempt]);
        (0..ATTEMPTS).find_map(|attempt| draw(&mut stream(attempt)))
    }

    /// Where the right option stands: each place once among four questions in a row.
    fn place(&self, seed: u64, level: u32, index: usize) -> usize {
        let mut places: [usize; OPTIONS] = std::array::from_fn(|i| i);
        let block = (index / OPTIONS) as u64;
        Random::of(&[seed, random::tag(self.name), PLACES | u64::from(level), block]).shuffle(&mut places);
        places[index % OPTIONS]
    }

    fn choice(&self, items: &[Placed], shots: &[Arc<[Shot]>], left_out: &[String]) -> Questions {
        let answer = |placed: &Placed| {
            let mut options = placed.item.wrong.to_vec();
            options.insert(placed.place, placed.item.answer.clone());
            let option =
                |text: String| ChoiceOption { normalizer: text.clone(), continuation: text, question: None };
            Answer::Choice { options: options.into_iter().map(option).collect(), gold: vec![placed.place] }
        };
        let metrics = vec![Metric::Acc, Metric::AccNorm];
        self.questions(
            QuestionKind::Choice,
            metrics,
            Vec::new(),
            self.samples(items, shots, answer),
            left_out,
        )
    }

    fn generation(&self, items: &[Placed], shots: &[Arc<[Shot]>], left_out: Vec<String>) -> Questions {
        let settings = GenerationSettings {
            until: vec!["\n".into()],
            max_new_tokens: self.max_new_tokens,
            sampling: None,
            repeats: 1,
        };
        // A thousands separator, a space left out of a list and a final full stop are no mistakes.
        let comparison = TextComparison {
            regexes_to_ignore: vec![r",\s*".into(), r"\.$".into()],
            ignore_case: true,
            ..TextComparison::default()
        };
        let filter = |name: &str, pattern: &str, group_select| Filter {
            name: name.into(),
            steps: vec![
                FilterStep::Regex { pattern: pattern.into(), group_select, fallback: "[invalid]".into() },
                FilterStep::TakeFirst,
            ],
        };
        // The whole first line without the space around it, or whatever looks like an answer, the last one.
        let filters = vec![filter("strict", r"\S(?:.*\S)?", 0), filter("flexible", self.answer_pattern, -1)];
        let samples =
            self.samples(items, shots, |placed| Answer::Generation(vec![placed.item.answer.clone()]));
        let metrics = vec![Metric::ExactMatch(comparison)];
        self.questions(QuestionKind::Generation(settings), metrics, filters, samples, &left_out)
    }

    fn questions(
        &self,
        kind: QuestionKind,
        metrics: Vec<Metric>,
        filters: Vec<Filter>,
        samples: Vec<Sample>,
        left_out: &[String],
    ) -> Questions {
        Questions {
            kind,
            description: self.description.into(),
            target_delimiter: " ".into(),
            fewshot_delimiter: "\n\n".into(),
            samples,
            metrics,
            filters,
            left_out: left_out.to_vec(),
        }
    }

    fn samples(
        &self,
        items: &[Placed],
        shots: &[Arc<[Shot]>],
        answer: impl Fn(&Placed) -> Answer,
    ) -> Vec<Sample> {
        let sample = |(doc_id, placed): (usize, &Placed)| {
            let id = format!("{}-{}-{:02}", self.name, placed.level, placed.index);
            Sample {
                cluster: id.clone(),
                id,
                doc_id,
                level: Some(Level { unit: self.unit.into(), value: placed.level }),
                shots: shots.get(placed.index % self.kinds).cloned().unwrap_or_default(),
                question: prompt(&placed.item),
                answer_prefix: String::new(),
                answer: answer(placed),
                record: placed.item.record.clone(),
            }
        };
        items.iter().enumerate().map(sample).collect()
    }
}

fn shot(item: &Item) -> Shot {
    Shot { question: prompt(item), answer: item.answer.clone() }
}

fn prompt(item: &Item) -> String {
    format!("Question: {}\nAnswer:", item.text)
}

#[cfg(test)]
mod tests;
