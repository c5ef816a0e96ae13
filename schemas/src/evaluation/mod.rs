//! Scoring: under which protocol, what a network says of an image, and the line that comes of it all.

mod interval;
mod protocol;
mod record;
mod reference;
mod score_kind;
mod scored_images;

pub use interval::{ConfidenceInterval, Estimate, ScoreDifference};
pub use protocol::{Deviation, DeviationKind, Protocol};
pub use record::{EvaluationRecord, ScoreIntervals, Scores};
pub use reference::ReferenceProvenance;
pub use score_kind::{ScoreDirection, ScoreKind};
pub use scored_images::{ImageMeasures, ScoredBatch, ScoredImages, ScoredRow, ScoredUnit};
