//! Tar shards: members of one name lie next to each other, and an image takes its label from those beside it.
//!
//! | member | what it is |
//! |---|---|
//! | a name that ends in an image's extension | an image: a row, in the order of the tar |
//! | `<stem>.cls`, `<key>.cls` | its label: a number, or the name of a class |
//! | `<stem>.json`, `<key>.json` | an object that may hold `filename` (which the row's key is then made from), `label` (where there is no `.cls`) and `class_name` |
//! | a link, a device or a sparse member with an image's extension | a row with the reason |
//! | everything else | counted in the account, by reason |
//!
//! A stem ends at the last dot of a name and a key at the first, as WebDataset has it: `a.1.jpg` and `a.2.jpg` are two images, which share
//! `a.cls`. A label without any image of its key is a row that says so. A side file that cannot be read costs the label, not the run.

use super::{
    FetchLimits, FetchPermit, PinnedObject, Shared, SourceImage,
    account::SharedAccount,
    labels::FoundLabel,
    object_chunks::ObjectChunks,
    tar_bytes::{TarProgress, check_rest, tar_bytes},
    tar_member::{MemberName, Role},
};
use crate::{
    PipelineError,
    background_task::{spawn, stream_of_task},
    storage::Storage,
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use schemas::{ImageIdRule, LabelSource, LeftOutReason, PlannedInput, RejectReason, SourceReading};
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io, mem,
    ops::Range,
    sync::Arc,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::mpsc,
};
use tokio_tar::{Archive, Entry};

/// Labels and JSON members larger than this are not read.
const MOST_TEXT_BYTES: u64 = 1 << 20;

/// Reads one shard.
pub(super) fn read(
    shared: Arc<Shared>,
    input: PlannedInput,
    account: SharedAccount,
) -> BoxStream<'static, Result<SourceImage, PipelineError>> {
    // One image waits while the next is read; more would only hold bytes.
    let (sender, receiver) = mpsc::channel(1);
    let task = spawn(async move {
        let object = PinnedObject::of_input(&shared.storage, &input)?;
        read_shard(&shared, object, input.rows, account, sender).await
    });
    stream_of_task(task, receiver)
}

/// Counts the images of a shard, at most `limit`, reading no further than that.
///
/// # Errors
/// As reading them.
pub(super) async fn count_images(
    storage: &Storage,
    object: PinnedObject,
    fetch: FetchLimits,
    reading: &SourceReading,
    limit: u64,
) -> Result<u64, PipelineError> {
    let shared = Shared {
        storage: storage.clone(),
        fetch,
        // Of any names: they are looked at when the images are read.
        image_id: ImageIdRule::Position,
        class_names: Vec::new(),
        // With this limit every image is too large to be read.
        max_image_bytes: 0,
        reading: reading.clone(),
    };
    let (sender, receiver) = mpsc::channel(1);
    let task = spawn(async move { read_shard(&shared, object, None, SharedAccount::default(), sender).await });
    let mut images = stream_of_task(task, receiver);
    let mut count = 0;
    while count < limit && images.try_next().await?.is_some() {
        count += 1;
    }
    Ok(count)
}

/// What the members beside an image say of it.
#[derive(Clone, Debug, Default)]
struct SideFiles {
    cls: FoundLabel,
    json_label: FoundLabel,
    filename: Option<String>,
    class_name: Option<String>,
}

impl SideFiles {
    /// The label: that of `.cls`, else that of `.json`; one that can be read before one that cannot.
    fn label(&self) -> &FoundLabel {
        match (&self.cls, &self.json_label) {
            (FoundLabel::Absent, json) => json,
            (FoundLabel::Unreadable(_), json @ (FoundLabel::Number(_) | FoundLabel::Name(_))) => json,
            (cls, _) => cls,
        }
    }

    fn is_labelled(&self) -> bool {
        *self.label() != FoundLabel::Absent
    }

    fn says_nothing(&self) -> bool {
        !self.is_labelled() && self.filename.is_none() && self.class_name.is_none()
    }

