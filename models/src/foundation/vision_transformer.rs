//! The vision transformer of DINO, DINOv2 and DINOv3: patches, a class token, blocks of attention and a hidden layer.
//!
//! The three differ in small things, which are fields of [`VisionArchitecture`]. Names are those of the public files: timm's
//! `VisionTransformer` (DINOv2) and `Eva` (DINOv3), and facebookresearch/dino's own.

use crate::{
    ModelError,
    layers::{Activation, Convolution, LayerNorm, Linear, rotary_table, rotate},
    parameters::{Init, Scope},
};
use tch::{Kind, Tensor};

/// Width of the hidden layer over the width of a block.
const HIDDEN_RATIO: i64 = 4;

/// Which GELU: they differ in the fourth digit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gelu {
    /// By the error function.
    Exact,
    /// By the hyperbolic tangent, as the published discriminator computes DINO.
    Tanh,
}

/// How a patch knows its place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Positions {
    /// A table (`pos_embed`) for a square grid with this side, whose first entry is the class token's. Another grid gets it resized
    /// by bicubic interpolation with antialiasing.
    Table { side: i64 },
    /// Queries and keys turn by their place between -1 and 1, with a longest wavelength of this.
    Rotary { base: f64 },
}

/// What makes one vision transformer another than the next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct VisionArchitecture {
    /// Channels of a token.
    pub(crate) width: i64,
    pub(crate) layers: usize,
    pub(crate) heads: i64,
    /// Side of a patch in pixels.
    pub(crate) patch: i64,
    /// Tokens behind the class token that belong to no patch (`reg_token`).
    pub(crate) registers: i64,
    pub(crate) norm_epsilon: f64,
    pub(crate) gelu: Gelu,
    /// Whether `attn.qkv` has a bias.
    pub(crate) attention_bias: bool,
    /// Names of a block's two layer scales, where it has them.
    pub(crate) layer_scales: Option<[&'static str; 2]>,
    pub(crate) positions: Positions,
}

impl VisionArchitecture {
    /// <https://dl.fbaipublicfiles.com/dino/dino_deitsmall16_pretrain/dino_deitsmall16_pretrain.pth>
    pub(crate) const DINO_SMALL: Self = Self {
        width: 384,
        layers: 12,
        heads: 6,
        patch: 16,
        registers: 0,
        norm_epsilon: 1e-6,
        gelu: Gelu::Tanh,
        attention_bias: true,
        layer_scales: None,
        positions: Positions::Table { side: 14 },
    };
    /// <https://huggingface.co/timm/vit_large_patch14_dinov2.lvd142m>
    pub(crate) const DINOV2_LARGE: Self = Self {
        width: 1024,
        layers: 24,
        heads: 16,
        patch: 14,
        gelu: Gelu::Exact,
        layer_scales: Some(["ls1.gamma", "ls2.gamma"]),
        positions: Positions::Table { side: 37 },
        ..Self::DINO_SMALL
    };
    /// <https://huggingface.co/timm/vit_base_patch14_dinov2.lvd142m>
    pub(crate) const DINOV2_BASE: Self = Self { width: 768, layers: 12, heads: 12, ..Self::DINOV2_LARGE };
    /// <https://huggingface.co/timm/vit_large_patch16_dinov3.lvd1689m>
    pub(crate) const DINOV3_LARGE: Self = Self {
        patch: 16,
        registers: 4,
        norm_epsilon: 1e-5,
        attention_bias: false,
        layer_scales: Some(["gamma_1", "gamma_2"]),
        positions: Positions::Rotary { base: 100.0 },
        ..Self::DINOV2_LARGE
    };
}

/// Attention and a hidden layer, each behind a norm. Layer scales are folded into the projections.
#[derive(Debug)]
pub(crate) struct FrozenBlock {
    norm1: LayerNorm,
    qkv: Linear,
    output: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    heads: i64,
    gelu: Gelu,
    /// From [`rotary_table`], with a row for every token.
    rotary: Option<Tensor>,
}

