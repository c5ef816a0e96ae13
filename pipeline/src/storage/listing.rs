//! Listings: objects, and beside them what lies there and cannot be read, each with its reason.

use super::{Storage, StoredObject, listing_xml, local_files};
use crate::{
    PipelineError,
    background_task::{joined, spawn, stream_of_task},
    error::first_few,
};
use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use object_store::{Error, ObjectMeta, ObjectStore};
use std::fmt;
use tokio::{sync::mpsc, task::spawn_blocking};

/// Entries of a local listing that may wait to be taken.
const LISTED_AHEAD: usize = 1024;

/// Names shown in a warning before the rest is only counted.
const NAMES_SHOWN: usize = 5;

/// One entry of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Listed {
    /// An object that can be read by its path.
    Object(StoredObject),
    /// Something that cannot.
    Unreachable(Unreachable),
}

/// A whole listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listing {
    /// Objects, sorted by path.
    pub objects: Vec<StoredObject>,
    /// What lies there and cannot be read, sorted by name. Empty for almost every set.
    pub unreachable: Vec<Unreachable>,
}

/// Something that lies in a store and cannot be read: nobody may take it for absent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Unreachable {
    /// Its name below the root, fit for a line of text: control characters, backslashes and bytes that are no UTF-8 are escaped as
    /// `\n`, `\\` and `\xff`, so that two names are never shown alike.
    pub shown: String,
    /// Why it cannot be read.
    pub reason: UnreachableReason,
    /// Size in bytes, where the listing tells it.
    pub size: Option<u64>,
}

/// Why something that a store lists cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum UnreachableReason {
    /// Its name is no UTF-8.
    NotUtf8,
    /// Its name has a tab, a newline or another control character, and lies in a store whose client refuses those.
    ControlCharacter,
    /// Its name has two slashes in a row, or begins with one.
    EmptySegment,
    /// A part of its name is `.` or `..`.
    DotSegment,
    /// Its name ends with a slash, and it has content: an empty one is a folder's marker and not listed at all.
    TrailingSlash,
    /// A symbolic link to something that is not there.
    DanglingLink,
    /// A symbolic link that leads back to itself, or to a folder that it lies in.
    LinkLoop,
    /// No file and no folder: a socket, a pipe, a device.
    NotAFile,
    /// A folder, or something in one, that this user may not look at.
    Closed,
}

impl fmt::Display for UnreachableReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NotUtf8 => "its name is no UTF-8",
            Self::ControlCharacter => "its name has a control character, which cannot be asked for in this store",
            Self::EmptySegment => "its name begins with a slash or has two in a row, which cannot be asked for",
            Self::DotSegment => "a part of its name is `.` or `..`, which cannot be asked for",
            Self::TrailingSlash => "its name ends with a slash, which cannot be asked for",
            Self::DanglingLink => "it is a link to something that is not there",
            Self::LinkLoop => "it is a link that leads back to itself, or to a folder that it lies in",
            Self::NotAFile => "it is neither a file nor a folder",
            Self::Closed => "this user may not look at it",
        })
    }
}

impl fmt::Display for Unreachable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shown, reason, size: _ } = self;
        write!(formatter, "{shown}: {reason}")
    }
}

/// What is wrong with a name below the root, if it cannot be asked for. Names of local files may have control characters.
pub(super) fn problem_of_name(name: &str, local: bool) -> Option<UnreachableReason> {
    // An empty name is the root itself.
    if name.is_empty() {
        return None;
    }
    let mut segments = name.split('/').peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "" if segments.peek().is_none() => return Some(UnreachableReason::TrailingSlash),
            "" => return Some(UnreachableReason::EmptySegment),
            "." | ".." => return Some(UnreachableReason::DotSegment),
            _ if !local && segment.bytes().any(|byte| byte.is_ascii_control()) => {
                return Some(UnreachableReason::ControlCharacter);
            }
            _ => {}
        }
    }
    // The system's own end of a string.
    (local && name.contains('\0')).then_some(UnreachableReason::ControlCharacter)
}

/// A name as one line of text, never the same for two names.
pub(super) fn escaped(name: &[u8]) -> String {
    let mut shown = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '\\' => shown.push_str("\\\\"),
                letter if letter.is_control() => shown.extend(letter.escape_default()),
                letter => shown.push(letter),
            }
        }
        shown.extend(chunk.invalid().iter().flat_map(|byte| byte.escape_ascii()).map(char::from));
    }
    shown
}

impl Storage {
    /// All objects below the folder `prefix` (empty: below the root), however deep, sorted by path. What lies there and cannot be read
    /// is a warning: for places where only restok writes.
    ///
    /// # Errors
    /// When the store fails, after all retries, or a folder may not be read. A folder that is not there is an empty list.
    pub async fn list(&self, prefix: &str) -> Result<Vec<StoredObject>, PipelineError> {
        let Listing { objects, unreachable } = self.list_all(prefix).await?;
        if let Some(closed) = unreachable.iter().find(|entry| entry.reason == UnreachableReason::Closed) {
            let source = closed.reason.to_string().into();
            return Err(self.error("list", prefix, Error::PermissionDenied { path: closed.shown.clone(), source }));
        }
        if !unreachable.is_empty() {
            tracing::warn!(
                folder = self.uri(prefix),
                count = unreachable.len(),
                "what cannot be read is left out: {}",
                first_few(&unreachable, NAMES_SHOWN)
            );
        }
        Ok(objects)
    }

