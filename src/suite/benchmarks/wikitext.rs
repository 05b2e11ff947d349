//! WikiText: pages out of lines, and the text as it was before its tokens were set apart.
//!
//! Rules: lm-evaluation-harness 0.4.13, `lm_eval/tasks/wikitext/preprocess_wikitext.py`, and the cut into
//! pages of `EleutherAI/wikitext_document_level`. What is scored is the detokenized page, but words and bytes
//! are counted on the page as published, which the record keeps as `page`.

use std::path::Path;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Value, json};

use super::build::{Frame, Item};
use super::fields::{Fields, Found};
use crate::error::{Error, Result};
use crate::suite::question::{Answer, Metric, QuestionKind};

/// Largest plain text that is read, in bytes (WikiText-103's training data has 0.5 GB).
const LARGEST: u64 = 1 << 30;

/// Whether `path` is a text as published, `wiki.test.raw` or `wiki.test.tokens`.
pub(super) fn is_plain_text(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    name.starts_with("wiki.") && (name.ends_with(".raw") || name.ends_with(".tokens"))
}

/// The pages of a text as published.
pub(super) fn read_plain_text(path: &Path) -> Result<Vec<Value>> {
    let size = std::fs::metadata(path).map_err(Error::io(path, "open the data"))?.len();
    if size > LARGEST {
        let problem = format!("has {size} bytes, more than the {LARGEST} that are read");
        return Err(Error::file(path, problem, "give the test split"));
    }
    let bytes = std::fs::read(path).map_err(Error::io(path, "read the data"))?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Error::file(path, "not UTF-8", "give the file as it was published"))?;
    Ok(pages(text.split('\n')))
}

/// The Hub's `Salesforce/wikitext` has one record per line; these become pages. Other records stay as they
/// are.
pub(super) fn one_page_each(records: Vec<Value>) -> Vec<Value> {
    let lines: Option<Vec<&str>> = records
        .iter()
        .map(|record| record.get("text")?.as_str().map(|line| line.strip_suffix('\n').unwrap_or(line)))
        .collect();
    match lines {
        Some(lines) if lines.iter().all(|line| !line.contains('\n')) && lines.iter().any(|l| is_title(l)) => {
            pages(lines.into_iter())
        }
        _ => records,
    }
}

/// Whether a line is the title of a page (`= Title =`) and no heading in it (`= = Heading = =`).
fn is_title(line: &str) -> bool {
    let line = line.replace("= = =", "===").replace("= =", "==");
    let line = line.trim();
    line.starts_with("= ") && line.ends_with(" =")
}

/// Pages, each from a title to before the next; what comes before the first is one too, if it is not blank.
fn pages<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<Value> {
    let mut pages = Vec::new();
    let mut page: Vec<&str> = Vec::new();
    let finish = |page: &mut Vec<&str>, pages: &mut Vec<Value>| {
        let text = page.join("\n");
        if !text.trim().is_empty() {
            pages.push(json!({ "page": text }));
        }
        page.clear();
    };
    for line in lines {
        if is_title(line) {
            finish(&mut page, &mut pages);
        }
        page.push(line);
    }
    finish(&mut page, &mut pages);
    pages
}

/// A page, detokenized. Columns: `page`; or `text`, which is scored as it is.
pub(super) fn item(fields: Fields, _: &str) -> Found<Item> {
    let text = match fields.has("page") {
        true => detokenized(fields.text(&["page"])?),
        false => fields.text(&["page", "text"])?.to_owned(),
    };
    Ok(Item::new(text, Answer::Text))
}

/// WikiText's metrics.
pub(super) fn frame(_: &str) -> Frame {
    Frame {
        kind: QuestionKind::Rolling,
        description: String::new(),
        target_delimiter: "",
        metrics: vec![Metric::WordPerplexity, Metric::BytePerplexity, Metric::BitsPerByte],
        filters: Vec::new(),
    }
}

