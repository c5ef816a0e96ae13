//! The encoder's transformer: image tokens merge into ever coarser levels, latent tokens read from all of them
//! (`ResTokEncoder` in modeling/modules/blocks.py).

use super::{
    config::{ImageInput, TokenizerConfig},
    hierarchy::{self, LevelRun},
};
use crate::{
    ModelError,
    layers::{Activation, Block, Convolution, LayerNorm, Linear, Merge, Segment, Stage, rotary_table},
    parameters::{Init, Scope},
    sizes::TransformerSize,
};
use tch::{Kind, Tensor};

#[derive(Debug)]
enum ImageEmbedding {
    /// A 1x1 convolution over features is a linear layer over their channels.
    Features(Linear),
    Patches(Convolution),
}

#[derive(Debug)]
enum LatentStart {
    /// Averages of the image tokens, `[L, image tokens]`.
    Pooled(Tensor),
    /// Learned, `[1, L, C]`.
    Learned(Tensor),
}

/// Features or pixels to what the quantizer reads.
#[derive(Debug)]
pub(super) struct LatentEncoder {
    embedding: ImageEmbedding,
    latent_start: LatentStart,
    /// Of the image's own level, `[1, C]`.
    image_level: Tensor,
    /// Of each latent token's level, `[1, L, C]`.
    latent_levels: Tensor,
    ln_pre: LayerNorm,
    blocks: Vec<(Block, Option<Merge>)>,
    /// The first for all blocks up to and with the first merge, and so on.
    stages: Vec<Stage>,
    /// The last block's, where only latent tokens are wanted.
    last_stage: Stage,
    ln_post: LayerNorm,
    heads: LevelHeads,
    /// Image tokens of each level after the last merge, coarsest first.
    image_tokens: Vec<i64>,
    legacy_order: bool,
}

/// The encoder's results.
pub(super) struct Encoded {
    /// What the quantizer reads, float32 `[B, L, token size]`.
    pub(super) z: Tensor,
    /// Image tokens of each level after the last block, coarsest first; empty unless they were asked for.
    pub(super) image_tokens: Vec<Tensor>,
}

impl LatentEncoder {
    pub(super) fn new(scope: &Scope<'_>, root: &Scope<'_>, config: &TokenizerConfig) -> Result<Self, ModelError> {
        let options = config.options();
        let TransformerSize { width, layers, heads } = config.encoder;
        let deviation = (width as f64).powf(-0.5);
        let embedding = match config.image_input {
            ImageInput::Convolutional => {
                ImageEmbedding::Features(pointwise(&scope.sub("patch_embed"), config.pixel_networks.z, width)?)
            }
            ImageInput::Patches => ImageEmbedding::Patches(Convolution::patches(
                &scope.sub("patch_embed.proj"),
                3,
                width,
                options.vit_enc_patch_size,
            )?),
        };
        let (side, level_sizes) = (config.encoder_grid as usize, config.levels.sizes());
        let latent_tokens = options.num_latent_tokens;
        let pooled = |matrix: &dyn Fn() -> Vec<f32>| -> Result<LatentStart, ModelError> {
            let matrix = scope.constant("pooling", || {
                let matrix = Tensor::f_from_slice(&matrix())?.f_view([latent_tokens as i64, (side * side) as i64])?;
                Ok(matrix.f_to_device(scope.device)?)
            })?;
            Ok(LatentStart::Pooled(matrix))
        };
        let latent_start = if options.learnable_latent_tokens {
            let learned = root.placed("latent_tokens", &[latent_tokens as i64, width], Init::Normal(deviation))?;
            LatentStart::Learned(learned.f_unsqueeze(0)?)
        } else if options.latent_hierarchy {
            pooled(&|| hierarchy::pooling_matrix(level_sizes, side, options.residual_latent_tokens))?
        } else {
            pooled(&|| hierarchy::flat_pooling_matrix(latent_tokens, side * side))?
        };

        let level_embeddings = (0..hierarchy::level_embeddings(config))
            .map(|level| scope.sub("level_embedding").placed(&level.to_string(), &[1, width], Init::Normal(deviation)))
            .collect::<Result<Vec<_>, _>>()?;
        let image_levels = hierarchy::image_levels(config)?;
        let merging = hierarchy::merging_blocks(config);
        let mut blocks = Vec::with_capacity(layers);
        for index in 0..layers {
            let block = Block::new(&scope.sub("blocks").sub(index), width, heads, index + 1 == layers)?;
            let merge = match merging.iter().position(|&merging| merging == index) {
                None => None,
                Some(number) => Some(merge(
                    scope,
                    image_levels[number],
                    image_levels[number + 1],
                    options.residual_image_tokens,
                    &level_embeddings[number + 1],
                )?),
            };
            blocks.push((block, merge));
        }
        let stage = |merges: usize, latent_only: bool| -> Result<Stage, ModelError> {
            let coarsest_first: Vec<_> = image_levels[..=merges].iter().rev().copied().collect();
            let image: Vec<i64> = coarsest_first.iter().map(|(height, width)| height * width).collect();
            let sizes: Vec<i64> = image.iter().copied().chain(level_sizes.iter().map(|&size| size as i64)).collect();
            let queries_from = if latent_only { image.iter().sum() } else { 0 };
            // Latent levels are grouped apart from the image's, so that they can attend alone in the last block.
            let mut runs = hierarchy::level_runs(&sizes[..image.len()]);
            let latent_runs = hierarchy::level_runs(&sizes[image.len()..]);
            let offset: i64 = image.iter().sum();
            runs.extend(latent_runs.into_iter().map(|run| LevelRun { start: run.start + offset, ..run }));
            let segments = runs
                .iter()
                .filter(|run| run.start >= queries_from)
                .map(|run| segment(scope, run))
                .collect::<Result<_, _>>()?;
            let rotary = scope.constant(format_args!("rotary after {merges} merges"), || {
                let positions = hierarchy::encoder_positions(&coarsest_first, latent_tokens);
                rotary_table(&positions, config.encoder.head_width(), options.rope_base_len, scope.device)
            })?;
            Ok(Stage { rotary, segments, queries_from })
        };
        let merges = image_levels.len() - 1;
        Ok(Self {
            embedding,
            latent_start,
            image_level: level_embeddings[0].shallow_clone(),
            latent_levels: latent_levels(scope, level_sizes, width)?,
            ln_pre: LayerNorm::new(&scope.sub("ln_pre"), width)?,
            blocks,
            stages: (0..=merges).map(|merges| stage(merges, false)).collect::<Result<_, _>>()?,
            last_stage: stage(merges, true)?,
            ln_post: LayerNorm::new(&scope.sub("ln_post"), width)?,
            heads: LevelHeads::new(scope, config)?,
            image_tokens: image_levels.iter().rev().map(|(height, width)| height * width).collect(),
            legacy_order: options.is_legacy,
        })
    }