impl FrozenBlock {
    fn new(
        scope: &Scope<'_>,
        architecture: &VisionArchitecture,
        rotary: Option<&Tensor>,
        gradients: bool,
    ) -> Result<Self, ModelError> {
        let &VisionArchitecture { width, heads, norm_epsilon, gelu, .. } = architecture;
        let hidden = HIDDEN_RATIO * width;
        let linear = |weight: &Tensor, bias: Option<&Tensor>| match gradients {
            true => Linear::unpacked(scope, weight, bias),
            false => Linear::from_tensors(scope, weight, bias),
        };
        let layer = |name: &str, inputs: i64, outputs: i64, gain: Option<&str>| -> Result<Linear, ModelError> {
            let folder = scope.sub(name);
            let weight = folder.tensor("weight", &[outputs, inputs], Init::WEIGHT)?;
            let bias = folder.tensor("bias", &[outputs], Init::Zeros)?;
            let Some(gain) = gain else { return linear(&weight, Some(&bias)) };
            let gain = scope.tensor(gain, &[outputs], Init::Ones)?;
            linear(&weight.f_mul(&gain.f_unsqueeze(1)?)?, Some(&bias.f_mul(&gain)?))
        };
        let attention = scope.sub("attn");
        let mut weight = attention.tensor("qkv.weight", &[3 * width, width], Init::WEIGHT)?;
        if rotary.is_some() {
            weight = pairs_side_by_side(&weight, heads)?;
        }
        // A bias of keys would shift all scores of a query alike; the published discriminator sets DINO's to 0, which is no change.
        let bias =
            architecture.attention_bias.then(|| attention.tensor("qkv.bias", &[3 * width], Init::Zeros)).transpose()?;
        let scale = |which: usize| architecture.layer_scales.map(|names| names[which]);
        Ok(Self {
            norm1: LayerNorm::with_epsilon(&scope.sub("norm1"), width, norm_epsilon)?,
            qkv: linear(&weight, bias.as_ref())?,
            output: layer("attn.proj", width, width, scale(0))?,
            norm2: LayerNorm::with_epsilon(&scope.sub("norm2"), width, norm_epsilon)?,
            fc1: layer("mlp.fc1", width, hidden, None)?,
            fc2: layer("mlp.fc2", hidden, width, scale(1))?,
            heads,
            gelu,
            rotary: rotary.map(Tensor::shallow_clone),
        })
    }

    /// # Shapes
    /// `stream`: float32 `[B, N, C]`; returns the same shape.
    pub(crate) fn forward(&self, stream: &Tensor) -> Result<Tensor, ModelError> {
        let (batch, tokens, channels) = stream.size3()?;
        let all = self.qkv.forward(&self.norm1.forward(stream)?, Activation::None)?;
        let all = all.f_view([batch, tokens, 3, self.heads, channels / self.heads])?;
        let mut queries_keys = all.f_narrow(2, 0, 2)?;
        if let Some(rotary) = &self.rotary {
            queries_keys = rotate(&queries_keys, rotary)?;
        }
        // [B, N, H, D] to [B, H, N, D], as views.
        let query = queries_keys.f_select(2, 0)?.f_transpose(1, 2)?;
        let key = queries_keys.f_select(2, 1)?.f_transpose(1, 2)?;
        let value = all.f_select(2, 2)?.f_transpose(1, 2)?;
        let none = None::<&Tensor>;
        let attended = Tensor::f_scaled_dot_product_attention(&query, &key, &value, none, 0.0, false, None, false)?;
        let attended = attended.f_transpose(1, 2)?.f_reshape([batch, tokens, channels])?;
        let stream = stream.f_add(&self.output.forward(&attended, Activation::None)?)?;
        let normal = self.norm2.forward(&stream)?;
        let hidden = match self.gelu {
            Gelu::Exact => self.fc1.forward(&normal, Activation::GeluExact)?,
            Gelu::Tanh => self.fc1.forward(&normal, Activation::None)?.f_gelu("tanh")?,
        };
        Ok(stream.f_add(&self.fc2.forward(&hidden, Activation::None)?)?)
    }
}

/// Reorders the channels of each head of queries and keys. DINOv3 turns channel i together with channel i + D / 2, ours are
/// neighbours; scores do not depend on the order, as long as queries and keys share it.
fn pairs_side_by_side(weight: &Tensor, heads: i64) -> Result<Tensor, ModelError> {
    let (outputs, width) = weight.size2()?; // [3 C, C]
    let queries_keys = weight.f_narrow(0, 0, 2 * width)?.f_view([2, heads, 2, width / heads / 2, width])?;
    let queries_keys = queries_keys.f_transpose(2, 3)?.f_reshape([2 * width, width])?;
    Ok(Tensor::f_cat(&[&queries_keys, &weight.f_narrow(0, 2 * width, outputs - 2 * width)?], 0)?)
}

/// A frozen vision transformer for images of one size.
#[derive(Debug)]
pub(crate) struct VisionTransformer {
    embedding: Convolution,
    /// Class token and registers, `[1, 1 + registers, C]`.
    prefix: Tensor,
    /// Added to the patches, `[1, h * w, C]`.
    table: Option<Tensor>,
    blocks: Vec<FrozenBlock>,
    norm: LayerNorm,
    width: i64,
    prefix_tokens: i64,
}

