//! Task files of lm-evaluation-harness, read as they are, as far as they need no Python.
//!
//! Every prompt is the one that lm-evaluation-harness 0.4.13 would send, letter for letter. What would change
//! a prompt or a score and is not understood is refused by name; nothing is fetched. Reading order: files
//! become definitions (`sources`), their keys are understood (`config`, `keys`, `scoring`), records are found
//! (`data`), and both become questions (`build`, with `parts`, `template`, `shots`).

mod build;
mod config;
mod data;
#[cfg(test)]
mod jinja_facts;
mod keys;
mod literal;
mod methods;
mod parts;
mod scoring;
mod shots;
mod sources;
mod table;
mod template;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::question::Questions;
use crate::error::Result;

/// What a caller says beside the task files.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the data of a task lies, by the task's name or its `dataset_path` (also `PATH/NAME`): a file of
    /// records, or a folder with one for each split.
    pub data: BTreeMap<String, PathBuf>,
    /// Only the first so many records.
    pub limit: Option<usize>,
    /// Worked examples, in place of what the task says (but not in place of a stated 0).
    pub num_fewshot: Option<usize>,
    /// Seed of drawing worked examples, afresh for every task.
    pub fewshot_seed: u64,
}

impl Default for Settings {
    /// Everything as the tasks say, and the seed of lm-evaluation-harness.
    fn default() -> Self {
        Self { data: BTreeMap::new(), limit: None, num_fewshot: None, fewshot_seed: 1234 }
    }
}

/// A task of lm-evaluation-harness.
#[derive(Clone, Debug)]
pub struct LoadedTask {
    /// Unique among those loaded together.
    pub name: String,
    /// The innermost group that it came from.
    pub group: Option<String>,
    /// Guessed from the end of the name (`mgsm_de`), as a BCP 47 tag.
    pub language: Option<String>,
    /// `metadata.version` as it is written, or `unversioned`.
    pub version: String,
    /// Where the records come from, as "allenai/ai2_arc ARC-Easy, test".
    pub dataset: String,
    /// Every file that was read for it, YAML files first.
    pub data_files: Vec<PathBuf>,
    /// What is asked.
    pub questions: Questions,
    /// What the task file says and was not followed, for the reader of a report.
    pub notes: Vec<String>,
}

/// The tasks that the YAML file at `path` stands for: one, or all of a group.
///
/// # Errors
/// Names the file, the key and what to do: what needs Python, is unknown, has the wrong type, or is not there.
pub fn load(path: &Path, settings: &Settings) -> Result<Vec<LoadedTask>> {
    sources::definitions(path)?.into_iter().map(|definition| load_one(&definition, settings)).collect()
}

fn load_one(definition: &sources::Definition, settings: &Settings) -> Result<LoadedTask> {
    let config = config::TaskConfig::new(definition)?;
    let mut data = data::Data::new(definition, &config, settings)?;
    let mut notes = config.notes.clone();
    let questions = build::questions(definition, &config, &mut data, settings, &mut notes)?;
    let mut data_files = definition.files.clone();
    data_files.extend(data.files.iter().filter(|file| !definition.files.contains(file)).cloned());
    let dataset = [config.dataset_path.as_deref(), config.dataset_name.as_deref()];
    let dataset: Vec<&str> = dataset.into_iter().flatten().collect();
    let split = config.evaluated_split().map_or("", |(_, split)| split);
    Ok(LoadedTask {
        name: definition.name.clone(),
        group: definition.group.clone(),
        language: language_of(&definition.name).or_else(|| language_of(config.dataset_name.as_deref()?)),
        version: config.version.clone(),
        dataset: format!("{}, {split}", dataset.join(" ")),
        data_files,
        questions,
        notes,
    })
}

/// The language that a name ends in, of those that benchmarks in many languages have.
fn language_of(name: &str) -> Option<String> {
    const KNOWN: [&str; 37] = [
        "ar", "bg", "bn", "ca", "cs", "da", "de", "el", "en", "es", "et", "eu", "fi", "fr", "he", "hi", "ht",
        "hu", "id", "it", "ja", "ko", "nl", "pl", "pt", "qu", "ro", "ru", "sv", "sw", "ta", "te", "th", "tr",
        "uk", "vi", "zh",
    ];
    let last = name.rsplit(['_', '-']).next()?;
    KNOWN.contains(&last).then(|| last.to_owned())
}
