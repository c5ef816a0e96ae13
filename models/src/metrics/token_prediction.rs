//! How well a generator predicts the tokens of images it has not learned, summed up on the device and read once.

use crate::{Generator, ModelError, ProcessGroup, training::token_losses};
use schemas::{SchemaError, TokenBatch, TokenLevels};
use tch::{Kind, Tensor};

/// What a set of images scores.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenScores {
    /// Images that were predicted.
    pub images: u64,
    /// Of all tokens together.
    pub all: LevelScores,
    /// Of each level, coarsest first.
    pub levels: Vec<LevelScores>,
}

/// Means over tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LevelScores {
    /// Cross-entropy in nats.
    pub loss: f64,
    /// Fraction of the tokens that are the likeliest of all codes.
    pub accuracy: f64,
}

/// Predicts every token from the true ones before it, batch by batch. Updates wait for no device; only [`Self::finish`] does.
#[derive(Debug)]
pub struct TokenMeter {
    levels: TokenLevels,
    images: u64,
    /// Sums over images of loss and hits at each position, float64 `[2, N]`.
    sums: Tensor,
}

impl TokenMeter {
    /// Nothing predicted yet, by generators like `generator`.
    ///
    /// # Errors
    /// When libtorch refuses, for want of memory for example.
    pub fn new(generator: &Generator) -> Result<Self, ModelError> {
        let (levels, device) = (generator.levels().clone(), generator.device().torch());
        let sums = Tensor::f_zeros([2, levels.tokens_per_image() as i64], (Kind::Double, device))?;
        Ok(Self { levels, images: 0, sums })
    }

    /// Predicts the rows of `tokens`, images of `classes`.
    ///
    /// # Errors
    /// When tokens or classes are not the generator's, or libtorch refuses.
    pub fn update(&mut self, generator: &Generator, tokens: &TokenBatch, classes: &[i32]) -> Result<(), ModelError> {
        let _no_grad = tch::no_grad_guard();
        let (logits, tokens) = generator.predict(tokens, classes)?;
        let hits = logits.f_argmax(-1, false)?.f_eq_tensor(&tokens)?.f_to_kind(Kind::Float)?;
        let both = Tensor::f_stack(&[token_losses(&logits, &tokens)?, hits], 0)?;
        self.sums = self.sums.f_add(&both.f_sum_dim_intlist([1_i64].as_slice(), false, Kind::Double)?)?;
        self.images += tokens.size2()?.0.unsigned_abs();
        Ok(())
    }

    /// Adds what the other processes of `group` have predicted; all of them call this, also one that has predicted nothing.
    ///
    /// # Errors
    /// When libtorch refuses, or a process is lost or silent.
    pub fn sum_over(&mut self, group: &ProcessGroup) -> Result<(), ModelError> {
        let mut images = Tensor::f_from_slice(&[self.images as i64])?;
        group.add_up(&mut [&mut images, &mut self.sums])?;
        self.images = images.f_int64_value(&[0])?.unsigned_abs();
        Ok(())
    }

    /// The scores. Waits for the device.
    ///
    /// # Errors
    /// When nothing was predicted, or libtorch refuses.
    pub fn finish(self) -> Result<TokenScores, ModelError> {
        if self.images == 0 {
            let (found, expected) = ("0".to_owned(), "at least 1".to_owned());
            return Err(SchemaError::Shape { what: "images to score", found, expected }.into());
        }
        let length = self.levels.tokens_per_image();
        let sums = Vec::<f64>::try_from(self.sums.f_to_device(tch::Device::Cpu)?.f_view([-1])?)?;
        let mean = |start: usize, end: usize| {
            let over = |from: usize| {
                sums[from + start..from + end].iter().sum::<f64>() / (self.images * (end - start) as u64) as f64
            };
            LevelScores { loss: over(0), accuracy: over(length) }
        };
        let levels = self.levels.offsets().windows(2).map(|bounds| mean(bounds[0], bounds[1])).collect();
        Ok(TokenScores { images: self.images, all: mean(0, length), levels })
    }
}
