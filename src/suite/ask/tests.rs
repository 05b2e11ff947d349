//! Prompts by hand: what is joined, what is scored, what is cut.

use std::sync::Arc;

use serde_json::Value;

use super::super::question::{ChoiceOption, Metric, Shot};
use super::super::{Content, TokenizedText};
use super::*;

const BOS: u32 = 1;

/// One token per character.
fn characters(text: &str) -> Result<TokenizedText> {
    let offsets = text.char_indices().map(|(at, c)| (at, at + c.len_utf8())).collect();
    Ok(TokenizedText { ids: text.chars().map(u32::from).collect(), offsets })
}

/// The same, where `^` is BOS.
fn chat_characters(text: &str) -> Result<Vec<u32>> {
    Ok(text.chars().map(|c| if c == '^' { BOS } else { u32::from(c) }).collect())
}

fn conversation(turns: &[Turn]) -> Result<String> {
    let turn = |turn: &Turn| match turn {
        Turn::System(text) => format!("[S:{text}]"),
        Turn::User(text) => format!("[U:{text}]"),
        Turn::Assistant(text) => format!("[A:{text}]"),
    };
    Ok(format!("^{}[A:", turns.iter().map(turn).collect::<String>()))
}

fn reader(bos: Option<u32>, max_length: usize) -> Reader<'static> {
    Reader {
        bos,
        prefix: Some(BOS),
        max_length,
        tokenize: &characters,
        tokenize_question: &chat_characters,
        chat: None,
        chat_choices: false,
    }
}

fn sample(question: &str, answer: Answer) -> Sample {
    Sample {
        id: "s".into(),
        doc_id: 0,
        cluster: "s".into(),
        level: None,
        shots: Arc::from([]),
        question: question.into(),
        answer_prefix: String::new(),
        answer,
        record: Value::Null,
    }
}

fn choices(options: &[&str]) -> Answer {
    let option = |text: &&str| ChoiceOption {
        continuation: (*text).to_owned(),
        question: None,
        normalizer: (*text).to_owned(),
    };
    Answer::Choice { options: options.iter().map(option).collect(), gold: vec![0] }
}

fn questions(kind: QuestionKind, samples: Vec<Sample>) -> Questions {
    Questions {
        kind,
        description: String::new(),
        target_delimiter: " ".into(),
        fewshot_delimiter: "\n\n".into(),
        samples,
        metrics: vec![Metric::Acc],
        filters: Vec::new(),
        left_out: Vec::new(),
    }
}

fn asked(questions: &Questions, reader: &Reader) -> Asked {
    let content = Content::Questions(questions.clone());
    let task = Task { name: "t".into(), language: "en".into(), group: None, content };
    ask(3, &task, questions, reader).unwrap()
}

fn text(tokens: &[u32]) -> String {
    tokens.iter().map(|id| if *id == BOS { '^' } else { char::from_u32(*id).unwrap() }).collect()
}

/// Context and scored part of every request, joined by `|`.
fn seen(asked: &Asked) -> Vec<String> {
    let split = |request: &Request| {
        let (before, scored) = request.tokens.split_at(request.scored.start);
        format!("{}|{}", text(before), text(scored))
    };
    asked.requests.iter().map(split).collect()
}

#[test]
fn an_option_is_scored_after_its_context() {
    let two = questions(QuestionKind::Choice, vec![sample("Q?", choices(&["yes", "no"]))]);
    let both = asked(&two, &reader(Some(BOS), 100));
    assert_eq!(seen(&both), ["^Q?| yes", "^Q?| no"]);
    let places: Vec<_> =
        both.requests.iter().map(|r| (r.task, r.document, r.window, r.bytes.len())).collect();
    assert_eq!(places, [(3, 0, 0, 4), (3, 0, 1, 3)]);
    assert_eq!((both.counts.documents, both.counts.scored_tokens, both.counts.samples_cut), (1, 7, 0));
    assert_eq!(seen(&asked(&two, &reader(None, 100))), ["Q?| yes", "Q?| no"]);
}

#[test]
fn white_space_at_the_end_of_a_context_is_scored() {
    let spaced = questions(QuestionKind::Choice, vec![sample("Q?\n ", choices(&["yes", "no"]))]);
    assert_eq!(seen(&asked(&spaced, &reader(None, 100)))[0], "Q?|\n  yes");
    // Without a context there is the prefix token, once.
    let bare = questions(QuestionKind::Choice, vec![sample("", choices(&["yes", "no"]))]);
    assert_eq!(seen(&asked(&bare, &reader(Some(BOS), 100)))[0], "^| yes");
}

