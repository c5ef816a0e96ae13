//! Files of this machine, listed and read by their own names.
//!
//! `object_store` lists and reads local files too, but it refuses names with control characters or bytes that are no UTF-8, and one
//! such name ends its whole listing; it leaves out names such as `a#1` and dangling links without a word. Writing stays with it.

use super::{
    StoredObject,
    listing::{Listed, Unreachable, UnreachableReason, escaped, problem_of_name},
};
use bytes::Bytes;
use object_store::Error;
use std::{
    ffi::OsStr,
    fs::{self, File, Metadata},
    io::{self, Read, Seek, SeekFrom},
    ops::Range,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::Path,
    time::SystemTime,
};
use tokio::sync::mpsc;

/// Bytes of a file, all of it when no range is given, what it was then, and when it was written. Fewer bytes where it ends before the range
/// does. Blocks.
///
/// # Errors
/// When it is not there, is no file, or cannot be read.
pub(super) fn read(
    file: &Path,
    path: String,
    range: Option<Range<u64>>,
) -> object_store::Result<(Bytes, StoredObject, SystemTime)> {
    let failed = |error: io::Error| store_error(file, error);
    // Before it is opened, which waits for ever where it is a pipe that nobody writes to.
    head(file, String::new())?;
    let mut opened = File::open(file).map_err(failed)?;
    let metadata = opened.metadata().map_err(failed)?;
    let object = stored_object(file, path, &metadata)?;
    let range = range.map_or(0..object.size, |range| range.start..range.end.min(object.size).max(range.start));
    let mut bytes = Vec::with_capacity(usize::try_from(range.end - range.start).unwrap_or(0));
    if range.start > 0 {
        opened.seek(SeekFrom::Start(range.start)).map_err(failed)?;
    }
    opened.take(range.end - range.start).read_to_end(&mut bytes).map_err(failed)?;
    Ok((bytes.into(), object, metadata.modified().map_err(failed)?))
}

/// Size and version of a file. Blocks.
///
/// # Errors
/// When it is not there, or is no file.
pub(super) fn head(file: &Path, path: String) -> object_store::Result<StoredObject> {
    let metadata = fs::metadata(file).map_err(|error| store_error(file, error))?;
    stored_object(file, path, &metadata)
}

fn stored_object(file: &Path, path: String, metadata: &Metadata) -> object_store::Result<StoredObject> {
    if metadata.is_dir() {
        let source = "it is a folder".into();
        return Err(Error::NotFound { path: file.display().to_string(), source });
    }
    if !metadata.is_file() {
        let source = format!("{}: {}", file.display(), UnreachableReason::NotAFile).into();
        return Err(Error::NotSupported { source });
    }
    Ok(StoredObject { path, size: metadata.len(), etag: Some(version(metadata)) })
}

/// Changes with the file, and is the same on every mount: time of change in microseconds, and size. Plans hold it.
fn version(metadata: &Metadata) -> String {
    let changed = metadata.modified().ok().and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    format!("{:x}-{:x}", changed.unwrap_or_default().as_micros(), metadata.len())
}

/// What the system said, as the kind of error that a store would give.
fn store_error(file: &Path, error: io::Error) -> Error {
    let path = file.display().to_string();
    match error.kind() {
        // A file stands where the name has a folder: nothing is there by that name.
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Error::NotFound { path, source: error.into() },
        io::ErrorKind::PermissionDenied => Error::PermissionDenied { path, source: error.into() },
        _ => Error::Generic { store: "local file", source: Box::new(OfFile { path, error }) },
    }
}

/// What the system said of a file.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {error}")]
struct OfFile {
    path: String,
    #[source]
    error: io::Error,
}

