//! What can go wrong with a model, told to the person who can mend it.

use schemas::SchemaError;
use std::path::{Path, PathBuf};

/// Names of a folder that an error shows.
const NAMES_SHOWN: usize = 6;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    // --- files ---------------------------------------------------------------------------------------------------------
    /// A file of the model cannot be read or written.
    #[error("{}: {source}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The folder lacks a file that every model has.
    #[error(
        "{} is missing: a tokenizer or a generator is a folder with config.json and model.safetensors, or its shards and their index; {there}",
        file.display()
    )]
    MissingFile {
        /// The file.
        file: PathBuf,
        /// What is in its place, in words.
        there: String,
    },
    /// Only Python's pickle format is there.
    #[error(
        "{} is a Python pickle, which restok does not read. Convert it once, where PyTorch is installed:\n  {command}",
        file.display()
    )]
    PickledWeights {
        /// The pickle.
        file: PathBuf,
        /// The command that converts it.
        command: String,
    },
    /// A file of the model is something else by its first bytes.
    #[error("{} is {what}, expected {expected}: {advice}", file.display())]
    ForeignFile {
        /// The file.
        file: PathBuf,
        /// What it is.
        what: String,
        /// What it should be.
        expected: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// The index of a sharded checkpoint is damaged, or its shards are not those that it names.
    #[error("{}: {problem}", index.display())]
    Shards {
        /// The index.
        index: PathBuf,
        /// What is wrong, with the shard and the tensor, and what to do.
        problem: String,
    },
    /// `model.safetensors` is no such file, or not all of one.
    #[error("{}: {problem}; found {found}, expected {expected}: download or copy it again", file.display())]
    DamagedWeights {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        problem: String,
        /// What is there.
        found: String,
        /// What should be.
        expected: String,
    },
    /// The weights are not those of the configuration. All that is wrong is in it, and shown in a few lines.
    #[error("{}: {}", file.display(), told(problems, notes, "not fitting config.json"))]
    Tensors {
        /// The file.
        file: PathBuf,
        /// All that is wrong, sorted by name.
        problems: Vec<TensorProblem>,
        /// What the names tell of what happened, and what to do: a sentence each.
        notes: Vec<String>,
    },

    /// A term of the training objective, or scoring, needs a frozen network whose file cannot be used.
    #[error(
        "{term} needs {network}: {}: {problem}. docs/frozen-networks.md says which public file it is and how to get it",
        file.display()
    )]
    FrozenNetwork {
        /// The term, or scoring.
        term: &'static str,
        /// The network by its public name.
        network: &'static str,
        /// The file.
        file: PathBuf,
        /// Why it cannot be used.
        problem: String,
    },

    // --- settings ------------------------------------------------------------------------------------------------------
    /// `config.json` does not read: no JSON, a key that nobody knows, a value of another type, or one that cannot be.
    #[error("{}: {problem}", file.display())]
    Config {
        /// The file.
        file: PathBuf,
        /// What is wrong, with the key and the line.
        problem: String,
    },
    /// A setting that cannot be, or does not go with the others, where no file says so.
    #[error("{setting} is {found}, expected {expected}")]
    Setting {
        /// The key as it is written in config.json.
        setting: &'static str,
        /// Its value.
        found: String,
        /// What would work.
        expected: String,
    },

    /// A term of the objective has a weight, and the network that computes it no file.
    #[error(
        "{term} needs the weights of {network}: give them as `{option}` FILE (docs/frozen-networks.md says where to get them), \
         or train without it by {weight}"
    )]
    MissingFrozenNetwork {
        /// The term.
        term: &'static str,
        /// Whose weights are missing.
        network: &'static str,
        /// How they are given.
        option: &'static str,
        /// How to do without.
        weight: &'static str,
    },
    /// Alignment has a weight, and the tokenizer's configuration does not say what to align.
    #[error(
        "the alignment has a weight, and the tokenizer's configuration has {found}: set use_vf (dinov3, dinov2 or dinov2_b) and \
         encoder_feature_supervision or decoder_feature_supervision in config.json, or train without it by `alignment_weight` 0"
    )]
    NothingToAlign {
        /// What the configuration has.
        found: &'static str,
    },

    // --- devices -------------------------------------------------------------------------------------------------------
    /// A device was asked for that cannot be had.
    #[error("device {asked}: {problem}. {advice}")]
    Device {
        /// What was asked for.
        asked: String,
        /// Why it cannot be had.
        problem: String,
        /// What to do.
        advice: String,
    },
    /// A batch does not fit into the memory of a device.
    #[error("{device} has not enough memory for {batch}: {advice}")]
    OutOfMemory {
        /// The device.
        device: String,
        /// What did not fit.
        batch: String,
        /// What would fit.
        advice: String,
    },
    /// Another process of a training is lost or silent, or the group could not be formed.
    #[error("rank {rank} of {world_size}: {problem}")]
    ProcessGroup {
        /// This process.
        rank: usize,
        /// Processes in all.
        world_size: usize,
        /// What happened, with the ranks that are missing where they are known.
        problem: String,
    },
    /// libtorch refused an operation, for want of memory for example.
    #[error("libtorch: {message}")]
    Torch {
        /// What it said, without its stack.
        message: String,
    },

    // --- data ----------------------------------------------------------------------------------------------------------
    /// Pixels or codes do not fit the model.
    #[error(transparent)]
    Data(#[from] SchemaError),
}

