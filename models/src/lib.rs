//! What the networks compute: the ResTok tokenizer over libtorch. No I/O engine; weights come from a local folder.
//!
//! The doors, in the order in which a process uses them:
//!
//! 1. [`initialise`] resolves the devices that were asked for and loads CUDA if one of them needs it. It must be the first
//!    thing that touches torch, because torch remembers what it found.
//! 2. [`VisualTokenizer::load`] reads a published folder, strictly.
//! 3. [`VisualTokenizer::encode`] and [`VisualTokenizer::decode`] turn [`schemas::PixelBatch`] into [`schemas::TokenBatch`]
//!    and back. A tokenizer is `Send` but not `Sync`: one OS thread owns it, and tensors never cross its walls.
//!
//! Inside, tensors are named by their axes: B images, N tokens, C channels, H heads, D channels of a head, L latent tokens.
//! Every operation that can fail in libtorch is called in its fallible form, so that running out of memory is a
//! [`ModelError`] and no panic.

mod device;
mod error;
mod foundation;
mod layers;
mod losses;
mod metrics;
mod parameters;
mod precision;
mod torch_switches;
mod training;
mod visual_tokenizer;
mod weight_file;

pub use device::{Device, DeviceChoice, initialise, libtorch_version, machine};
pub use error::{ModelError, TensorProblem};
pub use metrics::{ReconstructionMeter, ReconstructionScores};
pub use precision::Precision;
pub use training::{
    AdamWOptions, Adversary, CosineSchedule, FrozenFiles, ReconstructionKind, StepReport, TokenizerPreset,
    TokenizerRecipe, TokenizerTrainer,
};
pub use visual_tokenizer::{
    EncoderStages, LoadOptions, Quantized, TokenizerConfig, VisualTokenizer,
    config::{Architecture, ImageInput, Preset, TransformerSize},
};
pub use weight_file::pickle_conversion_command;
