//! The seam to the networks: a batch in, a batch out.
//!
//! | Network | In | Out |
//! |---|---|---|
//! | encoder | pixels of cropped views | codes |
//! | sampler | samples with their classes | codes |
//! | decoder | codes | pixels |
//! | scorer | pixels | features, and for reconstructed images how far they are from their originals |

use schemas::{PixelBatch, SampleBatch, ScoredBatch, TokenBatch};
use std::error::Error;

/// A network on one device, owned by one thread.
///
/// Synchronous on purpose: the thread that owns it does nothing else. `Send`, because it is built by a factory on that thread
/// or moved there; never shared.
pub trait BatchNetwork<I, O>: Send {
    /// Computes the filled rows of `batch`, in order.
    ///
    /// # Errors
    /// When the device fails. The whole run ends with it: a code that might be wrong is never written.
    fn run(&mut self, batch: &I) -> Result<O, DeviceError>;

    /// Kind of device, as it goes into the tables: `cpu` or a GPU's name. The same for every machine of its kind.
    fn device_kind(&self) -> String;
}

/// What a device said when it failed.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct DeviceError {
    /// What it said.
    pub message: String,
    /// Whether another attempt may succeed: a lost device, yes; a wrong shape, no.
    pub temporary: bool,
    /// What caused it.
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

/// Builds a network on the thread that will own it.
pub type NetworkFactory<I, O> = Box<dyn FnOnce() -> Result<Box<dyn BatchNetwork<I, O>>, DeviceError> + Send>;

/// Builds an encoder: pixels to codes.
pub type EncoderFactory = NetworkFactory<PixelBatch, TokenBatch>;

/// Builds a sampler: samples to codes.
pub type SamplerFactory = NetworkFactory<SampleBatch, TokenBatch>;

/// Builds a decoder: codes to pixels.
pub type DecoderFactory = NetworkFactory<TokenBatch, PixelBatch>;

/// Builds a scorer: pixels to features.
pub type ScorerFactory = NetworkFactory<PixelBatch, ScoredBatch>;
