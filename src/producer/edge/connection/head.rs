//! Parses a complete request head.

use std::mem::MaybeUninit;

use crate::producer::answer::is_echoed;
use crate::producer::head::Head;

use super::fields::{Fields, Length};
use super::limits::MAX_HEADERS;
use super::refusal::Refusal;

/// A part of a head, as offsets into its bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: u32,
    end: u32,
}

/// A parsed head, without the bytes.
#[derive(Clone, Copy, Debug)]
pub struct Parsed {
    /// Length of the head in bytes.
    pub bytes: usize,
    method: Span,
    target: Span,
    content_type: Option<Span>,
    content_encoding: Option<Span>,
    content_length: Option<Span>,
    request_id: Option<Span>,
    /// The length of the body.
    pub length: Length,
    /// The method is `HEAD`, so the answer has no body.
    pub is_head: bool,
    /// The connection stays open after this request, as far as the client is concerned.
    pub persists: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects: bool,
}

/// Parses `head`, which ends with its empty line.
///
/// # Errors
/// The head is not HTTP/1.1, or where its body ends is uncertain.
pub fn parse(head: &[u8]) -> Result<Parsed, Refusal> {
    let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut []);
    request.parse_with_uninit_headers(head, &mut headers).map_err(malformed)?;
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Err(Refusal::BadHead("the head is incomplete"));
    };
    let is_old = version == 0;
    let fields = Fields::of(request.headers)?;
    let length = fields.body_length(is_old)?;
    if fields.hosts > 1 || fields.hosts == 0 && !is_old {
        return Err(Refusal::BadHead("an HTTP/1.1 request has exactly one Host header"));
    }
    if fields.has_bad_host {
        return Err(Refusal::BadHead("Host is not a host with an optional port"));
    }
    let expects = match fields.expect {
        // HTTP/1.0 has no interim answers.
        Some(_) if is_old => false,
        Some(false) => return Err(Refusal::UnknownExpectation),
        expects => expects.is_some() && !matches!(length, Length::Absent | Length::Known(0)),
    };
    let span = |part: &[u8]| {
        let start = part.as_ptr() as usize - head.as_ptr() as usize;
        Span { start: start as u32, end: (start + part.len()) as u32 }
    };
    Ok(Parsed {
        bytes: head.len(),
        method: span(method.as_bytes()),
        target: span(path(target).as_bytes()),
        content_type: fields.content_type.map(span),
        content_encoding: fields.content_encoding.map(span),
        content_length: fields.length.map(span),
        request_id: fields.request_id.map(span),
        length,
        is_head: method == "HEAD",
        persists: !fields.close && (!is_old || fields.keep_alive),
        expects,
    })
}

fn malformed(error: httparse::Error) -> Refusal {
    match error {
        httparse::Error::TooManyHeaders => Refusal::TooManyHeaders(MAX_HEADERS),
        httparse::Error::HeaderName => Refusal::BadHead(
            "a header's name is malformed: no space may precede the colon, and no line may be folded",
        ),
        httparse::Error::HeaderValue => Refusal::BadHead("a header's value has a control character"),
        _ => Refusal::BadHead("the head is not HTTP/1.1"),
    }
}

/// The path and query of a target, which may be an absolute URI.
fn path(target: &str) -> &str {
    let scheme = |name: &str| {
        let (start, rest) = target.split_at_checked(name.len())?;
        start.eq_ignore_ascii_case(name).then_some(rest)
    };
    let Some(rest) = scheme("http://").or_else(|| scheme("https://")) else { return target };
    match rest.find(['/', '?']) {
        Some(at) if rest.as_bytes()[at] == b'/' => &rest[at..],
        // Without a path it is `/`, and no resource of ours is there; its query does not matter.
        _ => &target[target.len() - rest.len() - 1..target.len() - rest.len()],
    }
}

impl Parsed {
    /// The head as text; `bytes` are those that were parsed. Its framing is sound, and the rest of the body
    /// is read whatever becomes of the request.
    pub fn head<'a>(&self, bytes: &'a [u8]) -> Head<'a> {
        Head {
            method: text(bytes, self.method),
            target: text(bytes, self.target),
            content_type: self.content_type.map(|span| text(bytes, span)),
            content_encoding: self.content_encoding.map(|span| text(bytes, span)),
            content_length: self.content_length.map(|span| text(bytes, span)),
            body_is_here: true,
            ..Head::default()
        }
    }

    /// The `X-Request-Id` to echo. A longer one must not be held until the request is answered.
    pub fn request_id<'a>(&self, bytes: &'a [u8]) -> Option<&'a str> {
        self.request_id.map(|span| text(bytes, span)).filter(|id| is_echoed(id))
    }
}

