//! Everything that decides how a tokenizer is trained, apart from the tokenizer's own configuration and the data.

use super::{AdamWOptions, CosineSchedule};
use crate::{Precision, losses::ReconstructionKind};
use serde::{Deserialize, Serialize};

/// Who tells reconstructions from originals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiscriminatorKind {
    /// Heads over the features of a frozen DINO ViT-S/16, with differentiable augmentation.
    Dino,
    /// A small convolutional network over patches of pixels.
    Patch,
}

/// The recipe of a run. A term whose weight is 0 adds nothing. Reconstruction and quantizer losses are computed and reported all
/// the same; of the other terms neither networks nor losses are made.
///
/// Rates follow the number of the step. The published training does not count steps that overflowed in float16; here they count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerRecipe {
    /// Of the first weights and of everything that is drawn during the run.
    pub seed: u64,
    /// Precision of the encoder and the decoder's transformer; quantizer, convolutional decoder and losses stay in float32.
    pub precision: Precision,
    /// Distance of pixels.
    pub reconstruction: ReconstructionKind,
    /// Weight of that distance.
    pub reconstruction_weight: f64,
    /// Weight of the LPIPS distance.
    pub perceptual_weight: f64,
    /// Weight of the commitment, codebook and entropy losses together.
    pub quantizer_weight: f64,
    /// Weight of the alignment with a vision foundation model.
    pub alignment_weight: f64,
    /// Cosine distance that alignment lets pass.
    pub alignment_margin: f64,
    /// Which discriminator.
    #[serde(rename = "adversary")]
    pub discriminator: DiscriminatorKind,
    /// Weight of the discriminator's opinion in the tokenizer's loss.
    pub adversarial_weight: f64,
    /// First step with a discriminator.
    pub adversarial_start: u64,
    /// Weight of the LeCam regularization of the discriminator.
    pub lecam_weight: f64,
    /// Rate of the tokenizer.
    pub learning_rate: CosineSchedule,
    /// Rate of the discriminator, by the steps since its first.
    pub discriminator_learning_rate: CosineSchedule,
    /// Numbers of both optimizers.
    pub optimizer: AdamWOptions,
    /// Largest norm of all gradients together.
    #[serde(rename = "largest_gradient_norm")]
    pub max_grad_norm: f64,
    /// Decay of the weights' moving average.
    #[serde(rename = "average_decay")]
    pub ema_decay: f64,
}

impl TokenizerRecipe {
    /// configs/training/ResTok/restok_l_128.yaml.
    pub fn published() -> Self {
        let (steps, adversarial_start) = (1_000_000, 20_000);
        let learning_rate = CosineSchedule { peak: 1e-4, end: 1e-5, warmup_steps: 5_000, steps };
        Self {
            seed: 10_086,
            precision: Precision::Fp16,
            reconstruction: ReconstructionKind::L2,
            reconstruction_weight: 1.0,
            perceptual_weight: 1.0,
            quantizer_weight: 1.0,
            alignment_weight: 1.0,
            alignment_margin: 0.25,
            discriminator: DiscriminatorKind::Dino,
            adversarial_weight: 0.5,
            adversarial_start,
            lecam_weight: 0.001,
            learning_rate,
            discriminator_learning_rate: CosineSchedule { steps: steps - adversarial_start, ..learning_rate },
            optimizer: AdamWOptions { beta1: 0.9, beta2: 0.95, weight_decay: 1e-4 },
            max_grad_norm: 10.0,
            ema_decay: 0.9999,
        }
    }
}
