//! Stories solved by their words alone.

use crate::suite::reasoning::tests::{asked, numbers};

const MORE: &[&str] = &["more", "get on", "added", "pours in", "wins", "earns"];
const LESS: &[&str] = &["get off", "of them", "leak", "takes out", "loses", "costs"];

/// The quantity after each sentence.
fn solve(text: &str) -> Vec<i128> {
    let sentences: Vec<&str> = text.split_inclusive(". ").collect();
    let (question, story) = sentences.split_last().unwrap();
    assert!(question.starts_with("How many ") && question.ends_with(" now?"), "{question}");
    let mut quantities = numbers(story[0]);
    assert_eq!(quantities.len(), 1, "{text}");
    for sentence in &story[1..] {
        let quantity = *quantities.last().unwrap();
        let says = |words: &[&str]| words.iter().any(|word| sentence.contains(word));
        let next = match numbers(sentence)[..] {
            [] if says(&["half"]) && quantity % 2 == 0 => quantity / 2,
            [] if says(&["double"]) => quantity + quantity,
            [groups, each] => (0..groups).fold(quantity, |sum, _| sum + each),
            [n] if says(LESS) && !says(MORE) => quantity - n,
            [n] if says(MORE) && !says(LESS) => quantity + n,
            _ => panic!("not understood: {sentence}"),
        };
        assert!((3..=299).contains(&next), "{text}");
        quantities.push(next);
    }
    quantities
}

#[test]
fn the_words_say_the_answer() {
    let mut kinds = std::collections::BTreeSet::new();
    for asked in asked("word-problems") {
        let quantities = solve(&asked.text);
        assert_eq!(quantities.last().unwrap().to_string(), asked.answer, "{}", asked.text);
        assert_eq!(quantities.len(), asked.level as usize + 1, "{}", asked.text);
        // Sentences without names, things and numbers: how many forms there are.
        kinds.extend(asked.text.split_inclusive(". ").map(|s| {
            let words = s.split(' ').filter(|w| {
                w.chars().all(|c| c.is_ascii_lowercase())
                    && !super::THEMES.iter().any(|t| t.things.contains(w))
            });
            words.collect::<Vec<_>>().join(" ")
        }));
    }
    assert!(kinds.len() > 30, "{}", kinds.len());
}
