//! The Hub's cache on disk, laid out as `huggingface_hub` lays it out, so that either finds what the other fetched.
//!
//! ```text
//! models--org--name/blobs/HASH                     contents: SHA-256 of an LFS file, Git's SHA-1 of any other
//! models--org--name/refs/main                      the commit that a branch or tag stood for when last asked
//! models--org--name/snapshots/COMMIT/config.json   a relative link to its blob; the file where there are no links
//! models--org--name/trees/COMMIT.json              what the Hub listed at the commit (huggingface_hub 2)
//! .locks/models--org--name/HASH.lock               held while a blob is fetched
//! ```
//!
//! Source of the layout: `huggingface_hub` 2.4 (`file_download.py`, `_tree_cache.py`), checked against its cache.

use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use super::{
    client::is_commit,
    id::{HubId, stays_inside},
    listing::{Entry, Listing, is_hex},
};
use crate::error::{Error, Result};

/// The folder of one repository.
#[derive(Clone, Debug)]
pub(super) struct RepoCache {
    folder: PathBuf,
    locks: PathBuf,
}

/// Longest listing that is read back, and most names found by walking a folder.
const MAX_TREE: u64 = 512 << 20;
const MAX_FILES: usize = 1_000_000;

impl RepoCache {
    pub(super) fn new(cache: &Path, id: &HubId) -> Self {
        let name = format!("{}--{}", id.kind.plural(), id.repo.replace('/', "--"));
        Self { folder: cache.join(&name), locks: cache.join(".locks").join(name) }
    }

    /// The commit that `revision` is, or stood for when last asked.
    pub(super) fn commit(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let text = fs::read_to_string(self.reference(revision)?).ok()?;
        Some(text.trim().to_owned()).filter(|text| is_commit(text))
    }

    /// Notes what `revision` stands for.
    pub(super) fn set_commit(&self, revision: &str, commit: &str) -> Result<()> {
        match self.reference(revision) {
            Some(path) if revision != commit && self.commit(revision).as_deref() != Some(commit) => {
                write_whole(&path, commit.as_bytes())
            }
            _ => Ok(()),
        }
    }

    fn reference(&self, revision: &str) -> Option<PathBuf> {
        stays_inside(revision).then(|| below(&self.folder.join("refs"), revision))
    }

    /// Names of branches and tags, and commits, of which something is here.
    pub(super) fn revisions(&self) -> Vec<String> {
        let mut found = names_below(&self.folder.join("refs"), 64);
        if let Ok(entries) = fs::read_dir(self.folder.join("snapshots")) {
            let commits = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
            found.extend(commits.filter(|name| is_commit(name)).take(64));
        }
        found.sort();
        found
    }

    /// The folder of a commit.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// Where a file of a commit is found.
    ///
    /// # Errors
    /// A name that leads elsewhere.
    pub(super) fn pointer(&self, commit: &str, name: &str) -> Result<PathBuf> {
        match stays_inside(name) {
            true => Ok(below(&self.snapshot(commit), name)),
            false => Err(Error::argument(
                format!(
                    "the Hub names a file {name:?}, which leads out of the cache or is allowed nowhere else"
                ),
                "do not trust this repository; name a single file of it if you know what it is",
            )),
        }
    }

    /// Where the content with this hash is kept.
    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    /// What the Hub listed at a commit, if it was asked before.
    pub(super) fn tree(&self, commit: &str) -> Option<Listing> {
        let path = self.tree_path(commit);
        let length = fs::metadata(&path).ok()?.len();
        let tree: Tree =
            serde_json::from_slice(&(length <= MAX_TREE).then(|| fs::read(&path).ok())??).ok()?;
        if tree.format_version != TREE_VERSION {
            return None;
        }
        let entry = |file: TreeFile| Entry {
            size: file.lfs_size.unwrap_or(file.size),
            blob_id: file.blob_id,
            sha256: file.lfs_sha256,
            xet_hash: file.xet_hash,
        };
        let files = tree.files.into_iter().map(|(name, file)| (name, entry(file))).collect();
        Some(Listing { files })
    }

    /// Notes what the Hub listed at a commit.
    pub(super) fn set_tree(&self, commit: &str, listing: &Listing) -> Result<()> {
        let file = |entry: &Entry| TreeFile {
            size: entry.size,
            blob_id: entry.blob_id.clone(),
            lfs_sha256: entry.sha256.clone(),
            lfs_size: entry.sha256.is_some().then_some(entry.size),
            // Python takes no listing in which one of these is none.
            xet_hash: entry.xet_hash.clone().filter(|hash| is_hex(hash, 64)),
        };
        let files = listing.files.iter().map(|(name, entry)| (name.clone(), file(entry))).collect();
        let path = self.tree_path(commit);
        let text = serde_json::to_vec(&Tree { format_version: TREE_VERSION, files })
            .map_err(|error| Error::file(&path, format!("cannot be written: {error}"), ""))?;
        write_whole(&path, &text)
    }

    fn tree_path(&self, commit: &str) -> PathBuf {
        self.folder.join("trees").join(format!("{commit}.json"))
    }

