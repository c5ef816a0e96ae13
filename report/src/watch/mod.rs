//! A job over many workers, as it stands: what is done, who works on what, and who has fallen silent.
//!
//! [`Watcher`] reads what is new below an output, markers and heartbeats, and [`Look`] makes plain values of it, which are shown as
//! text ([`look_text`]) or as JSON. Nothing is written, and no worker is asked: any number of people may watch from anywhere.

mod look;
mod text;
mod watcher;

pub use look::{Look, SlowUnit, WorkerLook, WorkerState};
pub use text::look_text;
pub use watcher::Watcher;