    /// # Shapes
    /// `input`: features `[B, z, side, side]`, or normalised pixels where there is no convolutional encoder; channels-last.
    pub(super) fn forward(&self, input: &Tensor, with_image_tokens: bool) -> Result<Encoded, ModelError> {
        let features = match &self.embedding {
            ImageEmbedding::Features(_) => input.shallow_clone(),
            ImageEmbedding::Patches(patches) => patches.forward(input)?,
        };
        let (batch, channels, height, width) = features.size4()?;
        // Channels-last memory is [B, tokens, C] already.
        let image = features.f_permute([0, 2, 3, 1])?.f_reshape([batch, height * width, channels])?;
        let image = match &self.embedding {
            ImageEmbedding::Features(layer) => layer.forward(&image, Activation::None)?,
            ImageEmbedding::Patches(_) => image,
        }
        .f_to_kind(Kind::Float)?; // [B, image tokens, C]
        let latent = match &self.latent_start {
            LatentStart::Pooled(matrix) => matrix.f_matmul(&image)?,
            LatentStart::Learned(tokens) => tokens.f_expand([batch, -1, -1], false)?,
        }; // [B, L, C]
        let image = image.f_add(&self.image_level)?;
        let latent = latent.f_add(&self.latent_levels)?;
        let mut stream = self.ln_pre.forward(&Tensor::f_cat(&[image, latent], 1)?)?;

        let mut merges = 0;
        for (index, (block, merge)) in self.blocks.iter().enumerate() {
            let last = index + 1 == self.blocks.len();
            let stage = if last && !with_image_tokens { &self.last_stage } else { &self.stages[merges] };
            stream = block.forward(&stream, stage, merge.as_ref())?;
            merges += usize::from(merge.is_some());
        }

        let mut image_tokens = Vec::new();
        let mut start = 0;
        if with_image_tokens {
            for &count in &self.image_tokens {
                image_tokens.push(stream.f_narrow(1, start, count)?);
                start += count;
            }
        }
        let (_, tokens, channels) = stream.size3()?;
        let latent = self.ln_post.forward(&stream.f_narrow(1, start, tokens - start)?)?; // [B, L, C]
        let latent = match self.legacy_order {
            // The released weights were trained with this reshape in place of a transpose: it reads the numbers of all latent
            // tokens as if channels came first, so that each code sees eight channels of every token.
            true => latent.f_contiguous()?.f_view([batch, channels, tokens - start])?.f_transpose(1, 2)?,
            false => latent,
        };
        Ok(Encoded { z: self.heads.forward(&latent)?, image_tokens })
    }
}

