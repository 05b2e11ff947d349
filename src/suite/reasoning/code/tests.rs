//! Programs run twice more: by an interpreter that reads their text, and by Python itself where it is there.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use crate::suite::reasoning::tests::asked;

/// What CPython 3.11 prints for these.
const RECORDED: &[(&str, &str)] = &[
    ("x = 17\nprint(x - 2 * 3 + 1)", "12"),
    ("x = 2\nx = x + 3 * 4 // 5 % 6\nprint(x)", "4"),
    ("x = 50\nx -= 7 * 2\nx %= 8\nx *= 5\nx //= 3\nprint(x)", "6"),
    ("a = 7\nb = 7\nif a < b:\n    a += 1\nelse:\n    b += 5\n    a = b\nprint(a - b % 5)", "10"),
    ("a = 7\nif a > 3:\n    a = a * a\nprint(a)", "49"),
    ("a = 0\nfor i in range(5):\n    a += i\n    a += 1\nprint(a + i)", "19"),
    (
        "items = [4, 9, 2]\nitems.append(items[1] - 1)\nn = 1\nfor i in items:\n    n += i\nprint(n + len(items) * 100)",
        "424",
    ),
    ("items = [4, 9]\nx = sum(items)\nitems.append(x)\nprint(sum(items) - items[0])", "22"),
    ("k = 3\nfor i in range(4):\n    k = k * 2 - i\nprint(k)", "37"),
    ("a = 100\nb = a // 7 * 7 + a % 7\nprint(a - b - 0)", "0"),
];

/// An interpreter of text: lines with an indentation, expressions as tokens.
#[derive(Default)]
struct Interpreter {
    numbers: BTreeMap<String, i64>,
    list: Vec<i64>,
    printed: Vec<String>,
}

impl Interpreter {
    fn run(text: &str) -> String {
        let mut interpreter = Self::default();
        let lines: Vec<(usize, &str)> =
            text.lines().map(|line| (line.len() - line.trim_start().len(), line.trim_start())).collect();
        interpreter.block(&lines);
        interpreter.printed.join("\n")
    }

    fn block(&mut self, lines: &[(usize, &str)]) {
        let mut at = 0;
        while at < lines.len() {
            let (indentation, line) = lines[at];
            let body_of = |start: usize| {
                let length = lines[start..].iter().take_while(|(inner, _)| *inner > indentation).count();
                &lines[start..start + length]
            };
            if let Some(condition) = line.strip_prefix("if ") {
                let body = body_of(at + 1);
                at += 1 + body.len();
                let met = self.condition(condition.strip_suffix(':').unwrap());
                if met {
                    self.block(body);
                }
                if lines.get(at).is_some_and(|next| *next == (indentation, "else:")) {
                    let body = body_of(at + 1);
                    at += 1 + body.len();
                    if !met {
                        self.block(body);
                    }
                }
            } else if let Some(rest) = line.strip_prefix("for ") {
                let (name, over) = rest.strip_suffix(':').unwrap().split_once(" in ").unwrap();
                let body = body_of(at + 1);
                at += 1 + body.len();
                let over: Vec<i64> = match over.strip_prefix("range(") {
                    Some(count) => (0..count.strip_suffix(')').unwrap().parse().unwrap()).collect(),
                    None if over == "items" => self.list.clone(),
                    None => panic!("{over}"),
                };
                for value in over {
                    self.numbers.insert(name.to_owned(), value);
                    self.block(body);
                }
            } else {
                self.simple(line);
                at += 1;
            }
        }
    }

    fn condition(&self, text: &str) -> bool {
        match text.split(' ').collect::<Vec<_>>()[..] {
            [left, "<", right] => self.value(left) < self.value(right),
            [left, ">", right] => self.value(left) > self.value(right),
            _ => panic!("not understood: {text}"),
        }
    }

    fn simple(&mut self, line: &str) {
        if let Some(shown) = line.strip_prefix("print(") {
            let value = self.value(shown.strip_suffix(')').unwrap());
            self.printed.push(value.to_string());
        } else if let Some(added) = line.strip_prefix("items.append(") {
            let value = self.value(added.strip_suffix(')').unwrap());
            self.list.push(value);
        } else if let Some(list) = line.strip_prefix("items = [") {
            self.list = list.strip_suffix(']').unwrap().split(", ").map(|n| n.parse().unwrap()).collect();
        } else {
            let (name, rest) = line.split_once(' ').unwrap();
            let (sign, right) = rest.split_once(' ').unwrap();
            let right = self.value(right);
            let value = match sign.strip_suffix('=').unwrap() {
                "" => right,
                operator => calculate(self.numbers[name], operator, right),
            };
            self.numbers.insert(name.to_owned(), value);
        }
    }

