//! Requests by hand, the bookkeeping of bytes and tokens, and what is refused.

use proptest::prelude::*;

use super::*;

fn suite(tasks: &[&[&str]]) -> Suite {
    let document = |(i, text): (usize, &&str)| Document { id: format!("d{i}"), text: text.to_string() };
    let task = |(i, texts): (usize, &&[&str])| Task {
        name: format!("t{i}"),
        language: "en".into(),
        group: None,
        content: Content::Text(texts.iter().enumerate().map(document).collect()),
    };
    Suite {
        name: "s".into(),
        version: 1,
        description: String::new(),
        license: String::new(),
        seed: 0,
        tasks: tasks.iter().enumerate().map(task).collect(),
        sha256: String::new(),
    }
}

/// As a model's tokenizer would be described; conversations are not asked for.
fn render(
    suite: &Suite,
    protocol: &Protocol,
    bos: Option<u32>,
    prefix: Option<u32>,
    tokenize: &dyn Fn(&str) -> Result<TokenizedText>,
) -> Result<Rendered> {
    let tokenize_question = |text: &str| tokenize(text).map(|text| text.ids);
    let reader = Reader {
        bos,
        prefix,
        max_length: 1024,
        tokenize,
        tokenize_question: &tokenize_question,
        chat: None,
        chat_choices: false,
    };
    super::render(suite, protocol, &reader)
}

/// One token per ASCII character; two per other character, which share its range.
fn characters(text: &str) -> Result<TokenizedText> {
    let mut tokenized = TokenizedText::default();
    for (start, c) in text.char_indices() {
        for half in 0..if c.is_ascii() { 1 } else { 2 } {
            tokenized.ids.push(c as u32 * 2 + half);
            tokenized.offsets.push((start, start + c.len_utf8()));
        }
    }
    Ok(tokenized)
}

const STRIDED: Protocol = Protocol::Strided { window: 4, stride: 2 };

#[test]
fn requests_by_hand() {
    let rendered = render(&suite(&[&["abcde"], &["é", "xy"]]), &STRIDED, Some(1), None, &characters).unwrap();
    let [a, b, c, d, e] = ['a', 'b', 'c', 'd', 'e'].map(|c| c as u32 * 2);
    let (accent, x, y) = ('é' as u32 * 2, 'x' as u32 * 2, 'y' as u32 * 2);
    let expect = [
        ((0, 0, 0), vec![1, a, b, c], 1..4, vec![1, 1, 1]),
        ((0, 0, 1), vec![b, c, d, e], 2..4, vec![1, 1]),
        ((1, 0, 0), vec![1, accent, accent + 1], 1..3, vec![2, 0]),
        ((1, 1, 0), vec![1, x, y], 1..3, vec![1, 1]),
    ]
    .map(|((task, document, window), tokens, scored, bytes)| Request {
        task,
        document,
        window,
        tokens,
        scored,
        bytes,
    });
    assert_eq!(rendered.requests, expect);
    let second = RenderedTask {
        name: "t1".into(),
        language: "en".into(),
        documents: 2,
        tokens: 4,
        scored_tokens: 4,
        text_bytes: 4,
        scored_bytes: 4,
        words: 2,
        ..RenderedTask::default()
    };
    assert_eq!(rendered.tasks[1], second);
}

#[test]
fn without_bos_the_first_token_and_its_bytes_are_not_scored() {
    let rendered = render(&suite(&[&["éab"]]), &STRIDED, None, None, &characters).unwrap();
    let task = &rendered.tasks[0];
    assert_eq!((task.tokens, task.scored_tokens, task.unscored_tokens), (4, 3, 1));
    // The two bytes of é belong to its first token, which is the unscored one.
    assert_eq!((task.text_bytes, task.scored_bytes), (4, 2));
}

#[test]
fn bytes_are_counted_once_whatever_the_ranges() {
    let bytes = |offsets: &[(usize, usize)], length| {
        bytes_of_tokens(&TokenizedText { ids: vec![0; offsets.len()], offsets: offsets.to_vec() }, length)
    };
    assert_eq!(bytes(&[(0, 3), (0, 3), (0, 3), (3, 4)], 4), Ok(vec![3, 0, 0, 1]));
    // Overlap, a gap that no token covers, an empty token, and one that looks back.
    assert_eq!(bytes(&[(0, 3), (2, 5), (7, 9), (9, 9), (1, 4), (3, 10)], 10), Ok(vec![3, 2, 2, 0, 0, 1]));
    assert_eq!(bytes(&[(0, 5)], 4), Err("token 0 claims the bytes 0..5 of 4".into()));
    assert_eq!(bytes(&[(0, 1), (3, 2)], 4), Err("token 1 claims the bytes 3..2 of 4".into()));
    let lost = bytes_of_tokens(&TokenizedText { ids: vec![1, 2], offsets: vec![(0, 1)] }, 4);
    assert_eq!(lost, Err("2 tokens but 1 offsets".into()));
}

