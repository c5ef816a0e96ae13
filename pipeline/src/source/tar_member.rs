//! What a member of a tar shard is to us, told by its name and kind alone.

use schemas::{ImageExtensions, LeftOutReason};
use tokio_tar::EntryType;

/// A member's name, cut where its parts are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MemberName {
    /// Without `./` in front. Bytes that are no UTF-8 stand as `\xE9`, so that other bytes are another name.
    path: String,
    /// Length of the path up to the last dot of its name; all of it where there is none.
    stem_ends: usize,
    /// Length of the path up to the first dot of its name: what members of one sample share.
    key_ends: usize,
}

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// An image.
    Image,
    /// An image by its name, and no file by its kind: the reason in words.
    Unreadable(&'static str),
    /// An image, of another extension than those that are wanted.
    UnwantedImage,
    /// A label as text.
    Cls,
    /// A JSON object that may hold a label.
    Json,
    /// No row, for this reason.
    LeftOut(LeftOutReason),
    /// Headers that belong to other members.
    Header,
}

impl MemberName {
    /// Of a path as it stands in the tar.
    pub(super) fn new(path: &[u8]) -> Self {
        let mut path = escaped(path);
        while let Some(rest) = path.strip_prefix("./") {
            path = rest.to_owned();
        }
        let name_starts = path.trim_end_matches('/').rfind('/').map_or(0, |slash| slash + 1);
        let name = &path[name_starts..];
        let dot = |at: Option<usize>| at.filter(|&at| at > 0).map_or(path.len(), |at| name_starts + at);
        let (stem_ends, key_ends) = (dot(name.rfind('.')), dot(name.find('.')));
        Self { path, stem_ends, key_ends }
    }

    /// The whole path.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The path up to the last dot of its name: what an image shares with its own side files.
    pub(super) fn stem(&self) -> &str {
        &self.path[..self.stem_ends]
    }

    /// The path up to the first dot of its name: the key of the sample, as WebDataset has it.
    pub(super) fn key(&self) -> &str {
        &self.path[..self.key_ends]
    }

    /// Whether key and stem are one: a name with one dot.
    pub(super) fn is_plain(&self) -> bool {
        self.stem_ends == self.key_ends
    }

    /// What the member is.
    pub(super) fn role(&self, kind: EntryType, sparse: bool, images: &ImageExtensions) -> Role {
        match kind {
            EntryType::XGlobalHeader | EntryType::XHeader | EntryType::GNULongName | EntryType::GNULongLink => {
                return Role::Header;
            }
            EntryType::Directory => return Role::LeftOut(LeftOutReason::Folder),
            _ => {}
        }
        // Folders above it say nothing: `tar --absolute-names` keeps those of the machine that wrote the shard.
        if self.path.rsplit('/').next().is_some_and(|name| name.starts_with('.')) {
            return Role::LeftOut(LeftOutReason::Hidden);
        }
        if self.path.split('/').any(super::is_system_folder) {
            return Role::LeftOut(LeftOutReason::Leftover);
        }
        let extension = self.path.get(self.stem_ends + 1..).map(str::to_ascii_lowercase);
        let extension = extension.as_deref();
        let is_image = images.contain(extension) && !matches!(extension, Some("cls" | "json"));
        let problem = match kind {
            _ if sparse => {
                Some("it is sparse, and its data do not lie there as they are: write the shard without --sparse")
            }
            // The library puts the pieces of GNU's own sparse members together.
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => None,
            EntryType::Link => Some("it is a hard link to another member: write the shard with tar --hard-dereference"),
            EntryType::Symlink => Some("it is a symbolic link: write the shard with tar --dereference"),
            EntryType::Char | EntryType::Block | EntryType::Fifo => Some("it is a device or a pipe, not a file"),
            EntryType::Other(b'M') => Some("it continues a file of another volume: multi-volume tars are not read"),
            _ => Some("it is a member of a kind that is not read"),
        };
        match (problem, is_image, extension) {
            (Some(problem), true, _) => Role::Unreadable(problem),
            (Some(_), false, _) => Role::LeftOut(LeftOutReason::NotAFile),
            (None, true, _) => Role::Image,
            (None, false, Some("cls")) => Role::Cls,
            (None, false, Some("json")) => Role::Json,
            (None, false, extension) if ImageExtensions::Usual.contain(extension) => Role::UnwantedImage,
            (None, false, _) => Role::LeftOut(LeftOutReason::OtherMember),
        }
    }
}

