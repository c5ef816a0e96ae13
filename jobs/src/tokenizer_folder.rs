//! From what the operator calls a tokenizer to one that is loaded, with the identity that goes into plans.

use crate::{
    hub::{self, HubSettings},
    settings::TokenizerReference,
};
use anyhow::Result;
use models::{Device, LoadOptions, ModelError, Precision, VisualTokenizer};
use schemas::{TokenizerIdentity, sha256_hex};
use std::path::PathBuf;

/// A folder with a tokenizer, and what it is called in tables.
#[derive(Clone, Debug)]
pub(crate) struct TokenizerFolder {
    path: PathBuf,
    /// `None` for the folder's own name.
    name: Option<String>,
}

impl TokenizerFolder {
    /// Finds the folder, fetching it from the hub if that is where it is. Blocks on the network.
    ///
    /// # Errors
    /// When the hub has no such tokenizer or fails.
    pub(crate) fn find(reference: &TokenizerReference) -> Result<Self> {
        Ok(match reference {
            TokenizerReference::Folder(path) => Self { path: path.clone(), name: None },
            TokenizerReference::Hub { repository, revision } => Self {
                path: hub::fetch(&HubSettings::from_environment(), repository, revision.as_deref())?,
                // Not the revision: a branch moves, and the digest tells versions apart.
                name: Some(format!("hf://{repository}")),
            },
        })
    }

    /// Loads it onto a device.
    ///
    /// # Errors
    /// When a file is missing, damaged or does not fit the other.
    pub(crate) fn load(&self, device: Device, precision: Precision) -> Result<VisualTokenizer, ModelError> {
        VisualTokenizer::load(&self.path, LoadOptions { device, precision, name: self.name.clone() })
    }
}

/// What a plan remembers of a tokenizer. The digest covers configuration and weights: the same weights under another
/// configuration give other tokens.
pub(crate) fn identity(tokenizer: &VisualTokenizer) -> TokenizerIdentity {
    let contents = format!("{}\n{}\n", tokenizer.config().to_json(), tokenizer.weights_sha256());
    TokenizerIdentity {
        name: tokenizer.name().to_owned(),
        sha256: sha256_hex(contents.as_bytes()),
        codebook_size: tokenizer.codebook_size(),
        levels: tokenizer.levels().clone(),
    }
}
