//! What a store said, made fit for the operator: no credentials, whether it can pass by itself, and a word on what to do where we
//! know one.

use super::{
    Access,
    address::without_secrets,
    store_answer::StoreAnswer,
    transport::{Unreached, is_of_machine, said_in_full},
};
use object_store::{
    Error,
    client::{HttpError, HttpErrorKind},
};
use std::{error::Error as StdError, io};

/// An error's text in place of the error: where the original would show a signed URL, or leave the operator without advice.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct Told {
    text: String,
    heals: bool,
}

/// What was asked of whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) uri: &'a str,
    /// Whether something was to be written.
    pub(super) write: bool,
    pub(super) access: Access,
}

/// The same kind of error, without credentials, and with what is known of it.
pub(super) fn told(asked: Asked<'_>, error: Error) -> Error {
    if cause::<Told>(&error).is_some() {
        return error;
    }
    let said = said_in_full(&error);
    let answer = match cause::<StoreAnswer>(&error) {
        Some(answer) => Some(answer.clone()),
        None => StoreAnswer::in_words(&said),
    };
    // What the machine's own service answers to a request for credentials says nothing of the object: its 404 is no missing object.
    let of_machine = is_of_machine(&said);
    if let Some(answer) = answer.filter(|answer| !of_machine || answer.heals()) {
        return told_of_answer(asked, error, &answer, &said);
    }
    if said.contains("Content-Length Header missing") {
        let text = "the server does not say how long the object is (its answer has no Content-Length), and without that a set \
                    cannot be planned; serve it from another server, or read a copy";
        return Error::NotSupported { source: Box::new(Told { text: text.to_owned(), heals: false }) };
    }
    let advice = match Unreached::of(&error) {
        Some(Unreached::Certificate) => Some(
            "the server's certificate is not accepted here: check the address, and the certificates of this machine",
        ),
        Some(Unreached::NoSuchHost) => Some("no host has this name: check the address and the endpoint"),
        None => of_machine.then(|| asked.access.no_credentials()),
    };
    let heals = advice.is_none() && heals(&error);
    let clean = without_credentials(&said);
    match (advice, clean == said) {
        // Nothing to hide and nothing to add: all of the error is kept.
        (None, true) => error,
        (advice, _) => {
            let text = advice.map_or_else(|| clean.clone(), |advice| format!("{clean}; {advice}"));
            let told = Told { text, heals };
            match error {
                Error::NotFound { .. } if of_machine => {
                    Error::Generic { store: asked.access.name(), source: Box::new(told) }
                }
                error => in_place_of(error, told),
            }
        }
    }
}

fn told_of_answer(asked: Asked<'_>, error: Error, answer: &StoreAnswer, said: &str) -> Error {
    let Asked { uri, write, access } = asked;
    // While something is written, a conflict is another writer, who will be done.
    let conflict = matches!(answer.status(), 409 | 412);
    let heals = answer.heals() || conflict && write;
    let text = match answer.advice(access) {
        _ if heals => {
            // How often it was asked, and how long, is what the client's own words are good for.
            let attempts = said.split_once(", after ").and_then(|(_, rest)| rest.split_once(" retries"));
            let attempts = attempts.map_or(String::new(), |(retries, _)| format!(", also after {retries} retries"));
            format!("{answer}{attempts}")
        }
        Some(advice) => format!("{answer}: {advice}"),
        None => answer.to_string(),
    };
    let told = Told { text: without_credentials(&text), heals };
    let (path, source) = (uri.to_owned(), Box::new(told));
    match answer.status() {
        404 => Error::NotFound { path, source },
        401 => Error::Unauthenticated { path, source },
        403 => Error::PermissionDenied { path, source },
        405 | 501 => Error::NotSupported { source },
        409 | 412 if write => in_place_of(error, *source),
        _ => Error::Generic { store: access.name(), source },
    }
}

/// An error of the same kind with another text.
fn in_place_of(error: Error, told: Told) -> Error {
    let source = Box::new(told);
    match error {
        Error::NotFound { path, .. } => Error::NotFound { path, source },
        Error::AlreadyExists { path, .. } => Error::AlreadyExists { path, source },
        Error::Precondition { path, .. } => Error::Precondition { path, source },
        Error::NotModified { path, .. } => Error::NotModified { path, source },
        Error::PermissionDenied { path, .. } => Error::PermissionDenied { path, source },
        Error::Unauthenticated { path, .. } => Error::Unauthenticated { path, source },
        Error::NotSupported { .. } => Error::NotSupported { source },
        Error::Generic { store, .. } => Error::Generic { store, source },
        _ => Error::Generic { store: "object store", source },
    }
}

