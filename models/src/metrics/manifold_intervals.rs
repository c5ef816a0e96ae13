//! Intervals of the scores that count nearest neighbours: precision, recall, density and coverage.
//!
//! Precision and density are means over the samples, for one reference: their intervals are the bootstrap's, and hold for other samples
//! against this reference. Recall and coverage are of the reference, and depend on how near the samples lie to one another. Images that are
//! drawn twice are each other's nearest neighbours at distance 0, so the bootstrap does not work on them (Abadie and Imbens, "On the
//! Failure of the Bootstrap for Matching Estimators", 2008). Half of the images of both sets are drawn instead, without putting any back:
//! with half of either, as many neighbours make a ball that holds as many images, and the scores are about what they were. A
//! half-sample deviates from the whole about as the whole does from what it was drawn from (McCarthy, "Pseudo-replication: half
//! samples", 1969), and rather more: intervals of recall are too wide by up to two fifths. Those of coverage are too narrow towards 1 where
//! all but a hundredth is covered, and hold the truth 88 times in 100 then (reference_values/interval_simulations.py).
//!
//! Distances are computed once. Of each image the nearest few others are kept, and of pairs across the sets those as near as that; every
//! half-sample is counted from them.

use super::{
    bootstrap::Resampling,
    feature_rows::FeatureRows,
    neighbours::{BLOCK_ROWS, Vectors},
};
use crate::{Device, ModelError};
use schemas::ConfidenceInterval;
use tch::Tensor;

/// Neighbours that are kept of each image, over the most that make a ball. Of 40, fewer than 5 are in a half once in ten million times;
/// the ball then ends at the last that was kept.
const KEPT: usize = 8;

/// Neighbours that make the balls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManifoldNeighbours {
    /// Of precision and recall.
    pub precision_recall: usize,
    /// Of density and coverage.
    pub density_coverage: usize,
}

/// An interval for each score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ManifoldIntervals {
    /// Of precision.
    pub precision: ConfidenceInterval,
    /// Of recall.
    pub recall: ConfidenceInterval,
    /// Of density.
    pub density: ConfidenceInterval,
    /// Of coverage.
    pub coverage: ConfidenceInterval,
}

/// Intervals: of precision and density for other samples against this reference, of recall and coverage for other sets of these sizes.
/// Memory beside that of the scores: 12 bytes for a near pair, some 40 pairs an image where the sets are alike, and up to all pairs where
/// one set lies in the balls of the other.
///
/// # Errors
/// When dimensions differ, half of a set has no more images than a ball's neighbours, or libtorch refuses.
pub fn manifold_intervals(
    reference: FeatureRows<'_>,
    samples: FeatureRows<'_>,
    neighbours: ManifoldNeighbours,
    resampling: &Resampling,
    device: Device,
) -> Result<ManifoldIntervals, ModelError> {
    let pairs = NearPairs::find([reference, samples], neighbours, device, BLOCK_ROWS)?;
    let whole = pairs.counted(&vec![true; reference.rows()], &vec![true; samples.rows()]);
    let halves = (0..resampling.resamples()).map(|resample| {
        let half = |rows: usize, purpose| {
            let mut kept = vec![false; rows];
            let chosen = resampling.stream(purpose, resample).choose(rows / 2, rows);
            chosen.into_iter().for_each(|place| kept[place] = true);
            kept
        };
        let (reference, samples) =
            (half(reference.rows(), "half of the reference"), half(samples.rows(), "half of the samples"));
        let half = pairs.counted(&reference, &samples);
        (half.recall(), half.coverage())
    });
    let (recalls, coverages): (Vec<f64>, Vec<f64>) = halves.unzip();
    let within = |found: ConfidenceInterval| ConfidenceInterval::try_new(found.lower.max(0.0), found.upper.min(1.0));
    let of_halves = |score: f64, halves: Vec<f64>| -> Result<ConfidenceInterval, ModelError> {
        let mean = halves.iter().sum::<f64>() / halves.len() as f64;
        Ok(within(resampling.around(score, halves.into_iter().map(|half| half - mean).collect())?)?)
    };
    let inside: Vec<f64> = whole.is_inside.iter().map(|is| f64::from(*is)).collect();
    let balls: Vec<f64> = whole.balls.iter().map(|balls| f64::from(*balls) / whole.neighbours).collect();
    Ok(ManifoldIntervals {
        precision: within(resampling.of_mean("precision", whole.precision(), &inside)?)?,
        recall: of_halves(whole.recall(), recalls)?,
        density: resampling.of_mean("density", whole.density(), &balls)?,
        coverage: of_halves(whole.coverage(), coverages)?,
    })
}

