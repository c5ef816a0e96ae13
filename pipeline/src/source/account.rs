//! What is left out while a source is listed or read: one account for each, which every reader of it writes to.

use schemas::{LeftOutReason, SourceAccount};
use std::sync::{Arc, Mutex, PoisonError};

/// An account that several readers share.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedAccount(Arc<Mutex<SourceAccount>>);

impl SharedAccount {
    /// Counts one more; `name` is made if it is the first.
    pub(super) fn count(&self, reason: LeftOutReason, name: impl FnOnce() -> String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).count(reason, name);
    }

    /// What is in it by now.
    pub(super) fn snapshot(&self) -> SourceAccount {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
