//! What sets of images score.
//!
//! How well images are reconstructed: the measures of the published evaluation (evaluator/evaluator.py), by themselves in training's
//! validation ([`ReconstructionMeter`]) and with the networks that scoring looks through ([`ReconstructionScorer`]). How near a set is
//! to another one: features of the Inception network, distances between their distributions, the inception score, precision and
//! recall, density and coverage, kernel and Monge distances; how varied it is, and what in it is a copy. Confidence intervals of these.

mod authenticity;
mod bootstrap;
mod codebook_use;
mod density_coverage;
mod feature_distribution;
mod feature_rows;
mod feature_statistics;
mod frechet_distance;
mod frechet_infinity;
mod frechet_influences;
mod image_comparison;
mod inception;
mod inception_score;
mod inception_score_influences;
mod kernel_distance;
mod manifold_intervals;
mod monge_distance;
mod ms_ssim;
mod nearest_images;
mod neighbours;
mod precision_recall;
mod psnr;
mod reconstruction;
mod reconstruction_scorer;
mod ssim;
mod token_prediction;
mod vendi_score;

pub use authenticity::authenticity_percent;
pub use bootstrap::Resampling;
pub use density_coverage::{DensityCoverage, density_coverage};
pub use feature_distribution::FeatureDistribution;
pub use feature_rows::FeatureRows;
pub use feature_statistics::FeatureStatistics;
pub use frechet_distance::frechet_distance;
pub use frechet_infinity::{FrechetInfinity, FrechetInfinityOptions, frechet_infinity};
pub use frechet_influences::frechet_influences;
pub use image_comparison::{ImageComparison, LpipsFiles};
pub use inception::{ExtractorPrecision, Inception, InceptionHead};
pub use inception_score::{InceptionScore, InceptionScores};
pub use inception_score_influences::inception_score_influences;
pub use kernel_distance::{KernelDistance, KernelDistanceOptions, kernel_distance};
pub use manifold_intervals::{ManifoldIntervals, ManifoldNeighbours, manifold_intervals};
pub use monge_distance::{MongeDistanceOptions, monge_distance};
pub use nearest_images::{NearImage, nearest_images};
pub use precision_recall::{PrecisionRecall, precision_recall};
pub use reconstruction::{ReconstructionMeter, ReconstructionScores};
pub use reconstruction_scorer::ReconstructionScorer;
pub use token_prediction::{LevelScores, TokenMeter, TokenScores};
pub use vendi_score::vendi_score;

#[cfg(test)]
mod interval_coverage;
#[cfg(test)]
mod reference_values;
#[cfg(test)]
mod test_features;
#[cfg(test)]
mod test_images;