/// Indices of one merge.
fn merge(
    scope: &Scope<'_>,
    (height, width): (i64, i64),
    (merged_height, merged_width): (i64, i64),
    residual: bool,
    level_embedding: &Tensor,
) -> Result<Merge, ModelError> {
    let (tokens, merged) = (height * width, merged_height * merged_width);
    let index = |what: &str, places: &dyn Fn() -> Vec<i64>| {
        scope.constant(format_args!("{what} of {tokens}"), || {
            Ok(Tensor::f_from_slice(&places())?.f_to_device(scope.device)?)
        })
    };
    let kept = || hierarchy::nearest(tokens, merged);
    let stands_for = || {
        let kept = kept();
        hierarchy::nearest(merged, tokens).into_iter().map(|place| kept[place as usize]).collect()
    };
    Ok(Merge {
        kept: index("kept", &kept)?,
        stands_for: residual.then(|| index("stands for", &stands_for)).transpose()?,
        level_embedding: level_embedding.shallow_clone(),
    })
}

fn segment(scope: &Scope<'_>, run: &LevelRun) -> Result<Segment, ModelError> {
    let (start, end) = (run.start, run.end());
    let mask = match run.levels.len() {
        1 => None,
        _ => {
            // Runs that start at the same token may differ in their levels: those are in the name.
            let mask = scope.constant(format_args!("mask of {start} {:?}", run.levels), || {
                let mask: Vec<f32> = hierarchy::visible(run)
                    .into_iter()
                    .map(|seen| if seen { 0.0 } else { f32::NEG_INFINITY })
                    .collect();
                scope.place(&Tensor::f_from_slice(&mask)?.f_view([end - start, end])?)
            })?;
            Some(mask)
        }
    };
    Ok(Segment { start, end, visible: end, mask })
}

/// A 1x1 convolution's weights as a linear layer.
pub(super) fn pointwise(scope: &Scope<'_>, inputs: i64, outputs: i64) -> Result<Linear, ModelError> {
    let weight = scope.tensor("weight", &[outputs, inputs, 1, 1], Init::WEIGHT)?.f_view([outputs, inputs])?;
    Linear::from_tensors(scope, &weight, Some(&scope.tensor("bias", &[outputs], Init::Zeros)?))
}

/// The embedding of each latent token's level, `[1, L, C]`.
pub(super) fn latent_levels(scope: &Scope<'_>, level_sizes: &[usize], width: i64) -> Result<Tensor, ModelError> {
    let scope = scope.sub("latent_token_level_embedding");
    let start = Init::Normal((width as f64).powf(-0.5));
    let rows = level_sizes.iter().enumerate().map(|(level, &size)| -> Result<Tensor, ModelError> {
        Ok(scope.placed(&level.to_string(), &[1, width], start)?.f_expand([size as i64, -1], false)?)
    });
    Ok(Tensor::f_cat(&rows.collect::<Result<Vec<_>, _>>()?, 0)?.f_unsqueeze(0)?)
}

/// Latent tokens to the quantizer's few channels: a projection for each level, or one for all. In float32 whatever the
/// encoder's precision: their output decides which code is nearest.
#[derive(Debug)]
struct LevelHeads {
    heads: Vec<Linear>,
    /// Tokens of each head.
    sizes: Vec<i64>,
}

impl LevelHeads {
    fn new(scope: &Scope<'_>, config: &TokenizerConfig) -> Result<Self, ModelError> {
        let (scope, options) = (scope.sub("conv_out").in_kind(Kind::Float), config.options());
        let (width, token_size) = (config.encoder.width, options.token_size);
        if !options.multi_quant {
            let heads = vec![pointwise(&scope, width, token_size)?.in_full_float32()];
            return Ok(Self { heads, sizes: vec![options.num_latent_tokens as i64] });
        }
        let sizes: Vec<i64> = config.levels.sizes().iter().map(|&size| size as i64).collect();
        let heads =
            (0..sizes.len()).map(|level| Ok(pointwise(&scope.sub(level), width, token_size)?.in_full_float32()));
        Ok(Self { heads: heads.collect::<Result<_, ModelError>>()?, sizes })
    }

    /// `[B, L, C]` to `[B, L, token size]`.
    fn forward(&self, latent: &Tensor) -> Result<Tensor, ModelError> {
        let (mut outputs, mut start) = (Vec::new(), 0);
        for (head, &size) in self.heads.iter().zip(&self.sizes) {
            outputs.push(head.forward(&latent.f_narrow(1, start, size)?, Activation::None)?);
            start += size;
        }
        Ok(Tensor::f_cat(&outputs, 1)?)
    }
}