/// Sends everything below `folder`, however deep, in the order of the bytes of its paths, `prefix` in front of each. Blocks; ends early
/// when nobody listens.
///
/// Links are followed. One folder's names are held at a time, for each folder on the way down.
///
/// # Errors
/// What the system said of a folder, except that it is not there or closed. Without permission to read `folder` itself nothing can
/// be said at all, so that is one too.
pub(super) fn walk(folder: &Path, prefix: &str, sender: &mpsc::Sender<Listed>) -> object_store::Result<()> {
    // A link to a folder above the root leads back to the root.
    let real = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    let above = real.ancestors().skip(1).filter_map(|folder| fs::metadata(folder).ok());
    let mut walk = Walk { above: above.map(|metadata| identity(&metadata)).collect(), sender };
    match walk.folder(folder, &mut prefix.as_bytes().to_vec()) {
        // Nothing lies below a folder that is not there, or a file.
        Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// What two names of one folder have in common.
fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// A walk on its way.
struct Walk<'a> {
    /// The folders from that of the file system down to where it stands: a link to one of them would never end.
    above: Vec<(u64, u64)>,
    sender: &'a mpsc::Sender<Listed>,
}

/// An entry of a folder.
struct Entry {
    /// Its name, with a slash behind that of a folder: so the order of names is that of whole paths.
    name: Vec<u8>,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    File,
    Folder,
    Other(UnreachableReason),
}

impl Walk<'_> {
    /// Sends what lies below `folder`, whose path below the root is `prefix` with a slash, or nothing. False when nobody listens.
    fn folder(&mut self, folder: &Path, prefix: &mut Vec<u8>) -> object_store::Result<bool> {
        let failed = |error: io::Error| store_error(folder, error);
        let metadata = fs::metadata(folder).map_err(failed)?;
        let itself = identity(&metadata);
        if self.above.contains(&itself) {
            return Ok(self.unreachable(prefix, UnreachableReason::LinkLoop, None));
        }
        let mut entries = Vec::new();
        for entry in fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            match Entry::read(&entry) {
                Ok(read) => entries.push(read),
                // Somebody removed it since its name was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(store_error(&entry.path(), error)),
            }
        }
        entries.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        self.above.push(itself);
        let length = prefix.len();
        for Entry { name, kind } in entries {
            prefix.truncate(length);
            prefix.extend_from_slice(&name);
            let path = folder.join(OsStr::from_bytes(name.strip_suffix(b"/").unwrap_or(&name)));
            let sent = match kind {
                Kind::Folder => self.folder(&path, prefix),
                Kind::File => self.file(&path, prefix),
                Kind::Other(reason) => Ok(self.unreachable(prefix, reason, None)),
            };
            let goes_on = match sent {
                // Of the entry itself: what lies deeper was told there.
                Err(Error::PermissionDenied { .. }) => self.unreachable(prefix, UnreachableReason::Closed, None),
                Err(Error::NotFound { .. }) => true,
                sent => sent?,
            };
            if !goes_on {
                return Ok(false);
            }
        }
        prefix.truncate(length);
        self.above.pop();
        Ok(true)
    }

    fn file(&self, file: &Path, path: &[u8]) -> object_store::Result<bool> {
        let metadata = fs::metadata(file).map_err(|error| store_error(file, error))?;
        let size = Some(metadata.len());
        let Ok(name) = std::str::from_utf8(path) else {
            return Ok(self.unreachable(path, UnreachableReason::NotUtf8, size));
        };
        Ok(match problem_of_name(name, true) {
            Some(reason) => self.unreachable(path, reason, size),
            None => self.send(Listed::Object(stored_object(file, name.to_owned(), &metadata)?)),
        })
    }

    fn unreachable(&self, path: &[u8], reason: UnreachableReason, size: Option<u64>) -> bool {
        self.send(Listed::Unreachable(Unreachable { shown: escaped(path), reason, size }))
    }

    fn send(&self, listed: Listed) -> bool {
        self.sender.blocking_send(listed).is_ok()
    }
}

