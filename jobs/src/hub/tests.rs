//! The hub's client against a small HTTP server of our own, which speaks as the hub does.

use super::*;
use pipeline::testing::{returns, wait_until};
use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const OTHER_COMMIT: &str = "fedcba9876543210fedcba9876543210fedcba98";

/// What the server holds and what it was asked.
#[derive(Default)]
struct State {
    /// Commits by branch.
    branches: HashMap<String, String>,
    /// Contents by `commit/file`.
    files: HashMap<String, Vec<u8>>,
    /// Answer this status to everything.
    failing: Option<u16>,
    /// Say when somebody reads the whole of the weights, and wait before the answer.
    held: Option<(Sender<()>, Receiver<()>)>,
    /// `METHOD path` and the authorization of every request.
    requests: Vec<(String, Option<String>)>,
}

/// A hub on this machine. Its thread ends with the process.
struct TestHub {
    endpoint: String,
    state: Arc<Mutex<State>>,
    cache: tempfile::TempDir,
}

impl TestHub {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let mut state = State::default();
        state.branches.insert("main".to_owned(), COMMIT.to_owned());
        state.branches.insert("other".to_owned(), OTHER_COMMIT.to_owned());
        for (commit, config) in [(COMMIT, "{}"), (OTHER_COMMIT, "{\"other\": 1}")] {
            state.files.insert(format!("{commit}/config.json"), config.as_bytes().to_vec());
            state.files.insert(format!("{commit}/model.safetensors"), vec![7; 100_000]);
        }
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || serve(&stream, &state));
            }
        });
        Self { endpoint, state, cache: tempfile::tempdir().expect("a temporary folder") }
    }

    fn settings(&self) -> HubSettings {
        HubSettings {
            endpoint: Some(self.endpoint.clone()),
            token: None,
            cache: Some(self.cache.path().join("hub")),
            offline: false,
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().expect("no test panics while it holds the state"));
    }

    fn requests(&self) -> Vec<(String, Option<String>)> {
        self.state.lock().expect("no test panics while it holds the state").requests.clone()
    }
}

/// Answers requests on one connection until it closes.
fn serve(stream: &TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if line.trim().is_empty() {
                break;
            }
            lines.push(line.trim().to_owned());
        }
        let header = |name: &str| {
            lines.iter().skip(1).find_map(|line| {
                line.split_once(':')
                    .filter(|(key, _)| key.eq_ignore_ascii_case(name))
                    .map(|(_, value)| value.trim().to_owned())
            })
        };
        let path = lines[0].split(' ').nth(1).unwrap_or_default().to_owned();
        if path.ends_with(WEIGHTS) && header("range").as_deref() == Some("bytes=0-") {
            let held = state.lock().expect("held briefly").held.take();
            if let Some((reached, let_go)) = held {
                reached.send(()).expect("the test waits for it");
                let_go.recv().expect("the test lets it go");
            }
        }
        let answer = answer(&path, header("authorization"), header("range"), &mut state.lock().expect("held briefly"));
        if (&mut &*stream).write_all(&answer).is_err() {
            return;
        }
    }
}

fn answer(path: &str, authorization: Option<String>, range: Option<String>, state: &mut State) -> Vec<u8> {
    state.requests.push((path.to_owned(), authorization));
    if let Some(status) = state.failing {
        return format!("HTTP/1.1 {status} Failing\r\ncontent-length: 0\r\n\r\n").into_bytes();
    }
    let found = path.strip_prefix("/owner/name/resolve/").and_then(|rest| rest.rsplit_once('/')).and_then(
        |(revision, file)| {
            let revision = revision.replace("%2F", "/");
            let commit = state.branches.get(&revision).cloned().unwrap_or(revision);
            state.files.get(&format!("{commit}/{file}")).map(|content| (commit, content))
        },
    );
    let Some((commit, content)) = found else {
        return b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec();
    };
    let bounds = range.unwrap_or_default().replace("bytes=", "");
    let (first, last) = bounds.split_once('-').unwrap_or(("0", ""));
    let first: usize = first.parse().unwrap_or(0);
    let last = last.parse().unwrap_or(content.len() - 1);
    let body = &content[first..=last];
    let mut answer = format!(
        "HTTP/1.1 206 Partial Content\r\nx-repo-commit: {commit}\r\netag: \"{}\"\r\ncontent-range: bytes {first}-{last}/{}\r\n\
         content-length: {}\r\n\r\n",
        schemas::sha256_hex(content),
        content.len(),
        body.len()
    )
    .into_bytes();
    answer.extend_from_slice(body);
    answer
}

