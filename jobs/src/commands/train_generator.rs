//! `restok train-generator`: a generator from tables of tokens.

mod samples;
mod validation;

use crate::{
    progress::Progress,
    settings::{SettingsError, TokenFacts, TrainGeneratorSettings},
    training::{run_folder::RunFolder, run_loop::Training, session, sheet::Sheet, trained_on::TrainedOn},
};
use anyhow::{Result, ensure};
use models::{Device, GeneratorConfig, GeneratorRecipe, GeneratorTrainer, Precision, StepReport};
use pipeline::{DataPosition, Limits, Storage, TokenTables, TrainingTokens, TrainingTokensOptions};
use report::text::{bytes, count, counted, tenths};
use samples::Samples;
use schemas::TokenBatch;
use serde::{Deserialize, Serialize};
use std::{path::Path, time::Duration};
use tokio_util::sync::CancellationToken;
use validation::Validation;

/// Where a run stands, and in which order of tokens.
#[derive(Debug, Serialize, Deserialize)]
struct Position {
    data: DataPosition,
    /// Of the frozen list of files and how memory divides it: a run goes on only in the same order.
    order_digest: String,
}

/// A generator in training with its tokens.
struct GeneratorTraining {
    trainer: GeneratorTrainer,
    tokens: TrainingTokens,
    accumulation: usize,
    images_a_step: u64,
    /// Rows of tokens with a class each.
    batches: Vec<(TokenBatch, Vec<i32>)>,
    /// Whether the batches are of the step to come.
    loaded: bool,
    epoch: u64,
    next: DataPosition,
    validation: Option<Validation>,
    samples: Option<Samples>,
    publish_precision: Precision,
}

