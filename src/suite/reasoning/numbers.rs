//! Wrong numbers that look as good as the right one.
//!
//! Three wrong numbers that are each one slip away from the right one would give it away: it is the one that
//! all resemble. So the four form a square: the right answer, a slip, and both of them moved by one and the
//! same small step. No corner of a square is special.

use super::random::Random;

/// Wrong answers made of one of the `slips` and one of the `steps` (each taken up or down): none negative,
/// none equal to the answer or to each other, all as long as the answer where this can be had, otherwise at
/// most one digit longer or shorter. `None` if no slip fits with any step.
pub(super) fn wrong_numbers(
    random: &mut Random,
    answer: i64,
    slips: &[i64],
    steps: &[i64],
) -> Option<[String; 3]> {
    let mut slips = slips.to_vec();
    random.shuffle(&mut slips);
    let mut steps: Vec<i64> = steps.iter().flat_map(|&step| [step, -step]).collect();
    random.shuffle(&mut steps);
    let digits = |number: i64| number.to_string().len();
    for tolerance in [0, 1] {
        for &slip in &slips {
            for &step in &steps {
                let wrong = [slip, answer + step, slip + step];
                let fits = |&number: &i64| {
                    number >= 0 && number != answer && digits(number).abs_diff(digits(answer)) <= tolerance
                };
                if step != 0 && wrong[0] != wrong[1] && wrong.iter().all(fits) {
                    let mut wrong = wrong.map(|number| number.to_string());
                    random.shuffle(&mut wrong);
                    return Some(wrong);
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_four_form_a_square() {
        for seed in 0..200 {
            let mut random = Random::of(&[seed]);
            let wrong = wrong_numbers(&mut random, 47, &[57, 37], &[1, 2]).unwrap();
            let mut all: Vec<i64> = wrong.iter().map(|text| text.parse().unwrap()).collect();
            all.push(47);
            all.sort_unstable();
            // Two pairs with the same distance, and a distance of ten between the pairs.
            assert_eq!((all[1] - all[0], all[2] - all[0]), (all[3] - all[2], 10), "{all:?}");
        }
    }

    #[test]
    fn lengths_are_kept_where_they_can_be() {
        for seed in 0..200 {
            let mut random = Random::of(&[seed]);
            let wrong = wrong_numbers(&mut random, 9, &[12, 6, -4], &[1]).unwrap();
            assert!(wrong.iter().all(|text| text.len() == 1), "{wrong:?}");
            let wrong = wrong_numbers(&mut random, 99, &[108], &[1]).unwrap();
            assert!(wrong.contains(&"108".to_owned()), "{wrong:?}");
        }
        let mut random = Random::of(&[0]);
        assert_eq!(wrong_numbers(&mut random, 9, &[9], &[1]), None, "a slip that is none");
        assert_eq!(wrong_numbers(&mut random, 9, &[1234], &[1]), None, "too long");
        assert_eq!(wrong_numbers(&mut random, 5, &[6], &[1]), None, "a step onto the slip or back");
        assert_eq!(wrong_numbers(&mut random, 5, &[-6], &[1]), None, "negative");
    }
}