impl VisionTransformer {
    /// For images of `grid` rows and columns of patches. With `gradients`, they flow through it to the images.
    pub(crate) fn new(
        scope: &Scope<'_>,
        architecture: &VisionArchitecture,
        grid: [i64; 2],
        gradients: bool,
    ) -> Result<Self, ModelError> {
        let &VisionArchitecture { width, registers, patch, .. } = architecture;
        let token = |name: &str, count: i64| scope.placed(name, &[1, count, width], Init::WEIGHT);
        let mut prefix = token("cls_token", 1)?;
        let (mut table, mut rotary) = (None, None);
        match architecture.positions {
            Positions::Table { side } => {
                let all = token("pos_embed", 1 + side * side)?;
                prefix = prefix.f_add(&all.f_narrow(1, 0, 1)?)?;
                table = Some(resized_table(&all.f_narrow(1, 1, side * side)?, side, grid)?);
            }
            Positions::Rotary { base } => {
                let mut positions = vec![(0.0, 0.0); 1 + registers as usize]; // which do not turn
                positions.extend(centred_positions(grid));
                rotary = Some(rotary_table(&positions, width / architecture.heads, base, scope.device)?);
            }
        }
        if registers > 0 {
            prefix = Tensor::f_cat(&[&prefix, &token("reg_token", registers)?], 1)?;
        }
        let block =
            |index: usize| FrozenBlock::new(&scope.sub("blocks").sub(index), architecture, rotary.as_ref(), gradients);
        Ok(Self {
            embedding: Convolution::patches(&scope.sub("patch_embed").sub("proj"), 3, width, patch)?,
            prefix,
            table,
            blocks: (0..architecture.layers).map(block).collect::<Result<_, _>>()?,
            norm: LayerNorm::with_epsilon(&scope.sub("norm"), width, architecture.norm_epsilon)?,
            width,
            prefix_tokens: 1 + registers,
        })
    }

    /// Channels of a token.
    pub(crate) fn width(&self) -> i64 {
        self.width
    }

    /// Class token and registers, which stand before the patches.
    pub(crate) fn prefix_tokens(&self) -> i64 {
        self.prefix_tokens
    }

    /// The blocks, for whoever wants to see what is between them.
    pub(crate) fn blocks(&self) -> &[FrozenBlock] {
        &self.blocks
    }

    /// # Shapes
    /// `images`: float32 `[B, 3, h * patch, w * patch]`, normalised; returns `[B, prefix + h * w, C]`.
    pub(crate) fn embed(&self, images: &Tensor) -> Result<Tensor, ModelError> {
        let patches = self.embedding.forward(images)?.f_flatten(2, 3)?.f_transpose(1, 2)?;
        let patches = self.table.as_ref().map_or(Ok(patches.shallow_clone()), |table| patches.f_add(table))?;
        let (batch, _, _) = patches.size3()?;
        Ok(Tensor::f_cat(&[&self.prefix.f_expand([batch, -1, -1], false)?, &patches], 1)?)
    }

    /// All blocks and the last norm.
    ///
    /// # Shapes
    /// As [`Self::embed`].
    pub(crate) fn forward(&self, images: &Tensor) -> Result<Tensor, ModelError> {
        let mut stream = self.embed(images)?;
        for block in &self.blocks {
            stream = block.forward(&stream)?;
        }
        self.norm.forward(&stream)
    }
}

/// `[1, side², C]` to `[1, h * w, C]`, as timm's `resample_abs_pos_embed`.
fn resized_table(table: &Tensor, side: i64, grid: [i64; 2]) -> Result<Tensor, ModelError> {
    if grid == [side, side] {
        return Ok(table.shallow_clone());
    }
    let image = table.f_to_kind(Kind::Float)?.f_view([1, side, side, -1])?.f_permute([0, 3, 1, 2])?.f_contiguous()?;
    let resized = image.f_internal_upsample_bicubic2d_aa(grid, false, None, None)?;
    Ok(resized.f_flatten(2, 3)?.f_transpose(1, 2)?.f_contiguous()?)
}

/// Angles of the middles of patches along both axes for a wavelength of 1, where an axis goes from -1 to 1.
fn centred_positions([rows, columns]: [i64; 2]) -> impl Iterator<Item = (f64, f64)> {
    let angle = |index: i64, count: i64| std::f64::consts::TAU * (2.0 * (index as f64 + 0.5) / count as f64 - 1.0);
    (0..rows).flat_map(move |row| (0..columns).map(move |column| (angle(row, rows), angle(column, columns))))
}
