//! The line of the scores table: numbers with everything that made them.

use super::{ConfidenceInterval, Protocol};
use crate::SchemaError;
use serde::{Deserialize, Serialize};

/// What was measured. Absent is what the protocol does not have, or what nothing was given for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Fréchet distance of pool features.
    pub fid: Option<f64>,
    /// Fréchet distance of spatial features.
    pub sfid: Option<f64>,
    /// Inception score.
    pub inception_score: Option<f64>,
    /// Fraction of samples within the reference's manifold.
    pub precision: Option<f64>,
    /// Fraction of the reference within the samples' manifold.
    pub recall: Option<f64>,
    /// Kernel distance of pool features: the mean over subsets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kid: Option<f64>,
    /// Standard deviation of the kernel distances of subsets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kid_deviation: Option<f64>,
    /// Monge distance of pool features.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mind: Option<f64>,
    /// Balls around the reference that a sample lies in, over the neighbours that made a ball.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub density: Option<f64>,
    /// Fraction of the reference in whose ball a sample lies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coverage: Option<f64>,
    /// Fréchet distance of pool features, extrapolated to infinitely many images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fid_infinity: Option<f64>,
    /// Vendi score of pool features.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendi_score: Option<f64>,
    /// Samples that are no copies, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authpct: Option<f64>,
    /// Confidence intervals, where they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intervals: Option<ScoreIntervals>,
    /// Mean peak signal-to-noise ratio in decibels.
    pub psnr: Option<f64>,
    /// Mean structural similarity.
    pub ssim: Option<f64>,
    /// Mean structural similarity over five scales.
    pub ms_ssim: Option<f64>,
    /// Mean learned perceptual distance (AlexNet).
    pub lpips: Option<f64>,
    /// Codes of the codebook that occur.
    pub codes_used: Option<u64>,
    /// Entropy of the codes in bits.
    pub entropy_bits: Option<f64>,
    /// The same for each level, coarsest first; empty where nothing was encoded.
    #[serde(default)]
    pub codes_used_by_level: Vec<u64>,
    /// Likewise.
    #[serde(default)]
    pub entropy_bits_by_level: Vec<f64>,
}

/// Confidence intervals of scores. Absent is what has no score, or no interval.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScoreIntervals {
    /// The confidence of all, in percent.
    pub confidence: f64,
    /// Of the Fréchet distance of pool features.
    pub fid: Option<ConfidenceInterval>,
    /// Of the Fréchet distance of spatial features.
    pub sfid: Option<ConfidenceInterval>,
    /// Of the inception score.
    pub inception_score: Option<ConfidenceInterval>,
    /// Of the kernel distance.
    pub kid: Option<ConfidenceInterval>,
    /// Of precision.
    pub precision: Option<ConfidenceInterval>,
    /// Of recall.
    pub recall: Option<ConfidenceInterval>,
    /// Of density.
    pub density: Option<ConfidenceInterval>,
    /// Of coverage.
    pub coverage: Option<ConfidenceInterval>,
}

impl Scores {
    /// Holds every score to be a number.
    ///
    /// # Errors
    /// Names the first that is infinite or none.
    pub fn check(&self) -> Result<(), SchemaError> {
        let Self { fid, sfid, inception_score, precision, recall, psnr, ssim, ms_ssim, lpips, .. } = self;
        let Self { kid, kid_deviation, mind, density, coverage, fid_infinity, vendi_score, authpct, .. } = self;
        let single = [
            ("fid", fid),
            ("sfid", sfid),
            ("inception_score", inception_score),
            ("precision", precision),
            ("recall", recall),
            ("kid", kid),
            ("kid_deviation", kid_deviation),
            ("mind", mind),
            ("density", density),
            ("coverage", coverage),
            ("fid_infinity", fid_infinity),
            ("vendi_score", vendi_score),
            ("authpct", authpct),
            ("psnr", psnr),
            ("ssim", ssim),
            ("ms_ssim", ms_ssim),
            ("lpips", lpips),
            ("entropy_bits", &self.entropy_bits),
        ];
        let single = single.into_iter().filter_map(|(name, score)| Some((name, (*score)?)));
        let levels = self.entropy_bits_by_level.iter().map(|&bits| ("entropy_bits_by_level", bits));
        match single.chain(levels).find(|(_, score)| !score.is_finite()) {
            Some((what, score)) => {
                Err(SchemaError::Shape { what, found: score.to_string(), expected: "a number".to_owned() })
            }
            None => Ok(()),
        }
    }
}

