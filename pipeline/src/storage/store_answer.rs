//! An answer by which a store refuses or fails a request: what it means, whether it can pass by itself, and what to change if not.

use super::Access;
use std::borrow::Cow;

/// Longest word of a server's own that is repeated.
const LONGEST_MESSAGE: usize = 300;

/// What Azure says of a signature that has expired, or is not valid yet.
const OUT_OF_ITS_TIME: &str = "not valid in the specified time frame";

/// The answer to a request that was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store answered {} to {method}{}", self.what(), self.message.as_ref().map_or(String::new(), |message| format!(" ({message})")))]
pub(super) struct StoreAnswer {
    status: u16,
    method: String,
    /// The store's own word for it, such as `NoSuchBucket`.
    code: Option<String>,
    message: Option<String>,
    /// Where the bucket lies, if the answer tells.
    region: Option<String>,
}

impl StoreAnswer {
    /// Takes an answer apart. `body` may be an error document of S3, GCS or Azure, or whatever a web server says.
    pub(super) fn new(status: u16, method: &str, region: Option<&str>, body: &str) -> Self {
        let code = element(body, "Code");
        // Azure tells what is wrong with a signature beside its message.
        let detail = element(body, "AuthenticationErrorDetail").filter(|detail| detail.contains(OUT_OF_ITS_TIME));
        let message = detail.or_else(|| element(body, "Message")).or_else(|| plain_words(body));
        let message = message.map(|message| shortened(&message));
        let region = region.map(str::to_owned).or_else(|| element(body, "Region"));
        Self { status, method: method.to_owned(), code, message, region }
    }

    /// Finds an answer in what `object_store` says of it, which is all that is left of some.
    pub(super) fn in_words(said: &str) -> Option<Self> {
        let method = said.split_once("Error performing ").and_then(|(_, rest)| rest.split(' ').next());
        // "Error performing list request: Error performing GET …"
        let method = match method {
            Some("list") | None => said.rsplit_once("Error performing ").and_then(|(_, rest)| rest.split(' ').next()),
            method => method,
        };
        let method = method.unwrap_or("a request");
        if let Some((_, rest)) = said.split_once("status code: ") {
            let status = rest.get(..3)?.parse().ok()?;
            let body = rest.split_once(": ").map_or("", |(_, body)| body);
            return Some(Self::new(status, method, None, body));
        }
        // S3 may find out in the middle of its answer that it cannot go on.
        let (_, body) = said.split_once("Server returned error response: ")?;
        Some(Self::new(500, method, None, body))
    }

    /// Whether an answer of this status may be another one when it is asked for again.
    pub(super) fn may_pass(method: &str, status: u16) -> bool {
        match status {
            408 | 425 | 429 => true,
            // So says more than one web server that does not know the method.
            500 => method != "PROPFIND",
            // Not implemented; no such version of HTTP; the network wants somebody to log in.
            501 | 505 | 511 => false,
            _ => status >= 500,
        }
    }

    /// Whether asking again may help.
    pub(super) fn heals(&self) -> bool {
        // S3 says so when it waited for the client, with the status of a mistake.
        Self::may_pass(&self.method, self.status) || self.code.as_deref() == Some("RequestTimeout")
    }

    pub(super) fn status(&self) -> u16 {
        self.status
    }

    /// Status and code, as one says them.
    fn what(&self) -> String {
        match (&self.code, status_name(self.status)) {
            (Some(code), _) => format!("{} {code}", self.status),
            (None, Some(name)) => format!("{} {name}", self.status),
            (None, None) => self.status.to_string(),
        }
    }

    /// What somebody has to change.
    pub(super) fn advice(&self, access: Access) -> Option<Cow<'static, str>> {
        let code = self.code.as_deref().unwrap_or_default();
        let message = self.message.as_deref().unwrap_or_default();
        if matches!(self.status, 301 | 307 | 308)
            || matches!(
                code,
                "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException"
            )
        {
            return Some(match (&self.region, access) {
                (Some(region), _) => format!("the bucket lies in the region {region}: set AWS_REGION={region}").into(),
                (None, Access::Aws) => {
                    "the bucket lies in another region or behind another endpoint: set AWS_REGION, or AWS_ENDPOINT"
                        .into()
                }
                (None, _) => "it lies elsewhere: use the address that it was moved to".into(),
            });
        }
        let expired =
            matches!(code, "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" | "RequestExpired")
                || message.contains("expired")
                || message.contains(OUT_OF_ITS_TIME);
        let archived = matches!(code, "InvalidObjectState" | "BlobArchived");
        if access == Access::Signed && matches!(self.status, 400 | 401 | 403) && !archived {
            return Some(if expired {
                "the signed URL has expired: have a new one made".into()
            } else {
                "the signed URL is not accepted: it may have expired, or be signed for another object or another request than GET".into()
            });
        }
        if expired {
            let token = access.variables("AWS_SESSION_TOKEN");
            return Some(
                format!("the credentials have expired: get new ones ({token}) and start the same command again").into(),
            );
        }
        Some(match code {
            "NoSuchBucket" => "there is no bucket of this name here: check the address, AWS_REGION and AWS_ENDPOINT".into(),
            "ContainerNotFound" => "there is no container of this name in the account: check the address".into(),
            "InvalidAccessKeyId" => "this store does not know the key: check AWS_ACCESS_KEY_ID, and AWS_ENDPOINT if it is not AWS's own".into(),
            "SignatureDoesNotMatch" => format!("the secret does not fit its key: check {}", access.variables("AWS_SECRET_ACCESS_KEY")).into(),
            "InvalidToken" => "the session token does not fit its key: check AWS_SESSION_TOKEN".into(),
            "RequestTimeTooSkewed" => "the clock of this machine is wrong: set it".into(),
            _ if archived => "the object is archived: restore it first".into(),
            _ => match self.status {
                401 => format!("it wants credentials: check {}", access.variables("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")).into(),
                403 => match access {
                    Access::Web => "the server refuses it: check the address, and who may read it".into(),
                    _ => format!("the credentials may not do this: check {}, and what the bucket grants them", access.variables("AWS_ACCESS_KEY_ID")).into(),
                },
                404 | 409 | 412 => return None,
                _ if self.method == "PROPFIND" => "this server lists no folders".into(),
                416 => "the object ends before the bytes that were asked for".into(),
                405 | 501 if self.method == "PUT" => {
                    "the store does not know this kind of write; outputs are created with If-None-Match, which it must know: choose another output".into()
                }
                405 | 501 => "the server does not carry out such requests".into(),
                407 | 511 => "something between here and the store wants a login: check the proxy".into(),
                300..=399 => "the server only points elsewhere: use the address that it points to".into(),
                400..=499 => "the store will not carry out this request however often it is asked: check the address and the endpoint".into(),
                _ => return None,
            },
        })
    }
}

