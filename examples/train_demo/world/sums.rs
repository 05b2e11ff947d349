//! Sums of two numbers, worked by place value: `47 + 38 = 40 + 30 + 7 + 8 = 70 + 15 = 85`.

use super::dice::{Dice, scramble};

/// a + b, both of so many digits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sum {
    pub(crate) a: u64,
    pub(crate) b: u64,
    pub(crate) digits: u32,
}

/// How often the numbers of a sum have one, two, three, four digits.
const SHARES: [f64; 4] = [0.1, 0.4, 0.3, 0.2];

/// Of the sums of two and of three digits, one of so many is kept out of training. Those of one digit are all learnt, and
/// of those of four digits hardly any comes twice.
const HELD_OUT_ONE_OF: u64 = 5;

/// Which sums are for training.
pub(crate) struct Sums {
    /// How many there are, by digits.
    allowed: [usize; 4],
}

fn range(digits: u32) -> (u64, u64) {
    let low = if digits == 1 { 0 } else { 10u64.pow(digits - 1) };
    (low, 10u64.pow(digits))
}

fn is_held_out(a: u64, b: u64, digits: u32) -> bool {
    matches!(digits, 2 | 3) && scramble(a * 10_007 + b).is_multiple_of(HELD_OUT_ONE_OF)
}

impl Sums {
    pub(crate) fn new() -> Self {
        let allowed = [1, 2, 3, 4].map(|digits| {
            let (low, high) = range(digits);
            let all = ((high - low) * (high - low)) as usize;
            let held_out = match digits {
                2 | 3 => {
                    let of = |a| (low..high).filter(|b| is_held_out(a, *b, digits)).count();
                    (low..high).map(of).sum()
                }
                _ => 0,
            };
            all - held_out
        });
        Self { allowed }
    }

    /// A sum for training.
    pub(crate) fn draw(&self, dice: &mut Dice) -> Sum {
        let index = dice.weighted(&SHARES);
        let digits = index as u32 + 1;
        dice.nats += (self.allowed[index] as f64).ln();
        any(digits, dice, |a, b| !is_held_out(a, b, digits))
    }

    /// A sum that was never in training; of one digit: any, of four: one that hardly was.
    pub(crate) fn unseen(&self, digits: u32, dice: &mut Dice) -> Sum {
        any(digits, dice, |a, b| is_held_out(a, b, digits) || !matches!(digits, 2 | 3))
    }
}

fn any(digits: u32, dice: &mut Dice, wanted: impl Fn(u64, u64) -> bool) -> Sum {
    let (low, high) = range(digits);
    let mut number = || low + (dice.uncounted() * (high - low) as f64) as u64;
    loop {
        let (a, b) = (number(), number());
        if wanted(a, b) {
            return Sum { a, b, digits };
        }
    }
}

impl Sum {
    /// `47 + 38`.
    pub(crate) fn asked(&self) -> String {
        format!("{} + {}", self.a, self.b)
    }

    /// With all steps: places apart, places together, the sum.
    pub(crate) fn worked(&self) -> String {
        if self.digits == 1 {
            return format!("{} = {}", self.asked(), self.a + self.b);
        }
        let places: Vec<u64> = (0..self.digits).rev().map(|place| 10u64.pow(place)).collect();
        let part = |x: u64, place: u64| x / place % 10 * place;
        let apart: Vec<String> = places
            .iter()
            .flat_map(|place| [part(self.a, *place).to_string(), part(self.b, *place).to_string()])
            .collect();
        let together: Vec<String> =
            places.iter().map(|place| (part(self.a, *place) + part(self.b, *place)).to_string()).collect();
        format!("{} = {} = {} = {}", self.asked(), apart.join(" + "), together.join(" + "), self.a + self.b)
    }
}
