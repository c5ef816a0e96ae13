//! The training step of the tokenizer (`train_one_epoch` in utils/train_utils.py, `ReconstructionLoss` in modeling/modules/losses.py).

use super::{
    FrozenFiles, StepReport, TokenizerRecipe, Trainer,
    discriminator_trainer::DiscriminatorTrainer,
    learner::{Learner, LearnerOptions, MicroBatch},
    objective::Objective,
    state,
};
use crate::{
    Device, LoadOptions, ModelError, Precision, ProcessGroup, TokenizerConfig, VisualTokenizer, device,
    losses::{Alignment, NestedDropout},
    parameters::{ParameterStore, Parameters},
    tf32::Tf32Choice,
    visual_tokenizer::{Kept, Networks, upload},
    weight_file,
};
use schemas::{PixelBatch, RandomStream};
use std::{collections::BTreeMap, path::Path, sync::Arc};
use tch::{Kind, Tensor};

const DISCRIMINATOR_FILE: &str = "discriminator.safetensors";

/// A tokenizer in training, on one device.
#[derive(Debug)]
pub struct TokenizerTrainer {
    config: TokenizerConfig,
    recipe: TokenizerRecipe,
    device: Device,
    learner: Learner,
    nested_dropout: Option<NestedDropout>,
    objective: Objective,
    discriminator: Option<DiscriminatorTrainer>,
    _tf32: Option<Tf32Choice>,
}

/// Where the random numbers of a step come from, each purpose from its own.
struct Drawn {
    kept: RandomStream,
    /// Jitter of the perceptual loss, and how the discriminator looks at its batches.
    objective: RandomStream,
}

impl TokenizerTrainer {
    /// A tokenizer at its first step, with weights that follow from the recipe's seed.
    ///
    /// # Errors
    /// When a term of the objective lacks the file of its frozen network, a file does not read, or libtorch refuses, for want of
    /// memory for example.
    pub fn new(
        config: TokenizerConfig,
        recipe: TokenizerRecipe,
        frozen: &FrozenFiles,
        device: Device,
    ) -> Result<Self, ModelError> {
        // A tokenizer that is not aligned is not made to carry the tensors of alignment.
        let config = if recipe.alignment_weight > 0.0 { config } else { config.without_alignment() };
        config.check_alignment()?;
        let needed = frozen.needed(&recipe, &config)?;
        let objective = Objective::new(&needed, &config, device)?;
        Self::with_objective(config.clone(), recipe, objective, needed.dino, device)
    }

    /// With the frozen networks loaded, but for the discriminator's.
    pub(super) fn with_objective(
        config: TokenizerConfig,
        recipe: TokenizerRecipe,
        objective: Objective,
        dino: Option<&Path>,
        device: Device,
    ) -> Result<Self, ModelError> {
        let tf32 = Tf32Choice::of(recipe.precision, device)?;
        let store = ParameterStore::new(recipe.seed as i64, device.torch());
        build(&store, &objective, &config, &recipe, device)?;
        let options = LearnerOptions {
            precision: recipe.precision,
            optimizer: recipe.optimizer,
            max_grad_norm: recipe.max_grad_norm,
            ema_decay: recipe.ema_decay,
        };
        Ok(Self {
            learner: Learner::new(store, options)?,
            nested_dropout: NestedDropout::of(&config)?,
            discriminator: (recipe.adversarial_weight > 0.0)
                .then(|| DiscriminatorTrainer::new(&recipe, dino, device))
                .transpose()?,
            objective,
            config,
            recipe,
            device,
            _tf32: tf32,
        })
    }

    /// The tokenizer's configuration.
    pub fn config(&self) -> &TokenizerConfig {
        &self.config
    }

    /// Steps that the discriminator has made; `None` before its first.
    fn adversarial_steps(&self) -> Option<u64> {
        self.steps_done().checked_sub(self.recipe.adversarial_start)
    }

    /// Draws what `micro_batches` like `batch` would, and computes nothing.
    fn skip_draws(&self, batch: &PixelBatch, micro_batches: usize, drawn: &mut Drawn) {
        let size = [batch.rows() as i64, batch.height() as i64, batch.width() as i64];
        for _ in 0..micro_batches {
            for nested_dropout in self.nested_dropout.iter().flat_map(|one| std::iter::repeat_n(one, batch.rows())) {
                nested_dropout.draw(&mut drawn.kept);
            }
            self.objective.skip_draws(&mut drawn.objective);
            if let Some(discriminator) = self.active_discriminator() {
                (0..3).for_each(|_| {
                    drop(discriminator.draw_view(&mut drawn.objective, size));
                });
            }
        }
    }

