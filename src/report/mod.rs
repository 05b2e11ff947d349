//! A saved comparison as things that people look at: tables, charts, a page, a summary.
//!
//! A run's folder holds `comparison.json`, `report.html`, `report.md`, `model-index.yaml`, `tables/` and `charts/`.
//! Everything is made under a temporary name inside the folder and moved into place when all of it exists, and
//! `comparison.json` comes last: a folder that has it is complete. Everything but the token table can
//! be made again from `comparison.json` alone. It must not know a model, a checkpoint or candle.

pub mod charts;
mod columns;
pub mod export;
#[cfg(test)]
pub(crate) mod fixture;
pub mod html;
pub mod markdown;
pub mod model_card;
mod questions;
pub mod summary;
pub mod tables;
mod tidy;
pub mod verdict;
pub mod wording;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::comparison::{Comparison, SCHEMA_VERSION};
use crate::error::{Error, Result};
pub use crate::format;
use charts::Chart;
pub use tables::TokenTable;

/// The file that marks a folder as a complete run.
const COMPARISON: &str = "comparison.json";
/// Where files are made before they are moved into place.
const STAGING: &str = ".qeval-partial";
/// Files of the token table, which only the run itself can make.
const TOKENS: [&str; 2] = ["tables/tokens.csv", "tables/tokens.parquet"];

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The run's folder.
    pub folder: PathBuf,
    /// Files, relative to the folder, in the order in which they were put there.
    pub files: Vec<PathBuf>,
}

/// Creates `folder` and proves that it can be written to, before anything is measured.
///
/// A folder that holds anything but an earlier run (it has a `comparison.json`) is refused unless
/// `force`; nothing that is in it is removed either way.
///
/// # Errors
/// If the folder belongs to someone else, cannot be created or not be written to.
pub fn prepare(folder: &Path, force: bool) -> Result<()> {
    fs::create_dir_all(folder).map_err(Error::io(folder, "create the output folder"))?;
    let foreign = first_foreign_entry(folder)?;
    if let Some(name) = foreign.filter(|_| !force && !folder.join(COMPARISON).is_file()) {
        return Err(Error::file(
            folder,
            format!("the output folder is not empty (it holds `{name}`) and is not an earlier run of qeval"),
            "name another folder, or write into this one with --force",
        ));
    }
    let probe = folder.join(STAGING);
    fs::create_dir_all(&probe).map_err(Error::io(&probe, "write to the output folder"))?;
    let file = probe.join("probe");
    fs::write(&file, b"qeval").map_err(Error::io(&file, "write to the output folder"))?;
    fs::remove_dir_all(&probe).map_err(Error::io(&probe, "write to the output folder"))
}

/// Writes everything about `comparison` into `folder`: a run's last step.
///
/// An earlier run in the same folder is replaced, and is left as it was if anything fails before all
/// files exist. Without `tokens` there is no token table, also not the earlier run's.
///
/// # Errors
/// If a file cannot be written, or both sides of `tokens` do not match.
pub fn write(folder: &Path, comparison: &Comparison, tokens: Option<&TokenTable<'_>>) -> Result<Written> {
    let staging = Staging::create(folder)?;
    staging.draw(comparison)?;
    if let Some(tokens) = tokens {
        tables::write_tokens(&staging.path.join("tables"), tokens)?;
    }
    staging.write_comparison(comparison)?;
    // From here on the folder is neither the earlier run nor yet this one.
    remove_if_there(&folder.join(COMPARISON))?;
    for name in TOKENS {
        remove_if_there(&folder.join(name))?;
    }
    remove_other_charts(folder, comparison)?;
    staging.publish()
}

/// The comparison that a run left in `folder`.
///
/// # Errors
/// If there is none, it is of another schema version, or it is damaged.
pub fn read(folder: &Path) -> Result<Comparison> {
    #[derive(Deserialize)]
    struct Version {
        schema_version: u32,
    }
    let path = folder.join(COMPARISON);
    if !path.exists() {
        let help =
            "give the folder that `qeval compare --out` wrote; a run that was interrupted has to be repeated";
        return Err(Error::file(&path, "there is no complete run in this folder", help));
    }
    let text = fs::read(&path).map_err(Error::io(&path, "read the comparison"))?;
    let damaged = |reason: serde_json::Error| {
        Error::file(
            &path,
            format!("this is not a saved comparison: {reason}"),
            "repeat the run, or restore the file",
        )
    };
    let Version { schema_version } = serde_json::from_slice(&text).map_err(damaged)?;
    if schema_version != SCHEMA_VERSION {
        let help = if schema_version > SCHEMA_VERSION {
            "it was written by a newer qeval: update qeval"
        } else {
            "it was written by an older qeval: read it with that version, or repeat the run"
        };
        let problem = format!("schema version {schema_version}, this qeval reads {SCHEMA_VERSION}");
        return Err(Error::file(&path, problem, help));
    }
    serde_json::from_slice(&text).map_err(damaged)
}

