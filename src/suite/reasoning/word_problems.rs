//! Stories in which a quantity changes step by step.

use serde_json::json;

use super::Item;
use super::numbers::wrong_numbers;
use super::random::Random;
use super::words::NAMES;

/// Smallest and largest quantity that a story may reach.
const RANGE: std::ops::RangeInclusive<i64> = 3..=299;

/// One sentence of a story.
#[derive(Clone, Copy, PartialEq)]
enum Step {
    Gain(i64),
    Lose(i64),
    /// So many times so much more.
    Groups(i64, i64),
    Halve,
    Double,
}

impl Step {
    /// `None` where half of an odd number would be taken.
    fn apply(self, quantity: i64) -> Option<i64> {
        match self {
            Step::Gain(more) => Some(quantity + more),
            Step::Lose(less) => Some(quantity - less),
            Step::Groups(groups, each) => Some(quantity + groups * each),
            Step::Halve => (quantity % 2 == 0).then_some(quantity / 2),
            Step::Double => Some(quantity * 2),
        }
    }

    /// The step as somebody understands it who reads too fast.
    fn mistaken(self) -> Step {
        match self {
            Step::Gain(more) => Step::Lose(more),
            Step::Lose(less) => Step::Gain(less),
            Step::Groups(groups, each) => Step::Gain(groups + each),
            Step::Halve => Step::Double,
            Step::Double => Step::Halve,
        }
    }
}

/// How a story is told: `{who}`, `{what}`, `{n}` and `{m}` are filled in.
struct Theme {
    /// What is counted.
    things: &'static [&'static str],
    opening: &'static str,
    gain: &'static [&'static str],
    lose: &'static [&'static str],
    groups: &'static str,
    halve: &'static str,
    double: &'static str,
    question: &'static str,
}

const THEMES: &[Theme] = &[
    Theme {
        things: &["pencils", "marbles", "stickers", "postcards", "shells", "buttons", "coins", "stamps"],
        opening: "{who} has {n} {what}.",
        gain: &["{who} finds {n} more.", "{who} buys {n} more.", "{who} is given {n} more."],
        lose: &["{who} gives away {n} of them.", "{who} loses {n} of them.", "{who} sells {n} of them."],
        groups: "{who} buys {n} boxes with {m} {what} in each.",
        halve: "{who} gives half of the {what} to a friend.",
        double: "Then {who} doubles the number of {what}.",
        question: "How many {what} does {who} have now?",
    },
    Theme {
        things: &["bus", "train", "ferry", "tram"],
        opening: "There are {n} passengers on a {what}.",
        gain: &["At the next stop, {n} get on.", "Then {n} more get on."],
        lose: &["At the next stop, {n} get off.", "Then {n} of them get off."],
        groups: "Then {n} groups of {m} people get on.",
        halve: "Then half of the passengers get off.",
        double: "At the next stop, the number of passengers doubles.",
        question: "How many passengers are on the {what} now?",
    },
    Theme {
        things: &["apples", "melons", "candles", "notebooks", "towels", "lamps", "plates", "bottles"],
        opening: "A shop has {n} {what}.",
        gain: &["It orders {n} more.", "It receives {n} more."],
        lose: &["It sells {n} of them.", "It throws away {n} of them."],
        groups: "It receives {n} crates with {m} {what} in each.",
        halve: "It sells half of its {what}.",
        double: "Then it doubles its stock.",
        question: "How many {what} does the shop have now?",
    },
    Theme {
        things: &["water", "milk", "oil", "juice"],
        opening: "A tank holds {n} litres of {what}.",
        gain: &["Then {n} litres are added.", "Somebody pours in {n} litres."],
        lose: &["Then {n} litres leak out.", "Somebody takes out {n} litres."],
        groups: "Somebody pours in {n} buckets of {m} litres each.",
        halve: "Then half of the {what} is taken out.",
        double: "Then the amount of {what} is doubled.",
        question: "How many litres of {what} are in the tank now?",
    },
    Theme {
        things: &["points"],
        opening: "In a game, {who} starts with {n} {what}.",
        gain: &["{who} wins {n} {what}.", "{who} earns {n} {what}."],
        lose: &["{who} loses {n} {what}.", "A mistake costs {who} {n} {what}."],
        groups: "{who} solves {n} tasks worth {m} {what} each.",
        halve: "Then {who} loses half of the {what}.",
        double: "Then {who} doubles the {what}.",
        question: "How many {what} does {who} have now?",
    },
];

/// A story of so many steps.
pub(super) fn draw(random: &mut Random, length: u32, _turn: usize) -> Option<Item> {
    let start = random.between(10, 80);
    let mut quantities = vec![start];
    let mut steps = Vec::new();
    let mut quantity = start;
    for _ in 0..length {
        let (step, next) = (0..50).find_map(|_| {
            let step = any_step(random);
            let next = step.apply(quantity).filter(|next| RANGE.contains(next))?;
            // Twice the same, and one step undoing the other, are no story.
            steps
                .last()
                .is_none_or(|&last: &Step| last != step && last.mistaken() != step)
                .then_some((step, next))
        })?;
        steps.push(step);
        quantities.push(next);
        quantity = next;
    }
    // One step forgotten or mistaken for its opposite.
    let mut slips = Vec::new();
    for changed in 0..steps.len() {
        let told = steps.iter().enumerate();
        slips.extend(run(start, told.clone().filter(|(i, _)| *i != changed).map(|(_, &step)| step)));
        slips.extend(run(start, told.map(|(i, &step)| if i == changed { step.mistaken() } else { step })));
    }
    slips.retain(|&slip| slip > 0);
    let theme = &THEMES[random.below(THEMES.len())];
    Some(Item {
        text: tell(random, theme, start, &steps),
        answer: quantity.to_string(),
        wrong: wrong_numbers(random, quantity, &slips, &[1, 2, 10])?,
        record: json!({ "quantities": quantities, "answer": quantity }),
    })
}

fn any_step(random: &mut Random) -> Step {
    match random.below(8) {
        0..=1 => Step::Gain(random.between(3, 60)),
        2..=4 => Step::Lose(random.between(3, 60)),
        5 => Step::Groups(random.between(2, 6), random.between(2, 12)),
        6 => Step::Halve,
        _ => Step::Double,
    }
}

fn run(start: i64, steps: impl Iterator<Item = Step>) -> Option<i64> {
    let mut quantity = start;
    for step in steps {
        quantity = step.apply(quantity)?;
    }
    Some(quantity)
}

fn tell(random: &mut Random, theme: &Theme, start: i64, steps: &[Step]) -> String {
    let (who, what) = (random.pick(&NAMES), random.pick(theme.things));
    let fill = |sentence: &str, n: i64, m: i64| {
        let sentence = sentence.replace("{who}", who).replace("{what}", what);
        sentence.replace("{n}", &n.to_string()).replace("{m}", &m.to_string())
    };
    let mut sentences = vec![fill(theme.opening, start, 0)];
    for step in steps {
        sentences.push(match *step {
            Step::Gain(more) => fill(random.pick(theme.gain), more, 0),
            Step::Lose(less) => fill(random.pick(theme.lose), less, 0),
            Step::Groups(groups, each) => fill(theme.groups, groups, each),
            Step::Halve => fill(theme.halve, 0, 0),
            Step::Double => fill(theme.double, 0, 0),
        });
    }
    sentences.push(fill(theme.question, 0, 0));
    sentences.join(" ")
}

#[cfg(test)]
mod tests;
