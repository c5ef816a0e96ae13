//! An encoder without a network: codes that follow from the pixels alone.

use crate::{BatchNetwork, DeviceError, EncoderFactory};
use schemas::{PixelBatch, TokenBatch};
use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

/// What a [`FakeEncoder`] does with its n-th batch besides encoding it.
#[derive(Clone, Debug, Default)]
enum Fault {
    #[default]
    None,
    Fail {
        temporary: bool,
    },
    Panic,
    Block(Gate),
    WrongCode(i16),
}

/// Codes by hashing pixels: equal views have equal codes on every machine, and the slightest change of a pixel changes them.
#[derive(Clone, Debug)]
pub struct FakeEncoder {
    tokens_per_image: usize,
    codebook_size: usize,
    device_kind: String,
    delay: Duration,
    fault_at: u64,
    fault: Fault,
    batches: Arc<AtomicU64>,
}

impl FakeEncoder {
    /// An encoder that gives `tokens_per_image` codes below `codebook_size` for each view.
    pub fn new(tokens_per_image: usize, codebook_size: usize) -> Self {
        Self {
            tokens_per_image,
            codebook_size,
            device_kind: "fake".to_owned(),
            delay: Duration::ZERO,
            fault_at: 0,
            fault: Fault::None,
            batches: Arc::default(),
        }
    }

    /// Says another kind of device. Its codes differ too, as those of another GPU might.
    pub fn device_kind(mut self, device_kind: &str) -> Self {
        self.device_kind = device_kind.to_owned();
        self
    }

    /// Sleeps before each batch.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Fails at batch `number`, from 0, counted over all clones.
    pub fn fail_at(mut self, number: u64, temporary: bool) -> Self {
        (self.fault_at, self.fault) = (number, Fault::Fail { temporary });
        self
    }

    /// Panics at batch `number`.
    pub fn panic_at(mut self, number: u64) -> Self {
        (self.fault_at, self.fault) = (number, Fault::Panic);
        self
    }

    /// Stands still at batch `number` until the gate is opened.
    pub fn block_at(mut self, number: u64, gate: &Gate) -> Self {
        (self.fault_at, self.fault) = (number, Fault::Block(gate.clone()));
        self
    }

    /// Gives `code` in batch `number`, which may lie outside the codebook.
    pub fn wrong_code_at(mut self, number: u64, code: i16) -> Self {
        (self.fault_at, self.fault) = (number, Fault::WrongCode(code));
        self
    }

    /// Batches encoded so far by this encoder and its clones.
    pub fn batches(&self) -> u64 {
        self.batches.load(SeqCst)
    }

    /// A factory that gives this encoder.
    pub fn factory(&self) -> EncoderFactory {
        let encoder = self.clone();
        Box::new(move || Ok(Box::new(encoder)))
    }

    /// The codes of one view.
    pub fn codes(&self, view: &[u8]) -> Vec<i16> {
        let mut hasher = DefaultHasher::new();
        (view, &self.device_kind).hash(&mut hasher);
        (0..self.tokens_per_image)
            .map(|token| {
                token.hash(&mut hasher);
                (hasher.finish() % self.codebook_size as u64) as i16
            })
            .collect()
    }
}

impl BatchNetwork<PixelBatch, TokenBatch> for FakeEncoder {
    fn run(&mut self, batch: &PixelBatch) -> Result<TokenBatch, DeviceError> {
        std::thread::sleep(self.delay);
        let mut codes: Vec<i16> = (0..batch.filled()).flat_map(|row| self.codes(batch.image(row))).collect();
        if self.batches.fetch_add(1, SeqCst) == self.fault_at {
            match &self.fault {
                Fault::None => {}
                Fault::Fail { temporary } => {
                    let message = "planted failure".to_owned();
                    return Err(DeviceError { message, temporary: *temporary, source: None });
                }
                Fault::Panic => panic!("planted panic"),
                Fault::Block(gate) => gate.wait(),
                Fault::WrongCode(code) => codes[0] = *code,
            }
        }
        TokenBatch::try_new(codes, self.tokens_per_image).map_err(|error| DeviceError {
            message: error.to_string(),
            temporary: false,
            source: None,
        })
    }

    fn device_kind(&self) -> String {
        self.device_kind.clone()
    }
}

/// A gate that threads stand in front of until it is opened, once and for all.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    state: Arc<(Mutex<bool>, Condvar)>,
}

impl Gate {
    /// Lets everybody through.
    pub fn open(&self) {
        *self.state.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.state.1.notify_all();
    }

    pub(super) fn wait(&self) {
        let mut open = self.state.0.lock().unwrap_or_else(PoisonError::into_inner);
        while !*open {
            open = self.state.1.wait(open).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
