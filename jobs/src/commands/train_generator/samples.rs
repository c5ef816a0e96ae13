//! Samples of a generator in training, as a picture: a row a class. The same numbers and seed each time, so that sheets compare.

use crate::{
    contact_sheet::{SheetRow, picture},
    model_folder::{ModelFolder, tokenizer_identity},
    settings::{SettingsError, TrainGeneratorSettings},
    training::{sheet::Sheet, trained_on::TrainedOn},
};
use anyhow::Result;
use models::{Device, GeneratorTrainer, Precision, Trainer, VisualTokenizer};
use schemas::{Rounding, SampleBatch, Sampling};

/// Most classes of a sheet: all where there are no more, else some, spread evenly.
const SHEET_CLASSES: usize = 10;
/// Samples of each.
const SHEET_SAMPLES: usize = 8;

/// float32 of the kind that a training in `training` has on CUDA, where models of one process agree on TensorFloat-32.
fn sheet_precision(training: Precision) -> Precision {
    if training == Precision::Fp32 { Precision::Fp32 } else { Precision::Tf32 }
}

/// What draws samples.
pub(super) struct Samples {
    tokenizer: VisualTokenizer,
    sampling: Sampling,
    /// Number and name.
    classes: Vec<(i32, String)>,
}

impl Samples {
    /// Loads the tokenizer, if one is given; it must be the one whose codes are trained on.
    pub(super) fn load(
        settings: &TrainGeneratorSettings,
        trained_on: &TrainedOn,
        classes: usize,
        (device, training): (Device, Precision),
    ) -> Result<Option<Self>> {
        let Some(reference) = &settings.tokenizer else { return Ok(None) };
        let tokenizer = ModelFolder::find(reference)?.load_tokenizer(device, sheet_precision(training))?;
        let (found, expected) = (tokenizer_identity(&tokenizer), &trained_on.tokenizer);
        if found.sha256 != expected.sha256 {
            return Err(SettingsError::invalid(
                "--tokenizer",
                format!("{} (sha256 {})", found.name, found.sha256),
                format!("{} (sha256 {}), whose codes the tables hold", expected.name, expected.sha256),
            )
            .into());
        }
        let shown = classes.min(SHEET_CLASSES);
        let classes = (0..shown)
            .map(|place| {
                let class = place * classes / shown;
                let name = trained_on.class_names.get(class).cloned();
                (class as i32, name.unwrap_or_else(|| format!("class {class}")))
            })
            .collect();
        Ok(Some(Self { tokenizer, sampling: settings.sampling.clone(), classes }))
    }

    /// Draws samples with the average of the weights.
    pub(super) fn sheet(&self, trainer: &GeneratorTrainer) -> Result<Sheet> {
        let mut generator = trainer.ema(Precision::Fp32)?;
        let mut rows = Vec::with_capacity(self.classes.len());
        for (place, (class, label)) in self.classes.iter().enumerate() {
            let first = place * SHEET_SAMPLES;
            let numbers = (first..first + SHEET_SAMPLES).map(|number| number as u64).collect();
            let batch = SampleBatch::try_new(numbers, vec![*class; SHEET_SAMPLES], SHEET_SAMPLES)?;
            let tokens = generator.sample(&batch, &self.sampling)?;
            let pixels = self.tokenizer.decode(&tokens, tokens.tokens_per_image(), Rounding::Nearest)?;
            let images = (0..pixels.filled()).map(|row| picture(&pixels, row).map(Some)).collect::<Result<_>>()?;
            rows.push(SheetRow { label: label.clone(), images });
        }
        let captions: Vec<String> = (1..=SHEET_SAMPLES).map(|sample| sample.to_string()).collect();
        let title = format!("step {}, guidance {}", trainer.steps_done(), self.sampling.guidance.scale);
        Sheet::of(&title, &captions, &rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tokenizer_of_a_sheet_can_live_beside_the_training_in_every_precision() {
        for training in Precision::ALL {
            let sheet = sheet_precision(training);
            assert!(models::can_share_a_device(training, sheet), "{training} beside {sheet}");
        }
    }
}
