//! The vector quantizer (modeling/quantizer/quantizer.py), always in float32.

use super::config::TokenizerConfig;
use crate::{
    ModelError,
    layers::full_float32_product,
    parameters::{Init, Scope},
};
use tch::{Device, Kind, Tensor};

/// As in torch's `normalize`.
const SMALLEST_NORM: f64 = 1e-12;
/// Of the entropy loss, as published.
const ENTROPY_TEMPERATURE: f64 = 0.01;
/// Vectors compared with the whole codebook at once: bounds the table of distances to 64 MiB for 8,192 codes.
const ROWS_AT_ONCE: i64 = 2048;

/// Nearest codes of a codebook.
#[derive(Debug)]
pub(crate) struct Quantizer {
    /// `[codes, token size]`, of length one if `normalize`.
    codebook: Tensor,
    /// Minus half the squared length of each code, `[codes]`.
    offsets: Tensor,
    normalize: bool,
    commitment_cost: f64,
    entropy_loss_ratio: f64,
}

/// All that quantizing says of a batch.
#[derive(Debug)]
pub struct Quantized {
    /// Nearest codes, int64 `[B, L]`.
    pub codes: Tensor,
    /// Distance (squared) of the second-nearest code over that of the nearest, `[B, L]`: below the noise of the computation, a
    /// code may flip.
    pub gap: Tensor,
    /// The training loss: commitment, codebook and entropy.
    pub loss: Tensor,
}

/// What a training step needs of the quantizer.
pub(crate) struct TrainingQuantized {
    /// Vectors of the nearest codes, whose gradients pass straight through to `z`: `[B, L, token size]`.
    pub(crate) vectors: Tensor,
    /// Pulls `z` to its codes; times its cost.
    pub(crate) commitment: Tensor,
    /// Pulls codes to their `z`.
    pub(crate) codebook: Tensor,
    /// Decided choices, evenly spread; times its ratio. Absent where the ratio is 0.
    pub(crate) entropy: Option<Tensor>,
}

impl Quantizer {
    pub(crate) fn new(scope: &Scope<'_>, config: &TokenizerConfig) -> Result<Self, ModelError> {
        let options = config.options();
        let codes = options.codebook_size;
        let shape = [codes as i64, options.token_size];
        let codebook = scope.placed("embedding.weight", &shape, Init::Uniform(1.0 / codes as f64))?;
        let codebook = if options.use_l2_norm { normalized(&codebook)? } else { codebook };
        let squares = codebook.f_square()?.f_sum_dim_intlist([-1_i64].as_slice(), false, Kind::Float)?;
        Ok(Self {
            offsets: squares.f_mul_scalar(-0.5)?,
            codebook,
            normalize: options.use_l2_norm,
            commitment_cost: options.commitment_cost,
            entropy_loss_ratio: options.entropy_loss_ratio,
        })
    }