#[test]
fn a_prompt_is_description_examples_and_question() {
    let mut one = sample("Q2?", Answer::Continuation("b".into()));
    one.shots = Arc::from([Shot { question: "Q1?".into(), answer: "a".into() }]);
    let mut few = questions(QuestionKind::Continuation, vec![one.clone()]);
    few.description = "Answer!\n\n".into();
    assert_eq!(seen(&asked(&few, &reader(None, 100))), ["Answer!\n\nQ1? a\n\nQ2?| b"]);
    // An answer's given beginning belongs to the context.
    few.samples[0].answer_prefix = "It is".into();
    assert_eq!(seen(&asked(&few, &reader(None, 100))), ["Answer!\n\nQ1? a\n\nQ2? It is| b"]);
    let pairs = arguments(&few, &few.samples[0], &reader(None, 100)).unwrap();
    assert_eq!(pairs, [("Answer!\n\nQ1? a\n\nQ2? It is".to_owned(), " b".to_owned())]);
}

#[test]
fn options_may_have_contexts_of_their_own() {
    let mut answer = choices(&["was late.", "was late."]);
    if let Answer::Choice { options, .. } = &mut answer {
        options[0].question = Some("Ann because she".into());
        options[1].question = Some("Ann because he".into());
    }
    let own = questions(QuestionKind::Choice, vec![sample("unused", answer)]);
    assert_eq!(
        seen(&asked(&own, &reader(None, 99))),
        ["Ann because she| was late.", "Ann because he| was late."]
    );
}

#[test]
fn what_is_too_long_is_cut_on_the_left_and_counted() {
    let long = questions(QuestionKind::Choice, vec![sample("abcdefgh", choices(&["xy", "z"]))]);
    // Five tokens are read, the sixth is only predicted.
    let cut = asked(&long, &reader(Some(BOS), 5));
    assert_eq!(seen(&cut), ["fgh| xy", "efgh| z"]);
    assert_eq!((cut.counts.samples_cut, cut.counts.answer_tokens_cut), (1, 0));
    let tiny = asked(&long, &reader(Some(BOS), 1));
    assert_eq!(seen(&tiny), ["x|y", " |z"]);
    assert_eq!((tiny.counts.samples_cut, tiny.counts.answer_tokens_cut), (1, 3));
}

fn generation(max_new_tokens: usize) -> QuestionKind {
    QuestionKind::Generation(GenerationSettings {
        until: vec!["\n".into()],
        max_new_tokens,
        sampling: None,
        repeats: 1,
    })
}

#[test]
fn a_written_answer_leaves_room() {
    let one = vec![sample("abcdefgh", Answer::Generation(vec!["x".into()]))];
    let whole = asked(&questions(generation(10), one.clone()), &reader(Some(BOS), 20));
    assert_eq!((text(&whole.prompts[0].tokens), whole.prompts[0].cut_tokens), ("^abcdefgh".to_owned(), 0));
    let cut = asked(&questions(generation(16), one.clone()), &reader(Some(BOS), 20));
    assert_eq!((text(&cut.prompts[0].tokens), cut.prompts[0].cut_tokens), ("efgh".to_owned(), 5));
    assert_eq!(cut.counts.samples_cut, 1);
    let task =
        Task { name: "t".into(), language: "en".into(), group: None, content: Content::Text(Vec::new()) };
    let error = ask(0, &task, &questions(generation(20), one), &reader(None, 20)).unwrap_err();
    assert!(error.to_string().contains("leave no room"), "{error}");
}

#[test]
fn a_conversation_has_no_delimiters_and_one_bos() {
    let mut one = sample("Q2?", choices(&["yes", "no"]));
    one.shots = Arc::from([Shot { question: "Q1?".into(), answer: "a".into() }]);
    let mut few = questions(QuestionKind::Choice, vec![one.clone()]);
    few.description = "Be brief.\n".into();
    let chat = Reader { chat: Some(&conversation), chat_choices: true, ..reader(Some(BOS), 100) };
    assert_eq!(seen(&asked(&few, &chat))[0], "^[S:Be brief.][U:Q1?][A:a][U:Q2?][A:|yes");
    // Unless they are to be, choices are no conversations; written answers are.
    let auto = Reader { chat_choices: false, ..chat };
    assert_eq!(seen(&asked(&few, &auto))[0], "^Be brief.\nQ1? a\n\nQ2?| yes");
    let written = sample("Q2?", Answer::Generation(vec!["x".into()]));
    let written = asked(&questions(generation(5), vec![written]), &auto);
    assert_eq!(text(&written.prompts[0].tokens), "^[U:Q2?][A:");
    // A template that writes no BOS gets one.
    let plain = |_: &[Turn]| -> Result<String> { Ok("[A:".into()) };
    let bare = Reader { chat: Some(&plain), ..chat };
    assert_eq!(seen(&asked(&few, &bare))[0], "^[A:|yes");
}

#[test]
fn a_rolling_text_is_predicted_as_a_whole() {
    let one = questions(QuestionKind::Rolling, vec![sample("abcdef", Answer::Text)]);
    // The harness also scores the BOS that a tokenizer adds.
    assert_eq!(seen(&asked(&one, &reader(Some(BOS), 4))), ["^|^abc", "bc|def"]);
    assert_eq!(seen(&asked(&one, &reader(None, 100))), ["^|abcdef"]);
}
