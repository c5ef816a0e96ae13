//! The file of a frozen network, and what to do when it cannot be used.

use crate::{
    ModelError,
    error::told,
    parameters::{Parameters, Scope},
    weight_file::WeightFile,
};
use std::path::Path;
use tch::{Device, Kind};

/// Which file, of what, for what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrozenFile<'a> {
    /// What needs the network: a term of the objective, or scoring.
    pub(crate) term: &'static str,
    /// The network by its public name.
    pub(crate) network: &'static str,
    pub(crate) path: &'a Path,
}

impl FrozenFile<'_> {
    /// What `build` makes of the file's tensors, in float32 on `device`. Names that nobody asks for are refused unless
    /// `may_be_there` allows them.
    ///
    /// # Errors
    /// [`ModelError::FrozenNetwork`] when the file is missing, damaged, a pickle, or holds another network.
    pub(crate) fn load<T>(
        self,
        device: Device,
        build: impl FnOnce(&Scope<'_>) -> Result<T, ModelError>,
        may_be_there: impl Fn(&str) -> bool,
    ) -> Result<T, ModelError> {
        let read = || {
            let file = WeightFile::open(self.path)?;
            let parameters = Parameters::from_file(&file);
            let network = build(&parameters.root(device, Kind::Float))?;
            parameters.finish(may_be_there)?;
            Ok(network)
        };
        read().map_err(|error| self.explained(error))
    }

    fn explained(self, error: ModelError) -> ModelError {
        let problem = match error {
            ModelError::MissingFile { .. } => "it is missing".to_owned(),
            ModelError::File { source, .. } => source.to_string(),
            ModelError::PickledWeights { file, command } if file == self.path => pickled(&command),
            ModelError::PickledWeights { file, command } => {
                format!("it is missing; {} beside it is {}", file.display(), pickled(&command))
            }
            ModelError::DamagedWeights { problem, found, expected, .. } => {
                format!("{problem}; found {found}, expected {expected}")
            }
            ModelError::ForeignFile { what, expected, advice, .. } => {
                format!("it is {what}, expected {expected}: {advice}")
            }
            ModelError::Shards { problem, .. } => problem,
            ModelError::Tensors { problems, notes, .. } => {
                format!("{}\n", told(&problems, &notes, "not of this network"))
            }
            // A device that ran out of memory is no fault of the file.
            other => return other,
        };
        ModelError::FrozenNetwork { term: self.term, network: self.network, file: self.path.to_owned(), problem }
    }
}

fn pickled(command: &str) -> String {
    format!("a Python pickle, which restok does not read. Convert it once, where PyTorch is installed:\n  {command}\n")
}
