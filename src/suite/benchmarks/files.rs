//! Which files of a folder a benchmark's data are: splits, languages and subjects, told by their names.
//!
//! Folders look as they come: a snapshot from the Hub (`de/test-00000-of-00001.parquet`), a clone of the
//! authors' repository (`data/test/anatomy_test.csv`), or a heap of files called after their benchmark
//! (`mgsm_de.jsonl`). A name is taken apart at everything that is no letter or digit; the words of the
//! benchmark's own name, of splits and of shards are set aside; what is left names the part, or tells data
//! sets apart. Reads no file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::{Benchmark, Part};
use crate::error::{Error, Result};
use crate::suite::records;

/// Deepest folder below the given one that is looked into.
const DEEPEST: usize = 4;

/// Most entries of all folders together.
const MOST_ENTRIES: usize = 100_000;

/// What part of the data a file holds, as its authors divided it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Split {
    Train,
    Dev,
    Validation,
    Test,
}

impl Split {
    fn from_word(word: &str) -> Option<Self> {
        match word {
            "train" | "training" => Some(Split::Train),
            "dev" => Some(Split::Dev),
            "val" | "valid" | "validation" => Some(Split::Validation),
            "test" => Some(Split::Test),
            _ => None,
        }
    }
}

/// The files of one part of a benchmark.
#[derive(Debug, PartialEq)]
pub(super) struct Source {
    /// `None`: the file names do not say, or the benchmark has no parts.
    pub(super) part: Option<&'static Part>,
    /// The files whose records are asked, in order.
    pub(super) scored: Vec<PathBuf>,
    /// The files that worked examples come from; may be none.
    pub(super) shots: Vec<PathBuf>,
}

/// A data file and what its name says.
struct DataFile {
    path: PathBuf,
    split: Option<Split>,
    part: Option<&'static Part>,
    /// What is left of the names: files with one key belong together.
    key: String,
    /// Whether a name begins with the benchmark's.
    named: bool,
    /// Whether a folder is called as the benchmark's configuration on the Hub.
    configured: bool,
}

/// The files at `path`, a data file or a folder.
///
/// * A file is what is asked. Worked examples come from files beside it (in `dev/` beside `test/`, where it
///   lies in a folder called after a split) whose name differs only by the split.
/// * In a folder, files called after the benchmark are taken where there are any, else all; of these, those
///   of the configuration that lm-evaluation-harness uses, where there are any; then those that name a part.
///   Of a part's files, those of the first of the benchmark's splits that there is are asked, else those that
///   name no split.
///
/// # Errors
/// No data file, or several data sets with nothing to choose between them.
pub(super) fn sources(benchmark: &Benchmark, path: &Path) -> Result<Vec<Source>> {
    if path.is_dir() {
        return in_folder(benchmark, path);
    }
    if !path.exists() {
        return Err(Error::file(path, "there is no such file or folder", "check the path"));
    }
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name_of = |folder: &Path| folder.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let root = match parent.parent() {
        Some(above) if Split::from_word(&name_of(parent)).is_some() => above,
        _ => parent,
    };
    let depth = if root == parent { 0 } else { 1 };
    let own = describe(benchmark, root, path.to_owned());
    let mut shots: Vec<DataFile> = walk(root, depth)?
        .into_iter()
        .filter(|other| other != path)
        .map(|other| describe(benchmark, root, other))
        .filter(|other| other.key == own.key && same_part(other.part, own.part))
        .collect();
    let split = best(benchmark.recipe.shots, &shots, own.split);
    shots.retain(|other| split.is_some() && other.split == split);
    Ok(vec![Source { part: own.part, scored: vec![own.path], shots: paths(shots) }])
}

fn in_folder(benchmark: &Benchmark, folder: &Path) -> Result<Vec<Source>> {
    let mut files: Vec<DataFile> =
        walk(folder, DEEPEST)?.into_iter().map(|path| describe(benchmark, folder, path)).collect();
    if files.iter().any(|file| file.named) {
        files.retain(|file| file.named);
    }
    if files.iter().any(|file| file.configured) {
        files.retain(|file| file.configured);
    }
    if files.iter().any(|file| file.part.is_some()) {
        files.retain(|file| file.part.is_some());
    }
    if files.is_empty() {
        let help = format!("give a folder with the data of {}, or the file itself", benchmark.dataset);
        return Err(Error::file(folder, "the folder holds no data file", help));
    }
    let mut groups: BTreeMap<(Option<&str>, String), Vec<DataFile>> = BTreeMap::new();
    for file in files {
        groups.entry((file.part.map(|part| part.name), file.key.clone())).or_default().push(file);
    }
    let parts: BTreeSet<Option<&str>> = groups.keys().map(|(part, _)| *part).collect();
    let mut sources = Vec::new();
    for part in parts {
        let mut keys = groups.keys().filter(|(of, _)| *of == part).map(|(_, key)| key.clone());
        // Keys are in order, so that the empty one (nothing but the benchmark's name) comes first.
        let key = match (keys.next(), keys.next()) {
            (Some(first), second) if first.is_empty() || second.is_none() => first,
            (first, second) => {
                let names: Vec<String> = first.into_iter().chain(second).chain(keys).collect();
                let problem = format!("holds several data sets ({}), so which is meant?", names.join(", "));
                return Err(Error::file(folder, problem, "give the path of one of them"));
            }
        };
        let group = groups.remove(&(part, key)).unwrap_or_default();
        sources.push(source(benchmark, folder, group)?);
    }
    Ok(sources)
}

