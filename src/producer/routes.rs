//! Decides from the head of a request what it asks for, and whether its body may be read.
//!
//! tiny_http's framing is lax: it ignores a bad `Content-Length`, uses the first of several, and treats any
//! `Transfer-Encoding` as chunked. Everything that could desynchronise a connection is therefore refused
//! here.

use crate::event::Format;
use crate::producer::answer::Answer;

/// The parts of a request head that decide how to handle it.
#[derive(Clone, Debug, Default)]
pub struct Head<'a> {
    /// As sent; known methods are in upper case.
    pub method: &'a str,
    /// Request target, including its query.
    pub target: &'a str,
    /// First `Content-Length`, as text.
    pub content_length: Option<&'a str>,
    /// There is more than one `Content-Length`.
    pub repeated_length: bool,
    /// There is a `Transfer-Encoding`.
    pub transfer_encoding: bool,
    /// `Connection` asks for an upgrade: tiny_http would give us the raw socket as the body.
    pub upgrade: bool,
    /// The whole body has already been read, so a refusal does not have to end the connection.
    pub body_is_here: bool,
    /// `Content-Type`, as text.
    pub content_type: Option<&'a str>,
    /// `Content-Encoding`, as text.
    pub content_encoding: Option<&'a str>,
}

/// The resources of the producer; also the `route` label of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// `POST /register_event`.
    RegisterEvent,
    /// `GET /livez`, `/health`.
    Livez,
    /// `GET /readyz`, `/healthz`, `/ready`.
    Readyz,
    /// `GET /metrics`.
    Metrics,
    /// `GET /version`.
    Version,
    /// Anything else.
    Unknown,
}

impl Route {
    /// All routes, in the order of their numbers.
    pub const ALL: [Self; 6] =
        [Self::RegisterEvent, Self::Livez, Self::Readyz, Self::Metrics, Self::Version, Self::Unknown];

    /// The label value.
    pub fn name(self) -> &'static str {
        match self {
            Self::RegisterEvent => "/register_event",
            Self::Livez => "/livez",
            Self::Readyz => "/readyz",
            Self::Metrics => "/metrics",
            Self::Version => "/version",
            Self::Unknown => "unknown",
        }
    }

    /// The resource that a request target names.
    pub fn of(target: &str) -> Self {
        match target.split_once('?').map_or(target, |(path, _)| path) {
            "/register_event" => Self::RegisterEvent,
            "/livez" | "/health" => Self::Livez,
            "/readyz" | "/healthz" | "/ready" => Self::Readyz,
            "/metrics" => Self::Metrics,
            "/version" => Self::Version,
            _ => Self::Unknown,
        }
    }
}

/// What to do with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Answer a `GET` for this route.
    Show(Route),
    /// Read `length` bytes and accept the events in them.
    Take {
        /// Body length in bytes, within the limit.
        length: usize,
        /// The body is compressed with gzip.
        gzip: bool,
        /// `None` means an object or an array, depending on the first character.
        format: Option<Format>,
    },
    /// Refuse the request. With `close`, the body will not be read, so the connection cannot be used any
    /// more.
    Refuse {
        /// The answer to send.
        answer: Answer,
        /// The body stays unread.
        close: bool,
    },
}

/// Decides about a request head; `max_body_bytes` limits the body as sent.
pub fn judge(head: &Head<'_>, max_body_bytes: usize) -> Verdict {
    if let Some(refusal) = broken_framing(head) {
        return Verdict::Refuse { answer: refusal, close: true };
    }
    let length = head.content_length.and_then(|text| text.parse::<usize>().ok());
    let has_body = length.is_some_and(|length| length > 0);
    let refuse = |answer| Verdict::Refuse { answer, close: has_body && !head.body_is_here };
    let route = Route::of(head.target);
    match (route, head.method) {
        (Route::Unknown, _) => {
            refuse(Answer::error(404, "not_found", "no such path; send events to POST /register_event"))
        }
        (Route::RegisterEvent, "POST") => take(head, length, max_body_bytes),
        (Route::RegisterEvent, _) => refuse(Answer::not_allowed("POST")),
        (_, "GET" | "HEAD") if has_body => {
            refuse(Answer::error(400, "unexpected_body", "a GET here must not have a body"))
        }
        (_, "GET" | "HEAD") => Verdict::Show(route),
        _ => refuse(Answer::not_allowed("GET, HEAD")),
    }
}

/// Refuses requests after which it is uncertain where the next one begins.
fn broken_framing(head: &Head<'_>) -> Option<Answer> {
    let bad = |tag, message| Some(Answer::error(400, tag, message));
    if head.transfer_encoding && head.content_length.is_some() {
        return bad(
            "ambiguous_length",
            "Transfer-Encoding and Content-Length cannot be combined; send only Content-Length",
        );
    }
    if head.transfer_encoding {
        return Some(Answer::error(
            411,
            "length_required",
            "Transfer-Encoding is not supported; send Content-Length",
        ));
    }
    if head.repeated_length {
        return bad("repeated_length", "more than one Content-Length; send only one");
    }
    if head.upgrade {
        return bad("upgrade", "protocol upgrades are not supported; omit `Connection: upgrade`");
    }
    let text = head.content_length?;
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits {
        return bad("bad_length", "Content-Length is not a number of bytes");
    }
    // The number does not fit in a usize. tiny_http sees no length then, so the request is refused before the
    // length can get lost.
    text.parse::<usize>().is_err().then(|| Answer::too_large("Content-Length", u64::MAX))
}

