//! What a reference that this project stored says of its making.

use super::Protocol;
use serde::{Deserialize, Serialize};

/// Member `restok.json` of a stored reference. Statistics of another protocol do not compare.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReferenceProvenance {
    /// The protocol it was made for.
    pub protocol: Protocol,
    /// Where its images are, without credentials.
    pub source: String,
    /// Digest of the frozen list of their files.
    pub source_digest: String,
    /// Images that its statistics are of.
    pub images: u64,
    /// Images that could not be read and were left out.
    pub rejected: u64,
    /// Height of its images in pixels.
    pub height: u64,
    /// Width of its images in pixels.
    pub width: u64,
    /// SHA-256 of the Inception weights.
    pub extractor_sha256: String,
    /// Arithmetic of the extractor: `float32` or `float64`.
    pub extractor_precision: String,
    /// How the images were cropped; absent for images as they are.
    pub crop: Option<String>,
    /// Version of the program that made it.
    pub restok: String,
}
