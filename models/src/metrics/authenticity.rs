//! How many samples are no copies (Alaa and others, "How Faithful is your Synthetic Data?", 2022; AuthPct of dgm-eval): a sample is
//! authentic if the training image nearest to it has another training image that is nearer still.

use super::{
    feature_rows::FeatureRows,
    nearest_images::{nearest_images, nearest_others},
};
use crate::{Device, ModelError};

/// Authentic samples in percent: far below what held-out images score where samples are copies.
///
/// # Errors
/// When dimensions differ, there are fewer than two training images or no sample, or libtorch refuses.
pub fn authenticity_percent(
    training: FeatureRows<'_>,
    samples: FeatureRows<'_>,
    device: Device,
) -> Result<f64, ModelError> {
    training.at_least(2, "for a training image to have a neighbour")?;
    let nearest = nearest_images(training, samples, 1, device)?;
    let others = nearest_others(training, device)?;
    let authentic = nearest.iter().flatten().filter(|near| {
        let other = others.get(near.place).and_then(|others| others.first());
        other.is_some_and(|other| other.distance < near.distance)
    });
    Ok(100.0 * authentic.count() as f64 / samples.rows() as f64)
}