/// An error of our own about what a store gave.
pub(super) fn of_ours(text: String, heals: bool) -> Error {
    Error::Generic { store: "object store", source: Box::new(Told { text, heals }) }
}

/// Whether asking again, by the same command, may help. What nobody knows will not pass by itself: a scheduler that tries for ever is worse
/// than one that asks.
pub(super) fn heals(error: &Error) -> bool {
    if let Some(told) = cause::<Told>(error) {
        return told.heals;
    }
    match error {
        Error::NotFound { .. }
        | Error::PermissionDenied { .. }
        | Error::Unauthenticated { .. }
        | Error::NotSupported { .. }
        | Error::NotImplemented { .. }
        | Error::InvalidPath { .. }
        | Error::NotModified { .. }
        | Error::UnknownConfigurationKey { .. } => return false,
        // Another writer, who will be done.
        Error::AlreadyExists { .. } | Error::Precondition { .. } => return true,
        _ => {}
    }
    if let Some(answer) = cause::<StoreAnswer>(error) {
        return answer.heals();
    }
    if let Some(unheard) = cause::<HttpError>(error) {
        return Unreached::of(error).is_none()
            // Too many of them, or one that leads nowhere.
            && !(unheard.kind() == HttpErrorKind::Unknown && said_in_full(error).contains("redirect"));
    }
    io_cause(error).is_some_and(|error| {
        error.raw_os_error() != Some(libc::ELOOP)
            && !matches!(
                error.kind(),
                io::ErrorKind::NotFound
                    | io::ErrorKind::PermissionDenied
                    | io::ErrorKind::NotADirectory
                    | io::ErrorKind::IsADirectory
                    | io::ErrorKind::ReadOnlyFilesystem
                    | io::ErrorKind::InvalidInput
                    | io::ErrorKind::InvalidFilename
                    | io::ErrorKind::Unsupported
            )
    })
}

/// A text with each URL in it as [`without_secrets`] shows it.
pub(super) fn without_credentials(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(colon) = rest.find("://") {
        let of_scheme = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '+' | '-' | '.');
        let start = rest[..colon].trim_end_matches(of_scheme).len();
        let ends = |letter: char| letter.is_whitespace() || matches!(letter, '"' | '\'' | ')' | '>' | '<' | '`' | ',');
        let end = rest[colon..].find(ends).map_or(rest.len(), |length| colon + length);
        kept.push_str(rest.get(..start).unwrap_or_default());
        kept.push_str(&without_secrets(rest.get(start..end).unwrap_or_default()));
        rest = &rest[end..];
    }
    kept.push_str(rest);
    kept
}

/// A failed write, with what the operator can do about it.
pub(super) fn write_error(uri: &str, error: Error) -> Error {
    // Somebody may make room, or what fills the disk may be gone by the next start.
    let advice = |text: &str, heals| Box::new(Told { text: text.to_owned(), heals });
    match io_cause(&error).map(io::Error::kind) {
        Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge) => {
            Error::Generic {
                store: "output",
                source: advice(
                    "no space left for it (disk, quota or file size limit); make room and start the same command again",
                    true,
                ),
            }
        }
        Some(io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied) => Error::PermissionDenied {
            path: uri.to_owned(),
            source: advice("the output cannot be written; change its permissions or choose another output", false),
        },
        Some(io::ErrorKind::NotADirectory) => Error::NotSupported {
            source: advice("a file stands where a folder must be; remove it or choose another output", false),
        },
        // No hard links here (some FUSE and network mounts): nothing else creates a file only if it is not there.
        Some(io::ErrorKind::Unsupported) => Error::NotSupported {
            source: advice(
                "this file system has no hard links, which create-only writes need; choose another output",
                false,
            ),
        },
        _ if matches!(error, Error::NotImplemented { .. }) => Error::NotSupported {
            source: advice("this store cannot create an object only if it is not there; choose another output", false),
        },
        _ => error,
    }
}

/// The first cause of this type.
fn cause<T: StdError + 'static>(error: &Error) -> Option<&T> {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(found) = current.downcast_ref::<T>() {
            return Some(found);
        }
        cause = current.source();
    }
    None
}

