//! Whether a model thinks before it answers, found out by rendering conversations and looking at what became of them.

use super::{ChatTemplate, Message, RenderOptions, Role};

/// How a template marks reasoning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thinking {
    /// Opens a block of reasoning.
    pub open: String,
    /// Closes it.
    pub close: String,
    /// Whether the generation prompt ends inside a block that it opened, so that an answer holds only the end.
    pub opens_in_prompt: bool,
}

/// Marks in use: DeepSeek, Qwen, GLM and most others; Magistral; Cohere; Seed.
const MARKERS: [(&str, &str); 4] = [
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<seed:think>", "</seed:think>"),
];

/// How a template marks reasoning, if it does; `None` also for one that cannot be compiled.
///
/// See [`ChatTemplate::thinking`] where the special tokens are known; a template that puts text together with a
/// token that does not exist cannot be rendered.
pub fn thinking_markers(template: &str) -> Option<Thinking> {
    let token = |name: &str| format!("<{name}>");
    let template = ChatTemplate::new(template.to_owned(), token("bos"), token("eos"), "template".to_owned());
    template.ok()?.thinking(&RenderOptions::default())
}

/// Two facts speak for marks: they stand in a generation prompt, whichever way thinking is switched; or an earlier
/// answer that holds a block of reasoning loses it, while another text in its place stays.
pub(super) fn find(template: &ChatTemplate, options: &RenderOptions) -> Option<Thinking> {
    MARKERS.into_iter().find_map(|(open, close)| {
        let prompt = generation_prompt(template, options);
        let switched = [Some(true), Some(false)].map(|enable_thinking| {
            generation_prompt(template, &RenderOptions { enable_thinking, ..*options })
        });
        let prompted = switched
            .iter()
            .chain([&prompt])
            .flatten()
            .any(|prompt| prompt.contains(open) || prompt.contains(close));
        let opens_in_prompt = prompt.as_deref().is_some_and(|prompt| {
            prompt.rfind(open).is_some_and(|at| prompt.rfind(close).is_none_or(|end| end < at))
        });
        (prompted || forgets(template, options, open, close)).then(|| Thinking {
            open: open.to_owned(),
            close: close.to_owned(),
            opens_in_prompt,
        })
    })
}

/// What asking for an answer adds to a prompt.
fn generation_prompt(template: &ChatTemplate, options: &RenderOptions) -> Option<String> {
    let messages = [Message::new(Role::User, "question")];
    let without = template.render(&messages, false, options).ok()?;
    let with = template.render(&messages, true, options).ok()?;
    // Some templates close the conversation only where no answer is asked for: what they share counts.
    let shared = with.chars().zip(without.chars()).take_while(|(a, b)| a == b);
    let shared: usize = shared.map(|(c, _)| c.len_utf8()).sum();
    with.get(shared..).map(str::to_owned)
}

/// Whether the reasoning of an earlier answer is left out.
fn forgets(template: &ChatTemplate, options: &RenderOptions, open: &str, close: &str) -> bool {
    const REASON: &str = "qeval reasons";
    let keeps = |before: &str, after: &str| {
        let messages = [
            Message::new(Role::User, "question"),
            Message::new(Role::Assistant, format!("{before}\n{REASON}\n{after}\n\nanswer")),
            Message::new(Role::User, "another"),
        ];
        template.render(&messages, true, options).ok().map(|text| text.contains(REASON))
    };
    keeps(open, close) == Some(false) && keeps("<other>", "</other>") == Some(true)
}
