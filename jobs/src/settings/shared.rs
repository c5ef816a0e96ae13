//! Options that several commands have, and the headings that they stand under.

use super::{
    Devices, SettingsError,
    values::{extensions_parser, labels_parser, layout_parser},
};
use crate::environment;
use anyhow::Result;
use pipeline::ProcessRank;
use schemas::{ColumnNames, ImageExtensions, LabelSource, SourceLayout, SourceReading};
use std::{net::SocketAddr, time::Duration};

/// Heading of sources, outputs and models.
pub(super) const WHAT: &str = "Input and output";
/// Heading of what an output is bound to.
pub(super) const PLAN: &str = "Plan (fixed for an output; a different value needs a new output)";
/// Heading of images in sources.
const IMAGES: &str = "Source format (restok tokenize fixes it for an output)";
/// Heading of what changes no result.
pub(super) const HOW: &str = "Execution";

/// How `--output` is given.
pub(super) const OUTPUT_USAGE: &str = "--output URL";

/// How images are found.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ImageOptions {
    /// Layout of the source (default: detected from its file names)
    #[arg(long, value_name = "LAYOUT", value_parser = layout_parser(), help_heading = IMAGES)]
    pub(crate) layout: Option<SourceLayout>,
    /// Which files and tar members are images: usual, any, or a list such as jpg,jpeg.
    ///
    /// usual takes the extensions that image files commonly have; any takes every file and detects its format from the
    /// first bytes. Separate extensions with commas.
    #[arg(long, value_name = "LIST", value_parser = extensions_parser, help_heading = IMAGES, default_value = "usual")]
    pub(crate) image_extensions: Option<ImageExtensions>,
    /// Parquet column with the encoded images, as binary or struct<bytes, path> (default: image, or the only such
    /// column).
    ///
    /// Join the parts of a nested column name with dots.
    #[arg(long, value_name = "NAME", help_heading = IMAGES)]
    pub(crate) image_column: Option<String>,
}

/// How labels are found.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LabelOptions {
    /// Where to read labels from
    #[arg(long, value_name = "SOURCE", value_parser = labels_parser(), help_heading = IMAGES, default_value = "auto")]
    pub(crate) labels: Option<LabelSource>,
    /// Parquet column with the labels, as numbers or class names (default: label)
    #[arg(long, value_name = "NAME", help_heading = IMAGES)]
    pub(crate) label_column: Option<String>,
}

impl ImageOptions {
    /// With labels as `labels` says, by default where it is absent, and keys in the column `id`.
    pub(super) fn reading(self, labels: Option<LabelOptions>, id: Option<String>) -> SourceReading {
        let (labels, label) = labels.map_or((None, None), |options| (options.labels, options.label_column));
        SourceReading {
            labels: labels.unwrap_or_default(),
            image_extensions: self.image_extensions.unwrap_or_default(),
            columns: ColumnNames { image: self.image_column, label, id },
        }
    }
}

/// Devices.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct WorkerOptions {
    /// Devices to compute on: auto, cpu, cuda, cuda:N, or a comma-separated list.
    ///
    /// auto uses every CUDA device, or the CPU if there is none. cuda uses every CUDA device. cpu*N runs N workers on
    /// the CPU.
    #[arg(long, value_name = "DEVICES", help_heading = HOW, default_value = "auto")]
    pub(crate) devices: Option<Devices>,
    /// Torch threads per CPU worker (default: the cores divided by the CPU workers)
    #[arg(long, value_name = "COUNT", help_heading = HOW)]
    pub(crate) device_threads: Option<usize>,
}

impl WorkerOptions {
    /// The devices, and the threads of a CPU worker.
    ///
    /// # Errors
    /// When a worker should have no thread.
    pub(super) fn resolve(self) -> Result<(Devices, Option<usize>), SettingsError> {
        let threads = self.device_threads.map(|threads| at_least_one("--device-threads", Some(threads))).transpose()?;
        Ok((self.devices.unwrap_or_default(), threads))
    }
}