/// A line of the scores table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvaluationRecord {
    /// Names this evaluation: the beginning of a digest of all that its lines say, numbers included.
    pub evaluation: String,
    /// The protocol.
    pub protocol: Protocol,
    /// How it was not kept, as [`super::Deviation`] says it; empty where it was.
    #[serde(default)]
    pub deviations: Vec<String>,
    /// Where the images are, without credentials.
    pub source: String,
    /// Digest of the frozen list of the set's files.
    pub source_digest: String,
    /// Images that were scored.
    pub images: u64,
    /// Their height in pixels.
    pub height: u64,
    /// Their width in pixels.
    pub width: u64,
    /// Only so many images were taken of the source, from the first on; absent for all.
    pub max_images: Option<u64>,
    /// How they were cropped; absent for images as they are.
    pub crop: Option<String>,
    /// Tokens that they were reconstructed from; absent where nothing was reconstructed.
    pub kept_tokens: Option<u16>,
    /// The tokenizer, where it is known.
    pub tokenizer: Option<String>,
    /// SHA-256 of its configuration and weights.
    pub tokenizer_sha256: Option<String>,
    /// Codes of its codebook.
    pub codebook_size: Option<u64>,
    /// The generator, where it is known.
    pub generator: Option<String>,
    /// SHA-256 of its configuration and weights.
    pub generator_sha256: Option<String>,
    /// Full scale of guidance.
    pub guidance: Option<f64>,
    /// Schedule of guidance.
    pub guidance_schedule: Option<String>,
    /// Fraction of the likeliest codes.
    pub top_p: Option<f64>,
    /// Number of the likeliest codes; 0 for all.
    pub top_k: Option<u64>,
    /// Temperature of sampling.
    pub temperature: Option<f64>,
    /// Seed of sampling.
    pub seed: Option<u64>,
    /// Number of classes that were drawn.
    pub classes: Option<u64>,
    /// Everything of the sampling as JSON, the numbers of its schedule included.
    pub sampling: Option<String>,
    /// Arithmetic of the networks that made the images: `fp32`, `tf32`, `bf16` or `fp16`.
    pub network_precision: Option<String>,
    /// Arithmetic of the decoder, where pictures were decoded from tokens.
    pub decoder_precision: Option<String>,
    /// What the set is compared with: an address, or what it is.
    pub reference: Option<String>,
    /// SHA-256 of its file, or of the list of its files.
    pub reference_sha256: Option<String>,
    /// Images that its statistics are of, where it says so.
    pub reference_images: Option<u64>,
    /// SHA-256 of the Inception weights; absent where no extractor ran.
    pub extractor_sha256: Option<String>,
    /// Arithmetic of the extractor: `float32` or `float64`.
    pub extractor_precision: Option<String>,
    /// SHA-256 of AlexNet and of the layers of LPIPS, with a `+` between; absent without LPIPS.
    pub lpips_sha256: Option<String>,
    /// Scores that were asked for by name, and the numbers and the seed of what is drawn, as JSON; absent where nothing beyond the
    /// protocol's own was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score_settings: Option<String>,
    /// Images of a batch of the scoring network.
    #[serde(default)]
    pub batch_size: u64,
    /// Kind of device that looked at the images: `cpu…` or a GPU's name; more with commas.
    pub device_kind: String,
    /// Version of libtorch.
    pub libtorch: String,
    /// Version of this program.
    pub restok: String,
    /// The numbers.
    pub scores: Scores,
}

impl EvaluationRecord {
    /// A line about the images at `source`, of which nothing else is known yet.
    pub fn new(protocol: Protocol, source: impl Into<String>) -> Self {
        Self {
            evaluation: String::new(),
            protocol,
            deviations: Vec::new(),
            source: source.into(),
            source_digest: String::new(),
            images: 0,
            height: 0,
            width: 0,
            max_images: None,
            crop: None,
            kept_tokens: None,
            tokenizer: None,
            tokenizer_sha256: None,
            codebook_size: None,
            generator: None,
            generator_sha256: None,
            guidance: None,
            guidance_schedule: None,
            top_p: None,
            top_k: None,
            temperature: None,
            seed: None,
            classes: None,
            sampling: None,
            network_precision: None,
            decoder_precision: None,
            reference: None,
            reference_sha256: None,
            reference_images: None,
            extractor_sha256: None,
            extractor_precision: None,
            lpips_sha256: None,
            score_settings: None,
            batch_size: 0,
            device_kind: String::new(),
            libtorch: String::new(),
            restok: String::new(),
            scores: Scores::default(),
        }
    }
}
