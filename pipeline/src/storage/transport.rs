//! The HTTP client below every store's client: it sees each request and each answer, and so knows what the stores' clients do not tell.
//!
//! - What will never be carried out is an error at once, with what the answer said of it ([`StoreAnswer`]): the clients retry
//!   every status from 500 up, 501 included, and drop the header that names a bucket's region.
//! - What is asked again is logged by store and request, and a store that says nothing for a minute is a warning.
//! - Listings are looked through for names that would end them ([`super::listing_xml`]).
//! - Each answer says what the store's clock shows ([`StoreClock`]).

use super::{listing_xml, store_answer::StoreAnswer};
use async_trait::async_trait;
use bytes::Bytes;
use object_store::{
    ClientOptions, Result,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
        ReqwestConnector,
    },
};
use std::{
    error::Error as StdError,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};
use tokio::time::{Instant, timeout};

/// A store that says nothing for as long is worth a warning, again each time it has passed.
const SILENCE: Duration = Duration::from_secs(60);

/// Attempts at a host that has never answered, where the reason is hardly one that passes.
const ATTEMPTS_AT_NOBODY: u32 = 3;

/// The addresses by which a cloud's machine asks its own service for credentials: of EC2, ECS and Azure, and of Google.
const HOSTS_OF_MACHINE: [&str; 4] = ["169.254.169.254", "[fd00:ec2::254]", "169.254.170.2", "metadata.google.internal"];

/// Whether an address, or an error's text, names the machine's own service.
pub(super) fn is_of_machine(said: &str) -> bool {
    HOSTS_OF_MACHINE.iter().any(|host| said.contains(host))
}

/// Makes the clients of one store.
#[derive(Clone, Debug)]
pub(super) struct Transport {
    /// The store's address, without credentials.
    store: Arc<str>,
    /// Whether it is a web server, whose requests nobody signs.
    web: bool,
    heard: Arc<Heard>,
    clock: StoreClock,
}

impl Transport {
    pub(super) fn new(store: &str, web: bool) -> Self {
        Self { store: store.into(), web, heard: Arc::default(), clock: StoreClock::default() }
    }

    /// The clock of the store, as its answers tell it.
    pub(super) fn clock(&self) -> StoreClock {
        self.clock.clone()
    }
}

/// What a store's own clock shows: that of its last answer, and the time since. Clones show the same.
#[derive(Clone, Debug, Default)]
pub(super) struct StoreClock(Arc<Mutex<Option<(SystemTime, Instant)>>>);

impl StoreClock {
    /// One that shows `now`.
    #[cfg(test)]
    pub(super) fn of(now: SystemTime) -> Self {
        Self(Arc::new(Mutex::new(Some((now, Instant::now())))))
    }

    /// Now; by this machine's clock as long as the store has not said.
    pub(super) fn now(&self) -> SystemTime {
        let heard = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.and_then(|(date, at)| date.checked_add(at.elapsed())).unwrap_or_else(SystemTime::now)
    }

    /// Takes the `Date` of an answer.
    fn hear(&self, answer: &HttpResponse) {
        let date = answer.headers().get("date").and_then(|date| date.to_str().ok());
        if let Some(date) = date.and_then(|date| httpdate::parse_http_date(date).ok()) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((date, Instant::now()));
        }
    }
}

impl HttpConnector for Transport {
    fn connect(&self, options: &ClientOptions) -> Result<HttpClient> {
        // The first to install ciphers wins, and all of us install the same.
        drop(rustls::crypto::ring::default_provider().install_default());
        let inner = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Watched { inner, transport: self.clone() }))
    }
}

#[derive(Debug)]
struct Watched {
    inner: HttpClient,
    transport: Transport,
}

#[async_trait]
impl HttpService for Watched {
    async fn call(&self, mut request: HttpRequest) -> std::result::Result<HttpResponse, HttpError> {
        let Transport { store, web, heard, clock } = &self.transport;
        if *web {
            write_plus_safely(&mut request);
        }
        let asked = Asked::of(&request);
        match heard.listen(store, &asked.text, self.inner.execute(request)).await {
            Ok(answer) => {
                // The machine's own service, which hands out credentials, has a clock of its own.
                if !asked.of_machine {
                    clock.hear(&answer);
                }
                self.classify_answer(&asked, answer).await
            }
            Err(error) => Err(self.classify_failure(&asked, error)),
        }
    }
}

