//! The small world that the demo model learns: twelve people, twelve things, a week, and numbers, told in nine
//! languages. Who lives where and what colour a thing has never changes; who is given what is drawn for each story.
//!
//! Every document is drawn with `Dice`, which adds up −ln p of its choices. Since different choices give different
//! texts, that sum is the document's own information, and its mean over documents the corpus's entropy: no model
//! can have a lower mean loss on unseen documents.

mod dice;
mod language;
mod sums;

use std::collections::BTreeSet;

use self::language::{ANIMALS, COLOURS, DAYS, JOBS, LARGEST, PEOPLE, PLACES, THINGS};
pub(crate) use self::{
    dice::{Dice, hash},
    language::{Language, Words},
    sums::{Sum, Sums},
};

/// Ends a document.
pub(crate) const END_OF_TEXT: &str = "<|endoftext|>";
/// Begins a turn of a conversation.
pub(crate) const START_OF_TURN: &str = "<|im_start|>";
/// Ends a turn of a conversation.
pub(crate) const END_OF_TURN: &str = "<|im_end|>";

/// Tables of all languages.
const LANGUAGES: [&str; 9] = [
    include_str!("languages/en.yaml"),
    include_str!("languages/de.yaml"),
    include_str!("languages/es.yaml"),
    include_str!("languages/fr.yaml"),
    include_str!("languages/ru.yaml"),
    include_str!("languages/el.yaml"),
    include_str!("languages/ar.yaml"),
    include_str!("languages/hi.yaml"),
    include_str!("languages/zh.yaml"),
];

/// Draws the facts; another seed is another world.
const FACTS_SEED: u64 = 20_261_121;

/// One story of so many is kept out of training.
const HELD_OUT_ONE_OF: u64 = 32;

/// What is true.
pub(crate) struct World {
    pub(crate) languages: Vec<Language>,
    home: [usize; PEOPLE],
    job: [usize; PEOPLE],
    animal: [usize; PEOPLE],
    colour: [usize; THINGS],
    sums: Sums,
}

/// A drawn text and what it cost.
pub(crate) struct Document {
    pub(crate) text: String,
    /// −ln p of the text, end included.
    pub(crate) nats: f64,
}

/// What a question asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Topic {
    Home,
    Job,
    Animal,
    Colour,
    /// Which day follows.
    Next,
    /// Of two number words, together at most twenty.
    Sum,
    /// The larger of two number words.
    More,
}

/// Every topic that has a question of its own.
pub(crate) const TOPICS: [Topic; 7] =
    [Topic::Home, Topic::Job, Topic::Animal, Topic::Colour, Topic::Next, Topic::Sum, Topic::More];

/// How often each is asked about: there are hundreds of sums in words, and a dozen of everything else.
const TOPIC_SHARES: [f64; 7] = [1.0, 1.0, 1.0, 1.0, 1.0, 2.5, 1.5];

/// A question with its right answer and wrong ones, all sentences.
pub(crate) struct Quiz {
    pub(crate) question: String,
    pub(crate) right: String,
    pub(crate) wrong: Vec<String>,
}

/// A story as far as the last sentence, and who may have the thing.
pub(crate) struct Riddle {
    pub(crate) story: String,
    pub(crate) right: String,
    pub(crate) wrong: Vec<String>,
}

/// What a document may be, with its share. Conversations and quizzes ask the same.
const KINDS: [(Kind, f64); 6] = [
    (Kind::Story, 0.30),
    (Kind::Quiz, 0.18),
    (Kind::Conversation, 0.20),
    (Kind::Counting, 0.08),
    (Kind::Sums, 0.20),
    (Kind::Portrait, 0.04),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Story,
    Quiz,
    Conversation,
    Counting,
    Sums,
    Portrait,
}

impl World {
    /// # Errors
    /// A table that is not as it should be.
    pub(crate) fn new() -> Result<Self, String> {
        let dice = &mut Dice::new(FACTS_SEED);
        Ok(Self {
            languages: LANGUAGES.iter().map(|yaml| Language::parse(yaml)).collect::<Result<_, _>>()?,
            home: std::array::from_fn(|_| dice.below(PLACES)),
            job: std::array::from_fn(|_| dice.below(JOBS)),
            animal: std::array::from_fn(|_| dice.below(ANIMALS)),
            colour: std::array::from_fn(|_| dice.below(COLOURS)),
            sums: Sums::new(),
        })
    }

    /// What a tokenizer counts its merges in: documents, those of languages without spaces cut into words.
    pub(crate) fn sample(&self, dice: &mut Dice) -> Vec<String> {
        let text = self.document(dice).text;
        let mut unspaced = self.languages.iter().filter(|language| language.is_unspaced());
        let is_han = |letter: char| ('\u{3000}'..'\u{a000}').contains(&letter);
        match unspaced.next() {
            Some(language) if text.contains(is_han) => {
                language.words(&text).into_iter().map(str::to_owned).collect()
            }
            _ => vec![text],
        }
    }

