//! Judging: from log-likelihoods and generated texts to what is right, as lm-evaluation-harness judges.
//!
//! Pure functions of what a model answered; nothing here knows a model or a tokenizer. The rules are those of
//! lm-evaluation-harness 0.4.13 (`api/task.py`, `api/metrics.py`, `filters/`), F1 that of SQuAD's evaluation
//! script (arXiv 1806.03822).

mod pattern;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

pub(crate) use pattern::{Pattern, Replacement};

use super::question::{ChoiceOption, Filter, FilterStep, Metric, TextComparison};
use crate::error::{Error, Result};

/// What Python's `string.punctuation` holds.
const PUNCTUATION: &str = r##"!"#$%&'()*+,-./:;<=>?@[\]^_`{|}~"##;

/// Index of the option that `metric` prefers: the largest log-likelihood, divided by the length of the
/// option's normalizer for [`Metric::AccNorm`] (Unicode characters) and [`Metric::AccBytes`] (UTF-8 bytes);
/// of equal ones the first.
///
/// `None` where a value is NaN (an empty normalizer of an impossible option is one), where there is not one
/// log-likelihood for each option, or where the metric chooses nothing.
pub fn choose(log_likelihoods: &[f64], options: &[ChoiceOption], metric: &Metric) -> Option<usize> {
    if log_likelihoods.len() != options.len() {
        return None;
    }
    let length = |option: &ChoiceOption| match metric {
        Metric::Acc | Metric::GoldProbability => Some(1.0),
        Metric::AccNorm => Some(option.normalizer.chars().count() as f64),
        Metric::AccBytes => Some(option.normalizer.len() as f64),
        _ => None,
    };
    let mut best: Option<(usize, f64)> = None;
    for (index, (log_likelihood, option)) in log_likelihoods.iter().zip(options).enumerate() {
        let value = log_likelihood / length(option)?;
        if value.is_nan() {
            return None;
        }
        if best.is_none_or(|(_, largest)| value > largest) {
            best = Some((index, value));
        }
    }
    best.map(|(index, _)| index)
}

/// What one sample contributes to `metric`: 1 if the chosen option is one of `gold`, else 0; for
/// [`Metric::GoldProbability`] Σ over gold of p / Σ over all of p, in 0..=1.
///
/// `None` as for [`choose`], and where every option is impossible.
pub fn choice_score(
    metric: &Metric,
    log_likelihoods: &[f64],
    options: &[ChoiceOption],
    gold: &[usize],
) -> Option<f64> {
    let chosen = choose(log_likelihoods, options, metric)?;
    if *metric != Metric::GoldProbability {
        return Some(f64::from(u8::from(gold.contains(&chosen))));
    }
    let largest = log_likelihoods.get(chosen).copied().filter(|value| value.is_finite())?;
    let probability = |value: &f64| (value - largest).exp();
    let all: f64 = log_likelihoods.iter().map(probability).sum();
    let golden: BTreeSet<usize> = gold.iter().copied().collect();
    let right: f64 = golden.iter().filter_map(|index| log_likelihoods.get(*index)).map(probability).sum();
    Some(right / all)
}

/// A [`Filter`] whose patterns are compiled.
#[derive(Clone, Debug)]
pub struct CompiledFilter {
    name: String,
    steps: Vec<CompiledStep>,
}

#[derive(Clone, Debug)]
enum CompiledStep {
    Regex { pattern: Box<Pattern>, group_select: i64, fallback: String },
    Other(FilterStep),
}

impl CompiledFilter {
    /// Compiles the patterns of `filter`.
    ///
    /// # Errors
    /// A pattern that Python's `re` or this program cannot use, with the reason.
    pub fn new(filter: &Filter) -> Result<Self> {
        let compile = |step: &FilterStep| match step {
            FilterStep::Regex { pattern, group_select, fallback } => Ok(CompiledStep::Regex {
                pattern: Box::new(compile(pattern, &format!("filter `{}`", filter.name))?),
                group_select: *group_select,
                fallback: fallback.clone(),
            }),
            other => Ok(CompiledStep::Other(other.clone())),
        };
        let steps = filter.steps.iter().map(compile).collect::<Result<_>>()?;
        Ok(Self { name: filter.name.clone(), steps })
    }

    /// Whether it looks at several answers to one sample together.
    pub fn votes(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, CompiledStep::Other(FilterStep::MajorityVote)))
    }

    /// The filter's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// What `filter` makes of one sample's answers.
///
/// # Errors
/// A pattern that gives up on an answer (too much backtracking).
pub fn apply(filter: &CompiledFilter, answers: &[String]) -> Result<Vec<String>> {
    let mut answers = answers.to_vec();
    for step in &filter.steps {
        match step {
            CompiledStep::Regex { pattern, group_select, fallback } => {
                for answer in &mut answers {
                    *answer = extract(pattern, *group_select, fallback, answer)
                        .map_err(|reason| gave_up(&format!("filter `{}`", filter.name), &reason))?;
                }
            }
            CompiledStep::Other(step) => simple_step(step, &mut answers),
        }
    }
    Ok(answers)
}

