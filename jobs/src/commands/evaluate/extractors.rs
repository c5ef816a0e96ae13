//! The Inception network on every device.

use crate::{
    networks::{self, Slot},
    workers::Workers,
};
use anyhow::{Context, Result};
use models::{Device, ExtractorPrecision, Inception, InceptionHead};
use pipeline::ScorerFactory;
use report::text::tenths;
use std::{
    path::{Path, PathBuf},
    time::Instant,
};

/// The network, loaded once on the first device: a broken file ends the job before anything is listed. Those of other devices are
/// loaded by their threads. All wait in their slots for the next set of the process.
#[derive(Debug)]
pub(crate) struct Extractors {
    weights: PathBuf,
    precision: ExtractorPrecision,
    workers: Vec<(String, Device)>,
    slots: Vec<Slot<Inception>>,
    sha256: String,
}

impl Extractors {
    /// Loads the network.
    ///
    /// # Errors
    /// When its file is missing, damaged or holds another network.
    pub(crate) async fn load(weights: &Path, workers: &Workers, precision: ExtractorPrecision) -> Result<Self> {
        let started = Instant::now();
        let workers: Vec<_> = workers.named().collect();
        let device = workers.first().map(|(_, device)| *device).context("no device to compute on")?;
        let file = weights.to_owned();
        let first = tokio::task::spawn_blocking(move || Inception::load(&file, device, precision)).await??;
        let sha256 = first.sha256().to_owned();
        tracing::info!(
            weights = %weights.display(),
            sha256,
            precision = precision.name(),
            seconds = tenths(started.elapsed().as_secs_f64()),
            "Inception network loaded"
        );
        let slots =
            std::iter::once(Slot::of(first)).chain(std::iter::repeat_with(Slot::default)).take(workers.len()).collect();
        Ok(Self { weights: weights.to_owned(), precision, workers, slots, sha256 })
    }

    /// A name and a factory for each worker.
    pub(super) fn scorers(&self) -> Vec<(String, ScorerFactory)> {
        let scorer = |((name, device), slot): (&(String, Device), &Slot<Inception>)| {
            let place = (*device, self.precision);
            (name.clone(), networks::extractor(slot.clone(), self.weights.clone(), place))
        };
        self.workers.iter().zip(&self.slots).map(scorer).collect()
    }

    /// The network on the first device, to be taken away.
    pub(super) fn take_first(&self) -> Option<Inception> {
        self.slots.first().and_then(Slot::take)
    }

    /// The last layer, for the inception score.
    ///
    /// # Errors
    /// When the file cannot be read any more.
    pub(super) fn head(&self) -> Result<InceptionHead> {
        Ok(InceptionHead::load(&self.weights, self.device()?)?)
    }

    /// The device on which statistics are computed.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn device(&self) -> Result<Device> {
        self.workers.first().map(|(_, device)| *device).context("no device to compute on")
    }

    /// SHA-256 of the weights.
    pub(super) fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Arithmetic.
    pub(super) fn precision(&self) -> ExtractorPrecision {
        self.precision
    }
}