/// One tensor that does not fit, and how.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TensorProblem {
    /// The model has it, the file does not.
    #[error("{name} is missing (expected {expected:?})")]
    Missing {
        /// Its name.
        name: String,
        /// Its shape.
        expected: Vec<i64>,
    },
    /// The file has it, the model does not.
    #[error("{name} is not part of this model (found {found:?})")]
    Unexpected {
        /// Its name.
        name: String,
        /// Its shape.
        found: Vec<i64>,
    },
    /// Both have it, in different shapes.
    #[error("{name} has shape {found:?}, expected {expected:?}")]
    Shape {
        /// Its name.
        name: String,
        /// Shape in the file.
        found: Vec<i64>,
        /// Shape in the model.
        expected: Vec<i64>,
    },
    /// Stored as something other than a floating-point number of 16 or 32 bits.
    #[error("{name} is stored as {found}, expected F32, F16 or BF16")]
    Kind {
        /// Its name.
        name: String,
        /// Its type in the file.
        found: String,
    },
    /// It has non-finite values.
    #[error("{name} has {nan} NaN and {infinite} infinite of {values} values")]
    NotFinite {
        /// Its name.
        name: String,
        /// Values that are no numbers.
        nan: u64,
        /// Values that are infinite.
        infinite: u64,
        /// All its values.
        values: u64,
    },
    /// Two names in the file mean the same tensor: they differ only in what torch's wrappers put into them.
    #[error("{name} is there twice, with and without _orig_mod, _fsdp_wrapped_module or _checkpoint_wrapped_module")]
    Twice {
        /// Its name.
        name: String,
    },
}

impl TensorProblem {
    /// The tensor.
    pub fn name(&self) -> &str {
        match self {
            Self::Missing { name, .. }
            | Self::Unexpected { name, .. }
            | Self::Shape { name, .. }
            | Self::Kind { name, .. }
            | Self::NotFinite { name, .. }
            | Self::Twice { name } => name,
        }
    }

    /// What problems of its sort are, of many tensors.
    fn sort(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "missing",
            Self::Unexpected { .. } => "not part of this model",
            Self::Shape { .. } => "of another shape",
            Self::Kind { .. } => "of another type",
            Self::NotFinite { .. } => "with values that are no finite numbers",
            Self::Twice { .. } => "there twice",
        }
    }
}

/// Problems of which all are shown.
const ALL_SHOWN: usize = 8;
/// Problems of each sort that are shown of more than that.
const SHOWN_OF_SORT: usize = 3;

