//! A set of images, frozen once and divided into units.

use super::{
    image::{Preparation, SetImage, open},
    npz_images::NpzImages,
};
use crate::{
    DecodeLimits, Limits, PipelineError, SourceOptions,
    background_task::joined,
    list_storage,
    npz::NpzArchive,
    plan_units::{divide, equal_ranges},
    source::{InputReader, open_address},
    storage::without_secrets,
};
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use schemas::{Crop, PlannedInput, SourceLayout, SourceReading, hex};
use sha2::{Digest, Sha256};
use std::ops::Range;
use tokio::task::spawn_blocking;

/// What to score, and how it is cut.
#[derive(Clone, Debug)]
pub struct ImageSetOptions {
    /// Everything that [`crate::list_source`] reads, or an archive `*.npz` whose member `arr_0.npy` is `uint8` of shape
    /// `[images, height, width, 3]` in C order.
    pub source: SourceOptions,
    /// A crop of one view; absent for images as they are, all of one size.
    pub crop: Option<Crop>,
    /// Largest number of images in a unit; a tar shard is always one unit. What is said of a unit is in memory until it is written:
    /// 16 KB an image for pool and spatial features, 8 KB more for each further form with pool features, and three times that while
    /// its file is made.
    pub unit_size: usize,
}

impl ImageSetOptions {
    /// Default size of a unit: some 16 MB of features, and 50 files for the 50,000 images of the usual protocols.
    pub const UNIT_SIZE: usize = 1000;

    /// Images as they are at `url`, in units of the default size.
    pub fn new(url: impl Into<String>) -> Self {
        Self { source: SourceOptions::new(url), crop: None, unit_size: Self::UNIT_SIZE }
    }
}

/// A set of images that is scored: its list frozen, its units numbered.
#[derive(Debug)]
pub struct ImageSet {
    digest: String,
    inputs: Inputs,
    preparation: Preparation,
}

/// Where images come from.
#[derive(Debug)]
enum Inputs {
    /// Files, shards or tables; by unit.
    Listed { address: String, images: Option<u64>, inputs: Vec<PlannedInput>, reader: InputReader },
    /// An archive; a range of rows for each unit.
    Archive { archive: NpzImages, units: Vec<Range<u64>> },
}

impl ImageSet {
    /// Whether an address names one archive.
    pub fn is_archive(url: &str) -> bool {
        NpzArchive::is_named_by(url)
    }

    /// Lists a set and divides it. Without a crop it reads as far as the first image that is one, which gives the set's size.
    ///
    /// # Errors
    /// When the crop has more than one view, a unit could hold no image, the set cannot be listed or is empty, an archive holds
    /// something else than pixels, or not one image can be read.
    pub async fn open(options: &ImageSetOptions, limits: &Limits) -> Result<Self, PipelineError> {
        let ImageSetOptions { source, crop, unit_size } = options;
        if let Some(crop) = crop.filter(|crop| crop.views() != 1) {
            let problem = format!("{crop} gives {} views an image, but an image is scored once", crop.views());
            return Err(PipelineError::Settings { problem });
        }
        if *unit_size == 0 {
            let problem = "a unit of 0 images holds none: expected at least 1".to_owned();
            return Err(PipelineError::Settings { problem });
        }
        let decode_limits = DecodeLimits { max_bytes: limits.max_image_bytes, max_pixels: limits.max_image_pixels };
        let mut digest = Sha256::new();
        // Which images are rejected decides the scores as much as which there are.
        let crop_name = crop.map_or("none".to_owned(), |crop| crop.to_string());
        digest.update(format!("{crop_name} {} {}\n", limits.max_image_bytes, limits.max_image_pixels));
        let inputs = match NpzArchive::is_named_by(&source.url) {
            true => Inputs::archive(source, *unit_size, limits, &mut digest).await?,
            false => Inputs::listed(source, *unit_size, limits, &mut digest).await?,
        };
        let shape = match (crop, &inputs) {
            (Some(crop), _) => (crop.size(), crop.size()),
            (None, Inputs::Archive { archive, .. }) => (archive.height, archive.width),
            (None, Inputs::Listed { .. }) => inputs.first_size(decode_limits).await?,
        };
        let preparation = Preparation { crop: *crop, limits: decode_limits, shape };
        Ok(Self { digest: hex(&digest.finalize()), inputs, preparation })
    }

    /// SHA-256 (lowercase hexadecimal) of the frozen list (addresses, sizes, versions, and what is read of each), of the crop and of the
    /// limits that decide which images are rejected. Not of the division into units.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Where the set is, without credentials.
    pub fn display(&self) -> &str {
        self.inputs.address()
    }

    /// Number of units; the units are numbered from 0.
    pub fn units(&self) -> u32 {
        self.inputs.units()
    }

    /// Images in all, broken ones included; unknown for tar shards until they are read.
    pub fn images(&self) -> Option<u64> {
        match &self.inputs {
            Inputs::Listed { images, .. } => *images,
            Inputs::Archive { units, .. } => units.last().map(|rows| rows.end),
        }
    }

    /// Height and width of every image as it is scored, in pixels.
    pub fn shape(&self) -> (usize, usize) {
        self.preparation.shape
    }

