//! What the user wants measured: suites, benchmarks, task files and texts, from here or from the Hub.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use clap::Args;

use crate::{
    error::{Error, Result},
    hub::{Hub, HubId, RepoKind},
    progress::Progress,
    suite::{
        self, Content, Suite, Task,
        benchmarks::{self, BENCHMARKS},
        lm_eval,
        question::{QuestionKind, Questions},
        reasoning,
    },
};

/// Name of the suite that is written anew for every seed.
const REASONING: &str = "reasoning";

/// The seed with which lm-evaluation-harness draws worked examples.
const FEWSHOT_SEED: u64 = 1234;

/// What is measured.
#[derive(Args, Clone, Debug, Default)]
pub struct Selection {
    /// A suite by name (`qeval suites` lists them), a path to a suite's YAML file or folder, or a task file of
    /// lm-evaluation-harness; may be repeated.
    #[arg(long, value_name = "NAME|PATH")]
    pub suite: Vec<String>,
    /// Measure on this text (a .jsonl holds one document per line under "text"); may be repeated.
    #[arg(long, value_name = "FILE")]
    pub text: Vec<PathBuf>,
    /// A benchmark by name, from a file or folder of yours (jsonl, csv, parquet) or from a dataset of the Hub; may be
    /// repeated. With the name of a task file's dataset: where its data lies.
    #[arg(long, value_name = "NAME=PATH|HUB-ID")]
    pub data: Vec<String>,
    /// Only the first N samples of every task that asks questions.
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Worked examples before each question, instead of the benchmark's own number.
    #[arg(long, value_name = "N")]
    pub num_fewshot: Option<usize>,
    /// Questions of every level of the suite `reasoning`.
    #[arg(long, value_name = "N", default_value_t = reasoning::DEFAULT_PER_LEVEL)]
    pub per_level: usize,
    /// Most new tokens of a written answer, instead of the task's own number.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_new_tokens: Option<u32>,
    /// Never use the network: what is not here or in the Hub's cache is refused.
    #[arg(long)]
    pub offline: bool,
}

/// Loads everything, in the order given: suites, data, texts; where nothing was asked for, `perplexity`.
///
/// # Errors
/// A name that is not known, a file that cannot be read, a dataset that cannot be fetched.
pub(super) fn load(selection: &Selection, seed: u64, progress: &dyn Progress) -> Result<Vec<Suite>> {
    if selection.limit == Some(0) {
        return Err(Error::argument("--limit 0 leaves no sample", "give at least 1, or leave it out"));
    }
    let mut data = BTreeMap::new();
    for given in &selection.data {
        let Some((name, place)) =
            given.split_once('=').filter(|(name, place)| !name.is_empty() && !place.is_empty())
        else {
            return Err(Error::argument(
                format!("--data {given} names no place"),
                "write NAME=PATH, as hellaswag=hellaswag_val.jsonl",
            ));
        };
        data.insert(name.to_owned(), place.to_owned());
    }
    let mut suites = Vec::new();
    let mut used = Vec::new();
    for name in &selection.suite {
        suites.push(match (name.as_str(), suite::embedded(name)) {
            (_, Some(embedded)) => embedded?,
            (REASONING, None) => reasoning_suite(seed, selection.per_level),
            (name, None) if benchmark(name).is_some() && !Path::new(name).exists() => {
                if !data.contains_key(name) {
                    return Err(needs_data(name));
                }
                continue;
            }
            (path, None) => match is_task_file(Path::new(path)) {
                true => task_file(Path::new(path), selection, &data, &mut used, progress)?,
                false => suite::load(Path::new(path))?,
            },
        });
    }
    for (name, place) in data.iter().filter(|(name, _)| !used.contains(*name)) {
        suites.push(benchmark_suite(name, place, selection, progress)?);
    }
    for text in &selection.text {
        suites.push(suite::from_text(text)?);
    }
    if suites.is_empty()
        && let Some(default) = suite::embedded("perplexity")
    {
        suites.push(default?);
    }
    for questions in suites.iter_mut().flat_map(|suite| &mut suite.tasks).filter_map(questions_of) {
        questions.samples.truncate(selection.limit.unwrap_or(usize::MAX));
        if let (QuestionKind::Generation(settings), Some(tokens)) =
            (&mut questions.kind, selection.max_new_tokens)
        {
            settings.max_new_tokens = tokens as usize;
        }
    }
    Ok(suites)
}

fn questions_of(task: &mut Task) -> Option<&mut Questions> {
    match &mut task.content {
        Content::Text(_) => None,
        Content::Questions(questions) => Some(questions),
    }
}

fn benchmark(name: &str) -> Option<&'static benchmarks::Benchmark> {
    BENCHMARKS.iter().find(|benchmark| benchmark.name == name)
}

/// Whether a YAML file is a task or group of lm-evaluation-harness: a suite of ours has `tasks` instead.
fn is_task_file(path: &Path) -> bool {
    const KEYS: [&str; 4] = ["task:", "group:", "dataset_path:", "include:"];
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().any(|line| KEYS.iter().any(|key| line.starts_with(key)))
        && !text.lines().any(|line| line.starts_with("tasks:"))
}

fn needs_data(name: &str) -> Error {
    let hub = benchmark(name).map_or("", |benchmark| benchmark.dataset);
    Error::argument(
        format!("the benchmark {name} is not part of qeval: its data is needed"),
        format!(
            "give a file or folder with --data {name}=PATH, or fetch it from the Hub with --data {name}={hub}"
        ),
    )
}

