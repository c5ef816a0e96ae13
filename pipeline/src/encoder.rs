//! The seam to the networks: a batch of pixels in, a batch of codes out.

use schemas::{PixelBatch, TokenBatch};
use std::error::Error;

/// A network on one device, owned by one thread.
///
/// Synchronous on purpose: the thread that owns it does nothing else. `Send`, because it is built by a factory on that thread
/// or moved there; never shared.
pub trait BatchEncoder: Send {
    /// Encodes the filled rows of `batch`, in order.
    ///
    /// # Errors
    /// When the device fails. The whole run ends with it: a code that might be wrong is never written.
    fn encode(&mut self, batch: &PixelBatch) -> Result<TokenBatch, EncodeError>;

    /// Kind of device, as it goes into the tables: `cpu` or a GPU's name. The same for every machine of its kind.
    fn device_kind(&self) -> String;
}

/// What a device said when it failed.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct EncodeError {
    /// What it said.
    pub message: String,
    /// Whether another attempt may succeed: a lost device, yes; a wrong shape, no.
    pub temporary: bool,
    /// What caused it.
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

/// Builds an encoder on the thread that will own it.
pub type EncoderFactory = Box<dyn FnOnce() -> Result<Box<dyn BatchEncoder>, EncodeError> + Send>;