#[test]
fn both_files_come_from_the_commit_that_the_branch_points_at() {
    let hub = TestHub::start();
    let folder = fetch(&hub.settings(), "owner/name", None).expect("it is there");
    assert!(folder.ends_with(COMMIT), "{}", folder.display());
    assert_eq!(std::fs::read_to_string(folder.join("config.json")).expect("a file"), "{}");
    assert_eq!(std::fs::read(folder.join("model.safetensors")).expect("a file"), vec![7; 100_000]);
    let weights = hub.requests().iter().filter(|(path, _)| path.ends_with("model.safetensors")).count();
    assert!(hub.requests().iter().all(|(path, _)| !path.ends_with("safetensors") || path.contains(COMMIT)));
    assert!(weights > 0);
}

#[test]
fn a_revision_is_honoured() {
    let hub = TestHub::start();
    let folder = fetch(&hub.settings(), "owner/name", Some("other")).expect("it is there");
    assert_eq!(std::fs::read_to_string(folder.join("config.json")).expect("a file"), "{\"other\": 1}");
}

#[test]
fn what_is_in_the_cache_is_not_fetched_again_until_the_branch_moves() {
    let hub = TestHub::start();
    fetch(&hub.settings(), "owner/name", None).expect("it is there");
    let before = hub.requests().len();
    fetch(&hub.settings(), "owner/name", None).expect("it is there");
    assert_eq!(hub.requests().len(), before + 1, "one request, for the commit");
    hub.change(|state| drop(state.branches.insert("main".to_owned(), OTHER_COMMIT.to_owned())));
    let folder = fetch(&hub.settings(), "owner/name", None).expect("it is there");
    assert!(folder.ends_with(OTHER_COMMIT), "{}", folder.display());
}

#[test]
fn a_token_goes_with_every_request_and_is_never_shown() {
    let hub = TestHub::start();
    let settings = HubSettings { token: Some("hf_secret".to_owned()), ..hub.settings() };
    fetch(&settings, "owner/name", None).expect("it is there");
    assert!(hub.requests().iter().all(|(_, authorization)| authorization.as_deref() == Some("Bearer hf_secret")));
    assert!(!format!("{settings:?}").contains("hf_secret"));
}

#[test]
fn a_repository_or_revision_that_is_not_there_is_named() {
    let hub = TestHub::start();
    for (repository, revision) in [("owner/other", None), ("owner/name", Some("v9"))] {
        let error = fetch(&hub.settings(), repository, revision).expect_err("it is not there");
        let text = error.to_string();
        assert!(text.contains(repository) && text.contains(revision.unwrap_or("main")), "{text}");
        assert!(text.contains("HF_TOKEN") && text.contains("404") && !error.is_temporary(), "{text}");
    }
}

#[test]
fn a_repository_without_weights_is_refused_by_the_file() {
    let hub = TestHub::start();
    hub.change(|state| drop(state.files.remove(&format!("{COMMIT}/model.safetensors"))));
    let error = fetch(&hub.settings(), "owner/name", None).expect_err("no weights");
    assert!(matches!(&error, HubError::NotFound { file, .. } if file == "model.safetensors"), "{error}");
}

#[test]
fn a_repository_with_a_pickle_only_is_refused_with_the_command_that_converts_it() {
    let hub = TestHub::start();
    hub.change(|state| {
        let weights = state.files.remove(&format!("{COMMIT}/model.safetensors")).expect("it is there");
        state.files.insert(format!("{COMMIT}/pytorch_model.bin"), weights);
    });
    let error = fetch(&hub.settings(), "owner/name", None).expect_err("a pickle only");
    let text = error.to_string();
    assert!(text.contains("weights_only=True") && text.contains("hf download owner/name"), "{text}");
    assert!(!error.is_temporary());
    assert!(hub.requests().iter().filter(|(path, _)| path.ends_with(".bin")).count() == 1, "asked for, not fetched");
}

/// A repository whose weights are in two shards.
fn shard(state: &mut State, shards: [&str; 2]) {
    state.files.remove(&format!("{COMMIT}/model.safetensors"));
    let index = format!(r#"{{"weight_map": {{"first": "{}", "second": "{}"}}}}"#, shards[0], shards[1]);
    state.files.insert(format!("{COMMIT}/model.safetensors.index.json"), index.into_bytes());
    for (number, shard) in shards.into_iter().enumerate() {
        state.files.insert(format!("{COMMIT}/{shard}"), vec![number as u8; 1000]);
    }
}

const SHARDS: [&str; 2] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];

