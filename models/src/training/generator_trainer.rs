//! The training step of the generator (`train_one_epoch_generator` in utils/train_utils.py, `ARLoss` in modeling/modules/losses.py).

use super::{
    GeneratorRecipe, StepReport, Trainer,
    learner::{Learner, LearnerOptions, MicroBatch},
};
use crate::{
    Device, Generator, GeneratorConfig, LoadOptions, ModelError, Precision, ProcessGroup,
    generator::{DeviceRows, Transformer, check_classes},
    parameters::{ParameterStore, Parameters, with_random_numbers},
    tf32::Tf32Choice,
};
use schemas::{RandomStream, SchemaError, TokenBatch};
use std::{collections::BTreeMap, path::Path, sync::Arc};
use tch::{Reduction, Tensor};

/// Names of the loss of each level. Codes are 16 bits wide and positions as many at most, so there are no more.
const LEVEL_LOSSES: [&str; 17] = [
    "loss_level_0",
    "loss_level_1",
    "loss_level_2",
    "loss_level_3",
    "loss_level_4",
    "loss_level_5",
    "loss_level_6",
    "loss_level_7",
    "loss_level_8",
    "loss_level_9",
    "loss_level_10",
    "loss_level_11",
    "loss_level_12",
    "loss_level_13",
    "loss_level_14",
    "loss_level_15",
    "loss_level_16",
];

/// A generator in training, on one device.
#[derive(Debug)]
pub struct GeneratorTrainer {
    config: GeneratorConfig,
    recipe: GeneratorRecipe,
    device: Device,
    learner: Learner,
    _tf32: Option<Tf32Choice>,
}

/// Where the random numbers of a step come from, each purpose from its own.
struct Drawn {
    /// Which classes become the null class.
    classes: RandomStream,
    /// Seeds of torch's generator, one a micro-batch, for the masks of dropout.
    dropout: RandomStream,
}

impl GeneratorTrainer {
    /// A generator at its first step, with weights that follow from the recipe's seed.
    ///
    /// # Errors
    /// When libtorch refuses, for want of memory for example.
    pub fn new(config: GeneratorConfig, recipe: GeneratorRecipe, device: Device) -> Result<Self, ModelError> {
        let tf32 = Tf32Choice::of(recipe.precision, device)?;
        if config.levels().sizes().len() > LEVEL_LOSSES.len() {
            let tokens = config.tokens_per_image();
            return Err(ModelError::setting(
                "block_size",
                tokens,
                format!("at most {}", 1 << (LEVEL_LOSSES.len() - 1)),
            ));
        }
        let store = ParameterStore::new(recipe.seed as i64, device.torch());
        build(&store, &config, &recipe, device)?;
        let options = LearnerOptions {
            precision: recipe.precision,
            optimizer: recipe.optimizer,
            max_grad_norm: recipe.max_grad_norm,
            ema_decay: recipe.ema_decay,
        };
        Ok(Self { learner: Learner::new(store, options)?, config, recipe, device, _tf32: tf32 })
    }

    /// The generator's configuration.
    pub fn config(&self) -> &GeneratorConfig {
        &self.config
    }

    /// Adds the gradients of one micro-batch of the update.
    fn accumulate(
        &self,
        tokens: &TokenBatch,
        classes: &[i32],
        drawn: &mut Drawn,
        micro_batch: MicroBatch,
        report: &mut StepReport,
    ) -> Result<(), ModelError> {
        check_classes(classes, self.config.classes())?;
        let classes = self.drop_classes(classes, &mut drawn.classes);
        let rows = DeviceRows::upload(&self.config, tokens, &classes, self.device)?;
        let network = build(self.learner.store(), &self.config, &self.recipe, self.device)?;
        let logits = with_random_numbers(drawn.dropout.next_u64(), || network.forward(&rows.classes, &rows.tokens))?;
        // [B, N] in nats.
        let losses = token_losses(&logits, &rows.tokens)?;
        let loss = losses.f_mean(tch::Kind::Float)?;
        let fraction = micro_batch.fraction();
        report.add("loss", &loss, fraction)?;
        let by_position = losses.detach().f_mean_dim([0_i64].as_slice(), false, tch::Kind::Float)?;
        for (name, bounds) in LEVEL_LOSSES.into_iter().zip(self.config.levels().offsets().windows(2)) {
            report.add(name, &by_position.f_narrow(0, bounds[0] as i64, (bounds[1] - bounds[0]) as i64)?, fraction)?;
        }
        self.learner.learn(&loss, micro_batch)
    }

    /// Draws what `micro_batches` with as many classes would, and computes nothing.
    fn skip_draws(&self, classes: &[i32], micro_batches: usize, drawn: &mut Drawn) {
        for _ in 0..micro_batches {
            self.drop_classes(classes, &mut drawn.classes);
            drawn.dropout.next_u64();
        }
    }

