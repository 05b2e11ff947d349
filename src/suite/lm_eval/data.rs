//! The records of a task: which files hold a split, and what the library `datasets` would make of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde_json::{Map, Value};

use super::Settings;
use super::config::{DataFiles, TaskConfig};
use super::sources::{Definition, folder_of};
use super::table::{make_alike, type_columns};
use crate::error::{Error, Result};
use crate::suite::records::{self, ReadOptions};

/// Endings of files that hold records.
const ENDINGS: [&str; 4] = ["jsonl", "json", "csv", "parquet"];

/// A record's fields.
pub(super) type Record = Map<String, Value>;

/// The records of one split.
#[derive(Debug)]
pub(super) struct Split {
    /// At least one; every record has every field.
    pub(super) records: Vec<Record>,
    /// The names of all fields.
    pub(super) fields: BTreeSet<String>,
    /// For messages.
    pub(super) file: PathBuf,
}

/// Where a task's splits lie; each is read once.
pub(super) struct Data<'a> {
    definition: &'a Definition,
    config: &'a TaskConfig,
    place: Place,
    splits: BTreeMap<String, Rc<Split>>,
    /// Every data file that was read, in the order of reading.
    pub(super) files: Vec<PathBuf>,
}

enum Place {
    /// `--data` named one file: it holds the split that is asked.
    File(PathBuf),
    /// A folder with a file or more for each split.
    Folder(PathBuf),
    /// The task file names the files.
    Files,
}

impl<'a> Data<'a> {
    /// Finds out where the data lies, without reading it.
    ///
    /// # Errors
    /// A dataset that would have to be fetched from the Hub; the message says how to name a local copy.
    pub(super) fn new(
        definition: &'a Definition,
        config: &'a TaskConfig,
        settings: &Settings,
    ) -> Result<Self> {
        let name = &definition.name;
        let dataset = config.dataset_path.as_deref().unwrap_or_default();
        let full = config.dataset_name.as_ref().map(|subset| format!("{dataset}/{subset}"));
        let names = [Some(name.as_str()), full.as_deref(), Some(dataset)];
        let named = names.into_iter().flatten().filter(|n| !n.is_empty()).find_map(|n| settings.data.get(n));
        let place = match named {
            Some(path) if path.is_dir() => Place::Folder(path.clone()),
            Some(path) => Place::File(path.clone()),
            None if ["json", "csv", "parquet"].contains(&dataset) => Place::Files,
            None if dataset.is_empty() => {
                let help =
                    format!("write `dataset_path: json` with its data_files, or give --data {name}=PATH");
                return Err(Error::key(&definition.path, "dataset_path", "is missing", help));
            }
            None => match folders(definition).map(|folder| folder.join(dataset)).find(|path| path.is_dir()) {
                Some(folder) => Place::Folder(folder),
                None => {
                    let problem = format!("`{dataset}` is a dataset on the Hub, and nothing is fetched");
                    let key = if dataset.contains('=') { name } else { dataset };
                    let splits = config.evaluated_split().map_or("test", |(_, split)| split);
                    let help = format!(
                        "store it and give --data {key}=PATH, with PATH a file of records (.jsonl, .json, .csv, \
                         .parquet) or a folder that holds {splits}.jsonl or {splits}-*.parquet"
                    );
                    return Err(Error::key(&definition.path, "dataset_path", problem, help));
                }
            },
        };
        Ok(Self { definition, config, place, splits: BTreeMap::new(), files: Vec::new() })
    }

    /// The records of the split called `name`, which `key` of the task file asks for.
    pub(super) fn split(&mut self, key: &str, name: &str) -> Result<Rc<Split>> {
        if let Some(split) = self.splits.get(name) {
            return Ok(Rc::clone(split));
        }
        let files = self.files_of(key, name)?;
        let mut records = Vec::new();
        let options = ReadOptions { columns: self.config.columns.clone() };
        for file in &files {
            let mut own = Vec::new();
            for value in records::read_with(file, &options)? {
                match value {
                    Value::Object(record) => own.push(record),
                    _ => {
                        let help = "store one mapping per record";
                        return Err(Error::file(file, "has a record without fields", help));
                    }
                }
            }
            if file.extension().is_some_and(|e| e == "csv" || e == "tsv") {
                type_columns(&mut own);
            }
            records.append(&mut own);
            if !self.files.contains(file) {
                self.files.push(file.clone());
            }
        }
        let file = files.first().cloned().unwrap_or_default();
        if records.is_empty() {
            return Err(Error::file(&file, "holds no records", format!("store the split `{name}` there")));
        }
        let fields = make_alike(&mut records);
        let split = Rc::new(Split { records, fields, file });
        self.splits.insert(name.to_owned(), Rc::clone(&split));
        Ok(split)
    }

