//! Windows by hand, and each protocol against its closed form, token by token.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const BOS: u32 = 900;
const PREFIX: u32 = 901;

/// A document whose token ids are their own indexes, so that tables below can be read.
fn document(length: usize) -> Vec<u32> {
    (0..length as u32).collect()
}

/// Each target's index in the document with the tokens it is predicted from, as an oracle would list them.
fn contexts(cut: &Cut) -> BTreeMap<usize, Vec<u32>> {
    let mut contexts = BTreeMap::new();
    for window in &cut.windows {
        for (i, target) in window.scored.clone().enumerate() {
            assert_eq!(
                window.tokens[target] as usize,
                window.source + i,
                "a target is not the document's token"
            );
            let twice = contexts.insert(window.source + i, window.tokens[..target].to_vec());
            assert_eq!(twice, None, "a token is scored twice");
        }
    }
    contexts
}

/// Windows as `(tokens, scored, source)`.
fn check(
    protocol: Protocol,
    length: usize,
    bos: Option<u32>,
    expect: &[(&[u32], Range<usize>, usize)],
) -> Cut {
    let cut = cut(&protocol, &document(length), bos, Some(PREFIX)).unwrap();
    let windows: Vec<_> = cut.windows.iter().map(|w| (&w.tokens[..], w.scored.clone(), w.source)).collect();
    assert_eq!(windows, expect);
    cut
}

#[test]
fn llama_cpp_by_hand() {
    // The stream is B 0 1 … 12 (14 tokens): two windows of 5, tail of 4. Targets: indexes 3 and 4.
    let cut = check(
        Protocol::LlamaCpp { n_ctx: 5 },
        13,
        Some(BOS),
        &[(&[BOS, 0, 1, 2, 3], 3..5, 2), (&[BOS, 5, 6, 7, 8], 3..5, 7)],
    );
    // Unscored: 0 1, and 4 (replaced by BOS) 5 6. Dropped: 9 10 11 12.
    assert_eq!((cut.unscored_tokens, cut.dropped_tokens), (5, 4));
    let cut = check(
        Protocol::LlamaCpp { n_ctx: 6 },
        13,
        None,
        &[(&[0, 1, 2, 3, 4, 5], 4..6, 4), (&[6, 7, 8, 9, 10, 11], 4..6, 10)],
    );
    assert_eq!((cut.unscored_tokens, cut.dropped_tokens), (8, 1));
}

#[test]
fn llama_cpp_needs_two_windows() {
    let protocol = Protocol::LlamaCpp { n_ctx: 8 };
    let cut = |length, bos| cut(&protocol, &document(length), bos, None).map(|c| c.windows.len());
    assert_eq!(cut(15, None), Err(Shortage::Tokens { available: 15, needed: 16 }));
    assert_eq!(cut(14, Some(BOS)), Err(Shortage::Tokens { available: 15, needed: 16 }));
    assert_eq!(cut(15, Some(BOS)), Ok(2));
    assert_eq!(cut(16, None), Ok(2));
}

#[test]
fn llama_cpp_scores_255_of_512() {
    // llama-perplexity's own count for the default window: 512 − 512/2 − 1.
    let cut = cut(&Protocol::LlamaCpp { n_ctx: 512 }, &document(40 * 512 + 99), None, None).unwrap();
    assert_eq!(cut.windows.iter().map(|w| w.scored.len()).sum::<usize>(), 40 * 255);
    assert_eq!(cut.windows[0].scored, 257..512);
}

#[test]
fn lm_eval_by_hand() {
    check(
        Protocol::LmEval { max_length: 4 },
        10,
        Some(BOS),
        &[
            (&[PREFIX, 0, 1, 2, 3], 1..5, 0),
            (&[3, 4, 5, 6, 7], 1..5, 4),
            // Two targets are left; left context fills the input up to 4 tokens (5 6 7 8).
            (&[5, 6, 7, 8, 9], 3..5, 8),
        ],
    );
    check(Protocol::LmEval { max_length: 4 }, 3, None, &[(&[PREFIX, 0, 1, 2], 1..4, 0)]);
    check(Protocol::LmEval { max_length: 4 }, 0, None, &[]);
    check(Protocol::LmEval { max_length: 1 }, 2, None, &[(&[PREFIX, 0], 1..2, 0), (&[0, 1], 1..2, 1)]);
    let none = cut(&Protocol::LmEval { max_length: 4 }, &document(3), Some(BOS), None);
    assert_eq!(none, Err(Shortage::Prefix));
}

