//! What the keys of a task mean, and which tasks cannot be had without Python.
//!
//! The keys are those of lm-evaluation-harness 0.4.13 (`config/task.py`), with its defaults. A key that
//! changes what is asked or judged is either understood or refused by name; keys that change neither are
//! passed over.

use serde_json::Value as Json;
use serde_yaml::Value;

use super::keys::{Keys, json_of, python_error};
use super::scoring;
use super::sources::Definition;
use crate::error::Result;
use crate::suite::question::{Filter, GenerationSettings, Metric};

/// Keys that neither change what is asked nor how it is judged.
const WITHOUT_EFFECT: [&str; 8] = [
    "task",
    "task_alias",
    "tag",
    "group",
    "group_alias",
    "aggregate_metric_list",
    "should_decontaminate",
    "doc_to_decontamination_query",
];

/// A task whose keys are understood.
pub(super) struct TaskConfig {
    /// `json`, `csv`, `parquet`, a folder, or a name on the Hub.
    pub(super) dataset_path: Option<String>,
    pub(super) dataset_name: Option<String>,
    pub(super) data_files: Option<DataFiles>,
    /// Names of the columns of a CSV file that has no header row.
    pub(super) columns: Option<Vec<String>>,
    pub(super) training_split: Option<String>,
    pub(super) validation_split: Option<String>,
    pub(super) test_split: Option<String>,
    pub(super) output: Output,
    pub(super) text: Field,
    pub(super) target: Field,
    pub(super) choice: Option<Field>,
    /// Before everything else; a field's name or a template.
    pub(super) description: String,
    pub(super) target_delimiter: String,
    pub(super) gen_prefix: Option<String>,
    pub(super) fewshot: FewshotConfig,
    pub(super) num_fewshot: Option<usize>,
    pub(super) metrics: Vec<Metric>,
    pub(super) filters: Vec<Filter>,
    /// For [`Output::Generation`].
    pub(super) generation: GenerationSettings,
    /// `metadata.version`, as it is written.
    pub(super) version: String,
    /// What was read but not followed, for the reader of a report.
    pub(super) notes: Vec<String>,
}

/// How worked examples are drawn and written.
pub(super) struct FewshotConfig {
    pub(super) first_n: bool,
    pub(super) split: Option<String>,
    /// Written out in the task file.
    pub(super) samples: Option<Vec<Json>>,
    pub(super) text: Field,
    pub(super) target: Field,
    pub(super) choice: Option<Field>,
    pub(super) gen_prefix: Option<String>,
    pub(super) target_delimiter: String,
    pub(super) fewshot_delimiter: String,
}

/// How a part of a question comes from a record.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Field {
    /// The name of a field, or else a template.
    Text(String),
    /// The same number for every record.
    Index(i64),
    /// The same list for every record.
    List(Vec<Json>),
}

/// Where `json`, `csv` and `parquet` data lies.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum DataFiles {
    /// All in one split that is called `train`.
    One(Vec<String>),
    /// By split.
    Splits(Vec<(String, Vec<String>)>),
}

/// `output_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    Continuation,
    Choice,
    Rolling,
    Generation,
}

impl Output {
    const NAMES: [(&'static str, Self); 4] = [
        ("loglikelihood", Self::Continuation),
        ("multiple_choice", Self::Choice),
        ("loglikelihood_rolling", Self::Rolling),
        ("generate_until", Self::Generation),
    ];

    /// As task files spell it.
    pub(super) fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, output)| *output == self).map_or("", |(name, _)| name)
    }
}

