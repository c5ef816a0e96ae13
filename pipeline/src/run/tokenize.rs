//! Tokenizing: images are read, cropped and encoded.

use super::{EarlyDuplicates, Run, RunReport, Started, image_units::ImageUnits, work_through, writer_info};
use crate::{
    EncoderFactory, PipelineError, SourceReader,
    cpu_pool::CpuPool,
    device_worker::{DevicePool, codes_check},
    telemetry::Stage,
    units::ImageStages,
};
use schemas::SchemaError;
use std::sync::Arc;

/// Everything that tokenizing needs.
pub struct TokenizeRun {
    /// What every run needs.
    pub common: Run,
    /// Reads the plan's inputs.
    pub source: SourceReader,
    /// A name and a factory for each device. Built on their own threads, and only when there is work left.
    pub encoders: Vec<(String, EncoderFactory)>,
}

impl std::fmt::Debug for TokenizeRun {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let devices: Vec<&str> = self.encoders.iter().map(|(device, _)| device.as_str()).collect();
        formatter
            .debug_struct("TokenizeRun")
            .field("common", &self.common)
            .field("devices", &devices)
            .finish_non_exhaustive()
    }
}

/// Tokenizes every unit of the plan that has no marker yet, and finalizes the output when all are there.
///
/// # Errors
/// [`PipelineError::PlanConflict`] when the output belongs to another plan; [`PipelineError::RejectRate`] when too many images
/// were rejected; [`PipelineError::Encoder`], [`PipelineError::Stalled`], storage and source errors end the run;
/// [`PipelineError::Drained`] when it was asked to stop. Whatever the error, starting again goes on with the units that are
/// missing.
///
/// # Panics
/// With the panic of a decode or device thread, should one panic.
pub async fn tokenize(run: TokenizeRun) -> Result<RunReport, PipelineError> {
    let TokenizeRun { common: run, source, encoders } = run;
    let images = run.plan.settings().origin.images().cloned().ok_or_else(|| SchemaError::Document {
        document: "plan".to_owned(),
        problem: "its rows do not come from images, so there is nothing to encode".to_owned(),
    })?;
    let start = async move |run: &Run, cpu: &CpuPool| {
        let Run { plan, limits, telemetry, .. } = run;
        let check = codes_check(&plan.settings().tokenizer);
        let devices =
            DevicePool::start(encoders, Stage::Encode, limits.queued_batches_per_device, check, telemetry).await?;
        let shape = [plan.settings().batch_size, images.crop.size(), images.crop.size()];
        let stages = ImageStages::new(devices.queue(), shape, cpu, telemetry, limits);
        let (plan, duplicates) = (Arc::clone(plan), EarlyDuplicates::default());
        let writer_info = writer_info(run, devices.device_kind());
        Ok(Started { source: ImageUnits { plan, images, source, stages, duplicates }, devices, writer_info })
    };
    work_through(run, "tokenizing", start).await
}
