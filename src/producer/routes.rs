//! Decides from the head of a request what it asks for, and whether its body may be read.
//!
//! A front may be lax about framing: ignore a bad `Content-Length`, use the first of several, or treat any
//! `Transfer-Encoding` as chunked. Everything that could desynchronise a connection is therefore refused here.

use crate::access::origins::Origins;
use crate::producer::answer::Answer;
use crate::producer::head::Head;
use crate::producer::media::{Coding, MediaType};
use crate::producer::status::ErrorTag;

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

/// Every path and the resource that it names.
pub const PATHS: [(&str, Route); 8] = [
    ("/register_event", Route::RegisterEvent),
    ("/livez", Route::Livez),
    ("/health", Route::Livez),
    ("/readyz", Route::Readyz),
    ("/healthz", Route::Readyz),
    ("/ready", Route::Readyz),
    ("/metrics", Route::Metrics),
    ("/version", Route::Version),
];

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
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        let path = path.strip_suffix('/').unwrap_or(path);
        PATHS.iter().find(|(known, _)| *known == path).map_or(Self::Unknown, |(_, route)| *route)
    }

    /// The methods that it supports, as `Allow` lists them.
    pub fn methods(self) -> &'static str {
        match self {
            Self::RegisterEvent => "POST",
            _ => "GET, HEAD",
        }
    }
}

/// Which requests are accepted.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Largest body as sent, in bytes.
    pub max_body_bytes: usize,
    /// Pages for operators are served here too.
    pub has_pages: bool,
    /// Origins whose pages may read the answers.
    pub origins: Origins,
}

/// A body whose events may be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Body {
    /// Its length in bytes, within the limit.
    pub length: usize,
    /// The front has already read it.
    pub is_here: bool,
    /// How it is compressed.
    pub coding: Option<Coding>,
    /// What its type says about its events.
    pub media_type: MediaType,
}

impl Body {
    /// True if it must not be read by a thread that receives requests: it is still on the socket, or it is
    /// compressed and can grow a thousandfold.
    pub fn needs_thread(&self) -> bool {
        !self.is_here || self.coding.is_some()
    }
}

/// What to do with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Answer a `GET` for this route.
    Show(Route),
    /// Read the body and accept the events in it.
    Take(Body),
    /// A browser asks whether a page of this origin may post.
    Preflight,
    /// Refuse the request.
    Refuse(Answer),
}

/// Decides about a request head.
pub fn judge(head: &Head<'_>, policy: &Policy) -> Verdict {
    if let Some(refusal) = broken_framing(head) {
        return Verdict::Refuse(refusal.closing(true));
    }
    let length = head.content_length.and_then(|text| text.parse::<usize>().ok());
    let has_body = length.is_some_and(|length| length > 0);
    let route = Route::of(head.target);
    let verdict = match (route, head.method) {
        (Route::RegisterEvent, "OPTIONS") if !policy.origins.is_empty() => Ok(Verdict::Preflight),
        (route, _) if route == Route::Unknown || route != Route::RegisterEvent && !policy.has_pages => {
            Err(Answer::error(ErrorTag::NotFound, "no such path; send events to POST /register_event"))
        }
        (Route::RegisterEvent, "POST") => body(head, length, policy).map(Verdict::Take),
        (Route::RegisterEvent, _) => Err(Answer::not_allowed(route.methods())),
        (_, "GET" | "HEAD") if has_body => {
            Err(Answer::error(ErrorTag::UnexpectedBody, "a GET here must not have a body"))
        }
        (_, "GET" | "HEAD") => Ok(Verdict::Show(route)),
        _ => Err(Answer::not_allowed(route.methods())),
    };
    verdict.unwrap_or_else(|answer| Verdict::Refuse(answer.closing(has_body && !head.body_is_here)))
}

/// Refuses requests after which it is uncertain where the next one begins.
fn broken_framing(head: &Head<'_>) -> Option<Answer> {
    let bad = |tag, message| Some(Answer::error(tag, message));
    if head.transfer_encoding && head.content_length.is_some() {
        let message = "Transfer-Encoding and Content-Length cannot be combined; send only Content-Length";
        return bad(ErrorTag::AmbiguousLength, message);
    }
    if head.transfer_encoding {
        return bad(ErrorTag::LengthRequired, "Transfer-Encoding is not supported; send Content-Length");
    }
    if head.repeated_length {
        return bad(ErrorTag::RepeatedLength, "more than one Content-Length; send only one");
    }
    if head.upgrade {
        return bad(ErrorTag::Upgrade, "protocol upgrades are not supported; omit `Connection: upgrade`");
    }
    let text = head.content_length?;
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits {
        return bad(ErrorTag::BadLength, "Content-Length is not a number of bytes");
    }
    // The number does not fit in a usize. A front may see no length then, so the request is refused before the
    // length can get lost.
    text.parse::<usize>().is_err().then(|| Answer::too_large("Content-Length", u64::MAX))
}

fn body(head: &Head<'_>, length: Option<usize>, policy: &Policy) -> Result<Body, Answer> {
    let Some(length) = length else {
        return Err(Answer::error(ErrorTag::LengthRequired, "a POST needs a Content-Length"));
    };
    if length > policy.max_body_bytes {
        return Err(Answer::too_large("body", policy.max_body_bytes as u64));
    }
    let coding = Coding::of(head.content_encoding)?;
    let media_type = MediaType::of(head.content_type)?;
    Ok(Body { length, is_here: head.body_is_here, coding, media_type })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn post() -> Head<'static> {
        Head { method: "POST", target: "/register_event", content_length: Some("10"), ..Head::default() }
    }

    fn policy() -> Policy {
        Policy { max_body_bytes: 1000, has_pages: true, origins: Origins::default() }
    }

    fn refused(head: &Head<'_>) -> (u16, bool) {
        match judge(head, &policy()) {
            Verdict::Refuse(answer) => (answer.status.code(), answer.close),
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn a_plain_post_is_taken() {
        let plain = Body { length: 10, is_here: false, coding: None, media_type: MediaType::Json };
        let taken = Verdict::Take(plain);
        assert_eq!(judge(&post(), &policy()), taken);
        let typed = Head { content_type: Some("application/json; charset=utf-8"), ..post() };
        assert_eq!(judge(&typed, &policy()), taken);
        let lines =
            Head { content_type: Some("Application/X-NDJSON"), content_encoding: Some("GZIP"), ..post() };
        let compressed = Body { coding: Some(Coding::Gzip), media_type: MediaType::Ndjson, ..plain };
        assert_eq!(judge(&lines, &policy()), Verdict::Take(compressed));
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
            ("/readyz/?verbose", Route::Readyz),
            ("/healthz", Route::Readyz),
            ("/metrics", Route::Metrics),
            ("/version", Route::Version),
        ] {
            let head = Head { method: "GET", target, ..Head::default() };
            assert_eq!(judge(&head, &policy()), Verdict::Show(route), "{target}");
        }
        assert_eq!(Route::of("/register_event/?a=/"), Route::RegisterEvent);
        for target in ["", "/", "/livez//", "//livez", "/register_event/x"] {
            assert_eq!(Route::of(target), Route::Unknown, "{target}");
        }
    }
}
