//! Days counted one by one on a calendar with months and leap years.

use super::WEEKDAYS;
use crate::suite::reasoning::tests::{asked, numbers};

fn month_length(year: i128, month: i128) -> i128 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 => 28 + i128::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn next_day([year, month, day]: [i128; 3]) -> [i128; 3] {
    if day < month_length(year, month) {
        [year, month, day + 1]
    } else if month < 12 {
        [year, month + 1, 1]
    } else {
        [year + 1, 1, 1]
    }
}

fn previous_day([year, month, day]: [i128; 3]) -> [i128; 3] {
    if day > 1 {
        [year, month, day - 1]
    } else if month > 1 {
        [year, month - 1, month_length(year, month - 1)]
    } else {
        [year - 1, 12, 31]
    }
}

fn solve(text: &str) -> (String, i128) {
    let words: Vec<&str> = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').collect();
    if let Some(today) = WEEKDAYS.iter().position(|day| words.contains(day)) {
        let distance = numbers(text)[0];
        let back = words.contains(&"ago");
        let mut day = today;
        for _ in 0..distance {
            day = match (back, day) {
                (true, 0) => 6,
                (true, day) => day - 1,
                (false, 6) => 0,
                (false, day) => day + 1,
            };
        }
        return (WEEKDAYS[day].to_owned(), distance);
    }
    let [distance, year, month, day] = numbers(text)[..] else { panic!("{text}") };
    let step = if words.contains(&"after") { next_day } else { previous_day };
    assert!(words.contains(&"after") != words.contains(&"before"), "{text}");
    let date = (0..distance).fold([year, month, day], |date, _| step(date));
    (format!("{:04}-{:02}-{:02}", date[0], date[1], date[2]), distance)
}

#[test]
fn counting_day_by_day_agrees() {
    for asked in asked("calendar") {
        let (answer, distance) = solve(&asked.text);
        assert_eq!(answer, asked.answer, "{}", asked.text);
        let level = i128::from(asked.level);
        assert!(distance <= level && distance * 3 > level, "{}", asked.text);
        for wrong in asked.wrong.iter().filter(|_| answer.contains('-')) {
            let [year, month, day] = numbers(wrong)[..] else { panic!("{wrong}") };
            assert!(
                (1..=12).contains(&month) && (1..=month_length(year, month)).contains(&day),
                "{wrong} exists"
            );
        }
    }
}

/// Every day of 140 years, stepping from 1970-01-01.
#[test]
fn days_are_written_as_the_calendar_has_them() {
    let mut date = [1970, 1, 1];
    for day in 0..51_135 {
        assert_eq!(super::written(day), format!("{:04}-{:02}-{:02}", date[0], date[1], date[2]));
        date = next_day(date);
        assert_eq!(previous_day(next_day(date)), date);
    }
    assert_eq!(
        (super::written(super::FIRST_DAY), super::written(super::LAST_DAY)),
        ("1980-01-01".into(), "2039-12-31".into())
    );
}
