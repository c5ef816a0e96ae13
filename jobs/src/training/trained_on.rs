//! What a generator says of the tokens it was trained on, in the `training.json` beside its weights.

use anyhow::{Context, Result};
use schemas::TokenizerIdentity;
use serde::{Deserialize, Serialize};
use std::{io::ErrorKind, path::Path};

const FILE: &str = "training.json";

/// The tokenizer whose codes a generator was trained on, and the names of its classes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TrainedOn {
    /// The tokenizer.
    pub(crate) tokenizer: TokenizerIdentity,
    /// Names of the classes by number, where the tables had them.
    #[serde(default)]
    pub(crate) class_names: Vec<String>,
}

/// Where `training.json` has it.
#[derive(Deserialize)]
struct Record {
    settings: Settings,
}

#[derive(Deserialize)]
struct Settings {
    trained_on: Option<TrainedOn>,
}

impl TrainedOn {
    /// What the folder of a generator says; `None` where it has no record, as published checkpoints have none.
    ///
    /// # Errors
    /// When there is a record and it does not read.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>> {
        let file = folder.join(FILE);
        let bytes = match std::fs::read(&file) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            read => read.with_context(|| file.display().to_string())?,
        };
        let record: Record = serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is no record of a training by restok", file.display()))?;
        Ok(record.settings.trained_on)
    }
}
