//! Sums read from the question's text and worked out digit by digit, as on paper.

use crate::suite::reasoning::tests::{asked, numbers};

/// Least significant first.
fn digits(number: i128) -> Vec<i128> {
    number.to_string().bytes().rev().map(|b| i128::from(b - b'0')).collect()
}

fn written(mut digits: Vec<i128>) -> String {
    while digits.len() > 1 && digits.last() == Some(&0) {
        digits.pop();
    }
    digits.iter().rev().map(|d| char::from(b'0' + u8::try_from(*d).unwrap())).collect()
}

/// Column by column with a carry, which may be negative.
fn columns(count: usize, column: impl Fn(usize) -> i128) -> String {
    let mut carry = 0;
    let mut result = Vec::new();
    for place in 0..count {
        let sum = column(place) + carry;
        result.push(sum.rem_euclid(10));
        carry = sum.div_euclid(10);
    }
    assert_eq!(carry, 0);
    written(result)
}

fn on_paper(first: i128, sign: char, second: i128) -> String {
    let (a, b) = (digits(first), digits(second));
    let digit = |digits: &[i128], place: usize| digits.get(place).copied().unwrap_or(0);
    let width = a.len() + b.len() + 1;
    match sign {
        '+' => columns(width, |place| digit(&a, place) + digit(&b, place)),
        '-' => columns(width, |place| digit(&a, place) - digit(&b, place)),
        '*' => columns(width, |place| (0..=place).map(|i| digit(&a, i) * digit(&b, place - i)).sum()),
        other => panic!("{other}"),
    }
}

#[test]
fn paper_agrees() {
    assert_eq!(
        (on_paper(999, '+', 1), on_paper(1000, '-', 1), on_paper(99, '*', 9)),
        ("1000".into(), "999".into(), "891".into())
    );
    let mut signs = std::collections::BTreeMap::new();
    for asked in asked("arithmetic") {
        let sum = asked.text.strip_prefix("What is ").unwrap().strip_suffix('?').unwrap();
        let [first, sign, second] = sum.split(' ').collect::<Vec<_>>()[..] else { panic!("{sum}") };
        let sign = sign.parse().unwrap();
        let (first, second) = (numbers(first)[0], numbers(second)[0]);
        assert_eq!(on_paper(first, sign, second), asked.answer, "{sum}");
        assert_eq!(first.to_string().len(), asked.level as usize, "{sum}");
        assert_eq!(second.to_string().len(), if sign == '*' { 1 } else { asked.level as usize }, "{sum}");
        *signs.entry(sign).or_insert(0) += 1;
    }
    let [few, .., many] = {
        let mut n: Vec<i32> = signs.into_values().collect();
        n.sort_unstable();
        n
    }[..] else {
        panic!()
    };
    assert!(few * 10 > many * 8, "each operation about as often: {few} to {many}");
}
