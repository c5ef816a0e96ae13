//! The transformer block, and the merging of image tokens inside some of the encoder's.

use super::{
    Linear, add_into,
    attention::{Attention, Stage},
    linear::Activation,
    normalization::LayerNorm,
};
use crate::{
    ModelError,
    parameters::{Init, Scope},
};
use tch::{Kind, Tensor};

/// Width of the hidden layer over the width of a block.
const HIDDEN_RATIO: i64 = 4;

/// Makes a coarser level of image tokens out of the coarsest so far (modeling/modules/blocks.py, `ResTokTransformerBlock`).
#[derive(Debug)]
pub(crate) struct Merge {
    /// Which of the coarsest tokens stay as the new level, `[n']`.
    pub(crate) kept: Tensor,
    /// For each of the coarsest tokens, the kept one that stands for it, `[n]`, where the level it came from keeps only what the
    /// new level does not say; `None` where it keeps all.
    pub(crate) stands_for: Option<Tensor>,
    /// Added to the new level after the block, `[1, C]`.
    pub(crate) level_embedding: Tensor,
}

/// Attention and a hidden layer, each behind a norm and added to the stream. Layer scales are folded into the projections.
#[derive(Debug)]
pub(crate) struct Block {
    norm1: LayerNorm,
    attention: Attention,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    kind: Kind,
}

impl Block {
    /// `last` where only some tokens' outputs are wanted.
    pub(crate) fn new(scope: &Scope<'_>, channels: i64, heads: i64, last: bool) -> Result<Self, ModelError> {
        let attention_gain = scope.tensor("gamma_1", &[channels], Init::Ones)?;
        let hidden_gain = scope.tensor("gamma_2", &[channels], Init::Ones)?;
        let hidden = HIDDEN_RATIO * channels;
        let narrow_scope = scope.sub("mlp.fc2");
        let narrow_weight = narrow_scope.tensor("weight", &[channels, hidden], Init::WEIGHT)?;
        let narrow_bias = narrow_scope.tensor("bias", &[channels], Init::Zeros)?;
        Ok(Self {
            norm1: LayerNorm::new(&scope.sub("norm1"), channels)?,
            attention: Attention::new(&scope.sub("attn"), channels, heads, &attention_gain, last)?,
            norm2: LayerNorm::new(&scope.sub("norm2"), channels)?,
            fc1: Linear::new(&scope.sub("mlp.fc1"), channels, hidden)?,
            fc2: Linear::from_tensors(
                &narrow_scope,
                &narrow_weight.f_mul(&hidden_gain.f_unsqueeze(1)?)?,
                Some(&narrow_bias.f_mul(&hidden_gain)?),
            )?,
            kind: scope.kind,
        })
    }

    /// # Shapes
    /// `stream`: float32 `[B, N, C]`; returns `[B, N - queries_from, C]`, and with a merge the new level's tokens in front.
    pub(crate) fn forward(&self, stream: &Tensor, stage: &Stage, merge: Option<&Merge>) -> Result<Tensor, ModelError> {
        let (_, tokens, _) = stream.size3()?;
        let attended = self.attention.forward(&self.norm1.forward_as(stream, self.kind)?, stage)?;
        let mut stream = stream.f_narrow(1, stage.queries_from, tokens - stage.queries_from)?.f_add(&attended)?;
        if let Some(merge) = merge {
            stream = merge.prepend(&stream)?;
        }
        let hidden = self.fc1.forward(&self.norm2.forward_as(&stream, self.kind)?, Activation::GeluExact)?;
        let mut stream = add_into(stream, &self.fc2.forward(&hidden, Activation::None)?)?;
        if let Some(merge) = merge {
            stream = merge.embed_level(stream)?;
        }
        debug_assert_eq!(stream.kind(), Kind::Float);
        Ok(stream)
    }
}

impl Merge {
    /// Adds the new level's embedding to its tokens, the first of `stream`.
    fn embed_level(&self, stream: Tensor) -> Result<Tensor, ModelError> {
        let (_, tokens, _) = stream.size3()?;
        let count = self.kept.size1()?;
        let level = add_into(stream.f_narrow(1, 0, count)?, &self.level_embedding)?;
        if !level.requires_grad() {
            return Ok(stream); // it was added in place
        }
        Ok(Tensor::f_cat(&[&level, &stream.f_narrow(1, count, tokens - count)?], 1)?)
    }

    fn prepend(&self, stream: &Tensor) -> Result<Tensor, ModelError> {
        let (_, tokens, _) = stream.size3()?;
        // Kept tokens are found among the first; those after the coarsest level are never named by an index.
        let level = stream.f_index_select(1, &self.kept)?;
        let Some(stands_for) = &self.stands_for else {
            return Ok(Tensor::f_cat(&[&level, stream], 1)?);
        };
        let coarsest = stands_for.size1()?;
        let said = stream.f_index_select(1, stands_for)?;
        let rest = stream.f_narrow(1, 0, coarsest)?.f_sub(&said)?;
        Ok(Tensor::f_cat(&[&level, &rest, &stream.f_narrow(1, coarsest, tokens - coarsest)?], 1)?)
    }
}
