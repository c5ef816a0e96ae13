//! Images, and what a tokenizer makes of them, as a set's scores need them.

use super::{ImageComparison, Inception};
use crate::{ModelError, VisualTokenizer, visual_tokenizer::upload};
use schemas::{PixelBatch, Rounding, SchemaError, ScoredImages, TokenBatch};
use tch::Tensor;

/// Encodes images, reconstructs them from their first tokens, and looks at all of it: as the published evaluation (scripts/test_restok.py,
/// evaluator/evaluator.py), which rounds reconstructed images to the nearest bytes. Owned by one OS thread (`Send`, not `Sync`).
#[derive(Debug)]
pub struct ReconstructionScorer {
    tokenizer: VisualTokenizer,
    inception: Option<Inception>,
    comparison: ImageComparison,
    keep: Vec<usize>,
}

impl ReconstructionScorer {
    /// `keep`: from how many tokens images are reconstructed, each from 1 to all. All parts are on the tokenizer's device. On CUDA the
    /// tokenizer's precision also decides whether float32 products, the measures' among them, go through TensorFloat-32: those of the
    /// published evaluation do not ([`Precision::Fp32`](crate::Precision::Fp32)).
    ///
    /// # Errors
    /// When a number of tokens cannot be, or is there twice, or the extractor is on another device.
    pub fn new(
        tokenizer: VisualTokenizer,
        inception: Option<Inception>,
        comparison: ImageComparison,
        keep: Vec<usize>,
    ) -> Result<Self, ModelError> {
        let wrong =
            |what, found: String, expected: String| Err(ModelError::Data(SchemaError::Shape { what, found, expected }));
        let tokens = tokenizer.levels().tokens_per_image();
        if let Some(kept) = keep.iter().find(|&&kept| !(1..=tokens).contains(&kept)) {
            return wrong("tokens to reconstruct from", kept.to_string(), format!("1 to {tokens}"));
        }
        if let Some((index, kept)) = keep.iter().enumerate().find(|&(index, kept)| keep[..index].contains(kept)) {
            return wrong(
                "tokens to reconstruct from",
                format!("{kept} twice, at {index} again"),
                "each once".to_owned(),
            );
        }
        if let Some(inception) = inception.as_ref().filter(|inception| inception.device() != tokenizer.device()) {
            let found = inception.device().to_string();
            return wrong("device of the Inception network", found, format!("{}, the tokenizer's", tokenizer.device()));
        }
        Ok(Self { tokenizer, inception, comparison, keep })
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &VisualTokenizer {
        &self.tokenizer
    }

    /// The `filled` rows as they are, then as they were reconstructed from each number of tokens in the order in which they were given, and
    /// their tokens. Images as they are have no measures, reconstructed ones all that apply; nothing has spatial features.
    ///
    /// Everything stays on the device in between, and the device is waited for once, at the end.
    ///
    /// # Errors
    /// When the images are not of the tokenizer's resolution, a latent is no number, or libtorch refuses an operation.
    pub fn score(&self, images: &PixelBatch) -> Result<(Vec<ScoredImages>, TokenBatch), ModelError> {
        let _no_grad = tch::no_grad_guard();
        self.tokenizer.check_size(images)?;
        let original = upload(images, self.tokenizer.device())?;
        let features =
            |pixels: &Tensor| self.inception.as_ref().map(|inception| inception.extract(pixels, false)).transpose();
        let codes = self.tokenizer.codes(&original)?;
        // A latent that is no number has code -1, which is an error when the codes are read; until then the device must get through.
        let decodable = codes.f_clamp_min(0)?;
        let look = self.comparison.look(&original)?;
        let as_they_are = features(&original)?;
        let mut reconstructed = Vec::with_capacity(self.keep.len());
        for &kept in &self.keep {
            let pixels = self.tokenizer.pixels(&decodable, kept, Rounding::Nearest)?;
            reconstructed.push((kept, features(&pixels)?, self.comparison.compare(&original, &look, &pixels)?));
        }

        let filled = images.filled();
        let tokens = self.tokenizer.token_batch(&codes, filled)?;
        let read = |features: Option<super::inception::ImageFeatures>| {
            features.map_or_else(|| Ok(ScoredImages::default()), |features| features.read(filled))
        };
        let mut variants = vec![read(as_they_are)?];
        for (kept, features, compared) in reconstructed {
            let mut variant = read(features)?;
            variant.kept_tokens = u16::try_from(kept).ok();
            variant.measures = compared.read(filled)?;
            variants.push(variant);
        }
        Ok((variants, tokens))
    }
}
