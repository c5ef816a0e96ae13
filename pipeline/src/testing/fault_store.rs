//! A store that fails as it is told to, and counts what it is asked.

use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    StreamExt,
    future::pending,
    stream::{self, BoxStream},
};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart, path::Path,
};
use std::{
    collections::BTreeMap,
    fmt, io,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, SystemTime},
};
use tokio::time::Instant;

/// Kinds of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Reading an object or a range of it.
    Get,
    /// Asking for an object's size and version.
    Head,
    /// Writing an object, or beginning to write one in parts.
    Put,
    /// Sending one of the parts of an object.
    Part,
    /// Making an object of the parts that were sent.
    Complete,
    /// Giving up an object of which parts were sent.
    Abort,
    /// Listing a folder.
    List,
}

/// Ways to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// As a store that has answered 503 until the client gave up: another attempt may succeed.
    Unavailable,
    /// As a store that refuses for good: no attempt is made after it.
    Denied,
    /// No answer, ever.
    Stall,
    /// A body of this many bytes that ends as if it were whole.
    TruncatedBody(usize),
    /// A body that breaks after this many bytes.
    BrokenBody(usize),
    /// The write happens; its answer is lost.
    CommitThenError,
    /// "Already there", though nothing is: as S3 answers 409 to writers that collide.
    FalseConflict,
    /// A create-only put that overwrites: what some stores make of a condition they do not know.
    IgnoredCondition,
}

/// When to fail, and how.
///
/// A rule that counts ([`Self::skip`], [`Self::times`]) counts requests in the order in which they come, whoever makes them. Where two
/// readers share a store, or one has several requests under way, which of them a count meets is a matter of timing. A test
/// whose end depends on it names paths instead ([`Self::on`], [`Self::except`]), or gives each reader a store of its own.
#[derive(Clone, Debug)]
pub struct FaultRule {
    operation: Operation,
    fault: Fault,
    path_contains: String,
    exceptions: Vec<String>,
    skip: usize,
    times: usize,
}

impl FaultRule {
    /// Fails the next request of this kind, once.
    pub fn new(operation: Operation, fault: Fault) -> Self {
        Self { operation, fault, path_contains: String::new(), exceptions: Vec::new(), skip: 0, times: 1 }
    }

    /// Only requests whose path contains `part`.
    pub fn on(mut self, part: &str) -> Self {
        part.clone_into(&mut self.path_contains);
        self
    }

    /// Never requests whose path contains `part`, whoever makes them and however often.
    pub fn except(mut self, part: &str) -> Self {
        self.exceptions.push(part.to_owned());
        self
    }

    /// Lets this many matching requests pass first.
    pub fn skip(mut self, requests: usize) -> Self {
        self.skip = requests;
        self
    }

    /// Fails this many matching requests.
    pub fn times(mut self, requests: usize) -> Self {
        self.times = requests;
        self
    }

    /// Fails all matching requests from then on.
    pub fn forever(self) -> Self {
        self.times(usize::MAX)
    }

    fn is_about(&self, operation: Operation, path: &str) -> bool {
        self.operation == operation
            && path.contains(&self.path_contains)
            && !self.exceptions.iter().any(|part| path.contains(part))
    }
}

/// A store around another.
#[derive(Debug)]
pub struct FaultStore {
    inner: Arc<dyn ObjectStore>,
    orders: Arc<Orders>,
    dates: Option<Dates>,
}

/// When objects were written, by tokio's clock.
#[derive(Debug)]
struct Dates {
    start: SystemTime,
    started: Instant,
    written: Mutex<BTreeMap<Path, Duration>>,
}

/// What to fail, and what was asked so far; an upload in parts has its own hold on it.
#[derive(Debug, Default)]
struct Orders {
    rules: Mutex<Vec<FaultRule>>,
    requests: Mutex<BTreeMap<Operation, usize>>,
    faults_met: AtomicUsize,
}

/// An upload in parts that fails as it is told to.
#[derive(Debug)]
struct FaultUpload {
    inner: Box<dyn MultipartUpload>,
    orders: Arc<Orders>,
    path: String,
}

impl FaultStore {
    /// Passes everything through to `inner` until it is told otherwise.
    pub fn new(inner: Arc<dyn ObjectStore>) -> Arc<Self> {
        Arc::new(Self { inner, orders: Arc::default(), dates: None })
    }

    /// The same, but objects are dated by tokio's clock, which begins at `start`: for tests whose time passes by itself.
    pub fn dated(inner: Arc<dyn ObjectStore>, start: SystemTime) -> Arc<Self> {
        let dates = Dates { start, started: Instant::now(), written: Mutex::default() };
        Arc::new(Self { inner, orders: Arc::default(), dates: Some(dates) })
    }

    /// Adds a rule. Of several that match a request, the first one applies.
    pub fn inject(&self, rule: FaultRule) {
        lock(&self.orders.rules).push(rule);
    }

    /// Drops all rules.
    pub fn heal(&self) {
        lock(&self.orders.rules).clear();
    }

    /// Requests of this kind so far, failed ones included.
    pub fn requests(&self, operation: Operation) -> usize {
        lock(&self.orders.requests).get(&operation).copied().unwrap_or(0)
    }

    /// Requests that have met a fault so far: what a test waits for that wants a reader to be in the middle of one.
    pub fn faults_met(&self) -> usize {
        self.orders.faults_met.load(SeqCst)
    }
}

