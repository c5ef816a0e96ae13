//! Precision and recall of generated images (Kynkäänniemi and others, "Improved Precision and Recall Metric for Assessing Generative
//! Models", 2019), as the ADM evaluator has them: a set's manifold is the balls around its features that reach to the third nearest
//! other one.
//!
//! The evaluator computes distances in float16 where they fit, to save memory on the cards of its day. float32 is used here: squared
//! distances of some hundreds are only good to a few tenths in float16, and which vectors lie in a ball then depends on the rounding.

use crate::{Device, ModelError, layers::full_float32_product};
use schemas::SchemaError;
use tch::{Kind, Tensor};

/// Rows of either side whose distances are there at once: 64 MB in float32.
const BLOCK_ROWS: i64 = 4096;

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
        of.blocks()
            .map(|block| Tensor::f_zeros([block.len], (Kind::Bool, device.torch())))
            .collect::<Result<Vec<_>, _>>()
    };
    let (mut found, mut covered) = (outside(&samples)?, outside(&reference)?);
    for (row, rows) in reference.blocks().enumerate() {
        for (column, columns) in samples.blocks().enumerate() {
            let distances = reference.distances(rows, &samples, columns)?;
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
        return Err(wrong(
            "features for precision and recall",
            "radii that are no numbers",
            "finite numbers".to_owned(),
        ));
    }
    Ok(PrecisionRecall { precision: read[0], recall: read[1] })
}

/// Some consecutive rows.
#[derive(Clone, Copy, Debug)]
struct Block {
    start: i64,
    len: i64,
}

/// A set's features and the balls around them.
#[derive(Debug)]
struct Manifold {
    /// float32 `[N, D]`.
    features: Tensor,
    /// Squared lengths, `[N]`.
    squares: Tensor,
    /// Squared radii, `[N]`.
    radii: Tensor,
    block_rows: i64,
}

impl Manifold {
    fn new(
        what: &'static str,
        features: &[f32],
        [dimensions, neighbours]: [usize; 2],
        device: Device,
        block_rows: i64,
    ) -> Result<Self, ModelError> {
        if features.len().checked_rem(dimensions) != Some(0) {
            return Err(wrong(what, features.len(), format!("rows of {dimensions}")));
        }
        let rows = features.len() / dimensions;
        if rows <= neighbours {
            return Err(wrong(
                what,
                format!("{rows} rows"),
                format!("more than {neighbours}, the neighbours of a ball"),
            ));
        }
        let features = Tensor::f_from_slice(features)?.f_view([rows as i64, dimensions as i64])?;
        let features = features.f_to_device(device.torch())?;
        let squares = features.f_square()?.f_sum_dim_intlist([1_i64].as_slice(), false, None)?;
        let radii = squares.f_empty_like()?;
        let mut manifold = Self { features, squares, radii, block_rows };
        manifold.radii = manifold.find_radii(neighbours as i64 + 1)?;
        Ok(manifold)
    }

    fn blocks(&self) -> impl Iterator<Item = Block> + use<> {
        let rows = self.squares.size().first().copied().unwrap_or(0);
        let most = self.block_rows;
        (0..rows).step_by(most as usize).map(move |start| Block { start, len: most.min(rows - start) })
    }

    /// Squared distances between rows of the two, at least 0: `[rows, columns]`.
    fn distances(&self, rows: Block, other: &Self, columns: Block) -> Result<Tensor, ModelError> {
        let part = |of: &Tensor, block: Block| of.f_narrow(0, block.start, block.len);
        let (left, right) = (part(&self.features, rows)?, part(&other.features, columns)?.f_transpose(0, 1)?);
        let mut products = full_float32_product(&left, &right)?;
        let lengths =
            part(&self.squares, rows)?.f_unsqueeze(1)?.f_add(&part(&other.squares, columns)?.f_unsqueeze(0)?)?;
        Ok(lengths.f_sub(&products.f_mul_scalar_(2.0)?)?.f_clamp_min_(0.0)?)
    }

    /// The squared distance of each row to the nearest of number `nearest`, itself included, `[N]`. Two blocks meet once: the distances
    /// of one to the other are those of the other to the one.
    fn find_radii(&self, nearest: i64) -> Result<Tensor, ModelError> {
        let blocks: Vec<Block> = self.blocks().collect();
        // The least distances so far, [rows, up to `nearest`].
        let mut least: Vec<Option<Tensor>> = blocks.iter().map(|_| None).collect();
        let mut keep = |index: usize, distances: &Tensor| -> Result<(), ModelError> {
            let smallest = |distances: &Tensor| -> Result<Tensor, ModelError> {
                let (_, columns) = distances.size2()?;
                Ok(distances.f_topk(nearest.min(columns), 1, false, true)?.0)
            };
            let new = smallest(distances)?;
            least[index] = Some(match least[index].take() {
                None => new,
                Some(known) => smallest(&Tensor::f_cat(&[known, new], 1)?)?,
            });
            Ok(())
        };
        for (row, &rows) in blocks.iter().enumerate() {
            for (column, &columns) in blocks.iter().enumerate().skip(row) {
                let distances = self.distances(rows, self, columns)?;
                keep(row, &distances)?;
                if column != row {
                    keep(column, &distances.f_transpose(0, 1)?)?;
                }
            }
        }
        let radii =
            least.iter().flatten().map(|least| least.f_select(1, nearest - 1)).collect::<Result<Vec<_>, _>>()?;
        Ok(Tensor::f_cat(&radii, 0)?)
    }
}

fn wrong(what: &'static str, found: impl ToString, expected: String) -> ModelError {
    ModelError::Data(SchemaError::Shape { what, found: found.to_string(), expected })
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
}
