//! A well store's answer to each request.

use super::{RequestKind, ServerState};
use axum::{
    body::Body,
    http::{HeaderMap, Method, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use std::collections::{BTreeMap, BTreeSet};

/// Every object has the same age: no test depends on a clock.
const LAST_MODIFIED: &str = "Thu, 01 Jan 2026 00:00:00 GMT";
const LAST_MODIFIED_ISO: &str = "2026-01-01T00:00:00.000Z";
/// Keys of a page, as on S3.
const PAGE_SIZE: usize = 1000;

/// One request, read.
pub(super) struct Call {
    pub(super) kind: RequestKind,
    /// `bucket/key`; for a listing `bucket/prefix`.
    pub(super) path: String,
    query: BTreeMap<String, String>,
    headers: HeaderMap,
    body: Bytes,
}

impl Call {
    pub(super) fn new(parts: &Parts, body: Bytes) -> Self {
        let path = percent_decode_str(parts.uri.path().trim_start_matches('/')).decode_utf8_lossy().into_owned();
        let query: BTreeMap<String, String> =
            url::form_urlencoded::parse(parts.uri.query().unwrap_or("").as_bytes()).into_owned().collect();
        let upload = query.contains_key("uploadId");
        let kind = match parts.method {
            Method::GET if query.contains_key("list-type") => RequestKind::List,
            Method::GET => RequestKind::Get,
            Method::HEAD => RequestKind::Head,
            Method::PUT if upload => RequestKind::PutPart,
            Method::PUT => RequestKind::Put,
            Method::POST if query.contains_key("uploads") => RequestKind::CreateMultipart,
            Method::POST if upload => RequestKind::CompleteMultipart,
            Method::POST if query.contains_key("delete") => RequestKind::Delete,
            Method::DELETE if upload => RequestKind::AbortMultipart,
            Method::DELETE => RequestKind::Delete,
            _ => RequestKind::Other,
        };
        let path = match kind {
            RequestKind::List => {
                format!("{}/{}", path.trim_end_matches('/'), query.get("prefix").map_or("", String::as_str))
            }
            _ => path,
        };
        Self { kind, path, query, headers: parts.headers.clone(), body }
    }

    pub(super) fn answer(&self, state: &mut ServerState) -> Response {
        match self.kind {
            RequestKind::Get | RequestKind::Head => self.read(state),
            RequestKind::List => self.list(state),
            RequestKind::Put => {
                self.store(state, self.body.clone(), |etag| (StatusCode::OK, [(header::ETAG, etag)]).into_response())
            }
            RequestKind::CreateMultipart => {
                state.next_upload += 1;
                let upload = format!("upload-{}", state.next_upload);
                state.uploads.insert(upload.clone(), BTreeMap::new());
                xml(format!(
                    "<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
                ))
            }
            RequestKind::PutPart => {
                let part = self.query.get("partNumber").and_then(|part| part.parse().ok()).unwrap_or(0);
                match state.uploads.get_mut(self.upload()) {
                    Some(parts) => {
                        parts.insert(part, self.body.clone());
                        (StatusCode::OK, [(header::ETAG, etag(&self.body))]).into_response()
                    }
                    None => error(StatusCode::NOT_FOUND, "NoSuchUpload"),
                }
            }
            RequestKind::CompleteMultipart => {
                let Some(parts) = state.uploads.remove(self.upload()) else {
                    return error(StatusCode::NOT_FOUND, "NoSuchUpload");
                };
                let whole: Vec<u8> = parts.into_values().flatten().collect();
                self.store(state, whole.into(), |etag| {
                    xml(format!(
                        "<CompleteMultipartUploadResult><ETag>{}</ETag></CompleteMultipartUploadResult>",
                        escape(&etag)
                    ))
                })
            }
            RequestKind::AbortMultipart => {
                state.uploads.remove(self.upload());
                StatusCode::NO_CONTENT.into_response()
            }
            RequestKind::Delete => self.delete(state),
            RequestKind::Other => error(StatusCode::NOT_IMPLEMENTED, "NotImplemented"),
        }
    }

    fn upload(&self) -> &str {
        self.query.get("uploadId").map_or("", String::as_str)
    }

    fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    fn read(&self, state: &ServerState) -> Response {
        let Some(bytes) = state.objects.get(&self.path) else { return error(StatusCode::NOT_FOUND, "NoSuchKey") };
        let etag = etag(bytes);
        if self.header(header::IF_MATCH).is_some_and(|wanted| wanted != etag) {
            return error(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
        }
        let answer = Response::builder()
            .header(header::ETAG, etag)
            .header(header::LAST_MODIFIED, LAST_MODIFIED)
            .header(header::ACCEPT_RANGES, "bytes");
        let answer = match self.header(header::RANGE) {
            _ if self.kind == RequestKind::Head => {
                answer.header(header::CONTENT_LENGTH, bytes.len()).body(Body::empty())
            }
            None => answer.header(header::CONTENT_LENGTH, bytes.len()).body(Body::from(bytes.clone())),
            Some(range) => {
                let Some((start, end)) = byte_range(range, bytes.len()) else {
                    return error(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange");
                };
                answer
                    .status(StatusCode::PARTIAL_CONTENT)
                    .header(header::CONTENT_LENGTH, end - start)
                    .header(header::CONTENT_RANGE, format!("bytes {start}-{}/{}", end - 1, bytes.len()))
                    .body(Body::from(bytes.slice(start..end)))
            }
        };
        answer.expect("headers made of plain text")
    }

    fn store(&self, state: &mut ServerState, bytes: Bytes, done: impl FnOnce(String) -> Response) -> Response {
        let there = state.objects.get(&self.path);
        if self.header(header::IF_NONE_MATCH) == Some("*") && there.is_some() {
            return error(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
        }
        if self.header(header::IF_MATCH).is_some_and(|wanted| there.map(|bytes| etag(bytes)).as_deref() != Some(wanted))
        {
            return error(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
        }
        let etag = etag(&bytes);
        state.objects.insert(self.path.clone(), bytes);
        done(etag)
    }

    fn list(&self, state: &ServerState) -> Response {
        let (bucket, prefix) = self.path.split_once('/').unwrap_or((&self.path, ""));
        let delimiter = self.query.get("delimiter").filter(|delimiter| !delimiter.is_empty());
        let after = self.query.get("continuation-token").or_else(|| self.query.get("start-after"));
        let asked = self.query.get("max-keys").and_then(|keys| keys.parse().ok()).unwrap_or(PAGE_SIZE);
        let page_size = if state.page_size == 0 { asked } else { asked.min(state.page_size) };

        let mut contents = String::new();
        let mut folders = BTreeSet::new();
        let mut last = None;
        let mut truncated = false;
        let start = format!("{bucket}/{prefix}");
        let keys = state.objects.range(start.clone()..).take_while(|(path, _)| path.starts_with(&start));
        let mut on_page = 0;
        for (path, bytes) in keys {
            let key = &path[bucket.len() + 1..];
            let rest = &key[prefix.len()..];
            // What a listing with a delimiter gives for this key: the key itself, or the folder it lies in.
            let folder = delimiter.and_then(|by| rest.find(by).map(|at| &key[..prefix.len() + at + by.len()]));
            let entry = folder.unwrap_or(key);
            if after.is_some_and(|after| entry <= after.as_str()) || folders.contains(entry) {
                continue;
            }
            if on_page == page_size {
                truncated = true;
                break;
            }
            on_page += 1;
            last = Some(entry.to_owned());
            if folder.is_some() {
                folders.insert(entry.to_owned());
            } else {
                contents.push_str(&format!(
                    "<Contents><Key>{}</Key><LastModified>{LAST_MODIFIED_ISO}</LastModified><ETag>{}</ETag><Size>{}</Size></Contents>",
                    escape(key),
                    escape(&etag(bytes)),
                    bytes.len()
                ));
            }
        }
        let folders: String = folders
            .iter()
            .map(|folder| format!("<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>", escape(folder)))
            .collect();
        let next = match last.filter(|_| truncated) {
            Some(last) => format!("<NextContinuationToken>{}</NextContinuationToken>", escape(&last)),
            None => String::new(),
        };
        xml(format!(
            "<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{contents}{folders}{next}</ListBucketResult>"
        ))
    }

    fn delete(&self, state: &mut ServerState) -> Response {
        if !self.query.contains_key("delete") {
            state.objects.remove(&self.path);
            return StatusCode::NO_CONTENT.into_response();
        }
        let bucket = self.path.trim_end_matches('/');
        let document = String::from_utf8_lossy(&self.body);
        let mut deleted = String::new();
        for key in document.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next()) {
            state.objects.remove(&format!("{bucket}/{}", unescape(key)));
            deleted.push_str(&format!("<Deleted><Key>{key}</Key></Deleted>"));
        }
        xml(format!("<DeleteResult>{deleted}</DeleteResult>"))
    }
}

/// An S3 error document.
pub(super) fn error(status: StatusCode, code: &str) -> Response {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{code}</Message></Error>");
    (status, [(header::CONTENT_TYPE, "application/xml")], body).into_response()
}

fn xml(body: String) -> Response {
    ([(header::CONTENT_TYPE, "application/xml")], format!("<?xml version=\"1.0\"?>{body}")).into_response()
}

/// A tag of the content, as S3 gives for plain puts: the same bytes, the same tag.
fn etag(bytes: &[u8]) -> String {
    format!("\"{}\"", &schemas::sha256_hex(bytes)[..32])
}

/// `bytes=a-b`, `bytes=a-` and `bytes=-n` as start and end in an object of `size` bytes.
fn byte_range(range: &str, size: usize) -> Option<(usize, usize)> {
    let (start, end) = range.strip_prefix("bytes=")?.split_once('-')?;
    let (start, end) = match (start, end) {
        ("", last) => (size.saturating_sub(last.parse().ok()?), size),
        (start, "") => (start.parse().ok()?, size),
        (start, end) => (start.parse().ok()?, end.parse::<usize>().ok()?.saturating_add(1).min(size)),
    };
    (start < end).then_some((start, end))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn unescape(text: &str) -> String {
    text.replace("&quot;", "\"").replace("&apos;", "'").replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&")
}