impl Orders {
    /// Counts a request and finds out whether it shall fail.
    fn next_fault(&self, operation: Operation, path: &str) -> Option<Fault> {
        *lock(&self.requests).entry(operation).or_default() += 1;
        let mut rules = lock(&self.rules);
        for rule in rules.iter_mut() {
            if rule.times == 0 || !rule.is_about(operation, path) {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            if rule.times < usize::MAX {
                rule.times -= 1;
            }
            self.faults_met.fetch_add(1, SeqCst);
            return Some(rule.fault);
        }
        None
    }

    /// Fails as told. Faults that are about what comes back are left to the caller.
    async fn fail(fault: Option<Fault>, path: &str) -> Result<Option<Fault>> {
        match fault {
            Some(Fault::Unavailable) => Err(unavailable("503 Slow Down")),
            Some(Fault::Denied) => {
                Err(Error::PermissionDenied { path: path.to_owned(), source: "403 by order".into() })
            }
            Some(Fault::FalseConflict) => {
                Err(Error::AlreadyExists { path: path.to_owned(), source: "409 by order".into() })
            }
            Some(Fault::Stall) => pending().await,
            other => Ok(other),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As a connection that was reset: what passes by itself.
fn unavailable(problem: &'static str) -> Error {
    let reset = io::Error::new(io::ErrorKind::ConnectionReset, problem);
    Error::Generic { store: "FaultStore", source: reset.into() }
}

impl fmt::Display for FaultStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "FaultStore({})", self.inner)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for FaultStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let fault = self.orders.next_fault(Operation::Put, location.as_ref());
        match Orders::fail(fault, location.as_ref()).await? {
            Some(Fault::CommitThenError) => {
                self.inner.put_opts(location, payload, options).await?;
                Err(unavailable("the answer was lost"))
            }
            Some(Fault::IgnoredCondition) => {
                self.inner.put_opts(location, payload, PutOptions { mode: PutMode::Overwrite, ..options }).await
            }
            _ => {
                let result = self.inner.put_opts(location, payload, options).await?;
                if let Some(dates) = &self.dates {
                    lock(&dates.written).insert(location.clone(), dates.started.elapsed());
                }
                Ok(result)
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let fault = self.orders.next_fault(Operation::Put, location.as_ref());
        Orders::fail(fault, location.as_ref()).await?;
        let inner = self.inner.put_multipart_opts(location, options).await?;
        Ok(Box::new(FaultUpload { inner, orders: Arc::clone(&self.orders), path: location.to_string() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let operation = if options.head { Operation::Head } else { Operation::Get };
        let fault = Orders::fail(self.orders.next_fault(operation, location.as_ref()), location.as_ref()).await?;
        let mut result = self.inner.get_opts(location, options).await?;
        if let Some(dates) = &self.dates
            && let Some(written) = lock(&dates.written).get(location)
        {
            result.meta.last_modified = (dates.start + *written).into();
        }
        let (kept, breaks) = match fault {
            Some(Fault::TruncatedBody(kept)) => (kept, false),
            Some(Fault::BrokenBody(kept)) => (kept, true),
            _ => return Ok(result),
        };
        let (meta, range, attributes, extensions) =
            (result.meta.clone(), result.range.clone(), result.attributes.clone(), result.extensions.clone());
        let whole = result.bytes().await?;
        let front: Bytes = whole.slice(..kept.min(whole.len()));
        let end = breaks.then(|| Err(unavailable("connection reset")));
        let payload = GetResultPayload::Stream(stream::iter([Ok(front)].into_iter().chain(end)).boxed());
        result = GetResult { payload, meta, range, attributes, extensions };
        Ok(result)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let fault = self.orders.next_fault(Operation::Get, location.as_ref());
        Orders::fail(fault, location.as_ref()).await?;
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let path = prefix.map(Path::to_string).unwrap_or_default();
        let fault = self.orders.next_fault(Operation::List, &path);
        let listed = self.inner.list(prefix);
        // The fault comes first; what it leaves is the inner store's list.
        stream::once(async move { Orders::fail(fault, &path).await.err() })
            .filter_map(|failed| async move { failed.map(Err) })
            .chain(listed)
            .boxed()
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let path = prefix.map(Path::to_string).unwrap_or_default();
        Orders::fail(self.orders.next_fault(Operation::List, &path), &path).await?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}

#[async_trait]
impl MultipartUpload for FaultUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let fault = self.orders.next_fault(Operation::Part, &self.path);
        let (part, path) = (self.inner.put_part(data), self.path.clone());
        Box::pin(async move {
            Orders::fail(fault, &path).await?;
            part.await
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let fault = self.orders.next_fault(Operation::Complete, &self.path);
        let fault = Orders::fail(fault, &self.path).await?;
        let done = self.inner.complete().await?;
        match fault {
            Some(Fault::CommitThenError) => Err(unavailable("the answer was lost")),
            _ => Ok(done),
        }
    }

    async fn abort(&mut self) -> Result<()> {
        let fault = self.orders.next_fault(Operation::Abort, &self.path);
        Orders::fail(fault, &self.path).await?;
        self.inner.abort().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::{ObjectStoreExt, memory::InMemory};

    #[tokio::test]
    async fn a_rule_leaves_its_exceptions_alone_however_often_they_are_asked_for() {
        let store = FaultStore::new(Arc::new(InMemory::new()));
        for path in ["a/1", "a/2", "b/1"] {
            store.put(&Path::from(path), PutPayload::from_static(b"x")).await.expect("memory");
        }
        store.inject(FaultRule::new(Operation::Get, Fault::Denied).on("a/").except("/2").skip(1).forever());
        let mut reads = Vec::new();
        for path in ["a/2", "a/2", "a/1", "b/1", "a/1", "a/2"] {
            reads.push(store.get(&Path::from(path)).await.is_ok());
        }
        assert_eq!(
            reads,
            [true, true, true, true, false, true],
            "the exceptions do not use up what is let pass either"
        );
        assert_eq!((store.faults_met(), store.requests(Operation::Get)), (1, 6));
    }
}
