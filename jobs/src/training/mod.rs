//! What the commands that train have in common: the loop, the run folder, and how a run is watched.

pub(crate) mod driver;
pub(crate) mod launch;
mod metrics_table;
pub(crate) mod run_folder;
pub(crate) mod run_loop;
pub(crate) mod session;
pub(crate) mod sheet;
mod tensorboard;
pub(crate) mod trained_on;
pub(crate) mod watch;
