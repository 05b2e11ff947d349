//! From a YAML file to the tasks it stands for: `include`, groups and their members, tags.
//!
//! As lm-evaluation-harness 0.4.13 puts them together (`tasks/_yaml_loader.py`, `tasks/_factory.py`): an
//! including file's keys win over those it includes, key by key; what a group says beside its own keys holds
//! for all its members; members are found by name in the folder of the group's file and below. What the keys
//! of a task mean is said in `config.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_yaml::{Mapping, Value};

use crate::error::{Error, Result};
use crate::suite::suggest::did_you_mean;

/// Largest YAML file, in bytes.
const LARGEST: u64 = 16 << 20;
/// Most YAML files in the folder of a group.
const MOST_FILES: usize = 50_000;
/// Most tasks that one file stands for.
const MOST_TASKS: usize = 10_000;
/// Deepest chain of includes, and deepest nesting of groups and folders.
const DEEPEST: usize = 32;
/// What of a group is its own and not its members'.
const OF_THE_GROUP: [&str; 5] = ["group", "group_alias", "task", "aggregate_metric_list", "metadata"];
/// What only a task has: a file with one of these is a task, also if it names a group.
const OF_A_TASK: [&str; 5] = ["dataset_path", "doc_to_text", "doc_to_target", "doc_to_choice", "output_type"];

/// A task as its files say it, before its keys are understood.
#[derive(Clone, Debug)]
pub(super) struct Definition {
    /// Unique among those read together.
    pub(super) name: String,
    /// The innermost group.
    pub(super) group: Option<String>,
    /// The file that is named in messages, and from whose folder data is found.
    pub(super) path: PathBuf,
    /// All keys, those of includes and groups among them.
    pub(super) keys: Mapping,
    /// Every YAML file that was read for it, the group's first.
    pub(super) files: Vec<PathBuf>,
}

/// All tasks that the file at `path` stands for; at least one, names unique.
///
/// # Errors
/// A file that cannot be read or is no YAML mapping, an endless chain of includes or groups, a member that is
/// not there.
pub(super) fn definitions(path: &Path) -> Result<Vec<Definition>> {
    let mut expansion = Expansion { root: folder_of(path).to_owned(), index: None, found: Vec::new() };
    let source = Source::read(path)?;
    if source.is_group() {
        expansion.group(source, None, &Mapping::new(), 0)?;
    } else {
        expansion.task(source, None, &Mapping::new())?;
    }
    if expansion.found.is_empty() {
        return Err(Error::key(path, "task", "the group has no members", "list its tasks under `task`"));
    }
    Ok(expansion.found)
}

/// A file's keys, includes resolved.
struct Source {
    path: PathBuf,
    keys: Mapping,
    files: Vec<PathBuf>,
}

impl Source {
    fn read(path: &Path) -> Result<Self> {
        let mut files = Vec::new();
        let keys = read_with_includes(path, &mut Vec::new(), &mut files)?;
        Ok(Self { path: path.to_owned(), keys, files })
    }

    fn is_group(&self) -> bool {
        let names_itself = self.keys.get("task").is_some_and(Value::is_string);
        let is_task = names_itself && OF_A_TASK.iter().any(|key| self.keys.contains_key(*key));
        self.keys.contains_key("group") && !is_task
    }

    fn text(&self, key: &str) -> Option<String> {
        self.keys.get(key).and_then(Value::as_str).map(str::to_owned)
    }
}

