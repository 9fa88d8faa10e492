//! Reads what `Content-Type` and `Content-Encoding` say about a body.

use crate::event::{Format, detect};
use crate::producer::answer::Answer;
use crate::producer::status::ErrorTag;

const ACCEPTED_TYPES: &str = "application/json, application/*+json, application/x-ndjson, application/octet-stream, \
                              text/json, text/plain";
const ACCEPTED_CODINGS: &str = "gzip, zstd";

/// What to do instead of sending a form.
pub const INSTEAD_OF_A_FORM: &str =
    "a form is not an event; send JSON, with curl: -H 'Content-Type: application/json' -d '{…}'";

/// What the type of a body says about its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaType {
    /// JSON: an object, or an array of them.
    Json,
    /// The type of a form, which `curl -d` also gives to JSON.
    Form,
    /// A CloudEvent in structured mode, or an array of them.
    CloudEvents,
    /// One event per line.
    Ndjson,
}

impl MediaType {
    /// Reads a `Content-Type`. A missing or empty one counts as JSON, because the original accepted any type.
    ///
    /// # Errors
    /// The answer for a type that is not supported.
    pub fn of(content_type: Option<&str>) -> Result<Self, Answer> {
        let essence = content_type.and_then(|text| text.split(';').next()).unwrap_or_default().trim();
        // The usual case, without a copy in lower case.
        if essence.is_empty() || essence.eq_ignore_ascii_case("application/json") {
            return Ok(Self::Json);
        }
        let lower = essence.to_ascii_lowercase();
        let (main, sub) = lower.split_once('/').unwrap_or((&lower, ""));
        match (main, sub.strip_prefix("x-").unwrap_or(sub)) {
            ("application", "www-form-urlencoded") => Ok(Self::Form),
            ("application", "ndjson" | "jsonl" | "jsonlines" | "json-lines" | "ldjson") => Ok(Self::Ndjson),
            ("application", "octet-stream" | "csp-report") | ("text", "plain" | "json") => Ok(Self::Json),
            ("application", "cloudevents+json" | "cloudevents-batch+json") => Ok(Self::CloudEvents),
            // RFC 7464 puts a control character before each text.
            ("application", "json-seq") => Err(unsupported(essence, false)),
            ("application", sub) if sub.starts_with("json") || sub.ends_with("+json") => Ok(Self::Json),
            _ => Err(unsupported(essence, main == "multipart")),
        }
    }

    /// How the events are laid out in `body`.
    pub fn format(self, body: &[u8]) -> Format {
        match self {
            Self::Json | Self::Form | Self::CloudEvents => detect(body),
            Self::Ndjson => Format::Ndjson,
        }
    }
}

fn unsupported(essence: &str, is_form: bool) -> Answer {
    let instead = if is_form { INSTEAD_OF_A_FORM } else { "send application/json or application/x-ndjson" };
    let message = format!("Content-Type `{essence:.80}` is not supported; {instead}");
    Answer::error(ErrorTag::UnsupportedMediaType, &message).with_header("Accept-Post", ACCEPTED_TYPES)
}

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Coding {
    /// Reads a `Content-Encoding`; an empty one counts as none.
    ///
    /// # Errors
    /// The answer for an encoding that is not supported.
    pub fn of(content_encoding: Option<&str>) -> Result<Option<Self>, Answer> {
        let Some(text) = content_encoding.map(str::trim) else { return Ok(None) };
        let is = |name: &str| text.eq_ignore_ascii_case(name);
        if text.is_empty() || is("identity") {
            Ok(None)
        } else if is("gzip") || is("x-gzip") {
            Ok(Some(Self::Gzip))
        } else if is("zstd") {
            Ok(Some(Self::Zstd))
        } else {
            let message = format!("Content-Encoding `{text:.80}` is not supported; send gzip, zstd or none");
            let answer = Answer::error(ErrorTag::UnsupportedEncoding, &message);
            Err(answer.with_header("Accept-Encoding", ACCEPTED_CODINGS))
        }
    }

    /// The name in `Content-Encoding`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_of_json_of_lines_and_of_forms() {
        let json = "application/json,application/json; charset=utf-8,Application/JSON,,text/plain,text/json,\
                    application/octet-stream,application/problem+json,application/csp-report,application/reports+json,\
                    application/vnd.api+json,application/LD+JSON,application/json-patch+json,application/jsonrequest,\
                    application/x-json,application/stream+json";
        let lines = "application/x-ndjson,application/ndjson,application/jsonl,application/x-jsonlines,\
                     application/X-LDJSON";
        let cases = [
            (json, MediaType::Json),
            (lines, MediaType::Ndjson),
            ("application/x-www-form-urlencoded", MediaType::Form),
            ("application/cloudevents+json,application/CloudEvents-batch+json", MediaType::CloudEvents),
        ];
        for (types, kind) in cases {
            for name in types.split(',') {
                assert_eq!(MediaType::of(Some(name)), Ok(kind), "{name}");
            }
        }
        assert_eq!(MediaType::of(None), Ok(MediaType::Json));
    }

    #[test]
    fn a_type_that_is_not_supported_is_answered_with_those_that_are() {
        for (name, hint) in [
            ("text/html", "Content-Type `text/html` is not supported; send application/json"),
            ("image/svg+json", "image/svg+json"),
            ("application", "send application/json"),
            ("application/json-seq", "`application/json-seq`"),
            ("application/xml; q=application/json", "`application/xml`"),
            ("multipart/form-data; boundary=x", "a form is not an event"),
        ] {
            let answer = MediaType::of(Some(name)).expect_err(name);
            let text = String::from_utf8_lossy(&answer.body);
            assert!(answer.status.code() == 415 && text.contains(hint), "{name}: {text}");
            assert_eq!(answer.headers, [("Accept-Post", ACCEPTED_TYPES.into())]);
        }
    }

    #[test]
    fn codings() {
        for (text, coding) in [
            ("", None),
            (" ", None),
            ("identity", None),
            ("GZIP", Some(Coding::Gzip)),
            ("x-gzip", Some(Coding::Gzip)),
            (" zstd", Some(Coding::Zstd)),
        ] {
            assert_eq!(Coding::of(Some(text)), Ok(coding), "{text}");
        }
        for text in ["br", "deflate", "gzip, zstd", "zstdx"] {
            let answer = Coding::of(Some(text)).expect_err(text);
            assert_eq!((answer.status.code(), &answer.headers[0].0), (415, &"Accept-Encoding"), "{text}");
        }
    }
}
