//! From what the operator calls a model to one that is loaded, with the identity that goes into plans.

use crate::{
    hub::{self, HubSettings},
    settings::ModelReference,
};
use anyhow::Result;
use models::{Device, Generator, LoadOptions, ModelError, Precision, VisualTokenizer};
use schemas::{GeneratorIdentity, TokenizerIdentity, sha256_hex};
use std::path::{Path, PathBuf};

/// A folder with a tokenizer or a generator, and what it is called in tables.
#[derive(Clone, Debug)]
pub(crate) struct ModelFolder {
    path: PathBuf,
    /// `None` for the folder's own name.
    name: Option<String>,
}

impl ModelFolder {
    /// Finds the folder, fetching it from the hub if that is where it is. Blocks on the network.
    ///
    /// # Errors
    /// When the hub has no such model or fails.
    pub(crate) fn find(reference: &ModelReference) -> Result<Self> {
        Ok(match reference {
            ModelReference::Folder(path) => Self { path: path.clone(), name: None },
            ModelReference::Hub { repository, revision } => Self {
                path: hub::fetch(&HubSettings::from_environment(), repository, revision.as_deref())?,
                // Not the revision: a branch moves, and the digest tells versions apart.
                name: Some(format!("hf://{repository}")),
            },
        })
    }

    /// The folder on this machine.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Loads the tokenizer in it onto a device.
    ///
    /// # Errors
    /// When a file is missing, damaged or does not fit the other.
    pub(crate) fn load_tokenizer(&self, device: Device, precision: Precision) -> Result<VisualTokenizer, ModelError> {
        VisualTokenizer::load(&self.path, self.options(device, precision))
    }

    /// Loads the generator in it onto a device.
    ///
    /// # Errors
    /// As [`Self::load_tokenizer`].
    pub(crate) fn load_generator(&self, device: Device, precision: Precision) -> Result<Generator, ModelError> {
        Generator::load(&self.path, self.options(device, precision))
    }

    fn options(&self, device: Device, precision: Precision) -> LoadOptions {
        LoadOptions { device, precision, name: self.name.clone() }
    }
}

/// What a plan remembers of a tokenizer.
pub(crate) fn tokenizer_identity(tokenizer: &VisualTokenizer) -> TokenizerIdentity {
    TokenizerIdentity {
        name: tokenizer.name().to_owned(),
        sha256: digest(&tokenizer.config().to_json(), tokenizer.weights_sha256()),
        codebook_size: tokenizer.codebook_size(),
        levels: tokenizer.levels().clone(),
    }
}

/// What a plan remembers of a generator.
pub(crate) fn generator_identity(generator: &Generator) -> GeneratorIdentity {
    GeneratorIdentity {
        name: generator.name().to_owned(),
        sha256: digest(&generator.config().to_json(), generator.weights_sha256()),
    }
}

/// Covers configuration and weights: the same weights under another configuration give other tokens.
fn digest(config: &str, weights_sha256: &str) -> String {
    sha256_hex(format!("{config}\n{weights_sha256}\n").as_bytes())
}
