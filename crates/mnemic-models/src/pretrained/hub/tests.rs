use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use super::super::weights::Weights;
use super::super::weights::tests::safetensors;
use super::server::{Reply, Server};
use super::*;

const OLD: &str = "1111111111111111111111111111111111111111";
const NEW: &str = "2222222222222222222222222222222222222222";

/// The files of a repository at each commit, and what branches and tags stand for.
#[derive(Clone, Default)]
struct Hub {
    commits: BTreeMap<&'static str, Vec<(&'static str, Vec<u8>)>>,
    refs: BTreeMap<&'static str, &'static str>,
    /// Replies for files instead of their content.
    instead: BTreeMap<&'static str, Reply>,
}

impl Hub {
    /// `owner/model` with one commit.
    fn of(files: Vec<(&'static str, Vec<u8>)>) -> Self {
        let (commits, refs) = (BTreeMap::from([(NEW, files)]), BTreeMap::from([("main", NEW)]));
        Self { commits, refs, ..Self::default() }
    }

    fn small() -> Self {
        Self::of(vec![
            ("config.json", b"{}".to_vec()),
            ("tokenizer.json", b"{\"a\": 1}".to_vec()),
            ("README.md", b"# no".to_vec()),
            ("model.safetensors", safetensors(&[("w", &[1., 2.])])),
            ("pytorch_model.bin", b"never".to_vec()),
        ])
    }

    fn start(self) -> Server {
        let hub = Mutex::new(self);
        Server::start(move |request| hub.lock().unwrap().reply(&request.path))
    }

    fn reply(&self, path: &str) -> Reply {
        if let Some(revision) = path.strip_prefix("/api/models/owner/model/revision/") {
            let revision = revision.trim_end_matches("?blobs=true").replace("%2F", "/");
            let commit = self.refs.get(&*revision).copied().unwrap_or(&revision);
            let Some(files) = self.commits.get(commit) else {
                return Reply::status(404).header("X-Error-Code", "RevisionNotFound");
            };
            let entry = |(name, bytes): &(&str, Vec<u8>)| {
                let (size, hash) = (bytes.len(), hash(bytes));
                match name.ends_with(".json") {
                    true => json!({ "rfilename": name, "size": size, "blobId": hash }),
                    false => json!({
                        "rfilename": name, "size": size, "blobId": "0123456789",
                        "lfs": { "sha256": hash, "size": size, "pointerSize": 130 }
                    }),
                }
            };
            let siblings: Vec<_> = files.iter().map(entry).collect();
            return Reply::ok(json!({ "sha": commit, "siblings": siblings }).to_string());
        }
        let file = path.strip_prefix("/owner/model/resolve/").and_then(|p| p.split_once('/'));
        let Some((commit, name)) = file else {
            return Reply::status(404).header("X-Error-Code", "RepoNotFound");
        };
        if let Some(reply) = self.instead.get(name) {
            return reply.clone();
        }
        let found = self.commits.get(commit).and_then(|f| f.iter().find(|(n, _)| *n == name));
        match found {
            Some((_, bytes)) => Reply::ok(bytes.clone()),
            None => Reply::status(404).header("X-Error-Code", "EntryNotFound"),
        }
    }
}

/// Something that differs for different contents.
fn hash(bytes: &[u8]) -> String {
    let sum = bytes.iter().fold(7u64, |sum, b| sum.wrapping_mul(0x100_0000_01b3) ^ u64::from(*b));
    format!("{sum:016x}")
}

fn options(server: &Server, cache: &TempDir) -> HubOptions {
    HubOptions {
        endpoint: server.url(),
        cache: cache.path().to_path_buf(),
        token: None,
        offline: false,
        timeout: Duration::from_secs(5),
    }
}

fn id(text: &str) -> HubId {
    HubId::parse(text).unwrap()
}

fn model() -> HubId {
    id("owner/model")
}

/// All files below a folder, by their path.
fn files(dir: &Path) -> Vec<String> {
    let (mut found, mut left) = (Vec::new(), vec![dir.to_path_buf()]);
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => left.push(path),
                false => found.push(path.strip_prefix(dir).unwrap().display().to_string()),
            }
        }
    }
    found.sort();
    found
}

