//! A network on a device with its configuration: from a folder, from random numbers or from memory, and back into a folder. The same for every
//! model; what a network computes is with the network.

use crate::{
    Device, ModelError, Precision,
    model_folder::{Identity, ModelFolder},
    parameters::Parameters,
    tf32::Tf32Choice,
};
use std::{collections::BTreeMap, path::Path};
use tch::{Kind, Tensor};

/// How a model is loaded.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Where it computes.
    pub device: Device,
    /// In which numbers. On CUDA, models in [`Precision::Fp32`] and in others cannot live at a time in one process.
    pub precision: Precision,
    /// Its name in tables; the folder's name unless given.
    pub name: Option<String>,
}

/// A network as a function of its parameters, and how its configuration is written.
pub(crate) trait LoadableNetwork<Config>: Sized {
    /// Reads and checks the `text` of the configuration `file`.
    fn read_config(text: &str, file: &Path) -> Result<Config, ModelError>;

    /// The configuration as `config.json` holds it.
    fn config_text(config: &Config) -> String;

    fn build(parameters: &Parameters<'_>, config: &Config, device: Device, kind: Kind) -> Result<Self, ModelError>;

    /// Whether a file may hold the tensor `name`, for which nobody asked: what training leaves in a checkpoint, for example.
    fn may_be_unread(config: &Config, name: &str) -> bool;
}

/// A model on a device: [`crate::VisualTokenizer`] or [`crate::Generator`]. Owned by one OS thread (`Send`, not `Sync`).
#[derive(Debug)]
pub struct LoadedModel<Config, Network> {
    pub(crate) config: Config,
    pub(crate) device: Device,
    pub(crate) precision: Precision,
    pub(crate) network: Network,
    identity: Identity,
    _tf32: Option<Tf32Choice>,
}

#[expect(private_bounds, reason = "which networks there are is decided in this crate")]
impl<Config, Network: LoadableNetwork<Config>> LoadedModel<Config, Network> {
    /// Loads a folder with `config.json` and `model.safetensors` under the published names, strictly: tensors that are missing, left
    /// over, misshapen, of another type or with non-finite values are all in one error. Shards with their index stand for
    /// the second file. Tensors of training only are passed over, and what wrappers put in front of all names is taken off.
    ///
    /// # Errors
    /// When a file is missing, damaged, a pickle or something else, or does not fit the other.
    pub fn load(folder: &Path, options: LoadOptions) -> Result<Self, ModelError> {
        let opened = ModelFolder::open(folder)?;
        let config = Network::read_config(&opened.config_text, &opened.config_file)?;
        let tf32 = Tf32Choice::of(options.precision, options.device)?;
        let identify = |_| Identity::of_folder(folder, options.name.clone(), &opened.weights);
        Self::build(Parameters::from_file(&opened.weights), config, &options, tf32, identify)
    }

    /// A model with random weights, as training starts from. They follow from `seed` and each tensor's name. A generator's output layer
    /// is zero, so that every code is as likely as any other.
    ///
    /// # Errors
    /// When libtorch refuses an operation.
    pub fn init(config: Config, seed: i64, options: LoadOptions) -> Result<Self, ModelError> {
        let tf32 = Tf32Choice::of(options.precision, options.device)?;
        let identify = |drawn| Identity::of_random(seed, options.name.clone(), drawn);
        Self::build(Parameters::random(seed), config, &options, tf32, identify)
    }

    /// A model of tensors in memory, by their published names; those of training only are passed over. It has no digest, and
    /// computes float32 products as the training does.
    pub(crate) fn from_tensors(
        config: Config,
        tensors: &BTreeMap<String, Tensor>,
        options: &LoadOptions,
    ) -> Result<Self, ModelError> {
        let identify = |_| Ok(Identity::of_memory(options.name.clone(), tensors));
        Self::build(Parameters::from_memory(tensors), config, options, None, identify)
    }

    /// `identify` is given the tensors that were drawn, if they were.
    fn build(
        parameters: Parameters<'_>,
        config: Config,
        options: &LoadOptions,
        tf32: Option<Tf32Choice>,
        identify: impl FnOnce(BTreeMap<String, Tensor>) -> Result<Identity, ModelError>,
    ) -> Result<Self, ModelError> {
        let _no_grad = tch::no_grad_guard();
        let LoadOptions { device, precision, .. } = *options;
        let network = Network::build(&parameters, &config, device, precision.kind())?;
        let drawn = parameters.finish(|name| Network::may_be_unread(&config, name))?;
        let identity = identify(drawn.unwrap_or_default())?;
        Ok(Self { config, device, precision, network, identity, _tf32: tf32 })
    }

    /// Writes `config.json` and `model.safetensors`, or the shards that were loaded with their index, into `folder`, which is made if need be.
    /// Weights are those that were loaded, in their own precision, not those of [`LoadOptions::precision`].
    ///
    /// # Errors
    /// When a file cannot be written, or the folder that the model came from has changed since.
    pub fn save(&self, folder: &Path) -> Result<(), ModelError> {
        self.identity.save(folder, &Network::config_text(&self.config))
    }
}

impl<Config, Network> LoadedModel<Config, Network> {
    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Its name in tables.
    pub fn name(&self) -> &str {
        &self.identity.name
    }

    /// SHA-256 of `model.safetensors`, or of what `sha256sum` prints of its shards, lowercase hexadecimal; of the drawn numbers where
    /// there is no file, empty for the average of a run.
    pub fn weights_sha256(&self) -> &str {
        &self.identity.weights_sha256
    }

    /// The device.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The precision.
    pub fn precision(&self) -> Precision {
        self.precision
    }
}
