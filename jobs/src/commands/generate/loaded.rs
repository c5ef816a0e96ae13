//! The networks of a job that generates, and whether they fit each other.

use crate::{
    model_folder::{ModelFolder, generator_identity, tokenizer_identity},
    networks::{self, Borrowed, Slot},
    settings::{ClassChoice, Codes, GenerateSettings, SettingsError},
    training::trained_on::TrainedOn,
    workers::Workers,
};
use anyhow::{Context, Result};
use models::{Device, Generator, GeneratorConfig, VisualTokenizer};
use pipeline::{DecoderFactory, SamplerFactory};
use report::text::tenths;
use schemas::{GeneratorIdentity, Sampling, TokenizerIdentity};
use std::time::Instant;

/// The networks, loaded once on the first device: their identities are part of the plan, and a broken checkpoint ends the job
/// early. Those of other devices are loaded by their threads. All wait in their slots for the next run of the process.
#[derive(Debug)]
pub(crate) struct Loaded {
    workers: Vec<(String, Device)>,
    generator: Option<LoadedGenerator>,
    tokenizer_folder: ModelFolder,
    tokenizer_slots: Vec<Slot<VisualTokenizer>>,
    /// The tokenizer.
    pub(super) tokenizer: TokenizerIdentity,
    /// Side of its pictures in pixels.
    pub(super) side: usize,
    /// Names of the classes, by number, as far as anybody gave them.
    pub(super) class_names: Vec<String>,
}

/// The generator of a job that draws.
#[derive(Debug)]
pub(super) struct LoadedGenerator {
    folder: ModelFolder,
    slots: Vec<Slot<Generator>>,
    pub(super) identity: GeneratorIdentity,
    pub(super) config: GeneratorConfig,
}

impl Loaded {
    /// Finds and loads the networks that `settings` names.
    ///
    /// # Errors
    /// When one is missing or damaged, or they do not fit each other.
    pub(crate) async fn load(settings: &GenerateSettings, workers: &Workers) -> Result<Self> {
        let started = Instant::now();
        let settings = settings.clone();
        let workers: Vec<_> = workers.named().collect();
        let names: Vec<String> = workers.iter().map(|(name, _)| name.clone()).collect();
        let loaded = tokio::task::spawn_blocking(move || Self::load_blocking(&settings, workers)).await??;
        tracing::info!(
            tokenizer = loaded.tokenizer.name,
            generator = loaded.generator.as_ref().map(|generator| &generator.identity.name),
            devices = names.join(","),
            seconds = tenths(started.elapsed().as_secs_f64()),
            "networks loaded"
        );
        Ok(loaded)
    }

    fn load_blocking(settings: &GenerateSettings, workers: Vec<(String, Device)>) -> Result<Self> {
        let device = workers.first().map(|(_, device)| *device).context("no device to compute on")?;
        let tokenizer_folder = ModelFolder::find(&settings.tokenizer)?;
        let tokenizer = tokenizer_folder.load_tokenizer(device, settings.decoder_precision)?;
        let identity = tokenizer_identity(&tokenizer);
        let mut class_names = settings.sheets.class_names.clone();
        let generator = match &settings.codes {
            Codes::Read(_) => None,
            Codes::Draw { generator, .. } => {
                let folder = ModelFolder::find(generator)?;
                let generator = folder.load_generator(device, settings.precision)?;
                check_fit(generator.config(), &identity)?;
                let trained_on = TrainedOn::read(folder.path())?;
                check_trained_on(trained_on.as_ref(), &identity, settings.allow_other_tokenizer)?;
                if class_names.is_empty() {
                    class_names = trained_on.map(|trained_on| trained_on.class_names).unwrap_or_default();
                }
                Some(LoadedGenerator {
                    folder,
                    identity: generator_identity(&generator),
                    config: generator.config().clone(),
                    slots: slots(generator, workers.len()),
                })
            }
        };
        if !settings.precision.is_native(device) {
            tracing::warn!("{device} has no instructions for {}: fp32 will be faster", settings.precision);
        }
        Ok(Self {
            generator,
            tokenizer_folder,
            side: tokenizer.resolution(),
            tokenizer_slots: slots(tokenizer, workers.len()),
            tokenizer: identity,
            class_names,
            workers,
        })
    }

    /// Side of the tokenizer's pictures in pixels.
    pub(crate) fn side(&self) -> usize {
        self.side
    }

    /// The generator.
    ///
    /// # Errors
    /// When nothing is drawn.
    pub(super) fn generator(&self) -> Result<&LoadedGenerator> {
        self.generator.as_ref().context("a generator is loaded where samples are drawn")
    }

    /// The generator on the first device, to draw with at once.
    ///
    /// # Errors
    /// When nothing is drawn, or it must be loaded again and cannot.
    pub(super) fn borrow_generator(&self, settings: &GenerateSettings) -> Result<Borrowed<Generator>> {
        let generator = self.generator()?;
        let (slot, (_, device)) = generator.slots.iter().zip(&self.workers).next().context("no device")?;
        Ok(slot.borrow_or(|| generator.folder.load_generator(*device, settings.precision))?)
    }

    /// The tokenizer on the first device, to decode with at once.
    ///
    /// # Errors
    /// When it must be loaded again and cannot.
    pub(super) fn borrow_tokenizer(&self, settings: &GenerateSettings) -> Result<Borrowed<VisualTokenizer>> {
        let (slot, (_, device)) = self.tokenizer_slots.iter().zip(&self.workers).next().context("no device")?;
        Ok(slot.borrow_or(|| self.tokenizer_folder.load_tokenizer(*device, settings.decoder_precision))?)
    }

