//! Generation against a reference text, against the same model read at once, and against itself in other batches;
//! and shared prefixes against requests computed one by one.
//!
//! Needs ../shared: the reference text.

use std::path::Path;

use candle_core::Device;
use qeval::{
    checkpoint::Checkpoint,
    cousin::Recipe,
    evaluate::{
        self, Base, Settings,
        generate::{GenerateSettings, Prompt, Stop, Written, generate},
        sampling::Sampling,
        trace,
    },
    model::Decoder,
    progress::Silent,
    suite::Request,
    tokenizer::Tokenizer,
};

use crate::support::{demo_cousin, demo_weights, shared, stories};

fn open(path: &Path, steps: &str) -> (Decoder, Tokenizer) {
    let recipe = Recipe::parse(format!("{}{steps}", path.display()).as_ref()).unwrap();
    let checkpoint = Checkpoint::open(&recipe.path).unwrap();
    let config = checkpoint.config().unwrap().unwrap();
    let tokenizer = Tokenizer::of(&checkpoint).unwrap().unwrap();
    let decoder = Decoder::open(&checkpoint, config, &Device::Cpu).unwrap();
    (recipe.apply(&decoder).unwrap(), tokenizer)
}

fn settings(batch: usize, memory: u64) -> GenerateSettings {
    GenerateSettings { batch, memory, end_of_sequence: Vec::new(), seed: 5 }
}

fn prompt(tokens: Vec<u32>, max_new_tokens: usize, number: u64) -> Prompt {
    Prompt { tokens, max_new_tokens, sampling: None, repeat: 0, number }
}

fn write(decoder: &Decoder, prompts: &[Prompt], settings: &GenerateSettings) -> Vec<Written> {
    generate(decoder, prompts, settings, &|_, _| false, &Silent).unwrap()
}

#[test]
fn greedy_text_equals_the_reference() {
    let Some(model) = shared("models/stories260k") else { return };
    let (decoder, tokenizer) = open(&model.join("model.safetensors"), "");
    let expected = std::fs::read_to_string(model.join("greedy.txt")).unwrap();
    let prompts = [prompt(vec![tokenizer.bos().unwrap()], 290, 0)];
    let written = write(&decoder, &prompts, &settings(1, 1 << 30)).remove(0);
    assert_eq!((written.stop, written.tokens.len()), (Stop::Length, 290));
    let text = tokenizer.decode_answer(&written.tokens);
    let words: Vec<&str> = text.split_whitespace().collect();
    let expected: Vec<&str> = expected.split_whitespace().collect();
    assert!(expected.len() > 100);
    assert_eq!(words[..expected.len()], expected);
}

/// Beginnings of stories in several languages, prompts that begin alike, and one of a single token.
fn prompts(tokenizer: &Tokenizer, count: usize) -> Vec<Prompt> {
    let head = tokenizer.encode(&(stories("en")[..3].join("\n") + "\n")).unwrap().ids;
    let languages = ["en", "zh", "ru", "hi", "de"].map(|language| stories(language).split_off(3));
    // One of each language in turn.
    let texts = (0..languages[0].len()).flat_map(|at| languages.iter().map(move |stories| &stories[at]));
    let mut prompts: Vec<Prompt> = texts
        .take(count)
        .enumerate()
        .map(|(number, text)| {
            let mut text = tokenizer.encode(text).unwrap().ids;
            text.truncate(12);
            prompt([head.clone(), text].concat(), 12 + number % 9, number as u64)
        })
        .collect();
    prompts.push(prompt(vec![tokenizer.encode("The").unwrap().ids[0]], 20, 99));
    prompts
}

/// The first token at which a text differs from reading it all at once, with the gap between the two likeliest there.
fn first_difference(decoder: &Decoder, prompt: &Prompt, written: &Written) -> Option<(usize, f32)> {
    let all = [prompt.tokens.clone(), written.tokens.clone()].concat();
    let logits = trace::trace(decoder, &all).unwrap().logits.to_vec2::<f32>().unwrap();
    written.tokens.iter().enumerate().find_map(|(step, token)| {
        let row = &logits[prompt.tokens.len() + step - 1];
        let mut sorted = row.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let best = row.iter().position(|x| *x == sorted[0]).unwrap() as u32;
        (best != *token).then_some((step, sorted[0] - sorted[1]))
    })
}

