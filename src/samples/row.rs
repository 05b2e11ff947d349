//! One row of a sample file, reduced to what pairing needs: hashes, log-likelihoods, scores.

use super::{
    digest::{Digest, digest, from_hex},
    json::Json,
};

/// The keys that every row has; all others are metrics.
pub(super) const OWN_KEYS: [&str; 11] = [
    "doc_id",
    "doc",
    "target",
    "arguments",
    "resps",
    "filtered_resps",
    "filter",
    "metrics",
    "doc_hash",
    "prompt_hash",
    "target_hash",
];

/// A row of a sample file.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// Line in its file, from 1.
    pub line: usize,
    pub doc_id: u64,
    /// Of the document; `None` where the row has neither it nor its hash.
    pub document: Option<Digest>,
    /// The harness's own hash of the first prompt.
    pub prompt: Option<Digest>,
    /// Of all prompts and continuations.
    pub asked: Option<Digest>,
    /// Of the generation settings; `None` where there are none.
    pub settings: Option<Digest>,
    /// Of what is right.
    pub target: Option<Digest>,
    /// Options that are right; empty where that is not known.
    pub gold: Vec<usize>,
    /// `None` in rows of versions before 0.4.7.
    pub filter: Option<String>,
    /// Of what was answered before any filter.
    pub answered: Option<Digest>,
    pub answer: RowAnswer,
    pub metrics: Vec<(String, Score)>,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum RowAnswer {
    /// One of several options.
    Choice(Vec<RowOption>),
    /// How likely one continuation is, and whether greedy decoding writes it.
    Continuation { log_likelihood: f64, greedy: Option<bool> },
    /// How likely a text is.
    Rolling(f64),
    /// Of the filtered text.
    Text(Digest),
    /// The row does not say.
    Unknown,
}

/// One option of a choice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct RowOption {
    /// NaN where it was not a number.
    pub log_likelihood: f64,
    /// Without the question before it, for `acc_mutual_info`.
    pub unconditional: Option<f64>,
    /// Characters and bytes of the continuation as it was scored, delimiter included; `None` where options
    /// differ in their prompts instead.
    pub length: Option<(usize, usize)>,
    /// Whether the continuation begins with white space.
    pub spaced: bool,
}

/// What a sample contributes to a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Score {
    Number(f64),
    /// Log-likelihood of a text and its words or bytes.
    Rolling(f64, f64),
    /// Not a number of this sample alone.
    Other,
}

impl Row {
    /// From one object of a sample file; `Err` says what is wrong with it.
    pub(super) fn new(value: &Json, line: usize) -> Result<Self, String> {
        let Json::Object(fields) = value else {
            return Err("is no object".to_owned());
        };
        let Some(Json::Integer(doc_id)) = value.get("doc_id") else {
            return Err("has no whole number `doc_id`".to_owned());
        };
        let doc_id = u64::try_from(*doc_id).map_err(|_| format!("has {doc_id} as its `doc_id`"))?;
        let hash = |key: &str| match value.get(key) {
            None | Some(Json::Null) => Ok(None),
            Some(Json::Text(hex)) => match from_hex(hex) {
                Some(digest) => Ok(Some(digest)),
                None => Err(format!("has a `{key}` that is no SHA-256 in hexadecimal")),
            },
            Some(_) => Err(format!("has a `{key}` that is no text")),
        };
        let filter = match value.get("filter") {
            None | Some(Json::Null) => None,
            Some(Json::Text(name)) => Some(name.clone()),
            Some(_) => return Err("has a `filter` that is no text".to_owned()),
        };
        let metrics = metrics(value, fields)?;
        let requests = requests(value.get("arguments"))?;
        let asked = Asked::new(&requests);
        let stored = hash("prompt_hash")?;
        let target = value.get("target").map(Json::python_str);
        let mutual = metrics.iter().any(|(name, _)| name == "acc_mutual_info");
        let answer = answer(value, &requests, mutual)?;
        let gold = target.as_deref().map(|target| gold(target, &requests, &answer)).unwrap_or_default();
        Ok(Self {
            line,
            doc_id,
            document: hash("doc_hash")?.or_else(|| value.get("doc").map(|doc| digest(&doc.indented()))),
            prompt: stored.or(asked.prompt),
            asked: asked.all,
            settings: asked.settings,
            target: target.as_deref().map(digest).or(hash("target_hash")?),
            gold,
            filter,
            answered: value.get("resps").map(|resps| digest(&resps.leaves_as_text().one_line())),
            answer,
            metrics,
        })
    }

