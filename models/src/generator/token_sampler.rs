//! From logits to codes: temperature, the likeliest codes, and one of them (`top_k_top_p_filtering` and `sample_multi` in
//! autoregressive/models/generate.py).
//!
//! The published code draws with torch's generator, whose numbers depend on the whole batch. Here a code is where the running sum of
//! probabilities passes a uniform number that belongs to its sample and token alone.

use crate::ModelError;
use schemas::Sampling;
use tch::{Kind, Tensor};

/// How codes are drawn.
#[derive(Clone, Copy, Debug)]
pub(super) struct TokenSampler {
    temperature: f64,
    /// 0 for all.
    top_k: i64,
    top_p: f64,
}

impl TokenSampler {
    pub(super) fn new(sampling: &Sampling, codes: usize) -> Self {
        // Asking for all codes is asking for nothing.
        let top_k = if sampling.top_k < codes { sampling.top_k as i64 } else { 0 };
        Self { temperature: sampling.temperature, top_k, top_p: sampling.top_p }
    }

    /// # Shapes
    /// `logits`: float32 `[B, n, codes]`, written over; `uniforms`: float32 `[B, n]` in [0, 1). Returns int64 `[B, n]`, -1 where the
    /// logits are no numbers.
    pub(super) fn draw(&self, mut logits: Tensor, uniforms: &Tensor) -> Result<Tensor, ModelError> {
        if self.temperature != 1.0 {
            // As published: what is colder is not told from it.
            logits = logits.f_div_scalar_(self.temperature.max(1e-5))?;
        }
        if self.top_k > 0 {
            let (likeliest, _) = logits.f_topk(self.top_k, -1, true, true)?;
            // Codes exactly as likely as the last of the k stay.
            let unlikely = logits.f_lt_tensor(&likeliest.f_narrow(-1, self.top_k - 1, 1)?)?;
            logits = logits.f_masked_fill_(&unlikely, f64::NEG_INFINITY)?;
        }
        let uniforms = uniforms.f_unsqueeze(-1)?;
        let last = logits.size().last().copied().unwrap_or(1) - 1;
        let (codes, total) = if self.top_p < 1.0 {
            let (sorted, order) = logits.f_sort(-1, true)?;
            let sums = sorted.f_softmax(-1, Kind::Float)?.f_cumsum(-1, Kind::Float)?;
            // Kept are the likeliest, and all those before which the sum has not passed p.
            let kept = sums.f_le(self.top_p)?.f_sum_dim_intlist([-1_i64].as_slice(), true, Kind::Int64)?;
            let total = sums.f_gather(-1, &kept.f_clamp_max(last)?, false)?;
            let rank = place(&sums, &uniforms.f_mul(&total)?, last)?;
            (order.f_gather(-1, &rank, false)?, total)
        } else {
            let sums = logits.f_softmax(-1, Kind::Float)?.f_cumsum(-1, Kind::Float)?;
            let total = sums.f_narrow(-1, last, 1)?;
            (place(&sums, &uniforms.f_mul(&total)?, last)?, total)
        };
        let drawn = codes.f_where_self(&total.f_gt(0.0)?, &Tensor::f_full_like(&codes, -1)?)?;
        Ok(drawn.f_squeeze_dim(-1)?)
    }
}

/// The first place where `sums` are above `value`: never one that adds nothing.
fn place(sums: &Tensor, value: &Tensor, last: i64) -> Result<Tensor, ModelError> {
    let place = value.f_searchsorted(sums, false, true, "right", None::<Tensor>)?;
    Ok(place.f_clamp_max(last)?)
}
