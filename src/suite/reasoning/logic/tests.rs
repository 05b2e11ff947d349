//! Every possible world enumerated.

use std::collections::BTreeMap;

use crate::suite::reasoning::tests::{Asked, asked};

/// The pair of truth values in the only assignment that satisfies every premise.
fn truth_values(text: &str) -> (String, usize) {
    let (premises, question) = text.rsplit_once(". ").unwrap();
    let letters: Vec<char> = {
        let mut found: Vec<char> = text
            .split(|c: char| !c.is_ascii_alphabetic())
            .filter(|word| word.len() == 1)
            .map(|word| word.chars().next().unwrap())
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    };
    let premises: Vec<Vec<&str>> =
        premises.split(". ").map(|p| p.split(' ').map(|w| w.trim_matches(',')).collect()).collect();
    let models: Vec<u32> = (0..1u32 << letters.len())
        .filter(|model| {
            let of = |letter: &str| {
                let place = letters.iter().position(|l| letter == l.to_string()).unwrap();
                model >> place & 1 == 1
            };
            premises.iter().all(|words| match words[..] {
                [x, "is", value] => of(x).to_string() == value,
                [x, "and", y, "have", "the", "same", "truth", "value"] => of(x) == of(y),
                ["Exactly", "one", "of", x, "and", y, "is", "true"] => of(x) as u8 + of(y) as u8 == 1,
                ["At", "least", "one", "of", x, "and", y, "is", "true"] => of(x) as u8 + of(y) as u8 >= 1,
                [x, "and", y, "are", "not", "both", "true"] => of(x) as u8 + of(y) as u8 <= 1,
                ["If", x, "is", a, "then", y, "is", b] => of(x).to_string() != a || of(y).to_string() == b,
                _ => panic!("not understood: {words:?}"),
            })
        })
        .collect();
    assert_eq!(models.len(), 1, "{text}");
    let asked = question.strip_prefix("What are the truth values of ").unwrap().strip_suffix('?').unwrap();
    let values = asked.split(" and ").map(|letter| {
        let place = letters.iter().position(|l| letter == l.to_string()).unwrap();
        (models[0] >> place & 1 == 1).to_string()
    });
    (values.collect::<Vec<_>>().join(" and "), premises.len())
}

/// Quantity, subject and object, terms by number.
fn statement<'a>(text: &'a str, terms: &mut Vec<&'a str>) -> (&'a str, usize, usize) {
    let words: Vec<&str> = text.split(' ').collect();
    let (quantity, subject, object) = match words[..] {
        ["All", subjects, "are", objects] => ("All", subjects.strip_suffix('s'), objects.strip_suffix('s')),
        ["Some", subjects, "are", objects] => ("Some", subjects.strip_suffix('s'), objects.strip_suffix('s')),
        ["No", subject, "is", "a", object] => ("No", Some(subject), Some(object)),
        _ => panic!("not understood: {text}"),
    };
    let mut number = |term: &'a str| {
        terms.iter().position(|t| *t == term).unwrap_or_else(|| {
            terms.push(term);
            terms.len() - 1
        })
    };
    (quantity, number(subject.unwrap()), number(object.unwrap()))
}

fn holds((quantity, subject, object): (&str, usize, usize), world: &[u32]) -> bool {
    let is = |thing: u32, term: usize| thing >> term & 1 == 1;
    match quantity {
        "All" => world.iter().all(|&thing| !is(thing, subject) || is(thing, object)),
        "No" => !world.iter().any(|&thing| is(thing, subject) && is(thing, object)),
        _ => world.iter().any(|&thing| is(thing, subject) && is(thing, object)),
    }
}

/// Whether each of the two statements follows. A thing is the set of terms it is; a statement follows if it
/// holds in every world in which the premises do. With at most one "some" among the premises, a world that
/// refutes a statement needs no more than two things: one for that, one against the statement.
fn syllogisms(text: &str) -> (String, usize) {
    let text = text.strip_suffix(". Does each statement follow?").unwrap();
    let (premises, statements) = text.split_once(". Statement 1: ").unwrap();
    let (first, second) = statements.split_once(". Statement 2: ").unwrap();
    let mut terms = Vec::new();
    let premises: Vec<_> = premises.split(". ").map(|text| statement(text, &mut terms)).collect();
    let known = terms.len();
    let asked = [first, second].map(|text| statement(text, &mut terms));
    assert_eq!((known, terms.len()), (premises.len() + 1, premises.len() + 1), "{text}");
    assert!(premises.iter().filter(|premise| premise.0 == "Some").count() <= 1);
    let (some, universal): (Vec<_>, Vec<_>) = premises.iter().partition(|premise| premise.0 == "Some");
    let things: Vec<u32> =
        (0..1u32 << terms.len()).filter(|&thing| universal.iter().all(|&&p| holds(p, &[thing]))).collect();
    let answers = asked.map(|asked| {
        let mut worlds = things.iter().flat_map(|&a| things.iter().map(move |&b| [a, b]));
        let refuted = worlds.any(|world| some.iter().all(|&&p| holds(p, &world)) && !holds(asked, &world));
        // The same where there is one of everything: any thing may be added that does no harm.
        let harmless = |wanted: &dyn Fn(u32) -> bool| {
            things.iter().any(|&thing| wanted(thing) && (asked.0 != "Some" || !holds(asked, &[thing])))
        };
        let inhabited = (0..terms.len()).all(|term| harmless(&|thing| thing >> term & 1 == 1))
            && some.iter().all(|&&p| harmless(&|thing| holds(p, &[thing])));
        let against = asked.0 == "Some" || things.iter().any(|&thing| !holds(asked, &[thing]));
        assert_eq!(refuted, inhabited && against, "ambiguous: {text}");
        if refuted { "no" } else { "yes" }
    });
    (answers.join(" and "), premises.len())
}

fn is_syllogism(asked: &Asked) -> bool {
    asked.text.ends_with("Does each statement follow?")
}

#[test]
fn every_world_agrees() {
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for asked in asked("logic") {
        let solve = if is_syllogism(&asked) { syllogisms } else { truth_values };
        assert_eq!(solve(&asked.text), (asked.answer.clone(), asked.level as usize), "{}", asked.text);
        *counts.entry(asked.answer).or_default() += 1;
    }
    // Each of the eight answers about as often.
    let mean = counts.values().sum::<u32>() / 8;
    assert!(counts.len() == 8 && counts.values().all(|n| n.abs_diff(mean) * 5 < mean), "{counts:?}");
}

/// A statement must not be answered by how it begins.
#[test]
fn quantities_do_not_tell() {
    let mut counts: BTreeMap<(String, String), u32> = BTreeMap::new();
    for asked in asked("logic").iter().filter(|asked| is_syllogism(asked)) {
        for (number, answer) in (1..).zip(asked.answer.split(" and ")) {
            let (_, statement) = asked.text.split_once(&format!("Statement {number}: ")).unwrap();
            let quantity = statement.split(' ').next().unwrap();
            *counts.entry((quantity.to_owned(), answer.to_owned())).or_default() += 1;
        }
    }
    for quantity in ["All", "No", "Some"] {
        let count = |answer: &str| counts[&(quantity.to_owned(), answer.to_owned())];
        let (yes, no) = (count("yes"), count("no"));
        assert!(yes * 2 > no && no * 2 > yes && yes + no > 200, "{quantity}: {yes} follow, {no} do not");
    }
}