/// The nearest others of every image of a set, nearest first.
#[derive(Debug)]
struct NearOthers {
    count: usize,
    /// Squared, `count` for each image.
    distances: Vec<f32>,
    places: Vec<i64>,
}

/// An image of the reference and a sample.
#[derive(Clone, Copy, Debug)]
struct NearPair {
    reference: u32,
    sample: u32,
    /// Squared.
    distance: f32,
}

/// All that half-samples are counted from.
#[derive(Debug)]
struct NearPairs {
    neighbours: ManifoldNeighbours,
    reference: NearOthers,
    samples: NearOthers,
    across: Vec<NearPair>,
}

impl NearOthers {
    fn find(vectors: &Vectors, count: usize) -> Result<(Self, Tensor), ModelError> {
        let nearest = vectors.nearest_others(count as i64)?;
        let furthest = nearest.distances.f_select(1, count as i64 - 1)?;
        let others = Self {
            count,
            distances: Vec::try_from(nearest.distances.f_reshape([-1])?.f_to_device(tch::Device::Cpu)?)?,
            places: Vec::try_from(nearest.places.f_reshape([-1])?.f_to_device(tch::Device::Cpu)?)?,
        };
        Ok((others, furthest))
    }

    /// The squared distance of each image that is kept to the nearest other of number `nearest` that is.
    fn radii(&self, kept: &[bool], nearest: usize) -> Vec<f32> {
        let radius = |(distances, places): (&[f32], &[i64])| {
            let mut near = distances.iter().zip(places).filter(|(_, place)| kept[**place as usize]);
            near.nth(nearest.saturating_sub(1)).map(|(distance, _)| *distance)
        };
        let lists = self.distances.chunks(self.count).zip(self.places.chunks(self.count));
        lists.map(|list| radius(list).or_else(|| list.0.last().copied()).unwrap_or(0.0)).collect()
    }
}