    /// The classes, some of which have become the null class.
    fn drop_classes(&self, classes: &[i32], drawn: &mut RandomStream) -> Vec<i32> {
        let (null, fraction) = (self.config.classes() as i32, self.config.class_dropout());
        classes.iter().map(|&class| if drawn.uniform() < fraction { null } else { class }).collect()
    }

    /// The average of the weights as a generator: what is validated and published. With [`Precision::Fp16`] it is rounded to
    /// float16, and saves as such; it computes in float32 all the same.
    ///
    /// # Errors
    /// When libtorch refuses.
    pub fn ema(&self, stored: Precision) -> Result<Generator, ModelError> {
        let options = LoadOptions { device: self.device, precision: Precision::Fp32, name: Some("average".to_owned()) };
        Generator::from_tensors(self.config.clone(), &self.learner.ema(stored)?, &options)
    }
}

impl Trainer for GeneratorTrainer {
    type Batch = (TokenBatch, Vec<i32>);
    const KIND: &'static str = "generator";

    fn steps_done(&self) -> u64 {
        self.learner.steps_done()
    }

    fn learning_rate(&self) -> f64 {
        self.recipe.learning_rate.rate(self.steps_done())
    }

    /// The mean cross-entropy of all tokens, that of each level, coarsest first, in nats, and the norm of the gradients.
    fn scalars(&self) -> Vec<&'static str> {
        let levels = LEVEL_LOSSES.into_iter().take(self.config.levels().sizes().len());
        std::iter::once("loss").chain(levels).chain(self.learner.scalars()).collect()
    }

    /// Of rows of tokens with a class each.
    fn step(&mut self, batches: &[Self::Batch]) -> Result<StepReport, ModelError> {
        if batches.is_empty() {
            let (found, expected) = ("0".to_owned(), "at least 1".to_owned());
            return Err(SchemaError::Shape { what: "batches of a step", found, expected }.into());
        }
        let mut report = StepReport::shared(self.learner.group());
        let (seed, steps_done) = (self.recipe.seed, self.steps_done());
        let mut drawn = Drawn {
            classes: RandomStream::new(seed, "class dropout", steps_done),
            dropout: RandomStream::new(seed, "dropout", steps_done),
        };
        if let Some(group) = self.learner.group() {
            // The batches of lower ranks come first, and have drawn for as many images each.
            let before = group.rank() * batches.len();
            self.skip_draws(&batches[0].1, before, &mut drawn);
        }
        for (index, (tokens, classes)) in batches.iter().enumerate() {
            let micro_batch = MicroBatch { index, count: batches.len() };
            self.accumulate(tokens, classes, &mut drawn, micro_batch, &mut report)?;
        }
        let rate = self.learning_rate();
        self.learner.update(rate, &mut report)?;
        Ok(report)
    }

    fn save(&self, folder: &Path) -> Result<(), ModelError> {
        self.learner.save(folder, &self.config.to_json(), BTreeMap::new())
    }

    fn restore(&mut self, folder: &Path, steps_done: u64) -> Result<(), ModelError> {
        self.learner.restore(folder, steps_done, BTreeMap::new())
    }

    fn distribute(&mut self, group: &Arc<ProcessGroup>, steps_done: u64) -> Result<(), ModelError> {
        self.learner.distribute(group, steps_done)
    }

    fn is_same_everywhere(&self) -> Result<bool, ModelError> {
        self.learner.is_same_everywhere(BTreeMap::new())
    }

    fn publish(&self, stored: Precision, folder: &Path) -> Result<(), ModelError> {
        self.ema(stored)?.save(folder)
    }
}

/// Cross-entropy of every token in nats: float32 logits `[B, N, codes]` and int64 tokens `[B, N]` to `[B, N]`.
pub(crate) fn token_losses(logits: &Tensor, tokens: &Tensor) -> Result<Tensor, ModelError> {
    let (batch, length, codes) = logits.size3()?;
    let (logits, tokens) = (logits.f_view([-1, codes])?, tokens.f_reshape([-1])?);
    let losses = logits.f_cross_entropy_loss(&tokens, None::<Tensor>, Reduction::None, -100, 0.0)?;
    Ok(losses.f_view([batch, length])?)
}

/// The network of one step.
fn build(
    store: &ParameterStore,
    config: &GeneratorConfig,
    recipe: &GeneratorRecipe,
    device: Device,
) -> Result<Transformer, ModelError> {
    let parameters = Parameters::from_store(store);
    let network = Transformer::new(&parameters.root(device.torch(), recipe.precision.kind()), config)?;
    parameters.finish(|_| false)?;
    Ok(network)
}
