//! References: what a set is compared with, in the form of the field.
//!
//! | Member | What |
//! |---|---|
//! | `mu`, `sigma` | mean and covariance of pool features, `[2048]` and `[2048, 2048]` |
//! | `mu_s`, `sigma_s` | the same of spatial features, `[2023]` and `[2023, 2023]` |
//! | `arr_0` | images, `[n, height, width, 3]` bytes; not read here |
//! | `features` | pool features of single images, `[n, 2048]` float32: ours, for precision and recall without the images |
//! | `restok.json` | how it was made: ours |
//!
//! Source: evaluations/c2i/evaluator.py (the names and what is computed where one is missing).

use crate::{
    Limits, PipelineError,
    background_task::joined,
    npz::{Checked, Member, NpzArchive, PIXELS},
    storage::without_secrets,
};
use schemas::{ReferenceProvenance, ScoredImages};
use std::{io::Read, sync::Arc};
use tokio::{runtime::Handle, task::spawn_blocking};

/// The members, as they stand in the archive.
pub(super) const MU: &str = "mu.npy";
pub(super) const SIGMA: &str = "sigma.npy";
pub(super) const MU_SPATIAL: &str = "mu_s.npy";
pub(super) const SIGMA_SPATIAL: &str = "sigma_s.npy";
pub(super) const FEATURES: &str = "features.npy";
pub(super) const PROVENANCE: &str = "restok.json";

/// Longest account of a reference's making that is read, in bytes.
const MOST_PROVENANCE_BYTES: u64 = 1 << 20;

/// First and second moment of features.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureMoments {
    /// Mean, `[features]`.
    pub mean: Vec<f64>,
    /// Covariance, `[features, features]`, symmetric.
    pub covariance: Vec<f64>,
}

/// A reference that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference {
    /// SHA-256 of its file, lowercase hexadecimal.
    pub sha256: String,
    /// Moments of pool features.
    pub pool: Option<FeatureMoments>,
    /// Moments of spatial features.
    pub spatial: Option<FeatureMoments>,
    /// Pool features of single images, `[images, ScoredImages::POOL]`.
    pub features: Option<Vec<f32>>,
    /// Whether images are there too: the same address then opens as a [`crate::ImageSet`].
    pub has_images: bool,
    /// How it was made, where it says so.
    pub provenance: Option<ReferenceProvenance>,
}

/// Reads the reference at `url`, an archive `*.npz` in any store. All of the file is read once for its digest, in pieces.
///
/// # Errors
/// When it cannot be read or is no archive; when it holds neither moments of pool features nor images; when a member has another type
/// or shape than it must have, is damaged, or stands without its other half.
pub async fn read_reference(url: &str, limits: &Limits) -> Result<Reference, PipelineError> {
    if !NpzArchive::is_named_by(url) {
        let problem = "expected the address of one archive that ends in .npz".to_owned();
        return Err(PipelineError::Address { url: without_secrets(url), problem });
    }
    let archive = Arc::new(NpzArchive::open(url, limits).await?);
    let has_images = archive.member(PIXELS)?.is_some();
    let (handle, span, opened) = (Handle::current(), tracing::Span::current(), Arc::clone(&archive));
    let reading = spawn_blocking(move || {
        span.in_scope(|| {
            let arrays = Arrays { archive: &opened, handle };
            let pool = arrays.moments(MU, SIGMA, ScoredImages::POOL)?;
            let spatial = arrays.moments(MU_SPATIAL, SIGMA_SPATIAL, ScoredImages::SPATIAL)?;
            Ok::<_, PipelineError>((pool, spatial, arrays.features()?, arrays.provenance()?))
        })
    });
    let (pool, spatial, features, provenance) = joined(reading.await).await?;
    if pool.is_none() && !has_images {
        let problem = format!(
            "it holds neither mu and sigma nor images (arr_0); found {}: is this a reference?",
            archive.names()
        );
        return Err(PipelineError::Source { uri: archive.uri().to_owned(), problem });
    }
    let sha256 = archive.sha256().await?;
    Ok(Reference { sha256, pool, spatial, features, has_images, provenance })
}

/// The arrays of an archive, for a thread that may block.
struct Arrays<'a> {
    archive: &'a NpzArchive,
    handle: Handle,
}

