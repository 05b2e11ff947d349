//! Foreign text as Markdown text: nothing in it opens a tag, ends a cell, makes a link or calls anyone.
//!
//! Signs with a meaning become character references, which mean the sign and nothing else, in Markdown and inside HTML
//! alike. Names of people, issues, commits and addresses are looked for in the finished page, where a reference is the
//! sign again: there an invisible joiner inside them keeps them text. It must not know what is written.

use crate::report::format::visible;
use crate::report::html;

/// Shows nothing, breaks no line, and belongs to no name. [`visible`] leaves none of a foreign text's own.
pub(super) const JOINER: char = '\u{2060}';
/// Signs before the name or number of a user, an issue, a merge request, a label …
const CALLING: [char; 8] = ['@', '#', '!', '$', '%', '~', '&', '^'];
/// Words that make an identifier together with a hyphen and a number.
const IDENTIFIERS: [&str; 3] = ["gh", "ghsa", "cve"];
/// Hexadecimal digits that are taken for a commit.
const COMMIT: std::ops::RangeInclusive<usize> = 7..=40;

/// At most `most` characters of foreign text on one line, as Markdown text: in a sentence, a cell or a list.
pub(in crate::report) fn text(foreign: &str, most: usize) -> String {
    escaped(one_line(&first_chars(foreign, most)).trim())
}

/// The same of a token, whose spaces count; never at the beginning of a line.
pub(super) fn token(foreign: &str, most: usize) -> String {
    escaped(&one_line(&first_chars(foreign, most)))
}

/// The same for a name, which is cut in the middle: both ends tell models apart.
pub(super) fn name(foreign: &str, most: usize) -> String {
    let (head, tail) = (most / 3, most - most / 3 - 1);
    let length = foreign.chars().count();
    if length <= most {
        return escaped(one_line(foreign).trim());
    }
    let ends = foreign.chars().take(head).chain(['…']).chain(foreign.chars().skip(length - tail));
    escaped(one_line(&ends.collect::<String>()).trim())
}

/// At most `most` characters as they are, to be copied: a block of one line in which nothing is Markdown.
pub(super) fn verbatim(foreign: &str, most: usize) -> String {
    format!("<pre>{}</pre>\n", html::escaped(&first_chars(foreign, most)))
}

/// The beginning of a hash, as code: there it is no link to a commit, and can be copied.
pub(super) fn hash(foreign: &str, most: usize) -> String {
    let hash: String = foreign.chars().take(most).collect();
    if !hash.is_empty() && hash.chars().all(|c| c.is_ascii_alphanumeric()) {
        return format!("<code>{hash}</code>");
    }
    text(&hash, most)
}

fn first_chars(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => text.get(..end).unwrap_or_default().to_owned() + "…",
        None => text.to_owned(),
    }
}

fn one_line(foreign: &str) -> String {
    visible(&foreign.replace("\r\n", " ").replace(['\n', '\r', '\t'], " "))
}

fn escaped(one_line: &str) -> String {
    let chars: Vec<char> = one_line.chars().collect();
    let at = |i: Option<usize>| i.and_then(|i| chars.get(i)).copied();
    let commits = commits(&chars);
    let mut escaped = String::with_capacity(one_line.len() + one_line.len() / 8);
    for (i, &c) in chars.iter().enumerate() {
        let (before, after) = (at(i.checked_sub(1)), at(i.checked_add(1)));
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            _ if is_markup(c, before, after) || opens_a_block(&chars, i) => {
                escaped.push_str(&format!("&#{};", u32::from(c)));
            }
            _ => escaped.push(c),
        }
        if is_calling(&chars, i, before, after) || commits.contains(&i) {
            escaped.push(JOINER);
        }
    }
    escaped
}

/// Whether a sign can mean anything within a line.
fn is_markup(c: char, before: Option<char>, after: Option<char>) -> bool {
    let is_inner = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    match c {
        // Within a word it is no emphasis, and names of quants are full of it.
        '_' => !(is_inner(before) && is_inner(after)),
        '`' | '*' | '[' | ']' | '\\' | '|' | '~' | '$' | '"' | '{' | '}' => true,
        _ => false,
    }
}

/// Whether a sign at the beginning makes the line a list, a heading or a rule.
fn opens_a_block(chars: &[char], i: usize) -> bool {
    let leading = chars.get(..i).unwrap_or_default();
    match chars.get(i) {
        Some('-' | '+' | '=' | '#') => leading.is_empty(),
        Some('.' | ')') => {
            let ends = chars.get(i + 1).is_none_or(|c| c.is_whitespace());
            ends && !leading.is_empty() && leading.iter().all(char::is_ascii_digit)
        }
        _ => false,
    }
}