    /// Splits at the last `+` or `-`, else at the last `*`, `//` or `%`: what is done last comes last.
    fn value(&self, text: &str) -> i64 {
        let tokens: Vec<&str> = text.split(' ').collect();
        for operators in [&["+", "-"][..], &["*", "//", "%"]] {
            if let Some(at) = tokens.iter().rposition(|token| operators.contains(token)) {
                let (left, right) = (tokens[..at].join(" "), tokens[at + 1..].join(" "));
                return calculate(self.value(&left), tokens[at], self.value(&right));
            }
        }
        match text {
            "len(items)" => i64::try_from(self.list.len()).unwrap(),
            "sum(items)" => self.list.iter().sum(),
            _ => match text.strip_prefix("items[") {
                Some(index) => self.list[index.strip_suffix(']').unwrap().parse::<usize>().unwrap()],
                None => text.parse().unwrap_or_else(|_| self.numbers[text]),
            },
        }
    }
}

fn calculate(left: i64, operator: &str, right: i64) -> i64 {
    match operator {
        "+" => left + right,
        "-" => left - right,
        "*" => left * right,
        "//" => left.div_euclid(right),
        "%" => left.rem_euclid(right),
        _ => panic!("{operator}"),
    }
}

/// Each program's output by the machine's own Python; `None` where there is none.
fn python(programs: &[&str]) -> Option<Vec<String>> {
    let driver = "import contextlib, io, json, sys\n\
        outputs = []\n\
        for program in json.load(sys.stdin):\n    \
            output = io.StringIO()\n    \
            with contextlib.redirect_stdout(output):\n        \
                exec(program, {})\n    \
            outputs.append(output.getvalue())\n\
        json.dump(outputs, sys.stdout)\n";
    let mut child = Command::new("python3")
        .args(["-I", "-c", driver])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    // A `python3` that does not start closes its input at once; its status tells.
    let _ = child.stdin.take().unwrap().write_all(serde_json::to_string(programs).unwrap().as_bytes());
    let output = child.wait_with_output().unwrap();
    let works = Command::new("python3").args(["-I", "-c", ""]).status().is_ok_and(|status| status.success());
    assert!(output.status.success() || !works, "a program does not run");
    output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
}

fn program(text: &str) -> &str {
    text.strip_prefix("What does this Python program print?\n").unwrap()
}

#[test]
fn the_second_interpreter_is_like_python() {
    for (text, printed) in RECORDED {
        assert_eq!(Interpreter::run(text), *printed, "{text}");
    }
}

#[test]
fn the_second_interpreter_agrees() {
    for asked in asked("code") {
        let program = program(&asked.text);
        assert_eq!(Interpreter::run(program), asked.answer, "{program}");
        assert_eq!(program.lines().count(), asked.level as usize, "{program}");
    }
}

/// Where no Python is installed, the recorded outputs above stand in for it.
#[test]
fn python_agrees() {
    let asked = asked("code");
    let programs: Vec<&str> =
        asked.iter().map(|asked| program(&asked.text)).chain(RECORDED.iter().map(|r| r.0)).collect();
    let Some(outputs) = python(&programs) else { return };
    assert_eq!(outputs.len(), programs.len());
    let expected = asked.iter().map(|asked| asked.answer.as_str()).chain(RECORDED.iter().map(|r| r.1));
    for ((program, printed), expected) in programs.iter().zip(&outputs).zip(expected) {
        assert_eq!(printed, &format!("{expected}\n"), "{program}");
    }
}

#[test]
fn programs_use_the_whole_language() {
    let all: String = asked("code").iter().map(|asked| program(&asked.text).to_owned() + "\n").collect();
    for form in [
        "if ",
        "else:",
        "for i in range(",
        "for i in items:",
        "items = [",
        ".append(",
        "len(",
        "sum(",
        "items[",
        " < ",
        " > ",
        " + ",
        " - ",
        " * ",
        " // ",
        " % ",
        " += ",
        " -= ",
        " *= ",
    ] {
        assert!(all.matches(form).count() > 20, "{form:?} hardly occurs");
    }
}
