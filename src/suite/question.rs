//! Questions: what is asked of a model, and how its answer is judged, before any tokenizer is known.
//!
//! Plain data, whatever it came from (an embedded suite, a benchmark's own files, a task file of
//! lm-evaluation-harness). A sample is one item; a prompt is put together from it in `prompt.rs`, with or
//! without a chat template; `score.rs` judges answers.

use std::sync::Arc;

use serde_json::Value;

/// Samples that are asked in one way and reported together.
#[derive(Clone, Debug, PartialEq)]
pub struct Questions {
    /// What is done with every sample.
    pub kind: QuestionKind,
    /// Stands before everything else in a prompt, exactly as it is.
    pub description: String,
    /// Between a question and its answer.
    pub target_delimiter: String,
    /// After each worked example.
    pub fewshot_delimiter: String,
    /// At least one.
    pub samples: Vec<Sample>,
    /// What is reported; the first is the headline. At least one, each fitting the kind.
    pub metrics: Vec<Metric>,
    /// How a generated text becomes an answer, one row of results each; empty: as it is. Generation only.
    pub filters: Vec<Filter>,
    /// Records of the data that no sample was made of, with the reason, as "3 records without an answer".
    pub left_out: Vec<String>,
}

/// What is done with a sample.
#[derive(Clone, Debug, PartialEq)]
pub enum QuestionKind {
    /// The likeliest of several continuations is the answer.
    Choice,
    /// How likely one continuation is, and whether it is what greedy decoding writes (LAMBADA).
    Continuation,
    /// Every token of the text is predicted, in rolling windows as lm-evaluation-harness cuts them.
    Rolling,
    /// The model writes until it stops.
    Generation(GenerationSettings),
}

/// How to generate.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerationSettings {
    /// Strings that end the answer; they are no part of it. The end-of-sequence token always ends it.
    pub until: Vec<String>,
    /// Most tokens of an answer.
    pub max_new_tokens: usize,
    /// `None`: greedy.
    pub sampling: Option<Sampling>,
    /// Answers to each sample; more than one only where they are drawn at random.
    pub repeats: usize,
}

/// How tokens are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Above 0.
    pub temperature: f64,
    /// Smallest set of tokens with at least this probability; 1: all.
    pub top_p: f64,
    /// Only so many of the likeliest tokens.
    pub top_k: Option<usize>,
}

/// One item of a task.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Unique in its task: the record's own id, else its index.
    pub id: String,
    /// Index of the record in the data, from 0 (lm-evaluation-harness's `doc_id`).
    pub doc_id: usize,
    /// Samples of one cluster hang together (one passage, one item in many languages); by default the id.
    pub cluster: String,
    /// Difficulty, where the task has levels.
    pub level: Option<Level>,
    /// Worked examples that come before the question.
    pub shots: Arc<[Shot]>,
    /// The question, as it is written (without description, examples and delimiter); the whole text for
    /// [`QuestionKind::Rolling`].
    pub question: String,
    /// What the answer begins with, given to the model; usually empty.
    pub answer_prefix: String,
    /// What is right.
    pub answer: Answer,
    /// The record that the sample was made of, for those who want to look.
    pub record: Value,
}

/// How hard a sample is, on a scale that the task names.
#[derive(Clone, Debug, PartialEq)]
pub struct Level {
    /// What grows, as "digits", "steps", "items".
    pub unit: String,
    /// How much of it.
    pub value: u32,
}

/// A worked example.
#[derive(Clone, Debug, PartialEq)]
pub struct Shot {
    /// As [`Sample::question`].
    pub question: String,
    /// The right answer, without delimiter.
    pub answer: String,
}

/// What is right.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// For [`QuestionKind::Choice`].
    Choice {
        /// At least two.
        options: Vec<ChoiceOption>,
        /// Indexes of the right options, ascending; at least one.
        gold: Vec<usize>,
    },
    /// For [`QuestionKind::Continuation`]: the text whose likelihood is asked, without delimiter.
    Continuation(String),
    /// For [`QuestionKind::Rolling`].
    Text,
    /// For [`QuestionKind::Generation`]: texts of which any is right.
    Generation(Vec<String>),
}

