//! Days of the week and dates that lie some days ahead or back.

use serde_json::json;

use super::Item;
use super::random::Random;

/// Weekdays and dates in turn.
pub(super) const KINDS: usize = 2;

const WEEKDAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
/// Dates that a question starts from, as days since 1970-01-01: 1980-01-01 to 2039-12-31.
const FIRST_DAY: i64 = 3652;
const LAST_DAY: i64 = 25_566;

/// A question over at most `days` days, and over more than a third of them.
pub(super) fn draw(random: &mut Random, days: u32, turn: usize) -> Option<Item> {
    let distance = random.between(i64::from(days / 3 + 1), i64::from(days));
    let ahead = random.chance(1, 2);
    if turn.is_multiple_of(KINDS) { weekday(random, distance, ahead) } else { date(random, distance, ahead) }
}

/// "Today is Tuesday. What day of the week will it be in 12 days?"
fn weekday(random: &mut Random, distance: i64, ahead: bool) -> Option<Item> {
    let today = random.between(0, 6);
    let signed = if ahead { distance } else { -distance };
    let name = |day: i64| WEEKDAYS.get(day.rem_euclid(7) as usize).map(|&name| name.to_owned());
    // A square on the circle of seven: miscounted by one, by two or three, and by both.
    let step = if random.chance(1, 2) { 1 } else { -1 };
    let slip = random.between(2, 3) * if random.chance(1, 2) { 1 } else { -1 };
    let answer = today + signed;
    let mut wrong = [name(answer + step)?, name(answer + slip)?, name(answer + step + slip)?];
    random.shuffle(&mut wrong);
    let start = name(today)?;
    let text = if ahead {
        format!("Today is {start}. What day of the week will it be in {distance} days?")
    } else {
        format!("Today is {start}. What day of the week was it {distance} days ago?")
    };
    let answer = name(answer)?;
    let record = json!({ "today": start, "days": signed, "answer": answer });
    Some(Item { text, answer, wrong, record })
}

/// "What date is 25 days after 2023-03-14?"
fn date(random: &mut Random, distance: i64, ahead: bool) -> Option<Item> {
    let start = random.between(FIRST_DAY, LAST_DAY);
    let signed = if ahead { distance } else { -distance };
    let answer = start + signed;
    // A square: counted one day too far or too short, a month taken for longer or shorter than it is or
    // missed, and both.
    let step = if random.chance(1, 2) { 1 } else { -1 };
    let slip = random.pick(&[2, 3, 30, 31]) * if random.chance(1, 2) { 1 } else { -1 };
    let mut wrong = [answer + step, answer + slip, answer + step + slip].map(written);
    random.shuffle(&mut wrong);
    let (start, answer) = (written(start), written(answer));
    let direction = if ahead { "after" } else { "before" };
    Some(Item {
        text: format!("What date is {distance} days {direction} {start}?"),
        record: json!({ "start": start, "days": signed, "answer": answer }),
        answer,
        wrong,
    })
}

/// A day since 1970-01-01 as `YYYY-MM-DD` of the Gregorian calendar, for days from 0 to the year 9999.
///
/// Years are counted from March, so that a leap day is the last of its year; a month then begins after
/// (153·m + 2)/5 days (Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn written(day: i64) -> String {
    let from_march = day + 719_468;
    let era = from_march.div_euclid(146_097);
    let day_of_era = from_march.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day_of_month:02}")
}

#[cfg(test)]
mod tests;
