//! How good the average of the weights is, in numbers and in a picture.

use super::source_options;
use crate::{
    settings::TrainTokenizerSettings,
    training::{driver::Validator, session, sheet::Sheet},
};
use anyhow::Result;
use models::{
    Device, Precision, ProcessGroup, ReconstructionMeter, ReconstructionScores, TokenizerConfig, TokenizerTrainer,
    Trainer, VisualTokenizer,
};
use pipeline::{Limits, ValidationImages, ValidationImagesOptions};
use schemas::{Crop, PixelBatch, Rounding};

/// Images of a sheet.
const SHEET_IMAGES: usize = 8;

/// The images to validate on, if there are any.
pub(super) struct Validation {
    device: Device,
    options: Option<ValidationImagesOptions>,
    /// Of the images and of how they are batched; empty where there are none.
    digest: String,
    /// The first images, for the sheet.
    shown: Option<PixelBatch>,
}

impl Validation {
    /// Of the images of the validation source, if there is any.
    pub(super) fn new(settings: &TrainTokenizerSettings, limits: &Limits, device: Device) -> Result<Self> {
        let Some(url) = &settings.validation_source else {
            return Ok(Self { device, options: None, digest: String::new(), shown: None });
        };
        let options = ValidationImagesOptions {
            max_reject_rate: settings.max_reject_rate.fraction(),
            limits: limits.clone(),
            ..ValidationImagesOptions::new(
                source_options(settings, url, Some(settings.run.validation_images)),
                // The crop of the published evaluation.
                Crop::TorchvisionCenter { size: settings.config.resolution() },
                settings.batches.size,
            )
        };
        // Found out now and not after the first thousand steps.
        let mut images = ValidationImages::open(&options)?;
        let shown = images.next()?;
        let digest = format!("{} {}", images.source_digest(), options.batch_size);
        Ok(Self { device, options: Some(options), digest, shown })
    }

    /// Names of all scores.
    pub(super) fn columns(&self, config: &TokenizerConfig) -> Vec<String> {
        if self.options.is_none() {
            return Vec::new();
        }
        let fixed = ["validation_psnr", "validation_ssim", "validation_codebook_used", "validation_codebook_entropy"];
        let levels = 1..=config.levels().sizes().len();
        fixed
            .iter()
            .map(ToString::to_string)
            .chain(levels.map(|level| format!("validation_codebook_used_level_{level}")))
            .collect()
    }

    /// Scores of reconstructions from each of `kept` tokens, in one pass over the images. Each process goes over all of them and reconstructs
    /// its own batches.
    fn measure(
        &self,
        tokenizer: &VisualTokenizer,
        options: &ValidationImagesOptions,
        kept: &[usize],
        group: Option<&ProcessGroup>,
    ) -> Result<Vec<ReconstructionScores>> {
        let meter = || ReconstructionMeter::new(self.device, tokenizer.levels().clone(), tokenizer.codebook_size());
        let mut meters = kept.iter().map(|_| meter()).collect::<Result<Vec<_>, _>>()?;
        let mut images = ValidationImages::open(options)?;
        let mut number = 0;
        while let Some(batch) = images.next()? {
            if session::is_own_batch(group, number) {
                let tokens = tokenizer.encode(&batch)?;
                for (meter, &keep_tokens) in meters.iter_mut().zip(kept) {
                    meter.update(&batch, &tokenizer.decode(&tokens, keep_tokens, Rounding::Nearest)?, &tokens)?;
                }
            }
            number += 1;
        }
        if let Some(group) = group {
            meters.iter_mut().try_for_each(|meter| meter.sum_over(group))?;
        }
        Ok(meters.into_iter().map(ReconstructionMeter::finish).collect::<Result<_, _>>()?)
    }
}

impl Validator<TokenizerTrainer> for Validation {
    const LOWER_IS_BETTER: bool = false;

    /// Of reconstructions from all tokens.
    fn scores(&self, trainer: &TokenizerTrainer, group: Option<&ProcessGroup>) -> Result<Vec<(String, f64)>> {
        let Some(options) = &self.options else { return Ok(Vec::new()) };
        let tokenizer = trainer.ema(Precision::Fp32)?;
        let keep_tokens = tokenizer.levels().tokens_per_image();
        let scores = self.measure(&tokenizer, options, &[keep_tokens], group)?.remove(0);
        let all = &scores.codebook;
        let values = [scores.psnr, scores.ssim, all.fraction, all.entropy_bits];
        let values = values.into_iter().chain(scores.codebook_by_level.iter().map(|level| level.fraction));
        Ok(self.columns(trainer.config()).into_iter().zip(values).collect())
    }

    /// A few images, and what is reconstructed from more and more of their tokens; of the last batch where there is no validation.
    fn sheet(&self, trainer: &TokenizerTrainer, trained_on: &[PixelBatch]) -> Result<Option<Sheet>> {
        let tokenizer = trainer.ema(Precision::Fp32)?;
        let images = self.shown.as_ref().or(trained_on.first());
        let images = images.ok_or_else(|| anyhow::anyhow!("there is no image to show"))?.first(SHEET_IMAGES)?;
        let tokens = tokenizer.encode(&images)?;
        let ends =
            tokenizer.levels().offsets().into_iter().filter(|&end| end >= trainer.config().fewest_tokens().max(1));
        let reconstructed = ends
            .map(|keep| Ok((keep, tokenizer.decode(&tokens, keep, Rounding::Nearest)?)))
            .collect::<Result<Vec<_>>>()?;
        let labels: Vec<String> = (1..=images.filled()).map(|image| image.to_string()).collect();
        Sheet::draw(&format!("step {}", trainer.steps_done()), &labels, &images, &reconstructed).map(Some)
    }

    /// From every number of levels, on all images of the validation source.
    fn final_scores(
        &self,
        trainer: &TokenizerTrainer,
        stored: Precision,
        group: Option<&ProcessGroup>,
    ) -> Result<serde_json::Value> {
        let Some(options) = &self.options else { return Ok(serde_json::Value::Null) };
        let tokenizer = trainer.ema(stored)?;
        let mut options = options.clone();
        options.source.max_images = None;
        let ends = tokenizer.levels().offsets().split_off(1);
        let scores = self.measure(&tokenizer, &options, &ends, group)?;
        let Some(all) = scores.last() else { return Ok(serde_json::Value::Null) };
        let by_tokens: Vec<_> = ends
            .iter()
            .zip(&scores)
            .map(|(tokens, scores)| serde_json::json!({ "tokens": tokens, "psnr": scores.psnr, "ssim": scores.ssim }))
            .collect();
        Ok(serde_json::json!({
            "images": all.images,
            "psnr": all.psnr,
            "ssim": all.ssim,
            "by_tokens": by_tokens,
            "codebook": all.codebook,
            "codebook_by_level": all.codebook_by_level,
        }))
    }

    fn validated_on(&self) -> String {
        self.options.as_ref().map_or_else(String::new, |options| {
            let images = options.source.max_images.map_or_else(String::new, |images| format!(", {images} images"));
            format!("{}{images}", pipeline::without_secrets(&options.source.url))
        })
    }

    fn digest(&self) -> String {
        self.digest.clone()
    }
}
