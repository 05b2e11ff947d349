//! The demo's suite: texts and questions that no training document holds as they are, in files as every suite has them.

use std::{collections::BTreeSet, fmt::Write as _, path::Path};

use anyhow::Result;
use serde_json::json;

use super::world::{Dice, Language, Quiz, Sum, TOPICS, Topic, World, asked, hash};

/// Held-out stories of each language.
const STORIES: usize = 12;
/// Stories without their last sentence, of each language.
const RIDDLES: usize = 16;
/// Wrong answers beside the right one, where there are so many.
const WRONG: usize = 3;
/// Sums of one, two, three, four digits.
const SUMS: [usize; 4] = [20, 40, 40, 40];

/// A text.
pub(crate) struct Story {
    pub(crate) id: String,
    pub(crate) text: String,
    /// −ln p under the generator.
    pub(crate) nats: f64,
}

/// A question with options.
pub(crate) struct Choice {
    pub(crate) id: String,
    pub(crate) context: String,
    pub(crate) options: Vec<String>,
    pub(crate) gold: usize,
}

/// What one language is asked.
pub(crate) struct OfLanguage {
    pub(crate) code: String,
    pub(crate) stories: Vec<Story>,
    pub(crate) choices: Vec<Choice>,
    pub(crate) riddles: Vec<Choice>,
    /// Between a story and its last sentence.
    pub(crate) space: &'static str,
}

/// All that is asked.
pub(crate) struct DemoSuite {
    pub(crate) languages: Vec<OfLanguage>,
    pub(crate) sums: Vec<(String, Sum)>,
}

impl DemoSuite {
    /// The same items in every language, as far as its words allow.
    pub(crate) fn new(world: &World) -> Self {
        let languages = world
            .languages
            .iter()
            .map(|language| OfLanguage {
                code: language.code.clone(),
                stories: stories(world, language),
                choices: TOPICS.iter().flat_map(|topic| choices(world, language, *topic)).collect(),
                riddles: riddles(world, language),
                space: language.space(),
            })
            .collect();
        Self { languages, sums: sums(world) }
    }

    /// Writes `suite.yaml` and its data.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let mut yaml = String::from(
            "# Written by `cargo run --release --example train_demo`; what it asks is said in README.md, beside this file.\n\
             name: demo\nversion: 1\ndescription: Held-out stories, questions and sums of the small world that the demo model was trained on\n\
             license: CC0-1.0\nseed: 0\ntasks:\n",
        );
        let mut task = |name: &str, language: &str, kind: &str, group: &str, data: &str, more: &str| {
            let _ = write!(
                yaml,
                "  - name: {name}\n    kind: {kind}\n    language: {language}\n    group: {group}\n    data: {data}\n{more}"
            );
        };
        for language in &self.languages {
            let code = &language.code;
            let file = format!("{code}.jsonl");
            let lines = language.stories.iter().map(|story| json!({"id": story.id, "text": story.text}));
            write_lines(&folder.join(&file), lines)?;
            task(code, code, "text", "stories", &file, "");
        }
        for language in &self.languages {
            let code = &language.code;
            let file = format!("{code}.questions.jsonl");
            write_lines(&folder.join(&file), language.choices.iter().map(record))?;
            let more = "    delimiter: \"\\n\"\n";
            task(&format!("{code}-questions"), code, "choice", "questions", &file, more);
        }
        for language in &self.languages {
            let code = &language.code;
            let file = format!("{code}.endings.jsonl");
            write_lines(&folder.join(&file), language.riddles.iter().map(record))?;
            let more = format!("    delimiter: \"{}\"\n", language.space);
            task(&format!("{code}-endings"), code, "choice", "endings", &file, &more);
        }
        let lines = self.sums.iter().map(|(id, sum)| {
            json!({"id": id, "prompt": format!("{} =", sum.asked()), "answer": (sum.a + sum.b).to_string(), "level": sum.digits})
        });
        write_lines(&folder.join("sums.jsonl"), lines)?;
        let more = "    level_unit: digits\n    until: [\"\\n\"]\n    max_new_tokens: 80\n    answer_pattern: '(?:^|=) ?(\\d+)'\n";
        task("sums", "und", "written", "sums", "sums.jsonl", more);
        std::fs::write(folder.join("suite.yaml"), yaml)?;
        Ok(())
    }
}

fn record(choice: &Choice) -> serde_json::Value {
    json!({"id": choice.id, "context": choice.context, "options": choice.options, "gold": choice.gold})
}

fn write_lines(path: &Path, lines: impl Iterator<Item = serde_json::Value>) -> Result<()> {
    let text: String = lines.map(|line| format!("{line}\n")).collect();
    std::fs::write(path, text)?;
    Ok(())
}

fn stories(world: &World, language: &Language) -> Vec<Story> {
    (0..STORIES)
        .map(|index| {
            let dice = &mut Dice::new(hash(&format!("story {} {index}", language.code)));
            let document = world.held_out_story(language, dice);
            Story { id: format!("{}-story-{index}", language.code), text: document.text, nats: document.nats }
        })
        .collect()
}

/// Every topic has as many questions as there are days; numbers, of which there are many, twice as many, and sums of
/// them, where loss shows first, four times.
fn choices(world: &World, language: &Language, topic: Topic) -> Vec<Choice> {
    let count = match topic {
        Topic::Sum => 28,
        Topic::More => 14,
        _ => 7,
    };
    let mut drawn = BTreeSet::new();
    let mut all = Vec::new();
    for seed in 0.. {
        let name = format!("{topic:?}").to_lowercase();
        let dice = &mut Dice::new(hash(&format!("question {name} {seed}")));
        let Quiz { question, right, wrong } = world.quiz(language, topic, dice);
        if drawn.insert(question.clone()) {
            // In plain text the line feed before an answer is one token with the question mark, and a scorer that
            // tokenizes the question by itself would put another token in its place.
            all.push(shuffled(format!("{name}-{}", all.len()), asked(&question), right, wrong, dice));
        }
        if all.len() == count {
            break;
        }
    }
    all
}

fn riddles(world: &World, language: &Language) -> Vec<Choice> {
    (0..RIDDLES)
        .map(|index| {
            let dice = &mut Dice::new(hash(&format!("ending {index}")));
            let riddle = world.riddle(language, dice);
            shuffled(format!("ending-{index}"), riddle.story, riddle.right, riddle.wrong, dice)
        })
        .collect()
}

/// The right answer among some wrong ones, in any order.
fn shuffled(id: String, context: String, right: String, mut wrong: Vec<String>, dice: &mut Dice) -> Choice {
    let mut options = Vec::new();
    while options.len() < WRONG && !wrong.is_empty() {
        options.push(wrong.swap_remove(dice.below(wrong.len())));
    }
    let gold = dice.below(options.len() + 1);
    options.insert(gold, right);
    Choice { id, context, options, gold }
}

fn sums(world: &World) -> Vec<(String, Sum)> {
    let mut all = Vec::new();
    for (digits, count) in (1..).zip(SUMS) {
        let mut drawn = BTreeSet::new();
        let dice = &mut Dice::new(hash(&format!("sum {digits}")));
        while drawn.len() < count {
            let sum = world.unseen_sum(digits, dice);
            if drawn.insert(sum.asked()) {
                all.push((format!("{digits}-digits-{}", drawn.len() - 1), sum));
            }
        }
    }
    all
}
