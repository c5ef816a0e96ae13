//! Addresses: a URL or a plain path becomes a store, a path in it, and a text that is safe to show.

use super::{
    Access,
    listing::{escaped, problem_of_name},
};
use crate::PipelineError;
use object_store::ObjectStoreScheme;
use percent_encoding::percent_decode_str;
use std::path::{Component, PathBuf};
use url::Url;

/// What may stand in front of `://`, for error messages.
const SCHEMES: &str = "s3://, gs://, az://, abfs://, https://, http://, file://, memory:// or a plain path";

/// An address, taken apart.
pub(crate) struct Address {
    /// Which kind of store it names.
    pub(crate) scheme: ObjectStoreScheme,
    /// The address with everything that was given, secrets included. Only for the store's builder.
    pub(crate) secret_url: Url,
    /// The address without credentials and query. Never ends with a slash, unless it is a store's root.
    pub(crate) shown_url: Url,
    /// Path of the root below the store, without slashes at its ends.
    pub(crate) root: String,
    /// How its store knows who asks.
    pub(super) access: Access,
}

impl Address {
    /// Takes `address` apart. Plain paths may be relative to the working directory.
    ///
    /// # Errors
    /// When it is no address, or its scheme is not supported. The error never repeats a query or a password.
    pub(crate) fn parse(address: &str) -> Result<Self, PipelineError> {
        // What does not parse may be a signed URL in the wrong place: nothing after a question mark is repeated.
        let front = address.split('?').next().unwrap_or_default();
        let problem = |problem: String| PipelineError::Address { url: without_secrets(front), problem };
        let secret_url = if has_scheme(address) {
            Url::parse(address).map_err(|error| problem(format!("{error}; expected {SCHEMES}")))?
        } else {
            plain_path_url(address).map_err(problem)?
        };
        let (scheme, access) = scheme(&secret_url).map_err(problem)?;
        if secret_url.query().is_some() && access != Access::Signed {
            return Err(problem(
                "a query is not read here: `?` is no wildcard in a URL, and credentials come from the cloud's own \
                 variables (AWS_*, GOOGLE_*, AZURE_* such as AZURE_STORAGE_SAS_TOKEN); a signed URL is read as it is, \
                 with https:// in front"
                    .to_owned(),
            ));
        }
        let root = root(&secret_url, &scheme).map_err(problem)?;
        if secret_url.fragment().is_some() {
            return Err(problem("`#` is no part of an object's address; write %23 for a name that has it".to_owned()));
        }
        let mut shown_url = secret_url.clone();
        shown_url.set_query(None);
        // A user name is a secret with HTTP; with Azure it is the container.
        if shown_url.password().is_some() && shown_url.set_password(None).is_err()
            || scheme == ObjectStoreScheme::Http && shown_url.set_username("").is_err()
        {
            return Err(problem("cannot be shown without its password".to_owned()));
        }
        if let Ok(mut segments) = shown_url.path_segments_mut() {
            segments.pop_if_empty();
        }
        Ok(Self { scheme, secret_url, shown_url, root, access })
    }
}

/// Which kind of store an address names, and how that knows who asks.
fn scheme(url: &Url) -> Result<(ObjectStoreScheme, Access), String> {
    // A signature is good for one address as it stands, and asking for it needs no other credentials: whoever's URL it is, it is read as
    // any web server's.
    if matches!(url.scheme(), "http" | "https") && url.host().is_some() && url.query().is_some() {
        return Ok((ObjectStoreScheme::Http, Access::Signed));
    }
    // Names are for `root` to judge. The library's own text would repeat the whole URL, query included.
    let mut without_path = url.clone();
    without_path.set_path("/");
    let (scheme, _) = ObjectStoreScheme::parse(&without_path).map_err(|_| match url.scheme() {
        scheme @ ("file" | "memory") => format!("a local address has three slashes: {scheme}:///folder"),
        _ => format!("expected {SCHEMES}, with a bucket or a host"),
    })?;
    let access = match scheme {
        ObjectStoreScheme::AmazonS3 => Access::Aws,
        ObjectStoreScheme::GoogleCloudStorage => Access::Google,
        ObjectStoreScheme::MicrosoftAzure => Access::Azure,
        ObjectStoreScheme::Http => Access::Web,
        _ => Access::Local,
    };
    Ok((scheme, access))
}

/// The path of an address below its store.
fn root(url: &Url, scheme: &ObjectStoreScheme) -> Result<String, String> {
    let path = match (scheme, url.scheme(), url.host_str()) {
        // These name the bucket or the container in the path.
        (ObjectStoreScheme::MicrosoftAzure, "https", _) => without_bucket(url),
        (ObjectStoreScheme::AmazonS3, "https", Some(host))
            if host.starts_with("s3") || !host.ends_with("amazonaws.com") =>
        {
            without_bucket(url)
        }
        _ => url.path(),
    };
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = path.strip_suffix('/').unwrap_or(path);
    let bytes: Vec<u8> = percent_decode_str(path).collect();
    let local = *scheme == ObjectStoreScheme::Local;
    let odd = |reason: String| {
        let name = escaped(&bytes);
        format!(
            "{name:?} cannot be opened ({reason}); rename it, or name the folder above, whose listing shows what cannot be read"
        )
    };
    let root = String::from_utf8(bytes.clone()).map_err(|_| odd("it is no UTF-8".to_owned()))?;
    match problem_of_name(&root, local) {
        None => Ok(root),
        Some(reason) => Err(odd(reason.to_string())),
    }
}

