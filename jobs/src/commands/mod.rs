//! One file a command: each is a function from its settings to a report.

mod class_list;
pub(crate) mod compare;
pub(crate) mod doctor;
pub(crate) mod evaluate;
pub(crate) mod finalize;
pub(crate) mod generate;
pub(crate) mod inspect;
pub(crate) mod reconstruct;
pub(crate) mod report;
mod run_report;
pub(crate) mod submit;
pub(crate) mod sweep;
pub(crate) mod tokenize;
pub(crate) mod train_generator;
pub(crate) mod train_tokenizer;
pub(crate) mod verify;
pub(crate) mod watch;
