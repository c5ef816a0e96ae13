//! Tokenizers from folders, from random numbers, and back into folders.

use super::{LoadOptions, Networks, TokenizerConfig, VisualTokenizer};
use crate::{
    ModelError,
    model_folder::{Identity, ModelFolder},
    parameters::Parameters,
    tf32::Tf32Choice,
};
use std::{collections::BTreeMap, path::Path};
use tch::Tensor;

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
    /// Loads a folder with `config.json` and `model.safetensors` under the published names, strictly: tensors that are missing, left
    /// over, misshapen, of another type or with non-finite values are all in one error. Shards with their index stand for
    /// the second file. Tensors of training only are passed over, and what wrappers put in front of all names is taken off.
    ///
    /// # Errors
    /// When a file is missing, damaged, a pickle or something else, or does not fit the other.
    pub fn load(folder: &Path, options: LoadOptions) -> Result<Self, ModelError> {
        let _no_grad = tch::no_grad_guard();
        let opened = ModelFolder::open(folder)?;
        let config = TokenizerConfig::from_json(&opened.config_text, &opened.config_file)?;
        let tf32 = Tf32Choice::of(options.precision, options.device)?;
        let (networks, _) = build(Parameters::from_file(&opened.weights), &config, &options)?;
        let identity = Identity::of_folder(folder, options.name.clone(), &opened.weights)?;
        Ok(Self::assemble(config, &options, networks, identity, tf32))
    }

    /// A tokenizer with random weights, as training starts from. They follow from `seed` and each tensor's name.
    ///
    /// # Errors
    /// When libtorch refuses an operation.
    pub fn init(config: TokenizerConfig, seed: i64, options: LoadOptions) -> Result<Self, ModelError> {
        let _no_grad = tch::no_grad_guard();
        let tf32 = Tf32Choice::of(options.precision, options.device)?;
        let (networks, drawn) = build(Parameters::random(seed), &config, &options)?;
        let identity = Identity::of_random(seed, options.name.clone(), drawn)?;
        Ok(Self::assemble(config, &options, networks, identity, tf32))
    }

    /// A tokenizer of tensors in memory, by their published names; those of training only are passed over. It has no digest, and
    /// computes float32 products as the training does.
    pub(crate) fn from_tensors(
        config: TokenizerConfig,
        tensors: BTreeMap<String, Tensor>,
        options: LoadOptions,
    ) -> Result<Self, ModelError> {
        let _no_grad = tch::no_grad_guard();
        let (networks, _) = build(Parameters::from_memory(&tensors), &config, &options)?;
        let identity = Identity::of_memory(options.name.clone(), &tensors);
        Ok(Self::assemble(config, &options, networks, identity, None))
    }

    fn assemble(
        config: TokenizerConfig,
        options: &LoadOptions,
        networks: Networks,
        identity: Identity,
        tf32: Option<Tf32Choice>,
    ) -> Self {
        Self { config, device: options.device, precision: options.precision, identity, networks, _tf32: tf32 }
    }

    /// Writes `config.json` and `model.safetensors`, or the shards that were loaded with their index, into `folder`, which is made if need be.
    /// Weights are those that were loaded, in their own precision, not those of [`LoadOptions::precision`].
    ///
    /// # Errors
    /// When a file cannot be written, or the folder that the tokenizer came from has changed since.
    pub fn save(&self, folder: &Path) -> Result<(), ModelError> {
        self.identity.save(folder, &self.config.to_json())
    }
}

/// The networks, and the tensors that were drawn for them, if they were.
fn build(
    parameters: Parameters<'_>,
    config: &TokenizerConfig,
    options: &LoadOptions,
) -> Result<(Networks, BTreeMap<String, Tensor>), ModelError> {
    let networks = Networks::new(&parameters, config, options.device, options.precision.kind())?;
    let legacy = config.options().is_legacy;
    let drawn = parameters.finish(|name| {
        // Without the legacy decoder nothing reads the convolutional one, which the published model has all the same.
        TRAINING_TENSORS.iter().any(|start| name.starts_with(start)) || (!legacy && name.starts_with("pixel_decoder."))
    })?;
    Ok((networks, drawn.unwrap_or_default()))
}