#[test]
fn what_loading_takes_is_fetched_into_the_cache_of_python() {
    let (server, cache) = (Hub::small().start(), TempDir::new().unwrap());
    let dir = fetch(&model(), &options(&server, &cache)).unwrap();
    assert_eq!(dir, cache.path().join("models--owner--model/snapshots").join(NEW));
    assert_eq!(files(&dir), ["config.json", "model.safetensors", "tokenizer.json"]);
    assert_eq!(fs::read(dir.join("tokenizer.json")).unwrap(), b"{\"a\": 1}");
    let weights = Weights::open(&dir).unwrap();
    assert_eq!(weights.load("w").unwrap().to_vec1::<f32>().unwrap(), [1., 2.]);
    let repo = cache.path().join("models--owner--model");
    assert_eq!(fs::read_to_string(repo.join("refs/main")).unwrap(), NEW);
    let blob = hash(b"{}");
    assert!(repo.join("blobs").join(&blob).is_file());
    #[cfg(unix)]
    assert_eq!(
        fs::read_link(dir.join("config.json")).unwrap(),
        Path::new("../../blobs").join(blob)
    );
    // Three blobs, three links, one reference, and nothing left over.
    assert_eq!(files(&repo).len(), 7);
    // hf-hub's own reader finds it.
    let theirs = hf_hub::Cache::new(cache.path().to_path_buf()).model("owner/model".to_string());
    assert_eq!(theirs.get("config.json").unwrap(), dir.join("config.json"));
}

#[test]
fn the_cache_serves_when_the_hub_is_down_or_not_to_be_asked() {
    let (server, cache) = (Hub::small().start(), TempDir::new().unwrap());
    let mut options = options(&server, &cache);
    let dir = fetch(&model(), &options).unwrap();
    assert_eq!(server.requests().len(), 4);
    assert_eq!(fetch(&model(), &options).unwrap(), dir);
    let again: Vec<_> = server.requests().into_iter().map(|r| r.path).collect();
    assert_eq!(again, ["/api/models/owner/model/revision/main?blobs=true"]);
    drop(server);
    assert_eq!(fetch(&model(), &options).unwrap(), dir);
    assert_eq!(fetch(&id(&format!("owner/model@{NEW}")), &options).unwrap(), dir);
    let error = |id: &HubId, options: &HubOptions| fetch(id, options).unwrap_err().to_string();
    let down = error(&id("owner/other"), &options);
    assert!(down.starts_with("owner/other: http://127.0.0.1:"), "{down}");
    assert!(
        down.contains("cannot be reached") && down.contains("does not hold it whole"),
        "{down}"
    );
    options.offline = true;
    assert_eq!(fetch(&model(), &options).unwrap(), dir);
    assert!(error(&id("gpt2"), &options).contains("gpt2: HF_HUB_OFFLINE is set, and the cache"));
    assert!(error(&id("owner/model@v2"), &options).contains("HF_HUB_OFFLINE is set"));
    // A snapshot without its weights is not whole, nor one whose blob is gone.
    let weights = fs::canonicalize(dir.join("model.safetensors")).unwrap();
    fs::remove_file(weights).unwrap();
    assert!(error(&model(), &options).contains("does not hold it whole"));
    // A reference must not lead out of the cache.
    fs::write(cache.path().join("models--owner--model/refs/main"), "../../..").unwrap();
    assert!(error(&model(), &options).contains("does not hold it whole"));
}

#[test]
fn a_busy_hub_is_as_good_as_none() {
    let busy = Arc::new(Mutex::new(200));
    let (state, hub) = (busy.clone(), Hub::small());
    let server = Server::start(move |request| match *state.lock().unwrap() {
        200 => hub.reply(&request.path),
        status => Reply::status(status).header("X-Error-Message", "later"),
    });
    let cache = TempDir::new().unwrap();
    let dir = fetch(&model(), &options(&server, &cache)).unwrap();
    for status in [429, 500, 503] {
        *busy.lock().unwrap() = status;
        assert_eq!(fetch(&model(), &options(&server, &cache)).unwrap(), dir);
        let empty = TempDir::new().unwrap();
        let error = fetch(&model(), &options(&server, &empty)).unwrap_err().to_string();
        assert!(error.contains(&format!("answers {status}: later")), "{error}");
    }
}

