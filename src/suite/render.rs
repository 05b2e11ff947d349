//! Documents to requests: tokenize, cut into windows, and say which bytes of text each scored token stands
//! for.
//!
//! Tokenizing is a closure given by the caller: nothing here knows a tokenizer or a model. Each byte of a
//! text belongs to one token only: that of token i is `end_i − max(start_i, covered before i)`. So the bytes
//! of a text add up to no more than its length, also where several tokens make up one character (they share
//! its range: the first of them counts all its bytes, the others none).

use std::ops::Range;

use super::protocol::{Cut, Protocol, Shortage, cut};
use super::{Content, Document, Suite, Task, ask, score::count_words};
use crate::error::{Error, Result};

/// One window to be scored. Token `i` is predicted from tokens `0..i`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Index into [`Suite::tasks`].
    pub task: u32,
    /// Index into that task's documents.
    pub document: u32,
    /// Index of the window within the document.
    pub window: u32,
    /// Token ids, BOS or prefix included. The last one is only ever a target.
    pub tokens: Vec<u32>,
    /// Indexes into `tokens` that are targets; never empty, never containing 0.
    pub scored: Range<usize>,
    /// UTF-8 bytes of source text newly covered by each target, in order: as many as `scored`.
    pub bytes: Vec<u32>,
}

/// What a tokenizer makes of a text, without any BOS, EOS or other special token added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenizedText {
    /// Token ids.
    pub ids: Vec<u32>,
    /// The byte range of the text that each token stands for, as many as `ids`. Several tokens of one
    /// character may share the character's range.
    pub offsets: Vec<(usize, usize)>,
}

/// One part of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// What the model is told about its task.
    System(String),
    /// What it is asked.
    User(String),
    /// What it answers.
    Assistant(String),
}

/// Writes a conversation as a model's template has it, up to where the answer begins.
pub type Converse<'a> = &'a dyn Fn(&[Turn]) -> Result<String>;

/// A prompt that a model is to continue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WritingPrompt {
    /// Index into [`Suite::tasks`].
    pub task: u32,
    /// Index into that task's samples.
    pub sample: u32,
    /// As text, whole.
    pub text: String,
    /// Token ids, BOS included; at least one.
    pub tokens: Vec<u32>,
    /// Tokens cut off on the left, because the model does not read as many.
    pub cut_tokens: usize,
}

/// What a model's tokenizer does, as far as a suite needs to know.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    /// What the model wants at the start of its input, if anything.
    pub bos: Option<u32>,
    /// What an empty context is predicted from: BOS, else EOS.
    pub prefix: Option<u32>,
    /// Most tokens that the model reads at once.
    pub max_length: usize,
    /// Tokenizes plain text, without BOS; names of special tokens are plain text.
    pub tokenize: &'a dyn Fn(&str) -> Result<TokenizedText>,
    /// Tokenizes questions, and what `chat` wrote, without BOS: names of special tokens are these tokens.
    pub tokenize_question: &'a dyn Fn(&str) -> Result<Vec<u32>>,
    /// Writes a conversation as the model's template has it, up to where the answer begins; `None`: prompts are plain
    /// text.
    pub chat: Option<Converse<'a>>,
    /// Whether choices are put as conversations too, and not only what is answered by writing.
    pub chat_choices: bool,
}

/// A suite as requests, by task, document and window in that order; of a question, document is its sample and
/// window its option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// Every window of every document, and every option of every question.
    pub requests: Vec<Request>,
    /// Every question that is answered by writing.
    pub prompts: Vec<WritingPrompt>,
    /// What was kept and what was not, one per task, in the suite's order.
    pub tasks: Vec<RenderedTask>,
}