    /// What is here of a commit, where nobody noted what there is.
    pub(super) fn found(&self, commit: &str) -> Listing {
        let snapshot = self.snapshot(commit);
        let entry = |name: &String| {
            let metadata = fs::metadata(below(&snapshot, name)).ok().filter(fs::Metadata::is_file)?;
            Some(Entry { size: metadata.len(), blob_id: String::new(), sha256: None, xet_hash: None })
        };
        let names = names_below(&snapshot, MAX_FILES).into_iter();
        Listing { files: names.filter_map(|name| Some((name.clone(), entry(&name)?))).collect() }
    }

    /// Waits until nobody else fetches the blob; a file system without locks is used without.
    pub(super) fn lock(&self, etag: &str) -> Result<Option<File>> {
        fs::create_dir_all(&self.locks).map_err(Error::io(&self.locks, "create the folder of locks"))?;
        let path = self.locks.join(format!("{etag}.lock"));
        // Another user's lock file can be held without being written to.
        let file = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .or_else(|error| File::open(&path).map_err(|_| error));
        let file = file.map_err(Error::io(&path, "open the lock"))?;
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) => {
                tracing::info!(lock = %path.display(), "waiting for another download")
            }
            Err(TryLockError::Error(reason)) => {
                tracing::debug!(lock = %path.display(), %reason, "downloading without a lock");
                return Ok(None);
            }
        }
        file.lock().map_err(Error::io(&path, "wait for another download"))?;
        Ok(Some(file))
    }

    /// Lets the file of a commit be found: a link to its blob, or the blob itself where there are no links.
    ///
    /// `fresh` says that nobody else can know the blob yet, so that it may be moved.
    pub(super) fn place(&self, etag: &str, pointer: &Path, fresh: bool) -> Result<()> {
        self.place_by(link, etag, pointer, fresh)
    }

    pub(super) fn place_by(&self, link: Link, etag: &str, pointer: &Path, fresh: bool) -> Result<()> {
        let blob = self.blob(etag);
        let folder = pointer.parent().unwrap_or(&self.folder);
        fs::create_dir_all(folder).map_err(Error::io(folder, "create the folder of a snapshot"))?;
        let depth = folder.strip_prefix(&self.folder).map_or(0, |inner| inner.components().count());
        let mut target: PathBuf = std::iter::repeat_n("..", depth).collect();
        target.extend(["blobs", etag]);
        match link(&target, pointer) {
            Ok(()) => Ok(()),
            // Another process was faster.
            Err(error) if error.kind() == ErrorKind::AlreadyExists && pointer.is_file() => Ok(()),
            // Left over from a blob that was removed.
            Err(error) if error.kind() == ErrorKind::AlreadyExists && pointer.is_symlink() => {
                fs::remove_file(pointer).map_err(Error::io(pointer, "replace a link that leads nowhere"))?;
                link(&target, pointer).map_err(Error::io(pointer, "link to the blob"))
            }
            Err(_) if fresh => {
                fs::rename(&blob, pointer).map_err(Error::io(pointer, "put the file in its place"))
            }
            Err(_) => {
                let temporary = beside(pointer);
                let copied = fs::copy(&blob, &temporary).and_then(|_| fs::rename(&temporary, pointer));
                copied.map_err(|error| {
                    fs::remove_file(&temporary).ok();
                    Error::io(pointer, "copy the file to its place")(error)
                })
            }
        }
    }
}

/// Makes a link with the target first.
type Link = fn(&Path, &Path) -> std::io::Result<()>;

const TREE_VERSION: u32 = 1;

#[derive(serde::Serialize, serde::Deserialize)]
struct Tree {
    format_version: u32,
    files: BTreeMap<String, TreeFile>,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct TreeFile {
    size: u64,
    blob_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lfs_sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lfs_size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    xet_hash: Option<String>,
}

#[cfg(unix)]
fn link(target: &Path, pointer: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, pointer)
}

#[cfg(windows)]
fn link(target: &Path, pointer: &Path) -> std::io::Result<()> {
    std::os::windows::fs::symlink_file(target, pointer)
}

#[cfg(not(any(unix, windows)))]
fn link(_target: &Path, _pointer: &Path) -> std::io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

/// `folder/a/b` for "a/b", with this system's separators.
fn below(folder: &Path, name: &str) -> PathBuf {
    name.split('/').fold(folder.to_owned(), |path, part| path.join(part))
}

/// Names of all files below a folder, links among them, with `/` between folders.
fn names_below(folder: &Path, limit: usize) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![(folder.to_owned(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let Some(name) = entry.file_name().to_str().map(|name| format!("{prefix}{name}")) else {
                continue;
            };
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push((entry.path(), format!("{name}/"))),
                Ok(_) if found.len() < limit => found.push(name),
                _ => {}
            }
        }
    }
    found.sort();
    found
}

/// A name in the same folder that nobody else uses.
pub(super) fn beside(path: &Path) -> PathBuf {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{:08x}-{count}.incomplete", std::process::id()));
    path.with_file_name(name)
}

/// Writes a small file so that nobody ever sees a part of it.
fn write_whole(path: &Path, content: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(Error::io(folder, "create a folder of the Hub's cache"))?;
    }
    let temporary = beside(path);
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(content)?;
        drop(file);
        fs::rename(&temporary, path)
    };
    write().map_err(|error| {
        fs::remove_file(&temporary).ok();
        Error::io(path, "write")(error)
    })
}