    /// What the sample contributes to `metric`.
    pub(super) fn score(&self, metric: &str) -> Option<Score> {
        self.metrics.iter().find(|(name, _)| name == metric).map(|(_, score)| *score)
    }
}

/// The metrics that a row names, or every key that is none of its own.
fn metrics(value: &Json, fields: &[(String, Json)]) -> Result<Vec<(String, Score)>, String> {
    let names: Vec<&str> = match value.get("metrics") {
        Some(Json::List(names)) => {
            let names: Option<_> = names.iter().map(Json::text).collect();
            names.ok_or_else(|| "has a `metrics` entry that is no text".to_owned())?
        }
        None => fields.iter().map(|(key, _)| key.as_str()).filter(|key| !OWN_KEYS.contains(key)).collect(),
        Some(_) => return Err("has `metrics` that are no list".to_owned()),
    };
    let score = |name: &&str| match value.get(name) {
        None => Err(format!("names the metric `{name}` without giving its value")),
        Some(found) => Ok(((*name).to_owned(), score(found))),
    };
    names.iter().map(score).collect()
}

fn score(value: &Json) -> Score {
    match value {
        Json::Null => Score::Number(f64::NAN),
        Json::List(parts) => match parts.as_slice() {
            [log_likelihood @ Json::Float(_), units @ Json::Integer(_)] => {
                match (log_likelihood.number(), units.number()) {
                    (Some(log_likelihood), Some(units)) => Score::Rolling(log_likelihood, units),
                    _ => Score::Other,
                }
            }
            _ => Score::Other,
        },
        other => other.number().map_or(Score::Other, Score::Number),
    }
}

/// The arguments of every request: an object of `gen_args_0`… since 0.4.3, before that a list of lists.
fn requests(value: Option<&Json>) -> Result<Vec<Vec<&Json>>, String> {
    let Some(value) = value.filter(|value| **value != Json::Null) else {
        return Ok(Vec::new());
    };
    let inner = |requests: Vec<_>| requests.into_iter().map(|request| numbered(request, "arg")).collect();
    let requests: Option<Vec<Vec<&Json>>> = numbered(value, "gen_args").and_then(inner);
    requests.ok_or_else(|| "has `arguments` in no form that is known".to_owned())
}

/// The items of a list, or of an object with the keys `<name>_0`, `<name>_1`, ….
fn numbered<'a>(value: &'a Json, name: &str) -> Option<Vec<&'a Json>> {
    match value {
        Json::List(items) => Some(items.iter().collect()),
        Json::Object(fields) => {
            (0..fields.len()).map(|index| value.get(&format!("{name}_{index}"))).collect()
        }
        _ => None,
    }
}

/// Digests of what was asked.
struct Asked {
    prompt: Option<Digest>,
    all: Option<Digest>,
    settings: Option<Digest>,
}

impl Asked {
    fn new(requests: &[Vec<&Json>]) -> Self {
        let is_text = |value: &&&Json| matches!(value, Json::Text(_));
        // As JSON, so that no two lists of texts become the same text.
        let dump = |values: Vec<&Json>| {
            let lines: Vec<String> = values.into_iter().map(Json::one_line).collect();
            (!lines.is_empty()).then(|| digest(&lines.join("\n")))
        };
        let all = requests.iter().flatten();
        let prompt = match requests.first().and_then(|request| request.first()) {
            Some(Json::Text(prompt)) => Some(digest(prompt)),
            _ => None,
        };
        Self {
            prompt,
            all: dump(all.clone().filter(is_text).copied().collect()),
            settings: dump(all.filter(|value| !is_text(value)).copied().collect()),
        }
    }
}

/// A log-likelihood, as a number (before 0.4.3) or as text.
fn log_likelihood(value: &Json) -> Option<f64> {
    match value {
        Json::Text(text) => text.parse().ok(),
        other => other.number(),
    }
}

fn greedy(value: &Json) -> Option<bool> {
    match value {
        Json::Bool(greedy) => Some(*greedy),
        Json::Text(text) if text == "True" => Some(true),
        Json::Text(text) if text == "False" => Some(false),
        _ => None,
    }
}