/// Counts over *all* documents of a task, dropped ones included:
/// `tokens = scored_tokens + unscored_tokens + dropped_tokens`. For questions, documents are samples, and tokens are
/// those of all options, their contexts included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RenderedTask {
    /// The task's name.
    pub name: String,
    /// The task's language tag.
    pub language: String,
    /// Documents of the task.
    pub documents: usize,
    /// Of these, too short for the protocol: none of their tokens is scored.
    pub documents_dropped: usize,
    /// Samples of which something was cut off on the left, as the model reads no more at once.
    pub samples_cut: usize,
    /// Options or texts without a token to score.
    pub samples_not_asked: usize,
    /// Tokens of answers that were cut off, as the answer alone is longer than what the model reads at once.
    pub answer_tokens_cut: usize,
    /// Tokens of the texts, BOS and prefix not counted.
    pub tokens: usize,
    /// Tokens that are a target, each in one window only.
    pub scored_tokens: usize,
    /// Tokens that are read as context (or give way to BOS) and never scored.
    pub unscored_tokens: usize,
    /// Tokens that no window holds: incomplete tails and dropped documents.
    pub dropped_tokens: usize,
    /// UTF-8 bytes of the texts.
    pub text_bytes: usize,
    /// UTF-8 bytes of the scored tokens: the denominator of `bits_per_byte`.
    pub scored_bytes: usize,
    /// Words of the texts as lm-evaluation-harness counts them: the parts into which runs of white space cut
    /// a text (white space at an end cuts off one more, empty, part).
    pub words: usize,
}

impl Rendered {
    /// Keeps the first `windows` windows of each text task of `suite`; the targets of the others count as dropped.
    pub fn keep_windows(&mut self, suite: &Suite, windows: usize) {
        let is_text = |task: usize| suite.tasks.get(task).is_some_and(|task| task.questions().is_none());
        let mut kept = vec![0; self.tasks.len()];
        let tasks = &mut self.tasks;
        self.requests.retain(|request| {
            let task = request.task as usize;
            if !is_text(task) {
                return true;
            }
            kept[task] += 1;
            let keep = kept[task] <= windows;
            if !keep {
                tasks[task].scored_tokens -= request.scored.len();
                tasks[task].dropped_tokens += request.scored.len();
                tasks[task].scored_bytes -= request.bytes.iter().map(|&b| b as usize).sum::<usize>();
            }
            keep
        });
    }
}

/// Tokenizes every document of `suite` and cuts it by `protocol`; documents are never joined. Questions become their
/// options, or prompts. A document that is too short for the protocol is dropped and
/// counted, as long as its task has others.
///
/// # Errors
/// A task of which nothing can be scored, naming its first document and what to do; a prefix token that is
/// asked for and missing; offsets that do not fit the text; whatever `tokenize` fails with.
pub fn render(suite: &Suite, protocol: &Protocol, reader: &Reader) -> Result<Rendered> {
    let tasks = Vec::with_capacity(suite.tasks.len());
    let mut rendered = Rendered { requests: Vec::new(), prompts: Vec::new(), tasks };
    for (task_index, task) in suite.tasks.iter().enumerate() {
        let documents = match &task.content {
            Content::Text(documents) => documents,
            Content::Questions(questions) => {
                let asked = ask::ask(index(task_index)?, task, questions, reader)?;
                rendered.requests.extend(asked.requests);
                rendered.prompts.extend(asked.prompts);
                rendered.tasks.push(asked.counts);
                continue;
            }
        };
        let mut counts = RenderedTask {
            name: task.name.clone(),
            language: task.language.clone(),
            ..RenderedTask::default()
        };
        let mut shortage = None;
        for (document_index, document) in documents.iter().enumerate() {
            let text = (reader.tokenize)(&document.text)?;
            let bytes = bytes_of_tokens(&text, document.text.len())
                .map_err(|problem| explain_offsets(task, document, &problem))?;
            counts.documents += 1;
            counts.tokens += text.ids.len();
            counts.text_bytes += document.text.len();
            counts.words += count_words(&document.text);
            let cut = match cut(protocol, &text.ids, reader.bos, reader.prefix) {
                Ok(cut) => cut,
                Err(short @ Shortage::Tokens { .. }) => {
                    shortage.get_or_insert((document, short));
                    counts.documents_dropped += 1;
                    counts.dropped_tokens += text.ids.len();
                    continue;
                }
                Err(other) => return Err(explain_shortage(task, document, protocol, other)),
            };
            counts.unscored_tokens += cut.unscored_tokens;
            counts.dropped_tokens += cut.dropped_tokens;
            let first = rendered.requests.len();
            push_requests(&mut rendered.requests, (index(task_index)?, index(document_index)?), cut, &bytes)?;
            for request in &rendered.requests[first..] {
                counts.scored_tokens += request.scored.len();
                counts.scored_bytes += request.bytes.iter().map(|&b| b as usize).sum::<usize>();
            }
        }
        if counts.scored_tokens == 0 {
            return Err(match shortage {
                Some((document, short)) => explain_shortage(task, document, protocol, short),
                None => Error::argument(
                    format!("task `{}`: none of its {} tokens can be scored", task.name, counts.tokens),
                    "give longer texts",
                ),
            });
        }
        rendered.tasks.push(counts);
    }
    Ok(rendered)
}

