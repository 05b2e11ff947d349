//! A run in lm-evaluation-harness's form: `results.json` and one `samples_<task>.jsonl` per task.
//!
//! Keys, hashes and texts are those of version 0.4.13, row by row to the byte. Not written, as they are about
//! that program and its libraries: `pretty_env_info`, `transformers_version`, `lm_eval_version`, `git_hash`,
//! `upper_git_hash`, and the tokenizer's special tokens (`tokenizer_*_token`, `eot_token_id`, `max_length`),
//! which the harness leaves out as well where a model has no tokenizer. `qeval_version` is written in addition.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
};

use super::{digest::hash_string, json::Json, json::float_repr, row::OWN_KEYS};
use crate::error::{Error, Result};

/// What one model answered to one document, as one filter sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleRow {
    /// Index of the document in the data, from 0.
    pub doc_id: u64,
    /// The document as the data has it; the order of its keys is part of its hash.
    pub doc: Json,
    /// What is right: index of the option, list of indexes, text or texts.
    pub target: Json,
    /// By request: prompt, then the continuation or the generation settings. At least one request, and the
    /// first argument of the first is text.
    pub arguments: Vec<Vec<Json>>,
    /// By request, then by repeat: `[log-likelihood, is greedy]`, log-likelihood or text. Written as texts.
    pub resps: Json,
    /// By request, after the filter. Written as texts.
    pub filtered_resps: Json,
    /// Name of the filter; `none` without one.
    pub filter: String,
    /// What the sample contributes to each metric.
    pub metrics: Vec<(String, MetricValue)>,
}

/// What one sample contributes to a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MetricValue {
    /// A score, or a log-likelihood (nats) for `perplexity`.
    Number(f64),
    /// The same where the harness counts with whole numbers (`acc` of a continuation).
    Whole(i64),
    /// For perplexities per word and byte.
    Rolling {
        /// Of the whole text, nats.
        log_likelihood: f64,
        /// Words or bytes.
        units: u64,
    },
}

impl MetricValue {
    fn json(self) -> Json {
        match self {
            MetricValue::Number(value) => Json::Float(value),
            MetricValue::Whole(value) => Json::Integer(value.into()),
            MetricValue::Rolling { log_likelihood, units } => {
                Json::List(vec![Json::Float(log_likelihood), Json::Integer(units.into())])
            }
        }
    }
}

/// A metric over a task's samples.
#[derive(Clone, Debug, PartialEq)]
pub struct AggregateMetric {
    /// As `acc_norm`.
    pub name: String,
    /// As in the rows.
    pub filter: String,
    /// Over all samples.
    pub value: f64,
    /// Its standard error; written as `N/A` where there is none.
    pub stderr: Option<f64>,
    /// Whether more is better.
    pub higher_is_better: bool,
}

/// What one model answered to one task.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskRun {
    /// Unique in its run.
    pub task: String,
    /// The task's version, a number or text.
    pub version: Json,
    /// How the task asks, freely.
    pub config: Json,
    /// Worked examples in each prompt.
    pub n_shot: u64,
    /// Documents in the data, of which the rows may hold a part.
    pub original_samples: u64,
    /// What is reported.
    pub metrics: Vec<AggregateMetric>,
    /// By filter, then by document.
    pub rows: Vec<SampleRow>,
}

/// What one model answered to several tasks.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Name or path of the model.
    pub model: String,
    /// Who ran it, as `qeval`.
    pub model_source: String,
    /// In the order in which they were run.
    pub tasks: Vec<TaskRun>,
    /// When it began, seconds since 1970 (UTC).
    pub date: f64,
    /// The instruction before every prompt.
    pub system_instruction: Option<String>,
    /// Whether worked examples were turns of a conversation.
    pub fewshot_as_multiturn: Option<bool>,
    /// The template that prompts went through.
    pub chat_template: Option<String>,
    /// An object whose keys go into `config`, next to `model` and `model_args` (unless it has these itself).
    pub settings: Json,
    /// Wall clock.
    pub total_evaluation_time_seconds: f64,
}

