//! Questions to token lists: prompts are put together, options become requests, and nothing is scored yet.
//!
//! How text is joined and cut into context and continuation is lm-evaluation-harness 0.4.13's way: white space at the
//! end of a context belongs to the continuation; both are tokenized as one text, of which the continuation is what is
//! left after as many tokens as the context has alone; what exceeds the model's length is cut off on the left.

use super::{
    Task,
    protocol::{Protocol, cut},
    question::{Answer, GenerationSettings, QuestionKind, Questions, Sample},
    render::{Reader, RenderedTask, Request, Turn, WritingPrompt, index},
};
use crate::error::{Error, Result};

/// Everything that a model is asked in one task.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub requests: Vec<Request>,
    pub prompts: Vec<WritingPrompt>,
    pub counts: RenderedTask,
}

/// Renders one task; `task_index` is written into everything.
pub(super) fn ask(task_index: u32, task: &Task, questions: &Questions, reader: &Reader) -> Result<Asked> {
    let mut asked = Asked::default();
    asked.counts.name = task.name.clone();
    asked.counts.language = task.language.clone();
    asked.counts.documents = questions.samples.len();
    for (number, sample) in questions.samples.iter().enumerate() {
        let place = (task_index, index(number)?);
        match (&questions.kind, &sample.answer) {
            (QuestionKind::Generation(settings), _) => {
                let prompt = writing_prompt(place, questions, sample, settings, reader)?;
                asked.counts.samples_cut += usize::from(prompt.cut_tokens > 0);
                asked.prompts.push(prompt);
            }
            (QuestionKind::Rolling, _) => rolling(place, sample, reader, &mut asked)?,
            (QuestionKind::Choice, Answer::Choice { options, .. }) => {
                let mut was_cut = false;
                // Options share their question, unless they bring their own: it is tokenized once.
                let mut shared: Option<Before> = None;
                for (option, choice) in options.iter().enumerate() {
                    let before = match (&choice.question, shared.take()) {
                        (None, Some(before)) => before,
                        (own, _) => {
                            let question = own.as_deref().unwrap_or(&sample.question);
                            Before::of(context(questions, sample, question, reader)?, reader)?
                        }
                    };
                    let text = (&before, choice.continuation.as_str());
                    was_cut |= continuation(place, index(option)?, text, questions, reader, &mut asked)?;
                    shared = Some(before).filter(|_| choice.question.is_none());
                }
                asked.counts.samples_cut += usize::from(was_cut);
            }
            (QuestionKind::Continuation, Answer::Continuation(target)) => {
                let before = Before::of(context(questions, sample, &sample.question, reader)?, reader)?;
                let was_cut = continuation(place, 0, (&before, target), questions, reader, &mut asked)?;
                asked.counts.samples_cut += usize::from(was_cut);
            }
            (QuestionKind::Choice | QuestionKind::Continuation, _) => {
                return Err(Error::argument(
                    format!("task `{}`, sample `{}`: its answer does not fit its kind", task.name, sample.id),
                    "report this as a bug of qeval",
                ));
            }
        }
    }
    let scored: usize = asked.requests.iter().map(|request| request.scored.len()).sum();
    asked.counts.tokens = asked.requests.iter().map(|request| request.tokens.len()).sum();
    asked.counts.scored_tokens = scored;
    asked.counts.unscored_tokens = asked.counts.tokens - scored;
    Ok(asked)
}

/// What a model reads and what it is scored on, request by request, as text: context, and continuation with its
/// delimiter (empty for what is written; of a rolling text the context is empty).
///
/// # Errors
/// Whatever the chat template refuses.
pub fn arguments(questions: &Questions, sample: &Sample, reader: &Reader) -> Result<Vec<(String, String)>> {
    let pair = |question: &str, answer: &str| -> Result<(String, String)> {
        let context = context(questions, sample, question, reader)?;
        let delimiter = if context.chat { "" } else { questions.target_delimiter.as_str() };
        Ok((context.text, format!("{delimiter}{answer}")))
    };
    match &sample.answer {
        Answer::Choice { options, .. } => options
            .iter()
            .map(|option| pair(option.question.as_deref().unwrap_or(&sample.question), &option.continuation))
            .collect(),
        Answer::Continuation(target) => Ok(vec![pair(&sample.question, target)?]),
        Answer::Text => Ok(vec![(String::new(), sample.question.clone())]),
        Answer::Generation(_) => {
            Ok(vec![(context(questions, sample, &sample.question, reader)?.text, String::new())])
        }
    }
}

/// What stands before an answer.
struct Context {
    text: String,
    /// Whether it came from a chat template, whose special tokens are to be read as such.
    chat: bool,
}

/// Description, worked examples and question; with a chat template as a conversation.
fn context(questions: &Questions, sample: &Sample, question: &str, reader: &Reader) -> Result<Context> {
    let writes = matches!(questions.kind, QuestionKind::Generation(_));
    if let Some(chat) = reader.chat.filter(|_| writes || reader.chat_choices) {
        let mut turns = Vec::with_capacity(2 * sample.shots.len() + 2);
        if !questions.description.trim().is_empty() {
            turns.push(Turn::System(questions.description.trim().to_owned()));
        }
        for shot in sample.shots.iter() {
            turns.push(Turn::User(shot.question.clone()));
            turns.push(Turn::Assistant(shot.answer.clone()));
        }
        turns.push(Turn::User(question.to_owned()));
        let text = chat(&turns)? + &sample.answer_prefix;
        return Ok(Context { text, chat: true });
    }
    let mut text = questions.description.clone();
    for shot in sample.shots.iter() {
        text += &shot.question;
        text += &questions.target_delimiter;
        text += &shot.answer;
        text += &questions.fewshot_delimiter;
    }
    text += question;
    if !sample.answer_prefix.is_empty() {
        let parted =
            question.ends_with(char::is_whitespace) || sample.answer_prefix.starts_with(char::is_whitespace);
        if !parted && !question.is_empty() {
            text += &questions.target_delimiter;
        }
        text += &sample.answer_prefix;
    }
    Ok(Context { text, chat: false })
}

