//! Files of the Hugging Face Hub: `org/name`, fetched once into the cache that all programs share.
//!
//! Only what is needed is fetched, each file from the commit that the revision stands for, and a file appears under
//! its name when it is whole and its hash is right. Offline, nothing but the cache is looked at; what is on this
//! machine under the very name never leads here ([`HubId::parse`]).

mod cache;
mod client;
mod download;
mod id;
mod listing;
mod settings;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use self::{
    cache::RepoCache,
    client::{Client, Failure},
    download::Wanted,
    listing::{Entry, Listing, Part, nearest},
};
pub use self::{
    id::{HubId, RepoKind},
    settings::{Settings, Token},
};
use crate::{
    error::{Error, Result},
    progress::Progress,
};

/// Largest file that is no weight and no data: settings, vocabularies.
const MAX_SETTINGS: u64 = 512 << 20;
/// Most files of one request.
const MAX_WANTED: usize = 100_000;

/// The Hub, or offline its cache alone.
#[derive(Debug)]
pub struct Hub {
    settings: Settings,
    /// `None` offline: then there is nothing that could send a byte.
    client: Option<Client>,
}

/// A repository at a commit: what it holds, and where that is kept.
struct Opened<'a> {
    id: &'a HubId,
    cache: RepoCache,
    commit: String,
    listing: Listing,
    /// Whether the listing is the Hub's; else it is what was found in the cache.
    listed: bool,
}

impl Hub {
    /// As the environment says; `offline` forbids the network in any case.
    ///
    /// # Errors
    /// An address, token, certificate or cache folder that cannot be used.
    pub fn from_environment(offline: bool) -> Result<Self> {
        let home = std::env::home_dir().filter(|home| !home.as_os_str().is_empty());
        Self::new(Settings::from_variables(offline, home.as_deref(), &|name| std::env::var_os(name))?)
    }

    /// As `settings` say.
    ///
    /// # Errors
    /// An address or certificates that cannot be used.
    pub fn new(settings: Settings) -> Result<Self> {
        let client = match settings.offline {
            true => None,
            false => Some(Client::new(&settings)?),
        };
        Ok(Self { settings, client })
    }

    /// The model on this machine: the folder of its snapshot, or the file that was named or is the only model.
    ///
    /// Fetched are settings, tokenizer and `model.safetensors` or the shards that its index names, the weights of an
    /// adapter, or a named file with what belongs to it (all parts of a split GGUF; settings beside safetensors).
    ///
    /// # Errors
    /// No such repository, revision or file, no access, no network; nothing in it that is read, or several models and
    /// none named; offline, a file that is not in the cache.
    pub fn fetch_model(&self, id: &HubId, progress: &dyn Progress) -> Result<PathBuf> {
        let opened = self.open(id)?;
        let mut choice = opened
            .listing
            .choose(&id.repo, id.file.as_deref())
            .map_err(|(problem, help)| opened.incomplete(problem, help))?;
        if let Some(index) = &choice.index {
            self.fetch(&opened, &BTreeSet::from([index.clone()]), progress)?;
            choice.files.extend(opened.shards(index)?);
        }
        self.fetch(&opened, &choice.files, progress)?;
        match &choice.open {
            Some(file) => opened.cache.pointer(&opened.commit, file),
            None => Ok(opened.cache.snapshot(&opened.commit)),
        }
    }

    /// The files of a dataset that `wanted` picks by name (`data/test-00000-of-00001.parquet`), in order of name; the
    /// one that `id` names needs no picking.
    ///
    /// # Errors
    /// As [`Hub::fetch_model`]; nothing that is wanted.
    pub fn fetch_dataset(
        &self,
        id: &HubId,
        wanted: &dyn Fn(&str) -> bool,
        progress: &dyn Progress,
    ) -> Result<Vec<PathBuf>> {
        let opened = self.open(id)?;
        let names: BTreeSet<String> = match &id.file {
            Some(file) if opened.listing.files.contains_key(file) => BTreeSet::from([file.clone()]),
            Some(file) => {
                let near = nearest(file, opened.listing.files.keys().map(String::as_str)).join("`, `");
                let help = match near.is_empty() {
                    true => opened.contents(),
                    false => format!("did you mean `{near}`?"),
                };
                return Err(opened.incomplete(format!("has no file `{file}`"), help));
            }
            None => opened.listing.files.keys().filter(|name| wanted(name)).cloned().collect(),
        };
        if names.is_empty() {
            return Err(
                opened.incomplete("holds no file of the kind that is wanted".to_owned(), opened.contents())
            );
        }
        if !opened.listed && id.file.is_none() {
            opened.check_parts(&names)?;
        }
        self.fetch(&opened, &names, progress)?;
        names.iter().map(|name| opened.cache.pointer(&opened.commit, name)).collect()
    }