/// One replacement: of a string, or of a pattern.
enum Replace {
    Text(&'static str, &'static str),
    Pattern(Regex, &'static str),
}

/// The replacements in their order, in which later ones see what earlier ones made.
static REPLACEMENTS: LazyLock<Vec<Replace>> = LazyLock::new(|| {
    use Replace::Text;
    let pattern = |pattern: &str, with| Regex::new(pattern).ok().map(|regex| Replace::Pattern(regex, with));
    let mut steps = vec![Some(Text("s '", "s'")), pattern("/' [0-9]/", "/'[0-9]/")];
    steps.extend([(" @-@ ", "-"), (" @,@ ", ","), (" @.@ ", ".")].map(|(a, b)| Some(Text(a, b))));
    let signs = [(" : ", ": "), (" ; ", "; "), (" . ", ". "), (" ! ", "! "), (" ? ", "? "), (" , ", ", ")];
    steps.extend(signs.map(|(a, b)| Some(Text(a, b))));
    steps.extend([
        pattern(r"\(\s*([^\)]*?)\s*\)", "($1)"),
        pattern(r"\[\s*([^\]]*?)\s*\]", "[$1]"),
        pattern(r"\{\s*([^}]*?)\s*\}", "{$1}"),
        pattern(r#""\s*([^"]*?)\s*""#, "\"$1\""),
        pattern(r"'\s*([^']*?)\s*'", "'$1'"),
    ]);
    let rest = [
        ("= = = =", "===="),
        ("= = =", "==="),
        ("= =", "=="),
        (" \u{b0} ", "\u{b0}"),
        (" \n", "\n"),
        ("\n ", "\n"),
        (" N ", " 1 "),
        (" 's", "'s"),
    ];
    steps.extend(rest.map(|(a, b)| Some(Text(a, b))));
    steps.into_iter().flatten().collect()
});

/// A page as it was written, before its tokens were set apart by spaces.
fn detokenized(page: &str) -> String {
    REPLACEMENTS.iter().fold(page.to_owned(), |text, replace| match replace {
        Replace::Text(from, to) => text.replace(from, to),
        Replace::Pattern(regex, to) => regex.replace_all(&text, *to).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded from `wikitext_detokenizer` of lm-evaluation-harness 0.4.13, text invented.
    #[test]
    fn detokenized_as_the_harness_does() {
        let page = "\n = Oder = \n \n The Oder ( Polish : Odra ) is a river 's bed . It 's 840 @.@ 5 km long , 1 @,@ 000 \
                    m wide ; a well @-@ known ' big ' river !\n = = Course = = \n It has [ N ] bends { a } \" quoted \
                    text \" and 5 \u{b0} C ? the boys ' boat N miles";
        let text = "\n= Oder =\n\nThe Oder (Polish: Odra) is a river's bed. It's 840.5 km long, 1,000 m wide; a \
                    well-known 'big' river !\n== Course ==\nIt has [N] bends {a} \"quoted text\" and 5\u{b0}C? the \
                    boys' boat 1 miles";
        assert_eq!(detokenized(page), text);
    }

    #[test]
    fn pages_begin_at_titles() {
        let lines = ["", " = One = ", " text ", " = = Part = = ", " more ", "", " = Two = ", " x = 1 "];
        let expect = [
            json!({"page": " = One = \n text \n = = Part = = \n more \n"}),
            json!({"page": " = Two = \n x = 1 "}),
        ];
        assert_eq!(pages(lines.into_iter()), expect);
        let rows: Vec<Value> = lines.iter().map(|line| json!({"text": format!("{line}\n")})).collect();
        assert_eq!(one_page_each(rows), expect);
        let documents = vec![json!({"text": " = One = \n two lines"}), json!({"text": " = Two = "})];
        assert_eq!(one_page_each(documents.clone()), documents);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("wiki.test.raw"), lines.join("\n")).unwrap();
        let settings = super::super::Settings::default();
        let task = super::super::load("wikitext", folder.path(), &settings).unwrap().remove(0);
        let sample = &task.questions.samples[0];
        assert_eq!(sample.record, expect[0]);
        assert_eq!(sample.question, " = One =\ntext\n== Part ==\nmore\n");
        assert_eq!(task.questions.samples.len(), 2);
    }
}
