//! Names what a connection refuses by itself, and the answer to each.

use crate::producer::answer::Answer;

/// Why a request cannot be served, after which its connection ends: it is unknown where the next request
/// begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The head is not HTTP/1.1; the text says what is wrong.
    BadHead(&'static str),
    /// The length of the body is ambiguous, repeated or not a number.
    BadLength(&'static str, &'static str),
    /// A chunked body is malformed; the text says how.
    BadChunk(&'static str),
    /// A transfer coding other than chunked.
    UnknownCoding,
    /// An expectation other than 100-continue.
    UnknownExpectation,
    /// A version other than HTTP/1.0 and HTTP/1.1.
    OtherVersion,
    /// The head has more bytes than allowed.
    HeadTooLarge(usize),
    /// The head has too many lines.
    TooManyHeaders(usize),
    /// The target is longer than allowed.
    TargetTooLong(usize),
    /// The head did not arrive in time.
    SlowHead,
    /// The body did not arrive in time, or not at all.
    SlowBody,
}

impl Refusal {
    /// The answer to the request.
    pub fn answer(self) -> Answer {
        let bad = |tag, text| Answer::error(400, tag, text);
        match self {
            Self::BadHead(text) => bad("bad_request", text),
            Self::BadLength(tag, text) => bad(tag, text),
            Self::BadChunk(text) => bad("bad_chunk", text),
            Self::UnknownCoding => {
                let text = "the only supported Transfer-Encoding is chunked";
                Answer::error(501, "unsupported_transfer_encoding", text)
            }
            Self::UnknownExpectation => {
                Answer::error(417, "expectation_failed", "the only supported Expect is 100-continue")
            }
            Self::OtherVersion => {
                let text = "the supported versions are HTTP/1.1 and HTTP/1.0; a proxy can translate HTTP/2";
                Answer::error(505, "unsupported_version", text)
            }
            Self::HeadTooLarge(limit) => {
                let text = format!("the request line and headers are larger than {limit} bytes; send less");
                Answer::error(431, "head_too_large", &text)
            }
            Self::TooManyHeaders(limit) => {
                Answer::error(431, "head_too_large", &format!("more than {limit} headers; send fewer"))
            }
            Self::TargetTooLong(limit) => {
                let text = format!("the request target is longer than {limit} bytes");
                Answer::error(414, "target_too_long", &text)
            }
            Self::SlowHead => Answer::head_incomplete(),
            Self::SlowBody => Answer::body_incomplete(),
        }
    }

    /// The limit or rule that was exceeded, for the metrics.
    pub fn limit(self) -> &'static str {
        match self {
            Self::HeadTooLarge(_) | Self::TooManyHeaders(_) | Self::TargetTooLong(_) => "max_head_bytes",
            Self::SlowHead | Self::SlowBody => "request_timeout",
            _ => "framing",
        }
    }
}
