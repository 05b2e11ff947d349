//! One file from the Hub to the cache: taken up where it broke off, checked, and only then given its name.

use std::{
    fs::{self, File},
    io::{ErrorKind, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::{
    cache::{RepoCache, beside},
    client::{Client, Failure},
    id::HubId,
    listing::Entry,
};
use crate::{
    error::{Error, Result},
    progress::Progress,
};

/// Bytes read at once.
const BLOCK: usize = 1 << 20;

/// A file of a repository at a commit.
pub(super) struct Wanted<'a> {
    pub id: &'a HubId,
    pub commit: &'a str,
    pub name: &'a str,
    pub entry: &'a Entry,
}

/// Fetches the blob of a file unless it is there; whether it was not.
///
/// A file whose SHA-256 is known is written to `HASH.incomplete` and taken up from there by whoever asks next, as
/// nothing wrong can pass the hash. Any other is small and written under a name of its own.
///
/// # Errors
/// Whatever keeps the Hub from sending it, a content that is not what was announced, a full disk.
pub(super) fn fetch(
    client: &Client,
    cache: &RepoCache,
    wanted: &Wanted,
    progress: &dyn Progress,
) -> Result<bool> {
    let Some(etag) = wanted.entry.etag() else {
        return Err(wanted.error(
            "the Hub lists it without a hash, so that it cannot be kept",
            "check HF_ENDPOINT: not every mirror is complete",
        ));
    };
    let blob = cache.blob(etag);
    let folder = blob.parent().unwrap_or(&blob);
    fs::create_dir_all(folder).map_err(Error::io(folder, "create the Hub's cache"))?;
    let _held = cache.lock(etag)?;
    if fs::metadata(&blob).is_ok_and(|metadata| metadata.len() == wanted.entry.size) {
        progress.advance(wanted.entry.size);
        return Ok(false);
    }
    let mut partial = match &wanted.entry.sha256 {
        Some(sha256) => Partial::open(blob.with_file_name(format!("{sha256}.incomplete")), Some(sha256))?,
        None => Partial::open(beside(&blob), None)?,
    };
    let done = partial.fill(client, wanted, progress).and_then(|()| {
        partial.file.sync_all().map_err(|error| partial.io("write")(error))?;
        fs::rename(&partial.path, &blob).map_err(Error::io(&blob, "give the downloaded file its name"))
    });
    if done.is_err() && !partial.is_kept() {
        fs::remove_file(&partial.path).ok();
    }
    done.map(|()| true)
}

impl Wanted<'_> {
    fn error(&self, problem: impl Into<String>, help: impl Into<String>) -> Error {
        let id = HubId { file: Some(self.name.to_owned()), ..self.id.clone() };
        Error::file(Path::new(&id.to_string()), problem, help)
    }
}

/// A file that is not whole yet.
struct Partial<'a> {
    path: PathBuf,
    file: File,
    sha256: Option<&'a str>,
    /// Of the bytes that are there, if there is something to hold it against.
    hasher: Option<Sha256>,
    length: u64,
    /// What progress knows of.
    reported: u64,
    /// Whether some of it was written by another process.
    found: bool,
}

impl<'a> Partial<'a> {
    fn open(path: PathBuf, sha256: Option<&'a str>) -> Result<Self> {
        let file = File::options().create(true).read(true).write(true).truncate(false).open(&path);
        let file = file.map_err(Error::io(&path, "open"))?;
        let hasher = sha256.map(|_| Sha256::new());
        let mut partial = Self { path, file, sha256, hasher, length: 0, reported: 0, found: false };
        partial.read_back()?;
        Ok(partial)
    }

    /// Whether what is there is of use to the next one.
    fn is_kept(&self) -> bool {
        self.sha256.is_some() && self.length > 0
    }