    /// Where it has begun to learn.
    fn active_discriminator(&self) -> Option<&DiscriminatorTrainer> {
        self.discriminator.as_ref().filter(|_| self.adversarial_steps().is_some())
    }

    /// Adds the gradients of one micro-batch of the update: the tokenizer's, and the discriminator's by the same images.
    fn accumulate(
        &self,
        batch: &PixelBatch,
        drawn: &mut Drawn,
        micro_batch: MicroBatch,
        report: &mut StepReport,
    ) -> Result<(), ModelError> {
        let fraction = micro_batch.fraction();
        let pixels = upload(batch, self.device)?;
        let original = pixels.f_to_kind(Kind::Float)?.f_div_scalar(255.0)?;
        let kept = self.kept(batch.rows(), &mut drawn.kept, fraction, report)?;
        let (networks, alignment) =
            build(self.learner.store(), &self.objective, &self.config, &self.recipe, self.device)?;
        let kept = kept.as_ref().map_or(Kept::First(self.config.levels().tokens_per_image() as i64), Kept::Where);
        let with_image_tokens = alignment.is_some() && self.config.encoder_features_are_aligned();
        let pass = networks.train(&pixels, kept, with_image_tokens, self.recipe.precision.kind())?;
        let drawn = &mut drawn.objective;
        let mut total =
            self.objective.loss(&self.recipe, &original, &pass, alignment.as_ref(), drawn, (fraction, &mut *report))?;
        let reconstructed = &pass.decoded.pixels;
        let discriminator = self.active_discriminator();
        let (images, _, height, width) = original.size4()?;
        let size = [images, height, width];
        if let Some(discriminator) = discriminator {
            let view = discriminator.draw_view(drawn, size);
            let adversarial = discriminator.generator_loss(reconstructed, &view, self.device)?;
            report.add("adversarial_loss", &adversarial, fraction)?;
            total = total.f_add(&adversarial.f_mul_scalar(self.recipe.adversarial_weight)?)?;
        }
        report.add("total_loss", &total, fraction)?;
        self.learner.learn(&total, micro_batch)?;
        if let Some(discriminator) = discriminator {
            let views = [discriminator.draw_view(drawn, size), discriminator.draw_view(drawn, size)];
            discriminator.learn(
                (&original, &views[0]),
                (reconstructed, &views[1]),
                self.device,
                micro_batch,
                report,
            )?;
        }
        Ok(())
    }

    /// Which latent tokens of each image the decoder is to read, bool `[B, L, 1]`; `None` for all.
    fn kept(
        &self,
        images: usize,
        drawn: &mut RandomStream,
        fraction: f64,
        report: &mut StepReport,
    ) -> Result<Option<Tensor>, ModelError> {
        let Some(nested_dropout) = &self.nested_dropout else { return Ok(None) };
        let latent_tokens = self.config.levels().tokens_per_image();
        let lengths: Vec<i64> = (0..images).map(|_| nested_dropout.draw(drawn) as i64).collect();
        let lengths = device::upload(&lengths, &[lengths.len() as i64, 1, 1], self.device.torch())?;
        report.add("kept_tokens", &lengths, fraction)?;
        let positions =
            Tensor::f_arange(latent_tokens as i64, (Kind::Int64, self.device.torch()))?.f_view([1, -1, 1])?;
        Ok(Some(positions.f_lt_tensor(&lengths)?))
    }

    /// Whether every batch of `images` can be judged; to be asked before the first step, for the discriminator begins later.
    ///
    /// # Errors
    /// When the discriminator's batch norm cannot cut such batches into equal groups.
    pub fn check_batch_size(&self, images: usize) -> Result<(), ModelError> {
        self.discriminator.as_ref().map_or(Ok(()), |discriminator| discriminator.check_batch_size(images))
    }

    /// The average of the weights as a tokenizer: what is validated and published. With [`Precision::Fp16`] it is rounded to float16,
    /// and saves as such; it computes in float32 all the same.
    ///
    /// # Errors
    /// When libtorch refuses.
    pub fn ema(&self, stored: Precision) -> Result<VisualTokenizer, ModelError> {
        let tensors = self.learner.ema(stored)?;
        let options = LoadOptions { device: self.device, precision: Precision::Fp32, name: Some("average".to_owned()) };
        VisualTokenizer::from_tensors(self.config.clone(), &tensors, &options)
    }

