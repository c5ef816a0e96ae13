//! How well the average of the weights predicts tokens of images that it has not learned.

use crate::{
    settings::{SettingsError, TrainGeneratorSettings},
    training::session,
};
use anyhow::Result;
use models::{
    Generator, GeneratorConfig, GeneratorTrainer, LevelScores, Precision, ProcessGroup, TokenMeter, TokenScores,
};
use pipeline::{Limits, TokenTables, ValidationTokens, ValidationTokensOptions};

/// The tokens to validate on.
pub(super) struct Validation {
    tables: TokenTables,
    options: ValidationTokensOptions,
}

impl Validation {
    /// Opens the tables, if there are any, and reads a first batch; they must be of the tokenizer that is trained on.
    pub(super) fn open(
        settings: &TrainGeneratorSettings,
        limits: &Limits,
        trained_on: &TokenTables,
        classes: usize,
    ) -> Result<Option<Self>> {
        if settings.validation_source.is_empty() {
            return Ok(None);
        }
        let tables = TokenTables::open(&settings.validation_source, limits)?;
        let (found, expected) = (tables.tokenizer(), trained_on.tokenizer());
        if (&found.sha256, found.codebook_size, &found.levels)
            != (&expected.sha256, expected.codebook_size, &expected.levels)
        {
            return Err(SettingsError::invalid(
                "--validation-source",
                format!("tokens of {} (sha256 {})", found.name, found.sha256),
                format!("tokens of {} (sha256 {}), as --source has", expected.name, expected.sha256),
            )
            .into());
        }
        let options = ValidationTokensOptions::new(settings.run.validation_images, settings.batches.size, classes);
        // Found out now and not after the first thousand steps.
        ValidationTokens::start(&tables, &ValidationTokensOptions { images: 1, ..options.clone() })?.next()?;
        Ok(Some(Self { tables, options }))
    }

    /// What is validated on.
    pub(super) fn name(&self) -> String {
        let images = self.options.images.min(self.tables.images());
        let urls: Vec<&str> = self.tables.tables().iter().map(|table| table.url.as_str()).collect();
        format!("{}, {images} images", urls.join(", "))
    }

    /// Of the tables, and how many of their images are taken in which batches.
    pub(super) fn digest(&self) -> String {
        format!("{} {} {}", self.tables.digest(), self.options.images, self.options.batch_rows)
    }

    /// Names of all scores. The first, the mean cross-entropy of all tokens in nats, is the one by which the best is kept.
    pub(super) fn columns(config: &GeneratorConfig) -> Vec<String> {
        let levels = 0..config.levels().sizes().len();
        let of_all = ["loss", "accuracy"].map(|score| format!("validation_{score}"));
        let by_level =
            of_all.iter().flat_map(|score| levels.clone().map(move |level| format!("{score}_level_{level}")));
        of_all.iter().cloned().chain(by_level).collect()
    }

    /// Scores of the average of the weights on the first images.
    pub(super) fn scores(
        &self,
        trainer: &GeneratorTrainer,
        group: Option<&ProcessGroup>,
    ) -> Result<Vec<(String, f64)>> {
        let scores = self.measure(&trainer.ema(Precision::Fp32)?, &self.options, group)?;
        let of_levels = |of: fn(&LevelScores) -> f64| scores.levels.iter().map(of);
        let by_level = of_levels(|level| level.loss).chain(of_levels(|level| level.accuracy));
        let values = [scores.all.loss, scores.all.accuracy].into_iter().chain(by_level);
        Ok(Self::columns(trainer.config()).into_iter().zip(values).collect())
    }

    /// Scores on all images of the validation source.
    pub(super) fn final_scores(
        &self,
        generator: &Generator,
        group: Option<&ProcessGroup>,
    ) -> Result<serde_json::Value> {
        let options = ValidationTokensOptions { images: self.tables.images(), ..self.options.clone() };
        let scores = self.measure(generator, &options, group)?;
        let by_level: Vec<_> = generator
            .levels()
            .sizes()
            .iter()
            .zip(&scores.levels)
            .map(|(tokens, level)| {
                serde_json::json!({ "tokens": tokens, "loss": level.loss, "accuracy": level.accuracy })
            })
            .collect();
        Ok(serde_json::json!({
            "images": scores.images,
            "loss": scores.all.loss,
            "accuracy": scores.all.accuracy,
            "by_level": by_level,
        }))
    }

    /// Each process goes over all batches and predicts its own.
    fn measure(
        &self,
        generator: &Generator,
        options: &ValidationTokensOptions,
        group: Option<&ProcessGroup>,
    ) -> Result<TokenScores> {
        let mut meter = TokenMeter::new(generator)?;
        let mut tokens = ValidationTokens::start(&self.tables, options)?;
        let mut number = 0;
        while let Some(batch) = tokens.next()? {
            if session::is_own_batch(group, number) {
                meter.update(generator, &batch.tokens, &batch.labels)?;
            }
            number += 1;
        }
        if let Some(group) = group {
            meter.sum_over(group)?;
        }
        Ok(meter.finish()?)
    }
}