impl TaskConfig {
    /// Understands a task's keys.
    ///
    /// # Errors
    /// Names the file, the key and what to write instead: a key that is unknown or needs Python, a value of
    /// the wrong type, something that this program does not do.
    pub(super) fn new(definition: &Definition) -> Result<Self> {
        let mut keys = Keys::new(&definition.path, "", definition.keys.clone(), &definition.name);
        for key in WITHOUT_EFFECT {
            keys.skip(key);
        }
        // A metric may need Python, as long as another one does not.
        let unchecked: Vec<&str> = WITHOUT_EFFECT.into_iter().chain(["metric_list"]).collect();
        keys.check_no_python(&definition.keys, &unchecked)?;
        for (key, instead) in [
            ("class", "write the task as YAML"),
            ("process_docs", "store the records as they are after processing, and name them with --data"),
            ("process_results", "use metrics that need no Python"),
            ("custom_dataset", "store the data in files, and name them with --data"),
            ("use_prompt", "write the prompt as doc_to_text and doc_to_target"),
            ("doc_to_image", "only text can be asked"),
            ("doc_to_audio", "only text can be asked"),
        ] {
            if keys.take(key).is_some() {
                return Err(python_error(
                    &definition.path,
                    key,
                    "is not supported",
                    instead,
                    &definition.name,
                ));
            }
        }
        if keys.boolean("unsafe_code")?.unwrap_or(false) {
            let problem = "the task runs what the model wrote, which this program does not do";
            return Err(python_error(
                &definition.path,
                "unsafe_code",
                problem,
                "use another task",
                &definition.name,
            ));
        }

        let output = match keys.choice("output_type", &Output::NAMES.map(|(name, _)| name))? {
            Some(index) => Output::NAMES.get(index).map_or(Output::Generation, |(_, output)| *output),
            None => Output::Generation,
        };
        let dataset_path = keys.text("dataset_path")?;
        let mut notes = Vec::new();
        let is_builtin = dataset_path.as_deref().is_some_and(|p| ["json", "csv", "parquet"].contains(&p));
        let (data_files, columns) = match keys.mapping("dataset_kwargs")? {
            Some(kwargs) => data_files(kwargs, is_builtin, &mut notes)?,
            None => (None, None),
        };
        let description = keys.text("description")?.unwrap_or_default();
        let target_delimiter = keys.text("target_delimiter")?.unwrap_or_else(|| " ".to_owned());
        let fewshot_delimiter = keys.text("fewshot_delimiter")?.unwrap_or_else(|| "\n\n".to_owned());
        let gen_prefix = keys.text("gen_prefix")?;
        let choice = field(&mut keys, "doc_to_choice")?;
        if choice.is_none() && output == Output::Choice {
            return Err(keys.error("doc_to_choice", "is missing", "name the field that lists the choices"));
        }
        if matches!(choice, Some(Field::Index(_))) {
            return Err(keys.error("doc_to_choice", "is a number", "give a field, a template or a list"));
        }
        let target = field(&mut keys, "doc_to_target")?.ok_or_else(|| {
            keys.error("doc_to_target", "is missing", "name the field that holds the answer")
        })?;
        let text = match field(&mut keys, "doc_to_text")? {
            Some(Field::List(_)) => {
                return Err(keys.error("doc_to_text", "is a list", "give a field or a template"));
            }
            Some(text) => text,
            None if output == Output::Rolling => Field::Text(String::new()),
            None => {
                return Err(keys.error(
                    "doc_to_text",
                    "is missing",
                    "name the field that holds the question",
                ));
            }
        };

        let split = keys.text("fewshot_split")?;
        let mut fewshot = FewshotConfig {
            first_n: false,
            split,
            samples: None,
            text: text.clone(),
            target: target.clone(),
            choice: choice.clone(),
            gen_prefix: gen_prefix.clone(),
            target_delimiter: target_delimiter.clone(),
            fewshot_delimiter: fewshot_delimiter.clone(),
        };
        if let Some(own) = keys.mapping("fewshot_config")? {
            fewshot.overwrite(own, &mut notes)?;
        }
        let num_fewshot = keys.number("num_fewshot")?;

        let metric_list = keys.list("metric_list")?;
        let metrics = scoring::metrics(&keys, metric_list, output, &mut notes)?;
        let repeats = keys.number("repeats")?.unwrap_or(1);
        if repeats == 0 {
            return Err(keys.error("repeats", "is 0", "give at least 1, or leave it out"));
        }
        let generation_kwargs = keys.mapping("generation_kwargs")?;
        if generation_kwargs.is_some() && output != Output::Generation {
            notes.push("`generation_kwargs` has no effect, as nothing is generated".to_owned());
        }
        let generation = scoring::generation(generation_kwargs, &fewshot_delimiter, repeats, &mut notes)?;
        let filter_list = keys.list("filter_list")?;
        let filters = match (output, filter_list) {
            (Output::Generation, list) => scoring::filters(&keys, list, generation.repeats)?,
            (_, None) => Vec::new(),
            (_, Some(_)) => {
                notes.push("`filter_list` has no effect, as nothing is generated".to_owned());
                Vec::new()
            }
        };

        let config = Self {
            dataset_path,
            dataset_name: keys.text("dataset_name")?,
            data_files,
            columns,
            training_split: keys.text("training_split")?,
            validation_split: keys.text("validation_split")?,
            test_split: keys.text("test_split")?,
            output,
            text,
            target,
            choice,
            description,
            target_delimiter,
            gen_prefix,
            fewshot,
            num_fewshot,
            metrics,
            filters,
            generation,
            version: version(keys.take("metadata")),
            notes,
        };
        keys.nothing_left()?;
        Ok(config)
    }

    /// The split whose records are asked, with its key.
    pub(super) fn evaluated_split(&self) -> Option<(&'static str, &str)> {
        let test = self.test_split.as_deref().map(|split| ("test_split", split));
        test.or_else(|| self.validation_split.as_deref().map(|split| ("validation_split", split)))
    }

    /// The split that worked examples come from, with its key, where the task file does not write them out.
    pub(super) fn shots_split(&self) -> Option<(&'static str, &str)> {
        [
            ("fewshot_split", &self.fewshot.split),
            ("training_split", &self.training_split),
            ("validation_split", &self.validation_split),
            ("test_split", &self.test_split),
        ]
        .into_iter()
        .find_map(|(key, split)| split.as_deref().map(|split| (key, split)))
    }
}

