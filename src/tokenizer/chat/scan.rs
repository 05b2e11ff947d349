//! A template's text before the engine reads it: what Jinja does to lines, and two tags that the engine lacks.
//!
//! Lines stay where they are, so that the engine's line numbers are the template's.

use super::limits::{MAX_ELIF, MAX_SIGNS, MAX_SOURCE, MAX_TAG};

/// Stands for 1 in `a * qeval_one * b`. Without a variable in it, the engine would multiply two literals while it
/// compiles, before anything is measured.
pub(super) const ONE: &str = "qeval_one";

/// A template that is refused before the engine sees it: line and reason.
pub(super) type Refusal = (usize, &'static str);

/// The text that the engine is to compile.
///
/// Line ends become `\n` as in Jinja; `{% generation %}` (transformers' mark around what the assistant wrote)
/// becomes `{% with %}`, which opens a scope and prints its body, as it does there.
///
/// # Errors
/// A template longer than [`MAX_SOURCE`], or with a tag or a chain of conditions that the engine could not descend.
pub(super) fn prepare(source: &str) -> Result<String, Refusal> {
    if source.len() > MAX_SOURCE {
        return Err((1, "longer than any template should be (100 000 bytes)"));
    }
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(source.len());
    let mut rest = source.as_str();
    let mut elifs = 0_usize;
    while let Some(start) = tag_start(rest) {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let line = || 1 + out.matches('\n').count();
        let length = match tag.get(..2) {
            Some("{#") => tag.find("#}").map_or(tag.len(), |end| end + 2),
            _ => tag_length(tag).map_err(|()| (line(), "a tag with more in it than any should have"))?,
        };
        let (tag, after) = tag.split_at_checked(length).unwrap_or((tag, ""));
        rest = after;
        match keyword(tag) {
            "generation" => out.push_str(&tag.replacen("generation", "with", 1)),
            "endgeneration" => out.push_str(&tag.replacen("endgeneration", "endwith", 1)),
            "raw" => {
                let end = raw_length(rest);
                let (raw, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
                out.push_str(tag);
                out.push_str(raw);
                rest = after;
            }
            word => {
                if word == "elif" {
                    elifs += 1;
                    if elifs > MAX_ELIF {
                        return Err((line(), "more conditions than any template should have"));
                    }
                }
                if tag.starts_with("{#") {
                    out.push_str(tag);
                } else {
                    let line = line();
                    push_tag(tag, &mut out).map_err(|reason| (line, reason))?;
                }
            }
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn tag_start(text: &str) -> Option<usize> {
    ["{{", "{%", "{#"].iter().filter_map(|open| text.find(open)).min()
}

/// Bytes from a tag's `{` to behind its end, or all that is left; an error if there is too much in it.
fn tag_length(tag: &str) -> Result<usize, ()> {
    let end = if tag.starts_with("{{") { "}}" } else { "%}" };
    let (mut depth, mut quote, mut escaped, mut count) = (0_usize, None, false, 0_usize);
    let mut signs = 0_usize;
    for (at, c) in tag.char_indices().skip(2) {
        if let Some(open) = quote {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                _ if c == open => quote = None,
                _ => {}
            }
            continue;
        }
        if depth == 0 && tag.get(at..).is_some_and(|rest| rest.starts_with(end)) {
            return Ok(at + end.len());
        }
        count += 1;
        signs = match c {
            '-' | '+' => signs + 1,
            c if c.is_whitespace() => signs,
            _ => 0,
        };
        if count > MAX_TAG || signs > MAX_SIGNS {
            return Err(());
        }
        match c {
            '"' | '\'' => quote = Some(c),
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(tag.len())
}

/// The first word of a block tag.
fn keyword(tag: &str) -> &str {
    let Some(inside) = tag.strip_prefix("{%") else { return "" };
    let inside = inside.trim_start_matches(['-', '+']).trim_start();
    inside.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("")
}

/// Bytes up to the `{% endraw %}` that ends a raw block.
fn raw_length(text: &str) -> usize {
    let mut from = 0;
    while let Some(at) = text.get(from..).and_then(|rest| rest.find("{%")) {
        from += at;
        if text.get(from..).is_some_and(|rest| keyword(rest) == "endraw") {
            return from;
        }
        from += 2;
    }
    text.len()
}

/// Copies a tag, [`ONE`] put into every multiplication, and escapes in strings written as the engine reads them.
fn push_tag(tag: &str, out: &mut String) -> Result<(), &'static str> {
    let (mut quote, mut before) = (None, '{');
    let mut chars = tag.chars().peekable();
    while let Some(c) = chars.next() {
        if let Some(open) = quote {
            match c {
                '\\' => push_escape(chars.next(), out)?,
                _ => {
                    out.push(c);
                    if c == open {
                        quote = None;
                    }
                }
            }
        } else {
            out.push(c);
            match c {
                '"' | '\'' => quote = Some(c),
                '*' if chars.peek() == Some(&'*') => out.extend(chars.next()),
                // `f(*arguments)` is no multiplication.
                '*' if !['(', ',', '[', '{', '%'].contains(&before) => {
                    out.push(' ');
                    out.push_str(ONE);
                    out.push_str(" *");
                }
                _ => {}
            }
        }
        if !c.is_whitespace() {
            before = c;
        }
    }
    Ok(())
}

/// What follows a backslash in a string, as Python reads it; the engine reads these otherwise.
fn push_escape(escaped: Option<char>, out: &mut String) -> Result<(), &'static str> {
    match escaped {
        Some('a') => out.push_str("\\x07"),
        Some('v') => out.push_str("\\x0b"),
        Some('/') => out.push_str("\\\\/"),
        Some('N' | 'U' | '\n') => return Err("a string with an escape that is not supported"),
        Some(c) => out.extend(['\\', c]),
        None => out.push('\\'),
    }
    Ok(())
}