#[test]
fn shards_are_fetched_by_their_index_and_kept() {
    let hub = TestHub::start();
    hub.change(|state| shard(state, SHARDS));
    let folder = fetch(&hub.settings(), "owner/name", None).expect("it is there");
    for (number, shard) in SHARDS.into_iter().enumerate() {
        assert_eq!(std::fs::read(folder.join(shard)).expect("a file"), vec![number as u8; 1000]);
    }
    let before = hub.requests().len();
    fetch(&hub.settings(), "owner/name", None).expect("it is there");
    assert_eq!(hub.requests().len(), before + 2, "one for the commit, one for the file that is not there");
    let offline = HubSettings { offline: true, ..hub.settings() };
    assert_eq!(fetch(&offline, "owner/name", None).expect("cached"), folder);
    // A cache that lost a shard is no cache of the model, and gets it again.
    std::fs::remove_file(folder.join(SHARDS[1])).expect("a file");
    let error = fetch(&offline, "owner/name", None).expect_err("not whole");
    assert!(matches!(error, HubError::Offline { .. }), "{error}");
    fetch(&hub.settings(), "owner/name", None).expect("it is there");
    assert!(folder.join(SHARDS[1]).exists());
}

#[test]
fn a_shard_that_the_hub_lacks_is_named() {
    let hub = TestHub::start();
    hub.change(|state| {
        shard(state, SHARDS);
        state.files.remove(&format!("{COMMIT}/{}", SHARDS[1]));
    });
    let error = fetch(&hub.settings(), "owner/name", None).expect_err("not whole");
    assert!(matches!(&error, HubError::NotFound { file, .. } if file == SHARDS[1]), "{error}");
    assert!(!error.is_temporary());
}

#[test]
fn an_index_that_leads_out_of_its_folder_is_refused_and_nothing_is_fetched_by_it() {
    let hub = TestHub::start();
    hub.change(|state| shard(state, ["../../secret.safetensors", SHARDS[1]]));
    let error = fetch(&hub.settings(), "owner/name", None).expect_err("a folder in a name");
    let text = error.to_string();
    assert!(text.contains("owner/name") && text.contains("../../secret.safetensors"), "{text}");
    assert!(matches!(error, HubError::Index { .. }) && !error.is_temporary(), "{text}");
    assert!(!hub.requests().iter().any(|(path, _)| path.contains("secret") || path.contains(SHARDS[1])));
}

#[test]
fn a_hub_that_fails_is_a_temporary_error_unless_the_cache_has_the_files() {
    let hub = TestHub::start();
    hub.change(|state| state.failing = Some(503));
    let error = fetch(&hub.settings(), "owner/name", None).expect_err("the hub is down");
    assert!(error.is_temporary() && error.to_string().contains("503"), "{error}");
    hub.change(|state| state.failing = None);
    let folder = fetch(&hub.settings(), "owner/name", None).expect("the hub is up");
    hub.change(|state| state.failing = Some(503));
    assert_eq!(fetch(&hub.settings(), "owner/name", None).expect("the cache has it"), folder);
}

#[test]
fn offline_uses_the_cache_and_asks_nobody() {
    let hub = TestHub::start();
    let offline = HubSettings { offline: true, ..hub.settings() };
    let error = fetch(&offline, "owner/name", None).expect_err("nothing cached");
    assert!(error.to_string().contains("HF_HUB_OFFLINE"), "{error}");
    let folder = fetch(&hub.settings(), "owner/name", None).expect("it is there");
    let before = hub.requests().len();
    assert_eq!(fetch(&offline, "owner/name", None).expect("cached"), folder);
    assert_eq!(hub.requests().len(), before);
}

#[test]
fn who_comes_while_another_process_fetches_waits_for_it_and_fetches_nothing_again() {
    let alone = TestHub::start();
    fetch(&alone.settings(), "owner/name", None).expect("it is there");
    let hub = TestHub::start();
    let ((reached, at_the_weights), (let_go, held)) = (channel(), channel());
    hub.change(|state| state.held = Some((reached, held)));
    let asked = |hub: &TestHub| hub.requests().iter().filter(|(path, _)| path.ends_with(WEIGHTS)).count();
    std::thread::scope(|threads| {
        // Each opens the lock for itself, as processes do.
        let fetch = || fetch(&hub.settings(), "owner/name", None).expect("it is there");
        let first = threads.spawn(fetch);
        returns("the first to read the weights", || at_the_weights.recv().expect("it reads them"));
        let before = asked(&hub);
        let second = threads.spawn(fetch);
        wait_until("the second to ask for the weights", || asked(&hub) > before);
        let_go.send(()).expect("it waits");
        let [first, second] = [first, second].map(|one| returns("both to end", || one.join().expect("no panic")));
        assert_eq!(first, second);
        assert_eq!(std::fs::read(second.join(WEIGHTS)).expect("a file"), vec![7; 100_000]);
    });
    // The second has asked for the commit, and how large the weights are.
    assert_eq!(hub.requests().len(), alone.requests().len() + 2);
}
