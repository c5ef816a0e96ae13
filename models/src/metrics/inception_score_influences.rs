//! What each image of a set does to its inception score, for the score's interval.
//!
//! A split's score is the exponential of the mean over its images of the divergence of an image's classes from the split's; that changes
//! with the images like the mean of the divergences, because the split's own classes are those that make their mean the least. So an
//! image's influence is its divergence above the mean, times the split's score.

use super::{
    feature_rows::{FeatureRows, wrong},
    inception::InceptionHead,
};
use crate::ModelError;
use schemas::ScoredImages;
use std::ops::Range;
use tch::{Kind, Tensor};

/// Images whose classes are computed at once: 33 MB of probabilities.
const BLOCK_ROWS: usize = 4_096;

/// The influence of each image on the inception score over consecutive splits of `split` images, or over one of all; their mean is 0.
/// `pool` has the images' pool features in their order. Takes twice as long as the score.
///
/// # Errors
/// When features are not the network's, there are fewer than two images, a split is of none, or libtorch refuses.
pub fn inception_score_influences(
    head: &InceptionHead,
    pool: FeatureRows<'_>,
    split: Option<u64>,
) -> Result<Vec<f64>, ModelError> {
    if pool.dimensions() != ScoredImages::POOL {
        return Err(wrong("pool features", pool.dimensions(), ScoredImages::POOL));
    }
    let logarithms = |images: Range<usize>| {
        let values = &pool.values()[images.start * ScoredImages::POOL..images.end * ScoredImages::POOL];
        let rows = Tensor::f_from_slice(values)?.f_view([-1, ScoredImages::POOL as i64])?;
        let logits = head.logits(&rows.f_to_device(head.device().torch())?)?;
        Ok(logits.f_to_kind(Kind::Double)?.f_log_softmax(1, None)?)
    };
    influences(logarithms, pool.rows(), split.map_or(pool.rows(), |split| split as usize))
}

/// Of images whose classes' probabilities have these logarithms, float64 `[images, classes]`.
fn influences(
    logarithms: impl Fn(Range<usize>) -> Result<Tensor, ModelError>,
    images: usize,
    split: usize,
) -> Result<Vec<f64>, ModelError> {
    if images < 2 {
        return Err(wrong("images for influences on the inception score", images, "at least 2"));
    }
    if split == 0 {
        return Err(wrong("images of a split", 0, "at least 1"));
    }
    let _no_grad = tch::no_grad_guard();
    let splits = images.div_ceil(split);
    let mut influences = Vec::with_capacity(images);
    for first in (0..images).step_by(split) {
        let all = first..images.min(first + split);
        let blocks = || all.clone().step_by(BLOCK_ROWS).map(|start| start..all.end.min(start + BLOCK_ROWS));
        let mut sum: Option<Tensor> = None;
        for block in blocks() {
            let block = logarithms(block)?.f_exp()?.f_sum_dim_intlist([0_i64].as_slice(), false, Kind::Double)?;
            sum = Some(match sum {
                None => block,
                Some(sum) => sum.f_add(&block)?,
            });
        }
        let Some(sum) = sum else { continue };
        let together = sum.f_div_scalar(all.len() as f64)?.f_log()?;
        let mut divergences = Vec::with_capacity(all.len());
        for block in blocks() {
            let own = logarithms(block)?;
            let terms = own.f_exp()?.f_mul(&own.f_sub(&together)?)?.f_nan_to_num(0.0, None, None)?;
            let block = terms.f_sum_dim_intlist([1_i64].as_slice(), false, Kind::Double)?;
            divergences.extend(Vec::<f64>::try_from(block.f_to_device(tch::Device::Cpu)?)?);
        }
        let mean = divergences.iter().sum::<f64>() / all.len() as f64;
        // Of the mean over all images this split's scores are the share, and of the mean over splits one part.
        let scale = mean.exp() * images as f64 / (splits * all.len()) as f64;
        influences.extend(divergences.into_iter().map(|divergence| scale * (divergence - mean)));
    }
    Ok(influences)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Resampling, metrics::interval_coverage};
    use schemas::RandomStream;

    const CLASSES: usize = 5;

    /// Logarithms of probabilities of so many images, as numbers and as a tensor.
    fn logarithms(images: usize, index: u64) -> Tensor {
        let logits: Vec<f64> = RandomStream::new(9, "logits", index).normals(images * CLASSES);
        let logits = Tensor::from_slice(&logits).view([-1, CLASSES as i64]) * 2.0;
        logits.log_softmax(1, None)
    }

    fn part(of: &Tensor, images: Range<usize>) -> Result<Tensor, ModelError> {
        Ok(of.f_narrow(0, images.start as i64, images.len() as i64)?)
    }

    /// By its definition, over consecutive splits.
    fn score(logarithms: &Tensor, split: usize) -> f64 {
        let images = logarithms.size2().expect("a matrix").0 as usize;
        let of = |images: Range<usize>| {
            let own = part(logarithms, images).expect("rows");
            let mean = own.exp().mean_dim([0_i64].as_slice(), true, Kind::Double);
            (own.exp() * (&own - mean.log()))
                .sum_dim_intlist([1_i64].as_slice(), false, Kind::Double)
                .mean(Kind::Double)
        };
        let scores: Vec<f64> = (0..images)
            .step_by(split)
            .map(|first| of(first..images.min(first + split)).exp().double_value(&[]))
            .collect();
        scores.iter().sum::<f64>() / scores.len() as f64
    }

    #[test]
    fn an_influence_is_what_the_score_loses_without_the_image() {
        const IMAGES: usize = 1_500;
        let all = logarithms(IMAGES, 0);
        let found = influences(|images| part(&all, images), IMAGES, IMAGES).expect("computed");
        let largest = found.iter().fold(0.0, |largest: f64, influence| largest.max(influence.abs()));
        let whole = score(&all, IMAGES);
        for image in (0..IMAGES).step_by(150) {
            let (before, after) = (part(&all, 0..image).expect("rows"), part(&all, image + 1..IMAGES).expect("rows"));
            let lost = whole - score(&Tensor::cat(&[before, after], 0), IMAGES);
            let expected = lost * (IMAGES - 1) as f64;
            assert!((found[image] - expected).abs() < 0.01 * largest, "{image}: {} and {expected}", found[image]);
        }
    }

    #[test]
    fn intervals_of_95_percent_hold_the_truth_that_often() {
        const IMAGES: usize = 450;
        // The last split has half as many images.
        const SPLIT: usize = 180;
        let resampling = Resampling::try_new(0.95, 400, 0).expect("settings");
        let run = |index| {
            let all = logarithms(IMAGES, index);
            let influences = influences(|images| part(&all, images), IMAGES, SPLIT).expect("computed");
            let score = score(&all, SPLIT);
            (score, resampling.of_mean("inception score", score, &influences).expect("bounds"))
        };
        let runs: Vec<_> = (0..400).map(run).collect();
        interval_coverage::check("inception score", &runs);
    }

    #[test]
    fn what_has_no_influences_is_refused() {
        let all = logarithms(2, 0);
        assert!(influences(|images| part(&all, images), 1, 1).is_err());
        let error = influences(|images| part(&all, images), 2, 0).expect_err("no split").to_string();
        assert!(error.contains("images of a split"), "{error}");
    }
}
