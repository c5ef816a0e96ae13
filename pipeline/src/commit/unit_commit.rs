//! The puts that make a unit complete: tokens, images, pictures where there are any, marker.

use super::{
    markers::parse_marker,
    table_check::{check_metadata, same_images, same_tokens},
    unit_rows::{PictureFile, UnitRows},
};
use crate::{
    PipelineError, PutOutcome, Storage,
    cpu_pool::CpuPool,
    tables::{decode_images, decode_tokens, encode_images, encode_tokens},
    telemetry::{Stage, Telemetry},
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use schemas::{
    FileRecord, KEY_DEVICE_KIND, Plan, Provenance, SCHEMA_VERSION, TokenRows, UnitReport, WriterInfo, images_path,
    marker_path, read_key, sha256_hex, to_json, tokens_path,
};
use std::{sync::Arc, time::Instant};

/// Files of pictures put at once: PNG files are many and small.
const PICTURES_AT_ONCE: usize = 16;

/// How a commit ended.
#[derive(Debug)]
pub(crate) enum Committed {
    /// With the unit's marker.
    Whole(UnitReport),
    /// Before anything that is made of codes was written: another attempt's codes were there first and are not ours.
    Overtaken { ours: UnitRows, tokens: TokenRows },
}

/// A unit that is encoded and not yet written.
#[derive(Debug)]
pub(crate) struct UnitCommit {
    pub(crate) output: Storage,
    pub(crate) plan: Arc<Plan>,
    pub(crate) unit: u32,
    pub(crate) writer_info: WriterInfo,
    pub(crate) cpu: CpuPool,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) started: Instant,
}

/// Both files in memory, and what must be true of any file in their place.
struct EncodedTables {
    tokens: Bytes,
    images: Bytes,
    rows: UnitRows,
}

impl UnitCommit {
    /// Writes both tables, the pictures and the marker. Done again after a crash at any instant, it ends with the same objects.
    ///
    /// # Errors
    /// When another file stands in the place of one of ours that is no attempt at the same unit; storage errors.
    pub(crate) async fn commit(&self, rows: UnitRows) -> Result<Committed, PipelineError> {
        let row_counts = rows.row_counts.clone();
        let tables = self.encode(rows).await?;
        let hash = self.plan.hash();
        let split = &self.plan.settings().split;
        let token_rows = row_counts.token_rows;
        let mut overtaken = None;
        let (tokens, tokens_adopted) = self
            .put_table(tokens_path(split, self.unit, hash), tables.tokens.clone(), token_rows, |uri, bytes| {
                let tokens_per_image = self.plan.settings().tokenizer.levels.tokens_per_image();
                let (metadata, there) = decode_tokens(bytes, tokens_per_image, uri)?;
                check_metadata(&metadata, &self.plan, self.unit, uri)?;
                same_tokens(&there, &tables.rows.tokens, uri)?;
                if !tables.rows.pictures.is_empty() && there.tokens != tables.rows.tokens.tokens {
                    overtaken = Some(there);
                }
                Ok(read_key(&metadata, KEY_DEVICE_KIND)?.to_owned())
            })
            .await?;
        if let Some(tokens) = overtaken {
            return Ok(Committed::Overtaken { ours: tables.rows, tokens });
        }
        let (images, images_adopted) = self
            .put_table(images_path(split, self.unit, hash), tables.images.clone(), row_counts.listed, |uri, bytes| {
                let (metadata, there) = decode_images(bytes, uri)?;
                check_metadata(&metadata, &self.plan, self.unit, uri)?;
                same_images(&there, &tables.rows.images, uri)?;
                Ok(read_key(&metadata, KEY_DEVICE_KIND)?.to_owned())
            })
            .await?;
        let pictures = self.put_pictures(&tables.rows.pictures).await?;
        let adopted = tokens_adopted.is_some() || images_adopted.is_some();
        let device_kind = tokens_adopted.unwrap_or_else(|| self.writer_info.device_kind.clone());
        let report = UnitReport {
            schema_version: SCHEMA_VERSION,
            plan: self.plan.hash().clone(),
            unit: self.unit,
            row_counts,
            tokens,
            images,
            pictures,
            device_kind,
            adopted,
            seconds: self.started.elapsed().as_secs_f64(),
        };
        self.put_marker(report).await.map(Committed::Whole)
    }

