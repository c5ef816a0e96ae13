//! What sets of images score.
//!
//! How well images are reconstructed: the measures of the published evaluation (evaluator/evaluator.py), by themselves in training's
//! validation ([`ReconstructionMeter`]) and with the networks that scoring looks through ([`ReconstructionScorer`]). How near a set is
//! to another one: features of the Inception network, distances between their distributions, the inception score, precision and
//! recall.

mod codebook_use;
mod feature_distribution;
mod feature_statistics;
mod frechet_distance;
mod image_comparison;
mod inception;
mod inception_score;
mod ms_ssim;
mod precision_recall;
mod psnr;
mod reconstruction;
mod reconstruction_scorer;
mod ssim;
mod token_prediction;

pub use feature_distribution::FeatureDistribution;
pub use feature_statistics::FeatureStatistics;
pub use frechet_distance::frechet_distance;
pub use image_comparison::{ImageComparison, LpipsFiles};
pub use inception::{ExtractorPrecision, Inception, InceptionHead};
pub use inception_score::{InceptionScore, InceptionScores};
pub use precision_recall::{PrecisionRecall, precision_recall};
pub use reconstruction::{ReconstructionMeter, ReconstructionScores};
pub use reconstruction_scorer::ReconstructionScorer;
pub use token_prediction::{LevelScores, TokenMeter, TokenScores};

#[cfg(test)]
mod reference_values;
#[cfg(test)]
mod test_images;
