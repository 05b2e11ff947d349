//! Statements whose truth values are tied to each other; the premises leave exactly one possibility.

use serde_json::json;

use super::{Item, Random, pairs};

const LETTERS: &[u8] = b"BCDFGHJKLMNPQRSTVWXZ";

/// What a premise says about two statements.
#[derive(Clone, Copy)]
enum Tie {
    Same,
    ExactlyOne,
    AtLeastOne,
    NotBoth,
    /// If the first has the one value, the second has the other.
    If(bool, bool),
}

const TIES: [Tie; 8] = [
    Tie::Same,
    Tie::ExactlyOne,
    Tie::AtLeastOne,
    Tie::NotBoth,
    Tie::If(true, true),
    Tie::If(true, false),
    Tie::If(false, true),
    Tie::If(false, false),
];

impl Tie {
    fn holds(self, first: bool, second: bool) -> bool {
        match self {
            Tie::Same => first == second,
            Tie::ExactlyOne => first != second,
            Tie::AtLeastOne => first || second,
            Tie::NotBoth => !(first && second),
            Tie::If(condition, consequence) => first != condition || second == consequence,
        }
    }

    fn text(self, first: char, second: char) -> String {
        match self {
            Tie::Same => format!("{first} and {second} have the same truth value."),
            Tie::ExactlyOne => format!("Exactly one of {first} and {second} is true."),
            Tie::AtLeastOne => format!("At least one of {first} and {second} is true."),
            Tie::NotBoth => format!("{first} and {second} are not both true."),
            Tie::If(condition, consequence) => {
                format!("If {first} is {condition}, then {second} is {consequence}.")
            }
        }
    }
}

/// As many statements as premises: one is given, each other is settled by a tie to one before it. Asked are
/// the last and another one.
pub(super) fn draw(random: &mut Random, premises: usize, target: [bool; 2]) -> Option<Item> {
    let (answer, wrong) = pairs(random, target, "true", "false");
    for _ in 0..100 {
        let letters: Vec<char> = random.sample(LETTERS, premises).into_iter().map(char::from).collect();
        let mut values = vec![random.chance(1, 2)];
        let mut sentences = vec![format!("{} is {}.", letters.first()?, values.first()?)];
        for new in 1..premises {
            // Mostly a chain, sometimes a branch.
            let old = if random.chance(3, 4) { new - 1 } else { random.below(new) };
            let (value, sentence) =
                (0..50).find_map(|_| settle(random, (letters[old], values[old]), letters[new]))?;
            values.push(value);
            sentences.push(sentence);
        }
        let last = premises.checked_sub(1)?;
        let other = if premises > 2 { 1 + random.below(last - 1) } else { 0 };
        let [first, second] = if random.chance(1, 2) { [last, other] } else { [other, last] };
        if [values[first], values[second]] != target {
            continue;
        }
        random.shuffle(&mut sentences);
        let question = format!("What are the truth values of {} and {}?", letters[first], letters[second]);
        let record = json!({ "premises": sentences, "question": question, "answer": answer });
        sentences.push(question);
        return Some(Item { text: sentences.join(" "), answer, wrong, record });
    }
    None
}

/// A tie between an old statement and a new one that leaves the new one only one value.
fn settle(random: &mut Random, (old, value): (char, bool), new: char) -> Option<(bool, String)> {
    let tie = random.pick(&TIES);
    let old_first = random.chance(1, 2);
    let holds = |new: bool| if old_first { tie.holds(value, new) } else { tie.holds(new, value) };
    let settled = match (holds(true), holds(false)) {
        (true, false) => true,
        (false, true) => false,
        _ => return None,
    };
    Some((settled, if old_first { tie.text(old, new) } else { tie.text(new, old) }))
}