/// Writes `run` into `folder` (created where it is missing) and returns the files, `results.json` first.
///
/// Every file is complete before any gets its name; files of the same names are replaced.
///
/// # Errors
/// Two tasks with the same name or file name, an empty name, a row without a prompt, a metric named like one of
/// the row's own keys, settings that are no object; whatever the system refuses.
pub fn write(folder: &Path, run: &Run) -> Result<Vec<PathBuf>> {
    check(run)?;
    fs::create_dir_all(folder).map_err(Error::io(folder, "create the folder"))?;
    let mut pending = Vec::new();
    let mut hashes = Vec::new();
    for task in &run.tasks {
        let mut file = Pending::create(folder, &format!("samples_{}.jsonl", file_part(&task.task)))?;
        let mut cumulative = String::new();
        for row in &task.rows {
            let (row, row_hashes) = row_json(&task.task, row)?;
            cumulative.push_str(&row_hashes);
            file.put(&row.one_line())?;
            file.put("\n")?;
        }
        hashes.push((task.task.clone(), Json::Text(hash_string(&cumulative))));
        pending.push(file);
    }
    let mut results = Pending::create(folder, "results.json")?;
    results.put(&results_json(run, hashes).indented())?;
    pending.insert(0, results);
    for file in &mut pending {
        file.finish()?;
    }
    pending.iter_mut().map(Pending::rename).collect()
}

fn check(run: &Run) -> Result<()> {
    let mut names = BTreeSet::new();
    for task in &run.tasks {
        if task.task.is_empty() {
            return Err(Error::argument("a task has no name", "name every task"));
        }
        if !names.insert(file_part(&task.task)) {
            let problem = format!("the task `{}` would be written to the same file as another", task.task);
            return Err(Error::argument(problem, "give every task a name of its own"));
        }
    }
    match run.settings {
        Json::Object(_) => Ok(()),
        _ => Err(Error::argument("the settings of a run are no object", "give an object, if an empty one")),
    }
}

/// A name as part of a file name (the harness's `sanitize_model_name`): each run of characters that some file
/// system forbids becomes `__`.
fn file_part(name: &str) -> String {
    let mut part = String::with_capacity(name.len());
    let mut before = false;
    for c in name.chars() {
        let forbidden = r#""<>:/|\?*[]"#.contains(c);
        match forbidden {
            true if before => {}
            true => part.push_str("__"),
            false => part.push(c),
        }
        before = forbidden;
    }
    part
}

/// A row, and its three hashes one after the other.
fn row_json(task: &str, row: &SampleRow) -> Result<(Json, String)> {
    let wrong = |problem: &str, help: &str| {
        Err(Error::argument(format!("task `{task}`, document {}: {problem}", row.doc_id), help))
    };
    let Some(Json::Text(prompt)) = row.arguments.first().and_then(|request| request.first()) else {
        return wrong("the first request has no prompt", "begin its arguments with the prompt's text");
    };
    let own = |name: &str| OWN_KEYS.contains(&name);
    if let Some((name, _)) = row.metrics.iter().find(|(name, _)| own(name)) {
        return wrong(&format!("`{name}` is no name for a metric"), "rows have a key of that name already");
    }
    let target = row.target.python_str();
    let doc_hash = hash_string(&row.doc.indented());
    let prompt_hash = hash_string(prompt);
    let target_hash = hash_string(&target);
    let hashes = format!("{doc_hash}{prompt_hash}{target_hash}");
    let numbered = |name: &str, items: Vec<Json>| {
        let fields = items.into_iter().enumerate().map(|(index, item)| (format!("{name}_{index}"), item));
        Json::Object(fields.collect())
    };
    let requests = row.arguments.iter().map(|request| numbered("arg", request.clone())).collect();
    let metrics = row.metrics.iter().map(|(name, _)| Json::Text(name.clone())).collect();
    let mut fields: Vec<(String, Json)> = OWN_KEYS
        .iter()
        .map(|key| (*key).to_owned())
        .zip([
            Json::Integer(row.doc_id.into()),
            row.doc.clone(),
            Json::Text(target),
            numbered("gen_args", requests),
            row.resps.leaves_as_text(),
            row.filtered_resps.leaves_as_text(),
            Json::Text(row.filter.clone()),
            Json::List(metrics),
            Json::Text(doc_hash),
            Json::Text(prompt_hash),
            Json::Text(target_hash),
        ])
        .collect();
    fields.extend(row.metrics.iter().map(|(name, value)| (name.clone(), value.json())));
    Ok((Json::Object(fields), hashes))
}

