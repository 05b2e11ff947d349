//! What is measured: suites, texts and benchmarks as one list of tasks, cut into requests and prompts for one tokenizer.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    comparison::TaskCard,
    error::Result,
    suite::{
        self, Content, Converse, Protocol, Reader, Request, Suite, Task, TokenizedText, WritingPrompt,
        hex_sha256_of,
        question::{QuestionKind, Questions},
    },
    tokenizer::Tokenizer,
};

/// All tasks of all suites, in one list.
pub(super) struct Tasks {
    pub suites: Vec<Suite>,
}

impl Tasks {
    /// Suite and task of every index.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Suite, &Task)> {
        self.suites.iter().flat_map(|suite| suite.tasks.iter().map(move |task| (suite, task)))
    }

    /// The questions of a task.
    pub(super) fn questions(&self, task: usize) -> Option<&Questions> {
        self.iter().nth(task)?.1.questions()
    }

    /// Every text that a tokenizer will cut.
    pub(super) fn texts(&self) -> Vec<&str> {
        let mut texts = Vec::new();
        for (_, task) in self.iter() {
            match &task.content {
                Content::Text(documents) => {
                    texts.extend(documents.iter().map(|document| document.text.as_str()))
                }
                Content::Questions(questions) => {
                    texts.extend(questions.samples.iter().map(|sample| sample.question.as_str()));
                }
            }
        }
        texts
    }

    /// Cluster of every task's every document or sample. Of one group's tasks in different languages, what has the same
    /// name is parallel and one cluster; tasks in the same language (MMLU's subjects) have nothing in common.
    pub(super) fn clusters(&self) -> Vec<Vec<u32>> {
        let mut numbers = BTreeMap::<(&str, String, &str), u32>::new();
        let mut seen = BTreeMap::<(&str, &str, &str), u32>::new();
        let mut clusters = Vec::new();
        for (suite, task) in self.iter() {
            let family = match &task.group {
                None => format!("task {}", task.name),
                Some(group) => {
                    let of_language = seen.entry((&suite.name, group, &task.language)).or_default();
                    *of_language += 1;
                    format!("group {group} {of_language}")
                }
            };
            let names: Vec<&str> = match &task.content {
                Content::Text(documents) => documents.iter().map(|document| document.id.as_str()).collect(),
                Content::Questions(questions) => {
                    questions.samples.iter().map(|sample| sample.cluster.as_str()).collect()
                }
            };
            let mut of_task = Vec::with_capacity(names.len());
            for name in names {
                let next = numbers.len() as u32;
                of_task.push(*numbers.entry((suite.name.as_str(), family.clone(), name)).or_insert(next));
            }
            clusters.push(of_task);
        }
        clusters
    }

    /// The same tasks in the same places, those that ask questions without any.
    pub(super) fn text_only(&self) -> Self {
        let mut suites = self.suites.clone();
        for task in suites.iter_mut().flat_map(|suite| &mut suite.tasks) {
            if let Content::Questions(questions) = &mut task.content {
                questions.samples.clear();
            }
        }
        Self { suites }
    }
}

/// The tasks as one tokenizer cuts them.
pub(super) struct Workload {
    pub requests: Vec<Request>,
    pub prompts: Vec<WritingPrompt>,
    pub cards: Vec<TaskCard>,
    /// How many of the first requests are of text tasks: those come first.
    pub text_requests: usize,
}

impl Workload {
    /// Every id that a model reads.
    pub(super) fn ids(&self) -> BTreeSet<u32> {
        let of_requests = self.requests.iter().flat_map(|request| request.tokens.iter());
        of_requests.chain(self.prompts.iter().flat_map(|prompt| prompt.tokens.iter())).copied().collect()
    }
}

/// How tasks are cut.
#[derive(Clone, Copy)]
pub(super) struct Cutting<'a> {
    pub protocol: &'a Protocol,
    pub max_windows: Option<usize>,
    /// Most tokens that the model reads at once.
    pub max_length: usize,
    /// Writes a conversation; `None`: prompts are plain text.
    pub chat: Option<Converse<'a>>,
    /// Whether choices are conversations too.
    pub chat_choices: bool,
}

