//! The two limits on fetching, shared by all units of a run: requests in flight, and bytes fetched but not yet decoded.
//!
//! # Why neither can deadlock
//! - A unit takes the bytes for its images one after another in plan order, and hands them out in that order. So the image that a
//!   unit's consumer waits for never waits for bytes that a later image of the same unit holds.
//! - Whoever holds bytes waits only for a request, never for more bytes. Whoever holds a request waits only for the store.
//! - A consumer gives bytes back when the image is decoded, which needs the decode pool and nothing of this module; so what
//!   other units hold comes back as well.
//! - An image larger than the whole budget takes all of it and no more. Waiting is first come, first served, so small
//!   images cannot keep passing a large one by.

use crate::Limits;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes are counted in units of this size, because a semaphore hands out 32-bit counts.
const UNIT_BYTES: u64 = 1 << 10;

/// The two semaphores.
#[derive(Clone, Debug)]
pub(crate) struct FetchLimits {
    requests: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    budget: u32,
    /// Requests that one unit keeps in flight.
    pub(super) requests_in_flight: usize,
    /// Size of the pieces in which large objects are read.
    pub(super) chunk_bytes: u64,
}

impl FetchLimits {
    pub(crate) fn new(limits: &Limits) -> Self {
        let requests_in_flight = limits.fetch_requests.clamp(1, Semaphore::MAX_PERMITS);
        let budget = u32::try_from(limits.fetch_buffer_bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).max(1);
        Self {
            requests: Arc::new(Semaphore::new(requests_in_flight)),
            bytes: Arc::new(Semaphore::new(budget as usize)),
            budget,
            requests_in_flight,
            // A 64th of the budget, so that pieces follow the setting; 4 MiB at its default, where a request's latency is small
            // beside its transfer.
            chunk_bytes: (limits.fetch_buffer_bytes / 64).clamp(64 << 10, 4 << 20),
        }
    }

    /// Waits until one more request may be made.
    pub(super) async fn request(&self) -> OwnedSemaphorePermit {
        acquire(&self.requests, 1).await
    }

    /// Waits until `size` more bytes may be held.
    pub(super) async fn hold(&self, size: u64) -> FetchPermit {
        let share = u32::try_from(size.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).min(self.budget);
        FetchPermit { _share: if share == 0 { None } else { Some(acquire(&self.bytes, share).await) } }
    }
}

async fn acquire(semaphore: &Arc<Semaphore>, count: u32) -> OwnedSemaphorePermit {
    Arc::clone(semaphore)
        .acquire_many_owned(count)
        .await
        .unwrap_or_else(|_| unreachable!("these semaphores are never closed"))
}

/// An image's share of the bytes that may be held at once; given back when dropped.
///
/// Drop it as soon as the image is decoded, and wait for nothing in between but the decode pool.
#[derive(Debug)]
pub struct FetchPermit {
    _share: Option<OwnedSemaphorePermit>,
}

impl FetchPermit {
    /// A permit that holds nothing, for images that were never fetched.
    pub fn none() -> Self {
        Self { _share: None }
    }
}