/// What was answered: by request `[log-likelihood, is greedy]`, a log-likelihood or a text.
fn answer(value: &Json, requests: &[Vec<&Json>], mutual: bool) -> Result<RowAnswer, String> {
    let responses = match (value.get("filtered_resps"), value.get("resps")) {
        (Some(filtered), _) => filtered.clone(),
        (None, Some(Json::List(resps))) => {
            let first = |resp: &Json| match resp {
                Json::List(repeats) => repeats.first().cloned().unwrap_or(Json::Null),
                other => other.clone(),
            };
            Json::List(resps.iter().map(first).collect())
        }
        _ => return Ok(RowAnswer::Unknown),
    };
    let Json::List(responses) = responses else {
        return Err("has `filtered_resps` that are no list".to_owned());
    };
    let pair = |response: &Json| match response {
        Json::List(parts) => match parts.as_slice() {
            [likelihood, is_greedy] => Some((log_likelihood(likelihood)?, greedy(is_greedy)?)),
            _ => None,
        },
        _ => None,
    };
    let pairs: Option<Vec<(f64, bool)>> = responses.iter().map(pair).collect();
    let is_rolling = requests.len() == 1 && requests.iter().all(|request| request.len() == 1);
    Ok(match (pairs.as_deref(), responses.as_slice()) {
        (_, []) => RowAnswer::Unknown,
        (Some([(log_likelihood, greedy)]), _) => {
            RowAnswer::Continuation { log_likelihood: *log_likelihood, greedy: Some(*greedy) }
        }
        (Some(pairs), _) => RowAnswer::Choice(options(pairs, requests, mutual)),
        (None, [only]) if is_rolling => match log_likelihood(only) {
            Some(log_likelihood) => RowAnswer::Rolling(log_likelihood),
            None => return Err("has a text where the log-likelihood of a text should be".to_owned()),
        },
        (None, _) => RowAnswer::Text(digest(&Json::List(responses).leaves_as_text().one_line())),
    })
}

fn options(pairs: &[(f64, bool)], requests: &[Vec<&Json>], mutual: bool) -> Vec<RowOption> {
    let (asked, alone) = match mutual && pairs.len().is_multiple_of(2) {
        true => pairs.split_at(pairs.len() / 2),
        false => (pairs, &[][..]),
    };
    let continuations: Option<Vec<&str>> =
        requests.iter().take(asked.len()).map(|request| continuation(request)).collect();
    let continuations = continuations.filter(|found| found.len() == asked.len());
    let same = |found: &Vec<&str>| found.windows(2).all(|two| two.first() == two.last());
    let continuations = continuations.filter(|found| !same(found)).unwrap_or_default();
    let option = |(index, (log_likelihood, _)): (usize, &(f64, bool))| {
        let continuation = continuations.get(index);
        RowOption {
            log_likelihood: *log_likelihood,
            unconditional: alone.get(index).map(|(log_likelihood, _)| *log_likelihood),
            length: continuation.map(|text| (text.chars().count(), text.len())),
            spaced: continuation.is_some_and(|text| text.starts_with(char::is_whitespace)),
        }
    };
    asked.iter().enumerate().map(option).collect()
}

/// What of a request is scored.
fn continuation<'a>(request: &[&'a Json]) -> Option<&'a str> {
    request.get(1).and_then(|argument| argument.text())
}

/// Which options are right: an index, a list of indexes, or the text of an option.
fn gold(target: &str, requests: &[Vec<&Json>], answer: &RowAnswer) -> Vec<usize> {
    let RowAnswer::Choice(options) = answer else {
        return Vec::new();
    };
    let inside = |index: &usize| *index < options.len();
    if let Ok(index) = target.parse() {
        return vec![index].into_iter().filter(inside).collect();
    }
    if let Some(list) = target.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let indexes: Result<Vec<usize>, _> = list.split(',').map(|index| index.trim().parse()).collect();
        if let Ok(indexes) = indexes {
            return indexes.into_iter().filter(inside).collect();
        }
    }
    let is_target =
        |request: &[&Json]| continuation(request).is_some_and(|text| text.trim() == target.trim());
    let found = requests.iter().take(options.len()).position(|request| is_target(request));
    found.into_iter().collect()
}
