//! Builds HTTP answers and encodes each one into a single buffer, so that it can be sent in one write.

use std::borrow::Cow;
use std::io::Write;
use std::time::Duration;

use serde::Serialize;

use crate::broker::Receipt;
use crate::producer::job::{Job, Outcome};

/// Error tag of an event that Kafka itself rejects.
const REJECTED: &str = "rejected_by_kafka";

/// The answer to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Media type of the body.
    pub content_type: &'static str,
    /// The body.
    pub body: Cow<'static, [u8]>,
    /// Value of `Retry-After`, sent in whole seconds.
    pub retry_after: Option<Duration>,
    /// Value of `Allow`.
    pub allow: Option<&'static str>,
    /// Stable error tag, for metrics.
    pub tag: &'static str,
}

/// Body of an error answer.
#[derive(Serialize)]
struct ErrorBody<'a> {
    error: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
    retryable: bool,
}

/// A rejected event of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rejected {
    /// Its index in the request, counted from 0.
    pub index: usize,
    /// Stable error tag.
    pub error: &'static str,
    /// What is wrong, and where.
    pub message: String,
}

#[derive(Serialize)]
struct ReceiptRange {
    partition: i32,
    first_offset: i64,
    last_offset: i64,
}

#[derive(Serialize)]
struct IndexRange {
    first_index: usize,
    last_index: usize,
}

#[derive(Serialize)]
struct BatchBody<'a> {
    status: &'a str,
    topic: &'a str,
    accepted: usize,
    rejected: usize,
    receipts: Vec<ReceiptRange>,
    errors: &'a [Rejected],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unacknowledged: Vec<IndexRange>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    retryable: bool,
}

impl Answer {
    /// Creates an answer with the given body.
    pub fn text(status: u16, content_type: &'static str, body: impl Into<Cow<'static, [u8]>>) -> Self {
        Self { status, content_type, body: body.into(), retry_after: None, allow: None, tag: "" }
    }

    /// An error that repeating the same request cannot fix.
    pub fn error(status: u16, tag: &'static str, message: &str) -> Self {
        Self::failure(status, tag, message, None, false)
    }

    /// A 503 for a problem on our side: the client should retry after `retry_after`.
    pub fn unavailable(tag: &'static str, message: &str, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..Self::failure(503, tag, message, None, true) }
    }

    /// A 500 for a request that was lost in a panic; what became of its events is unknown.
    pub fn lost() -> Self {
        Self::failure(500, "internal", "this request hit a bug; its events may be in Kafka", None, true)
    }

    /// A 408: the body did not arrive, so nothing was accepted and the client may retry.
    pub fn body_incomplete() -> Self {
        Self::failure(408, "body_incomplete", "the body did not arrive in time", None, true)
    }

    /// A 413: `what` exceeds a limit in bytes.
    pub fn too_large(what: &str, limit: u64) -> Self {
        let message = format!("{what} is larger than {limit} bytes; send less per request");
        Self::failure(413, "payload_too_large", &message, Some(limit), false)
    }

    /// A 405: the path exists, but does not support the method.
    pub fn not_allowed(allow: &'static str) -> Self {
        let message = format!("this path accepts only {allow}");
        Self { allow: Some(allow), ..Self::error(405, "method_not_allowed", &message) }
    }

    fn failure(status: u16, error: &'static str, message: &str, limit: Option<u64>, retryable: bool) -> Self {
        let body = serde_json::to_vec(&ErrorBody { error, message, limit, retryable }).unwrap_or_default();
        Self { tag: error, ..Self::text(status, "application/json", body) }
    }

