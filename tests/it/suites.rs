//! The suites that travel with the binary, and suites and texts from disk, up to the requests made of them.
//!
//! Needs ../shared: what lm-evaluation-harness and llama.cpp counted.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use qeval::error::Error;
use qeval::suite::question::{Answer, Sample};
use qeval::suite::{self, Content, Protocol, Reader, Rendered, Suite, TokenizedText};

use crate::support;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("suites").join(name)
}

fn words(text: &str) -> usize {
    text.split_whitespace().count()
}

/// One token per byte: the plainest tokenizer that covers every text.
fn bytes(text: &str) -> qeval::error::Result<TokenizedText> {
    let ids = text.bytes().map(u32::from).collect();
    Ok(TokenizedText { ids, offsets: (0..text.len()).map(|i| (i, i + 1)).collect() })
}

/// A suite cut by that tokenizer.
fn render(
    suite: &Suite,
    protocol: &Protocol,
    bos: Option<u32>,
    prefix: Option<u32>,
) -> qeval::error::Result<Rendered> {
    let tokenize_question = |text: &str| bytes(text).map(|text| text.ids);
    let reader = Reader {
        bos,
        prefix,
        max_length: 1024,
        tokenize: &bytes,
        tokenize_question: &tokenize_question,
        chat: None,
        chat_choices: false,
    };
    suite::render(suite, protocol, &reader)
}

#[test]
fn every_embedded_suite_loads_and_is_the_one_on_disk() {
    for embedded in suite::EMBEDDED {
        let loaded = suite::embedded(embedded.name).expect("listed").expect("free of mistakes");
        assert_eq!(loaded.name, embedded.name);
        assert_eq!(loaded, suite::load(&folder(embedded.name)).expect("the same from disk"));
        assert_eq!(
            loaded,
            suite::load(&folder(embedded.name).join("suite.yaml")).expect("the same by its file")
        );
        assert!(!loaded.license.is_empty() && !loaded.description.is_empty());
        let card =
            std::fs::read_to_string(folder(embedded.name).join("README.md")).expect("every suite has a card");
        assert!(card.contains(&loaded.license), "the card names the licence");
    }
    assert!(suite::embedded("no such suite").is_none());
}

#[test]
fn the_perplexity_suite_is_what_its_card_says() {
    let suite = suite::embedded("perplexity").expect("embedded").expect("loads");
    let card = std::fs::read_to_string(folder("perplexity").join("README.md")).expect("the card");
    let mut ids = BTreeSet::new();
    let mut texts = BTreeSet::new();
    for task in &suite.tasks {
        // Below ten documents no interval could be given.
        assert!(task.documents().len() >= 10, "{}", task.name);
        for document in task.documents() {
            assert!(ids.insert(&document.id), "the id {} is given twice", document.id);
            assert!(texts.insert(&document.text), "{} is a copy", document.id);
            assert!(
                (150..=350).contains(&words(&document.text)),
                "{}: {}",
                document.id,
                words(&document.text)
            );
            assert!(document.text.ends_with('\n') && !document.text.contains('\t'), "{}", document.id);
        }
        let total = |count: fn(&str) -> usize| task.documents().iter().map(|d| count(&d.text)).sum::<usize>();
        let row = format!(
            "| `{}` | {} | {} | {} |",
            task.name,
            task.documents().len(),
            total(words),
            total(str::len)
        );
        assert!(card.contains(&row), "the card should say {row}");
    }
    let names: Vec<_> = suite.tasks.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["english-prose", "dialogue", "code"]);
}

#[test]
fn the_multilingual_suite_is_parallel_and_what_its_card_says() {
    let suite = suite::embedded("multilingual").expect("embedded").expect("loads");
    let card = std::fs::read_to_string(folder("multilingual").join("README.md")).expect("the card");
    assert_eq!(suite.tasks.len(), 48);
    let (texts_of, choices): (Vec<_>, Vec<_>) =
        suite.tasks.iter().partition(|task| task.questions().is_none());
    parallel_choices(&choices, &texts_of.iter().map(|task| task.language.as_str()).collect::<Vec<_>>());
    let ids: Vec<&str> = suite.tasks[0].documents().iter().map(|d| d.id.as_str()).collect();
    assert!(ids.len() >= 10, "below ten documents no interval could be given");
    let mut texts = BTreeSet::new();
    for task in texts_of {
        assert_eq!(task.name, task.language);
        let own: Vec<&str> = task.documents().iter().map(|d| d.id.as_str()).collect();
        assert_eq!(own, ids, "{}: the same items in the same order", task.name);
        let total = |count: fn(&str) -> usize| task.documents().iter().map(|d| count(&d.text)).sum::<usize>();
        let figures = (task.documents().len(), total(|text| text.chars().count()), total(str::len));
        let row = format!("| {} | {} | {} |", figures.0, figures.1, figures.2);
        let line = card.lines().find(|line| line.starts_with(&format!("| `{}` |", task.name)));
        assert!(line.is_some_and(|line| line.ends_with(&row)), "{}: the card should say {row}", task.name);
        for document in task.documents() {
            assert!(texts.insert(&document.text), "{} {} is a copy", task.name, document.id);
            assert!(document.text.ends_with('\n') && !document.text.contains('\t'), "{}", document.id);
        }
    }
}