/// What is asked and shown of files that differ only by split.
fn source(benchmark: &Benchmark, folder: &Path, group: Vec<DataFile>) -> Result<Source> {
    let part = group.first().and_then(|file| file.part);
    let asked = best(benchmark.recipe.scored, &group, None);
    let shown = best(benchmark.recipe.shots, &group, asked);
    let (scored, others): (Vec<DataFile>, Vec<DataFile>) =
        group.into_iter().partition(|file| file.split == asked);
    if scored.is_empty() {
        let names: Vec<String> = others.iter().map(|file| file.path.display().to_string()).collect();
        let problem = format!("holds no data to ask, only {}", names.join(", "));
        let help = format!("add the split that is asked ({}), or give the path of a file", benchmark.splits);
        return Err(Error::file(folder, problem, help));
    }
    let shots = others.into_iter().filter(|file| shown.is_some() && file.split == shown).collect();
    Ok(Source { part, scored: paths(scored), shots: paths(shots) })
}

/// The first of `splits` that one of `files` is of, other than `taken`.
fn best(splits: &[Split], files: &[DataFile], taken: Option<Split>) -> Option<Split> {
    splits
        .iter()
        .copied()
        .find(|split| Some(*split) != taken && files.iter().any(|file| file.split == Some(*split)))
}

fn paths(mut files: Vec<DataFile>) -> Vec<PathBuf> {
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files.into_iter().map(|file| file.path).collect()
}

fn same_part(a: Option<&Part>, b: Option<&Part>) -> bool {
    a.map(|part| part.name) == b.map(|part| part.name)
}

/// All data files in a folder and the folders below it, by name.
fn walk(folder: &Path, depth: usize) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut entries = 0usize;
    let mut folders = vec![(folder.to_owned(), depth)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(Error::io(&folder, "open the folder"))? {
            let path = entry.map_err(Error::io(&folder, "list the folder"))?.path();
            entries += 1;
            if entries > MOST_ENTRIES {
                let problem = format!("holds more than {MOST_ENTRIES} files and folders");
                return Err(Error::file(&folder, problem, "give the folder of this benchmark alone"));
            }
            let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            if hidden {
                continue;
            }
            if path.is_dir() {
                if let Some(depth) = depth.checked_sub(1) {
                    folders.push((path, depth));
                }
            } else if is_readable(&path) {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Data files, and the plain text in which WikiText is published.
fn is_readable(path: &Path) -> bool {
    records::is_data_file(path) || super::wikitext::is_plain_text(path)
}

/// What the name of `path`, somewhere below `root`, says. The name of `root` itself counts too: the folder
/// `de` may be what was given.
fn describe(benchmark: &Benchmark, root: &Path, path: PathBuf) -> DataFile {
    let lower = |name: &std::ffi::OsStr| name.to_string_lossy().to_lowercase();
    let mut names: Vec<String> = Vec::new();
    let inside = path.strip_prefix(root).unwrap_or(&path);
    names.extend(inside.parent().into_iter().flat_map(Path::components).map(|c| lower(c.as_os_str())));
    names.extend(path.file_stem().map(lower));
    let named = names.iter().any(|name| compact(name).starts_with(&compact(benchmark.name)));
    // `.` and `..` have names too, but those of the folders they stand for.
    let root_name = std::fs::canonicalize(root).ok().and_then(|root| root.file_name().map(lower));
    let configured = names
        .iter()
        .rev()
        .skip(1)
        .chain(&root_name)
        .any(|name| !benchmark.config.is_empty() && *name == benchmark.config.to_lowercase());

    let own_words: BTreeSet<String> = words(benchmark.name)
        .chain(words(benchmark.config))
        .chain(words(benchmark.recipe.noise))
        .chain(words("data"))
        .collect();
    let (mut split, mut part, mut key) = (None, None, Vec::new());
    for (index, name) in names.iter().enumerate() {
        let is_file = index + 1 == names.len();
        if is_file {
            split = words(name).find_map(|word| Split::from_word(&word)).or(split);
        } else if let Some(whole) = Split::from_word(name) {
            split = Some(whole);
            continue;
        }
        let sharded = words(name).any(|word| is_shard(&word));
        let set_aside = |word: &String| {
            own_words.contains(word)
                || (sharded && (is_shard(word) || word == "of"))
                || (is_file && Split::from_word(word).is_some())
        };
        let whole = words(name).collect::<Vec<_>>().join("_");
        let rest = words(name).filter(|word| !set_aside(word)).collect::<Vec<_>>().join("_");
        // The whole name first, for a part that shares words with the benchmark.
        match part_called(benchmark, &whole).or_else(|| part_called(benchmark, &rest)) {
            Some(found) => part = Some(found),
            None if rest.is_empty() => {}
            None => key.push(rest),
        }
    }
    if part.is_none()
        && let Some(name) = &root_name
    {
        let rest = words(name).filter(|word| !own_words.contains(word)).collect::<Vec<_>>().join("_");
        part = part_called(benchmark, &rest);
    }
    DataFile { path, split, part, key: key.join("/"), named, configured }
}

/// The part of a benchmark with this name, written in any case, with any signs between words.
pub(super) fn part_called(benchmark: &Benchmark, name: &str) -> Option<&'static Part> {
    let same = |part: &&Part| words(part.name).eq(words(&name.replace('&', " and ")));
    benchmark.parts.list().iter().find(same)
}

/// Letters and digits in lower case, taken apart at everything else.
fn words(name: &str) -> impl Iterator<Item = String> + '_ {
    name.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase)
}

/// A number of five digits, as in `test-00000-of-00001`.
fn is_shard(word: &str) -> bool {
    word.len() == 5 && word.bytes().all(|b| b.is_ascii_digit())
}

fn compact(name: &str) -> String {
    words(name).collect()
}
