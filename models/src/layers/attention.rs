//! Self-attention with a hierarchical causal mask, computed without the mask wherever that is possible.
//!
//! Tokens are ordered by level and a level sees itself and all before it. So a level is a rectangle of the attention matrix: its
//! rows against the first columns. Each rectangle is one fused attention without a mask, the far side of the diagonal is never
//! computed, and only the smallest levels, which are not worth a call each, share a rectangle with a mask.

use super::{Linear, linear::Activation, normalization::LAYER_NORM_EPSILON, normalization::LayerNorm, rotary::rotate};
use crate::{
    ModelError,
    parameters::{Init, Scope},
};
use tch::{Kind, Tensor};

/// A run of neighbouring tokens, and the tokens they see: the first `visible`.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) start: i64,
    pub(crate) end: i64,
    pub(crate) visible: i64,
    /// `[end - start, visible]`, 0 or minus infinity, in the attention's kind; absent where all of `visible` is seen.
    pub(crate) mask: Option<Tensor>,
}

/// What attention needs to know of its tokens; the same for all blocks between two merges.
#[derive(Debug)]
pub(crate) struct Stage {
    /// From [`super::rotary_table`].
    pub(crate) rotary: Tensor,
    /// Covers all tokens, or with `queries_from` those from there on.
    pub(crate) segments: Vec<Segment>,
    /// First token whose output is wanted. Those before it are seen, but see nothing.
    pub(crate) queries_from: i64,
}

/// The projections of one token to query, key and value.
#[derive(Debug)]
enum Projection {
    Fused(Linear),
    /// For the last block, where most queries are not wanted.
    Split {
        query: Linear,
        key_value: Linear,
    },
}

/// Multi-head attention with normalised queries and keys.
#[derive(Debug)]
pub(crate) struct Attention {
    projection: Projection,
    /// Query and key norm side by side, `[2, 1, D]`.
    norm_weight: Tensor,
    norm_bias: Tensor,
    output: Linear,
    heads: i64,
    kind: Kind,
}

impl Attention {
    /// `gain` (`[channels]`, the block's layer scale) is folded into the output projection. `split` for the last block.
    pub(crate) fn new(
        scope: &Scope<'_>,
        channels: i64,
        heads: i64,
        gain: &Tensor,
        split: bool,
    ) -> Result<Self, ModelError> {
        let weight = scope.tensor("qkv.weight", &[3 * channels, channels], Init::WEIGHT)?;
        let query_bias = scope.tensor("q_bias", &[channels], Init::Zeros)?;
        let value_bias = scope.tensor("v_bias", &[channels], Init::Zeros)?;
        // Keys have no bias: it would shift all scores of a query alike.
        let bias = Tensor::f_cat(&[&query_bias, &query_bias.f_zeros_like()?, &value_bias], 0)?;
        let part = |from: i64, parts: i64| -> Result<Linear, ModelError> {
            let weight = weight.f_narrow(0, from * channels, parts * channels)?;
            Linear::from_tensors(scope, &weight, Some(&bias.f_narrow(0, from * channels, parts * channels)?))
        };
        let projection = match split {
            true => Projection::Split { query: part(0, 1)?, key_value: part(1, 2)? },
            false => Projection::Fused(part(0, 3)?),
        };
        let query_norm = LayerNorm::new(&scope.sub("q_norm"), channels / heads)?;
        let key_norm = LayerNorm::new(&scope.sub("k_norm"), channels / heads)?;
        let both = |query: &Tensor, key: &Tensor| Tensor::f_stack(&[query, key], 0)?.f_unsqueeze(1);
        let output_scope = scope.sub("proj");
        let output_weight = output_scope.tensor("weight", &[channels, channels], Init::WEIGHT)?;
        let output_bias = output_scope.tensor("bias", &[channels], Init::Zeros)?;
        Ok(Self {
            projection,
            norm_weight: both(&query_norm.weight, &key_norm.weight)?,
            norm_bias: both(&query_norm.bias, &key_norm.bias)?,
            output: Linear::from_tensors(
                &output_scope,
                &output_weight.f_mul(&gain.f_unsqueeze(1)?)?,
                Some(&output_bias.f_mul(gain)?),
            )?,
            heads,
            kind: scope.kind,
        })
    }