/// Bytes as text: what is UTF-8 as it is, every other byte as `\xE9`.
fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02X}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(path: &str) -> (String, String) {
        let name = MemberName::new(path.as_bytes());
        (name.stem().to_owned(), name.key().to_owned())
    }

    #[test]
    fn a_stem_ends_at_the_last_dot_of_the_name_and_a_key_at_the_first() {
        for (path, stem, key) in [
            ("n01440764_10026.JPEG", "n01440764_10026", "n01440764_10026"),
            ("./a.b/c.seg.png", "a.b/c.seg", "a.b/c"),
            ("22.05.png", "22.05", "22"),
            ("README", "README", "README"),
            ("a/.hidden", "a/.hidden", "a/.hidden"),
        ] {
            assert_eq!(cut(path), (stem.to_owned(), key.to_owned()), "{path}");
        }
    }

    #[test]
    fn other_bytes_are_another_name() {
        let name = |bytes: &[u8]| MemberName::new(bytes).path().to_owned();
        assert_eq!(name(b"caf\xE9.jpg"), "caf\\xE9.jpg");
        assert_ne!(name(b"\xC0\xD0.jpg"), name(b"\xC1\xD1.jpg"));
        assert_eq!(name("café.jpg".as_bytes()), "café.jpg");
    }

    #[test]
    fn every_kind_of_member_has_its_role() {
        let role =
            |path: &str, kind: EntryType| MemberName::new(path.as_bytes()).role(kind, false, &ImageExtensions::Usual);
        for (path, kind, expected) in [
            ("a.jpg", EntryType::Regular, Role::Image),
            ("1.5x.JPG", EntryType::Continuous, Role::Image),
            ("a.jpg", EntryType::GNUSparse, Role::Image),
            ("a.heic", EntryType::Regular, Role::Image),
            ("a.cls", EntryType::Regular, Role::Cls),
            ("a.json", EntryType::Regular, Role::Json),
            ("a.txt", EntryType::Regular, Role::LeftOut(LeftOutReason::OtherMember)),
            ("README", EntryType::Regular, Role::LeftOut(LeftOutReason::OtherMember)),
            ("a/", EntryType::Directory, Role::LeftOut(LeftOutReason::Folder)),
            ("a.jpg/", EntryType::Directory, Role::LeftOut(LeftOutReason::Folder)),
            ("._a.jpg", EntryType::Regular, Role::LeftOut(LeftOutReason::Hidden)),
            ("/home/u/.cache/a.jpg", EntryType::Regular, Role::Image),
            ("../a.jpg", EntryType::Regular, Role::Image),
            ("__MACOSX/a.jpg", EntryType::Regular, Role::LeftOut(LeftOutReason::Leftover)),
            ("a.txt", EntryType::Symlink, Role::LeftOut(LeftOutReason::NotAFile)),
            ("pax", EntryType::XGlobalHeader, Role::Header),
        ] {
            assert_eq!(role(path, kind), expected, "{path} {kind:?}");
        }
        let kinds = [
            EntryType::Link,
            EntryType::Symlink,
            EntryType::Char,
            EntryType::Block,
            EntryType::Fifo,
            EntryType::new(b'M'),
            EntryType::new(b'Z'),
        ];
        for kind in kinds {
            assert!(matches!(role("a.png", kind), Role::Unreadable(_)), "{kind:?}");
        }
        let sparse = MemberName::new(b"GNUSparseFile.0/a.png").role(EntryType::Regular, true, &ImageExtensions::Usual);
        assert!(matches!(sparse, Role::Unreadable(problem) if problem.contains("sparse")));
        let jpg: ImageExtensions = "jpg".parse().expect("a list");
        let unwanted = MemberName::new(b"a.png").role(EntryType::Regular, false, &jpg);
        assert_eq!(unwanted, Role::UnwantedImage);
        let any = MemberName::new(b"readme").role(EntryType::Regular, false, &ImageExtensions::Any);
        assert_eq!(any, Role::Image, "what it is, its bytes tell");
    }
}
