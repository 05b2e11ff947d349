//! Sums, differences and products of numbers of growing length.

use serde_json::json;

use super::Item;
use super::numbers::wrong_numbers;
use super::random::Random;

/// "What is 47 + 38?" with numbers of `digits` digits, the three operations in turn. The second factor of a
/// product has one digit; no difference is negative.
pub(super) fn draw(random: &mut Random, digits: u32, turn: usize) -> Option<Item> {
    let low = if digits == 1 { 2 } else { 10_i64.checked_pow(digits.checked_sub(1)?)? };
    let high = 10_i64.checked_pow(digits)? - 1;
    let (first, second) = (random.between(low, high), random.between(low, high));
    let (sign, first, second, answer) = match turn % 3 {
        0 => ('+', first, second, first + second),
        1 => ('-', first.max(second), first.min(second), first.abs_diff(second) as i64),
        _ => {
            let factor = random.between(2, 9);
            ('*', first, factor, first.checked_mul(factor)?)
        }
    };
    // Differences like 51 - 50 are no harder than those of one digit.
    if digits > 1 && answer < 10 {
        return None;
    }
    // A carry dropped or taken twice in any place; in a product also one time too many or too few. In one
    // digit there is nothing to carry, but one can miscount.
    let mut slips: Vec<i64> = (1..=digits)
        .filter_map(|place| 10_i64.checked_pow(place))
        .flat_map(|carry| [answer + carry, answer - carry])
        .collect();
    if sign == '*' {
        slips.extend([answer + first, answer - first]);
    }
    if digits == 1 {
        slips.extend([answer + 3, answer - 3, answer + 4, answer - 4]);
    }
    Some(Item {
        text: format!("What is {first} {sign} {second}?"),
        answer: answer.to_string(),
        wrong: wrong_numbers(random, answer, &slips, &[1, 2])?,
        record: json!({ "operands": [first, second], "operator": sign.to_string(), "answer": answer }),
    })
}

#[cfg(test)]
mod tests;
