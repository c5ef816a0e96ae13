//! The limits of a run as flags. What each means for memory and waiting is said at [`Limits`].

use super::SettingsError;
use pipeline::Limits;

/// Heading of the limits that every command obeys.
pub(crate) const STORAGE_HEADING: &str = "Storage limits";
/// Heading of the limits that matter only where images are decoded and encoded.
pub(crate) const WORK_HEADING: &str = "Processing limits";

/// Limits as options: the fields of [`Limits`], one flag each.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LimitOptions {
    /// Maximum number of concurrent object fetches.
    ///
    /// Sources with many small files need many to hide latency.
    #[arg(long, value_name = "COUNT", help_heading = STORAGE_HEADING, default_value_t = Limits::default().fetch_requests)]
    pub(crate) fetch_requests: usize,
    /// Maximum attempts per request, including the first
    #[arg(long, value_name = "COUNT", help_heading = STORAGE_HEADING, default_value_t = Limits::default().retry_attempts)]
    pub(crate) retry_attempts: usize,
    /// Delay before the first retry, in milliseconds.
    ///
    /// Each later delay is up to three times as long, up to --retry-pause-max-seconds.
    #[arg(long, value_name = "MILLISECONDS", help_heading = STORAGE_HEADING, default_value_t = Limits::default().retry_pause_first_milliseconds)]
    pub(crate) retry_pause_first_milliseconds: u64,
    /// Maximum delay between attempts, in seconds
    #[arg(long, value_name = "SECONDS", help_heading = STORAGE_HEADING, default_value_t = Limits::default().retry_pause_max_seconds)]
    pub(crate) retry_pause_max_seconds: u64,
    /// Time after which a request is no longer retried, in seconds.
    ///
    /// Keep it below five minutes: signed requests expire.
    #[arg(long, value_name = "SECONDS", help_heading = STORAGE_HEADING, default_value_t = Limits::default().retry_total_seconds)]
    pub(crate) retry_total_seconds: u64,
    /// Timeout for opening a connection, in seconds
    #[arg(long, value_name = "SECONDS", help_heading = STORAGE_HEADING, default_value_t = Limits::default().connect_timeout_seconds)]
    pub(crate) connect_timeout_seconds: u64,
    /// Maximum time without a response or further data from the store, in seconds.
    ///
    /// The body as a whole has no timeout: a slow transfer that makes progress is never cut off.
    #[arg(long, value_name = "SECONDS", help_heading = STORAGE_HEADING, default_value_t = Limits::default().read_timeout_seconds)]
    pub(crate) read_timeout_seconds: u64,
    /// Maximum bytes of encoded images fetched but not yet decoded.
    ///
    /// Bounds memory when images are large.
    #[arg(long, value_name = "BYTES", help_heading = WORK_HEADING, default_value_t = Limits::default().fetch_buffer_bytes)]
    pub(crate) fetch_buffer_bytes: u64,
    /// Reject encoded images larger than this many bytes as too_large (part of the plan)
    #[arg(long, value_name = "BYTES", help_heading = WORK_HEADING, default_value_t = Limits::default().max_image_bytes)]
    pub(crate) max_image_bytes: u64,
    /// Reject images with more pixels than this as too_large (part of the plan)
    #[arg(long, value_name = "PIXELS", help_heading = WORK_HEADING, default_value_t = Limits::default().max_image_pixels)]
    pub(crate) max_image_pixels: u64,
    /// Number of decoding and cropping threads; 0 uses one per core
    #[arg(long, value_name = "COUNT", help_heading = WORK_HEADING, default_value_t = Limits::default().decode_threads)]
    pub(crate) decode_threads: usize,
    /// Maximum images of one unit that are decoding or waiting their turn
    #[arg(long, value_name = "COUNT", help_heading = WORK_HEADING, default_value_t = Limits::default().decode_ahead_images)]
    pub(crate) decode_ahead_images: usize,
    /// Maximum batches queued for each device
    #[arg(long, value_name = "COUNT", help_heading = WORK_HEADING, default_value_t = Limits::default().queued_batches_per_device)]
    pub(crate) queued_batches_per_device: usize,
    /// Number of units processed concurrently; 0 uses one more than there are devices
    #[arg(long, value_name = "COUNT", help_heading = WORK_HEADING, default_value_t = Limits::default().units_in_flight)]
    pub(crate) units_in_flight: usize,
    /// Abort after this many seconds without progress in any stage.
    ///
    /// The error reports where each stage stands.
    #[arg(long, value_name = "SECONDS", help_heading = WORK_HEADING, default_value_t = Limits::default().stall_seconds)]
    pub(crate) stall_seconds: u64,
}

impl LimitOptions {
    /// The limits.
    ///
    /// # Errors
    /// When one is zero where zero would stop all work.
    pub(crate) fn resolve(self) -> Result<Limits, SettingsError> {
        let limits = Limits {
            fetch_requests: self.fetch_requests,
            retry_attempts: self.retry_attempts,
            retry_pause_first_milliseconds: self.retry_pause_first_milliseconds,
            retry_pause_max_seconds: self.retry_pause_max_seconds,
            retry_total_seconds: self.retry_total_seconds,
            connect_timeout_seconds: self.connect_timeout_seconds,
            read_timeout_seconds: self.read_timeout_seconds,
            fetch_buffer_bytes: self.fetch_buffer_bytes,
            max_image_bytes: self.max_image_bytes,
            max_image_pixels: self.max_image_pixels,
            decode_threads: self.decode_threads,
            decode_ahead_images: self.decode_ahead_images,
            queued_batches_per_device: self.queued_batches_per_device,
            units_in_flight: self.units_in_flight,
            stall_seconds: self.stall_seconds,
        };
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

#[cfg(test)]
mod tests {
    use super::{super::parsed, *};

    #[test]
    fn every_limit_has_its_default() {
        assert_eq!(parsed::<LimitOptions>("").resolve().expect("the defaults are limits"), Limits::default());
    }

    #[test]
    fn a_limit_of_zero_that_would_stop_all_work_is_refused_by_its_flag() {
        let options: LimitOptions = parsed("--fetch-requests 0");
        let error = options.resolve().expect_err("zero requests").to_string();
        assert!(error.contains("--fetch-requests"), "{error}");
    }
}
