//! What follows from premises: truth values of statements, and syllogisms with invented words.
//!
//! Every answer is a pair, of which four are possible and each is right about equally often.

mod syllogism;
mod truth;

use super::Item;
use super::random::Random;

/// Truth values and syllogisms, in turn.
pub(super) const KINDS: usize = 2;

/// A question with so many premises.
pub(super) fn draw(random: &mut Random, premises: u32, turn: usize) -> Option<Item> {
    let target = [random.chance(1, 2), random.chance(1, 2)];
    let premises = premises as usize;
    if turn.is_multiple_of(KINDS) {
        truth::draw(random, premises, target)
    } else {
        syllogism::draw(random, premises, target)
    }
}

/// A pair of words for `target`, and the three others.
fn pairs(random: &mut Random, target: [bool; 2], yes: &str, no: &str) -> (String, [String; 3]) {
    let word = |value: bool| if value { yes } else { no };
    let pair = |[first, second]: [bool; 2]| format!("{} and {}", word(first), word(second));
    let [first, second] = target;
    let mut wrong = [[!first, second], [first, !second], [!first, !second]].map(pair);
    random.shuffle(&mut wrong);
    (pair(target), wrong)
}

#[cfg(test)]
mod tests;