#[test]
fn strided_by_hand() {
    let protocol = Protocol::Strided { window: 6, stride: 2 };
    let cut = check(
        protocol.clone(),
        9,
        None,
        &[(&[0, 1, 2, 3, 4, 5], 1..6, 1), (&[2, 3, 4, 5, 6, 7], 4..6, 6), (&[4, 5, 6, 7, 8], 4..5, 8)],
    );
    assert_eq!((cut.unscored_tokens, cut.dropped_tokens), (1, 0));
    let cut = check(
        protocol.clone(),
        7,
        Some(BOS),
        &[(&[BOS, 0, 1, 2, 3, 4], 1..6, 0), (&[1, 2, 3, 4, 5, 6], 4..6, 5)],
    );
    assert_eq!((cut.unscored_tokens, cut.dropped_tokens), (0, 0));
    // A document that just fills the first window has no second one.
    check(protocol.clone(), 6, None, &[(&[0, 1, 2, 3, 4, 5], 1..6, 1)]);
    check(protocol.clone(), 1, Some(BOS), &[(&[BOS, 0], 1..2, 0)]);
    assert_eq!(check(protocol.clone(), 1, None, &[]).unscored_tokens, 1);
    assert_eq!(check(protocol.clone(), 0, None, &[]).unscored_tokens, 0);
    assert_eq!(check(protocol, 0, Some(BOS), &[]).unscored_tokens, 0);
}

#[test]
fn names_defaults_and_sizes() {
    let parse = |name, window, stride| Protocol::parse(name, window, stride);
    assert_eq!(parse("llama.cpp", None, None).unwrap(), Protocol::LlamaCpp { n_ctx: 512 });
    assert_eq!(parse("lm-eval", None, None).unwrap(), Protocol::LmEval { max_length: 2048 });
    assert_eq!(parse("strided", None, None).unwrap(), Protocol::Strided { window: 512, stride: 256 });
    assert_eq!(parse("strided", Some(9), None).unwrap(), Protocol::Strided { window: 9, stride: 4 });
    for name in Protocol::NAMES {
        let protocol = parse(name, Some(64), None).unwrap();
        assert_eq!(protocol.name(), name);
        assert!(
            protocol.describe().starts_with(&format!("{name}: ")) && protocol.describe().contains(" 64 ")
        );
        let json = serde_json::to_value(&protocol).unwrap();
        assert_eq!(json["name"], name);
        assert_eq!(serde_json::from_value::<Protocol>(json).unwrap(), protocol);
    }
    for (name, window, stride, problem) in [
        ("llama.cpp", Some(2), None, "scores nothing"),
        ("llama.cpp", None, Some(256), "has no stride"),
        ("lm-eval", Some(0), None, "scores nothing"),
        ("lm-eval", Some(8), Some(4), "has no stride"),
        ("strided", Some(8), Some(8), "does not fit"),
        ("strided", Some(8), Some(0), "does not fit"),
        ("strided", Some(1), None, "does not fit"),
        ("stride", None, None, "unknown protocol"),
    ] {
        let error = parse(name, window, stride).unwrap_err();
        assert!(error.to_string().contains(problem), "{name} {window:?} {stride:?}: {error}");
    }
    assert_eq!(parse("stride", None, None).unwrap_err().help(), Some("did you mean `strided`?"));
    assert_eq!(
        parse("x", None, None).unwrap_err().help(),
        Some("use one of `llama.cpp`, `lm-eval`, `strided`")
    );
}

#[test]
fn impossible_sizes_are_refused_not_run() {
    for protocol in [
        Protocol::LlamaCpp { n_ctx: 0 },
        Protocol::LmEval { max_length: 0 },
        Protocol::Strided { window: 4, stride: 4 },
        Protocol::Strided { window: 4, stride: 0 },
    ] {
        assert_eq!(cut(&protocol, &document(20), None, Some(PREFIX)), Err(Shortage::Sizes), "{protocol:?}");
    }
    let huge = Protocol::Strided { window: usize::MAX, stride: 1 };
    assert_eq!(cut(&huge, &document(20), None, None).unwrap().windows.len(), 1);
    let huge = Protocol::LlamaCpp { n_ctx: usize::MAX };
    assert!(matches!(cut(&huge, &document(20), None, None), Err(Shortage::Tokens { .. })));
}

