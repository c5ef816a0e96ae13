//! A model's folder, `config.json` and `model.safetensors`: what is the same for every model in it.

use crate::{
    ModelError,
    weight_file::{self, WeightFile},
};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    io::ErrorKind,
    path::{Path, PathBuf},
};
use tch::Tensor;

const CONFIG_FILE: &str = "config.json";
const WEIGHTS_FILE: &str = "model.safetensors";

/// Where the weights can be had again, in the precision in which they came.
#[derive(Debug)]
pub(crate) enum Origin {
    Folder(PathBuf),
    Memory(BTreeMap<String, Tensor>),
}

/// Where a model came from, and what it is called.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) name: String,
    pub(crate) weights_sha256: String,
    pub(crate) origin: Origin,
}

/// A folder that was opened and not yet believed.
pub(crate) struct ModelFolder {
    pub(crate) config_file: PathBuf,
    pub(crate) config_text: String,
    pub(crate) weights: WeightFile,
}

impl ModelFolder {
    /// # Errors
    /// When one of the two files is missing, is a pickle or something else, or is damaged.
    pub(crate) fn open(folder: &Path) -> Result<Self, ModelError> {
        let config_file = folder.join(CONFIG_FILE);
        let config_text = std::fs::read_to_string(&config_file).map_err(|source| match source.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => ModelError::missing(&config_file),
            _ => ModelError::File { file: config_file.clone(), source },
        })?;
        // What editors put in front of a text is no part of it.
        let config_text = config_text.trim_start_matches('\u{feff}').to_owned();
        Ok(Self { config_file, config_text, weights: WeightFile::open(&folder.join(WEIGHTS_FILE))? })
    }
}

impl Identity {
    /// Of the model in `folder`, called by the folder's name unless `name` is given.
    pub(crate) fn of_folder(folder: &Path, name: Option<String>, weights: &WeightFile) -> Result<Self, ModelError> {
        Ok(Self {
            name: name.unwrap_or_else(|| folder_name(folder)),
            weights_sha256: weights.sha256()?,
            origin: Origin::Folder(folder.to_owned()),
        })
    }

    /// Of random tensors, whose digest is over their names and numbers.
    pub(crate) fn of_random(
        seed: i64,
        name: Option<String>,
        drawn: BTreeMap<String, Tensor>,
    ) -> Result<Self, ModelError> {
        let name = name.unwrap_or_else(|| format!("random-{seed}"));
        Ok(Self { name, weights_sha256: digest(&drawn)?, origin: Origin::Memory(drawn) })
    }

    /// Of tensors in memory, which have no digest.
    pub(crate) fn of_memory(name: Option<String>, tensors: &BTreeMap<String, Tensor>) -> Self {
        let kept = tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
        let name = name.unwrap_or_else(|| "memory".to_owned());
        Self { name, weights_sha256: String::new(), origin: Origin::Memory(kept) }
    }

    /// Writes `config.json`, as `config`, and `model.safetensors`, or its shards, into `folder`, which is made if need be.
    ///
    /// # Errors
    /// When a file cannot be written, or the folder that the model came from has changed since.
    pub(crate) fn save(&self, folder: &Path, config: &str) -> Result<(), ModelError> {
        let in_file = |file: &Path| {
            let file = file.to_owned();
            move |source| ModelError::File { file, source }
        };
        std::fs::create_dir_all(folder).map_err(in_file(folder))?;
        match &self.origin {
            Origin::Memory(tensors) => {
                // Under another name first: a folder never holds half of a file under its own.
                let (weights, partial) = (folder.join(WEIGHTS_FILE), folder.join(format!(".{WEIGHTS_FILE}.partial")));
                weight_file::write(&partial, tensors)?;
                std::fs::rename(&partial, &weights).map_err(in_file(&weights))?;
                weight_file::remove_index(&weights)?;
            }
            Origin::Folder(source) => weight_file::copy(&source.join(WEIGHTS_FILE), folder, &self.weights_sha256)?,
        }
        let config_file = folder.join(CONFIG_FILE);
        std::fs::write(&config_file, config).map_err(in_file(&config_file))
    }
}

/// The last part of a path, whatever it leads through.
fn folder_name(folder: &Path) -> String {
    let whole: PathBuf = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    whole.file_name().map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// SHA-256 over names and numbers.
fn digest(tensors: &BTreeMap<String, Tensor>) -> Result<String, ModelError> {
    let mut hasher = Sha256::new();
    for (name, tensor) in tensors {
        let count = tensor.numel() * 4;
        let mut bytes = vec![0; count];
        let flat = tensor.f_reshape([-1])?;
        flat.f_view_dtype(tch::Kind::Uint8)?.f_copy_data_u8(&mut bytes, count)?;
        hasher.update(name.as_bytes());
        hasher.update(&bytes);
    }
    Ok(schemas::hex(&hasher.finalize()))
}
