//! How well images are rebuilt: the measures of the published evaluation (evaluator/evaluator.py) that need no network.

mod codebook_use;
mod psnr;
mod reconstruction;
mod ssim;

pub use reconstruction::{ReconstructionMeter, ReconstructionScores};

#[cfg(test)]
mod test_images;
