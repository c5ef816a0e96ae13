//! A scorer without a network: features that follow from sums of pixels.

use super::Gate;
use crate::{BatchNetwork, DeviceError, ScorerFactory};
use schemas::{ImageMeasures, PixelBatch, ScoredBatch, ScoredImages, TokenBatch};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::SeqCst},
};

/// What a [`FakeScorer`] does with its n-th batch besides scoring it.
#[derive(Clone, Debug)]
enum Fault {
    Fail,
    Block(Gate),
    NoNumber { row: usize },
    RowMissing,
}

/// Features from sums of pixels: equal pictures have equal features, and a change of any pixel changes them.
#[derive(Clone, Debug)]
pub struct FakeScorer {
    variants: Vec<Option<u16>>,
    tokens_per_image: Option<usize>,
    device_kind: String,
    fault: Option<(u64, Fault)>,
    batches: Arc<AtomicU64>,
}

impl Default for FakeScorer {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeScorer {
    /// A scorer of images as they are: pool and spatial features.
    pub fn new() -> Self {
        let device_kind = "fake".to_owned();
        Self { variants: vec![None], tokens_per_image: None, device_kind, fault: None, batches: Arc::default() }
    }

    /// A scorer of images as they are and as they were reconstructed from these numbers of tokens: pool features, measures, codes.
    pub fn reconstructing(kept: &[u16], tokens_per_image: usize) -> Self {
        let variants = std::iter::once(None).chain(kept.iter().copied().map(Some)).collect();
        Self { variants, tokens_per_image: Some(tokens_per_image), ..Self::new() }
    }

    /// Says another kind of device. Its features differ too, as those of another GPU might.
    pub fn device_kind(mut self, device_kind: &str) -> Self {
        self.device_kind = device_kind.to_owned();
        self
    }

    /// Fails at batch `number`, from 0, counted over all clones.
    pub fn fail_at(mut self, number: u64) -> Self {
        self.fault = Some((number, Fault::Fail));
        self
    }

    /// Stands still at batch `number` until the gate is opened.
    pub fn block_at(mut self, number: u64, gate: &Gate) -> Self {
        self.fault = Some((number, Fault::Block(gate.clone())));
        self
    }

    /// Says what is no number of a row of batch `number`.
    pub fn no_number_at(mut self, number: u64, row: usize) -> Self {
        self.fault = Some((number, Fault::NoNumber { row }));
        self
    }

    /// Says nothing of the last row of batch `number`.
    pub fn row_missing_at(mut self, number: u64) -> Self {
        self.fault = Some((number, Fault::RowMissing));
        self
    }

    /// Batches scored so far by this scorer and its clones.
    pub fn batches(&self) -> u64 {
        self.batches.load(SeqCst)
    }

    /// A factory that gives this scorer.
    pub fn factory(&self) -> ScorerFactory {
        let scorer = self.clone();
        Box::new(move || Ok(Box::new(scorer)))
    }

    /// Pool features of a picture as it is.
    pub fn pool(&self, picture: &[u8]) -> Vec<f32> {
        self.features(picture, 0, ScoredImages::POOL)
    }

    fn features(&self, picture: &[u8], variant: u64, count: usize) -> Vec<f32> {
        let weighted = picture.iter().zip(1_u64..).map(|(&value, place)| u64::from(value) * place);
        let sum = weighted.sum::<u64>() + variant * 131 + self.device_kind.len() as u64;
        (1..=count as u64).map(|place| (sum * place % 9973) as f32 / 9973.0).collect()
    }

    fn variant(&self, batch: &PixelBatch, kept_tokens: Option<u16>) -> ScoredImages {
        let number = kept_tokens.map_or(0, u64::from);
        let pictures = || (0..batch.filled()).map(|row| batch.image(row));
        let pool: Vec<f32> =
            pictures().flat_map(|picture| self.features(picture, number, ScoredImages::POOL)).collect();
        let (mut spatial, mut measures) = (Vec::new(), Vec::new());
        match self.tokens_per_image {
            None => {
                spatial = pictures().flat_map(|picture| self.features(picture, 7, ScoredImages::SPATIAL)).collect();
            }
            Some(_) if kept_tokens.is_some() => {
                let measure = |image: &[f32]| ImageMeasures {
                    psnr: 20.0 + f64::from(image[0]),
                    ssim: f64::from(image[1]),
                    ms_ssim: None,
                    lpips: Some(f64::from(image[2])),
                };
                measures = pool.chunks_exact(ScoredImages::POOL).map(measure).collect();
            }
            Some(_) => {}
        }
        ScoredImages { kept_tokens, pool, spatial, measures }
    }
}

impl BatchNetwork<PixelBatch, ScoredBatch> for FakeScorer {
    fn run(&mut self, batch: &PixelBatch) -> Result<ScoredBatch, DeviceError> {
        let mut variants: Vec<ScoredImages> = self.variants.iter().map(|&kept| self.variant(batch, kept)).collect();
        let wrong = |message: String| DeviceError { message, temporary: true, source: None };
        let number = self.batches.fetch_add(1, SeqCst);
        match &self.fault {
            Some((at, fault)) if *at == number => match fault {
                Fault::Fail => return Err(wrong("planted failure".to_owned())),
                Fault::Block(gate) => gate.wait(),
                Fault::NoNumber { row } => variants[0].pool[row * ScoredImages::POOL + 5] = f32::NAN,
                Fault::RowMissing => variants[0].pool.truncate((batch.filled() - 1) * ScoredImages::POOL),
            },
            _ => {}
        }
        let tokens = self.tokens_per_image.map(|tokens| {
            let codes = variants[0].pool.chunks_exact(ScoredImages::POOL);
            let codes = codes.flat_map(|image| image[..tokens].iter().map(|value| (value * 97.0) as i16)).collect();
            TokenBatch::try_new(codes, tokens)
        });
        let tokens = tokens.transpose().map_err(|error| wrong(error.to_string()))?;
        Ok(ScoredBatch { variants, tokens })
    }

    fn device_kind(&self) -> String {
        self.device_kind.clone()
    }
}