/// The mapping in a YAML file, on top of what it includes.
fn read_with_includes(path: &Path, chain: &mut Vec<PathBuf>, files: &mut Vec<PathBuf>) -> Result<Mapping> {
    if chain.iter().any(|earlier| earlier == path) || chain.len() >= DEEPEST {
        return Err(Error::key(path, "include", "the file includes itself", "break the circle of includes"));
    }
    let mut keys = read_mapping(path)?;
    if !files.iter().any(|file| file == path) {
        files.push(path.to_owned());
    }
    let included = match keys.remove("include") {
        None | Some(Value::Null) => return Ok(keys),
        Some(Value::String(one)) => vec![one],
        Some(Value::Sequence(many)) => many
            .into_iter()
            .map(|one| one.as_str().map(str::to_owned).ok_or_else(|| not_a_path(path)))
            .collect::<Result<_>>()?,
        Some(_) => return Err(not_a_path(path)),
    };
    chain.push(path.to_owned());
    let mut merged = Mapping::new();
    for file in included {
        // Joining an absolute path gives that path.
        let base = read_with_includes(&plain(&folder_of(path).join(file)), chain, files)?;
        merged.extend(base.into_iter().filter(|(key, _)| key != "task_list"));
    }
    chain.pop();
    merged.extend(keys);
    Ok(merged)
}

fn not_a_path(path: &Path) -> Error {
    Error::key(path, "include", "is not a path", "give the path of a YAML file, or a list of them")
}

/// The mapping in one YAML file.
fn read_mapping(path: &Path) -> Result<Mapping> {
    let length = std::fs::metadata(path).map_err(Error::io(path, "open the task file"))?.len();
    if length > LARGEST {
        let problem = format!("has {length} bytes, more than any task file");
        return Err(Error::file(path, problem, "name a task file of lm-evaluation-harness"));
    }
    let bytes = std::fs::read(path).map_err(Error::io(path, "read the task file"))?;
    let help = "check its indentation and quotes; every key may stand there once";
    let unreadable = |e: serde_yaml::Error| Error::file(path, format!("is no YAML: {e}"), help);
    let mut value: Value = serde_yaml::from_slice(&bytes).map_err(unreadable)?;
    value.apply_merge().map_err(unreadable)?;
    match value {
        Value::Mapping(keys) => match keys.keys().find(|key| !key.is_string()) {
            None => Ok(keys),
            Some(_) => Err(Error::file(path, "has a key that is no text", "write keys as words")),
        },
        _ => Err(Error::file(path, "is no mapping", "write `key: value` lines, among them `task: NAME`")),
    }
}

/// What goes from a file to tasks.
struct Expansion {
    /// Where members are looked for by name.
    root: PathBuf,
    /// Built at the first name.
    index: Option<Index>,
    found: Vec<Definition>,
}

impl Expansion {
    /// Takes in one task.
    fn task(&mut self, source: Source, group: Option<&Source>, overrides: &Mapping) -> Result<()> {
        let group_name = group.map_or_else(|| source.text("group"), |group| group.text("group"));
        let Source { path, mut keys, files: own } = source;
        let mut files = group.map(|group| group.files.clone()).unwrap_or_default();
        let new: Vec<PathBuf> = own.into_iter().filter(|file| !files.contains(file)).collect();
        files.extend(new);
        keys.extend(overrides.clone());
        let name = match keys.get("task") {
            Some(Value::String(name)) if !name.is_empty() => name.clone(),
            Some(Value::Sequence(_)) => {
                let help = "write `group: NAME` beside the list";
                return Err(Error::key(&path, "task", "is a list, but the file names no group", help));
            }
            Some(_) | None => {
                let help = "write `task: NAME`, or name a file that includes this one";
                return Err(Error::key(&path, "task", "the task has no name", help));
            }
        };
        if let Some(same) = self.found.iter().find(|task| task.name == name) {
            // A group may hold a task twice, by way of two of its groups.
            if same.keys == keys {
                return Ok(());
            }
            let problem = format!("another task is already called `{name}`, in {}", same.path.display());
            return Err(Error::key(&path, "task", problem, "give every task a name of its own"));
        }
        if self.found.len() >= MOST_TASKS {
            let problem = format!("the group has more than {MOST_TASKS} tasks");
            return Err(Error::key(&path, "task", problem, "name a smaller group"));
        }
        self.found.push(Definition { name, group: group_name, path, keys, files });
        Ok(())
    }