    /// What these say, and where they are silent what those of the whole sample say. The name of one file is not that of several.
    fn or_those_of(self, sample: &Self) -> Self {
        let (cls, json_label) = match self.is_labelled() {
            true => (self.cls, self.json_label),
            false => (sample.cls.clone(), sample.json_label.clone()),
        };
        Self {
            cls,
            json_label,
            filename: self.filename,
            class_name: self.class_name.or_else(|| sample.class_name.clone()),
        }
    }

    /// Adds what another member says.
    fn add(&mut self, found: Self) {
        let Self { cls, json_label, filename, class_name } = found;
        if cls != FoundLabel::Absent {
            self.cls = cls;
        }
        if json_label != FoundLabel::Absent {
            self.json_label = json_label;
        }
        self.filename = filename.or(self.filename.take());
        self.class_name = class_name.or(self.class_name.take());
    }
}

/// An image that waits for the members behind it.
#[derive(Debug)]
struct ImageMember {
    path: String,
    size: u64,
    bytes: Result<Bytes, (RejectReason, String)>,
    permit: FetchPermit,
}

/// Neighbours of one key.
#[derive(Debug, Default)]
struct Sample {
    key: String,
    /// What side files say, by their stems: that of the key itself goes for all images of the sample.
    side: BTreeMap<String, SideFiles>,
    /// The image that waits, and its stem.
    image: Option<(String, ImageMember)>,
    /// Stems of the images that came.
    images: HashSet<String>,
    /// Images that were handed out without a label.
    unlabelled: u64,
    /// Whether members of this key lie in front of others that lie in front of these.
    comes_again: bool,
}

impl Sample {
    fn is_labelled(&self) -> bool {
        self.side.values().any(SideFiles::is_labelled)
    }
}

async fn read_shard(
    shared: &Shared,
    object: PinnedObject,
    planned_rows: Option<Range<u64>>,
    account: SharedAccount,
    sender: mpsc::Sender<SourceImage>,
) -> Result<(), PipelineError> {
    let chunks = ObjectChunks::new(object.clone(), shared.fetch.clone(), 0);
    let (reader, progress) = tar_bytes(chunks);
    let mut shard = Shard {
        shared,
        object: &object,
        progress: &progress,
        account,
        sender,
        rows: planned_rows.clone().unwrap_or(0..u64::MAX),
        row: 0,
        member: String::new(),
        finished: HashMap::new(),
        stems: HashSet::new(),
        sample: Sample::default(),
    };
    let mut archive = Archive::new(reader);
    let mut entries = archive.entries().map_err(|error| shard.broken(error))?;
    while let Some(entry) = entries.next().await {
        let entry = entry.map_err(|error| shard.broken(error))?;
        if !shard.take(entry).await? {
            return Ok(());
        }
    }
    drop(entries);
    progress.check_end().map_err(|problem| shard.in_object(problem))?;
    let Ok(rest) = archive.into_inner() else {
        // Entries are gone, so nobody else has the reader.
        return Err(shard.in_object("what follows the archive cannot be read".to_owned()));
    };
    let checked = check_rest(rest, &progress).await.map_err(|error| shard.broken(error))?;
    checked.map_err(|problem| shard.in_object(problem))?;
    if shard.end_sample(String::new()).await? && planned_rows.is_some() && shard.row < shard.rows.end {
        return Err(shard.in_object(format!("it has {} images, planned {}", shard.row, shard.rows.end)));
    }
    Ok(())
}

/// Where reading a shard stands.
struct Shard<'a> {
    shared: &'a Shared,
    object: &'a PinnedObject,
    progress: &'a TarProgress,
    account: SharedAccount,
    sender: mpsc::Sender<SourceImage>,
    /// Rows that are wanted; those before them are only counted.
    rows: Range<u64>,
    row: u64,
    /// The member that is looked at, for errors.
    member: String,
    /// Keys of the samples behind us, and whether they had labels.
    finished: HashMap<String, bool>,
    /// Stems of all images.
    stems: HashSet<String>,
    sample: Sample,
}

