//! A Hub of one repository on this machine, with a second host that has the large files.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use sha2::{Digest, Sha256};

/// What somebody asked.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// With its query, as sent.
    pub path: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
}

/// What is answered.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// Bytes of the body after which the connection is cut.
    pub cut: Option<usize>,
}

impl Reply {
    pub(super) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), cut: None }
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// A host; it stops when it is dropped.
pub(super) struct Server {
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    seen: Arc<Mutex<Vec<Request>>>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(super) fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let stopped = Arc::new(AtomicBool::new(false));
        let (log, stop, answer) = (Arc::clone(&seen), Arc::clone(&stopped), Arc::new(answer));
        let thread = thread::spawn(move || {
            for connection in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                thread::spawn(move || serve(connection.unwrap(), &log, &*answer));
            }
        });
        Self { url, seen, stopped, thread: Some(thread) }
    }

    /// What was asked since the last call.
    pub(super) fn seen(&self) -> Vec<Request> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    /// The paths that were asked for since the last call.
    pub(super) fn paths(&self) -> Vec<String> {
        self.seen().into_iter().map(|request| request.path).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        TcpStream::connect(self.url.trim_start_matches("http://")).ok();
        self.thread.take().unwrap().join().ok();
    }
}

fn serve(stream: TcpStream, log: &Mutex<Vec<Request>>, answer: &dyn Fn(&Request) -> Reply) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let Some(Ok(first)) = lines.next() else { return };
    let headers: BTreeMap<String, String> = lines
        .map_while(|line| line.ok().filter(|line| !line.is_empty()))
        .filter_map(|line| {
            Some((line.split_once(':')?.0.to_lowercase(), line.split_once(':')?.1.trim().to_owned()))
        })
        .collect();
    assert!(first.starts_with("GET "), "{first}");
    let request = Request {
        path: first.split(' ').nth(1).unwrap().to_owned(),
        range: headers.get("range").cloned(),
        authorization: headers.get("authorization").cloned(),
    };
    log.lock().unwrap().push(request.clone());
    let reply = answer(&request);
    let mut head = format!(
        "HTTP/1.1 {} Said\r\nConnection: close\r\nContent-Length: {}\r\n",
        reply.status,
        reply.body.len()
    );
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    let mut stream = stream;
    let body = &reply.body[..reply.cut.unwrap_or(reply.body.len())];
    // Who asked may have gone.
    stream.write_all(format!("{head}\r\n").as_bytes()).and_then(|()| stream.write_all(body)).ok();
}

/// One file of the repository.
#[derive(Clone, Debug)]
pub(super) struct Content {
    pub bytes: Vec<u8>,
    /// Git's hash; that of an LFS file is nobody's concern.
    pub oid: String,
    pub lfs: bool,
}

/// The repository `org/name`, as a model and as a dataset.
#[derive(Clone, Debug)]
pub(super) struct Repo {
    /// By branch, tag or commit.
    pub commits: BTreeMap<String, String>,
    pub files: BTreeMap<String, Content>,
    /// Needed to get files, if any.
    pub token: Option<&'static str>,
}

pub(super) const COMMIT: &str = "aaaaaaaa0123456789abcdef0123456789abcdef";

pub(super) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Repo {
    /// Files that end like weights or tables are LFS files; Git's hashes are made up.
    pub(super) fn new(files: &[(&str, &[u8])]) -> Self {
        let content = |(name, bytes): &(&str, &[u8])| {
            let lfs =
                [".safetensors", ".gguf", ".parquet", ".bin"].iter().any(|ending| name.ends_with(ending));
            let oid = sha256(name.as_bytes())[..40].to_owned();
            ((*name).to_owned(), Content { bytes: bytes.to_vec(), oid, lfs })
        };
        Self {
            commits: BTreeMap::from([("main".to_owned(), COMMIT.to_owned())]),
            files: files.iter().map(content).collect(),
            token: None,
        }
    }

    /// What the Hub says to a request; large files are at `cdn`.
    pub(super) fn answer(&self, request: &Request, cdn: &str) -> Reply {
        let path = request.path.split('?').next().unwrap();
        let error = |status, code: &str| Reply::new(status, "").with("X-Error-Code", code);
        for kind in ["models", "datasets"] {
            let Some(rest) = path.strip_prefix(&format!("/api/{kind}/org/name/")) else { continue };
            let (what, revision) = rest.split_once('/').unwrap();
            let revision = revision.replace("%2F", "/");
            let known =
                self.commits.get(&revision).or_else(|| self.commits.values().find(|c| **c == revision));
            let Some(commit) = known else { return error(404, "RevisionNotFound") };
            let json = match what {
                "revision" => serde_json::json!({ "id": "org/name", "sha": commit }),
                "tree" => self.tree(),
                _ => return Reply::new(404, ""),
            };
            return Reply::new(200, json.to_string());
        }
        let path = path.strip_prefix("/datasets").unwrap_or(path);
        let Some(rest) = path.strip_prefix("/org/name/resolve/") else { return error(404, "RepoNotFound") };
        let authorized = self.token.map(|token| format!("Bearer {token}"));
        if authorized.is_some() && request.authorization != authorized {
            return error(if request.authorization.is_some() { 403 } else { 401 }, "GatedRepo");
        }
        let (commit, name) = rest.split_once('/').unwrap();
        let name = name.replace("%20", " ");
        let Some(content) = self.files.get(&name) else { return error(404, "EntryNotFound") };
        if content.lfs {
            return Reply::new(302, "")
                .with("Location", format!("{cdn}/{name}?signature=1").replace(' ', "%20"))
                .with("X-Linked-Etag", format!("\"{}\"", sha256(&content.bytes)))
                .with("X-Linked-Size", content.bytes.len().to_string())
                .with("X-Repo-Commit", commit);
        }
        Reply::new(200, content.bytes.clone())
            .with("ETag", format!("\"{}\"", content.oid))
            .with("X-Repo-Commit", commit)
    }

    /// The listing that the Hub gives.
    pub(super) fn tree(&self) -> serde_json::Value {
        let folder =
            serde_json::json!({ "type": "directory", "oid": "0".repeat(40), "size": 0, "path": "sub dir" });
        let files = self.files.iter().map(|(name, content)| {
            let size = content.bytes.len();
            let mut file =
                serde_json::json!({ "type": "file", "oid": content.oid, "size": size, "path": name });
            if content.lfs {
                file["lfs"] =
                    serde_json::json!({ "oid": sha256(&content.bytes), "size": size, "pointerSize": 130 });
            }
            file
        });
        files.chain([folder]).collect()
    }

    /// What the other host says to a request, ranges and all.
    pub(super) fn large(&self, request: &Request) -> Reply {
        let path = request.path.split('?').next().unwrap().trim_start_matches('/').replace("%20", " ");
        let bytes = &self.files[&path].bytes;
        let Some(range) = &request.range else { return Reply::new(200, bytes.clone()) };
        let start: usize = range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap();
        if start >= bytes.len() {
            return Reply::new(416, "");
        }
        let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
        Reply::new(206, &bytes[start..]).with("Content-Range", range)
    }
}