fn without_bucket(url: &Url) -> &str {
    url.path().strip_prefix('/').and_then(|path| path.split_once('/')).map_or("", |(_, path)| path)
}

/// Whether an address is a URL; else it is a path.
pub(crate) fn has_scheme(address: &str) -> bool {
    address.split_once("://").is_some_and(|(scheme, _)| {
        !scheme.is_empty()
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
    })
}

/// The address of `path` below `base`, escaped where a URL needs it.
pub(crate) fn join_url(base: &Url, path: &str) -> String {
    let mut url = base.clone();
    let segments = path.split('/').filter(|segment| !segment.is_empty());
    if !path.contains(['\t', '\n', '\r']) {
        if let Ok(mut all) = url.path_segments_mut() {
            all.pop_if_empty().extend(segments);
        }
        return url.into();
    }
    // The library drops these three as if an editor had broken a line there.
    let mut joined = url.as_str().trim_end_matches('/').to_owned();
    for segment in segments {
        joined.push('/');
        for part in segment.split_inclusive(['\t', '\n', '\r']) {
            let plain = part.trim_end_matches(['\t', '\n', '\r']);
            joined.push_str(&escaped_segment(base, plain));
            joined.extend(part.bytes().skip(plain.len()).map(|byte| format!("%{byte:02X}")));
        }
    }
    joined
}

/// A part of a segment, escaped as `base` wants it.
fn escaped_segment(base: &Url, part: &str) -> String {
    // Alone, these would be taken for a way through folders.
    if matches!(part, "" | "." | "..") {
        return part.to_owned();
    }
    let mut alone = base.clone();
    alone.set_path("/");
    if let Ok(mut segments) = alone.path_segments_mut() {
        segments.pop_if_empty().push(part);
    }
    alone.path().trim_start_matches('/').to_owned()
}

/// The path below `base` that [`join_url`] made `url` from; `None` when it lies elsewhere. Letters that a URL may escape or not are the same.
pub(crate) fn path_below(base: &Url, url: &str) -> Option<String> {
    let base = join_url(base, "");
    let decoded = |url| percent_decode_str(url).decode_utf8().ok();
    let (base, url) = (decoded(base.trim_end_matches('/'))?, decoded(url)?);
    Some(url.strip_prefix(&*base)?.strip_prefix('/')?.to_owned())
}

/// An address without user, password and query: presigned URLs and SAS tokens keep their secrets there.
pub fn without_secrets(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else { return address.to_owned() };
    let rest = match scheme {
        // Only these have queries; elsewhere a question mark is a letter of a pattern.
        "http" | "https" => rest.split(['?', '#']).next().unwrap_or(rest),
        _ => rest,
    };
    let (host, path) = rest.split_once('/').map_or((rest, None), |(host, path)| (host, Some(path)));
    // `container@account` of an Azure address is no secret; `user:password@host` is.
    let host = match host.rsplit_once('@') {
        Some((user, host)) if user.contains(':') || matches!(scheme, "http" | "https") => host,
        _ => host,
    };
    match path {
        Some(path) => format!("{scheme}://{host}/{path}"),
        None => format!("{scheme}://{host}"),
    }
}

