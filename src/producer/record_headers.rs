//! Collects what a request passes on to its records in Kafka as headers. Does no I/O.

use crate::broker::Headers;
use crate::config::RecordHeader;
use crate::producer::answer::is_echoed;
use crate::producer::head::Others;
use crate::producer::trace::{is_traceparent, tracestate};

/// The headers for the records of a request: those of `wanted` that it has, and that are valid. `client` is the name of
/// the client whose key was used. A header that is there more than once is left out.
pub fn of_request(wanted: &[RecordHeader], others: Others<'_>, client: Option<&str>) -> Headers {
    let mut headers = Headers::default();
    for header in wanted {
        let name = header.name();
        match header {
            RecordHeader::Traceparent => {
                if let Some(value) = others.only(name).filter(|value| is_traceparent(value)) {
                    headers.push(name, value);
                }
            }
            RecordHeader::Tracestate => {
                let is_traced = others.only(RecordHeader::Traceparent.name()).is_some_and(is_traceparent);
                if let Some(value) = tracestate(others.values(name)).filter(|_| is_traced) {
                    headers.push(name, &value);
                }
            }
            RecordHeader::RequestId => {
                let value = others.only(name).and_then(|value| std::str::from_utf8(value).ok());
                if let Some(value) = value.filter(|value| !value.is_empty() && is_echoed(value)) {
                    headers.push(name, value.as_bytes());
                }
            }
            RecordHeader::Client => {
                if let Some(client) = client {
                    headers.push(name, client.as_bytes());
                }
            }
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::producer::head::Headers as RequestHeaders;

    const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const ALL: [RecordHeader; 4] =
        [RecordHeader::Traceparent, RecordHeader::Tracestate, RecordHeader::RequestId, RecordHeader::Client];

    struct Request<'a>(&'a [(&'a str, &'a str)]);

    impl RequestHeaders for Request<'_> {
        fn nth(&self, name: &str, n: usize) -> Option<&[u8]> {
            let mut named = self.0.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
            named.nth(n).map(|(_, value)| value.as_bytes())
        }
    }

    /// Headers in their encoded form.
    fn headers(pairs: &[(&str, &str)]) -> Headers {
        let mut headers = Headers::default();
        pairs.iter().for_each(|(name, value)| headers.push(name, value.as_bytes()));
        headers
    }

    #[test]
    fn what_is_there_and_valid_is_passed_on_under_the_names_of_the_setting() {
        let long = "x".repeat(129);
        for (request, client, passed_on) in [
            (&[][..], None, &[][..]),
            (&[("Traceparent", TRACEPARENT)], None, &[("traceparent", TRACEPARENT)]),
            (&[("X-REQUEST-ID", " r-1 ")], Some("shop"), &[("x-request-id", "r-1"), ("client", "shop")]),
            (
                &[("tracestate", "a=1"), ("traceparent", TRACEPARENT), ("tracestate", "b=2")],
                None,
                &[("traceparent", TRACEPARENT), ("tracestate", "a=1,b=2")],
            ),
            // Without a valid parent, the state means nothing.
            (&[("tracestate", "a=1")], None, &[]),
            (&[("tracestate", "a=1"), ("traceparent", "00-0")], None, &[]),
            (&[("traceparent", TRACEPARENT), ("traceparent", TRACEPARENT), ("tracestate", "a=1")], None, &[]),
            (&[("traceparent", TRACEPARENT), ("tracestate", "a")], None, &[("traceparent", TRACEPARENT)]),
            (&[("x-request-id", "")], None, &[]),
            (&[("x-request-id", "a b")], None, &[]),
            (&[("x-request-id", "é")], None, &[]),
            (&[("x-request-id", &long)], None, &[]),
            (&[("x-request-id", "1"), ("x-request-id", "2")], None, &[]),
            (&[("client", "somebody else")], None, &[]),
        ] {
            let request = Request(request);
            assert_eq!(of_request(&ALL, Others::of(&request), client), headers(passed_on), "{:?}", request.0);
        }
    }

    #[test]
    fn what_is_not_asked_for_is_left_out_without_an_allocation() {
        let request = Request(&[("traceparent", TRACEPARENT), ("x-request-id", "r-1")]);
        let none = of_request(&[], Others::of(&request), Some("shop"));
        assert_eq!((none.as_bytes(), none.held_bytes()), (&b""[..], 0));
        let one = of_request(&[RecordHeader::RequestId], Others::of(&request), Some("shop"));
        assert_eq!(one, headers(&[("x-request-id", "r-1")]));
    }
}
