//! Lists compared item by item.

use std::cmp::Ordering;

use crate::suite::reasoning::tests::asked;

/// Whether `list` has the items of `given` in the order asked for.
fn is_sorted(instruction: &str, given: &[&str], list: &[&str]) -> (bool, bool) {
    let number = |text: &str| text.parse::<u32>().unwrap();
    let in_order = list.windows(2).all(|pair| {
        let order = match instruction {
            "Sort these numbers from smallest to largest" => number(pair[0]).cmp(&number(pair[1])),
            "Sort these numbers from largest to smallest" => number(pair[1]).cmp(&number(pair[0])),
            "Sort these words alphabetically" => pair[0].cmp(pair[1]),
            other => panic!("{other}"),
        };
        order == Ordering::Less
    });
    let same_items = list.len() == given.len() && given.iter().all(|item| list.contains(item));
    (in_order, same_items)
}

#[test]
fn only_the_answer_is_in_order_and_complete() {
    let mut instructions = std::collections::BTreeSet::new();
    for asked in asked("sorting") {
        let (instruction, given) = asked.text.strip_suffix('.').unwrap().split_once(": ").unwrap();
        let given: Vec<&str> = given.split(", ").collect();
        let judge = |list: &str| is_sorted(instruction, &given, &list.split(", ").collect::<Vec<_>>());
        assert_eq!(given.len(), asked.level as usize);
        assert_eq!(judge(&asked.answer), (true, true), "{}", asked.text);
        assert_ne!(asked.answer, given.join(", "), "already sorted");
        if !asked.wrong.is_empty() {
            let mut wrong: Vec<(bool, bool)> = asked.wrong.iter().map(|list| judge(list)).collect();
            wrong.sort_unstable();
            assert_eq!(
                wrong,
                [(false, false), (false, true), (true, false)],
                "{}: {:?}",
                asked.text,
                asked.wrong
            );
        }
        instructions.insert(instruction.to_owned());
    }
    assert_eq!(instructions.len(), 3);
}