    /// A name and a factory for each worker that draws.
    pub(super) fn samplers(&self, settings: &GenerateSettings, sampling: &Sampling) -> Vec<(String, SamplerFactory)> {
        let Some(LoadedGenerator { folder, slots, .. }) = &self.generator else { return Vec::new() };
        let sampler = |((name, device), slot): (&(String, Device), &Slot<Generator>)| {
            let place = (*device, settings.precision);
            (name.clone(), networks::sampler(slot.clone(), folder.clone(), place, sampling.clone()))
        };
        self.workers.iter().zip(slots).map(sampler).collect()
    }

    /// A name and a factory for each worker that decodes.
    pub(super) fn decoders(&self, settings: &GenerateSettings) -> Vec<(String, DecoderFactory)> {
        let decoder = |((name, device), slot): (&(String, Device), &Slot<VisualTokenizer>)| {
            let place = (*device, settings.decoder_precision);
            (name.clone(), networks::decoder(slot.clone(), self.tokenizer_folder.clone(), place, settings.rounding))
        };
        self.workers.iter().zip(&self.tokenizer_slots).map(decoder).collect()
    }
}

impl LoadedGenerator {
    /// The classes that were asked for, if the generator knows them.
    ///
    /// # Errors
    /// When it does not.
    pub(super) fn choose_classes(&self, choice: &ClassChoice) -> Result<Vec<i32>, SettingsError> {
        let known = i32::try_from(self.config.classes()).unwrap_or(i32::MAX);
        match choice {
            ClassChoice::All => Ok((0..known).collect()),
            ClassChoice::Listed(classes) => match classes.iter().find(|&&class| class < 0 || class >= known) {
                None => Ok(classes.clone()),
                Some(class) => {
                    let expected = format!("0 to {}, the classes of the generator", known - 1);
                    Err(SettingsError::invalid("--classes", class.to_string(), expected))
                }
            },
        }
    }
}

/// A slot for each worker; the first holds the network that is loaded.
fn slots<T>(first: T, workers: usize) -> Vec<Slot<T>> {
    std::iter::once(Slot::of(first)).chain(std::iter::repeat_with(Slot::default)).take(workers).collect()
}

/// The generator's codes must be those of the tokenizer.
fn check_fit(generator: &GeneratorConfig, tokenizer: &TokenizerIdentity) -> Result<(), SettingsError> {
    let found = (generator.levels().sizes(), generator.codebook_size());
    let expected = (tokenizer.levels.sizes(), tokenizer.codebook_size);
    if found == expected {
        return Ok(());
    }
    let describe = |(levels, codes): (&[usize], usize)| format!("levels of {levels:?} tokens of {codes} codes");
    let expected = format!("{}, as --tokenizer has", describe(expected));
    Err(SettingsError::invalid("--generator", describe(found), expected))
}

/// A generator that says which tokenizer's codes it was trained on is not decoded by another one's.
fn check_trained_on(
    trained_on: Option<&TrainedOn>,
    tokenizer: &TokenizerIdentity,
    allow_other: bool,
) -> Result<(), SettingsError> {
    let Some(trained_on) = trained_on.filter(|trained_on| trained_on.tokenizer.sha256 != tokenizer.sha256) else {
        return Ok(());
    };
    let shown = |identity: &TokenizerIdentity| {
        format!("{} (sha256 {})", identity.name, identity.sha256.get(..12).unwrap_or(&identity.sha256))
    };
    let expected = format!(
        "{}, on whose codes the generator was trained, or --allow-other-tokenizer",
        shown(&trained_on.tokenizer)
    );
    let other = SettingsError::invalid("--tokenizer", shown(tokenizer), expected);
    match allow_other {
        true => {
            tracing::warn!("{other}");
            Ok(())
        }
        false => Err(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::TokenLevels;

    fn tokenizer(tokens: usize, codebook_size: usize) -> TokenizerIdentity {
        TokenizerIdentity {
            name: "tokenizer".to_owned(),
            sha256: "a".repeat(64),
            codebook_size,
            levels: TokenLevels::published(tokens).expect("a power of two"),
        }
    }

    #[test]
    fn a_generator_of_other_codes_is_refused_with_both() {
        let data = models::GeneratorData { codebook_size: 512, classes: 3, tokens_per_image: 32 };
        let config = GeneratorConfig::of_size(models::GeneratorSize::Tiny, data).expect("a size");
        check_fit(&config, &tokenizer(32, 512)).expect("it fits");
        for (tokens, codes) in [(64, 512), (32, 1024)] {
            let error = check_fit(&config, &tokenizer(tokens, codes)).expect_err("it does not").to_string();
            assert!(error.contains("512") && error.contains("--generator"), "{error}");
        }
    }

    #[test]
    fn a_generator_of_another_tokenizer_is_refused_unless_allowed() {
        let other = TokenizerIdentity { sha256: "b".repeat(64), ..tokenizer(32, 512) };
        let trained_on = TrainedOn { tokenizer: other, class_names: Vec::new() };
        let here = tokenizer(32, 512);
        check_trained_on(None, &here, false).expect("published checkpoints say nothing");
        check_trained_on(Some(&trained_on), &trained_on.tokenizer, false).expect("its own");
        check_trained_on(Some(&trained_on), &here, true).expect("allowed");
        let error = check_trained_on(Some(&trained_on), &here, false).expect_err("another").to_string();
        assert!(error.contains("bbbbbbbbbbbb") && error.contains("--allow-other-tokenizer"), "{error}");
    }
}
