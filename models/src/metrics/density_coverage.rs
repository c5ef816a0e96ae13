//! Density and coverage (Naeem and others, "Reliable Fidelity and Diversity Metrics for Generative Models", 2020), with the balls around
//! the reference's features alone: an outlier among the samples makes no ball, and what lies in many balls counts more than what lies in one.
//!
//! A ball reaches to the fifth nearest other feature of the reference, which is outside of it, as in the published code.

use super::{
    feature_rows::FeatureRows,
    neighbours::{BLOCK_ROWS, Vectors},
};
use crate::{Device, ModelError};
use tch::{Kind, Tensor};

/// What the balls around the reference hold of the samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DensityCoverage {
    /// Balls that a sample lies in, over the neighbours that made a ball: near 1 where both sets have one distribution, and more
    /// where samples crowd into the reference's densest parts.
    pub density: f64,
    /// Fraction of the reference in whose ball a sample lies.
    pub coverage: f64,
}

/// Density and coverage of `samples`; balls reach to the nearest other feature of number `neighbours`. Memory beside the features and a
/// copy of them on the device is bounded, whatever the sets' sizes.
///
/// # Errors
/// When dimensions differ, the reference has no more images than `neighbours`, there are no samples, or libtorch refuses.
pub fn density_coverage(
    reference: FeatureRows<'_>,
    samples: FeatureRows<'_>,
    neighbours: usize,
    device: Device,
) -> Result<DensityCoverage, ModelError> {
    in_blocks([reference, samples], neighbours, device, BLOCK_ROWS)
}

fn in_blocks(
    [reference, samples]: [FeatureRows<'_>; 2],
    neighbours: usize,
    device: Device,
    block_rows: i64,
) -> Result<DensityCoverage, ModelError> {
    reference.same_dimensions(&samples)?;
    reference.at_least(neighbours + 1, "one more than the neighbours of a ball")?;
    samples.at_least(1, "for density and coverage")?;
    let _no_grad = tch::no_grad_guard();
    let pairs_for_density = (neighbours.max(1) * samples.rows()) as f64;
    let (reference, samples) =
        (Vectors::new(reference, device, block_rows)?, Vectors::new(samples, device, block_rows)?);
    let radii = reference.radii(neighbours as i64 + 1)?;
    let mut pairs = Tensor::f_zeros([], (Kind::Int64, device.torch()))?;
    let mut covered = Vec::new();
    for rows in reference.blocks() {
        let radii = radii.f_narrow(0, rows.start, rows.len)?.f_unsqueeze(1)?;
        let mut block = Tensor::f_zeros([rows.len], (Kind::Bool, device.torch()))?;
        for columns in samples.blocks() {
            let inside = reference.distances(rows, &samples, columns)?.f_lt_tensor(&radii)?;
            pairs = pairs.f_add(&inside.f_sum(Kind::Int64)?)?;
            block = block.f_logical_or(&inside.f_any_dim(1, false)?)?;
        }
        covered.push(block);
    }
    let covered = Tensor::f_cat(&covered, 0)?.f_mean(Kind::Double)?;
    let pairs = pairs.f_to_kind(Kind::Double)?;
    let read = Vec::<f64>::try_from(Tensor::f_stack(&[pairs, covered], 0)?.f_to_device(tch::Device::Cpu)?)?;
    Ok(DensityCoverage { density: read[0] / pairs_for_density, coverage: read[1] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::test_features::rows;
    use schemas::RandomStream;

    const DIMENSIONS: usize = 4;
    const NEIGHBOURS: usize = 5;

    fn vectors(name: &str, rows: usize, spread: f32) -> Vec<f32> {
        RandomStream::new(7, name, 0).uniforms(rows * DIMENSIONS).into_iter().map(|value| spread * value).collect()
    }

    fn found(reference: &[f32], samples: &[f32], block_rows: i64) -> DensityCoverage {
        let sets = [reference, samples].map(|values| rows(values, DIMENSIONS));
        in_blocks(sets, NEIGHBOURS, Device::Cpu, block_rows).expect("computed")
    }

    #[test]
    fn both_are_those_of_the_definition_however_the_sets_are_cut() {
        let (reference, samples) = (vectors("reference", 90, 1.0), vectors("samples", 60, 0.8));
        let distance = |left: &[f32], right: &[f32]| -> f64 {
            left.iter().zip(right).map(|(left, right)| f64::from(left - right).powi(2)).sum()
        };
        let (mut pairs, mut covered) = (0, 0);
        for centre in reference.chunks(DIMENSIONS) {
            let mut others: Vec<f64> = reference.chunks(DIMENSIONS).map(|other| distance(centre, other)).collect();
            others.sort_by(f64::total_cmp);
            let inside = samples.chunks(DIMENSIONS).filter(|sample| distance(centre, sample) < others[NEIGHBOURS]);
            let inside = inside.count();
            pairs += inside;
            covered += usize::from(inside > 0);
        }
        let expected =
            DensityCoverage { density: pairs as f64 / (NEIGHBOURS * 60) as f64, coverage: covered as f64 / 90.0 };
        assert!(expected.coverage < 1.0 && expected.density > 0.1, "something to tell apart: {expected:?}");
        for block_rows in [1, 7, 64, 4096] {
            assert_eq!(found(&reference, &samples, block_rows), expected, "blocks of {block_rows}");
        }
    }

    #[test]
    fn a_set_covers_itself_once_and_nothing_far_away_does() {
        let near = vectors("near", 40, 1.0);
        assert_eq!(found(&near, &near, 4096), DensityCoverage { density: 1.0, coverage: 1.0 });
        // Twice the same samples lie in the same balls.
        let twice = [near.as_slice(), &near].concat();
        assert_eq!(found(&near, &twice, 4096), DensityCoverage { density: 1.0, coverage: 1.0 });
        let far = vec![100.0; 40 * DIMENSIONS];
        assert_eq!(found(&near, &far, 4096), DensityCoverage { density: 0.0, coverage: 0.0 });
    }
}
