//! What does a short Python program print?

mod program;
use serde_json::json;

use self::program::{Atom, Expression, Operator, Program, Statement, Test};
use super::Item;
use super::numbers::wrong_numbers;
use super::random::Random;

const NAMES: [&str; 10] = ["a", "b", "c", "k", "m", "n", "p", "x", "y", "z"];

/// A program of so many lines.
pub(super) fn draw(random: &mut Random, lines: u32, _turn: usize) -> Option<Item> {
    let program = write(random, lines as usize)?;
    let answer = program.run()?.printed;
    let slips = slips(&program, answer);
    // All statements must matter, in longer programs all but a fourth: a reader may not skip them unharmed.
    let (matter, of) =
        (program.shortened().filter(|short| result(short) != Some(answer)).count(), program.len());
    if slips.is_empty() || matter + of / 4 < of {
        return None;
    }
    let wrong = wrong_numbers(random, answer, &slips, &[1, 2, 10])?;
    let text = program.text();
    let record = json!({ "program": text, "answer": answer });
    Some(Item {
        text: format!("What does this Python program print?\n{text}"),
        answer: answer.to_string(),
        wrong,
        record,
    })
}

fn result(program: &Program) -> Option<i64> {
    program.run().map(|end| end.printed)
}

/// What somebody might answer who misses a statement, miscounts a loop, takes the wrong branch or reads off
/// the wrong variable.
fn slips(program: &Program, answer: i64) -> Vec<i64> {
    let mut slips: Vec<i64> =
        program.shortened().chain(program.misread()).filter_map(|mistaken| result(&mistaken)).collect();
    slips.extend(program.run().into_iter().flat_map(|end| end.variables.into_values()));
    slips.sort_unstable();
    slips.dedup();
    slips.retain(|&slip| slip != answer);
    slips
}

/// Where a program being written stands.
struct Draft {
    names: Vec<&'static str>,
    /// Those of `names` that have a value.
    defined: usize,
    items: usize,
}

impl Draft {
    fn defined(&self) -> &[&'static str] {
        self.names.get(..self.defined).unwrap_or_default()
    }

    fn variable(&self, random: &mut Random) -> &'static str {
        random.pick(self.defined())
    }

    /// Something with a value: a variable, an item, or a number.
    fn atom(&self, random: &mut Random) -> Atom {
        match random.below(6) {
            0 if self.items > 0 => Atom::Item(random.below(self.items)),
            1 if self.items > 0 => random.pick(&[Atom::Length, Atom::Sum]),
            0..=3 => Atom::Variable(self.variable(random)),
            _ => Atom::Number(random.between(2, 9)),
        }
    }

    fn expression(&self, random: &mut Random) -> Expression {
        let name = self.variable(random);
        let first = Atom::Variable(name);
        let operator = random.pick(&[
            Operator::Add,
            Operator::Add,
            Operator::Subtract,
            Operator::Multiply,
            Operator::Divide,
            Operator::Remainder,
        ]);
        let second = match (operator, self.atom(random)) {
            (Operator::Divide | Operator::Remainder, _) => Atom::Number(random.between(2, 9)),
            (Operator::Subtract, Atom::Variable(other)) if other == name => {
                Atom::Number(random.between(2, 9))
            }
            (_, atom) => atom,
        };
        let mut rest = vec![(operator, second)];
        if random.chance(1, 3) {
            let operator = random.pick(&[Operator::Add, Operator::Subtract]);
            rest.push((operator, Atom::Number(random.between(1, 9))));
        }
        Expression { first, rest }
    }

    /// One line that changes a variable.
    fn change(&self, random: &mut Random) -> Statement {
        let variable = self.variable(random);
        if random.chance(1, 2) {
            return Statement::Set(variable, self.expression(random));
        }
        let (operator, atom) = match random.below(5) {
            0 => (Operator::Multiply, Atom::Number(random.between(2, 3))),
            1 | 2 => match self.atom(random) {
                // Taking something from itself is no riddle.
                Atom::Variable(name) if name == variable => {
                    (Operator::Subtract, Atom::Number(random.between(2, 9)))
                }
                atom => (Operator::Subtract, atom),
            },
            _ => (Operator::Add, self.atom(random)),
        };
        Statement::Change(variable, operator, Expression { first: atom, rest: Vec::new() })
    }

    fn condition(&self, random: &mut Random) -> (Atom, Test, Atom) {
        let name = self.variable(random);
        let right = match self.atom(random) {
            Atom::Variable(other) if other == name => Atom::Number(random.between(5, 30)),
            Atom::Number(_) => Atom::Number(random.between(5, 30)),
            atom => atom,
        };
        (Atom::Variable(name), random.pick(&[Test::Less, Test::Greater]), right)
    }

    /// A loop over numbers or over the list.
    fn repeat(&self, random: &mut Random, lines: usize) -> Statement {
        let variable = "i";
        let mut body: Vec<Statement> = (0..lines).map(|_| self.change(random)).collect();
        if random.chance(2, 3) {
            let operator = random.pick(&[Operator::Add, Operator::Add, Operator::Subtract]);
            let step = Expression { first: Atom::Variable(variable), rest: Vec::new() };
            body[0] = Statement::Change(self.variable(random), operator, step);
        }
        if self.items > 0 && random.chance(1, 2) {
            Statement::ForItems { variable, body }
        } else {
            Statement::ForRange { variable, count: random.between(2, 5), body }
        }
    }
}

