//! What planning and running a large set takes of memory, counted by the allocator. A program of its own: it counts everything.

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, memory::InMemory, path::Path,
};
use pipeline::{
    Limits, SourceOptions, Storage, claim_output, list_storage, plan_units, read_plan, testing::plan_settings,
};
use schemas::ImageIdRule;
use std::{
    alloc::{GlobalAlloc, Layout, System},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

/// Most bytes that one more input may take, at any moment.
const BYTES_AN_INPUT: usize = 100;

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

#[expect(unsafe_code, reason = "hands every call on to the system's allocator as it is")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Relaxed) + layout.size();
        MOST.fetch_max(held, Relaxed);
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above; it came from `alloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A store that lists files as S3 does, a page at a time, and has nothing in them.
#[derive(Debug)]
struct ListedOnly {
    files: u64,
}

impl fmt::Display for ListedOnly {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} files", self.files)
    }
}

fn unasked<T>() -> Result<T> {
    Err(Error::NotImplemented { operation: "anything but a list".to_owned(), implementer: "ListedOnly".to_owned() })
}

#[async_trait]
impl ObjectStore for ListedOnly {
    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        unasked()
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        unasked()
    }

    async fn get_opts(&self, _: &Path, _: GetOptions) -> Result<GetResult> {
        unasked()
    }

    fn delete_stream(&self, _: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        stream::once(async { unasked() }).boxed()
    }

    fn list(&self, _: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let files = self.files;
        let file = move |number: u64| {
            let class = number * 1_000 / files;
            // Spread as digests are: nothing that compresses.
            let random = |salt: u64| {
                (number ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31).wrapping_mul(0xd6e8_feb8_6659_fd93)
            };
            Ok(ObjectMeta {
                location: Path::from(format!("set/n{class:08}/n{class:08}_{number:09}.JPEG")),
                last_modified: Default::default(),
                size: 60_000 + random(0) % 100_000,
                e_tag: Some(format!("\"{:016x}{:016x}\"", random(1), random(2))),
                version: None,
            })
        };
        stream::iter((0..files).map(file)).boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        unasked()
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        unasked()
    }
}

/// The most memory that listing, planning, claiming, starting again and going through all units takes, beyond what is held before: bytes, for each
/// step.
async fn most_held(files: u64) -> [(&'static str, usize); 4] {
    let store: Arc<dyn ObjectStore> = Arc::new(ListedOnly { files });
    let source = Storage::from_store(store, Path::from("set"), "memory:///set");
    let output = Storage::from_store(Arc::new(InMemory::new()), Path::from("out"), "memory:///out");
    let held_before = HELD.load(Relaxed);
    let begin = || MOST.store(HELD.load(Relaxed), Relaxed);
    let end = |step| (step, MOST.load(Relaxed) - held_before);

    begin();
    let options = SourceOptions::new("");
    let listing = list_storage(&source, "", &options, &Limits::default()).await.expect("listed");
    let listed = end("list");
    begin();
    let plan = plan_units(plan_settings(16_384, ImageIdRule::Stem), listing).expect("a plan");
    let planned = end("plan");
    begin();
    claim_output(&output, &plan).await.expect("claimed");
    let claimed = end("claim");
    begin();
    let found = read_plan(&output).await.expect("read").expect("it is claimed");
    assert_eq!(found.hash(), plan.hash());
    drop(plan);
    let inputs: usize = (0..found.units()).map(|unit| found.unit_inputs(unit).len()).sum();
    assert_eq!((inputs as u64, found.inputs().len() as u64), (files, files));
    [listed, planned, claimed, end("read it back, and go through all units")]
}

#[tokio::test]
async fn one_more_input_takes_at_most_a_hundred_bytes() {
    // Frames, pages and buffers are the same for both.
    let (few, many) = (100_000, 400_000);
    let (of_few, of_many) = (most_held(few).await, most_held(many).await);
    for ((step, less), (_, more)) in of_few.into_iter().zip(of_many) {
        let bytes = more.saturating_sub(less) / (many - few) as usize;
        println!("{step}: {less} bytes for {few} inputs, {more} for {many}: {bytes} an input");
        assert!(bytes <= BYTES_AN_INPUT, "{step}: {bytes} bytes an input, the limit is {BYTES_AN_INPUT}");
    }
}
