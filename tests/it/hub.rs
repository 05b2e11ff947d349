//! Fetching from the Hub, against two servers of this process: one is the Hub, the other the host of its large files.
//!
//! Nothing here leaves the machine. What the cache must look like was taken from `huggingface_hub` 2.4.0, which was
//! given the same files by a server of its own.

mod server;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use qeval::{
    error::Result,
    hub::{Hub, HubId, RepoKind, Settings, Token},
    progress::{Progress, Silent},
};

use self::server::{COMMIT, Content, Reply, Repo, Request, Server, sha256};

/// A Hub, the host of its large files, and a cache.
struct Place {
    hub: Server,
    cdn: Server,
    folder: tempfile::TempDir,
}

impl Place {
    fn new(repo: &Repo) -> Self {
        let large = repo.clone();
        Self::with(repo, |_, reply| reply, move |request| large.large(request))
    }

    /// `change` may change what the Hub says; `large` is the other host.
    fn with(
        repo: &Repo,
        change: impl Fn(&Request, Reply) -> Reply + Send + Sync + 'static,
        large: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let cdn = Server::start(large);
        let (repo, address) = (repo.clone(), cdn.url.clone());
        let hub = Server::start(move |request| change(request, repo.answer(request, &address)));
        Self { hub, cdn, folder: tempfile::tempdir().unwrap() }
    }

    fn settings(&self) -> Settings {
        Settings {
            endpoint: self.hub.url.clone(),
            cache: self.folder.path().to_owned(),
            token: None,
            offline: false,
            certificates: None,
            proxied: false,
            attempts: 3,
            pause: Duration::from_millis(1),
        }
    }

    fn open(&self) -> Hub {
        Hub::new(self.settings()).unwrap()
    }

    fn offline(&self) -> Hub {
        Hub::new(Settings { offline: true, ..self.settings() }).unwrap()
    }

    fn once(&self) -> Hub {
        Hub::new(Settings { attempts: 1, ..self.settings() }).unwrap()
    }

    /// Everything below the model's folder but listings; links with where they lead.
    fn layout(&self, repo: &str) -> Vec<String> {
        let root = self.folder.path().join(repo);
        let mut found = Vec::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for path in crate::support::entries(&folder) {
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                match std::fs::read_link(&path) {
                    Ok(target) => found.push(format!("{name} -> {}", target.display())),
                    Err(_) if path.is_dir() => folders.push(path),
                    Err(_) => found.push(name),
                }
            }
        }
        found.sort();
        found
    }

    fn blob(&self, bytes: &[u8]) -> PathBuf {
        self.folder.path().join("models--org--name/blobs").join(sha256(bytes))
    }
}

fn model(text: &str) -> HubId {
    HubId::parse(text, RepoKind::Model).unwrap()
}

fn dataset(text: &str) -> HubId {
    HubId::parse(text, RepoKind::Dataset).unwrap()
}

fn fetch(hub: &Hub, text: &str) -> Result<PathBuf> {
    hub.fetch_model(&model(text), &Silent)
}

/// The message and what it advises.
fn refusal<T: std::fmt::Debug>(result: Result<T>) -> String {
    let error = result.unwrap_err();
    format!("{error} | {}", error.help().unwrap_or_default())
}

/// Bytes that no part of repeats.
fn noise(length: usize) -> Vec<u8> {
    let step = |state: &mut u32| {
        *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        Some((*state >> 24) as u8)
    };
    std::iter::repeat_n((), length).scan(7u32, |state, ()| step(state)).collect()
}