/// This process among those that share an output.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct ProcessOptions {
    /// Rank of this process among those that share the output, from 0.
    ///
    /// Requires --world-size. Defaults to what Kubernetes, Slurm, AWS Batch, Google Batch, PBS, Open MPI, torchrun or
    /// SkyPilot set (docs/many-machines.md).
    #[arg(long, value_name = "NUMBER", help_heading = HOW)]
    pub(crate) rank: Option<u32>,
    /// Number of processes that share the output.
    ///
    /// Defaults to what the scheduler sets. Kubernetes and PBS set nothing: pass the number of completions, or of
    /// subjobs.
    #[arg(long, alias = "world", value_name = "COUNT", help_heading = HOW)]
    pub(crate) world_size: Option<u32>,
}

impl ProcessOptions {
    /// This process among those that share an output, or a worker whose units an engine hands out.
    ///
    /// # Errors
    /// As [`ProcessRank::detect`]; when an engine's worker is given a rank.
    pub(crate) fn detect(self, is_worker: bool) -> Result<ProcessRank> {
        if !is_worker {
            let process = ProcessRank::detect(self.rank, self.world_size, environment::lookup)?;
            tracing::info!("{process}");
            return Ok(process);
        }
        for (key, given) in [("--rank", self.rank), ("--world-size", self.world_size)] {
            if let Some(given) = given {
                let expected = "none: a worker's units come from standard input";
                return Err(SettingsError::invalid(key, given.to_string(), expected).into());
            }
        }
        Ok(ProcessRank::OF_ENGINE)
    }
}

/// How a run is seen from outside.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct MetricsOptions {
    /// Serve metrics for Prometheus at http://ADDRESS:PORT/metrics while the command runs (default: no metrics).
    ///
    /// Anybody who reaches the port can read them: 127.0.0.1:9400 serves this machine alone, 0.0.0.0:9400 every network
    /// that it is in. Port 0 takes a free one, which the log names.
    #[arg(long, value_name = "ADDRESS:PORT", help_heading = HOW)]
    pub(crate) metrics_listen: Option<SocketAddr>,
}

/// What a run says of itself while it works.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct HeartbeatOptions {
    /// Seconds between heartbeats, small files below OUTPUT/_log that `restok watch` reads; 0 writes none.
    ///
    /// The longer a process runs, the rarer they are: one every twentieth of the time that it has run, some 120 in a day.
    #[arg(long, value_name = "SECONDS", help_heading = HOW, default_value = "30")]
    pub(crate) heartbeat_seconds: Option<u64>,
}

impl HeartbeatOptions {
    /// Time between two heartbeats at first; `None` for no heartbeats.
    pub(super) fn period(self) -> Option<Duration> {
        self.heartbeat_seconds.filter(|seconds| *seconds > 0).map(Duration::from_secs)
    }
}

/// A value without a default.
///
/// # Errors
/// When it is absent, with every way to give it.
pub(super) fn required<T>(
    value: Option<T>,
    key: &'static str,
    usage: &'static str,
    section: &'static str,
) -> Result<T, SettingsError> {
    value.ok_or_else(|| SettingsError::Missing { key, usage, variable: super::variable(key), section })
}

/// A number of things of which there must be some.
pub(super) fn at_least_one<N: Default + PartialEq>(key: &'static str, value: Option<N>) -> Result<N, SettingsError> {
    value.filter(|value| *value != N::default()).ok_or_else(|| SettingsError::invalid(key, "0", "at least 1"))
}

/// The same of what may be left out: no limit then.
pub(super) fn at_least_one_if_given<N: Default + PartialEq>(
    key: &'static str,
    value: Option<N>,
) -> Result<Option<N>, SettingsError> {
    value.map(|value| at_least_one(key, Some(value))).transpose()
}
