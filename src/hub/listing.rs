//! The files of a repository at one commit, and which of them are needed.

use std::collections::{BTreeMap, BTreeSet};

/// All files of a repository at one commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    /// By name, with `/` between folders; not checked.
    pub files: BTreeMap<String, Entry>,
}

/// What the Hub says of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Bytes.
    pub size: u64,
    /// Git's SHA-1 of the blob; of an LFS file that of its pointer.
    pub blob_id: String,
    /// Of the content of an LFS file.
    pub sha256: Option<String>,
    /// Of the content in the Hub's chunk store; kept for other readers of the cache.
    pub xet_hash: Option<String>,
}

impl Entry {
    /// The name of its blob in the cache, which is its ETag on the Hub; `None` if that is no hash.
    pub(super) fn etag(&self) -> Option<&str> {
        match &self.sha256 {
            Some(sha256) => Some(sha256.as_str()).filter(|hash| is_hex(hash, 64)),
            None => Some(self.blob_id.as_str()).filter(|hash| is_hex(hash, 40) || is_hex(hash, 64)),
        }
    }
}

/// `length` hexadecimal digits in lower case.
pub(super) fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// What lies beside weights and is read with them.
const BESIDE: &[&str] = &[
    "adapter_config.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "generation_config.json",
    "hf_quant_config.json",
    "quant_config.json",
    "quantization_config.json",
    "quantize_config.json",
    "recipe.yaml",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
];
const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";
const ADAPTER: &str = "adapter_model.safetensors";
/// Endings of weights that could run code when they are read, or are of no use here.
const FOREIGN: &[&str] = &[".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".tflite"];
/// Names in an error.
const SHOWN: usize = 24;

/// Which files of a repository make a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    /// Needed in any case.
    pub files: BTreeSet<String>,
    /// An index among them, whose shards are needed too.
    pub index: Option<String>,
    /// The file to open; `None` for the folder.
    pub open: Option<String>,
}

/// Why no model can be chosen: what is wrong, and what to do.
pub(super) type Problem = (String, String);

impl Listing {
    /// The files that are needed for the model, or for `file` of it.
    pub(super) fn choose(&self, repo: &str, file: Option<&str>) -> Result<Choice, Problem> {
        match file {
            Some(file) => self.choose_file(repo, file),
            None => self.choose_model(repo),
        }
    }

    fn choose_file(&self, repo: &str, file: &str) -> Result<Choice, Problem> {
        if !self.files.contains_key(file) {
            return Err(self.no_file(repo, file));
        }
        let mut files = BTreeSet::from([file.to_owned()]);
        let mut open = file.to_owned();
        if let Some(part) = Part::of(file) {
            files = part.all().collect();
            open = part.name(part.first());
        } else if file.ends_with(".safetensors") || file.ends_with(".safetensors.index.json") {
            let folder = file.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
            let beside = BESIDE.iter().map(|name| format!("{folder}{name}"));
            files.extend(beside.filter(|name| self.files.contains_key(name)));
        }
        let missing: Vec<&String> = files.iter().filter(|name| !self.files.contains_key(*name)).collect();
        if let [first, others @ ..] = missing.as_slice() {
            let more = if others.is_empty() { String::new() } else { format!(" and {} more", others.len()) };
            return Err((
                format!("has `{file}`, but not `{first}`{more}"),
                "the model is split and not all of its parts were uploaded; name another file".to_owned(),
            ));
        }
        let index = file.ends_with(".safetensors.index.json").then(|| file.to_owned());
        Ok(Choice { files, index, open: Some(open) })
    }