impl FewshotConfig {
    /// Takes over what `fewshot_config` says otherwise.
    fn overwrite(&mut self, mut keys: Keys, notes: &mut Vec<String>) -> Result<()> {
        if let Some(index) = keys.choice("sampler", &["default", "first_n"])? {
            self.first_n = index == 1;
        }
        if let Some(split) = keys.text("split")? {
            self.split = Some(split);
        }
        if let Some(samples) = keys.list("samples")? {
            let is_record = |sample: &Value| matches!(sample, Value::Mapping(_));
            if !samples.iter().all(is_record) {
                return Err(keys.error(
                    "samples",
                    "has an item that is no record",
                    "list mappings of fields",
                ));
            }
            if self.split.is_some() {
                notes.push("`fewshot_config.samples` has no effect, as a split is named too".to_owned());
            } else {
                self.samples = Some(samples.iter().map(json_of).collect());
            }
        }
        if keys.take("fewshot_indices").is_some() {
            notes.push(
                "`fewshot_config.fewshot_indices` has no effect, as in lm-evaluation-harness".to_owned(),
            );
        }
        if keys.take("process_docs").is_some() {
            let instead = "store the examples as they are after processing";
            return Err(keys.error("process_docs", "needs Python, which is not run", instead));
        }
        if let Some(text) = field(&mut keys, "doc_to_text")? {
            self.text = text;
        }
        if let Some(target) = field(&mut keys, "doc_to_target")? {
            self.target = target;
        }
        if let Some(choice) = field(&mut keys, "doc_to_choice")? {
            self.choice = Some(choice);
        }
        if let Some(prefix) = keys.text("gen_prefix")? {
            self.gen_prefix = Some(prefix);
        }
        if let Some(delimiter) = keys.text("target_delimiter")? {
            self.target_delimiter = delimiter;
        }
        if let Some(delimiter) = keys.text("fewshot_delimiter")? {
            self.fewshot_delimiter = delimiter;
        }
        keys.nothing_left()
    }
}

/// `doc_to_text` and its like.
fn field(keys: &mut Keys, key: &str) -> Result<Option<Field>> {
    Ok(Some(match keys.take(key) {
        None => return Ok(None),
        Some(Value::String(text)) => Field::Text(text),
        Some(Value::Number(number)) if number.is_i64() => Field::Index(number.as_i64().unwrap_or_default()),
        Some(Value::Sequence(items)) => Field::List(items.iter().map(json_of).collect()),
        Some(Value::Mapping(pairs)) if key == "doc_to_choice" => {
            Field::List(pairs.values().map(json_of).collect())
        }
        Some(_) => {
            let help = "give the name of a field, a template, a list or an index";
            return Err(keys.error(key, "has a value of the wrong type", help));
        }
    }))
}

/// `dataset_kwargs`: the files, and the names of the columns of a CSV file without a header row.
fn data_files(
    mut keys: Keys,
    is_builtin: bool,
    notes: &mut Vec<String>,
) -> Result<(Option<DataFiles>, Option<Vec<String>>)> {
    let columns = match keys.texts("column_names")? {
        Some(columns) => Some(columns),
        None => keys.texts("names")?,
    };
    let files = match keys.take("data_files") {
        None => None,
        Some(Value::Mapping(splits)) => {
            let mut by_split = Vec::new();
            for (split, files) in splits {
                let split = split.as_str().unwrap_or_default().to_owned();
                let files = paths(&files).ok_or_else(|| {
                    keys.error(&format!("data_files.{split}"), "is no path", "give a path or a list of paths")
                })?;
                by_split.push((split, files));
            }
            Some(DataFiles::Splits(by_split))
        }
        Some(one) => Some(DataFiles::One(paths(&one).ok_or_else(|| {
            keys.error("data_files", "is no path", "give a path, a list of paths, or paths by split")
        })?)),
    };
    for key in ["trust_remote_code", "revision", "streaming", "verification_mode", "token", "cache_dir"] {
        keys.skip(key);
    }
    if !is_builtin {
        // What else a dataset on the Hub is told shapes its records, which here come ready from --data.
        let rest = keys.rest();
        if !rest.is_empty() {
            notes.push(format!("`dataset_kwargs` has no effect on data from files ({})", rest.join(", ")));
        }
        return Ok((files, columns));
    }
    for (key, instead) in [
        ("header", "write the names into the first line of the file"),
        ("field", "store one record per line (.jsonl)"),
        ("delimiter", "separate the columns by commas"),
        ("sep", "separate the columns by commas"),
    ] {
        if keys.take(key).is_some() {
            return Err(keys.error(key, "is not supported", instead));
        }
    }
    keys.nothing_left()?;
    Ok((files, columns))
}

/// A path or a list of paths.
fn paths(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(one) => Some(vec![one.clone()]),
        Value::Sequence(many) => many.iter().map(|one| one.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

/// `metadata.version` as it is written, `unversioned` where it is not.
fn version(metadata: Option<Value>) -> String {
    let version = match metadata {
        Some(Value::Mapping(pairs)) => pairs.get("version").cloned(),
        _ => None,
    };
    match version {
        Some(Value::String(text)) => text,
        Some(Value::Number(number)) => number.to_string(),
        _ => "unversioned".to_owned(),
    }
}
