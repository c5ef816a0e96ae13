//! Tokenizing: images are read, cropped and encoded.

use super::{EarlyDuplicates, Engine, Run, RunReport, unit::ImageUnits, work_through};
use crate::{
    EncoderFactory, PipelineError, SourceReader,
    cpu_pool::CpuPool,
    device_worker::{AnswerShape, DevicePool},
    telemetry::Stage,
};
use schemas::{PixelBatch, SchemaError, TokenBatch};
use std::{sync::Arc, time::Duration};

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
    let settings = run.plan.settings();
    let images = settings.origin.images().cloned().ok_or_else(|| SchemaError::Document {
        document: "plan".to_owned(),
        problem: "its rows do not come from images, so there is nothing to encode".to_owned(),
    })?;
    let shape = AnswerShape {
        tokens_per_image: settings.tokenizer.levels.tokens_per_image(),
        codebook_size: settings.tokenizer.codebook_size,
        side: 0,
    };
    let (plan, telemetry, limits) = (Arc::clone(&run.plan), Arc::clone(&run.telemetry), run.limits.clone());
    let units_in_flight = encoders.len() + 1;
    let start = async move |cpu: &CpuPool| {
        telemetry.set_capacity(Stage::Decode, cpu.threads());
        let check = (shape, AnswerShape::check_codes::<PixelBatch> as _);
        let queued = limits.queued_batches_per_device;
        let devices = DevicePool::start(encoders, Stage::Encode, queued, check, &telemetry).await?;
        let units = match limits.units_in_flight {
            0 => units_in_flight,
            units => units,
        };
        telemetry.set_capacity(Stage::Fetch, units.min(plan.units() as usize));
        let units = ImageUnits {
            plan,
            images,
            source,
            devices: devices.queue(),
            cpu: cpu.clone(),
            telemetry,
            decode_ahead_images: limits.decode_ahead_images,
            duplicates: Arc::<EarlyDuplicates>::default(),
        };
        Ok(Encoding { units, devices })
    };
    work_through(run, "tokenizing", units_in_flight, start).await
}

/// The devices that encode, and the units that wait for them.
struct Encoding {
    units: ImageUnits,
    devices: DevicePool<PixelBatch, TokenBatch>,
}

impl Engine for Encoding {
    type Source = ImageUnits;

    fn source(&self) -> ImageUnits {
        self.units.clone()
    }

    fn device_kind(&self) -> String {
        self.devices.device_kind()
    }

    fn failure(&self) -> PipelineError {
        self.devices.failure()
    }

    async fn close(self, patience: Duration) {
        self.devices.close(patience).await;
    }
}
