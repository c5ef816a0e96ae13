//! The seam: networks of `models` as the pipeline's encoders, samplers and decoders.

use crate::{exit_code, model_folder::ModelFolder};
use models::{
    BatchMemory, Device, ExtractorPrecision, Generator, Inception, ModelError, Precision, ReconstructionScorer,
    VisualTokenizer, memory_limit,
};
use pipeline::{BatchNetwork, DecoderFactory, DeviceError, EncoderFactory, SamplerFactory, ScorerFactory};
use schemas::{PixelBatch, Rounding, SampleBatch, Sampling, ScoredBatch, TokenBatch};
use std::{
    ops::{Deref, DerefMut},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

/// Where a network waits between the runs of one process: each of a sweep's takes it and brings it back.
#[derive(Debug)]
pub(crate) struct Slot<T>(Arc<Mutex<Option<T>>>);

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> Slot<T> {
    /// A slot in which `network` waits.
    pub(crate) fn of(network: T) -> Self {
        Self(Arc::new(Mutex::new(Some(network))))
    }

    /// The network that waits here, or else the one that `load` gives; it comes back here when it is dropped.
    ///
    /// # Errors
    /// Those of `load`.
    pub(crate) fn borrow_or<E>(&self, load: impl FnOnce() -> Result<T, E>) -> Result<Borrowed<T>, E> {
        let waiting = self.lock().take();
        let network = waiting.map_or_else(load, Ok)?;
        Ok(Borrowed { network: Some(network), home: self.clone() })
    }

    /// The network that waits here, if one does; it does not come back.
    pub(crate) fn take(&self) -> Option<T> {
        self.lock().take()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A network on its thread.
#[derive(Debug)]
pub(crate) struct Borrowed<T> {
    /// Absent only while this is dropped.
    network: Option<T>,
    home: Slot<T>,
}

impl<T> Deref for Borrowed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.network.as_ref().unwrap_or_else(|| unreachable!("taken before it is dropped"))
    }
}

impl<T> DerefMut for Borrowed<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.network.as_mut().unwrap_or_else(|| unreachable!("taken before it is dropped"))
    }
}

impl<T> Drop for Borrowed<T> {
    fn drop(&mut self) {
        *self.home.lock() = self.network.take();
    }
}

/// A tokenizer that encodes on one device, owned by that device's thread.
#[derive(Debug)]
struct Encoder {
    tokenizer: VisualTokenizer,
}

impl BatchNetwork<PixelBatch, TokenBatch> for Encoder {
    fn run(&mut self, batch: &PixelBatch) -> Result<TokenBatch, DeviceError> {
        self.tokenizer.encode(batch).map_err(|error| {
            device_error(with_what_fits(error, self.tokenizer.device(), batch.rows(), || {
                self.tokenizer.encoding_memory()
            }))
        })
    }

    fn device_kind(&self) -> String {
        self.tokenizer.device().kind()
    }
}

/// A generator on one device, owned by that device's thread.
#[derive(Debug)]
struct Sampler {
    generator: Borrowed<Generator>,
    sampling: Sampling,
}

impl BatchNetwork<SampleBatch, TokenBatch> for Sampler {
    fn run(&mut self, batch: &SampleBatch) -> Result<TokenBatch, DeviceError> {
        self.generator.sample(batch, &self.sampling).map_err(device_error)
    }

    fn device_kind(&self) -> String {
        self.generator.device().kind()
    }
}

/// A tokenizer that decodes on one device, owned by a thread of its own.
#[derive(Debug)]
struct Decoder {
    tokenizer: Borrowed<VisualTokenizer>,
    rounding: Rounding,
}

impl BatchNetwork<TokenBatch, PixelBatch> for Decoder {
    fn run(&mut self, batch: &TokenBatch) -> Result<PixelBatch, DeviceError> {
        let all = self.tokenizer.levels().tokens_per_image();
        self.tokenizer.decode(batch, all, self.rounding).map_err(device_error)
    }

    fn device_kind(&self) -> String {
        self.tokenizer.device().kind()
    }
}

/// An extractor of features on one device, owned by that device's thread.
#[derive(Debug)]
struct Extractor {
    inception: Borrowed<Inception>,
}

impl BatchNetwork<PixelBatch, ScoredBatch> for Extractor {
    fn run(&mut self, batch: &PixelBatch) -> Result<ScoredBatch, DeviceError> {
        let images = self.inception.features(batch, true).map_err(device_error)?;
        Ok(ScoredBatch { variants: vec![images], tokens: None })
    }

    fn device_kind(&self) -> String {
        self.inception.device().kind()
    }
}

/// A tokenizer and what judges it, on one device, owned by that device's thread.
#[derive(Debug)]
struct ReconstructionNetwork {
    scorer: ReconstructionScorer,
}

impl BatchNetwork<PixelBatch, ScoredBatch> for ReconstructionNetwork {
    fn run(&mut self, batch: &PixelBatch) -> Result<ScoredBatch, DeviceError> {
        let (variants, tokens) = self.scorer.score(batch).map_err(device_error)?;
        Ok(ScoredBatch { variants, tokens: Some(tokens) })
    }

    fn device_kind(&self) -> String {
        self.scorer.tokenizer().device().kind()
    }
}

/// Moves a tokenizer that is loaded already onto its thread.
pub(crate) fn encoder(tokenizer: VisualTokenizer) -> EncoderFactory {
    Box::new(move || Ok(Box::new(Encoder { tokenizer })))
}

