//! Units of work, as tokenizing, generating and scoring share them.
//!
//! A job says how one unit is made and how it is stored (a [`UnitTask`]); [`run_units`] does that for many of them. Units whose
//! rows come from images read, decode and batch them through [`ImageStages`].

mod driver;
mod engine;
mod image_stages;
mod leases;
mod process_rank;
mod queue;
mod unit_ranges;

pub(crate) use driver::{UnitContext, UnitError, UnitTask, run_units};
pub use engine::{EngineEvent, EngineEvents, EngineLink, UnitCounts};
pub(crate) use image_stages::{DecodedImage, ImageStages, ImageUnit, Rejection};
pub use process_rank::{ProcessRank, RankOrigin};
pub(crate) use queue::{UnitQueue, UnitsToDo};
pub(crate) use unit_ranges::describe_units;
