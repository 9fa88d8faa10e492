//! Which pages of other origins may read our answers (CORS), and the headers that tell a browser so.

use std::sync::Arc;

/// Headers that a page may send to us.
const REQUEST_HEADERS: &str = "content-type, content-encoding, authorization, x-api-key, idempotency-key, \
                               webhook-id, x-request-id, traceparent, tracestate";

/// Headers of our answers that a page may read.
const ANSWER_HEADERS: &str = "retry-after, ratelimit, ratelimit-policy, x-request-id";

/// How long a browser may remember the answer to a preflight, in seconds: the longest that Chromium allows.
const MAX_AGE_SECONDS: &str = "7200";

/// Origins whose pages may read answers; none means that we say nothing about origins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins(Vec<Arc<str>>);

/// Headers by name.
pub type Fields = Vec<(&'static str, String)>;

impl Origins {
    /// These origins, each as a browser sends it.
    pub fn new(origins: &[String]) -> Self {
        Self(origins.iter().map(|origin| origin.as_str().into()).collect())
    }

    /// True if no page may read anything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The origin of a request, if it is one of these.
    pub fn find(&self, origin: Option<&str>) -> Option<Arc<str>> {
        let origin = origin?;
        self.0.iter().find(|allowed| ***allowed == *origin).cloned()
    }
}

/// What an answer says to a browser with a page of `origin`. Credentials are allowed because beacons always ask for
/// that; we have no cookies that could be abused.
pub fn answer_fields(origin: &str) -> Fields {
    vec![
        ("Access-Control-Allow-Origin", origin.to_owned()),
        ("Access-Control-Allow-Credentials", "true".to_owned()),
        ("Access-Control-Expose-Headers", ANSWER_HEADERS.to_owned()),
        ("Vary", "Origin".to_owned()),
    ]
}

/// What the answer to a preflight says in addition to [`answer_fields`].
pub fn preflight_fields() -> Fields {
    vec![
        ("Access-Control-Allow-Methods", "POST".to_owned()),
        ("Access-Control-Allow-Headers", REQUEST_HEADERS.to_owned()),
        ("Access-Control-Max-Age", MAX_AGE_SECONDS.to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_origin_is_found() {
        let origins = Origins::new(&["https://a.example".into(), "http://b.example:8080".into()]);
        assert_eq!(origins.find(Some("https://a.example")).as_deref(), Some("https://a.example"));
        for other in
            [None, Some("null"), Some("https://a.example:443"), Some("https://a.example.evil"), Some("*")]
        {
            assert_eq!(origins.find(other), None, "{other:?}");
        }
        assert!(Origins::default().is_empty() && !origins.is_empty());
    }
}