impl Watched {
    /// Hands on what the store's client knows how to take, and turns the rest into errors that are not tried again.
    async fn classify_answer(
        &self,
        asked: &Asked,
        answer: HttpResponse,
    ) -> std::result::Result<HttpResponse, HttpError> {
        let status = answer.status().as_u16();
        let tell_that_it_asks_again = || {
            let (store, request) = (&*self.transport.store, &asked.text);
            tracing::info!(store, request, status, "the store did not carry out a request; asking again");
        };
        if !asked.is_final(status) {
            if StoreAnswer::may_pass(&asked.method, status) {
                tell_that_it_asks_again();
            }
            if asked.lists && answer.status().is_success() {
                return with_fit_names(answer).await;
            }
            return Ok(answer);
        }
        let (parts, body) = answer.into_parts();
        // A body that breaks off says less, and the status stays what it is.
        let body = body.bytes().await.unwrap_or_default();
        let region = parts.headers.get("x-amz-bucket-region").and_then(|region| region.to_str().ok());
        let said = StoreAnswer::new(status, &asked.method, region, &String::from_utf8_lossy(&body));
        if said.heals() {
            tell_that_it_asks_again();
            return Err(HttpError::new(HttpErrorKind::Interrupted, said));
        }
        Err(HttpError::new(HttpErrorKind::Unknown, said))
    }

    /// Makes an end of what will hardly pass: a certificate that is not accepted, a name that no host has.
    fn classify_failure(&self, asked: &Asked, error: HttpError) -> HttpError {
        let (store, request) = (&*self.transport.store, &asked.text);
        let is_final = match Unreached::of(&error) {
            Some(Unreached::Certificate) => true,
            Some(Unreached::NoSuchHost) => self.transport.heard.is_nobody_there(),
            None => asked.of_machine && self.transport.heard.is_nobody_there(),
        };
        if is_final {
            return HttpError::new(HttpErrorKind::Unknown, NotReached(error));
        }
        tracing::info!(store, request, error = said_in_full(&error), "a request did not arrive or was not answered");
        error
    }
}

/// A request that will not be tried again, with the reason.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NotReached(#[source] HttpError);

/// Why a host could not be reached, where asking again hardly helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreached {
    /// Its certificate is not accepted.
    Certificate,
    /// No host has its name.
    NoSuchHost,
}

impl Unreached {
    /// Found in the words of the TLS library and of the system's resolver, which have no types for it. A resolver that is not there
    /// itself says otherwise ("Temporary failure in name resolution").
    pub(super) fn of(error: &(dyn StdError + 'static)) -> Option<Self> {
        let said = said_in_full(error);
        let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
        if has(&["invalid peer certificate", "certificate verify failed"]) {
            Some(Self::Certificate)
        } else if has(&["Name or service not known", "nodename nor servname", "Name does not resolve", "No such host"])
        {
            Some(Self::NoSuchHost)
        } else {
            None
        }
    }
}

/// An error and all its causes, each once.
pub(super) fn said_in_full(error: &(dyn StdError + 'static)) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !said.contains(&text) {
            said.push_str(": ");
            said.push_str(&text);
        }
        cause = inner.source();
    }
    said
}

/// A request, as the log and the errors name it.
struct Asked {
    method: String,
    /// Method and address, without query and user.
    text: String,
    /// Whether its answer is a listing.
    lists: bool,
    /// Whether it goes to the cloud machine's own service, which gives credentials where there is one.
    of_machine: bool,
}

