//! A model hub over HTTP on 127.0.0.1, as far as its client asks: `GET /<owner>/<name>/resolve/<revision>/<file>`.
//!
//! Like the public hub it answers weights with a redirect to another address, and names commit and etag in headers.

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
};
use tokio::{net::TcpListener, runtime::Runtime};

/// One request, as the server saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubRequest {
    /// Path, decoded.
    pub path: String,
    /// Token that came with it.
    pub token: Option<String>,
}

/// A running hub; it stops when dropped.
pub struct HubServer {
    shared: Arc<Shared>,
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl std::fmt::Debug for HubServer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "HubServer({})", self.address)
    }
}

#[derive(Default)]
struct Shared {
    /// `owner/name/resolve/revision/file` to content.
    files: Mutex<BTreeMap<String, Bytes>>,
    requests: Mutex<Vec<HubRequest>>,
}

impl Shared {
    /// The commit and the content of `owner/name/resolve/<revision or commit>/file`.
    fn find(&self, name: &str) -> Option<(String, Bytes)> {
        let (model, rest) = name.split_once("/resolve/")?;
        let (revision, file) = rest.split_once('/')?;
        let files = self.files.lock().expect("no handler panics with the lock");
        files.iter().find_map(|(path, bytes)| {
            let (at_model, rest) = path.split_once("/resolve/")?;
            let (at_revision, at_file) = rest.split_once('/')?;
            let commit = commit_of(at_revision);
            let found = (model, file) == (at_model, at_file) && (revision == at_revision || revision == commit);
            found.then(|| (commit, bytes.clone()))
        })
    }
}

/// The commit that a branch or tag points at.
pub fn commit_of(revision: &str) -> String {
    schemas::sha256_hex(revision.as_bytes())[..40].to_owned()
}

impl HubServer {
    /// Starts a hub without models on a free port.
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime for the hub");
        let shared = Arc::new(Shared::default());
        // Bound without the runtime, so that an asynchronous test may start a server too.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port on 127.0.0.1");
        let address = listener.local_addr().expect("the listener's address");
        listener.set_nonblocking(true).expect("a socket that does not block");
        let app = Router::new().fallback(handle).with_state(Arc::clone(&shared));
        runtime.spawn(async move { axum::serve(TcpListener::from_std(listener)?, app).await });
        Self { shared, address, runtime: Some(runtime) }
    }

    /// The endpoint, `http://127.0.0.1:<port>`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Publishes one file of a model.
    pub fn publish(&self, model: &str, revision: &str, file: &str, bytes: impl Into<Bytes>) {
        let path = format!("{model}/resolve/{revision}/{file}");
        self.shared.files.lock().expect("no handler panics with the lock").insert(path, bytes.into());
    }

    /// Publishes every file of a folder.
    pub fn publish_folder(&self, model: &str, revision: &str, folder: &Path) {
        for (file, bytes) in crate::digest::read_tree(folder) {
            self.publish(model, revision, &file, bytes);
        }
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<HubRequest> {
        self.shared.requests.lock().expect("no handler panics with the lock").clone()
    }
}

impl Drop for HubServer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn handle(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let path = percent_decode_str(request.uri().path().trim_start_matches('/')).decode_utf8_lossy().into_owned();
    let header = |name: header::HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
    let token = header(header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer ")).map(str::to_owned);
    shared.requests.lock().expect("no handler panics with the lock").push(HubRequest { path: path.clone(), token });

    let at_store = path.strip_prefix("large-files/");
    let name = at_store.unwrap_or(&path);
    let Some((commit, bytes)) = shared.find(name) else {
        return (StatusCode::NOT_FOUND, [("x-error-code", "EntryNotFound")], "Entry not found").into_response();
    };
    let etag = format!("\"{}\"", schemas::sha256_hex(&bytes));
    if at_store.is_none() && name.ends_with(".safetensors") {
        let host = header(header::HOST).unwrap_or_default();
        return Response::builder()
            .status(StatusCode::FOUND)
            .header(header::LOCATION, format!("http://{host}/large-files/{name}"))
            .header("x-repo-commit", commit)
            .header("x-linked-etag", &etag)
            .header("x-linked-size", bytes.len())
            .body(Body::empty())
            .expect("headers made of plain text");
    }
    let range =
        header(header::RANGE).and_then(|range| range.strip_prefix("bytes=")).and_then(|range| range.split_once('-'));
    let answer = Response::builder().header("x-repo-commit", commit).header(header::ETAG, etag);
    let answer = match range {
        None => answer.body(Body::from(bytes)),
        Some((start, end)) => {
            let start = start.parse().unwrap_or(0).min(bytes.len());
            let end = end.parse::<usize>().map_or(bytes.len(), |last| (last + 1).min(bytes.len())).max(start);
            answer
                .status(StatusCode::PARTIAL_CONTENT)
                .header(header::CONTENT_RANGE, format!("bytes {start}-{}/{}", end.saturating_sub(1), bytes.len()))
                .body(Body::from(bytes.slice(start..end)))
        }
    };
    answer.expect("headers made of plain text")
}
