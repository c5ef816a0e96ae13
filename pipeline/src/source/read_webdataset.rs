//! Tar shards: members that share a key lie next to each other and are one sample.
//!
//! The key is a member's path up to the first dot of its name. Of a sample, the member with an image's extension is the image,
//! `.cls` its label as a number in ASCII, and `.json` may hold `filename` (which the key is then made from), `label` (where there is
//! no `.cls`) and `class_name`. Other members are passed over. A sample with a label and no image is listed as
//! unreadable; one with neither is no sample. Samples are counted as rows, from 0.

use super::{
    FetchLimits, FetchPermit, PinnedObject, Shared, SourceImage, SourceImages, is_image, object_chunks::ObjectChunks,
    spawn, stream_of_task, tar_bytes,
};
use crate::{PipelineError, storage::Storage};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use schemas::{ImageIdRule, PlannedInput, RejectReason};
use serde::Deserialize;
use std::{collections::HashSet, io, ops::Range, sync::Arc};
use tar_bytes::{TarProgress, tar_bytes};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::mpsc,
};
use tokio_tar::{Archive, Entry};

/// Labels and JSON members larger than this are none.
const MOST_TEXT_BYTES: u64 = 1 << 20;

/// Reads one shard.
pub(super) fn read(shared: Arc<Shared>, input: PlannedInput) -> SourceImages {
    // One image waits while the next is read; more would only hold bytes.
    let (sender, receiver) = mpsc::channel(1);
    let task = spawn(async move {
        let object = PinnedObject::of_input(&shared.storage, &input)?;
        read_shard(&shared, object, input.rows, sender).await
    });
    stream_of_task(task, receiver)
}

/// Counts the samples of a shard, at most `limit`, reading no further than that.
///
/// # Errors
/// As reading them.
pub(super) async fn count_samples(
    storage: &Storage,
    object: PinnedObject,
    fetch: FetchLimits,
    limit: u64,
) -> Result<u64, PipelineError> {
    // With this limit every image is too large to be read.
    let (image_id, class_names, max_image_bytes) = (ImageIdRule::Stem, Vec::new(), 0);
    let shared = Shared { storage: storage.clone(), fetch, image_id, class_names, max_image_bytes };
    let (sender, receiver) = mpsc::channel(1);
    let task = spawn(async move { read_shard(&shared, object, None, sender).await });
    let mut images = stream_of_task(task, receiver);
    let mut count = 0;
    while count < limit && images.try_next().await?.is_some() {
        count += 1;
    }
    Ok(count)
}

/// A sample on its way through the tar.
#[derive(Debug, Default)]
struct Sample {
    key: String,
    image: Option<ImageMember>,
    label: Option<i32>,
    json: SampleJson,
}

/// The member of a sample that is its image.
#[derive(Debug)]
struct ImageMember {
    path: String,
    size: u64,
    bytes: Result<Bytes, (RejectReason, String)>,
    permit: FetchPermit,
}

/// What we read of a sample's JSON member.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SampleJson {
    filename: Option<String>,
    label: Option<i64>,
    class_name: Option<String>,
}

async fn read_shard(
    shared: &Shared,
    object: PinnedObject,
    planned_rows: Option<Range<u64>>,
    sender: mpsc::Sender<SourceImage>,
) -> Result<(), PipelineError> {
    let chunks = ObjectChunks::new(object.clone(), shared.fetch.clone(), 0);
    let (reader, progress) = tar_bytes(chunks);
    let mut shard = Shard { shared, object: &object, progress: &progress, row: 0, member: String::new() };
    let mut archive = Archive::new(reader);
    let mut entries = archive.entries().map_err(|error| shard.broken(error))?;
    let rows = planned_rows.clone().unwrap_or(0..u64::MAX);
    let mut seen: HashSet<String> = HashSet::new();
    let mut sample = Sample::default();
    while let Some(entry) = entries.next().await {
        let mut entry = entry.map_err(|error| shard.broken(error))?;
        let path = String::from_utf8_lossy(&entry.path_bytes().map_err(|error| shard.broken(error))?).into_owned();
        shard.member.clone_from(&path);
        if !entry.header().entry_type().is_file() && !entry.header().entry_type().is_contiguous() {
            continue;
        }
        let Some((key, extension)) = split_member(&path) else { continue };
        if key != sample.key {
            if let Some(image) = shard.finish(sample, &rows)?
                && sender.send(image).await.is_err()
            {
                return Ok(());
            }
            if shard.row >= rows.end {
                return Ok(());
            }
            if !seen.insert(key.to_owned()) {
                return Err(shard.wrong(
                    "it lies apart from the other members of its sample; members of one key must be neighbours",
                ));
            }
            sample = Sample { key: key.to_owned(), ..Sample::default() };
        }
        let size = entry.effective_size();
        if is_image(&extension) {
            if let Some(ImageMember { path: other, .. }) = &sample.image {
                return Err(shard.wrong(&format!("a second image beside {other}: it is not clear which is meant")));
            }
            // Rows in front of ours are only counted.
            let wanted = rows.contains(&shard.row);
            let (bytes, permit) = match shared.check_size(size) {
                Ok(()) if wanted => {
                    let permit = shared.fetch.hold(size).await;
                    (Ok(shard.member_bytes(&mut entry, size).await?), permit)
                }
                Ok(()) => (Ok(Bytes::new()), FetchPermit::none()),
                Err(rejected) => (Err(rejected), FetchPermit::none()),
            };
            sample.image = Some(ImageMember { path, size, bytes, permit });
        } else if extension == "cls" || extension == "json" {
            if size > MOST_TEXT_BYTES {
                return Err(shard.wrong(&format!("{size} bytes are too many for a label")));
            }
            let bytes = shard.member_bytes(&mut entry, size).await?;
            if extension == "cls" {
                let text = String::from_utf8_lossy(&bytes);
                let label = text.trim().parse::<i32>();
                sample.label =
                    Some(label.map_err(|_| shard.wrong(&format!("expected a label, found {:?}", text.trim())))?);
            } else {
                sample.json = serde_json::from_slice(&bytes).map_err(|error| shard.wrong(&error.to_string()))?;
            }
        }
    }
    progress
        .check_end(object.size())
        .map_err(|problem| PipelineError::Source { uri: object.uri().to_owned(), problem })?;
    if let Some(image) = shard.finish(sample, &rows)?
        && sender.send(image).await.is_err()
    {
        return Ok(());
    }
    if planned_rows.is_some() && shard.row < rows.end {
        let problem = format!("it has {} samples, planned {}", shard.row, rows.end);
        return Err(PipelineError::Source { uri: object.uri().to_owned(), problem });
    }
    Ok(())
}

