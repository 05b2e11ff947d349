//! What a task file says of judging: metrics, filters, and how to generate.
//!
//! Names, arguments and defaults are those of lm-evaluation-harness 0.4.13 (`api/metrics.py`, `filters/`,
//! `models/utils.py`). A metric that it has and this program has not is left out and noted, as long as
//! another one remains; anything else that is not known is refused by name.

use serde_yaml::{Mapping, Value};

use super::config::Output;
use super::keys::{Keys, tagged};
use crate::error::Result;
use crate::suite::question::{Filter, FilterStep, GenerationSettings, Metric, Sampling, TextComparison};
use crate::suite::score::{CompiledComparison, CompiledFilter};
use crate::suite::suggest::did_you_mean;

/// Tokens of an answer where the task does not say how many.
const DEFAULT_TOKENS: usize = 256;
/// Most answers to one sample.
const MOST_REPEATS: usize = 10_000;

/// Metrics of lm-evaluation-harness that this program does not compute.
const NOT_COMPUTED: [&str; 15] = [
    "acc_all",
    "acc_mutual_info",
    "bleu",
    "brier_score",
    "bypass",
    "chrf",
    "chrf++",
    "f1",
    "likelihood",
    "mcc",
    "rouge1",
    "rouge2",
    "rougeL",
    "ter",
    "exact_match",
];

/// The names of the metrics that fit an output, and the aggregation that each has; the defaults first.
fn fitting(output: Output) -> &'static [(&'static str, &'static str)] {
    match output {
        Output::Continuation => &[("perplexity", "perplexity"), ("acc", "mean")],
        Output::Choice => &[("acc", "mean"), ("acc_norm", "mean"), ("acc_bytes", "mean")],
        Output::Rolling => &[
            ("word_perplexity", "weighted_perplexity"),
            ("byte_perplexity", "weighted_perplexity"),
            ("bits_per_byte", "bits_per_byte"),
        ],
        Output::Generation => &[("exact_match", "mean")],
    }
}

fn metric(name: &str, comparison: TextComparison) -> Option<Metric> {
    Some(match name {
        "acc" => Metric::Acc,
        "acc_norm" => Metric::AccNorm,
        "acc_bytes" => Metric::AccBytes,
        "exact_match" => Metric::ExactMatch(comparison),
        "perplexity" => Metric::Perplexity,
        "word_perplexity" => Metric::WordPerplexity,
        "byte_perplexity" => Metric::BytePerplexity,
        "bits_per_byte" => Metric::BitsPerByte,
        _ => return None,
    })
}

/// `metric_list`; a metric that cannot be computed is noted, as long as one is left. Where there is no list, the harness's defaults for the output.
pub(super) fn metrics(
    keys: &Keys,
    list: Option<Vec<Value>>,
    output: Output,
    notes: &mut Vec<String>,
) -> Result<Vec<Metric>> {
    let known = fitting(output);
    let Some(list) = list else {
        let defaults = known.iter().filter(|(name, _)| *name != "acc_bytes");
        return Ok(defaults.filter_map(|(name, _)| metric(name, TextComparison::default())).collect());
    };
    let mut metrics: Vec<Metric> = Vec::new();
    let mut left_out = Vec::new();
    for (index, entry) in list.into_iter().enumerate() {
        let place = format!("metric_list[{index}]");
        if let Some((place, tag)) = tagged(&entry, &place) {
            let name = entry.get("metric").and_then(Value::as_str).unwrap_or("?").to_owned();
            left_out.push((name, format!("needs Python, which is not run (`{place}`: `{tag}`)")));
            continue;
        }
        let mut own = match entry {
            Value::Mapping(own) => keys.inner(&place, own),
            _ => return Err(keys.error(&place, "is no mapping", "write `- metric: NAME`")),
        };
        let Some(name) = own.text("metric")? else {
            return Err(own.error("metric", "is missing", "write `- metric: NAME`"));
        };
        let Some((_, aggregation)) = known.iter().find(|(known, _)| *known == name) else {
            if NOT_COMPUTED.contains(&name.as_str()) || fits_elsewhere(&name) {
                left_out.push((name, format!("is not computed for `{}`", output.name())));
                continue;
            }
            let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            let help = did_you_mean(&name, &names).unwrap_or_else(|| {
                format!("for `{}` use {}, or leave it out", output.name(), names.join(", "))
            });
            return Err(own.error("metric", format!("`{name}` is not computed by this program"), help));
        };
        own.skip("higher_is_better");
        own.skip("weight_by_size"); // Belongs to groups; of a metric it is passed over there too.
        if let Some(found) = own.text("aggregation")?.filter(|found| found != aggregation) {
            let problem = format!("`{found}` is not how this program aggregates `{name}`");
            return Err(own.error("aggregation", problem, format!("use {aggregation}, or leave it out")));
        }
        let is_match = name == "exact_match";
        if own.boolean("hf_evaluate")?.unwrap_or(false) && !is_match {
            let problem = format!("`{name}` is not computed with the library `evaluate`");
            return Err(own.error("hf_evaluate", problem, "leave it out"));
        }
        let comparison = if is_match { comparison(&mut own)? } else { TextComparison::default() };
        // Some task files give these to other metrics too, which take no notice.
        for key in ["regexes_to_ignore", "ignore_case", "ignore_punctuation", "ignore_numbers"] {
            own.skip(key);
        }
        own.nothing_left()?;
        let Some(metric) = metric(&name, comparison) else { continue };
        if metrics.iter().any(|earlier| earlier.name() == metric.name()) {
            return Err(own.error("metric", format!("`{name}` is listed twice"), "list it once"));
        }
        metrics.push(metric);
    }
    if metrics.is_empty() {
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        let problem = match left_out.first() {
            None => "is empty".to_owned(),
            Some((name, reason)) => format!("no metric is left: `{name}` {reason}"),
        };
        return Err(keys.error("metric_list", problem, format!("use {}", names.join(", "))));
    }
    notes.extend(left_out.into_iter().map(|(name, reason)| format!("the metric `{name}` {reason}")));
    Ok(metrics)
}

