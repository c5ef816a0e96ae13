//! `restok watch`: a job over many workers.

use crate::{
    output,
    progress::Progress,
    settings::{ReportFormat, WatchSettings},
};
use anyhow::Result;
use pipeline::{Limits, Storage};
use report::watch::{Look, Watcher, WorkerState, look_text};
use std::collections::BTreeSet;

/// Looks at a job again and again until its output is finished or nobody reads the looks, or once.
///
/// # Errors
/// When there is no output or a marker is damaged; when the store refuses. Where it fails for a while only, the next look goes on.
pub(crate) async fn run(settings: WatchSettings, limits: &Limits, progress: &Progress) -> Result<()> {
    let mut watcher = Watcher::open(Storage::open(&settings.output, limits)?).await?;
    if settings.once {
        let look = watcher.look().await?;
        match settings.format {
            ReportFormat::Json => output::print_json(&look)?,
            ReportFormat::Text => output::print(&look_text(&look))?,
        }
        return Ok(());
    }
    let shown = progress.looks();
    let mut told = BTreeSet::new();
    let last = loop {
        match watcher.look().await {
            Ok(look) => {
                shown.show(&look);
                tell_silent(&look, &mut told);
                if settings.format == ReportFormat::Json
                    && !output::print_to_reader(&format!("{}\n", serde_json::to_string(&look)?))?
                {
                    return Ok(());
                }
                if look.finished {
                    break look;
                }
            }
            Err(error) if error.is_temporary() => tracing::warn!(%error, "this look failed; the next one goes on"),
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(shown.period()).await;
    };
    drop(shown);
    if settings.format == ReportFormat::Text {
        output::print(&look_text(&last))?;
    }
    Ok(())
}

/// Warns of workers that fell silent since the last look, and says of those that were heard again.
fn tell_silent(look: &Look, told: &mut BTreeSet<String>) {
    for worker in &look.workers {
        // Of an engine's workers, each has rank 0.
        let rank = (!worker.engine).then_some(worker.rank);
        let (host, seconds) = (&worker.host, report::text::tenths(worker.heard_seconds_ago));
        match worker.state {
            WorkerState::Silent if told.insert(worker.name.clone()) => {
                tracing::warn!(rank, host, process = worker.process_id, seconds, "a worker fell silent");
            }
            WorkerState::Silent => {}
            _ if told.remove(&worker.name) => {
                tracing::info!(rank, host, process = worker.process_id, "a worker was heard again");
            }
            _ => {}
        }
    }
}
