//! Whether questions are put as a conversation, in the words of the model's chat template.

use std::{cell::RefCell, collections::BTreeSet};

use clap::ValueEnum;

use super::models::Model;
use crate::{
    error::{Error, Result},
    suite::{
        Content, Suite, Turn,
        question::{Filter, FilterStep, QuestionKind},
    },
    tokenizer::{
        Tokenizer,
        chat::{ChatTemplate, Message, RenderOptions, Role, SystemFolded, Thinking},
    },
};

/// When a chat template is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Chat {
    /// For questions that are answered by writing, where the model has a template; choices stay plain text.
    #[default]
    Auto,
    /// For all questions.
    On,
    /// For none.
    Off,
}

/// A model's template as it is used in a run.
pub(super) struct Conversation {
    template: ChatTemplate,
    /// Whether choices are put as conversations too.
    pub choices: bool,
    /// How it marks reasoning.
    pub thinking: Option<Thinking>,
    folded: RefCell<BTreeSet<String>>,
}

impl Conversation {
    /// The template of `model`, if it is to be used.
    ///
    /// # Errors
    /// A template that cannot be compiled; none where one is asked for.
    pub(super) fn of(model: &Model, tokenizer: &Tokenizer, chat: Chat) -> Result<Option<Self>> {
        if chat == Chat::Off {
            return Ok(None);
        }
        let text = |id: Option<u32>| id.and_then(|id| tokenizer.piece(id)).unwrap_or_default();
        let (bos, eos) = (text(tokenizer.bos_token_id), text(tokenizer.eos_token_id));
        let checkpoint = &model.checkpoint;
        let template = match &checkpoint.gguf_metadata {
            Some(metadata) => metadata
                .get_str("tokenizer.chat_template")
                .map(|template| ChatTemplate::from_gguf(template, &bos, &eos, &checkpoint.path))
                .transpose()?,
            None => ChatTemplate::from_settings(&checkpoint.folder, &bos, &eos)?,
        };
        match (template, chat) {
            (Some(template), _) => {
                let thinking = template.thinking(&RenderOptions::default());
                let choices = chat == Chat::On;
                Ok(Some(Self { template, choices, thinking, folded: RefCell::default() }))
            }
            (None, Chat::On) => Err(Error::file(
                &checkpoint.path,
                "has no chat template, but --chat on was given",
                "put its chat_template.jinja or tokenizer_config.json beside it, or use --chat auto",
            )),
            (None, _) => Ok(None),
        }
    }

    /// The prompt of a conversation, up to where the answer begins.
    pub(super) fn write(&self, turns: &[Turn]) -> Result<String> {
        let message = |turn: &Turn| match turn {
            Turn::System(text) => Message::new(Role::System, text.as_str()),
            Turn::User(text) => Message::new(Role::User, text.as_str()),
            Turn::Assistant(text) => Message::new(Role::Assistant, text.as_str()),
        };
        let messages: Vec<Message> = turns.iter().map(message).collect();
        let rendered = self.template.render_with_fallback(&messages, true, &RenderOptions::default())?;
        if let Some(folded) = rendered.system_folded {
            self.folded.borrow_mut().insert(match folded {
                SystemFolded::Refused(reason) => format!("refuses system messages ({reason})"),
                SystemFolded::Ignored => "passes over system messages".to_owned(),
            });
        }
        Ok(rendered.text)
    }

    /// Whether prompts end inside a block of reasoning.
    pub(super) fn opens_thinking(&self) -> bool {
        self.thinking.as_ref().is_some_and(|thinking| thinking.opens_in_prompt)
    }

    /// Where the template came from.
    pub(super) fn source(&self) -> &str {
        self.template.origin()
    }

    /// What the reader must know, in whole sentences.
    pub(super) fn notes(&self) -> Vec<String> {
        let folded = self.folded.borrow();
        folded
            .iter()
            .map(|why| format!("The chat template {why}: they were put before the first user message."))
            .collect()
    }
}

/// Lets the answers of a reasoning model be judged without their reasoning: every filter of a written task first takes
/// the thinking blocks away.
pub(super) fn strip_thinking(suites: &mut [Suite]) {
    for task in suites.iter_mut().flat_map(|suite| &mut suite.tasks) {
        let Content::Questions(questions) = &mut task.content else { continue };
        if !matches!(questions.kind, QuestionKind::Generation(_)) {
            continue;
        }
        if questions.filters.is_empty() {
            questions.filters.push(Filter { name: "answer".to_owned(), steps: Vec::new() });
        }
        for filter in &mut questions.filters {
            filter.steps.insert(0, FilterStep::StripThinking);
        }
    }
}