impl NearPairs {
    fn find(
        [reference, samples]: [FeatureRows<'_>; 2],
        neighbours: ManifoldNeighbours,
        device: Device,
        block_rows: i64,
    ) -> Result<Self, ModelError> {
        reference.same_dimensions(&samples)?;
        let most = neighbours.precision_recall.max(neighbours.density_coverage).max(1);
        for rows in [&reference, &samples] {
            rows.at_least(2 * (most + 1), "so that half of them has more than the neighbours of a ball")?;
        }
        let _no_grad = tch::no_grad_guard();
        let kept = |rows: usize| (KEPT * most).min(rows - 1);
        let counts = [kept(reference.rows()), kept(samples.rows())];
        let (reference, samples) =
            (Vectors::new(reference, device, block_rows)?, Vectors::new(samples, device, block_rows)?);
        let (reference_others, reference_furthest) = NearOthers::find(&reference, counts[0])?;
        let (sample_others, sample_furthest) = NearOthers::find(&samples, counts[1])?;
        let mut across = Vec::new();
        for rows in reference.blocks() {
            for columns in samples.blocks() {
                let distances = reference.distances(rows, &samples, columns)?;
                let furthest = reference_furthest.f_narrow(0, rows.start, rows.len)?.f_unsqueeze(1)?;
                let furthest =
                    furthest.f_maximum(&sample_furthest.f_narrow(0, columns.start, columns.len)?.f_unsqueeze(0)?)?;
                let near = distances.f_le_tensor(&furthest)?;
                let on_cpu = |tensor: Tensor| tensor.f_to_device(tch::Device::Cpu);
                let at = Vec::<i64>::try_from(on_cpu(near.f_nonzero()?.f_reshape([-1])?)?)?;
                let distances = Vec::<f32>::try_from(on_cpu(distances.f_masked_select(&near)?)?)?;
                across.extend(at.as_chunks::<2>().0.iter().zip(distances).map(|(&[row, column], distance)| NearPair {
                    reference: (rows.start + row) as u32,
                    sample: (columns.start + column) as u32,
                    distance,
                }));
            }
        }
        Ok(Self { neighbours, reference: reference_others, samples: sample_others, across })
    }

    /// What the images that are kept come to.
    fn counted(&self, reference: &[bool], samples: &[bool]) -> Counted {
        let ManifoldNeighbours { precision_recall, density_coverage } = self.neighbours;
        let balls = self.reference.radii(reference, precision_recall);
        let sample_balls = self.samples.radii(samples, precision_recall);
        let density_balls = self.reference.radii(reference, density_coverage);
        let count = |of: &[bool]| of.iter().filter(|is| **is).count() as f64;
        let mut counted = Counted {
            references: count(reference),
            samples: count(samples),
            neighbours: density_coverage.max(1) as f64,
            is_inside: vec![false; samples.len()],
            is_recalled: vec![false; reference.len()],
            balls: vec![0; samples.len()],
            is_covered: vec![false; reference.len()],
        };
        for pair in &self.across {
            let (row, column) = (pair.reference as usize, pair.sample as usize);
            if !reference[row] || !samples[column] {
                continue;
            }
            counted.is_inside[column] |= pair.distance <= balls[row];
            counted.is_recalled[row] |= pair.distance <= sample_balls[column];
            if pair.distance < density_balls[row] {
                counted.is_covered[row] = true;
                counted.balls[column] += 1;
            }
        }
        counted
    }
}

/// What some images of both sets come to.
#[derive(Debug)]
struct Counted {
    references: f64,
    samples: f64,
    /// That make the balls of density.
    neighbours: f64,
    /// Of each sample.
    is_inside: Vec<bool>,
    /// Of each image of the reference.
    is_recalled: Vec<bool>,
    /// Balls that each sample lies in.
    balls: Vec<u32>,
    /// Of each image of the reference.
    is_covered: Vec<bool>,
}

impl Counted {
    fn precision(&self) -> f64 {
        share(&self.is_inside, self.samples)
    }

    fn recall(&self) -> f64 {
        share(&self.is_recalled, self.references)
    }

    fn density(&self) -> f64 {
        self.balls.iter().map(|balls| f64::from(*balls)).sum::<f64>() / (self.neighbours * self.samples)
    }

    fn coverage(&self) -> f64 {
        share(&self.is_covered, self.references)
    }
}

fn share(of: &[bool], all: f64) -> f64 {
    of.iter().filter(|is| **is).count() as f64 / all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        density_coverage,
        metrics::{interval_coverage, test_features::rows},
        precision_recall,
    };
    use schemas::RandomStream;

    const DIMENSIONS: usize = 2;
    const NEIGHBOURS: ManifoldNeighbours = ManifoldNeighbours { precision_recall: 3, density_coverage: 5 };

    fn features(name: &str, [images, dimensions]: [usize; 2], index: u64, spread: f64) -> Vec<f32> {
        let numbers = RandomStream::new(9, name, index).normals(images * dimensions);
        numbers.into_iter().map(|number| (number * spread) as f32).collect()
    }