    /// A copy of everything that is trained, the discriminator's part under its own names.
    #[cfg(test)]
    pub(super) fn tensors(&self) -> BTreeMap<String, Tensor> {
        let all =
            self.learner.weights().into_iter().chain(self.discriminator.iter().flat_map(DiscriminatorTrainer::weights));
        all.map(|(name, tensor)| (name, tensor.detach().copy())).collect()
    }

    fn discriminator_state(&self) -> BTreeMap<String, Tensor> {
        self.discriminator.iter().flat_map(DiscriminatorTrainer::optimizer_state).collect()
    }
}

impl Trainer for TokenizerTrainer {
    type Batch = PixelBatch;
    const KIND: &'static str = "tokenizer";

    fn steps_done(&self) -> u64 {
        self.learner.steps_done()
    }

    fn learning_rate(&self) -> f64 {
        self.recipe.learning_rate.rate(self.steps_done())
    }

    /// Those of the discriminator come with its first step.
    fn scalars(&self) -> Vec<&'static str> {
        let mut names = self.objective.scalars(&self.config);
        names.extend(self.discriminator.iter().flat_map(DiscriminatorTrainer::scalars));
        names.extend(self.nested_dropout.is_some().then_some("kept_tokens"));
        names.extend(self.learner.scalars());
        names
    }

    fn step(&mut self, batches: &[Self::Batch]) -> Result<StepReport, ModelError> {
        let mut report = StepReport::shared(self.learner.group());
        let steps_done = self.steps_done();
        let mut drawn = Drawn {
            kept: RandomStream::new(self.recipe.seed, "nested dropout", steps_done),
            objective: RandomStream::new(self.recipe.seed, "objective", steps_done),
        };
        if let (Some(group), Some(batch)) = (self.learner.group(), batches.first()) {
            // The batches of lower ranks come first.
            self.skip_draws(batch, group.rank() * batches.len(), &mut drawn);
        }
        for (index, batch) in batches.iter().enumerate() {
            self.accumulate(batch, &mut drawn, MicroBatch { index, count: batches.len() }, &mut report)?;
        }
        let (rate, adversarial_steps) = (self.learning_rate(), self.adversarial_steps());
        self.learner.update(rate, &mut report)?;
        if let (Some(discriminator), Some(steps)) = (&mut self.discriminator, adversarial_steps) {
            discriminator.step(steps, self.learner.may_overflow())?;
        }
        Ok(report)
    }

    fn save(&self, folder: &Path) -> Result<(), ModelError> {
        if let Some(discriminator) = &self.discriminator {
            weight_file::write(&folder.join(DISCRIMINATOR_FILE), &discriminator.weights())?;
        }
        self.learner.save(folder, &self.config.to_json(), self.discriminator_state())
    }

    fn restore(&mut self, folder: &Path, steps_done: u64) -> Result<(), ModelError> {
        if let Some(discriminator) = &self.discriminator {
            state::restore(&folder.join(DISCRIMINATOR_FILE), &discriminator.weights())?;
        }
        self.learner.restore(folder, steps_done, self.discriminator_state())
    }

    fn distribute(&mut self, group: &Arc<ProcessGroup>, steps_done: u64) -> Result<(), ModelError> {
        self.learner.distribute(group, steps_done)?;
        self.discriminator.as_mut().map_or(Ok(()), |discriminator| discriminator.distribute(group))
    }

    fn is_same_everywhere(&self) -> Result<bool, ModelError> {
        self.learner.is_same_everywhere(self.discriminator.iter().flat_map(DiscriminatorTrainer::weights).collect())
    }

    fn publish(&self, stored: Precision, folder: &Path) -> Result<(), ModelError> {
        self.ema(stored)?.save(folder)
    }
}

/// The networks of one step, and the projections of alignment where there is any.
fn build(
    store: &ParameterStore,
    objective: &Objective,
    config: &TokenizerConfig,
    recipe: &TokenizerRecipe,
    device: Device,
) -> Result<(Networks, Option<Alignment>), ModelError> {
    let (parameters, kind) = (Parameters::from_store(store), recipe.precision.kind());
    let networks = Networks::new(&parameters, config, device, kind)?;
    let root = parameters.root(device.torch(), kind);
    let alignment = objective.alignment(&root, config, recipe.alignment_margin)?;
    parameters.finish(|_| false)?;
    Ok((networks, alignment))
}
