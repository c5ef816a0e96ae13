//! Generating: samples are drawn, or tokens that are there are taken, and turned into pictures.

use super::{CodeQueue, Engine, Run, RunReport, maker, sample_units::SampleUnits, work_through};
use crate::{
    DecoderFactory, PipelineError, SamplerFactory, TableReader,
    cpu_pool::CpuPool,
    device_worker::{AnswerShape, DevicePool},
    telemetry::{Stage, Telemetry},
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
    let (plan, telemetry, limits) = (Arc::clone(&run.plan), Arc::clone(&run.telemetry), run.limits.clone());
    let libtorch = run.libtorch.clone();
    let devices = match &codes {
        CodeSource::Samplers(samplers) => samplers.len(),
        CodeSource::Tables(_) => decoders.len(),
    };
    let start = async move |cpu: &CpuPool| {
        let settings = plan.settings();
        let shape = AnswerShape {
            tokens_per_image: settings.tokenizer.levels.tokens_per_image(),
            codebook_size: settings.tokenizer.codebook_size,
            side: settings.origin.pictures().map_or(0, |pictures| pictures.side),
        };
        let queued = limits.queued_batches_per_device;
        let codes = match codes {
            CodeSource::Tables(tables) => Codes::Tables(tables),
            CodeSource::Samplers(samplers) => {
                let check = (shape, AnswerShape::check_codes::<SampleBatch> as _);
                Codes::Samplers(DevicePool::start(samplers, Stage::Sample, queued, check, &telemetry).await?)
            }
        };
        let decoders = match settings.origin.pictures() {
            None => None,
            Some(_) => Some(start_decoders(decoders, shape, queued, &telemetry).await?),
        };
        let generating = Generating { codes, decoders };
        let maker = maker(libtorch, generating.device_kinds());
        let queue = match &generating.codes {
            Codes::Samplers(pool) => CodeQueue::Drawn(pool.queue()),
            Codes::Tables(tables) => CodeQueue::There(tables.clone()),
        };
        let units = SampleUnits {
            plan,
            codes: queue,
            decoders: generating.decoders.as_ref().map(DevicePool::queue),
            cpu: cpu.clone(),
            maker,
            telemetry,
        };
        Ok(Started { units, generating })
    };
    work_through(run, "generating", devices + 1, start).await
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

async fn start_decoders(
    decoders: Vec<(String, DecoderFactory)>,
    shape: AnswerShape,
    queued: usize,
    telemetry: &Arc<Telemetry>,
) -> Result<DevicePool<TokenBatch, PixelBatch>, PipelineError> {
    let check = (shape, AnswerShape::check_pictures as _);
    DevicePool::start(decoders, Stage::Render, queued, check, telemetry).await
}

/// Where codes come from, started.
enum Codes {
    Samplers(DevicePool<SampleBatch, TokenBatch>),
    Tables(TableReader),
}

/// The devices of a run.
struct Generating {
    codes: Codes,
    decoders: Option<DevicePool<TokenBatch, PixelBatch>>,
}

impl Generating {
    fn device_kinds(&self) -> String {
        match (&self.codes, &self.decoders) {
            (Codes::Samplers(pool), _) => pool.device_kind(),
            (Codes::Tables(_), Some(pool)) => pool.device_kind(),
            (Codes::Tables(_), None) => String::new(),
        }
    }
}

/// The devices, and the units that wait for them.
struct Started {
    units: SampleUnits,
    generating: Generating,
}

impl Engine for Started {
    type Source = SampleUnits;

    fn source(&self) -> SampleUnits {
        self.units.clone()
    }

    fn device_kind(&self) -> String {
        self.generating.device_kinds()
    }

    fn failure(&self) -> PipelineError {
        let decoders = self.generating.decoders.as_ref().and_then(DevicePool::try_failure);
        match (decoders, &self.generating.codes) {
            (Some(failure), _) => failure,
            (None, Codes::Samplers(pool)) => pool.failure(),
            (None, Codes::Tables(_)) => PipelineError::Encoder {
                device: "all".to_owned(),
                problem: "the devices ended without saying why".to_owned(),
                temporary: true,
            },
        }
    }

    async fn close(self, patience: Duration) {
        drop(self.units);
        if let Codes::Samplers(pool) = self.generating.codes {
            pool.close(patience).await;
        }
        if let Some(pool) = self.generating.decoders {
            pool.close(patience).await;
        }
    }
}
