//! What can go wrong with a request, and which requests it goes wrong with.

use super::Random;
use bytes::Bytes;

/// Kinds of request, as they are counted and chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RequestKind {
    /// GET of an object, whole or in part.
    Get,
    /// HEAD of an object.
    Head,
    /// ListObjectsV2, a page each.
    List,
    /// PUT of a whole object.
    Put,
    /// Start of a multipart upload.
    CreateMultipart,
    /// PUT of a part.
    PutPart,
    /// End of a multipart upload.
    CompleteMultipart,
    /// Multipart upload given up.
    AbortMultipart,
    /// DELETE of one object, or a bulk delete.
    Delete,
    /// Anything else.
    Other,
}

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// 503 SlowDown; nothing is done.
    SlowDown,
    /// 500 InternalError; nothing is done.
    InternalError,
    /// 403 AccessDenied; nothing is done.
    AccessDenied,
    /// Any other refusal, by status and S3's own code; nothing is done.
    Refused(u16, &'static str),
    /// 301 PermanentRedirect without an address to go to, and the region where the bucket lies in a header: what S3 answers when it is
    /// asked in another one.
    InRegion(&'static str),
    /// The answer without its `Content-Length`.
    NoLength,
    /// 409 ConditionalRequestConflict; nothing is done. S3 answers so when another conditional write is under way.
    Conflict,
    /// The connection ends without an answer; nothing is done.
    HangUp,
    /// No answer ever; nothing is done.
    Stall,
    /// Half of the body, then a TCP reset.
    ResetBody,
    /// Half of the body, then the end of the connection, short of `Content-Length`.
    TruncateBody,
    /// Half of the body, then silence.
    StallBody,
    /// The request is carried out, and answered with 500.
    CommitThenError,
    /// The request is carried out, and the connection ends without an answer.
    CommitThenHangUp,
    /// The request is carried out, and never answered.
    CommitThenStall,
}

/// Which requests suffer a fault: by default every one, for ever.
#[derive(Clone, Debug)]
pub struct FaultRule {
    fault: Fault,
    kind: Option<RequestKind>,
    path_contains: String,
    skip: u64,
    times: u64,
    fraction: f64,
    random: Random,
    change: Option<(String, Option<Bytes>)>,
}

impl FaultRule {
    /// Every request suffers `fault`, until narrowed.
    pub fn new(fault: Fault) -> Self {
        Self {
            fault,
            kind: None,
            path_contains: String::new(),
            skip: 0,
            times: u64::MAX,
            fraction: 1.0,
            random: Random::new(0),
            change: None,
        }
    }

    /// Whether the client must lose patience to get past the fault.
    pub fn is_silent(&self) -> bool {
        matches!(self.fault, Fault::Stall | Fault::StallBody | Fault::CommitThenStall)
    }

    /// Only requests of this kind.
    pub fn on(self, kind: RequestKind) -> Self {
        Self { kind: Some(kind), ..self }
    }

    /// Only requests whose `bucket/key` (for a listing: `bucket/prefix`) contains `part`.
    pub fn path_contains(self, part: &str) -> Self {
        Self { path_contains: part.to_owned(), ..self }
    }

    /// Not the first `skip` of them.
    pub fn after(self, skip: u64) -> Self {
        Self { skip, ..self }
    }

    /// At most `times` of them.
    pub fn times(self, times: u64) -> Self {
        Self { times, ..self }
    }

    /// Only a fraction of them, 0 to 1, drawn from `seed`.
    pub fn fraction(self, fraction: f64, seed: u64) -> Self {
        Self { fraction, random: Random::new(seed), ..self }
    }

    /// And before the request fails, somebody else has removed the object at `bucket/key`, or put these bytes in its place.
    pub fn after_change(self, path: &str, bytes: Option<Bytes>) -> Self {
        Self { change: Some((path.to_owned(), bytes)), ..self }
    }

    /// What somebody else has done to an object before a request fails.
    pub(super) fn change(&self) -> Option<&(String, Option<Bytes>)> {
        self.change.as_ref()
    }

    /// Whether this request suffers, and what.
    pub(super) fn strike(&mut self, kind: RequestKind, path: &str) -> Option<Fault> {
        if self.kind.is_some_and(|wanted| wanted != kind) || !path.contains(&self.path_contains) {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        if self.times == 0 || !self.random.chance(self.fraction) {
            return None;
        }
        self.times -= 1;
        Some(self.fault)
    }
}