/// Where reading a shard stands.
struct Shard<'a> {
    shared: &'a Shared,
    object: &'a PinnedObject,
    progress: &'a TarProgress,
    row: u64,
    member: String,
}

impl Shard<'_> {
    async fn member_bytes<R: AsyncRead + Unpin>(
        &self,
        entry: &mut Entry<R>,
        size: u64,
    ) -> Result<Bytes, PipelineError> {
        // Checked against the plan's limit or ours before; a header cannot make us allocate more.
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        entry.read_to_end(&mut bytes).await.map_err(|error| self.broken(error))?;
        if bytes.len() as u64 != size {
            return Err(self.wrong(&format!("it ends after {} of {size} bytes", bytes.len())));
        }
        Ok(bytes.into())
    }

    /// Ends a sample: an image of one of the wanted rows, if it is that.
    fn finish(&mut self, sample: Sample, rows: &Range<u64>) -> Result<Option<SourceImage>, PipelineError> {
        let Sample { key, image, label, json } = sample;
        let json_label = json.label.map(i32::try_from).transpose();
        let label = match label {
            Some(label) => Some(label),
            None => json_label.map_err(|_| self.wrong("the label is outside of 32 bits"))?,
        };
        if image.is_none() && label.is_none() {
            return Ok(None);
        }
        let row = self.row;
        self.row += 1;
        if !rows.contains(&row) {
            return Ok(None);
        }
        let ImageMember { path: member, size, bytes, permit } = image.unwrap_or_else(|| {
            let missing = (RejectReason::Unreadable, "the sample has a label and no image".to_owned());
            ImageMember { path: format!("{key}.jpg"), size: 0, bytes: Err(missing), permit: FetchPermit::none() }
        });
        // Negative labels stand for "unknown", as in the test sets of the hub.
        let label = label.filter(|&label| label >= 0);
        let name = format!("{}/{}", self.object.stem(), json.filename.as_deref().unwrap_or(&member));
        Ok(Some(SourceImage {
            image_id: self.shared.image_id.image_id(&name),
            source: format!("{}#{member}", self.object.uri()),
            label,
            class_name: json.class_name.or_else(|| self.shared.class_name(label)),
            size,
            bytes,
            permit,
        }))
    }

    fn wrong(&self, problem: &str) -> PipelineError {
        PipelineError::Source { uri: format!("{}#{}", self.object.uri(), self.member), problem: problem.to_owned() }
    }

    /// A tar that does not read: what the store said of its bytes, or where the archive breaks.
    fn broken(&self, error: io::Error) -> PipelineError {
        if let Some(error) = self.progress.take_failure() {
            return error;
        }
        let at = if self.member.is_empty() { "its first member".to_owned() } else { format!("member {}", self.member) };
        // The library's errors give their cause apart.
        let cause =
            error.get_ref().and_then(|inner| inner.source()).map(|cause| format!(" ({cause})")).unwrap_or_default();
        PipelineError::Source {
            uri: self.object.uri().to_owned(),
            problem: format!(
                "the tar breaks at byte {} of {}, at or behind {at}: {error}{cause}",
                self.progress.position(),
                self.object.size()
            ),
        }
    }
}

/// A member's key and its extension in lower case; `None` for hidden members and those without an extension.
fn split_member(path: &str) -> Option<(&str, String)> {
    let path = path.strip_prefix("./").unwrap_or(path);
    let name_starts = path.rfind('/').map_or(0, |slash| slash + 1);
    let dot = path[name_starts..].find('.').filter(|&dot| dot > 0)?;
    let key = &path[..name_starts + dot];
    Some((key, path[name_starts + dot + 1..].to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_ends_at_the_first_dot_of_the_name() {
        for (path, expected) in [
            ("n01440764_10026.JPEG", Some(("n01440764_10026", "jpeg"))),
            ("./a.b/c.seg.png", Some(("a.b/c", "seg.png"))),
            ("a/.hidden", None),
            ("README", None),
        ] {
            let found = split_member(path);
            assert_eq!(found.as_ref().map(|(key, extension)| (*key, extension.as_str())), expected, "{path}");
        }
    }
}
