//! `restok train-generator`: a generator from tables of tokens.

mod samples;
mod validation;

use crate::{
    progress::Progress,
    settings::{SettingsError, TokenFacts, TrainGeneratorSettings},
    training::{
        driver::{NextBatch, Training, TrainingData, TrainingOptions, Validator},
        session,
        sheet::Sheet,
        trained_on::TrainedOn,
    },
};
use anyhow::Result;
use models::{Device, GeneratorConfig, GeneratorRecipe, GeneratorTrainer, Precision, ProcessGroup, Trainer};
use pipeline::{Limits, PipelineError, Storage, TokenTables, TrainingTokens, TrainingTokensOptions};
use report::text::{bytes, count, counted, tenths};
use samples::Samples;
use schemas::TokenBatch;
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use validation::Validation;

/// Trains until all is done or a signal comes, with the other processes of `group` if there are any.
///
/// # Errors
/// Whatever ended it; [`crate::exit_code::of`] tells what the scheduler should do.
pub(crate) fn run(
    settings: &TrainGeneratorSettings,
    limits: &Limits,
    (group, device): (Option<Arc<ProcessGroup>>, Device),
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<()> {
    let _exporting = session::export_metrics(group.as_deref(), &settings.run, progress)?;
    let tables = TokenTables::open(&settings.source, limits)?;
    let class_names = class_names(settings, limits)?;
    let facts = TokenFacts { tokenizer: tables.tokenizer(), images: tables.images(), named_classes: class_names.len() };
    let (config, recipe) = settings.fit(facts)?;
    let steps = recipe.learning_rate.steps;
    tell_length(&tables, settings, steps);
    let validation = Validation::open(settings, limits, &tables, config.classes())?;
    let trained_on = TrainedOn { tokenizer: tables.tokenizer().clone(), class_names };
    let load = || Samples::load(settings, &trained_on, config.classes(), (device, recipe.precision));
    let samples = if session::is_first(group.as_deref()) { load()? } else { None };
    let fixed = fixed(settings, &config, &recipe, &tables, &trained_on)?;
    let mut folder = session::run_folder(group.as_deref(), &settings.run, &fixed)?;
    session::tell_device(device, recipe.precision, settings.batches);
    let options = TrainingTokensOptions {
        memory_bytes: settings.memory_bytes,
        ..TrainingTokensOptions::new(settings.batches.size, config.classes(), recipe.seed)
    };
    let trainer = GeneratorTrainer::new(config, recipe, device)?;
    let mut columns: Vec<String> = trainer.scalars().into_iter().map(str::to_owned).collect();
    if validation.is_some() {
        columns.extend(Validation::columns(trainer.config()));
    }
    let run_options = TrainingOptions {
        group,
        settings: fixed,
        schedule: settings.run.schedule(steps),
        accumulation: settings.batches.accumulation,
        global_batch_size: settings.global_batch_size(),
        publish_precision: settings.run.publish_precision,
        allow_other_settings: settings.run.allow_other_settings,
        machine: models::machine(device),
    };
    let open = |from| Ok(ShuffledTokens(TrainingTokens::start(&tables, &options, from)?));
    let scored = ScoresAndSamples { validation, samples };
    let mut training = Training::begin(trainer, open, scored, folder.as_mut(), run_options)?;
    session::carry_out(&mut training, &columns, steps, folder.as_mut(), progress, cancel)?;
    let Some(_) = folder else { return Ok(()) };
    Ok(crate::output::print(&session::report(&training, steps, &settings.run))?)
}

/// Names of the classes by number: those that were typed, else those of the plans of the tables, which must agree.
fn class_names(settings: &TrainGeneratorSettings, limits: &Limits) -> Result<Vec<String>> {
    if let Some(names) = &settings.class_names {
        return Ok(names.clone());
    }
    let runtime = tokio::runtime::Handle::current();
    let mut named: Option<(&String, Vec<String>)> = None;
    for url in &settings.source {
        let plan = runtime.block_on(pipeline::read_plan(&Storage::open(url, limits)?))?;
        let names = plan.map(|plan| plan.class_names().to_vec()).unwrap_or_default();
        match &named {
            _ if names.is_empty() => {}
            None => named = Some((url, names)),
            Some((first, expected)) if *expected != names => {
                return Err(SettingsError::invalid(
                    "--source",
                    format!(
                        "{} and {} with other names of classes",
                        pipeline::without_secrets(first),
                        pipeline::without_secrets(url)
                    ),
                    "tables whose labels mean the same, or --class-names to say that they do",
                )
                .into());
            }
            Some(_) => {}
        }
    }
    Ok(named.map(|(_, names)| names).unwrap_or_default())
}

/// Says in words what an epoch is and how many of them the steps are.
fn tell_length(tables: &TokenTables, settings: &TrainGeneratorSettings, steps: u64) {
    for table in tables.tables() {
        let (images, views) = (counted(table.images, "image"), counted(table.views as u64, "view"));
        tracing::info!("tokens of {images}, {views} each, from {}", table.url);
    }
    let (images, global_batch_size) = (tables.images(), settings.global_batch_size());
    tracing::info!(
        "an epoch is one view of each of the {}, which is {} of {}; {} are {} epochs",
        counted(images, "image"),
        counted(images.div_ceil(global_batch_size), "step"),
        counted(global_batch_size, "image"),
        counted(steps, "step"),
        tenths(steps as f64 * global_batch_size as f64 / images as f64),
    );
    let (needed, allowed) = (tables.bytes(), settings.memory_bytes);
    if needed > allowed {
        let (rows, needed, allowed) = (count(tables.rows()), bytes(needed), bytes(allowed));
        tracing::info!(
            "all {rows} rows of tokens would take {needed} in memory: they stream file by file through {allowed} (--memory-bytes)"
        );
    }
}

/// What must stay the same from the first start of a run to its last.
fn fixed(
    settings: &TrainGeneratorSettings,
    config: &GeneratorConfig,
    recipe: &GeneratorRecipe,
    tables: &TokenTables,
    trained_on: &TrainedOn,
) -> Result<serde_json::Value> {
    let plans: Vec<&str> = tables.tables().iter().map(|table| table.plan.as_str()).collect();
    let mut fixed = serde_json::json!({
        "generator": serde_json::from_str::<serde_json::Value>(&config.to_json())?,
        "recipe": recipe,
        "batch_size": settings.batches.size,
        "accumulation": settings.batches.accumulation,
        "tables": { "digest": tables.digest(), "plans": plans },
        "trained_on": trained_on,
    });
    session::add_processes(&mut fixed, settings.batches.processes);
    Ok(fixed)
}

struct ShuffledTokens(TrainingTokens);

impl TrainingData for ShuffledTokens {
    type Batch = (TokenBatch, Vec<i32>);
    const WAITING_ADVICE: &'static str =
        "give more --decode-threads, --memory-bytes that hold all tokens, or tables that are nearer";
    const DIGEST: &'static str = "order_digest";

    fn next(&mut self, cancel: &CancellationToken) -> Result<NextBatch<Self::Batch>, PipelineError> {
        let batch = self.0.next_unless(cancel)?;
        Ok(NextBatch { batch: (batch.tokens, batch.labels), epoch: batch.epoch, next: batch.next })
    }

    fn waited(&self) -> Duration {
        self.0.waited()
    }

    fn digest(&self) -> &str {
        self.0.order_digest()
    }

    fn told_of_change(&self, _: &str) -> String {
        "the order of the tokens has changed since this run was begun: other tables, or another --memory-bytes where not all of \
         them fit. Train on the same ones with the same memory, or into another --output"
            .to_owned()
    }

    fn rejected(&self) -> Option<u64> {
        // A damaged file of a table ends the run.
        None
    }
}

/// What there is to score on, and to draw with.
struct ScoresAndSamples {
    validation: Option<Validation>,
    samples: Option<Samples>,
}

impl Validator<GeneratorTrainer> for ScoresAndSamples {
    const LOWER_IS_BETTER: bool = true;

    fn scores(&self, trainer: &GeneratorTrainer, group: Option<&ProcessGroup>) -> Result<Vec<(String, f64)>> {
        match &self.validation {
            Some(validation) => validation.scores(trainer, group),
            None => Ok(Vec::new()),
        }
    }

    fn sheet(&self, trainer: &GeneratorTrainer, _: &[(TokenBatch, Vec<i32>)]) -> Result<Option<Sheet>> {
        self.samples.as_ref().map(|samples| samples.sheet(trainer)).transpose()
    }

    fn final_scores(
        &self,
        trainer: &GeneratorTrainer,
        stored: Precision,
        group: Option<&ProcessGroup>,
    ) -> Result<serde_json::Value> {
        match &self.validation {
            Some(validation) => validation.final_scores(&trainer.ema(stored)?, group),
            None => Ok(serde_json::Value::Null),
        }
    }

    fn validated_on(&self) -> String {
        self.validation.as_ref().map_or_else(String::new, Validation::name)
    }

    fn digest(&self) -> String {
        self.validation.as_ref().map_or_else(String::new, Validation::digest)
    }
}
