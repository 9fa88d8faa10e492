//! Builds HTTP answers and encodes each one into a single buffer, so that it can be sent in one write.

use std::borrow::Cow;
use std::io::Write;
use std::time::Duration;

use serde::Serialize;

use crate::access::origins::{Fields, answer_fields};
use crate::producer::status::{ErrorTag, Status};

/// Media type of JSON bodies.
pub const JSON: &str = "application/json";

/// Longest `X-Request-Id` that is echoed, in bytes.
const MAX_REQUEST_ID_BYTES: usize = 128;

/// Whether an `X-Request-Id` is echoed: it is short and printable.
pub fn is_echoed(request_id: &str) -> bool {
    request_id.len() <= MAX_REQUEST_ID_BYTES && request_id.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The answer to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: Status,
    pub content_type: &'static str,
    pub body: Cow<'static, [u8]>,
    /// Further headers, as names and values.
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
    /// The connection has to end after this answer, because the body of the request stays unread or the start of
    /// the next request is unknown.
    pub close: bool,
}

/// What becomes of the connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It ends.
    Close,
    /// It stays open.
    Stay,
    /// It stays open, and is closed after this many seconds of silence.
    #[cfg_attr(not(any(feature = "edge", test)), expect(dead_code, reason = "only `edge` says so"))]
    StayFor(u64),
}

/// Body of an error answer.
#[derive(Serialize)]
struct ErrorBody<'a> {
    error: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
    retryable: bool,
}

impl Answer {
    /// Creates an answer with the given body, after which the connection stays open.
    pub fn new(status: Status, content_type: &'static str, body: impl Into<Cow<'static, [u8]>>) -> Self {
        Self { status, content_type, body: body.into(), headers: Vec::new(), close: false }
    }

    /// Creates an answer with `body` as JSON.
    pub fn json(status: Status, body: &impl Serialize) -> Self {
        Self::new(status, JSON, serde_json::to_vec(body).unwrap_or_default())
    }

    /// An error; `message` is for people.
    pub fn error(tag: ErrorTag, message: &str) -> Self {
        Self::failure(tag, message, None)
    }

    /// A 413: `what` exceeds a limit in bytes.
    pub fn too_large(what: &str, limit: u64) -> Self {
        let message = format!("{what} is larger than {limit} bytes; send less per request");
        Self::failure(ErrorTag::PayloadTooLarge, &message, Some(limit))
    }

    /// A 405: the path exists, but does not support the method.
    pub fn not_allowed(allow: &'static str) -> Self {
        let message = format!("this path accepts only {allow}");
        Self::error(ErrorTag::MethodNotAllowed, &message).with_header("Allow", allow)
    }

    /// A 500 for a request that was lost in a panic; what became of its events is unknown.
    pub fn lost() -> Self {
        Self::error(ErrorTag::Internal, "this request hit a bug; its events may be in Kafka")
    }

    fn failure(tag: ErrorTag, message: &str, limit: Option<u64>) -> Self {
        let body = ErrorBody { error: tag.as_str(), message, limit, retryable: tag.is_retryable() };
        Self::json(tag.status(), &body)
    }

    /// Adds a header.
    pub fn with_header(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Adds headers.
    pub fn with_headers(mut self, fields: Fields) -> Self {
        self.headers.extend(fields.into_iter().map(|(name, value)| (name, value.into())));
        self
    }

    /// Allows a page of this origin to read the answer.
    pub fn readable_by(self, origin: Option<&str>) -> Self {
        match origin {
            Some(origin) => self.with_headers(answer_fields(origin)),
            None => self,
        }
    }

    /// Adds `Retry-After`, in whole seconds.
    pub fn retry_after(self, wait: Duration) -> Self {
        self.with_header("Retry-After", wait.as_secs().max(1).to_string())
    }

    /// Sets whether the connection has to end after this answer.
    pub fn closing(self, close: bool) -> Self {
        Self { close, ..self }
    }

    /// Appends the whole answer to `out`. `date` is the current IMF-fixdate; `after` announces what
    /// becomes of the connection; `head_only` omits the body. `request_id` is echoed if it is short and printable.
    pub fn encode(
        &self,
        date: &str,
        request_id: Option<&str>,
        after: After,
        head_only: bool,
        out: &mut Vec<u8>,
    ) {
        let (code, reason) = (self.status.code(), self.status.reason());
        let _ = write!(out, "HTTP/1.1 {code} {reason}\r\nDate: {date}\r\n");
        // RFC 9110, 8.6: a 204 has no length.
        if self.status != Status::NoContent {
            let (kind, length) = (self.content_type, self.body.len());
            let _ = write!(out, "Content-Type: {kind}\r\nContent-Length: {length}\r\n");
        }
        for (name, value) in &self.headers {
            let _ = write!(out, "{name}: {value}\r\n");
        }
        if let Some(id) = request_id.filter(|id| is_echoed(id)) {
            let _ = write!(out, "X-Request-Id: {id}\r\n");
        }
        match after {
            After::Close => out.extend_from_slice(b"Connection: close\r\n"),
            After::Stay => {}
            After::StayFor(secs) => {
                let _ = write!(out, "Connection: keep-alive\r\nKeep-Alive: timeout={secs}\r\n");
            }
        }
        out.extend_from_slice(b"\r\n");
        if !head_only {
            out.extend_from_slice(&self.body);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(answer: &Answer, request_id: Option<&str>, after: After, head_only: bool) -> String {
        let mut wire = Vec::new();
        answer.encode("Tue, 24 Nov 2026 08:00:00 GMT", request_id, after, head_only, &mut wire);
        String::from_utf8(wire).expect("text")
    }

    #[test]
    fn an_answer_is_one_whole_response() {
        let answer = Answer::new(Status::Ok, "text/plain", &b"ok"[..]).with_header("X-Any", "thing");
        let head = "HTTP/1.1 200 OK\r\nDate: Tue, 24 Nov 2026 08:00:00 GMT\r\n\
                    Content-Type: text/plain\r\nContent-Length: 2\r\nX-Any: thing\r\n";
        assert_eq!(
            encoded(&answer, Some("r-1"), After::Stay, false),
            format!("{head}X-Request-Id: r-1\r\n\r\nok")
        );
        assert_eq!(
            encoded(&answer, Some("a b"), After::Close, true),
            format!("{head}Connection: close\r\n\r\n")
        );
        assert_eq!(encoded(&answer, Some(&"x".repeat(129)), After::Stay, true), format!("{head}\r\n"));
    }

    #[test]
    fn an_error_says_what_and_whether_to_retry() {
        let answer = Answer::error(ErrorTag::Overloaded, "full").retry_after(Duration::from_secs(3));
        let body = |answer: &Answer| serde_json::from_slice::<serde_json::Value>(&answer.body).expect("JSON");
        let json = serde_json::json!({"error": "overloaded", "message": "full", "retryable": true});
        assert_eq!(body(&answer), json);
        assert!(
            encoded(&answer, None, After::StayFor(9), true)
                .contains("\r\nRetry-After: 3\r\nConnection: keep-alive\r\nKeep-Alive: timeout=9\r\n")
        );
        assert_eq!(body(&Answer::too_large("body", 10))["limit"], 10);
    }
}