#[test]
fn short_documents_are_dropped_and_counted_unless_all_are() {
    let protocol = Protocol::LlamaCpp { n_ctx: 4 };
    let rendered = render(&suite(&[&["abc", "abcdefghij", ""]]), &protocol, None, None, &characters).unwrap();
    assert!(rendered.requests.iter().all(|r| r.document == 1));
    let task = &rendered.tasks[0];
    assert_eq!((task.documents, task.documents_dropped), (3, 2));
    // Ten tokens: two windows with one target each, tail of 2; and the 3 tokens of the short one.
    assert_eq!((task.scored_tokens, task.unscored_tokens, task.dropped_tokens, task.tokens), (2, 6, 5, 13));

    let error =
        render(&suite(&[&["abcdefgh"], &["abc", "a"]]), &protocol, None, None, &characters).unwrap_err();
    let problem = "task `t1`, document `d0`: 3 tokens are less than two windows, 8 \
                   (as are the 1 other documents; documents are never joined)";
    assert_eq!(error.to_string(), problem);
    assert_eq!(error.help(), Some("use `--protocol strided`, or a `--window` of at most 1"));
}

#[test]
fn what_cannot_be_rendered_is_explained() {
    let explained = |texts: &[&str], protocol: &Protocol| {
        render(&suite(&[texts]), protocol, None, None, &characters).unwrap_err().to_string()
    };
    let prefix = explained(&["abc"], &Protocol::LmEval { max_length: 8 });
    assert!(
        prefix.starts_with("task `t0`, document `d0`: protocol `lm-eval` starts from BOS or EOS"),
        "{prefix}"
    );
    assert_eq!(explained(&["a", "b"], &STRIDED), "task `t0`: none of its 2 tokens can be scored");
    assert!(
        explained(&["abc"], &Protocol::LlamaCpp { n_ctx: 1 })
            .contains("nothing can be scored by llama.cpp: ")
    );
    let wrong = |_: &str| Ok(TokenizedText { ids: vec![1], offsets: vec![(0, 9)] });
    let error = render(&suite(&[&["abc"]]), &STRIDED, None, None, &wrong).unwrap_err().to_string();
    assert!(error.contains("document `d0`: the tokenizer's offsets are wrong: token 0 claims"), "{error}");
    let failing = |_: &str| Err(Error::argument("no", ""));
    assert_eq!(render(&suite(&[&["abc"]]), &STRIDED, None, None, &failing).unwrap_err().to_string(), "no");
}

#[test]
fn words_as_python_splits_them() {
    // Each expectation is len(re.split(r"\s+", text)) of Python 3.
    for (text, expect) in [
        ("", 1),
        ("one", 1),
        ("one two", 2),
        (" one  two\n", 4),
        ("a\u{a0}b\u{3000}c\u{85}d", 4),
        ("a\u{1c}b\u{1f}c", 3),
        ("a\u{200b}b", 1),
    ] {
        assert_eq!(count_words(text), expect, "{text:?}");
    }
}

proptest! {
    #[test]
    fn every_token_and_byte_has_one_place(
        texts in prop::collection::vec("[a-cé€😀 ]{1,40}", 1..5),
        bos in prop_oneof![Just(None), Just(Some(1u32))],
        kind in 0usize..3,
        window in 3usize..12,
    ) {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let protocol = Protocol::parse(Protocol::NAMES[kind], Some(window), None).unwrap();
        let Ok(rendered) = render(&suite(&[&texts]), &protocol, bos, Some(2), &characters) else {
            return Ok(()); // Too short; what is said then is tested above.
        };
        let task = &rendered.tasks[0];
        prop_assert_eq!(task.tokens, task.scored_tokens + task.unscored_tokens + task.dropped_tokens);
        for request in &rendered.requests {
            prop_assert_eq!(request.bytes.len(), request.scored.len());
        }
        if kind == 1 || (kind == 2 && bos.is_some()) {
            prop_assert_eq!(task.scored_bytes, task.text_bytes, "every byte is scored");
            // The targets, window after window, are the documents themselves.
            let targets: Vec<u32> =
                rendered.requests.iter().flat_map(|r| r.tokens[r.scored.clone()].to_vec()).collect();
            let whole: Vec<u32> = texts.iter().flat_map(|t| characters(t).unwrap().ids).collect();
            prop_assert_eq!(targets, whole);
        }
        prop_assert!(task.scored_bytes <= task.text_bytes);
    }
}