impl Asked {
    fn of(request: &HttpRequest) -> Self {
        let (method, address) = (request.method().to_string(), request.uri());
        let query = address.query().unwrap_or_default();
        let has = |part: &str| query.split('&').any(|found| found == part);
        let lists = method == "PROPFIND" || method == "GET" && (has("list-type=2") || has("comp=list"));
        let (scheme, host) = (address.scheme_str().unwrap_or("http"), address.host().unwrap_or_default());
        let port = address.port().map_or(String::new(), |port| format!(":{port}"));
        let text = format!("{method} {scheme}://{host}{port}{}", address.path());
        // Google's client asks by a short name besides.
        let of_machine = is_of_machine(host) || host == "metadata";
        Self { method, text, lists, of_machine }
    }

    /// Whether the answer of this status ends the request, and the store's client would make something else of it: another error,
    /// or one more attempt. What the clients have a kind of error for, they get.
    fn is_final(&self, status: u16) -> bool {
        match status {
            // It may pass, but the clients do not ask again for it.
            425 => true,
            _ if StoreAnswer::may_pass(&self.method, status) => false,
            207 => false,
            200..=299 => self.method == "PROPFIND",
            304 | 404 | 409 | 412 => false,
            // The clients' listings keep no kinds apart.
            401 | 403 => self.lists,
            _ => true,
        }
    }
}

/// Writes the plus signs of a path in the way that means the same to every server. S3 takes one that is not escaped for a space, and the
/// client, which unescapes an address and escapes it again, leaves them bare.
fn write_plus_safely(request: &mut HttpRequest) {
    let path = request.uri().path();
    if !path.contains('+') {
        return;
    }
    let uri = request.uri().to_string();
    let (front, query) = uri.split_once('?').map_or((uri.as_str(), None), |(front, query)| (front, Some(query)));
    let Some(host) = front.strip_suffix(path) else { return };
    let query = query.map_or(String::new(), |query| format!("?{query}"));
    if let Ok(uri) = format!("{host}{}{query}", path.replace('+', "%2B")).parse() {
        *request.uri_mut() = uri;
    }
}

/// The same page, with names that the store's client takes.
async fn with_fit_names(answer: HttpResponse) -> std::result::Result<HttpResponse, HttpError> {
    let (parts, body) = answer.into_parts();
    let page = body.bytes().await?;
    let page = listing_xml::with_fit_names(&page).map_or(page, Bytes::from);
    Ok(HttpResponse::from_parts(parts, HttpResponseBody::from(page)))
}

/// When the store was last heard.
#[derive(Debug, Default)]
struct Heard(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Requests that wait for an answer.
    waiting: usize,
    /// Since when requests have waited and none was answered.
    silent_since: Option<Instant>,
    last_attempt_ended: Option<Instant>,
    last_warning: Option<Instant>,
    ever_answered: bool,
    attempts_at_nobody: u32,
}

impl Heard {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for an answer, with a warning while there is none.
    async fn listen<T, E>(
        &self,
        store: &str,
        asked: &str,
        answer: impl Future<Output = std::result::Result<T, E>>,
    ) -> std::result::Result<T, E> {
        let waiting = Waiting::begin(self);
        let mut answer = pin!(answer);
        let answer = loop {
            match timeout(SILENCE, &mut answer).await {
                Ok(answer) => break answer,
                Err(_) => self.warn_if_silent(store, asked),
            }
        };
        drop(waiting);
        match &answer {
            Ok(_) => self.answered(),
            Err(_) => self.warn_if_silent(store, asked),
        }
        answer
    }

    fn warn_if_silent(&self, store: &str, asked: &str) {
        if let Some(silence) = self.lock().silence_to_tell(Instant::now()) {
            let seconds = silence.as_secs();
            tracing::warn!(store, request = asked, seconds, "the store has not answered any request for this long");
        }
    }

    fn answered(&self) {
        let mut state = self.lock();
        state.silent_since = (state.waiting > 0).then(Instant::now);
        state.ever_answered = true;
    }

    /// Counts an attempt that reached nobody, and tells whether that is enough of them. Never where somebody has answered before.
    fn is_nobody_there(&self) -> bool {
        let mut state = self.lock();
        state.attempts_at_nobody += 1;
        !state.ever_answered && state.attempts_at_nobody >= ATTEMPTS_AT_NOBODY
    }
}

