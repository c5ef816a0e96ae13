//! An output with tables: its row counts and settings, rejected images, the logs of its runs, pictures.

use super::{Pictures, pictures};
use crate::{
    Album,
    inspection::{Inspection, inspect},
    run_log::RunLog,
};
use anyhow::Result;
use pipeline::{Storage, TableReader};
use schemas::{ImageRow, from_json, log_prefix};

/// Rejected images that are named.
const REJECTS: usize = 10;

/// Logs that are read, the newest: a run that is started again and again may leave any number of them.
const LOGS: usize = 100;

/// The logs of the runs of an output.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    /// The newest, in the order in which their runs began.
    pub(crate) newest: Vec<RunLog>,
    /// Older ones, which were not read.
    pub(crate) older: usize,
}

/// Everything that the page says of an output.
#[derive(Debug)]
pub(crate) struct Tables {
    /// Row counts, settings and use of the codebook.
    pub(crate) inspection: Inspection,
    /// The first rejected images.
    pub(crate) rejects: Vec<ImageRow>,
    /// The runs that left a log.
    pub(crate) logs: Logs,
    /// The first pictures; `None` where the output has none.
    pub(crate) pictures: Option<Pictures>,
}

impl Tables {
    /// Reads an output, finished or not.
    ///
    /// # Errors
    /// When a file of it is damaged, or the store fails.
    pub(crate) async fn read(storage: &Storage, reader: &TableReader, album: &mut Album) -> Result<Self> {
        Ok(Self {
            inspection: inspect(storage, reader, 0).await?,
            rejects: rejects(reader).await?,
            logs: logs(storage, reader).await?,
            pictures: pictures::first_pictures(storage, reader, pictures::OF_A_SET, album).await?,
        })
    }
}

/// The first rejected images, from the units that have any.
async fn rejects(reader: &TableReader) -> Result<Vec<ImageRow>> {
    let mut found = Vec::new();
    for report in reader.reports().iter().filter(|report| report.row_counts.rejected_total() > 0) {
        let file = reader.images(report.unit).await?;
        let rejected = file.rows.into_iter().filter(|row| row.rejected.is_some());
        found.extend(rejected.take(REJECTS - found.len()));
        if found.len() == REJECTS {
            break;
        }
    }
    Ok(found)
}

/// The logs of the newest runs, which their names tell, for they begin with the time. One that does not read is passed over: it is no part of the output, and says nothing that is needed.
async fn logs(storage: &Storage, reader: &TableReader) -> Result<Logs> {
    let listed = storage.list(&log_prefix(reader.plan().hash())).await?;
    let older = listed.len().saturating_sub(LOGS);
    let mut logs = Vec::new();
    for object in &listed[older..] {
        let bytes = storage.get(&object.path).await?;
        match from_json::<RunLog>(&storage.uri(&object.path), &bytes) {
            Ok(log) if log.is_sound() => logs.push(log),
            Ok(_) => tracing::warn!(log = storage.uri(&object.path), "not a log that this version reads; passed over"),
            Err(error) => tracing::warn!(%error, "this log is passed over"),
        }
    }
    logs.sort_by(|left, right| (&left.started, left.rank).cmp(&(&right.started, right.rank)));
    Ok(Logs { newest: logs, older })
}
