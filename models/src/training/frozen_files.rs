//! Weights of the networks that training listens to and does not change.

use super::{DiscriminatorKind, TokenizerRecipe};
use crate::{ModelError, TokenizerConfig, weight_file::sha256};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Files of frozen networks; docs/frozen-networks.md says which public file each is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrozenFiles {
    /// VGG16.
    pub vgg16: Option<PathBuf>,
    /// LPIPS' linear layers.
    pub lpips: Option<PathBuf>,
    /// DINO ViT-S/16.
    pub dino: Option<PathBuf>,
    /// The vision foundation model that the configuration names.
    pub foundation_model: Option<PathBuf>,
}

/// The files of the terms that a recipe asks for.
#[derive(Debug)]
pub(super) struct Needed<'a> {
    /// VGG16 and LPIPS' layers.
    pub(super) perceptual: Option<(&'a Path, &'a Path)>,
    pub(super) dino: Option<&'a Path>,
    /// The model's name and its file.
    pub(super) foundation_model: Option<(&'a str, &'a Path)>,
}

impl FrozenFiles {
    /// SHA-256 of every file that `recipe` and `config` need, by its name here: what a run listens to must not change within it.
    ///
    /// # Errors
    /// When a file is needed and absent, or cannot be read.
    pub fn digests(
        &self,
        recipe: &TokenizerRecipe,
        config: &TokenizerConfig,
    ) -> Result<BTreeMap<&'static str, String>, ModelError> {
        let needed = self.needed(recipe, config)?;
        let files = [
            ("vgg16", needed.perceptual.map(|(vgg16, _)| vgg16)),
            ("lpips", needed.perceptual.map(|(_, lpips)| lpips)),
            ("dino", needed.dino),
            ("foundation_model", needed.foundation_model.map(|(_, file)| file)),
        ];
        files
            .into_iter()
            .filter_map(|(name, file)| Some((name, file?)))
            .map(|(name, file)| Ok((name, sha256(file)?)))
            .collect()
    }

    /// The error of a discriminator without its network.
    pub(super) fn missing_dino() -> ModelError {
        ModelError::MissingFrozenNetwork {
            term: "the discriminator",
            network: "DINO ViT-S/16",
            option: "dino",
            weight: "`discriminator` patch or `discriminator_weight` 0",
        }
    }

    /// What `recipe` and `config` need of these files.
    ///
    /// # Errors
    /// When a term has a weight and its network no file, or alignment a weight and nothing to align: no term is left out in silence.
    pub(super) fn needed<'a>(
        &'a self,
        recipe: &TokenizerRecipe,
        config: &'a TokenizerConfig,
    ) -> Result<Needed<'a>, ModelError> {
        // Before any file is asked for: nobody is to fetch one for a recipe that cannot be.
        let name = (recipe.alignment_weight > 0.0).then(|| aligned_with(config)).transpose()?;
        let file = |path: &'a Option<PathBuf>, term, network, option, weight| {
            path.as_deref().ok_or(ModelError::MissingFrozenNetwork { term, network, option, weight })
        };
        let perceptual = (recipe.perceptual_weight > 0.0)
            .then(|| -> Result<_, ModelError> {
                let weight = "`perceptual_weight` 0";
                let vgg16 = file(&self.vgg16, "the perceptual loss", "VGG16", "vgg16", weight)?;
                Ok((vgg16, file(&self.lpips, "the perceptual loss", "LPIPS' linear layers", "lpips", weight)?))
            })
            .transpose()?;
        let dino = (recipe.adversarial_weight > 0.0 && recipe.discriminator == DiscriminatorKind::Dino)
            .then(|| self.dino.as_deref().ok_or_else(Self::missing_dino))
            .transpose()?;
        let foundation_model = name
            .map(|name| -> Result<_, ModelError> {
                let weight = "`alignment_weight` 0";
                let network = "the vision foundation model of the configuration";
                Ok((name, file(&self.foundation_model, "the alignment", network, "foundation_model", weight)?))
            })
            .transpose()?;
        Ok(Needed { perceptual, dino, foundation_model })
    }
}

/// The vision foundation model that `config` aligns a tokenizer with.
fn aligned_with(config: &TokenizerConfig) -> Result<&str, ModelError> {
    let name = config.foundation_model().ok_or(ModelError::NothingToAlign { found: "no use_vf" })?;
    match config.encoder_features_are_aligned() || config.decoder_features_are_aligned() {
        true => Ok(name),
        false => Err(ModelError::NothingToAlign { found: "use_vf and neither supervision" }),
    }
}
