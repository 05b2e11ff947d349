//! One language's tables: words in the forms that the sentences need, and the sentences.
//!
//! The sentences are built so that nothing but these forms changes with their words: no plural, no agreement that a
//! table could not hold.

use serde::Deserialize;

use super::dice::Dice;

/// A language, from `languages/<code>.yaml`. Lists are in the order of the world's numbers (`world.rs`).
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Language {
    /// BCP 47.
    pub(crate) code: String,
    /// How often it is spoken in the corpus, against the other languages.
    pub(crate) frequency: f64,
    /// As subject (`{A}`), and as the one who is given something (`{to}`). Women and men in turn.
    people: Vec<[String; 2]>,
    /// Where somebody lives: `{place}`.
    places: Vec<String>,
    /// For a man and, where it differs, for a woman: `{job}`.
    jobs: Vec<Vec<String>>,
    /// What somebody has: `{animal}`.
    animals: Vec<String>,
    /// As subject (`{thing}`) and, where it differs, as object (`{object}`).
    things: Vec<Vec<String>>,
    /// `{colour}`.
    colours: Vec<String>,
    /// By themselves: `{day}` and `{next}` in what follows what.
    days: Vec<String>,
    /// When something happens: `{day}` in stories.
    on_days: Vec<String>,
    /// Zero to twenty: `{a}`, `{b}`, `{c}`.
    numbers: Vec<String>,
    pub(crate) sentences: Sentences,
    pub(crate) questions: Questions,
}

/// Ways to say something; one is drawn.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sentences {
    pub(crate) home: Vec<String>,
    pub(crate) job: Vec<String>,
    pub(crate) animal: Vec<String>,
    pub(crate) colour: Vec<String>,
    pub(crate) buys: Vec<String>,
    pub(crate) gives: Vec<String>,
    pub(crate) has: Vec<String>,
    pub(crate) next: Vec<String>,
    pub(crate) sum: Vec<String>,
    pub(crate) more: Vec<String>,
}

/// What is asked; the answer is the sentence of that name, in its first form.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Questions {
    pub(crate) home: String,
    pub(crate) job: String,
    pub(crate) animal: String,
    pub(crate) colour: String,
    pub(crate) next: String,
    pub(crate) sum: String,
    pub(crate) more: String,
    pub(crate) digits: String,
}

/// What a sentence's places are filled with.
#[derive(Clone, Copy, Default)]
pub(crate) struct Words<'a> {
    pub(crate) person: Option<usize>,
    pub(crate) to: Option<usize>,
    pub(crate) place: Option<usize>,
    /// Of `person`.
    pub(crate) job: Option<usize>,
    pub(crate) animal: Option<usize>,
    pub(crate) thing: Option<usize>,
    pub(crate) colour: Option<usize>,
    /// In a story.
    pub(crate) on_day: Option<usize>,
    /// By itself, and the one after it.
    pub(crate) day: Option<usize>,
    pub(crate) next: Option<usize>,
    pub(crate) numbers: [Option<usize>; 3],
    pub(crate) sum: Option<&'a str>,
}

/// How many of each a language names.
pub(crate) const PEOPLE: usize = 12;
pub(crate) const PLACES: usize = 8;
pub(crate) const JOBS: usize = 8;
pub(crate) const ANIMALS: usize = 8;
pub(crate) const THINGS: usize = 12;
pub(crate) const COLOURS: usize = 8;
pub(crate) const DAYS: usize = 7;
/// Largest number that has a word.
pub(crate) const LARGEST: usize = 20;

impl Language {
    /// Reads a table and checks that it names as many of everything as the world has.
    pub(crate) fn parse(yaml: &str) -> Result<Self, String> {
        let language: Self = serde_yaml::from_str(yaml).map_err(|error| error.to_string())?;
        let lengths = [
            ("people", language.people.len(), PEOPLE),
            ("places", language.places.len(), PLACES),
            ("jobs", language.jobs.len(), JOBS),
            ("animals", language.animals.len(), ANIMALS),
            ("things", language.things.len(), THINGS),
            ("colours", language.colours.len(), COLOURS),
            ("days", language.days.len(), DAYS),
            ("on_days", language.on_days.len(), DAYS),
            ("numbers", language.numbers.len(), LARGEST + 1),
        ];
        match lengths.iter().find(|(_, has, needs)| has != needs) {
            Some((what, has, needs)) => {
                Err(format!("{}: {what} has {has} entries, not {needs}", language.code))
            }
            None => Ok(language),
        }
    }