/// Whether a metric is computed for another output.
fn fits_elsewhere(name: &str) -> bool {
    metric(name, TextComparison::default()).is_some()
}

/// The arguments of `exact_match`.
fn comparison(keys: &mut Keys) -> Result<TextComparison> {
    let comparison = TextComparison {
        regexes_to_ignore: keys.texts("regexes_to_ignore")?.unwrap_or_default(),
        ignore_case: keys.boolean("ignore_case")?.unwrap_or(false),
        ignore_punctuation: keys.boolean("ignore_punctuation")?.unwrap_or(false),
        ignore_numbers: keys.boolean("ignore_numbers")?.unwrap_or(false),
    };
    match CompiledComparison::new(&comparison) {
        Ok(_) => Ok(comparison),
        Err(e) => Err(keys.error("regexes_to_ignore", e.to_string(), e.help().unwrap_or_default())),
    }
}

/// `filter_list`; where there is none, the harness's: the first answer, as `none`.
pub(super) fn filters(keys: &Keys, list: Option<Vec<Value>>, repeats: usize) -> Result<Vec<Filter>> {
    let Some(list) = list else {
        return Ok(vec![Filter { name: "none".to_owned(), steps: vec![FilterStep::TakeFirst] }]);
    };
    let mut filters: Vec<Filter> = Vec::new();
    for (index, entry) in list.into_iter().enumerate() {
        let place = format!("filter_list[{index}]");
        let mut own = match entry {
            Value::Mapping(own) => keys.inner(&place, own),
            _ => return Err(keys.error(&place, "is no mapping", "write `name:` and `filter:`")),
        };
        let Some(name) = own.text("name")?.filter(|name| !name.is_empty()) else {
            return Err(own.error("name", "is missing", "give every filter a name of its own"));
        };
        if filters.iter().any(|earlier| earlier.name == name) {
            let problem = format!("another filter is already called `{name}`");
            return Err(own.error("name", problem, "give every filter a name of its own"));
        }
        let Some(entries) = own.list("filter")? else {
            return Err(own.error("filter", "is missing", "list the steps, as `- function: take_first`"));
        };
        own.nothing_left()?;
        let mut steps: Vec<FilterStep> = Vec::new();
        for (index, entry) in entries.into_iter().enumerate() {
            let place = format!("filter[{index}]");
            let mut step = match entry {
                Value::Mapping(step) => own.inner(&place, step),
                _ => return Err(own.error(&place, "is no mapping", "write `- function: NAME`")),
            };
            // There the harness goes on with the letters of the one answer.
            if steps.contains(&FilterStep::TakeFirst) {
                let help = "put `take_first` last";
                return Err(step.error("function", "stands after `take_first`", help));
            }
            steps.push(filter_step(&mut step, repeats)?);
            step.nothing_left()?;
        }
        let filter = Filter { name, steps };
        if let Err(e) = CompiledFilter::new(&filter) {
            return Err(own.error("filter", e.to_string(), e.help().unwrap_or_default()));
        }
        filters.push(filter);
    }
    if filters.is_empty() {
        return Err(keys.error("filter_list", "is empty", "list a filter, or leave it out"));
    }
    Ok(filters)
}

