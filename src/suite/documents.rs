//! Data files to documents: JSON Lines with one document per line, or a whole file as one document.
//!
//! Texts are taken exactly as they are stored, because each byte counts in `bits_per_byte`.
//! Every complaint names the file and the line. Knows nothing of suites.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::Document;
use crate::error::{Error, Result};

/// One line of a JSON Lines file. Other fields are allowed: the data may have been made for other tools too.
#[derive(Deserialize)]
struct Record {
    id: Option<Value>,
    text: String,
}

/// Whether `path` holds one document per line.
pub(super) fn is_json_lines(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("jsonl"))
}

/// The documents of `bytes`, the content of the file `path`: a `.jsonl` file is read by [`json_lines`],
/// anything else is one document called `id`.
///
/// # Errors
/// Not UTF-8, nothing but white space, or a line that is no record.
pub(super) fn parse(path: &Path, bytes: Vec<u8>, id: &str) -> Result<Vec<Document>> {
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes().iter().take(at).filter(|&&b| b == b'\n').count();
        Error::file(
            path,
            format!("line {line}: not UTF-8 (byte {at} of the file)"),
            "convert the file to UTF-8",
        )
    })?;
    if is_json_lines(path) {
        return json_lines(path, &text);
    }
    if text.trim().is_empty() {
        return Err(Error::file(path, "the text is empty", "give a text with words in it"));
    }
    Ok(vec![Document { id: id.to_owned(), text }])
}

/// One document per line, `{"id": …, "text": …}`. Blank lines are skipped; an `id` may be a string or a
/// number, and where it is missing the line's number stands for it.
fn json_lines(path: &Path, text: &str) -> Result<Vec<Document>> {
    let help = r#"write one JSON object per line: {"id": "a name", "text": "the document"}"#;
    let mut documents = Vec::new();
    let mut line_of_id: BTreeMap<String, usize> = BTreeMap::new();
    // Some editors open a file with a byte order mark, which is no JSON.
    for (index, line) in text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate() {
        let number = index + 1;
        if line.trim().is_empty() {
            continue;
        }
        let wrong = |problem: String| Error::file(path, format!("line {number}: {problem}"), help);
        let record: Record = serde_json::from_str(line).map_err(|e| wrong(without_line(&e)))?;
        let id = match record.id {
            None | Some(Value::Null) => number.to_string(),
            Some(Value::Number(id)) => id.to_string(),
            Some(Value::String(id)) if !id.trim().is_empty() => id,
            Some(other) => return Err(wrong(format!("`id` is {other}, neither a name nor a number"))),
        };
        if record.text.trim().is_empty() {
            return Err(wrong(format!("the text of `{id}` is empty")));
        }
        if let Some(first) = line_of_id.insert(id.clone(), number) {
            return Err(Error::file(
                path,
                format!("line {number}: the id `{id}` is already that of line {first}"),
                "give every document an id of its own",
            ));
        }
        documents.push(Document { id, text: record.text });
    }
    if documents.is_empty() {
        return Err(Error::file(path, "the file holds no document", help));
    }
    Ok(documents)
}

/// serde_json's message with the column only: its line is always 1 here, as each line is parsed on its own.
fn without_line(error: &serde_json::Error) -> String {
    let message = error.to_string();
    match message.rsplit_once(" at line ") {
        Some((problem, _)) => format!("{problem} (column {})", error.column()),
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, bytes: &[u8]) -> Result<Vec<(String, String)>> {
        Ok(parse(Path::new(name), bytes.to_vec(), "whole")?.into_iter().map(|d| (d.id, d.text)).collect())
    }

    #[track_caller]
    fn refused(name: &str, bytes: &[u8], expect: &str) {
        let error = read(name, bytes).unwrap_err();
        assert_eq!(error.to_string(), expect);
        assert!(error.help().is_some());
    }

    #[test]
    fn a_text_is_taken_as_it_is() {
        let text = "\u{feff} two\r\nlines \n\n";
        assert_eq!(read("a.txt", text.as_bytes()).unwrap(), [("whole".into(), text.into())]);
        // Only the extension decides: JSON in a text file is text.
        assert_eq!(read("a.json", b"{\"text\": \"x\"}").unwrap()[0].1, "{\"text\": \"x\"}");
    }

    #[test]
    fn lines_become_documents() {
        let lines = "\u{feff}{\"id\": \"a\", \"text\": \"x\\n\"}\r\n\n  \n{\"text\": \" y\", \"more\": [1]}\n\
                     {\"id\": 7, \"text\": \"z\"}";
        let expect = [("a", "x\n"), ("4", " y"), ("7", "z")].map(|(id, text)| (id.into(), text.into()));
        assert_eq!(read("a.jsonl", lines.as_bytes()).unwrap(), expect);
        assert_eq!(read("A.JSONL", lines.as_bytes()).unwrap(), expect);
    }

    #[test]
    fn complaints_name_file_and_line() {
        refused("a.txt", b"", "a.txt: the text is empty");
        refused("a.txt", b" \n\t", "a.txt: the text is empty");
        refused("a.txt", b"fine\nso far\n\xff\xfe\nmore\n", "a.txt: line 3: not UTF-8 (byte 12 of the file)");
        refused("a.jsonl", b"\n \n", "a.jsonl: the file holds no document");
        refused(
            "a.jsonl",
            b"{\"text\": \"x\"}\n{\"id\": \"b\"}\n",
            "a.jsonl: line 2: missing field `text` (column 11)",
        );
        refused(
            "a.jsonl",
            b"{\"text\": 3}",
            "a.jsonl: line 1: invalid type: integer `3`, expected a string (column 10)",
        );
        refused("a.jsonl", b"{\"text\": \"x\"", "a.jsonl: line 1: EOF while parsing an object (column 12)");
        refused("a.jsonl", b"{\"text\": \" \", \"id\": \"b\"}", "a.jsonl: line 1: the text of `b` is empty");
        refused(
            "a.jsonl",
            b"{\"text\": \"x\", \"id\": []}",
            "a.jsonl: line 1: `id` is [], neither a name nor a number",
        );
        refused(
            "a.jsonl",
            b"{\"text\": \"x\", \"id\": \"b\"}\n\n{\"text\": \"y\", \"id\": \"b\"}",
            "a.jsonl: line 3: the id `b` is already that of line 1",
        );
    }
}