impl Shard<'_> {
    /// Takes the next member. `false` when nobody wants more.
    async fn take<R: AsyncRead + Unpin>(&mut self, mut entry: Entry<R>) -> Result<bool, PipelineError> {
        let (sparse, real_name) = self.sparse(&mut entry).await?;
        let name = match real_name {
            Some(name) => MemberName::new(&name),
            None => MemberName::new(&entry.path_bytes().map_err(|error| self.broken(error))?),
        };
        self.member = name.path().to_owned();
        let role = name.role(entry.header().entry_type(), sparse, &self.shared.reading.image_extensions);
        let (size, bytes, permit) = match role {
            Role::Header => return Ok(true),
            Role::UnwantedImage => {
                // Its label is not one without an image.
                if name.key() != self.sample.key && !self.end_sample(name.key().to_owned()).await? {
                    return Ok(false);
                }
                self.sample.images.insert(name.stem().to_owned());
                return Ok(self.leave_out(LeftOutReason::OtherExtension));
            }
            Role::LeftOut(reason) => return Ok(self.leave_out(reason)),
            Role::Cls | Role::Json => return self.take_side_file(&name, role, &mut entry).await,
            Role::Unreadable(problem) => (0, Err((RejectReason::Unreadable, problem.to_owned())), FetchPermit::none()),
            Role::Image => {
                // The image before this one gives its bytes back first.
                if !self.begin_image(&name).await? {
                    return Ok(false);
                }
                let size = entry.effective_size();
                match self.shared.check_size(size) {
                    Ok(()) if self.rows.contains(&self.row) => {
                        let permit = self.shared.fetch.hold(size).await;
                        (size, Ok(self.member_bytes(&mut entry, size).await?), permit)
                    }
                    // Rows in front of ours are only counted.
                    Ok(()) => (size, Ok(Bytes::new()), FetchPermit::none()),
                    Err(rejected) => (size, Err(rejected), FetchPermit::none()),
                }
            }
        };
        if role != Role::Image && !self.begin_image(&name).await? {
            return Ok(false);
        }
        let image = ImageMember { path: name.path().to_owned(), size, bytes, permit };
        self.sample.image = Some((name.stem().to_owned(), image));
        Ok(true)
    }

    /// Whether a member's data are those of a sparse file in the ways of PAX, and what the file is really called.
    async fn sparse<R: AsyncRead + Unpin>(
        &self,
        entry: &mut Entry<R>,
    ) -> Result<(bool, Option<Vec<u8>>), PipelineError> {
        let (mut sparse, mut name) = (false, None);
        let extensions = entry.pax_extensions().await.map_err(|error| self.broken(error))?;
        for extension in extensions.into_iter().flatten() {
            let extension = extension.map_err(|error| self.broken(error))?;
            sparse |= extension.key_bytes().starts_with(b"GNU.sparse.");
            if extension.key_bytes() == b"GNU.sparse.name" {
                name = Some(extension.value_bytes().to_vec());
            }
        }
        Ok((sparse, name))
    }

    /// Counts the member as one that makes no row; there may be more.
    fn leave_out(&self, reason: LeftOutReason) -> bool {
        self.account.count(reason, || self.member_uri());
        true
    }

    /// A `.cls` or `.json`.
    async fn take_side_file<R: AsyncRead + Unpin>(
        &mut self,
        name: &MemberName,
        role: Role,
        entry: &mut Entry<R>,
    ) -> Result<bool, PipelineError> {
        let wanted = match self.shared.reading.labels {
            LabelSource::Auto => true,
            LabelSource::Cls => role == Role::Cls,
            LabelSource::Json => role == Role::Json,
            LabelSource::None => false,
        };
        if !wanted {
            return Ok(self.leave_out(LeftOutReason::OtherMember));
        }
        let size = entry.effective_size();
        if size > MOST_TEXT_BYTES {
            return Ok(self.leave_out(LeftOutReason::SideFile));
        }
        let bytes = self.member_bytes(entry, size).await?;
        let found = match role {
            Role::Cls => {
                let cls = FoundLabel::from_text(&String::from_utf8_lossy(&bytes));
                Some(SideFiles { cls, ..SideFiles::default() })
            }
            _ => self.json(&bytes),
        };
        let Some(found) = found else { return Ok(self.leave_out(LeftOutReason::SideFile)) };
        if let FoundLabel::Unreadable(label) = found.label() {
            self.account.count(LeftOutReason::Label, || format!("{}: {label}", self.member_uri()));
        }
        if found.says_nothing() {
            return Ok(true);
        }
        if name.key() != self.sample.key && !self.end_sample(name.key().to_owned()).await? {
            return Ok(false);
        }
        if found.is_labelled() {
            if self.sample.comes_again && !self.by_position() {
                return Err(self.apart("`labels` none goes without labels"));
            }
            let is_behind = self.sample.images.contains(name.stem())
                && self.sample.image.as_ref().is_none_or(|(stem, _)| stem != name.stem());
            if is_behind || (name.is_plain() && self.sample.unlabelled > 0) {
                self.account.count(LeftOutReason::Label, || {
                    format!("{}: it lies behind images that it belongs to, which have none", self.member_uri())
                });
            }
        }
        self.sample.side.entry(name.stem().to_owned()).or_default().add(found);
        Ok(true)
    }

    /// What a JSON member says; `None` where it is no object. A field of another type than it should have is counted.
    fn json(&self, bytes: &[u8]) -> Option<SideFiles> {
        let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
        let Ok(Value::Object(fields)) = serde_json::from_slice(bytes) else { return None };
        let text = |name: &str| match fields.get(name) {
            Some(Value::String(text)) => Some(text.clone()),
            None | Some(Value::Null) => None,
            Some(_) => {
                self.account.count(LeftOutReason::SideFile, || format!("{}: {name} is no text", self.member_uri()));
                None
            }
        };
        Some(SideFiles {
            cls: FoundLabel::Absent,
            json_label: fields.get("label").map_or(FoundLabel::Absent, FoundLabel::from_json),
            filename: text("filename"),
            class_name: text("class_name"),
        })
    }

    fn by_position(&self) -> bool {
        self.shared.image_id == ImageIdRule::Position
    }

    /// The error for a member whose sample was behind us already.
    fn apart(&self, advice: &str) -> PipelineError {
        self.wrong(&format!(
            "it lies apart from another member of its name; an image and its label must be neighbours, and a shard that was \
             appended to holds both versions of a member: write it anew; `image_id` position takes members as they lie, and {advice}"
        ))
    }

    /// Ends the image before this one, and the sample if this is another's. `false` when nobody wants more.
    async fn begin_image(&mut self, name: &MemberName) -> Result<bool, PipelineError> {
        let same_key = name.key() == self.sample.key;
        if let (true, false, Some((stem, other))) = (same_key, self.by_position(), &self.sample.image)
            && stem == name.stem()
        {
            return Err(self.wrong(&format!(
                "a second image beside {}, and both would be image {:?}: take those of one extension \
                 (`image_extensions`), or tell them apart (`image_id` position)",
                other.path.escape_debug(),
                name.stem()
            )));
        }
        let goes_on = match same_key {
            true => self.end_image().await?,
            false => self.end_sample(name.key().to_owned()).await?,
        };
        if !goes_on {
            return Ok(false);
        }
        let had_labels = self.sample.comes_again && self.finished.get(name.key()) == Some(&true);
        let is_new = self.stems.insert(name.stem().to_owned());
        if !self.by_position() && (!is_new || had_labels) {
            return Err(self.apart("`labels` none goes without labels"));
        }
        self.sample.images.insert(name.stem().to_owned());
        Ok(true)
    }

    /// Hands out the image that waits, if there is one. `false` when nobody wants more.
    async fn end_image(&mut self) -> Result<bool, PipelineError> {
        let Some((stem, image)) = self.sample.image.take() else { return Ok(self.row < self.rows.end) };
        let of_sample = self.sample.side.get(&self.sample.key).cloned().unwrap_or_default();
        let side = self.sample.side.get(&stem).cloned().unwrap_or_default().or_those_of(&of_sample);
        if !side.is_labelled() {
            self.sample.unlabelled += 1;
        }
        self.send(image, side).await
    }

    /// Ends the sample and begins that of `key`. `false` when nobody wants more.
    async fn end_sample(&mut self, key: String) -> Result<bool, PipelineError> {
        if !self.end_image().await? {
            return Ok(false);
        }
        let comes_again = self.finished.contains_key(&key);
        let ended = mem::replace(&mut self.sample, Sample { key, comes_again, ..Sample::default() });
        if !ended.key.is_empty() {
            *self.finished.entry(ended.key.clone()).or_default() |= ended.is_labelled();
        }
        for (stem, side) in ended.side {
            let is_used = ended.images.contains(&stem) || (stem == ended.key && !ended.images.is_empty());
            if is_used || !side.is_labelled() {
                continue;
            }
            if ended.images.is_empty() {
                let missing = (RejectReason::Unreadable, "there is a label and no image".to_owned());
                let path = format!("{stem}.jpg");
                let image = ImageMember { path, size: 0, bytes: Err(missing), permit: FetchPermit::none() };
                if !self.send(image, side).await? {
                    return Ok(false);
                }
                continue;
            }
            // `c.meta.json` beside `c.jpg` says something else; a `.cls` is nothing but a label.
            let reason = if side.cls == FoundLabel::Absent { LeftOutReason::OtherMember } else { LeftOutReason::Label };
            self.account.count(reason, || format!("{}#{}.*", self.object.uri(), stem.escape_debug()));
        }
        Ok(self.row < self.rows.end)
    }

    /// Hands out an image of one of the wanted rows. `false` when nobody wants more.
    async fn send(&mut self, image: ImageMember, side: SideFiles) -> Result<bool, PipelineError> {
        let row = self.row;
        self.row += 1;
        if !self.rows.contains(&row) {
            return Ok(true);
        }
        let ImageMember { path: member, size, bytes, permit } = image;
        let shared = self.shared;
        let ((label, class_name), bytes) = match side.label().of_row(&shared.class_names) {
            Ok(class) => (class, bytes),
            Err(rejected) => ((None, None), bytes.and(Err(rejected))),
        };
        let name = side.filename.as_deref().unwrap_or(&member);
        let image = SourceImage {
            image_id: shared.image_id.of_row(self.object.path(), row, Some(name)),
            source: format!("{}#{member}", self.object.uri()),
            label,
            class_name: side.class_name.or(class_name),
            size,
            bytes,
            permit,
        };
        Ok(self.sender.send(image).await.is_ok() && self.row < self.rows.end)
    }

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

    fn member_uri(&self) -> String {
        format!("{}#{}", self.object.uri(), self.member.escape_debug())
    }

    fn wrong(&self, problem: &str) -> PipelineError {
        PipelineError::Source { uri: self.member_uri(), problem: problem.to_owned() }
    }

    fn in_object(&self, problem: String) -> PipelineError {
        PipelineError::Source { uri: self.object.uri().to_owned(), problem }
    }

    /// A tar that does not read: what the store said of its bytes, or where the archive breaks.
    fn broken(&self, error: io::Error) -> PipelineError {
        if let Some(error) = self.progress.take_failure() {
            return error;
        }
        let at = match self.member.is_empty() {
            true => "its first member".to_owned(),
            false => format!("member {}", self.member.escape_debug()),
        };
        // The library's errors give their cause apart.
        let cause =
            error.get_ref().and_then(|inner| inner.source()).map(|cause| format!(" ({cause})")).unwrap_or_default();
        self.in_object(format!(
            "the tar breaks at byte {} of {}, at or behind {at}: {error}{cause}",
            self.progress.position(),
            self.object.size()
        ))
    }
}
