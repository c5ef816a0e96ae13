//! Rotary position embedding over two axes, where half of a head's channels turn with the row and half with the column, and over
//! one.
//!
//! Channels are taken in neighbouring pairs; each pair is one complex number, turned by one complex factor. Published as
//! `EmbedNDHybrid2DMaker` and `EmbedNDHybridMulti2DMaker` (modeling/modules/rope.py), which write the same turn as a 2x2 matrix.

use crate::ModelError;
use tch::{Device, Kind, Tensor};

/// Factors for tokens at `positions` (row, column): complex `[1, N, 1, 1, head_channels / 2]` on `device`.
///
/// `head_channels` is a multiple of 4; `base` is the longest wavelength over 2π. Computed in float64, kept in float32.
pub(crate) fn rotary_table(
    positions: &[(f64, f64)],
    head_channels: i64,
    base: f64,
    device: Device,
) -> Result<Tensor, ModelError> {
    let pairs_an_axis = head_channels / 4;
    let frequencies: Vec<f64> =
        (0..pairs_an_axis).map(|pair| base.powf(-(pair as f64) / pairs_an_axis as f64)).collect();
    let mut turns = Vec::with_capacity(positions.len() * head_channels as usize);
    for &(row, column) in positions {
        for position in [row, column] {
            for frequency in &frequencies {
                let (sine, cosine) = (position * frequency).sin_cos();
                turns.extend([cosine as f32, sine as f32]);
            }
        }
    }
    let shape = [1, positions.len() as i64, 1, 1, head_channels / 2, 2];
    let table = Tensor::f_from_slice(&turns)?.f_view(shape)?.f_to_device(device)?;
    Ok(table.f_view_as_complex()?)
}

/// Factors for tokens at positions 0, 1, … of one axis: complex `[1, tokens, 1, 1, head_channels / 2]` on `device`.
///
/// Computed in float32 throughout, as published (`precompute_freqs_cis_1d` in autoregressive/models/gpt_har.py): a weight was
/// trained with these factors, rounding included.
pub(crate) fn rotary_line(tokens: i64, head_channels: i64, base: f64, device: Device) -> Result<Tensor, ModelError> {
    let options = (Kind::Float, Device::Cpu);
    let exponents = Tensor::f_arange_start_step(0, head_channels, 2, options)?.f_div_scalar(head_channels as f64)?;
    let frequencies = Tensor::f_pow_scalar(base, &exponents)?.f_reciprocal()?;
    let angles = Tensor::f_arange(tokens, options)?.f_outer(&frequencies)?;
    let table = Tensor::f_polar(&angles.f_ones_like()?, &angles)?.f_view([1, tokens, 1, 1, head_channels / 2])?;
    Ok(table.f_to_device(device)?)
}

/// Turns `input`, float32 `[B, N, projections, H, D]`, by a [`rotary_table`] or [`rotary_line`] of N rows; in place, unless gradients are wanted.
pub(crate) fn rotate(input: &Tensor, table: &Tensor) -> Result<Tensor, ModelError> {
    let [batch, tokens, projections, heads, channels] = input.size()[..] else {
        return Err(ModelError::torch("rotary embedding takes five axes"));
    };
    debug_assert_eq!(input.kind(), Kind::Float);
    let mut pairs = input.f_view([batch, tokens, projections, heads, channels / 2, 2])?.f_view_as_complex()?;
    let turned = if input.requires_grad() { pairs.f_mul(table)? } else { pairs.f_mul_(table)? };
    Ok(turned.f_view_as_real()?.f_view([batch, tokens, projections, heads, channels])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_turns_by_its_position_times_its_frequency() {
        let table = rotary_table(&[(0.0, 0.0), (2.0, 3.0)], 8, 100.0, Device::Cpu).expect("built");
        let input = Tensor::from_slice(&[1.0_f32, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0]).view([1, 1, 1, 1, 8]);
        let output = rotate(&input.repeat([1, 2, 1, 1, 1]), &table).expect("turned");
        let output: Vec<f32> = output.view([-1]).try_into().expect("a vector");
        assert_eq!(output[..8], [1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0], "position 0 turns nothing");
        // Rows turn the first two pairs by 2 and 0.2, columns the last two by 3 and 0.3.
        let expected = [
            2.0_f32.cos(),
            2.0_f32.sin(),
            0.2_f32.cos(),
            0.2_f32.sin(),
            -3.0_f32.sin(),
            3.0_f32.cos(),
            0.3_f32.cos(),
            0.3_f32.sin(),
        ];
        for (found, expected) in output[8..].iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
    }
}
