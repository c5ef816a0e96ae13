//! Scoring: under which protocol, what a network says of an image, and the line that comes of it all.

mod protocol;
mod record;
mod reference;
mod scored_images;

pub use protocol::{Deviation, DeviationKind, Protocol};
pub use record::{EvaluationRecord, Scores};
pub use reference::ReferenceProvenance;
pub use scored_images::{ImageMeasures, ScoredBatch, ScoredImages, ScoredRow, ScoredUnit};
