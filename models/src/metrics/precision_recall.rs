//! Precision and recall of generated images (Kynkäänniemi and others, "Improved Precision and Recall Metric for Assessing Generative
//! Models", 2019), as the ADM evaluator has them: a set's manifold is the balls around its features that reach to the third nearest
//! other one.
//!
//! The evaluator computes distances in float16 where they fit, to save memory on the cards of its day. float32 is used here: squared
//! distances of some hundreds are only good to a few tenths in float16, and which vectors lie in a ball then depends on the rounding.
//!
//! Precision is the samples' share within the reference's balls, and recall the reference's share within the samples' balls.
//! torch-fidelity 0.4.0 has it so too; its version 0.3.0 gives each under the other's name.

use super::{
    feature_rows::{FeatureRows, wrong},
    neighbours::{BLOCK_ROWS, Block, Vectors},
};
use crate::{Device, ModelError};
use tch::{Kind, Tensor};

/// Shares between 0 and 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PrecisionRecall {
    /// Fraction of the samples that lie within the reference's manifold.
    pub precision: f64,
    /// Fraction of the reference that lies within the samples' manifold.
    pub recall: f64,
}

/// Precision and recall of `samples` against `reference`, each `[rows, dimensions]` row-major; balls reach to the nearest other feature
/// of number `neighbours`. Memory beside the features and a copy of them on the device is bounded, whatever the sets' sizes.
///
/// # Errors
/// When these are no whole rows, a set has no more than `neighbours` of them, a feature is no number, or libtorch refuses.
pub fn precision_recall(
    reference: &[f32],
    samples: &[f32],
    dimensions: usize,
    neighbours: usize,
    device: Device,
) -> Result<PrecisionRecall, ModelError> {
    in_blocks([reference, samples], dimensions, neighbours, device, BLOCK_ROWS)
}

fn in_blocks(
    [reference, samples]: [&[f32]; 2],
    dimensions: usize,
    neighbours: usize,
    device: Device,
    block_rows: i64,
) -> Result<PrecisionRecall, ModelError> {
    let _no_grad = tch::no_grad_guard();
    let manifold = |what, features| Manifold::new(what, features, [dimensions, neighbours], device, block_rows);
    let reference = manifold("features of the reference", reference)?;
    let samples = manifold("features of samples", samples)?;
    let outside = |of: &Manifold| {
        of.vectors
            .blocks()
            .map(|block| Tensor::f_zeros([block.len], (Kind::Bool, device.torch())))
            .collect::<Result<Vec<_>, _>>()
    };
    let (mut found, mut covered) = (outside(&samples)?, outside(&reference)?);
    for (row, rows) in reference.vectors.blocks().enumerate() {
        for (column, columns) in samples.vectors.blocks().enumerate() {
            let distances = reference.vectors.distances(rows, &samples.vectors, columns)?;
            let radii = |of: &Manifold, block: Block| of.radii.f_narrow(0, block.start, block.len);
            let in_reference = distances.f_le_tensor(&radii(&reference, rows)?.f_unsqueeze(1)?)?.f_any_dim(0, false)?;
            let in_samples = distances.f_le_tensor(&radii(&samples, columns)?.f_unsqueeze(0)?)?.f_any_dim(1, false)?;
            found[column] = found[column].f_logical_or_(&in_reference)?;
            covered[row] = covered[row].f_logical_or_(&in_samples)?;
        }
    }
    let fraction = |of: &[Tensor]| Tensor::f_cat(of, 0)?.f_mean(Kind::Double);
    let finite = reference.radii.f_sum(Kind::Double)?.f_add(&samples.radii.f_sum(Kind::Double)?)?;
    let read = Tensor::f_stack(&[fraction(&found)?, fraction(&covered)?, finite], 0)?.f_to_device(tch::Device::Cpu)?;
    let read = Vec::<f64>::try_from(read)?;
    if !read[2].is_finite() {
        return Err(wrong("features for precision and recall", "radii that are no numbers", "finite numbers"));
    }
    Ok(PrecisionRecall { precision: read[0], recall: read[1] })
}

/// A set's features and the balls around them.
#[derive(Debug)]
struct Manifold {
    vectors: Vectors,
    /// Squared radii, `[N]`.
    radii: Tensor,
}