    fn choose_model(&self, repo: &str) -> Result<Choice, Problem> {
        let here = |name: &&str| self.files.contains_key(*name);
        let mut files: BTreeSet<String> = BESIDE.iter().copied().filter(here).map(str::to_owned).collect();
        let top = |ending: &'static str| {
            self.files.keys().filter(move |name| !name.contains('/') && name.ends_with(ending))
        };
        let mut index = None;
        // As a folder of this machine is opened: an index before a single file, any other single file last.
        if here(&INDEX) {
            files.insert(INDEX.to_owned());
            index = Some(INDEX.to_owned());
        } else if here(&SINGLE) {
            files.insert(SINGLE.to_owned());
        }
        let adapter = here(&ADAPTER).then(|| ADAPTER.to_owned());
        let has_model = index.is_some() || files.contains(SINGLE);
        files.extend(adapter.clone());
        if has_model || adapter.is_some() {
            return Ok(Choice { files, index, open: None });
        }
        let others: Vec<&String> = top(".safetensors").collect();
        match others.as_slice() {
            [one] => {
                files.insert((*one).clone());
                return Ok(Choice { files, index, open: Some((*one).clone()) });
            }
            [] => {}
            _ => return Err(name_one(repo, "safetensors files", &others)),
        }
        let ggufs = self.ggufs();
        match ggufs.as_slice() {
            [one] => self.choose_file(repo, one),
            [] => Err(self.no_weights(repo)),
            _ => Err(name_one(repo, "GGUF models", &ggufs)),
        }
    }

    /// GGUF models, each by its only or first file; projectors of images are none.
    fn ggufs(&self) -> Vec<&String> {
        let is_model = |name: &&String| {
            let base = name.rsplit('/').next().unwrap_or(name);
            name.ends_with(".gguf")
                && !base.to_ascii_lowercase().contains("mmproj")
                && !base.to_ascii_lowercase().contains("imatrix")
                && Part::of(name).is_none_or(|part| part.number == part.first())
        };
        self.files.keys().filter(is_model).collect()
    }

    fn no_weights(&self, repo: &str) -> Problem {
        let foreign = self.files.keys().find(|name| FOREIGN.iter().any(|ending| name.ends_with(ending)));
        match foreign {
            Some(name) => (
                format!("holds its weights in a form that is not read (`{name}`)"),
                format!(
                    "look whether a revision has safetensors ({repo}@refs/pr/1), or load and save the model with a \
                     newer transformers"
                ),
            ),
            None => (
                format!(
                    "{repo} holds no weights: no safetensors and no GGUF among its {} files",
                    self.files.len()
                ),
                "name another repository".to_owned(),
            ),
        }
    }

    fn no_file(&self, repo: &str, file: &str) -> Problem {
        let near = nearest(file, self.files.keys().map(String::as_str));
        let help = match near.as_slice() {
            [] => {
                let all: Vec<&String> = self.files.keys().collect();
                format!("it holds {}", shown(&all))
            }
            near => {
                format!(
                    "did you mean {}?",
                    near.iter().map(|name| format!("{repo}:{name}")).collect::<Vec<_>>().join(" or ")
                )
            }
        };
        (format!("has no file `{file}`"), help)
    }
}

fn name_one(repo: &str, what: &str, names: &[&String]) -> Problem {
    let example = names.first().map_or("", |name| name.as_str());
    (
        format!("holds {} {what}: {}", names.len(), shown(names)),
        format!("name the one that you mean: {repo}:{example}"),
    )
}

fn shown(names: &[&String]) -> String {
    let list = names.iter().take(SHOWN).map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
    match names.len().checked_sub(SHOWN) {
        Some(more @ 1..) => format!("{list} and {more} more"),
        _ => list,
    }
}

/// One of several files that belong together: `NAME-00001-of-00003.gguf`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    prefix: String,
    ending: String,
    number: u32,
    count: u32,
}

impl Part {
    /// Reads a name; five digits on either side, as llama.cpp, transformers and datasets write them.
    pub(super) fn of(name: &str) -> Option<Self> {
        let digits = |text: &str| {
            let five = text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
            five.then(|| text.parse::<u32>().ok()).flatten()
        };
        let (stem, ending) = name.rsplit_once('.')?;
        let (rest, count) = stem.rsplit_once("-of-")?;
        let (prefix, number) = rest.rsplit_once('-')?;
        let (number, count) = (digits(number)?, digits(count)?);
        (count > 0 && number <= count).then(|| Self {
            prefix: prefix.to_owned(),
            ending: ending.to_owned(),
            number,
            count,
        })
    }

    /// Weights are counted from 1, data sets from 0.
    fn first(&self) -> u32 {
        u32::from(matches!(self.ending.as_str(), "gguf" | "safetensors"))
    }

    fn name(&self, number: u32) -> String {
        format!("{}-{number:05}-of-{:05}.{}", self.prefix, self.count, self.ending)
    }

    /// The names of all parts.
    pub(super) fn all(&self) -> impl Iterator<Item = String> + '_ {
        (self.first()..self.first() + self.count).map(|number| self.name(number))
    }
}

/// Up to three of `names` that `wanted` may have been meant for: those that contain it, else those that differ in
/// few characters; capitals do not count.
pub(super) fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let wanted = wanted.to_lowercase();
    let mut scored: Vec<(usize, &str)> = names
        .take(10_000)
        .filter_map(|name| {
            let lower = name.to_lowercase();
            if lower.contains(&wanted) {
                return Some((0, name));
            }
            let base = lower.rsplit('/').next().unwrap_or(&lower);
            let distance = distance(&wanted, &lower).min(distance(&wanted, base));
            (distance <= (wanted.chars().count() / 4).max(1)).then_some((distance, name))
        })
        .collect();
    scored.sort();
    scored.into_iter().take(3).map(|(_, name)| name).collect()
}

/// Levenshtein's distance: insertions, deletions and replacements that lead from one text to the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(256).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().take(256).enumerate() {
        let mut diagonal = i;
        let mut before = i + 1;
        let mut next = Vec::with_capacity(row.len());
        next.push(before);
        for (right, above) in b.iter().zip(row.iter().skip(1)) {
            before = (diagonal + usize::from(left != *right)).min(above + 1).min(before + 1);
            diagonal = *above;
            next.push(before);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}
