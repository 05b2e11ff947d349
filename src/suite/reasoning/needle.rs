//! A fact that was told some time before it is asked for.

use serde_json::json;

use super::Item;
use super::random::Random;
use super::words::NAMES;

/// Codes and passwords, in turn.
pub(super) const KINDS: usize = 2;
/// Four digits, or any of the passwords.
pub(super) const ANSWERS: &str = concat!(
    r"(?i)\b(?:\d{4}|angel|arrow|berry|brick|camel|chess|cloud|coral|crown|eagle|flame|grape",
    r"|honey|jewel|lemon|maple|medal|olive|pearl|piano|robot|sugar|tiger|zebra)\b"
);

const PASSWORDS: [&str; 24] = [
    "angel", "arrow", "berry", "brick", "camel", "chess", "cloud", "coral", "crown", "eagle", "flame",
    "grape", "honey", "jewel", "lemon", "maple", "medal", "olive", "pearl", "piano", "robot", "sugar",
    "tiger", "zebra",
];
/// Facts of the same sort in one text: as many as there are options.
const FACTS: usize = 4;

const SUBJECTS: [&str; 24] = [
    "the old gardener",
    "a grey cat",
    "the young teacher",
    "a tired postman",
    "the baker",
    "a group of students",
    "the neighbour from upstairs",
    "a small dog",
    "the new doctor",
    "a quiet stranger",
    "the bus driver",
    "an elderly couple",
    "the owner of the bookshop",
    "a painter in a blue coat",
    "the night watchman",
    "a flock of pigeons",
    "the fisherman",
    "a girl with a red umbrella",
    "the librarian",
    "a musician",
    "the carpenter",
    "a boy on a bicycle",
    "the farmer",
    "a family of ducks",
];
const DEEDS: [&str; 24] = [
    "waited patiently",
    "walked up and down",
    "looked for a warm corner",
    "made a lot of noise",
    "fell asleep",
    "watched the rain",
    "enjoyed the sunshine",
    "took a long rest",
    "found nothing of interest",
    "stood still and listened",
    "forgot about the time",
    "moved slowly along",
    "stopped for a moment",
    "came back without hurry",
    "seemed to be lost",
    "stayed much longer than planned",
    "disappeared behind the trees",
    "counted the boats",
    "crossed the square twice",
    "had a late lunch",
    "turned round at once",
    "searched in vain for shade",
    "attracted some attention",
    "went past in silence",
];
const PLACES: [&str; 24] = [
    "near the river",
    "under the stone bridge",
    "in front of the town hall",
    "behind the market",
    "at the edge of the forest",
    "beside the fountain",
    "on the hill",
    "in the main street",
    "by the harbour",
    "at the corner",
    "on the way to the station",
    "close to the school",
    "in the small park",
    "outside the museum",
    "between two walls",
    "along the canal",
    "at the far end of the village",
    "next to the church",
    "on the wooden steps",
    "in the empty courtyard",
    "below the castle",
    "around the pond",
    "not far from the theatre",
    "opposite the post office",
];
const TIMES: [&str; 16] = [
    "In the early morning",
    "After the storm",
    "On a cold evening",
    "Before sunset",
    "Around noon",
    "Later that week",
    "On the following day",
    "Some time afterwards",
    "During the holidays",
    "As on most days",
    "At the end of the summer",
    "For a while",
    "Once again",
    "Without any reason",
    "To the surprise of many",
    "As usual",
];

/// A text in which at least `distance` words stand between a fact and the question for it; at most a
/// sentence more. Three facts of the same sort about other people stand anywhere in the text.
pub(super) fn draw(random: &mut Random, distance: u32, turn: usize) -> Option<Item> {
    let distance = distance as usize;
    let people = random.sample(&NAMES, FACTS);
    let codes = turn.is_multiple_of(KINDS);
    let values = if codes {
        four_codes(random)?
    } else {
        random.sample(&PASSWORDS, FACTS).iter().map(|&p| p.into()).collect()
    };
    let (what, whose) = if codes { ("code", "locker") } else { ("password", "account") };
    let mut facts = people
        .iter()
        .zip(&values)
        .map(|(person, value)| format!("The {what} of {person}'s {whose} is {value}."));
    let needle = facts.next()?;
    let (mut before, mut after): (Vec<String>, Vec<String>) = facts.partition(|_| random.chance(1, 2));
    for _ in 0..random.between(1, 3) {
        before.push(filler(random));
    }
    random.shuffle(&mut before);
    let mut words: usize = after.iter().map(|sentence| word_count(sentence)).sum();
    while words < distance {
        let sentence = filler(random);
        words += word_count(&sentence);
        after.push(sentence);
    }
    random.shuffle(&mut after);
    before.push(needle);
    before.append(&mut after);
    let person = people.first()?;
    let answer = values.first()?.clone();
    let mut wrong: [String; 3] = values.get(1..)?.to_vec().try_into().ok()?;
    random.shuffle(&mut wrong);
    Some(Item {
        text: format!("{} What is the {what} of {person}'s {whose}?", before.join(" ")),
        record: json!({ "asked": person, "distance_words": words, "others": wrong, "answer": answer }),
        answer,
        wrong,
    })
}

/// Four different numbers of four digits; `None` where chance drew the same twice.
fn four_codes(random: &mut Random) -> Option<Vec<String>> {
    let codes: Vec<String> = (0..FACTS).map(|_| random.between(1000, 9999).to_string()).collect();
    let mut different = codes.clone();
    different.sort_unstable();
    different.dedup();
    (different.len() == FACTS).then_some(codes)
}

fn filler(random: &mut Random) -> String {
    let (subject, deed, place) = (random.pick(&SUBJECTS), random.pick(&DEEDS), random.pick(&PLACES));
    if random.chance(1, 2) {
        format!("{}, {subject} {deed} {place}.", random.pick(&TIMES))
    } else {
        let (first, rest) = subject.split_at(1);
        format!("{}{rest} {deed} {place}.", first.to_uppercase())
    }
}

fn word_count(text: &str) -> usize {
    text.split_whitespace().count()
}

#[cfg(test)]
mod tests;
