//! The text acted out, sentence by sentence.

use std::collections::BTreeMap;

use super::{ANSWERS, PLACES, THINGS};
use crate::suite::reasoning::tests::asked;

/// Where each thing is, or what each person has; and how many moves there were.
fn solve(text: &str) -> (String, u32) {
    let mut world: BTreeMap<&str, &str> = BTreeMap::new();
    let mut moves = 0;
    let text = text.strip_suffix(" now?").unwrap();
    for sentence in text.split(". ") {
        let words: Vec<&str> = sentence.split(' ').collect();
        match words[..] {
            ["The", thing, "is", "in", "the", place] => assert!(world.insert(thing, place).is_none()),
            [person, "has", "the", thing] => assert!(world.insert(person, thing).is_none()),
            ["The", thing, "is", "moved", "to", "the", place] => {
                assert_ne!(world.insert(thing, place), Some(place), "a move that moves nothing");
                moves += 1;
            }
            ["The", one, "and", "the", other, "change", "places"]
            | [one, "and", other, "swap", "what", "they", "have"] => {
                let (first, second) = (world[one], world[other]);
                assert_ne!(first, second, "an exchange that changes nothing");
                world.extend([(one, second), (other, first)]);
                moves += 1;
            }
            ["Everything", "in", "the", from, "is", "moved", "to", "the", to] => {
                let all: Vec<&str> =
                    world.iter().filter(|(_, place)| **place == from).map(|(thing, _)| *thing).collect();
                assert!(!all.is_empty() && from != to, "nothing is in there");
                world.extend(all.into_iter().map(|thing| (thing, to)));
                moves += 1;
            }
            ["Where", "is", "the", asked] | ["What", "does", asked, "have"] => {
                return (world[asked].to_owned(), moves);
            }
            _ => panic!("not understood: {sentence}"),
        }
    }
    panic!("nothing is asked: {text}")
}

#[test]
fn acting_it_out_agrees() {
    let mut last_mentioned = [0, 0];
    let mut all = String::new();
    for asked in asked("state-tracking") {
        let (answer, moves) = solve(&asked.text);
        assert_eq!((answer, moves), (asked.answer.clone(), asked.level), "{}", asked.text);
        all.push_str(&asked.text);
        if asked.text.starts_with("The ") && asked.level >= 4 {
            let last = asked.text.split([' ', '.', '?']).rfind(|word| PLACES.contains(word)).unwrap();
            last_mentioned[usize::from(last == asked.answer)] += 1;
        }
    }
    for form in ["Everything in the ", " is moved to the ", " change places.", " swap what they have."] {
        assert!(all.matches(form).count() > 300, "{form:?} hardly occurs");
    }
    let [wrong, right] = last_mentioned;
    assert!(right * 2 < wrong, "the place last mentioned is right {right} times, wrong {wrong} times");
}

#[test]
fn the_filter_knows_every_answer() {
    for word in PLACES.iter().chain(&THINGS) {
        assert!(
            ANSWERS.contains(&format!("|{word}|"))
                || ANSWERS.contains(&format!("(?:{word}|"))
                || ANSWERS.contains(&format!("|{word})")),
            "{word}"
        );
    }
}