    /// A 200 for a request whose single event is in Kafka.
    pub fn receipt(topic: &str, receipt: Receipt) -> Self {
        let mut body = Vec::with_capacity(64 + topic.len());
        let Receipt { partition, offset } = receipt;
        // A topic name needs no escaping; see `config::kafka`.
        let _ =
            write!(body, r#"{{"status":"ok","topic":"{topic}","partition":{partition},"offset":{offset}}}"#);
        Self::text(200, "application/json", body)
    }

    /// The answer to a settled request with one event.
    pub fn single<T>(topic: &str, job: &Job<T>, retry_after: Duration) -> Self {
        match &job.outcomes[..] {
            [Outcome::Acknowledged(receipt)] => Self::receipt(topic, *receipt),
            [Outcome::TooLarge(text)] => Self::failure(413, "event_too_large", text, None, false),
            [Outcome::Rejected(text)] => Self::failure(400, REJECTED, text, None, false),
            [Outcome::Unacknowledged(text)] => Self::unavailable("not_acknowledged", text, retry_after),
            _ => Self::error(500, "internal", "the event has no outcome; this is a bug"),
        }
    }

    /// The answer to a settled request with several events, including those that were `rejected`.
    pub fn batch<T>(topic: &str, job: &Job<T>, rejected: &[Rejected], retry_after: Duration) -> Self {
        let accepted = job.acknowledged();
        let failure = job.outcomes.iter().find_map(|outcome| match outcome {
            Outcome::TooLarge(text) | Outcome::Unacknowledged(text) => Some(&**text),
            _ => None,
        });
        let retryable = job.outcomes.iter().any(|outcome| matches!(outcome, Outcome::Unacknowledged(_)));
        let places = places(job, rejected);
        let mut errors = rejected.to_vec();
        errors.extend(job.outcomes.iter().zip(&places).filter_map(|(outcome, &index)| {
            let Outcome::Rejected(text) = outcome else { return None };
            Some(Rejected { index, error: REJECTED, message: text.to_string() })
        }));
        errors.sort_by_key(|error| error.index);
        let (status, word) = match (failure, retryable) {
            (Some(_), true) => (503, "incomplete"),
            (None, _) if errors.is_empty() => (200, "ok"),
            (None, _) if accepted == 0 => (400, "rejected"),
            _ => (207, "partial"),
        };
        let body = BatchBody {
            status: word,
            topic,
            accepted,
            rejected: errors.len(),
            receipts: job
                .receipt_ranges()
                .into_iter()
                .map(|(partition, first_offset, last_offset)| ReceiptRange {
                    partition,
                    first_offset,
                    last_offset,
                })
                .collect(),
            errors: &errors,
            unacknowledged: unacknowledged(job, &places),
            message: failure,
            retryable,
        };
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let retry_after = retryable.then_some(retry_after);
        let tag = match word {
            "incomplete" => "not_acknowledged",
            "rejected" => "all_rejected",
            _ => "",
        };
        Self { retry_after, tag, ..Self::text(status, "application/json", body) }
    }

    /// A 400 for a request without a valid event.
    pub fn all_rejected(topic: &str, rejected: &[Rejected]) -> Self {
        let body = BatchBody {
            status: "rejected",
            topic,
            accepted: 0,
            rejected: rejected.len(),
            receipts: Vec::new(),
            errors: rejected,
            unacknowledged: Vec::new(),
            message: Some("no event in this request is valid"),
            retryable: false,
        };
        let body = serde_json::to_vec(&body).unwrap_or_default();
        Self { tag: "all_rejected", ..Self::text(400, "application/json", body) }
    }

    /// Appends the whole answer to `out`. `date` is the current IMF-fixdate; `head_only` omits the body.
    pub fn encode(
        &self,
        date: &str,
        request_id: Option<&str>,
        close: bool,
        head_only: bool,
        out: &mut Vec<u8>,
    ) {
        let _ = write!(
            out,
            "HTTP/1.1 {} {}\r\nDate: {date}\r\nContent-Type: {}\r\nContent-Length: {}\r\n",
            self.status,
            reason(self.status),
            self.content_type,
            self.body.len(),
        );
        if let Some(after) = self.retry_after {
            let _ = write!(out, "Retry-After: {}\r\n", after.as_secs().max(1));
        }
        if let Some(allow) = self.allow {
            let _ = write!(out, "Allow: {allow}\r\n");
        }
        if let Some(id) = request_id {
            let _ = write!(out, "X-Request-Id: {id}\r\n");
        }
        if close {
            out.extend_from_slice(b"Connection: close\r\n");
        }
        out.extend_from_slice(b"\r\n");
        if !head_only {
            out.extend_from_slice(&self.body);
        }
    }
}

/// Returns the index in the request of each event of `job`. Events that were `rejected` earlier are not in
/// `job`, but they count.
fn places<T>(job: &Job<T>, rejected: &[Rejected]) -> Vec<usize> {
    let mut rejected = rejected.iter().map(|refused| refused.index).peekable();
    let mut next = 0;
    let place = |_: &Outcome| {
        while rejected.next_if_eq(&next).is_some() {
            next += 1;
        }
        next += 1;
        next - 1
    };
    job.outcomes.iter().map(place).collect()
}

/// Returns the events that Kafka did not acknowledge as ranges of indices in the request. A range never
/// includes a rejected event, so clients can resend it as it is.
fn unacknowledged<T>(job: &Job<T>, places: &[usize]) -> Vec<IndexRange> {
    let mut ranges: Vec<IndexRange> = Vec::new();
    for (outcome, &index) in job.outcomes.iter().zip(places) {
        if matches!(outcome, Outcome::TooLarge(_) | Outcome::Unacknowledged(_) | Outcome::Open) {
            match ranges.last_mut() {
                Some(run) if run.last_index + 1 == index => run.last_index = index,
                _ => ranges.push(IndexRange { first_index: index, last_index: index }),
            }
        }
    }
    ranges
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        207 => "Multi-Status",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        411 => "Length Required",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::producer::job::tests::job;

    fn body(answer: &Answer) -> serde_json::Value {
        serde_json::from_slice(&answer.body).expect("a body is JSON")
    }

    fn acknowledged(offset: i64) -> Outcome {
        Outcome::Acknowledged(Receipt { partition: 2, offset })
    }

    #[test]
    fn a_receipt_has_the_promised_bytes() {
        let answer = Answer::receipt("events", Receipt { partition: 0, offset: 42 });
        assert_eq!(&*answer.body, br#"{"status":"ok","topic":"events","partition":0,"offset":42}"#);
        let mut wire = Vec::new();
        answer.encode("Tue, 24 Nov 2026 08:00:00 GMT", Some("r-1"), false, false, &mut wire);
        let wire = String::from_utf8(wire).expect("text");
        assert!(wire.starts_with("HTTP/1.1 200 OK\r\nDate: Tue, 24 Nov 2026 08:00:00 GMT\r\n"), "{wire}");
        assert!(wire.contains("Content-Length: 58\r\n") && wire.contains("X-Request-Id: r-1\r\n"), "{wire}");
    }

    #[test]
    fn an_error_says_what_and_whether_to_retry() {
        let answer = Answer::unavailable("queue_full", "full", Duration::from_secs(3));
        let json = serde_json::json!({"error": "queue_full", "message": "full", "retryable": true});
        assert_eq!(body(&answer), json);
        let mut wire = Vec::new();
        answer.encode("now", None, true, true, &mut wire);
        let wire = String::from_utf8(wire).expect("text");
        assert!(wire.contains("Retry-After: 3\r\n") && wire.ends_with("Connection: close\r\n\r\n"), "{wire}");
        assert_eq!(body(&Answer::too_large("body", 10))["limit"], 10);
    }

    #[test]
    fn a_batch_answer_follows_what_became_of_its_events() {
        let second = Duration::from_secs(1);
        let rejected = [Rejected { index: 1, error: "not_json", message: "line 1".into() }];
        let mut done = job(&["a", "b"], Instant::now(), ());
        (done.outcomes[0], done.outcomes[1]) = (acknowledged(4), acknowledged(5));
        assert_eq!(Answer::batch("events", &done, &[], second).status, 200);
        let partial = Answer::batch("events", &done, &rejected, second);
        assert_eq!((partial.status, &body(&partial)["accepted"]), (207, &2.into()));
        let receipts = serde_json::json!([{"partition": 2, "first_offset": 4, "last_offset": 5}]);
        assert_eq!(body(&partial)["receipts"], receipts);
        done.outcomes[1] = Outcome::Unacknowledged("too slow".into());
        let incomplete = Answer::batch("events", &done, &rejected, second);
        assert_eq!((incomplete.status, incomplete.retry_after), (503, Some(second)));
        let missing = serde_json::json!([{"first_index": 2, "last_index": 2}]);
        assert_eq!(body(&incomplete)["unacknowledged"], missing);
        assert_eq!(Answer::all_rejected("events", &rejected).status, 400);
    }

    #[test]
    fn what_kafka_rejects_is_named_like_what_we_reject() {
        let second = Duration::from_secs(1);
        let by_us = [Rejected { index: 1, error: "not_json", message: "line 1".into() }];
        let mut done = job(&["a", "b"], Instant::now(), ());
        (done.outcomes[0], done.outcomes[1]) = (Outcome::Rejected("no key".into()), acknowledged(5));
        let partial = Answer::batch("events", &done, &by_us, second);
        let errors = serde_json::json!([{"index": 0, "error": "rejected_by_kafka", "message": "no key"},
            {"index": 1, "error": "not_json", "message": "line 1"}]);
        assert_eq!((partial.status, &body(&partial)["errors"]), (207, &errors));
        assert_eq!(body(&partial)["unacknowledged"], serde_json::Value::Null);
        done.outcomes[1] = Outcome::Unacknowledged("too slow".into());
        let incomplete = Answer::batch("events", &done, &by_us, second);
        let missing = serde_json::json!([{"first_index": 2, "last_index": 2}]);
        assert_eq!((incomplete.status, &body(&incomplete)["unacknowledged"]), (503, &missing));
        done.outcomes[1] = Outcome::Rejected("no key".into());
        let none = Answer::batch("events", &done, &by_us, second);
        assert_eq!((none.status, &body(&none)["status"]), (400, &"rejected".into()));
        let mut alone = job(&["a"], Instant::now(), ());
        alone.outcomes[0] = Outcome::Rejected("no key".into());
        let answer = Answer::single("events", &alone, second);
        assert_eq!((answer.status, &body(&answer)["error"]), (400, &"rejected_by_kafka".into()));
    }

    #[test]
    fn what_may_be_repeated_holds_no_rejected_event() {
        let refused = |index| Rejected { index, error: "not_json", message: String::new() };
        let named = |events: usize, acknowledged: &[usize], rejected: &[usize]| {
            let mut settled = job(&vec!["a"; events], Instant::now(), ());
            acknowledged.iter().for_each(|&event| settled.outcomes[event] = self::acknowledged(1));
            settled.give_up(&"too slow".into());
            let rejected: Vec<Rejected> = rejected.iter().map(|&index| refused(index)).collect();
            let ranges = unacknowledged(&settled, &places(&settled, &rejected));
            ranges.iter().map(|range| (range.first_index, range.last_index)).collect::<Vec<_>>()
        };
        assert_eq!(named(4, &[], &[]), [(0, 3)]);
        assert_eq!(named(2, &[], &[1]), [(0, 0), (2, 2)]);
        assert_eq!(named(4, &[1], &[0, 1, 5]), [(2, 2), (4, 4), (6, 6)]);
        assert_eq!(named(2, &[0, 1], &[0]), []);
    }
}