/// Makes report, charts and tables of an earlier run again from its `comparison.json`; the token
/// table stays as it is.
///
/// # Errors
/// As [`read()`] and [`write()`].
pub fn redraw(folder: &Path) -> Result<Written> {
    let comparison = read(folder)?;
    let staging = Staging::create(folder)?;
    staging.draw(&comparison)?;
    remove_other_charts(folder, &comparison)?;
    staging.publish()
}

/// Files on their way into `folder`. Dropped, it takes what is left of them with it.
struct Staging<'a> {
    folder: &'a Path,
    path: PathBuf,
}

impl<'a> Staging<'a> {
    fn create(folder: &'a Path) -> Result<Self> {
        let path = folder.join(STAGING);
        if path.exists() {
            fs::remove_dir_all(&path).map_err(Error::io(&path, "remove the rest of an interrupted run"))?;
        }
        for part in ["tables", "charts"] {
            let part = path.join(part);
            fs::create_dir_all(&part).map_err(Error::io(&part, "create a folder"))?;
        }
        Ok(Staging { folder, path })
    }

    /// Everything but the comparison itself and the token table.
    fn draw(&self, comparison: &Comparison) -> Result<()> {
        for table in tidy::tables(comparison) {
            tables::write(&self.path.join("tables"), &table)?;
        }
        for chart in Chart::ALL.into_iter().filter(|chart| chart.is_drawn(comparison)) {
            let name = |extension: &str| self.path.join(format!("charts/{}.{extension}", chart.file_stem()));
            write_file(&name("svg"), chart.svg_file(comparison)?.as_bytes())?;
            chart.write_png(comparison, &name("png"))?;
        }
        write_file(&self.path.join("report.md"), markdown::document(comparison).as_bytes())?;
        write_file(&self.path.join("model-index.yaml"), model_card::document(comparison).as_bytes())?;
        write_file(&self.path.join("report.html"), html::page(comparison)?.as_bytes())
    }

    fn write_comparison(&self, comparison: &Comparison) -> Result<()> {
        let path = self.path.join(COMPARISON);
        let text = serde_json::to_vec(comparison).map_err(|reason| {
            Error::file(&path, format!("cannot be written: {reason}"), "please report this")
        })?;
        write_file(&path, &text)
    }

    /// Moves every file into place, the comparison last.
    fn publish(self) -> Result<Written> {
        let mut files = files_below(&self.path, Path::new(""))?;
        files.sort_by_key(|file| (file == Path::new(COMPARISON), file.clone()));
        for file in &files {
            let target = self.folder.join(file);
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent).map_err(Error::io(parent, "create a folder"))?;
            }
            fs::rename(self.path.join(file), &target)
                .map_err(Error::io(&target, "put the file in its place"))?;
        }
        Ok(Written { folder: self.folder.to_owned(), files })
    }
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        // Nothing more can be done about a failure here, and the next run clears the place again.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Writes a file and waits until it is on the disk.
///
/// # Errors
/// If it cannot be written.
pub fn write_file(path: &Path, content: &[u8]) -> Result<()> {
    let mut file = fs::File::create(path).map_err(Error::io(path, "create"))?;
    file.write_all(content).map_err(Error::io(path, "write"))?;
    file.sync_all().map_err(Error::io(path, "write"))
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(reason) if reason.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(path, "replace")(reason))
        }
        _ => Ok(()),
    }
}

/// Charts of an earlier run that this one has not.
fn remove_other_charts(folder: &Path, comparison: &Comparison) -> Result<()> {
    for chart in Chart::ALL.into_iter().filter(|chart| !chart.is_drawn(comparison)) {
        for extension in ["svg", "png"] {
            remove_if_there(&folder.join(format!("charts/{}.{extension}", chart.file_stem())))?;
        }
    }
    Ok(())
}