/// Cuts all tasks.
///
/// # Errors
/// A task of which nothing can be scored; a text that cannot be tokenized.
pub(super) fn cut(tasks: &Tasks, tokenizer: &Tokenizer, cutting: Cutting) -> Result<Workload> {
    let tokenize = |text: &str| -> Result<TokenizedText> {
        let encoded = tokenizer.encode(text)?;
        Ok(TokenizedText { ids: encoded.ids, offsets: encoded.offsets })
    };
    let tokenize_question = |text: &str| tokenizer.encode_question(text);
    let reader = Reader {
        bos: tokenizer.bos(),
        prefix: tokenizer.prefix(),
        max_length: cutting.max_length,
        tokenize: &tokenize,
        tokenize_question: &tokenize_question,
        chat: cutting.chat,
        chat_choices: cutting.chat_choices,
    };
    let mut workload =
        Workload { requests: Vec::new(), prompts: Vec::new(), cards: Vec::new(), text_requests: 0 };
    for suite in &tasks.suites {
        let mut rendered = suite::render(suite, cutting.protocol, &reader)?;
        if let Some(windows) = cutting.max_windows {
            rendered.keep_windows(suite, windows);
        }
        let first_task = workload.cards.len() as u32;
        workload.requests.extend(rendered.requests.into_iter().map(|mut request| {
            request.task += first_task;
            request
        }));
        workload.prompts.extend(rendered.prompts.into_iter().map(|mut prompt| {
            prompt.task += first_task;
            prompt
        }));
        workload.cards.extend(rendered.tasks.into_iter().zip(&suite.tasks).map(|(counts, task)| TaskCard {
            name: format!("{}/{}", suite.name, counts.name),
            kind: kind(task).to_owned(),
            group: task.group.clone(),
            suite_version: suite.version,
            suite_sha256: suite.sha256.clone(),
            language: Some(counts.language).filter(|language| language != "und"),
            documents: counts.documents,
            documents_dropped: counts.documents_dropped,
            samples_cut: counts.samples_cut,
            samples_not_asked: counts.samples_not_asked,
            answer_tokens_cut: counts.answer_tokens_cut,
            left_out: task.questions().map_or_else(Vec::new, |questions| questions.left_out.clone()),
            tokens: counts.tokens,
            scored_tokens: counts.scored_tokens,
            unscored_tokens: counts.unscored_tokens,
            dropped_tokens: counts.dropped_tokens,
            scored_bytes: counts.scored_bytes,
            input_sha256: None,
        }));
    }
    // Text first, so that its records are the first ones; within, in the tasks' order.
    let is_text =
        |request: &Request| workload.cards.get(request.task as usize).is_some_and(|card| card.kind == "text");
    workload.requests.sort_by_key(|request| !is_text(request));
    workload.text_requests = workload.requests.partition_point(is_text);
    let inputs = input_hashes(tasks, &workload);
    workload.cards.iter_mut().zip(inputs).for_each(|(card, hash)| card.input_sha256 = Some(hash));
    Ok(workload)
}

/// Per task the hash of all that a model reads in it, and of how it is to answer: what two runs must have in common to be
/// compared sample by sample.
fn input_hashes(tasks: &Tasks, workload: &Workload) -> Vec<String> {
    let bytes = |place: &[u32], tokens: &[u32]| -> Vec<u8> {
        place.iter().chain(tokens).flat_map(|number| number.to_le_bytes()).collect()
    };
    let hash = |(index, (_, task)): (usize, (&Suite, &Task))| {
        let asked = task.questions().map_or_else(Vec::new, |q| format!("{:?}", q.kind).into_bytes());
        let requests = workload.requests.iter().filter(|request| request.task as usize == index);
        let requests = requests.map(|Request { document, window, tokens, scored, .. }| {
            bytes(&[*document, *window, scored.start as u32, scored.end as u32, tokens.len() as u32], tokens)
        });
        let prompts = workload.prompts.iter().filter(|prompt| prompt.task as usize == index);
        let prompts =
            prompts.map(|prompt| bytes(&[prompt.sample, prompt.tokens.len() as u32], &prompt.tokens));
        hex_sha256_of(std::iter::once(asked).chain(requests).chain(prompts))
    };
    tasks.iter().enumerate().map(hash).collect()
}

/// What is done in a task, in one word.
fn kind(task: &Task) -> &'static str {
    match task.questions().map(|questions| &questions.kind) {
        None => "text",
        Some(QuestionKind::Choice) => "choice",
        Some(QuestionKind::Continuation) => "continuation",
        Some(QuestionKind::Rolling) => "rolling",
        Some(QuestionKind::Generation(_)) => "generation",
    }
}
