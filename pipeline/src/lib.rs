//! How images become rows: storage, sources, decoding, crops, batches, device workers, tables and commits. Never torch.
//!
//! # The way of an image
//! ```text
//!  list_source ─▶ plan_units ─▶ Plan ─▶ claim_output                         once a run
//!
//!  ┌─ a unit: an ordered pipeline of its own; `units_in_flight` of them at once ─────────────────────────────────┐
//!  │  SourceReader ──▶ decode_image, crop_views ──▶ batches ──▶ queue ──▶ device threads ──▶ codes ──▶ rows       │
//!  │  fetch_requests   decode_threads               batch_size  queued_batches_per_device              │          │
//!  │  fetch_buffer_    decode_ahead_images          (views)                                            ▼          │
//!  │  bytes                                                                     tokens, images, marker: Storage   │
//!  └──────────────────────────────────────────────────────────────────────────────────────────────────────────────┘
//!
//!  every marker there ─▶ finalize ─▶ _manifest.json, _SUCCESS                    any process, any number of times
//! ```
//! | Room for | Bounded by | Shared by all units |
//! |---|---|---|
//! | requests in flight | [`Limits::fetch_requests`] | yes |
//! | encoded bytes | [`Limits::fetch_buffer_bytes`] | yes |
//! | pixels being decoded | [`Limits::decode_threads`] times [`Limits::max_image_pixels`] | yes |
//! | decoded views | [`Limits::decode_ahead_images`] images | no: times [`Limits::units_in_flight`] |
//! | batches | [`Limits::queued_batches_per_device`], and one for each device and unit | yes |
//! | rows | a unit: some 300 bytes a view, until it is committed; some 16 KB an image that is scored | no: times [`Limits::units_in_flight`] |
//!
//! Nothing in this table grows with the set. Two things do: the plan, some 20 bytes an input, and what a run remembers of finished units, a few kilobytes each.
//!
//! Training reads the same sources through the same stages of fetching, decoding and cropping, but in another order and without
//! end: [`TrainingImages`] gives shuffled batches, [`ValidationImages`] one pass in order. A generator trains on what was
//! written: [`TokenTables`] opens finished outputs by their manifests, [`TrainingTokens`] gives shuffled batches of their codes and
//! labels, one view an image and epoch, and [`ValidationTokens`] their first images in order.
//!
//! Scoring works the same way, without a plan: an [`ImageSet`] is frozen and divided, [`score()`] puts one file a unit, and
//! [`ScoredTables`] gives them back in order. [`read_reference`] and [`write_reference`] handle what a set is compared with,
//! [`write_scores`] and [`read_scores`] the lines that come of it.
//!
//! # Why nothing deadlocks
//! Follow the waiting from the end: a device waits for the queue alone and answers into a channel of its own for each batch, so
//! the queue always empties. A full queue makes units wait, and while a unit waits, its decoding goes on: a job of the pool
//! waits for nothing, and gives back the bytes of its image when it is done. Fetching takes requests and bytes in plan order
//! and never asks for more while it holds some for an image that somebody needs first. So whoever waits, waits for something
//! that is moving.
//!
//! # Why nothing is lost, written twice, or half there
//! Names come from the plan, every put is create-only and whole, and the marker comes last. A process may die between any two
//! requests, on any number of machines: whoever goes on finds either a marker, and believes it, or no marker, and does the
//! unit again; equal bytes that are there already are success. Rows stand in plan order and no clock, rank or host name is in
//! a file, so doing it again gives the same bytes.
//!
//! # What ends a run
//! One image's fault never does: it is a reject with a reason, a row of the images table, and counted. A [`PipelineError`] does,
//! and says whether starting again may help. A panic on any thread is raised again in the caller of [`tokenize`].
//! When nothing moves for [`Limits::stall_seconds`], the run ends and says where each stage stands.

mod background_task;
mod commit;
mod cpu_pool;
mod crop;
mod decode;
mod device_worker;
mod error;
mod evaluation;
mod image_set;
mod limits;
mod network;
mod npz;
mod parquet_batches;
mod plan_units;
mod prefetcher;
mod run;
mod samples;
mod source;
mod storage;
mod table_reader;
mod tables;
mod telemetry;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod training_images;
mod training_tokens;
mod unique_ids;
mod units;
mod view_batcher;
mod watchdog;

pub use commit::{
    Finding, VerifyOptions, VerifyReport, claim_output, done_units, finalize, nothing_there, read_markers, read_plan,
    verify,
};
pub use crop::{RandomCrop, crop_views};
pub use decode::{DecodeFailure, DecodeLimits, RgbImage, decode_image};
pub use error::PipelineError;
pub use evaluation::{
    FeatureMoments, NewReference, Reference, ReferenceWritten, ScoreRun, ScoreRunReport, ScoredTables, ScoresWritten,
    read_reference, read_scores, score, write_reference, write_scores,
};
pub use image_set::{ImageSet, ImageSetOptions};
pub use limits::Limits;
pub use network::{
    BatchNetwork, DecoderFactory, DeviceError, EncoderFactory, NetworkFactory, SamplerFactory, ScorerFactory,
};
pub use npz::{NpzEncoder, NpzShape, npz_size};
pub use plan_units::plan_units;
pub use run::{
    CodeSource, GenerateRun, Run, RunReport, TokenizeRun, decoder_versions, generate, planned_images, tokenize,
};
pub use samples::{
    AssembledNpz, SampleImage, SampleRows, assemble_npz, encode_png, encode_sample_parquet, encode_sample_tar,
    read_sample_parquet,
};
pub use source::{
    FetchPermit, ListedInput, Reached, SourceImage, SourceImages, SourceListing, SourceOptions, SourceReader,
    list_source, list_storage, reach,
};
pub use storage::{PutOutcome, PutStreamOutcome, Storage, StoredObject, without_secrets};
pub use table_reader::TableReader;
pub use tables::TableFile;
pub use telemetry::{InStage, Snapshot, Stage, StageSnapshot, Telemetry};
pub use training_images::{
    DataPosition, TrainingBatch, TrainingCrop, TrainingImages, TrainingImagesOptions, ValidationImages,
    ValidationImagesOptions,
};
pub use training_tokens::{
    TokenEvaluationBatch, TokenTable, TokenTables, TokenTrainingBatch, TrainingTokens, TrainingTokensOptions,
    ValidationTokens, ValidationTokensOptions,
};
pub use units::{EngineEvent, EngineEvents, EngineLink, ProcessRank, RankOrigin, UnitCounts};