    /// A document for training: no story and no sum that is held out.
    pub(crate) fn document(&self, dice: &mut Dice) -> Document {
        // From zero for every document, so that long runs lose no digits.
        dice.nats = 0.0;
        let kind = KINDS[dice.weighted(&KINDS.map(|(_, share)| share))].0;
        let text = match kind {
            Kind::Sums => self.lesson(dice),
            _ => {
                let frequencies: Vec<f64> =
                    self.languages.iter().map(|language| language.frequency).collect();
                let language = &self.languages[dice.weighted(&frequencies)];
                match kind {
                    Kind::Story => return self.story(language, dice, false),
                    Kind::Quiz => self.quizzes(language, dice),
                    Kind::Conversation => self.conversation(language, dice),
                    Kind::Counting => self.counting(language, dice),
                    Kind::Sums | Kind::Portrait => self.portrait(language, dice),
                }
            }
        };
        Document { text, nats: dice.nats }
    }

    /// A story that no training document is; its cost is the one that training documents count: choosing to tell a story
    /// and the language belong to it.
    pub(crate) fn held_out_story(&self, language: &Language, dice: &mut Dice) -> Document {
        let share_of = |share: f64, all: f64| -(share / all).ln();
        let stories = KINDS.iter().filter(|(kind, _)| *kind == Kind::Story).map(|(_, share)| share).sum();
        let frequencies = self.languages.iter().map(|language| language.frequency).sum();
        let chosen = share_of(stories, KINDS.iter().map(|(_, share)| share).sum())
            + share_of(language.frequency, frequencies);
        dice.nats = chosen;
        self.story(language, dice, true)
    }

    /// A story that is (`held_out`) or is not held out of training.
    fn story(&self, language: &Language, dice: &mut Dice, held_out: bool) -> Document {
        let start = dice.nats;
        let share = 1.0 / HELD_OUT_ONE_OF as f64;
        loop {
            dice.nats = start;
            let riddle = self.riddle(language, dice);
            let text = format!("{}{}{}", riddle.story, language.space(), riddle.right);
            if hash(&text).is_multiple_of(HELD_OUT_ONE_OF) == held_out {
                // Drawn among the stories of training only. What is held out is judged by the same yardstick.
                dice.nats += (1.0 - share).ln();
                return Document { text, nats: dice.nats };
            }
        }
    }

    /// Somebody gets a thing and gives it away, and it may go on to a third.
    pub(crate) fn riddle(&self, language: &Language, dice: &mut Dice) -> Riddle {
        let say = &language.sentences;
        let (thing, first) = (dice.below(THINGS), dice.below(PEOPLE));
        let mut told = Vec::new();
        let words = Words {
            person: Some(first),
            thing: Some(thing),
            on_day: Some(dice.below(DAYS)),
            ..Words::default()
        };
        told.push(language.any(&say.buys, dice, words));
        if dice.chance(0.4) {
            told.push(self.fact(language, first, dice));
        }
        if dice.chance(0.4) {
            let words = Words { thing: Some(thing), colour: Some(self.colour[thing]), ..Words::default() };
            told.push(language.any(&say.colour, dice, words));
        }
        let second = dice.other(PEOPLE, first);
        let gives = |from: usize, to: usize, dice: &mut Dice| {
            let words = Words { person: Some(from), to: Some(to), thing: Some(thing), ..Words::default() };
            language.any(&say.gives, dice, words)
        };
        told.push(gives(first, second, dice));
        if dice.chance(0.4) {
            told.push(self.fact(language, second, dice));
        }
        let mut holder = second;
        let mut named = BTreeSet::from([first, second]);
        if dice.chance(0.4) {
            holder = dice.other(PEOPLE, second);
            told.push(gives(second, holder, dice));
            named.insert(holder);
        }
        let has = |person: usize| {
            let words = Words { person: Some(person), thing: Some(thing), ..Words::default() };
            language.say(&say.has[0], words)
        };
        let wrong = named.iter().filter(|person| **person != holder).map(|person| has(*person)).collect();
        Riddle { story: told.join(language.space()), right: has(holder), wrong }
    }

    /// Something that is true of somebody.
    fn fact(&self, language: &Language, person: usize, dice: &mut Dice) -> String {
        let which = dice.below(3);
        self.particular(language, person, which, dice)
    }

    fn particular(&self, language: &Language, person: usize, which: usize, dice: &mut Dice) -> String {
        let say = &language.sentences;
        let words = Words { person: Some(person), ..Words::default() };
        match which {
            0 => language.any(&say.home, dice, Words { place: Some(self.home[person]), ..words }),
            1 => language.any(&say.job, dice, Words { job: Some(self.job[person]), ..words }),
            _ => language.any(&say.animal, dice, Words { animal: Some(self.animal[person]), ..words }),
        }
    }

    /// All that is true of somebody, in any order.
    fn portrait(&self, language: &Language, dice: &mut Dice) -> String {
        let person = dice.below(PEOPLE);
        let mut left = vec![0, 1, 2];
        let mut told = Vec::new();
        while !left.is_empty() {
            let which = left.remove(dice.below(left.len()));
            told.push(self.particular(language, person, which, dice));
        }
        told.join(language.space())
    }

