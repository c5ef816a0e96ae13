//! The discriminator in training: its tensors, its optimizer, and what it tells the tokenizer.

use super::{Adversary, FrozenFiles, StepReport, TokenizerRecipe, optimizer::AdamW, tensor_lists};
use crate::{
    Device, ModelError,
    losses::discriminator::{
        DinoTrunk, Discriminator, DiscriminatorNetwork, View,
        adversarial::{LeCam, discriminator_loss, generator_loss},
    },
    parameters::{ParameterStore, Parameters},
};
use schemas::RandomStream;
use std::{collections::BTreeMap, path::Path};
use tch::{Kind, Tensor};

/// Share that LeCam's running means keep at a step, as published.
const LECAM_DECAY: f64 = 0.999;
/// The published name of the discriminator within the loss module.
const SCOPE: &str = "discriminator";

/// The discriminator and everything that moves it.
#[derive(Debug)]
pub(super) struct AdversaryTrainer {
    network: DiscriminatorNetwork,
    store: ParameterStore,
    optimizer: AdamW,
    recipe: TokenizerRecipe,
}

/// A discriminator built for one step, and LeCam's running means where they are asked for.
struct Built<'a> {
    discriminator: Discriminator<'a>,
    lecam: Option<LeCam>,
}

impl AdversaryTrainer {
    /// `dino`: the frozen network's file, where the recipe's discriminator looks through one.
    pub(super) fn new(recipe: &TokenizerRecipe, dino: Option<&Path>, device: Device) -> Result<Self, ModelError> {
        let network = match (recipe.adversary, dino) {
            (Adversary::Patch, _) => DiscriminatorNetwork::Patch,
            (Adversary::Dino, Some(file)) => DiscriminatorNetwork::Dino(DinoTrunk::load(file, device.torch())?),
            (Adversary::Dino, None) => return Err(FrozenFiles::missing_dino()),
        };
        let store = ParameterStore::new(recipe.seed as i64, device.torch());
        build(Parameters::from_store(&store), &network, recipe.lecam_weight, device)?;
        let optimizer = AdamW::new(&store.trained(), recipe.optimizer)?;
        Ok(Self { network, store, optimizer, recipe: recipe.clone() })
    }

    /// How one batch is looked at; to be drawn in one order for all that is judged in a step.
    pub(super) fn draw_view(&self, stream: &mut RandomStream, images: &Tensor) -> Result<View, ModelError> {
        let (batch, _, height, width) = images.size4()?;
        Ok(self.network.draw_view(stream, [batch, height, width]))
    }

    /// What the tokenizer makes smaller: a scalar whose gradients reach `rebuilt` and stop before the discriminator.
    pub(super) fn judge(&self, rebuilt: &Tensor, view: &View, device: Device) -> Result<Tensor, ModelError> {
        let parameters = Parameters::held_fixed(&self.store);
        let built = build(parameters, &self.network, 0.0, device)?;
        generator_loss(&built.discriminator.forward(rebuilt, view)?)
    }

    /// Adds the gradients of one micro-batch, `share` of the step.
    pub(super) fn learn(
        &self,
        original: (&Tensor, &View),
        rebuilt: (&Tensor, &View),
        device: Device,
        share: f64,
        report: &mut StepReport,
    ) -> Result<(), ModelError> {
        let built = build(Parameters::from_store(&self.store), &self.network, self.recipe.lecam_weight, device)?;
        let real = built.discriminator.forward(&original.0.detach(), original.1)?;
        let fake = built.discriminator.forward(&rebuilt.0.detach(), rebuilt.1)?;
        let mut loss = discriminator_loss(&real, &fake)?;
        if let Some(lecam) = &built.lecam {
            let term = lecam.forward(&real, &fake)?;
            report.add("lecam_loss", &term, share)?;
            loss = loss.f_add(&term.f_mul_scalar(self.recipe.lecam_weight)?)?;
        }
        report.add("discriminator_loss", &loss, share)?;
        report.add("logits_real", &real, share)?;
        report.add("logits_fake", &fake, share)?;
        Ok(loss.f_mul_scalar(share)?.f_backward()?)
    }

    /// Names of the scalars that a step with a discriminator reports.
    pub(super) fn scalars(&self) -> Vec<&'static str> {
        let lecam = (self.recipe.lecam_weight > 0.0).then_some("lecam_loss");
        ["adversarial_loss", "discriminator_loss", "logits_real", "logits_fake"].into_iter().chain(lecam).collect()
    }

    /// Moves the discriminator after `steps` steps of its own. Where the tokenizer computes in float16, what it rebuilt may have
    /// overflowed: then nothing moves.
    pub(super) fn step(&mut self, steps: u64, may_overflow: bool) -> Result<(), ModelError> {
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