    /// Checks an archive against its CRC-32, reading it once from end to end. Does nothing where only some images are scored, or for sets of
    /// files, whose formats have checksums of their own.
    ///
    /// # Errors
    /// When the archive is damaged or cannot be read.
    pub(crate) async fn check(&self) -> Result<(), PipelineError> {
        match &self.inputs {
            Inputs::Archive { archive, .. } if self.images() == Some(archive.rows) => {
                tracing::info!(set = self.display(), "holding the archive to its checksum");
                archive.check().await
            }
            _ => Ok(()),
        }
    }

    /// The images of one unit, in order; none for a unit that the set does not have. To be polled in a tokio runtime.
    pub(crate) fn read_unit(&self, unit: u32) -> BoxStream<'static, Result<SetImage, PipelineError>> {
        self.inputs.read_unit(unit)
    }

    pub(crate) fn preparation(&self) -> Preparation {
        self.preparation
    }
}

impl Inputs {
    fn address(&self) -> &str {
        match self {
            Self::Listed { address, .. } => address,
            Self::Archive { archive, .. } => archive.uri(),
        }
    }

    fn units(&self) -> u32 {
        match self {
            Self::Listed { inputs, .. } => inputs.last().map_or(0, |input| input.unit + 1),
            Self::Archive { units, .. } => units.len() as u32,
        }
    }

    fn read_unit(&self, unit: u32) -> BoxStream<'static, Result<SetImage, PipelineError>> {
        match self {
            Self::Archive { archive, units } => archive.read(units.get(unit as usize).cloned().unwrap_or_default()),
            Self::Listed { inputs, reader, .. } => {
                let start = inputs.partition_point(|input| input.unit < unit);
                let end = inputs.partition_point(|input| input.unit <= unit);
                let inputs = inputs[start..end].to_vec();
                reader.read(inputs.into_iter()).map_ok(SetImage::from).boxed()
            }
        }
    }

    /// Height and width of the first image that is one.
    async fn first_size(&self, limits: DecodeLimits) -> Result<(usize, usize), PipelineError> {
        for unit in 0..self.units() {
            let mut images = self.read_unit(unit);
            while let Some(image) = images.try_next().await? {
                let opened = spawn_blocking(move || open(image.body, &limits));
                if let Ok((image, _)) = joined(opened.await).await {
                    return Ok((image.height as usize, image.width as usize));
                }
            }
        }
        let problem = "not one of its images can be read".to_owned();
        Err(PipelineError::Source { uri: self.address().to_owned(), problem })
    }

    async fn archive(
        source: &SourceOptions,
        unit_size: usize,
        limits: &Limits,
        digest: &mut Sha256,
    ) -> Result<Self, PipelineError> {
        let archive = NpzImages::open(&source.url, limits).await?;
        let rows = source.max_images.map_or(archive.rows, |most| most.min(archive.rows));
        if rows == 0 {
            let problem = "a limit of 0 images leaves nothing to do".to_owned();
            return Err(PipelineError::Source { uri: archive.uri().to_owned(), problem });
        }
        let (size, etag) = archive.identity();
        // Archives of as many images are all of one size: the checksum of the pixels tells them apart where nothing else does.
        let shape = (rows, archive.height, archive.width, archive.crc32());
        freeze(digest, "npz", &(archive.uri(), size, etag, shape));
        let units: Vec<_> = equal_ranges(rows, unit_size as u64).collect();
        check_units(units.len())?;
        Ok(Self::Archive { archive, units })
    }

    async fn listed(
        source: &SourceOptions,
        unit_size: usize,
        limits: &Limits,
        digest: &mut Sha256,
    ) -> Result<Self, PipelineError> {
        let (storage, pattern) = open_address(&source.url, limits)?;
        let listing = list_storage(&storage, &pattern, source, limits).await?;
        for input in listing.inputs.iter() {
            // With its address: some stores have no version tags, and those of a local disk are dates.
            let name = without_secrets(&input.uri);
            freeze(digest, listing.layout.name(), &(name, input.size, input.etag.as_deref(), input.rows));
        }
        let (layout, images) = (listing.layout, listing.images);
        let inputs = divide(layout, listing.inputs, unit_size).collect::<Result<Vec<_>, _>>()?;
        check_units(inputs.last().map_or(0, |input| input.unit as usize))?;
        let class_names = listing.class_names;
        if source.reading != SourceReading::default() {
            freeze(digest, "reading", &source.reading);
        }
        let (reading, most) = (source.reading.clone(), limits.max_image_bytes);
        let reader = InputReader::new(storage, layout, source.image_id, class_names, most, reading, limits);
        if layout == SourceLayout::Webdataset {
            tracing::debug!(shards = inputs.len(), "each shard is a unit: its features are in memory until it is done");
        }
        Ok(Self::Listed { address: listing.source, images, inputs, reader })
    }
}

/// Makes one input part of the digest.
fn freeze(digest: &mut Sha256, layout: &str, input: &impl serde::Serialize) {
    let line = serde_json::to_vec(&(layout, input)).expect("text and numbers are always JSON");
    digest.update(line);
    digest.update(b"\n");
}

fn check_units(units: usize) -> Result<(), PipelineError> {
    match u32::try_from(units) {
        Ok(_) => Ok(()),
        Err(_) => Err(PipelineError::Settings { problem: format!("{units} units are too many: use larger units") }),
    }
}
