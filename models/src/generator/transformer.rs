//! The generator as a function of its parameters (`Transformer` in autoregressive/models/gpt_har.py).

use super::{
    block::{AttentionContext, Block, dropout},
    config::{Dropouts, GeneratorConfig},
    kv_cache::KvCache,
    steps::{Step, Steps},
};
use crate::{
    ModelError,
    layers::{Activation, Linear, RmsNorm, rotary_line},
    parameters::{Init, Scope},
};
use tch::{Kind, Tensor};

/// Classes and tokens to logits: of all positions of an image at once, or of one step after the other.
#[derive(Debug)]
pub(crate) struct Transformer {
    /// `[classes, C]`, the null class last where there is one.
    class_embedding: Tensor,
    /// `[codes, C]`.
    token_embedding: Tensor,
    /// `[1, special tokens, C]`.
    special_embedding: Option<Tensor>,
    blocks: Vec<Block>,
    norm: RmsNorm,
    head: Linear,
    /// Complex `[1, N, 1, 1, D / 2]`.
    rotary: Tensor,
    steps: Steps,
    token_dropout: f64,
    kind: Kind,
}

impl Transformer {
    /// In a scope that is trained, with the configuration's dropouts.
    pub(crate) fn new(scope: &Scope<'_>, config: &GeneratorConfig) -> Result<Self, ModelError> {
        let (size, steps) = (config.size(), config.steps());
        let init = Init::Normal(config.init_std());
        let (codes, width) = (config.codebook_size() as i64, size.width);
        let dropouts = if scope.trainable() { config.dropouts() } else { Dropouts::default() };
        let blocks = (0..size.layers).map(|layer| {
            // None for the first block, all of it for the last.
            let path = dropouts.path * layer as f64 / (size.layers - 1).max(1) as f64;
            Block::new(&scope.sub("layers").sub(layer), config, Dropouts { path, ..dropouts })
        });
        let special = config.special_tokens().map(|tokens| -> Result<Tensor, ModelError> {
            let table = scope.sub("spe_tok_embeddings.special_embeddings").placed("weight", &[tokens, width], init)?;
            Ok(table.f_unsqueeze(0)?)
        });
        Ok(Self {
            class_embedding: scope.sub("cls_embedding.embedding_table").placed(
                "weight",
                &[config.class_rows(), width],
                init,
            )?,
            token_embedding: scope.sub("tok_embeddings").placed("weight", &[codes, width], init)?,
            special_embedding: special.transpose()?,
            blocks: blocks.collect::<Result<_, _>>()?,
            norm: RmsNorm::new(&scope.sub("norm"), width, config.norm_epsilon())?,
            head: Linear::without_bias(&scope.sub("output"), width, codes, Init::Zeros)?,
            rotary: scope.constant("rotary", || {
                rotary_line(steps.tokens(), size.head_width(), config.rotary_base(), scope.device)
            })?,
            steps,
            token_dropout: dropouts.token,
            kind: scope.kind,
        })
    }

    pub(crate) fn steps(&self) -> &Steps {
        &self.steps
    }

    /// Teacher-forced: every token from the true tokens that its step may see.
    ///
    /// # Shapes
    /// `classes`: int64 `[B]`; `tokens`: int64 `[B, N]`; returns float32 logits `[B, N, codes]`, at each position those of its token.
    pub(crate) fn forward(&self, classes: &Tensor, tokens: &Tensor) -> Result<Tensor, ModelError> {
        let read = self.embed_tokens(&tokens.f_narrow(1, 0, self.steps.tokens_read())?)?;
        let batch = classes.size1()?;
        let mut input = vec![self.embed_classes(classes)?];
        for step in self.steps.iter().filter(|step| !step.is_first()) {
            input.push(read.f_narrow(1, step.read.start, step.read.end - step.read.start)?);
            input.extend(self.special(step, batch)?);
        }
        let mut stream = dropout(Tensor::f_cat(&input, 1)?, self.token_dropout)?;
        for block in &self.blocks {
            stream = block.forward(stream, &self.rotary, AttentionContext::Whole(&self.steps))?;
        }
        self.logits(&stream)
    }

    /// One step of sampling: the stream of its positions after the last block, for [`Self::logits`].
    ///
    /// # Shapes
    /// `input`: what the step reads, int64: classes `[B]` for the first, else tokens `[B / copies, n]`, which stand for `copies`
    /// samples each. Returns float32 `[B, step's tokens, C]`.
    pub(super) fn step(&self, step: &Step, input: &Tensor, copies: i64, cache: &KvCache) -> Result<Tensor, ModelError> {
        let mut stream = if step.is_first() {
            self.embed_classes(input)?
        } else {
            let mut parts = vec![self.embed_tokens(input)?];
            let (batch, ..) = parts[0].size3()?;
            parts.extend(self.special(step, batch)?);
            Tensor::f_cat(&parts, 1)?.f_repeat([copies, 1, 1])?
        };
        let rotary = self.rotary.f_narrow(1, step.start, step.tokens)?;
        for (layer, block) in self.blocks.iter().enumerate() {
            stream = block.forward(stream, &rotary, AttentionContext::Step(cache.layer(layer)))?;
        }
        Ok(stream)
    }

    /// Float32 logits of a stream after the last block.
    pub(crate) fn logits(&self, stream: &Tensor) -> Result<Tensor, ModelError> {
        Ok(self.head.forward(&self.norm.forward(stream, self.kind)?, Activation::None)?.f_to_kind(Kind::Float)?)
    }

    fn embed_classes(&self, classes: &Tensor) -> Result<Tensor, ModelError> {
        Ok(Tensor::f_embedding(&self.class_embedding, classes, -1, false, false)?.f_unsqueeze(1)?)
    }

    fn embed_tokens(&self, tokens: &Tensor) -> Result<Tensor, ModelError> {
        Ok(Tensor::f_embedding(&self.token_embedding, tokens, -1, false, false)?)
    }

    fn special(&self, step: &Step, batch: i64) -> Result<Option<Tensor>, ModelError> {
        let Some(table) = self.special_embedding.as_ref().filter(|_| !step.special.is_empty()) else {
            return Ok(None);
        };
        let (_, _, channels) = table.size3()?;
        let rows = table.f_narrow(1, step.special.start, step.special.end - step.special.start)?;
        Ok(Some(rows.f_expand([batch, -1, channels], false)?))
    }
}
