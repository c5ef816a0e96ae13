//! Stand-ins for what a machine may not have, and faults on purpose. For tests only (feature `testing`).

mod fake_encoder;
mod fake_generator;
mod fake_scorer;
mod fault_store;

pub use fake_encoder::{FakeEncoder, Gate};
pub use fake_generator::{FakeDecoder, FakeSampler};
pub use fake_scorer::FakeScorer;
pub use fault_store::{Fault, FaultRule, FaultStore, Operation};