/// One continuation to choose.
#[derive(Clone, Debug, PartialEq)]
pub struct ChoiceOption {
    /// What is scored, without delimiter.
    pub continuation: String,
    /// Stands in place of the sample's question, where every option has a context of its own (WinoGrande).
    pub question: Option<String>,
    /// By whose length `acc_norm` and `acc_bytes` divide; usually the continuation.
    pub normalizer: String,
}

/// What is reported of a sample.
#[derive(Clone, Debug, PartialEq)]
pub enum Metric {
    /// Choice: whether the option with the largest log-likelihood is right. Continuation: whether greedy
    /// decoding writes it.
    Acc,
    /// Choice: the same, log-likelihoods divided by Unicode characters (as lm-evaluation-harness).
    AccNorm,
    /// Choice: the same, divided by UTF-8 bytes.
    AccBytes,
    /// Choice, several right: share of the probability of all options that the right ones have (TruthfulQA's
    /// MC2).
    GoldProbability,
    /// Generation: whether the filtered answer equals any target.
    ExactMatch(TextComparison),
    /// Generation: largest F1 of words against any target, as SQuAD counts it.
    F1,
    /// Continuation: exp of the mean negative log-likelihood of the targets.
    Perplexity,
    /// Rolling: exp of the negative log-likelihood per word.
    WordPerplexity,
    /// Rolling: exp of the negative log-likelihood per UTF-8 byte.
    BytePerplexity,
    /// Rolling: negative log2-likelihood per UTF-8 byte.
    BitsPerByte,
}

impl Metric {
    /// The field's name, as lm-evaluation-harness spells it where it has it.
    pub fn name(&self) -> &'static str {
        match self {
            Metric::Acc => "acc",
            Metric::AccNorm => "acc_norm",
            Metric::AccBytes => "acc_bytes",
            Metric::GoldProbability => "mc2",
            Metric::ExactMatch(_) => "exact_match",
            Metric::F1 => "f1",
            Metric::Perplexity => "perplexity",
            Metric::WordPerplexity => "word_perplexity",
            Metric::BytePerplexity => "byte_perplexity",
            Metric::BitsPerByte => "bits_per_byte",
        }
    }

    /// Whether a sample is simply right or wrong, so that flips are counted.
    pub fn is_right_or_wrong(&self) -> bool {
        matches!(self, Metric::Acc | Metric::AccNorm | Metric::AccBytes | Metric::ExactMatch(_))
    }
}

/// What two texts may differ in and still be equal.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TextComparison {
    /// Patterns that are removed from both sides, in order.
    pub regexes_to_ignore: Vec<String>,
    /// Lower-case both sides.
    pub ignore_case: bool,
    /// Remove ASCII punctuation from both sides.
    pub ignore_punctuation: bool,
    /// Remove ASCII digits from both sides.
    pub ignore_numbers: bool,
}

/// A named way from what was generated to an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    /// Unique in its task.
    pub name: String,
    /// Applied one after the other.
    pub steps: Vec<FilterStep>,
}

/// One step of a filter, from the answers of one sample to other answers.
#[derive(Clone, Debug, PartialEq)]
pub enum FilterStep {
    /// Each answer becomes what the pattern finds in it.
    Regex {
        /// Syntax of Python's `re`, as far as the regex crate has it.
        pattern: String,
        /// Which match: 0 the first, -1 the last.
        group_select: i64,
        /// Where nothing is found.
        fallback: String,
    },
    /// Only the first answer stays.
    TakeFirst,
    /// Only the first so many stay.
    TakeFirstK(usize),
    /// Only the most frequent stays; of equally frequent ones the first.
    MajorityVote,
    /// Lower case.
    Lowercase,
    /// Upper case.
    Uppercase,
    /// Without white space at either end.
    RemoveWhitespace,
    /// Without a reasoning model's `<think>` block; an unclosed block leaves nothing.
    StripThinking,
}
