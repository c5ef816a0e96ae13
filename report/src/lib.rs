//! What is said of outputs: the page of `restok report`, what `restok inspect`, `restok watch` and `restok compare` print, the logs of runs.
//! No torch.
//!
//! ```text
//! addresses ── gather: read what is there ──▶ subjects ── sections, charts: show it ──▶ page: one file of HTML
//! ```
//! Reading and showing are apart: what is read are plain values, and the page is a function of them. It holds no clock of its own, so
//! that the same outputs give the same bytes; no script, so that nothing in it can fail; and no address that a browser would fetch.

mod album;
mod charts;
pub mod comparison;
mod gather;
mod inspection;
pub mod output_text;
mod page;
pub mod run_log;
pub mod score_difference;
mod score_lines;
mod sections;
mod settings_list;
pub mod text;
pub mod watch;

pub use album::Album;
pub use gather::{Subject, gather, gather_scores};
pub use inspection::{Inspection, inspect, inspection_text};
pub use page::page;
pub use score_lines::{ScoreColumn, columns as score_columns};
