//! Names what a connection refuses by itself, and the answer to each.

use crate::producer::answer::Answer;
use crate::producer::status::ErrorTag;

/// Why a request cannot be served, after which its connection ends: it is unknown where the next request
/// begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The head is not HTTP/1.1; the text says what is wrong.
    BadHead(&'static str),
    /// The length of the body is ambiguous, repeated or not a number.
    BadLength(ErrorTag, &'static str),
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
        let answer = match self {
            Self::BadHead(text) => Answer::error(ErrorTag::BadHead, text),
            Self::BadLength(tag, text) => Answer::error(tag, text),
            Self::BadChunk(text) => Answer::error(ErrorTag::BadChunk, text),
            Self::UnknownCoding => {
                Answer::error(ErrorTag::UnsupportedCoding, "the only supported Transfer-Encoding is chunked")
            }
            Self::UnknownExpectation => {
                Answer::error(ErrorTag::ExpectationFailed, "the only supported Expect is 100-continue")
            }
            Self::OtherVersion => {
                let text = "the supported versions are HTTP/1.1 and HTTP/1.0; a proxy can translate HTTP/2";
                Answer::error(ErrorTag::UnsupportedVersion, text)
            }
            Self::HeadTooLarge(limit) => {
                let text = format!("the request line and headers are larger than {limit} bytes; send less");
                Answer::error(ErrorTag::HeadTooLarge, &text)
            }
            Self::TooManyHeaders(limit) => {
                Answer::error(ErrorTag::HeadTooLarge, &format!("more than {limit} headers; send fewer"))
            }
            Self::TargetTooLong(limit) => {
                let text = format!("the request target is longer than {limit} bytes");
                Answer::error(ErrorTag::TargetTooLong, &text)
            }
            Self::SlowHead => {
                let text = "the request line and headers did not arrive in time";
                Answer::error(ErrorTag::HeadIncomplete, text)
            }
            Self::SlowBody => Answer::error(ErrorTag::BodyIncomplete, "the body did not arrive in time"),
        };
        answer.closing(true)
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
