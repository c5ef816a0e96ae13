//! An S3 store over real HTTP on 127.0.0.1, in memory, that fails on request.
//!
//! It speaks what `object_store`'s S3 client speaks, path-style: GET with `Range` and `If-Match`, HEAD, PUT with
//! `If-None-Match: *`, ListObjectsV2 with pages, multipart uploads, DELETE and bulk delete. Signatures are not checked.
//! Faults are scripted by [`FaultRule`]s, so that a test says which request suffers what and how often.

mod answers;
mod faults;

pub use faults::{Fault, FaultRule, RequestKind};

use crate::random::Random;
use answers::Call;
use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{ConnectInfo, Request, State, connect_info::Connected},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    serve::IncomingStream,
};
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    future::pending,
    net::SocketAddr,
    os::fd::AsFd,
    sync::{Arc, Mutex, MutexGuard},
};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};

/// A running server; it stops when dropped.
pub struct S3Server {
    shared: Arc<Shared>,
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl std::fmt::Debug for S3Server {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "S3Server({})", self.address)
    }
}

/// What the handlers share.
#[derive(Default)]
struct Shared {
    state: Mutex<ServerState>,
}

#[derive(Default)]
struct ServerState {
    /// `bucket/key` to object.
    objects: BTreeMap<String, Bytes>,
    /// Parts of open multipart uploads, by upload id and part number.
    uploads: BTreeMap<String, BTreeMap<u32, Bytes>>,
    next_upload: u64,
    /// Keys of a page of a listing; 0 means S3's own 1,000.
    page_size: usize,
    rules: Vec<FaultRule>,
    /// The query that every GET must have; then nothing else is answered.
    signature: Option<String>,
    requests: BTreeMap<RequestKind, u64>,
    faults_served: u64,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, ServerState> {
        self.state.lock().expect("no handler panics while it holds the lock")
    }
}

impl S3Server {
    /// Starts a server without objects on a free port.
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime for the S3 server");
        let shared = Arc::new(Shared::default());
        // Bound without the runtime, so that an asynchronous test may start a server too.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port on 127.0.0.1");
        let address = listener.local_addr().expect("the listener's address");
        listener.set_nonblocking(true).expect("a socket that does not block");
        let app = Router::new().fallback(handle).with_state(Arc::clone(&shared));
        let service = app.into_make_service_with_connect_info::<Connection>();
        runtime.spawn(async move { axum::serve(TcpListener::from_std(listener)?, service).await });
        Self { shared, address, runtime: Some(runtime) }
    }

    /// The endpoint, `http://127.0.0.1:<port>`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The variables that make a process use this server for every `s3://` address.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT", self.endpoint()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "secret-that-must-not-be-printed".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
        ]
    }

    /// Stores an object; `path` is `bucket/key`.
    pub fn put(&self, path: &str, bytes: impl Into<Bytes>) {
        self.shared.lock().objects.insert(path.to_owned(), bytes.into());
    }

    /// Stores every file below `folder` as `prefix/<relative path>`; `prefix` starts with the bucket.
    pub fn put_folder(&self, prefix: &str, folder: &std::path::Path) {
        for (path, bytes) in crate::digest::read_tree(folder) {
            self.put(&format!("{prefix}/{path}"), bytes);
        }
    }

    /// Removes an object, as an operator or a lifecycle rule would.
    pub fn remove(&self, path: &str) {
        self.shared.lock().objects.remove(path);
    }

    /// Every object whose `bucket/key` starts with `prefix/`, by the rest of its path.
    pub fn objects(&self, prefix: &str) -> BTreeMap<String, Vec<u8>> {
        let prefix = format!("{prefix}/");
        let state = self.shared.lock();
        let below = |path: &String| path.strip_prefix(&prefix).map(str::to_owned);
        state.objects.iter().filter_map(|(path, bytes)| Some((below(path)?, bytes.to_vec()))).collect()
    }

    /// Adds a rule; the first rule that applies to a request decides.
    pub fn inject(&self, rule: FaultRule) {
        self.shared.lock().rules.push(rule);
    }

    /// Removes all rules: the store is well again.
    pub fn heal(&self) {
        self.shared.lock().rules.clear();
    }

    /// Keys of a page of a listing from now on.
    pub fn set_page_size(&self, keys: usize) {
        self.shared.lock().page_size = keys;
    }

    /// From now on, answers only GETs of objects, and those only with this query, as of URLs that somebody signed.
    pub fn answer_only_signed(&self, query: &str) {
        self.shared.lock().signature = Some(query.to_owned());
    }

    /// Requests of one kind so far, those that failed included.
    pub fn requests(&self, kind: RequestKind) -> u64 {
        self.shared.lock().requests.get(&kind).copied().unwrap_or(0)
    }

    /// Faults that were served so far.
    pub fn faults_served(&self) -> u64 {
        self.shared.lock().faults_served
    }

    /// Multipart uploads that were neither completed nor aborted.
    pub fn open_uploads(&self) -> usize {
        self.shared.lock().uploads.len()
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Handlers that stall on purpose never end by themselves.
            runtime.shutdown_background();
        }
    }
}