#[test]
fn refusals_say_what_to_do() {
    let cache = TempDir::new().unwrap();
    let with = |status: u16, code: &str, token: Option<&str>| {
        let code = code.to_string();
        let server = Server::start(move |_| Reply::status(status).header("X-Error-Code", &code));
        let token = token.map(String::from);
        let options = HubOptions { token, ..options(&server, &cache) };
        let error = fetch(&model(), &options).unwrap_err().to_string();
        assert!(error.starts_with("owner/model: "), "{error}");
        error
    };
    let missing = with(404, "RepoNotFound", None);
    assert!(
        missing.contains("no such repository") && missing.contains("`owner/name`"),
        "{missing}"
    );
    assert!(with(404, "RevisionNotFound", None).contains("no revision `main`"));
    let private = with(401, "RepoNotFound", None);
    assert!(private.contains("or a private one") && private.contains("set HF_TOKEN"), "{private}");
    for status in [401, 403] {
        assert!(with(status, "", None).contains("set HF_TOKEN to a token that may read it"));
        assert!(with(status, "", Some("hf_x")).contains("the token of HF_TOKEN"));
        let gated = with(status, "GatedRepo", None);
        assert!(gated.contains("agree to terms at http://127.0.0.1"), "{gated}");
    }
    assert!(with(418, "", None).contains("answers 418"));
    assert!(with(302, "", None).contains("a redirect to ``"));
    assert_eq!(files(cache.path()), [""; 0]);

    let server = Server::start(|_| Reply::ok("<html>"));
    let error = fetch(&model(), &options(&server, &cache)).unwrap_err().to_string();
    assert!(error.contains("listing: expected value"), "{error}");
    let bad = HubOptions { endpoint: "ftp://x".into(), ..options(&server, &cache) };
    assert!(fetch(&model(), &bad).unwrap_err().to_string().contains("HF_ENDPOINT `ftp://x`"));
}

/// The error of fetching where a reply stands for the weights, in an empty cache that must stay without them.
fn broken(reply: Reply) -> String {
    let mut hub = Hub::small();
    hub.instead.insert("model.safetensors", reply);
    let (server, cache) = (hub.start(), TempDir::new().unwrap());
    let mut options = options(&server, &cache);
    options.timeout = Duration::from_millis(400);
    let error = fetch(&model(), &options).unwrap_err().to_string();
    assert!(error.starts_with("owner/model: model.safetensors: "), "{error}");
    let left = files(cache.path());
    assert_eq!(left.len(), 4, "two files and their links: {left:?}");
    options.offline = true;
    let offline = fetch(&model(), &options).unwrap_err().to_string();
    assert!(offline.contains("does not hold it whole"), "{offline}");

    // The next call fetches it.
    let server = Hub::small().start();
    let options = self::options(&server, &cache);
    assert!(Weights::open(fetch(&model(), &options).unwrap()).is_ok());
    assert_eq!(server.requests().len(), 2);
    error
}

