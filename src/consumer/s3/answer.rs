//! Says in words what a server has refused, and what to do about it.

use std::fmt;

use ureq::http::{HeaderMap, StatusCode};

use crate::consumer::log::forward::ForwardError;
use crate::consumer::s3::client::Answer;

/// Longest description of an error that is read, in bytes.
pub const TEXT_MAX_BYTES: u64 = 64 << 10;

/// A request that was answered, but not carried out.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    status: StatusCode,
    /// S3's name of the error; empty in answers without a body.
    code: String,
    message: String,
    /// The region of the bucket, where the server says it.
    region: Option<String>,
}

/// Why several requests did not succeed.
#[derive(Debug)]
pub enum Failed {
    /// One was refused.
    Refused(Refusal),
    /// Something else.
    Other(ForwardError),
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => write!(f, "{} {}", refusal.status, refusal.code),
            Self::Other(error) => error.fmt(f),
        }
    }
}

impl From<ForwardError> for Failed {
    fn from(error: ForwardError) -> Self {
        Self::Other(error)
    }
}

impl Refusal {
    /// What `answer` says.
    pub fn read(mut answer: Answer) -> Self {
        let limited = answer.body_mut().with_config().limit(TEXT_MAX_BYTES);
        let text = limited.read_to_string().unwrap_or_default();
        Self::of(answer.status(), answer.headers(), &text)
    }

    /// What an answer with this text says.
    pub fn of(status: StatusCode, headers: &HeaderMap, text: &str) -> Self {
        let element = |name: &str| element(text, name).unwrap_or_default();
        let region = header(headers, "x-amz-bucket-region").map(str::to_owned);
        Self { status, code: element("Code"), message: element("Message"), region }
    }

    /// True if another object is there, or is being stored, in the place of this one.
    pub fn is_conflict(&self) -> bool {
        matches!(self.status, StatusCode::PRECONDITION_FAILED | StatusCode::CONFLICT)
    }

    /// True if the keys are good, but do not have the right to do this.
    pub fn is_of_rights(&self) -> bool {
        self.status == StatusCode::FORBIDDEN && self.code == "AccessDenied"
    }

    /// The error, with what was to be done to what.
    pub fn named(&self, what: &str, name: &str) -> ForwardError {
        let code = if self.code.is_empty() {
            self.status.canonical_reason().unwrap_or_default()
        } else {
            &self.code
        };
        let message = match self.message.trim_end_matches('.') {
            "" => String::new(),
            message => format!(": {message}"),
        };
        let hint = self.hint();
        ForwardError::Place(format!("cannot {what} {name}: {} {code}{message}{hint}", self.status.as_u16()))
    }

    fn hint(&self) -> String {
        if let Some(region) =
            self.region.as_ref().filter(|_| !self.status.is_success() && self.is_misplaced())
        {
            return format!("; the bucket is in another region: set AWS_REGION={region}");
        }
        match (self.code.as_str(), self.status.as_u16()) {
            ("SignatureDoesNotMatch", _) => {
                "; check AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_ENDPOINT_URL_S3"
            }
            ("InvalidAccessKeyId", _) => "; check AWS_ACCESS_KEY_ID and AWS_ENDPOINT_URL_S3",
            ("ExpiredToken" | "InvalidToken" | "TokenRefreshRequired", _) => "; renew the keys",
            ("RequestTimeTooSkewed", _) => "; correct the clock of this machine",
            ("NotImplemented", _) | (_, 501) => {
                "; the server must support If-None-Match and SHA-256 checksums of uploads"
            }
            (_, 401 | 403) => "; check the keys, which need the rights s3:GetObject and s3:PutObject",
            ("NoSuchBucket", _) | (_, 404) => {
                "; create the bucket, or check LAKE_S3_URL and AWS_ENDPOINT_URL_S3"
            }
            (_, 301 | 307) => "; check AWS_REGION and AWS_ENDPOINT_URL_S3",
            (_, 507) => "; free some space there",
            _ => "",
        }
        .to_owned()
    }

    fn is_misplaced(&self) -> bool {
        matches!(self.status.as_u16(), 301 | 307) || self.code == "AuthorizationHeaderMalformed"
    }
}

/// The text of the first element of this name, which has no elements in it.
pub fn element(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (value, _) = rest.split_once(&format!("</{name}>"))?;
    let plain =
        [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#34;", "\""), ("&apos;", "'"), ("&amp;", "&")];
    Some(plain.iter().fold(value.trim().to_owned(), |text, (escape, sign)| text.replace(escape, sign)))
}

/// A header as text.
pub fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// A header as a number.
pub fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    header(headers, name)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, headers: &[(&'static str, &str)], text: &str) -> Refusal {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")));
        Refusal::of(StatusCode::from_u16(status).expect("a status"), &headers.collect(), text)
    }

    #[test]
    fn what_is_refused_is_named_with_the_way_out() {
        const DENIED: &str = "<?xml version=\"1.0\"?>\n<Error><Code>SignatureDoesNotMatch</Code>\
            <Message>The &quot;signature&quot; &amp; key differ.</Message></Error>";
        let text = |refusal: Refusal| refusal.named("store", "s3://b/k").to_string();
        assert_eq!(
            text(refusal(403, &[], DENIED)),
            "cannot store s3://b/k: 403 SignatureDoesNotMatch: The \"signature\" & key differ; check \
             AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_ENDPOINT_URL_S3"
        );
        for (status, headers, body, word) in [
            (403, vec![], "", "403 Forbidden; check the keys, which need the rights s3:GetObject"),
            (404, vec![], "<Error><Code>NoSuchBucket</Code></Error>", "NoSuchBucket; create the bucket"),
            (301, vec![("x-amz-bucket-region", "eu-west-1")], "", "set AWS_REGION=eu-west-1"),
            (501, vec![], "<Code>NotImplemented</Code>", "must support If-None-Match"),
            (507, vec![], "not XML", "507 Insufficient Storage; free some space there"),
        ] {
            let text = text(refusal(status, &headers, body));
            assert!(text.contains(word), "{text}");
        }
    }

    #[test]
    fn only_what_is_in_the_place_of_an_object_is_a_conflict() {
        for (status, is_conflict) in [(412, true), (409, true), (404, false), (403, false), (503, false)] {
            assert_eq!(refusal(status, &[], "").is_conflict(), is_conflict, "{status}");
        }
    }

    #[test]
    fn elements_are_read_with_their_escapes() {
        assert_eq!(
            element("<a><UploadId> x&amp;lt;y </UploadId></a>", "UploadId").as_deref(),
            Some("x&lt;y")
        );
        assert_eq!(element("<UploadId>cut", "UploadId"), None);
        assert_eq!(element("", "UploadId"), None);
    }
}