    /// Puts the pictures. Those of another attempt that are there follow from the same codes; their last bits are their device's.
    async fn put_pictures(&self, pictures: &[PictureFile]) -> Result<Vec<FileRecord>, PipelineError> {
        let put = |file: &PictureFile| {
            let (path, bytes, rows) = (file.path.clone(), file.bytes.clone(), file.rows);
            async move {
                let of_another = |_: &str, _: Bytes| Ok(String::new());
                let (record, _) = self.put_table(path, bytes, rows, of_another).await?;
                Ok(record)
            }
        };
        // Gathered first: a stream that borrows its items through a closure is not seen to be `Send`.
        let puts: Vec<_> = pictures.iter().map(put).collect();
        stream::iter(puts).buffered(PICTURES_AT_ONCE).try_collect().await
    }

    async fn encode(&self, rows: UnitRows) -> Result<EncodedTables, PipelineError> {
        let provenance = Provenance {
            plan: self.plan.hash().clone(),
            unit: self.unit,
            settings: self.plan.settings().clone(),
            writer_info: self.writer_info.clone(),
        };
        let split = &self.plan.settings().split;
        let tokens_uri = self.output.uri(&tokens_path(split, self.unit, self.plan.hash()));
        let images_uri = self.output.uri(&images_path(split, self.unit, self.plan.hash()));
        let telemetry = Arc::clone(&self.telemetry);
        self.cpu
            .spawn_cpu(move || {
                let started = Instant::now();
                let tokens = encode_tokens(&rows.tokens, &provenance, &tokens_uri)?;
                let images = encode_images(&rows.images, &provenance, &images_uri)?;
                telemetry.record_busy(Stage::Write, started.elapsed());
                Ok(EncodedTables { tokens, images, rows })
            })
            .await
    }

    /// Puts one file, create-only. Says what is there in the end, and if that is another attempt's file, the kind of device that
    /// made it; `check` reads that after having held the file to be as good as ours.
    async fn put_table(
        &self,
        path: String,
        bytes: Bytes,
        rows: u64,
        check: impl FnOnce(&str, Bytes) -> Result<String, PipelineError>,
    ) -> Result<(FileRecord, Option<String>), PipelineError> {
        let started = Instant::now();
        let in_stage = self.telemetry.enter(Stage::Write);
        let (there, adopted) = match self.output.put_create(&path, bytes.clone()).await? {
            PutOutcome::Created | PutOutcome::Same => (bytes, None),
            PutOutcome::Different(there) => {
                let device_kind = check(&self.output.uri(&path), there.clone())?;
                // No row is lost: the same images were encoded twice, perhaps on another kind of device.
                tracing::warn!(unit = self.unit, %path, "another attempt's file with other bytes was there first and is kept");
                (there, Some(device_kind))
            }
        };
        self.telemetry.record(Stage::Write, 1, there.len() as u64, started.elapsed());
        drop(in_stage);
        let record = FileRecord { path, bytes: there.len() as u64, sha256: sha256_hex(&there), rows };
        Ok((record, adopted))
    }

    async fn put_marker(&self, report: UnitReport) -> Result<UnitReport, PipelineError> {
        let path = marker_path(self.unit, self.plan.hash());
        let bytes = Bytes::from(to_json(&path, &report)?);
        let size = bytes.len() as u64;
        let started = Instant::now();
        match self.output.put_create(&path, bytes).await? {
            PutOutcome::Created | PutOutcome::Same => {
                self.telemetry.record(Stage::Write, 1, size, started.elapsed());
                Ok(report)
            }
            // Another process finished the unit meanwhile. Its marker has its own clock, but speaks of the same files.
            PutOutcome::Different(there) => {
                let theirs = parse_marker(&self.output, &self.plan, self.unit, &there)?;
                if !theirs.files().eq(report.files()) || theirs.row_counts != report.row_counts {
                    return Err(PipelineError::Output {
                        uri: self.output.uri(&path),
                        problem: "the marker that is there describes other files than those that are there".to_owned(),
                    });
                }
                Ok(theirs)
            }
        }
    }
}
