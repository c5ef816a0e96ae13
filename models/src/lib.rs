//! What the networks compute: the ResTok tokenizer and the generator of its tokens, over libtorch. No I/O engine; weights come from a
//! local folder.
//!
//! The doors, in the order in which a process uses them:
//!
//! 1. [`initialise`] resolves the devices that were asked for and loads CUDA if one of them needs it. It must be the first
//!    thing that touches torch, because torch remembers what it found.
//! 2. [`VisualTokenizer::load`] reads a published folder, strictly.
//! 3. [`VisualTokenizer::encode`] and [`VisualTokenizer::decode`] turn [`schemas::PixelBatch`] into [`schemas::TokenBatch`]
//!    and back. A tokenizer is `Send` but not `Sync`: one OS thread owns it, and tensors never cross its walls.
//! 4. [`Generator::load`] reads a generator in the same way, and [`Generator::sample`] turns [`schemas::SampleBatch`], numbers and
//!    classes, into [`schemas::TokenBatch`].
//!
//! 5. [`Inception::load`] and [`Inception::features`] turn images into the features that sets are scored by; [`ReconstructionScorer`]
//!    does so for images and what a tokenizer reconstructs of them, and compares the two.
//! 6. [`FeatureStatistics`], [`frechet_distance`], [`InceptionScore`] and [`precision_recall`] turn features into scores.
//!
//! [`TokenizerTrainer`] and [`GeneratorTrainer`] train the two: a step takes batches, and its losses stay on the device until they are
//! read.
//!
//! Inside, tensors are named by their axes: B images, N tokens, C channels, H heads, D channels of a head, L latent tokens, n tokens of a step.
//! Every operation that can fail in libtorch is called in its fallible form, so that running out of memory is a
//! [`ModelError`] and no panic.

mod checkpoint_kind;
mod config_kind;
mod device;
mod error;
#[cfg(test)]
mod fixtures;
mod foundation;
mod generator;
mod kernels;
mod layers;
mod loaded_model;
mod losses;
pub mod measuring;
mod memory;
mod metrics;
mod model_folder;
mod parameters;
mod precision;
mod process_group;
mod shared_library;
mod sizes;
mod tf32;
mod torch_switches;
mod training;
mod visual_tokenizer;
mod weight_file;

pub use device::{Device, DeviceChoice, initialise, libtorch_folder, libtorch_version, machine};
pub use error::{ModelError, TensorProblem};
pub use generator::{Generator, GeneratorConfig, GeneratorData};
pub use kernels::{FusedKernelsReport, fused_kernels_report, use_fused_kernels};
pub use loaded_model::{LoadOptions, LoadedModel};
pub use memory::{BatchMemory, memory_limit};
pub use metrics::{
    DensityCoverage, ExtractorPrecision, FeatureDistribution, FeatureRows, FeatureStatistics, FrechetInfinity,
    FrechetInfinityOptions, ImageComparison, Inception, InceptionHead, InceptionScore, InceptionScores, KernelDistance,
    KernelDistanceOptions, LevelScores, LpipsFiles, ManifoldIntervals, ManifoldNeighbours, MongeDistanceOptions,
    NearImage, PrecisionRecall, ReconstructionMeter, ReconstructionScorer, ReconstructionScores, Resampling,
    TokenMeter, TokenScores, authenticity_percent, density_coverage, frechet_distance, frechet_infinity,
    frechet_influences, inception_score_influences, kernel_distance, manifold_intervals, monge_distance,
    nearest_images, precision_recall, vendi_score,
};
pub use precision::Precision;
pub use process_group::{ProcessGroup, Rendezvous, StoreServer};
pub use sizes::{GeneratorSize, TokenizerSize, TransformerSize};
pub use tf32::can_share_a_device;
pub use training::{
    AdamWOptions, CosineSchedule, DiscriminatorKind, FrozenFiles, GeneratorPreset, GeneratorRecipe, GeneratorTrainer,
    ReconstructionKind, StepReport, TokenizerPreset, TokenizerRecipe, TokenizerTrainer, Trainer,
};
pub use visual_tokenizer::{
    EncoderStages, Quantized, TokenizerConfig, TokenizerOperations, VisualTokenizer,
    config::{Architecture, ImageInput},
};
pub use weight_file::{pickle_conversion_command, shards_of_index};