fn take(head: &Head<'_>, length: Option<usize>, max_body_bytes: usize) -> Verdict {
    let has_body = length.is_some_and(|length| length > 0);
    let refuse = |answer| Verdict::Refuse { answer, close: has_body && !head.body_is_here };
    let Some(length) = length else {
        return refuse(Answer::error(411, "length_required", "a POST needs a Content-Length"));
    };
    if length > max_body_bytes {
        return refuse(Answer::too_large("body", max_body_bytes as u64));
    }
    let gzip = match head.content_encoding.map(str::trim) {
        None => false,
        Some(coding) if coding.eq_ignore_ascii_case("identity") => false,
        Some(coding) if coding.eq_ignore_ascii_case("gzip") || coding.eq_ignore_ascii_case("x-gzip") => true,
        Some(_) => {
            let message = "Content-Encoding must be gzip or absent";
            return refuse(Answer::error(415, "unsupported_encoding", message));
        }
    };
    match format(head.content_type) {
        Some(format) => Verdict::Take { length, gzip, format },
        None => {
            let message = "Content-Type must be application/json or application/x-ndjson";
            refuse(Answer::error(415, "unsupported_media_type", message))
        }
    }
}

/// The outer `None` means that the type is refused. A missing type, and the type that `curl -d` sends by
/// default, count as JSON, because the original accepted any type.
fn format(content_type: Option<&str>) -> Option<Option<Format>> {
    let Some(text) = content_type else { return Some(None) };
    let essence = text.split(';').next().unwrap_or_default().trim();
    let is = |name: &str| essence.eq_ignore_ascii_case(name);
    if is("application/json")
        || is("application/x-www-form-urlencoded")
        || is("text/plain")
        || is("text/json")
    {
        return Some(None);
    }
    (is("application/x-ndjson") || is("application/ndjson") || is("application/jsonl"))
        .then_some(Some(Format::Ndjson))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn post() -> Head<'static> {
        Head { method: "POST", target: "/register_event", content_length: Some("10"), ..Head::default() }
    }

    fn refused(head: &Head<'_>) -> (u16, bool) {
        match judge(head, 1000) {
            Verdict::Refuse { answer, close } => (answer.status, close),
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn a_plain_post_is_taken() {
        let taken = Verdict::Take { length: 10, gzip: false, format: None };
        assert_eq!(judge(&post(), 1000), taken);
        let typed = Head { content_type: Some("application/json; charset=utf-8"), ..post() };
        assert_eq!(judge(&typed, 1000), taken);
        let lines =
            Head { content_type: Some("Application/X-NDJSON"), content_encoding: Some("GZIP"), ..post() };
        let format = Some(Format::Ndjson);
        assert_eq!(judge(&lines, 1000), Verdict::Take { length: 10, gzip: true, format });
    }

    #[test]
    fn what_could_desynchronise_the_connection_is_refused_and_closed() {
        let cases = [
            (Head { content_length: Some("abc"), ..post() }, 400),
            (Head { content_length: Some("+2"), ..post() }, 400),
            (Head { content_length: Some(""), ..post() }, 400),
            (Head { content_length: Some("-1"), ..post() }, 400),
            (Head { content_length: Some("99999999999999999999999"), ..post() }, 413),
            (Head { repeated_length: true, ..post() }, 400),
            (Head { transfer_encoding: true, ..post() }, 400),
            (Head { transfer_encoding: true, content_length: None, ..post() }, 411),
            (Head { upgrade: true, ..post() }, 400),
            (Head { content_length: Some("1001"), ..post() }, 413),
            (Head { content_encoding: Some("br"), ..post() }, 415),
            (Head { content_type: Some("text/html"), ..post() }, 415),
            (Head { method: "PUT", ..post() }, 405),
            (Head { target: "/nothing", ..post() }, 404),
            (Head { method: "GET", target: "/livez", ..post() }, 400),
        ];
        for (head, status) in cases {
            assert_eq!(refused(&head), (status, true), "{head:?}");
        }
    }

    #[test]
    fn a_refusal_whose_body_is_here_keeps_the_connection_unless_the_framing_is_broken() {
        let here = Head { body_is_here: true, ..post() };
        assert_eq!(refused(&Head { target: "/nothing", ..here.clone() }), (404, false));
        assert_eq!(refused(&Head { content_type: Some("text/html"), ..here.clone() }), (415, false));
        assert_eq!(refused(&Head { method: "GET", target: "/livez", ..here.clone() }), (400, false));
        assert_eq!(refused(&Head { repeated_length: true, ..here.clone() }), (400, true));
        assert_eq!(refused(&Head { content_length: Some("abc"), ..here }), (400, true));
    }

    #[test]
    fn a_refusal_without_a_body_keeps_the_connection() {
        let bare = Head { content_length: None, ..post() };
        assert_eq!(refused(&bare), (411, false));
        assert_eq!(refused(&Head { method: "DELETE", ..bare.clone() }), (405, false));
        assert_eq!(refused(&Head { target: "/", ..bare }), (404, false));
    }

    #[test]
    fn aliases_and_queries_lead_to_the_same_route() {
        for (target, route) in [
            ("/livez", Route::Livez),
            ("/health", Route::Livez),
            ("/readyz?verbose", Route::Readyz),
            ("/healthz", Route::Readyz),
            ("/metrics", Route::Metrics),
            ("/version", Route::Version),
        ] {
            let head = Head { method: "GET", target, ..Head::default() };
            assert_eq!(judge(&head, 10), Verdict::Show(route), "{target}");
        }
    }
}
