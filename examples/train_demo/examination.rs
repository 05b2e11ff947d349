//! What the trained model can do, measured with candle alone: qeval's own figures are held against these in a test.

use anyhow::{Context as _, Result};
use serde::Serialize;
use tokenizers::Tokenizer;

use super::{
    fused::IGNORED,
    model::Model,
    suite::{Choice, DemoSuite},
    training::encode,
    world::{END_OF_TEXT, Sum},
};

/// Most tokens that a worked sum may take.
const LONGEST_SUM: usize = 80;

/// Figures of a model on the demo's suite.
#[derive(Serialize)]
pub(crate) struct Figures {
    pub(crate) languages: Vec<OfLanguage>,
    /// Share of right sums, by digits from 1.
    pub(crate) sums: Vec<f64>,
}

/// One language's.
#[derive(Serialize)]
pub(crate) struct OfLanguage {
    pub(crate) code: String,
    /// exp of the mean negative log-likelihood of a token of the held-out stories.
    pub(crate) perplexity: f64,
    /// exp of the generator's entropy per token of the same stories: no model can expect to be below.
    pub(crate) generator_perplexity: f64,
    pub(crate) tokens: usize,
    /// Negative log-likelihood and entropy of all its stories, nats.
    pub(crate) nll: f64,
    pub(crate) entropy: f64,
    /// Share of questions whose right answer is the likeliest.
    pub(crate) questions: f64,
    /// The same of stories' last sentences.
    pub(crate) endings: f64,
}

/// Asks everything.
///
/// # Errors
/// What candle or the tokenizer refuses.
pub(crate) fn examine(model: &Model, tokenizer: &Tokenizer, suite: &DemoSuite) -> Result<Figures> {
    let end = tokenizer.token_to_id(END_OF_TEXT).context("the tokenizer has no end of text")?;
    let ids = |text: &str| encode(tokenizer, text);
    let mut languages = Vec::new();
    for language in &suite.languages {
        let (mut nll, mut tokens) = (0.0, 0);
        for story in &language.stories {
            let text = ids(&story.text)?;
            nll += negative_log_likelihood(model, &[end], &text)?;
            tokens += text.len();
        }
        let entropy: f64 = language.stories.iter().map(|story| story.nats).sum();
        let right = |choices: &[Choice], delimiter: &str| -> Result<f64> {
            let mut right = 0;
            for choice in choices {
                right += usize::from(likeliest(model, tokenizer, end, choice, delimiter)? == choice.gold);
            }
            Ok(right as f64 / choices.len() as f64)
        };
        languages.push(OfLanguage {
            code: language.code.clone(),
            perplexity: (nll / tokens as f64).exp(),
            generator_perplexity: (entropy / tokens as f64).exp(),
            tokens,
            nll,
            entropy,
            questions: right(&language.choices, "\n")?,
            endings: right(&language.riddles, language.space)?,
        });
    }
    let mut sums = Vec::new();
    for digits in 1..=4 {
        let all: Vec<&Sum> =
            suite.sums.iter().map(|(_, sum)| sum).filter(|sum| sum.digits == digits).collect();
        let mut right = 0;
        for sum in &all {
            right += usize::from(write(model, tokenizer, end, sum)? == Some(sum.a + sum.b));
        }
        sums.push(right as f64 / all.len() as f64);
    }
    Ok(Figures { languages, sums })
}

/// −ln p of a continuation, nats.
fn negative_log_likelihood(model: &Model, context: &[u32], continuation: &[u32]) -> Result<f64> {
    let all: Vec<u32> = context.iter().chain(continuation).copied().collect();
    let targets = all[1..]
        .iter()
        .enumerate()
        .map(|(i, token)| if i + 1 < context.len() { IGNORED } else { *token })
        .collect();
    let loss = model.loss(&all[..all.len() - 1], targets, 1)?;
    Ok(f64::from(loss.to_scalar::<f32>()?))
}

fn likeliest(
    model: &Model,
    tokenizer: &Tokenizer,
    end: u32,
    choice: &Choice,
    delimiter: &str,
) -> Result<usize> {
    // White space at a context's end belongs to what follows, as lm-evaluation-harness has it.
    let mut context = vec![end];
    context.extend(encode(tokenizer, &choice.context)?);
    let mut best = (f64::INFINITY, 0);
    for (index, option) in choice.options.iter().enumerate() {
        let mut whole = vec![end];
        whole.extend(encode(tokenizer, &format!("{}{delimiter}{option}", choice.context))?);
        let nll = negative_log_likelihood(model, &context, &whole[context.len()..])?;
        if nll < best.0 {
            best = (nll, index);
        }
    }
    Ok(best.1)
}

/// The last number that the model writes, greedily.
fn write(model: &Model, tokenizer: &Tokenizer, end: u32, sum: &Sum) -> Result<Option<u64>> {
    let mut tokens = vec![end];
    tokens.extend(encode(tokenizer, &format!("{} =", sum.asked()))?);
    let asked = tokens.len();
    while tokens.len() < asked + LONGEST_SUM {
        let next = model.next_token(&tokens)?;
        let text = tokenizer.decode(&[next], false).map_err(anyhow::Error::msg)?;
        if next == end || text.contains('\n') {
            break;
        }
        tokens.push(next);
    }
    let written = tokenizer.decode(&tokens[asked..], true).map_err(anyhow::Error::msg)?;
    Ok(written.rsplit("= ").next().and_then(|last| last.trim().parse().ok()))
}