/// Writing token by token equals reading at once, whatever the KV cache, the activations and the batch; where not,
/// the two likeliest tokens are within rounding.
#[test]
fn writing_equals_reading_at_once() {
    // Schemes that round amplify what adding in another order makes of a tie: a larger gap is allowed, and needed
    // only there.
    for (path, steps, gap) in [
        (demo_weights(), "", 1e-4),
        (demo_cousin("q4_k_m"), "", 1e-4),
        (demo_weights(), "@kv=q8_0", 5e-2),
        (demo_weights(), "@kv=kivi4", 5e-2),
        (demo_weights(), "@w8a8", 5e-2),
    ] {
        let (decoder, tokenizer) = open(&path, steps);
        let path = path.display();
        // What rounds is written more slowly: every step stores the whole past anew.
        let prompts = prompts(&tokenizer, if gap < 1e-3 { 12 } else { 4 });
        let alone: Vec<Written> = prompts
            .iter()
            .flat_map(|one| write(&decoder, std::slice::from_ref(one), &settings(1, 1 << 30)))
            .collect();
        let together = write(&decoder, &prompts, &settings(64, 1 << 30));
        let few = write(&decoder, &prompts, &settings(3, 1 << 30));
        // Too little for all weights: decoded layer by layer at every step.
        let streamed = write(&decoder, &prompts, &settings(5, 14 << 20));
        for all in [&alone, &together, &few, &streamed] {
            assert_eq!(all.len(), prompts.len());
            for (prompt, written) in prompts.iter().zip(all) {
                assert_eq!(written.tokens.len(), prompt.max_new_tokens);
                if let Some((step, seen)) = first_difference(&decoder, prompt, written) {
                    assert!(seen < gap, "{path}{steps}: prompt {} step {step}: gap {seen}", prompt.number);
                }
            }
        }
        if gap < 1e-3 {
            assert!(alone == together && together == few && few == streamed, "{path}");
        }
    }
}

#[test]
fn end_of_sequence_texts_and_draws() {
    let (decoder, tokenizer) = open(&demo_weights(), "");
    let asks = prompts(&tokenizer, 6);
    let plain = write(&decoder, &asks, &settings(4, 1 << 30));
    // The third token of each answer is made to end it.
    for (ask, written) in asks.iter().zip(&plain) {
        let end = written.tokens[2];
        let ending = GenerateSettings { end_of_sequence: vec![end], ..settings(4, 1 << 30) };
        let stopped = write(&decoder, std::slice::from_ref(ask), &ending).remove(0);
        let until = written.tokens.iter().position(|token| *token == end).unwrap();
        assert_eq!(
            (stopped.stop, stopped.tokens.as_slice()),
            (Stop::EndOfSequence, &written.tokens[..until])
        );
    }
    let ends = |index: usize, tokens: &[u32]| index == 1 && tokens.len() == 4;
    let stopped = generate(&decoder, &asks, &settings(4, 1 << 30), &ends, &Silent).unwrap();
    assert_eq!((stopped[1].stop, stopped[1].tokens.as_slice()), (Stop::Text, &plain[1].tokens[..4]));
    assert_eq!(stopped[2], plain[2]);

    let sampling = Sampling { temperature: 1.5, top_p: 0.95, top_k: None };
    let drawn = |batch: usize, repeat: u64, seed: u64| {
        let draws: Vec<Prompt> =
            asks.iter().map(|ask| Prompt { sampling: Some(sampling), repeat, ..ask.clone() }).collect();
        write(&decoder, &draws, &GenerateSettings { seed, ..settings(batch, 1 << 30) })
    };
    assert_eq!(drawn(2, 0, 5), drawn(64, 0, 5));
    assert_ne!(drawn(2, 0, 5), drawn(2, 1, 5));
    assert_ne!(drawn(2, 0, 5), drawn(2, 0, 6));
    assert_ne!(drawn(2, 0, 5), plain);
    // Almost without temperature, a draw is the greedy answer.
    let cold = Sampling { temperature: 1e-4, ..sampling };
    let cold: Vec<Prompt> = asks.iter().map(|ask| Prompt { sampling: Some(cold), ..ask.clone() }).collect();
    assert_eq!(write(&decoder, &cold, &settings(4, 1 << 30)), plain);
}

