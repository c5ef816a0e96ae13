//! Sources: images in folders, tar shards or Parquet files become one stream of encoded images, in the order of the plan.
//!
//! ```text
//! list_source -> SourceListing -> plan_units -> Plan -> SourceReader::read_unit -> SourceImage, SourceImage, …
//! ```

mod account;
mod classes;
mod fetch_limits;
mod foreign_files;
mod labels;
mod list_source;
mod object_chunks;
mod object_reader;
mod parquet_footer;
mod pattern;
mod pinned_object;
mod reach;
mod read_folder;
mod read_parquet;
mod read_webdataset;
mod sorted_objects;
mod tar_bytes;
mod tar_member;

pub(crate) use fetch_limits::FetchLimits;
pub use fetch_limits::FetchPermit;
pub use list_source::{ListedInput, SourceListing, SourceOptions, list_source, list_storage};
pub(crate) use object_chunks::ObjectChunks;
pub(crate) use object_reader::ObjectReader;
pub(crate) use pattern::has_wildcard;
pub(crate) use pinned_object::PinnedObject;
pub use reach::{Reached, reach};

use crate::{Limits, PipelineError, storage::Storage};
use account::SharedAccount;
use bytes::Bytes;
use futures::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use schemas::{ImageIdRule, Plan, PlannedInput, RejectReason, SourceAccount, SourceLayout, SourceReading};
use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

/// One image of the source, encoded as it lies there.
pub struct SourceImage {
    /// Its key.
    pub image_id: String,
    /// Address of its bytes: an object's URI, with `#member` for a tar and `#row=N` for Parquet.
    pub source: String,
    /// Class, where the source gives one.
    pub label: Option<i32>,
    /// Name of the class, where the source gives one.
    pub class_name: Option<String>,
    /// Size in bytes; 0 where there are none.
    pub size: u64,
    /// Its bytes, which may be none at all; or why there are none, and a word on it.
    pub bytes: Result<Bytes, (RejectReason, String)>,
    /// Its share of the bytes that may be held at once.
    pub permit: FetchPermit,
}

impl fmt::Debug for SourceImage {
    /// Without the bytes: a log is no place for images.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { image_id, source, label, class_name, size, bytes, permit } = self;
        formatter
            .debug_struct("SourceImage")
            .field("image_id", image_id)
            .field("source", source)
            .field("label", label)
            .field("class_name", class_name)
            .field("size", size)
            .field("bytes", &bytes.as_ref().map(Bytes::len))
            .field("permit", permit)
            .finish()
    }
}

/// The images of one unit, in the order of the plan. After an error there is nothing more.
pub struct SourceImages {
    images: BoxStream<'static, Result<SourceImage, PipelineError>>,
    account: SharedAccount,
}

impl SourceImages {
    /// What the inputs held beside the images so far; all of it when the stream has ended.
    pub fn left_out(&self) -> SourceAccount {
        self.account.snapshot()
    }
}

impl fmt::Debug for SourceImages {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SourceImages").field("account", &self.account).finish_non_exhaustive()
    }
}

impl Stream for SourceImages {
    type Item = Result<SourceImage, PipelineError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.images.poll_next_unpin(context)
    }
}

/// Reads the units of a plan. Clones share connections and limits.
#[derive(Clone, Debug)]
pub struct SourceReader {
    plan: Arc<Plan>,
    inputs: InputReader,
}

/// Reads inputs of one layout, whatever plan or list they stand in. Clones share connections and limits.
#[derive(Clone, Debug)]
pub(crate) struct InputReader {
    layout: SourceLayout,
    shared: Arc<Shared>,
}

/// What the readers of all inputs share.
#[derive(Debug)]
struct Shared {
    storage: Storage,
    fetch: FetchLimits,
    image_id: ImageIdRule,
    class_names: Vec<String>,
    /// The plan's limit, not the run's: which images have tokens depends on it.
    max_image_bytes: u64,
    reading: SourceReading,
}

impl SourceReader {
    /// Opens the source that the plan names.
    ///
    /// # Errors
    /// When its store cannot be set up.
    pub fn open(plan: Arc<Plan>, limits: &Limits) -> Result<Self, PipelineError> {
        let url = plan.settings().source.clone();
        Self::open_at(plan, &url, limits)
    }

    /// Opens the plan's source at `url`, which may carry what a plan must not hold: a signed query, a password.
    ///
    /// # Errors
    /// As [`Self::open`], and when the plan's inputs do not lie there.
    pub fn open_at(plan: Arc<Plan>, url: &str, limits: &Limits) -> Result<Self, PipelineError> {
        let storage = Storage::open(&pattern::resolve(url).base, limits)?;
        Self::with_storage(plan, storage, limits)
    }