fn bos() -> impl Strategy<Value = Option<u32>> {
    prop_oneof![Just(None), Just(Some(BOS))]
}

proptest! {
    // Each oracle states, token by token, what the token is predicted from: no windows are walked.

    #[test]
    fn llama_cpp_is_its_closed_form(n_ctx in 3usize..20, length in 0usize..150, bos in bos()) {
        let stream: Vec<u32> = bos.into_iter().chain(document(length)).collect();
        let cut = cut(&Protocol::LlamaCpp { n_ctx }, &document(length), bos, None);
        if stream.len() < 2 * n_ctx {
            prop_assert_eq!(cut, Err(Shortage::Tokens { available: stream.len(), needed: 2 * n_ctx }));
            return Ok(());
        }
        let mut expect = BTreeMap::new();
        for i in 0..stream.len() {
            let (window, place) = (i / n_ctx, i % n_ctx);
            if place > n_ctx / 2 && (window + 1) * n_ctx <= stream.len() {
                let mut context = stream[window * n_ctx..i].to_vec();
                context[0] = bos.unwrap_or(context[0]);
                expect.insert(stream[i] as usize, context);
            }
        }
        let cut = cut.unwrap();
        prop_assert_eq!(contexts(&cut), expect.clone());
        prop_assert_eq!(cut.dropped_tokens, stream.len() % n_ctx);
        prop_assert_eq!(expect.len() + cut.unscored_tokens + cut.dropped_tokens, length);
        prop_assert!(cut.windows.iter().all(|w| w.tokens.len() == n_ctx));
    }

    #[test]
    fn lm_eval_is_its_closed_form(max_length in 1usize..20, length in 0usize..150) {
        let tokens = document(length);
        let cut = cut(&Protocol::LmEval { max_length }, &tokens, None, Some(PREFIX)).unwrap();
        let expect: BTreeMap<usize, Vec<u32>> = (0..length).map(|i| {
            let end = length.min((i / max_length + 1) * max_length);
            // The window's inputs are the `max_length` tokens before its last target; the prefix is token −1.
            let context = match (end.checked_sub(max_length + 1), i < max_length) {
                (Some(first), false) => tokens[first..i].to_vec(),
                _ => [&[PREFIX], &tokens[..i]].concat(),
            };
            (i, context)
        }).collect();
        prop_assert_eq!(contexts(&cut), expect);
        prop_assert_eq!((cut.unscored_tokens, cut.dropped_tokens), (0, 0));
        for window in &cut.windows {
            prop_assert!(window.tokens.len() <= max_length + 1 && window.scored.len() <= max_length);
            prop_assert_eq!(window.scored.end, window.tokens.len());
        }
    }

    #[test]
    fn strided_is_its_closed_form(
        (window, stride) in (2usize..20).prop_flat_map(|w| (Just(w), 1..w)),
        length in 0usize..150,
        bos in bos(),
    ) {
        let stream: Vec<u32> = bos.into_iter().chain(document(length)).collect();
        let cut = cut(&Protocol::Strided { window, stride }, &document(length), bos, None).unwrap();
        // Token i belongs to the first window that reaches it: the smallest k with k·stride + window > i.
        let expect: BTreeMap<usize, Vec<u32>> = (1..stream.len()).map(|i| {
            let k = (i + 1).saturating_sub(window).div_ceil(stride);
            (stream[i] as usize, stream[k * stride..i].to_vec())
        }).collect();
        prop_assert_eq!(contexts(&cut), expect.clone());
        prop_assert_eq!(expect.len() + cut.unscored_tokens, length);
        prop_assert_eq!(cut.dropped_tokens, 0);
        for (index, w) in cut.windows.iter().enumerate() {
            prop_assert!(w.tokens.len() <= window && !w.scored.is_empty());
            prop_assert!(index == 0 || (w.scored.start == window - stride && w.scored.len() <= stride));
        }
    }
}
