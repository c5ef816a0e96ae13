//! Everything that can end a run, as the operator and the scheduler need to tell it apart.

use schemas::SchemaError;

/// An error of the pipeline. One image's fault is never one of these: it is a reject, counted in [`schemas::RowCounts::rejected`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipelineError {
    /// An address that cannot be read as one, or names a store that is not supported.
    #[error("{url}: {problem}")]
    Address {
        /// The address, without credentials.
        url: String,
        /// What is wrong with it and what is expected.
        problem: String,
    },
    /// A store refused or failed, after all retries.
    #[error("{action} {uri}: {source}")]
    Storage {
        /// What was being done: `read`, `list`, `write`.
        action: &'static str,
        /// The object, without credentials.
        uri: String,
        /// What the store said.
        #[source]
        source: object_store::Error,
        /// Whether asking again, by the same command, may help.
        temporary: bool,
    },
    /// The source is not what was asked for: nothing matched, shards are missing, a column is absent.
    #[error("{uri}: {problem}")]
    Source {
        /// The object or pattern.
        uri: String,
        /// What was found and what was expected.
        problem: String,
    },
    /// An object is no longer the one that was planned.
    #[error(
        "{uri} changed since the plan was made ({problem}): tokens of two versions must not mix; write to a new output, or restore the object"
    )]
    SourceChanged {
        /// The object.
        uri: String,
        /// What differs.
        problem: String,
    },
    /// The engine that hands out units cannot be heard any more.
    #[error("units cannot be read from the engine: {source}")]
    Engine {
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Settings that contradict themselves or the machine.
    #[error("{problem}")]
    Settings {
        /// What is wrong and what would be right.
        problem: String,
    },
    /// The output belongs to another plan.
    #[error("{output} holds the tables of another plan ({plan}); what differs:\n  {}\nUse another output, or the same settings", differences.join("\n  "))]
    PlanConflict {
        /// The output.
        output: String,
        /// Short hash of the plan that owns it.
        plan: String,
        /// What differs, a line each.
        differences: Vec<String>,
    },
    /// An output, or a part of it, is not what its plan, a marker or the manifest says.
    #[error("{uri}: {problem}")]
    Output {
        /// The object.
        uri: String,
        /// What was found and what was expected.
        problem: String,
    },
    /// The output is not whole yet.
    #[error(
        "{output} is not finished: {count} units have no marker ({missing}); run `restok tokenize` with the same settings until all are there"
    )]
    Unfinished {
        /// The output.
        output: String,
        /// The missing units, as ranges.
        missing: String,
        /// How many they are.
        count: u32,
    },
    /// More images were rejected than the operator allows.
    #[error(
        "{rejected} of {listed} images were rejected, above the limit of {limit_percent} %: {reasons}. Raise `max_reject_rate` if that is right"
    )]
    RejectRate {
        /// Images rejected.
        rejected: u64,
        /// Images listed.
        listed: u64,
        /// The limit in percent.
        limit_percent: f64,
        /// Counts by reason.
        reasons: String,
    },
    /// A device worker failed.
    #[error("device {device}: {problem}")]
    Encoder {
        /// The device.
        device: String,
        /// What it said.
        problem: String,
        /// Whether another attempt, perhaps on another machine, may succeed.
        temporary: bool,
    },
    /// No stage moved for too long.
    #[error("nothing moved for {seconds} seconds; {stages}")]
    Stalled {
        /// How long nothing moved.
        seconds: u64,
        /// Where each stage stands.
        stages: String,
    },
    /// The run was asked to stop and has drained.
    #[error("stopped on request; start the same command again to go on")]
    Drained,
    /// Data that do not fit their schema.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// A Parquet file that cannot be written or read.
    #[error("{uri}: {source}")]
    Parquet {
        /// The object.
        uri: String,
        /// What the Parquet library said.
        #[source]
        source: parquet::errors::ParquetError,
    },
}

impl PipelineError {
    /// Whether starting the same command again may succeed without anybody changing anything.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Storage { temporary, .. } | Self::Encoder { temporary, .. } => *temporary,
            // Another process may be finishing the units that are missing.
            Self::Stalled { .. } | Self::Unfinished { .. } | Self::Engine { .. } => true,
            _ => false,
        }
    }

    /// Whether the run ended because it was asked to.
    pub fn is_drained(&self) -> bool {
        matches!(self, Self::Drained)
    }
}

/// The first `most` of some names, and how many more there are: `a, b and 3 more`.
pub(crate) fn first_few<T: ToString>(names: &[T], most: usize) -> String {
    let first: Vec<String> = names.iter().take(most).map(T::to_string).collect();
    match names.len().saturating_sub(most) {
        0 => first.join(", "),
        rest => format!("{} and {rest} more", first.join(", ")),
    }
}