    fn counted([reference, samples]: [FeatureRows<'_>; 2], block_rows: i64) -> Counted {
        let pairs = NearPairs::find([reference, samples], NEIGHBOURS, Device::Cpu, block_rows).expect("found");
        pairs.counted(&vec![true; reference.rows()], &vec![true; samples.rows()])
    }

    #[test]
    fn counted_from_near_pairs_whole_sets_score_as_they_do() {
        let reference = features("reference", [130, DIMENSIONS], 0, 1.0);
        let samples = features("samples", [170, DIMENSIONS], 0, 0.6);
        let manifold = precision_recall(&reference, &samples, DIMENSIONS, 3, Device::Cpu).expect("computed");
        let sets = [rows(&reference, DIMENSIONS), rows(&samples, DIMENSIONS)];
        let balls = density_coverage(sets[0], sets[1], 5, Device::Cpu).expect("computed");
        let expected = [manifold.precision, manifold.recall, balls.density, balls.coverage];
        assert!(expected.iter().all(|score| *score > 0.2 && *score != 1.0), "something to tell apart: {expected:?}");
        for block_rows in [13, 4096] {
            let found = counted(sets, block_rows);
            let found = [found.precision(), found.recall(), found.density(), found.coverage()];
            let same = found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-12);
            assert!(same, "blocks of {block_rows}: {found:?} and {expected:?}");
        }
    }

    /// Scores and intervals of sets that are drawn anew; of the reference, as often as it changes.
    fn runs(shape: [usize; 2], spread: f64, reference: fn(u64) -> u64) -> Vec<(Counted, ManifoldIntervals)> {
        let resampling = Resampling::try_new(0.95, 200, 0).expect("settings");
        let run = |index| {
            let (real, made) =
                (features("reference", shape, reference(index), 1.0), features("samples", shape, index, spread));
            let sets = [rows(&real, shape[1]), rows(&made, shape[1])];
            let found = manifold_intervals(sets[0], sets[1], NEIGHBOURS, &resampling, Device::Cpu).expect("bounds");
            (counted(sets, 4096), found)
        };
        (0..300).map(run).collect()
    }

    #[test]
    fn intervals_of_95_percent_hold_the_truth_of_a_reference_that_often() {
        let runs = runs([300, DIMENSIONS], 1.3, |_| 0);
        let precision: Vec<_> = runs.iter().map(|(scores, found)| (scores.precision(), found.precision)).collect();
        interval_coverage::check("precision", &precision);
        let density: Vec<_> = runs.iter().map(|(scores, found)| (scores.density(), found.density)).collect();
        interval_coverage::check("density", &density);
    }

    #[test]
    fn intervals_of_95_percent_hold_the_coverage_of_other_sets_that_often() {
        let runs = runs([160, DIMENSIONS], 0.7, |index| index);
        let coverage: Vec<_> = runs.iter().map(|(scores, found)| (scores.coverage(), found.coverage)).collect();
        interval_coverage::check("coverage", &coverage);
    }

    #[test]
    fn intervals_of_95_percent_hold_the_recall_of_other_sets_that_often() {
        let runs = runs([160, 16], 0.9, |index| index);
        let recall: Vec<_> = runs.iter().map(|(scores, found)| (scores.recall(), found.recall)).collect();
        interval_coverage::check("recall", &recall);
    }

    #[test]
    fn halves_without_enough_neighbours_are_refused() {
        let (few, many) = (features("few", [11, DIMENSIONS], 0, 1.0), features("many", [40, DIMENSIONS], 0, 1.0));
        let resampling = Resampling::try_new(0.9, 100, 0).expect("settings");
        let error =
            manifold_intervals(rows(&many, DIMENSIONS), rows(&few, DIMENSIONS), NEIGHBOURS, &resampling, Device::Cpu);
        let error = error.expect_err("refused").to_string();
        assert!(error.contains("found 11 rows, expected at least 12"), "{error}");
    }
}