    /// Takes in all members of a group. `overrides` come from the group around it.
    fn group(
        &mut self,
        mut source: Source,
        outer: Option<&Source>,
        overrides: &Mapping,
        depth: usize,
    ) -> Result<()> {
        if depth >= DEEPEST {
            let problem = "the group holds itself, or groups are nested too deeply";
            return Err(Error::key(&source.path, "task", problem, "break the circle of groups"));
        }
        if let Some(outer) = outer {
            let own: Vec<PathBuf> =
                source.files.iter().filter(|f| !outer.files.contains(f)).cloned().collect();
            source.files = outer.files.iter().cloned().chain(own).collect();
        }
        let mut all: Mapping = source
            .keys
            .iter()
            .filter(|(key, _)| !key.as_str().is_some_and(|key| OF_THE_GROUP.contains(&key)))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        all.extend(overrides.clone());
        let members = match source.keys.get("task") {
            Some(Value::Sequence(members)) => members.clone(),
            Some(Value::String(member)) => vec![Value::String(member.clone())],
            _ => {
                let help = "list the names of its tasks, or mappings with `task: NAME`";
                return Err(Error::key(&source.path, "task", "the group lists no tasks", help));
            }
        };
        for member in members {
            match member {
                Value::String(name) => self.member(&name, &source, &all, None, depth)?,
                Value::Mapping(keys) => self.inline_member(keys, &source, &all, depth)?,
                _ => {
                    let help = "write the name of a task, or a mapping with `task: NAME`";
                    return Err(Error::key(
                        &source.path,
                        "task",
                        "a member is neither name nor mapping",
                        help,
                    ));
                }
            }
        }
        Ok(())
    }

    /// A member by its name or file; `keys` is what the list says beside it.
    fn member(
        &mut self,
        name: &str,
        group: &Source,
        overrides: &Mapping,
        keys: Option<&Mapping>,
        depth: usize,
    ) -> Result<()> {
        let mut overrides = overrides.clone();
        overrides.extend(keys.cloned().unwrap_or_default());
        overrides.remove("group");
        overrides.remove("task");
        let is_file = Path::new(name).extension().is_some_and(|e| e == "yaml" || e == "yml");
        if is_file {
            let source = Source::read(&plain(&folder_of(&group.path).join(name)))?;
            return self.any(source, group, &overrides, depth);
        }
        let index = match &self.index {
            Some(index) => index,
            None => self.index.insert(Index::of(&self.root)?),
        };
        if let Some(path) = index.files.get(name).cloned() {
            let source = Source::read(&path)?;
            if !source.is_group() {
                overrides.insert("task".into(), name.into());
            }
            return self.any(source, group, &overrides, depth);
        }
        if let Some(tagged) = index.tags.get(name).cloned() {
            for task in tagged {
                self.member(&task, group, &overrides, None, depth + 1)?;
            }
            return Ok(());
        }
        if let Some(keys) = keys {
            // A task of its own, written in the group's list.
            let mut merged = overrides;
            let (mut files, base) = (group.files.clone(), merged.remove("include"));
            if let Some(base) = base {
                let Some(base) = base.as_str() else { return Err(not_a_path(&group.path)) };
                let path = plain(&folder_of(&group.path).join(base));
                let mut included = read_with_includes(&path, &mut Vec::new(), &mut files)?;
                included.extend(merged);
                merged = included;
            }
            if OF_A_TASK.iter().any(|key| merged.contains_key(*key)) {
                merged.extend(keys.get("task").map(|name| ("task".into(), name.clone())));
                let source = Source { path: group.path.clone(), keys: merged, files };
                return self.task(source, Some(group), &Mapping::new());
            }
        }
        let known: Vec<&String> = index.files.keys().chain(index.tags.keys()).collect();
        let help = did_you_mean(name, &known).unwrap_or_else(|| {
            let unread = match index.unreadable {
                0 => String::new(),
                count => format!(" ({count} of its YAML files could not be read)"),
            };
            format!("put its YAML file into {} or below{unread}", self.root.display())
        });
        Err(Error::key(&group.path, "task", format!("there is no task, group or tag called `{name}`"), help))
    }

