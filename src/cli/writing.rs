//! Lets each model write its answers, and keeps what the comparison needs of them.

use super::{models::Model, workload::Tasks};
use crate::{
    checkpoint::generation::GenerationDefaults,
    error::Result,
    evaluate::{
        generate::{GenerateSettings, Prompt, Stop, Written, generate},
        sampling::Sampling,
    },
    model::Decoder,
    progress::Progress,
    suite::{
        Request, WritingPrompt,
        question::{GenerationSettings, QuestionKind},
    },
    tokenizer::Tokenizer,
};

/// What the user asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct WritingOptions {
    /// Answers drawn at random to each question, beside or in place of the greedy one; 0: greedy alone.
    pub draws: usize,
    /// Instead of the checkpoint's own.
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    /// Sequences at once.
    pub batch: usize,
    pub memory: u64,
    pub seed: u64,
}

/// One answer.
#[derive(Clone, Debug)]
pub(super) struct AnswerText {
    /// Without what ends it.
    pub text: String,
    pub tokens: Vec<u32>,
    pub stop: Stop,
}

/// A model's answers to one prompt.
#[derive(Clone, Debug)]
pub(super) struct Answers {
    /// Without dice; absent where the task asks for draws only.
    pub greedy: Option<AnswerText>,
    /// Drawn at random.
    pub drawn: Vec<AnswerText>,
}

/// How draws are made: what the user said, else what the task says, else the checkpoint, else temperature 1.
pub(super) fn sampling(
    options: &WritingOptions,
    task: &GenerationSettings,
    defaults: &GenerationDefaults,
) -> Sampling {
    let positive = |t: &f64| *t > 0.0;
    Sampling {
        temperature: options
            .temperature
            .or(task.sampling.map(|s| s.temperature))
            .or(defaults.temperature)
            .filter(positive)
            .unwrap_or(1.0),
        top_p: options.top_p.or(task.sampling.map(|s| s.top_p)).or(defaults.top_p).unwrap_or(1.0),
        top_k: task.sampling.and_then(|s| s.top_k).or(defaults.top_k),
    }
}

/// Lets a model answer every prompt. `defaults` are base's, so that base and cousin are asked alike; `opened`: prompts
/// end inside a block of reasoning, in which no string ends an answer.
pub(super) fn answer(
    (decoder, tokenizer): (&Decoder, &Tokenizer),
    (tasks, prompts): (&Tasks, &[WritingPrompt]),
    defaults: &GenerationDefaults,
    options: &WritingOptions,
    opened: bool,
    progress: &dyn Progress,
) -> Result<Vec<Answers>> {
    let mut end_of_sequence = defaults.end_of_sequence.clone();
    end_of_sequence.extend(tokenizer.eos_token_id);
    let settings = GenerateSettings {
        batch: options.batch,
        memory: options.memory,
        end_of_sequence,
        seed: options.seed,
    };
    let mut answers: Vec<Answers> = vec![Answers { greedy: None, drawn: Vec::new() }; prompts.len()];
    // Task by task: prompts of one task begin alike, and what they begin with is read once.
    let mut first = 0;
    while first < prompts.len() {
        let task = prompts[first].task;
        let end = first + prompts[first..].iter().take_while(|prompt| prompt.task == task).count();
        let Some(QuestionKind::Generation(asked)) = tasks.questions(task as usize).map(|q| &q.kind) else {
            first = end;
            continue;
        };
        let draws = match (options.draws, &asked.sampling) {
            (0, None) => 0,
            (0, Some(_)) => asked.repeats.max(1),
            (draws, _) => draws,
        };
        // Traces and first divergence need the greedy answer; a task that only asks for draws does without.
        let greedy = asked.sampling.is_none();
        let mut asks = Vec::new();
        for (index, prompt) in prompts[first..end].iter().enumerate() {
            let one = |sampling: Option<Sampling>, repeat: usize| Prompt {
                tokens: prompt.tokens.clone(),
                max_new_tokens: asked.max_new_tokens,
                sampling,
                repeat: repeat as u64,
                number: u64::from(prompt.task) << 32 | u64::from(prompt.sample),
            };
            asks.extend(greedy.then(|| (index, one(None, 0))));
            let drawn = sampling(options, asked, defaults);
            asks.extend((0..draws).map(|repeat| (index, one(Some(drawn), repeat))));
        }
        let tail = asked.until.iter().map(|until| 4 * until.len() + 8).max().unwrap_or(0);
        let ends = |_: usize, tokens: &[u32]| {
            if asked.until.is_empty() {
                return false;
            }
            // While nothing is thought, only the end is new.
            let whole = opened || tokenizer.decode_answer(&tokens[..tokens.len().min(8)]).contains(THINK.0);
            let from = if whole { 0 } else { tokens.len().saturating_sub(tail) };
            end_of(&tokenizer.decode_answer(&tokens[from..]), &asked.until, opened).is_some()
        };
        let all: Vec<Prompt> = asks.iter().map(|(_, prompt)| prompt.clone()).collect();
        let written = generate(decoder, &all, &settings, &ends, progress)?;
        for ((index, prompt), written) in asks.iter().zip(written) {
            let text = finished(tokenizer, asked, written, opened);
            let answers = &mut answers[first + index];
            match prompt.sampling {
                None => answers.greedy = Some(text),
                Some(_) => answers.drawn.push(text),
            }
        }
        first = end;
    }
    Ok(answers)
}