fn filter_step(keys: &mut Keys, repeats: usize) -> Result<FilterStep> {
    const KNOWN: [&str; 7] = [
        "regex",
        "take_first",
        "take_first_k",
        "majority_vote",
        "lowercase",
        "uppercase",
        "remove_whitespace",
    ];
    let Some(name) = keys.text("function")? else {
        return Err(keys.error("function", "is missing", format!("use {}", KNOWN.join(", "))));
    };
    Ok(match name.as_str() {
        "regex" => FilterStep::Regex {
            pattern: keys.text("regex_pattern")?.unwrap_or_else(|| r"#### (\-?[0-9\.\,]+)".to_owned()),
            group_select: keys.integer("group_select")?.unwrap_or(0),
            fallback: keys.text("fallback")?.unwrap_or_else(|| "[invalid]".to_owned()),
        },
        "take_first" => FilterStep::TakeFirst,
        "take_first_k" => match keys.number("k")? {
            Some(0) => return Err(keys.error("k", "is 0", "give at least 1")),
            None => return Err(keys.error("k", "is missing", "write how many answers stay")),
            // The same answer is not generated again where nothing is drawn at random.
            Some(k) if repeats == 1 => FilterStep::TakeFirstK(k),
            Some(k) if k > repeats => {
                let help = "raise `repeats`, or lower `k`";
                return Err(keys.error("k", format!("{k} answers are wanted of {repeats}"), help));
            }
            Some(k) => FilterStep::TakeFirstK(k),
        },
        "majority_vote" => FilterStep::MajorityVote,
        "lowercase" => FilterStep::Lowercase,
        "uppercase" => FilterStep::Uppercase,
        "remove_whitespace" => FilterStep::RemoveWhitespace,
        other => {
            let help =
                did_you_mean(other, &KNOWN).unwrap_or_else(|| format!("use {} instead", KNOWN.join(", ")));
            return Err(keys.error("function", format!("the filter `{other}` is not supported"), help));
        }
    })
}

/// `generation_kwargs` and `repeats`. Without `until`, an answer ends where the next example would begin.
pub(super) fn generation(
    keys: Option<Keys>,
    fewshot_delimiter: &str,
    repeats: usize,
    notes: &mut Vec<String>,
) -> Result<GenerationSettings> {
    let mut keys = keys.unwrap_or_else(|| Keys::new(std::path::Path::new(""), "", Mapping::new(), ""));
    let until = keys.texts("until")?.unwrap_or_else(|| vec![fewshot_delimiter.to_owned()]);
    if until.iter().any(String::is_empty) {
        return Err(keys.error("until", "has an empty text, which ends every answer at once", "take it out"));
    }
    // Of several names for one number the first counts.
    let mut tokens = None;
    for key in ["max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens"] {
        let found = keys.number(key)?;
        if found == Some(0) {
            return Err(keys.error(key, "is 0", "give at least 1"));
        }
        tokens = tokens.or(found);
    }
    if keys.take("max_length").is_some() {
        let help = "write how many tokens an answer may have, as `max_gen_toks`";
        return Err(keys.error("max_length", "counts the prompt too, and is not supported", help));
    }
    if keys.number("num_beams")?.is_some_and(|beams| beams != 1) {
        return Err(keys.error("num_beams", "beam search is not supported", "leave it out"));
    }
    let do_sample = keys.boolean("do_sample")?;
    let temperature = keys.float("temperature")?.unwrap_or(0.0);
    let top_p = keys.float("top_p")?.unwrap_or(1.0);
    let top_k = keys.integer("top_k")?.unwrap_or(0);
    if temperature < 0.0 {
        return Err(keys.error("temperature", format!("is {temperature}"), "give 0 or more"));
    }
    if !(top_p > 0.0 && top_p <= 1.0) {
        return Err(keys.error("top_p", format!("is {top_p}"), "give a number above 0, at most 1"));
    }
    keys.nothing_left()?;
    let draws = temperature > 0.0 && do_sample != Some(false);
    if do_sample == Some(true) && !draws {
        notes.push("answers are generated greedily, as the temperature is 0".to_owned());
    }
    if do_sample == Some(false) && temperature > 0.0 {
        notes.push("`temperature` has no effect, as `do_sample` is false".to_owned());
    }
    if repeats > 1 && !draws {
        notes
            .push(format!("every sample is asked once and not {repeats} times, as greedy answers are alike"));
    }
    let sampling = Sampling { temperature, top_p, top_k: usize::try_from(top_k).ok().filter(|k| *k > 0) };
    Ok(GenerationSettings {
        until,
        max_new_tokens: tokens.unwrap_or(DEFAULT_TOKENS),
        sampling: draws.then_some(sampling),
        repeats: if draws { repeats.min(MOST_REPEATS) } else { 1 },
    })
}
