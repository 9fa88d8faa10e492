//! Lists every status and every error tag of the producer's answers, each in one table.
//!
//! Reason phrases, `retryable`, the labels of the metrics and the test of the documentation all come from here.

use crate::event::ErrorKind;

macro_rules! statuses {
    ($($status:ident $code:literal $reason:literal,)*) => {
        /// Status of an answer.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Status { $(#[doc = $reason] $status,)* }

        impl Status {
            /// Every status, in the order of their codes.
            pub const ALL: [Self; [$($code),*].len()] = [$(Self::$status),*];

            /// The number in the status line.
            pub fn code(self) -> u16 {
                match self { $(Self::$status => $code,)* }
            }

            /// Code and reason.
            pub fn line(self) -> &'static str {
                match self { $(Self::$status => concat!($code, " ", $reason),)* }
            }

            /// The reason phrase.
            pub fn reason(self) -> &'static str {
                match self { $(Self::$status => $reason,)* }
            }
        }
    };
}

macro_rules! error_tags {
    ($($error:ident $tag:literal $status:ident $retryable:literal,)*) => {
        /// What is wrong, as the `error` of an answer says it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum ErrorTag { $(#[doc = $tag] $error,)* }

        impl ErrorTag {
            /// Every tag.
            pub const ALL: &[Self] = &[$(Self::$error),*];

            /// The stable word.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$error => $tag,)* }
            }

            /// The status of an answer with this tag.
            pub fn status(self) -> Status {
                match self { $(Self::$error => Status::$status,)* }
            }

            /// Whether the same request can succeed later.
            pub fn is_retryable(self) -> bool {
                match self { $(Self::$error => $retryable,)* }
            }
        }
    };
}

statuses! {
    Ok 200 "OK",
    NoContent 204 "No Content",
    Partial 207 "Multi-Status",
    BadRequest 400 "Bad Request",
    Unauthorized 401 "Unauthorized",
    Forbidden 403 "Forbidden",
    NotFound 404 "Not Found",
    MethodNotAllowed 405 "Method Not Allowed",
    RequestTimeout 408 "Request Timeout",
    LengthRequired 411 "Length Required",
    ContentTooLarge 413 "Content Too Large",
    UriTooLong 414 "URI Too Long",
    UnsupportedMediaType 415 "Unsupported Media Type",
    ExpectationFailed 417 "Expectation Failed",
    HeadTooLarge 431 "Request Header Fields Too Large",
    TooManyRequests 429 "Too Many Requests",
    InternalServerError 500 "Internal Server Error",
    NotImplemented 501 "Not Implemented",
    ServiceUnavailable 503 "Service Unavailable",
    VersionNotSupported 505 "HTTP Version Not Supported",
}

// The last column says whether the same request can succeed later.
error_tags! {
    Empty "empty" BadRequest false,
    NotUtf8 "not_utf8" BadRequest false,
    NotJson "not_json" BadRequest false,
    NotAnObject "not_an_object" BadRequest false,
    TooDeep "too_deep" BadRequest false,
    BadEventId "bad_event_id" BadRequest false,
    ReservedField "reserved_field" BadRequest false,
    RejectedByKafka "rejected_by_kafka" BadRequest false,
    NotGzip "not_gzip" BadRequest false,
    NotZstd "not_zstd" BadRequest false,
    AmbiguousLength "ambiguous_length" BadRequest false,
    RepeatedLength "repeated_length" BadRequest false,
    BadLength "bad_length" BadRequest false,
    Upgrade "upgrade" BadRequest false,
    BadHead "bad_head" BadRequest false,
    BadChunk "bad_chunk" BadRequest false,
    UnexpectedBody "unexpected_body" BadRequest false,
    Unauthorized "unauthorized" Unauthorized false,
    OriginNotAllowed "origin_not_allowed" Forbidden false,
    NotFound "not_found" NotFound false,
    MethodNotAllowed "method_not_allowed" MethodNotAllowed false,
    BodyIncomplete "body_incomplete" RequestTimeout true,
    HeadIncomplete "head_incomplete" RequestTimeout true,
    LengthRequired "length_required" LengthRequired false,
    PayloadTooLarge "payload_too_large" ContentTooLarge false,
    TooLarge "too_large" ContentTooLarge false,
    TooManyEvents "too_many_events" ContentTooLarge false,
    EventTooLarge "event_too_large" ContentTooLarge false,
    TargetTooLong "target_too_long" UriTooLong false,
    UnsupportedMediaType "unsupported_media_type" UnsupportedMediaType false,
    UnsupportedEncoding "unsupported_encoding" UnsupportedMediaType false,
    ExpectationFailed "expectation_failed" ExpectationFailed false,
    HeadTooLarge "head_too_large" HeadTooLarge false,
    UnsupportedCoding "unsupported_transfer_encoding" NotImplemented false,
    UnsupportedVersion "unsupported_version" VersionNotSupported false,
    RateLimited "rate_limited" TooManyRequests true,
    Internal "internal" InternalServerError true,
    Overloaded "overloaded" ServiceUnavailable true,
    KafkaUnavailable "kafka_unavailable" ServiceUnavailable true,
    Draining "draining" ServiceUnavailable true,
    NotAcknowledged "not_acknowledged" ServiceUnavailable true,
}

impl From<ErrorKind> for ErrorTag {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Empty => Self::Empty,
            ErrorKind::NotUtf8 => Self::NotUtf8,
            ErrorKind::NotJson => Self::NotJson,
            ErrorKind::NotAnObject => Self::NotAnObject,
            ErrorKind::TooDeep => Self::TooDeep,
            ErrorKind::TooLarge => Self::TooLarge,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_event_has_the_same_tag_alone_and_in_a_batch() {
        for kind in ErrorKind::ALL {
            assert_eq!(ErrorTag::from(kind).as_str(), kind.as_str());
        }
    }
}