fn push_requests(
    requests: &mut Vec<Request>,
    (task, document): (u32, u32),
    cut: Cut,
    bytes: &[u32],
) -> Result<()> {
    for (window, w) in cut.windows.into_iter().enumerate() {
        let bytes = bytes[w.source..w.source + w.scored.len()].to_vec();
        requests.push(Request {
            task,
            document,
            window: index(window)?,
            tokens: w.tokens,
            scored: w.scored,
            bytes,
        });
    }
    Ok(())
}

/// The bytes newly covered by each token of a text of `length` bytes, or what is wrong with its offsets.
fn bytes_of_tokens(text: &TokenizedText, length: usize) -> Result<Vec<u32>, String> {
    if text.ids.len() != text.offsets.len() {
        return Err(format!("{} tokens but {} offsets", text.ids.len(), text.offsets.len()));
    }
    let mut covered = 0;
    let bytes = text.offsets.iter().enumerate().map(|(token, &(start, end))| {
        let new = end.saturating_sub(start.max(covered));
        covered = covered.max(end);
        match u32::try_from(new) {
            Ok(new) if start <= end && end <= length => Ok(new),
            _ => Err(format!("token {token} claims the bytes {start}..{end} of {length}")),
        }
    });
    bytes.collect()
}

pub(super) fn index(index: usize) -> Result<u32> {
    u32::try_from(index)
        .map_err(|_| Error::argument("more than 4 294 967 295 tasks, documents or windows", "use less text"))
}

fn explain_offsets(task: &Task, document: &Document, problem: &str) -> Error {
    let problem = format!(
        "task `{}`, document `{}`: the tokenizer's offsets are wrong: {problem}",
        task.name, document.id
    );
    Error::argument(problem, "this is a mistake in qeval or in the tokenizer: please report it")
}

fn explain_shortage(task: &Task, document: &Document, protocol: &Protocol, shortage: Shortage) -> Error {
    let place = format!("task `{}`, document `{}`", task.name, document.id);
    match shortage {
        Shortage::Tokens { available, needed } => {
            let others = match task.documents().len() - 1 {
                0 => String::new(),
                n => format!(" (as are the {n} other documents; documents are never joined)"),
            };
            Error::argument(
                format!("{place}: {available} tokens are less than two windows, {needed}{others}"),
                format!("use `--protocol strided`, or a `--window` of at most {}", available / 2),
            )
        }
        Shortage::Prefix => Error::argument(
            format!(
                "{place}: protocol `{}` starts from BOS or EOS, and the tokenizer has neither",
                protocol.name()
            ),
            "use `--protocol strided`",
        ),
        Shortage::Sizes => Error::argument(
            format!("{place}: nothing can be scored by {}", protocol.describe()),
            "use a larger `--window`, and a stride below it",
        ),
    }
}

#[cfg(test)]
mod tests;