    /// Everything below the folder `prefix` (empty: below the root), however deep, sorted: objects, and what cannot be read.
    ///
    /// # Errors
    /// When the store fails, after all retries. A folder that is not there is an empty listing.
    pub(crate) async fn list_all(&self, prefix: &str) -> Result<Listing, PipelineError> {
        let mut listing = Listing::default();
        let mut entries = self.list_stream(prefix);
        while let Some(entry) = entries.try_next().await? {
            match entry {
                Listed::Object(object) => listing.objects.push(object),
                Listed::Unreachable(entry) => listing.unreachable.push(entry),
            }
        }
        listing.objects.sort_unstable();
        listing.unreachable.sort_unstable();
        Ok(listing)
    }

    /// What [`Self::list_all`] gives, as it comes: a page of a store or a folder of a disk at a time. To be called and polled in a tokio runtime.
    ///
    /// By the bytes of the paths, from local disks, S3, GCS, Azure and memory; WebDAV servers have an order of their own, and so have
    /// directory buckets of S3. Empty objects that a store keeps as marks of folders are left out.
    ///
    /// After an error there is nothing more.
    pub(crate) fn list_stream(&self, prefix: &str) -> BoxStream<'static, Result<Listed, PipelineError>> {
        match self.open_listing(prefix) {
            Ok(entries) => entries,
            Err(error) => stream::once(async { Err(error) }).boxed(),
        }
    }

    fn open_listing(&self, prefix: &str) -> Result<BoxStream<'static, Result<Listed, PipelineError>>, PipelineError> {
        let (storage, folder) = (self.clone(), prefix.to_owned());
        let failed = move |error| storage.error("list", &folder, error);
        if let Some(folder) = self.local_file(prefix)? {
            let (sender, receiver) = mpsc::channel(LISTED_AHEAD);
            // In a folder below the root, names begin with the folder's.
            let prefix = match prefix.trim_matches('/') {
                "" => String::new(),
                prefix => format!("{prefix}/"),
            };
            let task = spawn(async move {
                let walking = spawn_blocking(move || local_files::walk(&folder, &prefix, &sender));
                joined(walking.await).await.map_err(failed)
            });
            return Ok(stream_of_task(task, receiver));
        }
        let storage = self.clone();
        let listed = self.store.list(Some(&self.location(prefix)?)).map_err(failed);
        Ok(listed.try_filter_map(move |meta| std::future::ready(Ok(storage.listed(&meta)))).boxed())
    }

    /// An entry of a store's own listing; `None` for a folder's mark, which is no object.
    fn listed(&self, meta: &ObjectMeta) -> Option<Listed> {
        let location = meta.location.as_ref();
        let name = listing_xml::original(location).unwrap_or_else(|| location.as_bytes().to_vec());
        let below = name.strip_prefix(self.root.as_bytes())?;
        let below = if self.root.is_empty() { below } else { below.strip_prefix(b"/")? };
        if meta.size == 0 && (below.is_empty() || below.ends_with(b"/")) {
            return None;
        }
        let reason = match std::str::from_utf8(below) {
            Err(_) => UnreachableReason::NotUtf8,
            Ok("") => UnreachableReason::TrailingSlash,
            Ok(path) => match problem_of_name(path, false) {
                None => return Some(Listed::Object(self.stored_object(path.to_owned(), meta))),
                Some(reason) => reason,
            },
        };
        Some(Listed::Unreachable(Unreachable { shown: escaped(below), reason, size: Some(meta.size) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_refused_for_what_no_client_can_ask_for() {
        for (name, local, remote) in [
            ("a/b.jpg", None, None),
            ("", None, None),
            (" a .jpg", None, None),
            ("...", None, None),
            ("a\tb", None, Some(UnreachableReason::ControlCharacter)),
            ("a/\u{7f}", None, Some(UnreachableReason::ControlCharacter)),
            ("a//b", Some(UnreachableReason::EmptySegment), Some(UnreachableReason::EmptySegment)),
            ("/a", Some(UnreachableReason::EmptySegment), Some(UnreachableReason::EmptySegment)),
            ("a/./b", Some(UnreachableReason::DotSegment), Some(UnreachableReason::DotSegment)),
            ("a/..", Some(UnreachableReason::DotSegment), Some(UnreachableReason::DotSegment)),
            ("a/", Some(UnreachableReason::TrailingSlash), Some(UnreachableReason::TrailingSlash)),
        ] {
            assert_eq!((problem_of_name(name, true), problem_of_name(name, false)), (local, remote), "{name:?}");
        }
    }

    #[test]
    fn two_names_are_never_shown_alike() {
        for (name, shown) in [
            (&b"a b\xc3\xa4.jpg"[..], "a bä.jpg"),
            (b"a\tb\n", "a\\tb\\n"),
            (b"a\\tb\\n", "a\\\\tb\\\\n"),
            (b"\xff\x7f", "\\xff\\u{7f}"),
        ] {
            assert_eq!(escaped(name), shown);
        }
    }
}
