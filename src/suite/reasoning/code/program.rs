//! A very small part of Python: its text, and what running it does.
//!
//! Numbers stay between 0 and [`LIMIT`], where `//` and `%` mean the same in every language.

use std::collections::BTreeMap;
use std::fmt::Write;

/// Largest number that a program may come to.
const LIMIT: i64 = 999;
/// The one list there is.
const LIST: &str = "items";

#[derive(Clone, Copy)]
pub(super) enum Atom {
    Number(i64),
    Variable(&'static str),
    /// `items[3]`.
    Item(usize),
    /// `len(items)`.
    Length,
    /// `sum(items)`.
    Sum,
}

#[derive(Clone, Copy)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

/// Atoms with operators between them; no parentheses.
#[derive(Clone)]
pub(super) struct Expression {
    pub(super) first: Atom,
    pub(super) rest: Vec<(Operator, Atom)>,
}

#[derive(Clone, Copy)]
pub(super) enum Test {
    Less,
    Greater,
}

#[derive(Clone)]
pub(super) enum Statement {
    Set(&'static str, Expression),
    /// `x += y`.
    Change(&'static str, Operator, Expression),
    SetList(Vec<i64>),
    Append(Expression),
    If {
        left: Atom,
        test: Test,
        right: Atom,
        then: Vec<Statement>,
        otherwise: Vec<Statement>,
    },
    ForRange {
        variable: &'static str,
        count: i64,
        body: Vec<Statement>,
    },
    ForItems {
        variable: &'static str,
        body: Vec<Statement>,
    },
}

/// Statements, and what is printed after them.
#[derive(Clone)]
pub(super) struct Program {
    statements: Vec<Statement>,
    shown: Expression,
}

/// What a program left behind.
#[derive(Default)]
pub(super) struct End {
    pub(super) printed: i64,
    pub(super) variables: BTreeMap<&'static str, i64>,
    items: Vec<i64>,
}

impl Program {
    pub(super) fn new(statements: Vec<Statement>, shown: Expression) -> Self {
        Self { statements, shown }
    }

    /// Statements outside of any block, without the one that prints.
    pub(super) fn len(&self) -> usize {
        self.statements.len()
    }

    /// `None` if a number leaves its range, or something is used that is not there.
    pub(super) fn run(&self) -> Option<End> {
        let mut end = End::default();
        end.execute(&self.statements)?;
        end.printed = end.value(&self.shown)?;
        Some(end)
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        write_block(&mut text, &self.statements, 0);
        line(&mut text, 0, &format!("print({})", self.shown.text()));
        text.truncate(text.trim_end().len());
        text
    }

    /// The program without one of its statements, each in turn.
    pub(super) fn shortened(&self) -> impl Iterator<Item = Program> {
        (0..self.statements.len()).map(|left_out| {
            let mut program = self.clone();
            program.statements.remove(left_out);
            program
        })
    }

    /// The program with one condition turned round or one loop a time longer or shorter, each in turn.
    pub(super) fn misread(&self) -> impl Iterator<Item = Program> {
        self.statements.iter().enumerate().flat_map(move |(place, statement)| {
            let mistaken = match statement {
                Statement::If { left, test, right, then, otherwise } => vec![Statement::If {
                    left: *right,
                    test: *test,
                    right: *left,
                    then: then.clone(),
                    otherwise: otherwise.clone(),
                }],
                Statement::ForRange { variable, count, body } => [count - 1, count + 1]
                    .map(|count| Statement::ForRange { variable, count, body: body.clone() })
                    .to_vec(),
                _ => Vec::new(),
            };
            mistaken.into_iter().map(move |statement| {
                let mut program = self.clone();
                if let Some(old) = program.statements.get_mut(place) {
                    *old = statement;
                }
                program
            })
        })
    }
}

impl End {
    fn execute(&mut self, statements: &[Statement]) -> Option<()> {
        for statement in statements {
            match statement {
                Statement::Set(name, value) => {
                    let value = self.value(value)?;
                    self.variables.insert(name, value);
                }
                Statement::Change(name, operator, value) => {
                    let value = operator.apply(*self.variables.get(name)?, self.value(value)?)?;
                    self.variables.insert(name, in_range(value)?);
                }
                Statement::SetList(items) => self.items.clone_from(items),
                Statement::Append(value) => {
                    let value = self.value(value)?;
                    self.items.push(value);
                }
                Statement::If { left, test, right, then, otherwise } => {
                    let (left, right) = (self.atom(*left)?, self.atom(*right)?);
                    let met = match test {
                        Test::Less => left < right,
                        Test::Greater => left > right,
                    };
                    self.execute(if met { then } else { otherwise })?;
                }
                Statement::ForRange { variable, count, body } => {
                    for i in 0..*count {
                        self.variables.insert(variable, i);
                        self.execute(body)?;
                    }
                }
                Statement::ForItems { variable, body } => {
                    for item in self.items.clone() {
                        self.variables.insert(variable, item);
                        self.execute(body)?;
                    }
                }
            }
        }
        Some(())
    }

    fn atom(&self, atom: Atom) -> Option<i64> {
        match atom {
            Atom::Number(number) => Some(number),
            Atom::Variable(name) => self.variables.get(name).copied(),
            Atom::Item(index) => self.items.get(index).copied(),
            Atom::Length if self.items.is_empty() => None,
            Atom::Length => Some(self.items.len() as i64),
            Atom::Sum if self.items.is_empty() => None,
            Atom::Sum => Some(self.items.iter().sum()),
        }
    }

    /// Products, quotients and remainders first, from left to right.
    fn value(&self, expression: &Expression) -> Option<i64> {
        let mut sum = 0;
        let mut sign = 1;
        let mut product = self.atom(expression.first)?;
        for &(operator, atom) in &expression.rest {
            let atom = self.atom(atom)?;
            match operator {
                Operator::Add | Operator::Subtract => {
                    sum += sign * product;
                    sign = if matches!(operator, Operator::Add) { 1 } else { -1 };
                    product = atom;
                }
                _ => product = operator.apply(product, atom)?,
            }
        }
        in_range(sum + sign * product)
    }
}

impl Operator {
    fn apply(self, left: i64, right: i64) -> Option<i64> {
        match self {
            Operator::Add => left.checked_add(right),
            Operator::Subtract => left.checked_sub(right),
            Operator::Multiply => left.checked_mul(right),
            Operator::Divide => left.checked_div(right),
            Operator::Remainder => left.checked_rem(right),
        }
    }

    fn symbol(self) -> &'static str {
        match self {
            Operator::Add => "+",
            Operator::Subtract => "-",
            Operator::Multiply => "*",
            Operator::Divide => "//",
            Operator::Remainder => "%",
        }
    }
}

impl Expression {
    fn text(&self) -> String {
        let rest = self.rest.iter().map(|(operator, atom)| format!(" {} {}", operator.symbol(), atom.text()));
        std::iter::once(self.first.text()).chain(rest).collect()
    }
}

impl Atom {
    fn text(self) -> String {
        match self {
            Atom::Number(number) => number.to_string(),
            Atom::Variable(name) => name.to_owned(),
            Atom::Item(index) => format!("{LIST}[{index}]"),
            Atom::Length => format!("len({LIST})"),
            Atom::Sum => format!("sum({LIST})"),
        }
    }
}

fn in_range(number: i64) -> Option<i64> {
    (0..=LIMIT).contains(&number).then_some(number)
}

fn line(text: &mut String, depth: usize, content: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{:width$}{content}", "", width = 4 * depth);
}

fn write_block(text: &mut String, statements: &[Statement], depth: usize) {
    for statement in statements {
        match statement {
            Statement::Set(name, value) => line(text, depth, &format!("{name} = {}", value.text())),
            Statement::Change(name, operator, value) => {
                line(text, depth, &format!("{name} {}= {}", operator.symbol(), value.text()));
            }
            Statement::SetList(items) => {
                let items: Vec<String> = items.iter().map(i64::to_string).collect();
                line(text, depth, &format!("{LIST} = [{}]", items.join(", ")));
            }
            Statement::Append(value) => line(text, depth, &format!("{LIST}.append({})", value.text())),
            Statement::If { left, test, right, then, otherwise } => {
                let test = match test {
                    Test::Less => "<",
                    Test::Greater => ">",
                };
                line(text, depth, &format!("if {} {test} {}:", left.text(), right.text()));
                write_block(text, then, depth + 1);
                if !otherwise.is_empty() {
                    line(text, depth, "else:");
                    write_block(text, otherwise, depth + 1);
                }
            }
            Statement::ForRange { variable, count, body } => {
                line(text, depth, &format!("for {variable} in range({count}):"));
                write_block(text, body, depth + 1);
            }
            Statement::ForItems { variable, body } => {
                line(text, depth, &format!("for {variable} in {LIST}:"));
                write_block(text, body, depth + 1);
            }
        }
    }
}