    /// The files that hold a split; at least one.
    fn files_of(&self, key: &str, name: &str) -> Result<Vec<PathBuf>> {
        let path = &self.definition.path;
        if name.contains(['[', '%', '+', '/', '\\']) {
            let help = "store that part as a split of its own";
            return Err(Error::key(path, key, format!("`{name}` is not the name of a whole split"), help));
        }
        match &self.place {
            Place::File(file) => match self.config.evaluated_split() {
                Some((_, asked)) if asked == name => Ok(vec![file.clone()]),
                _ => {
                    let problem = format!("the split `{name}` is not in the one file that --data names");
                    let task = &self.definition.name;
                    let help = format!("give --data {task}=FOLDER with a file for each split");
                    Err(Error::key(path, key, problem, help))
                }
            },
            Place::Folder(folder) => {
                files_in(folder, self.config.dataset_name.as_deref(), name)?.ok_or_else(|| {
                    let help = format!("put {name}.jsonl there (or .json, .csv, .parquet, {name}-*.parquet)");
                    Error::file(folder, format!("holds no split `{name}`"), help)
                })
            }
            Place::Files => self.listed_files(key, name),
        }
    }

    /// What `dataset_kwargs.data_files` lists for a split.
    fn listed_files(&self, key: &str, name: &str) -> Result<Vec<PathBuf>> {
        let path = &self.definition.path;
        let in_kwargs = "dataset_kwargs.data_files";
        let listed = match &self.config.data_files {
            None => {
                let help = "name the files there, or give --data NAME=PATH";
                return Err(Error::key(path, in_kwargs, "is missing", help));
            }
            Some(DataFiles::One(files)) if name == "train" => files,
            Some(DataFiles::One(_)) => {
                let problem =
                    format!("there is no split `{name}`: files without a split are the split `train`");
                let help = format!("write `{name}:` before the files in dataset_kwargs.data_files");
                return Err(Error::key(path, key, problem, help));
            }
            Some(DataFiles::Splits(splits)) => match splits.iter().find(|(split, _)| split == name) {
                Some((_, files)) => files,
                None => {
                    let known: Vec<&str> = splits.iter().map(|(split, _)| split.as_str()).collect();
                    let problem = format!("there is no split `{name}` in dataset_kwargs.data_files");
                    return Err(Error::key(path, key, problem, format!("use {}", known.join(", "))));
                }
            },
        };
        let task = &self.definition.name;
        let find = |file: &String| {
            if file.contains("://") {
                let help = format!("fetch it yourself, and give --data {task}=PATH");
                return Err(Error::key(path, in_kwargs, format!("`{file}` is not a local file"), help));
            }
            let found = folders(self.definition).map(|folder| folder.join(file)).find(|path| path.is_file());
            found.ok_or_else(|| {
                let problem = format!("there is no file `{file}` beside the task file or here");
                Error::key(path, in_kwargs, problem, format!("correct the path, or give --data {task}=PATH"))
            })
        };
        let files: Vec<PathBuf> = listed.iter().map(find).collect::<Result<_>>()?;
        match files.is_empty() {
            true => Err(Error::key(path, in_kwargs, format!("lists no file for `{name}`"), "name one")),
            false => Ok(files),
        }
    }
}

/// Where relative paths of a task begin: the folder of its file, those of the files it includes, here.
fn folders(definition: &Definition) -> impl Iterator<Item = &Path> {
    let own = std::iter::once(folder_of(&definition.path));
    own.chain(definition.files.iter().map(|file| folder_of(file))).chain(std::iter::once(Path::new("")))
}

/// The files of a split in a folder: `SPLIT.jsonl` and its like or the shards `SPLIT-*.parquet`, first in the
/// subfolder that is called after the subset, then in the folder itself, each time also below `data`.
fn files_in(folder: &Path, subset: Option<&str>, split: &str) -> Result<Option<Vec<PathBuf>>> {
    let is_name = |subset: &&str| !subset.contains(['/', '\\']) && !subset.starts_with('.');
    let bases =
        subset.filter(is_name).map(|subset| folder.join(subset)).into_iter().chain([folder.to_owned()]);
    for base in bases.flat_map(|base| [base.clone(), base.join("data")]) {
        let whole = ENDINGS.iter().map(|ending| base.join(format!("{split}.{ending}"))).find(|p| p.is_file());
        if let Some(file) = whole {
            return Ok(Some(vec![file]));
        }
        if !base.is_dir() {
            continue;
        }
        let mut shards = Vec::new();
        for entry in std::fs::read_dir(&base).map_err(Error::io(&base, "list the data folder"))? {
            let path = entry.map_err(Error::io(&base, "list the data folder"))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let is_shard = name.strip_prefix(split).is_some_and(|rest| rest.starts_with('-'));
            if is_shard && path.extension().is_some_and(|e| e == "parquet") && path.is_file() {
                shards.push(path);
            }
        }
        if !shards.is_empty() {
            shards.sort();
            return Ok(Some(shards));
        }
    }
    Ok(None)
}
