//! Frozen vision networks that training and scoring look through: they are read, never trained, and no tokenizer needs them afterwards.
//!
//! Published as modeling/modules/foundation_models.py over timm's models. docs/frozen-networks.md says which public file each is.

mod frozen_file;
mod perceptual_network;
mod vision_transformer;

pub(crate) use self::{
    frozen_file::FrozenFile,
    perceptual_network::{PerceptualNetwork, Trunk},
    vision_transformer::{VisionArchitecture, VisionTransformer},
};

use crate::{
    ModelError,
    parameters::Scope,
    visual_tokenizer::{CHANNEL_DEVIATION, CHANNEL_MEAN},
};
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// What training leaves in some files beside the network: the token that stood for hidden patches.
const TRAINING_TENSORS: [&str; 1] = ["mask_token"];

/// The frozen models to whose features a tokenizer can be aligned (`use_vf`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FoundationKind {
    /// `dinov3`: timm's `vit_large_patch16_dinov3.lvd1689m`.
    DinoV3Large,
    /// `dinov2`: timm's `vit_large_patch14_dinov2.lvd142m`.
    DinoV2Large,
    /// `dinov2_b`: timm's `vit_base_patch14_dinov2.lvd142m`.
    DinoV2Base,
}

impl FoundationKind {
    /// By its name in settings.
    ///
    /// # Errors
    /// When no such model can be aligned to.
    pub(crate) fn from_setting(name: &str) -> Result<Self, ModelError> {
        match name {
            "dinov3" => Ok(Self::DinoV3Large),
            "dinov2" => Ok(Self::DinoV2Large),
            "dinov2_b" => Ok(Self::DinoV2Base),
            other => Err(ModelError::setting("use_vf", other, "dinov3, dinov2 or dinov2_b")),
        }
    }

    /// Its public name.
    pub(crate) fn network(self) -> &'static str {
        match self {
            Self::DinoV3Large => "DINOv3 ViT-L/16",
            Self::DinoV2Large => "DINOv2 ViT-L/14",
            Self::DinoV2Base => "DINOv2 ViT-B/14",
        }
    }

    fn architecture(self) -> VisionArchitecture {
        match self {
            Self::DinoV3Large => VisionArchitecture::DINOV3_LARGE,
            Self::DinoV2Large => VisionArchitecture::DINOV2_LARGE,
            Self::DinoV2Base => VisionArchitecture::DINOV2_BASE,
        }
    }
}

/// What a frozen model sees in images.
#[derive(Debug)]
pub(crate) struct Features {
    /// The image as a whole, float32 `[B, C]`.
    pub(crate) class: Tensor,
    /// Its patches, float32 `[B, C, h, w]`.
    pub(crate) patches: Tensor,
}

/// A frozen model on a device.
#[derive(Debug)]
pub(crate) struct FoundationModel {
    colours: ColourNorm,
    transformer: VisionTransformer,
    /// Rows and columns of patches.
    grid: [i64; 2],
    /// What images are brought to, in pixels.
    size: [i64; 2],
}

impl FoundationModel {
    /// Reads `file`, strictly. Features come on a `grid` of rows and columns, whatever the images' size: the tokenizer's own grid.
    ///
    /// # Errors
    /// When the file is missing, damaged, or holds another network.
    pub(crate) fn load(kind: FoundationKind, file: &Path, device: Device, grid: [i64; 2]) -> Result<Self, ModelError> {
        Self::load_architecture(kind, &kind.architecture(), file, device, grid)
    }

    /// As [`Self::load`], of another size.
    pub(crate) fn load_architecture(
        kind: FoundationKind,
        architecture: &VisionArchitecture,
        file: &Path,
        device: Device,
        grid: [i64; 2],
    ) -> Result<Self, ModelError> {
        let _no_grad = tch::no_grad_guard();
        let file = FrozenFile { term: "the alignment loss", network: kind.network(), path: file };
        let build = |scope: &Scope<'_>| VisionTransformer::new(scope, architecture, grid, false);
        let transformer = file.load(device, build, |name| TRAINING_TENSORS.contains(&name))?;
        let size = grid.map(|side| side * architecture.patch);
        Ok(Self { colours: ColourNorm::imagenet(device)?, transformer, grid, size })
    }

    /// Channels of its features.
    pub(crate) fn width(&self) -> i64 {
        self.transformer.width()
    }

    /// The published pre-processing and a forward pass, without gradients: colours are normalised, and images whose patches are not
    /// the grid are resized by bicubic interpolation. At 256 pixels and a grid of 16 by 16 that is what is published: DINOv3, whose
    /// patches have 16 pixels, sees the images as they are; DINOv2, whose patches have 14, sees 224 pixels.
    ///
    /// # Shapes
    /// `images`: `[B, 3, H, W]` between 0 and 1.
    pub(crate) fn features(&self, images: &Tensor) -> Result<Features, ModelError> {
        let _no_grad = tch::no_grad_guard();
        let (batch, _, height, width) = images.size4()?;
        let mut images = self.colours.forward(&images.f_to_kind(Kind::Float)?)?;
        if [height, width] != self.size {
            images = images.f_upsample_bicubic2d(self.size, false, None, None)?;
        }
        let tokens = self.transformer.forward(&images)?; // [B, prefix + h * w, C]
        let [rows, columns] = self.grid;
        let patches = tokens.f_narrow(1, self.transformer.prefix_tokens(), rows * columns)?;
        let patches = patches.f_reshape([batch, rows, columns, -1])?.f_permute([0, 3, 1, 2])?;
        Ok(Features { class: tokens.f_select(1, 0)?, patches })
    }
}

/// Colours between 0 and 1 to mean 0 and deviation 1 over ImageNet.
#[derive(Debug)]
pub(crate) struct ColourNorm {
    mean: Tensor,
    deviation: Tensor,
}

impl ColourNorm {
    pub(crate) fn imagenet(device: Device) -> Result<Self, ModelError> {
        let placed = |values: [f64; 3]| -> Result<Tensor, ModelError> {
            let values = values.map(|value| value as f32);
            Ok(Tensor::f_from_slice(&values)?.f_view([1, 3, 1, 1])?.f_to_device(device)?)
        };
        Ok(Self { mean: placed(CHANNEL_MEAN)?, deviation: placed(CHANNEL_DEVIATION)? })
    }

    /// `[B, 3, H, W]` to the same shape.
    pub(crate) fn forward(&self, images: &Tensor) -> Result<Tensor, ModelError> {
        Ok(images.f_sub(&self.mean)?.f_div(&self.deviation)?)
    }
}