    /// A sentence with its places filled; it begins with a capital letter where the script has them.
    pub(crate) fn say(&self, template: &str, words: Words) -> String {
        let form = |forms: &[String], second: bool| {
            let index = usize::from(second).min(forms.len() - 1);
            forms[index].clone()
        };
        let is_woman = words.person.is_some_and(|person| person % 2 == 0);
        let fillings = [
            ("{A}", words.person.map(|i| self.people[i][0].clone())),
            ("{to}", words.to.map(|i| self.people[i][1].clone())),
            ("{place}", words.place.map(|i| self.places[i].clone())),
            ("{job}", words.job.map(|i| form(&self.jobs[i], is_woman))),
            ("{animal}", words.animal.map(|i| self.animals[i].clone())),
            ("{thing}", words.thing.map(|i| form(&self.things[i], false))),
            ("{object}", words.thing.map(|i| form(&self.things[i], true))),
            ("{colour}", words.colour.map(|i| self.colours[i].clone())),
            ("{day}", words.on_day.map(|i| self.on_days[i].clone())),
            ("{day}", words.day.map(|i| self.days[i].clone())),
            ("{next}", words.next.map(|i| self.days[i].clone())),
            ("{a}", words.numbers[0].map(|i| self.numbers[i].clone())),
            ("{b}", words.numbers[1].map(|i| self.numbers[i].clone())),
            ("{c}", words.numbers[2].map(|i| self.numbers[i].clone())),
            ("{sum}", words.sum.map(str::to_owned)),
        ];
        let filled = fillings.iter().fold(template.to_owned(), |text, (place, word)| match word {
            Some(word) => text.replace(place, word),
            None => text,
        });
        assert!(!filled.contains('{'), "{}: nothing to fill `{filled}` with", self.code);
        let mut letters = filled.chars();
        letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
    }

    /// The same in any of several ways.
    pub(crate) fn any(&self, templates: &[String], dice: &mut Dice, words: Words) -> String {
        self.say(dice.pick(templates).as_str(), words)
    }

    /// Whether words stand without spaces, so that a tokenizer would take whole clauses for words.
    pub(crate) fn is_unspaced(&self) -> bool {
        self.space().is_empty()
    }

    /// A text cut before and after every word of the tables: for the tokenizer of a language without spaces.
    pub(crate) fn words<'a>(&self, text: &'a str) -> Vec<&'a str> {
        let mut known: Vec<&str> = self.people.iter().flatten().map(String::as_str).collect();
        for list in [&self.places, &self.animals, &self.colours, &self.days, &self.on_days, &self.numbers] {
            known.extend(list.iter().map(String::as_str));
        }
        known.extend(self.jobs.iter().chain(&self.things).flatten().map(String::as_str));
        known.sort_by_key(|word| std::cmp::Reverse(word.len()));
        let (mut cut, mut rest, mut other) = (Vec::new(), text, 0);
        while let Some(letter) = rest[other..].chars().next() {
            let word = known.iter().find(|word| rest[other..].starts_with(**word)).map(|word| word.len());
            let length = match (word, letter.is_alphabetic()) {
                (Some(length), _) => length,
                (None, true) => {
                    other += letter.len_utf8();
                    continue;
                }
                (None, false) => letter.len_utf8(),
            };
            cut.extend([&rest[..other], &rest[other..other + length]]);
            (rest, other) = (&rest[other + length..], 0);
        }
        cut.push(rest);
        cut.retain(|part| !part.is_empty());
        cut
    }

    /// Between two sentences.
    pub(crate) fn space(&self) -> &'static str {
        if self.code == "zh" { "" } else { " " }
    }
}
