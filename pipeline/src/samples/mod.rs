//! Generated images as files: what a set of samples is handed on in.
//!
//! | Form | Made | Read by |
//! |---|---|---|
//! | PNG files | [`encode_png`], one object an image at [`schemas::picture_path`] | everything; metrics that want a flat folder |
//! | Parquet of PNG bytes | [`encode_sample_parquet`], a file a unit | Hugging Face `datasets`, our source reader, [`read_sample_parquet`] |
//! | WebDataset | [`encode_sample_tar`], a shard a unit | `webdataset`, `tar`, our source reader |
//! | evaluation archive | [`assemble_npz()`], from the Parquet files of all units | `numpy.load`, the published evaluator |
//!
//! The same images give the same bytes in each: no clock, no host, fixed settings of every writer.

mod assemble_npz;
mod png;
mod sample_parquet;
mod sample_tar;

pub use assemble_npz::{AssembledNpz, assemble_npz};
pub use png::encode_png;
pub use sample_parquet::{SampleRows, encode_sample_parquet, read_sample_parquet};
pub use sample_tar::encode_sample_tar;

use bytes::Bytes;
use schemas::SchemaError;

/// A generated image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleImage {
    /// Number of the sample in its set, from 0.
    pub sample: u64,
    /// Class it was drawn for.
    pub label: i32,
    /// Its file.
    pub png: Bytes,
}

/// The label of an image that has none, as Hugging Face writes it.
pub(crate) const NO_LABEL: i32 = -1;

/// The name of a class; `None` for [`NO_LABEL`].
///
/// # Errors
/// When it has none.
fn class_name(names: &[String], label: i32) -> Result<Option<&str>, SchemaError> {
    let name = usize::try_from(label).ok().and_then(|label| names.get(label));
    if name.is_none() && label != NO_LABEL {
        let expected = format!("one of {} classes", names.len());
        return Err(SchemaError::Shape { what: "label", found: label.to_string(), expected });
    }
    Ok(name.map(String::as_str))
}
