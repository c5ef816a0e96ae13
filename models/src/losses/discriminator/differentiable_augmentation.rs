//! Random changes of colour, place and cover, through which gradients flow: the discriminator judges changed images only, so it
//! cannot learn few images by heart (Zhao and others, "Differentiable Augmentation for Data-Efficient GAN Training", 2020;
//! published as modeling/modules/diff_aug.py with the policy `color,translation,cutout_0.2`).

use crate::{ModelError, device::upload};
use schemas::RandomStream;
use tch::{Device, Kind, Tensor};

/// How likely each of the three is for a batch.
const PROBABILITY: f64 = 0.5;
/// Largest shift over the side.
const SHIFT: f64 = 0.125;
/// Side of the covered square over the side.
const COVER: f64 = 0.2;

/// What changes the colours of each image of a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Colours {
    /// Added to all, -0.5 to 0.5.
    pub(crate) brightness: Vec<f32>,
    /// Factor of the distance from the pixel's grey, 0 to 2.
    pub(crate) saturation: Vec<f32>,
    /// Factor of the distance from the image's mean, 0.5 to 1.5.
    pub(crate) contrast: Vec<f32>,
}

/// What is done to a batch; each part to all its images, by numbers for each.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Augmentation {
    pub(crate) colours: Option<Colours>,
    /// Rows and columns by which the image moves up and left; black comes in.
    pub(crate) shifts: Option<Vec<[i64; 2]>>,
    /// Row and column of the middle of the square that becomes black.
    pub(crate) covers: Option<Vec<[i64; 2]>>,
}

impl Augmentation {
    /// The published policy for `batch` images of `height` by `width` pixels.
    pub(crate) fn draw(stream: &mut RandomStream, [batch, height, width]: [i64; 3]) -> Self {
        let images = usize::try_from(batch).unwrap_or_default();
        let mut applied = || stream.uniform() < PROBABILITY;
        let (colours, shifts, covers) = (applied(), applied(), applied());
        let mut uniforms = |from: f32, to: f32| -> Vec<f32> {
            stream.uniforms(images).into_iter().map(|value| from + (to - from) * value).collect()
        };
        let colours = colours.then(|| Colours {
            brightness: uniforms(-0.5, 0.5),
            saturation: uniforms(0.0, 2.0),
            contrast: uniforms(0.5, 1.5),
        });
        let mut places = |lowest: [i64; 2], highest: [i64; 2]| -> Vec<[i64; 2]> {
            let mut below = |axis: usize| lowest[axis] + stream.below((highest[axis] - lowest[axis] + 1) as u64) as i64;
            (0..images).map(|_| [below(0), below(1)]).collect()
        };
        let reach = [part(height, SHIFT), part(width, SHIFT)];
        let shifts = shifts.then(|| places(reach.map(|shift| -shift), reach));
        // The middle of an even square may be one past the last pixel.
        let last = |side: i64| side - part(side, COVER) % 2;
        let covers = covers.then(|| places([0, 0], [last(height), last(width)]));
        Self { colours, shifts, covers }
    }

    /// # Shapes
    /// `images`: float32 `[B, 3, H, W]`, as many as there are numbers; returns the same shape.
    pub(crate) fn apply(&self, images: &Tensor) -> Result<Tensor, ModelError> {
        let mut images = images.shallow_clone();
        if let Some(colours) = &self.colours {
            images = colours.apply(&images)?;
        }
        if let Some(shifts) = &self.shifts {
            images = shift(&images, shifts)?;
        }
        if let Some(covers) = &self.covers {
            images = cover(&images, covers)?;
        }
        Ok(images)
    }
}

/// `fraction` of `side`, rounded half up.
fn part(side: i64, fraction: f64) -> i64 {
    (side as f64 * fraction + 0.5) as i64
}

impl Colours {
    fn apply(&self, images: &Tensor) -> Result<Tensor, ModelError> {
        let device = images.device();
        let column =
            |values: &[f32]| -> Result<Tensor, ModelError> { upload(values, &[values.len() as i64, 1, 1, 1], device) };
        let images = images.f_add(&column(&self.brightness)?)?;
        let stretched = |images: &Tensor, axes: &[i64], factor: &[f32]| -> Result<Tensor, ModelError> {
            let mean = images.f_mean_dim(axes, true, None)?;
            Ok(images.f_sub(&mean)?.f_mul(&column(factor)?)?.f_add(&mean)?)
        };
        let images = stretched(&images, &[1], &self.saturation)?;
        stretched(&images, &[1, 2, 3], &self.contrast)
    }
}

/// Row or column that each place of a line reads, in an image with a black frame of 1, for each image.
fn sources(side: i64, shifts: impl Iterator<Item = i64>, device: Device) -> Result<Tensor, ModelError> {
    let sources: Vec<i64> =
        shifts.flat_map(|shift| (0..side).map(move |place| (place + shift + 1).clamp(0, side + 1))).collect();
    upload(&sources, &[sources.len() as i64 / side, side], device)
}

