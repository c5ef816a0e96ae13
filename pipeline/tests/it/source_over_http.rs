//! Sources on a web server: no listing, ranges of bytes, a signature in the address that nothing may show.

use crate::{
    sample_set::SampleSet,
    source_support::{limits, read_all, settings},
};
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory};
use pipeline::{Limits, PipelineError, SourceOptions, SourceReader, list_source, plan_units};
use schemas::ImageIdRule;
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// What every request must carry.
const SIGNATURE: &str = "?sig=secret";

/// A web server of a few files, whose first answers may be 503.
struct Server {
    address: String,
    refusals: Arc<AtomicUsize>,
}

impl Server {
    fn start(files: BTreeMap<String, Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("bound"));
        let (files, refusals) = (Arc::new(files), Arc::new(AtomicUsize::new(0)));
        let refused = Arc::clone(&refusals);
        // Ends with the process of the test.
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (files, refused) = (Arc::clone(&files), Arc::clone(&refused));
                thread::spawn(move || while answer(&connection, &files, &refused).is_some() {});
            }
        });
        Self { address, refusals }
    }
}

/// Answers one request; `None` at the end of the connection.
fn answer(connection: &TcpStream, files: &BTreeMap<String, Vec<u8>>, refused: &AtomicUsize) -> Option<()> {
    let mut lines = BufReader::new(connection).lines();
    let first = lines.next()?.ok()?;
    let mut range = None;
    loop {
        let line = lines.next()?.ok()?;
        if line.is_empty() {
            break;
        }
        if let Some(bytes) = line.to_ascii_lowercase().strip_prefix("range: bytes=") {
            let (start, end) = bytes.split_once('-')?;
            range = Some((start.parse::<usize>().ok()?, end.parse::<usize>().ok()?));
        }
    }
    let mut words = first.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let file = target.strip_suffix(SIGNATURE).and_then(|path| files.get(path.trim_start_matches('/')));
    let refuse = refused.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
    let mut connection = connection;
    let (head, body): (String, &[u8]) = match (file, method, range) {
        _ if refuse => ("503 Slow Down\r\nContent-Length: 0".to_owned(), &[]),
        (_, "PROPFIND", _) => ("405 Method Not Allowed\r\nContent-Length: 0".to_owned(), &[]),
        (None, ..) => ("404 Not Found\r\nContent-Length: 0".to_owned(), &[]),
        (Some(file), "HEAD", _) => (format!("200 OK\r\nContent-Length: {}", file.len()), &[]),
        (Some(file), _, Some((start, end))) => {
            let end = (end + 1).min(file.len());
            let size = file.len();
            let head = format!(
                "206 Partial\r\nContent-Range: bytes {start}-{}/{size}\r\nContent-Length: {}",
                end - 1,
                end - start
            );
            (head, &file[start..end])
        }
        (Some(file), ..) => (format!("200 OK\r\nContent-Length: {}", file.len()), file),
    };
    let fixed = "ETag: W/\"weak\"\r\nLast-Modified: Thu, 01 Jan 1970 00:00:00 GMT";
    write!(connection, "HTTP/1.1 {head}\r\n{fixed}\r\n\r\n").ok()?;
    connection.write_all(body).ok()
}

/// The set as tars and Parquet files, by their paths.
async fn files(set: &SampleSet) -> BTreeMap<String, Vec<u8>> {
    let store = InMemory::new();
    set.write_webdataset(&store, "my set", 8).await.expect("written");
    set.write_parquet(&store, "my set", 8, 3).await.expect("written");
    let mut files = BTreeMap::new();
    for object in store.list(None).try_collect::<Vec<_>>().await.expect("listed") {
        let bytes = store.get(&object.location).await.expect("there").bytes().await.expect("read");
        files.insert(object.location.to_string().replace(' ', "%20"), bytes.to_vec());
    }
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_on_a_web_server_read_like_any_others_and_keep_their_signature_secret() {
    let set = SampleSet::numbered(20, 2, 30_000);
    let server = Server::start(files(&set).await);
    let quick = Limits { retry_attempts: 8, ..limits() };
    for name in ["shard-{0000..0002}.tar", "part-{00000..00002}.parquet"] {
        let url = format!("{}/my%20set/{name}{SIGNATURE}", server.address);
        server.refusals.store(2, Ordering::Relaxed);
        let listing = list_source(&SourceOptions::new(&url), &quick).await.expect(name);
        assert_eq!(listing.inputs.len(), 3, "{name}");
        let plan = Arc::new(plan_units(settings(8, ImageIdRule::Stem), listing).expect("a plan"));
        assert!(!format!("{plan:?}").contains("secret"));
        server.refusals.store(3, Ordering::Relaxed);
        let reader = SourceReader::open_at(Arc::clone(&plan), &url, &quick).expect("opened");
        let images = read_all(&reader, &plan).await.expect(name);
        assert!(
            images.iter().map(|image| image.bytes.as_ref()).eq(set.images().iter().map(|image| Ok(&image.bytes))),
            "{name}"
        );
        assert!(
            images.iter().all(|image| image.source.contains("/my%20set/") && !image.source.contains("secret")),
            "{name}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_server_that_fails_is_told_without_the_signature() {
    let server = Server::start(files(&SampleSet::numbered(8, 1, 100)).await);
    let told = |error: PipelineError| {
        let told = format!("{error} {error:?}");
        assert!(!told.contains("secret"), "{told}");
        told
    };
    let list = |path: &str| {
        let options = SourceOptions::new(format!("{}/my%20set{path}{SIGNATURE}", server.address));
        async move { list_source(&options, &limits()).await }
    };
    let missing = told(list("/shard-{0000..0003}.tar").await.expect_err("three are missing"));
    assert!(missing.contains("shard-0001.tar, shard-0002.tar, shard-0003.tar"), "{missing}");
    let folder = told(list("").await.expect_err("no listing"));
    assert!(folder.contains("name its files with a range"), "{folder}");
    server.refusals.store(usize::MAX, Ordering::Relaxed);
    let busy = list("/shard-0000.tar").await.expect_err("busy");
    assert!(busy.is_temporary());
    let busy = told(busy);
    assert!(busy.contains("503"), "{busy}");
}