/// Trains until all is done or a signal comes.
///
/// # Errors
/// Whatever ended it; [`crate::exit_code::of`] tells what the scheduler should do.
pub(crate) fn run(
    settings: TrainGeneratorSettings,
    limits: &Limits,
    device: Device,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<()> {
    let tables = TokenTables::open(&settings.source, limits)?;
    let class_names = class_names(&settings, limits)?;
    let facts = TokenFacts { tokenizer: tables.tokenizer(), images: tables.images(), named_classes: class_names.len() };
    let (config, recipe) = settings.fit(facts)?;
    let steps = recipe.learning_rate.steps;
    tell_length(&tables, &settings, steps);
    let validation = Validation::open(&settings, limits, &tables, config.classes())?;
    let trained_on = TrainedOn { tokenizer: tables.tokenizer().clone(), class_names };
    let samples = Samples::load(&settings, &trained_on, config.classes(), (device, recipe.precision))?;
    let fixed = fixed(&settings, &config, &recipe, &tables, &trained_on)?;
    let mut folder = RunFolder::open(&settings.run.output, settings.run.keep_checkpoints, fixed)?;
    session::tell_device(device, recipe.precision);
    let mut columns = Vec::new();
    if validation.is_some() {
        columns = Validation::columns(&config);
    }
    let options = TrainingTokensOptions {
        memory_bytes: settings.memory_bytes,
        ..TrainingTokensOptions::new(settings.batch_size, config.classes(), recipe.seed)
    };
    let mut trainer = GeneratorTrainer::new(config, recipe, device)?;
    let newest = folder.newest::<Position>(settings.run.allow_other_settings, &models::machine(device))?;
    let from = newest.as_ref().map_or_else(DataPosition::default, |(_, state)| state.position.data);
    let tokens = TrainingTokens::start(&tables, &options, from)?;
    if let Some((checkpoint, state)) = &newest {
        ensure!(
            tokens.order_digest() == state.position.order_digest,
            "the order of the tokens has changed since this run was begun: other tables, or another --memory-bytes where not all of \
             them fit. Train on the same ones with the same memory, or into another --output"
        );
        trainer.restore(checkpoint, state.steps_done)?;
        tracing::info!(step = state.steps_done, checkpoint = %checkpoint.display(), "going on");
    }
    let mut training = GeneratorTraining {
        accumulation: settings.accumulation,
        images_a_step: settings.images_a_step(),
        batches: Vec::new(),
        loaded: false,
        epoch: from.epoch,
        next: from,
        validation,
        samples,
        publish_precision: settings.run.publish_precision,
        trainer,
        tokens,
    };
    columns.splice(0..0, training.trainer.scalars().into_iter().map(str::to_owned));
    session::carry_out(&mut training, &columns, steps, &settings.run, &mut folder, progress, cancel)?;
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
    let (images, images_a_step) = (tables.images(), settings.images_a_step());
    tracing::info!(
        "an epoch is one view of each of the {}, which is {} of {}; {} are {} epochs",
        counted(images, "image"),
        counted(images.div_ceil(images_a_step), "step"),
        counted(images_a_step, "image"),
        counted(steps, "step"),
        tenths(steps as f64 * images_a_step as f64 / images as f64),
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
    Ok(serde_json::json!({
        "generator": serde_json::from_str::<serde_json::Value>(&config.to_json())?,
        "recipe": recipe,
        "batch_size": settings.batch_size,
        "accumulation": settings.accumulation,
        "tables": { "digest": tables.digest(), "plans": plans },
        "trained_on": trained_on,
    }))
}

impl Training for GeneratorTraining {
    type Position = Position;
    const PUBLISHED: &'static str = "generator";
    const LOWER_IS_BETTER: bool = true;
    const WAITING_ADVICE: &'static str =
        "give more --decode-threads, --memory-bytes that hold all tokens, or tables that are nearer";

    fn steps_done(&self) -> u64 {
        self.trainer.steps_done()
    }

    fn learning_rate(&self) -> f64 {
        self.trainer.learning_rate()
    }

    fn images_a_step(&self) -> u64 {
        self.images_a_step
    }

    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn load(&mut self, cancel: &CancellationToken) -> Result<()> {
        if self.loaded {
            return Ok(());
        }
        // All of them or none: where one is missing, the position stays that of the last update, which may be saved yet.
        let batches = (0..self.accumulation).map(|_| self.tokens.next_unless(cancel)).collect::<Result<Vec<_>, _>>()?;
        if let Some(last) = batches.last() {
            (self.epoch, self.next) = (last.epoch, last.next);
        }
        self.batches = batches.into_iter().map(|batch| (batch.tokens, batch.labels)).collect();
        self.loaded = true;
        Ok(())
    }

    fn waited(&self) -> Duration {
        self.tokens.waited()
    }

    fn step(&mut self) -> Result<StepReport> {
        self.loaded = false;
        Ok(self.trainer.step(&self.batches)?)
    }

    fn validate(&mut self) -> Result<Vec<(String, f64)>> {
        match &self.validation {
            Some(validation) => validation.scores(&self.trainer),
            None => Ok(Vec::new()),
        }
    }

    fn sheet(&mut self) -> Result<Option<Sheet>> {
        self.samples.as_ref().map(|samples| samples.sheet(&self.trainer)).transpose()
    }

    fn position(&self) -> Position {
        Position { data: self.next, order_digest: self.tokens.order_digest().to_owned() }
    }

    fn save(&self, folder: &Path) -> Result<()> {
        Ok(self.trainer.save(folder)?)
    }

    fn rejected(&self) -> Option<u64> {
        // A damaged file of a table ends the run.
        None
    }

    fn validated_on(&self) -> String {
        self.validation.as_ref().map_or_else(String::new, Validation::name)
    }

    fn final_scores(&self) -> Result<serde_json::Value> {
        match &self.validation {
            Some(validation) => validation.final_scores(&self.trainer.averaged(self.publish_precision)?),
            None => Ok(serde_json::Value::Null),
        }
    }

    fn published_precision(&self) -> String {
        self.publish_precision.to_string()
    }

    fn publish(&self, folder: &Path) -> Result<()> {
        Ok(self.trainer.averaged(self.publish_precision)?.save(folder)?)
    }
}
