//! Generating: samples are drawn, or tokens that are there are taken, and turned into pictures.

use super::{
    Run, RunReport, Started,
    sample_units::{CodeQueue, SampleUnits},
    work_through, writer_info,
};
use crate::{
    DecoderFactory, PipelineError, SamplerFactory, TableReader,
    cpu_pool::CpuPool,
    device_worker::{DevicePool, Devices, codes_check, pictures_check},
    telemetry::Stage,
};
use schemas::{Origin, PixelBatch, PlanSettings, SampleBatch, SchemaError, TokenBatch};
use std::{sync::Arc, time::Duration};

/// Where codes come from.
pub enum CodeSource {
    /// They are drawn: a name and a factory for each device.
    Samplers(Vec<(String, SamplerFactory)>),
    /// They stand in the tables of another output.
    Tables(TableReader),
}

/// Everything that generating needs.
pub struct GenerateRun {
    /// What every run needs.
    pub common: Run,
    /// Where codes come from.
    pub codes: CodeSource,
    /// A name and a factory for each device that turns codes into pictures; none where the plan asks for none. They are threads of
    /// their own, so that one batch is decoded while the next is drawn.
    pub decoders: Vec<(String, DecoderFactory)>,
}

impl std::fmt::Debug for CodeSource {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Samplers(samplers) => {
                let devices: Vec<&str> = samplers.iter().map(|(device, _)| device.as_str()).collect();
                formatter.debug_tuple("Samplers").field(&devices).finish()
            }
            Self::Tables(tables) => formatter.debug_tuple("Tables").field(tables).finish(),
        }
    }
}

impl std::fmt::Debug for GenerateRun {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("GenerateRun").field("common", &self.common).finish_non_exhaustive()
    }
}

/// Generates every unit of the plan that has no marker yet, and finalizes the output when all are there.
///
/// # Errors
/// As [`super::tokenize()`], but that no sample is ever rejected.
///
/// # Panics
/// With the panic of a device thread, should one panic.
pub async fn generate(run: GenerateRun) -> Result<RunReport, PipelineError> {
    let GenerateRun { common: run, codes, decoders } = run;
    check(run.plan.settings(), &codes)?;
    let start = async move |run: &Run, cpu: &CpuPool| {
        let Run { plan, limits, telemetry, .. } = run;
        let settings = plan.settings();
        let queued = limits.queued_batches_per_device;
        let (samplers, codes) = match codes {
            CodeSource::Tables(tables) => (None, CodeQueue::There(tables)),
            CodeSource::Samplers(samplers) => {
                let check = codes_check(&settings.tokenizer);
                let samplers = DevicePool::start(samplers, Stage::Sample, queued, check, telemetry).await?;
                let queue = CodeQueue::Drawn(samplers.queue());
                (Some(samplers), queue)
            }
        };
        let decoders = match settings.origin.pictures() {
            None => None,
            Some(pictures) => {
                let check = pictures_check(pictures.side);
                Some(DevicePool::start(decoders, Stage::Render, queued, check, telemetry).await?)
            }
        };
        let devices = GeneratingDevices { samplers, decoders };
        let writer_info = writer_info(run, devices.device_kind());
        let source = SampleUnits {
            plan: Arc::clone(plan),
            codes,
            decoders: devices.decoders.as_ref().map(DevicePool::queue),
            cpu: cpu.clone(),
            writer_info: writer_info.clone(),
            telemetry: Arc::clone(telemetry),
        };
        Ok(Started { source, devices, writer_info })
    };
    work_through(run, "generating", start).await
}

/// Holds a plan to what it is to be worked through with.
fn check(settings: &PlanSettings, codes: &CodeSource) -> Result<(), SchemaError> {
    let problem = match (&settings.origin, codes) {
        (Origin::Samples(samples), CodeSource::Samplers(_)) if samples.classes.is_empty() => "it names no class",
        (Origin::Samples(_), CodeSource::Samplers(_)) | (Origin::Tokens(_), CodeSource::Tables(_)) => return Ok(()),
        (Origin::Images(_), _) => "its rows come from images, which are tokenized, not generated",
        (Origin::Samples(_), CodeSource::Tables(_)) => "its codes are to be drawn, not read",
        (Origin::Tokens(_), CodeSource::Samplers(_)) => "its codes are to be read, not drawn",
    };
    Err(SchemaError::Document { document: "plan".to_owned(), problem: problem.to_owned() })
}

/// The devices of a run: those that draw codes, where they are drawn, and those that decode them, where pictures are wanted.
struct GeneratingDevices {
    samplers: Option<DevicePool<SampleBatch, TokenBatch>>,
    decoders: Option<DevicePool<TokenBatch, PixelBatch>>,
}

impl GeneratingDevices {
    /// Kinds of the devices that have a hand in the codes; where these are there, of those that decode them.
    fn device_kind(&self) -> String {
        let samplers = self.samplers.as_ref().map(DevicePool::device_kind);
        samplers.or_else(|| self.decoders.as_ref().map(DevicePool::device_kind)).unwrap_or_default()
    }
}

impl Devices for GeneratingDevices {
    fn count(&self) -> usize {
        let samplers = self.samplers.as_ref().map(DevicePool::count);
        samplers.or_else(|| self.decoders.as_ref().map(DevicePool::count)).unwrap_or_default()
    }

    fn try_failure(&self) -> Option<PipelineError> {
        let decoders = self.decoders.as_ref().and_then(DevicePool::try_failure);
        decoders.or_else(|| self.samplers.as_ref().and_then(DevicePool::try_failure))
    }

    async fn close(self, patience: Duration) {
        if let Some(samplers) = self.samplers {
            samplers.close(patience).await;
        }
        if let Some(decoders) = self.decoders {
            decoders.close(patience).await;
        }
    }
}
