//! How well images are rebuilt: the measures of the published evaluation (evaluator/evaluator.py) that need no network.

mod codebook_use;
mod psnr;
mod reconstruction;
mod ssim;
mod token_prediction;

pub use reconstruction::{ReconstructionMeter, ReconstructionScores};
pub use token_prediction::{LevelScores, TokenMeter, TokenScores};

#[cfg(test)]
mod test_images;