#[test]
fn nothing_is_kept_of_what_is_not_whole() {
    let whole = safetensors(&[("w", &[1., 2.])]);
    let (size, half) = (whole.len(), whole[..10].to_vec());
    let cut = Reply { length: Some(Some(size)), ..Reply::ok(half.clone()) };
    let error = broken(cut);
    assert!(error.contains(&format!("broke off after 10 of {size} bytes")), "{error}");
    let endless = Reply { length: Some(None), ..Reply::ok(half.clone()) };
    let error = broken(endless);
    assert!(
        error.contains(&format!("only 10 bytes are sent, but {size} were declared")),
        "{error}"
    );
    let error = broken(Reply::ok(half));
    assert!(error.contains(&format!("10 bytes are sent, but {size} were declared")), "{error}");
    let longer = Reply { length: Some(None), ..Reply::ok([&whole[..], b"x"].concat()) };
    let error = broken(longer);
    assert!(error.contains(&format!("more than {size} bytes are sent")), "{error}");
    let gone = Reply::status(404).header("X-Error-Code", "EntryNotFound");
    assert!(broken(gone).contains("it is listed, but not there"));
    assert!(broken(Reply::status(503)).contains("answers 503"));
    // A server that stops sending without closing.
    let stalled = Reply {
        length: Some(Some(size)),
        pieces: 2,
        wait: Duration::from_secs(3),
        ..Reply::ok(whole)
    };
    let start = Instant::now();
    let error = broken(stalled);
    assert!(error.contains("broke off after 0"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[test]
fn a_slow_body_is_waited_for() {
    let mut hub = Hub::small();
    let whole = safetensors(&[("w", &[1., 2.])]);
    let wait = Duration::from_millis(40);
    let slow = Reply { pieces: 20, wait, ..Reply::ok(whole.clone()) };
    hub.instead.insert("model.safetensors", slow);
    let (server, cache) = (hub.start(), TempDir::new().unwrap());
    // All of it takes longer than any single wait may.
    let options = HubOptions { timeout: Duration::from_millis(500), ..options(&server, &cache) };
    let start = Instant::now();
    let dir = fetch(&model(), &options).unwrap();
    assert!(start.elapsed() > Duration::from_millis(700));
    assert_eq!(fs::read(dir.join("model.safetensors")).unwrap(), whole);
}

#[test]
fn the_token_goes_to_the_hub_alone() {
    let whole = safetensors(&[("w", &[3.])]);
    let sent = whole.clone();
    let elsewhere = Server::start(move |_| Reply::ok(sent.clone()));
    let mut hub = Hub::of(vec![("config.json", b"{}".to_vec()), ("model.safetensors", whole)]);
    let far = format!("{}/blob?key=1", elsewhere.url());
    hub.instead.insert("model.safetensors", Reply::status(302).header("Location", &far));
    // The hub redirects to itself as well, by a path.
    let near = format!("/owner/model/resolve/{NEW}/config-renamed.json");
    hub.instead.insert("config.json", Reply::status(307).header("Location", &near));
    hub.instead.insert("config-renamed.json", Reply::ok("{}"));
    let (server, cache) = (hub.start(), TempDir::new().unwrap());
    let token = Some("hf_secret".to_string());
    let dir = fetch(&model(), &HubOptions { token, ..options(&server, &cache) }).unwrap();
    assert_eq!(Weights::open(&dir).unwrap().load("w").unwrap().to_vec1::<f32>().unwrap(), [3.]);
    let requests = server.requests();
    assert_eq!(requests.len(), 4);
    assert!(
        requests.iter().all(|r| r.token.as_deref() == Some("Bearer hf_secret")),
        "{requests:?}"
    );
    let requests = elsewhere.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!((requests[0].path.as_str(), &requests[0].token), ("/blob?key=1", &None));

    let endless = Server::start(|r| Reply::status(301).header("Location", &r.path));
    let error = fetch(&model(), &options(&endless, &cache)).unwrap_err().to_string();
    assert!(error.contains("more than 10 redirects"), "{error}");
}

#[test]
fn all_shards_of_an_index_are_fetched() {
    let index = r#"{"weight_map":{"a":"model-1.safetensors","b":"model-2.safetensors"}}"#;
    let mut all = vec![
        ("config.json", b"{}".to_vec()),
        ("model.safetensors.index.json", index.into()),
        ("model-1.safetensors", safetensors(&[("a", &[1.])])),
        ("model-2.safetensors", safetensors(&[("b", &[2.])])),
        ("model-3.safetensors", safetensors(&[("c", &[3.])])),
    ];
    let (server, cache) = (Hub::of(all.clone()).start(), TempDir::new().unwrap());
    let mut options = options(&server, &cache);
    let dir = fetch(&model(), &options).unwrap();
    assert_eq!(files(&dir).len(), 4);
    assert_eq!(Weights::open(&dir).unwrap().load("b").unwrap().to_vec1::<f32>().unwrap(), [2.]);
    options.offline = true;
    assert_eq!(fetch(&model(), &options).unwrap(), dir);
    fs::remove_file(dir.join("model-2.safetensors")).unwrap();
    assert!(fetch(&model(), &options).is_err(), "a shard is missing");

    all.retain(|(name, _)| *name != "model-2.safetensors");
    let (server, cache) = (Hub::of(all).start(), TempDir::new().unwrap());
    let error = fetch(&model(), &self::options(&server, &cache)).unwrap_err().to_string();
    assert!(error.contains("model-2.safetensors is not in the repository"), "{error}");
}

#[test]
fn modules_come_with_their_folders_and_pickles_where_there_is_nothing_else() {
    let server = Hub::of(vec![
        ("modules.json", b"[]".to_vec()),
        ("config.json", b"{}".to_vec()),
        ("pytorch_model.bin", b"top".to_vec()),
        ("1_Pooling/config.json", b"{\"p\":1}".to_vec()),
        ("2_Dense/config.json", b"{\"d\":1}".to_vec()),
        ("2_Dense/model.safetensors", safetensors(&[("linear.weight", &[1.])])),
        ("2_Dense/pytorch_model.bin", b"no".to_vec()),
        ("onnx/model.onnx", b"no".to_vec()),
    ])
    .start();
    let cache = TempDir::new().unwrap();
    let dir = fetch(&model(), &options(&server, &cache)).unwrap();
    let expected = [
        "1_Pooling/config.json",
        "2_Dense/config.json",
        "2_Dense/model.safetensors",
        "config.json",
        "modules.json",
        "pytorch_model.bin",
    ];
    assert_eq!(files(&dir), expected);
    assert_eq!(fs::read(dir.join("1_Pooling/config.json")).unwrap(), b"{\"p\":1}");

    let other = Hub::of(vec![("config.json", b"{}".to_vec()), ("tf_model.h5", vec![1])]).start();
    let error =
        fetch(&model(), &options(&other, &TempDir::new().unwrap())).unwrap_err().to_string();
    assert!(error.contains("no weights: expected one of model.safetensors"), "{error}");
    assert!(error.ends_with("; found only tf_model.h5"), "{error}");
}

#[test]
fn revisions_are_branches_tags_and_commits() {
    let mut hub = Hub::small();
    let old = vec![
        ("config.json", b"{}".to_vec()),
        ("model.safetensors", safetensors(&[("w", &[9., 9.])])),
    ];
    hub.commits.insert(OLD, old);
    hub.refs.extend([("v1.0", OLD), ("refs/pr/7", OLD)]);
    let (server, cache) = (hub.clone().start(), TempDir::new().unwrap());
    let options = options(&server, &cache);
    let value = |text: &str| {
        let dir = fetch(&id(text), &options).unwrap();
        let commit = dir.file_name().unwrap().to_str().unwrap().to_string();
        (commit, Weights::open(dir).unwrap().load("w").unwrap().to_vec1::<f32>().unwrap()[0])
    };
    assert_eq!(value("owner/model"), (NEW.to_string(), 1.));
    for text in ["owner/model@v1.0", "owner/model@refs/pr/7", &format!("owner/model@{OLD}")] {
        assert_eq!(value(text), (OLD.to_string(), 9.), "{text}");
    }
    let error = fetch(&id("owner/model@v3"), &options).unwrap_err().to_string();
    assert!(error.starts_with("owner/model@v3: no revision `v3`"), "{error}");
    let refs = cache.path().join("models--owner--model/refs");
    assert_eq!(files(&refs), ["main", "refs/pr/7", "v1.0"]);
    // Blobs are shared: `config.json` is the same file in both commits.
    assert_eq!(files(&cache.path().join("models--owner--model/blobs")).len(), 4);

    // The branch moves on: it is followed, and what is pinned stays.
    hub.refs.insert("main", OLD);
    let moved = hub.start();
    let options = HubOptions { endpoint: moved.url(), ..options.clone() };
    let dir = fetch(&model(), &options).unwrap();
    assert!(dir.ends_with(OLD));
    assert_eq!(fs::read_to_string(refs.join("main")).unwrap(), OLD);
    assert_eq!(moved.requests().len(), 1, "nothing is fetched twice");
}

#[test]
fn a_file_of_another_size_than_declared_is_fetched_anew() {
    let (server, cache) = (Hub::small().start(), TempDir::new().unwrap());
    let options = options(&server, &cache);
    let dir = fetch(&model(), &options).unwrap();
    let blob = fs::canonicalize(dir.join("config.json")).unwrap();
    fs::write(&blob, "").unwrap();
    server.requests();
    fetch(&model(), &options).unwrap();
    assert_eq!(fs::read(dir.join("config.json")).unwrap(), b"{}");
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn a_hub_that_lists_no_sizes_declares_them_with_the_files() {
    let weights = safetensors(&[("w", &[1.])]);
    let (size, body) = (weights.len().to_string(), weights.clone());
    let server = Server::start(move |request| match request.path.rsplit('/').next().unwrap() {
        "config.json" => Reply::ok("{}").header("ETag", "W/\"0123456789abcdef\""),
        "model.safetensors" => {
            let tag = "\"fedcba9876543210\"";
            let reply = Reply { length: Some(None), ..Reply::ok(body.clone()) };
            reply.header("X-Linked-Size", &size).header("X-Linked-Etag", tag)
        }
        _ => {
            let siblings =
                json!([{ "rfilename": "config.json" }, { "rfilename": "model.safetensors" }]);
            Reply::ok(json!({ "sha": NEW, "siblings": siblings }).to_string())
        }
    });
    let cache = TempDir::new().unwrap();
    let dir = fetch(&model(), &options(&server, &cache)).unwrap();
    assert_eq!(fs::read(dir.join("model.safetensors")).unwrap(), weights);
    let blobs = cache.path().join("models--owner--model/blobs");
    assert_eq!(files(&blobs), ["0123456789abcdef", "fedcba9876543210"]);
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let (server, dir) = (Hub::small().start(), TempDir::new().unwrap());
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let options = HubOptions { cache: file, ..options(&server, &dir) };
    let error = fetch(&model(), &options).unwrap_err().to_string();
    assert!(error.contains("file/models--owner--model/blobs"), "{error}");
}

#[test]
fn models_are_loaded_by_their_id() {
    let dir = TempDir::new().unwrap();
    let sizes = crate::Sizes { vocab_size: 9, sentence_len: 4, memory_size: 6 };
    let config = crate::ModelConfig::preset("lstm", "lstm", sizes).unwrap();
    let store = crate::ParamStore::new(3);
    config.build(store.builder(candle_core::DType::F32, &candle_core::Device::Cpu)).unwrap();
    super::super::save_pretrained::<crate::AnyStoryModel>(dir.path(), &config, &store, &[])
        .unwrap();
    let read = |name: &'static str| (name, fs::read(dir.path().join(name)).unwrap());
    let server = Hub::of(vec![read("config.json"), read("model.safetensors")]).start();
    let cache = TempDir::new().unwrap();
    let options = || Ok(options(&server, &cache));
    let on_hub = |path: &str| super::super::on_hub(Path::new(path), options);
    let folder = on_hub("owner/model").unwrap().unwrap();
    let (dtype, device) = (candle_core::DType::F32, candle_core::Device::Cpu);
    let loaded: crate::Pretrained = crate::from_pretrained(folder, dtype, &device).unwrap();
    assert_eq!((loaded.config, loaded.store.num_parameters()), (config, store.num_parameters()));
    let error = on_hub("owner/other").unwrap().unwrap_err().to_string();
    assert!(error.starts_with("owner/other: no such folder, and of the hub's"), "{error}");
    // Folders, and what cannot be an id, are none of the hub's business.
    for path in ["src", "./owner/model", "/no/where", dir.path().to_str().unwrap()] {
        assert!(on_hub(path).is_none(), "{path}");
    }
}
