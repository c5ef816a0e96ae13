//! A reference of one's own, as one archive that NumPy opens.

use super::reference::{FEATURES, FeatureMoments, MU, MU_SPATIAL, PROVENANCE, SIGMA, SIGMA_SPATIAL};
use crate::{PipelineError, PutOutcome, Storage, background_task::joined, npz::NpyHeader};
use bytes::Bytes;
use schemas::{ReferenceProvenance, SchemaError, ScoredImages, sha256_hex};
use std::io::{Cursor, Write};
use tokio::task::spawn_blocking;
use zip::{CompressionMethod, DateTime, ZipWriter, result::ZipError, write::SimpleFileOptions};

/// What a reference is made of.
#[derive(Clone, Debug)]
pub struct NewReference {
    /// Moments of pool features, of [`ScoredImages::POOL`] each.
    pub pool: FeatureMoments,
    /// Moments of spatial features, of [`ScoredImages::SPATIAL`] each.
    pub spatial: Option<FeatureMoments>,
    /// Pool features of single images, `[images, ScoredImages::POOL]`, for precision and recall.
    pub features: Option<Vec<f32>>,
    /// How it was made.
    pub provenance: ReferenceProvenance,
}

/// A reference that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferenceWritten {
    /// Its address, without credentials.
    pub uri: String,
    /// SHA-256 of its file, lowercase hexadecimal.
    pub sha256: String,
    /// Whether this call wrote it; else it was there with the same bytes.
    pub created: bool,
}

/// Writes a reference, once: whole or not at all. The same reference gives the same bytes; they are in memory until they are written:
/// 66 MB, and 8 KB for each image whose features are kept.
///
/// # Errors
/// When something has another size than it must have, another file is there under this name, or the store fails.
pub async fn write_reference(
    output: &Storage,
    path: &str,
    reference: NewReference,
) -> Result<ReferenceWritten, PipelineError> {
    let uri = output.uri(path);
    let wrong = |error: ZipError| PipelineError::Output { uri: uri.clone(), problem: error.to_string() };
    check(&reference)?;
    let encoded = spawn_blocking(move || {
        let bytes = encode(&reference)?;
        Ok::<_, ZipError>((sha256_hex(&bytes), Bytes::from(bytes)))
    });
    let (sha256, bytes) = joined(encoded.await).await.map_err(wrong)?;
    let created = match output.put_create(path, bytes).await? {
        PutOutcome::Created => true,
        PutOutcome::Same => false,
        PutOutcome::Different(found) => {
            let problem = format!("another file of {} bytes is there: give the reference another name", found.len());
            return Err(PipelineError::Output { uri, problem });
        }
    };
    Ok(ReferenceWritten { uri, sha256, created })
}

fn check(reference: &NewReference) -> Result<(), SchemaError> {
    let fits = |what: &'static str, found: usize, expected: usize| match found == expected {
        true => Ok(()),
        false => Err(SchemaError::Shape { what, found: found.to_string(), expected: expected.to_string() }),
    };
    let (pool, spatial) = (ScoredImages::POOL, ScoredImages::SPATIAL);
    fits("mean of pool features", reference.pool.mean.len(), pool)?;
    fits("covariance of pool features", reference.pool.covariance.len(), pool * pool)?;
    if let Some(moments) = &reference.spatial {
        fits("mean of spatial features", moments.mean.len(), spatial)?;
        fits("covariance of spatial features", moments.covariance.len(), spatial * spatial)?;
    }
    if let Some(features) = &reference.features {
        fits("pool features of a reference", features.len(), (features.len() / pool).max(1) * pool)?;
    }
    Ok(())
}

fn encode(reference: &NewReference) -> Result<Vec<u8>, ZipError> {
    let mut archive = Archive(ZipWriter::new(Cursor::new(Vec::new())));
    let (pool, spatial) = (ScoredImages::POOL as u64, ScoredImages::SPATIAL as u64);
    archive.doubles(MU, &[pool], &reference.pool.mean)?;
    archive.doubles(SIGMA, &[pool; 2], &reference.pool.covariance)?;
    if let Some(moments) = &reference.spatial {
        archive.doubles(MU_SPATIAL, &[spatial], &moments.mean)?;
        archive.doubles(SIGMA_SPATIAL, &[spatial; 2], &moments.covariance)?;
    }
    if let Some(features) = &reference.features {
        let mut bytes = vec![0; size_of_val(features.as_slice())];
        for (place, value) in bytes.as_chunks_mut().0.iter_mut().zip(features) {
            *place = value.to_le_bytes();
        }
        archive.member(FEATURES, &[&NpyHeader::encode("<f4", &[features.len() as u64 / pool, pool]), &bytes])?;
    }
    let mut provenance =
        serde_json::to_vec_pretty(&reference.provenance).map_err(|error| ZipError::Io(error.into()))?;
    provenance.push(b'\n');
    archive.member(PROVENANCE, &[&provenance])?;
    Ok(archive.0.finish()?.into_inner())
}

struct Archive(ZipWriter<Cursor<Vec<u8>>>);

impl Archive {
    fn doubles(&mut self, name: &str, shape: &[u64], values: &[f64]) -> Result<(), ZipError> {
        let mut bytes = vec![0; size_of_val(values)];
        for (place, value) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
            *place = value.to_le_bytes();
        }
        self.member(name, &[&NpyHeader::encode("<f8", shape), &bytes])
    }

    fn member(&mut self, name: &str, pieces: &[&[u8]]) -> Result<(), ZipError> {
        // Stored, because numbers of this kind do not shrink; the format's first moment, because there is no "none".
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .last_modified_time(DateTime::default())
            .unix_permissions(0o644)
            .large_file(true);
        self.0.start_file(name, options)?;
        pieces.iter().try_for_each(|piece| self.0.write_all(piece)).map_err(ZipError::Io)
    }
}