fn shift(images: &Tensor, shifts: &[[i64; 2]]) -> Result<Tensor, ModelError> {
    let (batch, channels, height, width) = images.size4()?;
    let device = images.device();
    let rows = sources(height, shifts.iter().map(|&[rows, _]| rows), device)?.f_unsqueeze(2)?;
    let columns = sources(width, shifts.iter().map(|&[_, columns]| columns), device)?.f_unsqueeze(1)?;
    let index = rows.f_mul_scalar(width + 2)?.f_add(&columns)?; // [B, H, W]
    let index = index.f_view([batch, 1, height * width])?.f_expand([batch, channels, height * width], false)?;
    let framed = images.f_constant_pad_nd([1, 1, 1, 1])?.f_flatten(2, 3)?;
    // Each pixel is read at most once, so that the sum of gradients has no order; only the frame is read more often.
    Ok(framed.f_gather(2, &index, false)?.f_view([batch, channels, height, width])?)
}

/// Which places of a line are covered, 1 or 0, for each image.
fn covered(side: i64, middles: impl Iterator<Item = i64>, device: Device) -> Result<Tensor, ModelError> {
    let size = part(side, COVER);
    let line = |middle: i64| {
        let first = (middle - size / 2).clamp(0, side - 1);
        let last = (middle - size / 2 + size - 1).clamp(0, side - 1);
        (0..side).map(move |place| if size > 0 && (first..=last).contains(&place) { 1.0_f32 } else { 0.0 })
    };
    let covered: Vec<f32> = middles.flat_map(line).collect();
    upload(&covered, &[covered.len() as i64 / side, side], device)
}

fn cover(images: &Tensor, middles: &[[i64; 2]]) -> Result<Tensor, ModelError> {
    let (_, _, height, width) = images.size4()?;
    let device = images.device();
    let rows = covered(height, middles.iter().map(|&[row, _]| row), device)?.f_unsqueeze(2)?;
    let columns = covered(width, middles.iter().map(|&[_, column]| column), device)?.f_unsqueeze(1)?;
    let seen = rows.f_mul(&columns)?.f_neg()?.f_add_scalar(1.0)?.f_unsqueeze(1)?; // [B, 1, H, W]
    debug_assert_eq!(seen.kind(), Kind::Float);
    Ok(images.f_mul(&seen)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_channel(rows: &[[f32; 5]]) -> Tensor {
        Tensor::from_slice(&rows.concat()).view([1, 1, rows.len() as i64, 5])
    }

    #[test]
    fn a_shift_moves_the_image_and_brings_in_black() {
        let image = one_channel(&[[1.0, 2.0, 3.0, 4.0, 5.0], [6.0, 7.0, 8.0, 9.0, 10.0]]);
        let moved = shift(&image, &[[1, -2]]).expect("moved");
        assert!(moved == one_channel(&[[0.0, 0.0, 6.0, 7.0, 8.0], [0.0; 5]]), "{moved}");
        let kept = shift(&image, &[[0, 0]]).expect("moved");
        assert!(kept == image, "{kept}");
    }

    #[test]
    fn a_cover_at_the_edge_is_cut_off_there() {
        let image = Tensor::ones([1, 1, 10, 10], (Kind::Float, Device::Cpu));
        // A fifth of 10 is 2 pixels: around the corner only one row and one column are inside.
        for (middle, expected) in [([0, 0], 99.0), ([10, 10], 99.0), ([5, 5], 96.0), ([0, 5], 98.0)] {
            let sum = cover(&image, &[middle]).expect("covered").sum(Kind::Float).double_value(&[]);
            assert_eq!(sum, expected, "{middle:?}");
        }
    }

    #[test]
    fn draws_stay_in_the_published_ranges_and_are_made_half_of_the_time() {
        let (batch, height, width) = (4, 40, 32);
        let mut made = [0_u32; 3];
        for step in 0..2000 {
            let drawn = Augmentation::draw(&mut RandomStream::new(5, "augmentation", step), [batch, height, width]);
            let parts = [drawn.colours.is_some(), drawn.shifts.is_some(), drawn.covers.is_some()];
            made.iter_mut().zip(parts).for_each(|(made, part)| *made += u32::from(part));
            if let Some(colours) = drawn.colours {
                assert_eq!([colours.brightness.len(), colours.saturation.len(), colours.contrast.len()], [4; 3]);
                assert!(colours.brightness.iter().all(|value| (-0.5..0.5).contains(value)));
                assert!(colours.saturation.iter().all(|value| (0.0..2.0).contains(value)));
                assert!(colours.contrast.iter().all(|value| (0.5..1.5).contains(value)));
            }
            for [rows, columns] in drawn.shifts.unwrap_or_default() {
                assert!(rows.abs() <= 5 && columns.abs() <= 4, "an eighth of the side");
            }
            for [row, column] in drawn.covers.unwrap_or_default() {
                // 8 pixels of 40 are even, and 6 of 32.
                assert!((0..=40).contains(&row) && (0..=32).contains(&column));
            }
        }
        // Five standard deviations of a fair coin.
        assert!(made.iter().all(|made| made.abs_diff(1000) < 112), "{made:?}");
    }
}
