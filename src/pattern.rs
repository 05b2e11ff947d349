//! Names chosen by pattern: `*` stands for anything, and a list may exclude. It must not know what is named.

/// Whether `text` is what `pattern` says, each `*` standing for any number of characters.
pub fn glob(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut left) = text.strip_prefix(start) else { return false };
    // Every stretch between two stars as early as it can be; the last where the text ends.
    let (between, end) = rest.rsplit_once('*').unwrap_or(("", rest));
    for part in between.split('*') {
        match left.find(part) {
            Some(at) => left = &left[at + part.len()..],
            None => return false,
        }
    }
    left.ends_with(end)
}

/// Whether a list of patterns chooses `text`: some pattern without `!` matches (or there is none), and no pattern behind
/// a `!` does.
pub fn chooses<S: AsRef<str>>(patterns: &[S], text: &str) -> bool {
    let excludes = |pattern: &S| pattern.as_ref().strip_prefix('!').is_some_and(|p| glob(p, text));
    let mut wanted =
        patterns.iter().map(AsRef::as_ref).filter(|pattern| !pattern.starts_with('!')).peekable();
    let included = wanted.peek().is_none() || wanted.any(|pattern| glob(pattern, text));
    included && !patterns.iter().any(excludes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, text, expected) in [
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "acd", false),
            ("*", "", true),
            ("*Q4*", "model-Q4_K_M", true),
            ("*b*b", "ab", false),
            ("*b*b", "abab", true),
            ("abc", "abc", true),
            ("abc", "abcd", false),
            ("ä*", "äö", true),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn lists_include_and_exclude() {
        let none: [&str; 0] = [];
        assert!(chooses(&none, "anything"));
        assert!(chooses(&["a*", "b*"], "bc") && !chooses(&["a*", "b*"], "cb"));
        assert!(chooses(&["!a*"], "bc") && !chooses(&["!a*"], "ab"));
        assert!(!chooses(&["*", "!*Q2*"], "x-Q2_K") && chooses(&["*", "!*Q2*"], "x-Q4_K"));
    }
}