/// Ids of a context or of a whole, with BOS where the model wants it and a template has not written it. A special
/// token's name in a question is this token, as for the harness.
fn encode(text: &str, chat: bool, reader: &Reader) -> Result<Vec<u32>> {
    let ids = (reader.tokenize_question)(text)?;
    match reader.bos {
        Some(bos) if !(chat && ids.first() == Some(&bos)) => Ok(std::iter::once(bos).chain(ids).collect()),
        _ => Ok(ids),
    }
}

/// A context as a continuation follows it.
struct Before {
    context: Context,
    /// Bytes of its text without the white space at its end, which belongs to the continuation.
    kept: usize,
    /// The ids of these bytes, with BOS; none of an empty context.
    tokens: Vec<u32>,
}

impl Before {
    fn of(context: Context, reader: &Reader) -> Result<Self> {
        let kept = context.text.trim_end_matches(super::score::is_space);
        let tokens = if kept.is_empty() { Vec::new() } else { encode(kept, context.chat, reader)? };
        Ok(Self { kept: kept.len(), tokens, context })
    }
}

/// Adds the request of one continuation; returns whether its context was cut.
fn continuation(
    (task, document): (u32, u32),
    window: u32,
    (before, answer): (&Before, &str),
    questions: &Questions,
    reader: &Reader,
    asked: &mut Asked,
) -> Result<bool> {
    let Before { context, kept, tokens } = before;
    let delimiter = if context.chat { "" } else { questions.target_delimiter.as_str() };
    let (kept, moved) = context.text.split_at(*kept);
    let answer = format!("{moved}{delimiter}{answer}");
    let (mut tokens, of_context) = if kept.is_empty() {
        let ids = (reader.tokenize_question)(&answer)?;
        let prefix = reader.prefix.ok_or_else(no_prefix)?;
        // The text may begin with the prefix token itself.
        if ids.first() == Some(&prefix) { (ids, 1) } else { ([vec![prefix], ids].concat(), 1) }
    } else {
        let whole = encode(&format!("{kept}{answer}"), context.chat, reader)?;
        let of_context = tokens.len();
        (tokens.iter().copied().chain(whole.into_iter().skip(of_context)).collect(), of_context)
    };
    let of_answer = tokens.len() - of_context;
    if of_answer == 0 || of_context == 0 {
        asked.counts.samples_not_asked += 1;
        return Ok(false);
    }
    // Of the last token only the prediction is wanted: it is not read.
    let too_many = tokens.len().saturating_sub(reader.max_length + 1);
    tokens.drain(..too_many);
    let first = tokens.len().saturating_sub(of_answer).max(1);
    let scored = first..tokens.len();
    asked.counts.answer_tokens_cut += of_answer - scored.len();
    asked.requests.push(Request { task, document, window, bytes: vec![0; scored.len()], tokens, scored });
    Ok(too_many > 0)
}

/// All of a text in rolling windows. A BOS that the tokenizer adds is scored, as the harness does.
fn rolling((task, document): (u32, u32), sample: &Sample, reader: &Reader, asked: &mut Asked) -> Result<()> {
    let tokens = encode(&sample.question, false, reader)?;
    let protocol = Protocol::LmEval { max_length: reader.max_length };
    let windows = cut(&protocol, &tokens, None, reader.prefix).map_err(|_| no_prefix())?.windows;
    if windows.is_empty() {
        asked.counts.samples_not_asked += 1;
    }
    for (window, w) in windows.into_iter().enumerate() {
        let bytes = vec![0; w.scored.len()];
        let window = index(window)?;
        asked.requests.push(Request { task, document, window, tokens: w.tokens, scored: w.scored, bytes });
    }
    Ok(())
}

fn writing_prompt(
    (task, sample_index): (u32, u32),
    questions: &Questions,
    sample: &Sample,
    settings: &GenerationSettings,
    reader: &Reader,
) -> Result<WritingPrompt> {
    let context = context(questions, sample, &sample.question, reader)?;
    let mut tokens = encode(&context.text, context.chat, reader)?;
    if tokens.is_empty() {
        tokens.push(reader.prefix.ok_or_else(no_prefix)?);
    }
    let room = reader.max_length.saturating_sub(settings.max_new_tokens);
    if room == 0 {
        return Err(Error::argument(
            format!(
                "{} new tokens leave no room for a prompt in the model's {} positions",
                settings.max_new_tokens, reader.max_length
            ),
            "ask for fewer tokens with --max-new-tokens",
        ));
    }
    let cut_tokens = tokens.len().saturating_sub(room);
    tokens.drain(..cut_tokens);
    Ok(WritingPrompt { task, sample: sample_index, text: context.text, tokens, cut_tokens })
}

fn no_prefix() -> Error {
    Error::argument(
        "an empty context is predicted from BOS or EOS, and the tokenizer has neither",
        "give the model's tokenizer_config.json, which names them",
    )
}

#[cfg(test)]
mod tests;
