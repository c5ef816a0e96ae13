//! Generators from folders, from random numbers, and back into folders.

use super::{Generator, GeneratorConfig, Network};
use crate::{
    LoadOptions, ModelError,
    model_folder::{Identity, ModelFolder},
    parameters::Parameters,
    tf32::Tf32Choice,
};
use std::{collections::BTreeMap, path::Path};
use tch::Tensor;

impl Generator {
    /// Loads a folder with `config.json` and `model.safetensors` under the published names, strictly: tensors that are missing, left
    /// over, misshapen, of another type or with non-finite values are all in one error. Shards with their index stand for
    /// the second file. What wrappers put in front of all names is taken off.
    ///
    /// # Errors
    /// When a file is missing, damaged, a pickle or something else, or does not fit the other.
    pub fn load(folder: &Path, options: LoadOptions) -> Result<Self, ModelError> {
        let _no_grad = tch::no_grad_guard();
        let opened = ModelFolder::open(folder)?;
        let config = GeneratorConfig::from_json(&opened.config_text, &opened.config_file)?;
        let tf32 = Tf32Choice::of(options.precision, options.device)?;
        let (network, _) = build(Parameters::from_file(&opened.weights), &config, &options)?;
        let identity = Identity::of_folder(folder, options.name.clone(), &opened.weights)?;
        Ok(Self::assemble(config, &options, network, identity, tf32))
    }

    /// A generator with random weights, as training starts from. They follow from `seed` and each tensor's name; the output layer
    /// is zero, so that every code is as likely as any other.
    ///
    /// # Errors
    /// When libtorch refuses an operation.
    pub fn init(config: GeneratorConfig, seed: i64, options: LoadOptions) -> Result<Self, ModelError> {
        let _no_grad = tch::no_grad_guard();
        let tf32 = Tf32Choice::of(options.precision, options.device)?;
        let (network, drawn) = build(Parameters::random(seed), &config, &options)?;
        let identity = Identity::of_random(seed, options.name.clone(), drawn)?;
        Ok(Self::assemble(config, &options, network, identity, tf32))
    }

    /// A generator of tensors in memory, by their published names. It has no digest, and computes float32 products as the
    /// training does.
    pub(crate) fn from_tensors(
        config: GeneratorConfig,
        tensors: &BTreeMap<String, Tensor>,
        options: &LoadOptions,
    ) -> Result<Self, ModelError> {
        let _no_grad = tch::no_grad_guard();
        let (network, _) = build(Parameters::from_memory(tensors), &config, options)?;
        let identity = Identity::of_memory(options.name.clone(), tensors);
        Ok(Self::assemble(config, options, network, identity, None))
    }

    fn assemble(
        config: GeneratorConfig,
        options: &LoadOptions,
        network: Network,
        identity: Identity,
        tf32: Option<Tf32Choice>,
    ) -> Self {
        let LoadOptions { device, precision, .. } = *options;
        Self { config, device, precision, identity, network, memory: None, _tf32: tf32 }
    }

    /// Writes `config.json` and `model.safetensors`, or the shards that were loaded with their index, into `folder`, which is made if need be.
    /// Weights are those that were loaded, in their own precision, not those of [`LoadOptions::precision`].
    ///
    /// # Errors
    /// When a file cannot be written, or the folder that the generator came from has changed since.
    pub fn save(&self, folder: &Path) -> Result<(), ModelError> {
        self.identity.save(folder, &self.config.to_json())
    }
}

/// The network, and the tensors that were drawn for it, if they were.
fn build(
    parameters: Parameters<'_>,
    config: &GeneratorConfig,
    options: &LoadOptions,
) -> Result<(Network, BTreeMap<String, Tensor>), ModelError> {
    let network = Network::new(&parameters.root(options.device.torch(), options.precision.kind()), config)?;
    Ok((network, parameters.finish(|_| false)?.unwrap_or_default()))
}
