//! The discriminator in training: its tensors, its optimizer, and what it tells the tokenizer.

use super::{
    DiscriminatorKind, FrozenFiles, StepReport, TokenizerRecipe, learner::MicroBatch, optimizer::AdamW, tensor_lists,
};
use crate::{
    Device, ModelError, ProcessGroup,
    losses::discriminator::{
        DinoTrunk, Discriminator, DiscriminatorNetwork, View,
        adversarial::{LeCam, discriminator_loss, generator_loss},
    },
    parameters::{ParameterStore, Parameters},
    process_group::Reducer,
};
use schemas::RandomStream;
use std::{collections::BTreeMap, path::Path, sync::Arc};
use tch::{Kind, Tensor};

/// Fraction that LeCam's running means keep at a step, as published.
const LECAM_DECAY: f64 = 0.999;
/// The published name of the discriminator within the loss module.
const SCOPE: &str = "discriminator";

/// The discriminator and everything that moves it.
#[derive(Debug)]
pub(super) struct DiscriminatorTrainer {
    network: DiscriminatorNetwork,
    store: ParameterStore,
    optimizer: AdamW,
    recipe: TokenizerRecipe,
    /// Where several processes train together.
    reducer: Option<Reducer>,
}

/// A discriminator built for one step, and LeCam's running means where they are asked for.
struct Built<'a> {
    discriminator: Discriminator<'a>,
    lecam: Option<LeCam>,
}

impl DiscriminatorTrainer {
    /// `dino`: the frozen network's file, where the recipe's discriminator looks through one.
    pub(super) fn new(recipe: &TokenizerRecipe, dino: Option<&Path>, device: Device) -> Result<Self, ModelError> {
        let network = match (recipe.discriminator, dino) {
            (DiscriminatorKind::Patch, _) => DiscriminatorNetwork::Patch,
            (DiscriminatorKind::Dino, Some(file)) => DiscriminatorNetwork::Dino(DinoTrunk::load(file, device.torch())?),
            (DiscriminatorKind::Dino, None) => return Err(FrozenFiles::missing_dino()),
        };
        let store = ParameterStore::new(recipe.seed as i64, device.torch());
        build(Parameters::from_store(&store), &network, recipe.lecam_weight, device)?;
        let optimizer = AdamW::new(&store.trained(), recipe.optimizer)?;
        Ok(Self { network, store, optimizer, recipe: recipe.clone(), reducer: None })
    }

    /// From now on, gradients and running estimates are averaged over the processes of `group`, from the weights and the state of rank 0.
    pub(super) fn distribute(&mut self, group: &Arc<ProcessGroup>) -> Result<(), ModelError> {
        let (weights, state) = (self.weights(), self.optimizer_state());
        group.broadcast(weights.values().chain(state.values()))?;
        self.reducer = Some(Reducer::new(group, &self.store.trained_by_use())?);
        Ok(())
    }

    /// How one batch of `[images, height, width]` is looked at; to be drawn in one order for all that the discriminator sees in a step.
    pub(super) fn draw_view(&self, stream: &mut RandomStream, size: [i64; 3]) -> View {
        self.network.draw_view(stream, size)
    }

    /// What the tokenizer makes smaller: a scalar whose gradients reach `reconstructed` and stop before the discriminator.
    pub(super) fn generator_loss(
        &self,
        reconstructed: &Tensor,
        view: &View,
        device: Device,
    ) -> Result<Tensor, ModelError> {
        let parameters = Parameters::held_fixed(&self.store);
        let built = build(parameters, &self.network, 0.0, device)?;
        generator_loss(&built.discriminator.forward(reconstructed, view)?)
    }

    /// Adds the gradients of one micro-batch of the update.
    pub(super) fn learn(
        &self,
        original: (&Tensor, &View),
        reconstructed: (&Tensor, &View),
        device: Device,
        micro_batch: MicroBatch,
        report: &mut StepReport,
    ) -> Result<(), ModelError> {
        let fraction = micro_batch.fraction();
        let built = build(Parameters::from_store(&self.store), &self.network, self.recipe.lecam_weight, device)?;
        let real = built.discriminator.forward(&original.0.detach(), original.1)?;
        let fake = built.discriminator.forward(&reconstructed.0.detach(), reconstructed.1)?;
        let mut loss = discriminator_loss(&real, &fake)?;
        if let Some(lecam) = &built.lecam {
            let term = lecam.forward(&real, &fake)?;
            report.add("lecam_loss", &term, fraction)?;
            loss = loss.f_add(&term.f_mul_scalar(self.recipe.lecam_weight)?)?;
        }
        report.add("discriminator_loss", &loss, fraction)?;
        report.add("logits_real", &real, fraction)?;
        report.add("logits_fake", &fake, fraction)?;
        let loss = loss.f_mul_scalar(fraction)?;
        micro_batch.backward(&loss, self.reducer.as_ref())
    }

    /// Names of the scalars that a step with a discriminator reports.
    pub(super) fn scalars(&self) -> Vec<&'static str> {
        let lecam = (self.recipe.lecam_weight > 0.0).then_some("lecam_loss");
        ["adversarial_loss", "discriminator_loss", "logits_real", "logits_fake"].into_iter().chain(lecam).collect()
    }

    /// Moves the discriminator after `steps` steps of its own. Where the tokenizer computes in float16, what it reconstructed may have
    /// overflowed: then nothing moves.
    pub(super) fn step(&mut self, steps: u64, may_overflow: bool) -> Result<(), ModelError> {
        if let Some(group) = self.reducer.as_ref().map(Reducer::group) {
            // Of the images of one process; the estimates of spectral norm are of the weights alone, and equal everywhere.
            let of_images = |name: &str| LeCam::BUFFERS.iter().any(|buffer| name.ends_with(buffer));
            for (_, buffer) in self.store.buffers().iter_mut().filter(|(name, _)| of_images(name)) {
                group.mean(buffer)?;
            }
        }
        let gradients = self.optimizer.gradients();
        let found_infinite = may_overflow.then(|| tensor_lists::found_infinite(&gradients)).transpose()?;
        drop(tch::no_grad(|| tensor_lists::clip(&gradients, self.recipe.max_grad_norm))?);
        self.optimizer.step(self.recipe.discriminator_learning_rate.rate(steps), found_infinite.as_ref())?;
        self.optimizer.clear_gradients();
        Ok(())
    }

    /// Whether batches of `images` can be judged.
    pub(super) fn check_batch_size(&self, images: usize) -> Result<(), ModelError> {
        self.network.check_batch_size(images as i64)
    }

    /// Its weights and running estimates, under the names of the published loss module.
    pub(super) fn weights(&self) -> BTreeMap<String, Tensor> {
        self.store.trained().into_iter().chain(self.store.buffers()).collect()
    }

    /// Everything else that its next step depends on.
    pub(super) fn optimizer_state(&self) -> BTreeMap<String, Tensor> {
        self.optimizer.state("discriminator.")
    }
}

fn build<'a>(
    parameters: Parameters<'_>,
    network: &'a DiscriminatorNetwork,
    lecam_weight: f64,
    device: Device,
) -> Result<Built<'a>, ModelError> {
    let root = parameters.root(device.torch(), Kind::Float);
    let built = Built {
        discriminator: Discriminator::new(&root.sub(SCOPE), network)?,
        lecam: (lecam_weight > 0.0).then(|| LeCam::new(&root, LECAM_DECAY)).transpose()?,
    };
    parameters.finish(|_| false)?;
    Ok(built)
}