#[test]
fn too_little_memory_says_so() {
    let (decoder, tokenizer) = open(&demo_weights(), "");
    let error = generate(&decoder, &prompts(&tokenizer, 2), &settings(4, 1 << 16), &|_, _| false, &Silent);
    let error = error.unwrap_err();
    assert!(error.to_string().contains("for one sequence"), "{error}");
    assert!(error.help().unwrap().contains("--memory"));
    let empty = [prompt(Vec::new(), 4, 0)];
    assert!(generate(&decoder, &empty, &settings(4, 1 << 30), &|_, _| false, &Silent).is_err());
}

/// Few-shot prompt, questions, answers: sharing what they begin with changes no figure beyond the order of additions.
#[test]
fn shared_prefixes_equal_requests_one_by_one() {
    for (quant_path, steps, bound) in [
        (demo_cousin("q4_k_m"), "", 2e-5),
        (demo_weights(), "@kv=kivi2", 2e-3),
        (demo_weights(), "@w8a8", 2e-2),
        (demo_weights(), "@llm_int8", 2e-2),
    ] {
        let (base, tokenizer) = open(&demo_weights(), "");
        let (quant, _) = open(&quant_path, steps);
        let quant_path = quant_path.display();
        let mut requests = Vec::new();
        for (document, ask) in prompts(&tokenizer, 20).iter().enumerate() {
            for (window, answer) in
                [" the coat to Omar.", " the lamp to Karim in Paris.", " No.", " the"].iter().enumerate()
            {
                let answer = tokenizer.encode(answer).unwrap().ids;
                let tokens = [ask.tokens.clone(), answer.clone()].concat();
                requests.push(Request {
                    task: 0,
                    document: document as u32,
                    window: window as u32,
                    scored: ask.tokens.len()..tokens.len(),
                    bytes: vec![0; answer.len()],
                    tokens,
                });
            }
        }
        let run = |share_prefixes: bool| {
            let settings = Settings {
                chunk_tokens: 3000,
                probe_tokens: Some(0),
                probe_linears: false,
                compare_weights: false,
                probe_requests: usize::MAX,
                share_prefixes,
                seed: 0,
                scratch_folder: std::env::temp_dir(),
            };
            let quants = std::slice::from_ref(&quant);
            evaluate::run(Base::Model(&base), quants, &requests, base.config.vocab_size, &settings, &Silent)
                .unwrap()
        };
        let (shared, apart) = (run(true), run(false));
        // Schemes that look at whole requests share nothing; the others compute much less.
        let whole = quant.needs_whole_requests();
        assert_eq!(whole, steps == "@llm_int8");
        let ratio = apart.floating_point_operations / shared.floating_point_operations;
        assert!(if whole { (ratio - 1.0).abs() < 1e-9 } else { ratio > 2.0 }, "{quant_path}{steps}: {ratio}");
        assert_eq!(shared.base_tokens.as_slice().len(), apart.base_tokens.as_slice().len());
        for (a, b) in shared.base_tokens.as_slice().iter().zip(apart.base_tokens.as_slice()) {
            assert_eq!(
                (a.document, a.window, a.position, a.token),
                (b.document, b.window, b.position, b.token)
            );
            assert!((a.nll - b.nll).abs() < 2e-5, "{} {}", a.nll, b.nll);
        }
        let worst = shared.quants[0].tokens.as_slice().iter().zip(apart.quants[0].tokens.as_slice());
        let worst = worst.map(|(a, b)| (a.nll - b.nll).abs()).fold(0.0, f64::max);
        assert!(worst < bound, "{quant_path}{steps}: {worst}");
    }
}
