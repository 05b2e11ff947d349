//! Chat templates: how messages become the text that a model was trained on.
//!
//! A template is a Jinja program that comes with the model, in `tokenizer_config.json`, in a file of its own or in
//! a GGUF. It is rendered as Hugging Face's `apply_chat_template` renders it (transformers 5.23,
//! `utils/chat_template_utils.py`), without tools or documents, by the `minijinja` crate. Nothing in it depends on
//! the clock, and nothing that it does can hang or fill the memory (`chat/limits.rs`).
//!
//! What is not supported is an error that names the line: several templates (`block`, `include`, `import`,
//! `extends`), `autoescape`, namespaces within other values, `cycler`, `joiner`, `lipsum`, the filters `attr`, `batch`,
//! `center`, `filesizeformat`, `forceescape`, `pprint`, `random`, `slice`, `striptags`, `truncate`, `urlencode`, `urlize`,
//! `wordcount`, `wordwrap`, `xmlattr`, rarer methods of strings and lists (`index`, `zfill`, `ljust`), formats with wide
//! padding, and the escapes `\N`, `\U` and a backslash at the end of a line. The few things that come out otherwise
//! than in Python are listed with the tests (`chat/tests/facts.rs`, `DIFFERENT`).

mod date;
mod engine;
mod limits;
mod operators;
mod python;
mod scan;
mod source;
#[cfg(test)]
mod tests;
mod thinking;

use std::path::Path;

use minijinja::Value;

use self::engine::{Compiled, Failure};
pub use self::{
    date::Date,
    thinking::{Thinking, thinking_markers},
};
use crate::error::{Error, Result};

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Instructions that stand before the conversation.
    System,
    /// The one who asks.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// As templates spell it.
    pub fn name(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        }
    }
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A message.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into() }
    }
}

/// What a template may ask about besides the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RenderOptions {
    /// The variable `enable_thinking`, by which hybrid reasoning models are switched; `None`: not defined.
    pub enable_thinking: Option<bool>,
    /// What `strftime_now` answers with.
    pub date: Date,
}

impl Default for RenderOptions {
    /// No word about thinking, and [`Date::FIXED`].
    fn default() -> Self {
        Self { enable_thinking: None, date: Date::FIXED }
    }
}

/// Why a system message was moved into the first user message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SystemFolded {
    /// The template refuses such messages, in these words.
    Refused(String),
    /// The template passes over them: with and without, the text is the same.
    Ignored,
}

/// A prompt, and what had to be done to get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The prompt.
    pub text: String,
    /// Set where the system message is not where it was.
    pub system_folded: Option<SystemFolded>,
}

/// A chat template with the special tokens that it writes.
#[derive(Debug)]
pub struct ChatTemplate {
    compiled: Compiled,
    bos_token: String,
    eos_token: String,
    /// Further special tokens that a template may name (`pad_token`), with their texts.
    special_tokens: Vec<(String, String)>,
    origin: String,
}

impl ChatTemplate {
    /// Compiles a template. `bos_token` and `eos_token` are the tokens' texts; empty ones are not defined in the
    /// template, as in transformers. `origin` says in errors where the template came from.
    ///
    /// # Errors
    /// A template that is no Jinja, that is longer than 100 000 bytes, or that is too entangled to be one.
    pub fn new(source: String, bos_token: String, eos_token: String, origin: String) -> Result<Self> {
        let compiled = Compiled::new(&source).map_err(|failure| to_error(&origin, &failure))?;
        Ok(Self { compiled, bos_token, eos_token, special_tokens: Vec::new(), origin })
    }

    /// The template of a checkpoint's folder, where it has one: `chat_template.jinja`, else `chat_template` in
    /// `tokenizer_config.json` (a string, or of several the one named `default`), else `chat_template.json`.
    ///
    /// # Errors
    /// A file that cannot be read, a template that [`ChatTemplate::new`] refuses, or several without a default.
    pub fn from_settings(folder: &Path, bos_token: &str, eos_token: &str) -> Result<Option<Self>> {
        let Some(found) = source::find(folder)? else { return Ok(None) };
        let mut template =
            Self::new(found.template, bos_token.to_owned(), eos_token.to_owned(), found.origin)?;
        template.special_tokens = found.special_tokens;
        Ok(Some(template))
    }

    /// The text of that template, not compiled.
    ///
    /// # Errors
    /// A file that cannot be read, or several templates without a default.
    pub fn text_from_settings(folder: &Path) -> Result<Option<String>> {
        Ok(source::find(folder)?.map(|found| found.template))
    }

    /// The template of a GGUF, its `tokenizer.chat_template`; `path` is the file, for errors.
    ///
    /// # Errors
    /// As [`ChatTemplate::new`].
    pub fn from_gguf(template: &str, bos_token: &str, eos_token: &str, path: &Path) -> Result<Self> {
        let origin = format!("{}: `tokenizer.chat_template`", path.display());
        Self::new(template.to_owned(), bos_token.to_owned(), eos_token.to_owned(), origin)
    }