/// The operating system's error, if one is at the bottom of it.
fn io_cause(error: &Error) -> Option<&io::Error> {
    cause::<io::Error>(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(access: Access) -> Asked<'static> {
        Asked { uri: "s3://bucket/a", write: false, access }
    }

    fn generic(said: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        Error::Generic { store: "S3", source: said.into() }
    }

    #[test]
    fn credentials_are_cut_from_texts_and_causes() {
        let inner = io::Error::other("sending request for url (https://me:secret@host/a.tar?X-Amz-Signature=secret)");
        let error = told(asked(Access::Signed), Error::NotFound { path: "a.tar".to_owned(), source: Box::new(inner) });
        assert!(matches!(&error, Error::NotFound { path, .. } if path == "a.tar"));
        let told = format!("{error} {error:?}");
        assert!(told.contains("https://host/a.tar)") && !told.contains("secret"), "{told}");
    }

    #[test]
    fn texts_without_credentials_stay_as_they_are() {
        for text in [
            "no such key? no",
            "GET https://host/a in 3s",
            "abfs://container@host/a",
            "https://a/b?x and http://c/d?y=z, end",
            "größe: ähttps://host/a",
        ] {
            assert_eq!(without_credentials(text), text.replace("?x and", " and").replace("?y=z", ""));
        }
    }

    #[test]
    fn a_refused_listing_is_no_outage() {
        let answered = |status: &str| {
            let said =
                format!("Error performing list request: Server returned non-2xx status code: {status}: <Error/>");
            told(asked(Access::Aws), generic(io::Error::other(said)))
        };
        assert!(matches!(answered("403 Forbidden"), Error::PermissionDenied { path, .. } if path == "s3://bucket/a"));
        assert!(matches!(answered("401 Unauthorized"), Error::Unauthenticated { .. }));
        let busy = answered("503 Service Unavailable");
        assert!(matches!(busy, Error::Generic { .. }) && heals(&busy));
    }

    #[test]
    fn a_machine_without_a_role_is_no_missing_object() {
        let said = "Error performing GET http://169.254.169.254/latest/meta-data/iam/security-credentials/ in 2ms - Server returned \
                    non-2xx status code: 404 Not Found: none";
        let missing = Error::NotFound { path: "a".to_owned(), source: io::Error::other(said).into() };
        for error in [generic(io::Error::other(said)), missing] {
            let error = told(asked(Access::Aws), error);
            assert!(matches!(error, Error::Generic { .. }) && !heals(&error), "{error:?}");
            assert!(error.to_string().contains("AWS_ACCESS_KEY_ID"), "{error}");
        }
    }

    #[test]
    fn only_what_can_pass_by_itself_is_asked_for_again() {
        let system = |code: i32| generic(io::Error::from_raw_os_error(code));
        for (error, expected) in [
            (generic("what nobody knows"), false),
            (generic("Content-Length Header missing from response"), false),
            (system(libc::EIO), true),
            (system(libc::ETIMEDOUT), true),
            (system(libc::ECONNRESET), true),
            (system(libc::ELOOP), false),
            (system(libc::EISDIR), false),
            (generic(HttpError::new(HttpErrorKind::Connect, io::Error::from_raw_os_error(libc::ECONNREFUSED))), true),
            (generic(HttpError::new(HttpErrorKind::Timeout, io::Error::other("operation timed out"))), true),
            (
                generic(HttpError::new(
                    HttpErrorKind::Connect,
                    io::Error::other("dns error: Name or service not known"),
                )),
                false,
            ),
            (
                generic(HttpError::new(
                    HttpErrorKind::Connect,
                    io::Error::other("dns error: Temporary failure in name resolution"),
                )),
                true,
            ),
            (
                generic(HttpError::new(
                    HttpErrorKind::Connect,
                    io::Error::other("invalid peer certificate: UnknownIssuer"),
                )),
                false,
            ),
            (generic(HttpError::new(HttpErrorKind::Unknown, io::Error::other("error following redirect"))), false),
            (
                generic(HttpError::new(
                    HttpErrorKind::Connect,
                    io::Error::other("GET http://169.254.169.254/latest: refused"),
                )),
                false,
            ),
        ] {
            let text = error.to_string();
            assert_eq!(heals(&told(asked(Access::Aws), error)), expected, "{text}");
        }
    }

    #[test]
    fn a_full_disk_and_a_closed_folder_say_what_to_do() {
        let failed = |kind: io::ErrorKind| Error::Generic { store: "local", source: Box::new(io::Error::from(kind)) };
        assert!(write_error("file:///a", failed(io::ErrorKind::StorageFull)).to_string().contains("make room"));
        let closed = write_error("file:///a", failed(io::ErrorKind::ReadOnlyFilesystem));
        assert!(
            matches!(closed, Error::PermissionDenied { .. }) && closed.to_string().contains("choose another output")
        );
    }
}
