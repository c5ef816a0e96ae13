//! Tokenizers from folders, from random numbers, and back into folders.

use super::{LoadOptions, Networks, Origin, TokenizerConfig, VisualTokenizer};
use crate::{
    ModelError,
    parameters::Parameters,
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

/// Tensors that training leaves in a checkpoint and that tokens do not depend on, by the start of their names.
const TRAINING_TENSORS: [&str; 6] = [
    // The frozen vision foundation model and the projections of features onto its own.
    "foundation_model.",
    "vf_proj.",
    "vf_proj_dec.",
    "mlp_proj.",
    // Queries for its features: a second pass through the decoder, whose image the first gives.
    "decoder.feat_mask_token",
    // Running use of each code.
    "quantize.embed_prob",
];

impl VisualTokenizer {
    /// Loads a folder with `config.json` and `model.safetensors` under the published names, strictly: every tensor that is missing,
    /// left over, misshapen or of another type is named in one error. Tensors of training only are passed over, and the prefix
    /// `_orig_mod.` of compiled models is taken off.
    ///
    /// # Errors
    /// When a file is missing, damaged, a pickle, or does not fit the other.
    pub fn load(folder: &Path, options: LoadOptions) -> Result<Self, ModelError> {
        let _no_grad = tch::no_grad_guard();
        let config_file = folder.join(CONFIG_FILE);
        let text = std::fs::read_to_string(&config_file).map_err(|source| match source.kind() {
            ErrorKind::NotFound => ModelError::MissingFile { file: config_file.clone() },
            _ => ModelError::File { file: config_file.clone(), source },
        })?;
        let config = TokenizerConfig::from_json(&text, &config_file)?;
        let file = WeightFile::open(&folder.join(WEIGHTS_FILE))?;
        let name = options.name.clone().unwrap_or_else(|| folder_name(folder));
        options.precision.apply()?;
        let parameters = Parameters::from_file(&file);
        let weights_sha256 = file.sha256()?;
        Self::build(config, options, name, parameters, Origin::Folder(folder.to_owned()), Some(weights_sha256))
    }

    /// A tokenizer with random weights, as training starts from. They follow from `seed` and each tensor's name.
    ///
    /// # Errors
    /// When libtorch refuses an operation.
    pub fn init(config: TokenizerConfig, seed: i64, options: LoadOptions) -> Result<Self, ModelError> {
        let _no_grad = tch::no_grad_guard();
        let name = options.name.clone().unwrap_or_else(|| format!("random-{seed}"));
        options.precision.apply()?;
        let parameters = Parameters::random(seed);
        Self::build(config, options, name, parameters, Origin::Memory(BTreeMap::new()), None)
    }

    /// A tokenizer of tensors in memory, by their published names; those of training only are passed over. It has no digest, and
    /// leaves the process's switches as the training has set them.
    pub(crate) fn from_tensors(
        config: TokenizerConfig,
        tensors: BTreeMap<String, Tensor>,
        options: LoadOptions,
    ) -> Result<Self, ModelError> {
        let _no_grad = tch::no_grad_guard();
        let name = options.name.clone().unwrap_or_else(|| "memory".to_owned());
        let weights_sha256 = String::new();
        let parameters = Parameters::from_memory(&tensors);
        let origin =
            Origin::Memory(tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect());
        Self::build(config, options, name, parameters, origin, Some(weights_sha256))
    }

    fn build(
        config: TokenizerConfig,
        options: LoadOptions,
        name: String,
        parameters: Parameters<'_>,
        origin: Origin,
        weights_sha256: Option<String>,
    ) -> Result<Self, ModelError> {
        let networks = Networks::new(&parameters, &config, options.device, options.precision.kind())?;
        let legacy = config.options().is_legacy;
        let drawn = parameters.finish(|name| {
            // Without the legacy decoder nothing reads the convolutional one, which the published model has all the same.
            TRAINING_TENSORS.iter().any(|start| name.starts_with(start))
                || (!legacy && name.starts_with("pixel_decoder."))
        })?;
        let origin = drawn.map_or(origin, Origin::Memory);
        let weights_sha256 = match (weights_sha256, &origin) {
            (Some(digest), _) => digest,
            (None, Origin::Memory(tensors)) => digest(tensors)?,
            (None, Origin::Folder(folder)) => weight_file::sha256(&folder.join(WEIGHTS_FILE))?,
        };
        let LoadOptions { device, precision, .. } = options;
        Ok(Self { config, device, precision, name, weights_sha256, origin, networks })
    }

    /// Writes `config.json` and `model.safetensors` into `folder`, which is made if need be. Weights are those that were loaded, in
    /// their own precision, not those of [`LoadOptions::precision`].
    ///
    /// # Errors
    /// When a file cannot be written, or the folder that the tokenizer came from has changed since.
    pub fn save(&self, folder: &Path) -> Result<(), ModelError> {
        let in_file = |file: &Path| {
            let file = file.to_owned();
            move |source| ModelError::File { file, source }
        };
        std::fs::create_dir_all(folder).map_err(in_file(folder))?;
        // Under another name first: a folder never holds half of a file under its own.
        let (weights, partial) = (folder.join(WEIGHTS_FILE), folder.join(format!(".{WEIGHTS_FILE}.partial")));
        match &self.origin {
            Origin::Memory(tensors) => weight_file::write(&partial, tensors)?,
            Origin::Folder(source) => {
                let source = source.join(WEIGHTS_FILE);
                std::fs::copy(&source, &partial).map_err(in_file(&source))?;
                let found = weight_file::sha256(&partial)?;
                if found != self.weights_sha256 {
                    return Err(ModelError::DamagedWeights {
                        file: source,
                        problem: "the file has changed since it was loaded".to_owned(),
                        found: format!("sha256 {found}"),
                        expected: format!("sha256 {}", self.weights_sha256),
                    });
                }
            }
        }
        std::fs::rename(&partial, &weights).map_err(in_file(&weights))?;
        let config = folder.join(CONFIG_FILE);
        std::fs::write(&config, self.config.to_json()).map_err(in_file(&config))
    }
}

/// The last part of a path, whatever it leads through.
fn folder_name(folder: &Path) -> String {
    let whole: PathBuf = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    whole.file_name().map_or_else(|| "tokenizer".to_owned(), |name| name.to_string_lossy().into_owned())
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
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
