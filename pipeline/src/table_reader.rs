//! An output read back, unit by unit, finished or not.

use crate::{
    PipelineError, Storage, TableFile,
    commit::{done_units, nothing_there, read_left_out, read_markers, read_plan},
    tables::{decode_images, decode_tokens},
};
use futures::{Stream, StreamExt, stream};
use schemas::{FileRecord, ImageRow, Plan, RowCounts, SUCCESS_PATH, SourceAccount, TokenRows, UnitReport};
use std::sync::Arc;

/// Files of a stream that are in memory at once: the one in use and the next.
const FILES_AT_ONCE: usize = 2;

/// The tables of an output. Goes by markers: a file without one does not exist.
#[derive(Clone, Debug)]
pub struct TableReader {
    output: Storage,
    plan: Arc<Plan>,
    reports: Arc<[UnitReport]>,
    finished: bool,
    left_out: SourceAccount,
}

impl TableReader {
    /// Reads plan and markers; no table yet.
    ///
    /// # Errors
    /// When nothing was ever written there, or plan or a marker is damaged; storage errors.
    pub async fn open(output: &Storage) -> Result<Self, PipelineError> {
        let plan = read_plan(output).await?.ok_or_else(|| nothing_there(output))?;
        let done = done_units(output, &plan).await?;
        let reports = read_markers(output, &plan, done).await?;
        let finished = output.exists(SUCCESS_PATH).await?;
        let left_out = read_left_out(output, plan.hash()).await?;
        Ok(Self { output: output.clone(), plan: Arc::new(plan), reports: reports.into(), finished, left_out })
    }

    /// The plan that owns the output.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Whether the output was finalized.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// The markers of all complete units, by unit.
    pub fn reports(&self) -> &[UnitReport] {
        &self.reports
    }

    /// Row counts of all complete units together, with what the listing of the source left out.
    pub fn row_counts(&self) -> RowCounts {
        let mut row_counts: RowCounts = self.reports.iter().map(|report| &report.row_counts).sum();
        row_counts.left_out.add(&self.left_out);
        row_counts
    }

    /// A unit's part of the tokens table.
    ///
    /// # Errors
    /// When the unit is not complete, or its file is not what its marker says; storage errors.
    pub async fn tokens(&self, unit: u32) -> Result<TableFile<TokenRows>, PipelineError> {
        let record = &self.report(unit)?.tokens;
        let bytes = self.output.get(&record.path).await?;
        let size = bytes.len() as u64;
        let tokens_per_image = self.plan.settings().tokenizer.levels.tokens_per_image();
        let (metadata, rows) = decode_tokens(bytes, tokens_per_image, &self.output.uri(&record.path))?;
        self.check_rows(record, rows.tokens.rows())?;
        Ok(TableFile { unit, path: record.path.clone(), metadata, bytes: size, rows })
    }

    /// A unit's part of the images table.
    ///
    /// # Errors
    /// As [`Self::tokens`].
    pub async fn images(&self, unit: u32) -> Result<TableFile<Vec<ImageRow>>, PipelineError> {
        let record = &self.report(unit)?.images;
        let bytes = self.output.get(&record.path).await?;
        let size = bytes.len() as u64;
        let (metadata, rows) = decode_images(bytes, &self.output.uri(&record.path))?;
        self.check_rows(record, rows.len())?;
        Ok(TableFile { unit, path: record.path.clone(), metadata, bytes: size, rows })
    }

    /// The whole tokens table, a file at a time in unit order; at most two are in memory.
    pub fn token_files(&self) -> impl Stream<Item = Result<TableFile<TokenRows>, PipelineError>> + Send + '_ {
        stream::iter(self.reports.iter()).map(|report| self.tokens(report.unit)).buffered(FILES_AT_ONCE)
    }

    /// The whole images table, a file at a time in unit order; at most two are in memory.
    pub fn image_files(&self) -> impl Stream<Item = Result<TableFile<Vec<ImageRow>>, PipelineError>> + Send + '_ {
        stream::iter(self.reports.iter()).map(|report| self.images(report.unit)).buffered(FILES_AT_ONCE)
    }

    fn report(&self, unit: u32) -> Result<&UnitReport, PipelineError> {
        let position = self.reports.binary_search_by_key(&unit, |report| report.unit);
        position.map(|position| &self.reports[position]).map_err(|_| PipelineError::Output {
            uri: self.output.display().to_owned(),
            problem: format!("unit {unit} is not complete"),
        })
    }

    fn check_rows(&self, record: &FileRecord, found: usize) -> Result<(), PipelineError> {
        if found as u64 == record.rows {
            return Ok(());
        }
        Err(PipelineError::Output {
            uri: self.output.uri(&record.path),
            problem: format!("{found} rows, but its marker says {}", record.rows),
        })
    }
}
