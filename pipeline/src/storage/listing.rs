//! What a listing gives: objects, and beside them what lies there and cannot be read, each with its reason.

use super::StoredObject;
use std::fmt;

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
