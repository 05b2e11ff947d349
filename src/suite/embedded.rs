//! The suites that travel inside the binary, so that a first comparison needs no download.
//!
//! Their files lie under `suites/<name>/` and are embedded as they are; they are read by the same code as a
//! user's own.

use std::path::Path;

use super::{Suite, load};
use crate::error::{Error, Result};

/// The files of one suite under `suites/`.
#[derive(Clone, Copy, Debug)]
pub struct EmbeddedSuite {
    /// What `--suite` calls it; equal to the `name` in its YAML.
    pub name: &'static str,
    /// Its `suite.yaml`.
    pub definition: &'static str,
    /// Its data files: name as the YAML gives it, and content.
    pub data: &'static [(&'static str, &'static str)],
}

/// Every embedded suite.
pub const EMBEDDED: &[EmbeddedSuite] = &[
    EmbeddedSuite {
        name: "perplexity",
        definition: include_str!("../../suites/perplexity/suite.yaml"),
        data: &[
            ("prose.jsonl", include_str!("../../suites/perplexity/prose.jsonl")),
            ("dialogue.jsonl", include_str!("../../suites/perplexity/dialogue.jsonl")),
            ("code.jsonl", include_str!("../../suites/perplexity/code.jsonl")),
        ],
    },
    EmbeddedSuite {
        name: "multilingual",
        definition: include_str!("../../suites/multilingual/suite.yaml"),
        data: &[
            ("en.jsonl", include_str!("../../suites/multilingual/en.jsonl")),
            ("en.choices.jsonl", include_str!("../../suites/multilingual/en.choices.jsonl")),
            ("de.jsonl", include_str!("../../suites/multilingual/de.jsonl")),
            ("de.choices.jsonl", include_str!("../../suites/multilingual/de.choices.jsonl")),
            ("fr.jsonl", include_str!("../../suites/multilingual/fr.jsonl")),
            ("fr.choices.jsonl", include_str!("../../suites/multilingual/fr.choices.jsonl")),
            ("es.jsonl", include_str!("../../suites/multilingual/es.jsonl")),
            ("es.choices.jsonl", include_str!("../../suites/multilingual/es.choices.jsonl")),
            ("pt.jsonl", include_str!("../../suites/multilingual/pt.jsonl")),
            ("pt.choices.jsonl", include_str!("../../suites/multilingual/pt.choices.jsonl")),
            ("it.jsonl", include_str!("../../suites/multilingual/it.jsonl")),
            ("it.choices.jsonl", include_str!("../../suites/multilingual/it.choices.jsonl")),
            ("pl.jsonl", include_str!("../../suites/multilingual/pl.jsonl")),
            ("pl.choices.jsonl", include_str!("../../suites/multilingual/pl.choices.jsonl")),
            ("ru.jsonl", include_str!("../../suites/multilingual/ru.jsonl")),
            ("ru.choices.jsonl", include_str!("../../suites/multilingual/ru.choices.jsonl")),
            ("uk.jsonl", include_str!("../../suites/multilingual/uk.jsonl")),
            ("uk.choices.jsonl", include_str!("../../suites/multilingual/uk.choices.jsonl")),
            ("tr.jsonl", include_str!("../../suites/multilingual/tr.jsonl")),
            ("tr.choices.jsonl", include_str!("../../suites/multilingual/tr.choices.jsonl")),
            ("ar.jsonl", include_str!("../../suites/multilingual/ar.jsonl")),
            ("ar.choices.jsonl", include_str!("../../suites/multilingual/ar.choices.jsonl")),
            ("aeb.jsonl", include_str!("../../suites/multilingual/aeb.jsonl")),
            ("aeb.choices.jsonl", include_str!("../../suites/multilingual/aeb.choices.jsonl")),
            ("he.jsonl", include_str!("../../suites/multilingual/he.jsonl")),
            ("he.choices.jsonl", include_str!("../../suites/multilingual/he.choices.jsonl")),
            ("fa.jsonl", include_str!("../../suites/multilingual/fa.jsonl")),
            ("fa.choices.jsonl", include_str!("../../suites/multilingual/fa.choices.jsonl")),
            ("hi.jsonl", include_str!("../../suites/multilingual/hi.jsonl")),
            ("hi.choices.jsonl", include_str!("../../suites/multilingual/hi.choices.jsonl")),
            ("bn.jsonl", include_str!("../../suites/multilingual/bn.jsonl")),
            ("bn.choices.jsonl", include_str!("../../suites/multilingual/bn.choices.jsonl")),
            ("ta.jsonl", include_str!("../../suites/multilingual/ta.jsonl")),
            ("ta.choices.jsonl", include_str!("../../suites/multilingual/ta.choices.jsonl")),
            ("th.jsonl", include_str!("../../suites/multilingual/th.jsonl")),
            ("th.choices.jsonl", include_str!("../../suites/multilingual/th.choices.jsonl")),
            ("vi.jsonl", include_str!("../../suites/multilingual/vi.jsonl")),
            ("vi.choices.jsonl", include_str!("../../suites/multilingual/vi.choices.jsonl")),
            ("id.jsonl", include_str!("../../suites/multilingual/id.jsonl")),
            ("id.choices.jsonl", include_str!("../../suites/multilingual/id.choices.jsonl")),
            ("sw.jsonl", include_str!("../../suites/multilingual/sw.jsonl")),
            ("sw.choices.jsonl", include_str!("../../suites/multilingual/sw.choices.jsonl")),
            ("zh.jsonl", include_str!("../../suites/multilingual/zh.jsonl")),
            ("zh.choices.jsonl", include_str!("../../suites/multilingual/zh.choices.jsonl")),
            ("ja.jsonl", include_str!("../../suites/multilingual/ja.jsonl")),
            ("ja.choices.jsonl", include_str!("../../suites/multilingual/ja.choices.jsonl")),
            ("ko.jsonl", include_str!("../../suites/multilingual/ko.jsonl")),
            ("ko.choices.jsonl", include_str!("../../suites/multilingual/ko.choices.jsonl")),
        ],
    },
    EmbeddedSuite {
        name: "demo",
        definition: include_str!("../../suites/demo/suite.yaml"),
        data: &[
            ("en.jsonl", include_str!("../../suites/demo/en.jsonl")),
            ("de.jsonl", include_str!("../../suites/demo/de.jsonl")),
            ("es.jsonl", include_str!("../../suites/demo/es.jsonl")),
            ("fr.jsonl", include_str!("../../suites/demo/fr.jsonl")),
            ("ru.jsonl", include_str!("../../suites/demo/ru.jsonl")),
            ("el.jsonl", include_str!("../../suites/demo/el.jsonl")),
            ("ar.jsonl", include_str!("../../suites/demo/ar.jsonl")),
            ("hi.jsonl", include_str!("../../suites/demo/hi.jsonl")),
            ("zh.jsonl", include_str!("../../suites/demo/zh.jsonl")),
            ("en.questions.jsonl", include_str!("../../suites/demo/en.questions.jsonl")),
            ("de.questions.jsonl", include_str!("../../suites/demo/de.questions.jsonl")),
            ("es.questions.jsonl", include_str!("../../suites/demo/es.questions.jsonl")),
            ("fr.questions.jsonl", include_str!("../../suites/demo/fr.questions.jsonl")),
            ("ru.questions.jsonl", include_str!("../../suites/demo/ru.questions.jsonl")),
            ("el.questions.jsonl", include_str!("../../suites/demo/el.questions.jsonl")),
            ("ar.questions.jsonl", include_str!("../../suites/demo/ar.questions.jsonl")),
            ("hi.questions.jsonl", include_str!("../../suites/demo/hi.questions.jsonl")),
            ("zh.questions.jsonl", include_str!("../../suites/demo/zh.questions.jsonl")),
            ("en.endings.jsonl", include_str!("../../suites/demo/en.endings.jsonl")),
            ("de.endings.jsonl", include_str!("../../suites/demo/de.endings.jsonl")),
            ("es.endings.jsonl", include_str!("../../suites/demo/es.endings.jsonl")),
            ("fr.endings.jsonl", include_str!("../../suites/demo/fr.endings.jsonl")),
            ("ru.endings.jsonl", include_str!("../../suites/demo/ru.endings.jsonl")),
            ("el.endings.jsonl", include_str!("../../suites/demo/el.endings.jsonl")),
            ("ar.endings.jsonl", include_str!("../../suites/demo/ar.endings.jsonl")),
            ("hi.endings.jsonl", include_str!("../../suites/demo/hi.endings.jsonl")),
            ("zh.endings.jsonl", include_str!("../../suites/demo/zh.endings.jsonl")),
            ("sums.jsonl", include_str!("../../suites/demo/sums.jsonl")),
        ],
    },
];

/// The embedded suite called `name`; `None` if there is none of that name.
///
/// # Errors
/// A mistake in its files; a test keeps them free of any.
pub fn embedded(name: &str) -> Option<Result<Suite>> {
    EMBEDDED.iter().find(|suite| suite.name == name).map(open)
}

fn open(suite: &EmbeddedSuite) -> Result<Suite> {
    let path = Path::new("(embedded)").join(suite.name).join("suite.yaml");
    load::parse(&path, suite.definition.as_bytes(), &|data, path| {
        let found = suite.data.iter().find(|(name, _)| *name == data);
        let (_, content) = found.ok_or_else(|| Error::file(path, "is not embedded", ""))?;
        Ok(content.as_bytes().to_vec())
    })
}