    /// Two to four questions with their answers, one a line.
    fn quizzes(&self, language: &Language, dice: &mut Dice) -> String {
        let count = 2 + dice.below(3);
        let lines: Vec<String> = (0..count)
            .map(|_| {
                let (question, answer) = self.question(language, dice);
                format!("{question}\n{answer}")
            })
            .collect();
        lines.join("\n")
    }

    /// Four sums in words.
    fn counting(&self, language: &Language, dice: &mut Dice) -> String {
        let sums: Vec<String> = (0..4).map(|_| self.quiz(language, Topic::Sum, dice).right).collect();
        sums.join(language.space())
    }

    /// The same as turns between a user and the model.
    fn conversation(&self, language: &Language, dice: &mut Dice) -> String {
        let (question, answer) = self.question(language, dice);
        conversation(&question, &answer)
    }

    /// A question with its answer: on a topic, or a sum in digits.
    fn question(&self, language: &Language, dice: &mut Dice) -> (String, String) {
        if dice.chance(0.15) {
            let sum = self.sums.draw(dice);
            return (self.ask_for_sum(language, &sum), sum.worked());
        }
        let topic = TOPICS[dice.weighted(&TOPIC_SHARES)];
        let quiz = self.quiz(language, topic, dice);
        (quiz.question, quiz.right)
    }

    /// "How much is 47 + 38?"
    pub(crate) fn ask_for_sum(&self, language: &Language, sum: &Sum) -> String {
        language.say(&language.questions.digits, Words { sum: Some(&sum.asked()), ..Words::default() })
    }

    /// A question on a topic; every wrong answer there is.
    pub(crate) fn quiz(&self, language: &Language, topic: Topic, dice: &mut Dice) -> Quiz {
        let (ask, say) = (&language.questions, &language.sentences);
        let none = Words::default();
        let (question, answer, right, of, words): (_, _, _, usize, Box<dyn Fn(usize) -> Words<'static>>) =
            match topic {
                Topic::Home => {
                    let person = dice.below(PEOPLE);
                    let of = move |place| Words { person: Some(person), place: Some(place), ..none };
                    (&ask.home, &say.home, self.home[person], PLACES, Box::new(of))
                }
                Topic::Job => {
                    let person = dice.below(PEOPLE);
                    let of = move |job| Words { person: Some(person), job: Some(job), ..none };
                    (&ask.job, &say.job, self.job[person], JOBS, Box::new(of))
                }
                Topic::Animal => {
                    let person = dice.below(PEOPLE);
                    let of = move |animal| Words { person: Some(person), animal: Some(animal), ..none };
                    (&ask.animal, &say.animal, self.animal[person], ANIMALS, Box::new(of))
                }
                Topic::Colour => {
                    let thing = dice.below(THINGS);
                    let of = move |colour| Words { thing: Some(thing), colour: Some(colour), ..none };
                    (&ask.colour, &say.colour, self.colour[thing], COLOURS, Box::new(of))
                }
                Topic::Next => {
                    let day = dice.below(DAYS);
                    let of = move |next| Words { day: Some(day), next: Some(next), ..none };
                    (&ask.next, &say.next, (day + 1) % DAYS, DAYS, Box::new(of))
                }
                Topic::Sum => {
                    let a = dice.below(LARGEST + 1);
                    let b = dice.below(LARGEST + 1 - a);
                    let of = move |c| Words { numbers: [Some(a), Some(b), Some(c)], ..none };
                    (&ask.sum, &say.sum, a + b, LARGEST + 1, Box::new(of))
                }
                Topic::More => {
                    let a = dice.below(LARGEST + 1);
                    let b = dice.other(LARGEST + 1, a);
                    let question =
                        language.say(&ask.more, Words { numbers: [Some(a), Some(b), None], ..none });
                    let claim = |x, y| {
                        language.say(&say.more[0], Words { numbers: [Some(x), Some(y), None], ..none })
                    };
                    return Quiz {
                        question,
                        right: claim(a.max(b), a.min(b)),
                        wrong: vec![claim(a.min(b), a.max(b))],
                    };
                }
            };
        let wrong = (0..of).filter(|i| *i != right).map(|i| language.say(&answer[0], words(i))).collect();
        Quiz {
            question: language.say(question, words(right)),
            right: language.say(&answer[0], words(right)),
            wrong,
        }
    }

    /// Two worked sums, one a line.
    fn lesson(&self, dice: &mut Dice) -> String {
        let lines: Vec<String> = (0..2).map(|_| self.sums.draw(dice).worked()).collect();
        lines.join("\n")
    }

    /// A sum that no training document holds.
    pub(crate) fn unseen_sum(&self, digits: u32, dice: &mut Dice) -> Sum {
        self.sums.unseen(digits, dice)
    }
}

/// A question and its answer as the chat template writes them.
fn conversation(question: &str, answer: &str) -> String {
    format!("{}\n{answer}{END_OF_TURN}\n", asked(question))
}

/// The same without the answer and the line feed before it.
pub(crate) fn asked(question: &str) -> String {
    format!("{START_OF_TURN}user\n{question}{END_OF_TURN}\n{START_OF_TURN}assistant")
}