/// The same items in every language: ids, what is right, two different options each; no text twice.
fn parallel_choices(tasks: &[&suite::Task], languages: &[&str]) {
    assert_eq!(tasks.iter().map(|task| task.language.as_str()).collect::<Vec<_>>(), languages);
    let of = |task: &suite::Task| -> Vec<(String, Vec<usize>, String, String)> {
        let questions = task.questions().unwrap();
        let item = |sample: &Sample| {
            let Answer::Choice { options, gold } = &sample.answer else { panic!("{}", sample.id) };
            assert_eq!(options.len(), 2, "{} {}", task.name, sample.id);
            let both = format!("{}|{}|{}", sample.question, options[0].continuation, options[1].continuation);
            (sample.id.clone(), gold.clone(), sample.record["kind"].as_str().unwrap().to_owned(), both)
        };
        questions.samples.iter().map(item).collect()
    };
    let english = of(tasks[0]);
    assert_eq!(english.len(), 30);
    // Neither place is right more often.
    assert_eq!(english.iter().filter(|(_, gold, ..)| gold == &[0]).count(), 15);
    for kind in ["cause", "effect", "completion"] {
        assert_eq!(english.iter().filter(|item| item.2 == kind).count(), 10);
    }
    let mut texts = BTreeSet::new();
    for task in tasks {
        assert_eq!(task.name, format!("{}-choices", task.language));
        for (own, english) in of(task).iter().zip(&english) {
            assert_eq!((&own.0, &own.1, &own.2), (&english.0, &english.1, &english.2), "{}", task.name);
            assert!(texts.insert(own.3.clone()), "{} {} is a copy", task.name, own.0);
        }
        let questions = task.questions().unwrap();
        let unspaced = ["th", "zh", "ja"].contains(&task.language.as_str());
        assert_eq!(questions.target_delimiter, if unspaced { "" } else { " " }, "{}", task.name);
    }
}

#[test]
fn the_perplexity_suite_renders_under_every_protocol() {
    let suite = suite::embedded("perplexity").expect("embedded").expect("loads");
    for name in Protocol::NAMES {
        let protocol = Protocol::parse(name, Some(64), None).expect("a protocol");
        let rendered = render(&suite, &protocol, Some(256), Some(256)).expect("renders");
        assert_eq!(rendered.tasks.len(), suite.tasks.len());
        for (index, task) in rendered.tasks.iter().enumerate() {
            let requests = || rendered.requests.iter().filter(|r| r.task as usize == index);
            assert_eq!(task.documents, suite.tasks[index].documents().len());
            assert_eq!(task.documents_dropped, 0);
            assert_eq!(task.tokens, task.text_bytes, "one token per byte");
            assert_eq!(task.tokens, task.scored_tokens + task.unscored_tokens + task.dropped_tokens);
            assert_eq!(task.scored_tokens, requests().map(|r| r.scored.len()).sum::<usize>());
            assert_eq!(
                task.scored_bytes,
                requests().flat_map(|r| &r.bytes).map(|&b| b as usize).sum::<usize>()
            );
            assert_eq!(task.scored_bytes, task.scored_tokens, "every scored token is one byte");
            assert_eq!(
                name == "llama.cpp",
                task.scored_tokens < task.tokens,
                "only llama.cpp leaves tokens out"
            );
            for request in requests() {
                assert!(request.tokens.len() <= protocol.longest_input() + 1);
                let text = &suite.tasks[index].documents()[request.document as usize].text;
                let target: Vec<u8> =
                    request.tokens[request.scored.clone()].iter().map(|&t| t as u8).collect();
                assert!(text.as_bytes().windows(target.len()).any(|w| w == target), "targets are text");
            }
        }
    }
}