/// Whether what begins or goes on here would be looked up: a joiner after this character prevents it.
fn is_calling(chars: &[char], i: usize, before: Option<char>, after: Option<char>) -> bool {
    let Some(after) = after.filter(|c| !c.is_whitespace()) else { return false };
    let word = |length: usize| -> String {
        let start = i.saturating_sub(length);
        chars.get(start..i).unwrap_or_default().iter().collect::<String>().to_lowercase()
    };
    match chars.get(i) {
        Some('@') => true,
        Some(c) if CALLING.contains(c) => after.is_alphanumeric() || "\"_-'".contains(after),
        // A scheme, or the name of a picture; a time of day is neither.
        Some(':') => {
            let is_time = before.is_some_and(|c| c.is_ascii_digit()) && after.is_ascii_digit();
            !is_time && (after.is_alphanumeric() || "/+-_".contains(after))
        }
        Some('w' | 'W') => after == '.' && word(2) == "ww",
        Some('-') => after.is_alphanumeric() && IDENTIFIERS.iter().any(|id| word(id.len()) == *id),
        _ => false,
    }
}

/// Places inside everything that looks like a commit.
fn commits(chars: &[char]) -> Vec<usize> {
    let mut places = Vec::new();
    let mut start = 0;
    let is_word = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
    for end in 0..=chars.len() {
        if chars.get(end).is_some_and(is_word) {
            continue;
        }
        let word = chars.get(start..end).unwrap_or_default();
        if COMMIT.contains(&word.len()) && word.iter().all(char::is_ascii_hexdigit) {
            places.push(start + 2);
        }
        start = end + 1;
    }
    places
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(foreign: &str) -> String {
        text(foreign, 10_000)
    }

    #[test]
    fn ordinary_names_stay_as_they_are() {
        for tame in [
            "polyglot6m-Q8_0",
            "IQ2_XS",
            "models/a.gguf",
            "0.1.0",
            "At 03:04, 10,200 tokens (4.5 bits).",
            "数",
        ] {
            assert_eq!(whole(tame), tame);
        }
    }

    #[test]
    fn signs_become_references() {
        assert_eq!(whole("a|b`c`"), "a&#124;b&#96;c&#96;");
        assert_eq!(whole("<b>&amp;"), "&lt;b&gt;&amp;\u{2060}amp;");
        assert_eq!(whole("_x_ *y* [z](u)"), "&#95;x&#95; &#42;y&#42; &#91;z&#93;(u)");
        assert_eq!(whole("a\r\nb\nc\td"), "a b c d");
        assert_eq!(whole("\u{202e}\u{1b}[2J\u{0}"), "\u{fffd}␛&#91;2J␀");
    }

    #[test]
    fn no_line_becomes_a_block() {
        for (foreign, shown) in [
            ("- x", "&#45; x"),
            ("# x", "&#35; x"),
            ("+ x", "&#43; x"),
            ("12. x", "12&#46; x"),
            ("1) x", "1&#41; x"),
            ("=== x", "&#61;== x"),
            ("    code", "code"),
            ("> quoted", "&gt; quoted"),
            ("~~~", "&#126;&#126;&#126;"),
        ] {
            assert_eq!(whole(foreign), shown);
        }
    }

    #[test]
    fn nobody_is_called_and_nothing_is_linked() {
        for (foreign, broken) in [
            ("@octocat", "@\u{2060}octocat"),
            ("a@b.example", "a@\u{2060}b.example"),
            ("see #12", "see #\u{2060}12"),
            ("o/r#12", "o/r#\u{2060}12"),
            ("GH-12", "GH-\u{2060}12"),
            ("!7 $8 ~9", "!\u{2060}7 &#36;\u{2060}8 &#126;\u{2060}9"),
            ("https://x.example", "https:\u{2060}//x.example"),
            ("www.x.example", "www\u{2060}.x.example"),
            (":tada:", ":\u{2060}tada:"),
            ("deadbeef1", "dea\u{2060}dbeef1"),
        ] {
            assert_eq!(whole(foreign), broken);
        }
        assert_eq!(whole("@\u{2060}octocat"), "@\u{2060}\u{fffd}octocat", "no joiner comes from outside");
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(text("abcdef", 3), "abc…");
        assert_eq!(name("abcdefghij", 6), "ab…hij");
        assert_eq!(name("abcdef", 6), "abcdef");
        assert_eq!(hash("6e340b9cffb3", 7), "<code>6e340b9</code>");
        assert_eq!(hash("6e|", 7), "6e&#124;");
        assert_eq!(verbatim("a <b> @c", 99), "<pre>a &lt;b&gt; @c</pre>\n");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn foreign_text_has_no_power(foreign in "(?s)[-@#!|`*_<>&\\[\\]()\\\\/:.wW$~^\\n\\r\\t 0-9a-f\u{202e}]{0,40}") {
            let escaped = whole(&foreign);
            prop_assert!(escaped.chars().all(|c| !c.is_control() && !"|`*<>[]\\\u{202e}".contains(c)), "{escaped:?}");
            for calling in ["@", "://", "www."] {
                prop_assert!(!escaped.to_lowercase().contains(calling) || calling == "@", "{escaped:?}");
            }
            let after_at = escaped.split('@').skip(1).filter_map(|rest| rest.chars().next());
            prop_assert!(after_at.into_iter().all(|c| c == JOINER || c.is_whitespace()), "{escaped:?}");
        }
    }
}
