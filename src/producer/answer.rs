//! Answers as bytes on the wire. Pure: what to say in, one buffer out, so that a reply is one write.

use std::borrow::Cow;
use std::io::Write;
use std::time::Duration;

use serde::Serialize;

use crate::broker::Receipt;

use super::job::{Job, Outcome};

/// The word for an event that Kafka itself rejects.
const REJECTED: &str = "rejected_by_kafka";

/// One answer to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Media type of the body.
    pub content_type: &'static str,
    /// The body.
    pub body: Cow<'static, [u8]>,
    /// `Retry-After`, in whole seconds.
    pub retry_after: Option<Duration>,
    /// `Allow`.
    pub allow: Option<&'static str>,
    /// Stable word of the error, for metrics.
    pub tag: &'static str,
}

/// The body of every error.
#[derive(Serialize)]
struct ErrorBody<'a> {
    error: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
    retryable: bool,
}

/// An event of a request that was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rejected {
    /// Its place in the request, from 0.
    pub index: usize,
    /// Stable word.
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
    /// A body of the given type.
    pub fn text(status: u16, content_type: &'static str, body: impl Into<Cow<'static, [u8]>>) -> Self {
        Self { status, content_type, body: body.into(), retry_after: None, allow: None, tag: "" }
    }

    /// An error that a repetition of the same request cannot cure.
    pub fn error(status: u16, tag: &'static str, message: &str) -> Self {
        Self::failure(status, tag, message, None, false)
    }

    /// Our trouble, not the client's: come back after `retry_after`.
    pub fn unavailable(tag: &'static str, message: &str, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..Self::failure(503, tag, message, None, true) }
    }

    /// The request was lost in a panic of ours, after which nobody knows what became of its events.
    pub fn lost() -> Self {
        Self::failure(500, "internal", "a bug ended this request; its events may be in Kafka", None, true)
    }

    /// The body did not come, so nothing was taken and the client may begin anew.
    pub fn body_incomplete() -> Self {
        Self::failure(408, "body_incomplete", "the body did not arrive in time", None, true)
    }

    /// Past a limit in bytes.
    pub fn too_large(what: &str, limit: u64) -> Self {
        let message = format!("{what} is larger than {limit} bytes; send less at once");
        Self::failure(413, "payload_too_large", &message, Some(limit), false)
    }

    /// The path is right, the method is not.
    pub fn not_allowed(allow: &'static str) -> Self {
        let message = format!("this path takes {allow}");
        Self { allow: Some(allow), ..Self::error(405, "method_not_allowed", &message) }
    }

    fn failure(status: u16, error: &'static str, message: &str, limit: Option<u64>, retryable: bool) -> Self {
        let body = serde_json::to_vec(&ErrorBody { error, message, limit, retryable }).unwrap_or_default();
        Self { tag: error, ..Self::text(status, "application/json", body) }
    }

    /// The single event of a request is in Kafka.
    pub fn receipt(topic: &str, receipt: Receipt) -> Self {
        let mut body = Vec::with_capacity(64 + topic.len());
        let Receipt { partition, offset } = receipt;
        // A topic's name needs no escaping, see `config::kafka`.
        let _ =
            write!(body, r#"{{"status":"ok","topic":"{topic}","partition":{partition},"offset":{offset}}}"#);
        Self::text(200, "application/json", body)
    }

    /// A settled request of one event.
    pub fn single<T>(topic: &str, job: &Job<T>, retry_after: Duration) -> Self {
        match &job.outcomes[..] {
            [Outcome::Acknowledged(receipt)] => Self::receipt(topic, *receipt),
            [Outcome::TooLarge(text)] => Self::failure(413, "event_too_large", text, None, false),
            [Outcome::Rejected(text)] => Self::failure(400, REJECTED, text, None, false),
            [Outcome::Unacknowledged(text)] => Self::unavailable("not_acknowledged", text, retry_after),
            _ => Self::error(500, "internal", "the event has no outcome; this is a bug"),
        }
    }

    /// A settled request of several events, `rejected` among them.
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

    /// No event of the request was valid.
    pub fn all_rejected(topic: &str, rejected: &[Rejected]) -> Self {
        let body = BatchBody {
            status: "rejected",
            topic,
            accepted: 0,
            rejected: rejected.len(),
            receipts: Vec::new(),
            errors: rejected,
            unacknowledged: Vec::new(),
            message: Some("no event of this request is valid"),
            retryable: false,
        };
        let body = serde_json::to_vec(&body).unwrap_or_default();
        Self { tag: "all_rejected", ..Self::text(400, "application/json", body) }
    }

    /// Appends the whole answer to `out`. `date` is the current IMF-fixdate, `head_only` leaves the body out.
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

/// The place in its request of each event of `job`, which lacks those that were `rejected` before.
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

/// Runs of events that Kafka did not acknowledge, by their place in the request. No run holds a rejected event,
/// so that a client can repeat what they name as it stands.
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

    use super::super::job::tests::job;
    use super::*;

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