    /// Nearest codes of `z`, `[B, L, token size]`: int64 `[B, L]`.
    ///
    /// |z - e|² = |z|² - 2 (z·e - |e|²/2), and |z| is the same for all codes: the nearest code has the largest bracket.
    ///
    /// A vector that is no number (half precision can overflow) is nearest to nothing. torch would call it code 0; here it gets
    /// -1, which nobody takes for a code.
    pub(crate) fn codes(&self, z: &Tensor) -> Result<Tensor, ModelError> {
        let (batch, tokens, channels) = z.size3()?;
        let rows = self.prepared(z)?.f_reshape([-1, channels])?;
        let codebook = self.codebook.f_transpose(0, 1)?;
        let codes = rows
            .f_split(ROWS_AT_ONCE, 0)?
            .iter()
            .map(|rows| -> Result<_, ModelError> {
                let codes = self.scores(rows, &codebook)?.f_argmax(1, false)?;
                let finite = rows.f_sum_dim_intlist([1_i64].as_slice(), false, Kind::Float)?.f_isfinite()?;
                Ok(codes.f_masked_fill(&finite.f_logical_not()?, -1)?)
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Tensor::f_cat(&codes, 0)?.f_view([batch, tokens])?)
    }

    /// Vectors of `codes`, int64 `[B, L]`: `[B, L, token size]`.
    pub(super) fn vectors(&self, codes: &Tensor) -> Result<Tensor, ModelError> {
        let (batch, tokens) = codes.size2()?;
        Ok(self.codebook.f_index_select(0, &codes.f_reshape([-1])?)?.f_view([batch, tokens, -1])?)
    }

    /// Codes with everything else that the published quantizer returns; for study, since it keeps every distance.
    pub(super) fn quantize(&self, z: &Tensor) -> Result<Quantized, ModelError> {
        let codes = self.codes(z)?;
        let z = self.prepared(z)?;
        let (batch, tokens, channels) = z.size3()?;
        let distances = self.distances(&z.f_reshape([-1, channels])?)?;
        let (nearest, _) = distances.f_topk(2, 1, false, true)?;
        let gap = nearest.f_select(1, 1)?.f_sub(&nearest.f_select(1, 0)?)?.f_view([batch, tokens])?;
        let trained = self.train(&z)?;
        let mut loss = trained.commitment.f_add(&trained.codebook)?;
        if let Some(entropy) = &trained.entropy {
            loss = loss.f_add(entropy)?;
        }
        Ok(Quantized { codes, gap, loss })
    }

    /// Codes and losses with gradients (`VectorQuantizer.forward` in modeling/quantizer/quantizer.py).
    pub(crate) fn train(&self, z: &Tensor) -> Result<TrainingQuantized, ModelError> {
        let codes = tch::no_grad(|| self.codes(&z.detach()))?;
        let z = self.prepared(z)?;
        let (_, _, channels) = z.size3()?;
        // A vector that is no number has code -1. Training goes on as torch's would, with code 0, and its loss says it.
        let nearest = self.vectors(&codes.f_clamp_min(0)?)?;
        let mean_square = |left: &Tensor, right: &Tensor| left.f_sub(right)?.f_square()?.f_mean(Kind::Float);
        let entropy = match self.entropy_loss_ratio {
            0.0 => None,
            ratio => {
                let distances = self.distances(&z.f_reshape([-1, channels])?)?;
                Some(entropy_loss(&distances)?.f_mul_scalar(ratio)?)
            }
        };
        Ok(TrainingQuantized {
            commitment: mean_square(&nearest.detach(), &z)?.f_mul_scalar(self.commitment_cost)?,
            codebook: mean_square(&nearest, &z.detach())?,
            entropy,
            vectors: z.f_add(&nearest.f_sub(&z)?.detach())?,
        })
    }

    /// `z·e - |e|²/2` of `rows`, `[n, token size]`, and all codes, `[token size, codes]`: `[n, codes]`. Full float32 on CUDA too, where
    /// TensorFloat-32 would flip two codes of a thousand.
    fn scores(&self, rows: &Tensor, codebook: &Tensor) -> Result<Tensor, ModelError> {
        // On a processor one call adds the offsets, and in training gradients flow through it.
        if rows.device() == Device::Cpu || rows.requires_grad() {
            return Ok(self.offsets.f_addmm(rows, codebook)?);
        }
        Ok(full_float32_product(rows, codebook)?.f_add_(&self.offsets)?)
    }

    /// Squared distances of `rows`, `[n, token size]`, to all codes: `[n, codes]`.
    fn distances(&self, rows: &Tensor) -> Result<Tensor, ModelError> {
        let squares = rows.f_square()?.f_sum_dim_intlist([-1_i64].as_slice(), true, Kind::Float)?;
        let scores = self.scores(rows, &self.codebook.f_transpose(0, 1)?)?;
        Ok(squares.f_sub(&scores.f_mul_scalar(2.0)?)?)
    }

    fn prepared(&self, z: &Tensor) -> Result<Tensor, ModelError> {
        let z = z.f_to_kind(Kind::Float)?;
        if self.normalize { normalized(&z) } else { Ok(z) }
    }
}

/// Vectors of length one along the last axis.
fn normalized(vectors: &Tensor) -> Result<Tensor, ModelError> {
    let squares = vectors.f_square()?.f_sum_dim_intlist([-1_i64].as_slice(), true, Kind::Float)?;
    Ok(vectors.f_div(&squares.f_sqrt()?.f_clamp_min(SMALLEST_NORM)?)?)
}

/// Entropy of each vector's soft choice of code, less that of the choice over all vectors.
fn entropy_loss(distances: &Tensor) -> Result<Tensor, ModelError> {
    let affinity = distances.f_mul_scalar(-1.0 / ENTROPY_TEMPERATURE)?;
    let choices = affinity.f_softmax(-1, Kind::Float)?;
    let logarithms = affinity.f_add_scalar(1e-5)?.f_log_softmax(-1, Kind::Float)?;
    let each = choices.f_mul(&logarithms)?.f_sum_dim_intlist([-1_i64].as_slice(), false, Kind::Float)?;
    let together = choices.f_mean_dim([0_i64].as_slice(), false, Kind::Float)?;
    let all = together.f_mul(&together.f_add_scalar(1e-5)?.f_log()?)?.f_sum(Kind::Float)?;
    Ok(all.f_sub(&each.f_mean(Kind::Float)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{TokenizerConfig, TokenizerSize, parameters::Parameters};

    #[test]
    fn a_vector_that_is_no_number_gets_no_code() {
        let config = TokenizerConfig::preset(TokenizerSize::Small);
        let parameters = Parameters::random(5);
        let scope = parameters.root(tch::Device::Cpu, Kind::Float);
        let quantizer = Quantizer::new(&scope.sub("quantize"), &config).expect("built");
        let z = scope.tensor("z", &[2, 128, 8], Init::Normal(1.0)).expect("drawn");
        for (row, broken) in [(0, f64::NAN), (1, f64::INFINITY)] {
            z.get(row).get(7).get(3).f_fill_(broken).map(drop).expect("written");
        }
        let codes = Vec::<i64>::try_from(quantizer.codes(&z).expect("computed").view(-1)).expect("codes");
        let without: Vec<usize> = (0..codes.len()).filter(|&position| codes[position] < 0).collect();
        assert_eq!(without, [7, 128 + 7]);
        schemas::TokenBatch::try_from_codes(&codes, 128, 8192).expect_err("-1 is no code");
    }
}