/// A `file://` URL for a plain path, without resolving links: the address stays as the operator wrote it.
fn plain_path_url(path: &str) -> Result<Url, String> {
    if path.is_empty() {
        return Err(format!("the address is empty; expected {SCHEMES}"));
    }
    if let Some((first, _)) = path.split_once(":/")
        && !first.contains('/')
    {
        return Err(format!("did you mean {first}://? Expected {SCHEMES}"));
    }
    let absolute = std::path::absolute(path).map_err(|error| error.to_string())?;
    let mut plain = PathBuf::new();
    for component in absolute.components() {
        match component {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    Url::from_file_path(&plain).map_err(|()| format!("{} is no absolute path", plain.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(address: &str) -> String {
        Address::parse(address).expect(address).shown_url.to_string()
    }

    #[test]
    fn every_scheme_is_recognised_with_its_path() {
        for (address, scheme, root) in [
            ("s3://bucket/a/b/", ObjectStoreScheme::AmazonS3, "a/b"),
            ("s3a://bucket", ObjectStoreScheme::AmazonS3, ""),
            ("gs://bucket/a", ObjectStoreScheme::GoogleCloudStorage, "a"),
            ("az://container/a", ObjectStoreScheme::MicrosoftAzure, "a"),
            ("abfss://container@account.dfs.core.windows.net/a", ObjectStoreScheme::MicrosoftAzure, "a"),
            ("https://example.com/a%20b", ObjectStoreScheme::Http, "a b"),
            ("file:///data/a", ObjectStoreScheme::Local, "data/a"),
            ("/data/a b/100%/", ObjectStoreScheme::Local, "data/a b/100%"),
            ("/data/x/../y/./z", ObjectStoreScheme::Local, "data/y/z"),
            ("memory:///a", ObjectStoreScheme::Memory, "a"),
        ] {
            let parsed = Address::parse(address).expect(address);
            assert_eq!((parsed.scheme, parsed.root.as_str()), (scheme, root), "{address}");
        }
    }

    #[test]
    fn what_is_shown_opens_again_as_the_same_address() {
        for address in
            ["s3://bucket/a b/c", "/data/100%/a#b?c", "https://example.com/x%20y/", "memory:///", "az://c@account/d"]
        {
            let first = Address::parse(address).expect(address);
            let second = Address::parse(first.shown_url.as_str()).expect(address);
            assert_eq!((first.root, first.shown_url), (second.root, second.shown_url), "{address}");
        }
    }

    #[test]
    fn secrets_are_never_shown() {
        assert_eq!(shown("https://me:word@example.com/a?sig=secret"), "https://example.com/a");
        for address in
            ["s3://bucket/a?sig=secret", "ftp://me:secret@host/a?x=secret", "az://c/a?sig=secret", "s3://?secret"]
        {
            let Err(error) = Address::parse(address) else { panic!("{address} must be refused") };
            assert!(!error.to_string().contains("secret"), "{error}");
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        }
    }

    #[test]
    fn credentials_are_never_shown() {
        for (address, shown) in [
            ("https://user:secret@host/a/b?sig=secret", "https://host/a/b"),
            ("https://token@host/a", "https://host/a"),
            ("s3://key:secret@bucket/a", "s3://bucket/a"),
            ("abfs://container@account.dfs.core.windows.net/a", "abfs://container@account.dfs.core.windows.net/a"),
            ("s3://bucket/img-?.tar", "s3://bucket/img-?.tar"),
            ("/data/a?b", "/data/a?b"),
            ("https://host", "https://host"),
        ] {
            assert_eq!(without_secrets(address), shown);
        }
    }

    #[test]
    fn a_signed_url_is_read_as_it_stands_whosever_it_is() {
        for (address, root) in [
            ("https://bucket.s3.eu-west-1.amazonaws.com/a/b.tar?X-Amz-Signature=secret", "a/b.tar"),
            ("https://s3.amazonaws.com/bucket/a.tar?X-Amz-Signature=secret", "bucket/a.tar"),
            ("https://account.blob.core.windows.net/c/a%2Bb.tar?sv=1&sig=secret", "c/a+b.tar"),
            ("https://storage.googleapis.com/bucket/a.tar?X-Goog-Signature=secret", "bucket/a.tar"),
        ] {
            let parsed = Address::parse(address).expect(address);
            assert_eq!(
                (parsed.scheme, parsed.access, parsed.root.as_str()),
                (ObjectStoreScheme::Http, Access::Signed, root)
            );
            assert!(!parsed.shown_url.as_str().contains("secret"), "{}", parsed.shown_url);
        }
        let plain = Address::parse("https://bucket.s3.eu-west-1.amazonaws.com/a/b.tar").expect("an address");
        assert_eq!((plain.scheme, plain.access), (ObjectStoreScheme::AmazonS3, Access::Aws));
    }

    #[test]
    fn an_address_and_its_path_lead_to_each_other() {
        let base = Address::parse("/data/x").expect("a path").shown_url;
        for path in ["a b/50%.jpg", "\t", "a\tb\n\r.jpg", "x/.\t/ü#?", "\u{7f}"] {
            let url = join_url(&base, path);
            assert_eq!(path_below(&base, &url).as_deref(), Some(path), "{url}");
            assert_eq!(Address::parse(&url).expect("an address").root, format!("data/x/{path}"));
        }
        assert_eq!(path_below(&base, "file:///data/xy/a"), None);
    }

    #[test]
    fn mistakes_are_explained() {
        for (address, hint) in [
            ("s3://bucket/a//b", "two in a row"),
            ("s3://bucket/a%0Ab", "control character"),
            ("az://c/a?sig=x", "AZURE_STORAGE_SAS_TOKEN"),
            ("file:///data/%FF", "no UTF-8"),
            ("s3:/bucket/a", "s3://"),
            ("file://data/a", "three slashes"),
            ("ftp://host/a", "expected s3://"),
            ("", "empty"),
            ("https://example.com/a#b", "%23"),
        ] {
            let Err(error) = Address::parse(address) else { panic!("{address} must be refused") };
            assert!(error.to_string().contains(hint), "{address}: {error}");
        }
    }
}