    /// Reads from a storage that is already open.
    ///
    /// # Errors
    /// When the plan's inputs do not lie there.
    pub fn with_storage(plan: Arc<Plan>, storage: Storage, limits: &Limits) -> Result<Self, PipelineError> {
        for input in plan.inputs().iter().take(1) {
            PinnedObject::of_input(&storage, &input)?;
        }
        let images = plan.settings().origin.images().ok_or_else(|| PipelineError::Source {
            uri: plan.settings().source.clone(),
            problem: "the rows of this plan do not come from images".to_owned(),
        })?;
        let inputs = InputReader::new(
            storage,
            images.layout,
            images.image_id,
            plan.class_names().to_vec(),
            images.max_image_bytes,
            images.reading.clone(),
            limits,
        );
        Ok(Self { plan, inputs })
    }

    /// Streams the images of one unit; empty for a unit that the plan does not have. To be polled in a tokio runtime.
    ///
    /// Fetching runs ahead on its own tasks, within the limits that all units share, and ends when the stream is dropped.
    pub fn read_unit(&self, unit: u32) -> SourceImages {
        self.inputs.read(self.plan.unit_inputs(unit).into_iter())
    }
}

impl InputReader {
    /// Reads from a storage that is already open.
    pub(crate) fn new(
        storage: Storage,
        layout: SourceLayout,
        image_id: ImageIdRule,
        class_names: Vec<String>,
        max_image_bytes: u64,
        reading: SourceReading,
        limits: &Limits,
    ) -> Self {
        let fetch = FetchLimits::new(limits);
        Self { layout, shared: Arc::new(Shared { storage, fetch, image_id, class_names, max_image_bytes, reading }) }
    }

    /// Streams the images of these inputs, in their order. To be polled in a tokio runtime.
    pub(crate) fn read(&self, inputs: impl Iterator<Item = PlannedInput> + Send + 'static) -> SourceImages {
        let (shared, account) = (Arc::clone(&self.shared), SharedAccount::default());
        let images = match self.layout {
            SourceLayout::Folder => read_folder::read(shared, inputs),
            SourceLayout::Webdataset => {
                let account = account.clone();
                let open = move |input| read_webdataset::read(Arc::clone(&shared), input, account.clone());
                stream::iter(inputs).flat_map(open).boxed()
            }
            SourceLayout::Parquet => {
                let account = account.clone();
                let open = move |input| read_parquet::read(Arc::clone(&shared), input, account.clone());
                stream::iter(inputs).flat_map(open).boxed()
            }
        };
        // After an error nothing may follow: what came next would stand in the wrong rows.
        let images = images.scan(false, |failed, image| {
            let previous = std::mem::replace(failed, image.is_err());
            async move { if previous { None } else { Some(image) } }
        });
        SourceImages { images: images.boxed(), account }
    }
}

impl Shared {
    fn check_size(&self, size: u64) -> Result<(), (RejectReason, String)> {
        let limit = self.max_image_bytes;
        if size <= limit {
            return Ok(());
        }
        Err((RejectReason::TooLarge, format!("{size} bytes, the limit is {limit}")))
    }

    fn class_name(&self, label: Option<i32>) -> Option<String> {
        self.class_names.get(usize::try_from(label?).ok()?).cloned()
    }
}

/// Opens the store that a source's address names; gives the pattern that is left below it, empty for a whole folder.
///
/// # Errors
/// When the store cannot be set up.
pub(crate) fn open_address(url: &str, limits: &Limits) -> Result<(Storage, String), PipelineError> {
    let pattern::Patterned { base, pattern } = pattern::resolve(url);
    Ok((Storage::open(&base, limits)?, pattern))
}

/// A path's extension in lower case.
pub(crate) fn extension(path: &str) -> Option<String> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let (stem, extension) = name.rsplit_once('.')?;
    (!stem.is_empty()).then(|| extension.to_ascii_lowercase())
}

/// Whether a folder of this name belongs to a system or a tool, and what it holds is no part of a set: thumbnails of a Synology disk, what
/// macOS adds to archives, what is thrown away.
fn is_system_folder(name: &str) -> bool {
    const FOLDERS: [&str; 6] =
        ["@eaDir", "__MACOSX", "$RECYCLE.BIN", "System Volume Information", "lost+found", "#recycle"];
    FOLDERS.contains(&name)
}