/// What opens and closes a block of reasoning in nearly all models.
const THINK: (&str, &str) = ("<think>", "</think>");

/// The text up to the first of the strings that end it.
fn finished(tokenizer: &Tokenizer, asked: &GenerationSettings, written: Written, opened: bool) -> AnswerText {
    let mut text = tokenizer.decode_answer(&written.tokens);
    if let Some(end) = end_of(&text, &asked.until, opened) {
        text.truncate(end);
    }
    AnswerText { text, tokens: written.tokens, stop: written.stop }
}

/// Where an answer ends: at the first string that ends it, after the reasoning, if there is any. While a model still
/// reasons, nothing ends it.
fn end_of(text: &str, until: &[String], opened: bool) -> Option<usize> {
    let thinks = opened || text.trim_start().starts_with(THINK.0);
    let start = if thinks { text.find(THINK.1)? + THINK.1.len() } else { 0 };
    let answer = &text[start..];
    // White space between reasoning and answer is no end of the answer.
    let skipped = if thinks { answer.len() - answer.trim_start().len() } else { 0 };
    let found = until
        .iter()
        .filter(|until| !until.is_empty())
        .filter_map(|until| answer[skipped..].find(until.as_str()));
    found.min().map(|at| start + skipped + at)
}

/// Base's own greedy answers as requests: each token of the answer is predicted from the prompt and the answer so far.
/// Then every cousin can be asked what it would have written at each place.
pub(super) fn traces(prompts: &[WritingPrompt], answers: &[Answers]) -> Vec<Request> {
    let trace = |(prompt, answers): (&WritingPrompt, &Answers)| {
        let answer = answers.greedy.as_ref().filter(|answer| !answer.tokens.is_empty())?;
        let first = prompt.tokens.len();
        let tokens: Vec<u32> = prompt.tokens.iter().chain(&answer.tokens).copied().collect();
        Some(Request {
            task: prompt.task,
            document: prompt.sample,
            window: 0,
            scored: first..tokens.len(),
            bytes: vec![0; tokens.len() - first],
            tokens,
        })
    };
    prompts.iter().zip(answers).filter_map(trace).collect()
}

/// Base's defaults, or none where base is only logits.
pub(super) fn defaults(model: Option<&Model>) -> Result<GenerationDefaults> {
    model.map_or_else(|| Ok(GenerationDefaults::default()), |model| GenerationDefaults::of(&model.checkpoint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_after_its_reasoning() {
        let until = ["\n\n".to_owned(), "Question:".to_owned()];
        assert_eq!(end_of("4\nQuestion: 5\n\n", &until, false), Some(2));
        assert_eq!(end_of("4", &until, false), None);
        // Reasoning is full of empty lines.
        assert_eq!(end_of("<think>a\n\nb", &until, false), None);
        let thought = "<think>a\n\nb</think>\n\n";
        assert_eq!(end_of(&format!("{thought}4\n\n5"), &until, false), Some(thought.len() + 1));
        assert_eq!(end_of("a\n\nb</think>4\n\n5", &until, true), Some(13));
        assert_eq!(end_of("a\n\nb</think>4\n\n5", &until, false), Some(1));
        assert_eq!(end_of("x", &[String::new()], false), None);
    }
}
