//! Alignment of the tokenizer's features to those of a frozen vision model, by the cosine between them up to a margin
//! (modeling/restok.py, `vf_proj`, and modeling/modules/losses.py; first in Yao and others, "Reconstruction vs. Generation", 2025).

use crate::{
    ModelError,
    parameters::{Init, Scope},
};
use tch::{Kind, Tensor};

/// Below this a length counts as this; torch's default.
const COSINE_EPSILON: f64 = 1e-8;

/// A mean loss, and the mean cosine that it comes from, which is what one watches.
#[derive(Debug)]
pub(crate) struct Aligned {
    /// relu(1 - margin - cosine), on average; a scalar.
    pub(crate) loss: Tensor,
    /// A scalar without gradients.
    pub(crate) cosine: Tensor,
}

/// The projections of the tokenizer's features onto those of the frozen model: trained with the tokenizer, needed by nobody after.
#[derive(Debug)]
pub(crate) struct Alignment {
    /// `[foundation channels, C, 1, 1]`, published as 1x1 convolutions without bias.
    encoder: Option<Tensor>,
    decoder: Option<Tensor>,
    /// How far from 1 the cosine may stay at no cost.
    margin: f64,
}

impl Alignment {
    /// `encoder` and `decoder`: width of the features that are aligned, where they are. `scope` is the tokenizer's root.
    pub(crate) fn new(
        scope: &Scope<'_>,
        encoder: Option<i64>,
        decoder: Option<i64>,
        foundation_channels: i64,
        margin: f64,
    ) -> Result<Self, ModelError> {
        let projection = |name: &str, channels: Option<i64>| {
            let weight = |channels: i64| {
                let start = Init::Uniform(1.0 / (channels as f64).sqrt());
                scope.sub(name).placed("weight", &[foundation_channels, channels, 1, 1], start)
            };
            channels.map(weight).transpose()
        };
        Ok(Self { encoder: projection("vf_proj", encoder)?, decoder: projection("vf_proj_dec", decoder)?, margin })
    }

    /// The encoder's coarsest image tokens, averaged, against the whole image as the frozen model sees it.
    ///
    /// # Shapes
    /// `image_tokens`: `[B, n, C]`; `class`: `[B, foundation channels]`.
    pub(crate) fn encoder(&self, image_tokens: &Tensor, class: &Tensor) -> Result<Option<Aligned>, ModelError> {
        let Some(weight) = &self.encoder else { return Ok(None) };
        // The mean of projections is the projection of the mean.
        let mean = image_tokens.f_mean_dim([1_i64].as_slice(), false, Kind::Float)?;
        let projected = mean.f_linear(&weight.f_flatten(1, 3)?, None::<Tensor>)?;
        self.aligned(class, &projected).map(Some)
    }

    /// The decoder's features against the frozen model's, position by position.
    ///
    /// # Shapes
    /// `features`: `[B, C, h, w]`; `patches`: `[B, foundation channels, h, w]`.
    ///
    /// # Errors
    /// When the two grids differ.
    pub(crate) fn decoder(&self, features: &Tensor, patches: &Tensor) -> Result<Option<Aligned>, ModelError> {
        let Some(weight) = &self.decoder else { return Ok(None) };
        let (_, _, height, width) = features.size4()?;
        let (_, _, rows, columns) = patches.size4()?;
        if (height, width) != (rows, columns) {
            let expected = format!("{height} by {width}, as the decoder's");
            return Err(ModelError::setting("grid of the frozen features", format!("{rows} by {columns}"), expected));
        }
        let projected = features.f_to_kind(Kind::Float)?.f_conv2d(weight, None::<Tensor>, [1, 1], [0, 0], [1, 1], 1)?;
        self.aligned(patches, &projected).map(Some)
    }

    fn aligned(&self, frozen: &Tensor, projected: &Tensor) -> Result<Aligned, ModelError> {
        let frozen = frozen.f_detach()?.f_to_kind(Kind::Float)?;
        let cosine = Tensor::f_cosine_similarity(&frozen, projected, 1, COSINE_EPSILON)?;
        let loss = cosine.f_neg()?.f_add_scalar(1.0 - self.margin)?.f_relu()?.f_mean(None)?;
        Ok(Aligned { loss, cosine: cosine.f_detach()?.f_mean(None)? })
    }
}