impl State {
    /// How long the store has said nothing, when it is time to tell.
    fn silence_to_tell(&mut self, now: Instant) -> Option<Duration> {
        let silence = now.duration_since(self.silent_since?);
        let told = self.last_warning.is_some_and(|last| now.duration_since(last) < SILENCE);
        if silence < SILENCE || told {
            return None;
        }
        self.last_warning = Some(now);
        Some(silence)
    }
}

/// A request that waits for an answer, until it is dropped.
struct Waiting<'a>(&'a Heard);

impl<'a> Waiting<'a> {
    fn begin(heard: &'a Heard) -> Self {
        let (mut state, now) = (heard.lock(), Instant::now());
        // After a pause in which nobody asked, silence begins anew; pauses between attempts are shorter.
        let idle =
            state.waiting == 0 && state.last_attempt_ended.is_none_or(|ended| now.duration_since(ended) > SILENCE);
        if idle || state.silent_since.is_none() {
            state.silent_since = Some(now);
        }
        state.waiting += 1;
        drop(state);
        Self(heard)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.waiting -= 1;
        state.last_attempt_ended = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Storage, UnreachableReason, listing::Listing, store_error},
        *,
    };
    use object_store::{Error, ObjectStore, RetryConfig, aws::AmazonS3Builder, http::HttpBuilder, path::Path};
    use std::collections::VecDeque;

    /// Answers each request with the next status, header and body that were laid out for it, and keeps what was asked.
    #[derive(Clone, Debug, Default)]
    struct Canned {
        answers: Arc<Mutex<VecDeque<CannedAnswer>>>,
        asked: Arc<Mutex<Vec<String>>>,
    }

    #[derive(Debug)]
    struct CannedAnswer {
        status: u16,
        header: Option<(&'static str, &'static str)>,
        body: String,
    }

    impl Canned {
        fn answer(self, status: u16, header: Option<(&'static str, &'static str)>, body: &str) -> Self {
            self.answers.lock().expect("no panic").push_back(CannedAnswer { status, header, body: body.to_owned() });
            self
        }

        fn asked(&self) -> Vec<String> {
            self.asked.lock().expect("no panic").clone()
        }
    }

    #[async_trait]
    impl HttpService for Canned {
        async fn call(&self, request: HttpRequest) -> std::result::Result<HttpResponse, HttpError> {
            self.asked.lock().expect("no panic").push(format!("{} {}", request.method(), request.uri()));
            let CannedAnswer { status, header, body } =
                self.answers.lock().expect("no panic").pop_front().expect("an answer is left");
            let mut answer = HttpResponse::new(HttpResponseBody::from(body));
            *answer.status_mut() = status.try_into().expect("a status");
            if let Some((name, value)) = header {
                answer.headers_mut().insert(name, value.parse().expect("a value"));
            }
            Ok(answer)
        }
    }

    /// Makes watched clients of canned answers.
    #[derive(Debug)]
    struct CannedConnector(Canned, Transport);

    impl HttpConnector for CannedConnector {
        fn connect(&self, _: &ClientOptions) -> Result<HttpClient> {
            let inner = HttpClient::new(self.0.clone());
            Ok(HttpClient::new(Watched { inner, transport: self.1.clone() }))
        }
    }

    fn quick() -> RetryConfig {
        let backoff = object_store::BackoffConfig {
            init_backoff: Duration::from_millis(1),
            max_backoff: Duration::from_millis(2),
            base: 2.0,
        };
        RetryConfig { backoff, max_retries: 4, ..RetryConfig::default() }
    }

    fn s3(canned: &Canned) -> Storage {
        let connector = CannedConnector(canned.clone(), Transport::new("s3://bucket/images", false));
        let store = AmazonS3Builder::new()
            .with_bucket_name("bucket")
            .with_access_key_id("key")
            .with_secret_access_key("secret")
            .with_retry(quick())
            .with_http_connector(connector)
            .build()
            .expect("a store");
        Storage::from_store(Arc::new(store), Path::from("images"), "s3://bucket/images")
    }

    fn web(canned: &Canned) -> Arc<dyn ObjectStore> {
        let connector = CannedConnector(canned.clone(), Transport::new("https://host/set", true));
        let url = "https://host/?sig=secret";
        Arc::new(
            HttpBuilder::new()
                .with_url(url)
                .with_retry(quick())
                .with_http_connector(connector)
                .build()
                .expect("a store"),
        )
    }

    fn web_storage(canned: &Canned) -> Storage {
        Storage::from_store(web(canned), Path::from("set"), "https://host/set")
    }

    fn page(keys: &[(&str, u64)]) -> String {
        let contents = keys.iter().map(|(key, size)| {
            format!("<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;e&quot;</ETag><Size>{size}</Size></Contents>")
        });
        format!("<ListBucketResult>{}</ListBucketResult>", contents.collect::<String>())
    }

    #[tokio::test]
    async fn a_listing_of_s3_goes_on_past_every_name_that_cannot_be_asked_for() {
        let canned = Canned::default().answer(
            200,
            None,
            &page(&[
                ("images/", 0),
                ("images//lead.jpg", 1),
                ("images/a//b.jpg", 2),
                ("images/a/", 0),
                ("images/a/&#10;.jpg", 3),
                ("images/a/./c.jpg", 4),
                ("images/a/../d.jpg", 5),
                ("images/a/e.jpg", 6),
                ("images/a/full/", 7),
                ("images/ f.jpg", 8),
            ]),
        );
        let Listing { objects, unreachable } = s3(&canned).list_all("").await.expect("a listing");
        let objects: Vec<_> =
            objects.iter().map(|object| (object.path.as_str(), object.size, object.etag.as_deref())).collect();
        assert_eq!(objects, [(" f.jpg", 8, Some("e")), ("a/e.jpg", 6, Some("e"))]);
        let unreachable: Vec<_> =
            unreachable.iter().map(|entry| (entry.shown.as_str(), entry.reason, entry.size)).collect();
        assert_eq!(
            unreachable,
            [
                ("/lead.jpg", UnreachableReason::EmptySegment, Some(1)),
                ("a/../d.jpg", UnreachableReason::DotSegment, Some(5)),
                ("a/./c.jpg", UnreachableReason::DotSegment, Some(4)),
                ("a//b.jpg", UnreachableReason::EmptySegment, Some(2)),
                ("a/\\n.jpg", UnreachableReason::ControlCharacter, Some(3)),
                ("a/full/", UnreachableReason::TrailingSlash, Some(7)),
            ]
        );
    }

    #[tokio::test]
    async fn what_will_never_be_carried_out_is_asked_once_and_says_why() {
        let region = Canned::default().answer(301, Some(("x-amz-bucket-region", "eu-west-3")), "");
        let error = s3(&region).get("a.jpg").await.expect_err("elsewhere");
        assert!(!error.is_temporary() && error.to_string().contains("AWS_REGION=eu-west-3"), "{error}");
        assert_eq!(region.asked().len(), 1);

        let unknown = Canned::default().answer(501, None, "");
        let error = s3(&unknown).get("a.jpg").await.expect_err("not implemented");
        assert!(!error.is_temporary() && error.to_string().contains("501 Not Implemented"), "{error}");

        // A status of a mistake that passes all the same is asked for again.
        let slow = "<Error><Code>RequestTimeout</Code></Error>";
        let passing = Canned::default().answer(400, None, slow).answer(425, None, "").answer(
            200,
            Some(("content-length", "1")),
            "x",
        );
        assert_eq!(web_storage(&passing).get("a.jpg").await.expect("read"), "x");
        assert_eq!(passing.asked().len(), 3);

        let mut busy = Canned::default();
        for _ in 0..5 {
            busy = busy.answer(503, None, "<Error><Code>SlowDown</Code></Error>");
        }
        let error = s3(&busy).get("a.jpg").await.expect_err("busy");
        assert!(error.is_temporary() && error.to_string().contains("503 SlowDown"), "{error}");
        assert_eq!(busy.asked().len(), 5);
    }

    #[tokio::test]
    async fn a_server_that_lists_no_folders_is_asked_for_that_once() {
        for status in [200, 400, 403, 405, 500, 501] {
            let canned = Canned::default().answer(status, None, "<html></html>");
            let error = web_storage(&canned).list_all("").await.expect_err("no listing");
            assert!(!error.is_temporary() && error.to_string().contains(&format!("{status}")), "{error}");
            assert!(error.to_string().contains("lists no folders") || status == 403, "{error}");
            assert_eq!(canned.asked(), ["PROPFIND https://host/set?sig=secret"]);
        }
    }

    #[tokio::test]
    async fn a_plus_in_a_name_reaches_the_server_as_a_plus() {
        let canned = Canned::default().answer(200, Some(("content-length", "1")), "x");
        assert_eq!(web_storage(&canned).get("a+b c.tar").await.expect("read"), "x");
        assert_eq!(canned.asked(), ["GET https://host/set/a%2Bb%20c.tar?sig=secret"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_says_nothing_is_told_of_once_a_minute_whatever_the_number_of_attempts() {
        let heard = Heard::default();
        let told = |heard: &Heard| heard.lock().silence_to_tell(Instant::now());
        // Attempts of 40 seconds each, with a pause between them.
        for (attempt, expected) in [(1, None), (2, Some(85)), (3, None), (4, Some(175))] {
            let waiting = Waiting::begin(&heard);
            tokio::time::advance(Duration::from_secs(40)).await;
            drop(waiting);
            assert_eq!(told(&heard).map(|silence| silence.as_secs()), expected, "attempt {attempt}");
            tokio::time::advance(Duration::from_secs(5)).await;
        }
        heard.answered();
        assert_eq!(told(&heard), None);
        // An hour without any request is no silence.
        tokio::time::advance(Duration::from_secs(3600)).await;
        let _waiting = Waiting::begin(&heard);
        tokio::time::advance(Duration::from_secs(59)).await;
        assert_eq!(told(&heard), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_of_a_store_is_that_of_its_last_answer_and_goes_on() {
        let transport = Transport::new("s3://bucket", false);
        let dated = |date: &str| {
            let mut answer = HttpResponse::new(HttpResponseBody::from(Bytes::new()));
            answer.headers_mut().insert("date", date.parse().expect("a header"));
            answer
        };
        let shown = || transport.clock().now().duration_since(SystemTime::UNIX_EPOCH).expect("since 1970").as_secs();
        transport.clock.hear(&dated("Thu, 01 Jan 1970 00:01:40 GMT"));
        assert_eq!(shown(), 100);
        tokio::time::advance(Duration::from_secs(5)).await;
        transport.clock.hear(&dated("no date"));
        assert_eq!(shown(), 105);
        transport.clock.hear(&dated("Thu, 01 Jan 1970 00:01:00 GMT"));
        assert_eq!(shown(), 60);
    }

    #[tokio::test]
    async fn a_host_that_nobody_has_is_given_up_soon_and_one_that_was_heard_is_not() {
        let transport = Transport::new("s3://bucket", false);
        let watched = Watched { inner: HttpClient::new(Canned::default()), transport: transport.clone() };
        let asked = Asked { method: "GET".to_owned(), text: String::new(), lists: false, of_machine: false };
        let unknown = || HttpError::new(HttpErrorKind::Connect, std::io::Error::other("Name or service not known"));
        let kinds: Vec<_> = (0..3).map(|_| watched.classify_failure(&asked, unknown()).kind()).collect();
        assert_eq!(kinds, [HttpErrorKind::Connect, HttpErrorKind::Connect, HttpErrorKind::Unknown]);
        let last = watched.classify_failure(&asked, unknown());
        assert!(!store_error::heals(&Error::Generic { store: "S3", source: Box::new(last) }));
        transport.heard.answered();
        assert_eq!(watched.classify_failure(&asked, unknown()).kind(), HttpErrorKind::Connect);
    }
}