fn results_json(run: &Run, task_hashes: Vec<(String, Json)>) -> Json {
    let by_task = |value: &dyn Fn(&TaskRun) -> Json| {
        Json::Object(run.tasks.iter().map(|task| (task.task.clone(), value(task))).collect())
    };
    let optional = |text: &Option<String>| text.as_deref().map_or(Json::Null, Json::from);
    let hash = |text: &Option<String>| {
        text.as_deref()
            .filter(|text| !text.is_empty())
            .map_or(Json::Null, |text| Json::Text(hash_string(text)))
    };
    let mut config = vec![
        ("model".to_owned(), Json::Text(run.model_source.clone())),
        (
            "model_args".to_owned(),
            Json::Object(vec![("pretrained".to_owned(), Json::Text(run.model.clone()))]),
        ),
    ];
    if let Json::Object(settings) = &run.settings {
        config.retain(|(key, _)| run.settings.get(key).is_none());
        config.extend(settings.iter().cloned());
    }
    let fields = [
        ("results", by_task(&task_results)),
        ("group_subtasks", Json::Object(Vec::new())),
        ("configs", by_task(&|task| task.config.clone())),
        ("versions", by_task(&|task| task.version.clone())),
        ("n-shot", by_task(&|task| Json::Integer(task.n_shot.into()))),
        ("higher_is_better", by_task(&higher_is_better)),
        ("n-samples", by_task(&sample_counts)),
        ("config", Json::Object(config)),
        ("date", Json::Float(run.date)),
        ("qeval_version", env!("CARGO_PKG_VERSION").into()),
        ("task_hashes", Json::Object(task_hashes)),
        ("model_source", Json::Text(run.model_source.clone())),
        ("model_name", Json::Text(run.model.clone())),
        ("model_name_sanitized", Json::Text(file_part(&run.model))),
        ("system_instruction", optional(&run.system_instruction)),
        ("system_instruction_sha", hash(&run.system_instruction)),
        ("fewshot_as_multiturn", run.fewshot_as_multiturn.map_or(Json::Null, Json::Bool)),
        ("chat_template", optional(&run.chat_template)),
        ("chat_template_sha", hash(&run.chat_template)),
        ("total_evaluation_time_seconds", Json::Text(float_repr(run.total_evaluation_time_seconds))),
    ];
    Json::Object(fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

fn task_results(task: &TaskRun) -> Json {
    let mut fields = vec![
        ("name".to_owned(), Json::Text(task.task.clone())),
        ("alias".to_owned(), Json::Text(task.task.clone())),
        ("sample_len".to_owned(), Json::Integer(documents(task))),
    ];
    for metric in &task.metrics {
        let stderr = metric.stderr.map_or(Json::from("N/A"), Json::Float);
        fields.push((format!("{},{}", metric.name, metric.filter), Json::Float(metric.value)));
        fields.push((format!("{}_stderr,{}", metric.name, metric.filter), stderr));
    }
    Json::Object(fields)
}

fn higher_is_better(task: &TaskRun) -> Json {
    let mut fields: Vec<(String, Json)> = Vec::new();
    for metric in &task.metrics {
        // One metric has a row of results for every filter.
        if !fields.iter().any(|(name, _)| *name == metric.name) {
            fields.push((metric.name.clone(), Json::Bool(metric.higher_is_better)));
        }
    }
    Json::Object(fields)
}

fn sample_counts(task: &TaskRun) -> Json {
    Json::Object(vec![
        ("original".to_owned(), Json::Integer(task.original_samples.into())),
        ("effective".to_owned(), Json::Integer(documents(task))),
    ])
}

/// Different documents among a task's rows.
fn documents(task: &TaskRun) -> i128 {
    task.rows.iter().map(|row| row.doc_id).collect::<BTreeSet<_>>().len() as i128
}

/// A file that has no name yet; removed if it never gets one.
struct Pending {
    temporary: PathBuf,
    path: PathBuf,
    writer: BufWriter<fs::File>,
    renamed: bool,
}

impl Pending {
    fn create(folder: &Path, name: &str) -> Result<Self> {
        let path = folder.join(name);
        let temporary = folder.join(format!(".{name}.{}.tmp", std::process::id()));
        let file = fs::File::create(&temporary).map_err(Error::io(&temporary, "create the file"))?;
        Ok(Self { temporary, path, writer: BufWriter::new(file), renamed: false })
    }

    fn put(&mut self, text: &str) -> Result<()> {
        self.writer.write_all(text.as_bytes()).map_err(Error::io(&self.path, "write"))
    }

    fn finish(&mut self) -> Result<()> {
        self.writer.flush().map_err(Error::io(&self.path, "write"))
    }

    fn rename(&mut self) -> Result<PathBuf> {
        fs::rename(&self.temporary, &self.path)
            .map_err(Error::io(&self.path, "give the written file its name"))?;
        self.renamed = true;
        Ok(self.path.clone())
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.renamed {
            let _ = fs::remove_file(&self.temporary); // Nothing more can be done about a leftover.
        }
    }
}
