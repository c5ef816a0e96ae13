//! One image of a set, as it lies there and as it is scored.

use crate::{
    DecodeLimits, FetchPermit, PipelineError, RgbImage, SourceImage, crop_views, decode, decode_image,
    units::DecodedImage,
};
use bytes::Bytes;
use schemas::{Crop, RejectReason, ScoredRow};

/// An image as it lies in its set.
#[derive(Debug)]
pub(crate) struct SetImage {
    pub(super) image_id: String,
    /// Address of its bytes, for messages.
    pub(super) source: String,
    pub(super) label: Option<i32>,
    pub(super) body: Body,
}

/// Its bytes.
#[derive(Debug)]
pub(super) enum Body {
    /// A file, or why there is none.
    Encoded { bytes: Result<Bytes, (RejectReason, String)>, permit: FetchPermit },
    /// `[height, width, 3]`.
    Pixels { pixels: Bytes, height: usize, width: usize },
}

impl SetImage {
    /// Bytes that were fetched for it.
    pub(crate) fn fetched_bytes(&self) -> u64 {
        let length = match &self.body {
            Body::Encoded { bytes, .. } => bytes.as_ref().map_or(0, Bytes::len),
            Body::Pixels { pixels, .. } => pixels.len(),
        };
        length as u64
    }
}

impl From<SourceImage> for SetImage {
    fn from(image: SourceImage) -> Self {
        let SourceImage { image_id, source, label, bytes, permit, .. } = image;
        Self { image_id, source, label, body: Body::Encoded { bytes, permit } }
    }
}

/// What is kept of an image besides its pixels: its row, or why it cannot be scored.
pub(crate) type PreparedRow = Result<ScoredRow, RejectedImage>;

/// A broken image.
#[derive(Debug)]
pub(crate) struct RejectedImage {
    pub(crate) image_id: String,
    pub(crate) source: String,
    pub(crate) reason: RejectReason,
    pub(crate) error: String,
}

/// How images are prepared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Preparation {
    pub(crate) crop: Option<Crop>,
    pub(crate) limits: DecodeLimits,
    /// Height and width that every image must come out with.
    pub(crate) shape: (usize, usize),
}

impl Preparation {
    /// Decodes and crops an image. Deterministic: the same bytes give the same pixels or the same reject everywhere.
    ///
    /// # Errors
    /// When it is taken as it is and has another size than the set.
    pub(crate) fn prepare(&self, image: SetImage) -> Result<DecodedImage<PreparedRow>, PipelineError> {
        let SetImage { image_id, source, label, body } = image;
        let (image, format) = match open(body, &self.limits) {
            Ok(opened) => opened,
            Err((reason, error)) => {
                let row = Err(RejectedImage { image_id, source, reason, error });
                return Ok(DecodedImage { row, views: Vec::new() });
            }
        };
        let views = match self.crop {
            Some(crop) => {
                let mut view = Vec::new();
                crop_views(&image, crop, &mut view);
                view
            }
            None => {
                let (height, width) = self.shape;
                if (image.height as usize, image.width as usize) != self.shape {
                    let problem = format!(
                        "{}x{} pixels, but the first image of the set has {width}x{height}: a set of mixed sizes cannot be scored as \
                         it is, name a crop",
                        image.width, image.height
                    );
                    return Err(PipelineError::Source { uri: source, problem });
                }
                image.pixels
            }
        };
        Ok(DecodedImage { row: Ok(ScoredRow { image_id, label, format }), views })
    }
}

/// Its pixels, and how they lay in the set.
pub(super) fn open(body: Body, limits: &DecodeLimits) -> Result<(RgbImage, String), (RejectReason, String)> {
    match body {
        Body::Pixels { pixels, height, width } => {
            let image = RgbImage { width: width as u32, height: height as u32, pixels: pixels.into() };
            Ok((image, "pixels".to_owned()))
        }
        Body::Encoded { bytes, permit } => {
            let bytes = bytes?;
            let decoded = decode_image(&bytes, limits).map_err(|failure| (failure.reason, failure.message))?;
            let format = decode::format_name(&bytes).unwrap_or_default();
            // Nothing reads the encoded bytes any more; the next fetch may have their room.
            drop((bytes, permit));
            Ok((decoded, format))
        }
    }
}