impl Manifold {
    fn new(
        what: &'static str,
        features: &[f32],
        [dimensions, neighbours]: [usize; 2],
        device: Device,
        block_rows: i64,
    ) -> Result<Self, ModelError> {
        let rows = FeatureRows::try_new(what, features, dimensions)?;
        rows.at_least(neighbours + 1, "one more than the neighbours of a ball")?;
        let vectors = Vectors::new(rows, device, block_rows)?;
        let radii = vectors.radii(neighbours as i64 + 1)?;
        Ok(Self { vectors, radii })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::RandomStream;

    const DIMENSIONS: usize = 5;
    const NEIGHBOURS: usize = 3;

    fn vectors(name: &str, rows: usize, spread: f32) -> Vec<f32> {
        let mut stream = RandomStream::new(7, name, 0);
        (0..rows * DIMENSIONS).map(|_| spread * (stream.below(2001) as f32 / 1000.0 - 1.0)).collect()
    }

    /// By the definition, in float64.
    fn by_pairs(reference: &[f32], samples: &[f32]) -> [f64; 2] {
        let distance = |left: &[f32], right: &[f32]| -> f64 {
            left.iter().zip(right).map(|(left, right)| (f64::from(*left) - f64::from(*right)).powi(2)).sum()
        };
        let radius = |of: &[f32], set: &[f32]| {
            let mut distances: Vec<f64> = set.chunks(DIMENSIONS).map(|other| distance(of, other)).collect();
            distances.sort_by(f64::total_cmp);
            distances[NEIGHBOURS] // the first is the vector itself
        };
        let within = |of: &[f32], set: &[f32]| {
            let balls: Vec<_> = set.chunks(DIMENSIONS).map(|centre| (centre, radius(centre, set))).collect();
            let inside = |vector: &&[f32]| balls.iter().any(|(centre, radius)| distance(vector, centre) <= *radius);
            of.chunks(DIMENSIONS).filter(inside).count() as f64 / (of.len() / DIMENSIONS) as f64
        };
        [within(samples, reference), within(reference, samples)]
    }

    #[test]
    fn shares_are_those_of_the_definition_however_the_sets_are_cut() {
        let (reference, samples) = (vectors("reference", 90, 1.0), vectors("samples", 60, 0.7));
        let expected = by_pairs(&reference, &samples);
        assert!(expected.iter().all(|fraction| (0.3..1.0).contains(fraction)), "something to tell apart: {expected:?}");
        for block_rows in [1, 2, 7, 70, 4096] {
            let found = in_blocks([&reference, &samples], DIMENSIONS, NEIGHBOURS, Device::Cpu, block_rows);
            let found = found.expect("computed");
            for (found, expected) in [found.precision, found.recall].iter().zip(expected) {
                assert!((found - expected).abs() < 1e-12, "blocks of {block_rows}: {found} and {expected}");
            }
        }
    }

    #[test]
    fn a_set_lies_within_itself_and_nothing_far_away_does() {
        let (near, far) = (vectors("near", 20, 1.0), vec![100.0; 20 * DIMENSIONS]);
        let fractions = |reference, samples| {
            let found = precision_recall(reference, samples, DIMENSIONS, NEIGHBOURS, Device::Cpu).expect("computed");
            [found.precision, found.recall]
        };
        assert_eq!(fractions(&near, &near), [1.0, 1.0]);
        assert_eq!(fractions(&near, &far), [0.0, 0.0]);
    }

    #[test]
    fn precision_is_of_the_samples_and_recall_of_the_reference() {
        // The reference has two clusters, the samples lie in one of them: all is good, and half of what there is was not made.
        let cluster = |name: &str, rows: usize, shift: f32| -> Vec<f32> {
            vectors(name, rows, 0.1).into_iter().map(|value| value + shift).collect()
        };
        let (here, there) = (cluster("here", 40, 0.0), cluster("there", 40, 10.0));
        let reference = [here.as_slice(), &there].concat();
        let found = precision_recall(&reference, &here, DIMENSIONS, NEIGHBOURS, Device::Cpu).expect("computed");
        assert_eq!(found, PrecisionRecall { precision: 1.0, recall: 0.5 });
        // Half of the samples are nothing like the reference, which they cover.
        let found = precision_recall(&here, &reference, DIMENSIONS, NEIGHBOURS, Device::Cpu).expect("computed");
        assert_eq!(found, PrecisionRecall { precision: 0.5, recall: 1.0 });
    }
}
