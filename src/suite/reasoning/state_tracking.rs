//! Things that change their places or owners: where is it, who has it in the end?

use serde_json::json;

use super::Item;
use super::random::Random;
use super::words::NAMES;

/// Things in places, and things that people swap, in turn.
pub(super) const KINDS: usize = 2;
/// Every answer that there can be.
pub(super) const ANSWERS: &str =
    r"(?i)\b(?:box|bag|jar|tin|pot|cup|can|bin|ball|bell|book|coin|doll|drum|lamp|ring)\b";

const PLACES: [&str; 8] = ["box", "bag", "jar", "tin", "pot", "cup", "can", "bin"];
const THINGS: [&str; 8] = ["ball", "bell", "book", "coin", "doll", "drum", "lamp", "ring"];
/// Things, places and people in one question: as many as there are options.
const COUNT: usize = 4;

/// A question with so many moves.
pub(super) fn draw(random: &mut Random, moves: u32, turn: usize) -> Option<Item> {
    if turn.is_multiple_of(KINDS) { places(random, moves) } else { owners(random, moves) }
}

/// Things are moved between places, alone, two against each other, or all that a place holds.
fn places(random: &mut Random, moves: u32) -> Option<Item> {
    let things = random.sample(&THINGS, COUNT);
    let places = random.sample(&PLACES, COUNT);
    // `at[thing]` is a place.
    let mut at: Vec<usize> = (0..COUNT).collect();
    random.shuffle(&mut at);
    let mut sentences: Vec<String> =
        (0..COUNT).map(|thing| format!("The {} is in the {}.", things[thing], places[at[thing]])).collect();
    let mut moved = [false; COUNT];
    let mut earlier = at.clone();
    for _ in 0..moves {
        let before = at.clone();
        let sentence = (0..50).find_map(|_| {
            at.clone_from(&before);
            let (first, second) = (random.below(COUNT), random.below(COUNT));
            match random.below(10) {
                0..=2 => {
                    at[first] = second;
                    Some(format!("The {} is moved to the {}.", things[first], places[second]))
                }
                3..=7 => {
                    at.swap(first, second);
                    Some(format!("The {} and the {} change places.", things[first], things[second]))
                }
                _ => {
                    at.iter_mut().filter(|place| **place == first).for_each(|place| *place = second);
                    Some(format!("Everything in the {} is moved to the {}.", places[first], places[second]))
                }
            }
            // A move must change something, and not undo the one before.
            .filter(|_| at != before && at != earlier)
        })?;
        sentences.push(sentence);
        earlier.clone_from(&before);
        for thing in 0..COUNT {
            moved[thing] |= at[thing] != before[thing];
        }
    }
    // Mostly a thing that is not simply where the last sentence about a place says.
    let last_named =
        sentences.iter().rev().find_map(|s| places.iter().position(|place| names_last(s, place)))?;
    let moved: Vec<usize> = (0..COUNT).filter(|&thing| moved[thing]).collect();
    let elsewhere: Vec<usize> = moved.iter().copied().filter(|&thing| at[thing] != last_named).collect();
    let anywhere = elsewhere.is_empty() || random.chance(1, 4);
    let asked = random.pick(if anywhere { &moved } else { &elsewhere });
    let premises = sentences.len();
    sentences.push(format!("Where is the {} now?", things[asked]));
    question(random, &sentences, &places, at[asked], json!({ "moves": sentences[COUNT..premises] }))
}

fn names_last(sentence: &str, place: &str) -> bool {
    sentence.strip_suffix('.').is_some_and(|s| s.ends_with(place))
}

/// People each have one thing, and two of them swap.
fn owners(random: &mut Random, moves: u32) -> Option<Item> {
    let people = random.sample(&NAMES, COUNT);
    let things = random.sample(&THINGS, COUNT);
    // `has[person]` is a thing; things and people are drawn in random order already.
    let mut has: Vec<usize> = (0..COUNT).collect();
    let mut sentences: Vec<String> =
        (0..COUNT).map(|person| format!("{} has the {}.", people[person], things[person])).collect();
    let mut last = (COUNT, COUNT);
    let mut swapped = Vec::new();
    for _ in 0..moves {
        // Swapping back at once would be no move at all.
        let (first, second) = (0..50).find_map(|_| {
            let pair = (random.below(COUNT), random.below(COUNT));
            (pair.0 != pair.1 && pair != last && (pair.1, pair.0) != last).then_some(pair)
        })?;
        has.swap(first, second);
        sentences.push(format!("{} and {} swap what they have.", people[first], people[second]));
        swapped.extend([first, second]);
        last = (first, second);
    }
    swapped.sort_unstable();
    swapped.dedup();
    let asked = random.pick(&swapped);
    let premises = sentences.len();
    sentences.push(format!("What does {} have now?", people[asked]));
    question(random, &sentences, &things, has[asked], json!({ "moves": sentences[COUNT..premises] }))
}

fn question(
    random: &mut Random,
    sentences: &[String],
    options: &[&str],
    right: usize,
    mut record: serde_json::Value,
) -> Option<Item> {
    let answer = (*options.get(right)?).to_owned();
    let mut wrong: Vec<String> = options.iter().filter(|o| **o != answer).map(|&o| o.to_owned()).collect();
    random.shuffle(&mut wrong);
    record["answer"] = answer.as_str().into();
    record["start"] = sentences[..COUNT].into();
    Some(Item { text: sentences.join(" "), answer, wrong: wrong.try_into().ok()?, record })
}

#[cfg(test)]
mod tests;