/// A program that may still fail when it is run.
fn write(random: &mut Random, lines: usize) -> Option<Program> {
    let mut draft = Draft { names: random.sample(&NAMES, 3), defined: 0, items: 0 };
    let mut statements = Vec::new();
    let mut left = lines.checked_sub(1)?;
    let start = if left >= 3 { 2 } else { 1 };
    for _ in 0..start {
        let name = *draft.names.get(draft.defined)?;
        let value = Expression { first: Atom::Number(random.between(2, 30)), rest: Vec::new() };
        statements.push(Statement::Set(name, value));
        draft.defined += 1;
        left = left.checked_sub(1)?;
    }
    if left >= 3 && random.chance(1, 2) {
        let items: Vec<i64> = (0..random.between(3, 5)).map(|_| random.between(1, 20)).collect();
        draft.items = items.len();
        statements.push(Statement::SetList(items));
        left -= 1;
    }
    while left > 0 {
        let (statement, cost) = block(random, &mut draft, left);
        statements.push(statement);
        left -= cost;
    }
    let shown = if lines <= 2 || random.chance(1, 3) {
        draft.expression(random)
    } else {
        Expression { first: Atom::Variable(draft.variable(random)), rest: Vec::new() }
    };
    Some(Program::new(statements, shown))
}

/// A statement and its lines, at most `left`, of which there must be one.
fn block(random: &mut Random, draft: &mut Draft, left: usize) -> (Statement, usize) {
    match random.below(8) {
        0 | 1 if left >= 2 => (draft.repeat(random, 1), 2),
        2 if left >= 3 => (draft.repeat(random, 2), 3),
        3 if left >= 2 => {
            let (left, test, right) = draft.condition(random);
            let then = vec![draft.change(random)];
            (Statement::If { left, test, right, then, otherwise: Vec::new() }, 2)
        }
        4 if left >= 4 => {
            let (left, test, right) = draft.condition(random);
            let (then, otherwise) = (vec![draft.change(random)], vec![draft.change(random)]);
            (Statement::If { left, test, right, then, otherwise }, 4)
        }
        5 if draft.items > 0 => {
            let appended = draft.expression(random);
            draft.items += 1;
            (Statement::Append(appended), 1)
        }
        6 if draft.defined < draft.names.len() => {
            let value = draft.expression(random);
            let name = draft.names[draft.defined];
            draft.defined += 1;
            (Statement::Set(name, value), 1)
        }
        _ => (draft.change(random), 1),
    }
}

#[cfg(test)]
mod tests;