    /// Finds out the commit and what it holds: from the cache as far as possible, and offline altogether.
    fn open<'a>(&self, id: &'a HubId) -> Result<Opened<'a>> {
        let cache = RepoCache::new(&self.settings.cache, id);
        let revision = id.revision();
        let Some(client) = &self.client else {
            let commit = cache.commit(revision).ok_or_else(|| not_cached(id, &cache))?;
            let (listing, listed) = match cache.tree(&commit) {
                Some(listing) => (listing, true),
                None => (cache.found(&commit), false),
            };
            if !listed && listing.files.is_empty() {
                return Err(not_cached(id, &cache));
            }
            return Ok(Opened { id, cache, commit, listing, listed });
        };
        let commit = match client::is_commit(revision) {
            true => revision.to_owned(),
            false => client.commit(id).map_err(|failure| self.explain(client, id, &failure))?,
        };
        let listing = match cache.tree(&commit) {
            Some(listing) => listing,
            None => {
                let listing =
                    client.list(id, &commit).map_err(|failure| self.explain(client, id, &failure))?;
                noted(cache.set_tree(&commit, &listing));
                listing
            }
        };
        noted(cache.set_commit(revision, &commit));
        Ok(Opened { id, cache, commit, listing, listed: true })
    }

    /// What a failure means; for a repository that the Hub does not know, with the nearest one in the cache.
    fn explain(&self, client: &Client, id: &HubId, failure: &Failure) -> Error {
        let error = client.explain(id, failure);
        if !failure.knows_no_repository() {
            return error;
        }
        let prefix = format!("{}--", id.kind.plural());
        let entries = std::fs::read_dir(&self.settings.cache).into_iter().flatten().flatten();
        let name = |entry: std::fs::DirEntry| {
            Some(entry.file_name().to_str()?.strip_prefix(&prefix)?.replacen("--", "/", 1))
        };
        let names: BTreeSet<String> = entries.filter_map(name).filter(|name| *name != id.repo).collect();
        match (error, nearest(&id.repo, names.iter().map(String::as_str)).first()) {
            (Error::File { path, problem, help }, Some(near)) => Error::File {
                path,
                problem,
                help: format!("did you mean {near}, which is in the cache? Else {help}"),
            },
            (error, _) => error,
        }
    }

    /// Sees to it that every file is in the snapshot.
    fn fetch(&self, opened: &Opened, names: &BTreeSet<String>, progress: &dyn Progress) -> Result<()> {
        if names.len() > MAX_WANTED {
            return Err(opened.error(
                format!("{} files of it are wanted, which is too many", names.len()),
                "name a file, or fewer of them",
            ));
        }
        let mut missing: BTreeMap<&str, (&Entry, PathBuf)> = BTreeMap::new();
        for name in names {
            let pointer = opened.cache.pointer(&opened.commit, name)?;
            let Some(entry) = opened.listing.files.get(name) else {
                return Err(opened.absent(name));
            };
            match std::fs::metadata(&pointer) {
                Ok(metadata) if metadata.is_file() && metadata.len() == entry.size => continue,
                Ok(metadata) => {
                    return Err(Error::file(
                        &pointer,
                        format!("has {} bytes, but the Hub's file has {}", metadata.len(), entry.size),
                        "it was changed or damaged in the cache: delete it (and what it links to) to fetch it again",
                    ));
                }
                Err(_)
                    if self.client.is_some()
                        || entry.etag().is_some_and(|etag| opened.cache.blob(etag).is_file()) =>
                {
                    missing.insert(name, (entry, pointer))
                }
                Err(_) => return Err(opened.absent(name)),
            };
        }
        if missing.is_empty() {
            return Ok(());
        }
        let weights = |name: &str| {
            [".safetensors", ".gguf"].iter().any(|ending| name.ends_with(ending))
                || opened.id.kind == RepoKind::Dataset
        };
        let oversized = missing.iter().find(|(name, (entry, _))| entry.size > MAX_SETTINGS && !weights(name));
        if let (Some((name, (entry, _))), None) = (oversized, &opened.id.file) {
            return Err(opened.error(
                format!("its `{name}` has {} bytes, which no settings have", entry.size),
                "do not trust this repository",
            ));
        }
        let total = missing.values().fold(0u64, |sum, (entry, _)| sum.saturating_add(entry.size));
        progress.start(&format!("fetching {} ({})", opened.id, files(missing.len())), total);
        let fetched = missing
            .iter()
            .try_for_each(|(name, (entry, pointer))| self.fetch_one(opened, name, entry, pointer, progress));
        progress.finish();
        fetched
    }

    fn fetch_one(
        &self,
        opened: &Opened,
        name: &str,
        entry: &Entry,
        pointer: &Path,
        progress: &dyn Progress,
    ) -> Result<()> {
        let wanted = Wanted { id: opened.id, commit: &opened.commit, name, entry };
        let fresh = match (&self.client, entry.etag()) {
            (Some(client), _) => download::fetch(client, &opened.cache, &wanted, progress)?,
            // The content may be here under another commit.
            (None, Some(etag)) if opened.cache.blob(etag).is_file() => {
                progress.advance(entry.size);
                false
            }
            (None, _) => return Err(opened.absent(name)),
        };
        opened.cache.place(entry.etag().unwrap_or_default(), pointer, fresh)
    }
}

