//! Samples as a WebDataset shard: for each one an image, its label and a few words.

use super::SampleImage;
use crate::PipelineError;
use bytes::{BufMut, Bytes, BytesMut};
use schemas::SchemaError;
use serde::Serialize;
use tokio_tar::{EntryType, Header};

/// Bytes of a header, and what members are padded to.
const BLOCK_BYTES: usize = 512;

/// Blocks of zeros that end a tar.
const END_BLOCKS: usize = 2;

/// The `.json` member, in the order in which it is written. Our source reader takes label and class name from it.
#[derive(Serialize)]
struct SampleJson<'a> {
    sample: u64,
    label: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    class_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
}

/// A shard of `<sample, eight digits>.png`, `.cls` (the label in ASCII) and `.json` for each sample, in the order given.
///
/// `class_names`, by label, and the `seed` of the set go into the `.json` where they are known; `uri` is for errors.
///
/// # Errors
/// When a label has no name among those given, or a sample is larger than a tar's header can say (8 GiB).
pub fn encode_sample_tar(
    samples: &[SampleImage],
    class_names: Option<&[String]>,
    seed: Option<u64>,
    uri: &str,
) -> Result<Bytes, PipelineError> {
    let size: usize = samples.iter().map(|sample| sample.png.len() + 6 * BLOCK_BYTES).sum();
    let mut tar = BytesMut::with_capacity(size + END_BLOCKS * BLOCK_BYTES);
    for &SampleImage { sample, label, ref png } in samples {
        let class_name = class_names.map(|names| super::class_name(names, label)).transpose()?.flatten();
        let json = serde_json::to_vec(&SampleJson { sample, label, class_name, seed }).map_err(|error| {
            SchemaError::Document { document: format!("{sample:08}.json"), problem: error.to_string() }
        })?;
        for (extension, bytes) in [("png", &png[..]), ("cls", label.to_string().as_bytes()), ("json", &json)] {
            put_member(&mut tar, &format!("{sample:08}.{extension}"), bytes)
                .map_err(|problem| PipelineError::Output { uri: uri.to_owned(), problem })?;
        }
    }
    tar.put_bytes(0, END_BLOCKS * BLOCK_BYTES);
    Ok(tar.freeze())
}

/// Header, bytes and padding. Owner, group and time are zero: they would say who ran it and when.
fn put_member(tar: &mut BytesMut, name: &str, bytes: &[u8]) -> Result<(), String> {
    /// One more than the eleven octal digits of a header hold.
    const TOO_LARGE: u64 = 8 << 30;
    let size = bytes.len() as u64;
    if size >= TOO_LARGE {
        return Err(format!("{name} is {size} bytes, a tar's member is below {TOO_LARGE}"));
    }
    let mut header = Header::new_ustar();
    header.set_path(name).map_err(|error| format!("{name}: {error}"))?;
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    tar.put_slice(header.as_bytes());
    tar.put_slice(bytes);
    tar.put_bytes(0, bytes.len().next_multiple_of(BLOCK_BYTES) - bytes.len());
    Ok(())
}