impl Arrays<'_> {
    /// Mean and covariance of `features` features; none where neither is there.
    fn moments(&self, mean: &str, covariance: &str, features: usize) -> Result<Option<FeatureMoments>, PipelineError> {
        let (mean, covariance) = match (self.archive.member(mean)?, self.archive.member(covariance)?) {
            (Some(mean), Some(covariance)) => (mean, covariance),
            (None, None) => return Ok(None),
            (found, _) => {
                let (there, lacks) = if found.is_some() { (mean, covariance) } else { (covariance, mean) };
                return Err(self.archive.wrong(there, format!("it is there without {lacks}")));
            }
        };
        let length = features as u64;
        let mean = self.floats(mean, &[length])?;
        let covariance = self.floats(covariance, &[length, length])?;
        Ok(Some(FeatureMoments { mean, covariance }))
    }

    /// An array of float32 or float64 of this shape. Fortran order is as good where the array is symmetric, as covariances are.
    fn floats(&self, member: &Member, shape: &[u64]) -> Result<Vec<f64>, PipelineError> {
        let wrong = |problem: String| self.archive.wrong(&member.name, problem);
        let mut reader = Checked::new(self.archive.reader(member, self.handle.clone())?);
        let header = self.archive.header(member, &mut reader)?;
        if header.shape != shape {
            return Err(wrong(format!("shape {:?}, expected {shape:?}", header.shape)));
        }
        let width = match header.descr.as_str() {
            "<f4" | ">f4" => 4,
            "<f8" | ">f8" => 8,
            other => return Err(wrong(format!("elements of type {other:?}, expected float32 or float64"))),
        };
        let count = shape.iter().product::<u64>() as usize;
        let bytes = self.elements(member, &mut reader, count * width)?;
        reader.finish(self.archive, member)?;
        let values: Vec<f64> = match header.descr.as_str() {
            "<f4" => bytes.as_chunks().0.iter().map(|&four| f64::from(f32::from_le_bytes(four))).collect(),
            ">f4" => bytes.as_chunks().0.iter().map(|&four| f64::from(f32::from_be_bytes(four))).collect(),
            "<f8" => bytes.as_chunks().0.iter().map(|&eight| f64::from_le_bytes(eight)).collect(),
            _ => bytes.as_chunks().0.iter().map(|&eight| f64::from_be_bytes(eight)).collect(),
        };
        match values.iter().find(|value| !value.is_finite()) {
            Some(value) => Err(wrong(format!("{value} among its elements, expected numbers"))),
            None => Ok(values),
        }
    }

    fn features(&self) -> Result<Option<Vec<f32>>, PipelineError> {
        let Some(member) = self.archive.member(FEATURES)? else { return Ok(None) };
        let wrong = |problem: String| self.archive.wrong(FEATURES, problem);
        let mut reader = Checked::new(self.archive.reader(member, self.handle.clone())?);
        let header = self.archive.header(member, &mut reader)?;
        if header.descr != "<f4" || header.fortran_order {
            let order = if header.fortran_order { "Fortran" } else { "C" };
            return Err(wrong(format!("type {:?} in {order} order, expected \"<f4\" in C order", header.descr)));
        }
        let width = ScoredImages::POOL as u64;
        let expected = match header.shape[..] {
            [images, features] if features == width && images > 0 => images.checked_mul(width * 4),
            _ => return Err(wrong(format!("shape {:?}, expected [images, {width}]", header.shape))),
        };
        // Before memory is taken: what a header says, the member must have.
        let elements = expected.filter(|bytes| bytes.checked_add(header.bytes) == Some(member.size));
        let elements = elements
            .ok_or_else(|| wrong(format!("{} bytes, which are no array of shape {:?}", member.size, header.shape)))?;
        let bytes = self.elements(member, &mut reader, elements as usize)?;
        reader.finish(self.archive, member)?;
        let values: Vec<f32> = bytes.as_chunks().0.iter().map(|&four| f32::from_le_bytes(four)).collect();
        match values.iter().find(|value| !value.is_finite()) {
            Some(value) => Err(wrong(format!("{value} among its elements, expected numbers"))),
            None => Ok(Some(values)),
        }
    }

    fn provenance(&self) -> Result<Option<ReferenceProvenance>, PipelineError> {
        let Some(member) = self.archive.member(PROVENANCE)? else { return Ok(None) };
        let wrong = |problem: String| self.archive.wrong(PROVENANCE, problem);
        if member.size > MOST_PROVENANCE_BYTES {
            return Err(wrong(format!("{} bytes, expected at most {MOST_PROVENANCE_BYTES}", member.size)));
        }
        let mut reader = Checked::new(self.archive.reader(member, self.handle.clone())?);
        let bytes = self.elements(member, &mut reader, member.size as usize)?;
        reader.finish(self.archive, member)?;
        serde_json::from_slice(&bytes).map(Some).map_err(|error| wrong(error.to_string()))
    }

    fn elements(&self, member: &Member, reader: &mut impl Read, bytes: usize) -> Result<Vec<u8>, PipelineError> {
        let mut elements = vec![0; bytes];
        reader.read_exact(&mut elements).map_err(|error| self.archive.read_error(&member.name, error))?;
        Ok(elements)
    }
}