impl Entry {
    /// Links are followed.
    fn read(entry: &fs::DirEntry) -> io::Result<Self> {
        let own = entry.file_type()?;
        let found =
            if own.is_symlink() { fs::metadata(entry.path()).map(|metadata| metadata.file_type()) } else { Ok(own) };
        let kind = match found {
            Ok(found) if found.is_file() => Kind::File,
            Ok(found) if found.is_dir() => Kind::Folder,
            Ok(_) => Kind::Other(UnreachableReason::NotAFile),
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => Kind::Other(UnreachableReason::LinkLoop),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Kind::Other(UnreachableReason::Closed),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename
                ) =>
            {
                Kind::Other(UnreachableReason::DanglingLink)
            }
            // What a link leads to may be there: an outage is no reason to go on without it.
            Err(error) => return Err(error),
        };
        let mut name = entry.file_name().as_bytes().to_vec();
        if kind == Kind::Folder {
            name.push(b'/');
        }
        Ok(Self { name, kind })
    }
}

/// What lies at an address on this machine, as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LocalKind {
    /// A file.
    File,
    /// A folder.
    Folder,
    /// A socket, a pipe, a device.
    Other,
}

/// What lies at a plain path, its letters taken as they are: `*`, `?`, `[` and `{` of a name that exists are no pattern.
///
/// `None` for a URL, and where nothing lies (a dangling link is nothing).
pub(crate) fn local_kind(address: &str) -> Option<LocalKind> {
    if super::has_scheme(address) || address.is_empty() {
        return None;
    }
    let metadata = fs::metadata(address).ok()?;
    Some(match () {
        () if metadata.is_file() => LocalKind::File,
        () if metadata.is_dir() => LocalKind::Folder,
        () => LocalKind::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, Storage, storage::listing::Listing};
    use std::os::unix::{ffi::OsStringExt, fs::symlink, net::UnixListener};

    fn open(folder: &Path) -> Storage {
        Storage::open(&folder.display().to_string(), &Limits::default()).expect("a path opens")
    }

    #[tokio::test]
    async fn a_folder_is_listed_past_everything_odd_in_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("b/c")).expect("a folder");
        for name in ["b/c/1.jpg", "b.jpg", "b/tab\tnew\nline\u{7f}.jpg", "b#1", "b/ü \\.jpg"] {
            fs::write(at(name), name).expect("a file");
        }
        fs::write(folder.path().join(std::ffi::OsString::from_vec(b"\xff.jpg".to_vec())), "odd").expect("a file");
        symlink("nowhere", at("dangling.jpg")).expect("a link");
        symlink("itself.jpg", at("itself.jpg")).expect("a link");
        symlink("../..", at("b/c/up")).expect("a link");
        symlink("b.jpg", at("link.jpg")).expect("a link");
        let _socket = UnixListener::bind(at("socket")).expect("a socket");

        let storage = open(folder.path());
        let Listing { objects, unreachable } = storage.list_all("").await.expect("a listing");
        let paths: Vec<_> = objects.iter().map(|object| object.path.as_str()).collect();
        assert_eq!(paths, ["b#1", "b.jpg", "b/c/1.jpg", "b/tab\tnew\nline\u{7f}.jpg", "b/ü \\.jpg", "link.jpg"]);
        for object in &objects {
            let there = if object.path == "link.jpg" { "b.jpg" } else { object.path.as_str() };
            assert_eq!(storage.get(&object.path).await.expect("readable"), there);
            assert_eq!(storage.head(&object.path).await.expect("there"), *object);
            // Its full address leads back to it, also through another storage.
            let uri = storage.uri(&object.path);
            assert_eq!(storage.path_of(&uri).as_deref(), Some(object.path.as_str()), "{uri}");
            assert!(uri.bytes().all(|byte| byte.is_ascii_graphic()), "{uri}");
        }
        let found: Vec<_> = unreachable.iter().map(|entry| (entry.shown.as_str(), entry.reason, entry.size)).collect();
        assert_eq!(
            found,
            [
                ("\\xff.jpg", UnreachableReason::NotUtf8, Some(3)),
                ("b/c/up/", UnreachableReason::LinkLoop, None),
                ("dangling.jpg", UnreachableReason::DanglingLink, None),
                ("itself.jpg", UnreachableReason::LinkLoop, None),
                ("socket", UnreachableReason::NotAFile, None),
            ]
        );
        // A link out of the folder that is listed leads back to it as well.
        let below = storage.list_all("b/").await.expect("a listing");
        assert_eq!(below.unreachable, unreachable[1..2]);
        assert_eq!(below.objects.iter().map(|object| object.path.as_str()).collect::<Vec<_>>(), paths[2..5]);
    }

    #[tokio::test]
    async fn entries_come_in_the_order_of_whole_paths() {
        use futures::TryStreamExt;
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["a/z", "a.jpg", "a0", "a-b/x", "a/b/c", "ä"] {
            let file = folder.path().join(name);
            fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
            fs::write(file, "x").expect("a file");
        }
        let listed: Vec<Listed> = open(folder.path()).list_stream("").try_collect().await.expect("a listing");
        let paths: Vec<_> = listed
            .iter()
            .map(|entry| match entry {
                Listed::Object(object) => object.path.as_str(),
                Listed::Unreachable(entry) => panic!("{entry}"),
            })
            .collect();
        let mut sorted = paths.clone();
        sorted.sort_unstable();
        assert_eq!(paths, sorted);
        assert_eq!(paths.len(), 6);
    }

    #[tokio::test]
    async fn a_folder_whose_own_name_is_odd_can_be_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let odd = folder.path().join("br[1] 50%\t?*");
        fs::create_dir(&odd).expect("a folder");
        fs::write(odd.join("a.jpg"), "pixels").expect("a file");
        let storage = open(&odd);
        assert_eq!(storage.list("").await.expect("a listing").len(), 1);
        let again = Storage::open(storage.display(), &Limits::default()).expect("its own address opens");
        assert_eq!(again.get("a.jpg").await.expect("read"), "pixels");
        let error = Storage::open_output(&odd.display().to_string(), &Limits::default()).expect_err("no output");
        assert!(error.to_string().contains("control characters"), "{error}");
    }

    #[tokio::test]
    async fn a_file_is_dated_by_the_clock_that_the_storage_shows() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("a"), "0123456789").expect("a file");
        let storage = open(folder.path());
        let (bytes, written) = storage.get_dated("a").await.expect("a file");
        let metadata = fs::metadata(folder.path().join("a")).expect("a file");
        assert_eq!((&bytes[..], written), (&b"0123456789"[..], metadata.modified().expect("a time")));
        let memory = Storage::open("memory:///dated", &Limits::default()).expect("a store");
        memory.put_create("b", bytes).await.expect("written");
        let (_, written) = memory.get_dated("b").await.expect("an object");
        assert!(written <= memory.clock() && storage.get_dated("c").await.is_err());
    }

    #[tokio::test]
    async fn a_read_past_the_end_is_no_outage() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("a"), "0123456789").expect("a file");
        let storage = open(folder.path());
        assert_eq!(storage.get_range("a", 2..5).await.expect("inside"), "234");
        for range in [8..12, 20..22] {
            let error = storage.get_range("a", range).await.expect_err("past the end");
            assert!(!error.is_temporary() && error.to_string().contains("10 bytes"), "{error}");
        }
        for missing in ["b", "a/b"] {
            assert_eq!(storage.get_if_exists(missing).await.expect("asked"), None, "{missing}");
        }
        assert!(storage.head_if_exists("").await.expect("asked").is_none(), "a folder is no object");
        assert!(storage.get("../a").await.is_err_and(|error| !error.is_temporary()));
    }

    #[test]
    fn a_plain_path_that_exists_is_itself() {
        let folder = tempfile::tempdir().expect("a folder");
        let odd = folder.path().join("what? {a,b}*[1]");
        fs::create_dir(&odd).expect("a folder");
        fs::write(odd.join("notes.txt"), "x").expect("a file");
        let kind = |path: &Path| local_kind(&path.display().to_string());
        assert_eq!(kind(&odd), Some(LocalKind::Folder));
        assert_eq!(kind(&odd.join("notes.txt")), Some(LocalKind::File));
        assert_eq!(kind(&odd.join("*.txt")), None);
        assert_eq!((local_kind("file:///"), local_kind("")), (None, None));
    }
}
