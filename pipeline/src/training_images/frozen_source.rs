//! A source, listed once: what every epoch reads, in whatever order.

use super::settings_error;
use crate::{
    Limits, ListedInput, PipelineError, SourceImage, SourceOptions, Storage, list_storage,
    source::{InputReader, open_address},
};
use futures::{
    StreamExt,
    future::ready,
    stream::{self, BoxStream},
};
use schemas::{PlannedInput, SourceLayout, SourceReading, hex};
use sha2::{Digest, Sha256};
use std::{iter, sync::Arc};

/// The frozen list of inputs, and what reads them.
#[derive(Debug)]
pub(super) struct FrozenSource {
    /// The source's address, for messages.
    pub(super) name: String,
    pub(super) layout: SourceLayout,
    /// Images in all, where the listing tells.
    pub(super) images: Option<u64>,
    /// SHA-256 of all that decides which images there are.
    pub(super) digest: String,
    inputs: Vec<ListedInput>,
    reader: InputReader,
}

/// An image and its place in an epoch's order of inputs.
#[derive(Debug)]
pub(super) struct PlacedImage {
    /// Place of its input.
    pub(super) input: u64,
    /// Images of that input before it.
    pub(super) row: u64,
    pub(super) image: SourceImage,
}

impl FrozenSource {
    /// Lists the source at the address of `options`.
    ///
    /// # Errors
    /// As [`crate::list_source`].
    pub(super) async fn open(options: &SourceOptions, limits: &Limits) -> Result<Self, PipelineError> {
        let (storage, pattern) = open_address(&options.url, limits)?;
        Self::list(storage, &pattern, options, limits).await
    }

    /// Lists what matches `pattern` in a storage that is already open.
    ///
    /// # Errors
    /// As [`list_storage`].
    pub(super) async fn list(
        storage: Storage,
        pattern: &str,
        options: &SourceOptions,
        limits: &Limits,
    ) -> Result<Self, PipelineError> {
        let listing = list_storage(&storage, pattern, options, limits).await?;
        let max_image_bytes = limits.max_image_bytes;
        let (layout, reading) = (listing.layout, options.reading.clone());
        let reader =
            InputReader::new(storage, layout, options.image_id, listing.class_names, max_image_bytes, reading, limits);
        // Which images are rejected decides the batches as much as which there are.
        let mut digest = Sha256::new();
        digest.update(format!("{} {max_image_bytes} {}\n", listing.layout, limits.max_image_pixels));
        if options.reading != SourceReading::default() {
            digest.update(serde_json::to_vec(&options.reading).expect("text is always JSON"));
        }
        for input in listing.inputs.iter() {
            let line = serde_json::to_vec(&planned(&input, 0)).expect("text and numbers are always JSON");
            digest.update(line);
            digest.update(b"\n");
        }
        Ok(Self {
            name: listing.source,
            layout: listing.layout,
            images: listing.images,
            digest: hex(&digest.finalize()),
            // Any of them may be next: these are not packed.
            inputs: listing.inputs.into_iter().collect(),
            reader,
        })
    }

    /// Number of inputs.
    pub(super) fn inputs(&self) -> usize {
        self.inputs.len()
    }

    /// The images of all inputs in `order`, from image `row` of the input at place `first` on. To be polled in a tokio runtime.
    pub(super) fn read(
        self: &Arc<Self>,
        order: Vec<usize>,
        first: u64,
        row: u64,
    ) -> BoxStream<'static, Result<PlacedImage, PipelineError>> {
        let source = Arc::clone(self);
        let places = (0_u64..).zip(order).skip(usize::try_from(first).unwrap_or(usize::MAX));
        match self.layout {
            // One stream over all files, so that fetching never pauses between two of them.
            SourceLayout::Folder => {
                let images = self.reader.read(places.map(move |(_, index)| planned(&source.inputs[index], 0)));
                let placed = move |(place, image): (usize, Result<_, _>)| {
                    Ok(PlacedImage { input: first + place as u64, row: 0, image: image? })
                };
                images.enumerate().map(placed).boxed()
            }
            SourceLayout::Webdataset | SourceLayout::Parquet => stream::iter(places)
                .flat_map(move |(place, index)| source.read_shard(place, index, if place == first { row } else { 0 }))
                .boxed(),
        }
    }

    /// The images of one shard from `row` on.
    fn read_shard(
        &self,
        place: u64,
        index: usize,
        row: u64,
    ) -> impl futures::Stream<Item = Result<PlacedImage, PipelineError>> + Send + use<> {
        let input = planned(&self.inputs[index], row);
        // A shard whose length is known starts at the row; of another, what lies before is read and passed over.
        let starts = input.rows.as_ref().map_or(0, |rows| rows.start);
        let placed = move |(offset, image): (usize, Result<SourceImage, PipelineError>)| {
            let found = starts + offset as u64;
            let placed = image.map(|image| PlacedImage { input: place, row: found, image });
            ready((found >= row || placed.is_err()).then_some(placed))
        };
        self.reader.read(iter::once(input)).enumerate().filter_map(placed)
    }

    /// The error of a position that is none in this source.
    pub(super) fn wrong_position(&self, position: super::DataPosition) -> PipelineError {
        settings_error(format!(
            "{} has no {position:?}: the position is of another source, or of another setting of the shuffle",
            self.name
        ))
    }
}

/// What the readers want to know of an input, from image `row` on.
fn planned(input: &ListedInput, row: u64) -> PlannedInput {
    let ListedInput { uri, size, etag, label, rows } = input;
    let rows = rows.map(|rows| row.min(rows)..rows);
    PlannedInput { uri: uri.clone(), size: *size, etag: etag.clone(), rows, label: *label, unit: 0 }
}