impl Opened<'_> {
    fn error(&self, problem: impl Into<String>, help: impl Into<String>) -> Error {
        Error::file(Path::new(&self.id.to_string()), problem, help)
    }

    /// A refusal for want of something, which may be for want of a full cache.
    fn incomplete(&self, problem: String, help: String) -> Error {
        match self.listed {
            true => self.error(problem, help),
            false => self.error(
                format!("{problem}, as far as it is in the cache"),
                format!("run once without --offline to fetch what is missing; or: {help}"),
            ),
        }
    }

    /// A file that is needed and not to be had.
    fn absent(&self, name: &str) -> Error {
        match !self.listed || self.listing.files.contains_key(name) {
            true => self.error(
                format!("its `{name}` is not in the cache, and the network is not to be used"),
                "run once without --offline (and without HF_HUB_OFFLINE) to fetch it",
            ),
            false => self.error(
                format!("has no file `{name}`, but its index names it"),
                "its upload is not complete; name another revision or another repository",
            ),
        }
    }

    /// What there is, for whoever found nothing.
    fn contents(&self) -> String {
        const SHOWN: usize = 12;
        let names: Vec<&str> = self.listing.files.keys().map(String::as_str).take(SHOWN).collect();
        match self.listing.files.len().checked_sub(SHOWN) {
            Some(more @ 1..) => format!("it holds {} and {more} more files", names.join(", ")),
            _ if names.is_empty() => "it is empty".to_owned(),
            _ => format!("it holds {}", names.join(", ")),
        }
    }

    /// The files that an index of shards names, as names in the repository.
    fn shards(&self, index: &str) -> Result<BTreeSet<String>> {
        #[derive(serde::Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let path = self.cache.pointer(&self.commit, index)?;
        let text = std::fs::read(&path).map_err(Error::io(&path, "read the shard index"))?;
        let parsed: Index = serde_json::from_slice(&text).map_err(|error| {
            Error::file(
                &path,
                format!("this is not a shard index: {error}"),
                "name another revision of the model",
            )
        })?;
        let folder = index.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
        Ok(parsed.weight_map.into_values().map(|shard| format!("{folder}{shard}")).collect())
    }

    /// Without the Hub's listing, `train-00000-of-00003` alone tells what is missing.
    fn check_parts(&self, names: &BTreeSet<String>) -> Result<()> {
        for part in names.iter().filter_map(|name| Part::of(name)) {
            if let Some(missing) = part.all().find(|name| !names.contains(name)) {
                return Err(self.absent(&missing));
            }
        }
        Ok(())
    }
}

/// What was asked may be noted for the next time; a cache that only may be read serves without.
fn noted(result: Result<()>) {
    if let Err(error) = result {
        tracing::warn!(%error, "the Hub's answer is not kept for --offline");
    }
}

fn files(count: usize) -> String {
    match count {
        1 => "1 file".to_owned(),
        _ => format!("{count} files"),
    }
}

fn not_cached(id: &HubId, cache: &RepoCache) -> Error {
    let known = cache.revisions();
    let problem = match known.is_empty() {
        true => "is not in the cache, and the network is not to be used".to_owned(),
        false => {
            format!("its revision `{}` is not in the cache, and the network is not to be used", id.revision())
        }
    };
    let others = match known.is_empty() {
        true => String::new(),
        false => format!("; cached are {}", known.join(", ")),
    };
    Error::file(
        Path::new(&id.to_string()),
        problem,
        format!("run once without --offline (and without HF_HUB_OFFLINE) to fetch it{others}"),
    )
}
