//! What a store said, made fit for the operator: no credentials, and a word on what to do where we know one.

use object_store::Error;
use std::{error::Error as StdError, io};

/// An error's text in place of the error, where the original would have shown a signed URL.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Told(String);

/// The same kind of error, without the queries of URLs in its texts (they may be signatures).
pub(super) fn without_queries(error: Error) -> Error {
    let mut told = error.to_string();
    let mut cause = StdError::source(&error);
    while let Some(inner) = cause {
        told.push_str(&inner.to_string());
        cause = inner.source();
    }
    if cut_queries(&told) == told {
        return error;
    }
    let source = || Box::new(Told(cut_queries(&error.to_string())));
    match &error {
        Error::NotFound { path, .. } => Error::NotFound { path: path.clone(), source: source() },
        Error::AlreadyExists { path, .. } => Error::AlreadyExists { path: path.clone(), source: source() },
        Error::Precondition { path, .. } => Error::Precondition { path: path.clone(), source: source() },
        Error::NotModified { path, .. } => Error::NotModified { path: path.clone(), source: source() },
        Error::PermissionDenied { path, .. } => Error::PermissionDenied { path: path.clone(), source: source() },
        Error::Unauthenticated { path, .. } => Error::Unauthenticated { path: path.clone(), source: source() },
        Error::NotSupported { .. } => Error::NotSupported { source: source() },
        _ => Error::Generic { store: "object store", source: source() },
    }
}

/// The same error, where the store refused the request, as one that says so. For a listing `object_store` keeps refusals apart only
/// in its text, and a refusal must not be tried again as an outage is.
pub(super) fn as_refusal(uri: &str, error: Error) -> Error {
    let Error::Generic { .. } = &error else { return error };
    let said = error.to_string();
    let (path, answered) = (uri.to_owned(), |status: &str| said.contains(&format!("status code: {status} ")));
    match () {
        () if answered("401") => Error::Unauthenticated { path, source: Box::new(error) },
        () if answered("403") => Error::PermissionDenied { path, source: Box::new(error) },
        () => error,
    }
}

/// Cuts from `?` to the end of each URL in a text.
fn cut_queries(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("://") {
        let url_ends = rest[start..]
            .find(|letter: char| letter.is_whitespace() || matches!(letter, '"' | '\'' | ')' | '>' | '<' | '`' | ','))
            .map_or(rest.len(), |length| start + length);
        let query = rest[start..url_ends].find('?').map_or(url_ends, |length| start + length);
        kept.push_str(&rest[..query]);
        rest = &rest[url_ends..];
    }
    kept.push_str(rest);
    kept
}

/// A failed write, with what the operator can do about it.
pub(super) fn write_error(uri: &str, error: Error) -> Error {
    let advice = |text: &str| Box::new(Told(text.to_owned()));
    match io_kind(&error) {
        Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge) => {
            Error::Generic {
                store: "output",
                source: advice(
                    "no space left for it (disk, quota or file size limit); make room and start the same command again",
                ),
            }
        }
        Some(io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied) => Error::PermissionDenied {
            path: uri.to_owned(),
            source: advice("the output cannot be written; change its permissions or choose another output"),
        },
        Some(io::ErrorKind::NotADirectory) => Error::NotSupported {
            source: advice("a file stands where a folder must be; remove it or choose another output"),
        },
        // No hard links here (some FUSE and network mounts): nothing else creates a file only if it is not there.
        Some(io::ErrorKind::Unsupported) => Error::NotSupported {
            source: advice("this file system has no hard links, which create-only writes need; choose another output"),
        },
        _ if matches!(error, Error::NotImplemented { .. }) => Error::NotSupported {
            source: advice("this store cannot create an object only if it is not there; choose another output"),
        },
        _ => error,
    }
}

/// The operating system's kind of error, if one is at the bottom of it.
pub(super) fn io_kind(error: &Error) -> Option<io::ErrorKind> {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(error) = current.downcast_ref::<io::Error>() {
            return Some(error.kind());
        }
        cause = current.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_cut_from_texts_and_causes() {
        let inner = io::Error::other("sending request for url (https://host/a.tar?X-Amz-Signature=secret)");
        let error = without_queries(Error::NotFound { path: "a.tar".to_owned(), source: Box::new(inner) });
        assert!(matches!(&error, Error::NotFound { path, .. } if path == "a.tar"));
        let told = format!("{error} {error:?}");
        assert!(told.contains("https://host/a.tar)") && !told.contains("secret"), "{told}");
    }

    #[test]
    fn texts_without_queries_stay_as_they_are() {
        for text in ["no such key? no", "GET https://host/a in 3s", "https://a/b?x and http://c/d?y=z, end"] {
            assert_eq!(cut_queries(text), text.replace("?x and", " and").replace("?y=z", ""));
        }
    }

    #[test]
    fn a_refused_listing_is_no_outage() {
        let answered = |status: &str| {
            let said =
                format!("Error performing list request: Server returned non-2xx status code: {status}: <Error/>");
            as_refusal("s3://bucket/a", Error::Generic { store: "S3", source: Box::new(io::Error::other(said)) })
        };
        assert!(matches!(answered("403 Forbidden"), Error::PermissionDenied { path, .. } if path == "s3://bucket/a"));
        assert!(matches!(answered("401 Unauthorized"), Error::Unauthenticated { .. }));
        assert!(matches!(answered("503 Service Unavailable"), Error::Generic { .. }));
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