/// A second handle on the socket of a connection, to break it from within a handler.
#[derive(Clone, Debug)]
struct Connection(Arc<Option<std::net::TcpStream>>);

impl Connected<IncomingStream<'_, TcpListener>> for Connection {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        let socket = stream.io().as_fd().try_clone_to_owned().ok();
        Self(Arc::new(socket.map(std::net::TcpStream::from)))
    }
}

impl Connection {
    /// From here on, closing the connection sends a reset and discards what was not yet sent.
    fn reset_on_close(&self) {
        let Some(socket) = self.0.as_ref() else { return };
        let twin = socket.try_clone().and_then(TcpStream::from_std);
        if let Ok(twin) = twin {
            // A connection that is already gone needs no breaking.
            twin.set_zero_linger().ok();
        }
    }

    /// Ends the connection at once, in both directions.
    fn hang_up(&self) {
        if let Some(socket) = self.0.as_ref() {
            socket.shutdown(std::net::Shutdown::Both).ok();
        }
    }
}

async fn handle(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, usize::MAX).await else {
        // The client went away in the middle of its body: nothing was stored.
        return StatusCode::BAD_REQUEST.into_response();
    };
    let call = Call::new(&parts, body);
    let fault = {
        let mut state = shared.lock();
        *state.requests.entry(call.kind).or_default() += 1;
        if let Some(signature) = &state.signature
            && (call.kind != RequestKind::Get || parts.uri.query() != Some(signature))
        {
            return answers::error(StatusCode::FORBIDDEN, "SignatureDoesNotMatch");
        }
        let struck = state.rules.iter_mut().find_map(|rule| {
            let fault = rule.strike(call.kind, &call.path)?;
            Some((fault, rule.change().cloned()))
        });
        match struck {
            None => None,
            Some((fault, change)) => {
                state.faults_served += 1;
                match change {
                    Some((path, Some(bytes))) => drop(state.objects.insert(path, bytes)),
                    Some((path, None)) => drop(state.objects.remove(&path)),
                    None => {}
                }
                Some(fault)
            }
        }
    };
    // The lock is held while the answer is made and never across an await.
    let answer = || call.answer(&mut shared.lock());
    let Some(fault) = fault else { return answer() };
    match fault {
        Fault::SlowDown => answers::error(StatusCode::SERVICE_UNAVAILABLE, "SlowDown"),
        Fault::InternalError => answers::error(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
        Fault::AccessDenied => answers::error(StatusCode::FORBIDDEN, "AccessDenied"),
        Fault::Refused(status, code) => answers::error(StatusCode::from_u16(status).expect("a status of HTTP"), code),
        Fault::InRegion(region) => {
            let answer = answers::error(StatusCode::MOVED_PERMANENTLY, "PermanentRedirect");
            ([("x-amz-bucket-region", region)], answer).into_response()
        }
        Fault::NoLength => without_length(answer()),
        Fault::Conflict => answers::error(StatusCode::CONFLICT, "ConditionalRequestConflict"),
        Fault::HangUp => {
            connection.hang_up();
            pending().await
        }
        Fault::Stall => pending().await,
        Fault::ResetBody => broken_body(answer(), BrokenBody::Reset(connection)).await,
        Fault::TruncateBody => broken_body(answer(), BrokenBody::Truncate).await,
        Fault::StallBody => broken_body(answer(), BrokenBody::Stall).await,
        Fault::CommitThenError => {
            drop(answer());
            answers::error(StatusCode::INTERNAL_SERVER_ERROR, "InternalError")
        }
        Fault::CommitThenHangUp => {
            drop(answer());
            connection.hang_up();
            pending().await
        }
        Fault::CommitThenStall => {
            drop(answer());
            pending().await
        }
    }
}

/// The answer in pieces whose sum nobody tells beforehand.
fn without_length(answer: Response) -> Response {
    let (mut parts, body) = answer.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from_stream(body.into_data_stream()))
}

enum BrokenBody {
    Reset(Connection),
    Truncate,
    Stall,
}

/// The answer with its headers whole and half of its body; what follows the half is the fault.
async fn broken_body(answer: Response, how: BrokenBody) -> Response {
    let (parts, body) = answer.into_parts();
    let bytes = to_bytes(body, usize::MAX).await.expect("an answer from memory");
    let half = bytes.slice(..bytes.len() / 2);
    let rest = futures::stream::once(async move {
        // The first half must have left before the connection breaks, else the fault is another one.
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        match how {
            BrokenBody::Reset(connection) => connection.reset_on_close(),
            BrokenBody::Truncate => {}
            BrokenBody::Stall => pending().await,
        }
        Err::<Bytes, _>(std::io::Error::other("scripted fault"))
    });
    let first = futures::stream::once(async move { Ok(half) });
    let body = Body::from_stream(futures::StreamExt::chain(first, rest));
    Response::from_parts(parts, body)
}

#[cfg(test)]
mod tests;