/// Files below `root`/`under`, relative to `root`.
fn files_below(root: &Path, under: &Path) -> Result<Vec<PathBuf>> {
    let folder = root.join(under);
    let mut files = Vec::new();
    for entry in fs::read_dir(&folder).map_err(Error::io(&folder, "list"))? {
        let entry = entry.map_err(Error::io(&folder, "list"))?;
        let relative = under.join(entry.file_name());
        if entry.path().is_dir() {
            files.extend(files_below(root, &relative)?);
        } else {
            files.push(relative);
        }
    }
    Ok(files)
}

/// The name of something in `folder` that an interrupted run did not leave there.
fn first_foreign_entry(folder: &Path) -> Result<Option<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io(folder, "list the output folder"))? {
        let entry = entry.map_err(Error::io(folder, "list the output folder"))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.retain(|name| name != STAGING);
    names.sort();
    Ok(names.into_iter().next())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::QuantToken;

    const ALL: [&str; 44] = [
        "charts/by_confidence.png",
        "charts/by_confidence.svg",
        "charts/by_context.png",
        "charts/by_context.svg",
        "charts/kl_distribution.png",
        "charts/kl_distribution.svg",
        "charts/layer_heatmap.png",
        "charts/layer_heatmap.svg",
        "charts/layer_profile.png",
        "charts/layer_profile.svg",
        "charts/size_quality.png",
        "charts/size_quality.svg",
        "charts/task_degradation.png",
        "charts/task_degradation.svg",
        "model-index.yaml",
        "report.html",
        "report.md",
        "tables/base_questions.csv",
        "tables/base_questions.parquet",
        "tables/base_text.csv",
        "tables/base_text.parquet",
        "tables/breakdowns.csv",
        "tables/breakdowns.parquet",
        "tables/bytes.csv",
        "tables/bytes.parquet",
        "tables/flipped.csv",
        "tables/flipped.parquet",
        "tables/generations.csv",
        "tables/generations.parquet",
        "tables/layers.csv",
        "tables/layers.parquet",
        "tables/linears.csv",
        "tables/linears.parquet",
        "tables/models.csv",
        "tables/models.parquet",
        "tables/questions.csv",
        "tables/questions.parquet",
        "tables/tasks.csv",
        "tables/tasks.parquet",
        "tables/traces.csv",
        "tables/traces.parquet",
        "tables/weights.csv",
        "tables/weights.parquet",
        "comparison.json",
    ];

    fn names(written: &Written) -> Vec<String> {
        written.files.iter().map(|f| f.to_string_lossy().replace('\\', "/")).collect()
    }

    /// Bytes of every file in a folder.
    fn content(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = files_below(folder, Path::new("")).unwrap();
        files.sort();
        files.into_iter().map(|f| (f.clone(), fs::read(folder.join(f)).unwrap())).collect()
    }

    fn no_tokens() -> TokenTable<'static> {
        TokenTable { tasks: Vec::new(), base: &[], quants: Vec::new() }
    }

    #[test]
    fn a_run_is_written_whole_and_its_comparison_last() {
        let folder = tempfile::tempdir().unwrap();
        let comparison = fixture::comparison();
        let written = write(folder.path(), &comparison, None).unwrap();
        assert_eq!(names(&written), ALL);
        assert_eq!(content(folder.path()).len(), ALL.len(), "nothing else is left behind");
        let read = read(folder.path()).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), serde_json::to_string(&comparison).unwrap());
    }

    #[test]
    fn charts_of_answers_come_and_go_with_them() {
        let folder = tempfile::tempdir().unwrap();
        let written = write(folder.path(), &fixture::with_questions(), None).unwrap();
        let names = names(&written);
        for chart in ["questions", "languages", "language_heatmap", "difficulty"] {
            for extension in ["svg", "png"] {
                assert!(names.contains(&format!("charts/{chart}.{extension}")), "{chart}.{extension}");
            }
        }
        assert_eq!(names.len(), ALL.len() + 8);
        write(folder.path(), &fixture::comparison(), None).unwrap();
        assert_eq!(content(folder.path()).len(), ALL.len(), "no chart of the earlier run is left");
        let alone = write(folder.path(), &fixture::alone(), None).unwrap();
        assert_eq!(alone.files.iter().filter(|f| f.starts_with("charts")).count(), 2, "difficulty alone");
    }

    #[test]
    fn a_comparison_of_an_older_version_is_drawn() {
        let mut value = serde_json::to_value(fixture::comparison()).unwrap();
        let new = ["base_text", "base_questions", "foreign", "asking"];
        let new_of_quant = ["questions", "generations", "traces", "rolling", "flipped", "rounding_noise"];
        let object = value.as_object_mut().unwrap();
        new.iter().for_each(|key| drop(object.remove(*key).expect(key)));
        for quant in object["quants"].as_array_mut().unwrap() {
            let quant = quant.as_object_mut().unwrap();
            new_of_quant.iter().for_each(|key| drop(quant.remove(*key).expect(key)));
        }
        for task in object["tasks"].as_array_mut().unwrap() {
            let task = task.as_object_mut().unwrap();
            ["kind", "group", "samples_cut", "left_out"]
                .iter()
                .for_each(|key| drop(task.remove(*key).expect(key)));
        }
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(COMPARISON), serde_json::to_vec(&value).unwrap()).unwrap();
        let written = redraw(folder.path()).unwrap();
        assert_eq!(names(&written), ALL[..ALL.len() - 1]);
        let old = read(folder.path()).unwrap();
        assert_eq!(summary::terminal(&old, 80), summary::terminal(&fixture::comparison(), 80));
    }

    #[test]
    fn the_same_comparison_gives_the_same_bytes() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for folder in [&one, &two] {
            write(folder.path(), &fixture::comparison(), Some(&no_tokens())).unwrap();
        }
        assert_eq!(content(one.path()), content(two.path()));
    }

    #[test]
    fn redrawing_restores_everything_but_tokens() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &fixture::comparison(), Some(&no_tokens())).unwrap();
        let before = content(folder.path());
        fs::write(folder.path().join("report.html"), "spoiled").unwrap();
        fs::remove_file(folder.path().join("tables/models.csv")).unwrap();
        let written = redraw(folder.path()).unwrap();
        assert_eq!(names(&written), ALL[..ALL.len() - 1]);
        assert_eq!(content(folder.path()), before);
    }

    #[test]
    fn a_run_without_tokens_does_not_keep_those_of_an_earlier_one() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &fixture::comparison(), Some(&no_tokens())).unwrap();
        assert!(folder.path().join(TOKENS[0]).exists());
        write(folder.path(), &fixture::comparison(), None).unwrap();
        assert!(!folder.path().join(TOKENS[0]).exists());
    }

    #[test]
    fn a_failure_leaves_the_earlier_run_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &fixture::comparison(), None).unwrap();
        let before = content(folder.path());
        let quant = QuantToken {
            nll: 0.0,
            entropy: 0.0,
            kl_divergence: 0.0,
            reverse_kl: 0.0,
            delta_p: 0.0,
            top1: 0,
            top5_common: 0,
        };
        let quants: [QuantToken; 1] = [quant];
        let unequal = TokenTable { tasks: Vec::new(), base: &[], quants: vec![("a".into(), &quants)] };
        assert!(write(folder.path(), &fixture::of(Vec::new()), Some(&unequal)).is_err());
        assert_eq!(content(folder.path()), before);
    }

    #[test]
    fn only_empty_folders_and_earlier_runs_are_taken() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("new/deep");
        prepare(&folder, false).unwrap();
        prepare(&folder, false).unwrap();
        assert_eq!(content(&folder), [], "preparing leaves nothing behind");
        fs::write(folder.join("thesis.tex"), "mine").unwrap();
        let refused = prepare(&folder, false).unwrap_err();
        assert!(
            refused.to_string().contains("`thesis.tex`") && refused.help().unwrap().contains("--force"),
            "{refused}"
        );
        prepare(&folder, true).unwrap();
        write(&folder, &fixture::comparison(), None).unwrap();
        prepare(&folder, false).unwrap();
        assert_eq!(fs::read(folder.join("thesis.tex")).unwrap(), b"mine");
    }

    #[test]
    fn what_cannot_be_written_to_is_refused_before_measuring() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(prepare(&file, false).is_err());
        assert!(prepare(&file.join("below"), true).is_err());
    }

    #[test]
    fn other_versions_and_damage_are_named() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read(folder.path()).unwrap_err().to_string().contains("no complete run"));
        let path = folder.path().join(COMPARISON);
        for (text, problem, help) in [
            ("{\"schema_version\": 999}", "schema version 999, this qeval reads 1", "update qeval"),
            ("{\"schema_version\": 0}", "schema version 0", "repeat the run"),
            ("{\"schema_version\": 1}", "not a saved comparison: missing field", "repeat the run"),
            ("{\"schema_", "not a saved comparison", "repeat the run"),
        ] {
            fs::write(&path, text).unwrap();
            let error = read(folder.path()).unwrap_err();
            assert!(error.to_string().contains(problem) && error.help().unwrap().contains(help), "{error}");
        }
    }
}
