//! Names, settings, the choice of files, and a cache without links. Everything with a server is in `tests/it/hub.rs`.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    path::Path,
};

use super::{
    cache::RepoCache,
    id::stays_inside,
    listing::{Choice, Entry, Listing, Part, nearest},
    *,
};

fn model(text: &str) -> Option<HubId> {
    HubId::parse(text, RepoKind::Model)
}

#[test]
fn ids_are_read_and_written_alike() {
    for (text, repo, file, revision) in [
        ("org/name", "org/name", None, None),
        ("org/name:model-Q4_K.gguf", "org/name", Some("model-Q4_K.gguf"), None),
        ("org/name:sub/x.gguf@v1.0", "org/name", Some("sub/x.gguf"), Some("v1.0")),
        ("Qwen/Qwen2.5-0.5B_x@refs/pr/1", "Qwen/Qwen2.5-0.5B_x", None, Some("refs/pr/1")),
    ] {
        let id = model(text).unwrap();
        assert_eq!((id.repo.as_str(), id.file.as_deref(), id.revision.as_deref()), (repo, file, revision));
        assert_eq!(id.to_string(), text);
    }
    assert_eq!(model("org/name").unwrap().revision(), "main");
    let data = HubId::parse("datasets/org/name", RepoKind::Dataset).unwrap();
    assert_eq!((data.repo.as_str(), data.kind), ("org/name", RepoKind::Dataset));
    assert_eq!(model("datasets/org/name"), None);
}

#[test]
fn what_is_no_id_is_left_alone() {
    let long = format!("org/{}", "x".repeat(97));
    for text in [
        "",
        "name",
        "/org/name",
        "./name",
        "../name",
        "~/name",
        "a/b/c",
        "org/",
        "/name",
        "org\\name",
        "C:/models/x",
        "org/na me",
        "org/näme",
        "org/-name",
        "org/name-",
        "org/.name",
        "org/na--me",
        "org/na..me",
        "org/name.git",
        "models/tiny.gguf",
        "models/tiny.SAFETENSORS",
        "data/test.jsonl",
        "org/name:",
        "org/name:../x",
        "org/name:/x",
        "org/name:a//b",
        "org/name:a\\b",
        "org/name:a\0b",
        "org/name@",
        "org/name@../x",
        "org/name@a@b",
        long.as_str(),
    ] {
        assert_eq!(model(text), None, "{text:?}");
    }
}

#[test]
fn steps_are_left_to_the_caller() {
    let is_step = |step: &str| step.starts_with("kv=") || step == "nf4";
    for (text, written, rest) in [
        ("org/name", "org/name", ""),
        ("org/name@v2", "org/name@v2", ""),
        ("org/name@kv=q8_0", "org/name", "@kv=q8_0"),
        ("org/name:f.gguf@main@kv=q8_0", "org/name:f.gguf@main", "@kv=q8_0"),
        ("org/name@nf4@lora=org/other@x", "org/name", "@nf4@lora=org/other@x"),
        ("org/name@q4_z@nf4", "org/name@q4_z", "@nf4"),
    ] {
        let (id, left) = HubId::parse_prefix(text, RepoKind::Model, &is_step).unwrap();
        assert_eq!((id.to_string().as_str(), left), (written, rest), "{text}");
    }
    assert_eq!(HubId::parse_prefix("m.gguf@nf4", RepoKind::Model, &is_step), None);
}

#[test]
fn what_exists_here_is_never_an_id() {
    // Tests run in the package's folder, where these two exist.
    assert!(Path::new("tests/it").is_dir());
    for text in ["tests/it", "tests/it@main", "tests/it:x.gguf", "tests/it:x.gguf@main"] {
        assert_eq!(model(text), None, "{text}");
    }
    assert!(model("tests/itt").is_some());
}

fn settings(pairs: &[(&str, &str)]) -> Result<Settings> {
    let variables: BTreeMap<&str, &str> = pairs.iter().copied().collect();
    Settings::from_variables(false, Some(Path::new("/home/u")), &|name| {
        variables.get(name).map(OsString::from)
    })
}

