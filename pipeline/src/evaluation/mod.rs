//! Scoring: the images of a set go through a network, unit by unit, and the features of each are kept until all are there.
//!
//! ```text
//!  ImageSet::open ─▶ units                                                      once a set
//!
//!  ┌─ a unit ────────────────────────────────────────────────────────────────────────────────────────────┐
//!  │  images ──▶ decode, crop ──▶ batches ──▶ queue ──▶ scorers ──▶ features/<key>/part-00007.parquet    │
//!  └─────────────────────────────────────────────────────────────────────────────────────────────────────┘
//!
//!  every file there ─▶ ScoredTables::read, unit by unit, in order ─▶ EvaluationRecord ─▶ write_scores
//! ```
//! The set is frozen and divided like a plan, and a unit has one file, put create-only: present means done. So scoring goes on where a
//! killed process left it, any number of processes share it, and whoever comes last sums up. The key under which files lie must follow
//! from everything that decides their numbers: the set's [`crate::ImageSet::digest`], the size of a unit and of a batch, and the networks.
//!
//! A reference to compare with is an archive in the form of the field ([`read_reference`], [`write_reference()`]); the lines of all
//! evaluations of an output are a table of their own ([`write_scores`], [`read_scores`]).

mod reference;
mod score;
mod score_units;
mod scored_file;
mod scored_rows;
mod scored_tables;
mod scores;
mod scores_table;
mod write_reference;

pub use reference::{FeatureMoments, Reference, read_reference};
pub use score::{ScoreRun, ScoreRunReport, score};
pub use scored_tables::ScoredTables;
pub use scores::{ScoresWritten, read_scores, write_scores};
pub use write_reference::{NewReference, ReferenceWritten, write_reference};
