//! The limits of a run as flags. What each means for memory and waiting is said at [`Limits`].

use super::SettingsError;
use pipeline::Limits;

/// Heading of the limits that every command obeys.
pub(crate) const STORAGE_HEADING: &str = "Limits on storage";
/// Heading of the limits that matter only where images are decoded and encoded.
pub(crate) const WORK_HEADING: &str = "Limits on work";

/// Limits as options: the fields of [`Limits`], one flag each.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LimitOptions {
    /// Objects being fetched at once; many small files need many to hide latency
    #[arg(long, value_name = "COUNT", help_heading = STORAGE_HEADING, default_value_t = Limits::default().fetch_requests)]
    pub(crate) fetch_requests: usize,
    /// Attempts at a request, the first included
    #[arg(long, value_name = "COUNT", help_heading = STORAGE_HEADING, default_value_t = Limits::default().retry_attempts)]
    pub(crate) retry_attempts: usize,
    /// First pause between attempts, in milliseconds; each further one is up to three times as long
    #[arg(long, value_name = "MILLISECONDS", help_heading = STORAGE_HEADING, default_value_t = Limits::default().retry_pause_first_milliseconds)]
    pub(crate) retry_pause_first_milliseconds: u64,
    /// Longest pause between attempts, in seconds
    #[arg(long, value_name = "SECONDS", help_heading = STORAGE_HEADING, default_value_t = Limits::default().retry_pause_max_seconds)]
    pub(crate) retry_pause_max_seconds: u64,
    /// Time after which a request is given up, in seconds; stay below five minutes, for signed requests expire
    #[arg(long, value_name = "SECONDS", help_heading = STORAGE_HEADING, default_value_t = Limits::default().retry_total_seconds)]
    pub(crate) retry_total_seconds: u64,
    /// Time to open a connection, in seconds
    #[arg(long, value_name = "SECONDS", help_heading = STORAGE_HEADING, default_value_t = Limits::default().connect_timeout_seconds)]
    pub(crate) connect_timeout_seconds: u64,
    /// Longest silence in the middle of a body, in seconds; a slow body that moves is never cut off
    #[arg(long, value_name = "SECONDS", help_heading = STORAGE_HEADING, default_value_t = Limits::default().read_timeout_seconds)]
    pub(crate) read_timeout_seconds: u64,
    /// Encoded bytes fetched and not yet decoded; bounds memory when images are large
    #[arg(long, value_name = "BYTES", help_heading = WORK_HEADING, default_value_t = Limits::default().fetch_buffer_bytes)]
    pub(crate) fetch_buffer_bytes: u64,
    /// Encoded images above this are rejected as too_large (part of the plan)
    #[arg(long, value_name = "BYTES", help_heading = WORK_HEADING, default_value_t = Limits::default().max_image_bytes)]
    pub(crate) max_image_bytes: u64,
    /// Images above this many pixels are rejected as too_large (part of the plan)
    #[arg(long, value_name = "PIXELS", help_heading = WORK_HEADING, default_value_t = Limits::default().max_image_pixels)]
    pub(crate) max_image_pixels: u64,
    /// Threads that decode and crop; 0 is one a core
    #[arg(long, value_name = "COUNT", help_heading = WORK_HEADING, default_value_t = Limits::default().decode_threads)]
    pub(crate) decode_threads: usize,
    /// Images of one unit that may be decoding or waiting for their turn
    #[arg(long, value_name = "COUNT", help_heading = WORK_HEADING, default_value_t = Limits::default().decode_ahead_images)]
    pub(crate) decode_ahead_images: usize,
    /// Batches that may wait in front of each device
    #[arg(long, value_name = "COUNT", help_heading = WORK_HEADING, default_value_t = Limits::default().queued_batches_per_device)]
    pub(crate) queued_batches_per_device: usize,
    /// Units worked on at once; 0 is one more than there are devices
    #[arg(long, value_name = "COUNT", help_heading = WORK_HEADING, default_value_t = Limits::default().units_in_flight)]
    pub(crate) units_in_flight: usize,
    /// Seconds without progress in any stage after which the run ends and says where it stands
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