    /// Where the template came from.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The prompt. With `add_generation_prompt` it ends where the assistant's answer begins.
    ///
    /// # Errors
    /// A template that refuses the conversation, that uses what is not supported, or that does more than a prompt
    /// can need; the error names the template's line.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        options: &RenderOptions,
    ) -> Result<String> {
        self.try_render(messages, add_generation_prompt, options)
            .map_err(|failure| to_error(&self.origin, &failure))
    }

    /// As [`ChatTemplate::render`]; where the template refuses a system message or passes over it, its text is put
    /// before the first user message, with an empty line between, and the result says so.
    ///
    /// (lm-evaluation-harness drops the system message then, and measures something else than was asked.)
    ///
    /// # Errors
    /// As [`ChatTemplate::render`], if the conversation is refused in this form too.
    pub fn render_with_fallback(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        options: &RenderOptions,
    ) -> Result<Rendered> {
        let attempt = |messages: &[Message]| self.try_render(messages, add_generation_prompt, options);
        let as_it_is = attempt(messages);
        let Some((folded, without)) = fold_system(messages) else {
            let text = as_it_is.map_err(|failure| to_error(&self.origin, &failure))?;
            return Ok(Rendered { text, system_folded: None });
        };
        let why = match &as_it_is {
            Ok(text) => (attempt(&without).ok().as_ref() == Some(text)).then_some(SystemFolded::Ignored),
            Err(failure) if failure.refused => Some(SystemFolded::Refused(failure.reason.clone())),
            Err(_) => None,
        };
        match (why, attempt(&folded)) {
            (Some(why), Ok(text)) => Ok(Rendered { text, system_folded: Some(why) }),
            // The second failure is about a conversation that nobody asked for: the first one is told.
            (Some(SystemFolded::Ignored), Err(failure)) => Err(to_error(&self.origin, &failure)),
            _ => as_it_is
                .map(|text| Rendered { text, system_folded: None })
                .map_err(|failure| to_error(&self.origin, &failure)),
        }
    }

    /// Whether a rendered prompt begins with the BOS token, so that no other may be put before it.
    pub fn starts_with_bos(&self, rendered: &str) -> bool {
        !self.bos_token.is_empty() && rendered.starts_with(&self.bos_token)
    }

    /// How the template deals with reasoning; see [`Thinking`].
    pub fn thinking(&self, options: &RenderOptions) -> Option<Thinking> {
        thinking::find(self, options)
    }

    fn try_render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        options: &RenderOptions,
    ) -> std::result::Result<String, Failure> {
        let bytes = messages.iter().map(|message| message.content.len()).fold(0, usize::saturating_add);
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| {
                Value::from_pairs([("role", message.role.name()), ("content", message.content.as_str())])
            })
            .collect();
        // transformers always passes `tools` and `documents`, as None where there are none.
        let mut variables = vec![
            ("messages", Value::from(messages)),
            ("tools", Value::from(())),
            ("documents", Value::from(())),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
        ];
        let tokens = [("bos_token", &self.bos_token), ("eos_token", &self.eos_token)];
        let others = self.special_tokens.iter().map(|(name, token)| (name.as_str(), token));
        let tokens = others.chain(tokens).filter(|(_, token)| !token.is_empty());
        variables.extend(tokens.map(|(name, token)| (name, Value::from(token.as_str()))));
        variables.extend(options.enable_thinking.map(|think| ("enable_thinking", Value::from(think))));
        self.compiled.render(Value::from_pairs(variables), bytes, options.date)
    }
}

/// The conversation with its leading system messages put before the first user message, and without them; `None`
/// if there are none, or nobody to give them to.
fn fold_system(messages: &[Message]) -> Option<(Vec<Message>, Vec<Message>)> {
    let is_system = |message: &&Message| message.role == Role::System;
    let mut parts: Vec<&str> =
        messages.iter().filter(is_system).map(|message| message.content.as_str()).collect();
    let without: Vec<Message> =
        messages.iter().filter(|message| message.role != Role::System).cloned().collect();
    let first = without.iter().position(|message| message.role == Role::User)?;
    if parts.is_empty() {
        return None;
    }
    let mut folded = without.clone();
    let user = folded.get_mut(first)?;
    parts.push(&user.content);
    user.content = parts.join("\n\n");
    Some((folded, without))
}

fn to_error(origin: &str, failure: &Failure) -> Error {
    let place = failure.line.map_or_else(String::new, |line| format!(", line {line}"));
    let (verb, help) = if failure.refused {
        ("refuses the conversation", "give it the roles that it asks for")
    } else {
        ("cannot be rendered", "compare it with the one that the model's author publishes")
    };
    Error::argument(format!("{origin}: the chat template{place} {verb}: {}", failure.reason), help)
}
