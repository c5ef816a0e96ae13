//! The inception score (Salimans and others, "Improved Techniques for Training GANs", 2016): the exponential of the mean divergence of
//! an image's classes from those of its split.

use super::{
    feature_rows::wrong,
    inception::{CLASSES, InceptionHead},
};
use crate::ModelError;
use schemas::ScoredImages;
use tch::{Kind, Tensor};

/// Images whose classes are computed at once: 33 MB of probabilities.
const BLOCK_ROWS: u64 = 4096;

/// What a set of images scores by its classes.
#[derive(Clone, Debug, PartialEq)]
pub struct InceptionScores {
    /// Mean over the splits.
    pub score: f64,
    /// The score of each split, in order; the last split may be of fewer images.
    pub splits: Vec<f64>,
    /// Fraction of images whose likeliest class is that of the image before.
    pub repeats: f64,
    /// What that fraction would be if the order meant nothing: a set is sorted where [`Self::repeats`] is far above it.
    pub chance: f64,
}

/// The score of images in the order in which they are given, without keeping anything of an image.
///
/// As the ADM evaluator (evaluations/c2i/evaluator.py) has it: splits are consecutive, and nothing is added to a probability before its
/// logarithm. Logits are float32 as published; the probabilities and their sums are float64, so that a class that float32 has no number
/// for counts nothing rather than spoiling the score.
#[derive(Debug)]
pub struct InceptionScore {
    head: InceptionHead,
    split: Option<u64>,
    images: u64,
    /// Images of the split that is being filled.
    in_split: u64,
    /// Its sum over images of Σ p log p, float64 `[]`.
    negative_entropy: Tensor,
    /// Its sum over images of p, float64 `[1008]`.
    probabilities: Tensor,
    /// Logarithms of the full splits' scores, float64 `[]` each.
    full: Vec<Tensor>,
    /// How often a class was the likeliest, int64 `[1008]`.
    likeliest: Tensor,
    /// How often it was that of the image before, int64 `[]`.
    repeated: Tensor,
    /// The likeliest class of the last image, int64 `[1]`.
    last: Option<Tensor>,
}

impl InceptionScore {
    /// Nothing scored yet. Splits are of `split` images each, or one of all.
    ///
    /// # Errors
    /// When a split is of no image, or libtorch refuses.
    pub fn new(head: InceptionHead, split: Option<u64>) -> Result<Self, ModelError> {
        if split == Some(0) {
            return Err(wrong("images of a split", 0, "at least 1"));
        }
        let zeros = |shape: &[i64], kind| Tensor::f_zeros(shape, (kind, head.device().torch()));
        let classes = [CLASSES as i64];
        Ok(Self {
            negative_entropy: zeros(&[], Kind::Double)?,
            probabilities: zeros(&classes, Kind::Double)?,
            likeliest: zeros(&classes, Kind::Int64)?,
            repeated: zeros(&[], Kind::Int64)?,
            head,
            split,
            images: 0,
            in_split: 0,
            full: Vec::new(),
            last: None,
        })
    }

    /// Adds images by their pool features, `[images, 2048]` row-major. Waits for no device.
    ///
    /// # Errors
    /// When these are no whole rows, or libtorch refuses.
    pub fn add(&mut self, pool: &[f32]) -> Result<(), ModelError> {
        if !pool.len().is_multiple_of(ScoredImages::POOL) {
            return Err(wrong("pool features", pool.len(), format!("rows of {}", ScoredImages::POOL)));
        }
        let _no_grad = tch::no_grad_guard();
        let mut rest = pool;
        while !rest.is_empty() {
            let left = self.split.map_or(BLOCK_ROWS, |split| split - self.in_split).min(BLOCK_ROWS);
            let (now, later) = rest.split_at(rest.len().min(left as usize * ScoredImages::POOL));
            self.add_block(now)?;
            if self.split == Some(self.in_split) {
                self.end_split()?;
            }
            rest = later;
        }
        Ok(())
    }

    /// Rows of one split.
    fn add_block(&mut self, pool: &[f32]) -> Result<(), ModelError> {
        let pool = Tensor::f_from_slice(pool)?.f_view([-1, ScoredImages::POOL as i64])?;
        let logits = self.head.logits(&pool.f_to_device(self.head.device().torch())?)?;
        let logarithms = logits.f_to_kind(Kind::Double)?.f_log_softmax(1, None)?;
        let probabilities = logarithms.f_exp()?;
        let entropy = probabilities.f_mul(&logarithms)?.f_sum(Kind::Double)?;
        self.negative_entropy = self.negative_entropy.f_add(&entropy)?;
        let sums = probabilities.f_sum_dim_intlist([0_i64].as_slice(), false, Kind::Double)?;
        self.probabilities = self.probabilities.f_add(&sums)?;

        let classes = logits.f_argmax(1, false)?;
        self.likeliest = self.likeliest.f_scatter_add_(0, &classes, &classes.f_ones_like()?)?;
        let rows = classes.size1()?;
        let with_last = match &self.last {
            Some(last) => Tensor::f_cat(&[last, &classes], 0)?,
            None => classes.shallow_clone(),
        };
        let pairs = with_last.size1()? - 1;
        let repeated = with_last.f_narrow(0, 0, pairs)?.f_eq_tensor(&with_last.f_narrow(0, 1, pairs)?)?;
        self.repeated = self.repeated.f_add(&repeated.f_sum(Kind::Int64)?)?;
        self.last = Some(classes.f_narrow(0, rows - 1, 1)?);
        self.images += rows.unsigned_abs();
        self.in_split += rows.unsigned_abs();
        Ok(())
    }

    fn end_split(&mut self) -> Result<(), ModelError> {
        let images = self.in_split as f64;
        let mean = self.probabilities.f_div_scalar(images)?;
        let together = mean.f_xlogy(&mean)?.f_sum(Kind::Double)?;
        self.full.push(self.negative_entropy.f_div_scalar(images)?.f_sub(&together)?);
        self.negative_entropy = self.negative_entropy.f_zeros_like()?;
        self.probabilities = self.probabilities.f_zeros_like()?;
        self.in_split = 0;
        Ok(())
    }

    /// The scores. Waits for the device.
    ///
    /// # Errors
    /// When there are fewer than two images, features were no numbers, or libtorch refuses.
    pub fn finish(mut self) -> Result<InceptionScores, ModelError> {
        if self.images < 2 {
            return Err(wrong("images for the inception score", self.images, "at least 2"));
        }
        let _no_grad = tch::no_grad_guard();
        if self.in_split > 0 {
            self.end_split()?;
        }
        let frequencies = self.likeliest.f_to_kind(Kind::Double)?.f_div_scalar(self.images as f64)?;
        let fractions = [
            self.repeated.f_to_kind(Kind::Double)?.f_div_scalar((self.images - 1) as f64)?,
            frequencies.f_square()?.f_sum(Kind::Double)?,
        ];
        let scores = Tensor::f_stack(&self.full, 0)?.f_exp()?;
        let read = Tensor::f_cat(&[Tensor::f_stack(&fractions, 0)?, scores], 0)?.f_to_device(tch::Device::Cpu)?;
        let mut splits = Vec::<f64>::try_from(read)?;
        let fractions: Vec<f64> = splits.drain(..2).collect();
        if let Some(broken) = splits.iter().find(|score| !score.is_finite()) {
            return Err(wrong("inception score", broken, "a number: pool features must be finite"));
        }
        let score = splits.iter().sum::<f64>() / splits.len() as f64;
        Ok(InceptionScores { score, splits, repeats: fractions[0], chance: fractions[1] })
    }
}
