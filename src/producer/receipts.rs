//! Answers settled requests with what became of their events: receipts, rejections, and what is not acknowledged.

use std::io::Write;
use std::time::Duration;

use serde::Serialize;

use crate::broker::Receipt;
use crate::producer::answer::{Answer, JSON};
use crate::producer::job::{Job, Outcome, ReceiptRange};
use crate::producer::status::{ErrorTag, Status};

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

impl Rejected {
    /// Bytes of memory held for it, which can be much more than its event.
    pub fn held_bytes(&self) -> usize {
        size_of::<Self>() + self.message.len()
    }
}

/// Bytes of memory held for `rejected` events.
pub fn held_bytes(rejected: &[Rejected]) -> usize {
    rejected.iter().map(Rejected::held_bytes).sum()
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct IndexRange {
    first_index: usize,
    last_index: usize,
}

#[derive(Default, Serialize)]
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

/// The answer to a settled request with one event.
pub fn single<T>(topic: &str, job: &Job<T>, retry_after: Duration) -> Answer {
    match &job.outcomes[..] {
        [Outcome::Acknowledged(receipt)] => receipt_for(topic, *receipt),
        [Outcome::TooLarge(text)] => Answer::error(ErrorTag::EventTooLarge, text),
        [Outcome::Rejected(text)] => Answer::error(ErrorTag::RejectedByKafka, text),
        [Outcome::Unacknowledged(text)] => {
            Answer::error(ErrorTag::NotAcknowledged, text).retry_after(retry_after)
        }
        _ => Answer::error(ErrorTag::Internal, "the event has no outcome; this is a bug"),
    }
}

/// A 200 for a request whose single event is in Kafka.
fn receipt_for(topic: &str, receipt: Receipt) -> Answer {
    let mut body = Vec::with_capacity(64 + topic.len());
    let Receipt { partition, offset } = receipt;
    // A topic name needs no escaping; see `config::kafka`.
    let _ = write!(body, r#"{{"status":"ok","topic":"{topic}","partition":{partition},"offset":{offset}}}"#);
    Answer::new(Status::Ok, JSON, body)
}

/// The answer to a settled request with several events, including those that were `rejected` before.
pub fn batch<T>(topic: &str, job: &Job<T>, rejected: &[Rejected], retry_after: Duration) -> Answer {
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
        Some(Rejected { index, error: ErrorTag::RejectedByKafka.as_str(), message: text.to_string() })
    }));
    errors.sort_by_key(|error| error.index);
    let (status, word) = match (failure, retryable) {
        (Some(_), true) => (Status::ServiceUnavailable, "incomplete"),
        (None, _) if errors.is_empty() => (Status::Ok, "ok"),
        (None, _) if accepted == 0 => (Status::BadRequest, "rejected"),
        _ => (Status::Partial, "partial"),
    };
    let body = BatchBody {
        status: word,
        topic,
        accepted,
        rejected: errors.len(),
        receipts: job.receipt_ranges(),
        errors: &errors,
        unacknowledged: unacknowledged(job, &places),
        message: failure,
        retryable,
    };
    let answer = Answer::json(status, &body);
    if retryable { answer.retry_after(retry_after) } else { answer }
}

/// A 400 for a request without a valid event.
pub fn all_rejected(topic: &str, rejected: &[Rejected]) -> Answer {
    let body = BatchBody {
        status: "rejected",
        topic,
        rejected: rejected.len(),
        errors: rejected,
        message: Some("no event in this request is valid"),
        ..BatchBody::default()
    };
    Answer::json(Status::BadRequest, &body)
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

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::producer::job::tests::job;

    const SECOND: Duration = Duration::from_secs(1);

    fn body(answer: &Answer) -> serde_json::Value {
        serde_json::from_slice(&answer.body).expect("a body is JSON")
    }

    fn acknowledged(offset: i64) -> Outcome {
        Outcome::Acknowledged(Receipt { partition: 2, offset })
    }

    #[test]
    fn a_receipt_has_the_promised_bytes() {
        let answer = receipt_for("events", Receipt { partition: 0, offset: 42 });
        assert_eq!(&*answer.body, br#"{"status":"ok","topic":"events","partition":0,"offset":42}"#);
    }

    #[test]
    fn a_batch_answer_follows_what_became_of_its_events() {
        let rejected = [Rejected { index: 1, error: "not_json", message: "line 1".into() }];
        let mut done = job(&["a", "b"], Instant::now(), ());
        (done.outcomes[0], done.outcomes[1]) = (acknowledged(4), acknowledged(5));
        assert_eq!(batch("events", &done, &[], SECOND).status, Status::Ok);
        let partial = batch("events", &done, &rejected, SECOND);
        assert_eq!((partial.status, &body(&partial)["accepted"]), (Status::Partial, &2.into()));
        let receipts = serde_json::json!([{"partition": 2, "first_offset": 4, "last_offset": 5}]);
        assert_eq!(body(&partial)["receipts"], receipts);
        done.outcomes[1] = Outcome::Unacknowledged("too slow".into());
        let incomplete = batch("events", &done, &rejected, SECOND);
        assert_eq!(incomplete.status, Status::ServiceUnavailable);
        assert_eq!(incomplete.headers, [("Retry-After", "1".into())]);
        let missing = serde_json::json!([{"first_index": 2, "last_index": 2}]);
        assert_eq!(body(&incomplete)["unacknowledged"], missing);
        assert_eq!(all_rejected("events", &rejected).status, Status::BadRequest);
    }

    #[test]
    fn what_kafka_rejects_is_named_like_what_we_reject() {
        let by_us = [Rejected { index: 1, error: "not_json", message: "line 1".into() }];
        let mut done = job(&["a", "b"], Instant::now(), ());
        (done.outcomes[0], done.outcomes[1]) = (Outcome::Rejected("no key".into()), acknowledged(5));
        let partial = batch("events", &done, &by_us, SECOND);
        let errors = serde_json::json!([{"index": 0, "error": "rejected_by_kafka", "message": "no key"},
            {"index": 1, "error": "not_json", "message": "line 1"}]);
        assert_eq!((partial.status, &body(&partial)["errors"]), (Status::Partial, &errors));
        assert_eq!(body(&partial)["unacknowledged"], serde_json::Value::Null);
        done.outcomes[1] = Outcome::Unacknowledged("too slow".into());
        let incomplete = batch("events", &done, &by_us, SECOND);
        let missing = serde_json::json!([{"first_index": 2, "last_index": 2}]);
        assert_eq!(incomplete.status, Status::ServiceUnavailable);
        assert_eq!(body(&incomplete)["unacknowledged"], missing);
        done.outcomes[1] = Outcome::Rejected("no key".into());
        let none = batch("events", &done, &by_us, SECOND);
        assert_eq!((none.status, &body(&none)["status"]), (Status::BadRequest, &"rejected".into()));
        let mut alone = job(&["a"], Instant::now(), ());
        alone.outcomes[0] = Outcome::Rejected("no key".into());
        let answer = single("events", &alone, SECOND);
        assert_eq!(
            (answer.status, &body(&answer)["error"]),
            (Status::BadRequest, &"rejected_by_kafka".into())
        );
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