/// Text that is not UTF-8 becomes a character that no known value has.
fn text(bytes: &[u8], span: Span) -> &str {
    std::str::from_utf8(&bytes[span.start as usize..span.end as usize]).unwrap_or("\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(head: &str) -> Result<Parsed, Refusal> {
        parse(head.as_bytes())
    }

    fn target(head: &str) -> String {
        parsed(head).expect(head).head(head.as_bytes()).target.to_owned()
    }

    #[test]
    fn a_head_is_read_as_sent() {
        let bytes =
            b"POST /register_event?x HTTP/1.1\r\nHost: h\r\ncontent-TYPE:  text/json \r\nX-City: S\xe3o\r\n\
            Content-Encoding: gzip\r\nContent-Length: 12\r\nX-Request-Id: r-1\r\nUpgrade: h2c\r\n\
            Connection: Upgrade, HTTP2-Settings\r\n\r\n";
        let parsed = parse(bytes).expect("parses");
        let head = parsed.head(bytes);
        assert_eq!((head.method, head.target), ("POST", "/register_event?x"));
        assert_eq!((head.content_type, head.content_encoding), (Some("text/json"), Some("gzip")));
        assert_eq!((head.content_length, parsed.length), (Some("12"), Length::Known(12)));
        assert_eq!(parsed.request_id(bytes), Some("r-1"));
        assert!(parsed.persists && !parsed.expects && !parsed.is_head);
    }

    #[test]
    fn an_absolute_target_is_reduced_to_its_path() {
        for (sent, path) in [
            ("http://h/livez?a", "/livez?a"),
            ("HTTPS://user@h:1/a//b", "/a//b"),
            ("http://h", "/"),
            ("http://h?a/b", "/"),
            ("*", "*"),
            ("h:443", "h:443"),
        ] {
            assert_eq!(target(&format!("GET {sent} HTTP/1.1\r\nHost: h\r\n\r\n")), path);
        }
    }

    #[test]
    fn the_version_and_the_connection_header_decide_whether_it_persists() {
        for (head, persists) in [
            ("GET / HTTP/1.1\r\nHost: h\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nHost: h\r\nConnection: Close\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nHost: h\r\nConnection: x\r\nConnection: a , close\r\n\r\n", false),
            ("GET / HTTP/1.0\r\n\r\n", false),
            ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true),
            ("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", false),
        ] {
            assert_eq!(parsed(head).map(|parsed| parsed.persists), Ok(persists), "{head}");
        }
    }

    #[test]
    fn an_expectation_counts_only_with_a_body_and_in_http_1_1() {
        let post = |version: &str, more: &str| {
            parsed(&format!("POST / HTTP/{version}\r\nHost: h\r\n{more}\r\n")).map(|parsed| parsed.expects)
        };
        let expect = "Expect: 100-Continue\r\n";
        assert_eq!(post("1.1", &format!("{expect}Content-Length: 5\r\n")), Ok(true));
        assert_eq!(post("1.1", &format!("{expect}Transfer-Encoding: chunked\r\n")), Ok(true));
        assert_eq!(post("1.1", &format!("{expect}Content-Length: 0\r\n")), Ok(false));
        assert_eq!(post("1.1", expect), Ok(false));
        assert_eq!(post("1.0", &format!("{expect}Content-Length: 5\r\n")), Ok(false));
        assert_eq!(post("1.1", "Expect: 200-ok\r\n"), Err(Refusal::UnknownExpectation));
        assert_eq!(post("1.1", &format!("Expect: x\r\n{expect}")), Err(Refusal::UnknownExpectation));
        assert_eq!(post("1.0", "Expect: 200-ok\r\n"), Ok(false));
    }

    #[test]
    fn what_is_not_http_1_1_is_refused() {
        for line in
            ["Host : h", "a b: c", " folded: x", ": x", "Host: h\r\n folded", "a: b\x01c", "a: b\rc", "a"]
        {
            let head = format!("GET / HTTP/1.1\r\nHost: h\r\n{line}\r\n\r\n");
            assert!(matches!(parsed(&head), Err(Refusal::BadHead(_))), "{line:?}");
        }
        for head in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
        ] {
            assert!(matches!(parsed(head), Err(Refusal::BadHead(_))), "{head:?}");
        }
    }
}
