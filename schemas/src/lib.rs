//! What the data is: every type that passes between crates, and no engine.
//!
//! | Crosses | Type |
//! |---|---|
//! | pixels to a tokenizer, and back from a decoder | [`PixelBatch`] |
//! | samples to a generator, and how it draws them | [`SampleBatch`], [`Sampling`] with its [`Guidance`] |
//! | codes from a tokenizer | [`TokenBatch`], divided by [`TokenLevels`] |
//! | how much of the codebook is used | [`CodebookStatistics`], a [`CodebookUse`] a level |
//! | what a run will do | [`Plan`] of [`PlannedInput`]s under [`PlanSettings`] with their [`Origin`], named by its [`PlanHash`] |
//! | rows of the two tables | [`TokenRows`] in [`token_schema`], [`ImageRow`]s in [`image_schema`] |
//! | what a file says of its making | [`Provenance`] |
//! | what is random, from a seed | [`RandomStream`] |
//! | how a set is scored, what networks say of images, and the line of scores | [`Protocol`], [`ScoredBatch`] and [`ScoredUnit`], [`EvaluationRecord`] |
//! | what a stored reference says of its making | [`ReferenceProvenance`] |
//! | what became of a unit, of an output | [`UnitReport`] and [`Manifest`] with their [`RowCounts`] |
//!
//! Nothing here opens a file or runs a network: a type either holds what it says or cannot be built.

mod codebook_statistics;
mod crop;
mod error;
mod evaluation;
mod image_id;
mod image_table;
mod origin;
mod output_paths;
mod packed_list;
mod pixel_batch;
mod plan;
mod plan_hash;
mod provenance;
mod random_stream;
mod reject_reason;
mod sample_batch;
mod sampling;
mod source_account;
mod source_layout;
mod source_reading;
mod token_batch;
mod token_levels;
mod token_table;
mod unit_report;

pub use codebook_statistics::{CodebookStatistics, CodebookUse};
pub use crop::Crop;
pub use error::SchemaError;
pub use evaluation::{
    ConfidenceInterval, Deviation, DeviationKind, Estimate, EvaluationRecord, ImageMeasures, Protocol,
    ReferenceProvenance, ScoreDifference, ScoreDirection, ScoreIntervals, ScoreKind, ScoredBatch, ScoredImages,
    ScoredRow, ScoredUnit, Scores,
};
pub use image_id::ImageIdRule;
pub use image_table::{ImageRow, STATUS_OK, image_record_batch, image_rows, image_schema};
pub use origin::{
    GeneratorIdentity, ImageOrigin, Origin, PictureFormat, Pictures, Rounding, SampleOrigin, TokenOrigin,
};
pub use output_paths::{
    MANIFEST_PATH, NPZ_PATH, PICTURES_PREFIX, PLAN_OWNER_PATH, SCORES_CSV_PATH, SCORES_PREFIX, SUCCESS_PATH,
    features_path, features_prefix, heartbeat_prefix, images_path, is_output_path, lease_path, lease_prefix,
    left_out_path, log_prefix, marker_path, marker_prefix, parse_lease_path, picture_name, picture_path, plan_path,
    scores_path, tokens_path, unit_pictures_path,
};
pub use packed_list::PackedList;
pub use pixel_batch::PixelBatch;
pub use plan::{Plan, PlanBuilder, PlanSettings, PlannedInput, SCHEMA_VERSION, TokenizerIdentity};
pub use plan_hash::{PlanHash, hex, sha256_hex};
pub use provenance::{
    KEY_CODEBOOK_SIZE, KEY_DEVICE_KIND, KEY_LEVEL_OFFSETS, KEY_PLAN, KEY_SCHEMA_VERSION, KEY_UNIT, Provenance,
    WRITER_KEYS, WriterInfo, read_key, read_levels,
};
pub use random_stream::RandomStream;
pub use reject_reason::RejectReason;
pub use sample_batch::SampleBatch;
pub use sampling::{Guidance, GuidanceSchedule, Sampling};
pub use source_account::{LeftOut, LeftOutReason, SourceAccount};
pub use source_layout::SourceLayout;
pub use source_reading::{ColumnNames, ImageExtensions, LabelSource, SourceReading};
pub use token_batch::{TokenBatch, check_codebook_size};
pub use token_levels::TokenLevels;
pub use token_table::{TokenColumns, TokenRows, token_schema};
pub use unit_report::{FileRecord, Manifest, RowCounts, UnitReport, from_json, to_json};
