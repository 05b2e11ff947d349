//! Anchors of the trained stories260k model, from implementations that share no code with this one.
//!
//! Needs ../shared: the model, its texts, what those implementations said.

use candle_core::Device;
use qeval::{
    checkpoint::Checkpoint,
    evaluate::{self, Base, Settings, trace},
    model::Decoder,
    progress::Silent,
    suite::Request,
    tokenizer::Tokenizer,
};

use crate::support::shared;

fn open(path: &str) -> Option<(Decoder, Tokenizer)> {
    let checkpoint = Checkpoint::open(&shared(path)?).unwrap();
    let config = checkpoint.config().unwrap().unwrap();
    let tokenizer = Tokenizer::of(&checkpoint).unwrap().unwrap();
    Some((Decoder::open(&checkpoint, config, &Device::Cpu).unwrap(), tokenizer))
}

#[test]
fn greedy_text_equals_the_reference() {
    let Some((decoder, tokenizer)) = open("models/stories260k/model.safetensors") else { return };
    let expected = std::fs::read_to_string(shared("models/stories260k/greedy.txt").unwrap()).unwrap();
    let mut tokens = vec![tokenizer.bos().unwrap()];
    // The reference is a few more than 200 tokens long; what follows it is not compared.
    while tokens.len() < 300 {
        let logits = trace::trace(&decoder, &tokens).unwrap().logits;
        let last = logits.get(tokens.len() - 1).unwrap();
        tokens.push(last.argmax(0).unwrap().to_scalar().unwrap());
    }
    let text = tokenizer.decode(&tokens[1..]);
    let words: Vec<&str> = text.split_whitespace().collect();
    let expected: Vec<&str> = expected.split_whitespace().collect();
    assert!(expected.len() > 100);
    assert_eq!(words[..expected.len()], expected);
}

/// BOS and the first 512 positions of each story, as the C implementation scored them.
fn story_requests(tokenizer: &Tokenizer, stories: usize) -> Option<Vec<Request>> {
    let text = std::fs::read_to_string(shared("data/text/tinystories_1000_clean.jsonl")?).unwrap();
    let requests = text.lines().take(stories).enumerate().map(|(document, line)| {
        let story: serde_json::Value = serde_json::from_str(line).unwrap();
        let mut tokens: Vec<u32> = tokenizer.bos().into_iter().collect();
        tokens.extend(tokenizer.encode(story["text"].as_str().unwrap()).unwrap().ids);
        // 512 positions read, each with the token after it as target.
        tokens.truncate(513);
        let scored = 1..tokens.len();
        let bytes = vec![0; scored.len()];
        Request { task: 0, document: document as u32, window: 0, tokens, scored, bytes }
    });
    Some(requests.collect())
}

#[test]
fn nll_of_a_thousand_stories_equals_the_c_implementation() {
    let Some((decoder, tokenizer)) = open("models/stories260k/model.safetensors") else { return };
    let Some(requests) = story_requests(&tokenizer, usize::MAX) else { return };
    let settings = Settings {
        chunk_tokens: 1 << 16,
        probe_tokens: Some(0),
        probe_linears: false,
        compare_weights: false,
        probe_requests: usize::MAX,
        share_prefixes: true,
        seed: 0,
        scratch_folder: std::env::temp_dir(),
    };
    let observed = evaluate::run(Base::Model(&decoder), &[], &requests, 512, &settings, &Silent).unwrap();
    let tokens = observed.base_tokens.as_slice();
    assert_eq!(tokens.len(), 408_707);
    let mean = |tokens: &[f64]| tokens.iter().sum::<f64>() / tokens.len() as f64;
    let all: Vec<f64> = tokens.iter().map(|token| token.nll).collect();
    assert!((mean(&all) - 1.447_128).abs() < 2e-4, "{}", mean(&all));
    for (document, (nll, targets)) in
        [(1.230_415, 319), (1.565_826, 351), (1.340_263, 413)].iter().enumerate()
    {
        let story: Vec<f64> =
            tokens.iter().filter(|t| t.document == document as u32).map(|token| token.nll).collect();
        assert_eq!(story.len(), *targets);
        assert!((mean(&story) - nll).abs() < 2e-5, "story {document}: {}", mean(&story));
    }
}