/// Problems in a few lines, behind what is known of their cause; `misfit` says what the tensors are not.
pub(crate) fn told(problems: &[TensorProblem], notes: &[String], misfit: &str) -> String {
    let mut sorts: Vec<(&'static str, usize)> = Vec::new();
    let mut lines = Vec::new();
    for problem in problems {
        let sort = problem.sort();
        let known = sorts.iter().position(|&(other, _)| other == sort).unwrap_or_else(|| {
            sorts.push((sort, 0));
            sorts.len() - 1
        });
        sorts[known].1 += 1;
        if problems.len() <= ALL_SHOWN || sorts[known].1 <= SHOWN_OF_SORT {
            lines.push(format!("\n  {problem}"));
        }
    }
    let counts: Vec<String> = sorts.iter().map(|(sort, count)| format!("{count} {sort}")).collect();
    let count = problems.len();
    let tensors = if count == 1 { "1 tensor".to_owned() } else { format!("{count} tensors") };
    let all_fit = problems.iter().all(|problem| matches!(problem, TensorProblem::NotFinite { .. }));
    let heading = match (all_fit, count <= ALL_SHOWN) {
        (true, _) => format!(
            "values of {tensors} are no finite numbers, and what is computed with them would mean nothing. The training diverged, or a \
             conversion went wrong: take an earlier checkpoint, or download or convert it again:"
        ),
        (false, true) => format!("{tensors} {misfit}:"),
        (false, false) => format!("{tensors} {misfit}: {}.", counts.join(", ")),
    };
    if lines.len() < count {
        lines.push(format!("\n  and {} more", count - lines.len()));
    }
    let notes: String = notes.iter().map(|note| format!("\n  {note}")).collect();
    format!("{heading}{notes}{}", lines.concat())
}

impl From<tch::TchError> for ModelError {
    fn from(error: tch::TchError) -> Self {
        Self::torch(&error.to_string())
    }
}

impl ModelError {
    /// Keeps what libtorch said and drops the C++ stack that follows it.
    pub(crate) fn torch(message: &str) -> Self {
        let message = message.split("\nException raised from").next().unwrap_or(message);
        Self::Torch { message: message.trim_end().to_owned() }
    }

    /// Of a file of a model that is not there: what is in its folder instead.
    pub(crate) fn missing(file: &Path) -> Self {
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let names = names_in(Some(folder));
        let is_shard = |name: &String| name.contains("-of-") && name.ends_with(".safetensors");
        let is_index = |name: &String| name.ends_with(".safetensors.index.json");
        let there = match folder.metadata() {
            Err(_) => format!("there is no folder {}", folder.display()),
            Ok(found) if !found.is_dir() => format!("{} is a file: name its folder", folder.display()),
            Ok(_) if names.is_empty() => "the folder is empty".to_owned(),
            Ok(_) if names.iter().any(is_shard) && !names.iter().any(is_index) => {
                "the folder has shards without their index, model.safetensors.index.json: download it into the same folder".to_owned()
            }
            Ok(_) => {
                let shown: Vec<&str> = names.iter().take(NAMES_SHOWN).map(String::as_str).collect();
                let more = if names.len() > NAMES_SHOWN { ", …" } else { "" };
                format!("the folder has {}{more}", shown.join(", "))
            }
        };
        Self::MissingFile { file: file.to_owned(), there }
    }

    pub(crate) fn setting(setting: &'static str, found: impl ToString, expected: impl Into<String>) -> Self {
        Self::Setting { setting, found: found.to_string(), expected: expected.into() }
    }

    /// Whether the device ran out of memory: a smaller batch may succeed.
    pub fn is_out_of_memory(&self) -> bool {
        match self {
            Self::OutOfMemory { .. } => true,
            Self::Torch { message } => message.contains("out of memory") || message.contains("can't allocate memory"),
            _ => false,
        }
    }
}

/// Names in a folder, sorted; none where it cannot be listed.
pub(crate) fn names_in(folder: Option<&Path>) -> Vec<String> {
    let folder = folder.filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