    fn io(&self, action: &'static str) -> impl FnOnce(std::io::Error) -> Error + use<> {
        let path = self.path.clone();
        move |error| match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Error::file(
                &path,
                format!("there is no space left for the rest of it: {error}"),
                "free some space, or name another folder with HF_HUB_CACHE; what is here will be used",
            ),
            _ => Error::io(&path, action)(error),
        }
    }

    /// Takes up what another process left.
    fn read_back(&mut self) -> Result<()> {
        let mut block = vec![0; BLOCK];
        loop {
            let count =
                self.file.read(&mut block).map_err(|error| self.io("read what was downloaded")(error))?;
            let Some(bytes) = block.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
            if let Some(hasher) = &mut self.hasher {
                hasher.update(bytes);
            }
            self.length = self.length.saturating_add(count as u64);
        }
        self.found = self.length > 0;
        Ok(())
    }

    fn clear(&mut self) -> Result<()> {
        let cleared = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        cleared.map_err(|error| self.io("begin again")(error))?;
        self.hasher = self.sha256.map(|_| Sha256::new());
        (self.length, self.found) = (0, false);
        Ok(())
    }

    /// Tells how far it is; what is fetched twice counts once.
    fn report(&mut self, progress: &dyn Progress) {
        progress.advance(self.length.saturating_sub(self.reported));
        self.reported = self.reported.max(self.length);
    }

    /// Downloads what is missing, and checks the whole.
    fn fill(&mut self, client: &Client, wanted: &Wanted, progress: &dyn Progress) -> Result<()> {
        loop {
            if self.length > wanted.entry.size {
                self.clear()?;
            }
            self.report(progress);
            self.download(client, wanted, progress)?;
            let hash = self.hasher.take().map(|hasher| hex(&hasher.finalize()));
            if hash.as_deref() == self.sha256 {
                return Ok(());
            }
            let found = self.found;
            self.clear()?;
            if !found {
                return Err(wanted.error(
                    format!(
                        "what arrived has the SHA-256 {}, but the Hub announced {}",
                        hash.unwrap_or_default(),
                        self.sha256.unwrap_or_default()
                    ),
                    "try again; if it stays so, something between here and the Hub changes files",
                ));
            }
            tracing::info!(
                file = wanted.name,
                "what was left of an earlier download was wrong; beginning again"
            );
        }
    }

    fn download(&mut self, client: &Client, wanted: &Wanted, progress: &dyn Progress) -> Result<()> {
        let mut failed = 0;
        while self.length < wanted.entry.size {
            let before = self.length;
            let failure = match self.receive(client, wanted, progress)? {
                Ok(()) => continue,
                Err(failure) => failure,
            };
            failed = if self.length > before { 1 } else { failed + 1 };
            if !failure.passes() || failed >= client.attempts() {
                let id = HubId { file: Some(wanted.name.to_owned()), ..wanted.id.clone() };
                return Err(client.explain(&id, &failure));
            }
            tracing::debug!(file = wanted.name, at = self.length, %failure, "download broke off");
            client.rest(failed, &failure);
        }
        Ok(())
    }

    /// One answer of the server, as far as it goes.
    fn receive(
        &mut self,
        client: &Client,
        wanted: &Wanted,
        progress: &dyn Progress,
    ) -> Result<std::result::Result<(), Failure>> {
        let (body, begins) = match client.open(wanted.id, wanted.commit, wanted.name, self.length) {
            Ok(opened) => opened,
            Err(failure) => return Ok(Err(failure)),
        };
        if begins != self.length {
            self.clear()?;
        }
        let mut body = body.into_reader();
        let mut block = vec![0; BLOCK];
        loop {
            let count = match body.read(&mut block) {
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Ok(Err(Failure::Broken(error.to_string()))),
            };
            let Some(bytes) = block.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
            let length = self.length.saturating_add(count as u64);
            if length > wanted.entry.size {
                self.clear()?;
                let announced = wanted.entry.size;
                return Ok(Err(Failure::Wrong(format!("it is longer than the {announced} bytes announced"))));
            }
            self.file.write_all(bytes).map_err(|error| self.io("write")(error))?;
            if let Some(hasher) = &mut self.hasher {
                hasher.update(bytes);
            }
            self.length = length;
            self.report(progress);
        }
        match self.length == wanted.entry.size {
            true => Ok(Ok(())),
            false => Ok(Err(Failure::Broken(format!(
                "the answer ended after {} of {} bytes",
                self.length, wanted.entry.size
            )))),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
