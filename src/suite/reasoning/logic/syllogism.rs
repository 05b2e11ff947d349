//! Syllogisms: whether statements about all, no and some of invented things follow from others.
//!
//! Premises tie the terms in one line, so nothing contradicts and no term is empty of necessity. Whether
//! "all" means that there are any is left open in English: a statement that follows only if it does is never
//! asked.

use serde_json::json;

use super::{Item, Random, pairs};

/// Invented things, each with a plural in -s and none beginning with a vowel.
const NOUNS: [&str; 18] = [
    "wug", "dorp", "fep", "zant", "blick", "tove", "snarb", "plon", "vark", "gorm", "mib", "quop", "drell",
    "keff", "lunt", "hask", "jorn", "trum",
];

#[derive(Clone, Copy, PartialEq)]
enum Quantity {
    All,
    No,
    Some,
}

/// A statement about two terms.
#[derive(Clone, Copy, PartialEq)]
struct Statement {
    quantity: Quantity,
    subject: usize,
    object: usize,
}

impl Statement {
    fn text(self, nouns: &[&str]) -> String {
        let (subject, object) = (nouns[self.subject], nouns[self.object]);
        match self.quantity {
            Quantity::All => format!("All {subject}s are {object}s."),
            Quantity::No => format!("No {subject} is a {object}."),
            Quantity::Some => format!("Some {subject}s are {object}s."),
        }
    }
}

/// What being one thing, or not being it, implies.
struct Implications {
    terms: usize,
    /// `reaches[a][b]`: a implies b. Being term t is 2t, not being it 2t + 1.
    reaches: Vec<Vec<bool>>,
    /// Pairs of terms that something is both of.
    witnesses: Vec<(usize, usize)>,
}

impl Implications {
    fn of(premises: &[Statement], terms: usize) -> Self {
        let mut reaches: Vec<Vec<bool>> =
            (0..2 * terms).map(|a| (0..2 * terms).map(|b| a == b).collect()).collect();
        let mut witnesses = Vec::new();
        for premise in premises {
            let (subject, object) = (2 * premise.subject, 2 * premise.object);
            match premise.quantity {
                Quantity::All => {
                    reaches[subject][object] = true;
                    reaches[object + 1][subject + 1] = true;
                }
                Quantity::No => {
                    reaches[subject][object + 1] = true;
                    reaches[object][subject + 1] = true;
                }
                Quantity::Some => witnesses.push((premise.subject, premise.object)),
            }
        }
        for middle in 0..2 * terms {
            for from in 0..2 * terms {
                for to in 0..2 * terms {
                    reaches[from][to] |= reaches[from][middle] && reaches[middle][to];
                }
            }
        }
        Self { terms, reaches, witnesses }
    }

    /// Whether it follows; `None` where that depends on whether there is one of each term.
    fn prove(&self, statement: Statement) -> Option<bool> {
        let (subject, object) = (2 * statement.subject, 2 * statement.object);
        match statement.quantity {
            Quantity::All => Some(self.reaches[subject][object]),
            Quantity::No => Some(self.reaches[subject][object + 1]),
            Quantity::Some => {
                let is =
                    |(a, b): (usize, usize), term| self.reaches[2 * a][term] || self.reaches[2 * b][term];
                let shows = |witness| is(witness, subject) && is(witness, object);
                if self.witnesses.iter().any(|&witness| shows(witness)) {
                    return Some(true);
                }
                if (0..self.terms).any(|term| shows((term, term))) { None } else { Some(false) }
            }
        }
    }
}

/// Two statements to be judged; `target` says which of them follow.
pub(super) fn draw(random: &mut Random, premises: usize, target: [bool; 2]) -> Option<Item> {
    let (answer, wrong) = pairs(random, target, "yes", "no");
    let quantities = [(); 2].map(|()| random.pick(&[Quantity::All, Quantity::No, Quantity::Some]));
    for _ in 0..500 {
        let given = line(random, premises);
        let implications = Implications::of(&given, premises + 1);
        let mut asked: Vec<Statement> = Vec::new();
        for (quantity, wanted) in quantities.into_iter().zip(target) {
            let candidates: Vec<Statement> = far_apart(premises, quantity)
                .filter(|&statement| implications.prove(statement) == Some(wanted))
                .filter(|statement| asked.iter().all(|other| !says_the_same(*other, *statement)))
                .collect();
            if !candidates.is_empty() {
                asked.push(random.pick(&candidates));
            }
        }
        let [first, second] = asked[..] else { continue };
        let nouns = random.sample(&NOUNS, premises + 1);
        let mut sentences: Vec<String> = given.iter().map(|premise| premise.text(&nouns)).collect();
        random.shuffle(&mut sentences);
        let statements = [first, second].map(|statement| statement.text(&nouns));
        let text = format!(
            "{} Statement 1: {} Statement 2: {} Does each statement follow?",
            sentences.join(" "),
            statements[0],
            statements[1]
        );
        let record = json!({ "premises": sentences, "statements": statements, "answer": answer });
        return Some(Item { text, answer, wrong, record });
    }
    None
}

/// Premises of which each ties a term to the next; at most one "some".
fn line(random: &mut Random, premises: usize) -> Vec<Statement> {
    let mut given: Vec<Statement> = Vec::new();
    for term in 0..premises {
        let (subject, object) = if random.chance(4, 5) { (term, term + 1) } else { (term + 1, term) };
        let some = given.iter().any(|statement| statement.quantity == Quantity::Some);
        let quantity = match random.below(10) {
            0..=5 => Quantity::All,
            6..=7 => Quantity::No,
            _ if some => Quantity::All,
            _ => Quantity::Some,
        };
        given.push(Statement { quantity, subject, object });
    }
    given
}

/// Statements about terms with at least two premises between them, and not many fewer than there are.
fn far_apart(premises: usize, quantity: Quantity) -> impl Iterator<Item = Statement> {
    let nearest = premises.saturating_sub(2).max(2);
    (0..=premises).flat_map(move |subject| {
        (0..=premises)
            .filter(move |object| subject.abs_diff(*object) >= nearest)
            .map(move |object| Statement { quantity, subject, object })
    })
}

fn says_the_same(a: Statement, b: Statement) -> bool {
    let turned = Statement { subject: b.object, object: b.subject, ..b };
    a == b || (a == turned && a.quantity != Quantity::All)
}
