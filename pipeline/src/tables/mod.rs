//! The two tables as Parquet bytes, and back.
//!
//! A file is made in memory and put whole: a unit's tokens are a few megabytes, and a single conditional put is the only
//! write that is atomic on every store.

mod decode;
mod encode;

pub(crate) use decode::{decode_images, decode_tokens, visit_tokens};
pub(crate) use encode::{encode_images, encode_tokens};

use std::collections::BTreeMap;

/// One file of a table, read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableFile<T> {
    /// The unit it holds.
    pub unit: u32,
    /// Its path below the output.
    pub path: String,
    /// Its own account of its making: the `restok.*` keys of its metadata.
    pub metadata: BTreeMap<String, String>,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its rows, in order.
    pub rows: T,
}
