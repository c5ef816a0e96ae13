//! The limits of a run as flags. What each means for memory and waiting is said at [`Limits`].

use super::{Options, SettingsError};
use crate::environment;
use pipeline::Limits;
use serde::{Deserialize, Serialize};

/// Heading of the limits that every command obeys.
pub(crate) const STORAGE_HEADING: &str = "Limits on storage";
/// Heading of the limits that matter only where images are decoded and encoded.
pub(crate) const WORK_HEADING: &str = "Limits on work";

/// Limits as options: the fields of [`Limits`], one flag each.
#[derive(Clone, Debug, Default, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct LimitOptions {
    /// Objects being fetched at once; many small files need many to hide latency
    #[arg(long, value_name = "COUNT", env = environment::FETCH_REQUESTS, help_heading = STORAGE_HEADING)]
    pub(crate) fetch_requests: Option<usize>,
    /// Attempts at a request, the first included
    #[arg(long, value_name = "COUNT", env = environment::RETRY_ATTEMPTS, help_heading = STORAGE_HEADING)]
    pub(crate) retry_attempts: Option<usize>,
    /// First pause between attempts, in milliseconds; each further one is up to three times as long
    #[arg(long, value_name = "MILLISECONDS", env = environment::RETRY_PAUSE_FIRST_MILLISECONDS, help_heading = STORAGE_HEADING)]
    pub(crate) retry_pause_first_milliseconds: Option<u64>,
    /// Longest pause between attempts, in seconds
    #[arg(long, value_name = "SECONDS", env = environment::RETRY_PAUSE_MAX_SECONDS, help_heading = STORAGE_HEADING)]
    pub(crate) retry_pause_max_seconds: Option<u64>,
    /// Time after which a request is given up, in seconds; stay below five minutes, for signed requests expire
    #[arg(long, value_name = "SECONDS", env = environment::RETRY_TOTAL_SECONDS, help_heading = STORAGE_HEADING)]
    pub(crate) retry_total_seconds: Option<u64>,
    /// Time to open a connection, in seconds
    #[arg(long, value_name = "SECONDS", env = environment::CONNECT_TIMEOUT_SECONDS, help_heading = STORAGE_HEADING)]
    pub(crate) connect_timeout_seconds: Option<u64>,
    /// Longest silence in the middle of a body, in seconds; a slow body that moves is never cut off
    #[arg(long, value_name = "SECONDS", env = environment::READ_TIMEOUT_SECONDS, help_heading = STORAGE_HEADING)]
    pub(crate) read_timeout_seconds: Option<u64>,
    /// Encoded bytes fetched and not yet decoded; bounds memory when images are large
    #[arg(long, value_name = "BYTES", env = environment::FETCH_BUFFER_BYTES, help_heading = WORK_HEADING)]
    pub(crate) fetch_buffer_bytes: Option<u64>,
    /// Encoded images above this are rejected as too_large (part of the plan)
    #[arg(long, value_name = "BYTES", env = environment::MAX_IMAGE_BYTES, help_heading = WORK_HEADING)]
    pub(crate) max_image_bytes: Option<u64>,
    /// Images above this many pixels are rejected as too_large (part of the plan)
    #[arg(long, value_name = "PIXELS", env = environment::MAX_IMAGE_PIXELS, help_heading = WORK_HEADING)]
    pub(crate) max_image_pixels: Option<u64>,
    /// Threads that decode and crop; 0 is one a core
    #[arg(long, value_name = "COUNT", env = environment::DECODE_THREADS, help_heading = WORK_HEADING)]
    pub(crate) decode_threads: Option<usize>,
    /// Images of one unit that may be decoding or waiting for their turn
    #[arg(long, value_name = "COUNT", env = environment::DECODE_AHEAD_IMAGES, help_heading = WORK_HEADING)]
    pub(crate) decode_ahead_images: Option<usize>,
    /// Batches that may wait in front of each device
    #[arg(long, value_name = "COUNT", env = environment::QUEUED_BATCHES_PER_DEVICE, help_heading = WORK_HEADING)]
    pub(crate) queued_batches_per_device: Option<usize>,
    /// Units worked on at once; 0 is one more than there are devices
    #[arg(long, value_name = "COUNT", env = environment::UNITS_IN_FLIGHT, help_heading = WORK_HEADING)]
    pub(crate) units_in_flight: Option<usize>,
    /// Seconds without progress in any stage after which the run ends and says where it stands
    #[arg(long, value_name = "SECONDS", env = environment::STALL_SECONDS, help_heading = WORK_HEADING)]
    pub(crate) stall_seconds: Option<u64>,
}

