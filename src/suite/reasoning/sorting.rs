//! Numbers and words to be put in order.

use serde_json::json;

use super::Item;
use super::random::Random;
use super::words::FIVE_LETTERS;

/// Numbers upwards, numbers downwards and words, in turn.
pub(super) const KINDS: usize = 3;

/// A list of so many items, no two of them equal, all equally long.
///
/// The wrong answers form a square: two neighbours exchanged, one item that is not in the list in the place
/// of one that is, and both. So an order that looks right is not enough, nor are the right items.
pub(super) fn draw(random: &mut Random, count: u32, turn: usize) -> Option<Item> {
    // Ranks in a scale that is sorted by itself: numbers by value, words by their place in the list.
    let (scale, instruction): (Vec<String>, &str) = match turn % KINDS {
        0 => ((10..100).map(|n: u32| n.to_string()).collect(), "Sort these numbers from smallest to largest"),
        1 => ((10..100).map(|n: u32| n.to_string()).collect(), "Sort these numbers from largest to smallest"),
        _ => (FIVE_LETTERS.map(str::to_owned).to_vec(), "Sort these words alphabetically"),
    };
    let count = count as usize;
    let ranks: Vec<usize> = (0..scale.len()).collect();
    let shown = random.sample(&ranks, count);
    let mut sorted = shown.clone();
    sorted.sort_unstable();
    if turn % KINDS == 1 {
        sorted.reverse();
    }
    if shown == sorted || count < 2 {
        return None;
    }
    let replaced = random.below(count);
    let replacement = neighbour(random, &sorted, replaced, scale.len())?;
    let with_replacement = |list: &[usize]| -> Vec<usize> {
        list.iter().map(|&rank| if rank == sorted[replaced] { replacement } else { rank }).collect()
    };
    let at = random.below(count - 1);
    let mut exchanged = sorted.clone();
    exchanged.swap(at, at + 1);
    let written = |list: &[usize]| -> String {
        list.iter().filter_map(|&rank| scale.get(rank)).map(String::as_str).collect::<Vec<_>>().join(", ")
    };
    let mut wrong = [&exchanged[..], &with_replacement(&sorted), &with_replacement(&exchanged)].map(&written);
    random.shuffle(&mut wrong);
    let answer = written(&sorted);
    Some(Item {
        text: format!("{instruction}: {}.", written(&shown)),
        record: json!({ "instruction": instruction, "items": written(&shown), "answer": answer }),
        answer,
        wrong,
    })
}

/// A rank near that of the item at `place` which could stand there without breaking the order.
fn neighbour(random: &mut Random, sorted: &[usize], place: usize, scale: usize) -> Option<usize> {
    let rank = *sorted.get(place)?;
    let near: Vec<usize> = (rank.saturating_sub(3)..(rank + 4).min(scale))
        .filter(|candidate| {
            let others = sorted.iter().filter(|&&other| other != rank);
            !sorted.contains(candidate)
                && others.into_iter().all(|other| (other < candidate) == (other < &rank))
        })
        .collect();
    (!near.is_empty()).then(|| random.pick(&near))
}

#[cfg(test)]
mod tests;
