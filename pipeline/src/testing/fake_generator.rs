//! A generator and a decoder without networks: codes that follow from seed, sample and class, pictures that follow from codes.

use crate::{BatchNetwork, DecoderFactory, DeviceError, SamplerFactory};
use schemas::{PixelBatch, RandomStream, SampleBatch, TokenBatch};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::SeqCst},
};

/// Draws codes from (seed, sample, class), and from the kind of device, as another GPU's last bits might.
#[derive(Clone, Debug)]
pub struct FakeSampler {
    seed: u64,
    tokens_per_image: usize,
    codebook_size: usize,
    device_kind: String,
    batches: Arc<AtomicU64>,
    fail_at: Option<u64>,
}

impl FakeSampler {
    /// A sampler of `tokens_per_image` codes below `codebook_size` a sample.
    pub fn new(seed: u64, tokens_per_image: usize, codebook_size: usize) -> Self {
        let (device_kind, batches) = ("fake".to_owned(), Arc::default());
        Self { seed, tokens_per_image, codebook_size, device_kind, batches, fail_at: None }
    }

    /// Says another kind of device, whose codes differ.
    pub fn device_kind(mut self, device_kind: &str) -> Self {
        self.device_kind = device_kind.to_owned();
        self
    }

    /// Fails at batch `number`, from 0, counted over all clones.
    pub fn fail_at(mut self, number: u64) -> Self {
        self.fail_at = Some(number);
        self
    }

    /// Batches drawn so far by this sampler and its clones.
    pub fn batches(&self) -> u64 {
        self.batches.load(SeqCst)
    }

    /// The codes of one sample.
    pub fn codes(&self, sample: u64, class: i32) -> Vec<i16> {
        let mut stream = RandomStream::new(self.seed ^ class as u64, &self.device_kind, sample);
        (0..self.tokens_per_image).map(|_| stream.below(self.codebook_size as u64) as i16).collect()
    }

    /// A factory that gives this sampler.
    pub fn factory(&self) -> SamplerFactory {
        let sampler = self.clone();
        Box::new(move || Ok(Box::new(sampler)))
    }
}

impl BatchNetwork<SampleBatch, TokenBatch> for FakeSampler {
    fn run(&mut self, batch: &SampleBatch) -> Result<TokenBatch, DeviceError> {
        if self.fail_at == Some(self.batches.fetch_add(1, SeqCst)) {
            let message = "planted failure".to_owned();
            return Err(DeviceError { message, temporary: true, source: None });
        }
        let filled = batch.samples().iter().zip(batch.classes()).take(batch.filled());
        let codes = filled.flat_map(|(&sample, &class)| self.codes(sample, class)).collect();
        TokenBatch::try_new(codes, self.tokens_per_image).map_err(|error| wrong(&error))
    }

    fn device_kind(&self) -> String {
        self.device_kind.clone()
    }
}

/// Paints square pictures whose every pixel is the low byte of one code after another.
#[derive(Clone, Debug)]
pub struct FakeDecoder {
    side: usize,
}

impl FakeDecoder {
    /// A decoder of pictures of `side` by `side` pixels.
    pub fn new(side: usize) -> Self {
        Self { side }
    }

    /// The picture of one row of codes.
    pub fn picture(&self, codes: &[i16]) -> Vec<u8> {
        codes.iter().map(|&code| code as u8).cycle().take(self.side * self.side * PixelBatch::CHANNELS).collect()
    }

    /// A factory that gives this decoder.
    pub fn factory(&self) -> DecoderFactory {
        let decoder = self.clone();
        Box::new(move || Ok(Box::new(decoder)))
    }
}

impl BatchNetwork<TokenBatch, PixelBatch> for FakeDecoder {
    fn run(&mut self, batch: &TokenBatch) -> Result<PixelBatch, DeviceError> {
        let pixels = batch.iter_rows().flat_map(|codes| self.picture(codes)).collect();
        PixelBatch::try_new(pixels, batch.rows(), batch.rows(), self.side, self.side).map_err(|error| wrong(&error))
    }

    fn device_kind(&self) -> String {
        "fake".to_owned()
    }
}

fn wrong(error: &schemas::SchemaError) -> DeviceError {
    DeviceError { message: error.to_string(), temporary: false, source: None }
}