/// lm-evaluation-harness records, per document, the words and bytes that it divides by.
#[test]
fn words_and_bytes_are_those_of_lm_eval() {
    let (Some(text), Some(golden)) = (
        support::shared("data/tasks/lm.jsonl"),
        support::shared("goldens/lm-eval/stories260k/samples_q_wikitext_rolling.jsonl"),
    ) else {
        return;
    };
    let whole = suite::from_text(&text).expect("a text");
    let golden = std::fs::read_to_string(golden).expect("the golden");
    let golden: Vec<serde_json::Value> =
        golden.lines().map(|line| serde_json::from_str(line).expect("a sample")).collect();
    let documents = whole.tasks[0].documents();
    assert!(golden.len() == documents.len() && golden.len() == 12);
    for sample in &golden {
        let mut one = whole.clone();
        let index = sample["doc_id"].as_u64().expect("an index") as usize;
        one.tasks[0].content = Content::Text(vec![documents[index].clone()]);
        let protocol = Protocol::parse("lm-eval", None, None).expect("a protocol");
        let task = render(&one, &protocol, None, Some(0)).expect("renders").tasks.remove(0);
        assert_eq!(sample["word_perplexity"][1], task.words);
        assert_eq!(sample["byte_perplexity"][1], task.scored_bytes);
    }
}

/// llama.cpp's own count of windows and scored tokens is in its golden; a tokenizer of one token per byte
/// does not reach that, but the arithmetic from the number of tokens does.
#[test]
fn llama_cpp_scores_as_many_tokens_as_llama_cpp() {
    let Some(golden) = support::shared("goldens/llamacpp/polyglot6m.json") else { return };
    let golden: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(golden).expect("the golden")).expect("JSON");
    let n_ctx = golden["n_ctx"].as_u64().expect("n_ctx") as usize;
    let chunks = golden["chunks"].as_u64().expect("chunks") as usize;
    let protocol = Protocol::LlamaCpp { n_ctx };
    let text = vec![7; chunks * n_ctx + n_ctx - 1];
    let cut = suite::protocol::cut(&protocol, &text, None, None).expect("long enough");
    assert_eq!(cut.windows.len(), chunks);
    assert_eq!(golden["scored_tokens"], cut.windows.iter().map(|w| w.scored.len()).sum::<usize>());
    assert_eq!(cut.dropped_tokens, n_ctx - 1);
}

#[test]
fn mistakes_in_a_users_suite_are_explained() {
    let folder = tempfile::tempdir().expect("a folder");
    let refused = |yaml: &str, data: &[u8]| -> Error {
        std::fs::write(folder.path().join("suite.yaml"), yaml).expect("written");
        std::fs::write(folder.path().join("data.jsonl"), data).expect("written");
        suite::load(folder.path()).expect_err("a mistake")
    };
    let yaml = "name: mine\ntasks:\n  - name: a\n    kind: text\n    data: data.jsonl\n";
    let good = br#"{"id": "a", "text": "x"}"#;
    for (yaml, data, file, says, help) in [
        (
            yaml,
            &b"\n{\"id\": \"a\"}"[..],
            "data.jsonl",
            "line 2: missing field `text`",
            "one JSON object per line",
        ),
        (yaml, b"{\"text\": \"ok\"}\n\xff", "data.jsonl", "line 2: not UTF-8", "UTF-8"),
        (yaml, b"", "data.jsonl", "holds no document", "one JSON object per line"),
        (
            &format!("{yaml}    limits: 3\n"),
            good,
            "suite.yaml",
            "unknown field `limits`",
            "did you mean `limit`?",
        ),
        (&format!("{yaml}    limit: many\n"), good, "suite.yaml", "line 6", "example"),
        (
            &yaml.replace("data.jsonl", "../data.jsonl"),
            good,
            "suite.yaml",
            "inside the suite's folder",
            "beside the YAML",
        ),
    ] {
        let error = refused(yaml, data);
        let message = error.to_string();
        assert!(
            message.contains(file) && message.contains(says),
            "{message:?} should name {file} and {says:?}"
        );
        assert!(error.help().is_some_and(|h| h.contains(help)), "{:?} should say {help:?}", error.help());
    }
}

#[test]
fn a_text_too_short_for_the_protocol_says_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("note.txt");
    std::fs::write(&path, "only a few words").expect("written");
    let suite: Suite = suite::from_text(&path).expect("a text");
    let protocol = Protocol::parse("llama.cpp", None, None).expect("a protocol");
    let error = render(&suite, &protocol, Some(256), None).expect_err("too short");
    assert_eq!(error.to_string(), "task `note`, document `note`: 17 tokens are less than two windows, 1024");
    assert_eq!(error.help(), Some("use `--protocol strided`, or a `--window` of at most 8"));
    std::fs::write(&path, " \n").expect("written");
    let error = suite::from_text(&path).expect_err("empty");
    assert!(error.to_string().ends_with("note.txt: the text is empty"));
}