/// The files that `huggingface_hub` was given.
fn known() -> Repo {
    let weights: Vec<u8> = (0..=255u8).cycle().take(1 << 20).collect();
    let mut repo = Repo::new(&[
        ("config.json", br#"{"model_type":"llama"}"#),
        ("tokenizer.json", br#"{"t":1}"#),
        ("README.md", b"# hi"),
        ("model.safetensors", &weights),
        ("pytorch_model.bin", &b"pickle".repeat(1000)),
        ("sub dir/data-00000-of-00001.parquet", &b"PAR1".repeat(5000)),
    ]);
    repo.files.get_mut("config.json").unwrap().oid = "0972e95c1405cc1507c19dcbe784f7a36c930907".to_owned();
    repo.files.get_mut("tokenizer.json").unwrap().oid = "eb91ea81bd482b491a2890e508a7017a4fc56b45".to_owned();
    repo
}

#[test]
#[cfg(unix)]
fn the_cache_looks_as_huggingface_hub_leaves_it() {
    let place = Place::new(&known());
    let folder = fetch(&place.open(), "org/name").unwrap();
    assert_eq!(folder, place.folder.path().join("models--org--name/snapshots").join(COMMIT));
    // What Python 2.4.0's snapshot_download left of the same files, name by name.
    let weights = "fbbab289f7f94b25736c58be46a994c441fd02552cc6022352e3d86d2fab7c83";
    let expected = [
        "blobs/0972e95c1405cc1507c19dcbe784f7a36c930907".to_owned(),
        "blobs/eb91ea81bd482b491a2890e508a7017a4fc56b45".to_owned(),
        format!("blobs/{weights}"),
        "refs/main".to_owned(),
        format!("snapshots/{COMMIT}/config.json -> ../../blobs/0972e95c1405cc1507c19dcbe784f7a36c930907"),
        format!("snapshots/{COMMIT}/model.safetensors -> ../../blobs/{weights}"),
        format!("snapshots/{COMMIT}/tokenizer.json -> ../../blobs/eb91ea81bd482b491a2890e508a7017a4fc56b45"),
        format!("trees/{COMMIT}.json"),
    ];
    assert_eq!(place.layout("models--org--name"), expected);
    let read = |path: &str| std::fs::read(place.folder.path().join(path)).unwrap();
    assert_eq!(read("models--org--name/refs/main"), COMMIT.as_bytes());
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        assert_eq!(std::fs::read(folder.join(name)).unwrap(), known().files[name].bytes, "{name}");
    }
    let tree: serde_json::Value =
        serde_json::from_slice(&read(&format!("models--org--name/trees/{COMMIT}.json"))).unwrap();
    assert_eq!(tree["format_version"], 1);
    assert_eq!(tree["files"].as_object().unwrap().len(), 6);
    assert_eq!(
        tree["files"]["config.json"],
        serde_json::json!({ "size": 22, "blob_id": "0972e95c1405cc1507c19dcbe784f7a36c930907" })
    );
    assert_eq!(tree["files"]["model.safetensors"]["lfs_sha256"], weights);
    assert_eq!(tree["files"]["model.safetensors"]["lfs_size"], 1 << 20);
    let lock = place.folder.path().join(format!(".locks/models--org--name/{weights}.lock"));
    assert!(lock.is_file());

    let files = place
        .open()
        .fetch_dataset(&dataset("org/name"), &|name| name.ends_with(".parquet"), &Silent)
        .unwrap();
    let hash = "026b24c84958ad2fc48e2041905f65f16fffb9c78d3d6b24722e0d99d315e952";
    let expected = [
        format!("blobs/{hash}"),
        "refs/main".to_owned(),
        format!("snapshots/{COMMIT}/sub dir/data-00000-of-00001.parquet -> ../../../blobs/{hash}"),
        format!("trees/{COMMIT}.json"),
    ];
    assert_eq!(place.layout("datasets--org--name"), expected);
    assert_eq!(files.len(), 1);
    assert_eq!(std::fs::read(&files[0]).unwrap(), b"PAR1".repeat(5000));
}

#[test]
fn only_needed_files_are_asked_for_and_only_once() {
    let index = br#"{"metadata":{},"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors","c":"model-00001-of-00002.safetensors"}}"#;
    let repo = Repo::new(&[
        ("config.json", b"{}"),
        ("model.safetensors.index.json", index),
        ("model-00001-of-00002.safetensors", b"one"),
        ("model-00002-of-00002.safetensors", b"two"),
        ("model-00003-of-00003.safetensors", b"stale"),
        ("pytorch_model.bin", b"pickle"),
        ("tokenizer.json", b"{ }"),
    ]);
    let place = Place::new(&repo);
    let folder = fetch(&place.open(), "org/name").unwrap();
    let file = |name: &str| format!("/org/name/resolve/{COMMIT}/{name}");
    let asked = [
        "/api/models/org/name/revision/main".to_owned(),
        format!("/api/models/org/name/tree/{COMMIT}?recursive=true"),
        file("model.safetensors.index.json"),
        file("config.json"),
        file("model-00001-of-00002.safetensors"),
        file("model-00002-of-00002.safetensors"),
        file("tokenizer.json"),
    ];
    assert_eq!(place.hub.paths(), asked);
    assert_eq!(place.cdn.paths().len(), 2);
    assert_eq!(crate::support::entries(&folder).len(), 5);
    // A branch may have moved, so it is asked for; nothing else is.
    assert_eq!(fetch(&place.open(), "org/name").unwrap(), folder);
    assert_eq!(place.hub.paths(), ["/api/models/org/name/revision/main"]);
    // A commit cannot move, and offline nothing is asked at all.
    assert_eq!(fetch(&place.open(), &format!("org/name@{COMMIT}")).unwrap(), folder);
    assert_eq!(fetch(&place.offline(), "org/name").unwrap(), folder);
    assert_eq!(fetch(&place.offline(), &format!("org/name@{COMMIT}")).unwrap(), folder);
    assert!(place.hub.paths().is_empty() && place.cdn.paths().is_empty());
}

#[test]
fn a_named_gguf_comes_alone_and_with_all_its_parts() {
    let repo = Repo::new(&[
        ("README.md", b"x"),
        ("config.json", b"{}"),
        ("m-Q4_K.gguf", b"four"),
        ("m-Q8_0-00001-of-00002.gguf", b"eight"),
        ("m-Q8_0-00002-of-00002.gguf", b"more"),
    ]);
    let place = Place::new(&repo);
    let said = refusal(fetch(&place.open(), "org/name"));
    assert!(said.contains("2 GGUF models: m-Q4_K.gguf, m-Q8_0-00001-of-00002.gguf"), "{said}");
    assert!(place.cdn.paths().is_empty());
    let one = fetch(&place.open(), "org/name:m-Q4_K.gguf").unwrap();
    assert_eq!(std::fs::read(&one).unwrap(), b"four");
    assert_eq!(place.cdn.paths(), ["/m-Q4_K.gguf?signature=1"]);
    let first = fetch(&place.open(), "org/name:m-Q8_0-00002-of-00002.gguf").unwrap();
    assert_eq!(first.file_name().unwrap(), "m-Q8_0-00001-of-00002.gguf");
    assert_eq!(place.cdn.paths().len(), 2);
    assert_eq!(crate::support::entries(one.parent().unwrap()).len(), 3);
    let said = refusal(fetch(&place.open(), "org/name:m-Q4-K.gguf"));
    assert!(
        said.contains("no file `m-Q4-K.gguf`") && said.contains("did you mean org/name:m-Q4_K.gguf?"),
        "{said}"
    );
}

#[test]
fn the_token_goes_to_the_hub_and_to_nobody_else() {
    let repo = Repo {
        token: Some("hf_secret"),
        ..Repo::new(&[("config.json", b"{}"), ("model.safetensors", b"w")])
    };
    let place = Place::new(&repo);
    let with =
        |token: &str| Hub::new(Settings { token: Token::new(token).unwrap(), ..place.settings() }).unwrap();
    fetch(&with("hf_secret"), "org/name").unwrap();
    let (hub, cdn) = (place.hub.seen(), place.cdn.seen());
    assert_eq!(hub.len(), 4);
    assert!(hub.iter().all(|request| request.authorization.as_deref() == Some("Bearer hf_secret")));
    // Same host, another port: that is another origin.
    assert_eq!(cdn.len(), 1);
    assert!(cdn.iter().all(|request| request.authorization.is_none()), "{cdn:?}");

    let gated = Place::new(&repo);
    let said = refusal(fetch(&gated.open(), "org/name"));
    assert!(said.contains("is gated") && said.contains("HF_TOKEN") && said.contains("org/name"), "{said}");
    let wrong = Hub::new(Settings { token: Token::new("hf_other").unwrap(), ..gated.settings() }).unwrap();
    let said = refusal(fetch(&wrong, "org/name"));
    assert!(said.contains("ask for access") && !said.contains("hf_other"), "{said}");
}

#[test]
fn a_renamed_repository_is_followed_with_the_token_and_a_strange_page_without() {
    let repo = Repo::new(&[("config.json", b"{}"), ("model.safetensors", b"w")]);
    let tree = repo.tree().as_array().unwrap().clone();
    let pages: Vec<String> =
        tree.chunks(1).map(|page| serde_json::Value::from(page.to_vec()).to_string()).collect();
    let last = pages[1].clone();
    let elsewhere = Server::start(move |_| Reply::new(200, last.clone()));
    let next = format!("<{}/page?cursor=2>; rel=\"next\"", elsewhere.url);
    let large = repo.clone();
    let change = move |request: &Request, reply: Reply| match request.path.as_str() {
        "/api/models/org/old/revision/main" => {
            Reply::new(307, "").with("Location", "/api/models/org/name/revision/main")
        }
        path if path.contains("/org/old/tree/") => {
            Reply::new(200, pages[0].clone()).with("Link", next.clone())
        }
        path if path.starts_with("/org/old/") => {
            Reply::new(308, "").with("Location", path.replace("/org/old/", "/org/name/"))
        }
        _ => reply,
    };
    let place = Place::with(&repo, change, move |request| large.large(request));
    let hub = Hub::new(Settings { token: Token::new("hf_secret").unwrap(), ..place.settings() }).unwrap();
    let folder = fetch(&hub, "org/old").unwrap();
    assert_eq!(std::fs::read(folder.join("model.safetensors")).unwrap(), b"w");
    assert!(place.hub.seen().iter().all(|request| request.authorization.is_some()));
    let strange = elsewhere.seen();
    assert_eq!(strange.len(), 1);
    assert!(strange[0].authorization.is_none());
}

/// Counts what is reported.
#[derive(Default)]
struct Counted {
    total: AtomicU64,
    done: AtomicU64,
    open: AtomicU32,
}

impl Progress for Counted {
    fn start(&self, _: &str, total: u64) {
        self.total.fetch_add(total, Ordering::SeqCst);
        assert_eq!(self.open.fetch_add(1, Ordering::SeqCst), 0, "one operation at a time");
    }
    fn advance(&self, units: u64) {
        self.done.fetch_add(units, Ordering::SeqCst);
    }
    fn finish(&self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A model of 300 000 bytes whose host cuts every answer after at most `cut` bytes as long as `cuts` lasts.
fn cutting(cuts: u32, cut: usize, obey_ranges: bool) -> (Place, Vec<u8>) {
    let bytes = noise(300_000);
    let repo = Repo::new(&[("m.gguf", &bytes)]);
    let (large, left) = (repo.clone(), AtomicU32::new(cuts));
    let place = Place::with(
        &repo,
        |_, reply| reply,
        move |request| {
            let range = request.range.clone().filter(|_| obey_ranges);
            let reply = large.large(&Request { range, ..request.clone() });
            let cuts =
                left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
            Reply { cut: cuts.then(|| cut.min(reply.body.len())), ..reply }
        },
    );
    (place, bytes)
}

fn ranges(place: &Place) -> Vec<Option<String>> {
    place.cdn.seen().into_iter().map(|request| request.range).collect()
}

#[test]
fn a_cut_connection_is_taken_up_where_it_broke() {
    // More cuts than attempts: whoever gets further is not given up.
    let (place, bytes) = cutting(4, 50_000, true);
    let progress = Counted::default();
    let path = place.open().fetch_model(&model("org/name:m.gguf"), &progress).unwrap();
    assert_eq!(std::fs::read(path).unwrap(), bytes);
    let from = |at: usize| (at > 0).then(|| format!("bytes={at}-"));
    assert_eq!(ranges(&place), [0, 50_000, 100_000, 150_000, 200_000].map(from));
    assert_eq!(progress.total.load(Ordering::SeqCst), 300_000);
    assert_eq!(progress.done.load(Ordering::SeqCst), 300_000);
    assert_eq!(progress.open.load(Ordering::SeqCst), 0);
}

#[test]
fn the_next_run_takes_up_what_the_last_one_left() {
    let (place, bytes) = cutting(1, 100_000, true);
    let said = refusal(fetch(&place.once(), "org/name:m.gguf"));
    assert!(said.contains("org/name:m.gguf") && said.contains("check the network"), "{said}");
    let blob = place.blob(&bytes);
    let partial = blob.with_extension("incomplete");
    assert_eq!(std::fs::read(&partial).unwrap(), &bytes[..100_000]);
    assert!(!blob.exists());
    let snapshot = place.folder.path().join("models--org--name/snapshots");
    assert!(!snapshot.exists(), "nothing may look complete");
    assert!(refusal(fetch(&place.offline(), "org/name:m.gguf")).contains("`m.gguf` is not in the cache"));
    let progress = Counted::default();
    let path = place.once().fetch_model(&model("org/name:m.gguf"), &progress).unwrap();
    assert_eq!(std::fs::read(path).unwrap(), bytes);
    assert_eq!(ranges(&place), [None, Some("bytes=100000-".to_owned())]);
    assert_eq!(progress.done.load(Ordering::SeqCst), 300_000);
    assert!(!partial.exists() && blob.is_file());
}

#[test]
fn a_server_without_ranges_is_served_from_the_beginning() {
    let (place, bytes) = cutting(1, 100_000, false);
    let path = fetch(&place.open(), "org/name:m.gguf").unwrap();
    assert_eq!(std::fs::read(path).unwrap(), bytes);
    assert_eq!(ranges(&place), [None, Some("bytes=100000-".to_owned())]);
    // One that never gets further is given up.
    let (place, bytes) = cutting(u32::MAX, 0, true);
    assert!(refusal(fetch(&place.open(), "org/name:m.gguf")).contains("cannot be read"));
    assert_eq!(ranges(&place).len(), 3);
    assert!(!place.blob(&bytes).exists());
}

#[test]
fn what_is_left_of_something_else_does_no_harm() {
    for left in [vec![0; 100_000], vec![0; 300_000], vec![0; 300_001], Vec::new()] {
        let (place, bytes) = cutting(0, 0, true);
        let blob = place.blob(&bytes);
        std::fs::create_dir_all(blob.parent().unwrap()).unwrap();
        std::fs::write(blob.with_extension("incomplete"), &left).unwrap();
        let progress = Counted::default();
        let path = place.open().fetch_model(&model("org/name:m.gguf"), &progress).unwrap();
        assert_eq!(std::fs::read(path).unwrap(), bytes, "{}", left.len());
        assert_eq!(progress.done.load(Ordering::SeqCst), 300_000);
    }
}

#[test]
fn other_bytes_than_announced_are_refused() {
    let bytes = noise(5000);
    let mut wrong = bytes.clone();
    wrong[4000] ^= 1;
    let longer = [&bytes[..], b"x"].concat();
    for (sent, expected) in [
        (wrong.clone(), sha256(&wrong)),
        (longer, "longer than the 5000 bytes".to_owned()),
        (bytes[..4999].to_vec(), "4999 of 5000".to_owned()),
    ] {
        let place = Place::with(
            &Repo::new(&[("m.gguf", &bytes), ("config.json", b"{}")]),
            |_, reply| reply,
            move |request| match &request.range {
                Some(_) => Reply::new(416, ""),
                None => Reply::new(200, sent.clone()),
            },
        );
        let said = refusal(fetch(&place.open(), "org/name:m.gguf"));
        assert!(said.contains(&expected), "{said}");
        let left = place.layout("models--org--name");
        let complete =
            left.iter().any(|name| name.starts_with("snapshots") || name.ends_with(&sha256(&bytes)));
        assert!(!complete, "{left:?}");
    }
}

#[test]
fn a_revision_is_a_commit_once_it_is_known() {
    let other = "b".repeat(40);
    let mut repo = Repo::new(&[("m.gguf", b"weights")]);
    repo.commits.insert("v1.0".to_owned(), other.clone());
    repo.commits.insert("refs/pr/1".to_owned(), other.clone());
    let place = Place::new(&repo);
    let path = fetch(&place.open(), "org/name:m.gguf@v1.0").unwrap();
    assert!(path.ends_with(Path::new("snapshots").join(&other).join("m.gguf")));
    let asked = place.hub.paths();
    assert_eq!(asked[0], "/api/models/org/name/revision/v1.0");
    assert!(asked[1..].iter().all(|path| path.contains(&other)), "{asked:?}");
    fetch(&place.open(), "org/name:m.gguf@refs/pr/1").unwrap();
    assert_eq!(place.hub.paths(), ["/api/models/org/name/revision/refs%2Fpr%2F1"]);
    let layout = place.layout("models--org--name");
    assert!(
        layout.contains(&"refs/v1.0".to_owned()) && layout.contains(&"refs/refs/pr/1".to_owned()),
        "{layout:?}"
    );
    // The same content under another commit is not fetched again.
    place.cdn.seen();
    fetch(&place.open(), "org/name:m.gguf").unwrap();
    assert!(place.cdn.paths().is_empty());
    let said = refusal(fetch(&place.offline(), "org/name:m.gguf@v2.0"));
    assert!(said.contains("`v2.0` is not in the cache") && said.contains("main, refs/pr/1, v1.0"), "{said}");
    let said = refusal(fetch(&place.open(), "org/name@q4_z"));
    assert!(said.contains("no revision `q4_z`") && said.contains("steps"), "{said}");
}

#[test]
fn offline_nothing_is_sent() {
    let place = Place::new(&known());
    let said = refusal(fetch(&place.offline(), "org/name"));
    assert!(said.contains("is not in the cache") && said.contains("--offline"), "{said}");
    fetch(&place.open(), "org/name:README.md").unwrap();
    place.hub.seen();
    place.cdn.seen();
    let said = refusal(fetch(&place.offline(), "org/name"));
    assert!(said.contains("`config.json` is not in the cache"), "{said}");
    assert!(place.offline().fetch_dataset(&dataset("org/name"), &|_| true, &Silent).is_err());
    assert!(place.hub.seen().is_empty() && place.cdn.seen().is_empty());
    let nobody =
        Hub::new(Settings { endpoint: "http://127.0.0.1:9".to_owned(), ..place.settings() }).unwrap();
    let said = refusal(fetch(&nobody, "org/name"));
    assert!(said.contains("127.0.0.1:9") && said.contains("check the network"), "{said}");
}

#[test]
fn a_cache_without_listings_serves_offline_as_far_as_it_goes() {
    let index =
        br#"{"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}}"#;
    let repo = Repo::new(&[
        ("config.json", b"{}"),
        ("model.safetensors.index.json", index),
        ("model-00001-of-00002.safetensors", b"one"),
        ("model-00002-of-00002.safetensors", b"two"),
        ("t-00000-of-00002.parquet", b"0"),
        ("t-00001-of-00002.parquet", b"1"),
    ]);
    let place = Place::new(&repo);
    let folder = fetch(&place.open(), "org/name").unwrap();
    let all =
        |hub: &Hub| hub.fetch_dataset(&dataset("org/name"), &|name| name.ends_with(".parquet"), &Silent);
    let files = all(&place.open()).unwrap();
    assert_eq!(files.len(), 2);
    // As hf_hub_download leaves it.
    for repo in ["models--org--name", "datasets--org--name"] {
        std::fs::remove_dir_all(place.folder.path().join(repo).join("trees")).unwrap();
    }
    assert_eq!(fetch(&place.offline(), "org/name").unwrap(), folder);
    assert_eq!(all(&place.offline()).unwrap(), files);
    std::fs::remove_file(folder.join("model-00002-of-00002.safetensors")).unwrap();
    let said = refusal(fetch(&place.offline(), "org/name"));
    assert!(said.contains("`model-00002-of-00002.safetensors` is not in the cache"), "{said}");
    std::fs::remove_file(&files[0]).unwrap();
    let said = refusal(all(&place.offline()));
    assert!(said.contains("`t-00000-of-00002.parquet` is not in the cache"), "{said}");
}

#[test]
fn a_hostile_hub_writes_nowhere_else() {
    let bad = |name: &str| {
        let mut repo = Repo::new(&[("config.json", b"{}"), ("model.safetensors", b"w")]);
        let evil = Content { bytes: b"evil".to_vec(), oid: "e".repeat(40), lfs: false };
        repo.files.insert(name.to_owned(), evil);
        repo
    };
    for name in
        ["../../../evil.json", "/evil.json", "a/../../../../evil.json", "a\\..\\evil.json", "c:evil.json"]
    {
        let place = Place::new(&bad(name));
        let said =
            refusal(place.open().fetch_dataset(&dataset("org/name"), &|name| name.contains("evil"), &Silent));
        assert!(said.contains("leads out of the cache"), "{name}: {said}");
        // It harms nobody who does not want it.
        fetch(&place.open(), "org/name").unwrap();
    }
    let index = br#"{"weight_map":{"a":"../../../evil.safetensors"}}"#;
    let place = Place::new(&Repo::new(&[("model.safetensors.index.json", index)]));
    assert!(refusal(fetch(&place.open(), "org/name")).contains("leads out of the cache"));
    let index = br#"{"weight_map":{"a":"absent.safetensors"}}"#;
    let place = Place::new(&Repo::new(&[("model.safetensors.index.json", index)]));
    assert!(refusal(fetch(&place.open(), "org/name")).contains("no file `absent.safetensors`"));

    let mut repo = Repo::new(&[("model.safetensors", b"w"), ("config.json", b"{}")]);
    repo.files.get_mut("config.json").unwrap().oid = "../../evil".to_owned();
    assert!(refusal(fetch(&Place::new(&repo).open(), "org/name")).contains("without a hash"));
    repo.commits.insert("main".to_owned(), "../../evil".to_owned());
    assert!(refusal(fetch(&Place::new(&repo).open(), "org/name")).contains("commit"));
}

#[test]
fn strange_answers_are_said_to_be_strange() {
    let repo = Repo::new(&[("m.gguf", b"weights")]);
    let with =
        |change: fn(&Request, Reply) -> Reply| Place::with(&repo, change, |_| Reply::new(200, "weights"));
    let says = |change: fn(&Request, Reply) -> Reply, expected: &str| {
        let said = refusal(fetch(&with(change).open(), "org/name"));
        assert!(said.contains(expected), "{said}");
    };
    says(|_, _| Reply::new(200, "<html>log in to the airport</html>"), "not one that a Hub gives");
    says(|request, _| Reply::new(302, "").with("Location", request.path.clone()), "leads in circles");
    says(|_, _| Reply::new(302, "").with("Location", "file:///etc/passwd"), "address that is none");
    says(|_, _| Reply::new(302, "").with("Location", "ftp://127.0.0.1/x"), "address that is none");
    says(|_, _| Reply::new(500, ""), "try again later");
    says(|_, _| Reply::new(429, ""), "HF_TOKEN");
    says(|_, _| Reply::new(401, ""), "neither here nor on the Hub, or private");
    says(|_, _| Reply::new(418, ""), "HF_ENDPOINT");
    let link = |request: &Request, reply: Reply| match request.path.contains("/tree/") {
        true => Reply::new(200, "[]").with("Link", "<ftp://x/y>; rel=\"next\""),
        false => reply,
    };
    says(link, "address that is none");
}

#[test]
fn a_hub_that_stumbles_is_asked_again() {
    let repo = Repo::new(&[("m.gguf", b"weights")]);
    let large = repo.clone();
    let stumbled = Arc::new(Mutex::new(Vec::<String>::new()));
    let change = move |request: &Request, reply: Reply| {
        let mut known = stumbled.lock().unwrap();
        let first = !known.contains(&request.path);
        known.push(request.path.clone());
        if first { Reply::new(503, "").with("Retry-After", "0") } else { reply }
    };
    let place = Place::with(&repo, change, move |request| large.large(request));
    fetch(&place.open(), "org/name").unwrap();
    assert_eq!(place.hub.seen().len(), 6);
}

#[test]
fn an_unknown_name_is_answered_with_the_nearest_cached_one() {
    let place = Place::new(&known());
    fetch(&place.open(), "org/name:README.md").unwrap();
    let said = refusal(fetch(&place.open(), "org/naem"));
    assert!(
        said.contains("org/naem: is neither here nor on the Hub") && said.contains("did you mean org/name"),
        "{said}"
    );
    let said = refusal(fetch(&place.open(), "nothing/alike"));
    assert!(!said.contains("did you mean") && said.contains("check the spelling"), "{said}");
}

#[test]
fn two_at_once_fetch_one_file_once() {
    let (place, bytes) = cutting(0, 0, true);
    std::thread::scope(|scope| {
        let runs: Vec<_> =
            (0..4).map(|_| scope.spawn(|| fetch(&place.open(), "org/name:m.gguf").unwrap())).collect();
        for run in runs {
            assert_eq!(std::fs::read(run.join().unwrap()).unwrap(), bytes);
        }
    });
    assert_eq!(place.cdn.seen().len(), 1);
}

#[test]
fn a_file_that_was_changed_in_the_cache_is_not_taken_and_not_replaced() {
    let place = Place::new(&known());
    let folder = fetch(&place.open(), "org/name").unwrap();
    let config = folder.join("config.json");
    std::fs::write(&config, "{}").unwrap();
    for hub in [place.open(), place.offline()] {
        let said = refusal(fetch(&hub, "org/name"));
        assert!(
            said.contains("has 2 bytes, but the Hub's file has 22") && said.contains("delete it"),
            "{said}"
        );
    }
    assert_eq!(std::fs::read(&config).unwrap(), b"{}");
    // Deleted, as the advice says, it comes back.
    std::fs::remove_file(std::fs::canonicalize(&config).unwrap()).unwrap();
    fetch(&place.open(), "org/name").unwrap();
    assert_eq!(std::fs::read(&config).unwrap(), known().files["config.json"].bytes);
}

#[test]
fn datasets_come_file_by_file() {
    let repo = Repo::new(&[
        ("README.md", b"x"),
        ("main/test-00000-of-00001.parquet", b"test"),
        ("main/train-00000-of-00001.parquet", b"train"),
        ("other/test.jsonl", b"{}\n"),
    ]);
    let place = Place::new(&repo);
    let test =
        place.open().fetch_dataset(&dataset("org/name"), &|name| name.contains("/test"), &Silent).unwrap();
    let contents: Vec<_> = test.iter().map(|path| std::fs::read(path).unwrap()).collect();
    assert_eq!(contents, [b"test".to_vec(), b"{}\n".to_vec()]);
    assert_eq!(place.cdn.paths(), ["/main/test-00000-of-00001.parquet?signature=1"]);
    let asked = place.hub.paths();
    assert!(asked[..2].iter().all(|path| path.starts_with("/api/datasets/org/name/")), "{asked:?}");
    assert!(asked[2..].iter().all(|path| path.starts_with("/datasets/org/name/resolve/")), "{asked:?}");
    let one = place.open().fetch_dataset(&dataset("org/name:other/test.jsonl"), &|_| false, &Silent).unwrap();
    assert_eq!(one.len(), 1);
    let said = refusal(place.open().fetch_dataset(&dataset("org/name"), &|_| false, &Silent));
    assert!(said.contains("no file of the kind") && said.contains("it holds README.md"), "{said}");
    let said = refusal(place.open().fetch_dataset(&dataset("org/name:test.json"), &|_| true, &Silent));
    assert!(said.contains("no file `test.json`") && said.contains("other/test.jsonl"), "{said}");
}
