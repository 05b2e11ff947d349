//! The fact looked up in the text, and the words after it counted.

use std::collections::BTreeMap;

use super::{ANSWERS, DEEDS, PASSWORDS, PLACES, SUBJECTS, TIMES};
use crate::suite::reasoning::tests::asked;
use crate::suite::reasoning::words::{FIVE_LETTERS, NAMES};

#[test]
fn the_fact_stands_so_many_words_before_the_question() {
    // How many facts stand before the one that is asked for.
    let mut earlier: BTreeMap<usize, usize> = BTreeMap::new();
    for asked in asked("needle") {
        let (text, question) = asked.text.rsplit_once(". ").unwrap();
        let text = format!("{text}.");
        let owner = question.strip_prefix("What is the ").unwrap().strip_suffix('?').unwrap();
        let needle = format!("The {owner} is {}.", asked.answer);
        let (before, after) = text.split_once(&needle).unwrap_or_else(|| panic!("no fact: {}", asked.text));
        assert!(!after.contains(&format!("The {owner} is")) && !before.contains(&format!("The {owner} is")));
        let distance = after.split_whitespace().count();
        let level = asked.level as usize;
        assert!((level..level + 22).contains(&distance), "{distance} words at level {level}");
        let what = owner.split(' ').next().unwrap();
        let is_fact = |sentence: &&str| sentence.contains(&format!("The {what} of "));
        assert_eq!(text.split_inclusive('.').filter(is_fact).count(), 4);
        *earlier.entry(before.split_inclusive('.').filter(is_fact).count()).or_default() += 1;
        for value in asked.wrong.iter().chain([&asked.answer]) {
            assert_eq!(text.matches(&format!(" is {value}.")).count(), 1, "{value}: {}", asked.text);
            assert_eq!(text.matches(value.as_str()).count(), 1, "{value}: {}", asked.text);
        }
    }
    // Binomial: 1, 3, 3, 1 in eight.
    let total: usize = earlier.values().sum();
    assert!(earlier.len() == 4 && earlier.values().all(|&n| n * 12 > total), "{earlier:?}");
}

#[test]
fn filler_tells_nothing() {
    let filler = [&SUBJECTS[..], &DEEDS, &PLACES, &TIMES].concat().join(" ").to_lowercase();
    for word in filler.split_whitespace() {
        assert!(
            !PASSWORDS.contains(&word) && !NAMES.iter().any(|name| name.to_lowercase() == word),
            "{word}"
        );
        assert!(word.bytes().all(|b| b.is_ascii_lowercase()), "{word}");
    }
    for password in PASSWORDS {
        assert!(FIVE_LETTERS.contains(&password) && ANSWERS.contains(&format!("|{password}")), "{password}");
    }
    assert_eq!(ANSWERS.matches('|').count(), PASSWORDS.len());
}