/// Loads a tokenizer on the thread that will own it.
pub(crate) fn loading_encoder(folder: ModelFolder, device: Device, precision: Precision) -> EncoderFactory {
    Box::new(move || {
        let tokenizer = folder.load_tokenizer(device, precision).map_err(device_error)?;
        Ok(Box::new(Encoder { tokenizer }))
    })
}

/// The generator that waits in `slot`, or loaded on the thread that will own it.
pub(crate) fn sampler(
    slot: Slot<Generator>,
    folder: ModelFolder,
    (device, precision): (Device, Precision),
    sampling: Sampling,
) -> SamplerFactory {
    Box::new(move || {
        let generator = slot.borrow_or(|| folder.load_generator(device, precision)).map_err(device_error)?;
        Ok(Box::new(Sampler { generator, sampling }))
    })
}

/// The tokenizer that waits in `slot`, or loaded on the thread where it decodes.
pub(crate) fn decoder(
    slot: Slot<VisualTokenizer>,
    folder: ModelFolder,
    (device, precision): (Device, Precision),
    rounding: Rounding,
) -> DecoderFactory {
    Box::new(move || {
        let tokenizer = slot.borrow_or(|| folder.load_tokenizer(device, precision)).map_err(device_error)?;
        Ok(Box::new(Decoder { tokenizer, rounding }))
    })
}

/// The extractor that waits in `slot`, or loaded on the thread where it computes.
pub(crate) fn extractor(
    slot: Slot<Inception>,
    weights: PathBuf,
    (device, precision): (Device, ExtractorPrecision),
) -> ScorerFactory {
    Box::new(move || {
        let inception = slot.borrow_or(|| Inception::load(&weights, device, precision)).map_err(device_error)?;
        Ok(Box::new(Extractor { inception }))
    })
}

/// What `load` gives, loaded on the thread where it computes.
pub(crate) fn reconstruction_scorer(
    load: impl FnOnce() -> Result<ReconstructionScorer, ModelError> + Send + 'static,
) -> ScorerFactory {
    Box::new(move || Ok(Box::new(ReconstructionNetwork { scorer: load().map_err(device_error)? })))
}

/// Where memory did not suffice for batches of so many views: what would fit, as far as smaller ones tell, and at most half of what did not.
fn with_what_fits(
    error: ModelError,
    device: Device,
    failed: usize,
    measure: impl FnOnce() -> Result<BatchMemory, ModelError>,
) -> ModelError {
    if !error.is_out_of_memory() {
        return error;
    }
    let batch = format!("batches of {failed} views");
    let rows = measure().and_then(|memory| Ok(memory.rows_within(memory_limit(device)?)));
    let rows = rows.map(|rows| rows.map(|rows| rows.min(failed / 2)));
    let advice = match rows {
        Ok(Some(0)) => "not one row would fit: use another device, a smaller network or --precision bf16".to_owned(),
        Ok(Some(rows)) => format!("--batch-size {rows} should fit; another size needs another output"),
        Ok(None) | Err(_) => "use a smaller --batch-size, with another output".to_owned(),
    };
    ModelError::OutOfMemory { device: device.to_string(), batch, advice }
}

fn device_error(error: ModelError) -> DeviceError {
    let advice = match error {
        ModelError::Torch { .. } if error.is_out_of_memory() => ". Use a smaller --batch-size",
        _ => "",
    };
    DeviceError {
        message: format!("{error}{advice}"),
        temporary: exit_code::is_temporary(&error),
        source: Some(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_memory_did_not_suffice_the_error_says_what_would_fit() {
        models::initialise(&[models::DeviceChoice::Cpu], Some(1)).expect("there is a processor");
        let full = || ModelError::Torch { message: "CUDA out of memory. Tried to allocate 9 GiB".to_owned() };
        let told = |measure: fn() -> Result<BatchMemory, ModelError>| {
            device_error(with_what_fits(full(), Device::Cpu, 256, measure))
        };
        // A batch that takes nothing that is seen, and one that cannot be measured either.
        for measure in
            [|| BatchMemory::measure(Device::Cpu, |_| Ok(())), || Err(ModelError::Torch { message: String::new() })]
        {
            let error = told(measure);
            assert!(error.message.contains("cpu") && error.message.contains("batches of 256 views"), "{error}");
            assert!(error.message.contains("smaller --batch-size") && !error.temporary, "{error}");
        }
        let few = |failed: usize, most: usize| {
            let batch = |rows: usize| if rows > most { Err(full()) } else { Ok(()) };
            with_what_fits(full(), Device::Cpu, failed, || BatchMemory::measure(Device::Cpu, batch)).to_string()
        };
        assert!(few(256, 2).contains("--batch-size 2 should fit"), "{}", few(256, 2));
        assert!(few(2, 2).contains("--batch-size 1 should fit"), "not the size that failed: {}", few(2, 2));
        assert!(few(1, 1).contains("not one row") && few(256, 0).contains("not one row"));
        let other = ModelError::Torch { message: "CUDA error: device lost".to_owned() };
        assert!(matches!(with_what_fits(other, Device::Cpu, 256, || unreachable!()), ModelError::Torch { .. }));
    }

    #[test]
    fn a_network_comes_back_and_is_loaded_only_where_none_waits() {
        let slot = Slot::of(1);
        let none = || -> Result<i32, ()> { Err(()) };
        {
            let mut borrowed = slot.borrow_or(none).expect("it waits");
            *borrowed += 1;
            assert!(slot.borrow_or(none).is_err(), "it is out");
            assert_eq!(*slot.borrow_or(|| Ok::<_, ()>(7)).expect("loaded"), 7);
        }
        assert_eq!(*slot.borrow_or(none).expect("it is back"), 2);
    }
}