/// An edition of the suite `reasoning`.
pub(super) fn reasoning_suite(seed: u64, per_level: usize) -> Suite {
    let identity = format!("{REASONING} {} seed {seed} per level {per_level}", reasoning::VERSION);
    Suite {
        name: REASONING.to_owned(),
        version: reasoning::VERSION,
        description: format!("an edition written for seed {seed}"),
        license: "CC0-1.0".to_owned(),
        seed,
        tasks: reasoning::generate(seed, per_level)
            .into_iter()
            .map(|task| Task {
                group: task.name.split_once('.').map(|(_, form)| form.to_owned()),
                name: task.name,
                language: "en".to_owned(),
                content: Content::Questions(task.questions),
            })
            .collect(),
        sha256: suite::hex_sha256(identity.as_bytes()),
    }
}

fn benchmark_suite(name: &str, place: &str, selection: &Selection, progress: &dyn Progress) -> Result<Suite> {
    let Some(benchmark) = benchmark(name) else {
        let known: Vec<&str> = BENCHMARKS.iter().map(|benchmark| benchmark.name).collect();
        return Err(Error::argument(
            format!("--data {name}=…: there is no benchmark and no task file's dataset of this name"),
            format!("use one of {}", known.join(", ")),
        ));
    };
    let path = place_of(place, selection.offline, progress)?;
    let settings = benchmarks::Settings {
        limit: selection.limit,
        num_fewshot: selection.num_fewshot,
        seed: FEWSHOT_SEED,
        subset: None,
    };
    let tasks = benchmarks::load(name, &path, &settings)?;
    Ok(Suite {
        name: name.to_owned(),
        version: 1,
        description: benchmark.about.to_owned(),
        license: benchmark.license.to_owned(),
        seed: settings.seed,
        tasks: tasks
            .into_iter()
            .map(|task| Task {
                name: task.name,
                language: task.language,
                group: task.group,
                content: Content::Questions(task.questions),
            })
            .collect(),
        sha256: hash_of(&files_below(&path)?)?,
    })
}

fn task_file(
    path: &Path,
    selection: &Selection,
    data: &BTreeMap<String, String>,
    used: &mut Vec<String>,
    progress: &dyn Progress,
) -> Result<Suite> {
    let mut places = BTreeMap::new();
    for (name, place) in data.iter().filter(|(name, _)| benchmark(name).is_none()) {
        places.insert(name.clone(), place_of(place, selection.offline, progress)?);
        used.push(name.clone());
    }
    let settings = lm_eval::Settings {
        data: places,
        limit: selection.limit,
        num_fewshot: selection.num_fewshot,
        fewshot_seed: FEWSHOT_SEED,
    };
    let loaded = lm_eval::load(path, &settings)?;
    let mut files: Vec<PathBuf> = loaded.iter().flat_map(|task| task.data_files.clone()).collect();
    files.sort();
    files.dedup();
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    Ok(Suite {
        name: stem.chars().map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect(),
        version: 1,
        description: format!("the task file {} of lm-evaluation-harness", path.display()),
        license: String::new(),
        seed: settings.fewshot_seed,
        tasks: loaded
            .into_iter()
            .map(|mut task| {
                task.questions.left_out.append(&mut task.notes);
                Task {
                    name: task.name,
                    language: task.language.unwrap_or_else(|| "und".to_owned()),
                    group: task.group,
                    content: Content::Questions(task.questions),
                }
            })
            .collect(),
        sha256: hash_of(&files)?,
    })
}

/// A path that exists, else a dataset of the Hub, fetched.
fn place_of(place: &str, offline: bool, progress: &dyn Progress) -> Result<PathBuf> {
    let path = PathBuf::from(place);
    if path.exists() {
        return Ok(path);
    }
    let Some(id) = HubId::parse(place, RepoKind::Dataset) else {
        return Err(Error::file(
            &path,
            "there is no such file or folder",
            "check the path, or give ORG/NAME of the Hub",
        ));
    };
    let is_data = |name: &str| {
        [".jsonl", ".json", ".csv", ".tsv", ".parquet"].iter().any(|ending| name.ends_with(ending))
    };
    let files = Hub::from_environment(offline)?.fetch_dataset(&id, &is_data, progress)?;
    // A single file is the data; of several the folder that holds all, as the repository has them.
    match files.as_slice() {
        [one] => Ok(one.clone()),
        [first, ..] => {
            let holds_all = |folder: &&Path| files.iter().all(|file| file.starts_with(folder));
            Ok(first.ancestors().skip(1).find(holds_all).unwrap_or(first).to_owned())
        }
        [] => Err(Error::file(&path, "the dataset holds no data file", "name one: ORG/NAME:FILE")),
    }
}

/// The file, or every file below the folder, in order of name.
fn files_below(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(Error::io(&folder, "list"))? {
            let path = entry.map_err(Error::io(&folder, "list"))?.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    Ok(files)
}

/// SHA-256 of the hexadecimal SHA-256 of every file, in this order.
fn hash_of(files: &[PathBuf]) -> Result<String> {
    let mut all = String::new();
    for file in files {
        all += &suite::hex_sha256(&std::fs::read(file).map_err(Error::io(file, "read"))?);
    }
    Ok(suite::hex_sha256(all.as_bytes()))
}