/// Every step of a filter that needs no pattern.
fn simple_step(step: &FilterStep, answers: &mut Vec<String>) {
    match step {
        FilterStep::Regex { .. } => {} // Compiled, and applied by the caller.
        FilterStep::TakeFirst => answers.truncate(1),
        FilterStep::TakeFirstK(count) => answers.truncate(*count),
        FilterStep::MajorityVote => {
            let vote = majority(answers);
            answers.clear();
            answers.extend(vote);
        }
        FilterStep::Lowercase => answers.iter_mut().for_each(|a| *a = a.to_lowercase()),
        FilterStep::Uppercase => answers.iter_mut().for_each(|a| *a = a.to_uppercase()),
        // The harness's `remove_whitespace` takes it away on both sides.
        FilterStep::RemoveWhitespace => {
            answers.iter_mut().for_each(|a| *a = a.trim_matches(is_space).to_owned());
        }
        FilterStep::StripThinking => answers.iter_mut().for_each(|a| *a = strip_thinking(a).0),
    }
}

/// The most frequent answer, of equally frequent ones the first (as `Counter.most_common`).
fn majority(answers: &[String]) -> Option<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for answer in answers {
        *counts.entry(answer).or_default() += 1;
    }
    let most = counts.values().max().copied()?;
    answers.iter().find(|answer| counts.get(answer.as_str()) == Some(&most)).cloned()
}

/// The harness's `regex` filter: of all matches the chosen one; of its groups the first that is not empty;
/// without white space around it. Where nothing is found, the fallback (also where `group_select` points
/// beyond the matches, at which the harness stops).
fn extract(
    pattern: &Pattern,
    group_select: i64,
    fallback: &str,
    answer: &str,
) -> std::result::Result<String, String> {
    let matches = pattern.find_all(answer)?;
    let index = match usize::try_from(group_select) {
        Ok(index) => Some(index),
        Err(_) => {
            usize::try_from(group_select.unsigned_abs()).ok().and_then(|back| matches.len().checked_sub(back))
        }
    };
    let found = match index.and_then(|index| matches.get(index)).map(Vec::as_slice) {
        None => fallback,
        Some([only]) => only,
        Some(groups) => groups.iter().find(|group| !group.is_empty()).copied().unwrap_or(fallback),
    };
    // The harness strips what was found, and a fallback only where groups were all empty; a fallback that
    // begins or ends with white space is nothing that anyone writes.
    Ok(found.trim_matches(is_space).to_owned())
}

/// A [`TextComparison`] whose patterns are compiled.
#[derive(Clone, Debug)]
pub struct CompiledComparison {
    ignored: Vec<Pattern>,
    comparison: TextComparison,
}

impl CompiledComparison {
    /// Compiles the patterns of `comparison`.
    ///
    /// # Errors
    /// A pattern that Python's `re` or this program cannot use, with the reason.
    pub fn new(comparison: &TextComparison) -> Result<Self> {
        let compile = |pattern: &String| compile(pattern, "regexes_to_ignore");
        let ignored = comparison.regexes_to_ignore.iter().map(compile).collect::<Result<_>>()?;
        Ok(Self { ignored, comparison: comparison.clone() })
    }

    /// What of each text counts: patterns removed, then lower case, then without punctuation, then without
    /// digits. The harness does this with NumPy's strings, which have no NUL at their end and which lower
    /// case cannot make longer than the longest of them (it would for `İ`).
    fn normal(&self, texts: &[String]) -> Result<Vec<String>> {
        let mut texts = texts.to_vec();
        for pattern in &self.ignored {
            for text in &mut texts {
                *text = pattern.remove(text).map_err(|reason| gave_up("regexes_to_ignore", &reason))?;
                end_as_numpy(text);
            }
        }
        let longest = texts.iter().map(|text| text.chars().count()).max().unwrap_or(0);
        for text in &mut texts {
            end_as_numpy(text);
            if self.comparison.ignore_case {
                *text = text.to_lowercase().chars().take(longest).collect();
            }
            if self.comparison.ignore_punctuation {
                text.retain(|c| !PUNCTUATION.contains(c));
            }
            if self.comparison.ignore_numbers {
                text.retain(|c| !c.is_ascii_digit());
            }
            end_as_numpy(text);
        }
        Ok(texts)
    }
}

/// Takes away the NUL characters at the end.
fn end_as_numpy(text: &mut String) {
    text.truncate(text.trim_end_matches('\0').len());
}

/// Whether `answer` equals any of `targets` as far as the comparison looks.
///
/// # Errors
/// A pattern that gives up on a text (too much backtracking).
pub fn exact_match(comparison: &CompiledComparison, answer: &str, targets: &[String]) -> Result<bool> {
    let answer = comparison.normal(&[answer.to_owned()])?;
    Ok(comparison.normal(targets)?.iter().any(|target| answer.first() == Some(target)))
}