    /// A member that is a mapping.
    fn inline_member(
        &mut self,
        keys: Mapping,
        group: &Source,
        overrides: &Mapping,
        depth: usize,
    ) -> Result<()> {
        if let Some(Value::String(name)) = keys.get("group") {
            let index = match &self.index {
                Some(index) => index,
                None => self.index.insert(Index::of(&self.root)?),
            };
            if index.files.contains_key(name) {
                return self.member(&name.clone(), group, overrides, Some(&keys), depth);
            }
            let source = Source { path: group.path.clone(), keys, files: group.files.clone() };
            return self.group(source, Some(group), overrides, depth + 1);
        }
        match keys.get("task") {
            Some(Value::String(name)) => self.member(&name.clone(), group, overrides, Some(&keys), depth),
            _ => {
                let help = "write `task: NAME` or `group: NAME` into it";
                Err(Error::key(&group.path, "task", "a member has neither `task` nor `group`", help))
            }
        }
    }

    fn any(&mut self, source: Source, group: &Source, overrides: &Mapping, depth: usize) -> Result<()> {
        if source.is_group() {
            self.group(source, Some(group), overrides, depth + 1)
        } else {
            self.task(source, Some(group), overrides)
        }
    }
}

/// What the YAML files of a folder are called.
struct Index {
    files: BTreeMap<String, PathBuf>,
    tags: BTreeMap<String, BTreeSet<String>>,
    unreadable: usize,
}

impl Index {
    /// Of all `.yaml` files in `root` and below, in the order of their paths; of two with one name the first.
    fn of(root: &Path) -> Result<Self> {
        let mut paths = Vec::new();
        collect(root, &mut paths, 0)?;
        paths.sort();
        let mut index = Self { files: BTreeMap::new(), tags: BTreeMap::new(), unreadable: 0 };
        for path in paths {
            // A file that is not asked for may be anything.
            let Ok(source) = Source::read(&path) else {
                index.unreadable += 1;
                continue;
            };
            let own = if source.is_group() { source.text("group") } else { source.text("task") };
            let Some(name) = own else { continue };
            if index.files.contains_key(&name) {
                continue;
            }
            if !source.is_group() {
                let tags = match source.keys.get("tag") {
                    Some(Value::String(tag)) => vec![tag.clone()],
                    Some(Value::Sequence(tags)) => {
                        tags.iter().filter_map(Value::as_str).map(str::to_owned).collect()
                    }
                    _ => Vec::new(),
                };
                for tag in tags {
                    index.tags.entry(tag).or_default().insert(name.clone());
                }
            }
            index.files.insert(name, path);
        }
        Ok(index)
    }
}

/// All `.yaml` files in a folder and below; links to folders are not followed.
fn collect(folder: &Path, paths: &mut Vec<PathBuf>, depth: usize) -> Result<()> {
    let entries = std::fs::read_dir(folder).map_err(Error::io(folder, "list the folder of the group"))?;
    for entry in entries {
        let entry = entry.map_err(Error::io(folder, "list the folder of the group"))?;
        let path = entry.path();
        let kind = entry.file_type().map_err(Error::io(&path, "open the file"))?;
        let ignored = [".ipynb_checkpoints", "__pycache__"].iter().any(|name| entry.file_name() == *name);
        if kind.is_dir() && !ignored && depth < DEEPEST {
            collect(&path, paths, depth + 1)?;
        } else if !kind.is_dir() && path.extension().is_some_and(|e| e == "yaml") {
            if paths.len() >= MOST_FILES {
                let problem = format!("holds more than {MOST_FILES} YAML files");
                return Err(Error::file(
                    folder,
                    problem,
                    "put the group and its tasks into a folder of their own",
                ));
            }
            paths.push(path);
        }
    }
    Ok(())
}

/// The folder of a file, `.` for a bare name.
pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The path without `.` and, where that is certain from the letters, without `..`: so that one file has one
/// name.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        let last_is_name = matches!(plain.components().next_back(), Some(std::path::Component::Normal(_)));
        match part {
            std::path::Component::CurDir if !plain.as_os_str().is_empty() => {}
            std::path::Component::ParentDir if last_is_name && !plain.is_symlink() => {
                plain.pop();
            }
            part => plain.push(part),
        }
    }
    plain
}