/// The text of an XML element, if there is one with text.
fn element(document: &str, name: &str) -> Option<String> {
    let (_, rest) = document.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    let text = quick_xml::escape::unescape(text).map_or_else(|_| text.to_owned(), Cow::into_owned);
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    (!text.is_empty()).then_some(text)
}

/// What a server says that sends no error document, if it is no page either.
fn plain_words(body: &str) -> Option<String> {
    let words = body.split_whitespace().collect::<Vec<_>>().join(" ");
    (!words.is_empty() && !words.contains('<')).then_some(words)
}

fn shortened(message: &str) -> String {
    match message.char_indices().nth(LONGEST_MESSAGE) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message.to_owned(),
    }
}

/// The names of the statuses that stores answer.
fn status_name(status: u16) -> Option<&'static str> {
    Some(match status {
        301 => "Moved Permanently",
        302 => "Found",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        412 => "Precondition Failed",
        416 => "Range Not Satisfiable",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        507 => "Insufficient Storage",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_found_in_the_words_of_the_client() {
        let said = "Generic S3 error: Error performing list request: Error performing GET http://host/b?prefix=a in 2ms, after 3 \
                    retries, max_retries: 3, retry_timeout: 5s  - Server returned non-2xx status code: 403 Forbidden: \
                    <Error><Code>AccessDenied</Code><Message>Access &quot;Denied&quot;</Message></Error>";
        let answer = StoreAnswer::in_words(said).expect("an answer");
        assert_eq!((answer.status, answer.method.as_str(), answer.heals()), (403, "GET", false));
        assert_eq!(answer.to_string(), "the store answered 403 AccessDenied to GET (Access \"Denied\")");
        let said = "Error performing POST http://host/b in 2ms - Server returned error response: <Error><Code>SlowDown</Code></Error>";
        assert!(StoreAnswer::in_words(said).expect("an answer").heals());
        assert_eq!(StoreAnswer::in_words("connection refused"), None);
    }

    #[test]
    fn a_page_of_a_web_server_is_not_repeated_and_plain_words_are() {
        let page = StoreAnswer::new(502, "GET", None, "<html><h1>Bad Gateway</h1></html>");
        assert_eq!(page.to_string(), "the store answered 502 Bad Gateway to GET");
        let words = StoreAnswer::new(403, "GET", None, "no\nentry ");
        assert_eq!(words.to_string(), "the store answered 403 Forbidden to GET (no entry)");
        assert!(StoreAnswer::new(400, "GET", None, &"long ".repeat(999)).to_string().len() < 400);
    }

    #[test]
    fn what_was_done_about_a_region_or_a_url_is_what_helps() {
        let advice = |answer: StoreAnswer, access| answer.advice(access).expect("advice").into_owned();
        assert!(
            advice(StoreAnswer::new(301, "HEAD", Some("eu-west-3"), ""), Access::Aws).contains("AWS_REGION=eu-west-3")
        );
        let other = "<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-3</Region></Error>";
        assert!(advice(StoreAnswer::new(400, "GET", None, other), Access::Aws).contains("AWS_REGION=eu-west-3"));
        let expired = "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>";
        assert!(
            advice(StoreAnswer::new(403, "GET", None, expired), Access::Signed).contains("has expired: have a new one")
        );
        let azure = "<Error><Code>AuthenticationFailed</Code><Message>Server failed to authenticate the request.</Message>\
                     <AuthenticationErrorDetail>Signed expiry time [Thu, 01 Jan 2026 00:00:00 GMT] has to be after signed start time: \
                     Signature not valid in the specified time frame</AuthenticationErrorDetail></Error>";
        assert!(
            advice(StoreAnswer::new(403, "GET", None, azure), Access::Signed).contains("has expired: have a new one")
        );
        let archived = "<Error><Code>InvalidObjectState</Code></Error>";
        assert!(advice(StoreAnswer::new(403, "GET", None, archived), Access::Signed).contains("restore it"));
        assert!(advice(StoreAnswer::new(403, "GET", None, ""), Access::Azure).contains("AZURE_"));
        assert!(!advice(StoreAnswer::new(403, "GET", None, ""), Access::Web).contains("AWS_"));
    }
}