/// SQuAD's F1 of the words of `answer` against the target that it meets best, in 0..=1; 0 without targets.
///
/// Lower case, no ASCII punctuation, no English articles. With p = shared words / words of the answer and
/// r = shared words / words of the target: 2pr/(p+r). Where either has no words, 1 if both have none.
pub fn f1(answer: &str, targets: &[String]) -> f64 {
    let answer = words_that_count(answer);
    targets.iter().map(|target| f1_of_words(&answer, &words_that_count(target))).fold(0.0, f64::max)
}

fn f1_of_words(answer: &[String], target: &[String]) -> f64 {
    if answer.is_empty() || target.is_empty() {
        return f64::from(u8::from(answer.is_empty() && target.is_empty()));
    }
    let mut left: BTreeMap<&str, usize> = BTreeMap::new();
    for word in target {
        *left.entry(word).or_default() += 1;
    }
    let mut shared = 0_usize;
    for word in answer {
        if let Some(count) = left.get_mut(word.as_str()).filter(|count| **count > 0) {
            *count -= 1;
            shared += 1;
        }
    }
    if shared == 0 {
        return 0.0;
    }
    let precision = shared as f64 / answer.len() as f64;
    let recall = shared as f64 / target.len() as f64;
    2.0 * precision * recall / (precision + recall)
}

/// SQuAD's normal form, as words.
fn words_that_count(text: &str) -> Vec<String> {
    let mut plain = text.to_lowercase();
    plain.retain(|c| !PUNCTUATION.contains(c));
    // An article is a whole run of word characters; it becomes a space, so its neighbours are parted.
    let mut kept = String::with_capacity(plain.len());
    let mut run = String::new();
    for c in plain.chars().chain(std::iter::once(' ')) {
        if c.is_alphanumeric() || c == '_' {
            run.push(c);
            continue;
        }
        kept.push_str(if matches!(run.as_str(), "a" | "an" | "the") { " " } else { &run });
        run.clear();
        kept.push(c);
    }
    kept.split(is_space).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Whether a text held a reasoning model's `<think>` block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThinkBlock {
    /// No tag at all.
    None,
    /// At least one, and all are closed (the first may have been opened by the prompt).
    Closed,
    /// The last one is never closed.
    Unclosed,
}

/// `text` without its `<think>…</think>` blocks and the white space after each, and what was found. A block
/// that the prompt opened begins with the text; one that is never closed leaves nothing, as no answer was
/// reached.
pub fn strip_thinking(text: &str) -> (String, ThinkBlock) {
    const OPEN: &str = "<think>";
    const CLOSE: &str = "</think>";
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    let mut block = ThinkBlock::None;
    loop {
        let close = rest.find(CLOSE);
        let before = match (rest.find(OPEN), close) {
            (None, None) => break,
            (Some(_), None) => return (String::new(), ThinkBlock::Unclosed),
            // Whatever follows a first opening tag is thought, tags of further openings included.
            (Some(open), Some(close)) if open < close => rest.get(..open).unwrap_or_default(),
            (_, Some(_)) if block == ThinkBlock::None => "",
            // A closing tag without an opening one: no second block, only the tag goes.
            (_, Some(close)) => rest.get(..close).unwrap_or_default(),
        };
        kept.push_str(before);
        block = ThinkBlock::Closed;
        let after = close.and_then(|close| rest.get(close + CLOSE.len()..)).unwrap_or_default();
        rest = after.trim_start_matches(is_space);
    }
    kept.push_str(rest);
    (kept, block)
}

/// Share of the runs of `n` tokens that occurred before in the same answer, in 0..=1; 0 where there is no
/// such run. A model that loops comes near 1.
pub fn repeated_ngrams(tokens: &[u32], n: usize) -> f64 {
    if n == 0 || tokens.len() < n {
        return 0.0;
    }
    let mut seen = BTreeSet::new();
    let runs = tokens.windows(n);
    let all = runs.len();
    let repeated = runs.filter(|run| !seen.insert(*run)).count();
    repeated as f64 / all as f64
}

/// Words of a text as `word_perplexity` counts them: the pieces between runs of white space, also empty ones
/// at the ends. Never 0.
pub fn count_words(text: &str) -> usize {
    let is_start = |(c, before): &(char, Option<char>)| is_space(*c) && !before.is_some_and(is_space);
    let befores = std::iter::once(None).chain(text.chars().map(Some));
    1 + text.chars().zip(befores).filter(is_start).count()
}

/// Python's `str.isspace`.
pub(crate) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

fn compile(pattern: &str, place: &str) -> Result<Pattern> {
    Pattern::new(pattern).map_err(|reason| {
        let help = "write it in the syntax of Python's `re`, without conditionals and without `(?a)`, `(?x)`";
        Error::argument(format!("{place}: the pattern `{pattern}` {reason}"), help)
    })
}

fn gave_up(place: &str, reason: &str) -> Error {
    Error::argument(format!("{place}: {reason}"), "write the pattern so that it needs less backtracking")
}