#[test]
fn the_cache_is_where_huggingface_hub_has_it() {
    // As huggingface_hub 2.4 answers with the same variables (constants.HF_HUB_CACHE).
    for (pairs, expected) in [
        (&[][..], "/home/u/.cache/huggingface/hub"),
        (&[("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub"),
        (&[("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/h")], "/h/hub"),
        (&[("HF_HOME", "~/h")], "/home/u/h/hub"),
        (&[("HF_HOME", "/h"), ("HUGGINGFACE_HUB_CACHE", "/old")], "/old"),
        (&[("HF_HOME", "/h"), ("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HUB_CACHE", "/new")], "/new"),
    ] {
        assert_eq!(settings(pairs).unwrap().cache, Path::new(expected), "{pairs:?}");
    }
    assert!(Settings::from_variables(false, None, &|_| None).is_err());
}

#[test]
fn the_token_is_where_huggingface_hub_has_it_and_is_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().to_str().unwrap().to_owned();
    std::fs::write(folder.path().join("token"), "hf_file\n").unwrap();
    std::fs::write(folder.path().join("other"), " hf_other ").unwrap();
    let other = folder.path().join("other").to_str().unwrap().to_owned();
    let token = |pairs: &[(&str, &str)]| settings(pairs).unwrap().token;
    let is = |text: &str| Token::new(text).unwrap();
    let home = ("HF_HOME", home.as_str());
    assert_eq!(token(&[home]), is("hf_file"));
    assert_eq!(token(&[home, ("HF_TOKEN_PATH", &other)]), is("hf_other"));
    assert_eq!(token(&[home, ("HUGGING_FACE_HUB_TOKEN", "hf_old")]), is("hf_old"));
    assert_eq!(token(&[home, ("HUGGING_FACE_HUB_TOKEN", "hf_old"), ("HF_TOKEN", "hf_new")]), is("hf_new"));
    assert_eq!(token(&[home, ("HF_TOKEN", ""), ("HF_TOKEN_PATH", "/nowhere")]), None);
    assert_eq!(token(&[home, ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
    assert_eq!(token(&[home, ("HF_HUB_OFFLINE", "1")]), None);
    assert!(settings(&[("HF_TOKEN", "a\nb")]).is_err());
    let shown = format!("{:?}", Hub::new(settings(&[("HF_TOKEN", "hf_new")]).unwrap()).unwrap());
    assert!(!shown.contains("hf_new"), "{shown}");
}

#[test]
fn endpoint_and_offline_come_from_the_environment() {
    assert_eq!(settings(&[]).unwrap().endpoint, "https://huggingface.co");
    assert_eq!(settings(&[("HF_ENDPOINT", "https://mirror/hf//")]).unwrap().endpoint, "https://mirror/hf");
    for (pairs, offline) in [
        (&[][..], false),
        (&[("HF_HUB_OFFLINE", "1")], true),
        (&[("HF_HUB_OFFLINE", "true")], true),
        (&[("HF_HUB_OFFLINE", "0")], false),
        (&[("TRANSFORMERS_OFFLINE", "yes")], true),
        (&[("HF_HUB_OFFLINE", "0"), ("TRANSFORMERS_OFFLINE", "1")], false),
    ] {
        assert_eq!(settings(pairs).unwrap().offline, offline, "{pairs:?}");
    }
    for endpoint in
        ["huggingface.co", "ftp://host", "https://", "https://user@host", "https://h?x", "file:///x"]
    {
        let error = Hub::new(settings(&[("HF_ENDPOINT", endpoint)]).unwrap()).unwrap_err();
        assert!(error.to_string().contains("HF_ENDPOINT"), "{endpoint}: {error}");
    }
    let nowhere = settings(&[("SSL_CERT_FILE", "/nowhere/ca.pem")]).unwrap();
    assert!(Hub::new(nowhere).unwrap_err().to_string().contains("SSL_CERT_FILE"));
}

fn listing(names: &[&str]) -> Listing {
    let entry = Entry { size: 1, blob_id: "0".repeat(40), sha256: None, xet_hash: None };
    Listing { files: names.iter().map(|name| ((*name).to_owned(), entry.clone())).collect() }
}

fn choice(files: &[&str], index: Option<&str>, open: Option<&str>) -> Choice {
    let files = files.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    Choice { files, index: index.map(str::to_owned), open: open.map(str::to_owned) }
}

#[test]
fn only_what_makes_a_model_is_chosen() {
    let all = &[
        ".gitattributes",
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "onnx/model.onnx",
        "original/config.json",
        "pytorch_model.bin",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
    ];
    let needed = [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    assert_eq!(listing(all).choose("o/n", None).unwrap(), choice(&needed, None, None));
    let index = "model.safetensors.index.json";
    let both = listing(&["config.json", "model.safetensors", index, "model-00001-of-00002.safetensors"]);
    assert_eq!(both.choose("o/n", None).unwrap(), choice(&["config.json", index], Some(index), None));
    let adapter = ["adapter_config.json", "adapter_model.safetensors", "tokenizer.json"];
    let with_optimizer = [&adapter[..], &["adapter_model.bin", "optimizer.pt"]].concat();
    assert_eq!(listing(&with_optimizer).choose("o/n", None).unwrap(), choice(&adapter, None, None));
    let named = ["config.json", "weights.safetensors"];
    let expected = choice(&named, None, Some("weights.safetensors"));
    assert_eq!(listing(&named).choose("o/n", None).unwrap(), expected);
    let folder = listing(&["config.json", "fp16/config.json", "fp16/model.safetensors", "fp16/model.bin"]);
    let expected =
        choice(&["fp16/config.json", "fp16/model.safetensors"], None, Some("fp16/model.safetensors"));
    assert_eq!(folder.choose("o/n", Some("fp16/model.safetensors")).unwrap(), expected);
}

#[test]
fn a_gguf_is_chosen_by_name_and_never_guessed() {
    let names = [
        "m-Q4_K_M.gguf",
        "m-Q8_0.gguf",
        "mmproj-m.gguf",
        "big/m-00001-of-00002.gguf",
        "big/m-00002-of-00002.gguf",
    ];
    let ggufs = listing(&names);
    let (problem, help) = ggufs.choose("o/n", None).unwrap_err();
    assert!(
        problem.contains("3 GGUF models: big/m-00001-of-00002.gguf, m-Q4_K_M.gguf, m-Q8_0.gguf"),
        "{problem}"
    );
    assert!(help.contains("o/n:big/m-00001-of-00002.gguf"), "{help}");
    let one = ggufs.choose("o/n", Some("m-Q8_0.gguf")).unwrap();
    assert_eq!(one, choice(&["m-Q8_0.gguf"], None, Some("m-Q8_0.gguf")));
    for part in &names[3..] {
        let expected = choice(&names[3..], None, Some(names[3]));
        assert_eq!(ggufs.choose("o/n", Some(part)).unwrap(), expected);
    }
    let alone = listing(&["README.md", "m.gguf", "mmproj-m.gguf"]);
    assert_eq!(alone.choose("o/n", None).unwrap(), choice(&["m.gguf"], None, Some("m.gguf")));
    let torn = listing(&["m-00001-of-00003.gguf", "m-00003-of-00003.gguf"]);
    let (problem, _) = torn.choose("o/n", Some("m-00001-of-00003.gguf")).unwrap_err();
    assert!(problem.contains("m-00002-of-00003.gguf"), "{problem}");
    let (_, help) = ggufs.choose("o/n", Some("Q4_K_M")).unwrap_err();
    assert!(help.contains("o/n:m-Q4_K_M.gguf"), "{help}");
    let (_, help) = ggufs.choose("o/n", Some("m-Q8-0.gguf")).unwrap_err();
    assert!(help.contains("o/n:m-Q8_0.gguf"), "{help}");
}

#[test]
fn a_repository_without_weights_says_what_it_has() {
    let (problem, help) = listing(&["config.json", "pytorch_model.bin"]).choose("o/n", None).unwrap_err();
    assert!(problem.contains("pytorch_model.bin") && help.contains("refs/pr/1"), "{problem} {help}");
    let (problem, _) = listing(&["README.md"]).choose("o/n", None).unwrap_err();
    assert!(problem.contains("no safetensors and no GGUF"), "{problem}");
    let two = listing(&["a.safetensors", "b.safetensors"]);
    assert!(two.choose("o/n", None).unwrap_err().0.contains("a.safetensors, b.safetensors"));
}

#[test]
fn parts_are_counted_as_their_format_counts_them() {
    let all = |name: &str| Part::of(name).map(|part| part.all().collect::<Vec<_>>());
    assert_eq!(
        all("a/m-00002-of-00002.gguf").unwrap(),
        ["a/m-00001-of-00002.gguf", "a/m-00002-of-00002.gguf"]
    );
    assert_eq!(all("t-00000-of-00001.parquet").unwrap(), ["t-00000-of-00001.parquet"]);
    for name in
        ["m.gguf", "m-1-of-2.gguf", "m-00003-of-00002.gguf", "m-00000-of-00000.gguf", "m-+0001-of-00002.gguf"]
    {
        assert_eq!(all(name), None, "{name}");
    }
}

#[test]
fn near_names_are_found() {
    let names = ["org/llama-7b", "org/llama-13b", "other/thing"];
    assert_eq!(nearest("org/lama-7b", names.into_iter()), ["org/llama-7b"]);
    assert_eq!(nearest("Thing", names.into_iter()), ["other/thing"]);
    assert!(nearest("nothing/alike", names.into_iter()).is_empty());
}

#[test]
fn names_that_lead_out_are_known() {
    for name in
        ["", ".", "..", "/a", "a/", "a//b", "a/../b", "a/./b", "a\\b", "a:b", "a\nb", &"x".repeat(256)]
    {
        assert!(!stays_inside(name), "{name:?}");
    }
    assert!(
        stays_inside("sub dir/data-00000-of-00001.parquet") && stays_inside("..a/b..") && stays_inside("ü")
    );
}

#[test]
fn where_links_are_not_allowed_the_file_itself_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let cache = RepoCache::new(folder.path(), &model("org/name").unwrap());
    let commit = "0123456789".repeat(4);
    let refused = |_: &Path, _: &Path| Err(std::io::ErrorKind::PermissionDenied.into());
    for (fresh, kept) in [(true, false), (false, true)] {
        let etag = format!("{:040x}", u8::from(fresh));
        std::fs::create_dir_all(cache.blob(&etag).parent().unwrap()).unwrap();
        std::fs::write(cache.blob(&etag), &etag).unwrap();
        let pointer = cache.pointer(&commit, &format!("sub/{fresh}.json")).unwrap();
        cache.place_by(refused, &etag, &pointer, fresh).unwrap();
        assert!(pointer.is_file() && !pointer.is_symlink());
        assert_eq!(std::fs::read_to_string(&pointer).unwrap(), etag);
        assert_eq!(cache.blob(&etag).exists(), kept);
    }
    // Nothing else is left behind.
    let names: Vec<String> = cache.found(&commit).files.into_keys().collect();
    assert_eq!(names, ["sub/false.json", "sub/true.json"]);
}
