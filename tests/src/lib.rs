//! What the tests across crates share: small image sets, a small tokenizer, stores that fail, and a way to run the program.

pub mod digest;
pub mod hub_server;
pub mod inception;
pub mod kills;
pub mod older;
pub mod random;
pub mod s3_server;
pub mod sample;
pub mod tables;
pub mod tokenizer;
pub mod training;
pub mod workspace;
