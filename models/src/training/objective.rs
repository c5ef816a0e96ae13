//! The tokenizer's objective: the weighted sum of its terms (`ReconstructionLoss._forward_generator` in modeling/modules/losses.py).

use super::{StepReport, TokenizerRecipe, frozen_files::Needed};
use crate::{
    Device, ModelError, TokenizerConfig,
    foundation::{FoundationKind, FoundationModel},
    losses::{Alignment, PerceptualJitter, PerceptualLoss, reconstruction},
    parameters::Scope,
    visual_tokenizer::TrainingPass,
};
use schemas::RandomStream;
use tch::Tensor;

/// The terms that need nothing but the tokenizer, its images and frozen networks.
#[derive(Debug)]
pub(super) struct Objective {
    perceptual: Option<PerceptualLoss>,
    foundation: Option<FoundationModel>,
}

impl Objective {
    pub(super) fn new(needed: &Needed<'_>, config: &TokenizerConfig, device: Device) -> Result<Self, ModelError> {
        let grid = [config.decoder_grid; 2];
        let foundation = needed
            .foundation_model
            .map(|(name, file)| FoundationModel::load(FoundationKind::from_setting(name)?, file, device.torch(), grid));
        Self::with_foundation(needed, foundation.transpose()?, device)
    }

    /// With a vision foundation model that is loaded already.
    pub(super) fn with_foundation(
        needed: &Needed<'_>,
        foundation: Option<FoundationModel>,
        device: Device,
    ) -> Result<Self, ModelError> {
        let perceptual = needed.perceptual.map(|(vgg16, lpips)| PerceptualLoss::load(vgg16, lpips, device.torch()));
        Ok(Self { perceptual: perceptual.transpose()?, foundation })
    }

    /// The projections of alignment, whose tensors stand beside the tokenizer's; `None` where nothing is aligned.
    pub(super) fn alignment(
        &self,
        root: &Scope<'_>,
        config: &TokenizerConfig,
        margin: f64,
    ) -> Result<Option<Alignment>, ModelError> {
        let Some(foundation) = &self.foundation else { return Ok(None) };
        let encoder = config.encoder_features_are_aligned().then_some(config.encoder.width);
        let decoder = config.decoder_features_are_aligned().then_some(config.decoder.width);
        Alignment::new(root, encoder, decoder, foundation.width(), margin).map(Some)
    }

    /// Names of the scalars that [`Self::loss`] reports.
    pub(super) fn scalars(&self, config: &TokenizerConfig) -> Vec<&'static str> {
        let mut names = vec!["total_loss", "reconstruction_loss"];
        names.extend(self.perceptual.is_some().then_some("perceptual_loss"));
        names.extend(["commitment_loss", "codebook_loss"]);
        names.extend(config.has_entropy_loss().then_some("entropy_loss"));
        if self.foundation.is_some() {
            names.push("alignment_loss");
            names.extend(config.encoder_features_are_aligned().then_some("encoder_cosine"));
            names.extend(config.decoder_features_are_aligned().then_some("decoder_cosine"));
        }
        names
    }

    /// Draws what [`Self::loss`] would, and computes nothing.
    pub(super) fn skip_draws(&self, drawn: &mut RandomStream) {
        if self.perceptual.is_some() {
            PerceptualJitter::draw(drawn);
        }
    }

    /// The weighted sum; each term is reported without its weight. `original`: float32 `[B, 3, side, side]` between 0 and 1.
    pub(super) fn loss(
        &self,
        recipe: &TokenizerRecipe,
        original: &Tensor,
        pass: &TrainingPass,
        alignment: Option<&Alignment>,
        drawn: &mut RandomStream,
        (fraction, report): (f64, &mut StepReport),
    ) -> Result<Tensor, ModelError> {
        let reconstructed = &pass.decoded.pixels;
        let distance = reconstruction::distance(recipe.reconstruction, original, reconstructed)?;
        report.add("reconstruction_loss", &distance, fraction)?;
        let mut total = distance.f_mul_scalar(recipe.reconstruction_weight)?;
        if let Some(perceptual) = &self.perceptual {
            let jitter = PerceptualJitter::draw(drawn);
            let distance = perceptual.forward(original, reconstructed, Some(&jitter))?;
            report.add("perceptual_loss", &distance, fraction)?;
            total = total.f_add(&distance.f_mul_scalar(recipe.perceptual_weight)?)?;
        }
        let quantized = &pass.quantized;
        report.add("commitment_loss", &quantized.commitment, fraction)?;
        report.add("codebook_loss", &quantized.codebook, fraction)?;
        let mut quantizer = quantized.commitment.f_add(&quantized.codebook)?;
        if let Some(entropy) = &quantized.entropy {
            report.add("entropy_loss", entropy, fraction)?;
            quantizer = quantizer.f_add(entropy)?;
        }
        total = total.f_add(&quantizer.f_mul_scalar(recipe.quantizer_weight)?)?;
        if let Some(aligned) = self.aligned(original, pass, alignment, fraction, report)? {
            report.add("alignment_loss", &aligned, fraction)?;
            total = total.f_add(&aligned.f_mul_scalar(recipe.alignment_weight)?)?;
        }
        Ok(total)
    }

    /// The sum of both alignments.
    fn aligned(
        &self,
        original: &Tensor,
        pass: &TrainingPass,
        alignment: Option<&Alignment>,
        fraction: f64,
        report: &mut StepReport,
    ) -> Result<Option<Tensor>, ModelError> {
        let (Some(foundation), Some(alignment)) = (&self.foundation, alignment) else { return Ok(None) };
        let seen = tch::no_grad(|| foundation.features(original))?;
        let encoder = pass.coarsest_image_tokens.as_ref().map(|tokens| alignment.encoder(tokens, &seen.class));
        let decoder = pass.decoded.features.as_ref().map(|features| alignment.decoder(features, &seen.patches));
        let mut sum: Option<Tensor> = None;
        for (name, aligned) in [("encoder_cosine", encoder), ("decoder_cosine", decoder)] {
            let Some(aligned) = aligned.transpose()?.flatten() else { continue };
            report.add(name, &aligned.cosine, fraction)?;
            sum = Some(match sum {
                None => aligned.loss,
                Some(other) => other.f_add(&aligned.loss)?,
            });
        }
        Ok(sum)
    }
}
