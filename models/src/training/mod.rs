//! Training: the optimizer, the schedules, the average of the weights, and the step of each network that is trained.
//!
//! Networks are written once, as functions of their parameters (see `parameters.rs`). A step builds them from the leaves of its
//! [`crate::parameters::ParameterStore`], computes a loss, and moves the leaves. No step waits for its device: losses stay there
//! until somebody reads them.

#[cfg(test)]
mod all_terms;
mod discriminator_trainer;
mod ema;
mod frozen_files;
mod generator_recipe;
mod generator_trainer;
mod learner;
mod loss_scale;
mod objective;
mod optimizer;
mod presets;
mod recipe;
mod schedule;
mod state;
mod step_report;
mod tensor_lists;
mod tokenizer_trainer;
mod trainer;

pub use crate::losses::ReconstructionKind;
pub use frozen_files::FrozenFiles;
pub use generator_recipe::{GeneratorPreset, GeneratorRecipe};
pub use generator_trainer::GeneratorTrainer;
pub(crate) use generator_trainer::token_losses;
pub use optimizer::AdamWOptions;
pub use presets::TokenizerPreset;
pub use recipe::{DiscriminatorKind, TokenizerRecipe};
pub use schedule::CosineSchedule;
pub use step_report::StepReport;
pub use tokenizer_trainer::TokenizerTrainer;
pub use trainer::Trainer;
