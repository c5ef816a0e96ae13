//! From rows to tables that are whole or absent, and the checks of what is there.
//!
//! | State of a unit | On the store | After a restart |
//! |---|---|---|
//! | not begun, or killed before its first put | nothing | done |
//! | killed between puts | tokens, perhaps images | done again; equal bytes are there already |
//! | complete | tokens, images, marker | skipped |
//!
//! | State of an output | On the store |
//! |---|---|
//! | claimed | the plan, then `_plan/owner.json`: only runs of this plan may write |
//! | all units complete | every marker |
//! | finished | `_manifest.json`, then `_SUCCESS` |
//!
//! Every put is create-only and names come from the plan, so any number of processes may be in any of these states at once.

mod claim;
mod finalize;
mod markers;
mod table_check;
mod unit_commit;
mod unit_rows;
mod verify;

pub use claim::{claim_output, nothing_there, read_plan};
pub(crate) use claim::{owning_plan, put_left_out, read_left_out};
pub use finalize::finalize;
pub(crate) use finalize::{check_row_counts, finalize_units};
pub use markers::{done_units, read_markers};
pub(crate) use unit_commit::{Committed, UnitCommit};
pub(crate) use unit_rows::{PictureFile, UnitRows, row_counts_of};
pub use verify::{Finding, VerifyOptions, VerifyReport, verify};
