//! What the commands that train have in common: how a run is watched.

mod metrics_table;
pub(crate) mod run_folder;
pub(crate) mod run_loop;
pub(crate) mod sheet;
mod tensorboard;
pub(crate) mod watch;
