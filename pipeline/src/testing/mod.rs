//! Stand-ins for what a machine may not have, faults on purpose, and waiting that ends. For tests only (feature `testing`).

mod fake_encoder;
mod fake_generator;
mod fake_scorer;
mod fault_store;
mod hostile;
mod patience;
mod plan_settings;

pub use fake_encoder::{FakeEncoder, Gate};
pub use fake_generator::{FakeDecoder, FakeSampler};
pub use fake_scorer::FakeScorer;
pub use fault_store::{Fault, FaultRule, FaultStore, Operation};
pub use hostile::{fuzz, read_or_refused};
pub use patience::{PATIENCE, arrives, returns, wait_until, wait_until_async};
pub use plan_settings::plan_settings;
