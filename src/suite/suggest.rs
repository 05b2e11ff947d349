//! "Did you mean": the known word nearest to a mistyped one.
//!
//! Levenshtein's edit distance over characters; a word is offered only if at most a third of it had to be
//! changed, so that nothing far-fetched is proposed. Knows nothing of what the words stand for.

/// A help line that offers the nearest of `known`, or `None` if none is near.
/// Of several at the same distance, the first is offered.
pub(crate) fn did_you_mean(word: &str, known: &[impl AsRef<str>]) -> Option<String> {
    let (distance, nearest) = known
        .iter()
        .map(|k| (edit_distance(word, k.as_ref()), k.as_ref()))
        .min_by_key(|(distance, _)| *distance)?;
    let longest = word.chars().count().max(nearest.chars().count());
    (distance * 3 <= longest.max(3)).then(|| format!("did you mean `{nearest}`?"))
}

/// Fewest insertions, deletions and substitutions of characters that turn `a` into `b`.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    // `row[j]` is the distance between the part of `a` read so far and the first j characters of `b`.
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, &to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_of_known_pairs() {
        for (a, b, expect) in [
            ("", "", 0),
            ("", "abc", 3),
            ("kitten", "sitting", 3),
            ("flaw", "lawn", 2),
            ("größe", "grösse", 2),
        ] {
            assert_eq!(edit_distance(a, b), expect, "{a} {b}");
            assert_eq!(edit_distance(b, a), expect, "{b} {a}");
        }
    }

    #[test]
    fn offers_only_what_is_near() {
        let known = ["name", "language", "data"];
        assert_eq!(did_you_mean("lanugage", &known).as_deref(), Some("did you mean `language`?"));
        assert_eq!(did_you_mean("dat", &known).as_deref(), Some("did you mean `data`?"));
        assert_eq!(did_you_mean("quantity", &known), None);
        assert_eq!(did_you_mean("x", &Vec::<String>::new()), None);
    }
}