impl LimitOptions {
    /// The limits, where every option is present.
    ///
    /// # Errors
    /// When one is absent or zero where zero would stop all work.
    pub(crate) fn resolve(&self) -> Result<Limits, SettingsError> {
        // The two structs have the same fields under two spellings; a test holds them together.
        let fields = super::fields(self)?.into_iter().map(|(key, value)| (key.replace('-', "_"), value)).collect();
        let limits: Limits =
            serde_json::from_value(serde_json::Value::Object(fields)).map_err(SettingsError::internal)?;
        for (key, value) in [
            ("--fetch-requests", limits.fetch_requests as u64),
            ("--fetch-buffer-bytes", limits.fetch_buffer_bytes),
            ("--max-image-bytes", limits.max_image_bytes),
            ("--max-image-pixels", limits.max_image_pixels),
            ("--decode-ahead-images", limits.decode_ahead_images as u64),
            ("--queued-batches-per-device", limits.queued_batches_per_device as u64),
            ("--retry-attempts", limits.retry_attempts as u64),
            ("--stall-seconds", limits.stall_seconds),
            ("--connect-timeout-seconds", limits.connect_timeout_seconds),
            ("--read-timeout-seconds", limits.read_timeout_seconds),
        ] {
            if value == 0 {
                return Err(SettingsError::invalid(key, "0", "at least 1: with 0 nothing would ever move"));
            }
        }
        Ok(limits)
    }
}

impl Options for LimitOptions {
    fn defaults() -> Self {
        let limits = Limits::default();
        Self {
            fetch_requests: Some(limits.fetch_requests),
            retry_attempts: Some(limits.retry_attempts),
            retry_pause_first_milliseconds: Some(limits.retry_pause_first_milliseconds),
            retry_pause_max_seconds: Some(limits.retry_pause_max_seconds),
            retry_total_seconds: Some(limits.retry_total_seconds),
            connect_timeout_seconds: Some(limits.connect_timeout_seconds),
            read_timeout_seconds: Some(limits.read_timeout_seconds),
            fetch_buffer_bytes: Some(limits.fetch_buffer_bytes),
            max_image_bytes: Some(limits.max_image_bytes),
            max_image_pixels: Some(limits.max_image_pixels),
            decode_threads: Some(limits.decode_threads),
            decode_ahead_images: Some(limits.decode_ahead_images),
            queued_batches_per_device: Some(limits.queued_batches_per_device),
            units_in_flight: Some(limits.units_in_flight),
            stall_seconds: Some(limits.stall_seconds),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_of_the_pipeline_is_an_option_with_its_default() {
        let resolved = LimitOptions::defaults().resolve().expect("the defaults are limits");
        assert_eq!(resolved, Limits::default());
        let names = |value: serde_json::Value| -> Vec<String> {
            value.as_object().expect("a struct").keys().map(|key| key.replace('_', "-")).collect()
        };
        let mut options = names(serde_json::to_value(LimitOptions::defaults()).expect("serializes"));
        let mut limits = names(serde_json::to_value(Limits::default()).expect("serializes"));
        options.sort();
        limits.sort();
        assert_eq!(options, limits);
    }

    #[test]
    fn a_limit_of_zero_that_would_stop_all_work_is_refused_by_its_flag() {
        let options = LimitOptions { fetch_requests: Some(0), ..LimitOptions::defaults() };
        let error = options.resolve().expect_err("zero requests").to_string();
        assert!(error.contains("--fetch-requests"), "{error}");
    }
}