    /// # Shapes
    /// `input`: float32 `[B, N, C]`; returns `[B, N - queries_from, C]` in the layer's kind.
    pub(crate) fn forward(&self, input: &Tensor, stage: &Stage) -> Result<Tensor, ModelError> {
        let (batch, tokens, channels) = input.size3()?;
        let heads = |tensor: Tensor, parts: i64| tensor.f_view([batch, -1, parts, self.heads, channels / self.heads]);
        let (query, key, value) = match &self.projection {
            Projection::Fused(layer) => {
                let all = heads(layer.forward(input, Activation::None)?, 3)?;
                let turned = self.turn(&all.f_narrow(2, 0, 2)?, &self.norm_weight, &self.norm_bias, &stage.rotary)?;
                let query = turned.f_select(2, 0)?.f_narrow(1, stage.queries_from, tokens - stage.queries_from)?;
                (query, turned.f_select(2, 1)?, all.f_select(2, 2)?)
            }
            Projection::Split { query, key_value } => {
                let wanted = tokens - stage.queries_from;
                let queries = input.f_narrow(1, stage.queries_from, wanted)?;
                let query = heads(query.forward(&queries, Activation::None)?, 1)?;
                let key_value = heads(key_value.forward(input, Activation::None)?, 2)?;
                let norm = |tensor: &Tensor, which: i64| tensor.f_narrow(0, which, 1);
                let query = self.turn(
                    &query,
                    &norm(&self.norm_weight, 0)?,
                    &norm(&self.norm_bias, 0)?,
                    &stage.rotary.f_narrow(1, stage.queries_from, wanted)?,
                )?;
                let key = self.turn(
                    &key_value.f_narrow(2, 0, 1)?,
                    &norm(&self.norm_weight, 1)?,
                    &norm(&self.norm_bias, 1)?,
                    &stage.rotary,
                )?;
                (query.f_select(2, 0)?, key.f_select(2, 0)?, key_value.f_select(2, 1)?)
            }
        };
        // [B, N, H, D] to [B, H, N, D], as views.
        let (query, key, value) = (query.f_transpose(1, 2)?, key.f_transpose(1, 2)?, value.f_transpose(1, 2)?);
        let mut attended = Vec::with_capacity(stage.segments.len());
        for segment in &stage.segments {
            let rows = query.f_narrow(2, segment.start - stage.queries_from, segment.end - segment.start)?;
            let (key, value) = (key.f_narrow(2, 0, segment.visible)?, value.f_narrow(2, 0, segment.visible)?);
            let output = Tensor::f_scaled_dot_product_attention(
                &rows,
                &key,
                &value,
                segment.mask.as_ref(),
                0.0,
                false,
                None,
                false,
            )?;
            attended.push(output.f_transpose(1, 2)?);
        }
        let attended = match &attended[..] {
            [one] => one.shallow_clone(),
            several => Tensor::f_cat(several, 1)?,
        };
        self.output.forward(&attended.f_reshape([batch, -1, channels])?, Activation::None)
    }

    /// Norm and rotation of queries and keys, in float32: `[B, N, projections, H, D]`, weights `[projections, 1, D]`.
    fn turn(&self, input: &Tensor, weight: &Tensor, bias: &Tensor, rotary: &Tensor) -> Result<Tensor, ModelError> {
        let channels = weight.size().last().copied().unwrap_or_default();
        let input = input.f_to_kind(Kind::Float)?;
        let normal = input.f_layer_norm([channels], None::<Tensor>, None::<Tensor>, LAYER_NORM_EPSILON, true)?;
        rotate(&bias.f_addcmul(&normal, weight)?, rotary)?.f_to_kind(self.kind).map_err(Into::into)
    }
}
