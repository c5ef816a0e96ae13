//! Every limit of a run, in one place, with its unit in its name.

use serde::{Deserialize, Serialize};

/// Limits on fetching, decoding, queues and waiting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Objects being fetched at once. Many small files need many requests in flight to hide latency.
    pub fetch_requests: usize,
    /// Encoded bytes fetched and not yet decoded, over all units. Bounds memory when images are large. Tar shards and Parquet
    /// files are read in pieces of a 64th of it, 64 KiB to 4 MiB, of which each unit in flight keeps up to seven beside it.
    pub fetch_buffer_bytes: u64,
    /// Encoded images above this are rejected as `too_large` and never read whole.
    pub max_image_bytes: u64,
    /// Images above this many pixels are rejected as `too_large` before they are decoded.
    pub max_image_pixels: u64,
    /// Threads that decode and crop; 0 means one a core.
    pub decode_threads: usize,
    /// Images of one unit that may be decoding at once or waiting for their turn.
    pub decode_ahead_images: usize,
    /// Batches that may wait in front of the devices, for each device.
    pub queued_batches_per_device: usize,
    /// Units worked on at once; 0 means one more than there are devices, so that no device waits at a unit's end.
    pub units_in_flight: usize,
    /// Attempts at a request, the first included.
    pub retry_attempts: usize,
    /// First pause between attempts, in milliseconds; each further one grows threefold, up to [`Self::retry_pause_max_seconds`].
    pub retry_pause_first_milliseconds: u64,
    /// Longest pause between attempts, in seconds.
    pub retry_pause_max_seconds: u64,
    /// Time after which a request is no longer retried, in seconds. Below five minutes, for signed requests expire.
    pub retry_total_seconds: u64,
    /// Time to open a connection, in seconds.
    pub connect_timeout_seconds: u64,
    /// Longest silence in the middle of a body, in seconds. There is no limit on a body as a whole: a slow one that moves is fine.
    pub read_timeout_seconds: u64,
    /// Time without progress in any stage after which the run ends and says where it stands, in seconds.
    pub stall_seconds: u64,
}

impl Limits {
    /// Units worked on at once with so many devices.
    pub(crate) fn units_in_flight_for(&self, devices: usize) -> usize {
        match self.units_in_flight {
            0 => devices + 1,
            units => units,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            fetch_requests: 64,
            fetch_buffer_bytes: 256 << 20,
            max_image_bytes: 64 << 20,
            // Pillow warns at 89 million; twice that is where it refuses.
            max_image_pixels: 178_956_970,
            decode_threads: 0,
            decode_ahead_images: 64,
            queued_batches_per_device: 2,
            units_in_flight: 0,
            // Decorrelated jitter sleeps far less than the sum of its caps: with these, half of all runs of failures last
            // over a minute before the store's error is believed.
            retry_attempts: 20,
            retry_pause_first_milliseconds: 100,
            retry_pause_max_seconds: 15,
            retry_total_seconds: 240,
            connect_timeout_seconds: 10,
            read_timeout_seconds: 60,
            stall_seconds: 900,
        }
    }
}
